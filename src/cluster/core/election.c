/* election.c: a replica replaces its failed primary; primaries vote.
 * Safety rests on the voters alone: each votes once in an epoch, durably, so two candidates cannot both have a majority
 * in one epoch.  Delays and ranks only make it likely that the best replica asks first. */
#include "cluster/core/internal.h"

int64_t election_vote_counts_ms(const struct cluster_core *core)
{
    int64_t t = 2 * core->config.node_timeout_ms;
    return t < 2000 ? 2000 : t;
}

static bool is_manual(const struct cluster_core *core)
{
    return core->manual.end_ms && core->manual.can_start;
}

/* Replicas of my primary that hold more than I do. */
static unsigned rank(const struct cluster_core *core)
{
    const struct cluster_node *p = core->myself->primary;
    unsigned r = 0;
    if (core->config.plant == CLUSTER_PLANT_ANYBODY_STANDS) return 0;
    for (size_t i = 0; i < p->replica_count; i++) {
        const struct cluster_node *n = p->replicas[i];
        if (n == core->myself || n->flags & CLUSTER_NODE_NOFAILOVER) continue;
        r += n->offset > core->facts.applied_offset;
    }
    return r;
}

static bool data_too_old(const struct cluster_core *core)
{
    const struct cluster_config *c = &core->config;
    const struct cluster_facts *f = &core->facts;
    if (c->replica_validity_factor == 0) return false;
    if (!f->link_up && f->link_down_since_ms == 0) return true; /* never in sync */
    int64_t age = core->now.mono_ms - (f->link_up ? f->last_interaction_ms : f->link_down_since_ms);
    if (age > c->node_timeout_ms) age -= c->node_timeout_ms;
    return age > (int64_t)c->repl_ping_period_s * 1000 + c->node_timeout_ms * c->replica_validity_factor;
}

static void unseal(struct cluster_core *core)
{
    if (core->election.sealed) act(core, CLUSTER_DO_UNSEAL);
    core->election.sealed = false;
}

static void blocked(struct cluster_core *core, const char *reason)
{
    if (core->election.blocked == reason) return;
    core->election.blocked = reason;
    note(core, CLUSTER_NOTE_ELECTION_BLOCKED, core->myself->primary, 0, reason);
}

static bool may_stand(struct cluster_core *core)
{
    const struct cluster_node *p = core->myself->primary;
    bool manual = is_manual(core);
    if (!node_is_replica(core->myself) || !p || p->slot_count == 0 || bus_silent(core)) return false;
    if (!(p->flags & CLUSTER_NODE_FAIL) && !manual) {
        core->election.blocked = NULL;
        return false;
    }
    if (manual && core->manual.offset_known) return true; /* it has what its primary stopped at */
    const char *lacking = noloss_why_not_stand(core, manual);
    if (lacking) {
        blocked(core, lacking);
        return false;
    }
    if (manual) return true;
    if (core->config.replica_no_failover) return false;
    if (data_too_old(core)) {
        blocked(core, "its data is too old");
        return false;
    }
    return true;
}

/* The delay is there for a majority to see the failure: what is gone has been seen by it.  Several replicas still have
 * to learn of each other's offsets. */
static int64_t first_delay_ms(struct cluster_core *core)
{
    const struct cluster_node *p = core->myself->primary;
    if (!p->gone) return 500 + (int64_t)random_below(&core->random, 500);
    return p->replica_count > 1 ? 50 + (int64_t)random_below(&core->random, 50) : 0;
}

static int64_t rank_delay_ms(const struct cluster_core *core)
{
    return core->myself->primary->gone ? 200 : 1000;
}

static void schedule(struct cluster_core *core)
{
    struct election *e = &core->election;
    int64_t delay = 0;
    e->rank = 0;
    if (!is_manual(core)) {
        e->rank = rank(core);
        delay = first_delay_ms(core) + (int64_t)e->rank * rank_delay_ms(core);
    }
    e->at_ms = core->now.mono_ms + delay;
    e->votes = 0;
    e->sent = e->expired_noted = false;
    e->blocked = NULL;
    unseal(core);
    note(core, CLUSTER_NOTE_ELECTION_SCHEDULED, core->myself->primary, (uint64_t)delay, NULL);
    broadcast_pong(core, PONG_TO_SHARD);
}

/* Offsets heard since the schedule was made may put me further back; never further ahead, so that nobody overtakes. */
static void reconsider_rank(struct cluster_core *core)
{
    struct election *e = &core->election;
    unsigned r = rank(core);
    if (r <= e->rank) return;
    e->at_ms += (int64_t)(r - e->rank) * rank_delay_ms(core);
    e->rank = r;
}

static void ask_for_votes(struct cluster_core *core)
{
    struct election *e = &core->election;
    core->current_epoch++;
    core->due |= DUE_VITAL;
    e->epoch = core->current_epoch;
    e->needed = size_now(core) / 2 + 1;
    e->sent = true;
    if (!e->sealed) act(core, CLUSTER_DO_SEAL);
    e->sealed = true;
    note(core, CLUSTER_NOTE_ELECTION_STARTED, core->myself->primary, e->epoch, is_manual(core) ? "manual" : NULL);
    broadcast_auth_request(core);
}

