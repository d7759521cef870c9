#include "base/sha1.h"

#include "base/endian.h"

#include <string.h>

struct sha1 {
    uint32_t h[5];
};

static uint32_t rotl(uint32_t v, unsigned n)
{
    return v << n | v >> (32 - n);
}

static void block(struct sha1 *s, const uint8_t *p)
{
    uint32_t w[80];
    for (int t = 0; t < 16; t++) w[t] = load_be32(p + 4 * t);
    for (int t = 16; t < 80; t++) w[t] = rotl(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
    uint32_t a = s->h[0], b = s->h[1], c = s->h[2], d = s->h[3], e = s->h[4];
#define ROUND(from, to, f, k)                              \
    for (int t = from; t < to; t++) {                      \
        uint32_t next = rotl(a, 5) + (f) + e + w[t] + (k); \
        e = d;                                             \
        d = c;                                             \
        c = rotl(b, 30);                                   \
        b = a;                                             \
        a = next;                                          \
    }
    ROUND(0, 20, (b & c) | (~b & d), 0x5a827999u)
    ROUND(20, 40, b ^ c ^ d, 0x6ed9eba1u)
    ROUND(40, 60, (b & c) | (b & d) | (c & d), 0x8f1bbcdcu)
    ROUND(60, 80, b ^ c ^ d, 0xca62c1d6u)
#undef ROUND
    s->h[0] += a;
    s->h[1] += b;
    s->h[2] += c;
    s->h[3] += d;
    s->h[4] += e;
}

void sha1(struct bytes b, uint8_t out[SHA1_SIZE])
{
    struct sha1 s = {{0x67452301u, 0xefcdab89u, 0x98badcfeu, 0x10325476u, 0xc3d2e1f0u}};
    const uint8_t *p = (const uint8_t *)b.p;
    size_t left = b.n;
    for (; left >= 64; left -= 64, p += 64) block(&s, p);
    uint8_t tail[128] = {0};
    if (left) memcpy(tail, p, left);
    tail[left] = 0x80;
    size_t total = left + 9 <= 64 ? 64 : 128;
    store_be64(tail + total - 8, (uint64_t)b.n * 8);
    block(&s, tail);
    if (total == 128) block(&s, tail + 64);
    for (int i = 0; i < 5; i++) store_be32(out + 4 * i, s.h[i]);
}
