/* memcached.h: memcached's ASCII protocol: requests as a server reads them, replies as a client does.
 * Promises: pure functions over the caller's memory; both parsers are incremental, look at no byte twice that they have
 * passed, and reserve nothing for bytes that are only announced.  What one parser takes for one request, memcached
 * takes for one request too: a line ends at its first line feed, and keys have no byte that memcached would end them
 * at. Source: memcached's doc/protocol.txt.  Wider than nutcracker: a bare line feed ends a line, and the expiration
 * time may be negative. Threads: any thread, but one object is used by one thread at a time. */
#ifndef COVEY_POOL_MEMCACHED_H
#define COVEY_POOL_MEMCACHED_H

#include "base/bytes.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    MC_KEY_MAX = 250,
    MC_LINE_MAX = 1024 * 1024, /* bytes of a command line, or of a line of a reply */
};

enum mc_command {
    MC_GET,
    MC_GETS,
    MC_SET,
    MC_ADD,
    MC_REPLACE,
    MC_APPEND,
    MC_PREPEND,
    MC_CAS,
    MC_DELETE,
    MC_INCR,
    MC_DECR,
    MC_TOUCH,
    MC_VERSION,
    MC_QUIT,
    MC_COMMAND_COUNT
};

const char *mc_command_name(enum mc_command c);

/* One request.  All zero is a valid empty one; meant to be used again, its memory stays with it. */
struct mc_request {
    enum mc_command command;
    bool noreply; /* no reply is to be sent, whatever happens */
    struct bytes
        *keys; /* owned array; the bytes point into the input.  One, or for get and gets one and more, or none */
    size_t keys_n, keys_cap;
    size_t size; /* bytes of the input that are the request, data included */
};

/* One per connection.  All zero plus value_max is a fresh parser. */
struct mc_request_parser {
    uint64_t value_max; /* longest value accepted */
    size_t need;        /* after E_AGAIN: at least so many more bytes are needed; 0: not known */
    char error[64];     /* after E_CORRUPT: a line for the client, without its end */

    /* private: where an incomplete request stands, counted from its first byte */
    size_t searched; /* no line feed before */
    size_t whole;    /* its size with the data; 0: the line is not complete */
};

void mc_request_deinit(struct mc_request *r);

/* Reads one request from the front of `in`.
 * OK: valid as long as `in` stays; the parser is fresh.  E_AGAIN: call again with the same bytes (moved or not) and
 * more. E_CORRUPT: p->error is the reply; the connection is of no further use.  E_NOMEM. */
MUST_USE enum status mc_parse_request(struct mc_request_parser *p, struct bytes in, struct mc_request *out);

enum mc_reply_kind {
    MC_REPLY_VALUES, /* VALUE blocks, none or more, and END */
    MC_REPLY_LINE,   /* STORED, DELETED, a number, VERSION ... */
    MC_REPLY_ERROR,  /* ERROR, CLIENT_ERROR ... or SERVER_ERROR ..., perhaps behind VALUE blocks */
};

/* All zero is a fresh parser; it owns nothing. */
struct mc_reply_parser {
    size_t size;        /* after OK: bytes of the reply */
    size_t values_size; /* after OK: how many of these are VALUE blocks; the last line stands behind them */
    size_t need;        /* after E_AGAIN: as above */
    enum mc_reply_kind kind;

    /* private */
    size_t pos; /* where the current line begins */
    size_t searched;
};

/* Finds the end of the reply at the front of `in`, checking its form.  OK, E_AGAIN and E_CORRUPT as above; a new reply
 * is begun after OK. */
MUST_USE enum status mc_scan_reply(struct mc_reply_parser *p, struct bytes in);

#endif
