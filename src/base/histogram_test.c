#include "base/histogram.h"
#include "base/mem.h"
#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void buckets_are_narrow_and_in_order(void **state)
{
    (void)state;
    /* The tops of the buckets of powers of two, as redis-server prints them in LATENCY HISTOGRAM (over 1000). */
    assert_int_equal(histogram_top_of(255), 255);
    assert_int_equal(histogram_top_of(256), 257);
    assert_int_equal(histogram_top_of(1024), 1031);
    assert_int_equal(histogram_top_of(32768), 33023);
    assert_int_equal(histogram_top_of(1048576), 1056767);
    for (uint64_t v = 0; v < HISTOGRAM_MAX; v += 1 + v / 300) {
        uint64_t top = histogram_top_of(v);
        assert_true(top >= v && top - v <= v / 128);
        assert_int_equal(histogram_top_of(top), top);
        assert_true(histogram_top_of(top + 1) > top);
    }
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void percentiles_against_sorting(void **state)
{
    (void)state;
    enum { N = 20000 };
    struct random rng;
    random_seed(&rng, 7);
    struct histogram *a = mem_calloc(1, sizeof *a), *b = mem_calloc(1, sizeof *b);
    uint64_t *values = mem_alloc(N * sizeof *values);
    for (int i = 0; i < N; i++) {
        values[i] = random_below(&rng, (uint64_t)1 << (1 + random_below(&rng, 29)));
        histogram_add(i % 2 ? a : b, values[i]);
    }
    histogram_merge(a, b);
    qsort(values, N, sizeof *values, by_size);
    const double percents[] = {0, 0.1, 25, 50, 90, 99, 99.9, 100};
    for (size_t i = 0; i < sizeof percents / sizeof *percents; i++) {
        size_t rank = (size_t)(percents[i] / 100 * N + 0.5);
        if (rank == 0) rank = 1;
        assert_int_equal(histogram_percentile(a, percents[i]), histogram_top_of(values[rank - 1]));
    }
    uint64_t below = 0;
    while (below < N && values[below] <= histogram_top_of(70000)) below++;
    assert_int_equal(histogram_up_to(a, 70000), below);
    histogram_clear(a);
    assert_int_equal(histogram_percentile(a, 50), 0);
    mem_free(a);
    mem_free(b);
    mem_free(values);
}

static void the_ends(void **state)
{
    (void)state;
    struct histogram *h = mem_calloc(1, sizeof *h);
    histogram_add(h, 0);
    histogram_add(h, UINT64_MAX);
    assert_int_equal(histogram_percentile(h, 0), 0);
    assert_int_equal(histogram_percentile(h, 100), histogram_top_of(HISTOGRAM_MAX));
    assert_int_equal(histogram_up_to(h, UINT64_MAX), 2);
    mem_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_are_narrow_and_in_order),
        cmocka_unit_test(percentiles_against_sorting),
        cmocka_unit_test(the_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
