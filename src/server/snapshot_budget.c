#include "server/snapshot_budget.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/node.h"
#include "store/store.h"

enum { PERCENT = 5, BUDGET_MIN = 64 * 1024 * 1024, STUCK_MS = 5000 };

struct snapshot_budget {
    struct node *node;
    _Atomic size_t limit; /* bytes; main writes, any thread reads */
    _Atomic bool lifted;  /* the same: nobody waits for a snapshot that stands still */
    /* main thread */
    uint64_t steps;
    int64_t moved_ms;
};

struct snapshot_budget *snapshot_budget_create(struct node *n)
{
    struct snapshot_budget *b = mem_calloc(1, sizeof *b);
    b->node = n;
    atomic_store(&b->limit, BUDGET_MIN);
    return b;
}

void snapshot_budget_destroy(struct snapshot_budget *b)
{
    mem_free(b);
}

static bool above(const struct node *n, unsigned part)
{
    if (!store_has_cut(n->store)) return false; /* asked for each command, so this comes first */
    size_t kept = store_retained_bytes(n->store);
    const struct snapshot_budget *b = n->snapshot_budget;
    return kept > atomic_load_explicit(&b->limit, memory_order_relaxed) / part;
}

bool snapshot_budget_spent(const struct node *n)
{
    return above(n, 1) && !atomic_load_explicit(&n->snapshot_budget->lifted, memory_order_relaxed);
}

bool snapshot_budget_half_spent(const struct node *n)
{
    return above(n, 2);
}

void snapshot_budget_tick(struct snapshot_budget *b, long long now_mono_ms)
{
    size_t kept = store_retained_bytes(b->node->store), used = mem_used();
    size_t limit = used > kept ? (used - kept) / 100 * PERCENT : 0;
    atomic_store_explicit(&b->limit, limit > BUDGET_MIN ? limit : BUDGET_MIN, memory_order_relaxed);
    uint64_t steps = store_cut_steps(b->node->store);
    if (steps != b->steps || !above(b->node, 1)) {
        b->steps = steps;
        b->moved_ms = now_mono_ms;
        if (atomic_exchange_explicit(&b->lifted, false, memory_order_relaxed))
            log_notice("The snapshot goes on; writers wait for it again where it keeps too much");
    } else if (now_mono_ms - b->moved_ms > STUCK_MS &&
               !atomic_exchange_explicit(&b->lifted, true, memory_order_relaxed)) {
        log_warning("A snapshot has stood still for %d seconds and keeps %zu MB: writers do not wait for it any longer",
                    STUCK_MS / 1000, kept >> 20);
    }
}
