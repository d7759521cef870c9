#include "store/keyspace.h"

#include "base/mem.h"

#include <sched.h>
#include <sys/mman.h>

#define SLOT_FREE 0u
#define SLOT_HELD 1u
#define SLOT_WAITED 2u

enum { SPINS_MAX = 200 };

struct store *store_create(int databases, struct store_hooks hooks)
{
    struct store *s = mem_calloc(1, sizeof *s);
    s->databases = databases;
    s->hooks = hooks;
    s->db = mem_calloc((size_t)databases, sizeof *s->db);
    s->db_physical = mem_calloc((size_t)databases, sizeof *s->db_physical);
    pthread_mutex_init(&s->detached_mu, NULL);
    /* Steps follow one another closely: without this preference two of them could keep everybody else waiting. */
    pthread_rwlockattr_t attr;
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&s->walk, &attr);
    pthread_rwlockattr_destroy(&attr);
    for (int i = 0; i < databases; i++) {
        s->db_physical[i] = i;
        /* Untouched pages of a database nobody uses cost nothing this way. */
        s->db[i] = mmap(NULL, sizeof *s->db[i], PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (s->db[i] == MAP_FAILED) mem_abort(sizeof *s->db[i]);
    }
    return s;
}

void store_destroy(struct store *s)
{
    assert(!atomic_load(&s->cuts_open));
    for (int i = 0; i < s->databases; i++) {
        if (atomic_load(&s->db[i]->used)) mem_note_foreign(-(int64_t)sizeof *s->db[i]);
        if (atomic_load(&s->db[i]->used))
            for (unsigned slot = 0; slot < SLOT_COUNT; slot++) table_clear(&s->db[i]->tables[slot]);
        munmap(s->db[i], sizeof *s->db[i]);
    }
    pthread_rwlock_destroy(&s->walk);
    pthread_mutex_destroy(&s->detached_mu);
    mem_free(s->db);
    mem_free(s->db_physical);
    mem_free(s);
}

int store_databases(const struct store *s)
{
    return s->databases;
}

/* ---- locks ---- */

bool slot_try_lock(struct store *s, unsigned slot)
{
    uint32_t expected = SLOT_FREE;
    return atomic_compare_exchange_strong_explicit(&s->locks[slot], &expected, SLOT_HELD, memory_order_acquire,
                                                   memory_order_relaxed);
}

bool slot_mark_waited(struct store *s, unsigned slot)
{
    uint32_t seen = SLOT_HELD;
    if (atomic_compare_exchange_strong(&s->locks[slot], &seen, SLOT_WAITED)) return true;
    return seen == SLOT_WAITED;
}

void slot_unlock(struct store *s, unsigned slot)
{
    uint32_t was = atomic_exchange_explicit(&s->locks[slot], SLOT_FREE, memory_order_release);
    assert(was != SLOT_FREE);
    if (was == SLOT_WAITED && s->hooks.slot_released) s->hooks.slot_released(s->hooks.ctx, slot);
}

static void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

bool slot_try_lock_spinning(struct store *s, unsigned slot)
{
    for (int i = 0; i < SPINS_MAX; i++) {
        if (slot_try_lock(s, slot)) return true;
        cpu_relax();
    }
    return false;
}

void slot_lock(struct store *s, unsigned slot)
{
    for (unsigned spins = 0; !slot_try_lock(s, slot); spins++) {
        if (spins < 1000)
            cpu_relax();
        else
            sched_yield();
    }
}

void store_walks_stop(struct store *s)
{
    pthread_rwlock_wrlock(&s->walk);
    s->walks_stopped = true;
}

bool store_walks_go(struct store *s)
{
    if (!s->walks_stopped) return false;
    s->walks_stopped = false;
    pthread_rwlock_unlock(&s->walk);
    return true;
}

/* ---- keys ---- */

void store_prefetch_slot(const struct store *s, int db, const struct key *k)
{
    __builtin_prefetch(&s->locks[k->slot], 1);
    __builtin_prefetch(store_table(s, db, k->slot));
}

