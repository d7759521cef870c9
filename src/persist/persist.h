/* persist.h: the dataset as bytes: RDB files and streams, and the payloads of DUMP and RESTORE.
 *
 * Promises: what is written is RDB version 10 exactly as redis-server 7.0 writes it (types 0, 2, 4, 5, 11, 16, 17, 18
 * and 19), and a file that could not be written whole never takes the place of the old one.  Everything of versions 1
 * to 11 is read (all value types but modules; version 11 is that of Redis 7.2 and Valkey 7.2 and 8).  Bytes that are
 * read are not trusted: every length is checked, memory grows only as bytes arrive, and what does not fit its format is
 * an error with a place and a reason, never a crash. Does not promise: that a stream of version 11 (type 21) keeps its
 * consumers' active times: version 10 has no field for them.
 *
 * Threads: no function here keeps state.  One object is used by one thread at a time; the fields of struct rdb_progress
 * may be read (and `cancel` set) from any thread.  rdb_load() may start threads of its own, which have ended when it
 * returns.
 * Source of the layout: RDB files and DUMP payloads of redis-server 7.0.15; LZF is liblzf's. */
#ifndef COVEY_PERSIST_PERSIST_H
#define COVEY_PERSIST_PERSIST_H

#include "base/bytes.h"
#include "store/access.h"
#include "store/entry.h"
#include "store/store.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    RDB_VERSION = 10,          /* what is written */
    RDB_VERSION_READ_MAX = 11, /* what is read */
    RDB_ERROR_MAX = 400,
};

/* Why something failed, for a log line or a user.  text is empty on success. */
struct rdb_error {
    char text[RDB_ERROR_MAX];
};

/* ---- sinks and sources --------------------------------------------------------------------------------------------
 */

/* Where RDB bytes go.  Gets big pieces; may block (the caller holds no lock then).  Writes all n bytes or fails; E_IO
 * with errno set, or any other status: it is passed on to the caller of the writer.  Borrows p until return. */
struct rdb_sink {
    void *ctx;
    enum status (*write)(void *ctx, const void *p, size_t n);
};

/* Where RDB bytes come from.  Fills p with 1 .. n bytes, may block for them; *got 0 is the end of the input.  Another
 * status than OK is passed on to the caller of the reader. */
struct rdb_source {
    void *ctx;
    enum status (*read)(void *ctx, void *p, size_t n, size_t *got);
    uint64_t size; /* bytes there are in all; 0: not known.  Known, it lets impossible lengths be refused at once. */
};
enum status rdb_read_fd(void *fd, void *p, size_t n, size_t *got); /* a `read` whose ctx is an int *, a descriptor */

/* ---- what goes with the keys --------------------------------------------------------------------------------------
 */

/* Parts of a file that are kept without being understood and written back as they were: function libraries (their
 * source text).  All zero is an empty one.  Owns the texts. */
struct rdb_extras {
    struct buf *libraries;
    size_t count, cap;
};
void rdb_extras_deinit(struct rdb_extras *x);                    /* frees; x is empty and usable again */
void rdb_extras_add(struct rdb_extras *x, struct bytes library); /* copies */

enum rdb_access { RDB_ACCESS_NONE, RDB_ACCESS_IDLE, RDB_ACCESS_FREQ };

/* How and with what an RDB is written.  Borrowed while it is being written. */
struct rdb_options {
    bool compress;          /* rdbcompression: LZF for strings longer than 20 bytes */
    bool checksum;          /* rdbchecksum; false writes a checksum of 0, which loaders do not check */
    enum rdb_access access; /* IDLE when maxmemory-policy is an LRU one, FREQ when an LFU one */
    uint32_t lru_clock;     /* now, for the idle time of RDB_ACCESS_IDLE (seconds, 24 bits) */
    struct lfu lfu;         /* for RDB_ACCESS_FREQ */
    int64_t now_ms;         /* unix time, for the aux field ctime and RDB_ACCESS_FREQ */
    uint64_t used_memory;   /* for the aux field used-mem */
    bool aof_base;          /* this is the base of an AOF: no replication fields follow */
    bool has_repl;          /* write the three fields below: replication goes on from here */
    int repl_db;            /* database that the replication stream has selected; -1: none */
    char repl_id[41];       /* 40 hexadecimal characters */
    int64_t repl_offset;
    const struct rdb_extras *extras; /* may be NULL */
};

/* How far a save or a load has come.  The writer of a field is the working thread; `cancel` is set by others. */
struct rdb_progress {
    _Atomic uint64_t keys, keys_total;   /* total: as far as known (0: not) */
    _Atomic uint64_t bytes, bytes_total; /* of the RDB */
    _Atomic uint64_t keys_expired;       /* load: not taken over because their time had passed */
    _Atomic bool cancel;                 /* save: give up at the next slice */
};

/* ---- writing ------------------------------------------------------------------------------------------------------
 */

