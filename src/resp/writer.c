/* Replies and requests, written into a buffer. */
#include "base/number.h"
#include "resp/resp.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

enum { HEADER_MAX = 32 }; /* type byte, a 64-bit number, CR LF */

/* Room for n bytes behind what is written. */
static inline char *room(struct buf *b, size_t n)
{
    if (__builtin_expect(b->cap - b->n < n, 0)) buf_reserve(b, n);
    return b->p + b->n;
}

#define append_literal(b, lit) append_short(b, lit, sizeof(lit) - 1)

static inline void append_short(struct buf *b, const char *s, size_t n)
{
    memcpy(room(b, n), s, n);
    b->n += n;
}

/* type, number, CR LF; at most HEADER_MAX bytes. */
static inline size_t put_header(char *to, char type, uint64_t v)
{
    size_t n = 2;
    to[0] = type;
    if (v < 10)
        to[1] = (char)('0' + v);
    else
        n = 1 + format_u64(to + 1, v);
    to[n] = '\r';
    to[n + 1] = '\n';
    return n + 2;
}

static inline void append_header(struct buf *b, char type, uint64_t v)
{
    b->n += put_header(room(b, HEADER_MAX), type, v);
}

static inline void append_bulk(struct buf *b, char type, struct bytes s)
{
    char *to = room(b, HEADER_MAX + s.n + 2);
    size_t n = put_header(to, type, s.n);
    if (s.n) memcpy(to + n, s.p, s.n);
    n += s.n;
    to[n] = '\r';
    to[n + 1] = '\n';
    b->n += n + 2;
}

static void append_i64(struct buf *b, int64_t v)
{
    if (v >= 0) {
        append_header(b, ':', (uint64_t)v);
        return;
    }
    char *to = room(b, HEADER_MAX);
    *to = ':';
    size_t n = 1 + format_i64(to + 1, v);
    memcpy(to + n, "\r\n", 2);
    b->n += n + 2;
}

/* One line of text behind a type byte: what would end the line early becomes a space. */
static void append_line(struct buf *b, char type, struct bytes text)
{
    char *to = room(b, text.n + 3);
    *to++ = type;
    for (size_t i = 0; i < text.n; i++) *to++ = text.p[i] == '\r' || text.p[i] == '\n' ? ' ' : text.p[i];
    memcpy(to, "\r\n", 2);
    b->n += text.n + 3;
}

/* ---- Requests ---------------------------------------------------------------------------------------------------- */

void resp_request_begin(struct buf *b, size_t argc)
{
    append_header(b, '*', argc);
}

void resp_request_arg(struct buf *b, struct bytes arg)
{
    append_bulk(b, '$', arg);
}

void resp_request_arg_i64(struct buf *b, int64_t v)
{
    char text[24];
    append_bulk(b, '$', bytes_make(text, format_i64(text, v)));
}

void resp_request_append(struct buf *b, const struct bytes *argv, size_t argc)
{
    resp_request_begin(b, argc);
    for (size_t i = 0; i < argc; i++) resp_request_arg(b, argv[i]);
}

void resp_request_cstr(struct buf *b, size_t argc, ...)
{
    va_list ap;
    va_start(ap, argc);
    resp_request_begin(b, argc);
    for (size_t i = 0; i < argc; i++) resp_request_arg(b, bytes_of(va_arg(ap, const char *)));
    va_end(ap);
}

/* ---- Simple replies ---------------------------------------------------------------------------------------------- */

void resp_status(struct resp_out *o, const char *text)
{
    append_line(o->buf, '+', bytes_of(text));
}

void resp_ok(struct resp_out *o)
{
    append_literal(o->buf, "+OK\r\n");
}

void resp_error_bytes(struct resp_out *o, struct bytes text)
{
    while (text.n && (text.p[text.n - 1] == '\r' || text.p[text.n - 1] == '\n')) text.n--;
    append_line(o->buf, '-', text);
}

void resp_error_uncut(struct resp_out *o, struct bytes text)
{
    append_line(o->buf, '-', text);
}

void resp_error(struct resp_out *o, const char *text)
{
    resp_error_bytes(o, bytes_of(text));
}

void resp_errorf(struct resp_out *o, const char *fmt, ...)
{
    struct buf text = {0};
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&text, fmt, ap);
    va_end(ap);
    resp_error_bytes(o, buf_bytes(&text));
    buf_deinit(&text);
}

