/* crowd.h: a question to all workers, whose answers become one reply; inside src/proxy/cluster only.
 *
 * The client that asks does nothing else meanwhile, and may be gone when the answers are there. */
#ifndef COVEY_PROXY_CLUSTER_CROWD_H
#define COVEY_PROXY_CLUSTER_CROWD_H

#include "proxy/cluster/worker.h"

struct crowd {
    struct mail mail; /* the way back */
    struct worker *asker;
    uint64_t client_id;
    struct request *request; /* compared, never dereferenced before it is found again */
    _Atomic int left;
    int workers;
    /* On each worker's thread; at: where its answer goes. */
    void (*ask)(struct worker *w, const struct crowd *q, int at);
    /* On the asker's thread, when all have answered. */
    void (*reply)(const struct crowd *q, struct client *c, struct resp_out *o);
    void *question; /* owned, one allocation */
    struct buf *texts;
    int64_t *numbers;
};

/* When nothing else of the client is under way (route_alone()).  Takes question. */
void crowd_ask(struct client *c, const struct command *cmd, void *question,
               void (*ask)(struct worker *w, const struct crowd *q, int at),
               void (*reply)(const struct crowd *q, struct client *c, struct resp_out *o));
int64_t crowd_sum(const struct crowd *q);

#endif
