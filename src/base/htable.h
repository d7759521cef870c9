/* htable.h: an intrusive hash table that grows and shrinks one bucket at a time (linear hashing), so that no insertion
 * pays for a whole rehash.  The node lives in the element; the table owns only its array of buckets.
 * All zero is an empty table.  No lock: one table is used by one thread at a time.
 * Source of the algorithm: W. Litwin, Linear hashing, 1980. */
#ifndef COVEY_BASE_HTABLE_H
#define COVEY_BASE_HTABLE_H

#include <stddef.h>
#include <stdint.h>

struct hnode {
    struct hnode *next; /* in the same bucket; any hash */
    uint64_t hash;
};

struct htable {
    struct hnode **bucket;
    size_t buckets; /* in use */
    size_t cap;     /* allocated: a power of two, at least buckets */
    size_t count;
};

/* Frees the array; the nodes are the caller's. */
void htable_deinit(struct htable *t);
/* The chain that holds every node with this hash, among others: compare node->hash, then the element itself. */
struct hnode *htable_chain(const struct htable *t, uint64_t hash);
/* node->hash is set by the caller. */
void htable_insert(struct htable *t, struct hnode *node);
/* The node is in the table. */
void htable_remove(struct htable *t, struct hnode *node);
/* For walks: the chain of bucket i, i < t->buckets.  The table does not change meanwhile. */
static inline struct hnode *htable_at(const struct htable *t, size_t i)
{
    return t->bucket[i];
}

#endif