void resp_i64(struct resp_out *o, int64_t v)
{
    append_i64(o->buf, v);
}

void resp_bulk(struct resp_out *o, struct bytes b)
{
    append_bulk(o->buf, '$', b);
}

void resp_bulk_cstr(struct resp_out *o, const char *s)
{
    append_bulk(o->buf, '$', bytes_of(s));
}

void resp_bulk_i64(struct resp_out *o, int64_t v)
{
    resp_request_arg_i64(o->buf, v);
}

void resp_bulkf(struct resp_out *o, const char *fmt, ...)
{
    struct buf text = {0};
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&text, fmt, ap);
    va_end(ap);
    append_bulk(o->buf, '$', buf_bytes(&text));
    buf_deinit(&text);
}

void resp_null(struct resp_out *o)
{
    if (o->version >= 3)
        append_literal(o->buf, "_\r\n");
    else
        append_literal(o->buf, "$-1\r\n");
}

void resp_null_array(struct resp_out *o)
{
    if (o->version >= 3)
        append_literal(o->buf, "_\r\n");
    else
        append_literal(o->buf, "*-1\r\n");
}

void resp_double(struct resp_out *o, double v)
{
    char text[NUMBER_TEXT_MAX];
    struct bytes b = bytes_make(text, format_double(text, v));
    if (o->version >= 3)
        append_line(o->buf, ',', b);
    else
        append_bulk(o->buf, '$', b);
}

void resp_bool(struct resp_out *o, bool v)
{
    if (o->version >= 3)
        append_short(o->buf, v ? "#t\r\n" : "#f\r\n", 4);
    else
        append_short(o->buf, v ? ":1\r\n" : ":0\r\n", 4);
}

void resp_verbatim(struct resp_out *o, const char *format, struct bytes b)
{
    if (o->version < 3) {
        append_bulk(o->buf, '$', b);
        return;
    }
    assert(strlen(format) == 3);
    append_header(o->buf, '=', b.n + 4);
    append_short(o->buf, format, 3);
    append_literal(o->buf, ":");
    buf_append_bytes(o->buf, b);
    append_literal(o->buf, "\r\n");
}

void resp_big_number(struct resp_out *o, struct bytes digits)
{
    if (o->version >= 3)
        append_line(o->buf, '(', digits);
    else
        append_bulk(o->buf, '$', digits);
}

void resp_raw(struct resp_out *o, struct bytes encoded)
{
    buf_append_bytes(o->buf, encoded);
}

/* ---- Aggregates -------------------------------------------------------------------------------------------------- */

static size_t put_map(const struct resp_out *o, char *to, size_t n)
{
    return o->version >= 3 ? put_header(to, '%', n) : put_header(to, '*', 2 * n);
}

static size_t put_set(const struct resp_out *o, char *to, size_t n)
{
    return put_header(to, o->version >= 3 ? '~' : '*', n);
}

void resp_array(struct resp_out *o, size_t n)
{
    append_header(o->buf, '*', n);
}

void resp_map(struct resp_out *o, size_t n)
{
    o->buf->n += put_map(o, room(o->buf, HEADER_MAX), n);
}

void resp_set(struct resp_out *o, size_t n)
{
    o->buf->n += put_set(o, room(o->buf, HEADER_MAX), n);
}

void resp_push(struct resp_out *o, size_t n)
{
    append_header(o->buf, o->version >= 3 ? '>' : '*', n);
}

size_t resp_defer(struct resp_out *o)
{
    return o->buf->n;
}

static void insert_header(struct resp_out *o, size_t mark, const char *header, size_t n)
{
    struct buf *b = o->buf;
    assert(mark <= b->n);
    room(b, n);
    memmove(b->p + mark + n, b->p + mark, b->n - mark);
    memcpy(b->p + mark, header, n);
    b->n += n;
}

void resp_defer_array(struct resp_out *o, size_t mark, size_t n)
{
    char header[HEADER_MAX];
    insert_header(o, mark, header, put_header(header, '*', n));
}

void resp_defer_map(struct resp_out *o, size_t mark, size_t n)
{
    char header[HEADER_MAX];
    insert_header(o, mark, header, put_map(o, header, n));
}

void resp_defer_set(struct resp_out *o, size_t mark, size_t n)
{
    char header[HEADER_MAX];
    insert_header(o, mark, header, put_set(o, header, n));
}
