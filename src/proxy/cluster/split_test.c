/* Merging the replies of parts, the cursor of a whole cluster, and where the keys of a request are. */
#include "base/mem.h"
#include "proxy/cluster/worker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* A gather whose parts are done, from replies as text. */
static void expect_merge(enum gather_kind kind, unsigned turn, const char *const *replies, unsigned n,
                         const uint32_t *place, size_t places, const char *want)
{
    struct request *parts = mem_calloc(n, sizeof *parts), **list = mem_calloc(n, sizeof *list);
    for (unsigned i = 0; i < n; i++) {
        list[i] = &parts[i];
        parts[i].state = REQUEST_DONE;
        buf_append_cstr(&parts[i].reply.bytes, replies[i]);
    }
    uint32_t *own = mem_calloc(places + 1, sizeof *own);
    if (places) memcpy(own, place, places * sizeof *own);
    struct gather g = {.kind = kind, .parts = n, .turn = turn, .part = list, .place = own, .places = places};
    struct buf out = {0};
    buf_append_cstr(&out, "before");
    gather_merge(&g, &out);
    buf_append_char(&out, '\0');
    assert_string_equal(out.p + 6, want);
    for (unsigned i = 0; i < n; i++) buf_deinit(&parts[i].reply.bytes);
    buf_deinit(&out);
    mem_free(own);
    mem_free(parts);
    mem_free(list);
}

#define MERGE(kind, turn, want, ...)                                                  \
    do {                                                                              \
        const char *const r[] = {__VA_ARGS__};                                        \
        expect_merge(kind, turn, r, (unsigned)(sizeof r / sizeof *r), NULL, 0, want); \
    } while (0)

static void sums(void **state)
{
    (void)state;
    MERGE(GATHER_SUM, 0, ":6\r\n", ":1\r\n", ":2\r\n", ":3\r\n");
    MERGE(GATHER_SUM, 0, ":-1\r\n", ":0\r\n", ":-1\r\n");
    MERGE(GATHER_SUM, 0, "-OOM no\r\n", ":1\r\n", "-OOM no\r\n", "-ERR other\r\n");
    MERGE(GATHER_SUM, 0, "-ERR the nodes' replies do not fit together\r\n", ":1\r\n", "+OK\r\n");
}

static void values_find_their_places(void **state)
{
    (void)state;
    const char *const replies[] = {"*2\r\n$1\r\na\r\n$-1\r\n", "*1\r\n$3\r\n\r\nx\r\n", "*2\r\n_\r\n$0\r\n\r\n"};
    const uint32_t place[] = {4, 0, 2, 1, 3};
    expect_merge(GATHER_VALUES, 0, replies, 3, place, 5, "*5\r\n$-1\r\n_\r\n$3\r\n\r\nx\r\n$0\r\n\r\n$1\r\na\r\n");
    /* too few, too many, no array */
    const uint32_t four[] = {3, 0, 2, 1}, two[] = {1, 0}, three[] = {0, 1, 2};
    expect_merge(GATHER_VALUES, 0, replies, 2, four, 4, "-ERR the nodes' replies do not fit together\r\n");
    expect_merge(GATHER_VALUES, 0, replies, 2, two, 2, "-ERR the nodes' replies do not fit together\r\n");
    const char *const wrong[] = {"*2\r\n$1\r\na\r\n$-1\r\n", "+OK\r\n"};
    expect_merge(GATHER_VALUES, 0, wrong, 2, three, 3, "-ERR the nodes' replies do not fit together\r\n");
}

static void arrays(void **state)
{
    (void)state;
    MERGE(GATHER_CONCAT, 0, "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n", "*1\r\n$1\r\na\r\n", "*0\r\n",
          "*2\r\n$1\r\nb\r\n$1\r\nc\r\n");
    MERGE(GATHER_CONCAT, 0, "*0\r\n", "*0\r\n");
    MERGE(GATHER_AND, 0, "*3\r\n:1\r\n:0\r\n:0\r\n", "*3\r\n:1\r\n:1\r\n:0\r\n", "*3\r\n:1\r\n:0\r\n:1\r\n");
    MERGE(GATHER_AND, 0, "-ERR the nodes' replies do not fit together\r\n", "*1\r\n:1\r\n", "*2\r\n:1\r\n:1\r\n");
}

