/* client.h: what a connection looks like to others; inside src/server only. */
#ifndef COVEY_SERVER_CLIENT_H
#define COVEY_SERVER_CLIENT_H

#include "server/conn.h"

/* Appends the connection's line of CLIENT LIST, without a line end; on its own thread or with the server at rest.
 * now: the call that is being executed, when it is this connection's. */
void client_line(const struct conn *c, const struct call *now, struct buf *out);
/* Whether the text can be a connection's name (printable, no spaces). */
bool client_name_ok(struct bytes name);
void client_set_name(struct conn *c, struct bytes name);

#endif
