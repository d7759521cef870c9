/* check_internal.h: between the files of src/check. */
#ifndef COVEY_CHECK_INTERNAL_H
#define COVEY_CHECK_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

/* Reads the RDB at the beginning of fd, telling on standard output what it finds.  True: it is sound, and *size bytes
 * long; fd stands somewhere behind it. */
bool check_rdb_fd(int fd, const char *name, uint64_t *size);

#endif
