#include "cluster/nodes_file.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum status nodes_file_open(struct nodes_file *f, const char *path, struct buf *text)
{
    f->fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    if (f->fd < 0) return E_IO;
    if (flock(f->fd, LOCK_EX | LOCK_NB) < 0) {
        enum status st = errno == EWOULDBLOCK ? E_EXISTS : E_IO;
        close(f->fd);
        return st;
    }
    f->path = mem_strdup(path);
    for (;;) {
        buf_reserve(text, 64 * 1024);
        ssize_t n = read(f->fd, text->p + text->n, text->cap - text->n);
        if (n < 0) return E_IO;
        if (n == 0) return OK;
        text->n += (size_t)n;
    }
}

static enum status write_and_sync(int fd, struct bytes text)
{
    while (text.n) {
        ssize_t n = write(fd, text.p, text.n);
        if (n < 0) return E_IO;
        text = bytes_make(text.p + n, text.n - (size_t)n);
    }
    return fsync(fd) == 0 ? OK : E_IO;
}

static void sync_directory(const char *path)
{
    char dir[4096];
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash) *slash = '\0';
    int fd = open(slash ? (*dir ? dir : "/") : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd);
    close(fd);
}

enum status nodes_file_write(struct nodes_file *f, struct bytes text)
{
    char temp[4200];
    snprintf(temp, sizeof temp, "%.4000s.tmp-%d", f->path, (int)getpid());
    int fd = open(temp, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0644);
    if (fd < 0) return E_IO;
    bool ok = flock(fd, LOCK_EX | LOCK_NB) == 0 && write_and_sync(fd, text) == OK && rename(temp, f->path) == 0;
    if (!ok) {
        int saved = errno;
        close(fd);
        unlink(temp);
        errno = saved;
        return E_IO;
    }
    close(f->fd);
    f->fd = fd;
    sync_directory(f->path);
    return OK;
}
