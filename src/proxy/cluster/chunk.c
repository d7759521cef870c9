#include "proxy/cluster/worker.h"

#include "base/mem.h"

struct chunk *chunk_create(size_t cap)
{
    struct chunk *c = mem_try_alloc(sizeof *c + cap);
    if (c) *c = (struct chunk){.refs = 1, .cap = cap};
    return c;
}

void chunk_release(struct chunk *c)
{
    if (c && --c->refs == 0) mem_free(c);
}
