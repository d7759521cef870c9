/* up.c: `covey up`. */
#include "operator/operator.h"
#include "operator/supervise.h"

#include "base/clock.h"
#include "base/mem.h"
#include "net/net.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    WATCH_MS = 250,
    WATCH_NODE_MS = 10,
    ASK_MS = 300,
    FORMED_MS = 90 * 1000,
    EXIT_WRONG = 2,
    EXIT_INTERRUPTED = 130
};

static bool complain(const char *what, const char *which)
{
    fprintf(stderr, "covey up: %s%s%s\n", what, which ? ": " : "", which ? which : "");
    return false;
}

/* ---- before anything starts ---- */

static bool same_shape(const struct up *up, const struct shape *there)
{
    const struct up_options *o = &up->options;
    return (!o->primaries_given || o->shape.primaries == there->primaries) &&
           (!o->replicas_given || o->shape.replicas == there->replicas) &&
           (!o->port_given || o->shape.port == there->port);
}

/* A cluster that never came into being holds nothing that another shape could lose. */
static bool adopt(struct up *up, const struct home_state *there)
{
    if (!there->formed) return true;
    if (!same_shape(up, &there->shape)) {
        fprintf(stderr,
                "covey up: %s holds another cluster: --primaries %d --replicas %d --port %d\n"
                "Leave these options out to bring that one back, or name another --dir.\n",
                up->home.dir, there->shape.primaries, there->shape.replicas, there->shape.port);
        return false;
    }
    up->state.shape = there->shape;
    up->state.formed = true;
    return true;
}

/* Nodes in a directory without cluster.state are not ours to reset. */
static bool is_free(struct up *up)
{
    char path[PATH_MAX];
    for (int i = 0; i < plan_nodes(&up->state.shape); i++) {
        if (home_path(&up->home, up->state.shape.port + i, "nodes.conf", path))
            return complain("the path is too long", up->home.dir);
        if (access(path, F_OK) == 0) return complain("a node that was not started by `covey up` lives here", path);
    }
    return true;
}

static bool enter_home(struct up *up)
{
    pid_t holder = 0;
    struct home_state there;
    if (home_open(&up->home, up->options.dir, true)) {
        fprintf(stderr, "covey up: directory %s: %s\n", up->options.dir, strerror(errno));
        return false;
    }
    enum status st = home_lock(&up->home, &holder);
    if (st == E_EXISTS) {
        fprintf(stderr, "covey up: %s is in use by another `covey up` (pid %d)\n", up->home.dir, (int)holder);
        return false;
    }
    if (st) return complain("cannot lock up.pid", strerror(errno));
    home_sign(&up->home);
    up->state.shape = up->options.shape;
    st = home_load(&up->home, &there);
    if (st == OK) return adopt(up, &there);
    if (st == E_NOT_FOUND) return is_free(up);
    return complain("cannot read cluster.state", st == E_CORRUPT ? "it is damaged" : strerror(errno));
}

static bool port_is_free(const struct up *up, int port, int client_port)
{
    int fd = net_listen_tcp(up->options.bind, port, 1);
    if (fd >= 0) {
        close(fd);
        return true;
    }
    fprintf(stderr, "covey up: ");
    if (errno == EADDRINUSE)
        fprintf(stderr, "port %d is in use", port);
    else
        fprintf(stderr, "cannot listen on %s port %d: %s", up->options.bind, port, strerror(errno));
    if (port == client_port + PLAN_BUS_OFFSET)
        fprintf(stderr, " (the cluster bus of node %d needs it)", client_port);
    else if (port != client_port)
        fprintf(stderr, " (the proxy of node %d needs it; see --proxy-port)", client_port);
    fprintf(stderr, "; nothing has been started\n");
    return false;
}

static bool ports_are_free(struct up *up)
{
    up->fleet = (struct fleet){
        .options = &up->options, .home = &up->home, .shape = up->state.shape, .n = plan_nodes(&up->state.shape)};
    for (int i = 0; i < plan_nodes(&up->state.shape); i++) {
        int port = up->state.shape.port + i, proxy = fleet_proxy_port(&up->fleet, i);
        if (!port_is_free(up, port, port) || !port_is_free(up, port + PLAN_BUS_OFFSET, port)) return false;
        if (proxy && !port_is_free(up, proxy, port)) return false;
    }
    return true;
}

