/* cut.c: the dataset at one moment, saved while it goes on changing, without a fork.
 *
 * A bucket carries the number of the newest cut for which it needs nothing any more: it was saved, or its entries were
 * marked, or it was made later.  A writer about to change a bucket with an older number first marks its entries with a
 * bit for each cut that needs them; from then on such an entry is replaced, never edited.  The walk of a cut saves all
 * entries of a bucket with an older number, and of any other those that are marked.  A marked entry that leaves its
 * place (replaced, deleted, or moved by a merge to where the walk may have been) is a stray: it goes to a list of its
 * table, and stays for the cut to free if it is in no table any more.  So a writer pays for seven bits a bucket, once a
 * cut, and never serializes anything.
 *
 * Strays take memory beyond the dataset, so they are saved before the walk goes on, once they take more than a little:
 * each cut has a queue of tables with strays.  What a snapshot keeps is then bounded by how much faster writers are
 * than the snapshot, not by what they change before the walk comes by.
 *
 * Numbers are 16 bits and wrap; they are compared as serial numbers (RFC 1982).  That is sound because every cut passes
 * every bucket, also one that is given up (store_cut_end() walks the rest), so no number gets old. */
#include "store/keyspace.h"

#include "base/mem.h"

struct cut {
    struct store *store;
    unsigned index; /* bit in the retained masks */
    uint16_t number;
    int *db_number; /* by physical database: the number clients used when the cut was made */
    int db;         /* physical; where the walk is */
    unsigned slot;
    uint32_t bucket;
    bool walked; /* all slots are behind us; only detached tables are left */

    /* Tables with strays of ours, by number: writers push on a stack, each under its slot's lock and when a list
     * begins; so a table is in it once.  Who walks takes the whole stack at a time. */
    _Atomic uint32_t queue; /* the newest, TABLE_NONE when empty */
    uint32_t **queue_next;  /* by physical database that holds keys, and slot */
    uint32_t taken;         /* what is left of the stack that was taken */
};

/* A value that takes long to save is forked under the lock and saved without it. */
struct pending {
    struct entry *forks[128];
    size_t n;
};

enum { LARGE_STRING = 16 * 1024, LARGE_EFFORT = 8, GIVE_UP_STEP = 256 * 1024, STRAYS_FIRST = 6, STRAYS_MOST = 500 };
static const uint32_t TABLE_NONE = UINT32_MAX;

static bool cut_before(uint16_t a, uint16_t b)
{
    return (int16_t)(uint16_t)(a - b) < 0;
}

static struct table *table_by_id(const struct store *s, uint32_t id)
{
    return &s->db[id / SLOT_COUNT]->tables[id % SLOT_COUNT];
}

static uint32_t *queue_link(const struct cut *c, uint32_t table_id)
{
    return &c->queue_next[table_id / SLOT_COUNT][table_id % SLOT_COUNT];
}

static bool needed(const struct entry *e, unsigned cut_index)
{
    return e->retained & 1u << cut_index;
}

static bool is_stray(const struct entry *e, unsigned cut_index)
{
    return e->retained & 1u << (cut_index + STRAY_SHIFT);
}

static void mark(const struct bucket *head, unsigned cut_index)
{
    for (const struct bucket *b = head; b; b = bucket_next(b))
        for (int i = 0; i < BUCKET_SLOTS && b->ptr[i]; i++)
            bucket_entry(b->ptr[i])->retained |= (uint8_t)(1u << cut_index);
}

static void prefetch(const struct bucket *b)
{
    for (int i = 0; i < BUCKET_SLOTS && b->ptr[i]; i++) __builtin_prefetch(bucket_entry(b->ptr[i]));
}

static void queue_push(struct cut *c, uint32_t table_id)
{
    uint32_t first = atomic_load_explicit(&c->queue, memory_order_relaxed);
    do *queue_link(c, table_id) = first;
    while (!atomic_compare_exchange_weak_explicit(&c->queue, &first, table_id, memory_order_release,
                                                  memory_order_relaxed));
}

static void list_stray(struct store *s, uint32_t table_id, struct entry *e, unsigned cut_index)
{
    struct strays **list = &table_extra_get(table_by_id(s, table_id))->strays[cut_index], *x = *list;
    if (!x) queue_push(s->cuts[cut_index], table_id);
    if (!x || x->n == x->cap) {
        uint32_t cap = !x ? STRAYS_FIRST : x->cap < STRAYS_MOST / 2 ? 2 * x->cap : STRAYS_MOST;
        struct strays *more = mem_alloc(sizeof *more + cap * sizeof more->entries[0]);
        *more = (struct strays){.next = x, .cap = cap};
        atomic_fetch_add_explicit(&s->retained_bytes, mem_size(more), memory_order_relaxed);
        *list = x = more;
    }
    x->entries[x->n++] = e;
    e->retained |= (uint8_t)(1u << (cut_index + STRAY_SHIFT));
}

