/* applier.c: commands of the replication stream, executed without replies, under the same locks as everybody's. */
#include "server/applier.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/number.h"
#include "server/conn.h"
#include "server/multi.h"
#include "server/notify.h"
#include "server/propagation.h"
#include "server/pubsub.h"
#include "server/renames.h"
#include "server/snapshot_budget.h"
#include "server/tracking.h"

#include <sched.h>
#include <unistd.h>

enum { SLICE_BYTES = 64 * 1024, SLOTS_INLINE = 16, SNAPSHOT_WAIT_MS = 100 };

struct applied {
    const struct command *cmd;
    struct bytes *argv; /* one allocation with its bytes */
    size_t argc;
};

struct applier {
    struct node *node;
    struct gate_member *gate;
    struct call_env env;
    struct waker waker;
    struct call_stats stats;
    struct random rng;
    struct resp_parser parser;
    struct resp_request req;
    struct buf replies, effects; /* thrown away */
    int db;
    bool in_multi;
    struct applied *queue;
    size_t queue_n, queue_cap;
    struct buf multi_bytes;     /* the stream since MULTI */
    bool (*current)(void *ctx); /* of applier_run() under way */
    void *current_ctx;
};

static void changed(void *ctx, int db, const struct key *k, enum notify_class cls, const char *event)
{
    struct applier *a = ctx;
    watch_key_changed(a->node, db, k, cls == NOTIFY_EXPIRED);
    tracking_key_changed(a->node, NULL, k);
    notify_keyspace(a->node, db, k, cls, event);
    waker_key_changed(&a->waker, db, k);
}

static void notified(void *ctx, int db, const struct key *k, enum notify_class cls, const char *event)
{
    notify_keyspace(((struct applier *)ctx)->node, db, k, cls, event);
}

static void flushed(void *ctx, int db, int replaced_by)
{
    struct applier *a = ctx;
    watch_flushed(a->node, db, replaced_by, clock_wall_ms());
    if (replaced_by < 0) tracking_flushed(a->node);
    waker_flushed(&a->waker, db);
}

static void free_tables(void *ctx, struct table **tables, size_t n)
{
    struct applier *a = ctx;
    reaper_free_tables(a->node->reaper, tables, n);
}

struct applier *applier_create(struct node *n)
{
    struct applier *a = mem_calloc(1, sizeof *a);
    uint64_t seed;
    random_secure(&seed, sizeof seed);
    random_seed(&a->rng, seed);
    a->node = n;
    a->gate = gate_join(n->gate);
    a->env = (struct call_env){.store = n->store,
                               .options = n->options,
                               .stats = &a->stats,
                               .rng = &a->rng,
                               .server = n,
                               .ctx = a,
                               .changed = changed,
                               .notified = notified,
                               .flushed = flushed,
                               .free_tables = free_tables,
                               .cluster_enabled = config_bool(n->config, CFG_CLUSTER_ENABLED),
                               .one_database = node_has_one_database(n)};
    waker_init(&a->waker, n, &a->env);
    resp_parser_init(&a->parser, INT64_MAX);
    return a;
}

static void queue_clear(struct applier *a)
{
    for (size_t i = 0; i < a->queue_n; i++) mem_free(a->queue[i].argv);
    a->queue_n = 0;
    a->multi_bytes.n = 0;
    a->in_multi = false;
}

void applier_reset(struct applier *a, int db)
{
    queue_clear(a);
    a->db = db < 0 ? 0 : db;
    resp_parser_deinit(&a->parser);
    resp_parser_init(&a->parser, INT64_MAX);
}

/* ---- locks ---- */

static void lock_all(struct applier *a, const unsigned *slots, size_t n)
{
    struct store *s = a->node->store;
    /* Nobody waits for one slot while holding another. */
    for (;;) {
        unsigned busy;
        size_t i = 0;
        while (i < n && slot_try_lock(s, slots[i])) i++;
        if (i == n && waker_lock_more(&a->waker, slots, n, &busy)) return;
        while (i > 0) slot_unlock(s, slots[--i]);
        sched_yield();
    }
}

/* Serves who sleeps at the keys that were changed (on a replica: XREAD), then unlocks. */
static void unlock_all(struct applier *a, const unsigned *slots, size_t n)
{
    if (waker_has_work(&a->waker)) waker_serve(&a->waker, slots, n, false, clock_wall_ms());
    waker_unlock_more(&a->waker);
    for (size_t i = 0; i < n; i++) slot_unlock(a->node->store, slots[i]);
}

struct slot_set {
    unsigned *slots;
    size_t n, cap;
};

static void slot_set_add(struct slot_set *set, const struct command *cmd, const struct bytes *argv, size_t argc)
{
    if (!command_has_keys(cmd)) return;
    int n = command_keys(cmd, argv, argc, NULL, 0);
    if (n <= 0) return;
    struct command_key *found = mem_alloc((size_t)n * sizeof *found);
    command_keys(cmd, argv, argc, found, (size_t)n);
    if (set->n + (size_t)n > set->cap) {
        set->cap = set->n + (size_t)n + SLOTS_INLINE;
        set->slots = mem_realloc(set->slots, set->cap * sizeof *set->slots);
    }
    for (int i = 0; i < n; i++) set->slots[set->n++] = key_slot(argv[found[i].index]);
    mem_free(found);
}

