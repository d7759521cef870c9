/* split.c: requests in parts: MGET and the like over several slots, and how the replies of parts become one. */
#include "proxy/cluster/worker.h"

#include "base/crc.h"
#include "base/mem.h"
#include "base/number.h"

#include <stdlib.h>

/* ---- gathering ---- */

struct gather *gather_create(struct request *parent, enum gather_kind kind, unsigned parts)
{
    struct gather *g = mem_calloc(1, sizeof *g);
    g->kind = kind;
    g->part = mem_calloc(parts ? parts : 1, sizeof(struct request *));
    parent->gather = g;
    parent->state = REQUEST_PARTS;
    return g;
}

/* Parts are all added before the first is dispatched: dispatching may answer at once. */
struct request *gather_add(struct worker *w, struct gather *g, struct request *parent, unsigned i, uint16_t slot)
{
    struct request *r = request_create(w, parent->client, parent->cmd, slot);
    r->parent = parent;
    g->part[i] = r;
    g->parts = i + 1;
    g->left = g->parts;
    return r;
}

void gather_free(struct worker *w, struct gather *g)
{
    for (unsigned i = 0; i < g->parts; i++) request_free(w, g->part[i]);
    mem_free(g->part);
    mem_free(g->place);
    mem_free(g);
}

/* The header of an array: how many elements, and where they begin; -1: it is none. */
static int64_t array_header(struct bytes reply, size_t *at)
{
    int64_t n;
    const char *cr = reply.n > 2 && (reply.p[0] == '*' || reply.p[0] == '~') ? memchr(reply.p, '\r', reply.n) : NULL;
    if (!cr || !parse_i64(bytes_make(reply.p + 1, (size_t)(cr - reply.p) - 1), &n)) return -1;
    *at = (size_t)(cr - reply.p) + 2;
    return n;
}

/* The element at *at. */
static struct bytes next_element(struct bytes reply, size_t *at)
{
    struct resp_reply_parser p = {0};
    struct bytes rest = bytes_make(reply.p + *at, reply.n - *at);
    if (resp_scan_reply(&p, rest) != OK) return (struct bytes){0};
    *at += p.size;
    return bytes_make(rest.p, p.size);
}

static struct bytes reply_of(const struct gather *g, unsigned i)
{
    return buf_bytes(&g->part[i]->reply.bytes);
}

static bool integer_of(struct bytes reply, int64_t *n)
{
    return reply.n > 3 && reply.p[0] == ':' && parse_i64(bytes_make(reply.p + 1, reply.n - 3), n);
}

static bool merge_sum(const struct gather *g, struct buf *out)
{
    int64_t sum = 0, n;
    for (unsigned i = 0; i < g->parts; i++) {
        if (!integer_of(reply_of(g, i), &n)) return false;
        sum += n;
    }
    buf_printf(out, ":%lld\r\n", (long long)sum);
    return true;
}

static bool merge_least(const struct gather *g, struct buf *out)
{
    int64_t least = INT64_MAX, n;
    for (unsigned i = 0; i < g->parts; i++) {
        if (!integer_of(reply_of(g, i), &n)) return false;
        if (n < least) least = n;
    }
    buf_printf(out, ":%lld\r\n", (long long)least);
    return true;
}

static bool merge_values(const struct gather *g, struct buf *out)
{
    struct bytes *values = mem_try_alloc(g->places * sizeof *values);
    size_t k = 0;
    bool ok = values != NULL;
    for (unsigned i = 0; ok && i < g->parts; i++) {
        size_t at = 0;
        int64_t n = array_header(reply_of(g, i), &at);
        for (; n > 0 && k < g->places; n--) values[g->place[k++]] = next_element(reply_of(g, i), &at);
        ok = n == 0;
    }
    ok = ok && k == g->places;
    if (ok) buf_printf(out, "*%zu\r\n", g->places);
    for (size_t i = 0; ok && i < g->places; i++) buf_append_bytes(out, values[i]);
    mem_free(values);
    return ok;
}

