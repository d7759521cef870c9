/* listtype.h: the list type: always a tree whose leaves are nodes as Redis's quicklist has them: a listpack of up to
 * list-max-listpack-size, or one large element by itself ("plain").
 *
 * Indexes count from 0 at the head; functions that take an int64_t index accept negative ones from the tail (-1 is the
 * last). The rules of hash.h about locks, entries, borrowed bytes and empty values hold here too. */
#ifndef COVEY_STORE_LISTTYPE_H
#define COVEY_STORE_LISTTYPE_H

#include "store/element.h"
#include "store/entry.h"
#include "store/tree.h"

enum list_end { LIST_HEAD, LIST_TAIL };

/* An empty list under a copy of key. */
struct entry *list_new(struct bytes key);

uint64_t list_len(const struct entry *e);

MUST_USE enum status list_push(struct entry *e, enum list_end end, struct bytes text, const struct store_limits *lim);
/* The element at an index; false when out of range.  LPOP is list_index(), reply, list_delete(). */
bool list_index(const struct entry *e, int64_t index, struct element *out);
/* E_NOT_FOUND: index out of range. */
MUST_USE enum status list_set(struct entry *e, int64_t index, struct bytes text, const struct store_limits *lim);
/* Puts text before (or behind) the element at an index.  E_NOT_FOUND: index out of range. */
MUST_USE enum status list_insert(struct entry *e, int64_t index, bool before, struct bytes text,
                                 const struct store_limits *lim);
/* LINSERT: beside the first element equal to pivot.  E_NOT_FOUND: there is none. */
MUST_USE enum status list_insert_at_pivot(struct entry *e, struct bytes pivot, bool before, struct bytes text,
                                          const struct store_limits *lim);

/* Removes count elements from start on (both clipped to the list); returns how many. */
uint64_t list_delete(struct entry *e, uint64_t start, uint64_t count);
/* Keeps [start, start + count) only. */
void list_keep(struct entry *e, uint64_t start, uint64_t count);
/* LREM: removes elements equal to text: the first `count` from the head, the last -count from the tail, all when 0. */
uint64_t list_remove_equal(struct entry *e, struct bytes text, int64_t count);

/* LMOVE: takes the element at one end of src to one end of dst (another list, or src itself), and appends its text to
 * *moved when that is not NULL.  src is not empty; it may be afterwards.  On E_NOMEM nothing has changed. */
MUST_USE enum status list_move(struct entry *src, enum list_end from, struct entry *dst, enum list_end to,
                               const struct store_limits *lim, struct buf *moved);

/* Walks from an index (0 .. len-1, not negative) towards the tail, or towards the head when reverse.  The list must not
 * change meanwhile. */
struct list_iter {
    struct tree_pos pos;
    const uint8_t *at; /* next element in the present listpack */
    uint64_t index;
    bool reverse, more;
};
void list_iter_init(struct list_iter *it, const struct entry *e, uint64_t index,
                    bool reverse); /* beyond the list: at its end */
/* index (may be NULL) is that of the element returned. False at the end. */
bool list_iter_next(struct list_iter *it, struct element *out, uint64_t *index);
/* As list_iter_next(), to the next element equal to text. */
bool list_iter_find(struct list_iter *it, struct bytes text, uint64_t *index);

/* For loading: appends a whole node from outside (copied).  E_CORRUPT: not a listpack.  An empty listpack is skipped.
 */
MUST_USE enum status list_append_listpack(struct entry *e, struct bytes blob, const struct store_limits *lim);
/* For loading: appends a plain node, an element by itself, whatever its size. */
MUST_USE enum status list_append_plain(struct entry *e, struct bytes text, const struct store_limits *lim);

/* For saving: the nodes from head to tail. packed: blob is a listpack, else one element. */
struct list_node_iter {
    struct tree_pos pos;
    bool more;
};
uint64_t list_node_count(const struct entry *e);
void list_node_iter_init(struct list_node_iter *it, const struct entry *e);
bool list_node_iter_next(struct list_node_iter *it, struct bytes *blob, bool *packed);

#endif
