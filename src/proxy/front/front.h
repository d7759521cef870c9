/* front.h: the side of the proxy that clients see, the same for every backend: listening and accepting, the worker
 * threads, clients' connections with their input, the queue that keeps replies in order, their output and their end.
 *
 * A backend (a cluster, static pools) says what is done with requests.  It has a part in every worker; all of it that
 * is not said to be otherwise happens on the worker's thread.  Listeners belong to the thread that runs the front's
 * loop, the main thread, which hands accepted connections to workers by mail. */
#ifndef COVEY_PROXY_FRONT_FRONT_H
#define COVEY_PROXY_FRONT_FRONT_H

#include "base/list.h"
#include "net/net.h"
#include "net/tls.h"
#include "proxy/front/config.h"
#include "proxy/front/policy.h"
#include "resp/resp.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    FRONT_QUEUE_MAX = 1024,          /* requests of one client under way, after which it is not read from */
    FRONT_READ_BUFFER = 256 * 1024,  /* of a worker, for clients that have nothing left over */
    FRONT_READ_MAX = 4 * 1024 * 1024 /* at a time */
};

struct front;
struct front_worker;
struct front_listener;
struct front_client;
struct front_part;

/* ---- backends ---- */

/* A client's place in the order of replies; the first member of what a backend keeps of a request. */
struct front_reply {
    struct front_reply *next;
    struct buf bytes;
    bool done;
};

struct front_backend {
    const char *too_many; /* what a client over a limit reads before it is closed; NULL: nothing */
    /* Memory for a client: a structure of the backend that begins with a struct front_client, all zero, which the front
     * fills in.  target: see front_listen(). */
    struct front_client *(*create)(void *target);
    void (*opened)(struct front_client *c);                 /* it has an address and an id now */
    void (*ended)(struct front_client *c, enum status why); /* E_CLOSED: it has closed; E_IO: broken; may be NULL */
    /* Its connection is closed: whatever is under way is nobody's.  Frees what it has, but not c itself. */
    void (*closed)(struct front_client *c);
    /* Takes requests from the front of the bytes until they end or the client has to wait, sets c->input_waits, and
     * returns how many bytes are done with.  c->need: how many the request that is not whole yet will take. */
    size_t (*take)(struct front_client *c, struct bytes in);
    /* Whether nothing may be taken from its input now, for reasons beyond those of front_stalled(). */
    bool (*stalled)(const struct front_client *c);
    /* Whether a client that is not read from has to be listened to, because its end matters now. */
    bool (*awaits_end)(const struct front_client *c);
    /* Whether it gets what it does not ask for one by one; may be NULL. */
    bool (*subscribed)(const struct front_client *c);
    /* Whether it has begun something that a polite end waits for, although it is owed no reply. */
    bool (*engaged)(const struct front_client *c);
    /* The reply is in the output. */
    void (*release)(struct front_client *c, struct front_reply *r);

    /* For policy.h. */
    void (*answer_error)(struct front_client *c, const char *text); /* without '-', in its turn */
    void (*logged_in)(struct front_client *c);                      /* policy.authenticated is another; may be NULL */
    bool (*is_stranger)(const struct front_client *c); /* nobody has logged in yet; NULL: front_must_log_in() tells */
    bool (*in_transaction)(const struct front_client *c); /* its requests cannot be refused one by one; may be NULL */
    void (*describe)(const struct front_client *c, struct buf *b); /* a line for ACL LOG; NULL: the front writes it */
    /* Its user has other rules.  False: it cannot stay; may be NULL. */
    bool (*has_other_rules)(struct front_client *c, const struct acl_user *now);
};

/* A backend's place in a worker. */
struct front_part {
    struct list link;
    void (*begin)(struct front_part *p);     /* a turn begins */
    void (*retry)(struct front_part *p);     /* before clients go on */
    void (*flush)(struct front_part *p);     /* what clients have asked for leaves */
    void (*configure)(struct front_part *p); /* the worker has another configuration; may be NULL */
};

