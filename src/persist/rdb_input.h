/* rdb_input.h: RDB bytes on their way in: a window over a source, and the decoding of lengths, strings and values.
 *
 * Nothing that is read is trusted.  A function that returns false has set `st`, and what went wrong in `what`; the
 * caller returns false too.  Memory for announced bytes is reserved as they arrive (at once only when the source is
 * known to have so many). */
#ifndef COVEY_PERSIST_RDB_INPUT_H
#define COVEY_PERSIST_RDB_INPUT_H

#include "persist/persist.h"

enum { IN_WINDOW_BYTES = 256 * 1024 };

struct rdb_in {
    struct rdb_source source; /* read is NULL: all there is stands in the window */
    unsigned char *window;    /* owned when `own` */
    size_t pos, n;            /* next byte, bytes in the window */
    size_t cap;               /* room in it */
    uint64_t before;          /* bytes of the input before the window */
    size_t summed;            /* where in the window the checksum stands */
    uint64_t crc;
    bool own, checksum;
    const struct store_limits *limits;
    struct buf text[3];    /* scratch for strings: key, field, value */
    struct buf compressed; /* scratch */
    enum status st;
    char what[160];
};

enum { IN_KEY, IN_FIELD, IN_VALUE }; /* which scratch a string may use */

void in_init(struct rdb_in *in, struct rdb_source source, const struct store_limits *limits);
/* The same with a window of this size, IN_WINDOW_BYTES at least. */
void in_init_window(struct rdb_in *in, struct rdb_source source, const struct store_limits *limits, size_t window);
/* Over bytes in memory, borrowed. */
void in_init_bytes(struct rdb_in *in, struct bytes b, const struct store_limits *limits);
void in_deinit(struct rdb_in *in);

static inline uint64_t in_offset(const struct rdb_in *in)
{
    return in->before + in->pos;
}

/* The checksum of everything that was read. */
uint64_t in_crc(struct rdb_in *in);
/* Gets as many more bytes into the window as it has room for.  *got 0: it is full, or the input at its end. */
bool in_fill(struct rdb_in *in, size_t *got);
/* Takes the window away with all it holds; what stands in it from `at` on goes on in `fresh` (taken, in->cap bytes).
 * The bytes before count as read. */
unsigned char *in_window_take(struct rdb_in *in, size_t at, unsigned char *fresh);
/* True when at least one more byte can be read; false at a clean end (st stays OK) or on error. */
bool in_more(struct rdb_in *in);
/* Sets st and the reason, unless there is one already. */
void in_set_error(struct rdb_in *in, enum status st, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The same, and is false: a macro, so that this is seen where it is used. */
#define in_fail(in, ...) (in_set_error(in, __VA_ARGS__), false)

MUST_USE bool in_bytes(struct rdb_in *in, void *p, size_t n);
MUST_USE bool in_byte(struct rdb_in *in, unsigned *v);
MUST_USE bool in_le(struct rdb_in *in, unsigned bytes, uint64_t *v);
MUST_USE bool in_length(struct rdb_in *in, uint64_t *n);
/* A string in any encoding as text.  It stands in the window or in that scratch: valid until the next in_ call, or,
 * when keep is set, until the scratch is used again. */
MUST_USE bool in_string(struct rdb_in *in, int scratch, bool keep, struct bytes *out);

/* The value behind a type byte as an entry named key (borrowed; may be in scratch IN_KEY).  Empty collections are
 * E_NOT_FOUND, what 7.0 and 8 do not know or cannot hold is E_CORRUPT. */
MUST_USE bool in_value(struct rdb_in *in, unsigned type, struct bytes key, struct entry **out);
MUST_USE bool in_stream(struct rdb_in *in, unsigned type, struct bytes key, struct entry **out);
const char *rdb_type_name(unsigned type);
/* The beginning of a key for a message: what is not plain text is shown as '?'.  Gives how many bytes fitted. */
size_t printable(struct bytes key, char *out, size_t cap);
/* The name in a module's id; out gets 9 characters and a NUL. */
void rdb_module_name(uint64_t id, char out[10]);

/* The parts of old value formats: calls emit for each element in order; the result of emit other than OK ends the walk
 * and is returned.  E_CORRUPT: not a ziplist (zipmap). */
typedef enum status legacy_fn(void *ctx, struct bytes text);
MUST_USE enum status ziplist_each(struct bytes blob, legacy_fn *emit, void *ctx);
MUST_USE enum status zipmap_each(struct bytes blob, legacy_fn *emit, void *ctx); /* field, value, field, value ... */

#endif
