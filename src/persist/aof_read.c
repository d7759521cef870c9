/* aof_read.c: the commands of one AOF file, each with its offset; and the filter of the stream on its way into one. */
#include "persist/aof.h"

#include "base/mem.h"
#include "base/number.h"

#include <errno.h>
#include <unistd.h>

enum { CHUNK = 1024 * 1024, HEADER_MAX = 32 };

/* ---- reading ----------------------------------------------------------------------------------------------------- */

void aof_reader_init(struct aof_reader *r, int fd, uint64_t offset, struct bytes rest)
{
    *r = (struct aof_reader){.fd = fd, .offset = offset, .next = offset};
    buf_append_bytes(&r->in, rest);
    resp_parser_init(&r->parser, INT64_MAX / 2);
}

void aof_reader_deinit(struct aof_reader *r)
{
    buf_deinit(&r->in);
    resp_parser_deinit(&r->parser);
}

/* Gets more input.  E_CLOSED: there is none. E_AGAIN: what is there must not move. */
static enum status more(struct aof_reader *r, size_t at_least)
{
    if (r->eof) return E_CLOSED;
    if (r->keep) return E_AGAIN;
    buf_drop_front(&r->in, r->pos);
    r->pos = 0;
    /* What a header announces is believed as it arrives only. */
    size_t want = CHUNK;
    if (at_least > want && r->in.n >= want) want = at_least < r->in.n ? at_least : r->in.n;
    if (buf_try_reserve(&r->in, want) != OK) {
        errno = ENOMEM;
        return E_NOMEM;
    }
    ssize_t got;
    do got = read(r->fd, r->in.p + r->in.n, want);
    while (got < 0 && errno == EINTR);
    if (got < 0) return E_IO;
    r->in.n += (size_t)got;
    r->eof = got == 0;
    return r->eof ? E_CLOSED : OK;
}

static struct bytes input(const struct aof_reader *r)
{
    return bytes_make(r->in.p + r->pos, r->in.n - r->pos);
}

/* The one after `st` of more(), with an item begun. */
static enum aof_item cut_off(enum status st)
{
    return st == E_CLOSED ? AOF_TRUNCATED : st == E_AGAIN ? AOF_HOLD : AOF_FAILED;
}

static enum aof_item annotation(struct aof_reader *r)
{
    for (;;) {
        struct bytes in = input(r);
        const char *end = in.n ? memchr(in.p, '\n', in.n) : NULL;
        if (end) {
            size_t n = (size_t)(end - in.p);
            r->next += n + 1;
            r->pos += n + 1;
            if (n && in.p[n - 1] == '\r') n--;
            r->line = bytes_make(in.p, n);
            return n < AOF_LINE_MAX ? AOF_ANNOTATION : AOF_BAD;
        }
        if (in.n > AOF_LINE_MAX) return AOF_BAD;
        enum status st = more(r, 0);
        if (st != OK) return cut_off(st);
    }
}

/* The count of a command is at least one; the parser passes over empty ones, which no AOF has. */
static bool count_is_good(struct bytes in)
{
    return in.n < 2 || (in.p[1] >= '1' && in.p[1] <= '9');
}

static enum aof_item command(struct aof_reader *r, struct resp_request *req)
{
    for (;;) {
        struct bytes in = input(r);
        if (!count_is_good(in)) return AOF_BAD;
        enum status st = in.n < 2 ? E_AGAIN : resp_parse_request(&r->parser, in, req);
        if (st == OK) {
            r->next += req->size;
            r->pos += req->size;
            return AOF_COMMAND;
        }
        if (st == E_CORRUPT) return AOF_BAD;
        if (st == E_AGAIN) st = more(r, r->parser.need);
        if (st == E_NOMEM) errno = ENOMEM;
        if (st != OK) return cut_off(st);
    }
}

enum aof_item aof_reader_next(struct aof_reader *r, struct resp_request *req)
{
    r->offset = r->next;
    if (r->pos == r->in.n) {
        enum status st = more(r, 0);
        if (st == E_CLOSED) return AOF_END;
        if (st != OK) return cut_off(st);
    }
    switch (r->in.p[r->pos]) {
    case '*': return command(r, req);
    case '#': return annotation(r);
    default: return AOF_BAD;
    }
}

/* ---- annotations ------------------------------------------------------------------------------------------------- */

static bool after(struct bytes *line, struct bytes prefix)
{
    if (line->n < prefix.n || memcmp(line->p, prefix.p, prefix.n) != 0) return false;
    *line = bytes_make(line->p + prefix.n, line->n - prefix.n);
    return true;
}

bool aof_parse_position(struct bytes line, char id[41], uint64_t *offset)
{
    int64_t v;
    if (!after(&line, BYTES("#POS:")) || line.n < 42 || line.p[40] != ':') return false;
    for (int i = 0; i < 40; i++)
        if (!((line.p[i] >= '0' && line.p[i] <= '9') || (line.p[i] >= 'a' && line.p[i] <= 'f'))) return false;
    if (!parse_i64(bytes_make(line.p + 41, line.n - 41), &v) || v < 0) return false;
    memcpy(id, line.p, 40);
    id[40] = '\0';
    *offset = (uint64_t)v;
    return true;
}

