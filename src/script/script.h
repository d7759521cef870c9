/* script.h: Lua scripts and function libraries: the sandbox, the conversions and the texts of redis-server 7.0.15.
 * The public face of src/script/.
 *
 * A `script_vm` is one Lua state.  It knows no connection, no slot and no lock: what a script asks of the server goes
 * through struct script_host.  Promises: a script cannot reach anything but those calls, its own memory and the VM it
 * runs in; it cannot change what the next script sees; every reply written is one complete RESP reply.
 * Threads: a VM is used by one thread at a time.  script_cache is for any thread (it has its own lock);
 * script_libraries changes with the server at rest only and is read by anyone between. */
#ifndef COVEY_SCRIPT_SCRIPT_H
#define COVEY_SCRIPT_SCRIPT_H

#include "base/bytes.h"
#include "resp/resp.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SCRIPT_SHA_LENGTH = 40 };

/* 40 lower case hexadecimal digits of the SHA-1 (RFC 3174), no terminator. */
void script_sha1_hex(struct bytes text, char out[SCRIPT_SHA_LENGTH]);

/* ---- flags of a script ("#!lua flags=...") and of a function ---- */

enum script_flag {
    SCRIPT_NO_WRITES = 1 << 0,
    SCRIPT_ALLOW_OOM = 1 << 1,
    SCRIPT_ALLOW_STALE = 1 << 2,
    SCRIPT_NO_CLUSTER = 1 << 3,
    SCRIPT_ALLOW_CROSS_SLOT = 1 << 4,
    SCRIPT_HAS_SHEBANG = 1 << 5, /* false: an old script, checked by what it does instead of by flags */
};
/* The flag of that name ("no-writes"); 0: there is none. */
unsigned script_flag_find(struct bytes name);
const char *script_flag_name(unsigned bit); /* NULL above the last one */

/* ---- the cache: SHA-1 -> text ---- */

/* How a script may be run, learnt from its runs; only goes up. */
enum script_manners {
    MANNERS_UNKNOWN, /* not run to its end yet */
    MANNERS_CLEAN,   /* kept to its declared keys so far */
    MANNERS_WILD,    /* touches keys it did not declare */
    MANNERS_REST,    /* needs the server at rest */
};

struct script_body {
    char sha[SCRIPT_SHA_LENGTH];
    struct bytes text;   /* as it came, shebang and all; owned */
    struct bytes code;   /* what Lua gets: inside text */
    unsigned flags;      /* enum script_flag */
    _Atomic int manners; /* enum script_manners */
    struct script_body *next;
};

struct script_cache;
struct script_cache *script_cache_create(void);
void script_cache_destroy(struct script_cache *c);
/* NULL: not there.  What is returned lives until the next flush. */
struct script_body *script_cache_find(struct script_cache *c, const char sha[SCRIPT_SHA_LENGTH]);
/* A script that nobody else knows yet.  NULL: its first line is wrong, and *error (appended) says why, without '-'. The
 * text is copied. */
struct script_body *script_body_create(const char sha[SCRIPT_SHA_LENGTH], struct bytes text, struct buf *error);
void script_body_free(struct script_body *b);
/* Takes b unless there is one of that SHA; gives the one that is there now.  Another one: b stays the caller's. */
struct script_body *script_cache_insert(struct script_cache *c, struct script_body *b);
void script_cache_flush(struct script_cache *c); /* the server is at rest */
/* Raised by each flush; what was learnt before about bodies is void. */
uint64_t script_cache_generation(const struct script_cache *c);
size_t script_cache_count(struct script_cache *c);
size_t script_cache_memory(struct script_cache *c);

/* ---- a VM ---- */

/* What a run asks of the server. */
struct script_host {
    /* Executes a command of the script and gives its encoded reply, valid until the next call.  resp: 2 or 3.  An empty
     * reply: the run is over, see script_vm_abort(). */
    struct bytes (*call)(void *run, const struct bytes *argv, size_t argc, int resp);
    /* redis.acl_check_cmd(): 1, 0, or -1 for an unknown command. */
    int (*acl_check)(void *run, const struct bytes *argv, size_t argc);
    void (*log)(void *run, int level, struct bytes text); /* level: LOG_... of script.h */
    /* redis.set_repl(): a set of SCRIPT_REPL_... */
    void (*set_repl)(void *run, int what);
    /* Called every so many instructions, between two of them.  May call script_vm_abort(). */
    void (*tick)(void *run);
};
enum { SCRIPT_LOG_DEBUG, SCRIPT_LOG_VERBOSE, SCRIPT_LOG_NOTICE, SCRIPT_LOG_WARNING };
enum { SCRIPT_REPL_NONE = 0, SCRIPT_REPL_AOF = 1, SCRIPT_REPL_REPLICA = 2, SCRIPT_REPL_ALL = 3 };

enum script_vm_kind { SCRIPT_VM_EVAL, SCRIPT_VM_FUNCTIONS };

struct script_vm;
struct script_vm *script_vm_create(enum script_vm_kind kind, const struct script_host *host);
void script_vm_destroy(struct script_vm *vm);
size_t script_vm_memory(const struct script_vm *vm); /* bytes; by any thread, a moment old */

/* Compiles a script unless the VM has it already.  False: *error (appended) says why, without '-'. */
bool script_vm_compile(struct script_vm *vm, const struct script_body *body, struct buf *error);
/* Forgets one compiled script, because its body is to be freed. */
void script_vm_drop(struct script_vm *vm, const struct script_body *body);
/* The compiled scripts are forgotten; for a new generation of the cache. */
void script_vm_forget(struct script_vm *vm);

struct script_run_args {
    void *run; /* for the host's functions */
    const struct bytes *keys, *args;
    size_t key_count, arg_count;
    /* What errors name ("script: <name>, on ..."): the SHA or the function's name. */
    struct bytes name;
};
/* Runs a compiled script and writes its reply.  False: it was aborted by script_vm_abort(), and nothing was written. */
bool script_vm_eval(struct script_vm *vm, const struct script_body *body, const struct script_run_args *args,
                    struct resp_out *out);
/* Ends the run under way: no instruction of the script is executed any more but those that unwind it.  In tick() and
 * call() only. */
void script_vm_abort(struct script_vm *vm);
/* The line at which the last run was aborted by tick(), 0 if that is not known. */
int script_vm_abort_line(const struct script_vm *vm);

#endif
