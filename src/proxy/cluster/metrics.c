/* metrics.c: what /metrics has of the cluster. */
#include "proxy/cluster/cluster.h"

#include "base/mem.h"
#include "observe/prometheus.h"
#include "proxy/cluster/sums.h"

#include <stddef.h>

static void counter(struct buf *b, const char *name, const char *help, uint64_t value)
{
    metric_one(b, name, METRIC_COUNTER, help, value);
}

static void gauge(struct buf *b, const char *name, const char *help, uint64_t value)
{
    metric_one(b, name, METRIC_GAUGE, help, value);
}

/* One family with one label and a few values of it. */
static void labelled(struct buf *b, const char *name, const char *label, const char *const *values,
                     const uint64_t *numbers, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct metric_label l = {label, bytes_of(values[i])};
        metric_u64(b, name, &l, 1, numbers[i]);
    }
}

/* ---- requests ---- */

static void write_refusals(const struct proxy *p, struct buf *b)
{
    static const char *const reasons[] = {"auth", "command", "key", "channel"};
    const struct acl_log *log = p->policy.users.log;
    const uint64_t n[] = {acl_log_refusals(log, ACL_DENIED_AUTH), acl_log_refusals(log, ACL_DENIED_COMMAND),
                          acl_log_refusals(log, ACL_DENIED_KEY), acl_log_refusals(log, ACL_DENIED_CHANNEL)};
    metric_family(b, "covey_proxy_acl_refusals_total", METRIC_COUNTER, "What users were not allowed to do.");
    labelled(b, "covey_proxy_acl_refusals_total", "reason", reasons, n, 4);
}

static void write_fates(const struct proxy *p, const struct worker_stats *s, struct buf *b)
{
    gauge(b, "covey_proxy_delayed_clients", "Not read from now because of a rate limit.", s->delayed_now);
    counter(b, "covey_proxy_delayed_requests_total", "Requests that had to wait for a rate limit.", s->delayed_ever);
    counter(b, "covey_proxy_rate_limit_refusals_total", "Requests refused because of a rate limit.", s->limit_refusals);
    counter(b, "covey_proxy_replica_reads_total", "Reads sent to replicas.", s->replica_reads);
    counter(b, "covey_proxy_replica_read_failures_total", "Those that a replica could not answer.",
            s->replica_failures);
    static const char *const kinds[] = {"moved", "ask"};
    const uint64_t redirected[] = {s->moved, s->asked};
    metric_family(b, "covey_proxy_redirections_total", METRIC_COUNTER, "Redirections by nodes, all followed.");
    labelled(b, "covey_proxy_redirections_total", "kind", kinds, redirected, 2);
    counter(b, "covey_proxy_split_requests_total", "Requests over several slots that were sent in parts.", s->splits);
    counter(b, "covey_proxy_retries_total", "Requests sent once more.", s->retries);
    gauge(b, "covey_proxy_held_requests", "Requests that wait for their node now.", s->held_now);
    counter(b, "covey_proxy_held_requests_total", "Requests that have waited for their node.", s->held_ever);
    counter(b, "covey_proxy_hold_timeouts_total", "Those that have waited in vain.", s->timeouts);
    counter(b, "covey_proxy_hold_refusals_total", "Requests for which too many waited already.", s->refused);
    counter(b, "covey_proxy_unknown_fate_total",
            "Requests whose connection broke so that nobody knows whether they were executed.", s->unknown);
    gauge(b, "covey_proxy_pinned_connections", "Connections to nodes that belong to one client each.",
          (uint64_t)atomic_load(&p->pinned));
    gauge(b, "covey_proxy_pinned_connections_max", "How many there may be.", (uint64_t)p->front->config->pinned_max);
    gauge(b, "covey_proxy_node_connections", "Connections to nodes.", s->links);
    counter(b, "covey_proxy_node_connects_total", "Attempts to connect to a node.", s->connects);
    counter(b, "covey_proxy_node_connection_failures_total", "Connections to nodes that failed or broke.",
            s->link_failures);
    counter(b, "covey_proxy_topology_changes_total", "How often the cluster looked different.",
            atomic_load(&p->measures.topology_changes));
    counter(b, "covey_proxy_failovers_total", "Failovers seen.", atomic_load(&p->measures.failovers));
    counter(b, "covey_proxy_slots_moved_total", "Slots seen to move without a failover.",
            atomic_load(&p->measures.slots_moved));
}

static struct metric_label label_of(int id)
{
    return (struct metric_label){"command", bytes_of(command_by_id((enum command_id)id)->name)};
}

static void write_command_counts(const struct proxy *p, struct buf *b, const char *name, const char *help,
                                 size_t offset)
{
    metric_family(b, name, METRIC_COUNTER, help);
    for (int id = 0; id < CMD_ID_COUNT; id++) {
        struct command_sum s = sum_command(p, id);
        struct metric_label l = label_of(id);
        if (s.calls || s.rejected) metric_u64(b, name, &l, 1, *(const uint64_t *)((const char *)&s + offset));
    }
}

static void write_error(void *ctx, const char *code, uint64_t n)
{
    struct metric_label l = {"code", bytes_of(code)};
    metric_u64(ctx, "covey_proxy_errors_total", &l, 1, n);
}

static void write_errors(const struct proxy *p, struct buf *b)
{
    metric_family(b, "covey_proxy_errors_total", METRIC_COUNTER,
                  "Errors that clients were answered, by their first word.");
    errorstats_each(p->measures.errors, write_error, b);
}

static void write_commands(const struct proxy *p, struct buf *b, struct histogram *h)
{
    static const char name[] = "covey_proxy_command_duration_seconds";
    write_command_counts(p, b, "covey_proxy_commands_total", "Commands of clients, by name.",
                         offsetof(struct command_sum, calls));
    write_command_counts(p, b, "covey_proxy_commands_rejected_total", "Commands that their user may not run.",
                         offsetof(struct command_sum, rejected));
    write_command_counts(p, b, "covey_proxy_commands_failed_total", "Commands that were answered with an error.",
                         offsetof(struct command_sum, failed));
    metric_family(b, name, METRIC_HISTOGRAM,
                  "From reading a command to its reply, for those that go to nodes and do not block.");
    for (int id = 0; id < CMD_ID_COUNT; id++) {
        struct metric_label l = label_of(id);
        if (sum_latency(p, id, h)) metric_histogram(b, name, &l, 1, h, sum_command(p, id).us);
    }
}

static const char *name_of(unsigned id)
{
    return command_by_id((enum command_id)id)->name;
}

void proxy_cluster_metrics(struct proxy *p, struct buf *b)
{
    struct worker_stats s;
    struct histogram *h = mem_calloc(1, sizeof *h);
    sum_stats(p, &s);
    write_refusals(p, b);
    write_fates(p, &s, b);
    write_errors(p, b);
    write_commands(p, b, h);
    nodes_write_metrics(&p->measures.nodes, "covey_proxy", NULL, name_of, b);
    mem_free(h);
}
