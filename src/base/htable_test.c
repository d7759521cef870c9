#include "base/htable.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

enum { ELEMENTS = 5000, STEPS = 200000 };

struct element {
    struct hnode node;
    bool in;
};

static bool contains(const struct htable *t, const struct element *e)
{
    for (struct hnode *n = htable_chain(t, e->node.hash); n; n = n->next)
        if (n == &e->node) return true;
    return false;
}

static size_t walk(const struct htable *t)
{
    size_t n = 0;
    for (size_t i = 0; i < t->buckets; i++)
        for (struct hnode *h = htable_at(t, i); h; h = h->next) n++;
    return n;
}

/* Elements come and go, at first mostly come and then mostly go; the table holds exactly those that are in. */
static void agrees_with_a_set(void **state)
{
    (void)state;
    const char *text = getenv("SEED");
    uint64_t seed = text ? strtoull(text, NULL, 10) : (uint64_t)time(NULL);
    printf("htable: SEED=%llu\n", (unsigned long long)seed);
    struct random rng;
    random_seed(&rng, seed);
    struct htable t = {0};
    struct element *e = mem_calloc(ELEMENTS, sizeof *e);
    size_t in = 0;
    /* Some hashes are alike, some differ only in bits that a small table does not look at. */
    for (size_t i = 0; i < ELEMENTS; i++)
        e[i].node.hash = i % 3 ? random_u64(&rng) : (random_u64(&rng) % 50) << (i % 60);
    for (size_t step = 0; step < STEPS; step++) {
        struct element *x = &e[random_u64(&rng) % ELEMENTS];
        bool want = random_u64(&rng) % STEPS > step;
        if (want && !x->in) {
            htable_insert(&t, &x->node);
            x->in = true;
            in++;
        } else if (!want && x->in) {
            htable_remove(&t, &x->node);
            x->in = false;
            in--;
        }
        assert_int_equal(t.count, in);
        assert_int_equal(contains(&t, x), x->in);
        if (step % 5000) continue;
        assert_int_equal(walk(&t), in);
        for (size_t i = 0; i < ELEMENTS; i++) assert_int_equal(contains(&t, &e[i]), e[i].in);
        assert_true(t.buckets <= t.cap && t.buckets <= 4 * in + 16 && in <= t.buckets);
    }
    htable_deinit(&t);
    mem_free(e);
}

static void empty_table_is_usable(void **state)
{
    (void)state;
    struct htable t = {0};
    struct hnode n = {.hash = 7};
    assert_null(htable_chain(&t, 7));
    htable_insert(&t, &n);
    assert_ptr_equal(htable_chain(&t, 7), &n);
    htable_remove(&t, &n);
    assert_null(htable_chain(&t, 7));
    assert_int_equal(walk(&t), 0);
    htable_deinit(&t);
    assert_null(htable_chain(&t, 7));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(agrees_with_a_set), cmocka_unit_test(empty_table_is_usable)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
