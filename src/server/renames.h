/* renames.h: rename-command: commands under other names, or none; inside src/server only.
 * Filled while the configuration is read, constant afterwards. */
#ifndef COVEY_SERVER_RENAMES_H
#define COVEY_SERVER_RENAMES_H

#include "commands/table.h"

struct node;
struct renames;

struct renames *renames_create(void);
void renames_destroy(struct renames *r); /* NULL is fine */
/* Gives the command `from` the name `to`, or none if that is empty.  NULL: done; else the reason in redis-server's
 * words. */
const char *renames_add(struct renames *r, struct bytes from, struct bytes to);
/* The command (no subcommand) that has this name now, in any case; NULL: none. */
const struct command *renames_find(const struct renames *r, struct bytes name);
/* Whether the command still has a name. */
bool renames_has(const struct renames *r, const struct command *c);

/* command_of_request() and command_find() under the names of this node. */
const struct command *node_command_of_request(const struct node *n, const struct bytes *argv, size_t argc,
                                              const struct command **container);
const struct command *node_command_find(const struct node *n, struct bytes name);

#endif
