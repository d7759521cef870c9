/* worker.h: what the parts of a proxy worker share; inside src/proxy/cluster only.
 *
 * A worker here is the cluster's part in one of the front's workers: clients, and connections of their own to the
 * nodes. Nothing in it is touched by another thread but the counters, and the map that the topology's thread publishes.
 *
 * A request goes from its client's input into the output of a connection (struct link) in one copy.  It stays in two
 * queues: its client's, which has the order of the replies, and its link's, which has the order of the node's. */
#ifndef COVEY_PROXY_CLUSTER_WORKER_H
#define COVEY_PROXY_CLUSTER_WORKER_H

#include "base/htable.h"
#include "base/list.h"
#include "base/random.h"
#include "commands/table.h"
#include "net/net.h"
#include "proxy/cluster/decide.h"
#include "proxy/cluster/measure.h"
#include "proxy/cluster/own.h"
#include "proxy/cluster/scripts.h"
#include "proxy/cluster/topology.h"
#include "proxy/front/front.h"
#include "resp/resp.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    READ_BUFFER = 256 * 1024,
    CHUNK_BYTES = 32 * 1024,
    REPLICAS_MAX = 8, /* of a primary that are read from */
    SCRIPTS_SEEN = 64,
    TICK_MS = 100,
};

/* ---- bytes on their way to a node ---- */

/* Counted: by the link until it is written, and by every request whose bytes are in it, so that they can be sent
 * again. */
struct chunk {
    struct chunk *next; /* of the link */
    unsigned refs;
    size_t n, cap;
    char p[];
};

struct chunk *chunk_create(size_t cap); /* NULL: no memory */
void chunk_release(struct chunk *c);    /* NULL is fine */

/* ---- requests ---- */

enum request_state {
    REQUEST_NEW,
    REQUEST_SENT,  /* in a link's queue */
    REQUEST_HELD,  /* in worker.held */
    REQUEST_PARTS, /* its parts are under way */
    REQUEST_DONE,  /* its reply waits for those before it */
};

enum verdict { VERDICT_ANSWER, VERDICT_AGAIN, VERDICT_ASK, VERDICT_LATER };

struct gather;
struct backend;
struct link;
struct client;
struct worker;

struct request {
    struct front_reply reply;  /* its place in the client's queue, or in the free list */
    struct request *link_next; /* of the link */
    struct list held;
    struct client *client; /* NULL: gone; of a part: its parent's */
    struct link *link;     /* while it is sent */
    struct chunk *chunk;   /* its bytes */
    size_t offset, size;
    size_t charged;         /* in client.queued_bytes */
    size_t on_node;         /* in backend.queued_bytes */
    struct gather *gather;  /* of a request in parts */
    struct request *parent; /* of a part */
    const struct command *cmd;
    uint64_t unblocks; /* of the proxy's own: the client whose wait it ends; 0: none */
    uint64_t end_at;   /* in the bytes of the link: it cannot be executed before all up to here are written */
    int64_t hold_until, due_ms;
    uint64_t at, sent_at;     /* worker.measure.ticks when it came, and when it was sent */
    struct backend *ask;      /* where the next attempt goes, with ASKING */
    uint32_t skip, skip_left; /* replies in front of the one that counts: MULTI and QUEUED */
    uint16_t slot;
    uint16_t db, db_after; /* the latter if it selects */
    uint16_t tries;
    uint8_t state;     /* enum request_state */
    uint8_t noted;     /* enum verdict, from a skipped reply */
    bool is_safe;      /* may be executed twice */
    bool is_blocking;  /* on a connection of its own */
    bool is_mute;      /* its reply is not given */
    bool selects;      /* the connection's database is another one afterwards */
    bool is_watched;   /* EXEC on the connection that WATCHes: never sent elsewhere */
    bool is_watching;  /* WATCH itself */
    bool asking;       /* an ASKING stands in front of it */
    bool on_replica;   /* where it was sent to is one */
    bool no_replica;   /* a replica could not answer it */
    bool checking;     /* a script's error, kept in reply, is being looked into */
    bool crosses;      /* its keys are of several slots, of one node */
    bool asks_cross;   /* the node is to take keys of several slots together: it crosses, or may */
    bool permits;      /* of the proxy's own: it asks the node for that */
    bool for_all;      /* for all nodes, as many as are known when it is sent */
    uint8_t kind;      /* ... and how their replies are put together */
    bool unmarked;     /* WAIT: the node refused the write in front of it */
    bool asks_release; /* of the proxy's own: HELLO */
    bool has_scripts;  /* it is, or has among its commands, what evals_matters() */
    uint8_t script_tries;
};

