/* aof.c: the AOF's state, rewrites and INFO; its files are aof_files.c's.
 * Source of the order of steps, of delays and words: redis-server 7.0.15. */
#include "server/aof_internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/thread.h"
#include "change/durable.h"
#include "server/affinity.h"
#include "server/conn.h"
#include "server/last_writes.h"
#include "server/latency.h"
#include "server/multi.h"
#include "server/persistence.h"
#include "server/replication.h"
#include "server/reply_gate.h"
#include "server/scripting.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { FAILURES_MAX = 3, DELAY_MAX_MIN = 60, RETRY_START_MS = 1000 };

/* ---- the writer's host ------------------------------------------------------------------------------------------- */

static enum aof_fsync host_policy(void *ctx)
{
    return (enum aof_fsync)config_num(((struct aof *)ctx)->node->config, CFG_APPENDFSYNC);
}

static bool host_timestamps(void *ctx)
{
    return config_bool(((struct aof *)ctx)->node->config, CFG_AOF_TIMESTAMP_ENABLED);
}

static bool host_spares_disk(void *ctx)
{
    struct aof *a = ctx;
    if (!config_bool(a->node->config, CFG_NO_APPENDFSYNC_ON_REWRITE)) return false;
    return atomic_load(&a->rewriting) || persistence_is_saving(a->node->persistence);
}

static void host_durable(void *ctx, uint64_t offset)
{
    struct node *n = ((struct aof *)ctx)->node;
    reply_gate_synced(n, offset);
    if (atomic_load(&n->blocked_count)) node_post_workers(n, replication_check_waits); /* WAITAOF */
}

static void host_hold(void *ctx, bool yes)
{
    reply_gate_require_file(((struct aof *)ctx)->node, yes);
}

static void host_latency(void *ctx, const char *event, uint64_t us)
{
    struct aof *a = ctx;
    if (strcmp(event, "aof-write-alone") == 0 &&
        (atomic_load(&a->rewriting) || persistence_is_saving(a->node->persistence)))
        event = "aof-write-active-child";
    latency_note(a->node, event, us);
}

static void host_congested(void *ctx, bool yes)
{
    struct aof *a = ctx;
    if (yes)
        log_warning("The AOF cannot be written as fast as the data changes: writers wait");
    else
        node_post_workers(a->node, worker_resume_paused);
}

static int host_next_file(void *ctx)
{
    struct aof *a = ctx;
    int fd = aof_files_next_increment(a);
    if (fd >= 0) atomic_store(&a->switched, true);
    return fd;
}

struct aof *aof_create(struct node *n)
{
    struct aof *a = mem_calloc(1, sizeof *a);
    a->node = n;
    pthread_mutex_init(&a->files, NULL);
    pthread_mutex_init(&a->mu, NULL);
    pthread_cond_init(&a->finished, NULL);
    atomic_init(&a->rewrite_ok, true);
    atomic_init(&a->last_took_s, -1);
    a->writer = aof_writer_create((struct aof_writer_host){.ctx = a,
                                                           .log = n->log,
                                                           .policy = host_policy,
                                                           .timestamps = host_timestamps,
                                                           .spares_disk = host_spares_disk,
                                                           .durable = host_durable,
                                                           .hold = host_hold,
                                                           .latency = host_latency,
                                                           .next_file = host_next_file,
                                                           .congested = host_congested});
    return a;
}

/* ---- the rewrite ------------------------------------------------------------------------------------------------- */

void aof_rewrite_options(struct aof *a)
{
    struct node *n = a->node;
    struct config *cfg = n->config;
    int64_t now = clock_wall_ms();
    const struct rdb_extras *x = persistence_extras(n->persistence);
    rdb_extras_deinit(&a->extras);
    for (size_t i = 0; i < x->count; i++) rdb_extras_add(&a->extras, buf_bytes(&x->libraries[i]));
    a->options = (struct rdb_options){
        .compress = config_bool(cfg, CFG_RDBCOMPRESSION),
        .checksum = config_bool(cfg, CFG_RDBCHECKSUM),
        .access = persistence_access_kind(cfg),
        .lru_clock = lru_clock_of(now),
        .lfu = {(uint32_t)config_num(cfg, CFG_LFU_LOG_FACTOR), (uint32_t)config_num(cfg, CFG_LFU_DECAY_TIME)},
        .now_ms = now,
        .used_memory = mem_used(),
        .aof_base = true,
        .extras = &a->extras};
}

