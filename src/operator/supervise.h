/* supervise.h: a running `covey up`: its nodes, what they say, and what becomes of them.  One thread. */
#ifndef COVEY_OPERATOR_SUPERVISE_H
#define COVEY_OPERATOR_SUPERVISE_H

#include "operator/client.h"
#include "operator/fleet.h"
#include "operator/view.h"

enum { QUESTIONS = 3 };

/* The connection to one node, and the answers of this round that have come. */
struct asker {
    struct client client;
    struct resp_value *answers[QUESTIONS]; /* owned */
    int count;
};

struct up {
    struct up_options options;
    struct home home;
    struct home_state state;
    struct fleet fleet;
    struct asker askers[PLAN_NODES_MAX];
    struct sample samples[PLAN_NODES_MAX];
    struct member member_list[PLAN_NODES_MAX];
    struct members members;
    int signal_fd; /* SIGINT, SIGTERM, SIGHUP, SIGCHLD */
    int stops;     /* how often we were told to stop */
    bool ready;    /* the cluster was whole: from now on nodes that die are restarted */
    int dead;      /* before that: the node that died, or -1 */
};

/* The address under which we and the other nodes reach a node. */
const char *up_host(const struct up *up);
/* Blocks the signals above and reads them from signal_fd.  E_IO with errno. */
MUST_USE enum status up_take_signals(struct up *up);
/* Starts all nodes; on E_IO (errno) some may run. */
MUST_USE enum status up_start(struct up *up);
/* Waits up to timeout_ms for a signal, takes note of nodes that died, and restarts those whose time has come. */
void up_turn(struct up *up, int timeout_ms);
/* Asks all nodes and fills samples; returns when all have answered, or after timeout_ms. */
void up_ask(struct up *up, int timeout_ms);
/* Stops all nodes: asks them to end, and kills those that take too long, or all at the next signal to stop. */
void up_stop(struct up *up);
/* Prints "time  node  text"; port 0: the cluster. */
void up_event(void *ctx, int port, const char *text);
void up_deinit(struct up *up);

/* Forms one cluster of nodes that run and know nothing of each other.  false: told to stop, or it said why it failed.
 */
bool up_form(struct up *up);
/* Waits until the cluster is whole, saying now and then what is missing.  timeout_ms -1: for ever.  false: as above. */
bool up_wait_whole(struct up *up, int64_t timeout_ms);

#endif
