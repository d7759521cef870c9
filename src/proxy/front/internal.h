/* internal.h: what the parts of the front share; inside src/proxy/front only. */
#ifndef COVEY_PROXY_FRONT_INTERNAL_H
#define COVEY_PROXY_FRONT_INTERNAL_H

#include "proxy/front/front.h"

enum { TICK_MS = 100 };

/* A client for an accepted connection; takes the descriptor.  Counted already by listener and front. */
void front_client_create(struct front_worker *w, struct front_listener *l, void *target, int fd);
void front_client_close(struct front_client *c);
void front_client_resume(struct front_client *c);
void front_client_flush(struct front_client *c);
/* output.c: whether it has to be closed because of what it does not read; logs that. */
bool front_output_over(struct front_client *c);
void front_output_tick(struct front_worker *w);
/* Strangers whose time is over. */
void front_clients_tick(struct front_worker *w);
/* Those that have been silent for longer than `timeout`. */
void front_clients_idle_tick(struct front_worker *w);
/* Those that are idle are closed; what has come already is looked at first. */
void front_clients_leave(struct front_worker *w);

struct front_worker *front_worker_create(struct front *f, int id);
void front_worker_start(struct front_worker *w);
void front_worker_adopt(struct front_worker *w, struct front_listener *l, int fd); /* the main thread */
void front_worker_configure(struct front_worker *w, struct proxy_config *config);
void front_worker_leave(struct front_worker *w, enum front_leave how);
void front_worker_stop(struct front_worker *w);
void front_worker_destroy(struct front_worker *w);

void front_listener_release(struct front_listener *l); /* any thread */

#endif
