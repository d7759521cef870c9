/* dispatch.c: from a request to its execution: the checks in redis-server's order, the locks, propagation. */
#include "server/conn.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cluster/cluster.h"
#include "observe/errorstats.h"
#include "server/acl_node.h"
#include "server/aof.h"
#include "server/cluster_link.h"
#include "server/last_writes.h"
#include "server/latency.h"
#include "server/memory.h"
#include "server/monitor.h"
#include "server/multi.h"
#include "server/persistence.h"
#include "server/pubsub.h"
#include "server/renames.h"
#include "server/replication.h"
#include "server/reply_gate.h"
#include "server/scripting.h"
#include "server/slowlog.h"
#include "server/snapshot_budget.h"
#include "server/topkeys.h"
#include "server/tracking.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { REST_TRY_MS = 20, SLOTS_INLINE = 16 };

static void add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

void call_reject(struct call *call, const char *fmt, ...)
{
    struct conn *c = call_conn(call);
    struct buf text = {0};
    va_list ap;
    va_start(ap, fmt);
    buf_append_char(&text, '-');
    buf_vprintf(&text, fmt, ap);
    va_end(ap);
    errorstats_note(c->worker->node->errors, buf_bytes(&text));
    buf_drop_front(&text, 1);
    resp_error_bytes(&call->out, buf_bytes(&text));
    buf_deinit(&text);
    if (call->cmd) add(&c->worker->commands[call->cmd->id].rejected, 1);
    /* An error while a transaction is being queued spoils it. */
    if (c->in_multi && !(call->flags & CALL_IN_EXEC)) c->multi_failed = true;
}

/* A check before execution failed.  For EXEC that is the end of the transaction. */
static void refuse(struct call *call, const char *why)
{
    struct conn *c = call_conn(call);
    if (!call->cmd || call->cmd->id != CMD_ID_EXEC) {
        call_reject(call, "%s", why);
        return;
    }
    if (monitor_wanted(c->worker->node)) monitor_show(c, call); /* MULTI was seen: this is its end */
    multi_discard(c);
    watch_clear(c);
    call_reject(call, "EXECABORT Transaction discarded because of: %s", strncmp(why, "ERR ", 4) == 0 ? why + 4 : why);
}

void dispatch_prepare(struct conn *c, struct call *call, const struct resp_request *req)
{
    struct worker *w = c->worker;
    memset(call, 0, offsetof(struct call, key_arg)); /* the keys behind are written where they are wanted */
    call->env = &w->env;
    call->argv = req->argv;
    call->argc = req->argc;
    call->db = c->db;
    call->now_ms = w->now_ms;
    call->lru_clock = w->lru_clock;
    call->session = c;
    call->effects = &w->effects;
    const struct command *container = NULL;
    call->cmd = node_command_of_request(w->node, req->argv, req->argc, &container);
    if (!call->cmd) call->cmd = container;
    if (!call->cmd || !command_arity_ok(call->cmd, req->argc)) return;
    call->handler = command_handler_of((enum command_id)call->cmd->id);
    call_prepare_keys(call);
}

/* ---- checks ---- */

static int shown(struct bytes b, size_t max)
{
    return (int)(b.n < max ? b.n : max);
}

static void reject_unknown(struct call *call)
{
    struct buf args = {0};
    for (size_t i = 1; i < call->argc && args.n < 128; i++)
        buf_printf(&args, "'%.*s' ", shown(call->argv[i], 128 - args.n), call->argv[i].p);
    call_reject(call, "ERR unknown command '%.*s', with args beginning with: %.*s", shown(call->argv[0], 128),
                call->argv[0].p, (int)args.n, args.n ? args.p : "");
    buf_deinit(&args);
}

/* A browser talked into posting to our port would otherwise have its body executed line by line. */
static bool is_http(struct bytes name)
{
    return bytes_ieq(name, BYTES("post")) || bytes_ieq(name, BYTES("host:"));
}

