/* faulty_disk: runs a program whose disk fails on demand.
 *
 *   faulty_disk CONTROL SHADOW WATCHED [--do=COMMAND...] PROGRAM WORDS...
 *
 * The kernel hands over each call that changes files (seccomp's user notification), before it is carried out: nothing
 * in the program is touched, and its threads go on side by side.  Only files under WATCHED are meddled with.  CONTROL
 * is a datagram socket that takes one command each: kill CLASS N before|after|torn   SIGKILL at the Nth call of the
 * class from now on; torn: half of a write is carried out fail CLASS TEXT ERRNO COUNT      the next COUNT (0: all)
 * calls on paths with TEXT fail with that error delay CLASS TEXT MS              they take longer clear forgets these
 *   count                            how many calls of each class there have been
 * Classes: write sync open rename unlink truncate any.  TEXT `*`: every path.
 *
 * It also keeps the books of what a loss of power would leave.  A sync is not passed on: what it covers is written down
 * instead. When the program is dead, SHADOW/journal has lines file INODE SIZE            up to where the file's content
 * was synced op DURABLE KIND PATH SAVED PATH2 one for each creation, renaming and deletion, in order; DURABLE says
 * whether the directory was synced later, SAVED is a link to what was replaced or deleted, or `-`.  The exit status is
 * the program's. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum class { WRITE, SYNC, OPEN, RENAME, UNLINK, TRUNCATE, CLASSES };
static const char *const CLASS_NAMES[] = {"write", "sync", "open", "rename", "unlink", "truncate", "any"};

static const struct {
    int number;
    enum class class;
} CALLS[] = {
    {__NR_write, WRITE},     {__NR_writev, WRITE},    {__NR_pwrite64, WRITE}, {__NR_pwritev, WRITE},
    {__NR_fsync, SYNC},      {__NR_fdatasync, SYNC},  {__NR_openat, OPEN},    {__NR_renameat2, RENAME},
    {__NR_renameat, RENAME}, {__NR_unlinkat, UNLINK}, {__NR_mkdirat, OPEN},   {__NR_ftruncate, TRUNCATE},
#ifdef __NR_open
    {__NR_open, OPEN},       {__NR_mkdir, OPEN},      {__NR_rename, RENAME},  {__NR_unlink, UNLINK},
#endif
};
enum { CALL_COUNT = sizeof CALLS / sizeof CALLS[0], HANDLERS = 8, RULES = 16, FILES = 4096, OPS = 16384, SHORT = 9999 };

struct rule {
    enum class class; /* CLASSES: any */
    char text[256];
    int error, delay_ms, left;
};

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER; /* all below */
static struct rule rules[RULES];
static int rule_count;
static uint64_t seen[CLASSES];
static enum class kill_class;
static uint64_t kill_in; /* 0: never */
static char kill_mode;
static struct {
    ino_t ino;
    off_t size;
} files[FILES];
static int file_count;
static struct {
    bool durable;
    const char *kind;
    char *path, *saved, *path2;
} ops[OPS];
static int op_count;

static const char *shadow, *watched;
static int listener, child_fd;
static pid_t child;

