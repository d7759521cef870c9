/* role.c: this node becomes a replica or a primary, and the data side is told. */
#include "cluster/core/internal.h"

#include <assert.h>

void wire_replication(struct cluster_core *core)
{
    const struct cluster_node *me = core->myself, *p = me->primary;
    if (!node_is_replica(me) || !p || !p->ip[0] || !p->port || p->flags & CLUSTER_NODE_NOADDR) return;
    uint16_t port = core->config.follow_pport && p->pport ? p->pport : p->port;
    bool same = core->wired.valid && cluster_id_eq(&core->wired.node, &p->id) && core->wired.port == port;
    if (same && strcmp(core->wired.ip, p->ip) == 0) return;
    core->wired.valid = true;
    core->wired.node = p->id;
    core->wired.port = port;
    memcpy(core->wired.ip, p->ip, sizeof core->wired.ip);
    struct cluster_action *a = act(core, CLUSTER_DO_REPLICATE);
    a->node = p->id;
    a->port = port;
    memcpy(a->ip, p->ip, sizeof a->ip);
}

void become_replica_of(struct cluster_core *core, struct cluster_node *primary)
{
    struct cluster_node *me = core->myself;
    assert(primary != me && me->slot_count == 0);
    probation_end(core);
    if (!node_is_replica(me)) {
        slots_drop_marks(core, NULL);
        node_make_replica(core, me);
    }
    node_set_primary(core, me, primary);
    shard_follow(core);
    noloss_demoted(core);
    if (primary->out.up && !primary->ping_sent_ms) send_ping(core, primary);
    manual_reset(core);
    core->election.at_ms = LONG_AGO;
    core->election.sent = core->election.sealed = false;
    core->wired.valid = false;
    if (!cluster_id_eq(&core->synced_with, &primary->id)) core->synced_with = (struct cluster_id){{0}};
    core->due |= DUE_VITAL | DUE_MAP | DUE_STATE | DUE_ADDRESS;
    wire_replication(core);
}

/* The config epoch has been chosen by the caller: by votes, or without (TAKEOVER). */
void promote_myself(struct cluster_core *core)
{
    struct cluster_node *me = core->myself, *old = me->primary;
    assert(node_is_replica(me) && old);
    shard_follow(core);
    node_make_primary(core, me);
    for (unsigned s = cluster_bit_next(old->slots, 0); s < SLOT_COUNT; s = cluster_bit_next(old->slots, s + 1))
        slot_assign(core, s, me);
    core->facts.primary_offset = core->facts.applied_offset;
    core->wired.valid = false;
    core->synced_with = (struct cluster_id){{0}};
    core->election.at_ms = LONG_AGO;
    core->election.sent = core->election.sealed = false;
    struct cluster_action *a = act(core, CLUSTER_DO_PROMOTE);
    a->until_ms = core->manual.offset_known ? core->now.mono_ms + core->config.ack_patience_ms : 0;
    core->due |= DUE_VITAL | DUE_MAP;
    core->serve_after_seq = core->persist_seq + 1;
    noloss_promoted(core);
    state_update(core);
    broadcast_pong(core, PONG_TO_ALL);
    lease_refresh(core);
    manual_reset(core);
}
