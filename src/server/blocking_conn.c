/* blocking_conn.c: the connection's side of a sleep: its beginning, time-outs, and all the ways in which it ends. */
#include "server/blocking_registry.h"

#include "base/clock.h"
#include "base/mem.h"
#include "server/cluster_link.h"
#include "server/reply_gate.h"

enum { CHECK_SLOTS_MS = 1000 };
static const int64_t NEVER_MS = 1 << 30;

static const char ERR_UNBLOCKED[] = "UNBLOCKED client unblocked via CLIENT UNBLOCK";
static const char ERR_ROLE[] =
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)";

/* ---- time-outs: a heap of each worker ---- */

void sleepers_due(struct worker *w, int64_t at_ms)
{
    if (at_ms < w->sleepers.timer.due_ms) w->sleepers.timer.due_ms = at_ms;
}

static void heap_set(struct sleepers *s, size_t i, struct blocked *b)
{
    s->heap[i] = b;
    b->heap_index = i + 1;
}

static void heap_up(struct sleepers *s, size_t i, struct blocked *b)
{
    for (; i > 0 && s->heap[(i - 1) / 2]->deadline_ms > b->deadline_ms; i = (i - 1) / 2)
        heap_set(s, i, s->heap[(i - 1) / 2]);
    heap_set(s, i, b);
}

static void heap_down(struct sleepers *s, size_t i, struct blocked *b)
{
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= s->heap_n) break;
        if (child + 1 < s->heap_n && s->heap[child + 1]->deadline_ms < s->heap[child]->deadline_ms) child++;
        if (s->heap[child]->deadline_ms >= b->deadline_ms) break;
        heap_set(s, i, s->heap[child]);
        i = child;
    }
    heap_set(s, i, b);
}

static void heap_add(struct worker *w, struct blocked *b)
{
    struct sleepers *s = &w->sleepers;
    if (s->heap_n == s->heap_cap) {
        s->heap_cap = s->heap_cap ? s->heap_cap * 2 : 64;
        s->heap = mem_realloc(s->heap, s->heap_cap * sizeof(struct blocked *));
    }
    s->heap_n++;
    heap_up(s, s->heap_n - 1, b);
    atomic_store_explicit(&s->timeouts, (int)s->heap_n, memory_order_relaxed);
    sleepers_due(w, b->deadline_ms);
}

static void heap_remove(struct worker *w, struct blocked *b)
{
    struct sleepers *s = &w->sleepers;
    if (b->heap_index == 0) return;
    size_t i = b->heap_index - 1;
    b->heap_index = 0;
    struct blocked *last = s->heap[--s->heap_n];
    if (last != b) {
        if (i > 0 && s->heap[(i - 1) / 2]->deadline_ms > last->deadline_ms)
            heap_up(s, i, last);
        else
            heap_down(s, i, last);
    }
    atomic_store_explicit(&s->timeouts, (int)s->heap_n, memory_order_relaxed);
}

int blocking_timeouts(const struct node *n)
{
    int sum = 0;
    for (int i = 0; i < n->worker_count; i++)
        sum += atomic_load_explicit(&n->workers[i]->sleepers.timeouts, memory_order_relaxed);
    return sum;
}

/* ---- beginning ---- */

/* The slot of a key that the command needs but does not wait for; -1: there is none. */
static int extra_slot(const struct call *call, const struct call_wait *wait)
{
    struct command_key found[CALL_KEYS_INLINE];
    int n = command_keys(call->cmd, call->argv, call->argc, found, CALL_KEYS_INLINE);
    unsigned slot = key_slot(call->argv[wait->first]);
    for (int i = 0; i < n && i < CALL_KEYS_INLINE; i++) {
        if (found[i].index >= wait->first && found[i].index < wait->first + wait->count) continue;
        unsigned other = key_slot(call->argv[found[i].index]);
        if (other != slot) return (int)other;
    }
    return -1;
}

