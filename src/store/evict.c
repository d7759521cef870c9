#include "store/evict.h"

#include "base/mem.h"
#include "store/keyspace.h"

enum {
    POOL_SIZE = 16,
    WEIGHTS_FOR_MS = 100, /* counting costs a tenth of a millisecond */
    MISSES_MAX = 32,      /* looks in vain after which the weights are taken for wrong */
    LOOKS_MAX = 96,       /* buckets looked at by chance for one eviction */
    SWEEP_BUCKETS = 1024, /* buckets looked at in turn where chance has found nothing */
    SPINS_MAX = 200,      /* as a command does */
    FULL_BUCKET = 21,     /* keys of a bucket among which EVICT_BY_CHANCE draws; hardly any chain is longer */
    CHANCE_TRIES = 512,
};

struct candidate {
    uint64_t score; /* the higher the better a victim */
    int db;
    struct key key; /* owns its name */
};

/* Buckets of one database up to and including each slot. */
struct weights {
    int db;
    uint64_t total;
    uint64_t upto[SLOT_COUNT];
};

struct evictor {
    struct store *store;
    struct random rng;
    struct weights **weights; /* of databases that hold keys */
    size_t weights_n, weights_cap;
    uint64_t total; /* buckets, all databases */
    int64_t counted_ms;
    unsigned misses;
    enum evict_by by; /* what pool and weights were made for */
    bool volatile_only;
    struct candidate pool[POOL_SIZE]; /* ascending scores */
    size_t pool_n;
    int sweep_db;
    unsigned sweep_slot;
    uint32_t sweep_bucket;
};

static void pool_clear(struct evictor *v)
{
    while (v->pool_n) mem_free((void *)(uintptr_t)v->pool[--v->pool_n].key.name.p);
}

void evictor_destroy(struct evictor *v)
{
    pool_clear(v);
    for (size_t i = 0; i < v->weights_cap; i++) mem_free(v->weights[i]);
    mem_free(v->weights);
    mem_free(v);
}

/* ---- choosing buckets ---- */

static uint64_t slot_weight(const struct table *t, bool volatile_only)
{
    const _Atomic size_t *keys = volatile_only ? &t->ttl_count : &t->count;
    if (atomic_load_explicit(keys, memory_order_relaxed) == 0) return 0;
    return atomic_load_explicit(&t->bucket_count, memory_order_relaxed);
}

static struct weights *weights_next(struct evictor *v)
{
    if (v->weights_n == v->weights_cap) {
        v->weights_cap = v->weights_cap ? 2 * v->weights_cap : 1;
        v->weights = mem_realloc(v->weights, v->weights_cap * sizeof(struct weights *));
        for (size_t i = v->weights_n; i < v->weights_cap; i++) v->weights[i] = NULL;
    }
    if (!v->weights[v->weights_n]) v->weights[v->weights_n] = mem_alloc(sizeof(struct weights));
    return v->weights[v->weights_n];
}

struct evictor *evictor_create(struct store *s, uint64_t seed)
{
    struct evictor *v = mem_calloc(1, sizeof *v);
    v->store = s;
    random_seed(&v->rng, seed);
    v->counted_ms = INT64_MIN / 2;
    weights_next(v); /* now, and not when memory is short */
    return v;
}

static void count_weights(struct evictor *v, const struct evict_policy *p)
{
    struct store *s = v->store;
    v->weights_n = 0;
    v->total = 0;
    v->misses = 0;
    v->counted_ms = p->now_ms;
    for (int db = 0; db < s->databases; db++) {
        size_t keys = p->volatile_only ? store_db_ttl_count(s, db) : store_db_count(s, db);
        if (keys == 0) continue;
        struct weights *w = weights_next(v);
        w->db = db;
        w->total = 0;
        for (unsigned slot = 0; slot < SLOT_COUNT; slot++) {
            w->total += slot_weight(store_table(s, db, slot), p->volatile_only);
            w->upto[slot] = w->total;
        }
        if (w->total) v->weights_n++;
        v->total += w->total;
    }
}