static bool merge_concat(const struct gather *g, struct buf *out)
{
    int64_t total = 0;
    size_t at;
    for (unsigned i = 0; i < g->parts; i++) {
        int64_t n = array_header(reply_of(g, i), &at);
        if (n < 0) return false;
        total += n;
    }
    buf_printf(out, "%c%lld\r\n", reply_of(g, 0).p[0], (long long)total);
    for (unsigned i = 0; i < g->parts; i++) {
        array_header(reply_of(g, i), &at);
        buf_append(out, reply_of(g, i).p + at, reply_of(g, i).n - at);
    }
    return true;
}

/* SCRIPT EXISTS: there only if it is everywhere. */
static bool merge_and(const struct gather *g, struct buf *out)
{
    size_t at0 = 0;
    int64_t n = array_header(reply_of(g, 0), &at0);
    if (n < 0) return false;
    size_t start = out->n;
    buf_append(out, reply_of(g, 0).p, reply_of(g, 0).n);
    for (unsigned i = 1; i < g->parts; i++) {
        size_t from = start + at0, at = 0;
        if (array_header(reply_of(g, i), &at) != n || reply_of(g, i).n != reply_of(g, 0).n) return false;
        for (int64_t k = 0; k < n; k++, from += 4, at += 4)
            if (reply_of(g, i).p[at + 1] == '0') out->p[from + 1] = '0';
    }
    return true;
}

static bool merge_least_each(const struct gather *g, struct buf *out)
{
    size_t first;
    int64_t n = array_header(reply_of(g, 0), &first);
    size_t *at = mem_try_alloc(g->parts * sizeof *at);
    bool ok = at && n >= 0;
    for (unsigned i = 0; ok && i < g->parts; i++) ok = array_header(reply_of(g, i), &at[i]) == n;
    if (ok) buf_printf(out, "*%lld\r\n", (long long)n);
    for (int64_t k = 0; ok && k < n; k++) {
        int64_t least = INT64_MAX, value;
        for (unsigned i = 0; ok && i < g->parts; i++) {
            ok = integer_of(next_element(reply_of(g, i), &at[i]), &value);
            if (ok && value < least) least = value;
        }
        buf_printf(out, ":%lld\r\n", (long long)least);
    }
    mem_free(at);
    return ok;
}

static int by_bytes(const void *a, const void *b)
{
    return bytes_cmp(*(const struct bytes *)a, *(const struct bytes *)b);
}

/* Every element once; their order means nothing. */
static bool merge_union(const struct gather *g, struct buf *out)
{
    size_t at, total = 0, n = 0, kept = 0;
    for (unsigned i = 0; i < g->parts; i++) {
        int64_t has = array_header(reply_of(g, i), &at);
        if (has < 0) return false;
        total += (size_t)has;
    }
    struct bytes *all = mem_try_alloc((total ? total : 1) * sizeof *all);
    if (!all) return false;
    for (unsigned i = 0; i < g->parts; i++)
        for (int64_t has = array_header(reply_of(g, i), &at); has > 0; has--)
            all[n++] = next_element(reply_of(g, i), &at);
    qsort(all, n, sizeof *all, by_bytes);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || !bytes_eq(all[i], all[kept - 1])) all[kept++] = all[i];
    buf_printf(out, "%c%zu\r\n", reply_of(g, 0).p[0], kept);
    for (size_t i = 0; i < kept; i++) buf_append_bytes(out, all[i]);
    mem_free(all);
    return true;
}

/* PUBSUB NUMSUB: the names stand in the order of the request. */
static bool merge_counts(const struct gather *g, struct buf *out)
{
    size_t first;
    int64_t n = array_header(reply_of(g, 0), &first);
    size_t *at = mem_try_alloc(g->parts * sizeof *at);
    bool ok = at && n >= 0 && n % 2 == 0;
    for (unsigned i = 0; ok && i < g->parts; i++) ok = array_header(reply_of(g, i), &at[i]) == n;
    if (ok) buf_printf(out, "*%lld\r\n", (long long)n);
    for (int64_t k = 0; ok && k < n; k += 2) {
        int64_t sum = 0, count;
        struct bytes name = {0};
        for (unsigned i = 0; ok && i < g->parts; i++) {
            name = next_element(reply_of(g, i), &at[i]);
            ok = integer_of(next_element(reply_of(g, i), &at[i]), &count);
            sum += ok ? count : 0;
        }
        buf_append_bytes(out, name);
        buf_printf(out, ":%lld\r\n", (long long)sum);
    }
    mem_free(at);
    return ok;
}

