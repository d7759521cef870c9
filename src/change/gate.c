#include "change/change.h"

#include "base/clock.h"
#include "base/mem.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

enum { MEMBERS_MAX = 256, REST_DEADLINE_US = 5000 };

struct gate_member {
    _Atomic bool inside; /* written by its thread */
    bool taken;          /* under the gate's mu */
    struct gate *gate;
    char pad[64 - 2 * sizeof(bool) - sizeof(void *)];
};

struct gate {
    struct gate_member members[MEMBERS_MAX];
    _Atomic bool wanted;   /* somebody waits for rest, or has it */
    pthread_mutex_t owner; /* held by whoever has the server at rest, and while waiting for that */
    pthread_mutex_t mu;    /* with opened: where members wait */
    pthread_cond_t opened;
};

struct gate *gate_create(void)
{
    struct gate *g = mem_alloc_aligned(sizeof *g, 64);
    memset(g, 0, sizeof *g);
    pthread_mutex_init(&g->owner, NULL);
    pthread_mutex_init(&g->mu, NULL);
    pthread_cond_init(&g->opened, NULL);
    return g;
}

void gate_destroy(struct gate *g)
{
    pthread_cond_destroy(&g->opened);
    pthread_mutex_destroy(&g->mu);
    pthread_mutex_destroy(&g->owner);
    mem_free(g);
}

struct gate_member *gate_join(struct gate *g)
{
    pthread_mutex_lock(&g->mu);
    struct gate_member *m = NULL;
    for (int i = 0; i < MEMBERS_MAX && !m; i++)
        if (!g->members[i].taken) m = &g->members[i];
    if (!m) mem_abort(sizeof *m);
    m->taken = true;
    m->gate = g;
    pthread_mutex_unlock(&g->mu);
    return m;
}

void gate_leave(struct gate_member *m)
{
    pthread_mutex_lock(&m->gate->mu);
    m->taken = false;
    pthread_mutex_unlock(&m->gate->mu);
}

void gate_enter(struct gate_member *m)
{
    struct gate *g = m->gate;
    for (;;) {
        /* The store must be seen before we look: the other side does it the other way round. */
        atomic_store_explicit(&m->inside, true, memory_order_seq_cst);
        if (!atomic_load_explicit(&g->wanted, memory_order_seq_cst)) return;
        atomic_store_explicit(&m->inside, false, memory_order_release);
        pthread_mutex_lock(&g->mu);
        while (atomic_load(&g->wanted)) pthread_cond_wait(&g->opened, &g->mu);
        pthread_mutex_unlock(&g->mu);
    }
}

void gate_exit(struct gate_member *m)
{
    atomic_store_explicit(&m->inside, false, memory_order_release);
}

bool gate_wanted(const struct gate_member *m)
{
    return atomic_load_explicit(&m->gate->wanted, memory_order_relaxed);
}

static bool all_outside(struct gate *g, int64_t deadline_us)
{
    for (int i = 0; i < MEMBERS_MAX; i++) {
        while (atomic_load_explicit(&g->members[i].inside, memory_order_seq_cst)) {
            if (clock_mono_us() > deadline_us) return false;
            sched_yield();
        }
    }
    return true;
}

static void set_wanted(struct gate *g, bool wanted)
{
    pthread_mutex_lock(&g->mu);
    atomic_store_explicit(&g->wanted, wanted, memory_order_seq_cst);
    if (!wanted) pthread_cond_broadcast(&g->opened);
    pthread_mutex_unlock(&g->mu);
}

void gate_close(struct gate *g)
{
    pthread_mutex_lock(&g->owner);
    for (int64_t pause_us = 500;; pause_us = pause_us < 20000 ? pause_us * 2 : pause_us) {
        set_wanted(g, true);
        if (all_outside(g, clock_mono_us() + REST_DEADLINE_US)) return;
        set_wanted(g, false);
        nanosleep(&(struct timespec){.tv_nsec = pause_us * 1000}, NULL);
    }
}

bool gate_close_within(struct gate *g, int64_t ms)
{
    int64_t deadline_us = clock_mono_us() + ms * 1000;
    while (pthread_mutex_trylock(&g->owner) != 0) {
        if (clock_mono_us() > deadline_us) return false;
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
    for (int64_t pause_us = 500;; pause_us = pause_us < 20000 ? pause_us * 2 : pause_us) {
        set_wanted(g, true);
        if (all_outside(g, clock_mono_us() + REST_DEADLINE_US)) return true;
        set_wanted(g, false);
        if (clock_mono_us() > deadline_us) break;
        nanosleep(&(struct timespec){.tv_nsec = pause_us * 1000}, NULL);
    }
    pthread_mutex_unlock(&g->owner);
    return false;
}

void gate_open(struct gate *g)
{
    set_wanted(g, false);
    pthread_mutex_unlock(&g->owner);
}
