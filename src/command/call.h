/* call.h: one execution of one command: what a handler gets, and the few functions through which it reads and changes
 * the dataset, replies, and says what replicas have to repeat.
 *
 * Promises to a handler: arity was checked; the locks of the slots of all key arguments (as the command table finds
 * them) are held; time stands still during the call.
 * A handler replies exactly once, changes keys through the functions below only, and calls call_changed() for every
 * key it changed. It touches no other slot: one that must (SORT BY, FLUSHALL) starts with call_exclusive().
 *
 * Threads: a struct call belongs to the thread that runs it. */
#ifndef COVEY_COMMAND_CALL_H
#define COVEY_COMMAND_CALL_H

#include "command/handlers.h"
#include "commands/table.h"
#include "resp/resp.h"
#include "store/access.h"
#include "store/store.h"

/* Options that handlers look at; changed only with the server at rest. */
struct call_options {
    struct store_limits limits;
    bool lazyfree_user_del, lazyfree_user_flush, lazyfree_expire, lazyfree_server_del;
    bool lfu; /* maxmemory-policy is an LFU one */
    struct lfu lfu_settings;
    bool sanitize_dump_payload;
    bool dump_uncompressed; /* rdbcompression is off */
    int64_t proto_max_bulk_len;
    unsigned notify; /* notify-keyspace-events: NOTIFY_..., 0: none */
    int64_t hll_sparse_max_bytes;
};

/* Counted by each worker by itself, summed for INFO; relaxed. */
struct call_stats {
    _Atomic uint64_t keyspace_hits, keyspace_misses, expired_keys;
};

/* The classes of keyspace notifications, by the letters of notify-keyspace-events; its number is made of these bits. */
enum notify_class {
    NOTIFY_GENERIC = 1 << 0,   /* g */
    NOTIFY_STRING = 1 << 1,    /* $ */
    NOTIFY_LIST = 1 << 2,      /* l */
    NOTIFY_SET = 1 << 3,       /* s */
    NOTIFY_HASH = 1 << 4,      /* h */
    NOTIFY_ZSET = 1 << 5,      /* z */
    NOTIFY_EXPIRED = 1 << 6,   /* x */
    NOTIFY_EVICTED = 1 << 7,   /* e */
    NOTIFY_STREAM = 1 << 8,    /* t */
    NOTIFY_MODULE = 1 << 9,    /* d */
    NOTIFY_NEW = 1 << 10,      /* n: a key was added; before the event that says how */
    NOTIFY_KEYSPACE = 1 << 11, /* K, not a class: on channels by key */
    NOTIFY_KEYEVENT = 1 << 12, /* E: on channels by event */
    NOTIFY_MISS = 1 << 13,     /* m: a key that was to be read is not there */
};

/* What the caller of commands (a worker, the replica's applier) provides; outlives the calls. */
struct call_env {
    struct store *store;
    const struct call_options *options;
    struct call_stats *stats;
    struct random *rng;
    void *server; /* struct node, for handlers in src/server; NULL in tests */
    void *ctx;    /* for the functions below */
    /* A key was changed, removed or added; under its slot's lock.  Feeds WATCH, notifications and tracking. */
    void (*changed)(void *ctx, int db, const struct key *k, enum notify_class cls, const char *event);
    /* An event that is no change of the value (NOTIFY_NEW, NOTIFY_MISS); called when options->notify wants it.  NULL:
     * nobody listens. */
    void (*notified)(void *ctx, int db, const struct key *k, enum notify_class cls, const char *event);
    /* Takes tables that a flush has detached, and frees them in the background; the array stays the caller's.  NULL:
     * they are freed at once. */
    void (*free_tables)(void *ctx, struct table **tables, size_t n);
    /* A database (-1: every one) is about to be emptied, or to take over the keys of database replaced_by (-1: none);
     * the server is at rest.  changed() is not called for its keys.  NULL: nobody listens. */
    void (*flushed)(void *ctx, int db, int replaced_by);
    bool cluster_enabled;
    bool one_database; /* cluster mode with no more than that: MOVE and the like are refused */
};

