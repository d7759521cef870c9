#include "persist/aof_writer.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "persist/aof.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    PIECES = 64,                    /* of one writev() */
    PIECES_RESERVE = 6,             /* one step may add so many */
    TEXT_BYTES = 4096,              /* annotations and beginnings of commands, of one writev() */
    TEXT_RESERVE = 320,             /* one step may add so many */
    BATCH_BYTES = 8 << 20,          /* of one writev(), about */
    SYNC_EVERY_MS = 1000,           /* everysec, and tries after a failure */
    SYNC_PATIENCE_MS = 2000,        /* so long a write waits for a sync under way ... */
    SYNC_PATIENCE_BYTES = 16 << 20, /* ... or until so much waits */
    LOG_FAILURE_EVERY_MS = 30000,
    IO_TRIES = 50,            /* at once ... */
    IO_TRIES_SLOW = 10,       /* ... and a millisecond apart */
    POSITION_EVERY_MS = 1000, /* when the stream held nothing for the file */
};
static const uint64_t BEHIND_MAX = 128 << 20; /* then writers wait */
static const uint64_t NEVER = UINT64_MAX;

struct aof_writer {
    struct aof_writer_host host;
    pthread_mutex_t io;
    /* under io */
    int fd;
    struct change_reader tail; /* at the last boundary that is in the file: `good_size` bytes of it */
    struct change_reader head; /* behind what was put into the pieces */
    uint64_t good_size;
    struct aof_filter filter;
    struct iovec piece[PIECES];
    int pieces, pieces_done;
    char text[TEXT_BYTES];
    unsigned text_n;
    uint64_t queued;                  /* bytes in the pieces */
    uint64_t mark_offset, mark_bytes; /* the last boundary among them */
    uint64_t command_offset;          /* where the command under way begins in the log */
    bool position_due, skipped;       /* #POS is to be written; the stream held bytes that the file does not */
    bool position_now;                /* the thread is at it, which is seldom: #POS does not wait */
    bool borrowed;                    /* the last #POS names the history before the present one */
    unsigned id_generation;
    int64_t position_ms, stamp_s; /* the last #POS, monotonic; #TS, unix time */
    uint64_t batch_size;          /* of the file before these pieces */
    int select_db;                /* what a file has to select at its beginning */
    int64_t failure_logged_ms;
    /* the rest */
    pthread_mutex_t sync;     /* held through an fdatasync(); taken under io, let go of after it */
    int switch_db;            /* select_db of the next file; written at rest, before stop_at */
    _Atomic uint64_t stop_at; /* the file ends here, another goes on; NEVER */
    _Atomic bool on, again, congested;
    _Atomic uint64_t written, durable, synced, size, delayed;
    _Atomic int write_errno, sync_errno;
    _Atomic int64_t syncing_since_ms;   /* 0: no sync is under way */
    _Atomic int64_t switching_since_ms; /* 0: no change of files under way; read without a lock */
    _Atomic bool holding;               /* replies wait for the change of files that was asked for */
    int64_t synced_ms;                  /* the thread's */
    pthread_mutex_t mu;
    pthread_cond_t woken;
    pthread_t thread;
    _Atomic bool ending;
    bool wake;          /* under mu */
    _Atomic int asleep; /* 0 or 1; see poke_sleeper() */
    bool started;       /* the thread runs; who starts first */
};

static void *run(void *arg);

struct aof_writer *aof_writer_create(struct aof_writer_host host)
{
    struct aof_writer *w = mem_calloc(1, sizeof *w);
    w->host = host;
    w->fd = -1;
    atomic_init(&w->stop_at, NEVER);
    pthread_mutex_init(&w->io, NULL);
    pthread_mutex_init(&w->sync, NULL);
    pthread_mutex_init(&w->mu, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->woken, &attr);
    pthread_condattr_destroy(&attr);
    return w;
}

void aof_writer_poke(struct aof_writer *w)
{
    pthread_mutex_lock(&w->mu);
    w->wake = true;
    pthread_cond_signal(&w->woken);
    pthread_mutex_unlock(&w->mu);
}

/* The same for who pokes all the time: the lock is left alone while the thread is awake.  It looks at the log's end
 * after it has said that it is going to sleep.  Both sides exchange a value instead of setting a fence, which
 * ThreadSanitizer does not know: of two exchanges the later one sees what was done before the other. */
