#include "base/file.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 64 * 1024 };

bool file_read_all(int fd, size_t max, struct buf *out)
{
    for (;;) {
        if (out->n > max || buf_try_reserve(out, CHUNK) != OK) {
            errno = EFBIG;
            return false;
        }
        ssize_t got = read(fd, out->p + out->n, CHUNK);
        if (got == 0) return true;
        if (got < 0 && errno != EINTR) return false;
        if (got > 0) out->n += (size_t)got;
    }
}

static bool write_all(int fd, struct bytes b)
{
    while (b.n) {
        ssize_t put = write(fd, b.p, b.n);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return false;
        b = bytes_make(b.p + put, b.n - (size_t)put);
    }
    return true;
}

void file_sync_directory_of(const char *path)
{
    char *dir = mem_strdup(path);
    char *slash = strrchr(dir, '/');
    if (slash) slash[slash == dir] = '\0';
    int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    mem_free(dir);
}

bool file_replace(const char *path, struct bytes content)
{
    struct buf temporary = {0};
    struct stat st;
    buf_printf(&temporary, "%s.%ld.tmp", path, (long)getpid());
    buf_append_char(&temporary, '\0');
    bool existed = stat(path, &st) == 0;
    int fd = open(temporary.p, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, existed ? 0600 : 0644);
    bool ok = fd >= 0 && (!existed || fchmod(fd, st.st_mode & 0777) == 0) && write_all(fd, content) && fsync(fd) == 0;
    int saved = errno;
    if (fd >= 0 && close(fd) != 0 && ok) {
        ok = false;
        saved = errno;
    }
    if (ok && rename(temporary.p, path) != 0) {
        ok = false;
        saved = errno;
    }
    if (ok)
        file_sync_directory_of(path);
    else if (fd >= 0)
        unlink(temporary.p);
    buf_deinit(&temporary);
    errno = saved;
    return ok;
}
