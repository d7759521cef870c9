/* The list commands. */
#include "base/number.h"
#include "command/collection.h"
#include "command/mpop.h"
#include "store/listtype.h"

static const char *const push_event[] = {[LIST_HEAD] = "lpush", [LIST_TAIL] = "rpush"};
static const char *const pop_event[] = {[LIST_HEAD] = "lpop", [LIST_TAIL] = "rpop"};

static bool find(struct call *c, struct entry **e)
{
    struct key k = call_key(c, 1);
    return call_read_type(c, &k, TYPE_LIST, e);
}

static bool find_for_edit(struct call *c, struct key *k, struct entry **e)
{
    *k = call_key(c, 1);
    return call_edit_type(c, k, TYPE_LIST, e);
}

/* A range as LRANGE and LTRIM take it, as [first, first + count); count is 0 when it is empty. */
static void clip(int64_t start, int64_t end, uint64_t len, uint64_t *first, uint64_t *count)
{
    int64_t n = (int64_t)len;
    if (start < 0) start = start + n < 0 ? 0 : start + n;
    if (end < 0) end += n;
    if (end >= n) end = n - 1;
    *first = start > end ? 0 : (uint64_t)start;
    *count = start > end ? 0 : (uint64_t)(end - start) + 1;
}

/* ---- Pushing ----------------------------------------------------------------------------------------------------- */

static void push(struct call *c, enum list_end end, bool create)
{
    struct growing g = {.key = call_key(c, 1)};
    if (!call_edit_type(c, &g.key, TYPE_LIST, &g.e)) return;
    if (!g.e && !create) {
        resp_i64(&c->out, 0);
        return;
    }
    g.is_new = !g.e;
    if (g.is_new) g.e = list_new(g.key.name);
    enum status s = OK;
    size_t i = 2;
    for (; i < c->argc; i++) {
        s = list_push(g.e, end, c->argv[i], &c->env->options->limits);
        if (s != OK) break;
    }
    uint64_t len = list_len(g.e);
    growing_finish(c, &g, len);
    if (i > 2) collection_changed(c, &g.key, NOTIFY_LIST, push_event[end], i - 2);
    if (s == OK)
        resp_i64(&c->out, (int64_t)len);
    else
        collection_out_of_memory(c, i);
}

void cmd_lpush(struct call *c)
{
    push(c, LIST_HEAD, true);
}

void cmd_rpush(struct call *c)
{
    push(c, LIST_TAIL, true);
}

void cmd_lpushx(struct call *c)
{
    push(c, LIST_HEAD, false);
}

void cmd_rpushx(struct call *c)
{
    push(c, LIST_TAIL, false);
}

void cmd_linsert(struct call *c)
{
    struct key k;
    struct entry *e;
    bool before = call_arg_is(c, 2, "before");
    if (!before && !call_arg_is(c, 2, "after")) {
        resp_error(&c->out, ERR_SYNTAX);
        return;
    }
    if (!find_for_edit(c, &k, &e)) return;
    if (!e) {
        resp_i64(&c->out, 0);
        return;
    }
    enum status s = list_insert_at_pivot(e, c->argv[3], before, c->argv[4], &c->env->options->limits);
    if (s == OK) call_changed(c, &k, NOTIFY_LIST, "linsert");
    if (s == OK)
        resp_i64(&c->out, (int64_t)list_len(e));
    else if (s == E_NOT_FOUND)
        resp_i64(&c->out, -1);
    else
        collection_out_of_memory(c, 0);
}

void cmd_lset(struct call *c)
{
    struct key k;
    struct entry *e;
    int64_t index;
    if (!find_for_edit(c, &k, &e)) return;
    if (!e) {
        resp_error(&c->out, ERR_NO_SUCH_KEY);
        return;
    }
    if (!call_arg_i64(c, 2, &index, NULL)) return;
    enum status s = list_set(e, index, c->argv[3], &c->env->options->limits);
    if (s == OK) call_changed(c, &k, NOTIFY_LIST, "lset");
    if (s == OK)
        resp_ok(&c->out);
    else if (s == E_NOT_FOUND)
        resp_error(&c->out, ERR_OUT_OF_RANGE);
    else
        collection_out_of_memory(c, 0);
}

/* ---- Removing ---------------------------------------------------------------------------------------------------- */

static void removed(struct call *c, const struct key *k, const struct entry *e, const char *event, uint64_t n)
{
    collection_changed(c, k, NOTIFY_LIST, event, n);
    call_delete_if_empty(c, k, list_len(e));
}

static void reply_range(struct call *c, const struct entry *e, uint64_t first, uint64_t count, bool reverse)
{
    struct list_iter it;
    struct element x;
    list_iter_init(&it, e, first, reverse);
    resp_array(&c->out, count);
    while (count-- && list_iter_next(&it, &x, NULL)) resp_bulk(&c->out, x.text);
}

