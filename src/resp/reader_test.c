#include "base/mem.h"
#include "resp/resp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* ---- What a feed of bytes comes to, as text ---------------------------------------------------------------------- */

static void append_request(struct buf *log, const struct resp_request *r)
{
    for (size_t i = 0; i < r->argc; i++) {
        buf_printf(log, "%s%zu:", i ? " " : "", r->argv[i].n);
        buf_append_bytes(log, r->argv[i]);
    }
    buf_append_char(log, ';');
}

/* A connection's input buffer, the way a server keeps it; every step gets fresh memory, so that a stale pointer is
 * found. */
struct feed {
    struct resp_parser parser;
    struct buf input, log;
    bool broken;
};

static void feed_move(struct feed *f)
{
    char *p = mem_alloc(f->input.n + 1);
    if (f->input.n) memcpy(p, f->input.p, f->input.n);
    size_t n = f->input.n;
    buf_deinit(&f->input);
    f->input = (struct buf){p, n, n + 1};
}

static void feed_bytes(struct feed *f, const char *p, size_t n)
{
    if (f->broken) return;
    struct resp_request r = {0}; /* another object every time, as a worker's connections share theirs */
    buf_append(&f->input, p, n);
    feed_move(f);
    for (;;) {
        enum status st = resp_parse_request(&f->parser, buf_bytes(&f->input), &r);
        if (st == OK) append_request(&f->log, &r);
        if (st == E_CORRUPT) buf_printf(&f->log, "!%s", f->parser.error);
        f->broken = st == E_CORRUPT;
        if (st == E_AGAIN) assert_int_equal(r.argc, 0);
        assert_true(st == OK || st == E_AGAIN || st == E_CORRUPT);
        if (st != E_CORRUPT) buf_drop_front(&f->input, r.size);
        if (st != OK) break;
    }
    resp_request_deinit(&r);
}

static void feed_init(struct feed *f, bool unauthenticated)
{
    *f = (struct feed){0};
    resp_parser_init(&f->parser, RESP_BULK_MAX_DEFAULT);
    f->parser.unauthenticated = unauthenticated;
}

static void feed_deinit(struct feed *f)
{
    resp_parser_deinit(&f->parser);
    buf_deinit(&f->input);
    buf_deinit(&f->log);
}

static void expect_mode(struct bytes in, const char *expected, bool unauthenticated)
{
    struct feed whole, bytewise;
    feed_init(&whole, unauthenticated);
    feed_init(&bytewise, unauthenticated);
    feed_bytes(&whole, in.p, in.n);
    for (size_t i = 0; i < in.n; i++) feed_bytes(&bytewise, in.p + i, 1);
    buf_append_char(&whole.log, '\0');
    buf_append_char(&bytewise.log, '\0');
    assert_string_equal(whole.log.p, expected);
    assert_string_equal(bytewise.log.p, expected);
    feed_deinit(&whole);
    feed_deinit(&bytewise);
}

#define expect(in, expected) expect_mode(BYTES(in), expected, false)

/* ---- Tests ------------------------------------------------------------------------------------------------------- */

static void arrays_of_bulks(void **state)
{
    (void)state;
    expect("*1\r\n$4\r\nPING\r\n", "4:PING;");
    expect("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$12\r\nhello\r\nworld\r\n", "3:SET 1:k 12:hello\r\nworld;");
    expect("*2\r\n$4\r\nECHO\r\n$0\r\n\r\n*1\r\n$4\r\nPING\r\n", "4:ECHO 0:;4:PING;");
    expect("*0\r\n*-1\r\n*-7\r\n\r\n*1\r\n$4\r\nPING\r\n", "4:PING;");
    /* Redis takes any byte behind CR, and any two behind a bulk. */
    expect("*1\rX$4\rYPINGab*1\r\n$4\r\nPING\r\n", "4:PING;4:PING;");
    expect("*1\r\n$4\r\nPIN", "");
    expect("*2147483647\r\n", "");
    expect("*1\r\n$536870912\r\n", "");
}

static void inline_requests(void **state)
{
    (void)state;
    expect("PING\r\n", "4:PING;");
    expect("PING\nPING\r\n", "4:PING;4:PING;");
    expect("  \r\n\t\r\n\r\r\n set  a\tb \r\n", "3:set 1:a 1:b;");
    expect("echo \"a b\" 'c d' \"\"\r\n", "4:echo 3:a b 3:c d 0:;");
    expect("echo \"\\x41\\n\\q\\xzz\\\"\" 'it\\'s\\n'\r\n", "4:echo 7:A\nqxzz\" 6:it's\\n;");
    expect("echo a\"b c\"\r\n", "4:echo 4:ab c;");
    expect("echo a\x0b"
           "b\r\n",
           "4:echo 3:a\x0b"
           "b;");
    expect("PING\r\n*1\r\n$4\r\nPING\r\nPING\r\n", "4:PING;4:PING;4:PING;");
}

