/* rdb_legacy.c: ziplists and zipmaps, which old files hold and nobody writes any more.
 *
 *   ziplist: u32 LE bytes | u32 LE offset of the last entry | u16 LE entries (65535: unknown) | entries | FF
 *     entry: length of the one before (1 byte, or FE and u32 LE) | encoding | data
 *   zipmap:  u8 pairs (254 and more: unknown) | pairs | FF
 *     pair: length, field, length, u8 free, value, free bytes; a length is 1 byte, or FE and u32 LE */
#include "base/number.h"
#include "persist/rdb_format.h"
#include "persist/rdb_input.h"

enum { ZL_HEADER = 10, ZL_END = 0xff, ZL_PREV_LONG = 0xfe, ZL_COUNT_UNKNOWN = 65535 };
enum { ZM_END = 0xff, ZM_LONG = 0xfe, ZM_COUNT_UNKNOWN = 254 };

/* What is left to look at. */
struct scan {
    const unsigned char *p, *end;
};

static size_t left(const struct scan *s)
{
    return (size_t)(s->end - s->p);
}

static bool take(struct scan *s, size_t n, struct bytes *out)
{
    if (n > left(s)) return false;
    *out = bytes_make(s->p, n);
    s->p += n;
    return true;
}

/* Size of the integer that a ziplist encoding byte stands for; 0: none. */
static unsigned zl_int_bytes(unsigned enc)
{
    switch (enc) {
    case 0xfe: return 1;
    case 0xc0: return 2;
    case 0xf0: return 3;
    case 0xd0: return 4;
    case 0xe0: return 8;
    default: return 0;
    }
}

static bool zl_string(struct scan *s, unsigned enc, struct bytes *out)
{
    size_t n = enc & 63;
    if (enc >> 6 == 1) {
        if (left(s) < 1) return false;
        n = n << 8 | *s->p++;
    } else if (enc >> 6 == 2) {
        if (left(s) < 4) return false;
        n = (size_t)s->p[0] << 24 | (size_t)s->p[1] << 16 | (size_t)s->p[2] << 8 | s->p[3];
        s->p += 4;
    }
    return take(s, n, out);
}

static bool zl_int(struct scan *s, unsigned enc, char digits[24], struct bytes *out)
{
    int64_t v = (int64_t)enc - 0xf1;
    if (enc < 0xf1 || enc > 0xfd) {
        unsigned bytes = zl_int_bytes(enc);
        struct bytes raw;
        if (bytes == 0 || !take(s, bytes, &raw)) return false;
        uint64_t u = get_le((const unsigned char *)raw.p, bytes), sign = 1ull << (8 * bytes - 1);
        v = (int64_t)((u ^ sign) - sign);
    }
    *out = bytes_make(digits, format_i64(digits, v));
    return true;
}

static bool zl_entry(struct scan *s, size_t previous, char digits[24], struct bytes *out)
{
    size_t stated = *s->p++;
    if (stated == ZL_PREV_LONG) {
        if (left(s) < 4) return false;
        stated = (size_t)get_le(s->p, 4);
        s->p += 4;
    }
    if (stated != previous || left(s) < 1) return false;
    unsigned enc = *s->p++;
    return enc >> 6 == 3 ? zl_int(s, enc, digits, out) : zl_string(s, enc, out);
}

enum status ziplist_each(struct bytes blob, legacy_fn *emit, void *ctx)
{
    const unsigned char *z = (const unsigned char *)blob.p;
    if (blob.n <= ZL_HEADER || get_le(z, 4) != blob.n || z[blob.n - 1] != ZL_END) return E_CORRUPT;
    struct scan s = {z + ZL_HEADER, z + blob.n - 1};
    size_t previous = 0, count = 0, stated = (size_t)get_le(z + 8, 2);
    const unsigned char *last = s.p;
    while (s.p < s.end) {
        char digits[24];
        struct bytes text;
        last = s.p;
        if (*s.p == ZL_END || !zl_entry(&s, previous, digits, &text)) return E_CORRUPT;
        previous = (size_t)(s.p - last);
        count++;
        enum status st = emit(ctx, text);
        if (st != OK) return st;
    }
    if (stated != ZL_COUNT_UNKNOWN && stated != count) return E_CORRUPT;
    return get_le(z + 4, 4) == (size_t)(last - z) ? OK : E_CORRUPT;
}

static bool zm_length(struct scan *s, size_t *n)
{
    if (left(s) < 1 || *s->p == ZM_END) return false;
    *n = *s->p++;
    if (*n < ZM_LONG) return true;
    if (left(s) < 4) return false;
    *n = (size_t)get_le(s->p, 4);
    s->p += 4;
    return true;
}

static bool zm_pair(struct scan *s, struct bytes *field, struct bytes *value)
{
    size_t n;
    struct bytes unused;
    if (!zm_length(s, &n) || !take(s, n, field) || !zm_length(s, &n) || left(s) < 1) return false;
    unsigned free_bytes = *s->p++;
    return take(s, n, value) && take(s, free_bytes, &unused);
}

enum status zipmap_each(struct bytes blob, legacy_fn *emit, void *ctx)
{
    const unsigned char *z = (const unsigned char *)blob.p;
    if (blob.n < 2 || z[blob.n - 1] != ZM_END) return E_CORRUPT;
    struct scan s = {z + 1, z + blob.n - 1};
    size_t count = 0;
    while (s.p < s.end) {
        struct bytes field, value;
        if (!zm_pair(&s, &field, &value)) return E_CORRUPT;
        count++;
        enum status st = emit(ctx, field);
        if (st == OK) st = emit(ctx, value);
        if (st != OK) return st;
    }
    return z[0] >= ZM_COUNT_UNKNOWN || z[0] == count ? OK : E_CORRUPT;
}
