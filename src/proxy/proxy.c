/* proxy.c: the process: puts the front and its backends together, waits for signals, and ends politely. */
#include "proxy/proxy.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/random.h"
#include "base/version.h"
#include "proxy/adopt.h"
#include "proxy/cluster/cluster.h"
#include "proxy/front/front.h"
#include "proxy/handover.h"
#include "proxy/metrics.h"
#include "proxy/nutcracker.h"
#include "proxy/pool/pools.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { RESERVED_FDS = 128, LOOK_MS = 10, VERBOSITY_MAX = 11, GET_KNOWN_MS = 10000 };

struct process {
    int argc; /* of the settings */
    char **argv;
    struct proxy_config *config; /* held */
    struct loop *loop;
    struct loop_source signals;
    struct front *front;
    struct proxy *cluster; /* NULL: none */
    struct pools *pools;   /* NULL: none */
    struct metrics metrics;
    struct hand_over hand_over;
    int before; /* the process that is taken over from; negative: none */
    int verbosity;
    bool reload, stop, hurry;
};

/* ---- the log ---- */

static void set_verbosity(struct process *p, int verbosity)
{
    p->verbosity = verbosity < 0 ? 0 : verbosity > VERBOSITY_MAX ? VERBOSITY_MAX : verbosity;
    log_set_level(p->verbosity <= 4   ? LOG_WARNING
                  : p->verbosity == 5 ? LOG_NOTICE
                  : p->verbosity <= 7 ? LOG_VERBOSE
                                      : LOG_DEBUG);
}

static void change_verbosity(struct process *p, int by)
{
    set_verbosity(p, p->verbosity + by);
    log_warning("The log's level is %d now", p->verbosity);
}

/* ---- signals ---- */

static void signals_ready(struct loop_source *src, int events)
{
    struct process *p = container_of(src, struct process, signals);
    struct signalfd_siginfo info;
    (void)events;
    while (read(src->fd, &info, sizeof info) == (ssize_t)sizeof info) {
        switch (info.ssi_signo) {
        case SIGHUP: p->reload = true; break;
        case SIGUSR2: hand_over_to_new_program(&p->hand_over); break;
        case SIGTTIN: change_verbosity(p, 1); break;
        case SIGTTOU: change_verbosity(p, -1); break;
        default:
            p->hurry = p->stop; /* the second one */
            p->stop = true;
        }
    }
}

/* Before any thread exists, so that only the main thread sees them. */
static bool take_signals(struct process *p)
{
    static const int taken[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR2, SIGTTIN, SIGTTOU};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) sigaddset(&set, taken[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGUSR1, SIG_IGN);
    signal(SIGCHLD, SIG_IGN); /* of a process that is to take over nothing has to be learnt */
    p->signals = (struct loop_source){.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), .ready = signals_ready};
    return p->signals.fd >= 0 && loop_add(p->loop, &p->signals, NET_READ) == OK;
}

/* ---- the process ---- */

/* Descriptors for as many clients as are allowed; where the system does not give them, fewer are allowed. */
static void raise_fd_limit(struct proxy_config *c)
{
    struct rlimit limit;
    int64_t want = c->maxclients + c->pinned_max + RESERVED_FDS;
    if (getrlimit(RLIMIT_NOFILE, &limit) || (int64_t)limit.rlim_cur >= want) return;
    limit.rlim_cur = (int64_t)limit.rlim_max >= want ? (rlim_t)want : limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) == 0 && (int64_t)limit.rlim_cur >= want) return;
    if (c->seed_count == 0) return; /* pools have no limit of their own: who comes too late is refused */
    int64_t room = (int64_t)limit.rlim_cur - RESERVED_FDS;
    c->pinned_max = c->pinned_max < room / 4 ? c->pinned_max : room / 4;
    c->maxclients = room - c->pinned_max > 1 ? room - c->pinned_max : 1;
    log_warning("The limit of open files allows %lld clients and %lld pinned connections only",
                (long long)c->maxclients, (long long)c->pinned_max);
}

static void write_pidfile(const char *path)
{
    FILE *f = *path ? fopen(path, "w") : NULL;
    if (!f) {
        if (*path) log_warning("Cannot write %s: %s", path, strerror(errno));
        return;
    }
    fprintf(f, "%d\n", (int)getpid());
    fclose(f);
}

/* Another process may have written its own meanwhile. */
static void remove_pidfile(const char *path)
{
    int pid = 0;
    FILE *f = *path ? fopen(path, "r") : NULL;
    if (!f) return;
    bool ours = fscanf(f, "%d", &pid) == 1 && pid == (int)getpid();
    fclose(f);
    if (ours) unlink(path);
}

