/* PFADD, PFCOUNT, PFMERGE, PFDEBUG and PFSELFTEST. */
#include "base/mem.h"
#include "command/hyperloglog.h"
#include "command/string.h"

#include <math.h>

static const char ERR_CORRUPT_VALUE[] = "INVALIDOBJ Corrupted HLL object detected";

/* Whether a key's string is a value of these commands; else that was replied. */
static bool check_value(struct call *c, struct bytes value)
{
    if (hll_is_value(value)) return true;
    resp_error(&c->out, "WRONGTYPE Key is not a valid HyperLogLog string value.");
    return false;
}

/* Reads the value at argv[arg]; *e is NULL when there is none.  False: replied. */
static bool read_value(struct call *c, size_t arg, struct entry **e, struct bytes *value, char digits[24])
{
    struct key k = call_key(c, arg);
    if (!call_read_type(c, &k, TYPE_STRING, e)) return false;
    if (!*e) return true;
    *value = entry_string(*e, digits);
    return check_value(c, *value);
}

/* Puts `value` in the place of what k holds (e: its private entry or NULL), keeping its time of expiry. */
static bool write_value(struct call *c, const struct key *k, struct entry *e, struct bytes value)
{
    if (!e || entry_string_len(e) <= value.n) {
        char *to = string_open(c, k, e, value.n);
        if (to) memcpy(to, value.p, value.n);
        if (to) return true;
    } else {
        struct entry *fresh = entry_try_new_raw(k->name, value, 0);
        if (fresh) call_put(c, k, entry_with_expire(fresh, entry_expire_at(e)));
        if (fresh) return true;
    }
    resp_error(&c->out, ERR_OOM_VALUE);
    return false;
}

/* The value at argv[arg] opened for a change, as a copy to work on; empty when the key is not there.  False: replied.
 */
static bool open_value(struct call *c, size_t arg, struct key *k, struct entry **e, struct buf *value)
{
    char digits[24];
    *k = call_key(c, arg);
    if (!call_edit_type(c, k, TYPE_STRING, e)) return false;
    if (!*e) {
        hll_empty(value);
        return true;
    }
    struct bytes old = entry_string(*e, digits);
    if (!check_value(c, old)) return false;
    buf_append_bytes(value, old);
    return true;
}

/* ---- PFADD ------------------------------------------------------------------------------------------------------- */

/* Adds argv[2 ...]; *added: how many changed the value. */
static enum status add_all(struct call *c, struct buf *value, uint64_t *added)
{
    size_t max = (size_t)c->env->options->hll_sparse_max_bytes;
    for (size_t i = 2; i < c->argc; i++) {
        unsigned index, run;
        bool changed;
        hll_element(c->argv[i], &index, &run);
        if (hll_raise(value, index, run, max, &changed) != OK) return E_CORRUPT;
        *added += changed;
    }
    return OK;
}

/* The frequent case by itself: nothing is copied. */
static void add_to_dense(struct call *c, const struct key *k, struct entry *e)
{
    uint64_t added = 0;
    char *value = string_open(c, k, e, HLL_DENSE_BYTES);
    if (!value) {
        resp_error(&c->out, ERR_OOM_VALUE);
        return;
    }
    for (size_t i = 2; i < c->argc; i++) {
        unsigned index, run;
        hll_element(c->argv[i], &index, &run);
        added += hll_dense_raise(value, index, run);
    }
    if (added) {
        hll_cache_drop(value);
        c->dirty += added - 1;
        call_changed(c, k, NOTIFY_STRING, "pfadd");
    }
    resp_i64(&c->out, added > 0);
}

static void add_to_copy(struct call *c, const struct key *k, struct entry *e, struct buf *value)
{
    uint64_t added = !e;
    enum status s = add_all(c, value, &added);
    if (s != OK) {
        string_open(c, k, e, 0);
        resp_error(&c->out, ERR_CORRUPT_VALUE);
        return;
    }
    if (added) {
        hll_cache_drop(value->p);
        if (!write_value(c, k, e, buf_bytes(value))) return;
        c->dirty += added - 1;
        call_changed(c, k, NOTIFY_STRING, "pfadd");
    } else {
        string_open(c, k, e, 0);
    }
    resp_i64(&c->out, added > 0);
}

