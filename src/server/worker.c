/* worker.c: one loop, its connections, and its share of the background work. */
#include "server/conn.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cluster/cluster.h"
#include "server/aof.h"
#include "server/crew.h"
#include "server/failover.h"
#include "server/latency.h"
#include "server/memory.h"
#include "server/migrate.h"
#include "server/multi.h"
#include "server/notify.h"
#include "server/pubsub.h"
#include "server/replication.h"
#include "server/reply_gate.h"
#include "server/scripting.h"
#include "server/snapshot_budget.h"
#include "server/topkeys.h"
#include "server/tracking.h"
#include "store/evict.h"

#include <stdio.h>
#include <unistd.h>

enum { TICK_MS = 100, READ_BUFFER = 256 * 1024 };

struct adopt_mail {
    struct mail mail;
    struct worker *worker;
    int fd;
    enum conn_kind kind;
};

void worker_enter_gate(struct worker *w)
{
    if (w->inside) return;
    gate_enter(w->gate);
    w->inside = true;
}

void worker_leave_gate(struct worker *w)
{
    if (!w->inside || w->inner) return;
    gate_exit(w->gate);
    w->inside = false;
}

static void turn_begin(void *ctx)
{
    struct worker *w = ctx;
    worker_enter_gate(w);
    w->now_ms = clock_wall_ms();
    w->lru_clock = (uint32_t)(w->now_ms / 1000) & 0xffffff;
    w->now_mono_ms = loop_now_ms(w->loop);
    w->handshakes = 0;
}

static void deliver_poke(struct mail *m)
{
    struct worker *w = container_of(m, struct worker, poke);
    atomic_store(&w->poked, false);
    if (reply_gate_holds(w)) reply_gate_release(w);
    atomic_store(&w->wants_lease, false);
    if (!list_empty(&w->leaseless)) worker_resume_list(&w->leaseless);
}

void worker_poke(struct worker *w)
{
    if (!atomic_exchange(&w->poked, true)) loop_post(w->loop, &w->poke);
}

/* Another thread is writing the stream, and has not come to what this connection wrote. */
static bool is_ahead(const struct worker *w, const struct conn *c, uint64_t sent)
{
    return c->write_offset > sent && c->write_offset <= change_offset(w->node->log);
}

/* What was executed while this node had the right to write is not acknowledged while it has not.  Between the two the
 * process may have been stopped for any time, so the clock is read for each connection.  True: its output stays. */
static bool must_stay(struct worker *w, const struct conn *c)
{
    if (!c->unsent_write || !w->node->cluster || !cluster_i_am_primary(w->node->cluster)) return false;
    if (cluster_may_serve(w->node->cluster)) return false;
    atomic_store(&w->wants_lease, true);
    return true;
}

/* Another node is the primary now, and perhaps without this write: its client is told neither yes nor no. */
static bool must_close(const struct worker *w, const struct conn *c)
{
    return c->unsafe_write && w->node->cluster && !cluster_i_am_primary(w->node->cluster);
}

/* Output leaves if the stream up to the connection's last write has been sent; the rest waits for a later turn. */
static void write_dirty(struct worker *w, uint64_t sent)
{
    struct list later;
    bool ahead = false;
    list_init(&later);
    while (!list_empty(&w->dirty)) {
        struct conn *c = container_of(w->dirty.next, struct conn, dirty);
        bool waits = is_ahead(w, c, sent);
        ahead |= waits;
        list_remove(&c->dirty);
        if (waits || must_stay(w, c))
            list_push_back(&later, &c->dirty);
        else if (must_close(w, c))
            conn_destroy(c);
        else
            conn_write(c);
    }
    while (!list_empty(&later)) {
        struct list *it = later.next;
        list_remove(it);
        list_push_back(&w->dirty, it);
    }
    if (!ahead) return;
    atomic_store(&w->wants_sent, true);
    if (replication_want_sent(w->node->replication) > sent) worker_poke(w); /* sent just now */
}

/* The stream to the replicas leaves before the replies of the same turn, so that a crash in between loses no
 * acknowledged write that a replica could have had. */
static void turn_end(void *ctx)
{
    struct worker *w = ctx;
    worker_run_staged(w);
    /* Changes of keys whose slots were let go of at once: all that can be done is to try again. */
    if (waker_has_work(&w->waker)) waker_serve(&w->waker, NULL, 0, false, w->now_ms);
    if (w->asks_acks) replication_want_acks(w->node->replication);
    w->asks_acks = false;
    uint64_t sent = replication_flush(w->node->replication);
    aof_flush(w->node->aof);
    tracking_run(w);
    pubsub_run(w);
    if (w->cluster_saved) cluster_wait_saved(w->node->cluster, w->cluster_saved);
    w->cluster_saved = 0;
    write_dirty(w, sent);
    worker_leave_gate(w);
    if (!w->inner) memory_evict_clients(w);
}