enum {
    CALL_EXCLUSIVE = 1 << 0,    /* the whole server is at rest: every slot may be touched without its lock */
    CALL_FROM_PRIMARY = 1 << 1, /* from the replication stream: keys never count as expired */
    CALL_ON_REPLICA =
        1 << 2,            /* this node is a replica: expired keys are hidden, their deletion comes from the primary */
    CALL_IN_EXEC = 1 << 3, /* part of a transaction */
    CALL_IN_SCRIPT = 1 << 15,    /* called by a script */
    CALL_KEEP_EXPIRED = 1 << 5,  /* during a pause: expired keys are hidden, and deleted later */
    CALL_LOADING = 1 << 4,       /* replayed from a file */
    CALL_NO_TOUCH = 1 << 7,      /* CLIENT NO-TOUCH: only TOUCH itself counts as access */
    CALL_MAY_WAIT = 1 << 6,      /* call_wait() may put the client to sleep: neither in a transaction nor a script */
    CALL_KEYS_LIMITED = 1 << 12, /* the user may not read all keys: SORT follows no patterns */
    CALL_ALL_SLOTS = 1 << 14,    /* of a cluster's node: all slots are its own, and the client may use them together */
    CALL_UNSEEN = 1 << 13,       /* set by the handler: MONITOR does not show it */
};

enum { CALL_KEYS_INLINE = 8 };

struct call {
    const struct call_env *env;
    const struct command *cmd;
    command_handler *handler; /* of cmd; set by the caller, so that a test can link one family alone */
    const struct bytes *argv; /* argv[0] is the name; for a subcommand argv[1] is its */
    size_t argc;
    struct resp_out out;
    int db;
    unsigned flags;
    int64_t now_ms;     /* unix time */
    uint32_t lru_clock; /* 24 bits, for entry_set_lru() */
    void *session;      /* the server's connection; NULL for the applier and for files */

    uint32_t served_arg; /* 0, or: run again for a waiting client, for the key at argv[served_arg] alone */

    void *prepared;  /* what the dispatcher looked up ahead for this handler; NULL: nothing */
    bool token_held; /* STORE_TOKEN, beside the slots */

    /* Results */
    uint64_t dirty;         /* changes made; 0: nothing is propagated */
    bool want_exclusive;    /* set by call_exclusive() */
    bool want_restart;      /* begin anew from the look-up of the slots; nothing was replied or changed */
    bool verbatim_off;      /* the handler said itself what to propagate */
    bool effects_wanted;    /* false: nobody listens, propagation is not built */
    struct call_wait *wait; /* what call_wait() asked for; the caller takes it */
    struct buf *effects;    /* encoded commands for replicas and the AOF */
    unsigned effect_count;

    /* Keys that the dispatcher derived already: keys[i] is argv[key_arg[i]].  Last, and not cleared for each call. */
    size_t key_count;
    uint32_t key_arg[CALL_KEYS_INLINE];
    struct key keys[CALL_KEYS_INLINE];
};

/* The key at argv[arg]. */
struct key call_key_slow(const struct call *c, size_t arg);
static inline struct key call_key(const struct call *c, size_t arg)
{
    return c->key_count && c->key_arg[0] == arg ? c->keys[0] : call_key_slow(c, arg);
}

/* Finds a key for a read command: hides expired ones (and deletes them on a primary), counts hit or miss, touches the
 * access clock.  NULL: not there.  The entry must not be changed. */
struct entry *call_read(struct call *c, const struct key *k);
/* The same without touching the access clock: EXISTS, TTL, TYPE, OBJECT. */
struct entry *call_look(struct call *c, const struct key *k);
/* call_read() without counting: for writers, whatever they then do with the key. */
struct entry *call_peek(struct call *c, const struct key *k);
/* Finds a key for a change in place: as call_read(), but the result is private to the dataset and may be edited.
 * Without hit counters. */
