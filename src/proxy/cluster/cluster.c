#include "proxy/cluster/cluster.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "proxy/cluster/worker.h"

#include <errno.h>
#include <stdio.h>

static void map_changed(void *ctx, struct topology_map *map)
{
    struct proxy *p = ctx;
    measure_topology(&p->measures, p->last_map, map);
    topology_map_release(p->last_map);
    p->last_map = topology_map_hold(map);
    for (int i = 0; i < p->worker_count; i++) proxy_worker_publish(p->workers[i], map);
    atomic_store(&p->has_map, true);
}

struct proxy *proxy_cluster_create(struct front *f, const struct own_node *own)
{
    struct proxy *p = mem_calloc(1, sizeof *p);
    p->front = f;
    if (own) p->own = *own;
    p->config = proxy_config_hold(f->config);
    measures_create(p);
    scripts_init(&p->scripts);
    p->topology = topology_create(f->config, f->tls, &p->own, map_changed, p);
    p->worker_count = f->worker_count;
    p->workers = mem_calloc((size_t)p->worker_count, sizeof(struct worker *));
    for (int i = 0; i < p->worker_count; i++) p->workers[i] = proxy_worker_create(p, f->workers[i]);
    return p;
}

void proxy_cluster_own_changed(struct proxy *p)
{
    topology_own_changed(p->topology);
}

void proxy_cluster_start(struct proxy *p)
{
    topology_start(p->topology);
    p->is_started = true;
}

bool proxy_cluster_is_known(const struct proxy *p)
{
    return atomic_load(&p->has_map);
}

void proxy_cluster_configure(struct proxy *p)
{
    topology_configure(p->topology, p->front->config);
}

void proxy_cluster_stop(struct proxy *p)
{
    if (p->is_started) topology_stop(p->topology);
    p->is_started = false;
}

void proxy_cluster_destroy(struct proxy *p)
{
    for (int i = 0; i < p->worker_count; i++) proxy_worker_destroy(p->workers[i]);
    topology_destroy(p->topology);
    measures_destroy(p);
    scripts_deinit(&p->scripts);
    topology_map_release(p->last_map);
    proxy_config_release(p->config);
    mem_free(p->workers);
    mem_free(p);
}

/* ---- listening ---- */

static struct front_listener *listener_at(const struct proxy *p, const struct front_address *a)
{
    char name[FRONT_NAME_MAX];
    front_address_name(a, name);
    list_each(it, &p->front->listeners)
    {
        struct front_listener *l = container_of(it, struct front_listener, link);
        if (l->backend == &cluster_front && strcmp(l->name, name) == 0 && l->is_tls == a->is_tls) return l;
    }
    return NULL;
}

static void start(struct proxy *p, struct front_listener *l)
{
    front_listener_start(l, (void *const *)p->workers);
}

bool proxy_cluster_listen(struct proxy *p)
{
    const struct proxy_config *c = p->front->config;
    struct front_listener *wanted[PROXY_LISTEN_MAX], *opened[PROXY_LISTEN_MAX];
    int n = 0, new = 0;
    for (; n < c->listen_count; n++) {
        const struct listen_address *l = &c->listen[n];
        struct front_address a = {
            .host = l->at.host, .port = l->at.port, .mode = l->mode, .backlog = (int)c->backlog, .is_tls = l->is_tls};
        wanted[n] = listener_at(p, &a);
        if (wanted[n]) continue;
        wanted[n] = opened[new] = front_listen(p->front, &cluster_front, &a);
        if (!wanted[n]) {
            log_warning("Cannot listen on %s:%d: %s", a.host, a.port, strerror(errno));
            while (new > 0) front_listener_close(opened[--new]);
            return false;
        }
        new ++;
    }
    list_each(it, &p->front->listeners)
    {
        struct front_listener *l = container_of(it, struct front_listener, link);
        bool stays = l->backend != &cluster_front;
        for (int i = 0; i < n; i++) stays |= wanted[i] == l;
        if (!stays) front_listener_close(l);
    }
    for (int i = 0; i < n; i++) {
        atomic_store(&wanted[i]->accept_proxy, c->listen[i].accept_proxy);
        start(p, wanted[i]);
    }
    return true;
}
