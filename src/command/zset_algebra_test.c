#include "command/call_test.h"

#define WRONGTYPE "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
#define SYNTAX "-ERR syntax error\r\n"

static void fill(struct harness *h)
{
    run(h, cmd_zadd, "ZADD a{k} 1 x 2 y 3 z");
    run(h, cmd_zadd, "ZADD b{k} 10 y inf z 5 w");
    run(h, cmd_sadd, "SADD s{k} x z q");
    run(h, cmd_rpush, "RPUSH l{k} e");
}

static void test_replies(void **state)
{
    struct harness h;
    harness_init(&h);
    fill(&h);
    static const struct step steps[] = {
        {cmd_zunion, "ZUNION 2 a{k} b{k} WITHSCORES",
         "*8\r\n$1\r\nx\r\n$1\r\n1\r\n$1\r\nw\r\n$1\r\n5\r\n$1\r\ny\r\n$2\r\n12\r\n$1\r\nz\r\n$3\r\ninf\r\n", ""},
        /* 0 * inf is 0 */
        {cmd_zunion, "ZUNION 2 a{k} b{k} WEIGHTS 1 0 AGGREGATE MAX WITHSCORES",
         "*8\r\n$1\r\nw\r\n$1\r\n0\r\n$1\r\nx\r\n$1\r\n1\r\n$1\r\ny\r\n$1\r\n2\r\n$1\r\nz\r\n$1\r\n3\r\n", ""},
        {cmd_zinter, "ZINTER 2 a{k} s{k} WITHSCORES", "*4\r\n$1\r\nx\r\n$1\r\n2\r\n$1\r\nz\r\n$1\r\n4\r\n", ""},
        {cmd_zinter, "ZINTER 2 a{k} none{k}", "*0\r\n", ""},
        {cmd_zdiff, "ZDIFF 2 a{k} s{k} WITHSCORES", "*2\r\n$1\r\ny\r\n$1\r\n2\r\n", ""},
        {cmd_zdiff, "ZDIFF 2 a{k} a{k}", "*0\r\n", ""},
        {cmd_zintercard, "ZINTERCARD 2 a{k} s{k}", ":2\r\n", ""},
        {cmd_zintercard, "ZINTERCARD 2 a{k} s{k} LIMIT 1", ":1\r\n", ""},
        {cmd_zintercard, "ZINTERCARD 2 a{k} s{k} LIMIT -1", "-ERR LIMIT can't be negative\r\n", ""},
        {cmd_zunion, "ZUNION 0 a{k}", "-ERR at least 1 input key is needed for 'zunion' command\r\n", ""},
        {cmd_zunion, "ZUNION 3 a{k} b{k}", SYNTAX, ""},
        {cmd_zunion, "ZUNION 9223372036854775807 a{k} b{k}", SYNTAX, ""},
        {cmd_zunion, "ZUNION x a{k}", "-ERR value is not an integer or out of range\r\n", ""},
        {cmd_zunion, "ZUNION 2 a{k} l{k}", WRONGTYPE, ""},
        {cmd_zunion, "ZUNION 1 a{k} WEIGHTS x", "-ERR weight value is not a float\r\n", ""},
        {cmd_zunion, "ZUNION 1 a{k} WEIGHTS", SYNTAX, ""},
        {cmd_zunion, "ZUNION 1 a{k} AGGREGATE AVG", SYNTAX, ""},
        {cmd_zdiff, "ZDIFF 1 a{k} AGGREGATE MAX", SYNTAX, ""},
        {cmd_zunionstore, "ZUNIONSTORE d{k} 1 a{k} WITHSCORES", SYNTAX, ""},
        {cmd_sintercard, "SINTERCARD 1 s{k} LIMIT 2", ":2\r\n", ""},
        {cmd_sintercard, "SINTERCARD 2 s{k} none{k}", ":0\r\n", ""},
        {cmd_sintercard, "SINTERCARD 2 none{k} a{k}", WRONGTYPE, ""},
        {cmd_sintercard, "SINTERCARD 0 s{k}", "-ERR numkeys should be greater than 0\r\n", ""},
        {cmd_sintercard, "SINTERCARD 2 s{k}", "-ERR Number of keys can't be greater than number of args\r\n", ""},
    };
    RUN_STEPS(&h, steps);
    h.version = 3;
    assert_string_equal(run(&h, cmd_zdiff, "ZDIFF 2 a{k} s{k} WITHSCORES"), "*1\r\n*2\r\n$1\r\ny\r\n,2\r\n");
    harness_deinit(&h);
}

