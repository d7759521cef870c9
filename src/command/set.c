/* The set commands on single sets; set_algebra.c has SINTER, SUNION, SDIFF and their STORE forms. */
#include "store/set.h"
#include "command/collection.h"

static const char NOT_POSITIVE[] = "ERR value is out of range, must be positive";

static bool find(struct call *c, struct entry **e)
{
    struct key k = call_key(c, 1);
    return call_read_type(c, &k, TYPE_SET, e);
}

static bool find_for_edit(struct call *c, struct key *k, struct entry **e)
{
    *k = call_key(c, 1);
    return call_edit_type(c, k, TYPE_SET, e);
}

/* ---- Adding and removing ----------------------------------------------------------------------------------------- */

void cmd_sadd(struct call *c)
{
    struct growing g;
    if (!find_for_edit(c, &g.key, &g.e)) return;
    g.is_new = !g.e;
    if (g.is_new) g.e = set_new(g.key.name, c->argv[2]);
    int64_t added = 0;
    enum status s = OK;
    size_t i = 2;
    for (; i < c->argc; i++) {
        bool is_new;
        s = set_add(g.e, c->argv[i], &c->env->options->limits, &is_new);
        if (s != OK) break;
        added += is_new;
    }
    growing_finish(c, &g, set_len(g.e));
    if (added) collection_changed(c, &g.key, NOTIFY_SET, "sadd", (uint64_t)added);
    if (s == OK)
        resp_i64(&c->out, added);
    else
        collection_out_of_memory(c, i);
}

static void removed(struct call *c, const struct key *k, const struct entry *e, const char *event, uint64_t n)
{
    collection_changed(c, k, NOTIFY_SET, event, n);
    call_delete_if_empty(c, k, set_len(e));
}

void cmd_srem(struct call *c)
{
    struct key k;
    struct entry *e;
    int64_t n = 0;
    if (!find_for_edit(c, &k, &e)) return;
    for (size_t i = 2; e && i < c->argc && set_len(e); i++) n += set_remove(e, c->argv[i]);
    if (n) removed(c, &k, e, "srem", (uint64_t)n);
    resp_i64(&c->out, n);
}

/* Moves a member that is in src to another set; dst is what is at g->key. */
static void move_member(struct call *c, const struct key *k, struct entry *src, struct growing *g)
{
    bool added;
    g->is_new = !g->e;
    if (g->is_new) g->e = set_new(g->key.name, c->argv[3]);
    /* Added first, so that running out of memory loses nothing. */
    enum status s = set_add(g->e, c->argv[3], &c->env->options->limits, &added);
    if (s != OK) {
        growing_finish(c, g, false);
        collection_out_of_memory(c, 0);
        return;
    }
    set_remove(src, c->argv[3]);
    removed(c, k, src, "srem", 1);
    growing_finish(c, g, true);
    if (added) call_changed(c, &g->key, NOTIFY_SET, "sadd");
    resp_i64(&c->out, 1);
}

void cmd_smove(struct call *c)
{
    struct key k = call_key(c, 1);
    struct growing g = {.key = call_key(c, 2)};
    struct entry *src = call_peek(c, &k), *dst = call_peek(c, &g.key);
    if (!src) {
        resp_i64(&c->out, 0);
    } else if (entry_type(src) != TYPE_SET || (dst && entry_type(dst) != TYPE_SET)) {
        resp_error(&c->out, ERR_WRONGTYPE);
    } else if (!set_has(src, c->argv[3])) {
        resp_i64(&c->out, 0);
    } else if (src == dst) {
        resp_i64(&c->out, 1);
    } else {
        src = call_edit(c, &k);
        g.e = dst ? call_edit(c, &g.key) : NULL;
        move_member(c, &k, src, &g);
    }
}

/* ---- SPOP -------------------------------------------------------------------------------------------------------- */

/* Takes out one member: replies it, and tells replicas which one it was. */
static void pop_one(struct call *c, const struct key *k, struct entry *e)
{
    struct element member;
    set_random(e, c->env->rng, &member);
    resp_bulk(&c->out, member.text);
    call_effect_cstr(c, 3, BYTES("SREM"), k->name, member.text);
    set_remove(e, member.text);
}

