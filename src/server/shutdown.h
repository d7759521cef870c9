/* shutdown.h: the orderly end of a data node; inside src/server only. */
#ifndef COVEY_SERVER_SHUTDOWN_H
#define COVEY_SERVER_SHUTDOWN_H

#include "server/node.h"

/* SIGTERM or SIGINT: saves if there are save points, then the main loop ends. On the main thread. */
void shutdown_on_signal(struct node *n);
/* What precedes the end: files are written, connections of replicas flushed.  With the server at rest; false: that
 * failed, and the server can go on. */
bool shutdown_prepare(struct node *n);
bool shutdown_finished(const struct node *n);

#endif
