/* The PROXY protocol's header, and lists of networks. */
#include "proxy/front/header.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"

/* Every shorter piece is the beginning of a header; with more behind, the size is the same. */
static void expect(const char *bytes, size_t n, const char *source, const char *destination)
{
    struct header h;
    for (size_t i = 0; i < n; i++) assert_int_equal(header_parse(bytes_make(bytes, i), &h), E_AGAIN);
    assert_int_equal(header_parse(bytes_make(bytes, n), &h), OK);
    assert_int_equal(h.size, n);
    assert_string_equal(h.source, source);
    assert_string_equal(h.destination, destination);
    char *more = malloc(n + 9);
    memcpy(more, bytes, n);
    memcpy(more + n, "PING\r\nxyz", 9);
    assert_int_equal(header_parse(bytes_make(more, n + 9), &h), OK);
    assert_int_equal(h.size, n);
    free(more);
}

#define EXPECT(text, source, destination) expect(text, sizeof text - 1, source, destination)

static void refuse(const char *bytes, size_t n)
{
    struct header h;
    assert_int_equal(header_parse(bytes_make(bytes, n), &h), E_CORRUPT);
    assert_non_null(h.error);
}

#define REFUSE(text) refuse(text, sizeof text - 1)

static void lines(void **state)
{
    (void)state;
    EXPECT("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", "192.168.0.1:56324", "192.168.0.11:443");
    EXPECT("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535",
           "255.255.255.255:65535");
    EXPECT("PROXY TCP6 2001:DB8:0:0::1 ::1 0 1\r\n", "[2001:db8::1]:0", "[::1]:1");
    EXPECT("PROXY TCP6 ::ffff:10.1.2.3 ::1 7 1\r\n", "[::ffff:10.1.2.3]:7", "[::1]:1");
    EXPECT("PROXY UNKNOWN\r\n", "", "");
    EXPECT("PROXY UNKNOWN whatever it may be\r\n", "", "");
    EXPECT("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535 0123456789012345678901234567890123456789"
           "0123456\r\n",
           "", ""); /* the longest: 107 bytes */
}

static void lines_that_are_none(void **state)
{
    (void)state;
    REFUSE("GET / HTTP/1.1\r\n");
    REFUSE("*1\r\n$4\r\nPING\r\n");
    REFUSE("proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n");
    REFUSE("PROXY\r\n");
    REFUSE("PROXY \r\n");
    REFUSE("PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n");
    REFUSE("PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n");
    REFUSE("PROXY TCP4\r\n");
    REFUSE("PROXY TCP4 1.2.3.4\r\n");
    REFUSE("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n");
    REFUSE("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n");
    REFUSE("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n");
    REFUSE("PROXY TCP4 1.2.3.4 1.2.3.4  1 2\r\n");
    REFUSE("PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n");
    REFUSE("PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n");
    REFUSE("PROXY TCP4 ::1 ::1 1 2\r\n");
    REFUSE("PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n");
    REFUSE("PROXY TCP6 ::1%lo ::1 1 2\r\n");
    REFUSE("PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n");
    REFUSE("PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n");
    REFUSE("PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n");
    REFUSE("PROXY TCP4 1.2.3.4 1.2.3.4 1 x\r\n");
    REFUSE("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n");
    REFUSE("PROXY TCP4 1.2.3.4\0 1.2.3.4 1 2\r\n");
    REFUSE("PROXY UNKNOWN 0123456789012345678901234567890123456789012345678901234567890123456789"
           "01234567890123456789012\r\n"); /* 108 bytes */
    REFUSE("PROXY UNKNOWN 0123456789012345678901234567890123456789012345678901234567890123456789"
           "0123456789012345678901234567890123456789"); /* no end */
}

static void binary(void **state)
{
    (void)state;
    EXPECT(SIGNATURE "\x21\x11\0\x0c\x0a\x01\x02\x03\x0a\0\0\x01\xdc\x04\x18\xeb", "10.1.2.3:56324", "10.0.0.1:6379");
    EXPECT(SIGNATURE "\x21\x21\0\x24"
                     "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x07\xff\xff",
           "[2001:db8::1]:7", "[::1]:65535");
    EXPECT(SIGNATURE "\x20\0\0\0", "", "");               /* LOCAL */
    EXPECT(SIGNATURE "\x20\x11\0\x03xyz", "", "");        /* LOCAL: what is behind does not matter */
    EXPECT(SIGNATURE "\x21\0\0\x05\x03\0\x02zz", "", ""); /* UNSPEC */
    EXPECT(SIGNATURE "\x21\x11\0\x13\x0a\x01\x02\x03\x0a\0\0\x01\xdc\x04\x18\xeb\x02\0\x04host", "10.1.2.3:56324",
           "10.0.0.1:6379"); /* a TLV */
    EXPECT(SIGNATURE "\x21\x11\0\x0e\x0a\x01\x02\x03\x0a\0\0\x01\xdc\x04\x18\xeb\xff\xff", "10.1.2.3:56324",
           "10.0.0.1:6379"); /* half a TLV */
}

