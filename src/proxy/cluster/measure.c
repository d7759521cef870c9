#include "proxy/cluster/measure.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "proxy/cluster/worker.h"

#include <stdio.h>

enum { KEY_SHOWN_MAX = 4096 };

/* ---- the process ---- */

static const char *name_of(unsigned id)
{
    return command_by_id((enum command_id)id)->name;
}

void measures_create(struct proxy *p)
{
    struct measures *m = &p->measures;
    node_registry_init(&m->nodes, p->front->worker_count, CMD_ID_COUNT);
    calls_init(&m->calls, p->front->worker_count, CMD_ID_COUNT, name_of);
    m->slowlog = slowlog_create();
    m->errors = errorstats_create();
}

void measures_destroy(struct proxy *p)
{
    struct measures *m = &p->measures;
    slowlog_destroy(m->slowlog);
    errorstats_destroy(m->errors);
    node_registry_deinit(&m->nodes);
    calls_deinit(&m->calls);
}

/* ---- a worker ---- */

void measure_worker_init(struct worker *w)
{
    struct worker_measure *m = &w->measure;
    m->commands = w->proxy->measures.calls.tables[w->id];
    m->hot = hotkeys_create(w->now_ms);
    m->ticks = clock_ticks();
    m->us_per_tick = ((uint64_t)1 << 32) / clock_ticks_per_us();
    measure_worker_configure(w);
}

void measure_worker_configure(struct worker *w)
{
    int64_t slow_us = w->config->slowlog_us;
    w->measure.slow_ticks = slow_us < 0 ? UINT64_MAX : (uint64_t)slow_us * clock_ticks_per_us();
    w->measure.sample_in = 0;
}

void measure_worker_deinit(struct worker *w)
{
    hotkeys_destroy(w->measure.hot);
}

void measure_duration(struct worker_measure *m, uint64_t ticks)
{
    m->last_ticks = ticks;
    m->last_us = (uint64_t)((unsigned __int128)ticks * m->us_per_tick >> 32);
    m->last_bucket = histogram_bucket(m->last_us);
}

/* ---- nodes ---- */

void measure_backend_begin(struct worker *w, struct backend *b)
{
    char name[sizeof b->name + 16];
    snprintf(name, sizeof name, strchr(b->name, ':') ? "[%s]:%d" : "%s:%d", b->name, b->port);
    b->measured = node_begin(&w->proxy->measures.nodes, "", name, w->id, w->now_ms, &b->counts);
}

void measure_backend_end(struct worker *w, struct backend *b)
{
    node_end(&w->proxy->measures.nodes, b->measured, w->now_ms);
}

/* ---- requests ---- */

void measure_error(struct worker *w, struct bytes reply)
{
    errorstats_note(w->proxy->measures.errors, reply);
}

/* The request, or the first command of a transaction. */
static bool read_request(const struct request *r, struct resp_parser *p, struct resp_request *out)
{
    struct bytes raw = bytes_make(r->chunk->p + r->offset, r->size);
    if (resp_parse_request(p, raw, out) != OK) return false;
    if (r->skip == 0) return true;
    return resp_parse_request(p, bytes_make(raw.p + out->size, raw.n - out->size), out) == OK;
}

void measure_slow(struct worker *w, const struct request *r, uint64_t us)
{
    const struct client *c = r->client;
    struct slowlog *log = w->proxy->measures.slowlog;
    size_t most = (size_t)w->config->slowlog_max;
    struct resp_parser p;
    struct resp_request req = {0};
    struct bytes name = bytes_of(r->cmd->name);
    struct slow_call s = {r->cmd, &name, 1, us, clock_wall_ms() / 1000, c->base.peer, c->name ? c->name : ""};
    bool is_transaction = r->skip > 0;
    if (!is_transaction && r->cmd->flags & CMD_SKIP_SLOWLOG) return;
    resp_parser_init(&p, INT64_MAX);
    if (r->chunk && read_request(r, &p, &req)) {
        s.argc = req.argc + is_transaction;
        struct bytes *argv = mem_alloc(s.argc * sizeof *argv);
        argv[0] = BYTES("EXEC");
        memcpy(argv + is_transaction, req.argv, req.argc * sizeof *argv);
        s.argv = argv;
        slowlog_add(log, &s, most);
        mem_free(argv);
    } else {
        slowlog_add(log, &s, most);
    }
    resp_request_deinit(&req);
    resp_parser_deinit(&p);
}

void measure_key_slow(struct client *c, const struct command *cmd, const struct resp_request *req)
{
    struct worker *w = c->worker;
    struct command_key keys[16];
    uint64_t every = (uint64_t)w->config->key_sampling;
    /* Not every n-th: a client that repeats n commands would always show the same one. */
    w->measure.sample_in = every ? (int64_t)random_below(&w->rng, every * 2) : INT64_MAX;
    int n = every && command_has_keys(cmd) ? command_keys(cmd, req->argv, req->argc, keys, 16) : 0;
    if (n <= 0) return;
    struct bytes name = req->argv[keys[random_below(&w->rng, (uint64_t)(n < 16 ? n : 16))].index];
    if (name.n <= KEY_SHOWN_MAX) hotkeys_note(w->measure.hot, c->db, name, hash_bytes(name), w->now_ms);
}
