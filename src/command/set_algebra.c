/* SINTER, SUNION, SDIFF, their STORE forms, and SINTERCARD.
 *
 * An operation is a walk that hands every element of the result to a sink, each once; the sink replies it or adds it to
 * the set that will be stored.  Nothing is gathered on the way where looking into the other sets does as well. */
#include "base/mem.h"
#include "command/collection.h"
#include "store/set.h"

#include <stdlib.h>

struct operands {
    const struct entry **set; /* owned array; NULL: no such key */
    size_t n, missing;
};

struct sink {
    struct call *c;
    struct entry *store; /* NULL: reply */
    size_t elements;
    enum status failed;
};

static void emit(struct sink *s, struct bytes member)
{
    s->elements++;
    if (!s->store)
        resp_bulk(&s->c->out, member);
    else if (s->failed == OK)
        s->failed = set_add(s->store, member, &s->c->env->options->limits, NULL);
}

/* The n sets at argv[first ...]; false: WRONGTYPE was replied (and nothing is owned). */
static bool operands_open(struct call *c, size_t first, size_t n, struct operands *o)
{
    *o = (struct operands){.n = n};
    o->set = mem_calloc(o->n, sizeof *o->set);
    for (size_t i = 0; i < o->n; i++) {
        struct key k = call_key(c, first + i);
        struct entry *e;
        if (!call_read_type(c, &k, TYPE_SET, &e)) {
            mem_free(o->set);
            return false;
        }
        o->set[i] = e;
        o->missing += !e;
    }
    return true;
}

static uint64_t len(const struct entry *e)
{
    return e ? set_len(e) : 0;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = len(*(const struct entry *const *)a), y = len(*(const struct entry *const *)b);
    return x < y ? -1 : x > y;
}

static int by_size_down(const void *a, const void *b)
{
    return by_size(b, a);
}

static bool in_all(const struct operands *o, size_t from, struct bytes member)
{
    for (size_t i = from; i < o->n; i++)
        if (!set_has(o->set[i], member)) return false;
    return true;
}

static bool in_any(const struct operands *o, size_t from, size_t end, struct bytes member)
{
    for (size_t i = from; i < end; i++)
        if (o->set[i] && set_has(o->set[i], member)) return true;
    return false;
}

/* ---- The operations ---------------------------------------------------------------------------------------------- */

static void intersect(struct operands *o, struct sink *out)
{
    if (o->missing) return;
    /* The smallest is walked; the next smallest is the likeliest to lack a member. */
    qsort(o->set, o->n, sizeof *o->set, by_size);
    struct set_iter it;
    struct element x;
    set_iter_init(&it, o->set[0]);
    while (set_iter_next(&it, &x))
        if (in_all(o, 1, x.text)) emit(out, x.text);
}

/* Adds the members of o->set[i] that are not in `seen` yet to it, and hands them on. */
static void unite_one(const struct entry *set, struct entry *seen, struct sink *out)
{
    struct set_iter it;
    struct element x;
    bool is_new;
    set_iter_init(&it, set);
    while (out->failed == OK && set_iter_next(&it, &x)) {
        out->failed = set_add(seen, x.text, &out->c->env->options->limits, &is_new);
        if (out->failed == OK && is_new) emit(out, x.text);
    }
}

static void unite_gathering(const struct operands *o, struct sink *out)
{
    struct entry *seen = set_new_intset(BYTES(""));
    for (size_t i = 0; i < o->n; i++)
        if (o->set[i]) unite_one(o->set[i], seen, out);
    entry_free(seen);
}

/* Hands on the members of each set that none before it has: no memory, but a look-up in each set before. */
static void unite_looking_back(const struct operands *o, struct sink *out)
{
    for (size_t i = 0; i < o->n; i++) {
        struct set_iter it;
        struct element x;
        if (!o->set[i]) continue;
        set_iter_init(&it, o->set[i]);
        while (set_iter_next(&it, &x))
            if (out->store || !in_any(o, 0, i, x.text)) emit(out, x.text);
    }
}

static void unite(struct operands *o, struct sink *out)
{
    enum { LOOK_BACK_MAX = 3 };
    /* A set to be stored finds the repetitions by itself.  Otherwise the largest goes first: it is only walked. */
    if (!out->store) qsort(o->set, o->n, sizeof *o->set, by_size_down);
    if (out->store || o->n - o->missing <= LOOK_BACK_MAX)
        unite_looking_back(o, out);
    else
        unite_gathering(o, out);
}

/* Looks each member of the first set up in the others. */
static void subtract_looking_up(struct operands *o, struct sink *out)
{
    struct set_iter it;
    struct element x;
    /* The largest is the likeliest to have a member. */
    qsort(o->set + 1, o->n - 1, sizeof *o->set, by_size_down);
    set_iter_init(&it, o->set[0]);
    while (set_iter_next(&it, &x))
        if (!in_any(o, 1, o->n, x.text)) emit(out, x.text);
}

/* Removes the members of the others from a copy of the first set.  Where the result is to be stored it is that copy,
 * which may so have given up being an intset for members that are gone in the end: as in Redis. */
