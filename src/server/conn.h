/* conn.h: one client connection and the worker it belongs to; inside src/server only.
 *
 * A connection is touched by its worker's thread only, and only between the worker's entering and leaving the gate; so
 * whoever has the server at rest may read (and mark) every connection.  Fields that other threads touch are atomic. */
#ifndef COVEY_SERVER_CONN_H
#define COVEY_SERVER_CONN_H

#include "access/access.h"
#include "base/list.h"
#include "net/tls.h"
#include "server/blocking.h"
#include "server/node.h"

enum conn_wait {
    WAIT_NOTHING,
    WAIT_SLOT,     /* another thread holds a slot that the next command needs */
    WAIT_SCRIPT,   /* its own script runs, and a turn inside that serves the others */
    WAIT_PAUSE,    /* CLIENT PAUSE, a failover or a shutdown; or just the next tick */
    WAIT_REPLICAS, /* the WAIT command */
    WAIT_PUBLISH,  /* it publishes faster than workers can give its messages out */
    WAIT_KEYS,     /* a blocking command: asleep until a key has something */
    WAIT_LEASE,    /* the right to write has ended, and it is not known yet whether another node has it */
    WAIT_HELD,     /* too many of its replies wait until their writes are safe */
};

enum reply_mode { REPLY_ON, REPLY_OFF, REPLY_SKIP_NEXT, REPLY_SKIP };

struct queued {
    const struct command *cmd;
    struct bytes *argv; /* one allocation with the bytes behind it */
    size_t argc;
};

struct watched {
    struct list link; /* in the registry's chain, under the slot's lock */
    struct conn *conn;
    int db;
    struct key key; /* owns its name */
    struct watched *next_of_conn;
    bool was_expired; /* at WATCH time */
};

enum conn_kind { CONN_TCP, CONN_TLS, CONN_UNIX, CONN_BESIDE /* the proxy's in this process */ };

struct conn {
    struct loop_source src;
    struct tls_session *tls; /* NULL: plain */
    struct worker *worker;
    struct list link;  /* in the worker's list of connections */
    struct list dirty; /* in the worker's list of connections with output */
    struct conn *next_by_id;
    struct list waiting_link;

    struct buf in;
    size_t in_pos; /* bytes of `in` that are done with */
    struct resp_parser parser;
    struct buf out;
    size_t out_pos;
    struct held *held;           /* replies in `out` that wait until their writes are safe; NULL: never were any */
    bool unsent_write;           /* `out` may hold the reply to a write ... */
    bool unsafe_write;           /* ... that no replica has been asked to acknowledge */
    int64_t lease_wait_ms;       /* since when it is in WAIT_LEASE, monotonic; 0: it is not */
    int64_t min_acks;            /* CLIENT MIN-REPLICAS-TO-ACK; -1: as the option says */
    int64_t soft_limit_since_ms; /* output above the soft limit since; 0: it is not */

    uint64_t id;
    char *name;
    char *user_lib_name, *user_lib_ver;
    char peer[NET_ADDRESS_MAX], local[NET_ADDRESS_MAX];
    int64_t created_ms, last_ms; /* wall clock */
    const struct command *last_cmd;
    const struct acl_user *user; /* who is logged in, or the default user; node.acl has it */
    int db;
    bool selected_db; /* it has sent SELECT */
    uint8_t resp;
    bool authenticated, is_unix, no_evict, no_touch, readonly, asking, close_after_reply, close_asap, is_replica_link,
        is_primary_link;
    bool takes_tls_ports; /* its client speaks TLS to other nodes */
    bool cross_slot;      /* CLIENT CROSSSLOT: keys of several slots are fine where all of them are served here */
    _Atomic bool kill;    /* set by others with the server at rest */
    uint8_t reply_mode;
    uint8_t wait;      /* enum conn_wait */
    bool waits_to_end; /* its SHUTDOWN is parked until replicas are in sync */
    bool refuse_busy;  /* what it waited for is held by a busy script: its command gets -BUSY */
    bool in_multi, multi_failed;
    _Atomic bool dirty_cas; /* a watched key was changed; set under the slot's lock */
    struct queued *queue;
    size_t queue_n, queue_cap, queue_bytes;
    struct watched *watched;
    uint64_t write_offset; /* change log offset behind this client's last write */
    uint64_t seen_offset;  /* behind what the command under way has read, with min-replicas-to-ack-reads; else 0 */
    struct changed_slots *changed_slots; /* of the command under way, for last_writes.c; NULL: never were any */
    int64_t wait_deadline_ms;            /* WAIT: monotonic; INT64_MAX: none */
    uint64_t wait_offset;
    int64_t wait_replicas;
    int8_t wait_local;    /* WAITAOF: whether this node's disk counts; -1: it is WAIT */
    uint64_t wait_ticket; /* its place among those that wait for slots, since it was parked first; 0: it was not */
    unsigned wait_tries;  /* how often it found the slot taken again */
    enum { UNBLOCK_NO, UNBLOCK_TIMEOUT, UNBLOCK_ERROR } wait_unblocked; /* CLIENT UNBLOCK came; set at rest */
    struct blocked *blocked;                                            /* while wait is WAIT_KEYS */
    void *sync; /* replication state of a PSYNC under way; owned by src/server/replication.c */
    uint64_t argv_mem;
    struct pubsub_conn *pubsub; /* its subscriptions; NULL: it has none */
    struct list monitor_link;
    bool is_monitor;
    struct tracking_conn *tracking; /* CLIENT TRACKING; NULL: off */
    bool muted;                     /* a command is under way whose reply nobody gets: CLIENT REPLY OFF or SKIP */
    size_t push_at;                 /* where the pushed message begins that is being written */
    size_t keep_out;       /* the output of the present command up to here is pushed: CLIENT REPLY OFF leaves it */
    size_t counted_memory; /* its part of worker.client_memory */
};

