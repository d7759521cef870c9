#include "base/mem.h"
#include "store/tree_node.h"

#include <assert.h>

/* Element: key head, [value length], then in line: key and value; or a box pointer in place of what it holds.
 * Head of a length: 0..239 itself; 240..254 with the next byte: 0..3839; 255: boxed. */
enum { HEAD_LONG = 240, HEAD_BOXED = 255 };

static bool is_wide(const struct tree_node *leaf)
{
    return tree_kind_is_wide(leaf->kind);
}

static size_t ord_size(const struct tree_node *leaf)
{
    return is_wide(leaf) ? 8 : 4;
}

static size_t slot_size(const struct tree_node *leaf)
{
    return ord_size(leaf) + sizeof(uint16_t);
}

static uint64_t *ords64(const struct tree_node *leaf)
{
    return (uint64_t *)(uintptr_t)(leaf + 1);
}

static uint32_t *ords32(const struct tree_node *leaf)
{
    return (uint32_t *)(uintptr_t)(leaf + 1);
}

static uint16_t *offsets(const struct tree_node *leaf)
{
    return (uint16_t *)(uintptr_t)((const char *)(leaf + 1) + leaf->n * ord_size(leaf));
}

static uint8_t *element_at(const struct tree_node *leaf, unsigned i)
{
    assert(i < leaf->n);
    return (uint8_t *)(uintptr_t)leaf + offsets(leaf)[i];
}

static size_t head_read(const uint8_t *p, size_t *n)
{
    if (p[0] < HEAD_LONG) {
        *n = p[0];
        return 1;
    }
    *n = (size_t)(p[0] - HEAD_LONG) << 8 | p[1];
    return 2;
}

static size_t head_write(uint8_t *p, size_t n)
{
    if (n < HEAD_LONG) {
        p[0] = (uint8_t)n;
        return 1;
    }
    p[0] = (uint8_t)(HEAD_LONG + (n >> 8));
    p[1] = (uint8_t)n;
    return 2;
}

static struct tree_box *box_read(const uint8_t *el)
{
    struct tree_box *box;
    if (el[0] != HEAD_BOXED) return NULL;
    memcpy(&box, el + 1, sizeof box);
    return box;
}

static struct bytes key_of(const uint8_t *el, enum tree_kind kind)
{
    struct tree_box *box = box_read(el);
    if (box) return bytes_make(box->data, box->klen);
    size_t klen, vlen, at = head_read(el, &klen);
    if (kind == TREE_HASH) at += head_read(el + at, &vlen);
    return bytes_make(el + at, klen);
}

/* Bytes of a value whose size follows from the kind. */
static size_t fixed_size(enum tree_kind kind)
{
    switch (kind) {
    case TREE_ZMEMBER: return sizeof(double);
    case TREE_REFS: return sizeof(struct tree_ref *);
    case TREE_PENDING: return TREE_PENDING_BYTES;
    default: return 0;
    }
}

static size_t element_size(const uint8_t *el, enum tree_kind kind)
{
    size_t fixed = fixed_size(kind);
    if (el[0] == HEAD_BOXED) return 1 + sizeof(struct tree_box *) + fixed;
    size_t klen, vlen = 0, at = head_read(el, &klen);
    if (kind == TREE_HASH) at += head_read(el + at, &vlen);
    return at + klen + vlen + fixed;
}

uint64_t tree_leaf_ord(const struct tree_node *leaf, unsigned i)
{
    assert(i < leaf->n);
    return is_wide(leaf) ? ords64(leaf)[i] : ords32(leaf)[i];
}

struct tree_box *tree_leaf_box(const struct tree_node *leaf, unsigned i)
{
    return box_read(element_at(leaf, i));
}

struct bytes tree_leaf_key(const struct tree_node *leaf, unsigned i)
{
    return key_of(element_at(leaf, i), (enum tree_kind)leaf->kind);
}

void tree_leaf_item(const struct tree_node *leaf, unsigned i, struct tree_item *item)
{
    const uint8_t *el = element_at(leaf, i);
    enum tree_kind kind = (enum tree_kind)leaf->kind;
    struct tree_box *box = box_read(el);
    item->ord = tree_leaf_ord(leaf, i);
    item->key = key_of(el, kind);
    item->value = (struct bytes){NULL, 0};
    size_t fixed = fixed_size(kind);
    if (fixed) {
        item->value = bytes_make(box ? (const char *)el + 1 + sizeof box : item->key.p + item->key.n, fixed);
    } else if (kind == TREE_HASH) {
        size_t vlen = 0, klen;
        if (!box) head_read(el + head_read(el, &klen), &vlen);
        item->value = bytes_make(item->key.p + item->key.n, box ? box->vlen : vlen);
    }
}

