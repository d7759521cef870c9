#include "command/call.h"

#include "base/mem.h"
#include "base/number.h"

#include <math.h>
#include <stdarg.h>

const char ERR_WRONGTYPE[] = "WRONGTYPE Operation against a key holding the wrong kind of value";
const char ERR_SYNTAX[] = "ERR syntax error";
const char ERR_NOT_INTEGER[] = "ERR value is not an integer or out of range";
const char ERR_NOT_FLOAT[] = "ERR value is not a valid float";
const char ERR_OUT_OF_RANGE[] = "ERR index out of range";
const char ERR_NO_SUCH_KEY[] = "ERR no such key";
const char ERR_OOM_VALUE[] = "OOM command not allowed when used memory > 'maxmemory'.";

struct key call_key_slow(const struct call *c, size_t arg)
{
    for (size_t i = 0; i < c->key_count; i++)
        if (c->key_arg[i] == arg) return c->keys[i];
    return key_of(c->argv[arg]);
}

static void count(_Atomic uint64_t *counter)
{
    /* One writer each, so that no locked instruction is needed. */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1, memory_order_relaxed);
}

void call_expire(struct call *c, const struct key *k)
{
    /* The propagated name must outlive the entry, which may hold the only copy. */
    call_effect_delete(c, k->name, c->env->options->lazyfree_expire);
    c->verbatim_off = false; /* beside the command, not instead of it */
    c->env->changed(c->env->ctx, c->db, k, NOTIFY_EXPIRED, "expired");
    store_delete(c->env->store, c->db, k);
    count(&c->env->stats->expired_keys);
}

/* False: the key counts as missing (and is gone, where that is ours to decide). */
static bool alive(struct call *c, const struct key *k, const struct entry *e)
{
    if (!entry_has_ttl(e) || entry_expire_at(e) > c->now_ms) return true;
    if (c->flags & (CALL_FROM_PRIMARY | CALL_LOADING)) return true;
    if (c->flags & (CALL_ON_REPLICA | CALL_KEEP_EXPIRED)) return false;
    bool verbatim_off = c->verbatim_off;
    call_expire(c, k);
    c->verbatim_off = verbatim_off;
    return false;
}

static struct entry *find(struct call *c, const struct key *k)
{
    struct entry *e = store_find(c->env->store, c->db, k);
    return e && alive(c, k, e) ? e : NULL;
}

void call_touch(struct call *c, struct entry *e)
{
    const struct call_options *o = c->env->options;
    if (c->flags & CALL_NO_TOUCH && c->cmd->id != CMD_ID_TOUCH) return;
    if (o->lfu)
        entry_set_lru(e, lfu_used(&o->lfu_settings, entry_lru(e), lfu_clock_of(c->now_ms), c->env->rng));
    else if (entry_lru(e) != c->lru_clock)
        entry_set_lru(e, c->lru_clock);
}

struct entry *call_peek(struct call *c, const struct key *k)
{
    struct entry *e = find(c, k);
    if (e) call_touch(c, e);
    return e;
}

static void notified(struct call *c, const struct key *k, enum notify_class cls, const char *event)
{
    if (c->env->options->notify & cls && c->env->notified) c->env->notified(c->env->ctx, c->db, k, cls, event);
}

struct entry *call_look(struct call *c, const struct key *k)
{
    struct entry *e = call_inspect(c, k);
    if (!e) notified(c, k, NOTIFY_MISS, "keymiss");
    return e;
}

struct entry *call_inspect(struct call *c, const struct key *k)
{
    struct entry *e = find(c, k);
    count(e ? &c->env->stats->keyspace_hits : &c->env->stats->keyspace_misses);
    return e;
}

struct entry *call_read(struct call *c, const struct key *k)
{
    struct entry *e = call_look(c, k);
    if (e) call_touch(c, e);
    return e;
}

struct entry *call_edit(struct call *c, const struct key *k)
{
    struct entry *e = call_peek(c, k);
    return e ? store_edit_found(c->env->store, c->db, k, e) : NULL;
}

static bool type_matches(struct call *c, const struct entry *e, enum value_type type)
{
    if (!e || entry_type(e) == type) return true;
    resp_error(&c->out, ERR_WRONGTYPE);
    return false;
}

