/* blocking.c: the registry of keys that clients sleep at, and serving them. */
#include "server/blocking_registry.h"

#include "base/clock.h"
#include "base/mem.h"
#include "observe/errorstats.h"
#include "server/cluster_link.h"
#include "server/last_writes.h"

enum {
    CHAINS_MIN = 16,
    AHEAD =
        4, /* sleepers of one slot whose extra slots are locked before a command runs; more are tried while serving */
    LOOK_MAX = 64
};

struct blocking *blocking_create(void)
{
    struct blocking *r = mem_calloc(1, sizeof *r);
    for (int i = 0; i < BLOCKING_STRIPES; i++) {
        pthread_mutex_init(&r->stripe[i].mu, NULL);
        list_init(&r->stripe[i].extras);
    }
    return r;
}

int blocking_clients(const struct node *n)
{
    return atomic_load_explicit(&n->blocking->clients, memory_order_relaxed);
}

/* ---- the registry ---- */

int blocking_queue_of(enum value_type type)
{
    switch (type) {
    case TYPE_LIST: return QUEUE_LIST;
    case TYPE_ZSET: return QUEUE_ZSET;
    case TYPE_STREAM: return QUEUE_STREAM;
    default: return -1;
    }
}

static size_t chain_of(const struct blocking_stripe *s, int db, uint64_t hash)
{
    return (size_t)((hash >> 16) + (uint64_t)db) & (s->chain_count - 1);
}

struct blocked_key *blocking_find(struct blocking *r, int db, const struct key *k)
{
    struct blocking_stripe *s = blocking_stripe_of(r, k->slot);
    if (s->chain_count == 0) return NULL;
    struct blocked_key *bk = s->chains[chain_of(s, db, k->hash)];
    while (bk && (bk->db != db || bk->key.hash != k->hash || !bytes_eq(bk->key.name, k->name))) bk = bk->next;
    return bk;
}

static void grow(struct blocking_stripe *s)
{
    size_t old_count = s->chain_count;
    struct blocked_key **old = s->chains;
    s->chain_count = old_count ? old_count * 2 : CHAINS_MIN;
    s->chains = mem_calloc(s->chain_count, sizeof *s->chains);
    for (size_t i = 0; i < old_count; i++) {
        while (old[i]) {
            struct blocked_key *bk = old[i], **chain = &s->chains[chain_of(s, bk->db, bk->key.hash)];
            old[i] = bk->next;
            bk->next = *chain;
            *chain = bk;
        }
    }
    mem_free(old);
}

static struct blocked_key *find_or_add(struct blocking *r, int db, const struct key *k)
{
    struct blocked_key *bk = blocking_find(r, db, k);
    if (bk) return bk;
    struct blocking_stripe *s = blocking_stripe_of(r, k->slot);
    if (s->key_count == s->chain_count) grow(s);
    bk = mem_calloc(1, sizeof *bk + k->name.n);
    if (k->name.n) memcpy(bk + 1, k->name.p, k->name.n);
    bk->db = db;
    bk->key = (struct key){bytes_make(bk + 1, k->name.n), k->hash, k->slot};
    for (int q = 0; q < QUEUES; q++) list_init(&bk->queue[q]);
    list_init(&bk->ready_link);
    struct blocked_key **chain = &s->chains[chain_of(s, db, k->hash)];
    bk->next = *chain;
    *chain = bk;
    s->key_count++;
    return bk;
}

static void free_if_unused(struct blocking *r, struct blocked_key *bk)
{
    if (bk->sleepers || bk->ready || bk->pins) return;
    struct blocking_stripe *s = blocking_stripe_of(r, bk->key.slot);
    struct blocked_key **at = &s->chains[chain_of(s, bk->db, bk->key.hash)];
    while (*at != bk) at = &(*at)->next;
    *at = bk->next;
    s->key_count--;
    mem_free(bk);
}

void blocking_unpin(struct blocking *r, struct blocked_key *bk)
{
    bk->pins--;
    free_if_unused(r, bk);
}

