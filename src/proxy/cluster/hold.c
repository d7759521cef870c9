/* hold.c: where a request goes, and what becomes of it when it cannot go there: it is redirected, or waits.
 *
 * Order: as long as a client has a request of a slot under way on one connection, or waiting, its later requests of
 * that slot go to no other connection; they wait.  A client whose requests were all sent under the present assignment
 * of slots need not look (client.epoch). */
#include "proxy/cluster/worker.h"

#include "base/mem.h"
#include "base/number.h"

enum { TRIES_AT_ONCE = 5, LATER_FIRST_MS = 4, LATER_MAX_MS = 100 };

static const char unknown_fate[] =
    "ERR the connection to the node broke after this request was sent: it may or may not have been executed";
static const char held_too_long[] = "ERR the node of this key was not available in time: the request was not executed";
static const char held_too_many[] =
    "ERR the node of this key is not available, and too many requests wait already: the request was not executed";
static const char pinned_too_many[] = "ERR too many connections of one client each (pinned-connections)";

/* ---- waiting ---- */

/* A copy of its own, so that a request that waits does not keep a whole chunk. */
static bool keep_bytes(struct request *r, struct bytes raw)
{
    struct chunk *c = chunk_create(raw.n);
    if (!c) return false;
    memcpy(c->p, raw.p, raw.n);
    c->n = raw.n;
    chunk_release(r->chunk);
    r->chunk = c;
    r->offset = 0;
    r->size = raw.n;
    return true;
}

static void hold(struct worker *w, struct request *r, struct bytes raw, int64_t wait_ms)
{
    const struct proxy_config *cfg = w->config;
    if (r->hold_until == 0) {
        r->hold_until = w->now_ms + cfg->hold_timeout_ms;
        count(&w->stats.held_ever, 1);
    }
    if (w->now_ms >= r->hold_until) {
        count(&w->stats.timeouts, 1);
        request_answer_error(w, r, held_too_long);
        return;
    }
    if ((int64_t)w->held_count >= cfg->hold_requests / cfg->workers + 1 ||
        (int64_t)(w->held_bytes + raw.n) > cfg->hold_bytes / cfg->workers) {
        count(&w->stats.refused, 1);
        request_answer_error(w, r, held_too_many);
        return;
    }
    if (!keep_bytes(r, raw)) {
        request_answer_error(w, r, "OOM no memory to keep this request");
        return;
    }
    r->state = REQUEST_HELD;
    r->due_ms = w->now_ms + wait_ms;
    list_push_back(&w->held, &r->held);
    w->held_count++;
    w->held_bytes += r->size;
    atomic_store_explicit(&w->stats.held_now, w->held_count, memory_order_relaxed);
    if (r->client) r->client->epoch = 0;
}

void held_forget(struct worker *w, struct request *r)
{
    list_remove(&r->held);
    w->held_count--;
    w->held_bytes -= r->size;
    atomic_store_explicit(&w->stats.held_now, w->held_count, memory_order_relaxed);
    r->state = REQUEST_NEW;
}

static int64_t patience(const struct request *r)
{
    int64_t ms = LATER_FIRST_MS * (1 + (int64_t)r->tries);
    return ms < LATER_MAX_MS ? ms : LATER_MAX_MS;
}

/* ---- sending ---- */

/* The link that would be taken; NULL: not now. */
static struct link *choose(struct worker *w, struct request *r, struct backend *b, bool *full)
{
    struct client *c = r->client;
    *full = false;
    if (r->is_watched) return c->pinned;
    if (c && c->watching && c->pinned && !r->parent && r->slot == c->watch_slot && !r->ask) return c->pinned;
    if (r->is_blocking) return node_link_pin(w, b, c, full);
    return node_link_shared(w, b, c && c->resp == 3, c ? (unsigned)(c->id % (uint64_t)w->config->connections) : 0,
                            r->db);
}

static bool is_elsewhere(const struct request *q, const struct request *r, const struct link *to)
{
    return q != r && q->state != REQUEST_DONE && q->slot == r->slot && q->link != to;
}

/* Whether nothing of the same client and slot in front of r is waiting, or under way on another link. */
static bool is_next(const struct request *r, const struct link *to)
{
    const struct request *top = r->parent ? r->parent : r;
    for (const struct request *q = r->client->first; q && q != top; q = q->next) {
        if (!q->gather) {
            if (is_elsewhere(q, r, to)) return false;
            continue;
        }
        for (unsigned i = 0; q->state != REQUEST_DONE && i < q->gather->parts; i++)
            if (is_elsewhere(q->gather->part[i], r, to)) return false;
    }
    return true;
}

