#include "command/hyperloglog.h"

#include <assert.h>
#include <math.h>

enum { DENSE = 0, SPARSE = 1, ENCODING_AT = 4, CACHE_AT = 8, INDEX_BITS = 14, HASH_BITS = 50 };
enum { ZEROS_SHORT_MAX = 64, VALUE_RUN_MAX = 4, SPARSE_VALUE_MAX = 32, MERGE_STEPS = 5 };

bool hll_is_value(struct bytes b)
{
    if (b.n < HLL_HEADER || memcmp(b.p, "HYLL", 4) != 0) return false;
    unsigned char encoding = (unsigned char)b.p[ENCODING_AT];
    return encoding == SPARSE || (encoding == DENSE && b.n == HLL_DENSE_BYTES);
}

bool hll_is_dense(struct bytes b)
{
    return b.p[ENCODING_AT] == DENSE;
}

/* ---- The hash ---------------------------------------------------------------------------------------------------- */

static uint64_t murmur64a(struct bytes b, uint64_t seed)
{
    const uint64_t m = UINT64_C(0xc6a4a7935bd1e995);
    uint64_t h = seed ^ (b.n * m);
    for (; b.n >= 8; b.p += 8, b.n -= 8) {
        uint64_t k;
        memcpy(&k, b.p, 8);
        k *= m;
        k ^= k >> 47;
        h = (h ^ k * m) * m;
    }
    if (b.n) {
        uint64_t tail = 0;
        memcpy(&tail, b.p, b.n);
        h = (h ^ tail) * m;
    }
    h = (h ^ h >> 47) * m;
    return h ^ h >> 47;
}

void hll_element(struct bytes element, unsigned *index, unsigned *value)
{
    uint64_t hash = murmur64a(element, 0xadc83b19);
    *index = hash % HLL_REGISTERS;
    hash = hash >> INDEX_BITS | UINT64_C(1) << HASH_BITS; /* the search ends there */
    *value = (unsigned)__builtin_ctzll(hash) + 1;
}

/* ---- Dense registers --------------------------------------------------------------------------------------------- */

/* Eight registers are 48 bits. */
enum { GROUP = 8, GROUP_BYTES = 6 };

static uint64_t group_read(const char *registers, unsigned group)
{
    uint64_t bits = 0;
    memcpy(&bits, registers + group * GROUP_BYTES, GROUP_BYTES);
    return bits;
}

static void dense_read(const char *registers, uint8_t out[HLL_REGISTERS])
{
    for (unsigned g = 0; g < HLL_REGISTERS / GROUP; g++) {
        uint64_t bits = group_read(registers, g);
        for (unsigned i = 0; i < GROUP; i++) out[g * GROUP + i] = bits >> (6 * i) & 63;
    }
}

void hll_dense_write(char *value, const struct hll_registers *from)
{
    char *registers = value + HLL_HEADER;
    for (unsigned g = 0; g < HLL_REGISTERS / GROUP; g++) {
        uint64_t bits = 0;
        for (unsigned i = 0; i < GROUP; i++) bits |= (uint64_t)from->value[g * GROUP + i] << (6 * i);
        memcpy(registers + g * GROUP_BYTES, &bits, GROUP_BYTES);
    }
}

bool hll_dense_raise(char *value, unsigned index, unsigned to)
{
    char *registers = value + HLL_HEADER;
    unsigned group = index / GROUP, shift = index % GROUP * 6;
    uint64_t bits = group_read(registers, group);
    if ((bits >> shift & 63) >= to) return false;
    bits = (bits & ~(UINT64_C(63) << shift)) | (uint64_t)to << shift;
    memcpy(registers + group * GROUP_BYTES, &bits, GROUP_BYTES);
    return true;
}

/* ---- Sparse registers -------------------------------------------------------------------------------------------- */

/* One run: value 0 for zeros. */
struct run {
    unsigned len, value, bytes;
};

static struct run run_at(struct bytes b, size_t at)
{
    unsigned first = (unsigned char)b.p[at], second = at + 1 < b.n ? (unsigned char)b.p[at + 1] : 0;
    if (first & 0x80) return (struct run){(first & 3) + 1, (first >> 2 & 31) + 1, 1};
    if (first & 0x40) return (struct run){((first & 63) << 8 | second) + 1, 0, 2};
    return (struct run){(first & 63) + 1, 0, 1};
}

static unsigned put_run(uint8_t *to, unsigned len, unsigned value)
{
    if (len == 0) return 0;
    if (value) {
        to[0] = (uint8_t)(0x80 | (value - 1) << 2 | (len - 1));
        return 1;
    }
    if (len <= ZEROS_SHORT_MAX) {
        to[0] = (uint8_t)(len - 1);
        return 1;
    }
    to[0] = (uint8_t)(0x40 | (len - 1) >> 8);
    to[1] = (uint8_t)(len - 1);
    return 2;
}

