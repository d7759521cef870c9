/* pubsub.h: publish and subscribe; inside src/server only.
 *
 * The registry knows of each channel, pattern and shard channel how many of each worker's connections listen.  The
 * lists of those connections hang on the same entry, one a worker, and are touched by that worker's thread only.
 * PUBLISH counts and mails one counted message, encoded once, to each worker that has listeners; the worker gives it
 * to them in slices, so that many listeners do not hold up its other clients.
 *
 * Order: the messages of one channel reach all of its listeners in the same order (mail is posted under the lock that
 * a channel hashes to).  A client's own message is in its output before the reply of its PUBLISH.  Who subscribes
 * after a PUBLISH was executed does not get that message. */
#ifndef COVEY_SERVER_PUBSUB_H
#define COVEY_SERVER_PUBSUB_H

#include "server/conn.h"

enum pubsub_kind { PUBSUB_CHANNEL, PUBSUB_PATTERN, PUBSUB_SHARD, PUBSUB_KINDS };

struct pubsub;        /* of the node */
struct pubsub_worker; /* of a worker */
struct pubsub_conn;   /* of a connection that has subscribed to something; NULL: it has not */

struct pubsub *pubsub_create(struct node *n);
struct pubsub_worker *pubsub_worker_create(void);

/* Subscribes; false: it was subscribed already.  On the connection's thread, as everything with a connection here. */
bool pubsub_subscribe(struct conn *c, enum pubsub_kind kind, struct bytes name);
bool pubsub_unsubscribe(struct conn *c, enum pubsub_kind kind, struct bytes name); /* false: it was not subscribed */
/* Ends all subscriptions without a word: RESET and the end of the connection. */
void pubsub_forget(struct conn *c);
/* How many of that kind the connection has; with the server at rest, any thread. */
size_t pubsub_count(const struct conn *c, enum pubsub_kind kind);
/* Whether the connection has any: the subscribed mode of protocol version 2, CLIENT LIST's flag P. */
static inline bool pubsub_active(const struct conn *c)
{
    return c->pubsub != NULL;
}
/* False as soon as `may` says so of one of the connection's subscriptions; with the server at rest, any thread. */
bool pubsub_all(const struct conn *c, bool (*may)(void *ctx, enum pubsub_kind kind, struct bytes name), void *ctx);
/* The name of one of the connection's subscriptions; empty with p NULL: there is none.  Borrowed. */
struct bytes pubsub_any(const struct conn *c, enum pubsub_kind kind);

/* Gives a message to all local listeners of the channel (kind CHANNEL: and of matching patterns); returns how many
 * there are.  publisher, when given, belongs to the calling thread, gets its own copy at once, and is held up before
 * its next command when messages come faster than workers can give them out.  Any thread, slots may be held.  Memory
 * for the message that cannot be had counts as nobody listening. */
uint64_t pubsub_publish(struct node *n, struct conn *publisher, enum pubsub_kind kind, struct bytes channel,
                        struct bytes payload);
/* Counts bytes of other mail (BCAST keys) that waits at a worker, for pubsub_hold_up(); any thread.  done: on w's. */
void pubsub_backlog_add(struct worker *w, size_t bytes);
void pubsub_backlog_done(struct worker *w, size_t bytes);
/* Holds the connection up before its next command while any worker is far behind with its messages. */
void pubsub_hold_up(struct conn *c);
/* Whether anybody listens to anything of that kind at all; any thread, cheap. */
bool pubsub_listened(const struct node *n, enum pubsub_kind kind);

/* At the end of a worker's turn: gives out a slice of what has come. */
void pubsub_run(struct worker *w);
/* The shard does not serve these slots any more (bitmap): their shard channels end with a sunsubscribe.  Any thread. */
void pubsub_slots_lost(struct node *n, const uint8_t *slots);

/* How many entries of the kind there are; any thread. */
size_t pubsub_entries(const struct node *n, enum pubsub_kind kind);
/* Listeners of one channel; any thread. */
uint64_t pubsub_listeners(struct node *n, enum pubsub_kind kind, struct bytes name);
/* Calls each for all names of a kind (not PATTERN), under a lock of the registry. */
void pubsub_each(struct node *n, enum pubsub_kind kind, void (*each)(void *arg, struct bytes name), void *arg);

/* "unsubscribe", name (NULL: nil), what is left. */
void pubsub_reply_change(struct conn *c, struct resp_out *out, const char *what, enum pubsub_kind kind,
                         const struct bytes *name);

#endif
