#include "store/listpack.h"

#include "base/mem.h"
#include "base/number.h"
#include "base/unit_test.h"
#include "store/intset.h"
#include "store/ziplist.h"

#include <stdio.h>
#include <stdlib.h>

static void listpack_vectors(void **state)
{
    (void)state;
    const char *texts[] = {"a",     "bc",    "1",     "-1",    "127",     "128",     "4095",       "4096",
                           "-4096", "-4097", "32767", "32768", "8388607", "8388608", "2147483647", "2147483648"};
    uint8_t *lp = lp_new();
    assert_bytes(lp_blob(lp), "07000000 0000 ff");
    for (size_t i = 0; i < 16; i++) assert_true(lp_append(&lp, bytes_of(texts[i])));
    assert_bytes(lp_blob(lp), "4a000000 1000 816102 82626303 0101 dfff02 7f01 c08002 cfff02 f1001003 d00002 f1ffef03 "
                              "f1ff7f03 f200800004 f2ffff7f04 f30000800005 f3ffffff7f05 f4000000800000000009 ff");
    assert_true(lp_is_valid(lp_blob(lp), NULL));
    struct element el;
    for (int i = 0; i < 16; i++) {
        lp_get(lp_seek(lp, i), &el);
        assert_true(bytes_eq(el.text, bytes_of(texts[i])));
        assert_ptr_equal(lp_seek(lp, i), lp_seek(lp, i - 16));
        assert_ptr_equal(lp_find(lp, lp_first(lp), bytes_of(texts[i]), 0), lp_seek(lp, i));
    }
    assert_null(lp_seek(lp, 16));
    assert_null(lp_seek(lp, -17));
    assert_null(lp_find(lp, lp_first(lp), BYTES("bc"), 1));
    mem_free(lp);
}