static void paths(void **state)
{
    (void)state;
    char bytes[16 + 216] = SIGNATURE "\x21\x31\0\xd8";
    strcpy(bytes + 16, "/run/a b\n");
    memset(bytes + 16 + 108, 'x', 108);
    char destination[NET_ADDRESS_MAX];
    snprintf(destination, sizeof destination, "%.*s:0", 108, bytes + 16 + 108);
    expect(bytes, sizeof bytes, "/run/a?b?:0", destination);
}

static void the_longest(void **state)
{
    (void)state;
    size_t n = HEADER_V2_MAX;
    char *bytes = calloc(n, 1);
    struct header h;
    memcpy(bytes, SIGNATURE "\x21\x11\xff\xff\x01\x02\x03\x04\x05\x06\x07\x08\0\x09\0\x0a", 28);
    assert_int_equal(header_parse(bytes_make(bytes, n - 1), &h), E_AGAIN);
    assert_int_equal(header_parse(bytes_make(bytes, n), &h), OK);
    assert_int_equal(h.size, n);
    assert_string_equal(h.source, "1.2.3.4:9");
    free(bytes);
}

static void binary_that_is_none(void **state)
{
    (void)state;
    REFUSE("\r\n\r\n\0\r\nQUIT ");
    REFUSE("\r\n*1\r\n");
    REFUSE(SIGNATURE "\x11");           /* version 1 */
    REFUSE(SIGNATURE "\x31\x11\0\x0c"); /* version 3 */
    REFUSE(SIGNATURE "\x22\x11\0\x0c"); /* no such command */
    REFUSE(SIGNATURE "\x21\x11\0\x0b"
                     "12345678901"); /* too short */
    REFUSE(SIGNATURE "\x21\x21\0\x0c"
                     "123456789012");
    REFUSE(SIGNATURE "\x21\x31\0\x0c"
                     "123456789012");
    REFUSE(SIGNATURE "\x21\x12\0\x0c"
                     "123456789012"); /* UDP */
    REFUSE(SIGNATURE "\x21\x41\0\x0c"
                     "123456789012"); /* no such family */
}

static void among(const char *list, const char *ip, bool is)
{
    struct network networks[8];
    size_t n = 0;
    char copy[256];
    snprintf(copy, sizeof copy, "%s", list);
    for (char *word = strtok(copy, ","); word; word = strtok(NULL, ","))
        assert_true(network_parse(bytes_of(word), &networks[n++]));
    assert_int_equal(network_has(networks, n, ip), is);
}

static void networks(void **state)
{
    (void)state;
    among("10.0.0.0/8", "10.255.0.1", true);
    among("10.0.0.0/8", "11.0.0.1", false);
    among("192.0.2.128/25", "192.0.2.128", true);
    among("192.0.2.128/25", "192.0.2.127", false);
    among("192.0.2.7", "192.0.2.7", true);
    among("192.0.2.7", "192.0.2.6", false);
    among("0.0.0.0/0", "1.2.3.4", true);
    among("0.0.0.0/0", "::1", false);
    among("::/0", "::1", true);
    among("::/0", "1.2.3.4", false);
    among("2001:db8::/33", "2001:db8:7fff::1", true);
    among("2001:db8::/33", "2001:db8:8000::1", false);
    among("10.0.0.0/8", "::ffff:10.1.2.3", true);
    among("::ffff:10.1.2.3", "10.1.2.3", true);
    among("1.2.3.4,10.0.0.0/8,::1", "::1", true);
    among("1.2.3.4,10.0.0.0/8,::1", "", false);
    static const char *const wrong[] = {"",        "/8", "10.0.0.0/33", "10.0.0.0/", "10.0.0.1/8",  "10.0.0/8",
                                        "::1/129", "x",  "10.0.0.0/-1", "::1/64",    "10.0.0.0/8 ", "host"};
    struct network n;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) assert_false(network_parse(bytes_of(wrong[i]), &n));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines),    cmocka_unit_test(lines_that_are_none), cmocka_unit_test(binary),
        cmocka_unit_test(paths),    cmocka_unit_test(the_longest),         cmocka_unit_test(binary_that_is_none),
        cmocka_unit_test(networks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
