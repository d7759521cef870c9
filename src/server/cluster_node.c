/* cluster_node.c: carries out in the data node what its cluster decides, and tells the cluster what the node knows. */
#include "server/cluster_node.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cluster/cluster.h"
#include "replica/replica.h"
#include "server/beside.h"
#include "server/last_writes.h"
#include "server/listen.h"
#include "server/pubsub.h"
#include "server/replication.h"
#include "server/tracking.h"

#include <stdio.h>
#include <unistd.h>

enum { SEAL_WAIT_MS = 100, STAND_INSTEAD_MAX = 3, STAND_AS_MEMBER_MAX = 24 };

/* Acts go through the main thread's mailbox: in order, and off the cluster's thread. */
struct act_mail {
    struct mail mail;
    struct node *node;
    struct cluster_act *act;
};

/* ---- acts: on the main thread ---- */

/* Deletes a slot's keys and tells the replicas, with the server at rest. */
struct deletion {
    struct node *node;
    struct buf effects;
    unsigned count;
};

static void delete_effect(void *ctx, struct entry *e)
{
    struct deletion *d = ctx;
    resp_request_begin(&d->effects, 2);
    resp_request_arg(&d->effects, BYTES("DEL"));
    resp_request_arg(&d->effects, entry_key(e));
    d->count++;
}

/* The lock is for a load, which goes on beside the gate. */
static void detach_slot(struct node *n, int db, unsigned slot)
{
    slot_lock(n->store, slot);
    struct table *t = store_detach_slot(n->store, db, slot);
    slot_unlock(n->store, slot);
    reaper_free_tables(n->reaper, &t, 1);
}

static void delete_slot(struct node *n, int db, unsigned slot)
{
    struct deletion d = {.node = n};
    if (store_slot_count(n->store, db, slot) == 0) return;
    if (change_log_active(n->log) && !data_node_is_replica(n)) {
        uint64_t cursor = 0;
        do cursor = store_scan_slot(n->store, db, slot, cursor, delete_effect, &d);
        while (cursor);
        /* Each DEL stands by itself. */
        if (d.count) last_writes_note(n, slot, change_append(n->log, db, buf_bytes(&d.effects), 1, db));
        buf_deinit(&d.effects);
    }
    detach_slot(n, db, slot);
}

static void delete_slots(struct node *n, const uint8_t *slots)
{
    gate_close(n->gate);
    store_walks_stop(n->store);
    for (unsigned s = cluster_bit_next(slots, 0); s < SLOT_COUNT; s = cluster_bit_next(slots, s + 1))
        for (int db = 0; db < store_databases(n->store); db++) delete_slot(n, db, s);
    tracking_slots_gone(n, slots);
    store_walks_go(n->store);
    gate_open(n->gate);
}

static void flush(struct node *n)
{
    gate_close(n->gate);
    store_walks_stop(n->store);
    for (int db = 0; db < store_databases(n->store); db++)
        for (unsigned slot = 0; slot < SLOT_COUNT && store_db_count(n->store, db); slot++) detach_slot(n, db, slot);
    tracking_flushed(n);
    store_walks_go(n->store);
    gate_open(n->gate);
}

/* Everybody who had passed the check for a pause is through once the gate was closed. */
static void drain(struct node *n)
{
    gate_close(n->gate);
    gate_open(n->gate);
    cluster_paused(n->cluster);
}

static void carry_out(struct node *n, const struct cluster_act *a)
{
    switch (a->kind) {
    case CLUSTER_ACT_FOLLOW: replication_follow(n->replication, a->ip, a->port); break;
    case CLUSTER_ACT_PROMOTE:
        replication_promote(n->replication);
        if (a->until_ms) replication_expect_members(n->replication);
        replication_seal(n->replication, false);
        break;
    case CLUSTER_ACT_PAUSE: drain(n); break;
    case CLUSTER_ACT_UNPAUSE: node_pause_for_failover(n, 0); break;
    case CLUSTER_ACT_DELETE_KEYS: delete_slots(n, a->slots); break;
    case CLUSTER_ACT_FLUSH: flush(n); break;
    }
}

static void deliver_act(struct mail *m)
{
    struct act_mail *a = container_of(m, struct act_mail, mail);
    carry_out(a->node, a->act);
    mem_free(a->act);
    mem_free(a);
}

/* ---- the host: on the cluster's thread ---- */