static bool cancelled(struct aof *a)
{
    return atomic_load(&a->progress.cancel);
}

/* The writer comes to the end of the old increment by itself; a disk that takes no more keeps it from that. */
static bool wait_for_switch(struct aof *a)
{
    if (!a->needs_switch) return true;
    while (aof_writer_switching(a->writer) && !cancelled(a) && !aof_writer_error(a->writer))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    if (aof_writer_switching(a->writer)) aof_writer_switch_cancel(a->writer);
    return atomic_load(&a->switched);
}

static void rewrite_failed(struct aof *a)
{
    if (cancelled(a)) {
        log_notice("Background AOF rewrite was cancelled");
        return;
    }
    log_warning("Background AOF rewrite terminated with error");
    atomic_store(&a->rewrite_ok, false);
    atomic_fetch_add(&a->failures, 1);
}

static void rewrite_done(struct aof *a)
{
    struct aof_writer_facts facts;
    aof_writer_facts(a->writer, &facts);
    log_notice("Background AOF rewrite finished successfully");
    atomic_store(&a->rewrite_ok, true);
    atomic_store(&a->failures, 0);
    atomic_store(&a->base_growth_from, aof_files_older_size(a) + facts.size);
    atomic_fetch_add(&a->rewrites, 1);
}

static void *rewrite_thread(void *arg)
{
    struct aof *a = arg;
    pthread_setname_np(pthread_self(), "aof-rewrite");
    thread_is_patient();
    affinity_take(a->node->config, CFG_AOF_REWRITE_CPULIST);
    int64_t begin = clock_mono_ms();
    bool ok = aof_files_write_base(a) == OK && wait_for_switch(a);
    if (ok) log_notice("Background AOF rewrite terminated with success");
    ok = ok && !cancelled(a) && aof_files_install(a);
    atomic_store(&a->last_took_s, (clock_mono_ms() - begin) / 1000);
    if (!ok) {
        if (a->needs_switch && aof_writer_switching(a->writer)) aof_writer_switch_cancel(a->writer);
        aof_files_remove_temporary(a);
        rewrite_failed(a);
    } else {
        rewrite_done(a);
        if (atomic_load(&a->state) == AOF_STATE_FIRST_REWRITE) atomic_store(&a->state, AOF_STATE_ON);
    }
    pthread_mutex_lock(&a->mu);
    atomic_store(&a->rewriting, false);
    pthread_cond_broadcast(&a->finished);
    pthread_mutex_unlock(&a->mu);
    return NULL;
}

/* Under mu. */
static void reap_thread(struct aof *a)
{
    if (a->joinable) pthread_join(a->thread, NULL);
    a->joinable = false;
}

bool aof_start_writer(struct aof *a, int fd, uint64_t size, int db)
{
    cpu_set_t own;
    affinity_parent_begin(a->node, &own);
    enum status st = aof_writer_start(a->writer, fd, change_offset(a->node->log), size, db);
    affinity_parent_end(&own);
    return st == OK;
}

/* A writer on a file of its own, for an AOF that is being turned on: its file becomes an increment once the base that
 * goes before it is there. */
static bool first_rewrite_begin(struct aof *a)
{
    struct node *n = a->node;
    int fd = aof_files_temporary_increment(a);
    if (fd < 0) return false;
    (void)aof_writer_stop(a->writer);
    if (!change_log_active(n->log)) {
        change_id_new(n->log);
        change_log_activate(n->log);
        last_writes_begin(n);
    }
    atomic_store(&n->durable->synced, change_offset(n->log)); /* perhaps of another history than before */
    if (!aof_start_writer(a, fd, 0, change_selected_db(n->log))) return false;
    aof_reconfigure(a);
    return true;
}

