#include "server/tracking_bcast.h"

#include "base/mem.h"
#include "server/pubsub.h"

#include <stdlib.h>

enum { KEY_WEIGHT = 128 };

struct prefix;

/* One worker's part of a prefix; its thread only, but for n. */
struct local {
    size_t n; /* members; under the lock */
    struct prefix *prefix;
    struct list members; /* member.link */
    struct list dirty;   /* in bcast_worker.dirty, when keys wait */
    struct list keys;    /* changed.link: to be told at the end of the turn */
    size_t key_count;
};

/* A prefix that somebody wants to hear of. */
struct prefix {
    struct list link;      /* in order of their texts */
    _Atomic uint32_t refs; /* one for standing in the list, one for each key under way */
    size_t total;          /* members of all workers; under the lock */
    struct bytes text;
    struct local of[]; /* by worker */
};

struct member {
    struct list link, own;
    struct prefix *prefix;
    struct conn *conn;
};

struct bcast {
    struct node *node;
    pthread_rwlock_t mu; /* order: after the slots; mailboxes below it */
    struct list prefixes;
    _Atomic size_t count;
};

struct bcast_worker {
    struct list dirty;
};

/* A key that changed, at one worker. */
struct changed {
    struct mail mail;
    struct list link;
    struct worker *worker;
    struct prefix *prefix;
    uint64_t by;
    size_t order;
    struct bytes key;
};

struct bcast *bcast_create(struct node *n)
{
    struct bcast *b = mem_calloc(1, sizeof *b);
    b->node = n;
    pthread_rwlock_init(&b->mu, NULL);
    list_init(&b->prefixes);
    return b;
}

struct bcast_worker *bcast_worker_create(void)
{
    struct bcast_worker *q = mem_calloc(1, sizeof *q);
    list_init(&q->dirty);
    return q;
}

bool bcast_active(const struct bcast *b)
{
    return atomic_load_explicit(&b->count, memory_order_relaxed) > 0;
}

size_t bcast_prefixes(const struct bcast *b)
{
    return atomic_load_explicit(&b->count, memory_order_relaxed);
}

static void unref(struct prefix *p)
{
    if (atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) == 1) mem_free(p);
}

static struct prefix *prefix_new(const struct bcast *b, struct bytes text)
{
    size_t workers = (size_t)b->node->worker_count;
    struct prefix *p = mem_calloc(1, sizeof *p + workers * sizeof p->of[0] + text.n);
    atomic_init(&p->refs, 1);
    list_init(&p->link);
    for (size_t i = 0; i < workers; i++) {
        p->of[i] = (struct local){.prefix = p};
        list_init(&p->of[i].members);
        list_init(&p->of[i].dirty);
        list_init(&p->of[i].keys);
    }
    char *at = (char *)&p->of[workers];
    if (text.n) memcpy(at, text.p, text.n);
    p->text = bytes_make(at, text.n);
    return p;
}

/* Under the lock. */
static struct prefix *find_or_add(struct bcast *b, struct bytes text)
{
    struct list *at = b->prefixes.next;
    for (; at != &b->prefixes; at = at->next) {
        struct prefix *p = container_of(at, struct prefix, link);
        int order = bytes_cmp(p->text, text);
        if (order == 0) return p;
        if (order > 0) break;
    }
    struct prefix *p = prefix_new(b, text);
    list_push_back(at, &p->link); /* before `at` */
    atomic_fetch_add(&b->count, 1);
    return p;
}

void bcast_join(struct bcast *b, struct conn *c, struct bytes text)
{
    list_each(it, &c->tracking->prefixes)
    {
        if (bytes_eq(container_of(it, struct member, own)->prefix->text, text)) return;
    }
    int worker = c->worker->id;
    struct member *m = mem_alloc(sizeof *m);
    pthread_rwlock_wrlock(&b->mu);
    struct prefix *p = find_or_add(b, text);
    p->total++;
    p->of[worker].n++;
    pthread_rwlock_unlock(&b->mu);
    *m = (struct member){.prefix = p, .conn = c};
    list_push_back(&p->of[worker].members, &m->link);
    struct list *at = c->tracking->prefixes.next;
    while (at != &c->tracking->prefixes && bytes_cmp(container_of(at, struct member, own)->prefix->text, text) < 0)
        at = at->next;
    list_push_back(at, &m->own);
}

void bcast_leave(struct bcast *b, struct conn *c)
{
    int worker = c->worker->id;
    list_each(it, &c->tracking->prefixes)
    {
        struct member *m = container_of(it, struct member, own);
        struct prefix *p = m->prefix;
        list_remove(&m->own);
        list_remove(&m->link);
        mem_free(m);
        pthread_rwlock_wrlock(&b->mu);
        p->of[worker].n--;
        bool last = --p->total == 0;
        if (last) {
            list_remove(&p->link);
            atomic_fetch_sub(&b->count, 1);
        }
        pthread_rwlock_unlock(&b->mu);
        if (last) unref(p);
    }
}

