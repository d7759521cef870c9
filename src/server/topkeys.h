/* topkeys.h: which keys are used most and which are large, found by looking at one key access of many while commands
 * run; inside src/server only.
 * Each worker keeps the heaviest keys of its own samples (observe/hotkeys.h). */
#ifndef COVEY_SERVER_TOPKEYS_H
#define COVEY_SERVER_TOPKEYS_H

#include "server/conn.h"

struct topkeys *topkeys_create(void);
/* A command has run; its keys' slots are still locked.  The worker's thread; a decrement for those not looked at. */
void topkeys_sample(struct worker *w, const struct call *call);
/* The lines of INFO hotkeys and INFO bigkeys; the caller holds no slot.  Any worker. */
void topkeys_info_hot(struct node *n, struct buf *b);
void topkeys_info_big(struct node *n, struct buf *b);

#endif
