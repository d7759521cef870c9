/* access.h: how recently, or how often, a key was used: what the 24 bits of an entry mean.
 *
 *   LRU policies (and none)   24 bits: the clock in seconds at the last use
 *   LFU policies              16 bits: the clock in minutes of the last decay | 8 bits: a counter
 *
 * The counter is logarithmic, after Morris (1978): the higher it stands, the less likely a use raises it; and it sinks
 * by one for every `decay_minutes` that pass.  New keys start at LFU_START, so that they are not the first to go. The
 * bits, their meaning and the two settings are redis-server's; files and OBJECT FREQ show the same figures.
 * Pure arithmetic; any thread. */
#ifndef COVEY_STORE_ACCESS_H
#define COVEY_STORE_ACCESS_H

#include "base/random.h"

#include <stdint.h>

enum { LFU_START = 5, LFU_MAX = 255 };

struct lfu {
    uint32_t log_factor;    /* lfu-log-factor: 0 counts every use */
    uint32_t decay_minutes; /* lfu-decay-time: 0 never decays */
};

/* The clocks of a moment (Unix time in ms). */
static inline uint32_t lru_clock_of(int64_t now_ms)
{
    return (uint32_t)(now_ms / 1000) & 0xffffff;
}

static inline uint32_t lfu_clock_of(int64_t now_ms)
{
    return (uint32_t)(now_ms / 60000) & 0xffff;
}

/* Seconds since the last use. */
static inline uint32_t lru_idle(uint32_t bits, uint32_t lru_clock)
{
    return (lru_clock - bits) & 0xffffff;
}

static inline uint32_t lfu_bits(uint32_t lfu_clock, uint32_t counter)
{
    return lfu_clock << 8 | counter;
}

/* The counter as it stands at lfu_clock. */
uint32_t lfu_counter(const struct lfu *p, uint32_t bits, uint32_t lfu_clock);
/* The bits after one more use. */
uint32_t lfu_used(const struct lfu *p, uint32_t bits, uint32_t lfu_clock, struct random *rng);

#endif
