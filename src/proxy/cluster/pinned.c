/* pinned.c: what needs a connection of its own: blocking commands and subscribers. */
#include "proxy/cluster/worker.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/number.h"

enum { LOOK_MS = 20 };

/* Behind every change of subscriptions goes a PING with this word; when it comes back, all confirmations have. */
#define MARK "covey-proxy:confirmed"

/* XREAD from "$" on: asked again, it would pass over what came meanwhile. */
static bool has_dollar(struct bytes raw)
{
    static const char dollar[] = "\r\n$1\r\n$\r\n";
    return memmem(raw.p, raw.n, dollar, sizeof dollar - 1) != NULL;
}

enum outcome blocking_dispatch(struct client *c, const struct command *cmd, uint16_t slot, struct bytes raw,
                               bool crosses)
{
    if (!route_alone(c)) return OUTCOME_NOT_NOW;
    struct request *r = request_create(c->worker, c, cmd, slot);
    r->is_blocking = true;
    r->crosses = r->asks_cross = crosses;
    c->blockings++;
    r->is_safe = (cmd->flags & CMD_READONLY) && !has_dollar(raw);
    client_enqueue(c, r);
    c->barrier = true; /* as in a node, nothing else of this client happens meanwhile */
    request_dispatch(c->worker, r, raw);
    return OUTCOME_DONE;
}

/* ---- subscribers ---- */

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

/* While nodes are away it waits, as requests do.  OUTCOME_DONE: an error was replied if c->subscribed is not set. */
static enum outcome begin_subscribing(struct client *c, bool has_slot, uint16_t slot)
{
    bool full;
    int64_t now = c->worker->now_ms;
    unwatch(c);
    struct link *l = link_for(c, has_slot, slot, &full);
    if (!l && !full && c->subscribe_until == 0) c->subscribe_until = now + c->worker->config->hold_timeout_ms;
    if (!l && !full && now < c->subscribe_until) {
        topology_refresh(c->worker->proxy->topology);
        front_delay(&c->base, LOOK_MS);
        return OUTCOME_NOT_NOW;
    }
    c->subscribe_until = 0;
    if (!l) {
        client_reply_error(c, full ? "ERR too many connections of one client each (pinned-connections)"
                                   : "ERR no node to subscribe at is available now");
        return OUTCOME_DONE;
    }
    l->is_raw = true;
    c->pinned = l;
    c->subscribed = true;
    return OUTCOME_DONE;
}

/* Shard channels of several slots, all of one node: one by one, which the client sees no difference to. */
static void write_each(const struct resp_request *req, struct buf *out)
{
    for (size_t i = 1; i < req->argc; i++) {
        resp_request_begin(out, 2);
        resp_request_arg(out, req->argv[0]);
        resp_request_arg(out, req->argv[i]);
    }
}

