/* conn.c: reading, batching and writing of one client connection. */
#include "server/conn.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cluster/cluster.h"
#include "server/acl_node.h"
#include "server/last_writes.h"
#include "server/monitor.h"
#include "server/multi.h"
#include "server/pubsub.h"
#include "server/replication.h"
#include "server/reply_gate.h"
#include "server/tracking.h"

#include <assert.h>
#include <stdio.h>
#include <unistd.h>

enum { READ_MAX = 256 * 1024, READ_ROOM = 64 * 1024, OUT_KEEP_FIRST = 64 * 1024, OUT_KEEP = 16 * 1024 };

static void count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

static void conn_ready(struct loop_source *src, int events);
static void unstage(struct conn *c);

struct conn *conn_create(struct worker *w, int fd, enum conn_kind kind)
{
    struct conn *c = mem_calloc(1, sizeof *c);
    struct config *cfg = w->node->config;
    c->src = (struct loop_source){.fd = fd, .ready = conn_ready};
    c->worker = w;
    c->is_unix = kind == CONN_UNIX || kind == CONN_BESIDE;
    c->takes_tls_ports = kind == CONN_TLS || (kind == CONN_BESIDE && config_num(cfg, CFG_PORT) == 0);
    c->id = atomic_fetch_add(&w->node->next_client_id, 1) + 1;
    c->resp = 2;
    c->min_acks = -1;
    c->created_ms = c->last_ms = w->now_ms;
    acl_greet(c);
    resp_parser_init(&c->parser, config_num(cfg, CFG_PROTO_MAX_BULK_LEN));
    list_init(&c->dirty);
    list_init(&c->waiting_link);
    if (kind == CONN_TLS) c->tls = tls_accept(w->node->tls, fd, false);
    if (!c->is_unix) {
        net_set_nodelay(fd);
        net_set_keepalive(fd, (int)config_num(cfg, CFG_TCP_KEEPALIVE));
    }
    net_peer_address(fd, c->peer);
    net_local_address(fd, c->local);
    if (kind == CONN_BESIDE) {
        snprintf(c->peer, sizeof c->peer, "proxy:%lld", (long long)config_num(cfg, CFG_PROXY_PORT));
        memcpy(c->local, c->peer, sizeof c->local);
    }
    if ((kind == CONN_TLS && !c->tls) || loop_add(w->loop, &c->src, NET_READ) != OK) {
        tls_close(c->tls);
        resp_parser_deinit(&c->parser);
        mem_free(c);
        atomic_fetch_sub(&w->conn_count, 1);
        atomic_fetch_sub(&w->node->client_count, 1);
        return NULL;
    }
    list_push_back(&w->conns, &c->link);
    conn_count_memory(c);
    conn_table_add(c);
    return c;
}

static void stop_waiting(struct conn *c)
{
    if (c->wait == WAIT_SLOT) waiting_room_forget(c->worker->node->waiting, c);
    if (c->wait == WAIT_KEYS) blocking_forget(c);
    if (c->wait == WAIT_REPLICAS) atomic_fetch_sub(&c->worker->node->blocked_count, 1);
    list_remove(&c->waiting_link);
    c->wait = WAIT_NOTHING;
}

static void conn_free(struct conn *c)
{
    struct worker *w = c->worker;
    stop_waiting(c);
    reply_gate_forget(c);
    last_writes_forget(c);
    unstage(c);
    multi_discard(c);
    watch_clear(c);
    pubsub_forget(c);
    tracking_off(c);
    monitor_end(c);
    list_remove(&c->dirty);
    list_remove(&c->link);
    conn_table_remove(c);
    atomic_fetch_sub(&w->conn_count, 1);
    atomic_fetch_sub(&w->node->client_count, 1);
    resp_parser_deinit(&c->parser);
    buf_deinit(&c->in);
    buf_deinit(&c->out);
    int64_t sum = atomic_load_explicit(&w->client_memory, memory_order_relaxed);
    atomic_store_explicit(&w->client_memory, sum - (int64_t)c->counted_memory, memory_order_relaxed);
    mem_free(c->sync);
    mem_free(c->name);
    mem_free(c->user_lib_name);
    mem_free(c->user_lib_ver);
    mem_free(c);
}