/* The dataset of a cut, written step by step to any sink: a file, a socket, a buffer.
 * Takes cut, on failure too (gives it back with store_cut_end()).  options and sink.ctx are borrowed until
 * rdb_snapshot_end(); progress (borrowed, may be NULL) counts. */
struct rdb_snapshot;
struct rdb_snapshot *rdb_snapshot_begin(struct store *s, struct cut *cut, struct rdb_sink sink,
                                        const struct rdb_options *options, struct rdb_progress *progress);
/* Goes on for about bytes_max bytes of the dataset (a very large value is written whole).  E_AGAIN: there is more.  OK:
 * all of it, with its checksum, has been given to the sink.  E_CLOSED: progress->cancel was set.  Else the sink's
 * status; it is of no use to go on then.  Not called under a slot lock. */
enum status rdb_snapshot_step(struct rdb_snapshot *sn, size_t bytes_max);
void rdb_snapshot_end(struct rdb_snapshot *sn); /* at any time; also ends the cut */

/* Saves a cut (taken) as dir/name: writes dir/temp-<pid>.rdb, syncs it, renames it over name, syncs dir. On any error
 * the temporary file is removed, the old file is untouched, and err says why.  E_CLOSED: cancelled.  Blocks; the caller
 * sees to it that no two saves run in one directory at the same time. */
MUST_USE enum status rdb_save_file(struct store *s, struct cut *cut, const struct rdb_options *options, const char *dir,
                                   const char *name, struct rdb_progress *progress, struct rdb_error *err);

/* The dataset of a cut (taken, on failure too) as the commands that make it, which is what the base of an AOF may be:
 * functions, then keys.  timestamp: begins with an annotation of the time.  progress counts and may cancel.  Blocks in
 * the sink only.  Of options the libraries and now_ms are used. */
MUST_USE enum status aof_base_write(struct store *s, struct cut *cut, struct rdb_sink sink,
                                    const struct rdb_options *options, bool timestamp, struct rdb_progress *progress);

/* The parts of the above, for RDBs that do not come from a cut.  Order: rdb_writer_begin(), entries, rdb_writer_end().
 * Every function returns the first error of the sink, again and again.  Borrows options until rdb_writer_free(). */
struct rdb_writer;
struct rdb_writer *rdb_writer_new(struct rdb_sink sink, const struct rdb_options *options);
enum status rdb_writer_begin(struct rdb_writer *w); /* magic, aux fields, function libraries */
/* Says that db follows, with so many keys (a hint).  Left out, rdb_writer_entry() names the db when it changes. */
enum status rdb_writer_db(struct rdb_writer *w, int db, uint64_t keys, uint64_t keys_with_ttl);
enum status rdb_writer_entry(struct rdb_writer *w, int db, const struct entry *e);
enum status rdb_writer_end(struct rdb_writer *w);   /* end mark, checksum, flush */
enum status rdb_writer_flush(struct rdb_writer *w); /* hands what is buffered to the sink */
size_t rdb_writer_buffered(const struct rdb_writer *w);
uint64_t rdb_writer_bytes(const struct rdb_writer *w); /* written so far, buffered bytes included */
void rdb_writer_free(struct rdb_writer *w);            /* NULL is fine */

/* ---- reading ------------------------------------------------------------------------------------------------------
 */

/* One key as it was read. */
struct rdb_key {
    int db;
    struct entry *entry; /* with its time of expiry set (entry_expire_at()); given to the callback */
    enum rdb_access access;
    uint64_t idle_s; /* RDB_ACCESS_IDLE */
    uint8_t freq;    /* RDB_ACCESS_FREQ */
};

/* Callbacks of a reader; all but `entry` may be NULL.  Bytes are borrowed until they return.  A status other than OK
 * ends the reading and is passed on. */
struct rdb_handler {
    void *ctx;
    enum status (*entry)(void *ctx, struct rdb_key *key); /* takes key->entry, on error too */
    enum status (*entries_end)(
        void *ctx); /* all entries were given: what was put off is done now; not after an error */
    enum status (*db)(void *ctx, int db, uint64_t keys, uint64_t keys_with_ttl); /* a hint; untrusted numbers */
    enum status (*aux)(void *ctx, struct bytes name, struct bytes value);
    enum status (*library)(void *ctx, struct bytes source);
    /* Called about once every 2 MB with the bytes read so far. */
    enum status (*tick)(void *ctx, uint64_t bytes);
    enum status (*select)(void *ctx, int db); /* the keys that follow are this database's */
};

struct rdb_read_options {
    const struct store_limits *limits;
    int databases;        /* SELECTDB of this or above is an error */
    bool ignore_checksum; /* rdbchecksum no */
};

/* A reader over one source.  Borrows options, and what source and handler point to, until rdb_reader_free(). */
struct rdb_reader;
struct rdb_reader *rdb_reader_new(struct rdb_source source, const struct rdb_handler *handler,
                                  const struct rdb_read_options *options);
