/* beside.h: the proxy inside the node's process (proxy-port); inside src/server only. */
#ifndef COVEY_SERVER_BESIDE_H
#define COVEY_SERVER_BESIDE_H

#include "server/node.h"
#include "server/server.h"

/* Starts it if the configuration asks for it.  False: the log says why. */
bool beside_start(struct node *n, const struct server_beside *beside);
/* How many descriptors it may need. */
int64_t beside_fds(const struct config *cfg);

#endif
