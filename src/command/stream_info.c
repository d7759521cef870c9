/* stream_info.c: XINFO. */
#include "command/stream_args.h"

enum { FULL_COUNT = 10 };

/* Redis keeps a stream's nodes in a radix tree of their 16-byte ids and tells how many nodes that has: one for each key
 * and each branching, and one for each run of bytes that leads from one to the next.  Here it is counted from the ids;
 * of streams with more nodes than this only the first ones are, and the rest is extrapolated. */
enum { RADIX_KEYS_COUNTED = 4096, ID_BYTES = 16 };

static void id_bytes(struct stream_id id, unsigned char out[ID_BYTES])
{
    for (int i = 0; i < 8; i++) {
        out[i] = (unsigned char)(id.ms >> (56 - 8 * i));
        out[8 + i] = (unsigned char)(id.seq >> (56 - 8 * i));
    }
}

/* Branchings on the path to the last key, by how many bytes lead to them. */
struct radix {
    uint64_t nodes;
    int depth[ID_BYTES + 1];
    int n;
};

/* The run of bytes between two branchings, or a branching and a key: the first byte belongs to the branching. */
static void radix_run(struct radix *r, int from, int to, bool from_root)
{
    if (to - from > (from_root ? 0 : 1)) r->nodes++;
}

/* Closes what lies deeper than `common` bytes of the last key, and leaves a branching there. */
static void radix_close(struct radix *r, int common, bool branch)
{
    int below = ID_BYTES;
    while (r->n && r->depth[r->n - 1] > common) {
        radix_run(r, r->depth[r->n - 1], below, false);
        below = r->depth[--r->n];
        r->nodes++;
    }
    bool there = r->n && r->depth[r->n - 1] == common;
    if (there) {
        radix_run(r, common, below, false);
    } else if (branch) {
        radix_run(r, common, below, false);
        r->depth[r->n++] = common;
    } else {
        radix_run(r, 0, below, true);
    }
}

static uint64_t radix_nodes(const struct stream *s)
{
    struct stream_node_iter it = {.started = false};
    const struct stream_node *node = stream_node_next(s, &it);
    struct radix r = {.nodes = 0};
    unsigned char last[ID_BYTES], next[ID_BYTES];
    uint64_t keys = 0, all = stream_node_count(s);
    if (!node) return 1;
    id_bytes(node->id, last);
    for (keys = 1; keys < RADIX_KEYS_COUNTED && (node = stream_node_next(s, &it)); keys++) {
        int common = 0;
        id_bytes(node->id, next);
        while (last[common] == next[common]) common++;
        r.nodes++; /* of the last key */
        radix_close(&r, common, true);
        memcpy(last, next, sizeof last);
    }
    r.nodes++;
    radix_close(&r, -1, false);
    return all > keys ? (uint64_t)((double)r.nodes * (double)all / (double)keys) : r.nodes;
}

static void reply_read(struct call *c, const struct stream *s, const struct stream_group *g)
{
    resp_bulk_cstr(&c->out, "entries-read");
    if (g->entries_read == STREAM_READ_UNKNOWN)
        resp_null(&c->out);
    else
        resp_i64(&c->out, g->entries_read);
    resp_bulk_cstr(&c->out, "lag");
    int64_t read = g->entries_read;
    if (!s->entries_added) {
        resp_i64(&c->out, 0);
        return;
    }
    if (read == STREAM_READ_UNKNOWN || stream_has_gap_from(s, g->last_id)) read = stream_distance(s, g->last_id);
    if (read == STREAM_READ_UNKNOWN)
        resp_null(&c->out);
    else
        resp_i64(&c->out, (int64_t)(s->entries_added - (uint64_t)read));
}

static void field_i64(struct call *c, const char *name, int64_t v)
{
    resp_bulk_cstr(&c->out, name);
    resp_i64(&c->out, v);
}

static void field_id(struct call *c, const char *name, struct stream_id id)
{
    resp_bulk_cstr(&c->out, name);
    stream_reply_id(c, id);
}

