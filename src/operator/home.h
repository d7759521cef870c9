/* home.h: the directory of a cluster: what is kept there, and who holds it.
 *
 *   DIR/cluster.state   the shape, whether the cluster has been formed, and the processes that run
 *   DIR/up.pid          process id of the supervisor, locked while it lives
 *   DIR/up.log          what a detached supervisor prints
 *   DIR/PORT/           one node: nodes.conf, data, covey.log, covey.conf
 */
#ifndef COVEY_OPERATOR_HOME_H
#define COVEY_OPERATOR_HOME_H

#include "base/bytes.h"
#include "base/status.h"
#include "operator/plan.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* A process, told from a later one with the same id by its start time. */
struct process_id {
    pid_t pid;      /* 0: none */
    uint64_t start; /* in the kernel's ticks since boot */
};

/* What cluster.state holds. */
struct home_state {
    struct shape shape;
    bool formed;
    struct process_id nodes[PLAN_NODES_MAX]; /* by number */
};

/* Start time of a living process, 0 when there is none (a zombie does not live). */
uint64_t process_start_time(pid_t pid);

/* Text of cluster.state, and back.  E_CORRUPT: not such a text, or a shape that plan_check() refuses. */
void home_state_print(const struct home_state *s, struct buf *out);
MUST_USE enum status home_state_parse(struct bytes text, struct home_state *out);

struct home {
    char dir[PATH_MAX]; /* absolute */
    int lock_fd;        /* of up.pid; -1: not held */
};

/* Makes the directory, unless make is false, and finds its absolute path.  E_IO with errno. */
MUST_USE enum status home_open(struct home *h, const char *dir, bool make);
/* E_EXISTS: a supervisor holds it, *holder is its process (0 when it has not said yet).  E_IO with errno. */
MUST_USE enum status home_lock(struct home *h, pid_t *holder);
/* Says in up.pid who holds the lock: the calling process.  A lock passes to forked children. */
void home_sign(struct home *h);
void home_unlock(struct home *h); /* empties up.pid; harmless when not held */
/* E_NOT_FOUND: no cluster.state there.  E_CORRUPT.  E_IO with errno. */
MUST_USE enum status home_load(const struct home *h, struct home_state *out);
MUST_USE enum status home_save(const struct home *h,
                               const struct home_state *s); /* replaced as a whole; E_IO with errno */
/* DIR/PORT, or DIR/PORT/name.  E_TOO_BIG: longer than a path may be. */
MUST_USE enum status home_path(const struct home *h, int port, const char *name, char out[PATH_MAX]);

#endif
