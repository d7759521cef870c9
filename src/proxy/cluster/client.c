/* client.c: what the front needs to know of a cluster's client, and replies of the proxy's own. */
#include "proxy/cluster/worker.h"

#include "base/mem.h"

enum {
    /* Limits of what one client may have under way; what it sends and gets is in memory meanwhile. */
    REQUESTS_BYTES = 64 * 1024 * 1024,
    REPLIES_BYTES = 32 * 1024 * 1024,
    REPLY_GUESS = 256 * 1024, /* before any was seen */
};

static struct client *client_of(const struct front_client *base)
{
    return container_of(base, struct client, base);
}

struct client *client_find(const struct worker *w, uint64_t id)
{
    list_each(it, &w->clients)
    {
        struct client *c = container_of(it, struct client, link);
        if (c->base.id == id) return c;
    }
    return NULL;
}

static struct front_client *create(void *target)
{
    struct client *c = mem_calloc(1, sizeof *c);
    struct worker *w = target;
    c->worker = w;
    c->resp = 2;
    c->multi_slot = -1;
    c->reply_bytes = REPLY_GUESS;
    resp_parser_init(&c->parser, w->config->bulk_limit);
    list_init(&c->orphan);
    list_init(&c->link);
    return &c->base;
}

static void opened(struct front_client *base)
{
    struct client *c = client_of(base);
    list_push_back(&c->worker->clients, &c->link);
}

/* Its requests go on without it, but for those that wait; what they return is nobody's. */
static void abandon_requests(struct client *c)
{
    struct worker *w = c->worker;
    for (struct request *r; (r = client_first(c));) {
        c->base.first = r->reply.next;
        r->client = NULL;
        if (r->gather) {
            struct gather *g = r->gather;
            for (unsigned i = 0; i < g->parts; i++) {
                struct request *p = g->part[i];
                p->client = NULL;
                p->parent = NULL;
                if (p->state != REQUEST_SENT)
                    request_free(w, p);
                else if (p->is_blocking)
                    node_link_unpin(p->link, false);
            }
            g->parts = 0;
            request_free(w, r);
        } else if (r->state != REQUEST_SENT) {
            request_free(w, r);
        } else if (r->is_blocking) {
            node_link_unpin(r->link, false); /* nobody may be served there any more; r goes with it */
        }
    }
    c->base.last = NULL;
}

static void closed(struct front_client *base)
{
    struct client *c = client_of(base);
    struct link *pinned = c->pinned;
    c->pinned = NULL;
    subscriptions_end(c);
    feeds_end(c);
    if (pinned) node_link_unpin(pinned, false);
    abandon_requests(c);
    list_remove(&c->link);
    buf_deinit(&c->multi);
    resp_parser_deinit(&c->parser);
    mem_free(c->name);
    mem_free(c->recent);
}

/* ---- the queue ---- */

void client_enqueue(struct client *c, struct request *r)
{
    if (!c->base.first) c->epoch = c->worker->epoch;
    front_enqueue(&c->base, &r->reply);
}

void client_drain(struct client *c)
{
    front_drain(&c->base);
}

static void release(struct front_client *base, struct front_reply *reply)
{
    struct client *c = client_of(base);
    struct request *r = container_of(reply, struct request, reply);
    c->queued_bytes -= r->charged;
    request_free(c->worker, r);
}

struct request *client_reply_begin(struct client *c, struct resp_out *o)
{
    if (!c->base.first && !c->is_mute) {
        *o = (struct resp_out){&c->base.out, c->resp};
        return NULL;
    }
    struct request *r = request_create(c->worker, c, NULL, 0);
    client_enqueue(c, r);
    *o = (struct resp_out){&r->reply.bytes, c->resp};
    return r;
}