static void die(const char *what)
{
    perror(what);
    exit(97);
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

static int install_filter(void)
{
    struct sock_filter code[CALL_COUNT + 3];
    code[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < CALL_COUNT; i++)
        code[1 + i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)CALLS[i].number,
                                                   (uint8_t)(CALL_COUNT - i), 0);
    code[CALL_COUNT + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[CALL_COUNT + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    struct sock_fprog program = {.len = CALL_COUNT + 3, .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) die("no_new_privs");
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

static void pass_fd(int to, int fd)
{
    char byte = 0, space[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec v = {&byte, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    if (sendmsg(to, &m, 0) != 1) _exit(97);
}

static int take_fd(int from)
{
    int fd;
    char byte, space[CMSG_SPACE(sizeof fd)];
    struct iovec v = {&byte, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    if (recvmsg(from, &m, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&m)) die("the program was not started");
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
    return fd;
}

static void start(char **words)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) die("socketpair");
    child = fork();
    if (child < 0) die("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int fd = install_filter();
        if (fd < 0) _exit(97);
        pass_fd(pair[1], fd);
        execvp(words[0], words);
        _exit(97);
    }
    close(pair[1]);
    listener = take_fd(pair[0]);
    close(pair[0]);
    child_fd = (int)syscall(SYS_pidfd_open, child, 0);
    if (child_fd < 0) die("pidfd_open");
}

/* ---- the books; under mu ----------------------------------------------------------------------------------------- */

static void note_synced(ino_t ino, off_t size)
{
    int i = 0;
    while (i < file_count && files[i].ino != ino) i++;
    if (i == FILES) return;
    if (i == file_count) files[file_count++].size = 0;
    files[i].ino = ino;
    if (files[i].size < size) files[i].size = size;
}

static bool lies_in(const char *path, const char *directory)
{
    size_t n = strlen(directory);
    return path && strncmp(path, directory, n) == 0 && path[n] == '/' && !strchr(path + n + 1, '/');
}

static void note_directory_synced(const char *path, int upto)
{
    for (int i = 0; i < upto; i++)
        if (lies_in(ops[i].path, path) || lies_in(ops[i].path2, path)) ops[i].durable = true;
}

/* Keeps what is at the path under another name. */
static char *save(const char *path)
{
    char *to = NULL;
    if (asprintf(&to, "%s/%d", shadow, op_count) < 0) exit(97);
    if (link(path, to) == 0) return to;
    free(to);
    return NULL;
}

static void note_op(const char *kind, const char *path, char *saved, const char *path2)
{
    if (op_count == OPS) exit(97);
    ops[op_count].kind = kind;
    ops[op_count].path = strdup(path);
    ops[op_count].saved = saved;
    ops[op_count].path2 = path2 ? strdup(path2) : NULL;
    op_count++;
}

static void write_journal(void)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/journal", shadow);
    FILE *out = fopen(path, "w");
    if (!out) die(path);
    for (int i = 0; i < file_count; i++)
        fprintf(out, "file %llu %lld\n", (unsigned long long)files[i].ino, (long long)files[i].size);
    for (int i = 0; i < op_count; i++)
        fprintf(out, "op %d %s %s %s %s\n", ops[i].durable, ops[i].kind, ops[i].path, ops[i].saved ? ops[i].saved : "-",
                ops[i].path2 ? ops[i].path2 : "-");
    fclose(out);
}

/* ---- one call ---------------------------------------------------------------------------------------------------- */

struct request {
    struct seccomp_notif *in;
    int fd; /* a duplicate of the program's, or -1 */
    char path[PATH_MAX], path2[PATH_MAX];
};

static bool read_text(pid_t pid, uint64_t address, char out[PATH_MAX])
{
    size_t got = 0;
    while (got < PATH_MAX - 1) { /* page by page: the next one need not be there */
        size_t part = 4096 - (address + got) % 4096;
        if (part > PATH_MAX - 1 - got) part = PATH_MAX - 1 - got;
        struct iovec to = {out + got, part}, from = {(void *)(uintptr_t)(address + got), part};
        if (process_vm_readv(pid, &to, 1, &from, 1, 0) != (ssize_t)part) return false;
        if (memchr(out + got, 0, part)) return true;
        got += part;
    }
    return false;
}

static bool read_link(pid_t pid, const char *what, char out[PATH_MAX])
{
    char name[64];
    snprintf(name, sizeof name, "/proc/%d/%s", pid, what);
    ssize_t n = readlink(name, out, PATH_MAX - 1);
    out[n > 0 ? n : 0] = 0;
    return n > 0;
}

static bool resolve(pid_t pid, int directory, uint64_t address, char out[PATH_MAX])
{
    char text[PATH_MAX], base[PATH_MAX], what[32] = "cwd";
    if (!read_text(pid, address, text)) return false;
    if (directory != AT_FDCWD) snprintf(what, sizeof what, "fd/%d", directory);
    if (text[0] == '/') {
        strcpy(out, text);
        return true;
    }
    if (!read_link(pid, what, base) || strlen(base) + strlen(text) + 2 > PATH_MAX) return false;
    const char *rest = strncmp(text, "./", 2) == 0 ? text + 2 : text;
    strcpy(stpcpy(stpcpy(out, base), "/"), rest);
    return true;
}

static bool is_watched(const char *path)
{
    size_t n = strlen(watched);
    return strncmp(path, watched, n) == 0 && (path[n] == '/' || path[n] == 0);
}

static bool find_paths(struct request *r)
{
    const uint64_t *a = (const uint64_t *)r->in->data.args;
    pid_t pid = (pid_t)r->in->pid;
    char what[32];
    switch (r->in->data.nr) {
    case __NR_mkdirat:
    case __NR_openat: return resolve(pid, (int)a[0], a[1], r->path);
    case __NR_unlinkat: return resolve(pid, (int)a[0], a[1], r->path);
    case __NR_renameat:
    case __NR_renameat2: return resolve(pid, (int)a[0], a[1], r->path) && resolve(pid, (int)a[2], a[3], r->path2);
#ifdef __NR_open
    case __NR_mkdir:
    case __NR_open:
    case __NR_unlink: return resolve(pid, AT_FDCWD, a[0], r->path);
    case __NR_rename: return resolve(pid, AT_FDCWD, a[0], r->path) && resolve(pid, AT_FDCWD, a[1], r->path2);
#endif
    default: snprintf(what, sizeof what, "fd/%d", (int)a[0]); return read_link(pid, what, r->path);
    }
}

static bool is_mkdir(const struct request *r)
{
#ifdef __NR_mkdir
    if (r->in->data.nr == __NR_mkdir) return true;
#endif
    return r->in->data.nr == __NR_mkdirat;
}

static bool is_changing_open(const struct request *r)
{
    if (is_mkdir(r)) return access(r->path, F_OK) != 0; /* one that is there is said to be there by any disk */
    uint64_t flags = r->in->data.args[r->in->data.nr == __NR_openat ? 2 : 1];
    return flags & (O_CREAT | O_TRUNC);
}

/* Writes what the program wanted to, or half of it. */
static int64_t write_part(struct request *r, bool whole)
{
    const uint64_t *a = (const uint64_t *)r->in->data.args;
    struct iovec v[64] = {{(void *)(uintptr_t)a[1], a[2]}};
    size_t count = 1, total = 0;
    if (r->in->data.nr == __NR_writev || r->in->data.nr == __NR_pwritev) {
        count = a[2] < 64 ? a[2] : 64;
        struct iovec to = {v, count * sizeof v[0]}, from = {(void *)(uintptr_t)a[1], count * sizeof v[0]};
        if (process_vm_readv((pid_t)r->in->pid, &to, 1, &from, 1, 0) < 0) return -EFAULT;
    }
    for (size_t i = 0; i < count; i++) total += v[i].iov_len;
    size_t part = whole ? total : total / 2;
    char *bytes = malloc(part + 1);
    struct iovec to = {bytes, part};
    ssize_t n = bytes ? process_vm_readv((pid_t)r->in->pid, &to, 1, v, count, 0) : -1;
    bool at = r->in->data.nr == __NR_pwrite64 || r->in->data.nr == __NR_pwritev;
    if (n > 0) n = at ? pwrite(r->fd, bytes, (size_t)n, (off_t)a[3]) : write(r->fd, bytes, (size_t)n);
    free(bytes);
    return n < 0 ? -errno : n;
}

static int64_t do_sync(struct request *r)
{
    struct stat st;
    pthread_mutex_lock(&mu);
    int upto = op_count;
    pthread_mutex_unlock(&mu);
    if (fstat(r->fd, &st)) return -errno;
    pthread_mutex_lock(&mu);
    if (S_ISDIR(st.st_mode))
        note_directory_synced(r->path, upto);
    else
        note_synced(st.st_ino, st.st_size);
    pthread_mutex_unlock(&mu);
    return 0;
}

static int64_t do_rename(struct request *r)
{
    pthread_mutex_lock(&mu);
    char *saved = save(r->path2);
    int result = rename(r->path, r->path2) ? -errno : 0;
    if (result == 0) note_op("rename", r->path, saved, r->path2);
    pthread_mutex_unlock(&mu);
    return result;
}

static int64_t do_unlink(struct request *r)
{
    if (r->in->data.nr == __NR_unlinkat && r->in->data.args[2]) return rmdir(r->path) ? -errno : 0;
    pthread_mutex_lock(&mu);
    char *saved = save(r->path);
    int result = unlink(r->path) ? -errno : 0;
    if (result == 0) note_op("unlink", r->path, saved, NULL);
    pthread_mutex_unlock(&mu);
    return result;
}

/* Sets *go_on when the kernel shall carry it out. */
static int64_t carry_out(struct request *r, enum class class, bool *go_on)
{
    switch (class) {
    case SYNC: return do_sync(r);
    case RENAME: return do_rename(r);
    case UNLINK: return do_unlink(r);
    case OPEN:
        pthread_mutex_lock(&mu);
        if (access(r->path, F_OK)) note_op(is_mkdir(r) ? "mkdir" : "create", r->path, NULL, NULL);
        pthread_mutex_unlock(&mu);
        break;
    default: break;
    }
    *go_on = true;
    return 0;
}

/* What is to become of it: an error, a delay, death ('b', 'a', 't'; 0: none). */
static char decide(struct request *r, enum class class, int *error, int *delay_ms)
{
    char mode = 0;
    pthread_mutex_lock(&mu);
    seen[class]++;
    if (kill_in && (kill_class == CLASSES || kill_class == class) && --kill_in == 0) mode = kill_mode;
    for (int i = 0; i < rule_count; i++) {
        struct rule *u = &rules[i];
        if (u->class != CLASSES && u->class != class) continue;
        if (strcmp(u->text, "*") != 0 && !strstr(r->path, u->text) && !strstr(r->path2, u->text)) continue;
        if (u->delay_ms) *delay_ms = u->delay_ms;
        if (u->error && u->left != 0 && !*error) {
            *error = u->error;
            if (u->left > 0 && --u->left == 0) u->left = 0;
        }
    }
    pthread_mutex_unlock(&mu);
    return mode;
}

static void end_program(void)
{
    kill(child, SIGKILL);
    for (;;) pause();
}

static int64_t handle(struct request *r, enum class class, bool *go_on)
{
    *go_on = true;
    bool by_fd = class == WRITE || class == SYNC || class == TRUNCATE;
    if (by_fd && r->in->data.args[0] <= 2) return 0; /* the log */
    if (!find_paths(r) || !(is_watched(r->path) || is_watched(r->path2))) return 0;
    if (class == OPEN && !is_changing_open(r)) return 0;
    if (by_fd) {
        r->fd = (int)syscall(SYS_pidfd_getfd, child_fd, (int)r->in->data.args[0], 0);
        if (r->fd < 0) return 0;
    }
    *go_on = false;
    int error = 0, delay_ms = 0;
    char mode = decide(r, class, &error, &delay_ms);
    if (delay_ms) nanosleep(&(struct timespec){delay_ms / 1000, delay_ms % 1000 * 1000000l}, NULL);
    if (mode != 0 && mode != 'b' && class == WRITE) (void)write_part(r, mode == 'a');
    if (mode == 'a' && class != WRITE) (void)carry_out(r, class, go_on);
    if (mode) end_program();
    if (error == SHORT && class == WRITE) return write_part(r, false);
    if (error && error != SHORT) return -error;
    return carry_out(r, class, go_on);
}

static void *handler(void *arg)
{
    (void)arg;
    size_t size = sizeof(struct seccomp_notif) + 256; /* the kernel's may be larger than ours */
    struct request *r = calloc(1, sizeof *r);
    r->in = calloc(1, size);
    for (;;) {
        memset(r->in, 0, size);
        r->fd = -1;
        r->path[0] = r->path2[0] = 0;
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, r->in)) {
            if (errno != EINTR && errno != ENOENT) return NULL;
            continue;
        }
        int i = 0;
        while (i < CALL_COUNT - 1 && CALLS[i].number != r->in->data.nr) i++;
        bool go_on;
        int64_t value = handle(r, CALLS[i].class, &go_on);
        if (r->fd >= 0) close(r->fd);
        struct seccomp_notif_resp out = {.id = r->in->id};
        if (go_on)
            out.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        else if (value < 0)
            out.error = (int)value;
        else
            out.val = value;
        (void)ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &out);
    }
}

