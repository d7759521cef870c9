/* state.c: is the cluster up, as this node sees it? */
#include "cluster/core/internal.h"

static size_t reachable_primaries(const struct cluster_core *core)
{
    size_t n = 0;
    for (size_t i = 0; i < core->node_count; i++) {
        const struct cluster_node *node = core->nodes[i];
        if (node_is_primary(node) && node->slot_count && !(node->flags & (CLUSTER_NODE_FAIL | CLUSTER_NODE_PFAIL))) n++;
    }
    return n;
}

static const char *coverage_gap(const struct cluster_core *core)
{
    if (!core->config.require_full_coverage) return NULL;
    if (core->slots_assigned < SLOT_COUNT) return "not all slots are assigned";
    for (size_t i = 0; i < core->node_count; i++)
        if (core->nodes[i]->slot_count && core->nodes[i]->flags & CLUSTER_NODE_FAIL) return "slots of a failed node";
    return NULL;
}

static int64_t rejoin_delay_ms(const struct cluster_core *core)
{
    int64_t nt = core->config.node_timeout_ms;
    return nt < REJOIN_DELAY_MIN_MS ? REJOIN_DELAY_MIN_MS : nt > REJOIN_DELAY_MAX_MS ? REJOIN_DELAY_MAX_MS : nt;
}

bool state_is_rejoining(const struct cluster_core *core)
{
    return core->minority || core->now.mono_ms - core->minority_ms < rejoin_delay_ms(core);
}

/* A primary does not serve at once: after a start, or in sight of a majority again, it first gives the others time to
 * tell it that it was replaced. */
static bool must_wait(const struct cluster_core *core)
{
    int64_t now = core->now.mono_ms;
    if (!node_is_primary(core->myself)) return false;
    return now - core->first_evaluation_ms < WRITABLE_DELAY_MS || now - core->cut_off_ms < rejoin_delay_ms(core);
}

static void set_state(struct cluster_core *core, bool ok, const char *reason)
{
    core->state_ok = ok;
    core->due |= DUE_MAP;
    note(core, ok ? CLUSTER_NOTE_STATE_OK : CLUSTER_NOTE_STATE_FAIL, NULL, 0, reason);
}

void state_update(struct cluster_core *core)
{
    if (core->first_evaluation_ms == LONG_AGO) core->first_evaluation_ms = core->now.mono_ms;
    const char *reason = coverage_gap(core);
    bool minority = reachable_primaries(core) < size_now(core) / 2 + 1;
    if (minority) {
        core->minority_ms = core->now.mono_ms;
        /* Without any slots there is no majority that could have gone on elsewhere: a new cluster waits for nobody. */
        if (size_now(core)) core->cut_off_ms = core->now.mono_ms;
        reason = "no majority of primaries is reachable";
    }
    if (core->minority && !minority && size_now(core)) note(core, CLUSTER_NOTE_MINORITY_HEALED, NULL, 0, NULL);
    core->minority = minority && size_now(core);
    bool ok = !reason;
    if (ok == core->state_ok || (ok && must_wait(core))) return;
    set_state(core, ok, reason);
}

/* A frozen process finds the world changed, and does not know how.  It takes itself for the minority it was, and its
 * peers for as fresh as before the freeze. */
void state_lost_time(struct cluster_core *core)
{
    core->minority_ms = core->cut_off_ms = core->now.mono_ms;
    for (size_t i = 0; i < core->node_count; i++) {
        struct cluster_node *node = core->nodes[i];
        if (node->ping_sent_ms) node->ping_sent_ms = core->now.mono_ms;
        node->data_received_ms = core->now.mono_ms;
    }
    if (core->state_ok && node_is_primary(core->myself)) set_state(core, false, "this process stood still too long");
    core->due |= DUE_STATE;
}

bool cluster_state_ok(const struct cluster_core *core)
{
    return core->state_ok && core->probation.state == PROBATION_NONE && core->serve_after_seq <= core->persisted_seq;
}