static void least_union_counts(void **state)
{
    (void)state;
    static const char *const numbers[] = {":5\r\n", ":3\r\n", ":9\r\n"}, *const broken[] = {":5\r\n", "+OK\r\n"};
    expect_merge(GATHER_LEAST, 0, numbers, 3, NULL, 0, ":3\r\n");
    expect_merge(GATHER_LEAST, 0, broken, 2, NULL, 0, "-ERR the nodes' replies do not fit together\r\n");
    static const char *const places[] = {"*2\r\n:1\r\n:5\r\n", "*2\r\n:0\r\n:7\r\n"};
    expect_merge(GATHER_LEAST_EACH, 0, places, 2, NULL, 0, "*2\r\n:0\r\n:5\r\n");
    expect_merge(GATHER_LEAST_EACH, 0, numbers, 2, NULL, 0, "-ERR the nodes' replies do not fit together\r\n");
    static const char *const errors[] = {"-NOTBUSY a\r\n", "+OK\r\n", "-NOTBUSY b\r\n"};
    expect_merge(GATHER_ANY_OK, 0, errors, 3, NULL, 0, "+OK\r\n");
    expect_merge(GATHER_ANY_OK, 0, errors, 1, NULL, 0, "-NOTBUSY a\r\n");
    expect_merge(GATHER_FIRST, 0, errors, 3, NULL, 0, "-NOTBUSY a\r\n");
    static const char *const names[] = {"*2\r\n$1\r\nb\r\n$1\r\na\r\n", "*0\r\n", "*2\r\n$1\r\na\r\n$2\r\ncc\r\n"};
    expect_merge(GATHER_UNION, 0, names, 3, NULL, 0, "*3\r\n$1\r\na\r\n$1\r\nb\r\n$2\r\ncc\r\n");
    expect_merge(GATHER_UNION, 0, names + 1, 1, NULL, 0, "*0\r\n");
    static const char *const counts[] = {"*4\r\n$1\r\nb\r\n:1\r\n$1\r\na\r\n:0\r\n",
                                         "*4\r\n$1\r\nb\r\n:5\r\n$1\r\na\r\n:2\r\n"};
    expect_merge(GATHER_COUNTS, 0, counts, 2, NULL, 0, "*4\r\n$1\r\nb\r\n:6\r\n$1\r\na\r\n:2\r\n");
    expect_merge(GATHER_COUNTS, 0, names, 2, NULL, 0, "-ERR the nodes' replies do not fit together\r\n");
}

static void any_that_is_there(void **state)
{
    (void)state;
    MERGE(GATHER_RANDOM, 0, "$1\r\nb\r\n", "$-1\r\n", "$1\r\nb\r\n", "$1\r\nc\r\n");
    MERGE(GATHER_RANDOM, 2, "$1\r\nc\r\n", "_\r\n", "$1\r\nb\r\n", "$1\r\nc\r\n");
    MERGE(GATHER_RANDOM, 1, "$-1\r\n", "$-1\r\n", "$-1\r\n");
    MERGE(GATHER_FIRST, 0, "+OK\r\n", "+OK\r\n", "+OK\r\n");
    MERGE(GATHER_FIRST, 0, "-READONLY x\r\n", "+OK\r\n", "-READONLY x\r\n");
}

/* ---- SCAN ---- */

static void expect_cursor(struct worker *w, unsigned slot, const char *reply, const char *want)
{
    struct buf out = {0};
    bool ok = scan_rewrite(w, slot, bytes_of(reply), &out);
    buf_append_char(&out, '\0');
    if (want)
        assert_string_equal(out.p, want);
    else
        assert_false(ok);
    buf_deinit(&out);
}