/* ---- a turn inside a command ---- */

/* What a turn keeps in the worker, set aside while another one runs inside it. */
struct turn_state {
    struct resp_request requests[BATCH_MAX];
    struct call calls[BATCH_MAX];
    struct staged staged[BATCH_MAX];
    int staged_n;
    bool running_staged, in_script, notified, out_of_memory;
    struct buf read_buf, effects, script_lines;
    uint64_t executing;
    const struct call *executing_call;
    unsigned extra[WAKER_EXTRA_MAX], extra_n;
    int64_t now_ms, now_mono_ms;
};

static void turn_set_aside(struct worker *w, struct turn_state *s)
{
    memcpy(s->requests, w->requests, sizeof s->requests);
    memcpy(s->calls, w->calls, sizeof s->calls);
    memcpy(s->staged, w->staged, sizeof s->staged);
    memcpy(s->extra, w->waker.extra, sizeof s->extra);
    s->extra_n = w->waker.extra_n;
    s->staged_n = w->staged_n;
    s->running_staged = w->running_staged;
    s->in_script = w->in_script;
    s->notified = w->notified;
    s->out_of_memory = w->out_of_memory;
    s->read_buf = w->read_buf;
    s->effects = w->effects;
    s->script_lines = w->script_lines;
    s->executing = w->executing;
    s->executing_call = w->executing_call;
    s->now_ms = w->now_ms;
    s->now_mono_ms = w->now_mono_ms;
    memset(w->requests, 0, sizeof w->requests);
    w->read_buf = w->effects = w->script_lines = (struct buf){0};
    buf_reserve(&w->read_buf, READ_BUFFER);
    w->staged_n = 0;
    w->waker.extra_n = 0;
    w->running_staged = w->in_script = w->notified = false;
    w->executing = 0;
    w->executing_call = NULL;
}

static void turn_take_back(struct worker *w, const struct turn_state *s)
{
    for (int i = 0; i < BATCH_MAX; i++) resp_request_deinit(&w->requests[i]);
    buf_deinit(&w->read_buf);
    buf_deinit(&w->effects);
    buf_deinit(&w->script_lines);
    memcpy(w->requests, s->requests, sizeof s->requests);
    memcpy(w->calls, s->calls, sizeof s->calls);
    memcpy(w->staged, s->staged, sizeof s->staged);
    memcpy(w->waker.extra, s->extra, sizeof s->extra);
    w->waker.extra_n = s->extra_n;
    w->staged_n = s->staged_n;
    w->running_staged = s->running_staged;
    w->in_script = s->in_script;
    w->notified = s->notified;
    w->out_of_memory = s->out_of_memory;
    w->read_buf = s->read_buf;
    w->effects = s->effects;
    w->script_lines = s->script_lines;
    w->executing = s->executing;
    w->executing_call = s->executing_call;
    w->now_ms = s->now_ms;
    w->now_mono_ms = s->now_mono_ms;
}

void worker_inner_turn(struct worker *w, struct conn *c)
{
    assert(!w->inner && w->inside);
    struct turn_state *s = mem_alloc(sizeof *s);
    worker_unstage_behind(w, c);
    turn_set_aside(w, s);
    /* Its input waits, and its output is not touched: a reply is being made. */
    int events = c->src.events;
    if (c->src.fd >= 0) loop_set(w->loop, &c->src, 0);
    c->wait = WAIT_SCRIPT;
    w->inner = true;
    loop_turn(w->loop, 0);
    w->inner = false;
    c->wait = WAIT_NOTHING;
    if (c->src.fd >= 0) loop_set(w->loop, &c->src, events);
    turn_take_back(w, s);
    mem_free(s);
}

/* ---- connections ---- */

static void check_conn(struct worker *w, struct conn *c)
{
    int64_t timeout_s = config_num(w->node->config, CFG_TIMEOUT);
    if (timeout_s > 0 && c->wait == WAIT_NOTHING && !pubsub_active(c) && w->now_ms - c->last_ms > timeout_s * 1000) {
        log_verbose("Closing idle client");
        conn_destroy(c);
        return;
    }
    if (c->close_asap || (c->tls && conn_tls_overdue(c)) || atomic_load_explicit(&c->kill, memory_order_relaxed)) {
        conn_destroy(c);
        return;
    }
    /* The soft limit is a matter of time, so it is looked at from here too. */
    if (c->soft_limit_since_ms) conn_wants_write(c);
}

