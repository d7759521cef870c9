/* cluster.h: the backend that is a cluster: one address in front of it for clients that know nothing of clusters.
 *
 * It learns from the nodes who serves which slot, sends every request to the right one over a few shared connections a
 * worker, and replies in each client's order.  Redirections and failovers are dealt with inside: requests of a slot
 * whose node is away wait, within limits.  All functions are the main thread's. */
#ifndef COVEY_PROXY_CLUSTER_CLUSTER_H
#define COVEY_PROXY_CLUSTER_CLUSTER_H

#include "proxy/cluster/own.h"
#include "proxy/front/front.h"

struct proxy;

/* Before the front is started; with a part in each of its workers.  own is copied; NULL: the process is no node.  NULL:
 * the log says why. */
struct proxy *proxy_cluster_create(struct front *f, const struct own_node *own);
/* The own node has another view of the cluster; any thread, cheap. */
void proxy_cluster_own_changed(struct proxy *p);
/* Starts to look at the cluster. */
void proxy_cluster_start(struct proxy *p);
/* Whether the cluster has been seen. */
bool proxy_cluster_is_known(const struct proxy *p);
/* Listens where the front's configuration says and nobody listens yet, and no more where it does not say so.  False:
 * nothing has changed, and the log says why. */
MUST_USE bool proxy_cluster_listen(struct proxy *p);
/* The front has another configuration. */
void proxy_cluster_configure(struct proxy *p);
/* Appends what Prometheus is told of it: families that begin with covey_proxy_. */
void proxy_cluster_metrics(struct proxy *p, struct buf *b);
/* No look at the cluster any more; before front_stop(). */
void proxy_cluster_stop(struct proxy *p);
/* Behind front_stop(), when no client is left. */
void proxy_cluster_destroy(struct proxy *p);

#endif
