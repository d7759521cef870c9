#include "command/bits.h"
#include "command/call_test.h"

#define BAD_OFFSET "-ERR bit offset is not an integer or out of range\r\n"
#define BAD_TYPE "-ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.\r\n"
#define WRONGTYPE "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
#define SYNTAX "-ERR syntax error\r\n"

static void test_bits(void **state)
{
    struct harness h;
    harness_init(&h);
    static const struct step steps[] = {
        {cmd_setbit, "SETBIT b 7 1", ":0\r\n", "SETBIT b 7 1"},
        {cmd_setbit, "SETBIT b 7 1", ":1\r\n", ""},
        {cmd_setbit, "SETBIT b 7 0", ":1\r\n", "SETBIT b 7 0"},
        {cmd_setbit, "SETBIT b 16 0", ":0\r\n", "SETBIT b 16 0"}, /* grew */
        {cmd_strlen, "STRLEN b", ":3\r\n", ""},
        {cmd_getbit, "GETBIT b 100", ":0\r\n", ""},
        {cmd_getbit, "GETBIT none 1", ":0\r\n", ""},
        {cmd_setbit, "SETBIT b -1 1", BAD_OFFSET, ""},
        {cmd_setbit, "SETBIT b 4294967296 1", BAD_OFFSET, ""},
        {cmd_setbit, "SETBIT b 0 2", "-ERR bit is not an integer or out of range\r\n", ""},
        {cmd_set, "SET s foobar", "+OK\r\n", NULL},
        {cmd_bitcount, "BITCOUNT s", ":26\r\n", ""},
        {cmd_bitcount, "BITCOUNT s 1 1", ":6\r\n", ""},
        {cmd_bitcount, "BITCOUNT s 5 30 BIT", ":17\r\n", ""},
        {cmd_bitcount, "BITCOUNT s -2 -1", ":7\r\n", ""},
        {cmd_bitcount, "BITCOUNT s 3 1", ":0\r\n", ""},
        {cmd_bitcount, "BITCOUNT s 0", SYNTAX, ""},
        {cmd_bitcount, "BITCOUNT s 0 1 BITS", SYNTAX, ""},
        {cmd_bitpos, "BITPOS s 1", ":1\r\n", ""},
        {cmd_bitpos, "BITPOS s 0 1", ":8\r\n", ""},
        {cmd_bitpos, "BITPOS s 1 3 -1 BIT", ":5\r\n", ""},
        {cmd_bitpos, "BITPOS none 1", ":-1\r\n", ""},
        {cmd_bitpos, "BITPOS none 0", ":0\r\n", ""},
        {cmd_bitpos, "BITPOS s 2", "-ERR The bit argument must be 1 or 0.\r\n", ""},
        {cmd_set, "SET f \"\\xff\\xff\"", "+OK\r\n", NULL},
        {cmd_bitpos, "BITPOS f 0", ":16\r\n", ""},
        {cmd_bitpos, "BITPOS f 0 0 -1", ":-1\r\n", ""},
        {cmd_bitop, "BITOP NAND d s", SYNTAX, ""},
        {cmd_bitop, "BITOP NOT d s s", "-ERR BITOP NOT must be called with a single source key.\r\n", ""},
        {cmd_rpush, "RPUSH l e", ":1\r\n", NULL},
        {cmd_getbit, "GETBIT l 0", WRONGTYPE, ""},
        {cmd_getbit, "GETBIT l -1", BAD_OFFSET, ""},
        {cmd_bitcount, "BITCOUNT l", WRONGTYPE, ""},
        {cmd_bitfield, "BITFIELD l GET u8 0", WRONGTYPE, ""},
    };
    RUN_STEPS(&h, steps);
    run(&h, cmd_setbit, "SETBIT b 3 1");
    assert_string_equal(h.events, "setbit b");
    harness_deinit(&h);
}

static void test_bitop(void **state)
{
    struct harness h;
    harness_init(&h);
    run(&h, cmd_mset, "MSET a{k} abcdef b{k} 123");
    assert_string_equal(run(&h, cmd_bitop, "BITOP AND d{k} a{k} b{k}"), ":6\r\n");
    assert_string_equal(h.events, "set d{k}");
    assert_string_equal(run(&h, cmd_get, "GET d{k}") + 4, "!\"#");
    assert_string_equal(run(&h, cmd_bitop, "BITOP NOT a{k} a{k}"), ":6\r\n");
    assert_string_equal(run(&h, cmd_get, "GET a{k}"), "$6\r\n\x9e\x9d\x9c\x9b\x9a\x99\r\n");
    assert_string_equal(run(&h, cmd_bitop, "BITOP OR a{k} x{k} y{k}"), ":0\r\n");
    assert_string_equal(h.events, "del a{k}");
    assert_string_equal(run(&h, cmd_bitop, "BITOP OR a{k} x{k} y{k}"), ":0\r\n");
    assert_string_equal(h.effects, "");
    harness_deinit(&h);
}

