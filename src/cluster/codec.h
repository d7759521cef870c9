/* codec.h: the cluster bus as bytes.  Frames of Redis 7.0, protocol version 1, big endian, 2256 bytes of header.
 *
 * Reading: collect bytes; cluster_frame_length() says, from the first 8 and then 16, how long the frame is or that the
 * connection must be closed; when that many bytes are there, cluster_decode().  Let the buffer grow with the bytes that
 * have arrived: the length in a header is a claim, which reserves nothing.
 * Threads: pure functions; a decoder belongs to one thread. */
#ifndef COVEY_CLUSTER_CODEC_H
#define COVEY_CLUSTER_CODEC_H

#include "base/bytes.h"
#include "base/status.h"
#include "cluster/core/message.h"

enum {
    CLUSTER_HEADER_SIZE = 2256,
    CLUSTER_GOSSIP_SIZE = 104,
    CLUSTER_PREFIX_SIZE = 16, /* with so many bytes the length of a frame is certain */
};

/* The longest frames taken from a peer.  Redis sets no bound; these leave room for all that it sends. */
enum {
    CLUSTER_EXTENSIONS_MAX = 256 * 1024,     /* behind the gossip of a heartbeat */
    CLUSTER_FIXED_MAX = 64 * 1024,           /* types of fixed length; what is not that length is ignored */
    CLUSTER_UNKNOWN_MAX = 1024 * 1024,       /* types of the future */
    CLUSTER_PAYLOAD_MAX = 513 * 1024 * 1024, /* PUBLISH and MODULE: proto-max-bulk-len and a channel */
};

/* OK: *length is the length of the frame that begins at have.p.  E_AGAIN: more bytes are needed to tell.
 * E_CORRUPT: not the protocol; E_TOO_BIG: over the bound of its type.  Both: close the connection. */
MUST_USE enum status cluster_frame_length(struct bytes have, size_t *length);

/* Memory for the gossip entries of one message at a time.  Zero-initialize. */
struct cluster_decoder {
    struct cluster_gossip *gossip;
    size_t cap;
};
void cluster_decoder_deinit(struct cluster_decoder *d);

/* Decodes a whole frame (frame.n == its length).  *out borrows from frame and d until either is used again.
 * E_INVALID: a frame to be ignored (version, length or content do not fit): keep the connection, count it with
 * cluster_count_ignored(out->type).  E_NOMEM: likewise. */
MUST_USE enum status cluster_decode(struct cluster_decoder *d, struct bytes frame, struct cluster_message *out);

/* Appends the frame of m.  m->type < CLUSTER_TYPE_COUNT. */
void cluster_encode(const struct cluster_message *m, struct buf *out);

/* Of PUBLISH and PUBLISHSHARD only what comes before the channel's bytes, for a sender that has channel and payload in
 * one piece elsewhere: they follow the head on the wire. */
void cluster_encode_head(const struct cluster_message *m, struct buf *out);

#endif
