/* string.h: changing a part of a string in place, for the commands on bits and on HyperLogLogs. */
#ifndef COVEY_COMMAND_STRING_H
#define COVEY_COMMAND_STRING_H

#include "command/call.h"

/* The bytes of the string k, to be overwritten in place, at least n of them (new ones are zero).  e: its private entry
 * from call_edit_type(), or NULL when the key is not there; then it is created.  The string is raw from now on, and e
 * no longer valid.  NULL: memory is out, nothing was replied or changed. */
char *string_open(struct call *c, const struct key *k, struct entry *e, size_t n);

#endif
