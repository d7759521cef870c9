/* rdb_output.h: RDB bytes on their way out: a buffer with a checksum in front of a sink, and the encoding of lengths,
 * strings and values.
 *
 * The first error stays in `st`; after it everything is a no-op, so that callers look once, at the end.
 * An entry is gathered in the buffer and nothing is handed to the sink meanwhile, because small entries are written
 * under their slot's lock; only an entry above OUT_FLUSH_BYTES by itself (a fork that no lock guards) goes out in
 * pieces. */
#ifndef COVEY_PERSIST_RDB_OUTPUT_H
#define COVEY_PERSIST_RDB_OUTPUT_H

#include "persist/persist.h"

struct packer;

enum { OUT_FLUSH_BYTES = 256 * 1024 };

struct rdb_out {
    struct rdb_sink sink; /* write is NULL: everything stays in the buffer */
    struct buf b;
    size_t entry_start; /* where the present entry begins in b; bytes of it that were flushed count from 0 */
    uint64_t crc;       /* of what was flushed */
    uint64_t flushed;
    struct buf packed;     /* scratch for LZF */
    struct packer *packer; /* compresses instead of liblzf, if there; owned */
    enum status st;
    bool compress, checksum;
};

void out_deinit(struct rdb_out *o);
enum status out_flush(struct rdb_out *o);
void out_entry_begin(struct rdb_out *o);

void out_bytes(struct rdb_out *o, const void *p, size_t n);
void out_byte(struct rdb_out *o, unsigned v);
void out_length(struct rdb_out *o, uint64_t n);
void out_string(struct rdb_out *o, struct bytes s);
void out_i64_string(struct rdb_out *o, int64_t v); /* the string that is v's decimal text */

/* The type byte of an entry's value, and the value without it. */
unsigned rdb_type_of(const struct entry *e);
void out_value(struct rdb_out *o, const struct entry *e);
void out_stream(struct rdb_out *o, const struct entry *e);

#endif
