/* receive.c: one message from a peer, in the order of the protocol: who is it, epochs, the handshake, its address, its
 * role, its slots, its gossip. */
#include "cluster/core/internal.h"

#include <arpa/inet.h>
#include <assert.h>

static bool is_heartbeat(const struct cluster_message *m)
{
    return m->type == CLUSTER_PING || m->type == CLUSTER_PONG || m->type == CLUSTER_MEET;
}

/* ---- who ---- */

/* The node a message comes from: the one its header names.  On my own connection that must also be the one I called,
 * or nobody (the handshake looks into that). */
static struct cluster_node *identify(struct cluster_core *core, const struct cluster_event *ev)
{
    struct cluster_id id;
    const struct cluster_message *m = ev->message;
    if (!cluster_id_parse(bytes_make(m->sender.c, CLUSTER_ID_SIZE), &id)) return NULL;
    struct cluster_link *link = link_find(core, ev->link);
    if (link && link == &link->node->out && !(link->node->flags & CLUSTER_NODE_HANDSHAKE)) return link->node;
    struct cluster_node *sender = node_find(core, &id);
    if (sender && sender->flags & CLUSTER_NODE_HANDSHAKE) return NULL;
    if (sender && sender != core->myself && ev->link & CLUSTER_LINK_INBOUND) link_bind_inbound(core, sender, ev->link);
    return sender;
}

static void take_epochs(struct cluster_core *core, struct cluster_node *sender, const struct cluster_message *m)
{
    epoch_raise(core, m->current_epoch);
    /* A replica repeats its primary's epoch; only a primary's own is kept. */
    if (m->config_epoch > sender->config_epoch && cluster_id_is_null(&m->replica_of)) {
        sender->config_epoch = m->config_epoch;
        core->due |= DUE_VITAL;
    }
    sender->offset = m->offset;
    sender->offset_at_ms = core->now.mono_ms;
    shard_note_extensions(sender, m);
    sender->covey = m->covey & CLUSTER_COVEY;
    if (cluster_id_is_null(&m->replica_of)) sender->noloss = m->covey & CLUSTER_COVEY_NO_LOSS;
    manual_on_header(core, sender, m);
}

/* ---- addresses ---- */

static void learn_my_ip(struct cluster_core *core, const struct cluster_event *ev)
{
    struct cluster_node *me = core->myself;
    assert(me);
    if (core->config.announce_ip[0] || !ev->local_ip || !ev->local_ip[0]) return;
    if (me->ip[0] && ev->message->type != CLUSTER_MEET) return;
    if (strcmp(me->ip, ev->local_ip) == 0 || strlen(ev->local_ip) > CLUSTER_IP_SIZE) return;
    strcpy(me->ip, ev->local_ip);
    core->due |= DUE_SAVE | DUE_MAP;
    note(core, CLUSTER_NOTE_ADDRESS, me, 0, me->ip);
}

static const char *announced_ip(const struct cluster_event *ev)
{
    const char *ip = ev->message->ip[0] ? ev->message->ip : ev->peer_ip;
    return ip && strlen(ip) <= CLUSTER_IP_SIZE ? ip : "";
}

static void update_address(struct cluster_core *core, struct cluster_node *node, const struct cluster_event *ev)
{
    const struct cluster_message *m = ev->message;
    const char *ip = announced_ip(ev);
    if (node == core->myself || !ip[0]) return;
    bool same = node->port == m->port && node->cport == m->cport && node->pport == m->pport;
    if (same && strcmp(node->ip, ip) == 0) return;
    link_close(core, &node->out);
    strcpy(node->ip, ip);
    node->port = m->port;
    node->cport = m->cport;
    node->pport = m->pport;
    node_set_flags(core, node, 0, CLUSTER_NODE_NOADDR);
    core->due |= DUE_SAVE | DUE_MAP | DUE_ADDRESS;
    note(core, CLUSTER_NOTE_ADDRESS, node, 0, NULL);
}

/* ---- handshake ---- */

static void welcome(struct cluster_core *core, const struct cluster_event *ev)
{
    const struct cluster_message *m = ev->message;
    const char *ip = announced_ip(ev);
    if (!ip[0] || !m->cport) return;
    struct cluster_node *node = node_create(core, NULL, CLUSTER_NODE_HANDSHAKE);
    strcpy(node->ip, ip);
    node->port = m->port;
    node->cport = m->cport;
    node->pport = m->pport;
    note(core, CLUSTER_NOTE_MEET, node, 0, "it came to us");
}

