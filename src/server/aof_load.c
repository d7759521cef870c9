/* aof_load.c: commands of an AOF, executed without replies.  Source of the rules and words: redis-server 7.0.15. */
#include "server/aof_load.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/number.h"
#include "persist/aof.h"
#include "server/aof_scripts.h"
#include "server/persistence.h"
#include "server/propagation.h"
#include "server/renames.h"
#include "server/scripting.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BATCH = 32, TICK_BYTES = 2 << 20, REPLIES_KEEP = 64 * 1024 };

struct queued_command {
    const struct command *cmd;
    struct bytes *argv; /* one allocation with its bytes */
    size_t argc;
};

struct loader {
    struct aof_load *l;
    const char *name;
    struct call_env env;
    struct call_stats stats;
    struct random rng;
    struct buf replies, effects; /* thrown away */
    int db;
    bool in_multi, refused;
    struct queued_command *queue;
    size_t queue_n, queue_cap;
    struct resp_request requests[BATCH]; /* the batch, and the one being read behind it */
    struct call calls[BATCH];
    size_t batched;
    uint64_t valid;        /* the file is good up to here */
    uint64_t multi_offset; /* where the transaction under way begins */
    uint64_t stream_bytes; /* of commands since the last position */
    uint64_t stream_valid; /* the same up to `valid` */
    uint64_t ticked;
};

static void changed(void *ctx, int db, const struct key *k, enum notify_class cls, const char *event)
{
    (void)ctx; /* nobody has read anything yet */
}

static void free_tables(void *ctx, struct table **tables, size_t n)
{
    reaper_free_tables(((struct loader *)ctx)->l->node->reaper, tables, n);
}

static void loader_init(struct loader *o, struct aof_load *l, const char *name)
{
    struct node *n = l->node;
    uint64_t seed;
    random_secure(&seed, sizeof seed);
    *o = (struct loader){.l = l, .name = name};
    random_seed(&o->rng, seed);
    o->env = (struct call_env){.store = n->store,
                               .options = n->options,
                               .stats = &o->stats,
                               .rng = &o->rng,
                               .server = n,
                               .ctx = o,
                               .changed = changed,
                               .free_tables = free_tables,
                               .cluster_enabled = config_bool(n->config, CFG_CLUSTER_ENABLED)};
}

static void queue_clear(struct loader *o)
{
    for (size_t i = 0; i < o->queue_n; i++) mem_free(o->queue[i].argv);
    o->queue_n = 0;
    o->in_multi = false;
}

static void loader_deinit(struct loader *o)
{
    queue_clear(o);
    mem_free(o->queue);
    for (size_t i = 0; i < BATCH; i++) resp_request_deinit(&o->requests[i]);
    buf_deinit(&o->replies);
    buf_deinit(&o->effects);
}

/* ---- execution --------------------------------------------------------------------------------------------------- */

static void call_begin(struct loader *o, struct call *call, const struct command *cmd, const struct bytes *argv,
                       size_t argc)
{
    int64_t now = clock_wall_ms();
    *call = (struct call){.env = &o->env,
                          .cmd = cmd,
                          .handler = command_handler_of((enum command_id)cmd->id),
                          .argv = argv,
                          .argc = argc,
                          .out = {&o->replies, 2},
                          .db = o->db,
                          .flags = CALL_LOADING | CALL_EXCLUSIVE,
                          .now_ms = now,
                          .lru_clock = (uint32_t)(now / 1000) & 0xffffff};
    if (command_has_keys(cmd)) call_prepare_keys(call);
}

static void execute(struct loader *o, struct call *call)
{
    o->replies.n = o->effects.n = 0;
    call->effects = &o->effects;
    call_run(call);
    if (call->wait) {
        call_wait_free(call->wait);
        call->wait = NULL;
    }
    if (o->replies.n && o->replies.p[0] == '-')
        propagation_failed(o->l->node, FROM_AOF, bytes_of(call->cmd->name), buf_bytes(&o->replies));
    if (o->replies.cap > REPLIES_KEEP) buf_deinit(&o->replies);
    o->l->commands++;
}

/* So that the memory accesses of a batch overlap. */
static void batch_run(struct loader *o)
{
    struct store *s = o->env.store;
    for (size_t i = 0; i < o->batched && o->batched > 1; i++)
        for (size_t k = 0; k < o->calls[i].key_count; k++)
            store_prefetch_bucket(s, o->calls[i].db, &o->calls[i].keys[k]);
    for (size_t i = 0; i < o->batched && o->batched > 1; i++)
        for (size_t k = 0; k < o->calls[i].key_count; k++)
            store_prefetch_entry(s, o->calls[i].db, &o->calls[i].keys[k]);
    for (size_t i = 0; i < o->batched; i++) execute(o, &o->calls[i]);
    o->batched = 0;
}

