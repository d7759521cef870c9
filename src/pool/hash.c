#include "pool/hash.h"

#include "base/crc.h"

#include <assert.h>

static const char *const names[POOL_HASH_COUNT] = {
    [POOL_HASH_ONE_AT_A_TIME] = "one_at_a_time",
    [POOL_HASH_MD5] = "md5",
    [POOL_HASH_CRC16] = "crc16",
    [POOL_HASH_CRC32] = "crc32",
    [POOL_HASH_CRC32A] = "crc32a",
    [POOL_HASH_FNV1_64] = "fnv1_64",
    [POOL_HASH_FNV1A_64] = "fnv1a_64",
    [POOL_HASH_FNV1_32] = "fnv1_32",
    [POOL_HASH_FNV1A_32] = "fnv1a_32",
    [POOL_HASH_HSIEH] = "hsieh",
    [POOL_HASH_MURMUR] = "murmur",
    [POOL_HASH_JENKINS] = "jenkins",
};

const char *pool_hash_name(enum pool_hash h)
{
    return names[h];
}

bool pool_hash_find(struct bytes name, enum pool_hash *out)
{
    for (int h = 0; h < POOL_HASH_COUNT; h++)
        if (bytes_eq(name, bytes_of(names[h]))) {
            *out = (enum pool_hash)h;
            return true;
        }
    return false;
}

/* nutcracker reads keys through plain char, which is signed where it was built first: a byte of 0x80 and up counts as a
 * negative number in the functions that use this. */
static uint32_t signed_byte(char c)
{
    return (uint32_t)(int32_t)(int8_t)c;
}

static uint32_t little_endian(const char *p, size_t n)
{
    uint32_t v = 0;
    for (size_t i = 0; i < n; i++) v |= (uint32_t)(uint8_t)p[i] << (8 * i);
    return v;
}

static uint32_t rotate(uint32_t v, unsigned by)
{
    return v << by | v >> (32 - by);
}

/* Bob Jenkins, "Hash functions", Dr. Dobb's Journal, September 1997; bytes are signed here. */
static uint32_t one_at_a_time(struct bytes key)
{
    uint32_t h = 0;
    for (size_t i = 0; i < key.n; i++) {
        h += signed_byte(key.p[i]);
        h += h << 10;
        h ^= h >> 6;
    }
    h += h << 3;
    h ^= h >> 11;
    return h + (h << 15);
}

static uint32_t md5(struct bytes key)
{
    uint8_t digest[16];
    pool_md5(key, digest);
    return little_endian((const char *)digest, 4);
}

/* The step of CRC-16/XMODEM, but the register keeps 32 bits: what is shifted out on the left stays. */
static uint32_t crc16_wide(struct bytes key)
{
    uint32_t crc = 0;
    for (size_t i = 0; i < key.n; i++) {
        char index = (char)(crc >> 8 ^ (uint8_t)key.p[i]);
        crc = crc << 8 ^ crc16(bytes_make(&index, 1)); /* of one byte: the entry of the usual table */
    }
    return crc;
}

/* CRC-32 of ISO 3309 (polynomial 0x04c11db7, reflected).  Four bits a step: a table of 16 entries. */
static uint32_t crc32_iso(struct bytes key)
{
    static const uint32_t step[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
                                      0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                                      0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < key.n; i++) {
        crc ^= (uint8_t)key.p[i];
        crc = crc >> 4 ^ step[crc & 15];
        crc = crc >> 4 ^ step[crc & 15];
    }
    return ~crc;
}

/* Fowler, Noll and Vo.  The prime is 0x01000193, or 0x100000001b3 for 64 bits. */
static uint32_t fnv1_32(struct bytes key)
{
    uint32_t h = 0x811c9dc5;
    for (size_t i = 0; i < key.n; i++) h = h * 0x01000193 ^ signed_byte(key.p[i]);
    return h;
}

static uint32_t fnv1a_32(struct bytes key)
{
    uint32_t h = 0x811c9dc5;
    for (size_t i = 0; i < key.n; i++) h = (h ^ signed_byte(key.p[i])) * 0x01000193;
    return h;
}

/* The lower half of the 64-bit hash, in which nothing of the upper half shows. */
static uint32_t fnv1_64(struct bytes key)
{
    uint32_t h = 0x84222325;
    for (size_t i = 0; i < key.n; i++) h = h * 0x1b3 ^ signed_byte(key.p[i]);
    return h;
}

/* Computed in 32 bits, with the lower half of start and prime. */
static uint32_t fnv1a_64(struct bytes key)
{
    uint32_t h = 0x84222325;
    for (size_t i = 0; i < key.n; i++) h = (h ^ signed_byte(key.p[i])) * 0x1b3;
    return h;
}

