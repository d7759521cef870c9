/* process.c: options, listeners, signals, and one configuration after another. */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/version.h"
#include "proxy/pool/engine.h"
#include "proxy/pool/poolproxy.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TICK_MS = 10, DRAIN_MS = 5000, ACCEPTS_A_TURN = 1000, MBUF_MIN = 512, MBUF_MAX = 16 * 1024 * 1024 };

struct options {
    bool help, version, test, daemonize, describe;
    const char *conf, *log, *pidfile, *stats_host;
    int verbosity, stats_port;
};

/* ---- accepting ---- */

int pool_listen(const struct pool_conf *conf, bool beside)
{
    if (conf->listen_port == 0)
        return net_listen_unix(conf->listen_host, conf->listen_mode < 0 ? 0 : (unsigned)conf->listen_mode,
                               conf->backlog);
    if (beside || conf->reuseport) return net_listen_tcp_beside(conf->listen_host, conf->listen_port, conf->backlog);
    return net_listen_tcp(conf->listen_host, conf->listen_port, conf->backlog);
}

/* Without this, a client that cannot be accepted would be reported again and again. */
static void refuse_one(struct pool *p)
{
    struct engine *e = p->engine;
    log_warning("Pool %s: a client is refused: %s", p->conf->name, strerror(errno));
    if (e->spare_fd >= 0) close(e->spare_fd);
    int fd = net_accept(p->listener.fd);
    if (fd >= 0) close(fd);
    e->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

void pool_accept_ready(struct loop_source *src, int events)
{
    struct pool *p = container_of(src, struct pool, listener);
    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        int fd = net_accept(src->fd);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE) refuse_one(p);
            return;
        }
        int limit = p->conf->client_connections;
        if ((limit > 0 && p->stats.client_connections >= (uint64_t)limit) || !client_adopt(p, fd)) close(fd);
    }
}

/* Takes over the descriptor. */
static bool listen_with(struct pool *p, int fd)
{
    p->listener = (struct loop_source){.fd = fd, .ready = pool_accept_ready};
    return loop_add(p->engine->loop, &p->listener, NET_READ) == OK;
}

static int take_listener(struct pool *p)
{
    int fd = p->listener.fd;
    if (fd >= 0) loop_remove(p->engine->loop, &p->listener);
    return fd;
}

static void close_listener(struct pool *p)
{
    int fd = take_listener(p);
    if (fd >= 0) close(fd);
}

/* ---- one configuration after another ---- */

static struct pool *pool_named(struct engine *e, const char *name)
{
    for (size_t i = 0; i < e->pools_n; i++)
        if (strcmp(e->pools[i]->conf->name, name) == 0) return e->pools[i];
    return NULL;
}

static struct pool *pool_listening_at(struct engine *e, const char *listen)
{
    for (size_t i = 0; i < e->pools_n; i++)
        if (strcmp(e->pools[i]->conf->listen, listen) == 0) return e->pools[i];
    return NULL;
}

struct plan {
    struct pool **pools;
    int *fds; /* of pools that listen where nobody did; -1: taken over */
    size_t n;
};

static void plan_drop(struct plan *plan)
{
    for (size_t i = 0; i < plan->n; i++) {
        if (plan->pools[i]) pool_destroy(plan->pools[i]);
        if (plan->fds[i] >= 0) close(plan->fds[i]);
    }
    mem_free(plan->pools);
    mem_free(plan->fds);
}

/* Everything that can fail is done here. */
static bool plan_make(struct engine *e, struct generation *g, struct plan *plan)
{
    plan->n = g->file.n;
    plan->pools = mem_calloc(plan->n, sizeof(struct pool *));
    plan->fds = mem_alloc(plan->n * sizeof *plan->fds);
    for (size_t i = 0; i < plan->n; i++) plan->fds[i] = -1;
    g->refs++; /* while it is made */
    bool good = true;
    for (size_t i = 0; good && i < plan->n; i++) {
        const struct pool_conf *conf = &g->file.pools[i];
        plan->pools[i] = pool_create(e, g, conf);
        good = plan->pools[i] != NULL;
        if (!good) log_warning("Pool %s: out of memory", conf->name);
        if (!good || pool_listening_at(e, conf->listen)) continue;
        plan->fds[i] = pool_listen(conf, false);
        good = plan->fds[i] >= 0;
        if (!good) log_warning("Pool %s: cannot listen on %s: %s", conf->name, conf->listen, strerror(errno));
    }
    if (!good) plan_drop(plan);
    if (--g->refs == 0) {
        pool_conf_deinit(&g->file);
        mem_free(g);
    }
    return good;
}

