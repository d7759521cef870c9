/* pools.h: the backend that is static pools, as nutcracker has them: RESP and memcached clients on one side, servers
 * chosen by the key on the other; no cluster, no failover, no state but the connections and who is ejected.  Every
 * worker has connections of its own to every server.  All functions are the main thread's. */
#ifndef COVEY_PROXY_POOL_POOLS_H
#define COVEY_PROXY_POOL_POOLS_H

#include "proxy/front/front.h"

struct pools;

/* Before the front is started: reads the file of the front's configuration, listens, and offers statistics.  NULL: the
 * log says why. */
MUST_USE struct pools *pools_create(struct front *f);
/* Reads the file again; a file with a mistake changes nothing (false; the log says why). */
bool pools_reload(struct pools *p);
/* Nobody is shown statistics any more. */
void pools_close_stats(struct pools *p);
/* Appends what Prometheus is told of them: families that begin with covey_proxy_pool_. */
void pools_metrics(struct pools *p, struct buf *b);
/* Behind front_stop(), when no client is left. */
void pools_destroy(struct pools *p);
/* Prints what the statistics mean. */
void pools_describe_stats(void);
/* Reads a file and says to standard error whether it is good: the exit status. */
int pools_test_file(const char *path);

#endif
