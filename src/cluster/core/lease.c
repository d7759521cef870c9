/* lease.c: a primary's right to write (docs/durability.md).
 *
 * A primary may execute and acknowledge for 0.8 x node timeout from the sending of the pings that a majority of the
 * primaries has answered.  A voter does not vote for a replica of a primary within the node timeout of its last answer
 * to it, and says so in its answers while a vote that it gave may still decide an election.  Any two majorities have a
 * member in common, so whoever is elected is elected after the old primary's right has ended: its ping left before that
 * member answered it, and the fifth that is missing covers clocks that do not run equally fast.
 *
 * Plain Redis voters do not wait like that.  They vote only when the primary has failed, and that is said by a majority
 * each of which has not heard it for the node timeout, so the same holds while their reports are fresh.
 *
 * A manual failover (FORCEACK) does not wait: the primary has paused, or the operator has decided. */
#include "cluster/core/internal.h"

#include <stdlib.h>

static bool is_voter(const struct cluster_node *node)
{
    return node_is_primary(node) && node->slot_count;
}

/* ---- the primary ---- */

void lease_ping_sent(struct cluster_core *core, struct cluster_node *node)
{
    if (node->lease_ping_ms) return; /* the next answer may be to the one before */
    node->lease_ping_ms = core->now.mono_ms;
    node->lease_ping_epoch = core->current_epoch;
}

/* A voter that knows of a later epoch than I did when I asked may have voted in it for a replica of mine.  I know of it
 * by now, so the next answer counts unless it says otherwise. */
void lease_on_pong(struct cluster_core *core, struct cluster_node *node, const struct cluster_message *m)
{
    int64_t sent = node->lease_ping_ms;
    node->lease_ping_ms = 0;
    if (sent) noloss_on_pong(core, node, sent);
    if (m->covey & CLUSTER_COVEY_NO_LEASE) node->lease_ms = 0;
    core->due |= DUE_LEASE;
    if (!sent || m->covey & CLUSTER_COVEY_NO_LEASE || m->current_epoch > node->lease_ping_epoch) return;
    node->lease_ms = sent;
}

void lease_drop(struct cluster_core *core, struct cluster_node *node)
{
    node->lease_ms = 0;
    if (!node->out.up) node->lease_ping_ms = 0; /* no answer will come; on a link that is still there one may */
    core->due |= DUE_LEASE;
}

bool lease_needs_ping(const struct cluster_core *core, const struct cluster_node *node)
{
    if (!node_is_primary(core->myself) || !is_voter(node)) return false;
    return core->now.mono_ms - node->lease_ms >= core->config.node_timeout_ms / 4;
}

void lease_refresh(struct cluster_core *core)
{
    for (size_t i = 0; i < core->node_count; i++) {
        struct cluster_node *node = core->nodes[i];
        if (node == core->myself || !node->out.up || node->ping_sent_ms || !lease_needs_ping(core, node)) continue;
        send_ping(core, node);
    }
}

static int latest_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

int64_t cluster_lease_until(const struct cluster_core *core)
{
    return core->lease_until;
}

static int64_t lease_end(const struct cluster_core *core)
{
    enum { VOTERS_MAX = 1024 };
    int64_t sent[VOTERS_MAX];
    const struct cluster_node *me = core->myself;
    size_t voters = is_voter(me), n = 0;
    if (!node_is_primary(me)) return INT64_MAX;
    for (size_t i = 0; i < core->node_count; i++) {
        const struct cluster_node *node = core->nodes[i];
        if (node == me || !is_voter(node)) continue;
        voters++;
        if (node->lease_ms && n < VOTERS_MAX) sent[n++] = node->lease_ms;
    }
    if (voters == 0) return INT64_MAX;
    size_t needed = voters / 2 + 1 - is_voter(me); /* besides myself */
    if (needed == 0) return INT64_MAX;
    if (n < needed) return 0;
    qsort(sent, n, sizeof *sent, latest_first);
    return sent[needed - 1] + core->config.node_timeout_ms * 4 / 5;
}

void lease_update(struct cluster_core *core)
{
    core->lease_until = lease_end(core);
}

/* ---- the voter ---- */

void lease_on_ping(struct cluster_core *core, struct cluster_node *sender)
{
    sender->ponged_ms = core->now.mono_ms;
}

static bool claims_what_was_taken(const struct cluster_core *core, const struct cluster_node *node,
                                  const struct cluster_message *m)
{
    if (memcmp(node->slots, m->slots, CLUSTER_SLOT_BYTES) == 0) return false;
    for (unsigned s = cluster_bit_next(m->slots, 0); s < SLOT_COUNT; s = cluster_bit_next(m->slots, s + 1)) {
        const struct cluster_node *owner = core->owner[s];
        if (owner && owner != node && owner->config_epoch > m->config_epoch) return true;
    }
    return false;
}

bool lease_is_refused(const struct cluster_core *core, const struct cluster_node *node, const struct cluster_message *m)
{
    if (!cluster_id_is_null(&m->replica_of)) return false;
    /* Another one may have been elected into my own place, and speak for it. */
    if (state_is_rejoining(core)) return true;
    bool voted =
        node->voted_epoch > m->config_epoch && core->now.mono_ms - node->voted_ms < election_vote_counts_ms(core);
    return voted || claims_what_was_taken(core, node, m);
}

const char *lease_why_no_vote(const struct cluster_core *core, const struct cluster_node *p)
{
    int64_t now = core->now.mono_ms, timeout = core->config.node_timeout_ms;
    if (p->gone) return NULL; /* what is not there acknowledges nothing */
    if (now - core->started_ms < timeout) return "I have just started, and may have answered its primary before";
    if (p->ponged_ms && now - p->ponged_ms < timeout) return "I answered its primary a short time ago";
    return NULL;
}
