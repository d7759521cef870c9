/* pools.c: the pools of one reading of the file after another, and their listeners. */
#include "proxy/pool/pools.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "observe/prometheus.h"
#include "proxy/pool/engine.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- generations ---- */

struct generation *generation_read(const char *path)
{
    struct generation *g = mem_calloc(1, sizeof *g);
    char error[POOL_CONF_ERROR_MAX];
    if (pool_conf_load(path, &g->file, error) != OK) {
        log_warning("%s", error);
        mem_free(g);
        return NULL;
    }
    atomic_store(&g->refs, 1);
    g->health = mem_calloc(g->file.n, sizeof *g->health);
    for (size_t i = 0; i < g->file.n; i++)
        g->health[i].servers = mem_calloc(g->file.pools[i].servers_n, sizeof(struct server_health));
    return g;
}

void generation_release(struct generation *g)
{
    if (!g || atomic_fetch_sub(&g->refs, 1) != 1) return;
    for (size_t i = 0; i < g->file.n; i++) mem_free(g->health[i].servers);
    mem_free(g->health);
    pool_conf_deinit(&g->file);
    mem_free(g);
}

/* ---- a plan: everything that can fail ---- */

struct plan {
    struct generation *generation;
    struct pool ***pools;              /* of each worker, of the generation */
    struct front_listener **listeners; /* of the generation */
    bool *is_new;                      /* which of them nobody has yet */
};

static void plan_drop(struct pools *all, struct plan *plan)
{
    size_t n = plan->generation->file.n;
    for (int w = 0; w < all->worker_count; w++) {
        for (size_t i = 0; i < n; i++)
            if (plan->pools[w][i]) pool_destroy(plan->pools[w][i]);
        mem_free(plan->pools[w]);
    }
    for (size_t i = 0; i < n; i++)
        if (plan->listeners[i] && plan->is_new[i]) front_listener_close(plan->listeners[i]);
    mem_free(plan->pools);
    mem_free(plan->listeners);
    mem_free(plan->is_new);
    generation_release(plan->generation);
}

/* The listener that the same text has got already. */
static struct front_listener *listener_at(const struct pools *all, const char *listen)
{
    for (size_t i = 0; all->generation && i < all->generation->file.n; i++)
        if (strcmp(all->generation->file.pools[i].listen, listen) == 0) return all->listeners[i];
    return NULL;
}

static struct front_listener *listen_at(struct pools *all, const struct pool_conf *conf)
{
    struct front_address a = {.host = conf->listen_host,
                              .port = conf->listen_port,
                              .mode = conf->listen_mode < 0 ? 0 : (unsigned)conf->listen_mode,
                              .backlog = conf->backlog,
                              .share_port = conf->reuseport,
                              .is_tls = all->front->config->pool_tls && conf->listen_port != 0,
                              .accept_proxy = all->front->config->accept_proxy};
    struct front_listener *l = front_listen(all->front, &pools_front, &a);
    if (!l) log_warning("Pool %s: cannot listen on %s: %s", conf->name, conf->listen, strerror(errno));
    return l;
}

static bool plan_pool(struct pools *all, struct plan *plan, size_t i)
{
    const struct pool_conf *conf = &plan->generation->file.pools[i];
    for (int w = 0; w < all->worker_count; w++) {
        plan->pools[w][i] = pool_create(all->workers[w], plan->generation, i);
        if (plan->pools[w][i]) continue;
        log_warning("Pool %s: out of memory", conf->name);
        return false;
    }
    plan->listeners[i] = listener_at(all, conf->listen);
    plan->is_new[i] = !plan->listeners[i];
    if (plan->is_new[i]) plan->listeners[i] = listen_at(all, conf);
    return plan->listeners[i] != NULL;
}

static bool plan_make(struct pools *all, struct generation *g, struct plan *plan)
{
    *plan = (struct plan){.generation = g};
    plan->pools = mem_calloc((size_t)all->worker_count, sizeof(struct pool **));
    for (int w = 0; w < all->worker_count; w++) plan->pools[w] = mem_calloc(g->file.n, sizeof(struct pool *));
    plan->listeners = mem_calloc(g->file.n, sizeof(struct front_listener *));
    plan->is_new = mem_calloc(g->file.n, sizeof *plan->is_new);
    bool good = true;
    for (size_t i = 0; good && i < g->file.n; i++) good = plan_pool(all, plan, i);
    if (!good) plan_drop(all, plan);
    return good;
}

/* ---- carrying it out ---- */

static bool is_used(const struct plan *plan, const struct front_listener *l)
{
    for (size_t i = 0; i < plan->generation->file.n; i++)
        if (plan->listeners[i] == l) return true;
    return false;
}

