/* The commands about a key's time of expiry. */
#include "base/mem.h"
#include "base/number.h"
#include "command/call.h"

struct expire_conditions {
    bool nx, xx, gt, lt;
};

/* The words behind the time; false: replied. */
static bool parse_conditions(struct call *c, struct expire_conditions *o)
{
    *o = (struct expire_conditions){0};
    for (size_t i = 3; i < c->argc; i++) {
        if (call_arg_is(c, i, "nx")) {
            o->nx = true;
        } else if (call_arg_is(c, i, "xx")) {
            o->xx = true;
        } else if (call_arg_is(c, i, "gt")) {
            o->gt = true;
        } else if (call_arg_is(c, i, "lt")) {
            o->lt = true;
        } else {
            resp_errorf(&c->out, "ERR Unsupported option %.*s", resp_shown(c->argv[i]), c->argv[i].p);
            return false;
        }
    }
    if (o->nx && (o->xx || o->gt || o->lt)) {
        resp_error(&c->out, "ERR NX and XX, GT or LT options at the same time are not compatible");
        return false;
    }
    if (o->gt && o->lt) {
        resp_error(&c->out, "ERR GT and LT options at the same time are not compatible");
        return false;
    }
    return true;
}

/* current: -1 when the key does not expire, which counts as later than any time. */
static bool conditions_hold(const struct expire_conditions *o, int64_t current, int64_t at)
{
    if (o->nx && current >= 0) return false;
    if (o->xx && current < 0) return false;
    if (o->gt && (current < 0 || at <= current)) return false;
    return !(o->lt && current >= 0 && at >= current);
}

/* argv[2] as unix time in ms; false: replied. */
static bool parse_time(struct call *c, bool seconds, bool relative, int64_t *out)
{
    int64_t at;
    if (!call_arg_i64(c, 2, &at, NULL)) return false;
    bool ok = !seconds || !__builtin_mul_overflow(at, (int64_t)1000, &at);
    if (ok && relative) ok = !__builtin_add_overflow(at, c->now_ms, &at);
    if (!ok) resp_errorf(&c->out, "ERR invalid expire time in '%s' command", c->cmd->name);
    *out = at;
    return ok;
}

/* PEXPIREAT key ms and the conditions, as they came. */
static void effect_pexpireat(struct call *c, int64_t at)
{
    char digits[24];
    if (!c->effects_wanted) {
        call_effect_none(c);
        return;
    }
    struct bytes *argv = mem_alloc(c->argc * sizeof *argv);
    memcpy(argv, c->argv, c->argc * sizeof *argv);
    argv[0] = BYTES("PEXPIREAT");
    argv[2] = bytes_make(digits, format_i64(digits, at));
    call_effect(c, c->argc, argv);
    mem_free(argv);
}

static void expire(struct call *c, bool seconds, bool relative)
{
    struct key k = call_key(c, 1);
    struct expire_conditions conditions;
    int64_t at;
    if (!parse_conditions(c, &conditions) || !parse_time(c, seconds, relative, &at)) return;
    struct entry *e = call_peek(c, &k);
    if (!e || !conditions_hold(&conditions, entry_expire_at(e), at)) {
        resp_i64(&c->out, 0);
        return;
    }
    /* Only a primary decides that the time is over; elsewhere the deletion arrives as a command of its own. */
    if (at <= c->now_ms && !(c->flags & (CALL_FROM_PRIMARY | CALL_ON_REPLICA | CALL_LOADING))) {
        call_delete(c, &k);
        call_changed(c, &k, NOTIFY_GENERIC, "del");
        call_effect_delete(c, k.name, c->env->options->lazyfree_expire);
    } else {
        store_set_expire(c->env->store, c->db, &k, at < 0 ? 0 : at);
        call_changed(c, &k, NOTIFY_GENERIC, "expire");
        if (c->cmd->id != CMD_ID_PEXPIREAT) effect_pexpireat(c, at);
    }
    resp_i64(&c->out, 1);
}

void cmd_expire(struct call *c)
{
    expire(c, true, true);
}

void cmd_pexpire(struct call *c)
{
    expire(c, false, true);
}

void cmd_expireat(struct call *c)
{
    expire(c, true, false);
}

void cmd_pexpireat(struct call *c)
{
    expire(c, false, false);
}

void cmd_persist(struct call *c)
{
    struct key k = call_key(c, 1);
    struct entry *e = call_peek(c, &k);
    bool had = e && entry_has_ttl(e);
    if (had) {
        store_set_expire(c->env->store, c->db, &k, -1);
        call_changed(c, &k, NOTIFY_GENERIC, "persist");
    }
    resp_i64(&c->out, had);
}

/* Replies the time of expiry, or what is left until then; -2: no such key, -1: no such time. */
static void reply_time(struct call *c, bool seconds, bool relative)
{
    struct key k = call_key(c, 1);
    struct entry *e = call_look(c, &k);
    int64_t at = e ? entry_expire_at(e) : -2;
    if (at >= 0) {
        if (relative) at = at > c->now_ms ? at - c->now_ms : 0;
        if (seconds) at = at / 1000 + (at % 1000 >= 500);
    }
    resp_i64(&c->out, at);
}

void cmd_ttl(struct call *c)
{
    reply_time(c, true, true);
}

void cmd_pttl(struct call *c)
{
    reply_time(c, false, true);
}

void cmd_expiretime(struct call *c)
{
    reply_time(c, true, false);
}

void cmd_pexpiretime(struct call *c)
{
    reply_time(c, false, false);
}
