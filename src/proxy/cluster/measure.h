/* measure.h: what is counted and timed; inside src/proxy/cluster only.
 *
 * Counters belong to one worker each and are atomics that only it writes; whoever reports adds them up.  Times are
 * taken from a counter of the processor that is read once with every read from a socket, so that a pipeline of many
 * requests does not pay for each.  A request's time begins when its bytes have been read and ends when its reply is
 * given to its client's output: what the client sees, but for the network between them. */
#ifndef COVEY_PROXY_CLUSTER_MEASURE_H
#define COVEY_PROXY_CLUSTER_MEASURE_H

#include "base/clock.h"
#include "commands/table.h"
#include "observe/calls.h"
#include "observe/errorstats.h"
#include "observe/hotkeys.h"
#include "observe/nodes.h"
#include "observe/slowlog.h"
#include "resp/resp.h"

#include <stdatomic.h>

struct proxy;
struct worker;
struct backend;
struct client;
struct request;
struct topology_map;

struct measures {
    struct node_registry nodes;
    struct calls calls;
    struct slowlog *slowlog;
    struct errorstats *errors; /* that clients were answered */
    _Atomic uint64_t topology_changes, failovers, slots_moved;
};

struct worker_measure {
    struct call_counts *commands; /* by id; of measures.calls */
    struct hotkeys *hot;
    int64_t sample_in;            /* requests until one's key is looked at */
    uint64_t ticks;               /* when the bytes that are dealt with now were read */
    uint64_t slow_ticks;          /* what lasts so long goes to the slow log */
    uint64_t us_per_tick;         /* times 2^32 */
    uint64_t last_ticks, last_us; /* the last duration, which those of a pipeline share */
    size_t last_bucket;
};

void measures_create(struct proxy *p);
void measures_destroy(struct proxy *p);
void measure_worker_init(struct worker *w);
void measure_worker_configure(struct worker *w); /* other settings */
void measure_worker_deinit(struct worker *w);
/* A worker has a node; and has it no more. */
void measure_backend_begin(struct worker *w, struct backend *b);
void measure_backend_end(struct worker *w, struct backend *b);

/* Behind inline checks in worker.h. */
void measure_duration(struct worker_measure *m, uint64_t ticks);
void measure_error(struct worker *w, struct bytes reply);
void measure_slow(struct worker *w, const struct request *r, uint64_t us);
void measure_key_slow(struct client *c, const struct command *cmd, const struct resp_request *req);

/* changes.c: logs and counts what a new map says; old may be NULL. */
void measure_topology(struct measures *m, const struct topology_map *old, const struct topology_map *now);

/* report.c */
void report_info(struct client *c, struct resp_out *o, const struct resp_request *req);
/* False: it is none of them. */
bool report_slowlog(struct client *c, struct resp_out *o, const struct command *cmd, const struct resp_request *req);

#endif