void hll_empty(struct buf *out)
{
    uint8_t run[2];
    static const char header[HLL_HEADER] = {'H', 'Y', 'L', 'L', SPARSE};
    buf_append(out, header, sizeof header);
    buf_append(out, run, put_run(run, HLL_REGISTERS, 0));
}

/* E_CORRUPT unless the runs make up all registers. */
static enum status sparse_read(struct bytes value, uint8_t out[HLL_REGISTERS])
{
    unsigned index = 0;
    for (size_t at = HLL_HEADER; at < value.n;) {
        struct run r = run_at(value, at);
        if (r.len > HLL_REGISTERS - index) return E_CORRUPT;
        memset(out + index, (int)r.value, r.len);
        index += r.len;
        at += r.bytes;
    }
    return index == HLL_REGISTERS ? OK : E_CORRUPT;
}

enum status hll_make_dense(struct buf *value)
{
    struct hll_registers r;
    char dense[HLL_DENSE_BYTES];
    if (hll_is_dense(buf_bytes(value))) return OK;
    if (sparse_read(buf_bytes(value), r.value) != OK) return E_CORRUPT;
    memcpy(dense, value->p, HLL_HEADER);
    dense[ENCODING_AT] = DENSE;
    hll_dense_write(dense, &r);
    value->n = 0;
    buf_append(value, dense, sizeof dense);
    return OK;
}

static void splice(struct buf *b, size_t at, size_t old, const uint8_t *with, size_t n)
{
    buf_reserve(b, n);
    memmove(b->p + at + n, b->p + at + old, b->n - at - old);
    memcpy(b->p + at, with, n);
    b->n = b->n - old + n;
}

/* Joins neighbours of one value among the next few runs.  How far it looks is part of the format: it decides about the
 * bytes. */
static void join_runs(struct buf *b, size_t at)
{
    for (int steps = MERGE_STEPS; steps > 0 && at < b->n; steps--) {
        struct run here = run_at(buf_bytes(b), at);
        struct run next = here.value && at + 1 < b->n ? run_at(buf_bytes(b), at + 1) : (struct run){0};
        if (here.value && next.value == here.value && here.len + next.len <= VALUE_RUN_MAX) {
            uint8_t joined;
            put_run(&joined, here.len + next.len, here.value);
            splice(b, at, 2, &joined, 1);
        } else {
            at += here.bytes;
        }
    }
}

enum sparse_result { SPARSE_SAME, SPARSE_CHANGED, SPARSE_FULL, SPARSE_CORRUPT };

static enum sparse_result sparse_raise(struct buf *b, unsigned index, unsigned to, size_t max)
{
    if (to > SPARSE_VALUE_MAX) return SPARSE_FULL;
    size_t at = HLL_HEADER, before = HLL_HEADER;
    unsigned first = 0;
    struct run r = {0};
    for (; at < b->n; before = at, at += r.bytes, first += r.len) {
        r = run_at(buf_bytes(b), at);
        if (index < first + r.len) break;
    }
    if (at >= b->n || at + r.bytes > b->n) return SPARSE_CORRUPT;
    if (r.value >= to) return SPARSE_SAME;
    uint8_t runs[5];
    unsigned n = put_run(runs, index - first, r.value);
    n += put_run(runs + n, 1, to);
    n += put_run(runs + n, first + r.len - 1 - index, r.value);
    if (n > r.bytes && b->n + n - r.bytes > max) return SPARSE_FULL;
    splice(b, at, r.bytes, runs, n);
    join_runs(b, before);
    return SPARSE_CHANGED;
}

enum status hll_raise(struct buf *value, unsigned index, unsigned to, size_t sparse_max, bool *changed)
{
    assert(index < HLL_REGISTERS);
    enum sparse_result result = SPARSE_FULL;
    if (!hll_is_dense(buf_bytes(value))) result = sparse_raise(value, index, to, sparse_max);
    *changed = result == SPARSE_CHANGED;
    if (result == SPARSE_CORRUPT) return E_CORRUPT;
    if (result != SPARSE_FULL) return OK;
    if (hll_make_dense(value) != OK) return E_CORRUPT;
    *changed = hll_dense_raise(value->p, index, to);
    return OK;
}

