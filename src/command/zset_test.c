#include "command/call_test.h"

#define NOT_A_ZSET "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
#define NOT_POSITIVE "-ERR value is out of range, must be positive\r\n"
#define NOT_INTEGER "-ERR value is not an integer or out of range\r\n"
#define NOT_FLOAT "-ERR value is not a valid float\r\n"
#define BAD_SCORES "-ERR min or max is not a float\r\n"
#define BAD_LEX "-ERR min or max not valid string range item\r\n"
#define GT_LT_NX "-ERR GT, LT, and/or NX options at the same time are not compatible\r\n"

static void test_add(void **state)
{
    struct harness h;
    harness_init(&h);
    static const struct step steps[] = {
        {cmd_zadd, "ZADD z 1 a 2 b", ":2\r\n", "ZADD z 1 a 2 b"},
        {cmd_zadd, "ZADD z 1 a 3 b", ":0\r\n", "ZADD z 1 a 3 b"},
        {cmd_zadd, "ZADD z 1 a 3 b", ":0\r\n", ""},
        {cmd_zadd, "ZADD z CH 1 a 4 b 5 c", ":2\r\n", "ZADD z CH 1 a 4 b 5 c"},
        {cmd_zadd, "ZADD z NX 9 a", ":0\r\n", ""},
        {cmd_zadd, "ZADD z XX 9 x", ":0\r\n", ""},
        {cmd_zadd, "ZADD none XX 9 x", ":0\r\n", ""},
        {cmd_zadd, "ZADD none XX INCR 9 x", "$-1\r\n", ""},
        {cmd_zadd, "ZADD z GT CH 0 a 6 c", ":1\r\n", "ZADD z GT CH 0 a 6 c"},
        {cmd_zadd, "ZADD z LT CH 0 a 7 c", ":1\r\n", "ZADD z LT CH 0 a 7 c"},
        {cmd_zadd, "ZADD z INCR 2.5 a", "$3\r\n2.5\r\n", "ZADD z INCR 2.5 a"},
        {cmd_zadd, "ZADD z NX INCR 1 a", "$-1\r\n", ""},
        {cmd_zadd, "ZADD z GT INCR -1 a", "$-1\r\n", ""},
        {cmd_zadd, "ZADD z INCR 0 a", "$3\r\n2.5\r\n", ""},
        {cmd_zincrby, "ZINCRBY z -0.5 a", "$1\r\n2\r\n", "ZINCRBY z -0.5 a"},
        {cmd_zadd, "ZADD z inf i -inf j", ":2\r\n", NULL},
        {cmd_zincrby, "ZINCRBY z -inf i", "-ERR resulting score is not a number (NaN)\r\n", ""},
        {cmd_zadd, "ZADD z 1 a 2", "-ERR syntax error\r\n", ""},
        {cmd_zadd, "ZADD z NX CH XX", "-ERR syntax error\r\n", ""},
        {cmd_zadd, "ZADD z x a", NOT_FLOAT, ""},
        {cmd_zadd, "ZADD z 1 a nan b", NOT_FLOAT, ""},
        {cmd_zadd, "ZADD z NX XX 1 a", "-ERR XX and NX options at the same time are not compatible\r\n", ""},
        {cmd_zadd, "ZADD z NX GT 1 a", GT_LT_NX, ""},
        {cmd_zadd, "ZADD z LT GT 1 a", GT_LT_NX, ""},
        {cmd_zadd, "ZADD z INCR 1 a 2 b", "-ERR INCR option supports a single increment-element pair\r\n", ""},
        {cmd_rpush, "RPUSH l a", ":1\r\n", NULL},
        {cmd_zadd, "ZADD l 1 a", NOT_A_ZSET, ""},
        {cmd_zadd, "ZADD l x a", NOT_FLOAT, ""},
        {cmd_zrange, "ZRANGE z 0 -1", "*5\r\n$1\r\nj\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\ni\r\n", ""},
        {cmd_zcard, "ZCARD z", ":5\r\n", ""},
        {cmd_zscore, "ZSCORE z i", "$3\r\ninf\r\n", ""},
        {cmd_zscore, "ZSCORE z x", "$-1\r\n", ""},
        {cmd_zmscore, "ZMSCORE z a x", "*2\r\n$1\r\n2\r\n$-1\r\n", ""},
        {cmd_zmscore, "ZMSCORE none a", "*1\r\n$-1\r\n", ""},
        {cmd_zrank, "ZRANK z b", ":2\r\n", ""},
        {cmd_zrevrank, "ZREVRANK z b", ":2\r\n", ""},
        {cmd_zrank, "ZRANK z x", "$-1\r\n", ""},
        {cmd_zrem, "ZREM z x", ":0\r\n", ""},
        {cmd_zrem, "ZREM z a x i", ":2\r\n", "ZREM z a x i"},
    };
    RUN_STEPS(&h, steps);
    assert_int_equal(store_db_count(h.store, 0), 2);
    run(&h, cmd_zincrby, "ZINCRBY y 1 a");
    assert_string_equal(h.events, "zincr y");
    run(&h, cmd_zadd, "ZADD y 1 a 2 b");
    assert_string_equal(h.events, "zadd y");
    run(&h, cmd_zrem, "ZREM y a b c");
    assert_string_equal(h.events, "zrem y; del y");
    h.version = 3;
    assert_string_equal(run(&h, cmd_zscore, "ZSCORE z c"), ",6\r\n");
    assert_string_equal(run(&h, cmd_zincrby, "ZINCRBY z 0.25 c"), ",6.25\r\n");
    harness_deinit(&h);
}

