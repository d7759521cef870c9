/* sums.h: the workers' counters added up; inside src/proxy/cluster only.  Any thread while the workers are there. */
#ifndef COVEY_PROXY_CLUSTER_SUMS_H
#define COVEY_PROXY_CLUSTER_SUMS_H

#include "proxy/cluster/worker.h"

struct command_sum {
    uint64_t calls, rejected, failed, us;
};

void sum_stats(const struct proxy *p, struct worker_stats *out);
struct command_sum sum_command(const struct proxy *p, int id);
/* False: it was never timed. */
bool sum_latency(const struct proxy *p, int id, struct histogram *out);
/* Under measures.mu: a counter of struct node_counts, by its offset. */
uint64_t sum_node(const struct proxy *p, const struct measured_node *n, size_t offset);
#define SUM_NODE(p, n, field) sum_node(p, n, offsetof(struct node_counts, field))
void sum_node_latency(const struct proxy *p, const struct measured_node *n, struct histogram *out);

#endif
