/* send.c: building headers and handing messages to links. */
#include "cluster/core/internal.h"

#include <assert.h>

/* A node that loads its dataset, or keeps quiet so that others replace it, says nothing at all: its peers shall see it
 * as dead. */
bool bus_silent(const struct cluster_core *core)
{
    return core->facts.loading || core->probation.state == PROBATION_MUTED;
}

static struct cluster_outgoing *begin(struct cluster_core *core, enum cluster_message_type type)
{
    struct cluster_outgoing *o = outgoing_new(core->out);
    struct cluster_message *m = &o->m;
    const struct cluster_node *me = core->myself, *p = my_shard_primary(core);
    m->type = (uint16_t)type;
    m->flags = (uint16_t)me->flags;
    m->port = core->config.port;
    m->pport = core->config.pport;
    m->cport = core->config.cport;
    m->state = !cluster_state_ok(core);
    m->current_epoch = core->current_epoch;
    m->config_epoch = p->config_epoch;
    m->offset = node_is_primary(me) ? core->facts.primary_offset : core->facts.applied_offset;
    m->sender = me->id;
    m->covey = (uint8_t)(CLUSTER_COVEY | (core->noloss.on ? CLUSTER_COVEY_NO_LOSS : 0));
    if (p != me) m->replica_of = p->id;
    memcpy(m->ip, core->config.announce_ip, sizeof m->ip);
    memcpy(o->slots, p->slots, sizeof o->slots);
    m->slots = o->slots;
    if (node_is_primary(me) && core->manual.end_ms && core->manual.paused) m->mflags |= CLUSTER_MSG_PAUSED;
    return o;
}

static void send_on(struct cluster_core *core, uint64_t link, const struct cluster_node *to,
                    const struct cluster_outgoing *o)
{
    struct cluster_action *a = act(core, CLUSTER_DO_SEND);
    a->link = link;
    if (to) a->node = to->id;
    a->message = &o->m;
    core->sent[o->m.type]++;
}

static bool reachable(const struct cluster_node *node)
{
    return node->out.up && !(node->flags & (CLUSTER_NODE_MYSELF | CLUSTER_NODE_HANDSHAKE));
}

static void broadcast(struct cluster_core *core, const struct cluster_outgoing *o)
{
    if (bus_silent(core)) return;
    for (size_t i = 0; i < core->node_count; i++)
        if (reachable(core->nodes[i])) send_on(core, core->nodes[i]->out.id, core->nodes[i], o);
}

/* EXT_DATA without an extension tells a peer that it may send us its own.  Extensions themselves go only to peers
 * that have said so: a 6.x peer takes a message that has any for damaged. */
static void send_heartbeat(struct cluster_core *core, uint64_t link, const struct cluster_node *node,
                           enum cluster_message_type type, unsigned covey)
{
    if (bus_silent(core)) return;
    struct cluster_outgoing *o = begin(core, type);
    o->m.covey |= (uint8_t)covey;
    o->m.mflags |= CLUSTER_MSG_EXT_DATA;
    if (node && node->knows_extensions && core->config.announce_hostname[0])
        o->m.hostname = bytes_of(core->config.announce_hostname);
    if (node && node->knows_shards) o->m.shard = shard_of(core->myself);
    gossip_fill(core, o);
    send_on(core, link, node, o);
}

void send_ping_type(struct cluster_core *core, uint64_t link, struct cluster_node *node, enum cluster_message_type type)
{
    send_heartbeat(core, link, node, type, 0);
}

void send_pong(struct cluster_core *core, uint64_t link, struct cluster_node *node, bool no_lease)
{
    send_heartbeat(core, link, node, CLUSTER_PONG, no_lease ? CLUSTER_COVEY_NO_LEASE : 0);
}

void send_ping(struct cluster_core *core, struct cluster_node *node)
{
    if (bus_silent(core)) return;
    /* On a link still being opened the clock starts now, too: a connection that never comes up is a dead peer. */
    node->ping_sent_ms = core->now.mono_ms;
    if (!node->out.up) return;
    lease_ping_sent(core, node);
    send_ping_type(core, node->out.id, node, CLUSTER_PING);
}

void broadcast_pong(struct cluster_core *core, enum pong_targets targets)
{
    const struct cluster_node *p = my_shard_primary(core);
    for (size_t i = 0; i < core->node_count; i++) {
        struct cluster_node *node = core->nodes[i];
        if (!reachable(node)) continue;
        if (targets == PONG_TO_SHARD && node->primary != p) continue;
        send_ping_type(core, node->out.id, node, CLUSTER_PONG);
    }
}

void broadcast_fail(struct cluster_core *core, const struct cluster_node *failed)
{
    struct cluster_outgoing *o = begin(core, CLUSTER_FAIL);
    o->m.fail = failed->id;
    broadcast(core, o);
}

void broadcast_auth_request(struct cluster_core *core)
{
    struct cluster_outgoing *o = begin(core, CLUSTER_AUTH_REQUEST);
    if (core->manual.end_ms && core->manual.can_start) o->m.mflags |= CLUSTER_MSG_FORCEACK;
    broadcast(core, o);
}

void send_simple(struct cluster_core *core, struct cluster_node *node, enum cluster_message_type type)
{
    if (bus_silent(core) || !node->out.up) return;
    send_on(core, node->out.id, node, begin(core, type));
}

void send_module(struct cluster_core *core, struct cluster_node *node, uint64_t module, uint8_t type,
                 struct bytes payload)
{
    if (bus_silent(core) || !node->out.up) return;
    struct cluster_outgoing *o = begin(core, CLUSTER_MODULE);
    assert(payload.n <= sizeof o->payload);
    memcpy(o->payload, payload.p, payload.n);
    o->m.module.module_id = module;
    o->m.module.type = type;
    o->m.module.payload = bytes_make(o->payload, payload.n);
    send_on(core, node->out.id, node, o);
}

void send_update(struct cluster_core *core, struct cluster_node *to, const struct cluster_node *about)
{
    if (bus_silent(core) || !to->out.up) return;
    struct cluster_outgoing *o = begin(core, CLUSTER_UPDATE);
    o->m.update.id = about->id;
    o->m.update.config_epoch = about->config_epoch;
    /* Slots that `about` itself does not claim any more are kept out: others shall not bind them to it again. */
    for (size_t i = 0; i < CLUSTER_SLOT_BYTES; i++)
        o->update_slots[i] = about->slots[i] & (uint8_t)~core->owner_not_claiming[i];
    o->m.update.slots = o->update_slots;
    send_on(core, to->out.id, to, o);
}

void cluster_publish(struct cluster_core *core, bool shard, struct bytes channel, struct bytes payload,
                     struct cluster_time now, struct cluster_actions *out)
{
    step_begin(core, now, out);
    struct cluster_outgoing *o = begin(core, shard ? CLUSTER_PUBLISHSHARD : CLUSTER_PUBLISH);
    o->m.publish.channel = channel;
    o->m.publish.payload = payload;
    if (!shard) {
        broadcast(core, o);
    } else if (!bus_silent(core)) {
        struct cluster_node *p = my_shard_primary(core);
        if (reachable(p)) send_on(core, p->out.id, p, o);
        for (size_t i = 0; i < p->replica_count; i++)
            if (reachable(p->replicas[i])) send_on(core, p->replicas[i]->out.id, p->replicas[i], o);
    }
    step_end(core);
}
