/* The stream type against a plain model: random operations, forks that must stay as they were, nodes through their
 * bytes.  SEED replays one seed. */
#include "store/stream.h"

#include "base/mem.h"
#include "base/random.h"
#include "store/listpack.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { ENTRIES = 4000, GROUPS = 3, CONSUMERS = 5, STEPS = 6000, FORKS = 3 };

struct want_entry {
    struct stream_id id;
    uint32_t number; /* what the entry was made from */
    bool gone;
};

struct want_pending {
    struct stream_id id;
    int consumer; /* -1: not pending */
    int64_t ms;
    uint64_t count;
};

struct want {
    struct want_entry entry[ENTRIES];
    size_t n, live;
    struct stream_id last_id;
    bool group[GROUPS], consumer[GROUPS][CONSUMERS];
    struct want_pending pending[GROUPS][ENTRIES]; /* by index of the entry */
};

struct world {
    struct stream *s;
    struct want *want;
};

static struct random rng;

static uint64_t pick(uint64_t n)
{
    return random_below(&rng, n);
}

/* ---- texts that a number stands for ---- */

static size_t fields_of(uint32_t number)
{
    return number % 7 == 0 ? 40 : 1 + number % 3;
}

static struct bytes text_of(uint32_t number, size_t i, char out[64])
{
    if (i % 2 == 0) return bytes_make(out, (size_t)sprintf(out, number % 5 ? "field%zu" : "f%zu", i));
    if (i % 4 == 1) return bytes_make(out, (size_t)sprintf(out, "%u", number));
    return bytes_make(out, (size_t)sprintf(out, "value %u of %zu", number, i));
}

static struct bytes name_of(size_t i, char out[24])
{
    return bytes_make(out, (size_t)sprintf(out, "name:%zu", i));
}

/* ---- operations on both ---- */

static void add(struct world *w, const struct store_limits *lim)
{
    static char texts[80][64];
    struct bytes pairs[80];
    struct want *m = w->want;
    if (m->n == ENTRIES) return;
    uint32_t number = (uint32_t)pick(1000);
    size_t n = fields_of(number);
    for (size_t i = 0; i < 2 * n; i++) pairs[i] = text_of(number, i, texts[i]);
    struct stream_id id = m->last_id;
    if (pick(3))
        id.seq += 1 + pick(300);
    else
        id = (struct stream_id){id.ms + 1 + pick(100000), pick(3) * 70000};
    assert_int_equal(stream_append(w->s, id, pairs, n, lim), OK);
    m->entry[m->n] = (struct want_entry){id, number, false};
    for (int g = 0; g < GROUPS; g++) m->pending[g][m->n] = (struct want_pending){.id = id, .consumer = -1};
    m->n++;
    m->live++;
    m->last_id = id;
}

static void remove_one(struct world *w)
{
    struct want *m = w->want;
    if (!m->n) return;
    struct want_entry *e = &m->entry[pick(m->n)];
    assert_int_equal(stream_has(w->s, e->id), !e->gone);
    assert_int_equal(stream_delete(w->s, e->id), !e->gone);
    m->live -= !e->gone;
    e->gone = true;
    stream_update_first(w->s);
}

static void trim(struct world *w)
{
    struct want *m = w->want;
    if (!m->n) return;
    struct stream_trim t = {.by_id = pick(2), .approximate = pick(3) == 0};
    size_t from = pick(m->n);
    t.min_id = m->entry[from].id;
    t.max_length = m->live - pick(m->live / 4 + 1);
    if (t.approximate && pick(2)) t.limit = 1 + pick(300);
    uint64_t removed = stream_trim(w->s, &t), counted = 0;
    for (size_t i = 0; i < m->n && counted < removed; i++) {
        if (m->entry[i].gone) continue;
        m->entry[i].gone = true;
        counted++;
        if (t.by_id) assert_true(stream_id_cmp(m->entry[i].id, t.min_id) < 0);
    }
    assert_int_equal(counted, removed);
    m->live -= removed;
    if (t.limit) assert_true(removed <= t.limit);
    if (t.approximate) return;
    if (!t.by_id) assert_true(m->live <= t.max_length);
    for (size_t i = 0; t.by_id && i < from; i++) assert_true(m->entry[i].gone);
}

