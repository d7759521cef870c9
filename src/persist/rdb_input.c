#include "persist/rdb_input.h"

#include "base/crc.h"
#include "base/mem.h"
#include "base/number.h"
#include "persist/rdb_format.h"

#include <errno.h>
#include <liblzf/lzf.h>
#include <stdio.h>

enum { IN_GROW_MIN = 64 * 1024 };
/* The densest LZF item: three bytes that stand for 264. */
enum { LZF_RATIO_MAX = 88 };

void in_init(struct rdb_in *in, struct rdb_source source, const struct store_limits *limits)
{
    in_init_window(in, source, limits, IN_WINDOW_BYTES);
}

void in_init_window(struct rdb_in *in, struct rdb_source source, const struct store_limits *limits, size_t window)
{
    *in = (struct rdb_in){.source = source, .limits = limits, .cap = window, .own = true, .checksum = true};
    in->window = mem_alloc(window);
}

void in_init_bytes(struct rdb_in *in, struct bytes b, const struct store_limits *limits)
{
    *in = (struct rdb_in){.limits = limits, .window = (unsigned char *)(uintptr_t)b.p, .n = b.n};
    in->source.size = b.n;
}

void in_deinit(struct rdb_in *in)
{
    if (in->own) mem_free(in->window);
    for (size_t i = 0; i < sizeof in->text / sizeof in->text[0]; i++) buf_deinit(&in->text[i]);
    buf_deinit(&in->compressed);
}

void in_set_error(struct rdb_in *in, enum status st, const char *fmt, ...)
{
    if (in->st != OK) return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(in->what, sizeof in->what, fmt, ap);
    va_end(ap);
    in->st = st;
}

uint64_t in_crc(struct rdb_in *in)
{
    if (in->checksum && in->pos > in->summed) in->crc = crc64(in->crc, in->window + in->summed, in->pos - in->summed);
    in->summed = in->pos;
    return in->crc;
}

static bool source_read(struct rdb_in *in, void *p, size_t n, size_t *got)
{
    if (in->st != OK) return false;
    *got = 0;
    if (!in->source.read) return true;
    enum status st = in->source.read(in->source.ctx, p, n, got);
    return st == OK || in_fail(in, st, "reading failed: %s", st == E_IO ? strerror(errno) : status_name(st));
}

/* Gets more bytes into the window, whose read part is let go of.  *got 0: the input is at its end. */
static bool window_fill(struct rdb_in *in, size_t *got)
{
    *got = 0;
    if (!in->own) return true;
    in_crc(in);
    in->before += in->pos;
    in->n -= in->pos;
    memmove(in->window, in->window + in->pos, in->n);
    in->pos = in->summed = 0;
    if (!source_read(in, in->window + in->n, in->cap - in->n, got)) return false;
    in->n += *got;
    return true;
}

bool in_fill(struct rdb_in *in, size_t *got)
{
    *got = 0;
    return in->n - in->pos == in->cap || window_fill(in, got);
}

unsigned char *in_window_take(struct rdb_in *in, size_t at, unsigned char *fresh)
{
    unsigned char *taken = in->window;
    in->pos = at;
    in_crc(in);
    in->n -= at;
    memcpy(fresh, taken + at, in->n);
    in->before += at;
    in->pos = in->summed = 0;
    in->window = fresh;
    return taken;
}

bool in_more(struct rdb_in *in)
{
    size_t got;
    if (in->st != OK) return false;
    return in->pos < in->n || (window_fill(in, &got) && got > 0);
}

static bool too_short(struct rdb_in *in)
{
    return in_fail(in, E_CLOSED, "unexpected end of the input");
}

/* Makes n bytes stand in the window in one piece; n <= IN_WINDOW_BYTES. */
static bool window_need(struct rdb_in *in, size_t n)
{
    while (in->n - in->pos < n) {
        size_t got;
        if (!window_fill(in, &got)) return false;
        if (got == 0) return too_short(in);
    }
    return true;
}

/* n bytes, in the window, read; NULL on error. */
static const unsigned char *window_take(struct rdb_in *in, size_t n)
{
    if (in->n - in->pos < n && !window_need(in, n)) return NULL;
    const unsigned char *p = in->window + in->pos;
    in->pos += n;
    return p;
}

/* Large pieces pass by the window. */
static bool source_direct(struct rdb_in *in, char *p, size_t n)
{
    in_crc(in);
    in->before += in->pos;
    in->pos = in->n = in->summed = 0;
    while (n) {
        size_t got;
        if (!source_read(in, p, n, &got)) return false;
        if (got == 0) return too_short(in);
        if (in->checksum) in->crc = crc64(in->crc, p, got);
        in->before += got;
        p += got;
        n -= got;
    }
    return true;
}

bool in_bytes(struct rdb_in *in, void *p, size_t n)
{
    size_t have = in->n - in->pos, head = n < have ? n : have;
    const unsigned char *at = window_take(in, head);
    if (!at) return false;
    if (head) memcpy(p, at, head);
    n -= head;
    if (n == 0) return true;
    if (n >= IN_WINDOW_BYTES / 2 && in->own) return source_direct(in, (char *)p + head, n);
    if (n > IN_WINDOW_BYTES) return too_short(in);
    at = window_take(in, n);
    if (at) memcpy((char *)p + head, at, n);
    return at != NULL;
}

bool in_byte(struct rdb_in *in, unsigned *v)
{
    const unsigned char *p = window_take(in, 1);
    if (!p) return false;
    *v = *p;
    return true;
}

