#include "observe/nodes.h"

#include "base/log.h"
#include "base/mem.h"
#include "observe/prometheus.h"

#include <stdio.h>

enum { FORGET_MS = 10 * 60 * 1000, LOG_EVERY_MS = 1000, NAME_MAX_BYTES = 128 };

static uint64_t get(const _Atomic uint64_t *n)
{
    return atomic_load_explicit(n, memory_order_relaxed);
}

/* ---- nodes come and go ---- */

void node_registry_init(struct node_registry *r, int workers, unsigned commands)
{
    *r = (struct node_registry){.workers = workers, .commands = commands};
    pthread_mutex_init(&r->mu, NULL);
    list_init(&r->nodes);
}

static void node_free(struct node_registry *r, struct measured_node *n)
{
    list_remove(&n->link);
    for (int i = 0; i < r->workers; i++) mem_free(n->counts[i]);
    mem_free(n->group);
    mem_free(n->name);
    mem_free(n);
}

void node_registry_deinit(struct node_registry *r)
{
    list_each(it, &r->nodes) node_free(r, container_of(it, struct measured_node, link));
    pthread_mutex_destroy(&r->mu);
}

static void forget_old(struct node_registry *r, int64_t now_ms)
{
    list_each(it, &r->nodes)
    {
        struct measured_node *n = container_of(it, struct measured_node, link);
        if (n->users == 0 && now_ms - n->unused_ms > FORGET_MS) node_free(r, n);
    }
}

static struct measured_node *find_or_add(struct node_registry *r, const char *group, const char *name)
{
    list_each(it, &r->nodes)
    {
        struct measured_node *n = container_of(it, struct measured_node, link);
        if (strcmp(n->name, name) == 0 && strcmp(n->group, group) == 0) return n;
    }
    struct measured_node *n = mem_calloc(1, sizeof *n + (size_t)r->workers * sizeof(struct node_counts *));
    n->group = mem_strdup(group);
    n->name = mem_strdup(name);
    list_push_back(&r->nodes, &n->link);
    return n;
}

struct measured_node *node_begin(struct node_registry *r, const char *group, const char *name, int worker,
                                 int64_t now_ms, struct node_counts **counts)
{
    pthread_mutex_lock(&r->mu);
    forget_old(r, now_ms);
    struct measured_node *n = find_or_add(r, group, name);
    n->users++;
    struct node_counts **mine = &n->counts[worker];
    if (!*mine) *mine = mem_calloc(1, sizeof **mine + r->commands * sizeof(_Atomic uint64_t));
    *counts = *mine;
    pthread_mutex_unlock(&r->mu);
    return n;
}

void node_end(struct node_registry *r, struct measured_node *n, int64_t now_ms)
{
    pthread_mutex_lock(&r->mu);
    n->users--;
    n->unused_ms = now_ms;
    pthread_mutex_unlock(&r->mu);
}

/* ---- up and down ---- */

void node_is_up(struct measured_node *n)
{
    if (atomic_load_explicit(&n->state, memory_order_relaxed) == NODE_UP) return;
    if (atomic_exchange(&n->state, NODE_UP) == NODE_DOWN) log_notice("Node %s is up again", n->name);
}

void node_has_trouble(struct measured_node *n, bool was_connected, const char *why, int64_t now_ms)
{
    if (!was_connected) {
        if (atomic_exchange(&n->state, NODE_DOWN) != NODE_DOWN) log_warning("Node %s is down: %s", n->name, why);
        return;
    }
    int64_t last = atomic_load(&n->log_ms);
    if ((last == 0 || now_ms - last >= LOG_EVERY_MS) && atomic_compare_exchange_strong(&n->log_ms, &last, now_ms))
        log_notice("Lost a connection to node %s: %s", n->name, why);
}

/* ---- sums ---- */

uint64_t node_sum(const struct node_registry *r, const struct measured_node *n, size_t offset)
{
    uint64_t sum = 0;
    for (int i = 0; i < r->workers; i++)
        if (n->counts[i]) sum += get((const _Atomic uint64_t *)((const char *)n->counts[i] + offset));
    return sum;
}

static uint64_t sum_of_command(const struct node_registry *r, const struct measured_node *n, unsigned command)
{
    return node_sum(r, n, offsetof(struct node_counts, requests) + command * sizeof(_Atomic uint64_t));
}

uint64_t node_sum_requests(const struct node_registry *r, const struct measured_node *n)
{
    uint64_t sum = 0;
    for (unsigned c = 0; c < r->commands; c++) sum += sum_of_command(r, n, c);
    return sum;
}

void node_sum_latency(const struct node_registry *r, const struct measured_node *n, struct histogram *out)
{
    histogram_clear(out);
    for (int i = 0; i < r->workers; i++)
        if (n->counts[i]) histogram_merge(out, &n->counts[i]->latency);
}

/* ---- INFO ---- */