static void change_group(struct world *w)
{
    char text[24], other[24];
    size_t g = pick(GROUPS), c = pick(CONSUMERS);
    struct want *m = w->want;
    struct bytes name = name_of(g, text), consumer = name_of(c, other);
    struct stream_group *group = stream_group_edit(w->s, name);
    assert_int_equal(group != NULL, m->group[g]);
    if (!group) {
        assert_non_null(stream_group_create(w->s, name, m->last_id, 7));
        m->group[g] = true;
        return;
    }
    if (pick(40) == 0) {
        assert_true(stream_group_destroy(w->s, name));
        m->group[g] = false;
        memset(m->consumer[g], 0, sizeof m->consumer[g]);
        for (size_t i = 0; i < m->n; i++) m->pending[g][i].consumer = -1;
        return;
    }
    if (!m->consumer[g][c]) {
        assert_null(stream_consumer_edit(group, consumer));
        assert_non_null(stream_consumer_create(group, consumer, 5));
        m->consumer[g][c] = true;
    } else if (pick(100) == 0) {
        uint64_t had, count = 0;
        for (size_t i = 0; i < m->n; i++)
            if (m->pending[g][i].consumer == (int)c) m->pending[g][i].consumer = -1, count++;
        assert_true(stream_consumer_delete(group, consumer, &had));
        assert_int_equal(had, count);
        m->consumer[g][c] = false;
    }
}

static void change_pending(struct world *w)
{
    char text[24], other[24];
    size_t g = pick(GROUPS), c = pick(CONSUMERS);
    struct want *m = w->want;
    if (!m->n || !m->group[g]) return;
    struct stream_group *group = stream_group_edit(w->s, name_of(g, text));
    size_t from = pick(m->n), n = pick(60);
    for (size_t i = from; i < m->n && i < from + n; i++) {
        struct want_pending *p = &m->pending[g][i];
        if (pick(3) == 0) {
            assert_int_equal(stream_pending_remove(group, p->id), p->consumer >= 0);
            p->consumer = -1;
        } else if (m->consumer[g][c]) {
            struct stream_consumer *consumer = stream_consumer_edit(group, name_of(c, other));
            *p = (struct want_pending){p->id, (int)c, (int64_t)pick(1 << 30), pick(9)};
            stream_pending_put(group, p->id, consumer, p->ms, p->count);
        }
    }
}

/* ---- comparing ---- */

static void check_entry(struct stream_iter *it, uint32_t number, size_t fields)
{
    struct element field, value;
    char text[64];
    assert_int_equal(fields, fields_of(number));
    for (size_t i = 0; i < fields; i++) {
        stream_iter_field(it, &field, &value);
        assert_true(bytes_eq(field.text, text_of(number, 2 * i, text)));
        assert_true(bytes_eq(value.text, text_of(number, 2 * i + 1, text)));
    }
}

static void check_range(const struct world *w, size_t from, size_t to, bool reverse)
{
    const struct want *m = w->want;
    struct stream_iter it;
    struct stream_id id;
    size_t fields;
    stream_iter_init(&it, w->s, m->entry[from].id, m->entry[to].id, reverse);
    for (size_t k = 0; k <= to - from; k++) {
        const struct want_entry *e = &m->entry[reverse ? to - k : from + k];
        if (e->gone) continue;
        assert_true(stream_iter_next(&it, &id, &fields));
        assert_int_equal(stream_id_cmp(id, e->id), 0);
        if (pick(2)) check_entry(&it, e->number, fields);
    }
    assert_false(stream_iter_next(&it, &id, &fields));
}

static void check_pending(const struct world *w, int g, const struct stream_group *group)
{
    const struct want *m = w->want;
    struct tree_pos pos;
    uint64_t of_consumer[CONSUMERS] = {0}, total = 0;
    char text[24];
    bool more = stream_pending_seek(&group->pending, STREAM_ID_MIN, &pos);
    for (size_t i = 0; i < m->n; i++) {
        const struct want_pending *p = &m->pending[g][i];
        if (p->consumer < 0) continue;
        struct stream_pending got;
        assert_true(more);
        assert_int_equal(stream_id_cmp(stream_pending_id(&group->pending, &pos), p->id), 0);
        stream_pending_at(group, &pos, &got);
        assert_true(bytes_eq(tree_box_key(got.consumer), name_of((size_t)p->consumer, text)));
        assert_int_equal(got.delivered_ms, p->ms);
        assert_int_equal(got.count, p->count);
        of_consumer[p->consumer]++;
        total++;
        more = tree_next(&pos);
    }
    assert_int_equal(group->pending.count, total);
    assert_true(tree_is_valid(&group->pending) && tree_is_valid(&group->consumers));
    for (size_t c = 0; c < CONSUMERS; c++) {
        const struct stream_consumer *consumer = stream_consumer_find(group, name_of(c, text));
        assert_int_equal(consumer != NULL, m->consumer[g][c]);
        if (!consumer) continue;
        assert_int_equal(consumer->pending.count, of_consumer[c]);
        assert_true(tree_is_valid(&consumer->pending));
    }
}

