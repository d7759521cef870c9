/* aof_load.h: one file of the AOF executed into the dataset; inside src/server only. */
#ifndef COVEY_SERVER_AOF_LOAD_H
#define COVEY_SERVER_AOF_LOAD_H

#include "server/replication.h"

#include "persist/persist.h"

enum aof_loaded { AOF_LOADED, AOF_LOADED_CUT_OFF, AOF_NOT_LOADED };

/* What the files said so far. */
struct aof_load {
    struct node *node;
    struct rdb_progress *progress;
    struct rdb_extras *extras;
    void (*tick)(void *ctx); /* about every 2 MB */
    void *ctx;
    uint64_t bytes_before; /* of the files loaded before */
    uint64_t keys, commands;
    struct aof_scripts *scripts; /* NULL: no file had one; destroyed by who has loaded the files */
    /* Where the dataset stands in its history, if the last file says so. */
    bool has_position;
    struct replication_position position;
};

/* Loads dir/name: RDB, commands, or both in turn.  Nobody else touches the dataset.  What is cut off at the file's end
 * is cut off there when `may_cut`; else and for what is not a command the log says where and why, and it is
 * AOF_NOT_LOADED. */
MUST_USE enum aof_loaded aof_load_file(struct aof_load *l, const char *dir, const char *name, bool may_cut);

#endif
