#include "store/zset.h"

#include "base/mem.h"
#include "base/unit_test.h"
#include "store/listpack.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const struct store_limits *const defaults = &store_limits_default;
static const struct store_limits trees_only = {.zset_max_listpack_entries = 0};

static void add(struct entry *e, double score, const char *member)
{
    assert_int_equal(zset_add(e, score, bytes_of(member), defaults, NULL), OK);
}

static void bytes_are_redis(void **state)
{
    (void)state;
    struct entry *e = zset_new(BYTES("k"), BYTES("a"), defaults);
    add(e, 2.5, "b");
    add(e, -INFINITY, "c");
    add(e, 7, "a");
    add(e, 1, "a");
    assert_bytes(zset_listpack(e), "1d000000 0600 816302 842d696e6605 816102 0101 816202 83322e3504 ff");
    entry_free(e);
    /* As redis-server 7.0.15 dumps it: integral scores up to 2^62 are integers, minus zero is zero. */
    e = zset_new(BYTES("k"), BYTES("a"), defaults);
    add(e, -0.0, "a");
    add(e, 4503599627370497, "b");
    add(e, 1e18, "c");
    add(e, 4611686018427387904, "d");
    add(e, -4611686018427387904, "e");
    add(e, 4611686018427388928, "f");
    add(e, 5e18, "g");
    add(e, 3, "h");
    add(e, 0.1, "i");
    add(e, INFINITY, "j");
    add(e, -INFINITY, "k");
    add(e, 1e300, "l");
    assert_bytes(zset_listpack(e),
                 "af000000 1800 816b02 842d696e6605 816502 f400000000000000c009 816102 0001 816902 "
                 "93302e31303030303030303030303030303030 3114 816802 0301 816202 f4010000000000100009 816302 "
                 "f4000064a7b3b6e00d09 816402 f4000000000000004009 816602 96342e363131363836303138343237333838 "
                 "39652b313817 816702 8535652b313806 816c02 97312e30303030303030303030303030303031652b33303018 "
                 "816a02 83696e6604 ff");
    double score;
    assert_true(zset_score(e, BYTES("i"), &score) && score == 0.1);
    entry_free(e);
}

static void there_and_back(void **state)
{
    (void)state;
    double score;
    struct store_limits lim = *defaults;
    struct entry *e = zset_new(BYTES("k"), BYTES("a"), defaults);
    add(e, 1.5, "b");
    add(e, 2, "a");
    add(e, -INFINITY, "long one");
    assert_int_equal(zset_make_skiplist(e), OK);
    assert_int_equal(entry_enc(e), ENC_SKIPLIST);
    assert_int_equal(zset_make_skiplist(e), OK);
    add(e, -0.0, "z");
    assert_true(zset_len(e) == 4 && zset_score(e, BYTES("z"), &score) && signbit(score));
    lim.zset_max_listpack_entries = 3;
    assert_int_equal(zset_make_listpack_if_small(e, &lim), OK);
    assert_int_equal(entry_enc(e), ENC_SKIPLIST);
    lim = (struct store_limits){.zset_max_listpack_entries = 4, .zset_max_listpack_value = 7};
    assert_int_equal(zset_make_listpack_if_small(e, &lim), OK);
    assert_int_equal(entry_enc(e), ENC_SKIPLIST);
    lim.zset_max_listpack_value = 8;
    assert_int_equal(zset_make_listpack_if_small(e, &lim), OK);
    assert_int_equal(entry_enc(e), ENC_LISTPACK);
    assert_int_equal(zset_make_listpack_if_small(e, &lim), OK);
    assert_bytes(zset_listpack(e),
                 "29000000 0800 886c6f6e67206f6e6509 842d696e6605 817a02 0001 816202 83312e3504 816102 0201 ff");
    entry_free(e);
}

