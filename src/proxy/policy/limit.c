#include "proxy/policy/limit.h"

#include "base/hash.h"
#include "base/htable.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/number.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>

#define SECOND_NS ((int64_t)1000000000)
#define DEBT_MAX_NS (3600 * SECOND_NS) /* nobody waits for longer than this, whatever was sent */

enum { SWEEP_FIRST = 1024 };

/* ---- rules ---- */

static struct bytes next_word(struct bytes *text)
{
    while (text->n && (text->p[0] == ' ' || text->p[0] == '\t')) *text = bytes_make(text->p + 1, text->n - 1);
    size_t n = 0;
    while (n < text->n && text->p[n] != ' ' && text->p[n] != '\t') n++;
    struct bytes w = bytes_make(text->p, n);
    *text = bytes_make(text->p + n, text->n - n);
    return w;
}

static bool parse_rate(struct bytes text, bool memory, int64_t *rate, int64_t *burst)
{
    const char *colon = text.n ? memchr(text.p, ':', text.n) : NULL;
    struct bytes first = colon ? bytes_make(text.p, (size_t)(colon - text.p)) : text;
    struct bytes second = colon ? bytes_make(colon + 1, text.n - first.n - 1) : first;
    if (!(memory ? parse_memory(first, rate) : parse_i64(first, rate))) return false;
    if (!(memory ? parse_memory(second, burst) : parse_i64(second, burst))) return false;
    return *rate >= 0 && *rate <= SECOND_NS * 1000 && *burst >= (*rate > 0) && *burst <= SECOND_NS * 1000;
}

bool limit_rule_parse(struct bytes text, struct limit_rule *out)
{
    *out = (struct limit_rule){0};
    struct bytes ops = next_word(&text), bytes = next_word(&text);
    if (!parse_rate(ops, false, &out->ops, &out->ops_burst)) return false;
    if (bytes.n && !parse_rate(bytes, true, &out->bytes, &out->bytes_burst)) return false;
    return next_word(&text).n == 0 && (out->ops || out->bytes);
}

struct named_rule {
    char *name; /* "*": everybody else */
    size_t n;
    struct limit_rule rule;
};

struct limit_rules {
    struct named_rule *at;
    size_t n;
};

struct limit_rules *limit_rules_create(void)
{
    return mem_calloc(1, sizeof(struct limit_rules));
}

struct limit_rules *limit_rules_copy(const struct limit_rules *r)
{
    struct limit_rules *copy = limit_rules_create();
    copy->n = r->n;
    copy->at = mem_calloc(r->n + 1, sizeof *copy->at);
    for (size_t i = 0; i < r->n; i++) {
        copy->at[i] = r->at[i];
        copy->at[i].name = mem_strdup(r->at[i].name);
    }
    return copy;
}

void limit_rules_destroy(struct limit_rules *r)
{
    if (!r) return;
    for (size_t i = 0; i < r->n; i++) mem_free(r->at[i].name);
    mem_free(r->at);
    mem_free(r);
}

bool limit_rules_add(struct limit_rules *r, struct bytes text)
{
    struct named_rule new = {0};
    struct bytes name = next_word(&text);
    if (name.n == 0 || !limit_rule_parse(text, &new.rule)) return false;
    new.name = bytes_dup_cstr(name);
    new.n = name.n;
    r->at = mem_realloc(r->at, (r->n + 1) * sizeof *r->at);
    r->at[r->n++] = new;
    return true;
}

const struct limit_rule *limit_rule_of_user(const struct limit_rules *r, struct bytes name)
{
    const struct limit_rule *others = NULL;
    for (size_t i = 0; r && i < r->n; i++) {
        struct bytes n = bytes_make(r->at[i].name, r->at[i].n);
        if (bytes_eq(n, name)) return &r->at[i].rule;
        if (bytes_eq(n, BYTES("*"))) others = &r->at[i].rule;
    }
    return others;
}

/* ---- buckets ---- */

struct limiter {
    _Atomic unsigned refs;
    struct limit_rule rule;
    _Atomic int64_t ops_at, bytes_at; /* when the bucket is full again */
    struct hnode node;                /* of an address */
    unsigned char address[16];
};