static void pop_one(struct call *c, const struct key *k, struct entry *e, enum list_end end)
{
    struct element x;
    uint64_t len = list_len(e);
    if (!list_index(e, end == LIST_HEAD ? 0 : -1, &x)) {
        resp_null(&c->out);
        return;
    }
    resp_bulk(&c->out, x.text);
    list_delete(e, end == LIST_HEAD ? 0 : len - 1, 1);
    removed(c, k, e, pop_event[end], 1);
}

static void pop_many(struct call *c, const struct key *k, struct entry *e, enum list_end end, uint64_t count)
{
    uint64_t len = list_len(e);
    if (count > len) count = len;
    if (count == 0) {
        resp_array(&c->out, 0);
        return;
    }
    reply_range(c, e, end == LIST_HEAD ? 0 : len - 1, count, end == LIST_TAIL);
    list_delete(e, end == LIST_HEAD ? 0 : len - count, count);
    removed(c, k, e, pop_event[end], count);
}

static void pop(struct call *c, enum list_end end)
{
    struct key k;
    struct entry *e;
    int64_t count = 1;
    bool many = c->argc == 3;
    if (c->argc > 3) {
        call_wrong_arity(c);
        return;
    }
    if (many && !call_arg_range(c, 2, 0, INT64_MAX, &count, "ERR value is out of range, must be positive")) return;
    if (!find_for_edit(c, &k, &e)) return;
    if (!e && many)
        resp_null_array(&c->out);
    else if (!e)
        resp_null(&c->out);
    else if (many)
        pop_many(c, &k, e, end, (uint64_t)count);
    else
        pop_one(c, &k, e, end);
}

void cmd_lpop(struct call *c)
{
    pop(c, LIST_HEAD);
}

void cmd_rpop(struct call *c)
{
    pop(c, LIST_TAIL);
}

/* Repeated as LPOP or RPOP. */
static void mpop_from(struct call *c, const struct key *k, struct entry *e, enum list_end end, uint64_t count)
{
    char digits[24];
    resp_array(&c->out, 2);
    resp_bulk(&c->out, k->name);
    pop_many(c, k, e, end, count);
    call_effect_cstr(c, 3, end == LIST_HEAD ? BYTES("LPOP") : BYTES("RPOP"), k->name,
                     bytes_make(digits, format_i64(digits, (int64_t)count)));
}

enum mpop_result list_mpop(struct call *c, const struct mpop *m)
{
    for (size_t i = 0; i < m->keys; i++) {
        if (!call_serves(c, m->first_key + i)) continue;
        struct key k = call_key(c, m->first_key + i);
        struct entry *e;
        if (!call_edit_type(c, &k, TYPE_LIST, &e)) return MPOP_DONE;
        if (!e) continue;
        uint64_t len = list_len(e);
        mpop_from(c, &k, e, m->end == 0 ? LIST_HEAD : LIST_TAIL, (uint64_t)m->count < len ? (uint64_t)m->count : len);
        return MPOP_DONE;
    }
    return MPOP_NOTHING;
}

void cmd_lmpop(struct call *c)
{
    struct mpop m;
    static const char *const ends[] = {"left", "right"};
    if (!mpop_parse(c, 1, ends, &m)) return;
    if (list_mpop(c, &m) == MPOP_NOTHING) resp_null_array(&c->out);
}

void cmd_lrem(struct call *c)
{
    struct key k;
    struct entry *e;
    int64_t count;
    if (!call_arg_i64(c, 2, &count, NULL) || !find_for_edit(c, &k, &e)) return;
    uint64_t n = e ? list_remove_equal(e, c->argv[3], count) : 0;
    if (n) removed(c, &k, e, "lrem", n);
    resp_i64(&c->out, (int64_t)n);
}

void cmd_ltrim(struct call *c)
{
    struct key k;
    struct entry *e;
    int64_t start, end;
    if (!call_arg_i64(c, 2, &start, NULL) || !call_arg_i64(c, 3, &end, NULL) || !find_for_edit(c, &k, &e)) return;
    if (e) {
        uint64_t first, count, len = list_len(e);
        clip(start, end, len, &first, &count);
        list_keep(e, first, count);
        if (count < len)
            removed(c, &k, e, "ltrim", len - count);
        else
            call_notify(c, &k, NOTIFY_LIST, "ltrim");
    }
    resp_ok(&c->out);
}

/* ---- Moving ------------------------------------------------------------------------------------------------------ */

static void reply_moved(struct call *c, enum status s, const struct buf *moved)
{
    if (s == OK)
        resp_bulk(&c->out, buf_bytes(moved));
    else
        collection_out_of_memory(c, 0);
}