static void test_stores(void **state)
{
    struct harness h;
    harness_init(&h);
    fill(&h);
    assert_string_equal(run(&h, cmd_zunionstore, "ZUNIONSTORE a{k} 2 a{k} s{k}"), ":4\r\n");
    assert_string_equal(h.events, "zunionstore a{k}");
    assert_string_equal(h.effects, "ZUNIONSTORE a{k} 2 a{k} s{k}");
    assert_string_equal(run(&h, cmd_zscore, "ZSCORE a{k} z"), "$1\r\n4\r\n");
    assert_string_equal(run(&h, cmd_zinterstore, "ZINTERSTORE l{k} 2 a{k} none{k}"), ":0\r\n");
    assert_string_equal(h.events, "del l{k}");
    assert_string_equal(run(&h, cmd_zdiffstore, "ZDIFFSTORE l{k} 2 none{k} a{k}"), ":0\r\n");
    assert_string_equal(h.effects, "");
    assert_string_equal(run(&h, cmd_zrangestore, "ZRANGESTORE r{k} a{k} 0 -2"), ":3\r\n");
    assert_string_equal(h.events, "zrangestore r{k}");
    assert_string_equal(run(&h, cmd_zrange, "ZRANGE r{k} 0 -1"), "*3\r\n$1\r\nq\r\n$1\r\nx\r\n$1\r\ny\r\n");
    assert_string_equal(run(&h, cmd_zrangestore, "ZRANGESTORE r{k} r{k} 5 9"), ":0\r\n");
    assert_string_equal(h.events, "del r{k}");
    harness_deinit(&h);
}

static void test_pops_and_ranks(void **state)
{
    struct harness h;
    harness_init(&h);
    fill(&h);
    static const struct step steps[] = {
        {cmd_zmpop, "ZMPOP 2 none{k} a{k} MAX", "*2\r\n$4\r\na{k}\r\n*1\r\n*2\r\n$1\r\nz\r\n$1\r\n3\r\n",
         "ZPOPMAX a{k} 1"},
        {cmd_zmpop, "ZMPOP 1 a{k} MIN COUNT 9",
         "*2\r\n$4\r\na{k}\r\n*2\r\n*2\r\n$1\r\nx\r\n$1\r\n1\r\n*2\r\n$1\r\ny\r\n$1\r\n2\r\n", "ZPOPMIN a{k} 2"},
        {cmd_zmpop, "ZMPOP 1 a{k} MIN", "*-1\r\n", ""},
        {cmd_zmpop, "ZMPOP 2 a{k} s{k} MIN", WRONGTYPE, ""},
        {cmd_zmpop, "ZMPOP 1 b{k} MIN COUNT 0", "-ERR count should be greater than 0\r\n", ""},
        {cmd_zmpop, "ZMPOP 0 b{k} MIN", "-ERR numkeys should be greater than 0\r\n", ""},
        {cmd_zmpop, "ZMPOP 2 b{k} MIN", SYNTAX, ""},
        {cmd_zmpop, "ZMPOP 1 b{k} LEFT", SYNTAX, ""},
        {cmd_zmpop, "ZMPOP 1 b{k} MIN COUNT", SYNTAX, ""},
        {cmd_zmpop, "ZMPOP 1 b{k} MIN COUNT 1 COUNT 2", SYNTAX, ""},
        {cmd_rpush, "RPUSH l{k} f g", ":3\r\n", NULL},
        {cmd_lmpop, "LMPOP 2 none{k} l{k} RIGHT COUNT 2", "*2\r\n$4\r\nl{k}\r\n*2\r\n$1\r\ng\r\n$1\r\nf\r\n",
         "RPOP l{k} 2"},
        {cmd_lmpop, "LMPOP 1 l{k} left COUNT 5", "*2\r\n$4\r\nl{k}\r\n*1\r\n$1\r\ne\r\n", "LPOP l{k} 1"},
        {cmd_lmpop, "LMPOP 1 l{k} LEFT", "*-1\r\n", ""},
        {cmd_zrank, "ZRANK b{k} y WITHSCORE", "*2\r\n:1\r\n$2\r\n10\r\n", ""},
        {cmd_zrevrank, "ZREVRANK b{k} w withscore", "*2\r\n:2\r\n$1\r\n5\r\n", ""},
        {cmd_zrank, "ZRANK b{k} nobody WITHSCORE", "*-1\r\n", ""},
        {cmd_zrank, "ZRANK none{k} nobody WITHSCORE", "*-1\r\n", ""},
        {cmd_zrank, "ZRANK b{k} y SCORE", "-ERR wrong number of arguments for 'zrank' command\r\n", ""},
    };
    RUN_STEPS(&h, steps);
    assert_string_equal(run(&h, cmd_exists, "EXISTS a{k} l{k}"), ":0\r\n");
    harness_deinit(&h);
}

