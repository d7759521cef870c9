#include "command/call_test.h"

#include <stdlib.h>

#define NOT_A_SET "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
#define NOT_POSITIVE "-ERR value is out of range, must be positive\r\n"

static struct entry *at(struct harness *h, const char *name)
{
    struct key k = key_of(bytes_of(name));
    return store_find(h->store, 0, &k);
}

static void test_add_and_remove(void **state)
{
    struct harness h;
    harness_init(&h);
    static const struct step steps[] = {
        {cmd_sadd, "SADD s 3 1 2 1", ":3\r\n", "SADD s 3 1 2 1"},
        {cmd_sadd, "SADD s 3 1", ":0\r\n", ""},
        {cmd_smembers, "SMEMBERS s", "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n", ""},
        {cmd_scard, "SCARD s", ":3\r\n", ""},
        {cmd_sismember, "SISMEMBER s 2", ":1\r\n", ""},
        {cmd_sismember, "SISMEMBER none 2", ":0\r\n", ""},
        {cmd_smismember, "SMISMEMBER s 2 x 3", "*3\r\n:1\r\n:0\r\n:1\r\n", ""},
        {cmd_smismember, "SMISMEMBER none 2 x", "*2\r\n:0\r\n:0\r\n", ""},
        {cmd_srem, "SREM s x y", ":0\r\n", ""},
        {cmd_srem, "SREM s 1 x 2", ":2\r\n", "SREM s 1 x 2"},
        {cmd_smembers, "SMEMBERS none", "*0\r\n", ""},
        {cmd_rpush, "RPUSH l a", ":1\r\n", NULL},
        {cmd_sadd, "SADD l a", NOT_A_SET, ""},
        {cmd_scard, "SCARD l", NOT_A_SET, ""},
    };
    RUN_STEPS(&h, steps);
    run(&h, cmd_srem, "SREM s 3 4");
    assert_string_equal(h.events, "srem s; del s");
    assert_null(at(&h, "s"));
    h.version = 3;
    assert_string_equal(run(&h, cmd_smembers, "SMEMBERS none"), "~0\r\n");
    harness_deinit(&h);
}

static void test_move(void **state)
{
    struct harness h;
    harness_init(&h);
    static const struct step steps[] = {
        {cmd_rpush, "RPUSH l a", ":1\r\n", NULL},
        {cmd_smove, "SMOVE none l a", ":0\r\n", ""},
        {cmd_smove, "SMOVE l none a", NOT_A_SET, ""},
        {cmd_sadd, "SADD a 1 x", ":2\r\n", NULL},
        {cmd_smove, "SMOVE a l 1", NOT_A_SET, ""},
        {cmd_smove, "SMOVE a b nope", ":0\r\n", ""},
        {cmd_smove, "SMOVE a a x", ":1\r\n", ""},
        {cmd_smove, "SMOVE a b 1", ":1\r\n", "SMOVE a b 1"},
        {cmd_smembers, "SMEMBERS b", "*1\r\n$1\r\n1\r\n", ""},
        {cmd_sadd, "SADD b x", ":1\r\n", NULL},
    };
    RUN_STEPS(&h, steps);
    assert_string_equal(run(&h, cmd_smove, "SMOVE a b x"), ":1\r\n");
    assert_string_equal(h.events, "srem a; del a");
    assert_null(at(&h, "a"));
    harness_deinit(&h);
}

/* What SPOP took is told to replicas by name. */
static void test_pop(void **state)
{
    struct harness h;
    harness_init(&h);
    static const struct step steps[] = {
        {cmd_spop, "SPOP none", "$-1\r\n", ""},
        {cmd_spop, "SPOP none 3", "*0\r\n", ""},
        {cmd_sadd, "SADD s a", ":1\r\n", NULL},
        {cmd_spop, "SPOP s 0", "*0\r\n", ""},
        {cmd_spop, "SPOP s -1", NOT_POSITIVE, ""},
        {cmd_spop, "SPOP s x", NOT_POSITIVE, ""},
        {cmd_spop, "SPOP s 1 2", "-ERR syntax error\r\n", ""},
        {cmd_spop, "SPOP s", "$1\r\na\r\n", "SREM s a"},
        {cmd_sadd, "SADD s 1 2", ":2\r\n", NULL},
        {cmd_spop, "SPOP s 2", "*2\r\n$1\r\n1\r\n$1\r\n2\r\n", "DEL s"},
        {cmd_scard, "SCARD s", ":0\r\n", ""},
    };
    RUN_STEPS(&h, steps);
    run(&h, cmd_sadd, "SADD s 1 2 3 4 5");
    h.version = 3;
    run(&h, cmd_spop, "SPOP s 3");
    assert_string_equal(h.events, "spop s");
    int a, b, c;
    assert_int_equal(sscanf(h.effects, "SREM s %d; SREM s %d; SREM s %d", &a, &b, &c), 3);
    char expected[64];
    snprintf(expected, sizeof expected, "~3\r\n$1\r\n%d\r\n$1\r\n%d\r\n$1\r\n%d\r\n", a, b, c);
    assert_string_equal(h.reply, expected);
    assert_true(a != b && b != c && a != c);
    assert_int_equal(h.dirty, 3);
    assert_string_equal(run(&h, cmd_scard, "SCARD s"), ":2\r\n");
    run(&h, cmd_spop, "SPOP s 3");
    assert_string_equal(h.events, "spop s; del s");
    harness_deinit(&h);
}

