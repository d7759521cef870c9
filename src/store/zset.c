#include "store/zset.h"

#include "base/mem.h"
#include "base/number.h"
#include "base/random.h"
#include "store/listpack.h"
#include "store/sample.h"

#include <math.h>

static const struct bytes no_value = {NULL, 0};

static uint8_t *listpack_of(const struct entry *e)
{
    return entry_enc(e) == ENC_LISTPACK ? entry_ptr(e) : NULL;
}

static struct zset_trees *trees_of(const struct entry *e)
{
    assert(entry_type(e) == TYPE_ZSET && entry_enc(e) == ENC_SKIPLIST);
    return entry_ptr(e);
}

/* ---- both trees ---- */

static struct zset_trees *trees_new(void)
{
    struct zset_trees *z = mem_alloc(sizeof *z);
    tree_init(&z->by_member, TREE_ZMEMBER);
    tree_init(&z->by_score, TREE_ZSCORE);
    return z;
}

static void trees_free(struct zset_trees *z)
{
    tree_deinit(&z->by_member);
    tree_deinit(&z->by_score);
    mem_free(z);
}

static double score_read(struct bytes value)
{
    double score;
    assert(value.n == sizeof score);
    memcpy(&score, value.p, sizeof score);
    return score;
}

static bool trees_find(const struct zset_trees *z, struct bytes member, struct tree_pos *pos, double *score)
{
    struct tree_item item;
    if (!tree_find(&z->by_member, tree_hash_ord(member), member, pos)) return false;
    tree_item(&z->by_member, pos, &item);
    *score = score_read(item.value);
    return true;
}

/* The score of an element of by_score; whether a zero has a sign only by_member knows. */
static double item_score(const struct zset_trees *z, const struct tree_item *item)
{
    struct tree_pos pos;
    double score = tree_ord_score(item->ord);
    if (score == 0) trees_find(z, item->key, &pos, &score);
    return score;
}

/* Puts (score, member) into by_score, where it is not.  box (taken) holds the member or is NULL. */
static void by_score_put(struct zset_trees *z, double score, struct bytes member, struct tree_box *box)
{
    if (box) {
        tree_put_boxed(&z->by_score, tree_score_ord(score), box, no_value, NULL);
        return;
    }
    enum status s = tree_put(&z->by_score, tree_score_ord(score), member, no_value, NULL);
    assert(s == OK); /* only boxes can fail */
    (void)s;
}

/* Gives the element at pos of by_member another score. */
static void trees_update(struct zset_trees *z, struct tree_pos *pos, double old, double score)
{
    struct tree_item item;
    struct tree_box *box = tree_box_at(&z->by_member, pos);
    tree_set_value(&z->by_member, pos, bytes_make(&score, sizeof score));
    tree_item(&z->by_member, pos, &item);
    struct bytes member = item.key; /* by_member does not change from here on */
    tree_remove(&z->by_score, tree_score_ord(old), member);
    by_score_put(z, score, member, box);
}

static enum status trees_add(struct zset_trees *z, double score, struct bytes member, enum zset_change *change)
{
    struct tree_pos pos;
    double old;
    bool there = trees_find(z, member, &pos, &old);
    *change = !there ? ZSET_ADDED : old != score ? ZSET_UPDATED : ZSET_UNCHANGED;
    if (*change == ZSET_UNCHANGED) return OK;
    if (there) {
        trees_update(z, &pos, old, score);
        return OK;
    }
    struct bytes value = bytes_make(&score, sizeof score);
    struct tree_box *box = NULL;
    if (member.n > TREE_INLINE_MAX - sizeof score) { /* one box for both */
        box = tree_box_try_new(member, no_value);
        if (!box) return E_NOMEM;
        tree_put_boxed(&z->by_member, tree_hash_ord(member), tree_box_ref(box), value, NULL);
    } else {
        enum status s = tree_put(&z->by_member, tree_hash_ord(member), member, value, NULL);
        assert(s == OK); /* only boxes can fail */
        (void)s;
    }
    by_score_put(z, score, member, box);
    return OK;
}

