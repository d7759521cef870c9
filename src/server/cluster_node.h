/* cluster_node.h: the data node's side of its cluster: starting and stopping it, and what it may ask of the node;
 * inside src/server only. */
#ifndef COVEY_SERVER_CLUSTER_NODE_H
#define COVEY_SERVER_CLUSTER_NODE_H

#include "cluster/core/message.h"
#include "server/conn.h"

struct cluster_state {
    int refusals; /* of full syncs from a primary that came back with less, since the last one; the cluster's thread */
    int bus_port; /* where the bus listens, for as long as the process lives */
};

/* Reads (or makes) nodes.conf, takes its lock, opens the bus port; sets n->cluster.  False: it is in the log why. */
bool cluster_node_create(struct node *n);
/* After the dataset was loaded: checks it against the slots, starts the bus thread. */
bool cluster_node_start(struct node *n);
/* cluster-* options changed; not from the cluster's thread. */
void cluster_node_reconfigure(struct node *n);
/* The last words of an orderly shutdown. */
void cluster_node_stop(struct node *n);

#endif