void tree_leaf_set_value(struct tree_node *leaf, unsigned i, struct bytes value)
{
    struct tree_item item;
    tree_leaf_item(leaf, i, &item);
    assert(item.value.p && item.value.n == value.n);
    memcpy((char *)(uintptr_t)item.value.p, value.p, value.n);
}

struct tree_ref *tree_leaf_ref(const struct tree_node *leaf, unsigned i)
{
    struct tree_item item;
    struct tree_ref *r;
    tree_leaf_item(leaf, i, &item);
    assert(item.value.p);
    memcpy(&r, item.value.p, sizeof r);
    return r;
}

int tree_leaf_cmp(const struct tree_node *leaf, unsigned i, uint64_t ord, struct bytes key)
{
    uint64_t here = tree_leaf_ord(leaf, i);
    if (here != ord) return here < ord ? -1 : 1;
    return bytes_cmp(key_of(element_at(leaf, i), (enum tree_kind)leaf->kind), key);
}

void tree_leaf_prefetch(const struct tree_node *leaf, enum tree_kind kind, unsigned n, unsigned guess)
{
    const char *base = (const char *)(leaf + 1);
    __builtin_prefetch(leaf);
    if (tree_kind_is_wide(kind)) {
        for (unsigned i = 0; i < n * sizeof(uint64_t); i += 64) __builtin_prefetch(base + i);
    } else {
        __builtin_prefetch(base + guess * sizeof(uint32_t));
        __builtin_prefetch(base + n * sizeof(uint32_t) + guess * sizeof(uint16_t));
    }
}

/* Hashes are uniform, so that a guess is off by few places. */
static unsigned hashed_lower(const struct tree_node *leaf, uint64_t ord, unsigned guess)
{
    const uint32_t *ords = ords32(leaf);
    unsigned n = leaf->n, i = guess < n ? guess : n - 1;
    if (ords[i] < ord) {
        do i++;
        while (i < n && ords[i] < ord);
    } else {
        while (i > 0 && ords[i - 1] >= ord) i--;
    }
    return i;
}