static void poke_sleeper(struct aof_writer *w)
{
    if (atomic_fetch_add(&w->asleep, 0)) aof_writer_poke(w);
}

/* ---- from the log into pieces (all under io) --------------------------------------------------------------------- */

static void put_piece(struct aof_writer *w, const void *p, size_t n)
{
    if (n == 0) return;
    w->queued += n;
    struct iovec *last = w->pieces ? &w->piece[w->pieces - 1] : NULL;
    if (last && (const char *)last->iov_base + last->iov_len == (const char *)p) {
        last->iov_len += n;
        return;
    }
    w->piece[w->pieces++] = (struct iovec){(void *)(uintptr_t)p, n};
}

static void put_text(struct aof_writer *w, const char *p, size_t n)
{
    memcpy(w->text + w->text_n, p, n);
    put_piece(w, w->text + w->text_n, n);
    w->text_n += (unsigned)n;
}

static bool at_boundary(const struct aof_writer *w)
{
    return !w->filter.in_command && !w->filter.in_multi && w->filter.head_n == 0;
}

/* The history that an offset belongs to.  follows: as the beginning of what comes next. */
static const char *history_at(const struct change_id *id, uint64_t offset, bool follows)
{
    if ((int64_t)offset + 1 < id->second_offset) return id->id2;
    return follows ? id->id : change_id_known(id, offset);
}

/* Whether the last #POS names a history that is over where the file ends now. */
static bool outlived(struct aof_writer *w)
{
    struct change_id id;
    if (!w->borrowed) return false;
    change_id_get(w->host.log, &id);
    return history_at(&id, w->head.offset, false) == id.id;
}

/* follows: data comes behind it. */
static void put_position(struct aof_writer *w, uint64_t offset, bool follows)
{
    char line[96];
    struct change_id id;
    w->id_generation = change_id_generation(w->host.log);
    change_id_get(w->host.log, &id);
    const char *name = history_at(&id, offset, follows);
    w->borrowed = name != id.id;
    int n = snprintf(line, sizeof line, "#POS:%s:%llu\r\n", name, (unsigned long long)offset);
    put_text(w, line, (size_t)n);
    w->position_due = w->skipped = false;
    w->position_ms = clock_mono_ms();
}

/* What goes before the first command of a second, and before one that does not follow what the file holds. */
static void put_annotations(struct aof_writer *w, bool in_multi)
{
    if (in_multi) return;
    if (w->host.timestamps(w->host.ctx)) {
        char line[48];
        int64_t now_s = clock_wall_ms() / 1000;
        if (now_s > w->stamp_s) {
            int n = snprintf(line, sizeof line, "#TS:%lld\r\n", (long long)now_s);
            put_text(w, line, (size_t)n);
            w->stamp_s = now_s;
        }
    }
    if (w->position_due || w->skipped || w->borrowed || w->id_generation != change_id_generation(w->host.log))
        put_position(w, w->command_offset, true);
}

static void put_select(struct aof_writer *w)
{
    char line[64], digits[16];
    int len = snprintf(digits, sizeof digits, "%d", w->select_db);
    int n = snprintf(line, sizeof line, "*2\r\n$6\r\nSELECT\r\n$%d\r\n%s\r\n", len, digits);
    put_text(w, line, (size_t)n);
}

/* The commands of one block, as far as there is room for their pieces; gives the bytes taken. */
static size_t take_block(struct aof_writer *w, struct bytes b)
{
    struct aof_filter *f = &w->filter;
    size_t at = 0, kept = 0; /* kept: where the bytes begin that are still to be put */
    while (at < b.n) {
        if (!f->in_command) {
            if (w->pieces > PIECES - PIECES_RESERVE || w->text_n > TEXT_BYTES - TEXT_RESERVE) break;
            if (at_boundary(w)) {
                w->mark_offset = w->head.offset + at;
                w->mark_bytes = w->queued + (at - kept);
            }
            if (f->head_n == 0) w->command_offset = w->head.offset + at;
            bool in_multi = f->in_multi;
            size_t used = aof_filter_begin(f, b.p + at, b.n - at);
            bool data = f->in_command && f->kind == AOF_DATA;
            if (!f->in_command || !data || f->head_n || w->position_due || w->skipped || w->borrowed || !in_multi) {
                put_piece(w, b.p + kept, at - kept);
                kept = at;
            }
            if (data) put_annotations(w, in_multi);
            if (data && f->head_n) {
                put_text(w, f->head, f->head_n);
                kept = at + used;
            }
            at += used;
            if (!f->in_command) {
                kept = at;
                break;
            }
            if (!data) w->skipped = true;
        }
        at += aof_filter_pass(f, b.p + at, b.n - at);
        if (f->kind != AOF_DATA) kept = at;
    }
    put_piece(w, b.p + kept, at - kept);
    return at;
}

