#include "persist/rdb_extent.h"

#include "persist/rdb_format.h"

#include <stdbool.h>
#include <stdint.h>

struct walk {
    const unsigned char *at, *end;
    enum rdb_extent verdict; /* why a step returned false */
};

static bool stop(struct walk *w, enum rdb_extent verdict)
{
    w->verdict = verdict;
    return false;
}

static bool pass(struct walk *w, uint64_t n)
{
    if (n > (uint64_t)(w->end - w->at)) return stop(w, RDB_EXTENT_SHORT);
    w->at += n;
    return true;
}

static bool length_behind(struct walk *w, unsigned first, uint64_t *n)
{
    unsigned bytes = first >> 6 == 1 ? 1 : first == RDB_LEN_32 ? 4 : first == RDB_LEN_64 ? 8 : 0;
    if (bytes == 0 && first >> 6 != 0) return stop(w, RDB_EXTENT_OTHER);
    const unsigned char *p = w->at;
    if (!pass(w, bytes)) return false;
    uint64_t v = bytes > 1 ? 0 : first & 63;
    for (unsigned i = 0; i < bytes; i++) v = v << 8 | p[i];
    *n = v;
    return true;
}

static bool take_length(struct walk *w, uint64_t *n)
{
    const unsigned char *first = w->at;
    return pass(w, 1) && length_behind(w, *first, n);
}

static bool pass_length(struct walk *w)
{
    uint64_t n;
    return take_length(w, &n);
}

static bool pass_string(struct walk *w)
{
    const unsigned char *first = w->at;
    uint64_t n;
    if (!pass(w, 1)) return false;
    switch (*first) {
    case RDB_ENC_INT8: return pass(w, 1);
    case RDB_ENC_INT16: return pass(w, 2);
    case RDB_ENC_INT32: return pass(w, 4);
    case RDB_ENC_LZF: return take_length(w, &n) && pass_length(w) && pass(w, n);
    default: return length_behind(w, *first, &n) && pass(w, n);
    }
}

/* n times; every time takes a byte at least, so it ends. */
static bool pass_each(struct walk *w, bool (*one)(struct walk *))
{
    uint64_t n;
    if (!take_length(w, &n)) return false;
    while (n--)
        if (!one(w)) return false;
    return true;
}

static bool pass_pair(struct walk *w)
{
    return pass_string(w) && pass_string(w);
}

static bool pass_scored(struct walk *w)
{
    return pass_string(w) && pass(w, 8);
}

/* A byte that says how long the text is; three of its values stand for a score by themselves. */
static bool pass_text_scored(struct walk *w)
{
    if (!pass_string(w)) return false;
    const unsigned char *n = w->at;
    return pass(w, 1) && (*n >= 253 || pass(w, *n));
}

static bool pass_node(struct walk *w)
{
    return pass_length(w) && pass_string(w);
}

static bool pass_lengths(struct walk *w, unsigned n)
{
    while (n--)
        if (!pass_length(w)) return false;
    return true;
}

static bool pass_pending(struct walk *w)
{
    return pass(w, STREAM_ID_BYTES + 8) && pass_length(w);
}

static bool pass_consumer(struct walk *w, bool with_active_time)
{
    uint64_t n;
    if (!pass_string(w) || !pass(w, with_active_time ? 16 : 8) || !take_length(w, &n)) return false;
    return n <= UINT64_MAX / STREAM_ID_BYTES ? pass(w, n * STREAM_ID_BYTES) : stop(w, RDB_EXTENT_OTHER);
}

static bool pass_group(struct walk *w, unsigned type)
{
    uint64_t consumers;
    if (!pass_string(w) || !pass_lengths(w, type == RDB_STREAM ? 2 : 3)) return false;
    if (!pass_each(w, pass_pending) || !take_length(w, &consumers)) return false;
    while (consumers--)
        if (!pass_consumer(w, type == RDB_STREAM_3)) return false;
    return true;
}

static bool pass_stream(struct walk *w, unsigned type)
{
    uint64_t groups;
    if (!pass_each(w, pass_pair) || !pass_lengths(w, type == RDB_STREAM ? 3 : 8) || !take_length(w, &groups))
        return false;
    while (groups--)
        if (!pass_group(w, type)) return false;
    return true;
}

static bool pass_value(struct walk *w, unsigned type)
{
    switch (type) {
    case RDB_STRING:
    case RDB_HASH_ZIPMAP:
    case RDB_LIST_ZIPLIST:
    case RDB_SET_INTSET:
    case RDB_ZSET_ZIPLIST:
    case RDB_HASH_ZIPLIST:
    case RDB_HASH_LISTPACK:
    case RDB_ZSET_LISTPACK:
    case RDB_SET_LISTPACK: return pass_string(w);
    case RDB_LIST:
    case RDB_SET:
    case RDB_LIST_QUICKLIST: return pass_each(w, pass_string);
    case RDB_HASH: return pass_each(w, pass_pair);
    case RDB_ZSET: return pass_each(w, pass_text_scored);
    case RDB_ZSET_2: return pass_each(w, pass_scored);
    case RDB_LIST_QUICKLIST_2: return pass_each(w, pass_node);
    case RDB_STREAM:
    case RDB_STREAM_2:
    case RDB_STREAM_3: return pass_stream(w, type);
    default: return stop(w, RDB_EXTENT_OTHER);
    }
}

static bool pass_key(struct walk *w)
{
    for (;;) {
        const unsigned char *type = w->at;
        if (!pass(w, 1)) return false;
        switch (*type) {
        case RDB_OP_EXPIRE_MS:
            if (!pass(w, 8)) return false;
            break;
        case RDB_OP_EXPIRE_S:
            if (!pass(w, 4)) return false;
            break;
        case RDB_OP_IDLE:
            if (!pass_length(w)) return false;
            break;
        case RDB_OP_FREQ:
            if (!pass(w, 1)) return false;
            break;
        default:
            if (*type >= RDB_TYPE_COUNT) return stop(w, RDB_EXTENT_OTHER);
            return pass_string(w) && pass_value(w, *type);
        }
    }
}

enum rdb_extent rdb_extent(const unsigned char *p, size_t n, size_t *size)
{
    struct walk w = {p, p + n, RDB_EXTENT_WHOLE};
    if (!pass_key(&w)) return w.verdict;
    *size = (size_t)(w.at - p);
    return RDB_EXTENT_WHOLE;
}
