/* client.c: connections of clients: input, the queue that keeps replies in order, output. */
#include "proxy/cluster/worker.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <unistd.h>

enum {
    READ_MAX = 4 * 1024 * 1024,
    READ_LEAST = 64 * 1024,
    OUT_KEEP = 64 * 1024,
    /* Limits of what one client may have under way; what it sends and gets is in memory meanwhile. */
    REQUESTS_BYTES = 64 * 1024 * 1024,
    REPLIES_BYTES = 32 * 1024 * 1024,
    REPLY_GUESS = 256 * 1024, /* before any was seen */
};

static void ready(struct loop_source *src, int events);

struct client *client_create(struct worker *w, int fd)
{
    struct client *c = mem_calloc(1, sizeof *c);
    c->src = (struct loop_source){.fd = fd, .ready = ready};
    c->worker = w;
    c->resp = 2;
    c->id = w->next_client_id;
    w->next_client_id += (uint64_t)w->config->workers;
    c->created_ms = clock_wall_ms();
    c->multi_slot = -1;
    c->reply_bytes = REPLY_GUESS;
    resp_parser_init(&c->parser, w->config->bulk_limit);
    net_set_nodelay(fd);
    net_peer_address(fd, c->peer);
    list_init(&c->dirty);
    list_init(&c->resume);
    list_init(&c->orphan);
    if (loop_add(w->loop, &c->src, NET_READ) != OK) {
        mem_free(c);
        return NULL;
    }
    list_push_back(&w->clients, &c->link);
    policy_client_begin(c);
    count(&w->stats.clients, 1);
    return c;
}

/* Its requests go on without it, but for those that wait; what they return is nobody's. */
static void abandon_requests(struct client *c)
{
    struct worker *w = c->worker;
    while (c->first) {
        struct request *r = c->first;
        c->first = r->next;
        r->client = NULL;
        if (r->gather) {
            struct gather *g = r->gather;
            for (unsigned i = 0; i < g->parts; i++) {
                struct request *p = g->part[i];
                p->client = NULL;
                p->parent = NULL;
                if (p->state != REQUEST_SENT) request_free(w, p);
            }
            g->parts = 0;
            request_free(w, r);
        } else if (r->state != REQUEST_SENT) {
            request_free(w, r);
        } else if (r->is_blocking) {
            node_link_unpin(r->link, false); /* nobody may be served there any more; r goes with it */
        }
    }
    c->last = NULL;
}

void client_destroy(struct client *c)
{
    struct worker *w = c->worker;
    int fd = c->src.fd;
    loop_remove(w->loop, &c->src);
    close(fd);
    struct link *pinned = c->pinned;
    c->pinned = NULL;
    subscriptions_end(c);
    if (pinned) node_link_unpin(pinned, false);
    abandon_requests(c);
    policy_client_end(c);
    list_remove(&c->link);
    list_remove(&c->dirty);
    list_remove(&c->resume);
    buf_deinit(&c->in);
    buf_deinit(&c->out);
    buf_deinit(&c->multi);
    resp_parser_deinit(&c->parser);
    mem_free(c->name);
    mem_free(c);
    count(&w->stats.clients, -1);
    atomic_fetch_sub(&w->proxy->clients, 1);
    atomic_fetch_sub(&w->given, 1);
}

void client_wants_write(struct client *c)
{
    if (list_empty(&c->dirty)) list_push_back(&c->worker->dirty_clients, &c->dirty);
}

void client_wants_resume(struct client *c)
{
    if (list_empty(&c->resume)) list_push_back(&c->worker->resumable, &c->resume);
}

/* ---- the queue ---- */

void client_enqueue(struct client *c, struct request *r)
{
    if (!c->first) {
        c->first = r;
        c->epoch = c->worker->epoch;
    } else {
        c->last->next = r;
    }
    r->next = NULL;
    c->last = r;
    c->queued++;
}

static bool has_enough(const struct client *c)
{
    return c->queued >= QUEUE_MAX || c->queued_bytes > REQUESTS_BYTES || c->queued * c->reply_bytes > REPLIES_BYTES;
}

void client_drain(struct client *c)
{
    while (c->first && c->first->state == REQUEST_DONE) {
        struct request *r = c->first;
        c->first = r->next;
        c->queued--;
        c->queued_bytes -= r->charged;
        if (r->reply.n) buf_append_bytes(&c->out, buf_bytes(&r->reply));
        request_free(c->worker, r);
    }
    client_wants_write(c);
    if (c->input_waits && (c->barrier ? !c->first : !has_enough(c))) client_wants_resume(c);
}

struct request *client_reply_begin(struct client *c, struct resp_out *o)
{
    if (!c->first) {
        *o = (struct resp_out){&c->out, c->resp};
        return NULL;
    }
    struct request *r = request_create(c->worker, c, NULL, 0);
    client_enqueue(c, r);
    *o = (struct resp_out){&r->reply, c->resp};
    return r;
}

void client_reply_end(struct client *c, struct request *r)
{
    if (r) r->state = REQUEST_DONE;
    client_wants_write(c);
}

void client_reply_error(struct client *c, const char *text)
{
    struct resp_out o;
    struct request *r = client_reply_begin(c, &o);
    resp_error(&o, text);
    client_reply_end(c, r);
}

void client_reply_ok(struct client *c)
{
    struct resp_out o;
    struct request *r = client_reply_begin(c, &o);
    resp_ok(&o);
    client_reply_end(c, r);
}

