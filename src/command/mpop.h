/* mpop.h: what LMPOP and ZMPOP have in common, and the commands that wait for what they would take. */
#ifndef COVEY_COMMAND_MPOP_H
#define COVEY_COMMAND_MPOP_H

#include "command/call.h"

struct mpop {
    size_t first_key, keys; /* argv[first_key .. first_key + keys) */
    int end;                /* which of the two words was given: 0 or 1 */
    int64_t count;          /* at least 1 */
};

/* Reads "numkeys key [key ...] <end> [COUNT count]" from argv[arg] on.  False: the error was replied. */
MUST_USE bool mpop_parse(struct call *c, size_t arg, const char *const ends[2], struct mpop *m);

/* Takes from the first key that is there, replies what and from which key, and propagates a plain pop.  MPOP_NOTHING:
 * none of the keys is there, nothing was replied.  Also MPOP_DONE: a key of the wrong type came first, and was told. */
enum mpop_result { MPOP_DONE, MPOP_NOTHING };
enum mpop_result list_mpop(struct call *c, const struct mpop *m); /* end 0: left */
enum mpop_result zset_mpop(struct call *c, const struct mpop *m); /* end 0: min */

#endif
