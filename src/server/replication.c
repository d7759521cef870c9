/* replication.c: the node between its replicas (hub) and its primary (upstream), and the commands about both. */
#include "server/replication.h"
#include "server/affinity.h"
#include "server/beside.h"
#include "server/failover.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/number.h"
#include "change/durable.h"
#include "cluster/cluster.h"
#include "replica/replica.h"
#include "server/aof.h"
#include "server/applier.h"
#include "server/last_writes.h"
#include "server/listen.h"
#include "server/multi.h"
#include "server/oom.h"
#include "server/persistence.h"
#include "server/reply_gate.h"
#include "server/snapshot_budget.h"
#include "server/tracking.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct replication {
    struct node *node;
    struct hub *hub;
    struct upstream *upstream;
    struct applier *applier;
    _Atomic bool is_replica;
    _Atomic int link_state; /* enum upstream_state */
    _Atomic bool sealed, applying;
    pthread_mutex_t members_mu;      /* order: before the hub's */
    struct cluster_required members; /* under it */
    _Atomic int members_ready;       /* of them; -1: any replicas will do */
    _Atomic int64_t members_fell_ms; /* when that last fell, monotonic; 0: never */
    _Atomic bool refuse_sync;        /* on probation: replicas keep what they have */
    struct replication_guard guard;  /* set before the threads start */
};

/* ---- the hub's host ---- */

static void hub_limits_get(void *ctx, struct hub_limits *out)
{
    struct config *cfg = ((struct replication *)ctx)->node->config;
    struct output_limit limit;
    config_output_limit(cfg, OUTPUT_REPLICA, &limit);
    uint64_t backlog = (uint64_t)config_num(cfg, CFG_REPL_BACKLOG_SIZE);
    /* A limit below the backlog would drop replicas that could still be served from it. */
    if (limit.hard && limit.hard < backlog) limit.hard = backlog;
    *out = (struct hub_limits){.hard = limit.hard,
                               .soft = limit.soft,
                               .soft_seconds = limit.soft_seconds,
                               .timeout_ms = config_num(cfg, CFG_REPL_TIMEOUT) * 1000,
                               .ping_period_ms = config_num(cfg, CFG_REPL_PING_REPLICA_PERIOD) * 1000,
                               .max_lag_ms = config_num(cfg, CFG_MIN_REPLICAS_MAX_LAG) * 1000,
                               .backlog_ttl_s = config_num(cfg, CFG_REPL_BACKLOG_TTL),
                               .few_packets = config_bool(cfg, CFG_REPL_DISABLE_TCP_NODELAY)};
}

static struct cut *hub_snapshot(void *ctx, struct rdb_options *options, uint64_t *offset)
{
    struct replication *r = ctx;
    struct node *n = r->node;
    affinity_take(n->config, CFG_BGSAVE_CPULIST);
    /* A load goes on beside the gate, and half of it is nobody's dataset. */
    struct cut *cut = atomic_load(&n->loading) ? NULL : store_cut_begin(n->store);
    if (!cut) return NULL;
    if (!change_log_active(n->log)) {
        /* Nothing was recorded so far: the history that replicas may continue begins here. */
        change_id_new(n->log);
        change_log_activate(n->log);
        last_writes_begin(n);
    }
    struct replication_position at;
    change_id_told(n->log);
    if (!atomic_load(&r->is_replica)) change_reset_db(n->log);
    replication_position(r, &at);
    int64_t now = clock_wall_ms();
    *options = (struct rdb_options){.compress = config_bool(n->config, CFG_RDBCOMPRESSION),
                                    .checksum = config_bool(n->config, CFG_RDBCHECKSUM),
                                    .access = persistence_access_kind(n->config),
                                    .lru_clock = lru_clock_of(now),
                                    .lfu = {(uint32_t)config_num(n->config, CFG_LFU_LOG_FACTOR),
                                            (uint32_t)config_num(n->config, CFG_LFU_DECAY_TIME)},
                                    .now_ms = now,
                                    .used_memory = mem_used(),
                                    .has_repl = true,
                                    .repl_db = at.db,
                                    .repl_offset = at.offset,
                                    .extras = persistence_extras(n->persistence)};
    memcpy(options->repl_id, at.id, sizeof options->repl_id);
    *offset = change_offset(n->log);
    return cut;
}

static void node_directory(void *ctx, struct buf *out)
{
    config_text(((struct replication *)ctx)->node->config, CFG_DIR, out);
}

static bool hub_quiet(void *ctx)
{
    struct replication *r = ctx;
    return atomic_load(&r->is_replica) || atomic_load(&r->node->failover_pause_until) > clock_mono_ms();
}

static bool hub_hurried(void *ctx)
{
    return snapshot_budget_half_spent(((struct replication *)ctx)->node);
}

/* With members: what all of them have, if enough are ready. */
static size_t acks_of_members(const struct cluster_required *q, const struct hub_ack *acks, size_t n, uint64_t *out)
{
    uint64_t all = UINT64_MAX;
    for (size_t m = 0; m < q->count; m++) {
        uint64_t of_this = 0;
        for (size_t i = 0; i < n; i++)
            if (memcmp(acks[i].node, q->nodes[m].c, CLUSTER_ID_SIZE) == 0 && acks[i].offset > of_this)
                of_this = acks[i].offset;
        if (of_this < all) all = of_this;
    }
    for (size_t i = 0; i < q->ready; i++) out[i] = all;
    return q->ready;
}

