/* The string commands, without bits and LCS. */
#include "command/string.h"
#include "base/mem.h"
#include "base/number.h"

#include <math.h>

/* Strings up to these lengths stand inside their entry, and are embstr (see entry.h). */
enum { COMPOSE_MAX = 512, EMBSTR_MAX = 44 };

static const char ERR_TOO_LONG[] = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";

/* ---- Writing a value --------------------------------------------------------------------------------------------- */

/* Replaces the text of a private entry by one of the same stored size; false: it does not fit there. */
static bool overwrite(struct entry *e, struct bytes value)
{
    if (entry_type(e) != TYPE_STRING) return false;
    int64_t number;
    bool is_number = parse_i64(value, &number);
    if (entry_enc(e) == ENC_INT || is_number) {
        if (entry_enc(e) != ENC_INT || !is_number) return false;
        memcpy(entry_word(e), &number, sizeof number);
        return true;
    }
    char digits[24];
    struct bytes old = entry_string(e, digits);
    if (old.n != value.n) return false;
    char *to = (char *)(uintptr_t)old.p; /* the entry's own bytes, unless they are boxed and shared */
    if (e->flags & ENTRY_WORD) {
        to = entry_raw_grow(e, value.n);
        if (!to) return false;
    } else {
        entry_set_enc(e, value.n <= EMBSTR_MAX ? ENC_EMBSTR : ENC_RAW);
    }
    if (value.n) memcpy(to, value.p, value.n);
    return true;
}

static bool replace_value(struct call *c, const struct key *k, struct entry *e, struct bytes value, int64_t expire_at)
{
    if (e && entry_has_ttl(e) == (expire_at >= 0) && overwrite(e, value)) {
        if (expire_at >= 0) store_set_expire(c->env->store, c->db, k, expire_at);
        return true;
    }
    e = entry_try_new_string(k->name, value);
    if (!e) return false;
    if (expire_at >= 0) e = entry_with_expire(e, expire_at);
    call_put(c, k, e);
    return true;
}

/* Sets k to value, with a time of expiry or none (-1), whatever was there.  False: memory is out, nothing was replied
 * or changed.  The most frequent write of all: where the old value leaves room, it costs one look-up. */
static bool put_value(struct call *c, const struct key *k, struct bytes value, int64_t expire_at)
{
    struct entry *e = store_edit(c->env->store, c->db, k);
    if (e && entry_has_ttl(e))
        e = call_peek(c, k); /* an expired key is deleted before the new one is set */
    else if (e)
        call_touch(c, e);
    return replace_value(c, k, e, value, expire_at);
}

/* The same for a key that was looked up before, which counted as its use. */
static bool put_looked_up(struct call *c, const struct key *k, struct bytes value, int64_t expire_at)
{
    return replace_value(c, k, store_edit(c->env->store, c->db, k), value, expire_at);
}

/* The time at which a new value expires when the old one's time is kept. */
static int64_t expire_of(const struct entry *e)
{
    return e ? entry_expire_at(e) : -1;
}

/* Gives the string k (e is its private entry, or NULL) a raw value: the old one with `text` written over it from `at`
 * on, zeros in between.  False: memory is out, nothing was replied or changed. */
static bool write_at(struct call *c, const struct key *k, struct entry *e, size_t at, struct bytes text)
{
    char digits[24], composed[COMPOSE_MAX], *to;
    struct bytes old = e ? entry_string(e, digits) : (struct bytes){0};
    size_t total = at + text.n > old.n ? at + text.n : old.n;
    to = e ? entry_raw_grow(e, total) : NULL;
    if (to) {
        if (text.n) memcpy(to + at, text.p, text.n);
        return true;
    }
    struct entry *fresh;
    if (total <= COMPOSE_MAX) {
        memset(composed, 0, total);
        if (old.n) memcpy(composed, old.p, old.n);
        if (text.n) memcpy(composed + at, text.p, text.n);
        fresh = entry_try_new_raw(k->name, bytes_make(composed, total), 0);
    } else {
        fresh = entry_try_new_raw(k->name, old, total - old.n);
        to = fresh ? entry_raw_grow(fresh, total) : NULL;
        if (to && text.n) memcpy(to + at, text.p, text.n);
    }
    if (!fresh) return false;
    call_put(c, k, entry_with_expire(fresh, expire_of(e)));
    return true;
}

