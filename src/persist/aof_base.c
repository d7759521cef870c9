/* aof_base.c: the dataset of a cut as commands (aof-use-rdb-preamble no), as redis-server 7.0 writes them: collections
 * in pieces of 64 elements, streams entry by entry with their groups, times of expiry behind each key. */
#include "persist/persist.h"

#include "base/mem.h"
#include "base/number.h"
#include "persist/rdb_output.h"
#include "resp/resp.h"
#include "store/hash.h"
#include "store/listtype.h"
#include "store/set.h"
#include "store/stream.h"
#include "store/zset.h"

#include <stdio.h>

enum { ELEMENTS_MAX = 64, SLICE_BYTES = 64 * 1024 };

struct base_out {
    struct rdb_sink sink;
    struct buf b;
    size_t
        entry_start; /* as in struct rdb_out: only what is larger than OUT_FLUSH_BYTES by itself goes out in pieces */
    uint64_t flushed;
    enum status st;
    int db;
    struct rdb_progress *progress;
};

static void flush(struct base_out *o)
{
    if (o->st == OK && o->b.n) o->st = o->sink.write(o->sink.ctx, o->b.p, o->b.n);
    o->flushed += o->b.n;
    o->b.n = o->entry_start = 0;
}

static void put(struct base_out *o, const void *p, size_t n)
{
    if (o->b.n - o->entry_start + n >= OUT_FLUSH_BYTES) {
        flush(o);
        if (n >= OUT_FLUSH_BYTES) {
            if (o->st == OK) o->st = o->sink.write(o->sink.ctx, p, n);
            o->flushed += n;
            return;
        }
    }
    buf_append(&o->b, p, n);
}

static void begin(struct base_out *o, size_t argc)
{
    char line[32];
    put(o, line, (size_t)snprintf(line, sizeof line, "*%zu\r\n", argc));
}

static void arg(struct base_out *o, struct bytes text)
{
    char line[32];
    put(o, line, (size_t)snprintf(line, sizeof line, "$%zu\r\n", text.n));
    if (text.n) put(o, text.p, text.n);
    put(o, "\r\n", 2);
}

static void word(struct base_out *o, const char *text)
{
    arg(o, bytes_of(text));
}

static void number(struct base_out *o, int64_t v)
{
    char digits[24];
    arg(o, bytes_make(digits, format_i64(digits, v)));
}

static void id(struct base_out *o, struct stream_id i)
{
    char text[48];
    arg(o, bytes_make(text, (size_t)snprintf(text, sizeof text, "%llu-%llu", (unsigned long long)i.ms,
                                             (unsigned long long)i.seq)));
}

/* The header of every 64th element's command; `each` arguments an element. */
static void head(struct base_out *o, const char *name, struct bytes key, uint64_t i, uint64_t n, unsigned each)
{
    if (i % ELEMENTS_MAX) return;
    uint64_t count = n - i < ELEMENTS_MAX ? n - i : ELEMENTS_MAX;
    begin(o, 2 + (size_t)count * each);
    word(o, name);
    arg(o, key);
}

static void string(struct base_out *o, const struct entry *e)
{
    char digits[24];
    begin(o, 3);
    word(o, "SET");
    arg(o, entry_key(e));
    arg(o, entry_string(e, digits));
}

static void list(struct base_out *o, const struct entry *e)
{
    struct list_iter it;
    struct element x;
    uint64_t i = 0, n = list_len(e);
    list_iter_init(&it, e, 0, false);
    while (list_iter_next(&it, &x, NULL)) {
        head(o, "RPUSH", entry_key(e), i++, n, 1);
        arg(o, x.text);
    }
}

static void set(struct base_out *o, const struct entry *e)
{
    struct set_iter it;
    struct element x;
    uint64_t i = 0, n = set_len(e);
    set_iter_init(&it, e);
    while (set_iter_next(&it, &x)) {
        head(o, "SADD", entry_key(e), i++, n, 1);
        arg(o, x.text);
    }
}

static void hash(struct base_out *o, const struct entry *e)
{
    struct hash_iter it;
    struct element field, value;
    uint64_t i = 0, n = hash_len(e);
    hash_iter_init(&it, e);
    while (hash_iter_next(&it, &field, &value)) {
        head(o, "HMSET", entry_key(e), i++, n, 2);
        arg(o, field.text);
        arg(o, value.text);
    }
}

static void zset(struct base_out *o, const struct entry *e)
{
    struct zset_iter it;
    struct element member;
    double score;
    char text[64];
    uint64_t i = 0, n = zset_len(e);
    if (n == 0) return;
    zset_iter_init(&it, e, 0, false);
    while (zset_iter_next(&it, &member, &score)) {
        head(o, "ZADD", entry_key(e), i++, n, 2);
        arg(o, bytes_make(text, format_double(text, score)));
        arg(o, member.text);
    }
}

