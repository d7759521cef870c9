#include "command/call_test.h"

static void deleting_and_counting(void **state)
{
    const struct step steps[] = {
        {cmd_mset, "MSET a 1 b 2 c 3", "+OK\r\n", NULL},
        {cmd_dbsize, "DBSIZE", ":3\r\n", ""},
        {cmd_exists, "EXISTS a b a none", ":3\r\n", ""},
        {cmd_touch, "TOUCH a none", ":1\r\n", ""},
        {cmd_type, "TYPE a", "+string\r\n", ""},
        {cmd_type, "TYPE none", "+none\r\n", ""},
        {cmd_del, "DEL none", ":0\r\n", ""},
        {cmd_del, "DEL a none a", ":1\r\n", "DEL a none a"},
        {cmd_unlink, "UNLINK b c", ":2\r\n", "UNLINK b c"},
        {cmd_dbsize, "DBSIZE", ":0\r\n", ""},
    };
    RUN_STEPS(*state, steps);
    assert_string_equal(((struct harness *)*state)->events, "");
}

static void renaming_keeps_value_and_time(void **state)
{
    struct harness *h = *state;
    const struct step steps[] = {
        {cmd_rename, "RENAME none a", "-ERR no such key\r\n", ""},
        {cmd_set, "SET a 1 EX 10", "+OK\r\n", NULL},
        {cmd_rename, "RENAME a a", "+OK\r\n", ""},
        {cmd_renamenx, "RENAMENX a a", ":0\r\n", ""},
        {cmd_set, "SET b 2", "+OK\r\n", NULL},
        {cmd_renamenx, "RENAMENX a b", ":0\r\n", ""},
        {cmd_renamenx, "RENAMENX a c", ":1\r\n", "RENAMENX a c"},
        {cmd_pttl, "PTTL c", ":10000\r\n", ""},
        {cmd_rename, "rename c b", "+OK\r\n", "rename c b"},
        {cmd_get, "GET b", "$1\r\n1\r\n", ""},
        {cmd_pttl, "PTTL b", ":10000\r\n", ""},
        {cmd_set, "SET plain 1", "+OK\r\n", NULL},
        {cmd_rename, "RENAME plain b", "+OK\r\n", "RENAME plain b"},
        {cmd_pttl, "PTTL b", ":-1\r\n", ""},
        {cmd_dbsize, "DBSIZE", ":1\r\n", ""},
    };
    RUN_STEPS(h, steps);
    run(h, cmd_rename, "RENAME b x");
    assert_string_equal(h->events, "rename_from b; rename_to x");
    assert_int_equal(h->dirty, 1);
    assert_int_equal(store_db_ttl_count(h->store, 0), 0);
}

static void copies_are_independent(void **state)
{
    struct harness *h = *state;
    const struct step steps[] = {
        {cmd_copy, "COPY a b", ":0\r\n", ""},
        {cmd_set, "SET a value EX 10", "+OK\r\n", NULL},
        {cmd_copy, "COPY a a", "-ERR source and destination objects are the same\r\n", ""},
        {cmd_copy, "COPY a b", ":1\r\n", "COPY a b"},
        {cmd_pttl, "PTTL b", ":10000\r\n", ""},
        {cmd_append, "APPEND b x", ":6\r\n", NULL},
        {cmd_get, "GET a", "$5\r\nvalue\r\n", ""},
        {cmd_copy, "COPY b a", ":0\r\n", ""},
        {cmd_copy, "COPY b a REPLACE", ":1\r\n", "COPY b a REPLACE"},
        {cmd_get, "GET a", "$6\r\nvaluex\r\n", ""},
        {cmd_copy, "COPY a a DB 3", ":1\r\n", "COPY a a DB 3"},
        {cmd_copy, "COPY a a DB 16", "-ERR DB index is out of range\r\n", ""},
        {cmd_copy, "COPY a b DB x", "-ERR value is not an integer or out of range\r\n", ""},
        {cmd_copy, "COPY a b DB", "-ERR syntax error\r\n", ""},
    };
    RUN_STEPS(h, steps);
    h->db = 3;
    assert_string_equal(run(h, cmd_get, "GET a"), "$6\r\nvaluex\r\n");
    h->db = 0;
    h->env.cluster_enabled = h->env.one_database = true;
    assert_string_equal(run(h, cmd_copy, "COPY a z DB 3"),
                        "-ERR Copying to another database is not allowed in cluster mode\r\n");
}

