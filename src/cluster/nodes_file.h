/* nodes_file.h: nodes.conf on disk: read, locked, replaced atomically; inside src/cluster only. */
#ifndef COVEY_CLUSTER_NODES_FILE_H
#define COVEY_CLUSTER_NODES_FILE_H

#include "base/bytes.h"
#include "base/status.h"

struct nodes_file {
    char *path;
    int fd; /* of the file at `path`, locked exclusively */
};

/* Opens (or creates) and locks the file, appends its text to `text`.  E_EXISTS: another process holds the lock.  E_IO:
 * errno. */
MUST_USE enum status nodes_file_open(struct nodes_file *f, const char *path, struct buf *text);
/* Replaces the content: a temporary file, locked and synced, renamed over the old one.  There is always one complete
 * file, and it is always locked.  E_IO: errno; the old one stays. */
MUST_USE enum status nodes_file_write(struct nodes_file *f, struct bytes text);

#endif
