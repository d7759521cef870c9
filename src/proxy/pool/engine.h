/* engine.h: what the parts of the pools share; inside src/proxy/pool only.
 *
 * A message goes from its client's input into the output of a connection to a server.  It stays in two queues: its
 * client's, which has the order of the replies, and its connection's, which has the order of the server's.
 * Every worker has pools of its own, with connections of its own; which servers are ejected is common to them.  A pool
 * belongs to one reading of the configuration.  A reload makes new pools, which take over listeners and clients; an old
 * one stays until it has neither clients nor messages under way. */
#ifndef COVEY_PROXY_POOL_ENGINE_H
#define COVEY_PROXY_POOL_ENGINE_H

#include "base/clock.h"
#include "base/list.h"
#include "base/random.h"
#include "commands/table.h"
#include "observe/calls.h"
#include "observe/errorstats.h"
#include "observe/nodes.h"
#include "pool/conf.h"
#include "pool/memcached.h"
#include "proxy/front/front.h"
#include "resp/resp.h"

enum {
    READ_BYTES = 64 * 1024,
    READ_MAX = 4 * 1024 * 1024,
    BUFFER_KEEP = 256 * 1024, /* an empty buffer larger than this is given back */
};

struct pool_worker;
struct pool;
struct server;
struct server_link;
struct pool_client;

enum { NO_COMMAND = CMD_ID_COUNT + MC_COMMAND_COUNT }; /* in the place of a command: it is none */

enum merge {
    MERGE_NONE,
    MERGE_SUM,    /* integers */
    MERGE_OK,     /* +OK of all */
    MERGE_VALUES, /* arrays, the elements at their keys' places */
    MERGE_BLOCKS, /* memcached's VALUE blocks and one END */
};

struct message {
    struct front_reply reply;   /* its place in the client's queue */
    struct message *link_next;  /* of the connection */
    struct pool_client *client; /* NULL: gone */
    struct message *parent;     /* of a part */
    struct message **parts;     /* owned */
    unsigned parts_n, parts_left;
    enum merge merge;
    uint32_t *place; /* MERGE_VALUES: of each key, which part has it */
    size_t keys_n;
    size_t size;      /* bytes of the request */
    uint64_t end;     /* where it ends in the bytes of its connection */
    int64_t due_ms;   /* 0: no limit */
    uint64_t at;      /* pool_worker.ticks when it was read */
    uint64_t sent_at; /* the same when it was sent; 0: it was not */
    unsigned command; /* as in pool_worker */
    bool redis;
};

struct server_link {
    struct loop_source src;
    struct tls_session *tls; /* NULL: plain */
    struct server *server;
    struct list dirty;
    unsigned slot; /* in server.links */
    bool connecting;
    unsigned handshake_left;
    struct buf out, in;
    size_t out_pos;
    uint64_t appended, written;
    struct resp_reply_parser resp;
    struct mc_reply_parser mc;
    struct message *first, *last;
};

struct server_stats {
    uint64_t eof, err, timedout, connections, requests, request_bytes, responses, response_bytes;
};

/* Of a server, common to all workers. */
struct server_health {
    _Atomic int failures;       /* in a row */
    _Atomic int64_t retry_ms;   /* ejected until then; 0: not ejected */
    _Atomic int64_t ejected_us; /* when it was last, wall clock */
};

struct server {
    struct pool *pool;
    const struct pool_server *conf;
    struct server_link **links;   /* pool.conf.server_connections of them; NULL: not open */
    struct server_health *health; /* of the generation */
    unsigned next_link;
    struct server_stats stats;
    struct measured_node *measured;
    struct node_counts *counts; /* this worker's */
};

struct pool_stats {
    uint64_t client_eof, client_err, client_connections, server_ejects, forward_error, fragments;
};

/* What the workers' pools of one name have in common. */
struct pool_health {
    struct server_health *servers;
    _Atomic uint64_t changes; /* a server has been ejected, or is back */
};

/* What clients have asked the pools of one name for; as long as the process. */
struct pool_measure {
    struct list link; /* in pools.measures */
    char *name;
    struct calls calls; /* by command as in pool_worker */
    struct errorstats *errors;
};

/* One reading of the file, counted by its pools. */
struct generation {
    struct pool_conf_file file;
    struct pool_health *health; /* of each pool */
    _Atomic unsigned refs;
};

struct pool {
    struct pool_worker *worker;
    struct generation *generation;
    const struct pool_conf *conf;
    struct pool_health *health;
    struct pool_measure *measure;
    struct call_counts *commands; /* of measure, this worker's */
    struct server *servers;
    struct ring ring;
    bool *live;
    size_t live_n;
    uint64_t seen_changes; /* of health that the ring follows */
    int64_t rebuild_ms;    /* when an ejected server comes back; 0: none is out */
    struct list clients;
    struct pool_stats stats;
};

