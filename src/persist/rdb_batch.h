/* rdb_batch.h: keys of an RDB that are decoded by another thread than the one that reads the file.
 *
 * The reader finds where keys end (rdb_extent.h), and gives away its window with many whole keys in it; nothing is
 * copied but the beginning of the key that goes on behind the window. */
#ifndef COVEY_PERSIST_RDB_BATCH_H
#define COVEY_PERSIST_RDB_BATCH_H

#include "persist/persist.h"

enum {
    RDB_BATCH_WINDOW = 1024 * 1024, /* bytes; a larger key is decoded by the reader */
    RDB_BATCH_MIN = 64 * 1024,      /* fewer bytes of keys are not worth another thread, nor a window */
};

struct rdb_batch {
    unsigned char *window; /* RDB_BATCH_WINDOW bytes */
    size_t from, to;       /* keys stand here */
    uint64_t before;       /* bytes of the file before the window */
    int db;
};

/* What becomes of batches; called by the reader. */
struct rdb_batches {
    void *ctx;
    unsigned char *(*window)(void *ctx);                           /* a free one; the reader owns it then */
    enum status (*give)(void *ctx, const struct rdb_batch *batch); /* takes the window, on error too */
};

/* As rdb_reader_new(), with batches (borrowed).  The last window is freed with the reader. */
struct rdb_reader *rdb_reader_new_batched(struct rdb_source source, const struct rdb_handler *handler,
                                          const struct rdb_read_options *options, struct rdb_batches *batches);
/* Decodes a batch, whose window is borrowed, into handler->entry.  On error *offset and err say where and what. */
enum status rdb_batch_read(const struct rdb_batch *batch, const struct rdb_handler *handler,
                           const struct rdb_read_options *options, uint64_t *offset, struct rdb_error *err);

/* ---- load_crew.c: threads that decode batches ---- */

struct load_crew;
/* threads: how many besides the caller; handlers[0] is the caller's, the others are theirs, one each (borrowed, with
 * options, until load_crew_end()).  Where the system gives no more threads there are fewer. */
struct load_crew *load_crew_start(unsigned threads, const struct rdb_read_options *options,
                                  const struct rdb_handler *handlers);
struct rdb_batches *load_crew_batches(struct load_crew *crew);
/* Waits until all batches are decoded and the threads have ended; frees.  When decoding failed: the status, and where
 * the first failure in the file was. */
enum status load_crew_end(struct load_crew *crew, uint64_t *offset, struct rdb_error *err);

#endif
