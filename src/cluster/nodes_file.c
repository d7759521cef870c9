#include "cluster/nodes_file.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char kept_suffix[] = ".synced-";

static char *with_suffix(const char *path, const char *suffix, struct bytes more)
{
    struct buf b = {0};
    buf_printf(&b, "%s%s", path, suffix);
    buf_append_bytes(&b, more);
    char *out = bytes_dup_cstr(buf_bytes(&b));
    buf_deinit(&b);
    return out;
}

/* ---- reading ---- */

enum { TEXT_MAX = 1 << 30 }; /* bytes: 16384 slots and some thousand nodes need far less */

/* Where the last durable text stays if this run of the machine has one; NULL: it cannot be told. */
static char *kept_path(const char *path)
{
    struct buf id = {0};
    char *out = NULL;
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return NULL;
    if (file_read_all(fd, TEXT_MAX, &id) && id.n > 1) out = with_suffix(path, kept_suffix, bytes_make(id.p, id.n - 1));
    buf_deinit(&id);
    close(fd);
    return out;
}

static struct bytes directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash) return BYTES(".");
    return slash == path ? BYTES("/") : bytes_make(path, (size_t)(slash - path));
}

/* The path of a durable text that an earlier run of the machine has kept; NULL: none. */
static char *find_kept(const struct nodes_file *f)
{
    const char *slash = strrchr(f->path, '/'), *name = slash ? slash + 1 : f->path;
    char *dir_name = bytes_dup_cstr(directory_of(f->path)), *prefix = with_suffix(name, kept_suffix, BYTES(""));
    char *found = NULL;
    DIR *dir = opendir(dir_name);
    for (struct dirent *e; dir && !found && (e = readdir(dir));) {
        if (strncmp(e->d_name, prefix, strlen(prefix)) != 0) continue;
        char *path = with_suffix(f->path, kept_suffix, bytes_of(e->d_name + strlen(prefix)));
        if (f->kept && strcmp(path, f->kept) == 0)
            mem_free(path);
        else
            found = path;
    }
    if (dir) closedir(dir);
    mem_free(dir_name);
    mem_free(prefix);
    return found;
}

/* The machine went down behind a quick write: what was durable then counts.  Without the file itself, which nobody but
 * an operator takes away, there is nothing to go back to. */
static enum status restore(const struct nodes_file *f, bool existed)
{
    enum status st = OK;
    char *kept = find_kept(f);
    if (kept && existed)
        log_warning("The system went down behind an unsynced change of %s: back to what was synced", f->path);
    if (kept && (existed ? rename(kept, f->path) : unlink(kept)) != 0) st = E_IO;
    mem_free(kept);
    return st;
}

static int open_locked(const char *path, int flags, enum status *st)
{
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC | flags, 0644);
    *st = fd < 0 ? E_IO : OK;
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
    *st = errno == EWOULDBLOCK ? E_EXISTS : E_IO;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* The name means this file, and not one that has taken its place meanwhile. */
static bool is_at(int fd, const char *path)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

enum status nodes_file_open(struct nodes_file *f, const char *path, struct buf *text)
{
    enum status st;
    bool existed = access(path, F_OK) == 0;
    *f = (struct nodes_file){.fd = open_locked(path, 0, &st), .spare_fd = -1, .is_durable = true};
    if (st != OK) return st;
    f->path = mem_strdup(path);
    f->spare = with_suffix(path, ".tmp", BYTES(""));
    f->kept = kept_path(path);
    st = restore(f, existed);
    if (st != OK) return st;
    if (!is_at(f->fd, path)) {
        close(f->fd);
        f->fd = open_locked(path, 0, &st);
        if (st != OK) return st;
    }
    f->is_durable = !f->kept || access(f->kept, F_OK) != 0;
    return file_read_all(f->fd, TEXT_MAX, text) ? OK : E_IO;
}

/* ---- writing ---- */

/* The whole text, over what the file had. */
static bool overwrite(int fd, struct bytes text)
{
    size_t at = 0;
    while (at < text.n) {
        ssize_t n = pwrite(fd, text.p + at, text.n - at, (off_t)at);
        if (n < 0) return false;
        at += (size_t)n;
    }
    return ftruncate(fd, (off_t)text.n) == 0;
}

static bool open_spare(struct nodes_file *f)
{
    enum status st;
    if (f->spare_fd < 0) f->spare_fd = open_locked(f->spare, O_TRUNC, &st);
    return f->spare_fd >= 0;
}

static void drop_spare(struct nodes_file *f)
{
    if (f->spare_fd >= 0) close(f->spare_fd);
    f->spare_fd = -1;
    unlink(f->spare);
}

static void take_over_spare(struct nodes_file *f)
{
    close(f->fd);
    f->fd = f->spare_fd;
    f->spare_fd = -1;
}

static enum status failed(struct nodes_file *f)
{
    int error = errno;
    drop_spare(f);
    errno = error;
    return E_IO;
}

static void now_durable(struct nodes_file *f)
{
    file_sync_directory_of(f->path);
    if (f->kept) unlink(f->kept);
    f->is_durable = true;
}

static enum status write_durable(struct nodes_file *f, struct bytes text)
{
    if (!open_spare(f) || !overwrite(f->spare_fd, text) || fsync(f->spare_fd) != 0) return failed(f);
    if (rename(f->spare, f->path) != 0) return failed(f);
    take_over_spare(f);
    now_durable(f);
    return OK;
}

/* The durable text gets its other name before the file gets another text, and keeps it if the machine goes down. */
static bool keep_durable(const struct nodes_file *f)
{
    if (!f->is_durable || link(f->path, f->kept) == 0) return true;
    return errno == EEXIST && unlink(f->kept) == 0 && link(f->path, f->kept) == 0; /* that was an older one */
}

/* False: it has to be written durably. */
static bool write_quick(struct nodes_file *f, struct bytes text)
{
    if (!f->kept || f->cannot_swap || !open_spare(f) || !overwrite(f->spare_fd, text) || !keep_durable(f)) return false;
    if (renameat2(AT_FDCWD, f->spare, AT_FDCWD, f->path, RENAME_EXCHANGE) != 0) {
        f->cannot_swap = true;
        return false;
    }
    int was = f->fd;
    f->fd = f->spare_fd;
    f->spare_fd = was;
    if (f->is_durable) drop_spare(f); /* it is the one that is kept: nobody writes to it */
    f->is_durable = false;
    return true;
}

enum status nodes_file_write(struct nodes_file *f, struct bytes text, bool *is_durable)
{
    if (!*is_durable && write_quick(f, text)) return OK;
    *is_durable = true;
    return write_durable(f, text);
}

enum status nodes_file_sync(struct nodes_file *f)
{
    if (f->is_durable) return OK;
    if (fsync(f->fd) != 0) return E_IO;
    now_durable(f);
    return OK;
}
