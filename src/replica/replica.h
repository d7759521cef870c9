/* replica.h: both ends of PSYNC: the public face of src/replica/.
 *
 * DOWNSTREAM sends the change log to replicas.  A replica's connection comes from a worker with its PSYNC; from then on
 * the hub owns it: one thread of its own reads acknowledgements and does the waiting; the stream itself is written by
 * whoever has just appended to the log (hub_flush()), before replies leave.  A full sync is a snapshot written straight
 * to the socket by a thread of its own, without a fork; what is written meanwhile waits in the log, up to the output
 * limit.
 *
 * UPSTREAM is a replica's link to its primary: one thread that connects, shakes hands, receives the snapshot into a
 * file, and hands the stream to the applier command by command.
 *
 * Source of the protocol: the replication of redis-server 7.0. */
#ifndef COVEY_REPLICA_REPLICA_H
#define COVEY_REPLICA_REPLICA_H

#include "change/change.h"
#include "net/tls.h"
#include "persist/persist.h"
#include "resp/resp.h"

/* ---- downstream ---- */

struct hub;

struct hub_limits {
    uint64_t hard, soft; /* bytes of log a replica may be behind; 0: no limit */
    int64_t soft_seconds;
    int64_t timeout_ms;     /* repl-timeout */
    int64_t ping_period_ms; /* repl-ping-replica-period */
    int64_t max_lag_ms;     /* min-replicas-max-lag */
    int64_t backlog_ttl_s;  /* repl-backlog-ttl; 0: the backlog stays */
    bool few_packets;       /* repl-disable-tcp-nodelay */
};

/* What the hub needs from the node; called from the hub's threads. */
struct hub_host {
    void *ctx;
    struct gate *gate;
    struct change_log *log;
    /* The limits in force now. */
    void (*limits)(void *ctx, struct hub_limits *out);
    /* With the server at rest: starts recording if needed and opens a snapshot at *offset, named by *options
     * (replication fields filled in).  NULL: not now (no cut is free). */
    struct cut *(*snapshot)(void *ctx, struct rdb_options *options, uint64_t *offset);
    struct store *store;
    /* The directory for snapshots that must be spooled (replicas without the EOF form). */
    void (*directory)(void *ctx, struct buf *out);
    /* True when a snapshot keeps so much memory for a slow replica that the rest is to be taken aside, into a file. */
    bool (*hurried)(void *ctx);
    /* True while the node must not feed the stream by itself (it is a replica, or paused for a failover). */
    bool (*quiet)(void *ctx);
    /* An acknowledgement came: clients in WAIT may go on. */
    void (*acked)(void *ctx);
    /* A PING was put into the stream, or a replica goes on under the present id: whoever keeps this node's place in its
     * history notes it anew. */
    void (*moved)(void *ctx);
    /* The stream was sent further, as somebody wanted to know: hub_want_sent(). */
    void (*sent)(void *ctx);
    _Atomic uint64_t *sync_full, *sync_partial_ok, *sync_partial_err;
};

/* A replica's request, as its connection collected it. */
enum { HUB_USER_MAX = 128 };

struct hub_request {
    int fd;                     /* taken */
    struct tls_session *tls;    /* taken; NULL: plain */
    char peer[NET_ADDRESS_MAX]; /* for the log */
    char announced_ip[NET_ADDRESS_MAX];
    int listening_port;
    bool capa_eof, capa_psync2, old_sync;
    bool rdb_only;                /* it wants the snapshot and then nothing more: the connection is closed behind it */
    bool no_keys, no_libraries;   /* left out of its snapshot */
    char node[REPLID_LENGTH + 1]; /* its name in the cluster, if it told; "" */
    bool capa_acks;               /* after a GETACK it acknowledges each batch for a while without being asked */
    char id[REPLID_LENGTH + 1];   /* what PSYNC asked for; "?" for a full sync */
    int64_t offset;
    uint64_t client_id;
    char user[HUB_USER_MAX]; /* who it is logged in as; a longer name is cut */
};

struct hub_ack {
    char node[REPLID_LENGTH + 1]; /* "": it did not tell */
    uint64_t offset;
};

struct hub *hub_create(struct hub_host host);
void hub_start(struct hub *h);
/* Takes the connection over; any thread. */
void hub_add(struct hub *h, const struct hub_request *request);
/* Writes what the log holds to every replica that is online, without blocking; any thread.  Gives the offset up to
 * which that is done (a replica whose socket is full counts as served); UINT64_MAX: none is online. */
uint64_t hub_flush(struct hub *h);
/* The same offset; calls host.sent once it has moved on from there. */
uint64_t hub_want_sent(struct hub *h);
/* Cuts connections: id 0, addr NULL and user NULL mean all; returns how many. */
int hub_kill(struct hub *h, uint64_t client_id, const char *addr, const char *user);
/* Asks all replicas to acknowledge (REPLCONF GETACK). */
void hub_ask_ack(struct hub *h);
/* At the end of a turn in which a reply began to wait for acknowledgements: asks for them where that is needed. Covey's
 * replicas acknowledge each batch by themselves for a second after they were asked. */
void hub_want_acks(struct hub *h);
/* What the replicas in sync have acknowledged: fills in at most max offsets; returns how many. */
size_t hub_acks(struct hub *h, struct hub_ack *out, size_t max);
/* Monotonic time at which the number of replicas online last fell below what it had been; 0: never. */
int64_t hub_fell_ms(const struct hub *h);
int hub_online(const struct hub *h);

