#include "server/topkeys.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/random.h"

#include <stdlib.h>

enum { HOT_KEPT = 64, BIG_KEPT = 16, SHOWN = 10, WINDOW_MS = 10000, BIG_MIN = 1024, SIZE_SAMPLES = 5 };
/* The size of a collection of many nodes is estimated in tens of microseconds: of the same key at most every
 * SAME_EVERY_MS, of any at most every TREE_EVERY_MS. */
enum { SAME_EVERY_MS = 1000, TREE_EVERY_MS = 10 };

/* A sampled key.  Names are kept whole: a part of one would not be the key. */
struct seen {
    uint64_t hash;
    char *name; /* owned; NULL: the place is free */
    size_t length;
    int db;
    uint64_t now, last;  /* samples in this window and the one before; of a large key: bytes, 0 */
    int64_t measured_ms; /* of a large key: when, monotonic */
};

struct topkeys {
    pthread_mutex_t mu; /* for everything below; taken under a slot's lock, a leaf */
    struct seen hot[HOT_KEPT], big[BIG_KEPT];
    int64_t window_ms;     /* monotonic: when this window began */
    int64_t tree_after_ms; /* monotonic: no collection of many nodes is measured before */
};

struct topkeys *topkeys_create(void)
{
    struct topkeys *t = mem_calloc(1, sizeof *t);
    pthread_mutex_init(&t->mu, NULL);
    t->window_ms = clock_mono_ms();
    return t;
}

/* ---- sampling ---- */

static bool is_key(const struct seen *s, int db, const struct key *k)
{
    return s->name && s->hash == k->hash && s->db == db && s->length == k->name.n &&
           memcmp(s->name, k->name.p, k->name.n) == 0;
}

/* The key's place, or the one that counts least, which the key then takes over; NULL: it is not heavy enough. */
static struct seen *place_of(struct seen *places, size_t n, int db, const struct key *k, uint64_t at_least)
{
    struct seen *least = &places[0];
    for (size_t i = 0; i < n; i++) {
        if (is_key(&places[i], db, k)) return &places[i];
        if (places[i].now + places[i].last < least->now + least->last) least = &places[i];
    }
    if (least->now + least->last > at_least) return NULL;
    mem_free(least->name);
    least->name = mem_alloc(k->name.n + 1);
    memcpy(least->name, k->name.p, k->name.n);
    least->length = k->name.n;
    least->hash = k->hash;
    least->db = db;
    return least;
}

/* Whoever comes after a pause begins with empty windows. */
static void turn_windows(struct topkeys *t, int64_t now_ms)
{
    if (now_ms - t->window_ms < WINDOW_MS) return;
    bool missed = now_ms - t->window_ms >= 2 * WINDOW_MS;
    for (size_t i = 0; i < HOT_KEPT; i++) {
        t->hot[i].last = missed ? 0 : t->hot[i].now;
        t->hot[i].now = 0;
    }
    t->window_ms = now_ms;
}

static bool wants_size(struct topkeys *t, int db, const struct key *k, const struct entry *e, int64_t now_ms)
{
    if (entry_free_effort(e) == 1) return true; /* one look at the allocator */
    if (now_ms < t->tree_after_ms) return false;
    for (size_t i = 0; i < BIG_KEPT; i++)
        if (is_key(&t->big[i], db, k) && now_ms - t->big[i].measured_ms < SAME_EVERY_MS) return false;
    t->tree_after_ms = now_ms + TREE_EVERY_MS;
    return true;
}

static void note_size(struct topkeys *t, int db, const struct key *k, const struct entry *e, int64_t now_ms)
{
    uint64_t bytes = entry_memory(e, SIZE_SAMPLES);
    struct seen *big = bytes < BIG_MIN ? NULL : place_of(t->big, BIG_KEPT, db, k, bytes);
    if (!big) return;
    big->now = bytes;
    big->measured_ms = now_ms;
}