bool in_le(struct rdb_in *in, unsigned bytes, uint64_t *v)
{
    const unsigned char *p = window_take(in, bytes);
    if (!p) return false;
    *v = get_le(p, bytes);
    return true;
}

static bool length_rest(struct rdb_in *in, unsigned first, uint64_t *n)
{
    unsigned bytes = first == RDB_LEN_32 ? 4 : 8;
    if (first >> 6 == 0) {
        *n = first;
        return true;
    }
    if (first >> 6 == 1) {
        unsigned low;
        if (!in_byte(in, &low)) return false;
        *n = (uint64_t)(first & 63) << 8 | low;
        return true;
    }
    if (first != RDB_LEN_32 && first != RDB_LEN_64) return in_fail(in, E_CORRUPT, "byte 0x%02x is no length", first);
    const unsigned char *p = window_take(in, bytes);
    if (!p) return false;
    *n = 0;
    for (unsigned i = 0; i < bytes; i++) *n = *n << 8 | p[i];
    return true;
}

bool in_length(struct rdb_in *in, uint64_t *n)
{
    unsigned first;
    return in_byte(in, &first) && length_rest(in, first, n);
}

/* Refuses n more bytes that the input cannot have. */
static bool can_have(struct rdb_in *in, uint64_t n)
{
    uint64_t at = in_offset(in);
    if (in->source.size && (at > in->source.size || n > in->source.size - at))
        return in_fail(in, E_CLOSED, "a string of %llu bytes reaches beyond the end", (unsigned long long)n);
    if (n > SIZE_MAX / 4) return in_fail(in, E_CORRUPT, "a string of %llu bytes", (unsigned long long)n);
    return true;
}

/* n bytes into b, which grows with what has arrived. */
static bool read_into(struct rdb_in *in, struct buf *b, size_t n)
{
    b->n = 0;
    while (b->n < n) {
        size_t step = n - b->n;
        size_t most = b->n > IN_GROW_MIN ? b->n : IN_GROW_MIN;
        if (!in->source.size && step > most) step = most;
        if (buf_try_reserve(b, step) != OK) return in_fail(in, E_NOMEM, "no memory for a string of %zu bytes", n);
        if (!in_bytes(in, b->p + b->n, step)) return false;
        b->n += step;
    }
    return true;
}

/* Raw bytes: where they stand when that is in one piece, else in b. */
static bool raw_bytes(struct rdb_in *in, uint64_t n, struct buf *b, bool keep, struct bytes *out)
{
    if (!can_have(in, n)) return false;
    if (!keep && (n <= in->n - in->pos || n <= IN_WINDOW_BYTES / 8)) {
        const unsigned char *p = window_take(in, (size_t)n);
        *out = bytes_make(p, (size_t)n);
        return p != NULL;
    }
    if (!read_into(in, b, (size_t)n)) return false;
    *out = buf_bytes(b);
    return true;
}

static bool lzf_string(struct rdb_in *in, struct buf *b, struct bytes *out)
{
    uint64_t packed, n;
    struct bytes from;
    if (!in_length(in, &packed) || !in_length(in, &n)) return false;
    if (packed == 0 || n == 0 || n > UINT32_MAX || packed > UINT32_MAX || n > packed * LZF_RATIO_MAX)
        return in_fail(in, E_CORRUPT, "a compressed string of %llu bytes that stand for %llu",
                       (unsigned long long)packed, (unsigned long long)n);
    if (!raw_bytes(in, packed, &in->compressed, false, &from)) return false;
    b->n = 0;
    if (buf_try_reserve(b, (size_t)n) != OK)
        return in_fail(in, E_NOMEM, "no memory for a string of %llu bytes", (unsigned long long)n);
    if (lzf_decompress(from.p, (unsigned)from.n, b->p, (unsigned)n) != n)
        return in_fail(in, E_CORRUPT, "a compressed string is damaged");
    b->n = (size_t)n;
    *out = buf_bytes(b);
    return true;
}

static bool int_string(struct rdb_in *in, unsigned first, struct buf *b, struct bytes *out)
{
    unsigned bytes = first == RDB_ENC_INT8 ? 1 : first == RDB_ENC_INT16 ? 2 : 4;
    const unsigned char *p = window_take(in, bytes);
    if (!p) return false;
    uint64_t v = get_le(p, bytes), sign = 1ull << (8 * bytes - 1);
    buf_reserve(b, 24);
    b->n = format_i64(b->p, (int64_t)((v ^ sign) - sign));
    *out = buf_bytes(b);
    return true;
}

bool in_string(struct rdb_in *in, int scratch, bool keep, struct bytes *out)
{
    struct buf *b = &in->text[scratch];
    unsigned first;
    uint64_t n;
    if (!in_byte(in, &first)) return false;
    if (first == RDB_ENC_LZF) return lzf_string(in, b, out);
    if (first >= RDB_ENC_INT8 && first <= RDB_ENC_INT32) return int_string(in, first, b, out);
    if (first > RDB_ENC_LZF) return in_fail(in, E_CORRUPT, "unknown string encoding 0x%02x", first);
    return length_rest(in, first, &n) && raw_bytes(in, n, b, keep, out);
}

size_t printable(struct bytes key, char *out, size_t cap)
{
    size_t n = key.n < cap ? key.n : cap - 1;
    for (size_t i = 0; i < n; i++) out[i] = key.p[i] >= ' ' && key.p[i] <= '~' ? key.p[i] : '?';
    out[n] = 0;
    return n;
}
