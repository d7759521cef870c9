#include "server/reply_gate.h"

#include "base/mem.h"
#include "change/durable.h"
#include "observe/errorstats.h"
#include "server/replication.h"

/* Above one of these a connection is not read on until half of it has left. */
enum { HELD_MAX = 8192, HELD_MAX_BYTES = 16 * 1024 * 1024 };

struct held_reply {
    struct durable_need need;
    size_t at, n;     /* in conn.out */
    int64_t since_ms; /* monotonic */
    bool is_read;     /* what was read has to be safe; nothing was written */
};

struct held {
    struct list link; /* worker.held, while n is not 0 */
    struct conn *conn;
    struct held_reply *ring;
    size_t first, n, cap; /* cap: a power of two */
};

static struct held_reply *at(const struct held *h, size_t i)
{
    return &h->ring[(h->first + i) & (h->cap - 1)];
}

static void add_count(_Atomic int *count, int by)
{
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + by, memory_order_relaxed);
}

/* ---- holding ---- */

static struct held *held_of(struct conn *c)
{
    if (c->held) return c->held;
    struct held *h = mem_calloc(1, sizeof *h);
    list_init(&h->link);
    h->conn = c;
    c->held = h;
    return h;
}

static struct held_reply *push(struct held *h)
{
    if (h->n == h->cap) {
        size_t cap = h->cap ? h->cap * 2 : 32;
        struct held_reply *ring = mem_alloc(cap * sizeof *ring);
        for (size_t i = 0; i < h->n; i++) ring[i] = *at(h, i);
        mem_free(h->ring);
        h->ring = ring;
        h->first = 0;
        h->cap = cap;
    }
    return at(h, h->n++);
}

static bool is_full(const struct conn *c, size_t part)
{
    return c->held->n > HELD_MAX / part || c->out.n - c->out_pos > HELD_MAX_BYTES / part;
}

int64_t reply_gate_replicas(const struct conn *c)
{
    return c->min_acks >= 0 ? c->min_acks : config_num(c->worker->node->config, CFG_MIN_REPLICAS_TO_ACK);
}

const char *reply_gate_refusal(const struct conn *c)
{
    int64_t replicas = reply_gate_replicas(c);
    if (replicas == 0 || replication_enough_acks(c->worker->node->replication, replicas)) return NULL;
    return "NOREPLICAS Not enough good replicas to write.";
}

/* Deletions of what a read found expired, and messages, are nobody's writes. */
static bool is_write(const struct command *cmd)
{
    return !(cmd->flags & CMD_READONLY) && cmd->id != CMD_ID_PUBLISH && cmd->id != CMD_ID_SPUBLISH;
}

static void hold(struct conn *c, struct durable_need need, size_t reply_at, bool is_read)
{
    struct worker *w = c->worker;
    w->asks_acks |= need.replicas > 0;
    struct held *h = held_of(c);
    if (h->n == 0) list_push_back(&w->held, &h->link);
    if (atomic_load_explicit(&w->held_count, memory_order_relaxed) == 0)
        atomic_store_explicit(&w->held_since_ms, w->now_mono_ms, memory_order_relaxed);
    *push(h) = (struct held_reply){need, reply_at, c->out.n - reply_at, w->now_mono_ms, is_read};
    atomic_store(&w->held_count, atomic_load_explicit(&w->held_count, memory_order_relaxed) + 1);
    if (c->wait == WAIT_NOTHING && is_full(c, 1)) c->wait = WAIT_HELD;
}

void reply_gate_wrote(struct conn *c, const struct command *cmd, size_t reply_at)
{
    const struct node *n = c->worker->node;
    if (c->out.n <= reply_at || !is_write(cmd)) {
        reply_gate_read(c, reply_at);
        return;
    }
    c->seen_offset = 0; /* the write is behind whatever was read with it */
    struct durable_need need = {c->write_offset, (uint16_t)reply_gate_replicas(c),
                                atomic_load_explicit(&n->replies_need_sync, memory_order_relaxed) ||
                                    atomic_load(&n->replies_need_file)};
    c->unsent_write = true;
    c->unsafe_write |= need.replicas == 0;
    if (!durable_needs_nothing(&need)) hold(c, need, reply_at, false);
}