void store_prefetch_bucket(const struct store *s, int db, const struct key *k)
{
    struct store *unlocked = (struct store *)(uintptr_t)s; /* only the lock word changes */
    const struct table *t = store_table(s, db, k->slot);
    uint32_t index = table_index(t, k->hash);
    const struct bucket *first = t->first;
    if (index < SEGMENT_BUCKETS) {
        /* No more than an address: it does not matter if the table is being changed. */
        if (first) __builtin_prefetch(first + index);
        return;
    }
    if (!slot_try_lock(unlocked, k->slot)) return;
    if (t->bucket_count) __builtin_prefetch(table_bucket(t, table_index(t, k->hash)));
    slot_unlock(unlocked, k->slot);
}

void store_prefetch_entry(const struct store *s, int db, const struct key *k)
{
    struct store *unlocked = (struct store *)(uintptr_t)s;
    const struct table *t = store_table(s, db, k->slot);
    if (!slot_try_lock(unlocked, k->slot)) return;
    if (t->bucket_count) {
        const struct bucket *b = table_bucket(t, table_index(t, k->hash));
        for (int i = 0; i < BUCKET_SLOTS; i++)
            if (b->ptr[i] >> 48 == k->hash >> 48) __builtin_prefetch(bucket_entry(b->ptr[i]));
    }
    slot_unlock(unlocked, k->slot);
}

struct entry *store_find(const struct store *s, int db, const struct key *k)
{
    uint64_t *ref = table_find(store_table(s, db, k->slot), k->name, k->hash);
    return ref ? bucket_entry(*ref) : NULL;
}

void entry_dispose(struct store *s, struct entry *e)
{
    if (s->hooks.dispose && entry_free_effort(e) > LAZYFREE_THRESHOLD)
        s->hooks.dispose(s->hooks.ctx, e);
    else
        entry_free(e);
}

void entry_release(struct store *s, uint32_t table_id, struct entry *e)
{
    if (e->retained)
        entry_orphan(s, table_id, e);
    else
        entry_dispose(s, e);
}

/* The entry at ref, after making sure that no cut holds it too. */
static struct entry *entry_privatize(struct store *s, uint32_t table_id, uint64_t *ref, uint64_t hash)
{
    struct entry *e = bucket_entry(*ref);
    if (!e->retained) return e;
    struct entry *mine = entry_fork(e);
    *ref = entry_tagged(mine, hash);
    entry_release(s, table_id, e);
    return mine;
}

struct entry *store_edit(struct store *s, int db, const struct key *k)
{
    struct table *t = store_table(s, db, k->slot);
    uint64_t *ref = table_find(t, k->name, k->hash);
    if (!ref) return NULL;
    table_touch(s, t, table_index(t, k->hash));
    return entry_privatize(s, store_table_id(s, db, k->slot), ref, k->hash);
}

struct entry *store_edit_found(struct store *s, int db, const struct key *k, struct entry *e)
{
    bool nobody_else = !e->retained && !atomic_load_explicit(&s->cuts_open, memory_order_relaxed);
    return nobody_else ? e : store_edit(s, db, k);
}

static void count_keys(struct store *s, int db, unsigned slot, size_t keys, size_t ttls)
{
    struct db *d = s->db[s->db_physical[db]];
    if (keys) atomic_fetch_add_explicit(&d->counters[slot % COUNTER_STRIPES].keys, keys, memory_order_relaxed);
    if (ttls) atomic_fetch_add_explicit(&d->counters[slot % COUNTER_STRIPES].ttls, ttls, memory_order_relaxed);
}

/* Accounts for an entry that comes into (sign 1) or goes out of (sign -1) a table. */
static void count_ttl(struct store *s, int db, unsigned slot, struct table *t, const struct entry *e, int sign)
{
    if (!entry_has_ttl(e)) return;
    if (sign > 0) {
        int64_t at = entry_expire_at(e);
        size_t had = atomic_load_explicit(&t->ttl_count, memory_order_relaxed);
        if (had == 0 || at < atomic_load_explicit(&t->ttl_min, memory_order_relaxed))
            atomic_store_explicit(&t->ttl_min, at, memory_order_relaxed);
        if (t->extra && at < t->extra->expire_min) t->extra->expire_min = at;
    }
    table_add(&t->ttl_count, (size_t)sign);
    count_keys(s, db, slot, 0, (size_t)sign);
}

