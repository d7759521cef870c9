/* conn_tls.c: a client connection's TLS handshake, on its worker's thread. */
#include "server/conn.h"

#include "base/log.h"
#include "server/listen.h"

#include <errno.h>

static void refuse_stranger(struct conn *c)
{
    buf_append_cstr(&c->out, LISTEN_DENIED);
    c->close_after_reply = true;
    atomic_fetch_add(&c->worker->node->stats.connections_rejected, 1);
    conn_wants_write(c);
}

static bool handshake(struct conn *c)
{
    struct worker *w = c->worker;
    if (++w->handshakes > TLS_HANDSHAKES_A_TURN) return false; /* the socket stays ready: in the next turn */
    enum status st = tls_handshake(c->tls);
    /* A handshake takes about a millisecond; who wants the server at rest shall not wait for all that have come. */
    if (gate_wanted(w->gate)) {
        worker_run_staged(w);
        worker_leave_gate(w);
        worker_enter_gate(w);
    }
    if (st == OK) {
        loop_set(w->loop, &c->src, NET_READ);
        if (listen_is_protected_from(w->node, c->src.fd)) refuse_stranger(c);
        return true;
    }
    if (st == E_AGAIN) {
        loop_set(w->loop, &c->src, tls_events(c->tls, 0));
        return false;
    }
    log_warning("Error accepting a client connection: %s (addr=%s)",
                *tls_error(c->tls) ? tls_error(c->tls) : strerror(errno), c->peer);
    conn_destroy(c);
    return false;
}

bool conn_tls_ready(struct conn *c, int *events)
{
    if (!tls_established(c->tls)) {
        if (!handshake(c)) return false;
        *events = c->close_after_reply ? 0 : NET_READ; /* the first request may have come with the handshake's end */
        return true;
    }
    *events = tls_ready(c->tls, *events);
    return true;
}

bool conn_tls_overdue(const struct conn *c)
{
    return !tls_established(c->tls) && c->worker->now_ms - c->created_ms > TLS_HANDSHAKE_MS;
}
