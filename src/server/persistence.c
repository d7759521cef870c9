/* persistence.c: SAVE, BGSAVE, save points, SHUTDOWN's save, the load at start. */
#include "server/persistence.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/thread.h"
#include "persist/persist.h"
#include "server/affinity.h"
#include "server/aof.h"
#include "server/conn.h"
#include "server/multi.h"
#include "server/replication.h"
#include "server/scripting.h"
#include "server/tracking.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { RETRY_AFTER_FAILURE_S = 5 };

struct persistence {
    struct node *node;
    pthread_mutex_t mu; /* order: after the gate; nothing else is taken under it */
    pthread_cond_t finished;
    bool running;                  /* under mu; set with the server at rest: a save */
    _Atomic bool saving;           /* the same for who only asks: a background save */
    _Atomic bool scheduled;        /* BGSAVE SCHEDULE: as soon as no rewrite of the AOF runs */
    bool joinable;                 /* under mu: its thread waits to be joined */
    pthread_t thread;              /* under mu */
    struct rdb_extras extras;      /* written by a load, during which nothing is saved; read at rest or by a save */
    struct rdb_extras sync_extras; /* as the last full sync began; at rest */
    struct rdb_progress progress;  /* of the save or load under way */
    struct replication_position position; /* of the snapshot under way */
    struct cut *cut;                      /* the same */
    uint64_t dirty_before;                /* changes counted when the snapshot was taken */
    _Atomic bool last_ok;
    _Atomic int64_t last_save_s, last_try_s, last_took_s, started_ms;
    _Atomic uint64_t saves;
    _Atomic uint64_t retained_peak; /* bytes kept for the last snapshot */
    _Atomic int64_t load_started_ms;
    _Atomic uint64_t loaded_keys, expired_at_load;
};

struct persistence *persistence_create(struct node *n)
{
    struct persistence *p = mem_calloc(1, sizeof *p);
    p->node = n;
    pthread_mutex_init(&p->mu, NULL);
    pthread_cond_init(&p->finished, NULL);
    atomic_store(&p->last_ok, true);
    atomic_store(&p->last_save_s, clock_wall_ms() / 1000);
    atomic_store(&p->last_took_s, -1);
    return p;
}

bool persistence_is_saving(const struct persistence *p)
{
    return atomic_load_explicit(&p->saving, memory_order_relaxed);
}

bool persistence_accepts_writes(const struct persistence *p)
{
    if (atomic_load_explicit(&p->last_ok, memory_order_relaxed)) return true;
    return !config_bool(p->node->config, CFG_STOP_WRITES_ON_BGSAVE_ERROR) || !persistence_has_save_points(p);
}

bool persistence_has_save_points(const struct persistence *p)
{
    struct save_point points[SAVE_POINTS_MAX];
    return config_save_points(p->node->config, points) > 0;
}

/* ---- saving ---- */

enum rdb_access persistence_access_kind(const struct config *cfg)
{
    switch (config_num(cfg, CFG_MAXMEMORY_POLICY)) {
    case MAXMEMORY_VOLATILE_LRU:
    case MAXMEMORY_ALLKEYS_LRU: return RDB_ACCESS_IDLE;
    case MAXMEMORY_VOLATILE_LFU:
    case MAXMEMORY_ALLKEYS_LFU: return RDB_ACCESS_FREQ;
    default: return RDB_ACCESS_NONE;
    }
}

static struct rdb_options save_options(struct persistence *p)
{
    struct config *cfg = p->node->config;
    int64_t now = clock_wall_ms();
    struct rdb_options o = {
        .compress = config_bool(cfg, CFG_RDBCOMPRESSION),
        .checksum = config_bool(cfg, CFG_RDBCHECKSUM),
        .access = persistence_access_kind(cfg),
        .lru_clock = lru_clock_of(now),
        .lfu = {(uint32_t)config_num(cfg, CFG_LFU_LOG_FACTOR), (uint32_t)config_num(cfg, CFG_LFU_DECAY_TIME)},
        .now_ms = now,
        .used_memory = mem_used(),
        .has_repl = change_log_active(p->node->log),
        .repl_db = p->position.db,
        .repl_offset = p->position.offset,
        .extras = &p->extras};
    memcpy(o.repl_id, p->position.id, sizeof o.repl_id);
    return o;
}