/* Under one lock with the list of members: nothing is taken for acknowledged by all of a list that is not in force. */
static void count_acks(struct replication *r)
{
    struct hub_ack acks[DURABLE_REPLICAS_MAX];
    uint64_t offsets[DURABLE_REPLICAS_MAX];
    bool moved = false;
    pthread_mutex_lock(&r->members_mu);
    size_t n = hub_acks(r->hub, acks, DURABLE_REPLICAS_MAX);
    if (r->members.on)
        n = acks_of_members(&r->members, acks, n, offsets);
    else
        for (size_t i = 0; i < n; i++) offsets[i] = acks[i].offset;
    if (!atomic_load(&r->is_replica)) moved = durable_set_acked(r->node->durable, offsets, n);
    pthread_mutex_unlock(&r->members_mu);
    if (moved) reply_gate_moved(r->node);
}

/* -1: any replicas will do. */
static void note_ready(struct replication *r, int ready)
{
    int before = atomic_exchange(&r->members_ready, ready);
    if (before < 0 || ready >= before) return;
    atomic_store(&r->members_fell_ms, clock_mono_ms());
}

void replication_require(struct replication *r, const struct cluster_required *required)
{
    pthread_mutex_lock(&r->members_mu);
    r->members = *required;
    pthread_mutex_unlock(&r->members_mu);
    note_ready(r, required->on ? (int)required->ready : -1);
    count_acks(r);
}

void replication_expect_members(struct replication *r)
{
    atomic_store(&r->members_fell_ms, clock_mono_ms());
}

size_t replication_acks(struct replication *r, struct hub_ack *out, size_t max)
{
    return hub_acks(r->hub, out, max);
}

static void hub_acked(void *ctx)
{
    struct replication *r = ctx;
    struct node *n = r->node;
    if (atomic_load(&n->blocked_count)) node_post_workers(n, replication_check_waits);
    count_acks(r);
    failover_acked(n);
    int ready = atomic_load(&r->members_ready);
    if (n->cluster && ready >= 0 && ready < config_num(n->config, CFG_MIN_REPLICAS_TO_ACK)) cluster_poke(n->cluster);
}

/* The AOF tells where in which history the dataset stands. */
static void hub_moved(void *ctx)
{
    aof_poke(((struct replication *)ctx)->node->aof);
}

static void hub_sent(void *ctx)
{
    const struct node *n = ((struct replication *)ctx)->node;
    for (int i = 0; i < n->worker_count; i++)
        if (atomic_exchange(&n->workers[i]->wants_sent, false)) worker_poke(n->workers[i]);
}

/* ---- the upstream's host ---- */

static int64_t upstream_timeout(void *ctx)
{
    return config_num(((struct replication *)ctx)->node->config, CFG_REPL_TIMEOUT) * 1000;
}

static int upstream_port(void *ctx)
{
    struct config *cfg = ((struct replication *)ctx)->node->config;
    int64_t announced = config_num(cfg, CFG_REPLICA_ANNOUNCE_PORT);
    int64_t tls_port = config_bool(cfg, CFG_TLS_REPLICATION) ? config_num(cfg, CFG_TLS_PORT) : 0;
    return (int)(announced ? announced : tls_port ? tls_port : config_num(cfg, CFG_PORT));
}

static void upstream_node_name(void *ctx, char out[REPLID_LENGTH + 1])
{
    struct replication *r = ctx;
    out[0] = '\0';
    if (r->guard.name) r->guard.name(r->guard.ctx, out);
}

static void upstream_network(void *ctx, struct upstream_network *out)
{
    struct node *n = ((struct replication *)ctx)->node;
    out->tls = network_tls(n, CFG_TLS_REPLICATION);
    out->keepalive_s = (int)config_num(n->config, CFG_TCP_KEEPALIVE);
    struct buf source = {0};
    config_text(n->config, CFG_BIND_SOURCE_ADDR, &source);
    snprintf(out->source, sizeof out->source, "%.*s", (int)source.n, source.n ? source.p : "");
    buf_deinit(&source);
}

static void upstream_credentials(void *ctx, struct buf *user, struct buf *password, struct buf *announce_ip)
{
    struct config *cfg = ((struct replication *)ctx)->node->config;
    config_text(cfg, CFG_MASTERUSER, user);
    config_text(cfg, CFG_MASTERAUTH, password);
    config_text(cfg, CFG_REPLICA_ANNOUNCE_IP, announce_ip);
}

static bool upstream_accept(void *ctx, const char *id, uint64_t offset)
{
    struct replication *r = ctx;
    return !r->guard.accept_full_sync || r->guard.accept_full_sync(r->guard.ctx, id, offset);
}

static void detach_everything(struct node *n)
{
    store_walks_stop(n->store);
    for (int db = 0; db < store_databases(n->store); db++) {
        if (store_db_count(n->store, db) == 0) continue;
        for (unsigned slot = 0; slot < SLOT_COUNT; slot++) {
            struct table *t = store_detach_slot(n->store, db, slot);
            reaper_free_tables(n->reaper, &t, 1);
        }
    }
    store_walks_go(n->store);
}

