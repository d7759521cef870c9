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

#endif
