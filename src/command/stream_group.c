/* stream_group.c: XGROUP, XACK and XPENDING. */
#include "command/stream_args.h"

/* ---- XGROUP -------------------------------------------------------------------------------------------------------*/

/* The stream and group that a subcommand is about, for a change; group_error: without the group it is an error. */
struct target {
    struct key k;
    struct entry *e;
    struct stream_group *g;
};

static void no_such_group(struct call *c)
{
    resp_errorf(&c->out, "NOGROUP No such consumer group '%.*s' for key name '%.*s'", (int)c->argv[3].n, c->argv[3].p,
                (int)c->argv[2].n, c->argv[2].p);
}

static bool target_find(struct call *c, bool may_be_missing, bool group_must_be, struct target *t)
{
    t->k = call_key(c, 2);
    if (!call_edit_type(c, &t->k, TYPE_STREAM, &t->e)) return false;
    t->g = t->e ? stream_group_edit(stream_of(t->e), c->argv[3]) : NULL;
    if (!t->e && !may_be_missing) {
        resp_error(&c->out, "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to "
                            "use the MKSTREAM option to create an empty stream automatically.");
        return false;
    }
    if (t->g || !group_must_be) return true;
    no_such_group(c);
    return false;
}

struct group_args {
    bool mkstream;
    int64_t entries_read;
};

static bool bad_group_args(struct call *c)
{
    resp_errorf(&c->out, "ERR unknown subcommand or wrong number of arguments for '%.*s'. Try XGROUP HELP.",
                (int)c->argv[1].n, c->argv[1].p);
    return false;
}

/* What follows the id of CREATE and SETID. */
static bool parse_group_args(struct call *c, bool create, struct group_args *a)
{
    a->entries_read = STREAM_READ_UNKNOWN;
    for (size_t at = 5; at < c->argc; at++) {
        if (create && call_arg_is(c, at, "mkstream")) {
            a->mkstream = true;
        } else if (at + 1 < c->argc && call_arg_is(c, at, "entriesread")) {
            if (!call_arg_i64(c, ++at, &a->entries_read, NULL)) return false;
            if (a->entries_read < 0 && a->entries_read != STREAM_READ_UNKNOWN) {
                resp_error(&c->out, "ERR value for ENTRIESREAD must be positive or -1");
                return false;
            }
        } else {
            return bad_group_args(c);
        }
    }
    return true;
}

/* The id that a group is to stand at: "$" is the stream's last one; "-" and "+" only SETID takes. */
static bool parse_group_id(struct call *c, const struct stream *s, bool ends, struct stream_id *id)
{
    if (ends && bytes_eq(c->argv[4], BYTES("-"))) {
        *id = STREAM_ID_MIN;
        return true;
    }
    if (ends && bytes_eq(c->argv[4], BYTES("+"))) {
        *id = STREAM_ID_MAX;
        return true;
    }
    if (!bytes_eq(c->argv[4], BYTES("$"))) return stream_arg_id(c, 4, id);
    *id = s ? s->last_id : STREAM_ID_MIN;
    return true;
}

void cmd_xgroup_create(struct call *c)
{
    struct group_args a = {.mkstream = false};
    struct target t;
    struct stream_id id;
    if (!parse_group_args(c, true, &a) || !target_find(c, a.mkstream, false, &t)) return;
    if (c->argc > 8) {
        bad_group_args(c);
        return;
    }
    if (!parse_group_id(c, t.e ? stream_of(t.e) : NULL, false, &id)) return;
    if (t.g) {
        resp_error(&c->out, "BUSYGROUP Consumer Group name already exists");
        return;
    }
    struct entry *e = t.e ? t.e : stream_entry_new(t.k.name);
    if (!stream_group_create(stream_of(e), c->argv[3], id, a.entries_read)) {
        if (e != t.e) entry_free(e);
        resp_error(&c->out, ERR_OOM_VALUE);
        return;
    }
    if (e == t.e) {
        call_side_changed(c, &t.k, NOTIFY_STREAM, "xgroup-create");
    } else {
        call_put(c, &t.k, e);
        call_changed(c, &t.k, NOTIFY_STREAM, "xgroup-create");
    }
    resp_ok(&c->out);
}