void cmd_pfadd(struct call *c)
{
    struct key k = call_key(c, 1);
    struct entry *e;
    char digits[24];
    struct buf value = {0};
    if (!call_edit_type(c, &k, TYPE_STRING, &e)) return;
    if (e) {
        struct bytes old = entry_string(e, digits);
        if (!check_value(c, old)) return;
        if (hll_is_dense(old)) {
            add_to_dense(c, &k, e);
            return;
        }
        buf_append_bytes(&value, old);
    } else {
        hll_empty(&value);
    }
    add_to_copy(c, &k, e, &value);
    buf_deinit(&value);
}

/* ---- PFCOUNT and PFMERGE ----------------------------------------------------------------------------------------- */

/* Raises registers to those of all values at argv[first ...].  *dense: one of them was dense.  False: replied. */
static bool merge_all(struct call *c, size_t first, struct hll_registers *r, bool *dense)
{
    memset(r, 0, sizeof *r);
    for (size_t i = first; i < c->argc; i++) {
        struct entry *e;
        struct bytes value;
        char digits[24];
        if (!read_value(c, i, &e, &value, digits)) return false;
        if (!e) continue;
        *dense |= hll_is_dense(value);
        if (hll_merge(r, value) == OK) continue;
        resp_error(&c->out, ERR_CORRUPT_VALUE);
        return false;
    }
    return true;
}

/* Keeps the cardinality in the value.  Changes nothing that a client would have to know of, but the bytes: that is why
 * it is repeated on replicas, and why a replica does not do it by itself. */
static void keep_cardinality(struct call *c, uint64_t n)
{
    struct key k = call_key(c, 1);
    bool on_replica = c->flags & CALL_ON_REPLICA && !(c->flags & CALL_FROM_PRIMARY);
    struct entry *e = on_replica ? NULL : call_edit(c, &k);
    char *value = e ? string_open(c, &k, e, 0) : NULL;
    if (!value) return;
    hll_cache(value, n);
    c->dirty++;
}

static void count_one(struct call *c)
{
    struct entry *e;
    struct bytes value;
    char digits[24];
    uint64_t n = 0;
    if (!read_value(c, 1, &e, &value, digits)) return;
    if (e && !hll_cached(value, &n)) {
        if (hll_estimate(value, &n) != OK) {
            resp_error(&c->out, ERR_CORRUPT_VALUE);
            return;
        }
        keep_cardinality(c, n);
    }
    resp_i64(&c->out, (int64_t)n);
}

void cmd_pfcount(struct call *c)
{
    struct hll_registers r;
    bool dense = false;
    if (c->argc == 2)
        count_one(c);
    else if (merge_all(c, 1, &r, &dense))
        resp_i64(&c->out, (int64_t)hll_estimate_registers(&r));
}

/* Raises the registers of a value.  All or nothing. */
static enum status raise_all(struct buf *value, const struct hll_registers *r, bool dense, size_t sparse_max)
{
    bool changed;
    if (dense && hll_make_dense(value) != OK) return E_CORRUPT;
    for (unsigned i = 0; i < HLL_REGISTERS; i++) {
        if (hll_is_dense(buf_bytes(value))) { /* the rest at once: the target's own registers are among those of r */
            hll_dense_write(value->p, r);
            return OK;
        }
        if (r->value[i] && hll_raise(value, i, r->value[i], sparse_max, &changed) != OK) return E_CORRUPT;
    }
    return OK;
}

void cmd_pfmerge(struct call *c)
{
    struct hll_registers r;
    struct key k;
    struct entry *e;
    struct buf value = {0};
    bool dense = false;
    if (!merge_all(c, 1, &r, &dense) || !open_value(c, 1, &k, &e, &value)) return;
    if (raise_all(&value, &r, dense, (size_t)c->env->options->hll_sparse_max_bytes) != OK) {
        resp_error(&c->out, ERR_CORRUPT_VALUE);
    } else {
        hll_cache_drop(value.p);
        if (write_value(c, &k, e, buf_bytes(&value))) {
            call_changed(c, &k, NOTIFY_STRING, "pfadd");
            resp_ok(&c->out);
        }
    }
    buf_deinit(&value);
}

/* ---- PFDEBUG ----------------------------------------------------------------------------------------------------- */

