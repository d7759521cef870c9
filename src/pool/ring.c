#include "pool/ring.h"

#include "base/mem.h"
#include "pool/hash.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

enum {
    KETAMA_POINTS = 160, /* a server's, all weights being equal */
    POINTS_PER_DIGEST = 4,
};

static const char *const names[POOL_DISTRIBUTION_COUNT] = {"ketama", "modula", "random"};

const char *pool_distribution_name(enum pool_distribution d)
{
    return names[d];
}

bool pool_distribution_find(struct bytes name, enum pool_distribution *out)
{
    for (int d = 0; d < POOL_DISTRIBUTION_COUNT; d++)
        if (bytes_eq(name, bytes_of(names[d]))) {
            *out = (enum pool_distribution)d;
            return true;
        }
    return false;
}

static int compare_points(const void *a, const void *b)
{
    const struct ring_point *x = a, *y = b;
    if (x->upto != y->upto) return x->upto < y->upto ? -1 : 1;
    return x->server < y->server ? -1 : x->server > y->server;
}

/* How many digests a server gets.  Single precision, in this order, is part of the placement: another rounding here
 * gives a server four points more or less. */
static unsigned ketama_digests(uint32_t weight, uint64_t total_weight, size_t live)
{
    float share = (float)weight / (float)total_weight;
    float digests = share * KETAMA_POINTS / POINTS_PER_DIGEST * (float)live;
    return (unsigned)floorf((float)(digests + 0.0000000001));
}

/* Four points a digest of "name-0", "name-1", ... */
static size_t ketama_points(struct ring_point *out, struct bytes name, uint32_t server, unsigned digests)
{
    struct buf label = {0};
    for (unsigned i = 0; i < digests; i++) {
        uint8_t digest[16];
        label.n = 0;
        buf_append_bytes(&label, name);
        buf_printf(&label, "-%u", i);
        pool_md5(buf_bytes(&label), digest);
        for (unsigned k = 0; k < POINTS_PER_DIGEST; k++) {
            const uint8_t *p = digest + 4 * k;
            uint32_t value = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
            *out++ = (struct ring_point){value, server};
        }
    }
    buf_deinit(&label);
    return (size_t)digests * POINTS_PER_DIGEST;
}

static size_t points_needed(enum pool_distribution d, const struct ring_server *servers, size_t n, uint64_t total,
                            size_t live)
{
    if (d != POOL_KETAMA) return live;
    size_t points = 0;
    for (size_t i = 0; i < n; i++)
        if (servers[i].live) points += (size_t)ketama_digests(servers[i].weight, total, live) * POINTS_PER_DIGEST;
    return points;
}

enum status ring_build(struct ring *r, enum pool_distribution d, const struct ring_server *servers, size_t n)
{
    if (n > RING_SERVERS_MAX) return E_TOO_BIG;
    size_t live = 0;
    uint64_t total = 0;
    for (size_t i = 0; i < n; i++)
        if (servers[i].live) {
            assert(servers[i].weight > 0);
            live++;
            total += servers[i].weight;
        }
    size_t needed = points_needed(d, servers, n, total, live), count = 0;
    struct ring_point *points = mem_try_alloc((needed ? needed : 1) * sizeof *points);
    if (!points) return E_NOMEM;
    uint64_t upto = 0;
    for (size_t i = 0; i < n; i++) {
        if (!servers[i].live) continue;
        if (d == POOL_KETAMA) {
            unsigned digests = ketama_digests(servers[i].weight, total, live);
            count += ketama_points(points + count, servers[i].name, (uint32_t)i, digests);
        } else {
            upto += d == POOL_MODULA ? servers[i].weight : 1;
            points[count++] = (struct ring_point){upto - 1, (uint32_t)i};
        }
    }
    assert(count == needed);
    if (d == POOL_KETAMA) qsort(points, count, sizeof *points, compare_points);
    mem_free(r->points);
    *r = (struct ring){d, n, count, points};
    return OK;
}

void ring_deinit(struct ring *r)
{
    mem_free(r->points);
    *r = (struct ring){0};
}

int ring_find(const struct ring *r, uint32_t hash, uint32_t random)
{
    if (r->n == 0) return -1;
    uint64_t value = r->distribution == POOL_RANDOM ? random : r->servers > 1 ? hash : 0;
    if (r->distribution != POOL_KETAMA) value %= r->points[r->n - 1].upto + 1;
    size_t low = 0, high = r->n; /* the first point that is not below the value */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (r->points[middle].upto < value)
            low = middle + 1;
        else
            high = middle;
    }
    return (int)r->points[low == r->n ? 0 : low].server;
}
