/* The counter of uses against redis-server's; the choice of victims. */
#include "store/evict.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { NOW = 1700000000 };
static const int64_t now_ms = (int64_t)NOW * 1000;

/* ---- the counter ---- */

static uint32_t counter_after(const struct lfu *p, unsigned uses, struct random *rng)
{
    uint32_t bits = lfu_bits(77, LFU_START);
    for (unsigned i = 0; i < uses; i++) bits = lfu_used(p, bits, 77, rng);
    assert_int_equal(bits >> 8, 77);
    return bits & 255;
}

/* Means of OBJECT FREQ of 100 keys on redis-server 7.0.15, after so many GETs. */
static void test_lfu_like_redis(void **state)
{
    static const struct {
        uint32_t factor;
        unsigned uses;
        double mean, slack;
    } kept[] = {
        {0, 10, 15, 0},         {0, 100, 105, 0},     {0, 1000, 255, 0},     {1, 10, 8.84, 0.5},
        {1, 100, 18.51, 1},     {1, 1000, 49.78, 2},  {10, 10, 6.60, 0.4},   {10, 100, 9.69, 0.6},
        {10, 1000, 19.55, 1.2}, {100, 10, 6.07, 0.2}, {100, 100, 6.76, 0.5}, {100, 1000, 9.67, 0.6},
    };
    struct random rng;
    random_seed(&rng, 5);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        struct lfu p = {kept[i].factor, 1};
        double sum = 0;
        for (int key = 0; key < 400; key++) sum += counter_after(&p, kept[i].uses, &rng);
        double off = sum / 400 - kept[i].mean;
        if (off > kept[i].slack || off < -kept[i].slack)
            fail_msg("factor %u, %u uses: %.2f, redis-server %.2f", kept[i].factor, kept[i].uses, sum / 400,
                     kept[i].mean);
    }
}

static void test_lfu_decay(void **state)
{
    struct lfu slow = {10, 5}, never = {10, 0}, each = {0, 1};
    struct random rng;
    random_seed(&rng, 1);
    assert_int_equal(lfu_counter(&slow, lfu_bits(100, 7), 104), 7);
    assert_int_equal(lfu_counter(&slow, lfu_bits(100, 7), 105), 6);
    assert_int_equal(lfu_counter(&slow, lfu_bits(100, 7), 100 + 34), 1);
    assert_int_equal(lfu_counter(&slow, lfu_bits(100, 7), 100 + 3000), 0);
    assert_int_equal(lfu_counter(&never, lfu_bits(100, 7), 50000), 7);
    /* The clock of 16 bits comes round. */
    assert_int_equal(lfu_counter(&each, lfu_bits(65535, 9), 2), 6);
    assert_int_equal(lfu_clock_of(65536ll * 60000 + 60000), 1);
    /* A use takes the decay first, and does not go beyond the end. */
    assert_int_equal(lfu_used(&each, lfu_bits(10, 9), 12, &rng), lfu_bits(12, 8));
    assert_int_equal(lfu_used(&each, lfu_bits(10, 255), 10, &rng), lfu_bits(10, 255));
    assert_int_equal(lfu_used(&slow, lfu_bits(10, 0), 10, &rng), lfu_bits(10, 1)); /* below the start each use counts */
}

static void test_lru_clock(void **state)
{
    assert_int_equal(lru_idle(5, 5), 0);
    assert_int_equal(lru_idle(0xfffffe, 3), 5);
    assert_int_equal(lru_clock_of(((int64_t)1 << 24) * 1000 + 2999), 2);
}

/* ---- the choice ---- */

static void add(struct store *s, int db, const char *name, uint32_t bits, int64_t expire_at)
{
    struct key k = key_of(bytes_of(name));
    struct entry *e = entry_try_new_string(k.name, BYTES("value"));
    if (expire_at >= 0) e = entry_with_expire(e, expire_at);
    entry_set_lru(e, bits);
    assert_true(slot_try_lock(s, k.slot));
    store_put(s, db, &k, e);
    slot_unlock(s, k.slot);
}

/* n keys in db: the first `tagged` of them in one slot. */
static void fill(struct store *s, int db, int n, int tagged)
{
    char name[64];
    for (int i = 0; i < n; i++) {
        snprintf(name, sizeof name, i < tagged ? "{tag}%d" : "k%d", i);
        add(s, db, name, 0, -1);
    }
}