/* ---- control ----------------------------------------------------------------------------------------------------- */

static int class_of(const char *name)
{
    for (int i = 0; i <= CLASSES; i++)
        if (strcmp(CLASS_NAMES[i], name) == 0) return i;
    return -1;
}

/* Under mu. */
static const char *obey(const char *line, char answer[256])
{
    char name[16], text[256], mode[16];
    long number, count;
    if (strcmp(line, "die") == 0) {
        kill(child, SIGKILL);
    } else if (strcmp(line, "clear") == 0) {
        rule_count = 0;
        kill_in = 0;
    } else if (strcmp(line, "count") == 0) {
        int n = 0;
        for (int i = 0; i < CLASSES; i++)
            n += snprintf(answer + n, 256 - (size_t)n, "%s %llu ", CLASS_NAMES[i], (unsigned long long)seen[i]);
        return answer;
    } else if (sscanf(line, "kill %15s %ld %15s", name, &number, mode) == 3 && class_of(name) >= 0) {
        kill_class = (enum class)class_of(name);
        kill_in = (uint64_t)number;
        kill_mode = mode[0];
    } else if (sscanf(line, "fail %15s %255s %ld %ld", name, text, &number, &count) == 4 && class_of(name) >= 0 &&
               rule_count < RULES) {
        rules[rule_count] =
            (struct rule){.class = (enum class)class_of(name), .error = (int)number, .left = count ? (int)count : -1};
        strcpy(rules[rule_count++].text, text);
    } else if (sscanf(line, "delay %15s %255s %ld", name, text, &number) == 3 && class_of(name) >= 0 &&
               rule_count < RULES) {
        rules[rule_count] = (struct rule){.class = (enum class)class_of(name), .delay_ms = (int)number};
        strcpy(rules[rule_count++].text, text);
    } else {
        return "what?";
    }
    return "ok";
}

