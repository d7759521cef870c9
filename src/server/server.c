/* server.c: puts the data node together, runs its main thread (accepting, signals, save points), takes it down. */
#include "server/server.h"

#include "base/clock.h"
#include "base/crash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/syslog.h"
#include "base/version.h"
#include "change/durable.h"
#include "observe/errorstats.h"
#include "server/acl_node.h"
#include "server/affinity.h"
#include "server/aof.h"
#include "server/beside.h"
#include "server/cluster_node.h"
#include "server/conn.h"
#include "server/crash_report.h"
#include "server/crew.h"
#include "server/failover.h"
#include "server/huge_pages.h"
#include "server/last_writes.h"
#include "server/latency.h"
#include "server/listen.h"
#include "server/memory.h"
#include "server/multi.h"
#include "server/oom.h"
#include "server/persistence.h"
#include "server/pubsub.h"
#include "server/replication.h"
#include "server/sampler.h"
#include "server/scripting.h"
#include "server/shutdown.h"
#include "server/slowlog.h"
#include "server/snapshot_budget.h"
#include "server/supervise.h"
#include "server/tracking.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { RESERVED_FDS = 32, TICK_MS = 100, LEAVE_MS = 1000, BACKLOG_MIN = 16384 };

struct main_thread {
    struct node *node;
    struct loop_source signals;
    struct loop_timer timer;
    struct memory_trim trim;
    const struct server_beside *beside;
    int signal;             /* that ends the process when the proxy's clients are gone; 0: none */
    int64_t leave_until_ms; /* ... or then, monotonic */
    bool proxy_leaves;
};

/* ---- signals and the clock ---- */

/* Clients of the proxy get the replies that are under way before the node ends; a second signal does not wait. */
static void see_proxy_off(struct main_thread *m, int signal)
{
    m->signal = signal;
    m->proxy_leaves = true;
    m->leave_until_ms = clock_mono_ms() + LEAVE_MS;
    beside_leave(m->node, true);
}

static void signals_ready(struct loop_source *src, int events)
{
    struct main_thread *m = container_of(src, struct main_thread, signals);
    struct signalfd_siginfo info;
    (void)events;
    while (read(src->fd, &info, sizeof info) == (ssize_t)sizeof info) {
        log_warning("Received %s scheduling shutdown...", info.ssi_signo == SIGINT ? "SIGINT" : "SIGTERM");
        if (!m->proxy_leaves && beside_clients(m->node) > 0 && !atomic_load(&m->node->loading)) {
            see_proxy_off(m, (int)info.ssi_signo);
            continue;
        }
        m->signal = 0;
        shutdown_on_signal(m->node, (int)info.ssi_signo);
    }
}

static void look_after_proxy(struct main_thread *m, int64_t now_mono_ms)
{
    int signal = m->signal;
    if (signal && beside_clients(m->node) > 0 && now_mono_ms < m->leave_until_ms) return;
    m->signal = 0;
    if (signal) shutdown_on_signal(m->node, signal);
    if (shutdown_in_ms(m->node) >= 0) return;
    m->proxy_leaves = false; /* it could not be done */
    beside_leave(m->node, false);
}