static void drop_http(struct conn *c)
{
    log_warning("Possible SECURITY ATTACK detected. It looks like somebody is sending POST or Host: commands to Redis. "
                "This is likely due to an attacker attempting to use Cross Protocol Scripting to compromise your Redis "
                "instance. Connection from %s aborted.",
                c->peer);
    c->close_asap = true;
}

static bool known_and_complete(struct call *call)
{
    if (!call->cmd) {
        if (is_http(call->argv[0]))
            drop_http(call_conn(call));
        else
            reject_unknown(call);
        return false;
    }
    if (!command_arity_ok(call->cmd, call->argc)) {
        char why[96];
        snprintf(why, sizeof why, "ERR wrong number of arguments for '%s' command", call->cmd->name);
        refuse(call, why);
        return false;
    }
    if (call->argc > 1 && command_sub_count(call->cmd)) {
        const char *name = call->cmd->name;
        char upper[32];
        size_t n = 0;
        for (; name[n] && n + 1 < sizeof upper; n++)
            upper[n] = (char)(name[n] >= 'a' && name[n] <= 'z' ? name[n] - 32 : name[n]);
        upper[n] = '\0';
        call_reject(call, "ERR unknown subcommand '%.*s'. Try %s HELP.", shown(call->argv[1], 128), call->argv[1].p,
                    upper);
        return false;
    }
    assert(call->handler); /* what has none has subcommands, and needs an argument */
    return true;
}

/* What keeps the node from writing to its disk, as far as that forbids writes. */
static const char *disk_refusal(const struct node *n)
{
    if (!persistence_accepts_writes(n->persistence))
        return "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. "
               "Commands that may modify the data set are disabled, because this instance is configured to report "
               "errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). Please check the "
               "Redis logs for details about the RDB error.";
    return aof_refusal(n->aof);
}

const char *dispatch_refusal(const struct node *n, uint32_t flags)
{
    bool write = flags & CMD_WRITE;
    const char *disk = write ? disk_refusal(n) : NULL;
    if (disk) return disk;
    if (write && !replication_enough_replicas(n->replication)) return "NOREPLICAS Not enough good replicas to write.";
    bool replica = data_node_is_replica(n);
    if (write && replica && config_bool(n->config, CFG_REPLICA_READ_ONLY))
        return "READONLY You can't write against a read only replica.";
    if (replica && !(flags & CMD_STALE) && !config_bool(n->config, CFG_REPLICA_SERVE_STALE_DATA) &&
        !replication_link_up(n->replication))
        return "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.";
    if (atomic_load_explicit(&n->loading, memory_order_relaxed) && !(flags & CMD_LOADING))
        return "LOADING Redis is loading the dataset in memory";
    return NULL;
}

static bool routed_elsewhere(struct conn *c, struct call *call);

/* What a connection of protocol version 2 that has subscribed may still say. */
static bool listener_may(const struct command *cmd)
{
    switch (cmd->id) {
    case CMD_ID_PING:
    case CMD_ID_SUBSCRIBE:
    case CMD_ID_SSUBSCRIBE:
    case CMD_ID_PSUBSCRIBE:
    case CMD_ID_UNSUBSCRIBE:
    case CMD_ID_SUNSUBSCRIBE:
    case CMD_ID_PUNSUBSCRIBE:
    case CMD_ID_QUIT:
    case CMD_ID_RESET: return true;
    default: return false;
    }
}

static bool queues(const struct call *call)
{
    switch (call->cmd->id) {
    case CMD_ID_EXEC:
    case CMD_ID_DISCARD:
    case CMD_ID_MULTI:
    case CMD_ID_WATCH:
    case CMD_ID_QUIT:
    case CMD_ID_RESET: return false;
    default: return true;
    }
}

/* Evicts where that is needed.  What could use up more memory is refused when nothing more can be evicted: in a
 * transaction that is also whatever would be queued. */
static bool lacks_memory(struct conn *c, const struct call *call)
{
    if (call->flags & CALL_EXCLUSIVE) return false; /* it was looked at before, and the server is at rest now */
    if (config_num(c->worker->node->config, CFG_MAXMEMORY) == 0) {
        c->worker->out_of_memory = false;
        return false;
    }
    if (memory_make_room(c->worker) != ROOM_NONE) return false;
    if (call->cmd->id == CMD_ID_EXEC) return c->in_multi && multi_queue_needs_memory(c);
    return call->cmd->flags & CMD_DENYOOM || (c->in_multi && queues(call));
}

