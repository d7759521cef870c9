/* The hash commands. */
#include "store/hash.h"
#include "base/number.h"
#include "command/collection.h"

#include <math.h>

static bool find(struct call *c, struct entry **e)
{
    struct key k = call_key(c, 1);
    return call_read_type(c, &k, TYPE_HASH, e);
}

static bool open_growing(struct call *c, struct growing *g)
{
    g->key = call_key(c, 1);
    if (!call_edit_type(c, &g->key, TYPE_HASH, &g->e)) return false;
    g->is_new = !g->e;
    if (g->is_new) g->e = hash_new(g->key.name);
    return true;
}

static void finish(struct call *c, struct growing *g)
{
    growing_finish(c, g, hash_len(g->e));
}

/* ---- Adding ------------------------------------------------------------------------------------------------------ */

/* Sets the pairs from argv[2] on; false: the reply is made. */
static bool set_pairs(struct call *c, int64_t *added)
{
    struct growing g;
    *added = 0;
    if (c->argc % 2) {
        call_wrong_arity(c);
        return false;
    }
    if (!open_growing(c, &g)) return false;
    const struct store_limits *lim = &c->env->options->limits;
    hash_convert_for(g.e, c->argv + 2, c->argc - 2, lim);
    enum status s = OK;
    size_t i = 2;
    for (; i < c->argc; i += 2) {
        bool is_new;
        s = hash_set(g.e, c->argv[i], c->argv[i + 1], lim, &is_new);
        if (s != OK) break;
        *added += is_new;
    }
    finish(c, &g);
    if (i > 2) collection_changed(c, &g.key, NOTIFY_HASH, "hset", i / 2 - 1);
    if (s != OK) collection_out_of_memory(c, i);
    return s == OK;
}

void cmd_hset(struct call *c)
{
    int64_t added;
    if (set_pairs(c, &added)) resp_i64(&c->out, added);
}

void cmd_hmset(struct call *c)
{
    int64_t added;
    if (set_pairs(c, &added)) resp_ok(&c->out);
}

/* Sets one field and tells so; false: the error was replied. */
static bool set_one(struct call *c, struct growing *g, struct bytes value, const char *event)
{
    enum status s = hash_set(g->e, c->argv[2], value, &c->env->options->limits, NULL);
    finish(c, g);
    if (s == OK)
        call_changed(c, &g->key, NOTIFY_HASH, event);
    else
        collection_out_of_memory(c, 0);
    return s == OK;
}

void cmd_hsetnx(struct call *c)
{
    struct growing g;
    if (!open_growing(c, &g)) return;
    if (hash_has(g.e, c->argv[2])) {
        resp_i64(&c->out, 0);
        return;
    }
    hash_convert_for(g.e, c->argv + 2, 2, &c->env->options->limits);
    if (set_one(c, &g, c->argv[3], "hset")) resp_i64(&c->out, 1);
}

/* Ends a command that found its arguments wrong after the key was opened. */
static void refuse(struct call *c, struct growing *g, const char *error)
{
    finish(c, g);
    resp_error(&c->out, error);
}

void cmd_hincrby(struct call *c)
{
    int64_t by, now = 0;
    struct growing g;
    struct element value;
    if (!call_arg_i64(c, 3, &by, NULL) || !open_growing(c, &g)) return;
    if (hash_get(g.e, c->argv[2], &value) && !parse_i64(value.text, &now)) {
        refuse(c, &g, "ERR hash value is not an integer");
        return;
    }
    if (__builtin_add_overflow(now, by, &now)) {
        refuse(c, &g, "ERR increment or decrement would overflow");
        return;
    }
    char text[24];
    if (set_one(c, &g, bytes_make(text, format_i64(text, now)), "hincrby")) resp_i64(&c->out, now);
}

void cmd_hincrbyfloat(struct call *c)
{
    long double by, now = 0;
    struct growing g;
    struct element value;
    if (!parse_long_double(c->argv[3], &by)) {
        resp_error(&c->out, ERR_NOT_FLOAT);
        return;
    }
    if (isinf(by)) {
        resp_error(&c->out, "ERR value is NaN or Infinity");
        return;
    }
    if (!open_growing(c, &g)) return;
    if (hash_get(g.e, c->argv[2], &value) && !parse_long_double(value.text, &now)) {
        refuse(c, &g, "ERR hash value is not a float");
        return;
    }
    now += by;
    if (isnan(now) || isinf(now)) {
        refuse(c, &g, "ERR increment would produce NaN or Infinity");
        return;
    }
    char text[LONG_DOUBLE_TEXT_MAX];
    struct bytes result = bytes_make(text, format_long_double(text, now));
    if (!set_one(c, &g, result, "hincrbyfloat")) return;
    resp_bulk(&c->out, result);
    /* Replicas must not depend on their own floating point arithmetic. */
    call_effect_cstr(c, 4, BYTES("HSET"), c->argv[1], c->argv[2], result);
}

/* ---- Removing ---------------------------------------------------------------------------------------------------- */

