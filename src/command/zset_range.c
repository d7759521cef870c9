/* The sorted set commands on ranges, by rank, score or member: ZRANGE and its relatives, ZCOUNT, ZLEXCOUNT and
 * ZREMRANGEBY....  A range of any kind becomes a range of ranks, and everything else is done with that. */
#include "base/mem.h"
#include "command/collection.h"
#include "store/zset.h"

#include <math.h>
#include <stdlib.h>

enum range_by { BY_ANY, BY_RANK, BY_SCORE, BY_LEX };
enum direction { ANY_WAY, FORWARD, REVERSE };

struct range {
    enum range_by by;
    int64_t start, end; /* BY_RANK, inclusive, negative from the end */
    struct zset_score_range score;
    struct zset_lex_range lex;
};

/* Ranks [first, end). */
struct ranks {
    uint64_t first, end;
};

/* "1.5" or "(1.5", by the rules of strtod() alone as in Redis: unlike for a score, "" is 0 and 1e400 infinite. */
static bool score_bound_parse(struct bytes text, double *value, bool *exclusive)
{
    *exclusive = text.n > 0 && text.p[0] == '(';
    if (*exclusive) text = bytes_make(text.p + 1, text.n - 1);
    char *copy = bytes_dup_cstr(text), *end;
    *value = strtod(copy, &end);
    bool ok = *end == '\0' && !isnan(*value);
    mem_free(copy);
    return ok;
}

/* Parses the two bounds; false: the error was replied. */
static bool range_parse(struct call *c, enum range_by by, size_t min_arg, size_t max_arg, struct range *r)
{
    struct bytes min = c->argv[min_arg], max = c->argv[max_arg];
    r->by = by;
    switch (by) {
    case BY_SCORE:
        if (score_bound_parse(min, &r->score.min, &r->score.min_exclusive) &&
            score_bound_parse(max, &r->score.max, &r->score.max_exclusive))
            return true;
        resp_error(&c->out, "ERR min or max is not a float");
        return false;
    case BY_LEX:
        if (zset_lex_bound_parse(min, &r->lex.min) && zset_lex_bound_parse(max, &r->lex.max)) return true;
        resp_error(&c->out, "ERR min or max not valid string range item");
        return false;
    default: return call_arg_i64(c, min_arg, &r->start, NULL) && call_arg_i64(c, max_arg, &r->end, NULL);
    }
}

static struct ranks by_rank(const struct range *r, uint64_t len, bool reverse)
{
    int64_t n = (int64_t)len, start = r->start, end = r->end;
    if (start < 0) start = start + n < 0 ? 0 : start + n;
    if (end < 0) end += n;
    if (end >= n) end = n - 1;
    if (start > end) return (struct ranks){0, 0};
    if (reverse) return (struct ranks){(uint64_t)(n - 1 - end), (uint64_t)(n - start)};
    return (struct ranks){(uint64_t)start, (uint64_t)end + 1};
}

/* Ranks counted from the lowest; reverse: the range's own were counted from the highest. */
static struct ranks range_resolve(const struct range *r, const struct entry *e, bool reverse)
{
    struct ranks found = {0, 0};
    if (!e) return found;
    switch (r->by) {
    case BY_SCORE: zset_ranks_by_score(e, &r->score, &found.first, &found.end); return found;
    case BY_LEX: zset_ranks_by_lex(e, &r->lex, &found.first, &found.end); return found;
    default: return by_rank(r, zset_len(e), reverse);
    }
}

/* ---- Counting and removing --------------------------------------------------------------------------------------- */

static void count(struct call *c, enum range_by by)
{
    struct range r;
    struct entry *e;
    struct key k = call_key(c, 1);
    if (!range_parse(c, by, 2, 3, &r) || !call_read_type(c, &k, TYPE_ZSET, &e)) return;
    struct ranks found = range_resolve(&r, e, false);
    resp_i64(&c->out, (int64_t)(found.end - found.first));
}

void cmd_zcount(struct call *c)
{
    count(c, BY_SCORE);
}

void cmd_zlexcount(struct call *c)
{
    count(c, BY_LEX);
}

