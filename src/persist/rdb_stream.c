/* rdb_stream.c: streams, both directions; written as version 2, which is what redis-server 7.0 reads and writes.
 *
 *   nodes, each: id, listpack | length | last id | [2, 3: first id, highest deleted id, entries added]
 *   groups, each: name, last id, [2, 3: entries read]
 *     pending entries of the group, each: id, delivery time, delivery count
 *     consumers, each: name, seen time, [3: active time], ids of its pending entries
 *
 * What is read must be consistent in itself: ascending ids, counts that agree with what is there, and each pending
 * entry owned by exactly one consumer.  redis-server writes nothing else, and takes less care when it reads. */
#include "persist/rdb_format.h"
#include "persist/rdb_input.h"
#include "persist/rdb_output.h"

#include "base/mem.h"
#include "store/listpack.h"
#include "store/stream.h"

/* ---- in -----------------------------------------------------------------------------------------------------------*/

static bool damaged(struct rdb_in *in, const char *what)
{
    return in_fail(in, E_CORRUPT, "a stream %s", what);
}

static bool no_memory(struct rdb_in *in)
{
    return in_fail(in, E_NOMEM, "no memory for a stream");
}

static uint64_t get_be(const unsigned char *p)
{
    uint64_t v = 0;
    for (int i = 0; i < 8; i++) v = v << 8 | p[i];
    return v;
}

static struct stream_id id_of(const void *p)
{
    const unsigned char *b = p;
    return (struct stream_id){get_be(b), get_be(b + 8)};
}

static bool read_raw_id(struct rdb_in *in, struct stream_id *id)
{
    unsigned char raw[STREAM_ID_BYTES];
    if (!in_bytes(in, raw, sizeof raw)) return false;
    *id = id_of(raw);
    return true;
}

static bool read_id(struct rdb_in *in, struct stream_id *id)
{
    return in_length(in, &id->ms) && in_length(in, &id->seq);
}

static bool read_time(struct rdb_in *in, int64_t *ms)
{
    uint64_t v;
    if (!in_le(in, 8, &v)) return false;
    *ms = (int64_t)v;
    return true;
}

static bool read_node(struct rdb_in *in, struct stream *s)
{
    struct bytes id, listpack;
    if (!in_string(in, IN_FIELD, true, &id)) return false;
    if (id.n != STREAM_ID_BYTES) return damaged(in, "has a node whose id is none");
    struct stream_id first = id_of(id.p);
    if (!in_string(in, IN_VALUE, false, &listpack)) return false;
    enum status st = stream_add_node(s, first, listpack);
    if (st == E_NOMEM) return no_memory(in);
    return st == OK || damaged(in, "has a damaged node");
}

static bool read_head(struct rdb_in *in, unsigned type, struct stream *s)
{
    uint64_t length, added;
    struct stream_id last, first;
    if (!in_length(in, &length) || !read_id(in, &s->last_id)) return false;
    if (length != s->length) return damaged(in, "does not have as many entries as it says");
    if (stream_last(s, &last) && stream_id_cmp(last, s->last_id) > 0)
        return damaged(in, "has an entry above its last id");
    stream_update_first(s);
    s->entries_added = length;
    if (type == RDB_STREAM) return true;
    if (!read_id(in, &first) || !read_id(in, &s->max_deleted_id) || !in_length(in, &added)) return false;
    s->first_id = first;
    s->entries_added = added;
    return true;
}

/* The pending entries of a group, until their consumers are known. */
struct owed {
    struct stream_id id;
    int64_t delivered_ms;
    uint64_t count;
    bool taken;
};

static bool read_pending(struct rdb_in *in, struct buf *pending)
{
    uint64_t n;
    struct stream_id last = STREAM_ID_MIN;
    if (!in_length(in, &n)) return false;
    for (uint64_t i = 0; i < n; i++) {
        struct owed p = {.taken = false};
        if (!read_raw_id(in, &p.id) || !read_time(in, &p.delivered_ms) || !in_length(in, &p.count)) return false;
        if (i > 0 && stream_id_cmp(p.id, last) <= 0) return damaged(in, "has pending entries out of order");
        if (buf_try_reserve(pending, sizeof p) != OK) return no_memory(in);
        buf_append(pending, &p, sizeof p);
        last = p.id;
    }
    return true;
}

