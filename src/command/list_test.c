#include "command/call_test.h"

#define NOT_A_LIST "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
#define NOT_POSITIVE "-ERR value is out of range, must be positive\r\n"

static void test_push_and_pop(void **state)
{
    struct harness h;
    harness_init(&h);
    static const struct step steps[] = {
        {cmd_lpushx, "LPUSHX l a", ":0\r\n", ""},
        {cmd_rpush, "RPUSH l a b c", ":3\r\n", "RPUSH l a b c"},
        {cmd_lpush, "LPUSH l x y", ":5\r\n", "LPUSH l x y"},
        {cmd_rpushx, "RPUSHX l z", ":6\r\n", "RPUSHX l z"},
        {cmd_lrange, "LRANGE l 0 -1", "*6\r\n$1\r\ny\r\n$1\r\nx\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nz\r\n", ""},
        {cmd_lrange, "LRANGE l -2 100", "*2\r\n$1\r\nc\r\n$1\r\nz\r\n", ""},
        {cmd_lrange, "LRANGE l 4 2", "*0\r\n", ""},
        {cmd_lrange, "LRANGE l x 2", "-ERR value is not an integer or out of range\r\n", ""},
        {cmd_lpop, "LPOP l", "$1\r\ny\r\n", "LPOP l"},
        {cmd_rpop, "RPOP l 2", "*2\r\n$1\r\nz\r\n$1\r\nc\r\n", "RPOP l 2"},
        {cmd_lpop, "LPOP l 0", "*0\r\n", ""},
        {cmd_lpop, "LPOP l -1", NOT_POSITIVE, ""},
        {cmd_lpop, "LPOP l x", NOT_POSITIVE, ""},
        {cmd_lpop, "LPOP l 1 2", "-ERR wrong number of arguments for 'lpop' command\r\n", ""},
        {cmd_lpop, "LPOP l 100", "*3\r\n$1\r\nx\r\n$1\r\na\r\n$1\r\nb\r\n", "LPOP l 100"},
        {cmd_llen, "LLEN l", ":0\r\n", ""},
        {cmd_lpop, "LPOP l", "$-1\r\n", ""},
        {cmd_rpop, "RPOP l 0", "*-1\r\n", ""},
        {cmd_sadd, "SADD s a", ":1\r\n", NULL},
        {cmd_lpush, "LPUSH s a", NOT_A_LIST, ""},
        {cmd_lpop, "LPOP s", NOT_A_LIST, ""},
    };
    RUN_STEPS(&h, steps);
    assert_int_equal(store_db_count(h.store, 0), 1);
    run(&h, cmd_rpush, "RPUSH l a");
    assert_string_equal(h.events, "rpush l");
    run(&h, cmd_rpop, "RPOP l");
    assert_string_equal(h.events, "rpop l; del l");
    h.version = 3;
    assert_string_equal(run(&h, cmd_lpop, "LPOP l"), "_\r\n");
    assert_string_equal(run(&h, cmd_lpop, "LPOP l 1"), "_\r\n");
    harness_deinit(&h);
}

static void test_edit(void **state)
{
    struct harness h;
    harness_init(&h);
    static const struct step steps[] = {
        {cmd_lset, "LSET none x a", "-ERR no such key\r\n", ""},
        {cmd_lindex, "LINDEX none x", "$-1\r\n", ""},
        {cmd_rpush, "RPUSH l a b a c a", ":5\r\n", NULL},
        {cmd_lset, "LSET l 9 a", "-ERR index out of range\r\n", ""},
        {cmd_lset, "LSET l x a", "-ERR value is not an integer or out of range\r\n", ""},
        {cmd_lset, "LSET l -1 z", "+OK\r\n", "LSET l -1 z"},
        {cmd_lindex, "LINDEX l 4", "$1\r\nz\r\n", ""},
        {cmd_lindex, "LINDEX l -6", "$-1\r\n", ""},
        {cmd_linsert, "LINSERT l nowhere a b", "-ERR syntax error\r\n", ""},
        {cmd_linsert, "LINSERT none BEFORE a b", ":0\r\n", ""},
        {cmd_linsert, "LINSERT l BEFORE nope b", ":-1\r\n", ""},
        {cmd_linsert, "LINSERT l after c d", ":6\r\n", "LINSERT l after c d"},
        {cmd_lrem, "LREM l -1 a", ":1\r\n", "LREM l -1 a"},
        {cmd_lrem, "LREM l 0 nope", ":0\r\n", ""},
        {cmd_lrange, "LRANGE l 0 -1", "*5\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n$1\r\nz\r\n", ""},
        {cmd_ltrim, "LTRIM l 0 -1", "+OK\r\n", ""},
        {cmd_ltrim, "LTRIM l 1 -2", "+OK\r\n", "LTRIM l 1 -2"},
        {cmd_lrange, "LRANGE l 0 -1", "*3\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n", ""},
        {cmd_ltrim, "LTRIM l 5 1", "+OK\r\n", "LTRIM l 5 1"},
        {cmd_llen, "LLEN l", ":0\r\n", ""},
        {cmd_ltrim, "LTRIM none 0 x", "-ERR value is not an integer or out of range\r\n", ""},
    };
    RUN_STEPS(&h, steps);
    assert_int_equal(store_db_count(h.store, 0), 0);
    harness_deinit(&h);
}

