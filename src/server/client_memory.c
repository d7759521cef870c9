/* client_memory.c: what connections take, and maxmemory-clients. */
#include "server/memory.h"

#include "base/log.h"
#include "base/mem.h"
#include "server/client.h"

#include <stdlib.h>

enum { LIMIT_MIN = 128 * 1024, RETRY_MS = 100 };

size_t conn_memory(const struct conn *c)
{
    return sizeof *c + blocking_memory(c) + c->in.cap + c->out.cap + c->queue_bytes + c->queue_cap * sizeof *c->queue;
}

void conn_count_memory(struct conn *c)
{
    size_t now = conn_memory(c);
    if (now == c->counted_memory) return;
    int64_t sum = atomic_load_explicit(&c->worker->client_memory, memory_order_relaxed);
    atomic_store_explicit(&c->worker->client_memory, sum + (int64_t)now - (int64_t)c->counted_memory,
                          memory_order_relaxed);
    c->counted_memory = now;
}

size_t memory_of_clients(const struct node *n)
{
    int64_t sum = 0;
    for (int i = 0; i < n->worker_count; i++)
        sum += atomic_load_explicit(&n->workers[i]->client_memory, memory_order_relaxed);
    return sum > 0 ? (size_t)sum : 0;
}

/* maxmemory-clients in bytes; 0: none. */
static size_t limit_of(const struct node *n)
{
    int64_t limit = config_num(n->config, CFG_MAXMEMORY_CLIENTS);
    if (limit < 0) limit = (int64_t)((double)config_num(n->config, CFG_MAXMEMORY) * (double)-limit / 100);
    if (limit == 0) return 0;
    return limit < LIMIT_MIN ? LIMIT_MIN : (size_t)limit;
}

static int larger_first(const void *a, const void *b)
{
    size_t x = (*(struct conn *const *)a)->counted_memory, y = (*(struct conn *const *)b)->counted_memory;
    return x < y ? 1 : x > y ? -1 : 0;
}

static void close_conn(struct node *n, struct conn *c)
{
    struct buf line = {0};
    client_line(c, NULL, &line);
    log_notice("Evicting client: %.*s", (int)line.n, line.p);
    buf_deinit(&line);
    atomic_store(&c->kill, true);
    atomic_fetch_add(&n->stats.evicted_clients, 1);
}

/* With the server at rest.  True when that was enough. */
static bool close_largest(struct node *n, size_t limit)
{
    size_t count = 0, sum = 0, at = 0;
    for (int i = 0; i < n->worker_count; i++) list_each(it, &n->workers[i]->conns) count++;
    struct conn **all = mem_alloc((count + 1) * sizeof(struct conn *));
    count = 0;
    for (int i = 0; i < n->worker_count; i++) {
        list_each(it, &n->workers[i]->conns)
        {
            struct conn *c = container_of(it, struct conn, link);
            conn_count_memory(c);
            if (atomic_load(&c->kill)) continue; /* on its way out */
            sum += c->counted_memory;
            if (!c->no_evict && !c->is_replica_link && !c->is_primary_link) all[count++] = c;
        }
    }
    qsort(all, count, sizeof *all, larger_first);
    for (; sum >= limit && at < count; at++) {
        close_conn(n, all[at]);
        sum -= all[at]->counted_memory;
    }
    if (at) node_post_workers(n, worker_reap);
    mem_free(all);
    return sum < limit;
}

void memory_evict_clients(struct worker *w)
{
    struct node *n = w->node;
    size_t limit = limit_of(n);
    if (limit == 0 || memory_of_clients(n) < limit || w->now_mono_ms < w->client_eviction_after_ms) return;
    gate_close(n->gate);
    /* The others may have done it meanwhile; and where it does not help, it is not tried with every turn. */
    if (!close_largest(n, limit)) w->client_eviction_after_ms = w->now_mono_ms + RETRY_MS;
    gate_open(n->gate);
}

bool memory_client_classes(struct node *n, struct buf *out)
{
    enum { CLASSES = 19, FIRST_BITS = 15 };
    struct class
    {
        size_t memory, clients;
    } classes[CLASSES] = {0};
    if (limit_of(n) == 0) return false;
    for (int i = 0; i < n->worker_count; i++) {
        list_each(it, &n->workers[i]->conns)
        {
            struct conn *c = container_of(it, struct conn, link);
            conn_count_memory(c);
            if (c->no_evict || c->is_replica_link || c->is_primary_link) continue;
            int at = 0;
            while (at < CLASSES - 1 && c->counted_memory >> (FIRST_BITS + at)) at++;
            classes[at].memory += c->counted_memory;
            classes[at].clients++;
        }
    }
    for (int i = 0; i < CLASSES; i++) {
        unsigned long long from = i ? 1ull << (FIRST_BITS + i - 1) : 0, to = (1ull << (FIRST_BITS + i)) - 1;
        if (i < CLASSES - 1)
            buf_printf(out, "bucket %10llu - %10llu", from, to);
        else
            buf_printf(out, "bucket %10llu+            ", from);
        buf_printf(out, ": tot-mem: %10zu, clients: %zu\n", classes[i].memory, classes[i].clients);
    }
    return true;
}
