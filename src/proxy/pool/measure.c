/* measure.c: what clients ask the pools for, counted and timed, and INFO. */
#include "base/mem.h"
#include "proxy/front/report.h"
#include "proxy/pool/engine.h"

/* ---- pools by their names ---- */

const char *pool_command_name(unsigned command)
{
    return command < CMD_ID_COUNT ? command_by_id((enum command_id)command)->name
                                  : mc_command_name((enum mc_command)(command - CMD_ID_COUNT));
}

struct pool_measure *pool_measure_get(struct list *all, const char *name, int workers)
{
    list_each(it, all)
    {
        struct pool_measure *m = container_of(it, struct pool_measure, link);
        if (strcmp(m->name, name) == 0) return m;
    }
    struct pool_measure *m = mem_calloc(1, sizeof *m);
    m->name = mem_strdup(name);
    calls_init(&m->calls, workers, NO_COMMAND, pool_command_name);
    m->errors = errorstats_create();
    list_push_back(all, &m->link);
    return m;
}

void pool_measures_destroy(struct list *all)
{
    list_each(it, all)
    {
        struct pool_measure *m = container_of(it, struct pool_measure, link);
        list_remove(it);
        calls_deinit(&m->calls);
        errorstats_destroy(m->errors);
        mem_free(m->name);
        mem_free(m);
    }
}

/* ---- requests ---- */

static struct call_counts *counts_of(const struct pool_client *c, unsigned command)
{
    return command == NO_COMMAND ? NULL : &c->pool->commands[command];
}

void measure_called(struct pool_client *c)
{
    struct call_counts *n = counts_of(c, c->pool->worker->command);
    if (n) front_count(&n->calls, 1);
}

void measure_rejected(struct pool_client *c)
{
    struct call_counts *n = counts_of(c, c->pool->worker->command);
    if (n) front_count(&n->rejected, 1);
}

static bool is_error(const struct message *m, struct bytes reply)
{
    static const char *const words[] = {"ERROR", "CLIENT_ERROR ", "SERVER_ERROR "};
    if (m->redis) return reply.n > 0 && reply.p[0] == '-';
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (reply.n >= strlen(words[i]) && memcmp(reply.p, words[i], strlen(words[i])) == 0) return true;
    return false;
}

static void note_error(struct pool_client *c, const struct message *m, struct bytes reply)
{
    struct buf text = {0};
    if (!m->redis) buf_append_char(&text, '-');
    buf_append(&text, reply.p, reply.n < 128 ? reply.n : 128);
    errorstats_note(c->pool->measure->errors, buf_bytes(&text));
    buf_deinit(&text);
}

void measure_answered(struct pool_client *c, const struct message *m, struct bytes reply)
{
    const struct pool_worker *w = c->pool->worker;
    struct call_counts *n = counts_of(c, m->command);
    bool failed = is_error(m, reply);
    if (failed) note_error(c, m, reply);
    if (!n) return;
    if (failed) front_count(&n->failed, 1);
    if (!m->sent_at && m->parts_n == 0) return; /* answered here */
    uint64_t us = (uint64_t)((unsigned __int128)(w->ticks - m->at) * w->us_per_tick >> 32);
    call_time(n, us, histogram_bucket(us));
}

/* ---- INFO ---- */

static const struct pool *pool_of(const void *ctx)
{
    return ((const struct pool_client *)ctx)->pool;
}

static const struct front *front_of(const void *ctx)
{
    return pool_of(ctx)->worker->front->front;
}

static void info_server(const void *ctx, struct buf *b)
{
    report_server(front_of(ctx), pool_of(ctx)->conf->listen_port, b);
}

static void info_clients(const void *ctx, struct buf *b)
{
    report_clients(pool_of(ctx)->worker->front, b);
}

static void info_memory(const void *ctx, struct buf *b)
{
    (void)ctx;
    report_memory(b);
}

static void info_stats(const void *ctx, struct buf *b)
{
    const struct pool_measure *m = pool_of(ctx)->measure;
    const struct front *f = front_of(ctx);
    uint64_t calls = 0;
    for (unsigned k = 0; k < m->calls.commands; k++) calls += calls_sum(&m->calls, k).calls;
    report_stats(f, calls, errorstats_total(m->errors), b);
    report_number(b, "delayed_requests_total", report_sum(f, delayed_ever));
    report_number(b, "rate_limit_refusals", report_sum(f, limit_refusals));
}

static void info_pool(const void *ctx, struct buf *b)
{
    const struct pool *p = pool_of(ctx);
    size_t ejected = 0;
    for (size_t i = 0; i < p->conf->servers_n; i++) ejected += atomic_load(&p->health->servers[i].retry_ms) != 0;
    buf_printf(b, "pool:%s\r\n", p->conf->name);
    report_number(b, "pool_servers", p->conf->servers_n);
    report_number(b, "pool_servers_ejected", ejected);
}

static void info_backends(const void *ctx, struct buf *b)
{
    nodes_write_info(pool_of(ctx)->worker->nodes, pool_of(ctx)->conf->name, b);
}

static void info_commandstats(const void *ctx, struct buf *b)
{
    calls_write_commandstats(&pool_of(ctx)->measure->calls, b);
}

static void info_errorstats(const void *ctx, struct buf *b)
{
    errorstats_info(pool_of(ctx)->measure->errors, b);
}

static void info_latencystats(const void *ctx, struct buf *b)
{
    calls_write_latencystats(&pool_of(ctx)->measure->calls, b);
}

static const struct report_section sections[] = {
    {"server", "Server", true, info_server},
    {"clients", "Clients", true, info_clients},
    {"memory", "Memory", true, info_memory},
    {"stats", "Stats", true, info_stats},
    {"pool", "Pool", true, info_pool},
    {"backends", "Backends", true, info_backends},
    {"commandstats", "Commandstats", false, info_commandstats},
    {"errorstats", "Errorstats", true, info_errorstats},
    {"latencystats", "Latencystats", false, info_latencystats},
};

void pool_report_info(struct pool_client *c, const struct resp_request *req, struct buf *out)
{
    struct buf b = {0};
    struct resp_out o = {out, 2};
    report_sections(sections, sizeof sections / sizeof *sections, c, req, &b);
    resp_bulk(&o, buf_bytes(&b));
    buf_deinit(&b);
}