static int number_of(struct bytes name)
{
    return atoi(name.p + (name.p[0] == '{' ? 5 : 1));
}

struct tally {
    unsigned *seen;
    int offset[2]; /* by database */
    size_t total;
};

static void tally(void *ctx, int db, struct entry *e)
{
    struct tally *t = ctx;
    char text[64];
    struct bytes name = entry_key(e);
    assert_true(name.n < sizeof text);
    memcpy(text, name.p, name.n);
    text[name.n] = '\0';
    t->seen[t->offset[db] + number_of(bytes_of(text))]++;
    t->total++;
}

/* Chi-square over groups of keys: with one slot that holds most of them, a second database, and slots with single keys,
 * each key is as likely as any other to be looked at. */
static void test_samples_are_uniform(void **state)
{
    enum { IN_0 = 12000, TAGGED = 9000, IN_1 = 3000, KEYS = IN_0 + IN_1, GROUP = 250, LOOKS = 400000 };
    struct store *s = store_create(2, (struct store_hooks){0});
    fill(s, 0, IN_0, TAGGED);
    fill(s, 1, IN_1, 0);
    struct evictor *v = evictor_create(s, 42);
    struct evict_policy p = {.by = EVICT_BY_LRU, .samples = 5, .now_ms = now_ms};
    struct tally t = {mem_calloc(KEYS, sizeof *t.seen), {0, IN_0}, 0};
    for (int i = 0; i < LOOKS; i++) evict_look(v, &p, tally, &t);
    assert_true(t.total > LOOKS);
    double expected = (double)t.total / KEYS, worst = 0;
    for (int i = 0; i < KEYS; i += GROUP) {
        double sum = 0;
        for (int j = i; j < i + GROUP; j++) {
            assert_int_not_equal(t.seen[j], 0);
            sum += t.seen[j];
        }
        double off = sum / (expected * GROUP) - 1;
        if (off < 0) off = -off;
        if (off > worst) worst = off;
    }
    /* A group is seen about 15,000 times, in bunches of up to 7: a deviation of 4% would be four of its own. */
    if (worst > 0.04) fail_msg("a group of keys is off by %.1f%%", worst * 100);
    mem_free(t.seen);
    evictor_destroy(v);
    store_destroy(s);
}

struct victims {
    struct store *store;
    unsigned *gone; /* by number of the key */
    size_t n;
    int64_t last_expire;
    uint32_t last_bits;
};

static void take(void *ctx, int db, const struct key *k, struct entry *e)
{
    struct victims *x = ctx;
    char text[64] = "";
    assert_true(bytes_eq(entry_key(e), k->name) && k->slot == key_slot(k->name));
    memcpy(text, k->name.p, k->name.n);
    if (x->gone) x->gone[number_of(bytes_of(text))]++;
    x->last_expire = entry_expire_at(e);
    x->last_bits = entry_lru(e);
    x->n++;
    assert_false(slot_try_lock(x->store, k->slot)); /* it is held */
    store_delete(x->store, db, k);
}

static void test_by_chance_is_uniform(void **state)
{
    enum { KEYS = 4000, ROUNDS = 60, EACH = 1000 };
    unsigned *gone = mem_calloc(KEYS, sizeof *gone);
    for (int round = 0; round < ROUNDS; round++) {
        struct store *s = store_create(1, (struct store_hooks){0});
        fill(s, 0, KEYS, KEYS / 2);
        struct evictor *v = evictor_create(s, (uint64_t)round);
        struct evict_policy p = {.by = EVICT_BY_CHANCE, .samples = 5, .now_ms = now_ms};
        struct victims x = {s, gone, 0, 0, 0};
        for (int i = 0; i < EACH; i++) assert_int_equal(evict_one(v, &p, take, &x), EVICT_ONE);
        assert_int_equal(store_db_count(s, 0), KEYS - EACH);
        evictor_destroy(v);
        store_destroy(s);
    }
    double tagged = 0, others = 0;
    for (int i = 0; i < KEYS; i++) *(i < KEYS / 2 ? &tagged : &others) += gone[i];
    double share = tagged / (tagged + others);
    if (share < 0.49 || share > 0.51) fail_msg("the keys of one slot, half of all, are %.3f of the victims", share);
    mem_free(gone);
}

