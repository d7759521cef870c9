/* link.c: one connection to a node: requests go out in one stream, replies come back in the same order. */
#include "proxy/cluster/translate.h"
#include "proxy/cluster/worker.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/number.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    BACKOFF_FIRST_MS = 20,
    BACKOFF_MAX_MS = 1000,
    IDLE_MAX = 64, /* pinned connections kept for later, by node and protocol */
    WRITE_PIECES = 16,
    READ_MAX = 4 * 1024 * 1024,
    IN_KEEP = 64 * 1024,
    READS_A_TURN = 4,
    VERSION_FOR_MS = 60000, /* before a node that spoke RESP2 only is asked again */
};

static void ready(struct loop_source *src, int events);

/* ---- opening ---- */

static struct chunk *tail_with_room(struct link *l, size_t n)
{
    struct chunk *c = l->tail;
    if (c && c->cap - c->n >= n) return c;
    if (c && c == l->head && c->refs == 1 && l->sent == c->n && c->cap >= n) { /* all of it is done with */
        c->n = l->sent = 0;
        return c;
    }
    c = chunk_create(n > CHUNK_BYTES ? n : CHUNK_BYTES);
    if (!c) return NULL;
    if (l->tail)
        l->tail->next = c;
    else
        l->head = c;
    l->tail = c;
    return c;
}

/* The chunk now has them; NULL: no memory. */
static struct chunk *append(struct link *l, struct bytes raw)
{
    struct chunk *c = tail_with_room(l, raw.n);
    if (!c) return NULL;
    memcpy(c->p + c->n, raw.p, raw.n);
    c->n += raw.n;
    l->appended += raw.n;
    if (list_empty(&l->dirty)) list_push_back(&l->worker->dirty_links, &l->dirty);
    return c;
}

/* A word on a connection whose reply nobody waits for; it may be refused. */
static void say(struct link *l, const struct buf *b)
{
    if (append(l, buf_bytes(b))) l->handshake_left++;
}

static void say_select(struct link *l, unsigned db)
{
    struct buf b = {0};
    resp_request_begin(&b, 2);
    resp_request_arg(&b, BYTES("SELECT"));
    resp_request_arg_i64(&b, db);
    say(l, &b);
    l->db = (int)db;
    buf_deinit(&b);
}

static void shake_hands(struct link *l, unsigned db)
{
    const struct proxy_config *cfg = l->worker->config;
    struct buf b = {0};
    if (*cfg->node_password && *cfg->node_user)
        resp_request_cstr(&b, 3, "AUTH", cfg->node_user, cfg->node_password);
    else if (*cfg->node_password)
        resp_request_cstr(&b, 2, "AUTH", cfg->node_password);
    if (b.n) say(l, &b);
    b.n = 0;
    if (l->proto == 1 && !l->is_old) {
        resp_request_cstr(&b, 2, "HELLO", "3");
        say(l, &b);
        if (l->backend->version == VERSION_UNKNOWN) l->greeting = l->handshake_left;
        l->greeting_end = l->appended;
    }
    if (db) say_select(l, db);
    b.n = 0;
    if (l->is_readonly && !worker_has_one_server(l->worker)) {
        resp_request_cstr(&b, 1, "READONLY");
        say(l, &b);
    }
    buf_deinit(&b);
}

/* By which CLIENT UNBLOCK names it. */
static void ask_id(struct link *l)
{
    struct buf b = {0};
    resp_request_cstr(&b, 2, "CLIENT", "ID");
    say(l, &b);
    buf_deinit(&b);
    l->id_in = l->handshake_left;
}

static void failed_to_connect(struct backend *b, struct worker *w, bool was_connected, const char *why)
{
    node_has_trouble(b->measured, was_connected, why, w->now_ms);
    unsigned shift = b->failures < 8 ? b->failures : 8;
    int64_t wait = (int64_t)BACKOFF_FIRST_MS << shift;
    if (wait > BACKOFF_MAX_MS) wait = BACKOFF_MAX_MS;
    b->failures++;
    b->crossing = CROSSING_UNKNOWN; /* it may come back as another version */
    b->release = 0;
    evals_node_lost(b);
    b->retry_ms = w->now_ms + wait / 2 + (int64_t)random_below(&w->rng, (uint64_t)wait / 2 + 1);
    topology_refresh(w->proxy->topology);
}