void blocking_begin(struct conn *c, struct call *call)
{
    struct call_wait *wait = call->wait;
    struct blocked *b = mem_calloc(1, sizeof *b + wait->count * sizeof *b->at);
    call->wait = NULL;
    *b = (struct blocked){.state = BLOCKED_SLEEPING,
                          .refs = 2,
                          .conn = c,
                          .ref = conn_ref_of(c),
                          .cmd = call->cmd,
                          .argv = wait->kept,
                          .argc = call->argc,
                          .argv_bytes = wait->kept_bytes,
                          .type = wait->type,
                          .flags = wait->flags,
                          .db = call->db,
                          .resp = c->resp,
                          .muted = c->reply_mode == REPLY_OFF || c->reply_mode == REPLY_SKIP,
                          .deadline_ms = INT64_MAX,
                          .extra = extra_slot(call, wait)};
    list_init(&b->extra_link);
    c->blocked = b;
    c->wait = WAIT_KEYS;
    list_push_back(&c->worker->sleepers.conns, &c->waiting_link);
    /* Both ends are cut to whole milliseconds: one more, so that it is never early. */
    int64_t now = clock_mono_ms() + 1;
    if (wait->timeout_ms && wait->timeout_ms < INT64_MAX - now) {
        b->deadline_ms = now + wait->timeout_ms;
        heap_add(c->worker, b);
    }
    blocking_enter(c->worker->node->blocking, b, wait->first, wait->count);
    mem_free(wait);
}

size_t blocking_memory(const struct conn *c)
{
    return c->blocked ? c->blocked->argv_bytes : 0;
}

/* ---- ends ---- */

/* Nothing of the sleep is left at the connection. */
static void detach(struct conn *c)
{
    struct blocked *b = c->blocked;
    heap_remove(c->worker, b);
    list_remove(&c->waiting_link);
    c->blocked = NULL;
    c->wait = WAIT_NOTHING;
    blocked_release(b);
}

/* The sleep is over and b->reply made: on with the connection. */
static void wake(struct conn *c)
{
    struct blocked *b = c->blocked;
    bool close = b->close;
    size_t reply_at = c->out.n;
    if (!b->muted) buf_append_bytes(&c->out, buf_bytes(&b->reply));
    c->seen_offset = b->seen_offset;
    if (b->write_offset) {
        c->write_offset = b->write_offset;
        reply_gate_wrote(c, b->cmd, reply_at);
    } else if (b->seen_offset) {
        reply_gate_read(c, reply_at);
    }
    detach(c);
    if (close) c->close_after_reply = true;
    if (close || c->out.n > c->out_pos) conn_wants_write(c);
    conn_resume(c);
}

static void deliver(struct conn *c, void *data)
{
    struct blocked *b = data;
    if (c && c->blocked == b) wake(c);
    blocked_release(b);
}

void blocked_wake_by_mail(struct blocked *b)
{
    conn_post(b->ref, deliver, b);
}

static void reply_timeout(struct blocked *b)
{
    struct resp_out out = {&b->reply, b->resp};
    resp_null_array(&out);
}

static void reply_error(struct blocked *b, const char *error)
{
    struct resp_out out = {&b->reply, b->resp};
    resp_error(&out, error);
}

void blocking_forget(struct conn *c)
{
    struct blocked *b = c->blocked;
    if (!b) return;
    if (atomic_exchange(&b->state, BLOCKED_OVER) == BLOCKED_SLEEPING) {
        blocking_leave(c->worker->node->blocking, b);
        blocked_release(b);
    }
    detach(c);
}

static void time_out(struct worker *w, struct blocked *b)
{
    heap_remove(w, b);
    if (blocked_take(b, BLOCKED_OVER)) {
        struct conn *c = b->conn;
        blocking_leave(w->node->blocking, b);
        reply_timeout(b);
        blocked_release(b);
        wake(c);
    } else if (atomic_load(&b->state) == BLOCKED_CLAIMED) {
        /* Perhaps there is nothing for it after all. */
        b->deadline_ms = w->now_mono_ms + 1;
        heap_add(w, b);
    }
}

