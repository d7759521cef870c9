#include "command/call_test.h"

static int start(void **state)
{
    harness_start(state);
    struct harness *h = *state;
    run(h, cmd_rpush, "RPUSH l 10 2 -5 2.5 2");
    run(h, cmd_rpush, "RPUSH words pear apple '' fig");
    run(h, cmd_sadd, "SADD ids 1 2 3");
    run(h, cmd_zadd, "ZADD z 1 c 2 a 3 b");
    run(h, cmd_mset, "MSET w_1 30 w_2 10 w_3 20 n_1 one n_2 two n_3 3");
    run(h, cmd_hset, "HSET h_1 w 2 name first");
    run(h, cmd_hset, "HSET h_2 w 3 name second");
    run(h, cmd_hset, "HSET h_3 w 1");
    return 0;
}

static void sorting(void **state)
{
    const struct step steps[] = {
        {cmd_sort, "SORT none", "*0\r\n", ""},
        {cmd_sort, "SORT l", "*5\r\n$2\r\n-5\r\n$1\r\n2\r\n$1\r\n2\r\n$3\r\n2.5\r\n$2\r\n10\r\n", ""},
        {cmd_sort_ro, "SORT_RO l DESC LIMIT 0 2", "*2\r\n$2\r\n10\r\n$3\r\n2.5\r\n", ""},
        {cmd_sort, "SORT l LIMIT -3 1", "*1\r\n$2\r\n-5\r\n", ""},
        {cmd_sort, "SORT l LIMIT 4 9223372036854775807", "*1\r\n$2\r\n10\r\n", ""},
        {cmd_sort, "SORT l LIMIT 5 1", "*0\r\n", ""},
        {cmd_sort, "SORT l LIMIT 1 0", "*0\r\n", ""},
        {cmd_sort, "SORT l ALPHA LIMIT 0 3", "*3\r\n$2\r\n-5\r\n$2\r\n10\r\n$1\r\n2\r\n", ""},
        {cmd_sort, "SORT words ALPHA DESC", "*4\r\n$4\r\npear\r\n$3\r\nfig\r\n$5\r\napple\r\n$0\r\n\r\n", ""},
        {cmd_sort, "SORT words", "-ERR One or more scores can't be converted into double\r\n", ""},
        {cmd_sort, "SORT w_1", "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n", ""},
        {cmd_sort, "SORT h_1", "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n", ""},
        {cmd_sort, "SORT l LIMIT 1", "-ERR syntax error\r\n", ""},
        {cmd_sort, "SORT l LIMIT x 1", "-ERR value is not an integer or out of range\r\n", ""},
        {cmd_sort_ro, "SORT_RO l STORE d", "-ERR syntax error\r\n", ""},
    };
    RUN_STEPS(*state, steps);
    assert_false(((struct harness *)*state)->exclusive);
}

static void order_of_the_value(void **state)
{
    const struct step steps[] = {
        {cmd_sort, "SORT l BY nosort LIMIT 1 2", "*2\r\n$1\r\n2\r\n$2\r\n-5\r\n", ""},
        {cmd_sort, "SORT l BY nosort DESC LIMIT 1 2", "*2\r\n$3\r\n2.5\r\n$2\r\n-5\r\n", ""},
        {cmd_sort, "SORT z BY nosort", "*3\r\n$1\r\nc\r\n$1\r\na\r\n$1\r\nb\r\n", ""},
        {cmd_sort, "SORT z BY nosort DESC LIMIT 0 2", "*2\r\n$1\r\nb\r\n$1\r\na\r\n", ""},
        {cmd_sort, "SORT z ALPHA", "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n", ""},
        {cmd_sort, "SORT ids BY nosort STORE d", ":3\r\n", "SORT ids BY nosort STORE d"},
        {cmd_lrange, "LRANGE d 0 -1", "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n", ""},
    };
    RUN_STEPS(*state, steps);
}

/* As redis-server does, even when nothing is returned or the command says that it only reads. */
static void leaves_sorted_sets_large(void **state)
{
    struct harness *h = *state;
    struct key k = key_of(BYTES("z"));
    assert_string_equal(run(h, cmd_sort_ro, "SORT_RO z NOSUCH"), "-ERR syntax error\r\n");
    assert_int_equal(entry_enc(store_find(h->store, 0, &k)), ENC_LISTPACK);
    assert_string_equal(run(h, cmd_sort_ro, "SORT_RO z ALPHA LIMIT 0 0"), "*0\r\n");
    assert_int_equal(entry_enc(store_find(h->store, 0, &k)), ENC_SKIPLIST);
    assert_string_equal(h->effects, "");
    assert_int_equal(h->dirty, 0);
    assert_string_equal(run(h, cmd_sort_ro, "SORT_RO z BY nosort"), "*3\r\n$1\r\nc\r\n$1\r\na\r\n$1\r\nb\r\n");
}