static void grow_if_wanted(struct store *s, struct table *t)
{
    for (int i = 0; i < 2 && table_wants_growth(t); i++) {
        table_touch(s, t, table_split_index(t));
        table_split_one(t);
    }
}

static void shrink_if_wanted(struct store *s, int db, unsigned slot)
{
    struct table *t = store_table(s, db, slot);
    if (!table_wants_shrinking(t)) return;
    table_touch(s, t, t->bucket_count - 1);
    table_touch(s, t, table_merge_parent(t));
    if (atomic_load_explicit(&s->cuts_open, memory_order_relaxed)) table_list_last(s, store_table_id(s, db, slot));
    table_merge_one(t);
}

void store_put(struct store *s, int db, const struct key *k, struct entry *e)
{
    struct table *t = store_table(s, db, k->slot);
    uint64_t *ref = table_find(t, k->name, k->hash);
    if (t->bucket_count) table_touch(s, t, table_index(t, k->hash));
    if (ref) {
        struct entry *old = bucket_entry(*ref);
        *ref = entry_tagged(e, k->hash);
        count_ttl(s, db, k->slot, t, old, -1);
        count_ttl(s, db, k->slot, t, e, 1);
        entry_release(s, store_table_id(s, db, k->slot), old);
        return;
    }
    struct db *d = s->db[s->db_physical[db]];
    if (!atomic_load_explicit(&d->used, memory_order_relaxed) && !atomic_exchange(&d->used, true))
        mem_note_foreign(sizeof *d); /* from now on its pages are there */
    table_insert(t, e, k->hash, atomic_load_explicit(&s->cut_newest, memory_order_relaxed));
    count_keys(s, db, k->slot, 1, 0);
    count_ttl(s, db, k->slot, t, e, 1);
    grow_if_wanted(s, t);
}

struct entry *store_take(struct store *s, int db, const struct key *k)
{
    struct table *t = store_table(s, db, k->slot);
    uint64_t *ref = table_find(t, k->name, k->hash);
    if (!ref) return NULL;
    table_touch(s, t, table_index(t, k->hash));
    struct entry *e = entry_privatize(s, store_table_id(s, db, k->slot), ref, k->hash);
    table_remove(t, ref, k->hash);
    count_keys(s, db, k->slot, (size_t)-1, 0);
    count_ttl(s, db, k->slot, t, e, -1);
    shrink_if_wanted(s, db, k->slot);
    return e;
}

bool store_delete(struct store *s, int db, const struct key *k)
{
    struct table *t = store_table(s, db, k->slot);
    uint64_t *ref = table_find(t, k->name, k->hash);
    if (!ref) return false;
    table_touch(s, t, table_index(t, k->hash));
    struct entry *e = bucket_entry(*ref);
    table_remove(t, ref, k->hash);
    count_keys(s, db, k->slot, (size_t)-1, 0);
    count_ttl(s, db, k->slot, t, e, -1);
    entry_release(s, store_table_id(s, db, k->slot), e);
    shrink_if_wanted(s, db, k->slot);
    return true;
}

struct entry *store_set_expire(struct store *s, int db, const struct key *k, int64_t expire_at_ms)
{
    struct table *t = store_table(s, db, k->slot);
    uint64_t *ref = table_find(t, k->name, k->hash);
    if (!ref) return NULL;
    table_touch(s, t, table_index(t, k->hash));
    struct entry *e = entry_privatize(s, store_table_id(s, db, k->slot), ref, k->hash);
    count_ttl(s, db, k->slot, t, e, -1);
    e = entry_with_expire(e, expire_at_ms);
    *ref = entry_tagged(e, k->hash);
    count_ttl(s, db, k->slot, t, e, 1);
    return e;
}

