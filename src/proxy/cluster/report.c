/* report.c: INFO and SLOWLOG: what measure.c has counted, added up over the workers. */
#include "proxy/cluster/measure.h"

#include "base/clock.h"
#include "base/mem.h"
#include "proxy/cluster/sums.h"
#include "proxy/front/report.h"

/* ---- INFO ---- */

static void number(struct buf *b, const char *name, uint64_t v)
{
    report_number(b, name, v);
}

static void info_server(const void *ctx, struct buf *b)
{
    const struct worker *w = ctx;
    int port = w->config->listen_count ? w->config->listen[0].at.port : 0;
    report_server(w->proxy->front, port, b);
}

static void info_clients(const void *ctx, struct buf *b)
{
    report_clients(((const struct worker *)ctx)->front, b);
}

static void info_memory(const void *ctx, struct buf *b)
{
    (void)ctx;
    report_memory(b);
}

static void info_persistence(const void *ctx, struct buf *b)
{
    (void)ctx;
    number(b, "loading", 0);
}

static void info_stats(const void *ctx, struct buf *b)
{
    const struct worker *w = ctx;
    const struct proxy *p = w->proxy;
    struct worker_stats s;
    sum_stats(p, &s);
    report_stats(p->front, s.commands, errorstats_total(p->measures.errors), b);
}

static void info_proxy(const void *ctx, struct buf *b)
{
    const struct worker *w = ctx;
    const struct proxy *p = w->proxy;
    struct worker_stats s;
    sum_stats(p, &s);
    number(b, "node_connections", s.links);
    number(b, "pinned_connections", (uint64_t)atomic_load(&p->pinned));
    number(b, "pinned_connections_max", (uint64_t)w->config->pinned_max);
    number(b, "node_connects", s.connects);
    number(b, "node_connection_failures", s.link_failures);
    number(b, "split_requests", s.splits);
    number(b, "scripts_loaded", s.scripts_loaded);
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
    number(b, "delayed_requests_total", report_sum(p->front, delayed_ever));
    number(b, "rate_limit_refusals", report_sum(p->front, limit_refusals));
    number(b, "topology_changes", atomic_load(&p->measures.topology_changes));
    number(b, "failovers_seen", atomic_load(&p->measures.failovers));
    number(b, "slots_moved", atomic_load(&p->measures.slots_moved));
}

static void info_replication(const void *ctx, struct buf *b)
{
    (void)ctx;
    buf_append_cstr(b, "role:master\r\nconnected_slaves:0\r\n");
}

static void info_cluster(const void *ctx, struct buf *b)
{
    (void)ctx;
    number(b, "cluster_enabled", 0);
}

static void info_nodes(const void *ctx, struct buf *b)
{
    const struct worker *w = ctx;
    for (int i = 0; w->map && i < w->map->count; i++) {
        const struct map_node *n = &w->map->nodes[i];
        buf_printf(b, "node%d:name=%s,ip=%s,port=%d,slots=%u%s\r\n", i, n->name, n->ip, n->port, n->slots,
                   n->is_own ? ",own=yes" : "");
    }
}

static void info_backends(const void *ctx, struct buf *b)
{
    nodes_write_info(&((const struct worker *)ctx)->proxy->measures.nodes, NULL, b);
}

static void info_commandstats(const void *ctx, struct buf *b)
{
    calls_write_commandstats(&((const struct worker *)ctx)->proxy->measures.calls, b);
}

static void info_errorstats(const void *ctx, struct buf *b)
{
    const struct worker *w = ctx;
    errorstats_info(w->proxy->measures.errors, b);
}

static void info_latencystats(const void *ctx, struct buf *b)
{
    calls_write_latencystats(&((const struct worker *)ctx)->proxy->measures.calls, b);
}

static void info_hotkeys(const void *ctx, struct buf *b)
{
    const struct worker *w = ctx;
    const struct proxy *p = w->proxy;
    struct hotkeys **all = mem_calloc((size_t)p->worker_count, sizeof *all);
    for (int i = 0; i < p->worker_count; i++) all[i] = p->workers[i]->measure.hot;
    hotkeys_write(all, (size_t)p->worker_count, (uint64_t)w->config->key_sampling, clock_mono_ms(), b);
    mem_free(all);
}

static const struct report_section sections[] = {
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

void report_info(struct client *c, struct resp_out *o, const struct resp_request *req)
{
    struct buf b = {0};
    report_sections(sections, sizeof sections / sizeof *sections, c->worker, req, &b);
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
