/* translate.h: replies of a node that speaks RESP2 only, for clients that speak RESP3; pure functions.
 *
 * What a reply becomes depends on the command: the same array is a map after HGETALL and a set after SMEMBERS.  The
 * shapes are those of Redis 7.0.  A script's reply cannot be told from what it would have been in RESP3; its nulls
 * become RESP3's, and everything else stays. */
#ifndef COVEY_PROXY_CLUSTER_TRANSLATE_H
#define COVEY_PROXY_CLUSTER_TRANSLATE_H

#include "commands/table.h"

/* Appends the reply to this request; reply is one whole RESP2 reply.  Errors stay as they are. */
void translate_reply(const struct command *cmd, const struct bytes *argv, size_t argc, struct bytes reply,
                     struct buf *out);
/* The same for EXEC; requests: MULTI, the commands, EXEC, as they were sent. */
void translate_transaction(struct bytes requests, struct bytes reply, struct buf *out);
/* What a subscriber is sent: confirmations and messages are pushed. */
void translate_message(struct bytes reply, struct buf *out);

#endif