static void inherit(struct pool *p, struct pool *old)
{
    uint64_t connected = p->stats.client_connections;
    p->stats = old->stats;
    p->stats.client_connections = connected;
    for (size_t i = 0; i < p->conf->servers_n; i++)
        for (size_t k = 0; k < old->conf->servers_n; k++)
            if (strcmp(p->servers[i].conf->name, old->servers[k].conf->name) == 0) {
                p->servers[i].stats = old->servers[k].stats;
                p->servers[i].stats.connections = 0;
            }
    bool same_kind = p->conf->redis == old->conf->redis;
    while (same_kind && !list_empty(&old->clients)) {
        struct pool_client *c = container_of(old->clients.next, struct pool_client, link);
        list_remove(&c->link);
        list_push_back(&p->clients, &c->link);
        c->pool = p;
        old->stats.client_connections--;
        p->stats.client_connections++;
    }
}

static void adopt_plan(struct engine *e, struct plan *plan)
{
    for (size_t i = 0; i < plan->n; i++) {
        struct pool *p = plan->pools[i], *named = pool_named(e, p->conf->name);
        struct pool *at = pool_listening_at(e, p->conf->listen);
        int fd = at ? take_listener(at) : plan->fds[i];
        if (at && listen(fd, p->conf->backlog) < 0) log_warning("Pool %s: %s", p->conf->name, strerror(errno));
        if (named) inherit(p, named);
        if (!listen_with(p, fd)) log_warning("Pool %s: no memory to listen", p->conf->name);
        pool_preconnect(p);
    }
    e->retired = mem_realloc(e->retired, (e->retired_n + e->pools_n + 1) * sizeof(struct pool *));
    for (size_t i = 0; i < e->pools_n; i++) {
        close_listener(e->pools[i]);
        e->retired[e->retired_n++] = e->pools[i];
    }
    mem_free(e->pools);
    mem_free(plan->fds);
    e->pools = plan->pools;
    e->pools_n = plan->n;
}

static bool load(struct engine *e)
{
    struct generation *g = mem_calloc(1, sizeof *g);
    char error[POOL_CONF_ERROR_MAX];
    if (pool_conf_load(e->conf_path, &g->file, error) != OK) {
        log_warning("%s", error);
        mem_free(g);
        return false;
    }
    struct plan plan;
    if (!plan_make(e, g, &plan)) return false;
    adopt_plan(e, &plan);
    return true;
}

static void reload(struct engine *e)
{
    e->reload = false;
    if (log_open(e->log_path) != OK) log_warning("Cannot open the log file %s again", e->log_path);
    if (load(e))
        log_notice("%s is read again: %zu pools", e->conf_path, e->pools_n);
    else
        log_warning("The configuration stays as it was");
}

static void drop_idle(struct engine *e)
{
    size_t kept = 0;
    for (size_t i = 0; i < e->retired_n; i++) {
        if (pool_is_idle(e->retired[i]))
            pool_destroy(e->retired[i]);
        else
            e->retired[kept++] = e->retired[i];
    }
    e->retired_n = kept;
}

/* ---- turns ---- */

static void tick(struct loop_timer *t, int64_t now_ms)
{
    struct engine *e = container_of(t, struct engine, tick);
    e->now_ms = now_ms;
    for (size_t i = 0; i < e->pools_n; i++) pool_check_timeouts(e->pools[i]);
    for (size_t i = 0; i < e->retired_n; i++) pool_check_timeouts(e->retired[i]);
    if (e->retired_n > 0) drop_idle(e);
}

static void turn_begin(void *ctx)
{
    struct engine *e = ctx;
    e->now_ms = loop_now_ms(e->loop);
}

/* What came in this turn leaves with it: requests first, then replies; these may let more requests in. */
static void turn_end(void *ctx)
{
    struct engine *e = ctx;
    while (!list_empty(&e->dirty_links) || !list_empty(&e->dirty_clients)) {
        while (!list_empty(&e->dirty_links)) {
            struct server_link *l = container_of(e->dirty_links.next, struct server_link, dirty);
            list_remove(&l->dirty);
            server_link_flush(l);
        }
        while (!list_empty(&e->dirty_clients)) {
            struct pool_client *c = container_of(e->dirty_clients.next, struct pool_client, dirty);
            list_remove(&c->dirty);
            pool_client_flush(c);
        }
    }
}

static void signals_ready(struct loop_source *src, int events)
{
    struct engine *e = container_of(src, struct engine, signals);
    struct signalfd_siginfo info;
    (void)events;
    while (read(src->fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGHUP)
            e->reload = true;
        else
            e->stop = true;
    }
}

