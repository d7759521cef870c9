/* backend.c: the nodes as a worker knows them, and who serves which slot. */
#include "proxy/cluster/worker.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <stdio.h>

enum {
    SILENT_MS = 1000,
    REPLICA_MS = 2000, /* a replica that answers nobody for so long is done without */
    ACK_MS = 5000,     /* more than between two questions of the kernel's whether the other end is there */
};

struct backend *backend_find(struct worker *w, struct bytes name, int port)
{
    list_each(it, &w->backends)
    {
        struct backend *b = container_of(it, struct backend, link);
        if (b->port == port && bytes_eq(bytes_of(b->name), name)) return b;
    }
    return NULL;
}

static bool is_address(const char *text)
{
    struct in6_addr any;
    return inet_pton(AF_INET, text, &any) == 1 || inet_pton(AF_INET6, text, &any) == 1;
}

struct backend *backend_get(struct worker *w, struct bytes name, const char *ip, int port)
{
    struct backend *b = backend_find(w, name, port);
    if (b || name.n >= sizeof b->name || name.n == 0) return b;
    char text[sizeof b->name];
    snprintf(text, sizeof text, "%.*s", (int)name.n, name.p);
    if (!ip && !is_address(text)) return NULL;
    b = mem_calloc(1, sizeof *b);
    memcpy(b->name, text, sizeof text);
    snprintf(b->ip, sizeof b->ip, "%.63s", ip ? ip : text);
    b->port = port;
    list_init(&b->links);
    list_init(&b->by_db);
    list_init(&b->idle[0]);
    list_init(&b->idle[1]);
    list_push_back(&w->backends, &b->link);
    measure_backend_begin(w, b);
    return b;
}

static void close_links(struct backend *b, const char *why)
{
    while (!list_empty(&b->links)) node_link_close(container_of(b->links.next, struct link, link), why);
}

void backend_renew(struct backend *b, const struct map_node *n)
{
    bool was_own = b->is_own;
    b->is_own = n->is_own;
    if (was_own && !n->is_own) close_links(b, "another node has this address");
    if (!*n->ip || strcmp(b->ip, n->ip) == 0) return;
    snprintf(b->ip, sizeof b->ip, "%.63s", n->ip);
    if (!n->is_own) close_links(b, "the node has moved to another address");
}

void backends_adopt_map(struct worker *w, struct topology_map *map)
{
    list_each(it, &w->backends) container_of(it, struct backend, link)->in_map = false;
    struct backend **by_index = mem_calloc(map->count + 1u, sizeof *by_index);
    for (int i = 0; i < map->count; i++) {
        const struct map_node *n = &map->nodes[i];
        by_index[i] = backend_get(w, bytes_of(n->name), n->ip, n->port);
        if (!by_index[i]) continue;
        by_index[i]->in_map = n->slots > 0;
        backend_renew(by_index[i], n);
    }
    replicas_adopt_map(w, map, by_index);
    for (unsigned s = 0; s < SLOT_COUNT; s++) w->slots[s] = map->slot[s] == NO_NODE ? NULL : by_index[map->slot[s]];
    w->only = NULL;
    for (int i = 0; i < map->count && !map->standalone; i++)
        if (map->nodes[i].slots == SLOT_COUNT) w->only = by_index[i];
    if (w->only) node_ask_crossing(w, w->only);
    mem_free(by_index);
    w->epoch++;
    list_each(it, &w->held) container_of(it, struct request, held)->due_ms = w->now_ms;
    w->held_due_ms = w->now_ms;
    w->held_kick = true;
    w->held_timer.due_ms = w->now_ms;
}

/* A node that owes replies and keeps silent: the cluster's opinion of it is asked for soon, and followed.  It may just
 * be busy with something long: as long as it answers on another connection it is not given up.  True: it is silent. */
static bool check_link(struct worker *w, struct link *l, int64_t now_ms)
{
    struct backend *b = l->backend;
    int64_t limit = l->is_readonly ? REPLICA_MS : w->config->node_timeout_ms, silent = now_ms - l->last_ms;
    if (l->connecting) {
        if (now_ms > l->connect_until) node_link_close(l, "no connection in time");
        return false;
    }
    if (l->is_probe || (!l->first && !l->handshake_left)) return false;
    if (silent <= SILENT_MS && silent <= limit / 2) return false;
    if (!b->in_map && !b->is_replica) {
        node_link_close(l, "silent, and another node has its slots");
        return false;
    }
    if (l->first && l->first->is_blocking) return false;
    topology_refresh(w->proxy->topology);
    node_probe(w, b);
    if (now_ms - (l->last_ms > b->alive_ms ? l->last_ms : b->alive_ms) > limit)
        node_link_close(l, "the node does not answer in time");
    else if (silent > limit + ACK_MS && node_link_silence(l) > limit + ACK_MS)
        node_link_close(l, "the connection does not reach the node any more");
    return true;
}

static void check_node(struct worker *w, struct backend *b, int64_t now_ms)
{
    bool silent = false;
    list_each(at, &b->links) silent |= check_link(w, container_of(at, struct link, link), now_ms);
    if (w->config->replica_reads) return; /* it is asked other things */
    if (!silent && b->probe && !b->probe->connecting && !b->probing) node_link_close(b->probe, NULL);
}

static bool serves_something(const struct worker *w, const struct backend *b)
{
    for (unsigned s = 0; s < SLOT_COUNT; s++)
        if (w->slots[s] == b) return true;
    return false;
}

static bool is_wanted(const struct worker *w, const struct backend *b)
{
    if (b->in_map || b->is_replica || !list_empty(&b->links)) return true;
    list_each(it, &w->held) if (container_of(it, struct request, held)->ask == b) return true;
    return serves_something(w, b);
}

void backends_tick(struct worker *w, int64_t now_ms)
{
    replicas_tick(w, now_ms);
    node_links_trim(w);
    if (w->only) node_ask_crossing(w, w->only);
    list_each(it, &w->backends)
    {
        struct backend *b = container_of(it, struct backend, link);
        check_node(w, b, now_ms);
        if (is_wanted(w, b)) continue;
        list_remove(&b->link);
        measure_backend_end(w, b);
        evals_node_lost(b);
        mem_free(b);
    }
}

void backends_destroy(struct worker *w)
{
    list_each(it, &w->backends)
    {
        struct backend *b = container_of(it, struct backend, link);
        close_links(b, NULL);
        measure_backend_end(w, b);
        evals_node_lost(b);
        mem_free(b);
    }
    list_init(&w->backends);
}