static bool trees_remove(struct zset_trees *z, struct bytes member)
{
    struct tree_pos pos;
    double score;
    if (!trees_find(z, member, &pos, &score)) return false;
    bool there = tree_remove(&z->by_score, tree_score_ord(score), member);
    assert(there);
    (void)there;
    tree_remove_pos(&z->by_member, &pos);
    return true;
}

/* ---- listpack ---- */

static double lp_score(const uint8_t *at)
{
    int64_t v;
    double score;
    struct element el;
    if (lp_get_int(at, &v)) return (double)v;
    lp_get(at, &el);
    bool ok = parse_double(el.text, &score);
    assert(ok);
    (void)ok;
    return score;
}

/* Integral scores up to 2^62 are kept as integers, so that the listpack stores them in few bytes. */
static struct bytes score_text(double score, char text[NUMBER_TEXT_MAX])
{
    if (fabs(score) <= 4611686018427387904.0 && score == (double)(int64_t)score)
        return bytes_make(text, format_i64(text, (int64_t)score));
    return bytes_make(text, format_double(text, score));
}

/* The first pair above (score, member); NULL: the end. */
static const uint8_t *lp_place(const uint8_t *lp, double score, struct bytes member)
{
    struct element el;
    for (const uint8_t *at = lp_first(lp), *behind; at; at = lp_next(lp, behind)) {
        behind = lp_next(lp, at);
        double here = lp_score(behind);
        if (here > score) return at;
        if (here < score) continue;
        lp_get(at, &el);
        if (bytes_cmp(el.text, member) > 0) return at;
    }
    return NULL;
}

static bool lp_insert(uint8_t **lp, double score, struct bytes member)
{
    char text[NUMBER_TEXT_MAX];
    struct bytes pair[] = {member, score_text(score, text)};
    return lp_splice(lp, lp_place(*lp, score, member), 0, pair, 2);
}

/* Moves the pair at `at` to where its new score belongs.  All or nothing. */
static bool lp_update(uint8_t **lp, const uint8_t *at, double score)
{
    struct element member; /* stays in the old block */
    lp_get(at, &member);
    uint8_t *edited = lp_try_copy(lp_blob(*lp));
    if (!edited) return false;
    lp_delete(&edited, edited + (at - *lp), 2);
    if (!lp_insert(&edited, score, member.text)) {
        mem_free(edited);
        return false;
    }
    mem_free(*lp);
    *lp = edited;
    return true;
}

/* ---- encodings ---- */

struct entry *zset_new(struct bytes key, struct bytes first_member, const struct store_limits *lim)
{
    if (lim->zset_max_listpack_entries == 0 || first_member.n > lim->zset_max_listpack_value)
        return entry_new_word(key, TYPE_ZSET, ENC_SKIPLIST, trees_new());
    return entry_new_word(key, TYPE_ZSET, ENC_LISTPACK, lp_new());
}

enum load { LOAD_OK, LOAD_NOMEM, LOAD_TWICE };

static enum load trees_load(struct zset_trees *z, const uint8_t *lp)
{
    struct element el;
    enum zset_change change = ZSET_ADDED;
    for (const uint8_t *at = lp_first(lp), *behind; at; at = lp_next(lp, behind)) {
        behind = lp_next(lp, at);
        lp_get(at, &el);
        if (trees_add(z, lp_score(behind), el.text, &change) != OK) return LOAD_NOMEM;
        if (change != ZSET_ADDED) return LOAD_TWICE;
    }
    return LOAD_OK;
}

enum status zset_make_skiplist(struct entry *e)
{
    uint8_t *lp = listpack_of(e);
    if (!lp) return OK;
    struct zset_trees *z = trees_new();
    if (trees_load(z, lp) != LOAD_OK) {
        trees_free(z);
        return E_NOMEM;
    }
    mem_free(lp);
    entry_set_ptr(e, z);
    entry_set_enc(e, ENC_SKIPLIST);
    return OK;
}

