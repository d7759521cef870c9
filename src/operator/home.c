/* home.c: the directory of a cluster. */
#include "operator/home.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MAX = 64 * 1024 };

/* A whole small file.  E_NOT_FOUND, E_TOO_BIG, E_IO. */
static enum status read_small(const char *path, struct buf *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT ? E_NOT_FOUND : E_IO;
    buf_reserve(out, FILE_MAX);
    ssize_t n;
    while ((n = read(fd, out->p + out->n, FILE_MAX - out->n)) > 0) out->n += (size_t)n;
    close(fd);
    if (n < 0) return E_IO;
    return out->n < FILE_MAX ? OK : E_TOO_BIG;
}

uint64_t process_start_time(pid_t pid)
{
    char path[64];
    struct buf text = {0};
    uint64_t start = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (pid > 0 && read_small(path, &text) == OK) {
        buf_append_char(&text, '\0');
        /* The name is in parentheses and may hold anything; behind it come the state (field 3) and numbers. */
        const char *p = strrchr(text.p, ')');
        char state;
        unsigned long long ticks;
        if (p &&
            sscanf(p + 1, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu", &state,
                   &ticks) == 2 &&
            state != 'Z' && state != 'X')
            start = ticks;
    }
    buf_deinit(&text);
    return start;
}

void home_state_print(const struct home_state *s, struct buf *out)
{
    buf_printf(out, "covey-cluster 1\nprimaries %d\nreplicas %d\nport %d\nformed %s\n", s->shape.primaries,
               s->shape.replicas, s->shape.port, s->formed ? "yes" : "no");
    for (int i = 0; i < plan_nodes(&s->shape); i++)
        if (s->nodes[i].pid)
            buf_printf(out, "process %d %d %llu\n", s->shape.port + i, (int)s->nodes[i].pid,
                       (unsigned long long)s->nodes[i].start);
}

static bool take_process(struct home_state *s, int port, int pid, unsigned long long start)
{
    int i = port - s->shape.port;
    if (plan_check(&s->shape) || i < 0 || i >= plan_nodes(&s->shape) || pid <= 0) return false;
    s->nodes[i] = (struct process_id){pid, start};
    return true;
}

enum status home_state_parse(struct bytes text, struct home_state *out)
{
    *out = (struct home_state){.shape = {0, -1, 0}};
    char *copy = bytes_dup_cstr(text), *rest = copy, *line;
    bool fine = true, head = false, formed = false;
    while (fine && (line = strsep(&rest, "\n"))) {
        int number, pid, end = 0;
        unsigned long long start;
        char word[4];
        if (!*line) continue;
        if (strcmp(line, "covey-cluster 1") == 0)
            head = true;
        else if (sscanf(line, "primaries %9d%n", &number, &end) == 1 && !line[end])
            out->shape.primaries = number;
        else if (sscanf(line, "replicas %9d%n", &number, &end) == 1 && !line[end])
            out->shape.replicas = number;
        else if (sscanf(line, "port %9d%n", &number, &end) == 1 && !line[end])
            out->shape.port = number;
        else if (sscanf(line, "formed %3s%n", word, &end) == 1 && !line[end])
            formed = true, out->formed = strcmp(word, "yes") == 0;
        else if (sscanf(line, "process %9d %9d %20llu%n", &number, &pid, &start, &end) == 3 && !line[end])
            fine = take_process(out, number, pid, start);
        else
            fine = false;
    }
    mem_free(copy);
    return fine && head && formed && !plan_check(&out->shape) ? OK : E_CORRUPT;
}

static enum status make_path(char *path)
{
    for (char *p = path + 1; *p; p++) {
        if (*p != '/') continue;
        *p = '\0';
        int rc = mkdir(path, 0777);
        *p = '/';
        if (rc < 0 && errno != EEXIST) return E_IO;
    }
    return mkdir(path, 0777) < 0 && errno != EEXIST ? E_IO : OK;
}

enum status home_open(struct home *h, const char *dir, bool make)
{
    char path[PATH_MAX];
    h->lock_fd = -1;
    if (strlen(dir) >= sizeof path) {
        errno = ENAMETOOLONG;
        return E_IO;
    }
    strcpy(path, dir);
    if (make && make_path(path)) return E_IO;
    struct stat st;
    if (!realpath(path, h->dir) || stat(h->dir, &st) < 0) return E_IO;
    if (S_ISDIR(st.st_mode)) return OK;
    errno = ENOTDIR;
    return E_IO;
}

static enum status in_dir(const struct home *h, const char *name, char out[PATH_MAX])
{
    return snprintf(out, PATH_MAX, "%s/%s", h->dir, name) < PATH_MAX ? OK : E_TOO_BIG;
}

enum status home_path(const struct home *h, int port, const char *name, char out[PATH_MAX])
{
    int n = snprintf(out, PATH_MAX, name ? "%s/%d/%s" : "%s/%d", h->dir, port, name);
    return n < PATH_MAX ? OK : E_TOO_BIG;
}

enum status home_lock(struct home *h, pid_t *holder)
{
    char path[PATH_MAX], text[32] = "";
    if (in_dir(h, "up.pid", path)) {
        errno = ENAMETOOLONG;
        return E_IO;
    }
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) return E_IO;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
        h->lock_fd = fd;
        return OK;
    }
    bool held = errno == EWOULDBLOCK;
    int saved = errno;
    *holder = pread(fd, text, sizeof text - 1, 0) > 0 ? (pid_t)strtol(text, NULL, 10) : 0;
    close(fd);
    errno = saved;
    return held ? E_EXISTS : E_IO;
}

void home_sign(struct home *h)
{
    char text[32];
    int n = snprintf(text, sizeof text, "%d\n", (int)getpid());
    if (ftruncate(h->lock_fd, 0) < 0 || pwrite(h->lock_fd, text, (size_t)n, 0) != n)
        fprintf(stderr, "covey up: cannot write up.pid: %s\n", strerror(errno));
}

void home_unlock(struct home *h)
{
    if (h->lock_fd < 0) return;
    if (ftruncate(h->lock_fd, 0) < 0) fprintf(stderr, "covey: cannot empty up.pid: %s\n", strerror(errno));
    close(h->lock_fd);
    h->lock_fd = -1;
}

enum status home_load(const struct home *h, struct home_state *out)
{
    char path[PATH_MAX];
    struct buf text = {0};
    if (in_dir(h, "cluster.state", path)) return E_IO;
    enum status st = read_small(path, &text);
    if (st == OK) st = home_state_parse(buf_bytes(&text), out);
    buf_deinit(&text);
    return st == E_TOO_BIG ? E_CORRUPT : st;
}

static bool write_whole(const char *path, struct bytes text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return false;
    bool fine = write(fd, text.p, text.n) == (ssize_t)text.n && fsync(fd) == 0;
    return close(fd) == 0 && fine;
}

enum status home_save(const struct home *h, const struct home_state *s)
{
    char path[PATH_MAX], fresh[PATH_MAX];
    if (in_dir(h, "cluster.state", path) || in_dir(h, "cluster.state.new", fresh)) return E_IO;
    struct buf text = {0};
    home_state_print(s, &text);
    bool fine = write_whole(fresh, buf_bytes(&text)) && rename(fresh, path) == 0;
    buf_deinit(&text);
    return fine ? OK : E_IO;
}
