/* crew.h: the threads that drive the workers' loops; inside src/server only.
 *
 * A worker is a loop, not a thread: whoever holds its `driving` lock may call loop_turn() for it.  There are as many
 * threads as workers, in one of two ways:
 *
 *   packed   the first thread drives all loops, the others sleep.  With little to do that is cheaper, since a thread
 *            that wakes up finds more work waiting, and fewer threads have to be woken.
 *   spread   each thread drives one loop.
 *
 * It begins packed.  It spreads when the first thread is busy and the machine has a processor to spare, or at once when
 * a command holds the first thread for longer than STUCK_MS, so that only the connections of that command's worker wait
 * for it. */
#ifndef COVEY_SERVER_CREW_H
#define COVEY_SERVER_CREW_H

#include "server/node.h"

struct crew;

/* Starts the threads; the workers are there. */
void crew_start(struct node *n);
/* Ten times a second, from one worker's tick: measures, and changes the way. */
void crew_tick(struct crew *c, int64_t now_mono_ms);
/* Wakes the threads that stand by, for memory_trim().  NULL: none do. */
void crew_trim(struct crew *c);

#endif
