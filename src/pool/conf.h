/* conf.h: reads nutcracker.yml, the configuration of static pools.
 * Promises: a file that nutcracker 0.5.0 accepts and that means something is read with the same meaning; what it
 * refuses is refused, with the line and the reason.  Stricter than nutcracker where that reads on over nonsense:
 * numbers beyond 2147483647, a socket permission that is not octal, an empty name.  Servers and pools are sorted as
 * nutcracker sorts them (shorter names first, then by bytes), because the order decides where modula puts a key. Does
 * not promise: that hosts resolve; nutcracker asks for the address of `listen` only, when it reads the file. Pure
 * functions over the caller's memory; any thread. */
#ifndef COVEY_POOL_CONF_H
#define COVEY_POOL_CONF_H

#include "base/bytes.h"
#include "base/status.h"
#include "pool/hash.h"
#include "pool/ring.h"

#include <stdbool.h>
#include <stdint.h>

struct pool_server {
    char *address; /* "host:port:weight" or "/path:weight": what logs and statistics call it without a name */
    char *name;    /* the given name, else "host:port", or "host" when the port is 11211 */
    char *host;    /* or the path of a unix socket */
    int port;      /* 0: unix socket */
    uint32_t weight;
};

struct pool_conf {
    char *name;
    int line; /* where it begins, counted from 1 */
    /* listen */
    char *listen;      /* as written */
    char *listen_host; /* or the path of a unix socket */
    int listen_port;   /* 0: unix socket */
    int listen_mode;   /* permission bits of the unix socket; -1: not given */
    char hash_tag[2];  /* valid when hash_tagged */
    bool hash_tagged;
    enum pool_hash hash;
    enum pool_distribution distribution;
    int timeout_ms; /* -1: none */
    int backlog;
    int client_connections; /* 0: no limit of its own */
    bool tcpkeepalive, reuseport, preconnect;
    bool redis;       /* false: memcached */
    char *redis_auth; /* NULL: none */
    int redis_db;
    int server_connections; /* >= 1 */
    bool auto_eject_hosts;
    int server_failure_limit;
    int server_retry_timeout_ms;
    struct pool_server *servers;
    size_t servers_n; /* >= 1 */
};

struct pool_conf_file {
    struct pool_conf *pools;
    size_t n; /* >= 1 after success */
};

enum { POOL_CONF_ERROR_MAX = 512 };

/* Reads the text of a file that messages call `file`.  OK: *out is the caller's, to be freed with pool_conf_deinit().
 * E_INVALID: `error` says where and why, without a line end.  E_NOMEM. */
MUST_USE enum status pool_conf_parse(struct bytes text, const char *file, struct pool_conf_file *out,
                                     char error[POOL_CONF_ERROR_MAX]);
/* The same from a file (16 MB at most); E_IO and E_TOO_BIG have a text in `error` too. */
MUST_USE enum status pool_conf_load(const char *file, struct pool_conf_file *out, char error[POOL_CONF_ERROR_MAX]);
void pool_conf_deinit(struct pool_conf_file *f);

/* The pool of that name, or NULL. */
const struct pool_conf *pool_conf_find(const struct pool_conf_file *f, struct bytes name);

/* Builds the ring of a pool; live[i] says whether server i is in it (NULL: all are). */
MUST_USE enum status pool_conf_ring(const struct pool_conf *pool, const bool *live, struct ring *out);
/* The index of the key's server, -1 when none is live. */
int pool_conf_place(const struct pool_conf *pool, const struct ring *r, struct bytes key, uint32_t random);

#endif
