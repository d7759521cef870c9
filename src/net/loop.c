#include "net/net.h"

#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { EVENTS_MAX = 512 };

struct loop {
    int epoll_fd;
    struct loop_timer *timers;
    void (*turn_begin)(void *ctx), (*turn_end)(void *ctx);
    void *hook_ctx;
    struct epoll_event events[EVENTS_MAX];
    int64_t now_ms;                        /* monotonic, when the loop woke up */
    int event_count;                       /* of the turn under way; entries of removed sources are cleared */
    struct mail *undelivered;              /* mail of the turn under way, oldest first */
    struct loop_source *again, *again_now; /* for the next turn, and what is left of this one's */

    /* written by other threads */
    int wake_fd;
    _Atomic(struct mail *) inbox; /* newest first */
    _Atomic bool asleep;          /* a sender must write to wake_fd */
};

struct loop *loop_create(void)
{
    struct loop *l = mem_calloc(1, sizeof *l);
    l->now_ms = clock_mono_ms();
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (l->epoll_fd < 0 || l->wake_fd < 0) mem_abort(sizeof *l);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->wake_fd, &ev);
    return l;
}

void loop_destroy(struct loop *l)
{
    close(l->wake_fd);
    close(l->epoll_fd);
    mem_free(l);
}

static uint32_t epoll_bits(int events)
{
    return (events & NET_READ ? EPOLLIN : 0u) | (events & NET_WRITE ? EPOLLOUT : 0u);
}

enum status loop_add(struct loop *l, struct loop_source *src, int events)
{
    struct epoll_event ev = {.events = epoll_bits(events), .data.ptr = src};
    src->events = events;
    return epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, src->fd, &ev) == 0 ? OK : E_IO;
}

void loop_set(struct loop *l, struct loop_source *src, int events)
{
    if (src->events == events) return;
    struct epoll_event ev = {.events = epoll_bits(events), .data.ptr = src};
    src->events = events;
    epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, src->fd, &ev);
}

static void forget_again(struct loop_source **at, struct loop_source *src)
{
    for (; *at; at = &(*at)->again_next) {
        if (*at != src) continue;
        *at = src->again_next;
        return;
    }
}

void loop_again(struct loop *l, struct loop_source *src)
{
    if (src->again) return;
    src->again = true;
    src->again_next = l->again;
    l->again = src;
}

void loop_remove(struct loop *l, struct loop_source *src)
{
    if (src->fd < 0) return;
    if (src->again) {
        forget_again(&l->again, src);
        forget_again(&l->again_now, src);
        src->again = false;
    }
    epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, src->fd, NULL);
    src->fd = -1;
    for (int i = 0; i < l->event_count; i++)
        if (l->events[i].data.ptr == src) l->events[i].data.ptr = NULL;
}

void loop_timer_add(struct loop *l, struct loop_timer *t)
{
    t->next = l->timers;
    l->timers = t;
    t->due_ms = clock_mono_ms() + t->every_ms;
}

void loop_set_hooks(struct loop *l, void (*begin)(void *ctx), void (*end)(void *ctx), void *ctx)
{
    l->turn_begin = begin;
    l->turn_end = end;
    l->hook_ctx = ctx;
}

void loop_post(struct loop *l, struct mail *m)
{
    struct mail *head = atomic_load_explicit(&l->inbox, memory_order_relaxed);
    do m->next = head;
    while (!atomic_compare_exchange_weak(&l->inbox, &head, m));
    if (atomic_exchange(&l->asleep, false)) {
        uint64_t one = 1;
        ssize_t n = write(l->wake_fd, &one, sizeof one);
        (void)n; /* full means that it is awake already */
    }
}

static void deliver_mail(struct loop *l)
{
    struct mail *m = atomic_exchange(&l->inbox, NULL), *oldest = NULL;
    while (m) {
        struct mail *next = m->next;
        m->next = oldest;
        oldest = m;
        m = next;
    }
    /* Behind what a turn around this one has not delivered yet. */
    struct mail **end = &l->undelivered;
    while (*end) end = &(*end)->next;
    *end = oldest;
    while (l->undelivered) {
        struct mail *first = l->undelivered;
        l->undelivered = first->next;
        first->deliver(first);
    }
}

