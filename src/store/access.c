#include "store/access.h"

uint32_t lfu_counter(const struct lfu *p, uint32_t bits, uint32_t lfu_clock)
{
    uint32_t counter = bits & 255, minutes = (lfu_clock - (bits >> 8)) & 0xffff;
    uint32_t lost = p->decay_minutes ? minutes / p->decay_minutes : 0;
    return lost < counter ? counter - lost : 0;
}

uint32_t lfu_used(const struct lfu *p, uint32_t bits, uint32_t lfu_clock, struct random *rng)
{
    uint32_t counter = lfu_counter(p, bits, lfu_clock);
    if (counter < LFU_MAX) {
        /* One in 1 + (counter - start) * factor uses counts. */
        uint64_t above = counter > LFU_START ? counter - LFU_START : 0, one_in = 1 + above * p->log_factor;
        if (one_in == 1 || random_below(rng, one_in) == 0) counter++;
    }
    return lfu_bits(lfu_clock, counter);
}