static void stream_entries(struct base_out *o, const struct stream *s, struct bytes key)
{
    struct stream_iter it;
    struct stream_id at;
    size_t fields;
    struct element field, value;
    stream_iter_init(&it, s, STREAM_ID_MIN, STREAM_ID_MAX, false);
    while (stream_iter_next(&it, &at, &fields)) {
        begin(o, 3 + 2 * fields);
        word(o, "XADD");
        arg(o, key);
        id(o, at);
        for (; fields; fields--) {
            stream_iter_field(&it, &field, &value);
            arg(o, field.text);
            arg(o, value.text);
        }
    }
    if (s->length) return;
    /* There is no other way to make an empty one. */
    begin(o, 7);
    word(o, "XADD");
    arg(o, key);
    word(o, "MAXLEN");
    word(o, "0");
    word(o, "0-1");
    word(o, "x");
    word(o, "y");
}

static void consumer(struct base_out *o, struct bytes key, struct bytes group, const struct stream_group *g,
                     const struct stream_consumer *c)
{
    struct tree_pos pos;
    struct stream_pending p;
    begin(o, 5);
    word(o, "XGROUP");
    word(o, "CREATECONSUMER");
    arg(o, key);
    arg(o, group);
    arg(o, tree_box_key(c->name));
    if (c->pending.count == 0 || !tree_at(&c->pending, 0, &pos)) return;
    do {
        struct stream_id at = stream_pending_id(&c->pending, &pos);
        if (!stream_pending_find(g, at, &p)) continue;
        begin(o, 12);
        word(o, "XCLAIM");
        arg(o, key);
        arg(o, group);
        arg(o, tree_box_key(c->name));
        word(o, "0");
        id(o, at);
        word(o, "TIME");
        number(o, p.delivered_ms);
        word(o, "RETRYCOUNT");
        number(o, (int64_t)p.count);
        word(o, "JUSTID");
        word(o, "FORCE");
    } while (tree_next(&pos));
}

static void group(struct base_out *o, struct bytes key, struct bytes name, const struct stream_group *g)
{
    struct tree_pos pos;
    begin(o, 7);
    word(o, "XGROUP");
    word(o, "CREATE");
    arg(o, key);
    arg(o, name);
    id(o, g->last_id);
    word(o, "ENTRIESREAD");
    number(o, g->entries_read);
    if (g->consumers.count == 0 || !tree_at(&g->consumers, 0, &pos)) return;
    do consumer(o, key, name, g, stream_consumer_at(g, &pos));
    while (tree_next(&pos));
}

static void stream(struct base_out *o, const struct entry *e)
{
    const struct stream *s = stream_of(e);
    struct bytes key = entry_key(e);
    struct tree_pos pos;
    stream_entries(o, s, key);
    begin(o, 7);
    word(o, "XSETID");
    arg(o, key);
    id(o, s->last_id);
    word(o, "ENTRIESADDED");
    number(o, (int64_t)s->entries_added);
    word(o, "MAXDELETEDID");
    id(o, s->max_deleted_id);
    if (!s->groups || !tree_at(s->groups, 0, &pos)) return;
    do {
        struct bytes name;
        const struct stream_group *g = stream_group_at(s, &pos, &name);
        group(o, key, name, g);
    } while (tree_next(&pos));
}

static enum status visit(void *ctx, int db, struct entry *e)
{
    struct base_out *o = ctx;
    if (o->st != OK) return o->st;
    o->entry_start = o->b.n;
    if (db != o->db) {
        begin(o, 2);
        word(o, "SELECT");
        number(o, db);
        o->db = db;
    }
    switch (entry_type(e)) {
    case TYPE_STRING: string(o, e); break;
    case TYPE_LIST: list(o, e); break;
    case TYPE_SET: set(o, e); break;
    case TYPE_HASH: hash(o, e); break;
    case TYPE_ZSET: zset(o, e); break;
    case TYPE_STREAM: stream(o, e); break;
    }
    if (entry_has_ttl(e)) {
        begin(o, 3);
        word(o, "PEXPIREAT");
        arg(o, entry_key(e));
        number(o, entry_expire_at(e));
    }
    atomic_fetch_add_explicit(&o->progress->keys, 1, memory_order_relaxed);
    return o->st;
}

static void preamble(struct base_out *o, const struct rdb_options *options, bool timestamp)
{
    if (timestamp) {
        char line[48];
        put(o, line, (size_t)snprintf(line, sizeof line, "#TS:%lld\r\n", (long long)(options->now_ms / 1000)));
    }
    for (size_t i = 0; options->extras && i < options->extras->count; i++) {
        begin(o, 3);
        word(o, "FUNCTION");
        word(o, "LOAD");
        arg(o, buf_bytes(&options->extras->libraries[i]));
    }
}

enum status aof_base_write(struct store *s, struct cut *cut, struct rdb_sink sink, const struct rdb_options *options,
                           bool timestamp, struct rdb_progress *progress)
{
    struct base_out o = {.sink = sink, .db = -1, .progress = progress};
    enum status st = E_AGAIN;
    (void)s;
    preamble(&o, options, timestamp);
    while (st == E_AGAIN && o.st == OK) {
        st = atomic_load_explicit(&progress->cancel, memory_order_relaxed)
                 ? E_CLOSED
                 : store_cut_step(cut, SLICE_BYTES, visit, &o);
        /* Between slices only: small entries are visited under their slot's lock. */
        if (o.b.n >= OUT_FLUSH_BYTES || st == OK) flush(&o);
        atomic_store_explicit(&progress->bytes, o.flushed, memory_order_relaxed);
    }
    store_cut_end(cut);
    buf_deinit(&o.b);
    return o.st != OK ? o.st : st;
}
