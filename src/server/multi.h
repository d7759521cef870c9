/* multi.h: transactions and WATCH; inside src/server only. */
#ifndef COVEY_SERVER_MULTI_H
#define COVEY_SERVER_MULTI_H

#include "server/conn.h"

/* Copies the call behind the connection's transaction. */
void multi_queue(struct conn *c, const struct call *call);
/* Whether the transaction holds a command that changes the dataset. */
bool multi_queue_writes(const struct conn *c);
/* Ends the transaction without executing it. */
void multi_discard(struct conn *c);

/* Forgets all keys the connection watches. */
void watch_clear(struct conn *c);
/* A key was changed, under its slot's lock (or with the server at rest): spoils the transactions that watch it. */
void watch_key_changed(struct node *n, int db, const struct key *k);
/* A database (-1: every one) was emptied or swapped, with the server at rest. */
void watch_flushed(struct node *n, int db);

struct watch_registry;
struct watch_registry *watch_registry_create(void);

#endif