void hll_describe(struct bytes value, struct buf *out)
{
    for (size_t at = HLL_HEADER; at < value.n;) {
        struct run r = run_at(value, at);
        if (at > HLL_HEADER) buf_append_char(out, ' ');
        if (r.value)
            buf_printf(out, "v:%u,%u", r.value, r.len);
        else
            buf_printf(out, "%c:%u", r.bytes == 2 ? 'Z' : 'z', r.len);
        at += r.bytes;
    }
}

/* ---- Merging ----------------------------------------------------------------------------------------------------- */

/* 16 registers at a time. */
typedef uint8_t lanes __attribute__((vector_size(16)));

enum status hll_merge(struct hll_registers *into, struct bytes value)
{
    struct hll_registers other;
    if (hll_is_dense(value))
        dense_read(value.p + HLL_HEADER, other.value);
    else if (sparse_read(value, other.value) != OK)
        return E_CORRUPT;
    for (unsigned i = 0; i < HLL_REGISTERS; i += sizeof(lanes)) {
        lanes a, b;
        memcpy(&a, into->value + i, sizeof a);
        memcpy(&b, other.value + i, sizeof b);
        lanes larger = (lanes)(a > b);
        a = (a & larger) | (b & ~larger);
        memcpy(into->value + i, &a, sizeof a);
    }
    return OK;
}

/* ---- Estimating -------------------------------------------------------------------------------------------------- */

/* How many registers have each value (up to 63, which only foreign bytes have). */
struct histogram {
    unsigned count[64];
};

static double sigma(double x)
{
    if (x == 1) return INFINITY;
    double z = x, before;
    double y = 1;
    do {
        x *= x;
        before = z;
        z += x * y;
        y += y;
    } while (z != before);
    return z;
}

static double tau(double x)
{
    if (x == 0 || x == 1) return 0;
    double z = 1 - x, before;
    double y = 1;
    do {
        x = sqrt(x);
        before = z;
        y *= 0.5;
        z -= pow(1 - x, 2) * y;
    } while (z != before);
    return z / 3;
}

static uint64_t estimate(const struct histogram *h)
{
    const double alpha_inf = 0.721347520444481703680; /* 0.5 / ln 2 */
    const double m = HLL_REGISTERS;
    double z = m * tau((m - h->count[HASH_BITS + 1]) / m);
    for (int i = HASH_BITS; i >= 1; i--) z = (z + h->count[i]) * 0.5;
    z += m * sigma(h->count[0] / m);
    return (uint64_t)llroundl(alpha_inf * m * m / z);
}

/* Two histograms in turn, so that equal neighbours do not wait for each other. */
static void count_bytes(const uint8_t *value, size_t n, struct histogram *h)
{
    struct histogram odd = {{0}};
    for (size_t i = 0; i + 1 < n; i += 2) {
        h->count[value[i] & 63]++;
        odd.count[value[i + 1] & 63]++;
    }
    for (int i = 0; i < 64; i++) h->count[i] += odd.count[i];
}

uint64_t hll_estimate_registers(const struct hll_registers *r)
{
    struct histogram h = {{0}};
    count_bytes(r->value, HLL_REGISTERS, &h);
    return estimate(&h);
}

static void count_dense(const char *registers, struct histogram *h)
{
    struct histogram odd = {{0}};
    for (unsigned g = 0; g < HLL_REGISTERS / GROUP; g++) {
        uint64_t bits = group_read(registers, g);
        for (unsigned i = 0; i < GROUP; i += 2, bits >>= 12) {
            h->count[bits & 63]++;
            odd.count[bits >> 6 & 63]++;
        }
    }
    for (int i = 0; i < 64; i++) h->count[i] += odd.count[i];
}

static enum status count_sparse(struct bytes value, struct histogram *h)
{
    uint64_t index = 0;
    for (size_t at = HLL_HEADER; at < value.n;) {
        struct run r = run_at(value, at);
        h->count[r.value] += r.len;
        index += r.len;
        at += r.bytes;
    }
    return index == HLL_REGISTERS ? OK : E_CORRUPT;
}

enum status hll_estimate(struct bytes value, uint64_t *out)
{
    struct histogram h = {{0}};
    if (hll_is_dense(value))
        count_dense(value.p + HLL_HEADER, &h);
    else if (count_sparse(value, &h) != OK)
        return E_CORRUPT;
    *out = estimate(&h);
    return OK;
}

bool hll_cached(struct bytes value, uint64_t *out)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--) v = v << 8 | (unsigned char)value.p[CACHE_AT + i];
    *out = v;
    return !(v >> 63);
}

void hll_cache(char *value, uint64_t cardinality)
{
    for (int i = 0; i < 8; i++) value[CACHE_AT + i] = (char)(cardinality >> (8 * i));
}

void hll_cache_drop(char *value)
{
    value[CACHE_AT + 7] |= (char)0x80;
}
