#include "base/crc.h"

#include <isa-l/crc64.h>

/* table[k][b]: the remainder of byte b with k zero bytes behind it.  Byte by byte every look-up waits for the one
 * before; with eight tables the look-ups of eight bytes are independent (M. Kounavis and F. Berry, "A Systematic
 * Approach to Building High Performance Software-Based CRC Generators", 2005). */
enum { SLICES = 8 };
static uint16_t table[SLICES][256];

static inline uint16_t crc16_byte(uint16_t crc, unsigned char byte)
{
    return (uint16_t)((crc << 8) ^ table[0][(crc >> 8) ^ byte]);
}

__attribute__((constructor)) static void table_fill(void)
{
    for (unsigned i = 0; i < 256; i++) {
        unsigned crc = i << 8;
        for (int bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1;
        table[0][i] = (uint16_t)crc;
    }
    for (unsigned k = 1; k < SLICES; k++)
        for (unsigned i = 0; i < 256; i++) table[k][i] = crc16_byte(table[k - 1][i], 0);
}

uint16_t crc16(struct bytes b)
{
    const unsigned char *p = (const unsigned char *)b.p;
    size_t n = b.n;
    uint16_t crc = 0;
    for (; n >= SLICES; n -= SLICES, p += SLICES)
        crc = table[7][p[0] ^ (crc >> 8)] ^ table[6][p[1] ^ (crc & 0xff)] ^ table[5][p[2]] ^ table[4][p[3]] ^
              table[3][p[4]] ^ table[2][p[5]] ^ table[1][p[6]] ^ table[0][p[7]];
    for (; n > 0; n--) crc = crc16_byte(crc, *p++);
    return crc;
}

uint64_t crc64(uint64_t crc, const void *p, size_t n)
{
    /* ISA-L inverts at both ends; the Redis variant of the Jones polynomial does not. */
    return ~crc64_jones_refl(~crc, p, n);
}

struct bytes key_hash_tag(struct bytes key)
{
    const char *open = key.n ? memchr(key.p, '{', key.n) : NULL;
    if (!open) return key;
    const char *inside = open + 1;
    size_t left = key.n - (size_t)(inside - key.p);
    const char *shut = left ? memchr(inside, '}', left) : NULL;
    if (!shut || shut == inside) return key;
    return bytes_make(inside, (size_t)(shut - inside));
}

unsigned key_slot(struct bytes key)
{
    return crc16(key_hash_tag(key)) & (SLOT_COUNT - 1);
}