/* With the server at rest: the moment that the file will show. */
static bool take_snapshot(struct persistence *p)
{
    struct node *n = p->node;
    p->cut = store_cut_begin(n->store);
    if (!p->cut) return false;
    replication_position(n->replication, &p->position);
    p->dirty_before = node_changes(n);
    scripting_libraries_list(n, &p->extras);
    return true;
}

static enum status write_file(struct persistence *p)
{
    char *dir = config_cstr(p->node->config, CFG_DIR), *name = config_cstr(p->node->config, CFG_DBFILENAME);
    struct rdb_options options = save_options(p);
    struct rdb_error err = {0};
    int64_t begin = clock_mono_ms();
    atomic_store(&p->started_ms, clock_wall_ms());
    enum status st = rdb_save_file(p->node->store, p->cut, &options, dir, name, &p->progress, &err);
    p->cut = NULL;
    mem_free(dir);
    mem_free(name);
    int64_t took_s = (clock_mono_ms() - begin) / 1000;
    atomic_store(&p->last_took_s, took_s);
    atomic_store(&p->last_try_s, clock_wall_ms() / 1000);
    if (st == OK) {
        log_notice("DB saved on disk (%llu keys, %llu bytes)", (unsigned long long)atomic_load(&p->progress.keys),
                   (unsigned long long)atomic_load(&p->progress.bytes));
        atomic_fetch_sub(&p->node->dirty, p->dirty_before);
        atomic_store(&p->last_save_s, clock_wall_ms() / 1000);
        atomic_fetch_add(&p->saves, 1);
        atomic_store(&p->last_ok, true);
    } else if (st == E_CLOSED) {
        log_warning("Background saving was cancelled");
    } else {
        log_warning("Saving the DB failed: %s", err.text);
        atomic_store(&p->last_ok, false);
    }
    return st;
}

static void progress_reset(struct persistence *p)
{
    atomic_store(&p->progress.keys, 0);
    atomic_store(&p->progress.bytes, 0);
    atomic_store(&p->progress.keys_total, 0);
    atomic_store(&p->progress.cancel, false);
}

static void *background(void *arg)
{
    struct persistence *p = arg;
    pthread_setname_np(pthread_self(), "snapshot");
    thread_is_patient();
    affinity_take(p->node->config, CFG_BGSAVE_CPULIST);
    if (write_file(p) == OK) log_notice("Background saving terminated with success");
    pthread_mutex_lock(&p->mu);
    p->running = false;
    atomic_store(&p->saving, false);
    pthread_cond_broadcast(&p->finished);
    pthread_mutex_unlock(&p->mu);
    return NULL;
}

/* Under mu. */
static void reap_thread(struct persistence *p)
{
    if (!p->joinable) return;
    pthread_join(p->thread, NULL);
    p->joinable = false;
}

/* With the server at rest. */
static enum status start_at_rest(struct persistence *p)
{
    pthread_mutex_lock(&p->mu);
    if (p->running) {
        pthread_mutex_unlock(&p->mu);
        return E_AGAIN;
    }
    p->running = true;
    reap_thread(p);
    pthread_mutex_unlock(&p->mu);
    progress_reset(p);
    bool taken = take_snapshot(p);
    pthread_mutex_lock(&p->mu);
    if (taken) atomic_store(&p->saving, true);
    bool started = taken && pthread_create(&p->thread, NULL, background, p) == 0;
    p->joinable = started;
    if (!started) {
        p->running = false;
        atomic_store(&p->saving, false);
    }
    pthread_mutex_unlock(&p->mu);
    if (taken && !started) {
        bool stopped = store_walks_go(p->node->store);
        store_cut_end(p->cut);
        if (stopped) store_walks_stop(p->node->store);
    }
    if (started) log_notice("Background saving started without a fork");
    return started ? OK : E_AGAIN;
}

/* The gate comes first: whoever has it may wait for the end of a save, so a save that has begun must not wait for it.
 */
enum status persistence_save_start(struct persistence *p, bool at_rest)
{
    /* The main thread accepts connections: it must not wait for a script that runs long. */
    if (!at_rest && script_any_slow(p->node)) return E_AGAIN;
    if (!at_rest) gate_close(p->node->gate);
    enum status st = atomic_load(&p->node->loading) ? E_AGAIN : start_at_rest(p);
    if (!at_rest) gate_open(p->node->gate);
    return st;
}

