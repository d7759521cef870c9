/* migration.c: a replica moves from a primary that has several to one that has lost all of its own. */
#include "cluster/core/internal.h"

static bool is_orphan(const struct cluster_node *node)
{
    return node_is_primary(node) && !(node->flags & CLUSTER_NODE_FAIL) && node->flags & CLUSTER_NODE_MIGRATE_TO &&
           node->slot_count && node_working_replicas(node, CLUSTER_NODE_FAIL) == 0;
}

struct survey {
    struct cluster_node *target;      /* the first orphan */
    const struct cluster_node *mover; /* smallest id among the replicas of primaries with most replicas */
    size_t most;
};

static void count_replicas(const struct cluster_core *core, struct survey *s)
{
    for (size_t i = 0; i < core->node_count; i++) {
        const struct cluster_node *node = core->nodes[i];
        if (!node_is_primary(node) || node->flags & CLUSTER_NODE_FAIL) continue;
        size_t n = node_working_replicas(node, CLUSTER_NODE_FAIL);
        if (n > s->most) s->most = n;
    }
}

static void consider_movers(const struct cluster_node *primary, struct survey *s)
{
    if (!node_is_primary(primary) || node_working_replicas(primary, CLUSTER_NODE_FAIL) != s->most) return;
    for (size_t i = 0; i < primary->replica_count; i++) {
        const struct cluster_node *r = primary->replicas[i];
        if (r->flags & CLUSTER_NODE_FAIL) continue; /* a dead one would hold its place for ever */
        if (memcmp(r->id.c, s->mover->id.c, CLUSTER_ID_SIZE) < 0) s->mover = r;
    }
}

static void consider_orphan(struct cluster_core *core, struct cluster_node *node, struct survey *s)
{
    if (!is_orphan(node)) {
        node->orphaned_since_ms = 0;
        return;
    }
    if (!node->orphaned_since_ms) node->orphaned_since_ms = core->now.mono_ms;
    if (!s->target) s->target = node;
}

void migration_run(struct cluster_core *core)
{
    struct cluster_node *me = core->myself, *p = me->primary;
    if (!core->config.allow_replica_migration || !node_is_replica(me) || !p || !core->state_ok) return;
    size_t barrier = core->config.migration_barrier < 0 ? 0 : (size_t)core->config.migration_barrier;
    size_t mine = node_working_replicas(p, CLUSTER_NODE_FAIL);
    struct survey s = {.mover = me};
    count_replicas(core, &s);
    if (s.most < 2 || mine != s.most) return;
    if (node_working_replicas(p, CLUSTER_NODE_FAIL | CLUSTER_NODE_PFAIL) <= barrier) return;
    for (size_t i = 0; i < core->node_count; i++) {
        consider_orphan(core, core->nodes[i], &s);
        consider_movers(core->nodes[i], &s);
    }
    if (!s.target || s.mover != me || core->now.mono_ms - s.target->orphaned_since_ms <= ORPHAN_DELAY_MS) return;
    note(core, CLUSTER_NOTE_REPLICA_MIGRATED, s.target, 0, NULL);
    become_replica_of(core, s.target);
}
