/* A cut shows the dataset of one moment, whatever happens while it is being saved: random operations between its steps,
 * several cuts at once, compared with a copy made when each was begun. */
#include "store/set.h"
#include "store/store.h"

#include "base/mem.h"
#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAMES = 3000, DATABASES = 3, STEPS = 6000 };

/* What a key holds: a number that is also its value's text, or 0 for no key. */
struct model {
    uint32_t value[DATABASES][NAMES];
    int64_t expire[DATABASES][NAMES];
};

struct open_cut {
    struct cut *cut;
    struct model *want;
    uint32_t seen[DATABASES][NAMES];
    size_t step_bytes;
};

static struct key name_of(unsigned i, char text[32])
{
    /* A third of the keys share one slot, so that one table is large. */
    int n = snprintf(text, 32, i % 3 == 0 ? "{tag}%u" : "key:%u", i);
    return key_of(bytes_make(text, (size_t)n));
}

static unsigned number_of(struct bytes name)
{
    return (unsigned)strtoul(name.p + (name.p[0] == '{' ? 5 : 4), NULL, 10);
}

static enum status visit(void *ctx, int db, struct entry *e)
{
    struct open_cut *o = ctx;
    char digits[24], name[64];
    struct bytes key = entry_key(e), text = entry_string(e, digits);
    snprintf(name, sizeof name, "%.*s", (int)key.n, key.p);
    unsigned i = number_of(bytes_of(name));
    assert_true(i < NAMES);
    o->seen[db][i]++;
    assert_int_equal(o->seen[db][i], 1);
    char value[64];
    snprintf(value, sizeof value, "%.*s", (int)(text.n < 60 ? text.n : 60), text.p);
    assert_int_equal(strtoul(value, NULL, 10), o->want->value[db][i]);
    assert_int_equal(entry_expire_at(e), o->want->expire[db][i]);
    return OK;
}

static void cut_begin(struct store *s, struct open_cut *o, const struct model *m, struct random *r)
{
    memset(o, 0, sizeof *o);
    o->cut = store_cut_begin(s);
    assert_non_null(o->cut);
    o->want = malloc(sizeof *o->want);
    *o->want = *m;
    o->step_bytes = 1 + random_below(r, 200000);
}

/* True when the cut is through; then it must have seen everything. */
static bool cut_step(struct open_cut *o, bool give_up)
{
    enum status st = give_up ? OK : store_cut_step(o->cut, o->step_bytes, visit, o);
    if (st == E_AGAIN) return false;
    assert_int_equal(st, OK);
    store_cut_end(o->cut);
    for (int db = 0; db < DATABASES && !give_up; db++)
        for (unsigned i = 0; i < NAMES; i++) assert_int_equal(o->seen[db][i], o->want->value[db][i] != 0);
    free(o->want);
    o->cut = NULL;
    return true;
}

static struct entry *entry_of(const struct key *k, uint32_t value, bool large)
{
    static char text[40000];
    int n = snprintf(text, 32, "%u", value);
    if (large) {
        memset(text + n, ' ', sizeof text - (size_t)n);
        n = sizeof text;
    }
    return entry_try_new_string(k->name, bytes_make(text, (size_t)n));
}

static void change_key(struct store *s, struct model *m, struct random *r, uint32_t value)
{
    char text[32];
    unsigned i = (unsigned)random_below(r, NAMES);
    int db = (int)random_below(r, DATABASES);
    struct key k = name_of(i, text);
    slot_lock(s, k.slot);
    struct entry *e;
    switch (random_below(r, 8)) {
    case 0:
    case 1:
        assert_int_equal(store_delete(s, db, &k), m->value[db][i] != 0);
        m->value[db][i] = 0;
        m->expire[db][i] = -1;
        break;
    case 2:
        e = store_set_expire(s, db, &k, value);
        assert_int_equal(e != NULL, m->value[db][i] != 0);
        if (e) m->expire[db][i] = value;
        break;
    case 3: /* an edit in place */
        e = store_edit(s, db, &k);
        if (e && entry_enc(e) == ENC_INT) {
            *(int64_t *)(void *)entry_word(e) = value;
            m->value[db][i] = value;
        }
        break;
    case 4:
        e = store_take(s, db, &k);
        if (e) store_put(s, db, &k, e);
        break;
    default:
        store_put(s, db, &k, entry_of(&k, value, random_below(r, 50) == 0));
        m->value[db][i] = value;
        m->expire[db][i] = -1;
    }
    slot_unlock(s, k.slot);
}

