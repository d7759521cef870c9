/* DUMP, RESTORE: order of checks, texts, times of expiry, and what replicas repeat. */
#include "command/call_test.h"

#define ABC "\"\\x00\\x03abc\\n\\x00\\xd9\\xac0=Ar\\xa2\\xe2\""
#define BUSY "-BUSYKEY Target key name already exists.\r\n"
#define BAD_SUM "-ERR DUMP payload version or checksum are wrong\r\n"
#define QUOTED_ABC "'\\x00\\x03abc\\x0a\\x00\\xd9\\xac0=Ar\\xa2\\xe2'"

static void test_dump(void **state)
{
    struct harness h;
    harness_init(&h);
    assert_string_equal(run(&h, cmd_dump, "DUMP k"), "$-1\r\n");
    run(&h, cmd_set, "SET k abc");
    run(&h, cmd_dump, "DUMP k");
    static const char want[] = "$15\r\n\x00\x03"
                               "abc\x0a\x00\xd9\xac\x30\x3d\x41\x72\xa2\xe2\r\n";
    assert_int_equal(h.reply_length, sizeof want - 1);
    assert_memory_equal(h.reply, want, sizeof want - 1);
    assert_int_equal(h.dirty, 0);
    h.now_ms += 1000;
    run(&h, cmd_set, "SET k abc PX 10");
    h.now_ms += 11;
    assert_string_equal(run(&h, cmd_dump, "DUMP k"), "$-1\r\n");
    harness_deinit(&h);
}

static void test_restore(void **state)
{
    struct harness h;
    harness_init(&h);
    static const struct step steps[] = {
        {cmd_restore, "RESTORE k 0 " ABC, "+OK\r\n", "RESTORE k 0 " QUOTED_ABC},
        {cmd_get, "GET k", "$3\r\nabc\r\n", ""},
        {cmd_restore, "RESTORE k 0 " ABC, BUSY, ""},
        {cmd_restore, "RESTORE k 5000 " ABC " replace", "+OK\r\n",
         "RESTORE k 1000005000 " QUOTED_ABC " replace ABSTTL"},
        {cmd_pttl, "PTTL k", ":5000\r\n", ""},
        {cmd_restore, "RESTORE k 1000007000 " ABC " REPLACE ABSTTL", "+OK\r\n",
         "RESTORE k 1000007000 " QUOTED_ABC " REPLACE ABSTTL"},
        {cmd_pttl, "PTTL k", ":7000\r\n", ""},
        {cmd_restore_asking, "RESTORE-ASKING k 0 " ABC " REPLACE", "+OK\r\n",
         "RESTORE-ASKING k 0 " QUOTED_ABC " REPLACE"},
        {cmd_pttl, "PTTL k", ":-1\r\n", ""},
    };
    RUN_STEPS(&h, steps);
    run(&h, cmd_restore, "RESTORE k 0 " ABC " REPLACE");
    assert_string_equal(h.events, "restore k");
    harness_deinit(&h);
}

static void test_restore_already_over(void **state)
{
    struct harness h;
    harness_init(&h);
    assert_string_equal(run(&h, cmd_restore, "RESTORE k 5 " ABC " ABSTTL"), "+OK\r\n");
    assert_string_equal(h.effects, "");
    assert_string_equal(run(&h, cmd_get, "GET k"), "$-1\r\n");
    assert_string_equal(run(&h, cmd_restore, "RESTORE k 9223372036854775807 " ABC), "+OK\r\n");
    assert_string_equal(run(&h, cmd_get, "GET k"), "$-1\r\n");
    run(&h, cmd_set, "SET k old");
    assert_string_equal(run(&h, cmd_restore, "RESTORE k 5 " ABC " REPLACE ABSTTL"), "+OK\r\n");
    assert_string_equal(h.effects, "DEL k");
    assert_string_equal(h.events, "del k");
    assert_string_equal(run(&h, cmd_get, "GET k"), "$-1\r\n");
    /* A replica keeps what its primary sends. */
    h.flags = CALL_FROM_PRIMARY | CALL_ON_REPLICA;
    assert_string_equal(run(&h, cmd_restore, "RESTORE k 5 " ABC " ABSTTL"), "+OK\r\n");
    assert_string_equal(h.events, "restore k");
    harness_deinit(&h);
}

static void test_restore_refuses(void **state)
{
    struct harness h;
    harness_init(&h);
    run(&h, cmd_set, "SET there 1");
    static const struct step steps[] = {
        {cmd_restore, "RESTORE there x y FOO", "-ERR syntax error\r\n", ""},
        {cmd_restore, "RESTORE there x y IDLETIME", "-ERR syntax error\r\n", ""},
        {cmd_restore, "RESTORE there x y IDLETIME 1 FREQ 1", "-ERR syntax error\r\n", ""},
        {cmd_restore, "RESTORE there x y IDLETIME -1", "-ERR Invalid IDLETIME value, must be >= 0\r\n", ""},
        {cmd_restore, "RESTORE there x y IDLETIME a", "-ERR value is not an integer or out of range\r\n", ""},
        {cmd_restore, "RESTORE there x y FREQ 256", "-ERR Invalid FREQ value, must be >= 0 and <= 255\r\n", ""},
        {cmd_restore, "RESTORE there x y", BUSY, ""},
        {cmd_restore, "RESTORE k x y", "-ERR value is not an integer or out of range\r\n", ""},
        {cmd_restore, "RESTORE k -1 y", "-ERR Invalid TTL value, must be >= 0\r\n", ""},
        {cmd_restore, "RESTORE k 0 y", BAD_SUM, ""},
        {cmd_restore, "RESTORE k 0 \"\\x00\\x03abd\\n\\x00\\xd9\\xac0=Ar\\xa2\\xe2\"", BAD_SUM, ""},
    };
    RUN_STEPS(&h, steps);
    /* A right checksum around a set without members. */
    struct buf payload = {0};
    buf_append(&payload, "\x02\x00\x0a\x00", 4);
    uint64_t crc = crc64(0, payload.p, payload.n);
    buf_append(&payload, &crc, 8);
    struct bytes argv[] = {BYTES("RESTORE"), BYTES("k"), BYTES("0"), buf_bytes(&payload)};
    assert_string_equal(run_argv(&h, cmd_restore, argv, 4), "-ERR Bad data format\r\n");
    assert_int_equal(h.dirty, 0);
    buf_deinit(&payload);
    harness_deinit(&h);
}

static void test_restore_access(void **state)
{
    struct harness h;
    harness_init(&h);
    struct key k = key_of(BYTES("k"));
    run(&h, cmd_restore, "RESTORE k 0 " ABC " IDLETIME 300");
    assert_int_equal(entry_lru(store_find(h.store, 0, &k)), HARNESS_LRU - 300);
    run(&h, cmd_restore, "RESTORE k 0 " ABC " REPLACE FREQ 7");
    assert_int_equal(entry_lru(store_find(h.store, 0, &k)), HARNESS_LRU);
    h.options.lfu = true;
    run(&h, cmd_restore, "RESTORE k 0 " ABC " REPLACE FREQ 7");
    assert_int_equal(entry_lru(store_find(h.store, 0, &k)) & 255, 7);
    harness_deinit(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dump),
        cmocka_unit_test(test_restore),
        cmocka_unit_test(test_restore_already_over),
        cmocka_unit_test(test_restore_refuses),
        cmocka_unit_test(test_restore_access),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
