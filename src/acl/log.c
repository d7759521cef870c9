/* log.c: the log of refusals. */
#include "acl/acl.h"

#include "base/list.h"
#include "base/mem.h"

#include <pthread.h>
#include <stdatomic.h>

enum { SAME_WITHIN_MS = 60000, LOOK_AT = 10, REASONS = ACL_DENIED_CHANNEL + 1 };

struct noted {
    struct list link;
    struct acl_log_entry e; /* owns its texts */
};

struct acl_log {
    pthread_mutex_t mu;  /* for the entries; a leaf */
    struct list entries; /* oldest first */
    size_t count;
    _Atomic uint64_t refusals[REASONS];
};

struct acl_log *acl_log_create(void)
{
    struct acl_log *log = mem_calloc(1, sizeof *log);
    pthread_mutex_init(&log->mu, NULL);
    list_init(&log->entries);
    return log;
}

static struct bytes keep(struct bytes b, size_t most)
{
    if (b.n > most) b.n = most;
    return bytes_make(bytes_dup_cstr(b), b.n);
}

static void drop(struct acl_log *log, struct noted *x)
{
    list_remove(&x->link);
    mem_free((char *)x->e.object.p);
    mem_free((char *)x->e.user.p);
    mem_free((char *)x->e.client.p);
    mem_free(x);
    log->count--;
}

void acl_log_reset(struct acl_log *log)
{
    pthread_mutex_lock(&log->mu);
    while (!list_empty(&log->entries)) drop(log, container_of(log->entries.next, struct noted, link));
    pthread_mutex_unlock(&log->mu);
}

void acl_log_destroy(struct acl_log *log)
{
    acl_log_reset(log);
    pthread_mutex_destroy(&log->mu);
    mem_free(log);
}

static bool alike(const struct acl_log_entry *a, const struct acl_log_entry *b)
{
    int64_t apart = a->at_ms - b->at_ms;
    return a->reason == b->reason && a->context == b->context && apart <= SAME_WITHIN_MS && apart >= -SAME_WITHIN_MS &&
           bytes_eq(a->object, b->object) && bytes_eq(a->user, b->user);
}

static struct noted *find_alike(struct acl_log *log, const struct acl_log_entry *e)
{
    int looked = 0;
    for (struct list *it = log->entries.prev; it != &log->entries && looked < LOOK_AT; it = it->prev, looked++) {
        struct noted *x = container_of(it, struct noted, link);
        if (alike(&x->e, e)) return x;
    }
    return NULL;
}

void acl_log_add(struct acl_log *log, const struct acl_log_entry *e, size_t most)
{
    atomic_fetch_add_explicit(&log->refusals[e->reason], 1, memory_order_relaxed);
    struct noted *x = mem_calloc(1, sizeof *x);
    x->e = *e;
    x->e.count = 1;
    x->e.object = keep(e->object, ACL_LOG_TEXT_MAX);
    x->e.user = keep(e->user, ACL_LOG_TEXT_MAX);
    x->e.client = keep(e->client, ACL_LOG_TEXT_MAX);
    pthread_mutex_lock(&log->mu);
    struct noted *before = find_alike(log, &x->e);
    if (before) {
        x->e.count += before->e.count;
        drop(log, before);
    }
    list_push_back(&log->entries, &x->link);
    log->count++;
    while (log->count > most) drop(log, container_of(log->entries.next, struct noted, link));
    pthread_mutex_unlock(&log->mu);
}

void acl_log_each(struct acl_log *log, size_t most, void (*each)(void *ctx, const struct acl_log_entry *e), void *ctx)
{
    pthread_mutex_lock(&log->mu);
    for (struct list *it = log->entries.prev; it != &log->entries && most > 0; it = it->prev, most--)
        each(ctx, &container_of(it, struct noted, link)->e);
    pthread_mutex_unlock(&log->mu);
}

uint64_t acl_log_refusals(const struct acl_log *log, enum acl_verdict reason)
{
    return atomic_load_explicit(&log->refusals[reason], memory_order_relaxed);
}
