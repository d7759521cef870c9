/* plan.h: what a cluster on one machine should look like: which ports, which slots, who follows whom.
 * Pure functions; any thread. */
#ifndef COVEY_OPERATOR_PLAN_H
#define COVEY_OPERATOR_PLAN_H

#include <stdint.h>

enum {
    PLAN_SLOTS = 16384,
    PLAN_BUS_OFFSET = 10000, /* a node's bus port is its client port plus this */
    PLAN_NODES_MAX = 200,    /* one machine; everybody talks to everybody */
};

/* Node i of the plan listens on port + i; the primaries come first. */
struct shape {
    int primaries; /* 1 and up */
    int replicas;  /* of each primary, 0 and up */
    int port;      /* of the first node */
};

struct slot_range {
    uint16_t first, last; /* both included */
};

/* NULL when the shape can be started, otherwise a sentence that says why not. */
const char *plan_check(const struct shape *s);
int plan_nodes(const struct shape *s);
/* Slots of primary `index`: the ranges are adjacent, cover everything and differ by one slot at most. */
struct slot_range plan_slots(const struct shape *s, int index);
/* The primary that node `index` shall follow, or -1 when it is a primary itself. */
int plan_primary_of(const struct shape *s, int index);
/* How long to wait before a node is started again that died `deaths` times (1 and up) shortly after its start: at once,
 * then 1 s, 2 s, 4 s, 8 s, at most 10 s. */
int64_t plan_restart_delay_ms(int deaths);

#endif
