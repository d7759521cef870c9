#include "server/topkeys.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/random.h"
#include "observe/hotkeys.h"

enum { BIG_KEPT = 16, SHOWN = 10, BIG_MIN = 1024, SIZE_SAMPLES = 5 };
/* The size of a collection of many nodes is estimated in tens of microseconds: of the same key at most every
 * SAME_EVERY_MS, of any at most every TREE_EVERY_MS. */
enum { SAME_EVERY_MS = 1000, TREE_EVERY_MS = 10 };

struct topkeys {
    struct hotkeys *hot;
    pthread_mutex_t mu;             /* for everything below; taken under a slot's lock, a leaf */
    struct heavy_key big[BIG_KEPT]; /* `now`: bytes, at_ms: when they were measured, monotonic */
    int64_t tree_after_ms;          /* monotonic: no collection of many nodes is measured before */
};

struct topkeys *topkeys_create(void)
{
    struct topkeys *t = mem_calloc(1, sizeof *t);
    pthread_mutex_init(&t->mu, NULL);
    t->hot = hotkeys_create(clock_mono_ms());
    return t;
}

/* ---- sampling ---- */

static bool wants_size(struct topkeys *t, int db, const struct key *k, const struct entry *e, int64_t now_ms)
{
    if (entry_free_effort(e) == 1) return true; /* one look at the allocator */
    if (now_ms < t->tree_after_ms) return false;
    for (size_t i = 0; i < BIG_KEPT; i++)
        if (heavy_is(&t->big[i], db, k->name, k->hash) && now_ms - t->big[i].at_ms < SAME_EVERY_MS) return false;
    t->tree_after_ms = now_ms + TREE_EVERY_MS;
    return true;
}

static void note_size(struct topkeys *t, int db, const struct key *k, const struct entry *e, int64_t now_ms)
{
    uint64_t bytes = entry_memory(e, SIZE_SAMPLES);
    struct heavy_key *big = bytes < BIG_MIN ? NULL : heavy_place(t->big, BIG_KEPT, db, k->name, k->hash, bytes);
    if (!big) return;
    big->now = bytes;
    big->at_ms = now_ms;
}

static void take_sample(struct worker *w, const struct call *call)
{
    struct topkeys *t = w->topkeys;
    int db = call->db;
    const struct key *k = &call->keys[random_below(&w->rng, call->key_count)];
    const struct entry *e = store_find(w->node->store, db, k);
    if (!e) return; /* deleted, or not there at all */
    hotkeys_note(t->hot, db, k->name, k->hash, w->now_mono_ms);
    pthread_mutex_lock(&t->mu);
    if (wants_size(t, db, k, e, w->now_mono_ms)) note_size(t, db, k, e, w->now_mono_ms);
    pthread_mutex_unlock(&t->mu);
}

void topkeys_sample(struct worker *w, const struct call *call)
{
    if (call->key_count == 0 || w->sample_in-- > 0) return;
    int64_t every = config_num(w->node->config, CFG_KEY_SAMPLING);
    /* Not every n-th: a client that repeats n commands would always show the same one. */
    w->sample_in = every ? (int64_t)random_below(&w->rng, (uint64_t)every * 2) : 1000;
    if (every) take_sample(w, call);
}

/* ---- INFO ---- */

void topkeys_info_hot(struct node *n, struct buf *b)
{
    struct hotkeys **all = mem_calloc((size_t)n->worker_count, sizeof *all);
    for (int i = 0; i < n->worker_count; i++) all[i] = n->workers[i]->topkeys->hot;
    hotkeys_write(all, (size_t)n->worker_count, (uint64_t)config_num(n->config, CFG_KEY_SAMPLING), clock_mono_ms(), b);
    mem_free(all);
}

/* What was large when it was last seen may be gone or small now.  A slot that is busy, perhaps by the very transaction
 * that asks, is not waited for. */
static void look_again(struct node *n, struct heavy_key *s)
{
    struct key k = key_of(bytes_make(s->name, s->length));
    if (!slot_try_lock(n->store, k.slot)) return;
    const struct entry *e = store_find(n->store, s->db, &k);
    s->now = e ? entry_memory(e, SIZE_SAMPLES) : 0;
    slot_unlock(n->store, k.slot);
}

void topkeys_info_big(struct node *n, struct buf *b)
{
    struct heavy_key *all = mem_calloc((size_t)n->worker_count * BIG_KEPT, sizeof *all);
    size_t count = 0, shown = 0;
    for (int i = 0; i < n->worker_count; i++) {
        struct topkeys *t = n->workers[i]->topkeys;
        pthread_mutex_lock(&t->mu);
        for (size_t k = 0; k < BIG_KEPT; k++)
            if (t->big[k].name) heavy_merge(all, &count, &t->big[k], false);
        pthread_mutex_unlock(&t->mu);
    }
    for (size_t i = 0; i < count; i++) look_again(n, &all[i]);
    heavy_sort(all, count);
    for (size_t i = 0; i < count && shown < SHOWN && all[i].now >= BIG_MIN; i++) {
        buf_printf(b, "bigkey_%zu:bytes=%llu,db=%d,key=", shown++, (unsigned long long)all[i].now, all[i].db);
        heavy_append_name(b, &all[i]);
        buf_append_cstr(b, "\r\n");
    }
    heavy_forget(all, count);
}