static void take_sample(struct worker *w, const struct call *call)
{
    struct topkeys *t = w->topkeys;
    int db = call->db;
    const struct key *k = &call->keys[random_below(&w->rng, call->key_count)];
    const struct entry *e = store_find(w->node->store, db, k);
    if (!e) return; /* deleted, or not there at all */
    pthread_mutex_lock(&t->mu);
    turn_windows(t, w->now_mono_ms);
    place_of(t->hot, HOT_KEPT, db, k, UINT64_MAX)->now++;
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

static int heavier_first(const void *a, const void *b)
{
    uint64_t x = ((const struct seen *)a)->now, y = ((const struct seen *)b)->now;
    return x < y ? 1 : x > y ? -1 : 0;
}

static void append_name(struct buf *b, const struct seen *s)
{
    buf_append_char(b, '"');
    for (size_t i = 0; i < s->length; i++) {
        unsigned char ch = (unsigned char)s->name[i];
        if (ch == '"' || ch == '\\')
            buf_printf(b, "\\%c", ch);
        else if (ch < ' ' || ch >= 0x7f)
            buf_printf(b, "\\x%02x", ch);
        else
            buf_append_char(b, (char)ch);
    }
    buf_append_char(b, '"');
}

static void merge(struct seen *all, size_t *n, const struct seen *s, bool add)
{
    struct key k = {bytes_make(s->name, s->length), s->hash, 0};
    for (size_t i = 0; i < *n; i++) {
        if (!is_key(&all[i], s->db, &k)) continue;
        all[i].now = add ? all[i].now + s->now : s->now > all[i].now ? s->now : all[i].now;
        return;
    }
    all[*n] = *s;
    all[*n].name = memcpy(mem_alloc(s->length + 1), s->name, s->length);
    ++*n;
}

static void forget(struct seen *all, size_t n)
{
    for (size_t i = 0; i < n; i++) mem_free(all[i].name);
    mem_free(all);
}

void topkeys_info_hot(struct node *n, struct buf *b)
{
    struct seen *all = mem_calloc((size_t)n->worker_count * HOT_KEPT, sizeof *all);
    size_t count = 0;
    for (int i = 0; i < n->worker_count; i++) {
        struct topkeys *t = n->workers[i]->topkeys;
        pthread_mutex_lock(&t->mu);
        int64_t now_ms = clock_mono_ms();
        turn_windows(t, now_ms);
        bool both = false;
        for (size_t k = 0; k < HOT_KEPT; k++) both |= t->hot[k].last > 0;
        double seconds = (double)(now_ms - t->window_ms + (both ? WINDOW_MS : 0)) / 1000;
        for (size_t k = 0; k < HOT_KEPT; k++) {
            struct seen s = t->hot[k];
            if (!s.name || s.now + s.last < 2) continue; /* once is chance */
            s.now = (uint64_t)((double)(s.now + s.last) * (double)config_num(n->config, CFG_KEY_SAMPLING) /
                               (seconds > 1 ? seconds : 1));
            merge(all, &count, &s, true);
        }
        pthread_mutex_unlock(&t->mu);
    }
    qsort(all, count, sizeof *all, heavier_first);
    for (size_t i = 0; i < count && i < SHOWN; i++) {
        buf_printf(b, "hotkey_%zu:ops_per_sec=%llu,db=%d,key=", i, (unsigned long long)all[i].now, all[i].db);
        append_name(b, &all[i]);
        buf_append_cstr(b, "\r\n");
    }
    forget(all, count);
}

/* What was large when it was last seen may be gone or small now.  A slot that is busy, perhaps by the very transaction
 * that asks, is not waited for. */
static void look_again(struct node *n, struct seen *s)
{
    struct key k = key_of(bytes_make(s->name, s->length));
    if (!slot_try_lock(n->store, k.slot)) return;
    const struct entry *e = store_find(n->store, s->db, &k);
    s->now = e ? entry_memory(e, SIZE_SAMPLES) : 0;
    slot_unlock(n->store, k.slot);
}

void topkeys_info_big(struct node *n, struct buf *b)
{
    struct seen *all = mem_calloc((size_t)n->worker_count * BIG_KEPT, sizeof *all);
    size_t count = 0, shown = 0;
    for (int i = 0; i < n->worker_count; i++) {
        struct topkeys *t = n->workers[i]->topkeys;
        pthread_mutex_lock(&t->mu);
        for (size_t k = 0; k < BIG_KEPT; k++)
            if (t->big[k].name) merge(all, &count, &t->big[k], false);
        pthread_mutex_unlock(&t->mu);
    }
    for (size_t i = 0; i < count; i++) look_again(n, &all[i]);
    qsort(all, count, sizeof *all, heavier_first);
    for (size_t i = 0; i < count && shown < SHOWN && all[i].now >= BIG_MIN; i++) {
        buf_printf(b, "bigkey_%zu:bytes=%llu,db=%d,key=", shown++, (unsigned long long)all[i].now, all[i].db);
        append_name(b, &all[i]);
        buf_append_cstr(b, "\r\n");
    }
    forget(all, count);
}