static void test_range_errors(void **state)
{
    struct harness h;
    harness_init(&h);
    static const char limit[] =
        "-ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX\r\n";
    static const char scores[] = "-ERR syntax error, WITHSCORES not supported in combination with BYLEX\r\n";
    const struct step steps[] = {
        {cmd_zrange, "ZRANGE none 0 x", NOT_INTEGER, ""},
        {cmd_zrange, "ZRANGE none 0 1 LIMIT 0 1", limit, ""},
        {cmd_zrange, "ZRANGE none 0 1 LIMIT 0 -1", "*0\r\n", ""},
        {cmd_zrange, "ZRANGE none 0 1 LIMIT 0", "-ERR syntax error\r\n", ""},
        {cmd_zrange, "ZRANGE none 0 1 LIMIT x 0", NOT_INTEGER, ""},
        {cmd_zrange, "ZRANGE none - + BYLEX WITHSCORES", scores, ""},
        {cmd_zrange, "ZRANGE none 0 1 BYLEX", BAD_LEX, ""},
        {cmd_zrange, "ZRANGE none a b BYSCORE", BAD_SCORES, ""},
        {cmd_zrange, "ZRANGE none 0 1 BYSCORE BYLEX", "-ERR syntax error\r\n", ""},
        {cmd_zrange, "ZRANGE none 0 1 REV REV", "-ERR syntax error\r\n", ""},
        {cmd_zrevrange, "ZREVRANGE none 0 1 REV", "-ERR syntax error\r\n", ""},
        {cmd_zrevrange, "ZREVRANGE none 0 1 LIMIT 0 1", limit, ""},
        {cmd_zrangebyscore, "ZRANGEBYSCORE none 0 nan", BAD_SCORES, ""},
        {cmd_zrangebyscore, "ZRANGEBYSCORE none 0 1x", BAD_SCORES, ""},
        {cmd_zrangebyscore, "ZRANGEBYSCORE none 0 1 REV", "-ERR syntax error\r\n", ""},
        {cmd_zrangebylex, "ZRANGEBYLEX none a b", BAD_LEX, ""},
        {cmd_zrangebylex, "ZRANGEBYLEX none - + WITHSCORES", scores, ""},
        {cmd_zcount, "ZCOUNT none a 1", BAD_SCORES, ""},
        {cmd_zlexcount, "ZLEXCOUNT none a 1", BAD_LEX, ""},
        {cmd_zremrangebyrank, "ZREMRANGEBYRANK none a 1", NOT_INTEGER, ""},
        {cmd_zremrangebyscore, "ZREMRANGEBYSCORE none a 1", BAD_SCORES, ""},
        {cmd_zremrangebylex, "ZREMRANGEBYLEX none a 1", BAD_LEX, ""},
    };
    RUN_STEPS(&h, steps);
    harness_deinit(&h);
}

