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