static bool allowed_now(struct conn *c, struct call *call)
{
    struct node *n = c->worker->node;
    uint32_t flags = call->cmd->flags;
    /* On its way out, perhaps since it waited for the server to be at rest: it has no user any more. */
    if (atomic_load_explicit(&c->kill, memory_order_relaxed)) return false;
    const char *not_here = flags & CMD_ADMIN ? dispatch_protected_refusal(c, call->cmd) : NULL;
    if (not_here) {
        refuse(call, not_here);
        return false;
    }
    if (!c->authenticated && !(flags & CMD_NO_AUTH) && acl_must_log_in(c)) {
        refuse(call, "NOAUTH Authentication required.");
        return false;
    }
    if (c->in_multi && flags & CMD_NO_MULTI) {
        call_reject(call, "ERR Command not allowed inside a transaction");
        return false;
    }
    char text[ACCESS_REFUSAL_MAX];
    const char *no_permission = dispatch_acl_refusal(c, call, c->in_multi ? ACL_IN_MULTI : ACL_AT_TOP, text);
    if (no_permission) {
        refuse(call, no_permission);
        return false;
    }
    const char *why_not = lacks_memory(c, call) ? ERR_OOM_VALUE : dispatch_refusal(n, flags);
    if (!why_not && flags & CMD_WRITE) why_not = reply_gate_refusal(c);
    if (!why_not && call->cmd->id == CMD_ID_PING) why_not = disk_refusal(n); /* a health check is to see it */
    if (!why_not && c->is_monitor && flags & (CMD_WRITE | CMD_READONLY | CMD_MAY_REPLICATE))
        why_not = "ERR Replica can't interact with the keyspace";
    if (!why_not && pubsub_active(c) && c->resp == 2 && !listener_may(call->cmd)) {
        char why[160];
        snprintf(why, sizeof why,
                 "ERR Can't execute '%s': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in "
                 "this context",
                 call->cmd->name);
        refuse(call, why);
        return false;
    }
    if (!why_not) return true;
    /* A client that asks the wrong node of a cluster is told the right one, whatever state this one is in. */
    if (!routed_elsewhere(c, call)) refuse(call, why_not);
    return false;
}

/* Asked inside the gate, which CLIENT PAUSE and failovers wait for: the answer holds until the command has ended. */
static bool must_pause(struct conn *c, struct call *call)
{
    struct node *n = c->worker->node;
    enum pause_mode mode = node_paused(n, c->worker->now_mono_ms);
    /* What is paused includes expiry: the log has to stand still. */
    if (mode != PAUSE_NONE) call->flags |= CALL_KEEP_EXPIRED;
    if (mode == PAUSE_NONE && aof_is_congested(n->aof)) mode = PAUSE_WRITE; /* the log's memory is bounded */
    if (mode == PAUSE_NONE) return false;
    if (call->cmd->flags & CMD_ADMIN && call->cmd->id != CMD_ID_SHUTDOWN)
        return false; /* CLIENT UNPAUSE must get through */
    if (call->cmd->id == CMD_ID_CLIENT_UNPAUSE || call->cmd->id == CMD_ID_CLIENT_PAUSE) return false;
    if (mode == PAUSE_ALL) return true;
    if (call->cmd->id == CMD_ID_EXEC) return multi_queue_writes(c);
    if (command_runs_script(call->cmd) && script_only_reads(c, call)) return false;
    return call->cmd->flags & (CMD_WRITE | CMD_MAY_REPLICATE);
}

void dispatch_park(struct conn *c)
{
    c->wait = WAIT_PAUSE;
    list_push_back(&c->worker->paused, &c->waiting_link);
}

static bool parked_by_pause(struct conn *c, struct call *call)
{
    if (!must_pause(c, call)) return false;
    dispatch_park(c);
    if (snapshot_budget_spent(c->worker->node)) worker_look_again(c->worker, SNAPSHOT_LOOK_MS);
    return true;
}

