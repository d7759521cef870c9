/* tracking.c: the table of keys that clients have read, and how they are told of changes. */
#include "server/tracking.h"

#include "base/htable.h"
#include "base/mem.h"
#include "server/pubsub.h"
#include "server/tracking_bcast.h"

#include <stdio.h>

enum { STRIPES = 256, ITEMS_PER_KEY_MAX = 16, SHRINK_STEP = 128 };

struct tracked {
    struct hnode node; /* by the key's hash */
    struct list items;
    unsigned slot;
    struct bytes name;
};

/* One reader of one key. */
struct item {
    struct hnode node; /* by key and reader */
    struct list link;  /* tracked.items */
    struct tracked *key;
    struct conn_ref reader;
};

struct stripe {
    pthread_mutex_t mu; /* order: after the slots; mailboxes below it */
    struct htable keys, items;
};

struct tracking {
    struct node *node;
    struct stripe stripe[STRIPES];
    struct bcast *bcast;
    _Atomic size_t clients, keys, items;
    unsigned shrink_at; /* worker 0's */
};

struct tracking_worker {
    struct list own; /* note.link: what the present command invalidated of its own client's */
    struct bcast_worker *bcast;
};

/* An invalidation on its way. */
struct note {
    struct list link;
    uint64_t by;            /* id of the client that made the change, 0: none */
    bool null;              /* everything was flushed */
    struct conn_ref origin; /* redirected: the tracking client */
    uint8_t origin_resp;
    size_t n; /* of the encoded array of keys */
    char data[];
};

struct tracking *tracking_create(struct node *n)
{
    struct tracking *t = mem_calloc(1, sizeof *t);
    t->node = n;
    t->bcast = bcast_create(n);
    for (int i = 0; i < STRIPES; i++) pthread_mutex_init(&t->stripe[i].mu, NULL);
    return t;
}

struct tracking_worker *tracking_worker_create(void)
{
    struct tracking_worker *q = mem_calloc(1, sizeof *q);
    list_init(&q->own);
    q->bcast = bcast_worker_create();
    return q;
}

/* ---- what clients are told ---- */

static struct note *note_new(struct bytes array)
{
    struct note *m = mem_alloc(sizeof *m + array.n);
    *m = (struct note){.n = array.n};
    list_init(&m->link);
    if (array.n) memcpy(m->data, array.p, array.n);
    return m;
}

static struct note *note_of_key(struct bytes name)
{
    char head[40];
    int n = snprintf(head, sizeof head, "*1\r\n$%zu\r\n", name.n);
    struct note *m = mem_alloc(sizeof *m + (size_t)n + name.n + 2);
    *m = (struct note){.n = (size_t)n + name.n + 2};
    list_init(&m->link);
    memcpy(m->data, head, (size_t)n);
    if (name.n) memcpy(m->data + n, name.p, name.n);
    memcpy(m->data + (size_t)n + name.n, "\r\n", 2);
    return m;
}

static void push(struct conn *c, struct bytes head, struct bytes array)
{
    if (!conn_push_begin(c, head.n + array.n)) return;
    buf_append_bytes(&c->out, head);
    buf_append_bytes(&c->out, array);
    conn_push_end(c);
}

static const struct bytes INVALIDATE = {">2\r\n$10\r\ninvalidate\r\n", 21};
static const struct bytes BY_CHANNEL = {"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n", 44};

static struct bytes array_of(const struct note *m)
{
    if (!m->null) return bytes_make(m->data, m->n);
    return m->origin_resp == 3 ? BYTES("_\r\n") : BYTES("$-1\r\n");
}

static void redirection_broken(struct conn *c, void *data)
{
    struct note *m = data;
    if (c && c->tracking) {
        c->tracking->flags |= TRACKING_BROKEN;
        struct resp_out out = conn_out(c);
        if (c->resp == 3 && conn_push_begin(c, 64)) {
            resp_push(&out, 2);
            resp_bulk_cstr(&out, "tracking-redir-broken");
            resp_i64(&out, (int64_t)c->tracking->redirect.id);
            conn_push_end(c);
        }
    }
    mem_free(m);
}

