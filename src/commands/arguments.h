/* arguments.h: the arguments of commands as COMMAND DOCS describes them, from arguments.def.
 * Constant data; any thread at any time. */
#ifndef COVEY_COMMANDS_ARGUMENTS_H
#define COVEY_COMMANDS_ARGUMENTS_H

#include "commands/table.h"
#include "resp/resp.h"

/* The description, in the notation of arguments.def; NULL: the command takes none. */
const char *command_arguments(enum command_id id);
/* Replies an array of argument maps as redis-server does.  False: the text breaks the notation; nothing useful was
 * replied (a unit test reads every row). */
bool arguments_reply(struct resp_out *out, const char *text);

#endif
