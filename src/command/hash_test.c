#include "command/call_test.h"

#include <stdlib.h>

#define NOT_A_HASH "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"

static void test_set_and_get(void **state)
{
    struct harness h;
    harness_init(&h);
    static const struct step steps[] = {
        {cmd_hset, "HSET h a 1 b 2", ":2\r\n", "HSET h a 1 b 2"},
        {cmd_hset, "HSET h a 3 c 4", ":1\r\n", "HSET h a 3 c 4"},
        {cmd_hset, "HSET h a 1 b", "-ERR wrong number of arguments for 'hset' command\r\n", ""},
        {cmd_hmset, "HMSET h d 5 e", "-ERR wrong number of arguments for 'hmset' command\r\n", ""},
        {cmd_hmset, "hmset h d 5", "+OK\r\n", "hmset h d 5"},
        {cmd_hsetnx, "HSETNX h d 6", ":0\r\n", ""},
        {cmd_hsetnx, "HSETNX h e 6", ":1\r\n", "HSETNX h e 6"},
        {cmd_hget, "HGET h a", "$1\r\n3\r\n", ""},
        {cmd_hget, "HGET h x", "$-1\r\n", ""},
        {cmd_hmget, "HMGET h d x a", "*3\r\n$1\r\n5\r\n$-1\r\n$1\r\n3\r\n", ""},
        {cmd_hmget, "HMGET none d x", "*2\r\n$-1\r\n$-1\r\n", ""},
        {cmd_hlen, "HLEN h", ":5\r\n", ""},
        {cmd_hstrlen, "HSTRLEN h a", ":1\r\n", ""},
        {cmd_hexists, "HEXISTS h a", ":1\r\n", ""},
        {cmd_hexists, "HEXISTS none a", ":0\r\n", ""},
        {cmd_hkeys, "HKEYS h", "*5\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n$1\r\ne\r\n", ""},
        {cmd_hvals, "HVALS none", "*0\r\n", ""},
        {cmd_hdel, "HDEL h b x c d e", ":4\r\n", "HDEL h b x c d e"},
        {cmd_hgetall, "HGETALL h", "*2\r\n$1\r\na\r\n$1\r\n3\r\n", ""},
        {cmd_hdel, "HDEL h x", ":0\r\n", ""},
        {cmd_hdel, "HDEL h a a", ":1\r\n", "HDEL h a a"},
        {cmd_sadd, "SADD s a", ":1\r\n", NULL},
        {cmd_hset, "HSET s a 1", NOT_A_HASH, ""},
        {cmd_hget, "HGET s a", NOT_A_HASH, ""},
    };
    RUN_STEPS(&h, steps);
    assert_int_equal(store_db_count(h.store, 0), 1);
    h.version = 3;
    assert_string_equal(run(&h, cmd_hgetall, "HGETALL none"), "%0\r\n");
    assert_string_equal(run(&h, cmd_hget, "HGET none a"), "_\r\n");
    run(&h, cmd_hset, "HSET h a 1");
    assert_string_equal(h.events, "hset h");
    assert_string_equal(run(&h, cmd_hgetall, "HGETALL h"), "%1\r\n$1\r\na\r\n$1\r\n1\r\n");
    run(&h, cmd_hdel, "HDEL h a");
    assert_string_equal(h.events, "hdel h; del h");
    harness_deinit(&h);
}

