/* script_run.c: one run of a script: its checks, its commands, its slots. */
#include "server/scripting.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/number.h"
#include "server/cluster_link.h"
#include "server/persistence.h"
#include "server/renames.h"
#include "server/replication.h"
#include "server/reply_gate.h"

#include <sched.h>
#include <time.h>

enum { KEYS_INLINE = 16, CALLS_PER_CHECK = 64, SHARE_MS = 10 };

/* A set of slots, made when the first one comes. */
struct slot_bits {
    uint64_t *words;
};

struct run {
    struct slow_run slow;
    struct list link; /* in scripting.stalled */
    struct conn *conn;
    struct call *outer;
    const struct script_target *target;
    struct script_vm *vm;
    struct buf reply; /* of the command that ran last */
    struct key *keys; /* declared */
    size_t key_count;
    unsigned calls;
    int64_t served_ms;                /* when other connections had a turn last */
    struct slot_bits extra, borrowed; /* locked on demand; lent by a stalled run */
    int db_now;                       /* of the last effect */
    int cluster_slot;                 /* that the script keeps to; -1: none yet */
    bool out_of_memory;               /* as the script began */
    bool wrote_command;               /* called one that may write */
    bool read_only, has_token, exclusive, wrote, strayed, propagate;
    enum { RUN_ON, RUN_AGAIN_WITH_TOKEN, RUN_AGAIN_AT_REST, RUN_KILLED } verdict;
    struct key inline_keys[KEYS_INLINE];
};

/* ---- slots ---- */

static bool bits_have(const struct slot_bits *b, unsigned slot)
{
    return b->words && b->words[slot / 64] >> (slot % 64) & 1;
}

static void bits_set(struct slot_bits *b, unsigned slot)
{
    if (!b->words) b->words = mem_calloc(SLOT_COUNT / 64, sizeof *b->words);
    b->words[slot / 64] |= 1ull << (slot % 64);
}

static bool holds(const struct run *r, unsigned slot)
{
    for (size_t i = 0; i < r->key_count; i++)
        if (r->keys[i].slot == slot) return true;
    const struct waker *w = &r->conn->worker->waker;
    for (unsigned i = 0; i < w->extra_n; i++)
        if (w->extra[i] == slot) return true;
    return bits_have(&r->extra, slot) || bits_have(&r->borrowed, slot);
}

/* Whether somebody who waits for the token holds the slot; for the token's holder only, so it stays true. */
static bool lent_by_stalled(struct scripting *s, unsigned slot)
{
    bool lent = false;
    pthread_mutex_lock(&s->mu);
    list_each(it, &s->stalled)
    {
        if (holds(container_of(it, struct run, link), slot)) lent = true;
    }
    pthread_mutex_unlock(&s->mu);
    return lent;
}

static void wait_a_little(unsigned round)
{
    if (round < 100)
        sched_yield();
    else
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
}

static void check_time(struct run *r);

/* The token's holder gets every slot: commands that hold one end without waiting, and stalled scripts lend theirs. */
static void acquire_slot(struct run *r, unsigned slot)
{
    struct node *n = r->conn->worker->node;
    for (unsigned round = 0;; round++) {
        if (slot_try_lock(n->store, slot)) {
            bits_set(&r->extra, slot);
            return;
        }
        if (lent_by_stalled(n->scripting, slot)) {
            bits_set(&r->borrowed, slot);
            return;
        }
        wait_a_little(round);
        if (round % 64 == 63) check_time(r);
    }
}

/* What the script has done so far becomes a record of its own, because somebody else may change the same slots now. */
static void append_so_far(struct run *r)
{
    struct call *outer = r->outer;
    if (r->db_now != outer->db && outer->effect_count) {
        resp_request_begin(outer->effects, 2);
        resp_request_arg(outer->effects, BYTES("SELECT"));
        resp_request_arg_i64(outer->effects, outer->db);
    }
    r->db_now = outer->db;
    dispatch_append_effects(r->conn, outer->db, outer->effect_count, outer->db);
    outer->effects->n = 0;
    outer->effect_count = 0;
}

