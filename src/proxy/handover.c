#include "proxy/handover.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/number.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { SOCKETS_MAX = 250, TEXT_MAX = 64 * 1024, ANSWER_MS = 10000, CHILD_FD = 3, WORDS_MAX = 4096 };

static const char ask_word[] = "take-over 1", list_word[] = "sockets 1\n", ready_word[] = "ready";
static const char variable[] = "COVEY_TAKE_OVER_FD";

extern char **environ;

/* ---- one message with descriptors ---- */

union control {
    struct cmsghdr head; /* for its alignment */
    char bytes[CMSG_SPACE(SOCKETS_MAX * sizeof(int))];
};

static bool send_message(int fd, struct bytes text, const int *fds, int n)
{
    union control *control = mem_calloc(1, sizeof *control);
    struct iovec v = {(void *)(uintptr_t)text.p, text.n};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    if (n > 0) {
        m.msg_control = control->bytes;
        m.msg_controllen = CMSG_SPACE((size_t)n * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN((size_t)n * sizeof(int));
        memcpy(CMSG_DATA(c), fds, (size_t)n * sizeof(int));
    }
    ssize_t sent = sendmsg(fd, &m, MSG_NOSIGNAL);
    mem_free(control);
    return sent == (ssize_t)text.n;
}

/* The text's length, 0 at the end of the stream, -1 with errno set; all descriptors are the caller's. */
static ssize_t receive_message(int fd, char text[TEXT_MAX], int fds[SOCKETS_MAX], int *n)
{
    union control *control = mem_calloc(1, sizeof *control);
    struct iovec v = {text, TEXT_MAX};
    struct msghdr m = {
        .msg_iov = &v, .msg_iovlen = 1, .msg_control = control->bytes, .msg_controllen = sizeof control->bytes};
    ssize_t got = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
    *n = 0;
    for (struct cmsghdr *c = got > 0 ? CMSG_FIRSTHDR(&m) : NULL; c; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        *n = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(fds, CMSG_DATA(c), (size_t)*n * sizeof(int));
    }
    mem_free(control);
    return got;
}

/* ---- the old process ---- */

static void forget_other(struct hand_over *h)
{
    int fd = h->other.fd;
    if (fd <= 0) return;
    loop_remove(h->front->loop, &h->other);
    close(fd);
    h->other.fd = 0;
}

static bool send_sockets(struct hand_over *h)
{
    struct front_socket sockets[SOCKETS_MAX];
    int fds[SOCKETS_MAX], n = front_sockets(h->front, sockets, SOCKETS_MAX);
    struct buf text = {0};
    buf_append_cstr(&text, list_word);
    for (int i = 0; i < n; i++) {
        fds[i] = sockets[i].fd;
        buf_printf(&text, "%s\n", sockets[i].name);
    }
    bool good = n <= SOCKETS_MAX && text.n <= TEXT_MAX && send_message(h->other.fd, buf_bytes(&text), fds, n);
    buf_deinit(&text);
    return good;
}

static void other_ready(struct loop_source *src, int events)
{
    struct hand_over *h = container_of(src, struct hand_over, other);
    char *text = mem_alloc(TEXT_MAX);
    int fds[SOCKETS_MAX], n;
    (void)events;
    ssize_t got = receive_message(src->fd, text, fds, &n);
    int error = errno;
    for (int i = 0; i < n; i++) close(fds[i]);
    struct bytes word = bytes_make(text, got > 0 ? (size_t)got : 0);
    if (bytes_eq(word, bytes_of(ready_word))) {
        h->done = true;
        forget_other(h);
    } else if (bytes_eq(word, bytes_of(ask_word))) {
        log_notice("Another process asks for the listening sockets");
        if (!send_sockets(h)) {
            log_warning("Handing over: %s", strerror(errno));
            forget_other(h);
        }
    } else if (got >= 0 || error != EAGAIN) {
        log_warning("The other process did not take over");
        forget_other(h);
    }
    mem_free(text);
}

/* A newer one takes the place of one that has not come to an end. */
static void talk_to(struct hand_over *h, int fd)
{
    forget_other(h);
    h->other = (struct loop_source){.fd = fd, .ready = other_ready};
    if (loop_add(h->front->loop, &h->other, NET_READ) == OK) return;
    close(fd);
    h->other.fd = 0;
}

/* Whoever may send this process signals may take over from it. */
static bool is_trusted(int fd)
{
    struct ucred peer;
    socklen_t n = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0) return false;
    return peer.uid == 0 || peer.uid == geteuid();
}

static void control_ready(struct loop_source *src, int events)
{
    struct hand_over *h = container_of(src, struct hand_over, control);
    int fd = net_accept(src->fd);
    (void)events;
    if (fd < 0) return;
    if (is_trusted(fd)) {
        talk_to(h, fd);
        return;
    }
    log_warning("Somebody who may not take over asks on the control socket");
    close(fd);
}

static int control_socket(const char *path, struct sockaddr_un *addr)
{
    *addr = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof addr->sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(addr->sun_path, path);
    return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
}

