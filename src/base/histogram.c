#include "base/histogram.h"

enum { EXACT = 256, HALF = 128 }; /* values below EXACT have a bucket each; further on HALF buckets a doubling */

static int doublings(uint64_t value)
{
    return value < EXACT ? 0 : 63 - __builtin_clzll(value) - 7;
}

static size_t bucket_of(uint64_t value)
{
    int d = doublings(value);
    return (size_t)d * HALF + (size_t)(value >> d);
}

uint64_t histogram_top_of(uint64_t value)
{
    int d = doublings(value);
    return (((value >> d) + 1) << d) - 1;
}

static uint64_t top_of_bucket(size_t bucket)
{
    if (bucket < EXACT) return bucket;
    unsigned d = (unsigned)((bucket - HALF) / HALF);
    return ((bucket - d * HALF + 1) << d) - 1;
}

static uint64_t get(const _Atomic uint64_t *count)
{
    return atomic_load_explicit(count, memory_order_relaxed);
}

static void add(_Atomic uint64_t *count, uint64_t n)
{
    atomic_store_explicit(count, get(count) + n, memory_order_relaxed);
}

size_t histogram_bucket(uint64_t value)
{
    return bucket_of(value < HISTOGRAM_MAX ? value : HISTOGRAM_MAX);
}

void histogram_add(struct histogram *h, uint64_t value)
{
    histogram_add_at(h, histogram_bucket(value));
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    uint64_t total = 0;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        uint64_t n = get(&from->count[i]);
        total += n;
        if (n) add(&into->count[i], n);
    }
    add(&into->total, total); /* what the buckets say: `from` may be growing */
}

void histogram_clear(struct histogram *h)
{
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) atomic_store_explicit(&h->count[i], 0, memory_order_relaxed);
    atomic_store_explicit(&h->total, 0, memory_order_relaxed);
}

uint64_t histogram_percentile(const struct histogram *h, double percent)
{
    uint64_t total = get(&h->total), seen = 0;
    uint64_t wanted = (uint64_t)(percent / 100 * (double)total + 0.5);
    if (wanted == 0) wanted = 1;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += get(&h->count[i]);
        if (seen >= wanted) return top_of_bucket(i);
    }
    return 0;
}

uint64_t histogram_up_to(const struct histogram *h, uint64_t value)
{
    uint64_t n = 0;
    for (size_t i = 0, last = bucket_of(value < HISTOGRAM_MAX ? value : HISTOGRAM_MAX); i <= last; i++)
        n += get(&h->count[i]);
    return n;
}
