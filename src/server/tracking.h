/* tracking.h: what the caches of clients hold (CLIENT TRACKING); inside src/server only.
 *
 * A reader's keys are remembered under their slots' locks, in a table of stripes by slot.  Who changes a key takes its
 * entry out under the same slot's lock and mails each of its readers; a reader's worker handles mail between two
 * commands of a connection, so the invalidation always comes behind the reply that it makes stale.  With REDIRECT it
 * passes through the reader's worker, too, and goes on from there. In BCAST mode nothing is remembered: prefixes stand
 * in a list, with their members by worker; the keys that changed in one turn of a worker are told at its end, in one
 * message. */
#ifndef COVEY_SERVER_TRACKING_H
#define COVEY_SERVER_TRACKING_H

#include "server/conn.h"

enum tracking_flag {
    TRACKING_BCAST = 1 << 0,
    TRACKING_OPTIN = 1 << 1,
    TRACKING_OPTOUT = 1 << 2,
    TRACKING_NOLOOP = 1 << 3,
    TRACKING_CACHING = 1 << 4, /* CLIENT CACHING was said for the next command */
    TRACKING_BROKEN = 1 << 5,  /* the connection it redirects to is gone */
};

struct tracking;
struct tracking_worker;
/* Of a connection that tracks; NULL: it does not.  Its thread only, or with the server at rest. */
struct tracking_conn {
    unsigned flags;
    struct conn_ref redirect; /* id 0: none */
    struct list prefixes;     /* BCAST: member.own */
};

struct tracking *tracking_create(struct node *n);
struct tracking_worker *tracking_worker_create(void);

/* Begins, or changes what may be changed: replaces the flags and adds prefixes. */
void tracking_on(struct conn *c, unsigned flags, struct conn_ref redirect, const struct bytes *prefixes, size_t n);
void tracking_off(struct conn *c); /* no effect when it does not track */
/* The prefixes of a connection, in lexicographical order: the i-th, p NULL behind the last. */
struct bytes tracking_prefix(const struct conn *c, size_t i);

/* The connection has read the keys of this call, whose slots' locks are still held. */
void tracking_remember(struct conn *c, const struct call *call);
/* A key was changed; under its slot's lock.  w: the worker that runs the command, NULL: another thread. */
void tracking_key_changed(struct node *n, struct worker *w, const struct key *k);
/* All keys are gone; with the server at rest. */
void tracking_flushed(struct node *n);
/* The keys of these slots are gone (bitmap). */
void tracking_slots_gone(struct node *n, const uint8_t *slots);

/* Behind the reply of a command: what it invalidated of its own client's, and the end of CLIENT CACHING. */
void tracking_after_command(struct conn *c, const struct command *cmd);
/* At the end of a worker's turn, before output is written. */
void tracking_run(struct worker *w);
/* Once a tick of one worker: forgets keys above tracking-table-max-keys. */
void tracking_shrink(struct node *n);

struct tracking_totals {
    size_t clients, keys, items, prefixes;
};
void tracking_totals(const struct node *n, struct tracking_totals *out);

#endif
