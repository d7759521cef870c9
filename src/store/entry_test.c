#include "store/entry.h"

#include "base/mem.h"
#include "base/number.h"
#include "store/hash.h"
#include "store/listtype.h"
#include "store/set.h"
#include "store/zset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void assert_string(const struct entry *e, struct bytes want)
{
    char digits[24];
    assert_true(bytes_eq(entry_string(e, digits), want));
    assert_int_equal(entry_string_len(e), want.n);
}

static void strings_get_their_encoding(void **state)
{
    (void)state;
    static char text[600];
    memset(text, 'x', sizeof text);
    struct {
        struct bytes value;
        enum encoding enc;
        bool word;
    } cases[] = {
        {BYTES("9223372036854775807"), ENC_INT, true},
        {BYTES("9223372036854775808"), ENC_EMBSTR, false},
        {BYTES("-1"), ENC_INT, true},
        {BYTES("01"), ENC_EMBSTR, false},
        {BYTES(""), ENC_EMBSTR, false},
        {bytes_make(text, 44), ENC_EMBSTR, false},
        {bytes_make(text, 45), ENC_RAW, false},
        {bytes_make(text, 254), ENC_RAW, false},
        {bytes_make(text, 255), ENC_RAW, false},
        {bytes_make(text, 512), ENC_RAW, false},
        {bytes_make(text, 513), ENC_RAW, true},
    };
    size_t before = mem_used();
    for (size_t klen = 0; klen < 600; klen += klen < 250 ? 50 : 1) {
        struct bytes key = bytes_make(text, klen);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            struct entry *e = entry_try_new_string(key, cases[i].value);
            assert_int_equal(entry_enc(e), cases[i].enc);
            assert_int_equal(entry_type(e), TYPE_STRING);
            assert_int_equal(!!(e->flags & ENTRY_WORD), cases[i].word);
            entry_set_lru(e, 0xabcdef);
            e->retained = 5;
            for (int64_t at = 1000; at >= -1; at -= 1001) { /* 1000, then none again */
                e = entry_with_expire(e, at);
                assert_true(entry_expire_at(e) == at);
                assert_int_equal(entry_lru(e), 0xabcdef);
                assert_int_equal(e->retained, 5);
                assert_true(bytes_eq(entry_key(e), key));
                assert_string(e, cases[i].value);
            }
            e = entry_with_expire(e, 77);
            struct entry *fork = entry_fork(e);
            e = entry_with_key(e, BYTES("another"));
            assert_true(bytes_eq(entry_key(e), BYTES("another")));
            assert_string(e, cases[i].value);
            assert_true(entry_expire_at(e) == 77);
            entry_free(e);
            assert_true(bytes_eq(entry_key(fork), key) && entry_expire_at(fork) == 77);
            assert_int_equal(entry_lru(fork), 0xabcdef);
            assert_string(fork, cases[i].value);
            assert_true(entry_memory(fork, 0) >= 8 + klen);
            entry_free(fork);
        }
    }
    assert_int_equal(mem_used(), before);
}

static void small_string_is_small(void **state)
{
    (void)state;
    struct entry *e = entry_try_new_string(BYTES("0123456789abcdef"), BYTES("0123456789abcdef0123456789abcdef"));
    assert_in_range(entry_memory(e, 0), 56, 64);
    entry_free(e);
}

static void raw_strings_grow(void **state)
{
    (void)state;
    size_t before = mem_used();
    struct entry *e = entry_try_new_raw(BYTES("k"), BYTES("ab"), 0);
    assert_int_equal(entry_enc(e), ENC_RAW);
    assert_null(entry_raw_grow(e, 10)); /* inline */
    entry_free(e);
    e = entry_try_new_raw(BYTES("k"), BYTES("ab"), 1000);
    char *data = entry_raw_grow(e, 5);
    assert_memory_equal(data, "ab\0\0\0", 5);
    memcpy(data + 2, "cde", 3);
    assert_string(e, BYTES("abcde"));
    assert_ptr_equal(entry_raw_grow(e, 3), data);
    assert_int_equal(entry_string_len(e), 5);
    struct entry *fork = entry_fork(e);
    assert_null(entry_raw_grow(e, 6)); /* shared */
    assert_string(fork, BYTES("abcde"));
    entry_free(fork);
    data = entry_raw_grow(e, 100000);
    assert_non_null(data);
    assert_memory_equal(data, "abcde\0\0\0", 8);
    assert_int_equal(entry_string_len(e), 100000);
    assert_null(entry_raw_grow(e, SIZE_MAX - 100));
    assert_int_equal(entry_string_len(e), 100000);
    entry_free(e);
    e = entry_try_new_string(BYTES("k"), BYTES("12"));
    assert_null(entry_raw_grow(e, 3));
    entry_free(e);
    assert_int_equal(mem_used(), before);
}

static void collections_fork_and_count(void **state)
{
    (void)state;
    size_t before = mem_used();
    const struct store_limits *lim = &store_limits_default;
    for (int n = 3; n < 30000; n *= 50) {
        struct entry *e[4] = {hash_new(BYTES("h")), set_new(BYTES("s"), BYTES("x")),
                              zset_new(BYTES("z"), BYTES("1"), lim), list_new(BYTES("l"))};
        for (int i = 0; i < n; i++) {
            char text[24];
            struct bytes b = bytes_make(text, format_i64(text, i));
            assert_int_equal(hash_set(e[0], b, b, lim, NULL), OK);
            assert_int_equal(set_add(e[1], b, lim, NULL), OK);
            assert_int_equal(zset_add(e[2], i, b, lim, NULL), OK);
            assert_int_equal(list_push(e[3], LIST_TAIL, b, lim), OK);
        }
        for (int k = 0; k < 4; k++) {
            size_t all = entry_memory(e[k], 0), some = entry_memory(e[k], 100);
            assert_in_range(some, all * 7 / 10, all * 13 / 10);
            size_t used = mem_used();
            struct entry *fork = entry_with_expire(entry_fork(e[k]), 5);
            if (n > 1000) assert_true(mem_used() - used < 1000);
            used = mem_used();
            entry_free(e[k]);
            if (n > 1000) assert_true(entry_free_effort(fork) > 5);
            if (n < 10) assert_true(entry_free_effort(fork) < 10);
            entry_free(fork);
        }
    }
    assert_int_equal(mem_used(), before);
}

static void names(void **state)
{
    (void)state;
    assert_string_equal(encoding_name(ENC_QUICKLIST), "quicklist");
    assert_string_equal(encoding_name(ENC_SKIPLIST), "skiplist");
    assert_string_equal(encoding_name(ENC_STREAM), "stream");
    assert_string_equal(encoding_name(ENC_RAW), "raw");
    assert_string_equal(type_name(TYPE_ZSET), "zset");
    assert_string_equal(type_name(TYPE_STREAM), "stream");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strings_get_their_encoding),
        cmocka_unit_test(small_string_is_small),
        cmocka_unit_test(raw_strings_grow),
        cmocka_unit_test(collections_fork_and_count),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
