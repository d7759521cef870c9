/* durable.h: how far the change log is safe, and what a reply waits for.
 *
 * A write's reply may have to wait until its effects, which end at some offset of the log, are at a number of replicas,
 * or on this node's disk, or both.  Who learns of that says so here (the replicas' hub, the thread that syncs the AOF);
 * who holds replies asks.  Everything is an atomic: any thread may ask and tell, and nobody waits.
 *
 * Offsets count within one history: whoever changes it (a new primary's, at rest) calls durable_reset(). */
#ifndef COVEY_CHANGE_DURABLE_H
#define COVEY_CHANGE_DURABLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DURABLE_REPLICAS_MAX = 64 };

/* Zero-initialized: nothing is safe anywhere. */
struct durable {
    _Atomic uint64_t synced;                          /* of this node's AOF; never goes back */
    _Atomic uint64_t acked[DURABLE_REPLICAS_MAX + 1]; /* [n]: so far n replicas have been; never goes back */
};

/* What one reply waits for. */
struct durable_need {
    uint64_t offset;   /* behind its write */
    uint16_t replicas; /* at so many of them; at most DURABLE_REPLICAS_MAX */
    bool synced;       /* and on this node's disk */
};

static inline bool durable_needs_nothing(const struct durable_need *need)
{
    return need->replicas == 0 && !need->synced;
}
bool durable_is_met(const struct durable *d, const struct durable_need *need);

/* The local log is on the disk up to there.  True: that is news. */
bool durable_set_synced(struct durable *d, uint64_t offset);
/* What the replicas have acknowledged now: n offsets, in any order (they are sorted here, the highest first).  Only the
 * DURABLE_REPLICAS_MAX highest count.  One thread at a time.  True: that is news. */
bool durable_set_acked(struct durable *d, uint64_t *offsets, size_t n);
/* Another history begins: nothing is safe yet. */
void durable_reset(struct durable *d);

#endif
