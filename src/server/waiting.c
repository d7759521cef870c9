/* waiting.c: no thread sleeps on a slot lock; the connection does, here, and is resumed by mail.
 *
 * First come, first served, as far as that costs nothing: a freed slot belongs to nobody until its waiters' workers
 * have read their mail, and whoever comes in between has it.  A waiter that finds it taken again keeps its place, and
 * the second time it asks for the slot: from then on connections of other workers wait behind it, for some milliseconds
 * at most, because its worker may be busy with a long command and the slot free. */
#include "server/conn.h"

#include "base/clock.h"
#include "base/mem.h"

enum { STRIPES = 64, PATIENT_TRIES = 2, ASKED_MS = 5 };

struct waiting_room {
    struct node *node;
    struct {
        pthread_mutex_t mu;  /* order: after the slots; nothing is taken under it but mailboxes */
        struct list waiting; /* conn.waiting_link, first come first served */
    } stripe[STRIPES];
    _Atomic uint64_t next_ticket;
    _Atomic int asked_count;             /* slots somebody asked for; 0 spares the look-up */
    _Atomic int asked[STORE_LOCKS];      /* id + 1 of the worker whose turn it is; 0: anybody's */
    int64_t asked_until_ms[STORE_LOCKS]; /* under the stripe */
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

/* At its old place, if it has one. */
static void enqueue(struct waiting_room *r, struct conn *c, unsigned slot)
{
    struct list *queue = &r->stripe[slot % STRIPES].waiting, *before = queue->prev;
    if (!c->wait_ticket) c->wait_ticket = atomic_fetch_add_explicit(&r->next_ticket, 1, memory_order_relaxed) + 1;
    while (before != queue && container_of(before, struct conn, waiting_link)->wait_ticket > c->wait_ticket)
        before = before->prev;
    list_insert_after(before, &c->waiting_link);
}

/* Under the stripe. */
static void ask_for(struct waiting_room *r, const struct conn *c, unsigned slot)
{
    int nobody = 0, me = c->worker->id + 1;
    bool new = atomic_compare_exchange_strong(&r->asked[slot], &nobody, me);
    if (new) atomic_fetch_add(&r->asked_count, 1);
    if (new) r->asked_until_ms[slot] = clock_mono_ms() + ASKED_MS;
}

static void end_asking(struct waiting_room *r, unsigned slot)
{
    if (atomic_exchange(&r->asked[slot], 0)) atomic_fetch_sub(&r->asked_count, 1);
}

bool waiting_room_park(struct waiting_room *r, struct conn *c, unsigned slot)
{
    pthread_mutex_lock(&r->stripe[slot % STRIPES].mu);
    c->wait = WAIT_SLOT;
    c->wait_offset = slot;
    enqueue(r, c, slot);
    bool parked = slot_mark_waited(r->node->store, slot);
    if (!parked) {
        list_remove(&c->waiting_link);
        c->wait = WAIT_NOTHING;
    } else if (++c->wait_tries > PATIENT_TRIES) {
        ask_for(r, c, slot);
    }
    pthread_mutex_unlock(&r->stripe[slot % STRIPES].mu);
    return parked;
}

/* ---- slots that a waiter asked for ---- */

bool waiting_room_must_queue(struct waiting_room *r, struct conn *c, const unsigned *slots, size_t n)
{
    if (atomic_load_explicit(&r->asked_count, memory_order_relaxed) == 0) return false;
    for (size_t i = 0; i < n; i++) {
        unsigned slot = slots[i];
        int whose = atomic_load_explicit(&r->asked[slot], memory_order_relaxed);
        if (whose == 0 || whose == c->worker->id + 1) continue;
        pthread_mutex_lock(&r->stripe[slot % STRIPES].mu);
        bool over = clock_mono_ms() >= r->asked_until_ms[slot];
        if (over) {
            end_asking(r, slot);
        } else {
            /* The slot may be free, so perhaps nobody will say when: the worker looks again by itself. */
            c->wait = WAIT_SLOT;
            c->wait_offset = slot;
            enqueue(r, c, slot);
            worker_look_again(c->worker, ASKED_MS);
        }
        pthread_mutex_unlock(&r->stripe[slot % STRIPES].mu);
        if (!over) return true;
    }
    return false;
}

void waiting_room_got(struct waiting_room *r, struct conn *c, const unsigned *slots, size_t n)
{
    bool asked = c->wait_tries > PATIENT_TRIES;
    c->wait_ticket = 0;
    c->wait_tries = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned slot = slots[i];
        pthread_mutex_lock(&r->stripe[slot % STRIPES].mu);
        if (asked && atomic_load(&r->asked[slot]) == c->worker->id + 1) end_asking(r, slot);
        /* Those behind it are told when it is done. */
        bool others = false;
        list_each(it,
                  &r->stripe[slot % STRIPES].waiting) if (container_of(it, struct conn, waiting_link)->wait_offset ==
                                                          slot) others = true;
        if (others) (void)slot_mark_waited(r->node->store, slot);
        pthread_mutex_unlock(&r->stripe[slot % STRIPES].mu);
    }
}

void waiting_room_forget(struct waiting_room *r, struct conn *c)
{
    unsigned slot = (unsigned)c->wait_offset;
    pthread_mutex_lock(&r->stripe[slot % STRIPES].mu);
    list_remove(&c->waiting_link);
    pthread_mutex_unlock(&r->stripe[slot % STRIPES].mu);
}

enum { ANY_SLOT = STORE_LOCKS };

/* Takes the worker's connections that wait for the slot out of the queue. */
static void collect(struct waiting_room *room, unsigned stripe, const struct worker *w, unsigned slot,
                    struct list *ready)
{
    pthread_mutex_lock(&room->stripe[stripe].mu);
    list_each(it, &room->stripe[stripe].waiting)
    {
        struct conn *c = container_of(it, struct conn, waiting_link);
        if (c->worker != w || (slot != ANY_SLOT && c->wait_offset != slot)) continue;
        list_remove(it);
        list_push_back(ready, it);
    }
    pthread_mutex_unlock(&room->stripe[stripe].mu);
}

static void resume_all(struct list *ready)
{
    while (!list_empty(ready)) {
        struct conn *c = container_of(ready->next, struct conn, waiting_link);
        list_remove(&c->waiting_link);
        conn_resume(c);
    }
}

/* On the worker's thread: lets its connections that wait for the slot go on. */
static void deliver_resume(struct mail *m)
{
    struct resume_mail *r = container_of(m, struct resume_mail, mail);
    struct list ready;
    list_init(&ready);
    collect(r->worker->node->waiting, r->slot % STRIPES, r->worker, r->slot, &ready);
    mem_free(r);
    resume_all(&ready);
}

void waiting_room_look_again(struct worker *w)
{
    struct list ready;
    list_init(&ready);
    for (unsigned i = 0; i < STRIPES; i++) collect(w->node->waiting, i, w, ANY_SLOT, &ready);
    resume_all(&ready);
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
