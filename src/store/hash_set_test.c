#include "store/hash.h"
#include "store/set.h"

#include "base/mem.h"
#include "base/number.h"
#include "base/unit_test.h"
#include "store/listpack.h"

#include <stdio.h>
#include <stdlib.h>

static const struct store_limits *const defaults = &store_limits_default;

static void put(struct entry *e, const char *field, const char *value)
{
    assert_int_equal(hash_set(e, bytes_of(field), bytes_of(value), defaults, NULL), OK);
}

static void hash_bytes_are_redis(void **state)
{
    (void)state;
    struct entry *e = hash_new(BYTES("key"));
    put(e, "f", "v");
    put(e, "n", "10");
    assert_bytes(hash_listpack(e), "12000000 0400 816602 817602 816e02 0a01 ff");
    put(e, "f", "10"); /* in place */
    put(e, "m", "w");
    assert_bytes(hash_listpack(e), "17000000 0600 816602 0a01 816e02 0a01 816d02 817702 ff");
    assert_true(hash_del(e, BYTES("n")));
    assert_false(hash_del(e, BYTES("n")));
    assert_bytes(hash_listpack(e), "12000000 0400 816602 0a01 816d02 817702 ff");
    entry_free(e);
}

static void hash_converts_as_redis_does(void **state)
{
    (void)state;
    char text[80], name[16];
    memset(text, 'x', sizeof text);
    struct entry *e = hash_new(BYTES("key"));
    assert_int_equal(hash_set(e, BYTES("f"), bytes_make(text, 64), defaults, NULL), OK);
    assert_int_equal(entry_enc(e), ENC_LISTPACK);
    struct bytes args[] = {BYTES("g"), bytes_make(text, 65)};
    hash_convert_for(e, args, 1, defaults);
    assert_int_equal(entry_enc(e), ENC_LISTPACK);
    hash_convert_for(e, args, 2, defaults);
    assert_int_equal(entry_enc(e), ENC_HASHTABLE);
    assert_int_equal(hash_value_len(e, BYTES("f")), 64);
    entry_free(e);
    e = hash_new(BYTES("key"));
    assert_int_equal(hash_set(e, bytes_make(text, 65), BYTES("v"), defaults, NULL), OK);
    assert_int_equal(entry_enc(e), ENC_HASHTABLE);
    entry_free(e);
    e = hash_new(BYTES("key"));
    for (int i = 0; i < 513; i++) {
        assert_int_equal(entry_enc(e), ENC_LISTPACK);
        snprintf(name, sizeof name, "f%d", i);
        put(e, name, "v");
    }
    assert_int_equal(entry_enc(e), ENC_HASHTABLE);
    assert_int_equal(hash_len(e), 513);
    entry_free(e);
}

static void hash_refuses_bad_blobs(void **state)
{
    (void)state;
    char room[64];
    struct entry *e;
    size_t before = mem_used();
    struct bytes twice = unhex("12000000 0400 816602 817602 816602 0a01 ff", room);
    assert_int_equal(hash_from_listpack(BYTES("k"), twice, defaults, &e), E_CORRUPT);
    struct bytes odd = unhex("0d000000 0200 816602 817602 ff", room);
    assert_int_equal(hash_from_listpack(BYTES("k"), odd, defaults, &e), OK);
    assert_int_equal(hash_len(e), 1);
    entry_free(e);
    odd = unhex("0a000000 0100 816602 ff", room);
    assert_int_equal(hash_from_listpack(BYTES("k"), odd, defaults, &e), E_CORRUPT);
    assert_int_equal(hash_from_listpack(BYTES("k"), unhex("07000000 0000 ff", room), defaults, &e), E_NOT_FOUND);
    assert_int_equal(hash_from_listpack(BYTES("k"), BYTES("hello"), defaults, &e), E_CORRUPT);
    struct store_limits tight = *defaults;
    tight.hash_max_listpack_entries = 1;
    struct bytes two = unhex("12000000 0400 816602 817602 816e02 0a01 ff", room);
    assert_int_equal(hash_from_listpack(BYTES("k"), two, &tight, &e), OK);
    assert_int_equal(entry_enc(e), ENC_HASHTABLE);
    struct element value;
    assert_true(hash_get(e, BYTES("n"), &value) && bytes_eq(value.text, BYTES("10")));
    entry_free(e);
    assert_int_equal(mem_used(), before);
}

/* Model of a hash or set: one slot for each possible name. */
enum { NAMES = 1500 };
struct model {
    bool there[NAMES];
    uint32_t value[NAMES];
    size_t n;
};

/* Names of sets are integers below 600 and texts above; some are long. */
static struct bytes name_of(uint32_t id, char *room)
{
    if (id < 600) return bytes_make(room, format_i64(room, (int64_t)id - 300));
    size_t n = (size_t)sprintf(room, "name:%u:", id);
    size_t more = id % 100 == 0 ? 3000 : id % 7;
    memset(room + n, 'n', more);
    return bytes_make(room, n + more);
}

static uint32_t id_of(struct bytes name)
{
    int64_t v;
    if (parse_i64(name, &v)) return (uint32_t)(v + 300);
    return (uint32_t)strtoul(name.p + 5, NULL, 10);
}

