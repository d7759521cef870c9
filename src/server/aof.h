/* aof.h: the append-only file of a node: on and off, rewrites, load; inside src/server only.
 *
 * Its increments are written from the change log (persist/aof_writer.h), its base is a cut that a thread of its own
 * saves.  A cut at offset X of the log and an increment that begins at X are the dataset: that is all a rewrite is. */
#ifndef COVEY_SERVER_AOF_H
#define COVEY_SERVER_AOF_H

#include "server/node.h"

#include "persist/aof_writer.h"

struct aof *aof_create(struct node *n);

/* Reads the manifest, if there is one; at the start, whether the AOF is on or not.  False: the log says why. */
MUST_USE bool aof_open(struct aof *a);
/* Loads what the manifest names, then goes on writing behind it, making what is missing; on the main thread, before
 * clients are served.  False: the log says why. */
MUST_USE bool aof_load_at_start(struct aof *a);
bool aof_has_files(struct aof *a);
/* DEBUG LOADAOF: with the server at rest and its tables stopped. */
MUST_USE bool aof_reload(struct aof *a);

/* CONFIG SET appendonly; with the server at rest.  False: it could not be turned on, the log says why. */
MUST_USE bool aof_turn(struct aof *a, bool on);
/* The policy, or aof-disable-auto-gc, has changed. */
void aof_reconfigure(struct aof *a);
/* The dataset is about to become another one (a full sync): what is written describes the old one to its end.  With the
 * server at rest. */
void aof_abandon(struct aof *a);
/* From the main thread, ten times a second: rewrites that are due, a start that has to be tried again. */
void aof_tick(struct aof *a, int64_t now_ms);
/* The last words, with the server at rest.  False: they could not be written, or the first base is not there yet. */
MUST_USE bool aof_shutdown(struct aof *a, bool force);

/* Writes and syncs what the log holds, beside writers. */
void aof_sync_now(struct aof *a);
/* At the end of a worker's turn, before the replies leave. */
void aof_flush(struct aof *a);
/* What belongs into the file besides changes has changed.  Any thread. */
void aof_poke(struct aof *a);
/* Writers have to wait: the disk is too slow by far. */
bool aof_is_congested(const struct aof *a);
/* 0, or the errno of a write that failed: then writes are refused. */
int aof_write_error(const struct aof *a);
/* The error for that (without '-'); NULL: writes are taken.  Any thread. */
const char *aof_refusal(struct aof *a);
bool aof_is_on(const struct aof *a);
/* Offset of the log up to which everything is on disk (fdatasync); 0 when the AOF is off. */
uint64_t aof_synced_offset(const struct aof *a);
bool aof_is_rewriting(const struct aof *a);
/* Gives up a rewrite under way and waits until it is gone; with the server at rest. */
void aof_rewrite_cancel(struct aof *a);

/* Bytes that wait to be written. */
uint64_t aof_waiting(const struct aof *a);
void aof_info(struct aof *a, struct buf *out);
/* INFO's loading_ lines while the AOF is being loaded. */
const struct rdb_progress *aof_load_progress(const struct aof *a);

#endif
