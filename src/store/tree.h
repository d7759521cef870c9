/* tree.h: one counted, copy-on-write B+ tree for every large collection.
 *
 * Elements are (ord, key, value).  ord is a 64-bit sort prefix, computed from the key by its hash or from a score; ties
 * are ordered by memcmp of the key, a shorter prefix first.  What an element holds beside its key depends on the kind
 * of the tree:
 *
 *   kind         ord                             value
 *   TREE_SET     tree_hash_ord(key), 32 bits     none
 *   TREE_HASH    tree_hash_ord(key), 32 bits     any bytes
 *   TREE_ZMEMBER tree_hash_ord(key), 32 bits     a double
 *   TREE_ZSCORE  tree_score_ord(score)           none
 *   TREE_LIST    none: by position only; a leaf is a listpack or one plain element (listtype.h)
 *   TREE_REFS    chosen by the caller             a counted object: struct tree_ref *
 *   TREE_PENDING chosen by the caller             TREE_PENDING_BYTES bytes
 *
 * Inner nodes carry the number of elements below each child, so that a rank is found, and an element's rank known, in
 * O(log n).  Leaves are packed, at most 4 KiB; an element above TREE_INLINE_MAX lives in a counted box of its own.
 *
 * Copy on write: each node counts its owners atomically.  tree_fork() shares the root; whoever changes a tree first
 * copies each node on the way down that somebody else owns too.  So a tree and its fork may be used by two threads
 * without a lock; each of them by itself belongs to one thread at a time.
 *
 * No operation works on more than a path of nodes and their neighbours, but tree_deinit(): its cost is the number of
 * nodes that nobody else owns. */
#ifndef COVEY_STORE_TREE_H
#define COVEY_STORE_TREE_H

#include "base/bytes.h"

#include <stdbool.h>
#include <stdint.h>

enum tree_kind { TREE_SET, TREE_HASH, TREE_ZMEMBER, TREE_ZSCORE, TREE_LIST, TREE_REFS, TREE_PENDING };
enum { TREE_HEIGHT_MAX = 14, TREE_INLINE_MAX = 1000, TREE_PENDING_BYTES = 24 };

struct tree_node;
struct tree {
    struct tree_node *root; /* NULL when empty */
    uint64_t count;         /* elements */
    uint64_t nodes;         /* nodes and boxes, an estimate after edits of forks: what freeing costs */
    enum tree_kind kind;
    bool uncounted; /* what it replaces by copies, while a fork reads on, is not counted by mem_note_kept() */
};

/* The place of one element: valid until the tree is changed. */
struct tree_pos {
    uint8_t depth; /* nodes on the path; 0: no element */
    struct {
        struct tree_node *node;
        uint32_t index;
    } path[TREE_HEIGHT_MAX];
};

struct tree_item {
    uint64_t ord;
    struct bytes key, value;
};

void tree_init(struct tree *t, enum tree_kind kind);
void tree_deinit(struct tree *t); /* frees the elements; t is empty and usable again */
/* The same on the heap, for the word of an entry. */
struct tree *tree_new(enum tree_kind kind);
void tree_free(struct tree *t);
/* out becomes a second owner of what t holds now. */
void tree_fork(const struct tree *t, struct tree *out);

uint64_t tree_hash_ord(struct bytes key);
/* Orders as doubles do; -0 becomes 0; not for NaN. */
uint64_t tree_score_ord(double score);
double tree_ord_score(uint64_t ord);

/* All of these set *pos and say whether there is an element at it. */
bool tree_find(const struct tree *t, uint64_t ord, struct bytes key, struct tree_pos *pos);
bool tree_lower_bound(const struct tree *t, uint64_t ord, struct bytes key, struct tree_pos *pos); /* first not below */
bool tree_at(const struct tree *t, uint64_t rank, struct tree_pos *pos);
bool tree_next(struct tree_pos *pos);
bool tree_prev(struct tree_pos *pos);
/* Number of elements before the one at pos. */
uint64_t tree_rank(const struct tree_pos *pos);
/* Number of elements below (ord, key). */
uint64_t tree_rank_of(const struct tree *t, uint64_t ord, struct bytes key);
/* The element at pos, or its key alone, borrowed; not for TREE_LIST. */
struct bytes tree_key(const struct tree_pos *pos);
void tree_item(const struct tree *t, const struct tree_pos *pos, struct tree_item *item);

/* Inserts the element or replaces its value.  *added (may be NULL): whether it is new.  E_NOMEM: a large element could
 * not be allocated; nothing has changed.  key and value may point into t. */
MUST_USE enum status tree_put(struct tree *t, uint64_t ord, struct bytes key, struct bytes value, bool *added);
/* The same with a key that is in a box (of which it takes one reference); not for TREE_HASH. */
struct tree_box;
struct tree_box *tree_box_try_new(struct bytes key, struct bytes value); /* NULL when memory is out */
struct bytes tree_box_key(const struct tree_box *box);
struct tree_box *tree_box_ref(struct tree_box *box);
void tree_box_unref(struct tree_box *box);
void tree_put_boxed(struct tree *t, uint64_t ord, struct tree_box *box, struct bytes value, bool *added);
/* The box of the element at pos with a reference added; NULL when it has none. */
struct tree_box *tree_box_at(const struct tree *t, const struct tree_pos *pos);
bool tree_remove(struct tree *t, uint64_t ord, struct bytes key); /* whether it was there */
/* Overwrites the value of the element at pos by another of the same size; pos stays valid. */
void tree_set_value(struct tree *t, struct tree_pos *pos, struct bytes value);
/* Removes the element at pos, which is invalid afterwards. */
void tree_remove_pos(struct tree *t, struct tree_pos *pos);
void tree_remove_at(struct tree *t, uint64_t rank); /* rank below count */

/* The objects that a TREE_REFS holds, as their first member.  A leaf owns one reference to each; who has a reference by
 * itself or through a shared leaf must not edit the object: tree_ref_own() is for that. */
struct tree_ref {
    _Atomic uint32_t refs;
    uint32_t unused;
    void (*free)(struct tree_ref *r);
};
void tree_ref_init(struct tree_ref *r, void (*free)(struct tree_ref *r)); /* one reference: the caller's */
struct tree_ref *tree_ref_share(struct tree_ref *r);
void tree_ref_drop(struct tree_ref *r);
bool tree_ref_is_shared(const struct tree_ref *r);
/* The object at pos. */
struct tree_ref *tree_ref_at(const struct tree_pos *pos);
/* Adds an object (takes the reference) under a key that is not there.  False: memory is out, the reference stays the
 * caller's. */
MUST_USE bool tree_ref_insert(struct tree *t, uint64_t ord, struct bytes key, struct tree_ref *r);
/* The object at pos for editing: t's alone, replaced by clone()'s copy when it was shared.  pos stays valid. */
struct tree_ref *tree_ref_own(struct tree *t, struct tree_pos *pos,
                              struct tree_ref *(*clone)(const struct tree_ref *r));

/* Walks with a cursor that needs no state: emits about `count` elements from cursor on and all ties of the last;
 * returns the next cursor, 0 at the end.  Hash-ordered kinds only. */
typedef void tree_fn(void *ctx, struct bytes key, struct bytes value);
uint64_t tree_scan(const struct tree *t, uint64_t cursor, size_t count, tree_fn *emit, void *ctx);

/* Bytes in memory, estimated from the surroundings of `samples` elements (some dozens at least; 0: from all). */
size_t tree_memory(const struct tree *t, size_t samples);
/* Checks every invariant of order, counts and sizes; for tests. */
bool tree_is_valid(const struct tree *t);

#endif
