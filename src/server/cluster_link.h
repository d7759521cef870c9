/* cluster_link.h: what the data node asks of its cluster; inside src/server only.  Everything here is for workers: it
 * reads published state (atomics) and takes no lock but for redirections and CLUSTER commands. */
#ifndef COVEY_SERVER_CLUSTER_LINK_H
#define COVEY_SERVER_CLUSTER_LINK_H

#include "server/conn.h"

/* Whether the node may execute a call on these slots now.  Called with the slots' locks held (or the server at rest);
 * `keys` are all keys of the call, or of all commands of an EXEC (call->cmd is EXEC's then).  `write`: the call, or one
 * of those commands, changes the dataset.  True: go on.  False: the redirection or error was replied. */
bool cluster_route(struct conn *c, struct call *call, const struct key *keys, size_t n, bool write);
/* The same without the locks, to tell a client where to go before telling it what else is in the way.  True only means
 * that nothing can be said yet: cluster_route() has to follow before anything is executed. */
bool cluster_route_unlocked(struct conn *c, struct call *call, const struct key *keys, size_t n, bool write);
/* The same for the shard channels of a call (SSUBSCRIBE, SUNSUBSCRIBE, SPUBLISH; true for all others): they need no
 * lock, because a worker ends subscriptions to slots that were lost on its own thread.  Any mode. */
bool cluster_route_channels(struct conn *c, struct call *call);

/* Why a command of a script may not touch these keys here, although the script may run; an error without '-'.  NULL: it
 * may.  The keys' slots need not be locked. */
const char *cluster_script_objection(struct conn *c, const struct call *call, const struct key *keys, size_t n,
                                     bool write);

/* Whether all slots there are belong to this node and none is on its way; in a cluster. */
bool cluster_serves_all(const struct conn *c);
/* Whether this node serves the slot and it is not on its way; true without a cluster. */
bool cluster_keeps_slot(const struct node *n, unsigned slot);

#endif
