/* script_eval.c: EVAL, EVALSHA and SCRIPT. */
#include "server/scripting.h"

#include "base/hash.h"
#include "base/mem.h"
#include "base/number.h"

#include <ctype.h>

#define ERR_NOSCRIPT "NOSCRIPT No matching script. Please use EVAL."

struct scripting *scripting_create(void)
{
    struct scripting *s = mem_calloc(1, sizeof *s);
    s->cache = script_cache_create();
    pthread_mutex_init(&s->mu, NULL);
    list_init(&s->stalled);
    list_init(&s->slow);
    return s;
}

struct script_vm *script_worker_vm(struct worker *w, enum script_vm_kind kind)
{
    struct scripting *s = w->node->scripting;
    struct script_worker *sw = w->scripts;
    if (!sw) w->scripts = sw = mem_calloc(1, sizeof *sw);
    if (!sw->vm[kind]) sw->vm[kind] = script_vm_create(kind, &script_host);
    uint64_t generation = script_cache_generation(s->cache);
    if (generation != sw->generation) {
        memset(sw->recent, 0, sizeof sw->recent);
        memset(sw->recent_text, 0, sizeof sw->recent_text);
        if (sw->vm[SCRIPT_VM_EVAL]) script_vm_forget(sw->vm[SCRIPT_VM_EVAL]);
        sw->generation = generation;
    }
    uint64_t functions = atomic_load(&s->libraries.generation);
    if (functions != sw->functions_generation) {
        if (sw->vm[SCRIPT_VM_FUNCTIONS]) script_vm_sweep(sw->vm[SCRIPT_VM_FUNCTIONS], &s->libraries);
        sw->functions_generation = functions;
    }
    return sw->vm[kind];
}

static unsigned hex_value(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'a' + 10);
}

static struct script_body *find_body(struct worker *w, const char sha[SCRIPT_SHA_LENGTH])
{
    script_worker_vm(w, SCRIPT_VM_EVAL); /* makes `recent` valid */
    struct script_worker *sw = w->scripts;
    struct script_body **recent = &sw->recent[(hex_value(sha[0]) << 4 | hex_value(sha[1])) & 255];
    if (*recent && memcmp((*recent)->sha, sha, SCRIPT_SHA_LENGTH) == 0) return *recent;
    struct script_body *b = script_cache_find(w->node->scripting->cache, sha);
    if (b) *recent = b;
    return b;
}

/* EVALSHA's argument in lower case; false: it cannot be one. */
static bool sha_argument(struct bytes arg, char sha[SCRIPT_SHA_LENGTH])
{
    if (arg.n != SCRIPT_SHA_LENGTH) return false;
    for (size_t i = 0; i < arg.n; i++) sha[i] = (char)tolower((unsigned char)arg.p[i]);
    return true;
}

static bool by_sha(const struct call *call)
{
    return call->cmd->id == CMD_ID_EVALSHA || call->cmd->id == CMD_ID_EVALSHA_RO;
}

/* The SHA that the call is about; false: none can match. */
static bool sha_of_call(const struct call *call, char sha[SCRIPT_SHA_LENGTH])
{
    if (by_sha(call)) return sha_argument(call->argv[1], sha);
    script_sha1_hex(call->argv[1], sha);
    return true;
}

/* Compiles a new script and adds it to the cache; NULL: *error says why not. */
static struct script_body *add_body(struct worker *w, const char sha[SCRIPT_SHA_LENGTH], struct bytes text,
                                    struct buf *error)
{
    struct script_vm *vm = script_worker_vm(w, SCRIPT_VM_EVAL);
    struct script_body *b = script_body_create(sha, text, error);
    if (!b) return NULL;
    if (!script_vm_compile(vm, b, error)) {
        script_body_free(b);
        return NULL;
    }
    struct script_body *there = script_cache_insert(w->node->scripting->cache, b);
    if (there == b) return b;
    /* Another worker was faster; the compiled script goes with the body it is known by. */
    script_vm_drop(vm, b);
    script_body_free(b);
    return there;
}

