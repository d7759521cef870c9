/* file.h: whole files in memory.  Any thread. */
#ifndef COVEY_BASE_FILE_H
#define COVEY_BASE_FILE_H

#include "base/bytes.h"

/* Appends everything that can be read from fd.  False, with errno: it failed; EFBIG for more than max bytes, or memory
 * for them is not to be had.  What was read until then is in out. */
MUST_USE bool file_read_all(int fd, size_t max, struct buf *out);

#endif
