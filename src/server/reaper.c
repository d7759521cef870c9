/* reaper.c: frees large values and whole tables where nobody waits for it. */
#include "server/node.h"

#include "base/mem.h"

struct work {
    struct work *next;
    struct entry *entry; /* or */
    struct table *table;
};

struct reaper {
    pthread_mutex_t mu;
    pthread_cond_t wake;
    struct work *first, **last; /* under mu */
    _Atomic uint64_t pending, freed;
};

static void *run(void *arg)
{
    struct reaper *r = arg;
    pthread_setname_np(pthread_self(), "reaper");
    for (;;) {
        pthread_mutex_lock(&r->mu);
        while (!r->first) pthread_cond_wait(&r->wake, &r->mu);
        struct work *w = r->first;
        r->first = w->next;
        if (!r->first) r->last = &r->first;
        pthread_mutex_unlock(&r->mu);
        if (w->entry) entry_free(w->entry);
        store_table_free(w->table);
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

static void enqueue(struct reaper *r, struct entry *e, struct table *t)
{
    struct work *w = mem_alloc(sizeof *w);
    *w = (struct work){NULL, e, t};
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

uint64_t reaper_freed(const struct reaper *r)
{
    return atomic_load(&r->freed);
}