/* Reads one RDB from its magic to its checksum.  E_CORRUPT, E_NOMEM, E_CLOSED (ends too early), E_TOO_BIG (a version
 * from the future), E_EXISTS (a key twice, from the callback): err says where and what. */
MUST_USE enum status rdb_reader_run(struct rdb_reader *r, struct rdb_error *err);
uint64_t rdb_reader_bytes(const struct rdb_reader *r); /* size of the RDB so far */
/* Where a reader stands, for a tool that tells about files. */
struct rdb_place {
    const char *doing; /* redis-check-rdb's word for it: "read-type", "read-object-value", ... */
    bool in_entry;     /* type and key are those of the key being read */
    int type;          /* also of what was taken for one */
    struct bytes key;  /* valid as long as nothing is read */
    int version;
    bool unchecked;                                              /* the file came without a checksum */
    bool wrong_magic, wrong_version, wrong_type, wrong_checksum; /* why it was refused */
};
void rdb_reader_place(const struct rdb_reader *r, struct rdb_place *out);
/* What was taken from the source beyond the end of the RDB: the stream that follows it.  Borrowed. */
struct bytes rdb_reader_rest(const struct rdb_reader *r);
void rdb_reader_free(struct rdb_reader *r); /* NULL is fine */

/* Replication and other state found in the aux fields of a file. */
struct rdb_aux {
    bool aof_base;
    bool has_repl; /* repl-id and repl-offset were there and make sense */
    char repl_id[41];
    int64_t repl_offset;
    int repl_db; /* -1: none */
    int64_t ctime_s;
    uint64_t used_memory;
};

/* Loading straight into a store (without clearing it first; the keys' slots are locked one at a time). */
struct rdb_load_options {
    struct store_limits limits;
    bool ignore_checksum;
    bool keep_expired; /* a replica, or the base of an AOF: take over keys whose time has passed */
    bool replace;      /* a key that is there already is replaced; else it is an error (E_EXISTS) */
    bool lfu;          /* maxmemory-policy is an LFU one: take freq, not idle times, into the access clock */
    int64_t now_ms;
    uint32_t lru_clock;
    /* So many threads decode and insert, this one among them, where the source's size is known (a file).  0, 1: only
     * this one.  `expired` may be called from all of them then, the other functions from this one only. */
    unsigned threads;
    /* May be NULL; gets appended what was taken from the source beyond the end of the RDB.  A source is never asked for
     * more once the end has been read. */
    struct buf *rest;
    void *ctx; /* for the two functions below, which may be NULL */
    /* A key was left out because its time has passed; no lock held. */
    void (*expired)(void *ctx, int db, struct bytes key);
    /* About every 2 MB: a turn for the caller's event loop.  Another status than OK ends the load. */
    enum status (*tick)(void *ctx);
};

struct rdb_load_result {
    struct rdb_aux aux;
    uint64_t bytes; /* size of the RDB: where something else (an old AOF's commands) may follow */
    uint64_t keys;
};

/* Borrows everything.  extras (may be NULL) gets function libraries added. progress may be NULL. */
MUST_USE enum status rdb_load(struct store *s, struct rdb_source source, const struct rdb_load_options *options,
                              struct rdb_extras *extras, struct rdb_progress *progress, struct rdb_load_result *result,
                              struct rdb_error *err);
/* E_NOT_FOUND: there is no such file. */
MUST_USE enum status rdb_load_file(struct store *s, const char *path, const struct rdb_load_options *options,
                                   struct rdb_extras *extras, struct rdb_progress *progress,
                                   struct rdb_load_result *result, struct rdb_error *err);

/* ---- DUMP and RESTORE ---------------------------------------------------------------------------------------------
 */

/* Appends the payload of e's value: type, value, version, checksum.  E_NOMEM leaves out as it was. */
MUST_USE enum status persist_dump(const struct entry *e, bool compress, struct buf *out);
/* Whether version and checksum of a payload are right. */
bool persist_payload_ok(struct bytes payload);
/* Builds an entry of that name, without a time of expiry; *out is set on OK only and is then the caller's.
 * E_INVALID: persist_payload_ok() is false.  E_CORRUPT: its content makes no value (an empty one neither).  E_NOMEM.
 * Bytes between the value and the footer are ignored, as in Redis. */
MUST_USE enum status persist_restore(struct bytes payload, struct bytes key, const struct store_limits *limits,
                                     struct entry **out);

/* The same for function libraries (FUNCTION DUMP): appends the payload of all of them. */
MUST_USE enum status persist_dump_libraries(const struct rdb_extras *x, bool compress, struct buf *out);
/* Adds the libraries of such a payload to x, on error perhaps some of them.  E_INVALID: version or checksum are wrong.
 * E_EXISTS: it holds something else than libraries.  E_CORRUPT, E_NOMEM. */
MUST_USE enum status persist_restore_libraries(struct bytes payload, struct rdb_extras *x);

#endif
