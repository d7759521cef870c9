/* client.c: connections of clients: the PROXY header and the handshake, input, the queue that keeps replies in order,
 * output. */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "proxy/front/header.h"
#include "proxy/front/internal.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READ_LEAST = 64 * 1024,
    OUT_KEEP = 64 * 1024,
    HEADER_PIECE = 2048,
};

static void ready(struct loop_source *src, int events);

/* ---- coming and going ---- */

/* It is a client from here on. */
static void settle(struct front_client *c)
{
    c->is_strange = false;
    list_remove(&c->link);
    front_policy_begin(c);
    list_push_back(&c->worker->clients, &c->link);
    c->backend->opened(c);
}

void front_client_create(struct front_worker *w, struct front_listener *l, void *target, int fd)
{
    struct front_client *c = l->backend->create(target);
    c->src = (struct loop_source){.fd = fd, .ready = ready};
    c->worker = w;
    c->listener = l;
    c->backend = l->backend;
    c->id = w->next_client_id;
    w->next_client_id += (uint64_t)w->front->worker_count;
    c->created_ms = clock_wall_ms();
    c->last_ms = w->now_ms;
    c->unread_limit = w->config->output_limit;
    c->is_strange = true;
    if (!l->is_unix) {
        net_set_nodelay(fd);
        net_set_keepalive(fd, (int)w->config->keepalive_s);
    }
    net_peer_address(fd, c->peer);
    list_init(&c->dirty);
    list_init(&c->resume);
    list_init(&c->policy.delayed);
    list_push_back(&w->strangers, &c->link);
    front_count(&w->stats.clients, 1);
    c->awaits_header = atomic_load(&l->accept_proxy) && header_is_expected(w->config, fd);
    c->strange_until = w->now_ms + (c->awaits_header ? w->config->header_timeout_ms : TLS_HANDSHAKE_MS);
    bool good = loop_add(w->loop, &c->src, NET_READ) == OK;
    if (good && l->is_tls && !c->awaits_header) good = (c->tls = tls_accept(w->front->tls, fd, false)) != NULL;
    if (!good)
        front_client_close(c);
    else if (!c->awaits_header && !l->is_tls)
        settle(c);
}

void front_client_close(struct front_client *c)
{
    struct front_worker *w = c->worker;
    struct front_listener *l = c->listener;
    int fd = c->src.fd;
    loop_remove(w->loop, &c->src);
    tls_close(c->tls);
    close(fd);
    c->backend->closed(c);
    front_policy_end(c);
    list_remove(&c->link);
    list_remove(&c->dirty);
    list_remove(&c->resume);
    buf_deinit(&c->in);
    buf_deinit(&c->out);
    mem_free(c);
    front_count(&w->stats.clients, -1);
    atomic_fetch_sub(&l->clients, 1);
    atomic_fetch_sub(&w->front->clients, 1);
    atomic_fetch_sub(&w->given, 1);
    front_listener_release(l);
}

void front_wants_write(struct front_client *c)
{
    if (list_empty(&c->dirty)) list_push_back(&c->worker->dirty, &c->dirty);
}

void front_wants_resume(struct front_client *c)
{
    if (list_empty(&c->resume)) list_push_back(&c->worker->resumable, &c->resume);
}

/* ---- the queue ---- */

void front_enqueue(struct front_client *c, struct front_reply *r)
{
    if (!c->first)
        c->first = r;
    else
        c->last->next = r;
    r->next = NULL;
    c->last = r;
    c->queued++;
}

void front_drain(struct front_client *c)
{
    while (c->first && c->first->done) {
        struct front_reply *r = c->first;
        c->first = r->next;
        c->queued--;
        if (r->bytes.n) buf_append_bytes(&c->out, buf_bytes(&r->bytes));
        c->backend->release(c, r);
    }
    front_wants_write(c);
    if (c->input_waits && !front_stalled(c)) front_wants_resume(c);
}

/* ---- input ---- */

bool front_stalled(const struct front_client *c)
{
    return c->close_after_reply || c->close_asap || c->queued >= FRONT_QUEUE_MAX || front_is_delayed(c) ||
           (int64_t)(c->out.n - c->out_pos) > c->unread_limit || c->backend->stalled(c);
}

static bool awaits_end(const struct front_client *c)
{
    return !c->close_after_reply && c->backend->awaits_end(c);
}

static bool wants_read(const struct front_client *c)
{
    return !front_stalled(c) || (awaits_end(c) && c->in.n < READ_LEAST);
}