struct gather {
    enum gather_kind kind;
    unsigned parts, left;
    unsigned turn; /* GATHER_RANDOM: which goes first */
    struct request **part;
    uint32_t *place; /* GATHER_VALUES: of every element, part by part */
    size_t places;
};

struct request *request_create(struct worker *w, struct client *c, const struct command *cmd, uint16_t slot);
/* Frees, out of all queues but the client's and the link's. */
void request_free(struct worker *w, struct request *r);
/* Sends or holds a new request; the bytes are borrowed. */
void request_dispatch(struct worker *w, struct request *r, struct bytes raw);
/* The node's reply came: answers, or tries again.  l: the connection, if it is still there. */
void request_replied(struct worker *w, struct link *l, struct request *r, struct bytes reply);
/* What an error means for a request; applies redirections to the worker's slots. */
enum verdict request_judge(struct worker *w, struct request *r, struct bytes reply);
/* The link broke while r was in its queue. */
void request_interrupted(struct worker *w, struct request *r, bool not_executed);
/* Gives the client this reply, in its turn; r is freed or DONE after. */
void request_answer(struct worker *w, struct request *r, struct bytes reply);
void request_answer_error(struct worker *w, struct request *r, const char *text); /* without '-' */
/* A node that serves nothing at present (it loads) has said so; or has answered otherwise. */
void node_refused(struct worker *w, struct backend *b);
void node_answered(struct worker *w, struct backend *b);
/* hold.c: tries all those that wait and are due. */
void held_run(struct worker *w);
void held_forget(struct worker *w, struct request *r);

/* split.c: makes parts; the parent is in its client's queue already. */
struct gather *gather_create(struct request *parent, enum gather_kind kind, unsigned parts);
struct request *gather_add(struct worker *w, struct gather *g, struct request *parent, unsigned i, uint16_t slot);
/* A part is DONE, its reply in part->reply. */
void gather_part_done(struct worker *w, struct request *parent);
void gather_free(struct worker *w, struct gather *g);
/* The reply of a gather whose parts are all DONE, appended to out. */
void gather_merge(const struct gather *g, struct buf *out);
/* COURSE_SPLIT over several slots. */
void split_dispatch(struct client *c, const struct command *cmd, const struct resp_request *req);

/* The same of a request that stands in its client's queue and was not executed. */
void split_again(struct worker *w, struct request *r, struct bytes raw);

/* evals.c: whether scripts are known is to be looked at before and after this command. */
bool evals_matters(const struct command *cmd);
/* It goes to a node now: what follows may rely on it. */
void evals_sent(struct worker *w, const struct command *cmd, const struct resp_request *req);
/* What r is about to run and the node may not have goes out in front of it. */
void evals_load_ahead(struct link *l, struct request *r, struct bytes raw);
/* True: the node had not the script, nothing was executed, and sending it again helps.  l: NULL if it is not there any
 * more. */
bool evals_replied(struct worker *w, struct link *l, struct request *r, struct bytes reply);
/* SCRIPT EXISTS of all nodes, whose bytes are at `reply`; part: one of its parts. */
void evals_exists(struct worker *w, const struct request *part, struct bytes merged, char *reply);
void evals_node_lost(struct backend *b); /* what it has is not known any more */

