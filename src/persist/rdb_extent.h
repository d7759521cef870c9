/* rdb_extent.h: where the next key of an RDB ends, without decoding it: for handing keys to several threads. */
#ifndef COVEY_PERSIST_RDB_EXTENT_H
#define COVEY_PERSIST_RDB_EXTENT_H

#include <stddef.h>

enum rdb_extent {
    RDB_EXTENT_WHOLE, /* a key begins here and ends within the bytes at hand */
    RDB_EXTENT_SHORT, /* it goes on beyond them */
    RDB_EXTENT_OTHER, /* what begins here is no key, or it makes no sense: for the reader to say */
};

/* Looks at the key at p with what stands before it (time of expiry, idle time, frequency).  *size is set when it is
 * WHOLE: the reader, if it accepts the key, takes exactly so many bytes.  Work is proportional to n at most. */
enum rdb_extent rdb_extent(const unsigned char *p, size_t n, size_t *size);

#endif