static int connect_here(struct worker *w)
{
    const struct own_node *own = &w->proxy->own;
    return own->connect(own->node, (unsigned)w->id);
}

static int connect_there(const struct worker *w, const struct backend *b)
{
    int fd = net_connect(b->ip, b->port, NULL), keepalive = (int)(w->config->node_timeout_ms / 4000);
    if (fd < 0) return -1;
    net_set_nodelay(fd);
    net_set_keepalive(fd, keepalive > 1 ? keepalive : 1);
    return fd;
}

static struct link *open_link(struct worker *w, struct backend *b, uint8_t proto, unsigned db, bool readonly)
{
    if (w->now_ms < b->retry_ms || (!b->is_own && !*b->ip)) return NULL;
    bool tls = w->config->backend_tls && !b->is_own;
    int fd = b->is_own ? connect_here(w) : connect_there(w, b);
    if (fd < 0) {
        failed_to_connect(b, w, false, strerror(errno));
        return NULL;
    }
    struct link *l = mem_calloc(1, sizeof *l);
    l->src = (struct loop_source){.fd = fd, .ready = ready};
    l->worker = w;
    l->backend = b;
    l->proto = proto;
    l->is_readonly = readonly;
    if (b->version == VERSION_2_ONLY && w->now_ms > b->version_until) b->version = VERSION_UNKNOWN;
    l->is_old = proto == 1 && b->version == VERSION_2_ONLY;
    l->connecting = true;
    l->last_ms = w->now_ms;
    l->connect_until = w->now_ms + w->config->connect_timeout_ms;
    if (tls) l->tls = tls_connect(w->front->front->tls, fd);
    list_init(&l->dirty);
    list_init(&l->idle);
    list_init(&l->by_db);
    if ((tls && !l->tls) || loop_add(w->loop, &l->src, NET_READ | NET_WRITE) != OK) {
        tls_close(l->tls);
        close(fd);
        mem_free(l);
        return NULL;
    }
    list_push_back(&b->links, &l->link);
    count(&w->stats.connects, 1);
    count(&w->stats.links, 1);
    count(&b->counts->links, 1);
    shake_hands(l, db);
    return l;
}

static struct link *shared_of_database(struct worker *w, struct backend *b, uint8_t proto, unsigned which, unsigned db,
                                       bool readonly)
{
    list_each(it, &b->by_db)
    {
        struct link *l = container_of(it, struct link, by_db);
        if (l->proto == proto && l->slot == which && l->db == (int)db && l->is_readonly == readonly) return l;
    }
    struct link *l = open_link(w, b, proto, db, readonly);
    if (!l) return NULL;
    l->slot = which;
    list_push_back(&b->by_db, &l->by_db);
    return l;
}

struct link *node_link_shared(struct worker *w, struct backend *b, uint8_t proto, unsigned which, unsigned db)
{
    if (db) return shared_of_database(w, b, proto, which, db, false);
    struct link **at = &b->shared[proto][which];
    if (!*at && (*at = open_link(w, b, proto, 0, false))) (*at)->slot = which;
    return *at;
}

struct link *node_link_readonly(struct worker *w, struct backend *b, uint8_t proto, unsigned which, unsigned db)
{
    return shared_of_database(w, b, proto, which, db, true);
}

/* Would `more` be too many, with those that are kept for later? */
static bool too_many_pinned(const struct worker *w, int64_t more)
{
    return atomic_load(&w->proxy->pinned) + atomic_load(&w->proxy->pinned_idle) + more > w->config->pinned_max;
}

static bool close_an_idle_one(struct worker *w)
{
    list_each(it, &w->backends)
    {
        struct backend *b = container_of(it, struct backend, link);
        for (unsigned proto = 0; proto < 2; proto++) {
            if (list_empty(&b->idle[proto])) continue;
            node_link_close(container_of(b->idle[proto].next, struct link, idle), NULL);
            return true;
        }
    }
    return false;
}

void node_links_trim(struct worker *w)
{
    while (too_many_pinned(w, 0) && close_an_idle_one(w)) {
    }
}

