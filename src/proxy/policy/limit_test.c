/* Token buckets against a simple model, and what is remembered by address. */
#include "proxy/policy/limit.h"

#include "base/hash.h"
#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define MS ((int64_t)1000000)
#define SECOND (1000 * MS)

static struct limit_rule rule(const char *text)
{
    struct limit_rule r;
    assert_true(limit_rule_parse(bytes_of(text), &r));
    return r;
}

static void rules_are_read(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "", " ", "x", "-1", "0", "0 0", "5:0", "5:", ":5", "5 1mb 7", "99999999999999", "5 x", "5:5:5"};
    struct limit_rule r;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (limit_rule_parse(bytes_of(bad[i]), &r)) fail_msg("'%s' was taken", bad[i]);
    r = rule("100");
    assert_int_equal(r.ops, 100);
    assert_int_equal(r.ops_burst, 100);
    assert_int_equal(r.bytes, 0);
    r = rule("100:7  1mb:64kb");
    assert_int_equal(r.ops_burst, 7);
    assert_int_equal(r.bytes, 1 << 20);
    assert_int_equal(r.bytes_burst, 64 << 10);
    r = rule("0 5kb");
    assert_int_equal(r.ops, 0);
    assert_int_equal(r.bytes_burst, 5 << 10);

    struct limit_rules *rules = limit_rules_create();
    assert_false(limit_rules_add(rules, BYTES("bob")));
    assert_false(limit_rules_add(rules, BYTES("")));
    assert_null(limit_rule_of_user(rules, BYTES("bob")));
    assert_true(limit_rules_add(rules, BYTES("* 5")));
    assert_true(limit_rules_add(rules, BYTES("bob 7")));
    assert_int_equal(limit_rule_of_user(rules, BYTES("bob"))->ops, 7);
    assert_int_equal(limit_rule_of_user(rules, BYTES("ann"))->ops, 5);
    assert_null(limit_rule_of_user(NULL, BYTES("ann")));
    limit_rules_destroy(rules);
}

static void a_burst_goes_at_once_and_the_rest_in_time(void **state)
{
    (void)state;
    struct limit_rule r = rule("10:3");
    struct limiter *l = limiter_create(&r);
    int64_t now = 5 * SECOND;
    for (int i = 0; i < 3; i++) assert_int_equal(limiter_take(l, now, 100), 0);
    assert_int_equal(limiter_wait(l, now), 100 * MS);
    for (int i = 1; i <= 5; i++) assert_int_equal(limiter_take(l, now, 100), i * 100 * MS); /* one behind another */
    assert_int_equal(limiter_wait(l, now + 600 * MS), 0);
    assert_int_equal(limiter_take(l, now + 600 * MS, 100), 0);
    now += 60 * SECOND; /* full again, and not fuller */
    for (int i = 0; i < 3; i++) assert_int_equal(limiter_take(l, now, 100), 0);
    assert_true(limiter_take(l, now, 100) > 0);
    limiter_release(l);
}

/* The model: tokens as a real number, filled by the passing time. */
static void buckets_follow_the_model(void **state)
{
    (void)state;
    struct random rng;
    uint64_t seed;
    random_secure(&seed, sizeof seed);
    printf("seed %llu\n", (unsigned long long)seed);
    random_seed(&rng, seed);
    for (int round = 0; round < 200; round++) {
        int64_t rate = 1 + (int64_t)random_below(&rng, 5000), burst = 1 + (int64_t)random_below(&rng, 200);
        struct limit_rule r = {.ops = rate, .ops_burst = burst};
        struct limiter *l = limiter_create(&r);
        double tokens = (double)burst;
        int64_t now = SECOND;
        for (int i = 0; i < 300; i++) {
            int64_t step = (int64_t)random_below(&rng, (uint64_t)(2 * SECOND / rate));
            now += step;
            tokens += (double)step * (double)rate / (double)SECOND;
            if (tokens > (double)burst) tokens = (double)burst;
            tokens -= 1;
            double want = tokens < 0 ? -tokens * (double)SECOND / (double)rate : 0;
            double got = (double)limiter_take(l, now, 1);
            if (got < want - 2000 || got > want + 2000) fail_msg("round %d: waits %f, not %f", round, got, want);
        }
        limiter_release(l);
    }
}

