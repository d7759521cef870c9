/* message.h: one message of the cluster bus, decoded.  cluster/codec.h turns it into bytes and back; the core only ever
 * sees this.  Format and meaning: Redis Cluster bus, protocol version 1 (Redis 7.0).
 * A message owns nothing: every pointer in it is borrowed from whoever built it. */
#ifndef COVEY_CLUSTER_CORE_MESSAGE_H
#define COVEY_CLUSTER_CORE_MESSAGE_H

#include "base/bytes.h"
#include "base/crc.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    CLUSTER_ID_SIZE = 40,       /* characters of a node id, no terminator */
    CLUSTER_IP_SIZE = 46,       /* bytes of the ip field on the wire */
    CLUSTER_SLOT_BYTES = 2048,  /* bitmap: slot s is bit s & 7 of byte s >> 3 */
    CLUSTER_HOSTNAME_MAX = 255, /* longest announced host name */
};
_Static_assert(CLUSTER_SLOT_BYTES * 8 == SLOT_COUNT, "one bit a slot");

/* A node id: 40 characters, lowercase hexadecimal when we made it, [0-9a-z] when somebody else did. */
struct cluster_id {
    char c[CLUSTER_ID_SIZE];
};

static inline bool cluster_id_eq(const struct cluster_id *a, const struct cluster_id *b)
{
    return memcmp(a->c, b->c, CLUSTER_ID_SIZE) == 0;
}
/* The "no node" of the wire: 40 NUL bytes. */
static inline bool cluster_id_is_null(const struct cluster_id *id)
{
    static const struct cluster_id null_id;
    return memcmp(id->c, null_id.c, CLUSTER_ID_SIZE) == 0;
}
/* True for 40 characters of [0-9a-z]; *out is set only then. */
bool cluster_id_parse(struct bytes text, struct cluster_id *out);

enum cluster_message_type {
    CLUSTER_PING,
    CLUSTER_PONG,
    CLUSTER_MEET,
    CLUSTER_FAIL,
    CLUSTER_PUBLISH,
    CLUSTER_AUTH_REQUEST,
    CLUSTER_AUTH_ACK,
    CLUSTER_UPDATE,
    CLUSTER_MFSTART,
    CLUSTER_MODULE,
    CLUSTER_PUBLISHSHARD,
    CLUSTER_TYPE_COUNT /* types from here on are unknown: tolerated, header used, otherwise ignored */
};
/* "ping", "auth-req", ... as in CLUSTER INFO; "unknown" from CLUSTER_TYPE_COUNT on. */
const char *cluster_type_name(unsigned type);

/* Flags of a node, in headers, gossip entries and nodes.conf. */
enum cluster_node_flag {
    CLUSTER_NODE_PRIMARY = 0x0001,
    CLUSTER_NODE_REPLICA = 0x0002,
    CLUSTER_NODE_PFAIL = 0x0004,
    CLUSTER_NODE_FAIL = 0x0008,
    CLUSTER_NODE_MYSELF = 0x0010,
    CLUSTER_NODE_HANDSHAKE = 0x0020,
    CLUSTER_NODE_NOADDR = 0x0040,
    CLUSTER_NODE_MEET = 0x0080,
    CLUSTER_NODE_MIGRATE_TO = 0x0100,
    CLUSTER_NODE_NOFAILOVER = 0x0200,
    CLUSTER_NODE_FLAGS_ALL = 0x03ff, /* higher bits of newer peers are not kept */
};

/* First byte of the header's message flags. */
enum cluster_message_flag {
    CLUSTER_MSG_PAUSED = 0x01,   /* a primary whose writers stand still for a manual failover */
    CLUSTER_MSG_FORCEACK = 0x02, /* vote although the primary is up */
    CLUSTER_MSG_EXT_DATA = 0x04, /* the sender knows extensions; the count may be zero */
};

/* Third byte of the header's message flags, where Redis has 0 and does not look: what Covey nodes tell each other. */
enum cluster_covey_flag {
    CLUSTER_COVEY = 0x01,          /* the sender is a Covey node */
    CLUSTER_COVEY_NO_LOSS = 0x04,  /* of a primary: its writes wait for members (noloss.c) */
    CLUSTER_COVEY_NO_LEASE = 0x02, /* PONG: the answer is no support for the right to write (lease.c) */
};

struct cluster_gossip {
    struct cluster_id id;
    uint32_t ping_sent_s;     /* unix seconds, 0 = no ping pending */
    uint32_t pong_received_s; /* unix seconds, 0 = never */
    char ip[CLUSTER_IP_SIZE + 1];
    uint16_t port;  /* client port */
    uint16_t cport; /* bus port */
    uint16_t flags;
    uint16_t pport; /* secondary client port, 0 = none */
};

struct cluster_message {
    uint16_t type; /* enum cluster_message_type, or more */
    uint16_t flags;
    uint16_t port, cport, pport;
    uint8_t state;  /* 0 ok, 1 fail */
    uint8_t mflags; /* enum cluster_message_flag */
    uint8_t covey;  /* enum cluster_covey_flag */
    uint64_t current_epoch, config_epoch, offset;
    struct cluster_id sender;
    struct cluster_id replica_of; /* null when the sender is a primary */
    char ip[CLUSTER_IP_SIZE + 1]; /* announced; "" = the address the connection comes from */
    const uint8_t *slots;         /* CLUSTER_SLOT_BYTES; never NULL */

    /* PING, PONG, MEET */
    const struct cluster_gossip *gossip;
    uint32_t gossip_count;   /* at most 65535 */
    struct bytes hostname;   /* n == 0: no such extension */
    struct bytes human_name; /* of newer peers; decoded only */
    struct cluster_id shard; /* null: no such extension (peers of 7.0 have none) */

    union {
        struct cluster_id fail; /* FAIL: who failed */
        struct {
            struct bytes channel, payload;
        } publish; /* PUBLISH, PUBLISHSHARD */
        struct {
            uint64_t config_epoch;
            struct cluster_id id;
            const uint8_t *slots; /* CLUSTER_SLOT_BYTES */
        } update;
        struct {
            uint64_t module_id; /* the eight bytes as they came, never swapped */
            uint8_t type;
            struct bytes payload;
        } module;
    };
};

static inline bool cluster_bit_get(const uint8_t *bitmap, unsigned slot)
{
    return bitmap[slot >> 3] >> (slot & 7) & 1;
}
static inline void cluster_bit_set(uint8_t *bitmap, unsigned slot)
{
    bitmap[slot >> 3] |= (uint8_t)(1u << (slot & 7));
}
static inline void cluster_bit_clear(uint8_t *bitmap, unsigned slot)
{
    bitmap[slot >> 3] &= (uint8_t) ~(1u << (slot & 7));
}
/* The first set bit at or behind `from`; SLOT_COUNT when there is none.
 * for (unsigned s = cluster_bit_next(map, 0); s < SLOT_COUNT; s = cluster_bit_next(map, s + 1)) */
unsigned cluster_bit_next(const uint8_t *bitmap, unsigned from);
unsigned cluster_bit_next_clear(const uint8_t *bitmap, unsigned from); /* the first clear bit, likewise */
unsigned cluster_bit_count(const uint8_t *bitmap);

#endif
