#include "store/tree.h"

#include "base/hash.h"
#include "base/mem.h"
#include "store/listpack.h"
#include "store/tree_node.h"

#include <assert.h>

void tree_init(struct tree *t, enum tree_kind kind)
{
    *t = (struct tree){.kind = kind};
}

void tree_deinit(struct tree *t)
{
    if (t->root) tree_node_unref(t->root);
    tree_init(t, t->kind);
}

struct tree *tree_new(enum tree_kind kind)
{
    struct tree *t = mem_alloc(sizeof *t);
    tree_init(t, kind);
    return t;
}

void tree_free(struct tree *t)
{
    tree_deinit(t);
    mem_free(t);
}

void tree_fork(const struct tree *t, struct tree *out)
{
    *out = *t;
    if (t->root) atomic_fetch_add_explicit(&t->root->refs, 1, memory_order_relaxed);
}

uint64_t tree_hash_ord(struct bytes key)
{
    return hash_bytes(key) >> 32;
}

uint64_t tree_score_ord(double score)
{
    uint64_t bits;
    score += 0.0; /* -0 + 0 is 0 */
    memcpy(&bits, &score, sizeof bits);
    return bits >> 63 ? ~bits : bits | (uint64_t)1 << 63;
}

double tree_ord_score(uint64_t ord)
{
    uint64_t bits = ord >> 63 ? ord & ~((uint64_t)1 << 63) : ~ord;
    double score;
    memcpy(&score, &bits, sizeof score);
    return score;
}

static int first_cmp(const struct tree_node *node, uint64_t ord, struct bytes key)
{
    while (node->level > 0) node = inner_child(node)[0];
    return tree_leaf_cmp(node, 0, ord, key);
}

/* The child that may hold (ord, key): the last whose first element is not above it. */
static unsigned inner_search(const struct tree_node *node, uint64_t ord, struct bytes key)
{
    const uint64_t *ords = inner_ord(node);
    unsigned low = 0, high = node->n;
    while (high - low > 1) {
        unsigned mid = (low + high) / 2;
        bool right = ords[mid] != ord ? ords[mid] < ord : first_cmp(inner_child(node)[mid], ord, key) <= 0;
        if (right)
            low = mid;
        else
            high = mid;
    }
    return low;
}

/* The same where ords are hashes: the guess is nearly always right or beside it. */
static unsigned inner_guess(const struct tree_node *node, uint64_t ord, struct bytes key, unsigned guess)
{
    const uint64_t *ords = inner_ord(node);
    unsigned n = node->n, i = guess < n ? guess : n - 1;
    while (i + 1 < n && ords[i + 1] < ord) i++;
    while (i > 0 && ords[i] > ord) i--;
    /* Ties are rare: step over them one by one. */
    while (i + 1 < n && ords[i + 1] == ord && first_cmp(inner_child(node)[i + 1], ord, key) <= 0) i++;
    while (i > 0 && ords[i] == ord && first_cmp(inner_child(node)[i], ord, key) > 0) i--;
    return i;
}

static void push(struct tree_pos *pos, struct tree_node *node, unsigned index)
{
    assert(pos->depth < TREE_HEIGHT_MAX);
    pos->path[pos->depth].node = node;
    pos->path[pos->depth].index = index;
    pos->depth++;
}

/* The place where (ord, key) is or would go in; its index may be one behind the leaf's last. */
static bool locate(const struct tree *t, uint64_t ord, struct bytes key, struct tree_pos *pos)
{
    bool exact, hashed = !tree_kind_is_wide(t->kind);
    pos->depth = 0;
    struct tree_node *node = t->root;
    if (!node) return false;
    uint64_t low = 0, high = UINT32_MAX; /* of the hashes below node */
    unsigned guess = hashed ? tree_hash_guess(ord, node->n, low, high) : 0;
    while (node->level > 0) {
        const uint64_t *ords = inner_ord(node);
        unsigned i = hashed ? inner_guess(node, ord, key, guess) : inner_search(node, ord, key);
        struct tree_node *child = inner_child(node)[i];
        push(pos, node, i);
        if (hashed) {
            if (i > 0) low = ords[i];
            if (i + 1 < node->n) high = ords[i + 1];
        }
        if (node->level == 1) {
            unsigned n = (unsigned)inner_count(node)[i];
            if (hashed) guess = tree_hash_guess(ord, n, low, high);
            tree_leaf_prefetch(child, t->kind, n, guess);
        } else if (hashed) {
            guess = tree_hash_guess(ord, child->n, low, high);
        }
        node = child;
    }
    push(pos, node, tree_leaf_lower(node, ord, key, guess, &exact));
    return exact;
}

