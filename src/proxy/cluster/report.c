/* report.c: INFO and SLOWLOG: what measure.c has counted, added up over the workers. */
#include "proxy/cluster/measure.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/version.h"
#include "proxy/cluster/sums.h"

#include <stddef.h>
#include <unistd.h>

/* ---- INFO ---- */

static void number(struct buf *b, const char *name, uint64_t v)
{
    buf_printf(b, "%s:%llu\r\n", name, (unsigned long long)v);
}

static void info_server(const struct worker *w, struct buf *b)
{
    const struct proxy *p = w->proxy;
    buf_printf(b, "redis_version:7.0.15\r\ncovey_version:%s\r\nredis_mode:standalone\r\nprocess_id:%d\r\n",
               COVEY_VERSION, (int)getpid());
    buf_printf(b, "run_id:%s\r\ntcp_port:%d\r\n", p->run_id,
               w->config->listen_count ? w->config->listen[0].at.port : 0);
    number(b, "uptime_in_seconds", (uint64_t)(clock_wall_ms() - p->started_ms) / 1000);
    number(b, "workers", (uint64_t)p->worker_count);
}

static void info_clients(const struct worker *w, struct buf *b)
{
    struct worker_stats s;
    sum_stats(w->proxy, &s);
    number(b, "connected_clients", (uint64_t)atomic_load(&w->proxy->front->clients));
    number(b, "maxclients", (uint64_t)w->config->maxclients);
    number(b, "delayed_clients", s.delayed_now);
}

static void info_memory(const struct worker *w, struct buf *b)
{
    (void)w;
    number(b, "used_memory", mem_used());
    number(b, "used_memory_rss", mem_rss());
    buf_printf(b, "mem_allocator:%s\r\n", mem_allocator_name());
}

static void info_persistence(const struct worker *w, struct buf *b)
{
    (void)w;
    number(b, "loading", 0);
}

static void info_stats(const struct worker *w, struct buf *b)
{
    const struct proxy *p = w->proxy;
    struct worker_stats s;
    const struct acl_log *log = p->policy.users.log;
    sum_stats(p, &s);
    number(b, "total_connections_received", atomic_load(&p->front->connections));
    number(b, "rejected_connections", atomic_load(&p->front->rejected));
    number(b, "total_commands_processed", s.commands);
    number(b, "total_net_input_bytes", s.received);
    number(b, "total_net_output_bytes", s.sent);
    number(b, "total_error_replies", errorstats_total(p->measures.errors));
    number(b, "acl_access_denied_auth", acl_log_refusals(log, ACL_DENIED_AUTH));
    number(b, "acl_access_denied_cmd", acl_log_refusals(log, ACL_DENIED_COMMAND));
    number(b, "acl_access_denied_key", acl_log_refusals(log, ACL_DENIED_KEY));
    number(b, "acl_access_denied_channel", acl_log_refusals(log, ACL_DENIED_CHANNEL));
    number(b, "client_query_buffer_limit_disconnections",
           front_sum(p->front, offsetof(struct front_stats, query_limit_closed)));
    number(b, "client_output_buffer_limit_disconnections",
           front_sum(p->front, offsetof(struct front_stats, output_limit_closed)));
}

static void info_proxy(const struct worker *w, struct buf *b)
{
    const struct proxy *p = w->proxy;
    struct worker_stats s;
    sum_stats(p, &s);
    number(b, "node_connections", s.links);
    number(b, "pinned_connections", (uint64_t)atomic_load(&p->pinned));
    number(b, "pinned_connections_max", (uint64_t)w->config->pinned_max);
    number(b, "node_connects", s.connects);
    number(b, "node_connection_failures", s.link_failures);
    number(b, "split_requests", s.splits);
    number(b, "replica_reads", s.replica_reads);
    number(b, "replica_read_failures", s.replica_failures);
    number(b, "redirected_moved", s.moved);
    number(b, "redirected_ask", s.asked);
    number(b, "retried_requests", s.retries);
    number(b, "held_requests", s.held_now);
    number(b, "held_requests_total", s.held_ever);
    number(b, "hold_timeouts", s.timeouts);
    number(b, "hold_refusals", s.refused);
    number(b, "unknown_fate_requests", s.unknown);
    number(b, "delayed_requests_total", s.delayed_ever);
    number(b, "rate_limit_refusals", s.limit_refusals);
    number(b, "topology_changes", atomic_load(&p->measures.topology_changes));
    number(b, "failovers_seen", atomic_load(&p->measures.failovers));
    number(b, "slots_moved", atomic_load(&p->measures.slots_moved));
}

static void info_replication(const struct worker *w, struct buf *b)
{
    (void)w;
    buf_append_cstr(b, "role:master\r\nconnected_slaves:0\r\n");
}

static void info_cluster(const struct worker *w, struct buf *b)
{
    (void)w;
    number(b, "cluster_enabled", 0);
}

static void info_nodes(const struct worker *w, struct buf *b)
{
    for (int i = 0; w->map && i < w->map->count; i++) {
        const struct map_node *n = &w->map->nodes[i];
        buf_printf(b, "node%d:name=%s,ip=%s,port=%d,slots=%u\r\n", i, n->name, n->ip, n->port, n->slots);
    }
}

static const char *state_name(const struct measured_node *n)
{
    static const char *const names[] = {[NODE_UNTRIED] = "untried", [NODE_UP] = "up", [NODE_DOWN] = "down"};
    return names[atomic_load(&n->state)];
}

