#include "pool/memcached.h"

#include "base/mem.h"

#include <assert.h>
#include <stdio.h>

enum shape {
    SHAPE_KEYS,    /* key... */
    SHAPE_STORE,   /* key flags exptime bytes [noreply], and data */
    SHAPE_CAS,     /* key flags exptime bytes unique [noreply], and data */
    SHAPE_NUMBER,  /* key number [noreply] */
    SHAPE_KEY,     /* key [noreply] */
    SHAPE_NOTHING, /* */
};

static const struct {
    const char *name;
    enum shape shape;
} commands[MC_COMMAND_COUNT] = {
    [MC_GET] = {"get", SHAPE_KEYS},
    [MC_GETS] = {"gets", SHAPE_KEYS},
    [MC_SET] = {"set", SHAPE_STORE},
    [MC_ADD] = {"add", SHAPE_STORE},
    [MC_REPLACE] = {"replace", SHAPE_STORE},
    [MC_APPEND] = {"append", SHAPE_STORE},
    [MC_PREPEND] = {"prepend", SHAPE_STORE},
    [MC_CAS] = {"cas", SHAPE_CAS},
    [MC_DELETE] = {"delete", SHAPE_KEY},
    [MC_INCR] = {"incr", SHAPE_NUMBER},
    [MC_DECR] = {"decr", SHAPE_NUMBER},
    [MC_TOUCH] = {"touch", SHAPE_NUMBER},
    [MC_VERSION] = {"version", SHAPE_NOTHING},
    [MC_QUIT] = {"quit", SHAPE_NOTHING},
};

const char *mc_command_name(enum mc_command c)
{
    return commands[c].name;
}

void mc_request_deinit(struct mc_request *r)
{
    mem_free(r->keys);
    *r = (struct mc_request){0};
}

static enum status refuse(struct mc_request_parser *p, const char *line)
{
    snprintf(p->error, sizeof p->error, "%s", line);
    return E_CORRUPT;
}

/* Takes the next word off the front of the line; empty: there is none. */
static struct bytes next_word(struct bytes *line)
{
    while (line->n > 0 && *line->p == ' ') line->p++, line->n--;
    const char *end = line->n > 0 ? memchr(line->p, ' ', line->n) : NULL;
    struct bytes word = bytes_make(line->p, end ? (size_t)(end - line->p) : line->n);
    line->p += word.n, line->n -= word.n;
    return word;
}

/* Decimal digits, perhaps behind a '-'. */
static bool read_number(struct bytes word, bool may_be_negative, uint64_t *out)
{
    uint64_t v = 0;
    size_t i = may_be_negative && word.n > 0 && word.p[0] == '-';
    if (i == word.n) return false;
    for (; i < word.n; i++) {
        unsigned digit = (unsigned)(uint8_t)word.p[i] - '0';
        if (digit > 9 || v > (UINT64_MAX - digit) / 10) return false;
        v = v * 10 + digit;
    }
    *out = v;
    return true;
}

static enum status add_key(struct mc_request_parser *p, struct mc_request *r, struct bytes key)
{
    if (key.n > MC_KEY_MAX) return refuse(p, "CLIENT_ERROR line format: the key is too long");
    if (memchr(key.p, '\r', key.n) || memchr(key.p, 0, key.n)) return refuse(p, "CLIENT_ERROR bad byte in a key");
    if (r->keys_n == r->keys_cap) {
        size_t cap = r->keys_cap ? 2 * r->keys_cap : 8;
        struct bytes *keys = mem_try_realloc(r->keys, cap * sizeof *keys);
        if (!keys) return E_NOMEM;
        r->keys = keys, r->keys_cap = cap;
    }
    r->keys[r->keys_n++] = key;
    return OK;
}