bool tree_find(const struct tree *t, uint64_t ord, struct bytes key, struct tree_pos *pos)
{
    if (locate(t, ord, key, pos)) return true;
    pos->depth = 0;
    return false;
}

bool tree_lower_bound(const struct tree *t, uint64_t ord, struct bytes key, struct tree_pos *pos)
{
    locate(t, ord, key, pos);
    if (pos->depth == 0) return false;
    unsigned d = pos->depth - 1u;
    if (pos->path[d].index < pos->path[d].node->n) return true;
    pos->path[d].index--;
    return tree_next(pos);
}

bool tree_at(const struct tree *t, uint64_t rank, struct tree_pos *pos)
{
    pos->depth = 0;
    if (rank >= t->count) return false;
    struct tree_node *node = t->root;
    while (node->level > 0) {
        const uint64_t *counts = inner_count(node);
        unsigned i = 0;
        while (rank >= counts[i]) rank -= counts[i++];
        assert(i < node->n);
        push(pos, node, i);
        if (node->level == 1 && t->kind != TREE_LIST)
            tree_leaf_prefetch(inner_child(node)[i], t->kind, (unsigned)counts[i], (unsigned)rank);
        node = inner_child(node)[i];
    }
    push(pos, node, (unsigned)rank);
    return true;
}

/* Steps the path to the element beside it: +1 or -1. */
static bool step(struct tree_pos *pos, int by)
{
    unsigned d = pos->depth;
    while (d > 0) {
        uint32_t next = pos->path[d - 1].index + (uint32_t)by; /* -1 wraps and fails the test */
        if (next < pos->path[d - 1].node->n) {
            pos->path[d - 1].index = next;
            break;
        }
        d--;
    }
    if (d == 0) {
        pos->depth = 0;
        return false;
    }
    for (; d < pos->depth; d++) {
        struct tree_node *node = inner_child(pos->path[d - 1].node)[pos->path[d - 1].index];
        pos->path[d].node = node;
        pos->path[d].index = by > 0 ? 0 : node->n - 1;
    }
    return true;
}

bool tree_next(struct tree_pos *pos)
{
    if (pos->depth == 0) return false;
    uint32_t *index = &pos->path[pos->depth - 1].index;
    if (*index + 1 >= pos->path[pos->depth - 1].node->n) return step(pos, 1);
    ++*index; /* nearly always: in the same leaf */
    return true;
}

bool tree_prev(struct tree_pos *pos)
{
    return step(pos, -1);
}

uint64_t tree_rank(const struct tree_pos *pos)
{
    assert(pos->depth > 0);
    uint64_t rank = pos->path[pos->depth - 1].index;
    for (unsigned d = 0; d + 1 < pos->depth; d++)
        for (unsigned i = 0; i < pos->path[d].index; i++) rank += inner_count(pos->path[d].node)[i];
    return rank;
}

uint64_t tree_rank_of(const struct tree *t, uint64_t ord, struct bytes key)
{
    struct tree_pos pos;
    locate(t, ord, key, &pos);
    return pos.depth ? tree_rank(&pos) : 0;
}

struct bytes tree_key(const struct tree_pos *pos)
{
    assert(pos->depth > 0);
    return tree_leaf_key(pos->path[pos->depth - 1].node, pos->path[pos->depth - 1].index);
}

void tree_item(const struct tree *t, const struct tree_pos *pos, struct tree_item *item)
{
    (void)t;
    assert(pos->depth > 0);
    tree_leaf_item(pos->path[pos->depth - 1].node, pos->path[pos->depth - 1].index, item);
}

struct tree_box *tree_box_at(const struct tree *t, const struct tree_pos *pos)
{
    (void)t;
    struct tree_box *box = tree_leaf_box(pos->path[pos->depth - 1].node, pos->path[pos->depth - 1].index);
    return box ? tree_box_ref(box) : NULL;
}

static void plant(struct tree *t, const struct tree_packed *el)
{
    struct tree_node *leaf = mem_alloc(32);
    *leaf = (struct tree_node){.kind = (uint8_t)t->kind, .cap = 32, .low = 32};
    atomic_init(&leaf->refs, 1);
    t->root = leaf;
    t->nodes++;
    struct tree_pos pos = {.depth = 0};
    push(&pos, leaf, 0);
    tree_leaf_put(t, &pos, el);
}