static void encodings(void **state)
{
    (void)state;
    char text[80];
    memset(text, 'x', sizeof text);
    struct entry *e = zset_new(BYTES("k"), bytes_make(text, 65), defaults);
    assert_int_equal(entry_enc(e), ENC_SKIPLIST);
    entry_free(e);
    e = zset_new(BYTES("k"), bytes_make(text, 64), defaults);
    assert_int_equal(zset_add(e, 1, bytes_make(text, 64), defaults, NULL), OK);
    assert_int_equal(entry_enc(e), ENC_LISTPACK);
    assert_int_equal(zset_add(e, 1, bytes_make(text, 65), defaults, NULL), OK);
    assert_int_equal(entry_enc(e), ENC_SKIPLIST);
    entry_free(e);
    e = zset_new(BYTES("k"), BYTES("a"), defaults);
    for (int i = 0; i < 129; i++) {
        assert_int_equal(entry_enc(e), ENC_LISTPACK);
        snprintf(text, sizeof text, "m%d", i);
        add(e, 1, text);
    }
    assert_int_equal(entry_enc(e), ENC_SKIPLIST);
    assert_int_equal(zset_len(e), 129);
    assert_int_equal(zset_add(e, NAN, BYTES("n"), defaults, NULL), E_INVALID);
    entry_free(e);
    /* In a tree a zero keeps its sign. */
    e = zset_new(BYTES("k"), BYTES("a"), &trees_only);
    double score;
    assert_int_equal(zset_add(e, -0.0, BYTES("a"), &trees_only, NULL), OK);
    assert_true(zset_score(e, BYTES("a"), &score) && signbit(score));
    zset_at(e, 0, &(struct element){.text = {NULL, 0}}, &score);
    assert_true(signbit(score));
    enum zset_change change;
    assert_int_equal(zset_add(e, 0.0, BYTES("a"), &trees_only, &change), OK);
    assert_int_equal(change, ZSET_UNCHANGED);
    entry_free(e);
}

static void blobs_from_outside(void **state)
{
    (void)state;
    char room[128];
    size_t before = mem_used();
    struct entry *e;
    struct bytes good = unhex("1d000000 0600 816302 842d696e6605 816102 0101 816202 83322e3504 ff", room);
    assert_int_equal(zset_from_listpack(BYTES("k"), good, defaults, &e), OK);
    assert_true(bytes_eq(zset_listpack(e), good));
    entry_free(e);
    struct store_limits tight = {.zset_max_listpack_entries = 2, .zset_max_listpack_value = 64};
    assert_int_equal(zset_from_listpack(BYTES("k"), good, &tight, &e), OK);
    assert_int_equal(entry_enc(e), ENC_SKIPLIST);
    entry_free(e);
    /* b=2.5 in front of a=1 */
    struct bytes unsorted = unhex("15000000 0400 816202 83322e3504 816102 0101 ff", room);
    unsorted.p = memcpy(room, unsorted.p, unsorted.n);
    room[0] = (char)unsorted.n;
    assert_int_equal(zset_from_listpack(BYTES("k"), unsorted, defaults, &e), OK);
    assert_bytes(zset_listpack(e), "14000000 0400 816102 0101 816202 83322e3504 ff");
    entry_free(e);
    const char *bad[] = {"11000000 0400 816102 0101 816102 0201 ff", "0c000000 0200 816102 816202 ff",
                         "0f000000 0200 816102 836e616e04 ff", "0a000000 0100 816102 ff"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct bytes blob = unhex(bad[i], room);
        room[0] = (char)blob.n;
        assert_int_equal(zset_from_listpack(BYTES("k"), blob, defaults, &e), E_CORRUPT);
    }
    assert_int_equal(mem_used(), before);
}

static void bounds(void **state)
{
    (void)state;
    struct lex_bound b;
    assert_true(zset_lex_bound_parse(BYTES("-"), &b) && b.kind == LEX_MIN);
    assert_true(zset_lex_bound_parse(BYTES("("), &b) && b.kind == LEX_EXCLUSIVE && b.text.n == 0);
    assert_true(zset_lex_bound_parse(BYTES("[ab"), &b) && b.kind == LEX_INCLUSIVE && b.text.n == 2);
    assert_false(zset_lex_bound_parse(BYTES("+x"), &b));
    assert_false(zset_lex_bound_parse(BYTES("ab"), &b));
    assert_false(zset_lex_bound_parse(BYTES(""), &b));
}

/* The model: rows sorted by (score, member); names are texts of the row's id. */
enum { NAMES = 1200 };
struct row {
    double score;
    uint32_t id;
};
struct model {
    struct row row[NAMES];
    size_t n;
};

static struct bytes name_of(uint32_t id, char *room)
{
    size_t n = (size_t)sprintf(room, id % 3 ? "%u" : "name:%u:", id);
    size_t more = id % 100 == 0 ? 3000 : id % 3 ? 0 : id % 40;
    memset(room + n, 'n', more);
    return bytes_make(room, n + more);
}

static int row_compare(const void *a, const void *b)
{
    static char rooms[2][4000];
    const struct row *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? -1 : 1;
    return bytes_cmp(name_of(x->id, rooms[0]), name_of(y->id, rooms[1]));
}

static size_t model_index(const struct model *m, uint32_t id)
{
    size_t i = 0;
    while (i < m->n && m->row[i].id != id) i++;
    return i;
}

static void model_remove(struct model *m, size_t first, size_t end)
{
    memmove(m->row + first, m->row + end, (m->n - end) * sizeof *m->row);
    m->n -= end - first;
}

