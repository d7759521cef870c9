/* changes.c: what is different in a new map: who took over from whom. */
#include "proxy/cluster/measure.h"

#include "base/log.h"
#include "base/mem.h"
#include "proxy/cluster/topology.h"

enum { LINES_MAX = 20 };

static bool same_node(const struct map_node *a, const struct map_node *b)
{
    return a->port == b->port && strcmp(a->name, b->name) == 0;
}

static bool serves(const struct topology_map *m, const struct map_node *n)
{
    for (int i = 0; i < m->count; i++)
        if (m->nodes[i].slots && same_node(&m->nodes[i], n)) return true;
    return false;
}

/* How the slots of a node of the old map are spread over those of the new one; returns how many nobody serves. */
static unsigned spread(const struct topology_map *old, int from, const struct topology_map *now, unsigned *to)
{
    unsigned lost = 0;
    memset(to, 0, (now->count + 1u) * sizeof *to);
    for (unsigned s = 0; s < SLOT_COUNT; s++) {
        if (old->slot[s] != from) continue;
        if (now->slot[s] == NO_NODE)
            lost++;
        else
            to[now->slot[s]]++;
    }
    return lost;
}

static void compare_node(struct measures *m, const struct topology_map *old, int from, const struct topology_map *now,
                         unsigned *to, int *lines)
{
    const struct map_node *n = &old->nodes[from];
    unsigned lost = spread(old, from, now, to);
    if (lost && (*lines)++ < LINES_MAX) log_warning("%u slots of %s:%d are served by nobody", lost, n->name, n->port);
    for (int i = 0; i < now->count; i++) {
        const struct map_node *other = &now->nodes[i];
        if (!to[i] || same_node(n, other)) continue;
        bool failover = to[i] == n->slots && !serves(now, n) && !serves(old, other);
        atomic_fetch_add(failover ? &m->failovers : &m->slots_moved, failover ? 1 : to[i]);
        if ((*lines)++ >= LINES_MAX) continue;
        if (failover)
            log_notice("Failover: %s:%d serves the %u slots of %s:%d", other->name, other->port, to[i], n->name,
                       n->port);
        else
            log_notice("%u slots have moved from %s:%d to %s:%d", to[i], n->name, n->port, other->name, other->port);
    }
}

void measure_topology(struct measures *m, const struct topology_map *old, const struct topology_map *now)
{
    int lines = 0;
    atomic_fetch_add(&m->topology_changes, 1);
    if (!old) return;
    unsigned *to = mem_calloc(now->count + 1u, sizeof *to);
    for (int i = 0; i < old->count; i++)
        if (old->nodes[i].slots) compare_node(m, old, i, now, to, &lines);
    mem_free(to);
}
