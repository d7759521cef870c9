/* cut.c: the dataset at one moment, saved while it goes on changing, without a fork.
 *
 * A bucket carries the number of the newest cut for which it needs nothing any more: it was saved, or its entries were
 * retained, or it was made later.  A writer about to change a bucket with an older number first keeps pointers to its
 * entries in the table's list of retained ones; from then on such an entry is replaced, never edited, and if it is
 * replaced it stays for the cut to free.  So a writer pays for seven pointers a bucket, once a cut, and never
 * serializes anything.
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
};

/* A value that takes long to save is forked under the lock and saved without it. */
struct pending {
    struct entry *forks[128];
    size_t n;
};

enum { LARGE_STRING = 16 * 1024, LARGE_EFFORT = 8, GIVE_UP_STEP = 256 * 1024 };

static bool cut_before(uint16_t a, uint16_t b)
{
    return (int16_t)(uint16_t)(a - b) < 0;
}

static void retain(struct store *s, struct table *t, const struct bucket *head, unsigned cut_index)
{
    uint32_t n = 0;
    for (const struct bucket *b = head; b; b = bucket_next(b))
        for (int i = 0; i < BUCKET_SLOTS && b->ptr[i]; i++) n++;
    if (n == 0) return;
    struct retained *r = mem_alloc(sizeof *r + n * sizeof r->entries[0]);
    r->cut_index = (uint8_t)cut_index;
    r->n = 0;
    for (const struct bucket *b = head; b; b = bucket_next(b)) {
        for (int i = 0; i < BUCKET_SLOTS && b->ptr[i]; i++) {
            struct entry *e = bucket_entry(b->ptr[i]);
            e->retained |= (uint8_t)(1u << cut_index);
            r->entries[r->n++] = e;
        }
    }
    struct table_extra *x = table_extra_get(t);
    r->next = x->retained;
    x->retained = r;
    atomic_fetch_add_explicit(&s->retained_bytes, mem_size(r), memory_order_relaxed);
}

/* Retains the bucket for every open cut that needs it and is older than `limit` (or is `limit`). */
static void retain_until(struct store *s, struct table *t, struct bucket *b, uint16_t limit, unsigned except)
{
    unsigned open = atomic_load_explicit(&s->cuts_open, memory_order_acquire);
    uint16_t saved = bucket_cut(b);
    for (unsigned i = 0; i < CUTS_MAX; i++) {
        if (!(open & 1u << i) || i == except) continue;
        uint16_t number = atomic_load_explicit(&s->cut_number[i], memory_order_relaxed);
        if (cut_before(saved, number) && !cut_before(limit, number)) retain(s, t, b, i);
    }
    if (cut_before(saved, limit)) bucket_set_cut(b, limit);
}

void table_retain_bucket(struct store *s, struct table *t, uint32_t index)
{
    struct bucket *b = table_bucket(t, index);
    uint16_t newest = atomic_load_explicit(&s->cut_newest, memory_order_relaxed);
    if (bucket_cut(b) != newest) retain_until(s, t, b, newest, CUTS_MAX);
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
    size_t cost = mem_size(e) + 64;
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

static void retained_entry_done(struct store *s, struct entry *e, unsigned index)
{
    e->retained &= (uint8_t) ~(1u << index);
    if (e->retained || !(e->flags & ENTRY_ORPHAN)) return;
    atomic_fetch_sub_explicit(&s->retained_bytes, entry_own_bytes(e), memory_order_relaxed);
    entry_dispose(s, e);
}

/* Saves and lets go of what the table retained for this cut. */
static enum status save_retained(struct cut *c, int db, struct table *t, struct pending *p, size_t *budget,
                                 cut_visit *visit, void *ctx)
{
    if (!t->extra) return OK;
    for (struct retained **link = &t->extra->retained; *link;) {
        struct retained *r = *link;
        if (r->cut_index != c->index) {
            link = &r->next;
            continue;
        }
        while (r->n) {
            if (!has_room(p, *budget)) return E_AGAIN;
            struct entry *e = r->entries[r->n - 1];
            enum status st = save(c, db, e, p, budget, visit, ctx);
            if (st != OK) return st;
            r->n--;
            retained_entry_done(c->store, e, c->index);
        }
        *link = r->next;
        atomic_fetch_sub_explicit(&c->store->retained_bytes, mem_size(r), memory_order_relaxed);
        mem_free(r);
    }
    return OK;
}

static enum status save_bucket(struct cut *c, int db, struct table *t, struct bucket *head, struct pending *p,
                               size_t *budget, cut_visit *visit, void *ctx)
{
    if (!cut_before(bucket_cut(head), c->number)) return OK;
    /* Cuts between the bucket's and ours would be skipped by the new number. */
    retain_until(c->store, t, head, c->number, c->index);
    for (struct bucket *b = head; b; b = bucket_next(b)) {
        for (int i = 0; i < BUCKET_SLOTS && b->ptr[i]; i++) {
            enum status st = save(c, db, bucket_entry(b->ptr[i]), p, budget, visit, ctx);
            if (st != OK) return st;
        }
    }
    return OK;
}

/* One table from bucket *at on: OK when it is through, E_AGAIN when the budget is. */
static enum status save_table(struct cut *c, int db, struct table *t, uint32_t *at, struct pending *p, size_t *budget,
                              cut_visit *visit, void *ctx)
{
    enum status st = save_retained(c, db, t, p, budget, visit, ctx);
    for (; st == OK && *at < t->bucket_count; ++*at) {
        if (!has_room(p, *budget)) return E_AGAIN;
        st = save_bucket(c, db, t, table_bucket(t, *at), p, budget, visit, ctx);
    }
    return st;
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

enum status store_cut_step(struct cut *c, size_t bytes_max, cut_visit *visit, void *ctx)
{
    struct store *s = c->store;
    size_t budget = bytes_max;
    atomic_fetch_add_explicit(&s->cut_steps, 1, memory_order_relaxed);
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
