/* aof_files.c: the directory of the AOF: manifest, names, temporary files, what is loaded and made at the start.
 * The manifest on disk always names files that together are the dataset: it is replaced whole, and only after what it
 * names is on disk.  Source of the order of steps and words: redis-server 7.0.15. */
#include "server/aof_internal.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "change/durable.h"
#include "server/aof_load.h"
#include "server/aof_scripts.h"
#include "server/multi.h"
#include "server/persistence.h"
#include "server/replication.h"
#include "server/tracking.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MANIFEST_MAX = 16 << 20, STEP_BYTES = 1 << 20, SYNC_BYTES = 4 << 20 };

/* ---- paths ------------------------------------------------------------------------------------------------------- */

/* dir/appenddirname, and with a name dir/appenddirname/name; mem_free(). */
static char *path_of(struct aof *a, const char *name)
{
    struct buf b = {0};
    config_text(a->node->config, CFG_DIR, &b);
    buf_append_char(&b, '/');
    config_text(a->node->config, CFG_APPENDDIRNAME, &b);
    if (name) {
        buf_append_char(&b, '/');
        buf_append_cstr(&b, name);
    }
    char *text = bytes_dup_cstr(buf_bytes(&b));
    buf_deinit(&b);
    return text;
}

/* A file's name made of the configured one; mem_free(). */
static char *named(struct aof *a, const char *before, const char *behind)
{
    struct buf b = {0};
    buf_append_cstr(&b, before);
    config_text(a->node->config, CFG_APPENDFILENAME, &b);
    buf_append_cstr(&b, behind);
    char *text = bytes_dup_cstr(buf_bytes(&b));
    buf_deinit(&b);
    return text;
}

static char *named_path(struct aof *a, const char *before, const char *behind)
{
    char *name = named(a, before, behind), *path = path_of(a, name);
    mem_free(name);
    return path;
}

static char *temporary_base(struct aof *a)
{
    char name[64];
    snprintf(name, sizeof name, "temp-rewriteaof-bg-%d.aof", (int)getpid());
    return path_of(a, name);
}

static int64_t size_of(struct aof *a, const char *name)
{
    struct stat st;
    char *path = path_of(a, name);
    int64_t size = stat(path, &st) == 0 ? (int64_t)st.st_size : -1;
    mem_free(path);
    return size;
}

static bool exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

bool aof_files_make_directory(struct aof *a)
{
    char *path = path_of(a, NULL);
    bool made = mkdir(path, 0755) == 0, ok = made || errno == EEXIST;
    if (made) file_sync_directory_of(path); /* or all that is synced in it is lost with the directory */
    if (!ok) log_warning("Can't open or create append-only dir %s: %s", path, strerror(errno));
    mem_free(path);
    return ok;
}

static bool sync_directory(struct aof *a)
{
    char *path = path_of(a, NULL);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && (fsync(fd) == 0 || errno == EINVAL);
    if (!ok) log_warning("Fail to fsync AOF directory %s: %s.", path, strerror(errno));
    if (fd >= 0) close(fd);
    mem_free(path);
    return ok;
}

/* ---- the manifest ------------------------------------------------------------------------------------------------ */

/* Under files. */
static void measure(struct aof *a)
{
    uint64_t size = 0;
    const struct aof_file *last = aof_manifest_last_increment(&a->manifest);
    for (size_t i = 0; i < a->manifest.n; i++) {
        const struct aof_file *f = &a->manifest.files[i];
        bool written_now = f == last && atomic_load(&a->state) != AOF_STATE_OFF;
        int64_t n = f->type == AOF_HISTORY || written_now ? 0 : size_of(a, f->name);
        if (n > 0) size += (uint64_t)n;
    }
    atomic_store(&a->older_size, size);
}

uint64_t aof_files_older_size(struct aof *a)
{
    return atomic_load(&a->older_size);
}

