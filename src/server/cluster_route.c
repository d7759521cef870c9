/* cluster_route.c: may this node execute a command on these keys, and if not, who may.
 *
 * The decision looks at published atomics only; the address of a redirection costs a mutex.  The keys' slot locks are
 * held, so what is decided stays true until the command is done: SETSLOT changes a slot under the same lock.
 * Source of the order of the checks: redis-server 7.0.15. */
#include "server/cluster_link.h"

#include "cluster/cluster.h"

enum route {
    ROUTE_SERVE,
    ROUTE_UNASSIGNED,
    ROUTE_CROSSSLOT,
    ROUTE_DOWN,
    ROUTE_DOWN_FOR_WRITES,
    ROUTE_TRYAGAIN,
    ROUTE_ASK,
    ROUTE_MOVED,
};

struct request {
    const struct node *node;
    const struct key *keys;
    size_t n;
    int db;
    bool write, asking, readonly, is_migrate;
    bool cross_slot; /* CLIENT CROSSSLOT */
    bool locked;     /* the keys' slots: only then can be seen which keys are there */
};

/* Keys whose time is over but that nobody has deleted yet are there. */
static size_t count_missing(const struct request *r)
{
    size_t missing = 0;
    for (size_t i = 0; i < r->n; i++) missing += store_find(r->node->store, r->db, &r->keys[i]) == NULL;
    return missing;
}

static bool same_key_only(const struct request *r)
{
    for (size_t i = 1; i < r->n; i++)
        if (!bytes_eq(r->keys[i].name, r->keys[0].name)) return false;
    return true;
}

static enum route decide_moving(const struct request *r, bool migrating)
{
    if (r->is_migrate || !r->locked) return ROUTE_SERVE;
    size_t missing = count_missing(r);
    if (migrating) return missing == 0 ? ROUTE_SERVE : missing < r->n ? ROUTE_TRYAGAIN : ROUTE_ASK;
    return missing && !same_key_only(r) ? ROUTE_TRYAGAIN : ROUTE_SERVE;
}

/* Keys of several slots: this node serves all of them and none is on its way.  What is on its way arrives soon, and
 * then the keys are of several nodes. */
static enum route decide_several(const struct request *r)
{
    const struct cluster *cluster = r->node->cluster;
    enum route result = ROUTE_SERVE;
    bool reads_here = r->readonly && !r->write && !cluster_i_am_primary(cluster);
    for (size_t i = 0; i < r->n; i++) {
        unsigned state = cluster_slot_state(cluster, r->keys[i].slot);
        if (!(state & SLOT_MINE) && !(reads_here && state & SLOT_OF_MY_PRIMARY))
            return i ? ROUTE_CROSSSLOT : ROUTE_MOVED;
        if (state & (SLOT_MIGRATING | SLOT_IMPORTING)) result = ROUTE_TRYAGAIN;
    }
    return result;
}

static enum route decide(const struct request *r)
{
    const struct cluster *cluster = r->node->cluster;
    unsigned slot = r->keys[0].slot;
    unsigned state = cluster_slot_state(cluster, slot);
    if (!(state & SLOT_ASSIGNED)) return ROUTE_UNASSIGNED;
    bool several = false;
    for (size_t i = 1; i < r->n; i++) several |= r->keys[i].slot != slot;
    if (several && (!r->cross_slot || r->is_migrate)) return ROUTE_CROSSSLOT;
    if (!cluster_is_ok(cluster)) {
        if (!config_bool(r->node->config, CFG_CLUSTER_ALLOW_READS_WHEN_DOWN)) return ROUTE_DOWN;
        if (r->write) return ROUTE_DOWN_FOR_WRITES;
    }
    if (several) return decide_several(r);
    bool migrating = state & SLOT_MINE && state & SLOT_MIGRATING;
    bool importing = !migrating && state & SLOT_IMPORTING;
    if (migrating || (importing && (r->asking || r->is_migrate))) return decide_moving(r, migrating);
    if (r->readonly && !r->write && state & SLOT_OF_MY_PRIMARY && !cluster_i_am_primary(cluster)) return ROUTE_SERVE;
    return state & SLOT_MINE ? ROUTE_SERVE : ROUTE_MOVED;
}

static const char *endpoint_host(const struct node *n, const struct cluster_endpoint *e)
{
    switch (config_num(n->config, CFG_CLUSTER_PREFERRED_ENDPOINT_TYPE)) {
    case ENDPOINT_HOSTNAME: return e->hostname[0] ? e->hostname : "?";
    case ENDPOINT_UNKNOWN: return "";
    default: return e->ip;
    }
}

static void redirect(struct node *n, struct call *call, const char *code, unsigned slot, bool to_target)
{
    struct cluster_endpoint e;
    if (!cluster_slot_endpoint(n->cluster, slot, to_target, &e)) {
        /* The map has changed since the decision; the client's next try will see the new one. */
        call_reject(call, "TRYAGAIN Multiple keys request during rehashing of slot");
        return;
    }
    /* With a TLS bus a node's first port is its TLS port, and the second the plaintext one. */
    bool pport = config_bool(n->config, CFG_TLS_CLUSTER) && !call_conn(call)->takes_tls_ports && e.pport;
    call_reject(call, "%s %u %s:%u", code, slot, endpoint_host(n, &e), pport ? e.pport : e.port);
}

