/* stream_read.c: XREAD and XREADGROUP. */
#include "command/stream_args.h"

#include "base/mem.h"

struct read_args {
    size_t first, streams; /* argument of the first key, number of keys */
    size_t count;          /* entries of each stream at most; 0: all */
    bool is_group, noack, block;
    int64_t timeout_ms; /* with block; 0: for ever */
    const struct bytes *group, *consumer;
};

/* What one stream is asked for. */
struct wanted {
    struct stream_id after;
    bool newest; /* XREADGROUP: ">" */
};

/* ---- arguments ----------------------------------------------------------------------------------------------------*/

static bool fail(struct call *c, const char *error)
{
    resp_error(&c->out, error);
    return false;
}

static bool parse_option(struct call *c, size_t *at, struct read_args *a)
{
    size_t more = c->argc - *at - 1;
    int64_t count;
    if (more && call_arg_is(c, *at, "block")) {
        if (c->flags & CALL_IN_SCRIPT) {
            resp_errorf(&c->out, "ERR %.*s command is not allowed with BLOCK option from scripts",
                        resp_shown(c->argv[0]), c->argv[0].p);
            return false;
        }
        a->block = true;
        return call_arg_timeout_ms(c, ++*at, &a->timeout_ms);
    }
    if (more && call_arg_is(c, *at, "count")) {
        if (!call_arg_i64(c, ++*at, &count, NULL)) return false;
        a->count = count < 0 ? 0 : (size_t)count;
        return true;
    }
    if (more >= 2 && call_arg_is(c, *at, "group")) {
        if (!a->is_group)
            return fail(c, "ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead.");
        a->group = &c->argv[*at + 1];
        a->consumer = &c->argv[*at + 2];
        *at += 2;
        return true;
    }
    if (!call_arg_is(c, *at, "noack")) return fail(c, ERR_SYNTAX);
    if (!a->is_group) return fail(c, "ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.");
    a->noack = true;
    return true;
}

static bool parse_args(struct call *c, struct read_args *a)
{
    for (size_t at = 1; at < c->argc && !a->first; at++) {
        if (at + 1 >= c->argc || !call_arg_is(c, at, "streams")) {
            if (!parse_option(c, &at, a)) return false;
            continue;
        }
        a->first = at + 1;
        if ((c->argc - a->first) % 2)
            return fail(c, "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.");
        a->streams = (c->argc - a->first) / 2;
    }
    if (!a->first) return fail(c, ERR_SYNTAX);
    if (a->is_group && !a->group) return fail(c, "ERR Missing GROUP option for XREADGROUP");
    return true;
}

/* The stream at key argument i, which there may not be; false: the error was replied.  A sleeping reader of a group is
 * woken when its stream or group goes, whatever stands at the key now. */
static bool find_stream(struct call *c, const struct read_args *a, size_t i, struct stream **s)
{
    struct key k = call_key(c, a->first + i);
    struct entry *e = call_read(c, &k);
    bool other_type = e && entry_type(e) != TYPE_STREAM;
    if (other_type && !c->served_arg) return fail(c, ERR_WRONGTYPE);
    *s = e && !other_type ? stream_of(e) : NULL;
    if (!a->is_group || (*s && stream_group_find(*s, *a->group))) return true;
    if (c->served_arg) {
        resp_error(&c->out, *s ? "NOGROUP the consumer group this client was blocked on no longer exists"
                               : "UNBLOCKED the stream key no longer exists");
        return false;
    }
    struct bytes key = k.name, group = *a->group;
    resp_errorf(&c->out, "NOGROUP No such key '%.*s' or consumer group '%.*s' in XREADGROUP with GROUP option",
                (int)key.n, key.p, (int)group.n, group.p);
    return false;
}

