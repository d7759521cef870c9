/* engine.h: what the parts of the pool proxy share; inside src/proxy/pool only.  One thread, one loop.
 *
 * A message goes from its client's input into the output of a connection to a server.  It stays in two queues: its
 * client's, which has the order of the replies, and its connection's, which has the order of the server's.
 * A pool belongs to one reading of the configuration.  A reload makes new pools, which take over listeners and clients;
 * an old one stays until it has neither clients nor messages under way. */
#ifndef COVEY_PROXY_POOL_ENGINE_H
#define COVEY_PROXY_POOL_ENGINE_H

#include "base/list.h"
#include "base/random.h"
#include "net/net.h"
#include "pool/conf.h"
#include "pool/memcached.h"
#include "resp/resp.h"

enum {
    READ_BYTES = 64 * 1024,
    READ_MAX = 4 * 1024 * 1024,
    QUEUE_MAX = 1024,         /* messages of one client under way, after which it is not read from */
    UNREAD_MAX = 1024 * 1024, /* bytes of replies a client may leave, after which it is not read from */
    QUERY_MAX = 1024 * 1024 * 1024,
    BUFFER_KEEP = 256 * 1024, /* an empty buffer larger than this is given back */
};

struct engine;
struct pool;
struct server;
struct server_link;
struct pool_client;

enum merge {
    MERGE_NONE,
    MERGE_SUM,    /* integers */
    MERGE_OK,     /* +OK of all */
    MERGE_VALUES, /* arrays, the elements at their keys' places */
    MERGE_BLOCKS, /* memcached's VALUE blocks and one END */
};

struct message {
    struct message *next;       /* of the client */
    struct message *link_next;  /* of the connection */
    struct pool_client *client; /* NULL: gone */
    struct message *parent;     /* of a part */
    struct message **parts;     /* owned */
    unsigned parts_n, parts_left;
    enum merge merge;
    uint32_t *place; /* MERGE_VALUES: of each key, which part has it */
    size_t keys_n;
    struct buf reply;
    size_t size;    /* bytes of the request */
    uint64_t end;   /* where it ends in the bytes of its connection */
    int64_t due_ms; /* 0: no limit */
    bool redis, done;
};

struct server_link {
    struct loop_source src;
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
    int64_t ejected_at_us;
};

struct server {
    struct pool *pool;
    const struct pool_server *conf;
    struct server_link **links; /* pool.conf.server_connections of them; NULL: not open */
    unsigned next_link;
    int failures;
    int64_t retry_ms; /* ejected until then; 0: not ejected */
    struct server_stats stats;
};

struct pool_stats {
    uint64_t client_eof, client_err, client_connections, server_ejects, forward_error, fragments;
};

/* One reading of the file, counted by its pools. */
struct generation {
    struct pool_conf_file file;
    unsigned refs;
};

struct pool {
    struct engine *engine;
    struct generation *generation;
    const struct pool_conf *conf;
    struct loop_source listener; /* fd -1: none any more */
    struct server *servers;
    struct ring ring;
    bool *live;
    size_t live_n;
    int64_t rebuild_ms; /* when an ejected server comes back; 0: none is out */
    struct list clients;
    struct pool_stats stats;
};

struct pool_client {
    struct loop_source src;
    struct pool *pool;
    struct list link, dirty;
    struct buf in, out;
    size_t out_pos;
    struct resp_parser resp;
    struct mc_request_parser mc;
    struct message *first, *last;
    unsigned queued;
    bool authenticated, closing /* when all is answered */, broken /* at the end of the turn */, input_waits;
};

struct engine {
    struct loop *loop;
    struct pool **pools; /* of the present configuration, by name */
    size_t pools_n;
    struct pool **retired; /* of earlier ones */
    size_t retired_n;
    struct list dirty_links, dirty_clients;
    struct loop_timer tick;
    struct loop_source stats_listener, signals;
    struct resp_request request; /* the one that is being read */
    struct mc_request mc_request;
    struct random rng;
    int64_t now_ms, started_ms;
    uint64_t total_connections, current_connections;
    const char *conf_path, *log_path;
    int spare_fd; /* given up for a moment to refuse a client when descriptors are out */
    bool stop, reload;
};

/* ---- servers.c ---- */

struct pool *pool_create(struct engine *e, struct generation *g, const struct pool_conf *conf); /* NULL: no memory */
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

bool client_adopt(struct pool *p, int fd);
void pool_client_destroy(struct pool_client *c);
void pool_client_flush(struct pool_client *c);
void pool_client_drain(struct pool_client *c);
void client_answer(struct pool_client *c, struct bytes reply); /* of our own, in its turn */
void client_answer_text(struct pool_client *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- redis.c, memcache.c ---- */

void redis_request(struct pool_client *c, const struct resp_request *req, struct bytes raw);
void memcache_request(struct pool_client *c, const struct mc_request *req, struct bytes raw);
/* The reply of a message whose parts are all there, appended to out. */
void redis_merge(const struct message *m, struct buf *out);
void memcache_merge(const struct message *m, struct buf *out);

/* ---- stats.c ---- */

void stats_write(const struct engine *e, struct buf *out);
bool stats_listen(struct engine *e, const char *host, int port);
void stats_describe(void);

/* ---- process.c ---- */

int pool_listen(const struct pool_conf *conf, bool beside); /* a descriptor, or -1 with errno set */
void pool_accept_ready(struct loop_source *src, int events);

#endif
