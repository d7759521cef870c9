#include "store/intset.h"

#include "base/endian.h"
#include "base/mem.h"

#include <assert.h>

static unsigned width_of(const uint8_t *is)
{
    return load_le32(is);
}

static unsigned width_for(int64_t v)
{
    if (v >= INT16_MIN && v <= INT16_MAX) return 2;
    return v >= INT32_MIN && v <= INT32_MAX ? 4 : 8;
}

static int64_t value_read(const uint8_t *is, size_t index, unsigned width)
{
    const uint8_t *p = is + INTSET_HEADER + index * width;
    uint64_t v = 0;
    for (unsigned i = 0; i < width; i++) v |= (uint64_t)p[i] << (8 * i);
    unsigned unused = 64 - 8 * width;
    return (int64_t)(v << unused) >> unused;
}

static void value_write(uint8_t *is, size_t index, unsigned width, int64_t v)
{
    uint8_t *p = is + INTSET_HEADER + index * width;
    for (unsigned i = 0; i < width; i++) p[i] = (uint8_t)((uint64_t)v >> (8 * i));
}

uint8_t *intset_new(void)
{
    uint8_t *is = mem_alloc(INTSET_HEADER);
    store_le32(is, 2);
    store_le32(is + 4, 0);
    return is;
}

uint8_t *intset_try_copy(struct bytes blob)
{
    uint8_t *is = mem_try_alloc(blob.n);
    return is ? memcpy(is, blob.p, blob.n) : NULL;
}

size_t intset_len(const uint8_t *is)
{
    return load_le32(is + 4);
}

size_t intset_bytes(const uint8_t *is)
{
    return INTSET_HEADER + intset_len(is) * width_of(is);
}

int64_t intset_at(const uint8_t *is, size_t index)
{
    assert(index < intset_len(is));
    return value_read(is, index, width_of(is));
}

/* Index of the first value that is not below v. */
static size_t lower_bound(const uint8_t *is, int64_t v)
{
    size_t low = 0, high = intset_len(is);
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (intset_at(is, mid) < v)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static bool found(const uint8_t *is, size_t index, int64_t v)
{
    return index < intset_len(is) && intset_at(is, index) == v;
}

bool intset_has(const uint8_t *is, int64_t v)
{
    return found(is, lower_bound(is, v), v);
}

/* From the back, so that no value is overwritten before it has moved. */
static uint8_t *widen(uint8_t *is, unsigned width)
{
    unsigned old = width_of(is);
    size_t n = intset_len(is);
    is = mem_realloc(is, INTSET_HEADER + n * width);
    for (size_t i = n; i-- > 0;) value_write(is, i, width, value_read(is, i, old));
    store_le32(is, width);
    return is;
}

bool intset_add(uint8_t **set, int64_t v)
{
    uint8_t *is = *set;
    size_t index = lower_bound(is, v), n = intset_len(is);
    if (found(is, index, v)) return false;
    if (width_for(v) > width_of(is)) is = widen(is, width_for(v));
    unsigned width = width_of(is);
    is = mem_realloc(is, INTSET_HEADER + (n + 1) * width);
    uint8_t *p = is + INTSET_HEADER + index * width;
    memmove(p + width, p, (n - index) * width);
    value_write(is, index, width, v);
    store_le32(is + 4, (uint32_t)(n + 1));
    *set = is;
    return true;
}

bool intset_remove(uint8_t **set, int64_t v)
{
    uint8_t *is = *set;
    size_t index = lower_bound(is, v), n = intset_len(is);
    if (!found(is, index, v)) return false;
    unsigned width = width_of(is);
    uint8_t *p = is + INTSET_HEADER + index * width;
    memmove(p, p + width, (n - index - 1) * width);
    store_le32(is + 4, (uint32_t)(n - 1));
    *set = mem_realloc(is, intset_bytes(is));
    return true;
}

bool intset_is_valid(struct bytes blob)
{
    const uint8_t *is = (const uint8_t *)blob.p;
    if (blob.n < INTSET_HEADER) return false;
    unsigned width = width_of(is);
    if (width != 2 && width != 4 && width != 8) return false;
    size_t n = intset_len(is);
    if ((blob.n - INTSET_HEADER) / width != n || (blob.n - INTSET_HEADER) % width != 0) return false;
    for (size_t i = 1; i < n; i++)
        if (intset_at(is, i - 1) >= intset_at(is, i)) return false;
    return true;
}
