/* multi.c: MULTI, EXEC, DISCARD and WATCH across workers.
 *
 * Watched keys stand in a registry with one chain of stripes; a stripe's mutex is taken under the slot's lock, so a
 * change and the flag it sets are one step for whoever holds the slot.  EXEC takes the locks of its watched slots too,
 * then looks at its flag: nothing can change between the look and the execution. */
#include "server/multi.h"

#include "base/clock.h"
#include "base/mem.h"
#include "observe/errorstats.h"
#include "server/cluster_link.h"
#include "server/persistence.h"
#include "server/reply_gate.h"
#include "server/scripting.h"

enum { STRIPES = 256 };

struct watch_registry {
    struct {
        pthread_mutex_t mu; /* order: after the slots */
        struct list keys;   /* watched.link */
    } stripe[STRIPES];
};

struct watch_registry *watch_registry_create(void)
{
    struct watch_registry *r = mem_calloc(1, sizeof *r);
    for (int i = 0; i < STRIPES; i++) {
        pthread_mutex_init(&r->stripe[i].mu, NULL);
        list_init(&r->stripe[i].keys);
    }
    return r;
}

/* ---- the queue ---- */

void multi_queue(struct conn *c, const struct call *call)
{
    if (c->multi_failed || atomic_load(&c->dirty_cas)) return; /* it will not be executed */
    if (c->queue_n == c->queue_cap) {
        c->queue_cap = c->queue_cap ? c->queue_cap * 2 : 8;
        c->queue = mem_realloc(c->queue, c->queue_cap * sizeof *c->queue);
    }
    size_t bytes;
    struct bytes *argv = bytes_dup_array(call->argv, call->argc, &bytes);
    c->queue[c->queue_n++] = (struct queued){call->cmd, argv, call->argc};
    c->queue_bytes += bytes;
}

bool multi_queue_writes(const struct conn *c)
{
    for (size_t i = 0; i < c->queue_n; i++)
        if (c->queue[i].cmd->flags & (CMD_WRITE | CMD_MAY_REPLICATE)) return true;
    return false;
}

bool multi_queue_needs_memory(const struct conn *c)
{
    for (size_t i = 0; i < c->queue_n; i++)
        if (c->queue[i].cmd->flags & CMD_DENYOOM) return true;
    return false;
}

void multi_discard(struct conn *c)
{
    for (size_t i = 0; i < c->queue_n; i++) mem_free(c->queue[i].argv);
    mem_free(c->queue);
    c->queue = NULL;
    c->queue_n = c->queue_cap = c->queue_bytes = 0;
    c->in_multi = c->multi_failed = false;
}

void cmd_multi(struct call *call)
{
    struct conn *c = call_conn(call);
    if (c->in_multi) {
        resp_error(&call->out, "ERR MULTI calls can not be nested");
        return;
    }
    c->in_multi = true;
    resp_ok(&call->out);
}

void cmd_discard(struct call *call)
{
    struct conn *c = call_conn(call);
    if (!c->in_multi) {
        resp_error(&call->out, "ERR DISCARD without MULTI");
        return;
    }
    multi_discard(c);
    watch_clear(c);
    resp_ok(&call->out);
}

/* ---- WATCH ---- */

static unsigned stripe_of(const struct key *k)
{
    return k->slot % STRIPES;
}

/* Under the key's slot lock: WATCH is a command with keys. */
static void watch_add(struct conn *c, int db, const struct key *k, bool expired)
{
    for (struct watched *w = c->watched; w; w = w->next_of_conn)
        if (w->db == db && bytes_eq(w->key.name, k->name)) return;
    struct watched *w = mem_calloc(1, sizeof *w + k->name.n);
    if (k->name.n) memcpy(w + 1, k->name.p, k->name.n);
    *w = (struct watched){.conn = c,
                          .db = db,
                          .key = {bytes_make(w + 1, k->name.n), k->hash, k->slot},
                          .next_of_conn = c->watched,
                          .was_expired = expired};
    c->watched = w;
    struct watch_registry *r = c->worker->node->watch;
    pthread_mutex_lock(&r->stripe[stripe_of(k)].mu);
    list_push_back(&r->stripe[stripe_of(k)].keys, &w->link);
    pthread_mutex_unlock(&r->stripe[stripe_of(k)].mu);
    atomic_fetch_add(&c->worker->node->watch_count, 1);
}

