/* cluster_commands.c: CLUSTER and its subcommands.
 *
 * What concerns the core runs on the cluster's thread while the worker waits; the reply is made there, in memory of its
 * own, because the core may be read nowhere else.  The cluster's thread takes no slot lock and not the gate, so a
 * worker may hold either while it waits: SETSLOT does, so that no command can run on a slot in mid hand-over. */
#include "server/cluster_replies.h"
#include "server/conn.h"

#include "base/number.h"
#include "cluster/cluster.h"

#include <inttypes.h>
#include <stdio.h>

/* One question to the core. */
struct ask {
    const struct call *call;
    struct cluster *cluster;
    int endpoint; /* cluster-preferred-endpoint-type */
    bool pport;   /* the client uses plaintext ports beside a TLS bus */
    uint8_t version;
    struct buf reply;
};

static struct node *node_of(struct call *call)
{
    return call_conn(call)->worker->node;
}

/* False: there is no cluster, and that was replied. */
static bool enabled(struct call *call)
{
    if (node_of(call)->cluster) return true;
    resp_error(&call->out, "ERR This instance has cluster support disabled");
    return false;
}

/* Runs fn beside the core and appends the reply it made. */
static void ask(struct call *call, cluster_fn *fn)
{
    struct node *n = node_of(call);
    struct ask a = {.call = call,
                    .cluster = n->cluster,
                    .endpoint = (int)config_num(n->config, CFG_CLUSTER_PREFERRED_ENDPOINT_TYPE),
                    .pport = config_bool(n->config, CFG_TLS_CLUSTER) && !call_conn(call)->takes_tls_ports,
                    .version = call->out.version};
    uint64_t saved = cluster_run(n->cluster, fn, &a);
    if (saved) call_conn(call)->worker->cluster_saved = saved; /* the reply waits for it at the end of the turn */
    resp_raw(&call->out, buf_bytes(&a.reply));
    buf_deinit(&a.reply);
}

static void ask_if_enabled(struct call *call, cluster_fn *fn)
{
    if (enabled(call)) ask(call, fn);
}

static struct resp_out reply_of(struct ask *a)
{
    return (struct resp_out){&a->reply, a->version};
}

static void reply_done(struct ask *a, bool ok, const struct cluster_error *err)
{
    struct resp_out out = reply_of(a);
    if (ok)
        resp_ok(&out);
    else
        resp_errorf(&out, "ERR %s", err->text);
}

static void reply_unknown_node(struct resp_out *out, struct bytes id)
{
    resp_errorf(out, "ERR Unknown node %.*s", (int)(id.n < 200 ? id.n : 200), id.p);
}

/* For subcommands with optional arguments, whose arity the table cannot tell. */
static bool argc_at_most(struct call *call, size_t max)
{
    if (call->argc <= max) return true;
    struct bytes sub = call->argv[1];
    resp_errorf(&call->out, "ERR unknown subcommand or wrong number of arguments for '%.*s'. Try CLUSTER HELP.",
                (int)(sub.n < 128 ? sub.n : 128), sub.p);
    return false;
}

/* ---- questions ---- */

static void myid_fn(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    struct ask *a = arg;
    struct resp_out reply = reply_of(a);
    struct cluster_node_view v;
    (void)now, (void)out;
    cluster_node_view(core, cluster_myself(core), &v);
    resp_bulk(&reply, bytes_make(v.id.c, CLUSTER_ID_SIZE));
}

void cmd_cluster_myid(struct call *call)
{
    ask_if_enabled(call, myid_fn);
}

static void myshardid_fn(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    struct ask *a = arg;
    struct resp_out reply = reply_of(a);
    struct cluster_node_view v;
    (void)now, (void)out;
    cluster_node_view(core, cluster_myself(core), &v);
    resp_bulk(&reply, bytes_make(v.shard.c, CLUSTER_ID_SIZE));
}

void cmd_cluster_myshardid(struct call *call)
{
    ask_if_enabled(call, myshardid_fn);
}