void conn_destroy(struct conn *c)
{
    if (c->wait == WAIT_SCRIPT) {
        c->close_asap = true; /* when the script is over */
        return;
    }
    int fd = c->src.fd;
    loop_remove(c->worker->loop, &c->src);
    tls_close(c->tls);
    if (fd >= 0) close(fd);
    conn_free(c);
}

/* What to wait for besides writing; TLS may need more. */
static void set_events(struct conn *c, int events)
{
    loop_set(c->worker->loop, &c->src, c->tls ? tls_events(c->tls, events) : events);
}

int conn_detach_fd(struct conn *c, struct tls_session **tls)
{
    int fd = c->src.fd;
    loop_remove(c->worker->loop, &c->src);
    *tls = c->tls;
    c->tls = NULL;
    return fd;
}

/* ---- execution ---- */

/* Whether the connection may go on with its next request. */
static bool may_run(const struct conn *c)
{
    return c->wait == WAIT_NOTHING && !c->close_after_reply && !c->close_asap && c->src.fd >= 0 &&
           !atomic_load_explicit(&c->kill, memory_order_relaxed);
}

static void protocol_error(struct conn *c)
{
    struct resp_out out = conn_out(c);
    resp_errorf(&out, "ERR %s", c->parser.error);
    log_verbose("Protocol error (%s) from client %s", c->parser.error, c->peer);
    c->close_after_reply = true;
    conn_wants_write(c);
}

/* Parses up to BATCH_MAX requests from `in`; returns how many, and how many bytes each one ends at. */
static int parse_batch(struct conn *c, struct bytes in, size_t ends[BATCH_MAX])
{
    struct worker *w = c->worker;
    size_t pos = 0;
    int n = 0;
    c->parser.unauthenticated = acl_must_log_in(c);
    while (n < BATCH_MAX && pos < in.n) {
        enum status st = resp_parse_request(&c->parser, bytes_make(in.p + pos, in.n - pos), &w->requests[n]);
        pos += w->requests[n].size;
        if (st == E_CORRUPT && n == 0) protocol_error(c);
        if (st != OK) {
            if (n == 0) ends[0] = pos;
            break;
        }
        ends[n++] = pos;
    }
    return n;
}

/* The keys of calls[0..n) are fetched from memory side by side before the first command is executed. */
static void prefetch(struct worker *w, int n)
{
    struct store *s = w->node->store;
    for (int i = 0; i < n; i++)
        for (size_t k = 0; k < w->calls[i].key_count; k++)
            store_prefetch_bucket(s, w->calls[i].db, &w->calls[i].keys[k]);
    for (int i = 0; i < n; i++)
        for (size_t k = 0; k < w->calls[i].key_count; k++)
            store_prefetch_entry(s, w->calls[i].db, &w->calls[i].keys[k]);
}

static void prepare(struct conn *c, int i, bool several)
{
    struct worker *w = c->worker;
    const struct call *call = &w->calls[i];
    dispatch_prepare(c, &w->calls[i], &w->requests[i]);
    for (size_t k = 0; several && k < call->key_count; k++) store_prefetch_slot(w->node->store, c->db, &call->keys[k]);
}

static void reset_parser(struct conn *c)
{
    resp_parser_deinit(&c->parser);
    resp_parser_init(&c->parser, config_num(c->worker->node->config, CFG_PROTO_MAX_BULK_LEN));
}

static void let_gate_pass(struct worker *w)
{
    if (!gate_wanted(w->gate)) return;
    worker_leave_gate(w);
    worker_enter_gate(w);
}

/* Asked anew for each batch: the process may have been stopped since the last one. */
static void look_at_lease(struct worker *w)
{
    if (w->node->cluster) w->may_serve = cluster_may_serve(w->node->cluster);
}

