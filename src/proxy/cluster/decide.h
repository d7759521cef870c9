/* decide.h: what the proxy does with each command: one row a command, for all of commands.def; inside src/proxy/cluster
 * only.
 */
#ifndef COVEY_PROXY_CLUSTER_DECIDE_H
#define COVEY_PROXY_CLUSTER_DECIDE_H

#include "commands/table.h"

enum course {
    COURSE_NONE,        /* nobody has decided: a test fails */
    COURSE_KEYS,        /* to the node of its keys */
    COURSE_SPLIT,       /* the same, in parts where they are in several slots */
    COURSE_ANY,         /* any node's answer is everybody's */
    COURSE_EVERY,       /* every node; their answers become one as `gather` says */
    COURSE_LOCAL,       /* the proxy answers */
    COURSE_SUBSCRIBE,   /* a connection of the client's own */
    COURSE_TRANSACTION, /* MULTI and what belongs to it */
    COURSE_SCAN,        /* node after node */
    COURSE_WAIT,        /* the nodes that the client has written to */
    COURSE_MONITOR,     /* a connection of its own to every node */
    COURSE_DEBUG,       /* by the key, if it is about one */
    COURSE_ONE,         /* any node where there is one only; else `reason` */
    COURSE_REFUSED,     /* `reason` */
};

/* How replies of parts become one.  An error of a part is the whole reply, but for GATHER_ANY_OK. */
enum gather_kind {
    GATHER_SUM,        /* integers */
    GATHER_LEAST,      /* integers */
    GATHER_FIRST,      /* the first, if none is an error */
    GATHER_ANY_OK,     /* one that is no error */
    GATHER_VALUES,     /* arrays, whose elements have places of their own */
    GATHER_CONCAT,     /* arrays, one behind another */
    GATHER_UNION,      /* arrays, each element once */
    GATHER_COUNTS,     /* arrays of name, integer, ... in the same order: the sums of the integers */
    GATHER_LEAST_EACH, /* arrays of integers, the least of each place */
    GATHER_AND,        /* arrays of integers, the least of each */
    GATHER_RANDOM,     /* any that is not null */
};

struct decision {
    uint8_t course;     /* enum course */
    uint8_t gather;     /* enum gather_kind, of COURSE_EVERY and COURSE_WAIT */
    bool in_multi;      /* may be queued although it has no keys */
    const char *reason; /* the error, without '-' */
};

/* Never NULL. */
const struct decision *decision_of(const struct command *cmd);

#endif