/* What was executed cannot be refused any more, but nothing of it has to be told. */
static void refuse_read(struct conn *c, size_t reply_at)
{
    static const char text[] = "NOREPLICAS Not enough good replicas to read what was written last.";
    struct resp_out out = conn_out(c);
    c->out.n = reply_at;
    resp_error(&out, text);
    errorstats_note(c->worker->node->errors, bytes_make(c->out.p + reply_at, c->out.n - reply_at));
}

void reply_gate_read(struct conn *c, size_t reply_at)
{
    struct durable_need need = {.offset = c->seen_offset};
    c->seen_offset = 0;
    if (need.offset == 0 || c->out.n <= reply_at) return;
    need.replicas = (uint16_t)reply_gate_replicas(c);
    if (need.replicas == 0 || durable_is_met(c->worker->node->durable, &need)) return;
    if (reply_gate_refusal(c))
        refuse_read(c, reply_at);
    else
        hold(c, need, reply_at, true);
}

/* ---- letting go ---- */

static void pop(struct held *h)
{
    h->first++;
    h->n--;
    add_count(&h->conn->worker->held_count, -1);
    if (h->n == 0) list_remove(&h->link);
}

static void pop_met(struct held *h)
{
    const struct durable *d = h->conn->worker->node->durable;
    while (h->n && durable_is_met(d, &at(h, 0)->need)) pop(h);
}

size_t reply_gate_end(struct conn *c)
{
    struct held *h = c->held;
    if (h->n && !atomic_load(&c->worker->fail_held)) pop_met(h);
    return h->n ? at(h, 0)->at : c->out.n;
}

void reply_gate_dropped(struct conn *c, size_t n)
{
    for (size_t i = 0; i < c->held->n; i++) at(c->held, i)->at -= n;
}

void reply_gate_forget(struct conn *c)
{
    struct held *h = c->held;
    if (!h) return;
    while (h->n) pop(h);
    mem_free(h->ring);
    mem_free(h);
    c->held = NULL;
}

/* ---- errors instead ---- */

static bool is_overdue(const struct held_reply *r, int64_t before_ms)
{
    return r->need.replicas && r->since_ms <= before_ms;
}

static void error_text(struct buf *out, const struct held_reply *r, bool lost_role)
{
    if (r->is_read && lost_role)
        buf_printf(out, "-NOACK This node ceased to be the primary before what was read was safe: it may or may not be "
                        "kept\r\n");
    else if (r->is_read)
        buf_printf(out,
                   "-NOACK %u replicas did not acknowledge in time what was read (min-replicas-to-ack-timeout): it may "
                   "or may not be kept\r\n",
                   r->need.replicas);
    else if (lost_role)
        buf_printf(out, "-NOACK The write was executed, but this node ceased to be the primary before it was safe: it "
                        "may or may not be kept\r\n");
    else
        buf_printf(out,
                   "-NOACK The write was executed, but %u replicas did not acknowledge it in time "
                   "(min-replicas-to-ack-timeout): it may or may not be kept\r\n",
                   r->need.replicas);
}

/* The first `count` held replies become errors; what is between them stays, and what follows moves. */
static void replace(struct held *h, size_t count, bool lost_role)
{
    struct conn *c = h->conn;
    struct buf out = {0};
    size_t done = c->out_pos;
    for (size_t i = 0; i < count; i++) {
        const struct held_reply *r = at(h, 0);
        buf_append(&out, c->out.p + done, r->at - done);
        size_t begin = out.n;
        error_text(&out, r, lost_role);
        errorstats_note(c->worker->node->errors, bytes_make(out.p + begin, out.n - begin));
        done = r->at + r->n;
        pop(h);
    }
    size_t shift = out.n;
    buf_append(&out, c->out.p + done, c->out.n - done);
    for (size_t i = 0; i < h->n; i++) at(h, i)->at = at(h, i)->at - done + shift;
    buf_deinit(&c->out);
    c->out = out;
    c->out_pos = 0;
    c->keep_out = 0;
    atomic_fetch_add(&c->worker->node->stats.held_timed_out, count);
}