static void watch_events(struct front_client *c)
{
    bool more = c->out_pos < c->out.n, reads = wants_read(c);
    int events = (reads ? NET_READ : 0) | (more ? NET_WRITE : 0);
    loop_set(c->worker->loop, &c->src, c->tls ? tls_events(c->tls, events) : events);
    if (reads && c->tls && tls_has_more(c->tls)) loop_again(c->worker->loop, &c->src);
}

static bool is_over_limit(struct front_client *c)
{
    if ((int64_t)c->in.n <= c->worker->config->query_limit) return false;
    log_warning("Closing client %s that reached the query buffer limit", c->peer);
    front_count(&c->worker->stats.query_limit_closed, 1);
    return true;
}

/* Goes through what is in c->in. */
static void take_kept(struct front_client *c)
{
    struct buf own = c->in;
    c->in = (struct buf){0};
    size_t used = c->backend->take(c, buf_bytes(&own));
    if (used < own.n) {
        buf_drop_front(&own, used);
        c->in = own;
    } else {
        buf_deinit(&own);
    }
}

static void input_ended(struct front_client *c, enum status why)
{
    if (c->backend->ended) c->backend->ended(c, why);
    bool owed = c->first || c->out_pos < c->out.n;
    if (why == E_CLOSED && owed && !awaits_end(c))
        c->close_after_reply = true; /* it may still read what it has asked for */
    else
        c->close_asap = true;
}

static void read_some(struct front_client *c)
{
    struct front_worker *w = c->worker;
    bool shared = c->in.n == 0;
    struct buf *in = shared ? &w->in : &c->in;
    size_t want = shared ? FRONT_READ_BUFFER : c->need, got;
    if (want < READ_LEAST) want = READ_LEAST;
    if (want > FRONT_READ_MAX) want = FRONT_READ_MAX;
    if (!shared && buf_try_reserve(in, want) != OK) {
        c->close_asap = true;
        return;
    }
    enum status st = stream_read(c->src.fd, c->tls, in, want, &got);
    if (st == E_AGAIN) return;
    if (st != OK) {
        input_ended(c, st);
        return;
    }
    front_count(&w->stats.received, (int64_t)got);
    c->last_ms = w->now_ms;
    if (is_over_limit(c)) {
        c->close_asap = true;
        return;
    }
    if (!shared) {
        take_kept(c);
    } else {
        size_t used = c->backend->take(c, buf_bytes(in));
        if (used < in->n) buf_append(&c->in, in->p + used, in->n - used);
        in->n = 0;
    }
    if (c->tls && tls_has_more(c->tls)) loop_again(w->loop, &c->src);
}

void front_client_resume(struct front_client *c)
{
    if (c->input_waits && !front_stalled(c)) take_kept(c);
    front_wants_write(c);
}

/* ---- output ---- */

bool front_is_idle(const struct front_client *c)
{
    return !c->first && c->out_pos == c->out.n && c->in.n == 0 && !c->backend->engaged(c);
}

static void write_some(struct front_client *c)
{
    while (c->out_pos < c->out.n && !c->close_asap) {
        size_t put;
        enum status st = stream_write(c->src.fd, c->tls, c->out.p + c->out_pos, c->out.n - c->out_pos, &put);
        if (st == E_AGAIN) return;
        if (st != OK) {
            if (c->backend->ended) c->backend->ended(c, E_IO);
            c->close_asap = true;
            return;
        }
        c->out_pos += put;
        c->sent += put;
        front_count(&c->worker->stats.sent, (int64_t)put);
        front_charge(c, put);
    }
}

void front_client_flush(struct front_client *c)
{
    if (!c->is_strange) write_some(c);
    bool all = c->out_pos == c->out.n;
    if (!all && !c->close_asap && front_output_over(c)) c->close_asap = true;
    bool leaves = c->worker->leaving == LEAVE_WHEN_IDLE && front_is_idle(c) && !c->is_strange;
    if (c->close_asap || (c->close_after_reply && all && !c->first) || leaves) {
        front_client_close(c);
        return;
    }
    if (all) {
        c->soft_since_ms = 0;
        c->unread_limit = c->worker->config->output_limit;
        c->out.n = c->out_pos = 0;
        if (c->out.cap > OUT_KEEP) buf_deinit(&c->out);
    } else if (c->out_pos > c->out.n / 2 && c->out_pos > OUT_KEEP) {
        buf_drop_front(&c->out, c->out_pos);
        c->out_pos = 0;
    }
    if (c->is_strange) return;
    watch_events(c);
    if (c->input_waits && !front_stalled(c)) front_wants_resume(c);
}

/* ---- strangers ---- */