static void host_act(void *ctx, struct cluster_act *act)
{
    struct node *n = ctx;
    struct act_mail *m = mem_alloc(sizeof *m);
    *m = (struct act_mail){{NULL, deliver_act}, n, act};
    loop_post(n->main_loop, &m->mail);
}

static void host_facts(void *ctx, struct cluster_facts *out)
{
    struct node *n = ctx;
    struct replication_facts f;
    replication_facts(n->replication, &f);
    int64_t now = clock_mono_ms();
    *out =
        (struct cluster_facts){.primary_offset = f.offset,
                               .applied_offset = f.offset,
                               .link_up = f.link_up,
                               .loading = false,
                               .last_interaction_ms = f.link_up ? now - f.data_age_ms : 0,
                               .link_down_since_ms = f.link_up || f.data_age_ms == INT64_MAX ? 0 : now - f.data_age_ms};
    if (f.is_replica || config_num(n->config, CFG_MIN_REPLICAS_TO_ACK) == 0) return;
    struct hub_ack acks[CLUSTER_MEMBERS_MAX];
    size_t count = replication_acks(n->replication, acks, CLUSTER_MEMBERS_MAX);
    for (size_t i = 0; i < count; i++) {
        if (!acks[i].node[0]) continue;
        memcpy(out->acks[out->ack_count].node.c, acks[i].node, CLUSTER_ID_SIZE);
        out->acks[out->ack_count++].offset = acks[i].offset;
    }
}

static void host_pause(void *ctx, int64_t until_ms)
{
    struct node *n = ctx;
    if (until_ms == 0) return; /* the act ends it, behind what was decided before */
    node_pause_for_failover(n, until_ms);
}

static void host_seal(void *ctx, bool sealed)
{
    struct node *n = ctx;
    replication_seal(n->replication, sealed);
    /* A batch under way ends at its next command; the votes that follow take far longer than this. */
    for (int64_t until = clock_mono_ms() + SEAL_WAIT_MS;
         sealed && replication_applying(n->replication) && clock_mono_ms() < until;)
        usleep(200);
}

static void host_probation(void *ctx, bool on)
{
    struct node *n = ctx;
    replication_refuse_sync(n->replication, on);
}

static void host_require(void *ctx, const struct cluster_required *required)
{
    replication_require(((struct node *)ctx)->replication, required);
}

static void host_lease_moved(void *ctx)
{
    const struct node *n = ctx;
    for (int i = 0; i < n->worker_count; i++)
        if (atomic_load(&n->workers[i]->wants_lease)) worker_poke(n->workers[i]);
}

static void host_deliver(void *ctx, bool shard, struct bytes channel, struct bytes payload)
{
    pubsub_publish(ctx, NULL, shard ? PUBSUB_SHARD : PUBSUB_CHANNEL, channel, payload);
}

static void host_slots_lost(void *ctx, const uint8_t *slots)
{
    pubsub_slots_lost(ctx, slots);
}

static void host_map_changed(void *ctx)
{
    beside_map_changed(ctx);
}

static void host_credentials(void *ctx, struct buf *user, struct buf *password)
{
    struct node *n = ctx;
    config_text(n->config, CFG_MASTERUSER, user);
    config_text(n->config, CFG_MASTERAUTH, password);
}

static int64_t host_sendbuf_limit(void *ctx)
{
    return config_num(((struct node *)ctx)->config, CFG_CLUSTER_LINK_SENDBUF_LIMIT);
}

static struct tls *host_tls(void *ctx)
{
    return network_tls(ctx, CFG_TLS_CLUSTER);
}

static void host_source(void *ctx, char out[NET_ADDRESS_MAX])
{
    struct node *n = ctx;
    struct buf text = {0};
    config_text(n->config, CFG_BIND_SOURCE_ADDR, &text);
    snprintf(out, NET_ADDRESS_MAX, "%.*s", (int)text.n, text.n ? text.p : "");
    buf_deinit(&text);
}

static uint64_t count_keys(void *ctx, unsigned slot)
{
    const struct store *s = ((struct node *)ctx)->store;
    uint64_t keys = 0;
    for (int db = 0; db < store_databases(s); db++) keys += store_slot_count(s, db, slot);
    return keys;
}

/* ---- configuration ---- */

static void copy_text(const struct config *cfg, enum config_id id, char *out, size_t room)
{
    char *text = config_cstr(cfg, id);
    snprintf(out, room, "%s", text);
    mem_free(text);
}

/* The port that the bus belongs to. */
static int64_t main_port(const struct config *cfg)
{
    return config_num(cfg, config_bool(cfg, CFG_TLS_CLUSTER) ? CFG_TLS_PORT : CFG_PORT);
}

