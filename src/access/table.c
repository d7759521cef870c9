/* table.c: the table of commands as src/acl wants it. */
#include "access/access.h"

static int find_command(struct bytes name)
{
    const struct command *c = command_find(name);
    return c ? c->id : -1;
}

static struct acl_command rows[CMD_ID_COUNT];
static const char *category_names[CMD_CATEGORY_COUNT];
static const struct acl_commands table = {rows, CMD_ID_COUNT, find_command, category_names, CMD_CATEGORY_COUNT};

/* Derived from the command table before main(), constant from then on. */
__attribute__((constructor)) static void fill_rows(void)
{
    for (unsigned id = 0; id < CMD_ID_COUNT; id++) {
        const struct command *c = command_by_id((enum command_id)id);
        bool newer =
            strncmp(c->since, "7.0", 3) > 0 || id == CMD_ID_CLIENT_MIN_REPLICAS_TO_ACK || id == CMD_ID_CLIENT_CROSSSLOT;
        rows[id] = (struct acl_command){c->name, c->categories, 0, strchr(c->name, '|') != NULL, newer};
        unsigned container = id;
        while (rows[id].is_sub && rows[container].is_sub) container--;
        if (rows[id].is_sub) rows[container].subs++;
    }
    for (unsigned i = 0; i < CMD_CATEGORY_COUNT; i++) category_names[i] = command_category_name(i);
}

const struct acl_commands *access_commands(void)
{
    return &table;
}