static bool write_file(const char *path, struct bytes text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        log_warning("Can't open the AOF manifest file %s: %s", path, strerror(errno));
        return false;
    }
    bool ok = true;
    for (size_t at = 0; ok && at < text.n;) {
        ssize_t n = write(fd, text.p + at, text.n - at);
        if (n < 0 && errno == EINTR) continue;
        ok = n > 0;
        if (ok) at += (size_t)n;
    }
    if (!ok) log_warning("Error trying to write the temporary AOF manifest file %s: %s", path, strerror(errno));
    if (ok && fsync(fd) != 0) {
        log_warning("Fail to fsync the temp AOF file %s: %s.", path, strerror(errno));
        ok = false;
    }
    close(fd);
    return ok;
}

/* Under files: m (taken) takes the place of the manifest, on disk and in memory.  False: nothing has changed, and m is
 * freed. */
static bool install_manifest(struct aof *a, struct aof_manifest *m)
{
    char *temporary = named_path(a, "temp-", ".manifest"), *path = named_path(a, "", ".manifest");
    struct buf text = {0};
    aof_manifest_print(m, &text);
    bool ok = write_file(temporary, buf_bytes(&text));
    if (ok && rename(temporary, path) != 0) {
        log_warning("Error trying to rename the temporary AOF manifest file %s into %s: %s", temporary, path,
                    strerror(errno));
        ok = false;
    }
    if (!ok) unlink(temporary);
    /* The new one is in place; a directory that cannot be synced is told, and no reason to go back. */
    if (ok) (void)sync_directory(a);
    buf_deinit(&text);
    mem_free(temporary);
    mem_free(path);
    if (ok) {
        aof_manifest_deinit(&a->manifest);
        a->manifest = *m;
        measure(a);
    } else {
        aof_manifest_deinit(m);
    }
    return ok;
}

/* Under files. */
static void delete_history(struct aof *a)
{
    if (config_bool(a->node->config, CFG_AOF_DISABLE_AUTO_GC) || aof_manifest_count(&a->manifest, AOF_HISTORY) == 0)
        return;
    bool all = true;
    for (size_t i = 0; i < a->manifest.n; i++) {
        const struct aof_file *f = &a->manifest.files[i];
        if (f->type != AOF_HISTORY) continue;
        log_notice("Removing the history file %s in the background", f->name);
        char *path = path_of(a, f->name);
        if (unlink(path) != 0 && errno != ENOENT) {
            log_warning("Can't remove the history file %s: %s", f->name, strerror(errno));
            all = false;
        }
        mem_free(path);
    }
    if (!all) return; /* they stay in the manifest, and the next rewrite tries again */
    struct aof_manifest next;
    aof_manifest_copy(&a->manifest, &next);
    aof_manifest_drop_history(&next);
    (void)install_manifest(a, &next);
}

void aof_files_forget(struct aof *a)
{
    pthread_mutex_lock(&a->files);
    delete_history(a);
    pthread_mutex_unlock(&a->files);
}

/* ---- increments and bases ---------------------------------------------------------------------------------------- */

static int open_for_appending(const char *path, int flags)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | flags, 0644);
    if (fd < 0) log_warning("Can't open the append-only file %s: %s", path, strerror(errno));
    return fd;
}

/* Under files. */
static int make_increment(struct aof *a, const char *when)
{
    struct aof_manifest next;
    aof_manifest_copy(&a->manifest, &next);
    char *name = named(a, "", ""), *file = aof_increment_name(name, next.increment_seq + 1), *path = path_of(a, file);
    log_notice("Creating AOF incr file %s on %s", file, when);
    aof_manifest_add(&next, file, next.increment_seq + 1, AOF_INCREMENT);
    int fd = open_for_appending(path, O_TRUNC);
    if (fd < 0) {
        aof_manifest_deinit(&next);
    } else if (!install_manifest(a, &next)) {
        close(fd);
        unlink(path);
        fd = -1;
    }
    mem_free(name);
    mem_free(file);
    mem_free(path);
    return fd;
}