enum status zset_make_listpack_if_small(struct entry *e, const struct store_limits *lim)
{
    struct zset_iter it;
    struct element member;
    char text[NUMBER_TEXT_MAX];
    double score;
    if (listpack_of(e) || zset_len(e) > lim->zset_max_listpack_entries) return OK;
    uint8_t *lp = lp_new();
    zset_iter_init(&it, e, 0, false);
    while (zset_iter_next(&it, &member, &score)) {
        struct bytes pair[] = {member.text, score_text(score, text)};
        bool too_long = member.text.n > lim->zset_max_listpack_value;
        if (!too_long && lp_splice(&lp, NULL, 0, pair, 2)) continue;
        mem_free(lp);
        return too_long ? OK : E_NOMEM;
    }
    trees_free(trees_of(e));
    entry_set_ptr(e, lp);
    entry_set_enc(e, ENC_LISTPACK);
    return OK;
}

/* ---- operations ---- */

size_t zset_score_text(const struct entry *e, double score, char *text)
{
    return listpack_of(e) ? score_text(score, text).n : format_double(text, score);
}

uint64_t zset_len(const struct entry *e)
{
    const uint8_t *lp = listpack_of(e);
    return lp ? lp_count(lp) / 2 : trees_of(e)->by_score.count;
}

bool zset_score(const struct entry *e, struct bytes member, double *score)
{
    double found;
    struct tree_pos pos;
    const uint8_t *lp = listpack_of(e);
    if (!lp) return trees_find(trees_of(e), member, &pos, score ? score : &found);
    const uint8_t *at = lp_find(lp, lp_first(lp), member, 1);
    if (at && score) *score = lp_score(lp_next(lp, at));
    return at != NULL;
}

enum status zset_add(struct entry *e, double score, struct bytes member, const struct store_limits *lim,
                     enum zset_change *change)
{
    enum zset_change unused;
    if (!change) change = &unused;
    if (isnan(score)) return E_INVALID;
    uint8_t *lp = listpack_of(e);
    const uint8_t *at = lp ? lp_find(lp, lp_first(lp), member, 1) : NULL;
    if (at) {
        *change = lp_score(lp_next(lp, at)) == score ? ZSET_UNCHANGED : ZSET_UPDATED;
        if (*change == ZSET_UPDATED && !lp_update(&lp, at, score)) return E_NOMEM;
        entry_set_ptr(e, lp);
        return OK;
    }
    if (lp && lp_count(lp) / 2 < lim->zset_max_listpack_entries && member.n <= lim->zset_max_listpack_value &&
        lp_insert(&lp, score, member)) {
        entry_set_ptr(e, lp);
        *change = ZSET_ADDED;
        return OK;
    }
    if (lp) {
        enum status s = zset_make_skiplist(e);
        if (s != OK) return s;
    }
    return trees_add(trees_of(e), score, member, change);
}

bool zset_remove(struct entry *e, struct bytes member)
{
    uint8_t *lp = listpack_of(e);
    if (!lp) return trees_remove(trees_of(e), member);
    const uint8_t *at = lp_find(lp, lp_first(lp), member, 1);
    if (!at) return false;
    lp_delete(&lp, at, 2);
    entry_set_ptr(e, lp);
    return true;
}

/* Rank of a member from the lowest. */
static bool rank_of(const struct entry *e, struct bytes member, uint64_t *rank, double *score)
{
    const uint8_t *lp = listpack_of(e);
    if (!lp) {
        struct tree_pos pos;
        if (!trees_find(trees_of(e), member, &pos, score)) return false;
        *rank = tree_rank_of(&trees_of(e)->by_score, tree_score_ord(*score), member);
        return true;
    }
    struct lp_needle needle = lp_needle(member);
    *rank = 0;
    for (const uint8_t *at = lp_first(lp), *behind; at; at = lp_next(lp, behind), ++*rank) {
        behind = lp_next(lp, at);
        if (!lp_equal(at, &needle)) continue;
        *score = lp_score(behind);
        return true;
    }
    return false;
}

