/* nodes.h: what is counted of each server that a proxy sends requests to, by worker.
 *
 * Counters belong to one worker and one node; they are atomics that only this worker writes, and are added up by
 * whoever reports.  A node is known by its name in a group (a pool; "" where there is none) as long as a worker uses
 * it, and for ten minutes more: a cluster whose nodes change their addresses must not grow here. Threads: the registry
 * has a lock, a leaf; reports hold it while they look at nodes. */
#ifndef COVEY_OBSERVE_NODES_H
#define COVEY_OBSERVE_NODES_H

#include "base/bytes.h"
#include "base/histogram.h"
#include "base/list.h"

#include <pthread.h>
#include <stdatomic.h>

struct node_counts {
    _Atomic uint64_t failed;     /* error replies */
    _Atomic uint64_t us;         /* the sum of all latencies */
    _Atomic uint64_t links;      /* open now */
    struct histogram latency;    /* microseconds from sending to the reply */
    _Atomic uint64_t requests[]; /* by command */
};

enum node_state { NODE_UNTRIED, NODE_UP, NODE_DOWN };

struct measured_node {
    struct list link; /* in node_registry.nodes */
    char *group, *name;
    unsigned users;               /* under the lock */
    int64_t unused_ms;            /* since when there are none; under the lock */
    _Atomic int state;            /* enum node_state */
    _Atomic int64_t log_ms;       /* when its trouble was logged last */
    struct node_counts *counts[]; /* by worker, or NULL; set under the lock */
};

struct node_registry {
    pthread_mutex_t mu;
    struct list nodes;
    int workers;
    unsigned commands;
};

void node_registry_init(struct node_registry *r, int workers, unsigned commands);
void node_registry_deinit(struct node_registry *r);

/* A worker begins to use a node; *counts are its own there.  And ends to use it.  Time: monotonic. */
struct measured_node *node_begin(struct node_registry *r, const char *group, const char *name, int worker,
                                 int64_t now_ms, struct node_counts **counts);
void node_end(struct node_registry *r, struct measured_node *n, int64_t now_ms);

/* A connection to it was made; it was lost, or refused.  Logs what is new.  Any thread. */
void node_is_up(struct measured_node *n);
void node_has_trouble(struct measured_node *n, bool was_connected, const char *why, int64_t now_ms);

/* Under the lock: sums over the workers.  offset: of a counter in struct node_counts. */
uint64_t node_sum(const struct node_registry *r, const struct measured_node *n, size_t offset);
uint64_t node_sum_requests(const struct node_registry *r, const struct measured_node *n);
void node_sum_latency(const struct node_registry *r, const struct measured_node *n, struct histogram *out);

/* The lines of INFO about the nodes of the group (NULL: of all).  Takes the lock. */
void nodes_write_info(struct node_registry *r, const char *group, struct buf *b);
/* Appends the families of all nodes: <prefix>_requests_total{backend,command} and <prefix>_backend_...; group: the name
 * of the label that tells the group, or NULL.  Takes the lock. */
void nodes_write_metrics(struct node_registry *r, const char *prefix, const char *group,
                         const char *(*command_name)(unsigned command), struct buf *b);

#endif
