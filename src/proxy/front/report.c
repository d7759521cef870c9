#include "proxy/front/report.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/version.h"

#include <unistd.h>

void report_number(struct buf *b, const char *name, uint64_t v)
{
    buf_printf(b, "%s:%llu\r\n", name, (unsigned long long)v);
}

/* ---- which ---- */

static bool is_wanted(const struct report_section *s, const struct resp_request *req)
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

void report_sections(const struct report_section *all, size_t n, const void *ctx, const struct resp_request *req,
                     struct buf *b)
{
    for (size_t i = 0; i < n; i++) {
        if (!is_wanted(&all[i], req)) continue;
        buf_printf(b, "%s# %s\r\n", b->n ? "\r\n" : "", all[i].title);
        all[i].write(ctx, b);
    }
}

/* ---- sections ---- */

void report_server(const struct front *f, int port, struct buf *b)
{
    buf_printf(b, "redis_version:7.0.15\r\ncovey_version:%s\r\nredis_mode:standalone\r\nprocess_id:%d\r\n",
               COVEY_VERSION, (int)getpid());
    buf_printf(b, "run_id:%s\r\ntcp_port:%d\r\n", f->run_id, port);
    report_number(b, "uptime_in_seconds", (uint64_t)(clock_wall_ms() - f->started_ms) / 1000);
    report_number(b, "workers", (uint64_t)f->worker_count);
}

void report_clients(const struct front_worker *w, struct buf *b)
{
    const struct front *f = w->front;
    report_number(b, "connected_clients", (uint64_t)atomic_load(&f->clients));
    report_number(b, "maxclients", (uint64_t)w->config->maxclients);
    report_number(b, "delayed_clients", report_sum(f, delayed_now));
}

void report_memory(struct buf *b)
{
    report_number(b, "used_memory", mem_used());
    report_number(b, "used_memory_rss", mem_rss());
    buf_printf(b, "mem_allocator:%s\r\n", mem_allocator_name());
}

void report_stats(const struct front *f, uint64_t commands, uint64_t errors, struct buf *b)
{
    const struct acl_log *log = f->policy.users.log;
    report_number(b, "total_connections_received", atomic_load(&f->connections));
    report_number(b, "rejected_connections", atomic_load(&f->rejected));
    report_number(b, "total_commands_processed", commands);
    report_number(b, "total_net_input_bytes", report_sum(f, received));
    report_number(b, "total_net_output_bytes", report_sum(f, sent));
    report_number(b, "total_error_replies", errors);
    report_number(b, "acl_access_denied_auth", acl_log_refusals(log, ACL_DENIED_AUTH));
    report_number(b, "acl_access_denied_cmd", acl_log_refusals(log, ACL_DENIED_COMMAND));
    report_number(b, "acl_access_denied_key", acl_log_refusals(log, ACL_DENIED_KEY));
    report_number(b, "acl_access_denied_channel", acl_log_refusals(log, ACL_DENIED_CHANNEL));
    report_number(b, "client_query_buffer_limit_disconnections", report_sum(f, query_limit_closed));
    report_number(b, "client_output_buffer_limit_disconnections", report_sum(f, output_limit_closed));
}