static void assert_row(const struct row *row, struct bytes member, double score)
{
    char room[4000];
    assert_true(row->score == score);
    assert_true(bytes_eq(member, name_of(row->id, room)));
}

struct tally {
    const struct model *m;
    unsigned char seen[NAMES];
    size_t n;
};

static void tally_one(void *ctx, struct bytes member, double score)
{
    struct tally *t = ctx;
    char text[16] = {0}; /* with an end, which the member does not have */
    memcpy(text, member.p, member.n < 15 ? member.n : 15);
    uint32_t id = (uint32_t)strtoul(text + (text[0] == 'n' ? 5 : 0), NULL, 10);
    size_t i = model_index(t->m, id);
    assert_true(i < t->m->n && !t->seen[id]);
    assert_row(&t->m->row[i], member, score);
    t->seen[id] = 1;
    t->n++;
}

static void same(const struct entry *e, const struct model *m, struct random *r)
{
    struct zset_iter it;
    struct element member;
    double score;
    assert_int_equal(zset_len(e), m->n);
    size_t from = random_below(r, m->n + 1), i = from;
    for (zset_iter_init(&it, e, from, false); zset_iter_next(&it, &member, &score); i++)
        assert_row(&m->row[i], member.text, score);
    assert_int_equal(i, m->n);
    from = random_below(r, m->n + 1);
    i = from == m->n ? 0 : from + 1;
    for (zset_iter_init(&it, e, from, true); zset_iter_next(&it, &member, &score);)
        assert_row(&m->row[--i], member.text, score);
    assert_int_equal(i, 0);
    struct tally t = {.m = m};
    uint64_t cursor = 0;
    do cursor = zset_scan(e, cursor, 5, tally_one, &t);
    while (cursor);
    assert_int_equal(t.n, m->n);
    t = (struct tally){.m = m};
    uint64_t want = random_below(r, NAMES);
    zset_sample(e, r, want, tally_one, &t);
    assert_int_equal(t.n, want < m->n ? want : m->n);
    if (entry_enc(e) == ENC_LISTPACK) {
        assert_true(lp_is_valid(zset_listpack(e), NULL));
        return;
    }
    const struct zset_trees *z = entry_ptr(e);
    assert_true(tree_is_valid(&z->by_member) && tree_is_valid(&z->by_score));
    assert_int_equal(z->by_member.count, z->by_score.count);
}

static void score_ranges(const struct entry *e, const struct model *m, struct random *r, uint64_t *first, uint64_t *end)
{
    struct zset_score_range range = {.min = (double)random_below(r, 22) - 11,
                                     .max = (double)random_below(r, 22) - 11,
                                     .min_exclusive = random_below(r, 2),
                                     .max_exclusive = random_below(r, 2)};
    if (random_below(r, 8) == 0) range.min = -INFINITY;
    if (random_below(r, 8) == 0) range.max = INFINITY;
    zset_ranks_by_score(e, &range, first, end);
    size_t inside = 0;
    for (size_t i = 0; i < m->n; i++) {
        double s = m->row[i].score;
        bool in = (range.min_exclusive ? s > range.min : s >= range.min) &&
                  (range.max_exclusive ? s < range.max : s <= range.max);
        assert_int_equal(in, i >= *first && i < *end);
        inside += in;
    }
    assert_int_equal(*end - *first, inside);
}

static void change(struct entry *e, struct model *m, struct random *r, const struct store_limits *lim, bool growing)
{
    char room[4000];
    uint32_t id = (uint32_t)random_below(r, NAMES);
    struct bytes name = name_of(id, room);
    size_t i = model_index(m, id);
    double score = (double)random_below(r, 20) - 10 + (random_below(r, 4) ? 0 : 0.25);
    uint64_t first, end;
    if (random_below(r, 10) < (growing ? 8 : 3)) {
        enum zset_change changed;
        struct element own;
        if (i < m->n && random_below(r, 2)) { /* an update with the name borrowed from the value itself */
            zset_at(e, i, &own, NULL);
            name = own.text;
        }
        assert_int_equal(zset_add(e, score, name, lim, &changed), OK);
        assert_int_equal(changed, i == m->n ? ZSET_ADDED : m->row[i].score == score ? ZSET_UNCHANGED : ZSET_UPDATED);
        if (i == m->n) m->n++;
        m->row[i] = (struct row){score, id};
        qsort(m->row, m->n, sizeof *m->row, row_compare);
    } else if (random_below(r, 12)) {
        assert_int_equal(zset_remove(e, name), i < m->n);
        if (i < m->n) model_remove(m, i, i + 1);
    } else {
        if (random_below(r, 20) == 0) {
            score_ranges(e, m, r, &first, &end);
        } else {
            first = random_below(r, m->n + 1);
            end = first + random_below(r, 6);
            if (end > m->n) end = m->n;
        }
        zset_remove_ranks(e, first, end);
        model_remove(m, first, end);
    }
}

