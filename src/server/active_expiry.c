/* active_expiry.c: deletes keys whose time is over although nobody asks for them.
 *
 * Each worker looks after its share of the slots.  A slot knows a lower bound of its keys' times, so finding out that
 * nothing is over costs one look.  Ten times a second the worker gets a budget of time, a quarter of it with
 * active-expire-effort 1, and uses it up in slices short enough that no client notices: one a turn of the loop, so that
 * commands run in between.  A worker without commands to run goes on beyond its budget. */
#include "server/conn.h"

#include "base/clock.h"
#include "base/mem.h"
#include "server/last_writes.h"
#include "server/latency.h"

enum { SLICE_US = 300, BUCKETS_A_LOOK = 8, EFFORT_PERCENT = 2, BASE_PERCENT = 25 };

static void expired(void *ctx, const struct key *k, struct entry *e)
{
    (void)e;
    call_expire(ctx, k);
}

/* Some buckets of one slot; true when there is more to do there, and it can be done now. */
static bool expire_slot(struct worker *w, int db, unsigned slot)
{
    struct node *n = w->node;
    if (!slot_try_lock(n->store, slot)) return false; /* the next pass comes by */
    w->effects.n = 0;
    struct call call = {.env = &w->env,
                        .db = db,
                        .now_ms = w->now_ms,
                        .effects = &w->effects,
                        .effects_wanted = change_log_active(n->log)};
    bool more = store_expire_slot(n->store, db, slot, w->now_ms, BUCKETS_A_LOOK, expired, &call);
    /* Each deletion stands by itself: no MULTI around them. */
    if (call.effect_count) last_writes_note(n, slot, change_append(n->log, db, buf_bytes(&w->effects), 1, db));
    if (waker_has_work(&w->waker)) waker_serve(&w->waker, &slot, 1, false, w->now_ms); /* XREADGROUP */
    waker_unlock_more(&w->waker);
    slot_unlock(n->store, slot);
    return more;
}

/* Goes on where the last slice ended; true when it came to the end of the worker's slots in time. */
static bool pass_goes_on(struct worker *w, int64_t until_us)
{
    struct node *n = w->node;
    struct expiry *x = &w->expiry;
    for (; x->db < store_databases(n->store); x->db++, x->slot = (unsigned)w->id) {
        if (store_db_ttl_count(n->store, x->db) == 0) continue;
        for (; x->slot < SLOT_COUNT; x->slot += (unsigned)n->worker_count) {
            while (store_slot_may_expire(n->store, x->db, x->slot, w->now_ms) && expire_slot(w, x->db, x->slot))
                if (clock_mono_us() >= until_us || gate_wanted(w->gate)) return false;
            if (x->slot % 64 == (unsigned)w->id % 64 && clock_mono_us() >= until_us) return false;
        }
    }
    x->db = 0;
    x->slot = (unsigned)w->id;
    return true;
}

/* What is paused includes expiry: the log has to stand still. */
static bool may_expire(struct worker *w)
{
    struct node *n = w->node;
    return !data_node_is_replica(n) && !atomic_load(&n->loading) && atomic_load(&n->active_expire) &&
           node_paused(n, w->now_mono_ms) == PAUSE_NONE;
}

static void slice(struct mail *m);

static void goes_on_soon(struct worker *w)
{
    w->expiry.posted = true;
    w->expiry.mail = (struct mail){NULL, slice};
    loop_post(w->loop, &w->expiry.mail);
}

static void run_slice(struct worker *w)
{
    struct expiry *x = &w->expiry;
    if (!may_expire(w)) return;
    uint64_t input = atomic_load_explicit(&w->net_in, memory_order_relaxed);
    bool idle = input == x->input_before;
    x->input_before = input;
    int64_t start_us = clock_mono_us();
    bool done = pass_goes_on(w, start_us + SLICE_US);
    int64_t took_us = clock_mono_us() - start_us;
    latency_note(w->node, "expire-cycle", (uint64_t)took_us);
    atomic_fetch_add_explicit(&w->node->stats.expire_us, (uint64_t)took_us, memory_order_relaxed);
    if (!idle) x->budget_us -= took_us;
    if (done) return;
    if (x->budget_us > 0)
        goes_on_soon(w);
    else
        atomic_fetch_add_explicit(&w->node->stats.expire_cut_short, 1, memory_order_relaxed);
}

static void slice(struct mail *m)
{
    struct worker *w = container_of(m, struct worker, expiry.mail);
    w->expiry.posted = false;
    run_slice(w);
}

void worker_expire(struct worker *w, int64_t every_ms)
{
    struct expiry *x = &w->expiry;
    int64_t percent = BASE_PERCENT + EFFORT_PERCENT * (config_num(w->node->config, CFG_ACTIVE_EXPIRE_EFFORT) - 1);
    if (x->db == 0 && x->slot == 0) x->slot = (unsigned)w->id;
    x->budget_us = every_ms * 1000 * percent / 100;
    if (!x->posted) run_slice(w);
}
