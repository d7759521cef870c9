/* client.c: requests to a node and its replies. */
#include "operator/client.h"

#include "base/clock.h"
#include "net/net.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <unistd.h>

enum { READ_SIZE = 64 * 1024, REPLY_MAX = 64 * 1024 * 1024 };

void client_init(struct client *c)
{
    *c = (struct client){.fd = -1};
}

void client_close(struct client *c)
{
    if (c->fd >= 0) close(c->fd);
    buf_deinit(&c->in);
    buf_deinit(&c->out);
    client_init(c);
}

enum status client_open(struct client *c, const char *host, int port, const char *password, int64_t timeout_ms)
{
    assert(c->fd < 0);
    int fd = net_connect_wait(host, port, timeout_ms);
    if (fd < 0) return E_IO;
    client_init(c);
    c->fd = fd;
    net_set_nodelay(fd);
    if (!password) return OK;
    client_send(c, 2, "AUTH", password);
    struct resp_value *reply;
    enum status st = client_wait(c, timeout_ms, &reply);
    if (st) {
        client_close(c);
        return st == E_CORRUPT ? E_CORRUPT : E_IO;
    }
    bool fine = resp_is_status(reply, "OK");
    resp_value_free(reply);
    if (fine) return OK;
    client_close(c);
    return E_INVALID;
}

void client_send(struct client *c, size_t argc, ...)
{
    va_list ap;
    va_start(ap, argc);
    resp_request_begin(&c->out, argc);
    for (size_t i = 0; i < argc; i++) resp_request_arg(&c->out, bytes_of(va_arg(ap, const char *)));
    va_end(ap);
    c->waiting++;
}

static enum status flush(struct client *c)
{
    while (c->out.n) {
        size_t put;
        enum status st = net_write(c->fd, c->out.p, c->out.n, &put);
        buf_drop_front(&c->out, put);
        if (st == E_AGAIN) return OK;
        if (st) return st;
    }
    return OK;
}

enum status client_pump(struct client *c)
{
    if (c->fd < 0) return E_CLOSED;
    enum status st = flush(c);
    while (st == OK && c->in.n < REPLY_MAX) {
        size_t got;
        buf_reserve(&c->in, READ_SIZE);
        st = net_read(c->fd, &c->in, READ_SIZE, &got);
    }
    if (st == OK || st == E_AGAIN) return OK;
    int saved = errno;
    client_close(c);
    errno = saved;
    return st;
}

enum status client_next(struct client *c, struct resp_value **reply)
{
    if (c->fd < 0) return E_CORRUPT;
    enum status st = c->in.n ? resp_parse_reply(&c->parser, buf_bytes(&c->in), reply) : E_AGAIN;
    if (st == E_AGAIN && c->in.n >= REPLY_MAX) st = E_CORRUPT;
    if (st == OK) {
        buf_drop_front(&c->in, c->parser.size);
        c->waiting--;
    } else if (st != E_AGAIN) {
        client_close(c);
        st = E_CORRUPT;
    }
    return st;
}

enum status client_wait(struct client *c, int64_t timeout_ms, struct resp_value **reply)
{
    int64_t deadline = clock_mono_ms() + timeout_ms;
    for (;;) {
        enum status st = client_pump(c);
        if (st) return st;
        st = client_next(c, reply);
        if (st != E_AGAIN) return st;
        int64_t left = deadline - clock_mono_ms();
        if (left <= 0) break;
        struct pollfd p = {.fd = c->fd, .events = (short)(POLLIN | (c->out.n ? POLLOUT : 0))};
        if (poll(&p, 1, (int)left) < 0 && errno != EINTR) break;
    }
    client_close(c);
    return E_AGAIN;
}
