/* tls_session.c: one connection's TLS. */
#include "net/tls_internal.h"

#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <openssl/err.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

enum { RECORD = 16 * 1024 };

struct tls_session {
    pthread_mutex_t mu; /* a leaf; OpenSSL's object is for one thread at a time */
    SSL *ssl;           /* under mu */
    _Atomic bool established;
    _Atomic bool broken;                     /* nothing more may be said on it */
    _Atomic bool more;                       /* see tls_has_more() */
    _Atomic uint8_t read_wants, write_wants; /* NET_READ, NET_WRITE: what a read, a write waits for besides its own */
    char error[160];                         /* under mu while it is used; read after a failure */
};

static struct tls_session *session(SSL *ssl, int fd)
{
    if (!ssl) return NULL;
    struct tls_session *s = mem_calloc(1, sizeof *s);
    pthread_mutex_init(&s->mu, NULL);
    s->ssl = ssl;
    if (SSL_set_fd(ssl, fd) == 1) return s;
    tls_close(s);
    return NULL;
}

struct tls_session *tls_accept(struct tls *t, int fd, bool always_auth)
{
    pthread_mutex_lock(&t->mu);
    SSL *ssl = t->contexts ? SSL_new(t->contexts->server) : NULL;
    enum tls_auth auth = always_auth ? TLS_AUTH_YES : t->contexts ? t->contexts->auth_clients : TLS_AUTH_YES;
    pthread_mutex_unlock(&t->mu);
    if (!ssl) return NULL;
    if (auth == TLS_AUTH_NO) SSL_set_verify(ssl, SSL_VERIFY_NONE, NULL);
    if (auth == TLS_AUTH_OPTIONAL) SSL_set_verify(ssl, SSL_VERIFY_PEER, NULL);
    SSL_set_accept_state(ssl);
    return session(ssl, fd);
}

struct tls_session *tls_connect(struct tls *t, int fd)
{
    pthread_mutex_lock(&t->mu);
    SSL *ssl = t->contexts ? SSL_new(t->contexts->client) : NULL;
    pthread_mutex_unlock(&t->mu);
    if (!ssl) return NULL;
    SSL_set_connect_state(ssl);
    return session(ssl, fd);
}

void tls_close(struct tls_session *s)
{
    if (!s) return;
    if (atomic_load(&s->established) && !atomic_load(&s->broken)) {
        ERR_clear_error();
        SSL_shutdown(s->ssl); /* sends close_notify; the other side's is not waited for */
        ERR_clear_error();
    }
    SSL_free(s->ssl);
    pthread_mutex_destroy(&s->mu);
    mem_free(s);
}

/* What became of an operation that did not succeed; under mu. *wants: what it waits for. */
static enum status failed(struct tls_session *s, int result, _Atomic uint8_t *wants)
{
    int system = errno;
    atomic_store_explicit(wants, 0, memory_order_relaxed);
    switch (SSL_get_error(s->ssl, result)) {
    case SSL_ERROR_WANT_READ: atomic_store_explicit(wants, NET_READ, memory_order_relaxed); return E_AGAIN;
    case SSL_ERROR_WANT_WRITE: atomic_store_explicit(wants, NET_WRITE, memory_order_relaxed); return E_AGAIN;
    case SSL_ERROR_ZERO_RETURN: return E_CLOSED;
    case SSL_ERROR_SYSCALL:
        atomic_store(&s->broken, true);
        s->error[0] = '\0';
        errno = system ? system : ECONNRESET;
        return E_IO;
    default: break;
    }
    atomic_store(&s->broken, true);
    unsigned long e = ERR_peek_last_error();
    bool ended = ERR_GET_LIB(e) == ERR_LIB_SSL && ERR_GET_REASON(e) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
    ERR_error_string_n(e, s->error, sizeof s->error);
    ERR_clear_error();
    errno = ended ? ECONNRESET : EPROTO;
    return ended && atomic_load(&s->established) ? E_CLOSED : E_IO;
}

enum status tls_handshake(struct tls_session *s)
{
    pthread_mutex_lock(&s->mu);
    ERR_clear_error();
    errno = 0;
    int rc = SSL_do_handshake(s->ssl);
    enum status st = rc == 1 ? OK : failed(s, rc, &s->read_wants);
    if (st == E_CLOSED) st = E_IO;
    if (st == OK) {
        atomic_store_explicit(&s->read_wants, 0, memory_order_relaxed);
        atomic_store(&s->established, true);
    }
    pthread_mutex_unlock(&s->mu);
    return st;
}