/* A run that has written strays from its declared keys. */
static void wait_for_token(struct run *r)
{
    struct node *n = r->conn->worker->node;
    struct scripting *s = n->scripting;
    if (!slot_try_lock(n->store, STORE_TOKEN)) {
        append_so_far(r);
        pthread_mutex_lock(&s->mu);
        list_push_back(&s->stalled, &r->link);
        pthread_mutex_unlock(&s->mu);
        for (unsigned round = 0; !slot_try_lock(n->store, STORE_TOKEN); round++) wait_a_little(round);
        pthread_mutex_lock(&s->mu);
        list_remove(&r->link);
        pthread_mutex_unlock(&s->mu);
    }
    r->has_token = true;
}

static void give_up(struct run *r, int verdict)
{
    r->verdict = verdict;
    script_vm_abort(r->vm);
}

/* False: the run ends here and begins anew. */
static bool stray(struct run *r)
{
    r->strayed = true;
    if (r->has_token) return true;
    if (!r->wrote) {
        give_up(r, RUN_AGAIN_WITH_TOKEN);
        return false;
    }
    wait_for_token(r);
    return true;
}

static void mark_busy(struct run *r)
{
    struct scripting *s = r->conn->worker->node->scripting;
    for (size_t i = 0; i < r->key_count; i++) script_busy_mark(s, r->keys[i].slot);
    for (unsigned slot = 0; r->extra.words && slot < SLOT_COUNT; slot++)
        if (bits_have(&r->extra, slot)) script_busy_mark(s, slot);
    if (r->has_token) script_busy_mark(s, STORE_TOKEN);
}

/* A slow script shares its worker: a turn for the other connections, as much time for itself, and so on. */
static void serve_others(struct run *r, int64_t now_ms)
{
    struct worker *w = r->conn->worker;
    bool alone = r->exclusive || r->outer->flags & CALL_IN_EXEC || w->inner || !w->inside;
    if (alone || !r->slow.listed || r->verdict != RUN_ON || now_ms - r->served_ms < SHARE_MS) return;
    worker_inner_turn(w, r->conn);
    r->served_ms = clock_mono_ms();
}

/* From time to time during the run. */
static void check_time(struct run *r)
{
    if (r->verdict != RUN_ON) return;
    int64_t now = clock_mono_ms();
    if (script_slow_tick(&r->slow, now)) give_up(r, RUN_KILLED);
    if (r->slow.busy) mark_busy(r);
    serve_others(r, now);
}

static bool hold_slots(struct run *r, const struct key *keys, size_t n)
{
    if (r->exclusive) return true;
    for (size_t i = 0; i < n; i++) {
        if (holds(r, keys[i].slot)) continue;
        if (!stray(r)) return false;
        acquire_slot(r, keys[i].slot);
    }
    return true;
}

/* What was done in slots that dispatch does not know of is logged and served before they are let go. */
static void before_release(struct run *r)
{
    struct waker *w = &r->conn->worker->waker;
    append_so_far(r);
    if (!waker_has_work(w)) return;
    unsigned *slots = mem_alloc(SLOT_COUNT * sizeof *slots);
    size_t n = 0;
    for (unsigned slot = 0; slot < SLOT_COUNT; slot++)
        if (holds(r, slot)) slots[n++] = slot;
    waker_serve(w, slots, n, false, r->outer->now_ms);
    mem_free(slots);
}

static void release_slots(struct run *r)
{
    struct store *s = r->conn->worker->node->store;
    for (unsigned w = 0; r->extra.words && w < SLOT_COUNT / 64; w++)
        for (uint64_t left = r->extra.words[w]; left; left &= left - 1)
            slot_unlock(s, w * 64 + (unsigned)__builtin_ctzll(left));
    mem_free(r->extra.words);
    mem_free(r->borrowed.words);
    r->extra.words = r->borrowed.words = NULL;
}

/* ---- a command of a script ---- */

static void reply_error(struct run *r, const char *why)
{
    struct resp_out out = {&r->reply, 2};
    resp_error(&out, why);
}