/* Fills the pieces with what can go into the file.  False: there was nothing. */
static bool gather(struct aof_writer *w)
{
    uint64_t began = w->head.offset;
    w->batch_size = atomic_load(&w->size);
    w->mark_offset = w->tail.offset;
    w->mark_bytes = 0;
    /* A reader of files begins each of them in database 0. */
    if (w->batch_size == 0 && w->select_db > 0) put_select(w);
    while (w->queued < BATCH_BYTES && w->pieces <= PIECES - PIECES_RESERVE) {
        struct bytes b = change_reader_peek(&w->head);
        /* Behind the look: whoever sees bytes that came after a switch was asked for sees where it is, too. */
        uint64_t limit = atomic_load(&w->stop_at);
        if (b.n > limit - w->head.offset) b.n = limit - w->head.offset;
        if (b.n == 0) break;
        size_t taken = take_block(w, b);
        change_reader_skip(&w->head, taken);
        if (taken < b.n) break;
    }
    if (at_boundary(w)) {
        bool new_id = w->id_generation != change_id_generation(w->host.log);
        bool lag = w->skipped && (w->position_now || clock_mono_ms() - w->position_ms >= POSITION_EVERY_MS);
        if ((w->position_due || new_id || lag || outlived(w)) && w->text_n <= TEXT_BYTES - TEXT_RESERVE)
            put_position(w, w->head.offset, false);
        w->mark_offset = w->head.offset;
        w->mark_bytes = w->queued;
    }
    return w->pieces > 0 || w->head.offset > began;
}

/* ---- from pieces into the file (all under io) -------------------------------------------------------------------- */

static void pieces_clear(struct aof_writer *w)
{
    w->pieces = w->pieces_done = 0;
    w->text_n = 0;
    w->queued = 0;
}

/* All of a boundary's bytes are in the file: the log before it is needed no more. */
static void reach(struct aof_writer *w, uint64_t offset, uint64_t size)
{
    while (w->tail.offset < offset) {
        struct bytes b = change_reader_peek(&w->tail);
        uint64_t left = offset - w->tail.offset;
        change_reader_skip(&w->tail, b.n < left ? b.n : left);
    }
    w->good_size = size;
}

static bool may_log_failure(struct aof_writer *w)
{
    int64_t now = clock_mono_ms();
    if (w->failure_logged_ms && now - w->failure_logged_ms < LOG_FAILURE_EVERY_MS) return false;
    w->failure_logged_ms = now;
    return true;
}

/* A write went wrong after `put` of this batch's bytes, with errno.  What is left of a command at the end of the file
 * is cut off, and the batch is gathered anew from the log; where that cannot be done, it goes on exactly where it
 * stands. */
static void take_back(struct aof_writer *w, uint64_t put)
{
    int saved = errno;
    bool log = may_log_failure(w);
    if (put == 0 && log) log_warning("Error writing to the AOF file: %s", strerror(saved));
    if (put > 0 && log)
        log_warning("Short write while writing to the AOF file: (nwritten=%lld, expected=%lld)", (long long)put,
                    (long long)w->queued);
    if (w->fd >= 0 && ftruncate(w->fd, (off_t)w->good_size) == 0) {
        pieces_clear(w);
        w->filter = (struct aof_filter){0};
        w->position_due = true;
        w->stamp_s = 0;
        change_reader_copy(&w->tail, &w->head);
        atomic_store(&w->size, w->good_size);
        atomic_store(&w->written, w->tail.offset);
    } else if (log) {
        log_warning(
            "Could not remove short write from the append-only file.  Redis may refuse to load the AOF the next "
            "time it starts.  ftruncate: %s",
            strerror(errno));
    }
    atomic_store(&w->write_errno, saved ? saved : EIO);
    errno = saved;
}