bool hand_over_listen(struct hand_over *h, struct front *f, const char *path)
{
    struct sockaddr_un addr;
    h->front = f;
    if (!*path) return true;
    h->path = bytes_dup_cstr(bytes_of(path));
    int fd = control_socket(path, &addr);
    if (fd < 0) return false;
    unlink(path);
    mode_t mask = umask(0177);
    bool good = bind(fd, (struct sockaddr *)&addr, sizeof addr) == 0 && listen(fd, 8) == 0 &&
                fcntl(fd, F_SETFL, O_NONBLOCK) == 0;
    umask(mask);
    h->control = (struct loop_source){.fd = fd, .ready = control_ready};
    if (good && loop_add(f->loop, &h->control, NET_READ) == OK) return true;
    int error = errno;
    close(fd);
    h->control.fd = 0;
    errno = error;
    return false;
}

void hand_over_close(struct hand_over *h)
{
    if (!h->front) return;
    forget_other(h);
    int fd = h->control.fd;
    if (fd > 0) {
        loop_remove(h->front->loop, &h->control);
        close(fd);
        h->control.fd = 0;
        if (!h->done) unlink(h->path); /* else it is the other's */
    }
    mem_free(h->path);
    h->path = NULL;
}

/* ---- starting the new process ---- */

/* The words of this process's command line, in one piece of memory; NULL: they cannot be read. */
static char **own_words(struct buf *text)
{
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    bool good = fd >= 0 && file_read_all(fd, TEXT_MAX, text) && text->n > 0;
    if (fd >= 0) close(fd);
    if (!good || text->p[text->n - 1] != '\0') return NULL;
    char **words = mem_calloc(WORDS_MAX + 1, sizeof(char *));
    int n = 0;
    for (size_t at = 0; at < text->n && n < WORDS_MAX; at += strlen(text->p + at) + 1) words[n++] = text->p + at;
    return words;
}

/* The environment and one more. */
static char **own_environment(char *one_more)
{
    size_t n = 0, kept = 0;
    while (environ[n]) n++;
    char **all = mem_calloc(n + 2, sizeof(char *));
    for (size_t i = 0; i < n; i++)
        if (strncmp(environ[i], variable, sizeof variable - 1) != 0) all[kept++] = environ[i];
    all[kept] = one_more;
    return all;
}

static int spawn(int fd, pid_t *pid)
{
    struct buf text = {0};
    char **words = own_words(&text), setting[64];
    snprintf(setting, sizeof setting, "%s=%d", variable, CHILD_FD);
    char **environment = own_environment(setting);
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigemptyset(&none);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fd, CHILD_FD);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    int error = words ? posix_spawnp(pid, words[0], &actions, &attributes, words, environment) : ENOENT;
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    mem_free(environment);
    mem_free(words);
    buf_deinit(&text);
    return error;
}

void hand_over_to_new_program(struct hand_over *h)
{
    int pair[2];
    pid_t pid;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        log_warning("Handing over: %s", strerror(errno));
        return;
    }
    int error = spawn(pair[1], &pid);
    close(pair[1]);
    if (error) {
        log_warning("Cannot start the program anew: %s", strerror(error));
        close(pair[0]);
        return;
    }
    log_notice("Process %d is started to take over", (int)pid);
    fcntl(pair[0], F_SETFL, O_NONBLOCK);
    talk_to(h, pair[0]);
}

/* ---- the new process ---- */

/* Given by the process that has started this one; -1: none. */
static int given_descriptor(void)
{
    const char *text = getenv(variable);
    int64_t fd;
    if (!text || !parse_i64(bytes_of(text), &fd) || fd < 3 || fd > INT32_MAX) return -1;
    unsetenv(variable);
    fcntl((int)fd, F_SETFD, FD_CLOEXEC);
    return (int)fd;
}

static int connect_to(const char *path)
{
    struct sockaddr_un addr;
    int fd = control_socket(path, &addr);
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0) return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* A line a descriptor. */
static bool inherit(struct front *f, struct bytes text, int *fds, int n)
{
    size_t head = sizeof list_word - 1, at = head;
    if (text.n < head || memcmp(text.p, list_word, head) != 0) return false;
    for (int i = 0; i < n; i++) {
        const char *end = memchr(text.p + at, '\n', text.n - at);
        if (!end) return false;
        char *name = bytes_dup_cstr(bytes_make(text.p + at, (size_t)(end - text.p) - at));
        front_inherit(f, name, fds[i]);
        fds[i] = -1;
        mem_free(name);
        at = (size_t)(end - text.p) + 1;
    }
    return at == text.n;
}

static bool receive_sockets(struct front *f, int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (!send_message(fd, bytes_of(ask_word), NULL, 0) || poll(&p, 1, ANSWER_MS) <= 0) return false;
    char *text = mem_alloc(TEXT_MAX);
    int fds[SOCKETS_MAX], n;
    ssize_t got = receive_message(fd, text, fds, &n);
    bool good = got > 0 && inherit(f, bytes_make(text, (size_t)got), fds, n);
    for (int i = 0; i < n; i++)
        if (fds[i] >= 0) close(fds[i]);
    mem_free(text);
    return good;
}

int take_over_begin(struct front *f, const char *path)
{
    int fd = given_descriptor();
    if (fd < 0 && !*path) return -1;
    if (fd < 0) fd = connect_to(path);
    if (fd >= 0 && receive_sockets(f, fd)) return fd;
    log_warning("Cannot take over from %s: %s", *path ? path : "the process before", strerror(errno));
    if (fd >= 0) close(fd);
    return -2;
}

void take_over_ready(int fd)
{
    if (!send_message(fd, bytes_of(ready_word), NULL, 0)) log_warning("Taking over: %s", strerror(errno));
    close(fd);
}