enum status persistence_save_now(struct persistence *p)
{
    pthread_mutex_lock(&p->mu);
    bool busy = p->running;
    if (!busy) p->running = true;
    pthread_mutex_unlock(&p->mu);
    if (busy) return E_AGAIN;
    progress_reset(p);
    bool stopped = store_walks_go(p->node->store);
    enum status st = take_snapshot(p) ? write_file(p) : E_AGAIN;
    if (stopped) store_walks_stop(p->node->store);
    pthread_mutex_lock(&p->mu);
    p->running = false;
    pthread_cond_broadcast(&p->finished);
    pthread_mutex_unlock(&p->mu);
    return st == OK || st == E_AGAIN ? st : E_IO;
}

void persistence_save_cancel(struct persistence *p)
{
    bool stopped = store_walks_go(p->node->store);
    pthread_mutex_lock(&p->mu);
    atomic_store(&p->progress.cancel, p->running);
    while (p->running) pthread_cond_wait(&p->finished, &p->mu);
    reap_thread(p);
    pthread_mutex_unlock(&p->mu);
    if (stopped) store_walks_stop(p->node->store);
}

void persistence_tick(struct persistence *p, int64_t now_ms)
{
    uint64_t retained = store_retained_bytes(p->node->store);
    if (retained > atomic_load(&p->retained_peak)) atomic_store(&p->retained_peak, retained);
    pthread_mutex_lock(&p->mu);
    bool running = p->running;
    pthread_mutex_unlock(&p->mu);
    if (running || atomic_load(&p->node->loading) || aof_is_rewriting(p->node->aof)) return;
    if (atomic_exchange(&p->scheduled, false) && persistence_save_start(p, false) == OK) return;
    struct save_point points[SAVE_POINTS_MAX];
    int n = config_save_points(p->node->config, points);
    int64_t now_s = now_ms / 1000;
    uint64_t dirty = node_changes(p->node);
    for (int i = 0; i < n; i++) {
        if (dirty < (uint64_t)points[i].changes || now_s - atomic_load(&p->last_save_s) <= points[i].seconds) continue;
        if (!atomic_load(&p->last_ok) && now_s - atomic_load(&p->last_try_s) <= RETRY_AFTER_FAILURE_S) continue;
        log_notice("%lld changes in %lld seconds. Saving...", (long long)points[i].changes,
                   (long long)points[i].seconds);
        if (persistence_save_start(p, false) != OK) log_warning("The save could not be started");
        return;
    }
}

/* ---- loading ---- */

/* The main thread loads at start: clients go on being accepted. */
static enum status load_tick(void *ctx)
{
    loop_turn(((struct node *)ctx)->main_loop, 0);
    return OK;
}

struct rdb_load_options persistence_load_options(const struct node *n, bool keep_expired)
{
    int64_t now = clock_wall_ms();
    struct call_options options; /* the node's may change: a load goes on beside the gate */
    options_derive(n->config, &options);
    return (struct rdb_load_options){.limits = options.limits,
                                     .ignore_checksum = !config_bool(n->config, CFG_RDBCHECKSUM),
                                     .keep_expired = keep_expired,
                                     .lfu = options.lfu,
                                     .now_ms = now,
                                     .threads = (unsigned)n->worker_count,
                                     .lru_clock = (uint32_t)(now / 1000) & 0xffffff};
}

static enum libraries_policy libraries_policy_of(const struct reload *over)
{
    if (!over || over->flush) return LIBRARIES_FLUSH;
    return over->merge ? LIBRARIES_REPLACE : LIBRARIES_APPEND;
}

/* over: how the file goes with what is there; NULL: nothing is. */
static enum status load_path(struct persistence *p, const char *path, bool keep_expired, bool at_start,
                             const struct reload *over, struct rdb_aux *aux, struct rdb_error *err)
{
    struct rdb_load_options options = persistence_load_options(p->node, keep_expired);
    struct rdb_load_result result = {0};
    options.replace = over && over->merge;
    if (at_start) {
        options.ctx = p->node;
        options.tick = load_tick;
    }
    progress_reset(p);
    atomic_store(&p->load_started_ms, options.now_ms);
    rdb_extras_deinit(&p->extras);
    enum status st = rdb_load_file(p->node->store, path, &options, &p->extras, &p->progress, &result, err);
    if (st == OK) st = scripting_libraries_load(p->node, &p->extras, libraries_policy_of(over), err);
    if (st != OK) return st;
    atomic_store(&p->loaded_keys, result.keys);
    atomic_store(&p->expired_at_load, atomic_load(&p->progress.keys_expired));
    *aux = result.aux;
    log_notice("DB loaded from disk: %.3f seconds, %llu keys", (double)(clock_wall_ms() - options.now_ms) / 1000,
               (unsigned long long)result.keys);
    return OK;
}

