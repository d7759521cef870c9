/* worker.c: the pools' part in a worker, and one configuration after another. */
#include "base/clock.h"
#include "base/mem.h"
#include "proxy/pool/engine.h"

enum { TICK_MS = 10 };

/* ---- turns ---- */

static struct pool_worker *worker_of(struct front_part *p)
{
    return container_of(p, struct pool_worker, part);
}

static void begin(struct front_part *p)
{
    worker_of(p)->now_ms = worker_of(p)->front->now_ms;
    worker_of(p)->ticks = clock_ticks();
}

static void nothing(struct front_part *p)
{
    (void)p;
}

static void flush(struct front_part *p)
{
    struct pool_worker *w = worker_of(p);
    while (!list_empty(&w->dirty_links)) {
        struct server_link *l = container_of(w->dirty_links.next, struct server_link, dirty);
        list_remove(&l->dirty);
        server_link_flush(l);
    }
}

static void drop_idle(struct pool_worker *w)
{
    size_t kept = 0;
    for (size_t i = 0; i < w->retired_n; i++) {
        if (pool_is_idle(w->retired[i]))
            pool_destroy(w->retired[i]);
        else
            w->retired[kept++] = w->retired[i];
    }
    w->retired_n = kept;
}

static void tick(struct loop_timer *t, int64_t now_ms)
{
    struct pool_worker *w = container_of(t, struct pool_worker, tick);
    w->now_ms = now_ms;
    for (size_t i = 0; i < w->pools_n; i++) pool_check_timeouts(w->pools[i]);
    for (size_t i = 0; i < w->retired_n; i++) pool_check_timeouts(w->retired[i]);
    if (w->retired_n > 0) drop_idle(w);
}

struct pool_worker *pool_worker_create(struct front_worker *front, struct node_registry *nodes, struct list *measures)
{
    struct pool_worker *w = mem_calloc(1, sizeof *w);
    w->part = (struct front_part){.begin = begin, .retry = nothing, .flush = flush};
    w->front = front;
    w->loop = front->loop;
    w->now_ms = clock_mono_ms();
    w->nodes = nodes;
    w->measures = measures;
    w->us_per_tick = ((uint64_t)1 << 32) / clock_ticks_per_us();
    list_init(&w->dirty_links);
    uint64_t seed;
    random_secure(&seed, sizeof seed);
    random_seed(&w->rng, seed);
    w->tick = (struct loop_timer){.every_ms = TICK_MS, .tick = tick};
    loop_timer_add(w->loop, &w->tick);
    front_part_add(front, &w->part);
    return w;
}

void pool_worker_destroy(struct pool_worker *w)
{
    for (size_t i = 0; i < w->pools_n; i++) pool_destroy(w->pools[i]);
    for (size_t i = 0; i < w->retired_n; i++) pool_destroy(w->retired[i]);
    mem_free(w->pools);
    mem_free(w->retired);
    mc_request_deinit(&w->mc_request);
    front_part_remove(&w->part);
    mem_free(w);
}

/* ---- one configuration after another ---- */

static struct pool *pool_named(struct pool_worker *w, const char *name)
{
    for (size_t i = 0; i < w->pools_n; i++)
        if (strcmp(w->pools[i]->conf->name, name) == 0) return w->pools[i];
    return NULL;
}

static void inherit(struct pool *p, struct pool *old)
{
    uint64_t connected = p->stats.client_connections;
    p->stats = old->stats;
    p->stats.client_connections = connected;
    for (size_t i = 0; i < p->conf->servers_n; i++)
        for (size_t k = 0; k < old->conf->servers_n; k++)
            if (strcmp(p->servers[i].conf->name, old->servers[k].conf->name) == 0) {
                p->servers[i].stats = old->servers[k].stats;
                p->servers[i].stats.connections = 0;
            }
    bool same_kind = p->conf->redis == old->conf->redis;
    while (same_kind && !list_empty(&old->clients)) {
        struct pool_client *c = container_of(old->clients.next, struct pool_client, link);
        list_remove(&c->link);
        list_push_back(&p->clients, &c->link);
        c->pool = p;
        old->stats.client_connections--;
        p->stats.client_connections++;
    }
}

static void adopt(struct pool_worker *w, struct pool **pools, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct pool *named = pool_named(w, pools[i]->conf->name);
        if (named) inherit(pools[i], named);
        pool_preconnect(pools[i]);
    }
    w->retired = mem_realloc(w->retired, (w->retired_n + w->pools_n + 1) * sizeof(struct pool *));
    for (size_t i = 0; i < w->pools_n; i++) w->retired[w->retired_n++] = w->pools[i];
    mem_free(w->pools);
    w->pools = pools;
    w->pools_n = n;
}

struct pools_mail {
    struct mail mail;
    struct pool_worker *worker;
    struct pool **pools;
    size_t n;
};

static void pools_arrived(struct mail *mail)
{
    struct pools_mail *m = container_of(mail, struct pools_mail, mail);
    adopt(m->worker, m->pools, m->n);
    mem_free(m);
}

void pool_worker_adopt(struct pool_worker *w, struct pool **pools, size_t n, bool is_started)
{
    if (!is_started) {
        adopt(w, pools, n);
        return;
    }
    struct pools_mail *m = mem_alloc(sizeof *m);
    *m = (struct pools_mail){{NULL, pools_arrived}, w, pools, n};
    loop_post(w->loop, &m->mail);
}