bool zset_rank(const struct entry *e, struct bytes member, bool reverse, uint64_t *rank, double *score)
{
    double unused;
    if (!rank_of(e, member, rank, score ? score : &unused)) return false;
    if (reverse) *rank = zset_len(e) - 1 - *rank;
    return true;
}

/* ---- ranges ---- */

bool zset_lex_bound_parse(struct bytes text, struct lex_bound *bound)
{
    if (text.n == 0) return false;
    bound->text = bytes_make(text.p + 1, text.n - 1);
    switch (text.p[0]) {
    case '-': bound->kind = LEX_MIN; return text.n == 1;
    case '+': bound->kind = LEX_MAX; return text.n == 1;
    case '[': bound->kind = LEX_INCLUSIVE; return true;
    case '(': bound->kind = LEX_EXCLUSIVE; return true;
    default: return false;
    }
}

static bool score_above_min(double score, const struct zset_score_range *range)
{
    return range->min_exclusive ? score > range->min : score >= range->min;
}

static bool score_below_max(double score, const struct zset_score_range *range)
{
    return range->max_exclusive ? score < range->max : score <= range->max;
}

static void close_range(uint64_t *first, uint64_t *end)
{
    if (*end < *first) *end = *first;
}

void zset_ranks_by_score(const struct entry *e, const struct zset_score_range *range, uint64_t *first, uint64_t *end)
{
    const uint8_t *lp = listpack_of(e);
    *first = *end = 0;
    if (!lp) {
        const struct tree *t = &trees_of(e)->by_score;
        *first = tree_rank_of(t, tree_score_ord(range->min) + range->min_exclusive, no_value);
        *end = tree_rank_of(t, tree_score_ord(range->max) + !range->max_exclusive, no_value);
    } else {
        for (const uint8_t *at = lp_first(lp), *behind; at; at = lp_next(lp, behind)) {
            behind = lp_next(lp, at);
            double score = lp_score(behind);
            if (!score_above_min(score, range)) ++*first;
            if (!score_below_max(score, range)) break;
            ++*end;
        }
    }
    close_range(first, end);
}

static bool lex_above_min(struct bytes text, const struct lex_bound *min)
{
    if (min->kind == LEX_MIN || min->kind == LEX_MAX) return min->kind == LEX_MIN;
    int cmp = bytes_cmp(text, min->text);
    return cmp > 0 || (cmp == 0 && min->kind == LEX_INCLUSIVE);
}

static bool lex_below_max(struct bytes text, const struct lex_bound *max)
{
    if (max->kind == LEX_MIN || max->kind == LEX_MAX) return max->kind == LEX_MAX;
    int cmp = bytes_cmp(text, max->text);
    return cmp < 0 || (cmp == 0 && max->kind == LEX_INCLUSIVE);
}

/* Members of the tree in front of the bound; count_equal: and one that equals it. */
static uint64_t lex_rank(const struct tree *t, const struct lex_bound *bound, bool count_equal)
{
    struct tree_pos pos;
    struct tree_item item;
    if (bound->kind == LEX_MIN || t->count == 0) return 0;
    if (bound->kind == LEX_MAX) return t->count;
    tree_at(t, 0, &pos);
    tree_item(t, &pos, &item);
    uint64_t ord = item.ord;
    if (!tree_lower_bound(t, ord, bound->text, &pos)) return t->count;
    tree_item(t, &pos, &item);
    return tree_rank(&pos) + (count_equal && item.ord == ord && bytes_eq(item.key, bound->text));
}

void zset_ranks_by_lex(const struct entry *e, const struct zset_lex_range *range, uint64_t *first, uint64_t *end)
{
    const uint8_t *lp = listpack_of(e);
    *first = *end = 0;
    if (!lp) {
        const struct tree *t = &trees_of(e)->by_score;
        *first = lex_rank(t, &range->min, range->min.kind == LEX_EXCLUSIVE);
        *end = lex_rank(t, &range->max, range->max.kind == LEX_INCLUSIVE);
    } else {
        struct element el;
        bool inside = false;
        for (const uint8_t *at = lp_first(lp); at; at = lp_next(lp, lp_next(lp, at))) {
            lp_get(at, &el);
            if (!inside && !lex_above_min(el.text, &range->min))
                ++*first;
            else
                inside = true;
            if (inside && !lex_below_max(el.text, &range->max)) break;
            ++*end;
        }
    }
    close_range(first, end);
}

