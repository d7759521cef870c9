/* debug.h: what the files of DEBUG share; inside src/server only.  Each is the handler of the subcommand of that name.
 */
#ifndef COVEY_SERVER_DEBUG_H
#define COVEY_SERVER_DEBUG_H

#include "server/node.h"

#include "command/call.h"

/* True after an error reply: a load goes on beside the gate, so the whole dataset is nobody's then. */
bool debug_loading(struct call *c);
/* At most 1e6; not above 0: returns at once. */
void debug_sleep_seconds(double seconds);

/* debug_dataset.c */
void debug_object(struct call *c);
void debug_sdslen(struct call *c);
void debug_structsize(struct call *c);
void debug_listpack(struct call *c);
void debug_quicklist(struct call *c);
void debug_htstats(struct call *c);
void debug_htstats_key(struct call *c);
void debug_digest(struct call *c);
void debug_digest_value(struct call *c);
void debug_populate(struct call *c);

/* debug_crash.c */
void debug_segfault(struct call *c);
void debug_panic(struct call *c);
void debug_assert(struct call *c);
void debug_oom(struct call *c);
void debug_restart(struct call *c);
void debug_crash_and_recover(struct call *c);

#endif
