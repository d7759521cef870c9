/* rdb_pack.h: LZF-compressed texts made quickly, for files and streams of millions of values.
 *
 * The format is liblzf's, which every reader of RDB files has; the search is ours.  A run is copied only when four
 * bytes of it stood earlier (liblzf: three), and stretches that do not repeat are stepped over with growing strides (as
 * LZ4 does, Y. Collet).  Values that cannot be compressed cost a fifth of liblzf's time that way, others half; the
 * result is within 3% of its size, measured on JSON, prose and machine code in pieces of 200 bytes to 60 KB. */
#ifndef COVEY_PERSIST_RDB_PACK_H
#define COVEY_PERSIST_RDB_PACK_H

#include <stddef.h>
#include <stdint.h>

enum { PACK_HASH_BITS = 12, PACK_INPUT_MAX = INT32_MAX };

/* What is remembered of the text, 16 KB so that it stays in the nearest cache.  All zero is right at first; it goes on
 * to the next text without being cleared.  One thread at a time. */
struct packer {
    uint32_t at[1 << PACK_HASH_BITS]; /* by the hash of four bytes: where they stood last */
    uint32_t base;                    /* the number of the next text's first byte */
};

/* Compresses n bytes (PACK_INPUT_MAX at most) into `cap` bytes at out.  Returns how many it took, or 0 when they do
 * not suffice; what is at out is then undefined. */
size_t pack(struct packer *k, const void *in, size_t n, void *out, size_t cap);

#endif
