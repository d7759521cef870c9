/* Requests: whole ones are read in one pass over the bytes; one that is cut off leaves its position and the arguments
 * that have arrived in the parser, and is taken up from there. */
#include "base/mem.h"
#include "base/number.h"
#include "resp/resp.h"

#include <assert.h>
#include <stdio.h>

void resp_parser_init(struct resp_parser *p, int64_t bulk_max)
{
    *p = (struct resp_parser){.bulk_max = bulk_max};
}

void resp_parser_deinit(struct resp_parser *p)
{
    resp_request_deinit(&p->partial);
    resp_parser_init(p, p->bulk_max);
}

void resp_request_deinit(struct resp_request *r)
{
    mem_free(r->argv);
    buf_deinit(&r->decoded);
    *r = (struct resp_request){0};
}

static enum status fail(struct resp_parser *p, const char *what)
{
    snprintf(p->error, sizeof p->error, "Protocol error: %s", what);
    return E_CORRUPT;
}

static enum status fail_not_bulk(struct resp_parser *p, char got)
{
    if (got == '\r' || got == '\n' || got == '\0') got = ' '; /* the reply is one line of text */
    snprintf(p->error, sizeof p->error, "Protocol error: expected '$', got '%c'", got);
    return E_CORRUPT;
}

static enum status argv_grow(struct resp_request *r)
{
    size_t cap = r->argv_cap ? r->argv_cap * 2 : 8;
    struct bytes *argv = mem_try_realloc(r->argv, cap * sizeof *argv);
    if (!argv) return E_NOMEM;
    r->argv = argv;
    r->argv_cap = cap;
    return OK;
}

static inline enum status argv_push(struct resp_request *r, const char *s, size_t n)
{
    if (__builtin_expect(r->argc == r->argv_cap, 0)) {
        enum status st = argv_grow(r);
        if (st != OK) return st;
    }
    r->argv[r->argc++] = (struct bytes){s, n};
    return OK;
}

/* ---- Inline requests --------------------------------------------------------------------------------------------- */

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One escape inside double quotes; s points behind the backslash and at least one byte is left. */
static const char *unescape(const char *s, const char *end, char *out)
{
    if (*s == 'x' && end - s >= 3 && hex_digit(s[1]) >= 0 && hex_digit(s[2]) >= 0) {
        *out = (char)(hex_digit(s[1]) << 4 | hex_digit(s[2]));
        return s + 3;
    }
    switch (*s) {
    case 'n': *out = '\n'; break;
    case 'r': *out = '\r'; break;
    case 't': *out = '\t'; break;
    case 'b': *out = '\b'; break;
    case 'a': *out = '\a'; break;
    default: *out = *s;
    }
    return s + 1;
}

/* A quoted part; s points behind the opening quote.  NULL: it is not closed, or something is glued to the closing
 * quote. */
static const char *split_quoted(const char *s, const char *end, char quote, char **out)
{
    while (s < end) {
        if (*s == quote) {
            s++;
            return s == end || is_space(*s) ? s : NULL;
        }
        if (*s == '\\' && end - s >= 2 && quote == '"') {
            s = unescape(s + 1, end, (*out)++);
        } else if (*s == '\\' && end - s >= 2 && s[1] == '\'') {
            *(*out)++ = '\'';
            s += 2;
        } else {
            *(*out)++ = *s++;
        }
    }
    return NULL;
}

/* One argument; s points at its first byte.  NULL: unbalanced quotes. */
static const char *split_word(const char *s, const char *end, char **out)
{
    while (s < end) {
        if (*s == '"' || *s == '\'') return split_quoted(s + 1, end, *s, out);
        if (*s == ' ' || *s == '\n' || *s == '\r' || *s == '\t') return s;
        *(*out)++ = *s++;
    }
    return s;
}

enum status resp_split_line(struct bytes line, struct resp_request *out)
{
    out->argc = 0;
    out->decoded.n = 0;
    /* Decoding never makes anything longer, so the pointers into the buffer stay. */
    enum status st = buf_try_reserve(&out->decoded, line.n + 1);
    if (st != OK) return st;
    char *to = out->decoded.p;
    const char *s = line.p, *end = line.p + line.n;
    for (;;) {
        while (s < end && is_space(*s)) s++;
        if (s == end) break;
        char *from = to;
        s = split_word(s, end, &to);
        if (!s) return E_CORRUPT;
        st = argv_push(out, from, (size_t)(to - from));
        if (st != OK) return st;
    }
    out->decoded.n = (size_t)(to - out->decoded.p);
    return OK;
}

/* ---- Lines ------------------------------------------------------------------------------------------------------- */

/* Offset of `mark` in the line that begins at `pos`; E_AGAIN: not there yet, E_TOO_BIG: the line is longer than
 * allowed. */
