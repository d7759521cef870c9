/* epoch.c: epochs only ever rise. */
#include "cluster/core/internal.h"

static uint64_t epoch_max(const struct cluster_core *core)
{
    uint64_t max = core->current_epoch;
    for (size_t i = 0; i < core->node_count; i++)
        if (core->nodes[i]->config_epoch > max) max = core->nodes[i]->config_epoch;
    return max;
}

/* An epoch heard of is saved before it is repeated to anybody, so a crash cannot make this node's epoch go back. */
void epoch_raise(struct cluster_core *core, uint64_t seen)
{
    if (seen <= core->current_epoch) return;
    core->current_epoch = seen;
    core->due |= DUE_VITAL;
}

/* A new config epoch without anybody's consent: after an import, by TAKEOVER, by BUMPEPOCH.  Another node may do the
 * same at the same moment, or win an election in the same epoch; epoch_collision() sorts that out later.  Both could
 * claim one slot only if an import into this node ends (or it is told to take over) while, out of its sight, a replica
 * of the slot's owner is elected; the bus has no message by which to ask first.  Two winners by votes never share an
 * epoch. */
bool epoch_bump(struct cluster_core *core)
{
    struct cluster_node *me = core->myself;
    uint64_t max = epoch_max(core);
    if (me->config_epoch != 0 && me->config_epoch == max) return false;
    core->current_epoch = max + 1;
    me->config_epoch = core->current_epoch;
    core->due |= DUE_VITAL | DUE_MAP;
    note(core, CLUSTER_NOTE_EPOCH_BUMPED, NULL, me->config_epoch, NULL);
    return true;
}

/* Two primaries with one config epoch: the one with the smaller id moves on.  Both see the same two ids, so only one
 * moves. */
void epoch_collision(struct cluster_core *core, const struct cluster_node *sender, uint64_t epoch)
{
    struct cluster_node *me = core->myself;
    if (!node_is_primary(me) || !node_is_primary(sender) || epoch != me->config_epoch) return;
    if (memcmp(me->id.c, sender->id.c, CLUSTER_ID_SIZE) >= 0) return;
    me->config_epoch = ++core->current_epoch;
    core->due |= DUE_VITAL | DUE_MAP;
    note(core, CLUSTER_NOTE_EPOCH_COLLISION, sender, me->config_epoch, NULL);
}
