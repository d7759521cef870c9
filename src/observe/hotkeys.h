/* hotkeys.h: which keys weigh most, by samples: the Space-Saving algorithm (Metwally, Agrawal, El Abbadi, "Efficient
 * Computation of Frequent and Top-k Elements in Data Streams", 2005), and the most used keys of the last ten to twenty
 * seconds by it.
 * Threads: one thread notes, any other looks; each struct hotkeys has its own lock, a leaf. */
#ifndef COVEY_OBSERVE_HOTKEYS_H
#define COVEY_OBSERVE_HOTKEYS_H

#include "base/bytes.h"

/* ---- places: no lock ---- */

/* A sampled key.  Names are kept whole: a part of one would not be the key. */
struct heavy_key {
    uint64_t hash;
    char *name; /* owned; NULL: the place is free */
    size_t length;
    int db;
    uint64_t now, last; /* weight in this window and the one before */
    int64_t at_ms;      /* of the caller */
};

bool heavy_is(const struct heavy_key *k, int db, struct bytes name, uint64_t hash);
/* The key's place, or that of the key that weighs least, which this one then takes over; NULL: that one weighs more
 * than at_least. */
struct heavy_key *heavy_place(struct heavy_key *places, size_t n, int db, struct bytes name, uint64_t hash,
                              uint64_t at_least);
/* Puts a copy of k into all[*n], or adds its weight to the same key there (add; else the greater weight is taken). */
void heavy_merge(struct heavy_key *all, size_t *n, const struct heavy_key *k, bool add);
void heavy_sort(struct heavy_key *all, size_t n);   /* by `now`, the heaviest first */
void heavy_forget(struct heavy_key *all, size_t n); /* frees the names and the array */
/* The name in quotes; what is not printable as \xNN. */
void heavy_append_name(struct buf *b, const struct heavy_key *k);

/* ---- the most used ---- */

enum { HOT_KEPT = 64, HOT_SHOWN = 10 };

struct hotkeys;

struct hotkeys *hotkeys_create(int64_t now_ms); /* monotonic, here and below */
void hotkeys_destroy(struct hotkeys *h);
void hotkeys_note(struct hotkeys *h, int db, struct bytes name, uint64_t hash, int64_t now_ms);
/* What the h[0..n) have seen together, the most used first, `now` being uses a second when every `every`-th use was
 * noted: at most n * HOT_KEPT keys; heavy_forget() is the caller's. */
struct heavy_key *hotkeys_collect(struct hotkeys *const *h, size_t n, uint64_t every, int64_t now_ms, size_t *count);
/* "hotkey_0:ops_per_sec=12,db=0,key="name"" and so on, HOT_SHOWN lines at most. */
void hotkeys_write(struct hotkeys *const *h, size_t n, uint64_t every, int64_t now_ms, struct buf *b);

#endif