static void expire(struct held *h, int64_t before_ms, bool lost_role)
{
    size_t n = 0;
    while (n < h->n && (lost_role || is_overdue(at(h, n), before_ms))) n++;
    if (n) replace(h, n, lost_role);
}

/* ---- all of a worker's ---- */

/* The connection may be gone afterwards. */
static void look_at(struct worker *w, struct conn *c, int64_t before_ms, bool lost_role)
{
    struct held *h = c->held;
    size_t before = h->n;
    pop_met(h);
    if (h->n && c->wait != WAIT_SCRIPT) expire(h, before_ms, lost_role);
    if (h->n) list_push_back(&w->held, &h->link);
    if (h->n == before) return;
    conn_wants_write(c);
    if (c->wait == WAIT_HELD && !is_full(c, 2)) conn_resume(c);
}

void reply_gate_release(struct worker *w)
{
    struct list todo;
    int64_t before = w->now_mono_ms - config_num(w->node->config, CFG_MIN_REPLICAS_TO_ACK_TIMEOUT);
    bool lost_role = atomic_exchange(&w->fail_held, false);
    int64_t oldest = INT64_MAX;
    list_init(&todo);
    while (!list_empty(&w->held)) {
        struct list *it = w->held.next;
        list_remove(it);
        list_push_back(&todo, it);
    }
    while (!list_empty(&todo)) {
        struct held *h = container_of(todo.next, struct held, link);
        list_remove(&h->link);
        look_at(w, h->conn, before, lost_role);
    }
    list_each(it, &w->held)
    {
        const struct held *h = container_of(it, struct held, link);
        if (at(h, 0)->since_ms < oldest) oldest = at(h, 0)->since_ms;
    }
    atomic_store_explicit(&w->held_since_ms, oldest, memory_order_relaxed);
}

/* ---- other threads ---- */

void reply_gate_moved(struct node *n)
{
    for (int i = 0; i < n->worker_count; i++)
        if (atomic_load(&n->workers[i]->held_count)) worker_poke(n->workers[i]);
}

void reply_gate_require_synced(struct node *n, bool on)
{
    atomic_store(&n->replies_need_sync, on);
    /* What is held already still waits, for an offset that is reached when the AOF is closed. */
}

void reply_gate_require_file(struct node *n, bool on)
{
    atomic_store(&n->replies_need_file, on);
}

void reply_gate_synced(struct node *n, uint64_t offset)
{
    if (durable_set_synced(n->durable, offset)) reply_gate_moved(n);
}

void reply_gate_fail_all(struct node *n)
{
    durable_reset(n->durable);
    for (int i = 0; i < n->worker_count; i++) {
        if (!atomic_load(&n->workers[i]->held_count)) continue;
        atomic_store(&n->workers[i]->fail_held, true);
        worker_poke(n->workers[i]);
    }
}

void reply_gate_view_get(const struct node *n, struct reply_gate_view *out)
{
    *out = (struct reply_gate_view){.timed_out = atomic_load(&n->stats.held_timed_out)};
    for (int i = 0; i < n->worker_count; i++) {
        const struct worker *w = n->workers[i];
        int held = atomic_load_explicit(&w->held_count, memory_order_relaxed);
        int64_t since = atomic_load_explicit(&w->held_since_ms, memory_order_relaxed);
        if (held <= 0) continue;
        out->held += held;
        if (out->oldest_ms == 0 || since < out->oldest_ms) out->oldest_ms = since;
    }
}
