/* manual.c: CLUSTER FAILOVER.
 *
 *   replica                                primary
 *   FAILOVER
 *   MFSTART  ------------------------->    pause writers, wait until they stand still
 *            <-------------------------    PING, PAUSED, offset
 *   apply up to that offset
 *   AUTH_REQUEST, FORCEACK to everybody
 *
 * FORCE leaves the primary out; TAKEOVER leaves the voters out, too. */
#include "cluster/core/internal.h"

void manual_reset(struct cluster_core *core)
{
    if (core->manual.end_ms && core->manual.replica) act(core, CLUSTER_DO_UNPAUSE);
    memset(&core->manual, 0, sizeof core->manual);
}

void manual_check_timeout(struct cluster_core *core)
{
    if (!core->manual.end_ms || core->now.mono_ms <= core->manual.end_ms) return;
    note(core, CLUSTER_NOTE_MF_TIMEOUT, core->manual.replica ? core->manual.replica : core->myself->primary, 0, NULL);
    manual_reset(core);
}

/* Replica: may the election begin? */
void manual_run(struct cluster_core *core)
{
    struct manual *mf = &core->manual;
    if (!mf->end_ms || !node_is_replica(core->myself)) return;
    if (!mf->can_start && mf->offset_known && core->facts.applied_offset >= mf->offset) mf->can_start = true;
    if (mf->can_start) core->due |= DUE_ELECTION;
}

bool cluster_waits_for_offset(const struct cluster_core *core)
{
    const struct manual *mf = &core->manual;
    return mf->end_ms && node_is_replica(core->myself) && !mf->can_start;
}

void manual_on_mfstart(struct cluster_core *core, struct cluster_node *sender, uint64_t link)
{
    if (!node_is_primary(core->myself) || sender->primary != core->myself) return;
    manual_reset(core);
    core->manual.end_ms = core->now.mono_ms + MF_LIMIT_MS;
    core->manual.replica = sender;
    core->manual.reply_link = link;
    note(core, CLUSTER_NOTE_MF_STARTED, sender, 0, "a replica asked for it");
    act(core, CLUSTER_DO_PAUSE_WRITES)->until_ms = core->now.mono_ms + MF_PAUSE_MS;
}

/* Primary: only now is the offset final, so only now does a header say PAUSED. */
void manual_on_paused(struct cluster_core *core)
{
    struct manual *mf = &core->manual;
    if (!mf->end_ms || !mf->replica || mf->paused) return;
    mf->paused = true;
    if (mf->replica->in.id == mf->reply_link) send_ping_type(core, mf->reply_link, mf->replica, CLUSTER_PING);
}

void manual_on_header(struct cluster_core *core, struct cluster_node *sender, const struct cluster_message *m)
{
    struct manual *mf = &core->manual;
    if (!mf->end_ms || mf->offset_known || sender != core->myself->primary || !(m->mflags & CLUSTER_MSG_PAUSED)) return;
    mf->offset = m->offset;
    mf->offset_known = true;
    core->due |= DUE_MANUAL;
}

/* Replica: a connection that is being opened, as after a start, is waited for. */
static void ask_primary(struct cluster_core *core)
{
    struct cluster_node *p = core->myself->primary;
    core->manual.unasked = !p->out.up;
    send_simple(core, p, CLUSTER_MFSTART);
}

void manual_on_connected(struct cluster_core *core, const struct cluster_node *node)
{
    if (core->manual.unasked && node == core->myself->primary) ask_primary(core);
}

static bool failover_mode(const struct bytes *mode, bool *force, bool *takeover)
{
    *force = mode && bytes_ieq(*mode, BYTES("force"));
    *takeover = mode && bytes_ieq(*mode, BYTES("takeover"));
    return !mode || *force || *takeover;
}

static bool failover_possible(const struct cluster_core *core, bool unforced, struct cluster_error *err)
{
    const struct cluster_node *p = core->myself->primary;
    if (!node_is_replica(core->myself)) return fail_with(err, "You should send CLUSTER FAILOVER to a replica");
    if (!p) return fail_with(err, "I'm a replica but my master is unknown to me");
    if (unforced && (p->flags & CLUSTER_NODE_FAIL || !p->out.id))
        return fail_with(err, "Master is down or failed, please use CLUSTER FAILOVER FORCE");
    return true;
}

static void failover_begin(struct cluster_core *core, bool force, bool takeover)
{
    struct cluster_node *p = core->myself->primary;
    const char *mode = takeover ? "takeover" : force ? "force" : "in agreement with the primary";
    manual_reset(core);
    core->manual.end_ms = core->now.mono_ms + MF_LIMIT_MS;
    core->election.at_ms = LONG_AGO; /* an earlier attempt shall not stand in the way */
    core->election.sent = false;
    note(core, CLUSTER_NOTE_MF_STARTED, p, 0, mode);
    if (takeover) {
        epoch_bump(core);
        note(core, CLUSTER_NOTE_PROMOTED, p, core->myself->config_epoch, mode);
        promote_myself(core);
    } else if (force) {
        core->manual.can_start = true;
        core->due |= DUE_MANUAL;
    } else {
        ask_primary(core);
    }
}

bool cluster_failover(struct cluster_core *core, const struct bytes *mode, struct cluster_time now,
                      struct cluster_error *err, struct cluster_actions *out)
{
    bool force, takeover;
    step_begin(core, now, out);
    if (!failover_mode(mode, &force, &takeover)) return fail_with(err, "syntax error");
    if (!failover_possible(core, !force && !takeover, err)) return false;
    failover_begin(core, force, takeover);
    step_end(core);
    return true;
}
