#include "store/listtype.h"

#include "base/mem.h"
#include "base/unit_test.h"
#include "store/listpack.h"

#include <stdio.h>
#include <stdlib.h>

static const struct store_limits *const defaults = &store_limits_default;

static void push(struct entry *e, const char *text, const struct store_limits *lim)
{
    assert_int_equal(list_push(e, LIST_TAIL, bytes_of(text), lim), OK);
}

static void assert_nodes(const struct entry *e, size_t n, const struct bytes *blobs, const bool *packed)
{
    struct list_node_iter it;
    struct bytes blob;
    bool is_packed;
    assert_int_equal(list_node_count(e), n);
    list_node_iter_init(&it, e);
    for (size_t i = 0; i < n; i++) {
        assert_true(list_node_iter_next(&it, &blob, &is_packed));
        assert_int_equal(is_packed, packed ? packed[i] : true);
        assert_true(bytes_eq(blob, blobs[i]));
    }
    assert_false(list_node_iter_next(&it, &blob, &is_packed));
}

static void nodes_are_redis(void **state)
{
    (void)state;
    struct store_limits two = {.list_max_listpack_size = 2};
    struct entry *e = list_new(BYTES("k"));
    push(e, "a", &two);
    push(e, "b", &two);
    push(e, "c", &two);
    struct bytes blobs[] = {BYTES("\x0d\0\0\0\2\0\x81\x61\x02\x81\x62\x02\xff"),
                            BYTES("\x0a\0\0\0\1\0\x81\x63\x02\xff")};
    assert_nodes(e, 2, blobs, NULL);
    entry_free(e);
    e = list_new(BYTES("k"));
    struct bytes mixed[] = {blobs[1], BYTES("plain"), blobs[0]};
    bool packed[] = {true, false, true};
    assert_int_equal(list_append_listpack(e, blobs[1], defaults), OK);
    assert_int_equal(list_append_plain(e, BYTES("plain"), defaults), OK);
    assert_int_equal(list_append_listpack(e, blobs[0], defaults), OK);
    assert_int_equal(list_append_listpack(e, BYTES("\7\0\0\0\0\0\xff"), defaults), OK);
    assert_int_equal(list_append_listpack(e, BYTES("\7\0\0\0\1\0\xff"), defaults), E_CORRUPT);
    assert_nodes(e, 3, mixed, packed);
    assert_int_equal(list_len(e), 4);
    struct element el;
    assert_true(list_index(e, 1, &el) && bytes_eq(el.text, BYTES("plain")));
    push(e, "d", defaults);
    assert_int_equal(list_node_count(e), 3);
    assert_int_equal(list_push(e, LIST_HEAD, BYTES("x"), defaults), OK);
    assert_true(list_index(e, 0, &el) && bytes_eq(el.text, BYTES("x")));
    assert_true(list_index(e, -4, &el) && bytes_eq(el.text, BYTES("plain")));
    assert_false(list_index(e, -7, &el));
    assert_false(list_index(e, 6, &el));
    entry_free(e);
}

/* The model: pointers to texts; i-th text is made of its number and some filling. */
enum { MODEL_MAX = 4000 };
struct model {
    uint32_t id[MODEL_MAX];
    size_t n;
};

static struct bytes text_of(uint32_t id, char *room)
{
    size_t n = (size_t)sprintf(room, id % 2 ? "%u" : "text%u", id);
    size_t more = id % 2 ? 0 : id % 40 == 0 ? 9000 : id % 30;
    memset(room + n, '-', more);
    return bytes_make(room, n + more);
}

static void model_insert(struct model *m, size_t at, uint32_t id)
{
    memmove(m->id + at + 1, m->id + at, (m->n++ - at) * sizeof *m->id);
    m->id[at] = id;
}

static void model_delete(struct model *m, size_t at, size_t count)
{
    memmove(m->id + at, m->id + at + count, (m->n - at - count) * sizeof *m->id);
    m->n -= count;
}

static void assert_text(struct bytes text, uint32_t id)
{
    char room[9100];
    assert_true(bytes_eq(text, text_of(id, room)));
}