int aof_files_next_increment(struct aof *a)
{
    pthread_mutex_lock(&a->files);
    int fd = make_increment(a, "background rewrite");
    pthread_mutex_unlock(&a->files);
    return fd;
}

int aof_files_temporary_increment(struct aof *a)
{
    char *path = named_path(a, "temp-", ".incr");
    unlink(path);
    int fd = open_for_appending(path, O_TRUNC);
    mem_free(path);
    return fd;
}

struct base_file {
    int fd;
    uint64_t written, synced;
    bool incremental;
};

static enum status base_write(void *ctx, const void *p, size_t n)
{
    struct base_file *f = ctx;
    const char *from = p;
    while (n) {
        ssize_t put = write(f->fd, from, n);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return E_IO;
        from += put;
        n -= (size_t)put;
        f->written += (uint64_t)put;
    }
    /* So that the last sync is short. */
    if (f->incremental && f->written - f->synced >= SYNC_BYTES) {
        (void)sync_file_range(f->fd, (off64_t)f->synced, (off64_t)(f->written - f->synced), SYNC_FILE_RANGE_WRITE);
        f->synced = f->written;
    }
    return OK;
}

/* Takes the cut. */
static enum status write_cut(struct aof *a, struct cut *cut, const struct rdb_options *options, struct base_file *f)
{
    struct rdb_sink sink = {f, base_write};
    if (!config_bool(a->node->config, CFG_AOF_USE_RDB_PREAMBLE))
        return aof_base_write(a->node->store, cut, sink, options,
                              config_bool(a->node->config, CFG_AOF_TIMESTAMP_ENABLED), &a->progress);
    struct rdb_snapshot *sn = rdb_snapshot_begin(a->node->store, cut, sink, options, &a->progress);
    enum status st;
    do st = rdb_snapshot_step(sn, STEP_BYTES);
    while (st == E_AGAIN);
    int saved = errno;
    rdb_snapshot_end(sn);
    errno = saved;
    return st;
}

enum status aof_files_write_base(struct aof *a)
{
    char *path = temporary_base(a);
    struct base_file f = {.fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644),
                          .incremental = config_bool(a->node->config, CFG_AOF_REWRITE_INCREMENTAL_FSYNC)};
    if (f.fd < 0) {
        log_warning("Opening the temp file for AOF rewrite in rewriteAppendOnlyFile(): %s", strerror(errno));
        store_cut_end(a->cut);
        mem_free(path);
        return E_IO;
    }
    a->base_is_rdb = config_bool(a->node->config, CFG_AOF_USE_RDB_PREAMBLE);
    enum status st = write_cut(a, a->cut, &a->options, &f);
    a->cut = NULL;
    if (st == OK && fsync(f.fd) != 0) st = E_IO;
    if (st != OK && st != E_CLOSED)
        log_warning("Write error writing append only file on disk: %s", st == E_IO ? strerror(errno) : status_name(st));
    if (st == OK) log_notice("Successfully created the temporary AOF base file %s", path);
    close(f.fd);
    if (st != OK) unlink(path);
    mem_free(path);
    return st;
}

void aof_files_remove_temporary(struct aof *a)
{
    char *base = temporary_base(a);
    unlink(base);
    mem_free(base);
    if (atomic_load(&a->state) != AOF_STATE_FIRST_REWRITE) return;
    char *increment = named_path(a, "temp-", ".incr");
    unlink(increment);
    mem_free(increment);
}

static bool move(const char *from, const char *to, const char *what)
{
    if (rename(from, to) != 0) {
        log_warning("Error trying to rename the temporary AOF %s file %s into %s: %s", what, from, to, strerror(errno));
        return false;
    }
    log_notice("Successfully renamed the temporary AOF %s file %s into %s", what, from, to);
    return true;
}

