/* What the writer writes, and that the reader of replies reads it back. */
#include "base/mem.h"
#include "resp/resp.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void expect_out(struct resp_out *o, const char *expected)
{
    buf_append_char(o->buf, '\0');
    assert_string_equal(o->buf->p, expected);
    o->buf->n = 0;
}

/* Writes with both versions. */
#define expect(write, in2, in3)                                     \
    do {                                                            \
        struct buf b = {0};                                         \
        struct resp_out out2 = {&b, 2}, out3 = {&b, 3}, *o = &out2; \
        write;                                                      \
        expect_out(o, in2);                                         \
        o = &out3;                                                  \
        write;                                                      \
        expect_out(o, in3);                                         \
        buf_deinit(&b);                                             \
    } while (0)

static void simple_replies(void **state)
{
    (void)state;
    expect(resp_ok(o), "+OK\r\n", "+OK\r\n");
    expect(resp_status(o, "PO\r\nNG"), "+PO  NG\r\n", "+PO  NG\r\n");
    expect(resp_error(o, "ERR a\r\nb\n\r\n"), "-ERR a  b\r\n", "-ERR a  b\r\n");
    expect(resp_error_uncut(o, bytes_of("ERR a\r\nb\n\r\n")), "-ERR a  b   \r\n", "-ERR a  b   \r\n");
    expect(resp_errorf(o, "ERR '%s' %d", "x\n", 5), "-ERR 'x ' 5\r\n", "-ERR 'x ' 5\r\n");
    expect(resp_i64(o, 0), ":0\r\n", ":0\r\n");
    expect(resp_i64(o, 10), ":10\r\n", ":10\r\n");
    expect(resp_i64(o, -1), ":-1\r\n", ":-1\r\n");
    expect(resp_i64(o, INT64_MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n");
    expect(resp_bulk(o, BYTES("a\r\nb")), "$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n");
    expect(resp_bulk(o, (struct bytes){0}), "$0\r\n\r\n", "$0\r\n\r\n");
    expect(resp_bulk_cstr(o, "hi"), "$2\r\nhi\r\n", "$2\r\nhi\r\n");
    expect(resp_bulk_i64(o, -12), "$3\r\n-12\r\n", "$3\r\n-12\r\n");
    expect(resp_bulkf(o, "%d-%d", 1, 2), "$3\r\n1-2\r\n", "$3\r\n1-2\r\n");
    expect(resp_null(o), "$-1\r\n", "_\r\n");
    expect(resp_null_array(o), "*-1\r\n", "_\r\n");
    expect(resp_bool(o, true), ":1\r\n", "#t\r\n");
    expect(resp_bool(o, false), ":0\r\n", "#f\r\n");
    expect(resp_double(o, 3.14), "$18\r\n3.1400000000000001\r\n", ",3.1400000000000001\r\n");
    expect(resp_double(o, 5), "$1\r\n5\r\n", ",5\r\n");
    expect(resp_double(o, -INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n");
    expect(resp_verbatim(o, "txt", BYTES("hello")), "$5\r\nhello\r\n", "=9\r\ntxt:hello\r\n");
    expect(resp_big_number(o, BYTES("123456789012345678901")), "$21\r\n123456789012345678901\r\n",
           "(123456789012345678901\r\n");
}

static void aggregates(void **state)
{
    (void)state;
    expect(resp_array(o, 3), "*3\r\n", "*3\r\n");
    expect(resp_array(o, 1234567), "*1234567\r\n", "*1234567\r\n");
    expect(resp_map(o, 5), "*10\r\n", "%5\r\n");
    expect(resp_set(o, 2), "*2\r\n", "~2\r\n");
    expect(resp_push(o, 2), "*2\r\n", ">2\r\n");
}

static void deferred(struct resp_out *o)
{
    resp_ok(o);
    size_t outer = resp_defer(o);
    resp_i64(o, 1);
    size_t inner = resp_defer(o);
    resp_i64(o, 2);
    resp_i64(o, 3);
    resp_defer_map(o, inner, 1);
    resp_defer_set(o, resp_defer(o), 0);
    resp_defer_array(o, outer, 3);
}

static void deferred_lengths(void **state)
{
    (void)state;
    expect(deferred(o), "+OK\r\n*3\r\n:1\r\n*2\r\n:2\r\n:3\r\n*0\r\n", "+OK\r\n*3\r\n:1\r\n%1\r\n:2\r\n:3\r\n~0\r\n");
}

static void requests(void **state)
{
    (void)state;
    struct buf b = {0};
    resp_request_cstr(&b, 2, "GET", "key");
    resp_request_begin(&b, 1);
    resp_request_arg_i64(&b, -5);
    buf_append_char(&b, '\0');
    assert_string_equal(b.p, "*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n*1\r\n$2\r\n-5\r\n");
    buf_deinit(&b);
}

/* ---- Reading replies --------------------------------------------------------------------------------------------- */

static struct resp_value *parse(const char *text)
{
    struct resp_reply_parser p = {0};
    struct resp_value *v;
    assert_int_equal(resp_parse_reply(&p, bytes_of(text), &v), OK);
    assert_int_equal(p.size, strlen(text));
    return v;
}

static void replies_are_read(void **state)
{
    (void)state;
    struct resp_value *v = parse("%2\r\n$1\r\na\r\n*3\r\n:-7\r\n_\r\n$-1\r\n+b\r\n~2\r\n,1.5\r\n#t\r\n");
    assert_true(v->type == RESP_MAP && v->n == 4);
    const struct resp_value *a = resp_map_get(v, "a"), *b = resp_map_get(v, "b");
    assert_true(a && a->type == RESP_ARRAY && a->n == 3 && a->child[0].i64 == -7);
    assert_true(a->child[1].type == RESP_NULL && a->child[2].type == RESP_NULL);
    assert_true(b && b->type == RESP_SET && b->child[0].dbl == 1.5 && b->child[1].i64 == 1);
    assert_null(resp_map_get(v, "c"));
    resp_value_free(v);
    v = parse("-MOVED 1 host:1\r\n");
    assert_true(resp_is_error(v, "MOVED") && resp_is_error(v, NULL) && !resp_is_error(v, "MOVE"));
    resp_value_free(v);
    v = parse("=9\r\ntxt:hello\r\n");
    assert_true(v->type == RESP_VERBATIM && bytes_eq(v->str, BYTES("hello")));
    resp_value_free(v);
    v = parse("!5\r\nERR x\r\n");
    assert_true(resp_is_error(v, "ERR"));
    resp_value_free(v);
    v = parse("|1\r\n+ttl\r\n:5\r\n|0\r\n>2\r\n+OK\r\n*-1\r\n");
    assert_true(v->type == RESP_PUSH && v->n == 2 && resp_is_status(&v->child[0], "OK"));
    resp_value_free(v);
}

static void damaged_replies(void **state)
{
    (void)state;
    const char *bad[] = {
        "x\r\n",           ":\r\n",   ":1x\r\n",       "$-2\r\n", "$3\r\nabcde",     "*-2\r\n",
        "#x\r\n",          "_x\r\n",  "=3\r\nabc\r\n", ",1x\r\n", "(12a\r\n",        "+OK\rx",
        "*9999999999\r\n", "%-1\r\n", "$?\r\n",        "*1\r\nx", "=5\r\nabcde\r\n", "$99999999999999\r\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct resp_reply_parser p = {0};
        if (resp_scan_reply(&p, bytes_of(bad[i])) != E_CORRUPT) fail_msg("accepted %zu", i);
    }
    /* As deep as allowed, and one deeper. */
    for (int depth = RESP_DEPTH_MAX; depth <= RESP_DEPTH_MAX + 1; depth++) {
        struct buf b = {0};
        for (int i = 0; i < depth; i++) buf_append_cstr(&b, "*1\r\n");
        buf_append_cstr(&b, ":1\r\n");
        struct resp_reply_parser p = {0};
        struct resp_value *v = NULL;
        assert_int_equal(resp_parse_reply(&p, buf_bytes(&b), &v), depth == RESP_DEPTH_MAX ? OK : E_CORRUPT);
        resp_value_free(v);
        buf_deinit(&b);
    }
}

static void announced_replies_reserve_nothing(void **state)
{
    (void)state;
    struct resp_reply_parser p = {0};
    struct resp_value *v;
    assert_int_equal(resp_parse_reply(&p, BYTES("*2147483647\r\n*2147483647\r\n$1000000000\r\nab"), &v), E_AGAIN);
    assert_int_equal(p.need, 1000000000);
    assert_null(v);
}

static void write_random(struct resp_out *o, int depth, struct buf *shape);

static void write_random_children(struct resp_out *o, int depth, size_t n, struct buf *shape)
{
    buf_printf(shape, "(");
    for (size_t i = 0; i < n; i++) write_random(o, depth + 1, shape);
    buf_printf(shape, ")");
}

/* One random value, and its shape as text. */
static void write_random(struct resp_out *o, int depth, struct buf *shape)
{
    size_t n = (size_t)(rand() % 5);
    int64_t i = (int64_t)((uint64_t)rand() << 33 ^ (uint64_t)rand() << 2) >> rand() % 60;
    switch (rand() % (depth < 6 ? 12 : 8)) {
    case 0:
        resp_ok(o);
        buf_printf(shape, "+OK");
        break;
    case 1:
        resp_errorf(o, "ERR %zu", n);
        buf_printf(shape, "-ERR %zu", n);
        break;
    case 2:
        resp_i64(o, i);
        buf_printf(shape, ":%lld", (long long)i);
        break;
    case 3:
        resp_bulkf(o, "%lld", (long long)i);
        buf_printf(shape, "$%lld", (long long)i);
        break;
    case 4:
        resp_null(o);
        buf_printf(shape, "_");
        break;
    case 5:
        resp_double(o, (double)i / 8);
        buf_printf(shape, ",%.17g", (double)i / 8);
        break;
    case 6:
        resp_bool(o, n & 1);
        buf_printf(shape, "#%zu", n & 1);
        break;
    case 7:
        resp_verbatim(o, "txt", BYTES("v\r\n"));
        buf_printf(shape, "=v\r\n");
        break;
    case 8:
        resp_array(o, n);
        buf_printf(shape, "*");
        write_random_children(o, depth, n, shape);
        break;
    case 9:
        resp_map(o, n);
        buf_printf(shape, "%%");
        write_random_children(o, depth, 2 * n, shape);
        break;
    case 10:
        resp_set(o, n);
        buf_printf(shape, "~");
        write_random_children(o, depth, n, shape);
        break;
    default:
        resp_push(o, n);
        buf_printf(shape, ">");
        write_random_children(o, depth, n, shape);
        break;
    }
}

static void append_shape(const struct resp_value *v, struct buf *shape)
{
    buf_printf(shape, "%c", v->type);
    switch (v->type) {
    case RESP_INTEGER: buf_printf(shape, "%lld", (long long)v->i64); break;
    case RESP_BOOL: buf_printf(shape, "%lld", (long long)v->i64); break;
    case RESP_DOUBLE: buf_printf(shape, "%.17g", v->dbl); break;
    case RESP_ARRAY:
    case RESP_MAP:
    case RESP_SET:
    case RESP_PUSH:
        buf_printf(shape, "(");
        for (size_t i = 0; i < v->n; i++) append_shape(&v->child[i], shape);
        buf_printf(shape, ")");
        break;
    default: buf_append_bytes(shape, v->str);
    }
}

static void random_replies_round_trip(void **state)
{
    (void)state;
    unsigned seed = (unsigned)(getenv("SEED") ? atoi(getenv("SEED")) : 815);
    printf("seed %u\n", seed);
    for (int round = 0; round < 3000; round++, seed++) {
        srand(seed);
        struct buf b = {0}, shape = {0}, read = {0};
        struct resp_out o = {&b, 3};
        write_random(&o, 0, &shape);
        size_t size = b.n;
        buf_append_cstr(&b, "+next\r\n");
        struct resp_reply_parser p = {0};
        struct resp_value *v = NULL;
        enum status st = E_AGAIN;
        for (size_t there = 0; there < size && st == E_AGAIN; there = there < size ? there : size) {
            there += (size_t)(rand() % 30) + 1;
            char *moved = mem_alloc(b.n); /* at another place each time, and not one byte more than has come */
            size_t n = there < b.n ? there : b.n;
            memcpy(moved, b.p, n);
            st = resp_parse_reply(&p, bytes_make(moved, n), &v);
            mem_free(moved);
        }
        if (st != OK || p.size != size) fail_msg("seed %u: status %d, size %zu of %zu", seed, (int)st, p.size, size);
        append_shape(v, &read);
        if (!bytes_eq(buf_bytes(&read), buf_bytes(&shape))) fail_msg("seed %u: misread", seed);
        resp_value_free(v);
        buf_deinit(&b);
        buf_deinit(&shape);
        buf_deinit(&read);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(simple_replies),
        cmocka_unit_test(aggregates),
        cmocka_unit_test(deferred_lengths),
        cmocka_unit_test(requests),
        cmocka_unit_test(replies_are_read),
        cmocka_unit_test(damaged_replies),
        cmocka_unit_test(announced_replies_reserve_nothing),
        cmocka_unit_test(random_replies_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
