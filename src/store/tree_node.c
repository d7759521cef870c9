#include "store/tree_node.h"

#include "base/mem.h"
#include "store/listpack.h"

#include <assert.h>

struct tree_box *tree_box_try_new(struct bytes key, struct bytes value)
{
    if (key.n > SIZE_MAX / 4 || value.n > SIZE_MAX / 4) return NULL;
    struct tree_box *box = mem_try_alloc(sizeof *box + key.n + value.n);
    if (!box) return NULL;
    atomic_init(&box->refs, 1);
    box->klen = key.n;
    box->vlen = value.n;
    if (key.n) memcpy(box->data, key.p, key.n);
    if (value.n) memcpy(box->data + key.n, value.p, value.n);
    return box;
}

struct tree_box *tree_box_ref(struct tree_box *box)
{
    atomic_fetch_add_explicit(&box->refs, 1, memory_order_relaxed);
    return box;
}

struct bytes tree_box_key(const struct tree_box *box)
{
    return bytes_make(box->data, box->klen);
}

void tree_box_unref(struct tree_box *box)
{
    if (atomic_fetch_sub_explicit(&box->refs, 1, memory_order_acq_rel) == 1) mem_free(box);
}

static size_t inner_bytes(unsigned cap)
{
    return sizeof(struct tree_node) + cap * (2 * sizeof(uint64_t) + sizeof(struct tree_node *));
}

static struct tree_node *inner_new(enum tree_kind kind, unsigned level, unsigned cap)
{
    assert(level < TREE_HEIGHT_MAX - 1);
    struct tree_node *node = mem_alloc(inner_bytes(cap));
    *node = (struct tree_node){.level = (uint8_t)level, .kind = (uint8_t)kind, .cap = (uint16_t)cap};
    atomic_init(&node->refs, 1);
    return node;
}

/* Copies children [from, to) of src behind those of dst; ownership moves with them. */
static void inner_move(struct tree_node *dst, const struct tree_node *src, unsigned from, unsigned to)
{
    unsigned n = to - from;
    assert(dst->n + n <= dst->cap);
    memcpy(inner_ord(dst) + dst->n, inner_ord(src) + from, n * sizeof(uint64_t));
    memcpy(inner_count(dst) + dst->n, inner_count(src) + from, n * sizeof(uint64_t));
    memcpy(inner_child(dst) + dst->n, inner_child(src) + from, n * sizeof(struct tree_node *));
    dst->n += n;
}

static void inner_erase(struct tree_node *node, unsigned i)
{
    unsigned after = node->n - i - 1;
    memmove(inner_ord(node) + i, inner_ord(node) + i + 1, after * sizeof(uint64_t));
    memmove(inner_count(node) + i, inner_count(node) + i + 1, after * sizeof(uint64_t));
    memmove(inner_child(node) + i, inner_child(node) + i + 1, after * sizeof(struct tree_node *));
    node->n--;
}

struct slot_of_inner {
    struct tree_node *child;
    uint64_t count, ord;
};

static void inner_place(struct tree_node *node, unsigned i, struct slot_of_inner s)
{
    assert(node->n < node->cap && i <= node->n);
    unsigned after = node->n - i;
    memmove(inner_ord(node) + i + 1, inner_ord(node) + i, after * sizeof(uint64_t));
    memmove(inner_count(node) + i + 1, inner_count(node) + i, after * sizeof(uint64_t));
    memmove(inner_child(node) + i + 1, inner_child(node) + i, after * sizeof(struct tree_node *));
    inner_ord(node)[i] = s.ord;
    inner_count(node)[i] = s.count;
    inner_child(node)[i] = s.child;
    node->n++;
}

static struct tree_node *inner_clone(const struct tree_node *node)
{
    struct tree_node *copy = inner_new((enum tree_kind)node->kind, node->level, node->cap);
    inner_move(copy, node, 0, node->n);
    for (unsigned i = 0; i < copy->n; i++)
        atomic_fetch_add_explicit(&inner_child(copy)[i]->refs, 1, memory_order_relaxed);
    return copy;
}

static struct tree_node *list_leaf_clone(const struct tree_node *node)
{
    const struct list_leaf *from = (const struct list_leaf *)node;
    struct list_leaf *leaf = mem_alloc(sizeof *leaf);
    leaf->node = (struct tree_node){.n = node->n, .kind = TREE_LIST};
    atomic_init(&leaf->node.refs, 1);
    leaf->box = from->box ? tree_box_ref(from->box) : NULL;
    mem_must_begin();
    leaf->lp = from->lp ? lp_try_copy(lp_blob(from->lp)) : NULL;
    mem_must_end();
    if (from->lp && !leaf->lp) mem_abort(lp_bytes(from->lp));
    return &leaf->node;
}

static int64_t node_bytes(const struct tree_node *node)
{
    size_t n = mem_size(node);
    if (node->level == 0 && node->kind == TREE_LIST) n += mem_size(((const struct list_leaf *)node)->lp);
    return (int64_t)n;
}