static void start_listener(struct pools *all, const struct plan *plan, size_t i)
{
    struct front_listener *l = plan->listeners[i];
    const struct pool_conf *conf = &plan->generation->file.pools[i];
    void **targets = mem_calloc((size_t)all->worker_count, sizeof(void *));
    for (int w = 0; w < all->worker_count; w++) targets[w] = plan->pools[w][i];
    l->limit = conf->client_connections;
    atomic_store(&l->accept_proxy, all->front->config->accept_proxy);
    if (!plan->is_new[i] && listen(l->src.fd, conf->backlog) < 0)
        log_warning("Pool %s: %s", conf->name, strerror(errno));
    front_listener_start(l, targets);
    mem_free(targets);
}

/* New pools reach a worker before the first client for them: both come by mail. */
static void plan_carry_out(struct pools *all, struct plan *plan)
{
    size_t n = plan->generation->file.n;
    for (int w = 0; w < all->worker_count; w++)
        pool_worker_adopt(all->workers[w], plan->pools[w], n, all->front->is_started);
    for (size_t i = 0; all->generation && i < all->generation->file.n; i++)
        if (!is_used(plan, all->listeners[i])) front_listener_close(all->listeners[i]);
    for (size_t i = 0; i < n; i++) start_listener(all, plan, i);
    generation_release(all->generation);
    mem_free(all->listeners);
    mem_free(plan->pools);
    mem_free(plan->is_new);
    all->generation = plan->generation;
    all->listeners = plan->listeners;
}

static bool load(struct pools *all)
{
    struct plan plan;
    struct generation *g = generation_read(all->front->config->pool_file);
    if (!g || !plan_make(all, g, &plan)) return false;
    plan_carry_out(all, &plan);
    return true;
}

bool pools_reload(struct pools *p)
{
    if (!load(p)) return false;
    log_notice("%s is read again: %zu pools", p->front->config->pool_file, p->generation->file.n);
    return true;
}

struct pools *pools_create(struct front *f)
{
    const struct proxy_config *c = f->config;
    struct pools *p = mem_calloc(1, sizeof *p);
    p->front = f;
    p->worker_count = f->worker_count;
    p->started_ms = clock_mono_ms();
    p->workers = mem_calloc((size_t)p->worker_count, sizeof(struct pool_worker *));
    node_registry_init(&p->nodes, p->worker_count, CMD_ID_COUNT + MC_COMMAND_COUNT);
    list_init(&p->measures);
    for (int i = 0; i < p->worker_count; i++)
        p->workers[i] = pool_worker_create(f->workers[i], &p->nodes, &p->measures);
    bool good = load(p);
    if (good && c->stats_port && !stats_listen(p, c->stats_host, (int)c->stats_port)) {
        log_warning("Cannot listen on %s:%d for the statistics: %s", c->stats_host, (int)c->stats_port,
                    strerror(errno));
        good = false;
    }
    if (good) return p;
    pools_destroy(p);
    return NULL;
}

void pools_close_stats(struct pools *p)
{
    int fd = p->stats_listener.fd;
    if (fd <= 0) return;
    loop_remove(p->front->loop, &p->stats_listener);
    close(fd);
}

void pools_destroy(struct pools *p)
{
    for (int i = 0; i < p->worker_count; i++) pool_worker_destroy(p->workers[i]);
    pools_close_stats(p);
    generation_release(p->generation);
    node_registry_deinit(&p->nodes);
    pool_measures_destroy(&p->measures);
    mem_free(p->listeners);
    mem_free(p->workers);
    mem_free(p);
}

/* ---- /metrics ---- */

struct error_page {
    struct buf *b;
    const char *pool;
};

static void write_error(void *ctx, const char *code, uint64_t n)
{
    struct error_page *p = ctx;
    struct metric_label l[] = {{"pool", bytes_of(p->pool)}, {"code", bytes_of(code)}};
    metric_u64(p->b, "covey_proxy_pool_errors_total", l, 2, n);
}

void pools_metrics(struct pools *p, struct buf *b)
{
    size_t n = 0;
    struct calls_shown *all;
    list_each(it, &p->measures) n++;
    all = mem_calloc(n + 1, sizeof *all);
    n = 0;
    metric_family(b, "covey_proxy_pool_errors_total", METRIC_COUNTER,
                  "Errors that clients were answered, by their first word.");
    list_each(it, &p->measures)
    {
        const struct pool_measure *m = container_of(it, struct pool_measure, link);
        struct error_page page = {b, m->name};
        errorstats_each(m->errors, write_error, &page);
        all[n++] = (struct calls_shown){&m->calls, m->name};
    }
    calls_write_metrics(all, n, "covey_proxy_pool", "pool", b);
    nodes_write_metrics(&p->nodes, "covey_proxy_pool", "pool", pool_command_name, b);
    mem_free(all);
}

int pools_test_file(const char *path)
{
    struct pool_conf_file file;
    char error[POOL_CONF_ERROR_MAX];
    enum status st = pool_conf_load(path, &file, error);
    if (st != OK) fprintf(stderr, "nutcracker: %s\n", error);
    fprintf(stderr, "nutcracker: configuration file '%s' syntax is %s\n", path, st == OK ? "ok" : "invalid");
    pool_conf_deinit(&file);
    return st == OK ? 0 : 1;
}