/* Lets go of the first n bytes that are still to be written. */
static void pieces_pass(struct aof_writer *w, size_t n)
{
    while (n) {
        struct iovec *v = &w->piece[w->pieces_done];
        size_t part = n < v->iov_len ? n : v->iov_len;
        v->iov_base = (char *)v->iov_base + part;
        v->iov_len -= part;
        n -= part;
        if (v->iov_len == 0) w->pieces_done++;
    }
}

static void fail_always(struct aof_writer *w)
{
    if (w->host.policy(w->host.ctx) != AOF_FSYNC_ALWAYS) return;
    log_warning("Can't recover from AOF write error when the AOF fsync policy is 'always'. Exiting...");
    _exit(1);
}

static enum status write_pieces(struct aof_writer *w)
{
    uint64_t put = 0;
    while (w->pieces_done < w->pieces) {
        ssize_t n = writev(w->fd, w->piece + w->pieces_done, w->pieces - w->pieces_done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            if (n == 0) errno = ENOSPC;
            take_back(w, put);
            fail_always(w);
            return E_IO;
        }
        put += (uint64_t)n;
        atomic_fetch_add(&w->size, (uint64_t)n);
        pieces_pass(w, (size_t)n);
    }
    return OK;
}

static enum status write_batch(struct aof_writer *w)
{
    if (w->pieces) {
        int64_t begin = clock_mono_us();
        bool pending = atomic_load(&w->syncing_since_ms) != 0;
        enum status st = write_pieces(w);
        if (st != OK) return st;
        uint64_t took = (uint64_t)(clock_mono_us() - begin);
        w->host.latency(w->host.ctx, "aof-write", took);
        w->host.latency(w->host.ctx, pending ? "aof-write-pending-fsync" : "aof-write-alone", took);
    }
    if (w->mark_offset > w->tail.offset || w->mark_bytes) reach(w, w->mark_offset, w->batch_size + w->mark_bytes);
    pieces_clear(w);
    atomic_store(&w->written, w->head.offset);
    return OK;
}

/* Whether a change of files has kept replies ahead of the file for as long as is promised: then writers wait for its
 * end. */
static bool switch_is_overdue(const struct aof_writer *w)
{
    int64_t since = atomic_load(&w->switching_since_ms);
    return since && (clock_mono_ms() - since > SYNC_PATIENCE_MS ||
                     change_offset(w->host.log) - atomic_load(&w->written) >= SYNC_PATIENCE_BYTES);
}

static void note_congestion(struct aof_writer *w)
{
    uint64_t behind = change_offset(w->host.log) - atomic_load(&w->written);
    bool overdue = switch_is_overdue(w);
    if ((behind > BEHIND_MAX || overdue) && !atomic_exchange(&w->congested, true)) w->host.congested(w->host.ctx, true);
    if (behind < BEHIND_MAX / 2 && !overdue && atomic_load(&w->congested) && atomic_exchange(&w->congested, false))
        w->host.congested(w->host.ctx, false);
}

static uint64_t end_of_file(struct aof_writer *w)
{
    uint64_t end = change_offset(w->host.log), stop = atomic_load(&w->stop_at);
    return end < stop ? end : stop;
}

/* Writes what there is. */
static enum status flush(struct aof_writer *w)
{
    enum status st = OK;
    /* Pieces that are there already were left over by a failure. */
    while (st == OK && (w->pieces || gather(w))) st = write_batch(w);
    if (st == OK && atomic_load(&w->write_errno)) {
        log_warning("AOF write error looks solved, Redis can write again.");
        atomic_store(&w->write_errno, 0);
        w->failure_logged_ms = 0;
    }
    note_congestion(w);
    return st;
}

/* ---- from the file to the disk ----------------------------------------------------------------------------------- */