char *string_open(struct call *c, const struct key *k, struct entry *e, size_t n)
{
    size_t have = e ? entry_string_len(e) : 0;
    char *bytes = NULL;
    if (e) bytes = n <= have ? entry_raw_bytes(e) : entry_raw_grow(e, n);
    if (bytes) return bytes;
    struct entry *fresh = entry_try_new_room(k->name, n > have ? n : have, &bytes);
    if (!fresh) return NULL;
    char digits[24];
    struct bytes old = e ? entry_string(e, digits) : (struct bytes){0};
    if (old.n) memcpy(bytes, old.p, old.n);
    if (n > old.n) memset(bytes + old.n, 0, n - old.n);
    call_put(c, k, entry_with_expire(fresh, expire_of(e)));
    return entry_raw_bytes(store_find(c->env->store, c->db, k));
}

/* ---- Options of SET and GETEX ------------------------------------------------------------------------------------ */

enum expire_option { EXPIRE_NONE, EXPIRE_EX, EXPIRE_PX, EXPIRE_EXAT, EXPIRE_PXAT };

struct string_options {
    bool nx, xx, get, keepttl, persist;
    enum expire_option expire;
    size_t expire_arg; /* of the number; 0: none */
};

/* EX, PX, ... with its number behind it; several of the same are fine, the last one counts. */
static bool parse_expire_option(const struct call *c, size_t *arg, struct string_options *o)
{
    static const struct {
        const char *word;
        enum expire_option option;
    } words[] = {{"ex", EXPIRE_EX}, {"px", EXPIRE_PX}, {"exat", EXPIRE_EXAT}, {"pxat", EXPIRE_PXAT}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!call_arg_is(c, *arg, words[i].word)) continue;
        if (o->keepttl || o->persist || *arg + 1 >= c->argc) return false;
        if (o->expire != EXPIRE_NONE && o->expire != words[i].option) return false;
        o->expire = words[i].option;
        o->expire_arg = ++*arg;
        return true;
    }
    return false;
}

static bool parse_options(struct call *c, size_t from, bool is_set, struct string_options *o)
{
    *o = (struct string_options){0};
    for (size_t i = from; i < c->argc; i++) {
        bool timed = o->expire != EXPIRE_NONE;
        if (is_set && !o->xx && call_arg_is(c, i, "nx"))
            o->nx = true;
        else if (is_set && !o->nx && call_arg_is(c, i, "xx"))
            o->xx = true;
        else if (is_set && call_arg_is(c, i, "get"))
            o->get = true;
        else if (is_set && !timed && call_arg_is(c, i, "keepttl"))
            o->keepttl = true;
        else if (!is_set && !timed && call_arg_is(c, i, "persist"))
            o->persist = true;
        else if (!parse_expire_option(c, &i, o)) {
            resp_error(&c->out, ERR_SYNTAX);
            return false;
        }
    }
    return true;
}

/* Reads the number of an expire option as the time in ms; false: replied. */
static bool parse_expire(struct call *c, size_t arg, enum expire_option option, int64_t *out)
{
    int64_t at;
    if (!call_arg_i64(c, arg, &at, NULL)) return false;
    bool seconds = option == EXPIRE_EX || option == EXPIRE_EXAT, relative = option == EXPIRE_EX || option == EXPIRE_PX;
    bool ok = at > 0;
    if (ok && seconds) ok = !__builtin_mul_overflow(at, (int64_t)1000, &at);
    if (ok && relative) ok = !__builtin_add_overflow(at, c->now_ms, &at);
    if (!ok) {
        resp_errorf(&c->out, "ERR invalid expire time in '%s' command", c->cmd->name);
        return false;
    }
    *out = at;
    return true;
}

/* ---- SET and its relatives --------------------------------------------------------------------------------------- */

static void effect_set_pxat(struct call *c, struct bytes key, struct bytes value, int64_t at)
{
    char digits[24];
    struct bytes ms = bytes_make(digits, format_i64(digits, at));
    call_effect_cstr(c, 5, BYTES("SET"), key, value, BYTES("PXAT"), ms);
}

/* The command as it came, but without GET. */
static void effect_without_get(struct call *c)
{
    if (!c->effects_wanted) {
        call_effect_none(c);
        return;
    }
    struct bytes *argv = mem_alloc(c->argc * sizeof *argv);
    size_t argc = 0;
    for (size_t i = 0; i < c->argc; i++)
        if (i < 3 || !call_arg_is(c, i, "get")) argv[argc++] = c->argv[i];
    call_effect(c, argc, argv);
    mem_free(argv);
}

static void reply_value(struct call *c, const struct entry *e)
{
    if (e)
        call_bulk_entry_string(c, e);
    else
        resp_null(&c->out);
}

void cmd_get(struct call *c)
{
    struct key k = call_key(c, 1);
    struct entry *e;
    if (call_read_type(c, &k, TYPE_STRING, &e)) reply_value(c, e);
}

