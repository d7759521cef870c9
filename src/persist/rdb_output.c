#include "persist/rdb_output.h"

#include "base/crc.h"
#include "base/mem.h"
#include "base/number.h"
#include "persist/rdb_format.h"
#include "persist/rdb_pack.h"

#include <liblzf/lzf.h>

enum { LZF_STRING_MIN = 21, LZF_SAVED_MIN = 4 };

void out_deinit(struct rdb_out *o)
{
    buf_deinit(&o->b);
    buf_deinit(&o->packed);
    mem_free(o->packer);
}

static void hand_over(struct rdb_out *o, const void *p, size_t n)
{
    if (o->st != OK || n == 0) return;
    if (o->checksum) o->crc = crc64(o->crc, p, n);
    o->flushed += n;
    o->st = o->sink.write(o->sink.ctx, p, n);
}

enum status out_flush(struct rdb_out *o)
{
    if (!o->sink.write) return o->st;
    hand_over(o, o->b.p, o->b.n);
    o->b.n = o->entry_start = 0;
    return o->st;
}

void out_entry_begin(struct rdb_out *o)
{
    o->entry_start = o->b.n;
}

/* Room for n bytes behind the buffer's end, NULL after an error. */
static unsigned char *out_room(struct rdb_out *o, size_t n)
{
    if (o->st != OK) return NULL;
    if (o->b.cap - o->b.n < n) {
        o->st = buf_try_reserve(&o->b, n);
        if (o->st != OK) return NULL;
    }
    return (unsigned char *)o->b.p + o->b.n;
}

void out_bytes(struct rdb_out *o, const void *p, size_t n)
{
    if (n == 0) return;
    if (o->sink.write && o->b.n - o->entry_start + n >= OUT_FLUSH_BYTES) {
        out_flush(o);
        if (n >= OUT_FLUSH_BYTES) {
            hand_over(o, p, n);
            return;
        }
    }
    unsigned char *at = out_room(o, n);
    if (!at) return;
    memcpy(at, p, n);
    o->b.n += n;
}

void out_byte(struct rdb_out *o, unsigned v)
{
    unsigned char *at = out_room(o, 1);
    if (!at) return;
    *at = (unsigned char)v;
    o->b.n++;
}

void out_length(struct rdb_out *o, uint64_t n)
{
    unsigned char *at = out_room(o, 9);
    if (!at) return;
    if (n < 1 << 6) {
        at[0] = (unsigned char)n;
        o->b.n += 1;
    } else if (n < 1 << 14) {
        at[0] = (unsigned char)(RDB_LEN_14 | n >> 8);
        at[1] = (unsigned char)n;
        o->b.n += 2;
    } else {
        unsigned bytes = n <= UINT32_MAX ? 4 : 8;
        at[0] = bytes == 4 ? RDB_LEN_32 : RDB_LEN_64;
        for (unsigned i = 0; i < bytes; i++) at[1 + i] = (unsigned char)(n >> (8 * (bytes - 1 - i)));
        o->b.n += 1 + bytes;
    }
}

static void out_i32(struct rdb_out *o, int32_t v)
{
    unsigned char *at = out_room(o, 5);
    if (!at) return;
    unsigned bytes = v == (int8_t)v ? 1 : v == (int16_t)v ? 2 : 4;
    at[0] = bytes == 1 ? RDB_ENC_INT8 : bytes == 2 ? RDB_ENC_INT16 : RDB_ENC_INT32;
    put_le(at + 1, (uint32_t)v, bytes);
    o->b.n += 1 + bytes;
}

/* Strings that are the canonical text of a 32-bit integer are written as that. */
static bool is_i32(struct bytes s, int32_t *out)
{
    int64_t v;
    if (s.n == 0 || s.n > 11 || s.p[0] > '9' || !parse_i64(s, &v) || v != (int32_t)v) return false;
    *out = (int32_t)v;
    return true;
}

/* Whether LZF cannot make a short string shorter by LZF_SAVED_MIN bytes, seen without running it.  A copied run of L
 * bytes saves L - 2 at most and holds L - 2 groups of three bytes that stood earlier in the text; so a text with fewer
 * such repetitions than bytes to be saved is left alone.  A bit for each group seen, indexed by a hash: collisions only
 * make it look more repetitive. */
static bool packs_surely_not(struct bytes s)
{
    enum { PROBE_MAX = 160, PROBE_BITS = 13 };
    uint64_t seen[(1 << PROBE_BITS) / 64] = {0};
    unsigned repeated = 0;
    if (s.n > PROBE_MAX) return false;
    uint32_t group = (uint32_t)(unsigned char)s.p[0] << 8 | (unsigned char)s.p[1];
    for (size_t i = 2; i < s.n; i++) {
        group = (group << 8 | (unsigned char)s.p[i]) & 0xffffff;
        uint32_t bit = group * 0x9e3779b1u >> (32 - PROBE_BITS);
        repeated += seen[bit / 64] >> (bit % 64) & 1;
        if (repeated >= LZF_SAVED_MIN) return false;
        seen[bit / 64] |= 1ull << (bit % 64);
    }
    return true;
}

/* Bytes that s takes compressed, in o->packed; 0 when that does not save LZF_SAVED_MIN of them. */
static size_t compress(struct rdb_out *o, struct bytes s)
{
    if (!o->packer && packs_surely_not(s)) return 0;
    o->packed.n = 0;
    if (buf_try_reserve(&o->packed, s.n) != OK) return 0;
    if (o->packer) return pack(o->packer, s.p, s.n, o->packed.p, s.n - LZF_SAVED_MIN);
    return lzf_compress(s.p, (unsigned)s.n, o->packed.p, (unsigned)s.n - LZF_SAVED_MIN);
}

/* False when compression does not pay, or has no memory: the string is written as it is then. */
static bool out_packed(struct rdb_out *o, struct bytes s)
{
    if (!o->compress || s.n < LZF_STRING_MIN || s.n > PACK_INPUT_MAX) return false;
    size_t n = compress(o, s);
    if (n == 0) return false;
    out_byte(o, RDB_ENC_LZF);
    out_length(o, n);
    out_length(o, s.n);
    out_bytes(o, o->packed.p, n);
    if (o->packed.cap > OUT_FLUSH_BYTES) buf_deinit(&o->packed);
    return true;
}

void out_string(struct rdb_out *o, struct bytes s)
{
    int32_t v;
    if (is_i32(s, &v)) {
        out_i32(o, v);
        return;
    }
    if (out_packed(o, s)) return;
    out_length(o, s.n);
    out_bytes(o, s.p, s.n);
}

void out_i64_string(struct rdb_out *o, int64_t v)
{
    char text[24];
    if (v == (int32_t)v)
        out_i32(o, (int32_t)v);
    else
        out_string(o, bytes_make(text, format_i64(text, v)));
}
