/* actions.c: the list of actions, and the frame of a step. */
#include "base/mem.h"
#include "cluster/core/internal.h"

#include <stdarg.h>
#include <stdio.h>

void cluster_actions_deinit(struct cluster_actions *out)
{
    for (size_t i = 0; i < out->outgoing_cap; i++) {
        mem_free(out->outgoing[i]->gossip);
        mem_free(out->outgoing[i]);
    }
    mem_free(out->outgoing);
    mem_free(out->actions);
    buf_deinit(&out->persist_text);
    memset(out, 0, sizeof *out);
}

struct cluster_outgoing *outgoing_new(struct cluster_actions *out)
{
    if (out->outgoing_count == out->outgoing_cap) {
        size_t cap = out->outgoing_cap ? out->outgoing_cap * 2 : 4;
        out->outgoing = mem_realloc(out->outgoing, cap * sizeof *out->outgoing);
        for (size_t i = out->outgoing_cap; i < cap; i++) out->outgoing[i] = mem_calloc(1, sizeof **out->outgoing);
        out->outgoing_cap = cap;
    }
    struct cluster_outgoing *o = out->outgoing[out->outgoing_count++];
    memset(&o->m, 0, sizeof o->m);
    return o;
}

struct cluster_action *act(struct cluster_core *core, enum cluster_action_kind kind)
{
    struct cluster_actions *out = core->out;
    GROW(out->actions, out->cap, out->count + 1);
    struct cluster_action *a = &out->actions[out->count++];
    memset(a, 0, sizeof *a);
    a->kind = kind;
    return a;
}

void note(struct cluster_core *core, enum cluster_note what, const struct cluster_node *node, uint64_t epoch,
          const char *reason)
{
    struct cluster_action *a = act(core, CLUSTER_DO_NOTE);
    a->note = what;
    if (node) a->node = node->id;
    a->epoch = epoch;
    a->reason = reason;
}

bool fail_with(struct cluster_error *err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    return false;
}

void step_begin(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out)
{
    out->count = 0;
    out->outgoing_count = 0;
    out->persist_text.n = 0;
    memset(out->delete_slots, 0, sizeof out->delete_slots);
    core->out = out;
    core->now = now;
}

/* Votes, epochs and roles are promises to others: while one of them is not durable, nothing leaves that might tell of
 * it.  Holding every message is more than needed, but then no message has to be proven innocent. */
static void hold_messages(struct cluster_core *core)
{
    if (core->vital_seq <= core->persisted_seq) return;
    for (size_t i = 0; i < core->out->count; i++) {
        struct cluster_action *a = &core->out->actions[i];
        if (a->kind == CLUSTER_DO_SEND) a->after_persist = core->vital_seq;
    }
}

static void persist(struct cluster_core *core)
{
    core->persist_seq++;
    if (core->due & DUE_VITAL) core->vital_seq = core->persist_seq;
    cluster_render_nodes_conf(core, core->now, &core->out->persist_text);
    struct cluster_action *a = act(core, CLUSTER_DO_PERSIST);
    a->seq = core->persist_seq;
    a->durable = core->due & DUE_VITAL;
}

static void publish_map(struct cluster_core *core)
{
    bool all = core->due & DUE_MAP;
    struct cluster_action *a = act(core, CLUSTER_DO_PUBLISH_MAP);
    a->first_slot = (uint16_t)(all ? 0 : core->map_first);
    a->last_slot = (uint16_t)(all ? SLOT_COUNT - 1 : core->map_last);
}

void map_slot(struct cluster_core *core, unsigned slot)
{
    bool fresh = !(core->due & DUE_MAP_SLOTS);
    if (fresh || slot < core->map_first) core->map_first = slot;
    if (fresh || slot > core->map_last) core->map_last = slot;
    core->due |= DUE_MAP_SLOTS;
}

