#include "change/change.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>

static struct bytes read_all(struct change_reader *r, struct buf *out)
{
    for (struct bytes b; (b = change_reader_peek(r)).n;) {
        buf_append_bytes(out, b);
        change_reader_skip(r, b.n);
    }
    return buf_bytes(out);
}

static void effects_select_their_database(void **state)
{
    (void)state;
    struct change_log *log = change_log_create(1 << 20);
    assert_int_equal(change_append(log, 0, BYTES("lost"), 1, 0), 0);
    change_log_activate(log);
    struct change_reader r = {0};
    assert_int_equal(change_reader_seek(log, &r, 0), OK);
    change_append(log, 0, BYTES("<a>"), 1, 0);
    change_append(log, 0, BYTES("<b><c>"), 2, 0);
    uint64_t end = change_append(log, 11, BYTES("<d>"), 1, 11);
    struct buf got = {0};
    const char want[] = "*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n<a>*1\r\n$5\r\nMULTI\r\n<b><c>*1\r\n$4\r\nEXEC\r\n"
                        "*2\r\n$6\r\nSELECT\r\n$2\r\n11\r\n<d>";
    assert_true(bytes_eq(read_all(&r, &got), BYTES(want)));
    assert_int_equal(end, sizeof want - 1);
    assert_int_equal(change_offset(log), end);
    buf_deinit(&got);
    change_reader_close(&r);
    change_log_destroy(log);
}

static void the_backlog_is_bounded_but_readers_are_safe(void **state)
{
    (void)state;
    size_t before = mem_used();
    struct change_log *log = change_log_create(200 * 1000);
    change_log_activate(log);
    struct change_reader old = {0}, late = {0};
    assert_int_equal(change_reader_seek(log, &old, 0), OK);
    change_set_selected_db(log, 0);
    char chunk[1000];
    struct buf want = {0}, got = {0};
    for (int i = 0; i < 2000; i++) {
        memset(chunk, 'a' + i % 26, sizeof chunk);
        change_append(log, 0, bytes_make(chunk, sizeof chunk), 1, 0);
        buf_append(&want, chunk, sizeof chunk);
    }
    struct buf big = {0};
    buf_reserve(&big, 3 << 20);
    memset(big.p, 'B', 3 << 20);
    change_append(log, 0, bytes_make(big.p, 3 << 20), 1, 0);
    buf_append(&want, big.p, 3 << 20);
    change_append(log, 0, BYTES("tail"), 1, 0);
    buf_append_cstr(&want, "tail");
    assert_int_equal(change_reader_seek(log, &late, 0), E_NOT_FOUND);
    assert_int_equal(change_reader_seek(log, &late, change_offset(log) + 1), E_NOT_FOUND);
    assert_int_equal(change_reader_seek(log, &late, change_offset(log)), OK);
    assert_int_equal(change_reader_peek(&late).n, 0);
    assert_true(bytes_eq(read_all(&old, &got), buf_bytes(&want)));
    change_reader_close(&old);
    change_reader_close(&late);
    struct change_window w;
    change_window_get(log, &w);
    assert_true(w.length >= 200 * 1000);
    assert_int_equal(w.first + w.length - 1, change_offset(log));
    change_log_destroy(log);
    buf_deinit(&big);
    buf_deinit(&want);
    buf_deinit(&got);
    assert_int_equal(mem_used(), before);
}

