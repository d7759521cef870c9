/* socket_test.c: what is set at a socket is what the kernel then says. */
#include "net/net.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

static unsigned option(int fd, int name)
{
    unsigned value = 0;
    socklen_t n = sizeof value;
    if (getsockopt(fd, IPPROTO_TCP, name, &value, &n) != 0) return 0;
    return value;
}

/* Shorter pauses without giving up sooner; and off again for the last bytes of a connection that is closed. */
static void patience(void **state)
{
    (void)state;
    enum { RTO_MAX_MS_OPTION = 44 };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    bool known = option(fd, RTO_MAX_MS_OPTION) > 1000;
    net_set_patient(fd, true);
    assert_int_equal(option(fd, RTO_MAX_MS_OPTION), known ? 1000 : 0);
    assert_int_equal(option(fd, TCP_USER_TIMEOUT), known ? 24 * 3600 * 1000 : 0);
    net_set_patient(fd, false);
    assert_int_equal(option(fd, TCP_USER_TIMEOUT), 0);
    close(fd);
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    net_set_patient(pair[0], true); /* nothing to be set, and nothing that fails */
    net_set_patient(pair[0], false);
    close(pair[0]);
    close(pair[1]);
}

static void keepalive(void **state)
{
    (void)state;
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 0;
    socklen_t n = sizeof on;
    net_set_keepalive(fd, 300);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, &n), 0);
    assert_int_equal(on, 1);
    assert_int_equal(option(fd, TCP_KEEPIDLE), 300);
    assert_int_equal(option(fd, TCP_KEEPINTVL), 100);
    assert_int_equal(option(fd, TCP_KEEPCNT), 3);
    net_set_keepalive(fd, 0);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, &n), 0);
    assert_int_equal(on, 0);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(patience), cmocka_unit_test(keepalive)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