/* Why a replica could not go on from where it stood. */
enum hub_full_why {
    HUB_FULL_ASKED,    /* it asked for everything */
    HUB_FULL_HISTORY,  /* it has a history that is not known here */
    HUB_FULL_DIVERGED, /* it went on where this history ends */
    HUB_FULL_BACKLOG,  /* the backlog does not reach back to it */
    HUB_FULL_REASONS
};
/* How often that was the reason. */
uint64_t hub_full_count(const struct hub *h, enum hub_full_why why);
/* How many replicas have acknowledged this offset. */
int hub_count_acked(struct hub *h, uint64_t offset);
/* How many replicas have said that they have it on their disks (REPLCONF ACK ... FACK). */
int hub_count_synced(struct hub *h, uint64_t offset);
/* Replicas that are online and heard of within max_lag (recounted every second); any thread. */
int hub_good_replicas(const struct hub *h);
int hub_replica_count(const struct hub *h);

struct hub_replica {
    char ip[NET_ADDRESS_MAX];
    char peer[NET_ADDRESS_MAX];
    int port;
    const char *state; /* "wait_bgsave", "send_bulk", "online" */
    uint64_t ack_offset;
    int64_t lag_s;
    uint64_t client_id;
    int64_t age_s;
    char user[HUB_USER_MAX];
};
/* Calls visit for every replica. */
void hub_each(struct hub *h, void (*visit)(void *ctx, const struct hub_replica *r), void *ctx);

/* ---- upstream ---- */

struct upstream;

enum upstream_state {
    UPSTREAM_NONE,
    UPSTREAM_CONNECT,
    UPSTREAM_CONNECTING,
    UPSTREAM_HANDSHAKE,
    UPSTREAM_SYNC,
    UPSTREAM_CONNECTED
};

/* How to connect. */
struct upstream_network {
    struct tls *tls;              /* NULL: plain */
    char source[NET_ADDRESS_MAX]; /* bind-source-addr; "" none */
    int keepalive_s;
};

/* What the link needs from the node; all called from the link's thread, outside the gate. */
struct upstream_host {
    void *ctx;
    struct change_log *log;
    /* repl-timeout in ms; port to announce; fills user and password (empty: none), the address to announce (empty:
     * none). */
    int64_t (*timeout_ms)(void *ctx);
    int (*listening_port)(void *ctx);
    /* The name of this node in its cluster; "" none. */
    void (*node_name)(void *ctx, char out[REPLID_LENGTH + 1]);
    void (*network)(void *ctx, struct upstream_network *out);
    void (*credentials)(void *ctx, struct buf *user, struct buf *password, struct buf *announce_ip);
    void (*directory)(void *ctx, struct buf *out);
    /* A primary offers a full sync at that id and offset: false refuses it (the link is closed and tried again). */
    bool (*accept_full_sync)(void *ctx, const char *id, uint64_t offset);
    /* The snapshot is complete in that file: load it in place of the dataset, which stands at `offset` of history `id`
     * then.  Another status than OK: it could not be loaded. */
    enum status (*load)(void *ctx, const char *path, const char *id, uint64_t offset);
    /* The primary goes on with our history, perhaps under another id (NULL: the same). */
    void (*resumed)(void *ctx, const char *id);
    /* One or more whole commands of the stream, as they came; executes them and appends the bytes to the log at
     * boundaries outside MULTI.  Returns how many bytes were taken (whole commands; less than n when one is
     * incomplete), E_CORRUPT when it is not a stream. *ack_wanted: a GETACK was among them. */
    enum status (*apply)(void *ctx, struct bytes stream, size_t *taken, bool *ack_wanted);
    void (*state_changed)(void *ctx, enum upstream_state state);
    /* Up to where this node's AOF is on disk; false: it has none. */
    bool (*synced)(void *ctx, uint64_t *offset);
    /* upstream_hand_over(): that node has taken the role (ok), or said that it does not. */
    void (*handed_over)(void *ctx, bool ok);
};

struct upstream *upstream_create(struct upstream_host host);
/* Follows that address from now on; "" stops.  Does not wait; what the old link still delivers fails
 * upstream_is_current(). */
void upstream_follow(struct upstream *u, const char *host, int port);
/* The same, and asks that node, a replica of ours so far, to take the role of primary first (PSYNC ... FAILOVER). */
void upstream_hand_over(struct upstream *u, const char *host, int port);
/* For host functions, on the link's thread: false when the link under way is not the one that is wanted. */
bool upstream_is_current(struct upstream *u);
/* Cuts the present connection; it is made again at once.  False: there was none. */
bool upstream_cut(struct upstream *u);
/* The link's thread calls mem_collect(all), soon, also when it follows nobody. */
void upstream_collect(struct upstream *u, bool all);

struct upstream_info {
    char host[256];
    int port;
    enum upstream_state state;
    int64_t last_io_ms;    /* monotonic; 0: never */
    int64_t down_since_ms; /* monotonic; 0: it is up, or never was */
    bool ever_synced;
    uint64_t read_offset, sync_total, sync_read;
    bool syncing;
};
void upstream_info_get(struct upstream *u, struct upstream_info *out);

#endif
