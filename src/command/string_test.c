#include "base/clock.h"
#include "command/call_test.h"
#include "store/stream.h"

static void set_replies_and_propagates(void **state)
{
    const struct step steps[] = {
        {cmd_get, "GET k", "$-1\r\n", ""},
        {cmd_set, "set k v", "+OK\r\n", "set k v"},
        {cmd_get, "GET k", "$1\r\nv\r\n", ""},
        {cmd_set, "SET k w NX", "$-1\r\n", ""},
        {cmd_set, "SET k w XX", "+OK\r\n", "SET k w XX"},
        {cmd_set, "SET k x NX GET", "$1\r\nw\r\n", ""},
        {cmd_set, "SET k x XX get", "$1\r\nw\r\n", "SET k x XX"},
        {cmd_set, "SET none x XX GET", "$-1\r\n", ""},
        {cmd_set, "SET k y EX 10 GET", "$1\r\nx\r\n", "SET k y PXAT 1000010000"},
        {cmd_pexpiretime, "PEXPIRETIME k", ":1000010000\r\n", ""},
        {cmd_set, "SET k z KEEPTTL", "+OK\r\n", "SET k z KEEPTTL"},
        {cmd_pexpiretime, "PEXPIRETIME k", ":1000010000\r\n", ""},
        {cmd_set, "SET k a pxat 2000000000 xx", "+OK\r\n", "SET k a PXAT 2000000000"},
        {cmd_set, "SET k b px 7", "+OK\r\n", "SET k b PXAT 1000000007"},
        {cmd_set, "SET k c", "+OK\r\n", "SET k c"},
        {cmd_pttl, "PTTL k", ":-1\r\n", ""},
        {cmd_setex, "setex k 5 d", "+OK\r\n", "SET k d PXAT 1000005000"},
        {cmd_psetex, "psetex k 5 d", "+OK\r\n", "SET k d PXAT 1000000005"},
        {cmd_setnx, "SETNX k e", ":0\r\n", ""},
        {cmd_setnx, "SETNX l e", ":1\r\n", "SETNX l e"},
        {cmd_getset, "GETSET k f", "$1\r\nd\r\n", "SET k f"},
        {cmd_pttl, "PTTL k", ":-1\r\n", ""},
        {cmd_getset, "GETSET new f", "$-1\r\n", "SET new f"},
        {cmd_getdel, "GETDEL k", "$1\r\nf\r\n", "DEL k"},
        {cmd_getdel, "GETDEL k", "$-1\r\n", ""},
    };
    RUN_STEPS(*state, steps);
}

static void set_refuses(void **state)
{
    const char syntax[] = "-ERR syntax error\r\n", number[] = "-ERR value is not an integer or out of range\r\n";
    const char time[] = "-ERR invalid expire time in 'set' command\r\n";
    const struct step steps[] = {
        {cmd_set, "SET k v NX XX", syntax, ""},
        {cmd_set, "SET k v EX", syntax, ""},
        {cmd_set, "SET k v EX 1 PX 1", syntax, ""},
        {cmd_set, "SET k v KEEPTTL EX 1", syntax, ""},
        {cmd_set, "SET k v EX 1 KEEPTTL", syntax, ""},
        {cmd_set, "SET k v PERSIST", syntax, ""},
        {cmd_set, "SET k v EX x", number, ""},
        {cmd_set, "SET k v EX 0", time, ""},
        {cmd_set, "SET k v PX -1", time, ""},
        {cmd_set, "SET k v EX 9223372036854776", time, ""},
        {cmd_set, "SET k v PX 9223372036854775807", time, ""},
        {cmd_set, "SET k v EX 1 EX 2", "+OK\r\n", "SET k v PXAT 1000002000"},
        {cmd_setex, "SETEX k 0 v", "-ERR invalid expire time in 'setex' command\r\n", ""},
        {cmd_psetex, "PSETEX k -5 v", "-ERR invalid expire time in 'psetex' command\r\n", ""},
        {cmd_getex, "GETEX k KEEPTTL", syntax, ""},
        {cmd_getex, "GETEX k PERSIST EX 1", syntax, ""},
        {cmd_getex, "GETEX none EX 0", "$-1\r\n", ""},
        {cmd_getex, "GETEX k EX 0", "-ERR invalid expire time in 'getex' command\r\n", ""},
        {cmd_get, "GET k", "$1\r\nv\r\n", ""},
        {cmd_mset, "MSET a 1 b", "-ERR wrong number of arguments for 'mset' command\r\n", ""},
        {cmd_msetnx, "MSETNX a 1 b", "-ERR wrong number of arguments for 'msetnx' command\r\n", ""},
    };
    RUN_STEPS(*state, steps);
}