void cmd_xgroup_setid(struct call *c)
{
    struct group_args a = {.mkstream = false};
    struct target t;
    struct stream_id id;
    if (!parse_group_args(c, false, &a)) return;
    if (!target_find(c, false, true, &t)) return;
    if (c->argc > 7) {
        bad_group_args(c);
        return;
    }
    if (!parse_group_id(c, stream_of(t.e), true, &id)) return;
    t.g->last_id = id;
    t.g->entries_read = a.entries_read;
    call_side_changed(c, &t.k, NOTIFY_STREAM, "xgroup-setid");
    resp_ok(&c->out);
}

void cmd_xgroup_destroy(struct call *c)
{
    struct target t;
    if (!target_find(c, false, false, &t)) return;
    if (t.g) {
        stream_group_destroy(stream_of(t.e), c->argv[3]);
        call_changed(c, &t.k, NOTIFY_STREAM, "xgroup-destroy"); /* wakes who waits for the group */
    }
    resp_i64(&c->out, t.g != NULL);
}

void cmd_xgroup_createconsumer(struct call *c)
{
    struct target t;
    bool created = false;
    if (!target_find(c, false, true, &t)) return;
    if (!stream_consumer_find(t.g, c->argv[4]) && !stream_call_consumer(c, &t.k, t.g, c->argv[4], &created))
        resp_error(&c->out, ERR_OOM_VALUE);
    else
        resp_i64(&c->out, created);
}

void cmd_xgroup_delconsumer(struct call *c)
{
    struct target t;
    uint64_t pending = 0;
    if (!target_find(c, false, true, &t)) return;
    if (stream_consumer_delete(t.g, c->argv[4], &pending))
        call_side_changed(c, &t.k, NOTIFY_STREAM, "xgroup-delconsumer");
    resp_i64(&c->out, (int64_t)pending);
}

void cmd_xgroup_help(struct call *c)
{
    static const char *const lines[] = {
        "CREATE <key> <groupname> <id|$> [option]",
        "    Create a new consumer group. Options are:",
        "    * MKSTREAM",
        "      Create the empty stream if it does not exist.",
        "    * ENTRIESREAD entries_read",
        "      Set the group's entries_read counter (internal use).",
        "CREATECONSUMER <key> <groupname> <consumer>",
        "    Create a new consumer in the specified group.",
        "DELCONSUMER <key> <groupname> <consumer>",
        "    Remove the specified consumer.",
        "DESTROY <key> <groupname>",
        "    Remove the specified group.",
        "SETID <key> <groupname> <id|$> [ENTRIESREAD entries_read]",
        "    Set the current group ID and entries_read counter.",
    };
    call_help(c, "XGROUP", lines, sizeof lines / sizeof lines[0]);
}

/* ---- XACK ---------------------------------------------------------------------------------------------------------*/

void cmd_xack(struct call *c)
{
    struct key k = call_key(c, 1);
    struct entry *e = call_read(c, &k);
    struct stream_id id;
    if (e && entry_type(e) != TYPE_STREAM) {
        resp_error(&c->out, ERR_WRONGTYPE);
        return;
    }
    if (!e || !stream_group_find(stream_of(e), c->argv[2])) {
        resp_i64(&c->out, 0);
        return;
    }
    for (size_t i = 3; i < c->argc; i++)
        if (!stream_arg_id(c, i, &id)) return;
    e = call_edit(c, &k);
    struct stream_group *g = stream_group_edit(stream_of(e), c->argv[2]);
    for (size_t i = 3; i < c->argc; i++) {
        stream_id_parse(c->argv[i], 0, false, &id);
        if (stream_pending_remove(g, id)) c->dirty++; /* no event of the key's: its entries stay */
    }
    resp_i64(&c->out, (int64_t)c->dirty);
}

/* ---- XPENDING -----------------------------------------------------------------------------------------------------*/

struct pending_args {
    struct stream_id start, end;
    int64_t count, min_idle_ms;
    const struct bytes *consumer; /* NULL: all */
};

