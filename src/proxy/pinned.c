/* pinned.c: what needs a connection of its own: blocking commands and subscribers. */
#include "proxy/worker.h"

#include "base/number.h"

/* Behind every change of subscriptions goes a PING with this word; when it comes back, all confirmations have. */
#define MARK "covey-proxy:confirmed"

enum outcome blocking_dispatch(struct client *c, const struct command *cmd, uint16_t slot, struct bytes raw)
{
    if (!route_alone(c)) return OUTCOME_NOT_NOW;
    struct request *r = request_create(c->worker, c, cmd, slot);
    r->is_blocking = true;
    client_enqueue(c, r);
    c->barrier = true; /* as in a node, nothing else of this client happens meanwhile */
    request_dispatch(c->worker, r, raw);
    return OUTCOME_DONE;
}

/* ---- subscribers ---- */

bool subscribe_is(const struct command *cmd)
{
    switch (cmd->id) {
    case CMD_ID_SUBSCRIBE:
    case CMD_ID_UNSUBSCRIBE:
    case CMD_ID_PSUBSCRIBE:
    case CMD_ID_PUNSUBSCRIBE:
    case CMD_ID_SSUBSCRIBE:
    case CMD_ID_SUNSUBSCRIBE: return true;
    default: return false;
    }
}

/* Messages reach every node, so that any node will do where there is no slot. */
static struct link *link_for(struct client *c, bool has_slot, uint16_t slot, bool *full)
{
    struct worker *w = c->worker;
    *full = false;
    struct backend *b = w->slots[has_slot ? slot : route_any_slot(c)];
    struct link *l = b ? node_link_pin(w, b, c, full) : NULL;
    if (has_slot) return l;
    list_each(it, &w->backends)
    {
        if (l || *full) break;
        b = container_of(it, struct backend, link);
        if (b->in_map) l = node_link_pin(w, b, c, full);
    }
    return l;
}

static bool begin_subscribing(struct client *c, bool has_slot, uint16_t slot)
{
    bool full;
    unwatch(c);
    struct link *l = link_for(c, has_slot, slot, &full);
    if (!l) {
        client_reply_error(c, full ? "ERR too many connections of one client each (pinned-connections)"
                                   : "ERR no node to subscribe at is available now");
        return false;
    }
    l->is_raw = true;
    c->pinned = l;
    c->subscribed = true;
    c->channels = c->shard_channels = 0;
    return true;
}

enum outcome subscribe_dispatch(struct client *c, const struct command *cmd, const struct resp_request *req,
                                struct bytes raw)
{
    uint16_t slot = 0;
    if (!route_alone(c)) return OUTCOME_NOT_NOW;
    int found = route_slot(cmd, req->argv, req->argc, &slot);
    if (found == 2) {
        client_reply_error(c, "CROSSSLOT Keys in request don't hash to the same slot");
        return OUTCOME_DONE;
    }
    if (c->subscribed && found == 1 && c->worker->slots[slot] != c->pinned->backend) {
        client_reply_error(c, "CROSSSLOT the proxy subscribes to shard channels of one node a connection");
        return OUTCOME_DONE;
    }
    if (!c->subscribed && !begin_subscribing(c, found == 1, slot)) return OUTCOME_DONE;
    struct link *l = c->pinned;
    struct buf b = {0};
    buf_append_bytes(&b, raw);
    resp_request_cstr(&b, 2, "PING", MARK);
    c->confirming++;
    node_link_send_raw(l, buf_bytes(&b));
    buf_deinit(&b);
    return OUTCOME_DONE;
}

static bool is_mark(struct bytes reply)
{
    static const char end[] = "\r\n" MARK "\r\n";
    size_t n = sizeof end - 1;
    if (reply.n < n || memcmp(reply.p + reply.n - n, end, n) != 0) return false;
    return reply.p[0] == '$' || (reply.n > 8 && memcmp(reply.p + 1, "2\r\n$4\r\n", 7) == 0);
}

/* The bulk that begins at reply[from]; *next: behind it. */
static struct bytes bulk_at(struct bytes reply, size_t from, size_t *next)
{
    size_t length = 0, i = from + 1;
    if (from >= reply.n || reply.p[from] != '$') return (struct bytes){0};
    for (; i < reply.n && reply.p[i] >= '0' && reply.p[i] <= '9' && length < reply.n; i++)
        length = length * 10 + (size_t)(reply.p[i] - '0');
    if (i + 2 + length + 2 > reply.n) return (struct bytes){0};
    *next = i + 2 + length + 2;
    return bytes_make(reply.p + i + 2, length);
}

/* How many subscriptions there are, from a confirmation. */
static void note_count(struct client *c, struct bytes reply)
{
    size_t next = 0, from = reply.n;
    if (reply.n < 8 || reply.p[1] != '3') return;
    struct bytes what = bulk_at(reply, 4, &next);
    size_t tail = sizeof "subscribe" - 1;
    if (what.n < tail || memcmp(what.p + what.n - tail, "subscribe", tail) != 0) return;
    while (from > next && reply.p[from - 1] != ':') from--;
    int64_t n;
    if (from + 2 > reply.n || !parse_i64(bytes_make(reply.p + from, reply.n - from - 2), &n)) return;
    if (what.p[0] == 's' && what.n != tail)
        c->shard_channels = n;
    else
        c->channels = n;
}

void subscriber_receive(struct client *c, struct bytes reply)
{
    if (c->confirming && is_mark(reply)) {
        c->confirming--;
        c->subscribed = c->channels > 0 || c->shard_channels > 0 || c->confirming;
        if (c->input_waits) client_wants_resume(c);
        client_wants_write(c);
        return;
    }
    if (reply.p[0] == '-' && reply.n > 6 && memcmp(reply.p, "-MOVED", 6) == 0) {
        topology_refresh(c->worker->proxy->topology);
        c->close_asap = true; /* it finds the new node when it comes again */
        client_wants_write(c);
        return;
    }
    note_count(c, reply);
    buf_append_bytes(&c->out, reply);
    client_wants_write(c);
    /* A subscriber that does not read is cut off, as by a node. */
    if (c->out.n - c->out_pos > 32u * 1024 * 1024) c->close_asap = true;
}
