/* sums.h: the workers' counters added up; inside src/proxy/cluster only.  Any thread while the workers are there. */
#ifndef COVEY_PROXY_CLUSTER_SUMS_H
#define COVEY_PROXY_CLUSTER_SUMS_H

#include "proxy/cluster/worker.h"

void sum_stats(const struct proxy *p, struct worker_stats *out);

#endif