static void list_for_all(struct store *s, uint32_t table_id, struct entry *e)
{
    for (unsigned i = 0; i < CUTS_MAX; i++)
        if (needed(e, i) && !is_stray(e, i)) list_stray(s, table_id, e, i);
}

void entry_orphan(struct store *s, uint32_t table_id, struct entry *e)
{
    e->flags |= ENTRY_ORPHAN;
    atomic_fetch_add_explicit(&s->retained_bytes, entry_own_bytes(e), memory_order_relaxed);
    list_for_all(s, table_id, e);
}

void table_list_last(struct store *s, uint32_t table_id)
{
    struct table *t = table_by_id(s, table_id);
    for (const struct bucket *b = table_bucket(t, t->bucket_count - 1); b; b = bucket_next(b))
        for (int i = 0; i < BUCKET_SLOTS && b->ptr[i]; i++) list_for_all(s, table_id, bucket_entry(b->ptr[i]));
}

/* Retains the bucket for every open cut that needs it and is older than `limit` (or is `limit`). */
static void retain_until(struct store *s, struct bucket *b, uint16_t limit, unsigned except)
{
    unsigned open = atomic_load_explicit(&s->cuts_open, memory_order_acquire);
    uint16_t saved = bucket_cut(b);
    prefetch(b);
    for (unsigned i = 0; i < CUTS_MAX; i++) {
        if (!(open & 1u << i) || i == except) continue;
        uint16_t number = atomic_load_explicit(&s->cut_number[i], memory_order_relaxed);
        if (cut_before(saved, number) && !cut_before(limit, number)) mark(b, i);
    }
    if (cut_before(saved, limit)) bucket_set_cut(b, limit);
}

void table_retain_bucket(struct store *s, struct table *t, uint32_t index)
{
    struct bucket *b = table_bucket(t, index);
    uint16_t newest = atomic_load_explicit(&s->cut_newest, memory_order_relaxed);
    if (bucket_cut(b) != newest) retain_until(s, b, newest, CUTS_MAX);
}

struct cut *store_cut_begin(struct store *s)
{
    unsigned open = atomic_load(&s->cuts_open), index = 0;
    while (index < CUTS_MAX && open & 1u << index) index++;
    if (index == CUTS_MAX) return NULL;
    struct cut *c = mem_calloc(1, sizeof *c);
    c->store = s;
    c->index = index;
    c->number = (uint16_t)(atomic_load(&s->cut_newest) + 1);
    atomic_init(&c->queue, TABLE_NONE);
    c->taken = TABLE_NONE;
    c->queue_next = mem_calloc((size_t)s->databases, sizeof *c->queue_next);
    for (int i = 0; i < s->databases; i++)
        if (atomic_load(&s->db[i]->used)) c->queue_next[i] = mem_alloc(SLOT_COUNT * sizeof **c->queue_next);
    c->db_number = mem_calloc((size_t)s->databases, sizeof *c->db_number);
    for (int i = 0; i < s->databases; i++) c->db_number[s->db_physical[i]] = i;
    pthread_mutex_lock(&s->detached_mu);
    s->cuts[index] = c;
    pthread_mutex_unlock(&s->detached_mu);
    atomic_store(&s->cut_number[index], c->number);
    atomic_store(&s->cut_newest, c->number);
    atomic_fetch_or(&s->cuts_open, 1u << index);
    return c;
}

static bool is_large(const struct entry *e)
{
    if (entry_type(e) == TYPE_STRING) return entry_string_len(e) > LARGE_STRING;
    return entry_free_effort(e) > LARGE_EFFORT;
}

/* Saves one entry now, or puts a fork of it aside.  *budget is what may still be done under the lock. */
static enum status save(struct cut *c, int db, struct entry *e, struct pending *p, size_t *budget, cut_visit *visit,
                        void *ctx)
{
    size_t cost = entry_type(e) == TYPE_STRING ? entry_string_len(e) + 128 : mem_size(e) + 64;
    *budget = *budget > cost ? *budget - cost : 0;
    if (!visit) return OK;
    if (is_large(e) && p->n < sizeof p->forks / sizeof p->forks[0]) {
        p->forks[p->n++] = entry_fork(e);
        return OK;
    }
    return visit(ctx, c->db_number[db], e);
}