static const char *state_name(const struct measured_node *n)
{
    static const char *const names[] = {[NODE_UNTRIED] = "untried", [NODE_UP] = "up", [NODE_DOWN] = "down"};
    return names[atomic_load(&n->state)];
}

void nodes_write_info(struct node_registry *r, const char *group, struct buf *b)
{
    struct histogram *h = mem_calloc(1, sizeof *h);
    pthread_mutex_lock(&r->mu);
    list_each(it, &r->nodes)
    {
        const struct measured_node *n = container_of(it, struct measured_node, link);
        if (group && strcmp(n->group, group) != 0) continue;
        node_sum_latency(r, n, h);
        buf_printf(b, "backend_%s:state=%s,connections=%llu,requests=%llu,errors=%llu,p50=%llu,p99=%llu,p99.9=%llu\r\n",
                   n->name, state_name(n), (unsigned long long)node_sum(r, n, offsetof(struct node_counts, links)),
                   (unsigned long long)node_sum_requests(r, n),
                   (unsigned long long)node_sum(r, n, offsetof(struct node_counts, failed)),
                   (unsigned long long)histogram_percentile(h, 50), (unsigned long long)histogram_percentile(h, 99),
                   (unsigned long long)histogram_percentile(h, 99.9));
    }
    pthread_mutex_unlock(&r->mu);
    mem_free(h);
}

/* ---- metrics ---- */

struct page {
    const struct node_registry *r;
    struct buf *b;
    const char *prefix, *group;
    char name[NAME_MAX_BYTES];
};

static const char *begin_family(struct page *p, const char *suffix, enum metric_type type, const char *help)
{
    snprintf(p->name, sizeof p->name, "%s_%s", p->prefix, suffix);
    metric_family(p->b, p->name, type, help);
    return p->name;
}

/* The labels that every sample of the node has; returns how many. */
static size_t labels_of(const struct page *p, const struct measured_node *n, struct metric_label *l)
{
    size_t count = 0;
    if (p->group) l[count++] = (struct metric_label){p->group, bytes_of(n->group)};
    l[count++] = (struct metric_label){"backend", bytes_of(n->name)};
    return count;
}

static void write_requests(struct page *p, const char *(*command_name)(unsigned command))
{
    struct metric_label l[3];
    begin_family(p, "requests_total", METRIC_COUNTER, "Requests sent to nodes.");
    list_each(it, &p->r->nodes)
    {
        const struct measured_node *n = container_of(it, struct measured_node, link);
        size_t count = labels_of(p, n, l);
        for (unsigned c = 0; c < p->r->commands; c++) {
            uint64_t value = sum_of_command(p->r, n, c);
            if (!value) continue;
            l[count] = (struct metric_label){"command", bytes_of(command_name(c))};
            metric_u64(p->b, p->name, l, count + 1, value);
        }
    }
}

static void write_counter(struct page *p, const char *suffix, enum metric_type type, const char *help, size_t offset)
{
    struct metric_label l[2];
    begin_family(p, suffix, type, help);
    list_each(it, &p->r->nodes)
    {
        const struct measured_node *n = container_of(it, struct measured_node, link);
        metric_u64(p->b, p->name, l, labels_of(p, n, l), node_sum(p->r, n, offset));
    }
}

static void write_up(struct page *p)
{
    struct metric_label l[2];
    begin_family(p, "backend_up", METRIC_GAUGE, "0: the last attempt to connect to the node failed.");
    list_each(it, &p->r->nodes)
    {
        const struct measured_node *n = container_of(it, struct measured_node, link);
        metric_u64(p->b, p->name, l, labels_of(p, n, l), atomic_load(&n->state) != NODE_DOWN);
    }
}

static void write_latency(struct page *p)
{
    struct metric_label l[2];
    struct histogram *h = mem_calloc(1, sizeof *h);
    begin_family(p, "backend_duration_seconds", METRIC_HISTOGRAM, "From sending a request to the node's reply.");
    list_each(it, &p->r->nodes)
    {
        const struct measured_node *n = container_of(it, struct measured_node, link);
        node_sum_latency(p->r, n, h);
        metric_histogram(p->b, p->name, l, labels_of(p, n, l), h, node_sum(p->r, n, offsetof(struct node_counts, us)));
    }
    mem_free(h);
}

void nodes_write_metrics(struct node_registry *r, const char *prefix, const char *group,
                         const char *(*command_name)(unsigned command), struct buf *b)
{
    struct page p = {r, b, prefix, group, ""};
    pthread_mutex_lock(&r->mu);
    write_requests(&p, command_name);
    write_up(&p);
    write_counter(&p, "backend_connections", METRIC_GAUGE, "Connections to the node.",
                  offsetof(struct node_counts, links));
    write_counter(&p, "backend_errors_total", METRIC_COUNTER, "Error replies of the node.",
                  offsetof(struct node_counts, failed));
    write_latency(&p);
    pthread_mutex_unlock(&r->mu);
}