/* The script of a call if it is cached. */
static struct script_body *known_body(struct worker *w, const struct call *call)
{
    char sha[SCRIPT_SHA_LENGTH];
    if (by_sha(call)) return sha_of_call(call, sha) ? find_body(w, sha) : NULL;
    script_worker_vm(w, SCRIPT_VM_EVAL);
    struct script_worker *sw = w->scripts;
    struct script_body **recent = &sw->recent_text[hash_bytes(call->argv[1]) & 255];
    if (*recent && bytes_eq((*recent)->text, call->argv[1])) return *recent;
    script_sha1_hex(call->argv[1], sha);
    struct script_body *b = find_body(w, sha);
    if (b) *recent = b;
    return b;
}

/* Of a script that nobody has run yet only its first line is looked at. */
static unsigned flags_of_text(struct bytes text)
{
    char sha[SCRIPT_SHA_LENGTH] = {0};
    struct buf error = {0};
    struct script_body *b = script_body_create(sha, text, &error);
    unsigned flags = b ? b->flags : 0;
    if (b) script_body_free(b);
    buf_deinit(&error);
    return flags;
}

bool script_only_reads(struct conn *c, const struct call *call)
{
    unsigned flags = 0;
    if (call->cmd->id == CMD_ID_FCALL || call->cmd->id == CMD_ID_FCALL_RO) {
        const struct script_function *f =
            script_libraries_function(&c->worker->node->scripting->libraries, call->argv[1]);
        if (f) flags = f->flags;
    } else {
        const struct script_body *b = known_body(c->worker, call);
        flags = b ? b->flags : by_sha(call) ? 0 : flags_of_text(call->argv[1]);
    }
    return flags & SCRIPT_HAS_SHEBANG && flags & SCRIPT_NO_WRITES;
}

bool script_needs_token(struct conn *c, struct call *call)
{
    if (call->cmd->id == CMD_ID_FCALL || call->cmd->id == CMD_ID_FCALL_RO) return function_needs_token(c, call);
    struct script_body *b = known_body(c->worker, call);
    call->prepared = b;
    /* Unknown: the handler compiles it, and its first run shows what it touches. */
    return !b || atomic_load_explicit(&b->manners, memory_order_relaxed) != MANNERS_CLEAN;
}

bool script_key_count(struct call *call, size_t *count)
{
    int64_t n;
    if (!call_arg_i64(call, 2, &n, NULL)) return false;
    if (n > (int64_t)call->argc - 3) {
        resp_error(&call->out, "ERR Number of keys can't be greater than number of args");
        return false;
    }
    if (n < 0) {
        resp_error(&call->out, "ERR Number of keys can't be negative");
        return false;
    }
    *count = (size_t)n;
    return true;
}

static struct script_body *body_of_call(struct call *call, struct worker *w)
{
    char sha[SCRIPT_SHA_LENGTH];
    struct script_body *b = call->prepared;
    if (b) return b;
    bool valid = sha_of_call(call, sha);
    b = valid ? find_body(w, sha) : NULL;
    if (b) return b;
    if (by_sha(call)) {
        resp_error(&call->out, ERR_NOSCRIPT);
        return NULL;
    }
    struct buf error = {0};
    b = add_body(w, sha, call->argv[1], &error);
    if (!b) resp_error_bytes(&call->out, buf_bytes(&error));
    buf_deinit(&error);
    return b;
}

static void eval(struct call *call, bool read_only)
{
    struct worker *w = call_conn(call)->worker;
    size_t keys;
    if (by_sha(call) && call->argv[1].n != SCRIPT_SHA_LENGTH) {
        resp_error(&call->out, ERR_NOSCRIPT); /* before anything else is looked at, as in Redis */
        return;
    }
    if (!script_key_count(call, &keys)) return;
    struct script_body *b = body_of_call(call, w);
    if (!b) return;
    struct script_vm *vm = script_worker_vm(w, SCRIPT_VM_EVAL);
    struct buf error = {0};
    if (script_vm_compile(vm, b, &error)) {
        struct script_target target = {.body = b,
                                       .flags = b->flags,
                                       .manners = &b->manners,
                                       .name = bytes_make(b->sha, sizeof b->sha),
                                       .read_only_command = read_only};
        script_run(call, vm, &target, 3, keys);
    } else {
        resp_error_bytes(&call->out, buf_bytes(&error));
    }
    buf_deinit(&error);
}

