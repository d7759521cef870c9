/* stream_claim.c: XCLAIM and XAUTOCLAIM: entries that wait change hands. */
#include "command/stream_args.h"

#include <stdio.h>

/* One command's claims: the group for changes, and its consumer as soon as it gets something. */
struct claimer {
    struct call *c;
    struct key k;
    struct stream *s;
    struct stream_group *g;
    struct stream_consumer *consumer; /* NULL so far */
    struct bytes group, name;
    bool just_id;
    int64_t min_idle_ms, delivered_ms;
    int64_t count; /* deliveries to set; -1: one more */
};

enum claim { CLAIM_NO, CLAIM_DONE, CLAIM_GONE, CLAIM_FAILED };

static void drop_gone(struct claimer *m, struct stream_id id, struct bytes id_text, const struct stream_pending *p)
{
    /* Replicas do the same when they are told to claim what is not there. */
    stream_effect_claim(m->c, m->k.name, m->group, m->g, id_text, p);
    stream_pending_remove(m->g, id);
    m->c->dirty++;
}

/* p: the pending entry, known to the group unless its consumer is NULL. */
static enum claim take(struct claimer *m, struct stream_id id, struct bytes id_text, struct stream_pending *p)
{
    bool created;
    if (p->consumer && m->min_idle_ms && m->c->now_ms - p->delivered_ms < m->min_idle_ms) return CLAIM_NO;
    if (!m->consumer) m->consumer = stream_call_consumer(m->c, &m->k, m->g, m->name, &created);
    if (!m->consumer) return CLAIM_FAILED;
    p->delivered_ms = m->delivered_ms;
    if (m->count >= 0)
        p->count = (uint64_t)m->count;
    else if (!m->just_id)
        p->count++;
    stream_pending_put(m->g, id, m->consumer, p->delivered_ms, p->count);
    p->consumer = m->consumer->name;
    m->consumer->active_ms = m->c->now_ms;
    stream_effect_claim(m->c, m->k.name, m->group, m->g, id_text, p);
    m->c->dirty++;
    if (m->just_id)
        stream_reply_id(m->c, id);
    else
        stream_reply_one(m->c, m->s, id);
    return CLAIM_DONE;
}

/* Looks for the key, which comes first: a miss is told even when an argument is wrong. */
static struct entry *claimer_init(struct claimer *m, struct call *c)
{
    m->c = c;
    m->k = call_key(c, 1);
    m->group = c->argv[2];
    m->name = c->argv[3];
    return call_read(c, &m->k);
}

/* Whether there is the group; false: the error was replied. */
static bool claimer_check(struct call *c, const struct claimer *m, const struct entry *e)
{
    if (e && entry_type(e) != TYPE_STREAM) {
        resp_error(&c->out, ERR_WRONGTYPE);
        return false;
    }
    if (e && stream_group_find(stream_of(e), m->group)) return true;
    stream_reply_no_group(c, c->argv[1], c->argv[2]);
    return false;
}

/* From here on things change. */
static void claimer_edit(struct claimer *m)
{
    m->s = stream_of(call_edit(m->c, &m->k));
    m->g = stream_group_edit(m->s, m->group);
    call_effect_none(m->c);
}

/* ---- XCLAIM -------------------------------------------------------------------------------------------------------*/

struct claim_args {
    bool force;
    struct stream_id last_id;
};

static bool parse_claim_number(struct call *c, size_t arg, int64_t *out, const char *option)
{
    char error[80];
    snprintf(error, sizeof error, "ERR Invalid %s option argument for XCLAIM", option);
    return call_arg_i64(c, arg, out, error);
}

static bool parse_claim(struct call *c, size_t at, struct claimer *m, struct claim_args *a)
{
    for (; at < c->argc; at++) {
        bool more = at + 1 < c->argc;
        if (call_arg_is(c, at, "force")) {
            a->force = true;
        } else if (call_arg_is(c, at, "justid")) {
            m->just_id = true;
        } else if (more && call_arg_is(c, at, "idle")) {
            if (!parse_claim_number(c, ++at, &m->delivered_ms, "IDLE")) return false;
            m->delivered_ms = (int64_t)((uint64_t)c->now_ms - (uint64_t)m->delivered_ms);
        } else if (more && call_arg_is(c, at, "time")) {
            if (!parse_claim_number(c, ++at, &m->delivered_ms, "TIME")) return false;
        } else if (more && call_arg_is(c, at, "retrycount")) {
            if (!parse_claim_number(c, ++at, &m->count, "RETRYCOUNT")) return false;
        } else if (more && call_arg_is(c, at, "lastid")) {
            if (!stream_arg_id(c, ++at, &a->last_id)) return false;
        } else {
            resp_errorf(&c->out, "ERR Unrecognized XCLAIM option '%.*s'", (int)c->argv[at].n, c->argv[at].p);
            return false;
        }
    }
    /* A time that cannot be comes from a clock that is ahead: it counts as now. */
    if (m->delivered_ms < 0 || m->delivered_ms > c->now_ms) m->delivered_ms = c->now_ms;
    return true;
}

static enum claim claim_one(struct claimer *m, size_t arg, bool force)
{
    struct stream_id id;
    struct stream_pending p = {m->c->now_ms, 1, NULL};
    stream_id_parse(m->c->argv[arg], 0, false, &id);
    bool pending = stream_pending_find(m->g, id, &p);
    if (!stream_has(m->s, id)) {
        if (!pending) return CLAIM_NO;
        drop_gone(m, id, m->c->argv[arg], &p);
        return CLAIM_GONE;
    }
    return pending || force ? take(m, id, m->c->argv[arg], &p) : CLAIM_NO;
}

