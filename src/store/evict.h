/* evict.h: which key to give up when memory is short: samples, a pool of the best candidates, one victim at a time.
 *
 * As in redis-server, no order of all keys is kept: each eviction looks at a few keys chosen at random and remembers
 * the best of all it has seen lately.
 *
 * The choice is uniform over buckets of all slots (a slot is taken with the weight of its buckets, then one of them by
 * chance) and looks at every key of the bucket.  So each key is equally likely to be seen, also where one slot holds
 * nearly all of them.  The weights are counted anew at most every 100 ms, or when they turn out wrong.
 *
 * Threads: an evictor belongs to one thread at a time; several may work on one store.  No lock is held at the call; one
 * slot at a time is locked within, and never waited for. */
#ifndef COVEY_STORE_EVICT_H
#define COVEY_STORE_EVICT_H

#include "store/access.h"
#include "store/store.h"

enum evict_by { EVICT_BY_LRU, EVICT_BY_LFU, EVICT_BY_TTL, EVICT_BY_CHANCE };

struct evict_policy {
    enum evict_by by;
    bool volatile_only; /* keys with a time of expiry; set for EVICT_BY_TTL */
    unsigned samples;   /* keys to look at for one eviction, at least */
    struct lfu lfu;     /* for EVICT_BY_LFU */
    int64_t now_ms;     /* Unix time */
};

enum evict_result {
    EVICT_ONE,     /* a victim was handed over */
    EVICT_NOTHING, /* no key may be evicted */
    EVICT_LATER,   /* there are such keys, but they were not found, or busy, within the work of one call */
};

struct evictor;
struct evictor *evictor_create(struct store *s, uint64_t seed); /* borrows s */
void evictor_destroy(struct evictor *v);

/* Chooses one key and calls `victim` under its slot's lock, which deletes it (and does nothing else to the store). */
enum evict_result evict_one(struct evictor *v, const struct evict_policy *p,
                            void (*victim)(void *ctx, int db, const struct key *k, struct entry *e), void *ctx);

/* For tests: looks at the keys of one bucket, chosen as above; returns how many. */
size_t evict_look(struct evictor *v, const struct evict_policy *p, void (*seen)(void *ctx, int db, struct entry *e),
                  void *ctx);

#endif
