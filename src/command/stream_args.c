#include "command/stream_args.h"

#include "base/number.h"

#include <errno.h>
#include <stdlib.h>

static const char ERR_STREAM_ID[] = "ERR Invalid stream ID specified as stream command argument";

/* An unsigned number as Redis reads it in an id: what strtoull() takes, but not "-5". */
static bool parse_part(const char *text, uint64_t *out)
{
    int64_t number;
    if (parse_i64(bytes_of(text), &number)) {
        *out = (uint64_t)number;
        return number >= 0;
    }
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return errno == 0 && *text && !*end;
}

/* open_seq (may be NULL): "5-*" is fine, and was it. */
static bool parse_id(struct bytes text, uint64_t missing_seq, bool special, struct stream_id *id, bool *open_seq)
{
    char copy[128];
    if (open_seq) *open_seq = false;
    if (text.n >= sizeof copy) return false;
    if (text.n == 1 && (text.p[0] == '-' || text.p[0] == '+')) {
        *id = text.p[0] == '-' ? STREAM_ID_MIN : STREAM_ID_MAX;
        return special;
    }
    if (text.n) memcpy(copy, text.p, text.n);
    copy[text.n] = 0;
    char *seq = strchr(copy, '-');
    if (seq) *seq++ = 0;
    if (!parse_part(copy, &id->ms)) return false;
    id->seq = missing_seq;
    if (!seq) return true;
    if (open_seq && strcmp(seq, "*") == 0) {
        *open_seq = true;
        id->seq = 0;
        return true;
    }
    return parse_part(seq, &id->seq);
}

bool stream_id_parse(struct bytes text, uint64_t missing_seq, bool special, struct stream_id *id)
{
    return parse_id(text, missing_seq, special, id, NULL);
}

static bool reply_unless(struct call *c, bool ok, const char *error)
{
    if (!ok) resp_error(&c->out, error);
    return ok;
}

bool stream_arg_id(struct call *c, size_t arg, struct stream_id *id)
{
    return reply_unless(c, stream_id_parse(c->argv[arg], 0, false, id), ERR_STREAM_ID);
}

bool stream_arg_add_id(struct call *c, size_t arg, struct stream_id *id, bool *seq_given)
{
    bool open_seq, ok = parse_id(c->argv[arg], 0, false, id, &open_seq);
    *seq_given = !open_seq;
    return reply_unless(c, ok, ERR_STREAM_ID);
}

static bool parse_interval(struct call *c, size_t arg, uint64_t missing_seq, struct stream_id *id, bool *exclusive)
{
    struct bytes text = c->argv[arg];
    *exclusive = text.n > 1 && text.p[0] == '(';
    if (*exclusive) text = bytes_make(text.p + 1, text.n - 1);
    return reply_unless(c, stream_id_parse(text, missing_seq, !*exclusive, id), ERR_STREAM_ID);
}

bool stream_arg_start(struct call *c, size_t arg, struct stream_id *id)
{
    bool exclusive;
    if (!parse_interval(c, arg, 0, id, &exclusive)) return false;
    return reply_unless(c, !exclusive || stream_id_next(id), "ERR invalid start ID for the interval");
}

bool stream_arg_end(struct call *c, size_t arg, struct stream_id *id)
{
    bool exclusive;
    if (!parse_interval(c, arg, UINT64_MAX, id, &exclusive)) return false;
    return reply_unless(c, !exclusive || stream_id_prev(id), "ERR invalid end ID for the interval");
}

/* ---- replies ------------------------------------------------------------------------------------------------------*/

void stream_reply_id(struct call *c, struct stream_id id)
{
    char text[STREAM_ID_TEXT_MAX];
    resp_bulk(&c->out, bytes_make(text, stream_id_format(text, id)));
}

void stream_reply_entry(struct call *c, struct stream_iter *it, struct stream_id id, size_t fields)
{
    struct element field, value;
    resp_array(&c->out, 2);
    stream_reply_id(c, id);
    resp_array(&c->out, 2 * fields);
    while (fields--) {
        stream_iter_field(it, &field, &value);
        resp_bulk(&c->out, field.text);
        resp_bulk(&c->out, value.text);
    }
}

bool stream_reply_one(struct call *c, const struct stream *s, struct stream_id id)
{
    struct stream_iter it;
    struct stream_id found;
    size_t fields;
    stream_iter_init(&it, s, id, id, false);
    if (!stream_iter_next(&it, &found, &fields)) return false;
    stream_reply_entry(c, &it, found, fields);
    return true;
}

size_t stream_reply_range(struct call *c, const struct stream *s, struct stream_id start, struct stream_id end,
                          size_t count, bool reverse)
{
    struct stream_iter it;
    struct stream_id id;
    size_t fields, n = 0, mark = resp_defer(&c->out);
    stream_iter_init(&it, s, start, end, reverse);
    while ((count == 0 || n < count) && stream_iter_next(&it, &id, &fields)) {
        stream_reply_entry(c, &it, id, fields);
        n++;
    }
    resp_defer_array(&c->out, mark, n);
    return n;
}

void stream_reply_no_group(struct call *c, struct bytes key, struct bytes group)
{
    resp_errorf(&c->out, "NOGROUP No such key '%.*s' or consumer group '%.*s'", (int)key.n, key.p, (int)group.n,
                group.p);
}

/* ---- effects ------------------------------------------------------------------------------------------------------*/

static struct bytes number_text(char text[24], int64_t v)
{
    return bytes_make(text, format_i64(text, v));
}

void stream_effect_claim(struct call *c, struct bytes key, struct bytes group, const struct stream_group *g,
                         struct bytes id_text, const struct stream_pending *p)
{
    char ms[24], count[24], last[STREAM_ID_TEXT_MAX];
    struct bytes argv[] = {BYTES("XCLAIM"),
                           key,
                           group,
                           tree_box_key(p->consumer),
                           BYTES("0"),
                           id_text,
                           BYTES("TIME"),
                           number_text(ms, p->delivered_ms),
                           BYTES("RETRYCOUNT"),
                           number_text(count, (int64_t)p->count),
                           BYTES("FORCE"),
                           BYTES("JUSTID"),
                           BYTES("LASTID"),
                           bytes_make(last, stream_id_format(last, g->last_id))};
    call_effect(c, sizeof argv / sizeof argv[0], argv);
}

void stream_effect_group_id(struct call *c, struct bytes key, struct bytes group, const struct stream_group *g)
{
    char last[STREAM_ID_TEXT_MAX], read[24];
    call_effect_cstr(c, 7, BYTES("XGROUP"), BYTES("SETID"), key, group,
                     bytes_make(last, stream_id_format(last, g->last_id)), BYTES("ENTRIESREAD"),
                     number_text(read, g->entries_read));
}

struct stream_consumer *stream_call_consumer(struct call *c, const struct key *k, struct stream_group *g,
                                             struct bytes name, bool *created)
{
    struct stream_consumer *consumer = stream_consumer_edit(g, name);
    *created = !consumer;
    if (*created) {
        consumer = stream_consumer_create(g, name, c->now_ms);
        if (!consumer) return NULL;
        call_side_changed(c, k, NOTIFY_STREAM, "xgroup-createconsumer");
    }
    consumer->seen_ms = c->now_ms;
    return consumer;
}