struct limiter *limiter_create(const struct limit_rule *rule)
{
    if (!rule) return NULL;
    struct limiter *l = mem_calloc(1, sizeof *l);
    l->rule = *rule;
    atomic_store(&l->refs, 1);
    return l;
}

struct limiter *limiter_renew(const struct limiter *old, const struct limit_rule *rule)
{
    struct limiter *l = limiter_create(rule);
    if (!l || !old) return l;
    atomic_store(&l->ops_at, atomic_load(&old->ops_at));
    atomic_store(&l->bytes_at, atomic_load(&old->bytes_at));
    return l;
}

struct limiter *limiter_hold(struct limiter *l)
{
    atomic_fetch_add(&l->refs, 1);
    return l;
}

void limiter_release(struct limiter *l)
{
    if (l && atomic_fetch_sub(&l->refs, 1) == 1) mem_free(l);
}

const struct limit_rule *limiter_rule(const struct limiter *l)
{
    return &l->rule;
}

static int64_t cost(int64_t n, int64_t rate)
{
    double ns = (double)n * (double)SECOND_NS / (double)rate;
    return ns < (double)DEBT_MAX_NS ? (int64_t)ns : DEBT_MAX_NS;
}

/* Takes n tokens; the time after which there were enough of them, as nanoseconds from now. */
static int64_t take(_Atomic int64_t *at, int64_t now, int64_t n, int64_t rate, int64_t burst)
{
    int64_t old = atomic_load_explicit(at, memory_order_relaxed), new;
    do {
        new = (old > now ? old : now) + cost(n, rate);
        if (new > now + DEBT_MAX_NS) new = now + DEBT_MAX_NS;
    } while (!atomic_compare_exchange_weak_explicit(at, &old, new, memory_order_relaxed, memory_order_relaxed));
    return new - now - cost(burst, rate);
}

/* Until one more token is there. */
static int64_t until(const _Atomic int64_t *at, int64_t now, int64_t n, int64_t rate, int64_t burst)
{
    int64_t full = atomic_load_explicit(at, memory_order_relaxed);
    return (full > now ? full : now) + cost(n, rate) - now - cost(burst, rate);
}

