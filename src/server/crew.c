#include "server/crew.h"

#include "base/clock.h"
#include "base/crash.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/conn.h"
#include "server/memory.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum {
    STUCK_MS = 10,         /* a turn that takes longer makes the others take over the other loops */
    WATCH_IDLE_MS = 25,    /* how often the watcher looks while nothing happens */
    JOIN_MS = 1,           /* how long a loop that is just being let go of is waited for */
    CALM_TICKS = 5,        /* ticks in a row that justify to pack */
    CALM_TICKS_STUCK = 50, /* the same after a turn that took long: there may be more of its kind */
    BUSY_TICKS = 2,        /* the same to spread */
    LOOK_AROUND = 40,      /* hundredths of a processor from which the rest of the machine matters */
};

struct member {
    struct crew *crew;
    int id;
    pthread_t thread;
    clockid_t cpu_clock;
    struct memory_trim trim; /* its own: the pages of a loop's data belong to whichever threads have driven it */
};

/* Hundredths of a processor over the last tick. */
struct load {
    int ours;  /* of all members */
    int spare; /* of the whole machine, not used by anybody */
};

struct crew {
    struct node *node;
    int n;
    struct member *members;
    pthread_mutex_t *driving; /* of each worker: who holds it may touch its loop, and what belongs to its thread */
    _Atomic bool packed;
    _Atomic int64_t turn_began_ms; /* packed: when the turn under way began (monotonic); 0: asleep */
    _Atomic bool active;           /* there were turns lately */
    pthread_mutex_t mu;            /* order: nothing is taken under it */
    pthread_cond_t wake;           /* packed became false, or memory is to be given back; under mu */

    /* of the first thread */
    struct pollfd *fds;
    struct seat {
        struct loop_source inner; /* of its loop, in the loop of worker 0 while that is the one to sleep in */
        bool held, due;
    } * seats;   /* of each worker */
    bool nested; /* under driving[0] */

    /* of crew_tick() */
    int64_t measured_ms, cpu_us;
    uint64_t spare_ticks;
    int busy, calm;
    _Atomic int calm_wanted; /* also of the watcher */
    _Atomic uint64_t turns;
    uint64_t turns_before;
};

/* ---- driving ---- */

static struct loop *loop_of(const struct crew *c, int worker)
{
    return c->node->workers[worker]->loop;
}

static void inner_ready(struct loop_source *src, int events)
{
    (void)events;
    container_of(src, struct seat, inner)->due = true;
}

/* Makes worker 0's loop wake up for the others as well, or for itself only.  Holds driving[0]. */
static void nest(struct crew *c, bool yes)
{
    if (c->nested == yes) return;
    c->nested = yes;
    for (int i = 1; i < c->n; i++) {
        struct loop_source *inner = &c->seats[i].inner;
        *inner = (struct loop_source){.fd = loop_fd(loop_of(c, i)), .ready = inner_ready};
        if (!yes)
            loop_remove(loop_of(c, 0), inner);
        else if (loop_add(loop_of(c, 0), inner, NET_READ))
            mem_abort(sizeof *inner);
    }
}

/* Locks what nobody else drives, and says how many and how long it may sleep, in ms. */
static int take_seats(struct crew *c, int *wait)
{
    int n = 0;
    *wait = -1;
    for (int i = 0; i < c->n; i++) {
        c->seats[i].held = pthread_mutex_trylock(&c->driving[i]) == 0;
        if (!c->seats[i].held) continue;
        int due = loop_prepare_sleep(loop_of(c, i));
        if (due >= 0 && (*wait < 0 || due < *wait)) *wait = due;
        n++;
    }
    if (n < c->n && (*wait < 0 || *wait > JOIN_MS)) *wait = JOIN_MS;
    return n;
}

/* While somebody is about to let go of a loop. */
static void sleep_in_poll(struct crew *c, int wait)
{
    for (int i = 0; i < c->n; i++) {
        struct seat *s = &c->seats[i];
        c->fds[i] = (struct pollfd){.fd = s->held ? loop_fd(loop_of(c, i)) : -1, .events = POLLIN};
    }
    poll(c->fds, (nfds_t)c->n, wait);
    for (int i = 0; i < c->n; i++) c->seats[i].due = c->fds[i].revents;
}

static void turn_began(struct crew *c)
{
    atomic_store_explicit(&c->turn_began_ms, clock_mono_ms(), memory_order_relaxed);
    atomic_fetch_add_explicit(&c->turns, 1, memory_order_relaxed);
}

