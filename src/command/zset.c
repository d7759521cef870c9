/* The sorted set commands on members; zset_range.c has those on ranges. */
#include "store/zset.h"
#include "base/mem.h"
#include "base/number.h"
#include "command/collection.h"
#include "command/mpop.h"

#include <math.h>

static bool find(struct call *c, struct entry **e)
{
    struct key k = call_key(c, 1);
    return call_read_type(c, &k, TYPE_ZSET, e);
}

static bool find_for_edit(struct call *c, struct key *k, struct entry **e)
{
    *k = call_key(c, 1);
    return call_edit_type(c, k, TYPE_ZSET, e);
}

/* ---- ZADD and ZINCRBY -------------------------------------------------------------------------------------------- */

enum { ADD_NX = 1, ADD_XX = 2, ADD_GT = 4, ADD_LT = 8, ADD_CH = 16, ADD_INCR = 32 };

struct zadd {
    unsigned flags;
    size_t first; /* argument of the first score */
    size_t pairs;
    double *scores; /* one for each pair */
    int64_t added, updated;
    bool done; /* the last member was not passed over because of a condition */
    double score;
};

static unsigned zadd_option(const struct call *c, size_t arg)
{
    static const struct {
        const char *name;
        unsigned flag;
    } options[] = {{"nx", ADD_NX}, {"xx", ADD_XX}, {"gt", ADD_GT}, {"lt", ADD_LT}, {"ch", ADD_CH}, {"incr", ADD_INCR}};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (call_arg_is(c, arg, options[i].name)) return options[i].flag;
    return 0;
}

static bool zadd_parse(struct call *c, struct zadd *z)
{
    unsigned flag;
    for (z->first = 2; z->first < c->argc && (flag = zadd_option(c, z->first)); z->first++) z->flags |= flag;
    size_t rest = c->argc - z->first;
    z->pairs = rest / 2;
    bool nx = z->flags & ADD_NX, gt = z->flags & ADD_GT, lt = z->flags & ADD_LT;
    const char *error = NULL;
    if (rest == 0 || rest % 2)
        error = ERR_SYNTAX;
    else if (nx && z->flags & ADD_XX)
        error = "ERR XX and NX options at the same time are not compatible";
    else if ((gt && nx) || (lt && nx) || (gt && lt))
        error = "ERR GT, LT, and/or NX options at the same time are not compatible";
    else if (z->flags & ADD_INCR && z->pairs > 1)
        error = "ERR INCR option supports a single increment-element pair";
    if (error) resp_error(&c->out, error);
    return !error;
}

/* The score that a member is to have.  False: it is left alone. */
static bool zadd_target(const struct zadd *z, const struct entry *e, struct bytes member, double *score)
{
    double now;
    /* Without conditions there is nothing to look up. */
    if (!(z->flags & (ADD_NX | ADD_XX | ADD_GT | ADD_LT | ADD_INCR))) return true;
    if (!zset_score(e, member, &now)) return !(z->flags & ADD_XX);
    if (z->flags & ADD_NX) return false;
    if (z->flags & ADD_INCR) *score += now;
    if (isnan(*score)) return true;
    return !(z->flags & ADD_GT && *score <= now) && !(z->flags & ADD_LT && *score >= now);
}

static enum status zadd_one(struct call *c, struct zadd *z, struct entry *e, size_t pair)
{
    struct bytes member = c->argv[z->first + 2 * pair + 1];
    enum zset_change change = ZSET_UNCHANGED;
    z->score = z->scores[pair];
    z->done = zadd_target(z, e, member, &z->score);
    if (!z->done) return OK;
    enum status s = zset_add(e, z->score, member, &c->env->options->limits, &change);
    if (s != OK) return s;
    z->added += change == ZSET_ADDED;
    z->updated += change == ZSET_UPDATED;
    return OK;
}

static void zadd_reply(struct call *c, const struct zadd *z)
{
    if (!(z->flags & ADD_INCR))
        resp_i64(&c->out, z->flags & ADD_CH ? z->added + z->updated : z->added);
    else if (z->done)
        resp_double(&c->out, z->score);
    else
        resp_null(&c->out);
}