/* With the server at rest: the dataset at this offset is the base, what comes behind it the increment. */
static bool rewrite_begin(struct aof *a)
{
    struct node *n = a->node;
    if (atomic_load(&a->rewriting) || atomic_load(&n->loading)) return false;
    if (!aof_files_make_directory(a)) {
        atomic_store(&a->rewrite_ok, false);
        return false;
    }
    a->cut = store_cut_begin(n->store);
    if (!a->cut) return false;
    aof_rewrite_options(a);
    atomic_store(&a->progress.cancel, false);
    atomic_store(&a->progress.keys, 0);
    atomic_store(&a->progress.bytes, 0);
    atomic_store(&a->switched, false);
    a->needs_switch = atomic_load(&a->state) == AOF_STATE_ON;
    bool ok = atomic_load(&a->state) != AOF_STATE_FIRST_REWRITE || first_rewrite_begin(a);
    if (ok && a->needs_switch) aof_writer_switch(a->writer, change_selected_db(n->log));
    pthread_mutex_lock(&a->mu);
    reap_thread(a);
    atomic_store(&a->rewriting, ok);
    atomic_store(&a->rewrite_started_ms, clock_wall_ms());
    if (ok && pthread_create(&a->thread, NULL, rewrite_thread, a) == 0)
        a->joinable = true;
    else
        ok = false;
    if (!ok) atomic_store(&a->rewriting, false);
    pthread_mutex_unlock(&a->mu);
    if (ok) {
        log_notice("Background append only file rewriting started without a fork");
        return true;
    }
    if (a->needs_switch) aof_writer_switch_cancel(a->writer);
    bool stopped = store_walks_go(n->store);
    store_cut_end(a->cut);
    if (stopped) store_walks_stop(n->store);
    return false;
}

void aof_rewrite_cancel(struct aof *a)
{
    bool stopped = store_walks_go(a->node->store);
    pthread_mutex_lock(&a->mu);
    bool running = atomic_load(&a->rewriting);
    if (running) log_notice("Stopping the rewrite of the AOF");
    atomic_store(&a->progress.cancel, running);
    while (atomic_load(&a->rewriting)) pthread_cond_wait(&a->finished, &a->mu);
    reap_thread(a);
    pthread_mutex_unlock(&a->mu);
    if (stopped) store_walks_stop(a->node->store);
}

/* ---- on and off -------------------------------------------------------------------------------------------------- */

static bool turn_on(struct aof *a)
{
    if (atomic_load(&a->rewriting)) {
        log_notice("AOF was enabled but there is already an AOF rewriting in background. Stopping background AOF and "
                   "starting a rewrite now.");
        aof_rewrite_cancel(a);
    }
    atomic_store(&a->state, AOF_STATE_FIRST_REWRITE);
    if (a->node->exec_at_rest)
        log_notice("AOF was enabled during a transaction. An AOF background was scheduled to start when possible.");
    if (a->node->exec_at_rest || atomic_load(&a->node->loading)) return true; /* the tick does it */
    if (rewrite_begin(a)) return true;
    (void)aof_writer_stop(a->writer);
    atomic_store(&a->state, AOF_STATE_OFF);
    log_warning("Redis needs to enable the AOF but can't trigger a background AOF rewrite operation. Check the above "
                "logs for more info about the error.");
    return false;
}

static void turn_off(struct aof *a)
{
    aof_rewrite_cancel(a);
    bool first = atomic_load(&a->state) == AOF_STATE_FIRST_REWRITE;
    if (aof_writer_stop(a->writer) != OK) log_warning("Fail to fsync the AOF file: %s", strerror(errno));
    if (first) aof_files_remove_temporary(a);
    atomic_store(&a->state, AOF_STATE_OFF);
    atomic_store(&a->scheduled, false);
    aof_reconfigure(a);
}

bool aof_turn(struct aof *a, bool on)
{
    bool is_on = atomic_load(&a->state) != AOF_STATE_OFF;
    if (on == is_on) return true;
    if (on) return turn_on(a);
    turn_off(a);
    return true;
}

void aof_abandon(struct aof *a)
{
    if (atomic_load(&a->state) != AOF_STATE_OFF) turn_off(a);
}

/* With the server at rest: whether replies wait for the disk follows from state and policy. */
void aof_reconfigure(struct aof *a)
{
    bool always = config_num(a->node->config, CFG_APPENDFSYNC) == AOF_FSYNC_ALWAYS;
    reply_gate_require_synced(a->node, always && atomic_load(&a->state) != AOF_STATE_OFF);
    aof_writer_poke(a->writer);
    if (!atomic_load(&a->rewriting)) aof_files_forget(a);
}