static void moving_between_databases(void **state)
{
    struct harness *h = *state;
    const struct step steps[] = {
        {cmd_set, "SET a 1 EX 10", "+OK\r\n", NULL},
        {cmd_move, "MOVE none 1", ":0\r\n", ""},
        {cmd_move, "MOVE a 0", "-ERR source and destination objects are the same\r\n", ""},
        {cmd_move, "MOVE a 16", "-ERR DB index is out of range\r\n", ""},
        {cmd_move, "MOVE a 99999999999",
         "-ERR value is out of range, value must between -2147483648 and 2147483647\r\n", ""},
        {cmd_move, "MOVE a 1", ":1\r\n", "MOVE a 1"},
        {cmd_set, "SET a 2", "+OK\r\n", NULL},
        {cmd_move, "MOVE a 1", ":0\r\n", ""},
    };
    RUN_STEPS(h, steps);
    h->now_ms += 10000;
    /* What is in the way is over: its deletion belongs to the other database. */
    assert_string_equal(run(h, cmd_move, "MOVE a 1"), ":1\r\n");
    assert_string_equal(h->effects, "SELECT 1; DEL a; SELECT 0; MOVE a 1");
    assert_string_equal(h->events, "expired a; move_from a; move_to a");
    assert_int_equal(store_db_count(h->store, 0), 0);
    assert_int_equal(store_db_count(h->store, 1), 1);
}

static void object_tells_about_a_key(void **state)
{
    struct harness *h = *state;
    run(h, cmd_set, "SET a x");
    h->lru_clock += 77;
    const struct step steps[] = {
        {cmd_object_idletime, "OBJECT IDLETIME a", ":77\r\n", ""},
        {cmd_exists, "EXISTS a", ":1\r\n", ""},
        {cmd_object_idletime, "OBJECT IDLETIME a", ":77\r\n", ""},
        {cmd_touch, "TOUCH a", ":1\r\n", ""},
        {cmd_object_idletime, "OBJECT IDLETIME a", ":0\r\n", ""},
        {cmd_object_refcount, "OBJECT REFCOUNT a", ":1\r\n", ""},
        {cmd_object_freq, "OBJECT FREQ a",
         "-ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching "
         "between policies at runtime LRU and LFU data will take some time to adjust.\r\n",
         ""},
        {cmd_object_freq, "OBJECT FREQ none", "$-1\r\n", ""},
        {cmd_object_encoding, "OBJECT ENCODING none", "$-1\r\n", ""},
        {cmd_memory_usage, "MEMORY USAGE none", "$-1\r\n", ""},
        {cmd_memory_usage, "MEMORY USAGE a SAMPLES -1", "-ERR syntax error\r\n", ""},
        {cmd_memory_usage, "MEMORY USAGE a SAMPLES", "-ERR syntax error\r\n", ""},
    };
    RUN_STEPS(h, steps);
    assert_true(strtoll(run(h, cmd_memory_usage, "MEMORY USAGE a SAMPLES 0") + 1, NULL, 10) >= 8);
    h->options.lfu = true;
    assert_true(run(h, cmd_object_freq, "OBJECT FREQ a")[0] == ':');
    assert_true(run(h, cmd_object_idletime, "OBJECT IDLETIME a")[0] == '-');
    assert_true(strncmp(run(h, cmd_object_help, "OBJECT HELP"), "*15\r\n", 5) == 0);
}

static void random_keys_are_uniform_and_alive(void **state)
{
    enum { KEYS = 20, DRAWS = 4000 };
    struct harness *h = *state;
    char line[64];
    unsigned seen[KEYS] = {0};
    assert_string_equal(run(h, cmd_randomkey, "RANDOMKEY"), "$-1\r\n");
    for (int i = 0; i < KEYS; i++) {
        /* Half of them share a slot. */
        sprintf(line, i % 2 ? "SET {t}%02d x" : "SET %02d x PX 100000", i);
        run(h, cmd_set, line);
        sprintf(line, "SET over%d x PX 1", i);
        if (i < 5) run(h, cmd_set, line);
    }
    h->now_ms += 5;
    for (int i = 0; i < DRAWS; i++) {
        run(h, cmd_randomkey, "RANDOMKEY");
        assert_true(h->reply[0] == '$');
        const char *name = strchr(h->reply, '\n') + 1;
        int n = atoi(name[0] == '{' ? name + 3 : name);
        assert_true(name[0] != 'o' && n < KEYS);
        seen[n]++;
    }
    for (int i = 0; i < KEYS; i++) assert_in_range(seen[i], DRAWS / KEYS / 3, DRAWS / KEYS * 3);
    assert_string_equal(h->effects, "");
}