/* everywhere.c: commands about all nodes. */
/* The first slot of every node; returns how many there are.  out: SLOT_COUNT places. */
unsigned everywhere_slots(const struct worker *w, uint16_t *out);
void everywhere_dispatch(struct client *c, const struct command *cmd, enum gather_kind kind, struct bytes raw);
/* Sends a request that is for all nodes to each of them.  False: none is known, and nothing was done. */
bool everywhere_spread(struct worker *w, struct request *parent, struct bytes raw);
void scan_dispatch(struct client *c, const struct command *cmd, const struct resp_request *req);
/* A node's reply to SCAN, with the cursor of the whole cluster, appended to out.  False: it is none. */
bool scan_rewrite(struct worker *w, unsigned slot, struct bytes reply, struct buf *out);

/* ---- nodes ---- */

struct backend {
    struct list link; /* in worker.backends */
    char name[256];
    char ip[64];
    int port;
    bool in_map;                /* serves slots, as far as is known */
    bool is_own;                /* the node of this process: reached without a network */
    struct link *shared[2][16]; /* by protocol version - 2 */
    struct list links;          /* all */
    struct list by_db;          /* shared ones of databases other than 0, and those for reading from a replica */
    struct list idle[2];        /* pinned ones that nobody uses */
    int64_t retry_ms;           /* no attempt to connect before */
    unsigned failures;          /* in a row */
    unsigned refusals;          /* in a row, of a node that serves nothing at present */
    enum { VERSION_UNKNOWN, VERSION_3, VERSION_2_ONLY } version;
    int64_t version_until; /* VERSION_2_ONLY is believed */
    unsigned release;      /* of Redis whose commands it has, 0x702 for 7.2; 0: not known */
    enum { CROSSING_UNKNOWN, CROSSING_YES, CROSSING_NO } crossing; /* knows CLIENT CROSSSLOT */
    int64_t refuses_until; /* nothing is sent before; then one request is tried */
    int64_t trial_until;   /* that one is under way */
    size_t queued_bytes;   /* of requests that it has not answered */
    struct link *probe;    /* asks whether it is alive while others are silent */
    int64_t alive_ms;      /* when that was answered last */
    bool probing;          /* it has not been answered yet */
    int64_t probed_us;     /* when it was asked */
    bool is_replica;       /* of a primary in the map */
    struct backend *replicas[REPLICAS_MAX];
    unsigned replica_count;
    int64_t avoid_until; /* no reads go to this replica before */
    int64_t rtt_us;      /* how long it takes to answer, lately; 0: not known */
    int64_t offset;      /* of what it has of its primary's changes, or has made; -1: not known */
    bool in_step;        /* it has a link to its primary, as far as is known */
    _Atomic uint64_t requests;
    struct node_scripts *scripts; /* NULL: none known to be there */
    struct measured_node *measured;
    struct node_counts *counts; /* this worker's */
};

struct link {
    struct loop_source src;
    struct tls_session *tls; /* NULL: plain */
    struct worker *worker;
    struct backend *backend;
    struct list link; /* in backend.links */
    struct list idle; /* in backend.idle */
    struct list dirty;
    struct list by_db;
    int db;               /* selected; -1: unknown */
    struct client *owner; /* whose it is, while it is pinned to a client */
    bool is_pinned;       /* of the pinned kind */
    bool is_raw;          /* what comes goes to the owner as it is: a subscriber */
    bool is_probe;
    struct monitor *feeds; /* whose it is, of a connection that monitors */
    struct list feed;      /* in monitor.links */
    bool feed_begun;
    int64_t node_id;  /* of a pinned one: what the node calls it; 0: not known */
    unsigned id_in;   /* that is this reply from now */
    bool is_readonly; /* for reading from a replica */
    bool crossing;    /* CLIENT CROSSSLOT ON was sent */
    bool is_old;      /* speaks RESP2 to clients of RESP3: replies are translated */
    bool connecting;
    uint8_t proto; /* 0: RESP2, 1: RESP3 */
    unsigned slot; /* which of backend.shared */
    unsigned handshake_left;
    unsigned greeting; /* replies up to that to HELLO, of a node that may not know it: nothing is sent behind it */
    struct chunk *head, *tail;
    size_t sent; /* of head */
    uint64_t appended, written, greeting_end;
    struct buf in;
    struct resp_reply_parser parser;
    struct request *first, *last;
    int64_t last_ms; /* when it sent something, or had nothing to send */
    int64_t connect_until;
};