void step_end(struct cluster_core *core)
{
    if (core->due & DUE_ADDRESS) wire_replication(core);
    if (core->due & DUE_MANUAL) manual_run(core);
    if (core->due & DUE_ELECTION) election_run(core);
    if (core->due & DUE_STATE) state_update(core);
    if (core->due & (DUE_LEASE | DUE_MAP | DUE_MAP_SLOTS | DUE_STATE)) lease_update(core);
    if (core->due & (DUE_SAVE | DUE_VITAL)) persist(core);
    hold_messages(core);
    if (core->due & (DUE_MAP | DUE_MAP_SLOTS)) publish_map(core);
    core->due = 0;
}

static const char *note_format(enum cluster_note what)
{
    static const char *const text[CLUSTER_NOTE_COUNT] = {
        [CLUSTER_NOTE_MEET] = NULL,
        [CLUSTER_NOTE_JOINED] = "Node %.40s is known now",
        [CLUSTER_NOTE_FORGOTTEN] = "Node %.40s is forgotten",
        [CLUSTER_NOTE_PFAIL] = "Node %.40s does not answer (PFAIL)",
        [CLUSTER_NOTE_FAIL] = "Marking node %.40s as failing",
        [CLUSTER_NOTE_FAIL_CLEARED] = "Clear FAIL state for node %.40s",
        [CLUSTER_NOTE_ELECTION_SCHEDULED] = "Election for the place of %.40s begins in %llu ms",
        [CLUSTER_NOTE_ELECTION_STARTED] = "Asking for votes to replace %.40s, epoch %llu",
        [CLUSTER_NOTE_ELECTION_EXPIRED] = "Election to replace %.40s expired, epoch %llu",
        [CLUSTER_NOTE_ELECTION_BLOCKED] = "Cannot stand for the place of %.40s",
        [CLUSTER_NOTE_PROMOTED] = "Failover election won: I am the new primary in place of %.40s, epoch %llu",
        [CLUSTER_NOTE_VOTE_GRANTED] = "Failover auth granted to %.40s for epoch %llu",
        [CLUSTER_NOTE_VOTE_DENIED] = "Failover auth denied to %.40s, epoch %llu",
        [CLUSTER_NOTE_EPOCH_COLLISION] = "configEpoch collision with node %.40s, mine is %llu now",
        [CLUSTER_NOTE_EPOCH_BUMPED] = NULL,
        [CLUSTER_NOTE_DEMOTED] = "All my slots moved: replica of %.40s now",
        [CLUSTER_NOTE_REPLICA_OF] = "Replica of %.40s now",
        [CLUSTER_NOTE_REPLICA_MIGRATED] = "Migrating to orphaned primary %.40s",
        [CLUSTER_NOTE_MF_STARTED] = "Manual failover started with %.40s",
        [CLUSTER_NOTE_MF_TIMEOUT] = "Manual failover timed out (%.40s)",
        [CLUSTER_NOTE_STATE_OK] = "Cluster state changed: ok",
        [CLUSTER_NOTE_STATE_FAIL] = "Cluster state changed: fail",
        [CLUSTER_NOTE_MINORITY_HEALED] = "A majority of primaries is reachable again",
        [CLUSTER_NOTE_PROBATION_BEGIN] = "Restarted as a primary: comparing data with my replicas before serving",
        [CLUSTER_NOTE_PROBATION_END] = "No replica is ahead of me: serving",
        [CLUSTER_NOTE_YIELDING] = "Replica %.40s has newer data: yielding to it",
        [CLUSTER_NOTE_MUTED] = "Replica %.40s did not take over when asked: silent until it is elected",
        [CLUSTER_NOTE_EXCLUDED] = "Replica %.40s does not acknowledge: asking the voters not to elect it",
        [CLUSTER_NOTE_ADDRESS] = "Address updated for node %.40s",
    };
    return text[what];
}

bool cluster_note_text(const struct cluster_action *a, struct buf *out)
{
    const char *format = note_format(a->note);
    if (!format) return false;
        /* The formats take the id, then the epoch; the ones that use neither or one leave the rest unused. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    buf_printf(out, format, a->node.c, (unsigned long long)a->epoch);
#pragma GCC diagnostic pop
    if (a->reason) buf_printf(out, ": %s", a->reason);
    return true;
}