/* ---- execution ---- */

/* The primary's clients' messages reach the clients of its replicas. */
static bool is_publish(const struct applied *cmd)
{
    return cmd->cmd && cmd->argc == 3 && (cmd->cmd->id == CMD_ID_PUBLISH || cmd->cmd->id == CMD_ID_SPUBLISH);
}

static void publish(struct applier *a, const struct applied *cmd)
{
    enum pubsub_kind kind = cmd->cmd->id == CMD_ID_SPUBLISH ? PUBSUB_SHARD : PUBSUB_CHANNEL;
    pubsub_publish(a->node, NULL, kind, cmd->argv[1], cmd->argv[2]);
}

static void run_handler(struct applier *a, const struct applied *cmd, unsigned flags, bool *want_exclusive)
{
    int64_t now = clock_wall_ms();
    struct call call = {.env = &a->env,
                        .cmd = cmd->cmd,
                        .handler = command_handler_of((enum command_id)cmd->cmd->id),
                        .argv = cmd->argv,
                        .argc = cmd->argc,
                        .out = {&a->replies, 2},
                        .db = a->db,
                        .flags = flags | CALL_FROM_PRIMARY,
                        .now_ms = now,
                        .lru_clock = (uint32_t)(now / 1000) & 0xffffff,
                        .effects = &a->effects};
    a->replies.n = a->effects.n = 0;
    if (command_has_keys(call.cmd)) call_prepare_keys(&call);
    call_run(&call);
    *want_exclusive = call.want_exclusive;
    if (call.dirty) atomic_fetch_add_explicit(&a->node->dirty, call.dirty, memory_order_relaxed);
    if (a->replies.n && a->replies.p[0] == '-')
        propagation_failed(a->node, FROM_PRIMARY, bytes_of(cmd->cmd->name), buf_bytes(&a->replies));
    if (a->replies.cap > SLICE_BYTES) buf_deinit(&a->replies);
}

static bool executable(struct applier *a, const struct applied *cmd)
{
    bool ok = cmd->cmd && cmd->cmd->flags & CMD_WRITE && command_arity_ok(cmd->cmd, cmd->argc) &&
              command_handler_of((enum command_id)cmd->cmd->id);
    if (ok) return true;
    if (cmd->cmd && !(cmd->cmd->flags & CMD_WRITE)) return false; /* PING, PUBLISH: nothing to do */
    propagation_failed(a->node, FROM_PRIMARY, cmd->argv[0],
                       BYTES("-ERR unknown command, or wrong number of arguments"));
    return false;
}

/* The bytes of whole commands go to the log as they came; those of an open transaction wait for its EXEC. */
static void keep_bytes(struct applier *a, struct bytes done)
{
    if (a->in_multi) {
        buf_append_bytes(&a->multi_bytes, done);
        return;
    }
    change_set_selected_db(a->node->log, a->db);
    if (a->multi_bytes.n) {
        buf_append_bytes(&a->multi_bytes, done);
        change_append_raw(a->node->log, buf_bytes(&a->multi_bytes));
        queue_clear(a);
    } else {
        change_append_raw(a->node->log, done);
    }
}

static void rest_end(struct applier *a)
{
    if (waker_has_work(&a->waker)) waker_serve(&a->waker, NULL, 0, true, clock_wall_ms());
    store_walks_go(a->node->store);
    gate_open(a->node->gate);
    gate_enter(a->gate);
}

/* Has the server at rest, outside the gate for that time.  False: the role has changed in between, and the command is
 * not to be executed any more. */
static bool rest_begin(struct applier *a)
{
    gate_exit(a->gate);
    gate_close(a->node->gate);
    store_walks_stop(a->node->store);
    if (a->current(a->current_ctx)) return true;
    rest_end(a);
    return false;
}

static enum status run_one(struct applier *a, const struct applied *cmd, struct bytes bytes)
{
    struct slot_set set = {0};
    bool exclusive = false;
    slot_set_add(&set, cmd->cmd, cmd->argv, cmd->argc);
    set.n = slots_sort_unique(set.slots, set.n);
    assert(set.slots || set.n == 0);
    lock_all(a, set.slots, set.n);
    run_handler(a, cmd, 0, &exclusive);
    unlock_all(a, set.slots, set.n);
    mem_free(set.slots);
    if (exclusive) {
        if (!rest_begin(a)) return E_CLOSED;
        run_handler(a, cmd, CALL_EXCLUSIVE, &exclusive);
        keep_bytes(a, bytes);
        rest_end(a);
    } else {
        keep_bytes(a, bytes);
    }
    return OK;
}

static int selected(const struct applied *cmd, int databases)
{
    int64_t db;
    bool ok = cmd->argc == 2 && parse_i64(cmd->argv[1], &db) && db >= 0 && db < databases;
    return ok ? (int)db : -1;
}

