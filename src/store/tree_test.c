#include "store/tree.h"

#include "base/hash.h"
#include "base/mem.h"
#include "base/unit_test.h"
#include "store/sample.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static const struct bytes nothing = {NULL, 0};

/* The model: a sorted array of elements, in memory that mem_used() does not see. */
struct row {
    uint64_t ord;
    struct bytes key, value;
};
struct model {
    struct row *row;
    size_t n, cap;
};

static struct bytes kept(struct bytes b)
{
    char *p = malloc(b.n + 1);
    if (b.n) memcpy(p, b.p, b.n);
    return bytes_make(p, b.n);
}

static void row_drop(struct row *row)
{
    free((void *)(uintptr_t)row->key.p);
    free((void *)(uintptr_t)row->value.p);
}

static size_t model_lower(const struct model *m, uint64_t ord, struct bytes key)
{
    size_t low = 0, high = m->n;
    while (low < high) {
        size_t mid = (low + high) / 2;
        const struct row *row = &m->row[mid];
        bool below = row->ord != ord ? row->ord < ord : bytes_cmp(row->key, key) < 0;
        if (below)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static bool model_has(const struct model *m, size_t i, uint64_t ord, struct bytes key)
{
    return i < m->n && m->row[i].ord == ord && bytes_eq(m->row[i].key, key);
}

static bool model_put(struct model *m, uint64_t ord, struct bytes key, struct bytes value)
{
    size_t i = model_lower(m, ord, key);
    if (model_has(m, i, ord, key)) {
        free((void *)(uintptr_t)m->row[i].value.p);
        m->row[i].value = kept(value);
        return false;
    }
    if (m->n == m->cap) m->row = realloc(m->row, (m->cap = m->cap * 2 + 16) * sizeof *m->row);
    memmove(m->row + i + 1, m->row + i, (m->n++ - i) * sizeof *m->row);
    m->row[i] = (struct row){ord, kept(key), kept(value)};
    return true;
}

static void model_remove_at(struct model *m, size_t i)
{
    row_drop(&m->row[i]);
    memmove(m->row + i, m->row + i + 1, (--m->n - i) * sizeof *m->row);
}

static struct model model_copy(const struct model *m)
{
    struct model copy = {.row = malloc((m->n + 1) * sizeof *m->row), .n = m->n, .cap = m->n};
    for (size_t i = 0; i < m->n; i++)
        copy.row[i] = (struct row){m->row[i].ord, kept(m->row[i].key), kept(m->row[i].value)};
    return copy;
}

static void model_deinit(struct model *m)
{
    for (size_t i = 0; i < m->n; i++) row_drop(&m->row[i]);
    free(m->row);
    *m = (struct model){0};
}

static void assert_same(const struct tree *t, const struct model *m)
{
    struct tree_pos pos;
    struct tree_item item;
    assert_true(tree_is_valid(t));
    assert_int_equal(t->count, m->n);
    bool more = tree_at(t, 0, &pos);
    for (size_t i = 0; i < m->n; i++, more = tree_next(&pos)) {
        assert_true(more);
        tree_item(t, &pos, &item);
        assert_true(item.ord == m->row[i].ord && bytes_eq(item.key, m->row[i].key));
        assert_true(bytes_eq(item.value, m->row[i].value));
        assert_int_equal(tree_rank(&pos), i);
    }
    assert_false(more);
    more = m->n > 0 && tree_at(t, m->n - 1, &pos);
    for (size_t i = m->n; i-- > 0; more = tree_prev(&pos)) {
        tree_item(t, &pos, &item);
        assert_true(more && bytes_eq(item.key, m->row[i].key));
    }
    assert_false(more);
}

struct draw {
    struct row row;
    char key[6000], value[6000];
};

/* Keys come from a space small enough that they meet again; a few are longer than what fits in a leaf. */
static void draw(struct random *r, enum tree_kind kind, unsigned space, struct draw *d)
{
    uint64_t id = random_below(r, space);
    size_t n = (size_t)snprintf(d->key, sizeof d->key, "%lu", (unsigned long)id), more = 0;
    if (id % 5 == 1) more = id % 300;
    if (id % 50 == 2) more = 500 + id % 600;
    if (id % 200 == 3) more = 1000 + id % 4000;
    if (id == 0) n = 0;
    memset(d->key + n, 'k', more);
    d->row.key = bytes_make(d->key, n + more);
    d->row.value = nothing;
    if (kind == TREE_HASH) {
        size_t vn = random_below(r, 10) ? random_below(r, 40) : random_below(r, 5000);
        memset(d->value, (int)('a' + random_below(r, 26)), vn);
        d->row.value = bytes_make(d->value, vn);
    } else if (kind == TREE_ZMEMBER) {
        double score = (double)random_below(r, 1000);
        d->row.value = bytes_make(memcpy(d->value, &score, sizeof score), sizeof score);
    }
    d->row.ord = kind == TREE_ZSCORE ? tree_score_ord((double)random_below(r, 4) - 2) : tree_hash_ord(d->row.key);
}

static void look_up(const struct tree *t, const struct model *m, const struct draw *d, struct random *r)
{
    struct tree_pos pos;
    struct tree_item item;
    size_t i = model_lower(m, d->row.ord, d->row.key);
    assert_int_equal(tree_find(t, d->row.ord, d->row.key, &pos), model_has(m, i, d->row.ord, d->row.key));
    assert_int_equal(tree_lower_bound(t, d->row.ord, d->row.key, &pos), i < m->n);
    assert_int_equal(tree_rank_of(t, d->row.ord, d->row.key), i);
    if (i < m->n) assert_int_equal(tree_rank(&pos), i);
    if (m->n == 0) return;
    i = random_below(r, m->n);
    assert_true(tree_at(t, i, &pos));
    tree_item(t, &pos, &item);
    assert_true(bytes_eq(item.key, m->row[i].key) && bytes_eq(item.value, m->row[i].value));
}

enum { FORKS = 4 };
struct forked {
    struct tree t;
    struct model m;
    bool used;
};

static void fork_or_check(struct forked *f, const struct tree *t, const struct model *m)
{
    if (f->used) {
        assert_same(&f->t, &f->m);
        tree_deinit(&f->t);
        model_deinit(&f->m);
    } else {
        tree_fork(t, &f->t);
        f->m = model_copy(m);
    }
    f->used = !f->used;
}

/* Phases of growing and shrinking, with forks taken and checked on the way. */
static void run_model(enum tree_kind kind, uint64_t seed)
{
    struct random r;
    struct tree t;
    struct model m = {0};
    struct forked forks[FORKS] = {0};
    static struct draw d;
    size_t before = mem_used();
    random_seed(&r, seed);
    tree_init(&t, kind);
    for (int step = 0; step < 24000; step++) {
        bool growing = step / 4000 % 2 == 0;
        draw(&r, kind, 6000, &d);
        bool added;
        size_t i = model_lower(&m, d.row.ord, d.row.key);
        if (random_below(&r, 10) < (growing ? 9 : 2)) {
            assert_int_equal(tree_put(&t, d.row.ord, d.row.key, d.row.value, &added), OK);
            assert_int_equal(model_put(&m, d.row.ord, d.row.key, d.row.value), added);
        } else if (m.n && random_below(&r, 3)) {
            i = random_below(&r, m.n);
            tree_remove_at(&t, i);
            model_remove_at(&m, i);
        } else {
            assert_int_equal(tree_remove(&t, d.row.ord, d.row.key), model_has(&m, i, d.row.ord, d.row.key));
            if (model_has(&m, i, d.row.ord, d.row.key)) model_remove_at(&m, i);
        }
        if (step % 7 == 0) {
            draw(&r, kind, 6000, &d);
            look_up(&t, &m, &d, &r);
        }
        if (step % 997 == 0) assert_same(&t, &m);
        if (random_below(&r, 500) == 0) fork_or_check(&forks[random_below(&r, FORKS)], &t, &m);
    }
    while (m.n) {
        size_t i = random_below(&r, m.n);
        tree_remove(&t, m.row[i].ord, m.row[i].key);
        model_remove_at(&m, i);
        if (m.n % 500 == 0) assert_same(&t, &m);
    }
    assert_null(t.root);
    for (int i = 0; i < FORKS; i++)
        if (forks[i].used) fork_or_check(&forks[i], &t, &m);
    model_deinit(&m);
    assert_int_equal(mem_used(), before);
}

static void against_model(void **state)
{
    (void)state;
    uint64_t seed = seed_of_run();
    for (enum tree_kind kind = TREE_SET; kind <= TREE_ZSCORE; kind++) run_model(kind, seed + kind);
}

static void scores_order(void **state)
{
    (void)state;
    double s[] = {-INFINITY, -1e300, -1.5, -1, -5e-324, 0, 5e-324, 1, 1.5, 1e300, INFINITY};
    for (size_t i = 0; i < sizeof s / sizeof *s; i++) {
        assert_true(tree_ord_score(tree_score_ord(s[i])) == s[i]);
        if (i) assert_true(tree_score_ord(s[i - 1]) < tree_score_ord(s[i]));
    }
    assert_true(tree_score_ord(-0.0) == tree_score_ord(0.0));
}

/* Many elements: ascending, descending and random order; then all of them removed in another order. */
static void grows_and_empties(void **state)
{
    (void)state;
    enum { N = 120000 };
    struct random r;
    size_t before = mem_used();
    random_seed(&r, 5);
    for (int order = 0; order < 3; order++) {
        struct tree t;
        struct tree_pos pos;
        struct tree_item item;
        char key[16];
        memset(key, 'm', sizeof key);
        tree_init(&t, TREE_ZSCORE);
        for (uint64_t i = 0; i < N; i++) {
            uint64_t v = order == 0 ? i : order == 1 ? N - 1 - i : i * 7919 % N;
            assert_int_equal(tree_put(&t, tree_score_ord((double)v), bytes_make(key, 16), nothing, NULL), OK);
        }
        assert_true(tree_is_valid(&t));
        assert_int_equal(t.count, N);
        print_message("order %d: %.1f bytes a 16-byte element\n", order, (double)tree_memory(&t, 0) / N);
        /* 26 bytes are used for each; runs in order leave full leaves behind them. */
        assert_true(tree_memory(&t, 0) < N * 34);
        assert_in_range(tree_memory(&t, 1000), tree_memory(&t, 0) * 8 / 10, tree_memory(&t, 0) * 12 / 10);
        for (uint64_t i = 0; i < N; i += 997) {
            assert_true(tree_at(&t, i, &pos));
            tree_item(&t, &pos, &item);
            assert_true(tree_ord_score(item.ord) == (double)i);
        }
        uint64_t nodes = t.nodes;
        for (uint64_t i = 0; i < N * 9 / 10; i++) tree_remove_at(&t, random_below(&r, t.count));
        assert_true(tree_is_valid(&t));
        assert_true(t.nodes < nodes / 4);
        assert_true(tree_memory(&t, 0) < N / 10 * 60);
        while (t.count) tree_remove_at(&t, order == 2 ? t.count - 1 : 0);
        assert_null(t.root);
        assert_int_equal(t.nodes, 0);
    }
    assert_int_equal(mem_used(), before);
}

struct seen {
    unsigned char *times;
    struct tree *t;
    struct random *r;
};

static void count_item(void *ctx, struct bytes key, struct bytes value)
{
    (void)value;
    struct seen *s = ctx;
    uint32_t id;
    memcpy(&id, key.p, sizeof id);
    if (s->times[id] < 255) s->times[id]++;
}

static void scan_keeps_its_promise(void **state)
{
    (void)state;
    enum { STAY = 20000, GUESTS = 20000 };
    struct random r;
    struct tree t;
    random_seed(&r, seed_of_run());
    tree_init(&t, TREE_SET);
    for (uint32_t i = 0; i < STAY; i++) {
        struct bytes key = bytes_make(&i, sizeof i);
        assert_int_equal(tree_put(&t, tree_hash_ord(key), key, nothing, NULL), OK);
    }
    struct seen s = {.times = calloc(STAY + GUESTS, 1)};
    uint64_t cursor = 0, calls = 0;
    do {
        cursor = tree_scan(&t, cursor, 10, count_item, &s);
        calls++;
        for (int k = 0; k < 20; k++) { /* guests come and go meanwhile */
            uint32_t id = (uint32_t)(STAY + random_below(&r, GUESTS));
            struct bytes key = bytes_make(&id, sizeof id);
            if (random_below(&r, 2))
                assert_int_equal(tree_put(&t, tree_hash_ord(key), key, nothing, NULL), OK);
            else
                tree_remove(&t, tree_hash_ord(key), key);
        }
    } while (cursor);
    for (uint32_t i = 0; i < STAY; i++) assert_int_equal(s.times[i], 1);
    assert_true(calls > STAY / 10 && calls < (STAY + GUESTS) / 5);
    assert_int_equal(tree_scan(&t, UINT64_MAX, 10, count_item, &s), 0);
    free(s.times);
    tree_deinit(&t);
}

static void boxes_are_shared(void **state)
{
    (void)state;
    size_t before = mem_used(), n = 10 << 20;
    char *big = calloc(1, n);
    struct tree a, b;
    tree_init(&a, TREE_ZMEMBER);
    tree_init(&b, TREE_ZSCORE);
    struct bytes key = bytes_make(big, n);
    double score = 1;
    struct bytes value = bytes_make(&score, sizeof score);
    struct tree_box *box = tree_box_try_new(key, nothing);
    tree_put_boxed(&a, tree_hash_ord(key), tree_box_ref(box), value, NULL);
    tree_put_boxed(&b, tree_score_ord(1), box, nothing, NULL);
    assert_true(mem_used() - before < n * 3 / 2);
    struct tree_pos pos;
    struct tree_item item;
    assert_true(tree_find(&a, tree_hash_ord(key), key, &pos));
    tree_item(&a, &pos, &item);
    assert_int_equal(item.value.n, sizeof score);
    assert_memory_equal(item.value.p, &score, sizeof score);
    tree_deinit(&a);
    assert_true(tree_find(&b, tree_score_ord(1), key, &pos));
    tree_deinit(&b);
    free(big);
    assert_int_equal(mem_used(), before);
}

static uint64_t digest(const struct tree *t)
{
    struct tree_pos pos;
    struct tree_item item;
    uint64_t sum = 0;
    for (bool more = tree_at(t, 0, &pos); more; more = tree_next(&pos)) {
        tree_item(t, &pos, &item);
        sum = sum * 31 + hash_bytes(item.key) + 7 * hash_bytes(item.value);
    }
    return sum;
}

struct reader {
    struct tree fork;
    uint64_t expected;
    bool same;
};

static void *reader_run(void *arg)
{
    struct reader *rd = arg;
    rd->same = true;
    for (int i = 0; i < 3; i++) rd->same = rd->same && digest(&rd->fork) == rd->expected;
    tree_deinit(&rd->fork);
    return NULL;
}

static void forks_are_read_by_other_threads(void **state)
{
    (void)state;
    struct random r;
    struct tree t;
    static struct draw d;
    size_t before = mem_used();
    uint64_t seed = seed_of_run();
    random_seed(&r, seed);
    tree_init(&t, TREE_HASH);
    for (int round = 0; round < 12; round++) {
        struct reader readers[2];
        pthread_t threads[2];
        for (int i = 0; i < 2; i++) {
            for (int k = 0; k < 300; k++) {
                draw(&r, TREE_HASH, 3000, &d);
                assert_int_equal(tree_put(&t, d.row.ord, d.row.key, d.row.value, NULL), OK);
            }
            tree_fork(&t, &readers[i].fork);
            readers[i].expected = digest(&t);
            pthread_create(&threads[i], NULL, reader_run, &readers[i]);
        }
        for (int k = 0; k < 3000; k++) {
            draw(&r, TREE_HASH, 3000, &d);
            if (random_below(&r, 2))
                assert_int_equal(tree_put(&t, d.row.ord, d.row.key, d.row.value, NULL), OK);
            else
                tree_remove(&t, d.row.ord, d.row.key);
        }
        for (int i = 0; i < 2; i++) {
            pthread_join(threads[i], NULL);
            assert_true(readers[i].same);
        }
        assert_true(tree_is_valid(&t));
    }
    tree_deinit(&t);
    assert_int_equal(mem_used(), before);
}

static void samples_are_fair(void **state)
{
    (void)state;
    struct random r;
    random_seed(&r, 11);
    const uint64_t sizes[] = {1, 3, 5, 9, 10, 20};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        unsigned hits[10] = {0};
        for (int i = 0; i < 20000; i++) {
            struct sample s;
            uint64_t rank, last = 0, n = 0;
            for (sample_init(&s, &r, 10, sizes[k]); sample_next(&s, &rank); n++) {
                assert_true(rank < 10 && (n == 0 || rank > last));
                hits[last = rank]++;
            }
            sample_deinit(&s);
            assert_int_equal(n, sizes[k] < 10 ? sizes[k] : 10);
        }
        double expected = 20000.0 * (sizes[k] < 10 ? (double)sizes[k] : 10) / 10;
        for (int i = 0; i < 10; i++) assert_true(fabs(hits[i] - expected) < expected * 0.15);
    }
    unsigned hits[100] = {0}; /* few of many: the other method */
    for (int i = 0; i < 20000; i++) {
        struct sample s;
        uint64_t rank, n = 0;
        for (sample_init(&s, &r, 100, 10); sample_next(&s, &rank); n++) hits[rank]++;
        assert_non_null(s.picked);
        sample_deinit(&s);
        assert_int_equal(n, 10);
    }
    for (int i = 0; i < 100; i++) assert_in_range(hits[i], 1700, 2300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_order),      cmocka_unit_test(against_model),
        cmocka_unit_test(grows_and_empties), cmocka_unit_test(scan_keeps_its_promise),
        cmocka_unit_test(boxes_are_shared),  cmocka_unit_test(forks_are_read_by_other_threads),
        cmocka_unit_test(samples_are_fair),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
