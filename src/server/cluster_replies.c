/* cluster_replies.c: CLUSTER SLOTS, SHARDS and LINKS.  Fields and their order are those of redis-server 7.0.15. */
#include "server/cluster_replies.h"

#include "base/mem.h"
#include "server/config.h"

static struct bytes id_text(const struct cluster_id *id)
{
    return bytes_make(id->c, CLUSTER_ID_SIZE);
}

/* ---- SLOTS ---- */

static void slots_endpoint(const struct cluster_node_view *v, int endpoint, struct resp_out *out)
{
    if (endpoint == ENDPOINT_IP)
        resp_bulk_cstr(out, v->ip);
    else if (endpoint == ENDPOINT_HOSTNAME)
        resp_bulk_cstr(out, v->hostname[0] ? v->hostname : "?");
    else
        resp_null(out);
}

/* What else is known of where the node is. */
static void slots_metadata(const struct cluster_node_view *v, int endpoint, struct resp_out *out)
{
    bool ip = endpoint != ENDPOINT_IP, hostname = endpoint != ENDPOINT_HOSTNAME && v->hostname[0];
    resp_map(out, (size_t)ip + hostname);
    if (ip) {
        resp_bulk_cstr(out, "ip");
        resp_bulk_cstr(out, v->ip);
    }
    if (hostname) {
        resp_bulk_cstr(out, "hostname");
        resp_bulk_cstr(out, v->hostname);
    }
}

static void slots_node(const struct cluster_node_view *v, int endpoint, bool pport, struct resp_out *out)
{
    resp_array(out, 4);
    slots_endpoint(v, endpoint, out);
    resp_i64(out, pport && v->pport ? v->pport : v->port);
    resp_bulk(out, id_text(&v->id));
    slots_metadata(v, endpoint, out);
}

/* Failed replicas, and those without data as far as is known, are nothing for clients. */
static bool replica_is_usable(const struct cluster_node_view *v)
{
    return !(v->flags & CLUSTER_NODE_FAIL) && v->offset != 0;
}

static void slots_range(const struct cluster_core *core, const struct cluster_node *owner, unsigned first,
                        unsigned last, int endpoint, bool pport, struct resp_out *out)
{
    struct cluster_node_view v, replica;
    cluster_node_view(core, owner, &v);
    size_t elements = 3, mark = resp_defer(out);
    resp_i64(out, first);
    resp_i64(out, last);
    slots_node(&v, endpoint, pport, out);
    for (size_t i = 0; i < v.replica_count; i++) {
        cluster_node_view(core, cluster_node_replica_at(owner, i), &replica);
        if (!replica_is_usable(&replica)) continue;
        slots_node(&replica, endpoint, pport, out);
        elements++;
    }
    resp_defer_array(out, mark, elements);
}

void cluster_reply_slots(const struct cluster_core *core, int endpoint, bool pport, struct resp_out *out)
{
    size_t ranges = 0, mark = resp_defer(out);
    for (unsigned first = 0; first < SLOT_COUNT;) {
        const struct cluster_node *owner = cluster_slot_owner(core, first);
        unsigned last = first;
        while (last + 1 < SLOT_COUNT && cluster_slot_owner(core, last + 1) == owner) last++;
        if (owner) {
            slots_range(core, owner, first, last, endpoint, pport, out);
            ranges++;
        }
        first = last + 1;
    }
    resp_defer_array(out, mark, ranges);
}

/* ---- SHARDS ---- */

static const char *shards_endpoint(const struct cluster_node_view *v, int endpoint)
{
    if (endpoint == ENDPOINT_IP) return v->ip;
    if (endpoint == ENDPOINT_HOSTNAME) return v->hostname[0] ? v->hostname : "?";
    return "";
}

static void field(struct resp_out *out, const char *name, const char *value)
{
    resp_bulk_cstr(out, name);
    resp_bulk_cstr(out, value);
}

static void shards_node(const struct cluster_core *core, const struct cluster_node *node, int endpoint, bool tls_bus,
                        struct resp_out *out)
{
    struct cluster_node_view v;
    cluster_node_view(core, node, &v);
    bool replica = v.flags & CLUSTER_NODE_REPLICA;
    const char *health = v.flags & CLUSTER_NODE_FAIL ? "fail" : replica && v.offset == 0 ? "loading" : "online";
    unsigned port = tls_bus ? v.pport : v.port, tls_port = tls_bus ? v.port : 0;
    resp_map(out, 6 + (port != 0) + (tls_port != 0) + (v.hostname[0] != 0));
    resp_bulk_cstr(out, "id");
    resp_bulk(out, id_text(&v.id));
    if (port) resp_bulk_cstr(out, "port");
    if (port) resp_i64(out, port);
    if (tls_port) resp_bulk_cstr(out, "tls-port");
    if (tls_port) resp_i64(out, tls_port);
    field(out, "ip", v.ip);
    field(out, "endpoint", shards_endpoint(&v, endpoint));
    if (v.hostname[0]) field(out, "hostname", v.hostname);
    field(out, "role", replica ? "replica" : "master");
    resp_bulk_cstr(out, "replication-offset");
    resp_i64(out, (int64_t)v.offset);
    field(out, "health", health);
}

