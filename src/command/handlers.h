/* handlers.h: a prototype for every handler that commands.def names, and the way from a row to its handler.
 * Only the data node links this; a row whose handler is missing fails to link there, a handler without a row has no
 * prototype and fails to compile.
 * Threads: constant; any thread. */
#ifndef COVEY_COMMAND_HANDLERS_H
#define COVEY_COMMAND_HANDLERS_H

#include "commands/table.h"

struct call; /* one execution of one command: command/call.h */
typedef void command_handler(struct call *c);

#define CMD(id, name, arity, flags, categories, first, last, step, tips, group, since, complexity, summary, handler, \
            ...)                                                                                                     \
    command_handler handler;
#define CMD_CONTAINER(...)
#include "commands/commands.def"
#undef CMD
#undef CMD_CONTAINER

/* NULL for containers. */
command_handler *command_handler_of(enum command_id id);

#endif