static bool is_null(struct bytes reply)
{
    return reply.n < 3 || reply.p[0] == '_' || reply.p[1] == '-';
}

static void merge_any(const struct gather *g, struct buf *out)
{
    for (unsigned i = 0; i < g->parts; i++) {
        struct bytes reply = reply_of(g, (i + g->turn) % g->parts);
        if (is_null(reply) && i + 1 < g->parts) continue;
        buf_append_bytes(out, reply);
        return;
    }
}

/* The reply that stands for all, if there is one: for most the first error; where one success is enough, that. */
static bool merge_outcome(const struct gather *g, struct buf *out)
{
    bool one_is_enough = g->kind == GATHER_ANY_OK;
    for (unsigned i = 0; i < g->parts; i++) {
        struct bytes reply = reply_of(g, i);
        if (reply.n == 0 || (reply.p[0] == '-') == one_is_enough) continue;
        buf_append_bytes(out, reply);
        return true;
    }
    if (one_is_enough) buf_append_bytes(out, reply_of(g, 0));
    return one_is_enough;
}

void gather_merge(const struct gather *g, struct buf *out)
{
    if (merge_outcome(g, out)) return;
    size_t start = out->n;
    bool ok = true;
    switch (g->kind) {
    case GATHER_SUM: ok = merge_sum(g, out); break;
    case GATHER_LEAST: ok = merge_least(g, out); break;
    case GATHER_LEAST_EACH: ok = merge_least_each(g, out); break;
    case GATHER_UNION: ok = merge_union(g, out); break;
    case GATHER_COUNTS: ok = merge_counts(g, out); break;
    case GATHER_ANY_OK: break;
    case GATHER_VALUES: ok = merge_values(g, out); break;
    case GATHER_CONCAT: ok = merge_concat(g, out); break;
    case GATHER_AND: ok = merge_and(g, out); break;
    case GATHER_FIRST: buf_append_bytes(out, reply_of(g, 0)); break;
    case GATHER_RANDOM: merge_any(g, out); break;
    }
    if (ok) return;
    out->n = start;
    buf_append_cstr(out, "-ERR the nodes' replies do not fit together\r\n");
}

/* What the slow log shows of a request in parts. */
static void request_show_part(struct request *parent, const struct request *part)
{
    if (!part->chunk || parent->chunk) return;
    part->chunk->refs++;
    parent->chunk = part->chunk;
    parent->offset = part->offset;
    parent->size = part->size;
}

void gather_part_done(struct worker *w, struct request *parent)
{
    struct gather *g = parent->gather;
    if (--g->left) return;
    struct buf merged = {0};
    gather_merge(g, &merged);
    if (parent->cmd->id == CMD_ID_SCRIPT_EXISTS && merged.n) evals_exists(w, g->part[0], buf_bytes(&merged), merged.p);
    parent->gather = NULL;
    request_show_part(parent, g->part[0]);
    request_answer(w, parent, buf_bytes(&merged));
    buf_deinit(&merged);
    gather_free(w, g);
}

/* ---- splitting ---- */

struct key_at {
    uint16_t slot;
    uint32_t index; /* among the keys */
};

static int by_slot(const void *a, const void *b)
{
    const struct key_at *x = a, *y = b;
    if (x->slot != y->slot) return x->slot < y->slot ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static void write_part(struct buf *b, const struct resp_request *req, const struct key_at *keys, size_t n, size_t step)
{
    b->n = 0;
    resp_request_begin(b, 1 + n * step);
    resp_request_arg(b, req->argv[0]);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < step; k++) resp_request_arg(b, req->argv[1 + keys[i].index * step + k]);
}

