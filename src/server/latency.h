/* latency.h: how long things took: histograms of every command, and the latency monitor's events; inside src/server
 * only. */
#ifndef COVEY_SERVER_LATENCY_H
#define COVEY_SERVER_LATENCY_H

#include "server/conn.h"

/* Sets n->latency; before the workers start. */
void latency_init(struct node *n);
/* A command of this worker took so long.  The worker's thread. */
void latency_track(struct worker *w, const struct command *cmd, uint64_t ns);
/* Something that is watched took so long: kept when latency-monitor-threshold is set and reached.  `event` is Redis's
 * name of it ("command", "expire-cycle") and stays valid for ever.  Any thread. */
void latency_note(struct node *n, const char *event, uint64_t us);
/* CONFIG RESETSTAT empties the histograms. */
void latency_reset_histograms(struct node *n);
/* The lines of INFO latencystats. */
void latency_info(struct node *n, struct buf *b);

#endif