/* Executes whole requests at the front of `in`; returns the bytes that are done with. */
static size_t process(struct conn *c, struct bytes in)
{
    struct worker *w = c->worker;
    size_t done = 0;
    while (may_run(c) && done < in.n) {
        size_t ends[BATCH_MAX];
        struct bytes rest = bytes_make(in.p + done, in.n - done);
        int n = parse_batch(c, rest, ends);
        if (n == 0) return c->close_after_reply ? in.n : done + ends[0];
        for (int i = 0; i < n; i++) prepare(c, i, n > 1);
        if (n > 1) prefetch(w, n);
        look_at_lease(w);
        int i = 0;
        for (; i < n && may_run(c); i++)
            if (dispatch(c, &w->calls[i]) == DISPATCH_WAIT) break;
        if (i < n) reset_parser(c); /* what was parsed ahead is parsed again when the connection goes on */
        done += i ? ends[i - 1] : 0;
        if (i < n) return done;
        let_gate_pass(w);
    }
    return done;
}

static void lend_out_buffer(struct conn *c)
{
    struct worker *w = c->worker;
    if (!c->out.p && w->spare_out_n) c->out = w->spare_out[--w->spare_out_n];
}

/* The read buffer is for everybody, so what is left over moves to the connection. */
static void keep_rest(struct conn *c, struct bytes rest)
{
    if (rest.n == 0) return;
    if (buf_try_reserve(&c->in, rest.n) != OK)
        c->close_asap = true;
    else
        buf_append(&c->in, rest.p, rest.n);
}

void conn_process(struct conn *c)
{
    if (c->in_pos < c->in.n && may_run(c)) {
        worker_run_staged(c->worker); /* a timer or a mail wakes this connection up; the arrays are used below */
        lend_out_buffer(c);
        c->in_pos += process(c, bytes_make(c->in.p + c->in_pos, c->in.n - c->in_pos));
    }
    if (c->in_pos == c->in.n) {
        c->in_pos = c->in.n = 0;
        if (c->in.cap > READ_MAX) buf_deinit(&c->in);
    } else if (c->in_pos > c->in.n / 2) {
        buf_drop_front(&c->in, c->in_pos);
        c->in_pos = 0;
    }
    if (c->out.n > c->out_pos) conn_wants_write(c);
    conn_count_memory(c);
    if (c->close_asap) conn_destroy(c);
}

void conn_resume(struct conn *c)
{
    c->wait = WAIT_NOTHING;
    if (c->src.fd >= 0) {
        loop_set(c->worker->loop, &c->src, c->src.events | NET_READ);
        if (c->tls && tls_has_more(c->tls)) loop_again(c->worker->loop, &c->src);
    }
    conn_process(c);
}

/* ---- requests of several connections, executed as one batch ----
 *
 * A client that does not pipeline sends one request at a time, but many clients send at the same time.  Their requests
 * are collected while the turn reads, in the worker's read buffer, and executed together, so that their keys come out
 * of memory side by side as those of a pipeline do. */

/* Puts off a request that is all the connection has sent.  False: the bytes are something else, and the parser has not
 * seen them. */
static bool stage(struct conn *c, struct bytes in)
{
    struct worker *w = c->worker;
    int i = w->staged_n;
    if (!may_run(c)) return false;
    c->parser.unauthenticated = !c->authenticated;
    if (resp_parse_request(&c->parser, in, &w->requests[i]) != OK || w->requests[i].size != in.n) {
        reset_parser(c);
        return false;
    }
    prepare(c, i, true);
    w->staged[i] = (struct staged){c, in};
    w->staged_n++;
    return true;
}

static void unstage(struct conn *c)
{
    for (int i = 0; i < c->worker->staged_n; i++)
        if (c->worker->staged[i].conn == c) c->worker->staged[i].conn = NULL;
}

static bool query_buffer_full(struct conn *c);

static void run_staged(struct conn *c, int i)
{
    struct worker *w = c->worker;
    lend_out_buffer(c);
    if (!may_run(c) || dispatch(c, &w->calls[i]) == DISPATCH_WAIT) keep_rest(c, w->staged[i].in);
    if (query_buffer_full(c))
        conn_destroy(c);
    else
        conn_process(c);
}

static void process_kept(struct conn *c, void *data)
{
    (void)data;
    if (c) conn_process(c);
}

void worker_run_staged(struct worker *w)
{
    if (w->staged_n == 0) return;
    assert(!w->running_staged);
    w->running_staged = true;
    if (w->staged_n > 1) prefetch(w, w->staged_n);
    look_at_lease(w);
    for (int i = 0; i < w->staged_n; i++)
        if (w->staged[i].conn) run_staged(w->staged[i].conn, i);
    w->staged_n = 0;
    w->running_staged = false;
    let_gate_pass(w);
}

