/* MODULE: there are no modules, and none can be loaded; the replies are those of a redis-server that refuses to. */
#include "command/call.h"

void cmd_module_list(struct call *c)
{
    resp_array(&c->out, 0);
}

static void refuse(struct call *c)
{
    resp_error(&c->out,
               "ERR MODULE command not allowed. If the enable-module-command option is set to \"local\", you can "
               "run it from a local connection, otherwise you need to set this option in the configuration "
               "file, and then restart the server.");
}

void cmd_module_load(struct call *c)
{
    refuse(c);
}

void cmd_module_loadex(struct call *c)
{
    refuse(c);
}

void cmd_module_unload(struct call *c)
{
    refuse(c);
}

void cmd_module_help(struct call *c)
{
    static const char *const lines[] = {
        "LIST",
        "    Return a list of loaded modules.",
        "LOAD <path> [<arg> ...]",
        "    Load a module library from <path>, passing to it any optional arguments.",
        "LOADEX <path> [[CONFIG NAME VALUE] [CONFIG NAME VALUE]] [ARGS ...]",
        "    Load a module library from <path>, while passing it module configurations and optional arguments.",
        "UNLOAD <name>",
        "    Unload a module.",
    };
    call_help(c, "MODULE", lines, sizeof lines / sizeof *lines);
}
