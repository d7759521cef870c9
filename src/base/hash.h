/* hash.h: the keyed 64-bit hash of every in-memory table (XXH3 with a secret seed, so that clients cannot choose
 * colliding keys).  hash_seed_set() is called once before any thread starts; tests set a fixed seed. */
#ifndef COVEY_BASE_HASH_H
#define COVEY_BASE_HASH_H

#include "base/bytes.h"

#include <stdint.h>

void hash_seed_set(uint64_t seed);
uint64_t hash_bytes(struct bytes b);

#endif