static void bytes_may_be_owed(void **state)
{
    (void)state;
    struct limit_rule r = rule("0 1000:100");
    struct limiter *l = limiter_create(&r);
    assert_int_equal(limiter_take(l, SECOND, 5000), 0); /* larger than any burst, and yet possible */
    assert_int_equal(limiter_wait(l, SECOND), 4900 * MS);
    limiter_charge(l, SECOND, 100);
    assert_int_equal(limiter_wait(l, SECOND), 5000 * MS);
    limiter_charge(l, SECOND, (size_t)1 << 40); /* nobody is shut out for years */
    assert_true(limiter_wait(l, SECOND) <= 3600 * SECOND);
    limiter_release(l);
}

static void addresses(void **state)
{
    (void)state;
    struct limit_rule r = rule("10:1");
    struct address_limits *a = address_limits_create(&r);
    struct limiter *one = address_limit(a, "10.0.0.1:5", 0), *same = address_limit(a, "10.0.0.1:77", 0);
    struct limiter *mapped = address_limit(a, "[::ffff:10.0.0.1]:5", 0), *two = address_limit(a, "10.0.0.2:5", 0);
    assert_ptr_equal(one, same);
    assert_ptr_equal(one, mapped);
    assert_ptr_not_equal(one, two);
    struct limiter *six = address_limit(a, "[2001:db8::1]:1", 0), *net = address_limit(a, "[2001:db8::ffff]:2", 0);
    struct limiter *other = address_limit(a, "[2001:db8:0:1::1]:1", 0);
    assert_ptr_equal(six, net); /* one /64 */
    assert_ptr_not_equal(six, other);
    assert_null(address_limit(a, "/run/x.sock:0", 0));
    struct limiter *held[] = {same, mapped, two, six, net, other};
    for (size_t i = 0; i < sizeof held / sizeof *held; i++) limiter_release(held[i]);
    /* Whoever comes back after a moment is still known, whoever comes back later is not needed any more. */
    limiter_take(one, SECOND, 1);
    limiter_release(one);
    one = address_limit(a, "10.0.0.1:9", SECOND + MS);
    assert_true(limiter_wait(one, SECOND + MS) > 0);
    limiter_release(one);
    char name[32];
    for (int i = 0; i < 20000; i++) {
        snprintf(name, sizeof name, "10.%d.%d.%d:1", 1 + i / 62500, i / 250 % 250, i % 250);
        limiter_release(address_limit(a, name, 10 * SECOND));
    }
    assert_true(address_limits_count(a) <= 1025);
    /* Another rule: everybody begins anew by that one. */
    uint64_t version = address_limits_version(a);
    address_limits_configure(a, &r);
    assert_int_equal(address_limits_version(a), version);
    one = address_limit(a, "10.0.0.1:9", 20 * SECOND);
    struct limit_rule other_rule = rule("20:2"), none = {0};
    address_limits_configure(a, &other_rule);
    assert_int_not_equal(address_limits_version(a), version);
    two = address_limit(a, "10.0.0.1:9", 20 * SECOND);
    assert_ptr_not_equal(one, two);
    assert_int_equal(limiter_rule(one)->ops, 10);
    assert_int_equal(limiter_rule(two)->ops, 20);
    limiter_release(one);
    limiter_release(two);
    address_limits_configure(a, &none);
    assert_null(address_limit(a, "10.0.0.1:9", 20 * SECOND));
    assert_int_equal(address_limits_count(a), 0);
    address_limits_destroy(a);
}

int main(void)
{
    hash_seed_set(1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_are_read),
        cmocka_unit_test(a_burst_goes_at_once_and_the_rest_in_time),
        cmocka_unit_test(buckets_follow_the_model),
        cmocka_unit_test(bytes_may_be_owed),
        cmocka_unit_test(addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