static int64_t longer(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Of bytes it is enough that some are left: a request may be larger than any burst. */
int64_t limiter_wait(const struct limiter *l, int64_t now_ns)
{
    const struct limit_rule *r = &l->rule;
    int64_t wait = r->ops ? until(&l->ops_at, now_ns, 1, r->ops, r->ops_burst) : 0;
    if (r->bytes) wait = longer(wait, until(&l->bytes_at, now_ns, 0, r->bytes, r->bytes_burst));
    return longer(wait, 0);
}

int64_t limiter_take(struct limiter *l, int64_t now_ns, size_t bytes)
{
    const struct limit_rule *r = &l->rule;
    int64_t wait = r->ops ? take(&l->ops_at, now_ns, 1, r->ops, r->ops_burst) : 0;
    if (r->bytes) {
        wait = longer(wait, until(&l->bytes_at, now_ns, 0, r->bytes, r->bytes_burst));
        take(&l->bytes_at, now_ns, (int64_t)bytes, r->bytes, r->bytes_burst);
    }
    return longer(wait, 0);
}

void limiter_charge(struct limiter *l, int64_t now_ns, size_t bytes)
{
    const struct limit_rule *r = &l->rule;
    if (r->bytes) take(&l->bytes_at, now_ns, (int64_t)bytes, r->bytes, r->bytes_burst);
}

/* ---- by address ---- */

struct address_limits {
    _Atomic uint64_t version;
    pthread_mutex_t mu; /* for what follows */
    struct limit_rule rule;
    struct htable table;
    size_t sweep_at;
};

struct address_limits *address_limits_create(const struct limit_rule *rule)
{
    struct address_limits *a = mem_calloc(1, sizeof *a);
    a->rule = *rule;
    a->sweep_at = SWEEP_FIRST;
    pthread_mutex_init(&a->mu, NULL);
    return a;
}

/* Calls fn for every limiter; it may take it out of the table. */
static void each_address(struct address_limits *a, void (*fn)(struct address_limits *a, struct limiter *l, int64_t now),
                         int64_t now)
{
    struct limiter **all = mem_alloc((a->table.count + 1) * sizeof *all);
    size_t n = 0;
    for (size_t i = 0; i < a->table.buckets; i++)
        for (struct hnode *it = htable_at(&a->table, i); it; it = it->next)
            all[n++] = container_of(it, struct limiter, node);
    for (size_t i = 0; i < n; i++) fn(a, all[i], now);
    mem_free(all);
}

static void forget(struct address_limits *a, struct limiter *l, int64_t now)
{
    (void)now;
    htable_remove(&a->table, &l->node);
    limiter_release(l);
}

static void forget_if_full(struct address_limits *a, struct limiter *l, int64_t now)
{
    if (atomic_load(&l->refs) == 1 && atomic_load(&l->ops_at) <= now && atomic_load(&l->bytes_at) <= now)
        forget(a, l, now);
}

void address_limits_destroy(struct address_limits *a)
{
    each_address(a, forget, 0);
    htable_deinit(&a->table);
    pthread_mutex_destroy(&a->mu);
    mem_free(a);
}

void address_limits_configure(struct address_limits *a, const struct limit_rule *rule)
{
    pthread_mutex_lock(&a->mu);
    if (memcmp(&a->rule, rule, sizeof *rule) != 0) {
        each_address(a, forget, 0);
        a->rule = *rule;
        atomic_fetch_add(&a->version, 1);
    }
    pthread_mutex_unlock(&a->mu);
}

uint64_t address_limits_version(const struct address_limits *a)
{
    return atomic_load(&a->version);
}

static bool read_address(const char *peer, unsigned char out[16])
{
    char text[INET6_ADDRSTRLEN];
    const char *start = *peer == '[' ? peer + 1 : peer, *end = strrchr(start, *peer == '[' ? ']' : ':');
    if (!end || (size_t)(end - start) >= sizeof text) return false;
    memcpy(text, start, (size_t)(end - start));
    text[end - start] = '\0';
    memset(out, 0, 16);
    if (inet_pton(AF_INET, text, out + 12) == 1) {
        out[10] = out[11] = 0xff;
        return true;
    }
    static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (inet_pton(AF_INET6, text, out) != 1) return false;
    if (memcmp(out, mapped, sizeof mapped) != 0) memset(out + 8, 0, 8);
    return true;
}

struct limiter *address_limit(struct address_limits *a, const char *peer, int64_t now_ns)
{
    unsigned char address[16];
    struct limiter *found = NULL;
    if (!read_address(peer, address)) return NULL;
    uint64_t hash = hash_bytes(bytes_make(address, sizeof address));
    pthread_mutex_lock(&a->mu);
    if (!a->rule.ops && !a->rule.bytes) {
        pthread_mutex_unlock(&a->mu);
        return NULL;
    }
    for (struct hnode *it = a->table.count ? htable_chain(&a->table, hash) : NULL; it && !found; it = it->next) {
        struct limiter *l = container_of(it, struct limiter, node);
        if (it->hash == hash && memcmp(l->address, address, sizeof address) == 0) found = l;
    }
    if (!found) {
        if (a->table.count >= a->sweep_at) {
            each_address(a, forget_if_full, now_ns);
            a->sweep_at = a->table.count * 2 > SWEEP_FIRST ? a->table.count * 2 : SWEEP_FIRST;
        }
        found = limiter_create(&a->rule);
        memcpy(found->address, address, sizeof address);
        found->node.hash = hash;
        htable_insert(&a->table, &found->node);
    }
    limiter_hold(found);
    pthread_mutex_unlock(&a->mu);
    return found;
}

size_t address_limits_count(struct address_limits *a)
{
    pthread_mutex_lock(&a->mu);
    size_t n = a->table.count;
    pthread_mutex_unlock(&a->mu);
    return n;
}