static void empty_slot(struct store *s, struct model *m, struct random *r)
{
    char text[32];
    struct key k = name_of((unsigned)random_below(r, NAMES), text);
    slot_lock(s, k.slot);
    struct table *t = store_detach_slot(s, 0, k.slot);
    slot_unlock(s, k.slot);
    store_table_free(t);
    for (unsigned i = 0; i < NAMES; i++) {
        if (name_of(i, text).slot != k.slot) continue;
        m->value[0][i] = 0;
        m->expire[0][i] = -1;
    }
}

static void swap(struct store *s, struct model *m)
{
    static struct model copy;
    store_swap(s, 0, 2);
    copy = *m;
    memcpy(m->value[0], copy.value[2], sizeof copy.value[0]);
    memcpy(m->value[2], copy.value[0], sizeof copy.value[0]);
    memcpy(m->expire[0], copy.expire[2], sizeof copy.expire[0]);
    memcpy(m->expire[2], copy.expire[0], sizeof copy.expire[0]);
}

static void run_seed(uint64_t seed)
{
    static struct model m;
    static struct open_cut cuts[CUTS_MAX];
    struct random r;
    random_seed(&r, seed);
    memset(&m, 0, sizeof m);
    memset(m.expire, 0xff, sizeof m.expire);
    memset(cuts, 0, sizeof cuts);
    struct store *s = store_create(DATABASES, (struct store_hooks){0});
    for (uint32_t step = 1; step <= STEPS; step++) {
        change_key(s, &m, &r, step);
        struct open_cut *o = &cuts[random_below(&r, CUTS_MAX)];
        if (!o->cut && random_below(&r, 100) == 0)
            cut_begin(s, o, &m, &r);
        else if (o->cut && random_below(&r, 4) == 0)
            cut_step(o, random_below(&r, 200) == 0);
        if (random_below(&r, 300) == 0) empty_slot(s, &m, &r);
        if (random_below(&r, 500) == 0) swap(s, &m);
    }
    for (int i = 0; i < CUTS_MAX; i++)
        while (cuts[i].cut && !cut_step(&cuts[i], false)) {
        }
    assert_int_equal(store_retained_bytes(s), 0);
    for (int db = 0; db < DATABASES; db++) {
        size_t keys = 0;
        for (unsigned i = 0; i < NAMES; i++) keys += m.value[db][i] != 0;
        assert_int_equal(store_db_count(s, db), keys);
    }
    store_destroy(s);
}

static void cuts_show_one_moment(void **state)
{
    (void)state;
    size_t before = mem_used();
    const char *replay = getenv("SEED");
    for (uint64_t seed = 1; seed <= 30; seed++) {
        print_message("seed %llu\n", (unsigned long long)(replay ? strtoull(replay, NULL, 10) : seed));
        run_seed(replay ? strtoull(replay, NULL, 10) : seed);
    }
    assert_int_equal(mem_used(), before);
}

/* The same with a writer on another thread: every pair of keys is always changed together under the rest of the server,
 * so a cut must never see halves. */
struct race {
    struct store *s;
    _Atomic bool stop;
    pthread_mutex_t rest; /* stands in for the gate: held for each change, and while a cut begins */
};

