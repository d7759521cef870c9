/* node.c: the node table, links, the forgotten. */
#include "base/hash.h"
#include "base/mem.h"
#include "cluster/core/internal.h"

#include <assert.h>

bool cluster_id_parse(struct bytes text, struct cluster_id *out)
{
    if (text.n != CLUSTER_ID_SIZE) return false;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z'))) return false;
    }
    memcpy(out->c, text.p, CLUSTER_ID_SIZE);
    return true;
}

bool node_is_primary(const struct cluster_node *node)
{
    return node->flags & CLUSTER_NODE_PRIMARY;
}

bool node_is_replica(const struct cluster_node *node)
{
    return node->flags & CLUSTER_NODE_REPLICA;
}

struct cluster_node *my_shard_primary(const struct cluster_core *core)
{
    struct cluster_node *me = core->myself;
    return node_is_replica(me) && me->primary ? me->primary : me;
}

/* ---- hash chains ---- */

static size_t id_bucket(const struct cluster_core *core, const struct cluster_id *id)
{
    return hash_bytes(bytes_make(id->c, CLUSTER_ID_SIZE)) & (core->table_size - 1);
}

static size_t link_bucket(const struct cluster_core *core, uint64_t id)
{
    return (id * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (core->table_size - 1);
}

static void table_insert_node(struct cluster_core *core, struct cluster_node *node)
{
    struct cluster_node **head = &core->node_table[id_bucket(core, &node->id)];
    node->next = *head;
    *head = node;
}

static void table_remove_node(struct cluster_core *core, struct cluster_node *node)
{
    struct cluster_node **at = &core->node_table[id_bucket(core, &node->id)];
    while (*at != node) at = &(*at)->next;
    *at = node->next;
}

static void table_insert_link(struct cluster_core *core, struct cluster_link *link)
{
    struct cluster_link **head = &core->link_table[link_bucket(core, link->id)];
    link->next = *head;
    *head = link;
}

static void table_remove_link(struct cluster_core *core, struct cluster_link *link)
{
    struct cluster_link **at = &core->link_table[link_bucket(core, link->id)];
    while (*at != link) at = &(*at)->next;
    *at = link->next;
}

static void table_grow(struct cluster_core *core)
{
    if (core->node_count < core->table_size) return;
    mem_free(core->node_table);
    mem_free(core->link_table);
    core->table_size = core->table_size ? core->table_size * 2 : 16;
    core->node_table = mem_calloc(core->table_size, sizeof *core->node_table);
    core->link_table = mem_calloc(core->table_size, sizeof *core->link_table);
    for (size_t i = 0; i < core->node_count; i++) {
        struct cluster_node *node = core->nodes[i];
        table_insert_node(core, node);
        if (node->out.id) table_insert_link(core, &node->out);
        if (node->in.id) table_insert_link(core, &node->in);
    }
}

/* ---- nodes ---- */

struct cluster_id node_random_id(struct cluster_core *core)
{
    struct cluster_id id;
    for (size_t i = 0; i < CLUSTER_ID_SIZE; i += 8) {
        uint64_t r = random_u64(&core->random);
        for (size_t j = 0; j < 8; j++, r >>= 4) id.c[i + j] = "0123456789abcdef"[r & 15];
    }
    return id;
}

struct cluster_node *node_find(const struct cluster_core *core, const struct cluster_id *id)
{
    if (!core->table_size) return NULL;
    for (struct cluster_node *n = core->node_table[id_bucket(core, id)]; n; n = n->next)
        if (cluster_id_eq(&n->id, id)) return n;
    return NULL;
}

struct cluster_node *node_create(struct cluster_core *core, const struct cluster_id *id, unsigned flags)
{
    table_grow(core);
    struct cluster_node *node = mem_calloc(1, sizeof *node);
    node->id = id ? *id : node_random_id(core);
    node->flags = flags & CLUSTER_NODE_FLAGS_ALL & ~(unsigned)CLUSTER_NODE_PFAIL;
    node->created_ms = node->data_received_ms = core->now.mono_ms;
    node->voted_ms = LONG_AGO;
    node->out.node = node->in.node = node;
    list_init(&node->suspects);
    GROW(core->nodes, core->node_cap, core->node_count + 1);
    node->index = core->node_count;
    core->nodes[core->node_count++] = node;
    table_insert_node(core, node);
    core->size_stale = true;
    core->due |= DUE_MAP;
    return node;
}

void node_rename(struct cluster_core *core, struct cluster_node *node, const struct cluster_id *id)
{
    table_remove_node(core, node);
    node->id = *id;
    table_insert_node(core, node);
}

void node_set_flags(struct cluster_core *core, struct cluster_node *node, unsigned set, unsigned clear)
{
    unsigned before = node->flags;
    node->flags = (before & ~clear) | set;
    if (node->flags == before) return;
    if ((before ^ node->flags) & CLUSTER_NODE_PFAIL) {
        if (node->flags & CLUSTER_NODE_PFAIL)
            list_push_back(&core->suspects, &node->suspects);
        else
            list_remove(&node->suspects);
    }
    core->size_stale = true;
    core->due |= DUE_MAP;
}

static void detach(struct cluster_core *core, struct cluster_node *node)
{
    struct cluster_node *p = node->primary;
    if (!p) return;
    for (size_t i = 0; i < p->replica_count; i++) {
        if (p->replicas[i] != node) continue;
        p->replicas[i] = p->replicas[--p->replica_count];
        break;
    }
    if (!p->replica_count) node_set_flags(core, p, 0, CLUSTER_NODE_MIGRATE_TO);
    node->primary = NULL;
}

void node_set_primary(struct cluster_core *core, struct cluster_node *node, struct cluster_node *primary)
{
    if (node->primary == primary) return;
    detach(core, node);
    core->due |= DUE_MAP | DUE_SAVE;
    if (!primary) return;
    assert(primary != node);
    GROW(primary->replicas, primary->replica_cap, primary->replica_count + 1);
    primary->replicas[primary->replica_count++] = node;
    node->primary = primary;
    node_set_flags(core, primary, CLUSTER_NODE_MIGRATE_TO, 0);
}

void node_make_primary(struct cluster_core *core, struct cluster_node *node)
{
    if (node_is_primary(node)) return;
    node_set_primary(core, node, NULL);
    /* A node that was a replica just now is one that deserves replicas. */
    unsigned migrate_to = node == core->myself ? 0 : CLUSTER_NODE_MIGRATE_TO;
    node_set_flags(core, node, CLUSTER_NODE_PRIMARY | migrate_to, CLUSTER_NODE_REPLICA);
    core->due |= DUE_SAVE | DUE_STATE;
}

void node_make_replica(struct cluster_core *core, struct cluster_node *node)
{
    if (node_is_replica(node)) return;
    slots_unassign_all(core, node);
    /* Somebody has its place: the vote is spent, and whoever is elected in its place later needs another. */
    node->voted_epoch = 0;
    node->voted_ms = LONG_AGO;
    node->excluded_count = 0;
    node_set_flags(core, node, CLUSTER_NODE_REPLICA, CLUSTER_NODE_PRIMARY | CLUSTER_NODE_MIGRATE_TO);
    core->due |= DUE_SAVE | DUE_STATE;
}

size_t node_working_replicas(const struct cluster_node *node, unsigned bad_flags)
{
    size_t n = 0;
    for (size_t i = 0; i < node->replica_count; i++) n += !(node->replicas[i]->flags & bad_flags);
    return n;
}

static void node_unlink(struct cluster_core *core, struct cluster_node *node)
{
    for (size_t i = 0; i < core->node_count; i++) report_remove(core->nodes[i], node);
    while (node->replica_count) detach(core, node->replicas[0]);
    detach(core, node);
    slots_unassign_all(core, node);
    slots_drop_marks(core, node);
    if (core->manual.replica == node) manual_reset(core);
    if (node->flags & CLUSTER_NODE_PFAIL) list_remove(&node->suspects);
}

static void node_free(struct cluster_node *node)
{
    mem_free(node->replicas);
    mem_free(node->reports);
    mem_free(node->excluded);
    mem_free(node);
}

void node_delete(struct cluster_core *core, struct cluster_node *node)
{
    assert(node != core->myself);
    link_close(core, &node->out);
    link_close(core, &node->in);
    node_unlink(core, node);
    table_remove_node(core, node);
    core->nodes[node->index] = core->nodes[--core->node_count];
    core->nodes[node->index]->index = node->index;
    core->size_stale = true;
    core->due |= DUE_MAP | DUE_STATE;
    node_free(node);
}

/* ---- links ---- */

struct cluster_link *link_find(const struct cluster_core *core, uint64_t id)
{
    for (struct cluster_link *l = core->link_table[link_bucket(core, id)]; l; l = l->next)
        if (l->id == id) return l;
    return NULL;
}

void link_open(struct cluster_core *core, struct cluster_node *node)
{
    struct cluster_link *link = &node->out;
    assert(!link->id);
    link->id = ++core->next_link;
    link->up = false;
    link->since_ms = core->now.mono_ms;
    table_insert_link(core, link);
    struct cluster_action *a = act(core, CLUSTER_DO_CONNECT);
    a->link = link->id;
    a->node = node->id;
    a->port = node->cport;
    memcpy(a->ip, node->ip, sizeof a->ip);
}

void link_forget(struct cluster_core *core, struct cluster_link *link)
{
    if (!link->id) return;
    table_remove_link(core, link);
    link->id = 0;
    link->up = false;
    lease_drop(core, link->node);
}

void link_close(struct cluster_core *core, struct cluster_link *link)
{
    if (!link->id) return;
    act(core, CLUSTER_DO_CLOSE)->link = link->id;
    link_forget(core, link);
}

void link_bind_inbound(struct cluster_core *core, struct cluster_node *node, uint64_t id)
{
    if (node->in.id == id) return;
    struct cluster_link *bound = link_find(core, id);
    if (bound) link_forget(core, bound); /* the peer took another id, by RESET HARD */
    link_close(core, &node->in);
    node->in.id = id;
    node->in.up = true;
    node->in.since_ms = core->now.mono_ms;
    table_insert_link(core, &node->in);
}

/* ---- the forgotten ---- */

static void blacklist_expire(struct cluster_core *core)
{
    for (size_t i = 0; i < core->blacklist_count;) {
        if (core->blacklist[i].until_ms <= core->now.mono_ms)
            core->blacklist[i] = core->blacklist[--core->blacklist_count];
        else
            i++;
    }
}

bool blacklist_has(struct cluster_core *core, const struct cluster_id *id)
{
    blacklist_expire(core);
    for (size_t i = 0; i < core->blacklist_count; i++)
        if (cluster_id_eq(&core->blacklist[i].id, id)) return true;
    return false;
}

void blacklist_add(struct cluster_core *core, const struct cluster_id *id)
{
    blacklist_expire(core);
    GROW(core->blacklist, core->blacklist_cap, core->blacklist_count + 1);
    core->blacklist[core->blacklist_count++] = (struct blacklisted){*id, core->now.mono_ms + BLACKLIST_MS};
}

/* ---- questions ---- */

size_t cluster_node_count(const struct cluster_core *core)
{
    return core->node_count;
}

const struct cluster_node *cluster_node_at(const struct cluster_core *core, size_t i)
{
    assert(i < core->node_count);
    return core->nodes[i];
}

const struct cluster_node *cluster_node_find(const struct cluster_core *core, const struct cluster_id *id)
{
    return node_find(core, id);
}

const struct cluster_node *cluster_node_replica_at(const struct cluster_node *node, size_t i)
{
    assert(i < node->replica_count);
    return node->replicas[i];
}

void cluster_node_view(const struct cluster_core *core, const struct cluster_node *node, struct cluster_node_view *out)
{
    bool me = node == core->myself;
    uint64_t mine = node_is_primary(node) ? core->facts.primary_offset : core->facts.applied_offset;
    *out = (struct cluster_node_view){
        .id = node->id,
        .ip = node->ip,
        .hostname = node->hostname,
        .shard = shard_of(node),
        .port = node->port,
        .pport = node->pport,
        .cport = node->cport,
        .flags = node->flags,
        .primary = node->primary,
        .replica_count = node->replica_count,
        .slots = node->slots,
        .slot_count = node->slot_count,
        .config_epoch = node->config_epoch,
        .offset = me ? mine : node->offset,
        .ping_sent_ms = node->ping_sent_ms,
        .pong_received_ms = node->pong_received_ms,
        .connected = me || node->out.id,
        .link_out = node->out.id,
        .link_in = node->in.id,
        .link_out_since_ms = node->out.since_ms,
        .link_in_since_ms = node->in.since_ms,
    };
}
