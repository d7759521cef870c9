/* tls.h: TLS on a connected socket, with OpenSSL: contexts that can be replaced while sessions run, sessions that never
 * block, and the two functions through which everybody reads and writes a connection, be it plain or TLS.
 *
 * A `struct tls` holds the contexts in force; sessions made before they are replaced keep theirs.  A session may be
 * used by any thread, and by a reading and a writing one at the same time; who closes it is the last user.  It borrows
 * its descriptor.
 *
 * Renegotiation and compression are off.  Peers are checked against the certificate authorities; names are not
 * compared, as in redis-server. */
#ifndef COVEY_NET_TLS_H
#define COVEY_NET_TLS_H

#include "net/net.h"

enum {
    TLS_HANDSHAKE_MS = 10000, /* how long anybody may take to shake hands */
    TLS_HANDSHAKES_A_TURN =
        4, /* a step may take a millisecond: more of them would keep a loop's other clients waiting */
};

enum tls_auth { TLS_AUTH_NO, TLS_AUTH_YES, TLS_AUTH_OPTIONAL };

/* "" or NULL: not set. */
struct tls_config {
    const char *cert_file, *key_file, *key_pass;
    const char *client_cert_file, *client_key_file, *client_key_pass; /* of outgoing connections; else the above */
    const char *dh_params_file, *ca_file, *ca_dir;
    const char *protocols; /* words TLSv1, TLSv1.1, TLSv1.2, TLSv1.3; default: the last two */
    const char *ciphers, *ciphersuites;
    bool prefer_server_ciphers, session_caching;
    int64_t cache_size, cache_timeout_s;
    enum tls_auth auth_clients;
    bool needs_ca;      /* beyond what auth_clients says */
    bool only_connects; /* nobody is accepted: no certificate is needed, if the other side asks for none */
};

struct tls;
struct tls_contexts;
struct tls_session;

struct tls *tls_create(void);
void tls_destroy(struct tls *t); /* sessions have ended */
/* Reads all files.  NULL: *error gets a line for the log.  Any thread. */
MUST_USE struct tls_contexts *tls_contexts_create(const struct tls_config *config, struct buf *error);
void tls_contexts_destroy(struct tls_contexts *c);
/* New sessions are made with these from now on; takes them.  Any thread. */
void tls_install(struct tls *t, struct tls_contexts *c);
bool tls_is_configured(struct tls *t);

/* A session on a connected, non-blocking socket; NULL: nothing is configured, or memory is out.
 * always_auth: the other side needs a certificate whatever auth_clients says (the cluster bus). */
MUST_USE struct tls_session *tls_accept(struct tls *t, int fd, bool always_auth);
MUST_USE struct tls_session *tls_connect(struct tls *t, int fd);
/* Says good-bye if it can be said without waiting, and frees; NULL is fine.  The descriptor stays open. */
void tls_close(struct tls_session *s);

/* One step of the handshake, done by sessions of both kinds before the first read or write.  OK: it is over.  E_AGAIN:
 * wait for tls_events().  E_IO: it failed; tls_error() says why. */
MUST_USE enum status tls_handshake(struct tls_session *s);
bool tls_established(const struct tls_session *s);
/* The events to wait for: those that the user wants, and those that the protocol needs now. */
int tls_events(const struct tls_session *s, int wanted);
/* What to try when these events are ready: reading may need a writable socket, and the reverse. */
int tls_ready(const struct tls_session *s, int events);
/* The last read stopped for lack of room: more is there, and the socket will not say so. */
bool tls_has_more(const struct tls_session *s);
const char *tls_error(const struct tls_session *s); /* of the last E_IO; "" when it was the system's */

/* As net_read() and net_write(). */
MUST_USE enum status tls_read(struct tls_session *s, struct buf *b, size_t max, size_t *got);
MUST_USE enum status tls_write(struct tls_session *s, const void *p, size_t n, size_t *put);

/* ---- plain or TLS: s is NULL for plain ---- */

MUST_USE static inline enum status stream_read(int fd, struct tls_session *s, struct buf *b, size_t max, size_t *got)
{
    return s ? tls_read(s, b, max, got) : net_read(fd, b, max, got);
}

MUST_USE static inline enum status stream_write(int fd, struct tls_session *s, const void *p, size_t n, size_t *put)
{
    return s ? tls_write(s, p, n, put) : net_write(fd, p, n, put);
}

/* ---- for threads that may wait ---- */

/* poll() on one descriptor until a monotonic time, with what TLS needs besides (s may be NULL).  OK: ready.  E_AGAIN:
 * the time is over (errno ETIMEDOUT).  E_IO. */
MUST_USE enum status stream_wait(int fd, const struct tls_session *s, int events, int64_t deadline_ms);
/* The whole handshake of an outgoing connection; NULL: errno, and *error gets a line for people. */
MUST_USE struct tls_session *tls_connect_wait(struct tls *t, int fd, int64_t deadline_ms, struct buf *error);

#endif
