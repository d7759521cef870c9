#include "observe/calls.h"

#include "base/mem.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

void calls_init(struct calls *c, int workers, unsigned commands, const char *(*name)(unsigned command))
{
    *c = (struct calls){.workers = workers, .commands = commands, .name = name};
    c->tables = mem_calloc((size_t)workers, sizeof(struct call_counts *));
    for (int i = 0; i < workers; i++) c->tables[i] = mem_calloc(commands, sizeof(struct call_counts));
}

void calls_deinit(struct calls *c)
{
    for (int i = 0; i < c->workers; i++) {
        for (unsigned k = 0; k < c->commands; k++) mem_free(atomic_load(&c->tables[i][k].latency));
        mem_free(c->tables[i]);
    }
    mem_free(c->tables);
}

struct histogram *call_histogram_create(struct call_counts *c)
{
    struct histogram *h = mem_calloc(1, sizeof *h);
    atomic_store_explicit(&c->latency, h, memory_order_release); /* a report may look at it at once */
    return h;
}

void calls_reset(struct calls *c, int worker)
{
    for (unsigned k = 0; k < c->commands; k++) {
        struct call_counts *n = &c->tables[worker][k];
        struct histogram *h = atomic_load_explicit(&n->latency, memory_order_relaxed);
        atomic_store_explicit(&n->calls, 0, memory_order_relaxed);
        atomic_store_explicit(&n->rejected, 0, memory_order_relaxed);
        atomic_store_explicit(&n->failed, 0, memory_order_relaxed);
        atomic_store_explicit(&n->us, 0, memory_order_relaxed);
        if (h) histogram_clear(h);
    }
}

static uint64_t get(const _Atomic uint64_t *n)
{
    return atomic_load_explicit(n, memory_order_relaxed);
}

struct call_sum calls_sum(const struct calls *c, unsigned command)
{
    struct call_sum s = {0};
    for (int i = 0; i < c->workers; i++) {
        const struct call_counts *n = &c->tables[i][command];
        s.calls += get(&n->calls);
        s.rejected += get(&n->rejected);
        s.failed += get(&n->failed);
        s.us += get(&n->us);
    }
    return s;
}

bool calls_latency(const struct calls *c, unsigned command, struct histogram *out)
{
    bool any = false;
    histogram_clear(out);
    for (int i = 0; i < c->workers; i++) {
        struct histogram *h = atomic_load_explicit(&c->tables[i][command].latency, memory_order_acquire);
        if (!h) continue;
        histogram_merge(out, h);
        any = true;
    }
    return any;
}

/* ---- INFO ---- */

void calls_write_commandstats(const struct calls *c, struct buf *b)
{
    for (unsigned k = 0; k < c->commands; k++) {
        struct call_sum s = calls_sum(c, k);
        if (!s.calls && !s.rejected) continue;
        buf_printf(b,
                   "cmdstat_%s:calls=%" PRIu64 ",usec=%" PRIu64 ",usec_per_call=%.2f,rejected_calls=%" PRIu64
                   ",failed_calls=%" PRIu64 "\r\n",
                   c->name(k), s.calls, s.us, s.calls ? (double)s.us / (double)s.calls : 0.0, s.rejected, s.failed);
    }
}

void calls_write_latencystats(const struct calls *c, struct buf *b)
{
    struct histogram *h = mem_calloc(1, sizeof *h);
    for (unsigned k = 0; k < c->commands; k++)
        if (calls_latency(c, k, h))
            buf_printf(b, "latency_percentiles_usec_%s:p50=%" PRIu64 ",p99=%" PRIu64 ",p99.9=%" PRIu64 "\r\n",
                       c->name(k), (uint64_t)histogram_percentile(h, 50), (uint64_t)histogram_percentile(h, 99),
                       (uint64_t)histogram_percentile(h, 99.9));
    mem_free(h);
}

/* ---- /metrics ---- */

struct labels {
    struct metric_label l[2];
    size_t n;
};

static struct labels labels_of(const struct calls_shown *s, const char *group, unsigned command)
{
    struct labels all = {.n = 0};
    if (group) all.l[all.n++] = (struct metric_label){group, bytes_of(s->group)};
    all.l[all.n++] = (struct metric_label){"command", bytes_of(s->calls->name(command))};
    return all;
}

static void write_counts(const struct calls_shown *all, size_t n, const char *name, const char *group, size_t offset,
                         struct buf *b)
{
    for (size_t i = 0; i < n; i++)
        for (unsigned k = 0; k < all[i].calls->commands; k++) {
            struct call_sum s = calls_sum(all[i].calls, k);
            struct labels l = labels_of(&all[i], group, k);
            if (s.calls || s.rejected) metric_u64(b, name, l.l, l.n, *(const uint64_t *)((const char *)&s + offset));
        }
}

static void write_latencies(const struct calls_shown *all, size_t n, const char *name, const char *group, struct buf *b)
{
    struct histogram *h = mem_calloc(1, sizeof *h);
    for (size_t i = 0; i < n; i++)
        for (unsigned k = 0; k < all[i].calls->commands; k++) {
            struct labels l = labels_of(&all[i], group, k);
            if (calls_latency(all[i].calls, k, h))
                metric_histogram(b, name, l.l, l.n, h, calls_sum(all[i].calls, k).us);
        }
    mem_free(h);
}

void calls_write_metrics(const struct calls_shown *all, size_t n, const char *prefix, const char *group, struct buf *b)
{
    static const struct {
        const char *name, *help;
        size_t offset;
    } families[] = {
        {"commands_total", "Commands of clients, by name.", offsetof(struct call_sum, calls)},
        {"commands_rejected_total", "Commands that their user may not run.", offsetof(struct call_sum, rejected)},
        {"commands_failed_total", "Commands that were answered with an error.", offsetof(struct call_sum, failed)},
    };
    char name[128];
    for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
        snprintf(name, sizeof name, "%s_%s", prefix, families[f].name);
        metric_family(b, name, METRIC_COUNTER, families[f].help);
        write_counts(all, n, name, group, families[f].offset, b);
    }
    snprintf(name, sizeof name, "%s_command_duration_seconds", prefix);
    metric_family(b, name, METRIC_HISTOGRAM,
                  "From reading a command to its reply, for those that go to nodes and do not block.");
    write_latencies(all, n, name, group, b);
}