static void listpack_long_texts(void **state)
{
    (void)state;
    static char text[300000];
    memset(text, 'x', sizeof text);
    /* bytes of encoding, of backward length; the latter as hex */
    struct {
        size_t n, head;
        const char *back;
    } cases[] = {{63, 1, "40"},     {64, 2, "42"},     {125, 2, "7f"},     {126, 2, "0180"},     {4095, 2, "2081"},
                 {4096, 5, "2085"}, {9000, 5, "46ad"}, {16377, 5, "7ffe"}, {16378, 5, "00ffff"}, {300000, 5, "12a7e5"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t *lp = lp_new();
        size_t back = strlen(cases[i].back) / 2, n = cases[i].n;
        assert_true(lp_append(&lp, bytes_make(text, n)));
        assert_int_equal(lp_bytes(lp), 7 + cases[i].head + n + back);
        assert_int_equal(lp_element_bytes(bytes_make(text, n)), cases[i].head + n + back);
        assert_bytes(bytes_make(lp + 6 + cases[i].head + n, back), cases[i].back);
        assert_ptr_equal(lp_last(lp), lp + 6);
        assert_true(lp_is_valid(lp_blob(lp), NULL));
        mem_free(lp);
    }
}

enum { MODEL_MAX = 400 };
struct model {
    char *text[MODEL_MAX];
    size_t n;
};

static void model_splice(struct model *m, size_t at, size_t removed, struct bytes text, bool add)
{
    for (size_t i = 0; i < removed; i++) free(m->text[at + i]);
    memmove(m->text + at + add, m->text + at + removed, (m->n - at - removed) * sizeof *m->text);
    if (add) m->text[at] = strndup(text.p, text.n);
    m->n = m->n - removed + add;
}

static void model_compare(const struct model *m, const uint8_t *lp)
{
    size_t count;
    struct element el;
    assert_true(lp_is_valid(lp_blob(lp), &count));
    assert_int_equal(count, m->n);
    assert_int_equal(lp_count(lp), m->n);
    const uint8_t *at = lp_first(lp);
    for (size_t i = 0; i < m->n; i++, at = lp_next(lp, at)) {
        lp_get(at, &el);
        assert_true(bytes_eq(el.text, bytes_of(m->text[i])));
        assert_int_equal(lp_text_len(at), strlen(m->text[i]));
    }
    assert_null(at);
    at = lp_last(lp);
    for (size_t i = m->n; i-- > 0; at = lp_prev(lp, at)) assert_ptr_equal(at, lp_seek(lp, (int64_t)i));
    assert_null(at);
}

static struct bytes random_text(struct random *r, char *room)
{
    size_t n = random_below(r, 8) ? random_below(r, 20) : random_below(r, 5000);
    if (random_below(r, 2))
        return bytes_make(
            room, format_i64(room, (int64_t)(random_u64(r) >> random_below(r, 64)) * (random_below(r, 2) ? 1 : -1)));
    for (size_t i = 0; i < n; i++) room[i] = (char)('a' + random_below(r, 26));
    return bytes_make(room, n);
}

static void listpack_against_model(void **state)
{
    (void)state;
    uint64_t seed = seed_of_run();
    struct random r;
    random_seed(&r, seed);
    struct model m = {.n = 0};
    uint8_t *lp = lp_new();
    static char room[6000];
    for (int step = 0; step < 4000; step++) {
        size_t at = random_below(&r, m.n + 1), removed = random_below(&r, 3);
        bool add = m.n < MODEL_MAX - 2 && (m.n < 20 || random_below(&r, 3));
        if (removed > m.n - at) removed = m.n - at;
        struct bytes text = random_text(&r, room);
        const uint8_t *p = at < m.n ? lp_seek(lp, (int64_t)at) : NULL;
        assert_true(lp_splice(&lp, p, removed, &text, add));
        model_splice(&m, at, removed, text, add);
        if (step % 16 == 0) model_compare(&m, lp);
    }
    model_compare(&m, lp);
    while (m.n) model_splice(&m, 0, 1, BYTES(""), false);
    mem_free(lp);
}

/* Every damaged copy is either refused or can be walked to its end without reading outside (SAN=address sees that). */
static void listpack_damage(void **state)
{
    (void)state;
    uint64_t seed = seed_of_run();
    struct random r;
    random_seed(&r, seed);
    uint8_t *lp = lp_new();
    const char *texts[] = {"a",
                           "100",
                           "-5000",
                           "99999999999",
                           ("a text that is a good deal longer than sixty-three bytes, so that it has "
                            "two bytes in front"),
                           "",
                           "70000"};
    for (size_t i = 0; i < 7; i++) assert_true(lp_append(&lp, bytes_of(texts[i])));
    size_t n = lp_bytes(lp), refused = 0, taken = 0;
    for (size_t cut = 0; cut < n; cut++) {
        uint8_t *copy = memcpy(malloc(cut ? cut : 1), lp, cut);
        assert_false(lp_is_valid(bytes_make(copy, cut), NULL));
        free(copy);
    }
    for (int i = 0; i < 20000; i++) {
        uint8_t *copy = memcpy(malloc(n), lp, n);
        for (uint64_t k = 1 + random_below(&r, 3); k > 0; k--) copy[random_below(&r, n)] = (uint8_t)random_u64(&r);
        if (lp_is_valid(bytes_make(copy, n), NULL)) {
            size_t sum = 0;
            for (const uint8_t *at = lp_first(copy); at; at = lp_next(copy, at)) sum += lp_text_len(at);
            for (const uint8_t *at = lp_last(copy); at; at = lp_prev(copy, at)) sum -= lp_text_len(at);
            assert_int_equal(sum, 0);
            taken++;
        } else {
            refused++;
        }
        free(copy);
    }
    assert_true(refused > 5000 && taken > 100);
    mem_free(lp);
}

static void listpack_count_unknown(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_append(&b, "\0\0\0\0\0\0", 6);
    for (int i = 0; i < 70000; i++) buf_append(&b, "\5\1", 2);
    buf_append_char(&b, (char)0xff);
    uint32_t bytes = (uint32_t)b.n;
    memcpy(b.p, &bytes, 4);
    memcpy(b.p + 4, "\xff\xff", 2);
    uint8_t *lp = lp_try_copy(buf_bytes(&b));
    size_t count;
    assert_true(lp_is_valid(lp_blob(lp), &count) && count == 70000 && lp_count(lp) == 70000);
    lp_delete(&lp, lp_first(lp), 10000);
    assert_int_equal(lp_count(lp), 60000);
    assert_true(lp_is_valid(lp_blob(lp), NULL));
    assert_non_null(lp_seek(lp, -60000));
    assert_null(lp_seek(lp, -60001));
    mem_free(lp);
    /* 65534 elements become 65535: the header says unknown from then on. */
    memcpy(b.p + 4, "\xfe\xff", 2);
    b.n = 6 + 65534 * 2;
    buf_append_char(&b, (char)0xff);
    bytes = (uint32_t)b.n;
    memcpy(b.p, &bytes, 4);
    lp = lp_try_copy(buf_bytes(&b));
    assert_true(lp_is_valid(lp_blob(lp), NULL));
    assert_true(lp_append(&lp, BYTES("5")) && lp_append(&lp, BYTES("5")));
    assert_int_equal(lp_count(lp), 65536);
    assert_true(lp_is_valid(lp_blob(lp), NULL));
    mem_free(lp);
    buf_deinit(&b);
}

static void intset_vectors(void **state)
{
    (void)state;
    uint8_t *is = intset_new();
    assert_true(intset_add(&is, 3) && intset_add(&is, 1) && intset_add(&is, 2));
    assert_false(intset_add(&is, 2));
    assert_bytes(bytes_make(is, intset_bytes(is)), "02000000 03000000 0100 0200 0300");
    mem_free(is);
    is = intset_new();
    assert_true(intset_add(&is, 1) && intset_add(&is, 70000) && intset_add(&is, -5));
    assert_bytes(bytes_make(is, intset_bytes(is)), "04000000 03000000 fbffffff 01000000 70110100");
    assert_true(intset_remove(&is, 70000));
    assert_false(intset_remove(&is, 70000));
    assert_bytes(bytes_make(is, intset_bytes(is)), "04000000 02000000 fbffffff 01000000");
    mem_free(is);
    is = intset_new();
    assert_true(intset_add(&is, 1) && intset_add(&is, 3000000000));
    assert_bytes(bytes_make(is, intset_bytes(is)), "08000000 02000000 0100000000000000 005ed0b200000000");
    assert_true(intset_has(is, 3000000000) && !intset_has(is, 2));
    mem_free(is);
    const char *bad[] = {"02000000 02000000 0200 0100", "02000000 02000000 0100 0100", "02000000 02000000 0100",
                         "03000000 00000000",           "02000000 01000000 0100 00",   "02000000"};
    char room[64];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(intset_is_valid(unhex(bad[i], room)));
    assert_true(intset_is_valid(unhex("02000000 02000000 ffff 0100", room)));
}

static int compare_ints(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void intset_against_model(void **state)
{
    (void)state;
    uint64_t seed = seed_of_run();
    struct random r;
    random_seed(&r, seed);
    int64_t model[300];
    size_t n = 0;
    uint8_t *is = intset_new();
    for (int step = 0; step < 3000; step++) {
        int64_t v = (int64_t)random_u64(&r) >> (step < 1000 ? 56 : step < 2000 ? 40 : random_below(&r, 64));
        size_t i = 0;
        while (i < n && model[i] != v) i++;
        if (n < 290 && random_below(&r, 3)) {
            assert_int_equal(intset_add(&is, v), i == n);
            if (i == n) model[n++] = v;
        } else {
            if (n && random_below(&r, 2)) v = model[i = random_below(&r, n)];
            assert_int_equal(intset_remove(&is, v), i < n);
            if (i < n) model[i] = model[--n];
        }
        qsort(model, n, sizeof *model, compare_ints);
        assert_int_equal(intset_len(is), n);
        for (size_t k = 0; k < n; k++) assert_true(intset_at(is, k) == model[k]);
        assert_true(intset_is_valid(bytes_make(is, intset_bytes(is))));
    }
    mem_free(is);
}

static void ziplist_vectors(void **state)
{
    (void)state;
    static const char *const texts[] = {"a", "1", "127", "256", "8388607", "16777216", "1099511627776"};
    char room[256], xs[70];
    struct bytes blob = unhex("75000000 2b000000 0800 00 0161 03f2 02fe7f 03c00001 04f0ffff7f 05d000000001 "
                              "06e00000000000010000 0a4046",
                              room);
    memset(xs, 'x', sizeof xs);
    memset(room + blob.n, 'x', 70);
    room[blob.n + 70] = (char)0xff;
    blob.n += 71;
    /* The entry in front of the last one is 10 bytes, the sum of the pieces above. */
    struct ziplist_iter it;
    struct element el;
    assert_int_equal(ziplist_iter_init(&it, blob), OK);
    for (size_t i = 0; i < 7; i++) {
        assert_int_equal(ziplist_iter_next(&it, &el), OK);
        assert_true(bytes_eq(el.text, bytes_of(texts[i])));
    }
    assert_int_equal(ziplist_iter_next(&it, &el), OK);
    assert_true(bytes_eq(el.text, bytes_make(xs, 70)));
    assert_int_equal(ziplist_iter_next(&it, &el), E_NOT_FOUND);

    struct random r;
    random_seed(&r, 7);
    for (int i = 0; i < 30000; i++) {
        char *copy = memcpy(malloc(blob.n), blob.p, blob.n);
        for (uint64_t k = 1 + random_below(&r, 3); k > 0; k--) copy[random_below(&r, blob.n)] = (char)random_u64(&r);
        enum status s = ziplist_iter_init(&it, bytes_make(copy, blob.n));
        for (int n = 0; s == OK; n++) {
            assert_true(n < 200);
            s = ziplist_iter_next(&it, &el);
            if (s != OK || el.text.n == 0) continue;
            /* Within the blob, or in the element's own digits; never beyond. */
            bool inside = el.text.p >= copy && el.text.p + el.text.n <= copy + blob.n;
            assert_true(inside || (el.text.p == el.digits && el.text.n <= sizeof el.digits));
        }
        free(copy);
    }
}

static void zipmap_vectors(void **state)
{
    (void)state;
    char room[64];
    struct bytes blob = unhex("01 01 66 01 00 76 ff", room), field, value;
    struct zipmap_iter it;
    assert_int_equal(zipmap_iter_init(&it, blob), OK);
    assert_int_equal(zipmap_iter_next(&it, &field, &value), OK);
    assert_true(bytes_eq(field, BYTES("f")) && bytes_eq(value, BYTES("v")));
    assert_int_equal(zipmap_iter_next(&it, &field, &value), E_NOT_FOUND);
    blob = unhex("02 01 66 01 02 76 0000 fe01000000 67 00 00 ff", room);
    assert_int_equal(zipmap_iter_init(&it, blob), OK);
    assert_int_equal(zipmap_iter_next(&it, &field, &value), OK);
    assert_int_equal(zipmap_iter_next(&it, &field, &value), OK);
    assert_true(bytes_eq(field, BYTES("g")) && value.n == 0);
    assert_int_equal(zipmap_iter_next(&it, &field, &value), E_NOT_FOUND);
    const char *bad[] = {"01 05 66 01 00 76 ff", "01 01 66 01 09 76 ff", "02 01 66 01 00 76 ff",
                         "01 01 66 ff",          "01 fe 66 ff",          "00"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        blob = unhex(bad[i], room);
        char *exact = memcpy(malloc(blob.n), blob.p, blob.n);
        enum status s = zipmap_iter_init(&it, bytes_make(exact, blob.n));
        while (s == OK) s = zipmap_iter_next(&it, &field, &value);
        assert_int_equal(s, E_CORRUPT);
        free(exact);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(listpack_vectors),       cmocka_unit_test(listpack_long_texts),
        cmocka_unit_test(listpack_against_model), cmocka_unit_test(listpack_damage),
        cmocka_unit_test(listpack_count_unknown), cmocka_unit_test(intset_vectors),
        cmocka_unit_test(intset_against_model),   cmocka_unit_test(ziplist_vectors),
        cmocka_unit_test(zipmap_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