/* Under files. */
static bool install(struct aof *a)
{
    struct aof_manifest next;
    bool first = atomic_load(&a->state) == AOF_STATE_FIRST_REWRITE;
    aof_manifest_copy(&a->manifest, &next);
    char *name = named(a, "", ""), *temporary = temporary_base(a);
    char *base = aof_base_name(name, next.base_seq + 1, a->base_is_rdb), *base_path = path_of(a, base);
    char *incr = aof_increment_name(name, next.increment_seq + 1), *incr_path = path_of(a, incr);
    char *incr_temporary = named_path(a, "temp-", ".incr");
    bool ok = move(temporary, base_path, "base");
    bool moved_base = ok;
    if (ok && first) ok = move(incr_temporary, incr_path, "incr");
    bool moved_incr = ok && first;
    if (ok) {
        aof_manifest_retire(&next, a->needs_switch);
        aof_manifest_add(&next, base, next.base_seq + 1, AOF_BASE);
        if (first) aof_manifest_add(&next, incr, next.increment_seq + 1, AOF_INCREMENT);
        ok = install_manifest(a, &next);
    } else {
        aof_manifest_deinit(&next);
    }
    if (!ok && moved_base) unlink(base_path);
    if (!ok && moved_incr) unlink(incr_path);
    mem_free(name);
    mem_free(temporary);
    mem_free(base);
    mem_free(base_path);
    mem_free(incr);
    mem_free(incr_path);
    mem_free(incr_temporary);
    return ok;
}

bool aof_files_install(struct aof *a)
{
    pthread_mutex_lock(&a->files);
    bool ok = install(a);
    if (ok) delete_history(a);
    pthread_mutex_unlock(&a->files);
    return ok;
}

/* ---- at the start ------------------------------------------------------------------------------------------------ */

static bool bad_manifest(const struct aof_manifest_error *err)
{
    log_warning("*** FATAL AOF MANIFEST FILE ERROR ***");
    if (err->line) {
        log_warning("Reading the manifest file, at line %d", err->line);
        log_warning(">>> '%.*s'", (int)(err->text.n < 256 ? err->text.n : 256), err->text.p);
    }
    log_warning("%s", err->what);
    return false;
}

static bool read_manifest(struct aof *a, const char *path)
{
    struct buf text = {0};
    struct aof_manifest_error err;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0 && file_read_all(fd, MANIFEST_MAX, &text);
    if (!ok)
        log_warning("Fatal error: can't open the AOF manifest file %s for reading: %s", path, strerror(errno));
    else if (aof_manifest_parse(&a->manifest, buf_bytes(&text), &err) != OK)
        ok = bad_manifest(&err);
    if (fd >= 0) close(fd);
    buf_deinit(&text);
    return ok;
}

/* What a process that was killed left behind. */
static void remove_leftovers(struct aof *a)
{
    char *directory = path_of(a, NULL), *increment = named(a, "temp-", ".incr");
    DIR *d = opendir(directory);
    for (const struct dirent *e; d && (e = readdir(d));) {
        bool base = strncmp(e->d_name, "temp-rewriteaof-", 16) == 0;
        if (!base && strcmp(e->d_name, increment) != 0) continue;
        log_notice("Removing the temp incr aof file %s in the background", e->d_name);
        char *path = path_of(a, e->d_name);
        unlink(path);
        mem_free(path);
    }
    if (d) closedir(d);
    mem_free(directory);
    mem_free(increment);
}

bool aof_open(struct aof *a)
{
    char *path = named_path(a, "", ".manifest"), *directory = path_of(a, NULL);
    bool ok = true;
    if (!exists(directory))
        log_debug("The AOF directory %s doesn't exist", directory);
    else if (!exists(path))
        log_debug("The AOF manifest file %s doesn't exist", path);
    else
        ok = read_manifest(a, path);
    if (ok) remove_leftovers(a);
    mem_free(path);
    mem_free(directory);
    return ok;
}

