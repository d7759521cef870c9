/* scripting.h: EVAL, FCALL and what they need of the node; inside src/server only.
 *
 * A script holds the slots of the keys it declares, as every command does.  One that may touch others runs with the
 * script token beside them (STORE_TOKEN, locked like a slot): there is one such script at a time in the node, it may
 * wait for further slots while it holds some, and keeps all to its end.  Whoever else holds a slot never waits for one,
 * so the token's holder always gets what it wants.
 *
 * Whether a script needs the token is learnt: the first run of each has it; one that kept to its declared keys runs
 * without it from then on.  If such a script breaks that after all and has written nothing yet, it begins anew with the
 * token.  If it has written, it is "stalled": it waits for the token, and as long as it does, the token's holder may
 * borrow the slots it holds, between two of its commands; what it has done so far is in the change log before. */
#ifndef COVEY_SERVER_SCRIPTING_H
#define COVEY_SERVER_SCRIPTING_H

#include "script/library.h"
#include "script/script.h"
#include "server/conn.h"

struct scripting *scripting_create(void);
extern const struct script_host script_host;

/* ---- for dispatch ---- */

/* Looks the call's script up before its slots are locked; true: the token has to be held beside them. */
bool script_needs_token(struct conn *c, struct call *call);
/* Whether the call's script has declared that it does not write. */
bool script_only_reads(struct conn *c, const struct call *call);
bool function_needs_token(struct conn *c, struct call *call); /* of script_functions.c: FCALL's part of it */

/* ---- script_busy.c: scripts that run long ---- */

/* After 10 ms a run is slow: it is listed, can be killed, and nobody waits for the server at rest without a limit.
 * After busy-reply-threshold it is busy: who needs what it holds gets -BUSY instead of waiting. */
struct slow_run {
    struct list link; /* in scripting.slow */
    struct conn *conn;
    const struct bytes *argv; /* of the call, which may be set aside */
    size_t argc;
    struct bytes name;
    bool function, listed, busy;
    int64_t begun_ms;           /* monotonic */
    _Atomic bool wrote, killed; /* killed is set under scripting.mu */
};
/* From a run's ticks; true: it was killed. */
bool script_slow_tick(struct slow_run *s, int64_t now_ms);
void script_slow_end(struct slow_run *s);
/* -BUSY for what cannot be served now; NULL: no script is busy.  Any thread. */
const char *script_busy_text(const struct node *n);
/* Whether a command uses the worker's Lua states, so that it has to wait while one of them is in use. */
bool script_waits_for_script(const struct command *cmd);
/* Whether some script is slow.  Any thread. */
bool script_any_slow(const struct node *n);
/* The script that runs long has this slot (or the token).  Any thread, a moment old. */
void script_busy_mark(struct scripting *s, unsigned slot);
bool script_busy_has(const struct scripting *s, unsigned slot);
/* From the worker's tick: connections that wait for a busy script's slots are told so. */
void script_refuse_waiting(struct worker *w);

/* ---- for persistence ---- */
struct rdb_extras;
struct rdb_error;
/* The libraries' sources take the place of what is in x.  With the server at rest. */
void scripting_libraries_list(struct node *n, struct rdb_extras *x);
/* What becomes of the libraries that are there when others come: they stay, and must have other names; give way to
 * those of their names; or go.  A function of one that stays must have a name of its own. */
enum libraries_policy { LIBRARIES_APPEND, LIBRARIES_REPLACE, LIBRARIES_FLUSH };
/* Takes in what a file has.  On error nothing was changed, and err says why. */
enum status scripting_libraries_load(struct node *n, const struct rdb_extras *x, enum libraries_policy policy,
                                     struct rdb_error *err);

/* ---- for INFO ---- */
struct scripting_stats {
    size_t vm_eval, vm_functions; /* bytes of all Lua states */
    size_t scripts, scripts_memory, functions, libraries, functions_memory;
};
void scripting_stats_get(struct node *n, struct scripting_stats *out);

/* ---- inside: script_run.c, used by script_eval.c and script_functions.c ---- */

/* What is to be run. */
struct script_target {
    const struct script_body *body;         /* of a script */
    const struct script_function *function; /* or this */
    unsigned flags;                         /* enum script_flag */
    _Atomic int *manners;
    struct bytes name;
    bool read_only_command; /* EVAL_RO, FCALL_RO */
};
/* The VM of this worker, made at its first use and up to date with the cache. */
struct script_vm *script_worker_vm(struct worker *w, enum script_vm_kind kind);
/* Runs it and replies; `call` is EVAL or FCALL, its keys begin at argv[first_key]. */
void script_run(struct call *call, struct script_vm *vm, const struct script_target *target, size_t first_key,
                size_t key_count);
/* The numbers of keys of EVAL and FCALL; false: the error was replied. */
bool script_key_count(struct call *call, size_t *count);

/* Of the node. */
struct scripting {
    struct script_cache *cache;
    struct script_libraries libraries; /* changed with the server at rest, or while it loads */
    pthread_mutex_t mu;                /* guards `stalled`; order: after the slots */
    struct list stalled;               /* script_run.link of runs that wait for the token with slots in hand */
    struct list slow;                  /* slow_run.link; guarded by mu too */
    _Atomic int slow_count, busy_count;
    _Atomic bool busy_function; /* the newest busy one is a function */
    _Atomic uint64_t busy_slots[SLOT_COUNT / 64 + 1];
};

/* Of a worker: behind worker.scripts, made at its first script. */
struct script_worker {
    _Atomic(struct script_vm *) vm[2];    /* by enum script_vm_kind */
    uint64_t generation;                  /* of the cache that vm[SCRIPT_VM_EVAL] has compiled from */
    uint64_t functions_generation;        /* of the libraries that vm[SCRIPT_VM_FUNCTIONS] knows */
    struct script_body *recent[256];      /* of that generation, by the SHA's first byte */
    struct script_body *recent_text[256]; /* the same by a hash of the text: spares EVAL the SHA-1 */
};

#endif