void worker_unstage_behind(struct worker *w, const struct conn *c)
{
    int i = 0;
    while (i < w->staged_n && w->staged[i].conn != c) i++;
    for (i++; i < w->staged_n; i++) {
        struct conn *other = w->staged[i].conn;
        if (!other) continue;
        keep_rest(other, w->staged[i].in);
        w->staged[i].conn = NULL;
        conn_post(conn_ref_of(other), process_kept, NULL);
    }
}

/* ---- reading ---- */

static enum status read_more(struct conn *c, struct buf *into)
{
    size_t got, want = 16 * 1024;
    if (into == &c->in) {
        /* Grow with what arrives, never with what is announced. */
        size_t have = c->in.n - c->in_pos;
        if (c->parser.need > want) want = c->parser.need < have + READ_MAX ? c->parser.need : have + READ_MAX;
        if (c->in_pos) {
            buf_drop_front(&c->in, c->in_pos);
            c->in_pos = 0;
        }
        if (buf_try_reserve(into, want) != OK) return E_NOMEM;
    }
    enum status st = stream_read(c->src.fd, c->tls, into, into == &c->in ? want : into->cap - into->n, &got);
    count(&c->worker->net_in, got);
    if (c->tls) {
        if (tls_has_more(c->tls)) loop_again(c->worker->loop, &c->src);
        set_events(c, (c->src.events & NET_READ) | (c->out.n > c->out_pos ? NET_WRITE : 0));
    }
    return st;
}

static bool query_buffer_full(struct conn *c)
{
    int64_t limit = config_num(c->worker->node->config, CFG_CLIENT_QUERY_BUFFER_LIMIT);
    if (c->in.n - c->in_pos + c->queue_bytes <= (size_t)limit) return false;
    log_warning("Closing client %s that reached max query buffer length", c->peer);
    atomic_fetch_add(&c->worker->node->stats.query_buffer_disconnects, 1);
    return true;
}

static void conn_read(struct conn *c)
{
    struct worker *w = c->worker;
    struct buf *into = c->in.n ? &c->in : &w->read_buf;
    if (w->staged_n == BATCH_MAX || w->read_buf.cap - w->read_buf.n < READ_ROOM) worker_run_staged(w);
    if (w->staged_n == 0) w->read_buf.n = 0;
    size_t begin = into->n;
    enum status st = read_more(c, into);
    if (st == E_AGAIN) return;
    if (st != OK) {
        conn_destroy(c);
        return;
    }
    c->last_ms = w->now_ms;
    if (into == &w->read_buf) {
        struct bytes in = bytes_make(into->p + begin, into->n - begin);
        if (stage(c, in)) return;
        worker_run_staged(w);
        lend_out_buffer(c);
        size_t done = process(c, in);
        keep_rest(c, bytes_make(in.p + done, in.n - done));
    }
    if (query_buffer_full(c)) {
        conn_destroy(c);
        return;
    }
    /* A waiting connection is not read: its client is slowed down by its own socket. */
    if (c->wait != WAIT_NOTHING && c->src.fd >= 0 && c->in.n > READ_MAX)
        loop_set(w->loop, &c->src, c->src.events & ~NET_READ);
    conn_process(c);
}

/* ---- writing ---- */

void conn_wants_write(struct conn *c)
{
    if (!conn_is_dirty(c)) list_push_back(&c->worker->dirty, &c->dirty);
}

static enum output_class output_class(const struct conn *c)
{
    return pubsub_active(c) ? OUTPUT_PUBSUB : OUTPUT_NORMAL;
}

static void note_over_limit(struct conn *c)
{
    log_warning("Client id=%llu addr=%s scheduled to be closed ASAP for overcoming of output buffer limits.",
                (unsigned long long)c->id, c->peer);
    atomic_fetch_add(&c->worker->node->stats.output_limit_disconnects, 1);
}