static void *race_writer(void *arg)
{
    struct race *x = arg;
    struct random r;
    random_seed(&r, 99);
    for (uint32_t v = 1; !atomic_load(&x->stop); v++) {
        unsigned i = (unsigned)random_below(&r, NAMES / 2);
        pthread_mutex_lock(&x->rest);
        for (unsigned half = 0; half < 2; half++) {
            char text[32];
            struct key k = name_of(i * 2 + half, text);
            slot_lock(x->s, k.slot);
            store_put(x->s, 0, &k, entry_of(&k, v, false));
            slot_unlock(x->s, k.slot);
        }
        pthread_mutex_unlock(&x->rest);
    }
    return NULL;
}

struct pairs {
    uint32_t value[NAMES];
};

static enum status collect(void *ctx, int db, struct entry *e)
{
    struct pairs *p = ctx;
    char digits[24], name[64];
    struct bytes key = entry_key(e);
    (void)db;
    snprintf(name, sizeof name, "%.*s", (int)key.n, key.p);
    entry_string(e, digits);
    p->value[number_of(bytes_of(name))] = (uint32_t) * (int64_t *)(void *)entry_word(e);
    return OK;
}

/* What runs with the server at rest takes no slot's lock: it flushes and writes while cuts are being walked. */
static void *race_flusher(void *arg)
{
    struct race *x = arg;
    for (uint32_t v = 1; !atomic_load(&x->stop); v++) {
        pthread_mutex_lock(&x->rest);
        store_walks_stop(x->s);
        for (unsigned slot = 0; v % 4 == 0 && slot < SLOT_COUNT; slot++)
            store_table_free(store_detach_slot(x->s, 0, slot));
        for (unsigned i = 0; i < NAMES; i++) {
            char text[32];
            struct key k = name_of(i, text);
            if (i % 7 != v % 7)
                store_put(x->s, 0, &k, entry_of(&k, v, false));
            else
                store_delete(x->s, 0, &k);
            if (i % 7 == v % 7 && i % 2) { /* never half a pair */
                k = name_of(i - 1, text);
                store_delete(x->s, 0, &k);
            } else if (i % 2 && (i - 1) % 7 == v % 7) {
                store_delete(x->s, 0, &k);
            }
        }
        assert_true(store_walks_go(x->s));
        assert_false(store_walks_go(x->s));
        pthread_mutex_unlock(&x->rest);
    }
    return NULL;
}

static void race(void *(*other)(void *), int rounds)
{
    struct race x = {.s = store_create(1, (struct store_hooks){0})};
    pthread_mutex_init(&x.rest, NULL);
    pthread_t t;
    pthread_create(&t, NULL, other, &x);
    for (int round = 0; round < rounds; round++) {
        static struct pairs p;
        memset(&p, 0, sizeof p);
        pthread_mutex_lock(&x.rest);
        struct cut *c = store_cut_begin(x.s);
        pthread_mutex_unlock(&x.rest);
        while (store_cut_step(c, 6000, collect, &p) == E_AGAIN) {
        }
        store_cut_end(c);
        for (unsigned i = 0; i < NAMES; i += 2) assert_int_equal(p.value[i], p.value[i + 1]);
    }
    atomic_store(&x.stop, true);
    pthread_join(t, NULL);
    assert_int_equal(store_retained_bytes(x.s), 0);
    store_destroy(x.s);
}

static struct entry *large_set(struct key *k, const char *name, size_t members)
{
    *k = key_of(bytes_make(name, strlen(name)));
    struct entry *e = set_new(k->name, BYTES("member"));
    for (size_t i = 0; i < members; i++) {
        char text[24];
        size_t n = (size_t)snprintf(text, sizeof text, "member:%zu", i);
        assert_int_equal(set_add(e, bytes_make(text, n), &store_limits_default, NULL), OK);
    }
    return e;
}

static void remove_some(struct store *s, const struct key *k)
{
    struct entry *e = store_edit(s, 0, k);
    for (int i = 0; i < 200; i++) {
        char text[24];
        set_remove(e, bytes_make(text, (size_t)snprintf(text, sizeof text, "member:%d", i * 37)));
    }
}