static void set_with_options(struct call *c, const struct key *k)
{
    struct string_options o;
    int64_t expire_at = -1;
    if (!parse_options(c, 3, true, &o)) return;
    if (o.expire_arg && !parse_expire(c, o.expire_arg, o.expire, &expire_at)) return;
    size_t mark = c->out.buf->n;
    struct entry *e;
    if (o.get) {
        if (!call_read_type(c, k, TYPE_STRING, &e)) return;
        reply_value(c, e);
    } else {
        e = call_peek(c, k);
    }
    if ((o.nx && e) || (o.xx && !e)) {
        if (!o.get) resp_null(&c->out);
        return;
    }
    if (!(o.get ? put_value : put_looked_up)(c, k, c->argv[2], o.keepttl ? expire_of(e) : expire_at)) {
        c->out.buf->n = mark;
        resp_error(&c->out, ERR_OOM_VALUE);
        return;
    }
    call_changed(c, k, NOTIFY_STRING, "set");
    if (o.expire_arg) {
        call_notify(c, k, NOTIFY_GENERIC, "expire");
        effect_set_pxat(c, k->name, c->argv[2], expire_at);
    } else if (o.get) {
        effect_without_get(c);
    }
    if (!o.get) resp_ok(&c->out);
}

void cmd_set(struct call *c)
{
    struct key k = call_key(c, 1);
    if (c->argc > 3) {
        set_with_options(c, &k);
    } else if (put_value(c, &k, c->argv[2], -1)) {
        call_changed(c, &k, NOTIFY_STRING, "set");
        resp_ok(&c->out);
    } else {
        resp_error(&c->out, ERR_OOM_VALUE);
    }
}

static void set_expiring(struct call *c, enum expire_option unit)
{
    struct key k = call_key(c, 1);
    int64_t at;
    if (!parse_expire(c, 2, unit, &at)) return;
    if (!put_value(c, &k, c->argv[3], at)) {
        resp_error(&c->out, ERR_OOM_VALUE);
        return;
    }
    call_changed(c, &k, NOTIFY_STRING, "set");
    call_notify(c, &k, NOTIFY_GENERIC, "expire");
    effect_set_pxat(c, k.name, c->argv[3], at);
    resp_ok(&c->out);
}

void cmd_setex(struct call *c)
{
    set_expiring(c, EXPIRE_EX);
}

void cmd_psetex(struct call *c)
{
    set_expiring(c, EXPIRE_PX);
}

void cmd_setnx(struct call *c)
{
    struct key k = call_key(c, 1);
    if (call_peek(c, &k)) {
        resp_i64(&c->out, 0);
    } else if (put_value(c, &k, c->argv[2], -1)) {
        call_changed(c, &k, NOTIFY_STRING, "set");
        resp_i64(&c->out, 1);
    } else {
        resp_error(&c->out, ERR_OOM_VALUE);
    }
}

void cmd_getset(struct call *c)
{
    struct key k = call_key(c, 1);
    struct entry *e;
    size_t mark = c->out.buf->n;
    if (!call_read_type(c, &k, TYPE_STRING, &e)) return;
    reply_value(c, e);
    if (!put_value(c, &k, c->argv[2], -1)) {
        c->out.buf->n = mark;
        resp_error(&c->out, ERR_OOM_VALUE);
        return;
    }
    call_changed(c, &k, NOTIFY_STRING, "set");
    call_effect_cstr(c, 3, BYTES("SET"), k.name, c->argv[2]);
}

void cmd_getdel(struct call *c)
{
    struct key k = call_key(c, 1);
    struct entry *e;
    if (!call_read_type(c, &k, TYPE_STRING, &e)) return;
    reply_value(c, e);
    if (!e) return;
    call_delete(c, &k);
    call_changed(c, &k, NOTIFY_GENERIC, "del");
    call_effect_delete(c, k.name, c->env->options->lazyfree_user_del);
}

