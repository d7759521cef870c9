/* stream.h: the stream type: entries in ascending order of their ids, and consumer groups over them.
 *
 *   struct stream
 *     tail    the newest node: a counted listpack of entries
 *     nodes   tree of all older nodes by the id of their first entry; NULL when there is none
 *     groups  tree of groups by name; NULL when there is none
 *       group: pending entries by id (with time, count, consumer's name), tree of consumers by name
 *         consumer: ids of its pending entries
 *
 * Nodes, groups and consumers are counted objects and the trees copy on write (tree.h), so that stream_fork() costs a
 * few allocations and a writer then copies what it touches: one node, one group's head, one consumer's head.
 *
 * A node's listpack is Redis's: count, deleted, number of fields, the fields, 0; then for each entry flags, difference
 * of its id to the node's (milliseconds, sequence), fields and values (values only when the flag says that the fields
 * are the node's), number of elements to walk back.  Source: the RDB files of redis-server 7.0.
 *
 * The caller holds the lock of the slot or is the only owner of a fork; for changes the entry must not be shared
 * (store_edit()).  Bytes that are handed in are borrowed until return; elements that are handed out until the next
 * change. */
#ifndef COVEY_STORE_STREAM_H
#define COVEY_STORE_STREAM_H

#include "store/element.h"
#include "store/entry.h"
#include "store/tree.h"

struct stream_id {
    uint64_t ms, seq;
};
#define STREAM_ID_MIN ((struct stream_id){0, 0})
#define STREAM_ID_MAX ((struct stream_id){UINT64_MAX, UINT64_MAX})
enum { STREAM_ID_TEXT_MAX = 41, STREAM_NODE_BYTES_MAX = 1 << 30 };

static inline int stream_id_cmp(struct stream_id a, struct stream_id b)
{
    if (a.ms != b.ms) return a.ms < b.ms ? -1 : 1;
    return a.seq == b.seq ? 0 : a.seq < b.seq ? -1 : 1;
}

static inline bool stream_id_is_zero(struct stream_id id)
{
    return id.ms == 0 && id.seq == 0;
}

/* The id behind (before) *id; false, and nothing changed, when there is none. */
bool stream_id_next(struct stream_id *id);
bool stream_id_prev(struct stream_id *id);
/* "ms-seq" without a terminator; returns its length. */
size_t stream_id_format(char out[STREAM_ID_TEXT_MAX], struct stream_id id);

/* Ids in a tree: ord is the milliseconds, key the sequence number so that memcmp orders it. */
struct stream_id_key {
    unsigned char b[8];
};

static inline struct stream_id_key stream_id_key(struct stream_id id)
{
    struct stream_id_key key;
    for (int i = 0; i < 8; i++) key.b[i] = (unsigned char)(id.seq >> (56 - 8 * i));
    return key;
}

enum { STREAM_READ_UNKNOWN = -1 };

struct stream_node {
    struct tree_ref ref;
    struct stream_id id; /* what the entries' ids are relative to */
    uint8_t *lp;
};

struct stream {
    struct tree *nodes, *groups;
    struct stream_node *tail; /* NULL: no entries */
    uint64_t length;
    struct stream_id last_id;        /* highest ever added or set */
    struct stream_id first_id;       /* of the first entry; 0-0 when empty */
    struct stream_id max_deleted_id; /* highest that XDEL removed or XSETID set */
    uint64_t entries_added;          /* ever */
};

static inline struct stream *stream_of(const struct entry *e)
{
    assert(entry_type(e) == TYPE_STREAM);
    return entry_ptr(e);
}

/* An empty stream under a copy of key. */
struct entry *stream_entry_new(struct bytes key);
struct stream *stream_new(void);
void stream_free(struct stream *s);
struct stream *stream_fork(const struct stream *s);
/* Allocations that stream_free() gives back, up to some number that is large. */
size_t stream_free_effort(const struct stream *s);
/* Bytes beside the struct; of large trees `samples` elements are looked at (0: all). */
size_t stream_memory(const struct stream *s, size_t samples);
size_t stream_node_count(const struct stream *s);

/* Adds an entry of n fields; texts has field, value, field, value ...  id is above last_id.  E_TOO_BIG: the texts do
 * not fit a node; E_NOMEM; nothing has changed then. */
MUST_USE enum status stream_append(struct stream *s, struct stream_id id, const struct bytes *texts, size_t n,
                                   const struct store_limits *lim);
/* Removes one entry; false when it is not there.  Neither first_id nor max_deleted_id is touched. */
bool stream_delete(struct stream *s, struct stream_id id);
bool stream_has(const struct stream *s, struct stream_id id);
/* The id of the first or last entry there is; false (and 0-0) when there is none. */
bool stream_first(const struct stream *s, struct stream_id *id);
bool stream_last(const struct stream *s, struct stream_id *id);
/* Sets first_id from what is there. */
void stream_update_first(struct stream *s);

struct stream_trim {
    bool by_id;       /* keep ids from min_id on; else keep the newest max_length */
    bool approximate; /* remove whole nodes only */
    struct stream_id min_id;
    uint64_t max_length;
    uint64_t limit; /* remove at most so many; 0: no limit */
};
/* Returns how many entries were removed; keeps first_id up to date. */
uint64_t stream_trim(struct stream *s, const struct stream_trim *trim);

