#include "base/htable.h"

#include "base/mem.h"

#include <assert.h>

enum { BUCKETS_MIN = 8 };

/* Buckets below `buckets` minus the greatest power of two in it are split already and use one bit more. */
static size_t index_of(const struct htable *t, uint64_t hash)
{
    size_t high = BUCKETS_MIN;
    while (high < t->buckets) high *= 2;
    size_t i = hash & (high - 1);
    return i < t->buckets ? i : i & (high / 2 - 1);
}

void htable_deinit(struct htable *t)
{
    mem_free(t->bucket);
    *t = (struct htable){0};
}

struct hnode *htable_chain(const struct htable *t, uint64_t hash)
{
    return t->buckets ? t->bucket[index_of(t, hash)] : NULL;
}

static void grow_array(struct htable *t, size_t cap)
{
    t->bucket = mem_realloc(t->bucket, cap * sizeof *t->bucket);
    t->cap = cap;
}

/* Adds one bucket and moves there what belongs there from the one it is split off. */
static void split_one(struct htable *t)
{
    if (t->buckets == t->cap) grow_array(t, t->cap * 2);
    size_t fresh = t->buckets++, high = BUCKETS_MIN;
    while (high < t->buckets) high *= 2;
    struct hnode *n = t->bucket[fresh - high / 2], **stay = &t->bucket[fresh - high / 2], **go = &t->bucket[fresh];
    for (; n; n = n->next) {
        struct hnode ***end = (n->hash & (high - 1)) == fresh ? &go : &stay;
        **end = n;
        *end = &n->next;
    }
    *stay = *go = NULL;
}

static void merge_one(struct htable *t)
{
    size_t last = t->buckets - 1, high = BUCKETS_MIN;
    while (high < t->buckets) high *= 2;
    struct hnode **end = &t->bucket[last - high / 2];
    while (*end) end = &(*end)->next;
    *end = t->bucket[last];
    t->buckets--;
    if (t->cap > BUCKETS_MIN && t->buckets <= t->cap / 4) grow_array(t, t->cap / 2);
}

void htable_insert(struct htable *t, struct hnode *node)
{
    if (t->buckets == 0) {
        grow_array(t, BUCKETS_MIN);
        t->buckets = BUCKETS_MIN;
        for (size_t i = 0; i < BUCKETS_MIN; i++) t->bucket[i] = NULL;
    } else if (t->count >= t->buckets) {
        split_one(t);
    }
    struct hnode **head = &t->bucket[index_of(t, node->hash)];
    node->next = *head;
    *head = node;
    t->count++;
}

void htable_remove(struct htable *t, struct hnode *node)
{
    struct hnode **at = &t->bucket[index_of(t, node->hash)];
    while (*at && *at != node) at = &(*at)->next;
    assert(*at);
    *at = node->next;
    node->next = NULL;
    t->count--;
    /* A quarter of the buckets is the least that is kept filled: one element less is four buckets less. */
    for (int i = 0; i < 4 && t->buckets > BUCKETS_MIN && t->count < t->buckets / 4; i++) merge_one(t);
}