/* The backend of that name; NULL if there is none. */
struct backend *backend_find(struct worker *w, struct bytes name, int port);
/* The same, made when it is not there; ip may be NULL for what is an address already. */
struct backend *backend_get(struct worker *w, struct bytes name, const char *ip, int port);
/* What the map says of a node that is there: its name means this address now ("" is none), and it is the own one or
 * not. */
void backend_renew(struct backend *b, const struct map_node *n);
void backends_adopt_map(struct worker *w, struct topology_map *map);
void backends_tick(struct worker *w, int64_t now_ms);
void backends_destroy(struct worker *w);

/* A shared connection, perhaps not open yet; NULL: not now. */
struct link *node_link_shared(struct worker *w, struct backend *b, uint8_t proto, unsigned which, unsigned db);
/* A connection for one client; NULL: not now.  *full: there are too many. */
struct link *node_link_pin(struct worker *w, struct backend *b, struct client *c, bool *full);
/* Another database, on a connection of one client with nothing under way. */
void node_link_select(struct link *l, unsigned db);
/* Back into the pool when nothing is under way, else it is closed. */
void node_link_unpin(struct link *l, bool clean);
/* Closes what is kept for later while there are too many of both. */
void node_links_trim(struct worker *w);
void node_link_send(struct link *l, struct request *r, struct bytes raw);
/* The same for reading from a replica. */
struct link *node_link_readonly(struct worker *w, struct backend *b, uint8_t proto, unsigned which, unsigned db);
/* Sends other bytes, whose reply is for r; its own stay.  False: no memory. */
MUST_USE bool node_link_send_check(struct link *l, struct request *r, struct bytes raw);
/* Asks whether the node takes keys of several slots together, if that is not known. */
void node_ask_crossing(struct worker *w, struct backend *b);
/* Asks the node for its release, when that is not known; and takes it from a reply to HELLO. */
void node_ask_release(struct worker *w, struct backend *b);
void node_note_release(struct backend *b, struct bytes reply);
/* Asks on a connection of its own whether the node is alive. */
void node_probe(struct worker *w, struct backend *b);
/* replicas.c: the replica that may answer this request, of the primary b; NULL: none, or the policy forbids it. */
struct backend *replica_for(struct worker *w, const struct request *r, struct backend *b);
/* The client has been answered a write: for a while it reads what it wrote at the primary. */
void replica_note_write(struct worker *w, const struct request *r);
/* It could not answer, or its connection broke. */
void replica_failed(struct worker *w, struct backend *b);
/* The answer to node_probe(). */
void replica_told(struct worker *w, struct backend *b, struct bytes reply);
void replicas_adopt_map(struct worker *w, struct topology_map *map, struct backend **primaries);
void replicas_tick(struct worker *w, int64_t now_ms);
/* The milliseconds since the other end has acknowledged anything on this connection. */
int64_t node_link_silence(const struct link *l);
void node_link_send_raw(struct link *l, struct bytes raw); /* nobody waits for a reply */
void node_link_flush(struct link *l);
void node_link_close(struct link *l, const char *why); /* NULL: no failure; what is under way is interrupted */

/* ---- clients ---- */

struct client {
    struct front_client base;
    struct worker *worker;
    struct list link; /* in worker.clients, once its address is known */
    struct resp_parser parser;
    size_t queued_bytes; /* of what it has sent and is not answered */
    size_t reply_bytes;  /* what a reply to it has lately been */
    uint64_t epoch;      /* worker.epoch when the oldest request under way was sent; else 0 */
    uint8_t resp;
    uint16_t db;
    bool barrier;               /* nothing is read from it before its queue is empty */
    bool reply_off, reply_skip; /* CLIENT REPLY: none, or not the next one */
    bool is_mute;               /* what it asks for now is not replied to */
    char *name;
    const struct command *last_cmd;                            /* NULL: none yet */
    enum { WROTE_NOTHING, WROTE_TO_ONE, WROTE_TO_MANY } wrote; /* nodes */
    uint16_t wrote_slot;
    struct recent_writes *recent; /* replicas.c; NULL: none */
    uint64_t blockings;           /* blocking requests so far */
    struct monitor *monitoring;   /* NULL: it is none */

