/* histogram.h: how values between 1 and 10^9 are distributed, in buckets whose width is at most 1/128 of their value.
 * The layout is that of HdrHistogram (Gil Tene) with two significant digits: exact to 255, then 128 buckets for every
 * doubling.  24 KB each.
 * Threads: one thread adds; any thread reads meanwhile and sees every count as it was before or after an addition. */
#ifndef COVEY_BASE_HISTOGRAM_H
#define COVEY_BASE_HISTOGRAM_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum { HISTOGRAM_BUCKETS = 3072 };
#define HISTOGRAM_MAX ((uint64_t)1000000000)

struct histogram {
    _Atomic uint64_t total;
    _Atomic uint64_t count[HISTOGRAM_BUCKETS];
};

/* All zero is an empty one.  Values above HISTOGRAM_MAX count as that. */
void histogram_add(struct histogram *h, uint64_t value);
/* The bucket of a value, and an addition there: for many equal values in a row. */
size_t histogram_bucket(uint64_t value);
static inline void histogram_add_at(struct histogram *h, size_t bucket)
{
    _Atomic uint64_t *at = &h->count[bucket];
    atomic_store_explicit(at, atomic_load_explicit(at, memory_order_relaxed) + 1, memory_order_relaxed);
    atomic_store_explicit(&h->total, atomic_load_explicit(&h->total, memory_order_relaxed) + 1, memory_order_relaxed);
}
/* Adds what `from` holds; `into` belongs to the caller. */
void histogram_merge(struct histogram *into, const struct histogram *from);
void histogram_clear(struct histogram *h);
/* The largest value that falls into the same bucket. */
uint64_t histogram_top_of(uint64_t value);
/* The value that `percent` (0 to 100) of all do not exceed; 0 when it is empty. */
uint64_t histogram_percentile(const struct histogram *h, double percent);
/* How many are not above `value`'s bucket. */
uint64_t histogram_up_to(const struct histogram *h, uint64_t value);

#endif
