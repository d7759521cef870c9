/* replication.h: both ends of replication as the data node uses them; inside src/server only. */
#ifndef COVEY_SERVER_REPLICATION_H
#define COVEY_SERVER_REPLICATION_H

#include "server/conn.h"

/* Asked by the replica's link before it gives its dataset up for a primary's. */
struct replication_guard {
    void *ctx;
    bool (*accept_full_sync)(void *ctx, const char *id, uint64_t offset);
    void (*name)(void *ctx, char out[REPLID_LENGTH + 1]); /* of this node in its cluster; may be NULL */
    void (*synced)(void *ctx); /* the link is up: from here on we have what the primary has; may be NULL */
};

struct replication *replication_create(struct node *n);
void replication_set_guard(struct replication *r, struct replication_guard guard); /* before replication_start() */
/* Starts the threads; after the dataset was loaded.  `replicaof` of the configuration takes effect here. */
void replication_start(struct replication *r);

/* ---- asked on every command: atomics only ---- */
bool replication_is_replica(const struct replication *r);
bool replication_link_up(const struct replication *r);         /* to our primary */
bool replication_enough_replicas(const struct replication *r); /* min-replicas-to-write */

/* min-replicas-to-ack: false when a write that so many replicas have to acknowledge is not worth trying. */
bool replication_enough_acks(const struct replication *r, int64_t replicas);

/* Sends the replicas what the log holds; from a worker at the end of its turn.  Never blocks.  Gives the offset up to
 * which they were sent it (UINT64_MAX: there are none): less than the end if another thread is at it. */
uint64_t replication_flush(struct replication *r);
/* The same offset; workers with wants_sent are poked when it has moved on from there. */
uint64_t replication_want_sent(struct replication *r);
/* Replies of this turn wait for acknowledgements; inside the gate. */
void replication_want_acks(struct replication *r);
/* Lets clients in WAIT go on whose condition or time is reached; on the worker's thread. */
void replication_check_waits(struct worker *w);
/* The link to the primary gives its free pages back to the system (all: as mem_collect() has it), soon. */
void replication_trim(struct replication *r, bool all);

/* Which replicas have to acknowledge writes (cluster/core/noloss.c); from the cluster's thread. */
struct cluster_required;
void replication_require(struct replication *r, const struct cluster_required *required);
/* After a failover that our old primary agreed to: it is about to be a replica, so writes are held for it, not refused.
 */
void replication_expect_members(struct replication *r);
struct hub_ack;
size_t replication_acks(struct replication *r, struct hub_ack *out, size_t max); /* returns how many; any thread */

/* ---- control; any thread outside the gate ---- */
/* Becomes (or stays) a replica of that address. */
void replication_follow(struct replication *r, const char *host, int port);
/* Becomes a primary: a new id, the old one kept as the second; nothing happens on a primary. */
void replication_promote(struct replication *r);

/* The same with the server at rest. */
void replication_promote_at_rest(struct replication *r);
/* Becomes a replica of a replica, which takes the role (FAILOVER); failover_answered() is told how it went. */
void replication_hand_over(struct replication *r, const char *host, int port);
/* Our replicas. */
struct hub_replica;
void replication_each_replica(struct replication *r, void (*visit)(void *ctx, const struct hub_replica *h), void *ctx);
int replication_replica_count(const struct replication *r);
void replication_ask_ack(struct replication *r);

/* Sealed, the applier stops at the next command or EXEC boundary; what comes in waits.  Any thread. */
void replication_seal(struct replication *r, bool sealed);
bool replication_applying(const struct replication *r); /* a batch of the stream is being executed */
/* While set, PSYNC is answered -NOMASTERLINK, so that replicas keep what they have. */
void replication_refuse_sync(struct replication *r, bool refuse);

/* What the cluster needs to know; any thread. */
struct replication_facts {
    bool is_replica, link_up, loading, syncing;
    uint64_t offset;     /* applied, or produced on a primary */
    int64_t data_age_ms; /* replica: since the last word from the primary; INT64_MAX: never had data */
};
void replication_facts(const struct replication *r, struct replication_facts *out);

/* For the RDB that is saved: id, offset and selected database of the stream. */
struct replication_position {
    char id[REPLID_LENGTH + 1];
    int64_t offset;
    int db;
};
void replication_position(struct replication *r, struct replication_position *out);
/* What the RDB loaded at the start said. */
void replication_restore(struct replication *r, const struct replication_position *p);

/* INFO replication's lines; CLIENT LIST's lines of the links ("normal" clients are not among them); CLIENT KILL. */
void replication_info(struct replication *r, struct buf *out);
enum link_kind { LINK_REPLICAS = 1, LINK_PRIMARY = 2 };
void replication_client_list(struct replication *r, struct buf *out, unsigned kinds);
/* Cuts links (id 0: all of those kinds); returns how many. */
int replication_kill_links(struct replication *r, unsigned kinds, uint64_t id, const char *addr, const char *user);

#endif