void blocking_enter(struct blocking *r, struct blocked *b, uint32_t first, uint32_t n)
{
    int q = blocking_queue_of(b->type);
    assert(q >= 0);
    for (uint32_t arg = first; arg < first + n; arg++) {
        struct key k = key_of(b->argv[arg]);
        blocking_lock(r, k.slot);
        struct blocked_key *bk = find_or_add(r, b->db, &k);
        struct list *queue = &bk->queue[q];
        /* Nobody else can have come in between: the slot is locked.  So a repeated key shows here. */
        bool repeated = !list_empty(queue) && container_of(queue->prev, struct blocked_at, link)->who == b;
        if (!repeated) {
            struct blocked_at *at = &b->at[b->n++];
            *at = (struct blocked_at){.key = bk, .who = b, .arg = arg};
            list_push_back(queue, &at->link);
            bk->sleepers++;
            if (b->flags & CALL_WAIT_ALSO_GONE) bk->gone_sleepers++;
            atomic_fetch_add_explicit(&r->at_slot[k.slot], 1, memory_order_relaxed);
            atomic_fetch_add_explicit(&r->places, 1, memory_order_relaxed);
        }
        if (arg == first && b->extra >= 0) {
            list_push_back(&blocking_stripe_of(r, k.slot)->extras, &b->extra_link);
            atomic_fetch_add_explicit(&r->extras, 1, memory_order_relaxed);
        }
        blocking_unlock(r, k.slot);
    }
    atomic_fetch_add_explicit(&r->clients, 1, memory_order_relaxed);
}

void blocking_leave(struct blocking *r, struct blocked *b)
{
    for (size_t i = 0; i < b->n; i++) {
        struct blocked_key *bk = b->at[i].key;
        unsigned slot = bk->key.slot;
        blocking_lock(r, slot);
        list_remove(&b->at[i].link);
        bk->sleepers--;
        if (b->flags & CALL_WAIT_ALSO_GONE) bk->gone_sleepers--;
        if (i == 0 && b->extra >= 0) {
            list_remove(&b->extra_link);
            atomic_fetch_sub_explicit(&r->extras, 1, memory_order_relaxed);
        }
        free_if_unused(r, bk);
        blocking_unlock(r, slot);
        atomic_fetch_sub_explicit(&r->at_slot[slot], 1, memory_order_relaxed);
        atomic_fetch_sub_explicit(&r->places, 1, memory_order_relaxed);
    }
    atomic_fetch_sub_explicit(&r->clients, 1, memory_order_relaxed);
}

bool blocked_take(struct blocked *b, enum blocked_state to)
{
    int seen = BLOCKED_SLEEPING;
    return atomic_compare_exchange_strong(&b->state, &seen, to);
}

void blocked_release(struct blocked *b)
{
    if (atomic_fetch_sub(&b->refs, 1) > 1) return;
    mem_free(b->argv);
    buf_deinit(&b->reply);
    mem_free(b);
}

/* ---- what a thread has changed ---- */

void waker_init(struct waker *w, struct node *n, const struct call_env *env)
{
    *w = (struct waker){.node = n, .env = env};
    list_init(&w->ready);
}

static void mark_ready(struct waker *w, struct blocked_key *bk)
{
    if (bk->ready) return;
    bk->ready = true;
    list_push_back(&w->ready, &bk->ready_link);
}

void waker_key_changed(struct waker *w, int db, const struct key *k)
{
    struct blocking *r = w->node->blocking;
    if (atomic_load_explicit(&r->places, memory_order_relaxed) == 0) return;
    if (atomic_load_explicit(&r->at_slot[k->slot], memory_order_relaxed) == 0) return;
    blocking_lock(r, k->slot);
    struct blocked_key *bk = blocking_find(r, db, k);
    if (bk) mark_ready(w, bk);
    blocking_unlock(r, k->slot);
}

