/* Commands that wait: what they do with data, without, inside transactions, and when they are run again for one key. */
#include "command/call_test.h"

#define WRONGTYPE "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"

static int setup(void **state)
{
    struct harness *h = mem_alloc(sizeof *h);
    harness_init(h);
    *state = h;
    return 0;
}

static int teardown(void **state)
{
    harness_deinit(*state);
    mem_free(*state);
    return 0;
}

static void with_data(void **state)
{
    struct harness *h = *state;
    static const struct step steps[] = {
        {cmd_rpush, "RPUSH l 1 2 3 4 5 6 7", ":7\r\n", NULL},
        {cmd_blpop, "BLPOP none l 0", "*2\r\n$1\r\nl\r\n$1\r\n1\r\n", "LPOP l"},
        {cmd_brpop, "BRPOP l l 0.1", "*2\r\n$1\r\nl\r\n$1\r\n7\r\n", "RPOP l"},
        {cmd_blmpop, "BLMPOP 0 2 none l LEFT COUNT 2", "*2\r\n$1\r\nl\r\n*2\r\n$1\r\n2\r\n$1\r\n3\r\n", "LPOP l 2"},
        {cmd_blmove, "BLMOVE l to left RIGHT 0", "$1\r\n4\r\n", "LMOVE l to left right"},
        {cmd_brpoplpush, "BRPOPLPUSH l to 0", "$1\r\n6\r\n", "RPOPLPUSH l to"},
        {cmd_blmpop, "BLMPOP 0 1 l right COUNT 9", "*2\r\n$1\r\nl\r\n*1\r\n$1\r\n5\r\n", "RPOP l 1"},
        {cmd_exists, "EXISTS l", ":0\r\n", NULL},
        {cmd_lrange, "LRANGE to 0 -1", "*2\r\n$1\r\n6\r\n$1\r\n4\r\n", NULL},
        {cmd_zadd, "ZADD z 1 a 2 b 3 c 4.5 d", ":4\r\n", NULL},
        {cmd_bzpopmin, "BZPOPMIN none z 0", "*3\r\n$1\r\nz\r\n$1\r\na\r\n$1\r\n1\r\n", "ZPOPMIN z"},
        {cmd_bzpopmax, "BZPOPMAX z 0", "*3\r\n$1\r\nz\r\n$1\r\nd\r\n$3\r\n4.5\r\n", "ZPOPMAX z"},
        {cmd_bzmpop, "BZMPOP 0 1 z MAX COUNT 5",
         "*2\r\n$1\r\nz\r\n*2\r\n*2\r\n$1\r\nc\r\n$1\r\n3\r\n*2\r\n$1\r\nb\r\n$1\r\n2\r\n", "ZPOPMAX z 2"},
        {cmd_set, "SET s x", "+OK\r\n", NULL},
        {cmd_blpop, "BLPOP s to 0", WRONGTYPE, ""},
        {cmd_blmove, "BLMOVE to s LEFT LEFT 0", WRONGTYPE, ""},
        {cmd_bzmpop, "BZMPOP 0 1 s MIN", WRONGTYPE, ""},
    };
    RUN_STEPS(h, steps);
    run(h, cmd_rpush, "RPUSH q 1");
    run(h, cmd_blpop, "BLPOP q 0");
    assert_string_equal(h->events, "lpop q; del q");
}

static void bad_arguments(void **state)
{
    struct harness *h = *state;
    static const struct step steps[] = {
        {cmd_blpop, "BLPOP k x", "-ERR timeout is not a float or out of range\r\n", ""},
        {cmd_blpop, "BLPOP k -0.5", "-ERR timeout is negative\r\n", ""},
        {cmd_blpop, "BLPOP k 9223372036854776", "-ERR timeout is negative\r\n", ""},
        {cmd_blpop, "BLPOP k inf", "-ERR timeout is negative\r\n", ""},
        {cmd_blmove, "BLMOVE a b x LEFT y", "-ERR syntax error\r\n", ""},
        {cmd_blmove, "BLMOVE a b LEFT LEFT y", "-ERR timeout is not a float or out of range\r\n", ""},
        {cmd_blmpop, "BLMPOP x 0 k LEFT", "-ERR numkeys should be greater than 0\r\n", ""},
        {cmd_blmpop, "BLMPOP x 1 k UP", "-ERR syntax error\r\n", ""},
        {cmd_blmpop, "BLMPOP -1 1 k LEFT", "-ERR timeout is negative\r\n", ""},
        {cmd_bzmpop, "BZMPOP 0 1 k MIN COUNT 0", "-ERR count should be greater than 0\r\n", ""},
    };
    RUN_STEPS(h, steps);
}

