/* pubsub_commands.c: SUBSCRIBE and its family, PUBLISH, PUBSUB. */
#include "base/glob.h"
#include "cluster/cluster.h"
#include "server/cluster_link.h"
#include "server/pubsub.h"

static void subscribe_all(struct call *c, enum pubsub_kind kind, const char *what)
{
    struct conn *conn = call_conn(c);
    for (size_t i = 1; i < c->argc; i++) {
        pubsub_subscribe(conn, kind, c->argv[i]);
        pubsub_reply_change(conn, &c->out, what, kind, &c->argv[i]);
    }
}

/* A copy of the name of one of the connection's subscriptions; false: there is none left. */
static bool next_name(const struct conn *c, enum pubsub_kind kind, struct buf *name)
{
    struct bytes any = pubsub_any(c, kind);
    name->n = 0;
    buf_append(name, "", 1); /* so that an empty name is one, too */
    buf_append_bytes(name, any);
    return any.p != NULL;
}

static void unsubscribe(struct call *c, enum pubsub_kind kind, const char *what)
{
    struct conn *conn = call_conn(c);
    struct buf name = {0};
    bool any = false;
    for (size_t i = 1; i < c->argc; i++) {
        pubsub_unsubscribe(conn, kind, c->argv[i]);
        pubsub_reply_change(conn, &c->out, what, kind, &c->argv[i]);
    }
    while (c->argc == 1 && next_name(conn, kind, &name)) {
        struct bytes n = bytes_make(name.p + 1, name.n - 1);
        any = true;
        pubsub_unsubscribe(conn, kind, n);
        pubsub_reply_change(conn, &c->out, what, kind, &n);
    }
    if (c->argc == 1 && !any) pubsub_reply_change(conn, &c->out, what, kind, NULL);
    buf_deinit(&name);
}

void cmd_subscribe(struct call *c)
{
    subscribe_all(c, PUBSUB_CHANNEL, "subscribe");
}

void cmd_psubscribe(struct call *c)
{
    subscribe_all(c, PUBSUB_PATTERN, "psubscribe");
}

void cmd_ssubscribe(struct call *c)
{
    if (call_conn(c)->in_multi) { /* unlike SUBSCRIBE */
        resp_error(&c->out, "ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client");
        return;
    }
    if (cluster_route_channels(call_conn(c), c)) subscribe_all(c, PUBSUB_SHARD, "ssubscribe");
}

void cmd_unsubscribe(struct call *c)
{
    unsubscribe(c, PUBSUB_CHANNEL, "unsubscribe");
}

void cmd_punsubscribe(struct call *c)
{
    unsubscribe(c, PUBSUB_PATTERN, "punsubscribe");
}

void cmd_sunsubscribe(struct call *c)
{
    if (cluster_route_channels(call_conn(c), c)) unsubscribe(c, PUBSUB_SHARD, "sunsubscribe");
}

/* In a cluster the bus carries messages to the other nodes, replicas among them; otherwise the replication stream
 * does. */
static void publish(struct call *c, enum pubsub_kind kind)
{
    struct conn *conn = call_conn(c);
    struct node *n = conn->worker->node;
    uint64_t receivers = pubsub_publish(n, conn, kind, c->argv[1], c->argv[2]);
    if (n->cluster) {
        cluster_send_message(n->cluster, kind == PUBSUB_SHARD, c->argv[1], c->argv[2]);
        pubsub_hold_up(conn);
    } else {
        call_effect(c, c->argc, c->argv);
    }
    resp_i64(&c->out, (int64_t)receivers);
}

void cmd_publish(struct call *c)
{
    publish(c, PUBSUB_CHANNEL);
}

void cmd_spublish(struct call *c)
{
    if (cluster_route_channels(call_conn(c), c)) publish(c, PUBSUB_SHARD);
}

/* ---- PUBSUB ---- */

struct listing {
    struct resp_out *out;
    struct bytes pattern; /* p NULL: all */
    size_t n;
};

static void list_name(void *arg, struct bytes name)
{
    struct listing *l = arg;
    if (l->pattern.p && !glob_match(l->pattern, name, false)) return;
    resp_bulk(l->out, name);
    l->n++;
}

static void list_names(struct call *c, enum pubsub_kind kind)
{
    struct listing l = {.out = &c->out};
    if (c->argc > 3) {
        resp_errorf(&c->out, "ERR unknown subcommand or wrong number of arguments for '%.*s'. Try PUBSUB HELP.",
                    (int)(c->argv[1].n < 128 ? c->argv[1].n : 128), c->argv[1].p);
        return;
    }
    if (c->argc == 3) l.pattern = c->argv[2];
    size_t mark = resp_defer(&c->out);
    pubsub_each(call_conn(c)->worker->node, kind, list_name, &l);
    resp_defer_array(&c->out, mark, l.n);
}

static void count_listeners(struct call *c, enum pubsub_kind kind)
{
    resp_array(&c->out, (c->argc - 2) * 2);
    for (size_t i = 2; i < c->argc; i++) {
        resp_bulk(&c->out, c->argv[i]);
        resp_i64(&c->out, (int64_t)pubsub_listeners(call_conn(c)->worker->node, kind, c->argv[i]));
    }
}

void cmd_pubsub_channels(struct call *c)
{
    list_names(c, PUBSUB_CHANNEL);
}

void cmd_pubsub_shardchannels(struct call *c)
{
    list_names(c, PUBSUB_SHARD);
}

void cmd_pubsub_numsub(struct call *c)
{
    count_listeners(c, PUBSUB_CHANNEL);
}

void cmd_pubsub_shardnumsub(struct call *c)
{
    count_listeners(c, PUBSUB_SHARD);
}

void cmd_pubsub_numpat(struct call *c)
{
    resp_i64(&c->out, (int64_t)pubsub_entries(call_conn(c)->worker->node, PUBSUB_PATTERN));
}

void cmd_pubsub_help(struct call *c)
{
    static const char *const lines[] = {
        "CHANNELS [<pattern>]",
        "    Return the currently active channels matching a <pattern> (default: '*').",
        "NUMPAT",
        "    Return number of subscriptions to patterns.",
        "NUMSUB [<channel> ...]",
        "    Return the number of subscribers for the specified channels, excluding",
        "    pattern subscriptions(default: no channels).",
        "SHARDCHANNELS [<pattern>]",
        "    Return the currently active shard level channels matching a <pattern> (default: '*').",
        "SHARDNUMSUB [<shardchannel> ...]",
        "    Return the number of subscribers for the specified shard level channel(s)",
    };
    call_help(c, "PUBSUB", lines, sizeof lines / sizeof *lines);
}
