/* file.h: whole files in memory.  Any thread. */
#ifndef COVEY_BASE_FILE_H
#define COVEY_BASE_FILE_H

#include "base/bytes.h"

/* Appends everything that can be read from fd.  False, with errno: it failed; EFBIG for more than max bytes, or memory
 * for them is not to be had.  What was read until then is in out. */
MUST_USE bool file_read_all(int fd, size_t max, struct buf *out);
/* Replaces a file in one step: written beside it, synced, renamed; it is the old one or the new one at every moment,
 * and its mode stays (0644 for a new file).  False: errno. */
MUST_USE bool file_replace(const char *path, struct bytes content);

/* Makes it durable that the file or directory at the path is there, under this name.  What cannot be synced stays as it
 * is: some file systems cannot. */
void file_sync_directory_of(const char *path);

#endif
