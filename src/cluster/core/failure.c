/* failure.c: from silence to PFAIL, from a majority's PFAIL to FAIL, and back. */
#include "base/mem.h"
#include "cluster/core/internal.h"

static void report_drop(struct cluster_node *node, size_t i)
{
    node->reports[i] = node->reports[--node->report_count];
}

bool report_add(struct cluster_core *core, struct cluster_node *node, struct cluster_node *reporter)
{
    for (size_t i = 0; i < node->report_count; i++) {
        if (node->reports[i].reporter != reporter) continue;
        node->reports[i].at_ms = core->now.mono_ms;
        return false;
    }
    GROW(node->reports, node->report_cap, node->report_count + 1);
    node->reports[node->report_count++] = (struct failure_report){reporter, core->now.mono_ms};
    return true;
}

bool report_remove(struct cluster_node *node, const struct cluster_node *reporter)
{
    for (size_t i = 0; i < node->report_count; i++) {
        if (node->reports[i].reporter != reporter) continue;
        report_drop(node, i);
        return true;
    }
    return false;
}

size_t reports_valid(struct cluster_core *core, struct cluster_node *node)
{
    int64_t oldest = core->now.mono_ms - 2 * core->config.node_timeout_ms;
    for (size_t i = 0; i < node->report_count;) {
        if (node->reports[i].at_ms < oldest)
            report_drop(node, i);
        else
            i++;
    }
    return node->report_count;
}

void failure_set(struct cluster_core *core, struct cluster_node *node, const char *reason)
{
    node_set_flags(core, node, CLUSTER_NODE_FAIL, CLUSTER_NODE_PFAIL);
    node->fail_ms = core->now.mono_ms;
    core->due |= DUE_SAVE | DUE_STATE | DUE_ELECTION;
    note(core, CLUSTER_NOTE_FAIL, node, 0, reason);
}

void failure_try_quorum(struct cluster_core *core, struct cluster_node *node)
{
    if (!(node->flags & CLUSTER_NODE_PFAIL) || node->flags & CLUSTER_NODE_FAIL) return;
    size_t votes = reports_valid(core, node) + node_is_primary(core->myself);
    if (votes < size_now(core) / 2 + 1) return;
    failure_set(core, node, "a majority of primaries reports it");
    broadcast_fail(core, node);
}

void failure_suspect(struct cluster_core *core, struct cluster_node *node, const char *why)
{
    node_set_flags(core, node, CLUSTER_NODE_PFAIL, 0);
    core->due |= DUE_STATE;
    note(core, CLUSTER_NOTE_PFAIL, node, 0, why);
    /* The only voter there is waits for nobody's gossip. */
    if (size_now(core) == 1 && node_is_primary(core->myself) && core->myself->slot_count)
        failure_try_quorum(core, node);
}

void failure_heard_pong(struct cluster_core *core, struct cluster_node *node)
{
    if (node->flags & CLUSTER_NODE_PFAIL) {
        node_set_flags(core, node, 0, CLUSTER_NODE_PFAIL);
        core->due |= DUE_STATE | DUE_SAVE;
    }
    if (!(node->flags & CLUSTER_NODE_FAIL)) return;
    /* A primary with slots gets some time to be replaced before its return is believed; nothing but that time waits
     * for a node without slots. */
    bool serves = node_is_primary(node) && node->slot_count;
    if (serves && core->now.mono_ms - node->fail_ms <= 2 * core->config.node_timeout_ms) return;
    node_set_flags(core, node, 0, CLUSTER_NODE_FAIL);
    core->due |= DUE_STATE | DUE_SAVE;
    note(core, CLUSTER_NOTE_FAIL_CLEARED, node, 0, serves ? "nobody took its slots" : "it has no slots");
}

bool cluster_count_failure_reports(struct cluster_core *core, struct bytes id, size_t *count, struct cluster_time now,
                                   struct cluster_error *err)
{
    struct cluster_id parsed;
    struct cluster_node *node = cluster_id_parse(id, &parsed) ? node_find(core, &parsed) : NULL;
    if (!node) return fail_with(err, "Unknown node %.*s", (int)(id.n < 200 ? id.n : 200), id.p);
    core->now = now;
    *count = reports_valid(core, node);
    return true;
}