static unsigned slot_at(const struct weights *w, uint64_t at)
{
    unsigned low = 0, high = SLOT_COUNT - 1;
    while (low < high) {
        unsigned mid = (low + high) / 2;
        if (w->upto[mid] > at)
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

/* The lock of a slot that is worth locking, or false. */
static bool lock_briefly(struct store *s, unsigned slot)
{
    for (int i = 0; i < SPINS_MAX; i++)
        if (slot_try_lock(s, slot)) return true;
    return false;
}

/* Chooses a bucket and locks its slot; NULL when it is not there any more, or *busy: then to choose another one would
 * favour the keys of slots that are seldom busy. */
static const struct bucket *choose_bucket(struct evictor *v, int *db, unsigned *slot, bool *busy)
{
    uint64_t at = random_below(&v->rng, v->total);
    size_t i = 0;
    while (at >= v->weights[i]->total) at -= v->weights[i++]->total;
    *db = v->weights[i]->db;
    *slot = slot_at(v->weights[i], at);
    *busy = !lock_briefly(v->store, *slot);
    if (*busy) return NULL;
    const struct table *t = store_table(v->store, *db, *slot);
    uint32_t buckets = t->bucket_count;
    if (buckets && slot_weight(t, v->volatile_only)) return table_bucket(t, (uint32_t)random_below(&v->rng, buckets));
    slot_unlock(v->store, *slot);
    v->misses++;
    return NULL;
}

typedef void look_fn(void *ctx, int db, struct entry *e);

static size_t look_at_bucket(const struct bucket *head, bool volatile_only, int db, look_fn *seen, void *ctx)
{
    size_t n = 0;
    for (int i = 0; i < BUCKET_SLOTS && head->ptr[i]; i++) __builtin_prefetch(bucket_entry(head->ptr[i]));
    for (const struct bucket *b = head; b; b = bucket_next(b)) {
        for (int i = 0; i < BUCKET_SLOTS && b->ptr[i]; i++) {
            struct entry *e = bucket_entry(b->ptr[i]);
            if (volatile_only && !entry_has_ttl(e)) continue;
            n++;
            seen(ctx, db, e);
        }
    }
    return n;
}

/* Brings weights and pool in line with the policy; false: there is nothing to choose from. */
static bool prepare(struct evictor *v, const struct evict_policy *p)
{
    bool other = v->by != p->by || v->volatile_only != p->volatile_only;
    if (other) {
        pool_clear(v);
        v->by = p->by;
        v->volatile_only = p->volatile_only;
    }
    bool old = p->now_ms - v->counted_ms >= WEIGHTS_FOR_MS || p->now_ms < v->counted_ms;
    if (other || old || v->misses >= MISSES_MAX || v->total == 0) count_weights(v, p);
    return v->total > 0;
}

static size_t look(struct evictor *v, look_fn *seen, void *ctx, bool *busy)
{
    int db;
    unsigned slot;
    const struct bucket *b = choose_bucket(v, &db, &slot, busy);
    if (!b) return 0;
    size_t n = look_at_bucket(b, v->volatile_only, db, seen, ctx);
    slot_unlock(v->store, slot);
    return n;
}

size_t evict_look(struct evictor *v, const struct evict_policy *p, look_fn *seen, void *ctx)
{
    bool busy;
    return prepare(v, p) ? look(v, seen, ctx, &busy) : 0;
}

/* ---- the pool ---- */

static uint64_t score_of(const struct evict_policy *p, const struct entry *e)
{
    switch (p->by) {
    case EVICT_BY_LRU: return lru_idle(entry_lru(e), lru_clock_of(p->now_ms));
    case EVICT_BY_LFU: return LFU_MAX - lfu_counter(&p->lfu, entry_lru(e), lfu_clock_of(p->now_ms));
    case EVICT_BY_TTL: return UINT64_MAX - (uint64_t)entry_expire_at(e);
    case EVICT_BY_CHANCE: break;
    }
    return 0;
}

static bool pool_holds(const struct evictor *v, int db, struct bytes name)
{
    for (size_t i = 0; i < v->pool_n; i++)
        if (v->pool[i].db == db && bytes_eq(v->pool[i].key.name, name)) return true;
    return false;
}

static struct candidate pool_take(struct evictor *v, size_t at)
{
    struct candidate c = v->pool[at];
    memmove(v->pool + at, v->pool + at + 1, (--v->pool_n - at) * sizeof *v->pool);
    return c;
}

struct sampling {
    struct evictor *v;
    const struct evict_policy *policy;
};

static void consider(void *ctx, int db, struct entry *e)
{
    struct sampling *s = ctx;
    struct evictor *v = s->v;
    uint64_t score = score_of(s->policy, e);
    struct bytes name = entry_key(e);
    if (v->pool_n == POOL_SIZE && score <= v->pool[0].score) return;
    if (pool_holds(v, db, name)) return;
    char *copy = mem_try_alloc(name.n);
    if (!copy) return;
    if (name.n) memcpy(copy, name.p, name.n);
    if (v->pool_n == POOL_SIZE) mem_free((void *)(uintptr_t)pool_take(v, 0).key.name.p);
    size_t at = v->pool_n;
    while (at > 0 && v->pool[at - 1].score > score) at--;
    memmove(v->pool + at + 1, v->pool + at, (v->pool_n++ - at) * sizeof *v->pool);
    v->pool[at] = (struct candidate){score, db, key_of(bytes_make(copy, name.n))};
}

/* Where few keys of many may go, chance finds none of them: walks on from where the last walk ended. */
static size_t sweep(struct evictor *v, look_fn *seen, void *ctx)
{
    struct store *s = v->store;
    unsigned budget = SWEEP_BUCKETS;
    for (unsigned steps = 0; steps <= 2 * SLOT_COUNT && budget; steps++) {
        if (v->sweep_slot >= SLOT_COUNT) {
            v->sweep_slot = 0;
            v->sweep_db++;
        }
        if (v->sweep_db >= s->databases) v->sweep_db = 0;
        const struct table *t = store_table(s, v->sweep_db, v->sweep_slot);
        size_t n = 0;
        if (slot_weight(t, v->volatile_only) && lock_briefly(s, v->sweep_slot)) {
            while (budget && n == 0 && v->sweep_bucket < t->bucket_count) {
                n = look_at_bucket(table_bucket(t, v->sweep_bucket++), v->volatile_only, v->sweep_db, seen, ctx);
                budget--;
            }
            bool more = v->sweep_bucket < t->bucket_count;
            slot_unlock(s, v->sweep_slot);
            if (n || more) return n;
        }
        v->sweep_bucket = 0;
        if (store_db_count(s, v->sweep_db) == 0)
            v->sweep_slot = SLOT_COUNT;
        else
            v->sweep_slot++;
    }
    return 0;
}

static void fill_pool(struct evictor *v, const struct evict_policy *p)
{
    struct sampling s = {v, p};
    size_t seen = 0;
    bool busy = false;
    for (int i = 0; i < LOOKS_MAX && seen < p->samples && !busy; i++) seen += look(v, consider, &s, &busy);
    if (seen == 0 && v->pool_n == 0 && !busy) sweep(v, consider, &s);
}

/* Hands the best candidate over that is still there and has not been used since it was seen. */
static bool pool_evict(struct evictor *v, const struct evict_policy *p,
                       void (*victim)(void *ctx, int db, const struct key *k, struct entry *e), void *ctx)
{
    bool done = false;
    while (!done && v->pool_n) {
        if (!lock_briefly(v->store, v->pool[v->pool_n - 1].key.slot)) return false; /* it stays the best */
        struct candidate c = pool_take(v, v->pool_n - 1);
        struct entry *e = c.db < v->store->databases ? store_find(v->store, c.db, &c.key) : NULL;
        done = e && (!p->volatile_only || entry_has_ttl(e)) && score_of(p, e) >= c.score;
        if (done) victim(ctx, c.db, &c.key, e);
        slot_unlock(v->store, c.key.slot);
        mem_free((void *)(uintptr_t)c.key.name.p);
    }
    return done;
}

/* ---- by chance ---- */

struct drawing {
    struct evictor *v;
    uint64_t at, n;
    struct entry *drawn;
};

static void draw(void *ctx, int db, struct entry *e)
{
    struct drawing *d = ctx;
    if (d->n++ == d->at) d->drawn = e;
}

static void hand_over(struct evictor *v, int db, struct entry *e,
                      void (*victim)(void *ctx, int db, const struct key *k, struct entry *e), void *ctx)
{
    struct key k = key_of(entry_key(e));
    victim(ctx, db, &k, e);
}

/* Each place of a bucket is as likely as any other, empty ones too: so each key is as likely as any other. */
static bool chance_evict(struct evictor *v, const struct evict_policy *p, bool *busy,
                         void (*victim)(void *ctx, int db, const struct key *k, struct entry *e), void *ctx)
{
    *busy = false;
    for (int i = 0; i < CHANCE_TRIES && !*busy; i++) {
        int db;
        unsigned slot;
        if (v->misses >= MISSES_MAX) count_weights(v, p);
        if (v->total == 0) return false;
        const struct bucket *b = choose_bucket(v, &db, &slot, busy);
        if (!b) continue;
        struct drawing d = {v, random_below(&v->rng, FULL_BUCKET), 0, NULL};
        look_at_bucket(b, v->volatile_only, db, draw, &d);
        if (d.drawn) hand_over(v, db, d.drawn, victim, ctx);
        slot_unlock(v->store, slot);
        if (d.drawn) return true;
    }
    return false;
}

static void sweep_one(void *ctx, int db, struct entry *e)
{
    struct sampling *s = ctx;
    if (s->v->pool_n == 0) consider(ctx, db, e);
}

static bool may_evict(const struct evictor *v, const struct evict_policy *p)
{
    for (int db = 0; db < v->store->databases; db++)
        if (p->volatile_only ? store_db_ttl_count(v->store, db) : store_db_count(v->store, db)) return true;
    return false;
}

enum evict_result evict_one(struct evictor *v, const struct evict_policy *p,
                            void (*victim)(void *ctx, int db, const struct key *k, struct entry *e), void *ctx)
{
    bool done = false;
    if (prepare(v, p)) {
        if (p->by == EVICT_BY_CHANCE) {
            bool busy;
            done = chance_evict(v, p, &busy, victim, ctx);
            struct sampling s = {v, p};
            if (!done && !busy) sweep(v, sweep_one, &s);
        } else {
            fill_pool(v, p);
        }
        if (!done) done = pool_evict(v, p, victim, ctx);
    }
    if (done) return EVICT_ONE;
    return may_evict(v, p) ? EVICT_LATER : EVICT_NOTHING;
}