/* With a TLS bus the TLS port is announced first. */
static void derive_ports(const struct config *cfg, struct cluster_config *out)
{
    int64_t announce = config_num(cfg, CFG_CLUSTER_ANNOUNCE_PORT),
            announce_tls = config_num(cfg, CFG_CLUSTER_ANNOUNCE_TLS_PORT);
    bool tls = config_bool(cfg, CFG_TLS_CLUSTER);
    out->port = (uint16_t)main_port(cfg);
    out->pport = tls ? (uint16_t)config_num(cfg, CFG_PORT) : 0;
    if (tls && announce_tls) {
        out->port = (uint16_t)announce_tls;
        out->pport = (uint16_t)announce;
    } else if (announce) {
        out->port = (uint16_t)announce;
    }
    out->follow_pport = tls && !config_bool(cfg, CFG_TLS_REPLICATION);
}

static void derive_config(struct node *n, struct cluster_config *out)
{
    const struct config *cfg = n->config;
    int64_t announce_bus = config_num(cfg, CFG_CLUSTER_ANNOUNCE_BUS_PORT);
    cluster_config_init(out);
    out->node_timeout_ms = config_num(cfg, CFG_CLUSTER_NODE_TIMEOUT);
    out->replica_validity_factor = (int)config_num(cfg, CFG_CLUSTER_REPLICA_VALIDITY_FACTOR);
    out->repl_ping_period_s = (int)config_num(cfg, CFG_REPL_PING_REPLICA_PERIOD);
    out->migration_barrier = (int)config_num(cfg, CFG_CLUSTER_MIGRATION_BARRIER);
    out->require_full_coverage = config_bool(cfg, CFG_CLUSTER_REQUIRE_FULL_COVERAGE);
    out->allow_replica_migration = config_bool(cfg, CFG_CLUSTER_ALLOW_REPLICA_MIGRATION);
    out->replica_no_failover = config_bool(cfg, CFG_CLUSTER_REPLICA_NO_FAILOVER);
    out->probation = true;
    out->min_replicas_to_ack = (int)config_num(cfg, CFG_MIN_REPLICAS_TO_ACK);
    out->ack_patience_ms = config_num(cfg, CFG_MIN_REPLICAS_TO_ACK_TIMEOUT) / 2;
    copy_text(cfg, CFG_CLUSTER_ANNOUNCE_IP, out->announce_ip, sizeof out->announce_ip);
    copy_text(cfg, CFG_CLUSTER_ANNOUNCE_HOSTNAME, out->announce_hostname, sizeof out->announce_hostname);
    derive_ports(cfg, out);
    out->cport = (uint16_t)(announce_bus ? announce_bus : n->cluster_state->bus_port);
    random_secure(&out->seed, sizeof out->seed);
    out->dataset = (struct cluster_dataset_view){count_keys, n};
}

static void apply_config(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    cluster_set_config(core, arg, now, out);
}

void cluster_node_reconfigure(struct node *n)
{
    struct cluster_config config;
    if (!n->cluster) return;
    derive_config(n, &config);
    cluster_run(n->cluster, apply_config, &config);
    cluster_set_node_timeout(n->cluster, config.node_timeout_ms);
}

/* ---- a primary that comes back with less than its replicas have ---- */

struct stand {
    bool refuse;
    uint64_t my_offset, offered;
    struct node *node;
};

static void consider_full_sync(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out,
                               void *arg)
{
    struct stand *s = arg;
    struct node *n = s->node;
    if (!cluster_follows_as_before(core) || s->offered >= s->my_offset) return;
    /* The primary offers again ten times a second: a new attempt would spoil the one that is under way. */
    s->refuse = cluster_is_standing(core);
    if (s->refuse || n->cluster_state->refusals >= (cluster_is_member(core) ? STAND_AS_MEMBER_MAX : STAND_INSTEAD_MAX))
        return;
    n->cluster_state->refusals++;
    s->refuse = true;
    struct cluster_error err;
    struct bytes mode = BYTES("FORCE");
    log_warning(
        "The primary came back with less than we have (offset %llu, ours is %llu): keeping our data and standing "
        "for its place",
        (unsigned long long)s->offered, (unsigned long long)s->my_offset);
    if (!cluster_failover(core, &mode, now, &err, out)) log_warning("Could not stand: %s", err.text);
}

/* Whatever it was a member with is replaced now. */
static void accept_or_stand(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    const struct stand *s = arg;
    consider_full_sync(core, now, out, arg);
    if (!s->refuse) cluster_membership_over(core);
}

