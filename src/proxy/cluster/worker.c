/* worker.c: one loop and its turns. */
#include "proxy/cluster/worker.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>
#include <unistd.h>

enum { NEVER_MS = 1 << 30, FREE_REQUESTS_MAX = 16384 };

static void turn_begin(void *ctx)
{
    struct worker *w = ctx;
    w->now_ms = loop_now_ms(w->loop);
}

/* What came in this turn leaves with it: requests first, then replies. */
static void turn_end(void *ctx)
{
    struct worker *w = ctx;
    if (w->held_kick) held_run(w);
    while (!list_empty(&w->resumable)) {
        struct client *c = container_of(w->resumable.next, struct client, resume);
        list_remove(&c->resume);
        client_resume(c);
    }
    while (!list_empty(&w->dirty_links)) {
        struct link *l = container_of(w->dirty_links.next, struct link, dirty);
        list_remove(&l->dirty);
        node_link_flush(l);
    }
    while (!list_empty(&w->dirty_clients)) {
        struct client *c = container_of(w->dirty_clients.next, struct client, dirty);
        list_remove(&c->dirty);
        client_flush(c);
    }
    if (!list_empty(&w->resumable)) w->held_timer.due_ms = w->now_ms;
    if (w->held_count && w->held_timer.due_ms > w->held_due_ms)
        w->held_timer.due_ms = w->held_due_ms > w->now_ms ? w->held_due_ms : w->now_ms + 1;
}

static void tick(struct loop_timer *t, int64_t now_ms)
{
    struct worker *w = container_of(t, struct worker, tick_timer);
    backends_tick(w, now_ms);
    orphans_run(w);
}

static void look(struct loop_timer *t, int64_t now_ms)
{
    (void)now_ms;
    container_of(t, struct worker, held_timer)->held_kick = true;
}

struct worker *proxy_worker_create(struct proxy *p, int id)
{
    struct worker *w = mem_calloc(1, sizeof *w);
    w->proxy = p;
    w->config = &p->config;
    w->id = id;
    w->loop = loop_create();
    w->epoch = 1;
    w->next_client_id = (uint64_t)id + 1;
    struct list *lists[] = {&w->clients,     &w->dirty_clients, &w->resumable, &w->backends,
                            &w->dirty_links, &w->held,          &w->orphans};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) list_init(lists[i]);
    buf_reserve(&w->client_in, READ_BUFFER);
    buf_reserve(&w->link_in, READ_BUFFER);
    uint64_t seed;
    random_secure(&seed, sizeof seed);
    random_seed(&w->rng, seed);
    w->now_ms = clock_mono_ms();
    w->tick_timer = (struct loop_timer){.every_ms = TICK_MS, .tick = tick};
    loop_timer_add(w->loop, &w->tick_timer);
    w->held_timer = (struct loop_timer){.every_ms = NEVER_MS, .tick = look};
    loop_timer_add(w->loop, &w->held_timer);
    policy_worker_init(w);
    loop_set_hooks(w->loop, turn_begin, turn_end, w);
    return w;
}

static void *run(void *arg)
{
    struct worker *w = arg;
    char name[16];
    snprintf(name, sizeof name, "worker-%d", w->id);
    pthread_setname_np(pthread_self(), name);
    while (!atomic_load_explicit(&w->stop, memory_order_relaxed)) loop_turn(w->loop, -1);
    return NULL;
}

void proxy_worker_start(struct worker *w)
{
    if (pthread_create(&w->thread, NULL, run, w)) mem_abort(0);
}

/* ---- mail ---- */

struct worker_mail {
    struct mail mail;
    struct worker *worker;
    int fd;
    struct topology_map *map;
};

static void post(struct worker *w, void (*deliver)(struct mail *m), int fd, struct topology_map *map)
{
    struct worker_mail *m = mem_alloc(sizeof *m);
    *m = (struct worker_mail){{NULL, deliver}, w, fd, map};
    loop_post(w->loop, &m->mail);
}

static void adopt(struct mail *mail)
{
    struct worker_mail *m = container_of(mail, struct worker_mail, mail);
    if (!client_create(m->worker, m->fd)) {
        close(m->fd);
        atomic_fetch_sub(&m->worker->proxy->clients, 1);
        atomic_fetch_sub(&m->worker->given, 1);
    }
    mem_free(m);
}

void proxy_worker_adopt(struct worker *w, int fd)
{
    atomic_fetch_add(&w->given, 1);
    post(w, adopt, fd, NULL);
}

static void map_arrived(struct mail *mail)
{
    struct worker_mail *m = container_of(mail, struct worker_mail, mail);
    struct worker *w = m->worker;
    topology_map_release(w->map);
    w->map = m->map;
    backends_adopt_map(w, m->map);
    mem_free(m);
}

void proxy_worker_publish(struct worker *w, struct topology_map *map)
{
    post(w, map_arrived, -1, topology_map_hold(map));
}

static void stop(struct mail *mail)
{
    struct worker_mail *m = container_of(mail, struct worker_mail, mail);
    atomic_store(&m->worker->stop, true);
    mem_free(m);
}

void proxy_worker_stop(struct worker *w)
{
    post(w, stop, -1, NULL);
    pthread_join(w->thread, NULL);
}

void proxy_worker_destroy(struct worker *w)
{
    while (!list_empty(&w->clients)) client_destroy(container_of(w->clients.next, struct client, link));
    backends_destroy(w);
    topology_map_release(w->map);
    while (w->free_requests) {
        struct request *r = w->free_requests;
        w->free_requests = r->next;
        buf_deinit(&r->reply);
        mem_free(r);
    }
    buf_deinit(&w->client_in);
    buf_deinit(&w->link_in);
    resp_request_deinit(&w->request);
    policy_worker_deinit(w);
    loop_destroy(w->loop);
    mem_free(w);
}

/* ---- requests ---- */

struct request *request_create(struct worker *w, struct client *c, const struct command *cmd, uint16_t slot)
{
    struct request *r = w->free_requests;
    struct buf reply = {0};
    if (r) {
        w->free_requests = r->next;
        w->free_count--;
        reply = r->reply;
    } else {
        r = mem_alloc(sizeof *r);
    }
    *r = (struct request){.client = c, .cmd = cmd, .slot = slot, .db = c ? c->db : 0, .reply = reply};
    r->is_safe = cmd && (cmd->flags & CMD_READONLY) && !(cmd->flags & CMD_BLOCKING);
    list_init(&r->held);
    return r;
}

void request_free(struct worker *w, struct request *r)
{
    if (r->state == REQUEST_HELD) held_forget(w, r);
    chunk_release(r->chunk);
    if (r->gather) gather_free(w, r->gather);
    if (r->reply.cap > 1024) buf_deinit(&r->reply);
    r->reply.n = 0;
    if (w->free_count >= FREE_REQUESTS_MAX) {
        buf_deinit(&r->reply);
        mem_free(r);
        return;
    }
    r->next = w->free_requests;
    w->free_requests = r;
    w->free_count++;
}