static bool has_room(const struct pending *p, size_t budget)
{
    /* A chain can be longer than a bucket; 64 is far above what a random hash gives. */
    return budget > 0 && p->n + 64 < sizeof p->forks / sizeof p->forks[0];
}

/* e was saved for the cut, or it was given up. */
static void entry_done(struct cut *c, struct entry *e)
{
    e->retained &= (uint8_t) ~(1u << c->index | 1u << (c->index + STRAY_SHIFT));
    if (e->retained || !(e->flags & ENTRY_ORPHAN)) return;
    atomic_fetch_sub_explicit(&c->store->retained_bytes, entry_own_bytes(e), memory_order_relaxed);
    entry_dispose(c->store, e);
}

/* Saves and lets go of the table's strays. */
static enum status save_strays(struct cut *c, int db, struct table *t, struct pending *p, size_t *budget,
                               cut_visit *visit, void *ctx)
{
    if (!t->extra) return OK;
    struct strays **list = &t->extra->strays[c->index];
    for (struct strays *x; (x = *list);) {
        while (x->n) {
            if (!has_room(p, *budget)) return E_AGAIN;
            struct entry *e = x->entries[x->n - 1];
            enum status st = save(c, db, e, p, budget, visit, ctx);
            if (st != OK) return st;
            x->n--;
            entry_done(c, e);
        }
        *list = x->next;
        atomic_fetch_sub_explicit(&c->store->retained_bytes, mem_size(x), memory_order_relaxed);
        mem_free(x);
    }
    return OK;
}

static enum status save_bucket(struct cut *c, int db, struct bucket *head, struct pending *p, size_t *budget,
                               cut_visit *visit, void *ctx)
{
    bool all = cut_before(bucket_cut(head), c->number);
    /* Cuts between the bucket's and ours would be skipped by the new number. */
    if (all) retain_until(c->store, head, c->number, c->index);
    for (struct bucket *b = head; b; b = bucket_next(b)) {
        for (int i = 0; i < BUCKET_SLOTS && b->ptr[i]; i++) {
            struct entry *e = bucket_entry(b->ptr[i]);
            if (!all && (!needed(e, c->index) || is_stray(e, c->index))) continue;
            enum status st = save(c, db, e, p, budget, visit, ctx);
            if (st != OK) return st;
            e->retained &= (uint8_t) ~(1u << c->index);
        }
    }
    return OK;
}

/* One table from bucket *at on: OK when it is through, E_AGAIN when the budget is. */
static enum status save_table(struct cut *c, int db, struct table *t, uint32_t *at, struct pending *p, size_t *budget,
                              cut_visit *visit, void *ctx)
{
    for (; *at < t->bucket_count; ++*at) {
        if (!has_room(p, *budget)) return E_AGAIN;
        if (*at + 1 < t->bucket_count) prefetch(table_bucket(t, *at + 1));
        enum status st = save_bucket(c, db, table_bucket(t, *at), p, budget, visit, ctx);
        if (st != OK) return st;
    }
    return save_strays(c, db, t, p, budget, visit, ctx);
}

static enum status save_forks(struct cut *c, int db, struct pending *p, enum status st, cut_visit *visit, void *ctx)
{
    for (size_t i = 0; i < p->n; i++) {
        if (visit && (st == OK || st == E_AGAIN)) {
            enum status one = visit(ctx, c->db_number[db], p->forks[i]);
            if (one != OK) st = one;
        }
        entry_dispose(c->store, p->forks[i]);
    }
    p->n = 0;
    return st;
}

static void advance(struct cut *c)
{
    c->bucket = 0;
    if (++c->slot < SLOT_COUNT) return;
    c->slot = 0;
    if (++c->db == c->store->databases) c->walked = true;
}

/* The first detached table that still waits for this cut. */
static struct detached **detached_find(struct cut *c)
{
    struct detached **link = &c->store->detached;
    while (*link && !((*link)->pending & 1u << c->index)) link = &(*link)->next;
    return link;
}