/* At the connection that is redirected to. */
static void give_redirected(struct conn *c, void *data)
{
    struct note *m = data;
    if (!c) {
        conn_post(m->origin, redirection_broken, m);
        return;
    }
    if (c->resp == 3)
        push(c, INVALIDATE, array_of(m));
    else if (pubsub_active(c))
        push(c, BY_CHANNEL, array_of(m));
    mem_free(m);
}

/* At the tracking client itself.  Takes m. */
static void give(struct conn *c, struct note *m)
{
    m->origin = conn_ref_of(c);
    m->origin_resp = c->resp;
    if (c->tracking->redirect.id) {
        conn_post(c->tracking->redirect, give_redirected, m);
        return;
    }
    if (c->resp == 3) push(c, INVALIDATE, array_of(m));
    mem_free(m);
}

void tracking_give(struct conn *c, struct bytes array)
{
    give(c, note_new(array));
}

static void deliver(struct conn *c, void *data)
{
    struct note *m = data;
    bool wanted = c && c->tracking && !(c->tracking->flags & TRACKING_BCAST);
    if (wanted && c->tracking->flags & TRACKING_NOLOOP && m->by == c->id) wanted = false;
    if (wanted)
        give(c, m);
    else
        mem_free(m);
}

/* ---- the table ---- */

static struct stripe *stripe_of(struct tracking *t, unsigned slot)
{
    return &t->stripe[slot % STRIPES];
}

static struct tracked *find_key(const struct stripe *s, const struct key *k)
{
    for (struct hnode *n = htable_chain(&s->keys, k->hash); n; n = n->next) {
        struct tracked *t = container_of(n, struct tracked, node);
        if (n->hash == k->hash && bytes_eq(t->name, k->name)) return t;
    }
    return NULL;
}

static uint64_t pair_hash(uint64_t key_hash, uint64_t id)
{
    return key_hash ^ (id * 0x9e3779b97f4a7c15u);
}

static bool has_reader(const struct stripe *s, const struct tracked *t, uint64_t id)
{
    uint64_t hash = pair_hash(t->node.hash, id);
    for (struct hnode *n = htable_chain(&s->items, hash); n; n = n->next) {
        const struct item *i = container_of(n, struct item, node);
        if (n->hash == hash && i->key == t && i->reader.id == id) return true;
    }
    return false;
}

static void add_reader(struct tracking *t, struct stripe *s, struct tracked *key, const struct conn *c)
{
    struct item *i = mem_alloc(sizeof *i);
    *i = (struct item){.node.hash = pair_hash(key->node.hash, c->id), .key = key, .reader = conn_ref_of(c)};
    htable_insert(&s->items, &i->node);
    list_push_back(&key->items, &i->link);
    atomic_fetch_add_explicit(&t->items, 1, memory_order_relaxed);
}

static struct tracked *add_key(struct tracking *t, struct stripe *s, const struct key *k)
{
    struct tracked *key = mem_alloc(sizeof *key + k->name.n);
    *key = (struct tracked){.node.hash = k->hash, .slot = k->slot, .name = bytes_make(key + 1, k->name.n)};
    if (k->name.n) memcpy(key + 1, k->name.p, k->name.n);
    list_init(&key->items);
    htable_insert(&s->keys, &key->node);
    atomic_fetch_add_explicit(&t->keys, 1, memory_order_relaxed);
    return key;
}

/* Takes the key out and tells its readers, but for one that is to hear behind its own reply; under the stripe's lock.
 */
static void invalidate(struct tracking *t, struct stripe *s, struct tracked *key, struct worker *w)
{
    uint64_t by = w ? w->executing : 0;
    htable_remove(&s->keys, &key->node);
    list_each(it, &key->items)
    {
        struct item *i = container_of(it, struct item, link);
        struct note *m = note_of_key(key->name);
        m->by = by;
        if (by && i->reader.id == by)
            list_push_back(&w->tracking->own, &m->link);
        else
            conn_post(i->reader, deliver, m);
        htable_remove(&s->items, &i->node);
        mem_free(i);
        atomic_fetch_sub_explicit(&t->items, 1, memory_order_relaxed);
    }
    mem_free(key);
    atomic_fetch_sub_explicit(&t->keys, 1, memory_order_relaxed);
}

