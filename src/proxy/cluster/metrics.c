/* metrics.c: what /metrics has of the cluster. */
#include "proxy/cluster/cluster.h"

#include "observe/prometheus.h"
#include "proxy/cluster/sums.h"

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

static void write_fates(const struct proxy *p, const struct worker_stats *s, struct buf *b)
{
    counter(b, "covey_proxy_scripts_loaded_total", "Scripts loaded at nodes for EVALSHA.", s->scripts_loaded);
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

static const char *name_of(unsigned id)
{
    return command_by_id((enum command_id)id)->name;
}

void proxy_cluster_metrics(struct proxy *p, struct buf *b)
{
    struct worker_stats s;
    struct calls_shown calls = {&p->measures.calls, NULL};
    sum_stats(p, &s);
    write_fates(p, &s, b);
    write_errors(p, b);
    calls_write_metrics(&calls, 1, "covey_proxy", NULL, b);
    nodes_write_metrics(&p->measures.nodes, "covey_proxy", NULL, name_of, b);
}