static bool growth_is_due(struct aof *a, int64_t now_ms)
{
    struct config *cfg = a->node->config;
    int64_t percent = config_num(cfg, CFG_AUTO_AOF_REWRITE_PERCENTAGE);
    struct aof_writer_facts facts;
    aof_writer_facts(a->writer, &facts);
    uint64_t size = aof_files_older_size(a) + facts.size, from = atomic_load(&a->base_growth_from);
    if (percent == 0 || size <= (uint64_t)config_num(cfg, CFG_AUTO_AOF_REWRITE_MIN_SIZE)) return false;
    int64_t growth = (int64_t)((double)size * 100 / (double)(from ? from : 1)) - 100;
    if (growth < percent) return false;
    if (atomic_load(&a->failures) < FAILURES_MAX) {
        a->delay_min = 0;
        a->not_before_ms = 0;
    } else if (a->not_before_ms) {
        if (now_ms < a->not_before_ms) return false;
        a->not_before_ms = 0;
    } else {
        a->delay_min = a->delay_min ? a->delay_min * 2 : 1;
        if (a->delay_min > DELAY_MAX_MIN) a->delay_min = DELAY_MAX_MIN;
        a->not_before_ms = now_ms + (int64_t)a->delay_min * 60 * 1000;
        log_warning("Background AOF rewrite has repeatedly failed and triggered the limit, will retry in %d minutes",
                    a->delay_min);
        return false;
    }
    log_notice("Starting automatic rewriting of AOF on %lld%% growth", (long long)growth);
    return true;
}

/* The system gives up what it could not write, and the next sync does not tell: once one works again everything is
 * written anew. */
static void mistrust_disk(struct aof *a)
{
    struct aof_writer_facts facts;
    aof_writer_facts(a->writer, &facts);
    if (!facts.sync_ok) {
        a->sync_failed = true;
    } else if (a->sync_failed) {
        a->sync_failed = false;
        log_warning(
            "The AOF file can be synced again. What was written before is not certain to be on the disk: rewriting it");
        atomic_store(&a->scheduled, true);
    }
}

void aof_tick(struct aof *a, int64_t now_ms)
{
    struct node *n = a->node;
    int state = atomic_load(&a->state);
    if (state == AOF_STATE_ON)
        mistrust_disk(a);
    else
        a->sync_failed = false;
    bool wanted = config_bool(n->config, CFG_APPENDONLY);
    bool start = wanted && state != AOF_STATE_ON && !atomic_load(&a->rewriting);
    if (atomic_load(&n->loading) || atomic_load(&a->rewriting)) return;
    bool busy = persistence_is_saving(n->persistence);
    bool due = !start &&
               ((atomic_load(&a->scheduled) && !busy) || (state == AOF_STATE_ON && !busy && growth_is_due(a, now_ms)));
    if (start && now_ms < a->retry_start_ms) return;
    if ((!start && !due) || script_any_slow(n)) return;
    gate_close(n->gate);
    bool ok = true;
    if (atomic_load(&n->loading) || config_bool(n->config, CFG_APPENDONLY) != wanted) {
        ok = true;
    } else if (start) {
        atomic_store(&a->state, AOF_STATE_FIRST_REWRITE);
        ok = rewrite_begin(a);
    } else {
        atomic_store(&a->scheduled, false);
        ok = rewrite_begin(a);
    }
    gate_open(n->gate);
    if (!ok) a->retry_start_ms = now_ms + RETRY_START_MS;
}

bool aof_shutdown(struct aof *a, bool force)
{
    int state = atomic_load(&a->state);
    if (state == AOF_STATE_OFF) {
        aof_rewrite_cancel(a); /* BGREWRITEAOF works without an AOF, too */
        return true;
    }
    if (state == AOF_STATE_FIRST_REWRITE) {
        log_warning(force ? "Writing initial AOF. Exit anyway." : "Writing initial AOF, can't exit.");
        if (!force) return false;
    }
    if (atomic_load(&a->rewriting)) log_warning("There is a child rewriting the AOF. Killing it!");
    aof_rewrite_cancel(a);
    log_notice("Calling fsync() on the AOF file.");
    if (aof_writer_sync(a->writer) != OK) log_warning("Fail to fsync the AOF file: %s.", strerror(errno));
    return true;
}

/* ---- asked by others --------------------------------------------------------------------------------------------- */

void aof_sync_now(struct aof *a)
{
    if (aof_writer_is_on(a->writer) && aof_writer_sync(a->writer) != OK)
        log_warning("Fail to fsync the AOF file: %s.", strerror(errno));
}

void aof_flush(struct aof *a)
{
    aof_writer_flush(a->writer);
}

void aof_poke(struct aof *a)
{
    aof_writer_poke(a->writer);
}

bool aof_is_congested(const struct aof *a)
{
    return aof_writer_is_congested(a->writer);
}

int aof_write_error(const struct aof *a)
{
    return atomic_load_explicit(&a->state, memory_order_relaxed) == AOF_STATE_OFF ? 0 : aof_writer_error(a->writer);
}

