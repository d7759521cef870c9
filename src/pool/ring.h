/* ring.h: which server of a static pool has a key: nutcracker's distributions ketama, modula and random.
 * Promises: for the same servers in the same order, the same of them live, the index nutcracker 0.5.0 finds.
 * A ring is built by one thread; when built, any thread may look something up. */
#ifndef COVEY_POOL_RING_H
#define COVEY_POOL_RING_H

#include "base/bytes.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum pool_distribution { POOL_KETAMA, POOL_MODULA, POOL_RANDOM, POOL_DISTRIBUTION_COUNT };

const char *pool_distribution_name(enum pool_distribution d);
bool pool_distribution_find(struct bytes name, enum pool_distribution *out);

struct ring_server {
    struct bytes name; /* what ketama hashes: the given name, else "host:port", or "host" when the port is 11211 */
    uint32_t weight;   /* >= 1 */
    bool live;         /* ejected servers have no place in the ring */
};

struct ring_point {
    uint64_t upto; /* highest value that leads here: ketama's point; modula and random: the sum of the weights */
    uint32_t server;
};

/* All zero is a ring without servers. */
struct ring {
    enum pool_distribution distribution;
    size_t servers;            /* live or not */
    size_t n;                  /* points */
    struct ring_point *points; /* owned, ordered by (upto, server) */
};

enum { RING_SERVERS_MAX = 65536 };

/* Builds the ring anew; the old one is freed.  Borrows `servers` until return.  E_TOO_BIG: more than RING_SERVERS_MAX.
 * E_NOMEM.  On an error the old ring stays. */
MUST_USE enum status ring_build(struct ring *r, enum pool_distribution d, const struct ring_server *servers, size_t n);
void ring_deinit(struct ring *r);

/* The index of the server, or -1 when none is live.  `random` is looked at by the random distribution only; hash then
 * is not.  (nutcracker computes no hash where there is one server; the index is 0 all the same.) */
int ring_find(const struct ring *r, uint32_t hash, uint32_t random);

#endif
