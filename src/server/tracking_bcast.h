/* tracking_bcast.h: the BCAST mode of CLIENT TRACKING; inside src/server/tracking*.c only. */
#ifndef COVEY_SERVER_TRACKING_BCAST_H
#define COVEY_SERVER_TRACKING_BCAST_H

#include "server/tracking.h"

struct bcast;
struct bcast_worker;

struct bcast *bcast_create(struct node *n);
struct bcast_worker *bcast_worker_create(void);
bool bcast_active(const struct bcast *b); /* cheap; any thread */
size_t bcast_prefixes(const struct bcast *b);
/* On the connection's thread.  A prefix it has joined already is left alone. */
void bcast_join(struct bcast *b, struct conn *c, struct bytes prefix);
void bcast_leave(struct bcast *b, struct conn *c); /* all of them */
/* Mails the key to the workers that have members of a prefix of it.  Any thread; slots may be held. */
void bcast_key_changed(struct bcast *b, struct bytes key, uint64_t by);
void bcast_run(struct worker *w, struct bcast_worker *q);

/* ---- given by tracking.c ---- */
/* Tells one client of the keys in an encoded array. */
void tracking_give(struct conn *c, struct bytes array);
struct bcast_worker *tracking_bcast_of(struct worker *w);

#endif
