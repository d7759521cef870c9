/* proxy.c: puts the proxy together; the main thread accepts connections and waits for signals. */
#include "proxy/proxy.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/random.h"
#include "base/version.h"
#include "proxy/cluster/worker.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { ACCEPTS_A_TURN = 1000, RESERVED_FDS = 128 };

/* ---- accepting ---- */

static struct worker *least_loaded(const struct proxy *p)
{
    struct worker *best = p->workers[0];
    for (int64_t i = 1; i < p->config.workers; i++)
        if (atomic_load(&p->workers[i]->given) < atomic_load(&best->given)) best = p->workers[i];
    return best;
}

static void welcome(struct proxy *p, int fd)
{
    static const char too_many[] = "-ERR max number of clients reached\r\n";
    size_t put;
    atomic_fetch_add(&p->connections, 1);
    if (atomic_fetch_add(&p->clients, 1) < p->config.maxclients) {
        proxy_worker_adopt(least_loaded(p), fd);
        return;
    }
    if (net_write(fd, too_many, sizeof too_many - 1, &put) != OK) log_verbose("A refused client was gone already");
    close(fd);
    atomic_fetch_sub(&p->clients, 1);
    atomic_fetch_add(&p->rejected, 1);
}

static void accept_ready(struct loop_source *src, int events)
{
    struct proxy *p = container_of(src, struct proxy, listener);
    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        int fd = net_accept(src->fd);
        if (fd < 0) {
            if (errno != EAGAIN && errno != ECONNABORTED)
                log_warning("Accepting client connection: %s", strerror(errno));
            return;
        }
        welcome(p, fd);
    }
}

static bool listen_on(struct proxy *p)
{
    const struct address *a = &p->config.listen;
    p->listener =
        (struct loop_source){.fd = net_listen_tcp(a->host, a->port, (int)p->config.backlog), .ready = accept_ready};
    if (p->listener.fd >= 0 && loop_add(p->loop, &p->listener, NET_READ) == OK) return true;
    log_warning("Cannot listen on %s:%d: %s", a->host, a->port, strerror(errno));
    return false;
}

/* ---- signals ---- */

static void signals_ready(struct loop_source *src, int events)
{
    struct proxy *p = container_of(src, struct proxy, signals);
    struct signalfd_siginfo info;
    (void)events;
    while (read(src->fd, &info, sizeof info) == (ssize_t)sizeof info) p->stop = true;
}

/* Before any thread exists, so that only the main thread sees them. */
static bool take_signals(struct proxy *p)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    p->signals = (struct loop_source){.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), .ready = signals_ready};
    return p->signals.fd >= 0 && loop_add(p->loop, &p->signals, NET_READ) == OK;
}

/* ---- the process ---- */

static void raise_fd_limit(struct proxy_config *c)
{
    struct rlimit limit;
    int64_t want = c->maxclients + c->pinned_max + RESERVED_FDS;
    if (getrlimit(RLIMIT_NOFILE, &limit) || (int64_t)limit.rlim_cur >= want) return;
    limit.rlim_cur = (int64_t)limit.rlim_max >= want ? (rlim_t)want : limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) == 0 && (int64_t)limit.rlim_cur >= want) return;
    int64_t room = (int64_t)limit.rlim_cur - RESERVED_FDS;
    c->pinned_max = c->pinned_max < room / 4 ? c->pinned_max : room / 4;
    c->maxclients = room - c->pinned_max > 1 ? room - c->pinned_max : 1;
    log_warning("The limit of open files allows %lld clients and %lld pinned connections only",
                (long long)c->maxclients, (long long)c->pinned_max);
}

static void write_pidfile(const struct proxy_config *c)
{
    FILE *f = *c->pidfile ? fopen(c->pidfile, "w") : NULL;
    if (!f) return;
    fprintf(f, "%d\n", (int)getpid());
    fclose(f);
}

static void map_changed(void *ctx, struct topology_map *map)
{
    struct proxy *p = ctx;
    for (int64_t i = 0; i < p->config.workers; i++) proxy_worker_publish(p->workers[i], map);
}

static int run(struct proxy *p)
{
    if (!take_signals(p) || !policy_create(p) || !listen_on(p)) return 1;
    raise_fd_limit(&p->config);
    write_pidfile(&p->config);
    p->topology = topology_create(&p->config, map_changed, p);
    p->workers = mem_calloc((size_t)p->config.workers, sizeof(struct worker *));
    for (int64_t i = 0; i < p->config.workers; i++) p->workers[i] = proxy_worker_create(p, (int)i);
    for (int64_t i = 0; i < p->config.workers; i++) proxy_worker_start(p->workers[i]);
    topology_start(p->topology);
    log_notice("Covey proxy %s, %lld workers, pid %d", COVEY_VERSION, (long long)p->config.workers, (int)getpid());
    log_notice("Ready to accept connections on port %d", p->config.listen.port);
    while (!p->stop) loop_turn(p->loop, -1);
    log_notice("Stopping");
    topology_stop(p->topology);
    for (int64_t i = 0; i < p->config.workers; i++) proxy_worker_stop(p->workers[i]);
    for (int64_t i = 0; i < p->config.workers; i++) proxy_worker_destroy(p->workers[i]);
    topology_destroy(p->topology);
    mem_free(p->workers);
    policy_destroy(p);
    if (*p->config.pidfile) unlink(p->config.pidfile);
    return 0;
}

int proxy_main(int argc, char **argv)
{
    struct proxy *p = mem_calloc(1, sizeof *p);
    int code;
    uint64_t seed;
    random_secure(&seed, sizeof seed);
    hash_seed_set(seed);
    if (proxy_config_parse(&p->config, argc, argv, &code)) {
        if (log_open(p->config.logfile) != OK) fprintf(stderr, "Can't open the log file '%s'\n", p->config.logfile);
        log_set_role('X');
        p->loop = loop_create();
        p->started_ms = clock_wall_ms();
        random_hex(p->run_id, 40);
        code = run(p);
        if (p->listener.fd > 0) close(p->listener.fd);
        if (p->signals.fd > 0) close(p->signals.fd);
        loop_destroy(p->loop);
    }
    proxy_config_deinit(&p->config);
    mem_free(p);
    return code;
}