static void tick(struct loop_timer *t, int64_t now_mono_ms)
{
    struct main_thread *m = container_of(t, struct main_thread, timer);
    memory_watch(m->node); /* keeps the peak, too */
    memory_trim(m->node, &m->trim);
    persistence_tick(m->node->persistence, clock_wall_ms());
    aof_tick(m->node->aof, clock_wall_ms());
    snapshot_budget_tick(m->node->snapshot_budget, now_mono_ms);
    shutdown_tick(m->node);
    if (m->proxy_leaves) look_after_proxy(m, now_mono_ms);
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

/* Raises the limit of open files as far as maxclients needs it.  Gives how many clients it allows. */
static int64_t clients_possible(const struct config *cfg)
{
    struct rlimit limit;
    int64_t want = config_num(cfg, CFG_MAXCLIENTS) + RESERVED_FDS, better = want + beside_fds(cfg);
    if (getrlimit(RLIMIT_NOFILE, &limit)) return INT64_MAX;
    if ((int64_t)limit.rlim_cur < better) {
        limit.rlim_cur = (int64_t)limit.rlim_max >= better ? (rlim_t)better : limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    return (int64_t)limit.rlim_cur - RESERVED_FDS;
}

static void raise_fd_limit(struct config *cfg)
{
    int64_t possible = clients_possible(cfg);
    if (possible >= config_num(cfg, CFG_MAXCLIENTS)) return;
    log_warning("The open files limit allows %lld clients only; maxclients was lowered", (long long)possible);
    config_force_num(cfg, CFG_MAXCLIENTS, possible);
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
    if (id == CFG_CRASH_LOG_ENABLED) crash_reports(config_bool(n->config, id));
    if (id == CFG_MAXMEMORY || id == CFG_MAXMEMORY_POLICY) limit_changed(n, id);
    acl_node_reconfigure(n, id);
    beside_reconfigure(n, id);
    if (id == CFG_MIN_REPLICAS_TO_ACK_READS) last_writes_reconfigure(n);
    if (id == CFG_APPENDFSYNC || id == CFG_AOF_DISABLE_AUTO_GC) aof_reconfigure(n->aof);
    if (id == CFG_REPL_BACKLOG_SIZE && config_num(n->config, id) < BACKLOG_MIN)
        config_force_num(n->config, id, BACKLOG_MIN);
    if (id == CFG_REPL_BACKLOG_SIZE) change_log_set_backlog_size(n->log, (size_t)config_num(n->config, id));
}

static bool config_apply(void *ctx, const enum config_id *ids, size_t n, size_t *failed, const char **reason)
{
    struct node *node = ctx;
    bool on = aof_is_on(node->aof);
    int score = oom_score();
    for (size_t i = 0; i < n; i++) {
        if (ids[i] != CFG_MAXCLIENTS) continue;
        int64_t possible = clients_possible(node->config);
        if (possible >= config_num(node->config, CFG_MAXCLIENTS)) continue;
        snprintf(node->config_trouble, sizeof node->config_trouble,
                 "The operating system is not able to handle the specified number of clients, try with %lld",
                 (long long)possible);
        *failed = i;
        *reason = node->config_trouble;
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (ids[i] != CFG_APPENDONLY || aof_turn(node->aof, config_bool(node->config, CFG_APPENDONLY))) continue;
        *failed = i;
        *reason = "Unable to turn on AOF. Check server logs.";
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if ((ids[i] != CFG_OOM_SCORE_ADJ && ids[i] != CFG_OOM_SCORE_ADJ_VALUES) || oom_apply(node)) continue;
        *failed = i;
        *reason = "Failed to apply new oom_score_adj configuration, check server logs.";
        return false;
    }
    if (network_apply(node, ids, n, failed, reason)) return true;
    if (score != oom_score()) oom_put(score);
    if (!aof_turn(node->aof, on)) log_warning("The AOF could not be turned on again"); /* the old values come back */
    return false;
}

static bool open_log(struct config *cfg)
{
    char *path = config_cstr(cfg, CFG_LOGFILE);
    set_log_level(cfg);
    bool ok = log_open(path) == OK;
    if (!ok) fprintf(stderr, "Can't open the log file '%s': %s\n", path, strerror(errno));
    mem_free(path);
    if (ok && config_bool(cfg, CFG_SYSLOG_ENABLED)) {
        char *ident = config_cstr(cfg, CFG_SYSLOG_IDENT);
        syslog_start(ident, (int)config_num(cfg, CFG_SYSLOG_FACILITY));
        mem_free(ident);
    }
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

/* With one database for the cluster the others are there as in redis-server, but cannot be selected. */
static int number_of_databases(const struct config *cfg)
{
    int64_t own = config_num(cfg, CFG_DATABASES), clustered = config_num(cfg, CFG_CLUSTER_DATABASES);
    return (int)(config_bool(cfg, CFG_CLUSTER_ENABLED) && clustered > 1 ? clustered : own);
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
    oom_init(n);
    affinity_init(n);
    atomic_store(&n->active_expire, true);
    cpu_set_t own;
    affinity_parent_begin(n, &own);
    n->reaper = reaper_create();
    affinity_parent_end(&own);
    n->snapshot_budget = snapshot_budget_create(n);
    n->scripting = scripting_create();
    n->waiting = waiting_room_create(n);
    n->watch = watch_registry_create();
    n->blocking = blocking_create();
    n->store = store_create(number_of_databases(cfg), (struct store_hooks){n, slot_released, dispose});
    n->gate = gate_create();
    n->log = change_log_create((size_t)config_num(cfg, CFG_REPL_BACKLOG_SIZE));
    n->durable = mem_calloc(1, sizeof *n->durable);
    n->main_loop = loop_create();
    n->listeners = listeners_create(n);
    n->tls = tls_create();
    n->persistence = persistence_create(n);
    n->aof = aof_create(n);
    n->replication = replication_create(n);
    slowlog_init(n);
    n->failover = failover_create();
    n->shutdown = shutdown_create();
    latency_init(n);
    n->errors = errorstats_create();
    config_set_listener(cfg, config_changed, n);
    config_set_applier(cfg, config_apply, n);
    n->sampler = sampler_create(n);
    n->pubsub = pubsub_create(n);
    n->tracking = tracking_create(n);
    n->renames = config_renames(cfg);
    n->worker_count = (int)config_num(cfg, CFG_WORKERS);
    n->workers = mem_calloc((size_t)n->worker_count, sizeof *n->workers);
    return acl_node_create(n) ? n : NULL;
}

static bool load_dataset(struct node *n)
{
    char *error = NULL;
    if (!aof_open(n->aof)) return false;
    if (config_bool(n->config, CFG_APPENDONLY)) return aof_load_at_start(n->aof);
    if (persistence_load(n->persistence, &error) == OK) return true;
    log_warning("Fatal error loading the DB, check server logs. Exiting. %s", error ? error : "");
    mem_free(error);
    return false;
}

static void announce(const struct node *n)
{
    log_notice("Covey server, compatible with Redis 7.0.15, %d workers, %s, pid %d", n->worker_count,
               mem_allocator_name(), (int)getpid());
    int port = (int)config_num(n->config, CFG_PORT), tls_port = (int)config_num(n->config, CFG_TLS_PORT);
    if (port) log_notice("Ready to accept connections on port %d", port);
    if (tls_port) log_notice("Ready to accept TLS connections on port %d", tls_port);
    if (!port && !tls_port) log_notice("Ready to accept connections");
}

static int run(struct main_thread *m)
{
    struct node *n = m->node;
    if (!network_start(n)) return 1;
    if (config_bool(n->config, CFG_CLUSTER_ENABLED) && !cluster_node_create(n)) return 1;
    for (int i = 0; i < n->worker_count; i++) n->workers[i] = worker_create(n, i);
    if (!listeners_open(n->listeners) || !watch_signals(m)) return 1;
    n->startup_memory = mem_used();
    last_writes_reconfigure(n);
    /* Clients are heard while the dataset is being loaded, and told so. */
    atomic_store(&n->loading, true);
    crew_start(n);
    if (!beside_start(n, m->beside)) return 1;
    if (!load_dataset(n)) return 1;
    if (n->cluster && !cluster_node_start(n)) return 1;
    replication_start(n->replication);
    oom_apply(n);
    m->timer = (struct loop_timer){.every_ms = TICK_MS, .tick = tick};
    loop_timer_add(n->main_loop, &m->timer);
    write_pidfile(n->config);
    announce(n);
    supervise_ready(n->config);
    for (;;) loop_turn(n->main_loop, -1);
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

int server_main(int argc, char **argv, const struct server_beside *beside)
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
        mem_free(error);
        buf_deinit(&warnings);
        config_destroy(cfg);
        return 1;
    }
    if (!open_log(cfg) || !enter_directory(cfg)) return 1;
    if (config_bool(cfg, CFG_DAEMONIZE) && !supervisor(cfg) && daemon(1, 0) < 0) return 1;
    supervise_start(cfg);
    log_lines(&warnings);
    buf_deinit(&warnings);
    block_signals();
    huge_pages_check(cfg);
    crash_thread_stack();
    crash_reports(config_bool(cfg, CFG_CRASH_LOG_ENABLED));
    raise_fd_limit(cfg);
    static struct main_thread m;
    m.node = node_create(cfg);
    m.beside = beside;
    if (!m.node) return 1;
    crash_report_init(m.node);
    /* Other threads run: memory goes with the process, and nothing of theirs is torn down under them. */
    _exit(run(&m));
}
