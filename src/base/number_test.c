#include "base/crc.h"
#include "base/glob.h"
#include "base/number.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void integers_are_canonical(void **state)
{
    (void)state;
    int64_t v;
    assert_true(parse_i64(BYTES("-9223372036854775808"), &v) && v == INT64_MIN);
    assert_true(parse_i64(BYTES("9223372036854775807"), &v) && v == INT64_MAX);
    assert_true(parse_i64(BYTES("0"), &v) && v == 0);
    const char *bad[] = {"", "-", "+1", " 1", "01", "-0", "1 ", "9223372036854775808", "-9223372036854775809", "1e3"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(parse_i64(bytes_of(bad[i]), &v));
    char text[32];
    assert_memory_equal(text, "-9223372036854775808", format_i64(text, INT64_MIN));
}

static void slots_follow_the_specification(void **state)
{
    (void)state;
    assert_int_equal(crc16(BYTES("123456789")), 0x31c3);
    /* Whole slices, rests and bytes of the upper half, against the definition bit by bit. */
    unsigned char text[64];
    for (unsigned i = 0; i < sizeof text; i++) text[i] = (unsigned char)(i * 151 + 77);
    for (size_t n = 0; n <= sizeof text; n++) {
        unsigned crc = 0;
        for (size_t i = 0; i < n * 8; i++) {
            unsigned bit = text[i / 8] >> (7 - i % 8) & 1, top = crc >> 15 & 1;
            crc = (crc << 1 ^ (bit ^ top ? 0x1021 : 0)) & 0xffff;
        }
        assert_int_equal(crc16(bytes_make(text, n)), crc);
    }
    assert_true(crc64(0, "123456789", 9) == 0xe9c6d914c4b8d9ca);
    struct {
        const char *key;
        unsigned slot;
    } cases[] = {{"", 0},
                 {"a", 15495},
                 {"foo", 12182},
                 {"{foo}bar", 12182},
                 {"foo{}bar", 14292},
                 {"foo{{bar}}zap", 4015},
                 {"foo{bar}{zap}", 5061},
                 {"}{x", 12645},
                 {"{a}{", 15495},
                 {"{}a", 10875}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(key_slot(bytes_of(cases[i].key)), cases[i].slot);
}

static void globs(void **state)
{
    (void)state;
    assert_true(glob_match(BYTES("h[^e]l*o"), BYTES("hallooo"), false));
    assert_false(glob_match(BYTES("h[^e]llo"), BYTES("hello"), false));
    assert_true(glob_match(BYTES("H?L\\*"), BYTES("hel*"), true));
    assert_true(glob_match(BYTES(""), BYTES(""), false));
    assert_false(glob_match(BYTES("*"), BYTES(""), false)); /* as redis-server has it */
    assert_false(glob_match(BYTES(""), BYTES("x"), false));
    assert_true(glob_match(BYTES("[z-a]"), BYTES("m"), false));
    char text[2001];
    memset(text, 'a', 2000);
    text[2000] = 0;
    assert_false(glob_match(BYTES("a*a*a*a*a*a*a*a*a*b"), bytes_of(text), false));
}

static void doubles(void **state)
{
    (void)state;
    char text[LONG_DOUBLE_TEXT_MAX];
    assert_memory_equal(text, "0.10000000000000001", format_double(text, 0.1));
    assert_memory_equal(text, "1e+20", format_double(text, 1e20));
    assert_memory_equal(text, "3", format_double(text, 3));
    assert_memory_equal(text, "10.6", format_long_double(text, 10.6L));
    double d;
    assert_true(parse_double(BYTES("-inf"), &d));
    assert_false(parse_double(BYTES("nan"), &d));
    assert_false(parse_double(BYTES("1 "), &d));
    int64_t m;
    assert_true(parse_memory(BYTES("1Gb"), &m) && m == 1 << 30);
    assert_false(parse_memory(BYTES("1x"), &m));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_are_canonical),
        cmocka_unit_test(slots_follow_the_specification),
        cmocka_unit_test(globs),
        cmocka_unit_test(doubles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
