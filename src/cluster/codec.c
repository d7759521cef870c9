/* codec.c: the only file that knows an offset of the bus header.
 *
 *    0 "RCmb"      4 total length   8 version 1   10 port      12 type   14 gossip count
 *   16 currentEpoch  24 configEpoch  32 offset    40 sender id 80 slots (2048)
 * 2128 replica of  2168 ip (46)   2214 extensions  2216 zero (30)  2246 pport  2248 cport
 * 2250 flags       2252 state     2253 mflags (3)  2256 payload */
#include "cluster/codec.h"
#include "base/endian.h"
#include "base/mem.h"

#include <assert.h>

enum {
    OFF_LENGTH = 4,
    OFF_VERSION = 8,
    OFF_PORT = 10,
    OFF_TYPE = 12,
    OFF_COUNT = 14,
    OFF_CURRENT = 16,
    OFF_CONFIG = 24,
    OFF_OFFSET = 32,
    OFF_SENDER = 40,
    OFF_SLOTS = 80,
    OFF_REPLICA_OF = 2128,
    OFF_IP = 2168,
    OFF_EXTENSIONS = 2214,
    OFF_PPORT = 2246,
    OFF_CPORT = 2248,
    OFF_FLAGS = 2250,
    OFF_STATE = 2252,
    OFF_MFLAGS = 2253,
    OFF_COVEY = 2255,
};
enum {
    EXT_HOSTNAME = 0,
    EXT_HUMAN_NAME = 1,
    EXT_SHARD = 3,
    EXT_PREFIX = 8,
    EXT_SHARD_SIZE = EXT_PREFIX + CLUSTER_ID_SIZE
};

static bool is_heartbeat(unsigned type)
{
    return type <= CLUSTER_MEET;
}

/* ---- framing ---- */

static uint64_t length_max(unsigned type, unsigned count)
{
    switch (type) {
    case CLUSTER_PING:
    case CLUSTER_PONG:
    case CLUSTER_MEET: return CLUSTER_HEADER_SIZE + (uint64_t)count * CLUSTER_GOSSIP_SIZE + CLUSTER_EXTENSIONS_MAX;
    case CLUSTER_PUBLISH:
    case CLUSTER_PUBLISHSHARD:
    case CLUSTER_MODULE: return CLUSTER_PAYLOAD_MAX;
    default: return type < CLUSTER_TYPE_COUNT ? CLUSTER_FIXED_MAX : CLUSTER_UNKNOWN_MAX;
    }
}

enum status cluster_frame_length(struct bytes have, size_t *length)
{
    const uint8_t *p = (const uint8_t *)have.p;
    if (have.n < 8) return have.n && memcmp(p, "RCmb", have.n < 4 ? have.n : 4) ? E_CORRUPT : E_AGAIN;
    uint32_t n = load_be32(p + OFF_LENGTH);
    if (memcmp(p, "RCmb", 4) || n < CLUSTER_HEADER_SIZE) return E_CORRUPT;
    if (n > CLUSTER_PAYLOAD_MAX) return E_TOO_BIG;
    if (have.n < CLUSTER_PREFIX_SIZE) return E_AGAIN;
    if (n > length_max(load_be16(p + OFF_TYPE), load_be16(p + OFF_COUNT))) return E_TOO_BIG;
    *length = n;
    return OK;
}

/* ---- decoding ---- */

/* NUL-padded text that may stand in nodes.conf and CLUSTER NODES as one word: no separators, no control characters. */
static bool is_word(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] <= ' ' || p[i] > '~' || p[i] == ',' || p[i] == '@') return false;
    return true;
}

static bool get_ip(const uint8_t *p, char *ip)
{
    size_t n = strnlen((const char *)p, CLUSTER_IP_SIZE);
    if (!is_word((const char *)p, n)) return false;
    memcpy(ip, p, n);
    ip[n] = 0;
    return true;
}

static bool get_header(const uint8_t *p, struct cluster_message *m)
{
    m->port = load_be16(p + OFF_PORT);
    m->type = load_be16(p + OFF_TYPE);
    m->current_epoch = load_be64(p + OFF_CURRENT);
    m->config_epoch = load_be64(p + OFF_CONFIG);
    m->offset = load_be64(p + OFF_OFFSET);
    memcpy(m->sender.c, p + OFF_SENDER, CLUSTER_ID_SIZE);
    m->slots = p + OFF_SLOTS;
    memcpy(m->replica_of.c, p + OFF_REPLICA_OF, CLUSTER_ID_SIZE);
    m->pport = load_be16(p + OFF_PPORT);
    m->cport = load_be16(p + OFF_CPORT);
    m->flags = load_be16(p + OFF_FLAGS);
    m->state = p[OFF_STATE];
    m->mflags = p[OFF_MFLAGS];
    m->covey = p[OFF_COVEY];
    return get_ip(p + OFF_IP, m->ip);
}