static void refuse_stranger(struct front_client *c, const char *what, const char *why)
{
    log_warning("A client from %s is refused: %s: %s", c->peer, what, why);
    front_client_close(c);
}

/* What the header says about the client. */
static void introduce(struct front_client *c, const struct header *h)
{
    c->awaits_header = false;
    buf_deinit(&c->in);
    if (*h->source) snprintf(c->peer, sizeof c->peer, "%s", h->source);
}

/* Takes no byte behind the header: it may be TLS's.  False: not yet, or the client is gone. */
static bool read_header(struct front_client *c)
{
    char piece[HEADER_PIECE];
    struct header h;
    size_t had = c->in.n;
    ssize_t n = recv(c->src.fd, piece, sizeof piece, MSG_PEEK);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (n <= 0) { /* balancers look whether the port is open */
        log_verbose("%s closed the connection before its PROXY header was there", c->peer);
        front_client_close(c);
        return false;
    }
    buf_append(&c->in, piece, (size_t)n);
    enum status st = header_parse(buf_bytes(&c->in), &h);
    if (st == E_CORRUPT) {
        refuse_stranger(c, "PROXY header", h.error);
        return false;
    }
    size_t size = st == OK ? h.size - had : (size_t)n;
    if (recv(c->src.fd, piece, size, 0) != (ssize_t)size) {
        refuse_stranger(c, "PROXY header", "cannot be read");
        return false;
    }
    if (st != OK) return false;
    introduce(c, &h);
    if (!c->listener->is_tls) {
        settle(c);
        return true;
    }
    c->strange_until = c->worker->now_ms + TLS_HANDSHAKE_MS;
    c->tls = tls_accept(c->worker->front->tls, c->src.fd, false);
    if (c->tls) return true;
    front_client_close(c);
    return false;
}

/* False: it is not over yet, or the client is gone. */
static bool shake_hands(struct front_client *c)
{
    struct front_worker *w = c->worker;
    if (++w->handshakes > TLS_HANDSHAKES_A_TURN) return false; /* the socket stays ready: in the next turn */
    enum status st = tls_handshake(c->tls);
    if (st == OK) {
        settle(c);
        return true;
    }
    if (st == E_AGAIN)
        loop_set(w->loop, &c->src, tls_events(c->tls, 0));
    else
        refuse_stranger(c, "TLS", *tls_error(c->tls) ? tls_error(c->tls) : strerror(errno));
    return false;
}

/* False: there is nothing to do, or the client is gone. */
static bool is_known(struct front_client *c, int *events)
{
    if (c->awaits_header && !read_header(c)) return false;
    if (!c->tls) return true;
    if (tls_established(c->tls)) {
        *events = tls_ready(c->tls, *events);
        return true;
    }
    *events = NET_READ; /* the first request may have come with the handshake's end */
    return shake_hands(c);
}

void front_clients_tick(struct front_worker *w)
{
    list_each(it, &w->strangers)
    {
        struct front_client *c = container_of(it, struct front_client, link);
        if (w->now_ms > c->strange_until)
            refuse_stranger(c, c->awaits_header ? "PROXY header" : "TLS", "it was not there in time");
    }
}

static void ready(struct loop_source *src, int events)
{
    struct front_client *c = container_of(src, struct front_client, src);
    int reported = events;
    if ((c->awaits_header || c->tls) && !is_known(c, &events)) return;
    if (events & NET_READ) {
        if (wants_read(c))
            read_some(c);
        else if (reported & NET_READ && !(c->src.events & NET_READ))
            c->close_asap = true; /* reported although nobody asked for it: the connection is gone */
    }
    if (c->close_asap || c->close_after_reply || front_stalled(c) || events & NET_WRITE || c->tls) front_wants_write(c);
}

void front_clients_idle_tick(struct front_worker *w)
{
    int64_t since = w->now_ms - w->config->idle_timeout_s * 1000;
    if (w->config->idle_timeout_s == 0) return;
    list_each(it, &w->clients)
    {
        struct front_client *c = container_of(it, struct front_client, link);
        bool listens = c->backend->subscribed && c->backend->subscribed(c);
        if (c->last_ms > since || c->first || listens || c->close_asap) continue;
        log_verbose("Closing idle client %s", c->peer);
        c->close_asap = true;
        front_wants_write(c);
    }
}

void front_clients_leave(struct front_worker *w)
{
    while (!list_empty(&w->strangers)) front_client_close(container_of(w->strangers.next, struct front_client, link));
    list_each(it, &w->clients)
    {
        struct front_client *c = container_of(it, struct front_client, link);
        if (front_is_idle(c) && wants_read(c)) read_some(c);
        front_wants_write(c);
    }
}