static void test_increments(void **state)
{
    struct harness h;
    harness_init(&h);
    static const struct step steps[] = {
        {cmd_hincrby, "HINCRBY h n 5", ":5\r\n", "HINCRBY h n 5"},
        {cmd_hincrby, "HINCRBY h n -7", ":-2\r\n", "HINCRBY h n -7"},
        {cmd_hincrby, "HINCRBY h n 1.5", "-ERR value is not an integer or out of range\r\n", ""},
        {cmd_hset, "HSET h t abc max 9223372036854775807 inf inf", ":3\r\n", NULL},
        {cmd_hincrby, "HINCRBY h t 1", "-ERR hash value is not an integer\r\n", ""},
        {cmd_hincrby, "HINCRBY h max 1", "-ERR increment or decrement would overflow\r\n", ""},
        {cmd_hincrbyfloat, "HINCRBYFLOAT h f 10.5", "$4\r\n10.5\r\n", "HSET h f 10.5"},
        {cmd_hincrbyfloat, "HINCRBYFLOAT h f 0.1", "$4\r\n10.6\r\n", "HSET h f 10.6"},
        {cmd_hincrbyfloat, "HINCRBYFLOAT h f -10.6", "$1\r\n0\r\n", "HSET h f 0"},
        {cmd_hincrbyfloat, "HINCRBYFLOAT h f x", "-ERR value is not a valid float\r\n", ""},
        {cmd_hincrbyfloat, "HINCRBYFLOAT h f inf", "-ERR value is NaN or Infinity\r\n", ""},
        {cmd_hincrbyfloat, "HINCRBYFLOAT h t 1", "-ERR hash value is not a float\r\n", ""},
        {cmd_hincrbyfloat, "HINCRBYFLOAT h inf 1", "-ERR increment would produce NaN or Infinity\r\n", ""},
        {cmd_hincrbyfloat, "HINCRBYFLOAT new f 3.0e3", "$4\r\n3000\r\n", "HSET new f 3000"},
    };
    RUN_STEPS(&h, steps);
    harness_deinit(&h);
}

/* In place edits keep the time to live; a hash that is over is a new one. */
static void test_expiry(void **state)
{
    struct harness h;
    harness_init(&h);
    run(&h, cmd_hset, "HSET h a 1");
    struct key k = key_of(BYTES("h"));
    store_set_expire(h.store, 0, &k, HARNESS_NOW + 100);
    run(&h, cmd_hset, "HSET h b 1");
    assert_int_equal(entry_expire_at(store_find(h.store, 0, &k)), HARNESS_NOW + 100);
    h.now_ms += 100;
    assert_string_equal(run(&h, cmd_hincrby, "HINCRBY h a 1"), ":1\r\n");
    assert_string_equal(h.effects, "DEL h; HINCRBY h a 1");
    assert_string_equal(run(&h, cmd_hlen, "HLEN h"), ":1\r\n");
    assert_int_equal(entry_expire_at(store_find(h.store, 0, &k)), -1);
    harness_deinit(&h);
}

static void test_encodings(void **state)
{
    struct harness h;
    harness_init(&h);
    struct key k = key_of(BYTES("h"));
    h.options.limits.hash_max_listpack_value = 4;
    run(&h, cmd_hset, "HSET h a 1234");
    assert_int_equal(entry_enc(store_find(h.store, 0, &k)), ENC_LISTPACK);
    run(&h, cmd_hsetnx, "HSETNX h a 12345");
    assert_int_equal(entry_enc(store_find(h.store, 0, &k)), ENC_LISTPACK);
    run(&h, cmd_hset, "HSET h a 12345");
    assert_int_equal(entry_enc(store_find(h.store, 0, &k)), ENC_HASHTABLE);
    assert_string_equal(run(&h, cmd_hstrlen, "HSTRLEN h a"), ":5\r\n");
    harness_deinit(&h);
}

static void test_scan(void **state)
{
    struct harness h;
    harness_init(&h);
    static const struct step steps[] = {
        {cmd_hscan, "HSCAN none 0 BAD", "*2\r\n$1\r\n0\r\n*0\r\n", ""},
        {cmd_hscan, "HSCAN none x", "-ERR invalid cursor\r\n", ""},
        {cmd_hset, "HSET h a 1 b 2", ":2\r\n", NULL},
        {cmd_hscan, "HSCAN h 0 COUNT 1", "*2\r\n$1\r\n0\r\n*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$1\r\n2\r\n", ""},
        {cmd_hscan, "HSCAN h 0 MATCH b*", "*2\r\n$1\r\n0\r\n*2\r\n$1\r\nb\r\n$1\r\n2\r\n", ""},
        {cmd_hscan, "HSCAN h 0 COUNT 0", "-ERR syntax error\r\n", ""},
        {cmd_hscan, "HSCAN h 0 TYPE hash", "-ERR syntax error\r\n", ""},
        {cmd_hscan, "HSCAN h 0 COUNT x", "-ERR value is not an integer or out of range\r\n", ""},
    };
    RUN_STEPS(&h, steps);
    harness_deinit(&h);
}