static bool get_gossip(const uint8_t *p, struct cluster_gossip *g)
{
    memcpy(g->id.c, p, CLUSTER_ID_SIZE);
    g->ping_sent_s = load_be32(p + 40);
    g->pong_received_s = load_be32(p + 44);
    g->port = load_be16(p + 94);
    g->cport = load_be16(p + 96);
    g->flags = load_be16(p + 98);
    g->pport = load_be16(p + 100);
    return get_ip(p + 48, g->ip);
}

/* Text of an extension; one that is no word is as good as absent. */
static struct bytes extension_text(const uint8_t *p, size_t n)
{
    struct bytes text = bytes_make(p, strnlen((const char *)p, n));
    return text.n <= CLUSTER_HOSTNAME_MAX && is_word(text.p, text.n) ? text : (struct bytes){0};
}

static bool get_extensions(const uint8_t *p, const uint8_t *end, unsigned count, struct cluster_message *m)
{
    for (; count; count--) {
        if (end - p < EXT_PREFIX) return false;
        uint32_t n = load_be32(p);
        if (n < EXT_PREFIX || n % 8 || n > (size_t)(end - p)) return false;
        struct bytes text = extension_text(p + EXT_PREFIX, n - EXT_PREFIX);
        if (load_be16(p + 4) == EXT_HOSTNAME) m->hostname = text;
        if (load_be16(p + 4) == EXT_HUMAN_NAME) m->human_name = text;
        if (load_be16(p + 4) == EXT_SHARD && n == EXT_SHARD_SIZE)
            cluster_id_parse(bytes_make(p + EXT_PREFIX, CLUSTER_ID_SIZE), &m->shard);
        p += n;
    }
    return p == end;
}

static enum status get_heartbeat(struct cluster_decoder *d, const uint8_t *p, size_t n, struct cluster_message *m)
{
    const uint8_t *at = p + CLUSTER_HEADER_SIZE, *end = p + n;
    unsigned count = load_be16(p + OFF_COUNT);
    if ((size_t)(end - at) < (size_t)count * CLUSTER_GOSSIP_SIZE) return E_INVALID;
    if (count > d->cap) {
        struct cluster_gossip *more = mem_try_realloc(d->gossip, count * sizeof *more);
        if (!more) return E_NOMEM;
        d->gossip = more;
        d->cap = count;
    }
    for (unsigned i = 0; i < count; i++, at += CLUSTER_GOSSIP_SIZE)
        if (!get_gossip(at, &d->gossip[i])) return E_INVALID;
    m->gossip = d->gossip;
    m->gossip_count = count;
    unsigned extensions = m->mflags & CLUSTER_MSG_EXT_DATA ? load_be16(p + OFF_EXTENSIONS) : 0;
    return get_extensions(at, end, extensions, m) ? OK : E_INVALID;
}

static bool get_publish(const uint8_t *p, size_t n, struct cluster_message *m)
{
    if (n < 8) return false;
    uint64_t channel = load_be32(p), payload = load_be32(p + 4);
    if (channel + payload != n - 8) return false;
    m->publish.channel = bytes_make(p + 8, channel);
    m->publish.payload = bytes_make(p + 8 + channel, payload);
    return true;
}

static bool get_update(const uint8_t *p, size_t n, struct cluster_message *m)
{
    if (n != 8 + CLUSTER_ID_SIZE + CLUSTER_SLOT_BYTES) return false;
    m->update.config_epoch = load_be64(p);
    memcpy(m->update.id.c, p + 8, CLUSTER_ID_SIZE);
    m->update.slots = p + 8 + CLUSTER_ID_SIZE;
    return true;
}

static bool get_module(const uint8_t *p, size_t n, struct cluster_message *m)
{
    if (n < 13 || load_be32(p + 8) != n - 13) return false;
    memcpy(&m->module.module_id, p, 8);
    m->module.type = p[12];
    m->module.payload = bytes_make(p + 13, n - 13);
    return true;
}