static bool take_signals(struct engine *e)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, SIG_IGN);
    signal(SIGTTIN, SIG_IGN);
    signal(SIGTTOU, SIG_IGN);
    e->signals = (struct loop_source){.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), .ready = signals_ready};
    return e->signals.fd >= 0 && loop_add(e->loop, &e->signals, NET_READ) == OK;
}

static bool all_idle(const struct engine *e)
{
    for (size_t i = 0; i < e->pools_n; i++) list_each(it, &e->pools[i]->clients)
        {
            const struct pool_client *c = container_of(it, struct pool_client, link);
            if (c->first || c->out_pos < c->out.n) return false;
        }
    return true;
}

static void run(struct engine *e)
{
    while (!e->stop) {
        loop_turn(e->loop, -1);
        if (e->reload) reload(e);
    }
    for (size_t i = 0; i < e->pools_n; i++) {
        close_listener(e->pools[i]);
        if (e->pools[i]->conf->listen_port == 0) unlink(e->pools[i]->conf->listen_host);
    }
    int64_t until = clock_mono_ms() + DRAIN_MS;
    while (!all_idle(e) && clock_mono_ms() < until) loop_turn(e->loop, TICK_MS);
}

static void destroy(struct engine *e)
{
    for (size_t i = 0; i < e->pools_n + e->retired_n; i++) {
        struct pool *p = i < e->pools_n ? e->pools[i] : e->retired[i - e->pools_n];
        while (!list_empty(&p->clients)) pool_client_destroy(container_of(p->clients.next, struct pool_client, link));
        close_listener(p);
        pool_destroy(p);
    }
    mem_free(e->pools);
    mem_free(e->retired);
    if (e->stats_listener.fd > 0) close(e->stats_listener.fd);
    if (e->signals.fd > 0) close(e->signals.fd);
    if (e->spare_fd >= 0) close(e->spare_fd);
    resp_request_deinit(&e->request);
    mc_request_deinit(&e->mc_request);
    loop_destroy(e->loop);
}

/* ---- options ---- */

static const char usage_text[] =
    "Usage: nutcracker [options], or covey proxy --pool FILE [options]\n\n"
    "  -h, --help              this text\n"
    "  -V, --version           the version\n"
    "  -t, --test-conf         read the configuration, say whether it is good, and exit\n"
    "  -d, --daemonize         run in the background\n"
    "  -D, --describe-stats    what the statistics mean\n"
    "  -v, --verbose=N         0 to 11: up to 4 warnings, 5 notices (default), 6 and 7 more, from 8 everything\n"
    "  -o, --output=FILE       the log (default: standard output)\n"
    "  -c, --conf-file=FILE    the configuration (default: conf/nutcracker.yml)\n"
    "  -s, --stats-port=N      port of the statistics (default: 22222)\n"
    "  -a, --stats-addr=ADDR   address of the statistics (default: 0.0.0.0)\n"
    "  -i, --stats-interval=N  accepted; statistics are always those of the moment\n"
    "  -p, --pid-file=FILE     where the process id goes (default: nowhere)\n"
    "  -m, --mbuf-size=N       accepted (512 to 16777216); buffers have the size they need\n\n"
    "SIGHUP reads the configuration again and opens the log anew, without closing a connection.\n";

static int whole_number(const char *text)
{
    char *end;
    if (*text < '0' || *text > '9') return -1;
    errno = 0;
    long n = strtol(text, &end, 10);
    return *end || errno || n > INT_MAX ? -1 : (int)n;
}

static bool bad_option(const char *fmt, int c)
{
    fprintf(stderr, "nutcracker: ");
    fprintf(stderr, fmt[0] == 'n' ? "option -%c requires a number\n" : "option -%c has a value out of its range\n", c);
    return false;
}

static bool set_number(struct options *o, int c, const char *text)
{
    int n = whole_number(text);
    if (n < 0) return bad_option("n", c);
    if (c == 'v') o->verbosity = n;
    if (c == 's' && (n < 1 || n > 65535)) return bad_option("r", c);
    if (c == 's') o->stats_port = n;
    if (c == 'm' && (n < MBUF_MIN || n > MBUF_MAX)) return bad_option("r", c);
    return true;
}