/* Paul Hsieh's SuperFastHash, starting from 0 instead of the length. */
static uint32_t hsieh(struct bytes key)
{
    uint32_t h = 0;
    const char *p = key.p;
    size_t left = key.n;
    for (; left >= 4; left -= 4, p += 4) {
        h += little_endian(p, 2);
        h = h << 16 ^ (little_endian(p + 2, 2) << 11 ^ h);
        h += h >> 11;
    }
    if (left == 3) {
        h += little_endian(p, 2);
        h ^= h << 16;
        h ^= signed_byte(p[2]) << 18;
        h += h >> 11;
    } else if (left == 2) {
        h += little_endian(p, 2);
        h ^= h << 11;
        h += h >> 17;
    } else if (left == 1) {
        h += (uint8_t)*p;
        h ^= h << 10;
        h += h >> 1;
    }
    h ^= h << 3;
    h += h >> 5;
    h ^= h << 4;
    h += h >> 17;
    h ^= h << 25;
    return h + (h >> 6);
}

/* Austin Appleby's MurmurHash2, seeded with 0xdeadbeef times the length. */
static uint32_t murmur(struct bytes key)
{
    const uint32_t m = 0x5bd1e995;
    uint32_t h = (0xdeadbeef * (uint32_t)key.n) ^ (uint32_t)key.n;
    const char *p = key.p;
    size_t left = key.n;
    for (; left >= 4; left -= 4, p += 4) {
        uint32_t k = little_endian(p, 4) * m;
        k = (k ^ k >> 24) * m;
        h = h * m ^ k;
    }
    if (left > 0) h = (h ^ little_endian(p, left)) * m;
    h = (h ^ h >> 13) * m;
    return h ^ h >> 15;
}

static void jenkins_mix(uint32_t v[3])
{
    static const uint8_t turns[6] = {4, 6, 8, 16, 19, 4};
    for (unsigned i = 0; i < 6; i++) {
        uint32_t *a = &v[i % 3], *b = &v[(i + 1) % 3], *c = &v[(i + 2) % 3];
        *a = (*a - *c) ^ rotate(*c, turns[i]);
        *c += *b;
    }
}

/* Bob Jenkins' lookup3 (hashlittle), starting value 13. */
static uint32_t jenkins(struct bytes key)
{
    const char *p = key.p;
    size_t left = key.n;
    uint32_t start = 0xdeadbeef + (uint32_t)key.n + 13, v[3] = {start, start, start};
    for (; left > 12; left -= 12, p += 12) {
        for (int i = 0; i < 3; i++) v[i] += little_endian(p + 4 * i, 4);
        jenkins_mix(v);
    }
    if (left == 0) return v[2];
    for (size_t i = 0; i < left; i += 4) v[i / 4] += little_endian(p + i, left - i < 4 ? left - i : 4);
    static const uint8_t turns[7] = {14, 11, 25, 16, 4, 14, 24};
    for (unsigned i = 0; i < 7; i++) {
        uint32_t *c = &v[(i + 2) % 3], b = v[(i + 1) % 3];
        *c = (*c ^ b) - rotate(b, turns[i]);
    }
    return v[2];
}

uint32_t pool_hash_run(enum pool_hash h, struct bytes key)
{
    switch (h) {
    case POOL_HASH_ONE_AT_A_TIME: return one_at_a_time(key);
    case POOL_HASH_MD5: return md5(key);
    case POOL_HASH_CRC16: return crc16_wide(key);
    case POOL_HASH_CRC32: return crc32_iso(key) >> 16 & 0x7fff; /* as libmemcached has it */
    case POOL_HASH_CRC32A: return crc32_iso(key);
    case POOL_HASH_FNV1_64: return fnv1_64(key);
    case POOL_HASH_FNV1A_64: return fnv1a_64(key);
    case POOL_HASH_FNV1_32: return fnv1_32(key);
    case POOL_HASH_FNV1A_32: return fnv1a_32(key);
    case POOL_HASH_HSIEH: return hsieh(key);
    case POOL_HASH_MURMUR: return murmur(key);
    case POOL_HASH_JENKINS: return jenkins(key);
    case POOL_HASH_COUNT: break;
    }
    assert(!"a hash function that does not exist");
    return 0;
}

struct bytes pool_hash_part(struct bytes key, struct bytes tag)
{
    if (tag.n != 2 || key.n == 0) return key;
    const char *open = memchr(key.p, tag.p[0], key.n);
    if (!open) return key;
    open++;
    size_t left = key.n - (size_t)(open - key.p);
    const char *close = left > 0 ? memchr(open, tag.p[1], left) : NULL;
    if (!close || close == open) return key;
    return bytes_make(open, (size_t)(close - open));
}
