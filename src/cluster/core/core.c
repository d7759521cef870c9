/* core.c: life of a core, and where each event goes. */
#include "cluster/core/core.h"
#include "base/mem.h"
#include "cluster/core/internal.h"

#include <assert.h>
#include <stdlib.h>

void cluster_config_init(struct cluster_config *c)
{
    memset(c, 0, sizeof *c);
    c->node_timeout_ms = 15000;
    c->replica_validity_factor = 10;
    c->repl_ping_period_s = 10;
    c->migration_barrier = 1;
    c->require_full_coverage = true;
    c->allow_replica_migration = true;
    c->probation = true;
    c->ack_patience_ms = 2500;
}

/* What the configuration says about this node itself. */
static void apply_to_myself(struct cluster_core *core)
{
    const struct cluster_config *c = &core->config;
    struct cluster_node *me = core->myself;
    if (c->announce_ip[0]) memcpy(me->ip, c->announce_ip, sizeof me->ip);
    memcpy(me->hostname, c->announce_hostname, sizeof me->hostname);
    me->port = c->port;
    me->pport = c->pport;
    me->cport = c->cport;
    unsigned nofailover = c->replica_no_failover ? CLUSTER_NODE_NOFAILOVER : 0;
    node_set_flags(core, me, nofailover, CLUSTER_NODE_NOFAILOVER & ~nofailover);
}

static struct cluster_core *core_alloc(const struct cluster_config *config, struct cluster_time now)
{
    assert(now.mono_ms > 0 && config->node_timeout_ms > 0);
    struct cluster_core *core = mem_calloc(1, sizeof *core);
    core->config = *config;
    core->now = now;
    random_seed(&core->random, config->seed);
    list_init(&core->suspects);
    core->size_stale = true;
    core->first_evaluation_ms = core->minority_ms = core->cut_off_ms = LONG_AGO;
    core->election.at_ms = LONG_AGO;
    core->noloss.incarnation = random_u64(&core->random);
    core->last_tick_ms = core->started_ms = now.mono_ms;
    return core;
}

struct cluster_core *cluster_create(const struct cluster_config *config, struct bytes nodes_conf,
                                    struct cluster_time now, struct cluster_error *err)
{
    struct cluster_core *core = core_alloc(config, now);
    if (nodes_conf.n == 0) {
        core->myself = node_create(core, NULL, CLUSTER_NODE_MYSELF | CLUSTER_NODE_PRIMARY);
        shard_new(core);
        core->due |= DUE_VITAL;
    } else if (!nodesconf_parse(core, nodes_conf, err)) {
        cluster_destroy(core);
        return NULL;
    }
    /* A file of 7.0 names no shard: the others call mine by my id. */
    if (cluster_id_is_null(&core->myself->shard)) core->myself->shard = shard_of(core->myself);
    apply_to_myself(core);
    return core;
}

void cluster_destroy(struct cluster_core *core)
{
    for (size_t i = 0; i < core->node_count; i++) {
        mem_free(core->nodes[i]->replicas);
        mem_free(core->nodes[i]->reports);
        mem_free(core->nodes[i]->excluded);
        mem_free(core->nodes[i]);
    }
    mem_free(core->nodes);
    mem_free(core->node_table);
    mem_free(core->link_table);
    mem_free(core->migrating);
    mem_free(core->importing);
    mem_free(core->probation.probes);
    mem_free(core->blacklist);
    mem_free(core);
}

void cluster_start(struct cluster_core *core, const struct cluster_history *restored, struct cluster_time now,
                   struct cluster_actions *out)
{
    step_begin(core, now, out);
    slots_startup_check(core);
    core->facts.primary_offset = core->facts.applied_offset = restored->offset;
    probation_begin(core, restored);
    noloss_update(core);
    core->due |= DUE_SAVE | DUE_MAP | DUE_ADDRESS;
    step_end(core);
}

void cluster_set_config(struct cluster_core *core, const struct cluster_config *config, struct cluster_time now,
                        struct cluster_actions *out)
{
    assert(config->node_timeout_ms > 0);
    step_begin(core, now, out);
    struct cluster_config fixed = core->config;
    core->config = *config;
    core->config.seed = fixed.seed;
    core->config.dataset = fixed.dataset;
    core->config.plant = fixed.plant;
    /* Without an announced address the next connection tells which one it is. */
    if (fixed.announce_ip[0] && !config->announce_ip[0]) core->myself->ip[0] = 0;
    apply_to_myself(core);
    core->due |= DUE_SAVE | DUE_STATE | DUE_MAP;
    noloss_update(core);
    step_end(core);
}

static void link_down(struct cluster_core *core, uint64_t id, bool refused)
{
    struct cluster_link *link = link_find(core, id);
    if (!link) return;
    struct cluster_node *node = link->node;
    bool inbound = link == &node->in, stood = inbound || link->up;
    /* Refused: nothing was asked, and yet an answer is missing. */
    if (!stood && !node->ping_sent_ms) node->ping_sent_ms = core->now.mono_ms;
    link_forget(core, link);
    if (stood)
        gone_link_lost(core, node);
    else if (refused)
        gone_refused(core, node);
    else
        gone_cancel(node);
}

