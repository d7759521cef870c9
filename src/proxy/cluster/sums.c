#include "proxy/cluster/sums.h"

static uint64_t get(const _Atomic uint64_t *n)
{
    return atomic_load_explicit(n, memory_order_relaxed);
}

void sum_stats(const struct proxy *p, struct worker_stats *out)
{
    *out = (struct worker_stats){0};
    for (int i = 0; i < p->worker_count; i++) {
        const struct front_stats *f = &p->front->workers[i]->stats;
        count(&out->received, (int64_t)get(&f->received));
        count(&out->sent, (int64_t)get(&f->sent));
        const _Atomic uint64_t *from = (const _Atomic uint64_t *)&p->workers[i]->stats;
        _Atomic uint64_t *to = (_Atomic uint64_t *)out;
        for (size_t k = 0; k < sizeof *out / sizeof *to; k++) count(&to[k], (int64_t)get(&from[k]));
    }
}

struct command_sum sum_command(const struct proxy *p, int id)
{
    struct command_sum s = {0};
    for (int i = 0; i < p->worker_count; i++) {
        const struct command_counts *c = &p->workers[i]->measure.commands[id];
        s.calls += get(&c->calls);
        s.rejected += get(&c->rejected);
        s.failed += get(&c->failed);
        s.us += get(&c->us);
    }
    return s;
}

bool sum_latency(const struct proxy *p, int id, struct histogram *out)
{
    bool any = false;
    histogram_clear(out);
    for (int i = 0; i < p->worker_count; i++) {
        struct histogram *h = atomic_load_explicit(&p->workers[i]->measure.commands[id].latency, memory_order_acquire);
        if (!h) continue;
        histogram_merge(out, h);
        any = true;
    }
    return any;
}