static bool parse_wanted(struct call *c, const struct read_args *a, size_t i, const struct stream *s, struct wanted *w)
{
    size_t arg = a->first + a->streams + i;
    *w = (struct wanted){.newest = false};
    if (bytes_eq(c->argv[arg], BYTES("$"))) {
        if (a->is_group)
            return fail(c, "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of "
                           "this consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID "
                           "would just return an empty result set.");
        if (s) w->after = s->last_id;
        return true;
    }
    if (bytes_eq(c->argv[arg], BYTES(">"))) {
        w->newest = a->is_group;
        return a->is_group || fail(c, "ERR The > ID can be specified only when calling XREADGROUP using the GROUP "
                                      "<group> <consumer> option.");
    }
    if (!stream_arg_id(c, arg, &w->after)) return false;
    /* The highest id has no history behind it: redis-server takes it for ">". */
    w->newest = a->is_group && stream_id_cmp(w->after, STREAM_ID_MAX) == 0;
    return true;
}

/* ---- what a group gives -------------------------------------------------------------------------------------------*/

/* A consumer being served from one stream. */
struct serving {
    struct call *c;
    struct key k;
    struct stream *s;
    struct stream_group *g;
    struct stream_consumer *consumer;
    const struct read_args *a;
};

/* The group moves on to id. */
static void advance(const struct serving *v, struct stream_id id)
{
    struct stream_group *g = v->g;
    if (g->entries_read != STREAM_READ_UNKNOWN && !stream_has_gap_from(v->s, id))
        g->entries_read++;
    else if (v->s->entries_added)
        g->entries_read = stream_distance(v->s, id);
    g->last_id = id;
}

static void deliver(const struct serving *v, struct stream_id id)
{
    char text[STREAM_ID_TEXT_MAX];
    struct stream_pending p = {v->c->now_ms, 1, v->consumer->name};
    stream_pending_put(v->g, id, v->consumer, p.delivered_ms, p.count);
    v->consumer->active_ms = v->c->now_ms;
    stream_effect_claim(v->c, v->k.name, *v->a->group, v->g, bytes_make(text, stream_id_format(text, id)), &p);
}

static void serve_newest(const struct serving *v)
{
    struct call *c = v->c;
    struct stream_iter it;
    struct stream_id id = v->g->last_id;
    size_t fields, n = 0, mark = resp_defer(&c->out);
    bool any = stream_id_next(&id);
    stream_iter_init(&it, v->s, id, STREAM_ID_MAX, false);
    while (any && (v->a->count == 0 || n < v->a->count) && stream_iter_next(&it, &id, &fields)) {
        advance(v, id);
        stream_reply_entry(c, &it, id, fields);
        if (!v->a->noack) deliver(v, id);
        n++;
    }
    resp_defer_array(&c->out, mark, n);
    if (n && v->a->noack) stream_effect_group_id(c, v->k.name, *v->a->group, v->g);
}

/* What is pending for the consumer behind an id. */
static void serve_history(const struct serving *v, struct stream_id id)
{
    struct call *c = v->c;
    struct tree_pos pos;
    const struct tree *ids = &v->consumer->pending;
    size_t n = 0, mark = resp_defer(&c->out);
    bool more = stream_id_next(&id) && stream_pending_seek(ids, id, &pos);
    for (; more && (v->a->count == 0 || n < v->a->count); more = tree_next(&pos), n++) {
        struct stream_pending p;
        id = stream_pending_id(ids, &pos);
        if (!stream_reply_one(c, v->s, id)) {
            resp_array(&c->out, 2);
            stream_reply_id(c, id);
            resp_null_array(&c->out);
            continue;
        }
        stream_pending_find(v->g, id, &p);
        stream_pending_put(v->g, id, v->consumer, c->now_ms, p.count + 1);
    }
    resp_defer_array(&c->out, mark, n);
}

/* False: memory is out, nothing was replied. */
static bool serve_group(struct call *c, const struct read_args *a, size_t i, const struct wanted *w)
{
    struct serving v = {.c = c, .k = call_key(c, a->first + i), .a = a};
    bool created;
    v.s = stream_of(call_edit(c, &v.k));
    v.g = stream_group_edit(v.s, *a->group);
    v.consumer = stream_call_consumer(c, &v.k, v.g, *a->consumer, &created);
    if (!v.consumer) return false;
    /* Replicas learn of a consumer with its first pending entry; without one they have to be told. */
    if (created && a->noack)
        call_effect_cstr(c, 5, BYTES("XGROUP"), BYTES("CREATECONSUMER"), v.k.name, *a->group, *a->consumer);
    if (w->newest)
        serve_newest(&v);
    else
        serve_history(&v, w->after);
    c->dirty++;
    return true;
}

