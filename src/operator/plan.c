/* plan.c: ports, slots and replicas of a cluster on one machine. */
#include "operator/plan.h"

#include <assert.h>
#include <stddef.h>

const char *plan_check(const struct shape *s)
{
    if (s->primaries < 1 || s->primaries > PLAN_NODES_MAX) return "--primaries must be 1 to 200";
    if (s->replicas < 0 || s->replicas > PLAN_NODES_MAX) return "--replicas must be 0 to 200";
    if ((int64_t)s->primaries * (1 + s->replicas) > PLAN_NODES_MAX)
        return "more than 200 nodes are too many for one machine";
    if (s->port < 1 || s->port > 65535) return "--port must be 1 to 65535";
    if (s->port + plan_nodes(s) - 1 + PLAN_BUS_OFFSET > 65535)
        return "--port is too high: the cluster bus uses each node's port plus 10000, and 65535 is the last there is";
    if (plan_nodes(s) > PLAN_BUS_OFFSET) return "so many nodes' ports would meet their bus ports";
    return NULL;
}

int plan_nodes(const struct shape *s)
{
    return s->primaries * (1 + s->replicas);
}

/* Where primary `index` begins: the exact fraction, rounded to the nearest slot. */
static int first_slot(const struct shape *s, int index)
{
    return (2 * index * PLAN_SLOTS + s->primaries) / (2 * s->primaries);
}

struct slot_range plan_slots(const struct shape *s, int index)
{
    assert(index >= 0 && index < s->primaries);
    return (struct slot_range){(uint16_t)first_slot(s, index), (uint16_t)(first_slot(s, index + 1) - 1)};
}

int plan_primary_of(const struct shape *s, int index)
{
    return index < s->primaries ? -1 : (index - s->primaries) % s->primaries;
}

int64_t plan_restart_delay_ms(int deaths)
{
    if (deaths <= 1) return 0;
    if (deaths >= 6) return 10000;
    return (int64_t)1000 << (deaths - 2);
}