void cmd_getex(struct call *c)
{
    struct key k = call_key(c, 1);
    struct string_options o;
    struct entry *e;
    int64_t at = -1;
    if (!parse_options(c, 2, false, &o) || !call_read_type(c, &k, TYPE_STRING, &e)) return;
    if (!e) {
        resp_null(&c->out);
        return;
    }
    if (o.expire_arg && !parse_expire(c, o.expire_arg, o.expire, &at)) return;
    reply_value(c, e);
    bool absolute = o.expire == EXPIRE_EXAT || o.expire == EXPIRE_PXAT;
    if (absolute && at <= c->now_ms && !(c->flags & (CALL_FROM_PRIMARY | CALL_ON_REPLICA | CALL_LOADING))) {
        call_delete(c, &k);
        call_changed(c, &k, NOTIFY_GENERIC, "del");
        call_effect_delete(c, k.name, c->env->options->lazyfree_expire);
    } else if (o.expire_arg) {
        char digits[24];
        store_set_expire(c->env->store, c->db, &k, at);
        call_changed(c, &k, NOTIFY_GENERIC, "expire");
        call_effect_cstr(c, 3, BYTES("PEXPIREAT"), k.name, bytes_make(digits, format_i64(digits, at)));
    } else if (o.persist && entry_has_ttl(e)) {
        store_set_expire(c->env->store, c->db, &k, -1);
        call_changed(c, &k, NOTIFY_GENERIC, "persist");
        call_effect_cstr(c, 2, BYTES("PERSIST"), k.name);
    }
}

/* ---- Several keys ------------------------------------------------------------------------------------------------ */

void cmd_mget(struct call *c)
{
    resp_array(&c->out, c->argc - 1);
    for (size_t i = 1; i < c->argc; i++) {
        struct key k = call_key(c, i);
        struct entry *e = call_read(c, &k);
        reply_value(c, e && entry_type(e) == TYPE_STRING ? e : NULL);
    }
}

/* False: memory ran out on the way; then the pairs so far are set, propagated, and the error was replied. */
static bool set_pairs(struct call *c)
{
    for (size_t i = 1; i + 1 < c->argc; i += 2) {
        struct key k = call_key(c, i);
        if (!put_value(c, &k, c->argv[i + 1], -1)) {
            if (i > 1) call_effect(c, i, c->argv);
            resp_error(&c->out, ERR_OOM_VALUE);
            return false;
        }
        call_changed(c, &k, NOTIFY_STRING, "set");
    }
    return true;
}

void cmd_mset(struct call *c)
{
    if (c->argc % 2 == 0)
        call_wrong_arity(c);
    else if (set_pairs(c))
        resp_ok(&c->out);
}

void cmd_msetnx(struct call *c)
{
    if (c->argc % 2 == 0) {
        call_wrong_arity(c);
        return;
    }
    for (size_t i = 1; i < c->argc; i += 2) {
        struct key k = call_key(c, i);
        if (!call_peek(c, &k)) continue;
        resp_i64(&c->out, 0);
        return;
    }
    if (set_pairs(c)) resp_i64(&c->out, 1);
}

/* ---- Parts of a string ------------------------------------------------------------------------------------------- */

void cmd_strlen(struct call *c)
{
    struct key k = call_key(c, 1);
    struct entry *e;
    if (call_read_type(c, &k, TYPE_STRING, &e)) resp_i64(&c->out, e ? (int64_t)entry_string_len(e) : 0);
}

/* Checks the length a string would get; what a primary or a file says was checked before.  False: replied. */
static bool length_allowed(struct call *c, uint64_t length)
{
    if (length <= (uint64_t)c->env->options->proto_max_bulk_len) return true;
    if ((c->flags & (CALL_FROM_PRIMARY | CALL_LOADING)) && length <= SIZE_MAX / 4) return true;
    resp_error(&c->out, ERR_TOO_LONG);
    return false;
}

void cmd_append(struct call *c)
{
    struct key k = call_key(c, 1);
    struct bytes text = c->argv[2];
    struct entry *e;
    if (!call_edit_type(c, &k, TYPE_STRING, &e)) return;
    size_t old = e ? entry_string_len(e) : 0;
    if (e && !length_allowed(c, (uint64_t)old + text.n)) return;
    if (e ? !write_at(c, &k, e, old, text) : !put_value(c, &k, text, -1)) {
        resp_error(&c->out, ERR_OOM_VALUE);
        return;
    }
    call_changed(c, &k, NOTIFY_STRING, "append");
    resp_i64(&c->out, (int64_t)(old + text.n));
}

void cmd_setrange(struct call *c)
{
    struct key k = call_key(c, 1);
    struct bytes text = c->argv[3];
    struct entry *e;
    int64_t offset;
    if (!call_arg_i64(c, 2, &offset, NULL)) return;
    if (offset < 0) {
        resp_error(&c->out, "ERR offset is out of range");
        return;
    }
    if (!call_edit_type(c, &k, TYPE_STRING, &e)) return;
    size_t old = e ? entry_string_len(e) : 0;
    if (text.n == 0) {
        resp_i64(&c->out, (int64_t)old);
        return;
    }
    if (!length_allowed(c, (uint64_t)offset + text.n)) return;
    if (!write_at(c, &k, e, (size_t)offset, text)) {
        resp_error(&c->out, ERR_OOM_VALUE);
        return;
    }
    call_changed(c, &k, NOTIFY_STRING, "setrange");
    size_t end = (size_t)offset + text.n;
    resp_i64(&c->out, (int64_t)(end > old ? end : old));
}

