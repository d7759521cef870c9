/* stream_args.h: what the stream commands share: ids in arguments, entries in replies, propagation of what a group
 * gives out. */
#ifndef COVEY_COMMAND_STREAM_ARGS_H
#define COVEY_COMMAND_STREAM_ARGS_H

#include "command/call.h"
#include "store/stream.h"

/* "5-1", "5" (then seq is missing_seq), and where special is set "-" and "+".  False: it is none of these. */
bool stream_id_parse(struct bytes text, uint64_t missing_seq, bool special, struct stream_id *id);
/* The same for argv[arg]; false: the error was replied. */
MUST_USE bool stream_arg_id(struct call *c, size_t arg, struct stream_id *id);
/* As for XADD, where "5-*" leaves the sequence number open. */
MUST_USE bool stream_arg_add_id(struct call *c, size_t arg, struct stream_id *id, bool *seq_given);
/* The ends of a range: "-", "+", "5", "(5-1"; what is exclusive has become inclusive. */
MUST_USE bool stream_arg_start(struct call *c, size_t arg, struct stream_id *id);
MUST_USE bool stream_arg_end(struct call *c, size_t arg, struct stream_id *id);
/* The options XADD and XTRIM share begin at argument 2. */
struct stream_trim_args {
    struct stream_trim trim;
    bool wanted;      /* there is MAXLEN or MINID */
    size_t bound_arg; /* where its number or id stands */
};

void stream_reply_id(struct call *c, struct stream_id id);
/* The entry that it stands on: id and fields with values. */
void stream_reply_entry(struct call *c, struct stream_iter *it, struct stream_id id, size_t fields);
/* The one entry of that id; false, and nothing replied, when it is not there. */
bool stream_reply_one(struct call *c, const struct stream *s, struct stream_id id);
/* Up to count entries (0: all) as an array; returns how many. */
size_t stream_reply_range(struct call *c, const struct stream *s, struct stream_id start, struct stream_id end,
                          size_t count, bool reverse);
/* "NOGROUP No such key 'k' or consumer group 'g'". */
void stream_reply_no_group(struct call *c, struct bytes key, struct bytes group);

/* What replicas repeat: that `consumer` has been given id (id_text: as it is to appear). */
void stream_effect_claim(struct call *c, struct bytes key, struct bytes group, const struct stream_group *g,
                         struct bytes id_text, const struct stream_pending *p);
void stream_effect_group_id(struct call *c, struct bytes key, struct bytes group, const struct stream_group *g);
/* The consumer for a change, created (with its event) when there is none; seen now.  NULL: memory is out,
 * nothing was replied. */
struct stream_consumer *stream_call_consumer(struct call *c, const struct key *k, struct stream_group *g,
                                             struct bytes name, bool *created);

#endif