static void remove_range(struct call *c, enum range_by by, const char *event)
{
    struct range r;
    struct entry *e;
    struct key k = call_key(c, 1);
    if (!range_parse(c, by, 2, 3, &r) || !call_edit_type(c, &k, TYPE_ZSET, &e)) return;
    struct ranks found = range_resolve(&r, e, false);
    if (found.end > found.first) {
        zset_remove_ranks(e, found.first, found.end);
        collection_changed(c, &k, NOTIFY_ZSET, event, found.end - found.first);
        call_delete_if_empty(c, &k, zset_len(e));
    }
    resp_i64(&c->out, (int64_t)(found.end - found.first));
}

void cmd_zremrangebyrank(struct call *c)
{
    remove_range(c, BY_RANK, "zremrangebyrank");
}

void cmd_zremrangebyscore(struct call *c)
{
    remove_range(c, BY_SCORE, "zremrangebyscore");
}

void cmd_zremrangebylex(struct call *c)
{
    remove_range(c, BY_LEX, "zremrangebylex");
}

/* ---- ZRANGE ------------------------------------------------------------------------------------------------------ */

struct zrange {
    enum range_by by;
    enum direction direction;
    bool store; /* ZRANGESTORE: argv[1] is the destination, everything else stands one further */
    bool with_scores;
    int64_t offset, limit; /* limit < 0: none */
};

/* Takes the option at *arg and moves to its last argument. */
static bool zrange_option(struct call *c, size_t *arg, struct zrange *z)
{
    size_t i = *arg;
    if (!z->store && call_arg_is(c, i, "withscores")) {
        z->with_scores = true;
    } else if (call_arg_is(c, i, "limit") && i + 2 < c->argc) {
        *arg += 2;
        return call_arg_i64(c, i + 1, &z->offset, NULL) && call_arg_i64(c, i + 2, &z->limit, NULL);
    } else if (z->direction == ANY_WAY && call_arg_is(c, i, "rev")) {
        z->direction = REVERSE;
    } else if (z->by == BY_ANY && call_arg_is(c, i, "bylex")) {
        z->by = BY_LEX;
    } else if (z->by == BY_ANY && call_arg_is(c, i, "byscore")) {
        z->by = BY_SCORE;
    } else {
        resp_error(&c->out, ERR_SYNTAX);
        return false;
    }
    return true;
}

static bool zrange_options(struct call *c, struct zrange *z)
{
    z->limit = -1;
    for (size_t i = z->store ? 5 : 4; i < c->argc; i++)
        if (!zrange_option(c, &i, z)) return false;
    if (z->direction == ANY_WAY) z->direction = FORWARD;
    if (z->by == BY_ANY) z->by = BY_RANK;
    const char *error = NULL;
    if (z->limit != -1 && z->by == BY_RANK)
        error = "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX";
    else if (z->with_scores && z->by == BY_LEX)
        error = "ERR syntax error, WITHSCORES not supported in combination with BYLEX";
    if (error) resp_error(&c->out, error);
    return !error;
}

/* LIMIT: what is left of a range walked in the direction of z.  A negative offset leaves nothing. */
static struct ranks zrange_limit(const struct zrange *z, struct ranks r)
{
    uint64_t n = r.end - r.first;
    if (z->by == BY_RANK) return r;
    if (z->offset < 0 || (uint64_t)z->offset >= n) return (struct ranks){0, 0};
    n -= (uint64_t)z->offset;
    if (z->limit >= 0 && (uint64_t)z->limit < n) n = (uint64_t)z->limit;
    if (z->direction == REVERSE) {
        r.end -= (uint64_t)z->offset;
        return (struct ranks){r.end - n, r.end};
    }
    r.first += (uint64_t)z->offset;
    return (struct ranks){r.first, r.first + n};
}