static const char *not_permitted(struct run *r, const struct call *call)
{
    if (acl_user_is_free(r->conn->user)) return NULL;
    switch (dispatch_acl_verdict(r->conn, call, ACL_IN_LUA)) {
    case ACL_ALLOWED: return NULL;
    case ACL_DENIED_KEY:
        return "ERR The user executing the script can't access at least one of the keys mentioned in the command "
               "arguments";
    case ACL_DENIED_CHANNEL:
        return "ERR The user executing the script can't publish to the channel mentioned in the command";
    default: return "ERR The user executing the script can't run this command or subcommand";
    }
}

/* Why the command may not be called; NULL: it may. */
static const char *objection(struct run *r, const struct call *call, const struct command *cmd)
{
    struct node *n = r->conn->worker->node;
    if (!cmd) return "ERR Unknown Redis command called from script";
    if (!command_arity_ok(cmd, call->argc)) return "ERR Wrong number of args calling Redis command from script";
    if (cmd->flags & CMD_NOSCRIPT) return "ERR This Redis command is not allowed from script";
    if (data_node_is_replica(n) && !(cmd->flags & CMD_STALE) && !config_bool(n->config, CFG_REPLICA_SERVE_STALE_DATA) &&
        !replication_link_up(n->replication))
        return "ERR Can not execute the command on a stale replica";
    const char *forbidden = not_permitted(r, call);
    if (forbidden) return forbidden;
    bool write = cmd->flags & CMD_WRITE;
    if (write && r->read_only) return "ERR Write commands are not allowed from read-only scripts.";
    const char *why = write ? dispatch_refusal(n, CMD_WRITE | CMD_STALE | CMD_LOADING) : NULL;
    if (write && !why) why = reply_gate_refusal(r->conn);
    if (why) return why;
    /* Only before the first write: a script is not to be stopped in the middle. */
    if (r->out_of_memory && !r->wrote_command && cmd->flags & CMD_DENYOOM) return ERR_OOM_VALUE;
    if (write) {
        r->wrote_command = true;
        atomic_store_explicit(&r->slow.wrote, true, memory_order_relaxed);
    }
    return NULL;
}

static const char *wrong_node(struct run *r, const struct call *call, const struct key *keys, size_t n)
{
    if (!r->conn->worker->node->cluster || n == 0) return NULL;
    const char *why = cluster_script_objection(r->conn, call, keys, n, call->cmd->flags & CMD_WRITE);
    if (why) return why;
    bool cross_slot = !(r->target->flags & SCRIPT_HAS_SHEBANG) || r->target->flags & SCRIPT_ALLOW_CROSS_SLOT;
    if (cross_slot || r->conn->cross_slot) return NULL;
    if (r->cluster_slot < 0) r->cluster_slot = (int)keys[0].slot;
    if (r->cluster_slot != (int)keys[0].slot)
        return "ERR Script attempted to access keys that do not hash to the same slot";
    return NULL;
}

/* Every slot there is: as good as a server at rest for a command that only reads and writes keys. */
static void hold_all_slots(struct run *r)
{
    for (unsigned slot = 0; slot < SLOT_COUNT; slot++)
        if (!holds(r, slot)) acquire_slot(r, slot);
}

/* Commands that read slots beside those of their keys, one after another; they lock them themselves, which a script
 * that holds some must not let them do. */
static bool walks_slots(const struct command *cmd)
{
    return cmd->id == CMD_ID_KEYS || cmd->id == CMD_ID_SCAN || cmd->id == CMD_ID_RANDOMKEY;
}

static void note_database(struct run *r, const struct call *call, size_t before)
{
    if (call->db == r->db_now || call->effect_count == 0) return;
    /* Effects of one database follow those of another: a SELECT goes between. */
    struct buf *e = call->effects;
    struct buf select = {0};
    resp_request_begin(&select, 2);
    resp_request_arg(&select, BYTES("SELECT"));
    resp_request_arg_i64(&select, call->db);
    buf_reserve(e, select.n);
    memmove(e->p + before + select.n, e->p + before, e->n - before);
    memcpy(e->p + before, select.p, select.n);
    e->n += select.n;
    buf_deinit(&select);
    r->outer->effect_count++;
    r->db_now = call->db;
}

