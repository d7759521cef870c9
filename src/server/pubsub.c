/* pubsub.c: the registry of channels, and how a message gets to its listeners. */
#include "server/pubsub.h"

#include "base/glob.h"
#include "base/hash.h"
#include "base/htable.h"
#include "base/mem.h"
#include "cluster/cluster.h"
#include "store/store.h"

#include <stdio.h>

enum {
    STRIPES = 64,
    SLICE = 2048,                    /* of work in one turn of a worker, of which */
    COST_OF_WRITE = 8,               /* a listener takes that has nothing to write yet: that will be a system call */
    BACKLOG_HIGH = 32 * 1024 * 1024, /* bytes of messages that wait at a worker, above which publishers wait */
    BACKLOG_LOW = BACKLOG_HIGH / 4,
    MESSAGE_OVERHEAD = 256, /* what a message without content counts */
    WORKERS_MAX = 128,
};

/* A channel, pattern or shard channel that somebody listens to. */
struct channel {
    struct hnode node;     /* in the stripe of its name, or among the patterns */
    struct list link;      /* patterns only: oldest first */
    _Atomic uint32_t refs; /* one for being in the registry, one for each message under way */
    _Atomic uint64_t seq;  /* messages so far; moved under the lock, for patterns under its read side */
    size_t total;          /* of all workers; under the lock */
    uint8_t kind;
    unsigned slot; /* of a shard channel */
    struct bytes name;
    struct bytes head; /* patterns: the beginning of every message, encoded */
    struct {
        size_t n;         /* under the lock */
        struct list subs; /* subscription.link; that worker's thread only */
    } of[];
};

struct subscription {
    struct hnode node; /* in the worker's table, by connection and channel */
    struct list link;  /* channel.of[].subs */
    struct list own;   /* of the connection: pubsub_conn.subs */
    struct list shard; /* of the worker: all of shard channels */
    struct channel *channel;
    struct conn *conn;
    uint64_t since; /* messages up to this number are older than the subscription */
};

struct pubsub_conn {
    struct list subs[PUBSUB_KINDS];
    size_t n[PUBSUB_KINDS];
};

struct stripe {
    pthread_mutex_t mu; /* order: after the slots; `patterns_mu` and mailboxes below it */
    struct htable channels[PUBSUB_KINDS];
};

struct pubsub {
    struct node *node;
    struct stripe stripe[STRIPES];
    pthread_rwlock_t patterns_mu;
    struct htable patterns; /* by name */
    struct list pattern_list;
    _Atomic size_t entries[PUBSUB_KINDS];
    _Atomic bool throttled; /* a publisher waits for a worker to catch up */
};

struct target {
    struct channel *channel; /* holds a reference */
    uint64_t seq;
};

struct message {
    _Atomic uint32_t refs;
    uint64_t from; /* id of a connection that has it already; 0: none */
    size_t target_count;
    struct target *targets; /* the channel first, then patterns, oldest first */
    size_t n, tail;         /* encoded: whole as "message", and where its channel begins */
    char data[];
};

/* A message at one worker. */
struct delivery {
    struct mail mail;
    struct delivery *next;
    struct worker *worker;
    struct message *message;
};

struct pubsub_worker {
    struct htable subs;
    struct list shard_subs;
    struct delivery *first, **last;
    size_t target;      /* of the first delivery: which is being served */
    struct list cursor; /* in that target's list: whose turn is next; empty: before the first */
    bool woken;         /* mail to go on is under way */
    struct mail wake;
    struct worker *worker;
    _Atomic size_t backlog; /* bytes of messages posted and not given out yet */
};

struct pubsub *pubsub_create(struct node *n)
{
    struct pubsub *p = mem_calloc(1, sizeof *p);
    p->node = n;
    for (int i = 0; i < STRIPES; i++) pthread_mutex_init(&p->stripe[i].mu, NULL);
    pthread_rwlock_init(&p->patterns_mu, NULL);
    list_init(&p->pattern_list);
    return p;
}

struct pubsub_worker *pubsub_worker_create(void)
{
    struct pubsub_worker *q = mem_calloc(1, sizeof *q);
    list_init(&q->shard_subs);
    list_init(&q->cursor);
    q->last = &q->first;
    return q;
}

/* ---- the registry ---- */