/* Before any descriptor of ours exists; the working directory stays, because names in the settings mean it. */
static bool go_to_background(void)
{
    for (int i = 0; i < 2; i++) {
        pid_t pid = fork();
        if (pid < 0) return false;
        if (pid > 0) _exit(0);
        if (i == 0 && setsid() < 0) return false;
    }
    int fd = open("/dev/null", O_RDWR);
    if (fd < 0) return false;
    for (int to = 0; to <= 2; to++) dup2(fd, to);
    if (fd > 2) close(fd);
    return true;
}

static struct proxy_config *read_settings(const struct process *p, struct buf *error)
{
    return proxy_config_read(p->argc, p->argv, error);
}

/* ---- reload ---- */

static bool adopt_settings(struct process *p, struct proxy_config *c)
{
    struct proxy_config *old = p->config;
    raise_fd_limit(c);
    if (!proxy_adopt(p->front, p->cluster, c, old)) return false;
    p->config = c;
    proxy_config_release(old);
    set_verbosity(p, (int)c->verbosity);
    return true;
}

/* CONFIG SET. */
static bool adopt_change(void *ctx, struct proxy_config *c)
{
    struct process *p = ctx;
    bool other_log = strcmp(p->config->logfile, c->logfile) != 0;
    if (!adopt_settings(p, c)) return false;
    if (other_log && log_open(c->logfile) != OK) log_warning("Cannot open the log file %s", c->logfile);
    return true;
}

static bool reread_settings(struct process *p)
{
    struct buf error = {0};
    struct proxy_config *c = read_settings(p, &error);
    if (!c) log_warning("%.*s", (int)(error.n ? error.n - 1 : 0), error.p);
    buf_deinit(&error);
    if (!c) return false;
    proxy_config_keep_fixed(c, p->config);
    if ((c->seed_count > 0) != (p->cluster != NULL)) log_warning("A cluster comes or goes with a restart only");
    if (adopt_settings(p, c)) return true;
    proxy_config_release(c);
    return false;
}

static void reload(struct process *p)
{
    p->reload = false;
    bool good = reread_settings(p);
    if (log_open(p->config->logfile) != OK) log_warning("Cannot open the log file %s again", p->config->logfile);
    if (good && p->pools) good = pools_reload(p->pools);
    if (!good)
        log_warning("The configuration stays as it was");
    else if (p->cluster)
        log_notice("The settings are read again");
}

/* ---- from start to end ---- */

static bool put_together(struct process *p)
{
    p->front = front_create(p->loop, p->config);
    if (!p->front) return false;
    p->front->adopt = adopt_change;
    p->front->adopt_ctx = p;
    p->hand_over.front = p->front;
    p->before = take_over_begin(p->front, p->config->take_over);
    if (p->before == -2) return false;
    if (!proxy_install_tls(p->front, p->config)) return false;
    if (p->config->seed_count) {
        p->cluster = proxy_cluster_create(p->front, NULL);
        if (!p->cluster || !proxy_cluster_listen(p->cluster)) return false;
    }
    if (*p->config->pool_file && !(p->pools = pools_create(p->front))) return false;
    return metrics_open(&p->metrics, p->front, p->cluster, p->pools);
}

static void take_apart(struct process *p)
{
    metrics_close(&p->metrics);
    if (!p->front) return;
    if (p->cluster) proxy_cluster_stop(p->cluster);
    front_stop(p->front);
    for (int i = 0; i < p->front->worker_count; i++) front_close_clients(p->front->workers[i]);
    if (p->cluster) proxy_cluster_destroy(p->cluster);
    if (p->pools) pools_destroy(p->pools);
    front_destroy(p->front);
}

/* Until nobody is left, or the time is over, or a signal tells to go on; 0: no time limit. */
static void wait_for_clients(struct process *p, int64_t ms, const bool *signal)
{
    int64_t until = ms ? clock_mono_ms() + ms : INT64_MAX;
    while (!*signal && atomic_load(&p->front->clients) > 0 && clock_mono_ms() < until) loop_turn(p->loop, LOOK_MS);
}

static void drain(struct process *p)
{
    front_leave(p->front, LEAVE_WHEN_IDLE);
    if (p->config->drain_timeout_ms) wait_for_clients(p, p->config->drain_timeout_ms, &p->hurry);
    int64_t left = atomic_load(&p->front->clients);
    if (left > 0) log_warning("%lld clients are cut off", (long long)left);
}