static void zrange_reply(struct call *c, const struct zrange *z, const struct entry *e, struct ranks r)
{
    struct zset_iter it;
    struct element member;
    double score = 0, *wanted = z->with_scores ? &score : NULL;
    uint64_t n = r.end - r.first;
    bool reverse = z->direction == REVERSE, pairs = z->with_scores && c->out.version >= 3;
    resp_array(&c->out, z->with_scores && !pairs ? n * 2 : n);
    if (n == 0) return;
    zset_iter_init(&it, e, reverse ? r.end - 1 : r.first, reverse);
    while (n-- && zset_iter_next(&it, &member, wanted)) {
        if (pairs) resp_array(&c->out, 2);
        resp_bulk(&c->out, member.text);
        if (z->with_scores) resp_double(&c->out, score);
    }
}

/* Added in the order of a reply, which decides whether a score of -0 keeps its sign: not in a listpack.  NULL: memory
 * is out. */
static struct entry *range_copy(struct call *c, const struct key *k, const struct entry *e, struct ranks r,
                                bool reverse)
{
    struct zset_iter it;
    struct element member;
    double score;
    const struct store_limits *lim = &c->env->options->limits;
    struct entry *copy = NULL;
    enum status s = OK;
    zset_iter_init(&it, e, reverse ? r.end - 1 : r.first, reverse);
    for (uint64_t n = r.end - r.first; s == OK && n > 0 && zset_iter_next(&it, &member, &score); n--) {
        if (!copy) copy = zset_new(k->name, member.text, lim);
        s = zset_add(copy, score, member.text, lim, NULL);
    }
    if (s == OK) return copy;
    entry_free(copy);
    return NULL;
}

static void zrange_store(struct call *c, const struct entry *e, struct ranks r, bool reverse)
{
    struct key k = call_key(c, 1);
    if (r.first == r.end) {
        if (call_delete(c, &k)) {
            call_changed(c, &k, NOTIFY_GENERIC, "del");
        }
        resp_i64(&c->out, 0);
        return;
    }
    struct entry *copy = range_copy(c, &k, e, r, reverse);
    if (!copy) {
        resp_error(&c->out, ERR_OOM_VALUE);
        return;
    }
    if (!bytes_eq(k.name, c->argv[2])) call_peek(c, &k); /* an expired key is deleted before it is replaced */
    call_put(c, &k, copy);
    call_changed(c, &k, NOTIFY_ZSET, "zrangestore");
    resp_i64(&c->out, (int64_t)(r.end - r.first));
}

static void zrange_run(struct call *c, struct zrange *z)
{
    struct range r;
    struct entry *e;
    size_t src = z->store ? 2 : 1;
    struct key k = call_key(c, src);
    if (!zrange_options(c, z)) return;
    bool reverse = z->direction == REVERSE;
    /* In reverse the higher bound comes first; ranks have no such order. */
    bool swap = reverse && z->by != BY_RANK;
    if (!range_parse(c, z->by, src + (swap ? 2 : 1), src + (swap ? 1 : 2), &r)) return;
    if (!call_read_type(c, &k, TYPE_ZSET, &e)) return;
    struct ranks found = zrange_limit(z, range_resolve(&r, e, reverse));
    if (z->store)
        zrange_store(c, e, found, reverse);
    else
        zrange_reply(c, z, e, found);
}

static void zrange(struct call *c, enum range_by by, enum direction direction)
{
    struct zrange z = {.by = by, .direction = direction};
    zrange_run(c, &z);
}

void cmd_zrangestore(struct call *c)
{
    struct zrange z = {.by = BY_ANY, .direction = ANY_WAY, .store = true};
    zrange_run(c, &z);
}

void cmd_zrange(struct call *c)
{
    zrange(c, BY_ANY, ANY_WAY);
}

void cmd_zrevrange(struct call *c)
{
    zrange(c, BY_RANK, REVERSE);
}

void cmd_zrangebyscore(struct call *c)
{
    zrange(c, BY_SCORE, FORWARD);
}

void cmd_zrevrangebyscore(struct call *c)
{
    zrange(c, BY_SCORE, REVERSE);
}

void cmd_zrangebylex(struct call *c)
{
    zrange(c, BY_LEX, FORWARD);
}

void cmd_zrevrangebylex(struct call *c)
{
    zrange(c, BY_LEX, REVERSE);
}
