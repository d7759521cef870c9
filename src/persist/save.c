/* save.c: an RDB file that is there whole or not at all. */
#include "persist/persist.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

/* After so many bytes the kernel is asked to start writing them, so that the final sync is short. */
enum { WRITEBACK_BYTES = 1024 * 1024 };
/* How much is written between two looks at `cancel` at the latest. */
enum { STEP_BYTES = 1024 * 1024 };

struct file_sink {
    int fd;
    uint64_t written, started; /* bytes written, and of these given to writeback */
};

static enum status write_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t got = write(fd, p, n);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return E_IO;
        if (got == 0) {
            errno = ENOSPC;
            return E_IO;
        }
        p += got;
        n -= (size_t)got;
    }
    return OK;
}

static enum status file_sink_write(void *ctx, const void *p, size_t n)
{
    struct file_sink *f = ctx;
    enum status st = write_all(f->fd, p, n);
    if (st != OK) return st;
    f->written += n;
    if (f->written - f->started >= WRITEBACK_BYTES) {
        (void)sync_file_range(f->fd, (off64_t)f->started, (off64_t)(f->written - f->started), SYNC_FILE_RANGE_WRITE);
        f->started = f->written;
    }
    return OK;
}

/* Says what failed, with errno's text where the system was the reason. */
static enum status fail(struct rdb_error *err, enum status st, const char *what, const char *path)
{
    int saved = errno;
    if (st == E_IO)
        snprintf(err->text, sizeof err->text, "%s %.120s: %s", what, path, strerror(saved));
    else
        snprintf(err->text, sizeof err->text, "%s %.120s: %s", what, path, status_name(st));
    errno = saved;
    return st;
}

static enum status write_snapshot(struct store *s, struct cut *cut, const struct rdb_options *options, int fd,
                                  struct rdb_progress *progress)
{
    struct file_sink f = {.fd = fd};
    struct rdb_sink sink = {&f, file_sink_write};
    struct rdb_snapshot *sn = rdb_snapshot_begin(s, cut, sink, options, progress);
    enum status st;
    do st = rdb_snapshot_step(sn, STEP_BYTES);
    while (st == E_AGAIN);
    int saved = errno;
    rdb_snapshot_end(sn);
    errno = saved;
    return st;
}

static enum status sync_dir(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return E_IO;
    int result = fsync(fd), saved = errno;
    close(fd);
    errno = saved;
    /* Some file systems cannot sync a directory and say EINVAL; the rename is as durable as it gets there. */
    return result == 0 || saved == EINVAL ? OK : E_IO;
}

static enum status write_temp(struct store *s, struct cut *cut, const struct rdb_options *options, const char *temp,
                              struct rdb_progress *progress, struct rdb_error *err)
{
    int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        int saved = errno;
        store_cut_end(cut);
        errno = saved;
        return fail(err, E_IO, "Failed opening the temp RDB file", temp);
    }
    enum status st = write_snapshot(s, cut, options, fd, progress);
    if (st != OK) fail(err, st, st == E_CLOSED ? "Saving was cancelled:" : "Write error saving DB on disk:", temp);
    if (st == OK && fsync(fd) != 0) st = fail(err, E_IO, "Failed syncing", temp);
    int saved = errno;
    if (close(fd) != 0 && st == OK) return fail(err, E_IO, "Failed closing", temp);
    errno = saved;
    return st;
}

enum status rdb_save_file(struct store *s, struct cut *cut, const struct rdb_options *options, const char *dir,
                          const char *name, struct rdb_progress *progress, struct rdb_error *err)
{
    char temp[PATH_MAX], path[PATH_MAX];
    err->text[0] = 0;
    int temp_n = snprintf(temp, sizeof temp, "%s/temp-%d.rdb", dir, (int)getpid());
    int path_n = snprintf(path, sizeof path, "%s/%s", dir, name);
    if (temp_n >= PATH_MAX || path_n >= PATH_MAX) {
        store_cut_end(cut);
        return fail(err, E_INVALID, "Path too long for", name);
    }
    enum status st = write_temp(s, cut, options, temp, progress, err);
    if (st == OK && rename(temp, path) != 0)
        st = fail(err, E_IO, "Error moving temp DB file on the final destination", path);
    if (st != OK) {
        int saved = errno;
        unlink(temp);
        errno = saved;
        return st;
    }
    /* The new file is in place and whole; only its name may not survive a power cut, which is told. */
    st = sync_dir(dir);
    return st == OK ? OK : fail(err, st, "Failed syncing the directory", dir);
}
