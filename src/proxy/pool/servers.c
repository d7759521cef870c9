/* servers.c: connections to the servers of a pool, their queues, and which servers are in the ring. */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "proxy/pool/engine.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    KEEPALIVE_S = 300,
    NO_ERROR = 0,
    UNSENT_MAX = 256 * 1024 * 1024, /* bytes that wait for a server, above which requests are refused */
};

static void ready(struct loop_source *src, int events);

/* ---- the ring ---- */

/* Puts those into the ring whose time out is over. */
static bool rebuild(struct pool *p, int64_t now_ms)
{
    p->seen_changes = atomic_load(&p->health->changes);
    p->rebuild_ms = 0;
    p->live_n = 0;
    for (size_t i = 0; i < p->conf->servers_n; i++) {
        struct server_health *h = p->servers[i].health;
        int64_t retry_ms = atomic_load(&h->retry_ms);
        if (retry_ms && retry_ms <= now_ms && atomic_compare_exchange_strong(&h->retry_ms, &retry_ms, 0)) retry_ms = 0;
        p->live[i] = retry_ms == 0;
        p->live_n += p->live[i];
        if (retry_ms && (!p->rebuild_ms || retry_ms < p->rebuild_ms)) p->rebuild_ms = retry_ms;
    }
    return pool_conf_ring(p->conf, p->live, &p->ring) == OK;
}

struct pool *pool_create(struct pool_worker *w, struct generation *g, size_t number)
{
    struct pool *p = mem_calloc(1, sizeof *p);
    const struct pool_conf *conf = &g->file.pools[number];
    p->worker = w;
    p->generation = g;
    p->conf = conf;
    p->health = &g->health[number];
    p->measure = pool_measure_get(w->measures, conf->name, w->front->front->worker_count);
    p->commands = p->measure->calls.tables[w->front->id];
    atomic_fetch_add(&g->refs, 1);
    list_init(&p->clients);
    p->servers = mem_calloc(conf->servers_n, sizeof *p->servers);
    p->live = mem_calloc(conf->servers_n, sizeof *p->live);
    for (size_t i = 0; i < conf->servers_n; i++) {
        p->servers[i].pool = p;
        p->servers[i].conf = &conf->servers[i];
        p->servers[i].health = &p->health->servers[i];
        p->servers[i].measured = node_begin(w->nodes, conf->name, conf->servers[i].name, w->front->id, clock_mono_ms(),
                                            &p->servers[i].counts);
        p->servers[i].links = mem_try_alloc((size_t)conf->server_connections * sizeof(struct server_link *));
        if (!p->servers[i].links) {
            pool_destroy(p);
            return NULL;
        }
        memset(p->servers[i].links, 0, (size_t)conf->server_connections * sizeof(struct server_link *));
    }
    if (rebuild(p, 0)) return p;
    pool_destroy(p);
    return NULL;
}

static void server_ok(struct server *s)
{
    if (atomic_load_explicit(&s->health->failures, memory_order_relaxed)) atomic_store(&s->health->failures, 0);
}

static void server_failed(struct server *s)
{
    struct pool *p = s->pool;
    struct server_health *h = s->health;
    int64_t until = p->worker->now_ms + p->conf->server_retry_timeout_ms, none = 0;
    if (!p->conf->auto_eject_hosts || atomic_load(&h->retry_ms)) return;
    if (atomic_fetch_add(&h->failures, 1) + 1 < p->conf->server_failure_limit) return;
    atomic_store(&h->failures, 0);
    if (!atomic_compare_exchange_strong(&h->retry_ms, &none, until)) return; /* another worker was faster */
    atomic_store(&h->ejected_us, clock_wall_ms() * 1000);
    atomic_fetch_add(&p->health->changes, 1);
    p->stats.server_ejects++;
    log_warning("Pool %s: server %s is ejected for %d ms", p->conf->name, s->conf->address,
                p->conf->server_retry_timeout_ms);
    if (!rebuild(p, p->worker->now_ms)) log_warning("Pool %s: no memory to place keys without it", p->conf->name);
}

static bool can_place(struct pool *p)
{
    bool is_old = (p->rebuild_ms && p->worker->now_ms >= p->rebuild_ms) ||
                  p->seen_changes != atomic_load_explicit(&p->health->changes, memory_order_relaxed);
    if (is_old && !rebuild(p, p->worker->now_ms)) {
        errno = ENOMEM;
        return false;
    }
    errno = ECONNREFUSED;
    return p->live_n > 0;
}