bool call_read_type(struct call *c, const struct key *k, enum value_type type, struct entry **e)
{
    *e = call_read(c, k);
    return type_matches(c, *e, type);
}

bool call_edit_type(struct call *c, const struct key *k, enum value_type type, struct entry **e)
{
    *e = call_peek(c, k);
    if (!type_matches(c, *e, type)) return false;
    if (*e) *e = store_edit_found(c->env->store, c->db, k, *e);
    return true;
}

uint32_t call_fresh_access(const struct call *c)
{
    return c->env->options->lfu ? lfu_bits(lfu_clock_of(c->now_ms), LFU_START) : c->lru_clock;
}

void call_put(struct call *c, const struct key *k, struct entry *e)
{
    const struct entry *before = c->env->options->lfu ? store_find(c->env->store, c->db, k) : NULL;
    entry_set_lru(e, before ? entry_lru(before) : call_fresh_access(c));
    bool fresh = c->env->options->notify & NOTIFY_NEW && !store_find(c->env->store, c->db, k);
    store_put(c->env->store, c->db, k, e);
    if (fresh) call_added(c, k);
}

void call_added(struct call *c, const struct key *k)
{
    notified(c, k, NOTIFY_NEW, "new");
}

bool call_delete(struct call *c, const struct key *k)
{
    return store_delete(c->env->store, c->db, k);
}

bool call_delete_if_empty(struct call *c, const struct key *k, uint64_t length)
{
    if (length) return false;
    call_delete(c, k);
    c->env->changed(c->env->ctx, c->db, k, NOTIFY_GENERIC, "del");
    return true;
}

void call_changed(struct call *c, const struct key *k, enum notify_class cls, const char *event)
{
    c->dirty++;
    call_notify(c, k, cls, event);
}

void call_side_changed(struct call *c, const struct key *k, enum notify_class cls, const char *event)
{
    c->dirty++;
    notified(c, k, cls, event);
}

void call_notify(struct call *c, const struct key *k, enum notify_class cls, const char *event)
{
    c->env->changed(c->env->ctx, c->db, k, cls, event);
}

void call_effect(struct call *c, size_t argc, const struct bytes *argv)
{
    c->verbatim_off = true;
    if (!c->effects_wanted) return;
    resp_request_append(c->effects, argv, argc);
    c->effect_count++;
}

void call_effect_cstr(struct call *c, size_t argc, ...)
{
    enum { ARGS_MAX = 16 };
    struct bytes argv[ARGS_MAX];
    assert(argc <= ARGS_MAX);
    va_list ap;
    va_start(ap, argc);
    for (size_t i = 0; i < argc; i++) argv[i] = va_arg(ap, struct bytes);
    va_end(ap);
    call_effect(c, argc, argv);
}

void call_effect_none(struct call *c)
{
    c->verbatim_off = true;
}

void call_effect_delete(struct call *c, struct bytes key, bool lazy)
{
    struct bytes argv[] = {lazy ? BYTES("UNLINK") : BYTES("DEL"), key};
    call_effect(c, 2, argv);
}

bool call_exclusive(struct call *c)
{
    if (c->flags & CALL_EXCLUSIVE) return true;
    c->want_exclusive = true;
    return false;
}

void call_lock_slot(struct call *c, unsigned slot)
{
    if (!(c->flags & CALL_EXCLUSIVE)) slot_lock(c->env->store, slot);
}

void call_unlock_slot(struct call *c, unsigned slot)
{
    if (!(c->flags & CALL_EXCLUSIVE)) slot_unlock(c->env->store, slot);
}

/* ---- blocking commands ---- */

void call_wait(struct call *c, const struct call_wait *w)
{
    if (c->served_arg == 0 && !(c->flags & CALL_MAY_WAIT)) {
        if (w->flags & CALL_WAIT_NULL_BULK)
            resp_null(&c->out);
        else
            resp_null_array(&c->out);
        return;
    }
    assert(!c->wait && w->first >= 1 && w->first + w->count <= c->argc);
    c->wait = mem_alloc(sizeof *c->wait);
    *c->wait = *w;
    /* A client that sleeps on has its arguments already. */
    if (c->served_arg == 0) c->wait->kept = bytes_dup_array(w->argv ? w->argv : c->argv, c->argc, &c->wait->kept_bytes);
    c->wait->argv = NULL;
}

