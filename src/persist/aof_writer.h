/* aof_writer.h: the change log on its way into the present increment of the AOF.
 *
 * Who has appended to the log writes it to the file at the end of his turn (aof_writer_flush()), unless another thread
 * is at it, the disk is being waited for, or the policy is `always`: then the writer's own thread does.  That thread
 * forces the file to disk, one fdatasync() for whatever has been written meanwhile, goes on where a write failed, and
 * changes files.  Bytes go from the log's blocks to the file as they are; the reader pins what is not in the file yet,
 * from the last boundary between commands on, so that nothing is lost when the disk is full.
 *
 * Threads: functions say who calls them.  Locks: `io` (the file), below it `sync` (one fdatasync() at a time), below
 * that `mu` (waking the thread); all after the change log's readers' peers, before mailboxes.  host functions are
 * called under `io` where they say so. */
#ifndef COVEY_PERSIST_AOF_WRITER_H
#define COVEY_PERSIST_AOF_WRITER_H

#include "change/change.h"

enum aof_fsync { AOF_FSYNC_EVERYSEC, AOF_FSYNC_ALWAYS, AOF_FSYNC_NO };

struct aof_writer_host {
    void *ctx;
    struct change_log *log;
    enum aof_fsync (*policy)(void *ctx);
    bool (*timestamps)(void *ctx); /* aof-timestamp-enabled */
    /* True while the disk is left to a snapshot: no-appendfsync-on-rewrite. */
    bool (*spares_disk)(void *ctx);
    /* All up to that offset of the log is as safe as the policy says. */
    void (*durable)(void *ctx, uint64_t offset);
    void (*latency)(void *ctx, const char *event, uint64_t us);
    /* The file that goes on from the offset of aof_writer_switch(), open for appending; -1: the old one goes on.
     * Under io; what came before that offset is on disk. */
    int (*next_file)(void *ctx);
    /* Replies of writes wait from now on (with the server at rest), or not any more (under io), until durable() has
     * said their offset, whatever the policy: the files are being changed. */
    void (*hold)(void *ctx, bool yes);
    /* Very much waits to be written, or (false) no longer. */
    void (*congested)(void *ctx, bool yes);
};

struct aof_writer;
struct aof_writer *aof_writer_create(struct aof_writer_host host);
void aof_writer_destroy(struct aof_writer *w); /* stopped, and nobody else uses it */

/* Begins at that offset of the log, which is active and reaches back to there, behind the `size` bytes that fd (taken)
 * holds.  db: what the stream has selected there, -1 none.  With the server at rest, or before anybody writes. */
MUST_USE enum status aof_writer_start(struct aof_writer *w, int fd, uint64_t offset, uint64_t size, int db);
/* Writes and syncs the rest, then closes the file.  With the server at rest.  E_IO: something could not be written,
 * which is in the log. */
enum status aof_writer_stop(struct aof_writer *w);
/* With the server at rest: writes and syncs all there is. */
MUST_USE enum status aof_writer_sync(struct aof_writer *w);
/* What the log holds from here on belongs into another file: next_file() is asked for it, soon.  With the server at
 * rest. db as above. */
void aof_writer_switch(struct aof_writer *w, int db);
/* Gives up the change of files if it has not happened.  Any thread. */
void aof_writer_switch_cancel(struct aof_writer *w);
bool aof_writer_switching(const struct aof_writer *w);

/* At the end of a turn, before its replies leave.  Costs two loads when there is nothing to write.  Any thread. */
void aof_writer_flush(struct aof_writer *w);
/* Has the thread look at what has changed (the policy). */
void aof_writer_poke(struct aof_writer *w);

bool aof_writer_is_on(const struct aof_writer *w);
bool aof_writer_is_congested(const struct aof_writer *w);
/* 0: fine; else errno of the last write or sync, which failed: the node must not take writes.  Any thread. */
int aof_writer_error(const struct aof_writer *w);

struct aof_writer_facts {
    uint64_t size;             /* of the present file */
    uint64_t written, durable; /* offsets of the log; durable: as the policy wants it */
    uint64_t synced;           /* what fdatasync() has confirmed */
    uint64_t waiting;          /* bytes of the log not written yet */
    uint64_t delayed;          /* writes that did not wait any longer for a slow fdatasync() */
    bool write_ok, sync_ok, syncing;
};
void aof_writer_facts(const struct aof_writer *w, struct aof_writer_facts *out);

#endif