    bool in_multi, multi_failed, multi_selects, multi_writes, multi_crosses, multi_asks_cross, multi_scripts;
    uint16_t multi_db; /* which is selected when it has been executed */
    uint32_t multi_count;
    int multi_slot;   /* -1: no key yet */
    struct buf multi; /* the commands as they will be sent */

    struct link *pinned; /* a subscriber's, or the one that WATCHes */
    bool watching, watch_lost, watch_crosses, subscribed;
    uint16_t watch_slot;
    int64_t channels, shard_channels; /* subscriptions */
    unsigned confirming;              /* changes of them that the node has not confirmed yet */
    bool held_back;                   /* its next request is no such change: it waits for the confirmations */
    struct htable subscriptions;      /* struct subscription */
    struct list orphan;               /* in worker.orphans: its node is gone, it waits for another */
    int64_t orphan_until;
    int64_t subscribe_until; /* its first subscription waits for a node; 0: it does not */
    bool renewing;           /* confirmations are of what it was told already */
};

extern const struct front_backend cluster_front;

static inline void client_wants_write(struct client *c)
{
    front_wants_write(&c->base);
}

static inline void client_wants_resume(struct client *c)
{
    front_wants_resume(&c->base);
}

/* Its requests, in the order of the replies. */
static inline struct request *client_first(const struct client *c)
{
    return (struct request *)c->base.first;
}

static inline struct request *request_next(const struct request *r)
{
    return (struct request *)r->reply.next;
}

/* The worker's client of an ID (CLIENT ID); NULL: it has gone, or is another worker's. */
struct client *client_find(const struct worker *w, uint64_t id);
/* Puts a request at the end of its client's queue. */
void client_enqueue(struct client *c, struct request *r);
/* Its reply is in r->reply; what is at the front of the queue and there goes out. */
void client_drain(struct client *c);
/* For replies of the proxy's own: writes go into *o between the two calls. */
struct request *client_reply_begin(struct client *c, struct resp_out *o);
void client_reply_end(struct client *c, struct request *r);
void client_reply_error(struct client *c, const char *text);
void client_reply_ok(struct client *c);

enum outcome { OUTCOME_DONE, OUTCOME_NOT_NOW };
/* route.c: does what the request wants.  NOT_NOW: it is not taken, and c->barrier is set. */
enum outcome route_request(struct client *c, const struct resp_request *req, struct bytes raw);
/* Waits for the client's queue to be empty: false means NOT_NOW. */
bool route_alone(struct client *c);
/* Where the keys are.  0: no keys; 1: *slot; 2: in several slots; -1: the arguments make no sense, or say that there
 * are none. */
int route_slot(const struct command *cmd, const struct bytes *argv, size_t argc, uint16_t *slot);
/* The same for this worker's nodes: a server without cluster mode has one slot, 0. */
int route_find(const struct worker *w, const struct command *cmd, const struct resp_request *req, uint16_t *slot);
/* Whether the node is to be asked to take keys of several slots together. */
bool route_asks_cross(const struct worker *w, const struct command *cmd, bool crosses);
/* The slot by which a request without keys finds a node. */
uint16_t route_any_slot(struct client *c);

/* multi.c */
void transaction_begin(struct client *c);
void transaction_queue(struct client *c, const struct command *cmd, const struct resp_request *req, struct bytes raw);
enum outcome transaction_exec(struct client *c, const struct command *cmd);
void transaction_discard(struct client *c);
void transaction_reset(struct client *c);
enum outcome watch_dispatch(struct client *c, const struct command *cmd, const struct resp_request *req,
                            struct bytes raw);
void unwatch(struct client *c);

/* pinned.c */
enum outcome blocking_dispatch(struct client *c, const struct command *cmd, uint16_t slot, struct bytes raw,
                               bool crosses);