static char *file_path(struct persistence *p)
{
    struct buf path = {0};
    config_text(p->node->config, CFG_DIR, &path);
    buf_append_char(&path, '/');
    config_text(p->node->config, CFG_DBFILENAME, &path);
    char *text = bytes_dup_cstr(buf_bytes(&path));
    buf_deinit(&path);
    return text;
}

static enum status load_file(struct persistence *p, bool keep_expired, bool restore_position, const struct reload *over,
                             char **error)
{
    char *path = file_path(p);
    struct rdb_error err = {0};
    struct rdb_aux aux = {0};
    atomic_store(&p->node->loading, true);
    enum status st = load_path(p, path, keep_expired, restore_position, over, &aux, &err);
    atomic_store(&p->node->loading, false);
    if (st == OK && restore_position && aux.has_repl) {
        struct replication_position at = {.offset = aux.repl_offset, .db = aux.repl_db};
        memcpy(at.id, aux.repl_id, sizeof at.id);
        replication_restore(p->node->replication, &at);
    }
    if (st != OK && st != E_NOT_FOUND) {
        struct buf text = {0};
        buf_printf(&text, "%s: %s", path, err.text);
        *error = bytes_dup_cstr(buf_bytes(&text));
        buf_deinit(&text);
    }
    mem_free(path);
    return st;
}

enum status persistence_load_snapshot(struct persistence *p, const char *path, int *db)
{
    struct rdb_error err = {0};
    struct rdb_aux aux = {.repl_db = -1};
    enum status st = load_path(p, path, true, false, NULL, &aux, &err);
    if (st != OK) {
        log_warning("Failed trying to load the PRIMARY synchronization DB: %s", err.text);
        return st;
    }
    *db = aux.repl_db;
    char *own = file_path(p);
    if (rename(path, own)) log_warning("Keeping the PRIMARY's snapshot as %s: %s", own, strerror(errno));
    mem_free(own);
    return OK;
}

const struct rdb_extras *persistence_extras(struct persistence *p)
{
    scripting_libraries_list(p->node, &p->sync_extras);
    return &p->sync_extras;
}

void persistence_warn_of_file(struct persistence *p)
{
    char *path = file_path(p);
    if (access(path, F_OK) == 0)
        log_warning("appendonly is on and there is no AOF: this server starts empty, without %s, which the next save "
                    "replaces. To keep its data: SHUTDOWN NOSAVE, start with appendonly no, then CONFIG SET appendonly "
                    "yes",
                    path);
    mem_free(path);
}

enum status persistence_load(struct persistence *p, char **error)
{
    char *follow = config_cstr(p->node->config, CFG_REPLICAOF);
    bool replica = *follow != '\0';
    mem_free(follow);
    enum status st = load_file(p, replica || config_bool(p->node->config, CFG_CLUSTER_ENABLED), true, NULL, error);
    return st == E_NOT_FOUND ? OK : st;
}

void persistence_empty(struct persistence *p)
{
    struct node *n = p->node;
    for (int db = 0; db < store_databases(n->store); db++) {
        if (store_db_count(n->store, db) == 0) continue;
        for (unsigned slot = 0; slot < SLOT_COUNT; slot++) store_table_free(store_detach_slot(n->store, db, slot));
    }
}

enum status persistence_reload(struct persistence *p, const struct reload *how, char **error)
{
    persistence_save_cancel(p);
    if (how->save) {
        enum status st = persistence_save_now(p);
        if (st != OK) return st;
    }
    watch_flushed(p->node, -1, -1, clock_wall_ms());
    tracking_flushed(p->node);
    if (how->flush) persistence_empty(p);
    /* What is left out because its time has passed would stay at replicas: nobody would tell them. */
    bool keep_expired = data_node_is_replica(p->node) || change_log_active(p->node->log);
    return load_file(p, keep_expired, false, how, error);
}

/* ---- INFO ---- */