static void errors(void **state)
{
    (void)state;
    expect("*2147483648\r\n", "!Protocol error: invalid multibulk length");
    expect("*abc\r\n", "!Protocol error: invalid multibulk length");
    expect("*\r\n", "!Protocol error: invalid multibulk length");
    expect("*+1\r\n", "!Protocol error: invalid multibulk length");
    expect("*01\r\n", "!Protocol error: invalid multibulk length");
    expect("*1\n$4\r\nPING\r\n", "!Protocol error: invalid multibulk length");
    expect("*99999999999999999999\r\n", "!Protocol error: invalid multibulk length");
    expect("*1\r\nxabc\r\n", "!Protocol error: expected '$', got 'x'");
    expect("*1\r\n\r\n", "!Protocol error: expected '$', got ' '");
    expect("*1\r\n$-1\r\n", "!Protocol error: invalid bulk length");
    expect("*1\r\n$abc\r\n", "!Protocol error: invalid bulk length");
    expect("*1\r\n$536870913\r\n", "!Protocol error: invalid bulk length");
    expect("*1\r\n$00\r\n", "!Protocol error: invalid bulk length");
    expect("PING\r\necho \"a\r\n", "4:PING;!Protocol error: unbalanced quotes in request");
    expect("echo \"a\"b\r\n", "!Protocol error: unbalanced quotes in request");
    expect("echo 'a\\\r\n", "!Protocol error: unbalanced quotes in request");
}

static void unauthenticated_clients(void **state)
{
    (void)state;
    expect_mode(BYTES("*11\r\n"), "!Protocol error: unauthenticated multibulk length", true);
    expect_mode(BYTES("*1\r\n$16385\r\n"), "!Protocol error: unauthenticated bulk length", true);
    expect_mode(BYTES("*10\r\n$16384\r\n"), "", true);
    expect_mode(BYTES("*1\r\n$4\r\nPING\r\n"), "4:PING;", true);
}

/* `head`, then n times 'a', then `tail`. */
static void expect_long(const char *head, size_t n, const char *tail, const char *expected_prefix)
{
    struct buf in = {0};
    buf_append_cstr(&in, head);
    for (size_t i = 0; i < n; i++) buf_append_char(&in, '1');
    buf_append_cstr(&in, tail);
    for (size_t chunk = 1; chunk <= in.n; chunk = chunk == 1 ? 7001 : in.n + (chunk == in.n)) {
        struct feed f;
        feed_init(&f, false);
        /* Single bytes where it matters, at the end; copying the whole at each of them would take long. */
        size_t at = chunk == 1 ? in.n - 100 : 0;
        feed_bytes(&f, in.p, at);
        for (; at < in.n; at += chunk) feed_bytes(&f, in.p + at, in.n - at < chunk ? in.n - at : chunk);
        buf_append_char(&f.log, '\0');
        assert_int_equal(strncmp(f.log.p, expected_prefix, strlen(expected_prefix)), 0);
        if (!*expected_prefix) assert_int_equal(f.log.n, 1);
        feed_deinit(&f);
    }
    buf_deinit(&in);
}

static void lines_that_are_too_long(void **state)
{
    (void)state;
    expect_long("", RESP_INLINE_MAX, "", "");
    expect_long("", RESP_INLINE_MAX, "\n", "65536:1111");
    expect_long("", RESP_INLINE_MAX + 1, "", "!Protocol error: too big inline request");
    expect_long("", RESP_INLINE_MAX + 1, "\r\n", "!Protocol error: too big inline request");
    expect_long("*", RESP_INLINE_MAX, "", "!Protocol error: too big mbulk count string");
    expect_long("*", RESP_INLINE_MAX - 1, "", "");
    expect_long("*1\r\n$", RESP_INLINE_MAX, "", "!Protocol error: too big bulk count string");
    expect_long("*1\r\n$", RESP_INLINE_MAX - 1, "", "");
}

static void announced_lengths_reserve_nothing(void **state)
{
    (void)state;
    struct resp_parser p;
    resp_parser_init(&p, RESP_BULK_MAX_DEFAULT);
    struct resp_request r = {0};
    struct bytes in = BYTES("*2147483647\r\n$3\r\nSET\r\n$536870912\r\nabc");
    assert_int_equal(resp_parse_request(&p, in, &r), E_AGAIN);
    assert_int_equal(p.need, 536870912 + 2 - 3);
    assert_int_equal(r.size, 0);
    assert_true(p.partial.argv_cap <= 16 && r.argv_cap <= 16);
    resp_request_deinit(&r);
    resp_parser_deinit(&p);
}

static void empty_requests_can_be_dropped_early(void **state)
{
    (void)state;
    struct resp_parser p;
    resp_parser_init(&p, RESP_BULK_MAX_DEFAULT);
    struct resp_request r = {0};
    assert_int_equal(resp_parse_request(&p, BYTES("\r\n\r\n*0\r\n*1\r\n$4\r\nPI"), &r), E_AGAIN);
    assert_int_equal(r.size, 8);
    assert_int_equal(p.need, 4);
    assert_int_equal(resp_parse_request(&p, BYTES("*1\r\n$4\r\nPING\r\n"), &r), OK);
    assert_int_equal(r.size, 14);
    assert_int_equal(resp_parse_request(&p, BYTES("\r\n"), &r), E_AGAIN);
    assert_int_equal(r.size, 2);
    resp_request_deinit(&r);
    resp_parser_deinit(&p);
}