/* A large result is written over what stands at the destination, also when that is an input. */
static void test_bitop_in_place(void **state)
{
    static const char *const steps[][2] = {
        {"BITOP OR d{k} a{k} b{k}", "3"},  {"BITOP XOR d{k} d{k} a{k}", "1"}, {"BITOP OR d{k} c{k} d{k}", "2"},
        {"BITOP AND d{k} d{k} d{k}", "2"}, {"BITOP XOR d{k} d{k} d{k}", "0"}, {"BITOP XOR d{k} a{k} d{k} d{k}", "2"},
        {"BITOP NOT d{k} d{k}", "319998"}, {"BITOP AND d{k} a{k} b{k}", "1"},
    };
    struct harness h;
    harness_init(&h);
    run(&h, cmd_setbit, "SETBIT a{k} 319999 1");
    run(&h, cmd_setbit, "SETBIT a{k} 5 1");
    run(&h, cmd_setbit, "SETBIT b{k} 319999 1");
    run(&h, cmd_setbit, "SETBIT b{k} 200000 1");
    run(&h, cmd_setbit, "SETBIT c{k} 17 1");
    run(&h, cmd_setbit, "SETBIT d{k} 319992 1");
    struct key k = key_of(BYTES("d{k}"));
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        assert_string_equal(run(&h, cmd_bitop, steps[i][0]), ":40000\r\n");
        assert_string_equal(h.events, "set d{k}");
        char count[16];
        snprintf(count, sizeof count, ":%s\r\n", steps[i][1]);
        assert_string_equal(run(&h, cmd_bitcount, "BITCOUNT d{k}"), count);
    }
    store_set_expire(h.env.store, 0, &k, HARNESS_NOW + 1000);
    assert_string_equal(run(&h, cmd_bitop, "BITOP OR d{k} a{k} b{k}"), ":40000\r\n");
    assert_false(entry_has_ttl(store_find(h.env.store, 0, &k)));
    assert_string_equal(run(&h, cmd_bitcount, "BITCOUNT d{k}"), ":3\r\n");
    harness_deinit(&h);
}

static void test_fields(void **state)
{
    struct harness h;
    harness_init(&h);
    static const struct step steps[] = {
        {cmd_bitfield, "BITFIELD f INCRBY i5 100 1 GET u4 0", "*2\r\n:1\r\n:0\r\n",
         "BITFIELD f INCRBY i5 100 1 GET u4 0"},
        {cmd_bitfield, "BITFIELD f SET i8 #0 100 SET i8 #1 200", "*2\r\n:0\r\n:0\r\n", NULL},
        {cmd_bitfield, "BITFIELD f GET i8 8 GET u8 8", "*2\r\n:-56\r\n:200\r\n", ""},
        {cmd_bitfield, "BITFIELD f OVERFLOW SAT INCRBY i8 0 100 OVERFLOW FAIL INCRBY i8 0 1", "*2\r\n:127\r\n$-1\r\n",
         NULL},
        {cmd_bitfield, "BITFIELD f OVERFLOW WRAP INCRBY i8 0 1", "*1\r\n:-128\r\n", NULL},
        {cmd_bitfield, "BITFIELD f OVERFLOW SAT INCRBY i8 0 -1", "*1\r\n:-128\r\n", ""},
        {cmd_bitfield, "BITFIELD f OVERFLOW SAT SET u8 0 -1", "*1\r\n:128\r\n", NULL},
        {cmd_bitfield, "BITFIELD f GET u8 0", "*1\r\n:255\r\n", ""},
        {cmd_bitfield, "BITFIELD f SET i64 3 9223372036854775807 OVERFLOW SAT INCRBY i64 3 1 GET u63 4",
         "*3\r\n:-126100789566373888\r\n:9223372036854775807\r\n:9223372036854775807\r\n", NULL},
        {cmd_bitfield, "BITFIELD f OVERFLOW SAT SET i8 0 -9223372036854775808 GET i8 0", "*2\r\n:-17\r\n:127\r\n",
         NULL},
        {cmd_bitfield, "BITFIELD f OVERFLOW SAT INCRBY i1 300 5", "*1\r\n:0\r\n", NULL},
        {cmd_bitfield, "BITFIELD f", "*0\r\n", ""},
        {cmd_bitfield, "BITFIELD f GET u64 0", BAD_TYPE, ""},
        {cmd_bitfield, "BITFIELD f GET x8 0", BAD_TYPE, ""},
        {cmd_bitfield, "BITFIELD f GET u8 #-1", BAD_OFFSET, ""},
        {cmd_bitfield, "BITFIELD f GET u8", SYNTAX, ""},
        {cmd_bitfield, "BITFIELD f SET u8 0", SYNTAX, ""},
        {cmd_bitfield, "BITFIELD f OVERFLOW", SYNTAX, ""},
        {cmd_bitfield, "BITFIELD f OVERFLOW x", "-ERR Invalid OVERFLOW type specified\r\n", ""},
        {cmd_bitfield, "BITFIELD f SET u8 0 x", "-ERR value is not an integer or out of range\r\n", ""},
        {cmd_bitfield_ro, "BITFIELD_RO f GET u8 0", "*1\r\n:127\r\n", ""},
        {cmd_bitfield_ro, "BITFIELD_RO f SET u8 0 1", "-ERR BITFIELD_RO only supports the GET subcommand\r\n", ""},
    };
    RUN_STEPS(&h, steps);
    assert_string_equal(run(&h, cmd_bitfield, "BITFIELD g SET u8 0 1 SET u8 8 0 SET u8 16 5"),
                        "*3\r\n:0\r\n:0\r\n:0\r\n");
    assert_int_equal(h.dirty, 3);
    assert_string_equal(h.events, "setbit g");
    harness_deinit(&h);
}