static void *control(void *arg)
{
    int fd = (int)(intptr_t)arg;
    for (;;) {
        char line[512], answer[256];
        struct sockaddr_un from;
        socklen_t n = sizeof from;
        ssize_t got = recvfrom(fd, line, sizeof line - 1, 0, (struct sockaddr *)&from, &n);
        if (got < 0) continue;
        line[got] = 0;
        pthread_mutex_lock(&mu);
        const char *reply = obey(line, answer);
        pthread_mutex_unlock(&mu);
        (void)sendto(fd, reply, strlen(reply), 0, (struct sockaddr *)&from, n);
    }
    return NULL;
}

static void forward(int number)
{
    kill(child, number);
}

int main(int argc, char **argv)
{
    if (argc < 5) return 97;
    shadow = argv[2];
    watched = argv[3];
    signal(SIGPIPE, SIG_IGN);
    int socket_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    snprintf(at.sun_path, sizeof at.sun_path, "%s", argv[1]);
    unlink(argv[1]);
    if (bind(socket_fd, (struct sockaddr *)&at, sizeof at)) die(argv[1]);
    for (; argc > 5 && strncmp(argv[4], "--do=", 5) == 0; argv++, argc--) { /* obeyed before the start */
        char answer[256];
        if (strcmp(obey(argv[4] + 5, answer), "ok") != 0) return 97;
    }
    start(argv + 4);
    signal(SIGTERM, forward);
    signal(SIGINT, forward);
    pthread_t thread;
    for (int i = 0; i < HANDLERS; i++)
        if (pthread_create(&thread, NULL, handler, NULL)) die("thread");
    if (pthread_create(&thread, NULL, control, (void *)(intptr_t)socket_fd)) die("thread");
    int status;
    while (waitpid(child, &status, 0) != child)
        if (errno != EINTR) die("waitpid");
    pthread_mutex_lock(&mu);
    write_journal();
    if (WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        kill(getpid(), WTERMSIG(status));
    }
    _exit(WEXITSTATUS(status));
}