static void patterns_reach_other_slots(void **state)
{
    struct harness *h = *state;
    const struct step steps[] = {
        {cmd_sort, "SORT ids BY w_*", "*3\r\n$1\r\n2\r\n$1\r\n3\r\n$1\r\n1\r\n", ""},
        {cmd_sort, "SORT ids BY h_*->w DESC", "*3\r\n$1\r\n2\r\n$1\r\n1\r\n$1\r\n3\r\n", ""},
        {cmd_sort, "SORT ids BY none_*", "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n", ""},
        {cmd_sort, "SORT ids BY n_*", "-ERR One or more scores can't be converted into double\r\n", ""},
        {cmd_sort, "SORT ids GET n_* GET # GET h_*->name LIMIT 1 2",
         "*6\r\n$3\r\ntwo\r\n$1\r\n2\r\n$6\r\nsecond\r\n$1\r\n3\r\n$1\r\n3\r\n$-1\r\n", ""},
        {cmd_sort, "SORT ids GET h_* GET w_*->f LIMIT 0 1", "*2\r\n$-1\r\n$-1\r\n", ""},
        {cmd_sort, "SORT ids BY nosort GET fixed LIMIT 0 1", "*1\r\n$-1\r\n", ""},
    };
    RUN_STEPS(h, steps);
    run(h, cmd_sort, "SORT ids BY w_*");
    assert_true(h->exclusive);
    run(h, cmd_sort, "SORT ids GET #");
    assert_false(h->exclusive);
    h->version = 3;
    assert_string_equal(run(h, cmd_sort, "SORT ids GET h_*->name LIMIT 2 1"), "*1\r\n_\r\n");
    h->env.cluster_enabled = true;
    assert_string_equal(run(h, cmd_sort, "SORT ids BY w_*"), "-ERR BY option of SORT denied in Cluster mode.\r\n");
    assert_string_equal(run(h, cmd_sort, "SORT ids GET #"), "-ERR GET option of SORT denied in Cluster mode.\r\n");
}

static void storing(void **state)
{
    struct harness *h = *state;
    const struct step steps[] = {
        {cmd_sort, "sort ids BY w_* GET n_* GET h_*->name STORE d", ":6\r\n",
         "sort ids BY w_* GET n_* GET h_*->name STORE d"},
        {cmd_lrange, "LRANGE d 0 -1",
         "*6\r\n$3\r\ntwo\r\n$6\r\nsecond\r\n$1\r\n3\r\n$0\r\n\r\n$3\r\none\r\n$5\r\nfirst\r\n", ""},
        {cmd_sort, "SORT l STORE l", ":5\r\n", "SORT l STORE l"},
        {cmd_lrange, "LRANGE l 0 1", "*2\r\n$2\r\n-5\r\n$1\r\n2\r\n", ""},
        {cmd_sort, "SORT none STORE d", ":0\r\n", "SORT none STORE d"},
        {cmd_exists, "EXISTS d", ":0\r\n", ""},
        {cmd_sort, "SORT none STORE d", ":0\r\n", ""},
        {cmd_sort, "SORT words STORE l", "-ERR One or more scores can't be converted into double\r\n", ""},
        {cmd_llen, "LLEN l", ":5\r\n", ""},
    };
    RUN_STEPS(h, steps);
    run(h, cmd_sort, "SORT l STORE w_1");
    assert_string_equal(h->events, "sortstore w_1");
    assert_int_equal(h->dirty, 5);
}

static void large_values(void **state)
{
    enum { N = 20000 };
    struct harness *h = *state;
    char digits[24];
    struct bytes push[] = {BYTES("RPUSH"), BYTES("big"), {0}};
    for (unsigned i = 0; i < N; i++) {
        push[2] = bytes_make(digits, (size_t)sprintf(digits, "%u", i * 7919u % N));
        run_argv(h, cmd_rpush, push, 3);
    }
    assert_string_equal(run(h, cmd_sort, "SORT big LIMIT 19998 5"), "*2\r\n$5\r\n19998\r\n$5\r\n19999\r\n");
    assert_string_equal(run(h, cmd_sort, "SORT big STORE sorted"), ":20000\r\n");
    assert_string_equal(run(h, cmd_lrange, "LRANGE sorted 12345 12346"), "*2\r\n$5\r\n12345\r\n$5\r\n12346\r\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(sorting, start, harness_stop),
        cmocka_unit_test_setup_teardown(order_of_the_value, start, harness_stop),
        cmocka_unit_test_setup_teardown(leaves_sorted_sets_large, start, harness_stop),
        cmocka_unit_test_setup_teardown(patterns_reach_other_slots, start, harness_stop),
        cmocka_unit_test_setup_teardown(storing, start, harness_stop),
        cmocka_unit_test_setup_teardown(large_values, start, harness_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