void watch_clear(struct conn *c)
{
    struct watch_registry *r = c->worker->node->watch;
    while (c->watched) {
        struct watched *w = c->watched;
        c->watched = w->next_of_conn;
        pthread_mutex_lock(&r->stripe[stripe_of(&w->key)].mu);
        list_remove(&w->link);
        pthread_mutex_unlock(&r->stripe[stripe_of(&w->key)].mu);
        atomic_fetch_sub(&c->worker->node->watch_count, 1);
        mem_free(w);
    }
    atomic_store(&c->dirty_cas, false);
}

void watch_key_changed(struct node *n, int db, const struct key *k, bool expired)
{
    if (atomic_load_explicit(&n->watch_count, memory_order_relaxed) == 0) return;
    struct watch_registry *r = n->watch;
    pthread_mutex_lock(&r->stripe[stripe_of(k)].mu);
    list_each(it, &r->stripe[stripe_of(k)].keys)
    {
        struct watched *w = container_of(it, struct watched, link);
        if (w->db != db || w->key.hash != k->hash || !bytes_eq(w->key.name, k->name)) continue;
        if (expired && w->was_expired)
            w->was_expired = false;
        else
            atomic_store(&w->conn->dirty_cas, true);
    }
    pthread_mutex_unlock(&r->stripe[stripe_of(k)].mu);
}

static bool is_over(const struct entry *e, int64_t now_ms)
{
    return e && entry_has_ttl(e) && entry_expire_at(e) <= now_ms;
}

static void watched_key_replaced(struct watched *w, const struct entry *before, const struct entry *after,
                                 int64_t now_ms)
{
    if (!before && !after) return;
    bool over_after = is_over(after, now_ms);
    /* A key that was over when WATCH came counts as missing, and so does one that is over when it comes. */
    if (w->was_expired ? !after || over_after : !before && over_after)
        w->was_expired = over_after;
    else
        atomic_store(&w->conn->dirty_cas, true);
}

void watch_flushed(struct node *n, int db, int replaced_by, int64_t now_ms)
{
    struct watch_registry *r = n->watch;
    for (int i = 0; i < STRIPES; i++) {
        pthread_mutex_lock(&r->stripe[i].mu);
        list_each(it, &r->stripe[i].keys)
        {
            struct watched *w = container_of(it, struct watched, link);
            if (db >= 0 && w->db != db) continue;
            const struct entry *after = replaced_by < 0 ? NULL : store_find(n->store, replaced_by, &w->key);
            watched_key_replaced(w, store_find(n->store, w->db, &w->key), after, now_ms);
        }
        pthread_mutex_unlock(&r->stripe[i].mu);
    }
}

void cmd_watch(struct call *call)
{
    struct conn *c = call_conn(call);
    if (c->in_multi) {
        resp_error(&call->out, "ERR WATCH inside MULTI is not allowed");
        return;
    }
    if (!atomic_load(&c->dirty_cas)) {
        for (size_t i = 1; i < call->argc; i++) {
            struct key k = call_key(call, i);
            struct entry *e = store_find(call->env->store, call->db, &k);
            watch_add(c, call->db, &k, is_over(e, call->now_ms));
        }
    }
    resp_ok(&call->out);
}

void cmd_unwatch(struct call *call)
{
    watch_clear(call_conn(call));
    resp_ok(&call->out);
}

/* A watched key that ran out since WATCH counts as changed, even if nobody has deleted it yet. */
static bool watched_key_expired(struct conn *c, int64_t now_ms)
{
    for (struct watched *w = c->watched; w; w = w->next_of_conn) {
        struct entry *e = store_find(c->worker->node->store, w->db, &w->key);
        if (!w->was_expired && is_over(e, now_ms)) return true;
    }
    return false;
}

/* ---- EXEC ---- */

struct exec_plan {
    struct key *keys;
    unsigned *slots;
    size_t key_count, slot_count, cap;
    bool exclusive, writes;
    uint32_t common; /* flags that all its commands have */
};