static enum status read_keys(struct mc_request_parser *p, struct bytes line, struct mc_request *r)
{
    for (struct bytes key; (key = next_word(&line)).n > 0;) {
        enum status st = add_key(p, r, key);
        if (st != OK) return st;
    }
    return r->keys_n > 0 ? OK : refuse(p, "ERROR");
}

/* Nothing more on the line, or "noreply". */
static enum status read_rest(struct mc_request_parser *p, struct bytes line, struct mc_request *r)
{
    struct bytes word = next_word(&line);
    if (word.n == 0) return OK;
    r->noreply = commands[r->command].shape != SHAPE_NOTHING && bytes_eq(word, BYTES("noreply"));
    return r->noreply && next_word(&line).n == 0 ? OK : refuse(p, "CLIENT_ERROR bad command line format");
}

static enum status read_store(struct mc_request_parser *p, struct bytes *line, struct mc_request *r, uint64_t *data)
{
    uint64_t flags, expires, unique;
    if (!read_number(next_word(line), false, &flags) || !read_number(next_word(line), true, &expires) ||
        !read_number(next_word(line), false, data))
        return refuse(p, "CLIENT_ERROR bad command line format");
    if (r->command == MC_CAS && !read_number(next_word(line), false, &unique))
        return refuse(p, "CLIENT_ERROR bad command line format");
    return *data <= p->value_max ? OK : refuse(p, "SERVER_ERROR object too large for cache");
}

/* The command line, without its end.  *data: bytes of the value that follows. */
static enum status read_line(struct mc_request_parser *p, struct bytes line, struct mc_request *r, uint64_t *data)
{
    struct bytes name = next_word(&line);
    int c = 0;
    while (c < MC_COMMAND_COUNT && !bytes_eq(name, bytes_of(commands[c].name))) c++;
    if (c == MC_COMMAND_COUNT) return refuse(p, "ERROR");
    r->command = (enum mc_command)c;
    enum shape shape = commands[c].shape;
    if (shape == SHAPE_KEYS) return read_keys(p, line, r);
    if (shape != SHAPE_NOTHING) {
        struct bytes key = next_word(&line);
        enum status st = key.n > 0 ? add_key(p, r, key) : refuse(p, "ERROR");
        if (st != OK) return st;
    }
    if (shape == SHAPE_STORE || shape == SHAPE_CAS) {
        enum status st = read_store(p, &line, r, data);
        if (st != OK) return st;
    }
    uint64_t number;
    if (shape == SHAPE_NUMBER && !read_number(next_word(&line), r->command == MC_TOUCH, &number))
        return refuse(p, "CLIENT_ERROR invalid numeric delta argument");
    return read_rest(p, line, r);
}

/* Finds the line feed behind `from`; *searched remembers how far that has got.  E_CORRUPT: the line is too long. */
static enum status find_line(struct bytes in, size_t from, size_t *searched, size_t *end)
{
    const char *at = in.n > *searched ? memchr(in.p + *searched, '\n', in.n - *searched) : NULL;
    size_t limit = from + MC_LINE_MAX;
    if (!at) {
        *searched = in.n;
        return in.n > limit ? E_CORRUPT : E_AGAIN;
    }
    *end = (size_t)(at - in.p);
    return *end > limit ? E_CORRUPT : OK;
}

/* Bytes [from, end) without a carriage return at the end. */
static struct bytes line_of(struct bytes in, size_t from, size_t end)
{
    if (end > from && in.p[end - 1] == '\r') end--;
    return bytes_make(in.p + from, end - from);
}