/* Of n keys with ages 0..n-1, the oldest go first, nearly. */
static void test_lru_takes_the_oldest(void **state)
{
    enum { KEYS = 10000, EVICTED = 3000 };
    struct store *s = store_create(1, (struct store_hooks){0});
    char name[32];
    for (int i = 0; i < KEYS; i++) { /* k0 is the oldest */
        snprintf(name, sizeof name, "k%d", i);
        add(s, 0, name, lru_clock_of(now_ms) - (uint32_t)(KEYS - i), -1);
    }
    struct evictor *v = evictor_create(s, 7);
    struct evict_policy p = {.by = EVICT_BY_LRU, .samples = 5, .now_ms = now_ms};
    unsigned *gone = mem_calloc(KEYS, sizeof *gone);
    struct victims x = {s, gone, 0, 0, 0};
    for (int i = 0; i < EVICTED; i++) assert_int_equal(evict_one(v, &p, take, &x), EVICT_ONE);
    int old = 0, young = 0;
    for (int i = 0; i < KEYS; i++) *(i < KEYS / 2 ? &old : &young) += gone[i];
    assert_int_equal(old + young, EVICTED);
    /* Redis's approximation with 5 samples leaves the younger half all but untouched. */
    if (young > EVICTED / 100) fail_msg("%d of %d victims are of the younger half", young, EVICTED);
    mem_free(gone);
    evictor_destroy(v);
    store_destroy(s);
}

static void test_lfu_takes_the_least_used(void **state)
{
    enum { KEYS = 5000, EVICTED = 1000 };
    struct store *s = store_create(1, (struct store_hooks){0});
    char name[32];
    for (int i = 0; i < KEYS; i++) {
        snprintf(name, sizeof name, "k%d", i);
        add(s, 0, name, lfu_bits(lfu_clock_of(now_ms), (uint32_t)(i % 250)), -1);
    }
    struct evictor *v = evictor_create(s, 7);
    struct evict_policy p = {.by = EVICT_BY_LFU, .samples = 5, .now_ms = now_ms, .lfu = {10, 1}};
    struct victims x = {s, NULL, 0, 0, 0};
    unsigned used = 0;
    for (int i = 0; i < EVICTED; i++) {
        assert_int_equal(evict_one(v, &p, take, &x), EVICT_ONE);
        used += (x.last_bits & 255) > 150;
    }
    assert_true(used < EVICTED / 100);
    evictor_destroy(v);
    store_destroy(s);
}

/* A candidate that is used after it was seen is spared. */
static void test_used_candidates_are_spared(void **state)
{
    struct store *s = store_create(1, (struct store_hooks){0});
    char name[32];
    for (int i = 0; i < 12; i++) {
        snprintf(name, sizeof name, "{t}%d", i);
        add(s, 0, name, lru_clock_of(now_ms) - 1000 + (uint32_t)i, -1);
    }
    struct evictor *v = evictor_create(s, 3);
    struct evict_policy p = {.by = EVICT_BY_LRU, .samples = 100, .now_ms = now_ms};
    struct victims x = {s, NULL, 0, 0, 0};
    assert_int_equal(evict_one(v, &p, take, &x), EVICT_ONE);
    assert_int_equal(lru_idle(x.last_bits, lru_clock_of(now_ms)), 1000);
    for (int i = 1; i < 11; i++) {
        snprintf(name, sizeof name, "{t}%d", i);
        add(s, 0, name, lru_clock_of(now_ms), -1);
    }
    assert_int_equal(evict_one(v, &p, take, &x), EVICT_ONE);
    assert_int_equal(lru_idle(x.last_bits, lru_clock_of(now_ms)), 1000 - 11);
    evictor_destroy(v);
    store_destroy(s);
}

