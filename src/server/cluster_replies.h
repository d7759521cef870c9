/* cluster_replies.h: the structured replies of CLUSTER; inside src/server only.
 * Called on the cluster's thread, between two steps of the core; they append one whole reply each. */
#ifndef COVEY_SERVER_CLUSTER_REPLIES_H
#define COVEY_SERVER_CLUSTER_REPLIES_H

#include "cluster/cluster.h"
#include "resp/resp.h"

/* pport: the client uses plaintext ports beside a TLS bus; tls_bus: the first port of a node is its TLS port.
 * endpoint: ENDPOINT_IP, ENDPOINT_HOSTNAME or ENDPOINT_UNKNOWN (cluster-preferred-endpoint-type). */
void cluster_reply_slots(const struct cluster_core *core, int endpoint, bool pport, struct resp_out *out);
void cluster_reply_shards(const struct cluster_core *core, int endpoint, bool tls_bus, struct resp_out *out);
void cluster_reply_links(struct cluster *cluster, const struct cluster_core *core, struct cluster_time now,
                         struct resp_out *out);

#endif
