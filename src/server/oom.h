/* oom.h: whom the kernel ends first when memory is out: oom-score-adj and oom-score-adj-values; inside src/server only.
 */
#ifndef COVEY_SERVER_OOM_H
#define COVEY_SERVER_OOM_H

#include "server/node.h"

/* Before any other thread: remembers the score that the process was started with. */
void oom_init(struct node *n);
/* Gives the process the score of its options and its role, or the one it was started with when they say no.  False: the
 * kernel refused it (lowering takes CAP_SYS_RESOURCE), which was logged.  At rest, or where the role changes. */
bool oom_apply(struct node *n);
/* The present one, and back to it. */
int oom_score(void);
bool oom_put(int score);

#endif
