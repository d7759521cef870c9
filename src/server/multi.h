/* multi.h: transactions and WATCH; inside src/server only. */
#ifndef COVEY_SERVER_MULTI_H
#define COVEY_SERVER_MULTI_H

#include "server/conn.h"

/* Copies the call behind the connection's transaction, unless that is spoiled already. */
void multi_queue(struct conn *c, const struct call *call);
/* Whether the transaction holds a command that changes the dataset. */
bool multi_queue_writes(const struct conn *c);
/* Whether a queued command is one that maxmemory refuses (CMD_DENYOOM). */
bool multi_queue_needs_memory(const struct conn *c);
/* Ends the transaction without executing it. */
void multi_discard(struct conn *c);

/* Forgets all keys the connection watches. */
void watch_clear(struct conn *c);
/* A key was changed, under its slot's lock (or with the server at rest): spoils the transactions that watch it.
 * expired: it is deleted because its time was over, which is no news to those that found it so when they began. */
void watch_key_changed(struct node *n, int db, const struct key *k, bool expired);
/* A database (-1: every one) is about to be emptied, or to take over the keys of database replaced_by (-1: none), with
 * the server at rest: spoils the transactions that watch a key which is there before or after. */
void watch_flushed(struct node *n, int db, int replaced_by, int64_t now_ms);

struct watch_registry;
struct watch_registry *watch_registry_create(void);

#endif
