/* zset.h: the sorted set type: small ones are one listpack (member, score in ascending order), large ones a pair of
 * trees, one ordered by the hash of the member and one by (score, member).
 *
 * Order is by score, then by memcmp of the member; rank 0 is the lowest.  Ranges are turned into ranks first
 * (zset_ranks_by_*(), O(log n) on trees): a count is end - first, an iteration starts at first (or at end - 1 in
 * reverse), a removal is zset_remove_ranks().
 * The rules of hash.h about locks, entries, borrowed bytes and empty values hold here too. */
#ifndef COVEY_STORE_ZSET_H
#define COVEY_STORE_ZSET_H

#include "store/element.h"
#include "store/entry.h"
#include "store/tree.h"

struct random;

/* The value behind ENC_SKIPLIST. */
struct zset_trees {
    struct tree by_member, by_score;
};

/* An empty sorted set under a copy of key, in the encoding that suits its first member (a tree for a long one). */
struct entry *zset_new(struct bytes key, struct bytes first_member, const struct store_limits *lim);

uint64_t zset_len(const struct entry *e);
/* False when member is not there; score may be NULL. */
bool zset_score(const struct entry *e, struct bytes member, double *score);

enum zset_change { ZSET_UNCHANGED, ZSET_ADDED, ZSET_UPDATED };
/* Inserts member or gives it another score.  *change (may be NULL) says which.  E_INVALID: score is NaN (nothing
 * changed). member may be borrowed from this sorted set. */
MUST_USE enum status zset_add(struct entry *e, double score, struct bytes member, const struct store_limits *lim,
                              enum zset_change *change);
/* Whether it was there.  member may be borrowed from this sorted set (it is gone afterwards). */
bool zset_remove(struct entry *e, struct bytes member);

/* 0-based rank from the lowest (from the highest when reverse).  False when member is not there; score may be NULL. */
bool zset_rank(const struct entry *e, struct bytes member, bool reverse, uint64_t *rank, double *score);

struct zset_score_range {
    double min, max; /* may be infinite */
    bool min_exclusive, max_exclusive;
};
enum lex_kind { LEX_MIN, LEX_INCLUSIVE, LEX_EXCLUSIVE, LEX_MAX }; /* "-", "[text", "(text", "+" */
struct lex_bound {
    enum lex_kind kind;
    struct bytes text; /* borrowed */
};
struct zset_lex_range {
    struct lex_bound min, max;
};
/* The texts of commands: "-", "+", "[a", "(a".  False: not valid. */
bool zset_lex_bound_parse(struct bytes text, struct lex_bound *bound);

/* The ranks [*first, *end) that lie in the range; *first == *end when none does. */
void zset_ranks_by_score(const struct entry *e, const struct zset_score_range *range, uint64_t *first, uint64_t *end);
/* Meant for sorted sets whose members all have one score; with several scores the result is safe but unspecified. */
void zset_ranks_by_lex(const struct entry *e, const struct zset_lex_range *range, uint64_t *first, uint64_t *end);

/* Walks from a rank upwards, or downwards when reverse. The sorted set must not change meanwhile. */
struct zset_iter {
    const struct entry *e;
    const uint8_t *at; /* listpack: next member, NULL at the end */
    struct tree_pos pos;
    bool reverse, ready;
};
void zset_iter_init(struct zset_iter *it, const struct entry *e, uint64_t rank,
                    bool reverse); /* rank >= len: at its end */
/* member or score may be NULL. False at the end. */
bool zset_iter_next(struct zset_iter *it, struct element *member, double *score);

/* The member at a rank below len. */
void zset_at(const struct entry *e, uint64_t rank, struct element *member, double *score);
/* Removes the ranks [first, end), end <= len. */
void zset_remove_ranks(struct entry *e, uint64_t first, uint64_t end);

/* Gives a sorted set of any size the encoding of large ones.  E_NOMEM: nothing changed. */
MUST_USE enum status zset_make_skiplist(struct entry *e);
/* The other way, when it is within the limits. */
MUST_USE enum status zset_make_listpack_if_small(struct entry *e, const struct store_limits *lim);

/* A score of e as ZSCAN shows it, which is how the value keeps it: in a listpack, large integral ones have all their
 * digits.  Writes at most NUMBER_TEXT_MAX bytes, returns how many. */
size_t zset_score_text(const struct entry *e, double score, char *text);

typedef void zset_fn(void *ctx, struct bytes member, double score);
/* As hash_scan(). */
uint64_t zset_scan(const struct entry *e, uint64_t cursor, size_t count, zset_fn *emit, void *ctx);
/* Uniform; not empty. */
void zset_random(const struct entry *e, struct random *rng, struct element *member, double *score);
/* Emits min(n, len) different members, every subset equally likely, in ascending order. */
void zset_sample(const struct entry *e, struct random *rng, uint64_t n, zset_fn *emit, void *ctx);

/* From the bytes of a listpack that come from outside (copied).  E_CORRUPT: not a listpack, an odd number of elements,
 * a score that is no number, a member twice.  E_NOT_FOUND: empty.  Content in wrong order is accepted and sorted. */
MUST_USE enum status zset_from_listpack(struct bytes key, struct bytes blob, const struct store_limits *lim,
                                        struct entry **out);
/* The listpack as it is; only with encoding ENC_LISTPACK. */
struct bytes zset_listpack(const struct entry *e);

#endif
