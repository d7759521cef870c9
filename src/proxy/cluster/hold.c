/* hold.c: where a request goes, and what becomes of it when it cannot go there: it is redirected, or waits.
 *
 * Order: as long as a client has a request of a slot under way on one connection, or waiting, its later requests of
 * that slot go to no other connection; they wait.  A client whose requests were all sent under the present assignment
 * of slots need not look (client.epoch). */
#include "proxy/cluster/worker.h"

#include "base/mem.h"
#include "base/number.h"

enum { TRIES_AT_ONCE = 5, LATER_FIRST_MS = 4, LATER_MAX_MS = 100, HELD_A_STEP = 500, TRIAL_MS = 1000 };

static const char unknown_fate[] =
    "ERR the connection to the node broke after this request was sent: it may or may not have been executed";
static const char held_too_long[] = "ERR the node of this key was not available in time: the request was not executed";
static const char held_too_many[] =
    "ERR the node of this key is not available, and too many requests wait already: the request was not executed";
static const char exec_crossslot[] = "EXECABORT Transaction discarded because of: " CROSSSLOT_ERROR;
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

/* The more there are, the more of them come due at once: they are all looked at each time. */
static int64_t in_step(const struct worker *w, int64_t due_ms)
{
    int64_t step = 1 + (int64_t)w->held_count / HELD_A_STEP;
    return (due_ms + step - 1) / step * step;
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
    r->due_ms = in_step(w, w->now_ms + wait_ms);
    if (w->held_count == 0 || r->due_ms < w->held_due_ms) w->held_due_ms = r->due_ms;
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

/* Goes by the connection that watches keys, so that it does not overtake, nor is overtaken by, what went there before.
 * WAIT has connections of its own: it has let everything end before. */
static bool goes_with_watch(const struct worker *w, const struct request *r)
{
    const struct client *c = r->client;
    if (!c || !c->watching || !c->pinned || r->ask || (r->parent && r->is_blocking)) return false;
    return r->slot == c->watch_slot || worker_has_one_server(w) || c->pinned->backend == w->only;
}

/* The link that would be taken; NULL: not now. */
static struct link *choose(struct worker *w, struct request *r, struct backend *b, bool *full)
{
    struct client *c = r->client;
    *full = false;
    if (r->is_watched) return c->pinned;
    if (goes_with_watch(w, r)) return c->pinned;
    if (r->is_blocking) return node_link_pin(w, b, c, full);
    return node_link_shared(w, b, c && c->resp == 3, c ? (unsigned)(c->base.id % (uint64_t)w->config->connections) : 0,
                            r->db);
}

static bool is_elsewhere(const struct request *q, const struct request *r, const struct link *to)
{
    bool same = q->slot == r->slot || q->crosses || r->crosses;
    return q != r && q->state != REQUEST_DONE && same && q->link != to;
}

/* Whether nothing of the same client and slot in front of r is waiting, or under way on another link. */
static bool is_next(const struct request *r, const struct link *to)
{
    const struct request *top = r->parent ? r->parent : r;
    for (const struct request *q = client_first(r->client); q && q != top; q = request_next(q)) {
        if (!q->gather) {
            if (is_elsewhere(q, r, to)) return false;
            continue;
        }
        for (unsigned i = 0; q->state != REQUEST_DONE && i < q->gather->parts; i++)
            if (is_elsewhere(q->gather->part[i], r, to)) return false;
    }
    return true;
}

/* Nothing overtakes a read on its way to a replica, nor does the read. */
static struct link *choose_replica(struct worker *w, struct request *r, struct backend *b)
{
    struct backend *replica = replica_for(w, r, b);
    r->on_replica = false;
    if (!replica) return NULL;
    struct client *c = r->client;
    struct link *l =
        node_link_readonly(w, replica, c->resp == 3, (unsigned)(c->base.id % (uint64_t)w->config->connections), r->db);
    if (!l || !is_next(r, l)) return NULL;
    r->on_replica = true;
    c->epoch = 0;
    count(&w->stats.replica_reads, 1);
    return l;
}

/* A transaction on the connection that watches cannot go elsewhere: what was watched cannot be vouched for. */
static void abort_watched(struct worker *w, struct request *r)
{
    if (r->client) unwatch(r->client);
    request_answer(w, r, r->client && r->client->resp == 3 ? BYTES("_\r\n") : BYTES("*-1\r\n"));
}

/* ---- nodes that serve nothing at present, or cannot keep up ---- */

void node_refused(struct worker *w, struct backend *b)
{
    int64_t wait = (int64_t)LATER_FIRST_MS << (b->refusals < 5 ? b->refusals : 5);
    b->refusals++;
    b->refuses_until = w->now_ms + wait / 2 + (int64_t)random_below(&w->rng, (uint64_t)wait);
    b->trial_until = 0;
}

void node_answered(struct worker *w, struct backend *b)
{
    b->refusals = 0;
    list_each(it, &w->held) container_of(it, struct request, held)->due_ms = w->now_ms;
    w->held_due_ms = w->now_ms;
}

/* False: the request has to wait.  One that finds a loading node waiting long enough is sent, to see whether that is
 * over. */
static bool may_send(struct worker *w, struct backend *b, size_t size)
{
    if (b->queued_bytes && (int64_t)(b->queued_bytes + size) > w->config->node_queue_bytes) return false;
    if (!b->refusals) return true;
    if (w->now_ms < b->refuses_until || w->now_ms < b->trial_until) return false;
    b->trial_until = w->now_ms + TRIAL_MS;
    return true;
}

static bool may_split(const struct request *r)
{
    return r->crosses && !r->is_blocking && decision_of(r->cmd)->course == COURSE_SPLIT;
}

/* The cluster has grown since it was taken: its keys are of several nodes, or may be. */
static void uncross(struct worker *w, struct request *r, struct bytes raw)
{
    bool is_exec = r->cmd->id == CMD_ID_EXEC;
    if (may_split(r)) {
        split_again(w, r, raw);
        return;
    }
    if (r->is_watched) unwatch(r->client);
    request_answer_error(w, r, is_exec ? exec_crossslot : CROSSSLOT_ERROR);
}

void request_dispatch(struct worker *w, struct request *r, struct bytes raw)
{
    struct backend *b = r->ask ? r->ask : w->slots[r->slot];
    bool full;
    if (r->is_watched && !r->client->pinned) { /* gone with what it watched */
        abort_watched(w, r);
        return;
    }
    if (r->crosses && r->client && !worker_may_cross(w)) {
        uncross(w, r, raw);
        return;
    }
    if (r->for_all && everywhere_spread(w, r, raw)) return;
    if (!b || r->for_all) { /* the latter while no node is known */
        topology_refresh(w->proxy->topology);
        hold(w, r, raw, patience(r));
        return;
    }
    struct link *l = r->client ? choose_replica(w, r, b) : NULL;
    if (l) {
        node_link_send(l, r, raw);
        return;
    }
    if (!may_send(w, b, raw.n)) {
        r->ask = NULL;
        r->asking = false;
        hold(w, r, raw, patience(r));
        return;
    }
    if (r->is_blocking && r->client && r->client->epoch != w->epoch && !is_next(r, NULL)) {
        hold(w, r, raw, LATER_FIRST_MS);
        return;
    }
    l = choose(w, r, b, &full);
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
        if (r->is_blocking && r->client->pinned != l) node_link_unpin(l, true);
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
    w->held_due_ms = INT64_MAX;
    list_each(it, &w->held)
    {
        struct request *r = container_of(it, struct request, held);
        if (r->due_ms > w->now_ms) {
            if (r->due_ms < w->held_due_ms) w->held_due_ms = r->due_ms;
            continue;
        }
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
        if (bytes_eq(code, BYTES("UNBLOCKED")) && rest.n >= 5 && memcmp(rest.p, "force", 5) != 0)
            break; /* CLIENT UNBLOCK */
        if (i) topology_refresh(w->proxy->topology);
        return VERDICT_LATER;
    }
    return VERDICT_ANSWER;
}

/* Whether the node serves nothing at all at present. */
static bool is_general(struct bytes error)
{
    static const char *const texts[] = {"-LOADING ", "-MASTERDOWN ", "-CLUSTERDOWN The cluster is down"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        size_t n = strlen(texts[i]);
        if (error.n >= n && memcmp(error.p, texts[i], n) == 0) return true;
    }
    return false;
}

/* ---- errors of scripts ----
 * A script may end with any error at all, also with one that reads like a node's refusal to run it; it must not be run
 * again then.  The node is asked something harmless about the same key: if it refuses that as well, it did refuse. */

static bool reads_like_refusal(struct bytes reply)
{
    static const char *const words[] = {"MOVED",   "ASK",        "TRYAGAIN", "CLUSTERDOWN",
                                        "LOADING", "MASTERDOWN", "READONLY", "UNBLOCKED"};
    struct bytes text = bytes_make(reply.p + 1, reply.n - 1), first = word(&text);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (bytes_eq(first, bytes_of(words[i]))) return true;
    return false;
}

static bool is_about_role(struct bytes error)
{
    return error.n > 9 && memcmp(error.p, "-READONLY", 9) == 0;
}

/* EXISTS of all of its keys; false: it has none. */
static bool write_exists(const struct request *r, const struct resp_request *req, struct buf *out)
{
    int n = command_routing_keys(r->cmd, req->argv, req->argc, NULL, 0);
    struct command_key *keys = n > 0 ? mem_try_alloc((size_t)n * sizeof *keys) : NULL;
    if (!keys) return false;
    command_routing_keys(r->cmd, req->argv, req->argc, keys, (size_t)n);
    resp_request_begin(out, (size_t)n + 1);
    resp_request_arg(out, BYTES("EXISTS"));
    for (int i = 0; i < n; i++) resp_request_arg(out, req->argv[keys[i].index]);
    mem_free(keys);
    return true;
}

static void write_check(const struct request *r, struct bytes error, struct buf *out)
{
    struct resp_parser p;
    struct resp_request req = {0};
    resp_parser_init(&p, INT64_MAX);
    if (is_about_role(error))
        resp_request_cstr(out, 1, "ROLE");
    else if (resp_parse_request(&p, bytes_make(r->chunk->p + r->offset, r->size), &req) != OK ||
             !write_exists(r, &req, out))
        resp_request_cstr(out, 1, "PING");
    resp_request_deinit(&req);
    resp_parser_deinit(&p);
}

/* False: the error cannot be looked into, and is the answer. */
static bool begin_check(struct link *l, struct request *r, struct bytes error)
{
    struct buf b = {0};
    if (!l) return false;
    write_check(r, error, &b);
    bool sent = node_link_send_check(l, r, buf_bytes(&b));
    buf_deinit(&b);
    if (!sent) return false;
    buf_append_bytes(&r->reply.bytes, error);
    r->checking = true;
    return true;
}

static void follow(struct worker *w, struct request *r, enum verdict v);

/* The reply to that question. */
static void checked(struct worker *w, struct request *r, struct bytes reply)
{
    static const char replica[] = "*5\r\n$5\r\nslave\r\n";
    struct buf error = r->reply.bytes;
    enum verdict v = VERDICT_ANSWER;
    r->reply.bytes = (struct buf){0};
    r->checking = false;
    if (is_about_role(buf_bytes(&error))) {
        if (reply.n > sizeof replica && memcmp(reply.p, replica, sizeof replica - 1) == 0) v = VERDICT_LATER;
    } else if (reply.p[0] == '-') {
        v = request_judge(w, r, reply);
    }
    if (v == VERDICT_ANSWER || !r->client)
        request_answer(w, r, buf_bytes(&error));
    else
        follow(w, r, v);
    buf_deinit(&error);
}

/* The node has answered CLIENT CROSSSLOT. */
static void permitted(struct worker *w, struct link *l, struct request *r, bool yes)
{
    if (l) l->backend->crossing = yes ? CROSSING_YES : CROSSING_NO;
    request_free(w, r);
}

/* What went to the node in one piece and cannot be done there so: slots are on their way to another.  True: it goes on
 * in parts. */
static bool goes_on_in_parts(struct worker *w, struct request *r, struct bytes error)
{
    struct bytes text = bytes_make(error.p + 1, error.n - 1), code = word(&text);
    if (!r->client || !may_split(r) || (!bytes_eq(code, BYTES("CROSSSLOT")) && !bytes_eq(code, BYTES("TRYAGAIN"))))
        return false;
    struct chunk *c = r->chunk;
    c->refs++;
    r->state = REQUEST_NEW;
    r->client->epoch = 0;
    topology_refresh(w->proxy->topology);
    split_again(w, r, bytes_make(c->p + r->offset, r->size));
    chunk_release(c);
    return true;
}

void request_replied(struct worker *w, struct link *l, struct request *r, struct bytes reply)
{
    enum verdict v = (enum verdict)r->noted;
    bool is_error = reply.p[0] == '-';
    if (r->permits) {
        permitted(w, l, r, !is_error);
        return;
    }
    if (r->asks_release) {
        if (l) node_note_release(l->backend, reply);
        request_free(w, r);
        return;
    }
    if (is_error && r->crosses && goes_on_in_parts(w, r, reply)) return;
    if (r->has_scripts && !r->checking && evals_replied(w, l, r, reply)) {
        r->state = REQUEST_NEW;
        r->client->epoch = 0;
        dispatch_again(w, r);
        return;
    }
    if (l && is_error && is_general(reply) && !r->on_replica)
        node_refused(w, l->backend);
    else if (l && l->backend->refusals)
        node_answered(w, l->backend);
    if (r->on_replica && is_error && reads_like_refusal(reply) && r->client) {
        if (l) replica_failed(w, l->backend);
        r->no_replica = true;
        r->state = REQUEST_NEW;
        dispatch_again(w, r);
        return;
    }
    if (r->checking) {
        checked(w, r, reply);
        return;
    }
    if (is_error && r->cmd && command_runs_script(r->cmd) && r->client && reads_like_refusal(reply)) {
        if (!begin_check(l, r, reply)) request_answer(w, r, reply);
        return;
    }
    if (is_error && v == VERDICT_ANSWER) v = request_judge(w, r, reply);
    if (!is_error) v = VERDICT_ANSWER;
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
    follow(w, r, v);
}

/* It was not executed, and goes elsewhere or waits. */
static void follow(struct worker *w, struct request *r, enum verdict v)
{
    if (r->tries < UINT16_MAX) r->tries++;
    if (v == VERDICT_ASK && r->skip) v = VERDICT_LATER; /* a transaction cannot ask: it waits for the hand-over */
    if (r->crosses && v != VERDICT_ANSWER)
        v = VERDICT_LATER; /* the map will say whether one node has all of them still */
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

/* Nobody knows whether it was executed.  Programs expect of one server that goes that the connection ends.  Those that
 * wait come again after that, while an error in the place of an element ends many of them; others may be told, or not
 * (unknown-fate).  A request without an answer goes with its client. */
static void tell_unknown(struct worker *w, struct request *r)
{
    count(&w->stats.unknown, 1);
    if (!r->is_blocking && !w->config->unknown_closes) {
        request_answer_error(w, r, unknown_fate);
        return;
    }
    r->client->base.close_asap = true;
    client_wants_write(r->client);
}

void request_interrupted(struct worker *w, struct request *r, bool not_executed)
{
    r->state = REQUEST_NEW;
    r->noted = VERDICT_ANSWER;
    r->no_replica |= r->on_replica;
    if (!r->client) {
        if (r->unblocks) clients_unblock_answered(w, r->unblocks);
        request_free(w, r);
    } else if (r->checking) {
        r->checking = false;
        r->reply.bytes.n = 0;
        tell_unknown(w, r);
    } else if (r->is_watching) {
        r->client->watch_lost = true;
        request_answer(w, r, BYTES("+OK\r\n"));
    } else if (r->is_watched) {
        unwatch(r->client);
        if (not_executed)
            abort_watched(w, r);
        else
            tell_unknown(w, r);
    } else if (not_executed || r->is_safe) {
        r->ask = NULL;
        r->asking = false;
        if (r->tries < UINT16_MAX) r->tries++;
        struct chunk *c = r->chunk;
        c->refs++;
        hold(w, r, bytes_make(c->p + r->offset, r->size), LATER_FIRST_MS);
        chunk_release(c);
    } else {
        tell_unknown(w, r);
    }
}

void request_answer(struct worker *w, struct request *r, struct bytes reply)
{
    struct client *c = r->client;
    if (!c) {
        if (r->unblocks) clients_unblock_answered(w, r->unblocks);
        request_free(w, r);
        return;
    }
    if (w->config->replica_reads) replica_note_write(w, r);
    if (r->parent) {
        buf_append_bytes(&r->reply.bytes, reply);
        r->state = REQUEST_DONE;
        gather_part_done(w, r->parent);
        return;
    }
    measure_answered(w, r, reply);
    r->state = REQUEST_DONE;
    r->reply.done = true;
    chunk_release(r->chunk);
    r->chunk = NULL;
    c->reply_bytes = (c->reply_bytes * 7 + reply.n) / 8;
    bool is_scan = r->cmd && r->cmd->id == CMD_ID_SCAN && !worker_has_one_server(w);
    bool is_first = client_first(c) == r;
    if (r->selects && reply.p[0] == '*' && reply.p[1] != '-') c->db = r->db_after;
    if (r->is_mute) reply = BYTES("");
    struct buf *out = is_first ? &c->base.out : &r->reply.bytes;
    if (!is_scan || r->is_mute || !scan_rewrite(w, r->slot, reply, out)) buf_append_bytes(out, reply);
    if (is_first) client_drain(c);
}

void request_answer_error(struct worker *w, struct request *r, const char *text)
{
    struct buf b = {0};
    struct resp_out o = {&b, 2};
    resp_error(&o, text);
    request_answer(w, r, buf_bytes(&b));
    buf_deinit(&b);
}
