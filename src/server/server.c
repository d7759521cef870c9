/* server.c: puts the data node together, runs its main thread (accepting, signals, save points), takes it down. */
#include "server/server.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/version.h"
#include "server/cluster_node.h"
#include "server/conn.h"
#include "server/errorstats.h"
#include "server/memory.h"
#include "server/multi.h"
#include "server/persistence.h"
#include "server/pubsub.h"
#include "server/replication.h"
#include "server/sampler.h"
#include "server/shutdown.h"
#include "server/slowlog.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { LISTENERS_MAX = 17, ACCEPTS_A_TURN = 1000, RESERVED_FDS = 32, TICK_MS = 100 };

struct listener {
    struct loop_source src;
    struct node *node;
    bool is_unix;
};

struct main_thread {
    struct node *node;
    struct listener listeners[LISTENERS_MAX];
    int listener_count;
    struct loop_source signals;
    struct loop_timer timer;
};

/* ---- accepting ---- */

static struct worker *least_loaded(const struct node *n)
{
    struct worker *best = n->workers[0];
    for (int i = 1; i < n->worker_count; i++)
        if (atomic_load(&n->workers[i]->conn_count) < atomic_load(&best->conn_count)) best = n->workers[i];
    return best;
}

static const char too_many[] = "-ERR max number of clients reached\r\n";
static const char denied[] =
    "-DENIED Redis is running in protected mode because protected mode is enabled and no password is "
    "set for the default user. Connections are accepted from the loopback interface only. Set a "
    "password (requirepass), or, if nobody else can reach this port, say CONFIG SET "
    "protected-mode no from the host itself.\r\n";

/* protected-mode: a node that nobody has secured listens to its own host only. */
static bool is_protected_from(const struct node *n, int fd, bool is_unix)
{
    if (is_unix || !config_bool(n->config, CFG_PROTECTED_MODE)) return false;
    if (!config_text_is_empty(n->config, CFG_REQUIREPASS)) return false;
    char ip[NET_ADDRESS_MAX];
    int port;
    net_peer_ip(fd, ip, &port);
    return strncmp(ip, "127.", 4) != 0 && strcmp(ip, "::1") != 0;
}

static void refuse(struct node *n, int fd, const char *text)
{
    size_t put;
    if (net_write(fd, text, strlen(text), &put) != OK) log_verbose("A refused client was gone already");
    close(fd);
    atomic_fetch_add(&n->stats.connections_rejected, 1);
}

static void accept_ready(struct loop_source *src, int events)
{
    struct listener *l = container_of(src, struct listener, src);
    struct node *n = l->node;
    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        int fd = net_accept(l->src.fd);
        if (fd < 0) {
            if (errno != EAGAIN && errno != ECONNABORTED)
                log_warning("Accepting client connection: %s", strerror(errno));
            return;
        }
        atomic_fetch_add(&n->stats.connections_received, 1);
        if (atomic_load(&n->client_count) >= config_num(n->config, CFG_MAXCLIENTS)) {
            refuse(n, fd, too_many);
            continue;
        }
        if (is_protected_from(n, fd, l->is_unix)) {
            refuse(n, fd, denied);
            continue;
        }
        atomic_fetch_add(&n->client_count, 1);
        worker_adopt(least_loaded(n), fd, l->is_unix);
    }
}

static bool listener_add(struct main_thread *m, int fd, bool is_unix)
{
    struct listener *l = &m->listeners[m->listener_count++];
    *l = (struct listener){.src = {.fd = fd, .ready = accept_ready}, .node = m->node, .is_unix = is_unix};
    return loop_add(m->node->main_loop, &l->src, NET_READ) == OK;
}

/* The address list of `bind`: "*" both families, a leading '-' marks what may be missing. */
static bool listen_tcp(struct main_thread *m)
{
    struct config *cfg = m->node->config;
    int port = (int)config_num(cfg, CFG_PORT), backlog = (int)config_num(cfg, CFG_TCP_BACKLOG);
    if (port == 0) return true;
    char *bind = config_cstr(cfg, CFG_BIND);
    bool ok = true, any = false;
    char *state = NULL;
    for (char *addr = strtok_r(bind, " ", &state); addr && ok && m->listener_count < LISTENERS_MAX - 1;
         addr = strtok_r(NULL, " ", &state)) {
        bool optional = *addr == '-';
        if (optional) addr++;
        int fd = net_listen_tcp(strcmp(addr, "::*") == 0 ? "::" : addr, port, backlog);
        if (fd >= 0) {
            any = true;
            ok = listener_add(m, fd, false);
        } else if (!optional || (errno != EADDRNOTAVAIL && errno != EAFNOSUPPORT)) {
            log_warning("Could not create server TCP listening socket %s:%d: %s", addr, port, strerror(errno));
            ok = false;
        }
    }
    mem_free(bind);
    if (ok && !any) log_warning("Failed listening on port %d (TCP), aborting.", port);
    return ok && any;
}