/* ---- clients ---- */

struct front_client {
    struct loop_source src;
    struct front_worker *worker;
    struct front_listener *listener;
    const struct front_backend *backend;
    struct tls_session *tls;         /* NULL: plain */
    struct list link, dirty, resume; /* link: in worker.clients, or in worker.strangers */
    struct buf in, out;
    size_t out_pos;
    size_t need;
    struct front_reply *first, *last;
    unsigned queued;
    bool input_waits;       /* `in` has more than the beginning of a request */
    bool close_after_reply; /* when all is answered */
    bool close_asap;        /* when the turn ends */
    bool is_strange;        /* its PROXY header or its handshake is not over */
    bool awaits_header;
    uint64_t id;
    int64_t created_ms;         /* wall clock */
    int64_t strange_until;      /* monotonic */
    int64_t last_ms;            /* monotonic: when something came from it */
    int64_t unread_limit;       /* bytes of output above which nothing more is taken from it */
    uint64_t sent, looked_sent; /* bytes in all; the same when it was looked at last */
    int64_t soft_since_ms;      /* since when its output is over the soft limit; 0: it is not */
    char peer[NET_ADDRESS_MAX]; /* as CLIENT LIST shows it; behind a balancer the address that the header names */
    struct client_policy policy;
};

/* At the end of the turn it is written to, and closed if that is to be. */
void front_wants_write(struct front_client *c);
/* Before this turn ends, or in the next one, its input is gone on with. */
void front_wants_resume(struct front_client *c);
bool front_stalled(const struct front_client *c);
/* Puts a reply at the end of the queue. */
void front_enqueue(struct front_client *c, struct front_reply *r);
/* Replies at the front of the queue that are there go out. */
void front_drain(struct front_client *c);
/* Whether it is owed nothing and owes nothing. */
bool front_is_idle(const struct front_client *c);

/* ---- workers ---- */

struct front_stats {
    _Atomic uint64_t received, sent, clients, query_limit_closed, output_limit_closed, delayed_now, delayed_ever,
        limit_refusals;
};

struct front_worker {
    struct front *front;
    const struct proxy_config *config; /* held */
    struct loop *loop;
    int id;
    int64_t now_ms; /* of the turn */
    struct list parts;
    struct list clients, strangers, dirty, resumable;
    struct buf in;
    struct resp_request request; /* the one that is being looked at */
    struct loop_timer tick, again;
    enum front_leave { LEAVE_NOT, LEAVE_WHEN_THEY_DO, LEAVE_WHEN_IDLE } leaving;
    uint64_t next_client_id;
    unsigned handshakes;    /* steps in this turn */
    int64_t output_look_ms; /* when soft limits of outputs, and idle clients, are looked at next */
    struct front_stats stats;
    struct worker_policy policy;
    pthread_t thread;
    _Atomic bool stop;
    _Atomic int64_t given; /* clients that it has or will have */
};

/* While the worker does not run, or on its thread. */
void front_part_add(struct front_worker *w, struct front_part *p);
void front_part_remove(struct front_part *p);

/* ---- listeners; the main thread's ---- */

struct front_listener {
    struct loop_source src;
    struct list link; /* in front.listeners */
    struct front *front;
    const struct front_backend *backend;
    void **targets; /* one a worker: what its clients are created with */
    char *name;     /* "127.0.0.1:6379" or "/path": by which a hand-over knows it */
    bool is_unix, is_tls;
    _Atomic bool accept_proxy;
    int64_t limit; /* of its clients; 0: none of its own */
    _Atomic int64_t clients;
    _Atomic unsigned refs; /* clients, and the front */
};

struct front_address {
    const char *host; /* or the path of a unix socket */
    int port;         /* 0: unix socket */
    unsigned mode;    /* of a unix socket; 0: as the umask has it */
    int backlog;
    bool share_port; /* with other processes that share it, too */
    bool is_tls, accept_proxy;
};

enum { FRONT_NAME_MAX = NET_ADDRESS_MAX + 256 };