bool tls_established(const struct tls_session *s)
{
    return atomic_load_explicit(&s->established, memory_order_acquire);
}

int tls_events(const struct tls_session *s, int wanted)
{
    int events = atomic_load_explicit(&s->read_wants, memory_order_relaxed) & NET_WRITE;
    events |= atomic_load_explicit(&s->write_wants, memory_order_relaxed) & NET_READ;
    if (!tls_established(s)) events |= atomic_load_explicit(&s->read_wants, memory_order_relaxed) & NET_READ;
    return wanted | events;
}

int tls_ready(const struct tls_session *s, int events)
{
    int act = events;
    if (events & NET_WRITE && atomic_load_explicit(&s->read_wants, memory_order_relaxed) & NET_WRITE) act |= NET_READ;
    if (events & NET_READ && atomic_load_explicit(&s->write_wants, memory_order_relaxed) & NET_READ) act |= NET_WRITE;
    return act;
}

bool tls_has_more(const struct tls_session *s)
{
    return atomic_load_explicit(&s->more, memory_order_relaxed);
}

const char *tls_error(const struct tls_session *s)
{
    return s->error;
}

/* A small request costs one system call: when the library has used up what it read and that was little, the loop is
 * asked for the rest. */
enum status tls_read(struct tls_session *s, struct buf *b, size_t max, size_t *got)
{
    size_t room = b->cap - b->n;
    enum status st = OK;
    bool more = true;
    *got = 0;
    if (room > max) room = max;
    pthread_mutex_lock(&s->mu);
    while (*got < room && more) {
        size_t n;
        ERR_clear_error();
        errno = 0;
        int rc = SSL_read_ex(s->ssl, b->p + b->n, room - *got, &n);
        if (rc != 1) {
            st = failed(s, rc, &s->read_wants);
            more = false;
            break;
        }
        b->n += n;
        *got += n;
        more = SSL_has_pending(s->ssl) || *got >= RECORD;
    }
    if (*got == room && more) more = SSL_has_pending(s->ssl);
    atomic_store_explicit(&s->more, more, memory_order_relaxed);
    pthread_mutex_unlock(&s->mu);
    /* Bytes first: an end or a failure is met again by the next read, which the loop brings about. */
    if (*got && st != OK) {
        if (st != E_AGAIN) atomic_store_explicit(&s->more, true, memory_order_relaxed);
        return OK;
    }
    return st;
}

enum status tls_write(struct tls_session *s, const void *p, size_t n, size_t *put)
{
    const char *from = p;
    enum status st = OK;
    *put = 0;
    pthread_mutex_lock(&s->mu);
    while (*put < n) {
        size_t w;
        ERR_clear_error();
        errno = 0;
        int rc = SSL_write_ex(s->ssl, from + *put, n - *put, &w);
        if (rc != 1) {
            st = failed(s, rc, &s->write_wants);
            break;
        }
        atomic_store_explicit(&s->write_wants, 0, memory_order_relaxed);
        *put += w;
    }
    pthread_mutex_unlock(&s->mu);
    if (*put && st == E_AGAIN) return OK;
    return st == E_CLOSED ? E_IO : st;
}

/* ---- for threads that may wait ---- */

enum status stream_wait(int fd, const struct tls_session *s, int events, int64_t deadline_ms)
{
    if (s) events = tls_events(s, events);
    short bits = (short)((events & NET_READ ? POLLIN : 0) | (events & NET_WRITE ? POLLOUT : 0));
    struct pollfd p = {.fd = fd, .events = bits};
    int n;
    do {
        int64_t left = deadline_ms - clock_mono_ms();
        n = poll(&p, 1, left <= 0 ? 0 : left < INT32_MAX ? (int)left : INT32_MAX);
    } while (n < 0 && errno == EINTR);
    if (n > 0) return OK;
    if (n == 0) errno = ETIMEDOUT;
    return n == 0 ? E_AGAIN : E_IO;
}

struct tls_session *tls_connect_wait(struct tls *t, int fd, int64_t deadline_ms, struct buf *error)
{
    struct tls_session *s = tls_connect(t, fd);
    if (!s) {
        buf_append_cstr(error, "TLS is not configured");
        errno = EPROTO;
        return NULL;
    }
    enum status st;
    while ((st = tls_handshake(s)) == E_AGAIN)
        if ((st = stream_wait(fd, s, 0, deadline_ms)) != OK) break;
    if (st == OK) return s;
    int reason = errno;
    buf_append_cstr(error, s->error[0] ? s->error : strerror(reason));
    tls_close(s);
    errno = reason;
    return NULL;
}