void call_wait_free(struct call_wait *w)
{
    if (w) mem_free(w->kept);
    mem_free(w);
}

static bool timeout_ok(struct call *c, int64_t ms)
{
    if (ms >= 0) return true;
    resp_error(&c->out, "ERR timeout is negative");
    return false;
}

bool call_arg_timeout_s(struct call *c, size_t arg, int64_t *timeout_ms)
{
    long double seconds;
    if (!parse_long_double(c->argv[arg], &seconds)) {
        resp_error(&c->out, "ERR timeout is not a float or out of range");
        return false;
    }
    /* redis-server 7.0.15 calls what does not fit negative. */
    long double ms = ceill(seconds * 1000);
    *timeout_ms = ms < 0 || ms > (long double)INT64_MAX ? -1 : (int64_t)ms;
    return timeout_ok(c, *timeout_ms);
}

bool call_arg_timeout_ms(struct call *c, size_t arg, int64_t *timeout_ms)
{
    return call_arg_i64(c, arg, timeout_ms, "ERR timeout is not an integer or out of range") &&
           timeout_ok(c, *timeout_ms);
}

bool call_arg_i64(struct call *c, size_t arg, int64_t *out, const char *error)
{
    if (parse_i64(c->argv[arg], out)) return true;
    resp_error(&c->out, error ? error : ERR_NOT_INTEGER);
    return false;
}

bool call_arg_range(struct call *c, size_t arg, int64_t min, int64_t max, int64_t *out, const char *error)
{
    if (!call_arg_i64(c, arg, out, error)) return false;
    if (*out >= min && *out <= max) return true;
    if (error)
        resp_error(&c->out, error);
    else
        resp_errorf(&c->out, "ERR value is out of range, value must between %lld and %lld", (long long)min,
                    (long long)max);
    return false;
}

bool call_arg_double(struct call *c, size_t arg, double *out, const char *error)
{
    if (parse_double(c->argv[arg], out)) return true;
    resp_error(&c->out, error ? error : ERR_NOT_FLOAT);
    return false;
}

bool call_arg_is(const struct call *c, size_t arg, const char *word)
{
    return bytes_ieq(c->argv[arg], bytes_of(word));
}

void call_wrong_arity(struct call *c)
{
    resp_errorf(&c->out, "ERR wrong number of arguments for '%s' command", c->cmd->name);
}

void call_bulk_entry_string(struct call *c, const struct entry *e)
{
    char digits[24];
    resp_bulk(&c->out, entry_string(e, digits));
}

void call_help(struct call *c, const char *container, const char *const *lines, size_t n)
{
    struct buf line = {0};
    resp_array(&c->out, n + 3);
    buf_printf(&line, "%s <subcommand> [<arg> [value] [opt] ...]. Subcommands are:%c", container, '\0');
    resp_status(&c->out, line.p);
    for (size_t i = 0; i < n; i++) resp_status(&c->out, lines[i]);
    resp_status(&c->out, "HELP");
    resp_status(&c->out, "    Prints this help.");
    buf_deinit(&line);
}

int call_prepare_keys(struct call *c)
{
    struct command_key found[CALL_KEYS_INLINE];
    unsigned one = command_one_key(c->cmd);
    c->key_count = 0;
    if (one && one < c->argc) {
        c->key_arg[0] = one;
        c->keys[0] = key_of(c->argv[one]);
        c->key_count = 1;
        return 1;
    }
    int n = command_has_keys(c->cmd) ? command_keys(c->cmd, c->argv, c->argc, found, CALL_KEYS_INLINE) : 0;
    for (int i = 0; i < n && i < CALL_KEYS_INLINE; i++) {
        c->key_arg[c->key_count] = found[i].index;
        c->keys[c->key_count++] = key_of(c->argv[found[i].index]);
    }
    return n;
}

void call_run(struct call *c)
{
    c->handler(c);
    if (c->want_exclusive || c->dirty == 0 || c->verbatim_off) return;
    call_effect(c, c->argc, c->argv);
}
