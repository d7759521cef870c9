/* fleet.c: the processes of the nodes. */
#include "operator/fleet.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* A node that has run for so long did not die of how it was started. */
enum { STEADY_MS = 30 * 1000, LOG_TAIL_BYTES = 2000, LOG_TAIL_LINES = 8 };

/* For tests and comparisons: another server program, called without the word `server`. */
static const char *other_server(void)
{
    return getenv("COVEY_SERVER_BINARY");
}

/* Our own program by its name, so that process lists show it; by the kernel's link when the file has been replaced
 * since. */
static const char *own_program(char out[PATH_MAX])
{
    static const char link[] = "/proc/self/exe";
    struct stat own, named;
    ssize_t n = readlink(link, out, PATH_MAX - 1);
    if (n <= 0) return link;
    out[n] = '\0';
    if (stat(link, &own) < 0 || stat(out, &named) < 0) return link;
    return own.st_dev == named.st_dev && own.st_ino == named.st_ino ? out : link;
}

struct arguments {
    char **list; /* owned, each of them too */
    size_t n;
};

static void add(struct arguments *a, const char *text)
{
    a->list = mem_realloc(a->list, (a->n + 2) * sizeof *a->list);
    a->list[a->n++] = mem_strdup(text);
    a->list[a->n] = NULL;
}

static void add_pair(struct arguments *a, const char *directive, const char *value)
{
    add(a, directive);
    add(a, value);
}

static void add_number(struct arguments *a, const char *directive, int64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)value);
    add_pair(a, directive, text);
}

static void arguments_deinit(struct arguments *a)
{
    for (size_t i = 0; i < a->n; i++) mem_free(a->list[i]);
    mem_free(a->list);
}

int fleet_proxy_port(const struct fleet *f, int i)
{
    int given = f->options->proxy_port, first = given < 0 ? f->shape.port + f->n : given;
    if (first == 0 || other_server()) return 0;
    return given < 0 && first + f->n > 65535 ? 0 : first + i;
}

/* Everything that makes the node what it is stands on its command line, so that a directory can be moved. */
static enum status node_arguments(const struct fleet *f, int i, struct arguments *a)
{
    char dir[PATH_MAX], conf[PATH_MAX];
    int port = f->shape.port + i;
    if (home_path(f->home, port, NULL, dir) || home_path(f->home, port, "covey.conf", conf)) {
        errno = ENAMETOOLONG;
        return E_IO;
    }
    add(a, other_server() ? other_server() : "covey");
    if (!other_server()) add(a, "server");
    add(a, conf);
    add_number(a, "--port", port);
    add_pair(a, "--bind", f->options->bind);
    add_pair(a, "--dir", dir);
    add_pair(a, "--cluster-enabled", "yes");
    add_pair(a, "--cluster-config-file", "nodes.conf");
    add_pair(a, "--logfile", "covey.log");
    add_pair(a, "--pidfile", "covey.pid");
    if (fleet_proxy_port(f, i)) add_number(a, "--proxy-port", fleet_proxy_port(f, i));
    if (f->options->node_timeout_ms) add_number(a, "--cluster-node-timeout", f->options->node_timeout_ms);
    for (int k = 0; k < f->options->extra_count; k++) add(a, f->options->extra[k]);
    return OK;
}

enum status fleet_prepare(struct fleet *f, int i)
{
    static const char text[] =
        "# Directives for this node alone.  `covey up` gives port, address, directory and the names of the files\n"
        "# on the command line, which counts more than what stands here.\n";
    char dir[PATH_MAX], conf[PATH_MAX];
    int port = f->shape.port + i;
    if (home_path(f->home, port, NULL, dir) || home_path(f->home, port, "covey.conf", conf)) {
        errno = ENAMETOOLONG;
        return E_IO;
    }
    if (mkdir(dir, 0777) < 0 && errno != EEXIST) return E_IO;
    int fd = open(conf, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) return errno == EEXIST ? OK : E_IO;
    bool fine = write(fd, text, sizeof text - 1) == (ssize_t)sizeof text - 1;
    return close(fd) == 0 && fine ? OK : E_IO;
}

