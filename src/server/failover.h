/* failover.h: FAILOVER: a primary without a cluster hands its role to a replica that has everything; inside src/server
 * only. */
#ifndef COVEY_SERVER_FAILOVER_H
#define COVEY_SERVER_FAILOVER_H

#include "server/conn.h"

struct failover *failover_create(void);
/* Looks whether a replica has caught up, or time is over; from one worker's tick, inside the gate. */
void failover_tick(struct worker *w);
/* The chosen replica has answered, and is our primary now if ok; the link's thread, outside the gate. */
void failover_answered(struct node *n, bool ok);
/* INFO's word for the state. */
const char *failover_state(const struct node *n);
/* While we wait for the new primary's answer nobody may sync from us. */
bool failover_in_progress(const struct node *n);
/* A replica has acknowledged something; any thread. */
void failover_acked(struct node *n);

#endif
