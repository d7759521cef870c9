/* reply_gate.h: replies that wait until their writes are safe; inside src/server only.
 *
 * A connection whose write has to be at replicas, or on the disk, before it may be acknowledged goes on executing: the
 * write's reply stays in its output, and everything behind it, until the change log is safe up to the write's offset.
 * Other connections and reads are not held up.  What a reply waits for is in change/durable.h.
 *
 * A connection's part is its worker's; durable offsets move on any thread, which tells the workers by mail. */
#ifndef COVEY_SERVER_REPLY_GATE_H
#define COVEY_SERVER_REPLY_GATE_H

#include "server/conn.h"

struct held; /* one connection's held replies */

/* ---- on the connection's worker, inside the gate ---- */

/* A command of c has appended to the change log (c->write_offset is behind it); its reply is c->out from reply_at on.
 * Holds it, if anything is asked for. */
void reply_gate_wrote(struct conn *c, const struct command *cmd, size_t reply_at);
/* A command of c has read and changed nothing; c->seen_offset is behind what it may have shown (0: nothing that
 * matters) and is taken.  Holds its reply until that is safe, or makes an error of it where that is not to be expected.
 */
void reply_gate_read(struct conn *c, size_t reply_at);
/* How much of c->out may leave: an index, at least c->out_pos. */
size_t reply_gate_end(struct conn *c);
/* The first n bytes of c->out are gone. */
void reply_gate_dropped(struct conn *c, size_t n);
/* The connection is being freed. */
void reply_gate_forget(struct conn *c);
/* Why a write of this connection is not worth trying, because nobody would acknowledge it; an error without '-'.  NULL:
 * it is. */
const char *reply_gate_refusal(const struct conn *c);
/* How many replicas have to acknowledge its writes now. */
int64_t reply_gate_replicas(const struct conn *c);
/* Lets replies go whose writes are safe, and turns those that have waited too long into errors. */
void reply_gate_release(struct worker *w);
static inline bool reply_gate_holds(const struct worker *w)
{
    return !list_empty(&w->held);
}

/* ---- any thread ---- */

/* Durable offsets have moved: workers that hold replies look. */
void reply_gate_moved(struct node *n);
/* Replies of writes wait from now on, or not any more, for durable_set_synced(): appendfsync always.  With the server
 * at rest. */
void reply_gate_require_synced(struct node *n, bool on);
/* The same while the AOF's files are being changed, whatever the policy: from now on with the server at rest; not any
 * more at any time. */
void reply_gate_require_file(struct node *n, bool on);
/* The AOF is on the disk up to this offset of the change log; or, without `always`, in its file. */
void reply_gate_synced(struct node *n, uint64_t offset);
/* The node is no primary any more, or has another history: with the server at rest.  Whatever is held becomes an
 * error. */
void reply_gate_fail_all(struct node *n);

struct reply_gate_view {
    int held;          /* replies */
    int64_t oldest_ms; /* since when the oldest one waits, about; 0: none */
    uint64_t timed_out;
};
void reply_gate_view_get(const struct node *n, struct reply_gate_view *out);

#endif
