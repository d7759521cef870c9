#include "store/set.h"

#include "base/mem.h"
#include "base/number.h"
#include "base/random.h"
#include "store/intset.h"
#include "store/sample.h"

static const struct bytes no_value = {NULL, 0};

static uint8_t *intset_of(const struct entry *e)
{
    return entry_enc(e) == ENC_INTSET ? entry_ptr(e) : NULL;
}

static struct tree *tree_of(const struct entry *e)
{
    assert(entry_type(e) == TYPE_SET && entry_enc(e) == ENC_HASHTABLE);
    return entry_ptr(e);
}

struct entry *set_new(struct bytes key, struct bytes first_member)
{
    int64_t v;
    if (parse_i64(first_member, &v)) return set_new_intset(key);
    return entry_new_word(key, TYPE_SET, ENC_HASHTABLE, tree_new(TREE_SET));
}

struct entry *set_new_intset(struct bytes key)
{
    return entry_new_word(key, TYPE_SET, ENC_INTSET, intset_new());
}

uint64_t set_len(const struct entry *e)
{
    const uint8_t *is = intset_of(e);
    return is ? intset_len(is) : tree_of(e)->count;
}

bool set_has(const struct entry *e, struct bytes member)
{
    int64_t v;
    struct tree_pos pos;
    const uint8_t *is = intset_of(e);
    if (is) return parse_i64(member, &v) && intset_has(is, v);
    return tree_find(tree_of(e), tree_hash_ord(member), member, &pos);
}

static void element_from_int(struct element *el, int64_t v)
{
    el->text = bytes_make(el->digits, format_i64(el->digits, v));
}

/* Integers always fit in a leaf, so that this cannot fail. */
static void convert(struct entry *e)
{
    uint8_t *is = intset_of(e);
    struct tree *t = tree_new(TREE_SET);
    struct element el;
    for (size_t i = 0; i < intset_len(is); i++) {
        element_from_int(&el, intset_at(is, i));
        enum status s = tree_put(t, tree_hash_ord(el.text), el.text, no_value, NULL);
        assert(s == OK);
        (void)s;
    }
    mem_free(is);
    entry_set_ptr(e, t);
    entry_set_enc(e, ENC_HASHTABLE);
}

/* Redis never lets an intset pass 2^30 members, whatever the option says. */
static size_t intset_max(const struct store_limits *lim)
{
    return lim->set_max_intset_entries < 1u << 30 ? lim->set_max_intset_entries : 1u << 30;
}

enum status set_add(struct entry *e, struct bytes member, const struct store_limits *lim, bool *added)
{
    int64_t v;
    uint8_t *is = intset_of(e);
    if (is && parse_i64(member, &v)) {
        bool is_new = intset_add(&is, v);
        entry_set_ptr(e, is);
        if (added) *added = is_new;
        if (is_new && intset_len(is) > intset_max(lim)) convert(e);
        return OK;
    }
    if (is) convert(e);
    struct tree *t = tree_of(e);
    struct tree_pos pos;
    uint64_t ord = tree_hash_ord(member);
    bool there = tree_find(t, ord, member, &pos);
    if (added) *added = !there;
    return there ? OK : tree_put(t, ord, member, no_value, NULL);
}

bool set_remove(struct entry *e, struct bytes member)
{
    int64_t v;
    uint8_t *is = intset_of(e);
    if (!is) return tree_remove(tree_of(e), tree_hash_ord(member), member);
    if (!parse_i64(member, &v) || !intset_remove(&is, v)) return false;
    entry_set_ptr(e, is);
    return true;
}

void set_iter_init(struct set_iter *it, const struct entry *e)
{
    it->e = e;
    it->rank = 0;
    it->started = false;
}

static void tree_member_get(const struct tree *t, const struct tree_pos *pos, struct element *member)
{
    struct tree_item item;
    tree_item(t, pos, &item);
    member->text = item.key;
}

bool set_iter_next(struct set_iter *it, struct element *member)
{
    const uint8_t *is = intset_of(it->e);
    if (is) {
        if (it->rank >= intset_len(is)) return false;
        element_from_int(member, intset_at(is, it->rank++));
        return true;
    }
    const struct tree *t = tree_of(it->e);
    bool first = !it->started;
    it->started = true;
    if (!(first ? tree_at(t, 0, &it->pos) : tree_next(&it->pos))) return false;
    tree_member_get(t, &it->pos, member);
    return true;
}

uint64_t set_scan(const struct entry *e, uint64_t cursor, size_t count, element_fn *emit, void *ctx)
{
    const uint8_t *is = intset_of(e);
    if (!is) return tree_scan(tree_of(e), cursor, count, emit, ctx);
    struct element el;
    for (size_t i = 0; i < intset_len(is); i++) {
        element_from_int(&el, intset_at(is, i));
        emit(ctx, el.text, no_value);
    }
    return 0;
}

void set_at(const struct entry *e, uint64_t rank, struct element *member)
{
    const uint8_t *is = intset_of(e);
    assert(rank < set_len(e));
    if (is) {
        element_from_int(member, intset_at(is, rank));
        return;
    }
    struct tree_pos pos;
    tree_at(tree_of(e), rank, &pos);
    tree_member_get(tree_of(e), &pos, member);
}

void set_random(const struct entry *e, struct random *rng, struct element *member)
{
    set_at(e, random_below(rng, set_len(e)), member);
}

void set_sample(const struct entry *e, struct random *rng, uint64_t n, element_fn *emit, void *ctx)
{
    struct sample s;
    struct set_iter it;
    struct element member = {.text = {NULL, 0}};
    uint64_t rank, at = 0;
    set_iter_init(&it, e);
    sample_init(&s, rng, set_len(e), n);
    while (sample_next(&s, &rank)) {
        if (s.picked) {
            set_at(e, rank, &member);
        } else {
            for (; at <= rank; at++) set_iter_next(&it, &member);
        }
        emit(ctx, member.text, no_value);
    }
    sample_deinit(&s);
}

enum status set_from_intset(struct bytes key, struct bytes blob, const struct store_limits *lim, struct entry **out)
{
    if (!intset_is_valid(blob)) return E_CORRUPT;
    if (intset_len((const uint8_t *)blob.p) == 0) return E_NOT_FOUND;
    uint8_t *is = intset_try_copy(blob);
    if (!is) return E_NOMEM;
    *out = entry_new_word(key, TYPE_SET, ENC_INTSET, is);
    if (intset_len(is) > intset_max(lim)) convert(*out);
    return OK;
}

struct bytes set_intset(const struct entry *e)
{
    const uint8_t *is = intset_of(e);
    assert(is);
    return bytes_make(is, intset_bytes(is));
}
