/* Digests: SHA-1's published vectors, and values' digests as redis-server 7.0.15 prints them. */
#include "server/digest.h"

#include "base/hash.h"
#include "store/hash.h"
#include "store/listtype.h"
#include "store/set.h"
#include "store/zset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

static void assert_hex(const unsigned char digest[DIGEST_SIZE], const char *want)
{
    char text[2 * DIGEST_SIZE + 1];
    for (int i = 0; i < DIGEST_SIZE; i++) snprintf(text + 2 * i, 3, "%02x", digest[i]);
    assert_string_equal(text, want);
}

static void assert_entry(struct entry *e, const char *want)
{
    unsigned char d[DIGEST_SIZE] = {0};
    digest_entry(e, d);
    assert_hex(d, want);
    entry_free(e);
}

static void values(void **state)
{
    (void)state;
    const struct store_limits *lim = &store_limits_default;
    struct store_limits none = *lim;
    none.hash_max_listpack_entries = none.zset_max_listpack_entries = none.set_max_intset_entries = 0;
    hash_seed_set(1);
    assert_entry(entry_try_new_string(BYTES("s"), BYTES("hello")), "36b23a1456b2dce2c3ed252c456761301dba8060");
    assert_entry(entry_try_new_string(BYTES("i"), BYTES("12")), "655ac46b180ad2f61a3cee25f0b1780fa2ec879a");
    /* The same value in its compact encoding and in its large one. */
    for (int i = 0; i < 2; i++) {
        const struct store_limits *l = i ? &none : lim;
        struct entry *h = hash_new(BYTES("h"));
        assert_int_equal(hash_set(h, BYTES("a"), BYTES("1"), l, NULL), OK);
        assert_int_equal(hash_set(h, BYTES("b"), BYTES("2"), l, NULL), OK);
        assert_entry(h, "6c8f22b3bf510fdcfd6122dd0f908a80e88243bf");
        struct entry *z = zset_new(BYTES("z"), BYTES("a"), l);
        assert_int_equal(zset_add(z, 1.5, BYTES("a"), l, NULL), OK);
        assert_int_equal(zset_add(z, 2, BYTES("b"), l, NULL), OK);
        assert_entry(z, "445b877af3c3ec83af30529ddbbdda3185172254");
        struct entry *s = set_new(BYTES("is"), BYTES("1"));
        for (int m = 1; m <= 3; m++) {
            char text[2] = {(char)('0' + m), '\0'};
            assert_int_equal(set_add(s, bytes_of(text), l, NULL), OK);
        }
        assert_entry(s, "2a462a3f51a1db89738ebbeef0c47ce1bbc85246");
    }
    struct entry *list = list_new(BYTES("l"));
    assert_int_equal(list_push(list, LIST_TAIL, BYTES("a"), lim), OK);
    assert_int_equal(list_push(list, LIST_TAIL, BYTES("b"), lim), OK);
    assert_int_equal(list_push(list, LIST_TAIL, BYTES("c"), lim), OK);
    assert_entry(list, "8bf72d812571eea9b927f3c11beb0c4165a6ff89");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(values)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
