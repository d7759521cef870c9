#include "store/listtype.h"

#include "base/mem.h"
#include "store/listpack.h"
#include "store/tree_node.h"

/* Nodes limited by a count are limited to this many bytes too; what an element may add is guessed on the high side.
 * Two nodes that hold no more than NODE_SMALL bytes together after a removal become one. */
enum { NODE_BYTES_SAFE = 8192, ELEMENT_OVERHEAD = 8, NODE_SMALL = 1024 };

static struct tree *tree_of(const struct entry *e)
{
    assert(entry_type(e) == TYPE_LIST && entry_enc(e) == ENC_QUICKLIST);
    return entry_ptr(e);
}

static struct list_leaf *leaf_at(const struct tree_pos *pos)
{
    return (struct list_leaf *)pos->path[pos->depth - 1].node;
}

static uint32_t index_at(const struct tree_pos *pos)
{
    return pos->path[pos->depth - 1].index;
}

/* ---- nodes ---- */

/* Takes lp or box, whichever is not NULL. */
static struct list_leaf *leaf_new(uint8_t *lp, size_t n, struct tree_box *box)
{
    struct list_leaf *leaf = mem_alloc(sizeof *leaf);
    leaf->node = (struct tree_node){.n = (uint32_t)n, .kind = TREE_LIST};
    atomic_init(&leaf->node.refs, 1);
    leaf->lp = lp;
    leaf->box = box;
    return leaf;
}

static struct list_leaf *leaf_try_plain(struct bytes text)
{
    struct tree_box *box = tree_box_try_new(text, (struct bytes){NULL, 0});
    return box ? leaf_new(NULL, 1, box) : NULL;
}

/* A node with one element: a listpack when one can hold it. */
static struct list_leaf *leaf_try_new(struct bytes text)
{
    if (text.n > LP_BYTES_MAX - 64) return leaf_try_plain(text);
    uint8_t *lp = lp_new();
    if (lp_append(&lp, text)) return leaf_new(lp, 1, NULL);
    mem_free(lp);
    return NULL;
}

/* Whether a node takes one more element of n bytes. */
static bool leaf_has_room(const struct list_leaf *leaf, size_t n, const struct store_limits *lim)
{
    static const size_t bytes_max[] = {4096, 8192, 16384, 32768, 65536};
    if (!leaf->lp || n > LP_BYTES_MAX - 64) return false;
    size_t bytes = lp_bytes(leaf->lp) + n + ELEMENT_OVERHEAD;
    int64_t fill = lim->list_max_listpack_size;
    if (fill < 0) return bytes <= bytes_max[(fill < -5 ? 5 : -fill) - 1];
    return bytes <= NODE_BYTES_SAFE && leaf->node.n < (fill > 0 ? fill : 1);
}

static void element_get(const struct list_leaf *leaf, const uint8_t *at, struct element *out)
{
    if (leaf->lp)
        lp_get(at, out);
    else
        out->text = tree_box_key(leaf->box);
}

/* ---- edits at a place ---- */

/* Puts a new node beside that of the path, which is owned. */
static void node_insert(struct tree *t, struct tree_pos *pos, bool before, struct list_leaf *leaf)
{
    tree_path_count(t, pos, leaf->node.n);
    tree_leaf_insert(t, pos, before, &leaf->node, 0);
}

static enum status insert_node_with(struct tree *t, struct tree_pos *pos, bool before, struct bytes text)
{
    struct list_leaf *leaf = leaf_try_new(text);
    if (!leaf) return E_NOMEM;
    tree_path_own(t, pos);
    node_insert(t, pos, before, leaf);
    return OK;
}

