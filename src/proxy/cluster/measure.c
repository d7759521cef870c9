#include "proxy/cluster/measure.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "proxy/cluster/worker.h"

#include <stdio.h>

enum { FORGET_NODE_MS = 10 * 60 * 1000, LOG_EVERY_MS = 1000, KEY_SHOWN_MAX = 4096 };

/* ---- the process ---- */

void measures_create(struct proxy *p)
{
    struct measures *m = &p->measures;
    pthread_mutex_init(&m->mu, NULL);
    list_init(&m->nodes);
    m->slowlog = slowlog_create();
}

static void node_free(struct proxy *p, struct measured_node *n)
{
    list_remove(&n->link);
    for (int i = 0; i < p->worker_count; i++) mem_free(n->counts[i]);
    mem_free(n);
}

void measures_destroy(struct proxy *p)
{
    struct measures *m = &p->measures;
    list_each(it, &m->nodes) node_free(p, container_of(it, struct measured_node, link));
    slowlog_destroy(m->slowlog);
    pthread_mutex_destroy(&m->mu);
}

/* ---- a worker ---- */

void measure_worker_init(struct worker *w)
{
    struct worker_measure *m = &w->measure;
    m->commands = mem_calloc(CMD_ID_COUNT, sizeof *m->commands);
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
    for (int id = 0; id < CMD_ID_COUNT; id++) mem_free(atomic_load(&w->measure.commands[id].latency));
    mem_free(w->measure.commands);
    hotkeys_destroy(w->measure.hot);
}

struct histogram *measure_histogram(struct command_counts *c)
{
    struct histogram *h = mem_calloc(1, sizeof *h);
    atomic_store_explicit(&c->latency, h, memory_order_release); /* a report may look at it at once */
    return h;
}

/* ---- nodes ---- */

/* Those that nobody has known for a long time: a cluster whose nodes change their addresses must not grow here. */
static void forget_old_nodes(struct proxy *p, int64_t now_ms)
{
    list_each(it, &p->measures.nodes)
    {
        struct measured_node *n = container_of(it, struct measured_node, link);
        if (n->users == 0 && now_ms - n->unused_ms > FORGET_NODE_MS) node_free(p, n);
    }
}

static struct measured_node *find_or_add(struct proxy *p, const char *name)
{
    list_each(it, &p->measures.nodes)
    {
        struct measured_node *n = container_of(it, struct measured_node, link);
        if (strcmp(n->name, name) == 0) return n;
    }
    size_t counts = (size_t)p->worker_count * sizeof(struct node_counts *);
    struct measured_node *n = mem_calloc(1, sizeof *n + counts);
    snprintf(n->name, sizeof n->name, "%s", name);
    list_push_back(&p->measures.nodes, &n->link);
    return n;
}

void measure_backend_begin(struct worker *w, struct backend *b)
{
    struct measures *m = &w->proxy->measures;
    char name[sizeof b->measured->name];
    snprintf(name, sizeof name, strchr(b->name, ':') ? "[%s]:%d" : "%s:%d", b->name, b->port);
    pthread_mutex_lock(&m->mu);
    forget_old_nodes(w->proxy, w->now_ms);
    b->measured = find_or_add(w->proxy, name);
    b->measured->users++;
    struct node_counts **mine = &b->measured->counts[w->id];
    if (!*mine) *mine = mem_calloc(1, sizeof **mine);
    b->counts = *mine;
    pthread_mutex_unlock(&m->mu);
}

void measure_backend_end(struct worker *w, struct backend *b)
{
    struct measures *m = &w->proxy->measures;
    pthread_mutex_lock(&m->mu);
    b->measured->users--;
    b->measured->unused_ms = w->now_ms;
    pthread_mutex_unlock(&m->mu);
}

void measure_backend_up(struct backend *b)
{
    if (atomic_load_explicit(&b->measured->state, memory_order_relaxed) == NODE_UP) return;
    if (atomic_exchange(&b->measured->state, NODE_UP) == NODE_DOWN)
        log_notice("Node %s is up again", b->measured->name);
}

void measure_backend_trouble(struct backend *b, bool was_connected, const char *why)
{
    struct measured_node *n = b->measured;
    if (!was_connected) {
        if (atomic_exchange(&n->state, NODE_DOWN) != NODE_DOWN) log_warning("Node %s is down: %s", n->name, why);
        return;
    }
    int64_t now = clock_mono_ms(), last = atomic_load(&n->log_ms);
    if (now - last >= LOG_EVERY_MS && atomic_compare_exchange_strong(&n->log_ms, &last, now))
        log_notice("Lost a connection to node %s: %s", n->name, why);
}

/* ---- requests ---- */

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
