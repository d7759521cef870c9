/* blocking_registry.h: who sleeps at which key; for blocking*.c only. */
#ifndef COVEY_SERVER_BLOCKING_REGISTRY_H
#define COVEY_SERVER_BLOCKING_REGISTRY_H

#include "server/conn.h"

enum { BLOCKING_STRIPES = 256 };
/* A key holds one type at a time, so those who wait for another one are not even looked at. */
enum { QUEUE_LIST, QUEUE_ZSET, QUEUE_STREAM, QUEUES };

enum blocked_state {
    BLOCKED_SLEEPING,
    BLOCKED_CLAIMED, /* its command is being run again; nobody else takes it out of the registry */
    BLOCKED_OVER,    /* nobody may claim it any more */
};

/* One key that somebody sleeps at; under its stripe's mutex. */
struct blocked_key {
    struct blocked_key *next; /* in the chain */
    struct list queue[QUEUES];
    struct list ready_link; /* in waker.ready */
    bool ready;
    unsigned sleepers, gone_sleepers; /* in the queues; those of them with CALL_WAIT_ALSO_GONE */
    unsigned pins;                    /* others that hold a pointer: it is not freed */
    int db;
    struct key key; /* owns its name */
};

/* One client at one key. */
struct blocked_at {
    struct list link; /* in the queue */
    struct blocked_key *key;
    struct blocked *who;
    uint32_t arg; /* the key is argv[arg] */
};

struct blocked {
    _Atomic int state; /* enum blocked_state */
    _Atomic int refs;  /* the connection; the registry, and then the mail */
    struct conn *conn; /* touched by its worker only */
    struct conn_ref ref;
    const struct command *cmd;
    struct bytes *argv;
    size_t argc, argv_bytes;
    enum value_type type;
    unsigned flags; /* CALL_WAIT_... */
    int db;
    uint8_t resp;
    bool muted; /* CLIENT REPLY OFF or SKIP */
    int64_t deadline_ms;
    size_t heap_index;      /* + 1; 0: not in the heap */
    int extra;              /* the slot of a key that is not waited for, or -1 */
    struct list extra_link; /* in the stripe of the key waited for */

    /* Written by who claimed it, read by its worker after the mail. */
    struct buf reply;
    uint64_t write_offset; /* 0: it wrote nothing */
    uint64_t seen_offset;  /* what it has read is before it; 0: nothing that matters */
    bool close;

    size_t n;
    struct blocked_at at[];
};

struct blocking_stripe {
    pthread_mutex_t mu; /* order: after the slots; nothing is taken under it but slots, by trying */
    struct blocked_key **chains;
    size_t chain_count, key_count;
    struct list extras; /* blocked.extra_link, first come first served */
};

struct blocking {
    struct blocking_stripe stripe[BLOCKING_STRIPES];
    _Atomic int clients; /* asleep */
    _Atomic int places;  /* blocked_at in the registry; 0 spares the look-up */
    _Atomic int extras;  /* clients with an extra slot */
    _Atomic int at_slot[STORE_LOCKS];
};

static inline struct blocking_stripe *blocking_stripe_of(struct blocking *r, unsigned slot)
{
    return &r->stripe[slot % BLOCKING_STRIPES];
}
static inline void blocking_lock(struct blocking *r, unsigned slot)
{
    pthread_mutex_lock(&blocking_stripe_of(r, slot)->mu);
}
static inline void blocking_unlock(struct blocking *r, unsigned slot)
{
    pthread_mutex_unlock(&blocking_stripe_of(r, slot)->mu);
}
/* -1: nobody sleeps for that type. */
int blocking_queue_of(enum value_type type);

/* Under the stripe's mutex. */
struct blocked_key *blocking_find(struct blocking *r, int db, const struct key *k);
void blocking_unpin(struct blocking *r, struct blocked_key *bk); /* frees it when nobody needs it */

/* Enters b at argv[first .. first + n); under the slots' locks. */
void blocking_enter(struct blocking *r, struct blocked *b, uint32_t first, uint32_t n);
/* Takes b, claimed or over, out of the registry; without any stripe. */
void blocking_leave(struct blocking *r, struct blocked *b);
bool blocked_take(struct blocked *b, enum blocked_state to); /* from BLOCKED_SLEEPING; false: somebody else has it */
void blocked_release(struct blocked *b);
/* Ends the sleep of b, which is over and left the registry: mails it to its worker.  Takes the registry's reference. */
void blocked_wake_by_mail(struct blocked *b);
/* A key has to be served again, by a worker, as soon as its slot can be had; takes one pin of bk. */
void blocking_retry(struct node *n, struct blocked_key *bk);
void blocking_run_retries(struct worker *w);
/* The worker's timer has something to do at that time (monotonic ms), or before. */
void sleepers_due(struct worker *w, int64_t at_ms);

#endif