static void shards_ranges(const uint8_t *slots, struct resp_out *out)
{
    size_t bounds = 0, mark = resp_defer(out);
    for (unsigned first = cluster_bit_next(slots, 0); first < SLOT_COUNT; bounds += 2) {
        unsigned last = first;
        while (last + 1 < SLOT_COUNT && cluster_bit_get(slots, last + 1)) last++;
        resp_i64(out, first);
        resp_i64(out, last);
        first = cluster_bit_next(slots, last + 1);
    }
    resp_defer_array(out, mark, bounds);
}

/* A primary and its replicas; how many. */
static size_t shards_family(const struct cluster_core *core, const struct cluster_node *primary, int endpoint,
                            bool tls_bus, struct resp_out *out)
{
    struct cluster_node_view v;
    cluster_node_view(core, primary, &v);
    shards_node(core, primary, endpoint, tls_bus, out);
    for (size_t i = 0; i < v.replica_count; i++)
        shards_node(core, cluster_node_replica_at(primary, i), endpoint, tls_bus, out);
    return 1 + v.replica_count;
}

/* Whom a primary without slots stands with: the one of its shard that has some, e.g. since it took them over; or the
 * first of them.  Itself, when it has slots. */
static size_t shards_leader(const struct cluster_core *core, size_t at)
{
    struct cluster_node_view v, other;
    cluster_node_view(core, cluster_node_at(core, at), &v);
    size_t leader = at;
    for (size_t i = 0; i < cluster_node_count(core) && !v.slot_count; i++) {
        cluster_node_view(core, cluster_node_at(core, i), &other);
        if (!(other.flags & CLUSTER_NODE_PRIMARY) || !cluster_id_eq(&v.shard, &other.shard)) continue;
        if (other.slot_count) return i;
        if (i < leader) leader = i;
    }
    return leader;
}

static void shard(const struct cluster_core *core, const size_t *leaders, size_t at, int endpoint, bool tls_bus,
                  struct resp_out *out)
{
    struct cluster_node_view v;
    cluster_node_view(core, cluster_node_at(core, at), &v);
    resp_map(out, 2);
    resp_bulk_cstr(out, "slots");
    shards_ranges(v.slots, out);
    resp_bulk_cstr(out, "nodes");
    size_t mark = resp_defer(out), nodes = shards_family(core, cluster_node_at(core, at), endpoint, tls_bus, out);
    for (size_t i = 0; i < cluster_node_count(core); i++)
        if (leaders[i] == at && i != at) nodes += shards_family(core, cluster_node_at(core, i), endpoint, tls_bus, out);
    resp_defer_array(out, mark, nodes);
}

void cluster_reply_shards(const struct cluster_core *core, int endpoint, bool tls_bus, struct resp_out *out)
{
    size_t shards = 0, mark = resp_defer(out), count = cluster_node_count(core);
    size_t *leaders = mem_alloc(count * sizeof *leaders);
    for (size_t i = 0; i < count; i++) {
        struct cluster_node_view v;
        cluster_node_view(core, cluster_node_at(core, i), &v);
        /* A replica, or a handshake whose role is not known, leads nobody. */
        leaders[i] = v.flags & CLUSTER_NODE_PRIMARY ? shards_leader(core, i) : SIZE_MAX;
    }
    for (size_t i = 0; i < count; i++) {
        if (leaders[i] != i) continue;
        shard(core, leaders, i, endpoint, tls_bus, out);
        shards++;
    }
    mem_free(leaders);
    resp_defer_array(out, mark, shards);
}

/* ---- LINKS ---- */

struct link_reply {
    struct cluster *cluster;
    struct cluster_time now;
    struct resp_out *out;
    size_t count;
};

static void links_one(struct link_reply *r, const char *direction, const struct cluster_id *node, uint64_t link,
                      int64_t since_mono_ms)
{
    size_t used, allocated;
    if (!link) return;
    cluster_link_buffer(r->cluster, link, &used, &allocated);
    resp_map(r->out, 6);
    field(r->out, "direction", direction);
    resp_bulk_cstr(r->out, "node");
    resp_bulk(r->out, id_text(node));
    resp_bulk_cstr(r->out, "create-time");
    resp_i64(r->out, r->now.wall_ms - (r->now.mono_ms - since_mono_ms));
    field(r->out, "events", used ? "rw" : "r");
    resp_bulk_cstr(r->out, "send-buffer-allocated");
    resp_i64(r->out, (int64_t)allocated);
    resp_bulk_cstr(r->out, "send-buffer-used");
    resp_i64(r->out, (int64_t)used);
    r->count++;
}

void cluster_reply_links(struct cluster *cluster, const struct cluster_core *core, struct cluster_time now,
                         struct resp_out *out)
{
    struct link_reply r = {cluster, now, out, 0};
    size_t mark = resp_defer(out);
    for (size_t i = 0; i < cluster_node_count(core); i++) {
        struct cluster_node_view v;
        cluster_node_view(core, cluster_node_at(core, i), &v);
        links_one(&r, "to", &v.id, v.link_out, v.link_out_since_ms);
        links_one(&r, "from", &v.id, v.link_in, v.link_in_since_ms);
    }
    resp_defer_array(out, mark, r.count);
}
