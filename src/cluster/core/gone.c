/* gone.c: a process that has died is told at once from a machine that is silent (docs/durability.md).
 *
 * A primary is gone when a connection to it that stood was closed, none is left in either direction, nothing has come
 * from it since, and it has refused two connections 50 ms or more apart: its machine answers, and nobody listens there.
 * Whatever is heard of it, an accepted connection too, makes it no longer gone; time-outs and unreachable addresses are
 * silence, which the node timeout is for.
 *
 * Who sees a primary gone suspects it at once (PFAIL) and says so to its replicas, whose gossip it is that counts.  A
 * replica that sees it too has FAIL as soon as a majority has said so, tells everybody, and stands without the delay
 * that is there for a majority to find out.  Voters of redis-server believe the FAIL; as observers they take their node
 * timeout. */
#include "cluster/core/internal.h"

enum { GONE_APART_MS = 50 };

/* Nothing is gained where nobody can take over. */
static bool has_successor(const struct cluster_node *node)
{
    for (size_t i = 0; i < node->replica_count; i++) {
        const struct cluster_node *r = node->replicas[i];
        if (!(r->flags & (CLUSTER_NODE_PFAIL | CLUSTER_NODE_FAIL | CLUSTER_NODE_NOFAILOVER))) return true;
    }
    return false;
}

static bool is_watched(const struct cluster_core *core, const struct cluster_node *node)
{
    return node != core->myself && node_is_primary(node) && node->slot_count && !bus_silent(core) &&
           !(node->flags & (CLUSTER_NODE_HANDSHAKE | CLUSTER_NODE_NOADDR)) && has_successor(node);
}

void gone_link_lost(struct cluster_core *core, struct cluster_node *node)
{
    node->lost_ms = core->now.mono_ms;
    node->refused_ms = 0;
    if (!node->out.id && is_watched(core, node) && node->ip[0] && node->cport) link_open(core, node);
}

void gone_cancel(struct cluster_node *node)
{
    node->refused_ms = 0;
    node->gone = false;
}

void gone_connected(struct cluster_node *node)
{
    gone_cancel(node);
    node->lost_ms = 0;
}

static void tell_replicas(struct cluster_core *core, const struct cluster_node *node)
{
    for (size_t i = 0; i < node->replica_count; i++) {
        struct cluster_node *r = node->replicas[i];
        if (r != core->myself && r->out.up) send_ping_type(core, r->out.id, r, CLUSTER_PONG);
    }
}

void gone_refused(struct cluster_core *core, struct cluster_node *node)
{
    int64_t now = core->now.mono_ms;
    if (!node->lost_ms || node->in.id || !is_watched(core, node)) return;
    if (!node->refused_ms) node->refused_ms = now;
    if (node->gone || now - node->refused_ms < GONE_APART_MS) return;
    node->gone = true;
    if (node->flags & CLUSTER_NODE_FAIL) return;
    if (!(node->flags & CLUSTER_NODE_PFAIL)) failure_suspect(core, node, "its process is gone");
    tell_replicas(core, node);
    failure_try_quorum(core, node);
}
