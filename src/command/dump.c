/* dump.c: DUMP, RESTORE and RESTORE-ASKING. */
#include "command/call.h"

#include "base/mem.h"
#include "base/number.h"
#include "persist/persist.h"

void cmd_dump(struct call *c)
{
    struct key k = call_key(c, 1);
    struct entry *e = call_read(c, &k);
    struct buf payload = {0};
    if (!e) {
        resp_null(&c->out);
        return;
    }
    if (persist_dump(e, !c->env->options->dump_uncompressed, &payload) == OK)
        resp_bulk(&c->out, buf_bytes(&payload));
    else
        resp_error(&c->out, ERR_OOM_VALUE);
    buf_deinit(&payload);
}

struct restore {
    bool replace, abs_ttl;
    int64_t idle_s, freq; /* -1: not given */
    int64_t ttl;
};

static bool parse_idle(struct call *c, size_t at, struct restore *r)
{
    if (!call_arg_i64(c, at, &r->idle_s, NULL)) return false;
    if (r->idle_s >= 0) return true;
    resp_error(&c->out, "ERR Invalid IDLETIME value, must be >= 0");
    return false;
}

static bool parse_freq(struct call *c, size_t at, struct restore *r)
{
    if (!call_arg_i64(c, at, &r->freq, NULL)) return false;
    if (r->freq >= 0 && r->freq <= 255) return true;
    resp_error(&c->out, "ERR Invalid FREQ value, must be >= 0 and <= 255");
    return false;
}

static bool parse_options(struct call *c, struct restore *r)
{
    for (size_t at = 4; at < c->argc; at++) {
        bool more = at + 1 < c->argc;
        if (call_arg_is(c, at, "replace")) {
            r->replace = true;
        } else if (call_arg_is(c, at, "absttl")) {
            r->abs_ttl = true;
        } else if (call_arg_is(c, at, "idletime") && more && r->freq == -1) {
            if (!parse_idle(c, ++at, r)) return false;
        } else if (call_arg_is(c, at, "freq") && more && r->idle_s == -1) {
            if (!parse_freq(c, ++at, r)) return false;
        } else {
            resp_error(&c->out, ERR_SYNTAX);
            return false;
        }
    }
    return true;
}

static bool parse_ttl(struct call *c, struct restore *r)
{
    if (!call_arg_i64(c, 2, &r->ttl, NULL)) return false;
    if (r->ttl >= 0) return true;
    resp_error(&c->out, "ERR Invalid TTL value, must be >= 0");
    return false;
}

/* The value, or NULL after an error reply. */
static struct entry *decode(struct call *c, const struct key *k)
{
    struct entry *e = NULL;
    switch (persist_restore(c->argv[3], k->name, &c->env->options->limits, &e)) {
    case OK: return e;
    case E_INVALID: resp_error(&c->out, "ERR DUMP payload version or checksum are wrong"); break;
    case E_NOMEM: resp_error(&c->out, ERR_OOM_VALUE); break;
    default: resp_error(&c->out, "ERR Bad data format"); break;
    }
    return NULL;
}

/* What is over when it arrives is not stored; what it was to replace goes all the same. */
static void restore_expired(struct call *c, const struct key *k, struct entry *e, bool replace)
{
    entry_free(e);
    if (replace && call_delete(c, k)) {
        call_changed(c, k, NOTIFY_GENERIC, "del");
        call_effect_delete(c, k->name, c->env->options->lazyfree_server_del);
    }
    resp_ok(&c->out);
}

static void set_access(struct call *c, const struct key *k, const struct restore *r)
{
    bool lfu = c->env->options->lfu;
    if (lfu ? r->freq == -1 : r->idle_s == -1) return;
    struct entry *e = call_peek(c, k);
    if (!e) return;
    if (lfu)
        entry_set_lru(e, lfu_bits(lfu_clock_of(c->now_ms), (uint32_t)r->freq));
    else
        entry_set_lru(e, c->lru_clock - (uint32_t)(r->idle_s < 0x7fffff ? r->idle_s : 0x7fffff));
}

/* A relative TTL is repeated as the time it came to here. */
static void propagate_absolute(struct call *c, int64_t expire_at_ms)
{
    char text[24];
    struct bytes *argv = mem_alloc((c->argc + 1) * sizeof argv[0]);
    memcpy(argv, c->argv, c->argc * sizeof argv[0]);
    argv[2] = bytes_make(text, format_i64(text, expire_at_ms));
    argv[c->argc] = BYTES("ABSTTL");
    call_effect(c, c->argc + 1, argv);
    mem_free(argv);
}

void cmd_restore(struct call *c)
{
    struct key k = call_key(c, 1);
    struct restore r = {.idle_s = -1, .freq = -1};
    if (!parse_options(c, &r)) return;
    if (!r.replace && call_peek(c, &k)) {
        resp_error(&c->out, "BUSYKEY Target key name already exists.");
        return;
    }
    if (!parse_ttl(c, &r)) return;
    struct entry *e = decode(c, &k);
    if (!e) return;
    int64_t expire_at = r.ttl;
    /* A sum beyond the largest number wraps to a time long past: such a key is over at once, as in Redis. */
    if (r.ttl && !r.abs_ttl) expire_at = (int64_t)((uint64_t)r.ttl + (uint64_t)c->now_ms);
    bool keeps_expired = c->flags & (CALL_FROM_PRIMARY | CALL_ON_REPLICA | CALL_LOADING);
    if (r.ttl && expire_at <= c->now_ms && !keeps_expired) {
        restore_expired(c, &k, e, r.replace);
        return;
    }
    if (r.ttl) e = entry_with_expire(e, expire_at);
    if (r.replace) call_delete(c, &k); /* so that it counts as new */
    call_put(c, &k, e);
    set_access(c, &k, &r);
    call_changed(c, &k, NOTIFY_GENERIC, "restore");
    if (r.ttl && !r.abs_ttl) propagate_absolute(c, expire_at);
    resp_ok(&c->out);
}

void cmd_restore_asking(struct call *c)
{
    cmd_restore(c);
}
