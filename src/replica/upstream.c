#include "replica/replica.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/number.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    RETRY_MS = 1000,
    RETRY_SOON_MS = 100, /* the first times: a primary that is restarted at once is back in a moment */
    RETRIES_SOON = 5,
    ACK_MS = 1000,
    SYNCED_MS = 5,      /* how often the disk is looked at while the primary waits for it */
    ACKS_FOR_MS = 1000, /* after a GETACK each batch is acknowledged for so long: the primary holds replies for it */
    LINE_MAX_BYTES = 1024,
    STREAM_ROOM = 64 * 1024,
    EOF_MARK = 40,
    SPOOL_CHUNK = 64 * 1024
};

struct upstream {
    struct upstream_host host;
    pthread_t thread;
    int wake_fd; /* wakes the thread out of poll() */

    pthread_mutex_t mu; /* order: nothing else is taken under it */
    pthread_cond_t target_changed;
    char target[256];          /* under mu; "" none */
    int target_port;           /* under mu */
    bool handing_over;         /* under mu: the target is to take our role */
    uint64_t generation;       /* under mu: changes with every follow and cut */
    _Atomic int collect;       /* enum collect; written under mu */
    struct upstream_info info; /* under mu */

    /* the link's thread only */
    int fd;
    struct tls_session *tls; /* of fd; NULL: plain */
    uint64_t my_generation;
    struct buf in;
    size_t in_pos;
    int64_t last_ack_ms, last_newline_ms;
    uint64_t told_synced; /* the last FACK */
    int64_t asked_ms;     /* the last GETACK; 0: none on this connection */
};

enum collect { COLLECT_NOTHING, COLLECT_SOME, COLLECT_ALL };

/* ---- shared state ---- */

static void collect_if_wanted(struct upstream *u)
{
    if (atomic_load_explicit(&u->collect, memory_order_relaxed) == COLLECT_NOTHING) return;
    mem_collect(atomic_exchange(&u->collect, COLLECT_NOTHING) == COLLECT_ALL);
}

/* A link that is not wanted any more says nothing about the present one. */
static void set_state(struct upstream *u, enum upstream_state state)
{
    pthread_mutex_lock(&u->mu);
    if (u->generation != u->my_generation && u->target[0] == '\0')
        state = UPSTREAM_NONE;
    else if (u->generation != u->my_generation)
        state = UPSTREAM_CONNECT;
    bool was_up = u->info.state == UPSTREAM_CONNECTED;
    u->info.state = state;
    if (state == UPSTREAM_CONNECTED) {
        u->info.down_since_ms = 0;
        u->info.ever_synced = true;
    } else if (was_up) {
        u->info.down_since_ms = clock_mono_ms();
    }
    u->info.syncing = state == UPSTREAM_SYNC;
    pthread_mutex_unlock(&u->mu);
    u->host.state_changed(u->host.ctx, state);
}

static void note_io(struct upstream *u, size_t sync_bytes)
{
    pthread_mutex_lock(&u->mu);
    u->info.last_io_ms = clock_mono_ms();
    u->info.sync_read += sync_bytes;
    pthread_mutex_unlock(&u->mu);
}

/* True when the link under way is not wanted any more. */
static bool outdated(struct upstream *u)
{
    pthread_mutex_lock(&u->mu);
    bool old = u->generation != u->my_generation;
    pthread_mutex_unlock(&u->mu);
    return old;
}

/* Waits for the socket (fd -1: only for the time); events are NET_READ and NET_WRITE, and what TLS needs besides.   OK:
 * ready.  E_AGAIN: time is over.  E_CLOSED: not wanted any more.
 */
static enum status wait_for(struct upstream *u, int fd, int wanted, int64_t timeout_ms)
{
    if (u->tls) wanted = tls_events(u->tls, wanted);
    short events = (short)((wanted & NET_READ ? POLLIN : 0) | (wanted & NET_WRITE ? POLLOUT : 0));
    int64_t deadline = clock_mono_ms() + timeout_ms;
    for (;;) {
        collect_if_wanted(u);
        if (outdated(u)) return E_CLOSED;
        int64_t left = deadline - clock_mono_ms();
        if (left <= 0) return E_AGAIN;
        struct pollfd p[2] = {{.fd = u->wake_fd, .events = POLLIN}, {.fd = fd, .events = events}};
        int n = poll(p, fd >= 0 ? 2 : 1, (int)left);
        if (n > 0 && p[0].revents) {
            uint64_t count;
            ssize_t r = read(u->wake_fd, &count, sizeof count);
            (void)r;
        }
        if (n > 0 && fd >= 0 && p[1].revents) return OK;
    }
}

