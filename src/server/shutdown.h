/* shutdown.h: the orderly end of a data node; inside src/server only. */
#ifndef COVEY_SERVER_SHUTDOWN_H
#define COVEY_SERVER_SHUTDOWN_H

#include "server/node.h"

struct shutdown *shutdown_create(void);
/* SIGTERM or SIGINT: waits for replicas up to shutdown-timeout (shutdown_tick() goes on), saves as the options for the
 * signal say, and ends the process; comes back if that failed.  On the main thread. */
void shutdown_on_signal(struct node *n, int signal);
/* Ten times a second, on the main thread. */
void shutdown_tick(struct node *n);
/* Milliseconds that a shutdown may still wait for replicas; -1: none does.  Any thread. */
int64_t shutdown_in_ms(const struct node *n);
/* What precedes the end: files are written, connections of replicas flushed.  With the server at rest; false: that
 * failed, and the server can go on. */
bool shutdown_prepare(struct node *n);

#endif
