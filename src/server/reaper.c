/* reaper.c: frees large values and whole tables where nobody waits for it. */
#include "server/node.h"

#include "base/mem.h"

enum { BYTES_SAMPLES = 5 };

struct work {
    struct work *next;
    struct entry *entry; /* or */
    struct table *table;
    uint64_t bytes; /* of the entry, an estimate */
};

struct reaper {
    pthread_mutex_t mu;
    pthread_cond_t wake;
    struct work *first, **last; /* under mu */
    bool collect_all;           /* under mu: give free pages back to the system */
    _Atomic uint64_t pending, freed, pending_bytes, pending_tables;
};

static void *run(void *arg)
{
    struct reaper *r = arg;
    pthread_setname_np(pthread_self(), "reaper");
    for (;;) {
        pthread_mutex_lock(&r->mu);
        while (!r->first && !r->collect_all) pthread_cond_wait(&r->wake, &r->mu);
        bool collect_all = r->collect_all;
        r->collect_all = false;
        if (collect_all) {
            pthread_mutex_unlock(&r->mu);
            mem_collect(true);
            continue;
        }
        struct work *w = r->first;
        r->first = w->next;
        if (!r->first) r->last = &r->first;
        pthread_mutex_unlock(&r->mu);
        if (w->entry) entry_free(w->entry);
        store_table_free(w->table);
        if (w->table) atomic_fetch_sub(&r->pending_tables, 1);
        atomic_fetch_sub(&r->pending_bytes, w->bytes);
        mem_free(w);
        atomic_fetch_sub(&r->pending, 1);
        atomic_fetch_add(&r->freed, 1);
    }
    return NULL;
}

struct reaper *reaper_create(void)
{
    struct reaper *r = mem_calloc(1, sizeof *r);
    r->last = &r->first;
    pthread_mutex_init(&r->mu, NULL);
    pthread_cond_init(&r->wake, NULL);
    pthread_t t;
    if (pthread_create(&t, NULL, run, r)) mem_abort(0);
    pthread_detach(t);
    return r;
}

void reaper_collect(struct reaper *r)
{
    pthread_mutex_lock(&r->mu);
    r->collect_all = true;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->mu);
}

static void enqueue(struct reaper *r, struct entry *e, struct table *t)
{
    struct work *w = mem_alloc(sizeof *w);
    *w = (struct work){NULL, e, t, e ? entry_memory(e, BYTES_SAMPLES) : 0};
    atomic_fetch_add(&r->pending_bytes, w->bytes);
    if (t) atomic_fetch_add(&r->pending_tables, 1);
    atomic_fetch_add(&r->pending, 1);
    pthread_mutex_lock(&r->mu);
    *r->last = w;
    r->last = &w->next;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->mu);
}

void reaper_free_entry(void *reaper, struct entry *e)
{
    enqueue(reaper, e, NULL);
}

void reaper_free_tables(struct reaper *r, struct table **tables, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (tables[i]) enqueue(r, NULL, tables[i]);
}

uint64_t reaper_pending(const struct reaper *r)
{
    return atomic_load(&r->pending);
}

uint64_t reaper_pending_bytes(const struct reaper *r)
{
    return atomic_load_explicit(&r->pending_bytes, memory_order_relaxed);
}

bool reaper_has_tables(const struct reaper *r)
{
    return atomic_load_explicit(&r->pending_tables, memory_order_relaxed) > 0;
}

void reaper_reset_freed(struct reaper *r)
{
    atomic_store(&r->freed, 0);
}

uint64_t reaper_freed(const struct reaper *r)
{
    return atomic_load(&r->freed);
}
