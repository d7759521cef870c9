/* acl_node.h: the node's users: read from redis.conf or their own file, logging in, refusals; inside src/server only.
 * Users change with the server at rest; whoever is inside the gate may read them and point to them. */
#ifndef COVEY_SERVER_ACL_NODE_H
#define COVEY_SERVER_ACL_NODE_H

#include "access/access.h"
#include "server/conn.h"

/* At the start, before any other thread: the users of redis.conf or of the ACL file.  False: the reason was logged. */
bool acl_node_create(struct node *n);
/* After the users changed; renewed: all but the default user are new ones. */
void acl_node_changed(struct node *n, bool renewed);
/* CONFIG SET of an option that matters here; at rest. */
void acl_node_reconfigure(struct node *n, enum config_id id);

/* A connection as it is before it logs in. */
void acl_greet(struct conn *c);
/* AUTH and HELLO AUTH: true if the connection is that user's now; a refusal is logged. */
MUST_USE bool acl_log_in(struct call *call, struct bytes user, struct bytes password);
/* Whether the connection has to log in before anything else. */
static inline bool acl_must_log_in(const struct conn *c)
{
    return !c->authenticated && atomic_load_explicit(&c->worker->node->auth_required, memory_order_relaxed);
}

/* Disconnects whoever is logged in as u, of which nothing is left behind; at rest.  me is told its reply first. */
void acl_disconnect(struct node *n, const struct acl_user *u, struct conn *me);

/* Disconnects listeners that u does not let listen any more; at rest, after u changed. */
void acl_disconnect_listeners(struct node *n, const struct acl_user *u, struct conn *me);

#endif