static void zadd_run(struct call *c, struct zadd *z)
{
    struct growing g;
    if (!find_for_edit(c, &g.key, &g.e)) return;
    g.is_new = !g.e;
    if (g.is_new && z->flags & ADD_XX) {
        zadd_reply(c, z);
        return;
    }
    const struct store_limits *lim = &c->env->options->limits;
    if (g.is_new) g.e = zset_new(g.key.name, c->argv[z->first + 1], lim);
    enum status s = OK;
    size_t i = 0;
    for (; i < z->pairs; i++) {
        s = zadd_one(c, z, g.e, i);
        if (s != OK) break;
    }
    growing_finish(c, &g, zset_len(g.e));
    if (z->added || z->updated)
        collection_changed(c, &g.key, NOTIFY_ZSET, z->flags & ADD_INCR ? "zincr" : "zadd",
                           (uint64_t)(z->added + z->updated));
    if (s == OK)
        zadd_reply(c, z);
    else if (s == E_INVALID)
        resp_error(&c->out, "ERR resulting score is not a number (NaN)");
    else
        collection_out_of_memory(c, z->first + 2 * i);
}

static void zadd(struct call *c, unsigned flags)
{
    enum { INLINE_PAIRS = 8 };
    double inline_scores[INLINE_PAIRS];
    struct zadd z = {.flags = flags};
    if (!zadd_parse(c, &z)) return;
    z.scores = z.pairs > INLINE_PAIRS ? mem_alloc(z.pairs * sizeof *z.scores) : inline_scores;
    bool ok = true;
    for (size_t i = 0; ok && i < z.pairs; i++) ok = call_arg_double(c, z.first + 2 * i, &z.scores[i], NULL);
    if (ok) zadd_run(c, &z);
    if (z.scores != inline_scores) mem_free(z.scores);
}

void cmd_zadd(struct call *c)
{
    zadd(c, 0);
}

void cmd_zincrby(struct call *c)
{
    zadd(c, ADD_INCR);
}

/* ---- Removing ---------------------------------------------------------------------------------------------------- */

void cmd_zrem(struct call *c)
{
    struct key k;
    struct entry *e;
    int64_t removed = 0;
    if (!find_for_edit(c, &k, &e)) return;
    for (size_t i = 2; e && i < c->argc && zset_len(e); i++) removed += zset_remove(e, c->argv[i]);
    if (removed) {
        collection_changed(c, &k, NOTIFY_ZSET, "zrem", (uint64_t)removed);
        call_delete_if_empty(c, &k, zset_len(e));
    }
    resp_i64(&c->out, removed);
}

/* Members with scores: in version 3 an array of pairs, in version 2 flat. */
static void reply_scored_header(struct call *c, bool scores, uint64_t n)
{
    resp_array(&c->out, scores && c->out.version < 3 ? n * 2 : n);
}

static void reply_scored(struct call *c, bool scores, struct bytes member, double score)
{
    if (scores && c->out.version >= 3) resp_array(&c->out, 2);
    resp_bulk(&c->out, member);
    if (scores) resp_double(&c->out, score);
}

static void pop_reply(struct call *c, const struct entry *e, bool max, bool one, uint64_t n)
{
    struct zset_iter it;
    struct element member;
    double score;
    if (one)
        resp_array(&c->out, 2);
    else
        reply_scored_header(c, true, n);
    zset_iter_init(&it, e, max ? zset_len(e) - 1 : 0, max);
    for (uint64_t i = 0; i < n && zset_iter_next(&it, &member, &score); i++) {
        if (!one) {
            reply_scored(c, true, member.text, score);
            continue;
        }
        resp_bulk(&c->out, member.text);
        resp_double(&c->out, score);
    }
}

static void pop_remove(struct call *c, const struct key *k, struct entry *e, bool max, uint64_t n)
{
    uint64_t len = zset_len(e);
    zset_remove_ranks(e, max ? len - n : 0, max ? len : n);
    collection_changed(c, k, NOTIFY_ZSET, max ? "zpopmax" : "zpopmin", n);
    call_delete_if_empty(c, k, len - n);
}

static void pop(struct call *c, bool max)
{
    struct key k;
    struct entry *e;
    int64_t count = 1;
    bool one = c->argc == 2;
    if (c->argc > 3) {
        resp_error(&c->out, ERR_SYNTAX);
        return;
    }
    if (!one && !call_arg_range(c, 2, 0, INT64_MAX, &count, "ERR value is out of range, must be positive")) return;
    if (!find_for_edit(c, &k, &e)) return;
    if (!e || count == 0) {
        resp_array(&c->out, 0);
        return;
    }
    uint64_t len = zset_len(e), n = (uint64_t)count < len ? (uint64_t)count : len;
    pop_reply(c, e, max, one, n);
    pop_remove(c, &k, e, max, n);
}