static bool read_options(struct options *o, int argc, char **argv)
{
    static const struct option names[] = {{"help", no_argument, NULL, 'h'},
                                          {"version", no_argument, NULL, 'V'},
                                          {"test-conf", no_argument, NULL, 't'},
                                          {"daemonize", no_argument, NULL, 'd'},
                                          {"describe-stats", no_argument, NULL, 'D'},
                                          {"verbose", required_argument, NULL, 'v'},
                                          {"output", required_argument, NULL, 'o'},
                                          {"conf-file", required_argument, NULL, 'c'},
                                          {"stats-port", required_argument, NULL, 's'},
                                          {"stats-interval", required_argument, NULL, 'i'},
                                          {"stats-addr", required_argument, NULL, 'a'},
                                          {"pid-file", required_argument, NULL, 'p'},
                                          {"mbuf-size", required_argument, NULL, 'm'},
                                          {"pool", required_argument, NULL, 'c'},
                                          {NULL, 0, NULL, 0}};
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "hVtdDv:o:c:s:i:a:p:m:", names, NULL)) != -1;) {
        switch (c) {
        case 'h': o->help = true; break;
        case 'V': o->version = true; break;
        case 't': o->test = true; break;
        case 'd': o->daemonize = true; break;
        case 'D': o->describe = true; break;
        case 'o': o->log = optarg; break;
        case 'c': o->conf = optarg; break;
        case 'a': o->stats_host = optarg; break;
        case 'p': o->pidfile = optarg; break;
        case 'v':
        case 's':
        case 'i':
        case 'm':
            if (!set_number(o, c, optarg)) return false;
            break;
        default: return false; /* getopt has said why */
        }
    }
    return true;
}

static int test_conf(const struct options *o)
{
    struct pool_conf_file file;
    char error[POOL_CONF_ERROR_MAX];
    enum status st = pool_conf_load(o->conf, &file, error);
    if (st != OK) fprintf(stderr, "nutcracker: %s\n", error);
    fprintf(stderr, "nutcracker: configuration file '%s' syntax is %s\n", o->conf, st == OK ? "ok" : "invalid");
    pool_conf_deinit(&file);
    return st == OK ? 0 : 1;
}

/* Before any descriptor of ours exists; the working directory stays, because names in the options mean it. */
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

static void write_pidfile(const char *path)
{
    FILE *f = path ? fopen(path, "w") : NULL;
    if (!f) {
        if (path) log_warning("Cannot write %s: %s", path, strerror(errno));
        return;
    }
    fprintf(f, "%d\n", (int)getpid());
    fclose(f);
}

static void raise_fd_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) log_verbose("The limit of open files stays as it is");
}

static int serve(struct engine *e, const struct options *o)
{
    e->loop = loop_create();
    e->conf_path = o->conf;
    e->log_path = o->log;
    e->started_ms = e->now_ms = clock_mono_ms();
    list_init(&e->dirty_links);
    list_init(&e->dirty_clients);
    uint64_t seed;
    random_secure(&seed, sizeof seed);
    random_seed(&e->rng, seed);
    loop_set_hooks(e->loop, turn_begin, turn_end, e);
    e->tick = (struct loop_timer){.every_ms = TICK_MS, .tick = tick};
    loop_timer_add(e->loop, &e->tick);
    raise_fd_limit();
    e->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    bool good = take_signals(e) && load(e);
    if (good && !stats_listen(e, o->stats_host, o->stats_port)) {
        log_warning("Cannot listen on %s:%d for the statistics: %s", o->stats_host, o->stats_port, strerror(errno));
        good = false;
    }
    if (good) {
        write_pidfile(o->pidfile);
        log_notice("Covey pool proxy %s, %zu pools, pid %d", COVEY_VERSION, e->pools_n, (int)getpid());
        run(e);
        log_notice("Stopping");
        if (o->pidfile) unlink(o->pidfile);
    }
    destroy(e);
    return good ? 0 : 1;
}

int poolproxy_main(int argc, char **argv)
{
    struct options o = {
        .conf = "conf/nutcracker.yml", .log = "", .stats_host = "0.0.0.0", .stats_port = 22222, .verbosity = 5};
    if (!read_options(&o, argc, argv)) {
        fputs(usage_text, stderr);
        return 1;
    }
    if (o.help || o.version || o.describe) {
        printf("covey %s, in place of nutcracker 0.5.0\n", COVEY_VERSION);
        if (o.help) printf("\n%s", usage_text);
        if (o.describe) printf("\n"), stats_describe();
        return 0;
    }
    if (o.test) return test_conf(&o);
    if (o.daemonize && !go_to_background()) {
        fprintf(stderr, "nutcracker: cannot run in the background: %s\n", strerror(errno));
        return 1;
    }
    if (log_open(o.log) != OK) {
        fprintf(stderr, "nutcracker: cannot open the log file %s: %s\n", o.log, strerror(errno));
        return 1;
    }
    log_set_level(o.verbosity <= 4   ? LOG_WARNING
                  : o.verbosity == 5 ? LOG_NOTICE
                  : o.verbosity <= 7 ? LOG_VERBOSE
                                     : LOG_DEBUG);
    log_set_role('X');
    struct engine *e = mem_calloc(1, sizeof *e);
    int code = serve(e, &o);
    mem_free(e);
    return code;
}