static bool needs_lease(const struct conn *c, const struct call *call)
{
    const struct node *n = c->worker->node;
    const struct command *cmd = call->cmd;
    if (c->worker->may_serve || !n->cluster || !cluster_i_am_primary(n->cluster) || !cluster_is_ok(n->cluster))
        return false;
    if (cmd->flags & CMD_WRITE || cmd->id == CMD_ID_EXEC || command_runs_script(cmd)) return true;
    return cmd->flags & CMD_READONLY && command_has_keys(cmd) &&
           !config_bool(n->config, CFG_CLUSTER_ALLOW_READS_WHEN_DOWN);
}

/* Soon this node hears from the others, or finds that it is cut off from them.  False: it has waited long enough. */
static bool park_for_lease(struct conn *c)
{
    struct worker *w = c->worker;
    int64_t now = clock_mono_ms();
    if (!c->lease_wait_ms) c->lease_wait_ms = now;
    if (now - c->lease_wait_ms > 2 * config_num(w->node->config, CFG_CLUSTER_NODE_TIMEOUT)) return false;
    c->wait = WAIT_LEASE;
    list_push_back(&w->leaseless, &c->waiting_link);
    atomic_store(&w->wants_lease, true);
    return true;
}

/* ---- locks ---- */

/* All or nothing: holds all slots, or none and the connection is parked on the busy one. */
static bool lock_slots(struct conn *c, const unsigned *slots, size_t n)
{
    struct node *node = c->worker->node;
    if (waiting_room_must_queue(node->waiting, c, slots, n)) return false;
    for (;;) {
        unsigned busy;
        size_t i = 0;
        while (i < n && slot_try_lock_spinning(node->store, slots[i])) i++;
        if (i < n)
            busy = slots[i];
        else if (waker_lock_more(&c->worker->waker, slots, n, &busy))
            break;
        while (i > 0) slot_unlock(node->store, slots[--i]);
        if (waiting_room_park(node->waiting, c, busy)) return false;
    }
    if (c->wait_ticket) waiting_room_got(node->waiting, c, slots, n);
    return true;
}

static void unlock_slots(struct conn *c, const unsigned *slots, size_t n)
{
    waker_unlock_more(&c->worker->waker);
    for (size_t i = 0; i < n; i++) slot_unlock(c->worker->node->store, slots[i]);
}

static int compare_slots(const void *a, const void *b)
{
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return x < y ? -1 : x > y;
}

size_t slots_sort_unique(unsigned *slots, size_t n)
{
    if (n > 1) qsort(slots, n, sizeof *slots, compare_slots);
    size_t unique = 0;
    for (size_t i = 0; i < n; i++)
        if (unique == 0 || slots[unique - 1] != slots[i]) slots[unique++] = slots[i];
    return unique;
}

/* ---- execution ---- */

/* Appends what the calls since effects_begin() did; under their slots' locks. */
void dispatch_append_effects(struct conn *c, int db_first, unsigned count, int db_last)
{
    struct worker *w = c->worker;
    if (count == 0) return;
    c->write_offset = change_append(w->node->log, db_first, buf_bytes(&w->effects), count, db_last);
    if (last_writes_kept(w->node)) last_writes_appended(c);
}

/* What SORT may read by its patterns (BY, GET), which are no keys of its. */
static void flag_sort(struct conn *c, struct call *call)
{
    call->flags &= ~(unsigned)(CALL_KEYS_LIMITED | CALL_ALL_SLOTS);
    if (!acl_user_is_free(c->user) && !dispatch_acl_reads_all_keys(c, call)) call->flags |= CALL_KEYS_LIMITED;
    if (c->cross_slot && c->worker->node->cluster && cluster_serves_all(c)) call->flags |= CALL_ALL_SLOTS;
}

