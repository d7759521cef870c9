/* ZUNION, ZINTER, ZDIFF, their STORE forms and ZINTERCARD.  Plain sets take part with a score of 1 for each member. */
#include "base/mem.h"
#include "command/zset_result.h"
#include "store/set.h"
#include "store/zset.h"

#include <math.h>
#include <stdlib.h>

enum operation { UNITE, INTERSECT, SUBTRACT };
enum aggregate { SUM, MIN, MAX };

struct source {
    const struct entry *e; /* a set or a sorted set; NULL: no such key */
    double weight;
    size_t order; /* among the arguments */
};

struct algebra {
    enum operation op;
    bool count_only;       /* ZINTERCARD */
    size_t dst_arg;        /* 0: reply the result */
    struct source *source; /* owned array */
    size_t n;
    enum aggregate aggregate;
    bool with_scores;
    int64_t limit; /* ZINTERCARD; 0: none */
};

/* ---- Sources ----------------------------------------------------------------------------------------------------- */

static bool is_set(const struct source *s)
{
    return entry_type(s->e) == TYPE_SET;
}

static uint64_t len(const struct source *s)
{
    if (!s->e) return 0;
    return is_set(s) ? set_len(s->e) : zset_len(s->e);
}

static bool lookup(const struct source *s, struct bytes member, double *score)
{
    *score = 1;
    if (!s->e) return false;
    return is_set(s) ? set_has(s->e, member) : zset_score(s->e, member, score);
}

struct walk {
    const struct source *source;
    struct set_iter set;
    struct zset_iter zset;
};

static void walk_init(struct walk *w, const struct source *s)
{
    w->source = s;
    if (!s->e) return;
    if (is_set(s))
        set_iter_init(&w->set, s->e);
    else
        zset_iter_init(&w->zset, s->e, 0, false);
}

static bool walk_next(struct walk *w, struct element *member, double *score)
{
    *score = 1;
    if (!w->source->e) return false;
    return is_set(w->source) ? set_iter_next(&w->set, member) : zset_iter_next(&w->zset, member, score);
}