/* In the child.  A process group of its own: Ctrl-C on the terminal is for the supervisor alone.  Without --detach no
 * node shall outlive its supervisor, however that ends. */
static _Noreturn void become_node(const struct fleet *f, const char *dir, const char *log, char **argv, pid_t parent)
{
    setpgid(0, 0);
    if (!f->options->detach) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent) _exit(1);
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    int null = open("/dev/null", O_RDONLY), out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (null < 0 || out < 0 || chdir(dir) < 0) _exit(126);
    dup2(null, 0);
    dup2(out, 1);
    dup2(out, 2);
    for (int fd = 3; fd <= out; fd++) close(fd);
    char path[PATH_MAX];
    execv(other_server() ? other_server() : own_program(path), argv);
    dprintf(2, "cannot start %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

enum status fleet_start(struct fleet *f, int i, int64_t now_ms)
{
    struct arguments a = {0};
    char dir[PATH_MAX], log[PATH_MAX];
    int port = f->shape.port + i;
    enum status st = node_arguments(f, i, &a);
    if (st == OK && (home_path(f->home, port, NULL, dir) || home_path(f->home, port, "covey.log", log))) st = E_IO;
    if (st == OK) {
        pid_t parent = getpid(), pid = fork();
        if (pid == 0) become_node(f, dir, log, a.list, parent);
        if (pid < 0)
            st = E_IO;
        else
            f->nodes[i].process = (struct process_id){pid, process_start_time(pid)};
    }
    f->nodes[i].started_ms = now_ms;
    f->nodes[i].restart_at_ms = 0;
    int saved = errno;
    arguments_deinit(&a);
    errno = saved;
    return st;
}

bool fleet_reap(struct fleet *f, int i, int64_t now_ms)
{
    struct fleet_node *node = &f->nodes[i];
    if (!node->process.pid || waitpid(node->process.pid, &node->exit_status, WNOHANG) != node->process.pid)
        return false;
    node->process = (struct process_id){0};
    node->deaths = now_ms - node->started_ms >= STEADY_MS ? 1 : node->deaths + 1;
    if (f->options->restart) node->restart_at_ms = now_ms + plan_restart_delay_ms(node->deaths);
    return true;
}

void fleet_print_end(const struct fleet_node *node, struct buf *out)
{
    if (WIFSIGNALED(node->exit_status))
        buf_printf(out, "killed by signal %d", WTERMSIG(node->exit_status));
    else
        buf_printf(out, "exit status %d", WEXITSTATUS(node->exit_status));
}

void fleet_print_log(const struct fleet *f, int i, struct buf *out)
{
    char log[PATH_MAX], text[LOG_TAIL_BYTES + 1];
    if (home_path(f->home, f->shape.port + i, "covey.log", log)) return;
    int fd = open(log, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    off_t size = lseek(fd, 0, SEEK_END);
    ssize_t n = size > 0 ? pread(fd, text, LOG_TAIL_BYTES, size > LOG_TAIL_BYTES ? size - LOG_TAIL_BYTES : 0) : 0;
    close(fd);
    if (n <= 0) return;
    text[n] = '\0';
    char *from = text + n;
    for (int lines = 0; from > text; from--)
        if (from[-1] == '\n' && from != text + n && ++lines == LOG_TAIL_LINES) break;
    for (char *line; (line = strsep(&from, "\n"));)
        if (*line) buf_printf(out, "    %s\n", line);
}

void fleet_signal(struct fleet *f, int number)
{
    for (int i = 0; i < f->n; i++) {
        if (!f->nodes[i].process.pid) continue;
        kill(f->nodes[i].process.pid, number);
        kill(f->nodes[i].process.pid, SIGCONT);
    }
}

bool fleet_runs(const struct fleet *f)
{
    for (int i = 0; i < f->n; i++)
        if (f->nodes[i].process.pid) return true;
    return false;
}