void dispatch_run(struct conn *c, struct call *call)
{
    struct worker *w = c->worker;
    struct command_stats *stats = &w->commands[call->cmd->id];
    uint64_t begin = clock_ticks();
    const struct buf *out = call->out.buf; /* the connection's, or a script's */
    size_t reply_at = out->n;
    if (call->cmd->id == CMD_ID_SORT || call->cmd->id == CMD_ID_SORT_RO) flag_sort(c, call);
    bool script = call->cmd->flags & CMD_SKIP_MONITOR;
    if (script) monitor_script_begin(c, call);
    call_run(call);
    if (script) monitor_script_end(w, !call->want_exclusive && !call->want_restart);
    if (call->want_exclusive || call->want_restart) return;
    if (last_writes_kept(w->node)) last_writes_ran(c, call);
    if (!script && !(call->flags & CALL_UNSEEN) && monitor_wanted(w->node)) monitor_show(c, call);
    if (c->tracking && call->cmd->flags & CMD_READONLY) tracking_remember(c, call);
    uint64_t took = clock_ticks() - begin;
    add(&stats->calls, 1);
    add(&stats->ticks, took);
    if (out->n > reply_at && out->p[reply_at] == '-') {
        add(&stats->failed, 1);
        errorstats_note(w->node->errors, bytes_make(out->p + reply_at, out->n - reply_at));
    }
    if (call->dirty) add(&w->changes, call->dirty);
    uint64_t ns = clock_ticks_ns(took), us = ns / 1000;
    latency_track(w, call->cmd, ns);
    topkeys_sample(w, call);
    slowlog_note(w->node, c, call, us);
    latency_note(w->node, call->cmd->flags & CMD_FAST ? "fast-command" : "command", us);
}

/* Runs with the locks held, or the server at rest. */
static void execute_locked(struct conn *c, struct call *call, const struct key *keys, size_t key_count,
                           const unsigned *slots, size_t slot_count)
{
    struct worker *w = c->worker;
    struct node *n = w->node;
    if (n->cluster && key_count && command_is_routed(call->cmd, call->argv, call->argc) &&
        !cluster_route(c, call, keys, key_count, call->cmd->flags & CMD_WRITE))
        return;
    if (data_node_is_replica(n)) call->flags |= CALL_ON_REPLICA;
    call->effects_wanted = change_log_active(n->log) && !(call->flags & CALL_ON_REPLICA);
    call->flags |= CALL_MAY_WAIT | (c->no_touch ? CALL_NO_TOUCH : 0u);
    w->effects.n = 0;
    dispatch_run(c, call);
    if (!call->want_exclusive && !call->want_restart)
        dispatch_append_effects(c, call->db, call->effect_count, call->db);
    if (call->wait) blocking_begin(c, call);
    if (waker_has_work(&w->waker))
        waker_serve(&w->waker, slots, slot_count, call->flags & CALL_EXCLUSIVE, call->now_ms);
}

/* The command asked for the whole server: leave the gate, check everything anew, run. */
static void execute_exclusive(struct conn *c, struct call *call, const struct key *keys, size_t key_count)
{
    struct worker *w = c->worker;
    const char *busy = script_busy_text(w->node);
    if (busy) {
        refuse(call, busy);
        return;
    }
    if (w->inner) {
        dispatch_park(c);
        return;
    }
    worker_leave_gate(w);
    /* A script that runs long keeps others from having the server at rest; their threads are not to wait for it. */
    while (!gate_close_within(w->node->gate, REST_TRY_MS)) {
        if (!script_any_slow(w->node)) continue;
        worker_enter_gate(w);
        dispatch_park(c);
        return;
    }
    call->want_exclusive = false;
    call->flags |= CALL_EXCLUSIVE;
    call->dirty = call->effect_count = 0;
    call->verbatim_off = false;
    if (allowed_now(c, call) && !parked_by_pause(c, call)) {
        store_walks_stop(w->node->store);
        execute_locked(c, call, keys, key_count, NULL, 0);
        store_walks_go(w->node->store);
    }
    gate_open(w->node->gate);
    worker_enter_gate(w);
}

/* More keys than the call keeps inline: derived here, in one allocation with their slots. */
struct key_list {
    struct key *keys;
    unsigned *slots;
    size_t n;
    void *memory;
};

