/* supervise.c: signals, deaths and restarts of the nodes of a running `covey up`, and the questions it asks them. */
#include "operator/supervise.h"

#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

enum { CONNECT_MS = 200, KILLED_MS = 5000, REMIND_MS = 3000 };

const char *up_host(const struct up *up)
{
    if (strcmp(up->options.bind, "0.0.0.0") == 0) return "127.0.0.1";
    if (strcmp(up->options.bind, "::") == 0) return "::1";
    return up->options.bind;
}

void up_event(void *ctx, int port, const char *text)
{
    time_t now = (time_t)(clock_wall_ms() / 1000);
    struct tm tm;
    char clock[16], name[16] = "cluster";
    strftime(clock, sizeof clock, "%H:%M:%S", localtime_r(&now, &tm));
    if (port) snprintf(name, sizeof name, "%d", port);
    printf("%s  %-7s  %s\n", clock, name, text);
}

enum status up_take_signals(struct up *up)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    signal(SIGPIPE, SIG_IGN); /* who stops reading what we print shall not take the cluster down */
    signal(SIGCHLD, SIG_DFL); /* an inherited SIG_IGN would reap the nodes behind our back */
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0) return E_IO;
    up->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return up->signal_fd < 0 ? E_IO : OK;
}

static void remember_processes(struct up *up)
{
    for (int i = 0; i < up->fleet.n; i++) up->state.nodes[i] = up->fleet.nodes[i].process;
    if (home_save(&up->home, &up->state))
        fprintf(stderr, "covey up: cannot write cluster.state: %s\n", strerror(errno));
}

enum status up_start(struct up *up)
{
    enum status st = OK;
    for (int i = 0; i < up->fleet.n && st == OK; i++) {
        st = fleet_prepare(&up->fleet, i);
        if (st == OK) st = fleet_start(&up->fleet, i, clock_mono_ms());
    }
    int saved = errno;
    remember_processes(up);
    errno = saved;
    return st;
}

static void forget_answers(struct asker *a)
{
    for (int k = 0; k < a->count; k++) resp_value_free(a->answers[k]);
    a->count = 0;
}

static void hang_up(struct asker *a)
{
    client_close(&a->client);
    forget_answers(a);
}

static void on_death(struct up *up, int i)
{
    struct fleet_node *node = &up->fleet.nodes[i];
    hang_up(&up->askers[i]);
    up->member_list[i].away = true;
    if (up->stops) return;
    if (!up->ready) {
        up->dead = i;
        node->restart_at_ms = 0;
        return;
    }
    struct buf text = {0};
    buf_append_cstr(&text, "died: ");
    fleet_print_end(node, &text);
    if (!up->options.restart)
        buf_append_cstr(&text, "; left dead (--no-restart)");
    else if (node->deaths > 1)
        buf_printf(&text, "; next start in %d s", (int)(plan_restart_delay_ms(node->deaths) / 1000));
    buf_append_char(&text, '\0');
    up_event(NULL, up->fleet.shape.port + i, text.p);
    buf_deinit(&text);
}

static void restart(struct up *up, int i, int64_t now_ms)
{
    char text[128];
    struct fleet_node *node = &up->fleet.nodes[i];
    if (fleet_start(&up->fleet, i, now_ms)) {
        snprintf(text, sizeof text, "cannot be restarted: %s", strerror(errno));
        node->restart_at_ms = now_ms + plan_restart_delay_ms(++node->deaths);
    } else {
        snprintf(text, sizeof text, "restarted, pid %d", (int)node->process.pid);
    }
    up_event(NULL, up->fleet.shape.port + i, text);
}

static void read_signals(struct up *up)
{
    struct signalfd_siginfo info;
    while (read(up->signal_fd, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGCHLD) continue;
        if (info.ssi_signo == SIGHUP && up->options.detach) continue;
        up->stops++;
    }
}

static int until_next_restart(const struct up *up, int timeout_ms, int64_t now_ms)
{
    for (int i = 0; i < up->fleet.n; i++) {
        const struct fleet_node *node = &up->fleet.nodes[i];
        if (node->process.pid || !node->restart_at_ms) continue;
        int64_t left = node->restart_at_ms - now_ms;
        if (left < timeout_ms) timeout_ms = left > 0 ? (int)left : 0;
    }
    return timeout_ms;
}

void up_turn(struct up *up, int timeout_ms)
{
    struct pollfd p = {.fd = up->signal_fd, .events = POLLIN};
    poll(&p, 1, until_next_restart(up, timeout_ms, clock_mono_ms()));
    read_signals(up);
    int64_t now_ms = clock_mono_ms();
    bool changed = false;
    for (int i = 0; i < up->fleet.n; i++) {
        struct fleet_node *node = &up->fleet.nodes[i];
        if (fleet_reap(&up->fleet, i, now_ms)) {
            changed = true;
            on_death(up, i);
        }
        if (node->process.pid || !node->restart_at_ms || node->restart_at_ms > now_ms || up->stops) continue;
        changed = true;
        restart(up, i, now_ms);
    }
    if (changed) remember_processes(up);
}