/* ---- input ---- */

static bool is_stalled(const struct client *c)
{
    return c->close_after_reply || c->close_asap || c->confirming || !list_empty(&c->orphan) ||
           (c->barrier && c->first) || policy_is_delayed(c) || has_enough(c) ||
           (int64_t)(c->out.n - c->out_pos) > c->worker->config->output_limit;
}

/* One that waits for a blocking command is read from to learn that it has gone. */
static bool wants_read(const struct client *c)
{
    return !is_stalled(c) || (c->first && c->first->is_blocking && c->in.n < READ_LEAST && !c->close_after_reply);
}

static void watch_events(struct client *c)
{
    bool more = c->out_pos < c->out.n;
    loop_set(c->worker->loop, &c->src, (wants_read(c) ? NET_READ : 0) | (more ? NET_WRITE : 0));
}

static void protocol_error(struct client *c)
{
    char text[96];
    strcpy(text, "ERR ");
    strncat(text, c->parser.error, sizeof text - 5);
    client_reply_error(c, text);
    c->close_after_reply = true;
}

/* Takes requests until the bytes end or the client has to wait; returns how many bytes are done with. */
static size_t process(struct client *c, struct bytes in)
{
    struct worker *w = c->worker;
    size_t pos = 0;
    c->input_waits = true; /* unless the bytes end first */
    while (!is_stalled(c)) {
        if (pos == in.n) {
            c->input_waits = false;
            break;
        }
        c->barrier = false;
        struct bytes rest = bytes_make(in.p + pos, in.n - pos);
        enum status st = resp_parse_request(&c->parser, rest, &w->request);
        if (st == OK) {
            bool refused;
            if (policy_admit(c, w->request.size, &refused)) {
                count(&w->stats.commands, 1);
                if (route_request(c, &w->request, bytes_make(rest.p, w->request.size)) == OUTCOME_NOT_NOW) break;
                c->policy.admitted = false;
            } else if (!refused) {
                break;
            }
            pos += w->request.size;
            continue;
        }
        pos += w->request.size;
        c->input_waits = false;
        if (st == E_AGAIN) break;
        if (st == E_CORRUPT)
            protocol_error(c);
        else
            c->close_asap = true;
        return in.n;
    }
    return pos;
}

static bool over_limit(struct client *c)
{
    if ((int64_t)c->in.n <= c->worker->config->query_limit) return false;
    log_warning("Closing client %s that reached the query buffer limit", c->peer);
    return true;
}

/* Goes through what is in c->in. */
static void process_kept(struct client *c)
{
    struct buf own = c->in;
    c->in = (struct buf){0};
    size_t used = process(c, buf_bytes(&own));
    if (used < own.n) {
        buf_drop_front(&own, used);
        c->in = own;
    } else {
        buf_deinit(&own);
    }
}

/* True: there may be more. */
static bool read_some(struct client *c)
{
    struct worker *w = c->worker;
    bool shared = c->in.n == 0;
    struct buf *in = shared ? &w->client_in : &c->in;
    size_t want = shared ? READ_BUFFER : c->parser.need, got;
    if (want < READ_LEAST) want = READ_LEAST;
    if (want > READ_MAX) want = READ_MAX;
    if (!shared && buf_try_reserve(in, want) != OK) {
        c->close_asap = true;
        return false;
    }
    enum status st = net_read(c->src.fd, in, want, &got);
    if (st == E_AGAIN) return false;
    if (st != OK) {
        c->close_asap = true;
        return false;
    }
    count(&w->stats.received, (int64_t)got);
    if (!shared) {
        process_kept(c);
    } else {
        size_t used = process(c, buf_bytes(in));
        if (used < in->n) buf_append(&c->in, in->p + used, in->n - used);
        in->n = 0;
    }
    if (over_limit(c)) c->close_asap = true;
    return got == want;
}

void client_resume(struct client *c)
{
    if (c->input_waits && !is_stalled(c)) process_kept(c);
    client_wants_write(c);
}

/* ---- output ---- */

void client_flush(struct client *c)
{
    while (c->out_pos < c->out.n && !c->close_asap) {
        size_t put;
        enum status st = net_write(c->src.fd, c->out.p + c->out_pos, c->out.n - c->out_pos, &put);
        if (st == E_AGAIN) break;
        if (st != OK) {
            c->close_asap = true;
            break;
        }
        c->out_pos += put;
        count(&c->worker->stats.sent, (int64_t)put);
        policy_sent(c, put);
    }
    bool all = c->out_pos == c->out.n;
    if (c->close_asap || (c->close_after_reply && all && !c->first)) {
        client_destroy(c);
        return;
    }
    if (all) {
        c->out.n = c->out_pos = 0;
        if (c->out.cap > OUT_KEEP) buf_deinit(&c->out);
    } else if (c->out_pos > c->out.n / 2 && c->out_pos > OUT_KEEP) {
        buf_drop_front(&c->out, c->out_pos);
        c->out_pos = 0;
    }
    watch_events(c);
    if (c->input_waits && !is_stalled(c)) client_wants_resume(c);
}

static void ready(struct loop_source *src, int events)
{
    struct client *c = container_of(src, struct client, src);
    if (events & NET_READ) {
        if (wants_read(c))
            read_some(c);
        else if (!(c->src.events & NET_READ))
            c->close_asap = true; /* reported although nobody asked for it: the connection is gone */
    }
    if (c->close_asap || is_stalled(c) || events & NET_WRITE) client_wants_write(c);
}
