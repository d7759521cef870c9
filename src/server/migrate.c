/* migrate.c: MIGRATE: keys go to another server as RESTORE commands in one pipeline, and are deleted here once it has
 * acknowledged them.
 *
 * The keys' slots stay locked all the while, so that nobody changes a key that is on its way; connections that need
 * one of them park.  The time-out bounds every single wait for the other server, as in redis-server.
 * Values are serialized one after the other and leave in pieces, so that the memory needed is that of the largest. */
#include "server/migrate.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/number.h"
#include "persist/persist.h"
#include "server/conn.h"
#include "server/listen.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    CHUNK = 64 * 1024,
    READ_ROOM = 4096,
    LINE_MAX_BYTES = 64 * 1024, /* of a reply; those that are expected are short */
    CACHED_MAX = 64,
    IDLE_MS = 10000,
    TIMEOUT_DEFAULT_MS = 1000,
};

/* ---- connections ---- */

struct target {
    struct target *next; /* in the cache */
    int fd;
    struct tls_session *tls; /* NULL: plain */
    char *host;
    int port;
    int last_db; /* -1: not known */
    int64_t used_ms;
    struct buf in;
    size_t in_pos;
};

/* Open connections nobody uses now, the last used first. */
struct migrate_cache {
    pthread_mutex_t mu; /* order: after the slots; nothing is taken under it */
    struct target *first;
    int count;
};

static struct migrate_cache *cache_of(struct node *n)
{
    struct migrate_cache *cache = atomic_load(&n->migrate), *fresh;
    if (cache) return cache;
    fresh = mem_calloc(1, sizeof *fresh);
    pthread_mutex_init(&fresh->mu, NULL);
    if (atomic_compare_exchange_strong(&n->migrate, &cache, fresh)) return fresh;
    pthread_mutex_destroy(&fresh->mu);
    mem_free(fresh);
    return cache;
}

static void target_close(struct target *t)
{
    if (!t) return;
    tls_close(t->tls);
    close(t->fd);
    buf_deinit(&t->in);
    mem_free(t->host);
    mem_free(t);
}

static struct target *cache_take(struct migrate_cache *cache, const char *host, int port, bool tls)
{
    struct target *found = NULL;
    pthread_mutex_lock(&cache->mu);
    for (struct target **at = &cache->first; *at && !found; at = &(*at)->next) {
        if ((*at)->port != port || ((*at)->tls != NULL) != tls || strcmp((*at)->host, host) != 0) continue;
        found = *at;
        *at = found->next;
        cache->count--;
        break;
    }
    pthread_mutex_unlock(&cache->mu);
    return found;
}

static void cache_put(struct migrate_cache *cache, struct target *t)
{
    struct target *last = NULL;
    t->used_ms = clock_mono_ms();
    pthread_mutex_lock(&cache->mu);
    t->next = cache->first;
    cache->first = t;
    if (++cache->count > CACHED_MAX) {
        struct target **at = &cache->first;
        while ((*at)->next) at = &(*at)->next;
        last = *at;
        *at = NULL;
        cache->count--;
    }
    pthread_mutex_unlock(&cache->mu);
    target_close(last);
}

void migrate_close_idle(struct node *n, int64_t now_mono_ms)
{
    struct migrate_cache *cache = atomic_load(&n->migrate);
    struct target *idle = NULL;
    if (!cache) return;
    pthread_mutex_lock(&cache->mu);
    for (struct target **at = &cache->first; *at;) {
        struct target *t = *at;
        if (now_mono_ms - t->used_ms <= IDLE_MS) {
            at = &t->next;
            continue;
        }
        *at = t->next;
        cache->count--;
        t->next = idle;
        idle = t;
    }
    pthread_mutex_unlock(&cache->mu);
    while (idle) {
        struct target *t = idle;
        idle = t->next;
        target_close(t);
    }
}

/* A connection on which something came unasked, be it its end, is of no use. */
static bool still_good(const struct target *t)
{
    struct pollfd p = {.fd = t->fd, .events = POLLIN};
    return poll(&p, 1, 0) == 0;
}