static bool select_db(struct loader *o, const struct bytes *argv, size_t argc)
{
    int64_t db;
    if (argc != 2 || !parse_i64(argv[1], &db) || db < 0 || db >= store_databases(o->env.store)) return false;
    o->db = (int)db;
    return true;
}

/* ---- scripts ----------------------------------------------------------------------------------------------------- */

/* Why a script that is loaded may not call this; NULL: it may.  What is neither a write nor a read needs a connection.
 */
static const char *script_objection(const struct command *cmd, size_t argc)
{
    if (!cmd) return "ERR Unknown Redis command called from script";
    if (!command_arity_ok(cmd, argc)) return "ERR Wrong number of args calling Redis command from script";
    if (cmd->flags & CMD_NOSCRIPT || cmd->id == CMD_ID_MIGRATE || !command_handler_of((enum command_id)cmd->id))
        return "ERR This Redis command is not allowed from script";
    bool alone = cmd->flags & (CMD_WRITE | CMD_READONLY) || cmd->id == CMD_ID_TIME || cmd->id == CMD_ID_ECHO ||
                 cmd->id == CMD_ID_SELECT || cmd->id == CMD_ID_PUBLISH;
    return alone ? NULL : "ERR This Redis command is not allowed from a script in a file";
}

/* A command of a script. */
static struct bytes script_call(void *ctx, const struct bytes *argv, size_t argc, int resp)
{
    struct loader *o = ctx;
    const struct command *cmd = node_command_of_request(o->l->node, argv, argc, NULL);
    const char *why = script_objection(cmd, argc);
    o->replies.n = o->effects.n = 0;
    struct resp_out out = {&o->replies, (uint8_t)resp};
    if (why) {
        resp_error(&out, why);
    } else if (cmd->id == CMD_ID_SELECT) {
        if (select_db(o, argv, argc))
            resp_ok(&out);
        else
            resp_error(&out, "ERR DB index is out of range");
    } else if (cmd->id == CMD_ID_PUBLISH) {
        resp_i64(&out, 0); /* nobody listens yet */
    } else {
        struct call call;
        call_begin(o, &call, cmd, argv, argc);
        call.out = out;
        call.flags |= CALL_IN_EXEC;
        call.effects = &o->effects;
        call_run(&call);
        if (call.wait) call_wait_free(call.wait);
    }
    return buf_bytes(&o->replies);
}

static void run_script(struct loader *o, const struct command *cmd, const struct bytes *argv, size_t argc)
{
    struct aof_load *l = o->l;
    int db = o->db;
    if (!l->scripts) l->scripts = aof_scripts_create(l->node);
    aof_scripts_run(l->scripts, (struct aof_scripts_host){o, script_call}, cmd, argv, argc);
    o->db = db;
    l->commands++;
}

/* ---- transactions ------------------------------------------------------------------------------------------------ */

static void queue_run(struct loader *o)
{
    for (size_t i = 0; i < o->queue_n; i++) {
        const struct queued_command *q = &o->queue[i];
        struct call call;
        if (q->cmd->id == CMD_ID_SELECT) {
            (void)select_db(o, q->argv, q->argc);
            continue;
        }
        if (aof_scripts_knows(q->cmd)) {
            run_script(o, q->cmd, q->argv, q->argc);
            continue;
        }
        call_begin(o, &call, q->cmd, q->argv, q->argc);
        call.flags |= CALL_IN_EXEC;
        execute(o, &call);
    }
    queue_clear(o);
}

static void enqueue(struct loader *o, const struct command *cmd, const struct resp_request *req)
{
    if (o->queue_n == o->queue_cap) {
        o->queue_cap = o->queue_cap ? o->queue_cap * 2 : 8;
        o->queue = mem_realloc(o->queue, o->queue_cap * sizeof *o->queue);
    }
    o->queue[o->queue_n++] = (struct queued_command){cmd, bytes_dup_array(req->argv, req->argc, NULL), req->argc};
}

static bool refuse(struct loader *o, const char *fmt, const struct resp_request *req)
{
    struct bytes name = req->argv[0];
    log_warning(fmt, (int)(name.n < 128 ? name.n : 128), name.p, o->name);
    o->refused = true;
    return false;
}

