/* table.h: the hash table of one slot of one database; inside src/store only.
 *
 * Linear hashing (Litwin, 1980): the table grows and shrinks by one bucket at a time, so no operation ever rehashes it
 * whole.  A bucket is one cache line: seven tagged pointers and a link.
 *
 *   pointer: 16 bits of the key's hash | 48 bits of address        link: 16 bits of cut | 48 bits of overflow bucket
 *
 * Buckets live in segments of 64; the first one grows in steps, because most slots hold few keys.
 * Every function is called under the lock of the slot (or with the whole server at rest). */
#ifndef COVEY_STORE_TABLE_H
#define COVEY_STORE_TABLE_H

#include "store/entry.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { BUCKET_SLOTS = 7, SEGMENT_BUCKETS = 64 };

struct bucket {
    uint64_t ptr[BUCKET_SLOTS];
    uint64_t link;
};

/* Entries that a cut needs and does not come past: replaced or deleted since it was made, or in another bucket after a
 * merge. */
struct strays {
    struct strays *next;
    uint32_t n, cap;
    struct entry *entries[];
};

/* What few tables need at a time. */
struct table_extra {
    struct strays *strays[CUTS_MAX];
    uint32_t expire_cursor; /* bucket where the search for expired keys goes on; 0: no pass is under way */
    int64_t expire_min;     /* smallest time of expiry seen in this pass */
};

/* One cache line.  All zero is an empty table that owns nothing, so databases that hardly hold keys cost no memory. */
struct table {
    _Atomic uint32_t bucket_count; /* written under the lock, read by anybody */
    _Atomic uint32_t mask;         /* smallest 2^k - 1 that is >= bucket_count - 1; the same */
    _Atomic size_t count;          /* keys; written under the lock, read by anybody */
    _Atomic size_t ttl_count;      /* keys with a time of expiry; the same */
    _Atomic int64_t ttl_min;       /* while ttl_count > 0: no key expires before this; the same */
    struct bucket *_Atomic first;  /* the first segment; the same, but it may be gone when it is looked at */
    struct bucket **segments;      /* all segments, once there are two; capacity: the next power of two */
    struct table_extra *extra;     /* NULL until needed */
    uint64_t bucket_cap;           /* allocated in the first segment */
};
static_assert(sizeof(struct table) == 64, "a slot's table is one cache line");

struct table_extra *table_extra_get(struct table *t);

/* Whether some cut has strays in the table. */
static inline bool table_has_strays(const struct table *t)
{
    for (int i = 0; t->extra && i < CUTS_MAX; i++)
        if (t->extra->strays[i]) return true;
    return false;
}

/* Frees the table's buckets and entries and leaves it empty. */
void table_clear(struct table *t);
/* Leaves the table empty without freeing anything: a copy of it owns that now.  The counters may be read meanwhile. */
void table_forget(struct table *t);

static inline uint32_t table_index(const struct table *t, uint64_t hash)
{
    uint32_t i = (uint32_t)hash & t->mask;
    return i < t->bucket_count ? i : i & (t->mask >> 1);
}

static inline struct bucket *table_bucket(const struct table *t, uint32_t index)
{
    if (index < SEGMENT_BUCKETS) return &t->first[index];
    return &t->segments[index / SEGMENT_BUCKETS][index % SEGMENT_BUCKETS];
}

static inline size_t table_count(const struct table *t)
{
    return atomic_load_explicit(&t->count, memory_order_relaxed);
}

static inline void table_add(_Atomic size_t *counter, size_t delta)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + delta, memory_order_relaxed);
}

static inline struct entry *bucket_entry(uint64_t tagged)
{
    return (struct entry *)(uintptr_t)(tagged & 0xffffffffffff);
}

static inline struct bucket *bucket_next(const struct bucket *b)
{
    return (struct bucket *)(uintptr_t)(b->link & 0xffffffffffff);
}

static inline uint16_t bucket_cut(const struct bucket *b)
{
    return (uint16_t)(b->link >> 48);
}

static inline void bucket_set_cut(struct bucket *b, uint16_t cut)
{
    b->link = (b->link & 0xffffffffffff) | (uint64_t)cut << 48;
}

static inline uint64_t entry_tagged(const struct entry *e, uint64_t hash)
{
    return (uint64_t)(uintptr_t)e | (hash >> 48) << 48;
}

/* Where the key's pointer stands; NULL when it is not there. */
uint64_t *table_find(const struct table *t, struct bytes key, uint64_t hash);
/* Adds an entry whose key is not in the table.  New buckets of an empty table count as saved for `cut`. */
void table_insert(struct table *t, struct entry *e, uint64_t hash, uint16_t cut);
/* Takes the pointer at ref out; the entry is the caller's. */
void table_remove(struct table *t, uint64_t *ref, uint64_t hash);

bool table_wants_growth(const struct table *t);
bool table_wants_shrinking(const struct table *t);
/* Splits the next bucket, or merges the last one away.  The caller has retained what a cut still needs of both,
 * and listed as strays what of it is in the bucket that goes. */
void table_split_one(struct table *t);
void table_merge_one(struct table *t);
/* The bucket that the next split divides, and the one that the next merge empties into its parent. */
uint32_t table_split_index(const struct table *t);
uint32_t table_merge_parent(const struct table *t);

/* Visits the entries of one bucket and returns the next cursor, 0 at the end.  Every key that is in the table from the
 * first call to the last is visited at least once, whatever splits and merges happen in between (the cursor counts
 * in bit-reversed order, as Redis's does). */
uint64_t table_scan(const struct table *t, uint64_t cursor, void (*visit)(void *ctx, struct entry *e), void *ctx);

/* The part of the table's own bytes that a key of it bears; overflow buckets are estimated from some chains. */
size_t table_share(const struct table *t);
/* Bytes of the table itself, without entries. */
size_t table_memory(const struct table *t);

#endif