void waker_flushed(struct waker *w, int db)
{
    struct blocking *r = w->node->blocking;
    if (atomic_load_explicit(&r->places, memory_order_relaxed) == 0) return;
    for (int i = 0; i < BLOCKING_STRIPES; i++) {
        struct blocking_stripe *s = &r->stripe[i];
        pthread_mutex_lock(&s->mu);
        for (size_t chain = 0; chain < s->chain_count; chain++)
            for (struct blocked_key *bk = s->chains[chain]; bk; bk = bk->next)
                if (db < 0 || bk->db == db) mark_ready(w, bk);
        pthread_mutex_unlock(&s->mu);
    }
}

/* ---- slots that sleepers need beside the changed one ---- */

static bool is_held(const struct waker *w, const unsigned *slots, size_t n, unsigned slot)
{
    for (unsigned i = 0; i < w->extra_n; i++)
        if (w->extra[i] == slot) return true;
    size_t low = 0;
    while (low < n) {
        size_t mid = low + (n - low) / 2;
        if (slots[mid] == slot) return true;
        if (slots[mid] < slot)
            low = mid + 1;
        else
            n = mid;
    }
    return false;
}

/* Holds the slot in the end, or gives false. */
static bool hold(struct waker *w, const unsigned *slots, size_t n, unsigned slot)
{
    if (is_held(w, slots, n, slot)) return true;
    if (w->extra_n == WAKER_EXTRA_MAX || !slot_try_lock_spinning(w->node->store, slot)) return false;
    w->extra[w->extra_n++] = slot;
    return true;
}

static void unlock_down_to(struct waker *w, unsigned n)
{
    while (w->extra_n > n) slot_unlock(w->node->store, w->extra[--w->extra_n]);
}

void waker_unlock_more(struct waker *w)
{
    unlock_down_to(w, 0);
}

/* The extra slots of those who have slept longest in this slot. */
static size_t first_extras(struct blocking *r, unsigned slot, unsigned out[AHEAD])
{
    size_t found = 0, looked = 0;
    blocking_lock(r, slot);
    list_each(it, &blocking_stripe_of(r, slot)->extras)
    {
        const struct blocked *b = container_of(it, struct blocked, extra_link);
        if (b->at[0].key->key.slot == slot) out[found++] = (unsigned)b->extra;
        if (found == AHEAD || ++looked == LOOK_MAX) break;
    }
    blocking_unlock(r, slot);
    return found;
}

bool waker_lock_more(struct waker *w, const unsigned *slots, size_t n, unsigned *busy)
{
    struct blocking *r = w->node->blocking;
    if (atomic_load_explicit(&r->extras, memory_order_relaxed) == 0) return true;
    unsigned before = w->extra_n;
    /* What a sleeper moves may wake the next one, so its slot is looked at too. */
    for (size_t i = 0; i < n + w->extra_n; i++) {
        unsigned slot = i < n ? slots[i] : w->extra[i - n], wanted[AHEAD];
        if (atomic_load_explicit(&r->at_slot[slot], memory_order_relaxed) == 0) continue;
        size_t found = first_extras(r, slot, wanted);
        for (size_t k = 0; k < found && w->extra_n < WAKER_EXTRA_MAX; k++) {
            if (hold(w, slots, n, wanted[k])) continue;
            *busy = wanted[k];
            unlock_down_to(w, before);
            return false;
        }
    }
    return true;
}

/* ---- serving ---- */

struct serving {
    struct waker *w;
    const unsigned *slots;
    size_t n;
    bool at_rest;
    int64_t now_ms;
};