/* A transaction on the connection that watches cannot go elsewhere: what was watched cannot be vouched for. */
static void abort_watched(struct worker *w, struct request *r)
{
    if (r->client) unwatch(r->client);
    request_answer(w, r, r->client && r->client->resp == 3 ? BYTES("_\r\n") : BYTES("*-1\r\n"));
}

void request_dispatch(struct worker *w, struct request *r, struct bytes raw)
{
    struct backend *b = r->ask ? r->ask : w->slots[r->slot];
    bool full;
    if (r->is_watched && !r->client->pinned) { /* gone with what it watched */
        abort_watched(w, r);
        return;
    }
    if (!b) {
        topology_refresh(w->proxy->topology);
        hold(w, r, raw, patience(r));
        return;
    }
    if (r->is_blocking && r->client->epoch != w->epoch && !is_next(r, NULL)) {
        hold(w, r, raw, LATER_FIRST_MS);
        return;
    }
    struct link *l = choose(w, r, b, &full);
    if (full) {
        request_answer_error(w, r, pinned_too_many);
        return;
    }
    if (!l) {
        if (r->tries < UINT16_MAX) r->tries++;
        r->ask = NULL;
        r->asking = false;
        hold(w, r, raw, patience(r));
        return;
    }
    if (r->client && r->client->epoch != w->epoch && !is_next(r, l)) {
        if (r->is_blocking) node_link_unpin(l, true);
        hold(w, r, raw, LATER_FIRST_MS / 2);
        return;
    }
    node_link_send(l, r, raw);
}

static void dispatch_again(struct worker *w, struct request *r)
{
    struct chunk *c = r->chunk; /* node_link_send() lets go of it when the bytes are copied */
    c->refs++;
    count(&w->stats.retries, 1);
    request_dispatch(w, r, bytes_make(c->p + r->offset, r->size));
    chunk_release(c);
}

void held_run(struct worker *w)
{
    struct list due;
    list_init(&due);
    w->held_kick = false;
    list_each(it, &w->held)
    {
        struct request *r = container_of(it, struct request, held);
        if (r->due_ms > w->now_ms) continue;
        list_remove(it);
        list_push_back(&due, it);
    }
    while (!list_empty(&due)) {
        struct request *r = container_of(due.next, struct request, held);
        held_forget(w, r);
        dispatch_again(w, r);
    }
}

/* ---- replies ---- */

/* The next word of an error's text. */
static struct bytes word(struct bytes *text)
{
    size_t n = 0;
    while (n < text->n && text->p[n] != ' ' && text->p[n] != '\r') n++;
    struct bytes w = bytes_make(text->p, n);
    if (n < text->n) n++;
    *text = bytes_make(text->p + n, text->n - n);
    return w;
}

/* The address of a node that the cluster has told of by name; NULL: none. */
static const char *known_address(const struct worker *w, struct bytes name, int port)
{
    for (int i = 0; w->map && i < w->map->count; i++) {
        const struct map_node *n = &w->map->nodes[i];
        if (n->port == port && bytes_eq(bytes_of(n->name), name)) return *n->ip ? n->ip : NULL;
    }
    return NULL;
}

/* The node that "MOVED slot host:port" names, and its slot; NULL: it is not known by address. */
static struct backend *redirection(struct worker *w, struct request *r, struct bytes text, unsigned *slot)
{
    int64_t number;
    struct address a;
    *slot = r->slot;
    word(&text);
    if (!parse_i64(word(&text), &number) || number < 0 || number >= SLOT_COUNT) return NULL;
    if (!address_parse(word(&text), &a)) return NULL;
    *slot = (unsigned)number;
    struct bytes host = bytes_of(a.host);
    struct backend *b = NULL;
    if (host.n)
        b = backend_get(w, host, known_address(w, host, a.port), a.port);
    else if (w->slots[r->slot]) /* the same host, another port */
        b = backend_get(w, bytes_of(w->slots[r->slot]->name), w->slots[r->slot]->ip, a.port);
    mem_free(a.host);
    return b;
}

