/* hash.h: the hash type: small hashes are one listpack (field, value, field, value in order of insertion), large ones a
 * tree ordered by the hash of the field.
 *
 * Every function takes an entry of type hash.  The caller holds the lock of the slot, or is the only owner of a fork;
 * for changes the entry must not be shared.  Changes may swap encoding and word in place, the entry itself never moves,
 * and nothing here removes an entry whose last field is gone: that is the caller's (hash_len() == 0). Arguments (struct
 * bytes) are borrowed until return; unless said otherwise they may not point into the same entry. Element results are
 * borrowed until the next change.  E_NOMEM leaves the value as it was. */
#ifndef COVEY_STORE_HASH_H
#define COVEY_STORE_HASH_H

#include "store/element.h"
#include "store/entry.h"
#include "store/tree.h"

struct random;

/* An empty hash under a copy of key (listpack encoding). */
struct entry *hash_new(struct bytes key);

uint64_t hash_len(const struct entry *e);
/* False when there is no such field; value may be NULL. */
bool hash_get(const struct entry *e, struct bytes field, struct element *value);
bool hash_has(const struct entry *e, struct bytes field);
/* Length of the field's value as text; 0 when there is no such field. */
size_t hash_value_len(const struct entry *e, struct bytes field);

/* Sets field to value.  *added (may be NULL): whether the field is new.  E_NOMEM: the copy could not be allocated. */
MUST_USE enum status hash_set(struct entry *e, struct bytes field, struct bytes value, const struct store_limits *lim,
                              bool *added);
/* What HSET and HSETNX do before they look at the fields: a listpack is given up when one of the texts is too long for
 * it. */
void hash_convert_for(struct entry *e, const struct bytes *texts, size_t n, const struct store_limits *lim);
/* Whether the field was there. */
bool hash_del(struct entry *e, struct bytes field);

/* All fields in the value's own order.  The hash must not change meanwhile. */
struct hash_iter {
    const struct entry *e;
    const uint8_t *at; /* listpack: next element */
    struct tree_pos pos;
    bool started;
};
void hash_iter_init(struct hash_iter *it, const struct entry *e);
/* field or value may be NULL.  False at the end. */
bool hash_iter_next(struct hash_iter *it, struct element *field, struct element *value);

/* Calls emit for about count elements from cursor on (0 begins) and returns the next cursor, 0 at the end.  An element
 * that is there from the first call to the last is emitted at least once, whatever changes in between.  A listpack is
 * emitted whole.  Any cursor value is safe. */
uint64_t hash_scan(const struct entry *e, uint64_t cursor, size_t count, element_fn *emit, void *ctx);

/* The field at a rank (0 .. len-1) in the value's own order; field or value may be NULL. */
void hash_at(const struct entry *e, uint64_t rank, struct element *field, struct element *value);
/* A field picked uniformly; the hash is not empty. */
void hash_random(const struct entry *e, struct random *rng, struct element *field, struct element *value);
/* Emits min(n, len) different fields, every subset equally likely (the order is not random). */
void hash_sample(const struct entry *e, struct random *rng, uint64_t n, element_fn *emit, void *ctx);

/* A new hash from the bytes of a listpack that come from outside (copied).  *out is set on OK only.  Converts to a tree
 * when lim says so.  E_CORRUPT: not a listpack, an odd number of elements, a field twice.  E_NOT_FOUND: it is empty. */
MUST_USE enum status hash_from_listpack(struct bytes key, struct bytes blob, const struct store_limits *lim,
                                        struct entry **out);
/* The listpack as it is; only with encoding ENC_LISTPACK. */
struct bytes hash_listpack(const struct entry *e);

#endif
