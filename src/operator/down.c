/* down.c: `covey down`: stops what `covey up --detach` started. */
#include "operator/home.h"
#include "operator/operator.h"
#include "operator/options.h"

#include "base/clock.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { EVERY_MS = 50, SAY_MS = 5000, STOP_MS = 60 * 1000, EXIT_WRONG = 2 };

static void wait_a_little(void)
{
    nanosleep(&(struct timespec){.tv_nsec = EVERY_MS * 1000000L}, NULL);
}

/* A supervisor stops its nodes and goes; it knows how long that may take, so we wait for as long as it lives. */
static int stop_supervisor(struct home *h, pid_t holder)
{
    uint64_t start = process_start_time(holder);
    if (!start || kill(holder, SIGTERM) < 0) {
        fprintf(stderr, "covey down: cannot stop the supervisor (pid %d) of %s: %s\n", (int)holder, h->dir,
                start ? strerror(errno) : "no such process");
        return 1;
    }
    int64_t said = clock_mono_ms();
    pid_t again;
    while (process_start_time(holder) == start) {
        wait_a_little();
        if (clock_mono_ms() - said < SAY_MS) continue;
        said = clock_mono_ms();
        printf("Waiting for nodes that save their data\n");
    }
    enum status st = home_lock(h, &again);
    if (st == OK) home_unlock(h);
    printf("Stopped the cluster in %s\n", h->dir);
    return 0;
}

/* Whether a process that was noted is still the one that was noted: same start, and at home in its node's directory. */
static bool still_ours(const struct home *h, int port, struct process_id noted)
{
    char link[64], cwd[PATH_MAX], dir[PATH_MAX];
    if (!noted.pid || process_start_time(noted.pid) != noted.start) return false;
    snprintf(link, sizeof link, "/proc/%d/cwd", (int)noted.pid);
    ssize_t n = readlink(link, cwd, sizeof cwd - 1);
    if (n < 0 || home_path(h, port, NULL, dir)) return false;
    cwd[n] = '\0';
    return strcmp(cwd, dir) == 0;
}

static int signal_left(const struct home *h, const struct home_state *s, int number)
{
    int left = 0;
    for (int i = 0; i < plan_nodes(&s->shape); i++) {
        if (!still_ours(h, s->shape.port + i, s->nodes[i])) continue;
        left++;
        if (!number) continue;
        kill(s->nodes[i].pid, number);
        kill(s->nodes[i].pid, SIGCONT);
    }
    return left;
}

/* The supervisor was killed and left its nodes behind. */
static int stop_nodes(const struct home *h)
{
    struct home_state s;
    if (home_load(h, &s) || !signal_left(h, &s, SIGTERM)) {
        fprintf(stderr, "covey down: no cluster runs in %s\n", h->dir);
        return 1;
    }
    int64_t deadline = clock_mono_ms() + STOP_MS;
    while (signal_left(h, &s, 0) && clock_mono_ms() < deadline) wait_a_little();
    signal_left(h, &s, SIGKILL);
    printf("Stopped the nodes in %s (their supervisor was gone)\n", h->dir);
    return 0;
}

int down_main(int argc, char **argv)
{
    const char *dir;
    struct home h;
    enum parsed parsed = down_options_parse(argc, argv, &dir);
    if (parsed != PARSED) return parsed == PARSED_HELP ? 0 : EXIT_WRONG;
    if (home_open(&h, dir, false)) {
        fprintf(stderr, "covey down: directory %s: %s\n", dir, strerror(errno));
        return 1;
    }
    pid_t holder = 0;
    char pidfile[PATH_MAX + 8];
    snprintf(pidfile, sizeof pidfile, "%s/up.pid", h.dir);
    if (access(pidfile, F_OK) < 0) {
        fprintf(stderr, "covey down: no cluster runs in %s\n", h.dir);
        return 1;
    }
    enum status st = home_lock(&h, &holder);
    if (st == E_EXISTS) return stop_supervisor(&h, holder);
    if (st) {
        fprintf(stderr, "covey down: up.pid in %s: %s\n", h.dir, strerror(errno));
        return 1;
    }
    int status = stop_nodes(&h);
    home_unlock(&h);
    return status;
}