static void move(struct call *c, enum list_end from, enum list_end to)
{
    struct key k;
    struct entry *src, *dst;
    struct growing g = {.key = call_key(c, 2)};
    if (!find_for_edit(c, &k, &src)) return;
    if (!src) {
        resp_null(&c->out);
        return;
    }
    if (!call_edit_type(c, &g.key, TYPE_LIST, &dst)) return;
    g.e = dst ? dst : list_new(g.key.name);
    g.is_new = !dst;
    /* Opening the second key cannot have touched the first unless they are one; then g.e is the entry to use. */
    if (bytes_eq(k.name, g.key.name)) src = g.e;
    struct buf moved = {0};
    enum status s = list_move(src, from, g.e, to, &c->env->options->limits, &moved);
    growing_finish(c, &g, s == OK);
    if (s == OK) {
        call_notify(c, &g.key, NOTIFY_LIST, push_event[to]);
        removed(c, &k, src, pop_event[from], 1);
    }
    reply_moved(c, s, &moved);
    buf_deinit(&moved);
}

static bool end_of(struct call *c, size_t arg, enum list_end *end)
{
    *end = call_arg_is(c, arg, "left") ? LIST_HEAD : LIST_TAIL;
    if (*end == LIST_HEAD || call_arg_is(c, arg, "right")) return true;
    resp_error(&c->out, ERR_SYNTAX);
    return false;
}

void cmd_lmove(struct call *c)
{
    enum list_end from, to;
    if (end_of(c, 3, &from) && end_of(c, 4, &to)) move(c, from, to);
}

void cmd_rpoplpush(struct call *c)
{
    move(c, LIST_TAIL, LIST_HEAD);
}

/* ---- Waiting for an element -------------------------------------------------------------------------------------- */

static const char *const pop_command[] = {[LIST_HEAD] = "LPOP", [LIST_TAIL] = "RPOP"};
static const char *const end_name[] = {[LIST_HEAD] = "left", [LIST_TAIL] = "right"};

static void wait_for_list(struct call *c, size_t first, size_t keys, int64_t timeout_ms, unsigned flags)
{
    call_wait(c, &(struct call_wait){.type = TYPE_LIST,
                                     .first = (uint32_t)first,
                                     .count = (uint32_t)keys,
                                     .timeout_ms = timeout_ms,
                                     .flags = flags});
}

/* The first of the keys that holds an element; NULL: none does.  False: one of another type came first. */
static bool find_first(struct call *c, size_t first, size_t keys, struct key *k, struct entry **e)
{
    *e = NULL;
    for (size_t i = first; i < first + keys; i++) {
        if (!call_serves(c, i)) continue;
        *k = call_key(c, i);
        if (!call_edit_type(c, k, TYPE_LIST, e)) return false;
        if (*e) break;
    }
    return true;
}

static void blocking_pop(struct call *c, enum list_end end)
{
    int64_t timeout_ms;
    struct key k;
    struct entry *e;
    if (!call_arg_timeout_s(c, c->argc - 1, &timeout_ms) || !find_first(c, 1, c->argc - 2, &k, &e)) return;
    if (!e) {
        wait_for_list(c, 1, c->argc - 2, timeout_ms, 0);
        return;
    }
    resp_array(&c->out, 2);
    resp_bulk(&c->out, k.name);
    pop_one(c, &k, e, end);
    call_effect_cstr(c, 2, bytes_of(pop_command[end]), k.name);
}

void cmd_blpop(struct call *c)
{
    blocking_pop(c, LIST_HEAD);
}

void cmd_brpop(struct call *c)
{
    blocking_pop(c, LIST_TAIL);
}

void cmd_blmpop(struct call *c)
{
    struct mpop m;
    int64_t timeout_ms;
    if (!mpop_parse(c, 2, end_name, &m) || !call_arg_timeout_s(c, 1, &timeout_ms)) return;
    if (list_mpop(c, &m) == MPOP_NOTHING) wait_for_list(c, m.first_key, m.keys, timeout_ms, 0);
}

/* False: there is nothing to move, and the client sleeps (or has had its reply). */
static bool blocking_move(struct call *c, enum list_end from, enum list_end to, size_t timeout_arg)
{
    int64_t timeout_ms;
    struct key k = call_key(c, 1);
    if (!call_arg_timeout_s(c, timeout_arg, &timeout_ms)) return false;
    if (!call_peek(c, &k)) {
        wait_for_list(c, 1, 1, timeout_ms, CALL_WAIT_NULL_BULK);
        return false;
    }
    move(c, from, to);
    return c->dirty > 0;
}

void cmd_blmove(struct call *c)
{
    enum list_end from, to;
    if (!end_of(c, 3, &from) || !end_of(c, 4, &to) || !blocking_move(c, from, to, 5)) return;
    call_effect_cstr(c, 5, BYTES("LMOVE"), c->argv[1], c->argv[2], bytes_of(end_name[from]), bytes_of(end_name[to]));
}