/* Large results against a model: member i of set n has score i * n where n divides i. */
static void test_large(void **state)
{
    enum { MEMBERS = 3000, SETS = 5 };
    struct harness h;
    char line[64];
    harness_init(&h);
    for (int n = 1; n <= SETS; n++) {
        for (int i = 0; i < MEMBERS; i += n) {
            snprintf(line, sizeof line, "ZADD z%d{k} %d m%d", n, i * n, i);
            run(&h, cmd_zadd, line);
        }
    }
    assert_string_equal(run(&h, cmd_zunionstore, "ZUNIONSTORE u{k} 5 z1{k} z2{k} z3{k} z4{k} z5{k} WEIGHTS 1 2 3 4 5"),
                        ":3000\r\n");
    assert_string_equal(run(&h, cmd_zinterstore, "ZINTERSTORE i{k} 2 z4{k} z5{k} AGGREGATE MAX"), ":150\r\n");
    assert_string_equal(run(&h, cmd_zdiffstore, "ZDIFFSTORE d{k} 3 z1{k} z2{k} z3{k}"), ":1000\r\n");
    assert_string_equal(run(&h, cmd_zdiffstore, "ZDIFFSTORE e{k} 2 z1{k} i{k}"), ":2850\r\n");
    for (int i = 0; i < MEMBERS; i++) {
        int sum = 0;
        char expected[32], digits[16];
        for (int n = 1; n <= SETS; n++) sum += i % n == 0 ? i * n * n : 0;
        snprintf(digits, sizeof digits, "%d", sum);
        snprintf(expected, sizeof expected, "$%zu\r\n%s\r\n", strlen(digits), digits);
        snprintf(line, sizeof line, "ZSCORE u{k} m%d", i);
        assert_string_equal(run(&h, cmd_zscore, line), expected);
        snprintf(line, sizeof line, "ZSCORE d{k} m%d", i);
        assert_int_equal(strcmp(run(&h, cmd_zscore, line), "$-1\r\n") == 0, i % 2 == 0 || i % 3 == 0);
        snprintf(line, sizeof line, "ZSCORE e{k} m%d", i);
        assert_int_equal(strcmp(run(&h, cmd_zscore, line), "$-1\r\n") == 0, i % 20 == 0);
    }
    harness_deinit(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replies),
        cmocka_unit_test(test_stores),
        cmocka_unit_test(test_pops_and_ranks),
        cmocka_unit_test(test_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
