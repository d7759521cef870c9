#include "command/call_test.h"

static void test_lolwut(void **state)
{
    struct harness h;
    harness_init(&h);
    static const char not_integer[] = "-ERR value is not an integer or out of range\r\n";
    static const char *const drawn[] = {"LOLWUT",
                                        "LOLWUT VERSION 5",
                                        "LOLWUT VERSION 6 10 4",
                                        "LOLWUT x y",
                                        "LOLWUT VERSION",
                                        "LOLWUT VERSION 5 1000000 2 3",
                                        "LOLWUT VERSION -99 x",
                                        "LOLWUT VERSION 6 -5"};
    for (size_t i = 0; i < sizeof drawn / sizeof *drawn; i++) {
        run(&h, cmd_lolwut, drawn[i]);
        assert_int_equal(h.reply[0], '$');
        assert_non_null(strstr(h.reply, "Redis ver. 7.0.15, Covey ver. "));
        assert_true(h.reply_length < 20000);
    }
    assert_string_equal(run(&h, cmd_lolwut, "LOLWUT VERSION x"), not_integer);
    assert_string_equal(run(&h, cmd_lolwut, "LOLWUT VERSION 5 1 2 x"), not_integer);
    h.version = 3;
    assert_int_equal(run(&h, cmd_lolwut, "LOLWUT")[0], '=');
    harness_deinit(&h);
}

static void test_module(void **state)
{
    struct harness h;
    harness_init(&h);
    assert_string_equal(run(&h, cmd_module_list, "MODULE LIST"), "*0\r\n");
    assert_non_null(strstr(run(&h, cmd_module_load, "MODULE LOAD x"), "-ERR MODULE command not allowed."));
    assert_memory_equal(run(&h, cmd_module_help, "MODULE HELP"), "*11\r\n", 5);
    harness_deinit(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lolwut),
        cmocka_unit_test(test_module),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
