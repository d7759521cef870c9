/* memory.c: maxmemory: what it is compared with, and eviction. */
#include "server/memory.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cluster/cluster.h"
#include "server/crew.h"
#include "server/last_writes.h"
#include "server/latency.h"
#include "server/replication.h"
#include "store/evict.h"

enum {
    KEYS_BETWEEN_LOOKS = 16, /* at clock and memory, as redis-server does */
    LATER_MAX = 4,           /* looks in vain in one slice */
    CALM_MIN = 16 * 1024,
    PENDING_SHARE = 8, /* at most this part of maxmemory may be on its way back without counting */
};

/* ---- what counts ---- */

size_t memory_replica_buffers(const struct node *n)
{
    size_t bytes = change_log_bytes(n->log), backlog = (size_t)config_num(n->config, CFG_REPL_BACKLOG_SIZE);
    return bytes > backlog ? bytes - backlog : 0;
}

size_t memory_not_counted(const struct node *n)
{
    size_t buffers = memory_replica_buffers(n);
    return (buffers > change_log_slack() ? buffers - change_log_slack() : 0) + store_retained_bytes(n->store);
}

size_t memory_counted(const struct node *n)
{
    size_t used = mem_used(), out = memory_not_counted(n), pending = reaper_pending_bytes(n->reaper);
    size_t pending_max = (size_t)config_num(n->config, CFG_MAXMEMORY) / PENDING_SHARE;
    out += pending < pending_max ? pending : pending_max;
    return used > out ? used - out : 0;
}

/* Bytes above maxmemory.  Notes how far the thread may go on without asking again, where that is far: adding up is
 * cheap, but it reads a cache line of every thread. */
static size_t excess(struct worker *w, size_t limit)
{
    size_t counted = memory_counted(w->node);
    w->memory_calm_for = 0;
    if (counted >= limit) return counted - limit;
    size_t share = (limit - counted) / (2 * (size_t)mem_threads());
    if (share > CALM_MIN) {
        w->memory_calm = mem_used_here() + (int64_t)share;
        w->memory_calm_for = (int64_t)limit;
    }
    return 0;
}

/* ---- the time spent above maxmemory ---- */

static void note_over(struct node *n)
{
    int64_t never = 0;
    if (atomic_load_explicit(&n->stats.over_maxmemory_since_us, memory_order_relaxed) == 0)
        atomic_compare_exchange_strong(&n->stats.over_maxmemory_since_us, &never, clock_mono_us());
}

static void note_below(struct node *n)
{
    if (atomic_load_explicit(&n->stats.over_maxmemory_since_us, memory_order_relaxed) == 0) return;
    int64_t since = atomic_exchange(&n->stats.over_maxmemory_since_us, 0);
    if (since) atomic_fetch_add(&n->stats.over_maxmemory_us, (uint64_t)(clock_mono_us() - since));
}

/* ---- eviction ---- */

static bool policy_of(const struct node *n, struct evict_policy *p)
{
    static const struct {
        bool any;
        enum evict_by by;
        bool volatile_only;
    } kinds[] = {
        [MAXMEMORY_VOLATILE_LRU] = {true, EVICT_BY_LRU, true},
        [MAXMEMORY_VOLATILE_LFU] = {true, EVICT_BY_LFU, true},
        [MAXMEMORY_VOLATILE_RANDOM] = {true, EVICT_BY_CHANCE, true},
        [MAXMEMORY_VOLATILE_TTL] = {true, EVICT_BY_TTL, true},
        [MAXMEMORY_ALLKEYS_LRU] = {true, EVICT_BY_LRU, false},
        [MAXMEMORY_ALLKEYS_LFU] = {true, EVICT_BY_LFU, false},
        [MAXMEMORY_ALLKEYS_RANDOM] = {true, EVICT_BY_CHANCE, false},
        [MAXMEMORY_NOEVICTION] = {false, EVICT_BY_LRU, false},
    };
    int64_t policy = config_num(n->config, CFG_MAXMEMORY_POLICY);
    p->by = kinds[policy].by;
    p->volatile_only = kinds[policy].volatile_only;
    p->samples = (unsigned)config_num(n->config, CFG_MAXMEMORY_SAMPLES);
    p->lfu.log_factor = (uint32_t)config_num(n->config, CFG_LFU_LOG_FACTOR);
    p->lfu.decay_minutes = (uint32_t)config_num(n->config, CFG_LFU_DECAY_TIME);
    return kinds[policy].any;
}

struct eviction {
    struct worker *worker;
    size_t pending; /* bytes handed to the reaper */
};

