#include "base/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

static uint64_t hash_seed = 0x5eed;

void hash_seed_set(uint64_t seed)
{
    hash_seed = seed;
}

uint64_t hash_bytes(struct bytes b)
{
    return XXH3_64bits_withSeed(b.p, b.n, hash_seed);
}