enum outcome subscribe_dispatch(struct client *c, const struct command *cmd, const struct resp_request *req,
                                struct bytes raw);
/* Its node is gone: looks for another and subscribes there again.  False: that cannot be done. */
bool subscriber_orphaned(struct client *c);
void orphans_run(struct worker *w); /* now and then */
/* It is no subscriber any more. */
void subscriptions_end(struct client *c);
/* Whether the user may listen to all that the client listens to. */
bool subscriptions_allowed(const struct client *c, const struct acl_user *u);
/* How many channels, or patterns, it is subscribed to. */
size_t subscriptions_count(const struct client *c, bool patterns);
/* A reply or message for a subscriber. */
void subscriber_receive(struct client *c, struct bytes reply);

/* local.c: what the proxy answers itself. */
enum outcome local_dispatch(struct client *c, const struct command *cmd, const struct resp_request *req);
/* Its line in CLIENT LIST, with a line feed. */
void client_describe(const struct client *c, struct buf *b);
/* clients.c: CLIENT.  Some of its commands ask all workers. */
bool clients_asks_all(const struct command *cmd);
enum outcome clients_ask_all(struct client *c, const struct command *cmd, const struct bytes *argv, size_t argc);
/* False: it is none of these. */
bool clients_answer(struct client *c, struct resp_out *o, const struct command *cmd, const struct bytes *argv,
                    size_t argc);
void clients_tick(struct worker *w);
/* A node has answered, or cannot answer, a request with that in `unblocks`. */
void clients_unblock_answered(struct worker *w, uint64_t id);
/* CLIENT PAUSE is on for this command; it is to be looked at again. */
bool client_must_pause(struct client *c, const struct command *cmd);
/* answers.c: what else a server says of itself, and HELP.  False: it is none of these. */
bool answers_answer(struct client *c, struct resp_out *o, const struct command *cmd, const struct bytes *argv,
                    size_t argc);
enum outcome answers_reset_stats(struct client *c, const struct command *cmd);
/* settings.c: CONFIG SET and REWRITE */
enum outcome settings_dispatch(struct client *c, const struct command *cmd, const struct resp_request *req);
/* wait.c */
enum outcome wait_dispatch(struct client *c, const struct command *cmd, const struct resp_request *req,
                           struct bytes raw);
void wait_note_write(struct client *c, uint16_t slot);
bool wait_is(const struct command *cmd); /* cmd may be NULL */
extern const struct bytes wait_refusal;  /* the reply when a node could not be asked rightly */
/* monitor.c */
enum outcome feeds_dispatch(struct client *c, const struct command *cmd);
void feeds_end(struct client *c);
/* A reply or line of a connection that monitors. */
void feeds_receive(struct link *l, struct bytes reply);
void feeds_lost(struct link *l); /* it is being closed */
void feeds_run(struct worker *w);
/* False: one has to log in for that. */
bool local_before_login(struct client *c, const struct command *cmd, const struct resp_request *req);

/* ---- the worker ---- */

struct proxy;

struct worker_stats {
    _Atomic uint64_t commands, received, sent, held_ever, held_now, retries, moved, asked, unknown, timeouts, refused,
        connects, links, pinned, link_failures, splits, replica_reads, replica_failures, scripts_loaded;
};

struct worker {
    struct front_part part;
    struct front_worker *front;
    struct proxy *proxy;
    const struct proxy_config *config; /* the front's */
    struct loop *loop;                 /* the front's */
    int id;
    struct list clients;
    struct list backends, dirty_links;
    struct list orphans;
    struct list monitors;              /* struct monitor */
    struct list unblocks;              /* CLIENT UNBLOCKs under way */
    struct backend *slots[SLOT_COUNT]; /* NULL: nobody known */
    struct topology_map *map;
    struct backend *only; /* the primary that serves all slots of a cluster; NULL: there is none, or no cluster */
    uint64_t epoch;       /* changes with slots */
    struct list held;
    size_t held_count, held_bytes;
    int64_t held_due_ms; /* the earliest due_ms of those, or earlier */
    bool held_kick;
    struct request *free_requests;
    size_t free_count;
    struct buf link_in; /* for those that have nothing left over */
    struct loop_timer tick_timer, held_timer;
    int64_t now_ms;
    struct random rng;
    uint64_t scripts_seen[SCRIPTS_SEEN];
    struct worker_stats stats;
    struct worker_measure measure;
};

