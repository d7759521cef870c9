/* resp.h: the Redis serialization protocol, versions 2 and 3: requests in, replies out, and the other way round.
 * Promises: pure functions over the caller's memory, no sockets and no clock; every parser is incremental, never looks
 * twice at a byte it has passed, and reserves no memory for bytes that are only announced.
 * Does not promise: that a request is meaningful (arity and names are the command table's matter).
 * Threads: any thread, but one object is used by one thread at a time. */
#ifndef COVEY_RESP_RESP_H
#define COVEY_RESP_RESP_H

#include "base/bytes.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- Requests, as a server reads them ---------------------------------------------------------------------------- */

enum {
    RESP_INLINE_MAX = 64 * 1024,        /* bytes of an inline request, and of a length line, before they are refused */
    RESP_UNAUTHENTICATED_ARGS_MAX = 10, /* what a client that still has to log in may send */
    RESP_UNAUTHENTICATED_BULK_MAX = 16 * 1024,
};
#define RESP_BULK_MAX_DEFAULT ((int64_t)512 * 1024 * 1024) /* proto-max-bulk-len */

/* One request.  All zero is a valid empty one; it is meant to be used again and again, its memory stays with it. */
struct resp_request {
    struct bytes *argv; /* owned array; the bytes point into the input, or into `decoded` for an inline request */
    size_t argc;
    size_t argv_cap;
    size_t size;        /* bytes of the input that are done with; set by every call, also on E_AGAIN */
    struct buf decoded; /* owned: arguments of an inline request, quotes and escapes resolved */
};

/* One per connection.  All zero plus bulk_max is a fresh parser. */
struct resp_parser {
    int64_t bulk_max;     /* longest bulk accepted: proto-max-bulk-len */
    bool unauthenticated; /* apply RESP_UNAUTHENTICATED_*; may be changed between calls */

    size_t need;    /* after E_AGAIN: at least so many bytes more complete the current bulk; 0: not known */
    char error[64]; /* after E_CORRUPT: "Protocol error: ...", to be sent behind "-ERR " before closing */

    /* private: where an incomplete request stands; offsets count from the request's first byte */
    size_t pos;        /* first byte not passed yet */
    size_t searched;   /* no line end before this offset */
    int64_t args_left; /* elements to come; 0: its header has not been read */
    int64_t bulk_len;  /* announced length of the current element; valid when in_bulk */
    bool in_bulk;
    const char *base;            /* where the request began at the last call; compared, never dereferenced */
    struct resp_request partial; /* arguments that have arrived so far */
};

void resp_parser_init(struct resp_parser *p, int64_t bulk_max);
void resp_parser_deinit(struct resp_parser *p); /* frees; the parser is fresh again */
void resp_request_deinit(struct resp_request *r);

/* Reads one request from the front of `in`.
 * OK: `out` is a whole request with argc >= 1.  argv is valid as long as `in` stays where it is and until `out` is
 *     used again.  The caller goes on out->size bytes further; several requests of one input can be held at a time.
 * E_AGAIN: more bytes are needed.  The first out->size bytes (empty requests) are done with; the next call starts
 * behind them, with at least what was there plus more.  The bytes may have moved, and `out` may be another object.
 * E_CORRUPT: p->error says what to send; the connection is of no further use.  E_NOMEM: no room for the arguments that
 * came; nor is it then. Empty inline lines, "*0" and "*-1" are skipped.  Quoting and escapes of inline requests are
 * those of Redis. */
MUST_USE enum status resp_parse_request(struct resp_parser *p, struct bytes in, struct resp_request *out);

/* Splits one line into arguments with the quoting rules of inline requests ("a b", "\x41\n", 'it\'s'): appends the
 * decoded bytes to out->decoded and fills argv and argc.  E_CORRUPT for unbalanced quotes or text after a closing
 * quote. */
MUST_USE enum status resp_split_line(struct bytes line, struct resp_request *out);
/* Appends text as such an argument, in double quotes. */
void resp_append_quoted(struct buf *out, struct bytes text);

/* ---- Requests, as a client or the replication stream writes them ------------------------------------------------- */

void resp_request_begin(struct buf *b, size_t argc); /* then argc times: */
void resp_request_arg(struct buf *b, struct bytes arg);
void resp_request_arg_i64(struct buf *b, int64_t v);
/* All at once. */
void resp_request_append(struct buf *b, const struct bytes *argv, size_t argc);
/* The same from C strings: resp_request_cstr(&b, 2, "CLUSTER", "NODES"). */
void resp_request_cstr(struct buf *b, size_t argc, ...);

/* ---- Replies, as a server writes them ---------------------------------------------------------------------------- */

/* Borrows the buffer; replies are appended to it.  May be made anew for each command. */
struct resp_out {
    struct buf *buf;
    uint8_t version; /* 2 or 3 */
};

void resp_status(struct resp_out *o, const char *text); /* +text; CR and LF become spaces */
void resp_ok(struct resp_out *o);
/* "-text"; the text starts with its code ("ERR ...", "WRONGTYPE ...").  CR and LF at its end are cut, others become
 * spaces. */