void cmd_zpopmin(struct call *c)
{
    pop(c, false);
}

void cmd_zpopmax(struct call *c)
{
    pop(c, true);
}

/* [key, [[member, score], ...]] in both versions; repeated as ZPOPMIN or ZPOPMAX. */
static void mpop_from(struct call *c, const struct key *k, struct entry *e, bool max, uint64_t n)
{
    struct zset_iter it;
    struct element member;
    double score;
    char digits[24];
    resp_array(&c->out, 2);
    resp_bulk(&c->out, k->name);
    resp_array(&c->out, n);
    zset_iter_init(&it, e, max ? zset_len(e) - 1 : 0, max);
    for (uint64_t i = 0; i < n && zset_iter_next(&it, &member, &score); i++) {
        resp_array(&c->out, 2);
        resp_bulk(&c->out, member.text);
        resp_double(&c->out, score);
    }
    pop_remove(c, k, e, max, n);
    call_effect_cstr(c, 3, max ? BYTES("ZPOPMAX") : BYTES("ZPOPMIN"), k->name,
                     bytes_make(digits, format_i64(digits, (int64_t)n)));
}

enum mpop_result zset_mpop(struct call *c, const struct mpop *m)
{
    for (size_t i = 0; i < m->keys; i++) {
        if (!call_serves(c, m->first_key + i)) continue;
        struct key k = call_key(c, m->first_key + i);
        struct entry *e;
        if (!call_edit_type(c, &k, TYPE_ZSET, &e)) return MPOP_DONE;
        if (!e) continue;
        uint64_t len = zset_len(e);
        mpop_from(c, &k, e, m->end == 1, (uint64_t)m->count < len ? (uint64_t)m->count : len);
        return MPOP_DONE;
    }
    return MPOP_NOTHING;
}

void cmd_zmpop(struct call *c)
{
    struct mpop m;
    static const char *const ends[] = {"min", "max"};
    if (!mpop_parse(c, 1, ends, &m)) return;
    if (zset_mpop(c, &m) == MPOP_NOTHING) resp_null_array(&c->out);
}

/* ---- Waiting for a member ---------------------------------------------------------------------------------------- */

static void wait_for_zset(struct call *c, size_t first, size_t keys, int64_t timeout_ms)
{
    call_wait(c, &(struct call_wait){
                     .type = TYPE_ZSET, .first = (uint32_t)first, .count = (uint32_t)keys, .timeout_ms = timeout_ms});
}

/* [key, member, score] */
static void blocking_pop_from(struct call *c, const struct key *k, struct entry *e, bool max)
{
    struct zset_iter it;
    struct element member;
    double score;
    resp_array(&c->out, 3);
    resp_bulk(&c->out, k->name);
    zset_iter_init(&it, e, max ? zset_len(e) - 1 : 0, max);
    if (zset_iter_next(&it, &member, &score)) {
        resp_bulk(&c->out, member.text);
        resp_double(&c->out, score);
    }
    pop_remove(c, k, e, max, 1);
    call_effect_cstr(c, 2, max ? BYTES("ZPOPMAX") : BYTES("ZPOPMIN"), k->name);
}

static void blocking_pop(struct call *c, bool max)
{
    int64_t timeout_ms;
    struct entry *e;
    if (!call_arg_timeout_s(c, c->argc - 1, &timeout_ms)) return;
    for (size_t i = 1; i + 1 < c->argc; i++) {
        if (!call_serves(c, i)) continue;
        struct key k = call_key(c, i);
        if (!call_edit_type(c, &k, TYPE_ZSET, &e)) return;
        if (!e) continue;
        blocking_pop_from(c, &k, e, max);
        return;
    }
    wait_for_zset(c, 1, c->argc - 2, timeout_ms);
}

void cmd_bzpopmin(struct call *c)
{
    blocking_pop(c, false);
}

void cmd_bzpopmax(struct call *c)
{
    blocking_pop(c, true);
}

