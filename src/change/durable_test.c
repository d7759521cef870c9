#include "change/durable.h"

#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

static bool met(const struct durable *d, uint64_t offset, uint16_t replicas, bool synced)
{
    return durable_is_met(d, &(struct durable_need){offset, replicas, synced});
}

static void each_part_is_asked_for_by_itself(void **state)
{
    (void)state;
    struct durable d = {0};
    assert_true(durable_needs_nothing(&(struct durable_need){7, 0, false}));
    assert_true(met(&d, 7, 0, false));
    assert_false(met(&d, 7, 1, false));
    assert_false(met(&d, 7, 0, true));
    uint64_t acks[] = {5, 9, 7};
    assert_true(durable_set_acked(&d, acks, 3));
    assert_true(met(&d, 9, 1, false));
    assert_false(met(&d, 10, 1, false));
    assert_true(met(&d, 7, 2, false));
    assert_false(met(&d, 8, 2, false));
    assert_true(met(&d, 5, 3, false));
    assert_false(met(&d, 5, 4, false));
    assert_false(met(&d, 5, 1, true));
    assert_true(durable_set_synced(&d, 6));
    assert_true(met(&d, 5, 1, true));
    assert_false(met(&d, 7, 1, true));
    assert_false(met(&d, 6, 3, true));
}

static void what_was_safe_stays_safe(void **state)
{
    (void)state;
    struct durable d = {0};
    uint64_t two[] = {100, 90}, one[] = {95}, more[] = {101};
    assert_true(durable_set_acked(&d, two, 2));
    assert_false(durable_set_acked(&d, one, 1)); /* the other one has gone */
    assert_true(met(&d, 100, 1, false));
    assert_true(met(&d, 90, 2, false));
    assert_true(durable_set_acked(&d, more, 1));
    assert_true(durable_set_synced(&d, 50));
    assert_false(durable_set_synced(&d, 40));
    assert_true(met(&d, 50, 0, true));
    durable_reset(&d);
    assert_false(met(&d, 1, 1, false));
    assert_false(met(&d, 1, 0, true));
}

/* Beside a model that keeps every acknowledgement ever heard of each replica. */
static void as_a_model_says(void **state)
{
    (void)state;
    struct random r;
    uint64_t seed;
    random_secure(&seed, sizeof seed);
    random_seed(&r, seed);
    printf("seed %llu\n", (unsigned long long)seed);
    for (int run = 0; run < 200; run++) {
        struct durable d = {0};
        uint64_t at[80] = {0}, seen[81] = {0};
        size_t n = random_below(&r, 81);
        for (int step = 0; step < 100 && n; step++) {
            at[random_below(&r, n)] += random_below(&r, 1000);
            uint64_t copy[80];
            memcpy(copy, at, sizeof copy);
            (void)durable_set_acked(&d, copy, n);
            for (size_t k = 1; k <= n; k++) {
                /* The k-th highest, by counting. */
                uint64_t best = 0;
                for (size_t i = 0; i < n; i++) {
                    size_t above = 0;
                    for (size_t j = 0; j < n; j++) above += at[j] >= at[i];
                    if (above >= k && at[i] > best) best = at[i];
                }
                if (best > seen[k]) seen[k] = best;
            }
            uint64_t ask = random_below(&r, 3000);
            uint16_t k = (uint16_t)(1 + random_below(&r, DURABLE_REPLICAS_MAX));
            assert_int_equal(met(&d, ask, k, false), seen[k] >= ask);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_part_is_asked_for_by_itself),
        cmocka_unit_test(what_was_safe_stays_safe),
        cmocka_unit_test(as_a_model_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