static struct bytes value_of(uint32_t v, char *room)
{
    size_t n = (size_t)sprintf(room, "%u", v);
    size_t more = v % 50 == 0 ? v % 2000 : 0;
    memset(room + n, 'v', more);
    return bytes_make(room, n + more);
}

struct tally {
    const struct model *m;
    bool values;
    unsigned char seen[NAMES];
    size_t n;
};

static void tally_one(void *ctx, struct bytes first, struct bytes second)
{
    struct tally *t = ctx;
    char room[4000];
    uint32_t id = id_of(first);
    assert_true(id < NAMES && t->m->there[id] && !t->seen[id]);
    if (t->values) assert_true(bytes_eq(second, value_of(t->m->value[id], room)));
    t->seen[id] = 1;
    t->n++;
}

static void hash_same(const struct entry *e, const struct model *m, struct random *r)
{
    struct tally t = {.m = m, .values = true};
    struct hash_iter it;
    struct element field, value;
    assert_int_equal(hash_len(e), m->n);
    for (hash_iter_init(&it, e); hash_iter_next(&it, &field, &value);) tally_one(&t, field.text, value.text);
    assert_int_equal(t.n, m->n);
    t = (struct tally){.m = m, .values = true};
    uint64_t cursor = 0;
    do cursor = hash_scan(e, cursor, 7, tally_one, &t);
    while (cursor);
    assert_int_equal(t.n, m->n);
    uint64_t want = random_below(r, NAMES);
    t = (struct tally){.m = m, .values = true};
    hash_sample(e, r, want, tally_one, &t);
    assert_int_equal(t.n, want < m->n ? want : m->n);
    if (m->n == 0) return;
    hash_random(e, r, &field, &value);
    t.n = 0;
    memset(t.seen, 0, sizeof t.seen);
    tally_one(&t, field.text, value.text);
    if (entry_enc(e) == ENC_LISTPACK)
        assert_true(lp_is_valid(hash_listpack(e), NULL));
    else
        assert_true(tree_is_valid(entry_ptr(e)));
}

static void hash_run(const struct store_limits *lim, uint64_t seed, uint32_t names, int steps)
{
    struct random r;
    static struct model m, forked;
    struct entry *e = hash_new(BYTES("some key")), *fork = NULL;
    char name_room[4000], value_room[4000];
    random_seed(&r, seed);
    m = (struct model){.n = 0};
    for (int step = 0; step < steps; step++) {
        uint32_t id = (uint32_t)random_below(&r, names), v = (uint32_t)random_below(&r, 3000);
        struct bytes name = name_of(id, name_room), value = value_of(v, value_room);
        if (random_below(&r, step / (steps / 4) % 2 ? 3 : 8)) {
            bool added;
            assert_int_equal(hash_set(e, name, value, lim, &added), OK);
            assert_int_equal(added, !m.there[id]);
            m.n += added;
            m.there[id] = true;
            m.value[id] = v;
        } else {
            assert_int_equal(hash_del(e, name), m.there[id]);
            m.n -= m.there[id];
            m.there[id] = false;
        }
        struct element el;
        id = (uint32_t)random_below(&r, names);
        assert_int_equal(hash_get(e, name_of(id, name_room), &el), m.there[id]);
        if (m.there[id]) assert_true(bytes_eq(el.text, value_of(m.value[id], value_room)));
        if (step % 200 == 0) hash_same(e, &m, &r);
        if (step % 700 == 350) {
            if (fork) {
                hash_same(fork, &forked, &r);
                entry_free(fork);
            }
            fork = entry_fork(e);
            forked = m;
        }
    }
    if (fork) {
        hash_same(fork, &forked, &r);
        entry_free(fork);
    }
    entry_free(e);
}

static void hash_against_model(void **state)
{
    (void)state;
    uint64_t seed = seed_of_run();
    size_t before = mem_used();
    struct store_limits wide = {.hash_max_listpack_entries = 1000, .hash_max_listpack_value = 10000};
    hash_run(defaults, seed, NAMES, 6000);
    hash_run(&wide, seed + 1, 200, 3000);
    assert_int_equal(mem_used(), before);
}

static void set_same(const struct entry *e, const struct model *m, struct random *r)
{
    struct tally t = {.m = m};
    struct set_iter it;
    struct element member;
    assert_int_equal(set_len(e), m->n);
    for (set_iter_init(&it, e); set_iter_next(&it, &member);) tally_one(&t, member.text, member.text);
    assert_int_equal(t.n, m->n);
    t = (struct tally){.m = m};
    uint64_t cursor = 0;
    do cursor = set_scan(e, cursor, 7, tally_one, &t);
    while (cursor);
    assert_int_equal(t.n, m->n);
    uint64_t want = random_below(r, NAMES);
    t = (struct tally){.m = m};
    set_sample(e, r, want, tally_one, &t);
    assert_int_equal(t.n, want < m->n ? want : m->n);
}

