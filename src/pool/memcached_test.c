#include "base/mem.h"
#include "pool/memcached.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

/* Describes the requests of a text that comes in pieces of `step` bytes. */
static void read_text(const char *text, size_t n, size_t step, struct buf *log)
{
    struct mc_request_parser p = {.value_max = 100};
    struct mc_request r = {0};
    size_t begin = 0, there = step < n ? step : n;
    for (;;) {
        enum status st = mc_parse_request(&p, bytes_make(text + begin, there - begin), &r);
        if (st == OK) {
            buf_printf(log, "%s%s", mc_command_name(r.command), r.noreply ? "!" : "");
            for (size_t i = 0; i < r.keys_n; i++) buf_printf(log, " %.*s", (int)r.keys[i].n, r.keys[i].p);
            buf_printf(log, ":%zu;", r.size);
            begin += r.size;
        } else if (st == E_AGAIN && there < n) {
            if (p.need > 0) assert_true(p.need <= 110);
            there = there + step < n ? there + step : n;
        } else {
            buf_append_cstr(log, st == E_AGAIN ? begin == n ? "" : "more" : p.error);
            break;
        }
    }
    buf_append_char(log, 0);
    mc_request_deinit(&r);
}

static void check(const char *text, const char *expected)
{
    for (size_t step = 1; step <= 40; step = step < 5 ? step + 1 : step * 2) {
        struct buf log = {0};
        read_text(text, strlen(text), step, &log);
        assert_string_equal(log.p, expected);
        buf_deinit(&log);
    }
}

static void test_requests(void **state)
{
    check("get a\r\n", "get a:7;");
    check("  get  a   bb ccc \r\nquit\r\n", "get a bb ccc:20;quit:6;");
    check("gets a\nversion\r\n", "gets a:7;version:9;");
    check("set k 1 0 5\r\nhello\r\nget k\r\n", "set k:20;get k:7;");
    check("set k 1 -1 0 noreply\r\n\r\n", "set! k:24;");
    check("set k 0 0 4\r\n\r\n\r\n\r\n", "set k:19;");
    check("cas k 0 0 1 77 noreply\r\nx\r\n", "cas! k:27;");
    check("add k 0 0 1\r\nx\r\nreplace k 0 0 1\r\nx\r\nappend k 0 0 1\r\nx\r\nprepend k 0 0 1\r\nx\r\n",
          "add k:16;replace k:20;append k:19;prepend k:20;");
    check("delete k\r\ndelete k noreply\r\n", "delete k:10;delete! k:18;");
    check("incr k 18446744073709551615\r\ndecr k 1 noreply\r\ntouch k -1\r\n", "incr k:29;decr! k:18;touch k:12;");
    check("get a", "more");
    check("set k 0 0 5\r\nhel", "more");
}

static void test_refused_requests(void **state)
{
    static const char line[] = "CLIENT_ERROR bad command line format";
    check("\r\n", "ERROR");
    check("GET a\r\n", "ERROR");
    check("get\r\n", "ERROR");
    check("get \r\n", "ERROR");
    check("flush_all\r\n", "ERROR");
    check("set k 0 0\r\n", line);
    check("set k 0 0 x\r\n", line);
    check("set k 0 0 -1\r\n", line);
    check("set k -1 0 1\r\n", line);
    check("set k 0 0 18446744073709551616\r\n", line);
    check("set k 0 0 1 noreply x\r\n", line);
    check("set k 0 0 1 later\r\n", line);
    check("cas k 0 0 1\r\n", line);
    check("quit now\r\n", line);
    check("version noreply\r\n", line);
    check("delete k 0\r\n", line);
    check("set k 0 0 101\r\n", "SERVER_ERROR object too large for cache");
    check("set k 0 0 3\r\nhello\r\n", "CLIENT_ERROR bad data chunk");
    check("incr k x\r\n", "CLIENT_ERROR invalid numeric delta argument");
    check("incr k -1\r\n", "CLIENT_ERROR invalid numeric delta argument");
    check("get a\rb\r\n", "CLIENT_ERROR bad byte in a key");
    char text[400];
    snprintf(text, sizeof text, "get %0250d\r\n", 7);
    struct buf log = {0};
    read_text(text, strlen(text), 1000, &log);
    assert_non_null(strstr(log.p, ":256;"));
    buf_deinit(&log);
    snprintf(text, sizeof text, "get %0251d\r\n", 7);
    check(text, "CLIENT_ERROR line format: the key is too long");
    read_text("get a\0b\r\n", 9, 3, &log);
    assert_string_equal(log.p, "CLIENT_ERROR bad byte in a key");
    buf_deinit(&log);
}