void resp_error(struct resp_out *o, const char *text);
void resp_error_bytes(struct resp_out *o, struct bytes text);
void resp_errorf(struct resp_out *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same, but CR and LF at its end become spaces, too; redis-server has both ways. */
void resp_error_uncut(struct resp_out *o, struct bytes text);
/* "%.*s" of an argument: all of it, but for what nobody reads. */
static inline int resp_shown(struct bytes b)
{
    return (int)(b.n < 1 << 20 ? b.n : 1 << 20);
}
void resp_i64(struct resp_out *o, int64_t v);
void resp_bulk(struct resp_out *o, struct bytes b);
void resp_bulk_cstr(struct resp_out *o, const char *s);
void resp_bulk_i64(struct resp_out *o, int64_t v); /* the number's text as a bulk */
void resp_bulkf(struct resp_out *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void resp_null(struct resp_out *o);       /* $-1 or _ */
void resp_null_array(struct resp_out *o); /* *-1 or _ */
/* Headers: exactly n elements (n pairs for a map) follow. */
void resp_array(struct resp_out *o, size_t n);
void resp_map(struct resp_out *o, size_t n);    /* version 2: an array of 2n */
void resp_set(struct resp_out *o, size_t n);    /* version 2: an array */
void resp_push(struct resp_out *o, size_t n);   /* version 2: an array */
void resp_double(struct resp_out *o, double v); /* version 2: a bulk with 17 digits */
void resp_bool(struct resp_out *o, bool v);     /* version 2: :1 or :0 */
/* format is three letters, "txt" or "mkd"; version 2: a bulk. */
void resp_verbatim(struct resp_out *o, const char *format, struct bytes b);
void resp_big_number(struct resp_out *o, struct bytes digits); /* version 2: a bulk */
void resp_raw(struct resp_out *o, struct bytes encoded);       /* bytes that are a reply already */

/* An aggregate whose length is not known yet: defer, write the elements, then say what it was and how many.
 * Marks nest (the inner one is closed first).  Closing moves what was written behind the mark by a few bytes. */
size_t resp_defer(struct resp_out *o);
void resp_defer_array(struct resp_out *o, size_t mark, size_t n);
void resp_defer_map(struct resp_out *o, size_t mark, size_t n);
void resp_defer_set(struct resp_out *o, size_t mark, size_t n);

/* ---- Replies, as a client reads them ----------------------------------------------------------------------------- */

enum resp_type {
    RESP_STATUS = '+',
    RESP_ERROR = '-', /* also version 3's "!" */
    RESP_INTEGER = ':',
    RESP_BULK = '$',
    RESP_ARRAY = '*',
    RESP_NULL = '_', /* also "$-1" and "*-1" */
    RESP_DOUBLE = ',',
    RESP_BOOL = '#',
    RESP_VERBATIM = '=', /* str without its "txt:" */
    RESP_BIG_NUMBER = '(',
    RESP_MAP = '%', /* child: key, value, key, value...; n counts both */
    RESP_SET = '~',
    RESP_PUSH = '>',
};

struct resp_value {
    enum resp_type type;
    struct bytes str; /* status, error, bulk, verbatim, big number; the text of integers and doubles too */
    int64_t i64;      /* integer; bool as 0 and 1 */
    double dbl;       /* double; an integer's value too */
    size_t n;         /* children */
    struct resp_value *child;
};

enum { RESP_DEPTH_MAX = 32 }; /* aggregates inside each other; deeper is corrupt */

/* All zero is a fresh parser; it owns nothing. */
struct resp_reply_parser {
    size_t size; /* after OK: bytes of the reply */
    size_t need; /* after E_AGAIN: at least so many bytes more are needed; 0: not known */

    /* private */
    size_t pos, searched;
    size_t nodes;
    uint32_t depth;
    uint64_t left[RESP_DEPTH_MAX + 1]; /* elements to come on each level */
};

/* Finds the end of the reply at the front of `in`, checking its form.  OK: p->size bytes are one whole reply and the
 * parser is fresh again.  E_AGAIN: call again with the same bytes (moved or not) and more.  E_CORRUPT: not a reply. */
MUST_USE enum status resp_scan_reply(struct resp_reply_parser *p, struct bytes in);

/* The same, and on OK gives *out, a tree that holds its own copy of the bytes in one piece of memory, to be freed with
 * resp_value_free().  Attributes are dropped.  E_NOMEM: the reply was scanned (p->size is set) but did not fit. */
MUST_USE enum status resp_parse_reply(struct resp_reply_parser *p, struct bytes in, struct resp_value **out);
void resp_value_free(struct resp_value *v); /* NULL is fine */

bool resp_is_status(const struct resp_value *v, const char *text); /* +text, exactly */
bool resp_is_error(const struct resp_value *v, const char *code);  /* -code or -code ...; NULL: any error */
/* The value of `key` in a map, or in an array read as key, value, ...; NULL if it is not there. */
const struct resp_value *resp_map_get(const struct resp_value *v, const char *key);

#endif
