/* blocking.h: clients that sleep until a key has something for them (BLPOP, XREAD BLOCK); inside src/server only.
 *
 * A sleeping client stands in a registry at each of its keys, first come first served over all workers.  It is served
 * by the thread that changes a key, before that unlocks the key's slot: the client's command is run again, what it
 * changes is logged right behind the change, and the reply goes to the client's worker by mail.
 *
 * One atomic word decides who ends a sleep: the thread that serves, the time-out, CLIENT UNBLOCK, a change of role or
 * the end of the connection.  Whoever takes it from SLEEPING takes the client out of the registry; the reply is made by
 * its own worker.
 *
 * Locks: the registry's stripes come after the slots; a client is added under the slots of all its keys, and removed
 * under the stripes alone. */
#ifndef COVEY_SERVER_BLOCKING_H
#define COVEY_SERVER_BLOCKING_H

#include "base/list.h"
#include "server/node.h"

struct blocking;
struct blocked; /* one sleeping client; of its connection and of who serves it, counted */

struct blocking *blocking_create(void);
/* For INFO; any thread. */
int blocking_clients(const struct node *n);
int blocking_timeouts(const struct node *n);

/* ---- threads that change keys: each worker, and the applier ---- */

enum { WAKER_EXTRA_MAX = 16 };

struct waker {
    struct node *node;
    const struct call_env *env;
    struct list ready;               /* keys with sleepers that were changed, in that order */
    unsigned extra[WAKER_EXTRA_MAX]; /* slots locked for the sake of sleepers: where BLMOVE puts things */
    unsigned extra_n;
    struct buf effects;
};

void waker_init(struct waker *w, struct node *n, const struct call_env *env);
/* A key was changed, under its slot's lock or at rest: remembers it when somebody sleeps there. */
void waker_key_changed(struct waker *w, int db, const struct key *k);
/* The same for every key of a database (-1: of all), at rest. */
void waker_flushed(struct waker *w, int db);
/* Having locked slots for a command: locks in addition what the first sleepers of these slots would need to be served.
 * False: one of them is busy, none was locked. */
MUST_USE bool waker_lock_more(struct waker *w, const unsigned *slots, size_t n, unsigned *busy);
void waker_unlock_more(struct waker *w);
/* Serves who sleeps at the changed keys; call it behind every command, when its effects are in the log, and before the
 * unlock.  slots: sorted, those that are held; at_rest: all are.  What cannot be served now because a slot is not held
 * and busy is tried again soon, by a worker; nobody overtakes it meanwhile. */
void waker_serve(struct waker *w, const unsigned *slots, size_t n, bool at_rest, int64_t now_ms);
static inline bool waker_has_work(const struct waker *w)
{
    return !list_empty(&w->ready);
}

/* ---- connections: on their worker's thread, inside the gate ---- */

/* A worker's sleeping connections. */
struct sleepers {
    struct list conns;     /* conn.waiting_link */
    struct list retries;   /* keys to serve again as soon as their slots can be had */
    struct blocked **heap; /* those with a time-out, the next one first */
    size_t heap_n, heap_cap;
    struct loop_timer timer; /* due at the next time-out or retry */
    int64_t checked_ms;      /* when the cluster was last asked for moved slots */
    _Atomic int timeouts;    /* heap_n, for INFO */
};

void sleepers_init(struct worker *w);
/* Puts the connection to sleep as call->wait says, and takes that; under the locks the call ran under. */
void blocking_begin(struct conn *c, struct call *call);
/* What its sleep takes: the arguments. */
size_t blocking_memory(const struct conn *c);
/* Forgets a connection that is about to be freed. */
void blocking_forget(struct conn *c);
/* Cluster: wakes connections whose slots are not served here any more; from the worker's tick. */
void blocking_check_slots(struct worker *w);

/* ---- with the server at rest ---- */

/* Whether it really sleeps, and has not been served with the reply still under way. */
bool blocking_asleep(const struct conn *c);
/* CLIENT UNBLOCK: false when it does not sleep. */
bool blocking_unblock(struct conn *c, bool error);
/* The node has become a replica: everybody gets an error and is disconnected. */
void blocking_end_all(struct node *n);

#endif