struct link *node_link_pin(struct worker *w, struct backend *b, struct client *c, bool *full)
{
    uint8_t proto = c->resp == 3;
    *full = false;
    struct link *l = NULL;
    if (atomic_load(&w->proxy->pinned) >= w->config->pinned_max) {
        *full = true;
        return NULL;
    }
    if (!list_empty(&b->idle[proto])) {
        l = container_of(b->idle[proto].prev, struct link, idle);
        list_remove(&l->idle);
        atomic_fetch_sub(&w->proxy->pinned_idle, 1);
    } else {
        if (too_many_pinned(w, 1)) close_an_idle_one(w);
        l = open_link(w, b, proto, c->db, false);
        if (!l) return NULL;
        l->is_pinned = true;
        ask_id(l);
    }
    atomic_fetch_add(&w->proxy->pinned, 1);
    l->owner = c;
    if (l->db != c->db) say_select(l, c->db);
    return l;
}

void node_link_select(struct link *l, unsigned db)
{
    if (l->db != (int)db) say_select(l, db);
}

void node_link_unpin(struct link *l, bool clean)
{
    unsigned idle = 0;
    assert(list_empty(&l->idle)); /* nobody gives back what is not his */
    list_each(it, &l->backend->idle[l->proto]) idle++;
    l->owner = NULL;
    l->is_raw = false;
    if (!clean || l->first || l->in.n || idle >= IDLE_MAX || too_many_pinned(l->worker, 0)) {
        node_link_close(l, NULL);
        return;
    }
    list_push_back(&l->backend->idle[l->proto], &l->idle);
    atomic_fetch_add(&l->worker->proxy->pinned_idle, 1);
    atomic_fetch_sub(&l->worker->proxy->pinned, 1);
}

/* ---- closing ---- */

static void free_chunks(struct link *l)
{
    while (l->head) {
        struct chunk *next = l->head->next;
        l->head->next = NULL;
        chunk_release(l->head);
        l->head = next;
    }
    l->tail = NULL;
}

/* The owner of a pinned connection learns that it is gone. */
static void tell_owner(struct link *l)
{
    struct client *c = l->owner;
    if (!c || c->pinned != l) return;
    c->pinned = NULL;
    if (c->watching) c->watch_lost = true;
    if (!c->subscribed) return;
    if (!subscriber_orphaned(c)) c->base.close_asap = true;
    client_wants_write(c);
}

static void forget(struct backend *b, struct request *r)
{
    b->queued_bytes -= r->on_node;
    r->on_node = 0;
    r->link = NULL;
    r->link_next = NULL;
}

void node_link_close(struct link *l, const char *why)
{
    struct worker *w = l->worker;
    struct backend *b = l->backend;
    int fd = l->src.fd;
    loop_remove(w->loop, &l->src);
    tls_close(l->tls);
    close(fd);
    if (why) {
        log_verbose("Connection to %s:%d: %s", b->name, b->port, why);
        count(&w->stats.link_failures, 1);
        failed_to_connect(b, w, !l->connecting, why);
    }
    if (!l->is_pinned && b->shared[l->proto][l->slot] == l) b->shared[l->proto][l->slot] = NULL;
    if (l->feeds) feeds_lost(l);
    if (b->probe == l) {
        b->probe = NULL;
        b->probing = false;
    }
    if (l->is_pinned) atomic_fetch_sub(list_empty(&l->idle) ? &w->proxy->pinned : &w->proxy->pinned_idle, 1);
    count(&w->stats.links, -1);
    count(&b->counts->links, -1);
    tell_owner(l);
    list_remove(&l->link);
    list_remove(&l->idle);
    list_remove(&l->by_db);
    list_remove(&l->dirty);
    uint64_t written = l->written;
    struct request *r = l->first;
    free_chunks(l);
    buf_deinit(&l->in);
    mem_free(l);
    while (r) {
        struct request *next = r->link_next;
        forget(b, r);
        request_interrupted(w, r, written < r->end_at);
        r = next;
    }
}

/* ---- sending ---- */

static bool append_asking(struct link *l, struct request *r)
{
    static const char asking[] = "*1\r\n$6\r\nASKING\r\n";
    if (!r->asking) return true;
    r->skip_left++;
    return append(l, BYTES(asking)) != NULL;
}

/* Its reply is the next one. */
static void expect(struct link *l, struct request *r)
{
    r->end_at = l->appended;
    r->link = l;
    r->state = REQUEST_SENT;
    r->link_next = NULL;
    if (l->first)
        l->last->link_next = r;
    else {
        l->first = r;
        l->last_ms = l->worker->now_ms;
    }
    l->last = r;
}