enum status mc_parse_request(struct mc_request_parser *p, struct bytes in, struct mc_request *out)
{
    p->need = 0;
    if (p->whole > in.n) { /* only the data is awaited */
        p->need = p->whole - in.n;
        return E_AGAIN;
    }
    size_t end;
    if (p->whole > 0) p->searched = 0; /* the line is read once more, now that all is there */
    enum status st = find_line(in, 0, &p->searched, &end);
    if (st == E_CORRUPT) return refuse(p, "CLIENT_ERROR line too long");
    if (st != OK) return st;
    p->searched = end;
    out->command = MC_QUIT, out->noreply = false, out->keys_n = 0, out->size = 0;
    uint64_t data = 0;
    st = read_line(p, line_of(in, 0, end), out, &data);
    if (st != OK) return st;
    bool has_data = commands[out->command].shape == SHAPE_STORE || commands[out->command].shape == SHAPE_CAS;
    if (has_data && data > SIZE_MAX - end - 3) return refuse(p, "SERVER_ERROR object too large for cache");
    size_t whole = end + 1 + (has_data ? (size_t)data + 2 : 0);
    if (in.n < whole) {
        p->whole = whole;
        p->need = whole - in.n;
        return E_AGAIN;
    }
    if (has_data && memcmp(in.p + whole - 2, "\r\n", 2) != 0) return refuse(p, "CLIENT_ERROR bad data chunk");
    out->size = whole;
    p->searched = p->whole = 0;
    return OK;
}

/* ---- replies ---- */

static bool is_number(struct bytes line)
{
    uint64_t v;
    return read_number(next_word(&line), false, &v) && next_word(&line).n == 0;
}

static bool last_line(struct bytes line, enum mc_reply_kind *kind)
{
    static const char *const words[] = {"STORED", "NOT_STORED", "EXISTS", "NOT_FOUND", "DELETED", "TOUCHED", "OK"};
    struct bytes rest = line, word = next_word(&rest);
    *kind = MC_REPLY_ERROR;
    if (bytes_eq(line, BYTES("ERROR")) || bytes_eq(word, BYTES("CLIENT_ERROR")) ||
        bytes_eq(word, BYTES("SERVER_ERROR")))
        return true;
    *kind = MC_REPLY_LINE;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (bytes_eq(line, bytes_of(words[i]))) return true;
    return bytes_eq(word, BYTES("VERSION")) || is_number(line);
}

/* "VALUE key flags bytes [unique]". */
static bool value_line(struct bytes line, uint64_t *data)
{
    uint64_t flags, unique;
    next_word(&line);
    struct bytes key = next_word(&line);
    if (key.n == 0 || !read_number(next_word(&line), false, &flags) || !read_number(next_word(&line), false, data))
        return false;
    struct bytes word = next_word(&line);
    return word.n == 0 || (read_number(word, false, &unique) && next_word(&line).n == 0);
}

static enum status reply_found(struct mc_reply_parser *p, size_t end)
{
    p->values_size = p->pos;
    p->size = end + 1;
    p->pos = p->searched = p->need = 0;
    return OK;
}

enum status mc_scan_reply(struct mc_reply_parser *p, struct bytes in)
{
    p->need = 0;
    for (;;) {
        if (p->pos > in.n) { /* a value's data is under way */
            p->need = p->pos - in.n;
            return E_AGAIN;
        }
        /* The two bytes before a line are the end of the value before. */
        if (p->pos > 0 && memcmp(in.p + p->pos - 2, "\r\n", 2) != 0) return E_CORRUPT;
        size_t end;
        enum status st = find_line(in, p->pos, &p->searched, &end);
        if (st != OK) return st;
        struct bytes line = line_of(in, p->pos, end);
        if (line.n < 6 || memcmp(line.p, "VALUE ", 6) != 0) {
            p->kind = MC_REPLY_VALUES;
            if (bytes_eq(line, BYTES("END"))) return reply_found(p, end);
            if (!last_line(line, &p->kind) || (p->pos > 0 && p->kind != MC_REPLY_ERROR)) return E_CORRUPT;
            return reply_found(p, end);
        }
        uint64_t data;
        if (!value_line(line, &data) || data > SIZE_MAX / 2 - end - 3) return E_CORRUPT;
        p->pos = p->searched = end + 1 + (size_t)data + 2;
    }
}