void cmd_bzmpop(struct call *c)
{
    struct mpop m;
    int64_t timeout_ms;
    static const char *const ends[] = {"min", "max"};
    if (!mpop_parse(c, 2, ends, &m) || !call_arg_timeout_s(c, 1, &timeout_ms)) return;
    if (zset_mpop(c, &m) == MPOP_NOTHING) wait_for_zset(c, m.first_key, m.keys, timeout_ms);
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

void cmd_zcard(struct call *c)
{
    struct entry *e;
    if (find(c, &e)) resp_i64(&c->out, e ? (int64_t)zset_len(e) : 0);
}

static void reply_score_of(struct call *c, const struct entry *e, struct bytes member)
{
    double score;
    if (e && zset_score(e, member, &score))
        resp_double(&c->out, score);
    else
        resp_null(&c->out);
}

void cmd_zscore(struct call *c)
{
    struct entry *e;
    if (find(c, &e)) reply_score_of(c, e, c->argv[2]);
}

void cmd_zmscore(struct call *c)
{
    struct entry *e;
    if (!find(c, &e)) return;
    resp_array(&c->out, c->argc - 2);
    for (size_t i = 2; i < c->argc; i++) reply_score_of(c, e, c->argv[i]);
}

/* WITHSCORE is of Redis 7.2; any other fourth argument is answered as 7.0 does. */
static void reply_rank(struct call *c, bool reverse)
{
    struct entry *e;
    uint64_t rank;
    double score;
    bool with_score = c->argc == 4 && call_arg_is(c, 3, "withscore");
    if (c->argc > 3 && !with_score) {
        call_wrong_arity(c);
        return;
    }
    if (!find(c, &e)) return;
    if (!e || !zset_rank(e, c->argv[2], reverse, &rank, &score)) {
        if (with_score)
            resp_null_array(&c->out);
        else
            resp_null(&c->out);
        return;
    }
    if (with_score) resp_array(&c->out, 2);
    resp_i64(&c->out, (int64_t)rank);
    if (with_score) resp_double(&c->out, score);
}

void cmd_zrank(struct call *c)
{
    reply_rank(c, false);
}

void cmd_zrevrank(struct call *c)
{
    reply_rank(c, true);
}

struct scanned {
    struct collection_scan s;
    struct entry *e;
};

static void scan_emit(void *ctx, struct bytes member, double score)
{
    struct scanned *z = ctx;
    if (!scan_matches(&z->s.options, member)) return;
    char text[NUMBER_TEXT_MAX];
    scan_reply_add(&z->s.reply, member);
    scan_reply_add(&z->s.reply, bytes_make(text, zset_score_text(z->e, score, text)));
}

void cmd_zscan(struct call *c)
{
    struct scanned z;
    if (!collection_scan_begin(c, TYPE_ZSET, &z.s, &z.e)) return;
    scan_reply_end(&z.s.reply, zset_scan(z.e, z.s.options.cursor, z.s.options.count, scan_emit, &z));
}

/* ---- ZRANDMEMBER ------------------------------------------------------------------------------------------------- */

struct sample {
    struct call *c;
    bool with_scores;
};

static void sample_emit(void *ctx, struct bytes member, double score)
{
    struct sample *s = ctx;
    reply_scored(s->c, s->with_scores, member, score);
}

static void sample_repeated(struct sample *s, const struct entry *e, uint64_t n)
{
    size_t mark = s->c->out.buf->n;
    reply_scored_header(s->c, s->with_scores, n);
    while (n--) {
        struct element member;
        double score;
        zset_random(e, s->c->env->rng, &member, &score);
        if (!collection_reply_room(s->c, mark, member.text.n + NUMBER_TEXT_MAX + 96)) return;
        sample_emit(s, member.text, score);
    }
}

static void reply_downwards(struct sample *s, const struct entry *e)
{
    struct zset_iter it;
    struct element member;
    double score;
    zset_iter_init(&it, e, zset_len(e) - 1, true);
    while (zset_iter_next(&it, &member, &score)) sample_emit(s, member.text, score);
}

void cmd_zrandmember(struct call *c)
{
    struct sample_args args;
    struct entry *e;
    if (!collection_sample_args(c, "withscores", &args) || !find(c, &e)) return;
    struct sample s = {c, args.with_given};
    if (!args.count_given) {
        struct element member;
        if (e) zset_random(e, c->env->rng, &member, NULL);
        if (e)
            resp_bulk(&c->out, member.text);
        else
            resp_null(&c->out);
    } else if (!e || args.count == 0) {
        resp_array(&c->out, 0);
    } else if (args.count < 0) {
        if (collection_sample_fits(c, &args)) sample_repeated(&s, e, (uint64_t)-args.count);
    } else if ((uint64_t)args.count >= zset_len(e)) {
        /* All of them: in Redis's order. */
        reply_scored_header(c, s.with_scores, zset_len(e));
        reply_downwards(&s, e);
    } else {
        reply_scored_header(c, s.with_scores, (uint64_t)args.count);
        zset_sample(e, c->env->rng, (uint64_t)args.count, sample_emit, &s);
    }
}