/* What a writer of a large value leaves behind for a cut counts, and not what COPY shares. */
static void old_parts_of_a_large_value_are_counted(void **state)
{
    (void)state;
    struct key k, to = key_of(BYTES("copy"));
    struct store *s = store_create(1, (struct store_hooks){0});
    struct entry *e = large_set(&k, "large", 50000);
    store_put(s, 0, &k, e);
    struct entry *copy = entry_with_key(entry_fork(e), to.name);
    entry_leave_uncounted(e);
    entry_leave_uncounted(copy);
    store_put(s, 0, &to, copy);
    remove_some(s, &to);
    assert_int_equal(store_retained_bytes(s), 0);

    struct key other;
    store_put(s, 0, &other, large_set(&other, "other", 50000));
    struct cut *c = store_cut_begin(s);
    remove_some(s, &other);
    size_t kept = store_retained_bytes(s);
    assert_in_range(kept, 100 * 1500, 400 * 4500); /* a leaf for nearly each member removed */
    store_cut_end(c);
    assert_int_equal(store_retained_bytes(s), 0);
    store_destroy(s);
}

static void put_plain(struct store *s, const char *format, unsigned i, char fill)
{
    char name[32], text[1000];
    struct key k = key_of(bytes_make(name, (size_t)snprintf(name, sizeof name, format, i)));
    memset(text, fill, sizeof text);
    slot_lock(s, k.slot);
    store_put(s, 0, &k, entry_try_new_string(k.name, bytes_make(text, sizeof text)));
    slot_unlock(s, k.slot);
}

struct order {
    struct store *s;
    unsigned replaced, others; /* visited so far */
    unsigned others_before;    /* of others, before the last of the replaced */
};

static enum status note_order(void *ctx, int db, struct entry *e)
{
    struct order *o = ctx;
    char digits[24];
    (void)db;
    assert_int_equal(entry_string(e, digits).p[0], 'a');
    if (entry_key(e).p[0] == 'r') {
        o->replaced++;
        o->others_before = o->others;
    } else {
        o->others++;
    }
    return OK;
}

/* What writers replaced is saved before the walk comes by, down to STRAYS_SOON, and memory falls as it is. */
static void what_was_replaced_is_saved_first(void **state)
{
    (void)state;
    enum { REPLACED = 3 * STRAYS_SOON / 1000, OTHERS = 10000 };
    struct store *s = store_create(DATABASES, (struct store_hooks){0});
    for (unsigned i = 0; i < OTHERS; i++) put_plain(s, "other:%u", i, 'a');
    for (unsigned i = 0; i < REPLACED; i++) put_plain(s, "r:%u", i, 'a');
    struct cut *c = store_cut_begin(s);
    struct order o = {.s = s};
    assert_int_equal(store_cut_step(c, 1000, note_order, &o), E_AGAIN); /* nothing is to be hurried with */
    assert_true(o.replaced + o.others < 100);
    for (unsigned i = 0; i < REPLACED; i++) put_plain(s, "r:%u", i, 'b');
    size_t kept = store_retained_bytes(s);
    assert_true(kept > 2 * STRAYS_SOON);
    unsigned others = o.others;
    while (kept > STRAYS_SOON) {
        assert_int_equal(store_cut_step(c, 64 * 1024, note_order, &o), E_AGAIN);
        assert_true(store_retained_bytes(s) < kept);
        kept = store_retained_bytes(s);
    }
    assert_in_range(o.others - others, 0, 100); /* the rest of the last step */
    assert_true(o.replaced > REPLACED / 2);
    /* Replaced once more: the cut needs nothing of that. */
    for (unsigned i = 0; i < REPLACED; i++) put_plain(s, "r:%u", i, 'c');
    assert_true(store_retained_bytes(s) <= kept);
    enum status st;
    while ((st = store_cut_step(c, 64 * 1024, note_order, &o)) == E_AGAIN) {
    }
    assert_int_equal(st, OK);
    assert_int_equal(store_retained_bytes(s), 0);
    store_cut_end(c);
    assert_int_equal(o.replaced, REPLACED);
    assert_int_equal(o.others, OTHERS);
    store_destroy(s);
}