/* Puts text before element `index` of the listpack of the path (its number of elements: at the end). */
static enum status insert_within(struct tree *t, struct tree_pos *pos, uint32_t index, struct bytes text)
{
    tree_path_own(t, pos);
    struct list_leaf *leaf = leaf_at(pos);
    const uint8_t *at = index < leaf->node.n ? lp_seek(leaf->lp, index) : NULL;
    if (!lp_splice(&leaf->lp, at, 0, &text, 1)) return E_NOMEM;
    leaf->node.n++;
    tree_path_count(t, pos, 1);
    return OK;
}

static enum status plant(struct tree *t, struct list_leaf *leaf)
{
    if (!leaf) return E_NOMEM;
    t->root = &leaf->node;
    t->count = leaf->node.n;
    t->nodes = 1;
    return OK;
}

/* Cuts the node of the path before element `index` (neither first nor last + 1); the path is invalid afterwards. */
static enum status node_split(struct tree *t, struct tree_pos *pos, uint32_t index)
{
    tree_path_own(t, pos);
    struct list_leaf *leaf = leaf_at(pos);
    assert(index > 0 && index < leaf->node.n);
    uint32_t moved = leaf->node.n - index;
    uint8_t *right = lp_try_copy(lp_blob(leaf->lp));
    if (!right) return E_NOMEM;
    lp_delete(&right, lp_first(right), index);
    lp_delete(&leaf->lp, lp_seek(leaf->lp, index), moved);
    leaf->node.n = index;
    tree_leaf_insert(t, pos, false, &leaf_new(right, moved, NULL)->node, 0);
    return OK;
}

/* ---- the list ---- */

struct entry *list_new(struct bytes key)
{
    return entry_new_word(key, TYPE_LIST, ENC_QUICKLIST, tree_new(TREE_LIST));
}

uint64_t list_len(const struct entry *e)
{
    return tree_of(e)->count;
}

enum status list_push(struct entry *e, enum list_end end, struct bytes text, const struct store_limits *lim)
{
    struct tree *t = tree_of(e);
    struct tree_pos pos;
    bool head = end == LIST_HEAD;
    if (t->count == 0) return plant(t, leaf_try_new(text));
    tree_at(t, head ? 0 : t->count - 1, &pos);
    if (!leaf_has_room(leaf_at(&pos), text.n, lim)) return insert_node_with(t, &pos, head, text);
    return insert_within(t, &pos, head ? 0 : leaf_at(&pos)->node.n, text);
}

/* The rank that an index means; false when there is none. */
static bool resolve(const struct tree *t, int64_t index, uint64_t *rank)
{
    if (index < 0) {
        uint64_t back = 0 - (uint64_t)index;
        if (back > t->count) return false;
        *rank = t->count - back;
        return true;
    }
    *rank = (uint64_t)index;
    return *rank < t->count;
}

bool list_index(const struct entry *e, int64_t index, struct element *out)
{
    const struct tree *t = tree_of(e);
    struct tree_pos pos;
    uint64_t rank;
    if (!resolve(t, index, &rank)) return false;
    tree_at(t, rank, &pos);
    const struct list_leaf *leaf = leaf_at(&pos);
    element_get(leaf, leaf->lp ? lp_seek(leaf->lp, index_at(&pos)) : NULL, out);
    return true;
}

/* Puts text before the element at a rank below count. */
static enum status insert_before(struct tree *t, uint64_t rank, struct bytes text, const struct store_limits *lim)
{
    struct tree_pos pos, near;
    tree_at(t, rank, &pos);
    struct list_leaf *leaf = leaf_at(&pos);
    uint32_t index = index_at(&pos);
    if (leaf_has_room(leaf, text.n, lim)) return insert_within(t, &pos, index, text);
    if (index == 0) {
        if (rank > 0 && tree_at(t, rank - 1, &near) && leaf_has_room(leaf_at(&near), text.n, lim))
            return insert_within(t, &near, leaf_at(&near)->node.n, text);
        return insert_node_with(t, &pos, true, text);
    }
    /* Halves leave room for what comes next; an element too large for that gets a node between two parts. */
    bool large = text.n + ELEMENT_OVERHEAD > lp_bytes(leaf->lp) / 2;
    enum status s = node_split(t, &pos, large ? index : leaf->node.n / 2);
    return s == OK ? insert_before(t, rank, text, lim) : s;
}