static enum status sync_fd(struct aof_writer *w, int fd, bool always)
{
    int64_t begin = clock_mono_us();
    atomic_store(&w->syncing_since_ms, clock_mono_ms());
    int result = fdatasync(fd), saved = errno;
    atomic_store(&w->syncing_since_ms, 0);
    if (always) w->host.latency(w->host.ctx, "aof-fsync-always", (uint64_t)(clock_mono_us() - begin));
    if (result == 0) {
        atomic_store(&w->sync_errno, 0);
        return OK;
    }
    if (always) {
        log_warning("Can't persist AOF for fsync error when the AOF fsync policy is 'always': %s. Exiting...",
                    strerror(saved));
        _exit(1);
    }
    if (atomic_exchange(&w->sync_errno, saved) != saved) log_warning("Fail to fsync the AOF file: %s", strerror(saved));
    errno = saved;
    return E_IO;
}

static void became_durable(struct aof_writer *w, uint64_t offset)
{
    if (atomic_load(&w->durable) < offset) atomic_store(&w->durable, offset);
    w->host.durable(w->host.ctx, offset);
}

/* Under io: writes and syncs all up to the end of this file. */
static enum status settle(struct aof_writer *w)
{
    if (w->fd < 0) return OK;
    enum status st = flush(w);
    if (st == OK && w->skipped) {
        w->position_due = true;
        st = flush(w);
    }
    if (st != OK) return st;
    uint64_t to = atomic_load(&w->written);
    pthread_mutex_lock(&w->sync);
    st = sync_fd(w, w->fd, false);
    pthread_mutex_unlock(&w->sync);
    if (st != OK) return st;
    atomic_store(&w->synced, to);
    became_durable(w, to);
    return OK;
}

static void change_files(struct aof_writer *w)
{
    atomic_store(&w->switching_since_ms, clock_mono_ms());
    int fd = settle(w) == OK ? w->host.next_file(w->host.ctx) : -1;
    if (fd >= 0) {
        pthread_mutex_lock(&w->sync);
        close(w->fd);
        w->fd = fd;
        pthread_mutex_unlock(&w->sync);
        w->good_size = 0;
        atomic_store(&w->size, 0);
        w->position_due = true;
        w->stamp_s = 0;
        w->select_db = w->switch_db;
    }
    atomic_store(&w->stop_at, NEVER);
    atomic_store(&w->switching_since_ms, 0);
}

/* The file has changed, or will not for now.  Whoever appends from here on writes before it answers; what was appended
 * before is written here, and answered; where it cannot be written, it is answered as it is at any other time. */
static enum status hold_end(struct aof_writer *w)
{
    atomic_store(&w->holding, false);
    w->host.hold(w->host.ctx, false);
    enum status st = flush(w);
    if (w->host.policy(w->host.ctx) != AOF_FSYNC_ALWAYS)
        w->host.durable(w->host.ctx, st == OK ? atomic_load(&w->written) : change_offset(w->host.log));
    return st;
}

/* True: there is more to do at once. */
static bool turn(struct aof_writer *w)
{
    pthread_mutex_lock(&w->io);
    atomic_store(&w->again, false);
    if (w->fd < 0) {
        pthread_mutex_unlock(&w->io);
        return false;
    }
    w->position_now = true;
    enum status st = flush(w);
    w->position_now = false;
    if (st == OK && atomic_load(&w->written) == atomic_load(&w->stop_at)) {
        change_files(w);
        st = flush(w);
    }
    if (atomic_load(&w->holding) && (st != OK || !aof_writer_switching(w))) st = hold_end(w);
    enum aof_fsync policy = w->host.policy(w->host.ctx);
    uint64_t to = atomic_load(&w->written);
    int64_t now = clock_mono_ms();
    bool due = to > atomic_load(&w->durable) || atomic_load(&w->sync_errno);
    if (policy == AOF_FSYNC_NO || w->host.spares_disk(w->host.ctx)) {
        if (due) became_durable(w, to);
        due = false;
    }
    if (policy == AOF_FSYNC_EVERYSEC && now - w->synced_ms < SYNC_EVERY_MS) due = false;
    if (!due) {
        pthread_mutex_unlock(&w->io);
        return atomic_load(&w->again);
    }
    int fd = w->fd;
    pthread_mutex_lock(&w->sync);
    pthread_mutex_unlock(&w->io);
    enum status synced = sync_fd(w, fd, policy == AOF_FSYNC_ALWAYS);
    pthread_mutex_unlock(&w->sync);
    w->synced_ms = now;
    if (synced == OK) {
        atomic_store(&w->synced, to);
        became_durable(w, to);
    }
    return st == OK && atomic_load(&w->written) != end_of_file(w);
}