static void set_run(const struct store_limits *lim, uint64_t seed, uint32_t names, int steps)
{
    struct random r;
    static struct model m, forked;
    struct entry *e = set_new(BYTES("some key"), BYTES("1")), *fork = NULL;
    char room[4000];
    random_seed(&r, seed);
    m = (struct model){.n = 0};
    for (int step = 0; step < steps; step++) {
        uint32_t id = (uint32_t)random_below(&r, step < steps / 2 && names > 600 ? 600 : names);
        struct bytes name = name_of(id, room);
        uint64_t what = random_below(&r, step / (steps / 4) % 2 ? 3 : 8);
        if (what > 1) {
            bool added;
            assert_int_equal(set_add(e, name, lim, &added), OK);
            assert_int_equal(added, !m.there[id]);
            m.n += added;
            m.there[id] = true;
        } else if (what && m.n) { /* SPOP: the member is borrowed from the set itself */
            struct element el;
            set_random(e, &r, &el);
            id = id_of(el.text);
            assert_true(m.there[id] && set_remove(e, el.text));
            m.n--;
            m.there[id] = false;
        } else {
            assert_int_equal(set_remove(e, name), m.there[id]);
            m.n -= m.there[id];
            m.there[id] = false;
        }
        id = (uint32_t)random_below(&r, names);
        assert_int_equal(set_has(e, name_of(id, room)), m.there[id]);
        if (step % 200 == 0) set_same(e, &m, &r);
        if (step % 700 == 350) {
            if (fork) {
                set_same(fork, &forked, &r);
                entry_free(fork);
            }
            fork = entry_fork(e);
            forked = m;
        }
    }
    if (fork) {
        set_same(fork, &forked, &r);
        entry_free(fork);
    }
    entry_free(e);
}

static void set_against_model(void **state)
{
    (void)state;
    uint64_t seed = seed_of_run();
    size_t before = mem_used();
    struct store_limits tight = {.set_max_intset_entries = 100};
    set_run(defaults, seed, NAMES, 6000);
    set_run(&tight, seed + 1, 600, 3000);
    assert_int_equal(mem_used(), before);
}

static void set_encodings(void **state)
{
    (void)state;
    char text[24], room[64];
    struct entry *e = set_new(BYTES("k"), BYTES("7"));
    for (int i = 0; i < 513; i++) {
        assert_int_equal(entry_enc(e), ENC_INTSET);
        assert_int_equal(set_add(e, bytes_make(text, format_i64(text, i)), defaults, NULL), OK);
    }
    assert_int_equal(entry_enc(e), ENC_HASHTABLE);
    assert_int_equal(set_len(e), 513);
    entry_free(e);
    e = set_new(BYTES("k"), BYTES("a"));
    assert_int_equal(entry_enc(e), ENC_HASHTABLE);
    entry_free(e);
    e = set_new(BYTES("k"), BYTES("1"));
    assert_int_equal(set_add(e, BYTES("1"), defaults, NULL), OK);
    assert_int_equal(set_add(e, BYTES("-5"), defaults, NULL), OK);
    assert_int_equal(set_add(e, BYTES("70000"), defaults, NULL), OK);
    assert_bytes(set_intset(e), "04000000 03000000 fbffffff 01000000 70110100");
    assert_false(set_has(e, BYTES("+1")));
    assert_int_equal(set_add(e, BYTES("01"), defaults, NULL), OK);
    assert_int_equal(entry_enc(e), ENC_HASHTABLE);
    assert_true(set_has(e, BYTES("01")) && set_has(e, BYTES("1")) && set_len(e) == 4);
    entry_free(e);
    assert_int_equal(set_from_intset(BYTES("k"), unhex("02000000 03000000 0100 0200 0300", room), defaults, &e), OK);
    assert_true(set_has(e, BYTES("3")) && set_len(e) == 3);
    entry_free(e);
    assert_int_equal(set_from_intset(BYTES("k"), unhex("02000000 02000000 0300 0200", room), defaults, &e), E_CORRUPT);
    assert_int_equal(set_from_intset(BYTES("k"), unhex("02000000 00000000", room), defaults, &e), E_NOT_FOUND);
}

static void random_members_are_uniform(void **state)
{
    (void)state;
    struct random r;
    struct element el;
    char text[16];
    unsigned hits[1000] = {0};
    random_seed(&r, 3);
    struct entry *e = set_new(BYTES("k"), BYTES("x"));
    for (int i = 0; i < 1000; i++) {
        int n = sprintf(text, "m%d", i);
        assert_int_equal(set_add(e, bytes_make(text, (size_t)n), defaults, NULL), OK);
    }
    for (int i = 0; i < 200000; i++) {
        set_random(e, &r, &el);
        hits[strtoul(el.text.p + 1, NULL, 10)]++;
    }
    for (int i = 0; i < 1000; i++) assert_in_range(hits[i], 120, 290);
    entry_free(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hash_bytes_are_redis),       cmocka_unit_test(hash_converts_as_redis_does),
        cmocka_unit_test(hash_refuses_bad_blobs),     cmocka_unit_test(hash_against_model),
        cmocka_unit_test(set_against_model),          cmocka_unit_test(set_encodings),
        cmocka_unit_test(random_members_are_uniform),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