/* A table loses nearly all its keys, and gets others, while two cuts are in the middle of it: entries that are merged
 * behind a walk are saved once all the same. */
static void a_table_that_shrinks_under_a_cut(void **state)
{
    (void)state;
    enum { KEYS = 5000 };
    for (unsigned permille = 0; permille <= 1000; permille += 125) {
        struct store *s = store_create(1, (struct store_hooks){0});
        for (unsigned i = 0; i < KEYS; i++) put_plain(s, "{r}%u", i, 'a');
        struct cut *cuts[2] = {store_cut_begin(s), store_cut_begin(s)};
        struct order o[2] = {{.s = s}, {.s = s}};
        while (o[0].others < KEYS * permille / 1000 && store_cut_step(cuts[0], 5000, note_order, &o[0]) == E_AGAIN) {
        }
        for (unsigned i = 0; i < KEYS; i++) {
            char name[32];
            struct key k = key_of(bytes_make(name, (size_t)snprintf(name, sizeof name, "{r}%u", i)));
            if (i % 50 != 0) assert_true(store_delete(s, 0, &k));
            if (i % 500 == 0) store_cut_step(cuts[1], 5000, note_order, &o[1]);
        }
        for (unsigned i = 0; i < KEYS / 2; i++) put_plain(s, "{r}new%u", i, 'b');
        for (int i = 0; i < 2; i++) {
            while (store_cut_step(cuts[i], 64 * 1024, note_order, &o[i]) == E_AGAIN) {
            }
            store_cut_end(cuts[i]);
            assert_int_equal(o[i].others, KEYS);
        }
        assert_int_equal(store_retained_bytes(s), 0);
        assert_int_equal(store_db_count(s, 0), KEYS / 50 + KEYS / 2);
        store_destroy(s);
    }
}

static void a_concurrent_writer_never_tears_a_cut(void **state)
{
    (void)state;
    race(race_writer, 60);
}

static void what_runs_at_rest_never_tears_a_cut(void **state)
{
    (void)state;
    race(race_flusher, 6); /* who flushes leaves little time to the walk */
}

static void expired(void *ctx, const struct key *k, struct entry *e)
{
    (void)e;
    assert_true(store_delete(ctx, 0, k));
}

static void expiry_finds_every_key(void **state)
{
    (void)state;
    struct store *s = store_create(1, (struct store_hooks){0});
    char text[32];
    for (unsigned i = 0; i < NAMES; i++) {
        struct key k = name_of(i, text);
        slot_lock(s, k.slot);
        store_put(s, 0, &k, entry_of(&k, i + 1, false));
        if (i % 2) store_set_expire(s, 0, &k, 1000 + i);
        slot_unlock(s, k.slot);
    }
    assert_int_equal(store_db_ttl_count(s, 0), NAMES / 2);
    for (int64_t now = 999; now <= 1000 + NAMES; now += 250) {
        for (unsigned slot = 0; slot < SLOT_COUNT; slot++) {
            slot_lock(s, slot);
            for (int rounds = 0; store_expire_slot(s, 0, slot, now, 4, expired, s); rounds++)
                assert_true(rounds < 10000);
            slot_unlock(s, slot);
        }
        size_t left = 0;
        for (unsigned i = 1; i < NAMES; i += 2) left += 1000 + (int64_t)i > now;
        assert_int_equal(store_db_ttl_count(s, 0), left);
        assert_int_equal(store_db_count(s, 0), NAMES / 2 + left);
    }
    store_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_show_one_moment),
        cmocka_unit_test(old_parts_of_a_large_value_are_counted),
        cmocka_unit_test(what_was_replaced_is_saved_first),
        cmocka_unit_test(a_table_that_shrinks_under_a_cut),
        cmocka_unit_test(a_concurrent_writer_never_tears_a_cut),
        cmocka_unit_test(what_runs_at_rest_never_tears_a_cut),
        cmocka_unit_test(expiry_finds_every_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