static void test_volatile(void **state)
{
    enum { KEYS = 200000 };
    struct store *s = store_create(4, (struct store_hooks){0});
    fill(s, 3, KEYS, KEYS); /* all in one slot */
    struct evictor *v = evictor_create(s, 9);
    struct evict_policy p = {.by = EVICT_BY_TTL, .volatile_only = true, .samples = 5, .now_ms = now_ms, .lfu = {10, 1}};
    struct victims x = {s, NULL, 0, 0, 0};
    assert_int_equal(evict_one(v, &p, take, &x), EVICT_NOTHING);
    /* Three in 200,000 are found in the end, and not by looking at everything in one call. */
    add(s, 3, "{tag}a1", 0, now_ms + 5000);
    add(s, 3, "{tag}a2", 0, now_ms + 3000);
    add(s, 3, "{tag}a3", 0, now_ms + 4000);
    int calls = 0;
    for (size_t found = 0; found < 3; calls++) {
        enum evict_result result = evict_one(v, &p, take, &x);
        assert_true(result == EVICT_LATER || result == EVICT_ONE);
        if (result == EVICT_ONE) found++;
        assert_true(calls < 1000);
    }
    assert_int_equal(x.n, 3);
    assert_int_equal(evict_one(v, &p, take, &x), EVICT_NOTHING);
    p.by = EVICT_BY_CHANCE;
    assert_int_equal(evict_one(v, &p, take, &x), EVICT_NOTHING);
    add(s, 3, "{tag}a4", 0, now_ms + 5000);
    enum evict_result result = EVICT_LATER;
    for (calls = 0; result == EVICT_LATER && calls < 1000; calls++) result = evict_one(v, &p, take, &x);
    assert_int_equal(result, EVICT_ONE);
    assert_int_equal(x.last_expire, now_ms + 5000);
    assert_int_equal(store_db_count(s, 3), KEYS);
    evictor_destroy(v);
    store_destroy(s);
}

/* With several keys at hand, the one that ends first goes first. */
static void test_ttl_order(void **state)
{
    struct store *s = store_create(1, (struct store_hooks){0});
    char name[32];
    for (int i = 0; i < 6; i++) {
        snprintf(name, sizeof name, "{t}%d", i);
        add(s, 0, name, 0, now_ms + (i * 7) % 6);
    }
    struct evictor *v = evictor_create(s, 3);
    struct evict_policy p = {.by = EVICT_BY_TTL, .volatile_only = true, .samples = 50, .now_ms = now_ms};
    struct victims x = {s, NULL, 0, 0, 0};
    for (int i = 0; i < 6; i++) {
        assert_int_equal(evict_one(v, &p, take, &x), EVICT_ONE);
        assert_int_equal(x.last_expire, now_ms + i);
    }
    assert_int_equal(evict_one(v, &p, take, &x), EVICT_NOTHING);
    evictor_destroy(v);
    store_destroy(s);
}

/* A slot that somebody holds is passed over, not waited for. */
static void test_busy_slot(void **state)
{
    struct store *s = store_create(1, (struct store_hooks){0});
    add(s, 0, "{t}1", 0, -1);
    struct evictor *v = evictor_create(s, 3);
    struct evict_policy p = {.by = EVICT_BY_LRU, .samples = 5, .now_ms = now_ms};
    struct victims x = {s, NULL, 0, 0, 0};
    unsigned slot = key_slot(BYTES("{t}1"));
    assert_true(slot_try_lock(s, slot));
    assert_int_equal(evict_one(v, &p, take, &x), EVICT_LATER);
    p.by = EVICT_BY_CHANCE;
    assert_int_equal(evict_one(v, &p, take, &x), EVICT_LATER);
    slot_unlock(s, slot);
    assert_int_equal(evict_one(v, &p, take, &x), EVICT_ONE);
    assert_int_equal(store_db_count(s, 0), 0);
    evictor_destroy(v);
    store_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lfu_like_redis),
        cmocka_unit_test(test_lfu_decay),
        cmocka_unit_test(test_lru_clock),
        cmocka_unit_test(test_samples_are_uniform),
        cmocka_unit_test(test_by_chance_is_uniform),
        cmocka_unit_test(test_lru_takes_the_oldest),
        cmocka_unit_test(test_lfu_takes_the_least_used),
        cmocka_unit_test(test_used_candidates_are_spared),
        cmocka_unit_test(test_volatile),
        cmocka_unit_test(test_ttl_order),
        cmocka_unit_test(test_busy_slot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