/* ---- what is printed ---- */

static int number_of(const struct up *up, const char *id)
{
    for (int i = 0; i < up->fleet.n; i++)
        if (up->samples[i].answered && strcmp(up->samples[i].view.myself->id, id) == 0) return i;
    return -1;
}

static void print_row(const struct up *up, int i)
{
    const struct sample *s = &up->samples[i];
    const struct node_line *self = s->view.myself;
    char role[32] = "primary", address[NODE_ADDRESS_MAX];
    struct buf slots = {0};
    if (self->flags & NODE_REPLICA) {
        int primary = number_of(up, self->primary);
        if (primary < 0)
            snprintf(role, sizeof role, "replica");
        else
            snprintf(role, sizeof role, "replica of %d", up->fleet.shape.port + primary);
    }
    view_print_slots(&s->view, self, &slots);
    snprintf(address, sizeof address, strchr(up_host(up), ':') ? "[%s]:%d" : "%s:%d", up_host(up),
             up->fleet.shape.port + i);
    printf("%-10.8s%-18s%-16.*s%-22s%d\n", self->id, role, (int)slots.n, slots.p, address,
           (int)up->fleet.nodes[i].process.pid);
    buf_deinit(&slots);
}

static void print_cluster(const struct up *up)
{
    const char *host = up_host(up);
    bool local = strcmp(host, "127.0.0.1") == 0;
    int port = up->fleet.shape.port;
    printf("\n%-10s%-18s%-16s%-22s%s\n", "node", "role", "slots", "address", "pid");
    for (int i = 0; i < up->fleet.n; i++) print_row(up, i);
    printf("\nConnect   redis-cli -c %s%s%s-p %d%s\n", local ? "" : "-h ", local ? "" : host, local ? "" : " ", port,
           up->options.password ? " --askpass" : "");
    printf("          any client that knows Redis Cluster, with %s:%d or any other node\n", host, port);
    if (fleet_proxy_port(&up->fleet, 0))
        printf("          any other client, as to one server: %s:%d, or the proxy of another node, to %d\n", host,
               fleet_proxy_port(&up->fleet, 0), fleet_proxy_port(&up->fleet, up->fleet.n - 1));
    printf("Files     %s\n", up->home.dir);
    if (up->options.detach)
        printf("Stop      covey down --dir %s\n\n", up->home.dir);
    else
        printf("Stop      Ctrl-C\n\n");
    if (up->fleet.shape.primaries < 3 && up->fleet.shape.replicas)
        printf("Fewer than 3 primaries: no majority is left to replace one that fails.\n\n");
}

static void print_death(const struct up *up)
{
    struct buf text = {0};
    fleet_print_end(&up->fleet.nodes[up->dead], &text);
    fprintf(stderr, "covey up: %d ended while the cluster was starting: %.*s\n", up->fleet.shape.port + up->dead,
            (int)text.n, text.p);
    text.n = 0;
    fleet_print_log(&up->fleet, up->dead, &text);
    if (text.n)
        fprintf(stderr, "The end of its log (%s/%d/covey.log):\n%.*s", up->home.dir, up->fleet.shape.port + up->dead,
                (int)text.n, text.p);
    buf_deinit(&text);
}

/* ---- the run ---- */

static bool bring_up(struct up *up)
{
    bool formed = up->state.formed;
    printf("%s %d nodes in %s\n", formed ? "Starting again" : "Starting", up->fleet.n, up->home.dir);
    if (up_start(up)) return complain("cannot start the nodes", strerror(errno));
    if (!formed && !up_form(up)) return false;
    /* Data may take their time to load; a cluster that was just made has none. */
    int64_t timeout_ms = formed ? -1 : FORMED_MS + 2 * up->options.node_timeout_ms;
    if (!up_wait_whole(up, timeout_ms)) return false;
    up->state.formed = true;
    if (home_save(&up->home, &up->state)) return complain("cannot write cluster.state", strerror(errno));
    return true;
}