static void cursors_lead_from_node_to_node(void **state)
{
    (void)state;
    struct worker *w = mem_calloc(1, sizeof *w);
    struct backend a = {.port = 1}, b = {.port = 2};
    for (unsigned s = 10; s < SLOT_COUNT; s++) w->slots[s] = s < 100 || s == 5000 ? &a : &b;
    expect_cursor(w, 10, "*2\r\n$1\r\n3\r\n*0\r\n", "*2\r\n$5\r\n49162\r\n*0\r\n"); /* 3 * 16384 + 10 */
    expect_cursor(w, 10, "*2\r\n$1\r\n0\r\n*1\r\n$1\r\nk\r\n", "*2\r\n$3\r\n100\r\n*1\r\n$1\r\nk\r\n");
    expect_cursor(w, 100, "*2\r\n$1\r\n0\r\n*0\r\n", "*2\r\n$1\r\n0\r\n*0\r\n"); /* 5000 is a's, which was walked */
    expect_cursor(w, 100, "*2\r\n$20\r\n18446744073709551615\r\n*0\r\n", NULL);  /* does not fit */
    expect_cursor(w, 100, "-ERR invalid cursor\r\n", NULL);
    expect_cursor(w, 100, "*2\r\n$1\r\nx\r\n*0\r\n", NULL);
    mem_free(w);
}

/* ---- keys ---- */

static int slot_of(const char *line, uint16_t *slot)
{
    struct resp_request req = {0};
    assert_int_equal(resp_split_line(bytes_of(line), &req), OK);
    const struct command *cmd = command_of_request(req.argv, req.argc, NULL);
    assert_non_null(cmd);
    int found = route_slot(cmd, req.argv, req.argc, slot);
    resp_request_deinit(&req);
    return found;
}

static void slots_of_requests(void **state)
{
    (void)state;
    uint16_t slot = 0, foo = (uint16_t)key_slot(BYTES("foo"));
    assert_int_equal(slot_of("GET foo", &slot), 1);
    assert_int_equal(slot, foo);
    assert_int_equal(slot_of("MGET foo {foo}a x{foo}", &slot), 1);
    assert_int_equal(slot_of("MGET foo bar", &slot), 2);
    assert_int_equal(slot_of("MSET foo bar {foo}x zzz", &slot), 1);
    assert_int_equal(slot_of("EVAL x 2 foo {foo}2 bar", &slot), 1);
    assert_int_equal(slot_of("EVAL x 0 foo", &slot), -1);
    assert_int_equal(slot_of("EVAL x 9 foo", &slot), -1);
    assert_int_equal(slot_of("XREAD COUNT 1 STREAMS foo 0", &slot), 1);
    assert_int_equal(slot_of("ZUNIONSTORE foo 2 {foo}a {foo}b", &slot), 1);
    assert_int_equal(slot_of("ZUNIONSTORE foo 2 {foo}a b", &slot), 2);
    assert_int_equal(slot_of("SSUBSCRIBE foo", &slot), 1);
    assert_int_equal(slot, foo);
    assert_int_equal(slot_of("SUBSCRIBE foo", &slot), 0);
    assert_int_equal(slot_of("PING", &slot), 0);
    /* more keys than are looked at in one go */
    struct buf b = {0};
    buf_append_cstr(&b, "DEL");
    for (int i = 0; i < 100; i++) buf_printf(&b, " {foo}%d", i);
    buf_append_char(&b, '\0');
    assert_int_equal(slot_of(b.p, &slot), 1);
    b.n--;
    buf_append_cstr(&b, " other");
    buf_append_char(&b, '\0');
    assert_int_equal(slot_of(b.p, &slot), 2);
    buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums),
        cmocka_unit_test(values_find_their_places),
        cmocka_unit_test(arrays),
        cmocka_unit_test(least_union_counts),
        cmocka_unit_test(any_that_is_there),
        cmocka_unit_test(cursors_lead_from_node_to_node),
        cmocka_unit_test(slots_of_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