static void plan_add(struct exec_plan *p, const struct key *k)
{
    if (p->key_count == p->cap) {
        p->cap = p->cap ? p->cap * 2 : 16;
        p->keys = mem_realloc(p->keys, p->cap * sizeof *p->keys);
    }
    p->keys[p->key_count++] = *k;
}

/* channels: the ones of shards count as keys, as they do where a transaction is sent in a cluster. */
static void plan_command(struct exec_plan *p, const struct queued *q, bool channels)
{
    int (*keys_of)(const struct command *c, const struct bytes *argv, size_t argc, struct command_key *out,
                   size_t cap) = channels ? command_routing_keys : command_keys;
    if (q->cmd->flags & CMD_AT_REST) p->exclusive = true;
    if (q->cmd->flags & CMD_WRITE) p->writes = true;
    p->common &= q->cmd->flags;
    if (!channels && !command_has_keys(q->cmd)) return;
    int n = keys_of(q->cmd, q->argv, q->argc, NULL, 0);
    if (n <= 0) return;
    struct command_key *found = mem_alloc((size_t)n * sizeof *found);
    keys_of(q->cmd, q->argv, q->argc, found, (size_t)n);
    for (int i = 0; i < n; i++) {
        struct key k = key_of(q->argv[found[i].index]);
        plan_add(p, &k);
    }
    mem_free(found);
}

static void plan_make(struct exec_plan *p, const struct conn *c)
{
    *p = (struct exec_plan){.common = UINT32_MAX};
    for (size_t i = 0; i < c->queue_n; i++) plan_command(p, &c->queue[i], c->worker->node->cluster != NULL);
    size_t watched = 0;
    for (const struct watched *w = c->watched; w; w = w->next_of_conn) watched++;
    p->slots = mem_alloc((p->key_count + watched + 1) * sizeof *p->slots);
    for (size_t i = 0; i < p->key_count; i++) p->slots[p->slot_count++] = p->keys[i].slot;
    for (const struct watched *w = c->watched; w; w = w->next_of_conn) p->slots[p->slot_count++] = w->key.slot;
    p->slot_count = slots_sort_unique(p->slots, p->slot_count);
}

static void plan_free(struct exec_plan *p)
{
    mem_free(p->keys);
    mem_free(p->slots);
}

static void append_select(struct buf *effects, int db)
{
    resp_request_begin(effects, 2);
    resp_request_arg(effects, BYTES("SELECT"));
    resp_request_arg_i64(effects, db);
}

/* The rules may have changed since the command was queued, perhaps by one before it in the queue. */
static bool still_permitted(struct conn *c, struct call *call)
{
    if (acl_user_is_free(c->user)) return true;
    const char *reason = NULL;
    switch (dispatch_acl_verdict(c, call, ACL_IN_MULTI)) {
    case ACL_ALLOWED: return true;
    case ACL_DENIED_KEY: reason = "no permission to touch the specified keys"; break;
    case ACL_DENIED_CHANNEL:
        reason = "no permission to access one of the channels used as arguments to the command";
        break;
    default: reason = "no permission to execute the command or subcommand"; break;
    }
    size_t at = c->out.n;
    resp_errorf(&call->out,
                "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This "
                "command is no longer allowed for the following reason: %s",
                reason);
    errorstats_note(c->worker->node->errors, bytes_make(c->out.p + at, c->out.n - at));
    return false;
}