static void link_connected(struct cluster_core *core, uint64_t id)
{
    struct cluster_link *link = link_find(core, id);
    if (!link || link->up) return;
    struct cluster_node *node = link->node;
    link->up = true;
    gone_connected(node);
    /* A ping that waited already keeps its age: a new connection is no sign of life. */
    int64_t waiting = node->ping_sent_ms;
    if (node->flags & CLUSTER_NODE_MEET)
        send_ping_type(core, link->id, node, CLUSTER_MEET);
    else
        send_ping(core, node);
    if (waiting) node->ping_sent_ms = waiting;
    manual_on_connected(core, node);
}

static void take_facts(struct cluster_core *core, const struct cluster_facts *facts)
{
    const struct cluster_node *primary = core->myself->primary;
    core->facts = *facts;
    noloss_facts(core);
    core->due |= DUE_MANUAL;
    if (facts->link_up && primary && cluster_id_eq(&primary->id, &core->synced_with))
        core->synced_epoch = primary->config_epoch;
}

static void persisted(struct cluster_core *core, uint64_t seq)
{
    bool waited = core->serve_after_seq > core->persisted_seq;
    if (seq > core->persisted_seq) core->persisted_seq = seq;
    if (waited && core->serve_after_seq <= core->persisted_seq) core->due |= DUE_MAP;
}

void cluster_step(struct cluster_core *core, const struct cluster_event *ev, struct cluster_time now,
                  struct cluster_actions *out)
{
    step_begin(core, now, out);
    switch (ev->kind) {
    case CLUSTER_EV_TICK: tick(core); break;
    case CLUSTER_EV_CONNECTED: link_connected(core, ev->link); break;
    case CLUSTER_EV_LINK_DOWN: link_down(core, ev->link, ev->refused); break;
    case CLUSTER_EV_MESSAGE: receive(core, ev); break;
    case CLUSTER_EV_PERSISTED: persisted(core, ev->seq); break;
    case CLUSTER_EV_FACTS: take_facts(core, &ev->facts); break;
    case CLUSTER_EV_PAUSED:
        take_facts(core, &ev->facts);
        manual_on_paused(core);
        break;
    case CLUSTER_EV_PROBED: probation_on_probed(core, ev); break;
    case CLUSTER_EV_YIELDED: probation_on_yielded(core, ev); break;
    }
    step_end(core);
}

/* ---- questions ---- */

const struct cluster_node *cluster_myself(const struct cluster_core *core)
{
    return core->myself;
}

bool cluster_is_primary(const struct cluster_core *core)
{
    return node_is_primary(core->myself);
}

const struct cluster_node *cluster_my_primary(const struct cluster_core *core)
{
    return core->myself->primary;
}

uint64_t cluster_current_epoch(const struct cluster_core *core)
{
    return core->current_epoch;
}

uint64_t cluster_my_config_epoch(const struct cluster_core *core)
{
    return my_shard_primary(core)->config_epoch;
}

void cluster_note_synced(struct cluster_core *core)
{
    const struct cluster_node *primary = core->myself->primary;
    if (!primary) return;
    core->synced_with = primary->id;
    core->synced_epoch = primary->config_epoch;
}

bool cluster_follows_as_before(const struct cluster_core *core)
{
    const struct cluster_node *primary = core->myself->primary;
    return primary && primary->slot_count && cluster_id_eq(&primary->id, &core->synced_with) &&
           primary->config_epoch == core->synced_epoch;
}

uint64_t cluster_synced_epoch(const struct cluster_core *core)
{
    return cluster_follows_as_before(core) ? core->synced_epoch : 0;
}

bool cluster_is_standing(const struct cluster_core *core)
{
    return core->manual.end_ms && node_is_replica(core->myself);
}

bool cluster_is_member(const struct cluster_core *core)
{
    const struct cluster_node *p = core->myself->primary;
    return p && p->noloss && !noloss_why_not_stand(core, true);
}

uint64_t cluster_last_vote_epoch(const struct cluster_core *core)
{
    return core->last_vote_epoch;
}

void cluster_count_ignored(struct cluster_core *core, unsigned type)
{
    if (type < CLUSTER_TYPE_COUNT) core->received[type]++;
}

void cluster_count_link_over_limit(struct cluster_core *core)
{
    core->links_over_limit++;
}

/* ---- self-check ---- */

static void require(bool condition)
{
    if (!condition) abort();
}

static void check_node(const struct cluster_core *core, const struct cluster_node *node, size_t i)
{
    require(node->index == i && node_find(core, &node->id) == node);
    require(cluster_bit_count(node->slots) == node->slot_count);
    require(!(node_is_primary(node) && node_is_replica(node)));
    require(!node->primary || (node_is_replica(node) && node->primary != node));
    for (size_t r = 0; r < node->replica_count; r++) require(node->replicas[r]->primary == node);
    require(!list_empty(&node->suspects) == !!(node->flags & CLUSTER_NODE_PFAIL));
    require(!node->out.id || link_find(core, node->out.id) == &node->out);
    require(!node->in.id || link_find(core, node->in.id) == &node->in);
}

void cluster_check(const struct cluster_core *core)
{
    unsigned assigned = 0;
    for (unsigned s = 0; s < SLOT_COUNT; s++) {
        if (!core->owner[s]) continue;
        assigned++;
        require(cluster_bit_get(core->owner[s]->slots, s));
    }
    require(assigned == core->slots_assigned);
    for (size_t i = 0; i < core->node_count; i++) check_node(core, core->nodes[i], i);
    require(core->myself->config_epoch <= core->current_epoch);
    require(core->last_vote_epoch <= core->current_epoch);
    require(core->size_stale || core->size == cluster_size(core));
}
