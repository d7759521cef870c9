/* rdb_stream.c: streams are kept as the bytes they were read as; this walks over them, checks what a reader of them
 * will rely on, and makes the one entry of it.
 *
 *   nodes, each: master id, listpack | length | last id | [2, 3: first id, highest deleted id, entries added]
 *   groups, each: name, last id, [2, 3: entries read]
 *     pending entries of the group, each: id, delivery time, delivery count
 *     consumers, each: name, seen time, [3: active time], ids of its pending entries */
#include "persist/rdb_format.h"
#include "persist/rdb_input.h"

#include "base/mem.h"
#include "store/listpack.h"

#include <stdlib.h>

/* Ids as they stand in the file: 16 bytes, big-endian, so memcmp orders them. */
struct stream_id {
    unsigned char b[STREAM_ID_BYTES];
};

static int id_compare(const void *a, const void *b)
{
    return memcmp(a, b, STREAM_ID_BYTES);
}

static bool skip_lengths(struct rdb_in *in, unsigned n)
{
    uint64_t ignored;
    while (n--)
        if (!in_length(in, &ignored)) return false;
    return true;
}

static bool skip_time(struct rdb_in *in)
{
    uint64_t ignored;
    return in_le(in, 8, &ignored);
}

static bool add_id(struct rdb_in *in, struct buf *ids)
{
    if (buf_try_reserve(ids, STREAM_ID_BYTES) != OK) return in_fail(in, E_NOMEM, "no memory for a stream");
    if (!in_bytes(in, ids->p + ids->n, STREAM_ID_BYTES)) return false;
    ids->n += STREAM_ID_BYTES;
    return true;
}

/* Sorts; false when an id is there twice. */
static bool sort_ids(struct buf *ids)
{
    size_t n = ids->n / STREAM_ID_BYTES;
    const struct stream_id *id = (const struct stream_id *)(const void *)ids->p;
    if (n > 1) qsort(ids->p, n, STREAM_ID_BYTES, id_compare);
    for (size_t i = 1; i < n; i++)
        if (id_compare(&id[i - 1], &id[i]) == 0) return false;
    return true;
}

static bool read_node(struct rdb_in *in, struct buf *ids)
{
    struct bytes id, listpack;
    size_t elements;
    if (!in_string(in, IN_FIELD, true, &id)) return false;
    if (id.n != STREAM_ID_BYTES) return in_fail(in, E_CORRUPT, "a stream node with a key of %zu bytes", id.n);
    if (buf_try_reserve(ids, id.n) != OK) return in_fail(in, E_NOMEM, "no memory for a stream");
    buf_append_bytes(ids, id);
    if (!in_string(in, IN_VALUE, false, &listpack)) return false;
    return (lp_is_valid(listpack, &elements) && elements > 0) ||
           in_fail(in, E_CORRUPT, "the listpack of a stream node is damaged");
}

static bool read_nodes(struct rdb_in *in)
{
    uint64_t n, length;
    struct buf ids = {0};
    bool ok = in_length(in, &n);
    bool any = ok && n > 0;
    while (ok && n--) ok = read_node(in, &ids);
    if (ok && !sort_ids(&ids)) ok = in_fail(in, E_CORRUPT, "a stream node is there twice");
    buf_deinit(&ids);
    if (!ok || !in_length(in, &length)) return false;
    return any || length == 0 ||
           in_fail(in, E_CORRUPT, "a stream of %llu entries without a node", (unsigned long long)length);
}

static bool read_pending(struct rdb_in *in, struct buf *ids)
{
    uint64_t n;
    if (!in_length(in, &n)) return false;
    while (n--)
        if (!add_id(in, ids) || !skip_time(in) || !skip_lengths(in, 1)) return false;
    return sort_ids(ids) || in_fail(in, E_CORRUPT, "a pending entry of a stream's group is there twice");
}

/* Version 10 has no active time: it is read, and left out of the copy. */
static bool drop_time(struct rdb_in *in)
{
    struct buf *copy = in->copy;
    in->copy = NULL;
    bool ok = skip_time(in);
    in->copy = copy;
    return ok;
}

static bool read_consumer(struct rdb_in *in, unsigned type, const struct buf *pending)
{
    uint64_t n;
    struct bytes name;
    struct stream_id id;
    if (!in_string(in, IN_FIELD, false, &name) || !skip_time(in)) return false;
    if (type == RDB_STREAM_3 && !drop_time(in)) return false;
    if (!in_length(in, &n)) return false;
    while (n--) {
        if (!in_bytes(in, id.b, sizeof id.b)) return false;
        if (!pending->n || !bsearch(&id, pending->p, pending->n / sizeof id, sizeof id, id_compare))
            return in_fail(in, E_CORRUPT, "a consumer has a pending entry that its group has not");
    }
    return true;
}

static bool read_group(struct rdb_in *in, unsigned type)
{
    uint64_t consumers;
    struct bytes name;
    struct buf pending = {0};
    bool ok = in_string(in, IN_FIELD, false, &name) && skip_lengths(in, type == RDB_STREAM ? 2 : 3) &&
              read_pending(in, &pending) && in_length(in, &consumers);
    while (ok && consumers--) ok = read_consumer(in, type, &pending);
    buf_deinit(&pending);
    return ok;
}

static bool read_stream(struct rdb_in *in, unsigned type)
{
    uint64_t groups;
    if (!read_nodes(in) || !skip_lengths(in, type == RDB_STREAM ? 2 : 7) || !in_length(in, &groups)) return false;
    while (groups--)
        if (!read_group(in, type)) return false;
    return true;
}

bool in_stream(struct rdb_in *in, unsigned type, struct bytes key, struct entry **out)
{
    struct buf payload = {0};
    buf_append_char(&payload, (char)(type == RDB_STREAM_3 ? RDB_STREAM_2 : type));
    in->copy = &payload;
    bool ok = read_stream(in, type);
    in->copy = NULL;
    struct blob *b = ok ? blob_try_new(buf_bytes(&payload), 0) : NULL;
    buf_deinit(&payload);
    if (!ok) return false;
    if (!b) return in_fail(in, E_NOMEM, "no memory for a stream");
    *out = entry_new_word(key, TYPE_STREAM, ENC_OPAQUE, b);
    return true;
}
