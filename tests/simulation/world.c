/* world.c: virtual time and the network.
 * A connection keeps the order of its messages, but may lose, repeat and delay them: worse than TCP, on purpose. */
#include "base/mem.h"
#include "sim.h"

#include <stdarg.h>
#include <stdlib.h>

int64_t pick(struct world *w, int64_t low, int64_t high)
{
    return low + (int64_t)random_below(&w->random, (uint64_t)(high - low + 1));
}

bool chance(struct world *w, unsigned percent)
{
    return random_below(&w->random, 100) < percent;
}

static bool happens(struct world *w, unsigned ppm)
{
    return ppm && random_below(&w->random, 1000000) < ppm;
}

void trace(struct world *w, const char *fmt, ...)
{
    if (!w->trace) return;
    va_list ap;
    va_start(ap, fmt);
    printf("%8.3f ", (double)w->now / 1000);
    vprintf(fmt, ap);
    putchar('\n');
    va_end(ap);
}

/* ---- the queue: a binary heap by (time, order) ---- */

static bool sooner(const struct sim_event *a, const struct sim_event *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

void world_post(struct world *w, int64_t delay_ms, struct sim_event ev)
{
    ev.at = w->now + delay_ms;
    ev.order = ++w->order;
    if (w->heap_count == w->heap_cap) {
        w->heap_cap = w->heap_cap ? w->heap_cap * 2 : 1024;
        w->heap = mem_realloc(w->heap, w->heap_cap * sizeof *w->heap);
    }
    size_t i = w->heap_count++;
    while (i && sooner(&ev, &w->heap[(i - 1) / 2])) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = ev;
}

static struct sim_event heap_pop(struct world *w)
{
    struct sim_event top = w->heap[0], last = w->heap[--w->heap_count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= w->heap_count) break;
        if (child + 1 < w->heap_count && sooner(&w->heap[child + 1], &w->heap[child])) child++;
        if (!sooner(&w->heap[child], &last)) break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    if (w->heap_count) w->heap[i] = last;
    return top;
}

/* ---- frames ---- */

struct frame *frame_new(struct world *w)
{
    struct frame *f = w->free_frames;
    if (f)
        w->free_frames = f->next_free;
    else
        f = mem_calloc(1, sizeof *f);
    f->refs = 1;
    f->bytes.n = 0;
    return f;
}

void frame_put(struct world *w, struct frame *f)
{
    if (--f->refs) return;
    f->next_free = w->free_frames;
    w->free_frames = f;
}

/* ---- connections ---- */

bool world_connected(const struct world *w, int from, int to)
{
    return w->group[from] == w->group[to] && !w->deaf[from][to] && !w->nodes[from].host_down && !w->nodes[to].host_down;
}

static int64_t latency(struct world *w)
{
    int64_t ms = pick(w, 0, 2);
    return w->delay_max_ms ? ms + pick(w, 0, w->delay_max_ms) : ms;
}

static int conn_new(struct world *w)
{
    if (w->conn_count == w->conn_cap) {
        w->conn_cap = w->conn_cap ? w->conn_cap * 2 : 256;
        w->conns = mem_realloc(w->conns, w->conn_cap * sizeof *w->conns);
    }
    memset(&w->conns[w->conn_count], 0, sizeof *w->conns);
    return (int)w->conn_count++;
}

static void remember_out(struct sim_node *n, uint64_t link, int conn)
{
    if (link >= n->out_conn_cap) {
        size_t cap = n->out_conn_cap ? n->out_conn_cap : 64;
        while (cap <= link) cap *= 2;
        n->out_conn = mem_realloc(n->out_conn, cap * sizeof *n->out_conn);
        for (size_t i = n->out_conn_cap; i < cap; i++) n->out_conn[i] = -1;
        n->out_conn_cap = cap;
    }
    n->out_conn[link] = conn;
}

void net_connect(struct world *w, struct sim_node *n, uint64_t link, const char *ip)
{
    int target = node_by_ip(w, ip);
    if (target < 0) {
        world_post(
            w, 1,
            (struct sim_event){.kind = SIM_REFUSED, .node = n->index, .incarnation = n->incarnation, .link = link});
        return;
    }
    int c = conn_new(w);
    struct conn *conn = &w->conns[c];
    conn->node[0] = n->index;
    conn->node[1] = target;
    conn->incarnation[0] = n->incarnation;
    conn->link[0] = link;
    conn->link[1] = CLUSTER_LINK_INBOUND | (uint64_t)c;
    conn->open[0] = true;
    remember_out(n, link, c);
    world_post(w, latency(w), (struct sim_event){.kind = SIM_CONNECT, .conn = c});
}

/* The call arrives: the kernel answers, even for a frozen process. */
static void connect_arrives(struct world *w, int c)
{
    struct conn *conn = &w->conns[c];
    int a = conn->node[0], b = conn->node[1];
    if (!conn->open[0] || !world_connected(w, a, b) || !world_connected(w, b, a)) return; /* it hangs */
    struct sim_event back = {.node = a, .incarnation = conn->incarnation[0], .conn = c, .side = 0};
    if (!w->nodes[b].core || w->refusing[b]) {
        back.kind = SIM_LINK_DOWN;
        back.arg = 1; /* refused */
    } else {
        conn->open[1] = true;
        conn->incarnation[1] = w->nodes[b].incarnation;
        back.kind = SIM_CONNECTED;
    }
    world_post(w, latency(w), back);
}

/* Tells the far side, if that gets through; if not it finds out by silence. */
void net_close(struct world *w, int c, int side)
{
    struct conn *conn = &w->conns[c];
    if (!conn->open[side]) return;
    conn->open[side] = false;
    int far = !side;
    if (!conn->open[far] || !world_connected(w, conn->node[side], conn->node[far])) return;
    struct sim_event ev = {
        .kind = SIM_LINK_DOWN, .node = conn->node[far], .incarnation = conn->incarnation[far], .conn = c, .side = far};
    int64_t at = w->now + latency(w);
    if (at < conn->last_at[far]) at = conn->last_at[far];
    world_post(w, at - w->now, ev);
}

static void reset(struct world *w, int c)
{
    struct conn *conn = &w->conns[c];
    for (int side = 0; side < 2; side++)
        if (conn->open[side])
            world_post(w, latency(w),
                       (struct sim_event){.kind = SIM_LINK_DOWN,
                                          .node = conn->node[side],
                                          .incarnation = conn->incarnation[side],
                                          .conn = c,
                                          .side = side});
}

void net_refuse(struct world *w, int n, bool cut_its_own)
{
    w->refusing[n] = true;
    for (size_t c = 0; c < w->conn_count; c++)
        if (w->conns[c].node[1] == n || (cut_its_own && w->conns[c].node[0] == n)) reset(w, (int)c);
}

/* From `side`; takes the frame. */
void net_send(struct world *w, int c, int side, struct frame *f)
{
    struct conn *conn = &w->conns[c];
    int far = !side;
    w->totals->messages++;
    w->totals->bytes += f->bytes.n;
    bool lost = !conn->open[side] || !conn->open[far] || happens(w, w->loss_ppm) ||
                !world_connected(w, conn->node[side], conn->node[far]);
    if (happens(w, w->reset_ppm)) reset(w, c);
    int copies = lost ? 0 : happens(w, w->duplicate_ppm) ? 2 : 1;
    for (int i = 0; i < copies; i++) {
        int64_t at = w->now + latency(w);
        if (at < conn->last_at[far]) at = conn->last_at[far];
        conn->last_at[far] = at;
        f->refs++;
        world_post(w, at - w->now,
                   (struct sim_event){.kind = SIM_DELIVER,
                                      .node = conn->node[far],
                                      .incarnation = conn->incarnation[far],
                                      .conn = c,
                                      .side = far,
                                      .frame = f});
    }
    frame_put(w, f);
}

int net_find(struct world *w, struct sim_node *n, uint64_t link, int *side)
{
    int c = -1;
    if (link & CLUSTER_LINK_INBOUND) {
        c = (int)(link & ~CLUSTER_LINK_INBOUND);
        *side = 1;
    } else if (link < n->out_conn_cap) {
        c = n->out_conn[link];
        *side = 0;
    }
    return c;
}

void net_drop_node(struct world *w, struct sim_node *n, bool quietly)
{
    for (size_t c = 0; c < w->conn_count; c++) {
        struct conn *conn = &w->conns[c];
        for (int side = 0; side < 2; side++) {
            if (conn->node[side] != n->index || !conn->open[side]) continue;
            if (quietly)
                conn->open[side] = false;
            else
                net_close(w, (int)c, side);
        }
    }
    for (size_t i = 0; i < n->out_conn_cap; i++) n->out_conn[i] = -1;
}

/* ---- the run ---- */

static bool is_stale(const struct world *w, const struct sim_event *ev)
{
    const struct sim_node *n = &w->nodes[ev->node];
    return !n->core || n->incarnation != ev->incarnation;
}

static void dispatch(struct world *w, struct sim_event *ev)
{
    if (ev->kind == SIM_SCRIPT) {
        script_run(w, ev);
        return;
    }
    if (ev->kind == SIM_CONNECT) {
        connect_arrives(w, ev->conn);
        return;
    }
    if (is_stale(w, ev)) {
        if (ev->frame) frame_put(w, ev->frame);
        return;
    }
    int64_t frozen = w->nodes[ev->node].frozen_until;
    if (frozen > w->now) { /* it waits in the kernel, in order */
        world_post(w, frozen - w->now, *ev);
        return;
    }
    node_event(w, ev);
    if (ev->frame) frame_put(w, ev->frame);
}

void world_run(struct world *w)
{
    w->now = 1000;
    script_begin(w);
    while (w->heap_count && !w->failed) {
        struct sim_event ev = heap_pop(w);
        w->now = ev.at;
        if (w->now > w->end) {
            if (ev.frame) frame_put(w, ev.frame);
            break;
        }
        dispatch(w, &ev);
    }
    w->totals->virtual_ms += (uint64_t)w->now;
}

static void node_free(struct sim_node *n)
{
    if (n->core) cluster_destroy(n->core);
    buf_deinit(&n->disk);
    buf_deinit(&n->in_flight);
    buf_deinit(&n->queued);
    mem_free(n->held);
    mem_free(n->out_conn);
}

void world_free(struct world *w)
{
    for (size_t i = 0; i < w->heap_count; i++)
        if (w->heap[i].frame) frame_put(w, w->heap[i].frame);
    for (int i = 0; i < NODES_MAX; i++) {
        struct sim_node *n = &w->nodes[i];
        for (size_t h = 0; h < n->held_count; h++) frame_put(w, n->held[h].frame);
        node_free(n);
    }
    while (w->free_frames) {
        struct frame *f = w->free_frames;
        w->free_frames = f->next_free;
        buf_deinit(&f->bytes);
        mem_free(f);
    }
    mem_free(w->heap);
    mem_free(w->conns);
    mem_free(w->votes);
    mem_free(w->shown);
    cluster_actions_deinit(&w->out);
    cluster_decoder_deinit(&w->decoder);
}