static void flushing(void **state)
{
    struct harness *h = *state;
    run(h, cmd_mset, "MSET a 1 b 2 c 3");
    h->db = 2;
    run(h, cmd_mset, "MSET a 1 b 2");
    assert_string_equal(run(h, cmd_flushdb, "FLUSHDB LATER"), "-ERR syntax error\r\n");
    assert_string_equal(run(h, cmd_flushdb, "FLUSHDB ASYNC SYNC"), "-ERR syntax error\r\n");
    assert_string_equal(run(h, cmd_flushdb, "flushdb async"), "+OK\r\n");
    assert_true(h->exclusive);
    assert_string_equal(h->effects, "flushdb async");
    assert_int_equal(h->dirty, 2);
    assert_int_equal(h->flushes, 1);
    assert_int_equal(h->flushed_db, 2);
    assert_int_equal(store_db_count(h->store, 2), 0);
    assert_int_equal(store_db_count(h->store, 0), 3);
    assert_string_equal(run(h, cmd_flushall, "FLUSHALL"), "+OK\r\n");
    assert_int_equal(h->flushed_db, -1);
    assert_int_equal(store_db_count(h->store, 0), 0);
    /* Propagated though nothing was there. */
    assert_string_equal(run(h, cmd_flushall, "FLUSHALL SYNC"), "+OK\r\n");
    assert_string_equal(h->effects, "FLUSHALL SYNC");
    assert_string_equal(run(h, cmd_get, "GET a"), "$-1\r\n");
}

static size_t tables_taken;

static void take_tables(void *ctx, struct table **tables, size_t n)
{
    (void)ctx;
    tables_taken += n;
    for (size_t i = 0; i < n; i++) store_table_free(tables[i]);
}

static void flushed_tables_go_to_the_background(void **state)
{
    struct harness *h = *state;
    h->env.free_tables = take_tables;
    run(h, cmd_mset, "MSET a 1 b 2 c 3");
    run(h, cmd_flushall, "FLUSHALL");
    assert_int_equal(tables_taken, 3); /* three slots */
}

static void swapping(void **state)
{
    struct harness *h = *state;
    run(h, cmd_set, "SET a zero");
    const struct step steps[] = {
        {cmd_swapdb, "SWAPDB x 1", "-ERR invalid first DB index\r\n", ""},
        {cmd_swapdb, "SWAPDB 99999999999 1", "-ERR invalid first DB index\r\n", ""},
        {cmd_swapdb, "SWAPDB 0 x", "-ERR invalid second DB index\r\n", ""},
        {cmd_swapdb, "SWAPDB 0 16", "-ERR DB index is out of range\r\n", ""},
        {cmd_swapdb, "SWAPDB 0 5", "+OK\r\n", "SWAPDB 0 5"},
        {cmd_get, "GET a", "$-1\r\n", ""},
    };
    RUN_STEPS(h, steps);
    assert_int_equal(h->flushes, 2);
    h->db = 5;
    assert_string_equal(run(h, cmd_get, "GET a"), "$4\r\nzero\r\n");
    h->env.cluster_enabled = h->env.one_database = true;
    assert_string_equal(run(h, cmd_swapdb, "SWAPDB 0 5"), "-ERR SWAPDB is not allowed in cluster mode\r\n");
    assert_string_equal(run(h, cmd_move, "MOVE a 1"), "-ERR MOVE is not allowed in cluster mode\r\n");
}

static void echo_and_time(void **state)
{
    struct harness *h = *state;
    assert_string_equal(run(h, cmd_echo, "ECHO 'a b'"), "$3\r\na b\r\n");
    assert_true(strncmp(run(h, cmd_time, "TIME"), "*2\r\n$10\r\n", 9) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(deleting_and_counting, harness_start, harness_stop),
        cmocka_unit_test_setup_teardown(renaming_keeps_value_and_time, harness_start, harness_stop),
        cmocka_unit_test_setup_teardown(copies_are_independent, harness_start, harness_stop),
        cmocka_unit_test_setup_teardown(moving_between_databases, harness_start, harness_stop),
        cmocka_unit_test_setup_teardown(object_tells_about_a_key, harness_start, harness_stop),
        cmocka_unit_test_setup_teardown(random_keys_are_uniform_and_alive, harness_start, harness_stop),
        cmocka_unit_test_setup_teardown(flushing, harness_start, harness_stop),
        cmocka_unit_test_setup_teardown(flushed_tables_go_to_the_background, harness_start, harness_stop),
        cmocka_unit_test_setup_teardown(swapping, harness_start, harness_stop),
        cmocka_unit_test_setup_teardown(echo_and_time, harness_start, harness_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
