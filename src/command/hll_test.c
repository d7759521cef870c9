#include "command/call_test.h"
#include "command/hyperloglog.h"

#define NOT_A_VALUE "-WRONGTYPE Key is not a valid HyperLogLog string value.\r\n"
#define WRONGTYPE "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"

/* What redis-server 7.0.15 has after PFADD k a b c d e f g, before and after PFCOUNT. */
static const char seven[] = "HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80"
                            "Fm\x80V\x0c\x80"
                            "D<\x84"
                            "8\x80P\xb1\x84I\x8c\x80"
                            "Bm\x80"
                            "BZ";

static void test_commands(void **state)
{
    struct harness h;
    harness_init(&h);
    assert_string_equal(run(&h, cmd_pfadd, "PFADD k a b c d e f g"), ":1\r\n");
    assert_string_equal(h.events, "pfadd k");
    run(&h, cmd_get, "GET k");
    assert_memory_equal(h.reply, "$38\r\n", 5);
    assert_memory_equal(h.reply + 5, seven, 38);
    static const struct step steps[] = {
        {cmd_pfadd, "PFADD k a b c", ":0\r\n", ""},
        {cmd_pfcount, "PFCOUNT k", ":7\r\n", "PFCOUNT k"},
        {cmd_pfcount, "PFCOUNT k", ":7\r\n", ""},
        {cmd_pfcount, "PFCOUNT k none", ":7\r\n", ""},
        {cmd_pfcount, "PFCOUNT none", ":0\r\n", ""},
        {cmd_pfdebug, "PFDEBUG DECODE k",
         "$93\r\nZ:1646 v:1,1 Z:5645 v:1,1 Z:1085 v:2,1 z:57 v:1,1 Z:4274 v:2,1 Z:2445 v:1,1 Z:622 v:1,1 Z:603\r\n",
         ""},
        {cmd_pfdebug, "PFDEBUG encoding k", "+sparse\r\n", ""},
        {cmd_pfadd, "PFADD m", ":1\r\n", "PFADD m"},
        {cmd_pfadd, "PFADD m", ":0\r\n", ""},
        {cmd_pfmerge, "PFMERGE m k none", "+OK\r\n", "PFMERGE m k none"},
        {cmd_pfcount, "PFCOUNT m k", ":7\r\n", ""},
        {cmd_pfdebug, "PFDEBUG TODENSE m", ":1\r\n", "PFDEBUG TODENSE m"},
        {cmd_pfdebug, "PFDEBUG TODENSE m", ":0\r\n", ""},
        {cmd_pfdebug, "PFDEBUG DECODE m", "-ERR HLL encoding is not sparse\r\n", ""},
        {cmd_pfdebug, "PFDEBUG xx m", "-ERR Unknown PFDEBUG subcommand 'xx'\r\n", ""},
        {cmd_pfdebug, "PFDEBUG DECODE none", "-ERR The specified key does not exist\r\n", ""},
        {cmd_strlen, "STRLEN m", ":12304\r\n", ""},
        {cmd_pfcount, "PFCOUNT m", ":7\r\n", NULL},
        {cmd_set, "SET s text", "+OK\r\n", NULL},
        {cmd_pfadd, "PFADD s a", NOT_A_VALUE, ""},
        {cmd_pfmerge, "PFMERGE s k", NOT_A_VALUE, ""},
        {cmd_set, "SET s 12", "+OK\r\n", NULL},
        {cmd_pfcount, "PFCOUNT s", NOT_A_VALUE, ""},
        {cmd_rpush, "RPUSH l e", ":1\r\n", NULL},
        {cmd_pfadd, "PFADD l a", WRONGTYPE, ""},
        {cmd_pfcount, "PFCOUNT k l", WRONGTYPE, ""},
        {cmd_pfselftest, "PFSELFTEST", "+OK\r\n", ""},
    };
    RUN_STEPS(&h, steps);
    assert_string_equal(run(&h, cmd_pfadd, "PFADD n a b c d e f g"), ":1\r\n");
    assert_int_equal(h.dirty, 8); /* the key itself counts */
    h.flags = CALL_ON_REPLICA;
    assert_string_equal(run(&h, cmd_pfcount, "PFCOUNT n"), ":7\r\n");
    assert_int_equal(h.dirty, 0);
    harness_deinit(&h);
}