/* Runs b's command again for one key.  False: it has to sleep on. */
static bool run_again(const struct serving *s, struct blocked *b, const struct blocked_at *at)
{
    struct waker *w = s->w;
    struct node *n = w->node;
    struct call call = {.env = w->env,
                        .cmd = b->cmd,
                        .handler = command_handler_of((enum command_id)b->cmd->id),
                        .argv = b->argv,
                        .argc = b->argc,
                        .out = {&b->reply, b->resp},
                        .db = b->db,
                        .flags = s->at_rest ? CALL_EXCLUSIVE : 0,
                        .now_ms = s->now_ms,
                        .lru_clock = (uint32_t)(s->now_ms / 1000) & 0xffffff,
                        .key_count = 1,
                        .key_arg = {at->arg},
                        .keys = {at->key->key},
                        .served_arg = at->arg,
                        .effects = &w->effects};
    if (data_node_is_replica(n)) call.flags |= CALL_ON_REPLICA;
    if (node_paused(n, clock_mono_ms()) != PAUSE_NONE) call.flags |= CALL_KEEP_EXPIRED;
    call.effects_wanted = change_log_active(n->log) && !(call.flags & CALL_ON_REPLICA);
    w->effects.n = 0;
    call_run(&call);
    if (call.effect_count) {
        b->write_offset = change_append(n->log, b->db, buf_bytes(&w->effects), call.effect_count, b->db);
        last_writes_note(n, at->key->key.slot, b->write_offset);
        if (b->extra >= 0) last_writes_note(n, (unsigned)b->extra, b->write_offset);
    }
    b->seen_offset = last_writes_of(n, at->key->key.slot);
    if (call.dirty) atomic_fetch_add_explicit(&n->dirty, call.dirty, memory_order_relaxed);
    if (!call.wait) {
        if (b->reply.n && b->reply.p[0] == '-') errorstats_note(n->errors, buf_bytes(&b->reply));
        return true;
    }
    call_wait_free(call.wait);
    b->reply.n = 0;
    return false;
}

/* Puts b, which I claimed and did not serve, back to sleep; under the stripe.  False: its connection is gone. */
static bool let_sleep(struct blocked *b)
{
    int seen = BLOCKED_CLAIMED;
    return atomic_compare_exchange_strong(&b->state, &seen, BLOCKED_SLEEPING);
}

enum turn {
    TURN_DONE,  /* the next one may have something too */
    TURN_LATER, /* nobody behind may be served before this one, which is not possible now */
    TURN_OTHER, /* another thread is trying this one for another key: it may have to be looked at again */
};

/* One sleeper's turn; enters and leaves with the stripe locked. */
static enum turn take_turn(const struct serving *s, struct blocked_at *at)
{
    struct blocking *r = s->w->node->blocking;
    struct blocked *b = at->who;
    unsigned slot = at->key->key.slot;
    if (!blocked_take(b, BLOCKED_CLAIMED)) return atomic_load(&b->state) == BLOCKED_CLAIMED ? TURN_OTHER : TURN_DONE;
    /* The other key's slot may be on its way to another node since the client fell asleep: who checks for that ends the
     * wait soon. */
    bool kept = b->extra < 0 || cluster_keeps_slot(s->w->node, (unsigned)b->extra);
    bool ready = s->at_rest || b->extra < 0 || hold(s->w, s->slots, s->n, (unsigned)b->extra);
    bool served = false;
    if (ready && kept) {
        blocking_unlock(r, slot);
        served = run_again(s, b, at);
        blocking_lock(r, slot);
    }
    if (!served && let_sleep(b)) return ready ? TURN_DONE : TURN_LATER;
    blocking_unlock(r, slot);
    blocking_leave(r, b);
    if (served) {
        atomic_store(&b->state, BLOCKED_OVER);
        blocked_wake_by_mail(b);
    } else {
        blocked_release(b);
    }
    blocking_lock(r, slot);
    return TURN_DONE;
}

/* The queue that the key's value is of interest to; -1: none. */
static int queue_now(const struct serving *s, const struct blocked_key *bk)
{
    const struct entry *e = store_find(s->w->node->store, bk->db, &bk->key);
    return e ? blocking_queue_of(entry_type(e)) : -1;
}

/* Serves one queue in order.  False: not all that could be done was. */
static bool serve_queue(const struct serving *s, struct blocked_key *bk, int q, bool gone)
{
    struct blocking *r = s->w->node->blocking;
    struct list *queue = &bk->queue[q], cursor;
    bool complete = true;
    blocking_lock(r, bk->key.slot);
    /* The cursor keeps its place while others leave.  Nobody else walks here, nor looks at the end: the slot is mine.
     */
    list_insert_after(queue, &cursor);
    while (cursor.next != queue) {
        struct list *it = cursor.next;
        struct blocked_at *at = container_of(it, struct blocked_at, link);
        list_remove(&cursor);
        list_insert_after(it, &cursor);
        if (gone && !(at->who->flags & CALL_WAIT_ALSO_GONE)) continue;
        enum turn turn = take_turn(s, at);
        if (turn != TURN_DONE) complete = false;
        if (turn == TURN_LATER || (!gone && queue_now(s, bk) != q)) break;
    }
    list_remove(&cursor);
    blocking_unlock(r, bk->key.slot);
    return complete;
}