static enum status insert_after(struct tree *t, uint64_t rank, struct bytes text, const struct store_limits *lim)
{
    struct tree_pos pos;
    tree_at(t, rank, &pos);
    struct list_leaf *leaf = leaf_at(&pos);
    if (index_at(&pos) + 1 == leaf->node.n) {
        if (leaf_has_room(leaf, text.n, lim)) return insert_within(t, &pos, leaf->node.n, text);
        if (rank + 1 == t->count) return insert_node_with(t, &pos, false, text);
    }
    return insert_before(t, rank + 1, text, lim);
}

enum status list_insert(struct entry *e, int64_t index, bool before, struct bytes text, const struct store_limits *lim)
{
    uint64_t rank;
    struct tree *t = tree_of(e);
    if (!resolve(t, index, &rank)) return E_NOT_FOUND;
    return before ? insert_before(t, rank, text, lim) : insert_after(t, rank, text, lim);
}

enum status list_insert_at_pivot(struct entry *e, struct bytes pivot, bool before, struct bytes text,
                                 const struct store_limits *lim)
{
    struct list_iter it;
    uint64_t index;
    list_iter_init(&it, e, 0, false);
    if (!list_iter_find(&it, pivot, &index)) return E_NOT_FOUND;
    return list_insert(e, (int64_t)index, before, text, lim);
}

/* The node of the path has lost elements: joins it with a neighbour when both are small. */
static void node_settle(struct tree *t, struct tree_pos *pos)
{
    bool left;
    struct list_leaf *leaf = leaf_at(pos);
    if (lp_bytes(leaf->lp) > NODE_SMALL) return;
    struct list_leaf *other = (struct list_leaf *)tree_leaf_neighbour(t, pos, &left);
    if (!other || !other->lp || lp_bytes(leaf->lp) + lp_bytes(other->lp) > NODE_SMALL) return;
    struct list_leaf *from = left ? leaf : other, *to = left ? other : leaf;
    struct element el;
    mem_must_begin();
    for (const uint8_t *at = lp_first(from->lp); at; at = lp_next(from->lp, at)) {
        lp_get(at, &el);
        if (!lp_append(&to->lp, el.text)) mem_abort(NODE_SMALL);
    }
    mem_must_end();
    leaf->node.n += other->node.n;
    if (left) {
        uint8_t *gone = leaf->lp;
        leaf->lp = other->lp;
        other->lp = gone;
    }
    tree_leaf_absorbed(t, pos, left);
}

uint64_t list_delete(struct entry *e, uint64_t start, uint64_t count)
{
    struct tree *t = tree_of(e);
    struct tree_pos pos;
    if (start >= t->count) return 0;
    if (count > t->count - start) count = t->count - start;
    for (uint64_t left = count; left > 0;) {
        tree_at(t, start, &pos);
        struct list_leaf *leaf = leaf_at(&pos);
        uint32_t index = index_at(&pos), n = leaf->node.n - index;
        if (n > left) n = (uint32_t)left;
        left -= n;
        if (n == leaf->node.n) {
            tree_path_own_above(t, &pos);
            tree_path_count(t, &pos, -(int64_t)n);
            tree_leaf_remove(t, &pos);
            continue;
        }
        tree_path_own(t, &pos);
        leaf = leaf_at(&pos);
        lp_delete(&leaf->lp, lp_seek(leaf->lp, index), n);
        leaf->node.n -= n;
        tree_path_count(t, &pos, -(int64_t)n);
        /* The nodes at the ends are left alone: queues drain them anyway. */
        uint64_t first = start - index;
        if (first > 0 && first + leaf->node.n < t->count) node_settle(t, &pos);
    }
    return count;
}

