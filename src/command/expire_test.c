#include "command/call_test.h"

static void times_are_set_and_told(void **state)
{
    const struct step steps[] = {
        {cmd_expire, "EXPIRE none 10", ":0\r\n", ""},
        {cmd_ttl, "TTL none", ":-2\r\n", ""},
        {cmd_pexpiretime, "PEXPIRETIME none", ":-2\r\n", ""},
        {cmd_set, "SET k v", "+OK\r\n", NULL},
        {cmd_ttl, "TTL k", ":-1\r\n", ""},
        {cmd_expiretime, "EXPIRETIME k", ":-1\r\n", ""},
        {cmd_persist, "PERSIST k", ":0\r\n", ""},
        {cmd_expire, "EXPIRE k 10", ":1\r\n", "PEXPIREAT k 1000010000"},
        {cmd_pexpire, "PEXPIRE k 1499", ":1\r\n", "PEXPIREAT k 1000001499"},
        {cmd_ttl, "TTL k", ":1\r\n", ""},
        {cmd_pexpire, "pexpire k 1500", ":1\r\n", "PEXPIREAT k 1000001500"},
        {cmd_ttl, "TTL k", ":2\r\n", ""},
        {cmd_pttl, "PTTL k", ":1500\r\n", ""},
        {cmd_expireat, "EXPIREAT k 2000000", ":1\r\n", "PEXPIREAT k 2000000000"},
        {cmd_expiretime, "EXPIRETIME k", ":2000000\r\n", ""},
        {cmd_pexpireat, "pexpireat k 2000000500", ":1\r\n", "pexpireat k 2000000500"},
        {cmd_pexpiretime, "PEXPIRETIME k", ":2000000500\r\n", ""},
        {cmd_expiretime, "EXPIRETIME k", ":2000001\r\n", ""},
        {cmd_persist, "PERSIST k", ":1\r\n", "PERSIST k"},
        {cmd_pttl, "PTTL k", ":-1\r\n", ""},
        {cmd_expire, "EXPIRE k -1", ":1\r\n", "DEL k"},
        {cmd_exists, "EXISTS k", ":0\r\n", ""},
    };
    RUN_STEPS(*state, steps);
    struct harness *h = *state;
    h->options.lazyfree_expire = true;
    run(h, cmd_set, "SET k v");
    run(h, cmd_pexpireat, "PEXPIREAT k 1000000000");
    assert_string_equal(h->effects, "UNLINK k");
    assert_string_equal(h->events, "del k");
}

static void conditions(void **state)
{
    const char both[] = "-ERR NX and XX, GT or LT options at the same time are not compatible\r\n";
    const struct step steps[] = {
        {cmd_set, "SET k v", "+OK\r\n", NULL},
        {cmd_expire, "EXPIRE k 10 XX", ":0\r\n", ""},
        {cmd_expire, "EXPIRE k 10 GT", ":0\r\n", ""},
        {cmd_expire, "EXPIRE k 10 lt", ":1\r\n", "PEXPIREAT k 1000010000 lt"},
        {cmd_expire, "EXPIRE k 20 NX", ":0\r\n", ""},
        {cmd_expire, "EXPIRE k 10 GT", ":0\r\n", ""},
        {cmd_expire, "EXPIRE k 10 LT", ":0\r\n", ""},
        {cmd_expire, "EXPIRE k 11 GT XX", ":1\r\n", "PEXPIREAT k 1000011000 GT XX"},
        {cmd_expire, "EXPIRE k 9 LT", ":1\r\n", "PEXPIREAT k 1000009000 LT"},
        {cmd_expire, "EXPIRE k 1 NX XX", both, ""},
        {cmd_expire, "EXPIRE k 1 NX LT", both, ""},
        {cmd_expire, "EXPIRE k 1 GT LT", "-ERR GT and LT options at the same time are not compatible\r\n", ""},
        {cmd_expire, "EXPIRE k x soon", "-ERR Unsupported option soon\r\n", ""},
        {cmd_expire, "EXPIRE k x", "-ERR value is not an integer or out of range\r\n", ""},
        {cmd_expire, "EXPIRE k 9223372036854775", "-ERR invalid expire time in 'expire' command\r\n", ""},
        {cmd_expireat, "EXPIREAT k -9223372036854776", "-ERR invalid expire time in 'expireat' command\r\n", ""},
        {cmd_pexpire, "PEXPIRE k 9223372036854775807", "-ERR invalid expire time in 'pexpire' command\r\n", ""},
        {cmd_pttl, "PTTL k", ":9000\r\n", ""},
        {cmd_pexpireat, "PEXPIREAT k 9223372036854775807", ":1\r\n", NULL},
        {cmd_ttl, "TTL k", ":9223372035854776\r\n", NULL},
    };
    RUN_STEPS(*state, steps);
}

static void only_a_primary_ends_keys(void **state)
{
    struct harness *h = *state;
    run(h, cmd_set, "SET k v");
    h->flags = CALL_ON_REPLICA | CALL_FROM_PRIMARY;
    assert_string_equal(run(h, cmd_pexpireat, "PEXPIREAT k -5"), ":1\r\n");
    assert_string_equal(run(h, cmd_get, "GET k"), "$1\r\nv\r\n");
    h->flags = CALL_ON_REPLICA;
    assert_string_equal(run(h, cmd_get, "GET k"), "$-1\r\n");
    assert_int_equal(store_db_count(h->store, 0), 1);
    h->flags = 0;
    assert_string_equal(run(h, cmd_ttl, "TTL k"), ":-2\r\n");
    assert_string_equal(h->effects, "DEL k");
    assert_string_equal(h->events, "expired k");
    assert_int_equal(store_db_count(h->store, 0), 0);
    assert_int_equal(store_db_ttl_count(h->store, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(times_are_set_and_told, harness_start, harness_stop),
        cmocka_unit_test_setup_teardown(conditions, harness_start, harness_stop),
        cmocka_unit_test_setup_teardown(only_a_primary_ends_keys, harness_start, harness_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