static void getex_propagates_what_it_did(void **state)
{
    const struct step steps[] = {
        {cmd_set, "SET k v", "+OK\r\n", NULL},
        {cmd_getex, "GETEX k", "$1\r\nv\r\n", ""},
        {cmd_getex, "GETEX k PERSIST", "$1\r\nv\r\n", ""},
        {cmd_getex, "GETEX k EX 10", "$1\r\nv\r\n", "PEXPIREAT k 1000010000"},
        {cmd_getex, "GETEX k PERSIST", "$1\r\nv\r\n", "PERSIST k"},
        {cmd_getex, "GETEX k PXAT 1000000001", "$1\r\nv\r\n", "PEXPIREAT k 1000000001"},
        {cmd_getex, "GETEX k EXAT 1", "$1\r\nv\r\n", "DEL k"},
        {cmd_exists, "EXISTS k", ":0\r\n", ""},
    };
    RUN_STEPS(*state, steps);
    struct harness *h = *state;
    h->options.lazyfree_expire = h->options.lazyfree_user_del = true;
    const struct step lazy[] = {
        {cmd_mset, "MSET k v l w", "+OK\r\n", "MSET k v l w"},
        {cmd_getex, "GETEX k EXAT 1", "$1\r\nv\r\n", "UNLINK k"},
        {cmd_getdel, "GETDEL l", "$1\r\nw\r\n", "UNLINK l"},
    };
    RUN_STEPS(h, lazy);
}

static void expired_keys_are_gone(void **state)
{
    struct harness *h = *state;
    run(h, cmd_set, "SET a 1 PX 10");
    run(h, cmd_set, "SET b 1 PX 10");
    run(h, cmd_set, "SET c 1 PX 10");
    h->now_ms += 10;
    const struct step steps[] = {
        {cmd_get, "GET a", "$-1\r\n", "DEL a"},
        {cmd_get, "GET a", "$-1\r\n", ""},
        {cmd_incr, "INCR b", ":1\r\n", "DEL b; INCR b"},
        {cmd_set, "SET c 2", "+OK\r\n", "DEL c; SET c 2"},
        {cmd_pttl, "PTTL c", ":-1\r\n", ""},
    };
    RUN_STEPS(h, steps);
    run(h, cmd_set, "SET r 1 PX 10");
    h->now_ms += 10;
    h->flags = CALL_ON_REPLICA;
    assert_string_equal(run(h, cmd_get, "GET r"), "$-1\r\n");
    assert_string_equal(h->effects, "");
    h->flags = CALL_ON_REPLICA | CALL_FROM_PRIMARY;
    assert_string_equal(run(h, cmd_incr, "INCR r"), ":2\r\n");
}

static void many_keys_at_once(void **state)
{
    const struct step steps[] = {
        {cmd_mset, "MSET a 1 b 2 a 3", "+OK\r\n", "MSET a 1 b 2 a 3"},
        {cmd_mget, "MGET a none b", "*3\r\n$1\r\n3\r\n$-1\r\n$1\r\n2\r\n", ""},
        {cmd_msetnx, "MSETNX x 1 a 2", ":0\r\n", ""},
        {cmd_exists, "EXISTS x a a", ":2\r\n", ""},
        {cmd_msetnx, "MSETNX x 1 y 2", ":1\r\n", "MSETNX x 1 y 2"},
    };
    RUN_STEPS(*state, steps);
    assert_int_equal(((struct harness *)*state)->dirty, 2);
    assert_string_equal(((struct harness *)*state)->events, "set x; set y");
}

