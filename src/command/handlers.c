#include "command/handlers.h"

#include <assert.h>

static command_handler *const handlers[CMD_ID_COUNT] = {
#define CMD(id, name, arity, flags, categories, first, last, step, tips, group, since, complexity, summary, handler, \
            ...)                                                                                                     \
    [CMD_ID_##id] = handler,
#define CMD_CONTAINER(...)
#include "commands/commands.def"
#undef CMD
#undef CMD_CONTAINER
};

command_handler *command_handler_of(enum command_id id)
{
    assert((unsigned)id < CMD_ID_COUNT);
    return handlers[id];
}