static void expire(struct cluster_core *core)
{
    struct election *e = &core->election;
    unseal(core);
    if (e->expired_noted) return;
    e->expired_noted = true;
    note(core, CLUSTER_NOTE_ELECTION_EXPIRED, core->myself->primary, e->epoch, NULL);
}

void election_run(struct cluster_core *core)
{
    struct election *e = &core->election;
    if (!may_stand(core)) {
        unseal(core);
        return;
    }
    if (core->now.mono_ms - e->at_ms > 2 * election_vote_counts_ms(core)) {
        schedule(core);
        if (!is_manual(core)) return;
    }
    if (!e->sent && !is_manual(core)) reconsider_rank(core);
    if (core->now.mono_ms < e->at_ms) return;
    if (core->now.mono_ms - e->at_ms > election_vote_counts_ms(core)) {
        expire(core);
        return;
    }
    if (!e->sent) {
        ask_for_votes(core);
        return;
    }
    /* Who voted was one of so many then; that there are fewer primaries by now makes it no majority. */
    size_t needed = size_now(core) / 2 + 1;
    if (e->votes < (needed > e->needed ? needed : e->needed)) return;
    struct cluster_node *me = core->myself, *old = me->primary;
    if (me->config_epoch < e->epoch) me->config_epoch = e->epoch;
    note(core, CLUSTER_NOTE_PROMOTED, old, me->config_epoch, is_manual(core) ? "manual" : NULL);
    promote_myself(core);
}

/* A vote is counted once per voter even if its message comes twice. */
void election_count_vote(struct cluster_core *core, struct cluster_node *sender, const struct cluster_message *m)
{
    struct election *e = &core->election;
    if (!e->sent || !node_is_primary(sender) || !sender->slot_count || m->current_epoch < e->epoch) return;
    if (sender->acked_epoch == e->epoch) return;
    sender->acked_epoch = e->epoch;
    e->votes++;
    core->due |= DUE_ELECTION;
}

/* ---- the voter ---- */

static bool claims_are_current(const struct cluster_core *core, const struct cluster_message *m)
{
    for (unsigned s = cluster_bit_next(m->slots, 0); s < SLOT_COUNT; s = cluster_bit_next(m->slots, s + 1))
        if (!slot_unclaimed(core, s) && core->owner[s]->config_epoch > m->config_epoch) return false;
    return true;
}

static const char *why_not(const struct cluster_core *core, const struct cluster_node *sender,
                           const struct cluster_message *m)
{
    const struct cluster_node *p = sender->primary;
    bool planted_epoch = core->config.plant == CLUSTER_PLANT_OLD_EPOCH;
    bool planted_twice = core->config.plant == CLUSTER_PLANT_VOTE_TWICE;
    if (m->current_epoch < core->current_epoch && !planted_epoch) return "its epoch is old";
    if (core->last_vote_epoch >= core->current_epoch && !planted_twice) return "I voted in this epoch";
    if (!node_is_replica(sender)) return "it is not a replica";
    if (!p) return "its primary is unknown";
    bool agreed = m->mflags & CLUSTER_MSG_FORCEACK;
    if (!(p->flags & CLUSTER_NODE_FAIL) && !agreed) return "its primary is up";
    const char *leased = agreed ? NULL : lease_why_no_vote(core, p);
    if (leased) return leased;
    if (core->now.mono_ms - p->voted_ms < 2 * core->config.node_timeout_ms && !planted_twice)
        return "I voted for a replica of that primary a short time ago";
    if (!claims_are_current(core, m) && !planted_epoch) return "it claims slots that have a newer owner";
    if (noloss_is_excluded(core, p, sender)) return "its primary has excluded it";
    /* A vote that cannot be delivered is not given: it would only spoil this epoch for others. */
    if (!sender->out.up) return "I have no link to it";
    return NULL;
}

void election_vote(struct cluster_core *core, struct cluster_node *sender, const struct cluster_message *m)
{
    struct cluster_node *me = core->myself;
    if (!node_is_primary(me) || !me->slot_count || bus_silent(core)) return;
    const char *reason = why_not(core, sender, m);
    if (reason) {
        note(core, CLUSTER_NOTE_VOTE_DENIED, sender, m->current_epoch, reason);
        return;
    }
    core->last_vote_epoch = core->current_epoch;
    sender->primary->voted_ms = core->now.mono_ms;
    sender->primary->voted_epoch = m->mflags & CLUSTER_MSG_FORCEACK ? 0 : core->current_epoch;
    core->due |= DUE_VITAL;
    note(core, CLUSTER_NOTE_VOTE_GRANTED, sender, core->current_epoch, NULL);
    send_simple(core, sender, CLUSTER_AUTH_ACK);
}