static void reply_text(struct ask *a, struct buf *text)
{
    struct resp_out reply = reply_of(a);
    resp_verbatim(&reply, "txt", buf_bytes(text));
    buf_deinit(text);
}

static void nodes_fn(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    struct buf text = {0};
    struct ask *a = arg;
    (void)out;
    cluster_render_nodes(core, now, a->pport, &text);
    reply_text(arg, &text);
}

void cmd_cluster_nodes(struct call *call)
{
    ask_if_enabled(call, nodes_fn);
}

static void info_fn(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    struct buf text = {0};
    (void)now, (void)out;
    cluster_render_info(core, &text);
    reply_text(arg, &text);
}

void cmd_cluster_info(struct call *call)
{
    ask_if_enabled(call, info_fn);
}

static void slots_fn(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    struct ask *a = arg;
    struct resp_out reply = reply_of(a);
    (void)now, (void)out;
    cluster_reply_slots(core, a->endpoint, a->pport, &reply);
}

void cmd_cluster_slots(struct call *call)
{
    ask_if_enabled(call, slots_fn);
}

static void shards_fn(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    struct ask *a = arg;
    struct resp_out reply = reply_of(a);
    (void)now, (void)out;
    cluster_reply_shards(core, a->endpoint,
                         config_bool(node_of((struct call *)(uintptr_t)a->call)->config, CFG_TLS_CLUSTER), &reply);
}

void cmd_cluster_shards(struct call *call)
{
    ask_if_enabled(call, shards_fn);
}

static void links_fn(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    struct ask *a = arg;
    struct resp_out reply = reply_of(a);
    (void)out;
    cluster_reply_links(a->cluster, core, now, &reply);
}

void cmd_cluster_links(struct call *call)
{
    ask_if_enabled(call, links_fn);
}

static void replicas_fn(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    struct ask *a = arg;
    struct resp_out reply = reply_of(a);
    struct bytes text = a->call->argv[2];
    struct cluster_id id;
    struct cluster_node_view v;
    const struct cluster_node *node = cluster_id_parse(text, &id) ? cluster_node_find(core, &id) : NULL;
    (void)out;
    if (!node) {
        reply_unknown_node(&reply, text);
        return;
    }
    cluster_node_view(core, node, &v);
    if (v.flags & CLUSTER_NODE_REPLICA) {
        resp_error(&reply, "ERR The specified node is not a master");
        return;
    }
    struct buf line = {0};
    resp_array(&reply, v.replica_count);
    for (size_t i = 0; i < v.replica_count; i++) {
        line.n = 0;
        cluster_render_node(core, cluster_node_replica_at(node, i), now, a->pport, &line);
        resp_bulk(&reply, buf_bytes(&line));
    }
    buf_deinit(&line);
}

void cmd_cluster_replicas(struct call *call)
{
    ask_if_enabled(call, replicas_fn);
}

void cmd_cluster_slaves(struct call *call)
{
    ask_if_enabled(call, replicas_fn);
}

static void failure_reports_fn(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out,
                               void *arg)
{
    struct ask *a = arg;
    struct resp_out reply = reply_of(a);
    struct cluster_error err;
    size_t count;
    (void)out;
    if (cluster_count_failure_reports(core, a->call->argv[2], &count, now, &err))
        resp_i64(&reply, (int64_t)count);
    else
        resp_errorf(&reply, "ERR %s", err.text);
}

void cmd_cluster_count_failure_reports(struct call *call)
{
    ask_if_enabled(call, failure_reports_fn);
}

