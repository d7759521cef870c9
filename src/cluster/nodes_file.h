/* nodes_file.h: nodes.conf on disk: read, locked, replaced atomically; inside src/cluster only.
 *
 * There are two ways to write it.  A durable write is on the disk when it returns.  A quick one is in the file, for
 * everybody who reads it and for this node when its process is killed, but may be lost when the machine goes down.
 * Then the last durable text must not be lost with it: it stays beside the file, as nodes.conf.synced-<boot id>, until
 * there is a newer durable one, and is what counts when the machine has been started anew since (its boot id is
 * another). */
#ifndef COVEY_CLUSTER_NODES_FILE_H
#define COVEY_CLUSTER_NODES_FILE_H

#include "base/bytes.h"
#include "base/status.h"

struct nodes_file {
    char *path;
    char *spare; /* path of what the next text is written to */
    char *kept;  /* path of the last durable text, while there is a quick one; NULL: the system has no boot id */
    int fd;      /* of the file at `path`, locked exclusively */
    int spare_fd;
    bool is_durable;  /* what is at `path` */
    bool cannot_swap; /* the file system cannot exchange two names: all writes are durable ones */
};

/* Opens (or creates) and locks the file, appends its text to `text`.  E_EXISTS: another process holds the lock.  E_IO:
 * errno. */
MUST_USE enum status nodes_file_open(struct nodes_file *f, const char *path, struct buf *text);
/* Replaces the content: another file, locked and written, takes the name of the old one.  There is always one complete
 * file, and it is always locked.  *is_durable: false asks for a quick write; it is true afterwards if it was a durable
 * one.  E_IO: errno; the old one stays. */
MUST_USE enum status nodes_file_write(struct nodes_file *f, struct bytes text, bool *is_durable);
/* Makes the last write durable.  E_IO: errno. */
MUST_USE enum status nodes_file_sync(struct nodes_file *f);

#endif