static struct stripe *stripe_of(struct pubsub *p, uint64_t hash)
{
    return &p->stripe[(hash >> 56) % STRIPES];
}

/* Finds under the lock that lock_entries() took. */
static struct channel *find(const struct htable *t, uint64_t hash, struct bytes name)
{
    for (struct hnode *n = htable_chain(t, hash); n; n = n->next) {
        struct channel *ch = container_of(n, struct channel, node);
        if (n->hash == hash && bytes_eq(ch->name, name)) return ch;
    }
    return NULL;
}

static struct htable *lock_entries(struct pubsub *p, enum pubsub_kind kind, uint64_t hash)
{
    if (kind == PUBSUB_PATTERN) {
        pthread_rwlock_wrlock(&p->patterns_mu);
        return &p->patterns;
    }
    struct stripe *s = stripe_of(p, hash);
    pthread_mutex_lock(&s->mu);
    return &s->channels[kind];
}

static void unlock_entries(struct pubsub *p, enum pubsub_kind kind, uint64_t hash)
{
    if (kind == PUBSUB_PATTERN)
        pthread_rwlock_unlock(&p->patterns_mu);
    else
        pthread_mutex_unlock(&stripe_of(p, hash)->mu);
}

static void channel_unref(struct channel *ch)
{
    if (atomic_fetch_sub_explicit(&ch->refs, 1, memory_order_acq_rel) == 1) mem_free(ch);
}

/* Everything in one allocation: the lists, the name, and for a pattern the head of its messages. */
static struct channel *channel_new(const struct pubsub *p, enum pubsub_kind kind, uint64_t hash, struct bytes name)
{
    char text[64];
    int n = kind == PUBSUB_PATTERN ? snprintf(text, sizeof text, "*4\r\n$8\r\npmessage\r\n$%zu\r\n", name.n) : 0;
    size_t workers = (size_t)p->node->worker_count, head = n ? (size_t)n + name.n + 2 : 0;
    struct channel *ch = mem_alloc(sizeof *ch + workers * sizeof ch->of[0] + name.n + head);
    *ch = (struct channel){.node.hash = hash, .refs = 1, .kind = (uint8_t)kind};
    list_init(&ch->link);
    for (size_t i = 0; i < workers; i++) {
        ch->of[i].n = 0;
        list_init(&ch->of[i].subs);
    }
    char *at = (char *)&ch->of[workers];
    if (name.n) memcpy(at, name.p, name.n);
    ch->name = bytes_make(at, name.n);
    at += name.n;
    ch->head = bytes_make(at, head);
    if (head) {
        memcpy(at, text, (size_t)n);
        if (name.n) memcpy(at + n, name.p, name.n);
        memcpy(at + n + name.n, "\r\n", 2);
    }
    if (kind == PUBSUB_SHARD) ch->slot = key_slot(name);
    return ch;
}

bool pubsub_listened(const struct node *n, enum pubsub_kind kind)
{
    return atomic_load_explicit(&n->pubsub->entries[kind], memory_order_relaxed) > 0;
}

size_t pubsub_entries(const struct node *n, enum pubsub_kind kind)
{
    return atomic_load_explicit(&n->pubsub->entries[kind], memory_order_relaxed);
}

uint64_t pubsub_listeners(struct node *n, enum pubsub_kind kind, struct bytes name)
{
    uint64_t hash = hash_bytes(name);
    const struct channel *ch = find(lock_entries(n->pubsub, kind, hash), hash, name);
    uint64_t total = ch ? ch->total : 0;
    unlock_entries(n->pubsub, kind, hash);
    return total;
}

void pubsub_each(struct node *n, enum pubsub_kind kind, void (*each)(void *arg, struct bytes name), void *arg)
{
    for (int i = 0; i < STRIPES; i++) {
        struct stripe *s = &n->pubsub->stripe[i];
        pthread_mutex_lock(&s->mu);
        for (size_t b = 0; b < s->channels[kind].buckets; b++)
            for (struct hnode *h = htable_at(&s->channels[kind], b); h; h = h->next)
                each(arg, container_of(h, struct channel, node)->name);
        pthread_mutex_unlock(&s->mu);
    }
}

/* ---- subscriptions ---- */

static uint64_t pair_hash(const struct conn *c, uint64_t name_hash)
{
    return name_hash ^ (c->id * 0x9e3779b97f4a7c15u);
}

