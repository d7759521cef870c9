/* last_writes.h: where in the change log the last write of each slot ends; inside src/server only.
 *
 * With min-replicas-to-ack-reads a reply is held until replicas have every write that it may show: the last one of each
 * slot that the command has read, and so all before it.  What is found in the dataset at the start, after a promotion
 * or when the option is set counts as written at that moment, because nobody knows here who has it.
 *
 * A slot's offset is guarded by the slot's lock: it is set between the append of a write and the release of the lock,
 * so whoever sees a write sees its offset too.  With the server at rest, and where many slots are read one after
 * another, the latest of all is taken. */
#ifndef COVEY_SERVER_LAST_WRITES_H
#define COVEY_SERVER_LAST_WRITES_H

#include "server/conn.h"

/* The option as it is now; at rest, or before the first client is served.  Turned on: everything counts as just
 * written. */
void last_writes_reconfigure(struct node *n);
/* Everything in the dataset counts as written now, if anybody asks: after a load (while node.loading is still set), a
 * promotion, when the log begins to record.  At rest. */
void last_writes_begin(struct node *n);

static inline bool last_writes_kept(const struct node *n)
{
    return atomic_load_explicit(&n->reads_wait, memory_order_relaxed);
}

/* ---- under the slot's lock, or at rest; nothing happens while nobody asks ---- */

/* A write of this slot ends at `offset`. */
void last_writes_note(struct node *n, unsigned slot, uint64_t offset);
/* What somebody who has read this slot has to wait for; 0: nothing, since nobody asks. */
uint64_t last_writes_of(const struct node *n, unsigned slot);

/* ---- a connection's command; on its worker, under the locks of the slots ---- */

/* A command was run: c->seen_offset rises to what it may have shown, and what it has changed is remembered. */
void last_writes_ran(struct conn *c, const struct call *call);
/* What was changed since the last call is in the log, up to c->write_offset. */
void last_writes_appended(struct conn *c);
/* The connection is being freed. */
void last_writes_forget(struct conn *c);

#endif