static void info_backends(const struct worker *w, struct buf *b)
{
    struct node_registry *r = &w->proxy->measures.nodes;
    struct histogram *h = mem_calloc(1, sizeof *h);
    pthread_mutex_lock(&r->mu);
    list_each(it, &r->nodes)
    {
        const struct measured_node *n = container_of(it, struct measured_node, link);
        node_sum_latency(r, n, h);
        buf_printf(b, "backend_%s:state=%s,connections=%llu,requests=%llu,errors=%llu,p50=%llu,p99=%llu,p99.9=%llu\r\n",
                   n->name, state_name(n), (unsigned long long)node_sum(r, n, offsetof(struct node_counts, links)),
                   (unsigned long long)node_sum_requests(r, n),
                   (unsigned long long)node_sum(r, n, offsetof(struct node_counts, failed)),
                   (unsigned long long)histogram_percentile(h, 50), (unsigned long long)histogram_percentile(h, 99),
                   (unsigned long long)histogram_percentile(h, 99.9));
    }
    pthread_mutex_unlock(&r->mu);
    mem_free(h);
}

static void info_commandstats(const struct worker *w, struct buf *b)
{
    for (int id = 0; id < CMD_ID_COUNT; id++) {
        struct command_sum s = sum_command(w->proxy, id);
        if (!s.calls && !s.rejected) continue;
        buf_printf(b, "cmdstat_%s:calls=%llu,usec=%llu,usec_per_call=%.2f,rejected_calls=%llu,failed_calls=%llu\r\n",
                   command_by_id((enum command_id)id)->name, (unsigned long long)s.calls, (unsigned long long)s.us,
                   s.calls ? (double)s.us / (double)s.calls : 0.0, (unsigned long long)s.rejected,
                   (unsigned long long)s.failed);
    }
}

static void info_errorstats(const struct worker *w, struct buf *b)
{
    errorstats_info(w->proxy->measures.errors, b);
}

static void info_latencystats(const struct worker *w, struct buf *b)
{
    struct histogram *h = mem_calloc(1, sizeof *h);
    for (int id = 0; id < CMD_ID_COUNT; id++)
        if (sum_latency(w->proxy, id, h))
            buf_printf(b, "latency_percentiles_usec_%s:p50=%llu,p99=%llu,p99.9=%llu\r\n",
                       command_by_id((enum command_id)id)->name, (unsigned long long)histogram_percentile(h, 50),
                       (unsigned long long)histogram_percentile(h, 99),
                       (unsigned long long)histogram_percentile(h, 99.9));
    mem_free(h);
}

static void info_hotkeys(const struct worker *w, struct buf *b)
{
    const struct proxy *p = w->proxy;
    struct hotkeys **all = mem_calloc((size_t)p->worker_count, sizeof *all);
    for (int i = 0; i < p->worker_count; i++) all[i] = p->workers[i]->measure.hot;
    hotkeys_write(all, (size_t)p->worker_count, (uint64_t)w->config->key_sampling, clock_mono_ms(), b);
    mem_free(all);
}

static const struct section {
    const char *name, *title;
    bool always;
    void (*write)(const struct worker *w, struct buf *b);
} sections[] = {
    {"server", "Server", true, info_server},
    {"clients", "Clients", true, info_clients},
    {"memory", "Memory", true, info_memory},
    {"persistence", "Persistence", true, info_persistence},
    {"stats", "Stats", true, info_stats},
    {"proxy", "Proxy", true, info_proxy},
    {"replication", "Replication", true, info_replication},
    {"cluster", "Cluster", true, info_cluster},
    {"nodes", "Nodes", true, info_nodes},
    {"backends", "Backends", true, info_backends},
    {"commandstats", "Commandstats", false, info_commandstats},
    {"errorstats", "Errorstats", true, info_errorstats},
    {"latencystats", "Latencystats", false, info_latencystats},
    {"hotkeys", "Hotkeys", false, info_hotkeys},
};

static bool is_wanted(const struct section *s, const struct resp_request *req)
{
    if (req->argc == 1) return s->always;
    for (size_t i = 1; i < req->argc; i++) {
        struct bytes name = req->argv[i];
        if (bytes_ieq(name, bytes_of(s->name)) || bytes_ieq(name, BYTES("all")) || bytes_ieq(name, BYTES("everything")))
            return true;
        if (bytes_ieq(name, BYTES("default")) && s->always) return true;
    }
    return false;
}

void report_info(struct client *c, struct resp_out *o, const struct resp_request *req)
{
    struct buf b = {0};
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        if (!is_wanted(&sections[i], req)) continue;
        buf_printf(&b, "%s# %s\r\n", b.n ? "\r\n" : "", sections[i].title);
        sections[i].write(c->worker, &b);
    }
    resp_verbatim(o, "txt", buf_bytes(&b));
    buf_deinit(&b);
}

/* ---- SLOWLOG ---- */

bool report_slowlog(struct client *c, struct resp_out *o, const struct command *cmd, const struct resp_request *req)
{
    struct slowlog *s = c->worker->proxy->measures.slowlog;
    switch (cmd->id) {
    case CMD_ID_SLOWLOG_GET: slowlog_reply_get(o, s, req->argv, req->argc); return true;
    case CMD_ID_SLOWLOG_LEN: resp_i64(o, (int64_t)slowlog_length(s)); return true;
    case CMD_ID_SLOWLOG_RESET:
        slowlog_reset(s);
        resp_ok(o);
        return true;
    case CMD_ID_SLOWLOG_HELP:
        resp_array(o, slowlog_help_count + 3);
        resp_status(o, "SLOWLOG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
        for (size_t i = 0; i < slowlog_help_count; i++) resp_status(o, slowlog_help[i]);
        resp_status(o, "HELP");
        resp_status(o, "    Prints this help.");
        return true;
    default: return false;
    }
}