static void test_random_members(void **state)
{
    struct harness h;
    harness_init(&h);
    static const struct step steps[] = {
        {cmd_srandmember, "SRANDMEMBER none", "$-1\r\n", ""},
        {cmd_srandmember, "SRANDMEMBER none 2", "*0\r\n", ""},
        {cmd_sadd, "SADD s a", ":1\r\n", NULL},
        {cmd_srandmember, "SRANDMEMBER s", "$1\r\na\r\n", ""},
        {cmd_srandmember, "SRANDMEMBER s 0", "*0\r\n", ""},
        {cmd_srandmember, "SRANDMEMBER s 9", "*1\r\n$1\r\na\r\n", ""},
        {cmd_srandmember, "SRANDMEMBER s -3", "*3\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n", ""},
        {cmd_srandmember, "SRANDMEMBER s 1 2", "-ERR syntax error\r\n", ""},
        {cmd_srandmember, "SRANDMEMBER s x", "-ERR value is not an integer or out of range\r\n", ""},
    };
    RUN_STEPS(&h, steps);
    h.version = 3;
    assert_string_equal(run(&h, cmd_srandmember, "SRANDMEMBER s 9"), "*1\r\n$1\r\na\r\n");
    harness_deinit(&h);
}

static void test_algebra(void **state)
{
    struct harness h;
    harness_init(&h);
    static const struct step steps[] = {
        {cmd_sadd, "SADD a 1 2 3 4", ":4\r\n", NULL},
        {cmd_sadd, "SADD b 3 4 5", ":3\r\n", NULL},
        {cmd_sadd, "SADD c 4", ":1\r\n", NULL},
        {cmd_rpush, "RPUSH l a", ":1\r\n", NULL},
        {cmd_sinter, "SINTER a b c", "*1\r\n$1\r\n4\r\n", ""},
        {cmd_sinter, "SINTER a none", "*0\r\n", ""},
        {cmd_sinter, "SINTER a none l", NOT_A_SET, ""},
        {cmd_sdiff, "SDIFF a c b", "*2\r\n$1\r\n1\r\n$1\r\n2\r\n", ""},
        {cmd_sdiff, "SDIFF a none a", "*0\r\n", ""},
        {cmd_sdiff, "SDIFF none a", "*0\r\n", ""},
        {cmd_sdiff, "SDIFF c", "*1\r\n$1\r\n4\r\n", ""},
        {cmd_sunion, "SUNION none", "*0\r\n", ""},
        {cmd_sunion, "SUNION b l", NOT_A_SET, ""},
        {cmd_sunion, "SUNION c none c", "*1\r\n$1\r\n4\r\n", ""},
        {cmd_sinterstore, "SINTERSTORE d a b", ":2\r\n", "SINTERSTORE d a b"},
        {cmd_smembers, "SMEMBERS d", "*2\r\n$1\r\n3\r\n$1\r\n4\r\n", ""},
        {cmd_sdiffstore, "SDIFFSTORE d a b", ":2\r\n", "SDIFFSTORE d a b"},
        {cmd_smembers, "SMEMBERS d", "*2\r\n$1\r\n1\r\n$1\r\n2\r\n", ""},
        {cmd_sunionstore, "SUNIONSTORE l a b", ":5\r\n", "SUNIONSTORE l a b"},
        {cmd_smembers, "SMEMBERS l", "*5\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n$1\r\n4\r\n$1\r\n5\r\n", ""},
        {cmd_sinterstore, "SINTERSTORE a a b c", ":1\r\n", "SINTERSTORE a a b c"},
        {cmd_sinterstore, "SINTERSTORE none2 none", ":0\r\n", ""},
        {cmd_sinterstore, "SINTERSTORE d none", ":0\r\n", "SINTERSTORE d none"},
        {cmd_scard, "SCARD d", ":0\r\n", ""},
    };
    RUN_STEPS(&h, steps);
    /* A result replaces the key with its time to live; an empty one deletes it. */
    struct key k = key_of(BYTES("l"));
    store_set_expire(h.store, 0, &k, HARNESS_NOW + 1000);
    run(&h, cmd_sunionstore, "SUNIONSTORE l a");
    assert_string_equal(h.events, "sunionstore l");
    assert_int_equal(entry_expire_at(at(&h, "l")), -1);
    run(&h, cmd_sdiffstore, "SDIFFSTORE l l l");
    assert_string_equal(h.events, "del l");
    assert_null(at(&h, "l"));
    h.version = 3;
    assert_string_equal(run(&h, cmd_sinter, "SINTER b c"), "~1\r\n$1\r\n4\r\n");
    harness_deinit(&h);
}