struct histogram;
struct topkeys;

enum { BATCH_MAX = 32, SPARE_OUT_MAX = 32 };

/* A request that waits for the end of the turn's reading: requests[i] and calls[i] of the worker. */
struct staged {
    struct conn *conn; /* NULL: closed since */
    struct bytes in;   /* the request as it came, in read_buf */
};

/* Active expiry: where the worker's pass over its slots stands. */
struct expiry {
    struct mail mail; /* the next slice */
    bool posted;
    int db;
    unsigned slot;
    int64_t budget_us;     /* of time, till the next tick */
    uint64_t input_before; /* net_in at the last slice */
};

struct worker {
    struct node *node;
    struct loop *loop;
    int id;
    struct gate_member *gate;
    bool inside; /* of the gate */
    struct list conns;
    struct conn **by_id; /* the same, by id; conn_table.c */
    size_t by_id_size, by_id_count;
    struct list dirty;        /* connections with output to write */
    struct list paused;       /* connections that wait for the end of a pause */
    struct list waits;        /* connections in WAIT */
    struct list throttled;    /* connections in WAIT_PUBLISH */
    struct list leaseless;    /* connections in WAIT_LEASE */
    bool may_serve;           /* the right to write, as of the present batch */
    _Atomic bool wants_lease; /* something waits for the right to write */
    struct list held;         /* connections with held replies: held.link */
    bool asks_acks;           /* a reply of this turn waits for replicas */
    uint64_t cluster_saved;   /* the nodes.conf that replies of this turn wait for; 0: none */
    struct mail poke;         /* reply_gate_release(), and a turn for connections with output */
    _Atomic bool poked;       /* poke is under way */
    _Atomic bool wants_sent, fail_held;
    struct pubsub_worker *pubsub;
    struct tracking_worker *tracking;
    struct list monitors;    /* conn.monitor_link */
    struct buf script_lines; /* for monitors: the script that runs, and what it called so far */
    bool in_script;
    _Atomic int monitor_count;
    uint64_t executing;                /* id of the connection whose command is being executed; 0: none */
    const struct call *executing_call; /* the same; NULL: none */
    bool notified;                     /* the present command has published keyspace notifications */
    struct resp_request requests[BATCH_MAX];
    struct call calls[BATCH_MAX];
    struct staged staged[BATCH_MAX];
    int staged_n;
    bool running_staged;
    int handshakes;                      /* steps of TLS handshakes in this turn */
    struct buf read_buf;                 /* input of connections that have none left over */
    struct buf spare_out[SPARE_OUT_MAX]; /* lent to connections while they have output */
    int spare_out_n;
    struct buf effects;
    struct random rng;
    struct call_env env;
    _Atomic(struct script_worker *) scripts; /* Lua states; NULL before the first script */
    struct waker waker;
    struct sleepers sleepers;
    struct loop_timer timer, look_timer;
    struct expiry expiry;
    struct evictor *evictor;
    struct mail eviction; /* goes on with eviction in the next turn */
    bool eviction_posted;
    bool out_of_memory;               /* above maxmemory with nothing to evict, as the command under way found it */
    int64_t memory_calm;              /* below this mem_used_here() maxmemory cannot have been reached ... */
    int64_t memory_calm_for;          /* ... if it still is this; 0: not known */
    int64_t client_eviction_after_ms; /* maxmemory-clients: no further attempt before this, monotonic */
    int64_t now_ms, now_mono_ms;      /* of this turn */
    uint32_t lru_clock;               /* of this turn: seconds, 24 bits */
    bool inner; /* this is a turn inside a command that runs long: no scripts, and the gate is not left */
    /* read by others */
    struct call_stats stats;
    struct command_stats commands[CMD_ID_COUNT];
    struct topkeys *topkeys;
    int64_t sample_in;                                 /* commands until one is looked at for topkeys */
    _Atomic(struct histogram *) latency[CMD_ID_COUNT]; /* nanoseconds; made at a command's first use, never freed */
    _Atomic uint64_t net_in, net_out;
    _Atomic uint64_t changes; /* of keys, by its commands: part of node_changes() */
    _Atomic int conn_count;
    _Atomic int held_count;        /* held replies */
    _Atomic int64_t held_since_ms; /* of the oldest of them, about */
    _Atomic int64_t client_memory; /* bytes of its connections and their buffers */
};