static bool serve_key(const struct serving *s, struct blocked_key *bk)
{
    int q = queue_now(s, bk);
    bool complete = q < 0 || serve_queue(s, bk, q, false);
    /* bk is pinned; the count may only fall meanwhile, for to enter one needs the slot. */
    if (complete && queue_now(s, bk) != QUEUE_STREAM && bk->gone_sleepers)
        complete = serve_queue(s, bk, QUEUE_STREAM, true);
    return complete;
}

void waker_serve(struct waker *w, const unsigned *slots, size_t n, bool at_rest, int64_t now_ms)
{
    struct blocking *r = w->node->blocking;
    struct serving s = {w, slots, n, at_rest, now_ms};
    /* Keys that become ready meanwhile, where BLMOVE puts things, come behind. */
    while (!list_empty(&w->ready)) {
        struct blocked_key *bk = container_of(w->ready.next, struct blocked_key, ready_link);
        unsigned slot = bk->key.slot;
        blocking_lock(r, slot);
        list_remove(&bk->ready_link);
        bk->ready = false;
        bk->pins++;
        blocking_unlock(r, slot);
        if ((!at_rest && !is_held(w, slots, n, slot)) || !serve_key(&s, bk)) {
            blocking_retry(w->node, bk);
            continue;
        }
        blocking_lock(r, slot);
        blocking_unpin(r, bk);
        blocking_unlock(r, slot);
    }
}

/* ---- keys that could not be served at once ---- */

struct retry {
    struct mail mail;
    struct worker *worker;
    struct blocked_key *bk; /* pinned */
    struct list link;       /* in sleepers.retries */
};

/* False: a slot is busy. */
static bool retry_now(struct worker *w, struct blocked_key *bk)
{
    struct node *n = w->node;
    unsigned slot = bk->key.slot, busy;
    /* A pause is there so that nothing changes. */
    if (node_paused(n, clock_mono_ms()) != PAUSE_NONE || !slot_try_lock_spinning(n->store, slot)) return false;
    bool done = waker_lock_more(&w->waker, &slot, 1, &busy);
    if (done) {
        blocking_lock(n->blocking, slot);
        mark_ready(&w->waker, bk);
        blocking_unpin(n->blocking, bk);
        blocking_unlock(n->blocking, slot);
        waker_serve(&w->waker, &slot, 1, false, w->now_ms);
        waker_unlock_more(&w->waker);
    }
    slot_unlock(n->store, slot);
    return done;
}

void blocking_run_retries(struct worker *w)
{
    struct list *all = &w->sleepers.retries;
    for (struct list *it = all->next, *last = all->prev, *next; it != all; it = next) {
        struct retry *retry = container_of(it, struct retry, link);
        next = it == last ? all : it->next;
        if (!retry_now(w, retry->bk)) continue;
        list_remove(&retry->link);
        mem_free(retry);
    }
}

static void deliver_retry(struct mail *m)
{
    struct retry *retry = container_of(m, struct retry, mail);
    struct worker *w = retry->worker;
    list_push_back(&w->sleepers.retries, &retry->link);
    sleepers_due(w, w->now_mono_ms + 1);
}

void blocking_retry(struct node *n, struct blocked_key *bk)
{
    struct retry *retry = mem_alloc(sizeof *retry);
    struct worker *w = n->workers[bk->key.slot % (unsigned)n->worker_count];
    *retry = (struct retry){.mail = {NULL, deliver_retry}, .worker = w, .bk = bk};
    loop_post(w->loop, &retry->mail);
}
