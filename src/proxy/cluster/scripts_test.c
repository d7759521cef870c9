#include "proxy/cluster/scripts.h"

#include "base/mem.h"
#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the four above it */
#include <cmocka.h>

static struct bytes text_of(unsigned i, size_t n, char *room)
{
    memset(room, 'x', n);
    int used = snprintf(room, n, "%u", i);
    room[used] = 'x';
    return bytes_make(room, n);
}

static void test_names(void **state)
{
    uint8_t sha[SHA1_SIZE];
    (void)state;
    assert_true(script_sha_parse(BYTES("e0E1f9fABfc9d4800c877a703b823ac0578ff8db"), sha));
    assert_int_equal(sha[0], 0xe0);
    assert_int_equal(sha[19], 0xdb);
    assert_false(script_sha_parse(BYTES("e0e1f9fabfc9d4800c877a703b823ac0578ff8d"), sha));
    assert_false(script_sha_parse(BYTES("g0e1f9fabfc9d4800c877a703b823ac0578ff8db"), sha));
    assert_false(script_sha_parse(BYTES(""), sha));
}

static void test_known_by_its_sha(void **state)
{
    struct scripts s;
    uint8_t sha[SHA1_SIZE], want[SHA1_SIZE];
    (void)state;
    scripts_init(&s);
    scripts_note(&s, BYTES("return 1"), 10, 1000, sha);
    assert_true(script_sha_parse(BYTES("e0e1f9fabfc9d4800c877a703b823ac0578ff8db"), want));
    assert_memory_equal(sha, want, SHA1_SIZE);
    struct script *found = scripts_find(&s, want);
    assert_non_null(found);
    assert_true(bytes_eq(bytes_make(found->text, found->n), BYTES("return 1")));
    scripts_flush(&s);
    assert_null(scripts_find(&s, want));
    assert_true(bytes_eq(bytes_make(found->text, found->n), BYTES("return 1"))); /* who has it keeps it */
    script_release(found);
    scripts_note(&s, BYTES("return 1"), 10, 1000, sha);
    scripts_forget(&s, BYTES("return 2"));
    script_release(found = scripts_find(&s, want));
    assert_non_null(found);
    scripts_forget(&s, BYTES("return 1"));
    assert_null(scripts_find(&s, want));
    scripts_note(&s, BYTES("return 1"), 0, 1000, sha);
    assert_null(scripts_find(&s, want));
    scripts_note(&s, BYTES("return 1"), 10, 7, sha);
    assert_null(scripts_find(&s, want));
    scripts_deinit(&s);
}

/* Against a list in the order of use. */
static void test_bounds(void **state)
{
    enum { TEXTS = 40, MOST = 10, MOST_BYTES = 700 };
    struct scripts s;
    struct random rng;
    uint64_t seed;
    unsigned order[TEXTS], n = 0, lost = 0;
    size_t bytes = 0;
    char room[TEXTS + 20];
    uint8_t sha[TEXTS][SHA1_SIZE];
    (void)state;
    random_secure(&seed, sizeof seed);
    print_message("seed %llu\n", (unsigned long long)seed);
    random_seed(&rng, seed);
    scripts_init(&s);
    for (unsigned i = 0; i < TEXTS; i++) sha1(text_of(i, 20 + i, room), sha[i]);
    for (int round = 0; round < 20000; round++) {
        unsigned i = (unsigned)random_below(&rng, TEXTS), at = 0;
        bool adds = random_below(&rng, 2);
        while (at < n && order[at] != i) at++;
        bool known = at < n;
        if (known) memmove(order + at, order + at + 1, (--n - at) * sizeof *order);
        if (known) order[n++] = i;
        if (adds) {
            uint8_t got[SHA1_SIZE];
            scripts_note(&s, text_of(i, 20 + i, room), MOST, MOST_BYTES, got);
            assert_memory_equal(got, sha[i], SHA1_SIZE);
            while (!known && n && (n >= MOST || bytes + 20 + i > MOST_BYTES)) {
                bytes -= 20 + order[0];
                memmove(order, order + 1, --n * sizeof *order);
                lost++;
            }
            if (!known) bytes += 20 + i;
            if (!known) order[n++] = i;
        } else {
            struct script *found = scripts_find(&s, sha[i]);
            assert_int_equal(found != NULL, known);
            if (found) assert_int_equal(found->n, 20 + i);
            script_release(found);
        }
        assert_int_equal(s.table.count, n);
        assert_int_equal(s.bytes, bytes);
        assert_int_equal(s.lost, lost);
    }
    scripts_deinit(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_known_by_its_sha),
        cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