static struct subscription *subscription_find(const struct conn *c, enum pubsub_kind kind, struct bytes name)
{
    if (!c->pubsub || c->pubsub->n[kind] == 0) return NULL;
    uint64_t hash = pair_hash(c, hash_bytes(name));
    for (struct hnode *n = htable_chain(&c->worker->pubsub->subs, hash); n; n = n->next) {
        struct subscription *s = container_of(n, struct subscription, node);
        if (n->hash == hash && s->conn == c && s->channel->kind == kind && bytes_eq(s->channel->name, name)) return s;
    }
    return NULL;
}

/* Counts one listener more; gives the entry and the number of its newest message. */
static struct channel *registry_add(struct pubsub *p, enum pubsub_kind kind, struct bytes name, int worker,
                                    uint64_t *since)
{
    uint64_t hash = hash_bytes(name);
    struct htable *t = lock_entries(p, kind, hash);
    struct channel *ch = find(t, hash, name);
    if (!ch) {
        ch = channel_new(p, kind, hash, name);
        htable_insert(t, &ch->node);
        if (kind == PUBSUB_PATTERN) list_push_back(&p->pattern_list, &ch->link);
        atomic_fetch_add(&p->entries[kind], 1);
    }
    ch->total++;
    ch->of[worker].n++;
    *since = atomic_load_explicit(&ch->seq, memory_order_relaxed);
    unlock_entries(p, kind, hash);
    return ch;
}

static void registry_remove(struct pubsub *p, struct channel *ch, int worker)
{
    enum pubsub_kind kind = (enum pubsub_kind)ch->kind;
    uint64_t hash = ch->node.hash;
    struct htable *t = lock_entries(p, kind, hash);
    ch->of[worker].n--;
    bool last = --ch->total == 0;
    if (last) {
        htable_remove(t, &ch->node);
        list_remove(&ch->link);
        atomic_fetch_sub(&p->entries[kind], 1);
    }
    unlock_entries(p, kind, hash);
    if (last) channel_unref(ch);
}

bool pubsub_subscribe(struct conn *c, enum pubsub_kind kind, struct bytes name)
{
    struct pubsub_worker *q = c->worker->pubsub;
    if (subscription_find(c, kind, name)) return false;
    if (!c->pubsub) {
        c->pubsub = mem_calloc(1, sizeof *c->pubsub);
        for (int i = 0; i < PUBSUB_KINDS; i++) list_init(&c->pubsub->subs[i]);
    }
    struct subscription *s = mem_calloc(1, sizeof *s);
    s->conn = c;
    s->channel = registry_add(c->worker->node->pubsub, kind, name, c->worker->id, &s->since);
    s->node.hash = pair_hash(c, s->channel->node.hash);
    htable_insert(&q->subs, &s->node);
    list_push_back(&s->channel->of[c->worker->id].subs, &s->link);
    list_push_back(&c->pubsub->subs[kind], &s->own);
    list_init(&s->shard);
    if (kind == PUBSUB_SHARD) list_push_back(&q->shard_subs, &s->shard);
    c->pubsub->n[kind]++;
    return true;
}

static void subscription_end(struct subscription *s)
{
    struct conn *c = s->conn;
    struct pubsub_conn *own = c->pubsub;
    htable_remove(&c->worker->pubsub->subs, &s->node);
    list_remove(&s->link);
    list_remove(&s->own);
    list_remove(&s->shard);
    own->n[s->channel->kind]--;
    registry_remove(c->worker->node->pubsub, s->channel, c->worker->id);
    mem_free(s);
    if (own->n[PUBSUB_CHANNEL] || own->n[PUBSUB_PATTERN] || own->n[PUBSUB_SHARD]) return;
    mem_free(own);
    c->pubsub = NULL;
}

bool pubsub_unsubscribe(struct conn *c, enum pubsub_kind kind, struct bytes name)
{
    struct subscription *s = subscription_find(c, kind, name);
    if (s) subscription_end(s);
    return s != NULL;
}

void pubsub_forget(struct conn *c)
{
    for (int kind = 0; kind < PUBSUB_KINDS; kind++)
        while (c->pubsub && !list_empty(&c->pubsub->subs[kind]))
            subscription_end(container_of(c->pubsub->subs[kind].next, struct subscription, own));
}