/* What a file may hold.  Commands that change nothing are let pass. */
enum verdict { RUN, RUN_SCRIPT, PASS, REFUSED };
static enum verdict judge(struct loader *o, const struct command *cmd, const struct resp_request *req)
{
    if (!cmd) {
        refuse(o, "Unknown command '%.*s' reading the append only file %s", req);
        return REFUSED;
    }
    if (aof_scripts_knows(cmd)) return RUN_SCRIPT;
    bool handled = command_handler_of((enum command_id)cmd->id) && cmd->id != CMD_ID_MIGRATE;
    bool writes = cmd->flags & CMD_WRITE;
    if (command_runs_script(cmd) || (writes && !handled)) {
        refuse(o, "Command '%.*s' cannot be executed reading the append only file %s", req);
        return REFUSED;
    }
    return writes && command_arity_ok(cmd, req->argc) ? RUN : PASS;
}

static void whole(struct loader *o, const struct aof_reader *r)
{
    o->valid = r->next;
    o->stream_valid = o->stream_bytes;
}

/* One command of the file; false: the log says why it cannot be. */
static bool take(struct loader *o, const struct aof_reader *r, const struct resp_request *req)
{
    struct node *n = o->l->node;
    const struct command *cmd = node_command_of_request(n, req->argv, req->argc, NULL);
    int id = cmd ? (int)cmd->id : -1;
    o->stream_bytes += req->size;
    if (id == CMD_ID_MULTI || id == CMD_ID_EXEC || id == CMD_ID_SELECT || o->in_multi) batch_run(o);
    if (id == CMD_ID_MULTI) {
        queue_clear(o);
        o->in_multi = true;
        o->multi_offset = r->offset;
        return true;
    }
    if (id == CMD_ID_EXEC) {
        queue_run(o);
    } else if (id == CMD_ID_SELECT) {
        if (o->in_multi)
            enqueue(o, cmd, req);
        else if (!select_db(o, req->argv, req->argc))
            return refuse(o, "Command '%.*s' names no database reading the append only file %s", req);
    } else {
        enum verdict v = judge(o, cmd, req);
        if (v == REFUSED || !cmd) return false;
        if ((v == RUN || v == RUN_SCRIPT) && o->in_multi) enqueue(o, cmd, req);
        if (v == RUN && !o->in_multi) call_begin(o, &o->calls[o->batched++], cmd, req->argv, req->argc);
        if (v == RUN_SCRIPT && !o->in_multi) {
            batch_run(o);
            run_script(o, cmd, req->argv, req->argc);
        }
    }
    if (!o->in_multi) whole(o, r);
    return true;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static void note_position(struct loader *o, const struct aof_reader *r)
{
    struct replication_position *p = &o->l->position;
    uint64_t offset;
    if (aof_parse_position(r->line, p->id, &offset)) {
        p->offset = (int64_t)offset;
        o->l->has_position = true;
        o->stream_bytes = 0;
    }
    if (!o->in_multi) whole(o, r);
}

static enum aof_item read_all(struct loader *o, struct aof_reader *r)
{
    for (;;) {
        struct resp_request *req = &o->requests[o->batched];
        r->keep = o->batched > 0;
        enum aof_item item = aof_reader_next(r, req);
        if (item == AOF_HOLD) {
            batch_run(o);
            continue;
        }
        if (item == AOF_COMMAND && !take(o, r, req)) return AOF_BAD;
        if (item == AOF_ANNOTATION) {
            batch_run(o);
            note_position(o, r);
        }
        if (item != AOF_COMMAND && item != AOF_ANNOTATION) {
            batch_run(o);
            return item == AOF_END && o->in_multi ? AOF_TRUNCATED : item;
        }
        if (o->batched == BATCH) batch_run(o);
        if (r->next - o->ticked < TICK_BYTES) continue;
        batch_run(o);
        o->ticked = r->next;
        atomic_store(&o->l->progress->bytes, o->l->bytes_before + r->next);
        if (o->l->tick) o->l->tick(o->l->ctx);
    }
}

static enum aof_loaded cut_off(struct loader *o, const char *path, bool may_cut)
{
    const char *name = o->name;
    if (o->in_multi) {
        log_warning("Revert incomplete MULTI/EXEC transaction in AOF file %s", name);
        queue_clear(o);
    }
    if (!may_cut) {
        log_warning("Unexpected end of file reading the append only file %s. You can: 1) Make a backup of your AOF "
                    "file, then use ./redis-check-aof --fix <filename.manifest>. 2) Alternatively you can set the "
                    "'aof-load-truncated' configuration option to yes and restart the server.",
                    name);
        return AOF_NOT_LOADED;
    }
    log_warning("!!! Warning: short read while loading the AOF file %s!!!", name);
    log_warning("!!! Truncating the AOF %s at offset %llu !!!", name, (unsigned long long)o->valid);
    if (truncate(path, (off_t)o->valid) != 0) {
        log_warning("Error truncating the AOF file %s: %s", name, strerror(errno));
        return AOF_NOT_LOADED;
    }
    log_warning("AOF %s loaded anyway because aof-load-truncated is enabled", name);
    return AOF_LOADED_CUT_OFF;
}

static enum aof_loaded verdict_of(struct loader *o, enum aof_item end, const struct aof_reader *r, const char *path,
                                  bool may_cut)
{
    switch (end) {
    case AOF_END: return AOF_LOADED;
    case AOF_TRUNCATED: return cut_off(o, path, may_cut);
    case AOF_FAILED:
        log_warning("Unrecoverable error reading the append only file %s: %s", o->name, strerror(errno));
        return AOF_NOT_LOADED;
    default:
        if (!o->refused)
            log_warning("Bad file format reading the append only file %s: make a backup of your AOF file, then use "
                        "./redis-check-aof --fix <filename.manifest>",
                        o->name);
        log_warning("The append only file %s cannot be read from offset %llu on", o->name,
                    (unsigned long long)r->offset);
        return AOF_NOT_LOADED;
    }
}

static enum status rdb_tick(void *ctx)
{
    struct aof_load *l = ctx;
    if (l->tick) l->tick(l->ctx);
    return OK;
}

/* The RDB at the beginning of a file; rest gets what was read beyond it. */
static bool load_rdb(struct aof_load *l, int fd, uint64_t size, const char *name, struct buf *rest, uint64_t *bytes)
{
    struct rdb_load_options options = persistence_load_options(l->node, true);
    struct rdb_load_result result = {0};
    struct rdb_error err = {0};
    bool base = strlen(name) > 4 && strcmp(name + strlen(name) - 4, ".rdb") == 0;
    log_notice(base ? "Reading RDB base file on AOF loading..." : "Reading RDB preamble from AOF file...");
    options.rest = rest;
    options.ctx = l;
    options.tick = rdb_tick;
    struct rdb_source source = {&fd, rdb_read_fd, size};
    if (rdb_load(l->node->store, source, &options, l->extras, l->progress, &result, &err) == OK) {
        l->keys += result.keys;
        *bytes = result.bytes;
        return true;
    }
    log_warning(base ? "Error reading the RDB base file %s, AOF loading aborted: %s"
                     : "Error reading the RDB preamble of the AOF file %s, AOF loading aborted: %s",
                name, err.text);
    return false;
}

static enum aof_loaded load_open_file(struct aof_load *l, int fd, const char *path, const char *name, bool may_cut)
{
    struct stat st;
    struct buf rest = {0};
    char magic[5];
    uint64_t at = 0;
    struct rdb_error err = {0};
    if (fstat(fd, &st) != 0) return AOF_NOT_LOADED;
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    bool rdb = pread(fd, magic, sizeof magic, 0) == (ssize_t)sizeof magic && memcmp(magic, "REDIS", sizeof magic) == 0;
    bool ok = !rdb || load_rdb(l, fd, (uint64_t)st.st_size, name, &rest, &at);
    /* Functions come before what follows them. */
    if (ok && rdb && scripting_libraries_load(l->node, l->extras, LIBRARIES_FLUSH, &err) != OK) {
        log_warning("Error reading the functions of the AOF file %s: %s", name, err.text);
        ok = false;
    }
    enum aof_loaded result = AOF_NOT_LOADED;
    if (ok) {
        if (rdb && (uint64_t)st.st_size > at) log_notice("Reading the remaining AOF tail...");
        struct loader *o = mem_alloc(sizeof *o);
        struct aof_reader r;
        loader_init(o, l, name);
        aof_reader_init(&r, fd, at, buf_bytes(&rest));
        o->valid = o->ticked = at;
        l->has_position = false;
        result = verdict_of(o, read_all(o, &r), &r, path, may_cut);
        l->position.offset += (int64_t)o->stream_valid;
        l->position.db = o->db;
        aof_reader_deinit(&r);
        loader_deinit(o);
        mem_free(o);
    }
    l->bytes_before += (uint64_t)st.st_size;
    buf_deinit(&rest);
    return result;
}

enum aof_loaded aof_load_file(struct aof_load *l, const char *dir, const char *name, bool may_cut)
{
    struct buf path = {0};
    buf_printf(&path, "%s/%s", dir, name);
    buf_append_char(&path, '\0');
    int fd = open(path.p, O_RDONLY | O_CLOEXEC);
    enum aof_loaded result = AOF_NOT_LOADED;
    if (fd < 0)
        log_warning("Fatal error: can't open the append log file %s for reading: %s", name, strerror(errno));
    else
        result = load_open_file(l, fd, path.p, name, may_cut);
    if (fd >= 0) close(fd);
    buf_deinit(&path);
    return result;
}