/* Takes box. */
static void put(struct tree *t, const struct tree_item *item, struct tree_box *box, bool *added)
{
    struct tree_packed el;
    struct tree_pos pos;
    bool found = locate(t, item->ord, item->key, &pos);
    if (box) t->nodes++;
    tree_pack(t->kind, item, box, &el);
    if (added) *added = !found;
    if (!t->root) {
        plant(t, &el);
        return;
    }
    tree_path_own(t, &pos);
    if (found)
        tree_leaf_replace(t, &pos, &el);
    else
        tree_leaf_put(t, &pos, &el);
}

enum status tree_put(struct tree *t, uint64_t ord, struct bytes key, struct bytes value, bool *added)
{
    assert(t->kind != TREE_LIST && (t->kind != TREE_ZMEMBER || value.n == sizeof(double)));
    assert(t->kind != TREE_PENDING || value.n == TREE_PENDING_BYTES);
    struct tree_item item = {ord, key, value};
    struct tree_box *box = NULL;
    if (!tree_pack_fits(t->kind, &item)) {
        box = tree_box_try_new(key, t->kind == TREE_HASH ? value : (struct bytes){NULL, 0});
        if (!box) return E_NOMEM;
    }
    put(t, &item, box, added);
    return OK;
}

void tree_put_boxed(struct tree *t, uint64_t ord, struct tree_box *box, struct bytes value, bool *added)
{
    assert(t->kind != TREE_LIST && t->kind != TREE_HASH);
    struct tree_item item = {ord, bytes_make(box->data, box->klen), value};
    put(t, &item, box, added);
}

void tree_set_value(struct tree *t, struct tree_pos *pos, struct bytes value)
{
    tree_path_own(t, pos);
    tree_leaf_set_value(pos->path[pos->depth - 1].node, pos->path[pos->depth - 1].index, value);
}

void tree_ref_init(struct tree_ref *r, void (*free)(struct tree_ref *r))
{
    atomic_init(&r->refs, 1);
    r->unused = 0;
    r->free = free;
}

struct tree_ref *tree_ref_share(struct tree_ref *r)
{
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    return r;
}

void tree_ref_drop(struct tree_ref *r)
{
    if (atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) == 1) r->free(r);
}

bool tree_ref_is_shared(const struct tree_ref *r)
{
    return atomic_load_explicit(&r->refs, memory_order_acquire) != 1;
}

struct tree_ref *tree_ref_at(const struct tree_pos *pos)
{
    assert(pos->depth > 0);
    return tree_leaf_ref(pos->path[pos->depth - 1].node, pos->path[pos->depth - 1].index);
}

bool tree_ref_insert(struct tree *t, uint64_t ord, struct bytes key, struct tree_ref *r)
{
    bool added;
    assert(t->kind == TREE_REFS);
    if (tree_put(t, ord, key, bytes_make(&r, sizeof r), &added) != OK) return false;
    assert(added);
    return true;
}

struct tree_ref *tree_ref_own(struct tree *t, struct tree_pos *pos, struct tree_ref *(*clone)(const struct tree_ref *r))
{
    /* The path first: a shared leaf hides that its objects are shared too. */
    tree_path_own(t, pos);
    struct tree_ref *r = tree_ref_at(pos);
    if (!tree_ref_is_shared(r)) return r;
    struct tree_ref *copy = clone(r);
    tree_leaf_set_value(pos->path[pos->depth - 1].node, pos->path[pos->depth - 1].index,
                        bytes_make(&copy, sizeof copy));
    tree_ref_drop(r);
    return copy;
}

void tree_remove_pos(struct tree *t, struct tree_pos *pos)
{
    assert(t->kind != TREE_LIST && pos->depth > 0);
    tree_path_own(t, pos);
    tree_leaf_cut(t, pos);
}

bool tree_remove(struct tree *t, uint64_t ord, struct bytes key)
{
    struct tree_pos pos;
    if (!locate(t, ord, key, &pos)) return false;
    tree_remove_pos(t, &pos);
    return true;
}

void tree_remove_at(struct tree *t, uint64_t rank)
{
    struct tree_pos pos;
    bool there = tree_at(t, rank, &pos);
    assert(there);
    (void)there;
    tree_remove_pos(t, &pos);
}

uint64_t tree_scan(const struct tree *t, uint64_t cursor, size_t count, tree_fn *emit, void *ctx)
{
    struct tree_pos pos;
    struct tree_item item;
    uint64_t last = 0;
    if (!tree_lower_bound(t, cursor, (struct bytes){NULL, 0}, &pos)) return 0;
    for (size_t n = 0; pos.depth > 0; n++) {
        tree_item(t, &pos, &item);
        if (n >= count && n > 0 && item.ord != last) return item.ord;
        last = item.ord;
        emit(ctx, item.key, item.value);
        tree_next(&pos);
    }
    return 0;
}

