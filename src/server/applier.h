/* applier.h: executes the primary's stream on a replica; inside src/server only. */
#ifndef COVEY_SERVER_APPLIER_H
#define COVEY_SERVER_APPLIER_H

#include "server/node.h"

struct applier;
struct applier *applier_create(struct node *n);
/* Executes the whole commands at the front of `stream` and appends their bytes to the log, at boundaries outside MULTI
 * only. `current` is asked inside the gate: false gives E_CLOSED with nothing done.  One thread. */
MUST_USE enum status applier_run(struct applier *a, struct bytes stream, size_t *taken, bool *ack_wanted,
                                 bool (*current)(void *ctx), void *ctx);
/* A new stream begins with that database selected (-1: none). */
void applier_reset(struct applier *a, int db);

#endif