void zset_remove_ranks(struct entry *e, uint64_t first, uint64_t end)
{
    uint8_t *lp = listpack_of(e);
    assert(end <= zset_len(e));
    if (first >= end) return;
    if (lp) {
        lp_delete(&lp, lp_seek(lp, (int64_t)first * 2), (end - first) * 2);
        entry_set_ptr(e, lp);
        return;
    }
    struct zset_trees *z = trees_of(e);
    for (uint64_t n = end - first; n > 0; n--) {
        struct tree_pos pos;
        struct tree_item item;
        tree_at(&z->by_score, first, &pos);
        tree_item(&z->by_score, &pos, &item);
        tree_remove(&z->by_member, tree_hash_ord(item.key), item.key);
        tree_remove_pos(&z->by_score, &pos);
    }
}

/* ---- walks ---- */

void zset_iter_init(struct zset_iter *it, const struct entry *e, uint64_t rank, bool reverse)
{
    const uint8_t *lp = listpack_of(e);
    it->e = e;
    it->reverse = reverse;
    it->ready = rank < zset_len(e);
    it->at = NULL;
    if (!it->ready) return;
    if (lp)
        it->at = lp_seek(lp, (int64_t)rank * 2);
    else
        tree_at(&trees_of(e)->by_score, rank, &it->pos);
}

bool zset_iter_next(struct zset_iter *it, struct element *member, double *score)
{
    if (!it->ready) return false;
    const uint8_t *lp = listpack_of(it->e);
    if (lp) {
        const uint8_t *at = it->at, *behind = lp_next(lp, at);
        if (member) lp_get(at, member);
        if (score) *score = lp_score(behind);
        it->at = it->reverse ? lp_prev(lp, at) : lp_next(lp, behind);
        if (it->reverse && it->at) it->at = lp_prev(lp, it->at);
        it->ready = it->at != NULL;
        return true;
    }
    if (member) member->text = tree_key(&it->pos);
    if (score) {
        struct tree_item item;
        const struct zset_trees *z = trees_of(it->e);
        tree_item(&z->by_score, &it->pos, &item);
        *score = item_score(z, &item);
    }
    it->ready = it->reverse ? tree_prev(&it->pos) : tree_next(&it->pos);
    return true;
}

void zset_at(const struct entry *e, uint64_t rank, struct element *member, double *score)
{
    struct zset_iter it;
    assert(rank < zset_len(e));
    zset_iter_init(&it, e, rank, false);
    zset_iter_next(&it, member, score);
}

struct forward {
    zset_fn *emit;
    void *ctx;
};

static void forward_item(void *ctx, struct bytes key, struct bytes value)
{
    struct forward *f = ctx;
    f->emit(f->ctx, key, score_read(value));
}

uint64_t zset_scan(const struct entry *e, uint64_t cursor, size_t count, zset_fn *emit, void *ctx)
{
    struct zset_iter it;
    struct element member;
    double score;
    if (!listpack_of(e))
        return tree_scan(&trees_of(e)->by_member, cursor, count, forward_item, &(struct forward){emit, ctx});
    zset_iter_init(&it, e, 0, false);
    while (zset_iter_next(&it, &member, &score)) emit(ctx, member.text, score);
    return 0;
}

void zset_random(const struct entry *e, struct random *rng, struct element *member, double *score)
{
    zset_at(e, random_below(rng, zset_len(e)), member, score);
}