static void sleep_until_poked(struct aof_writer *w)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += SYNC_EVERY_MS / 1000;
    pthread_mutex_lock(&w->mu);
    atomic_exchange(&w->asleep, 1);
    bool work = atomic_load(&w->on) && !atomic_load(&w->write_errno) &&
                w->host.policy(w->host.ctx) == AOF_FSYNC_ALWAYS &&
                atomic_load(&w->written) != change_offset(w->host.log);
    int result = 0;
    while (!w->wake && !work && !atomic_load(&w->again) && result != ETIMEDOUT)
        result = pthread_cond_timedwait(&w->woken, &w->mu, &until);
    w->wake = false;
    atomic_store(&w->asleep, 0);
    pthread_mutex_unlock(&w->mu);
}

static void *run(void *arg)
{
    struct aof_writer *w = arg;
    pthread_setname_np(pthread_self(), "aof");
    while (!atomic_load(&w->ending)) {
        sleep_until_poked(w);
        while (turn(w)) continue;
    }
    return NULL;
}

/* ---- the rest of the interface ----------------------------------------------------------------------------------- */

enum status aof_writer_start(struct aof_writer *w, int fd, uint64_t offset, uint64_t size, int db)
{
    pthread_mutex_lock(&w->io);
    enum status st = change_reader_seek(w->host.log, &w->tail, offset);
    if (st == OK) st = change_reader_seek(w->host.log, &w->head, offset);
    if (st != OK) {
        pthread_mutex_unlock(&w->io);
        close(fd);
        return st;
    }
    w->fd = fd;
    w->good_size = size;
    w->filter = (struct aof_filter){0};
    pieces_clear(w);
    w->position_due = true;
    w->skipped = false;
    w->select_db = db;
    w->stamp_s = 0;
    w->failure_logged_ms = 0;
    atomic_store(&w->size, size);
    atomic_store(&w->written, offset);
    atomic_store(&w->durable, offset);
    atomic_store(&w->synced, offset);
    atomic_store(&w->stop_at, NEVER);
    atomic_store(&w->write_errno, 0);
    atomic_store(&w->sync_errno, 0);
    atomic_store(&w->on, true);
    (void)flush(w); /* what fails is tried again */
    pthread_mutex_unlock(&w->io);
    if (!w->started && pthread_create(&w->thread, NULL, run, w) != 0) mem_abort(0);
    w->started = true;
    return OK;
}

enum status aof_writer_stop(struct aof_writer *w)
{
    if (!atomic_load(&w->on)) return OK;
    pthread_mutex_lock(&w->io);
    atomic_store(&w->stop_at, NEVER);
    enum status st = settle(w);
    pthread_mutex_lock(&w->sync); /* nobody syncs a descriptor that is another's */
    close(w->fd);
    w->fd = -1;
    pthread_mutex_unlock(&w->sync);
    change_reader_close(&w->tail);
    change_reader_close(&w->head);
    atomic_store(&w->on, false);
    atomic_store(&w->write_errno, 0);
    atomic_store(&w->sync_errno, 0);
    if (atomic_exchange(&w->congested, false)) w->host.congested(w->host.ctx, false);
    if (atomic_exchange(&w->holding, false)) w->host.hold(w->host.ctx, false);
    pthread_mutex_unlock(&w->io);
    became_durable(w, change_offset(w->host.log)); /* nobody waits for a file that is not kept */
    return st;
}

enum status aof_writer_sync(struct aof_writer *w)
{
    pthread_mutex_lock(&w->io);
    enum status st = settle(w);
    pthread_mutex_unlock(&w->io);
    return st;
}

void aof_writer_switch(struct aof_writer *w, int db)
{
    /* The log stands still, so nobody can be past its end, and no lock is needed: a write may take long. */
    w->switch_db = db;
    atomic_store(&w->holding, true);
    w->host.hold(w->host.ctx, true);
    atomic_store(&w->stop_at, change_offset(w->host.log));
    aof_writer_poke(w);
}

void aof_writer_switch_cancel(struct aof_writer *w)
{
    pthread_mutex_lock(&w->io);
    atomic_store(&w->stop_at, NEVER);
    pthread_mutex_unlock(&w->io);
    aof_writer_poke(w);
}

