/* Replies, read by a client: a scan finds where a reply ends and how many values it has, and only when it is whole a
 * second pass builds the tree, in memory whose size is then known. */
#include "base/mem.h"
#include "base/number.h"
#include "resp/resp.h"

#include <assert.h>
#include <math.h>

enum { COUNT_MAX = INT32_MAX };       /* elements of one aggregate */
#define LENGTH_MAX ((int64_t)1 << 40) /* bytes of one bulk */

/* One value's first line (without CR LF) and what follows it. */
struct head {
    char type;
    struct bytes line; /* behind the type byte */
    int64_t count;     /* bulks: bytes; aggregates: children (pairs counted twice); -1: null */
    size_t size;       /* bytes of the line with its end; for a bulk of its body too */
};

static bool is_bulk(char type)
{
    return type == '$' || type == '!' || type == '=';
}

static bool is_aggregate(char type)
{
    return type == '*' || type == '~' || type == '>' || type == '%' || type == '|';
}

static bool read_double(struct bytes b, double *out)
{
    if (bytes_ieq(b, BYTES("nan")) || bytes_ieq(b, BYTES("-nan"))) {
        *out = NAN;
        return true;
    }
    return parse_double(b, out);
}

static bool is_big_number(struct bytes b)
{
    size_t i = b.n && (b.p[0] == '-' || b.p[0] == '+');
    if (i == b.n) return false;
    for (; i < b.n; i++)
        if (b.p[i] < '0' || b.p[i] > '9') return false;
    return true;
}

/* Checks a line that is a whole value, or reads the count it announces. */
static bool check_line(struct head *h)
{
    int64_t i;
    double d;
    switch (h->type) {
    case '+':
    case '-': return true;
    case ':': return parse_i64(h->line, &i);
    case ',': return read_double(h->line, &d);
    case '#': return h->line.n == 1 && (h->line.p[0] == 't' || h->line.p[0] == 'f');
    case '_': return h->line.n == 0;
    case '(': return is_big_number(h->line);
    default: break;
    }
    if (!is_bulk(h->type) && !is_aggregate(h->type)) return false;
    if (!parse_i64(h->line, &h->count)) return false;
    if (h->count == -1) return h->type == '$' || h->type == '*';
    if (h->count < 0 || h->count > (is_bulk(h->type) ? LENGTH_MAX : COUNT_MAX)) return false;
    if (h->type == '%' || h->type == '|') h->count *= 2;
    return true;
}

static bool is_type(char c)
{
    return c != '\0' && strchr("+-:,#_($!=*~>%|", c) != NULL;
}

/* The value that begins at `pos`, without its children. */
static enum status read_head(struct resp_reply_parser *p, struct bytes in, size_t pos, struct head *h)
{
    if (pos >= in.n) return E_AGAIN;
    *h = (struct head){.type = in.p[pos]};
    if (!is_type(h->type)) return E_CORRUPT;
    size_t from = p->searched > pos ? p->searched : pos;
    const char *cr = memchr(in.p + from, '\r', in.n - from);
    p->searched = cr ? (size_t)(cr - in.p) : in.n;
    /* Only texts and big numbers have long lines. */
    if (p->searched - pos > 1024 && !strchr("+-(", h->type)) return E_CORRUPT;
    if (!cr || p->searched + 1 >= in.n) return E_AGAIN;
    if (cr[1] != '\n') return E_CORRUPT;
    h->line = bytes_make(in.p + pos + 1, p->searched - pos - 1);
    h->size = p->searched + 2 - pos;
    return check_line(h) ? OK : E_CORRUPT;
}

/* Adds the body of a bulk to its head, once it is there. */
static enum status read_body(struct resp_reply_parser *p, struct bytes in, size_t pos, struct head *h)
{
    if (!is_bulk(h->type) || h->count < 0) return OK;
    size_t body = pos + h->size, whole = (size_t)h->count + 2;
    if (in.n - body < whole) {
        p->need = whole - (in.n - body);
        return E_AGAIN;
    }
    const char *s = in.p + body;
    if (s[h->count] != '\r' || s[h->count + 1] != '\n') return E_CORRUPT;
    if (h->type == '=' && (h->count < 4 || s[3] != ':')) return E_CORRUPT;
    h->size += whole;
    return OK;
}

/* Counts the value on its level and goes down into it if it has children.  An attribute is not a value itself. */
static enum status enter(struct resp_reply_parser *p, const struct head *h)
{
    if (h->type != '|') {
        p->left[p->depth]--;
        p->nodes++;
    }
    if (!is_aggregate(h->type) || h->count <= 0) return OK;
    if (p->depth == RESP_DEPTH_MAX) return E_CORRUPT;
    p->left[++p->depth] = (uint64_t)h->count;
    return OK;
}

