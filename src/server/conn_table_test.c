/* The table of connections by id, and mail to connections that are there and that are gone. */
#include "server/conn.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { CONNS = 1000 };

static void finds_by_id(void **state)
{
    (void)state;
    struct worker *w = mem_calloc(1, sizeof *w);
    struct conn *conns = mem_calloc(CONNS, sizeof *conns);
    assert_null(conn_find(w, 1));
    for (size_t i = 0; i < CONNS; i++) {
        conns[i].worker = w;
        conns[i].id = 1 + i * 64; /* all in one chain of a small table */
        conn_table_add(&conns[i]);
    }
    assert_int_equal(w->by_id_count, CONNS);
    for (size_t i = 0; i < CONNS; i++) assert_ptr_equal(conn_find(w, 1 + i * 64), &conns[i]);
    assert_null(conn_find(w, 2));
    for (size_t i = 0; i < CONNS; i += 2) conn_table_remove(&conns[i]);
    for (size_t i = 0; i < CONNS; i++) assert_ptr_equal(conn_find(w, 1 + i * 64), i % 2 ? &conns[i] : NULL);
    assert_int_equal(w->by_id_count, CONNS / 2);
    mem_free(w->by_id);
    mem_free(conns);
    mem_free(w);
}

struct seen {
    struct conn *conn[4];
    int n;
};

static void note(struct conn *c, void *data)
{
    struct seen *s = data;
    s->conn[s->n++] = c;
}

static void mail_reaches_the_living(void **state)
{
    (void)state;
    struct worker *w = mem_calloc(1, sizeof *w);
    struct conn a = {.worker = w, .id = 7}, b = {.worker = w, .id = 8};
    struct seen seen = {.n = 0};
    w->loop = loop_create();
    conn_table_add(&a);
    conn_table_add(&b);
    conn_post(conn_ref_of(&a), note, &seen);
    conn_post(conn_ref_of(&b), note, &seen);
    conn_post((struct conn_ref){w, 9}, note, &seen);
    assert_int_equal(seen.n, 0);
    conn_table_remove(&b);
    loop_turn(w->loop, 0);
    assert_int_equal(seen.n, 3);
    assert_ptr_equal(seen.conn[0], &a);
    assert_null(seen.conn[1]);
    assert_null(seen.conn[2]);
    loop_destroy(w->loop);
    mem_free(w->by_id);
    mem_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_by_id),
        cmocka_unit_test(mail_reaches_the_living),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