static void same(const struct entry *e, const struct model *m)
{
    struct list_iter it;
    struct element el;
    uint64_t index;
    assert_int_equal(list_len(e), m->n);
    assert_true(tree_is_valid(entry_ptr(e)));
    size_t i = 0;
    for (list_iter_init(&it, e, 0, false); list_iter_next(&it, &el, &index); i++) {
        assert_int_equal(index, i);
        assert_text(el.text, m->id[i]);
    }
    assert_int_equal(i, m->n);
    for (list_iter_init(&it, e, m->n ? m->n - 1 : 0, true); list_iter_next(&it, &el, &index);) {
        assert_int_equal(index, --i);
        assert_text(el.text, m->id[i]);
    }
    assert_int_equal(i, 0);
    struct list_node_iter nodes;
    struct bytes blob;
    bool packed;
    size_t count, sum = 0;
    for (list_node_iter_init(&nodes, e); list_node_iter_next(&nodes, &blob, &packed);) {
        if (packed) assert_true(lp_is_valid(blob, &count));
        sum += packed ? count : 1;
    }
    assert_int_equal(sum, m->n);
}

static size_t model_remove_equal(struct model *m, uint32_t id, int64_t count)
{
    size_t removed = 0, most = count == 0 ? SIZE_MAX : (size_t)llabs((long long)count);
    if (count >= 0) {
        for (size_t i = 0; i < m->n && removed < most;)
            if (m->id[i] == id)
                model_delete(m, i, 1), removed++;
            else
                i++;
    } else {
        for (size_t i = m->n; i-- > 0 && removed < most;)
            if (m->id[i] == id) model_delete(m, i, 1), removed++;
    }
    return removed;
}

static void change(struct entry *e, struct model *m, struct random *r, const struct store_limits *lim, bool growing)
{
    static char room[9100], pivot_room[9100];
    uint32_t id = (uint32_t)random_below(r, 300), other = (uint32_t)random_below(r, 300);
    struct bytes text = text_of(id, room);
    size_t at = m->n ? random_below(r, m->n) : 0, count = random_below(r, 20);
    switch (random_below(r, growing ? 10 : 13)) {
    case 0:
    case 1:
    case 2:
        assert_int_equal(list_push(e, LIST_TAIL, text, lim), OK);
        model_insert(m, m->n, id);
        break;
    case 3:
    case 4:
        assert_int_equal(list_push(e, LIST_HEAD, text, lim), OK);
        model_insert(m, 0, id);
        break;
    case 5: {
        size_t i = 0;
        bool before = random_below(r, 2);
        while (i < m->n && m->id[i] != other) i++;
        enum status s = list_insert_at_pivot(e, text_of(other, pivot_room), before, text, lim);
        assert_int_equal(s, i < m->n ? OK : E_NOT_FOUND);
        if (i < m->n) model_insert(m, before ? i : i + 1, id);
        break;
    }
    case 6:
    case 7: {
        bool before = random_below(r, 2);
        int64_t index = random_below(r, 2) ? (int64_t)at : (int64_t)at - (int64_t)m->n;
        assert_int_equal(list_insert(e, index, before, text, lim), m->n ? OK : E_NOT_FOUND);
        if (m->n) model_insert(m, before ? at : at + 1, id);
        break;
    }
    case 8:
        assert_int_equal(list_set(e, (int64_t)at, text, lim), m->n ? OK : E_NOT_FOUND);
        if (m->n) m->id[at] = id;
        break;
    case 9:
        if (m->n) {
            struct buf moved = {0};
            enum list_end from = (enum list_end)random_below(r, 2), to = (enum list_end)random_below(r, 2);
            assert_int_equal(list_move(e, from, e, to, lim, &moved), OK);
            uint32_t taken = m->id[from == LIST_HEAD ? 0 : m->n - 1];
            assert_text(buf_bytes(&moved), taken);
            model_delete(m, from == LIST_HEAD ? 0 : m->n - 1, 1);
            model_insert(m, to == LIST_HEAD ? 0 : m->n, taken);
            buf_deinit(&moved);
        }
        break;
    case 10: {
        int64_t n = (int64_t)random_below(r, 9) - 4;
        assert_int_equal(list_remove_equal(e, text, n), model_remove_equal(m, id, n));
        break;
    }
    default:
        if (random_below(r, 60) == 0) {
            count = m->n * 2 / 3;
            list_keep(e, at, count);
            if (count > m->n - at) count = m->n - at;
            model_delete(m, at + count, m->n - at - count);
            model_delete(m, 0, at);
            break;
        }
        if (count > m->n - at)
            assert_int_equal(list_delete(e, at, count), m->n - at);
        else
            assert_int_equal(list_delete(e, at, count), count);
        if (count > m->n - at) count = m->n - at;
        model_delete(m, at, count);
    }
}

