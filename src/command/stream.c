/* stream.c: XADD, XTRIM, XDEL, XLEN, XRANGE, XREVRANGE and XSETID. */
#include "command/stream_args.h"

#include "base/mem.h"
#include "base/number.h"

/* Without LIMIT, approximate trimming looks at so many nodes at a time, within these bounds of entries. */
enum { TRIM_NODES = 100, TRIM_LIMIT_DEFAULT = 10000, TRIM_LIMIT_MAX = 1000000 };

static bool obeys(const struct call *c)
{
    return c->flags & (CALL_FROM_PRIMARY | CALL_LOADING);
}

/* ---- options of XADD and XTRIM ------------------------------------------------------------------------------------*/

struct add_args {
    struct stream_trim_args t;
    bool limit_given, no_mkstream, id_given, seq_given;
    struct stream_id id;
    size_t id_arg;
};

/* MAXLEN or MINID at argument *at with what belongs to it; *at is moved to its last argument. */
static bool parse_strategy(struct call *c, size_t *at, bool by_id, struct stream_trim_args *t)
{
    int64_t length = 0;
    if (t->wanted) {
        resp_error(&c->out, "ERR syntax error, MAXLEN and MINID options at the same time are not compatible");
        return false;
    }
    t->trim.approximate = false;
    t->trim.by_id = by_id;
    bool more = *at + 2 < c->argc;
    if (more && bytes_eq(c->argv[*at + 1], BYTES("~"))) t->trim.approximate = true;
    if (more && (t->trim.approximate || bytes_eq(c->argv[*at + 1], BYTES("=")))) ++*at;
    ++*at;
    if (by_id) {
        if (!stream_arg_id(c, *at, &t->trim.min_id)) return false;
    } else if (!call_arg_i64(c, *at, &length, NULL)) {
        return false;
    } else if (length < 0) {
        resp_error(&c->out, "ERR The MAXLEN argument must be >= 0.");
        return false;
    }
    t->trim.max_length = (uint64_t)length;
    t->wanted = true;
    t->bound_arg = *at;
    return true;
}

static bool parse_limit(struct call *c, size_t arg, struct add_args *a)
{
    int64_t limit;
    if (!call_arg_i64(c, arg, &limit, NULL)) return false;
    if (limit < 0) {
        resp_error(&c->out, "ERR The LIMIT argument must be >= 0.");
        return false;
    }
    a->t.trim.limit = (uint64_t)limit;
    a->limit_given = true;
    return true;
}

static bool check_limit(struct call *c, bool add, struct add_args *a)
{
    struct stream_trim *trim = &a->t.trim;
    const char *error = NULL;
    if (trim->limit && !a->t.wanted)
        error = "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy";
    else if (!add && !a->t.wanted)
        error = "ERR syntax error, XTRIM must be called with a trimming strategy";
    else if (obeys(c))
        trim->limit = 0; /* what the primary did has no limit left in it */
    else if (a->limit_given && !trim->approximate)
        error = "ERR syntax error, LIMIT cannot be used without the special ~ option";
    if (error) {
        resp_error(&c->out, error);
        return false;
    }
    if (!a->limit_given && trim->approximate && !obeys(c)) {
        uint64_t entries = c->env->options->limits.stream_node_max_entries;
        trim->limit = entries == 0                            ? TRIM_LIMIT_DEFAULT
                      : entries > TRIM_LIMIT_MAX / TRIM_NODES ? TRIM_LIMIT_MAX
                                                              : TRIM_NODES * entries;
    }
    return true;
}