void cmd_getrange(struct call *c)
{
    struct key k = call_key(c, 1);
    struct entry *e;
    int64_t start, end;
    if (!call_arg_i64(c, 2, &start, NULL) || !call_arg_i64(c, 3, &end, NULL)) return;
    if (!call_read_type(c, &k, TYPE_STRING, &e)) return;
    char digits[24];
    struct bytes text = e ? entry_string(e, digits) : (struct bytes){0};
    int64_t n = (int64_t)text.n;
    bool backwards = start < 0 && end < 0 && start > end; /* even where both mean the first byte */
    if (start < 0) start = start + n < 0 ? 0 : start + n;
    if (end < 0) end = end + n < 0 ? 0 : end + n;
    if (end >= n) end = n - 1;
    if (backwards || start > end)
        resp_bulk(&c->out, BYTES(""));
    else
        resp_bulk(&c->out, bytes_make(text.p + start, (size_t)(end - start + 1)));
}

void cmd_substr(struct call *c)
{
    cmd_getrange(c);
}

/* ---- Numbers ----------------------------------------------------------------------------------------------------- */

static void increment(struct call *c, int64_t delta)
{
    struct key k = call_key(c, 1);
    struct entry *e;
    char digits[24];
    int64_t value = 0;
    if (!call_edit_type(c, &k, TYPE_STRING, &e)) return;
    if (e && !parse_i64(entry_string(e, digits), &value)) {
        resp_error(&c->out, ERR_NOT_INTEGER);
        return;
    }
    if (__builtin_add_overflow(value, delta, &value)) {
        resp_error(&c->out, "ERR increment or decrement would overflow");
        return;
    }
    if (e && entry_enc(e) == ENC_INT)
        memcpy(entry_word(e), &value, sizeof value);
    else if (!put_looked_up(c, &k, bytes_make(digits, format_i64(digits, value)), expire_of(e))) {
        resp_error(&c->out, ERR_OOM_VALUE);
        return;
    }
    call_changed(c, &k, NOTIFY_STRING, "incrby");
    resp_i64(&c->out, value);
}

void cmd_incr(struct call *c)
{
    increment(c, 1);
}

void cmd_decr(struct call *c)
{
    increment(c, -1);
}

void cmd_incrby(struct call *c)
{
    int64_t delta;
    if (call_arg_i64(c, 2, &delta, NULL)) increment(c, delta);
}

void cmd_decrby(struct call *c)
{
    int64_t delta;
    if (!call_arg_i64(c, 2, &delta, NULL)) return;
    if (delta == INT64_MIN)
        resp_error(&c->out, "ERR decrement would overflow");
    else
        increment(c, -delta);
}

/* A number's text is kept as text: only what SET and the integer commands write becomes an integer. */
static bool put_text(struct call *c, const struct key *k, struct bytes text, int64_t expire_at)
{
    struct entry *e = entry_try_new_raw(k->name, text, 0);
    if (!e) return false;
    if (text.n <= EMBSTR_MAX) entry_set_enc(e, ENC_EMBSTR);
    call_put(c, k, entry_with_expire(e, expire_at));
    return true;
}

void cmd_incrbyfloat(struct call *c)
{
    struct key k = call_key(c, 1);
    struct entry *e;
    char digits[24], text[LONG_DOUBLE_TEXT_MAX];
    long double value = 0, delta;
    if (!call_edit_type(c, &k, TYPE_STRING, &e)) return;
    if ((e && !parse_long_double(entry_string(e, digits), &value)) || !parse_long_double(c->argv[2], &delta)) {
        resp_error(&c->out, ERR_NOT_FLOAT);
        return;
    }
    value += delta;
    if (isnan(value) || isinf(value)) {
        resp_error(&c->out, "ERR increment would produce NaN or Infinity");
        return;
    }
    struct bytes result = bytes_make(text, format_long_double(text, value));
    if (!put_text(c, &k, result, expire_of(e))) {
        resp_error(&c->out, ERR_OOM_VALUE);
        return;
    }
    call_changed(c, &k, NOTIFY_STRING, "incrbyfloat");
    call_effect_cstr(c, 4, BYTES("SET"), k.name, result, BYTES("KEEPTTL"));
    resp_bulk(&c->out, result);
}
