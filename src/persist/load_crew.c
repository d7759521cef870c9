/* load_crew.c: threads that decode what one reader finds.  When the queue is full the reader's thread decodes too, so
 * nobody waits while there is work.
 *
 * Lock: crew.mu guards everything in struct load_crew but what is set before the threads start; a leaf, but that
 * nothing else is held when it is taken. */
#include "persist/rdb_batch.h"

#include "base/mem.h"

#include <pthread.h>
#include <stdio.h>

enum { CREW_MAX = 64, QUEUE_PER_THREAD = 2 };

struct load_crew {
    pthread_mutex_t mu;
    pthread_cond_t work;
    const struct rdb_read_options *options;
    const struct rdb_handler *handlers;
    struct rdb_batches batches;
    unsigned threads, started;
    struct rdb_batch queue[CREW_MAX * QUEUE_PER_THREAD];
    size_t first, n, room;
    unsigned char *idle[CREW_MAX * QUEUE_PER_THREAD];
    size_t idle_n;
    bool ended;
    enum status st; /* of the failure that stands first in the file */
    uint64_t failed_at;
    struct rdb_error err;
    struct member {
        struct load_crew *crew;
        const struct rdb_handler *handler;
        pthread_t thread;
    } members[CREW_MAX];
};

static void note_failure(struct load_crew *c, enum status st, uint64_t at, const struct rdb_error *err)
{
    if (c->st != OK && c->failed_at <= at) return;
    c->st = st;
    c->failed_at = at;
    c->err = *err;
}

static bool pop(struct load_crew *c, struct rdb_batch *out)
{
    if (c->n == 0) return false;
    *out = c->queue[c->first];
    c->first = (c->first + 1) % c->room;
    c->n--;
    return true;
}

/* With c->mu, which is let go of meanwhile. */
static void decode(struct load_crew *c, const struct rdb_batch *batch, const struct rdb_handler *handler)
{
    struct rdb_error err;
    uint64_t at;
    /* What comes behind a failure is of no use to anyone. */
    bool wanted = c->st == OK || batch->before + batch->from < c->failed_at;
    pthread_mutex_unlock(&c->mu);
    enum status st = wanted ? rdb_batch_read(batch, handler, c->options, &at, &err) : OK;
    pthread_mutex_lock(&c->mu);
    if (st != OK) note_failure(c, st, at, &err);
    if (c->idle_n < c->room)
        c->idle[c->idle_n++] = batch->window;
    else
        mem_free(batch->window);
}

static void *member_main(void *arg)
{
    struct member *m = arg;
    struct load_crew *c = m->crew;
    struct rdb_batch batch;
    pthread_mutex_lock(&c->mu);
    for (;;) {
        if (pop(c, &batch))
            decode(c, &batch, m->handler);
        else if (c->ended)
            break;
        else
            pthread_cond_wait(&c->work, &c->mu);
    }
    pthread_mutex_unlock(&c->mu);
    return NULL;
}

static unsigned char *crew_window(void *ctx)
{
    struct load_crew *c = ctx;
    pthread_mutex_lock(&c->mu);
    unsigned char *window = c->idle_n ? c->idle[--c->idle_n] : NULL;
    pthread_mutex_unlock(&c->mu);
    return window ? window : mem_alloc(RDB_BATCH_WINDOW);
}

static enum status crew_give(void *ctx, const struct rdb_batch *batch)
{
    struct load_crew *c = ctx;
    struct rdb_batch own;
    pthread_mutex_lock(&c->mu);
    if (c->n == c->room && pop(c, &own)) decode(c, &own, &c->handlers[0]);
    c->queue[(c->first + c->n++) % c->room] = *batch;
    pthread_cond_signal(&c->work);
    enum status st = c->st;
    pthread_mutex_unlock(&c->mu);
    return st;
}

struct load_crew *load_crew_start(unsigned threads, const struct rdb_read_options *options,
                                  const struct rdb_handler *handlers)
{
    struct load_crew *c = mem_calloc(1, sizeof *c);
    pthread_mutex_init(&c->mu, NULL);
    pthread_cond_init(&c->work, NULL);
    c->options = options;
    c->handlers = handlers;
    c->batches = (struct rdb_batches){c, crew_window, crew_give};
    c->threads = threads < CREW_MAX ? threads : CREW_MAX;
    c->room = (c->threads ? c->threads : 1) * QUEUE_PER_THREAD;
    for (unsigned i = 0; i < c->threads; i++) {
        struct member *m = &c->members[i];
        *m = (struct member){.crew = c, .handler = &handlers[i + 1]};
        if (pthread_create(&m->thread, NULL, member_main, m) != 0) break; /* fewer do it too */
        pthread_setname_np(m->thread, "load");
        c->started++;
    }
    return c;
}

struct rdb_batches *load_crew_batches(struct load_crew *crew)
{
    return &crew->batches;
}

enum status load_crew_end(struct load_crew *c, uint64_t *offset, struct rdb_error *err)
{
    struct rdb_batch batch;
    pthread_mutex_lock(&c->mu);
    c->ended = true;
    pthread_cond_broadcast(&c->work);
    while (pop(c, &batch)) decode(c, &batch, &c->handlers[0]);
    pthread_mutex_unlock(&c->mu);
    for (unsigned i = 0; i < c->started; i++) pthread_join(c->members[i].thread, NULL);
    enum status st = c->st;
    *offset = c->failed_at;
    if (st != OK) *err = c->err;
    while (c->idle_n) mem_free(c->idle[--c->idle_n]);
    pthread_cond_destroy(&c->work);
    pthread_mutex_destroy(&c->mu);
    mem_free(c);
    return st;
}