static void evict_key(void *ctx, int db, const struct key *k, struct entry *e)
{
    struct eviction *ev = ctx;
    struct worker *w = ev->worker;
    struct node *n = w->node;
    if (entry_free_effort(e) > LAZYFREE_THRESHOLD) ev->pending += entry_memory(e, 5);
    w->effects.n = 0;
    struct call call = {.env = &w->env,
                        .db = db,
                        .now_ms = w->now_ms,
                        .effects = &w->effects,
                        .effects_wanted = change_log_active(n->log) && !data_node_is_replica(n)};
    /* The effect goes first: the name may be the entry's. */
    call_effect_delete(&call, k->name, config_bool(n->config, CFG_LAZYFREE_LAZY_EVICTION));
    w->env.changed(w->env.ctx, db, k, NOTIFY_EVICTED, "evicted");
    store_delete(n->store, db, k);
    if (call.effect_count) last_writes_note(n, k->slot, change_append(n->log, db, buf_bytes(&w->effects), 1, db));
    atomic_fetch_add_explicit(&n->stats.evicted_keys, 1, memory_order_relaxed);
}

/* 500 us by default; up to 10 linear, then 15% more with each step; 100: as long as it takes. */
static int64_t time_limit_us(const struct node *n)
{
    int64_t tenacity = config_num(n->config, CFG_MAXMEMORY_EVICTION_TENACITY);
    if (tenacity >= 100) return INT64_MAX;
    if (tenacity <= 10) return 50 * tenacity;
    double us = 500;
    while (tenacity-- > 10) us *= 1.15;
    return (int64_t)us;
}

static enum memory_room evict(struct worker *w, size_t limit, size_t over)
{
    struct evict_policy policy = {.now_ms = w->now_ms};
    struct eviction ev = {.worker = w};
    if (!policy_of(w->node, &policy)) return ROOM_NONE;
    int64_t start_us = clock_mono_us(), limit_us = time_limit_us(w->node), here = mem_used_here();
    int later = 0;
    for (unsigned keys = 1;; keys++) {
        enum evict_result result = evict_one(w->evictor, &policy, evict_key, &ev);
        if (result == EVICT_NOTHING) return ROOM_NONE;
        bool in_vain = result == EVICT_LATER && ++later >= LATER_MAX;
        /* What others free meanwhile is seen every now and then; what they add is theirs to make room for. */
        bool enough = here - mem_used_here() + (int64_t)ev.pending >= (int64_t)over;
        if (enough) return ROOM_THERE;
        if (!in_vain && keys % KEYS_BETWEEN_LOOKS) continue;
        if (excess(w, limit) == 0) return ROOM_THERE;
        if (in_vain || clock_mono_us() - start_us > limit_us) return ROOM_COMING;
    }
}

static void eviction_goes_on(struct mail *m)
{
    struct worker *w = container_of(m, struct worker, eviction);
    w->eviction_posted = false;
    memory_make_room(w);
}

void memory_evict_soon(struct worker *w)
{
    if (w->eviction_posted) return;
    w->eviction_posted = true;
    w->eviction = (struct mail){NULL, eviction_goes_on};
    loop_post(w->loop, &w->eviction);
}

/* Nothing is evicted where the keys are somebody else's to delete, or the dataset has to stand still. */
static bool may_evict(struct worker *w)
{
    struct node *n = w->node;
    if (atomic_load_explicit(&n->loading, memory_order_relaxed)) return false;
    if (data_node_is_replica(n) && config_bool(n->config, CFG_REPLICA_IGNORE_MAXMEMORY)) return false;
    return node_paused(n, w->now_mono_ms) == PAUSE_NONE;
}

enum memory_room memory_make_room(struct worker *w)
{
    struct node *n = w->node;
    size_t limit = (size_t)config_num(n->config, CFG_MAXMEMORY), over = 0;
    w->out_of_memory = false;
    if (w->memory_calm_for == (int64_t)limit && limit && mem_used_here() < w->memory_calm) return ROOM_THERE;
    if (limit && may_evict(w)) over = excess(w, limit);
    if (over == 0) {
        note_below(n);
        return ROOM_THERE;
    }
    /* Tables that a flush took away are more than enough, usually, and it is not known how much. */
    int64_t start_us = clock_mono_us();
    enum memory_room room = reaper_has_tables(n->reaper) ? ROOM_COMING : evict(w, limit, over);
    latency_note(n, "eviction-cycle", (uint64_t)(clock_mono_us() - start_us));
    if (room == ROOM_COMING) memory_evict_soon(w);
    w->out_of_memory = room == ROOM_NONE;
    if (room == ROOM_THERE)
        note_below(n);
    else
        note_over(n);
    return room;
}

/* ---- giving memory back ---- */