static size_t same_slot(const struct key_at *keys, size_t from, size_t n)
{
    size_t to = from;
    while (to < n && keys[to].slot == keys[from].slot) to++;
    return to - from;
}

static void send_parts(struct client *c, struct request *parent, const struct resp_request *req, struct key_at *keys,
                       size_t n, size_t step)
{
    struct worker *w = c->worker;
    struct gather *g = parent->gather;
    unsigned parts = 0;
    for (size_t i = 0; i < n; i += same_slot(keys, i, n)) gather_add(w, g, parent, parts++, keys[i].slot);
    if (g->kind == GATHER_VALUES) {
        g->places = n;
        g->place = mem_alloc(n * sizeof *g->place);
        for (size_t i = 0; i < n; i++) g->place[i] = keys[i].index;
    }
    struct buf b = {0};
    unsigned k = 0;
    for (size_t i = 0, size; i < n; i += size) {
        size = same_slot(keys, i, n);
        write_part(&b, req, keys + i, size, step);
        request_dispatch(w, g->part[k++], buf_bytes(&b)); /* the last may free g */
    }
    buf_deinit(&b);
}

static struct key_at *keys_by_slot(const struct resp_request *req, size_t n, size_t step, size_t *parts)
{
    struct key_at *keys = mem_try_alloc(n * sizeof *keys);
    if (!keys) return NULL;
    for (size_t i = 0; i < n; i++) keys[i] = (struct key_at){(uint16_t)key_slot(req->argv[1 + i * step]), (uint32_t)i};
    qsort(keys, n, sizeof *keys, by_slot);
    *parts = 0;
    for (size_t i = 0; i < n; i += same_slot(keys, i, n)) ++*parts;
    return keys;
}

/* The parent stands in its client's queue. */
static void split(struct client *c, struct request *parent, const struct resp_request *req, struct key_at *keys,
                  size_t n, size_t parts)
{
    enum command_id id = (enum command_id)parent->cmd->id;
    enum gather_kind kind = id == CMD_ID_MGET ? GATHER_VALUES : id == CMD_ID_MSET ? GATHER_FIRST : GATHER_SUM;
    count(&c->worker->stats.splits, 1);
    gather_create(parent, kind, (unsigned)parts);
    send_parts(c, parent, req, keys, n, id == CMD_ID_MSET ? 2 : 1);
}

void split_dispatch(struct client *c, const struct command *cmd, const struct resp_request *req)
{
    size_t step = cmd->id == CMD_ID_MSET ? 2 : 1, n = (req->argc - 1) / step, parts;
    if ((req->argc - 1) % step) {
        client_reply_error(c, "ERR wrong number of arguments for 'mset' command");
        return;
    }
    struct key_at *keys = keys_by_slot(req, n, step, &parts);
    if (!keys) {
        client_reply_error(c, "OOM no memory for so many keys");
        return;
    }
    struct request *parent = request_create(c->worker, c, cmd, keys[0].slot);
    client_enqueue(c, parent);
    split(c, parent, req, keys, n, parts);
    mem_free(keys);
}

void split_again(struct worker *w, struct request *r, struct bytes raw)
{
    struct resp_parser p;
    struct resp_request req = {0};
    struct key_at *keys = NULL;
    size_t step = r->cmd->id == CMD_ID_MSET ? 2 : 1, n = 0, parts;
    resp_parser_init(&p, INT64_MAX);
    if (resp_parse_request(&p, raw, &req) == OK && (req.argc - 1) % step == 0) {
        n = (req.argc - 1) / step;
        keys = keys_by_slot(&req, n, step, &parts);
    }
    r->crosses = r->asks_cross = false;
    if (keys)
        split(r->client, r, &req, keys, n, parts);
    else
        request_answer_error(w, r, "OOM no memory for so many keys");
    mem_free(keys);
    resp_request_deinit(&req);
    resp_parser_deinit(&p);
}