/* Another process listens now; the clients that are here may stay. */
static void see_clients_off(struct process *p)
{
    log_notice("Another process has taken over; %lld clients stay here until they go",
               (long long)atomic_load(&p->front->clients));
    front_leave(p->front, LEAVE_WHEN_THEY_DO);
    metrics_close(&p->metrics);
    if (p->pools) pools_close_stats(p->pools);
    hand_over_close(&p->hand_over);
    wait_for_clients(p, p->config->hand_over_timeout_ms, &p->stop);
}

/* From here on it serves.  False: it cannot, and the process before goes on. */
static bool begin_to_serve(struct process *p)
{
    int64_t until = clock_mono_ms() + GET_KNOWN_MS;
    if (p->before >= 0) {
        while (p->cluster && !proxy_cluster_is_known(p->cluster) && clock_mono_ms() < until) usleep(LOOK_MS * 1000);
        if (p->cluster && !proxy_cluster_is_known(p->cluster)) {
            log_warning("The cluster cannot be seen: the process before goes on");
            close(p->before);
            return false;
        }
        take_over_ready(p->before);
        log_notice("Taken over from the process before");
    }
    if (!hand_over_listen(&p->hand_over, p->front, p->config->control_socket))
        log_warning("Cannot listen on %s: %s", p->config->control_socket, strerror(errno));
    return true;
}

static void greet(const struct process *p)
{
    const struct proxy_config *c = p->config;
    log_notice("Covey proxy %s, %lld workers, pid %d", COVEY_VERSION, (long long)c->workers, (int)getpid());
    list_each(it, &p->front->listeners)
    {
        const struct front_listener *l = container_of(it, struct front_listener, link);
        log_notice("Ready to accept %sconnections at %s", l->is_tls ? "TLS " : "", l->name);
    }
}

static int serve(struct process *p)
{
    p->loop = loop_create();
    raise_fd_limit(p->config);
    if (!take_signals(p)) return 1;
    bool good = put_together(p);
    if (good) {
        if (p->cluster) proxy_cluster_start(p->cluster);
        front_start(p->front);
        good = begin_to_serve(p);
    }
    if (good) {
        write_pidfile(p->config->pidfile);
        greet(p);
        while (!p->stop && !p->hand_over.done) {
            loop_turn(p->loop, -1);
            if (p->reload) reload(p);
        }
        if (p->hand_over.done) see_clients_off(p);
        log_notice("Stopping");
        drain(p);
        remove_pidfile(p->config->pidfile);
    }
    hand_over_close(&p->hand_over);
    take_apart(p);
    loop_remove(p->loop, &p->signals);
    loop_destroy(p->loop);
    return good ? 0 : 1;
}

static int run(int argc, char **argv)
{
    struct process p = {.argc = argc, .argv = argv};
    struct buf error = {0};
    p.config = read_settings(&p, &error);
    if (!p.config) fprintf(stderr, "covey proxy: %.*s", (int)error.n, error.p);
    buf_deinit(&error);
    if (!p.config) return 2;
    int code = 1;
    uint64_t seed;
    random_secure(&seed, sizeof seed);
    hash_seed_set(seed);
    if (p.config->daemonize && !go_to_background()) {
        fprintf(stderr, "covey proxy: cannot run in the background: %s\n", strerror(errno));
    } else if (log_open(p.config->logfile) != OK) {
        fprintf(stderr, "covey proxy: cannot open the log file %s: %s\n", p.config->logfile, strerror(errno));
    } else {
        set_verbosity(&p, (int)p.config->verbosity);
        log_set_role('X');
        code = serve(&p);
    }
    proxy_config_release(p.config);
    return code;
}

static int run_as_nutcracker(int argc, char **argv, bool by_name)
{
    struct nutcracker_call call;
    int code = 0;
    if (!nutcracker_options(argc, argv, by_name, &call)) {
        fputs(nutcracker_usage, stderr);
        code = 1;
    } else if (call.help || call.version || call.describe) {
        printf("covey %s, in place of nutcracker 0.5.0\n", COVEY_VERSION);
        if (call.help) printf("\n%s", nutcracker_usage);
        if (call.describe) printf("\n"), pools_describe_stats();
    } else {
        code = call.test ? pools_test_file(call.conf) : run(call.argc, call.argv);
    }
    nutcracker_call_deinit(&call);
    return code;
}

int nutcracker_main(int argc, char **argv)
{
    return run_as_nutcracker(argc, argv, true);
}

int proxy_main(int argc, char **argv)
{
    bool help = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--pool") == 0 || strncmp(argv[i], "--pool=", 7) == 0)
            return run_as_nutcracker(argc, argv, false);
        help |= strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0;
    }
    if (!help) return run(argc, argv);
    proxy_config_usage();
    return 0;
}