static enum status upstream_load(void *ctx, const char *path, const char *id, uint64_t offset)
{
    struct replication *r = ctx;
    struct node *n = r->node;
    gate_close(n->gate);
    bool current = upstream_is_current(r->upstream);
    if (current) {
        persistence_save_cancel(n->persistence);
        aof_abandon(n->aof); /* begun anew with the new dataset, from the tick */
        atomic_store(&n->loading, true);
        watch_flushed(n, -1, -1, clock_wall_ms());
        tracking_flushed(n);
        detach_everything(n);
        change_log_restart(n->log, id, offset);
        hub_kill(r->hub, 0, NULL, NULL); /* our own replicas stand in a log that goes on no more */
    }
    gate_open(n->gate);
    if (!current) return E_CLOSED;
    int db = -1;
    enum status st = persistence_load_snapshot(n->persistence, path, &db);
    gate_close(n->gate);
    if (st == OK) {
        change_log_activate(n->log);
        change_set_selected_db(n->log, db);
        applier_reset(r->applier, db);
    } else {
        detach_everything(n); /* half a snapshot is nobody's dataset */
        change_id_new(n->log);
    }
    atomic_store(&n->loading, false);
    gate_open(n->gate);
    return st;
}

static void resume_at_rest(struct replication *r, const char *id)
{
    struct change_id mine;
    change_id_get(r->node->log, &mine);
    applier_reset(r->applier, change_selected_db(r->node->log));
    if (id && memcmp(mine.id, id, REPLID_LENGTH) != 0) {
        change_id_adopt(r->node->log, id);
        hub_kill(r->hub, 0, NULL, NULL);
    }
    change_log_activate(r->node->log);
}

/* At rest, because roles change there: who was promoted meanwhile must not take on its primary's id. */
static void upstream_resumed(void *ctx, const char *id)
{
    struct replication *r = ctx;
    gate_close(r->node->gate);
    if (upstream_is_current(r->upstream)) resume_at_rest(r, id);
    gate_open(r->node->gate);
}

/* Asked before each command, inside the gate. */
static bool may_apply(void *ctx)
{
    struct replication *r = ctx;
    return !atomic_load(&r->sealed) && upstream_is_current(r->upstream);
}

/* The log's memory is bounded: the stream waits where the disk cannot follow, or ends the process where that is asked
 * for. */