static void test_move(void **state)
{
    struct harness h;
    harness_init(&h);
    static const struct step steps[] = {
        {cmd_lmove, "LMOVE a b LEFT sideways", "-ERR syntax error\r\n", ""},
        {cmd_lmove, "LMOVE a b LEFT RIGHT", "$-1\r\n", ""},
        {cmd_rpush, "RPUSH a 1 2 3", ":3\r\n", NULL},
        {cmd_sadd, "SADD s a", ":1\r\n", NULL},
        {cmd_lmove, "LMOVE a s LEFT RIGHT", NOT_A_LIST, ""},
        {cmd_lmove, "LMOVE a b LEFT RIGHT", "$1\r\n1\r\n", "LMOVE a b LEFT RIGHT"},
        {cmd_rpoplpush, "RPOPLPUSH a b", "$1\r\n3\r\n", "RPOPLPUSH a b"},
        {cmd_lrange, "LRANGE b 0 -1", "*2\r\n$1\r\n3\r\n$1\r\n1\r\n", ""},
        {cmd_rpoplpush, "RPOPLPUSH b b", "$1\r\n1\r\n", "RPOPLPUSH b b"},
        {cmd_lrange, "LRANGE b 0 -1", "*2\r\n$1\r\n1\r\n$1\r\n3\r\n", ""},
        {cmd_lmove, "LMOVE a a left right", "$1\r\n2\r\n", "LMOVE a a left right"},
    };
    RUN_STEPS(&h, steps);
    run(&h, cmd_lmove, "LMOVE a b RIGHT LEFT");
    assert_string_equal(h.events, "lpush b; rpop a; del a");
    assert_int_equal(store_db_count(h.store, 0), 2);
    harness_deinit(&h);
}

static void test_lpos(void **state)
{
    struct harness h;
    harness_init(&h);
    static const struct step steps[] = {
        {cmd_lpos, "LPOS none a", "$-1\r\n", ""},
        {cmd_lpos, "LPOS none a COUNT 1", "*0\r\n", ""},
        {cmd_rpush, "RPUSH l a b c a b a", ":6\r\n", NULL},
        {cmd_lpos, "LPOS l a", ":0\r\n", ""},
        {cmd_lpos, "LPOS l x", "$-1\r\n", ""},
        {cmd_lpos, "LPOS l a RANK 2", ":3\r\n", ""},
        {cmd_lpos, "LPOS l a RANK -1", ":5\r\n", ""},
        {cmd_lpos, "LPOS l a RANK 4", "$-1\r\n", ""},
        {cmd_lpos, "LPOS l a RANK -9223372036854775808", ":5\r\n", ""},
        {cmd_lpos, "LPOS l a COUNT 0", "*3\r\n:0\r\n:3\r\n:5\r\n", ""},
        {cmd_lpos, "LPOS l a COUNT 2 RANK -1", "*2\r\n:5\r\n:3\r\n", ""},
        {cmd_lpos, "LPOS l a COUNT 0 MAXLEN 4", "*2\r\n:0\r\n:3\r\n", ""},
        {cmd_lpos, "LPOS l a COUNT 0 MAXLEN 3", "*1\r\n:0\r\n", ""},
        {cmd_lpos, "LPOS l a COUNT 0 RANK -1 MAXLEN 3", "*2\r\n:5\r\n:3\r\n", ""},
        {cmd_lpos, "LPOS l c MAXLEN 2", "$-1\r\n", ""},
        {cmd_lpos, "LPOS l c MAXLEN 3", ":2\r\n", ""},
        {cmd_lpos, "LPOS l a COUNT 0 MAXLEN 9223372036854775807", "*3\r\n:0\r\n:3\r\n:5\r\n", ""},
        {cmd_lpos, "LPOS l a RANK 0",
         "-ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start "
         "from the end of the list\r\n",
         ""},
        {cmd_lpos, "LPOS l a COUNT -1", "-ERR COUNT can't be negative\r\n", ""},
        {cmd_lpos, "LPOS l a COUNT x", "-ERR COUNT can't be negative\r\n", ""},
        {cmd_lpos, "LPOS l a MAXLEN -1", "-ERR MAXLEN can't be negative\r\n", ""},
        {cmd_lpos, "LPOS l a RANK", "-ERR syntax error\r\n", ""},
    };
    RUN_STEPS(&h, steps);
    harness_deinit(&h);
}

/* Lists of several nodes against the same operations on an array. */
static void test_long_list(void **state)
{
    enum { N = 20000 };
    struct harness h;
    harness_init(&h);
    char line[64], expected[128];
    for (int i = 0; i < N; i++) {
        snprintf(line, sizeof line, "%s l element:%d", i % 2 ? "RPUSH" : "LPUSH", i);
        run(&h, i % 2 ? cmd_rpush : cmd_lpush, line);
    }
    /* Even numbers downwards, then odd ones upwards. */
    for (int i = 0; i < N; i += 97) {
        int value = i < N / 2 ? N - 2 - 2 * i : 2 * (i - N / 2) + 1;
        int n = snprintf(line, sizeof line, "element:%d", value);
        snprintf(expected, sizeof expected, "$%d\r\n%s\r\n", n, line);
        snprintf(line, sizeof line, "LINDEX l %d", i % 2 ? i : i - N);
        assert_string_equal(run(&h, cmd_lindex, line), expected);
        snprintf(line, sizeof line, "LPOS l element:%d", value);
        snprintf(expected, sizeof expected, ":%d\r\n", i);
        assert_string_equal(run(&h, cmd_lpos, line), expected);
    }
    run(&h, cmd_ltrim, "LTRIM l 9999 -10000");
    assert_string_equal(run(&h, cmd_lrange, "LRANGE l 0 -1"), "*2\r\n$9\r\nelement:0\r\n$9\r\nelement:1\r\n");
    harness_deinit(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_push_and_pop), cmocka_unit_test(test_edit),      cmocka_unit_test(test_move),
        cmocka_unit_test(test_lpos),         cmocka_unit_test(test_long_list),
    };
    return cmocka_run_group_tests_name("list commands", tests, NULL, NULL);
}