static void look_up(const struct entry *e, const struct model *m, struct random *r)
{
    char room[4000];
    uint32_t id = (uint32_t)random_below(r, NAMES);
    size_t i = model_index(m, id);
    struct bytes name = name_of(id, room);
    uint64_t rank, first, end;
    double score;
    assert_int_equal(zset_score(e, name, &score), i < m->n);
    if (i < m->n) {
        assert_true(score == m->row[i].score);
        assert_true(zset_rank(e, name, false, &rank, NULL) && rank == i);
        assert_true(zset_rank(e, name, true, &rank, &score) && rank == m->n - 1 - i && score == m->row[i].score);
    } else {
        assert_false(zset_rank(e, name, false, &rank, NULL));
    }
    score_ranges(e, m, r, &first, &end);
}

static void run(const struct store_limits *lim, uint64_t seed, int steps)
{
    struct random r;
    static struct model m, forked;
    struct entry *e = zset_new(BYTES("key"), BYTES("1"), lim), *fork = NULL;
    random_seed(&r, seed);
    m.n = 0;
    for (int step = 0; step < steps; step++) {
        change(e, &m, &r, lim, step / (steps / 4) % 2 == 0);
        if (step % 3 == 0) look_up(e, &m, &r);
        if (step % 150 == 0) same(e, &m, &r);
        if (step % 500 == 250) {
            if (fork) {
                same(fork, &forked, &r);
                entry_free(fork);
            }
            fork = entry_fork(e);
            forked = m;
        }
    }
    same(e, &m, &r);
    if (fork) {
        same(fork, &forked, &r);
        entry_free(fork);
    }
    entry_free(e);
}

static void against_model(void **state)
{
    (void)state;
    uint64_t seed = seed_of_run();
    size_t before = mem_used();
    struct store_limits wide = {.zset_max_listpack_entries = 2000, .zset_max_listpack_value = 10000};
    run(defaults, seed, 3000);
    run(&trees_only, seed + 1, 3000);
    run(&wide, seed + 2, 800);
    assert_int_equal(mem_used(), before);
}

static bool lex_in(struct bytes text, const struct zset_lex_range *range)
{
    int low = bytes_cmp(text, range->min.text), high = bytes_cmp(text, range->max.text);
    bool above = range->min.kind == LEX_MIN || (range->min.kind == LEX_INCLUSIVE && low >= 0) ||
                 (range->min.kind == LEX_EXCLUSIVE && low > 0);
    bool below = range->max.kind == LEX_MAX || (range->max.kind == LEX_INCLUSIVE && high <= 0) ||
                 (range->max.kind == LEX_EXCLUSIVE && high < 0);
    return above && below;
}

static void lex_ranges(void **state)
{
    (void)state;
    uint64_t seed = seed_of_run(), first, end;
    struct random r;
    random_seed(&r, seed);
    for (int n = 0; n < 3000; n = n * 3 + 1) {
        for (int kind = 0; kind < 2; kind++) {
            struct store_limits lim = {.zset_max_listpack_entries = kind ? 0 : 10000, .zset_max_listpack_value = 64};
            struct entry *e = zset_new(BYTES("k"), BYTES(""), &lim);
            char text[2][8];
            for (int i = 0; i < n; i++) {
                int len = sprintf(text[0], "%lu", (unsigned long)random_below(&r, 5000));
                assert_int_equal(zset_add(e, 0, bytes_make(text[0], (size_t)len), &lim, NULL), OK);
            }
            for (int i = 0; i < 200; i++) {
                struct zset_lex_range range;
                struct lex_bound *both[] = {&range.min, &range.max};
                for (int b = 0; b < 2; b++) {
                    int len = sprintf(text[b], "%lu", (unsigned long)random_below(&r, 5000));
                    both[b]->kind = (enum lex_kind)random_below(&r, 4);
                    both[b]->text = bytes_make(text[b], (size_t)len);
                }
                zset_ranks_by_lex(e, &range, &first, &end);
                struct zset_iter it;
                struct element member;
                uint64_t rank = 0, inside = 0;
                for (zset_iter_init(&it, e, 0, false); zset_iter_next(&it, &member, NULL); rank++) {
                    assert_int_equal(lex_in(member.text, &range), rank >= first && rank < end);
                    inside += lex_in(member.text, &range);
                }
                assert_int_equal(end - first, inside);
            }
            entry_free(e);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_redis),    cmocka_unit_test(there_and_back), cmocka_unit_test(encodings),
        cmocka_unit_test(blobs_from_outside), cmocka_unit_test(bounds),         cmocka_unit_test(against_model),
        cmocka_unit_test(lex_ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