/* Growing through both encodings: counts, sizes and bytes (as a sum) of redis-server 7.0.15. */
static void test_growth(void **state)
{
    static const struct {
        int elements, count;
        size_t bytes;
        uint32_t sum;
    } kept[] = {{100, 100, 285, 4227458905u},
                {1000, 1008, 1906, 1064808347u},
                {2000, 2000, 12304, 4281324671u},
                {5000, 4968, 12304, 2596435989u},
                {100000, 100853, 12304, 3125674027u}};
    struct buf value = {0};
    hll_empty(&value);
    hll_cache_drop(value.p);
    int n = 0;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        for (; n < kept[i].elements; n++) {
            char text[16];
            unsigned index, run;
            bool changed;
            hll_element(bytes_make(text, (size_t)snprintf(text, sizeof text, "e%d", n)), &index, &run);
            assert_int_equal(hll_raise(&value, index, run, 3000, &changed), OK);
        }
        uint32_t sum = 0;
        uint64_t count;
        for (size_t j = 0; j < value.n; j++) sum = sum * 31 + (unsigned char)value.p[j];
        assert_int_equal(value.n, kept[i].bytes);
        assert_int_equal(sum, kept[i].sum);
        assert_int_equal(hll_estimate(buf_bytes(&value), &count), OK);
        assert_int_equal(count, kept[i].count);
    }
    buf_deinit(&value);
}

/* Registers raised at random, sparse and dense, against an array. */
static void test_against_a_model(void **state)
{
    struct random rng;
    random_seed(&rng, 5);
    for (int round = 0; round < 200; round++) {
        struct buf value = {0};
        struct hll_registers model = {{0}}, read = {{0}};
        size_t max = random_below(&rng, 4000);
        unsigned range = 1 + (unsigned)random_below(&rng, HLL_REGISTERS), top = round % 2 ? 32 : HLL_VALUE_MAX;
        hll_empty(&value);
        for (int i = 0; i < 1500; i++) {
            unsigned index = (unsigned)random_below(&rng, range),
                     to = 1 + (unsigned)random_below(&rng, i % 3 ? 3 : top);
            bool changed;
            assert_int_equal(hll_raise(&value, index, to, max, &changed), OK);
            assert_int_equal(changed, model.value[index] < to);
            if (changed) model.value[index] = (uint8_t)to;
            assert_true(hll_is_value(buf_bytes(&value)));
        }
        assert_true(hll_is_dense(buf_bytes(&value)) || value.n <= (max > 18 ? max : 18));
        assert_int_equal(hll_merge(&read, buf_bytes(&value)), OK);
        assert_memory_equal(&read, &model, sizeof model);
        uint64_t one, two;
        assert_int_equal(hll_estimate(buf_bytes(&value), &one), OK);
        assert_int_equal(one, hll_estimate_registers(&model));
        assert_int_equal(hll_make_dense(&value), OK);
        assert_int_equal(hll_estimate(buf_bytes(&value), &two), OK);
        assert_int_equal(one, two);
        buf_deinit(&value);
    }
}

/* Any bytes behind a header are read, changed and counted without harm. */
static void test_foreign_bytes(void **state)
{
    struct random rng;
    random_seed(&rng, 6);
    struct harness h;
    harness_init(&h);
    for (int round = 0; round < 20000; round++) {
        char text[64] = "HYLL\x01";
        size_t n = HLL_HEADER + random_below(&rng, 40);
        for (size_t i = HLL_HEADER; i < n; i++) text[i] = (char)(random_below(&rng, 3) ? 0x7f : random_u64(&rng));
        if (random_below(&rng, 2)) text[15] = (char)0x80;
        struct bytes set[] = {BYTES("SET"), BYTES("k"), {text, n}};
        run_argv(&h, cmd_set, set, 3);
        run(&h, cmd_pfadd, "PFADD k a b c");
        run(&h, cmd_pfcount, "PFCOUNT k");
        run(&h, cmd_pfmerge, "PFMERGE d k");
        run(&h, cmd_pfdebug, "PFDEBUG DECODE k");
        run(&h, cmd_pfdebug, "PFDEBUG TODENSE k");
    }
    harness_deinit(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commands),
        cmocka_unit_test(test_growth),
        cmocka_unit_test(test_against_a_model),
        cmocka_unit_test(test_foreign_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