/* t goes on with a copy of the node, which somebody else still reads. */
static void node_outdated(const struct tree *t, struct tree_node *node)
{
    if (t->uncounted || atomic_exchange_explicit(&node->outdated, true, memory_order_relaxed)) return;
    mem_note_kept(node_bytes(node));
}

static void node_free(struct tree_node *node)
{
    if (atomic_load_explicit(&node->outdated, memory_order_relaxed)) mem_note_kept(-node_bytes(node));
    if (node->level > 0) {
        for (unsigned i = 0; i < node->n; i++) tree_node_unref(inner_child(node)[i]);
        mem_free(node);
    } else if (node->kind == TREE_LIST) {
        struct list_leaf *leaf = (struct list_leaf *)node;
        mem_free(leaf->lp);
        if (leaf->box) tree_box_unref(leaf->box);
        mem_free(leaf);
    } else {
        tree_leaf_free(node);
    }
}

void tree_node_unref(struct tree_node *node)
{
    if (atomic_fetch_sub_explicit(&node->refs, 1, memory_order_acq_rel) == 1) node_free(node);
}

uint64_t tree_node_sum(const struct tree_node *node)
{
    if (node->level == 0) return node->n;
    uint64_t sum = 0;
    for (unsigned i = 0; i < node->n; i++) sum += inner_count(node)[i];
    return sum;
}

void tree_path_set(struct tree *t, struct tree_pos *pos, unsigned d, struct tree_node *node)
{
    pos->path[d].node = node;
    if (d == 0)
        t->root = node;
    else
        inner_child(pos->path[d - 1].node)[pos->path[d - 1].index] = node;
}

static struct tree_node *owned(const struct tree *t, struct tree_node *node)
{
    /* Acquire: whoever was the second owner has finished reading before it let go. */
    if (atomic_load_explicit(&node->refs, memory_order_acquire) == 1) return node;
    struct tree_node *copy = node->level > 0           ? inner_clone(node)
                             : node->kind == TREE_LIST ? list_leaf_clone(node)
                                                       : tree_leaf_clone(node);
    node_outdated(t, node);
    tree_node_unref(node);
    return copy;
}

static void path_own(struct tree *t, struct tree_pos *pos, unsigned depth)
{
    for (unsigned d = 0; d < depth; d++) {
        struct tree_node *node = pos->path[d].node, *mine = owned(t, node);
        if (mine != node) tree_path_set(t, pos, d, mine);
    }
}

void tree_path_own(struct tree *t, struct tree_pos *pos)
{
    path_own(t, pos, pos->depth);
}

void tree_path_own_above(struct tree *t, struct tree_pos *pos)
{
    path_own(t, pos, pos->depth - 1u);
}

void tree_path_count(struct tree *t, const struct tree_pos *pos, int64_t delta)
{
    for (unsigned d = 0; d + 1 < pos->depth; d++) inner_count(pos->path[d].node)[pos->path[d].index] += (uint64_t)delta;
    t->count += (uint64_t)delta;
}

static void root_grow(struct tree *t, struct slot_of_inner right)
{
    struct tree_node *old = t->root;
    struct tree_node *root = inner_new(t->kind, old->level + 1u, 4);
    inner_place(root, 0, (struct slot_of_inner){old, tree_node_sum(old), 0});
    inner_place(root, 1, right);
    t->root = root;
    t->nodes++;
}

static struct tree_node *inner_roomier(struct tree_node *node)
{
    unsigned cap = node->cap * 2u;
    struct tree_node *wide = inner_new((enum tree_kind)node->kind, node->level, cap > TREE_FANOUT ? TREE_FANOUT : cap);
    inner_move(wide, node, 0, node->n);
    mem_free(node);
    return wide;
}

/* Puts a child at index i of the node at depth d, splitting upwards as far as needed. */
static void inner_insert(struct tree *t, struct tree_pos *pos, unsigned d, unsigned i, struct slot_of_inner s)
{
    struct tree_node *node = pos->path[d].node;
    if (node->n == node->cap && node->cap < TREE_FANOUT) {
        node = inner_roomier(node);
        tree_path_set(t, pos, d, node);
    }
    if (node->n < node->cap) {
        inner_place(node, i, s);
        return;
    }
    /* Growth at the right edge is mostly a run of ascending elements: leave the left node nearly full. */
    unsigned keep = i == node->n ? node->n - node->n / 8 : node->n / 2;
    struct tree_node *right = inner_new((enum tree_kind)node->kind, node->level, TREE_FANOUT);
    inner_move(right, node, keep, node->n);
    node->n = keep;
    if (i <= keep)
        inner_place(node, i, s);
    else
        inner_place(right, i - keep, s);
    t->nodes++;
    struct slot_of_inner up = {right, tree_node_sum(right), inner_ord(right)[0]};
    if (d == 0) {
        root_grow(t, up);
        return;
    }
    struct tree_node *parent = pos->path[d - 1].node;
    inner_count(parent)[pos->path[d - 1].index] = tree_node_sum(node);
    inner_insert(t, pos, d - 1, pos->path[d - 1].index + 1, up);
}