/* How many entries were ever added up to and including id, which tells how far a group is; STREAM_READ_UNKNOWN when
 * removed entries make that unknowable.  Redis's estimate, which shows in XINFO. */
int64_t stream_distance(const struct stream *s, struct stream_id id);
/* Whether an entry at or above id, and not before the first one there is, was removed by its id. */
bool stream_has_gap_from(const struct stream *s, struct stream_id id);

/* Where a walk stands.  The stream must not change meanwhile. */
struct stream_iter {
    const struct stream *s;
    struct stream_id start, end; /* inclusive */
    bool reverse;
    const struct stream_node *node;
    bool in_tail;
    struct tree_pos pos;       /* of the node, unless it is the tail */
    const uint8_t *node_field; /* first field of the node */
    size_t node_fields;
    const uint8_t *flags;     /* first element of the present entry; NULL: the node has not been entered */
    const uint8_t *at;        /* next element of the present entry */
    const uint8_t *field;     /* next field of the node, when the entry has the node's fields */
    size_t left, left_fields; /* elements, and fields with values, to come in the present entry */
    bool same_fields;
};
void stream_iter_init(struct stream_iter *it, const struct stream *s, struct stream_id start, struct stream_id end,
                      bool reverse);
/* False at the end. */
bool stream_iter_next(struct stream_iter *it, struct stream_id *id, size_t *fields);
/* The next field of the entry; call it at most `fields` times. */
void stream_iter_field(struct stream_iter *it, struct element *field, struct element *value);

/* ---- nodes as files have them ---- */

/* All nodes in order.  *pos is the state; begin with started = false. */
struct stream_node_iter {
    struct tree_pos pos;
    bool started, done;
};
const struct stream_node *stream_node_next(const struct stream *s, struct stream_node_iter *it);
/* Adds a node of bytes that come from outside (copied) behind all others, and its entries to length; everything that
 * the functions above rely on is checked.  E_CORRUPT, E_NOMEM. */
MUST_USE enum status stream_add_node(struct stream *s, struct stream_id id, struct bytes blob);

/* ---- groups (stream_group.c) ---- */

struct stream_group {
    struct tree_ref ref;
    struct stream_id last_id;
    int64_t entries_read;  /* STREAM_READ_UNKNOWN */
    struct tree pending;   /* TREE_PENDING: struct stream_pending by id */
    struct tree consumers; /* TREE_REFS by name */
};

struct stream_consumer {
    struct tree_ref ref;
    struct tree_box *name;
    int64_t seen_ms;     /* when it last asked for anything */
    int64_t active_ms;   /* when it last got something; -1: never */
    struct tree pending; /* TREE_ZSCORE: ids */
};

struct stream_pending {
    int64_t delivered_ms;
    uint64_t count;
    const struct tree_box *consumer; /* its name; the group's consumer of that name holds it */
};
static_assert(sizeof(struct stream_pending) == TREE_PENDING_BYTES, "a pending entry is a value of its tree");

size_t stream_group_count(const struct stream *s);
/* For reading; NULL when there is none. */
const struct stream_group *stream_group_find(const struct stream *s, struct bytes name);
/* For changing.  Valid until the group is destroyed. */
struct stream_group *stream_group_edit(struct stream *s, struct bytes name);
/* NULL: memory is out.  There is no group of that name. */
struct stream_group *stream_group_create(struct stream *s, struct bytes name, struct stream_id last_id,
                                         int64_t entries_read);
bool stream_group_destroy(struct stream *s, struct bytes name);
/* Walks by name: tree_at(s->groups, 0, &pos), tree_next(&pos). */
const struct stream_group *stream_group_at(const struct stream *s, const struct tree_pos *pos, struct bytes *name);

/* For reading. */
const struct stream_consumer *stream_consumer_find(const struct stream_group *g, struct bytes name);
/* For changing; the group is one that stream_group_edit() gave.  Valid until the consumer is deleted. */
struct stream_consumer *stream_consumer_edit(struct stream_group *g, struct bytes name);
/* NULL: memory is out.  There is no consumer of that name. */
struct stream_consumer *stream_consumer_create(struct stream_group *g, struct bytes name, int64_t now_ms);
/* With its pending entries, whose number is *pending; false when there is none of that name. */
bool stream_consumer_delete(struct stream_group *g, struct bytes name, uint64_t *pending);
const struct stream_consumer *stream_consumer_at(const struct stream_group *g, const struct tree_pos *pos);

/* The pending entry of that id; out may be NULL. */
bool stream_pending_find(const struct stream_group *g, struct stream_id id, struct stream_pending *out);
/* Makes id pending for c (of this group, for changing), whoever had it before. */
void stream_pending_put(struct stream_group *g, struct stream_id id, struct stream_consumer *c, int64_t delivered_ms,
                        uint64_t count);
bool stream_pending_remove(struct stream_group *g, struct stream_id id);
/* Walks a tree of pending entries (of a group or a consumer) from id on; both are false at the end. */
bool stream_pending_seek(const struct tree *pending, struct stream_id id, struct tree_pos *pos);
struct stream_id stream_pending_id(const struct tree *pending, const struct tree_pos *pos);
/* Of a group's tree. */
void stream_pending_at(const struct stream_group *g, const struct tree_pos *pos, struct stream_pending *out);

#endif