static struct target *target_connect(struct tls *tls, const char *host, int port, int64_t timeout_ms)
{
    errno = EADDRNOTAVAIL;
    int fd = port > 0 && port <= 65535 ? net_connect_wait(host, port, timeout_ms) : -1;
    if (fd < 0) return NULL;
    net_set_nodelay(fd);
    struct tls_session *session = NULL;
    struct buf error = {0};
    if (tls && !(session = tls_connect_wait(tls, fd, clock_mono_ms() + timeout_ms, &error))) {
        log_warning("MIGRATE: TLS handshake with %s:%d failed: %.*s", host, port, (int)error.n, error.p);
        close(fd);
        fd = -1;
    }
    buf_deinit(&error);
    if (fd < 0) {
        errno = EPROTO;
        return NULL;
    }
    struct target *t = mem_calloc(1, sizeof *t);
    *t = (struct target){.fd = fd, .tls = session, .host = mem_strdup(host), .port = port, .last_db = -1};
    return t;
}

static struct target *target_get(struct migrate_cache *cache, struct tls *tls, const char *host, int port,
                                 int64_t timeout_ms)
{
    struct target *t = cache_take(cache, host, port, tls != NULL);
    if (t && still_good(t)) return t;
    target_close(t);
    return target_connect(tls, host, port, timeout_ms);
}

/* ---- bytes out and lines in; false: errno says why ---- */

static bool wait_for(const struct target *t, int events, int64_t deadline_ms)
{
    return stream_wait(t->fd, t->tls, events, deadline_ms) == OK;
}

static bool send_bytes(const struct target *t, struct bytes b, int64_t timeout_ms)
{
    while (b.n) {
        int64_t deadline = clock_mono_ms() + timeout_ms;
        size_t chunk = b.n < CHUNK ? b.n : CHUNK;
        for (size_t at = 0, put; at < chunk; at += put) {
            enum status st = stream_write(t->fd, t->tls, b.p + at, chunk - at, &put);
            if (st == E_IO || (st == E_AGAIN && !wait_for(t, NET_WRITE, deadline))) return false;
        }
        b = bytes_make(b.p + chunk, b.n - chunk);
    }
    return true;
}

/* The next line without its end; borrowed until the next call. */
static bool read_line(struct target *t, int64_t timeout_ms, struct bytes *line)
{
    int64_t deadline = clock_mono_ms() + timeout_ms;
    size_t searched = 0, got;
    const char *end;
    buf_drop_front(&t->in, t->in_pos);
    t->in_pos = 0;
    while (!(end = t->in.n > searched ? memchr(t->in.p + searched, '\n', t->in.n - searched) : NULL)) {
        searched = t->in.n;
        errno = EPROTO;
        if (searched > LINE_MAX_BYTES) return false;
        buf_reserve(&t->in, READ_ROOM);
        errno = ECONNRESET; /* for the end of the stream, which sets none */
        enum status st = stream_read(t->fd, t->tls, &t->in, READ_ROOM, &got);
        if (st != OK && (st != E_AGAIN || !wait_for(t, NET_READ, deadline))) return false;
    }
    size_t n = (size_t)(end - t->in.p);
    t->in_pos = n + 1;
    *line = bytes_make(t->in.p, n && t->in.p[n - 1] == '\r' ? n - 1 : n);
    return true;
}

/* ---- requests ---- */

/* Collects small arguments, lets large ones through; remembers that something failed. */
struct sender {
    const struct target *t;
    struct buf out;
    int64_t timeout_ms;
    bool failed;
};

static void sender_flush(struct sender *s)
{
    if (!s->failed && !send_bytes(s->t, buf_bytes(&s->out), s->timeout_ms)) s->failed = true;
    s->out.n = 0;
}

static void sender_arg(struct sender *s, struct bytes arg)
{
    if (arg.n < CHUNK) {
        resp_request_arg(&s->out, arg);
    } else {
        buf_printf(&s->out, "$%zu\r\n", arg.n);
        sender_flush(s);
        if (!s->failed && !send_bytes(s->t, arg, s->timeout_ms)) s->failed = true;
        buf_append_cstr(&s->out, "\r\n");
    }
    if (s->out.n >= CHUNK) sender_flush(s);
}

struct migrate {
    struct call *call;
    char *host;
    int port;
    int64_t db, timeout_ms;
    bool copy, replace;
    struct bytes user, password; /* password.p NULL: no AUTH; user.p NULL: without a user */
    size_t first_key, key_args;  /* in argv */

    struct key *keys; /* those that are there */
    bool *sent;       /* not sent: its time ran out meanwhile */
    size_t key_count;
    struct bytes *deleted; /* "DEL" and the names of acknowledged keys */
    size_t deleted_count;

