#include "store/sample.h"

#include "base/mem.h"

#include <stdlib.h>

enum { PICKED_MAX = 1 << 20 };

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Open addressing; cells hold rank + 1. False when it was there. */
static bool cell_add(uint64_t *cells, uint64_t mask, uint64_t rank)
{
    uint64_t i = rank * 0x9e3779b97f4a7c15u >> 20;
    while (cells[i & mask]) {
        if (cells[i & mask] == rank + 1) return false;
        i++;
    }
    cells[i & mask] = rank + 1;
    return true;
}

static uint64_t *pick(struct random *rng, uint64_t len, uint64_t n)
{
    uint64_t size = 16;
    while (size < n * 2) size *= 2;
    uint64_t *cells = mem_calloc(size, sizeof *cells), *out = mem_alloc(n * sizeof *out), used = 0;
    for (uint64_t top = len - n; top < len; top++) {
        uint64_t rank = random_below(rng, top + 1);
        if (!cell_add(cells, size - 1, rank)) {
            rank = top;
            cell_add(cells, size - 1, rank);
        }
        out[used++] = rank;
    }
    mem_free(cells);
    qsort(out, n, sizeof *out, compare);
    return out;
}

void sample_init(struct sample *s, struct random *rng, uint64_t len, uint64_t n)
{
    if (n > len) n = len;
    *s = (struct sample){.rng = rng, .len = len, .left = n};
    if (n > 0 && n < len / 3 && n <= PICKED_MAX) s->picked = pick(rng, len, n);
}

bool sample_next(struct sample *s, uint64_t *rank)
{
    if (s->left == 0) return false;
    if (s->picked) {
        *rank = s->picked[s->next++];
    } else {
        while (random_below(s->rng, s->len - s->at) >= s->left) s->at++;
        *rank = s->at++;
    }
    s->left--;
    return true;
}

void sample_deinit(struct sample *s)
{
    mem_free(s->picked);
    s->picked = NULL;
}