static bool get_payload(const uint8_t *p, size_t n, struct cluster_message *m)
{
    switch (m->type) {
    case CLUSTER_FAIL:
        if (n != CLUSTER_ID_SIZE) return false;
        memcpy(m->fail.c, p, CLUSTER_ID_SIZE);
        return true;
    case CLUSTER_PUBLISH:
    case CLUSTER_PUBLISHSHARD: return get_publish(p, n, m);
    case CLUSTER_AUTH_REQUEST:
    case CLUSTER_AUTH_ACK:
    case CLUSTER_MFSTART: return n == 0;
    case CLUSTER_UPDATE: return get_update(p, n, m);
    case CLUSTER_MODULE: return get_module(p, n, m);
    default: /* of the future: the header counts, the rest is not ours to judge */ return true;
    }
}

enum status cluster_decode(struct cluster_decoder *d, struct bytes frame, struct cluster_message *m)
{
    const uint8_t *p = (const uint8_t *)frame.p;
    memset(m, 0, sizeof *m);
    m->type = CLUSTER_TYPE_COUNT;
    if (frame.n < CLUSTER_HEADER_SIZE || load_be32(p + OFF_LENGTH) != frame.n) return E_INVALID;
    if (!get_header(p, m) || load_be16(p + OFF_VERSION) != 1) return E_INVALID;
    if (is_heartbeat(m->type)) return get_heartbeat(d, p, frame.n, m);
    return get_payload(p + CLUSTER_HEADER_SIZE, frame.n - CLUSTER_HEADER_SIZE, m) ? OK : E_INVALID;
}

void cluster_decoder_deinit(struct cluster_decoder *d)
{
    mem_free(d->gossip);
    memset(d, 0, sizeof *d);
}

/* ---- encoding ---- */

static size_t extension_size(struct bytes text)
{
    return text.n ? EXT_PREFIX + (text.n + 1 + 7) / 8 * 8 : 0;
}

static size_t payload_size(const struct cluster_message *m)
{
    switch (m->type) {
    case CLUSTER_PING:
    case CLUSTER_PONG:
    case CLUSTER_MEET:
        return m->gossip_count * CLUSTER_GOSSIP_SIZE + extension_size(m->hostname) + extension_size(m->human_name) +
               (cluster_id_is_null(&m->shard) ? 0 : EXT_SHARD_SIZE);
    case CLUSTER_FAIL: return CLUSTER_ID_SIZE;
    case CLUSTER_PUBLISH:
    case CLUSTER_PUBLISHSHARD: return 8 + m->publish.channel.n + m->publish.payload.n;
    case CLUSTER_UPDATE: return 8 + CLUSTER_ID_SIZE + CLUSTER_SLOT_BYTES;
    case CLUSTER_MODULE: return 13 + m->module.payload.n;
    default: return 0;
    }
}

static void put_header(uint8_t *p, const struct cluster_message *m, size_t n)
{
    memset(p, 0, OFF_SLOTS);
    memcpy(p, "RCmb", 4);
    store_be32(p + OFF_LENGTH, (uint32_t)n);
    store_be16(p + OFF_VERSION, 1);
    store_be16(p + OFF_PORT, m->port);
    store_be16(p + OFF_TYPE, m->type);
    store_be16(p + OFF_COUNT, is_heartbeat(m->type) ? m->gossip_count : 0);
    store_be64(p + OFF_CURRENT, m->current_epoch);
    store_be64(p + OFF_CONFIG, m->config_epoch);
    store_be64(p + OFF_OFFSET, m->offset);
    memcpy(p + OFF_SENDER, m->sender.c, CLUSTER_ID_SIZE);
    memcpy(p + OFF_SLOTS, m->slots, CLUSTER_SLOT_BYTES);
    memset(p + OFF_REPLICA_OF, 0, CLUSTER_HEADER_SIZE - OFF_REPLICA_OF);
    memcpy(p + OFF_REPLICA_OF, m->replica_of.c, CLUSTER_ID_SIZE);
    memcpy(p + OFF_IP, m->ip, strnlen(m->ip, CLUSTER_IP_SIZE));
    store_be16(p + OFF_PPORT, m->pport);
    store_be16(p + OFF_CPORT, m->cport);
    store_be16(p + OFF_FLAGS, m->flags);
    p[OFF_STATE] = m->state;
    p[OFF_MFLAGS] = m->mflags;
    p[OFF_COVEY] = m->covey;
}