static bool listen_unix(struct main_thread *m)
{
    struct config *cfg = m->node->config;
    char *path = config_cstr(cfg, CFG_UNIXSOCKET);
    bool ok = true;
    if (*path) {
        int fd =
            net_listen_unix(path, (unsigned)config_num(cfg, CFG_UNIXSOCKETPERM), (int)config_num(cfg, CFG_TCP_BACKLOG));
        if (fd < 0) log_warning("Failed opening Unix socket: bind: %s", strerror(errno));
        ok = fd >= 0 && listener_add(m, fd, true);
    }
    mem_free(path);
    return ok;
}

/* ---- signals and the clock ---- */

static void signals_ready(struct loop_source *src, int events)
{
    struct main_thread *m = container_of(src, struct main_thread, signals);
    struct signalfd_siginfo info;
    (void)events;
    while (read(src->fd, &info, sizeof info) == (ssize_t)sizeof info) {
        log_warning("Received %s scheduling shutdown...", info.ssi_signo == SIGINT ? "SIGINT" : "SIGTERM");
        shutdown_on_signal(m->node);
    }
}

static void tick(struct loop_timer *t, int64_t now_mono_ms)
{
    struct main_thread *m = container_of(t, struct main_thread, timer);
    (void)now_mono_ms;
    mem_used(); /* keeps the peak */
    persistence_tick(m->node->persistence, clock_wall_ms());
}

static bool watch_signals(struct main_thread *m)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    m->signals = (struct loop_source){.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), .ready = signals_ready};
    return m->signals.fd >= 0 && loop_add(m->node->main_loop, &m->signals, NET_READ) == OK;
}

/* Before any thread exists, so that all of them inherit the mask and only the main thread sees these signals. */
static void block_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
}

/* ---- start ---- */

static void raise_fd_limit(struct config *cfg)
{
    struct rlimit limit;
    int64_t want = config_num(cfg, CFG_MAXCLIENTS) + RESERVED_FDS;
    if (getrlimit(RLIMIT_NOFILE, &limit) || (int64_t)limit.rlim_cur >= want) return;
    limit.rlim_cur = (int64_t)limit.rlim_max >= want ? (rlim_t)want : limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if ((int64_t)limit.rlim_cur >= want) return;
    log_warning("The open files limit allows %lld clients only; maxclients was lowered",
                (long long)limit.rlim_cur - RESERVED_FDS);
    config_force_num(cfg, CFG_MAXCLIENTS, (int64_t)limit.rlim_cur - RESERVED_FDS);
}

static bool enter_directory(struct config *cfg)
{
    char *dir = config_cstr(cfg, CFG_DIR);
    bool ok = chdir(dir) == 0;
    if (!ok) fprintf(stderr, "Can't chdir to '%s': %s\n", dir, strerror(errno));
    char *absolute = ok ? realpath(".", NULL) : NULL;
    if (absolute) config_force_text(cfg, CFG_DIR, bytes_of(absolute));
    free(absolute);
    mem_free(dir);
    return ok;
}

static void write_pidfile(struct config *cfg)
{
    char *path = config_cstr(cfg, CFG_PIDFILE);
    FILE *f = *path ? fopen(path, "w") : NULL;
    if (f) {
        fprintf(f, "%d\n", (int)getpid());
        fclose(f);
    }
    mem_free(path);
}

static void set_log_level(const struct config *cfg)
{
    static const enum log_level levels[] = {LOG_DEBUG, LOG_VERBOSE, LOG_NOTICE, LOG_WARNING};
    log_set_level(levels[config_num(cfg, CFG_LOGLEVEL)]);
}

static void limit_changed(struct node *n, enum config_id id)
{
    size_t limit = (size_t)config_num(n->config, CFG_MAXMEMORY), used = memory_counted(n);
    if (limit == 0) return;
    if (id == CFG_MAXMEMORY && limit < used)
        log_warning("WARNING: the new maxmemory value set via CONFIG SET (%zu) is smaller than the current memory "
                    "usage (%zu). This will result in key eviction and/or the inability to accept new write commands "
                    "depending on the maxmemory-policy.",
                    limit, used);
    node_post_workers(n, memory_evict_soon);
}

/* What has to be done beside storing the new value of an option; everything else is looked up when it is needed. */
static void config_changed(void *ctx, enum config_id id)
{
    struct node *n = ctx;
    if (id == CFG_LOGLEVEL) set_log_level(n->config);
    if (id == CFG_MAXMEMORY || id == CFG_MAXMEMORY_POLICY) limit_changed(n, id);
    if (id == CFG_REPL_BACKLOG_SIZE) change_log_set_backlog_size(n->log, (size_t)config_num(n->config, id));
}

static bool open_log(struct config *cfg)
{
    char *path = config_cstr(cfg, CFG_LOGFILE);
    set_log_level(cfg);
    bool ok = log_open(path) == OK;
    if (!ok) fprintf(stderr, "Can't open the log file '%s': %s\n", path, strerror(errno));
    mem_free(path);
    return ok;
}

