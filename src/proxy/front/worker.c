/* worker.c: a thread with a loop, and the turns in which clients and backends take their part. */
#include "base/clock.h"
#include "base/mem.h"
#include "proxy/front/internal.h"

#include <stdio.h>
#include <unistd.h>

enum { NEVER_MS = 1 << 30, OUTPUT_LOOK_MS = 500 };

static void turn_begin(void *ctx)
{
    struct front_worker *w = ctx;
    w->now_ms = loop_now_ms(w->loop);
    w->handshakes = 0;
    list_each(it, &w->parts)
    {
        struct front_part *p = container_of(it, struct front_part, link);
        p->begin(p);
    }
}

/* What came in this turn leaves with it: requests first, then replies. */
static void turn_end(void *ctx)
{
    struct front_worker *w = ctx;
    list_each(it, &w->parts)
    {
        struct front_part *p = container_of(it, struct front_part, link);
        p->retry(p);
    }
    while (!list_empty(&w->resumable)) {
        struct front_client *c = container_of(w->resumable.next, struct front_client, resume);
        list_remove(&c->resume);
        front_client_resume(c);
    }
    list_each(it, &w->parts)
    {
        struct front_part *p = container_of(it, struct front_part, link);
        p->flush(p);
    }
    while (!list_empty(&w->dirty)) {
        struct front_client *c = container_of(w->dirty.next, struct front_client, dirty);
        list_remove(&c->dirty);
        front_client_flush(c);
    }
    if (!list_empty(&w->resumable)) w->again.due_ms = w->now_ms;
}

static void tick(struct loop_timer *t, int64_t now_ms)
{
    struct front_worker *w = container_of(t, struct front_worker, tick);
    front_clients_tick(w);
    if (now_ms < w->output_look_ms) return;
    w->output_look_ms = now_ms + OUTPUT_LOOK_MS;
    front_output_tick(w);
    front_clients_idle_tick(w);
}

static void go_on(struct loop_timer *t, int64_t now_ms)
{
    (void)t, (void)now_ms; /* the turn that it begins does the work */
}

struct front_worker *front_worker_create(struct front *f, int id)
{
    struct front_worker *w = mem_calloc(1, sizeof *w);
    w->front = f;
    w->config = proxy_config_hold(f->config);
    w->id = id;
    w->loop = loop_create();
    w->next_client_id = (uint64_t)id + 1;
    struct list *lists[] = {&w->parts, &w->clients, &w->strangers, &w->dirty, &w->resumable};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) list_init(lists[i]);
    buf_reserve(&w->in, FRONT_READ_BUFFER);
    w->now_ms = clock_mono_ms();
    w->tick = (struct loop_timer){.every_ms = TICK_MS, .tick = tick};
    loop_timer_add(w->loop, &w->tick);
    w->again = (struct loop_timer){.every_ms = NEVER_MS, .tick = go_on};
    loop_timer_add(w->loop, &w->again);
    front_policy_worker_init(w);
    loop_set_hooks(w->loop, turn_begin, turn_end, w);
    return w;
}

void front_part_add(struct front_worker *w, struct front_part *p)
{
    list_push_back(&w->parts, &p->link);
}

void front_part_remove(struct front_part *p)
{
    list_remove(&p->link);
}

static void *run(void *arg)
{
    struct front_worker *w = arg;
    char name[16];
    snprintf(name, sizeof name, "worker-%d", w->id);
    pthread_setname_np(pthread_self(), name);
    while (!atomic_load_explicit(&w->stop, memory_order_relaxed)) loop_turn(w->loop, -1);
    return NULL;
}

void front_worker_start(struct front_worker *w)
{
    if (pthread_create(&w->thread, NULL, run, w)) mem_abort(0);
}

/* ---- mail ---- */

struct letter {
    struct mail mail;
    struct front_worker *worker;
    struct front_listener *listener;
    void *target;
    struct proxy_config *config;
    int fd;
    enum front_leave how;
};

static void post(struct letter content, void (*deliver)(struct mail *m))
{
    struct letter *m = mem_alloc(sizeof *m);
    *m = content;
    m->mail.deliver = deliver;
    loop_post(m->worker->loop, &m->mail);
}

static void adopt(struct mail *mail)
{
    struct letter *m = container_of(mail, struct letter, mail);
    front_client_create(m->worker, m->listener, m->target, m->fd);
    mem_free(m);
}

void front_worker_adopt(struct front_worker *w, struct front_listener *l, int fd)
{
    atomic_fetch_add(&w->given, 1);
    atomic_fetch_add(&l->refs, 1);
    post((struct letter){.worker = w, .listener = l, .target = l->targets[w->id], .fd = fd}, adopt);
}

static void configure(struct mail *mail)
{
    struct letter *m = container_of(mail, struct letter, mail);
    struct front_worker *w = m->worker;
    proxy_config_release((struct proxy_config *)w->config);
    w->config = m->config;
    list_each(it, &w->parts)
    {
        struct front_part *p = container_of(it, struct front_part, link);
        if (p->configure) p->configure(p);
    }
    mem_free(m);
}

void front_worker_configure(struct front_worker *w, struct proxy_config *config)
{
    post((struct letter){.worker = w, .config = proxy_config_hold(config)}, configure);
}

static void leave(struct mail *mail)
{
    struct letter *m = container_of(mail, struct letter, mail);
    m->worker->leaving = m->how;
    if (m->how == LEAVE_WHEN_IDLE) front_clients_leave(m->worker);
    mem_free(m);
}

void front_worker_leave(struct front_worker *w, enum front_leave how)
{
    post((struct letter){.worker = w, .how = how}, leave);
}

static void stop(struct mail *mail)
{
    struct letter *m = container_of(mail, struct letter, mail);
    atomic_store(&m->worker->stop, true);
    mem_free(m);
}

void front_worker_stop(struct front_worker *w)
{
    post((struct letter){.worker = w}, stop);
    pthread_join(w->thread, NULL);
}

void front_close_clients(struct front_worker *w)
{
    struct list *lists[] = {&w->clients, &w->strangers};
    for (int i = 0; i < 2; i++)
        while (!list_empty(lists[i])) front_client_close(container_of(lists[i]->next, struct front_client, link));
}

void front_worker_destroy(struct front_worker *w)
{
    front_policy_worker_deinit(w);
    buf_deinit(&w->in);
    resp_request_deinit(&w->request);
    proxy_config_release((struct proxy_config *)w->config);
    loop_destroy(w->loop);
    mem_free(w);
}