/* Drives every loop that nobody else drives: sleeps until one has something to do, then gives those a turn. */
static void drive_all(struct crew *c, struct member *m)
{
    int wait;
    bool all = take_seats(c, &wait) == c->n, first_due = false;
    if (c->seats[0].held) nest(c, all);
    if (all)
        first_due = loop_wait(loop_of(c, 0), wait);
    else
        sleep_in_poll(c, wait);
    int64_t now = clock_mono_ms();
    for (int i = 0; i < c->n; i++) {
        struct seat *s = &c->seats[i];
        if (!s->held) continue;
        s->due |= loop_wake_up(loop_of(c, i), now);
        if (!all || i > 0) pthread_mutex_unlock(&c->driving[i]);
    }
    if (all) { /* what its loop_wait() found lies in the loop, so nobody else may have it before that is done */
        if (first_due || c->seats[0].due) {
            turn_began(c);
            loop_run(loop_of(c, 0));
        }
        c->seats[0].due = false;
        pthread_mutex_unlock(&c->driving[0]);
    }
    for (int i = 0; i < c->n; i++) {
        struct seat *s = &c->seats[i];
        bool due = s->due;
        s->due = false;
        if (!due || pthread_mutex_trylock(&c->driving[i])) continue;
        turn_began(c);
        loop_turn(loop_of(c, i), 0);
        pthread_mutex_unlock(&c->driving[i]);
    }
    if (memory_trim_due(c->node, &m->trim)) { /* that can take long, too: others may take over meanwhile */
        atomic_store_explicit(&c->turn_began_ms, clock_mono_ms(), memory_order_relaxed);
        memory_trim(c->node, &m->trim);
    }
    atomic_store_explicit(&c->turn_began_ms, 0, memory_order_relaxed);
}

/* Drives one loop, its own if that is free, for as long as the crew is spread. */
static void drive_one(struct crew *c, struct member *m)
{
    int got = -1;
    for (int i = 0; i < c->n && got < 0; i++) {
        int k = (m->id + i) % c->n;
        if (pthread_mutex_trylock(&c->driving[k]) == 0) got = k;
    }
    if (got < 0) { /* somebody is about to let go of one */
        poll(NULL, 0, JOIN_MS);
        return;
    }
    if (got == 0) nest(c, false);
    while (!atomic_load_explicit(&c->packed, memory_order_relaxed)) {
        loop_turn(loop_of(c, got), -1);
        memory_trim(c->node, &m->trim);
    }
    pthread_mutex_unlock(&c->driving[got]);
}

/* ---- the two ways ---- */

static void pack(struct crew *c)
{
    /* The first thread may be in a turn that takes long; as if that had just begun, it is waited for as long. */
    atomic_store(&c->turn_began_ms, clock_mono_ms());
    if (atomic_exchange(&c->packed, true)) return;
    node_wake_workers(c->node); /* threads that sleep in their loops notice */
}

static void spread(struct crew *c)
{
    pthread_mutex_lock(&c->mu);
    bool was = atomic_exchange(&c->packed, false);
    pthread_cond_broadcast(&c->wake);
    pthread_mutex_unlock(&c->mu);
    if (was) node_wake_workers(c->node); /* and the first one, asleep for all of them */
}

static bool is_stuck(struct crew *c)
{
    int64_t began = atomic_load_explicit(&c->turn_began_ms, memory_order_relaxed);
    return began && clock_mono_ms() - began > STUCK_MS;
}

/* Sleeps while the crew is packed.  One of them looks whether the first thread gets on. */
static void stand_by(struct crew *c, struct member *m)
{
    bool watches = m->id == 1;
    while (atomic_load(&c->packed)) {
        memory_trim(c->node, &m->trim);
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        int64_t ms = atomic_load_explicit(&c->active, memory_order_relaxed) ? STUCK_MS : WATCH_IDLE_MS;
        int64_t ns = until.tv_nsec + ms * 1000000;
        until.tv_sec += ns / 1000000000;
        until.tv_nsec = ns % 1000000000;
        pthread_mutex_lock(&c->mu);
        if (atomic_load(&c->packed) && !memory_trim_due(c->node, &m->trim)) {
            if (watches)
                pthread_cond_timedwait(&c->wake, &c->mu, &until);
            else
                pthread_cond_wait(&c->wake, &c->mu);
        }
        pthread_mutex_unlock(&c->mu);
        if (watches && is_stuck(c)) {
            atomic_store(&c->calm_wanted, CALM_TICKS_STUCK);
            spread(c);
        }
    }
}