static void run_queued(struct applier *a, unsigned flags)
{
    for (size_t i = 0; i < a->queue_n; i++) {
        bool exclusive, select = a->queue[i].cmd->id == CMD_ID_SELECT;
        int db = select ? selected(&a->queue[i], store_databases(a->node->store)) : -1;
        if (db >= 0)
            a->db = db;
        else if (is_publish(&a->queue[i]))
            publish(a, &a->queue[i]);
        else if (!select)
            run_handler(a, &a->queue[i], CALL_IN_EXEC | flags, &exclusive);
    }
}

/* A transaction is one change: all its slots are held from its first command to its last.  `bytes`: of its EXEC. */
static enum status run_queue(struct applier *a, struct bytes bytes)
{
    struct slot_set set = {0};
    bool rest = false;
    for (size_t i = 0; i < a->queue_n; i++) {
        const struct command *cmd = a->queue[i].cmd;
        slot_set_add(&set, cmd, a->queue[i].argv, a->queue[i].argc);
        if (!command_has_keys(cmd) && cmd->id != CMD_ID_SELECT && !is_publish(&a->queue[i]))
            rest = true; /* FLUSHALL, SWAPDB */
    }
    set.n = slots_sort_unique(set.slots, set.n);
    assert(set.slots || set.n == 0);
    if (rest && !rest_begin(a)) {
        mem_free(set.slots);
        return E_CLOSED;
    }
    if (!rest) lock_all(a, set.slots, set.n);
    run_queued(a, rest ? CALL_EXCLUSIVE : 0u);
    if (!rest) unlock_all(a, set.slots, set.n);
    a->in_multi = false;
    keep_bytes(a, bytes);
    if (rest) rest_end(a);
    mem_free(set.slots);
    return OK;
}

static void enqueue(struct applier *a, const struct applied *cmd)
{
    if (a->queue_n == a->queue_cap) {
        a->queue_cap = a->queue_cap ? a->queue_cap * 2 : 8;
        a->queue = mem_realloc(a->queue, a->queue_cap * sizeof *a->queue);
    }
    a->queue[a->queue_n++] = (struct applied){cmd->cmd, bytes_dup_array(cmd->argv, cmd->argc, NULL), cmd->argc};
}

/* One command of the stream, which came as `bytes`.  E_CORRUPT: no stream of a primary has it.  E_CLOSED: it was not
 * executed, because the role has changed. */
static enum status take(struct applier *a, const struct resp_request *req, struct bytes bytes, bool *ack_wanted)
{
    struct applied cmd = {node_command_of_request(a->node, req->argv, req->argc, NULL), req->argv, req->argc};
    int id = cmd.cmd ? (int)cmd.cmd->id : -1;
    if (id == CMD_ID_MULTI) {
        queue_clear(a);
        a->in_multi = true;
    } else if (id == CMD_ID_EXEC) {
        return a->in_multi ? run_queue(a, bytes) : E_CORRUPT;
    } else if (id == CMD_ID_SELECT && !a->in_multi) {
        int db = selected(&cmd, store_databases(a->node->store));
        if (db < 0) return E_CORRUPT;
        a->db = db;
    } else if (id == CMD_ID_REPLCONF) {
        if (req->argc >= 2 && bytes_ieq(req->argv[1], BYTES("GETACK"))) *ack_wanted = true;
    } else if (id == CMD_ID_SELECT || is_publish(&cmd) || executable(a, &cmd)) {
        if (a->in_multi)
            enqueue(a, &cmd);
        else if (is_publish(&cmd))
            publish(a, &cmd);
        else
            return run_one(a, &cmd, bytes);
    }
    keep_bytes(a, bytes);
    return OK;
}

/* The stream stands still while a snapshot keeps too much, but not so long that the primary would miss us. */
static void wait_for_snapshot(struct applier *a)
{
    for (int ms = 0; ms < SNAPSHOT_WAIT_MS && snapshot_budget_spent(a->node) && a->current(a->current_ctx); ms++)
        usleep(1000);
}

enum status applier_run(struct applier *a, struct bytes stream, size_t *taken, bool *ack_wanted,
                        bool (*current)(void *ctx), void *ctx)
{
    enum status st = OK;
    *taken = 0;
    *ack_wanted = false;
    a->current = current;
    a->current_ctx = ctx;
    gate_enter(a->gate);
    while (st == OK && *taken < stream.n) {
        if (!current(ctx)) {
            st = E_CLOSED;
            break;
        }
        st = resp_parse_request(&a->parser, bytes_make(stream.p + *taken, stream.n - *taken), &a->req);
        if (st != OK) break;
        st = take(a, &a->req, bytes_make(stream.p + *taken, a->req.size), ack_wanted);
        if (st != OK) break;
        *taken += a->req.size;
        if (gate_wanted(a->gate) || snapshot_budget_spent(a->node)) {
            gate_exit(a->gate);
            wait_for_snapshot(a);
            gate_enter(a->gate);
        }
    }
    gate_exit(a->gate);
    if (st == E_CORRUPT) log_warning("The primary's stream is not valid: %s", a->parser.error);
    return st == E_AGAIN ? OK : st;
}