size_t pubsub_count(const struct conn *c, enum pubsub_kind kind)
{
    return c->pubsub ? c->pubsub->n[kind] : 0;
}

struct bytes pubsub_any(const struct conn *c, enum pubsub_kind kind)
{
    if (pubsub_count(c, kind) == 0) return (struct bytes){0};
    return container_of(c->pubsub->subs[kind].next, struct subscription, own)->channel->name;
}

bool pubsub_all(const struct conn *c, bool (*may)(void *ctx, enum pubsub_kind kind, struct bytes name), void *ctx)
{
    for (int kind = 0; c->pubsub && kind < PUBSUB_KINDS; kind++)
        list_each(
            it,
            &c->pubsub->subs[kind]) if (!may(ctx, (enum pubsub_kind)kind,
                                             container_of(it, struct subscription, own)->channel->name)) return false;
    return true;
}

void pubsub_reply_change(struct conn *c, struct resp_out *out, const char *what, enum pubsub_kind kind,
                         const struct bytes *name)
{
    size_t left = kind == PUBSUB_SHARD ? pubsub_count(c, PUBSUB_SHARD)
                                       : pubsub_count(c, PUBSUB_CHANNEL) + pubsub_count(c, PUBSUB_PATTERN);
    c->push_at = c->out.n;
    resp_push(out, 3);
    resp_bulk_cstr(out, what);
    if (name)
        resp_bulk(out, *name);
    else
        resp_null(out);
    resp_i64(out, (int64_t)left);
    conn_push_end(c);
}

/* ---- messages ---- */

static void message_unref(struct message *m)
{
    if (atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1) return;
    for (size_t i = 0; i < m->target_count; i++) channel_unref(m->targets[i].channel);
    mem_free(m->targets);
    mem_free(m);
}

static struct message *message_new(enum pubsub_kind kind, struct bytes channel, struct bytes payload)
{
    char head[64], middle[32];
    const char *what = kind == PUBSUB_SHARD ? "smessage" : "message";
    int tail = snprintf(head, sizeof head, "*3\r\n$%zu\r\n%s\r\n", strlen(what), what);
    int head_n = tail + snprintf(head + tail, sizeof head - (size_t)tail, "$%zu\r\n", channel.n);
    int middle_n = snprintf(middle, sizeof middle, "\r\n$%zu\r\n", payload.n);
    size_t n = (size_t)head_n + channel.n + (size_t)middle_n + payload.n + 2;
    struct message *m = mem_try_alloc(sizeof *m + n);
    if (!m) return NULL;
    *m = (struct message){.refs = 1, .n = n, .tail = (size_t)tail};
    char *at = m->data;
    memcpy(at, head, (size_t)head_n);
    at += head_n;
    if (channel.n) memcpy(at, channel.p, channel.n);
    at += channel.n;
    memcpy(at, middle, (size_t)middle_n);
    at += middle_n;
    if (payload.n) memcpy(at, payload.p, payload.n);
    memcpy(at + payload.n, "\r\n", 2);
    return m;
}

static void add_target(struct message *m, size_t *cap, struct channel *ch)
{
    if (m->target_count == *cap) {
        *cap = *cap ? *cap * 2 : 4;
        m->targets = mem_realloc(m->targets, *cap * sizeof *m->targets);
    }
    atomic_fetch_add_explicit(&ch->refs, 1, memory_order_relaxed);
    uint64_t seq = atomic_fetch_add_explicit(&ch->seq, 1, memory_order_relaxed) + 1;
    m->targets[m->target_count++] = (struct target){ch, seq};
}

/* Writes the message to one connection.  The header differs in its first byte between the protocol's versions. */
static void give(struct conn *c, const struct message *m, const struct channel *ch)
{
    struct bytes head = ch->head, rest = bytes_make(m->data, m->n);
    if (head.n) rest = bytes_make(m->data + m->tail, m->n - m->tail);
    if (!conn_push_begin(c, head.n + rest.n)) return;
    size_t at = c->out.n;
    if (head.n) buf_append_bytes(&c->out, head);
    buf_append_bytes(&c->out, rest);
    if (c->resp == 3) c->out.p[at] = '>';
    conn_push_end(c);
}