enum {
    FALL_MIN = 4 << 20,
    FALL_PART = 128,   /* of memory in use, from one tick to the next */
    DECLINE_PART = 32, /* the same in any time */
    STEADY_TICKS = 10, /* of these the last are what the threads have to give back the rest */
    LAST_TICKS = 3,
};

/* Members of the crew that stand by, and the link to the primary (which has filled a replica's memory and sleeps once
 * that is promoted), have no ticks. */
static void wake_sleepers(struct node *n, bool all)
{
    crew_trim(atomic_load(&n->crew));
    replication_trim(n->replication, all);
}

static bool has_fallen(size_t used, size_t from, unsigned part)
{
    return used + FALL_MIN < from && used + from / part < from;
}

void memory_watch(struct node *n)
{
    size_t used = mem_used();
    bool fallen = has_fallen(used, n->used_before, FALL_PART) || has_fallen(used, n->used_high, DECLINE_PART);
    if (fallen || used > n->used_high) n->used_high = used;
    n->used_before = used;
    if (fallen) {
        if (n->steady_ticks == 0) mem_return_at_once(true);
        n->steady_ticks = STEADY_TICKS;
    } else if (n->steady_ticks && --n->steady_ticks == 0) {
        mem_return_at_once(false);
        reaper_collect(n->reaper); /* what belongs to no thread any more: that can take long */
    }
    /* The last of many keys, too few for a fall, may have kept most of the pages. */
    if (fallen || n->steady_ticks == LAST_TICKS) {
        atomic_fetch_add(&n->memory_falls, 1);
        wake_sleepers(n, false);
    }
}

static struct memory_trim wanted(const struct node *n)
{
    return (struct memory_trim){atomic_load_explicit(&n->memory_falls, memory_order_relaxed),
                                atomic_load_explicit(&n->memory_purges, memory_order_relaxed)};
}

bool memory_trim_due(const struct node *n, const struct memory_trim *t)
{
    struct memory_trim w = wanted(n);
    return w.falls != t->falls || w.purges != t->purges;
}

void memory_trim(const struct node *n, struct memory_trim *t)
{
    struct memory_trim w = wanted(n);
    if (w.falls != t->falls || w.purges != t->purges) mem_collect(w.purges != t->purges);
    *t = w;
}

void memory_purge(struct node *n)
{
    atomic_fetch_add(&n->memory_purges, 1);
    node_wake_workers(n); /* threads that sleep in their loops */
    wake_sleepers(n, true);
    reaper_collect(n->reaper);
}

/* ---- the view ---- */

static double ratio(double a, double b)
{
    return b > 0 ? a / b : 0;
}

static double percent(double a, double b)
{
    return ratio(a, b) * 100;
}

static void fragmentation(struct memory_view *v)
{
    /* Committed pages that were never touched are no memory. */
    size_t active = v->committed && v->committed < v->rss ? v->committed : v->rss;
    if (active < v->used) active = v->used;
    v->committed = active;
    v->frag = ratio((double)v->rss, (double)v->used);
    v->frag_bytes = (int64_t)v->rss - (int64_t)v->used;
    v->allocator_frag = ratio((double)active, (double)v->used);
    v->allocator_frag_bytes = (int64_t)active - (int64_t)v->used;
    v->allocator_rss = ratio((double)v->rss, (double)active);
    v->allocator_rss_bytes = (int64_t)v->rss - (int64_t)active;
    v->rss_overhead = ratio((double)v->rss, (double)v->rss);
    v->rss_overhead_bytes = 0;
}

void memory_view_get(struct node *n, struct memory_view *out)
{
    struct change_window w;
    change_window_get(n->log, &w);
    *out = (struct memory_view){.used = mem_used(),
                                .peak = mem_used_peak(),
                                .startup = n->startup_memory,
                                .rss = mem_rss(),
                                .committed = mem_committed(),
                                .backlog = w.active ? (size_t)w.length : 0,
                                .replica_buffers = memory_replica_buffers(n),
                                .clients = memory_of_clients(n),
                                .links = n->cluster ? cluster_links_memory(n->cluster) : 0,
                                .tables = store_overhead(n->store)};
    for (int db = 0; db < store_databases(n->store); db++) out->keys += store_db_count(n->store, db);
    out->overhead = out->startup + out->backlog + out->replica_buffers + out->clients + out->links + out->tables;
    out->dataset = out->used > out->overhead ? out->used - out->overhead : 0;
    size_t net = out->used > out->startup ? out->used - out->startup : 0;
    out->dataset_perc = percent((double)out->dataset, (double)net);
    out->peak_perc = percent((double)out->used, (double)out->peak);
    fragmentation(out);
}