/* "HOST:PORT" or "/path". */
void front_address_name(const struct front_address *a, char out[FRONT_NAME_MAX]);
/* Opens a listening socket, or takes it from what an earlier process has handed over, and starts to accept with
 * front_listener_start().  NULL: errno says why. */
struct front_listener *front_listen(struct front *f, const struct front_backend *backend,
                                    const struct front_address *a);
/* A descriptor that listens there, for whoever accepts on it himself; -1: errno. */
int front_inherited_or_listen(struct front *f, const char *host, int port, int backlog);
/* targets: one a worker, copied; may be called again, for the clients to come. */
void front_listener_start(struct front_listener *l, void *const *targets);
/* Closes it; its clients stay. */
void front_listener_close(struct front_listener *l);

/* ---- the front ---- */

/* A listening socket and where it listens. */
struct front_socket {
    char *name;
    int fd;
};

struct front {
    struct proxy_config *config; /* held */
    struct loop *loop;
    struct front_worker **workers;
    int worker_count;
    struct list listeners;
    struct tls *tls; /* towards clients */
    struct front_policy policy;
    /* Makes other settings everybody's, on the thread of `loop`; takes c if it is true.  NULL: not possible here. */
    bool (*adopt)(void *ctx, struct proxy_config *c);
    void *adopt_ctx;
    struct front_socket *inherited, *others;
    int inherited_count, others_count;
    int64_t started_ms; /* wall clock */
    char run_id[41];
    int spare_fd; /* given up for a moment to refuse a client when descriptors are out */
    bool is_started;
    _Atomic int64_t clients;
    _Atomic uint64_t connections, rejected;
};

/* Workers are there and do not run yet.  config: held.  NULL: the users cannot be read, which was logged. */
struct front *front_create(struct loop *loop, struct proxy_config *config);
/* All that listen, names borrowed; returns how many there are, of which at most max are in out. */
int front_sockets(const struct front *f, struct front_socket *out, int max);
/* Sockets that front_listen() finds already open; takes the descriptor. */
void front_inherit(struct front *f, const char *name, int fd);
/* Starts the threads; inherited sockets that nobody has asked for are closed. */
void front_start(struct front *f);
/* New values for everybody; clients stay.  Holds config. */
void front_configure(struct front *f, struct proxy_config *config);
/* Nobody new is accepted; clients leave when they are idle, or when they like. */
void front_leave(struct front *f, enum front_leave how);
/* Ends the threads; clients are still there for their backends to forget. */
void front_stop(struct front *f);
/* Behind front_stop(): closes all clients of the worker. */
void front_close_clients(struct front_worker *w);
void front_destroy(struct front *f);

/* A counter of struct front_stats, by its offset, of all workers; any thread while they are there. */
uint64_t front_sum(const struct front *f, size_t offset);

static inline void front_count(_Atomic uint64_t *n, int64_t by)
{
    atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + (uint64_t)by, memory_order_relaxed);
}

/* ---- policy.h, for which a client and a worker have to be known ---- */

/* Adopts the newest set of users if it is not the worker's yet. */
static inline void front_refresh_users(struct front_worker *w, struct front_client *me)
{
    if (atomic_load_explicit(w->policy.newest, memory_order_acquire) != w->policy.users->version)
        front_refresh_users_slow(w, me);
}

static inline bool front_is_delayed(const struct front_client *c)
{
    return c->policy.delayed_until != 0;
}

/* Before a request of so many bytes is looked at.  False: not now; it is not taken, and front_is_delayed() is true, or
 * *refused is true, and it was answered with an error. */
static inline bool front_admit(struct front_client *c, size_t bytes, bool *refused)
{
    *refused = false;
    return (!c->policy.account->limit && !c->policy.address) || front_admit_slow(c, bytes, refused);
}

/* So many bytes went to it. */
static inline void front_charge(struct front_client *c, size_t bytes)
{
    if (c->policy.account->limit || c->policy.address) front_charge_slow(c, bytes);
}

#endif