static void ask_crossing(struct link *l)
{
    if (l->crossing || l->backend->crossing == CROSSING_NO) return;
    l->crossing = true;
    struct request *r = request_create(l->worker, NULL, NULL, 0);
    struct buf b = {0};
    r->permits = true;
    resp_request_cstr(&b, 3, "CLIENT", "CROSSSLOT", "ON");
    node_link_send(l, r, buf_bytes(&b));
    buf_deinit(&b);
}

void node_ask_crossing(struct worker *w, struct backend *b)
{
    if (b->crossing != CROSSING_UNKNOWN) return;
    struct link *l = node_link_shared(w, b, 0, 0, 0);
    if (l) ask_crossing(l);
}

void node_ask_release(struct worker *w, struct backend *b)
{
    struct link *l = b->release ? NULL : node_link_shared(w, b, 0, 0, 0);
    if (!l) return;
    struct request *r = request_create(w, NULL, NULL, 0);
    struct buf raw = {0};
    r->asks_release = true;
    resp_request_cstr(&raw, 1, "HELLO");
    node_link_send(l, r, buf_bytes(&raw));
    buf_deinit(&raw);
}

void node_link_send(struct link *l, struct request *r, struct bytes raw)
{
    if (r->asks_cross) ask_crossing(l);
    if (r->has_scripts) evals_load_ahead(l, r, raw);
    r->skip_left = r->skip;
    r->unmarked = false;
    struct chunk *c = append_asking(l, r) ? append(l, raw) : NULL;
    if (!c) {
        request_answer_error(l->worker, r, "OOM no memory to send this request");
        return;
    }
    c->refs++;
    chunk_release(r->chunk);
    r->chunk = c;
    r->offset = c->n - raw.n;
    r->size = raw.n;
    r->on_node = raw.n;
    l->backend->queued_bytes += raw.n;
    expect(l, r);
    if (r->client && r->cmd && (r->cmd->flags & (CMD_WRITE | CMD_MAY_REPLICATE) || r->cmd->id == CMD_ID_EXEC))
        wait_note_write(r->client, r->slot);
    count(&l->backend->requests, 1);
    measure_sent(l, r);
}

bool node_link_send_check(struct link *l, struct request *r, struct bytes raw)
{
    r->skip_left = 0;
    if (!append_asking(l, r) || !append(l, raw)) return false;
    expect(l, r);
    return true;
}

/* ---- is it alive? ---- */

void node_probe(struct worker *w, struct backend *b)
{
    if (b->probing) return;
    if (!b->probe && (b->probe = open_link(w, b, 0, 0, false))) b->probe->is_probe = true;
    if (!b->probe) return;
    bool tells = w->config->replica_reads != 0;
    struct bytes words = tells ? BYTES("*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n") : BYTES("*1\r\n$4\r\nPING\r\n");
    b->probed_us = clock_mono_us();
    b->probing = append(b->probe, words) != NULL;
}

int64_t node_link_silence(const struct link *l)
{
    struct tcp_info info;
    socklen_t n = sizeof info;
    if (getsockopt(l->src.fd, IPPROTO_TCP, TCP_INFO, &info, &n) < 0) return 0;
    return info.tcpi_last_ack_recv;
}

void node_link_send_raw(struct link *l, struct bytes raw)
{
    if (!append(l, raw)) node_link_close(l, "no memory");
}

/* How far may be written. */
static uint64_t write_end(const struct link *l)
{
    return l->greeting ? l->greeting_end : l->appended;
}

static void watch_events(struct link *l)
{
    bool more = l->connecting || l->written < write_end(l);
    int events = NET_READ | (more ? NET_WRITE : 0);
    loop_set(l->worker->loop, &l->src, l->tls ? tls_events(l->tls, events) : events);
}

/* Chunks that are written go; the last stays for more, unless it was made for a request larger than others. */
static void drop_written(struct link *l, size_t n)
{
    l->written += n;
    count(&l->worker->stats.sent, (int64_t)n);
    while (n) {
        size_t left = l->head->n - l->sent;
        if (n < left) {
            l->sent += n;
            return;
        }
        n -= left;
        l->sent = l->head->n;
        struct chunk *next = l->head->next;
        if (!next && l->head->cap <= CHUNK_BYTES) return;
        l->head->next = NULL;
        chunk_release(l->head);
        l->head = next;
        l->sent = 0;
        if (!next) l->tail = NULL;
    }
}