static void numbers(void **state)
{
    const char overflow[] = "-ERR increment or decrement would overflow\r\n";
    const struct step steps[] = {
        {cmd_incr, "INCR n", ":1\r\n", "INCR n"},
        {cmd_decrby, "DECRBY n 5", ":-4\r\n", "DECRBY n 5"},
        {cmd_decrby, "DECRBY n -9223372036854775808", "-ERR decrement would overflow\r\n", ""},
        {cmd_set, "SET n 9223372036854775806 EX 10", "+OK\r\n", NULL},
        {cmd_incr, "INCR n", ":9223372036854775807\r\n", "INCR n"},
        {cmd_incr, "INCR n", overflow, ""},
        {cmd_pttl, "PTTL n", ":10000\r\n", ""},
        {cmd_set, "SET n -9223372036854775808", "+OK\r\n", NULL},
        {cmd_decr, "DECR n", overflow, ""},
        {cmd_incrby, "INCRBY n x", "-ERR value is not an integer or out of range\r\n", ""},
        {cmd_set, "SET n ' 1'", "+OK\r\n", NULL},
        {cmd_incr, "INCR n", "-ERR value is not an integer or out of range\r\n", ""},
        {cmd_set, "SET f 10.50 EX 10", "+OK\r\n", NULL},
        {cmd_incrbyfloat, "INCRBYFLOAT f 0.1", "$4\r\n10.6\r\n", "SET f 10.6 KEEPTTL"},
        {cmd_pttl, "PTTL f", ":10000\r\n", ""},
        {cmd_incrbyfloat, "INCRBYFLOAT f -5.6", "$1\r\n5\r\n", "SET f 5 KEEPTTL"},
        {cmd_object_encoding, "OBJECT ENCODING f", "$6\r\nembstr\r\n", ""},
        {cmd_incrbyfloat, "INCRBYFLOAT f 5.0e3", "$4\r\n5005\r\n", "SET f 5005 KEEPTTL"},
        {cmd_incrbyfloat, "INCRBYFLOAT f inf", "-ERR increment would produce NaN or Infinity\r\n", ""},
        {cmd_incrbyfloat, "INCRBYFLOAT f nan", "-ERR value is not a valid float\r\n", ""},
        {cmd_incrbyfloat, "INCRBYFLOAT f ' 1'", "-ERR value is not a valid float\r\n", ""},
        {cmd_incr, "INCR f", ":5006\r\n", "INCR f"},
    };
    RUN_STEPS(*state, steps);
}

static void encodings_follow_redis(void **state)
{
    struct harness *h = *state;
    const char *raw = "$3\r\nraw\r\n", *embstr = "$6\r\nembstr\r\n", *integer = "$3\r\nint\r\n";
    const struct step steps[] = {
        {cmd_set, "SET k 12", "+OK\r\n", NULL},
        {cmd_object_encoding, "OBJECT ENCODING k", integer, ""},
        {cmd_object_refcount, "OBJECT REFCOUNT k", ":2147483647\r\n", ""},
        {cmd_append, "APPEND k 3", ":3\r\n", "APPEND k 3"},
        {cmd_object_encoding, "OBJECT ENCODING k", raw, ""},
        {cmd_incr, "INCR k", ":124\r\n", NULL},
        {cmd_object_encoding, "OBJECT ENCODING k", integer, ""},
        {cmd_set, "SET k 012", "+OK\r\n", NULL},
        {cmd_object_encoding, "OBJECT ENCODING k", embstr, ""},
        {cmd_setrange, "SETRANGE k 1 x", ":3\r\n", NULL},
        {cmd_object_encoding, "OBJECT ENCODING k", raw, ""},
        {cmd_set, "SET k abc", "+OK\r\n", NULL},
        {cmd_object_encoding, "OBJECT ENCODING k", embstr, ""},
        {cmd_append, "APPEND new 3", ":1\r\n", NULL},
        {cmd_object_encoding, "OBJECT ENCODING new", integer, ""},
        {cmd_setrange, "SETRANGE z 0 5", ":1\r\n", NULL},
        {cmd_object_encoding, "OBJECT ENCODING z", raw, ""},
        {cmd_set, "SET e 01234567890123456789012345678901234567890123", "+OK\r\n", NULL},
        {cmd_object_encoding, "OBJECT ENCODING e", embstr, ""},
        {cmd_set, "SET e 012345678901234567890123456789012345678901234", "+OK\r\n", NULL},
        {cmd_object_encoding, "OBJECT ENCODING e", raw, ""},
    };
    RUN_STEPS(h, steps);
}

