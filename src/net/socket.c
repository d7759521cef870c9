#include "net/net.h"

#include "base/clock.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int close_keep_errno(int fd)
{
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

static int resolve(const char *host, int port, bool passive, struct sockaddr_storage *out, socklen_t *len)
{
    char service[16];
    snprintf(service, sizeof service, "%d", port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = passive ? AI_PASSIVE : 0}, *found;
    int rc = getaddrinfo(host, service, &hints, &found);
    if (rc) {
        errno = rc == EAI_SYSTEM ? errno : EADDRNOTAVAIL;
        return -1;
    }
    memcpy(out, found->ai_addr, found->ai_addrlen);
    *len = found->ai_addrlen;
    int family = found->ai_family;
    freeaddrinfo(found);
    return family;
}

static int listen_tcp(const char *host, int port, int backlog, bool beside)
{
    struct sockaddr_storage addr;
    socklen_t len;
    int family = resolve(*host && strcmp(host, "*") != 0 ? host : "0.0.0.0", port, true, &addr, &len);
    if (family < 0) return -1;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (beside) net_share_port(fd, true);
    if (bind(fd, (struct sockaddr *)&addr, len) < 0 || listen(fd, backlog) < 0) return close_keep_errno(fd);
    if (beside) net_share_port(fd, false);
    return fd;
}

int net_listen_tcp(const char *host, int port, int backlog)
{
    return listen_tcp(host, port, backlog, false);
}

int net_listen_tcp_beside(const char *host, int port, int backlog)
{
    return listen_tcp(host, port, backlog, true);
}

void net_share_port(int listener, bool on)
{
    int value = on;
    setsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &value, sizeof value);
}

void net_set_mark(int fd, unsigned mark)
{
    if (mark && setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark) < 0)
        log_warning("setsockopt(SO_MARK): %s", strerror(errno));
}

int net_listen_unix(const char *path, unsigned mode, int backlog)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof addr.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(addr.sun_path, path);
    unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    if (bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0 || listen(fd, backlog) < 0) return close_keep_errno(fd);
    if (mode) chmod(path, mode);
    return fd;
}

static int bind_source(int fd, const char *source)
{
    struct sockaddr_storage addr;
    socklen_t len;
    if (resolve(source, 0, true, &addr, &len) < 0) return -1;
    return bind(fd, (struct sockaddr *)&addr, len);
}

int net_connect(const char *host, int port, const char *source)
{
    struct sockaddr_storage addr;
    socklen_t len;
    int family = resolve(host, port, false, &addr, &len);
    if (family < 0) return -1;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    if (source && *source && bind_source(fd, source) < 0) return close_keep_errno(fd);
    if (connect(fd, (struct sockaddr *)&addr, len) < 0 && errno != EINPROGRESS) return close_keep_errno(fd);
    return fd;
}

int net_connect_error(int fd)
{
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0) return errno;
    return error;
}

int net_connect_wait(const char *host, int port, int64_t timeout_ms)
{
    int fd = net_connect(host, port, NULL);
    if (fd < 0) return -1;
    int64_t deadline = clock_mono_ms() + timeout_ms;
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    int n;
    do {
        int64_t left = deadline - clock_mono_ms();
        n = poll(&p, 1, left > 0 ? (int)left : 0);
    } while (n < 0 && errno == EINTR);
    int error = n > 0 ? net_connect_error(fd) : n == 0 ? ETIMEDOUT : errno;
    if (error == 0) return fd;
    errno = error;
    return close_keep_errno(fd);
}

int net_accept(int listener)
{
    return accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

void net_set_nodelay(int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* fails on unix sockets, which need none */
}

void net_clear_nodelay(int fd)
{
    int off = 0;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &off, sizeof off);
}

void net_set_keepalive(int fd, int interval_s)
{
    int on = interval_s > 0;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    if (!on) return;
    int probe = interval_s / 3 > 0 ? interval_s / 3 : 1, probes = 3;
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &interval_s, sizeof interval_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &probe, sizeof probe);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

void net_set_patient(int fd, bool on)
{
    /* By default the pauses double up to two minutes, and after 15 of them, about a quarter of an hour, the connection
     * is given up.  With pauses of a second that would be after 15 seconds, if no time was set. */
    enum { RTO_MAX_MS_OPTION = 44 }; /* TCP_RTO_MAX_MS, which the C library's headers may not have yet */
    int longest_ms = 1000, give_up_ms = on ? 24 * 3600 * 1000 : 0;
    if (on && setsockopt(fd, IPPROTO_TCP, RTO_MAX_MS_OPTION, &longest_ms, sizeof longest_ms) != 0) return;
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &give_up_ms, sizeof give_up_ms);
}

static void ip_of(const struct sockaddr_storage *addr, char out[NET_ADDRESS_MAX], int *port)
{
    out[0] = '\0';
    *port = 0;
    if (addr->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)addr;
        inet_ntop(AF_INET, &in->sin_addr, out, NET_ADDRESS_MAX);
        *port = ntohs(in->sin_port);
    } else if (addr->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)addr;
        inet_ntop(AF_INET6, &in6->sin6_addr, out, NET_ADDRESS_MAX);
        *port = ntohs(in6->sin6_port);
    }
}

void net_peer_ip(int fd, char out[NET_ADDRESS_MAX], int *port)
{
    struct sockaddr_storage addr = {0};
    socklen_t len = sizeof addr;
    getpeername(fd, (struct sockaddr *)&addr, &len);
    ip_of(&addr, out, port);
}

void net_local_ip(int fd, char out[NET_ADDRESS_MAX], int *port)
{
    struct sockaddr_storage addr = {0};
    socklen_t len = sizeof addr;
    getsockname(fd, (struct sockaddr *)&addr, &len);
    ip_of(&addr, out, port);
}

static void join(const char *ip, int port, int fd, char out[NET_ADDRESS_MAX])
{
    if (!*ip) {
        struct sockaddr_un un = {0};
        socklen_t len = sizeof un;
        getsockname(fd, (struct sockaddr *)&un, &len);
        snprintf(out, NET_ADDRESS_MAX, "%.108s:0", un.sun_path);
        return;
    }
    snprintf(out, NET_ADDRESS_MAX, strchr(ip, ':') ? "[%.100s]:%d" : "%.100s:%d", ip, port);
}

bool net_pair(int ends[2])
{
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0;
}

void net_peer_address(int fd, char out[NET_ADDRESS_MAX])
{
    char ip[NET_ADDRESS_MAX];
    int port;
    net_peer_ip(fd, ip, &port);
    join(ip, port, fd, out);
}

void net_local_address(int fd, char out[NET_ADDRESS_MAX])
{
    char ip[NET_ADDRESS_MAX];
    int port;
    net_local_ip(fd, ip, &port);
    join(ip, port, fd, out);
}

enum status net_read(int fd, struct buf *b, size_t max, size_t *got)
{
    size_t room = b->cap - b->n;
    if (room > max) room = max;
    ssize_t n = recv(fd, b->p + b->n, room, 0); /* not read(), which gets here through the layer of files */
    if (n > 0) {
        b->n += (size_t)n;
        *got = (size_t)n;
        return OK;
    }
    *got = 0;
    if (n == 0) return E_CLOSED;
    return errno == EAGAIN || errno == EINTR ? E_AGAIN : E_IO;
}

enum status net_write(int fd, const void *p, size_t n, size_t *put)
{
    ssize_t w = send(fd, p, n, MSG_NOSIGNAL);
    *put = w > 0 ? (size_t)w : 0;
    if (w >= 0) return OK;
    return errno == EAGAIN || errno == EINTR ? E_AGAIN : E_IO;
}