/* An AOF of one file beside the directory, as Redis wrote it before 7.0, becomes the base. */
static bool upgrade(struct aof *a)
{
    char *name = named(a, "", ""), *to = path_of(a, name);
    struct buf old = {0};
    config_text(a->node->config, CFG_DIR, &old);
    buf_printf(&old, "/%s", name);
    buf_append_char(&old, '\0');
    const struct aof_file *base = aof_manifest_base(&a->manifest);
    bool interrupted = base && a->manifest.n == 1 && strcmp(base->name, name) == 0 && !exists(to);
    bool wanted = exists(old.p) && (a->manifest.n == 0 || interrupted), ok = true;
    if (wanted && (ok = aof_files_make_directory(a)) && !interrupted) {
        struct aof_manifest next = {0};
        aof_manifest_add(&next, name, 1, AOF_BASE);
        ok = install_manifest(a, &next);
    }
    if (wanted && ok && rename(old.p, to) != 0) {
        log_warning("Error trying to move the old AOF file %s into dir %s: %s", old.p, to, strerror(errno));
        ok = false;
    }
    if (wanted && ok) {
        (void)sync_directory(a);
        log_notice("Successfully migrated an old-style AOF file (%s) into the AOF directory (%s).", name, to);
    }
    buf_deinit(&old);
    mem_free(name);
    mem_free(to);
    return ok;
}

static void load_tick(void *ctx)
{
    loop_turn(((struct node *)ctx)->main_loop, 0);
}

static bool load_one(struct aof *a, struct aof_load *l, const struct aof_file *f, bool last)
{
    char *directory = path_of(a, NULL);
    int64_t begin = clock_mono_ms();
    enum aof_loaded got =
        aof_load_file(l, directory, f->name, last && config_bool(a->node->config, CFG_AOF_LOAD_TRUNCATED));
    mem_free(directory);
    if (got == AOF_NOT_LOADED) {
        if (!last) log_warning("If only its end is missing: the truncated file is not the last file");
        return false;
    }
    log_notice("DB loaded from %s file %s: %.3f seconds", f->type == AOF_BASE ? "base" : "incr", f->name,
               (double)(clock_mono_ms() - begin) / 1000);
    return true;
}

static bool all_there(struct aof *a, uint64_t *size)
{
    *size = 0;
    for (size_t i = 0; i < a->manifest.n; i++) {
        const struct aof_file *f = &a->manifest.files[i];
        if (f->type == AOF_HISTORY) continue;
        int64_t n = size_of(a, f->name);
        if (n < 0) {
            log_warning("Unable to obtain the AOF file %s length. stat: %s", f->name, strerror(errno));
            return false;
        }
        *size += (uint64_t)n;
    }
    return true;
}

static bool load_files(struct aof *a, struct aof_load *l)
{
    uint64_t size;
    if (!all_there(a, &size)) return false;
    atomic_store(&a->load_progress.bytes, 0);
    atomic_store(&a->load_progress.bytes_total, size);
    atomic_store(&a->loading, true);
    bool ok = true;
    for (size_t i = 0; ok && i < a->manifest.n; i++) {
        const struct aof_file *f = &a->manifest.files[i];
        if (f->type != AOF_HISTORY) ok = load_one(a, l, f, i + 1 == a->manifest.n);
        atomic_store(&a->load_progress.bytes_total, size);
    }
    atomic_store(&a->loading, false);
    aof_scripts_destroy(l->scripts);
    l->scripts = NULL;
    return ok;
}

/* A manifest without a base gets one of what is there: nothing, or what was loaded. */
static bool make_base(struct aof *a)
{
    char *name = named(a, "", ""), *base = aof_base_name(name, a->manifest.base_seq + 1, true);
    log_notice("Creating AOF base file %s on server start", base);
    mem_free(name);
    mem_free(base);
    a->cut = store_cut_begin(a->node->store);
    if (!a->cut) return false;
    aof_rewrite_options(a);
    if (aof_files_write_base(a) != OK) return false;
    struct aof_manifest next;
    aof_manifest_copy(&a->manifest, &next);
    name = named(a, "", "");
    base = aof_base_name(name, next.base_seq + 1, a->base_is_rdb);
    char *temporary = temporary_base(a), *path = path_of(a, base);
    bool ok = rename(temporary, path) == 0;
    if (!ok) log_warning("Error moving temp append only file on the final destination: %s", strerror(errno));
    aof_manifest_add(&next, base, next.base_seq + 1, AOF_BASE);
    if (ok)
        ok = install_manifest(a, &next);
    else
        aof_manifest_deinit(&next);
    mem_free(name);
    mem_free(base);
    mem_free(temporary);
    mem_free(path);
    return ok;
}

