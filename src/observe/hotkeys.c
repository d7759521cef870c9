#include "observe/hotkeys.h"

#include "base/mem.h"

#include <pthread.h>
#include <stdlib.h>

enum { WINDOW_MS = 10000 };

/* ---- places ---- */

bool heavy_is(const struct heavy_key *k, int db, struct bytes name, uint64_t hash)
{
    return k->name && k->hash == hash && k->db == db && k->length == name.n && memcmp(k->name, name.p, name.n) == 0;
}

struct heavy_key *heavy_place(struct heavy_key *places, size_t n, int db, struct bytes name, uint64_t hash,
                              uint64_t at_least)
{
    struct heavy_key *least = &places[0];
    for (size_t i = 0; i < n; i++) {
        if (heavy_is(&places[i], db, name, hash)) return &places[i];
        if (places[i].now + places[i].last < least->now + least->last) least = &places[i];
    }
    if (least->now + least->last > at_least) return NULL;
    mem_free(least->name);
    least->name = bytes_dup_cstr(name);
    least->length = name.n;
    least->hash = hash;
    least->db = db;
    return least;
}

void heavy_merge(struct heavy_key *all, size_t *n, const struct heavy_key *k, bool add)
{
    struct bytes name = bytes_make(k->name, k->length);
    for (size_t i = 0; i < *n; i++) {
        if (!heavy_is(&all[i], k->db, name, k->hash)) continue;
        all[i].now = add ? all[i].now + k->now : k->now > all[i].now ? k->now : all[i].now;
        return;
    }
    all[*n] = *k;
    all[*n].name = bytes_dup_cstr(name);
    ++*n;
}

static int heavier_first(const void *a, const void *b)
{
    uint64_t x = ((const struct heavy_key *)a)->now, y = ((const struct heavy_key *)b)->now;
    return x < y ? 1 : x > y ? -1 : 0;
}

void heavy_sort(struct heavy_key *all, size_t n)
{
    qsort(all, n, sizeof *all, heavier_first);
}

void heavy_forget(struct heavy_key *all, size_t n)
{
    for (size_t i = 0; i < n; i++) mem_free(all[i].name);
    mem_free(all);
}

void heavy_append_name(struct buf *b, const struct heavy_key *k)
{
    buf_append_char(b, '"');
    for (size_t i = 0; i < k->length; i++) {
        unsigned char ch = (unsigned char)k->name[i];
        if (ch == '"' || ch == '\\')
            buf_printf(b, "\\%c", ch);
        else if (ch < ' ' || ch >= 0x7f)
            buf_printf(b, "\\x%02x", ch);
        else
            buf_append_char(b, (char)ch);
    }
    buf_append_char(b, '"');
}

/* ---- the most used ---- */

struct hotkeys {
    pthread_mutex_t mu; /* for what follows */
    struct heavy_key at[HOT_KEPT];
    int64_t window_ms; /* when this window began */
};

struct hotkeys *hotkeys_create(int64_t now_ms)
{
    struct hotkeys *h = mem_calloc(1, sizeof *h);
    pthread_mutex_init(&h->mu, NULL);
    h->window_ms = now_ms;
    return h;
}

void hotkeys_destroy(struct hotkeys *h)
{
    if (!h) return;
    for (size_t i = 0; i < HOT_KEPT; i++) mem_free(h->at[i].name);
    pthread_mutex_destroy(&h->mu);
    mem_free(h);
}

/* Whoever comes after a pause begins with empty windows. */
static void turn_windows(struct hotkeys *h, int64_t now_ms)
{
    if (now_ms - h->window_ms < WINDOW_MS) return;
    bool missed = now_ms - h->window_ms >= 2 * WINDOW_MS;
    for (size_t i = 0; i < HOT_KEPT; i++) {
        h->at[i].last = missed ? 0 : h->at[i].now;
        h->at[i].now = 0;
    }
    h->window_ms = now_ms;
}

void hotkeys_note(struct hotkeys *h, int db, struct bytes name, uint64_t hash, int64_t now_ms)
{
    pthread_mutex_lock(&h->mu);
    turn_windows(h, now_ms);
    heavy_place(h->at, HOT_KEPT, db, name, hash, UINT64_MAX)->now++;
    pthread_mutex_unlock(&h->mu);
}

static void collect(struct hotkeys *h, uint64_t every, int64_t now_ms, struct heavy_key *all, size_t *count)
{
    bool both = false;
    pthread_mutex_lock(&h->mu);
    turn_windows(h, now_ms);
    for (size_t k = 0; k < HOT_KEPT; k++) both |= h->at[k].last > 0;
    double seconds = (double)(now_ms - h->window_ms + (both ? WINDOW_MS : 0)) / 1000;
    for (size_t k = 0; k < HOT_KEPT; k++) {
        struct heavy_key s = h->at[k];
        if (!s.name || s.now + s.last < 2) continue; /* once is chance */
        s.now = (uint64_t)((double)(s.now + s.last) * (double)every / (seconds > 1 ? seconds : 1));
        heavy_merge(all, count, &s, true);
    }
    pthread_mutex_unlock(&h->mu);
}

struct heavy_key *hotkeys_collect(struct hotkeys *const *h, size_t n, uint64_t every, int64_t now_ms, size_t *count)
{
    struct heavy_key *all = mem_calloc(n * HOT_KEPT + 1, sizeof *all);
    *count = 0;
    for (size_t i = 0; i < n; i++) collect(h[i], every, now_ms, all, count);
    heavy_sort(all, *count);
    return all;
}

void hotkeys_write(struct hotkeys *const *h, size_t n, uint64_t every, int64_t now_ms, struct buf *b)
{
    size_t count;
    struct heavy_key *all = hotkeys_collect(h, n, every, now_ms, &count);
    for (size_t i = 0; i < count && i < HOT_SHOWN; i++) {
        buf_printf(b, "hotkey_%zu:ops_per_sec=%llu,db=%d,key=", i, (unsigned long long)all[i].now, all[i].db);
        heavy_append_name(b, &all[i]);
        buf_append_cstr(b, "\r\n");
    }
    heavy_forget(all, count);
}