/* Ascending; of equal ones the first argument goes first: sums of floating point numbers depend on it. */
static int by_size(const void *a, const void *b)
{
    const struct source *x = a, *y = b;
    uint64_t nx = len(x), ny = len(y);
    if (nx != ny) return nx < ny ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

/* ---- Operations -------------------------------------------------------------------------------------------------- */

static double aggregated(enum aggregate how, double have, double more)
{
    switch (how) {
    case MIN: return more < have ? more : have;
    case MAX: return more > have ? more : have;
    default: break;
    }
    double sum = have + more;
    return isnan(sum) ? 0 : sum; /* inf - inf */
}

static double weighted(const struct source *s, double score)
{
    double value = s->weight * score;
    return isnan(value) ? 0 : value; /* 0 * inf */
}

static enum status unite(const struct algebra *a, struct zset_result *r)
{
    for (size_t i = 0; i < a->n; i++) {
        struct walk w;
        struct element member;
        double score;
        walk_init(&w, &a->source[i]);
        while (walk_next(&w, &member, &score)) {
            bool added;
            struct scored *item = zset_result_find(r, &member, &added);
            if (!item) return E_NOMEM;
            double value = weighted(&a->source[i], score);
            item->score = added ? value : aggregated(a->aggregate, item->score, value);
        }
    }
    return OK;
}

/* Whether all sources but the first have the member; *score becomes the result's. */
static bool in_all(const struct algebra *a, struct bytes member, double *score)
{
    *score = weighted(&a->source[0], *score);
    for (size_t i = 1; i < a->n; i++) {
        double here;
        if (!lookup(&a->source[i], member, &here)) return false;
        *score = aggregated(a->aggregate, *score, here * a->source[i].weight);
    }
    return true;
}

static enum status intersect(const struct algebra *a, struct zset_result *r)
{
    struct walk w;
    struct element member;
    double score;
    walk_init(&w, &a->source[0]);
    while (walk_next(&w, &member, &score)) {
        if (!in_all(a, member.text, &score)) continue;
        if (zset_result_add(r, &member, score) != OK) return E_NOMEM;
    }
    return OK;
}

static int64_t intersection_size(const struct algebra *a)
{
    struct walk w;
    struct element member;
    double score;
    int64_t n = 0;
    walk_init(&w, &a->source[0]);
    while (walk_next(&w, &member, &score)) {
        if (in_all(a, member.text, &score)) n++;
        if (a->limit && n == a->limit) break;
    }
    return n;
}

static bool in_another(const struct algebra *a, struct bytes member)
{
    double unused;
    for (size_t i = 1; i < a->n; i++)
        if (a->source[i].e == a->source[0].e || lookup(&a->source[i], member, &unused)) return true;
    return false;
}

static enum status subtract_looking_up(const struct algebra *a, struct zset_result *r)
{
    struct walk w;
    struct element member;
    double score;
    walk_init(&w, &a->source[0]);
    while (walk_next(&w, &member, &score)) {
        if (in_another(a, member.text)) continue;
        if (zset_result_add(r, &member, score) != OK) return E_NOMEM;
    }
    return OK;
}

/* The other way, for a first operand much larger than the rest: what is to go is gathered first. */
static enum status subtract_gathered(const struct algebra *a, struct zset_result *r)
{
    struct zset_result gone = {0};
    struct walk w;
    struct element member;
    double score, unused;
    enum status s = OK;
    for (size_t i = 1; s == OK && i < a->n; i++) {
        walk_init(&w, &a->source[i]);
        while (s == OK && walk_next(&w, &member, &score)) {
            bool added;
            if (!lookup(&a->source[0], member.text, &unused)) continue;
            if (!zset_result_find(&gone, &member, &added)) s = E_NOMEM;
        }
    }
    walk_init(&w, &a->source[0]);
    while (s == OK && walk_next(&w, &member, &score)) {
        if (!zset_result_has(&gone, member.text)) s = zset_result_add(r, &member, score);
    }
    zset_result_deinit(&gone);
    return s;
}

static enum status subtract(const struct algebra *a, struct zset_result *r)
{
    uint64_t rest = 0;
    for (size_t i = 1; i < a->n; i++) {
        if (a->source[i].e && a->source[i].e == a->source[0].e) return OK;
        rest += len(&a->source[i]);
    }
    bool many = len(&a->source[0]) / 2 * (a->n - 1) > rest;
    return many ? subtract_gathered(a, r) : subtract_looking_up(a, r);
}

/* ---- Arguments --------------------------------------------------------------------------------------------------- */

/* The keys behind argv[arg], the number of keys.  False: replied; a->source may be owned all the same. */
static bool open_sources(struct call *c, size_t arg, struct algebra *a)
{
    int64_t n;
    if (!call_arg_i64(c, arg, &n, NULL)) return false;
    if (n < 1) {
        resp_errorf(&c->out, "ERR at least 1 input key is needed for '%s' command", c->cmd->name);
        return false;
    }
    if ((uint64_t)n > c->argc - arg - 1) {
        resp_error(&c->out, ERR_SYNTAX);
        return false;
    }
    a->n = (size_t)n;
    a->source = mem_calloc(a->n, sizeof *a->source);
    for (size_t i = 0; i < a->n; i++) {
        struct key k = call_key(c, arg + 1 + i);
        struct entry *e = call_read(c, &k);
        if (e && entry_type(e) != TYPE_ZSET && entry_type(e) != TYPE_SET) {
            resp_error(&c->out, ERR_WRONGTYPE);
            return false;
        }
        a->source[i] = (struct source){e, 1, i};
    }
    return true;
}

static bool parse_weights(struct call *c, size_t arg, struct algebra *a)
{
    for (size_t i = 0; i < a->n; i++)
        if (!call_arg_double(c, arg + i, &a->source[i].weight, "ERR weight value is not a float")) return false;
    return true;
}

static bool parse_aggregate(struct call *c, size_t arg, struct algebra *a)
{
    static const char *const names[] = {[SUM] = "sum", [MIN] = "min", [MAX] = "max"};
    for (int i = SUM; i <= MAX; i++) {
        if (!call_arg_is(c, arg, names[i])) continue;
        a->aggregate = (enum aggregate)i;
        return true;
    }
    resp_error(&c->out, ERR_SYNTAX);
    return false;
}

static bool parse_options(struct call *c, size_t arg, struct algebra *a)
{
    bool combines = a->op != SUBTRACT && !a->count_only;
    while (arg < c->argc) {
        size_t more = c->argc - arg - 1;
        if (combines && more >= a->n && call_arg_is(c, arg, "weights")) {
            if (!parse_weights(c, arg + 1, a)) return false;
            arg += 1 + a->n;
        } else if (combines && more >= 1 && call_arg_is(c, arg, "aggregate")) {
            if (!parse_aggregate(c, arg + 1, a)) return false;
            arg += 2;
        } else if (!a->dst_arg && !a->count_only && call_arg_is(c, arg, "withscores")) {
            a->with_scores = true;
            arg++;
        } else if (a->count_only && more >= 1 && call_arg_is(c, arg, "limit")) {
            if (!call_arg_range(c, arg + 1, 0, INT64_MAX, &a->limit, "ERR LIMIT can't be negative")) return false;
            arg += 2;
        } else {
            resp_error(&c->out, ERR_SYNTAX);
            return false;
        }
    }
    return true;
}

/* ---- The commands ------------------------------------------------------------------------------------------------ */

static enum status compute(const struct algebra *a, struct zset_result *r)
{
    switch (a->op) {
    case UNITE: return unite(a, r);
    case INTERSECT: return intersect(a, r);
    default: return subtract(a, r);
    }
}

static void run(struct call *c, const struct algebra *a, const char *event)
{
    struct zset_result r = {0};
    if (compute(a, &r) != OK) {
        resp_error(&c->out, ERR_OOM_VALUE);
    } else {
        zset_result_sort(&r);
        struct key k;
        if (a->dst_arg) k = call_key(c, a->dst_arg);
        if (a->dst_arg)
            zset_result_store(c, &k, &r, event, 1);
        else
            zset_result_reply(c, &r, a->with_scores);
    }
    zset_result_deinit(&r);
}

static void algebra(struct call *c, struct algebra a, const char *event)
{
    size_t count_arg = a.dst_arg ? 2 : 1;
    if (open_sources(c, count_arg, &a) && parse_options(c, count_arg + 1 + a.n, &a)) {
        if (a.op != SUBTRACT) qsort(a.source, a.n, sizeof *a.source, by_size);
        if (a.count_only)
            resp_i64(&c->out, intersection_size(&a));
        else
            run(c, &a, event);
    }
    mem_free(a.source);
}

void cmd_zunion(struct call *c)
{
    algebra(c, (struct algebra){.op = UNITE}, NULL);
}

void cmd_zinter(struct call *c)
{
    algebra(c, (struct algebra){.op = INTERSECT}, NULL);
}

void cmd_zdiff(struct call *c)
{
    algebra(c, (struct algebra){.op = SUBTRACT}, NULL);
}

void cmd_zintercard(struct call *c)
{
    algebra(c, (struct algebra){.op = INTERSECT, .count_only = true}, NULL);
}

void cmd_zunionstore(struct call *c)
{
    algebra(c, (struct algebra){.op = UNITE, .dst_arg = 1}, "zunionstore");
}

void cmd_zinterstore(struct call *c)
{
    algebra(c, (struct algebra){.op = INTERSECT, .dst_arg = 1}, "zinterstore");
}

void cmd_zdiffstore(struct call *c)
{
    algebra(c, (struct algebra){.op = SUBTRACT, .dst_arg = 1}, "zdiffstore");
}
