#include "commands/arguments.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static void every_row_keeps_to_the_notation(void **state)
{
    (void)state;
    unsigned rows = 0;
    for (unsigned id = 0; id < CMD_ID_COUNT; id++) {
        const char *text = command_arguments((enum command_id)id);
        if (!text) continue;
        struct buf reply = {0};
        struct resp_out out = {&reply, 2};
        if (!arguments_reply(&out, text)) fail_msg("%s: %s", command_by_id((enum command_id)id)->name, text);
        buf_deinit(&reply);
        rows++;
    }
    assert_true(rows > 250);
}

static void broken_texts_are_told(void **state)
{
    (void)state;
    const char *const broken[] = {"",    " ",    "a ",   "a  b", "[a",   "a]",  "a<b",
                                  "a(b", "a<b)", "a(b>", "a b>", "a^1]", "[a]x"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        struct buf reply = {0};
        struct resp_out out = {&reply, 3};
        if (arguments_reply(&out, broken[i])) fail_msg("'%s' was taken", broken[i]);
        buf_deinit(&reply);
    }
}

static void everything_in_one_reply(void **state)
{
    (void)state;
    struct buf reply = {0};
    struct resp_out out = {&reply, 3};
    assert_true(arguments_reply(&out, "key#key@0 [how<eq== ms#integer=PX^7.0.0>!8.0*+]"));
    static const char expected[] =
        "*2\r\n"
        "%3\r\n$4\r\nname\r\n$3\r\nkey\r\n$4\r\ntype\r\n$3\r\nkey\r\n$14\r\nkey_spec_index\r\n:0\r\n"
        "%5\r\n$4\r\nname\r\n$3\r\nhow\r\n$4\r\ntype\r\n$5\r\noneof\r\n"
        "$16\r\ndeprecated_since\r\n$3\r\n8.0\r\n"
        "$5\r\nflags\r\n~3\r\n+optional\r\n+multiple\r\n+multiple_token\r\n"
        "$9\r\narguments\r\n*2\r\n"
        "%3\r\n$4\r\nname\r\n$2\r\neq\r\n$4\r\ntype\r\n$10\r\npure-token\r\n$5\r\ntoken\r\n$1\r\n=\r\n"
        "%4\r\n$4\r\nname\r\n$2\r\nms\r\n$4\r\ntype\r\n$7\r\ninteger\r\n$5\r\ntoken\r\n$2\r\nPX\r\n"
        "$5\r\nsince\r\n$5\r\n7.0.0\r\n";
    assert_int_equal(reply.n, sizeof expected - 1);
    assert_memory_equal(reply.p, expected, reply.n);
    buf_deinit(&reply);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_keeps_to_the_notation),
        cmocka_unit_test(broken_texts_are_told),
        cmocka_unit_test(everything_in_one_reply),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