static void field_bytes(struct call *c, const char *name, struct bytes v)
{
    resp_bulk_cstr(&c->out, name);
    resp_bulk(&c->out, v);
}

/* ---- STREAM -------------------------------------------------------------------------------------------------------*/

static void reply_edge(struct call *c, const char *name, const struct stream *s, bool last)
{
    struct stream_id id;
    resp_bulk_cstr(&c->out, name);
    if (!(last ? stream_last(s, &id) : stream_first(s, &id)) || !stream_reply_one(c, s, id)) resp_null(&c->out);
}

/* At most count of a tree's pending entries (0: all); of a group with the consumer's name. */
static void reply_pending(struct call *c, const struct stream_group *g, const struct tree *ids, uint64_t count)
{
    struct tree_pos pos;
    struct stream_pending p;
    bool more = tree_at(ids, 0, &pos);
    resp_bulk_cstr(&c->out, "pending");
    uint64_t n = count && count < ids->count ? count : ids->count;
    resp_array(&c->out, n);
    for (; more && n--; more = tree_next(&pos)) {
        struct stream_id id = stream_pending_id(ids, &pos);
        stream_pending_find(g, id, &p);
        resp_array(&c->out, ids == &g->pending ? 4 : 3);
        stream_reply_id(c, id);
        if (ids == &g->pending) resp_bulk(&c->out, tree_box_key(p.consumer));
        resp_i64(&c->out, p.delivered_ms);
        resp_i64(&c->out, (int64_t)p.count);
    }
}

static void reply_full_group(struct call *c, const struct stream *s, const struct stream_group *g, struct bytes name,
                             uint64_t count)
{
    struct tree_pos pos;
    resp_map(&c->out, 7);
    field_bytes(c, "name", name);
    field_id(c, "last-delivered-id", g->last_id);
    reply_read(c, s, g);
    field_i64(c, "pel-count", (int64_t)g->pending.count);
    reply_pending(c, g, &g->pending, count);
    resp_bulk_cstr(&c->out, "consumers");
    resp_array(&c->out, g->consumers.count);
    if (!tree_at(&g->consumers, 0, &pos)) return;
    do {
        const struct stream_consumer *consumer = stream_consumer_at(g, &pos);
        resp_map(&c->out, 4);
        field_bytes(c, "name", tree_box_key(consumer->name));
        field_i64(c, "seen-time", consumer->seen_ms);
        field_i64(c, "pel-count", (int64_t)consumer->pending.count);
        reply_pending(c, g, &consumer->pending, count);
    } while (tree_next(&pos));
}

static void reply_full(struct call *c, const struct stream *s, uint64_t count)
{
    struct tree_pos pos;
    resp_bulk_cstr(&c->out, "entries");
    stream_reply_range(c, s, STREAM_ID_MIN, STREAM_ID_MAX, count, false);
    resp_bulk_cstr(&c->out, "groups");
    resp_array(&c->out, stream_group_count(s));
    if (!s->groups || !tree_at(s->groups, 0, &pos)) return;
    do {
        struct bytes name;
        const struct stream_group *g = stream_group_at(s, &pos, &name);
        reply_full_group(c, s, g, name, count);
    } while (tree_next(&pos));
}

/* FULL [COUNT n]; *count is -1 without FULL. */
static bool parse_full(struct call *c, int64_t *count)
{
    *count = -1;
    if (c->argc == 3) return true;
    if ((c->argc == 4 || c->argc == 6) && call_arg_is(c, 3, "full") && (c->argc == 4 || call_arg_is(c, 4, "count"))) {
        *count = FULL_COUNT;
        if (c->argc == 6 && !call_arg_i64(c, 5, count, NULL)) return false;
        if (*count < 0) *count = FULL_COUNT;
        return true;
    }
    resp_errorf(&c->out, "ERR unknown subcommand or wrong number of arguments for '%.*s'. Try XINFO HELP.",
                (int)c->argv[1].n, c->argv[1].p);
    return false;
}