static bool parse_pending(struct call *c, struct pending_args *a)
{
    size_t at = 3;
    bool idle = c->argc > 3 && call_arg_is(c, 3, "idle");
    if (c->argc < 6 || c->argc > 9 || (idle && c->argc < 8)) {
        if (idle && c->argc >= 6 && c->argc <= 9 && !call_arg_i64(c, 4, &a->min_idle_ms, NULL)) return false;
        resp_error(&c->out, ERR_SYNTAX);
        return false;
    }
    if (idle) {
        if (!call_arg_i64(c, 4, &a->min_idle_ms, NULL)) return false;
        at += 2;
    }
    if (!call_arg_i64(c, at + 2, &a->count, NULL)) return false;
    if (!stream_arg_start(c, at, &a->start) || !stream_arg_end(c, at + 1, &a->end)) return false;
    if (at + 3 < c->argc) a->consumer = &c->argv[at + 3];
    return true;
}

static void pending_summary(struct call *c, const struct stream_group *g)
{
    struct tree_pos pos;
    resp_array(&c->out, 4);
    resp_i64(&c->out, (int64_t)g->pending.count);
    if (!tree_at(&g->pending, 0, &pos)) {
        resp_null(&c->out);
        resp_null(&c->out);
        resp_null_array(&c->out);
        return;
    }
    stream_reply_id(c, stream_pending_id(&g->pending, &pos));
    tree_at(&g->pending, g->pending.count - 1, &pos);
    stream_reply_id(c, stream_pending_id(&g->pending, &pos));
    size_t mark = resp_defer(&c->out), n = 0;
    tree_at(&g->consumers, 0, &pos);
    do {
        const struct stream_consumer *consumer = stream_consumer_at(g, &pos);
        if (!consumer->pending.count) continue;
        resp_array(&c->out, 2);
        resp_bulk(&c->out, tree_box_key(consumer->name));
        resp_bulk_i64(&c->out, (int64_t)consumer->pending.count);
        n++;
    } while (tree_next(&pos));
    resp_defer_array(&c->out, mark, n);
}

static void pending_list(struct call *c, const struct stream_group *g, const struct pending_args *a)
{
    const struct stream_consumer *consumer = a->consumer ? stream_consumer_find(g, *a->consumer) : NULL;
    if (a->consumer && !consumer) {
        resp_array(&c->out, 0);
        return;
    }
    const struct tree *ids = consumer ? &consumer->pending : &g->pending;
    struct tree_pos pos;
    int64_t n = 0;
    size_t mark = resp_defer(&c->out);
    bool more = a->count > 0 && stream_pending_seek(ids, a->start, &pos);
    for (; more && n < a->count; more = tree_next(&pos)) {
        struct stream_id id = stream_pending_id(ids, &pos);
        struct stream_pending p;
        if (stream_id_cmp(id, a->end) > 0) break;
        stream_pending_find(g, id, &p);
        int64_t idle = c->now_ms - p.delivered_ms;
        if (a->min_idle_ms && idle < a->min_idle_ms) continue;
        resp_array(&c->out, 4);
        stream_reply_id(c, id);
        resp_bulk(&c->out, tree_box_key(p.consumer));
        resp_i64(&c->out, idle < 0 ? 0 : idle);
        resp_i64(&c->out, (int64_t)p.count);
        n++;
    }
    resp_defer_array(&c->out, mark, (size_t)n);
}

void cmd_xpending(struct call *c)
{
    struct key k = call_key(c, 1);
    struct entry *e;
    struct pending_args a = {.consumer = NULL};
    if (c->argc != 3 && !parse_pending(c, &a)) return;
    if (!call_read_type(c, &k, TYPE_STREAM, &e)) return;
    const struct stream_group *g = e ? stream_group_find(stream_of(e), c->argv[2]) : NULL;
    if (!g)
        stream_reply_no_group(c, c->argv[1], c->argv[2]);
    else if (c->argc == 3)
        pending_summary(c, g);
    else
        pending_list(c, g, &a);
}