void cmd_brpoplpush(struct call *c)
{
    if (blocking_move(c, LIST_TAIL, LIST_HEAD, 3)) call_effect_cstr(c, 3, BYTES("RPOPLPUSH"), c->argv[1], c->argv[2]);
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

void cmd_llen(struct call *c)
{
    struct entry *e;
    if (find(c, &e)) resp_i64(&c->out, e ? (int64_t)list_len(e) : 0);
}

void cmd_lindex(struct call *c)
{
    struct entry *e;
    struct element x;
    int64_t index;
    if (!find(c, &e) || (e && !call_arg_i64(c, 2, &index, NULL))) return;
    if (e && list_index(e, index, &x))
        resp_bulk(&c->out, x.text);
    else
        resp_null(&c->out);
}

void cmd_lrange(struct call *c)
{
    struct entry *e;
    int64_t start, end;
    uint64_t first = 0, count = 0;
    if (!call_arg_i64(c, 2, &start, NULL) || !call_arg_i64(c, 3, &end, NULL) || !find(c, &e)) return;
    if (e) clip(start, end, list_len(e), &first, &count);
    if (count)
        reply_range(c, e, first, count, false);
    else
        resp_array(&c->out, 0);
}

/* ---- LPOS -------------------------------------------------------------------------------------------------------- */

struct lpos {
    uint64_t skip; /* matches to pass over */
    bool reverse;
    bool many;      /* COUNT was given */
    int64_t count;  /* 0: all */
    int64_t maxlen; /* elements to compare; 0: all */
};

static bool lpos_rank(struct call *c, size_t arg, struct lpos *o)
{
    int64_t rank;
    if (!call_arg_i64(c, arg, &rank, NULL)) return false;
    if (rank == 0) {
        resp_error(&c->out, "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use "
                            "negative to start from the end of the list");
        return false;
    }
    o->reverse = rank < 0;
    /* The lowest integer has no positive counterpart; Redis then finds the last match. */
    if (rank == INT64_MIN) rank = -1;
    o->skip = (uint64_t)(rank < 0 ? -rank : rank) - 1;
    return true;
}

static bool lpos_options(struct call *c, struct lpos *o)
{
    for (size_t i = 3; i < c->argc; i += 2) {
        bool more = i + 1 < c->argc;
        if (more && call_arg_is(c, i, "rank")) {
            if (!lpos_rank(c, i + 1, o)) return false;
        } else if (more && call_arg_is(c, i, "count")) {
            if (!call_arg_range(c, i + 1, 0, INT64_MAX, &o->count, "ERR COUNT can't be negative")) return false;
            o->many = true;
        } else if (more && call_arg_is(c, i, "maxlen")) {
            if (!call_arg_range(c, i + 1, 0, INT64_MAX, &o->maxlen, "ERR MAXLEN can't be negative")) return false;
        } else {
            resp_error(&c->out, ERR_SYNTAX);
            return false;
        }
    }
    return true;
}

/* The next element equal to the one asked for; only `compare` elements may be looked at (0: any number). */
static bool lpos_next(struct list_iter *it, struct bytes text, uint64_t *compare, uint64_t *index)
{
    if (!*compare) return list_iter_find(it, text, index);
    struct element x;
    for (; *compare > 1 && list_iter_next(it, &x, index); --*compare)
        if (bytes_eq(x.text, text)) {
            --*compare;
            return true;
        }
    return false;
}

/* Replies the indexes of at most `want` matches (0: all); returns how many there were. */
static uint64_t lpos_matches(struct call *c, const struct entry *e, const struct lpos *o, uint64_t want)
{
    struct list_iter it;
    /* One more than may be compared, since 0 means no limit. */
    uint64_t found = 0, skip = o->skip, index, compare = o->maxlen ? (uint64_t)o->maxlen + 1 : 0;
    list_iter_init(&it, e, o->reverse ? list_len(e) - 1 : 0, o->reverse);
    while (lpos_next(&it, c->argv[2], &compare, &index)) {
        if (skip) {
            skip--;
            continue;
        }
        resp_i64(&c->out, (int64_t)index);
        if (++found == want) break;
    }
    return found;
}

void cmd_lpos(struct call *c)
{
    struct entry *e;
    struct lpos o = {0};
    if (!lpos_options(c, &o) || !find(c, &e)) return;
    if (!o.many) {
        if (!e || !lpos_matches(c, e, &o, 1)) resp_null(&c->out);
    } else if (!e) {
        resp_array(&c->out, 0);
    } else {
        size_t mark = resp_defer(&c->out);
        resp_defer_array(&c->out, mark, lpos_matches(c, e, &o, (uint64_t)o.count));
    }
}