/* The first answer on my connection to a node that has only a made-up id. */
static void complete_handshake(struct cluster_core *core, struct cluster_node *node, const struct cluster_event *ev)
{
    const struct cluster_message *m = ev->message;
    struct cluster_node *known = node_find(core, &m->sender);
    if (known && known != node) {
        node_delete(core, node);
        update_address(core, known, ev);
        return;
    }
    node_rename(core, node, &m->sender);
    node_set_flags(core, node, m->flags & (CLUSTER_NODE_PRIMARY | CLUSTER_NODE_REPLICA),
                   CLUSTER_NODE_HANDSHAKE | CLUSTER_NODE_MEET);
    shard_note_extensions(node, m);
    core->due |= DUE_SAVE | DUE_MAP | DUE_STATE;
    note(core, CLUSTER_NOTE_JOINED, node, 0, "handshake");
}

/* Another node answers at that address. */
static void wrong_node(struct cluster_core *core, struct cluster_node *node)
{
    node_set_flags(core, node, CLUSTER_NODE_NOADDR, 0);
    node->ip[0] = 0;
    node->port = node->cport = node->pport = 0;
    link_close(core, &node->out);
    core->due |= DUE_SAVE | DUE_MAP;
}

/* Heartbeat on my outbound link to `node`; false: nothing more is to be done with it. */
static bool answer_on_my_link(struct cluster_core *core, struct cluster_node *node, const struct cluster_event *ev)
{
    struct cluster_id id;
    const struct cluster_message *m = ev->message;
    if (!cluster_id_parse(bytes_make(m->sender.c, CLUSTER_ID_SIZE), &id)) return false;
    if (node->flags & CLUSTER_NODE_HANDSHAKE) {
        node->pong_received_ms = core->now.mono_ms;
        node->ping_sent_ms = 0;
        complete_handshake(core, node, ev);
        return false;
    }
    if (!cluster_id_eq(&node->id, &m->sender)) {
        wrong_node(core, node);
        return false;
    }
    node_set_flags(core, node, 0, CLUSTER_NODE_MEET);
    return true;
}

/* ---- role ---- */

/* Two connections carry a peer's messages, so one from before its promotion may arrive after the news of it, and would
 * make a replica of a serving primary, leaving its slots to anybody.  A node's current epoch is never below its own
 * config epoch; a header in which it is below the config epoch I know of is from the past. */
static bool is_outdated(const struct cluster_core *core, const struct cluster_node *sender,
                        const struct cluster_message *m)
{
    return m->current_epoch < sender->config_epoch && core->config.plant != CLUSTER_PLANT_OLD_EPOCH;
}

static void take_role(struct cluster_core *core, struct cluster_node *sender, const struct cluster_message *m)
{
    if (cluster_id_is_null(&m->replica_of)) {
        node_make_primary(core, sender);
        return;
    }
    node_make_replica(core, sender);
    struct cluster_node *p = node_find(core, &m->replica_of);
    if (p && p != sender) node_set_primary(core, sender, p);
}

static void take_slots(struct cluster_core *core, struct cluster_node *sender, const struct cluster_message *m)
{
    const struct cluster_node *p = node_is_primary(sender) ? sender : sender->primary;
    if (!p) return;
    if (memcmp(p->slots, m->slots, CLUSTER_SLOT_BYTES) == 0) {
        if (p == sender) slots_claim_unchanged(core, sender);
        return;
    }
    if (node_is_primary(sender)) slots_take_claim(core, sender, m->config_epoch, m->slots);
    slots_notify_stale(core, sender, m);
}

static void take_hostname(struct cluster_core *core, struct cluster_node *sender, const struct cluster_message *m)
{
    struct bytes h = m->hostname;
    if (h.n > CLUSTER_HOSTNAME_MAX || bytes_eq(h, bytes_of(sender->hostname))) return;
    memcpy(sender->hostname, h.p ? h.p : "", h.n);
    sender->hostname[h.n] = 0;
    core->due |= DUE_SAVE | DUE_MAP;
}

/* ---- heartbeats ---- */

