/* worker.c: the cluster's part in a worker. */
#include "proxy/cluster/worker.h"

#include "base/clock.h"
#include "base/mem.h"

enum { NEVER_MS = 1 << 30, FREE_REQUESTS_MAX = 16384 };

static struct worker *worker_of(struct front_part *p)
{
    return container_of(p, struct worker, part);
}

static void begin(struct front_part *p)
{
    struct worker *w = worker_of(p);
    w->now_ms = w->front->now_ms;
    measure_now(w);
}

static void retry(struct front_part *p)
{
    struct worker *w = worker_of(p);
    if (w->held_kick) held_run(w);
}

static void flush(struct front_part *p)
{
    struct worker *w = worker_of(p);
    while (!list_empty(&w->dirty_links)) {
        struct link *l = container_of(w->dirty_links.next, struct link, dirty);
        list_remove(&l->dirty);
        node_link_flush(l);
    }
    if (w->held_count && w->held_timer.due_ms > w->held_due_ms)
        w->held_timer.due_ms = w->held_due_ms > w->now_ms ? w->held_due_ms : w->now_ms + 1;
}

static void configure(struct front_part *p)
{
    struct worker *w = worker_of(p);
    w->config = w->front->config;
    measure_worker_configure(w);
}

static void tick(struct loop_timer *t, int64_t now_ms)
{
    struct worker *w = container_of(t, struct worker, tick_timer);
    backends_tick(w, now_ms);
    orphans_run(w);
    feeds_run(w);
    clients_tick(w);
}

static void look(struct loop_timer *t, int64_t now_ms)
{
    (void)now_ms;
    container_of(t, struct worker, held_timer)->held_kick = true;
}

struct worker *proxy_worker_create(struct proxy *p, struct front_worker *front)
{
    struct worker *w = mem_calloc(1, sizeof *w);
    w->part = (struct front_part){.begin = begin, .retry = retry, .flush = flush, .configure = configure};
    w->proxy = p;
    w->front = front;
    w->config = front->config;
    w->loop = front->loop;
    w->id = front->id;
    w->epoch = 1;
    struct list *lists[] = {&w->clients, &w->backends, &w->dirty_links, &w->held,
                            &w->orphans, &w->monitors, &w->unblocks};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) list_init(lists[i]);
    buf_reserve(&w->link_in, READ_BUFFER);
    uint64_t seed;
    random_secure(&seed, sizeof seed);
    random_seed(&w->rng, seed);
    w->now_ms = clock_mono_ms();
    w->tick_timer = (struct loop_timer){.every_ms = TICK_MS, .tick = tick};
    loop_timer_add(w->loop, &w->tick_timer);
    w->held_timer = (struct loop_timer){.every_ms = NEVER_MS, .tick = look};
    loop_timer_add(w->loop, &w->held_timer);
    measure_worker_init(w);
    front_part_add(front, &w->part);
    return w;
}

/* ---- mail ---- */

struct map_mail {
    struct mail mail;
    struct worker *worker;
    struct topology_map *map;
};

static void map_arrived(struct mail *mail)
{
    struct map_mail *m = container_of(mail, struct map_mail, mail);
    struct worker *w = m->worker;
    topology_map_release(w->map);
    w->map = m->map;
    backends_adopt_map(w, m->map);
    mem_free(m);
}

void proxy_worker_publish(struct worker *w, struct topology_map *map)
{
    struct map_mail *m = mem_alloc(sizeof *m);
    *m = (struct map_mail){{NULL, map_arrived}, w, topology_map_hold(map)};
    loop_post(w->loop, &m->mail);
}

void proxy_worker_destroy(struct worker *w)
{
    backends_destroy(w);
    front_part_remove(&w->part);
    topology_map_release(w->map);
    while (w->free_requests) {
        struct request *r = w->free_requests;
        w->free_requests = request_next(r);
        buf_deinit(&r->reply.bytes);
        mem_free(r);
    }
    buf_deinit(&w->link_in);
    measure_worker_deinit(w);
    mem_free(w);
}

/* ---- requests ---- */

struct request *request_create(struct worker *w, struct client *c, const struct command *cmd, uint16_t slot)
{
    struct request *r = w->free_requests;
    struct buf reply = {0};
    if (r) {
        w->free_requests = request_next(r);
        w->free_count--;
        reply = r->reply.bytes;
    } else {
        r = mem_alloc(sizeof *r);
    }
    *r = (struct request){
        .client = c, .cmd = cmd, .slot = slot, .at = w->measure.ticks, .db = c ? c->db : 0, .reply.bytes = reply};
    r->is_mute = c && c->is_mute;
    r->has_scripts = cmd && evals_matters(cmd);
    r->is_safe = cmd && (cmd->flags & CMD_READONLY) && !(cmd->flags & CMD_BLOCKING);
    list_init(&r->held);
    return r;
}

void request_free(struct worker *w, struct request *r)
{
    if (r->state == REQUEST_HELD) held_forget(w, r);
    chunk_release(r->chunk);
    if (r->gather) gather_free(w, r->gather);
    if (r->reply.bytes.cap > 1024) buf_deinit(&r->reply.bytes);
    r->reply.bytes.n = 0;
    if (w->free_count >= FREE_REQUESTS_MAX) {
        buf_deinit(&r->reply.bytes);
        mem_free(r);
        return;
    }
    r->reply.next = (struct front_reply *)w->free_requests;
    w->free_requests = r;
    w->free_count++;
}