static void tick(struct loop_timer *t, int64_t now_ms)
{
    struct worker *w = container_of(container_of(t, struct sleepers, timer), struct worker, sleepers);
    struct sleepers *s = &w->sleepers;
    if (!list_empty(&s->retries)) blocking_run_retries(w);
    while (s->heap_n && s->heap[0]->deadline_ms <= now_ms) time_out(w, s->heap[0]);
    t->due_ms = now_ms + NEVER_MS;
    if (s->heap_n) sleepers_due(w, s->heap[0]->deadline_ms);
    if (!list_empty(&s->retries)) sleepers_due(w, now_ms + 1);
}

void sleepers_init(struct worker *w)
{
    struct sleepers *s = &w->sleepers;
    list_init(&s->conns);
    list_init(&s->retries);
    s->timer = (struct loop_timer){.every_ms = NEVER_MS, .tick = tick};
    loop_timer_add(w->loop, &s->timer);
}

/* ---- the cluster moves a slot ---- */

/* False: what the client is told instead stands in reply. */
static bool served_here(struct conn *c, struct buf *reply)
{
    const struct blocked *b = c->blocked;
    struct call call = {.env = &c->worker->env,
                        .cmd = b->cmd,
                        .argv = b->argv,
                        .argc = b->argc,
                        .out = {reply, b->resp},
                        .db = b->db,
                        .session = c};
    struct key few[CALL_KEYS_INLINE], *keys = few;
    size_t n = b->n + (b->extra >= 0);
    if (n > CALL_KEYS_INLINE) keys = mem_alloc(n * sizeof *keys);
    for (size_t i = 0; i < b->n; i++) keys[i] = key_of(b->argv[b->at[i].arg]);
    if (b->extra >= 0) keys[b->n] = (struct key){.slot = (unsigned)b->extra};
    bool asking = c->asking;
    c->asking = true; /* who sleeps at a slot that is coming here may stay */
    bool here = cluster_route_unlocked(c, &call, keys, n, b->cmd->flags & CMD_WRITE);
    c->asking = asking;
    if (keys != few) mem_free(keys);
    return here;
}

static bool check_slot(struct worker *w, struct conn *c)
{
    struct buf reply = {0};
    struct blocked *b = c->blocked;
    if (served_here(c, &reply)) return false;
    bool mine = blocked_take(b, BLOCKED_OVER);
    if (mine) {
        blocking_leave(w->node->blocking, b);
        b->reply = reply;
        blocked_release(b);
        wake(c);
    } else {
        buf_deinit(&reply);
    }
    return mine;
}

void blocking_check_slots(struct worker *w)
{
    struct sleepers *s = &w->sleepers;
    if (!w->node->cluster || list_empty(&s->conns) || w->now_mono_ms < s->checked_ms + CHECK_SLOTS_MS) return;
    s->checked_ms = w->now_mono_ms;
    /* Who is woken up may go to sleep again, at the end of the list. */
    struct list *last = s->conns.prev;
    for (struct list *it = s->conns.next; it != &s->conns;) {
        struct list *next = it->next;
        bool end = it == last;
        check_slot(w, container_of(it, struct conn, waiting_link));
        if (end) break;
        it = next;
    }
}

/* ---- with the server at rest ---- */

bool blocking_asleep(const struct conn *c)
{
    return c->blocked && atomic_load(&c->blocked->state) == BLOCKED_SLEEPING;
}

/* NULL: as after a time-out. */
static bool end_by_mail(struct conn *c, const char *error, bool close)
{
    struct blocked *b = c->blocked;
    if (!b || !blocked_take(b, BLOCKED_OVER)) return false;
    blocking_leave(c->worker->node->blocking, b);
    if (error)
        reply_error(b, error);
    else
        reply_timeout(b);
    b->close = close;
    blocked_wake_by_mail(b);
    return true;
}

bool blocking_unblock(struct conn *c, bool error)
{
    return end_by_mail(c, error ? ERR_UNBLOCKED : NULL, false);
}

void blocking_end_all(struct node *n)
{
    for (int i = 0; i < n->worker_count; i++)
        list_each(it, &n->workers[i]->sleepers.conns)
            end_by_mail(container_of(it, struct conn, waiting_link), ERR_ROLE, true);
}
