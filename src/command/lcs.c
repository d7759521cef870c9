/* LCS: the longest common subsequence of two strings, by the classic table of lengths. */
#include "base/mem.h"
#include "command/call.h"

struct lcs {
    struct bytes a, b;
    bool want_length, want_index, with_match_len;
    int64_t match_len_min;
    uint32_t *table; /* owned; row i has the lengths for the first i bytes of a: b.n + 1 of them */
};

static bool parse_options(struct call *c, struct lcs *l)
{
    for (size_t i = 3; i < c->argc; i++) {
        if (call_arg_is(c, i, "idx")) {
            l->want_index = true;
        } else if (call_arg_is(c, i, "len")) {
            l->want_length = true;
        } else if (call_arg_is(c, i, "withmatchlen")) {
            l->with_match_len = true;
        } else if (call_arg_is(c, i, "minmatchlen") && i + 1 < c->argc) {
            if (!call_arg_i64(c, ++i, &l->match_len_min, NULL)) return false;
        } else {
            resp_error(&c->out, ERR_SYNTAX);
            return false;
        }
    }
    if (!l->want_index || !l->want_length) return true;
    resp_error(&c->out, "ERR If you want both the length and indexes, please just use IDX.");
    return false;
}

/* The two strings; digits has room for what is kept as a number.  False: replied. */
static bool operands(struct call *c, struct lcs *l, char digits[2][24])
{
    struct bytes *text[] = {&l->a, &l->b};
    struct key a = call_key(c, 1), b = call_key(c, 2);
    /* Both are looked up before the type of either is looked at: the second one's miss is an event. */
    struct entry *found[2] = {call_read(c, &a)};
    found[1] = call_read(c, &b);
    for (size_t i = 0; i < 2; i++) {
        struct entry *e = found[i];
        if (e && entry_type(e) != TYPE_STRING) {
            resp_error(&c->out, "ERR The specified keys must contain string values");
            return false;
        }
        *text[i] = e ? entry_string(e, digits[i]) : BYTES("");
    }
    return true;
}

/* Of the whole table when something has to be traced back through it, else of two rows that are used in turn: the limit
 * is for the whole one, as in Redis. */
static bool table_alloc(struct call *c, struct lcs *l)
{
    size_t whole;
    if (l->a.n >= UINT32_MAX - 1 || l->b.n >= UINT32_MAX - 1) {
        resp_error(&c->out, "ERR String too long for LCS");
        return false;
    }
    bool fits = !__builtin_mul_overflow((l->a.n + 1) * sizeof *l->table, l->b.n + 1, &whole);
    if (fits && whole > (uint64_t)c->env->options->proto_max_bulk_len) {
        resp_error(&c->out, "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len");
        return false;
    }
    size_t rows = l->want_length || l->a.n == 0 ? 2 : l->a.n + 1;
    l->table = fits ? mem_try_alloc(rows * (l->b.n + 1) * sizeof *l->table) : NULL;
    if (l->table) return true;
    resp_error(&c->out, "ERR Insufficient memory, failed allocating transient memory for LCS");
    return false;
}

static uint32_t *row(const struct lcs *l, size_t i)
{
    return l->table + (l->want_length ? i & 1 : i) * (l->b.n + 1);
}

/* Fills the table; returns the length of the longest common subsequence. */
static uint32_t fill(const struct lcs *l)
{
    memset(row(l, 0), 0, (l->b.n + 1) * sizeof(uint32_t));
    for (size_t i = 1; i <= l->a.n; i++) {
        const uint32_t *above = row(l, i - 1);
        uint32_t *here = row(l, i);
        here[0] = 0;
        for (size_t j = 1; j <= l->b.n; j++) {
            uint32_t longer = above[j] > here[j - 1] ? above[j] : here[j - 1];
            here[j] = l->a.p[i - 1] == l->b.p[j - 1] ? above[j - 1] + 1 : longer;
        }
    }
    return row(l, l->a.n)[l->b.n];
}

/* A run of equal bytes: a[a_at ..] and b[b_at ..], len of them. */
struct match {
    size_t a_at, b_at, len;
};

/* Traces the table back from the ends of both strings (i, j: where it stands); false at the beginning. */
static bool next_match(const struct lcs *l, size_t *i, size_t *j, struct match *m)
{
    while (*i > 0 && *j > 0 && l->a.p[*i - 1] != l->b.p[*j - 1]) {
        if (row(l, *i - 1)[*j] > row(l, *i)[*j - 1])
            --*i;
        else
            --*j;
    }
    m->len = 0;
    for (; *i > 0 && *j > 0 && l->a.p[*i - 1] == l->b.p[*j - 1]; m->len++) --*i, --*j;
    m->a_at = *i;
    m->b_at = *j;
    return m->len > 0;
}

static void reply_text(struct call *c, const struct lcs *l, uint32_t length)
{
    char *text = mem_try_alloc(length ? length : 1);
    if (!text) {
        resp_error(&c->out, ERR_OOM_VALUE);
        return;
    }
    struct match m;
    size_t i = l->a.n, j = l->b.n, left = length;
    while (next_match(l, &i, &j, &m)) {
        left -= m.len;
        memcpy(text + left, l->a.p + m.a_at, m.len);
    }
    assert(left == 0);
    resp_bulk(&c->out, bytes_make(text, length));
    mem_free(text);
}

static void reply_range(struct call *c, size_t first, size_t len)
{
    resp_array(&c->out, 2);
    resp_i64(&c->out, (int64_t)first);
    resp_i64(&c->out, (int64_t)(first + len - 1));
}

static void reply_index(struct call *c, const struct lcs *l, uint32_t length)
{
    struct match m;
    size_t i = l->a.n, j = l->b.n, n = 0;
    resp_map(&c->out, 2);
    resp_bulk_cstr(&c->out, "matches");
    size_t mark = resp_defer(&c->out);
    while (next_match(l, &i, &j, &m)) {
        if (l->match_len_min > 0 && m.len < (uint64_t)l->match_len_min) continue;
        resp_array(&c->out, l->with_match_len ? 3 : 2);
        reply_range(c, m.a_at, m.len);
        reply_range(c, m.b_at, m.len);
        if (l->with_match_len) resp_i64(&c->out, (int64_t)m.len);
        n++;
    }
    resp_defer_array(&c->out, mark, n);
    resp_bulk_cstr(&c->out, "len");
    resp_i64(&c->out, length);
}

void cmd_lcs(struct call *c)
{
    struct lcs l = {0};
    char digits[2][24];
    if (!operands(c, &l, digits) || !parse_options(c, &l) || !table_alloc(c, &l)) return;
    uint32_t length = fill(&l);
    if (l.want_length)
        resp_i64(&c->out, length);
    else if (l.want_index)
        reply_index(c, &l, length);
    else
        reply_text(c, &l, length);
    mem_free(l.table);
}