void cmd_cluster_help(struct call *call)
{
    static const char *const lines[] = {
        "ADDSLOTS <slot> [<slot> ...]",
        "    Give this node slots that nobody has.",
        "ADDSLOTSRANGE <start slot> <end slot> [<start slot> <end slot> ...]",
        "    The same for ranges of slots, both ends included.",
        "BUMPEPOCH",
        "    Take the highest config epoch of the cluster for this node.",
        "COUNT-FAILURE-REPORTS <node-id>",
        "    How many nodes report that <node-id> has failed.",
        "COUNTKEYSINSLOT <slot>",
        "    How many keys this node holds in <slot>.",
        "DELSLOTS <slot> [<slot> ...]",
        "    Make this node forget who has these slots.",
        "DELSLOTSRANGE <start slot> <end slot> [<start slot> <end slot> ...]",
        "    The same for ranges of slots, both ends included.",
        "FAILOVER [FORCE|TAKEOVER]",
        "    Let this replica take the place of its master.",
        "FLUSHSLOTS",
        "    Take all slots from this node, which must be empty.",
        "FORGET <node-id>",
        "    Remove a node from the list of this node.",
        "GETKEYSINSLOT <slot> <count>",
        "    Names of up to <count> keys that this node holds in <slot>.",
        "INFO",
        "    The state of the cluster as this node sees it.",
        "KEYSLOT <key>",
        "    The slot that <key> belongs to.",
        "LINKS",
        "    The connections of the cluster bus with their buffers.",
        "MEET <ip> <port> [<bus-port>]",
        "    Introduce another node to this one.",
        "MYID",
        "    The id of this node.",
        "NODES",
        "    All known nodes, a line for each:",
        "    <id> <ip:port@bus-port> <flags> <master> <ping> <pong> <epoch> <link> <slot> ...",
        "REPLICAS <node-id>",
        "    The replicas of <node-id>, in the form of NODES.",
        "REPLICATE <node-id>",
        "    Make this node a replica of <node-id>.",
        "RESET [HARD|SOFT]",
        "    Leave the cluster (default: soft, the id is kept).",
        "SAVECONFIG",
        "    Write the file that holds the state of the cluster.",
        "SET-CONFIG-EPOCH <epoch>",
        "    Set the config epoch of a node that knows no other yet.",
        "SETSLOT <slot> (IMPORTING <node-id>|MIGRATING <node-id>|STABLE|NODE <node-id>)",
        "    Say who has a slot, or where it is moving.",
        "SHARDS",
        "    The shards with their slots and nodes.",
        "SLOTS",
        "    Ranges of slots with the nodes that serve them.",
    };
    if (enabled(call)) call_help(call, "CLUSTER", lines, sizeof lines / sizeof *lines);
}

/* ---- keys of a slot ---- */

void cmd_cluster_keyslot(struct call *call)
{
    if (enabled(call)) resp_i64(&call->out, key_slot(call->argv[2]));
}

void cmd_cluster_countkeysinslot(struct call *call)
{
    int64_t slot;
    if (!enabled(call) || !call_arg_i64(call, 2, &slot, NULL)) return;
    if (slot < 0 || slot >= SLOT_COUNT)
        resp_error(&call->out, "ERR Invalid slot");
    else
        resp_i64(&call->out, (int64_t)store_slot_count(call->env->store, call->db, (unsigned)slot));
}

struct key_walk {
    struct resp_out *out;
    int64_t left;
    size_t found;
};

static void walk_key(void *ctx, struct entry *e)
{
    struct key_walk *w = ctx;
    if (w->left == 0) return;
    resp_bulk(w->out, entry_key(e));
    w->left--;
    w->found++;
}

/* Whoever empties a slot that moves and has never selected a database knows of the first one only, as redis-cli does:
 * with the slot he would give away keys of the others that he has not moved, and the loser of a slot drops what it has
 * of it. */
static bool would_leave_keys_behind(struct call *call, unsigned slot)
{
    const struct conn *c = call_conn(call);
    const struct node *n = c->worker->node;
    if (call->db != 0 || c->selected_db || !(cluster_slot_state(n->cluster, slot) & SLOT_MIGRATING)) return false;
    for (int db = 1; db < store_databases(n->store); db++) {
        if (store_slot_count(n->store, db, slot) == 0) continue;
        resp_errorf(&call->out,
                    "ERR slot %u has keys in database %d too: SELECT it, move them as well, and SELECT 0 again", slot,
                    db);
        return true;
    }
    return false;
}