struct bytes tracking_prefix(const struct conn *c, size_t i)
{
    list_each(it, &c->tracking->prefixes) if (i-- == 0) return container_of(it, struct member, own)->prefix->text;
    return (struct bytes){0};
}

/* ---- changes ---- */

static void deliver(struct mail *mail)
{
    struct changed *x = container_of(mail, struct changed, mail);
    struct prefix *p = x->prefix;
    int id = x->worker->id;
    if (list_empty(&p->of[id].keys)) list_push_back(&tracking_bcast_of(x->worker)->dirty, &p->of[id].dirty);
    x->order = p->of[id].key_count++;
    list_push_back(&p->of[id].keys, &x->link);
}

static void post(struct worker *w, struct prefix *p, struct bytes key, uint64_t by)
{
    struct changed *x = mem_alloc(sizeof *x + key.n);
    *x = (struct changed){.mail.deliver = deliver, .worker = w, .prefix = p, .by = by, .key = bytes_make(x + 1, key.n)};
    if (key.n) memcpy(x + 1, key.p, key.n);
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    pubsub_backlog_add(w, KEY_WEIGHT + key.n);
    loop_post(w->loop, &x->mail);
}

void bcast_key_changed(struct bcast *b, struct bytes key, uint64_t by)
{
    pthread_rwlock_rdlock(&b->mu);
    list_each(it, &b->prefixes)
    {
        struct prefix *p = container_of(it, struct prefix, link);
        if (p->text.n > key.n || (p->text.n && memcmp(p->text.p, key.p, p->text.n) != 0)) continue;
        for (int i = 0; i < b->node->worker_count; i++)
            if (p->of[i].n) post(b->node->workers[i], p, key, by);
    }
    pthread_rwlock_unlock(&b->mu);
}

static int by_key(const void *a, const void *b)
{
    const struct changed *x = *(struct changed *const *)a, *y = *(struct changed *const *)b;
    int order = bytes_cmp(x->key, y->key);
    return order ? order : x->order < y->order ? -1 : x->order > y->order;
}

/* Encodes the keys, but for those that `but` changed itself (0: all); false: none is left. */
static bool encode(struct buf *out, struct changed *const *keys, size_t n, uint64_t but)
{
    struct resp_out o = {out, 3};
    size_t count = 0;
    out->n = 0;
    for (size_t i = 0; i < n; i++) count += !but || keys[i]->by != but;
    resp_array(&o, count);
    for (size_t i = 0; i < n; i++)
        if (!but || keys[i]->by != but) resp_bulk(&o, keys[i]->key);
    return count > 0;
}

/* Every member hears of the keys once, in their order; who wants no word of its own changes gets its own list. */
static void tell(struct prefix *p, int worker, struct changed *const *keys, size_t n)
{
    struct buf all = {0}, some = {0};
    encode(&all, keys, n, 0);
    list_each(it, &p->of[worker].members)
    {
        struct conn *c = container_of(it, struct member, link)->conn;
        if (!(c->tracking->flags & TRACKING_NOLOOP))
            tracking_give(c, buf_bytes(&all));
        else if (encode(&some, keys, n, c->id))
            tracking_give(c, buf_bytes(&some));
    }
    buf_deinit(&all);
    buf_deinit(&some);
}

static void tell_prefix(struct prefix *p, int worker)
{
    size_t n = 0, unique = 0;
    struct changed **keys = mem_alloc(p->of[worker].key_count * sizeof(struct changed *));
    list_each(it, &p->of[worker].keys) keys[n++] = container_of(it, struct changed, link);
    struct changed **sorted = mem_alloc(n * sizeof(struct changed *));
    memcpy(sorted, keys, n * sizeof(struct changed *));
    qsort(sorted, n, sizeof *sorted, by_key);
    for (size_t i = 0; i < n; i++)
        if (unique == 0 || !bytes_eq(sorted[unique - 1]->key, sorted[i]->key)) sorted[unique++] = sorted[i];
    tell(p, worker, sorted, unique);
    list_init(&p->of[worker].keys);
    p->of[worker].key_count = 0;
    for (size_t i = 0; i < n; i++) {
        pubsub_backlog_done(keys[i]->worker, KEY_WEIGHT + keys[i]->key.n);
        mem_free(keys[i]);
        unref(p);
    }
    mem_free(keys);
    mem_free(sorted);
}

void bcast_run(struct worker *w, struct bcast_worker *q)
{
    while (!list_empty(&q->dirty)) {
        struct list *it = q->dirty.next;
        list_remove(it);
        tell_prefix(container_of(it, struct local, dirty)->prefix, w->id);
    }
}