static bool over_limit(const struct tracking *t)
{
    size_t max = (size_t)config_num(t->node->config, CFG_TRACKING_TABLE_MAX_KEYS);
    size_t keys = atomic_load_explicit(&t->keys, memory_order_relaxed);
    size_t items = atomic_load_explicit(&t->items, memory_order_relaxed);
    /* Connections that are gone leave their items behind until the key changes: these have a bound as well. */
    return max && (keys > max || items / ITEMS_PER_KEY_MAX > max);
}

/* Forgets a key of the stripe, any but `keep`, telling its readers that they cannot rely on it any more. */
static bool forget_one(struct tracking *t, struct stripe *s, const struct tracked *keep, size_t from)
{
    for (size_t b = 0; b < s->keys.buckets; b++) {
        struct hnode *n = htable_at(&s->keys, (from + b) % s->keys.buckets);
        if (n && container_of(n, struct tracked, node) == keep) n = n->next;
        if (!n) continue;
        invalidate(t, s, container_of(n, struct tracked, node), NULL);
        return true;
    }
    return false;
}

static void remember_key(struct tracking *t, const struct conn *c, const struct key *k)
{
    struct stripe *s = stripe_of(t, k->slot);
    pthread_mutex_lock(&s->mu);
    struct tracked *key = find_key(s, k);
    if (!key) key = add_key(t, s, k);
    if (!has_reader(s, key, c->id)) add_reader(t, s, key, c);
    for (int i = 0; i < 2 && over_limit(t); i++)
        if (!forget_one(t, s, key, (size_t)random_u64(&c->worker->rng))) break;
    pthread_mutex_unlock(&s->mu);
}

void tracking_remember(struct conn *c, const struct call *call)
{
    struct tracking *t = c->worker->node->tracking;
    unsigned flags = c->tracking->flags;
    if (flags & TRACKING_BCAST || call->cmd->flags & CMD_PUBSUB) return;
    if (flags & TRACKING_OPTIN && !(flags & TRACKING_CACHING)) return;
    if (flags & TRACKING_OPTOUT && flags & TRACKING_CACHING) return;
    if (!command_has_keys(call->cmd)) return;
    int n = command_keys(call->cmd, call->argv, call->argc, NULL, 0);
    if (n <= 0) return;
    struct command_key *found = mem_alloc((size_t)n * sizeof *found);
    command_keys(call->cmd, call->argv, call->argc, found, (size_t)n);
    for (int i = 0; i < n; i++) {
        struct key k = call_key(call, found[i].index);
        remember_key(t, c, &k);
    }
    mem_free(found);
}

void tracking_key_changed(struct node *n, struct worker *w, const struct key *k)
{
    struct tracking *t = n->tracking;
    if (bcast_active(t->bcast)) {
        bcast_key_changed(t->bcast, k->name, w ? w->executing : 0);
        if (w) w->notified = true;
    }
    if (atomic_load_explicit(&t->keys, memory_order_relaxed) == 0) return;
    struct stripe *s = stripe_of(t, k->slot);
    pthread_mutex_lock(&s->mu);
    struct tracked *key = find_key(s, k);
    if (key) invalidate(t, s, key, w);
    pthread_mutex_unlock(&s->mu);
}

static void drop_all(struct tracking *t, struct stripe *s)
{
    for (size_t b = 0; b < s->keys.buckets; b++) {
        for (struct hnode *n = htable_at(&s->keys, b), *next; n; n = next) {
            struct tracked *key = container_of(n, struct tracked, node);
            next = n->next;
            list_each(it, &key->items)
            {
                mem_free(container_of(it, struct item, link));
                atomic_fetch_sub_explicit(&t->items, 1, memory_order_relaxed);
            }
            mem_free(key);
            atomic_fetch_sub_explicit(&t->keys, 1, memory_order_relaxed);
        }
    }
    htable_deinit(&s->keys);
    htable_deinit(&s->items);
}