static enum status find_line_end(struct resp_parser *p, struct bytes req, size_t pos, char mark, size_t *offset)
{
    size_t from = p->searched > pos ? p->searched : pos;
    const char *hit = from < req.n ? memchr(req.p + from, mark, req.n - from) : NULL;
    p->searched = hit ? (size_t)(hit - req.p) : req.n;
    if (p->searched - pos > RESP_INLINE_MAX) return E_TOO_BIG;
    if (!hit) return E_AGAIN;
    *offset = p->searched;
    return OK;
}

/* The line at the front of req, as an inline request.  *size: its bytes with the line end. */
static enum status read_inline(struct resp_parser *p, struct bytes req, struct resp_request *out, size_t *size)
{
    size_t end;
    enum status st = find_line_end(p, req, 0, '\n', &end);
    if (st == E_TOO_BIG) return fail(p, "too big inline request");
    if (st != OK) return st;
    *size = end + 1;
    if (end && req.p[end - 1] == '\r') end--;
    st = resp_split_line(bytes_make(req.p, end), out);
    return st == E_CORRUPT ? fail(p, "unbalanced quotes in request") : st;
}

void resp_append_quoted(struct buf *out, struct bytes text)
{
    buf_append_char(out, '"');
    for (size_t i = 0; i < text.n; i++) {
        unsigned char ch = (unsigned char)text.p[i];
        switch (ch) {
        case '\\':
        case '"': buf_printf(out, "\\%c", ch); break;
        case '\n': buf_append_cstr(out, "\\n"); break;
        case '\r': buf_append_cstr(out, "\\r"); break;
        case '\t': buf_append_cstr(out, "\\t"); break;
        case '\a': buf_append_cstr(out, "\\a"); break;
        case '\b': buf_append_cstr(out, "\\b"); break;
        default:
            if (ch >= 0x20 && ch < 0x7f)
                buf_append_char(out, (char)ch);
            else
                buf_printf(out, "\\x%02x", ch);
        }
    }
    buf_append_char(out, '"');
}

/* The number behind a type byte at `pos`, in its canonical form only.  *next: offset behind the line.  As in Redis, the
 * byte behind CR is taken for LF unseen. */
static enum status read_number(struct resp_parser *p, struct bytes req, size_t pos, int64_t *v, size_t *next)
{
    size_t end;
    enum status st = find_line_end(p, req, pos, '\r', &end);
    if (st != OK) return st;
    if (end + 1 >= req.n) return E_AGAIN;
    *next = end + 2;
    return parse_i64(bytes_make(req.p + pos + 1, end - pos - 1), v) ? OK : E_INVALID;
}

/* The same for the usual short number: s points behind the type byte.  NULL: look closer. */
static inline const char *read_short_number(const char *s, const char *end, int64_t *v)
{
    if (end - s < 3) return NULL;
    unsigned digit = (unsigned)(s[0] - '0');
    if (digit > 9) return NULL;
    if (s[1] == '\r') {
        *v = digit;
        return s + 3;
    }
    if (digit == 0) return NULL;
    int64_t sum = digit;
    ptrdiff_t limit = end - s - 1 < 9 ? end - s - 1 : 9;
    for (ptrdiff_t i = 1; i < limit; i++) {
        if (s[i] == '\r') {
            *v = sum;
            return s + i + 2;
        }
        digit = (unsigned)(s[i] - '0');
        if (digit > 9) return NULL;
        sum = sum * 10 + digit;
    }
    return NULL;
}

/* ---- Arrays of bulks --------------------------------------------------------------------------------------------- */

static enum status read_header(struct resp_parser *p, struct bytes req, int64_t *count, size_t *next)
{
    const char *s = read_short_number(req.p + 1, req.p + req.n, count);
    enum status st = OK;
    if (s)
        *next = (size_t)(s - req.p);
    else
        st = read_number(p, req, 0, count, next);
    if (st == E_TOO_BIG) return fail(p, "too big mbulk count string");
    if (st == E_INVALID || (st == OK && *count > INT32_MAX)) return fail(p, "invalid multibulk length");
    if (st == OK && p->unauthenticated && *count > RESP_UNAUTHENTICATED_ARGS_MAX)
        return fail(p, "unauthenticated multibulk length");
    return st;
}

/* The length line of the bulk at p->pos; on OK the parser is in the bulk and pos behind the line. */
static enum status read_bulk_header(struct resp_parser *p, struct bytes req)
{
    size_t next = 0;
    int64_t length = 0;
    const char *at = req.p + p->pos, *end = req.p + req.n;
    const char *s = at < end && *at == '$' ? read_short_number(at + 1, end, &length) : NULL;
    enum status st = OK;
    if (s)
        next = (size_t)(s - req.p);
    else
        st = read_number(p, req, p->pos, &length, &next);
    if (st == E_TOO_BIG) return fail(p, "too big bulk count string");
    if (st == E_AGAIN) return st;
    if (*at != '$') return fail_not_bulk(p, *at);
    if (st == E_INVALID || length < 0 || length > p->bulk_max) return fail(p, "invalid bulk length");
    if (p->unauthenticated && length > RESP_UNAUTHENTICATED_BULK_MAX) return fail(p, "unauthenticated bulk length");
    p->bulk_len = length;
    p->in_bulk = true;
    p->pos = next;
    return OK;
}