static void check(const struct world *w)
{
    const struct want *m = w->want;
    struct stream_id id;
    char text[24];
    size_t first = 0, last = m->n;
    assert_int_equal(w->s->length, m->live);
    assert_int_equal(w->s->entries_added, m->n);
    assert_int_equal(stream_id_cmp(w->s->last_id, m->last_id), 0);
    if (w->s->nodes) assert_true(tree_is_valid(w->s->nodes) && w->s->nodes->count > 0);
    while (first < m->n && m->entry[first].gone) first++;
    while (last > first && m->entry[last - 1].gone) last--;
    assert_int_equal(stream_first(w->s, &id), m->live > 0);
    assert_int_equal(stream_id_cmp(id, w->s->first_id), 0);
    if (m->live) {
        assert_int_equal(stream_id_cmp(id, m->entry[first].id), 0);
        assert_true(stream_last(w->s, &id));
        assert_int_equal(stream_id_cmp(id, m->entry[last - 1].id), 0);
    }
    if (m->n) {
        size_t a = pick(m->n), b = a + pick(m->n - a);
        check_range(w, a, b, pick(2));
        if (pick(20) == 0) check_range(w, 0, m->n - 1, pick(2));
    }
    for (int g = 0; g < GROUPS; g++) {
        const struct stream_group *group = stream_group_find(w->s, name_of((size_t)g, text));
        assert_int_equal(group != NULL, m->group[g]);
        if (group && pick(10) == 0) check_pending(w, g, group);
    }
}

static void drop(struct world *w)
{
    if (!w->s) return;
    check(w);
    stream_free(w->s);
    free(w->want);
    w->s = NULL;
}

static struct world fork_of(const struct world *w)
{
    struct world fork = {stream_fork(w->s), malloc(sizeof *w->want)};
    *fork.want = *w->want;
    return fork;
}

static void run_seed(uint64_t seed)
{
    struct store_limits lim = store_limits_default;
    struct world w = {stream_new(), calloc(1, sizeof *w.want)}, forks[FORKS] = {{NULL, NULL}};
    random_seed(&rng, seed);
    if (seed % 3 == 1) lim.stream_node_max_entries = 1 + pick(300);
    if (seed % 4 == 1) lim.stream_node_max_bytes = 100 + pick(20000);
    for (int step = 0; step < STEPS; step++) {
        switch (pick(12)) {
        case 0: remove_one(&w); break;
        case 1:
            if (pick(20) == 0) trim(&w);
            break;
        case 2: change_group(&w); break;
        case 3: change_pending(&w); break;
        case 4:
            if (pick(10) == 0) {
                size_t f = pick(FORKS);
                drop(&forks[f]);
                forks[f] = fork_of(&w);
                /* Either may go on; here sometimes the copy does. */
                if (pick(2)) {
                    struct world t = w;
                    w = forks[f];
                    forks[f] = t;
                }
            }
            break;
        default: add(&w, &lim);
        }
        if (step % 20 == 0) check(&w);
    }
    for (size_t f = 0; f < FORKS; f++) drop(&forks[f]);
    drop(&w);
}

static void random_operations(void **state)
{
    (void)state;
    size_t before = mem_used();
    const char *replay = getenv("SEED");
    for (uint64_t seed = 1; seed <= (replay ? 1 : 30); seed++) {
        uint64_t one = replay ? strtoull(replay, NULL, 10) : seed;
        print_message("seed %llu\n", (unsigned long long)one);
        run_seed(one);
    }
    assert_int_equal(mem_used(), before);
}

/* ---- kept bytes ---- */

/* What redis-server 7.0.15 has for XADD 1-1 f v, 1-2 f w, 5-0 g 1 h 2. */
static const char node_bytes[] = "\x3d\0\0\0\x18\0\3\1\0\1\1\1\x81\x66\2\0\1"
                                 "\2\1\0\1\0\1\x81\x76\2\4\1"
                                 "\2\1\0\1\1\1\x81\x77\2\4\1"
                                 "\0\1\4\1\xdf\xff\2\2\1\x81\x67\2\1\1\x81\x68\2\2\1\x08\1\xff";