static void tick(struct loop_timer *t, int64_t now_ms)
{
    struct worker *w = container_of(t, struct worker, timer);
    w->memory_calm_for = 0; /* what was known of the other threads is old */
    worker_expire(w, TICK_MS);
    list_each(it, &w->conns) check_conn(w, container_of(it, struct conn, link));
    if (!list_empty(&w->paused) && node_paused(w->node, w->now_mono_ms) == PAUSE_NONE) worker_resume_paused(w);
    replication_check_waits(w);
    if (reply_gate_holds(w)) reply_gate_release(w);
    script_refuse_waiting(w);
    worker_resume_list(&w->throttled);
    worker_resume_list(&w->leaseless);
    blocking_check_slots(w);
    if (w->id == 0) tracking_shrink(w->node);
    if (w->id == 0) migrate_close_idle(w->node, w->now_mono_ms);
    if (w->id == 0 && !w->inner) failover_tick(w); /* it leaves the gate */
    if (w->id == 0) crew_tick(atomic_load(&w->node->crew), now_ms);
}

enum { LOOK_NEVER_MS = 1 << 30 };

static void look_tick(struct loop_timer *t, int64_t now_ms)
{
    (void)now_ms;
    struct worker *w = container_of(t, struct worker, look_timer);
    waiting_room_look_again(w);
    if (list_empty(&w->paused)) return;
    if (node_paused(w->node, w->now_mono_ms) == PAUSE_NONE)
        worker_resume_paused(w);
    else if (snapshot_budget_spent(w->node))
        worker_look_again(w, SNAPSHOT_LOOK_MS);
}

void worker_look_again(struct worker *w, int64_t ms)
{
    if (w->look_timer.due_ms > w->now_mono_ms + ms) w->look_timer.due_ms = w->now_mono_ms + ms;
}

void worker_resume_paused(struct worker *w)
{
    worker_resume_list(&w->paused);
}

void worker_resume_list(struct list *l)
{
    struct list ready;
    list_init(&ready);
    while (!list_empty(l)) {
        struct list *it = l->next;
        list_remove(it);
        list_push_back(&ready, it);
    }
    while (!list_empty(&ready)) {
        struct conn *c = container_of(ready.next, struct conn, waiting_link);
        list_remove(&c->waiting_link);
        conn_resume(c);
    }
}

void worker_reap(struct worker *w)
{
    list_each(it, &w->conns)
    {
        struct conn *c = container_of(it, struct conn, link);
        if (atomic_load_explicit(&c->kill, memory_order_relaxed) && !c->close_after_reply) conn_destroy(c);
    }
}

static void adopt(struct mail *m)
{
    struct adopt_mail *a = container_of(m, struct adopt_mail, mail);
    struct conn *c = conn_create(a->worker, a->fd, a->kind);
    if (!c) close(a->fd);
    mem_free(a);
}

void worker_adopt(struct worker *w, int fd, enum conn_kind kind)
{
    struct adopt_mail *a = mem_alloc(sizeof *a);
    *a = (struct adopt_mail){{NULL, adopt}, w, fd, kind};
    atomic_fetch_add(&w->conn_count, 1);
    loop_post(w->loop, &a->mail);
}

static void notified(void *ctx, int db, const struct key *k, enum notify_class cls, const char *event)
{
    struct worker *w = ctx;
    if (!w->node->options->notify) return;
    notify_keyspace(w->node, db, k, cls, event);
    w->notified = true;
}

static void changed(void *ctx, int db, const struct key *k, enum notify_class cls, const char *event)
{
    struct worker *w = ctx;
    watch_key_changed(w->node, db, k, cls == NOTIFY_EXPIRED);
    tracking_key_changed(w->node, w, k);
    notified(w, db, k, cls, event);
    waker_key_changed(&w->waker, db, k);
}

static void flushed(void *ctx, int db, int replaced_by)
{
    struct worker *w = ctx;
    watch_flushed(w->node, db, replaced_by, w->now_ms);
    if (replaced_by < 0) tracking_flushed(w->node);
    waker_flushed(&w->waker, db);
}

static void free_tables(void *ctx, struct table **tables, size_t n)
{
    struct worker *w = ctx;
    reaper_free_tables(w->node->reaper, tables, n);
}

