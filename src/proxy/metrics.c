#include "proxy/metrics.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/version.h"
#include "observe/prometheus.h"

#include <errno.h>
#include <stddef.h>

static void counter(struct buf *b, const char *name, const char *help, uint64_t value)
{
    metric_one(b, name, METRIC_COUNTER, help, value);
}

static void gauge(struct buf *b, const char *name, const char *help, uint64_t value)
{
    metric_one(b, name, METRIC_GAUGE, help, value);
}

static void write_process(const struct metrics *m, struct buf *b)
{
    struct metric_label version = {"version", BYTES(COVEY_VERSION)};
    metric_family(b, "covey_proxy_info", METRIC_GAUGE, "Always 1; the label says which version runs.");
    metric_u64(b, "covey_proxy_info", &version, 1, 1);
    gauge(b, "covey_proxy_uptime_seconds", "Since the start.", (uint64_t)(clock_mono_ms() - m->started_ms) / 1000);
    gauge(b, "covey_proxy_workers", "Threads that serve clients.", (uint64_t)m->front->worker_count);
    gauge(b, "covey_proxy_memory_used_bytes", "Allocated.", mem_used());
    gauge(b, "covey_proxy_memory_resident_bytes", "Resident in memory.", mem_rss());
}

#define SUM(m, field) front_sum((m)->front, offsetof(struct front_stats, field))

static void write_clients(const struct metrics *m, struct buf *b)
{
    const struct front *f = m->front;
    static const char cut_off[] = "covey_proxy_clients_cut_off_total";
    struct metric_label query = {"buffer", BYTES("query")}, output = {"buffer", BYTES("output")};
    gauge(b, "covey_proxy_clients", "Connected clients.", (uint64_t)atomic_load(&f->clients));
    gauge(b, "covey_proxy_clients_max", "How many may be connected; 0: as many as the system allows.",
          (uint64_t)f->config->maxclients);
    counter(b, "covey_proxy_connections_total", "Connections of clients that were accepted.",
            atomic_load(&f->connections));
    counter(b, "covey_proxy_connections_rejected_total", "Those that were one too many.", atomic_load(&f->rejected));
    counter(b, "covey_proxy_received_bytes_total", "Read from clients.", SUM(m, received));
    counter(b, "covey_proxy_sent_bytes_total", "Written to clients.", SUM(m, sent));
    metric_family(b, cut_off, METRIC_COUNTER, "Clients closed for too large a buffer.");
    metric_u64(b, cut_off, &query, 1, SUM(m, query_limit_closed));
    metric_u64(b, cut_off, &output, 1, SUM(m, output_limit_closed));
}

static void write_limits(const struct metrics *m, struct buf *b)
{
    gauge(b, "covey_proxy_delayed_clients", "Not read from now because of a rate limit.", SUM(m, delayed_now));
    counter(b, "covey_proxy_delayed_requests_total", "Requests that had to wait for a rate limit.",
            SUM(m, delayed_ever));
    counter(b, "covey_proxy_rate_limit_refusals_total", "Requests refused because of a rate limit.",
            SUM(m, limit_refusals));
}

static void write_refusals(const struct metrics *m, struct buf *b)
{
    static const char name[] = "covey_proxy_acl_refusals_total";
    static const struct {
        const char *reason;
        enum acl_verdict verdict;
    } all[] = {{"auth", ACL_DENIED_AUTH},
               {"command", ACL_DENIED_COMMAND},
               {"key", ACL_DENIED_KEY},
               {"channel", ACL_DENIED_CHANNEL}};
    metric_family(b, name, METRIC_COUNTER, "What users were not allowed to do.");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct metric_label l = {"reason", bytes_of(all[i].reason)};
        metric_u64(b, name, &l, 1, acl_log_refusals(m->front->policy.users.log, all[i].verdict));
    }
}

static bool write_page(void *ctx, const char *path, struct buf *b, const char **type)
{
    struct metrics *m = ctx;
    if (strcmp(path, "/metrics") != 0) return false;
    write_process(m, b);
    write_clients(m, b);
    write_limits(m, b);
    write_refusals(m, b);
    if (m->cluster) proxy_cluster_metrics(m->cluster, b);
    if (m->pools) pools_metrics(m->pools, b);
    *type = PROMETHEUS_TYPE;
    return true;
}

bool metrics_open(struct metrics *m, struct front *f, struct proxy *cluster, struct pools *pools)
{
    const struct proxy_config *c = f->config;
    *m = (struct metrics){.front = f, .cluster = cluster, .pools = pools, .started_ms = clock_mono_ms()};
    if (!c->metrics_port) return true;
    int fd = front_inherited_or_listen(f, c->metrics_bind, (int)c->metrics_port, 64);
    if (fd >= 0 && http_serve(&m->http, f->loop, fd, write_page, m)) return true;
    log_warning("Cannot listen for metrics on %s:%d: %s", c->metrics_bind, (int)c->metrics_port, strerror(errno));
    return false;
}

void metrics_close(struct metrics *m)
{
    http_close(&m->http);
}