static void take_heartbeat(struct cluster_core *core, struct cluster_node *sender, const struct cluster_event *ev,
                           bool on_my_link)
{
    const struct cluster_message *m = ev->message;
    node_set_flags(core, sender, m->flags & CLUSTER_NODE_NOFAILOVER, ~m->flags & CLUSTER_NODE_NOFAILOVER);
    if (m->type == CLUSTER_PING && !on_my_link) update_address(core, sender, ev);
    if (m->type == CLUSTER_PONG && on_my_link) {
        sender->pong_received_ms = core->now.mono_ms;
        sender->ping_sent_ms = 0;
        lease_on_pong(core, sender, m);
        failure_heard_pong(core, sender);
    }
    if (!is_outdated(core, sender, m)) {
        take_role(core, sender, m);
        take_slots(core, sender, m);
    }
    epoch_collision(core, sender, m->config_epoch);
    receive_gossip(core, m, sender);
    take_hostname(core, sender, m);
    shard_take(core, sender, m);
}

static void heartbeat(struct cluster_core *core, struct cluster_node *sender, const struct cluster_event *ev)
{
    const struct cluster_message *m = ev->message;
    if (m->type != CLUSTER_PONG) {
        learn_my_ip(core, ev);
        if (m->type == CLUSTER_MEET && !sender) welcome(core, ev);
        bool no_lease = sender && lease_is_refused(core, sender, m);
        send_pong(core, ev->link, sender, no_lease);
        if (sender && !no_lease) lease_on_ping(core, sender);
    }
    struct cluster_link *link = link_find(core, ev->link);
    bool on_my_link = link && link == &link->node->out;
    if (on_my_link && !answer_on_my_link(core, link->node, ev)) return;
    if (sender) take_heartbeat(core, sender, ev, on_my_link);
}

/* ---- the other types ---- */

static void take_fail(struct cluster_core *core, const struct cluster_message *m)
{
    struct cluster_node *failed = node_find(core, &m->fail);
    if (!failed || failed == core->myself || failed->flags & (CLUSTER_NODE_FAIL | CLUSTER_NODE_HANDSHAKE)) return;
    failure_set(core, failed, "a peer says so");
}

static void take_update(struct cluster_core *core, const struct cluster_message *m)
{
    struct cluster_node *about = node_find(core, &m->update.id);
    if (!about || about == core->myself || m->update.config_epoch > EPOCH_MAX) return;
    if (about->config_epoch >= m->update.config_epoch) return;
    node_make_primary(core, about);
    about->config_epoch = m->update.config_epoch;
    core->due |= DUE_VITAL;
    slots_take_claim(core, about, m->update.config_epoch, m->update.slots);
}

static void take_other(struct cluster_core *core, struct cluster_node *sender, const struct cluster_event *ev)
{
    const struct cluster_message *m = ev->message;
    switch (m->type) {
    case CLUSTER_FAIL: take_fail(core, m); break;
    case CLUSTER_PUBLISH:
    case CLUSTER_PUBLISHSHARD: act(core, CLUSTER_DO_DELIVER)->message = m; break;
    case CLUSTER_AUTH_REQUEST: election_vote(core, sender, m); break;
    case CLUSTER_AUTH_ACK: election_count_vote(core, sender, m); break;
    case CLUSTER_UPDATE: take_update(core, m); break;
    case CLUSTER_MODULE: noloss_receive(core, sender, m); break; /* there are no modules here */
    case CLUSTER_MFSTART: manual_on_mfstart(core, sender, ev->link); break;
    default: /* of the future */ break;
    }
}

void receive(struct cluster_core *core, const struct cluster_event *ev)
{
    const struct cluster_message *m = ev->message;
    if (m->type < CLUSTER_TYPE_COUNT) core->received[m->type]++;
    if (!(ev->link & CLUSTER_LINK_INBOUND) && !link_find(core, ev->link)) return; /* closed meanwhile */
    if (m->current_epoch > EPOCH_MAX || m->config_epoch > EPOCH_MAX) return;
    struct cluster_node *sender = identify(core, ev);
    if (sender == core->myself && sender) sender = NULL; /* my own MEET came back to me: answered, but no peer */
    bool foreign = sender && !cluster_id_eq(&sender->id, &m->sender); /* another one answers on my link */
    if (sender && !foreign) {
        sender->data_received_ms = core->now.mono_ms;
        gone_cancel(sender);
        take_epochs(core, sender, m);
    }
    if (is_heartbeat(m))
        heartbeat(core, foreign ? NULL : sender, ev);
    else if (sender && !foreign)
        take_other(core, sender, ev);
}
