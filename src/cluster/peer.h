/* peer.h: a question to another node's client port, asked by a thread of its own; inside src/cluster only. */
#ifndef COVEY_CLUSTER_PEER_H
#define COVEY_CLUSTER_PEER_H

#include "cluster/core/core.h"
#include "net/tls.h"

struct peer_question {
    struct cluster_id node;
    char ip[CLUSTER_IP_SIZE + 1];
    int port;
    int64_t timeout_ms;
    bool yield; /* CLUSTER FAILOVER FORCE; else INFO replication */
    struct buf user, password;
    struct tls *tls; /* NULL: plain */
    void *ctx;
    /* On the asking thread.  Takes the question. ok: it was answered; history is that of INFO replication. */
    void (*answered)(struct peer_question *q, bool ok, const struct cluster_history *history);
};

/* Takes q. */
void peer_ask(struct peer_question *q);
void peer_question_free(struct peer_question *q);

#endif
