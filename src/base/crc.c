#include "base/crc.h"

#include <isa-l/crc64.h>

static uint16_t table[256];

__attribute__((constructor)) static void table_fill(void)
{
    for (unsigned i = 0; i < 256; i++) {
        unsigned crc = i << 8;
        for (int bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1;
        table[i] = (uint16_t)crc;
    }
}

uint16_t crc16(struct bytes b)
{
    uint16_t crc = 0;
    for (size_t i = 0; i < b.n; i++) crc = (uint16_t)((crc << 8) ^ table[((crc >> 8) ^ (unsigned char)b.p[i]) & 0xff]);
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