/* Every tracking client of the worker hears that everything is gone. */
static void tell_flush(struct worker *w)
{
    list_each(it, &w->conns)
    {
        struct conn *c = container_of(it, struct conn, link);
        if (!c->tracking) continue;
        struct note *m = note_new((struct bytes){0});
        m->null = true;
        give(c, m);
    }
}

void tracking_flushed(struct node *n)
{
    struct tracking *t = n->tracking;
    if (atomic_load(&t->clients) == 0 && atomic_load(&t->keys) == 0) return;
    for (int i = 0; i < STRIPES; i++) {
        pthread_mutex_lock(&t->stripe[i].mu);
        drop_all(t, &t->stripe[i]);
        pthread_mutex_unlock(&t->stripe[i].mu);
    }
    node_post_workers(n, tell_flush);
}

void tracking_slots_gone(struct node *n, const uint8_t *slots)
{
    struct tracking *t = n->tracking;
    if (atomic_load(&t->keys) == 0) return;
    for (int i = 0; i < STRIPES; i++) {
        struct stripe *s = &t->stripe[i];
        pthread_mutex_lock(&s->mu);
        /* A removal may merge buckets, so the walk begins again after each. */
        for (size_t b = 0; b < s->keys.buckets; b++) {
            struct hnode *h = htable_at(&s->keys, b);
            while (h && b != (size_t)-1) {
                struct tracked *key = container_of(h, struct tracked, node);
                h = h->next;
                if (!(slots[key->slot / 8] >> (key->slot % 8) & 1)) continue;
                invalidate(t, s, key, NULL);
                b = (size_t)-1; /* from the first bucket again */
            }
        }
        pthread_mutex_unlock(&s->mu);
    }
}

void tracking_shrink(struct node *n)
{
    struct tracking *t = n->tracking;
    for (int i = 0; i < SHRINK_STEP * STRIPES && over_limit(t); i++) {
        struct stripe *s = &t->stripe[t->shrink_at++ % STRIPES];
        pthread_mutex_lock(&s->mu);
        forget_one(t, s, NULL, 0);
        pthread_mutex_unlock(&s->mu);
    }
}

/* ---- clients ---- */

void tracking_on(struct conn *c, unsigned flags, struct conn_ref redirect, const struct bytes *prefixes, size_t n)
{
    struct tracking *t = c->worker->node->tracking;
    if (!c->tracking) {
        c->tracking = mem_calloc(1, sizeof *c->tracking);
        list_init(&c->tracking->prefixes);
        atomic_fetch_add(&t->clients, 1);
    }
    c->tracking->flags = flags;
    c->tracking->redirect = redirect;
    if (!(flags & TRACKING_BCAST)) return;
    struct bytes all = BYTES("");
    if (n == 0) bcast_join(t->bcast, c, all);
    for (size_t i = 0; i < n; i++) bcast_join(t->bcast, c, prefixes[i]);
}

void tracking_off(struct conn *c)
{
    struct tracking *t = c->worker->node->tracking;
    if (!c->tracking) return;
    bcast_leave(t->bcast, c);
    mem_free(c->tracking);
    c->tracking = NULL;
    atomic_fetch_sub(&t->clients, 1);
}

void tracking_after_command(struct conn *c, const struct command *cmd)
{
    struct list *own = &c->worker->tracking->own;
    while (!list_empty(own)) {
        struct note *m = container_of(own->next, struct note, link);
        list_remove(&m->link);
        deliver(c, m);
    }
    if (!c->tracking || c->in_multi || !(c->tracking->flags & TRACKING_CACHING)) return;
    const struct command *parent = cmd ? command_parent(cmd) : NULL;
    if (!parent || parent->id != CMD_ID_CLIENT) c->tracking->flags &= ~(unsigned)TRACKING_CACHING;
}

void tracking_run(struct worker *w)
{
    bcast_run(w, w->tracking->bcast);
}

struct bcast_worker *tracking_bcast_of(struct worker *w)
{
    return w->tracking->bcast;
}

void tracking_totals(const struct node *n, struct tracking_totals *out)
{
    const struct tracking *t = n->tracking;
    *out = (struct tracking_totals){atomic_load(&t->clients), atomic_load(&t->keys), atomic_load(&t->items),
                                    bcast_prefixes(t->bcast)};
}