static void *run(void *arg)
{
    struct member *m = arg;
    struct crew *c = m->crew;
    char name[16];
    snprintf(name, sizeof name, "worker-%d", m->id);
    pthread_setname_np(pthread_self(), name);
    crash_thread_stack();
    for (;;) {
        if (!atomic_load_explicit(&c->packed, memory_order_relaxed))
            drive_one(c, m);
        else if (m->id == 0)
            drive_all(c, m);
        else
            stand_by(c, m);
    }
    return NULL;
}

/* ---- measuring ---- */

static int64_t members_cpu_us(const struct crew *c)
{
    int64_t us = 0;
    for (int i = 0; i < c->n; i++) {
        struct timespec t;
        if (clock_gettime(c->members[i].cpu_clock, &t) == 0) us += (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
    }
    return us;
}

/* What all processors were idle so far, in clock ticks; 0: not known. */
static uint64_t idle_ticks(void)
{
    char line[256];
    unsigned long long user, nice, system, idle, iowait;
    int fd = open("/proc/stat", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, line, sizeof line - 1);
    close(fd);
    if (n <= 0) return 0;
    line[n] = '\0';
    if (sscanf(line, "cpu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &iowait) != 5) return 0;
    return idle + iowait;
}

static bool measure(struct crew *c, bool packed, int64_t now_ms, struct load *out)
{
    int64_t us = members_cpu_us(c), took_ms = now_ms - c->measured_ms;
    bool first = c->measured_ms == 0 || took_ms <= 0;
    out->ours = first ? 0 : (int)((us - c->cpu_us) / 10 / took_ms);
    /* One thread that has little to do stays alone whatever the others do: an idle node does not read files. */
    uint64_t idle = packed && out->ours < LOOK_AROUND ? 0 : idle_ticks();
    if (!first) {
        int64_t ticks_ms = 1000 / sysconf(_SC_CLK_TCK);
        out->spare = idle && c->spare_ticks ? (int)((int64_t)(idle - c->spare_ticks) * ticks_ms * 100 / took_ms) : 100;
    }
    c->measured_ms = now_ms;
    c->cpu_us = us;
    c->spare_ticks = idle;
    return !first;
}

void crew_tick(struct crew *c, int64_t now_ms)
{
    struct load load;
    if (!c) return;
    uint64_t turns = atomic_load_explicit(&c->turns, memory_order_relaxed);
    bool packed = atomic_load(&c->packed);
    atomic_store_explicit(&c->active, turns - c->turns_before > 4 * (uint64_t)c->n, memory_order_relaxed);
    c->turns_before = turns;
    if (!measure(c, packed, now_ms, &load)) return;
    /* More threads would take from others what they need, and use more of it. */
    bool alone = load.spare < 10 && load.ours < 125;
    c->busy = load.ours > 80 && load.spare > 25 ? c->busy + 1 : 0;
    c->calm = load.ours < 60 || alone ? c->calm + 1 : 0;
    if (packed && c->busy >= BUSY_TICKS) {
        spread(c);
        c->calm = 0;
    } else if (!packed && c->calm >= atomic_load(&c->calm_wanted)) {
        atomic_store(&c->calm_wanted, CALM_TICKS);
        c->calm = c->busy = 0;
        pack(c);
    }
}

void crew_trim(struct crew *c)
{
    if (!c) return;
    pthread_mutex_lock(&c->mu);
    pthread_cond_broadcast(&c->wake);
    pthread_mutex_unlock(&c->mu);
}

void crew_start(struct node *n)
{
    struct crew *c = mem_calloc(1, sizeof *c);
    c->node = n;
    c->n = n->worker_count;
    c->members = mem_calloc((size_t)c->n, sizeof *c->members);
    c->driving = mem_calloc((size_t)c->n, sizeof *c->driving);
    c->fds = mem_calloc((size_t)c->n, sizeof *c->fds);
    c->seats = mem_calloc((size_t)c->n, sizeof *c->seats);
    atomic_store(&c->calm_wanted, CALM_TICKS);
    atomic_store(&c->packed, c->n > 1);
    pthread_mutex_init(&c->mu, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&c->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    for (int i = 0; i < c->n; i++) pthread_mutex_init(&c->driving[i], NULL);
    for (int i = 0; i < c->n; i++) {
        struct member *m = &c->members[i];
        *m = (struct member){.crew = c, .id = i};
        if (pthread_create(&m->thread, NULL, run, m) || pthread_getcpuclockid(m->thread, &m->cpu_clock)) mem_abort(0);
    }
    if (c->n > 1) atomic_store(&n->crew, c); /* only now may the tick measure */
}