static bool parse_add_args(struct call *c, bool add, struct add_args *a)
{
    size_t at = 2;
    for (; at < c->argc; at++) {
        bool more = at + 1 < c->argc;
        if (add && bytes_eq(c->argv[at], BYTES("*"))) {
            break;
        } else if (more && call_arg_is(c, at, "maxlen")) {
            if (!parse_strategy(c, &at, false, &a->t)) return false;
        } else if (more && call_arg_is(c, at, "minid")) {
            if (!parse_strategy(c, &at, true, &a->t)) return false;
        } else if (more && call_arg_is(c, at, "limit")) {
            if (!parse_limit(c, ++at, a)) return false;
        } else if (add && call_arg_is(c, at, "nomkstream")) {
            a->no_mkstream = true;
        } else if (add) {
            if (!stream_arg_add_id(c, at, &a->id, &a->seq_given)) return false;
            a->id_given = true;
            break;
        } else {
            resp_error(&c->out, ERR_SYNTAX);
            return false;
        }
    }
    a->id_arg = at;
    return check_limit(c, add, a);
}

/* What an approximate trim came to, for replicas: MAXLEN = length, or MINID = first entry. */
static struct bytes trim_result(const struct stream *s, bool by_id, char text[STREAM_ID_TEXT_MAX])
{
    if (!by_id) return bytes_make(text, format_u64(text, s->length));
    struct stream_node_iter it = {.started = false};
    const struct stream_node *first = stream_node_next(s, &it);
    return bytes_make(text, stream_id_format(text, first ? first->id : STREAM_ID_MAX));
}

/* Repeats the command with its id, where it was left open, and an exact trim. */
static void propagate(struct call *c, const struct stream *s, const struct add_args *a, const struct stream_id *id)
{
    enum { INLINE = 32 };
    struct bytes few[INLINE], *argv = few;
    char id_text[STREAM_ID_TEXT_MAX], bound[STREAM_ID_TEXT_MAX];
    if (!c->effects_wanted) {
        call_effect_none(c);
        return;
    }
    if (c->argc > INLINE) argv = mem_alloc(c->argc * sizeof *argv);
    memcpy(argv, c->argv, c->argc * sizeof *argv);
    if (id) argv[a->id_arg] = bytes_make(id_text, stream_id_format(id_text, *id));
    if (a->t.wanted && a->t.trim.approximate) {
        argv[a->t.bound_arg - 1] = BYTES("=");
        argv[a->t.bound_arg] = trim_result(s, a->t.trim.by_id, bound);
    }
    call_effect(c, c->argc, argv);
    if (argv != few) mem_free(argv);
}

/* ---- XADD ---------------------------------------------------------------------------------------------------------*/

enum add_result { ADD_OK, ADD_NOT_ABOVE, ADD_NO_SEQUENCE };

static enum add_result pick_id(const struct call *c, const struct stream *s, const struct add_args *a,
                               struct stream_id *id)
{
    struct stream_id last = s ? s->last_id : STREAM_ID_MIN;
    *id = a->id;
    if (!a->id_given) {
        *id = (struct stream_id){(uint64_t)c->now_ms, 0};
        if (id->ms <= last.ms) {
            *id = last;
            stream_id_next(id);
        }
        return ADD_OK;
    }
    if (!a->seq_given && id->ms == last.ms) {
        if (last.seq == UINT64_MAX) return ADD_NO_SEQUENCE;
        id->seq = last.seq + 1;
    }
    return stream_id_cmp(*id, last) > 0 ? ADD_OK : ADD_NOT_ABOVE;
}

static const char ERR_TOO_LARGE[] = "ERR Elements are too large to be stored";

/* The id to add under; false: an error was replied. */
static bool choose_id(struct call *c, const struct stream *s, const struct add_args *a, struct stream_id *id)
{
    if (s && stream_id_cmp(s->last_id, STREAM_ID_MAX) == 0) {
        resp_error(&c->out, "ERR The stream has exhausted the last possible ID, unable to add more items");
        return false;
    }
    switch (pick_id(c, s, a, id)) {
    case ADD_OK: return true;
    case ADD_NOT_ABOVE:
        resp_error(&c->out, "ERR The ID specified in XADD is equal or smaller than the target stream top item");
        return false;
    case ADD_NO_SEQUENCE: resp_error(&c->out, ERR_TOO_LARGE); return false;
    }
    return false;
}