static void run_once(struct run *r, struct call *call, int resp)
{
    struct buf *effects = r->outer->effects;
    size_t before = effects->n;
    r->reply.n = 0;
    call->out = (struct resp_out){&r->reply, (uint8_t)resp};
    call->now_ms = r->outer->now_ms;
    call->flags = CALL_IN_EXEC | CALL_IN_SCRIPT |
                  (r->outer->flags & (CALL_ON_REPLICA | CALL_KEEP_EXPIRED | CALL_EXCLUSIVE | CALL_NO_TOUCH));
    call->effects = effects;
    call->effects_wanted = r->outer->effects_wanted && r->propagate;
    dispatch_run(r->conn, call);
    note_database(r, call, before);
    r->outer->effect_count += call->effect_count;
    if (call->dirty) r->wrote = true;
}

/* The command asked for the server at rest. */
static void run_at_rest(struct run *r, struct call *call, int resp)
{
    if (!r->wrote) {
        give_up(r, RUN_AGAIN_AT_REST);
        return;
    }
    bool only_keys = call->cmd->id == CMD_ID_SORT || call->cmd->id == CMD_ID_SORT_RO;
    if (!only_keys) {
        r->reply.n = 0;
        reply_error(r, "ERR This command has to come before the first write of a script that does not name it");
        return;
    }
    if (!stray(r)) return;
    hold_all_slots(r);
    call->want_exclusive = false;
    call->dirty = call->effect_count = 0;
    call->verbatim_off = false;
    unsigned flags = r->outer->flags;
    r->outer->flags |= CALL_EXCLUSIVE;
    run_once(r, call, resp);
    r->outer->flags = flags;
}

/* The keys of a call that has more than it keeps inline. */
static struct key *all_keys(const struct call *call, size_t *n)
{
    int count = command_keys(call->cmd, call->argv, call->argc, NULL, 0);
    *n = count > 0 ? (size_t)count : 0;
    if (*n == 0) return NULL;
    struct command_key *found = mem_alloc(*n * sizeof *found);
    command_keys(call->cmd, call->argv, call->argc, found, *n);
    struct key *keys = mem_alloc(*n * sizeof *keys);
    for (size_t i = 0; i < *n; i++) keys[i] = key_of(call->argv[found[i].index]);
    mem_free(found);
    return keys;
}

static void call_checked(struct run *r, struct call *call, int resp)
{
    const struct key *keys = call->keys;
    size_t n = call->key_count;
    struct key *more = NULL;
    if (n == CALL_KEYS_INLINE) keys = more = all_keys(call, &n);
    const char *why = wrong_node(r, call, keys, n);
    if (why) {
        reply_error(r, why);
    } else if (hold_slots(r, keys, n)) {
        if (walks_slots(call->cmd) && !r->exclusive) {
            unsigned flags = r->outer->flags;
            if (stray(r)) {
                hold_all_slots(r);
                r->outer->flags |= CALL_EXCLUSIVE;
                run_once(r, call, resp);
            }
            r->outer->flags = flags;
        } else {
            run_once(r, call, resp);
            if (call->want_exclusive) run_at_rest(r, call, resp);
        }
    }
    mem_free(more);
}

static struct bytes host_call(void *run, const struct bytes *argv, size_t argc, int resp)
{
    struct run *r = run;
    struct resp_request req = {.argv = (struct bytes *)(uintptr_t)argv, .argc = argc};
    struct call call;
    const struct command *container = NULL;
    r->reply.n = 0;
    if (++r->calls % CALLS_PER_CHECK == 0) check_time(r);
    if (r->verdict != RUN_ON) return bytes_make(NULL, 0);
    dispatch_prepare(r->conn, &call, &req);
    call.flags = CALL_IN_EXEC | CALL_IN_SCRIPT; /* also for what is looked at before it runs */
    const struct command *cmd = node_command_of_request(r->conn->worker->node, argv, argc, &container);
    const char *why = objection(r, &call, cmd);
    if (why)
        reply_error(r, why);
    else
        call_checked(r, &call, resp);
    return r->verdict == RUN_ON ? buf_bytes(&r->reply) : bytes_make(NULL, 0);
}

