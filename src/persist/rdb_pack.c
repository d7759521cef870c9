/* rdb_pack.c: LZF output.  A control byte below 32 is followed by one literal more than it says.  Any other holds in
 * its upper three bits the length of a copy less 2 (7: another byte follows, to be added), and in the rest, with the
 * last byte behind, its distance less 1. */
#include "persist/rdb_pack.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

/* A stride grows by a byte for each 32 bytes without a repetition, up to 32 bytes: what begins to repeat again is
 * noticed soon enough. */
enum { DISTANCE_MAX = 8192, LITERALS_MAX = 32, MATCH_MIN = 4, MATCH_MAX = 264, STRIDE_SHIFT = 5, STRIDE_MAX = 32 };
/* Nothing is looked for in the last bytes, so that every look reads within the text. */
enum { TAIL = 8 };

struct text {
    const unsigned char *start, *end;
    const unsigned char *literals; /* from here on nothing is written yet */
};

struct output {
    unsigned char *at, *end;
};

static uint32_t load32(const unsigned char *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint64_t load64(const unsigned char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint32_t *place_of(struct packer *k, uint32_t four_bytes)
{
    return &k->at[four_bytes * 0x9e3779b1u >> (32 - PACK_HASH_BITS)];
}

static bool put_literals(struct output *o, const unsigned char *p, size_t n)
{
    while (n) {
        size_t run = n < LITERALS_MAX ? n : LITERALS_MAX;
        if ((size_t)(o->end - o->at) < run + 1) return false;
        *o->at++ = (unsigned char)(run - 1);
        memcpy(o->at, p, run);
        o->at += run;
        p += run;
        n -= run;
    }
    return true;
}

static bool put_copy(struct output *o, size_t distance, size_t n)
{
    if (o->end - o->at < 3) return false;
    size_t high = (distance - 1) >> 8, length = n - 2;
    *o->at++ = (unsigned char)((length < 7 ? length : 7) << 5 | high);
    if (length >= 7) *o->at++ = (unsigned char)(length - 7);
    *o->at++ = (unsigned char)(distance - 1);
    return true;
}

/* How far the texts at p and `distance` before it are alike, MATCH_MIN at least. */
static size_t match_length(const unsigned char *p, const unsigned char *end, size_t distance)
{
    size_t n = MATCH_MIN, most = (size_t)(end - p) < MATCH_MAX ? (size_t)(end - p) : MATCH_MAX;
    const unsigned char *before = p - distance;
    for (; n + 8 <= most; n += 8) {
        uint64_t differ = load64(p + n) ^ load64(before + n);
        if (differ) return n + ((size_t)__builtin_ctzll(differ) >> 3);
    }
    while (n < most && p[n] == before[n]) n++;
    return n;
}

/* Writes the literals before p and the copy that begins there, which may reach back into them. */
static const unsigned char *put_match(struct output *o, struct text *t, const unsigned char *p, size_t distance)
{
    size_t n = match_length(p, t->end, distance);
    while (n < MATCH_MAX && p > t->literals && p - distance > t->start && p[-1] == *(p - distance - 1)) {
        p--;
        n++;
    }
    if (!put_literals(o, t->literals, (size_t)(p - t->literals)) || !put_copy(o, distance, n)) return NULL;
    t->literals = p + n;
    return p + n;
}

/* Numbers of bytes run on from text to text, farther apart than a copy can reach: what was remembered of another text
 * is too far away by itself. */
static uint32_t number_text(struct packer *k, size_t n)
{
    if (k->base > UINT32_MAX - (uint32_t)n - DISTANCE_MAX - 1) memset(k, 0, sizeof *k);
    uint32_t first = k->base + DISTANCE_MAX + 1;
    k->base = first + (uint32_t)n;
    return first;
}

size_t pack(struct packer *k, const void *in, size_t n, void *out, size_t cap)
{
    assert(n <= PACK_INPUT_MAX);
    const unsigned char *p = in, *last = p + (n > TAIL ? n - TAIL : 0);
    struct text t = {p, p + n, p};
    struct output o = {out, (unsigned char *)out + cap};
    uint32_t first = number_text(k, n);
    while (p < last) {
        uint32_t four = load32(p), *place = place_of(k, four), here = first + (uint32_t)(p - t.start);
        uint32_t distance = here - *place;
        *place = here;
        if (distance > DISTANCE_MAX || load32(p - distance) != four) {
            size_t stride = 1 + ((size_t)(p - t.literals) >> STRIDE_SHIFT);
            p += stride < STRIDE_MAX ? stride : STRIDE_MAX;
            continue;
        }
        p = put_match(&o, &t, p, distance);
        if (!p) return 0;
        /* Of the copied bytes only the last are remembered: texts repeat in order. */
        if (p < last) *place_of(k, load32(p - 2)) = first + (uint32_t)(p - 2 - t.start);
    }
    if (!put_literals(&o, t.literals, (size_t)(t.end - t.literals))) return 0;
    return (size_t)(o.at - (unsigned char *)out);
}