/* ---- bytes ---- */

static enum status send_all(struct upstream *u, struct bytes b)
{
    while (b.n) {
        size_t put;
        enum status st = stream_write(u->fd, u->tls, b.p, b.n, &put);
        if (st == E_IO) return E_IO;
        b = bytes_make(b.p + put, b.n - put);
        if (b.n && put == 0) {
            st = wait_for(u, u->fd, NET_WRITE, u->host.timeout_ms(u->host.ctx));
            if (st != OK) return st;
        }
    }
    return OK;
}

/* Reads some more into u->in.  E_AGAIN: the time was over. */
static enum status receive(struct upstream *u, int64_t timeout_ms)
{
    if (u->in_pos) {
        buf_drop_front(&u->in, u->in_pos);
        u->in_pos = 0;
    }
    if (buf_try_reserve(&u->in, STREAM_ROOM) != OK) return E_NOMEM;
    size_t got;
    int64_t deadline = clock_mono_ms() + timeout_ms;
    enum status st;
    /* What makes a TLS socket readable need not be a whole record. */
    while ((st = stream_read(u->fd, u->tls, &u->in, STREAM_ROOM, &got)) == E_AGAIN) {
        st = wait_for(u, u->fd, NET_READ, deadline - clock_mono_ms());
        if (st != OK) return st;
    }
    if (st == OK) note_io(u, 0);
    return st;
}

static struct bytes rest(const struct upstream *u)
{
    return bytes_make(u->in.p + u->in_pos, u->in.n - u->in_pos);
}

/* One line without its end; empty lines are the primary's way of saying that it is still there. */
static enum status read_line(struct upstream *u, char out[LINE_MAX_BYTES])
{
    for (;;) {
        struct bytes b = rest(u);
        const char *end = b.n ? memchr(b.p, '\n', b.n) : NULL;
        if (end) {
            size_t n = (size_t)(end - b.p);
            u->in_pos += n + 1;
            if (n && b.p[n - 1] == '\r') n--;
            if (n == 0) continue;
            if (n >= LINE_MAX_BYTES) return E_CORRUPT;
            memcpy(out, b.p, n);
            out[n] = '\0';
            return OK;
        }
        if (b.n >= LINE_MAX_BYTES) return E_CORRUPT;
        enum status st = receive(u, u->host.timeout_ms(u->host.ctx));
        if (st != OK) return st;
    }
}

/* ---- handshake ---- */

static enum status request(struct upstream *u, size_t argc, const struct bytes *argv)
{
    struct buf b = {0};
    resp_request_append(&b, argv, argc);
    enum status st = send_all(u, buf_bytes(&b));
    buf_deinit(&b);
    return st;
}

/* An error reply that does not stop the handshake. */
static bool is_auth_error(const char *line)
{
    return strncmp(line, "-NOAUTH", 7) == 0 || strncmp(line, "-NOPERM", 7) == 0 ||
           strncmp(line, "-ERR operation not permitted", 28) == 0;
}

static enum status greet(struct upstream *u, char line[LINE_MAX_BYTES])
{
    struct bytes ping[] = {BYTES("PING")};
    enum status st = request(u, 1, ping);
    if (st == OK) st = read_line(u, line);
    if (st != OK) return st;
    if (line[0] == '+' || is_auth_error(line)) return OK;
    log_warning("Error reply to PING from the primary: '%.200s'", line);
    return E_INVALID;
}

static enum status authenticate(struct upstream *u, struct bytes user, struct bytes password, char line[LINE_MAX_BYTES])
{
    if (password.n == 0) return OK;
    struct bytes argv[3] = {BYTES("AUTH"), user, password};
    if (user.n == 0) argv[1] = password;
    enum status st = request(u, user.n ? 3 : 2, argv);
    if (st == OK) st = read_line(u, line);
    if (st != OK || line[0] != '-') return st;
    log_warning("Unable to AUTH to the primary: %.200s", line);
    return E_INVALID;
}