    bool selects;       /* this attempt sends a SELECT */
    bool answered;      /* a reply was read: nothing is sent a second time */
    bool out_of_memory; /* a value could not be serialized */
    struct buf error;   /* the first error of the other server; n == 0: none */
};

static void send_key(struct migrate *m, struct sender *s, size_t i, struct buf *payload)
{
    struct call *c = m->call;
    const struct entry *e = store_find(c->env->store, c->db, &m->keys[i]);
    bool compress = config_bool(call_conn(c)->worker->node->config, CFG_RDBCOMPRESSION);
    int64_t ttl = 0;
    if (e && entry_has_ttl(e)) {
        ttl = entry_expire_at(e) - clock_wall_ms();
        if (ttl < 0) e = NULL;
        if (ttl == 0) ttl = 1;
    }
    m->sent[i] = e != NULL;
    if (!e) return;
    payload->n = 0;
    if (persist_dump(e, compress, payload) != OK) {
        m->out_of_memory = s->failed = true;
        return;
    }
    resp_request_begin(&s->out, m->replace ? 5 : 4);
    sender_arg(s, c->env->cluster_enabled ? BYTES("RESTORE-ASKING") : BYTES("RESTORE"));
    sender_arg(s, m->keys[i].name);
    resp_request_arg_i64(&s->out, ttl);
    sender_arg(s, buf_bytes(payload));
    if (m->replace) sender_arg(s, BYTES("REPLACE"));
}

static bool send_all(struct migrate *m, const struct target *t)
{
    struct sender s = {.t = t, .timeout_ms = m->timeout_ms};
    struct buf payload = {0};
    if (m->password.p) {
        resp_request_begin(&s.out, m->user.p ? 3 : 2);
        sender_arg(&s, BYTES("AUTH"));
        if (m->user.p) sender_arg(&s, m->user);
        sender_arg(&s, m->password);
    }
    m->selects = t->last_db < 0 || t->last_db != m->db;
    if (m->selects) {
        resp_request_begin(&s.out, 2);
        sender_arg(&s, BYTES("SELECT"));
        resp_request_arg_i64(&s.out, m->db);
    }
    for (size_t i = 0; i < m->key_count && !s.failed; i++) send_key(m, &s, i, &payload);
    sender_flush(&s);
    int reason = errno;
    buf_deinit(&payload);
    buf_deinit(&s.out);
    errno = reason;
    return !s.failed;
}

/* ---- replies ---- */

/* False: no reply came.  *ok: it was no error. */
static bool read_reply(struct migrate *m, struct target *t, bool *ok)
{
    struct bytes line;
    if (!read_line(t, m->timeout_ms, &line)) return false;
    m->answered = true;
    *ok = !(line.n && line.p[0] == '-');
    if (!*ok && m->error.n == 0) buf_append(&m->error, line.p + 1, line.n - 1);
    return true;
}

static void acknowledged(struct migrate *m, const struct key *k)
{
    if (m->copy || !call_delete(m->call, k)) return;
    call_changed(m->call, k, NOTIFY_GENERIC, "del");
    m->deleted[1 + m->deleted_count++] = k->name;
}

static bool read_all(struct migrate *m, struct target *t)
{
    bool logged_in = true, selected = true, restored;
    if (m->password.p && !read_reply(m, t, &logged_in)) return false;
    if (m->selects && !read_reply(m, t, &selected)) return false;
    for (size_t i = 0; i < m->key_count; i++) {
        if (!m->sent[i]) continue;
        if (!read_reply(m, t, &restored)) return false;
        if (logged_in && selected && restored) acknowledged(m, &m->keys[i]);
    }
    t->last_db = m->error.n ? -1 : (int)m->db;
    return true;
}

/* ---- the command ---- */

static bool parse_option(struct migrate *m, size_t *at)
{
    struct call *c = m->call;
    size_t more = c->argc - *at - 1;
    if (call_arg_is(c, *at, "copy")) {
        m->copy = true;
    } else if (call_arg_is(c, *at, "replace")) {
        m->replace = true;
    } else if (call_arg_is(c, *at, "auth") && more >= 1) {
        m->user = (struct bytes){NULL, 0};
        m->password = c->argv[++*at];
    } else if (call_arg_is(c, *at, "auth2") && more >= 2) {
        m->user = c->argv[++*at];
        m->password = c->argv[++*at];
    } else if (call_arg_is(c, *at, "keys")) {
        if (c->argv[3].n) {
            resp_error(&c->out, "ERR When using MIGRATE KEYS option, the key argument must be set to the empty string");
            return false;
        }
        m->first_key = *at + 1;
        m->key_args = more;
        *at = c->argc;
    } else {
        resp_error(&c->out, ERR_SYNTAX);
        return false;
    }
    return true;
}