void cmd_xadd(struct call *c)
{
    struct add_args a = {.no_mkstream = false};
    struct key k = call_key(c, 1);
    struct entry *e;
    struct stream_id id;
    if (!parse_add_args(c, true, &a)) return;
    size_t texts = a.id_arg + 1;
    if (c->argc < texts + 2 || (c->argc - texts) % 2) {
        call_wrong_arity(c);
        return;
    }
    if (a.id_given && a.seq_given && stream_id_is_zero(a.id)) {
        resp_error(&c->out, "ERR The ID specified in XADD must be greater than 0-0");
        return;
    }
    if (!call_edit_type(c, &k, TYPE_STREAM, &e)) return;
    if (!e && a.no_mkstream) {
        resp_null(&c->out);
        return;
    }
    if (!choose_id(c, e ? stream_of(e) : NULL, &a, &id)) return;
    struct entry *fresh = e ? NULL : stream_entry_new(k.name);
    struct stream *s = stream_of(e ? e : fresh);
    enum status st = stream_append(s, id, c->argv + texts, (c->argc - texts) / 2, &c->env->options->limits);
    if (st != OK) {
        if (fresh) entry_free(fresh);
        resp_error(&c->out, st == E_NOMEM ? ERR_OOM_VALUE : ERR_TOO_LARGE);
        return;
    }
    if (fresh) call_put(c, &k, fresh);
    stream_reply_id(c, id);
    call_changed(c, &k, NOTIFY_STREAM, "xadd");
    if (a.t.wanted && stream_trim(s, &a.t.trim)) call_notify(c, &k, NOTIFY_STREAM, "xtrim");
    bool open = !a.id_given || !a.seq_given;
    if (open || (a.t.wanted && a.t.trim.approximate)) propagate(c, s, &a, open ? &id : NULL);
}

void cmd_xtrim(struct call *c)
{
    struct add_args a = {.no_mkstream = false};
    struct key k = call_key(c, 1);
    struct entry *e;
    if (!parse_add_args(c, false, &a)) return;
    if (!call_edit_type(c, &k, TYPE_STREAM, &e)) return;
    uint64_t removed = e ? stream_trim(stream_of(e), &a.t.trim) : 0;
    if (removed) {
        call_changed(c, &k, NOTIFY_STREAM, "xtrim");
        c->dirty += removed - 1;
        if (a.t.trim.approximate) propagate(c, stream_of(e), &a, NULL);
    }
    resp_i64(&c->out, (int64_t)removed);
}

/* ---- the others ---------------------------------------------------------------------------------------------------*/

void cmd_xdel(struct call *c)
{
    struct key k = call_key(c, 1);
    struct entry *e;
    struct stream_id id;
    uint64_t removed = 0;
    bool first = false;
    if (!call_edit_type(c, &k, TYPE_STREAM, &e)) return;
    if (!e) {
        resp_i64(&c->out, 0);
        return;
    }
    for (size_t i = 2; i < c->argc; i++)
        if (!stream_arg_id(c, i, &id)) return;
    struct stream *s = stream_of(e);
    for (size_t i = 2; i < c->argc; i++) {
        stream_id_parse(c->argv[i], 0, false, &id);
        if (!stream_delete(s, id)) continue;
        if (stream_id_cmp(id, s->first_id) == 0) first = true;
        if (stream_id_cmp(id, s->max_deleted_id) > 0) s->max_deleted_id = id;
        removed++;
    }
    if (first) stream_update_first(s);
    if (removed) {
        call_changed(c, &k, NOTIFY_STREAM, "xdel");
        c->dirty += removed - 1;
    }
    resp_i64(&c->out, (int64_t)removed);
}