struct server *pool_server_of(struct pool *p, struct bytes key)
{
    if (!can_place(p)) return NULL;
    uint32_t random = p->conf->distribution == POOL_RANDOM ? (uint32_t)random_u64(&p->worker->rng) : 0;
    int at = pool_conf_place(p->conf, &p->ring, key, random);
    return at < 0 ? NULL : &p->servers[at];
}

struct server *pool_any_server(struct pool *p)
{
    if (!can_place(p)) return NULL;
    size_t at = random_below(&p->worker->rng, p->conf->servers_n);
    while (!p->live[at]) at = (at + 1) % p->conf->servers_n;
    return &p->servers[at];
}

/* ---- opening and closing ---- */

static void append(struct server_link *l, struct bytes raw)
{
    buf_append_bytes(&l->out, raw);
    l->appended += raw.n;
    if (list_empty(&l->dirty)) list_push_back(&l->server->pool->worker->dirty_links, &l->dirty);
}

static void shake_hands(struct server_link *l)
{
    const struct pool_conf *conf = l->server->pool->conf;
    struct buf b = {0};
    char db[16];
    if (conf->redis_auth) resp_request_cstr(&b, 2, "AUTH", conf->redis_auth);
    if (conf->redis && conf->redis_db > 0) {
        snprintf(db, sizeof db, "%d", conf->redis_db);
        resp_request_cstr(&b, 2, "SELECT", db);
    }
    l->handshake_left = (conf->redis_auth != NULL) + (conf->redis && conf->redis_db > 0);
    if (b.n > 0) append(l, buf_bytes(&b));
    buf_deinit(&b);
}