/* ---- both commands ------------------------------------------------------------------------------------------------*/

static bool has_something(const struct read_args *a, const struct stream *s, const struct wanted *w)
{
    struct stream_id last;
    if (a->is_group && !w->newest) return true;
    if (!s || !s->length || !stream_last(s, &last)) return false;
    struct stream_id after = a->is_group ? stream_group_find(s, *a->group)->last_id : w->after;
    return stream_id_cmp(last, after) > 0;
}

static bool serve(struct call *c, const struct read_args *a, size_t i, const struct stream *s, struct wanted *w)
{
    if (c->out.version == 2) resp_array(&c->out, 2);
    resp_bulk(&c->out, c->argv[a->first + i]);
    if (a->is_group) return serve_group(c, a, i, w);
    stream_id_next(&w->after);
    stream_reply_range(c, s, w->after, STREAM_ID_MAX, a->count, false);
    return true;
}

/* Checks everything; false: the error was replied. */
static bool check(struct call *c, const struct read_args *a, struct wanted *wanted)
{
    for (size_t i = 0; i < a->streams; i++) {
        struct stream *s;
        if (!call_serves(c, a->first + i)) continue;
        if (!find_stream(c, a, i, &s) || !parse_wanted(c, a, i, s, &wanted[i])) return false;
    }
    return true;
}

static size_t serve_all(struct call *c, const struct read_args *a, struct wanted *wanted)
{
    size_t n = 0, start = c->out.buf->n, mark = 0;
    for (size_t i = 0; i < a->streams; i++) {
        if (!call_serves(c, a->first + i)) continue;
        struct key k = call_key(c, a->first + i);
        struct entry *e = call_read(c, &k);
        const struct stream *s = e ? stream_of(e) : NULL;
        if (!has_something(a, s, &wanted[i])) continue;
        if (n++ == 0) mark = resp_defer(&c->out);
        if (!serve(c, a, i, s, &wanted[i])) {
            c->out.buf->n = start;
            resp_error(&c->out, ERR_OOM_VALUE);
            return n;
        }
    }
    if (n == 0) return 0;
    if (c->out.version == 2)
        resp_defer_array(&c->out, mark, n);
    else
        resp_defer_map(&c->out, mark, n);
    return n;
}

/* Nothing is there: the client sleeps.  When it is served "$" must mean what it means now. */
static void sleep_at_keys(struct call *c, const struct read_args *a, const struct wanted *wanted)
{
    struct bytes *argv = mem_alloc(c->argc * sizeof *argv);
    char(*texts)[STREAM_ID_TEXT_MAX] = mem_alloc(a->streams * sizeof *texts);
    memcpy(argv, c->argv, c->argc * sizeof *argv);
    for (size_t i = 0; i < a->streams; i++) {
        struct bytes *id = &argv[a->first + a->streams + i];
        if (bytes_eq(*id, BYTES("$"))) *id = bytes_make(texts[i], stream_id_format(texts[i], wanted[i].after));
    }
    call_wait(c, &(struct call_wait){.type = TYPE_STREAM,
                                     .first = (uint32_t)a->first,
                                     .count = (uint32_t)a->streams,
                                     .timeout_ms = a->timeout_ms,
                                     .flags = a->is_group ? CALL_WAIT_ALSO_GONE : 0,
                                     .argv = argv});
    mem_free(texts);
    mem_free(argv);
}

static void run(struct call *c, bool is_group)
{
    enum { INLINE = 16 };
    struct wanted few[INLINE], *wanted = few;
    struct read_args a = {.is_group = is_group};
    if (is_group) call_effect_none(c);
    if (!parse_args(c, &a)) return;
    if (a.streams > INLINE) wanted = mem_alloc(a.streams * sizeof *wanted);
    if (check(c, &a, wanted) && serve_all(c, &a, wanted) == 0) {
        if (a.block)
            sleep_at_keys(c, &a, wanted);
        else
            resp_null_array(&c->out);
    }
    if (wanted != few) mem_free(wanted);
}

void cmd_xread(struct call *c)
{
    run(c, false);
}

void cmd_xreadgroup(struct call *c)
{
    run(c, true);
}