/* The scan proper: leaves p->pos behind the last value that is whole. */
static enum status scan(struct resp_reply_parser *p, struct bytes in)
{
    if (p->pos == 0) p->left[0] = 1;
    for (;;) {
        while (p->left[p->depth] == 0) {
            if (p->depth == 0) return OK;
            p->depth--;
        }
        struct head h;
        enum status st = read_head(p, in, p->pos, &h);
        if (st == OK) st = read_body(p, in, p->pos, &h);
        if (st == OK) st = enter(p, &h);
        if (st != OK) return st;
        p->pos += h.size;
    }
}

static enum status scan_counting(struct resp_reply_parser *p, struct bytes in, size_t *nodes)
{
    p->need = 0;
    p->size = 0;
    enum status st = scan(p, in);
    if (st == E_AGAIN) return st;
    *nodes = p->nodes;
    *p = (struct resp_reply_parser){.size = st == OK ? p->pos : 0};
    return st;
}

enum status resp_scan_reply(struct resp_reply_parser *p, struct bytes in)
{
    size_t nodes;
    return scan_counting(p, in, &nodes);
}

/* ---- The tree ---------------------------------------------------------------------------------------------------- */

struct builder {
    struct bytes in;
    size_t pos;
    struct resp_value *free; /* next unused value */
};

static void set_scalar(struct resp_value *v, const struct head *h)
{
    v->str = h->line;
    switch (h->type) {
    case ':':
        parse_i64(h->line, &v->i64);
        v->dbl = (double)v->i64;
        break;
    case ',': read_double(h->line, &v->dbl); break;
    case '#': v->i64 = h->line.p[0] == 't'; break;
    default: break;
    }
}

static void set_bulk(struct resp_value *v, const struct head *h)
{
    const char *body = h->line.p + h->line.n + 2;
    v->str = bytes_make(body, (size_t)h->count);
    if (h->type == '!') v->type = RESP_ERROR;
    if (h->type == '=') v->str = bytes_make(body + 4, (size_t)h->count - 4);
}

/* The head of the value at b->pos, which the scan has found to be whole and well formed. */
static struct head next_head(struct builder *b)
{
    struct resp_reply_parser fresh = {0};
    struct head h;
    enum status st = read_head(&fresh, b->in, b->pos, &h);
    if (st == OK) st = read_body(&fresh, b->in, b->pos, &h);
    assert(st == OK);
    b->pos += h.size;
    return h;
}

static void build(struct builder *b, struct resp_value *v);

static void build_children(struct builder *b, struct resp_value *v, size_t n)
{
    v->n = n;
    v->child = n ? b->free : NULL;
    b->free += n;
    for (size_t i = 0; i < n; i++) build(b, &v->child[i]);
}

/* Recursion is as deep as the aggregates, which the scan has bounded. */
static void build(struct builder *b, struct resp_value *v)
{
    struct head h = next_head(b);
    while (h.type == '|') { /* built into the place of the value that it is about, then overwritten by that */
        build_children(b, v, (size_t)h.count);
        h = next_head(b);
    }
    *v = (struct resp_value){.type = (enum resp_type)h.type};
    if (h.count < 0)
        v->type = RESP_NULL;
    else if (is_bulk(h.type))
        set_bulk(v, &h);
    else if (is_aggregate(h.type))
        build_children(b, v, (size_t)h.count);
    else
        set_scalar(v, &h);
}

enum status resp_parse_reply(struct resp_reply_parser *p, struct bytes in, struct resp_value **out)
{
    size_t nodes, bytes;
    *out = NULL;
    enum status st = scan_counting(p, in, &nodes);
    if (st != OK) return st;
    if (__builtin_mul_overflow(nodes, sizeof **out, &bytes) || __builtin_add_overflow(bytes, p->size, &bytes))
        return E_NOMEM;
    struct resp_value *root = mem_try_alloc(bytes);
    if (!root) return E_NOMEM;
    char *copy = (char *)(root + nodes);
    memcpy(copy, in.p, p->size);
    struct builder b = {.in = {copy, p->size}, .free = root + 1};
    build(&b, root);
    assert(b.pos == p->size && b.free == root + nodes);
    *out = root;
    return OK;
}

void resp_value_free(struct resp_value *v)
{
    mem_free(v);
}

bool resp_is_status(const struct resp_value *v, const char *text)
{
    return v && v->type == RESP_STATUS && bytes_eq(v->str, bytes_of(text));
}

bool resp_is_error(const struct resp_value *v, const char *code)
{
    if (!v || v->type != RESP_ERROR) return false;
    if (!code) return true;
    size_t n = strlen(code);
    return v->str.n >= n && memcmp(v->str.p, code, n) == 0 && (v->str.n == n || v->str.p[n] == ' ');
}

const struct resp_value *resp_map_get(const struct resp_value *v, const char *key)
{
    if (!v || (v->type != RESP_MAP && v->type != RESP_ARRAY)) return NULL;
    for (size_t i = 0; i + 1 < v->n; i += 2)
        if (bytes_eq(v->child[i].str, bytes_of(key))) return &v->child[i + 1];
    return NULL;
}
