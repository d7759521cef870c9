#include "store/hash.h"

#include "base/mem.h"
#include "base/random.h"
#include "store/listpack.h"
#include "store/sample.h"

static uint8_t *listpack_of(const struct entry *e)
{
    return entry_enc(e) == ENC_LISTPACK ? entry_ptr(e) : NULL;
}

static struct tree *tree_of(const struct entry *e)
{
    assert(entry_type(e) == TYPE_HASH && entry_enc(e) == ENC_HASHTABLE);
    return entry_ptr(e);
}

struct entry *hash_new(struct bytes key)
{
    return entry_new_word(key, TYPE_HASH, ENC_LISTPACK, lp_new());
}

uint64_t hash_len(const struct entry *e)
{
    const uint8_t *lp = listpack_of(e);
    return lp ? lp_count(lp) / 2 : tree_of(e)->count;
}

bool hash_get(const struct entry *e, struct bytes field, struct element *value)
{
    const uint8_t *lp = listpack_of(e);
    if (lp) {
        const uint8_t *at = lp_find(lp, lp_first(lp), field, 1);
        if (at && value) lp_get(lp_next(lp, at), value);
        return at != NULL;
    }
    struct tree_pos pos;
    struct tree_item item;
    if (!tree_find(tree_of(e), tree_hash_ord(field), field, &pos)) return false;
    if (value) {
        tree_item(tree_of(e), &pos, &item);
        value->text = item.value;
    }
    return true;
}

bool hash_has(const struct entry *e, struct bytes field)
{
    return hash_get(e, field, NULL);
}

size_t hash_value_len(const struct entry *e, struct bytes field)
{
    struct element value;
    return hash_get(e, field, &value) ? value.text.n : 0;
}

/* A tree with the content of a listpack; NULL when memory is out or, with *twice set, when a field comes twice. */
static struct tree *tree_from_listpack(const uint8_t *lp, bool *twice)
{
    struct tree *t = tree_new(TREE_HASH);
    struct element field, value;
    bool added = true;
    enum status s = OK;
    for (const uint8_t *at = lp_first(lp); at && s == OK && added;) {
        lp_get(at, &field);
        at = lp_next(lp, at);
        lp_get(at, &value);
        at = lp_next(lp, at);
        s = tree_put(t, tree_hash_ord(field.text), field.text, value.text, &added);
    }
    *twice = !added;
    if (s == OK && added) return t;
    tree_free(t);
    return NULL;
}

static enum status convert(struct entry *e)
{
    bool twice;
    uint8_t *lp = listpack_of(e);
    struct tree *t = tree_from_listpack(lp, &twice);
    assert(!twice);
    if (!t) return E_NOMEM;
    mem_free(lp);
    entry_set_ptr(e, t);
    entry_set_enc(e, ENC_HASHTABLE);
    return OK;
}

void hash_convert_for(struct entry *e, const struct bytes *texts, size_t n, const struct store_limits *lim)
{
    bool too_long = false;
    for (size_t i = 0; i < n; i++) too_long = too_long || texts[i].n > lim->hash_max_listpack_value;
    if (too_long && listpack_of(e) && convert(e) != OK) return; /* hash_set() will try again and say so */
}

static bool listpack_set(uint8_t **lp, struct bytes field, struct bytes value, bool *added)
{
    struct bytes pair[] = {field, value};
    const uint8_t *at = lp_find(*lp, lp_first(*lp), field, 1);
    *added = !at;
    return at ? lp_replace(lp, lp_next(*lp, at), value) : lp_splice(lp, NULL, 0, pair, 2);
}

enum status hash_set(struct entry *e, struct bytes field, struct bytes value, const struct store_limits *lim,
                     bool *added)
{
    bool is_new;
    uint8_t *lp = listpack_of(e);
    if (lp && field.n <= lim->hash_max_listpack_value && value.n <= lim->hash_max_listpack_value &&
        listpack_set(&lp, field, value, &is_new)) {
        entry_set_ptr(e, lp);
        if (added) *added = is_new;
        /* Should memory be out the hash simply stays a listpack for now. */
        if (lp_count(lp) / 2 > lim->hash_max_listpack_entries && convert(e) != OK) return OK;
        return OK;
    }
    if (lp) {
        enum status s = convert(e);
        if (s != OK) return s;
    }
    return tree_put(tree_of(e), tree_hash_ord(field), field, value, added);
}

bool hash_del(struct entry *e, struct bytes field)
{
    uint8_t *lp = listpack_of(e);
    if (!lp) return tree_remove(tree_of(e), tree_hash_ord(field), field);
    const uint8_t *at = lp_find(lp, lp_first(lp), field, 1);
    if (!at) return false;
    lp_delete(&lp, at, 2);
    entry_set_ptr(e, lp);
    return true;
}