struct worker *worker_create(struct node *node, int id);
/* Hands a connected descriptor to the worker; any thread. */
void worker_adopt(struct worker *w, int fd, enum conn_kind kind);
/* Leaves the gate in the middle of a turn and comes back; for a command that must run with the server at rest. */
void worker_leave_gate(struct worker *w);
void worker_enter_gate(struct worker *w);

/* ---- active_expiry.c ---- */
/* From the worker's timer: starts or goes on with a pass over its slots. */
void worker_expire(struct worker *w, int64_t every_ms);

/* In the middle of a command (a script that runs long): one turn of the loop for the other connections.  c is the
 * connection of that command.  Inside such a turn nothing runs that could wait for the command. */
void worker_inner_turn(struct worker *w, struct conn *c);

/* Gives the worker a turn in which it looks at held replies and output again.  Any thread, holding any locks. */
void worker_poke(struct worker *w);
/* Lets the connections go on that a pause held up. */
void worker_resume_paused(struct worker *w);
/* Calls waiting_room_look_again() after so many ms. */
/* How soon writers that wait for a snapshot are looked at again. */
enum { SNAPSHOT_LOOK_MS = 2 };
void worker_look_again(struct worker *w, int64_t ms);
/* Lets all connections of a list (linked by waiting_link) go on. */
void worker_resume_list(struct list *l);
/* Closes the connections that somebody marked with `kill`. */
void worker_reap(struct worker *w);

struct conn *conn_create(struct worker *w, int fd, enum conn_kind kind);
/* Closes and frees.  The worker is inside the gate. */
void conn_destroy(struct conn *c);
/* Executes the requests that were put off until their turn's reading is done. */
void worker_run_staged(struct worker *w);
/* Connections whose requests wait to be executed behind that of c keep them for a later turn. */
void worker_unstage_behind(struct worker *w, const struct conn *c);
/* Parses and executes what is in the input buffer, until it is used up or the connection has to wait. */
void conn_process(struct conn *c);
/* Goes on after a wait is over. */
void conn_resume(struct conn *c);
/* There is output: it is written at the end of the turn. */
void conn_wants_write(struct conn *c);
static inline bool conn_is_dirty(const struct conn *c)
{
    return c->dirty.next != &c->dirty;
}
void conn_write(struct conn *c);
/* For output that is no reply: makes room for n bytes at the end of c->out, which the caller then appends.  False: the
 * connection is closing, or would hold more than client-output-buffer-limit and is closed at the end of the turn. */
MUST_USE bool conn_push_begin(struct conn *c, size_t n);
void conn_push_end(struct conn *c);
/* Takes the connection away from its worker, with its descriptor, for a replica's stream; c->src.fd is -1 after.  Gives
 * the descriptor and the TLS session (NULL: plain). */
int conn_detach_fd(struct conn *c, struct tls_session **tls);
/* Bytes that the connection takes, buffers and queued commands included: tot-mem of CLIENT LIST. */
size_t conn_memory(const struct conn *c);
/* Brings worker.client_memory in line with that. */
void conn_count_memory(struct conn *c);
static inline struct resp_out conn_out(struct conn *c)
{
    return (struct resp_out){&c->out, c->resp};
}

/* ---- conn_tls.c ---- */
/* Before anything is read or written: goes on with the handshake, closes what fails it.  True: *events says what to
 * try; false: there is nothing to do, or c is gone. */
bool conn_tls_ready(struct conn *c, int *events);
bool conn_tls_overdue(const struct conn *c); /* it takes too long to shake hands */

/* ---- conn_table.c: reaching a connection from another thread ---- */

/* Names a connection without keeping it alive; may be copied and kept by any thread.  Ids are never used again. */
struct conn_ref {
    struct worker *worker;
    uint64_t id;
};
static inline struct conn_ref conn_ref_of(const struct conn *c)
{
    return (struct conn_ref){c->worker, c->id};
}
/* Runs fn(c, data) on the thread of the connection's worker, soon, inside the gate and between two commands; c is NULL
 * when the connection is gone (fn has to free data all the same).  fn may write to c->out with conn_out() followed by
 * conn_wants_write(), and may destroy c.  Any thread, holding any locks: mail is posted without one.  Mail from one
 * thread to one worker is delivered in the order it was posted. */