void cmd_cluster_getkeysinslot(struct call *call)
{
    int64_t slot, count;
    if (!enabled(call) || !call_arg_i64(call, 2, &slot, NULL) || !call_arg_i64(call, 3, &count, NULL)) return;
    if (slot < 0 || slot >= SLOT_COUNT || count < 0) {
        resp_error(&call->out, "ERR Invalid slot or number of keys");
        return;
    }
    /* A MIGRATE may have the slot for long: the connection waits for it, not the worker. */
    struct conn *c = call_conn(call);
    unsigned s = (unsigned)slot;
    bool lock = !(call->flags & CALL_EXCLUSIVE);
    if (lock && !dispatch_lock_slots(c, &s, 1)) return;
    if (store_slot_count(call->env->store, call->db, s) != 0 || !would_leave_keys_behind(call, s)) {
        struct key_walk w = {.out = &call->out, .left = count};
        size_t mark = resp_defer(&call->out);
        uint64_t cursor = 0;
        do {
            cursor = store_scan_slot(call->env->store, call->db, s, cursor, walk_key, &w);
        } while (cursor && w.left > 0);
        resp_defer_array(&call->out, mark, w.found);
    }
    if (lock) dispatch_unlock_slots(c, &s, 1);
}

/* ---- changes of the topology ---- */

static void meet_fn(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    struct ask *a = arg;
    const struct call *c = a->call;
    struct cluster_error err;
    reply_done(a, cluster_meet(core, c->argv[2], c->argv[3], c->argc > 4 ? &c->argv[4] : NULL, now, &err, out), &err);
}

void cmd_cluster_meet(struct call *call)
{
    if (enabled(call) && argc_at_most(call, 5)) ask(call, meet_fn);
}

static void forget_fn(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    struct ask *a = arg;
    struct cluster_error err;
    reply_done(a, cluster_forget(core, a->call->argv[2], now, &err, out), &err);
}

void cmd_cluster_forget(struct call *call)
{
    ask_if_enabled(call, forget_fn);
}

static void addslots_fn(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    struct ask *a = arg;
    struct cluster_error err;
    reply_done(a, cluster_add_slots(core, a->call->argv + 2, a->call->argc - 2, now, &err, out), &err);
}

void cmd_cluster_addslots(struct call *call)
{
    ask_if_enabled(call, addslots_fn);
}

static void delslots_fn(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    struct ask *a = arg;
    struct cluster_error err;
    reply_done(a, cluster_del_slots(core, a->call->argv + 2, a->call->argc - 2, now, &err, out), &err);
}

void cmd_cluster_delslots(struct call *call)
{
    ask_if_enabled(call, delslots_fn);
}

static void addslotsrange_fn(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    struct ask *a = arg;
    struct cluster_error err;
    reply_done(a, cluster_add_slot_ranges(core, a->call->argv + 2, a->call->argc - 2, now, &err, out), &err);
}

static void delslotsrange_fn(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    struct ask *a = arg;
    struct cluster_error err;
    reply_done(a, cluster_del_slot_ranges(core, a->call->argv + 2, a->call->argc - 2, now, &err, out), &err);
}

/* Bounds come in pairs. */
static void change_ranges(struct call *call, cluster_fn *fn)
{
    if (!enabled(call)) return;
    if (call->argc % 2)
        call_wrong_arity(call);
    else
        ask(call, fn);
}

void cmd_cluster_addslotsrange(struct call *call)
{
    change_ranges(call, addslotsrange_fn);
}

void cmd_cluster_delslotsrange(struct call *call)
{
    change_ranges(call, delslotsrange_fn);
}

/* ---- those that look at keys: with the server at rest, no key can come in between the look and the change ---- */

static void flushslots_fn(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    struct cluster_error err;
    reply_done(arg, cluster_flush_slots(core, now, &err, out), &err);
}

