#include "command/call_test.h"

static void test_replies(void **state)
{
    struct harness h;
    harness_init(&h);
    static const struct step steps[] = {
        {cmd_mset, "MSET a{k} ohmytext b{k} mynewtext n{k} 12", "+OK\r\n", NULL},
        {cmd_lcs, "LCS a{k} b{k}", "$6\r\nmytext\r\n", ""},
        {cmd_lcs, "LCS a{k} b{k} LEN", ":6\r\n", ""},
        {cmd_lcs, "LCS a{k} b{k} IDX",
         "*4\r\n$7\r\nmatches\r\n*2\r\n*2\r\n*2\r\n:4\r\n:7\r\n*2\r\n:5\r\n:8\r\n"
         "*2\r\n*2\r\n:2\r\n:3\r\n*2\r\n:0\r\n:1\r\n$3\r\nlen\r\n:6\r\n",
         ""},
        {cmd_lcs, "LCS a{k} b{k} IDX MINMATCHLEN 4 WITHMATCHLEN",
         "*4\r\n$7\r\nmatches\r\n*1\r\n*3\r\n*2\r\n:4\r\n:7\r\n*2\r\n:5\r\n:8\r\n:4\r\n$3\r\nlen\r\n:6\r\n", ""},
        {cmd_lcs, "LCS a{k} none{k}", "$0\r\n\r\n", ""},
        {cmd_lcs, "LCS none{k} none{k} LEN", ":0\r\n", ""},
        {cmd_lcs, "LCS n{k} n{k}", "$2\r\n12\r\n", ""},
        {cmd_lcs, "LCS a{k} b{k} LEN IDX", "-ERR If you want both the length and indexes, please just use IDX.\r\n",
         ""},
        {cmd_lcs, "LCS a{k} b{k} MINMATCHLEN", "-ERR syntax error\r\n", ""},
        {cmd_lcs, "LCS a{k} b{k} MINMATCHLEN x", "-ERR value is not an integer or out of range\r\n", ""},
        {cmd_rpush, "RPUSH l{k} e", ":1\r\n", NULL},
        {cmd_lcs, "LCS a{k} l{k} ZZ", "-ERR The specified keys must contain string values\r\n", ""},
    };
    RUN_STEPS(&h, steps);
    h.options.proto_max_bulk_len = 9 * 10 * 4 - 1; /* one byte less than the table takes */
    assert_string_equal(run(&h, cmd_lcs, "LCS a{k} b{k} LEN"),
                        "-ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len\r\n");
    harness_deinit(&h);
}

/* All subsequences of the shorter text are tried. */
static size_t longest(const char *a, size_t an, const char *b, size_t bn)
{
    size_t best = 0;
    for (unsigned set = 0; set < 1u << an; set++) {
        size_t at = 0, n = 0;
        for (size_t i = 0; i < an; i++) {
            if (!(set >> i & 1)) continue;
            while (at < bn && b[at] != a[i]) at++;
            if (at == bn) break;
            at++, n++;
        }
        if (n == (size_t)__builtin_popcount(set) && n > best) best = n;
    }
    return best;
}

static void test_against_a_model(void **state)
{
    struct harness h;
    struct random rng;
    harness_init(&h);
    random_seed(&rng, 7);
    for (int round = 0; round < 200; round++) {
        char a[12], b[16], expected[24];
        size_t an = random_below(&rng, sizeof a - 1), bn = random_below(&rng, sizeof b - 1);
        for (size_t i = 0; i < an; i++) a[i] = (char)('a' + random_below(&rng, 3));
        for (size_t i = 0; i < bn; i++) b[i] = (char)('a' + random_below(&rng, 3));
        struct bytes set[] = {BYTES("MSET"), BYTES("a{k}"), {a, an}, BYTES("b{k}"), {b, bn}};
        run_argv(&h, cmd_mset, set, 5);
        size_t best = longest(a, an, b, bn);
        snprintf(expected, sizeof expected, ":%zu\r\n", best);
        assert_string_equal(run(&h, cmd_lcs, "LCS a{k} b{k} LEN"), expected);
        run(&h, cmd_lcs, "LCS a{k} b{k}");
        snprintf(expected, sizeof expected, "$%zu\r\n", best);
        assert_memory_equal(h.reply, expected, strlen(expected));
        const char *text = h.reply + strlen(expected);
        assert_int_equal(longest(text, best, a, an), best);
        assert_int_equal(longest(text, best, b, bn), best);
    }
    harness_deinit(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replies),
        cmocka_unit_test(test_against_a_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