static bool collect_keys(struct call *call, struct key_list *out, unsigned inline_slots[SLOTS_INLINE])
{
    *out = (struct key_list){call->keys, inline_slots, call->key_count, NULL};
    int n = command_has_keys(call->cmd) ? command_keys(call->cmd, call->argv, call->argc, NULL, 0) : 0;
    if (n < 0) n = 0; /* the handler says what is wrong with the arguments */
    if (n > CALL_KEYS_INLINE) {
        struct command_key *found = mem_alloc((size_t)n * sizeof *found);
        command_keys(call->cmd, call->argv, call->argc, found, (size_t)n);
        /* One more slot: scripts may need the token beside them. */
        out->memory = mem_alloc((size_t)n * sizeof *out->keys + ((size_t)n + 1) * sizeof *out->slots);
        out->keys = out->memory;
        out->slots = (unsigned *)(out->keys + n);
        out->n = (size_t)n;
        for (int i = 0; i < n; i++) out->keys[i] = key_of(call->argv[found[i].index]);
        mem_free(found);
    }
    for (size_t i = 0; i < out->n; i++) out->slots[i] = out->keys[i].slot;
    return out->n > 0;
}

static bool routed_elsewhere(struct conn *c, struct call *call)
{
    unsigned inline_slots[SLOTS_INLINE];
    struct key_list list;
    if (!c->worker->node->cluster || !command_is_routed(call->cmd, call->argv, call->argc)) return false;
    if (!collect_keys(call, &list, inline_slots)) return false;
    bool here = cluster_route_unlocked(c, call, list.keys, list.n, call->cmd->flags & CMD_WRITE);
    mem_free(list.memory);
    return !here;
}

static enum dispatch_result execute_once(struct conn *c, struct call *call)
{
    unsigned inline_slots[SLOTS_INLINE];
    struct key_list list = {.slots = inline_slots};
    size_t slot_count = 0;
    bool one = call->key_count == 1 && call->cmd->last == call->cmd->first;
    if (one) {
        list = (struct key_list){call->keys, inline_slots, 1, NULL};
        inline_slots[0] = call->keys[0].slot;
        slot_count = 1;
    } else if (collect_keys(call, &list, inline_slots)) {
        slot_count = slots_sort_unique(list.slots, list.n);
    }
    call->token_held = command_runs_script(call->cmd) && script_needs_token(c, call);
    if (call->token_held) list.slots[slot_count++] = STORE_TOKEN;
    if (!lock_slots(c, list.slots, slot_count)) {
        mem_free(list.memory);
        return DISPATCH_WAIT;
    }
    execute_locked(c, call, list.keys, list.n, list.slots, slot_count);
    unlock_slots(c, list.slots, slot_count);
    if (call->want_exclusive) execute_exclusive(c, call, list.keys, list.n);
    mem_free(list.memory);
    /* EXEC locks by itself and may have to wait; so may what needs the server at rest. */
    return c->wait == WAIT_SLOT || c->wait == WAIT_PAUSE ? DISPATCH_WAIT : DISPATCH_DONE;
}

static enum dispatch_result execute(struct conn *c, struct call *call)
{
    enum dispatch_result result = execute_once(c, call);
    while (call->want_restart) {
        /* A script turned out to need the token; the next try holds it. */
        call->want_restart = call->verbatim_off = false;
        call->dirty = call->effect_count = 0;
        result = execute_once(c, call);
    }
    return result;
}

bool dispatch_lock_slots(struct conn *c, const unsigned *slots, size_t n)
{
    return lock_slots(c, slots, n);
}

void dispatch_unlock_slots(struct conn *c, const unsigned *slots, size_t n)
{
    unlock_slots(c, slots, n);
}

bool dispatch_allowed(struct conn *c, struct call *call)
{
    return allowed_now(c, call);
}

/* Redirections are told when the command is queued, not only at EXEC.  The locks: which of the keys are there decides
 * while their slot is moving. */