/* True when the connection holds more output than it may. */
static bool output_over_limit(struct conn *c)
{
    struct output_limit limit;
    size_t pending = c->out.n - c->out_pos;
    config_output_limit(c->worker->node->config, output_class(c), &limit);
    bool soft = limit.soft && pending > limit.soft;
    if (!soft)
        c->soft_limit_since_ms = 0;
    else if (!c->soft_limit_since_ms)
        c->soft_limit_since_ms = c->worker->now_mono_ms;
    bool over = (limit.hard && pending > limit.hard) ||
                (soft && c->worker->now_mono_ms - c->soft_limit_since_ms >= limit.soft_seconds * 1000);
    if (over) note_over_limit(c);
    return over;
}

bool conn_push_begin(struct conn *c, size_t n)
{
    struct output_limit limit;
    size_t pending = c->out.n - c->out_pos;
    if (c->src.fd < 0 || c->close_asap || c->close_after_reply) return false;
    config_output_limit(c->worker->node->config, output_class(c), &limit);
    bool over = limit.hard && pending + n > limit.hard;
    if (!over && buf_try_reserve(&c->out, n) == OK) {
        c->push_at = c->out.n;
        return true;
    }
    if (over) note_over_limit(c);
    c->close_asap = true;
    conn_wants_write(c);
    return false;
}

void conn_push_end(struct conn *c)
{
    /* Of a muted command, EXEC for instance, the pushed messages are all that leaves. */
    if (c->muted && c->push_at > c->keep_out) {
        memmove(c->out.p + c->keep_out, c->out.p + c->push_at, c->out.n - c->push_at);
        c->out.n -= c->push_at - c->keep_out;
    }
    c->keep_out = c->out.n;
    conn_wants_write(c);
}

static void give_back_out_buffer(struct conn *c)
{
    struct worker *w = c->worker;
    c->unsent_write = c->unsafe_write = false;
    c->out.n = c->out_pos = 0;
    if (w->spare_out_n < SPARE_OUT_MAX && c->out.cap <= (w->spare_out_n ? OUT_KEEP : OUT_KEEP_FIRST)) {
        w->spare_out[w->spare_out_n++] = c->out;
        c->out = (struct buf){0};
    } else {
        buf_deinit(&c->out);
    }
}

void conn_write(struct conn *c)
{
    struct worker *w = c->worker;
    if (c->src.fd < 0 || c->wait == WAIT_SCRIPT) return;
    if (c->close_asap) {
        conn_destroy(c);
        return;
    }
    size_t end = c->held ? reply_gate_end(c) : c->out.n;
    while (c->out_pos < end) {
        size_t put;
        enum status st = stream_write(c->src.fd, c->tls, c->out.p + c->out_pos, end - c->out_pos, &put);
        count(&w->net_out, put);
        c->out_pos += put;
        if (st == E_AGAIN) break;
        if (st != OK) {
            conn_destroy(c);
            return;
        }
    }
    if (c->out_pos == c->out.n) {
        give_back_out_buffer(c);
        conn_count_memory(c);
        c->soft_limit_since_ms = 0;
        set_events(c, c->src.events & ~NET_WRITE);
        if (c->close_after_reply) conn_destroy(c);
        return;
    }
    if (c->out_pos > READ_MAX && c->out_pos > c->out.n / 2) {
        buf_drop_front(&c->out, c->out_pos);
        if (c->held) reply_gate_dropped(c, c->out_pos);
        end -= c->out_pos;
        c->out_pos = 0;
    }
    conn_count_memory(c);
    if (output_over_limit(c)) {
        conn_destroy(c);
        return;
    }
    /* What is held leaves when it may, not when the socket is ready. */
    set_events(c, c->out_pos < end ? c->src.events | NET_WRITE : c->src.events & ~NET_WRITE);
}

static void conn_ready(struct loop_source *src, int events)
{
    struct conn *c = container_of(src, struct conn, src);
    if (c->wait == WAIT_SCRIPT) return;
    if (atomic_load_explicit(&c->kill, memory_order_relaxed) && !c->close_after_reply) {
        conn_destroy(c);
        return;
    }
    if (c->tls && !conn_tls_ready(c, &events)) return;
    if (events & NET_WRITE && c->out.n > c->out_pos) conn_wants_write(c);
    if (events & NET_READ) conn_read(c);
}
