/* hash.h: the twelve hash functions of nutcracker (twemproxy) 0.5.0, with its results.
 * Promises: for the same bytes the same 32 bits as nutcracker's function of that name, its departures from the
 * published algorithms included, because they decide on which server a key is found.  Each is named in hash.c. Pure
 * functions; any thread. */
#ifndef COVEY_POOL_HASH_H
#define COVEY_POOL_HASH_H

#include "base/bytes.h"

#include <stdbool.h>
#include <stdint.h>

enum pool_hash {
    POOL_HASH_ONE_AT_A_TIME,
    POOL_HASH_MD5,
    POOL_HASH_CRC16,
    POOL_HASH_CRC32,
    POOL_HASH_CRC32A,
    POOL_HASH_FNV1_64,
    POOL_HASH_FNV1A_64,
    POOL_HASH_FNV1_32,
    POOL_HASH_FNV1A_32,
    POOL_HASH_HSIEH,
    POOL_HASH_MURMUR,
    POOL_HASH_JENKINS,
    POOL_HASH_COUNT
};

/* The name in nutcracker.yml: "fnv1a_64". */
const char *pool_hash_name(enum pool_hash h);
/* False: no hash is called so (case counts). */
bool pool_hash_find(struct bytes name, enum pool_hash *out);

uint32_t pool_hash_run(enum pool_hash h, struct bytes key);

/* The part of the key that is hashed: what stands between the first tag[0] and the first tag[1] behind it, when that is
 * not empty, else all of it.  tag: two bytes, or none at all (n == 0). */
struct bytes pool_hash_part(struct bytes key, struct bytes tag);

/* MD5 (RFC 1321) of b, 16 bytes: for placement only, it protects nothing. */
void pool_md5(struct bytes b, uint8_t out[16]);

#endif