static void loading_info(struct persistence *p, struct buf *out)
{
    const struct rdb_progress *progress = aof_load_progress(p->node->aof);
    if (!progress) progress = &p->progress;
    uint64_t total = atomic_load(&progress->bytes_total), done = atomic_load(&progress->bytes);
    int64_t began = atomic_load(&p->load_started_ms), took = (clock_wall_ms() - began) / 1000;
    double perc = total ? (double)done * 100 / (double)total : 0;
    buf_printf(out,
               "loading_start_time:%lld\r\nloading_total_bytes:%llu\r\nloading_rdb_used_mem:0\r\n"
               "loading_loaded_bytes:%llu\r\nloading_loaded_perc:%.2f\r\nloading_eta_seconds:%lld\r\n",
               (long long)(began / 1000), (unsigned long long)total, (unsigned long long)done, perc,
               (long long)(done ? (double)took * (double)(total - done) / (double)done : 1));
}

void persistence_info(struct persistence *p, struct buf *out)
{
    pthread_mutex_lock(&p->mu);
    bool running = p->running;
    pthread_mutex_unlock(&p->mu);
    struct node *n = p->node;
    bool loading = atomic_load(&n->loading);
    buf_printf(out,
               "loading:%d\r\nasync_loading:0\r\ncurrent_cow_peak:%llu\r\ncurrent_cow_size:%llu\r\n"
               "current_cow_size_age:0\r\ncurrent_fork_perc:0.00\r\ncurrent_save_keys_processed:%llu\r\n"
               "current_save_keys_total:%llu\r\nrdb_changes_since_last_save:%llu\r\nrdb_bgsave_in_progress:%d\r\n"
               "rdb_last_save_time:%lld\r\nrdb_last_bgsave_status:%s\r\nrdb_last_bgsave_time_sec:%lld\r\n"
               "rdb_current_bgsave_time_sec:%lld\r\nrdb_saves:%llu\r\nrdb_last_cow_size:%llu\r\n"
               "rdb_last_load_keys_expired:%llu\r\nrdb_last_load_keys_loaded:%llu\r\n",
               loading, running ? (unsigned long long)atomic_load(&p->retained_peak) : 0ull,
               (unsigned long long)store_retained_bytes(n->store), /* for full syncs, too */
               running ? (unsigned long long)atomic_load(&p->progress.keys) : 0ull,
               running ? (unsigned long long)atomic_load(&p->progress.keys_total) : 0ull,
               (unsigned long long)node_changes(n), running, (long long)atomic_load(&p->last_save_s),
               atomic_load(&p->last_ok) ? "ok" : "err", (long long)atomic_load(&p->last_took_s),
               running ? (long long)(clock_wall_ms() - atomic_load(&p->started_ms)) / 1000 : -1ll,
               (unsigned long long)atomic_load(&p->saves), (unsigned long long)atomic_load(&p->retained_peak),
               (unsigned long long)atomic_load(&p->expired_at_load), (unsigned long long)atomic_load(&p->loaded_keys));
    aof_info(n->aof, out);
    if (loading) loading_info(p, out);
}

/* ---- commands ---- */

static struct persistence *of(struct call *c)
{
    return call_conn(c)->worker->node->persistence;
}

void cmd_save(struct call *c)
{
    if (!call_exclusive(c)) return;
    enum status st = persistence_save_now(of(c));
    if (st == OK)
        resp_ok(&c->out);
    else if (st == E_AGAIN)
        resp_error(&c->out, "ERR Background save already in progress");
    else
        resp_error(&c->out, "ERR");
}

void cmd_bgsave(struct call *c)
{
    if (c->argc > 2 || (c->argc == 2 && !call_arg_is(c, 1, "schedule"))) {
        resp_error(&c->out, ERR_SYNTAX);
        return;
    }
    bool in_exec = c->flags & CALL_IN_EXEC;
    if ((in_exec || aof_is_rewriting(of(c)->node->aof)) && !persistence_is_saving(of(c))) {
        /* In a transaction: what it has changed so far is in the dataset, and not in the log yet. */
        if (c->argc == 2 || in_exec) {
            atomic_store(&of(c)->scheduled, true);
            resp_status(&c->out, "Background saving scheduled");
        } else {
            resp_error(&c->out,
                       "ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE "
                       "in order to schedule a BGSAVE whenever possible.");
        }
        return;
    }
    if (!call_exclusive(c)) return;
    enum status st = persistence_save_start(of(c), true);
    if (st == OK)
        resp_status(&c->out, "Background saving started");
    else
        resp_error(&c->out, "ERR Background save already in progress");
}

void cmd_lastsave(struct call *c)
{
    resp_i64(&c->out, atomic_load(&of(c)->last_save_s));
}