static bool parse(struct migrate *m)
{
    struct call *c = m->call;
    m->first_key = 3;
    m->key_args = 1;
    for (size_t at = 6; at < c->argc; at++)
        if (!parse_option(m, &at)) return false;
    if (!call_arg_i64(c, 5, &m->timeout_ms, NULL) || !call_arg_i64(c, 4, &m->db, NULL)) return false;
    if (m->timeout_ms <= 0) m->timeout_ms = TIMEOUT_DEFAULT_MS;
    if (m->timeout_ms > INT32_MAX) m->timeout_ms = INT32_MAX;
    m->host = bytes_dup_cstr(c->argv[1]);
    char *port = bytes_dup_cstr(c->argv[2]);
    m->port = (int)strtol(port, NULL, 10);
    mem_free(port);
    return true;
}

static void find_keys(struct migrate *m)
{
    m->keys = mem_alloc((m->key_args + 1) * sizeof *m->keys);
    m->sent = mem_calloc(m->key_args + 1, sizeof *m->sent);
    m->deleted = mem_alloc((m->key_args + 1) * sizeof *m->deleted);
    m->deleted[0] = BYTES("DEL");
    for (size_t i = 0; i < m->key_args; i++) {
        struct key k = call_key(m->call, m->first_key + i);
        if (call_read(m->call, &k)) m->keys[m->key_count++] = k;
    }
}

enum outcome { MOVED_ALL, NOT_CONNECTED, NOT_WRITTEN, NOT_READ };

static enum outcome attempt(struct migrate *m, struct migrate_cache *cache)
{
    struct tls *tls = network_tls(call_conn(m->call)->worker->node, CFG_TLS_CLUSTER);
    struct target *t = target_get(cache, tls, m->host, m->port, m->timeout_ms);
    /* redis-server meets a refused connection when it writes to it. */
    if (!t) return errno == ECONNREFUSED || errno == EHOSTUNREACH ? NOT_WRITTEN : NOT_CONNECTED;
    enum outcome outcome = !send_all(m, t) ? NOT_WRITTEN : !read_all(m, t) ? NOT_READ : MOVED_ALL;
    int reason = errno;
    if (outcome == MOVED_ALL)
        cache_put(cache, t);
    else
        target_close(t);
    errno = reason;
    return outcome;
}

static void reply(struct migrate *m, enum outcome outcome)
{
    struct resp_out *out = &m->call->out;
    if (m->out_of_memory)
        resp_error(out, ERR_OOM_VALUE);
    else if (m->error.n)
        resp_errorf(out, "ERR Target instance replied with error: %.*s", (int)m->error.n, m->error.p);
    else if (outcome == NOT_CONNECTED)
        resp_error(out, "IOERR error or timeout connecting to the client");
    else if (outcome == NOT_WRITTEN)
        resp_error(out, "IOERR error or timeout writing to target instance");
    else if (outcome == NOT_READ)
        resp_error(out, "IOERR error or timeout reading to target instance");
    else
        resp_ok(out);
}

static void move_keys(struct migrate *m)
{
    struct migrate_cache *cache = cache_of(call_conn(m->call)->worker->node);
    enum outcome outcome = attempt(m, cache);
    /* A kept connection may have been closed by the other side just now: that costs one attempt. */
    bool again = (outcome == NOT_WRITTEN || outcome == NOT_READ) && errno != ETIMEDOUT;
    if (again && !m->answered && !m->out_of_memory) outcome = attempt(m, cache);
    if (m->deleted_count) call_effect(m->call, 1 + m->deleted_count, m->deleted);
    reply(m, outcome);
}

void cmd_migrate(struct call *call)
{
    struct migrate m = {.call = call};
    if (parse(&m)) {
        find_keys(&m);
        if (m.key_count)
            move_keys(&m);
        else
            resp_status(&call->out, "NOKEY");
    }
    mem_free(m.host);
    mem_free(m.keys);
    mem_free(m.sent);
    mem_free(m.deleted);
    buf_deinit(&m.error);
}