static void refuse(struct node *n, struct call *call, enum route route, unsigned slot)
{
    switch (route) {
    case ROUTE_SERVE: break;
    case ROUTE_UNASSIGNED: call_reject(call, "CLUSTERDOWN Hash slot not served"); break;
    case ROUTE_CROSSSLOT: call_reject(call, CROSSSLOT_ERROR); break;
    case ROUTE_DOWN: call_reject(call, "CLUSTERDOWN The cluster is down"); break;
    case ROUTE_DOWN_FOR_WRITES:
        call_reject(call, "CLUSTERDOWN The cluster is down and only accepts read commands");
        break;
    case ROUTE_TRYAGAIN: call_reject(call, "TRYAGAIN Multiple keys request during rehashing of slot"); break;
    case ROUTE_ASK: redirect(n, call, "ASK", slot, true); break;
    case ROUTE_MOVED: redirect(n, call, "MOVED", slot, false); break;
    }
}

/* A shard channel is served wherever its slot is, by the primary and by its replicas, also while the slot moves. */
static enum route decide_channel(const struct node *n, unsigned slot, bool asking)
{
    unsigned state = cluster_slot_state(n->cluster, slot);
    if (!(state & SLOT_ASSIGNED)) return ROUTE_UNASSIGNED;
    if (!cluster_is_ok(n->cluster) && !config_bool(n->config, CFG_CLUSTER_ALLOW_PUBSUBSHARD_WHEN_DOWN))
        return ROUTE_DOWN;
    if (state & SLOT_MINE || (state & SLOT_IMPORTING && asking)) return ROUTE_SERVE;
    return state & SLOT_OF_MY_PRIMARY && !cluster_i_am_primary(n->cluster) ? ROUTE_SERVE : ROUTE_MOVED;
}

bool cluster_route_channels(struct conn *c, struct call *call)
{
    struct node *n = c->worker->node;
    enum command_id id = (enum command_id)call->cmd->id;
    bool shard = id == CMD_ID_SSUBSCRIBE || id == CMD_ID_SUNSUBSCRIBE || id == CMD_ID_SPUBLISH;
    if (!n->cluster || !shard || call->argc < 2) return true;
    size_t end = id == CMD_ID_SPUBLISH ? 2 : call->argc;
    unsigned slot = key_slot(call->argv[1]);
    enum route what = decide_channel(n, slot, c->asking);
    for (size_t i = 2; i < end && what != ROUTE_UNASSIGNED; i++)
        if (key_slot(call->argv[i]) != slot) what = ROUTE_CROSSSLOT;
    refuse(n, call, what, slot);
    return what == ROUTE_SERVE;
}

static bool route(struct conn *c, struct call *call, const struct key *keys, size_t n, bool write, bool locked)
{
    struct node *node = c->worker->node;
    struct request r = {.node = node,
                        .keys = keys,
                        .n = n,
                        .db = call->db,
                        .write = write,
                        .asking = c->asking || call->cmd->flags & CMD_ASKING,
                        .readonly = c->readonly,
                        .is_migrate = call->cmd->id == CMD_ID_MIGRATE,
                        .cross_slot = c->cross_slot,
                        .locked = locked};
    enum route what = n ? decide(&r) : ROUTE_SERVE;
    refuse(node, call, what, n ? keys[0].slot : 0);
    return what == ROUTE_SERVE;
}

bool cluster_route(struct conn *c, struct call *call, const struct key *keys, size_t n, bool write)
{
    return route(c, call, keys, n, write, true);
}

bool cluster_route_unlocked(struct conn *c, struct call *call, const struct key *keys, size_t n, bool write)
{
    return route(c, call, keys, n, write, false);
}

const char *cluster_script_objection(struct conn *c, const struct call *call, const struct key *keys, size_t n,
                                     bool write)
{
    struct request r = {.node = c->worker->node,
                        .keys = keys,
                        .n = n,
                        .write = write,
                        .asking = c->asking,
                        .readonly = c->readonly,
                        .is_migrate = call->cmd->id == CMD_ID_MIGRATE,
                        .cross_slot = c->cross_slot};
    switch (n ? decide(&r) : ROUTE_SERVE) {
    case ROUTE_SERVE: return NULL;
    case ROUTE_DOWN_FOR_WRITES:
        return "ERR Script attempted to execute a write command while the cluster is down and readonly";
    case ROUTE_DOWN: return "ERR Script attempted to execute a command while the cluster is down";
    default: return "ERR Script attempted to access a non local key in a cluster node";
    }
}

bool cluster_serves_all(const struct conn *c)
{
    const struct cluster *cluster = c->worker->node->cluster;
    for (unsigned slot = 0; slot < SLOT_COUNT; slot++) {
        unsigned state = cluster_slot_state(cluster, slot);
        if (!(state & SLOT_MINE) || state & (SLOT_MIGRATING | SLOT_IMPORTING)) return false;
    }
    return true;
}

bool cluster_keeps_slot(const struct node *n, unsigned slot)
{
    unsigned state = n->cluster ? cluster_slot_state(n->cluster, slot) : SLOT_MINE;
    return state & SLOT_MINE && !(state & (SLOT_MIGRATING | SLOT_IMPORTING));
}
