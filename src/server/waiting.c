/* waiting.c: no thread sleeps on a slot lock; the connection does, here, and is resumed by mail. */
#include "server/conn.h"

#include "base/mem.h"

enum { STRIPES = 64 };

struct waiting_room {
    struct node *node;
    struct {
        pthread_mutex_t mu;  /* order: after the slots; nothing is taken under it but mailboxes */
        struct list waiting; /* conn.waiting_link, first come first served */
    } stripe[STRIPES];
};

struct resume_mail {
    struct mail mail;
    struct worker *worker;
    unsigned slot;
};

struct waiting_room *waiting_room_create(struct node *n)
{
    struct waiting_room *r = mem_calloc(1, sizeof *r);
    r->node = n;
    for (int i = 0; i < STRIPES; i++) {
        pthread_mutex_init(&r->stripe[i].mu, NULL);
        list_init(&r->stripe[i].waiting);
    }
    return r;
}

bool waiting_room_park(struct waiting_room *r, struct conn *c, unsigned slot)
{
    pthread_mutex_lock(&r->stripe[slot % STRIPES].mu);
    c->wait = WAIT_SLOT;
    c->wait_offset = slot;
    list_push_back(&r->stripe[slot % STRIPES].waiting, &c->waiting_link);
    bool parked = slot_mark_waited(r->node->store, slot);
    if (!parked) {
        list_remove(&c->waiting_link);
        c->wait = WAIT_NOTHING;
    }
    pthread_mutex_unlock(&r->stripe[slot % STRIPES].mu);
    return parked;
}

void waiting_room_forget(struct waiting_room *r, struct conn *c)
{
    unsigned slot = (unsigned)c->wait_offset;
    pthread_mutex_lock(&r->stripe[slot % STRIPES].mu);
    list_remove(&c->waiting_link);
    pthread_mutex_unlock(&r->stripe[slot % STRIPES].mu);
}

/* On the worker's thread: takes its own connections that wait for the slot out of the queue and lets them go on. */
static void deliver_resume(struct mail *m)
{
    struct resume_mail *r = container_of(m, struct resume_mail, mail);
    struct waiting_room *room = r->worker->node->waiting;
    unsigned slot = r->slot;
    struct worker *w = r->worker;
    mem_free(r);
    struct list ready;
    list_init(&ready);
    pthread_mutex_lock(&room->stripe[slot % STRIPES].mu);
    list_each(it, &room->stripe[slot % STRIPES].waiting)
    {
        struct conn *c = container_of(it, struct conn, waiting_link);
        if (c->worker != w || c->wait_offset != slot) continue;
        list_remove(it);
        list_push_back(&ready, it);
    }
    pthread_mutex_unlock(&room->stripe[slot % STRIPES].mu);
    while (!list_empty(&ready)) {
        struct conn *c = container_of(ready.next, struct conn, waiting_link);
        list_remove(&c->waiting_link);
        conn_resume(c);
    }
}

void waiting_room_released(void *ctx, unsigned slot)
{
    struct waiting_room *r = ctx;
    uint64_t told[4] = {0}; /* workers, one bit each */
    pthread_mutex_lock(&r->stripe[slot % STRIPES].mu);
    list_each(it, &r->stripe[slot % STRIPES].waiting)
    {
        struct conn *c = container_of(it, struct conn, waiting_link);
        unsigned id = (unsigned)c->worker->id;
        if (c->wait_offset != slot || told[id / 64] & 1ull << (id % 64)) continue;
        told[id / 64] |= 1ull << (id % 64);
        struct resume_mail *m = mem_alloc(sizeof *m);
        *m = (struct resume_mail){{NULL, deliver_resume}, c->worker, slot};
        loop_post(c->worker->loop, &m->mail);
    }
    pthread_mutex_unlock(&r->stripe[slot % STRIPES].mu);
}
