/* aof_scripts.h: scripts in an AOF of redis-server before 7.0, which logged EVAL as it was called; inside src/server
 * only.
 *
 * While a file is loaded there are no connections and no slots to lock: a script runs in a Lua state of its own, and
 * its commands go to the loader.  Its text stays in the node's cache, as it does in Redis. */
#ifndef COVEY_SERVER_AOF_SCRIPTS_H
#define COVEY_SERVER_AOF_SCRIPTS_H

#include "server/node.h"

struct aof_scripts_host {
    void *ctx;
    /* Executes a command of the script and gives its encoded reply, valid until the next call. */
    struct bytes (*call)(void *ctx, const struct bytes *argv, size_t argc, int resp);
};

struct aof_scripts;
/* With nobody else using the dataset or the cache of scripts, until it is destroyed. */
struct aof_scripts *aof_scripts_create(struct node *n);
void aof_scripts_destroy(struct aof_scripts *s); /* NULL is fine */
/* EVAL, EVALSHA (and _RO), SCRIPT LOAD, SCRIPT FLUSH. */
bool aof_scripts_knows(const struct command *cmd);
/* Executes one of them; as with other commands of a file, an error ends it and not the load: the log says it. */
void aof_scripts_run(struct aof_scripts *s, struct aof_scripts_host host, const struct command *cmd,
                     const struct bytes *argv, size_t argc);

#endif