static void the_null_where_nobody_may_sleep(void **state)
{
    struct harness *h = *state;
    static const struct step steps[] = {
        {cmd_blpop, "BLPOP k 0", "*-1\r\n", ""},
        {cmd_blmove, "BLMOVE a b LEFT LEFT 0", "$-1\r\n", ""},
        {cmd_brpoplpush, "BRPOPLPUSH a b 0", "$-1\r\n", ""},
        {cmd_blmpop, "BLMPOP 0 1 k LEFT", "*-1\r\n", ""},
        {cmd_bzpopmin, "BZPOPMIN k 0", "*-1\r\n", ""},
        {cmd_bzmpop, "BZMPOP 0 1 k MIN", "*-1\r\n", ""},
    };
    RUN_STEPS(h, steps);
    assert_false(h->waits);
    h->version = 3;
    assert_string_equal(run(h, cmd_blmove, "BLMOVE a b LEFT LEFT 0"), "_\r\n");
    assert_string_equal(run(h, cmd_blpop, "BLPOP a 0"), "_\r\n");
}

static void assert_waits(const struct harness *h, enum value_type type, uint32_t first, uint32_t count, int64_t ms)
{
    assert_true(h->waits);
    assert_int_equal(h->wait.type, type);
    assert_int_equal(h->wait.first, first);
    assert_int_equal(h->wait.count, count);
    assert_int_equal(h->wait.timeout_ms, ms);
}

static void what_they_wait_for(void **state)
{
    struct harness *h = *state;
    h->flags = CALL_MAY_WAIT;
    run(h, cmd_blpop, "BLPOP a b c 0.0012");
    assert_waits(h, TYPE_LIST, 1, 3, 2);
    assert_string_equal(h->kept, "BLPOP a b c 0.0012");
    run(h, cmd_blmove, "BLMOVE a b LEFT RIGHT 0");
    assert_waits(h, TYPE_LIST, 1, 1, 0);
    run(h, cmd_blmpop, "BLMPOP 1 2 a b LEFT COUNT 3");
    assert_waits(h, TYPE_LIST, 3, 2, 1000);
    run(h, cmd_bzpopmax, "BZPOPMAX a a 9223372036854775");
    assert_waits(h, TYPE_ZSET, 1, 2, 9223372036854775000);
    run(h, cmd_bzmpop, "BZMPOP 2.5 1 a MIN");
    assert_waits(h, TYPE_ZSET, 3, 1, 2500);
}

/* Only the key that became ready counts, whatever the others hold. */
static void served_for_one_key(void **state)
{
    struct harness *h = *state;
    run(h, cmd_rpush, "RPUSH a 1");
    run(h, cmd_rpush, "RPUSH b 2");
    run(h, cmd_set, "SET s x");
    h->served_arg = 3;
    assert_string_equal(run(h, cmd_blpop, "BLPOP s a b 0"), "*2\r\n$1\r\nb\r\n$1\r\n2\r\n");
    assert_string_equal(h->effects, "LPOP b");
    h->served_arg = 4;
    assert_string_equal(run(h, cmd_blmpop, "BLMPOP 0 2 s a LEFT"), "*2\r\n$1\r\na\r\n*1\r\n$1\r\n1\r\n");
    run(h, cmd_blmpop, "BLMPOP 0 2 s a LEFT");
    assert_true(h->waits); /* nothing there any more: sleeps on */
    assert_string_equal(h->kept, "");
    h->served_arg = 1;
    run(h, cmd_rpush, "RPUSH a 1");
    assert_string_equal(run(h, cmd_blmove, "BLMOVE a s LEFT LEFT 0"), WRONGTYPE);
    assert_string_equal(run(h, cmd_blmove, "BLMOVE a b LEFT LEFT 0"), "$1\r\n1\r\n");
    run(h, cmd_zadd, "ZADD z 1 m");
    h->version = 3;
    assert_string_equal(run(h, cmd_bzpopmin, "BZPOPMIN z s 0"), "*3\r\n$1\r\nz\r\n$1\r\nm\r\n,1\r\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(with_data, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_arguments, setup, teardown),
        cmocka_unit_test_setup_teardown(the_null_where_nobody_may_sleep, setup, teardown),
        cmocka_unit_test_setup_teardown(what_they_wait_for, setup, teardown),
        cmocka_unit_test_setup_teardown(served_for_one_key, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
