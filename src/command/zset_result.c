#include "command/zset_result.h"

#include "base/hash.h"
#include "base/mem.h"
#include "command/collection.h"
#include "store/zset.h"

#include <math.h>
#include <stdlib.h>

enum { CHUNK_BYTES = 4096 - 16, CAP_MIN = 16, DIGITS_MAX = 24 };
struct digits_chunk {
    struct digits_chunk *next;
    char data[CHUNK_BYTES];
};

void zset_result_deinit(struct zset_result *r)
{
    while (r->digits) {
        struct digits_chunk *next = r->digits->next;
        mem_free(r->digits);
        r->digits = next;
    }
    mem_free(r->items);
    mem_free(r->index);
    *r = (struct zset_result){0};
}

static struct bytes kept(struct zset_result *r, const struct element *member)
{
    if (member->text.p != member->digits) return member->text;
    size_t n = member->text.n;
    assert(n <= DIGITS_MAX);
    if (!r->digits || r->digits_used + n > CHUNK_BYTES) {
        struct digits_chunk *chunk = mem_alloc(sizeof *chunk);
        chunk->next = r->digits;
        r->digits = chunk;
        r->digits_used = 0;
    }
    char *to = r->digits->data + r->digits_used;
    memcpy(to, member->digits, n);
    r->digits_used += n;
    return bytes_make(to, n);
}

static enum status append(struct zset_result *r, struct bytes member, double score)
{
    if (r->n == r->cap) {
        size_t cap = r->cap ? r->cap * 2 : CAP_MIN;
        struct scored *items = cap < UINT32_MAX ? mem_try_realloc(r->items, cap * sizeof *items) : NULL;
        if (!items) return E_NOMEM;
        r->items = items;
        r->cap = cap;
    }
    r->items[r->n++] = (struct scored){score, member};
    return OK;
}

enum status zset_result_add(struct zset_result *r, const struct element *member, double score)
{
    return append(r, kept(r, member), isnan(score) ? 0 : score);
}

/* The place of a member in the index: its own, or the free one where it belongs. */
static uint32_t *index_place(const struct zset_result *r, struct bytes member)
{
    size_t mask = r->index_size - 1;
    for (size_t at = hash_bytes(member) & mask;; at = (at + 1) & mask) {
        uint32_t *place = &r->index[at];
        if (*place == 0 || bytes_eq(r->items[*place - 1].member, member)) return place;
    }
}

/* At most three quarters of the index are in use. */
static bool index_grow(struct zset_result *r)
{
    if (r->index && r->n < r->index_size / 4 * 3) return true;
    size_t size = r->index ? r->index_size * 2 : CAP_MIN * 4;
    uint32_t *index = mem_try_alloc(size * sizeof *index);
    if (!index) return false;
    memset(index, 0, size * sizeof *index);
    mem_free(r->index);
    r->index = index;
    r->index_size = size;
    for (size_t i = 0; i < r->n; i++) *index_place(r, r->items[i].member) = (uint32_t)i + 1;
    return true;
}

struct scored *zset_result_find(struct zset_result *r, const struct element *member, bool *added)
{
    if (!index_grow(r)) return NULL;
    uint32_t *place = index_place(r, member->text);
    *added = *place == 0;
    if (*added) {
        if (append(r, kept(r, member), 0) != OK) return NULL;
        *place = (uint32_t)r->n;
    }
    return &r->items[*place - 1];
}

bool zset_result_has(const struct zset_result *r, struct bytes member)
{
    return r->index && *index_place(r, member) != 0;
}

static int compare(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? -1 : 1;
    return bytes_cmp(x->member, y->member);
}

void zset_result_sort(struct zset_result *r)
{
    if (r->n > 1) qsort(r->items, r->n, sizeof *r->items, compare);
}

void zset_result_reply(struct call *c, const struct zset_result *r, bool with_scores)
{
    bool pairs = with_scores && c->out.version >= 3;
    resp_array(&c->out, with_scores && !pairs ? r->n * 2 : r->n);
    for (size_t i = 0; i < r->n; i++) {
        if (pairs) resp_array(&c->out, 2);
        resp_bulk(&c->out, r->items[i].member);
        if (with_scores) resp_double(&c->out, r->items[i].score);
    }
}

/* NULL: memory is out. */
static struct entry *build(struct call *c, const struct key *k, const struct zset_result *r)
{
    const struct store_limits *lim = &c->env->options->limits;
    /* Loaded as trees, where the order of members costs no search, then made small. */
    struct store_limits large = *lim;
    large.zset_max_listpack_entries = 0;
    struct entry *e = zset_new(k->name, BYTES(""), &large);
    enum status s = OK;
    for (size_t i = 0; s == OK && i < r->n; i++) s = zset_add(e, r->items[i].score, r->items[i].member, &large, NULL);
    if (s == OK) s = zset_make_listpack_if_small(e, lim);
    if (s == OK) return e;
    entry_free(e);
    return NULL;
}

void zset_result_store(struct call *c, const struct key *k, const struct zset_result *r, const char *event,
                       uint64_t changes)
{
    if (r->n == 0) {
        if (call_delete(c, k)) {
            call_changed(c, k, NOTIFY_GENERIC, "del");
        }
        resp_i64(&c->out, 0);
        return;
    }
    struct entry *e = build(c, k, r);
    if (!e) {
        resp_error(&c->out, ERR_OOM_VALUE);
        return;
    }
    int64_t n = (int64_t)zset_len(e);
    call_peek(c, k); /* an expired key is deleted before it is replaced */
    call_put(c, k, e);
    collection_changed(c, k, NOTIFY_ZSET, event, changes);
    resp_i64(&c->out, n);
}