static int connect_unix(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof addr.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(addr.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0) return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* NULL: errno says why; the failure is counted. */
static struct server_link *open_link(struct server *s, unsigned slot)
{
    const struct pool_conf *conf = s->pool->conf;
    struct loop *loop = s->pool->worker->loop;
    int fd = s->conf->port ? net_connect(s->conf->host, s->conf->port, NULL) : connect_unix(s->conf->host);
    if (fd < 0) {
        int error = errno ? errno : EHOSTUNREACH;
        s->stats.err++;
        node_has_trouble(s->measured, false, strerror(error), s->pool->worker->now_ms);
        server_failed(s);
        errno = error;
        return NULL;
    }
    net_set_nodelay(fd);
    if (conf->tcpkeepalive && s->conf->port) net_set_keepalive(fd, KEEPALIVE_S);
    struct server_link *l = mem_calloc(1, sizeof *l);
    l->src = (struct loop_source){.fd = fd, .ready = ready};
    l->server = s;
    l->slot = slot;
    l->connecting = true;
    list_init(&l->dirty);
    struct front_worker *front = s->pool->worker->front;
    if (front->config->backend_tls) l->tls = tls_connect(front->front->tls, fd);
    if ((front->config->backend_tls && !l->tls) || loop_add(loop, &l->src, NET_READ | NET_WRITE) != OK) {
        tls_close(l->tls);
        close(fd);
        mem_free(l);
        errno = ENOMEM;
        return NULL;
    }
    s->links[slot] = l;
    shake_hands(l);
    return l;
}

/* What is under way is answered with the error. */
static void close_link(struct server_link *l, int error)
{
    struct server *s = l->server;
    int fd = l->src.fd;
    loop_remove(s->pool->worker->loop, &l->src);
    tls_close(l->tls);
    close(fd);
    s->links[l->slot] = NULL;
    if (!l->connecting && s->stats.connections > 0) s->stats.connections--;
    if (!l->connecting) front_count(&s->counts->links, -1);
    list_remove(&l->dirty);
    struct message *m = l->first;
    buf_deinit(&l->out);
    buf_deinit(&l->in);
    mem_free(l);
    if (error) server_failed(s);
    while (m) {
        struct message *next = m->link_next;
        message_fail(m, error ? error : ECONNRESET);
        m = next;
    }
}

static void broken(struct server_link *l, enum status why)
{
    int error = errno;
    if (why == E_CLOSED) {
        l->server->stats.eof++;
        error = ECONNRESET;
    } else {
        l->server->stats.err++;
    }
    node_has_trouble(l->server->measured, !l->connecting, strerror(error), l->server->pool->worker->now_ms);
    log_verbose("Pool %s: connection to %s: %s", l->server->pool->conf->name, l->server->conf->address,
                strerror(error));
    close_link(l, error ? error : EIO);
}

void pool_destroy(struct pool *p)
{
    for (size_t i = 0; i < p->conf->servers_n; i++) {
        struct server *s = &p->servers[i];
        for (int k = 0; s->links && k < p->conf->server_connections; k++)
            if (s->links[k]) close_link(s->links[k], NO_ERROR);
        mem_free(s->links);
        if (s->measured) node_end(p->worker->nodes, s->measured, clock_mono_ms());
    }
    ring_deinit(&p->ring);
    mem_free(p->servers);
    mem_free(p->live);
    generation_release(p->generation);
    mem_free(p);
}

bool pool_is_idle(const struct pool *p)
{
    if (p->clients.next != &p->clients) return false;
    for (size_t i = 0; i < p->conf->servers_n; i++)
        for (int k = 0; k < p->conf->server_connections; k++) {
            const struct server_link *l = p->servers[i].links[k];
            if (l && (l->first || l->written < l->appended)) return false;
        }
    return true;
}

void pool_preconnect(struct pool *p)
{
    if (!p->conf->preconnect) return;
    for (size_t i = 0; i < p->conf->servers_n; i++)
        for (int k = 0; k < p->conf->server_connections; k++)
            if (!p->servers[i].links[k] && !open_link(&p->servers[i], (unsigned)k))
                log_warning("Pool %s: connecting to %s: %s", p->conf->name, p->servers[i].conf->address,
                            strerror(errno));
}

/* ---- sending ---- */

void server_send(struct server *s, struct message *m, struct bytes raw)
{
    struct pool *p = s->pool;
    unsigned slot = s->next_link++ % (unsigned)p->conf->server_connections;
    struct server_link *l = s->links[slot] ? s->links[slot] : open_link(s, slot);
    bool full = l && l->appended - l->written > UNSENT_MAX;
    int error = full ? ENOBUFS : l ? ENOMEM : errno;
    if (!l || full || buf_try_reserve(&l->out, raw.n) != OK) {
        p->stats.forward_error++;
        if (m) message_fail(m, error);
        return;
    }
    append(l, raw);
    s->stats.requests++;
    s->stats.request_bytes += raw.n;
    front_count(&s->counts->requests[p->worker->command], 1);
    if (!m) return;
    m->size = raw.n;
    m->sent_at = p->worker->ticks;
    m->end = l->appended;
    m->due_ms = p->conf->timeout_ms >= 0 ? p->worker->now_ms + p->conf->timeout_ms : 0;
    m->link_next = NULL;
    if (l->first)
        l->last->link_next = m;
    else
        l->first = m;
    l->last = m;
}

void pool_check_timeouts(struct pool *p)
{
    if (p->conf->timeout_ms < 0) return;
    for (size_t i = 0; i < p->conf->servers_n; i++)
        for (int k = 0; k < p->conf->server_connections; k++) {
            struct server_link *l = p->servers[i].links[k];
            if (!l || !l->first || p->worker->now_ms <= l->first->due_ms) continue;
            p->servers[i].stats.timedout++;
            close_link(l, ETIMEDOUT);
        }
}

void server_link_flush(struct server_link *l)
{
    if (l->connecting) return;
    while (l->out_pos < l->out.n) {
        size_t put;
        enum status st = stream_write(l->src.fd, l->tls, l->out.p + l->out_pos, l->out.n - l->out_pos, &put);
        if (st == E_AGAIN) break;
        if (st != OK) {
            broken(l, st);
            return;
        }
        l->out_pos += put;
        l->written += put;
    }
    bool all = l->out_pos == l->out.n;
    if (all) {
        l->out.n = l->out_pos = 0;
        if (l->out.cap > BUFFER_KEEP) buf_deinit(&l->out);
    } else if (l->out_pos > l->out.n / 2 && l->out_pos > BUFFER_KEEP) {
        buf_drop_front(&l->out, l->out_pos);
        l->out_pos = 0;
    }
    int events = NET_READ | (all ? 0 : NET_WRITE);
    loop_set(l->server->pool->worker->loop, &l->src, l->tls ? tls_events(l->tls, events) : events);
}

/* ---- receiving ---- */

static void measure_reply(struct server *s, const struct message *m, bool failed)
{
    const struct pool_worker *w = s->pool->worker;
    uint64_t us = (uint64_t)((unsigned __int128)(w->ticks - m->sent_at) * w->us_per_tick >> 32);
    histogram_add(&s->counts->latency, us);
    front_count(&s->counts->us, (int64_t)us);
    if (failed) front_count(&s->counts->failed, 1);
}

/* False: the link is gone. */
static bool receive(struct server_link *l, struct bytes reply, bool redis)
{
    struct server *s = l->server;
    if (l->handshake_left > 0) {
        l->handshake_left--;
        if (reply.p[0] != '-') return true;
        log_warning("Pool %s: server %s refuses the proxy: %.*s", s->pool->conf->name, s->conf->address,
                    (int)(reply.n - 2), reply.p);
        errno = EACCES;
        broken(l, E_IO);
        return false;
    }
    struct message *m = l->first;
    if (!m) {
        if (!redis) return true; /* an error about a request with noreply */
        log_warning("Pool %s: server %s sent a reply that nobody waits for", s->pool->conf->name, s->conf->address);
        errno = EPROTO;
        broken(l, E_IO);
        return false;
    }
    l->first = m->link_next;
    measure_reply(s, m, redis ? reply.p[0] == '-' : l->mc.kind == MC_REPLY_ERROR);
    s->stats.responses++;
    s->stats.response_bytes += reply.n;
    if (redis && reply.n > 8 && memcmp(reply.p, "-LOADING", 8) == 0)
        server_failed(s);
    else
        server_ok(s);
    message_reply(m, reply);
    return true;
}

static bool take_replies(struct server_link *l)
{
    bool redis = l->server->pool->conf->redis;
    size_t pos = 0;
    while (pos < l->in.n) {
        struct bytes rest = bytes_make(l->in.p + pos, l->in.n - pos);
        enum status st = redis ? resp_scan_reply(&l->resp, rest) : mc_scan_reply(&l->mc, rest);
        if (st == E_AGAIN) break;
        if (st != OK) {
            log_warning("Pool %s: server %s sent something that is no reply", l->server->pool->conf->name,
                        l->server->conf->address);
            errno = EPROTO;
            broken(l, E_IO);
            return false;
        }
        size_t size = redis ? l->resp.size : l->mc.size;
        pos += size;
        if (!receive(l, bytes_make(rest.p, size), redis)) return false;
    }
    buf_drop_front(&l->in, pos);
    if (l->in.n == 0 && l->in.cap > BUFFER_KEEP) buf_deinit(&l->in);
    return true;
}

static void read_replies(struct server_link *l)
{
    size_t want = l->server->pool->conf->redis ? l->resp.need : l->mc.need, got;
    if (want < READ_BYTES) want = READ_BYTES;
    if (want > READ_MAX) want = READ_MAX;
    enum status st = buf_try_reserve(&l->in, want);
    if (st == OK) st = stream_read(l->src.fd, l->tls, &l->in, want, &got);
    if (st == E_AGAIN) return;
    l->server->pool->worker->ticks = clock_ticks();
    bool more = st == OK && l->tls && tls_has_more(l->tls);
    if (st != OK)
        broken(l, st);
    else if (take_replies(l) && more)
        loop_again(l->server->pool->worker->loop, &l->src);
}

/* False: not yet, or the link is gone. */
static bool shake_hands_tls(struct server_link *l)
{
    enum status st = tls_handshake(l->tls);
    if (st == OK) return true;
    if (st == E_AGAIN) {
        loop_set(l->server->pool->worker->loop, &l->src, tls_events(l->tls, 0));
        return false;
    }
    const char *why = *tls_error(l->tls) ? tls_error(l->tls) : strerror(errno);
    log_warning("Pool %s: server %s: TLS: %s", l->server->pool->conf->name, l->server->conf->address, why);
    errno = EPROTO;
    broken(l, E_IO);
    return false;
}

static void ready(struct loop_source *src, int events)
{
    struct server_link *l = container_of(src, struct server_link, src);
    if (l->connecting) {
        int error = net_connect_error(src->fd);
        if (error) {
            errno = error;
            broken(l, E_IO);
            return;
        }
        if (l->tls && !tls_established(l->tls) && !shake_hands_tls(l)) return;
        l->connecting = false;
        l->server->stats.connections++;
        front_count(&l->server->counts->links, 1);
        node_is_up(l->server->measured);
        events |= NET_WRITE;
    } else if (l->tls) {
        events = tls_ready(l->tls, events);
    }
    if (events & NET_WRITE && list_empty(&l->dirty)) list_push_back(&l->server->pool->worker->dirty_links, &l->dirty);
    if (events & NET_READ) read_replies(l);
}