static struct owed *find_owed(const struct buf *pending, struct stream_id id)
{
    struct owed *p = (struct owed *)(void *)pending->p;
    size_t low = 0, high = pending->n / sizeof *p;
    while (low < high) {
        size_t mid = (low + high) / 2;
        int cmp = stream_id_cmp(p[mid].id, id);
        if (cmp == 0) return &p[mid];
        if (cmp < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

static bool read_consumer(struct rdb_in *in, unsigned type, struct stream_group *g, struct buf *pending)
{
    uint64_t n;
    struct bytes name;
    struct stream_id id;
    int64_t seen, active;
    if (!in_string(in, IN_FIELD, true, &name)) return false;
    if (stream_consumer_find(g, name)) return damaged(in, "has a consumer twice");
    struct stream_consumer *c = stream_consumer_create(g, name, 0);
    if (!c) return no_memory(in);
    if (!read_time(in, &seen)) return false;
    active = seen; /* the best guess where the file does not say */
    if (type == RDB_STREAM_3 && !read_time(in, &active)) return false;
    c->seen_ms = seen;
    c->active_ms = active;
    if (!in_length(in, &n)) return false;
    while (n--) {
        if (!read_raw_id(in, &id)) return false;
        struct owed *p = find_owed(pending, id);
        if (!p || p->taken) return damaged(in, "has a consumer with a pending entry that is not its group's");
        p->taken = true;
        stream_pending_put(g, id, c, p->delivered_ms, p->count);
    }
    return true;
}

static bool read_members(struct rdb_in *in, unsigned type, struct stream_group *g, struct buf *pending)
{
    uint64_t consumers;
    if (!read_pending(in, pending) || !in_length(in, &consumers)) return false;
    while (consumers--)
        if (!read_consumer(in, type, g, pending)) return false;
    return g->pending.count == pending->n / sizeof(struct owed) || damaged(in, "has a pending entry that nobody owns");
}

static bool read_group(struct rdb_in *in, unsigned type, struct stream *s)
{
    struct bytes name;
    struct stream_id last;
    uint64_t entries_read = 0;
    if (!in_string(in, IN_FIELD, true, &name) || !read_id(in, &last)) return false;
    if (type == RDB_STREAM)
        entries_read = (uint64_t)stream_distance(s, last);
    else if (!in_length(in, &entries_read))
        return false;
    if (stream_group_find(s, name)) return damaged(in, "has a group twice");
    struct stream_group *g = stream_group_create(s, name, last, (int64_t)entries_read);
    if (!g) return no_memory(in);
    struct buf pending = {0};
    bool ok = read_members(in, type, g, &pending);
    buf_deinit(&pending);
    return ok;
}

static bool read_stream(struct rdb_in *in, unsigned type, struct stream *s)
{
    uint64_t nodes, groups;
    if (!in_length(in, &nodes)) return false;
    while (nodes--)
        if (!read_node(in, s)) return false;
    if (!read_head(in, type, s) || !in_length(in, &groups)) return false;
    while (groups--)
        if (!read_group(in, type, s)) return false;
    return true;
}

bool in_stream(struct rdb_in *in, unsigned type, struct bytes key, struct entry **out)
{
    *out = stream_entry_new(key);
    return read_stream(in, type, stream_of(*out));
}

/* ---- out ----------------------------------------------------------------------------------------------------------*/

static void put_be(unsigned char *p, uint64_t v)
{
    for (int i = 0; i < 8; i++) p[i] = (unsigned char)(v >> (56 - 8 * i));
}

static void raw_id(unsigned char out[STREAM_ID_BYTES], struct stream_id id)
{
    put_be(out, id.ms);
    put_be(out + 8, id.seq);
}

static void out_id(struct rdb_out *o, struct stream_id id)
{
    out_length(o, id.ms);
    out_length(o, id.seq);
}

static void out_time(struct rdb_out *o, int64_t ms)
{
    unsigned char le[8];
    put_le(le, (uint64_t)ms, sizeof le);
    out_bytes(o, le, sizeof le);
}

static void out_nodes(struct rdb_out *o, const struct stream *s)
{
    struct stream_node_iter it = {.started = false};
    const struct stream_node *node;
    unsigned char id[STREAM_ID_BYTES];
    out_length(o, stream_node_count(s));
    while ((node = stream_node_next(s, &it))) {
        raw_id(id, node->id);
        out_string(o, bytes_make(id, sizeof id));
        out_string(o, lp_blob(node->lp));
    }
}

static void out_ids(struct rdb_out *o, const struct tree *pending)
{
    struct tree_pos pos;
    unsigned char id[STREAM_ID_BYTES];
    out_length(o, pending->count);
    if (!tree_at(pending, 0, &pos)) return;
    do {
        raw_id(id, stream_pending_id(pending, &pos));
        out_bytes(o, id, sizeof id);
    } while (tree_next(&pos));
}

static void out_pending(struct rdb_out *o, const struct stream_group *g)
{
    struct tree_pos pos;
    struct stream_pending p;
    unsigned char id[STREAM_ID_BYTES];
    out_length(o, g->pending.count);
    if (!tree_at(&g->pending, 0, &pos)) return;
    do {
        raw_id(id, stream_pending_id(&g->pending, &pos));
        stream_pending_at(g, &pos, &p);
        out_bytes(o, id, sizeof id);
        out_time(o, p.delivered_ms);
        out_length(o, p.count);
    } while (tree_next(&pos));
}

static void out_consumers(struct rdb_out *o, const struct stream_group *g)
{
    struct tree_pos pos;
    out_length(o, g->consumers.count);
    if (!tree_at(&g->consumers, 0, &pos)) return;
    do {
        const struct stream_consumer *c = stream_consumer_at(g, &pos);
        out_string(o, tree_box_key(c->name));
        out_time(o, c->seen_ms);
        out_ids(o, &c->pending);
    } while (tree_next(&pos));
}

void out_stream(struct rdb_out *o, const struct entry *e)
{
    const struct stream *s = stream_of(e);
    struct tree_pos pos;
    out_nodes(o, s);
    out_length(o, s->length);
    out_id(o, s->last_id);
    out_id(o, s->first_id);
    out_id(o, s->max_deleted_id);
    out_length(o, s->entries_added);
    out_length(o, stream_group_count(s));
    if (!s->groups || !tree_at(s->groups, 0, &pos)) return;
    do {
        struct bytes name;
        const struct stream_group *g = stream_group_at(s, &pos, &name);
        out_string(o, name);
        out_id(o, g->last_id);
        out_length(o, (uint64_t)g->entries_read);
        out_pending(o, g);
        out_consumers(o, g);
    } while (tree_next(&pos));
}