uint64_t store_scan_slot(const struct store *s, int db, unsigned slot, uint64_t cursor,
                         void (*visit)(void *ctx, struct entry *e), void *ctx)
{
    return table_scan(store_table(s, db, slot), cursor, visit, ctx);
}

size_t store_key_share(const struct store *s, int db, unsigned slot)
{
    return table_share(store_table(s, db, slot));
}

size_t store_slot_count(const struct store *s, int db, unsigned slot)
{
    return table_count(store_table(s, db, slot));
}

struct entry *store_random_in_slot(const struct store *s, int db, unsigned slot, struct random *r)
{
    const struct table *t = store_table(s, db, slot);
    if (table_count(t) == 0) return NULL;
    uint32_t index = (uint32_t)random_below(r, t->bucket_count);
    while (!table_bucket(t, index)->ptr[0]) index = (index + 1) % t->bucket_count; /* some bucket holds a key */
    size_t n = 0;
    struct entry *pick = NULL;
    for (const struct bucket *b = table_bucket(t, index); b; b = bucket_next(b))
        for (int i = 0; i < BUCKET_SLOTS && b->ptr[i]; i++)
            if (random_below(r, ++n) == 0) pick = bucket_entry(b->ptr[i]);
    return pick;
}

/* ---- databases ---- */

size_t store_db_count(const struct store *s, int db)
{
    const struct db *d = s->db[s->db_physical[db]];
    size_t n = 0;
    for (int i = 0; i < COUNTER_STRIPES; i++) n += atomic_load_explicit(&d->counters[i].keys, memory_order_relaxed);
    return n;
}

size_t store_db_ttl_count(const struct store *s, int db)
{
    const struct db *d = s->db[s->db_physical[db]];
    size_t n = 0;
    for (int i = 0; i < COUNTER_STRIPES; i++) n += atomic_load_explicit(&d->counters[i].ttls, memory_order_relaxed);
    return n;
}

void store_swap(struct store *s, int a, int b)
{
    int physical = s->db_physical[a];
    s->db_physical[a] = s->db_physical[b];
    s->db_physical[b] = physical;
}

size_t store_db_overhead(const struct store *s, int db)
{
    const struct db *d = s->db[s->db_physical[db]];
    size_t buckets = 0;
    if (!atomic_load_explicit(&d->used, memory_order_relaxed)) return 0;
    for (unsigned slot = 0; slot < SLOT_COUNT; slot++)
        buckets += atomic_load_explicit(&d->tables[slot].bucket_count, memory_order_relaxed);
    return buckets * sizeof(struct bucket) + sizeof d->tables;
}

size_t store_overhead(const struct store *s)
{
    size_t n = 0;
    for (int db = 0; db < s->databases; db++) n += store_db_overhead(s, db);
    return n;
}

struct table *store_detach_slot(struct store *s, int db, unsigned slot)
{
    struct table *t = store_table(s, db, slot);
    if (t->bucket_count == 0 && !table_has_strays(t)) return NULL;
    size_t ttls = atomic_load_explicit(&t->ttl_count, memory_order_relaxed);
    count_keys(s, db, slot, 0 - table_count(t), 0 - ttls);
    struct detached *d = mem_calloc(1, sizeof *d);
    memcpy(&d->table, t, sizeof *t);
    table_forget(t);
    d->db = s->db_physical[db];
    d->slot = slot;
    pthread_mutex_lock(&s->detached_mu);
    d->pending = atomic_load(&s->cuts_open);
    bool wanted = d->pending;
    if (wanted) {
        d->next = s->detached;
        s->detached = d;
    }
    pthread_mutex_unlock(&s->detached_mu);
    return wanted ? NULL : &d->table;
}

void store_table_free(struct table *t)
{
    if (!t) return;
    struct detached *d = (struct detached *)(void *)((char *)t - offsetof(struct detached, table));
    table_clear(&d->table);
    mem_free(d);
}