/* A client hears itself before its PUBLISH is answered. */
static void give_to_publisher(struct conn *c, struct message *m)
{
    if (!pubsub_active(c)) return;
    m->from = c->id;
    for (size_t i = 0; i < m->target_count && !c->close_asap; i++) {
        struct channel *ch = m->targets[i].channel;
        if (subscription_find(c, (enum pubsub_kind)ch->kind, ch->name)) give(c, m, ch);
    }
}

static void deliver(struct mail *mail)
{
    struct delivery *d = container_of(mail, struct delivery, mail);
    struct pubsub_worker *q = d->worker->pubsub;
    d->next = NULL;
    *q->last = d;
    q->last = &d->next;
}

static size_t weight(const struct message *m)
{
    return m->n + MESSAGE_OVERHEAD;
}

void pubsub_backlog_add(struct worker *w, size_t bytes)
{
    atomic_fetch_add(&w->pubsub->backlog, bytes);
}

static void post(struct worker *w, struct message *m)
{
    struct delivery *d = mem_alloc(sizeof *d);
    *d = (struct delivery){.mail.deliver = deliver, .worker = w, .message = m};
    atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
    pubsub_backlog_add(w, weight(m));
    loop_post(w->loop, &d->mail);
}

/* ---- publishers that are too fast ---- */

static void resume_throttled(struct worker *w)
{
    worker_resume_list(&w->throttled);
}

void pubsub_hold_up(struct conn *c)
{
    struct node *n = c->worker->node;
    bool high = false;
    for (int i = 0; i < n->worker_count; i++)
        if (atomic_load_explicit(&n->workers[i]->pubsub->backlog, memory_order_relaxed) > BACKLOG_HIGH) high = true;
    if (n->cluster && cluster_messages_waiting(n->cluster) > BACKLOG_HIGH) high = true;
    if (!high || c->wait != WAIT_NOTHING) return;
    c->wait = WAIT_PUBLISH;
    list_push_back(&c->worker->throttled, &c->waiting_link);
    /* Whoever catches up after this sees the mark; for those who did before, the worker's tick looks again. */
    atomic_store(&n->pubsub->throttled, true);
}

void pubsub_backlog_done(struct worker *w, size_t bytes)
{
    size_t before = atomic_fetch_sub(&w->pubsub->backlog, bytes);
    if (before - bytes >= BACKLOG_LOW || !atomic_load(&w->node->pubsub->throttled)) return;
    if (atomic_exchange(&w->node->pubsub->throttled, false)) node_post_workers(w->node, resume_throttled);
}

/* ---- publishing ---- */

/* Adds the patterns that match, the workers that have listeners to them; returns how many listeners. */
static uint64_t match_patterns(struct pubsub *p, struct message *m, size_t *cap, struct bytes channel,
                               uint64_t workers[WORKERS_MAX / 64])
{
    uint64_t receivers = 0;
    pthread_rwlock_rdlock(&p->patterns_mu);
    list_each(it, &p->pattern_list)
    {
        struct channel *ch = container_of(it, struct channel, link);
        if (!glob_match(ch->name, channel, false)) continue;
        receivers += ch->total;
        if (!m) continue;
        add_target(m, cap, ch);
        for (int i = 0; i < p->node->worker_count; i++)
            if (ch->of[i].n) workers[i / 64] |= 1ull << (i % 64);
    }
    pthread_rwlock_unlock(&p->patterns_mu);
    return receivers;
}

/* Whether there is anybody; spares the copy of the payload. */
static bool anybody(struct pubsub *p, enum pubsub_kind kind, struct bytes channel)
{
    if (pubsub_listened(p->node, kind) && pubsub_listeners(p->node, kind, channel)) return true;
    return kind == PUBSUB_CHANNEL && pubsub_listened(p->node, PUBSUB_PATTERN) &&
           match_patterns(p, NULL, NULL, channel, NULL);
}