const char *aof_refusal(struct aof *a)
{
    int error = aof_write_error(a);
    if (error == 0) return NULL;
    /* One text an errno, made at its first use and kept. */
    unsigned i = (unsigned)error < AOF_ERRNO_MAX ? (unsigned)error : 0;
    char *text = atomic_load(&a->refusals[i]);
    if (text) return text;
    struct buf b = {0};
    buf_printf(&b, "MISCONF Errors writing to the AOF file: %s", strerror(error));
    char *made = bytes_dup_cstr(buf_bytes(&b)), *none = NULL;
    buf_deinit(&b);
    if (atomic_compare_exchange_strong(&a->refusals[i], &none, made)) return made;
    mem_free(made);
    return none;
}

bool aof_is_on(const struct aof *a)
{
    return atomic_load_explicit(&a->state, memory_order_relaxed) != AOF_STATE_OFF;
}

uint64_t aof_synced_offset(const struct aof *a)
{
    struct aof_writer_facts facts;
    if (atomic_load(&a->state) != AOF_STATE_ON) return 0;
    aof_writer_facts(a->writer, &facts);
    return facts.synced;
}

bool aof_is_rewriting(const struct aof *a)
{
    return atomic_load(&a->rewriting);
}

const struct rdb_progress *aof_load_progress(const struct aof *a)
{
    return a->loading ? &a->load_progress : NULL;
}

uint64_t aof_waiting(const struct aof *a)
{
    struct aof_writer_facts facts;
    aof_writer_facts(a->writer, &facts);
    return facts.waiting;
}

void aof_info(struct aof *a, struct buf *out)
{
    struct aof_writer_facts facts;
    aof_writer_facts(a->writer, &facts);
    int state = atomic_load(&a->state);
    bool rewriting = atomic_load(&a->rewriting);
    bool scheduled = atomic_load(&a->scheduled) || (state == AOF_STATE_FIRST_REWRITE && !rewriting);
    int64_t now = clock_wall_ms();
    buf_printf(out,
               "aof_enabled:%d\r\naof_rewrite_in_progress:%d\r\naof_rewrite_scheduled:%d\r\n"
               "aof_last_rewrite_time_sec:%lld\r\naof_current_rewrite_time_sec:%lld\r\n"
               "aof_last_bgrewrite_status:%s\r\naof_rewrites:%llu\r\naof_rewrites_consecutive_failures:%llu\r\n"
               "aof_last_write_status:%s\r\naof_last_cow_size:0\r\n",
               state != AOF_STATE_OFF, rewriting, scheduled, (long long)atomic_load(&a->last_took_s),
               rewriting ? (long long)(now - atomic_load(&a->rewrite_started_ms)) / 1000 : -1ll,
               atomic_load(&a->rewrite_ok) ? "ok" : "err", (unsigned long long)atomic_load(&a->rewrites),
               (unsigned long long)atomic_load(&a->failures), aof_write_error(a) ? "err" : "ok");
    buf_append_cstr(out, "module_fork_in_progress:0\r\nmodule_fork_last_cow_size:0\r\n");
    if (state == AOF_STATE_OFF) return;
    unsigned long long size = aof_files_older_size(a) + facts.size;
    buf_printf(out,
               "aof_current_size:%llu\r\naof_base_size:%llu\r\naof_pending_rewrite:0\r\naof_buffer_length:%llu\r\n"
               "aof_pending_bio_fsync:%d\r\naof_delayed_fsync:%llu\r\n",
               size, (unsigned long long)atomic_load(&a->base_growth_from), (unsigned long long)facts.waiting,
               facts.syncing, (unsigned long long)facts.delayed);
}

/* ---- commands ---------------------------------------------------------------------------------------------------- */

void cmd_bgrewriteaof(struct call *c)
{
    struct node *n = call_conn(c)->worker->node;
    struct aof *a = n->aof;
    if (atomic_load(&a->rewriting)) {
        resp_error(&c->out, "ERR Background append only file rewriting already in progress");
        return;
    }
    if (persistence_is_saving(n->persistence) || c->flags & CALL_IN_EXEC) {
        atomic_store(&a->scheduled, true);
        atomic_store(&a->failures, 0);
        resp_status(&c->out, "Background append only file rewriting scheduled");
        return;
    }
    if (!call_exclusive(c)) return;
    if (rewrite_begin(a))
        resp_status(&c->out, "Background append only file rewriting started");
    else
        resp_error(&c->out, "ERR Can't execute an AOF background rewriting. Please check the server logs for more "
                            "information.");
}
