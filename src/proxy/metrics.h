/* metrics.h: /metrics for Prometheus: an HTTP port in the main thread's loop. */
#ifndef COVEY_PROXY_METRICS_H
#define COVEY_PROXY_METRICS_H

#include "http/http.h"
#include "proxy/cluster/cluster.h"
#include "proxy/pool/pools.h"

/* Stays where it is as long as the loop runs; all zero is one that does not listen. */
struct metrics {
    struct http http;
    struct front *front;
    struct proxy *cluster; /* NULL: none */
    struct pools *pools;   /* NULL: none */
    int64_t started_ms;
};

/* Listens if the front's configuration says so.  False: it cannot, which was logged. */
MUST_USE bool metrics_open(struct metrics *m, struct front *f, struct proxy *cluster, struct pools *pools);
void metrics_close(struct metrics *m);

#endif