uint64_t pubsub_publish(struct node *n, struct conn *publisher, enum pubsub_kind kind, struct bytes channel,
                        struct bytes payload)
{
    struct pubsub *p = n->pubsub;
    uint64_t receivers = 0, workers[WORKERS_MAX / 64] = {0}, hash = hash_bytes(channel);
    size_t cap = 0;
    if (!anybody(p, kind, channel)) return 0;
    struct message *m = message_new(kind, channel, payload);
    if (!m) return 0;
    struct channel *ch = find(lock_entries(p, kind, hash), hash, channel);
    if (ch) {
        receivers = ch->total;
        add_target(m, &cap, ch);
        for (int i = 0; i < n->worker_count; i++)
            if (ch->of[i].n) workers[i / 64] |= 1ull << (i % 64);
    }
    if (kind == PUBSUB_CHANNEL && pubsub_listened(n, PUBSUB_PATTERN))
        receivers += match_patterns(p, m, &cap, channel, workers);
    if (publisher) give_to_publisher(publisher, m);
    for (int i = 0; i < n->worker_count; i++)
        if (workers[i / 64] >> (i % 64) & 1) post(n->workers[i], m);
    unlock_entries(p, kind, hash);
    message_unref(m);
    if (publisher) pubsub_hold_up(publisher);
    return receivers;
}

/* ---- delivery: on the worker's thread ---- */

/* Gives the first message's present target to listeners, as far as *budget goes; true when all have it. */
static bool serve_target(struct pubsub_worker *q, int worker, const struct message *m, size_t *budget)
{
    struct channel *ch = m->targets[q->target].channel;
    struct list *subs = &ch->of[worker].subs;
    uint64_t seq = m->targets[q->target].seq;
    struct list *at = list_empty(&q->cursor) ? subs->next : q->cursor.next;
    list_remove(&q->cursor);
    while (at != subs) {
        if (*budget == 0) {
            list_push_back(at, &q->cursor); /* before `at` */
            return false;
        }
        struct subscription *s = container_of(at, struct subscription, link);
        at = at->next;
        size_t cost = conn_is_dirty(s->conn) ? 1 : COST_OF_WRITE;
        *budget -= *budget < cost ? *budget : cost;
        if (s->since < seq && s->conn->id != m->from) give(s->conn, m, ch);
    }
    return true;
}

static void go_on(struct mail *m)
{
    container_of(m, struct pubsub_worker, wake)->woken = false;
}

void pubsub_run(struct worker *w)
{
    struct pubsub_worker *q = w->pubsub;
    size_t budget = SLICE;
    while (q->first) {
        struct delivery *d = q->first;
        struct message *m = d->message;
        while (q->target < m->target_count && serve_target(q, w->id, m, &budget)) q->target++;
        if (q->target < m->target_count) break;
        q->target = 0;
        q->first = d->next;
        if (!q->first) q->last = &q->first;
        size_t bytes = weight(m);
        message_unref(m);
        mem_free(d);
        pubsub_backlog_done(w, bytes);
    }
    if (!q->first || q->woken) return;
    q->woken = true;
    q->wake.deliver = go_on;
    loop_post(w->loop, &q->wake);
}

/* ---- shard channels whose slot has gone ---- */

struct lost_mail {
    struct mail mail;
    struct worker *worker;
    uint8_t slots[SLOT_COUNT / 8];
};

static void deliver_lost(struct mail *mail)
{
    struct lost_mail *l = container_of(mail, struct lost_mail, mail);
    list_each(it, &l->worker->pubsub->shard_subs)
    {
        struct subscription *s = container_of(it, struct subscription, shard);
        unsigned slot = s->channel->slot;
        struct conn *c = s->conn;
        if (!(l->slots[slot / 8] >> (slot % 8) & 1)) continue;
        struct channel *ch = s->channel;
        atomic_fetch_add(&ch->refs, 1); /* its name is needed for the message */
        subscription_end(s);
        struct resp_out out = conn_out(c);
        if (conn_push_begin(c, ch->name.n + 64)) pubsub_reply_change(c, &out, "sunsubscribe", PUBSUB_SHARD, &ch->name);
        channel_unref(ch);
    }
    mem_free(l);
}

void pubsub_slots_lost(struct node *n, const uint8_t *slots)
{
    /* Always by mail: a worker that has just found the slot here subscribes before the mail comes. */
    for (int i = 0; i < n->worker_count; i++) {
        struct lost_mail *l = mem_alloc(sizeof *l);
        l->mail.deliver = deliver_lost;
        l->worker = n->workers[i];
        memcpy(l->slots, slots, sizeof l->slots);
        loop_post(l->worker->loop, &l->mail);
    }
}