/* All locks are held, or the server is at rest. */
static void run_queue(struct conn *c, struct call *exec)
{
    struct worker *w = c->worker;
    bool wanted = change_log_active(w->node->log) && !data_node_is_replica(w->node);
    int db_first = -1, db_last = c->db;
    unsigned count = 0;
    w->effects.n = 0;
    resp_array(&exec->out, c->queue_n);
    for (size_t i = 0; i < c->queue_n; i++) {
        const struct queued *q = &c->queue[i];
        struct resp_request req = {.argv = q->argv, .argc = q->argc};
        struct call call;
        dispatch_prepare(c, &call, &req);
        call.out = conn_out(c);
        call.now_ms = exec->now_ms;
        call.flags = CALL_IN_EXEC | (exec->flags & (CALL_EXCLUSIVE | CALL_NO_TOUCH | CALL_KEEP_EXPIRED)) |
                     (data_node_is_replica(w->node) ? CALL_ON_REPLICA : 0u);
        call.effects_wanted = wanted;
        /* The record names one database; commands for another one carry their SELECT inside. */
        size_t before = w->effects.n;
        if (db_first >= 0 && call.db != db_last) append_select(&w->effects, call.db);
        if (!still_permitted(c, &call)) continue;
        dispatch_run(c, &call);
        if (call.want_exclusive) /* a row without CMD_AT_REST: still exactly one reply to each command */
            resp_errorf(&call.out, "ERR '%s' can't run inside a transaction", q->cmd->name);
        if (call.effect_count == 0) {
            w->effects.n = before;
            continue;
        }
        if (db_first < 0) db_first = call.db;
        db_last = call.db;
        count += call.effect_count;
    }
    if (count) dispatch_append_effects(c, db_first, count, db_last);
}

static void exec_locked(struct conn *c, struct call *exec, const struct exec_plan *plan)
{
    struct node *n = c->worker->node;
    if (n->cluster && plan->key_count && !cluster_route(c, exec, plan->keys, plan->key_count, plan->writes)) {
        exec->flags |= CALL_UNSEEN;
        return;
    }
    if (atomic_load(&c->dirty_cas) || watched_key_expired(c, exec->now_ms)) {
        resp_null_array(&exec->out);
        return;
    }
    run_queue(c, exec);
}

/* Who sleeps at a key that the transaction has changed finds what it left there. */
static void serve_sleepers(struct conn *c, const struct call *exec, const struct exec_plan *plan)
{
    struct waker *w = &c->worker->waker;
    if (waker_has_work(w)) waker_serve(w, plan->slots, plan->slot_count, exec->flags & CALL_EXCLUSIVE, exec->now_ms);
}

/* Between MULTI and now the node may have become a replica, or unable to write. */
static bool still_allowed(struct conn *c, struct call *exec, const struct exec_plan *plan)
{
    struct node *n = c->worker->node;
    if (n->cluster && plan->key_count && !cluster_route_unlocked(c, exec, plan->keys, plan->key_count, plan->writes)) {
        exec->flags |= CALL_UNSEEN; /* as other commands that are sent elsewhere */
        return false;
    }
    const char *why_not =
        dispatch_refusal(n, (plan->writes ? CMD_WRITE : 0) | (plan->common & (CMD_STALE | CMD_LOADING)));
    if (!why_not && plan->writes) why_not = reply_gate_refusal(c);
    if (why_not) resp_errorf(&exec->out, "EXECABORT Transaction discarded because of: %s", why_not);
    return !why_not;
}

void cmd_exec(struct call *call)
{
    struct conn *c = call_conn(call);
    if (!c->in_multi) {
        resp_error(&call->out, "ERR EXEC without MULTI");
        return;
    }
    struct exec_plan plan;
    plan_make(&plan, c);
    bool allowed = still_allowed(c, call, &plan);
    if (allowed && c->multi_failed) {
        resp_error(&call->out, "EXECABORT Transaction discarded because of previous errors.");
        allowed = false;
    }
    if (allowed) {
        if (plan.exclusive && !(call->flags & CALL_EXCLUSIVE)) {
            call->want_exclusive = true;
            plan_free(&plan);
            return;
        }
        if (call->flags & CALL_EXCLUSIVE) {
            c->worker->node->exec_at_rest = true;
            exec_locked(c, call, &plan);
            c->worker->node->exec_at_rest = false;
            serve_sleepers(c, call, &plan);
        } else if (dispatch_lock_slots(c, plan.slots, plan.slot_count)) {
            exec_locked(c, call, &plan);
            serve_sleepers(c, call, &plan);
            dispatch_unlock_slots(c, plan.slots, plan.slot_count);
        } else {
            plan_free(&plan);
            return; /* parked: EXEC is tried again as a whole */
        }
    }
    plan_free(&plan);
    multi_discard(c);
    watch_clear(c);
    call_effect_none(call);
}