/* The neighbour under the same parent of the node at depth d > 0, owned; NULL when the parent has no other child. */
static struct tree_node *neighbour(struct tree *t, struct tree_pos *pos, unsigned d, bool *left)
{
    struct tree_node *parent = pos->path[d - 1].node;
    unsigned i = pos->path[d - 1].index;
    if (parent->n < 2) return NULL;
    *left = i > 0;
    struct tree_node **slot = &inner_child(parent)[*left ? i - 1 : i + 1];
    return *slot = owned(t, *slot);
}

static void inner_remove(struct tree *t, struct tree_pos *pos, unsigned d, unsigned i);

/* The node at depth d has few children: joins it with a neighbour, or evens the two out. */
static void inner_refill(struct tree *t, struct tree_pos *pos, unsigned d)
{
    bool left;
    struct tree_node *node = pos->path[d].node, *other = neighbour(t, pos, d, &left);
    if (!other) return;
    struct tree_node *parent = pos->path[d - 1].node;
    unsigned ri = pos->path[d - 1].index + !left;
    struct tree_node *a = left ? other : node, *b = left ? node : other;
    unsigned total = a->n + b->n, half = total / 2;
    inner_ord(b)[0] = inner_ord(parent)[ri];
    bool join = total <= TREE_FANOUT * 3 / 4;
    struct tree_node *na = inner_new(t->kind, a->level, TREE_FANOUT);
    unsigned a_keep = join || a->n < half ? a->n : half;
    inner_move(na, a, 0, a_keep);
    if (join) {
        inner_move(na, b, 0, b->n);
    } else {
        struct tree_node *nb = inner_new(t->kind, a->level, TREE_FANOUT);
        unsigned b_from = a->n < half ? half - a->n : 0;
        inner_move(na, b, 0, b_from);
        inner_move(nb, a, a_keep, a->n);
        inner_move(nb, b, b_from, b->n);
        inner_child(parent)[ri] = nb;
        inner_count(parent)[ri] = tree_node_sum(nb);
        inner_ord(parent)[ri] = inner_ord(nb)[0];
    }
    inner_child(parent)[ri - 1] = na;
    inner_count(parent)[ri - 1] = tree_node_sum(na);
    mem_free(a);
    mem_free(b);
    if (join) {
        t->nodes--;
        inner_remove(t, pos, d - 1, ri);
    }
}

/* Takes child i, which the caller has freed, out of the node at depth d. */
static void inner_remove(struct tree *t, struct tree_pos *pos, unsigned d, unsigned i)
{
    struct tree_node *node = pos->path[d].node;
    inner_erase(node, i);
    if (node->n == 0) {
        mem_free(node);
        t->nodes--;
        if (d == 0)
            t->root = NULL;
        else
            inner_remove(t, pos, d - 1, pos->path[d - 1].index);
        return;
    }
    if (d > 0) {
        if (node->n < TREE_FANOUT_MIN) inner_refill(t, pos, d);
        return;
    }
    while (t->root->level > 0 && t->root->n == 1 && atomic_load_explicit(&t->root->refs, memory_order_acquire) == 1) {
        struct tree_node *root = t->root;
        t->root = inner_child(root)[0];
        mem_free(root);
        t->nodes--;
    }
}

void tree_leaf_insert(struct tree *t, struct tree_pos *pos, bool before, struct tree_node *leaf, uint64_t ord)
{
    unsigned d = pos->depth - 1u;
    struct tree_node *here = pos->path[d].node;
    t->nodes++;
    if (d == 0) {
        if (before) t->root = leaf;
        root_grow(t, (struct slot_of_inner){before ? here : leaf, before ? here->n : leaf->n, ord});
        return;
    }
    unsigned i = pos->path[d - 1].index;
    inner_count(pos->path[d - 1].node)[i] = here->n;
    inner_insert(t, pos, d - 1, before ? i : i + 1, (struct slot_of_inner){leaf, leaf->n, ord});
}

void tree_leaf_remove(struct tree *t, struct tree_pos *pos)
{
    unsigned d = pos->depth - 1u;
    tree_node_unref(pos->path[d].node);
    t->nodes--;
    if (d == 0)
        t->root = NULL;
    else
        inner_remove(t, pos, d - 1, pos->path[d - 1].index);
}

struct tree_node *tree_leaf_neighbour(struct tree *t, struct tree_pos *pos, bool *left)
{
    return pos->depth < 2 ? NULL : neighbour(t, pos, pos->depth - 1u, left);
}

void tree_leaf_absorbed(struct tree *t, struct tree_pos *pos, bool left)
{
    unsigned d = pos->depth - 1u;
    struct tree_node *parent = pos->path[d - 1].node, *leaf = pos->path[d].node;
    unsigned i = pos->path[d - 1].index, gone = left ? i - 1 : i + 1;
    inner_count(parent)[i] = leaf->n;
    /* The left one of the two takes the room of both, so its separator is the lower one. */
    if (left) inner_ord(parent)[i] = inner_ord(parent)[gone];
    tree_node_unref(inner_child(parent)[gone]);
    t->nodes--;
    if (left) pos->path[d - 1].index--;
    inner_remove(t, pos, d - 1, gone);
}
