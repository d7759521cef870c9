/* gossip.c: what heartbeats tell about third nodes, both ways. */
#include "base/mem.h"
#include "cluster/core/internal.h"

/* ---- sending ---- */

static uint32_t unix_seconds(const struct cluster_core *core, int64_t mono_ms)
{
    int64_t wall = wall_of(core, core->now, mono_ms);
    return wall > 0 ? (uint32_t)(wall / 1000) : 0;
}

static void gossip_add(struct cluster_core *core, struct cluster_outgoing *o, const struct cluster_node *node)
{
    struct cluster_gossip *g = &o->gossip[o->m.gossip_count++];
    g->id = node->id;
    g->ping_sent_s = unix_seconds(core, node->ping_sent_ms);
    g->pong_received_s = unix_seconds(core, node->pong_received_ms);
    memcpy(g->ip, node->ip, sizeof g->ip);
    g->port = node->port;
    g->cport = node->cport;
    g->pport = node->pport;
    g->flags = (uint16_t)node->flags;
}

static bool gossip_has(const struct cluster_outgoing *o, const struct cluster_node *node)
{
    for (size_t i = 0; i < o->m.gossip_count; i++)
        if (cluster_id_eq(&o->gossip[i].id, &node->id)) return true;
    return false;
}

/* Three at least, a tenth of the cluster at most: within 2 x node timeout (the life of a failure report) each node
 * then hears about each other one from most primaries, several times over. */
static size_t gossip_wanted(const struct cluster_core *core)
{
    size_t wanted = core->node_count / 10, others = core->node_count > 2 ? core->node_count - 2 : 0;
    if (wanted < 3) wanted = 3;
    return wanted < others ? wanted : others;
}

void gossip_fill(struct cluster_core *core, struct cluster_outgoing *o)
{
    const unsigned useless = CLUSTER_NODE_HANDSHAKE | CLUSTER_NODE_NOADDR;
    size_t wanted = gossip_wanted(core), need = core->node_count < 65535 ? core->node_count : 65535;
    GROW(o->gossip, o->gossip_cap, need);
    o->m.gossip = o->gossip;
    for (size_t tries = wanted * 3; tries && o->m.gossip_count < wanted; tries--) {
        struct cluster_node *node = core->nodes[random_below(&core->random, core->node_count)];
        if (node == core->myself || node->flags & (useless | CLUSTER_NODE_PFAIL)) continue;
        if (!node->out.id && !node->slot_count) continue;
        if (!gossip_has(o, node)) gossip_add(core, o, node);
    }
    /* All suspects, always: a majority must hear of each other's suspicion before the reports expire. */
    list_each(it, &core->suspects)
    {
        struct cluster_node *node = container_of(it, struct cluster_node, suspects);
        if (o->m.gossip_count == need) break;
        if (!(node->flags & useless)) gossip_add(core, o, node);
    }
}

/* ---- receiving ---- */

static void take_report(struct cluster_core *core, const struct cluster_gossip *g, struct cluster_node *node,
                        struct cluster_node *sender)
{
    if (!node_is_primary(sender) || node == core->myself) return;
    if (g->flags & (CLUSTER_NODE_FAIL | CLUSTER_NODE_PFAIL)) {
        report_add(core, node, sender);
        failure_try_quorum(core, node);
    } else {
        report_remove(node, sender);
    }
}

/* A third node's pong counts as mine when I have no reason to doubt the node.  The peer's times are of its wall clock;
 * values in my future are not believed beyond half a second. */
static void take_pong_time(struct cluster_core *core, const struct cluster_gossip *g, struct cluster_node *node)
{
    if (g->flags & (CLUSTER_NODE_FAIL | CLUSTER_NODE_PFAIL)) return;
    if (node->ping_sent_ms || !g->pong_received_s || reports_valid(core, node)) return;
    int64_t age = core->now.wall_ms - (int64_t)g->pong_received_s * 1000;
    if (age < -500) return;
    int64_t heard = core->now.mono_ms - (age > 0 ? age : 0);
    if (heard > node->pong_received_ms) node->pong_received_ms = heard;
}

static void take_address(struct cluster_core *core, const struct cluster_gossip *g, struct cluster_node *node)
{
    const unsigned bad = CLUSTER_NODE_FAIL | CLUSTER_NODE_PFAIL;
    if (!(node->flags & bad) || g->flags & (bad | CLUSTER_NODE_NOADDR) || !g->ip[0]) return;
    if (strcmp(node->ip, g->ip) == 0 && node->port == g->port && node->cport == g->cport) return;
    link_close(core, &node->out);
    memcpy(node->ip, g->ip, sizeof node->ip);
    node->port = g->port;
    node->pport = g->pport;
    node->cport = g->cport;
    node_set_flags(core, node, 0, CLUSTER_NODE_NOADDR);
    core->due |= DUE_MAP | DUE_SAVE | DUE_ADDRESS;
}

static void learn_node(struct cluster_core *core, const struct cluster_gossip *g)
{
    const unsigned unfit = CLUSTER_NODE_NOADDR | CLUSTER_NODE_HANDSHAKE;
    if (g->flags & unfit || !g->ip[0] || !g->cport || blacklist_has(core, &g->id)) return;
    unsigned flags = g->flags & (CLUSTER_NODE_FAIL | CLUSTER_NODE_NOFAILOVER);
    flags |= g->flags & CLUSTER_NODE_REPLICA ? CLUSTER_NODE_REPLICA : g->flags & CLUSTER_NODE_PRIMARY;
    struct cluster_node *node = node_create(core, &g->id, flags);
    memcpy(node->ip, g->ip, sizeof node->ip);
    node->port = g->port;
    node->pport = g->pport;
    node->cport = g->cport;
    node->fail_ms = core->now.mono_ms;
    core->due |= DUE_SAVE;
    note(core, CLUSTER_NOTE_JOINED, node, 0, "gossip");
}

void receive_gossip(struct cluster_core *core, const struct cluster_message *m, struct cluster_node *sender)
{
    /* One bad id spoils all entries: whoever wrote it does not follow the format. */
    for (size_t i = 0; i < m->gossip_count; i++) {
        struct cluster_id id;
        if (!cluster_id_parse(bytes_make(m->gossip[i].id.c, CLUSTER_ID_SIZE), &id)) return;
    }
    for (size_t i = 0; i < m->gossip_count; i++) {
        const struct cluster_gossip *g = &m->gossip[i];
        struct cluster_node *node = node_find(core, &g->id);
        if (!node) {
            learn_node(core, g);
            continue;
        }
        take_report(core, g, node, sender);
        if (node == core->myself) continue;
        take_pong_time(core, g, node);
        take_address(core, g, node);
    }
}