void cmd_eval(struct call *call)
{
    eval(call, false);
}

void cmd_eval_ro(struct call *call)
{
    eval(call, true);
}

/* ---- SCRIPT ---- */

void cmd_script_load(struct call *call)
{
    struct worker *w = call_conn(call)->worker;
    char sha[SCRIPT_SHA_LENGTH];
    script_sha1_hex(call->argv[2], sha);
    struct buf error = {0};
    if (find_body(w, sha) || add_body(w, sha, call->argv[2], &error))
        resp_bulk(&call->out, bytes_make(sha, sizeof sha));
    else
        resp_error_bytes(&call->out, buf_bytes(&error));
    buf_deinit(&error);
}

void cmd_script_exists(struct call *call)
{
    struct worker *w = call_conn(call)->worker;
    resp_array(&call->out, call->argc - 2);
    for (size_t i = 2; i < call->argc; i++) {
        char sha[SCRIPT_SHA_LENGTH];
        resp_i64(&call->out, sha_argument(call->argv[i], sha) && script_cache_find(w->node->scripting->cache, sha));
    }
}

void cmd_script_flush(struct call *call)
{
    bool known =
        call->argc == 2 || (call->argc == 3 && (call_arg_is(call, 2, "sync") || call_arg_is(call, 2, "async")));
    if (!known) {
        resp_error(&call->out, "ERR SCRIPT FLUSH only support SYNC|ASYNC option");
        return;
    }
    /* At rest nobody is using a script. */
    if (!call_exclusive(call)) return;
    script_cache_flush(call_conn(call)->worker->node->scripting->cache);
    resp_ok(&call->out);
}

void cmd_script_debug(struct call *call)
{
    if (call_arg_is(call, 2, "no"))
        resp_ok(&call->out);
    else if (call_arg_is(call, 2, "yes") || call_arg_is(call, 2, "sync"))
        resp_error(&call->out, "ERR The script debugger is not supported by this version of Covey");
    else
        resp_error(&call->out, "ERR Use SCRIPT DEBUG YES/SYNC/NO");
}

void cmd_script_help(struct call *call)
{
    static const char *const lines[] = {
        "DEBUG (YES|SYNC|NO)",
        "    Set the debug mode for subsequent scripts executed.",
        "EXISTS <sha1> [<sha1> ...]",
        "    Return information about the existence of the scripts in the script cache.",
        "FLUSH [ASYNC|SYNC]",
        "    Flush the Lua scripts cache. Very dangerous on replicas.",
        "    When called without the optional mode argument, the behavior is determined by the",
        "    lazyfree-lazy-user-flush configuration directive. Valid modes are:",
        "    * ASYNC: Asynchronously flush the scripts cache.",
        "    * SYNC: Synchronously flush the scripts cache.",
        "KILL",
        "    Kill the currently executing Lua script.",
        "LOAD <script>",
        "    Load a script into the scripts cache without executing it.",
    };
    call_help(call, "SCRIPT", lines, sizeof lines / sizeof lines[0]);
}

/* ---- INFO ---- */

void scripting_stats_get(struct node *n, struct scripting_stats *out)
{
    *out = (struct scripting_stats){.scripts = script_cache_count(n->scripting->cache),
                                    .scripts_memory = script_cache_memory(n->scripting->cache)};
    if (!atomic_load(&n->loading)) { /* a load changes the libraries beside the gate */
        out->functions = n->scripting->libraries.function_count;
        out->libraries = n->scripting->libraries.count;
        out->functions_memory = n->scripting->libraries.memory;
    }
    for (int i = 0; i < n->worker_count; i++) {
        const struct script_worker *sw = n->workers[i]->scripts;
        if (!sw) continue;
        const struct script_vm *e = sw->vm[SCRIPT_VM_EVAL], *f = sw->vm[SCRIPT_VM_FUNCTIONS];
        if (e) out->vm_eval += script_vm_memory(e);
        if (f) out->vm_functions += script_vm_memory(f);
    }
}
