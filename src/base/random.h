/* random.h: xoshiro256** (Blackman and Vigna, 2018) for choices that need no secrecy, and getrandom() for ids and
 * keys.  A generator belongs to one thread at a time; the seed makes it repeatable. */
#ifndef COVEY_BASE_RANDOM_H
#define COVEY_BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

struct random {
    uint64_t s[4];
};

void random_seed(struct random *r, uint64_t seed);
uint64_t random_u64(struct random *r);
/* Uniform in [0, n); n > 0. */
uint64_t random_below(struct random *r, uint64_t n);

/* Bytes of the kernel's generator; aborts when there are none. */
void random_secure(void *out, size_t n);
/* Fills out with n lowercase hex characters, no terminator. */
void random_hex(char *out, size_t n);

#endif