static void run(int64_t size, uint64_t seed, int steps)
{
    struct store_limits lim = {.list_max_listpack_size = size};
    struct random r;
    static struct model m, forked;
    struct entry *e = list_new(BYTES("key")), *fork = NULL;
    random_seed(&r, seed);
    m.n = 0;
    for (int step = 0; step < steps; step++) {
        change(e, &m, &r, &lim, m.n < 500 || (m.n < MODEL_MAX - 10 && step / (steps / 4) % 2 == 0));
        if (m.n) {
            struct element el;
            size_t at = random_below(&r, m.n);
            assert_true(list_index(e, (int64_t)at, &el));
            assert_text(el.text, m.id[at]);
        }
        if (step % 150 == 0) same(e, &m);
        if (step % 500 == 250) {
            if (fork) {
                same(fork, &forked);
                entry_free(fork);
            }
            fork = entry_fork(e);
            forked = m;
        }
    }
    same(e, &m);
    list_delete(e, 0, UINT64_MAX);
    assert_int_equal(list_len(e), 0);
    assert_null(((struct tree *)entry_ptr(e))->root);
    if (fork) {
        same(fork, &forked);
        entry_free(fork);
    }
    entry_free(e);
}

static void against_model(void **state)
{
    (void)state;
    uint64_t seed = seed_of_run();
    size_t before = mem_used();
    const int64_t sizes[] = {-2, -1, -5, 1, 2, 5, 128, 0};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) run(sizes[i], seed + i, 3000);
    assert_int_equal(mem_used(), before);
}

static void find_in_both_directions(void **state)
{
    (void)state;
    struct entry *e = list_new(BYTES("k"));
    const char *texts[] = {"a", "1", "b", "01", "1", "c"};
    struct store_limits two = {.list_max_listpack_size = 2};
    for (size_t i = 0; i < 6; i++) push(e, texts[i], &two);
    assert_int_equal(list_append_plain(e, BYTES("1"), &two), OK);
    struct list_iter it;
    uint64_t index;
    list_iter_init(&it, e, 0, false);
    const uint64_t expected[] = {1, 4, 6};
    for (int i = 0; i < 3; i++) assert_true(list_iter_find(&it, BYTES("1"), &index) && index == expected[i]);
    assert_false(list_iter_find(&it, BYTES("1"), &index));
    list_iter_init(&it, e, list_len(e) - 1, true);
    for (int i = 2; i >= 0; i--) assert_true(list_iter_find(&it, BYTES("1"), &index) && index == expected[i]);
    assert_false(list_iter_find(&it, BYTES("1"), &index));
    list_iter_init(&it, e, 7, false);
    assert_false(list_iter_find(&it, BYTES("1"), &index));
    entry_free(e);
}

static void moves_between_lists(void **state)
{
    (void)state;
    struct entry *a = list_new(BYTES("a")), *b = list_new(BYTES("b"));
    struct element el;
    push(a, "x", defaults);
    push(a, "y", defaults);
    assert_int_equal(list_move(a, LIST_TAIL, b, LIST_HEAD, defaults, NULL), OK);
    assert_int_equal(list_move(a, LIST_HEAD, b, LIST_HEAD, defaults, NULL), OK);
    assert_int_equal(list_len(a), 0);
    assert_true(list_index(b, 0, &el) && bytes_eq(el.text, BYTES("x")));
    assert_true(list_index(b, 1, &el) && bytes_eq(el.text, BYTES("y")));
    entry_free(a);
    entry_free(b);
}

/* Queue of a million: every node is let go as it empties. */
static void long_queue(void **state)
{
    (void)state;
    size_t before = mem_used();
    struct entry *e = list_new(BYTES("k"));
    struct element el;
    char text[16];
    for (int i = 0; i < 300000; i++) {
        int n = sprintf(text, "job:%d", i);
        assert_int_equal(list_push(e, LIST_HEAD, bytes_make(text, (size_t)n), defaults), OK);
    }
    assert_true(entry_memory(e, 0) < 300000 * 13);
    assert_true(entry_free_effort(e) > LAZYFREE_THRESHOLD);
    for (int i = 0; i < 300000; i++) {
        int n = sprintf(text, "job:%d", i);
        assert_true(list_index(e, -1, &el) && bytes_eq(el.text, bytes_make(text, (size_t)n)));
        assert_int_equal(list_delete(e, list_len(e) - 1, 1), 1);
    }
    assert_int_equal(list_len(e), 0);
    entry_free(e);
    assert_int_equal(mem_used(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_are_redis),
        cmocka_unit_test(against_model),
        cmocka_unit_test(find_in_both_directions),
        cmocka_unit_test(moves_between_lists),
        cmocka_unit_test(long_queue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