enum verdict request_judge(struct worker *w, struct request *r, struct bytes reply)
{
    static const char *const later[] = {"TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY", "UNBLOCKED"};
    struct bytes text = bytes_make(reply.p + 1, reply.n - 1), rest = text, code = word(&rest);
    unsigned slot;
    if (bytes_eq(code, BYTES("MOVED"))) {
        struct backend *b = redirection(w, r, text, &slot);
        count(&w->stats.moved, 1);
        topology_refresh(w->proxy->topology);
        if (!b) return VERDICT_LATER;
        if (w->slots[slot] != b) {
            w->slots[slot] = b;
            w->epoch++;
        }
        return VERDICT_AGAIN;
    }
    if (bytes_eq(code, BYTES("ASK"))) {
        count(&w->stats.asked, 1);
        r->ask = redirection(w, r, text, &slot);
        if (!r->ask) topology_refresh(w->proxy->topology); /* it may have got a name lately */
        return r->ask ? VERDICT_ASK : VERDICT_LATER;
    }
    for (size_t i = 0; i < sizeof later / sizeof *later; i++) {
        if (!bytes_eq(code, bytes_of(later[i]))) continue;
        if (i) topology_refresh(w->proxy->topology);
        return VERDICT_LATER;
    }
    return VERDICT_ANSWER;
}

void request_replied(struct worker *w, struct request *r, struct bytes reply)
{
    enum verdict v = (enum verdict)r->noted;
    if (reply.p[0] == '-' && v == VERDICT_ANSWER) v = request_judge(w, r, reply);
    if (reply.p[0] != '-') v = VERDICT_ANSWER;
    r->noted = VERDICT_ANSWER;
    if (v == VERDICT_ANSWER || !r->client) {
        request_answer(w, r, reply);
        return;
    }
    if (r->is_watching) { /* EXEC will say that it did not happen, and the client begin anew */
        request_answer(w, r, BYTES("+OK\r\n"));
        return;
    }
    if (r->is_watched) {
        abort_watched(w, r);
        return;
    }
    if (r->tries < UINT16_MAX) r->tries++;
    if (v == VERDICT_ASK && r->skip) v = VERDICT_LATER; /* a transaction cannot ask: it waits for the hand-over */
    r->asking = v == VERDICT_ASK;
    if (v != VERDICT_ASK) r->ask = NULL;
    r->client->epoch = 0;
    r->state = REQUEST_NEW;
    if (v == VERDICT_LATER || r->tries > TRIES_AT_ONCE) {
        struct chunk *c = r->chunk;
        c->refs++;
        hold(w, r, bytes_make(c->p + r->offset, r->size), patience(r));
        chunk_release(c);
    } else {
        dispatch_again(w, r);
    }
}

void request_interrupted(struct worker *w, struct request *r, bool not_executed)
{
    r->state = REQUEST_NEW;
    r->noted = VERDICT_ANSWER;
    if (!r->client) {
        request_free(w, r);
    } else if (r->is_watching) {
        r->client->watch_lost = true;
        request_answer(w, r, BYTES("+OK\r\n"));
    } else if (r->is_watched) {
        unwatch(r->client);
        if (not_executed)
            abort_watched(w, r);
        else
            request_answer_error(w, r, unknown_fate);
    } else if (not_executed || r->is_safe) {
        r->ask = NULL;
        r->asking = false;
        if (r->tries < UINT16_MAX) r->tries++;
        struct chunk *c = r->chunk;
        c->refs++;
        hold(w, r, bytes_make(c->p + r->offset, r->size), LATER_FIRST_MS);
        chunk_release(c);
    } else {
        count(&w->stats.unknown, 1);
        request_answer_error(w, r, unknown_fate);
    }
}

void request_answer(struct worker *w, struct request *r, struct bytes reply)
{
    struct client *c = r->client;
    if (!c) {
        request_free(w, r);
        return;
    }
    if (r->parent) {
        buf_append_bytes(&r->reply, reply);
        r->state = REQUEST_DONE;
        gather_part_done(w, r->parent);
        return;
    }
    r->state = REQUEST_DONE;
    chunk_release(r->chunk);
    r->chunk = NULL;
    c->reply_bytes = (c->reply_bytes * 7 + reply.n) / 8;
    bool is_scan = r->cmd && r->cmd->id == CMD_ID_SCAN && !worker_has_one_server(w);
    if (r->selects && reply.p[0] == '*' && reply.p[1] != '-') c->db = r->db_after;
    struct buf *out = c->first == r ? &c->out : &r->reply;
    if (!is_scan || !scan_rewrite(w, r->slot, reply, out)) buf_append_bytes(out, reply);
    if (c->first == r) client_drain(c);
}

void request_answer_error(struct worker *w, struct request *r, const char *text)
{
    struct buf b = {0};
    struct resp_out o = {&b, 2};
    resp_error(&o, text);
    request_answer(w, r, buf_bytes(&b));
    buf_deinit(&b);
}