void client_reply_end(struct client *c, struct request *r)
{
    if (r) {
        r->state = REQUEST_DONE;
        r->reply.done = true;
        if (r->is_mute) r->reply.bytes.n = 0;
        if (r->is_mute && client_first(c) == r) client_drain(c);
    }
    client_wants_write(c);
}

void client_reply_error(struct client *c, const char *text)
{
    struct resp_out o;
    struct request *r = client_reply_begin(c, &o);
    size_t at = o.buf->n;
    resp_error(&o, text);
    measure_error(c->worker, bytes_make(o.buf->p + at, o.buf->n - at));
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

static bool stalled(const struct front_client *base)
{
    const struct client *c = client_of(base);
    return (c->confirming && c->held_back) || !list_empty(&c->orphan) || (c->barrier && base->first) ||
           c->queued_bytes > REQUESTS_BYTES || base->queued * c->reply_bytes > REPLIES_BYTES;
}

/* One that waits for a blocking command is read from to learn that it has gone. */
static bool awaits_end(const struct front_client *base)
{
    return base->first && client_first(client_of(base))->is_blocking;
}

static bool subscribed(const struct front_client *base)
{
    return client_of(base)->subscribed || client_of(base)->monitoring;
}

static bool engaged(const struct front_client *base)
{
    const struct client *c = client_of(base);
    return c->in_multi || c->watching;
}

static void protocol_error(struct client *c)
{
    char text[96];
    strcpy(text, "ERR ");
    strncat(text, c->parser.error, sizeof text - 5);
    client_reply_error(c, text);
    c->base.close_after_reply = true;
}

static size_t take(struct front_client *base, struct bytes in)
{
    struct client *c = client_of(base);
    struct worker *w = c->worker;
    struct resp_request *request = &w->front->request;
    size_t pos = 0;
    base->input_waits = true; /* unless the bytes end first */
    measure_now(w);
    while (!front_stalled(base)) {
        if (pos == in.n) {
            base->input_waits = false;
            break;
        }
        c->barrier = false;
        struct bytes rest = bytes_make(in.p + pos, in.n - pos);
        enum status st = resp_parse_request(&c->parser, rest, request);
        if (st == OK) {
            bool refused;
            if (front_admit(base, request->size, &refused)) {
                count(&w->stats.commands, 1);
                if (route_request(c, request, bytes_make(rest.p, request->size)) == OUTCOME_NOT_NOW) break;
                base->policy.admitted = false;
            } else if (!refused) {
                break;
            }
            pos += request->size;
            continue;
        }
        pos += request->size;
        base->input_waits = false;
        base->need = c->parser.need;
        if (st == E_AGAIN) break;
        if (st == E_CORRUPT)
            protocol_error(c);
        else
            base->close_asap = true;
        return in.n;
    }
    return pos;
}

/* ---- users ---- */

static void logged_in(struct front_client *base)
{
    client_of(base)->parser.unauthenticated = !base->policy.authenticated;
}

static void answer_error(struct front_client *base, const char *text)
{
    client_reply_error(client_of(base), text);
}

static bool in_transaction(const struct front_client *base)
{
    return client_of(base)->in_multi;
}

static void describe(const struct front_client *base, struct buf *b)
{
    client_describe(client_of(base), b);
}

static bool has_other_rules(struct front_client *base, const struct acl_user *now)
{
    struct client *c = client_of(base);
    if (c->in_multi) c->multi_failed = true; /* what it has queued was allowed by other rules */
    return !c->subscribed || subscriptions_allowed(c, now);
}

const struct front_backend cluster_front = {
    .too_many = "-ERR max number of clients reached\r\n",
    .create = create,
    .opened = opened,
    .closed = closed,
    .take = take,
    .stalled = stalled,
    .awaits_end = awaits_end,
    .engaged = engaged,
    .subscribed = subscribed,
    .release = release,
    .answer_error = answer_error,
    .logged_in = logged_in,
    .in_transaction = in_transaction,
    .describe = describe,
    .has_other_rules = has_other_rules,
};