static enum dispatch_result queue_in_multi(struct conn *c, struct call *call)
{
    unsigned inline_slots[SLOTS_INLINE];
    struct key_list list;
    bool here = cluster_route_channels(c, call);
    bool asks = c->worker->node->cluster && command_is_routed(call->cmd, call->argv, call->argc);
    if (here && asks && collect_keys(call, &list, inline_slots)) {
        size_t slots = slots_sort_unique(list.slots, list.n);
        bool locked = lock_slots(c, list.slots, slots);
        if (locked) {
            here = cluster_route(c, call, list.keys, list.n, call->cmd->flags & CMD_WRITE);
            unlock_slots(c, list.slots, slots);
        }
        mem_free(list.memory);
        if (!locked) return DISPATCH_WAIT;
    }
    if (here) {
        multi_queue(c, call);
        resp_status(&call->out, "QUEUED");
    }
    return DISPATCH_DONE;
}

static void finish(struct conn *c, const struct command *cmd)
{
    /* ASKING is for one command, or for a whole transaction. */
    if (!c->in_multi && !(cmd && cmd->id == CMD_ID_ASKING)) c->asking = false;
    if (c->reply_mode == REPLY_ON) return;
    if (c->reply_mode == REPLY_SKIP_NEXT) {
        c->reply_mode = REPLY_SKIP;
        return;
    }
    c->out.n = c->keep_out;
    if (c->reply_mode == REPLY_SKIP) c->reply_mode = REPLY_ON;
}

/* The connection waited for what a busy script holds. */
static bool refused_as_busy(struct conn *c, struct call *call)
{
    if (!c->refuse_busy) return false;
    c->refuse_busy = false;
    const char *why = script_busy_text(c->worker->node);
    if (!why) return false;
    refuse(call, why);
    return true;
}

/* Inside a script that runs long no other one does. */
static enum dispatch_result wait_for_script(struct conn *c, struct call *call)
{
    const char *busy = script_busy_text(c->worker->node);
    if (busy) {
        refuse(call, busy);
        return DISPATCH_DONE;
    }
    dispatch_park(c);
    return DISPATCH_WAIT;
}

static enum dispatch_result check_and_execute(struct conn *c, struct call *call)
{
    if (!known_and_complete(call) || !allowed_now(c, call) || refused_as_busy(c, call)) return DISPATCH_DONE;
    if (parked_by_pause(c, call)) return DISPATCH_WAIT;
    bool leaseless = needs_lease(c, call);
    if (leaseless && park_for_lease(c)) return DISPATCH_WAIT;
    c->lease_wait_ms = 0;
    if (leaseless) {
        refuse(call, "CLUSTERDOWN The cluster is down");
        return DISPATCH_DONE;
    }
    if (c->in_multi && queues(call)) return queue_in_multi(c, call);
    if (c->worker->inner && script_waits_for_script(call->cmd)) return wait_for_script(c, call);
    return execute(c, call);
}

enum dispatch_result dispatch(struct conn *c, struct call *call)
{
    /* A command before this one in the batch may have changed what was prepared ahead. */
    call->db = c->db;
    call->out = conn_out(c);
    call->now_ms = c->worker->now_ms;
    uint64_t wrote = c->write_offset;
    c->keep_out = c->out.n;
    c->muted = c->reply_mode == REPLY_OFF || c->reply_mode == REPLY_SKIP;
    c->worker->executing = c->id;
    c->worker->executing_call = call;
    if (call->cmd) c->last_cmd = call->cmd;
    enum dispatch_result result = check_and_execute(c, call);
    c->worker->executing = 0;
    c->worker->executing_call = NULL;
    if (result == DISPATCH_WAIT) return result;
    if (c->worker->notified) {
        c->worker->notified = false;
        pubsub_hold_up(c);
    }
    finish(c, call->cmd);
    c->muted = false;
    if (c->write_offset != wrote)
        reply_gate_wrote(c, call->cmd, c->keep_out);
    else if (c->seen_offset)
        reply_gate_read(c, c->keep_out);
    tracking_after_command(c, call->cmd);
    if (c->out.n > c->out_pos) conn_wants_write(c);
    return result;
}