static void test_a_line_without_end(void **state)
{
    size_t n = MC_LINE_MAX + 2;
    char *text = mem_alloc(n);
    memset(text, 'x', n);
    struct mc_request_parser p = {.value_max = 100};
    struct mc_request r = {0};
    assert_int_equal(mc_parse_request(&p, bytes_make(text, n / 2), &r), E_AGAIN);
    assert_int_equal(mc_parse_request(&p, bytes_make(text, n), &r), E_CORRUPT);
    struct mc_reply_parser q = {0};
    assert_int_equal(mc_scan_reply(&q, bytes_make(text, n / 2)), E_AGAIN);
    assert_int_equal(mc_scan_reply(&q, bytes_make(text, n)), E_CORRUPT);
    mc_request_deinit(&r);
    mem_free(text);
}

static void check_reply(const char *text, enum status expected, enum mc_reply_kind kind, size_t size, size_t values)
{
    for (size_t step = 1; step < 70; step = step * 2 + 1) {
        struct mc_reply_parser p = {0};
        size_t n = strlen(text), there = 0;
        enum status st = E_AGAIN;
        while (st == E_AGAIN && there < n) {
            there = there + step < n ? there + step : n;
            st = mc_scan_reply(&p, bytes_make(text, there));
        }
        assert_int_equal(st, expected);
        if (st != OK) continue;
        assert_int_equal(p.kind, kind);
        assert_int_equal(p.size, size);
        assert_int_equal(p.values_size, values);
    }
}

static void test_replies(void **state)
{
    check_reply("END\r\n", OK, MC_REPLY_VALUES, 5, 0);
    check_reply("VALUE a 0 5\r\nhello\r\nEND\r\nSTORED\r\n", OK, MC_REPLY_VALUES, 25, 20);
    check_reply("VALUE a 0 5\r\nEND\r\n\r\nVALUE b 1 0 77\r\n\r\nEND\r\n", OK, MC_REPLY_VALUES, 43, 38);
    check_reply("VALUE a 0 1\r\nx\r\nSERVER_ERROR out of memory\r\n", OK, MC_REPLY_ERROR, 44, 16);
    static const char *const lines[] = {"STORED",  "NOT_STORED", "EXISTS",         "NOT_FOUND", "DELETED",
                                        "TOUCHED", "OK",         "VERSION 1.6.18", "0",         "18446744073709551615",
                                        "5  "};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char text[64];
        snprintf(text, sizeof text, "%s\r\n", lines[i]);
        check_reply(text, OK, MC_REPLY_LINE, strlen(text), 0);
    }
    check_reply("ERROR\r\n", OK, MC_REPLY_ERROR, 7, 0);
    check_reply("CLIENT_ERROR bad data chunk\r\n", OK, MC_REPLY_ERROR, 29, 0);
    check_reply("SERVER_ERROR\r\n", OK, MC_REPLY_ERROR, 14, 0);
    check_reply("VALUE a 0 5\r\nhel", E_AGAIN, 0, 0, 0);
    check_reply("VALUE a 0 5\r\nhello\r\nEN", E_AGAIN, 0, 0, 0);
    check_reply("VALUE a 0 5\r\nhello\r\nSTORED\r\n", E_CORRUPT, 0, 0, 0);
    check_reply("VALUE a 0 5\r\nhelloo\r\nEND\r\n", E_CORRUPT, 0, 0, 0);
    check_reply("VALUE a 0\r\n", E_CORRUPT, 0, 0, 0);
    check_reply("VALUE a 0 99999999999999999999\r\n", E_CORRUPT, 0, 0, 0);
    check_reply("VALUE a 0 18446744073709551615\r\n", E_CORRUPT, 0, 0, 0);
    check_reply("+OK\r\n", E_CORRUPT, 0, 0, 0);
    check_reply("\r\n", E_CORRUPT, 0, 0, 0);
    check_reply("STOREDX\r\n", E_CORRUPT, 0, 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_refused_requests),
        cmocka_unit_test(test_a_line_without_end),
        cmocka_unit_test(test_replies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