static void slot_released(void *ctx, unsigned slot)
{
    struct node *n = ctx;
    waiting_room_released(n->waiting, slot);
}

static void dispose(void *ctx, struct entry *e)
{
    struct node *n = ctx;
    reaper_free_entry(n->reaper, e);
}

static struct node *node_create(struct config *cfg)
{
    struct node *n = mem_calloc(1, sizeof *n);
    uint64_t seed;
    random_secure(&seed, sizeof seed);
    hash_seed_set(seed);
    random_hex(n->run_id, 40);
    n->config = cfg;
    n->options = mem_calloc(1, sizeof *n->options);
    options_derive(cfg, n->options);
    n->started_ms = clock_wall_ms();
    atomic_store(&n->active_expire, true);
    n->reaper = reaper_create();
    n->waiting = waiting_room_create(n);
    n->watch = watch_registry_create();
    n->blocking = blocking_create();
    n->store = store_create((int)config_num(cfg, CFG_DATABASES), (struct store_hooks){n, slot_released, dispose});
    n->gate = gate_create();
    n->log = change_log_create((size_t)config_num(cfg, CFG_REPL_BACKLOG_SIZE));
    n->main_loop = loop_create();
    n->persistence = persistence_create(n);
    n->replication = replication_create(n);
    slowlog_init(n);
    n->errors = errorstats_create();
    config_set_listener(cfg, config_changed, n);
    n->sampler = sampler_create(n);
    n->pubsub = pubsub_create(n);
    n->worker_count = (int)config_num(cfg, CFG_WORKERS);
    n->workers = mem_calloc((size_t)n->worker_count, sizeof *n->workers);
    return n;
}

static bool load_dataset(struct node *n)
{
    char *error = NULL;
    if (persistence_load(n->persistence, &error) == OK) return true;
    log_warning("Fatal error loading the DB, check server logs. Exiting. %s", error ? error : "");
    mem_free(error);
    return false;
}

static void announce(const struct node *n)
{
    log_notice("Covey server, compatible with Redis 7.0.15, %d workers, %s, pid %d", n->worker_count,
               mem_allocator_name(), (int)getpid());
    if (config_num(n->config, CFG_PORT))
        log_notice("Ready to accept connections on port %d", (int)config_num(n->config, CFG_PORT));
    else
        log_notice("Ready to accept connections");
}

static int run(struct main_thread *m)
{
    struct node *n = m->node;
    if (config_bool(n->config, CFG_CLUSTER_ENABLED) && !cluster_node_create(n)) return 1;
    for (int i = 0; i < n->worker_count; i++) n->workers[i] = worker_create(n, i);
    if (!listen_tcp(m) || !listen_unix(m) || !watch_signals(m)) return 1;
    n->startup_memory = mem_used();
    /* Clients are heard while the dataset is being loaded, and told so. */
    atomic_store(&n->loading, true);
    for (int i = 0; i < n->worker_count; i++) worker_start(n->workers[i]);
    if (!load_dataset(n)) return 1;
    if (n->cluster && !cluster_node_start(n)) return 1;
    replication_start(n->replication);
    m->timer = (struct loop_timer){.every_ms = TICK_MS, .tick = tick};
    loop_timer_add(n->main_loop, &m->timer);
    write_pidfile(n->config);
    announce(n);
    while (!shutdown_finished(n)) loop_turn(n->main_loop, -1);
    return 0;
}

static void log_lines(const struct buf *lines)
{
    for (size_t at = 0; at < lines->n;) {
        const char *end = memchr(lines->p + at, '\n', lines->n - at);
        size_t n = end ? (size_t)(end - lines->p) - at : lines->n - at;
        log_warning("%.*s", (int)n, lines->p + at);
        at += n + 1;
    }
}

int server_main(int argc, char **argv)
{
    struct config *cfg = config_create();
    struct buf warnings = {0};
    char *error = NULL;
    if (argc > 1 && (strcmp(argv[1], "-v") == 0 || strcmp(argv[1], "--version") == 0)) {
        printf("Covey server v=%s, compatible with Redis server v=7.0.15 malloc=%s bits=64\n", COVEY_VERSION,
               mem_allocator_name());
        return 0;
    }
    if (config_load(cfg, argc, argv, &error, &warnings) != OK) {
        fprintf(stderr, "%s\n", error);
        return 1;
    }
    if (!open_log(cfg) || !enter_directory(cfg)) return 1;
    if (config_bool(cfg, CFG_DAEMONIZE) && daemon(1, 0) < 0) return 1;
    log_lines(&warnings);
    buf_deinit(&warnings);
    block_signals();
    raise_fd_limit(cfg);
    static struct main_thread m;
    m.node = node_create(cfg);
    /* Other threads run: memory goes with the process, and nothing of theirs is torn down under them. */
    _exit(run(&m));
}
