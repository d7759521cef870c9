#include "store/table.h"

#include "base/hash.h"
#include "base/mem.h"

static struct bucket *buckets_new(uint32_t n)
{
    struct bucket *b = mem_alloc_aligned(n * sizeof *b, 64);
    memset(b, 0, n * sizeof *b);
    return b;
}

static void bucket_chain_destroy(struct bucket *head)
{
    for (struct bucket *b = head, *next; b; b = next) {
        next = bucket_next(b);
        for (int i = 0; i < BUCKET_SLOTS; i++)
            if (b->ptr[i]) entry_free(bucket_entry(b->ptr[i]));
        if (b != head) mem_free(b);
    }
}

static uint32_t segment_count(const struct table *t)
{
    return (t->bucket_count + SEGMENT_BUCKETS - 1) / SEGMENT_BUCKETS;
}

struct table_extra *table_extra_get(struct table *t)
{
    if (!t->extra) t->extra = mem_calloc(1, sizeof *t->extra);
    return t->extra;
}

void table_clear(struct table *t)
{
    assert(!table_has_strays(t));
    mem_free(t->extra);
    t->extra = NULL;
    if (t->bucket_count == 0) return;
    for (uint32_t i = 0; i < t->bucket_count; i++) bucket_chain_destroy(table_bucket(t, i));
    mem_free(t->first);
    if (t->segments) {
        for (uint32_t i = 1; i < segment_count(t); i++) mem_free(t->segments[i]);
        mem_free(t->segments);
    }
    memset(t, 0, sizeof *t);
}

void table_forget(struct table *t)
{
    t->bucket_count = t->mask = 0;
    t->first = NULL;
    t->segments = NULL;
    t->extra = NULL;
    t->bucket_cap = 0;
    atomic_store_explicit(&t->count, 0, memory_order_relaxed);
    atomic_store_explicit(&t->ttl_count, 0, memory_order_relaxed);
    atomic_store_explicit(&t->ttl_min, 0, memory_order_relaxed);
}

uint64_t *table_find(const struct table *t, struct bytes key, uint64_t hash)
{
    if (table_count(t) == 0) return NULL;
    uint64_t tag = hash >> 48;
    for (struct bucket *b = table_bucket(t, table_index(t, hash)); b; b = bucket_next(b)) {
        for (int i = 0; i < BUCKET_SLOTS; i++) {
            uint64_t p = b->ptr[i];
            if (p >> 48 == tag && p && bytes_eq(entry_key(bucket_entry(p)), key)) return &b->ptr[i];
        }
    }
    return NULL;
}

static void chain_add(struct bucket *b, uint64_t tagged)
{
    for (;; b = bucket_next(b)) {
        for (int i = 0; i < BUCKET_SLOTS; i++) {
            if (!b->ptr[i]) {
                b->ptr[i] = tagged;
                return;
            }
        }
        if (!bucket_next(b)) {
            struct bucket *more = buckets_new(1);
            more->ptr[0] = tagged;
            b->link |= (uint64_t)(uintptr_t)more;
            return;
        }
    }
}

void table_insert(struct table *t, struct entry *e, uint64_t hash, uint16_t cut)
{
    if (t->bucket_count == 0) {
        t->first = buckets_new(1);
        bucket_set_cut(t->first, cut);
        t->bucket_count = t->bucket_cap = 1;
    }
    chain_add(table_bucket(t, table_index(t, hash)), entry_tagged(e, hash));
    table_add(&t->count, 1);
}

/* Fills the hole from the end of the chain, so that only the last bucket of a chain has room and empty ones go. */
void table_remove(struct table *t, uint64_t *ref, uint64_t hash)
{
    struct bucket *before = NULL, *last = table_bucket(t, table_index(t, hash));
    while (bucket_next(last)) {
        before = last;
        last = bucket_next(last);
    }
    int i = BUCKET_SLOTS - 1;
    while (!last->ptr[i]) i--;
    *ref = last->ptr[i];
    last->ptr[i] = 0;
    table_add(&t->count, (size_t)-1);
    if (i == 0 && before) {
        before->link &= (uint64_t)0xffff << 48;
        mem_free(last);
    }
}

bool table_wants_growth(const struct table *t)
{
    /* A fill of 0.85: fuller saves little, because overflow buckets eat it up. */
    return table_count(t) * 100 > (size_t)t->bucket_count * BUCKET_SLOTS * 85 && t->bucket_count < UINT32_MAX / 2;
}

bool table_wants_shrinking(const struct table *t)
{
    return t->bucket_count > 1 && table_count(t) * 100 < (size_t)t->bucket_count * BUCKET_SLOTS * 35;
}

uint32_t table_split_index(const struct table *t)
{
    /* With n buckets and 2^k <= n < 2^(k+1), bucket n - 2^k is the next to be divided. */
    return t->bucket_count > t->mask ? 0 : t->bucket_count & (t->mask >> 1);
}

uint32_t table_merge_parent(const struct table *t)
{
    uint32_t last = t->bucket_count - 1;
    return last & (t->mask >> 1);
}