static enum status step_detached(struct cut *c, size_t *budget, cut_visit *visit, void *ctx)
{
    struct store *s = c->store;
    struct pending p = {.n = 0};
    struct detached *gone = NULL;
    pthread_mutex_lock(&s->detached_mu);
    struct detached **link = detached_find(c), *d = *link;
    if (!d) {
        pthread_mutex_unlock(&s->detached_mu);
        return OK;
    }
    int db = d->db;
    enum status st = save_table(c, db, &d->table, &c->bucket, &p, budget, visit, ctx);
    if (st == OK) {
        c->bucket = 0;
        d->pending &= ~(1u << c->index);
        if (!d->pending) {
            *link = d->next;
            gone = d;
        }
        st = E_AGAIN; /* perhaps there is another table */
    }
    pthread_mutex_unlock(&s->detached_mu);
    st = save_forks(c, db, &p, st, visit, ctx);
    if (gone) store_table_free(&gone->table);
    return st;
}

/* The next table that has strays, which stays the next; TABLE_NONE when there is none. */
static uint32_t queue_first(struct cut *c)
{
    if (c->taken == TABLE_NONE) c->taken = atomic_exchange_explicit(&c->queue, TABLE_NONE, memory_order_acquire);
    return c->taken;
}

/* Strays out of turn, until they, and old parts of large values, take little: OK then, E_AGAIN when the budget is
 * through.  Perhaps others than ours take it, then it does no harm. */
static enum status step_strays(struct cut *c, size_t *budget, cut_visit *visit, void *ctx)
{
    struct store *s = c->store;
    while (store_retained_bytes(s) > STRAYS_SOON) {
        if (*budget == 0) return E_AGAIN;
        uint32_t id = queue_first(c);
        if (id == TABLE_NONE) return OK;
        uint32_t next = *queue_link(c, id); /* may be pushed again the moment its list is empty */
        int db = (int)(id / SLOT_COUNT);
        struct pending p = {.n = 0};
        pthread_rwlock_rdlock(&s->walk);
        slot_lock(s, id % SLOT_COUNT);
        enum status st = save_strays(c, db, table_by_id(s, id), &p, budget, visit, ctx);
        slot_unlock(s, id % SLOT_COUNT);
        pthread_rwlock_unlock(&s->walk);
        if (st == OK) c->taken = next;
        st = save_forks(c, db, &p, st, visit, ctx);
        if (st != OK && st != E_AGAIN) return st;
    }
    return OK;
}

enum status store_cut_step(struct cut *c, size_t bytes_max, cut_visit *visit, void *ctx)
{
    struct store *s = c->store;
    size_t budget = bytes_max;
    atomic_fetch_add_explicit(&s->cut_steps, 1, memory_order_relaxed);
    enum status strays = step_strays(c, &budget, visit, ctx);
    if (strays != OK) return strays;
    while (!c->walked && budget > 0) {
        if (!atomic_load(&s->db[c->db]->used)) {
            c->slot = SLOT_COUNT - 1;
            advance(c);
            continue;
        }
        struct pending p = {.n = 0};
        int db = c->db;
        pthread_rwlock_rdlock(&s->walk);
        slot_lock(s, c->slot);
        enum status st = save_table(c, db, &s->db[db]->tables[c->slot], &c->bucket, &p, &budget, visit, ctx);
        slot_unlock(s, c->slot);
        pthread_rwlock_unlock(&s->walk);
        if (st == OK) advance(c);
        st = save_forks(c, db, &p, st, visit, ctx);
        if (st != OK) return st;
    }
    if (!c->walked) return E_AGAIN;
    return step_detached(c, &budget, visit, ctx);
}

void store_cut_end(struct cut *c)
{
    struct store *s = c->store;
    bool done = false;
    while (!done) {
        while (store_cut_step(c, GIVE_UP_STEP, NULL, NULL) == E_AGAIN) {
        }
        /* A table may be detached until the cut's bit is gone; both happen under the mutex. */
        pthread_mutex_lock(&s->detached_mu);
        done = !*detached_find(c);
        if (done) {
            s->cuts[c->index] = NULL;
            atomic_fetch_and(&s->cuts_open, ~(1u << c->index));
        }
        pthread_mutex_unlock(&s->detached_mu);
    }
    mem_free(c->db_number);
    for (int i = 0; i < s->databases; i++) mem_free(c->queue_next[i]);
    mem_free(c->queue_next);
    mem_free(c);
}

size_t store_retained_bytes(const struct store *s)
{
    return atomic_load_explicit(&s->retained_bytes, memory_order_relaxed) + mem_kept();
}

uint64_t store_cut_steps(const struct store *s)
{
    return atomic_load_explicit(&s->cut_steps, memory_order_relaxed);
}

bool store_has_cut(const struct store *s)
{
    return atomic_load_explicit(&s->cuts_open, memory_order_relaxed) != 0;
}