static void what_is_forgotten_is_out_of_reach(void **state)
{
    (void)state;
    struct change_log *log = change_log_create(1 << 20);
    struct change_reader standing = {0}, late = {0};
    struct change_window w;
    assert_false(change_log_forget(log, true)); /* nothing to forget */
    change_log_activate(log);
    assert_int_equal(change_reader_seek(log, &standing, 0), OK);
    change_set_selected_db(log, 0);
    for (int i = 0; i < 30; i++) change_append(log, 0, BYTES("0123456789"), 1, 0);
    assert_true(change_log_forget(log, true));
    assert_false(change_log_forget(log, true));
    assert_int_equal(change_reader_seek(log, &late, 290), E_NOT_FOUND);
    assert_int_equal(change_reader_seek(log, &late, 300), OK);
    uint64_t end = change_append(log, 0, BYTES("abcde"), 1, 0);
    assert_int_equal(end, 305);
    assert_int_equal(change_reader_seek(log, &late, 300), E_NOT_FOUND);
    change_window_get(log, &w);
    assert_false(w.active);
    assert_int_equal(w.length, 0);
    /* Whoever stands in it misses nothing. */
    struct buf got = {0};
    struct bytes text = read_all(&standing, &got);
    assert_int_equal(text.n, 305);
    assert_memory_equal(text.p + 295, "56789abcde", 10);
    /* Remembered again from here on. */
    assert_true(change_log_forget(log, false));
    change_append(log, 0, BYTES("fgh"), 1, 0);
    change_window_get(log, &w);
    assert_true(w.active);
    assert_int_equal(w.first, 306);
    assert_int_equal(w.length, 3);
    assert_int_equal(change_reader_seek(log, &late, 304), E_NOT_FOUND);
    assert_int_equal(change_reader_seek(log, &late, 305), OK);
    buf_deinit(&got);
    change_reader_close(&standing);
    change_reader_close(&late);
    change_log_destroy(log);
}

static void promotion_keeps_the_old_history(void **state)
{
    (void)state;
    struct change_log *log = change_log_create(1000);
    struct change_id a, b;
    change_log_restart(log, "ffffffffffffffffffffffffffffffffffffffff", 1100);
    change_log_activate(log);
    change_id_get(log, &a);
    assert_int_equal(a.second_offset, -1);
    change_id_shift(log);
    change_id_get(log, &b);
    assert_string_equal(b.id2, "ffffffffffffffffffffffffffffffffffffffff");
    assert_string_not_equal(b.id, b.id2);
    assert_int_equal(b.second_offset, 1101);
    change_log_destroy(log);
}

enum { WRITERS = 3, APPENDS = 20000 };

struct shared {
    struct change_log *log;
    struct gate *gate;
    _Atomic int inside;
    int at_rest; /* only touched with the server at rest or inside the gate */
};

static void *writer(void *arg)
{
    struct shared *s = arg;
    struct gate_member *m = gate_join(s->gate);
    for (int i = 0; i < APPENDS; i++) {
        gate_enter(m);
        atomic_fetch_add(&s->inside, 1);
        change_append(s->log, 0, BYTES("0123456789"), 1, 0);
        assert_int_equal(s->at_rest, 0);
        atomic_fetch_sub(&s->inside, 1);
        gate_exit(m);
    }
    gate_leave(m);
    return NULL;
}

static void the_gate_brings_writers_to_rest(void **state)
{
    (void)state;
    struct shared s = {.log = change_log_create(1 << 16), .gate = gate_create()};
    change_log_activate(s.log);
    change_set_selected_db(s.log, 0);
    pthread_t t[WRITERS];
    for (int i = 0; i < WRITERS; i++) pthread_create(&t[i], NULL, writer, &s);
    for (int i = 0; i < 50; i++) {
        gate_close(s.gate);
        s.at_rest = 1;
        assert_int_equal(atomic_load(&s.inside), 0);
        uint64_t at = change_offset(s.log);
        assert_int_equal(at % 10, 0);
        assert_int_equal(change_offset(s.log), at);
        s.at_rest = 0;
        gate_open(s.gate);
    }
    for (int i = 0; i < WRITERS; i++) pthread_join(t[i], NULL);
    assert_int_equal(change_offset(s.log), (uint64_t)WRITERS * APPENDS * 10);
    change_log_destroy(s.log);
    gate_destroy(s.gate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(effects_select_their_database),
        cmocka_unit_test(the_backlog_is_bounded_but_readers_are_safe),
        cmocka_unit_test(what_is_forgotten_is_out_of_reach),
        cmocka_unit_test(promotion_keeps_the_old_history),
        cmocka_unit_test(the_gate_brings_writers_to_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