/* Room for one more bucket at the end. */
static void table_extend(struct table *t)
{
    uint32_t n = t->bucket_count;
    if (n < SEGMENT_BUCKETS) {
        if (n < t->bucket_cap) return;
        uint32_t cap = n < 4 ? n + 1 : n + 4 < SEGMENT_BUCKETS ? n + 4 : SEGMENT_BUCKETS;
        struct bucket *first = buckets_new(cap);
        memcpy(first, t->first, n * sizeof *first);
        mem_free(t->first);
        t->first = first;
        t->bucket_cap = cap;
        return;
    }
    if (n % SEGMENT_BUCKETS) return;
    uint32_t segment = n / SEGMENT_BUCKETS;
    if ((segment & (segment - 1)) == 0) /* the capacity is always a power of two */
        t->segments = mem_realloc(t->segments, 2 * segment * sizeof *t->segments);
    t->segments[0] = t->first;
    t->segments[segment] = buckets_new(SEGMENT_BUCKETS);
}

/* Gives back what a table that has shrunk by half does not need. */
static void table_fit_first(struct table *t)
{
    uint32_t n = t->bucket_count;
    if (n >= SEGMENT_BUCKETS || t->bucket_cap < 2 * n + 2) return;
    struct bucket *first = buckets_new(n);
    memcpy(first, t->first, n * sizeof *first);
    mem_free(t->first);
    t->first = first;
    t->bucket_cap = n;
}

static void chain_free_overflow(struct bucket *head)
{
    for (struct bucket *b = bucket_next(head), *next; b; b = next) {
        next = bucket_next(b);
        mem_free(b);
    }
}

void table_split_one(struct table *t)
{
    uint32_t from = table_split_index(t);
    table_extend(t);
    if (t->bucket_count > t->mask) t->mask = t->mask * 2 + 1;
    t->bucket_count++;
    struct bucket *source = table_bucket(t, from), old = *source;
    uint64_t cut = old.link & (uint64_t)0xffff << 48;
    *source = (struct bucket){.link = cut};
    *table_bucket(t, t->bucket_count - 1) = (struct bucket){.link = cut};
    for (struct bucket *b = &old; b; b = bucket_next(b)) {
        for (int i = 0; i < BUCKET_SLOTS && b->ptr[i]; i++) {
            /* The tag holds the wrong end of the hash, so it is computed again. */
            uint64_t hash = hash_bytes(entry_key(bucket_entry(b->ptr[i])));
            chain_add(table_bucket(t, table_index(t, hash)), b->ptr[i]);
        }
    }
    chain_free_overflow(&old);
}

void table_merge_one(struct table *t)
{
    uint32_t last = t->bucket_count - 1;
    struct bucket *into = table_bucket(t, table_merge_parent(t)), gone = *table_bucket(t, last);
    for (struct bucket *b = &gone; b; b = bucket_next(b))
        for (int i = 0; i < BUCKET_SLOTS && b->ptr[i]; i++) chain_add(into, b->ptr[i]);
    chain_free_overflow(&gone);
    *table_bucket(t, last) = (struct bucket){0};
    t->bucket_count--;
    if (t->bucket_count == t->mask / 2 + 1) t->mask >>= 1;
    if (last >= SEGMENT_BUCKETS && last % SEGMENT_BUCKETS == 0) {
        mem_free(t->segments[last / SEGMENT_BUCKETS]);
        if (last == SEGMENT_BUCKETS) {
            mem_free(t->segments);
            t->segments = NULL;
        }
    }
    table_fit_first(t);
}

static uint64_t reverse_bits(uint64_t v)
{
    v = __builtin_bswap64(v);
    v = (v & 0x0f0f0f0f0f0f0f0f) << 4 | (v >> 4 & 0x0f0f0f0f0f0f0f0f);
    v = (v & 0x3333333333333333) << 2 | (v >> 2 & 0x3333333333333333);
    return (v & 0x5555555555555555) << 1 | (v >> 1 & 0x5555555555555555);
}

uint64_t table_scan(const struct table *t, uint64_t cursor, void (*visit)(void *ctx, struct entry *e), void *ctx)
{
    if (t->bucket_count == 0) return 0;
    uint64_t mask = t->mask;
    /* A bucket that has not been split in this round still answers for the shorter suffix. */
    if ((cursor & mask) >= t->bucket_count || ((cursor & mask) | (mask / 2 + 1)) >= t->bucket_count) mask >>= 1;
    for (struct bucket *b = table_bucket(t, (uint32_t)(cursor & mask)); b; b = bucket_next(b))
        for (int i = 0; i < BUCKET_SLOTS && b->ptr[i]; i++) visit(ctx, bucket_entry(b->ptr[i]));
    cursor |= ~mask;
    return reverse_bits(reverse_bits(cursor) + 1);
}

size_t table_memory(const struct table *t)
{
    size_t n = mem_size(t->first) + mem_size(t->segments);
    if (t->segments) n += (segment_count(t) - 1) * SEGMENT_BUCKETS * sizeof(struct bucket);
    return n;
}

size_t table_share(const struct table *t)
{
    enum { CHAINS_MAX = 32 };
    uint32_t n = t->bucket_count, step = n > CHAINS_MAX ? n / CHAINS_MAX : 1;
    size_t looked = 0, overflow = 0, count = table_count(t);
    if (count == 0) return 0;
    for (uint32_t i = 0; i < n; i += step, looked++)
        for (const struct bucket *b = bucket_next(table_bucket(t, i)); b; b = bucket_next(b)) overflow++;
    double buckets = (double)overflow / (double)looked * n;
    return (size_t)(((double)table_memory(t) + buckets * sizeof(struct bucket)) / (double)count);
}
