/* config.h: the proxy's settings, from a file in redis.conf's syntax and from the command line.  Constant once read: a
 * reload makes another one.  Counted, because every thread holds the one that it works with. */
#ifndef COVEY_PROXY_FRONT_CONFIG_H
#define COVEY_PROXY_FRONT_CONFIG_H

#include "base/bytes.h"
#include "proxy/front/header.h"
#include "proxy/policy/limit.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    PROXY_SETTINGS_MAX = 128,
    PROXY_SEEDS_MAX = 64,
    PROXY_WORKERS_MAX = 256,
    PROXY_LISTEN_MAX = 64,
    PROXY_NETWORKS_MAX = 256
};

struct address {
    char *host;
    int port;
};

struct listen_address {
    struct address at; /* port 0: host is the path of a unix socket */
    unsigned mode;     /* of a unix socket; 0: as the umask has it */
    bool is_tls, accept_proxy;
};

/* What a client may leave unread, by class: bytes at once, and bytes for so many seconds; 0: any number. */
struct output_limit {
    int64_t hard, soft, soft_s;
};
enum { OUTPUT_NORMAL, OUTPUT_PUBSUB, OUTPUT_CLASSES };

struct proxy_config {
    _Atomic unsigned refs;
    struct listen_address listen[PROXY_LISTEN_MAX];
    int listen_count;
    struct address seeds[PROXY_SEEDS_MAX];
    int seed_count;
    char *pool_file; /* nutcracker.yml; "" none */
    char *stats_host;
    int64_t stats_port; /* of the pools; 0: none */
    int64_t workers;    /* 1 or more */
    int64_t backlog;
    char *password;                        /* required of clients; "" none */
    char *aclfile;                         /* their users; "" none */
    int64_t all_channels, limited_scripts; /* yes or no */
    struct limit_rules *user_limits;
    struct limit_rule address_limit;
    int64_t limit_refuses; /* what goes too fast is refused, not delayed */
    char *node_user;       /* towards the nodes; "" the default user */
    char *node_password;   /* "" none */
    char *logfile;
    char *pidfile;
    int64_t verbosity; /* as nutcracker counts it, 0 to 11 */
    bool daemonize;
    int64_t maxclients;
    int64_t idle_timeout_s; /* for clients that say nothing; 0: none */
    int64_t keepalive_s;    /* of clients' connections; 0: off */
    int64_t connections;    /* shared ones a worker, node and protocol version */
    int64_t pinned_max;     /* connections of one client each, in all */
    int64_t connect_timeout_ms, node_timeout_ms;
    int64_t refresh_ms;
    int64_t hold_timeout_ms, hold_requests, hold_bytes; /* the last two in all */
    int64_t unknown_closes;                             /* 1: the connection ends instead of an error */
    int64_t scripts_max, scripts_bytes;                 /* remembered for EVALSHA */
    int64_t node_queue_bytes;                           /* of requests that one node owes one worker */
    int64_t replica_reads;                              /* 0: never, 1: prefer, 2: nearest */
    int64_t replica_max_lag;                            /* bytes of the stream of changes; 0: any */
    int64_t replica_after_write_ms;                     /* own writes are read at the primary for so long */
    int64_t query_limit, bulk_limit, output_limit;      /* of one client, bytes */
    int64_t output_limit_stuck;                         /* the same of a client that writes and does not read */
    struct output_limit output_limits[OUTPUT_CLASSES];
    int64_t slowlog_us, slowlog_max; /* slowlog_us -1: none */
    int64_t key_sampling;            /* every how many uses of keys one is looked at; 0: none */
    int64_t metrics_port;            /* 0: none */
    char *metrics_bind;

    bool accept_proxy; /* at every listener */
    struct network header_networks[PROXY_NETWORKS_MAX];
    int header_network_count; /* 0: everybody sends a header where one is accepted */
    int64_t header_timeout_ms;

    int64_t drain_timeout_ms;     /* at SIGTERM */
    int64_t hand_over_timeout_ms; /* for clients after a hand-over; 0: as long as they like */
    char *control_socket;         /* "" none */
    char *take_over;              /* another process's control socket; "" none */

    int64_t tls_port; /* 0: none */
    bool backend_tls; /* towards nodes and servers of pools */
    bool pool_tls;    /* towards the pools' clients */
    char *tls_cert_file, *tls_key_file, *tls_key_pass;
    char *tls_client_cert_file, *tls_client_key_file, *tls_client_key_pass;
    char *tls_dh_params_file, *tls_ca_file, *tls_ca_dir;
    char *tls_protocols, *tls_ciphers, *tls_ciphersuites;
    bool tls_prefer_server_ciphers, tls_session_caching;
    int64_t tls_cache_size, tls_cache_timeout_s;
    int64_t tls_auth_clients; /* enum tls_auth */

    char *file;                        /* where it was read from, an absolute path; "" nowhere */
    char *changed[PROXY_SETTINGS_MAX]; /* by CONFIG SET, as it was given; by place in the table; NULL: not */
};

/* From the command line, which may begin with a file (argv[0] is the role's name and not looked at).  NULL: *error has
 * lines that say what is wrong. */
MUST_USE struct proxy_config *proxy_config_read(int argc, char **argv, struct buf *error);
/* What cannot change while the process runs is taken from `old`; each such setting that differs is said to the log. */
void proxy_config_keep_fixed(struct proxy_config *c, const struct proxy_config *old);
void proxy_config_usage(void);
/* Whether there is a setting of that name. */
bool proxy_config_knows(struct bytes name);
/* While it is made, before others see it.  False: no such setting, or no such value. */
bool proxy_config_set(struct proxy_config *c, const char *name, struct bytes value);
/* One that can be changed with proxy_config_change() before others see it. */
struct proxy_config *proxy_config_copy(const struct proxy_config *c);
enum { PROXY_CHANGE_ERROR_MAX = 512 };
/* CONFIG SET with these names and values, in pairs.  False: the error, without '-', in Redis's words; c is good for
 * nothing more. */
MUST_USE bool proxy_config_change(struct proxy_config *c, const struct bytes *pairs, size_t n,
                                  char error[PROXY_CHANGE_ERROR_MAX]);
/* CONFIG REWRITE: the file gets what has changed so; its other lines stay.  False: the error. */
MUST_USE bool proxy_config_rewrite(const struct proxy_config *c, char error[PROXY_CHANGE_ERROR_MAX]);
struct proxy_config *proxy_config_hold(struct proxy_config *c);
void proxy_config_release(struct proxy_config *c); /* NULL is fine */
/* Calls each with every setting as CONFIG GET shows it; passwords are left out. */
void proxy_config_each(const struct proxy_config *c, void (*each)(void *arg, const char *name, struct bytes value),
                       void *arg);
/* Whether TLS is needed anywhere. */
bool proxy_config_has_tls(const struct proxy_config *c);
struct tls_contexts;
/* The TLS contexts that the settings ask for; NULL: the log says why. */
struct tls_contexts *proxy_config_tls(const struct proxy_config *c);
/* "HOST:PORT", "[v6]:PORT", ":PORT" or "PORT".  The host is a copy. */
bool address_parse(struct bytes text, struct address *out);

#endif
