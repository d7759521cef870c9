/* config.h: the proxy's settings, from a file in redis.conf's syntax and from the command line; constant once read. */
#ifndef COVEY_PROXY_FRONT_CONFIG_H
#define COVEY_PROXY_FRONT_CONFIG_H

#include "base/bytes.h"
#include "proxy/policy/limit.h"

#include <stdbool.h>
#include <stdint.h>

enum { PROXY_SEEDS_MAX = 64, PROXY_WORKERS_MAX = 256 };

struct address {
    char *host;
    int port;
};

struct proxy_config {
    struct address listen;
    struct address seeds[PROXY_SEEDS_MAX];
    int seed_count;
    int64_t workers;
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
    int64_t maxclients;
    int64_t connections; /* shared ones a worker, node and protocol version */
    int64_t pinned_max;  /* connections of one client each, in all */
    int64_t connect_timeout_ms, node_timeout_ms;
    int64_t refresh_ms;
    int64_t hold_timeout_ms, hold_requests, hold_bytes; /* the last two in all */
    int64_t node_queue_bytes;                           /* of requests that one node owes one worker */
    int64_t replica_reads;                              /* 0: never, 1: prefer, 2: nearest */
    int64_t replica_max_lag;                            /* bytes of the stream of changes; 0: any */
    int64_t query_limit, bulk_limit, output_limit;      /* of one client, bytes */
};

/* Fills *c from argv (argv[0] is the role's name).  False: *code is the exit code; what is wrong, or the usage, has
 * been printed. */
bool proxy_config_parse(struct proxy_config *c, int argc, char **argv, int *code);
void proxy_config_deinit(struct proxy_config *c);
/* Calls each with every setting as CONFIG GET shows it; passwords are left out. */
void proxy_config_each(const struct proxy_config *c, void (*each)(void *arg, const char *name, struct bytes value),
                       void *arg);
/* "HOST:PORT", "[v6]:PORT", ":PORT" or "PORT".  The host is a copy. */
bool address_parse(struct bytes text, struct address *out);

#endif