enum outcome subscribe_dispatch(struct client *c, const struct command *cmd, const struct resp_request *req,
                                struct bytes raw)
{
    uint16_t slot = 0;
    if (!route_alone(c)) return OUTCOME_NOT_NOW;
    int found = route_find(c->worker, cmd, req, &slot);
    if (found == 2 && !c->worker->only) {
        client_reply_error(c, CROSSSLOT_ERROR);
        return OUTCOME_DONE;
    }
    if (c->subscribed && found >= 1 && c->worker->slots[slot] != c->pinned->backend) {
        client_reply_error(c, "CROSSSLOT the proxy subscribes to shard channels of one node a connection");
        return OUTCOME_DONE;
    }
    if (!c->subscribed) {
        enum outcome o = begin_subscribing(c, found >= 1, slot);
        if (!c->subscribed) return o;
    }
    struct link *l = c->pinned;
    struct buf b = {0};
    if (found == 2)
        write_each(req, &b);
    else
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

/* ---- what a client is subscribed to, so that it can be told to another node ---- */

enum subscription_kind { KIND_CHANNEL, KIND_PATTERN, KIND_SHARD, KIND_COUNT };

struct subscription {
    struct hnode node;
    enum subscription_kind kind;
    size_t n;
    char name[];
};

static struct subscription *find_subscription(const struct client *c, enum subscription_kind kind, struct bytes name,
                                              uint64_t hash)
{
    if (!c->subscriptions.count) return NULL;
    for (struct hnode *it = htable_chain(&c->subscriptions, hash); it; it = it->next) {
        struct subscription *s = container_of(it, struct subscription, node);
        if (it->hash == hash && s->kind == kind && bytes_eq(bytes_make(s->name, s->n), name)) return s;
    }
    return NULL;
}

size_t subscriptions_count(const struct client *c, bool patterns)
{
    size_t n = 0;
    for (size_t i = 0; i < c->subscriptions.buckets; i++)
        for (const struct hnode *it = htable_at(&c->subscriptions, i); it; it = it->next)
            n += container_of(it, const struct subscription, node)->kind == (patterns ? KIND_PATTERN : KIND_CHANNEL);
    return n;
}

static void note_subscription(struct client *c, enum subscription_kind kind, struct bytes name, bool on)
{
    uint64_t hash = hash_bytes(name) + kind;
    struct subscription *s = find_subscription(c, kind, name, hash);
    if (on && !s) {
        s = mem_alloc(sizeof *s + name.n);
        *s = (struct subscription){.node.hash = hash, .kind = kind, .n = name.n};
        memcpy(s->name, name.p, name.n);
        htable_insert(&c->subscriptions, &s->node);
    } else if (!on && s) {
        htable_remove(&c->subscriptions, &s->node);
        mem_free(s);
    }
}

void subscriptions_end(struct client *c)
{
    for (size_t i = 0; i < c->subscriptions.buckets; i++)
        for (struct hnode *it = htable_at(&c->subscriptions, i), *next; it; it = next) {
            next = it->next;
            mem_free(container_of(it, struct subscription, node));
        }
    htable_deinit(&c->subscriptions);
    c->subscriptions = (struct htable){0};
    list_remove(&c->orphan);
    c->subscribed = c->renewing = c->held_back = false;
    c->channels = c->shard_channels = 0;
    c->confirming = 0;
}

bool subscriptions_allowed(const struct client *c, const struct acl_user *u)
{
    for (size_t i = 0; i < c->subscriptions.buckets; i++)
        for (const struct hnode *it = htable_at(&c->subscriptions, i); it; it = it->next) {
            const struct subscription *s = container_of(it, const struct subscription, node);
            if (!acl_check_channel(u, bytes_make(s->name, s->n), s->kind == KIND_PATTERN)) return false;
        }
    return true;
}

/* What a confirmation says: the change, and how many subscriptions there are.  False: it is none. */
static bool note_count(struct client *c, struct bytes reply)
{
    size_t next = 0, from = reply.n;
    if (reply.n < 8 || reply.p[1] != '3') return false;
    struct bytes what = bulk_at(reply, 4, &next);
    size_t tail = sizeof "subscribe" - 1;
    if (what.n < tail || memcmp(what.p + what.n - tail, "subscribe", tail) != 0) return false;
    while (from > next && reply.p[from - 1] != ':') from--;
    int64_t n;
    if (from + 2 > reply.n || !parse_i64(bytes_make(reply.p + from, reply.n - from - 2), &n)) return false;
    bool is_shard = what.p[0] == 's' && what.n != tail, on = what.n == tail + (is_shard || what.p[0] == 'p');
    struct bytes name = bulk_at(reply, next, &next);
    if (name.p) note_subscription(c, is_shard ? KIND_SHARD : what.p[0] == 'p' ? KIND_PATTERN : KIND_CHANNEL, name, on);
    if (is_shard)
        c->shard_channels = n;
    else
        c->channels = n;
    return true;
}

void subscriber_receive(struct client *c, struct bytes reply)
{
    if (c->confirming && is_mark(reply)) {
        c->confirming--;
        c->held_back = c->held_back && c->confirming;
        c->renewing = false;
        c->subscribed = c->channels > 0 || c->shard_channels > 0 || c->confirming;
        if (c->base.input_waits) client_wants_resume(c);
        client_wants_write(c);
        return;
    }
    if (reply.p[0] == '-' && reply.n > 6 && memcmp(reply.p, "-MOVED", 6) == 0) {
        topology_refresh(c->worker->proxy->topology);
        c->base.close_asap = true; /* it finds the new node when it comes again */
        client_wants_write(c);
        return;
    }
    if (note_count(c, reply) && c->renewing) return; /* it knows */
    buf_append_bytes(&c->base.out, reply);
    client_wants_write(c);
}

/* ---- another node ---- */

bool subscriber_orphaned(struct client *c)
{
    struct worker *w = c->worker;
    if (c->confirming && !c->renewing) return false; /* what it has now is not known */
    c->confirming = 0;
    c->renewing = true;
    if (c->orphan_until < w->now_ms) c->orphan_until = w->now_ms + w->config->hold_timeout_ms;
    if (list_empty(&c->orphan)) list_push_back(&w->orphans, &c->orphan);
    return true;
}

static void write_subscriptions(const struct client *c, struct buf *out)
{
    static const char *const names[KIND_COUNT] = {"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"};
    for (size_t i = 0; i < c->subscriptions.buckets; i++)
        for (const struct hnode *it = htable_at(&c->subscriptions, i); it; it = it->next) {
            const struct subscription *s = container_of(it, const struct subscription, node);
            resp_request_begin(out, 2);
            resp_request_arg(out, bytes_of(names[s->kind]));
            resp_request_arg(out, bytes_make(s->name, s->n));
        }
    resp_request_cstr(out, 2, "PING", MARK);
}

/* The slot of its shard channels, if it has any. */
static bool slot_wanted(const struct client *c, uint16_t *slot)
{
    for (size_t i = 0; i < c->subscriptions.buckets; i++)
        for (const struct hnode *it = htable_at(&c->subscriptions, i); it; it = it->next) {
            const struct subscription *s = container_of(it, const struct subscription, node);
            if (s->kind != KIND_SHARD) continue;
            *slot = (uint16_t)key_slot(bytes_make(s->name, s->n));
            return true;
        }
    return false;
}

static void renew(struct client *c)
{
    bool full;
    uint16_t slot = 0;
    bool has_slot = slot_wanted(c, &slot);
    struct link *l = link_for(c, has_slot, slot, &full);
    if (!l) {
        if (c->worker->now_ms < c->orphan_until) return;
        c->base.close_asap = true; /* it may have more luck */
        client_wants_write(c);
        return;
    }
    list_remove(&c->orphan);
    l->is_raw = true;
    c->pinned = l;
    c->confirming = 1;
    struct buf b = {0};
    write_subscriptions(c, &b);
    node_link_send_raw(l, buf_bytes(&b));
    buf_deinit(&b);
}

void orphans_run(struct worker *w)
{
    list_each(it, &w->orphans) renew(container_of(it, struct client, orphan));
}
