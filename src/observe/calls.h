/* calls.h: what is counted and timed of each command, by worker, and what INFO and /metrics say of it.
 *
 * Counters belong to one worker each and are atomics that only it writes; whoever reports adds them up, on any thread.
 * A command's histogram is made when it is timed first. */
#ifndef COVEY_OBSERVE_CALLS_H
#define COVEY_OBSERVE_CALLS_H

#include "base/bytes.h"
#include "base/histogram.h"
#include "observe/prometheus.h"

#include <stdatomic.h>

/* Of one worker and command. */
struct call_counts {
    _Atomic uint64_t calls, rejected, failed, us; /* rejected: not allowed; failed: answered with an error */
    struct histogram *_Atomic latency;            /* microseconds; NULL: never */
};

struct calls {
    struct call_counts **tables; /* of each worker, by command */
    int workers;
    unsigned commands;
    const char *(*name)(unsigned command);
};

void calls_init(struct calls *c, int workers, unsigned commands, const char *(*name)(unsigned command));
void calls_deinit(struct calls *c);

/* The worker's. */
struct histogram *call_histogram_create(struct call_counts *c);
static inline void call_time(struct call_counts *c, uint64_t us, size_t bucket)
{
    struct histogram *h = atomic_load_explicit(&c->latency, memory_order_relaxed);
    histogram_add_at(h ? h : call_histogram_create(c), bucket);
    atomic_store_explicit(&c->us, atomic_load_explicit(&c->us, memory_order_relaxed) + us, memory_order_relaxed);
}
/* All counts of one worker are 0 again. */
void calls_reset(struct calls *c, int worker);

struct call_sum {
    uint64_t calls, rejected, failed, us;
};
struct call_sum calls_sum(const struct calls *c, unsigned command);
/* False: it was never timed. */
bool calls_latency(const struct calls *c, unsigned command, struct histogram *out);

/* The lines of INFO commandstats and latencystats. */
void calls_write_commandstats(const struct calls *c, struct buf *b);
void calls_write_latencystats(const struct calls *c, struct buf *b);

/* Several groups of calls under the same names, told apart by the label `group`. */
struct calls_shown {
    const struct calls *calls;
    const char *group;
};
/* Appends <prefix>_commands_total{command}, _commands_rejected_total, _commands_failed_total and
 * _command_duration_seconds.  group: the label's name; NULL: there is one group, and no label. */
void calls_write_metrics(const struct calls_shown *all, size_t n, const char *prefix, const char *group, struct buf *b);

#endif