void cmd_xlen(struct call *c)
{
    struct key k = call_key(c, 1);
    struct entry *e;
    if (!call_read_type(c, &k, TYPE_STREAM, &e)) return;
    resp_i64(&c->out, e ? (int64_t)stream_of(e)->length : 0);
}

/* COUNT of XRANGE: -1 when it is not there. */
static bool parse_count(struct call *c, int64_t *count)
{
    *count = -1;
    for (size_t at = 4; at < c->argc; at++) {
        if (!call_arg_is(c, at, "count") || at + 1 >= c->argc) {
            resp_error(&c->out, ERR_SYNTAX);
            return false;
        }
        if (!call_arg_i64(c, ++at, count, NULL)) return false;
        if (*count < 0) *count = 0;
    }
    return true;
}

static void range(struct call *c, bool reverse)
{
    struct key k = call_key(c, 1);
    struct entry *e;
    struct stream_id start, end;
    int64_t count;
    if (!stream_arg_start(c, reverse ? 3 : 2, &start) || !stream_arg_end(c, reverse ? 2 : 3, &end)) return;
    if (!parse_count(c, &count) || !call_read_type(c, &k, TYPE_STREAM, &e)) return;
    if (!e)
        resp_array(&c->out, 0);
    else if (count == 0)
        resp_null_array(&c->out);
    else
        stream_reply_range(c, stream_of(e), start, end, count < 0 ? 0 : (size_t)count, reverse);
}

void cmd_xrange(struct call *c)
{
    range(c, false);
}

void cmd_xrevrange(struct call *c)
{
    range(c, true);
}

struct setid_args {
    struct stream_id id, max_deleted;
    int64_t entries_added; /* -1: not given */
};

static bool parse_setid(struct call *c, struct setid_args *a)
{
    if (!stream_arg_id(c, 2, &a->id)) return false;
    for (size_t at = 3; at < c->argc; at += 2) {
        bool more = at + 1 < c->argc;
        const char *error = NULL;
        if (more && call_arg_is(c, at, "entriesadded")) {
            if (!call_arg_i64(c, at + 1, &a->entries_added, NULL)) return false;
            if (a->entries_added < 0) error = "ERR entries_added must be positive";
        } else if (more && call_arg_is(c, at, "maxdeletedid")) {
            if (!stream_arg_id(c, at + 1, &a->max_deleted)) return false;
            if (stream_id_cmp(a->id, a->max_deleted) < 0)
                error = "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id";
        } else {
            error = ERR_SYNTAX;
        }
        if (!error) continue;
        resp_error(&c->out, error);
        return false;
    }
    return true;
}

static const char *setid_error(const struct stream *s, const struct setid_args *a)
{
    struct stream_id last;
    if (!s) return ERR_NO_SUCH_KEY;
    if (!stream_last(s, &last)) return NULL;
    if (stream_id_cmp(a->id, last) < 0)
        return "ERR The ID specified in XSETID is smaller than the target stream top item";
    if (a->entries_added >= 0 && s->length > (uint64_t)a->entries_added)
        return "ERR The entries_added specified in XSETID is smaller than the target stream length";
    return NULL;
}

void cmd_xsetid(struct call *c)
{
    struct setid_args a = {.entries_added = -1};
    struct key k = call_key(c, 1);
    struct entry *e;
    if (!parse_setid(c, &a) || !call_edit_type(c, &k, TYPE_STREAM, &e)) return;
    struct stream *s = e ? stream_of(e) : NULL;
    const char *error = setid_error(s, &a);
    if (error) {
        resp_error(&c->out, error);
        return;
    }
    s->last_id = a.id;
    if (a.entries_added >= 0) s->entries_added = (uint64_t)a.entries_added;
    if (!stream_id_is_zero(a.max_deleted)) s->max_deleted_id = a.max_deleted;
    call_side_changed(c, &k, NOTIFY_STREAM, "xsetid");
    resp_ok(&c->out);
}