struct worker *worker_create(struct node *node, int id)
{
    struct worker *w = mem_calloc(1, sizeof *w);
    w->node = node;
    w->id = id;
    w->loop = loop_create();
    w->gate = gate_join(node->gate);
    w->topkeys = topkeys_create();
    list_init(&w->conns);
    list_init(&w->dirty);
    list_init(&w->paused);
    list_init(&w->waits);
    list_init(&w->throttled);
    list_init(&w->leaseless);
    w->may_serve = true;
    list_init(&w->held);
    w->poke.deliver = deliver_poke;
    list_init(&w->monitors);
    w->pubsub = pubsub_worker_create();
    w->tracking = tracking_worker_create();
    buf_reserve(&w->read_buf, READ_BUFFER);
    uint64_t seed;
    random_secure(&seed, sizeof seed);
    random_seed(&w->rng, seed);
    w->evictor = evictor_create(node->store, random_u64(&w->rng));
    w->env = (struct call_env){.store = node->store,
                               .options = node->options,
                               .stats = &w->stats,
                               .rng = &w->rng,
                               .server = node,
                               .ctx = w,
                               .changed = changed,
                               .notified = notified,
                               .flushed = flushed,
                               .free_tables = free_tables,
                               .cluster_enabled = node->cluster != NULL,
                               .one_database = node_has_one_database(node)};
    waker_init(&w->waker, node, &w->env);
    sleepers_init(w);
    w->now_ms = clock_wall_ms();
    w->now_mono_ms = clock_mono_ms();
    w->timer = (struct loop_timer){.every_ms = TICK_MS, .tick = tick};
    loop_timer_add(w->loop, &w->timer);
    w->look_timer = (struct loop_timer){.every_ms = LOOK_NEVER_MS, .tick = look_tick};
    loop_timer_add(w->loop, &w->look_timer);
    loop_set_hooks(w->loop, turn_begin, turn_end, w);
    return w;
}

/* ---- for the whole node ---- */

struct post_mail {
    struct mail mail;
    struct worker *worker;
    void (*fn)(struct worker *w);
};

static void deliver_post(struct mail *m)
{
    struct post_mail *p = container_of(m, struct post_mail, mail);
    p->fn(p->worker);
    mem_free(p);
}

void node_post_workers(struct node *n, void (*fn)(struct worker *w))
{
    for (int i = 0; i < n->worker_count; i++) {
        struct post_mail *p = mem_alloc(sizeof *p);
        *p = (struct post_mail){{NULL, deliver_post}, n->workers[i], fn};
        loop_post(n->workers[i]->loop, &p->mail);
    }
}

static void look_around(struct worker *w)
{
    (void)w;
}

void node_wake_workers(struct node *n)
{
    node_post_workers(n, look_around);
}

enum pause_mode node_paused(const struct node *n, int64_t now_mono_ms)
{
    int64_t client = atomic_load_explicit(&n->client_pause, memory_order_relaxed);
    int64_t failover = atomic_load_explicit(&n->failover_pause_until, memory_order_relaxed);
    enum pause_mode mode = client / 4 > now_mono_ms ? (enum pause_mode)(client % 4) : PAUSE_NONE;
    if (mode == PAUSE_NONE && (failover > now_mono_ms || snapshot_budget_spent(n))) mode = PAUSE_WRITE;
    return mode;
}

void node_pause_for_failover(struct node *n, int64_t until_ms)
{
    atomic_store(&n->failover_pause_until, until_ms);
    if (until_ms == 0) node_post_workers(n, worker_resume_paused);
}

void node_pause(struct node *n, enum pause_mode mode, int64_t until_ms)
{
    if (until_ms > INT64_MAX / 4 - 1) until_ms = INT64_MAX / 4 - 1;
    atomic_store(&n->client_pause, mode == PAUSE_NONE ? 0 : until_ms * 4 + mode);
    if (mode == PAUSE_NONE) node_post_workers(n, worker_resume_paused);
}

uint64_t node_changes(const struct node *n)
{
    uint64_t sum = atomic_load_explicit(&n->dirty, memory_order_relaxed);
    for (int i = 0; i < n->worker_count; i++)
        sum += atomic_load_explicit(&n->workers[i]->changes, memory_order_relaxed);
    return sum;
}

void node_stats_sum(const struct node *n, struct stats_sum *out)
{
    *out = (struct stats_sum){0};
    for (int i = 0; i < n->worker_count; i++) {
        const struct worker *w = n->workers[i];
        out->hits += atomic_load_explicit(&w->stats.keyspace_hits, memory_order_relaxed);
        out->misses += atomic_load_explicit(&w->stats.keyspace_misses, memory_order_relaxed);
        out->expired += atomic_load_explicit(&w->stats.expired_keys, memory_order_relaxed);
        out->net_in += atomic_load_explicit(&w->net_in, memory_order_relaxed);
        out->net_out += atomic_load_explicit(&w->net_out, memory_order_relaxed);
        for (int id = 0; id < CMD_ID_COUNT; id++)
            out->commands += atomic_load_explicit(&w->commands[id].calls, memory_order_relaxed);
    }
}