void zset_sample(const struct entry *e, struct random *rng, uint64_t n, zset_fn *emit, void *ctx)
{
    struct sample s;
    struct zset_iter it;
    struct element member = {.text = {NULL, 0}};
    double score = 0;
    uint64_t rank, at = 0;
    zset_iter_init(&it, e, 0, false);
    sample_init(&s, rng, zset_len(e), n);
    while (sample_next(&s, &rank)) {
        if (s.picked) {
            zset_at(e, rank, &member, &score);
        } else {
            for (; at <= rank; at++) zset_iter_next(&it, &member, &score);
        }
        emit(ctx, member.text, score);
    }
    sample_deinit(&s);
}

/* ---- loading and saving ---- */

static bool scores_are_numbers(const uint8_t *lp)
{
    double score;
    struct element el;
    for (const uint8_t *at = lp_first(lp), *behind; at; at = lp_next(lp, behind)) {
        behind = lp_next(lp, at);
        lp_get(behind, &el);
        if (!parse_double(el.text, &score)) return false;
    }
    return true;
}

static bool fits_listpack(const uint8_t *lp, const struct store_limits *lim)
{
    if (lp_count(lp) / 2 > lim->zset_max_listpack_entries) return false;
    for (const uint8_t *at = lp_first(lp); at; at = lp_next(lp, lp_next(lp, at)))
        if (lp_text_len(at) > lim->zset_max_listpack_value) return false;
    return true;
}

static bool is_sorted(const uint8_t *lp)
{
    struct element el[2];
    double before = 0;
    unsigned i = 0;
    for (const uint8_t *at = lp_first(lp), *behind; at; at = lp_next(lp, behind), i++) {
        behind = lp_next(lp, at);
        double score = lp_score(behind);
        lp_get(at, &el[i & 1]);
        if (i > 0 && (score < before || (score == before && bytes_cmp(el[~i & 1].text, el[i & 1].text) >= 0)))
            return false;
        before = score;
    }
    return true;
}

/* The same elements in order; NULL when memory is out. */
static uint8_t *listpack_from_trees(const struct zset_trees *z)
{
    uint8_t *lp = lp_new();
    struct tree_pos pos;
    struct tree_item item;
    char text[NUMBER_TEXT_MAX];
    for (bool more = tree_at(&z->by_score, 0, &pos); more; more = tree_next(&pos)) {
        tree_item(&z->by_score, &pos, &item);
        struct bytes pair[] = {item.key, score_text(tree_ord_score(item.ord), text)};
        if (!lp_splice(&lp, NULL, 0, pair, 2)) {
            mem_free(lp);
            return NULL;
        }
    }
    return lp;
}

/* Takes lp, which is valid, and z, which holds the same elements. */
static enum status entry_from(struct bytes key, uint8_t *lp, struct zset_trees *z, const struct store_limits *lim,
                              struct entry **out)
{
    if (!fits_listpack(lp, lim)) {
        mem_free(lp);
        *out = entry_new_word(key, TYPE_ZSET, ENC_SKIPLIST, z);
        return OK;
    }
    if (!is_sorted(lp)) {
        mem_free(lp);
        lp = listpack_from_trees(z);
    }
    trees_free(z);
    if (!lp) return E_NOMEM;
    *out = entry_new_word(key, TYPE_ZSET, ENC_LISTPACK, lp);
    return OK;
}

enum status zset_from_listpack(struct bytes key, struct bytes blob, const struct store_limits *lim, struct entry **out)
{
    size_t count;
    if (!lp_is_valid(blob, &count) || count % 2) return E_CORRUPT;
    if (count == 0) return E_NOT_FOUND;
    if (!scores_are_numbers((const uint8_t *)blob.p)) return E_CORRUPT;
    uint8_t *lp = lp_try_copy(blob);
    if (!lp) return E_NOMEM;
    struct zset_trees *z = trees_new();
    enum load loaded = trees_load(z, lp);
    if (loaded == LOAD_OK) return entry_from(key, lp, z, lim, out);
    trees_free(z);
    mem_free(lp);
    return loaded == LOAD_TWICE ? E_CORRUPT : E_NOMEM;
}

struct bytes zset_listpack(const struct entry *e)
{
    assert(entry_enc(e) == ENC_LISTPACK);
    return lp_blob(entry_ptr(e));
}