static enum status read_bulks(struct resp_parser *p, struct bytes req, struct resp_request *out)
{
    while (p->args_left > 0) {
        if (!p->in_bulk) {
            enum status st = read_bulk_header(p, req);
            if (st != OK) return st;
        }
        uint64_t whole = (uint64_t)p->bulk_len + 2, there = req.n - p->pos;
        if (there < whole) {
            p->need = whole - there;
            return E_AGAIN;
        }
        enum status st = argv_push(out, req.p + p->pos, (size_t)p->bulk_len);
        if (st != OK) return st;
        p->pos += whole;
        p->in_bulk = false;
        p->args_left--;
    }
    return OK;
}

/* A whole request of the usual form, with nothing of it kept in memory on the way.  False: it is cut off, wrong or only
 * unusual, and is to be read from its beginning; p and *size are as they were. */
static bool read_usual(const struct resp_parser *p, struct bytes req, struct resp_request *out, size_t *size)
{
    const char *s = req.p, *end = req.p + req.n;
    int64_t count, length;
    if (p->unauthenticated || !(s = read_short_number(s + 1, end, &count))) return false;
    for (out->argc = 0; count > 0; count--) {
        if (end - s < 4 || *s != '$' || !(s = read_short_number(s + 1, end, &length))) return false;
        if (length > p->bulk_max || end - s < length + 2 || argv_push(out, s, (size_t)length) != OK) return false;
        s += length + 2;
    }
    *size = (size_t)(s - req.p);
    return out->argc > 0;
}

/* ---- Setting aside and taking up --------------------------------------------------------------------------------- */

static void swap_argv(struct resp_request *a, struct resp_request *b)
{
    struct bytes *argv = a->argv;
    size_t cap = a->argv_cap, argc = a->argc;
    a->argv = b->argv;
    a->argv_cap = b->argv_cap;
    a->argc = b->argc;
    b->argv = argv;
    b->argv_cap = cap;
    b->argc = argc;
}

/* The arguments that have arrived go into the parser: `out` may serve another connection in between. */
static void set_aside(struct resp_parser *p, const char *start, struct resp_request *out)
{
    p->base = start;
    if (out->argc) swap_argv(&p->partial, out);
    out->argc = 0;
}

static void take_up(struct resp_parser *p, const char *start, struct resp_request *out)
{
    if (p->partial.argc == 0) return;
    out->argc = 0;
    swap_argv(&p->partial, out);
    if (start != p->base)
        for (size_t i = 0; i < out->argc; i++)
            out->argv[i].p = start + ((uintptr_t)out->argv[i].p - (uintptr_t)p->base);
    enum { KEEP = 32 }; /* what an idle connection may hold on to */
    if (p->partial.argv_cap > KEEP) resp_request_deinit(&p->partial);
}

/* Forgets the request that was begun, ready for the next. */
static void start_over(struct resp_parser *p)
{
    p->pos = 0;
    p->searched = 0;
    p->args_left = 0;
    p->in_bulk = false;
}

/* Reads on in the request at the front of req.  E_NOT_FOUND: it was an empty one, *size bytes long. */
static enum status read_one(struct resp_parser *p, struct bytes req, struct resp_request *out, size_t *size)
{
    enum status st;
    if (p->args_left > 0) {
        take_up(p, req.p, out);
    } else if (req.n == 0) {
        return E_AGAIN;
    } else if (req.p[0] != '*') {
        st = read_inline(p, req, out, size);
        return st == OK && out->argc == 0 ? E_NOT_FOUND : st;
    } else {
        int64_t count = 0;
        if (read_usual(p, req, out, size)) return OK;
        out->argc = 0;
        st = read_header(p, req, &count, size);
        if (st != OK) return st;
        if (count <= 0) return E_NOT_FOUND;
        p->args_left = count;
        p->pos = *size;
    }
    st = read_bulks(p, req, out);
    if (st == E_AGAIN) set_aside(p, req.p, out);
    *size = p->pos;
    return st;
}

enum status resp_parse_request(struct resp_parser *p, struct bytes in, struct resp_request *out)
{
    size_t skipped = 0, size = 0;
    enum status st;
    p->need = 0;
    out->argc = 0;
    while ((st = read_one(p, bytes_make(in.p + skipped, in.n - skipped), out, &size)) == E_NOT_FOUND) {
        skipped += size;
        start_over(p);
    }
    out->size = skipped;
    if (st == OK) {
        out->size += size;
        start_over(p);
    }
    return st;
}
