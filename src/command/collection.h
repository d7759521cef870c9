/* collection.h: what the handlers of hashes, lists, sets and sorted sets share. */
#ifndef COVEY_COMMAND_COLLECTION_H
#define COVEY_COMMAND_COLLECTION_H

#include "command/call.h"
#include "command/scan.h"

/* What a command has been adding to: the entry at its key, or a new one that is not in the dataset yet. */
struct growing {
    struct key key;
    struct entry *e;
    bool is_new;
};

/* Ends an addition: puts a new entry there, or frees it when it has stayed empty. */
void growing_finish(struct call *c, struct growing *g, uint64_t length);

/* call_changed() for n > 0 changes at once. */
void collection_changed(struct call *c, const struct key *k, enum notify_class cls, const char *event, uint64_t n);

/* Replies that memory is out.  What argv[0 .. args_done) asked for was done: if c->dirty, that much is propagated. */
void collection_out_of_memory(struct call *c, size_t args_done);

/* The arguments [count [with]] of HRANDFIELD, ZRANDMEMBER and SRANDMEMBER (with NULL: has none).  Negative: so many,
 * repetitions allowed.  False: the error was replied. */
struct sample_args {
    bool count_given, with_given;
    int64_t count;
};
MUST_USE bool collection_sample_args(struct call *c, const char *with, struct sample_args *out);
/* With repetitions, of a key that is there: aggregates of more than 2^31 - 1 elements are beyond the protocol's
 * clients. False: the error was replied. */
MUST_USE bool collection_sample_fits(struct call *c, const struct sample_args *args);

/* A sample with repetitions may be larger than the collection without bound.  True while the reply has room for
 * `size` bytes more; else the reply since `mark` has been replaced by an error. */
MUST_USE bool collection_reply_room(struct call *c, size_t mark, size_t size);

/* HSCAN, SSCAN, ZSCAN: reads arguments and key and begins the reply, to which the caller adds the elements and which it
 * ends with scan_reply_end().  False: the whole reply is made already. */
struct collection_scan {
    struct scan_options options;
    struct scan_reply reply;
};
MUST_USE bool collection_scan_begin(struct call *c, enum value_type type, struct collection_scan *s, struct entry **e);

#endif
