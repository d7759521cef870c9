/* durations.h: what LATENCY HISTOGRAM replies about the durations of commands.
 * Threads: any; the histograms may be growing. */
#ifndef COVEY_OBSERVE_DURATIONS_H
#define COVEY_OBSERVE_DURATIONS_H

#include "base/histogram.h"
#include "commands/table.h"
#include "resp/resp.h"

struct durations {
    /* Sums up into `out`, whatever that held, how long the calls of a command took; false: it was never called. */
    bool (*of)(void *ctx, enum command_id id, struct histogram *out);
    void *ctx;
    /* The unit: 1000 for nanoseconds, which end at a second (HISTOGRAM_MAX); 1 for microseconds. */
    unsigned per_us;
};

/* A map of the commands named, with their subcommands; of all commands when there are no names.  What is no command, or
 * was never called, is left out. */
void durations_reply(struct resp_out *o, const struct durations *d, const struct bytes *names, size_t n);

#endif