static void parts(void **state)
{
    const struct step steps[] = {
        {cmd_setrange, "SETRANGE k 0 ''", ":0\r\n", ""},
        {cmd_exists, "EXISTS k", ":0\r\n", ""},
        {cmd_set, "SET k 'This is a string'", "+OK\r\n", NULL},
        {cmd_getrange, "GETRANGE k 0 3", "$4\r\nThis\r\n", ""},
        {cmd_getrange, "GETRANGE k -3 -1", "$3\r\ning\r\n", ""},
        {cmd_substr, "SUBSTR k 0 -1", "$16\r\nThis is a string\r\n", ""},
        {cmd_getrange, "GETRANGE k 10 100", "$6\r\nstring\r\n", ""},
        {cmd_getrange, "GETRANGE k 5 4", "$0\r\n\r\n", ""},
        {cmd_getrange, "GETRANGE k -100 -99", "$1\r\nT\r\n", ""},
        {cmd_getrange, "GETRANGE k -99 -100", "$0\r\n\r\n", ""},
        {cmd_getrange, "GETRANGE k 16 16", "$0\r\n\r\n", ""},
        {cmd_getrange, "GETRANGE none 0 -1", "$0\r\n\r\n", ""},
        {cmd_getrange, "GETRANGE k x 1", "-ERR value is not an integer or out of range\r\n", ""},
        {cmd_setrange, "SETRANGE k -1 x", "-ERR offset is out of range\r\n", ""},
        {cmd_setrange, "SETRANGE k 536870912 x", "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n",
         ""},
        {cmd_setrange, "SETRANGE k 9223372036854775807 x",
         "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n", ""},
        {cmd_setrange, "SETRANGE p 3 x", ":4\r\n", "SETRANGE p 3 x"},
        {cmd_strlen, "STRLEN p", ":4\r\n", ""},
        {cmd_strlen, "STRLEN none", ":0\r\n", ""},
    };
    RUN_STEPS(*state, steps);
    struct harness *h = *state;
    run(h, cmd_get, "GET p");
    assert_int_equal(h->reply_length, 10);
    assert_memory_equal(h->reply, "$4\r\n\0\0\0x\r\n", 10);
    h->options.proto_max_bulk_len = 8;
    assert_string_equal(run(h, cmd_append, "APPEND p 12345"),
                        "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n");
    assert_string_equal(run(h, cmd_append, "APPEND p 1234"), ":8\r\n");
}

static void other_types_are_refused(void **state)
{
    struct harness *h = *state;
    struct key k = key_of(BYTES("h"));
    assert_true(slot_try_lock(h->store, k.slot));
    store_put(h->store, 0, &k, stream_entry_new(BYTES("h")));
    slot_unlock(h->store, k.slot);
    const char wrong[] = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
    const struct step steps[] = {
        {cmd_get, "GET h", wrong, ""},
        {cmd_getset, "GETSET h 1", wrong, ""},
        {cmd_getdel, "GETDEL h", wrong, ""},
        {cmd_getex, "GETEX h EX 10", wrong, ""},
        {cmd_set, "SET h 1 GET", wrong, ""},
        {cmd_append, "APPEND h 1", wrong, ""},
        {cmd_setrange, "SETRANGE h 0 1", wrong, ""},
        {cmd_getrange, "GETRANGE h 0 1", wrong, ""},
        {cmd_strlen, "STRLEN h", wrong, ""},
        {cmd_incr, "INCR h", wrong, ""},
        {cmd_incrbyfloat, "INCRBYFLOAT h 1", wrong, ""},
        {cmd_mget, "MGET h", "*1\r\n$-1\r\n", ""},
        {cmd_setnx, "SETNX h 1", ":0\r\n", ""},
        {cmd_type, "TYPE h", "+stream\r\n", ""},
        {cmd_set, "SET h 1", "+OK\r\n", "SET h 1"},
        {cmd_type, "TYPE h", "+string\r\n", ""},
    };
    RUN_STEPS(h, steps);
}

/* ---- A model: one string under random edits, with and without an open cut ---------------------------------------- */

enum { MODEL_MAX = 4000, MODEL_STEPS = 4000 };

struct model {
    char text[MODEL_MAX];
    size_t n;
};

static void check_model(struct harness *h, const struct model *m)
{
    const struct bytes get[] = {BYTES("GET"), BYTES("k")};
    char header[32];
    int n = snprintf(header, sizeof header, "$%zu\r\n", m->n);
    run_argv(h, cmd_get, get, 2);
    assert_int_equal(h->reply_length, (size_t)n + m->n + 2);
    assert_memory_equal(h->reply, header, n);
    assert_memory_equal(h->reply + n, m->text, m->n);
}

