#include "change/durable.h"

#include <stdlib.h>

bool durable_is_met(const struct durable *d, const struct durable_need *need)
{
    if (need->synced && atomic_load(&d->synced) < need->offset) return false;
    return need->replicas == 0 || atomic_load(&d->acked[need->replicas]) >= need->offset;
}

/* What was safe once stays so, though the replica that said it has gone since. */
static bool raise(_Atomic uint64_t *mark, uint64_t to)
{
    uint64_t seen = atomic_load(mark);
    while (seen < to)
        if (atomic_compare_exchange_weak(mark, &seen, to)) return true;
    return false;
}

bool durable_set_synced(struct durable *d, uint64_t offset)
{
    return raise(&d->synced, offset);
}

static int highest_first(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

bool durable_set_acked(struct durable *d, uint64_t *offsets, size_t n)
{
    bool news = false;
    if (n > 1) qsort(offsets, n, sizeof *offsets, highest_first);
    for (size_t i = 0; i < n && i < DURABLE_REPLICAS_MAX; i++) news |= raise(&d->acked[i + 1], offsets[i]);
    return news;
}

void durable_reset(struct durable *d)
{
    atomic_store(&d->synced, 0);
    for (size_t i = 0; i <= DURABLE_REPLICAS_MAX; i++) atomic_store(&d->acked[i], 0);
}
