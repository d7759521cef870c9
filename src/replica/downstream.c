#include "replica/replica.h"

#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/number.h"
#include "base/random.h"
#include "base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    TICK_MS = 100,
    EOF_MARK = 40,
    SLICE = 256 * 1024,
    READ_ROOM = 16 * 1024,
    JOBS_MAX = 3,
    ASK_AGAIN_MS = 400,
    HURRY_LOOK_MS = 20
};

enum sink_state {
    SINK_QUEUED,   /* waits for a full sync to begin */
    SINK_SNAPSHOT, /* its sync thread owns the socket for writing */
    SINK_WAIT_ACK, /* the snapshot was sent in the EOF form: the stream begins at the first acknowledgement */
    SINK_ONLINE,
    SINK_DEAD, /* its sync thread has to let go of it first */
};

/* One replica.  Fields are under the hub's mu, but for those of the sync thread. */
struct sink {
    struct loop_source src; /* the hub's thread */
    struct list link;
    struct hub *hub;
    struct hub_request req;
    enum sink_state state;
    bool syncing;    /* a sync thread runs for it */
    bool want_write; /* NET_WRITE is asked for */
    bool early_ack;  /* it has loaded the snapshot before our thread knew that all of it was sent */
    struct change_reader reader;
    uint64_t ack_offset, synced_offset;                                 /* applied; on its disk, as it says */
    int64_t ack_ms, created_ms, soft_since_ms, newline_ms, progress_ms; /* monotonic */
    struct buf in;
    struct resp_parser parser;
    /* of the sync thread */
    struct rdb_options options;
    struct rdb_extras extras; /* a copy: a load may replace the node's while the snapshot is being sent */
    struct cut *cut;
};

struct hub {
    struct hub_host host;
    struct loop *loop;
    pthread_t thread;
    struct gate_member *gate; /* the hub's thread */
    struct loop_timer timer;
    pthread_mutex_t mu;                  /* order: after the slots, before the log's */
    struct list sinks;                   /* under mu */
    int jobs;                            /* under mu: sync threads */
    int64_t next_ping_ms, next_count_ms; /* the hub's thread */
    int64_t alone_since_ms;              /* the hub's thread: a primary without replicas since then; monotonic */
    _Atomic bool again;                  /* somebody found mu taken while there was something to send */
    _Atomic uint64_t limit_at; /* log offset where the first sink passes the hard output limit, at the latest look */
    _Atomic bool checking;     /* the mail `check` is under way */
    struct mail check;
    _Atomic int online, good, count;
    _Atomic uint64_t full_why[HUB_FULL_REASONS];
    _Atomic int timer_askers;   /* of those online: replicas that acknowledge only when asked or once a second */
    _Atomic int64_t fell_ms;    /* when `online` last fell, monotonic */
    _Atomic uint64_t sent_to;   /* every online replica was given all up to here, or its socket is full */
    _Atomic bool joined;        /* a replica has come online since, which has nothing yet */
    _Atomic bool sent_wanted;   /* host.sent is to be called when sent_to has moved */
    _Atomic int64_t asked_ms;   /* last GETACK of hub_want_acks(), monotonic */
    _Atomic bool acks_wanted;   /* hub_want_acks() was called: replies have waited here */
    _Atomic bool ask_newcomers; /* a replica has come online that nobody has asked yet */
};

struct add_mail {
    struct mail mail;
    struct hub *hub;
    struct hub_request req;
};

static void sink_ready(struct loop_source *src, int events);

/* ---- life and death of a sink (the hub's thread, under mu) ---- */

static void sink_free(struct sink *s)
{
    loop_remove(s->hub->loop, &s->src);
    tls_close(s->req.tls);
    net_set_patient(s->req.fd, false);
    close(s->req.fd);
    list_remove(&s->link);
    change_reader_close(&s->reader);
    buf_deinit(&s->in);
    resp_parser_deinit(&s->parser);
    atomic_fetch_sub(&s->hub->count, 1);
    s->hub->alone_since_ms = clock_mono_ms(); /* if there is no other; it may have come after the last tick */
    mem_free(s);
}

static void sink_offline(struct sink *s)
{
    struct hub *h = s->hub;
    atomic_store(&h->fell_ms, clock_mono_ms());
    atomic_fetch_sub(&h->online, 1);
    if (!s->req.capa_acks) atomic_fetch_sub(&h->timer_askers, 1);
    if (atomic_exchange(&h->sent_wanted, false)) h->host.sent(h->host.ctx);
}

