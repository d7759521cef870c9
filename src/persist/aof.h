/* aof.h: the append-only file's formats: the manifest that names its files, the files' commands as they are read, and
 * the replication stream as it is filtered on its way into them.
 *
 * Promises: what redis-server 7.0 writes is read, and the other way round.  Bytes that are read are not trusted.  Lines
 * that begin with '#' are annotations, which every reader passes over; two are written here:
 *     #TS:<unix seconds>              when what follows was written (aof-timestamp-enabled)
 *     #POS:<replication id>:<offset>  where in its history the dataset stands there: what lets a restarted node offer
 *                                     and ask for partial synchronization
 * Threads: none of these objects takes a lock; one is used by one thread at a time.
 * Source of the formats: the files of redis-server 7.0.15. */
#ifndef COVEY_PERSIST_AOF_H
#define COVEY_PERSIST_AOF_H

#include "base/bytes.h"
#include "resp/resp.h"

#include <stdbool.h>
#include <stdint.h>

enum { AOF_LINE_MAX = 1024 }; /* of a manifest, and of an annotation */

/* ---- the manifest ------------------------------------------------------------------------------------------------ */

enum aof_type { AOF_BASE = 'b', AOF_INCREMENT = 'i', AOF_HISTORY = 'h' };

struct aof_file {
    char *name; /* owned; without a directory */
    int64_t seq;
    enum aof_type type;
};

/* All zero is an empty one.  Order: base, history, increments by ascending seq; as it is written. */
struct aof_manifest {
    struct aof_file *files;
    size_t n, cap;
    int64_t base_seq, increment_seq; /* the newest used */
};

void aof_manifest_deinit(struct aof_manifest *m); /* m is empty and usable again */
void aof_manifest_copy(const struct aof_manifest *from, struct aof_manifest *to);
/* Puts the file where it belongs by its type; copies the name.  A base there is already stays another one: take it out
 * first (aof_manifest_retire()). */
void aof_manifest_add(struct aof_manifest *m, const char *name, int64_t seq, enum aof_type type);
/* NULL: there is none. */
const struct aof_file *aof_manifest_base(const struct aof_manifest *m);
const struct aof_file *aof_manifest_last_increment(const struct aof_manifest *m);
size_t aof_manifest_count(const struct aof_manifest *m, enum aof_type type);
/* A rewrite is done: the base and all increments, but for the last when `keep_last`, become history. */
void aof_manifest_retire(struct aof_manifest *m, bool keep_last);
/* Takes the history out. */
void aof_manifest_drop_history(struct aof_manifest *m);
/* Appends the manifest's text. */
void aof_manifest_print(const struct aof_manifest *m, struct buf *out);

/* Why a manifest was refused. */
struct aof_manifest_error {
    const char *what;  /* redis-server's words */
    int line;          /* 0: no line in particular */
    struct bytes text; /* that line, of the parsed text */
};
/* E_CORRUPT: err says why, m is empty.  Text after a NUL in a line is ignored, as a C string's would be. */
MUST_USE enum status aof_manifest_parse(struct aof_manifest *m, struct bytes text, struct aof_manifest_error *err);
/* "<name>.<seq>.base.rdb" (or .aof), "<name>.<seq>.incr.aof"; the caller frees (mem_free()). */
char *aof_base_name(const char *name, int64_t seq, bool rdb);
char *aof_increment_name(const char *name, int64_t seq);
/* Whether this is a file's name without a directory. */
bool aof_is_file_name(struct bytes name);

/* ---- reading commands -------------------------------------------------------------------------------------------- */

enum aof_item {
    AOF_COMMAND,
    AOF_ANNOTATION, /* `line`, without its end */
    AOF_END,
    AOF_TRUNCATED, /* the file ends inside what begins at `offset` */
    AOF_BAD,       /* what begins at `offset` is no command */
    AOF_FAILED,    /* reading failed, errno says why; or no memory: errno is ENOMEM */
    AOF_HOLD,      /* `keep` is set and more input is needed: to be asked again without it */
};

struct aof_reader {
    int fd;
    uint64_t offset;   /* of the item last returned, in the file */
    uint64_t next;     /* behind it */
    struct bytes line; /* AOF_ANNOTATION */
    bool keep;         /* the caller still uses the arguments of commands returned before */
    /* private */
    struct buf in;
    size_t pos; /* bytes of `in` that were given out */
    bool eof;
    struct resp_parser parser;
};

/* Reads from fd (borrowed), whose next byte stands at `offset` behind `rest`, which was read before and is copied. */
void aof_reader_init(struct aof_reader *r, int fd, uint64_t offset, struct bytes rest);
void aof_reader_deinit(struct aof_reader *r);
/* The next item.  AOF_COMMAND: req's arguments are valid while `keep` is set, or until the next call. */
enum aof_item aof_reader_next(struct aof_reader *r, struct resp_request *req);

/* "#POS:..." as it stands in a file. False: the line is another annotation. */
bool aof_parse_position(struct bytes line, char id[41], uint64_t *offset);
/* "#TS:..."; false: another one, or no number. */
bool aof_parse_time(struct bytes line, int64_t *unix_s);

/* ---- filtering the stream ---------------------------------------------------------------------------------------- */

enum aof_kind {
    AOF_DATA,
    AOF_NO_DATA, /* PING, REPLCONF, PUBLISH, SPUBLISH: for replicas only */
};

/* Where in the stream's grammar a filter stands; all zero is the beginning of a command. */
struct aof_filter {
    bool in_command, in_multi;
    enum aof_kind kind; /* of the command under way */
    /* private */
    bool in_length, negative;
    uint64_t skip, length;
    uint64_t args;
    char head[64]; /* the beginning of a command that came in pieces */
    unsigned head_n;
};

/* At the beginning of a command (in_command is false): looks at its first bytes.  Gives how many of p's n bytes belong
 * to what had to be seen.  Then either in_command is true and kind is known: `head` with its head_n bytes stands for
 * the command up to there when head_n is not 0, and is emptied by aof_filter_pass().  Or all n bytes were put into the
 * head.  Bytes that are no command (no stream has them) are one command of AOF_NO_DATA, to the end of their line. */
size_t aof_filter_begin(struct aof_filter *f, const char *p, size_t n);
/* Goes on in the command; gives how many bytes of p belong to it.  in_command is false when it is complete. */
size_t aof_filter_pass(struct aof_filter *f, const char *p, size_t n);

#endif