struct entry *call_edit(struct call *c, const struct key *k);
/* call_read()/call_edit() and a check of the type: *e is NULL when the key is not there.  False: the type is another
 * one, and -WRONGTYPE was replied. */
MUST_USE bool call_read_type(struct call *c, const struct key *k, enum value_type type, struct entry **e);
MUST_USE bool call_edit_type(struct call *c, const struct key *k, enum value_type type, struct entry **e);

/* Adds or replaces; takes e.  That counts as its first use; under an LFU policy what it replaces hands its counter on.
 */
void call_put(struct call *c, const struct key *k, struct entry *e);
/* Counts a use of the key, under the slot's lock; the functions above do it where they say so. */
void call_touch(struct call *c, struct entry *e);
/* The access bits of a key made now. */
uint32_t call_fresh_access(const struct call *c);
bool call_delete(struct call *c, const struct key *k);
/* Deletes the key when its collection is empty now (with the "del" event); true if so. */
bool call_delete_if_empty(struct call *c, const struct key *k, uint64_t length);
/* Says that the key was changed: counts one change, wakes WATCH.  event is Redis's name of it ("hset", "del"). */
void call_changed(struct call *c, const struct key *k, enum notify_class cls, const char *event);
/* Says that a key is new where it was put with store_put(): call_put() does so by itself. */
void call_added(struct call *c, const struct key *k);
/* The look of commands whose miss is no event (OBJECT, MEMORY USAGE): call_look() otherwise. */
struct entry *call_inspect(struct call *c, const struct key *k);
/* The same for a change that Redis does not count as one of the value (of consumer groups): repeated by replicas and
 * told as an event, but nothing to WATCH, tracking and sleepers. */
void call_side_changed(struct call *c, const struct key *k, enum notify_class cls, const char *event);
/* A further event of a change that is counted already. */
void call_notify(struct call *c, const struct key *k, enum notify_class cls, const char *event);

/* Propagation.  By default a command with dirty > 0 is repeated as it came.  call_effect() adds a command and turns
 * that default off; several are wrapped in MULTI/EXEC by the caller. */
void call_effect(struct call *c, size_t argc, const struct bytes *argv);
void call_effect_cstr(struct call *c, size_t argc, ...); /* struct bytes arguments */
/* Turns the default off: nothing is propagated but what call_effect() adds. */
void call_effect_none(struct call *c);
/* DEL k, or UNLINK k when `lazy`. */
void call_effect_delete(struct call *c, struct bytes key, bool lazy);

/* For handlers that need more than their keys' slots.  False: the handler returns at once, without having replied or
 * changed anything; it is called again with the server at rest. */
MUST_USE bool call_exclusive(struct call *c);
/* For walks over many slots (KEYS, SCAN): locks one slot at a time; nothing to do when the server is at rest. */
void call_lock_slot(struct call *c, unsigned slot);
void call_unlock_slot(struct call *c, unsigned slot);

/* ---- blocking commands ----
 * A handler that finds nothing of what it was asked for calls call_wait() and returns; call_wait() has replied if the
 * client may not sleep here (transaction, script, replication stream: the null that a time-out gives too).  Otherwise
 * the server keeps a copy of the arguments and puts the client to sleep on keys of the command, before their slots are
 * unlocked.  Whoever then changes one of these keys runs the handler again, on his own thread, before he unlocks that
 * slot: with c->served_arg set, c->session NULL, c->out a buffer of the client's protocol version.  First come, first
 * served.  Such a run
 *   - may touch the key at argv[served_arg] and the command's keys that are not waited for (BLMOVE's destination), no
 *     other: the handler passes over keys for which call_serves() is false;
 *   - replies, which ends the sleep, or calls call_wait() again, which lets the client sleep on, in its place;
 *   - propagates as always: what it changes is logged right behind the change that woke it.
 * It is made only when the key holds a value of the given type; with CALL_WAIT_ALSO_GONE also when it has ceased to
 * (deleted, replaced by another type: XREADGROUP), where the handler replies an error. Time-out, CLIENT UNBLOCK, a
 * change of role, a slot that moves: the server replies by itself.
 *
 *   void cmd_blpop(struct call *c) {
 *       if (!call_arg_timeout_s(c, c->argc - 1, &timeout_ms)) return;
 *       for (size_t i = 1; i + 1 < c->argc; i++) {
 *           if (!call_serves(c, i)) continue;
 *           ... found something: pop, reply, propagate LPOP, return ...
 *       }
 *       call_wait(c, &(struct call_wait){.type = TYPE_LIST, .first = 1, .count = c->argc - 2, .timeout_ms =
 * timeout_ms});
 *   } */