void list_keep(struct entry *e, uint64_t start, uint64_t count)
{
    uint64_t len = list_len(e);
    if (start > len) start = len;
    if (count > len - start) count = len - start;
    list_delete(e, start + count, len);
    list_delete(e, 0, start);
}

/* Replaces the whole node of the path, which holds one element. */
static enum status replace_node(struct tree *t, struct tree_pos *pos, struct bytes text)
{
    struct list_leaf *leaf = leaf_try_new(text);
    if (!leaf) return E_NOMEM;
    tree_path_own_above(t, pos);
    tree_node_unref(pos->path[pos->depth - 1].node);
    tree_path_set(t, pos, pos->depth - 1u, &leaf->node);
    return OK;
}

enum status list_set(struct entry *e, int64_t index, struct bytes text, const struct store_limits *lim)
{
    struct tree *t = tree_of(e);
    struct tree_pos pos;
    uint64_t rank;
    if (!resolve(t, index, &rank)) return E_NOT_FOUND;
    tree_at(t, rank, &pos);
    struct list_leaf *leaf = leaf_at(&pos);
    if (leaf->node.n == 1) return replace_node(t, &pos, text);
    if (lp_has_room(leaf->lp, text.n + 64)) {
        tree_path_own(t, &pos);
        leaf = leaf_at(&pos);
        return lp_replace(&leaf->lp, lp_seek(leaf->lp, index_at(&pos)), text) ? OK : E_NOMEM;
    }
    enum status s = insert_before(t, rank, text, lim);
    if (s == OK) list_delete(e, rank + 1, 1);
    return s;
}

uint64_t list_remove_equal(struct entry *e, struct bytes text, int64_t count)
{
    bool reverse = count < 0;
    uint64_t most = count == 0 ? UINT64_MAX : reverse ? 0 - (uint64_t)count : (uint64_t)count;
    uint64_t removed = 0, index = reverse ? list_len(e) - 1 : 0;
    struct list_iter it;
    list_iter_init(&it, e, index, reverse);
    while (removed < most && list_iter_find(&it, text, &index)) {
        list_delete(e, index, 1);
        removed++;
        if (reverse && index == 0) break;
        list_iter_init(&it, e, reverse ? index - 1 : index, reverse);
    }
    return removed;
}

enum status list_move(struct entry *src, enum list_end from, struct entry *dst, enum list_end to,
                      const struct store_limits *lim, struct buf *moved)
{
    struct element el;
    bool there = list_index(src, from == LIST_HEAD ? 0 : -1, &el);
    assert(there);
    (void)there;
    if (moved && buf_try_reserve(moved, el.text.n) != OK) return E_NOMEM;
    size_t mark = moved ? moved->n : 0;
    if (moved) buf_append_bytes(moved, el.text);
    if (src == dst && (from == to || list_len(src) == 1)) return OK;
    struct bytes text = el.text;
    char *copy = NULL;
    if (src == dst) {
        /* The push may move the listpack that the text is in. */
        copy = mem_try_alloc(text.n);
        if (copy) text = bytes_make(memcpy(copy, text.p, text.n), text.n);
    }
    enum status s = src == dst && !copy ? E_NOMEM : list_push(dst, to, text, lim);
    mem_free(copy);
    if (s == OK)
        list_delete(src, from == LIST_HEAD ? 0 : list_len(src) - 1, 1);
    else if (moved)
        moved->n = mark;
    return s;
}

/* ---- walks ---- */

/* The first element of the node of the path in the direction of the walk. */
static const uint8_t *enter(const struct list_leaf *leaf, bool reverse)
{
    if (!leaf->lp) return NULL;
    return reverse ? lp_last(leaf->lp) : lp_first(leaf->lp);
}

