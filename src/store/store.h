/* store.h: the dataset: databases of 16384 slots, each slot a table of entries.  The public face of src/store/.
 *
 * Promises: a function that takes a key runs under the lock of the key's slot (slot_try_lock()) or with the whole
 * server at rest; it touches that slot only.  No operation rehashes a table whole.  While a cut is open (snapshot.h in
 * src/change), what the cut still needs is retained before it changes.
 * Does not promise: anything about time.  Expiry is compared by the caller, who passes the time in.
 *
 * Nothing here does I/O or knows a protocol. */
#ifndef COVEY_STORE_STORE_H
#define COVEY_STORE_STORE_H

#include "base/crc.h"
#include "base/hash.h"
#include "base/random.h"
#include "store/entry.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct store;

/* A key with what is derived from it once. */
struct key {
    struct bytes name;
    uint64_t hash;
    uint32_t slot;
};

static inline struct key key_of(struct bytes name)
{
    return (struct key){name, hash_bytes(name), key_slot(name)};
}

struct store_hooks {
    void *ctx;
    /* A slot that somebody waits for was unlocked; called without any lock.  May be NULL. */
    void (*slot_released)(void *ctx, unsigned slot);
    /* Takes an entry whose entry_free_effort() is above LAZYFREE_THRESHOLD, to free it elsewhere.  NULL: freed at once.
     */
    void (*dispose)(void *ctx, struct entry *e);
};

struct store *store_create(int databases, struct store_hooks hooks);
void store_destroy(struct store *s); /* no thread inside */
int store_databases(const struct store *s);

/* ---- locks ------------------------------------------------------------------------------------------------------
 * A slot's lock covers the slot in every database.  Nobody waits for one slot while holding another. */
/* A lock beside those of the slots that is taken and waited for like one and guards no keys: the script token. */
enum { STORE_TOKEN = SLOT_COUNT, STORE_LOCKS };
bool slot_try_lock(struct store *s, unsigned slot);
/* The same for about a microsecond: worth more than parking when the holder is about to be done. */
bool slot_try_lock_spinning(struct store *s, unsigned slot);
/* Marks the slot as waited for, so that its next unlock calls slot_released.  False if the lock has become free
 * meanwhile (try again). */
bool slot_mark_waited(struct store *s, unsigned slot);
void slot_unlock(struct store *s, unsigned slot);
/* For threads that hold no other slot and whose turn may wait (snapshot, expiry, KEYS): spins, then yields. */
void slot_lock(struct store *s, unsigned slot);

/* ---- keys: under the slot's lock ---------------------------------------------------------------------------------
 * Entries that are returned stay the store's and are valid until the lock is given back or the key is changed. */

/* Warm the cache for the operations below, in three steps with other keys' in between: what the slot consists of, then
 * the bucket, then the entry.  Need no lock. */
void store_prefetch_slot(const struct store *s, int db, const struct key *k);
void store_prefetch_bucket(const struct store *s, int db, const struct key *k);
void store_prefetch_entry(const struct store *s, int db, const struct key *k);
/* NULL when the key is not there.  Expired entries are found like others. */
struct entry *store_find(const struct store *s, int db, const struct key *k);
/* The same for a caller who is going to change the value in place: retained for open cuts, shared with nobody. */
struct entry *store_edit(struct store *s, int db, const struct key *k);
/* The same when e is what store_find() gave: without a second look-up, unless a cut is open. */
struct entry *store_edit_found(struct store *s, int db, const struct key *k, struct entry *e);
/* Adds e, or replaces the entry of that name.  Takes e; e's key is k's name. */
void store_put(struct store *s, int db, const struct key *k, struct entry *e);
/* False when there was none. */
bool store_delete(struct store *s, int db, const struct key *k);
/* Takes the entry out and gives it to the caller; NULL when there is none. */
struct entry *store_take(struct store *s, int db, const struct key *k);
/* Sets or removes (-1) the time of expiry; the entry may move: returns where it is now. NULL when there is no such key.
 */