/* A large hash is seen whole over several calls. */
static void test_scan_large(void **state)
{
    enum { FIELDS = 3000 };
    struct harness h;
    harness_init(&h);
    char line[64];
    static bool seen[FIELDS];
    for (int i = 0; i < FIELDS; i++) {
        snprintf(line, sizeof line, "HSET h f%d %d", i, i);
        run(&h, cmd_hset, line);
    }
    uint64_t cursor = 0;
    int calls = 0;
    do {
        snprintf(line, sizeof line, "HSCAN h %llu COUNT 50", (unsigned long long)cursor);
        run(&h, cmd_hscan, line);
        struct resp_reply_parser p = {0};
        struct resp_value *v;
        assert_int_equal(resp_parse_reply(&p, bytes_make(h.reply, h.reply_length), &v), OK);
        cursor = strtoull(v->child[0].str.p, NULL, 10);
        assert_true(v->child[1].n < 1000);
        for (size_t i = 0; i < v->child[1].n; i += 2) seen[atoi(v->child[1].child[i].str.p + 1)] = true;
        resp_value_free(v);
        calls++;
    } while (cursor);
    for (int i = 0; i < FIELDS; i++) assert_true(seen[i]);
    assert_in_range(calls, 10, FIELDS);
    harness_deinit(&h);
}

static void test_random_fields(void **state)
{
    struct harness h;
    harness_init(&h);
    static const struct step steps[] = {
        {cmd_hrandfield, "HRANDFIELD none", "$-1\r\n", ""},
        {cmd_hrandfield, "HRANDFIELD none 3", "*0\r\n", ""},
        {cmd_hset, "HSET h a 1", ":1\r\n", NULL},
        {cmd_hrandfield, "HRANDFIELD h", "$1\r\na\r\n", ""},
        {cmd_hrandfield, "HRANDFIELD h 0", "*0\r\n", ""},
        {cmd_hrandfield, "HRANDFIELD h 5 WITHVALUES", "*2\r\n$1\r\na\r\n$1\r\n1\r\n", ""},
        {cmd_hrandfield, "HRANDFIELD h -2", "*2\r\n$1\r\na\r\n$1\r\na\r\n", ""},
        {cmd_hrandfield, "HRANDFIELD h -2 withvalues", "*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\na\r\n$1\r\n1\r\n", ""},
        {cmd_hrandfield, "HRANDFIELD h x", "-ERR value is not an integer or out of range\r\n", ""},
        {cmd_hrandfield, "HRANDFIELD h 1 x", "-ERR syntax error\r\n", ""},
        {cmd_hrandfield, "HRANDFIELD h 1 WITHVALUES x", "-ERR syntax error\r\n", ""},
        {cmd_hrandfield, "HRANDFIELD h 9223372036854775807 WITHVALUES", "-ERR value is out of range\r\n", ""},
        {cmd_hrandfield, "HRANDFIELD h -9223372036854775807", "-ERR value is out of range\r\n", ""},
        {cmd_hrandfield, "HRANDFIELD nosuch -9223372036854775807", "*0\r\n", ""},
        {cmd_hrandfield, "HRANDFIELD nosuch -2147483649 WITHVALUES", "*0\r\n", ""},
        {cmd_hrandfield, "HRANDFIELD h -9223372036854775808",
         "-ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807\r\n", ""},
    };
    RUN_STEPS(&h, steps);
    h.version = 3;
    assert_string_equal(run(&h, cmd_hrandfield, "HRANDFIELD h 5 WITHVALUES"), "*1\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n");
    assert_string_equal(run(&h, cmd_hrandfield, "HRANDFIELD h -2 WITHVALUES"),
                        "*2\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n");
    harness_deinit(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_and_get),   cmocka_unit_test(test_increments), cmocka_unit_test(test_expiry),
        cmocka_unit_test(test_encodings),     cmocka_unit_test(test_scan),       cmocka_unit_test(test_scan_large),
        cmocka_unit_test(test_random_fields),
    };
    return cmocka_run_group_tests_name("hash commands", tests, NULL, NULL);
}