static int host_acl_check(void *run, const struct bytes *argv, size_t argc)
{
    struct run *r = run;
    const struct command *cmd = node_command_of_request(r->conn->worker->node, argv, argc, NULL);
    if (!cmd) return -1;
    return acl_user_is_free(r->conn->user) || access_verdict(r->conn->user, cmd, argv, argc, NULL) == ACL_ALLOWED;
}

static void host_log(void *run, int level, struct bytes text)
{
    (void)run;
    int n = (int)(text.n < 1024 ? text.n : 1024);
    const char *p = text.p ? text.p : "";
    switch (level) {
    case SCRIPT_LOG_DEBUG: log_debug("%.*s", n, p); break;
    case SCRIPT_LOG_VERBOSE: log_verbose("%.*s", n, p); break;
    case SCRIPT_LOG_NOTICE: log_notice("%.*s", n, p); break;
    default: log_warning("%.*s", n, p); break;
    }
}

static void host_set_repl(void *run, int what)
{
    struct run *r = run;
    /* There is no append-only file, so what counts is whether replicas get it. */
    r->propagate = what & SCRIPT_REPL_REPLICA;
}

static void host_tick(void *run)
{
    check_time(run);
}

const struct script_host script_host = {
    .call = host_call, .acl_check = host_acl_check, .log = host_log, .set_repl = host_set_repl, .tick = host_tick};

/* ---- the run ---- */

/* Why a script with a first line that states its flags may not run at all. */
static const char *refusal_by_flags(struct conn *c, const struct script_target *t)
{
    struct node *n = c->worker->node;
    bool replica = data_node_is_replica(n);
    bool stale =
        replica && !config_bool(n->config, CFG_REPLICA_SERVE_STALE_DATA) && !replication_link_up(n->replication);
    if (!(t->flags & SCRIPT_HAS_SHEBANG))
        return stale ? "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'." : NULL;
    if (t->flags & SCRIPT_NO_CLUSTER && n->cluster)
        return "ERR Can not run script on cluster, 'no-cluster' flag is set.";
    if (stale && !(t->flags & SCRIPT_ALLOW_STALE))
        return "MASTERDOWN Link with MASTER is down, replica-serve-stale-data is set to 'no' and 'allow-stale' flag is "
               "not set.";
    if (t->flags & SCRIPT_NO_WRITES) return NULL;
    if (replica && config_bool(n->config, CFG_REPLICA_READ_ONLY))
        return "READONLY You can not run script with write flag on readonly replica.";
    if (!persistence_accepts_writes(n->persistence))
        return "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. "
               "Writable scripts are blocked, Use 'no-writes' flag for read only scripts.";
    if (t->read_only_command) return "ERR Can not execute a script with write flag using *_ro command.";
    /* Outside of a transaction redis-server looks at the script's flags before it runs it, as at any command's. */
    if (c->worker->out_of_memory && !(t->flags & SCRIPT_ALLOW_OOM) && !c->in_multi) return ERR_OOM_VALUE;
    if (c->worker->out_of_memory && !(t->flags & SCRIPT_ALLOW_OOM))
        return "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'";
    return NULL;
}