static ssize_t write_some(struct link *l)
{
    struct iovec v[WRITE_PIECES];
    int n = 0;
    size_t from = l->sent;
    if (l->greeting) return write(l->src.fd, l->head->p + from, l->greeting_end - l->written); /* in one chunk */
    for (struct chunk *c = l->head; c && n < WRITE_PIECES; c = c->next) {
        if (c->n > from) v[n++] = (struct iovec){c->p + from, c->n - from};
        from = 0;
    }
    return n == 1 ? write(l->src.fd, v[0].iov_base, v[0].iov_len) : writev(l->src.fd, v, n);
}

/* As write_some(). */
static ssize_t write_tls(struct link *l)
{
    const struct chunk *c = l->head;
    size_t from = l->sent, put;
    for (; c && c->n == from; c = c->next) from = 0;
    if (!c) return 0;
    size_t n = l->greeting ? l->greeting_end - l->written : c->n - from;
    enum status st = tls_write(l->tls, c->p + from, n, &put);
    if (st == OK) return (ssize_t)put;
    errno = st == E_AGAIN ? EAGAIN : EIO;
    return -1;
}

void node_link_flush(struct link *l)
{
    if (l->connecting) return;
    while (l->written < write_end(l)) {
        ssize_t n = l->tls ? write_tls(l) : write_some(l);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) break;
        if (n <= 0) {
            node_link_close(l, strerror(errno));
            return;
        }
        drop_written(l, (size_t)n);
    }
    watch_events(l);
}

/* ---- receiving ---- */