static void reply_all(struct call *c, const struct entry *e)
{
    struct set_iter it;
    struct element member;
    set_iter_init(&it, e);
    resp_set(&c->out, set_len(e));
    while (set_iter_next(&it, &member)) resp_bulk(&c->out, member.text);
}

static void pop_many(struct call *c, const struct key *k, struct entry *e, uint64_t count)
{
    uint64_t len = set_len(e);
    if (count < len) {
        resp_set(&c->out, count);
        for (uint64_t i = 0; i < count; i++) pop_one(c, k, e);
        collection_changed(c, k, NOTIFY_SET, "spop", count);
        return;
    }
    reply_all(c, e);
    call_effect_delete(c, k->name, false);
    collection_changed(c, k, NOTIFY_SET, "spop", len);
    call_delete_if_empty(c, k, 0);
}

void cmd_spop(struct call *c)
{
    struct key k;
    struct entry *e;
    int64_t count = 1;
    bool many = c->argc == 3;
    if (c->argc > 3) {
        resp_error(&c->out, ERR_SYNTAX);
        return;
    }
    if (many && !call_arg_range(c, 2, 0, INT64_MAX, &count, NOT_POSITIVE)) return;
    if (!find_for_edit(c, &k, &e)) return;
    if (many && (!e || count == 0)) {
        resp_set(&c->out, 0);
    } else if (!e) {
        resp_null(&c->out);
    } else if (many) {
        pop_many(c, &k, e, (uint64_t)count);
    } else {
        pop_one(c, &k, e);
        removed(c, &k, e, "spop", 1);
    }
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

void cmd_scard(struct call *c)
{
    struct entry *e;
    if (find(c, &e)) resp_i64(&c->out, e ? (int64_t)set_len(e) : 0);
}

void cmd_sismember(struct call *c)
{
    struct entry *e;
    if (find(c, &e)) resp_i64(&c->out, e && set_has(e, c->argv[2]));
}

void cmd_smismember(struct call *c)
{
    struct entry *e;
    if (!find(c, &e)) return;
    resp_array(&c->out, c->argc - 2);
    for (size_t i = 2; i < c->argc; i++) resp_i64(&c->out, e && set_has(e, c->argv[i]));
}

void cmd_smembers(struct call *c)
{
    struct entry *e;
    if (!find(c, &e)) return;
    if (e)
        reply_all(c, e);
    else
        resp_set(&c->out, 0);
}

static void sample_emit(void *ctx, struct bytes member, struct bytes none)
{
    struct call *c = ctx;
    resp_bulk(&c->out, member);
}

static void sample_repeated(struct call *c, const struct entry *e, uint64_t n)
{
    size_t mark = c->out.buf->n;
    resp_array(&c->out, n);
    while (n--) {
        struct element member;
        set_random(e, c->env->rng, &member);
        if (!collection_reply_room(c, mark, member.text.n + 32)) return;
        resp_bulk(&c->out, member.text);
    }
}

void cmd_srandmember(struct call *c)
{
    struct sample_args args;
    struct entry *e;
    if (!collection_sample_args(c, NULL, &args) || !find(c, &e)) return;
    if (!args.count_given) {
        struct element member;
        if (e) set_random(e, c->env->rng, &member);
        if (e)
            resp_bulk(&c->out, member.text);
        else
            resp_null(&c->out);
    } else if (!e || args.count == 0) {
        resp_array(&c->out, 0);
    } else if (args.count < 0) {
        if (collection_sample_fits(c, &args)) sample_repeated(c, e, (uint64_t)-args.count);
    } else {
        uint64_t n = (uint64_t)args.count < set_len(e) ? (uint64_t)args.count : set_len(e);
        resp_array(&c->out, n);
        set_sample(e, c->env->rng, n, sample_emit, c);
    }
}

/* ---- SSCAN ------------------------------------------------------------------------------------------------------- */

static void scan_emit(void *ctx, struct bytes member, struct bytes none)
{
    struct collection_scan *s = ctx;
    if (!scan_matches(&s->options, member)) return;
    scan_reply_add(&s->reply, member);
}

void cmd_sscan(struct call *c)
{
    struct collection_scan s;
    struct entry *e;
    if (!collection_scan_begin(c, TYPE_SET, &s, &e)) return;
    scan_reply_end(&s.reply, set_scan(e, s.options.cursor, s.options.count, scan_emit, &s));
}