static void run_begin(struct run *r, struct call *call, const struct script_target *target, size_t first_key,
                      size_t key_count)
{
    bool in_exec = call->flags & CALL_IN_EXEC;
    bool exclusive = call->flags & CALL_EXCLUSIVE;
    *r = (struct run){.conn = call_conn(call),
                      .outer = call,
                      .target = target,
                      .keys = r->inline_keys,
                      .key_count = key_count,
                      .db_now = call->db,
                      .cluster_slot = -1,
                      .read_only = target->read_only_command || target->flags & SCRIPT_NO_WRITES,
                      .has_token = !exclusive && !in_exec && call->token_held,
                      .exclusive = exclusive,
                      .out_of_memory = call_conn(call)->worker->out_of_memory && !(target->flags & SCRIPT_ALLOW_OOM),
                      .propagate = true};
    list_init(&r->link);
    r->slow = (struct slow_run){.conn = r->conn,
                                .argv = call->argv,
                                .argc = call->argc,
                                .name = target->name,
                                .function = target->function != NULL,
                                .begun_ms = clock_mono_ms()};
    if (key_count > KEYS_INLINE) r->keys = mem_alloc(key_count * sizeof *r->keys);
    for (size_t i = 0; i < key_count; i++) r->keys[i] = call_key(call, first_key + i);
    if (key_count) r->cluster_slot = (int)r->keys[0].slot;
}

/* What the next run has to hold. */
static void learn(struct run *r)
{
    int seen = r->verdict == RUN_AGAIN_AT_REST ? MANNERS_REST : r->strayed ? MANNERS_WILD : MANNERS_CLEAN;
    int known = atomic_load_explicit(r->target->manners, memory_order_relaxed);
    if (seen <= known || r->exclusive) return;
    atomic_store_explicit(r->target->manners, seen, memory_order_relaxed);
}

/* The reply of a run that was killed. */
static void write_killed(struct run *r)
{
    resp_errorf(&r->outer->out, "ERR Script killed by user with %s... script: %.*s, on @user_%s:%d.",
                r->slow.function ? "FUNCTION KILL" : "SCRIPT KILL", (int)r->target->name.n, r->target->name.p,
                r->slow.function ? "function" : "script", script_vm_abort_line(r->vm));
}

static void run_end(struct run *r, int db_before)
{
    script_slow_end(&r->slow);
    if (r->verdict == RUN_KILLED) write_killed(r);
    struct call *outer = r->outer;
    learn(r);
    r->conn->db = db_before;
    call_effect_none(outer);
    if (r->verdict != RUN_ON && r->verdict != RUN_KILLED) {
        append_so_far(r); /* keys that were found expired */
        outer->want_exclusive = r->verdict == RUN_AGAIN_AT_REST;
        outer->want_restart = r->verdict == RUN_AGAIN_WITH_TOKEN;
    } else if (r->db_now != outer->db && outer->effect_count) {
        struct bytes select[] = {BYTES("SELECT"), {0}};
        char digits[24];
        select[1] = bytes_make(digits, format_i64(digits, outer->db));
        resp_request_append(outer->effects, select, 2);
        outer->effect_count++;
    }
    if (r->extra.words || r->borrowed.words) before_release(r);
    release_slots(r);
    /* What dispatch did not take, it does not give back. */
    if (r->has_token && !outer->token_held) slot_unlock(r->conn->worker->node->store, STORE_TOKEN);
    if (r->keys != r->inline_keys) mem_free(r->keys);
    buf_deinit(&r->reply);
}

void script_run(struct call *call, struct script_vm *vm, const struct script_target *target, size_t first_key,
                size_t key_count)
{
    const char *why = refusal_by_flags(call_conn(call), target);
    if (why) {
        resp_error(&call->out, why);
        return;
    }
    /* A script in a transaction cannot begin anew alone. */
    bool rest = atomic_load_explicit(target->manners, memory_order_relaxed) == MANNERS_REST;
    if (rest && !call_exclusive(call)) return;
    struct run r;
    run_begin(&r, call, target, first_key, key_count);
    r.vm = vm;
    int db = r.conn->db;
    struct script_run_args args = {.run = &r,
                                   .keys = call->argv + first_key,
                                   .key_count = key_count,
                                   .args = call->argv + first_key + key_count,
                                   .arg_count = call->argc - first_key - key_count,
                                   .name = target->name};
    if (target->function)
        script_vm_fcall(vm, target->function, &args, &call->out);
    else
        script_vm_eval(vm, target->body, &args, &call->out);
    run_end(&r, db);
}
