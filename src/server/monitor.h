/* monitor.h: MONITOR: every command that is executed, shown to whoever asked; inside src/server only.
 * A line is made by the worker that executes and mailed to the workers that have monitors, so the lines of one
 * connection are in order; those of connections of different workers follow their time stamps only roughly. */
#ifndef COVEY_SERVER_MONITOR_H
#define COVEY_SERVER_MONITOR_H

#include "server/conn.h"

/* Whether anybody monitors: one load. */
static inline bool monitor_wanted(const struct node *n)
{
    return atomic_load_explicit(&n->monitor_count, memory_order_relaxed) > 0;
}
/* Shows a call that was executed, passwords redacted.  Commands of administration are not shown. */
void monitor_show(struct conn *c, const struct call *call);
/* A script is shown before what it calls, and all of that at its end: only then is it sure not to begin anew. */
void monitor_script_begin(struct conn *c, const struct call *call);
void monitor_script_end(struct worker *w, bool executed);
/* Makes the connection a monitor, or ends that; no effect when it is (is not) one. */
void monitor_begin(struct conn *c);
void monitor_end(struct conn *c);

#endif