bool aof_parse_time(struct bytes line, int64_t *unix_s)
{
    return after(&line, BYTES("#TS:")) && parse_i64(line, unix_s);
}

/* ---- the filter -------------------------------------------------------------------------------------------------- */

enum { NAME_MAX_SEEN = 8 };

static enum aof_kind kind_of(struct aof_filter *f, struct bytes name)
{
    switch (name.n) {
    case 4:
        if (bytes_ieq(name, BYTES("PING"))) return AOF_NO_DATA;
        if (bytes_ieq(name, BYTES("EXEC"))) f->in_multi = false;
        return AOF_DATA;
    case 5:
        if (bytes_ieq(name, BYTES("MULTI"))) f->in_multi = true;
        return AOF_DATA;
    case 7: return bytes_ieq(name, BYTES("PUBLISH")) ? AOF_NO_DATA : AOF_DATA;
    case 8: return bytes_ieq(name, BYTES("REPLCONF")) || bytes_ieq(name, BYTES("SPUBLISH")) ? AOF_NO_DATA : AOF_DATA;
    default: return AOF_DATA;
    }
}

/* The line of a type byte and a number at in[*at].  1: it was read; 0: it is not all there; -1: it is none. */
static int read_line(struct bytes in, size_t *at, char type, uint64_t *v)
{
    size_t i = *at;
    if (i >= in.n) return 0;
    if (in.p[i++] != type) return -1;
    for (*v = 0; i < in.n && in.p[i] != '\r'; i++) {
        if (in.p[i] < '0' || in.p[i] > '9' || i - *at > HEADER_MAX / 2) return -1;
        *v = *v * 10 + (unsigned)(in.p[i] - '0');
    }
    if (i + 2 > in.n) return 0;
    *at = i + 2;
    return 1;
}

/* The beginning of a command as far as its name.  1: known, and *used bytes were seen; 0: too short; -1: no command. */
static int read_begin(struct aof_filter *f, struct bytes in, size_t *used)
{
    uint64_t args, n;
    size_t at = 0;
    int got = read_line(in, &at, '*', &args);
    if (got == 1) got = args ? read_line(in, &at, '$', &n) : -1;
    if (got != 1) return got;
    if (n <= NAME_MAX_SEEN && at + n > in.n) return 0;
    f->kind = n <= NAME_MAX_SEEN ? kind_of(f, bytes_make(in.p + at, n)) : AOF_DATA;
    f->in_command = true;
    f->in_length = false;
    f->skip = n + 2;
    f->args = args - 1;
    *used = at;
    return 1;
}

/* No stream has such bytes; they end with their line. */
static void begin_junk(struct aof_filter *f)
{
    f->in_command = f->in_length = f->negative = true;
    f->kind = AOF_NO_DATA;
    f->args = f->skip = 0;
}

size_t aof_filter_begin(struct aof_filter *f, const char *p, size_t n)
{
    size_t used = 0;
    f->negative = false;
    if (f->head_n == 0) {
        int got = read_begin(f, bytes_make(p, n), &used);
        if (got == 1) return used;
        if (got < 0) {
            begin_junk(f);
            return 0;
        }
    }
    size_t had = f->head_n, room = sizeof f->head - had, take = n < room ? n : room;
    memcpy(f->head + had, p, take);
    int got = read_begin(f, bytes_make(f->head, had + take), &used);
    if (got == 1 && used >= had) {
        f->head_n = (unsigned)used;
        return used - had;
    }
    if (got == 1) { /* the name itself was cut in two: the part of it that was seen is passed already */
        f->head_n = (unsigned)had;
        f->skip -= had - used;
        return 0;
    }
    if (got < 0 || take < n) {
        begin_junk(f);
        f->head_n = (unsigned)had;
        return 0;
    }
    f->head_n = (unsigned)(had + take);
    return take;
}

/* A length line that may come byte by byte; gives the bytes taken. */
static size_t pass_length(struct aof_filter *f, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] >= '0' && p[i] <= '9') f->length = f->length * 10 + (unsigned)(p[i] - '0');
        if (p[i] != '\n') continue;
        f->in_length = false;
        f->skip = f->length + 2;
        return i + 1;
    }
    return n;
}

static size_t pass_junk(struct aof_filter *f, const char *p, size_t n)
{
    const char *end = memchr(p, '\n', n);
    if (!end) return n;
    f->in_command = f->in_length = f->negative = false;
    return (size_t)(end - p) + 1;
}

size_t aof_filter_pass(struct aof_filter *f, const char *p, size_t n)
{
    size_t at = 0;
    f->head_n = 0;
    if (f->negative) return pass_junk(f, p, n);
    while (at < n) {
        if (f->in_length) {
            at += pass_length(f, p + at, n - at);
            continue;
        }
        uint64_t step = f->skip < n - at ? f->skip : n - at;
        at += step;
        f->skip -= step;
        if (f->skip) return at;
        if (f->args == 0) {
            f->in_command = false;
            return at;
        }
        f->args--;
        f->in_length = true;
        f->length = 0;
    }
    return at;
}