struct pool_client {
    struct front_client base;
    struct pool *pool;
    struct list link; /* in pool.clients */
    struct resp_parser resp;
    struct mc_request_parser mc;
    bool authenticated;
};

/* The pools' part in a worker. */
struct pool_worker {
    struct front_part part;
    struct front_worker *front;
    struct loop *loop;   /* the front's */
    struct pool **pools; /* of the present configuration, by name */
    size_t pools_n;
    struct pool **retired; /* of earlier ones */
    size_t retired_n;
    struct list dirty_links;
    struct loop_timer tick;
    struct mc_request mc_request; /* the one that is being read */
    struct random rng;
    int64_t now_ms;
    uint64_t total_connections;
    struct node_registry *nodes; /* of struct pools */
    struct list *measures;       /* of struct pools */
    unsigned command;     /* of the request that is dealt with: an enum command_id, or behind those an mc_command; or
                             NO_COMMAND */
    uint64_t ticks;       /* when the bytes that are dealt with now were read */
    uint64_t us_per_tick; /* times 2^32 */
};

/* All of them; the main thread's. */
struct pools {
    struct front *front;
    struct pool_worker **workers;
    int worker_count;
    struct generation *generation;     /* the present one; held */
    struct front_listener **listeners; /* of its pools */
    struct loop_source stats_listener;
    int64_t started_ms;
    struct node_registry nodes;
    struct list measures; /* struct pool_measure; changed by the main thread, which alone goes through it */
};

struct generation *generation_read(const char *path); /* NULL: the log says why */
void generation_release(struct generation *g);        /* any thread */

/* ---- servers.c ---- */

/* The pool number i of the generation; any thread, until it is given to the worker.  NULL: no memory. */
struct pool *pool_create(struct pool_worker *w, struct generation *g, size_t i);
/* Closes everything; clients are gone already. */
void pool_destroy(struct pool *p);
bool pool_is_idle(const struct pool *p); /* no clients, nothing under way */
void pool_preconnect(struct pool *p);
/* The server for the key, or NULL with errno set. */
struct server *pool_server_of(struct pool *p, struct bytes key);
struct server *pool_any_server(struct pool *p);
/* Queues the bytes (borrowed).  m NULL: no reply will come.  When it cannot be sent, m is answered with an error. */
void server_send(struct server *s, struct message *m, struct bytes raw);
void pool_check_timeouts(struct pool *p);
void server_link_flush(struct server_link *l);

/* ---- messages.c ---- */

struct message *message_create(struct pool_client *c); /* at the end of its queue */
struct message *message_part(struct message *parent, unsigned i);
void message_split(struct message *m, enum merge merge, unsigned parts);
void message_reply(struct message *m, struct bytes reply); /* may free it */
void message_fail(struct message *m, int error);           /* an errno */
void message_free(struct message *m);

/* ---- clients.c ---- */

extern const struct front_backend pools_front;
/* Whether the ACL file says who the client is, and what it may do. */
bool client_has_users(const struct pool_client *c);
void client_answer(struct pool_client *c, struct bytes reply); /* of our own, in its turn */
void client_answer_text(struct pool_client *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- redis.c, memcache.c ---- */

void redis_request(struct pool_client *c, const struct resp_request *req, struct bytes raw);
void memcache_request(struct pool_client *c, const struct mc_request *req, struct bytes raw);
/* The reply of a message whose parts are all there, appended to out. */
void redis_merge(const struct message *m, struct buf *out);
void memcache_merge(const struct message *m, struct buf *out);

/* ---- worker.c ---- */

struct pool_worker *pool_worker_create(struct front_worker *front, struct node_registry *nodes, struct list *measures);
/* Gives it the pools of another configuration, which take over clients and counters of those of the same name; takes
 * the array.  Before the front is started, or any thread's. */
void pool_worker_adopt(struct pool_worker *w, struct pool **pools, size_t n, bool is_started);
void pool_worker_destroy(struct pool_worker *w); /* behind front_stop(), when no client is left */

/* ---- measure.c ---- */

/* The one of that name, made when it is not there; the main thread. */
struct pool_measure *pool_measure_get(struct list *all, const char *name, int workers);
void pool_measures_destroy(struct list *all);
/* A client wants what pool_worker.command says. */
void measure_called(struct pool_client *c);
void measure_rejected(struct pool_client *c);
/* It is about to be answered, by a server or, with an error, by the proxy. */
void measure_answered(struct pool_client *c, const struct message *m, struct bytes reply);
const char *pool_command_name(unsigned command);
/* INFO, as a reply. */
void pool_report_info(struct pool_client *c, const struct resp_request *req, struct buf *out);

/* ---- stats.c ---- */

bool stats_listen(struct pools *p, const char *host, int port);

#endif