void cmd_hdel(struct call *c)
{
    struct key k = call_key(c, 1);
    struct entry *e;
    if (!call_edit_type(c, &k, TYPE_HASH, &e)) return;
    int64_t removed = 0;
    for (size_t i = 2; e && i < c->argc && hash_len(e); i++) removed += hash_del(e, c->argv[i]);
    if (removed) {
        collection_changed(c, &k, NOTIFY_HASH, "hdel", (uint64_t)removed);
        call_delete_if_empty(c, &k, hash_len(e));
    }
    resp_i64(&c->out, removed);
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

static void reply_value(struct call *c, const struct entry *e, struct bytes field)
{
    struct element value;
    if (e && hash_get(e, field, &value))
        resp_bulk(&c->out, value.text);
    else
        resp_null(&c->out);
}

void cmd_hget(struct call *c)
{
    struct entry *e;
    if (find(c, &e)) reply_value(c, e, c->argv[2]);
}

void cmd_hmget(struct call *c)
{
    struct entry *e;
    if (!find(c, &e)) return;
    resp_array(&c->out, c->argc - 2);
    for (size_t i = 2; i < c->argc; i++) reply_value(c, e, c->argv[i]);
}

void cmd_hexists(struct call *c)
{
    struct entry *e;
    if (find(c, &e)) resp_i64(&c->out, e && hash_has(e, c->argv[2]));
}

void cmd_hlen(struct call *c)
{
    struct entry *e;
    if (find(c, &e)) resp_i64(&c->out, e ? (int64_t)hash_len(e) : 0);
}

void cmd_hstrlen(struct call *c)
{
    struct entry *e;
    if (find(c, &e)) resp_i64(&c->out, e ? (int64_t)hash_value_len(e, c->argv[2]) : 0);
}

static void reply_all(struct call *c, const struct entry *e, bool fields, bool values)
{
    struct hash_iter it;
    struct element field, value;
    hash_iter_init(&it, e);
    while (hash_iter_next(&it, fields ? &field : NULL, values ? &value : NULL)) {
        if (fields) resp_bulk(&c->out, field.text);
        if (values) resp_bulk(&c->out, value.text);
    }
}

void cmd_hgetall(struct call *c)
{
    struct entry *e;
    if (!find(c, &e)) return;
    resp_map(&c->out, e ? hash_len(e) : 0);
    if (e) reply_all(c, e, true, true);
}

static void keys_or_values(struct call *c, bool fields)
{
    struct entry *e;
    if (!find(c, &e)) return;
    resp_array(&c->out, e ? hash_len(e) : 0);
    if (e) reply_all(c, e, fields, !fields);
}

void cmd_hkeys(struct call *c)
{
    keys_or_values(c, true);
}

void cmd_hvals(struct call *c)
{
    keys_or_values(c, false);
}

/* ---- HSCAN ------------------------------------------------------------------------------------------------------- */

static void scan_emit(void *ctx, struct bytes field, struct bytes value)
{
    struct collection_scan *s = ctx;
    if (!scan_matches(&s->options, field)) return;
    scan_reply_add(&s->reply, field);
    scan_reply_add(&s->reply, value);
}

void cmd_hscan(struct call *c)
{
    struct collection_scan s;
    struct entry *e;
    if (!collection_scan_begin(c, TYPE_HASH, &s, &e)) return;
    scan_reply_end(&s.reply, hash_scan(e, s.options.cursor, s.options.count, scan_emit, &s));
}

/* ---- HRANDFIELD -------------------------------------------------------------------------------------------------- */

struct sample {
    struct call *c;
    bool with_values;
};

static void sample_emit(void *ctx, struct bytes field, struct bytes value)
{
    struct sample *s = ctx;
    struct resp_out *out = &s->c->out;
    if (s->with_values && out->version >= 3) resp_array(out, 2);
    resp_bulk(out, field);
    if (s->with_values) resp_bulk(out, value);
}

static void sample_header(struct sample *s, uint64_t n)
{
    resp_array(&s->c->out, s->with_values && s->c->out.version < 3 ? n * 2 : n);
}

static void sample_repeated(struct sample *s, const struct entry *e, uint64_t n)
{
    size_t mark = s->c->out.buf->n;
    sample_header(s, n);
    while (n--) {
        struct element field, value;
        hash_random(e, s->c->env->rng, &field, &value);
        if (!collection_reply_room(s->c, mark, field.text.n + value.text.n + 96)) return;
        sample_emit(s, field.text, value.text);
    }
}

void cmd_hrandfield(struct call *c)
{
    struct sample_args args;
    struct entry *e;
    if (!collection_sample_args(c, "withvalues", &args) || !find(c, &e)) return;
    struct sample s = {c, args.with_given};
    if (!args.count_given) {
        struct element field;
        if (e) hash_random(e, c->env->rng, &field, NULL);
        if (e)
            resp_bulk(&c->out, field.text);
        else
            resp_null(&c->out);
    } else if (!e || args.count == 0) {
        resp_array(&c->out, 0);
    } else if (args.count < 0) {
        if (collection_sample_fits(c, &args)) sample_repeated(&s, e, (uint64_t)-args.count);
    } else {
        uint64_t n = (uint64_t)args.count < hash_len(e) ? (uint64_t)args.count : hash_len(e);
        sample_header(&s, n);
        hash_sample(e, c->env->rng, n, sample_emit, &s);
    }
}