static size_t box_bytes(const struct tree_box *box)
{
    return mem_size(box);
}

static size_t leaf_memory(const struct tree_node *leaf)
{
    if (leaf->kind == TREE_LIST) {
        const struct list_leaf *l = (const struct list_leaf *)leaf;
        return mem_size(leaf) + mem_size(l->lp) + mem_size(l->box);
    }
    size_t sum = mem_size(leaf);
    for (unsigned i = 0; i < leaf->n; i++) sum += box_bytes(tree_leaf_box(leaf, i));
    return sum;
}

/* Adds up nodes until `samples` elements have been seen. */
static void memory_walk(const struct tree_node *node, size_t samples, size_t *bytes, uint64_t *seen)
{
    if (node->level == 0) {
        *bytes += leaf_memory(node);
        *seen += node->n;
        return;
    }
    unsigned i = 0;
    for (; i < node->n && *seen < samples; i++) memory_walk(inner_child(node)[i], samples, bytes, seen);
    assert(node->n > 0);
    *bytes += mem_size(node) * i / node->n;
}

/* Each element bears its share of every node above it; the mean over elements of evenly spread ranks, times their
 * number, is the whole without a bias, however differently the nodes are filled. */
static double memory_share(const struct tree *t, uint64_t rank)
{
    struct tree_pos pos;
    double share = 0;
    if (!tree_at(t, rank, &pos)) return 0;
    for (unsigned d = 0; d < pos.depth; d++) {
        const struct tree_node *node = pos.path[d].node;
        size_t bytes = node->level == 0 ? leaf_memory(node) : mem_size(node);
        share += (double)bytes / (double)tree_node_sum(node);
    }
    return share;
}

size_t tree_memory(const struct tree *t, size_t samples)
{
    enum { LOOKS_MIN = 32, WALKED_WHOLE = 64 };
    size_t bytes = 0;
    uint64_t seen = 0;
    if (!t->root) return 0;
    if (samples == 0 || t->nodes <= WALKED_WHOLE) {
        memory_walk(t->root, SIZE_MAX, &bytes, &seen);
        return bytes;
    }
    uint64_t looks = samples < LOOKS_MIN ? LOOKS_MIN : samples < t->count ? samples : t->count;
    double sum = 0;
    for (uint64_t i = 0; i < looks; i++)
        sum += memory_share(t, (uint64_t)((double)t->count * ((double)i + 0.5) / (double)looks));
    return (size_t)(sum / (double)looks * (double)t->count);
}

struct check {
    bool ok, first;
    struct tree_item last;
    uint64_t leaves;
};

static void leaf_check(const struct tree_node *leaf, struct check *c, uint64_t low, bool bounded)
{
    struct tree_item item;
    if (leaf->n == 0 || leaf->cap > TREE_LEAF_MAX || tree_leaf_used(leaf) > leaf->cap) c->ok = false;
    for (unsigned i = 0; c->ok && i < leaf->n; i++) {
        tree_leaf_item(leaf, i, &item);
        if (bounded && item.ord < low) c->ok = false;
        if (!c->first && tree_leaf_cmp(leaf, i, c->last.ord, c->last.key) <= 0) c->ok = false;
        c->first = false;
        c->last = item;
    }
}

static uint64_t node_check(const struct tree_node *node, struct check *c, uint64_t low, bool bounded)
{
    if (atomic_load(&node->refs) == 0) c->ok = false;
    if (node->level == 0) {
        c->leaves++;
        if (node->kind != TREE_LIST)
            leaf_check(node, c, low, bounded);
        else if (node->n == 0)
            c->ok = false;
        return node->n;
    }
    uint64_t sum = 0;
    if (node->n == 0 || node->n > node->cap || node->cap > TREE_FANOUT) c->ok = false;
    for (unsigned i = 0; c->ok && i < node->n; i++) {
        const struct tree_node *child = inner_child(node)[i];
        bool keyed = node->kind != TREE_LIST && i > 0;
        if (keyed && !c->first && c->last.ord > inner_ord(node)[i]) c->ok = false;
        if (child->level + 1 != node->level) c->ok = false;
        uint64_t n = node_check(child, c, keyed ? inner_ord(node)[i] : low, keyed || bounded);
        if (n != inner_count(node)[i]) c->ok = false;
        sum += n;
    }
    return sum;
}

bool tree_is_valid(const struct tree *t)
{
    struct check c = {.ok = true, .first = true};
    uint64_t n = t->root ? node_check(t->root, &c, 0, false) : 0;
    return c.ok && n == t->count;
}