struct entry *store_set_expire(struct store *s, int db, const struct key *k, int64_t expire_at_ms);

/* Visits one bucket of the slot (see table_scan()); returns the next cursor, 0 at the end. */
uint64_t store_scan_slot(const struct store *s, int db, unsigned slot, uint64_t cursor,
                         void (*visit)(void *ctx, struct entry *e), void *ctx);
size_t store_slot_count(const struct store *s, int db, unsigned slot); /* any thread */
/* Bytes of the slot's table that one of its keys bears; under the slot's lock. */
size_t store_key_share(const struct store *s, int db, unsigned slot);
/* A key of the slot, uniformly; NULL when it is empty. */
struct entry *store_random_in_slot(const struct store *s, int db, unsigned slot, struct random *r);
/* Looks at about `buckets` buckets of the slot for entries that are over at now_ms and hands them to `expired`, which
 * may delete that key and nothing else.  True when the slot may hold more of them. */
bool store_expire_slot(struct store *s, int db, unsigned slot, int64_t now_ms, unsigned buckets,
                       void (*expired)(void *ctx, const struct key *k, struct entry *e), void *ctx);
/* Cheap test for the above, any thread: false when nothing in the slot can be over yet. */
bool store_slot_may_expire(const struct store *s, int db, unsigned slot, int64_t now_ms);
/* Empties a slot; big tables are handed to open cuts and freed by the caller: gives the table or NULL. */
struct table *store_detach_slot(struct store *s, int db, unsigned slot);
void store_table_free(struct table *t); /* any thread, no lock */

/* ---- databases ----------------------------------------------------------------------------------------------------*/
size_t store_db_count(const struct store *s, int db);     /* keys; any thread, a sum of counters */
size_t store_db_ttl_count(const struct store *s, int db); /* keys with a time of expiry */
/* Exchanges two databases; with the whole server at rest. */
void store_swap(struct store *s, int a, int b);
/* Bytes of tables, without entries; any thread, approximate: overflow buckets and spare room are left out. */
size_t store_overhead(const struct store *s);
size_t store_db_overhead(const struct store *s, int db);

/* ---- cuts -----------------------------------------------------------------------------------------------------------
 * A cut is the dataset at one moment, saved while it goes on changing.  Begin with the whole server at rest; then one
 * thread calls store_cut_step() until it says OK, then store_cut_end().  At most CUTS_MAX at a time.  What writers
 * have replaced is saved first once it takes more than STRAYS_SOON, so that it does not pile up: the order of entries
 * is not that of slots or databases. */
enum { STRAYS_SOON = 4 * 1024 * 1024 };
struct cut;
/* What a step found.  The entry is valid during the call; db is the number the database had when the cut was made. */
typedef enum status cut_visit(void *ctx, int db, struct entry *e);
struct cut *store_cut_begin(struct store *s); /* NULL when CUTS_MAX are open */
/* Saves about bytes_max bytes' worth of entries.  E_AGAIN: there is more.  OK: everything was visited exactly once. The
 * visitor is called without the slot's lock for forks of large values and under it for small ones; it must not block.
 * Another status from it is returned at once; the rest is then given back by store_cut_end(). */
enum status store_cut_step(struct cut *c, size_t bytes_max, cut_visit *visit, void *ctx);
/* Lets go of everything the cut holds; may take as long as the steps that were left out. */
void store_cut_end(struct cut *c);
/* Steps run beside the gate, under slot locks.  Who has the server at rest and wants to touch tables without their
 * locks stops them for that time; must not wait for a step meanwhile, nor make one.  One at a time, at rest only.
 * store_walks_go() tells whether they were stopped. */
void store_walks_stop(struct store *s);
bool store_walks_go(struct store *s);
/* Bytes retained now, for all cuts, beyond what the dataset itself takes; any thread. */
size_t store_retained_bytes(const struct store *s);
/* Whether a cut is open; any thread, cheap. */
bool store_has_cut(const struct store *s);
/* Steps that cuts have taken so far: it stands still when none of them moves.  Any thread. */
uint64_t store_cut_steps(const struct store *s);

#endif