void list_iter_init(struct list_iter *it, const struct entry *e, uint64_t index, bool reverse)
{
    it->reverse = reverse;
    it->index = index;
    it->at = NULL;
    it->more = tree_at(tree_of(e), index, &it->pos);
    if (!it->more) return;
    const struct list_leaf *leaf = leaf_at(&it->pos);
    if (leaf->lp) it->at = lp_seek(leaf->lp, index_at(&it->pos));
}

static void iter_advance(struct list_iter *it)
{
    const struct list_leaf *leaf = leaf_at(&it->pos);
    it->index += it->reverse ? UINT64_MAX : 1;
    it->more = it->reverse ? tree_prev(&it->pos) : tree_next(&it->pos);
    if (!it->more) return;
    const struct list_leaf *now = leaf_at(&it->pos);
    if (now != leaf)
        it->at = enter(now, it->reverse);
    else
        it->at = it->reverse ? lp_prev(leaf->lp, it->at) : lp_next(leaf->lp, it->at);
}

bool list_iter_next(struct list_iter *it, struct element *out, uint64_t *index)
{
    if (!it->more) return false;
    element_get(leaf_at(&it->pos), it->at, out);
    if (index) *index = it->index;
    iter_advance(it);
    return true;
}

bool list_iter_find(struct list_iter *it, struct bytes text, uint64_t *index)
{
    struct lp_needle needle = lp_needle(text);
    while (it->more) {
        const struct list_leaf *leaf = leaf_at(&it->pos);
        bool hit = leaf->lp ? lp_equal(it->at, &needle) : bytes_eq(tree_box_key(leaf->box), text);
        if (index) *index = it->index;
        iter_advance(it);
        if (hit) return true;
    }
    return false;
}

/* ---- loading and saving ---- */

static void append_node(struct tree *t, struct list_leaf *leaf)
{
    struct tree_pos pos;
    if (t->count == 0) {
        enum status s = plant(t, leaf);
        assert(s == OK);
        (void)s;
        return;
    }
    tree_at(t, t->count - 1, &pos);
    tree_path_own(t, &pos);
    node_insert(t, &pos, false, leaf);
}

enum status list_append_listpack(struct entry *e, struct bytes blob, const struct store_limits *lim)
{
    size_t count;
    (void)lim;
    if (!lp_is_valid(blob, &count)) return E_CORRUPT;
    if (count == 0) return OK;
    uint8_t *lp = lp_try_copy(blob);
    if (!lp) return E_NOMEM;
    append_node(tree_of(e), leaf_new(lp, count, NULL));
    return OK;
}

enum status list_append_plain(struct entry *e, struct bytes text, const struct store_limits *lim)
{
    (void)lim;
    struct list_leaf *leaf = leaf_try_plain(text);
    if (!leaf) return E_NOMEM;
    append_node(tree_of(e), leaf);
    return OK;
}

static uint64_t leaves_below(const struct tree_node *node)
{
    if (node->level == 0) return 1;
    if (node->level == 1) return node->n;
    uint64_t sum = 0;
    for (unsigned i = 0; i < node->n; i++) sum += leaves_below(inner_child(node)[i]);
    return sum;
}

uint64_t list_node_count(const struct entry *e)
{
    const struct tree *t = tree_of(e);
    return t->root ? leaves_below(t->root) : 0;
}

void list_node_iter_init(struct list_node_iter *it, const struct entry *e)
{
    it->more = tree_at(tree_of(e), 0, &it->pos);
}

bool list_node_iter_next(struct list_node_iter *it, struct bytes *blob, bool *packed)
{
    if (!it->more) return false;
    const struct list_leaf *leaf = leaf_at(&it->pos);
    *packed = leaf->lp != NULL;
    *blob = leaf->lp ? lp_blob(leaf->lp) : tree_box_key(leaf->box);
    it->pos.path[it->pos.depth - 1].index = leaf->node.n - 1;
    it->more = tree_next(&it->pos);
    return true;
}