void hash_iter_init(struct hash_iter *it, const struct entry *e)
{
    it->e = e;
    it->started = false;
}

/* Reads the pair at `at` and returns what follows it. */
static const uint8_t *pair_get(const uint8_t *lp, const uint8_t *at, struct element *field, struct element *value)
{
    if (field) lp_get(at, field);
    at = lp_next(lp, at);
    if (value) lp_get(at, value);
    return lp_next(lp, at);
}

static void tree_pair_get(const struct tree *t, const struct tree_pos *pos, struct element *field,
                          struct element *value)
{
    struct tree_item item;
    tree_item(t, pos, &item);
    if (field) field->text = item.key;
    if (value) value->text = item.value;
}

bool hash_iter_next(struct hash_iter *it, struct element *field, struct element *value)
{
    const uint8_t *lp = listpack_of(it->e);
    bool first = !it->started;
    it->started = true;
    if (lp) {
        if (first) it->at = lp_first(lp);
        if (!it->at) return false;
        it->at = pair_get(lp, it->at, field, value);
        return true;
    }
    const struct tree *t = tree_of(it->e);
    if (!(first ? tree_at(t, 0, &it->pos) : tree_next(&it->pos))) return false;
    tree_pair_get(t, &it->pos, field, value);
    return true;
}

uint64_t hash_scan(const struct entry *e, uint64_t cursor, size_t count, element_fn *emit, void *ctx)
{
    const uint8_t *lp = listpack_of(e);
    if (!lp) return tree_scan(tree_of(e), cursor, count, emit, ctx);
    struct element field, value;
    for (const uint8_t *at = lp_first(lp); at;) {
        at = pair_get(lp, at, &field, &value);
        emit(ctx, field.text, value.text);
    }
    return 0;
}

void hash_at(const struct entry *e, uint64_t rank, struct element *field, struct element *value)
{
    const uint8_t *lp = listpack_of(e);
    assert(rank < hash_len(e));
    if (lp) {
        pair_get(lp, lp_seek(lp, (int64_t)rank * 2), field, value);
        return;
    }
    struct tree_pos pos;
    tree_at(tree_of(e), rank, &pos);
    tree_pair_get(tree_of(e), &pos, field, value);
}

void hash_random(const struct entry *e, struct random *rng, struct element *field, struct element *value)
{
    hash_at(e, random_below(rng, hash_len(e)), field, value);
}

void hash_sample(const struct entry *e, struct random *rng, uint64_t n, element_fn *emit, void *ctx)
{
    struct sample s;
    struct hash_iter it;
    struct element field = {.text = {NULL, 0}}, value = {.text = {NULL, 0}};
    uint64_t rank, at = 0;
    hash_iter_init(&it, e);
    sample_init(&s, rng, hash_len(e), n);
    while (sample_next(&s, &rank)) {
        if (entry_enc(e) == ENC_HASHTABLE && s.picked) {
            hash_at(e, rank, &field, &value);
        } else {
            for (; at <= rank; at++) hash_iter_next(&it, &field, &value);
        }
        emit(ctx, field.text, value.text);
    }
    sample_deinit(&s);
}

enum status hash_from_listpack(struct bytes key, struct bytes blob, const struct store_limits *lim, struct entry **out)
{
    size_t count;
    bool twice = false;
    if (!lp_is_valid(blob, &count) || count % 2) return E_CORRUPT;
    if (count == 0) return E_NOT_FOUND;
    uint8_t *lp = lp_try_copy(blob);
    struct tree *t = lp ? tree_from_listpack(lp, &twice) : NULL;
    if (!t) {
        enum status s = lp && twice ? E_CORRUPT : E_NOMEM;
        mem_free(lp);
        return s;
    }
    bool small = count / 2 <= lim->hash_max_listpack_entries;
    for (const uint8_t *at = lp_first(lp); small && at; at = lp_next(lp, at))
        small = lp_text_len(at) <= lim->hash_max_listpack_value;
    if (small) {
        tree_free(t);
        *out = entry_new_word(key, TYPE_HASH, ENC_LISTPACK, lp);
    } else {
        mem_free(lp);
        *out = entry_new_word(key, TYPE_HASH, ENC_HASHTABLE, t);
    }
    return OK;
}

struct bytes hash_listpack(const struct entry *e)
{
    assert(entry_enc(e) == ENC_LISTPACK);
    return lp_blob(entry_ptr(e));
}