/* The file to go on in, and its size. */
static int open_last(struct aof *a, uint64_t *size)
{
    const struct aof_file *last = aof_manifest_last_increment(&a->manifest);
    *size = 0;
    if (!last) return make_increment(a, "server start");
    int64_t n = size_of(a, last->name);
    char *path = path_of(a, last->name);
    log_notice("Opening AOF incr file %s on server start", last->name);
    int fd = open_for_appending(path, 0);
    mem_free(path);
    if (n > 0) *size = (uint64_t)n;
    return fd;
}

static bool begin_writing(struct aof *a, const struct aof_load *l)
{
    struct node *n = a->node;
    uint64_t size;
    if (l->has_position)
        replication_restore(n->replication, &l->position);
    else
        change_log_activate(n->log);
    atomic_store(&a->state, AOF_STATE_ON);
    if (!aof_files_make_directory(a) || (!aof_manifest_base(&a->manifest) && !make_base(a))) return false;
    int fd = open_last(a, &size);
    if (fd < 0) return false;
    delete_history(a);
    measure(a);
    atomic_store(&n->durable->synced, change_offset(n->log));
    aof_reconfigure(a);
    /* What follows in this file selects its database anew, unless the stream goes on where the file ends. */
    return aof_start_writer(a, fd, size, size ? -1 : change_selected_db(n->log));
}

bool aof_load_at_start(struct aof *a)
{
    struct node *n = a->node;
    struct rdb_extras extras = {0};
    struct aof_load l = {.node = n,
                         .progress = &a->load_progress,
                         .extras = &extras,
                         .tick = load_tick,
                         .ctx = n,
                         .position = {.db = -1}};
    int64_t begin = clock_mono_ms();
    atomic_store(&n->loading, true);
    bool ok = upgrade(a);
    bool empty = a->manifest.n == aof_manifest_count(&a->manifest, AOF_HISTORY);
    if (ok && empty) persistence_warn_of_file(n->persistence);
    if (ok && !empty) ok = load_files(a, &l);
    if (ok && !empty)
        log_notice("DB loaded from append only file: %.3f seconds", (double)(clock_mono_ms() - begin) / 1000);
    const struct aof_file *base = aof_manifest_base(&a->manifest);
    int64_t base_size = base ? size_of(a, base->name) : 0;
    ok = ok && begin_writing(a, &l);
    atomic_store(&a->base_growth_from, base_size > 0 ? (uint64_t)base_size : 0);
    atomic_store(&n->dirty, 0);
    atomic_store(&n->loading, false);
    rdb_extras_deinit(&extras);
    return ok;
}

bool aof_has_files(struct aof *a)
{
    pthread_mutex_lock(&a->files);
    bool has = a->manifest.n > aof_manifest_count(&a->manifest, AOF_HISTORY);
    pthread_mutex_unlock(&a->files);
    return has;
}

bool aof_reload(struct aof *a)
{
    struct node *n = a->node;
    struct rdb_extras extras = {0};
    struct aof_load l = {.node = n, .progress = &a->load_progress, .extras = &extras};
    aof_rewrite_cancel(a);
    persistence_save_cancel(n->persistence);
    if (aof_writer_is_on(a->writer) && aof_writer_sync(a->writer) != OK) return false;
    watch_flushed(n, -1, -1, clock_wall_ms());
    tracking_flushed(n);
    persistence_empty(n->persistence);
    atomic_store(&n->loading, true);
    bool ok = load_files(a, &l);
    atomic_store(&n->dirty, 0);
    atomic_store(&n->loading, false);
    rdb_extras_deinit(&extras);
    return ok;
}