static void wait_for_disk(struct replication *r)
{
    const struct node *n = r->node;
    if (aof_write_error(n->aof) && !config_bool(n->config, CFG_REPLICA_IGNORE_DISK_WRITE_ERRORS)) {
        log_warning("Replica was unable to write command to disk.");
        _exit(1);
    }
    while (aof_is_congested(n->aof) && may_apply(r)) nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static enum status upstream_apply(void *ctx, struct bytes stream, size_t *taken, bool *ack_wanted)
{
    struct replication *r = ctx;
    wait_for_disk(r);
    atomic_store(&r->applying, true);
    enum status st = applier_run(r->applier, stream, taken, ack_wanted, may_apply, r);
    atomic_store(&r->applying, false);
    hub_flush(r->hub);
    aof_flush(r->node->aof);
    if (r->node->cluster) cluster_poke(r->node->cluster);
    /* Sealed is not over: what is left stays where it is until the election is decided. */
    return st == E_CLOSED && upstream_is_current(r->upstream) ? OK : st;
}

static void upstream_changed(void *ctx, enum upstream_state state)
{
    struct replication *r = ctx;
    atomic_store(&r->link_state, state);
    if (state == UPSTREAM_CONNECTED && r->guard.synced) r->guard.synced(r->guard.ctx);
    if (state == UPSTREAM_CONNECTED && r->node->cluster) cluster_poke(r->node->cluster);
    if (state == UPSTREAM_CONNECT) applier_reset(r->applier, change_selected_db(r->node->log));
}

static bool upstream_synced(void *ctx, uint64_t *offset)
{
    *offset = aof_synced_offset(((struct replication *)ctx)->node->aof);
    return *offset > 0;
}

static void upstream_handed_over(void *ctx, bool ok);

/* ---- life ---- */

struct replication *replication_create(struct node *n)
{
    struct replication *r = mem_calloc(1, sizeof *r);
    r->node = n;
    pthread_mutex_init(&r->members_mu, NULL);
    atomic_store(&r->members_ready, -1);
    r->applier = applier_create(n);
    r->hub = hub_create((struct hub_host){.ctx = r,
                                          .gate = n->gate,
                                          .log = n->log,
                                          .store = n->store,
                                          .limits = hub_limits_get,
                                          .snapshot = hub_snapshot,
                                          .directory = node_directory,
                                          .hurried = hub_hurried,
                                          .quiet = hub_quiet,
                                          .acked = hub_acked,
                                          .moved = hub_moved,
                                          .sent = hub_sent,
                                          .sync_full = &n->stats.sync_full,
                                          .sync_partial_ok = &n->stats.sync_partial_ok,
                                          .sync_partial_err = &n->stats.sync_partial_err});
    r->upstream = upstream_create((struct upstream_host){.ctx = r,
                                                         .log = n->log,
                                                         .timeout_ms = upstream_timeout,
                                                         .listening_port = upstream_port,
                                                         .node_name = upstream_node_name,
                                                         .network = upstream_network,
                                                         .credentials = upstream_credentials,
                                                         .directory = node_directory,
                                                         .accept_full_sync = upstream_accept,
                                                         .load = upstream_load,
                                                         .resumed = upstream_resumed,
                                                         .apply = upstream_apply,
                                                         .state_changed = upstream_changed,
                                                         .synced = upstream_synced,
                                                         .handed_over = upstream_handed_over});
    return r;
}

void replication_set_guard(struct replication *r, struct replication_guard guard)
{
    r->guard = guard;
}

void replication_start(struct replication *r)
{
    hub_start(r->hub);
    if (!atomic_load(&r->is_replica)) log_set_role('M');
    char *primary = config_cstr(r->node->config, CFG_REPLICAOF), *space = strchr(primary, ' ');
    if (space && !r->node->cluster) {
        *space = '\0';
        replication_follow(r, primary, atoi(space + 1));
    }
    mem_free(primary);
}

bool replication_is_replica(const struct replication *r)
{
    return atomic_load_explicit(&r->is_replica, memory_order_relaxed);
}

bool data_node_is_replica(const struct node *n)
{
    return replication_is_replica(n->replication);
}

bool replication_link_up(const struct replication *r)
{
    return atomic_load_explicit(&r->link_state, memory_order_relaxed) == UPSTREAM_CONNECTED;
}

bool replication_enough_replicas(const struct replication *r)
{
    const struct config *cfg = r->node->config;
    int64_t want = config_num(cfg, CFG_MIN_REPLICAS_TO_WRITE);
    if (want == 0 || atomic_load_explicit(&r->is_replica, memory_order_relaxed)) return true;
    return config_num(cfg, CFG_MIN_REPLICAS_MAX_LAG) == 0 || hub_good_replicas(r->hub) >= want;
}

/* Refused before it is executed is better than executed and not acknowledged; but a short absence is bridged. */
bool replication_enough_acks(const struct replication *r, int64_t replicas)
{
    if (atomic_load_explicit(&r->is_replica, memory_order_relaxed)) return true;
    int ready = atomic_load(&r->members_ready);
    if (replicas <= (ready < 0 ? hub_online(r->hub) : ready)) return true;
    int64_t fell = ready < 0 ? hub_fell_ms(r->hub) : atomic_load(&r->members_fell_ms);
    int64_t patience = config_num(r->node->config, CFG_MIN_REPLICAS_TO_ACK_TIMEOUT);
    return fell && change_log_active(r->node->log) && clock_mono_ms() - fell < patience;
}

uint64_t replication_flush(struct replication *r)
{
    return hub_flush(r->hub);
}

uint64_t replication_want_sent(struct replication *r)
{
    return hub_want_sent(r->hub);
}

void replication_want_acks(struct replication *r)
{
    hub_want_acks(r->hub);
}

void replication_seal(struct replication *r, bool sealed)
{
    atomic_store(&r->sealed, sealed);
}

bool replication_applying(const struct replication *r)
{
    return atomic_load(&r->applying);
}

void replication_refuse_sync(struct replication *r, bool refuse)
{
    atomic_store(&r->refuse_sync, refuse);
}

/* ---- roles; with the server at rest ---- */

static void follow_at_rest(struct replication *r, const char *host, int port, bool hand_over)
{
    bool was = atomic_exchange(&r->is_replica, true);
    log_set_role('S');
    oom_apply(r->node);
    if (!was) blocking_end_all(r->node);
    if (!was) reply_gate_fail_all(r->node);
    if (!was)
        log_notice("Before turning into a replica, using my own history to make a partial resynchronization possible");
    atomic_store(&r->link_state, UPSTREAM_CONNECT);
    if (hand_over)
        upstream_hand_over(r->upstream, host, port);
    else
        upstream_follow(r->upstream, host, port);
    char text[300];
    int n = snprintf(text, sizeof text, "%s %d", host, port);
    if (!r->node->cluster) config_force_text(r->node->config, CFG_REPLICAOF, bytes_make(text, (size_t)n));
    beside_role_changed(r->node);
}

void replication_promote_at_rest(struct replication *r)
{
    if (!atomic_load(&r->is_replica)) return;
    upstream_follow(r->upstream, "", 0);
    change_id_shift(r->node->log);
    durable_reset(r->node->durable);
    last_writes_begin(r->node); /* what the old primary had acknowledged is not known */
    atomic_store(&r->is_replica, false);
    atomic_store(&r->link_state, UPSTREAM_NONE);
    log_set_role('M');
    oom_apply(r->node);
    if (!r->node->cluster) config_force_text(r->node->config, CFG_REPLICAOF, BYTES(""));
    hub_kill(r->hub, 0, NULL, NULL); /* they come back and go on under the new id */
    beside_role_changed(r->node);
}

void replication_follow(struct replication *r, const char *host, int port)
{
    gate_close(r->node->gate);
    follow_at_rest(r, host, port, false);
    gate_open(r->node->gate);
}

void replication_promote(struct replication *r)
{
    gate_close(r->node->gate);
    replication_promote_at_rest(r);
    gate_open(r->node->gate);
}

void replication_hand_over(struct replication *r, const char *host, int port)
{
    gate_close(r->node->gate);
    follow_at_rest(r, host, port, true);
    gate_open(r->node->gate);
}

static void upstream_handed_over(void *ctx, bool ok)
{
    failover_answered(((struct replication *)ctx)->node, ok);
}

void replication_each_replica(struct replication *r, void (*visit)(void *ctx, const struct hub_replica *h), void *ctx)
{
    hub_each(r->hub, visit, ctx);
}

int replication_replica_count(const struct replication *r)
{
    return hub_replica_count(r->hub);
}

void replication_ask_ack(struct replication *r)
{
    hub_ask_ack(r->hub);
}

void replication_facts(const struct replication *r, struct replication_facts *out)
{
    struct upstream_info info;
    upstream_info_get(r->upstream, &info);
    int64_t now = clock_mono_ms();
    *out = (struct replication_facts){.is_replica = atomic_load(&r->is_replica),
                                      .link_up = info.state == UPSTREAM_CONNECTED,
                                      .loading = atomic_load(&r->node->loading),
                                      .syncing = info.state == UPSTREAM_SYNC,
                                      .offset = change_offset(r->node->log),
                                      .data_age_ms = INT64_MAX};
    if (info.state == UPSTREAM_CONNECTED)
        out->data_age_ms = now - info.last_io_ms;
    else if (info.ever_synced)
        out->data_age_ms = now - info.down_since_ms;
}

/* ---- positions in files ---- */

void replication_position(struct replication *r, struct replication_position *out)
{
    struct change_id id;
    change_id_get(r->node->log, &id);
    out->offset = (int64_t)change_offset(r->node->log);
    memcpy(out->id, change_id_known(&id, (uint64_t)out->offset), sizeof out->id);
    out->db = change_selected_db(r->node->log);
    if (out->db < 0 && !atomic_load(&r->is_replica)) out->db = 0;
}

void replication_restore(struct replication *r, const struct replication_position *p)
{
    /* Whoever had this history may go on from it: as a replica under its id, as a primary under a new one. */
    change_log_restart(r->node->log, p->id, (uint64_t)p->offset);
    if (config_text_is_empty(r->node->config, CFG_REPLICAOF) && !config_bool(r->node->config, CFG_CLUSTER_ENABLED))
        change_id_shift(r->node->log);
    change_log_activate(r->node->log);
    change_set_selected_db(r->node->log, p->db);
    last_writes_begin(r->node);
}

/* ---- WAIT ---- */

/* WAITAOF: whether this node's own disk has it. */
static bool is_synced_here(const struct conn *c, uint64_t offset)
{
    const struct aof *a = c->worker->node->aof;
    return aof_is_on(a) && aof_synced_offset(a) >= offset;
}

static void sleep_in_wait(struct conn *c, uint64_t offset, int64_t local, int64_t replicas, int64_t timeout_ms)
{
    c->wait = WAIT_REPLICAS;
    c->wait_offset = offset;
    c->wait_replicas = replicas;
    c->wait_local = (int8_t)local;
    c->wait_unblocked = UNBLOCK_NO;
    c->wait_deadline_ms = timeout_ms ? c->worker->now_mono_ms + timeout_ms : INT64_MAX;
    list_push_back(&c->worker->waits, &c->waiting_link);
    atomic_fetch_add(&c->worker->node->blocked_count, 1);
    if (replicas) hub_ask_ack(c->worker->node->replication->hub);
}

static void reply_waitaof(struct resp_out *out, bool here, int replicas)
{
    resp_array(out, 2);
    resp_i64(out, here);
    resp_i64(out, replicas);
}

void cmd_waitaof(struct call *call)
{
    struct conn *c = call_conn(call);
    struct replication *r = c->worker->node->replication;
    int64_t local, replicas, timeout_ms;
    if (!call_arg_range(call, 1, 0, 1, &local, NULL)) return;
    if (!call_arg_range(call, 2, 0, INT64_MAX, &replicas, "ERR value is out of range, must be positive")) return;
    if (!call_arg_timeout_ms(call, 3, &timeout_ms)) return;
    if (atomic_load(&r->is_replica)) {
        resp_error(&call->out, "ERR WAITAOF cannot be used with replica instances. Please also note that writes to "
                               "replicas are just local and are not propagated.");
        return;
    }
    if (local && !config_bool(r->node->config, CFG_APPENDONLY)) {
        resp_error(&call->out, "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.");
        return;
    }
    uint64_t offset = change_offset(r->node->log); /* as in WAIT */
    bool here = is_synced_here(c, offset);
    int synced = hub_count_synced(r->hub, offset);
    if ((here >= local && synced >= replicas) || call->flags & CALL_IN_EXEC)
        reply_waitaof(&call->out, here, synced);
    else
        sleep_in_wait(c, offset, local, replicas, timeout_ms);
}

void cmd_wait(struct call *call)
{
    struct conn *c = call_conn(call);
    struct replication *r = c->worker->node->replication;
    int64_t replicas, timeout_ms;
    if (atomic_load(&r->is_replica)) {
        resp_error(&call->out,
                   "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if "
                   "a replica is configured to be writable (which is not the default) writes to replicas "
                   "are just local and are not propagated.");
        return;
    }
    if (!call_arg_i64(call, 1, &replicas, NULL)) return;
    if (!parse_i64(call->argv[2], &timeout_ms)) {
        resp_error(&call->out, "ERR timeout is not an integer or out of range");
        return;
    }
    if (timeout_ms < 0) {
        resp_error(&call->out, "ERR timeout is negative");
        return;
    }
    /* As in Redis, what was written before the connection's last command, by whomever: its own writes or what it has
     * seen of others'.  That was a moment ago; now is a little more. */
    uint64_t offset = change_offset(r->node->log);
    int acked = hub_count_acked(r->hub, offset);
    if (acked >= replicas || call->flags & CALL_IN_EXEC) {
        resp_i64(&call->out, acked);
        return;
    }
    sleep_in_wait(c, offset, -1, replicas, timeout_ms);
}

void replication_check_waits(struct worker *w)
{
    struct replication *r = w->node->replication;
    list_each(it, &w->waits)
    {
        struct conn *c = container_of(it, struct conn, waiting_link);
        bool disks = c->wait_local >= 0, here = disks && is_synced_here(c, c->wait_offset);
        int acked = disks ? hub_count_synced(r->hub, c->wait_offset) : hub_count_acked(r->hub, c->wait_offset);
        bool demoted = atomic_load(&r->is_replica), met = acked >= c->wait_replicas && here >= (c->wait_local > 0);
        if (!met && c->wait_deadline_ms > clock_mono_ms() && !demoted && !c->wait_unblocked) continue;
        list_remove(it);
        atomic_fetch_sub(&w->node->blocked_count, 1);
        struct resp_out out = conn_out(c);
        if (demoted)
            resp_error(&out,
                       "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)");
        else if (c->wait_unblocked == UNBLOCK_ERROR)
            resp_error(&out, "UNBLOCKED client unblocked via CLIENT UNBLOCK");
        else if (disks)
            reply_waitaof(&out, here, acked);
        else
            resp_i64(&out, acked);
        if (demoted) c->close_after_reply = true;
        conn_wants_write(c);
        conn_resume(c);
        return replication_check_waits(w); /* resuming may have changed the list */
    }
}

/* ---- commands ---- */

static struct replication *of(const struct call *c)
{
    return call_conn(c)->worker->node->replication;
}

void cmd_replicaof(struct call *c)
{
    struct replication *r = of(c);
    int64_t port = 0;
    if (r->node->cluster) {
        resp_error(&c->out, "ERR REPLICAOF not allowed in cluster mode.");
        return;
    }
    bool none = call_arg_is(c, 1, "no") && call_arg_is(c, 2, "one");
    if (!none && (!parse_i64(c->argv[2], &port) || port < 0 || port > 65535)) {
        resp_error(&c->out, "ERR Invalid master port");
        return;
    }
    if (!call_exclusive(c)) return;
    if (none) {
        replication_promote_at_rest(r);
        resp_ok(&c->out);
        return;
    }
    struct upstream_info info;
    upstream_info_get(r->upstream, &info);
    if (atomic_load(&r->is_replica) && info.port == port && bytes_ieq(c->argv[1], bytes_of(info.host))) {
        resp_status(&c->out, "OK Already connected to specified master");
        return;
    }
    char *host = bytes_dup_cstr(c->argv[1]);
    follow_at_rest(r, host, (int)port, false);
    mem_free(host);
    resp_ok(&c->out);
}

void cmd_slaveof(struct call *c)
{
    cmd_replicaof(c);
}

static void role_replica(void *ctx, const struct hub_replica *h)
{
    struct call *c = ctx;
    if (h->state[0] != 'o') return;
    c->dirty++; /* counts the elements; reset by the caller */
    resp_array(&c->out, 3);
    resp_bulk_cstr(&c->out, h->ip);
    resp_bulk_i64(&c->out, h->port);
    resp_bulk_i64(&c->out, (int64_t)h->ack_offset);
}

static const char *link_state_name(int state)
{
    static const char *const names[] = {"none", "connect", "connecting", "handshake", "sync", "connected"};
    return names[state];
}

void cmd_role(struct call *c)
{
    struct replication *r = of(c);
    if (atomic_load(&r->is_replica)) {
        struct upstream_info info;
        upstream_info_get(r->upstream, &info);
        resp_array(&c->out, 5);
        resp_bulk_cstr(&c->out, "slave");
        resp_bulk_cstr(&c->out, info.host);
        resp_i64(&c->out, info.port);
        resp_bulk_cstr(&c->out, link_state_name((int)info.state));
        resp_i64(&c->out, info.state == UPSTREAM_CONNECTED ? (int64_t)change_offset(r->node->log) : -1);
        return;
    }
    resp_array(&c->out, 3);
    resp_bulk_cstr(&c->out, "master");
    resp_i64(&c->out, (int64_t)change_offset(r->node->log));
    size_t mark = resp_defer(&c->out);
    hub_each(r->hub, role_replica, c);
    resp_defer_array(&c->out, mark, c->dirty);
    c->dirty = 0;
}

static struct hub_request *request_of(struct conn *c)
{
    if (!c->sync) c->sync = mem_calloc(1, sizeof(struct hub_request));
    return c->sync;
}

/* What a snapshot is to hold besides its head: "" nothing, "functions" the libraries.  False: an error was replied. */
static bool replconf_filter(struct call *c, struct hub_request *req, struct bytes text)
{
    struct resp_request words = {0};
    bool ok = resp_split_line(text, &words) == OK;
    if (!ok) resp_error(&c->out, "ERR Missing rdb-filter-only values");
    bool functions = false;
    for (size_t i = 0; ok && i < words.argc; i++) {
        struct bytes word = words.argv[i];
        functions = ok = bytes_ieq(word, BYTES("functions"));
        if (!ok) resp_errorf(&c->out, "ERR Unsupported rdb-filter-only option: %.*s", resp_shown(word), word.p);
    }
    req->no_keys = true;
    req->no_libraries = !functions;
    resp_request_deinit(&words);
    return ok;
}

/* One option of REPLCONF; false: an error was replied. */
static bool replconf_option(struct call *c, struct hub_request *req, struct bytes name, struct bytes value)
{
    int64_t n;
    if (bytes_ieq(name, BYTES("listening-port"))) {
        if (!parse_i64(value, &n)) {
            resp_error(&c->out, ERR_NOT_INTEGER);
            return false;
        }
        req->listening_port = (int)n;
    } else if (bytes_ieq(name, BYTES("ip-address"))) {
        if (value.n >= sizeof req->announced_ip) {
            resp_errorf(&c->out, "ERR REPLCONF ip-address provided by replica instance is too long: %zu bytes",
                        value.n);
            return false;
        }
        memcpy(req->announced_ip, value.p, value.n);
        req->announced_ip[value.n] = '\0';
    } else if (bytes_ieq(name, BYTES("capa"))) {
        if (bytes_ieq(value, BYTES("eof")))
            req->capa_eof = true;
        else if (bytes_ieq(value, BYTES("psync2")))
            req->capa_psync2 = true;
        else if (bytes_ieq(value, BYTES("batch-acks")))
            req->capa_acks = true;
        else if (value.n == 5 + REPLID_LENGTH && memcmp(value.p, "node:", 5) == 0)
            memcpy(req->node, value.p + 5, REPLID_LENGTH);
    } else if (bytes_ieq(name, BYTES("rdb-only"))) {
        if (!parse_i64(value, &n)) {
            resp_error(&c->out, ERR_NOT_INTEGER);
            return false;
        }
        req->rdb_only = n != 0;
    } else if (bytes_ieq(name, BYTES("rdb-filter-only"))) {
        return replconf_filter(c, req, value);
    } else {
        resp_errorf(&c->out, "ERR Unrecognized REPLCONF option: %.*s", resp_shown(name), name.p);
        return false;
    }
    return true;
}

void cmd_replconf(struct call *c)
{
    if (c->argc % 2 == 0) {
        resp_error(&c->out, ERR_SYNTAX);
        return;
    }
    for (size_t i = 1; i < c->argc; i += 2) {
        /* Acknowledgements of a connection that has not become a replica mean nothing, and are not answered. */
        if (call_arg_is(c, i, "ack") || call_arg_is(c, i, "getack")) return;
        if (!replconf_option(c, request_of(call_conn(c)), c->argv[i], c->argv[i + 1])) return;
    }
    resp_ok(&c->out);
}

/* The connection leaves its worker for good. */
static void hand_over(struct call *call, bool old_sync, struct bytes id, int64_t offset)
{
    struct conn *c = call_conn(call);
    struct replication *r = of(call);
    struct hub_request *req = request_of(c);
    req->old_sync = old_sync;
    snprintf(req->id, sizeof req->id, "%.*s", (int)id.n, id.p);
    req->offset = offset;
    req->client_id = c->id;
    snprintf(req->peer, sizeof req->peer, "%s", c->peer);
    struct bytes user = acl_user_name(c->user);
    snprintf(req->user, sizeof req->user, "%.*s", (int)user.n, user.p);
    log_notice("Replica %s asks for synchronization", c->peer);
    req->fd = conn_detach_fd(c, &req->tls);
    net_set_patient(req->fd, true);
    hub_add(r->hub, req);
    mem_free(req);
    c->sync = NULL;
    c->close_asap = true;
}

static bool may_sync(struct call *call)
{
    struct conn *c = call_conn(call);
    struct replication *r = of(call);
    if ((atomic_load(&r->is_replica) && !replication_link_up(r)) || atomic_load(&r->refuse_sync)) {
        resp_error(&call->out, "NOMASTERLINK Can't SYNC while not connected with my master");
        return false;
    }
    if (failover_in_progress(r->node)) {
        resp_error(&call->out, "NOMASTERLINK Can't SYNC while failing over");
        return false;
    }
    if (c->out.n > c->out_pos) {
        resp_error(&call->out, "ERR SYNC and PSYNC are invalid with pending output");
        return false;
    }
    return true;
}

/* Our primary asks us to take its role.  False: replied, or it will be asked again with the server at rest. */
static bool take_role(struct call *c)
{
    struct replication *r = of(c);
    struct change_id id;
    change_id_get(r->node->log, &id);
    if (!atomic_load(&r->is_replica)) {
        resp_error(&c->out, "ERR PSYNC FAILOVER can't be sent to a master.");
        return false;
    }
    if (!bytes_ieq(c->argv[1], bytes_of(id.id))) {
        resp_error(&c->out, "ERR PSYNC FAILOVER replid must match my replid.");
        return false;
    }
    if (!call_exclusive(c)) return false;
    log_notice("Failover request received for replid %s.", id.id);
    replication_promote_at_rest(r);
    return true;
}

void cmd_psync(struct call *c)
{
    int64_t offset;
    if (c->argc > 3 && call_arg_is(c, 3, "failover") && !take_role(c)) return;
    if (!call_arg_i64(c, 2, &offset, NULL)) return;
    if (may_sync(c)) hand_over(c, false, c->argv[1].n <= REPLID_LENGTH ? c->argv[1] : BYTES("?"), offset);
}

void cmd_sync(struct call *c)
{
    if (may_sync(c)) hand_over(c, true, BYTES("?"), -1);
}

/* ---- what others see ---- */

struct lines {
    struct buf *out;
    int n;
};

static void info_replica(void *ctx, const struct hub_replica *h)
{
    struct lines *l = ctx;
    buf_printf(l->out, "slave%d:ip=%s,port=%d,state=%s,offset=%llu,lag=%lld\r\n", l->n++, h->ip, h->port, h->state,
               (unsigned long long)h->ack_offset, (long long)h->lag_s);
}

static void info_of_link(struct replication *r, struct buf *out)
{
    struct upstream_info u;
    upstream_info_get(r->upstream, &u);
    int64_t now = clock_mono_ms();
    unsigned long long offset = change_offset(r->node->log);
    bool up = u.state == UPSTREAM_CONNECTED;
    buf_printf(out,
               "master_host:%s\r\nmaster_port:%d\r\nmaster_link_status:%s\r\nmaster_last_io_seconds_ago:%lld\r\n"
               "master_sync_in_progress:%d\r\nslave_read_repl_offset:%llu\r\nslave_repl_offset:%llu\r\n",
               u.host, u.port, up ? "up" : "down", up ? (long long)(now - u.last_io_ms) / 1000 : -1ll, u.syncing,
               offset, offset);
    if (u.syncing) {
        uint64_t left = u.sync_total > u.sync_read ? u.sync_total - u.sync_read : 0;
        buf_printf(out,
                   "master_sync_total_bytes:%lld\r\nmaster_sync_read_bytes:%llu\r\nmaster_sync_left_bytes:%lld\r\n"
                   "master_sync_perc:%.2f\r\nmaster_sync_last_io_seconds_ago:%lld\r\n",
                   u.sync_total ? (long long)u.sync_total : -1ll, (unsigned long long)u.sync_read,
                   u.sync_total ? (long long)left : -1ll,
                   u.sync_total ? (double)u.sync_read * 100 / (double)u.sync_total : 0.0,
                   (long long)(now - u.last_io_ms) / 1000);
    }
    if (!up)
        buf_printf(out, "master_link_down_since_seconds:%lld\r\n",
                   u.down_since_ms ? (long long)(now - u.down_since_ms) / 1000 : -1ll);
    struct config *cfg = r->node->config;
    buf_printf(out, "slave_priority:%lld\r\nslave_read_only:%d\r\nreplica_announced:%d\r\n",
               (long long)config_num(cfg, CFG_REPLICA_PRIORITY), config_bool(cfg, CFG_REPLICA_READ_ONLY),
               config_bool(cfg, CFG_REPLICA_ANNOUNCED));
}

void replication_info(struct replication *r, struct buf *out)
{
    bool replica = atomic_load(&r->is_replica);
    buf_printf(out, "role:%s\r\n", replica ? "slave" : "master");
    if (replica) info_of_link(r, out);
    if (replica && r->node->cluster)
        buf_printf(out, "synced_config_epoch:%llu\r\n", (unsigned long long)cluster_synced_epoch_now(r->node->cluster));
    buf_printf(out, "connected_slaves:%d\r\n", hub_replica_count(r->hub));
    if (config_num(r->node->config, CFG_MIN_REPLICAS_TO_WRITE) && config_num(r->node->config, CFG_MIN_REPLICAS_MAX_LAG))
        buf_printf(out, "min_slaves_good_slaves:%d\r\n", hub_good_replicas(r->hub));
    struct lines lines = {out, 0};
    hub_each(r->hub, info_replica, &lines);
    struct change_id id;
    struct change_window w;
    change_id_get(r->node->log, &id);
    change_window_get(r->node->log, &w);
    struct reply_gate_view held;
    reply_gate_view_get(r->node, &held);
    buf_printf(out,
               "master_failover_state:%s\r\nmaster_replid:%s\r\nmaster_replid2:%s\r\nmaster_repl_offset:%llu\r\n"
               "second_repl_offset:%lld\r\nrepl_backlog_active:%d\r\nrepl_backlog_size:%zu\r\n"
               "repl_backlog_first_byte_offset:%llu\r\nrepl_backlog_histlen:%llu\r\n"
               "held_replies:%d\r\nheld_replies_oldest_ms:%lld\r\nheld_replies_failed:%llu\r\n"
               "ack_members_ready:%d\r\n",
               failover_state(r->node), id.id, id.id2, (unsigned long long)change_offset(r->node->log),
               (long long)id.second_offset, w.active, w.size, (unsigned long long)w.first, (unsigned long long)w.length,
               held.held, held.oldest_ms ? (long long)(clock_mono_ms() - held.oldest_ms) : 0ll,
               (unsigned long long)held.timed_out, atomic_load(&r->members_ready));
    buf_printf(out, "sync_full_reasons:asked=%llu,history=%llu,diverged=%llu,backlog=%llu\r\n",
               (unsigned long long)hub_full_count(r->hub, HUB_FULL_ASKED),
               (unsigned long long)hub_full_count(r->hub, HUB_FULL_HISTORY),
               (unsigned long long)hub_full_count(r->hub, HUB_FULL_DIVERGED),
               (unsigned long long)hub_full_count(r->hub, HUB_FULL_BACKLOG));
}

static void list_replica(void *ctx, const struct hub_replica *h)
{
    struct lines *l = ctx;
    buf_printf(l->out,
               "id=%llu addr=%s laddr= fd=-1 name= age=%lld idle=0 flags=S db=0 sub=0 psub=0 ssub=0 multi=-1 qbuf=0 "
               "qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd=replconf "
               "user=%s redir=-1 resp=2\n",
               (unsigned long long)h->client_id, h->peer, (long long)h->age_s, h->user);
}

void replication_client_list(struct replication *r, struct buf *out, unsigned kinds)
{
    struct lines lines = {out, 0};
    if (kinds & LINK_REPLICAS) hub_each(r->hub, list_replica, &lines);
    if (!(kinds & LINK_PRIMARY) || !replication_link_up(r)) return;
    struct upstream_info u;
    upstream_info_get(r->upstream, &u);
    buf_printf(out,
               "id=0 addr=%s:%d laddr= fd=-1 name= age=0 idle=%lld flags=M db=0 sub=0 psub=0 ssub=0 multi=-1 qbuf=0 "
               "qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd=ping "
               "user=(superuser) redir=-1 resp=2\n",
               u.host, u.port, (long long)(clock_mono_ms() - u.last_io_ms) / 1000);
}

void replication_trim(struct replication *r, bool all)
{
    upstream_collect(r->upstream, all);
}

int replication_kill_links(struct replication *r, unsigned kinds, uint64_t id, const char *addr, const char *user)
{
    int n = 0;
    if (kinds & LINK_REPLICAS) n += hub_kill(r->hub, id, addr, user);
    if (kinds & LINK_PRIMARY && !id && !addr && !user && atomic_load(&r->is_replica) && upstream_cut(r->upstream)) n++;
    return n;
}