/* The pure functions against rows of single bits. */
enum { MODEL_BYTES = 200 };

static bool model_bit(const char *p, size_t at)
{
    return (unsigned char)p[at / 8] >> (7 - at % 8) & 1;
}

static void test_against_a_model(void **state)
{
    struct random rng;
    char a[MODEL_BYTES], b[MODEL_BYTES], out[MODEL_BYTES];
    random_seed(&rng, 11);
    for (int round = 0; round < 2000; round++) {
        size_t an = random_below(&rng, MODEL_BYTES + 1), bn = random_below(&rng, an + 1), n = 0, first = an * 8;
        bool sparse = random_below(&rng, 2), bit = random_below(&rng, 2);
        for (size_t i = 0; i < an; i++)
            a[i] = sparse && random_below(&rng, 100) ? (bit ? 0 : -1) : (char)random_u64(&rng);
        for (size_t i = 0; i < bn; i++) b[i] = (char)random_u64(&rng);
        for (size_t i = an * 8; i-- > 0;) {
            n += model_bit(a, i);
            if (model_bit(a, i) == bit) first = i;
        }
        assert_int_equal(bits_count(bytes_make(a, an)), n);
        assert_int_equal(bits_find(bytes_make(a, an), bit), first);
        struct bytes in[] = {{b, bn}, {a, an}};
        for (int op = BITS_AND; op <= BITS_XOR; op++) {
            bits_combine((enum bits_op)op, in, 2, out, an);
            for (size_t i = 0; i < an; i++) {
                int x = i < bn ? b[i] : 0, y = a[i];
                assert_int_equal(out[i], (char)(op == BITS_AND ? x & y : op == BITS_OR ? x | y : x ^ y));
            }
        }
        bits_combine(BITS_NOT, in + 1, 1, out, an);
        for (size_t i = 0; i < an; i++) assert_int_equal(out[i], (char)~a[i]);
        if (an < 9) continue;
        unsigned width = 1 + (unsigned)random_below(&rng, 64);
        uint64_t at = random_below(&rng, an * 8 - width), v = random_u64(&rng);
        if (width < 64) v &= (UINT64_C(1) << width) - 1;
        memcpy(out, a, an);
        bits_set(a, at, width, v);
        assert_int_equal(bits_get(bytes_make(a, an), at, width), v);
        for (size_t i = 0; i < an * 8; i++)
            if (i < at || i >= at + width) assert_int_equal(model_bit(a, i), model_bit(out, i));
        assert_int_equal(bits_get(bytes_make(a, an), an * 8 - 1, 64) >> 63, model_bit(a, an * 8 - 1));
    }
}

/* A long input crosses the blocks in which BITOP works. */
static void test_long_input(void **state)
{
    enum { N = 100003 };
    char *a = mem_alloc(N), *b = mem_alloc(N), *out = mem_alloc(N);
    for (int i = 0; i < N; i++) a[i] = (char)(i * 7), b[i] = (char)(i * 13 >> 3);
    struct bytes in[] = {{a, N}, {b, N / 2}, {b, N}};
    bits_combine(BITS_XOR, in, 3, out, N);
    for (int i = 0; i < N; i++) assert_int_equal(out[i], (char)(a[i] ^ (i < N / 2 ? b[i] : 0) ^ b[i]));
    mem_free(a);
    mem_free(b);
    mem_free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits),   cmocka_unit_test(test_bitop),           cmocka_unit_test(test_bitop_in_place),
        cmocka_unit_test(test_fields), cmocka_unit_test(test_against_a_model), cmocka_unit_test(test_long_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