static void sink_drop(struct sink *s, const char *why)
{
    log_warning("Connection with replica %s lost: %s", s->req.peer, why);
    if (s->state == SINK_ONLINE) sink_offline(s);
    s->state = SINK_DEAD;
    change_reader_close(&s->reader);
    if (s->syncing)
        shutdown(s->req.fd, SHUT_RDWR); /* its thread notices and lets go */
    else
        sink_free(s);
}

static void sink_send_now(struct sink *s, const char *text, size_t n)
{
    size_t put;
    /* A few bytes into an empty socket; if even that fails the connection is broken and the next read says so. */
    if (stream_write(s->req.fd, s->req.tls, text, n, &put) != OK || put != n) shutdown(s->req.fd, SHUT_RDWR);
}

static void sink_online(struct sink *s)
{
    s->state = SINK_ONLINE;
    s->ack_ms = clock_mono_ms();
    if (!s->req.capa_acks) atomic_fetch_add(&s->hub->timer_askers, 1);
    atomic_store(&s->hub->joined, true);
    atomic_fetch_add(&s->hub->online, 1);
    atomic_store(&s->hub->limit_at, 0);
    if (atomic_load(&s->hub->acks_wanted)) atomic_store(&s->hub->ask_newcomers, true);
    log_notice("Synchronization with replica %s succeeded", s->req.peer);
}

/* ---- the stream ---- */

/* Writes what is there; true when the replica has everything or its socket is full. */
static bool sink_flush(struct sink *s)
{
    for (struct bytes b; (b = change_reader_peek(&s->reader)).n;) {
        size_t put;
        enum status st = stream_write(s->req.fd, s->req.tls, b.p, b.n, &put);
        change_reader_skip(&s->reader, put);
        if (st == OK && put == b.n) continue;
        if (st == E_IO) {
            shutdown(s->req.fd, SHUT_RDWR);
            return false;
        }
        if (!s->want_write) {
            s->want_write = true;
            loop_set(s->hub->loop, &s->src, NET_READ | NET_WRITE);
        }
        return true;
    }
    if (s->want_write) {
        s->want_write = false;
        loop_set(s->hub->loop, &s->src, NET_READ);
    }
    return true;
}

static void flush_all(struct hub *h)
{
    atomic_store(&h->joined, false);
    uint64_t end = change_offset(h->host.log);
    list_each(it, &h->sinks)
    {
        struct sink *s = container_of(it, struct sink, link);
        if (s->state == SINK_ONLINE && !s->want_write) sink_flush(s);
    }
    atomic_store(&h->sent_to, end);
}

/* A log that grows fast passes the limit long before the next tick, and what a slow replica pins is memory. */
static void check_soon(struct hub *h)
{
    if (change_offset(h->host.log) <= atomic_load_explicit(&h->limit_at, memory_order_relaxed)) return;
    if (!atomic_exchange(&h->checking, true)) loop_post(h->loop, &h->check);
}

static uint64_t sent_to(const struct hub *h)
{
    return atomic_load(&h->online) ? atomic_load(&h->sent_to) : UINT64_MAX;
}

uint64_t hub_flush(struct hub *h)
{
    check_soon(h);
    if (atomic_load_explicit(&h->online, memory_order_relaxed) == 0) return UINT64_MAX;
    uint64_t sent = atomic_load(&h->sent_to);
    if (sent == change_offset(h->host.log) && !atomic_load(&h->joined)) return sent;
    do {
        atomic_store(&h->again, true);
        if (pthread_mutex_trylock(&h->mu)) return sent_to(h); /* whoever holds it sees `again` when it lets go */
        atomic_store(&h->again, false);
        flush_all(h);
        pthread_mutex_unlock(&h->mu);
        if (atomic_load(&h->sent_wanted) && atomic_exchange(&h->sent_wanted, false)) h->host.sent(h->host.ctx);
    } while (atomic_load(&h->again));
    return sent_to(h);
}

uint64_t hub_want_sent(struct hub *h)
{
    atomic_store(&h->sent_wanted, true);
    return sent_to(h);
}

static void hub_lock(struct hub *h)
{
    pthread_mutex_lock(&h->mu);
}

static void hub_unlock(struct hub *h)
{
    pthread_mutex_unlock(&h->mu);
    if (atomic_exchange(&h->again, false)) hub_flush(h);
}

/* On the hub's thread: whoever comes online while replies wait for acknowledgements is asked at once, for the writes
 * that wait may be the last ones for a while. */