static void nodes_have_redis_bytes(void **state)
{
    (void)state;
    struct stream *s = stream_new();
    struct bytes one[] = {BYTES("f"), BYTES("v")}, two[] = {BYTES("f"), BYTES("w")};
    struct bytes three[] = {BYTES("g"), BYTES("1"), BYTES("h"), BYTES("2")};
    assert_int_equal(stream_append(s, (struct stream_id){1, 1}, one, 1, &store_limits_default), OK);
    assert_int_equal(stream_append(s, (struct stream_id){1, 2}, two, 1, &store_limits_default), OK);
    assert_int_equal(stream_append(s, (struct stream_id){5, 0}, three, 2, &store_limits_default), OK);
    assert_int_equal(lp_bytes(s->tail->lp), sizeof node_bytes - 1);
    assert_memory_equal(s->tail->lp, node_bytes, sizeof node_bytes - 1);
    assert_true(stream_delete(s, (struct stream_id){1, 2}));
    assert_memory_equal(s->tail->lp + 6, "\2\1\1\1", 4);
    assert_int_equal(s->tail->lp[28], 3);
    stream_free(s);
}

/* Every single byte of a node changed to every value: accepted or not, it must be safe to use. */
static void damaged_nodes_are_safe(void **state)
{
    (void)state;
    unsigned accepted = 0;
    for (size_t at = 0; at < sizeof node_bytes - 1; at++) {
        for (unsigned value = 0; value < 256; value++) {
            char copy[sizeof node_bytes];
            memcpy(copy, node_bytes, sizeof copy);
            copy[at] = (char)value;
            struct stream *s = stream_new();
            enum status st = stream_add_node(s, (struct stream_id){1, 1}, bytes_make(copy, sizeof node_bytes - 1));
            if (st == OK) {
                struct stream_iter it;
                struct stream_id id;
                struct element field, text;
                size_t fields, n = 0;
                accepted++;
                s->last_id = STREAM_ID_MAX;
                for (int reverse = 0; reverse < 2; reverse++) {
                    stream_iter_init(&it, s, STREAM_ID_MIN, STREAM_ID_MAX, reverse);
                    for (; stream_iter_next(&it, &id, &fields); n++)
                        while (fields--) stream_iter_field(&it, &field, &text);
                }
                assert_int_equal(n, 2 * s->length);
                bool any = s->length > 0;
                while (stream_first(s, &id)) assert_true(stream_delete(s, id));
                assert_int_equal(s->length, 0);
                if (any) assert_null(s->tail);
            }
            stream_free(s);
        }
    }
    assert_true(accepted > 500); /* texts and ids may be anything */
}

/* A node whose last entry was removed before the others are trimmed by id stays, with nothing in it. */
static void a_node_of_removed_entries(void **state)
{
    (void)state;
    struct stream *s = stream_new(), *copy = stream_new();
    struct bytes pair[] = {BYTES("f"), BYTES("v")};
    struct stream_id id;
    for (uint64_t i = 1; i <= 3; i++)
        assert_int_equal(stream_append(s, (struct stream_id){i, 0}, pair, 1, &store_limits_default), OK);
    assert_true(stream_delete(s, (struct stream_id){3, 0}));
    assert_int_equal(stream_trim(s, &(struct stream_trim){.by_id = true, .min_id = {3, 0}}), 2);
    assert_int_equal(s->length, 0);
    assert_int_equal(stream_node_count(s), 1);
    assert_false(stream_first(s, &id));
    assert_int_equal(stream_add_node(copy, s->tail->id, lp_blob(s->tail->lp)), OK);
    assert_int_equal(copy->length, 0);
    copy->last_id = s->last_id;
    assert_int_equal(stream_append(copy, (struct stream_id){4, 0}, pair, 1, &store_limits_default), OK);
    assert_true(stream_first(copy, &id) && id.ms == 4);
    assert_true(stream_delete(copy, id));
    assert_int_equal(stream_node_count(copy), 0);
    stream_free(s);
    stream_free(copy);
}

static void ids(void **state)
{
    (void)state;
    char text[STREAM_ID_TEXT_MAX];
    struct stream_id id = {1, UINT64_MAX};
    assert_true(stream_id_next(&id));
    assert_true(id.ms == 2 && id.seq == 0);
    assert_true(stream_id_prev(&id));
    assert_true(id.ms == 1 && id.seq == UINT64_MAX);
    id = STREAM_ID_MAX;
    assert_false(stream_id_next(&id));
    assert_int_equal(stream_id_format(text, id), STREAM_ID_TEXT_MAX);
    assert_memory_equal(text, "18446744073709551615-18446744073709551615", STREAM_ID_TEXT_MAX);
    id = STREAM_ID_MIN;
    assert_false(stream_id_prev(&id));
    assert_int_equal(stream_id_format(text, id), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids),
        cmocka_unit_test(nodes_have_redis_bytes),
        cmocka_unit_test(damaged_nodes_are_safe),
        cmocka_unit_test(a_node_of_removed_entries),
        cmocka_unit_test(random_operations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