static void test_ranges(void **state)
{
    struct harness h;
    harness_init(&h);
    static const struct step steps[] = {
        {cmd_zadd, "ZADD z 1 a 2 b 3 c 4 d 5 e", ":5\r\n", NULL},
        {cmd_zrange, "ZRANGE z -2 9", "*2\r\n$1\r\nd\r\n$1\r\ne\r\n", ""},
        {cmd_zrange, "ZRANGE z 3 1", "*0\r\n", ""},
        {cmd_zrange, "ZRANGE z 0 1 REV WITHSCORES", "*4\r\n$1\r\ne\r\n$1\r\n5\r\n$1\r\nd\r\n$1\r\n4\r\n", ""},
        {cmd_zrevrange, "ZREVRANGE z 3 -1", "*2\r\n$1\r\nb\r\n$1\r\na\r\n", ""},
        {cmd_zrange, "ZRANGE z (1 3 BYSCORE", "*2\r\n$1\r\nb\r\n$1\r\nc\r\n", ""},
        {cmd_zrange, "ZRANGE z +inf (2 BYSCORE REV LIMIT 1 2", "*2\r\n$1\r\nd\r\n$1\r\nc\r\n", ""},
        {cmd_zrangebyscore, "ZRANGEBYSCORE z 2 4 LIMIT 1 -1", "*2\r\n$1\r\nc\r\n$1\r\nd\r\n", ""},
        {cmd_zrangebyscore, "ZRANGEBYSCORE z 2 4 LIMIT -1 2", "*0\r\n", ""},
        {cmd_zrangebyscore, "ZRANGEBYSCORE z 2 4 LIMIT 1 0", "*0\r\n", ""},
        {cmd_zrangebyscore, "ZRANGEBYSCORE z 2 4 LIMIT 9 1", "*0\r\n", ""},
        {cmd_zrangebyscore, "ZRANGEBYSCORE z 1e400 1e500", "*0\r\n", ""},
        {cmd_zrangebyscore, "ZRANGEBYSCORE z '' 1", "*1\r\n$1\r\na\r\n", ""},
        {cmd_zrevrangebyscore, "ZREVRANGEBYSCORE z 2 -inf WITHSCORES",
         "*4\r\n$1\r\nb\r\n$1\r\n2\r\n$1\r\na\r\n$1\r\n1\r\n", ""},
        {cmd_zcount, "ZCOUNT z (1 +inf", ":4\r\n", ""},
        {cmd_zcount, "ZCOUNT z 4 2", ":0\r\n", ""},
        {cmd_zadd, "ZADD lex 0 a 0 b 0 bb 0 c", ":4\r\n", NULL},
        {cmd_zrangebylex, "ZRANGEBYLEX lex [b (c", "*2\r\n$1\r\nb\r\n$2\r\nbb\r\n", ""},
        {cmd_zrevrangebylex, "ZREVRANGEBYLEX lex + [b LIMIT 1 1", "*1\r\n$2\r\nbb\r\n", ""},
        {cmd_zrange, "ZRANGE lex + - BYLEX REV LIMIT 0 1", "*1\r\n$1\r\nc\r\n", ""},
        {cmd_zlexcount, "ZLEXCOUNT lex - (bb", ":2\r\n", ""},
        {cmd_zremrangebylex, "ZREMRANGEBYLEX lex (b [bb", ":1\r\n", "ZREMRANGEBYLEX lex (b [bb"},
        {cmd_zremrangebylex, "ZREMRANGEBYLEX lex [x +", ":0\r\n", ""},
        {cmd_zremrangebyrank, "ZREMRANGEBYRANK z -1 -1", ":1\r\n", "ZREMRANGEBYRANK z -1 -1"},
        {cmd_zremrangebyscore, "ZREMRANGEBYSCORE z -inf (2", ":1\r\n", "ZREMRANGEBYSCORE z -inf (2"},
        {cmd_zrange, "ZRANGE z 0 -1", "*3\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n", ""},
    };
    RUN_STEPS(&h, steps);
    run(&h, cmd_zremrangebyrank, "ZREMRANGEBYRANK z 0 -1");
    assert_string_equal(h.events, "zremrangebyrank z; del z");
    h.version = 3;
    run(&h, cmd_zadd, "ZADD z 0.5 a");
    assert_string_equal(run(&h, cmd_zrange, "ZRANGE z 0 -1 WITHSCORES"), "*1\r\n*2\r\n$1\r\na\r\n,0.5\r\n");
    harness_deinit(&h);
}

static void test_pop(void **state)
{
    struct harness h;
    harness_init(&h);
    static const struct step steps[] = {
        {cmd_zpopmin, "ZPOPMIN none", "*0\r\n", ""},
        {cmd_zadd, "ZADD z 1 a 2 b 3 c 4 d", ":4\r\n", NULL},
        {cmd_zpopmin, "ZPOPMIN z", "*2\r\n$1\r\na\r\n$1\r\n1\r\n", "ZPOPMIN z"},
        {cmd_zpopmax, "ZPOPMAX z 2", "*4\r\n$1\r\nd\r\n$1\r\n4\r\n$1\r\nc\r\n$1\r\n3\r\n", "ZPOPMAX z 2"},
        {cmd_zpopmax, "ZPOPMAX z 0", "*0\r\n", ""},
        {cmd_zpopmax, "ZPOPMAX z -1", NOT_POSITIVE, ""},
        {cmd_zpopmax, "ZPOPMAX z x", NOT_POSITIVE, ""},
        {cmd_zpopmax, "ZPOPMAX z 1 1", "-ERR syntax error\r\n", ""},
    };
    RUN_STEPS(&h, steps);
    h.version = 3;
    run(&h, cmd_zadd, "ZADD z 1 a");
    assert_string_equal(run(&h, cmd_zpopmin, "ZPOPMIN z"), "*2\r\n$1\r\na\r\n,1\r\n");
    assert_string_equal(run(&h, cmd_zpopmin, "ZPOPMIN z 9"), "*1\r\n*2\r\n$1\r\nb\r\n,2\r\n");
    assert_string_equal(h.events, "zpopmin z; del z");
    assert_int_equal(store_db_count(h.store, 0), 0);
    harness_deinit(&h);
}

