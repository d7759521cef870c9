/* tick.c: what is done ten times a second. */
#include "cluster/core/internal.h"

static int64_t handshake_limit_ms(const struct cluster_core *core)
{
    return core->config.node_timeout_ms > 1000 ? core->config.node_timeout_ms : 1000;
}

/* Stillborn handshakes end; everybody else gets a connection. */
static void keep_links(struct cluster_core *core)
{
    for (size_t i = core->node_count; i-- > 0;) {
        struct cluster_node *node = core->nodes[i];
        if (node->flags & (CLUSTER_NODE_MYSELF | CLUSTER_NODE_NOADDR)) continue;
        bool handshake = node->flags & CLUSTER_NODE_HANDSHAKE;
        if (handshake && core->now.mono_ms - node->created_ms > handshake_limit_ms(core)) {
            node_delete(core, node); /* the last one takes its index: it was looked at already */
            continue;
        }
        if (!node->out.id && node->ip[0] && node->cport) link_open(core, node);
    }
}

/* Once a second: of five nodes taken at random, ping the one not heard of for longest. */
static void ping_random(struct cluster_core *core)
{
    struct cluster_node *oldest = NULL;
    for (int i = 0; i < 5; i++) {
        struct cluster_node *node = core->nodes[random_below(&core->random, core->node_count)];
        if (!node->out.up || node->ping_sent_ms) continue;
        if (node->flags & (CLUSTER_NODE_MYSELF | CLUSTER_NODE_HANDSHAKE)) continue;
        if (!oldest || node->pong_received_ms < oldest->pong_received_ms) oldest = node;
    }
    if (oldest) send_ping(core, oldest);
}

static void watch(struct cluster_core *core, struct cluster_node *node)
{
    int64_t now = core->now.mono_ms, timeout = core->config.node_timeout_ms;
    int64_t ping_age = now - node->ping_sent_ms, data_age = now - node->data_received_ms;
    bool pending = node->ping_sent_ms != 0;
    /* A connection may have died quietly: try a new one before the node itself is suspected. */
    if (node->out.id && now - node->out.since_ms > timeout && pending && ping_age > timeout / 2 &&
        data_age > timeout / 2)
        link_close(core, &node->out);
    if (node->out.id && !pending && (now - node->pong_received_ms > timeout / 2 || lease_needs_ping(core, node))) {
        send_ping(core, node);
        return;
    }
    if (core->manual.replica == node && node->out.up) {
        send_ping(core, node);
        return;
    }
    if (!pending) return;
    int64_t silent = ping_age < data_age ? ping_age : data_age;
    if (silent > timeout && !(node->flags & (CLUSTER_NODE_PFAIL | CLUSTER_NODE_FAIL)))
        failure_suspect(core, node, NULL);
}

static void watch_all(struct cluster_core *core)
{
    const unsigned skip = CLUSTER_NODE_MYSELF | CLUSTER_NODE_NOADDR | CLUSTER_NODE_HANDSHAKE;
    for (size_t i = 0; i < core->node_count; i++)
        if (!(core->nodes[i]->flags & skip)) watch(core, core->nodes[i]);
}

void tick(struct cluster_core *core)
{
    int64_t since = core->now.mono_ms - core->last_tick_ms;
    core->last_tick_ms = core->now.mono_ms;
    if (bus_silent(core)) {
        probation_tick(core);
        return;
    }
    bool alone = core->node_count == 1; /* nobody can have replaced it */
    if (since > core->config.node_timeout_ms && core->tick_number && !alone) state_lost_time(core);
    keep_links(core);
    if (core->tick_number++ % 10 == 0) ping_random(core);
    watch_all(core);
    wire_replication(core);
    manual_check_timeout(core);
    if (node_is_replica(core->myself)) {
        core->due |= DUE_MANUAL | DUE_ELECTION;
        migration_run(core);
    }
    probation_tick(core);
    noloss_tick(core);
    if (!core->state_ok) core->due |= DUE_STATE;
}
