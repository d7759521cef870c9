/* fleet.h: the processes of the nodes: started, watched, started again, stopped.  One thread; it must not wait for
 * children elsewhere. */
#ifndef COVEY_OPERATOR_FLEET_H
#define COVEY_OPERATOR_FLEET_H

#include "operator/home.h"
#include "operator/options.h"

struct fleet_node {
    struct process_id process; /* pid 0: does not run */
    int64_t started_ms;        /* monotonic */
    int deaths;                /* in a row, each shortly after the start */
    int64_t restart_at_ms;     /* monotonic; 0: will not be restarted */
    int exit_status;           /* as waitpid() gave it, of the last process that ended */
};

struct fleet {
    const struct up_options *options;
    const struct home *home;
    struct shape shape;
    struct fleet_node nodes[PLAN_NODES_MAX];
    int n;
};

/* Where node i's proxy listens; 0: it has none. */
int fleet_proxy_port(const struct fleet *f, int i);
/* Files for node i: its directory and covey.conf, if they are not there yet.  E_IO with errno. */
MUST_USE enum status fleet_prepare(struct fleet *f, int i);
/* Starts node i, which must not run.  E_IO with errno. */
MUST_USE enum status fleet_start(struct fleet *f, int i, int64_t now_ms);
/* Whether node i's process has ended since the last call; if so, notes its exit status and when to restart it. */
bool fleet_reap(struct fleet *f, int i, int64_t now_ms);
/* "killed by signal 9", "exit status 1" */
void fleet_print_end(const struct fleet_node *node, struct buf *out);
/* The last lines of node i's log, indented; nothing when there is none. */
void fleet_print_log(const struct fleet *f, int i, struct buf *out);
void fleet_signal(struct fleet *f, int number); /* every node that runs; a stopped one is continued */
bool fleet_runs(const struct fleet *f);         /* any node */

#endif