static void watch(struct up *up)
{
    int every_ms = up->fleet.n * WATCH_NODE_MS > WATCH_MS ? up->fleet.n * WATCH_NODE_MS : WATCH_MS;
    while (!up->stops) {
        int64_t began = clock_mono_ms();
        up_ask(up, ASK_MS);
        if (!up->stops) members_observe(&up->members, up->samples, up_event, up);
        int64_t left = began + every_ms - clock_mono_ms();
        up_turn(up, left > 0 ? (int)left : 0);
    }
}

/* The supervisor: returns the exit status.  ready_fd: gets a byte once the cluster is whole and we have left the
 * terminal, or -1. */
static int supervise(struct up *up, int ready_fd)
{
    int status = 0;
    up->members = (struct members){.list = up->member_list, .n = up->fleet.n, .port = up->fleet.shape.port};
    if (bring_up(up)) {
        up->ready = true;
        print_cluster(up);
        members_observe(&up->members, up->samples, up_event, up);
        for (int i = 0; i < up->fleet.n; i++) up->member_list[i].away = false;
        if (ready_fd >= 0) {
            char path[PATH_MAX];
            int log = snprintf(path, sizeof path, "%s/up.log", up->home.dir) < PATH_MAX
                          ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)
                          : -1;
            int null = open("/dev/null", O_RDWR | O_CLOEXEC);
            dup2(null, 0);
            dup2(log >= 0 ? log : null, 1);
            dup2(log >= 0 ? log : null, 2);
            if (write(ready_fd, "+", 1) == 1) close(ready_fd);
        }
        watch(up);
    } else {
        if (up->dead >= 0 && !up->stops) print_death(up);
        status = up->stops ? EXIT_INTERRUPTED : 1;
    }
    printf("Stopping\n");
    up_stop(up);
    printf("All nodes have ended; their data are in %s\n", up->home.dir);
    return status;
}

/* In the process that the user started: waits until the supervisor is ready, passing on Ctrl-C. */
static int wait_for_supervisor(struct up *up, pid_t supervisor, int ready_fd)
{
    char byte;
    int status;
    for (;;) {
        struct signalfd_siginfo info;
        struct pollfd p[2] = {{.fd = ready_fd, .events = POLLIN}, {.fd = up->signal_fd, .events = POLLIN}};
        poll(p, 2, -1);
        while (read(up->signal_fd, &info, sizeof info) == sizeof info)
            if (info.ssi_signo != SIGCHLD) kill(supervisor, SIGTERM);
        if (!p[0].revents) continue;
        if (read(ready_fd, &byte, 1) == 1) return 0;
        break;
    }
    while (waitpid(supervisor, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : 1;
}

static int detach(struct up *up)
{
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) < 0) return complain("pipe", strerror(errno)), 1;
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) return complain("fork", strerror(errno)), 1;
    if (pid == 0) {
        close(ready[0]);
        setsid();
        home_sign(&up->home);
        return supervise(up, ready[1]);
    }
    close(ready[1]);
    int status = wait_for_supervisor(up, pid, ready[0]);
    close(ready[0]);
    close(up->home.lock_fd); /* the supervisor's copy holds the lock */
    up->home.lock_fd = -1;
    return status;
}

int up_main(int argc, char **argv)
{
    struct up *up = mem_calloc(1, sizeof *up);
    up->signal_fd = -1;
    up->home.lock_fd = -1;
    up->dead = -1;
    for (int i = 0; i < PLAN_NODES_MAX; i++) client_init(&up->askers[i].client);
    setvbuf(stdout, NULL, _IOLBF, 0);
    int status = 1;
    enum parsed parsed = up_options_parse(argc, argv, &up->options);
    if (parsed != PARSED)
        status = parsed == PARSED_HELP ? 0 : EXIT_WRONG;
    else if (!enter_home(up) || !ports_are_free(up))
        status = 1;
    else if (up_take_signals(up))
        complain("signals", strerror(errno));
    else
        status = up->options.detach ? detach(up) : supervise(up, -1);
    up_deinit(up);
    return status;
}
