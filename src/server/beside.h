/* beside.h: the proxy inside the node's process (proxy-port); inside src/server only. */
#ifndef COVEY_SERVER_BESIDE_H
#define COVEY_SERVER_BESIDE_H

#include "server/node.h"
#include "server/server.h"

/* Starts it if the configuration asks for it; beside stays the caller's.  False: the log says why. */
bool beside_start(struct node *n, const struct server_beside *beside);
/* The users have changed; with the server at rest.  renewed: see server.h. */
void beside_users_changed(struct node *n, bool renewed);
/* An option has changed; with the server at rest. */
void beside_reconfigure(struct node *n, enum config_id id);
/* The cluster's map has changed; any thread, returns at once. */
void beside_map_changed(struct node *n);
/* It follows another node than before, or none; any thread, returns at once. */
void beside_role_changed(struct node *n);
/* Its clients are seen off (false: the node goes on after all), and how many are left; any thread. */
void beside_leave(struct node *n, bool on);
int64_t beside_clients(const struct node *n);
/* How many descriptors it may need. */
int64_t beside_fds(const struct config *cfg);

#endif