static void ask_newcomers(struct hub *h)
{
    if (!atomic_load(&h->ask_newcomers) || !atomic_exchange(&h->ask_newcomers, false)) return;
    gate_enter(h->gate);
    if (change_log_active(h->host.log)) hub_ask_ack(h);
    gate_exit(h->gate);
    hub_flush(h);
}

/* ---- full sync ---- */

/* Writes everything, waiting for the socket; the sync thread.  With `left` it gives up waiting when the snapshot is
 * wanted out of the way: then so many bytes are left. */
static enum status write_or_leave(struct sink *s, const void *p, size_t n, size_t *left)
{
    const char *from = p;
    int64_t last = clock_mono_ms();
    struct hub_limits limits;
    s->hub->host.limits(s->hub->host.ctx, &limits);
    if (left) *left = 0;
    while (n) {
        size_t put;
        enum status st = stream_write(s->req.fd, s->req.tls, from, n, &put);
        if (st == E_IO) return E_IO;
        from += put;
        n -= put;
        if (put) {
            last = clock_mono_ms();
            continue;
        }
        if (left && s->hub->host.hurried(s->hub->host.ctx)) {
            *left = n;
            return OK;
        }
        if (clock_mono_ms() - last > limits.timeout_ms) {
            errno = ETIMEDOUT;
            return E_IO;
        }
        struct pollfd pfd = {.fd = s->req.fd, .events = POLLOUT};
        poll(&pfd, 1, left ? HURRY_LOOK_MS : 1000);
    }
    return OK;
}

static enum status write_all(struct sink *s, const void *p, size_t n)
{
    return write_or_leave(s, p, n, NULL);
}

/* ---- through an unlinked file: for replicas that need to know the length first, and those that are too slow ---- */

