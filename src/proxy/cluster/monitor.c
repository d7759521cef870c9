/* monitor.c: MONITOR: what all nodes show, on a connection of the client's own to each of them. */
#include "proxy/cluster/worker.h"

#include "base/mem.h"

struct monitor {
    struct list link; /* in worker.monitors */
    struct list links;
    struct client *client;
    struct request *request; /* MONITOR itself, until all nodes have confirmed it; then NULL */
    unsigned confirming;
};

static bool has_link(const struct monitor *m, const struct backend *b)
{
    list_each(it, &m->links) if (container_of(it, struct link, feed)->backend == b) return true;
    return false;
}

/* False: there are too many connections of one client. */
static bool open_links(struct monitor *m)
{
    struct client *c = m->client;
    list_each(it, &c->worker->backends)
    {
        bool full;
        struct backend *b = container_of(it, struct backend, link);
        if (!b->in_map || has_link(m, b)) continue;
        struct link *l = node_link_pin(c->worker, b, c, &full);
        if (full) return false;
        if (!l) continue;
        l->feeds = m;
        list_push_back(&m->links, &l->feed);
        m->confirming++;
        node_link_send_raw(l, BYTES("*1\r\n$7\r\nMONITOR\r\n"));
    }
    return true;
}

enum outcome feeds_dispatch(struct client *c, const struct command *cmd)
{
    if (!route_alone(c)) return OUTCOME_NOT_NOW;
    if (c->subscribed || c->watching || c->monitoring) {
        client_reply_error(c,
                           "ERR MONITOR is not possible for a subscriber, a monitor or inside WATCH through the proxy");
        return OUTCOME_DONE;
    }
    struct monitor *m = mem_calloc(1, sizeof *m);
    list_init(&m->links);
    m->client = c;
    list_push_back(&c->worker->monitors, &m->link);
    c->monitoring = m;
    if (!open_links(m) || list_empty(&m->links)) {
        feeds_end(c);
        client_reply_error(c, "ERR no connections to the nodes are available now");
        return OUTCOME_DONE;
    }
    m->request = request_create(c->worker, c, cmd, 0);
    m->request->state = REQUEST_PARTS;
    client_enqueue(c, m->request);
    c->barrier = true;
    return OUTCOME_DONE;
}

void feeds_end(struct client *c)
{
    struct monitor *m = c->monitoring;
    if (!m) return;
    c->monitoring = NULL;
    while (!list_empty(&m->links)) {
        struct link *l = container_of(m->links.next, struct link, feed);
        list_remove(&l->feed);
        l->feeds = NULL;
        node_link_unpin(l, false);
    }
    list_remove(&m->link);
    mem_free(m);
}

static void confirmed(struct monitor *m)
{
    struct request *r = m->request;
    if (m->confirming || !r) return;
    m->request = NULL;
    request_answer(m->client->worker, r, BYTES("+OK\r\n"));
}

void feeds_receive(struct link *l, struct bytes reply)
{
    struct monitor *m = l->feeds;
    struct client *c = m->client;
    bool is_first = !l->feed_begun;
    l->feed_begun = true;
    if (is_first) {
        m->confirming--;
        if (reply.p[0] == '-' && !m->request) return; /* a node that came later does not let us */
        if (reply.p[0] != '-') return confirmed(m);
        struct request *r = m->request;
        m->request = NULL;
        request_answer(c->worker, r, reply);
        c->base.close_after_reply = true; /* it cannot be what it has asked to be */
        return;
    }
    if (m->request) return; /* not begun for its client */
    buf_append_bytes(&c->base.out, reply);
    client_wants_write(c);
    /* One that does not read is cut off, as by a node. */
    if (c->base.out.n - c->base.out_pos > 32u * 1024 * 1024) c->base.close_asap = true;
}

void feeds_lost(struct link *l)
{
    struct monitor *m = l->feeds;
    list_remove(&l->feed);
    l->feeds = NULL;
    if (l->feed_begun) return;
    m->confirming--;
    confirmed(m);
}

/* Nodes that have come, or come again. */
void feeds_run(struct worker *w)
{
    list_each(it, &w->monitors) open_links(container_of(it, struct monitor, link));
}