static void edit(struct harness *h, struct model *m, struct random *r)
{
    static const size_t sizes[] = {0, 1, 3, 44, 45, 200, 254, 255, 256, 511, 512, 513, 900};
    char text[1000], digits[24];
    size_t n = sizes[random_below(r, sizeof sizes / sizeof *sizes)];
    for (size_t i = 0; i < n; i++) text[i] = (char)('a' + random_below(r, 26));
    struct bytes arg = bytes_make(text, n);
    unsigned what = (unsigned)random_below(r, 4);
    if (what == 0 && m->n + n <= MODEL_MAX) {
        struct bytes argv[] = {BYTES("APPEND"), BYTES("k"), arg};
        memcpy(m->text + m->n, text, n);
        m->n += n;
        run_argv(h, cmd_append, argv, 3);
    } else if (what == 1 && n) {
        size_t at = random_below(r, MODEL_MAX - n);
        struct bytes argv[] = {BYTES("SETRANGE"), BYTES("k"), bytes_make(digits, (size_t)sprintf(digits, "%zu", at)),
                               arg};
        if (at > m->n) memset(m->text + m->n, 0, at - m->n);
        memcpy(m->text + at, text, n);
        if (at + n > m->n) m->n = at + n;
        run_argv(h, cmd_setrange, argv, 4);
    } else {
        if (what == 2 && m->n <= sizeof text) n = m->n; /* the same size again: in place */
        for (size_t i = 0; i < n; i++) text[i] = (char)('A' + random_below(r, 26));
        struct bytes argv[] = {BYTES("SET"), BYTES("k"), bytes_make(text, n), BYTES("PX"), BYTES("100000")};
        memcpy(m->text, text, n);
        m->n = n;
        run_argv(h, cmd_set, argv, random_below(r, 2) ? 3 : 5);
    }
    assert_true(h->reply[0] != '-');
}

struct saved {
    struct bytes expected;
    unsigned seen;
};

static enum status check_saved(void *ctx, int db, struct entry *e)
{
    struct saved *s = ctx;
    char digits[24];
    (void)db;
    assert_true(bytes_eq(entry_string(e, digits), s->expected));
    s->seen++;
    return OK;
}

static void edits_match_a_model(void **state)
{
    struct harness *h = *state;
    struct random r;
    uint64_t seed = (uint64_t)clock_wall_us();
    print_message("seed %llu\n", (unsigned long long)seed);
    random_seed(&r, seed);
    struct model m = {.n = 0}, at_cut;
    run(h, cmd_set, "SET k ''");
    struct cut *cut = NULL;
    for (int i = 0; i < MODEL_STEPS; i++) {
        if (i % 50 == 10) {
            at_cut = m;
            cut = store_cut_begin(h->store);
            assert_non_null(cut);
        }
        edit(h, &m, &r);
        check_model(h, &m);
        if (i % 50 == 30) {
            struct saved s = {bytes_make(at_cut.text, at_cut.n), 0};
            enum status status;
            do status = store_cut_step(cut, 1 << 20, check_saved, &s);
            while (status == E_AGAIN);
            assert_int_equal(status, OK);
            assert_int_equal(s.seen, 1);
            store_cut_end(cut);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(set_replies_and_propagates, harness_start, harness_stop),
        cmocka_unit_test_setup_teardown(set_refuses, harness_start, harness_stop),
        cmocka_unit_test_setup_teardown(getex_propagates_what_it_did, harness_start, harness_stop),
        cmocka_unit_test_setup_teardown(expired_keys_are_gone, harness_start, harness_stop),
        cmocka_unit_test_setup_teardown(many_keys_at_once, harness_start, harness_stop),
        cmocka_unit_test_setup_teardown(numbers, harness_start, harness_stop),
        cmocka_unit_test_setup_teardown(encodings_follow_redis, harness_start, harness_stop),
        cmocka_unit_test_setup_teardown(parts, harness_start, harness_stop),
        cmocka_unit_test_setup_teardown(other_types_are_refused, harness_start, harness_stop),
        cmocka_unit_test_setup_teardown(edits_match_a_model, harness_start, harness_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