/* Who we are; a primary that does not know an option says so and nothing depends on it. */
static enum status introduce(struct upstream *u, struct bytes announce_ip, char line[LINE_MAX_BYTES])
{
    char port[24];
    size_t n = format_i64(port, u->host.listening_port(u->host.ctx));
    struct bytes listening[] = {BYTES("REPLCONF"), BYTES("listening-port"), bytes_make(port, n)};
    struct bytes address[] = {BYTES("REPLCONF"), BYTES("ip-address"), announce_ip};
    /* The last ones are Covey's own: see ACKS_FOR_MS, and who we are in the cluster.  Redis takes no notice of what it
     * does not know. */
    char node[5 + REPLID_LENGTH + 1] = "node:";
    u->host.node_name(u->host.ctx, node + 5);
    struct bytes capa[] = {BYTES("REPLCONF"), BYTES("capa"),       BYTES("eof"),  BYTES("capa"), BYTES("psync2"),
                           BYTES("capa"),     BYTES("batch-acks"), BYTES("capa"), bytes_of(node)};
    enum status st = request(u, 3, listening);
    if (st == OK) st = read_line(u, line);
    if (st == OK && announce_ip.n) st = request(u, 3, address);
    if (st == OK && announce_ip.n) st = read_line(u, line);
    if (st == OK) st = request(u, 9, capa);
    if (st == OK) st = read_line(u, line);
    return st;
}

static enum status handshake(struct upstream *u)
{
    char line[LINE_MAX_BYTES];
    struct buf user = {0}, password = {0}, announce = {0};
    u->host.credentials(u->host.ctx, &user, &password, &announce);
    enum status st = greet(u, line);
    if (st == OK) st = authenticate(u, buf_bytes(&user), buf_bytes(&password), line);
    if (st == OK) st = introduce(u, buf_bytes(&announce), line);
    buf_deinit(&user);
    buf_deinit(&password);
    buf_deinit(&announce);
    return st;
}

/* ---- full sync ---- */

struct spool {
    int fd;
    char path[4200];
};