/* *converted: it was sparse.  False: replied. */
static bool to_dense(struct call *c, const struct key *k, struct entry *e, struct buf *value, bool *converted)
{
    *converted = !hll_is_dense(buf_bytes(value));
    if (!*converted) return true;
    if (hll_make_dense(value) != OK) {
        resp_error(&c->out, ERR_CORRUPT_VALUE);
        return false;
    }
    if (!write_value(c, k, e, buf_bytes(value))) return false;
    c->dirty++; /* no content has changed, but replicas shall have the same bytes */
    return true;
}

static void debug_registers(struct call *c, const struct key *k, struct entry *e, struct buf *value)
{
    bool converted;
    struct hll_registers r = {{0}};
    if (!to_dense(c, k, e, value, &converted)) return;
    if (hll_merge(&r, buf_bytes(value)) != OK) return; /* dense ones cannot fail */
    resp_array(&c->out, HLL_REGISTERS);
    for (unsigned i = 0; i < HLL_REGISTERS; i++) resp_i64(&c->out, r.value[i]);
}

static void debug_decode(struct call *c, const struct buf *value)
{
    struct buf text = {0};
    if (hll_is_dense(buf_bytes(value))) {
        resp_error(&c->out, "ERR HLL encoding is not sparse");
        return;
    }
    hll_describe(buf_bytes(value), &text);
    resp_bulk(&c->out, buf_bytes(&text));
    buf_deinit(&text);
}

static void debug(struct call *c, const struct key *k, struct entry *e, struct buf *value)
{
    bool converted;
    if (call_arg_is(c, 1, "getreg")) {
        debug_registers(c, k, e, value);
    } else if (call_arg_is(c, 1, "decode")) {
        debug_decode(c, value);
    } else if (call_arg_is(c, 1, "encoding")) {
        resp_status(&c->out, hll_is_dense(buf_bytes(value)) ? "dense" : "sparse");
    } else if (call_arg_is(c, 1, "todense")) {
        if (to_dense(c, k, e, value, &converted)) resp_i64(&c->out, converted);
    } else {
        int n = c->argv[1].n < 128 ? (int)c->argv[1].n : 128;
        resp_errorf(&c->out, "ERR Unknown PFDEBUG subcommand '%.*s'", n, c->argv[1].p);
    }
}

void cmd_pfdebug(struct call *c)
{
    struct key k = call_key(c, 2);
    struct entry *e;
    struct buf value = {0};
    if (!call_peek(c, &k)) {
        resp_error(&c->out, "ERR The specified key does not exist");
        return;
    }
    if (!open_value(c, 2, &k, &e, &value)) return;
    if (string_open(c, &k, e, 0)) e = store_find(c->env->store, c->db, &k); /* raw from here on, as in Redis */
    debug(c, &k, e, &value);
    buf_deinit(&value);
}

/* ---- PFSELFTEST -------------------------------------------------------------------------------------------------- */

/* Both encodings hold the same registers, and what they estimate is near the truth. */
static const char *self_test(struct random *rng)
{
    enum { ELEMENTS = 50000, CHECK_EVERY = 5000 };
    struct buf sparse = {0}, dense = {0};
    const char *wrong = NULL;
    hll_empty(&sparse);
    hll_empty(&dense);
    if (hll_make_dense(&dense) != OK) wrong = "an empty value does not become dense";
    uint64_t seed = random_u64(rng), estimate = 0, other = 0;
    for (uint64_t i = 1; !wrong && i <= ELEMENTS; i++) {
        uint64_t element = seed ^ i;
        unsigned index, run;
        bool one, two;
        hll_element(bytes_make(&element, sizeof element), &index, &run);
        if (hll_raise(&sparse, index, run, 3000, &one) != OK || hll_raise(&dense, index, run, 0, &two) != OK ||
            one != two)
            wrong = "sparse and dense values differ";
        if (wrong || i % CHECK_EVERY) continue;
        if (hll_estimate(buf_bytes(&sparse), &estimate) != OK || hll_estimate(buf_bytes(&dense), &other) != OK ||
            estimate != other)
            wrong = "sparse and dense estimates differ";
        else if (fabs((double)estimate - (double)i) > (double)i * 0.0081 * 6) /* six standard errors */
            wrong = "the estimate is off by more than it may";
    }
    buf_deinit(&sparse);
    buf_deinit(&dense);
    return wrong;
}

void cmd_pfselftest(struct call *c)
{
    const char *wrong = self_test(c->env->rng);
    if (wrong)
        resp_errorf(&c->out, "TESTFAILED %s", wrong);
    else
        resp_ok(&c->out);
}
