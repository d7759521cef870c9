/* aof_internal.h: what aof.c, aof_files.c share; for these two files only. */
#ifndef COVEY_SERVER_AOF_INTERNAL_H
#define COVEY_SERVER_AOF_INTERNAL_H

#include "server/aof.h"

#include "persist/aof.h"
#include "persist/persist.h"

enum aof_state {
    AOF_STATE_OFF,
    AOF_STATE_FIRST_REWRITE, /* turned on: the first base is being written, or waits for its turn */
    AOF_STATE_ON,
};

enum { AOF_ERRNO_MAX = 256 };

struct aof {
    struct node *node;
    struct aof_writer *writer;
    pthread_mutex_t files; /* the manifest, in memory and on disk; order: after the writer's io, nothing below it */
    struct aof_manifest manifest; /* under files */
    _Atomic uint64_t older_size;  /* of all files but the one being written */
    _Atomic int state;            /* enum aof_state; changes at rest, and at the end of the first rewrite */
    pthread_mutex_t mu;           /* a leaf */
    pthread_cond_t finished;
    bool joinable; /* under mu */
    pthread_t thread;
    _Atomic bool rewriting; /* set at rest, cleared under mu */
    /* Of the rewrite under way: set at rest, then its thread's. */
    struct cut *cut;
    struct rdb_options options;
    struct rdb_extras extras;
    struct rdb_progress progress;
    bool base_is_rdb;
    bool needs_switch;     /* the increment changes where the base is cut */
    _Atomic bool switched; /* it has */
    /* Counters. */
    _Atomic bool scheduled, rewrite_ok;
    _Atomic uint64_t rewrites, failures, base_growth_from;
    _Atomic int64_t last_took_s, rewrite_started_ms;
    /* The main thread's. */
    int delay_min;
    int64_t not_before_ms, retry_start_ms;
    bool sync_failed; /* a sync has failed, and no rewrite was asked for since; the main thread's */
    _Atomic(char *) refusals[AOF_ERRNO_MAX]; /* by errno */
    struct rdb_progress load_progress;
    _Atomic bool loading;
};

/* ---- aof.c ---- */
/* Fills options and extras; with the server at rest, or before anybody writes. */
void aof_rewrite_options(struct aof *a);
/* Writes behind the present end of the log to fd (taken), which has `size` bytes and has
 * selected `db`.  With the server at rest. */
MUST_USE bool aof_start_writer(struct aof *a, int fd, uint64_t size, int db);

/* ---- aof_files.c ---- */
bool aof_files_make_directory(struct aof *a);
/* Makes the increment that follows and puts it into the manifest; gives its descriptor, -1: the log says why. */
int aof_files_next_increment(struct aof *a);
/* The file that becomes an increment once its base is there; -1: the log says why. */
int aof_files_temporary_increment(struct aof *a);
/* Writes the cut (taken) into a temporary file and syncs it. */
enum status aof_files_write_base(struct aof *a);
/* The temporary base, and after a first rewrite the temporary increment, take their places; what they replace is
 * deleted.  False: the log says why, and all is as before. */
bool aof_files_install(struct aof *a);
void aof_files_remove_temporary(struct aof *a);
/* Deletes what is history, unless aof-disable-auto-gc is on. */
void aof_files_forget(struct aof *a);
uint64_t aof_files_older_size(struct aof *a);

#endif