/* Not only servers before 6.0: HELLO may have been renamed. */
static bool knows_no_hello(struct bytes error)
{
    static const char *const texts[] = {"-ERR unknown command", "-NOPROTO", "-ERR Unknown or disabled command"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (error.n > strlen(texts[i]) && memcmp(error.p, texts[i], strlen(texts[i])) == 0) return true;
    return false;
}

void node_note_release(struct backend *b, struct bytes reply)
{
    static const char name[] = "version\r\n$";
    const char *at = memmem(reply.p, reply.n, name, sizeof name - 1), *end = reply.p + reply.n;
    if (at) at = memchr(at + sizeof name - 1, '\n', (size_t)(end - at) - (sizeof name - 1));
    if (!at) return;
    unsigned part[2] = {0, 0}, n = 0;
    for (at++; at < end && n < 2 && ((*at >= '0' && *at <= '9') || *at == '.'); at++) {
        if (*at == '.')
            n++;
        else
            part[n] = part[n] * 10 % 256 + (unsigned)(*at - '0');
    }
    b->release = part[0] << 8 | part[1];
}

/* The last of the greeting: is HELLO known? */
static bool greeted(struct link *l, struct bytes reply)
{
    struct backend *b = l->backend;
    bool knows = reply.p[0] != '-';
    if (!knows && !knows_no_hello(reply)) return false;
    if (!knows) {
        l->is_old = true;
        b->version_until = l->worker->now_ms + VERSION_FOR_MS;
        if (b->version != VERSION_2_ONLY)
            log_notice("%s:%d does not speak RESP3: replies are translated", b->name, b->port);
    }
    b->version = knows ? VERSION_3 : VERSION_2_ONLY;
    if (knows) node_note_release(b, reply);
    if (list_empty(&l->dirty)) list_push_back(&l->worker->dirty_links, &l->dirty); /* what had to wait */
    return true;
}

static bool handshake_reply(struct link *l, struct bytes reply)
{
    l->handshake_left--;
    if (l->id_in && --l->id_in == 0) {
        if (reply.p[0] != ':' || !parse_i64(bytes_make(reply.p + 1, reply.n - 3), &l->node_id)) l->node_id = 0;
        return true;
    }
    if (l->greeting && --l->greeting == 0 && greeted(l, reply)) return true;
    if (reply.p[0] != '-') return true;
    l->backend->version = VERSION_UNKNOWN;
    log_warning("%s:%d refuses the proxy: %.*s", l->backend->name, l->backend->port, (int)reply.n - 3, reply.p + 1);
    node_link_close(l, "refused");
    return false;
}

/* A pinned connection has served its purpose with this reply.  True: it is the client's no more. */
static bool give_back(struct link *l, const struct request *r, struct bytes reply)
{
    struct client *c = r->client;
    if (r->selects) l->db = -1;
    if (r->is_blocking && (!c || c->pinned != l)) { /* else it watches keys for the client as well */
        node_link_unpin(l, true);
        return true;
    }
    bool watch_failed = r->is_watching && reply.p[0] == '-';
    if (!c || c->pinned != l || !(r->is_watched || watch_failed)) return false;
    c->pinned = NULL;
    c->watching = watch_failed;
    c->watch_lost = watch_failed;
    node_link_unpin(l, r->is_watched);
    return true;
}

/* The reply as a client of RESP3 expects it, in *out. */
static struct bytes translated(const struct link *l, const struct request *r, struct bytes reply, struct buf *out)
{
    if (!l->is_old || reply.p[0] == '-' || reply.p[0] == '+' || reply.p[0] == ':' || r->checking) return reply;
    struct bytes sent = bytes_make(r->chunk->p + r->offset, r->size);
    if (r->cmd && r->cmd->id == CMD_ID_EXEC) {
        translate_transaction(sent, reply, out);
        return buf_bytes(out);
    }
    struct resp_parser p;
    struct resp_request req = {0};
    resp_parser_init(&p, INT64_MAX);
    bool ok = resp_parse_request(&p, sent, &req) == OK;
    translate_reply(ok ? r->cmd : NULL, req.argv, req.argc, reply, out);
    resp_request_deinit(&req);
    resp_parser_deinit(&p);
    return buf_bytes(out);
}

/* One whole reply.  False: the link is gone. */
static bool receive(struct link *l, struct bytes reply)
{
    if (l->is_probe) { /* whatever it says */
        l->backend->alive_ms = l->worker->now_ms;
        if (l->handshake_left) {
            l->handshake_left--;
            return true;
        }
        l->backend->probing = false;
        replica_told(l->worker, l->backend, reply);
        return true;
    }
    if (l->handshake_left) return handshake_reply(l, reply);
    struct buf other = {0};
    if (l->feeds) {
        feeds_receive(l, reply);
        return true;
    }
    if (l->is_raw) {
        struct client *c = l->owner;
        if (l->is_old) {
            translate_message(reply, &other);
            reply = buf_bytes(&other);
        }
        subscriber_receive(c, reply);
        buf_deinit(&other);
        if (c->subscribed) return true;
        subscriptions_end(c);
        c->pinned = NULL;
        node_link_unpin(l, true);
        return false;
    }
    if (reply.p[0] == '>') return true; /* nobody here has asked for it */
    struct request *r = l->first;
    if (!r) {
        node_link_close(l, "sent a reply that nobody waits for");
        return false;
    }
    if (r->skip_left) {
        r->skip_left--;
        if (reply.p[0] == '-' && r->noted == VERDICT_ANSWER) r->noted = request_judge(l->worker, r, reply);
        r->unmarked |= reply.p[0] == '-' && wait_is(r->cmd);
        return true;
    }
    struct worker *w = l->worker;
    l->first = r->link_next;
    forget(l->backend, r);
    measure_replied(l, r, reply);
    reply = r->unmarked ? wait_refusal : translated(l, r, reply, &other);
    bool gone = give_back(l, r, reply);
    request_replied(w, gone ? NULL : l, r, reply);
    buf_deinit(&other);
    return !gone;
}

/* A line or a short bulk that is there as a whole, which most replies are; 0: look closer. */
static size_t simple_reply(struct bytes in)
{
    if (in.n < 4) return 0;
    if (in.p[0] == '+' || in.p[0] == ':' || in.p[0] == '-') {
        size_t most = in.n < 64 ? in.n : 64;
        const char *cr = memchr(in.p, '\r', most - 1);
        if (!cr || cr[1] != '\n') return 0;
        for (const char *s = in.p + 1; in.p[0] == ':' && s < cr; s++)
            if (*s < '0' || *s > '9') return 0;
        return (size_t)(cr - in.p) + 2;
    }
    if (in.p[0] != '$') return 0;
    size_t length = 0, i = 1;
    for (; i < 8 && i < in.n && in.p[i] >= '0' && in.p[i] <= '9'; i++) length = length * 10 + (size_t)(in.p[i] - '0');
    size_t whole = i + 2 + length + 2;
    if (i == 1 || (in.p[1] == '0' && i > 2) || in.n < whole || in.p[i] != '\r' || in.p[i + 1] != '\n') return 0;
    return in.p[whole - 2] == '\r' && in.p[whole - 1] == '\n' ? whole : 0;
}

/* Takes all whole replies; *used: their bytes.  False: the link is gone. */
static bool take_replies(struct link *l, struct bytes in, size_t *used)
{
    size_t pos = 0;
    while (pos < in.n) {
        struct bytes rest = bytes_make(in.p + pos, in.n - pos);
        size_t size = l->parser.pos || l->parser.searched ? 0 : simple_reply(rest);
        if (size == 0) {
            enum status st = resp_scan_reply(&l->parser, rest);
            if (st == E_AGAIN) break;
            if (st != OK) {
                log_warning("%s:%d sent something that is no reply", l->backend->name, l->backend->port);
                node_link_close(l, "garbage");
                return false;
            }
            size = l->parser.size;
        }
        pos += size;
        if (!receive(l, bytes_make(rest.p, size))) return false;
    }
    *used = pos;
    return true;
}

/* True: there may be more. */
static bool read_some(struct link *l)
{
    struct worker *w = l->worker;
    struct buf *in = l->in.n ? &l->in : &w->link_in;
    size_t want = l->in.n ? l->parser.need : 0, got;
    if (want < IN_KEEP) want = IN_KEEP;
    if (want > READ_MAX) want = READ_MAX;
    if (in == &l->in && buf_try_reserve(in, want) != OK) {
        node_link_close(l, "no memory for a reply");
        return false;
    }
    enum status st = stream_read(l->src.fd, l->tls, in, in == &l->in ? want : READ_BUFFER, &got);
    if (st == E_AGAIN) {
        if (l->tls) watch_events(l);
        return false;
    }
    if (st != OK) {
        node_link_close(l, st == E_CLOSED ? "closed by the node" : strerror(errno));
        return false;
    }
    l->last_ms = w->now_ms;
    l->backend->failures = 0;
    count(&w->stats.received, (int64_t)got);
    measure_now(w);
    /* The link may go while its replies are taken; its buffer must not go with it. */
    struct buf own = l->in;
    l->in = (struct buf){0};
    bool shared = in == &w->link_in;
    size_t used = 0, had = shared ? in->n : own.n;
    bool alive = take_replies(l, bytes_make(shared ? in->p : own.p, had), &used);
    if (shared) {
        in->n = 0;
        if (alive && used < had) buf_append(&l->in, in->p + used, had - used);
    } else if (alive && used < had) {
        buf_drop_front(&own, used);
        l->in = own;
    } else {
        buf_deinit(&own);
    }
    if (!alive) return false;
    return l->tls ? tls_has_more(l->tls) : got >= IN_KEEP;
}

/* False: not yet, or the link is gone. */
static bool shake_hands_tls(struct link *l)
{
    enum status st = tls_handshake(l->tls);
    if (st == OK) return true;
    if (st == E_AGAIN) {
        loop_set(l->worker->loop, &l->src, tls_events(l->tls, 0));
        return false;
    }
    const char *why = *tls_error(l->tls) ? tls_error(l->tls) : strerror(errno);
    log_warning("%s:%d: TLS: %s", l->backend->name, l->backend->port, why);
    node_link_close(l, "no TLS");
    return false;
}

static void connected(struct link *l)
{
    int error = net_connect_error(l->src.fd);
    if (error) {
        node_link_close(l, strerror(error));
        return;
    }
    if (l->tls && !tls_established(l->tls) && !shake_hands_tls(l)) return;
    l->connecting = false;
    l->last_ms = l->worker->now_ms;
    l->backend->retry_ms = 0;
    node_is_up(l->backend->measured);
    node_link_flush(l);
}

static void ready(struct loop_source *src, int events)
{
    struct link *l = container_of(src, struct link, src);
    if (l->connecting) {
        connected(l);
        return;
    }
    if (l->tls) events = tls_ready(l->tls, events);
    if (events & NET_WRITE && l->written < l->appended && list_empty(&l->dirty))
        list_push_back(&l->worker->dirty_links, &l->dirty); /* written when the turn ends, if it is still there */
    else if (events & NET_WRITE)
        watch_events(l);
    for (int i = 0; events & NET_READ && i < READS_A_TURN; i++)
        if (!read_some(l)) return;
    if (l->tls && events & NET_READ)
        loop_again(l->worker->loop, &l->src); /* the socket will not say that there is more */
}