/* ---- questions ---- */

static void begin_asking(struct up *up, int i)
{
    struct asker *a = &up->askers[i];
    up->samples[i].answered = false;
    view_deinit(&up->samples[i].view);
    if (!up->fleet.nodes[i].process.pid) return;
    if (a->client.fd < 0) {
        forget_answers(a);
        if (client_open(&a->client, up_host(up), up->fleet.shape.port + i, up->options.password, CONNECT_MS)) return;
    }
    if (a->client.waiting || a->count) return; /* still busy with the last round */
    client_send(&a->client, 2, "CLUSTER", "NODES");
    client_send(&a->client, 2, "CLUSTER", "INFO");
    client_send(&a->client, 2, "INFO", "replication");
}

static void evaluate(struct up *up, int i)
{
    struct asker *a = &up->askers[i];
    struct sample *s = &up->samples[i];
    bool texts = true;
    for (int k = 0; k < QUESTIONS; k++)
        texts &= a->answers[k]->type == RESP_BULK || a->answers[k]->type == RESP_VERBATIM;
    if (texts && view_parse(a->answers[0]->str, &s->view) == OK) {
        s->answered = true;
        s->state_ok = bytes_eq(info_field(a->answers[1]->str, "cluster_state"), BYTES("ok"));
        s->link_up = bytes_eq(info_field(a->answers[2]->str, "master_link_status"), BYTES("up"));
    }
    forget_answers(a);
}

/* Takes what has arrived from node i; true when nothing more is to be expected from it in this round. */
static bool listen_to(struct up *up, int i)
{
    struct asker *a = &up->askers[i];
    if (a->client.fd < 0 || up->samples[i].answered || !(a->client.waiting || a->count)) return true;
    if (client_pump(&a->client)) {
        hang_up(a);
        return true;
    }
    enum status st = OK;
    while (a->count < QUESTIONS && (st = client_next(&a->client, &a->answers[a->count])) == OK) a->count++;
    if (st && st != E_AGAIN) hang_up(a);
    if (a->count < QUESTIONS) return a->client.fd < 0;
    evaluate(up, i);
    return true;
}

void up_ask(struct up *up, int timeout_ms)
{
    int64_t deadline = clock_mono_ms() + timeout_ms;
    for (int i = 0; i < up->fleet.n; i++) begin_asking(up, i);
    for (;;) {
        struct pollfd waits[PLAN_NODES_MAX + 1];
        nfds_t n = 0;
        for (int i = 0; i < up->fleet.n; i++)
            if (!listen_to(up, i)) waits[n++] = (struct pollfd){.fd = up->askers[i].client.fd, .events = POLLIN};
        int64_t left = deadline - clock_mono_ms();
        if (!n || left <= 0 || up->stops) return;
        waits[n] = (struct pollfd){.fd = up->signal_fd, .events = POLLIN};
        if (poll(waits, n + 1, until_next_restart(up, (int)left, clock_mono_ms())) < 0 && errno != EINTR) return;
        up_turn(up, 0);
    }
}

/* ---- the end ---- */

static bool wait_for_end(struct up *up, int64_t timeout_ms, int stops)
{
    int64_t began = clock_mono_ms(), said = began;
    while (fleet_runs(&up->fleet)) {
        int64_t now = clock_mono_ms();
        if (now - began >= timeout_ms || up->stops > stops) return false;
        if (now - said >= REMIND_MS) {
            said = INT64_MAX - REMIND_MS;
            printf("Waiting for nodes that save their data (Ctrl-C again kills them)\n");
        }
        up_turn(up, 100);
    }
    return true;
}

void up_stop(struct up *up)
{
    if (!up->stops) up->stops = 1;
    for (int i = 0; i < up->fleet.n; i++) {
        hang_up(&up->askers[i]);
        up->fleet.nodes[i].restart_at_ms = 0;
    }
    up->options.restart = false;
    fleet_signal(&up->fleet, SIGTERM);
    if (wait_for_end(up, (int64_t)up->options.stop_timeout_s * 1000, up->stops)) return;
    for (int i = 0; i < up->fleet.n; i++)
        if (up->fleet.nodes[i].process.pid) up_event(NULL, up->fleet.shape.port + i, "does not end, killed");
    fleet_signal(&up->fleet, SIGKILL);
    wait_for_end(up, KILLED_MS, INT32_MAX);
}

void up_deinit(struct up *up)
{
    for (int i = 0; i < PLAN_NODES_MAX; i++) {
        hang_up(&up->askers[i]);
        view_deinit(&up->samples[i].view);
    }
    if (up->signal_fd >= 0) close(up->signal_fd);
    home_unlock(&up->home);
    mem_free(up);
}