static uint8_t *put_gossip(uint8_t *p, const struct cluster_gossip *g)
{
    memset(p, 0, CLUSTER_GOSSIP_SIZE);
    memcpy(p, g->id.c, CLUSTER_ID_SIZE);
    store_be32(p + 40, g->ping_sent_s);
    store_be32(p + 44, g->pong_received_s);
    memcpy(p + 48, g->ip, strnlen(g->ip, CLUSTER_IP_SIZE));
    store_be16(p + 94, g->port);
    store_be16(p + 96, g->cport);
    store_be16(p + 98, g->flags);
    store_be16(p + 100, g->pport);
    return p + CLUSTER_GOSSIP_SIZE;
}

static uint8_t *put_extension(uint8_t *p, unsigned type, struct bytes text)
{
    size_t n = extension_size(text);
    if (!n) return p;
    memset(p, 0, n);
    store_be32(p, (uint32_t)n);
    store_be16(p + 4, type);
    memcpy(p + EXT_PREFIX, text.p, text.n);
    return p + n;
}

static void put_shard(uint8_t *p, const struct cluster_id *shard)
{
    memset(p, 0, EXT_PREFIX);
    store_be32(p, EXT_SHARD_SIZE);
    store_be16(p + 4, EXT_SHARD);
    memcpy(p + EXT_PREFIX, shard->c, CLUSTER_ID_SIZE);
}

static void put_heartbeat(uint8_t *head, const struct cluster_message *m)
{
    uint8_t *p = head + CLUSTER_HEADER_SIZE;
    for (uint32_t i = 0; i < m->gossip_count; i++) p = put_gossip(p, &m->gossip[i]);
    p = put_extension(p, EXT_HOSTNAME, m->hostname);
    p = put_extension(p, EXT_HUMAN_NAME, m->human_name);
    bool shard = !cluster_id_is_null(&m->shard);
    if (shard) put_shard(p, &m->shard);
    unsigned extensions = !!m->hostname.n + !!m->human_name.n + shard;
    store_be16(head + OFF_EXTENSIONS, extensions);
    if (extensions) head[OFF_MFLAGS] |= CLUSTER_MSG_EXT_DATA;
}

static void put_publish(uint8_t *p, struct bytes channel, struct bytes payload)
{
    store_be32(p, (uint32_t)channel.n);
    store_be32(p + 4, (uint32_t)payload.n);
    if (channel.n) memcpy(p + 8, channel.p, channel.n);
    if (payload.n) memcpy(p + 8 + channel.n, payload.p, payload.n);
}

static void put_payload(uint8_t *p, const struct cluster_message *m)
{
    switch (m->type) {
    case CLUSTER_FAIL: memcpy(p, m->fail.c, CLUSTER_ID_SIZE); break;
    case CLUSTER_PUBLISH:
    case CLUSTER_PUBLISHSHARD: put_publish(p, m->publish.channel, m->publish.payload); break;
    case CLUSTER_UPDATE:
        store_be64(p, m->update.config_epoch);
        memcpy(p + 8, m->update.id.c, CLUSTER_ID_SIZE);
        memcpy(p + 8 + CLUSTER_ID_SIZE, m->update.slots, CLUSTER_SLOT_BYTES);
        break;
    case CLUSTER_MODULE:
        memcpy(p, &m->module.module_id, 8);
        store_be32(p + 8, (uint32_t)m->module.payload.n);
        p[12] = m->module.type;
        if (m->module.payload.n) memcpy(p + 13, m->module.payload.p, m->module.payload.n);
        break;
    default: break;
    }
}

void cluster_encode_head(const struct cluster_message *m, struct buf *out)
{
    assert(m->type == CLUSTER_PUBLISH || m->type == CLUSTER_PUBLISHSHARD);
    size_t n = CLUSTER_HEADER_SIZE + 8;
    buf_reserve(out, n);
    uint8_t *p = (uint8_t *)out->p + out->n;
    put_header(p, m, CLUSTER_HEADER_SIZE + payload_size(m));
    store_be32(p + CLUSTER_HEADER_SIZE, (uint32_t)m->publish.channel.n);
    store_be32(p + CLUSTER_HEADER_SIZE + 4, (uint32_t)m->publish.payload.n);
    out->n += n;
}

void cluster_encode(const struct cluster_message *m, struct buf *out)
{
    assert(m->type < CLUSTER_TYPE_COUNT && m->gossip_count <= 65535);
    size_t n = CLUSTER_HEADER_SIZE + payload_size(m);
    buf_reserve(out, n);
    uint8_t *p = (uint8_t *)out->p + out->n;
    put_header(p, m, n);
    if (is_heartbeat(m->type))
        put_heartbeat(p, m);
    else
        put_payload(p + CLUSTER_HEADER_SIZE, m);
    out->n += n;
}
