/* tree_node.h: the nodes of a tree, for tree.c and listtype.c only.
 *
 *   inner        header | ord[cap] | count[cap] | child[cap]       n children in use
 *   packed leaf  header | ord[n] | offset[n] | free | elements     elements grow downwards from cap
 *   list leaf    header | listpack or box
 *
 * ord[i] separates child i from the one before: not below any ord of child i - 1, not above any of child i.  ord[0] is
 * not kept.  Leaves are never empty.  A node is edited only by who owns it alone and, by the same rule, all nodes above
 * it: tree_path_own(). */
#ifndef COVEY_STORE_TREE_NODE_H
#define COVEY_STORE_TREE_NODE_H

#include "store/tree.h"

#include <stdatomic.h>

enum { TREE_FANOUT = 64, TREE_FANOUT_MIN = 16, TREE_LEAF_MAX = 4096, TREE_LEAF_MIN = 1536 };

struct tree_node {
    _Atomic uint32_t refs;
    uint32_t n;    /* children of an inner node, elements of a leaf */
    uint8_t level; /* 0: leaf */
    uint8_t kind;
    uint16_t cap;          /* inner: children there is room for; packed leaf: bytes of the block */
    uint16_t low;          /* packed leaf: offset of the first element byte */
    _Atomic bool outdated; /* its tree goes on with a copy: kept for a fork only, and counted by mem_note_kept() */
};

struct tree_box {
    _Atomic uint32_t refs;
    size_t klen, vlen;
    char data[]; /* key, value */
};

struct list_leaf {
    struct tree_node node;
    uint8_t *lp;          /* NULL when plain */
    struct tree_box *box; /* the one element of a plain node */
};

static inline uint64_t *inner_ord(const struct tree_node *node)
{
    return (uint64_t *)(uintptr_t)(node + 1);
}

static inline uint64_t *inner_count(const struct tree_node *node)
{
    return inner_ord(node) + node->cap;
}

static inline struct tree_node **inner_child(const struct tree_node *node)
{
    return (struct tree_node **)(void *)(inner_count(node) + node->cap);
}

void tree_node_unref(struct tree_node *node);
/* Elements below node. */
uint64_t tree_node_sum(const struct tree_node *node);

/* Makes t the only owner of every node on the path. */
void tree_path_own(struct tree *t, struct tree_pos *pos);
/* The same but for the leaf, which is going to be taken out. */
void tree_path_own_above(struct tree *t, struct tree_pos *pos);
/* Puts node in the place of the one at depth d (which the caller has freed or moved). */
void tree_path_set(struct tree *t, struct tree_pos *pos, unsigned d, struct tree_node *node);
/* Adds delta to every count above the leaf of the path, and to that of the tree. */
void tree_path_count(struct tree *t, const struct tree_pos *pos, int64_t delta);

/* These work on an owned path and leave it invalid. */

/* Puts leaf (taken) behind (or before) the leaf of the path, which holds `here` elements now; the counts above include
 * those of leaf already.  ord: that of its first element (only used behind). */
void tree_leaf_insert(struct tree *t, struct tree_pos *pos, bool before, struct tree_node *leaf, uint64_t ord);
/* Takes the leaf of the path out of the tree and frees it; its elements have been taken off the counts before. */
void tree_leaf_remove(struct tree *t, struct tree_pos *pos);
/* The neighbour of the leaf of the path under the same parent, owned by t alone; NULL when there is none.  *left: it
 * stands before. */
struct tree_node *tree_leaf_neighbour(struct tree *t, struct tree_pos *pos, bool *left);
/* Frees `other`, the neighbour found above, after its elements have moved into the leaf of the path. */
void tree_leaf_absorbed(struct tree *t, struct tree_pos *pos, bool left);

/* Packed leaves (tree_leaf.c). */
struct tree_node *tree_leaf_clone(const struct tree_node *leaf);
void tree_leaf_free(struct tree_node *leaf);
uint64_t tree_leaf_ord(const struct tree_node *leaf, unsigned i);
struct bytes tree_leaf_key(const struct tree_node *leaf, unsigned i);
void tree_leaf_item(const struct tree_node *leaf, unsigned i, struct tree_item *item);
struct tree_box *tree_leaf_box(const struct tree_node *leaf, unsigned i);
/* Compares element i with (ord, key): <0, 0, >0. */
int tree_leaf_cmp(const struct tree_node *leaf, unsigned i, uint64_t ord, struct bytes key);
/* Fetches what a search for ord will read.  The leaf has n elements and ords in [low, high), by what stands above it:
 * nothing of it is read here, so that its lines come in together and not one after the other. */
void tree_leaf_prefetch(const struct tree_node *leaf, enum tree_kind kind, unsigned n, unsigned guess);
/* Where ord probably stands among n hashed ords in [low, high). */
static inline unsigned tree_hash_guess(uint64_t ord, unsigned n, uint64_t low, uint64_t high)
{
    return ord <= low ? 0 : (unsigned)((ord - low) * n / (high - low + 1));
}
/* First element not below (ord, key); guess: for hashed ords, any number. */
unsigned tree_leaf_lower(const struct tree_node *leaf, uint64_t ord, struct bytes key, unsigned guess, bool *exact);
/* Overwrites the value of element i by another of the same size. */
void tree_leaf_set_value(struct tree_node *leaf, unsigned i, struct bytes value);
/* Kinds whose ords have 64 bits and are searched by halving; the others are hashes. */
static inline bool tree_kind_is_wide(unsigned kind)
{
    return kind == TREE_ZSCORE || kind == TREE_REFS || kind == TREE_PENDING;
}
/* Of a leaf of TREE_REFS: the object of element i. */
struct tree_ref *tree_leaf_ref(const struct tree_node *leaf, unsigned i);
size_t tree_leaf_used(const struct tree_node *leaf);

/* An element as it stands in a leaf. */
struct tree_packed {
    uint64_t ord;
    size_t n;
    uint8_t bytes[TREE_INLINE_MAX + 24];
};
/* Packs an element; box (taken) stands for key (and value, TREE_HASH) when it is not NULL. */
void tree_pack(enum tree_kind kind, const struct tree_item *item, struct tree_box *box, struct tree_packed *out);
bool tree_pack_fits(enum tree_kind kind, const struct tree_item *item);

/* Inserts at index i of the path's leaf; the path is owned, and invalid afterwards. */
void tree_leaf_put(struct tree *t, struct tree_pos *pos, const struct tree_packed *el);
/* Overwrites the element of the path with another of the same ord and key. */
void tree_leaf_replace(struct tree *t, struct tree_pos *pos, const struct tree_packed *el);
void tree_leaf_cut(struct tree *t, struct tree_pos *pos);

#endif