static inline void count(_Atomic uint64_t *n, int64_t by)
{
    front_count(n, by);
}

/* Its node is one server without cluster mode. */
static inline bool worker_has_one_server(const struct worker *w)
{
    return w->map && w->map->standalone;
}

/* Keys of several slots are all of one node, and it takes them together, as far as is known. */
static inline bool worker_may_cross(const struct worker *w)
{
    return w->only && w->only->crossing != CROSSING_NO;
}

/* ---- measure.h, for which a client and a worker have to be known ---- */

/* Bytes have been read just now. */
static inline void measure_now(struct worker *w)
{
    w->measure.ticks = clock_ticks();
}

/* A client wants this, and may. */
static inline void measure_call(struct client *c, const struct command *cmd, const struct resp_request *req)
{
    struct worker_measure *m = &c->worker->measure;
    count(&m->commands[cmd->id].calls, 1);
    if (m->sample_in-- <= 0) measure_key_slow(c, cmd, req);
}

static inline void measure_rejected(struct worker *w, const struct command *cmd)
{
    count(&w->measure.commands[cmd->id].rejected, 1);
}

/* Makes last_us and last_bucket those of what began then. */
static inline uint64_t measure_since(struct worker_measure *m, uint64_t begin)
{
    uint64_t ticks = m->ticks - begin;
    if (ticks != m->last_ticks) measure_duration(m, ticks);
    return ticks;
}

static inline void measure_sent(struct link *l, struct request *r)
{
    r->sent_at = l->worker->measure.ticks;
    if (r->cmd) count(&l->backend->counts->requests[r->cmd->id], 1);
}

static inline void measure_replied(struct link *l, const struct request *r, struct bytes reply)
{
    struct node_counts *n = l->backend->counts;
    if (reply.p[0] == '-') count(&n->failed, 1);
    if (r->is_blocking) return;
    struct worker_measure *m = &l->worker->measure;
    measure_since(m, r->sent_at);
    histogram_add_at(&n->latency, m->last_bucket);
    count(&n->us, (int64_t)m->last_us);
}

/* It is about to be answered, its bytes still there. */
static inline void measure_answered(struct worker *w, const struct request *r, struct bytes reply)
{
    if (!r->cmd) return;
    struct worker_measure *m = &w->measure;
    struct call_counts *c = &m->commands[r->cmd->id];
    if (reply.p[0] == '-') {
        count(&c->failed, 1);
        measure_error(w, reply);
    }
    if (r->is_blocking) return;
    uint64_t ticks = measure_since(m, r->at);
    call_time(c, m->last_us, m->last_bucket);
    if (ticks >= m->slow_ticks) measure_slow(w, r, m->last_us);
}

struct worker *proxy_worker_create(struct proxy *p, struct front_worker *front);
void proxy_worker_publish(struct worker *w, struct topology_map *map); /* any thread; holds the map itself */
void proxy_worker_destroy(struct worker *w);                           /* behind front_stop() */

/* The cluster as a whole. */
struct proxy {
    struct front *front;
    struct own_node own; /* constant */
    struct topology *topology;
    struct proxy_config *config; /* of the start; held */
    struct scripts scripts;
    struct measures measures;
    struct topology_map *last_map; /* of the topology's thread */
    struct worker **workers;       /* one of each of the front's */
    int worker_count;
    _Atomic int64_t pinned;       /* connections of one client each */
    _Atomic int64_t pinned_idle;  /* those that are kept for the next client */
    _Atomic int64_t paused_until; /* monotonic ms: CLIENT PAUSE */
    _Atomic bool pause_is_for_all;
    _Atomic bool has_map; /* the cluster has been seen */
    bool is_started;      /* topology's thread runs */
};

#endif
