/* shard.c: a shard's id, as Redis 7.2 has it: told by a ping extension, kept in nodes.conf, the same before and after a
 * failover. */
#include "cluster/core/internal.h"

struct cluster_id shard_of(const struct cluster_node *node)
{
    if (node_is_replica(node) && node->primary) node = node->primary;
    return cluster_id_is_null(&node->shard) ? node->id : node->shard;
}

void shard_new(struct cluster_core *core)
{
    core->myself->shard = node_random_id(core);
    core->due |= DUE_SAVE;
}

static void set(struct cluster_core *core, struct cluster_node *node, const struct cluster_id *shard)
{
    if (cluster_id_eq(&node->shard, shard)) return;
    node->shard = *shard;
    core->due |= DUE_SAVE;
}

void shard_follow(struct cluster_core *core)
{
    if (!node_is_replica(core->myself) || !core->myself->primary) return;
    struct cluster_id shard = shard_of(core->myself);
    set(core, core->myself, &shard);
}

void shard_take(struct cluster_core *core, struct cluster_node *sender, const struct cluster_message *m)
{
    if (cluster_id_is_null(&m->shard)) return;
    set(core, sender, &m->shard);
    shard_follow(core);
}

/* A peer of 7.0 says EXT_DATA only along with its host name.  It would skip a shard's id, but write a line into its log
 * for each heartbeat, so it gets none. */
void shard_note_extensions(struct cluster_node *sender, const struct cluster_message *m)
{
    if (!(m->mflags & CLUSTER_MSG_EXT_DATA)) return;
    sender->knows_extensions = true;
    if (m->type <= CLUSTER_MEET && (!m->hostname.n || !cluster_id_is_null(&m->shard))) sender->knows_shards = true;
}
