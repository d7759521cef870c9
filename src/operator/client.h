/* client.h: a connection to one node, for tools: requests out, replies in, blocking with a deadline or bit by bit.
 * One thread at a time. */
#ifndef COVEY_OPERATOR_CLIENT_H
#define COVEY_OPERATOR_CLIENT_H

#include "resp/resp.h"

#include <stdint.h>

/* All zero with fd -1 is a closed one. */
struct client {
    int fd;      /* -1: closed */
    int waiting; /* replies still to come */
    struct buf in, out;
    struct resp_reply_parser parser;
};

void client_init(struct client *c);
/* E_IO with errno: cannot be reached within timeout_ms.  password (NULL: none) is sent first; E_INVALID: it was
 * refused. */
MUST_USE enum status client_open(struct client *c, const char *host, int port, const char *password,
                                 int64_t timeout_ms);
void client_close(struct client *c); /* harmless when closed; frees everything */

/* Queues a request of argc C strings. */
void client_send(struct client *c, size_t argc, ...);
/* Writes and reads what can be written and read without waiting.  E_CLOSED, E_IO: the connection is closed now. */
MUST_USE enum status client_pump(struct client *c);
/* The next reply that has arrived; the caller frees it with resp_value_free().  E_AGAIN: none yet.  E_CORRUPT: closed
 * now. */
MUST_USE enum status client_next(struct client *c, struct resp_value **reply);
/* Waits for the next reply.  E_AGAIN: not within timeout_ms, the connection is closed now, as a late reply would
 * confuse. */
MUST_USE enum status client_wait(struct client *c, int64_t timeout_ms, struct resp_value **reply);

#endif
