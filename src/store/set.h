/* set.h: the set type: integers alone are an intset, everything else a tree ordered by the hash of the member.
 * The rules of hash.h about locks, entries, borrowed bytes and empty values hold here too. */
#ifndef COVEY_STORE_SET_H
#define COVEY_STORE_SET_H

#include "store/element.h"
#include "store/entry.h"
#include "store/tree.h"

struct random;

/* An empty set under a copy of key, in the encoding that suits its first member (an intset for an integer, else a
 * tree). */
struct entry *set_new(struct bytes key, struct bytes first_member);
/* An empty intset, whatever comes: where results of set operations are gathered. */
struct entry *set_new_intset(struct bytes key);

uint64_t set_len(const struct entry *e);
bool set_has(const struct entry *e, struct bytes member);
/* *added (may be NULL): whether it was not there yet. */
MUST_USE enum status set_add(struct entry *e, struct bytes member, const struct store_limits *lim, bool *added);
/* Whether it was there.  member may be borrowed from this set (it is gone afterwards). */
bool set_remove(struct entry *e, struct bytes member);

struct set_iter {
    const struct entry *e;
    uint64_t rank; /* intset */
    struct tree_pos pos;
    bool started;
};
void set_iter_init(struct set_iter *it, const struct entry *e);
bool set_iter_next(struct set_iter *it, struct element *member);

/* As hash_scan(); second is always empty. */
uint64_t set_scan(const struct entry *e, uint64_t cursor, size_t count, element_fn *emit, void *ctx);

/* The member at a rank (0 .. len-1) in the value's own order. */
void set_at(const struct entry *e, uint64_t rank, struct element *member);
/* Uniform; the set is not empty.  SPOP is set_random(), reply, set_remove(). */
void set_random(const struct entry *e, struct random *rng, struct element *member);
/* Emits min(n, len) different members, every subset equally likely. */
void set_sample(const struct entry *e, struct random *rng, uint64_t n, element_fn *emit, void *ctx);

/* From the bytes of an intset that come from outside (copied).  E_CORRUPT, E_NOT_FOUND (empty) as in hash.h. */
MUST_USE enum status set_from_intset(struct bytes key, struct bytes blob, const struct store_limits *lim,
                                     struct entry **out);
/* The intset as it is; only with encoding ENC_INTSET. */
struct bytes set_intset(const struct entry *e);

#endif