static void several_requests_are_held_at_a_time(void **state)
{
    (void)state;
    struct resp_parser p;
    resp_parser_init(&p, RESP_BULK_MAX_DEFAULT);
    struct resp_request r[3] = {0};
    struct bytes in = BYTES("get one\r\n*2\r\n$3\r\nget\r\n$3\r\ntwo\r\nget three\r\n");
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(resp_parse_request(&p, in, &r[i]), OK);
        in = bytes_make(in.p + r[i].size, in.n - r[i].size);
    }
    assert_int_equal(in.n, 0);
    assert_true(bytes_eq(r[0].argv[1], BYTES("one")));
    assert_true(bytes_eq(r[1].argv[1], BYTES("two")));
    assert_true(bytes_eq(r[2].argv[1], BYTES("three")));
    for (size_t i = 0; i < 3; i++) resp_request_deinit(&r[i]);
    resp_parser_deinit(&p);
}

/* Random requests, good ones and damaged ones, in random pieces: the pieces must not matter. */
static void pieces_do_not_matter(void **state)
{
    (void)state;
    unsigned seed = (unsigned)(getenv("SEED") ? atoi(getenv("SEED")) : 4711);
    printf("seed %u\n", seed);
    for (int round = 0; round < 2000; round++, seed++) {
        srand(seed);
        struct buf in = {0}, expected = {0};
        for (int n = rand() % 5 + 1; n > 0; n--) {
            size_t argc = (size_t)(rand() % 20 ? rand() % 6 + 1 : rand() % 100 + 1);
            resp_request_begin(&in, argc);
            for (size_t i = 0; i < argc; i++) {
                char text[300];
                size_t len = (size_t)(rand() % 10 ? rand() % 12 : rand() % 300);
                for (size_t k = 0; k < len; k++) text[k] = (char)(rand() % 256);
                resp_request_arg(&in, bytes_make(text, len));
                buf_printf(&expected, "%s%zu:", i ? " " : "", len);
                buf_append(&expected, text, len);
            }
            buf_append_char(&expected, ';');
        }
        bool damaged = rand() % 2;
        if (damaged) in.p[(size_t)rand() % in.n] ^= (char)(1 << rand() % 8);
        struct feed whole, pieces;
        feed_init(&whole, false);
        feed_init(&pieces, false);
        feed_bytes(&whole, in.p, in.n);
        for (size_t at = 0, n; at < in.n; at += n) {
            n = (size_t)(rand() % 40) + 1;
            if (n > in.n - at) n = in.n - at;
            feed_bytes(&pieces, in.p + at, n);
        }
        if (!bytes_eq(buf_bytes(&whole.log), buf_bytes(&pieces.log))) fail_msg("seed %u: pieces differ", seed);
        if (!damaged && !bytes_eq(buf_bytes(&whole.log), buf_bytes(&expected))) fail_msg("seed %u: misread", seed);
        feed_deinit(&whole);
        feed_deinit(&pieces);
        buf_deinit(&in);
        buf_deinit(&expected);
    }
}

static void a_million_arguments(void **state)
{
    (void)state;
    struct feed f;
    feed_init(&f, false);
    struct buf in = {0};
    enum { COUNT = 1 << 20 };
    resp_request_begin(&in, COUNT);
    for (int i = 0; i < COUNT; i++) resp_request_arg_i64(&in, i);
    struct resp_request r = {0};
    struct resp_parser p;
    resp_parser_init(&p, RESP_BULK_MAX_DEFAULT);
    size_t step = 64 * 1024, there = step;
    while (resp_parse_request(&p, bytes_make(in.p, there), &r) == E_AGAIN)
        there = there + step < in.n ? there + step : in.n;
    assert_int_equal(r.argc, COUNT);
    assert_int_equal(r.size, in.n);
    for (int i = 0; i < COUNT; i += 9973) assert_int_equal(atoi(r.argv[i].p), i);
    resp_request_deinit(&r);
    resp_parser_deinit(&p);
    buf_deinit(&in);
    feed_deinit(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrays_of_bulks),
        cmocka_unit_test(inline_requests),
        cmocka_unit_test(errors),
        cmocka_unit_test(unauthenticated_clients),
        cmocka_unit_test(lines_that_are_too_long),
        cmocka_unit_test(announced_lengths_reserve_nothing),
        cmocka_unit_test(empty_requests_can_be_dropped_early),
        cmocka_unit_test(several_requests_are_held_at_a_time),
        cmocka_unit_test(pieces_do_not_matter),
        cmocka_unit_test(a_million_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