int64_t loop_now_ms(const struct loop *l)
{
    return l->now_ms;
}

static int64_t soonest_timer(const struct loop *l)
{
    int64_t soonest = INT64_MAX;
    for (const struct loop_timer *t = l->timers; t; t = t->next)
        if (t->due_ms < soonest) soonest = t->due_ms;
    return soonest;
}

static int sleep_ms(const struct loop *l, int timeout_ms)
{
    if (!l->timers || timeout_ms == 0) return timeout_ms;
    int64_t soonest = soonest_timer(l);
    /* The turn has taken a little since now_ms; a timer may come late by that much. */
    int64_t wait = soonest > l->now_ms ? soonest - l->now_ms : 0;
    return timeout_ms >= 0 && timeout_ms < wait ? timeout_ms : (int)wait;
}

int loop_fd(const struct loop *l)
{
    return l->epoll_fd;
}

int loop_prepare_sleep(struct loop *l)
{
    atomic_store(&l->asleep, true);
    if (l->again || atomic_load(&l->inbox)) return 0;
    int64_t soonest = soonest_timer(l), now = clock_mono_ms();
    if (soonest == INT64_MAX) return -1;
    return soonest <= now ? 0 : soonest - now < INT32_MAX ? (int)(soonest - now) : INT32_MAX;
}

bool loop_wake_up(struct loop *l, int64_t now_ms)
{
    atomic_store_explicit(&l->asleep, false, memory_order_relaxed);
    return l->again || atomic_load(&l->inbox) || soonest_timer(l) <= now_ms;
}

static void run_timers(struct loop *l)
{
    int64_t now = l->now_ms;
    for (struct loop_timer *t = l->timers; t; t = t->next) {
        if (t->due_ms > now) continue;
        t->due_ms = now + t->every_ms;
        t->tick(t, now);
    }
}

static void run_again(struct loop *l)
{
    for (struct loop_source *src; (src = l->again_now);) {
        l->again_now = src->again_next;
        src->again = false;
        if (src->events & NET_READ) src->ready(src, NET_READ);
    }
}

bool loop_wait(struct loop *l, int timeout_ms)
{
    int n = epoll_wait(l->epoll_fd, l->events, EVENTS_MAX, timeout_ms);
    l->event_count = n > 0 ? n : 0;
    return n > 0;
}

void loop_run(struct loop *l)
{
    l->now_ms = clock_mono_ms();
    if (l->turn_begin) l->turn_begin(l->hook_ctx);
    deliver_mail(l);
    struct loop_source **last = &l->again_now; /* a turn around this one may have left some */
    while (*last) last = &(*last)->again_next;
    *last = l->again;
    l->again = NULL;
    for (int i = 0; i < l->event_count; i++) {
        uint32_t got = l->events[i].events;
        struct loop_source *src = l->events[i].data.ptr;
        if (!src) {
            uint64_t count;
            /* Level triggered: only the mail descriptor needs to be emptied; a removed source has none. */
            ssize_t r = read(l->wake_fd, &count, sizeof count);
            (void)r;
            continue;
        }
        int events = (got & EPOLLIN ? NET_READ : 0) | (got & EPOLLOUT ? NET_WRITE : 0);
        if (got & (EPOLLERR | EPOLLHUP)) events |= NET_READ | NET_WRITE;
        if (src->again) { /* it is called once a turn */
            forget_again(&l->again_now, src);
            src->again = false;
        }
        src->ready(src, events);
    }
    l->event_count = 0;
    run_again(l);
    run_timers(l);
    if (l->turn_end) l->turn_end(l->hook_ctx);
}

void loop_turn(struct loop *l, int timeout_ms)
{
    timeout_ms = l->again ? 0 : sleep_ms(l, timeout_ms);
    atomic_store(&l->asleep, true);
    if (atomic_load(&l->inbox)) timeout_ms = 0;
    loop_wait(l, timeout_ms);
    atomic_store_explicit(&l->asleep, false, memory_order_relaxed);
    loop_run(l);
}