static enum status spool_open(struct upstream *u, struct spool *sp)
{
    struct buf dir = {0};
    u->host.directory(u->host.ctx, &dir);
    buf_append_char(&dir, '\0');
    snprintf(sp->path, sizeof sp->path, "%.4000s/temp-%lld.%d.rdb", dir.p, (long long)clock_wall_ms() / 1000,
             (int)getpid());
    buf_deinit(&dir);
    sp->fd = open(sp->path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
    if (sp->fd >= 0) return OK;
    log_warning("Opening the temp file needed for the primary <-> replica synchronization: %s", strerror(errno));
    return E_IO;
}

static void spool_discard(struct spool *sp)
{
    if (sp->fd >= 0) close(sp->fd);
    unlink(sp->path);
}

static enum status spool_write(struct upstream *u, struct spool *sp, size_t n)
{
    while (n) {
        ssize_t w = write(sp->fd, u->in.p + u->in_pos, n);
        if (w < 0) {
            log_warning("Write error writing the snapshot of the primary: %s", strerror(errno));
            return E_IO;
        }
        u->in_pos += (size_t)w;
        n -= (size_t)w;
        note_io(u, (size_t)w);
    }
    return OK;
}

static enum status receive_counted(struct upstream *u, struct spool *sp, uint64_t size)
{
    while (size) {
        struct bytes b = rest(u);
        if (b.n == 0) {
            enum status st = receive(u, u->host.timeout_ms(u->host.ctx));
            if (st != OK) return st;
            continue;
        }
        size_t part = b.n < size ? b.n : (size_t)size;
        enum status st = spool_write(u, sp, part);
        if (st != OK) return st;
        size -= part;
    }
    return OK;
}

/* The snapshot ends where the mark stands; the mark cannot be in it but by a chance of 2^-160. */
static enum status receive_marked(struct upstream *u, struct spool *sp, const char mark[EOF_MARK])
{
    for (;;) {
        struct bytes b = rest(u);
        const char *end = b.n >= EOF_MARK ? memmem(b.p, b.n, mark, EOF_MARK) : NULL;
        size_t safe = end ? (size_t)(end - b.p) : b.n >= EOF_MARK ? b.n - (EOF_MARK - 1) : 0;
        enum status st = spool_write(u, sp, safe);
        if (st != OK) return st;
        if (end) {
            u->in_pos += EOF_MARK;
            return OK;
        }
        st = receive(u, u->host.timeout_ms(u->host.ctx));
        if (st != OK) return st;
    }
}

static enum status send_ack(struct upstream *u)
{
    char digits[24], synced[24];
    size_t n = format_u64(digits, change_offset(u->host.log)), argc = 3;
    struct bytes argv[] = {BYTES("REPLCONF"), BYTES("ACK"), bytes_make(digits, n), BYTES("FACK"), {0}};
    uint64_t offset;
    if (u->host.synced(u->host.ctx, &offset)) {
        argv[4] = bytes_make(synced, format_u64(synced, offset));
        u->told_synced = offset;
        argc = 5;
    }
    u->last_ack_ms = clock_mono_ms();
    return request(u, argc, argv);
}

/* Whether the primary waits for our disk, which is about to get there. */
static bool owes_synced(struct upstream *u, uint64_t *synced)
{
    bool asked = u->asked_ms && clock_mono_ms() - u->asked_ms < ACKS_FOR_MS;
    return asked && u->host.synced(u->host.ctx, synced) && u->told_synced < change_offset(u->host.log);
}

static enum status full_sync(struct upstream *u, const char *id, uint64_t offset)
{
    char line[LINE_MAX_BYTES];
    enum status st = read_line(u, line);
    if (st != OK) return st;
    if (line[0] != '$') {
        log_warning("Bad protocol from the primary, the first byte is not '$' (we received '%.100s')", line);
        return E_CORRUPT;
    }
    bool marked = strncmp(line, "$EOF:", 5) == 0 && strlen(line) == 5 + EOF_MARK;
    uint64_t size = 0;
    if (!marked && !parse_u64(bytes_of(line + 1), &size)) return E_CORRUPT;
    struct spool sp;
    st = spool_open(u, &sp);
    if (st != OK) return st;
    log_notice("PRIMARY <-> REPLICA sync: receiving %s", marked ? "streamed RDB with EOF" : "RDB");
    pthread_mutex_lock(&u->mu);
    u->info.sync_total = size;
    u->info.sync_read = 0;
    pthread_mutex_unlock(&u->mu);
    st = marked ? receive_marked(u, &sp, line + 5) : receive_counted(u, &sp, size);
    if (st == OK) {
        close(sp.fd);
        sp.fd = -1;
        st = u->host.load(u->host.ctx, sp.path, id, offset);
    }
    spool_discard(&sp);
    if (st == OK) st = send_ack(u);
    return st;
}

/* ---- PSYNC ---- */

/* Whether the target still has to be asked to take the role. */
static bool is_handing_over(struct upstream *u, bool done)
{
    pthread_mutex_lock(&u->mu);
    bool yes = u->handing_over && u->generation == u->my_generation;
    if (done && yes) u->handing_over = false;
    pthread_mutex_unlock(&u->mu);
    return yes;
}

/* Gives the history that was asked for. */
static enum status ask_for_stream(struct upstream *u, char asked[REPLID_LENGTH + 1], char line[LINE_MAX_BYTES])
{
    struct change_id id;
    char digits[24];
    change_id_get(u->host.log, &id);
    uint64_t offset = change_offset(u->host.log);
    memcpy(asked, change_id_known(&id, offset), REPLID_LENGTH + 1);
    size_t n = format_u64(digits, offset + 1);
    struct bytes argv[] = {BYTES("PSYNC"), bytes_of(asked), bytes_make(digits, n), BYTES("FAILOVER")};
    log_notice("Trying a partial resynchronization (request %s:%.*s).", asked, (int)n, digits);
    enum status st = request(u, is_handing_over(u, false) ? 4 : 3, argv);
    return st == OK ? read_line(u, line) : st;
}

static enum status synchronize(struct upstream *u)
{
    char line[LINE_MAX_BYTES], id[LINE_MAX_BYTES], asked[REPLID_LENGTH + 1];
    unsigned long long offset;
    enum status st = ask_for_stream(u, asked, line);
    if (st != OK) return st;
    bool taken = strncmp(line, "+CONTINUE", 9) == 0 || strncmp(line, "+FULLRESYNC", 11) == 0;
    if (is_handing_over(u, true)) {
        if (!taken) log_notice("The chosen replica does not take the role: %.200s", line);
        u->host.handed_over(u->host.ctx, taken);
        if (!taken) return E_STALE;
    }
    if (strncmp(line, "+CONTINUE", 9) == 0) {
        const char *next = line[9] == ' ' ? line + 10 : asked;
        if (strlen(next) != REPLID_LENGTH) return E_CORRUPT;
        u->host.resumed(u->host.ctx, next);
        log_notice("Successful partial resynchronization with the primary.");
        return send_ack(u);
    }
    if (sscanf(line, "+FULLRESYNC %1000s %llu", id, &offset) == 2 && strlen(id) == REPLID_LENGTH) {
        if (!u->host.accept_full_sync(u->host.ctx, id, offset)) return E_STALE;
        log_notice("Full resync from the primary: %s:%llu", id, offset);
        set_state(u, UPSTREAM_SYNC);
        return full_sync(u, id, offset);
    }
    log_notice("The primary does not accept the synchronization now: %.200s", line);
    return E_AGAIN;
}

/* ---- the stream ---- */

static enum status keep_alive(struct upstream *u)
{
    int64_t now = clock_mono_ms();
    return now - u->last_ack_ms >= ACK_MS ? send_ack(u) : OK;
}

static enum status stream(struct upstream *u)
{
    u->asked_ms = 0;
    u->told_synced = 0;
    int64_t heard_ms = clock_mono_ms();
    for (;;) {
        struct bytes b = rest(u);
        size_t taken = 0;
        bool ack_wanted = false;
        /* Empty lines between commands are keepalives. */
        while (b.n && b.p[0] == '\n') {
            u->in_pos++;
            b = rest(u);
        }
        enum status st = b.n ? u->host.apply(u->host.ctx, b, &taken, &ack_wanted) : OK;
        if (st != OK) return st;
        u->in_pos += taken;
        if (ack_wanted) u->asked_ms = clock_mono_ms();
        if (taken && u->asked_ms && clock_mono_ms() - u->asked_ms < ACKS_FOR_MS) st = send_ack(u);
        uint64_t synced;
        bool owes = owes_synced(u, &synced);
        if (st == OK && owes && synced > u->told_synced) st = send_ack(u);
        if (st == OK) st = keep_alive(u);
        if (st == OK) st = receive(u, owes ? SYNCED_MS : ACK_MS / 2);
        if (st == OK)
            heard_ms = clock_mono_ms();
        else if (st != E_AGAIN)
            return st;
        if (clock_mono_ms() - heard_ms > u->host.timeout_ms(u->host.ctx)) {
            log_warning("PRIMARY timeout: no data nor PING received...");
            return E_IO;
        }
    }
}

/* ---- the thread ---- */

static enum status secure(struct upstream *u, struct tls *tls)
{
    int64_t deadline = clock_mono_ms() + TLS_HANDSHAKE_MS;
    enum status st;
    u->tls = tls_connect(tls, u->fd);
    if (!u->tls) {
        errno = EPROTO;
        return E_IO;
    }
    while ((st = tls_handshake(u->tls)) == E_AGAIN)
        if ((st = wait_for(u, u->fd, 0, deadline - clock_mono_ms())) != OK) return st;
    if (st != OK)
        log_warning("TLS handshake with the primary failed: %s",
                    *tls_error(u->tls) ? tls_error(u->tls) : strerror(errno));
    return st;
}

static enum status connect_to(struct upstream *u, const char *host, int port)
{
    struct upstream_network net;
    u->host.network(u->host.ctx, &net);
    set_state(u, UPSTREAM_CONNECTING);
    log_notice("Connecting to PRIMARY %s:%d", host, port);
    u->fd = net_connect(host, port, net.source);
    if (u->fd < 0) return E_IO;
    net_set_nodelay(u->fd);
    net_set_keepalive(u->fd, net.keepalive_s);
    net_set_patient(u->fd, true);
    enum status st = wait_for(u, u->fd, NET_WRITE, u->host.timeout_ms(u->host.ctx));
    if (st != OK) return st;
    errno = net_connect_error(u->fd);
    if (errno) return E_IO;
    return net.tls ? secure(u, net.tls) : OK;
}

/* True when the link was up for a while, false when it never came that far. */
static bool one_link(struct upstream *u, const char *host, int port)
{
    bool was_up = false;
    enum status st = connect_to(u, host, port);
    if (st == OK) {
        set_state(u, UPSTREAM_HANDSHAKE);
        st = handshake(u);
    } else if (st == E_IO) {
        log_warning("Error condition on socket for SYNC: %s", strerror(errno));
    }
    if (st == OK) st = synchronize(u);
    if (st == OK) {
        log_notice("PRIMARY <-> REPLICA sync: finished with success");
        set_state(u, UPSTREAM_CONNECTED);
        was_up = true;
        st = stream(u);
        log_warning("Connection with the primary lost (%s).", status_name(st));
    }
    tls_close(u->tls);
    u->tls = NULL;
    if (u->fd >= 0) net_set_patient(u->fd, false);
    if (u->fd >= 0) close(u->fd);
    u->fd = -1;
    u->in.n = u->in_pos = 0;
    if (u->in.cap > 4 * STREAM_ROOM) buf_deinit(&u->in);
    set_state(u, UPSTREAM_CONNECT);
    return was_up;
}

/* Waits until there is somebody to follow; copies the address. */
static int next_target(struct upstream *u, char host[256])
{
    pthread_mutex_lock(&u->mu);
    while (u->target[0] == '\0') {
        if (atomic_load(&u->collect) == COLLECT_NOTHING) pthread_cond_wait(&u->target_changed, &u->mu);
        pthread_mutex_unlock(&u->mu);
        collect_if_wanted(u);
        pthread_mutex_lock(&u->mu);
    }
    u->my_generation = u->generation;
    strcpy(host, u->target);
    int port = u->target_port;
    pthread_mutex_unlock(&u->mu);
    return port;
}

static void *run(void *arg)
{
    struct upstream *u = arg;
    char host[256];
    pthread_setname_np(pthread_self(), "primary-link");
    for (int refused = 0;;) {
        int port = next_target(u, host);
        /* A link that was lost is made again at once; one that was refused, after a while. */
        if (one_link(u, host, port)) {
            refused = 0;
            continue;
        }
        int ms = refused++ < RETRIES_SOON ? RETRY_SOON_MS : RETRY_MS;
        if (wait_for(u, -1, 0, ms) != E_CLOSED) continue;
        log_debug("The primary has changed");
        refused = 0;
    }
    return NULL;
}

struct upstream *upstream_create(struct upstream_host host)
{
    struct upstream *u = mem_calloc(1, sizeof *u);
    u->host = host;
    u->fd = -1;
    u->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    pthread_mutex_init(&u->mu, NULL);
    pthread_cond_init(&u->target_changed, NULL);
    if (u->wake_fd < 0 || pthread_create(&u->thread, NULL, run, u)) mem_abort(0);
    return u;
}

static void wake(struct upstream *u)
{
    uint64_t one = 1;
    ssize_t n = write(u->wake_fd, &one, sizeof one);
    (void)n; /* full: it wakes up anyway */
}

static void follow(struct upstream *u, const char *host, int port, bool hand_over)
{
    pthread_mutex_lock(&u->mu);
    u->handing_over = hand_over;
    snprintf(u->target, sizeof u->target, "%s", host);
    u->target_port = port;
    snprintf(u->info.host, sizeof u->info.host, "%s", host);
    u->info.port = port;
    u->info.state = *host ? UPSTREAM_CONNECT : UPSTREAM_NONE;
    u->info.ever_synced = false;
    u->info.last_io_ms = u->info.down_since_ms = 0;
    u->generation++;
    wake(u);
    pthread_cond_broadcast(&u->target_changed);
    pthread_mutex_unlock(&u->mu);
}

void upstream_follow(struct upstream *u, const char *host, int port)
{
    follow(u, host, port, false);
}

void upstream_hand_over(struct upstream *u, const char *host, int port)
{
    follow(u, host, port, true);
}

void upstream_collect(struct upstream *u, bool all)
{
    pthread_mutex_lock(&u->mu);
    if (all || atomic_load(&u->collect) == COLLECT_NOTHING) atomic_store(&u->collect, all ? COLLECT_ALL : COLLECT_SOME);
    wake(u);
    pthread_cond_signal(&u->target_changed);
    pthread_mutex_unlock(&u->mu);
}

bool upstream_cut(struct upstream *u)
{
    pthread_mutex_lock(&u->mu);
    bool any = u->info.state >= UPSTREAM_CONNECTING;
    if (u->target[0]) {
        u->generation++;
        wake(u);
    }
    pthread_mutex_unlock(&u->mu);
    return any;
}

bool upstream_is_current(struct upstream *u)
{
    return !outdated(u);
}

void upstream_info_get(struct upstream *u, struct upstream_info *out)
{
    pthread_mutex_lock(&u->mu);
    *out = u->info;
    pthread_mutex_unlock(&u->mu);
}
