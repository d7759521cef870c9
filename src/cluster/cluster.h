/* cluster.h: the cluster of a data node: the pure core with real sockets, time and files around it.  The public face of
 * src/cluster/.
 *
 * One thread, "cluster", owns the core and the bus.  It takes no slot lock and not the gate, and never waits for a
 * disk: nodes.conf is written by a thread of its own, and messages that depend on it are held until it is durable. What
 * the rest of the node has to do (follow a primary, be promoted, delete keys) it is told through `act`, in order.
 *
 * Workers ask the slot map, which is published as atomics; the addresses behind it are under a mutex that only a
 * redirection takes.  CLUSTER commands run on the cluster's thread: the caller waits for them (cluster_run()). */
#ifndef COVEY_CLUSTER_CLUSTER_H
#define COVEY_CLUSTER_CLUSTER_H

#include "cluster/core/core.h"
#include "net/tls.h"

#include <stdatomic.h>

struct cluster;

enum cluster_act_kind {
    CLUSTER_ACT_FOLLOW, /* ip, port */
    CLUSTER_ACT_PROMOTE,
    CLUSTER_ACT_PAUSE, /* until_ms: flag is set already; drain the writers, then cluster_paused() */
    CLUSTER_ACT_UNPAUSE,
    CLUSTER_ACT_DELETE_KEYS, /* slots */
    CLUSTER_ACT_FLUSH,
};

struct cluster_act {
    enum cluster_act_kind kind;
    char ip[CLUSTER_IP_SIZE + 1];
    int port;
    int64_t until_ms; /* monotonic */
    uint8_t slots[CLUSTER_SLOT_BYTES];
};

/* What the cluster needs from the node.  Called on the cluster's thread; must return at once. */
struct cluster_host {
    void *ctx;
    /* Hands an act to whoever carries acts out, one after the other.  Takes it (mem_free()). */
    void (*act)(void *ctx, struct cluster_act *act);
    void (*facts)(void *ctx, struct cluster_facts *out);
    /* Stops writers from beginning, at once (the draining is an act), and the applier at its next boundary. */
    void (*pause)(void *ctx, int64_t until_ms);
    void (*seal)(void *ctx, bool sealed);
    /* PSYNC is refused while we are on probation. */
    void (*probation)(void *ctx, bool on);
    /* Which replicas have to acknowledge a write; from the return of this on.  May wait for the lock of the replicas'
     * hub. */
    void (*require)(void *ctx, const struct cluster_required *required);
    /* The right to write lasts longer than it did: who waits for it may go on. */
    void (*lease_moved)(void *ctx);
    /* A frame for local subscribers. */
    void (*deliver)(void *ctx, bool shard, struct bytes channel, struct bytes payload);
    /* The published map is another one: owners, addresses, roles, states. */
    void (*map_changed)(void *ctx);
    /* This shard does not have these slots any more (bitmap); the published map says so already. */
    void (*slots_lost)(void *ctx, const uint8_t *slots);
    /* User and password for asking another node of the cluster. */
    void (*credentials)(void *ctx, struct buf *user, struct buf *password);
    int64_t (*sendbuf_limit)(void *ctx); /* cluster-link-sendbuf-limit */
    /* The TLS contexts for the bus and for questions to other nodes; NULL: plain. */
    struct tls *(*tls)(void *ctx);
    void (*source)(void *ctx, char out[NET_ADDRESS_MAX]); /* bind-source-addr; "" none */
    int bus_port;                                         /* to listen on */
    unsigned socket_mark;                                 /* of listening sockets; 0: none */
};

/* path: nodes.conf; it is read, or made, and locked for as long as the process lives.  bind: addresses to listen on, as
 * in the option.  NULL: *error says why (mem_free()). */
struct cluster *cluster_new(const struct cluster_config *config, const char *path, const char *bind,
                            const struct cluster_host *host, char **error);
/* cluster-node-timeout was changed: what the links and the questions to peers go by; the core is told by itself. */
void cluster_set_node_timeout(struct cluster *c, int64_t ms);
/* cluster_synced_epoch() of the core, as of its last step; by any thread. */
uint64_t cluster_synced_epoch_now(const struct cluster *c);
/* The dataset is there: starts the core and the threads. */
void cluster_run_threads(struct cluster *c, const struct cluster_history *restored);
/* Writes nodes.conf a last time, if a write is under way waits for it. */
void cluster_shut(struct cluster *c);

/* Runs fn on the cluster's thread, with the core between two steps, and waits until it is done; actions it puts in
 * `out` are carried out before this returns.  Before cluster_run_threads() it runs at once.  Not from the cluster's own
 * thread, nor by somebody an act waits for.  Returns what to call cluster_wait_saved() with before anybody is told of a
 * change that is to be kept; 0: nothing is to be waited for. */
typedef void cluster_fn(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg);
uint64_t cluster_run(struct cluster *c, cluster_fn *fn, void *arg);
/* Waits until that change is in nodes.conf: epochs, votes and roles on the disk, everything else where it outlives the
 * process (it is on the disk within a second).  Not from the cluster's own thread. */
void cluster_wait_saved(struct cluster *c, uint64_t saved);
void cluster_paused(struct cluster *c); /* the writers stand still; from the thread that carries acts out */
/* Facts have changed that the core may wait for (applied offset, acknowledgements, the link). Any thread, cheap. */
void cluster_poke(struct cluster *c);

/* ---- the published map: any thread ---- */

enum { SLOT_MINE = 1, SLOT_ASSIGNED = 2, SLOT_MIGRATING = 4, SLOT_IMPORTING = 8, SLOT_OF_MY_PRIMARY = 16 };
unsigned cluster_slot_state(const struct cluster *c, unsigned slot);
bool cluster_is_ok(const struct cluster *c);
bool cluster_i_am_primary(const struct cluster *c);
/* Whether this node, if it is a primary, has the right to execute and acknowledge at this moment; reads the clock. */
bool cluster_may_serve(const struct cluster *c);
int64_t cluster_lease_left_ms(const struct cluster *c); /* -1: it is not limited */

struct cluster_endpoint {
    char ip[CLUSTER_IP_SIZE + 1];
    char hostname[CLUSTER_HOSTNAME_MAX + 1];
    uint16_t port, pport;
};
/* Where the slot is served, or is going to (migrating).  False: nowhere. */
bool cluster_slot_endpoint(struct cluster *c, unsigned slot, bool migration_target, struct cluster_endpoint *out);

/* A client's PUBLISH (shard: SPUBLISH), to be sent to all nodes or to the rest of this shard.  Copies both; what there
 * is no memory for is not sent.  Any thread; the messages of one thread leave in order. */
void cluster_send_message(struct cluster *c, bool shard, struct bytes channel, struct bytes payload);
/* Frames of this type are taken for lost when they arrive, for tests; -1: none.  Any thread. */
void cluster_drop_frames(struct cluster *c, int type);
/* Bytes of such messages that the cluster's thread has not come to yet; any thread. */
size_t cluster_messages_waiting(const struct cluster *c);

/* For CLUSTER LINKS: bytes waiting in a link's queue; on the cluster's thread (in a cluster_fn). */
void cluster_link_buffer(struct cluster *c, uint64_t link, size_t *used, size_t *allocated);

/* Ends a link's connection, for tests: the core hears of it as of any other that breaks.  On the cluster's thread. */
void cluster_link_cut(struct cluster *c, uint64_t link);

/* Sizes of the memory that links hold, for INFO memory; any thread. */
size_t cluster_links_memory(const struct cluster *c);

#endif