enum {
    CALL_WAIT_NULL_BULK = 1 << 0, /* the null where waiting is not possible is one of a bulk, not of an array */
    CALL_WAIT_ALSO_GONE = 1 << 1, /* run again also when the key is gone or of another type */
};
struct call_wait {
    enum value_type type;
    uint32_t first, count; /* the keys waited for: argv[first .. first + count); repetitions are fine */
    int64_t timeout_ms;    /* 0: for ever */
    unsigned flags;
    /* What to run again, when it is not c->argv (XREAD puts in what $ meant when it came); c->argc of them, copied by
     * call_wait().  NULL: c->argv. */
    const struct bytes *argv;
    /* Set by call_wait(): the copy, one allocation of mem_alloc(), and its size. */
    struct bytes *kept;
    size_t kept_bytes;
};
/* Borrows w. */
void call_wait(struct call *c, const struct call_wait *w);
/* Frees what call_wait() left in c->wait; for callers. */
void call_wait_free(struct call_wait *w);
/* Whether this run may touch the key at argv[arg]: always, but for runs for a client that waited. */
static inline bool call_serves(const struct call *c, size_t arg)
{
    return c->served_arg == 0 || c->served_arg == arg;
}
/* Parses a time-out: seconds with a fraction, or milliseconds (XREAD BLOCK).  False: the error was replied.  0: for
 * ever.  Rounded up. */
MUST_USE bool call_arg_timeout_s(struct call *c, size_t arg, int64_t *timeout_ms);
MUST_USE bool call_arg_timeout_ms(struct call *c, size_t arg, int64_t *timeout_ms);

/* ---- replies that many handlers share (exact texts of Redis) ---- */
extern const char ERR_WRONGTYPE[], ERR_SYNTAX[], ERR_NOT_INTEGER[], ERR_NOT_FLOAT[], ERR_OUT_OF_RANGE[],
    ERR_NO_SUCH_KEY[], ERR_OOM_VALUE[];
/* Parses argv[arg]; false: the error was replied (text NULL: ERR_NOT_INTEGER). */
MUST_USE bool call_arg_i64(struct call *c, size_t arg, int64_t *out, const char *error);
MUST_USE bool call_arg_range(struct call *c, size_t arg, int64_t min, int64_t max, int64_t *out, const char *error);
MUST_USE bool call_arg_double(struct call *c, size_t arg, double *out, const char *error);
bool call_arg_is(const struct call *c, size_t arg, const char *word); /* case-insensitive */
/* "ERR wrong number of arguments for 'x' command" for the command of this call. */
void call_wrong_arity(struct call *c);
/* An element as a bulk. */
void call_bulk_entry_string(struct call *c, const struct entry *e);
/* The help of a container: "<NAME> <subcommand> [<arg> [value] [opt] ...]. Subcommands are:" then the lines, then HELP.
 */
void call_help(struct call *c, const char *container, const char *const *lines, size_t n);

/* Runs c->handler and completes propagation: afterwards effects holds what to append to the change log. */
void call_run(struct call *c);
/* Finds and keeps the keys of the call for call_key(); returns their number, -1 for arguments that cannot be valid. */
int call_prepare_keys(struct call *c);

/* Deletes an expired key on a primary and propagates that; used by handlers through call_read() and by active expiry.
 */
void call_expire(struct call *c, const struct key *k);

#endif
