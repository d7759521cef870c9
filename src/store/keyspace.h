/* keyspace.h: the inside of struct store, shared by keyspace.c, expire.c and cut.c; nobody else includes it. */
#ifndef COVEY_STORE_KEYSPACE_H
#define COVEY_STORE_KEYSPACE_H

#include "store/store.h"
#include "store/table.h"

#include <pthread.h>

enum { COUNTER_STRIPES = 16 };

struct db {
    struct table tables[SLOT_COUNT]; /* each under the lock of its slot */
    struct {
        _Atomic size_t keys, ttls; /* any thread, relaxed */
        char pad[48];
    } counters[COUNTER_STRIPES];
    _Atomic bool used; /* some key was put here since the start */
};

/* A table that FLUSHALL or a lost slot took away while a cut was open. */
struct detached {
    struct detached *next;
    struct table table;
    int db; /* physical */
    unsigned slot;
    unsigned pending; /* cuts that have not saved it yet, one bit each */
};

struct store {
    int databases;
    struct store_hooks hooks;
    _Atomic uint32_t locks[STORE_LOCKS]; /* the last one: STORE_TOKEN */
    /* 0 free, 1 held, 2 held and waited for */
    struct db **db;           /* by physical number; the array never changes */
    _Atomic int *db_physical; /* by the number clients use; changed only with the server at rest; counting threads may
                                 read it meanwhile */

    /* Cuts: begun with the server at rest, ended at any time. */
    struct cut *cuts[CUTS_MAX];            /* the owner of each; changed under detached_mu; who holds the slot of an
                                              entry that cut i needs may read cuts[i] */
    _Atomic unsigned cuts_open;            /* one bit each */
    _Atomic uint16_t cut_number[CUTS_MAX]; /* valid while its bit is set */
    _Atomic uint16_t cut_newest;           /* number of the cut begun last */
    _Atomic size_t retained_bytes;
    _Atomic uint64_t cut_steps;

    pthread_rwlock_t
        walk; /* order: before the slots; read by a cut's step on live tables, written by store_walks_stop() */
    bool walks_stopped; /* with the server at rest */

    pthread_mutex_t detached_mu; /* order: after the slots */
    struct detached *detached;   /* under detached_mu, tables and all */
};

static inline struct table *store_table(const struct store *s, int db, unsigned slot)
{
    assert(db >= 0 && db < s->databases && slot < SLOT_COUNT);
    return &s->db[s->db_physical[db]]->tables[slot];
}

/* A table by number, for the lists of cuts. */
static inline uint32_t store_table_id(const struct store *s, int db, unsigned slot)
{
    return (uint32_t)s->db_physical[db] * SLOT_COUNT + slot;
}

/* Before bucket `index` changes: keeps its entries for every open cut that has not saved it. */
void table_retain_bucket(struct store *s, struct table *t, uint32_t index);
/* Before the last bucket is merged away: cuts that need entries of it will not find them by their walk. */
void table_list_last(struct store *s, uint32_t table_id);

static inline void table_touch(struct store *s, struct table *t, uint32_t index)
{
    if (atomic_load_explicit(&s->cuts_open, memory_order_relaxed)) table_retain_bucket(s, t, index);
}

/* Frees an entry that was taken out of that table, or leaves it to the cuts that still need it. */
void entry_release(struct store *s, uint32_t table_id, struct entry *e);
/* The second half of it: for an entry with `retained`. */
void entry_orphan(struct store *s, uint32_t table_id, struct entry *e);
/* Frees an entry that no cut needs: at once, or through the dispose hook when that is much work. */
void entry_dispose(struct store *s, struct entry *e);

#endif