static void test_random_and_scan(void **state)
{
    struct harness h;
    harness_init(&h);
    static const struct step steps[] = {
        {cmd_zrandmember, "ZRANDMEMBER none", "$-1\r\n", ""},
        {cmd_zrandmember, "ZRANDMEMBER none 1", "*0\r\n", ""},
        {cmd_zscan, "ZSCAN none 0 BAD", "*2\r\n$1\r\n0\r\n*0\r\n", ""},
        {cmd_zadd, "ZADD z 0.5 a 2 b", ":2\r\n", NULL},
        {cmd_zrandmember, "ZRANDMEMBER z 9", "*2\r\n$1\r\nb\r\n$1\r\na\r\n", ""},
        {cmd_zrandmember, "ZRANDMEMBER z 9 WITHSCORES", "*4\r\n$1\r\nb\r\n$1\r\n2\r\n$1\r\na\r\n$3\r\n0.5\r\n", ""},
        {cmd_zrandmember, "ZRANDMEMBER z 9 x", "-ERR syntax error\r\n", ""},
        {cmd_zrandmember, "ZRANDMEMBER z x", NOT_INTEGER, ""},
        {cmd_zscan, "ZSCAN z 0", "*2\r\n$1\r\n0\r\n*4\r\n$1\r\na\r\n$3\r\n0.5\r\n$1\r\nb\r\n$1\r\n2\r\n", ""},
        {cmd_zscan, "ZSCAN z 0 MATCH x*", "*2\r\n$1\r\n0\r\n*0\r\n", ""},
        {cmd_zadd, "ZADD big 1e17 a 5e18 b", ":2\r\n", NULL},
        {cmd_zscan, "ZSCAN big 0",
         "*2\r\n$1\r\n0\r\n*4\r\n$1\r\na\r\n$18\r\n100000000000000000\r\n$1\r\nb\r\n$5\r\n5e+18\r\n", ""},
        {cmd_sort_ro, "SORT_RO big LIMIT 0 0 ALPHA", "*0\r\n", ""},
        {cmd_zscan, "ZSCAN big 0 MATCH a", "*2\r\n$1\r\n0\r\n*2\r\n$1\r\na\r\n$5\r\n1e+17\r\n", ""},
        {cmd_zrem, "ZREM z b", ":1\r\n", NULL},
        {cmd_zrandmember, "ZRANDMEMBER z", "$1\r\na\r\n", ""},
        {cmd_zrandmember, "ZRANDMEMBER z -2", "*2\r\n$1\r\na\r\n$1\r\na\r\n", ""},
    };
    RUN_STEPS(&h, steps);
    h.version = 3;
    assert_string_equal(run(&h, cmd_zrandmember, "ZRANDMEMBER z -1 WITHSCORES"), "*1\r\n*2\r\n$1\r\na\r\n,0.5\r\n");
    harness_deinit(&h);
}

/* More pairs than fit the array for common calls, in a set beyond a listpack. */
static void test_many_pairs(void **state)
{
    enum { PAIRS = 1000 };
    struct harness h;
    harness_init(&h);
    struct buf line = {0};
    buf_append_cstr(&line, "ZADD z");
    for (int i = 0; i < PAIRS; i++) buf_printf(&line, " %d member:%d", (i * 7) % PAIRS, (i * 7) % PAIRS);
    buf_append_char(&line, '\0');
    assert_string_equal(run(&h, cmd_zadd, line.p), ":1000\r\n");
    assert_string_equal(run(&h, cmd_zrange, "ZRANGE z 500 501"), "*2\r\n$10\r\nmember:500\r\n$10\r\nmember:501\r\n");
    assert_string_equal(run(&h, cmd_zrevrank, "ZREVRANK z member:3"), ":996\r\n");
    assert_string_equal(run(&h, cmd_zcount, "ZCOUNT z (10 (20"), ":9\r\n");
    assert_string_equal(run(&h, cmd_zremrangebyscore, "ZREMRANGEBYSCORE z 1 998"), ":998\r\n");
    assert_string_equal(run(&h, cmd_zrange, "ZRANGE z 0 -1"), "*2\r\n$8\r\nmember:0\r\n$10\r\nmember:999\r\n");
    buf_deinit(&line);
    harness_deinit(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_add), cmocka_unit_test(test_range_errors),    cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_pop), cmocka_unit_test(test_random_and_scan), cmocka_unit_test(test_many_pairs),
    };
    return cmocka_run_group_tests_name("sorted set commands", tests, NULL, NULL);
}
