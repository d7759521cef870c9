#include "command/collection.h"

void growing_finish(struct call *c, struct growing *g, uint64_t length)
{
    if (!g->is_new) return;
    if (length)
        call_put(c, &g->key, g->e);
    else
        entry_free(g->e);
}

void collection_changed(struct call *c, const struct key *k, enum notify_class cls, const char *event, uint64_t n)
{
    c->dirty += n - 1;
    call_changed(c, k, cls, event);
}

void collection_out_of_memory(struct call *c, size_t args_done)
{
    if (c->dirty) call_effect(c, args_done, c->argv);
    resp_error(&c->out, ERR_OOM_VALUE);
}

static const char ERR_RANGE[] = "ERR value is out of range";

bool collection_sample_args(struct call *c, const char *with, struct sample_args *out)
{
    *out = (struct sample_args){.count_given = c->argc > 2, .with_given = c->argc > 3};
    /* SRANDMEMBER counts its arguments first, the others read the count first. */
    bool surplus = c->argc > (with ? 4 : 3);
    if (surplus && !with) {
        resp_error(&c->out, ERR_SYNTAX);
        return false;
    }
    if (!out->count_given) return true;
    if (!call_arg_range(c, 2, -INT64_MAX, INT64_MAX, &out->count, NULL)) return false;
    if (surplus || (out->with_given && !call_arg_is(c, 3, with))) {
        resp_error(&c->out, ERR_SYNTAX);
        return false;
    }
    if (out->with_given && (out->count < -INT64_MAX / 2 || out->count > INT64_MAX / 2)) {
        resp_error(&c->out, ERR_RANGE);
        return false;
    }
    return true;
}

bool collection_sample_fits(struct call *c, const struct sample_args *args)
{
    if (args->count >= -INT32_MAX) return true;
    resp_error(&c->out, ERR_RANGE);
    return false;
}

bool collection_reply_room(struct call *c, size_t mark, size_t size)
{
    if (buf_try_reserve(c->out.buf, size) == OK) return true;
    c->out.buf->n = mark;
    resp_error(&c->out, ERR_OOM_VALUE);
    return false;
}

bool collection_scan_begin(struct call *c, enum value_type type, struct collection_scan *s, struct entry **e)
{
    struct key k = call_key(c, 1);
    if (!scan_parse_cursor(c, 2, &s->options) || !call_read_type(c, &k, type, e)) return false;
    /* As in Redis, nobody looks at the options when the key is not there. */
    if (!*e) {
        scan_reply_empty(c);
        return false;
    }
    if (!scan_parse_options(c, 3, false, &s->options)) return false;
    s->reply = scan_reply_begin(c);
    return true;
}
