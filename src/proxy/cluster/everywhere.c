/* everywhere.c: commands about all keys or all nodes.  A node is found by one of its slots, so that the part of a node
 * that fails goes to the one that takes over. */
#include "proxy/cluster/worker.h"

#include "base/mem.h"
#include "base/number.h"

unsigned everywhere_slots(const struct worker *w, uint16_t *out)
{
    unsigned n = 0;
    for (unsigned s = 0; s < SLOT_COUNT; s++) {
        unsigned i = 0;
        if (!w->slots[s] || (s && w->slots[s] == w->slots[s - 1])) continue;
        while (i < n && w->slots[out[i]] != w->slots[s]) i++;
        if (i == n) out[n++] = (uint16_t)s;
    }
    return n;
}

bool everywhere_spread(struct worker *w, struct request *parent, struct bytes raw)
{
    uint16_t *slots = mem_alloc(SLOT_COUNT * sizeof *slots);
    unsigned n = everywhere_slots(w, slots);
    if (n) {
        struct gather *g = gather_create(parent, (enum gather_kind)parent->kind, n);
        parent->for_all = false;
        g->turn = (unsigned)random_below(&w->rng, n);
        for (unsigned i = 0; i < n; i++) gather_add(w, g, parent, i, slots[i]);
        for (unsigned i = 0; i < n; i++) request_dispatch(w, g->part[i], raw); /* the last may free g */
    }
    mem_free(slots);
    return n > 0;
}

void everywhere_dispatch(struct client *c, const struct command *cmd, enum gather_kind kind, struct bytes raw)
{
    struct request *parent = request_create(c->worker, c, cmd, 0);
    parent->for_all = true;
    parent->kind = (uint8_t)kind;
    client_enqueue(c, parent);
    request_dispatch(c->worker, parent, raw);
}

/* ---- SCAN ----
 * Node after node, in the order of their first slots.  The cursor is the node's own, times 16384, plus the slot by
 * which the node is found. */

/* As redis-server reads it: a minus sign wraps around, nothing at all is 0. */
static bool parse_cursor(struct bytes text, uint64_t *out)
{
    bool minus = text.n && text.p[0] == '-';
    *out = 0;
    if (!text.n) return true;
    if (!parse_u64(bytes_make(text.p + minus, text.n - minus), out)) return false;
    if (minus) *out = 0 - *out;
    return true;
}

static void refuse_cursor(struct client *c)
{
    client_reply_error(c, "ERR invalid cursor");
}

void scan_dispatch(struct client *c, const struct command *cmd, const struct resp_request *req)
{
    struct worker *w = c->worker;
    uint64_t cursor;
    char digits[24];
    if (!parse_cursor(req->argv[1], &cursor)) {
        refuse_cursor(c);
        return;
    }
    unsigned slot = (unsigned)(cursor % SLOT_COUNT);
    while (cursor == 0 && slot < SLOT_COUNT && !w->slots[slot]) slot++;
    if (slot == SLOT_COUNT) slot = 0; /* waits for the cluster */
    struct bytes *argv = mem_alloc(req->argc * sizeof *argv);
    memcpy(argv, req->argv, req->argc * sizeof *argv);
    argv[1] = bytes_make(digits, format_u64(digits, cursor / SLOT_COUNT));
    struct buf b = {0};
    resp_request_append(&b, argv, req->argc);
    struct request *r = request_create(w, c, cmd, (uint16_t)slot);
    client_enqueue(c, r);
    request_dispatch(w, r, buf_bytes(&b));
    buf_deinit(&b);
    mem_free(argv);
}

/* The first slot of the next node behind the one that serves `slot`; 0: it was the last. */
static unsigned next_node(const struct worker *w, unsigned slot)
{
    for (unsigned s = slot + 1; s < SLOT_COUNT; s++) {
        if (!w->slots[s] || w->slots[s] == w->slots[s - 1]) continue;
        unsigned before = 0;
        while (before < s && w->slots[before] != w->slots[s]) before++;
        if (before == s) return s;
    }
    return 0;
}

bool scan_rewrite(struct worker *w, unsigned slot, struct bytes reply, struct buf *out)
{
    static const char head[] = "*2\r\n$";
    size_t h = sizeof head - 1, i = h;
    uint64_t cursor;
    if (reply.n < 12 || memcmp(reply.p, head, h) != 0) return false;
    while (i < reply.n && reply.p[i] != '\n') i++;
    size_t from = i + 1, to = from;
    while (to < reply.n && reply.p[to] != '\r') to++;
    if (to + 2 > reply.n || !parse_u64(bytes_make(reply.p + from, to - from), &cursor)) return false;
    if (cursor >= UINT64_MAX / SLOT_COUNT) return false;
    uint64_t next = cursor ? cursor * SLOT_COUNT + slot : next_node(w, slot);
    char digits[24];
    size_t n = format_u64(digits, next);
    buf_printf(out, "*2\r\n$%zu\r\n%.*s\r\n", n, (int)n, digits);
    buf_append(out, reply.p + to + 2, reply.n - to - 2);
    return true;
}