/* Six sets of numbers with sizes of all relations: every operation against membership counted one by one. */
enum { SETS = 6, UNIVERSE = 900 };
static bool member_of[SETS][UNIVERSE];

static bool expected_in(int op, const int *which, int n, int x)
{
    bool all = true, any = false, others = false;
    for (int i = 0; i < n; i++) {
        bool in = member_of[which[i]][x];
        all &= in;
        any |= in;
        if (i) others |= in;
    }
    return op == 0 ? all : op == 1 ? any : member_of[which[0]][x] && !others;
}

static void check_members(struct harness *h, int op, const int *which, int n)
{
    static bool seen[UNIVERSE];
    memset(seen, 0, sizeof seen);
    struct resp_reply_parser p = {0};
    struct resp_value *v;
    assert_int_equal(resp_parse_reply(&p, bytes_make(h->reply, h->reply_length), &v), OK);
    for (size_t i = 0; i < v->n; i++) {
        int x = atoi(v->child[i].str.p + (v->child[i].str.p[0] == 'm'));
        assert_false(seen[x]);
        seen[x] = true;
    }
    for (int x = 0; x < UNIVERSE; x++) assert_int_equal(seen[x], expected_in(op, which, n, x));
    resp_value_free(v);
}

static void test_algebra_against_model(void **state)
{
    static command_handler *const reply[] = {cmd_sinter, cmd_sunion, cmd_sdiff};
    static command_handler *const store[] = {cmd_sinterstore, cmd_sunionstore, cmd_sdiffstore};
    static const char *const name[] = {"SINTER", "SUNION", "SDIFF"};
    const uint64_t seed = 20240607;
    print_message("seed %llu\n", (unsigned long long)seed);
    struct harness h;
    struct random r;
    char line[128];
    harness_init(&h);
    random_seed(&r, seed);
    for (int s = 0; s < SETS; s++)
        for (int x = 0; x < UNIVERSE; x++) {
            /* Set 2 has integers alone. */
            member_of[s][x] = (s != 2 || x % 3) && random_below(&r, 10) < (uint64_t)(s * 2);
            if (!member_of[s][x]) continue;
            snprintf(line, sizeof line, x % 3 ? "SADD set%d %d" : "SADD set%d m%d", s, x);
            run(&h, cmd_sadd, line);
        }
    for (int round = 0; round < 300; round++) {
        int which[SETS], n = 1 + (int)random_below(&r, SETS), op = round % 3;
        int length = snprintf(line, sizeof line, "%s", name[op]);
        for (int i = 0; i < n; i++) {
            which[i] = (int)random_below(&r, SETS);
            length += snprintf(line + length, sizeof line - (size_t)length, " set%d", which[i]);
        }
        run(&h, reply[op], line);
        check_members(&h, op, which, n);
        char stored[160];
        snprintf(stored, sizeof stored, "%sSTORE result%s", name[op], strchr(line, ' '));
        run(&h, store[op], stored);
        run(&h, cmd_smembers, "SMEMBERS result");
        check_members(&h, op, which, n);
    }
    harness_deinit(&h);
}

static void test_scan(void **state)
{
    struct harness h;
    harness_init(&h);
    static const struct step steps[] = {
        {cmd_sscan, "SSCAN none 0 BAD", "*2\r\n$1\r\n0\r\n*0\r\n", ""},
        {cmd_sscan, "SSCAN s -", "-ERR invalid cursor\r\n", ""},
        {cmd_sadd, "SADD s 1 2 30", ":3\r\n", NULL},
        {cmd_sscan, "SSCAN s 0 COUNT 1 MATCH 3*", "*2\r\n$1\r\n0\r\n*1\r\n$2\r\n30\r\n", ""},
        {cmd_sscan, "SSCAN s 0 MATCH", "-ERR syntax error\r\n", ""},
    };
    RUN_STEPS(&h, steps);
    harness_deinit(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_add_and_remove),
        cmocka_unit_test(test_move),
        cmocka_unit_test(test_pop),
        cmocka_unit_test(test_random_members),
        cmocka_unit_test(test_algebra),
        cmocka_unit_test(test_algebra_against_model),
        cmocka_unit_test(test_scan),
    };
    return cmocka_run_group_tests_name("set commands", tests, NULL, NULL);
}