static void subtract_removing(const struct operands *o, struct sink *out)
{
    struct set_iter it;
    struct element x;
    struct entry *rest = out->store;
    if (rest) {
        set_iter_init(&it, o->set[0]);
        while (set_iter_next(&it, &x)) emit(out, x.text);
    } else {
        rest = entry_fork(o->set[0]);
        entry_leave_uncounted(rest);
    }
    for (size_t i = 1; i < o->n && set_len(rest); i++) {
        if (!o->set[i]) continue;
        set_iter_init(&it, o->set[i]);
        while (set_len(rest) && set_iter_next(&it, &x)) set_remove(rest, x.text);
    }
    if (rest == out->store) return;
    set_iter_init(&it, rest);
    while (set_iter_next(&it, &x)) emit(out, x.text);
    entry_free(rest);
}

/* Redis's choice: a look-up counts half of a removal, since most often the first one decides. */
static bool looking_up_is_cheaper(const struct operands *o)
{
    uint64_t members = 0;
    for (size_t i = 0; i < o->n; i++) members += len(o->set[i]);
    return len(o->set[0]) * (o->n - o->missing) / 2 <= members;
}

static void subtract(struct operands *o, struct sink *out)
{
    if (!o->set[0]) return;
    for (size_t i = 1; i < o->n; i++)
        if (o->set[i] == o->set[0]) return;
    if (looking_up_is_cheaper(o))
        subtract_looking_up(o, out);
    else
        subtract_removing(o, out);
}

/* ---- The commands ------------------------------------------------------------------------------------------------ */

typedef void operation(struct operands *o, struct sink *out);

static void reply_result(struct call *c, operation *op)
{
    struct operands o;
    if (!operands_open(c, 1, c->argc - 1, &o)) return;
    size_t start = c->out.buf->n, mark = resp_defer(&c->out);
    struct sink out = {.c = c};
    op(&o, &out);
    mem_free(o.set);
    if (out.failed == OK) {
        resp_defer_set(&c->out, mark, out.elements);
        return;
    }
    c->out.buf->n = start;
    resp_error(&c->out, ERR_OOM_VALUE);
}

static void store_result(struct call *c, operation *op, const char *event)
{
    struct operands o;
    if (!operands_open(c, 2, c->argc - 2, &o)) return;
    struct key k = call_key(c, 1);
    struct sink out = {.c = c, .store = set_new_intset(k.name)};
    op(&o, &out);
    mem_free(o.set);
    uint64_t n = set_len(out.store);
    if (out.failed == OK && n) {
        call_peek(c, &k); /* an expired key is deleted before it is replaced */
        call_put(c, &k, out.store);
        call_changed(c, &k, NOTIFY_SET, event);
        resp_i64(&c->out, (int64_t)n);
        return;
    }
    entry_free(out.store);
    if (out.failed != OK) {
        resp_error(&c->out, ERR_OOM_VALUE);
        return;
    }
    if (call_delete(c, &k)) {
        call_changed(c, &k, NOTIFY_GENERIC, "del");
    }
    resp_i64(&c->out, 0);
}

void cmd_sinter(struct call *c)
{
    reply_result(c, intersect);
}

void cmd_sunion(struct call *c)
{
    reply_result(c, unite);
}

void cmd_sdiff(struct call *c)
{
    reply_result(c, subtract);
}

void cmd_sinterstore(struct call *c)
{
    store_result(c, intersect, "sinterstore");
}

void cmd_sunionstore(struct call *c)
{
    store_result(c, unite, "sunionstore");
}

void cmd_sdiffstore(struct call *c)
{
    store_result(c, subtract, "sdiffstore");
}

static bool intercard_limit(struct call *c, size_t arg, int64_t *limit)
{
    *limit = 0;
    for (; arg < c->argc; arg += 2) {
        if (!call_arg_is(c, arg, "limit") || arg + 1 >= c->argc) {
            resp_error(&c->out, ERR_SYNTAX);
            return false;
        }
        if (!call_arg_range(c, arg + 1, 0, INT64_MAX, limit, "ERR LIMIT can't be negative")) return false;
    }
    return true;
}

/* limit 0: none. */
static int64_t intersection_size(struct operands *o, int64_t limit)
{
    struct set_iter it;
    struct element x;
    int64_t n = 0;
    if (o->missing) return 0;
    qsort(o->set, o->n, sizeof *o->set, by_size);
    set_iter_init(&it, o->set[0]);
    while (set_iter_next(&it, &x)) {
        n += in_all(o, 1, x.text);
        if (limit && n == limit) break;
    }
    return n;
}

void cmd_sintercard(struct call *c)
{
    int64_t n, limit;
    struct operands o;
    if (!call_arg_range(c, 1, 1, INT64_MAX, &n, "ERR numkeys should be greater than 0")) return;
    if ((uint64_t)n > c->argc - 2) {
        resp_error(&c->out, "ERR Number of keys can't be greater than number of args");
        return;
    }
    if (!intercard_limit(c, 2 + (size_t)n, &limit) || !operands_open(c, 2, (size_t)n, &o)) return;
    resp_i64(&c->out, intersection_size(&o, limit));
    mem_free(o.set);
}
