/* endian.h: integers of the wire formats, of either byte order, at any address; the compiler makes one load or store of
 * each.  Pure functions; any thread. */
#ifndef COVEY_BASE_ENDIAN_H
#define COVEY_BASE_ENDIAN_H

#include <stdint.h>

static inline uint16_t load_be16(const void *at)
{
    const uint8_t *p = at;
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t load_be32(const void *at)
{
    const uint8_t *p = at;
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint64_t load_be64(const void *at)
{
    const uint8_t *p = at;
    return (uint64_t)load_be32(p) << 32 | load_be32(p + 4);
}

static inline uint32_t load_le32(const void *at)
{
    const uint8_t *p = at;
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

static inline void store_be16(void *at, unsigned v)
{
    uint8_t *p = at;
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static inline void store_be32(void *at, uint32_t v)
{
    store_be16(at, v >> 16);
    store_be16((uint8_t *)at + 2, v);
}

static inline void store_be64(void *at, uint64_t v)
{
    store_be32(at, (uint32_t)(v >> 32));
    store_be32((uint8_t *)at + 4, (uint32_t)v);
}

static inline void store_le32(void *at, uint32_t v)
{
    uint8_t *p = at;
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (8 * i));
}

#endif