static int spool_open(struct sink *s)
{
    struct buf dir = {0};
    s->hub->host.directory(s->hub->host.ctx, &dir);
    buf_append_char(&dir, '\0');
    int fd = open(dir.p, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    buf_deinit(&dir);
    return fd;
}

static enum status spool_write(void *ctx, const void *p, size_t n)
{
    const char *from = p;
    while (n) {
        ssize_t w = write(*(int *)ctx, from, n);
        if (w < 0 && errno == EINTR) continue;
        if (w < 0) return E_IO;
        from += w;
        n -= (size_t)w;
    }
    return OK;
}

static enum status spool_send(struct sink *s, int fd, off_t size)
{
    enum status st = OK;
    char *chunk = mem_alloc(SLICE);
    for (off_t at = 0; st == OK && at < size;) {
        ssize_t got = pread(fd, chunk, SLICE, at);
        if (got <= 0)
            st = E_IO;
        else
            st = write_all(s, chunk, (size_t)got);
        at += got;
    }
    mem_free(chunk);
    return st;
}

/* To the socket, as long as the replica keeps up with what writers change meanwhile; then aside, for later. */
struct direct {
    struct sink *sink;
    int spool; /* -1: nothing was put aside */
};

static enum status direct_write(void *ctx, const void *p, size_t n)
{
    struct direct *d = ctx;
    size_t left = n;
    if (d->spool < 0) {
        enum status st = write_or_leave(d->sink, p, n, &left);
        if (st != OK || left == 0) return st;
        d->spool = spool_open(d->sink);
        if (d->spool < 0) return E_IO;
        log_notice("Replica %s reads the snapshot too slowly: the rest goes to a file first", d->sink->req.peer);
    }
    return spool_write(&d->spool, (const char *)p + (n - left), left);
}

/* A snapshot without keys. */
static enum status head_to(struct sink *s, struct rdb_sink to)
{
    store_cut_end(s->cut);
    s->cut = NULL;
    struct rdb_writer *w = rdb_writer_new(to, &s->options);
    enum status st = rdb_writer_begin(w);
    if (st == OK) st = rdb_writer_end(w);
    rdb_writer_free(w);
    return st;
}

static enum status snapshot_to(struct sink *s, struct rdb_sink to)
{
    if (s->req.no_keys) return head_to(s, to);
    struct rdb_snapshot *sn = rdb_snapshot_begin(s->hub->host.store, s->cut, to, &s->options, NULL);
    enum status st;
    while ((st = rdb_snapshot_step(sn, SLICE)) == E_AGAIN) {
    }
    rdb_snapshot_end(sn);
    s->cut = NULL;
    return st;
}

static enum status send_with_mark(struct sink *s)
{
    char head[64], mark[EOF_MARK];
    random_hex(mark, EOF_MARK);
    int n = snprintf(head, sizeof head, "$EOF:%.*s\r\n", EOF_MARK, mark);
    enum status st = write_all(s, head, (size_t)n);
    if (st != OK) {
        store_cut_end(s->cut);
        return st;
    }
    struct direct d = {s, -1};
    st = snapshot_to(s, (struct rdb_sink){&d, direct_write});
    if (d.spool >= 0) {
        if (st == OK) st = spool_send(s, d.spool, lseek(d.spool, 0, SEEK_END));
        close(d.spool);
    }
    return st == OK ? write_all(s, mark, EOF_MARK) : st;
}

static enum status send_with_length(struct sink *s)
{
    int fd = spool_open(s);
    if (fd < 0) {
        store_cut_end(s->cut);
        return E_IO;
    }
    enum status st = snapshot_to(s, (struct rdb_sink){&fd, spool_write});
    off_t size = st == OK ? lseek(fd, 0, SEEK_END) : 0;
    char head[32];
    int n = snprintf(head, sizeof head, "$%lld\r\n", (long long)size);
    if (st == OK) st = write_all(s, head, (size_t)n);
    if (st == OK) st = spool_send(s, fd, size);
    close(fd);
    return st;
}

static bool needs_length(const struct sink *s)
{
    return !s->req.capa_eof;
}

/* Takes the snapshot with the server at rest: from here on the log holds what the replica still needs. */
static bool begin_snapshot(struct sink *s, uint64_t *offset)
{
    struct hub *h = s->hub;
    gate_close(h->host.gate);
    s->cut = h->host.snapshot(h->host.ctx, &s->options, offset);
    bool ok = s->cut != NULL;
    if (ok && s->req.no_libraries) s->options.extras = NULL;
    if (ok && s->options.extras) {
        for (size_t i = 0; i < s->options.extras->count; i++)
            rdb_extras_add(&s->extras, buf_bytes(&s->options.extras->libraries[i]));
        s->options.extras = &s->extras;
    }
    if (ok) {
        hub_lock(h);
        if (s->state == SINK_DEAD || change_reader_seek(h->host.log, &s->reader, *offset) != OK) ok = false;
        hub_unlock(h);
    }
    gate_open(h->host.gate);
    if (!ok && s->cut) store_cut_end(s->cut);
    return ok;
}

static enum status full_sync(struct sink *s)
{
    uint64_t offset;
    if (!begin_snapshot(s, &offset)) return E_AGAIN;
    struct change_id id;
    change_id_get(s->hub->host.log, &id);
    char line[96];
    int n = snprintf(line, sizeof line, "+FULLRESYNC %s %llu\r\n", id.id, (unsigned long long)offset);
    if (!s->req.old_sync && write_all(s, line, (size_t)n) != OK) {
        store_cut_end(s->cut);
        return E_IO;
    }
    atomic_fetch_add(s->hub->host.sync_full, 1);
    return needs_length(s) ? send_with_length(s) : send_with_mark(s);
}

static void *sync_thread(void *arg)
{
    struct sink *s = arg;
    struct hub *h = s->hub;
    pthread_setname_np(pthread_self(), "full-sync");
    thread_is_patient();
    log_notice("Full resync of replica %s: sending a snapshot without a fork", s->req.peer);
    enum status st = full_sync(s);
    rdb_extras_deinit(&s->extras);
    hub_lock(h);
    s->syncing = false;
    h->jobs--;
    if (st == E_AGAIN && s->state != SINK_DEAD) {
        s->state = SINK_QUEUED; /* every cut is taken: later */
    } else if (st != OK && s->state != SINK_DEAD) {
        /* Freed by the hub's thread, which may be looking at it. */
        log_warning("Sending the snapshot to replica %s failed: %s", s->req.peer, strerror(errno));
        shutdown(s->req.fd, SHUT_RDWR);
        s->state = SINK_DEAD;
    } else if (s->req.rdb_only && s->state != SINK_DEAD) {
        log_notice("Replica %s has the snapshot and wanted nothing else", s->req.peer);
        shutdown(s->req.fd, SHUT_RDWR);
        s->state = SINK_DEAD;
    } else if (s->state == SINK_SNAPSHOT) {
        if (needs_length(s) || s->early_ack)
            sink_online(s);
        else
            s->state = SINK_WAIT_ACK;
    }
    hub_unlock(h);
    hub_flush(h);
    return NULL;
}

static void start_sync(struct sink *s, int64_t now)
{
    struct hub *h = s->hub;
    if (h->jobs >= JOBS_MAX) {
        if (now - s->newline_ms >= 1000) {
            s->newline_ms = now;
            sink_send_now(s, "\n", 1); /* tells an impatient replica that we are alive */
        }
        return;
    }
    pthread_t t;
    s->state = SINK_SNAPSHOT;
    s->syncing = true;
    h->jobs++;
    if (pthread_create(&t, NULL, sync_thread, s) == 0) {
        pthread_detach(t);
        return;
    }
    s->syncing = false;
    h->jobs--;
    s->state = SINK_QUEUED;
}

/* ---- PSYNC ---- */

static bool id_matches(const char *mine, const char *asked)
{
    return bytes_ieq(bytes_of(mine), bytes_of(asked));
}

/* Says why everything has to be sent, in the log and to whoever counts. */
static void explain_full(struct sink *s, const struct change_id *id, enum hub_full_why why)
{
    struct change_window w;
    const char *peer = s->req.peer;
    long long offset = s->req.offset;
    atomic_fetch_add(&s->hub->full_why[why], 1);
    change_window_get(s->hub->host.log, &w);
    switch (why) {
    case HUB_FULL_ASKED: log_notice("Replica %s has nothing to go on from and asks for everything", peer); break;
    case HUB_FULL_HISTORY:
        log_notice("Partial resynchronization with %s is not possible: it has history %s, mine are %s and %s", peer,
                   s->req.id, id->id, id->id2);
        break;
    case HUB_FULL_DIVERGED:
        log_notice("Partial resynchronization with %s is not possible: it asks for offset %lld of history %s, which I "
                   "know up to %lld",
                   peer, offset, s->req.id,
                   id_matches(id->id, s->req.id) ? (long long)change_offset(s->hub->host.log) : id->second_offset - 1);
        break;
    default:
        log_notice("Partial resynchronization with %s is not possible: it asks for offset %lld, the backlog %s%llu",
                   peer, offset, w.active ? "begins at " : "is off at ", (unsigned long long)w.first);
    }
}

/* Whether the replica can go on from where it stands; then its reader stands there. */
static bool can_continue(struct sink *s)
{
    struct change_id id;
    struct change_log *log = s->hub->host.log;
    change_id_get(log, &id);
    bool first = id_matches(id.id, s->req.id), second = id_matches(id.id2, s->req.id);
    enum hub_full_why why = HUB_FULL_BACKLOG;
    if (s->req.old_sync || s->req.id[0] == '?' || s->req.offset < 1)
        why = HUB_FULL_ASKED;
    else if (!first && !second)
        why = HUB_FULL_HISTORY;
    else if (first ? (uint64_t)s->req.offset > change_offset(log) + 1 : s->req.offset > id.second_offset)
        why = HUB_FULL_DIVERGED;
    else if (change_reader_seek(log, &s->reader, (uint64_t)s->req.offset - 1) == OK)
        return true;
    explain_full(s, &id, why);
    return false;
}

static void admit(struct mail *m)
{
    struct add_mail *a = container_of(m, struct add_mail, mail);
    struct hub *h = a->hub;
    struct hub_limits limits;
    h->host.limits(h->host.ctx, &limits);
    struct sink *s = mem_calloc(1, sizeof *s);
    s->hub = h;
    s->req = a->req;
    mem_free(a);
    s->src = (struct loop_source){.fd = s->req.fd, .ready = sink_ready};
    s->created_ms = s->ack_ms = s->newline_ms = clock_mono_ms();
    resp_parser_init(&s->parser, RESP_BULK_MAX_DEFAULT);
    if (limits.few_packets) net_clear_nodelay(s->req.fd);
    change_log_forget(h->host.log, false);
    hub_lock(h);
    list_push_back(&h->sinks, &s->link);
    atomic_fetch_add(&h->count, 1);
    if (loop_add(h->loop, &s->src, NET_READ) != OK) {
        sink_free(s);
    } else if (can_continue(s)) {
        struct change_id id;
        change_id_get(h->host.log, &id);
        change_id_told(h->host.log);
        h->host.moved(h->host.ctx);
        char line[64];
        int n = s->req.capa_psync2 ? snprintf(line, sizeof line, "+CONTINUE %s\r\n", id.id)
                                   : snprintf(line, sizeof line, "+CONTINUE\r\n");
        sink_send_now(s, line, (size_t)n);
        atomic_fetch_add(h->host.sync_partial_ok, 1);
        log_notice("Partial resynchronization request from %s accepted, from offset %lld", s->req.peer,
                   (long long)s->req.offset);
        sink_online(s);
        sink_flush(s);
        if (s->req.tls && tls_has_more(s->req.tls)) loop_again(h->loop, &s->src);
    } else {
        if (s->req.id[0] != '?' && !s->req.old_sync) atomic_fetch_add(h->host.sync_partial_err, 1);
        s->state = SINK_QUEUED;
        start_sync(s, s->created_ms);
    }
    hub_unlock(h);
    ask_newcomers(h);
}

void hub_add(struct hub *h, const struct hub_request *request)
{
    struct add_mail *a = mem_alloc(sizeof *a);
    *a = (struct add_mail){{NULL, admit}, h, *request};
    loop_post(h->loop, &a->mail);
}

/* ---- acknowledgements ---- */

static void take_ack(struct sink *s, const struct resp_request *req)
{
    int64_t offset;
    if (req->argc < 3 || !bytes_ieq(req->argv[0], BYTES("REPLCONF")) || !bytes_ieq(req->argv[1], BYTES("ACK"))) return;
    if (!parse_i64(req->argv[2], &offset) || offset < 0) return;
    s->ack_ms = clock_mono_ms();
    if ((uint64_t)offset > s->ack_offset) s->ack_offset = (uint64_t)offset;
    s->early_ack |= s->state == SINK_SNAPSHOT;
    if (req->argc >= 5 && bytes_ieq(req->argv[3], BYTES("FACK")) && parse_i64(req->argv[4], &offset) && offset > 0)
        s->synced_offset = (uint64_t)offset;
    if (s->state == SINK_WAIT_ACK) sink_online(s);
}

/* Bytes may wait above the socket, and the protocol may have something to say before it can go on. */
static void after_tls_read(struct sink *s)
{
    if (tls_has_more(s->req.tls)) loop_again(s->hub->loop, &s->src);
    if (s->state != SINK_ONLINE || s->want_write || !(tls_events(s->req.tls, 0) & NET_WRITE)) return;
    s->want_write = true;
    loop_set(s->hub->loop, &s->src, NET_READ | NET_WRITE);
}

/* False: the connection is over. */
static bool read_acks(struct sink *s)
{
    size_t got;
    if (buf_try_reserve(&s->in, READ_ROOM) != OK) return false;
    enum status st = stream_read(s->src.fd, s->req.tls, &s->in, READ_ROOM, &got);
    if (s->req.tls) after_tls_read(s);
    if (st == E_AGAIN) return true;
    if (st != OK) return false;
    struct resp_request req = {0};
    size_t pos = 0;
    while (pos < s->in.n) {
        st = resp_parse_request(&s->parser, bytes_make(s->in.p + pos, s->in.n - pos), &req);
        pos += req.size;
        if (st != OK) break;
        take_ack(s, &req);
    }
    resp_request_deinit(&req);
    buf_drop_front(&s->in, pos);
    return st == OK || st == E_AGAIN;
}

static void sink_ready(struct loop_source *src, int events)
{
    struct sink *s = container_of(src, struct sink, src);
    struct hub *h = s->hub;
    hub_lock(h);
    bool alive = s->state != SINK_DEAD;
    if (alive && (events & NET_READ || s->req.tls)) alive = read_acks(s);
    if (!alive) {
        if (s->state != SINK_DEAD)
            sink_drop(s, "connection closed");
        else if (!s->syncing)
            sink_free(s);
        else
            loop_remove(h->loop, &s->src); /* its sync thread writes into a closed socket and lets go */
    } else if (s->state == SINK_ONLINE) {
        sink_flush(s);
    }
    hub_unlock(h);
    ask_newcomers(h);
    h->host.acked(h->host.ctx);
}

/* ---- once in a while ---- */

static bool too_far_behind(struct sink *s, const struct hub_limits *limits, int64_t now)
{
    uint64_t end = change_offset(s->hub->host.log), behind = end - s->reader.offset;
    bool soft = limits->soft && behind > limits->soft;
    if (!soft)
        s->soft_since_ms = 0;
    else if (!s->soft_since_ms)
        s->soft_since_ms = now;
    return (limits->hard && behind > limits->hard) || (soft && now - s->soft_since_ms > limits->soft_seconds * 1000);
}

static void check_sink(struct sink *s, const struct hub_limits *limits, int64_t now)
{
    if (s->state == SINK_DEAD) {
        if (!s->syncing) sink_free(s);
        return;
    }
    if (s->state == SINK_QUEUED) start_sync(s, now);
    if (s->reader.block && too_far_behind(s, limits, now)) {
        log_warning("Client id=%llu addr=%s scheduled to be closed ASAP for overcoming of output buffer limits.",
                    (unsigned long long)s->req.client_id, s->req.peer);
        sink_drop(s, "it is too far behind (client-output-buffer-limit replica)");
        return;
    }
    bool acks = s->state == SINK_ONLINE || s->state == SINK_WAIT_ACK;
    if (acks && !s->req.old_sync && now - s->ack_ms > limits->timeout_ms)
        sink_drop(s, "no acknowledgement for repl-timeout");
}

/* Drops who is too far behind, and finds out when to look again. */
static void check_sinks(struct hub *h, const struct hub_limits *limits, int64_t now)
{
    list_each(it, &h->sinks) check_sink(container_of(it, struct sink, link), limits, now);
    uint64_t at = UINT64_MAX;
    list_each(it, &h->sinks)
    {
        const struct sink *s = container_of(it, struct sink, link);
        if (limits->hard && s->reader.block && s->reader.offset + limits->hard < at)
            at = s->reader.offset + limits->hard;
    }
    atomic_store(&h->limit_at, at);
}

static void check_now(struct mail *m)
{
    struct hub *h = container_of(m, struct hub, check);
    struct hub_limits limits;
    atomic_store(&h->checking, false);
    h->host.limits(h->host.ctx, &limits);
    hub_lock(h);
    check_sinks(h, &limits, clock_mono_ms());
    hub_unlock(h);
}

static void count_good(struct hub *h, const struct hub_limits *limits, int64_t now)
{
    int good = 0;
    list_each(it, &h->sinks)
    {
        const struct sink *s = container_of(it, struct sink, link);
        if (s->state == SINK_ONLINE && now - s->ack_ms <= limits->max_lag_ms) good++;
    }
    atomic_store(&h->good, good);
}

/* Nobody to come back to it for so long.  A replica keeps it: it may be promoted, and its primary's replicas come. */
static void forget_backlog(struct hub *h, const struct hub_limits *limits, int64_t now)
{
    if (atomic_load(&h->count) || h->host.quiet(h->host.ctx)) h->alone_since_ms = now;
    if (!limits->backlog_ttl_s || (now - h->alone_since_ms) / 1000 < limits->backlog_ttl_s) return;
    if (change_log_forget(h->host.log, true))
        log_notice("Replication backlog freed after %lld seconds without connected replicas.",
                   (long long)limits->backlog_ttl_s);
}

static void tick(struct loop_timer *t, int64_t now)
{
    struct hub *h = container_of(t, struct hub, timer);
    struct hub_limits limits;
    h->host.limits(h->host.ctx, &limits);
    if (now >= h->next_ping_ms) {
        h->next_ping_ms = now + limits.ping_period_ms;
        /* Inside the gate: the role and a pause change with the server at rest, and the log stands still there. */
        gate_enter(h->gate);
        if (atomic_load(&h->count) && !h->host.quiet(h->host.ctx) && change_log_active(h->host.log)) {
            change_append_raw(h->host.log, BYTES("*1\r\n$4\r\nping\r\n"));
            h->host.moved(h->host.ctx);
        }
        gate_exit(h->gate);
    }
    hub_lock(h);
    check_sinks(h, &limits, now);
    if (now >= h->next_count_ms) {
        h->next_count_ms = now + 1000;
        count_good(h, &limits, now);
    }
    forget_backlog(h, &limits, now);
    hub_unlock(h);
    ask_newcomers(h);
    hub_flush(h);
}

/* ---- the rest of the interface ---- */

static void *run(void *arg)
{
    struct hub *h = arg;
    pthread_setname_np(pthread_self(), "replicas");
    for (;;) loop_turn(h->loop, -1);
    return NULL;
}

struct hub *hub_create(struct hub_host host)
{
    struct hub *h = mem_calloc(1, sizeof *h);
    h->host = host;
    h->gate = gate_join(host.gate);
    h->loop = loop_create();
    list_init(&h->sinks);
    pthread_mutex_init(&h->mu, NULL);
    h->check.deliver = check_now;
    atomic_store(&h->limit_at, UINT64_MAX);
    h->alone_since_ms = clock_mono_ms();
    h->timer = (struct loop_timer){.every_ms = TICK_MS, .tick = tick};
    loop_timer_add(h->loop, &h->timer);
    return h;
}

void hub_start(struct hub *h)
{
    if (pthread_create(&h->thread, NULL, run, h)) mem_abort(0);
}

int hub_kill(struct hub *h, uint64_t client_id, const char *addr, const char *user)
{
    int n = 0;
    hub_lock(h);
    list_each(it, &h->sinks)
    {
        struct sink *s = container_of(it, struct sink, link);
        if (client_id && s->req.client_id != client_id) continue;
        if (addr && strcmp(addr, s->req.peer) != 0) continue;
        if (user && strncmp(user, s->req.user, HUB_USER_MAX - 1) != 0) continue;
        shutdown(s->req.fd, SHUT_RDWR); /* the hub's thread reads the end and drops it */
        n++;
    }
    hub_unlock(h);
    return n;
}

void hub_ask_ack(struct hub *h)
{
    if (atomic_load(&h->online) && !h->host.quiet(h->host.ctx))
        change_append_raw(h->host.log, BYTES("*3\r\n$8\r\nREPLCONF\r\n$6\r\nGETACK\r\n$1\r\n*\r\n"));
}

/* Inside the gate, as hub_ask_ack(). */
void hub_want_acks(struct hub *h)
{
    if (!atomic_load_explicit(&h->acks_wanted, memory_order_relaxed)) atomic_store(&h->acks_wanted, true);
    if (atomic_load(&h->online) == 0) return;
    int64_t now = clock_mono_ms();
    if (atomic_load(&h->timer_askers) == 0 && now - atomic_load(&h->asked_ms) < ASK_AGAIN_MS) return;
    atomic_store(&h->asked_ms, now);
    hub_ask_ack(h);
}

size_t hub_acks(struct hub *h, struct hub_ack *out, size_t max)
{
    size_t n = 0;
    hub_lock(h);
    list_each(it, &h->sinks)
    {
        const struct sink *s = container_of(it, struct sink, link);
        if (s->state != SINK_ONLINE || n == max) continue;
        memcpy(out[n].node, s->req.node, sizeof out[n].node);
        out[n++].offset = s->ack_offset;
    }
    hub_unlock(h);
    return n;
}

int64_t hub_fell_ms(const struct hub *h)
{
    return atomic_load(&h->fell_ms);
}

uint64_t hub_full_count(const struct hub *h, enum hub_full_why why)
{
    return atomic_load(&h->full_why[why]);
}

int hub_online(const struct hub *h)
{
    return atomic_load(&h->online);
}

int hub_count_acked(struct hub *h, uint64_t offset)
{
    int n = 0;
    hub_lock(h);
    list_each(it, &h->sinks)
    {
        const struct sink *s = container_of(it, struct sink, link);
        if (s->state == SINK_ONLINE && s->ack_offset >= offset) n++;
    }
    hub_unlock(h);
    return n;
}

int hub_count_synced(struct hub *h, uint64_t offset)
{
    int n = 0;
    hub_lock(h);
    list_each(it, &h->sinks)
    {
        const struct sink *s = container_of(it, struct sink, link);
        if (s->state == SINK_ONLINE && s->synced_offset && s->synced_offset >= offset) n++;
    }
    hub_unlock(h);
    return n;
}

int hub_good_replicas(const struct hub *h)
{
    return atomic_load(&h->good);
}

int hub_replica_count(const struct hub *h)
{
    return atomic_load(&h->count);
}

static const char *state_name(enum sink_state state)
{
    switch (state) {
    case SINK_QUEUED: return "wait_bgsave";
    case SINK_SNAPSHOT:
    case SINK_WAIT_ACK: return "send_bulk";
    default: return "online";
    }
}

void hub_each(struct hub *h, void (*visit)(void *ctx, const struct hub_replica *r), void *ctx)
{
    int64_t now = clock_mono_ms();
    hub_lock(h);
    list_each(it, &h->sinks)
    {
        const struct sink *s = container_of(it, struct sink, link);
        if (s->state == SINK_DEAD) continue;
        struct hub_replica r = {.port = s->req.listening_port,
                                .state = state_name(s->state),
                                .ack_offset = s->ack_offset,
                                .lag_s = s->state == SINK_ONLINE ? (now - s->ack_ms) / 1000 : 0,
                                .client_id = s->req.client_id,
                                .age_s = (now - s->created_ms) / 1000};
        snprintf(r.peer, sizeof r.peer, "%s", s->req.peer);
        snprintf(r.user, sizeof r.user, "%s", s->req.user);
        if (s->req.announced_ip[0]) {
            snprintf(r.ip, sizeof r.ip, "%s", s->req.announced_ip);
        } else {
            int port;
            net_peer_ip(s->req.fd, r.ip, &port);
        }
        visit(ctx, &r);
    }
    hub_unlock(h);
}
