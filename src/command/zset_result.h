/* zset_result.h: members with scores that a command has put together, on their way into a reply or a new sorted set.
 *
 * Members are borrowed from the values they come from, which nothing changes while the command runs; only the digits of
 * elements that a value keeps as integers are copied.  Sizes follow the dataset: whatever grows can fail with E_NOMEM.
 * Threads: belongs to one call. */
#ifndef COVEY_COMMAND_ZSET_RESULT_H
#define COVEY_COMMAND_ZSET_RESULT_H

#include "command/call.h"
#include "store/element.h"

struct scored {
    double score;
    struct bytes member;
};

struct zset_result {
    struct scored *items; /* owned */
    size_t n, cap;
    uint32_t *index; /* owned; hash table of positions + 1, 0: free.  NULL until zset_result_find() is used */
    size_t index_size;
    struct digits_chunk *digits; /* owned */
    size_t digits_used;
};

/* All zero is an empty result. */
void zset_result_deinit(struct zset_result *r);

/* Appends a member that is not there yet; borrows its text unless that is in *member itself.  A NaN becomes 0. */
MUST_USE enum status zset_result_add(struct zset_result *r, const struct element *member, double score);
/* The item of that member, added with score 0 when it is not there (*added).  NULL: memory is out.  Valid until the
 * next addition.  Not to be mixed with zset_result_add(). */
struct scored *zset_result_find(struct zset_result *r, const struct element *member, bool *added);

/* Whether zset_result_find() has been called with that member. */
bool zset_result_has(const struct zset_result *r, struct bytes member);

/* Into the order of sorted sets. */
void zset_result_sort(struct zset_result *r);

/* Replies an array of members, or of members with scores: pairs in version 3, flat in version 2. */
void zset_result_reply(struct call *c, const struct zset_result *r, bool with_scores);
/* Stores the result (sorted, members all different) under k, or deletes k when it is empty; notifies, and replies the
 * number of members.  changes: what a stored result counts in call.dirty. */
void zset_result_store(struct call *c, const struct key *k, const struct zset_result *r, const char *event,
                       uint64_t changes);

#endif