void cmd_xclaim(struct call *c)
{
    struct claimer m = {.count = -1, .delivered_ms = -1};
    struct claim_args a = {.force = false};
    struct stream_id id;
    size_t end = 5, n = 0;
    if (!claimer_check(c, &m, claimer_init(&m, c))) return;
    if (!call_arg_i64(c, 4, &m.min_idle_ms, "ERR Invalid min-idle-time argument for XCLAIM")) return;
    if (m.min_idle_ms < 0) m.min_idle_ms = 0;
    while (end < c->argc && stream_id_parse(c->argv[end], 0, false, &id)) end++;
    if (!parse_claim(c, end, &m, &a)) return;
    claimer_edit(&m);
    bool tell_id = stream_id_cmp(a.last_id, m.g->last_id) > 0;
    if (tell_id) m.g->last_id = a.last_id;
    size_t start = c->out.buf->n, mark = resp_defer(&c->out);
    for (size_t i = 5; i < end; i++) {
        enum claim done = claim_one(&m, i, a.force);
        n += done == CLAIM_DONE;
        if (done != CLAIM_NO) tell_id = false; /* the claim says it */
        if (done == CLAIM_FAILED) {
            c->out.buf->n = start;
            resp_error(&c->out, ERR_OOM_VALUE);
            return;
        }
    }
    resp_defer_array(&c->out, mark, n);
    if (!tell_id) return;
    stream_effect_group_id(c, m.k.name, m.group, m.g);
    c->dirty++;
}

/* ---- XAUTOCLAIM ---------------------------------------------------------------------------------------------------*/

enum { AUTOCLAIM_COUNT = 100, ATTEMPTS_PER_CLAIM = 10 };

static bool parse_autoclaim(struct call *c, struct claimer *m, int64_t *count)
{
    for (size_t at = 6; at < c->argc; at++) {
        if (at + 1 < c->argc && call_arg_is(c, at, "count")) {
            int64_t max = INT64_MAX / (int64_t)sizeof(struct stream_id);
            if (!call_arg_range(c, ++at, 1, max, count, "ERR COUNT must be > 0")) return false;
        } else if (call_arg_is(c, at, "justid")) {
            m->just_id = true;
        } else {
            resp_error(&c->out, ERR_SYNTAX);
            return false;
        }
    }
    return true;
}

/* Walks the pending entries from *id on; *id is then where the next call goes on (0-0: nowhere).  gone gets the ids of
 * those that are no longer in the stream.  False: memory is out. */
static bool autoclaim(struct claimer *m, struct stream_id *id, int64_t count, size_t *claimed, struct buf *gone)
{
    struct tree_pos pos;
    int64_t attempts = count > INT64_MAX / ATTEMPTS_PER_CLAIM ? INT64_MAX : count * ATTEMPTS_PER_CLAIM;
    bool more = stream_pending_seek(&m->g->pending, *id, &pos);
    while (more && attempts-- > 0 && count > 0) {
        struct stream_pending p;
        char text[STREAM_ID_TEXT_MAX];
        *id = stream_pending_id(&m->g->pending, &pos);
        struct bytes id_text = bytes_make(text, stream_id_format(text, *id));
        stream_pending_at(m->g, &pos, &p);
        if (!stream_has(m->s, *id)) {
            drop_gone(m, *id, id_text, &p);
            buf_append(gone, id, sizeof *id);
            count--;
        } else {
            enum claim done = take(m, *id, id_text, &p);
            if (done == CLAIM_FAILED) return false;
            *claimed += done == CLAIM_DONE;
            count -= done == CLAIM_DONE;
        }
        more = stream_id_next(id) && stream_pending_seek(&m->g->pending, *id, &pos);
    }
    *id = more ? stream_pending_id(&m->g->pending, &pos) : STREAM_ID_MIN;
    return true;
}

static void reply_autoclaim(struct call *c, struct stream_id cursor, size_t n, const struct buf *entries,
                            const struct buf *gone)
{
    resp_array(&c->out, 3);
    stream_reply_id(c, cursor);
    resp_array(&c->out, n);
    resp_raw(&c->out, buf_bytes(entries));
    resp_array(&c->out, gone->n / sizeof cursor);
    for (size_t i = 0; i < gone->n; i += sizeof cursor) {
        struct stream_id id;
        memcpy(&id, gone->p + i, sizeof id);
        stream_reply_id(c, id);
    }
}

void cmd_xautoclaim(struct call *c)
{
    struct claimer m = {.count = -1, .delivered_ms = c->now_ms};
    struct stream_id id;
    int64_t count = AUTOCLAIM_COUNT;
    struct buf gone = {0}, entries = {0}, *out = c->out.buf;
    size_t n = 0;
    const struct entry *e = claimer_init(&m, c);
    if (!call_arg_i64(c, 4, &m.min_idle_ms, "ERR Invalid min-idle-time argument for XAUTOCLAIM")) return;
    if (m.min_idle_ms < 0) m.min_idle_ms = 0;
    if (!stream_arg_start(c, 5, &id) || !parse_autoclaim(c, &m, &count)) return;
    if (!claimer_check(c, &m, e)) return;
    claimer_edit(&m);
    c->out.buf = &entries; /* the cursor, known at the end, stands before them */
    bool ok = autoclaim(&m, &id, count, &n, &gone);
    c->out.buf = out;
    if (ok)
        reply_autoclaim(c, id, n, &entries, &gone);
    else
        resp_error(&c->out, ERR_OOM_VALUE);
    buf_deinit(&entries);
    buf_deinit(&gone);
}