bool aof_writer_switching(const struct aof_writer *w)
{
    return atomic_load(&w->stop_at) != NEVER;
}

void aof_writer_destroy(struct aof_writer *w)
{
    atomic_store(&w->ending, true);
    aof_writer_poke(w);
    if (w->started) pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->woken);
    pthread_mutex_destroy(&w->mu);
    pthread_mutex_destroy(&w->sync);
    pthread_mutex_destroy(&w->io);
    mem_free(w);
}

/* Whether writes are left to the thread, which syncs. */
static bool disk_is_waited_for(struct aof_writer *w)
{
    int64_t since = atomic_load(&w->syncing_since_ms);
    if (since == 0) return false;
    if (clock_mono_ms() - since > SYNC_PATIENCE_MS) {
        if (atomic_fetch_add(&w->delayed, 1) % 100 == 0)
            log_notice("Asynchronous AOF fsync is taking too long (disk is busy?). Writing the AOF buffer without "
                       "waiting for fsync to complete, this may slow down Redis.");
        return false;
    }
    return change_offset(w->host.log) - atomic_load(&w->written) < SYNC_PATIENCE_BYTES;
}

/* A write takes microseconds, and the replies behind it should not leave earlier; but not for ever.  False: somebody
 * else has it, or has written up to `end` meanwhile. */
static bool try_io(struct aof_writer *w, uint64_t end)
{
    for (int i = 0; i < IO_TRIES + IO_TRIES_SLOW; i++) {
        if (pthread_mutex_trylock(&w->io) == 0) return true;
        if (atomic_load(&w->written) >= end || atomic_load(&w->syncing_since_ms) || atomic_load(&w->holding)) break;
        if (i < IO_TRIES)
            sched_yield();
        else
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return false;
}

void aof_writer_flush(struct aof_writer *w)
{
    if (!atomic_load_explicit(&w->on, memory_order_relaxed)) return;
    if (atomic_load_explicit(&w->written, memory_order_relaxed) == change_offset(w->host.log)) return;
    if (w->host.policy(w->host.ctx) == AOF_FSYNC_ALWAYS) {
        poke_sleeper(w);
        note_congestion(w);
        return;
    }
    if (atomic_load(&w->write_errno)) return; /* the thread tries again */
    if (atomic_load(&w->written) == atomic_load(&w->stop_at) || disk_is_waited_for(w)) {
        atomic_store(&w->again, true);
        note_congestion(w);
        return;
    }
    uint64_t end = change_offset(w->host.log);
    do {
        atomic_store(&w->again, true);
        if (!try_io(w, end)) {
            note_congestion(w);
            return; /* whoever holds it sees `again` when it lets go */
        }
        atomic_store(&w->again, false);
        enum status st = flush(w);
        pthread_mutex_unlock(&w->io);
        if (st != OK) return;
    } while (atomic_load(&w->again));
}

bool aof_writer_is_on(const struct aof_writer *w)
{
    return atomic_load_explicit(&w->on, memory_order_relaxed);
}

bool aof_writer_is_congested(const struct aof_writer *w)
{
    return atomic_load_explicit(&w->congested, memory_order_relaxed);
}

int aof_writer_error(const struct aof_writer *w)
{
    int error = atomic_load_explicit(&w->write_errno, memory_order_relaxed);
    return error ? error : atomic_load_explicit(&w->sync_errno, memory_order_relaxed);
}

void aof_writer_facts(const struct aof_writer *w, struct aof_writer_facts *out)
{
    bool on = atomic_load(&w->on);
    uint64_t end = change_offset(w->host.log), written = atomic_load(&w->written);
    *out = (struct aof_writer_facts){.size = atomic_load(&w->size),
                                     .written = written,
                                     .durable = atomic_load(&w->durable),
                                     .synced = atomic_load(&w->synced),
                                     .waiting = on && end > written ? end - written : 0,
                                     .delayed = atomic_load(&w->delayed),
                                     .write_ok = !atomic_load(&w->write_errno),
                                     .sync_ok = !atomic_load(&w->sync_errno),
                                     .syncing = atomic_load(&w->syncing_since_ms) != 0};
}