void cmd_cluster_flushslots(struct call *call)
{
    if (enabled(call) && call_exclusive(call)) ask(call, flushslots_fn);
}

static void replicate_fn(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    struct ask *a = arg;
    struct cluster_error err;
    reply_done(a, cluster_replicate(core, a->call->argv[2], now, &err, out), &err);
}

void cmd_cluster_replicate(struct call *call)
{
    if (enabled(call) && call_exclusive(call)) ask(call, replicate_fn);
}

static void reset_fn(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    struct ask *a = arg;
    struct cluster_error err;
    bool hard = a->call->argc > 2 && call_arg_is(a->call, 2, "hard");
    reply_done(a, cluster_reset(core, hard, now, &err, out), &err);
}

void cmd_cluster_reset(struct call *call)
{
    if (!enabled(call) || !argc_at_most(call, 3)) return;
    if (call->argc > 2 && !call_arg_is(call, 2, "hard") && !call_arg_is(call, 2, "soft")) {
        resp_error(&call->out, ERR_SYNTAX);
        return;
    }
    if (call_exclusive(call)) ask(call, reset_fn);
}

static void setslot_fn(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    struct ask *a = arg;
    const struct call *c = a->call;
    struct cluster_error err;
    /* More arguments than any action has are told as an action that does not exist, like redis-server does. */
    struct bytes action = c->argc > 5 ? BYTES("") : c->argv[3];
    const struct bytes *id = c->argc == 5 ? &c->argv[4] : NULL;
    reply_done(a, cluster_set_slot(core, c->argv[2], action, id, now, &err, out), &err);
}

void cmd_cluster_setslot(struct call *call)
{
    int64_t slot;
    if (!enabled(call)) return;
    bool lock = !(call->flags & CALL_EXCLUSIVE) && parse_i64(call->argv[2], &slot) && slot >= 0 && slot < SLOT_COUNT;
    unsigned s = lock ? (unsigned)slot : 0;
    if (lock && !dispatch_lock_slots(call_conn(call), &s, 1)) return;
    ask(call, setslot_fn);
    if (lock) dispatch_unlock_slots(call_conn(call), &s, 1);
}

/* ---- roles, epochs, the file ---- */

static void failover_fn(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    struct ask *a = arg;
    struct cluster_error err;
    reply_done(a, cluster_failover(core, a->call->argc > 2 ? &a->call->argv[2] : NULL, now, &err, out), &err);
}

void cmd_cluster_failover(struct call *call)
{
    if (enabled(call) && argc_at_most(call, 3)) ask(call, failover_fn);
}

static void bumpepoch_fn(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    struct ask *a = arg;
    struct resp_out reply = reply_of(a);
    struct cluster_error err;
    char text[48];
    bool bumped;
    uint64_t epoch;
    if (!cluster_bump_epoch(core, &bumped, &epoch, now, &err, out)) {
        reply_done(a, false, &err);
        return;
    }
    snprintf(text, sizeof text, "%s %" PRIu64, bumped ? "BUMPED" : "STILL", epoch);
    resp_status(&reply, text);
}

void cmd_cluster_bumpepoch(struct call *call)
{
    ask_if_enabled(call, bumpepoch_fn);
}

static void set_config_epoch_fn(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out,
                                void *arg)
{
    struct ask *a = arg;
    struct cluster_error err;
    reply_done(a, cluster_set_config_epoch(core, a->call->argv[2], now, &err, out), &err);
}

void cmd_cluster_set_config_epoch(struct call *call)
{
    ask_if_enabled(call, set_config_epoch_fn);
}

static void saveconfig_fn(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    cluster_save(core, now, out);
    reply_done(arg, true, NULL);
}

/* A write that fails ends the process (see bus.c), so there is no error to reply. */
void cmd_cluster_saveconfig(struct call *call)
{
    ask_if_enabled(call, saveconfig_fn);
}
