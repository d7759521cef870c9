#include "command/bits.h"

#include <assert.h>

static uint64_t load64(const char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* ---- Counting ---------------------------------------------------------------------------------------------------- */

/* Four sums, so that the additions do not wait for each other. */
#define COUNT_BODY(b)                                                                            \
    uint64_t sum[4] = {0, 0, 0, 0};                                                              \
    const char *p = (b).p;                                                                       \
    size_t n = (b).n;                                                                            \
    for (; n >= 32; n -= 32, p += 32)                                                            \
        for (int i = 0; i < 4; i++) sum[i] += (unsigned)__builtin_popcountll(load64(p + 8 * i)); \
    for (; n > 0; n--, p++) sum[0] += (unsigned)__builtin_popcount((unsigned char)*p);           \
    return sum[0] + sum[1] + sum[2] + sum[3]

#if defined(__x86_64__)
/* The same code with the processor's own instruction, which the base architecture does not promise. */
__attribute__((target("popcnt"))) static uint64_t count_popcnt(struct bytes b)
{
    COUNT_BODY(b);
}
#endif

static uint64_t count_plain(struct bytes b)
{
    COUNT_BODY(b);
}

uint64_t bits_count(struct bytes b)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("popcnt")) return count_popcnt(b);
#endif
    return count_plain(b);
}

/* ---- Searching --------------------------------------------------------------------------------------------------- */

uint64_t bits_find(struct bytes b, bool bit)
{
    uint64_t skip = bit ? 0 : UINT64_MAX;
    unsigned char skip_byte = bit ? 0 : 0xff;
    size_t at = 0;
    for (; at + 32 <= b.n; at += 32) {
        const char *p = b.p + at;
        uint64_t other =
            (load64(p) ^ skip) | (load64(p + 8) ^ skip) | (load64(p + 16) ^ skip) | (load64(p + 24) ^ skip);
        if (other) break;
    }
    for (; at < b.n; at++) {
        unsigned char other = (unsigned char)b.p[at] ^ skip_byte;
        if (other) return (uint64_t)at * 8 + (unsigned)__builtin_clz(other) - 24;
    }
    return (uint64_t)b.n * 8;
}

/* ---- Combining --------------------------------------------------------------------------------------------------- */

/* 32 bytes at a time, whatever registers the machine has. */
typedef uint64_t wide __attribute__((vector_size(32)));

#define INTO(name, op)                                     \
    static void name(char *out, const char *in, size_t n)  \
    {                                                      \
        size_t i = 0;                                      \
        for (; i + sizeof(wide) <= n; i += sizeof(wide)) { \
            wide x, y;                                     \
            memcpy(&x, out + i, sizeof x);                 \
            memcpy(&y, in + i, sizeof y);                  \
            x op y;                                        \
            memcpy(out + i, &x, sizeof x);                 \
        }                                                  \
        for (; i < n; i++) out[i] op in[i];                \
    }
INTO(and_into, &=)
INTO(or_into, |=)
INTO(xor_into, ^=)
#undef INTO

static void invert(char *out, const char *in, size_t n)
{
    size_t i = 0;
    for (; i + sizeof(wide) <= n; i += sizeof(wide)) {
        wide x;
        memcpy(&x, in + i, sizeof x);
        x = ~x;
        memcpy(out + i, &x, sizeof x);
    }
    for (; i < n; i++) out[i] = (char)~in[i];
}

static struct bytes part(struct bytes b, size_t at, size_t n)
{
    if (at >= b.n) return (struct bytes){b.p, 0};
    return bytes_make(b.p + at, b.n - at < n ? b.n - at : n);
}

/* One block of the result, which stays in the cache while the inputs pass by. */
static void combine_block(enum bits_op op, const struct bytes *in, size_t n, size_t at, char *out, size_t size)
{
    struct bytes first = part(in[0], at, size);
    if (op == BITS_NOT) {
        invert(out, first.p, first.n);
        return;
    }
    if (first.n && first.p != out) memcpy(out, first.p, first.n);
    memset(out + first.n, 0, size - first.n);
    for (size_t i = 1; i < n; i++) {
        struct bytes next = part(in[i], at, size);
        switch (op) {
        case BITS_AND:
            and_into(out, next.p, next.n);
            memset(out + next.n, 0, size - next.n);
            break;
        case BITS_OR: or_into(out, next.p, next.n); break;
        default: xor_into(out, next.p, next.n); break;
        }
    }
}

void bits_combine(enum bits_op op, const struct bytes *in, size_t n, char *out, size_t out_size)
{
    enum { BLOCK = 16 * 1024 };
    for (size_t at = 0; at < out_size; at += BLOCK)
        combine_block(op, in, n, at, out + at, out_size - at < BLOCK ? out_size - at : BLOCK);
}

/* ---- Fields ------------------------------------------------------------------------------------------------------ */

uint64_t bits_get(struct bytes b, uint64_t at, unsigned width)
{
    assert(width >= 1 && width <= 64);
    uint64_t byte = at / 8, value = 0;
    unsigned skip = at % 8, have = 0; /* bits of the first byte before the field; bits gathered */
    for (; have < width; byte++, skip = 0) {
        unsigned take = 8 - skip < width - have ? 8 - skip : width - have;
        unsigned bits = byte < b.n ? (unsigned char)b.p[byte] : 0;
        value = value << take | (bits >> (8 - skip - take) & ((1u << take) - 1));
        have += take;
    }
    return value;
}

void bits_set(char *p, uint64_t at, unsigned width, uint64_t value)
{
    assert(width >= 1 && width <= 64);
    unsigned skip = at % 8, left = width;
    for (p += at / 8; left > 0; p++, skip = 0) {
        unsigned take = 8 - skip < left ? 8 - skip : left, shift = 8 - skip - take;
        unsigned mask = ((1u << take) - 1) << shift;
        left -= take;
        *p = (char)(((unsigned char)*p & ~mask) | ((unsigned)(value >> left) << shift & mask));
    }
}