static bool accept_full_sync(void *ctx, const char *id, uint64_t offset)
{
    struct node *n = ctx;
    struct stand s = {.my_offset = change_offset(n->log), .offered = offset, .node = n};
    (void)id;
    cluster_run(n->cluster, accept_or_stand, &s);
    return !s.refuse;
}

static void note_synced(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    (void)now, (void)out;
    cluster_note_synced(core);
    ((struct node *)arg)->cluster_state->refusals = 0;
}

static void copy_my_name(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    struct cluster_node_view v;
    (void)now;
    (void)out;
    cluster_node_view(core, cluster_myself(core), &v);
    memcpy(arg, v.id.c, CLUSTER_ID_SIZE);
}

static void my_name(void *ctx, char out[REPLID_LENGTH + 1])
{
    cluster_run(((struct node *)ctx)->cluster, copy_my_name, out);
    out[CLUSTER_ID_SIZE] = '\0';
}

static void synced(void *ctx)
{
    struct node *n = ctx;
    cluster_run(n->cluster, note_synced, n);
}

/* ---- life ---- */

bool cluster_node_create(struct node *n)
{
    int64_t port = main_port(n->config), bus = config_num(n->config, CFG_CLUSTER_PORT);
    struct cluster_config config;
    struct cluster_host host = {.ctx = n,
                                .act = host_act,
                                .facts = host_facts,
                                .pause = host_pause,
                                .seal = host_seal,
                                .probation = host_probation,
                                .require = host_require,
                                .lease_moved = host_lease_moved,
                                .deliver = host_deliver,
                                .slots_lost = host_slots_lost,
                                .map_changed = host_map_changed,
                                .credentials = host_credentials,
                                .sendbuf_limit = host_sendbuf_limit,
                                .tls = host_tls,
                                .source = host_source,
                                .bus_port = (int)(bus ? bus : port + 10000),
                                .socket_mark = (unsigned)config_num(n->config, CFG_SOCKET_MARK_ID)};
    if (port > 55535 && !bus) {
        log_warning("Redis port number too high for cluster mode. It must be 55535 or lower.");
        return false;
    }
    n->cluster_state = mem_calloc(1, sizeof *n->cluster_state);
    n->cluster_state->bus_port = host.bus_port;
    derive_config(n, &config);
    char *path = config_cstr(n->config, CFG_CLUSTER_CONFIG_FILE), *bind = config_cstr(n->config, CFG_BIND),
         *error = NULL;
    n->cluster = cluster_new(&config, path, bind, &host, &error);
    if (!n->cluster) log_warning("%s", error);
    mem_free(error);
    mem_free(path);
    mem_free(bind);
    replication_set_guard(n->replication, (struct replication_guard){n, accept_full_sync, my_name, synced});
    return n->cluster != NULL;
}

static bool is_empty(const struct store *s)
{
    for (int db = 0; db < store_databases(s); db++)
        if (store_db_count(s, db)) return false;
    return true;
}

static void ask_role(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    (void)now;
    (void)out;
    *(bool *)arg = cluster_is_primary(core);
}

bool cluster_node_start(struct node *n)
{
    for (int db = 1; node_has_one_database(n) && db < store_databases(n->store); db++) {
        if (store_db_count(n->store, db) == 0) continue;
        log_warning("You can't have keys in a DB different than DB 0 when in Cluster mode. Exiting.");
        return false;
    }
    struct replication_position at;
    struct change_id id;
    struct cluster_history restored = {0};
    replication_position(n->replication, &at);
    change_id_get(n->log, &id);
    /* Who starts with nothing has no history that replicas could be ahead of, whatever its new log is called. */
    if (at.offset || !is_empty(n->store)) memcpy(restored.replid.c, at.id, CLUSTER_ID_SIZE);
    restored.offset = (uint64_t)at.offset;
    if (id.second_offset > 0) {
        memcpy(restored.replid2.c, id.id2, CLUSTER_ID_SIZE);
        restored.offset2 = (uint64_t)id.second_offset;
    }
    /* What a primary writes from here on is none of what its replicas may have had of the old history meanwhile. */
    bool primary;
    cluster_run(n->cluster, ask_role, &primary);
    if (primary && change_log_active(n->log)) change_id_shift(n->log);
    cluster_run_threads(n->cluster, &restored);
    return true;
}

void cluster_node_stop(struct node *n)
{
    cluster_shut(n->cluster);
}