unsigned tree_leaf_lower(const struct tree_node *leaf, uint64_t ord, struct bytes key, unsigned guess, bool *exact)
{
    unsigned low = 0, high = leaf->n;
    int cmp = -1;
    *exact = false;
    if (!is_wide(leaf)) {
        low = hashed_lower(leaf, ord, guess);
        while (low < high && (cmp = tree_leaf_cmp(leaf, low, ord, key)) < 0) low++;
        *exact = low < high && cmp == 0;
        return low;
    }
    while (low < high) {
        unsigned mid = (low + high) / 2;
        cmp = tree_leaf_cmp(leaf, mid, ord, key);
        if (cmp == 0) *exact = true;
        if (cmp < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

size_t tree_leaf_used(const struct tree_node *leaf)
{
    return sizeof *leaf + leaf->n * slot_size(leaf) + (size_t)(leaf->cap - leaf->low);
}

/* The sizes that the allocator has: four to each power of two. */
static size_t leaf_round(size_t n)
{
    if (n <= 128) return (n + 15) / 16 * 16;
    size_t step = (size_t)1 << (61 - __builtin_clzl(n - 1));
    return (n + step - 1) / step * step;
}

static struct tree_node *leaf_new(enum tree_kind kind, size_t bytes)
{
    size_t cap = leaf_round(bytes);
    assert(cap <= TREE_LEAF_MAX);
    struct tree_node *leaf = mem_alloc(cap);
    *leaf = (struct tree_node){.kind = (uint8_t)kind, .cap = (uint16_t)cap, .low = (uint16_t)cap};
    atomic_init(&leaf->refs, 1);
    return leaf;
}

/* Opens room for an element of `size` bytes at index i, which there must be, and returns where it goes. */
static uint8_t *leaf_open(struct tree_node *leaf, unsigned i, uint64_t ord, size_t size)
{
    assert(tree_leaf_used(leaf) + slot_size(leaf) + size <= leaf->cap);
    size_t w = ord_size(leaf);
    char *base = (char *)(leaf + 1), *offs = base + leaf->n * w, *to = offs + w;
    memmove(to + (i + 1) * 2, offs + i * 2, (leaf->n - i) * 2);
    memmove(to, offs, i * 2);
    memmove(base + (i + 1) * w, base + i * w, (leaf->n - i) * w);
    if (is_wide(leaf))
        ords64(leaf)[i] = ord;
    else
        ords32(leaf)[i] = (uint32_t)ord;
    leaf->n++;
    leaf->low = (uint16_t)(leaf->low - size);
    offsets(leaf)[i] = leaf->low;
    return (uint8_t *)leaf + leaf->low;
}

/* Takes element i out; what its box holds is the caller's. */
static void leaf_close(struct tree_node *leaf, unsigned i)
{
    uint8_t *el = element_at(leaf, i);
    size_t size = element_size(el, (enum tree_kind)leaf->kind), w = ord_size(leaf);
    unsigned off = offsets(leaf)[i];
    uint8_t *low = (uint8_t *)leaf + leaf->low;
    memmove(low + size, low, off - leaf->low);
    uint16_t *all = offsets(leaf);
    for (unsigned j = 0; j < leaf->n; j++) all[j] = (uint16_t)(all[j] + (all[j] < off ? size : 0));
    leaf->low = (uint16_t)(leaf->low + size);
    char *base = (char *)(leaf + 1), *offs = (char *)all;
    memmove(base + i * w, base + (i + 1) * w, (leaf->n - i - 1) * w);
    memmove(offs - w, offs, i * 2);
    memmove(offs - w + i * 2, offs + (i + 1) * 2, (leaf->n - i - 1) * 2);
    leaf->n--;
}

/* Copies the elements [from, to) of src behind those of dst. */
static void leaf_move(struct tree_node *dst, const struct tree_node *src, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        const uint8_t *el = element_at(src, i);
        size_t size = element_size(el, (enum tree_kind)src->kind);
        memcpy(leaf_open(dst, dst->n, tree_leaf_ord(src, i), size), el, size);
    }
}

/* Bytes that the elements [from, to) take with their slots. */
static size_t range_bytes(const struct tree_node *leaf, unsigned from, unsigned to)
{
    size_t sum = (to - from) * slot_size(leaf);
    for (unsigned i = from; i < to; i++) sum += element_size(element_at(leaf, i), (enum tree_kind)leaf->kind);
    return sum;
}

/* A leaf with copies of the elements [from, to), and room for `spare` bytes more; boxes move with them. */
static struct tree_node *leaf_of_range(const struct tree_node *src, unsigned from, unsigned to, size_t spare)
{
    struct tree_node *leaf = leaf_new((enum tree_kind)src->kind, sizeof *src + range_bytes(src, from, to) + spare);
    leaf_move(leaf, src, from, to);
    return leaf;
}

/* The same content in a block of another size; the old block is gone. */
static struct tree_node *leaf_resize(struct tree_node *old, size_t bytes)
{
    struct tree_node *leaf = leaf_new((enum tree_kind)old->kind, bytes);
    size_t front = old->n * slot_size(old), back = (size_t)(old->cap - old->low);
    memcpy(leaf + 1, old + 1, front);
    leaf->n = old->n;
    leaf->low = (uint16_t)(leaf->cap - back);
    memcpy((char *)leaf + leaf->low, (const char *)old + old->low, back);
    uint16_t *offs = offsets(leaf);
    int shift = leaf->cap - old->cap;
    for (unsigned i = 0; i < leaf->n; i++) offs[i] = (uint16_t)(offs[i] + shift);
    mem_free(old);
    return leaf;
}

struct tree_node *tree_leaf_clone(const struct tree_node *from)
{
    struct tree_node *leaf = mem_alloc(from->cap);
    memcpy((char *)leaf + sizeof leaf->refs, (const char *)from + sizeof from->refs, from->cap - sizeof from->refs);
    atomic_init(&leaf->refs, 1);
    for (unsigned i = 0; i < leaf->n; i++) {
        struct tree_box *box = tree_leaf_box(leaf, i);
        if (box) tree_box_ref(box);
        if (leaf->kind == TREE_REFS) tree_ref_share(tree_leaf_ref(leaf, i));
    }
    return leaf;
}

void tree_leaf_free(struct tree_node *leaf)
{
    for (unsigned i = 0; i < leaf->n; i++) {
        struct tree_box *box = tree_leaf_box(leaf, i);
        if (leaf->kind == TREE_REFS) tree_ref_drop(tree_leaf_ref(leaf, i));
        if (box) tree_box_unref(box);
    }
    mem_free(leaf);
}

bool tree_pack_fits(enum tree_kind kind, const struct tree_item *item)
{
    return item->key.n <= TREE_INLINE_MAX && item->value.n <= TREE_INLINE_MAX - item->key.n;
}

void tree_pack(enum tree_kind kind, const struct tree_item *item, struct tree_box *box, struct tree_packed *out)
{
    uint8_t *p = out->bytes;
    out->ord = item->ord;
    if (box) {
        *p++ = HEAD_BOXED;
        memcpy(p, &box, sizeof box);
        p += sizeof box;
    } else {
        p += head_write(p, item->key.n);
        if (kind == TREE_HASH) p += head_write(p, item->value.n);
        if (item->key.n) memcpy(p, item->key.p, item->key.n);
        p += item->key.n;
    }
    if (item->value.n && !(box && kind == TREE_HASH)) {
        memcpy(p, item->value.p, item->value.n);
        p += item->value.n;
    }
    out->n = (size_t)(p - out->bytes);
}

/* Where to cut a full leaf that gets one more element at index i: at an edge of the whole tree, where elements often
 * come in order, the old leaf stays full; elsewhere in the middle of the bytes. */
static unsigned split_point(const struct tree_pos *pos, unsigned i)
{
    const struct tree_node *leaf = pos->path[pos->depth - 1].node;
    bool first = true, last = true;
    for (unsigned d = 0; d + 1 < pos->depth; d++) {
        first = first && pos->path[d].index == 0;
        last = last && pos->path[d].index == pos->path[d].node->n - 1;
    }
    if (last && i == leaf->n) return leaf->n;
    if (first && i == 0) return 0;
    size_t half = (tree_leaf_used(leaf) - sizeof *leaf) / 2, sum = 0;
    unsigned s = 0;
    while (s < leaf->n - 1 && sum < half)
        sum += slot_size(leaf) + element_size(element_at(leaf, s++), (enum tree_kind)leaf->kind);
    return s ? s : 1;
}

static void leaf_split(struct tree *t, struct tree_pos *pos, const struct tree_packed *el)
{
    unsigned d = pos->depth - 1u, i = pos->path[d].index;
    struct tree_node *old = pos->path[d].node;
    unsigned s = split_point(pos, i);
    /* An element at the cut may go to either side; an empty side must take it. */
    bool into_left = i < s || (i == s && s != old->n);
    size_t more = slot_size(old) + el->n;
    struct tree_node *left = leaf_of_range(old, 0, s, into_left ? more : 0);
    struct tree_node *right = leaf_of_range(old, s, old->n, into_left ? 0 : more);
    if (into_left)
        memcpy(leaf_open(left, i, el->ord, el->n), el->bytes, el->n);
    else
        memcpy(leaf_open(right, i - s, el->ord, el->n), el->bytes, el->n);
    mem_free(old);
    tree_path_set(t, pos, d, left);
    tree_leaf_insert(t, pos, false, right, tree_leaf_ord(right, 0));
}

void tree_leaf_put(struct tree *t, struct tree_pos *pos, const struct tree_packed *el)
{
    unsigned d = pos->depth - 1u;
    struct tree_node *leaf = pos->path[d].node;
    size_t need = tree_leaf_used(leaf) + slot_size(leaf) + el->n;
    tree_path_count(t, pos, 1);
    if (need > TREE_LEAF_MAX) {
        leaf_split(t, pos, el);
        return;
    }
    if (need > leaf->cap) {
        leaf = leaf_resize(leaf, need);
        tree_path_set(t, pos, d, leaf);
    }
    memcpy(leaf_open(leaf, pos->path[d].index, el->ord, el->n), el->bytes, el->n);
}

/* How many elements from one end of `rich` bring a leaf of `have` bytes up to `want`; one at least stays. */
static unsigned elements_to_move(const struct tree_node *rich, bool from_front, size_t have, size_t want)
{
    unsigned n = 0;
    while (n + 1 < rich->n && have < want) {
        unsigned i = from_front ? n : rich->n - 1 - n;
        have += range_bytes(rich, i, i + 1);
        if (have > TREE_LEAF_MAX) break;
        n++;
    }
    return n;
}

/* Moves elements from the neighbour into the leaf of the path until both have about half of the bytes.  Of the two, a
 * stands before b. */
static void leaf_balance(struct tree *t, struct tree_pos *pos, bool other_is_a)
{
    unsigned d = pos->depth - 1u, ai = pos->path[d - 1].index - other_is_a;
    struct tree_node *parent = pos->path[d - 1].node, *a = inner_child(parent)[ai], *b = inner_child(parent)[ai + 1];
    size_t total = tree_leaf_used(a) + tree_leaf_used(b), have = tree_leaf_used(pos->path[d].node);
    unsigned moved = elements_to_move(other_is_a ? a : b, !other_is_a, have, total / 2);
    unsigned a_end = other_is_a ? a->n - moved : a->n, b_from = other_is_a ? 0 : moved;
    struct tree_node *left = leaf_of_range(a, 0, a_end, range_bytes(b, 0, b_from));
    leaf_move(left, b, 0, b_from);
    struct tree_node *right = leaf_new(t->kind, sizeof *b + range_bytes(a, a_end, a->n) + range_bytes(b, b_from, b->n));
    leaf_move(right, a, a_end, a->n);
    leaf_move(right, b, b_from, b->n);
    mem_free(a);
    mem_free(b);
    inner_child(parent)[ai] = left;
    inner_count(parent)[ai] = left->n;
    inner_child(parent)[ai + 1] = right;
    inner_count(parent)[ai + 1] = right->n;
    inner_ord(parent)[ai + 1] = tree_leaf_ord(right, 0);
}

/* The leaf of the path has become small: joins it with a neighbour, or evens the two out. */
static void leaf_refill(struct tree *t, struct tree_pos *pos)
{
    bool left;
    unsigned d = pos->depth - 1u;
    struct tree_node *leaf = pos->path[d].node, *other = tree_leaf_neighbour(t, pos, &left);
    if (!other) return;
    struct tree_node *a = left ? other : leaf, *b = left ? leaf : other;
    size_t more = range_bytes(b, 0, b->n);
    if (tree_leaf_used(a) + more > TREE_LEAF_MAX * 7 / 8) {
        leaf_balance(t, pos, left);
        return;
    }
    struct tree_node *joined = leaf_of_range(a, 0, a->n, more);
    leaf_move(joined, b, 0, b->n);
    mem_free(leaf);
    other->n = 0; /* its boxes have moved */
    tree_path_set(t, pos, d, joined);
    tree_leaf_absorbed(t, pos, left);
}

/* After elements have gone from the leaf of the path. */
static void leaf_settle(struct tree *t, struct tree_pos *pos)
{
    unsigned d = pos->depth - 1u;
    struct tree_node *leaf = pos->path[d].node;
    if (leaf->n == 0) {
        tree_leaf_remove(t, pos);
        return;
    }
    size_t used = tree_leaf_used(leaf);
    if (used < leaf->cap / 2u) tree_path_set(t, pos, d, leaf_resize(leaf, used));
    if (used < TREE_LEAF_MIN) leaf_refill(t, pos);
}

void tree_leaf_cut(struct tree *t, struct tree_pos *pos)
{
    unsigned d = pos->depth - 1u;
    struct tree_node *leaf = pos->path[d].node;
    struct tree_box *box = tree_leaf_box(leaf, pos->path[d].index);
    if (t->kind == TREE_REFS) tree_ref_drop(tree_leaf_ref(leaf, pos->path[d].index));
    leaf_close(leaf, pos->path[d].index);
    if (box) {
        tree_box_unref(box);
        t->nodes--;
    }
    tree_path_count(t, pos, -1);
    leaf_settle(t, pos);
}

void tree_leaf_replace(struct tree *t, struct tree_pos *pos, const struct tree_packed *el)
{
    unsigned d = pos->depth - 1u, i = pos->path[d].index;
    struct tree_node *leaf = pos->path[d].node;
    uint8_t *old = element_at(leaf, i);
    struct tree_box *box = box_read(old);
    size_t size = element_size(old, t->kind);
    bool shrinks = false;
    if (size == el->n) {
        memcpy(old, el->bytes, size);
    } else {
        leaf_close(leaf, i);
        shrinks = tree_leaf_used(leaf) + slot_size(leaf) + el->n < TREE_LEAF_MIN && el->n < size;
        tree_path_count(t, pos, -1);
        tree_leaf_put(t, pos, el);
    }
    if (box) {
        tree_box_unref(box);
        t->nodes--;
    }
    if (shrinks) leaf_settle(t, pos);
}