void conn_post(struct conn_ref to, void (*fn)(struct conn *c, void *data), void *data);
/* The connection of that id, NULL if the worker has none.  On the worker's thread, or with the server at rest. */
struct conn *conn_find(const struct worker *w, uint64_t id);
void conn_table_add(struct conn *c);
void conn_table_remove(struct conn *c);

/* ---- dispatch.c ---- */
enum dispatch_result { DISPATCH_DONE, DISPATCH_WAIT };
/* Checks and executes one request, or queues it in a transaction.  DISPATCH_WAIT: not executed, c->wait says why. */
enum dispatch_result dispatch(struct conn *c, struct call *call);
/* Looks the command up and derives its keys; call->cmd is NULL for an unknown one. */
void dispatch_prepare(struct conn *c, struct call *call, const struct resp_request *req);
/* The connection of a call made by dispatch(). */
static inline struct conn *call_conn(const struct call *c)
{
    return c->session;
}
/* Replies an error to a call and counts it. */
void call_reject(struct call *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- waiting.c: connections that wait for a slot ---- */
struct waiting_room *waiting_room_create(struct node *n);
/* Parks the connection until the slot is free; false when it is free already. */
bool waiting_room_park(struct waiting_room *r, struct conn *c, unsigned slot);
void waiting_room_forget(struct waiting_room *r, struct conn *c);
/* Before locking: true when a connection of another worker has waited too long for one of the slots; c is parked behind
 * it. */
bool waiting_room_must_queue(struct waiting_room *r, struct conn *c, const unsigned *slots, size_t n);
/* A connection that was parked has its slots now. */
void waiting_room_got(struct waiting_room *r, struct conn *c, const unsigned *slots, size_t n);
/* Lets all connections of the worker that are parked try again. */
void waiting_room_look_again(struct worker *w);
void waiting_room_released(void *room, unsigned slot); /* the store's hook */

/* For EXEC, which locks, routes and runs by itself. */
MUST_USE bool dispatch_lock_slots(struct conn *c, const unsigned *slots,
                                  size_t n); /* false: the connection is parked */
void dispatch_unlock_slots(struct conn *c, const unsigned *slots, size_t n);
size_t slots_sort_unique(unsigned *slots, size_t n); /* sorts in place; returns how many are different */
bool dispatch_allowed(struct conn *c, struct call *call);
/* The command is tried again from the beginning when nothing pauses, a tick later at the earliest. */
void dispatch_park(struct conn *c);
/* Why the state of the node forbids commands with these flags (CMD_WRITE, CMD_STALE, CMD_LOADING count), in
 * redis-server's order: an error without '-'.  NULL: nothing does. */
const char *dispatch_refusal(const struct node *n, uint32_t flags);
/* ---- acl_check.c: what the connection's user may do ---- */
const char *dispatch_acl_refusal_slow(struct conn *c, const struct call *call, enum acl_context context,
                                      char text[ACCESS_REFUSAL_MAX]);
/* Why the user may not run this call (cmd and arguments count): an error without '-', perhaps in `text`; the refusal is
 * in the ACL log then.  NULL: the user may.  Inside the gate; no lock is needed. */
static inline const char *dispatch_acl_refusal(struct conn *c, const struct call *call, enum acl_context context,
                                               char text[ACCESS_REFUSAL_MAX])
{
    return acl_user_is_free(c->user) ? NULL : dispatch_acl_refusal_slow(c, call, context, text);
}
/* The same as a verdict, for texts of one's own (EXEC, scripts); logs a refusal. */
enum acl_verdict dispatch_acl_verdict(struct conn *c, const struct call *call, enum acl_context context);
/* Whether the user may read every key by this command: SORT BY and GET. */
bool dispatch_acl_reads_all_keys(const struct conn *c, const struct call *call);
/* Puts a refusal into the ACL log. */
void dispatch_acl_note(struct conn *c, const struct call *call, enum acl_verdict verdict, enum acl_context context,
                       struct bytes object, struct bytes user);
/* Why DEBUG and MODULE are refused to this connection by enable-debug-command, enable-module-command; NULL: they are
 * not. */
const char *dispatch_protected_refusal(const struct conn *c, const struct command *cmd);
/* From this host: 127.0.0.1, ::1 or a unix socket. */
bool conn_is_local(const struct conn *c);
/* Runs the handler and counts it; locks held. */
void dispatch_run(struct conn *c, struct call *call);
/* Appends worker.effects as one record; under the same locks. */
void dispatch_append_effects(struct conn *c, int db_first, unsigned count, int db_last);

#endif
