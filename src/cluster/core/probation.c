/* probation.c: restarted behind.
 *
 * A primary that comes back from a crash with old data, or none, before the others have missed it, would make its
 * replicas copy that.  So it first compares histories with each replica it knows of.  When one is ahead it asks that
 * one to take over; when that comes to nothing it falls silent, so that the failure detection does the same slowly. */
#include "base/mem.h"
#include "cluster/core/internal.h"

static int64_t yield_limit_ms(const struct cluster_core *core)
{
    int64_t t = 2 * core->config.node_timeout_ms;
    return t < 5000 ? 5000 : t;
}

/* PFAIL, FAIL, and an election after the vote lock of an attempt just made. */
static int64_t mute_limit_ms(const struct cluster_core *core)
{
    return 4 * core->config.node_timeout_ms + 5000;
}

static void start_probing(struct cluster_core *core)
{
    struct probation *p = &core->probation;
    const struct cluster_node *me = core->myself;
    mem_free(p->probes);
    p->probes = mem_calloc(me->replica_count ? me->replica_count : 1, sizeof *p->probes);
    p->count = me->replica_count;
    for (size_t i = 0; i < p->count; i++) p->probes[i].node = me->replicas[i]->id;
    p->state = PROBATION_PROBING;
    p->until_ms = core->now.mono_ms + core->config.node_timeout_ms;
    core->due |= DUE_MAP;
}

void probation_begin(struct cluster_core *core, const struct cluster_history *restored)
{
    const struct cluster_node *me = core->myself;
    if (!core->config.probation || !node_is_primary(me) || !me->slot_count || !me->replica_count) return;
    core->probation.mine = *restored;
    start_probing(core);
    note(core, CLUSTER_NOTE_PROBATION_BEGIN, NULL, 0, NULL);
}

void probation_end(struct cluster_core *core)
{
    struct probation *p = &core->probation;
    if (p->state == PROBATION_NONE) return;
    if (p->state == PROBATION_MUTED) state_lost_time(core);
    p->state = PROBATION_NONE;
    mem_free(p->probes);
    p->probes = NULL;
    p->count = 0;
    core->due |= DUE_MAP | DUE_STATE;
}

/* Theirs continues mine.  Histories that do not meet are not comparable, and then the config epoch, which says that I
 * am the primary, decides; but a node with no history at all has lost it.  A file from before my election does not know
 * the history that I began then: a replica that has had my stream in this config epoch has had it from me, and offsets
 * go on across elections. */
static bool is_ahead(const struct cluster_core *core, const struct cluster_history *theirs)
{
    const struct cluster_history *mine = &core->probation.mine;
    if (cluster_id_is_null(&theirs->replid) || theirs->offset == 0) return false;
    if (cluster_id_is_null(&mine->replid)) return true;
    if (cluster_id_eq(&mine->replid, &theirs->replid)) return theirs->offset > mine->offset;
    if (!cluster_id_eq(&mine->replid, &theirs->replid2))
        return theirs->synced_epoch && theirs->synced_epoch == core->myself->config_epoch &&
               theirs->offset > mine->offset;
    return mine->offset <= theirs->offset2 && theirs->offset > mine->offset;
}

static const struct probe *furthest(const struct cluster_core *core)
{
    const struct probation *p = &core->probation;
    const struct probe *best = NULL;
    for (size_t i = 0; i < p->count; i++) {
        const struct probe *b = &p->probes[i];
        if (!b->answered || b->gone || !is_ahead(core, &b->history)) continue;
        if (!best || b->history.offset > best->history.offset) best = b;
    }
    return best;
}

static void aim(struct cluster_core *core, enum cluster_action_kind kind, const struct cluster_node *node)
{
    struct cluster_action *a = act(core, kind);
    a->node = node->id;
    a->port = node->port;
    memcpy(a->ip, node->ip, sizeof a->ip);
}

static void mute(struct cluster_core *core)
{
    struct probation *p = &core->probation;
    p->state = PROBATION_MUTED;
    p->until_ms = core->now.mono_ms + mute_limit_ms(core);
    note(core, CLUSTER_NOTE_MUTED, node_find(core, &p->ahead), 0, NULL);
}

static void decide(struct cluster_core *core)
{
    struct probation *p = &core->probation;
    const struct probe *best = furthest(core);
    const struct cluster_node *node = best ? node_find(core, &best->node) : NULL;
    if (!node) {
        note(core, CLUSTER_NOTE_PROBATION_END, NULL, 0, NULL);
        probation_end(core);
        return;
    }
    p->ahead = node->id;
    p->state = PROBATION_YIELDING;
    p->until_ms = core->now.mono_ms + yield_limit_ms(core);
    note(core, CLUSTER_NOTE_YIELDING, node, 0, NULL);
    aim(core, CLUSTER_DO_YIELD, node);
}

/* True when nothing is left to wait for. */
static bool probe_all(struct cluster_core *core)
{
    struct probation *p = &core->probation;
    bool done = true;
    for (size_t i = 0; i < p->count; i++) {
        struct probe *b = &p->probes[i];
        if (b->answered || b->gone) continue;
        const struct cluster_node *node = node_find(core, &b->node);
        b->gone = !node || node->primary != core->myself;
        if (b->gone) continue;
        done = false;
        /* Only once it has been heard is it known to be my replica still. */
        bool heard = node->offset_at_ms != 0 && node->ip[0];
        if (!heard || (b->asked_ms && core->now.mono_ms - b->asked_ms < PROBE_RETRY_MS)) continue;
        b->asked_ms = core->now.mono_ms;
        aim(core, CLUSTER_DO_PROBE, node);
    }
    return done;
}

void probation_tick(struct cluster_core *core)
{
    struct probation *p = &core->probation;
    if (p->state == PROBATION_NONE) return;
    if (!node_is_primary(core->myself) || !core->myself->slot_count) {
        probation_end(core);
        return;
    }
    bool over = core->now.mono_ms >= p->until_ms;
    if (p->state == PROBATION_PROBING) {
        if (probe_all(core) || over) decide(core);
    } else if (p->state == PROBATION_YIELDING && over) {
        mute(core);
    } else if (p->state == PROBATION_MUTED && over) {
        state_lost_time(core);
        start_probing(core);
    }
}

void probation_on_probed(struct cluster_core *core, const struct cluster_event *ev)
{
    struct probation *p = &core->probation;
    if (p->state != PROBATION_PROBING || !ev->ok) return;
    for (size_t i = 0; i < p->count; i++) {
        if (!cluster_id_eq(&p->probes[i].node, &ev->node)) continue;
        p->probes[i].answered = true;
        p->probes[i].history = ev->history;
    }
    probation_tick(core);
}

void probation_on_yielded(struct cluster_core *core, const struct cluster_event *ev)
{
    struct probation *p = &core->probation;
    if (p->state == PROBATION_YIELDING && !ev->ok && cluster_id_eq(&p->ahead, &ev->node)) mute(core);
}

bool cluster_on_probation(const struct cluster_core *core)
{
    return core->probation.state != PROBATION_NONE;
}