/* The stream that is asked about; NULL: the error was replied. */
static const struct stream *find(struct call *c)
{
    struct key k = call_key(c, 2);
    struct entry *e;
    if (!call_read_type(c, &k, TYPE_STREAM, &e)) return NULL;
    if (e) return stream_of(e);
    resp_error(&c->out, ERR_NO_SUCH_KEY);
    return NULL;
}

void cmd_xinfo_stream(struct call *c)
{
    const struct stream *s = find(c);
    int64_t count;
    if (!s || !parse_full(c, &count)) return;
    resp_map(&c->out, count >= 0 ? 9 : 10);
    field_i64(c, "length", (int64_t)s->length);
    field_i64(c, "radix-tree-keys", (int64_t)stream_node_count(s));
    field_i64(c, "radix-tree-nodes", (int64_t)radix_nodes(s));
    field_id(c, "last-generated-id", s->last_id);
    field_id(c, "max-deleted-entry-id", s->max_deleted_id);
    field_i64(c, "entries-added", (int64_t)s->entries_added);
    field_id(c, "recorded-first-entry-id", s->first_id);
    if (count >= 0) {
        reply_full(c, s, (uint64_t)count);
        return;
    }
    field_i64(c, "groups", (int64_t)stream_group_count(s));
    reply_edge(c, "first-entry", s, false);
    reply_edge(c, "last-entry", s, true);
}

/* ---- GROUPS, CONSUMERS, HELP --------------------------------------------------------------------------------------*/

void cmd_xinfo_groups(struct call *c)
{
    const struct stream *s = find(c);
    struct tree_pos pos;
    if (!s) return;
    resp_array(&c->out, stream_group_count(s));
    if (!s->groups || !tree_at(s->groups, 0, &pos)) return;
    do {
        struct bytes name;
        const struct stream_group *g = stream_group_at(s, &pos, &name);
        resp_map(&c->out, 6);
        field_bytes(c, "name", name);
        field_i64(c, "consumers", (int64_t)g->consumers.count);
        field_i64(c, "pending", (int64_t)g->pending.count);
        field_id(c, "last-delivered-id", g->last_id);
        reply_read(c, s, g);
    } while (tree_next(&pos));
}

static int64_t since(const struct call *c, int64_t ms)
{
    return c->now_ms > ms ? c->now_ms - ms : 0;
}

void cmd_xinfo_consumers(struct call *c)
{
    const struct stream *s = find(c);
    struct tree_pos pos;
    if (!s) return;
    const struct stream_group *g = stream_group_find(s, c->argv[3]);
    if (!g) {
        resp_errorf(&c->out, "NOGROUP No such consumer group '%.*s' for key name '%.*s'", (int)c->argv[3].n,
                    c->argv[3].p, (int)c->argv[2].n, c->argv[2].p);
        return;
    }
    resp_array(&c->out, g->consumers.count);
    if (!tree_at(&g->consumers, 0, &pos)) return;
    do {
        const struct stream_consumer *consumer = stream_consumer_at(g, &pos);
        resp_map(&c->out, 4);
        field_bytes(c, "name", tree_box_key(consumer->name));
        field_i64(c, "pending", (int64_t)consumer->pending.count);
        field_i64(c, "idle", since(c, consumer->seen_ms));
        field_i64(c, "inactive", consumer->active_ms < 0 ? -1 : since(c, consumer->active_ms));
    } while (tree_next(&pos));
}

void cmd_xinfo_help(struct call *c)
{
    static const char *const lines[] = {
        "CONSUMERS <key> <groupname>",
        "    Show consumers of <groupname>.",
        "GROUPS <key>",
        "    Show the stream consumer groups.",
        "STREAM <key> [FULL [COUNT <count>]",
        "    Show information about the stream.",
    };
    call_help(c, "XINFO", lines, sizeof lines / sizeof lines[0]);
}
