/* listen.h: the sockets that clients connect to, and CONFIG SET of what they depend on; inside src/server only.
 *
 * The main thread accepts and hands each connection to the least loaded worker.  Sockets are replaced while clients
 * connect: the new ones listen before the old ones, emptied by the main thread, are closed. */
#ifndef COVEY_SERVER_LISTEN_H
#define COVEY_SERVER_LISTEN_H

#include "server/node.h"

#define LISTEN_DENIED                                                                                          \
    "-DENIED Redis is running in protected mode because protected mode is enabled and no password is set for " \
    "the default user. In this mode connections are only accepted from the loopback interface. If you want "   \
    "to connect from external computers to Redis you may adopt one of the following solutions: 1) Just "       \
    "disable protected mode sending the command 'CONFIG SET protected-mode no' from the loopback interface "   \
    "by connecting to Redis from the same host the server is running, however MAKE SURE Redis is not "         \
    "publicly accessible from internet if you do so. Use CONFIG REWRITE to make this change permanent. 2) "    \
    "Alternatively you can just disable the protected mode by editing the Redis configuration file, and "      \
    "setting the protected mode option to 'no', and then restarting the server. 3) If you started the server " \
    "manually just for testing, restart it with the '--protected-mode no' option. 4) Setup a an "              \
    "authentication password for the default user. NOTE: You only need to do one of the above things in "      \
    "order for the server to start accepting connections from the outside.\r\n"

enum listen_kind { LISTEN_TCP, LISTEN_TLS, LISTEN_KINDS };
enum { LISTEN_MAX = 16 }; /* addresses of `bind` */

struct listen_set {
    int fds[LISTEN_MAX];
    int count;
};

struct listeners *listeners_create(struct node *n);
/* Opens everything the configuration names; on the main thread, at the start.  False: the log says why. */
bool listeners_open(struct listeners *l);
/* Opens what `bind` and the port of this kind say, beside what is open.  False: the log says why, nothing was opened.
 * Then one of the other two.  One thread at a time (CONFIG SET, with the server at rest). */
MUST_USE bool listeners_plan(struct listeners *l, enum listen_kind kind, struct listen_set *out);
void listeners_cancel(struct listeners *l, enum listen_kind kind, struct listen_set *set);
void listeners_replace(struct listeners *l, enum listen_kind kind, const struct listen_set *set);

/* protected-mode: a node that nobody has secured listens to its own host only.  Any thread. */
bool listen_is_protected_from(const struct node *n, int fd);

/* ---- network.c ---- */

/* Reads certificates and keys if an option asks for TLS; at the start.  False: the log says why. */
bool network_start(struct node *n);
/* CONFIG SET's values are in place: makes the contexts and sockets that follow from them, all or none.  False: *failed
 * is the index of the option in the way and *reason redis-server's words for it. */
bool network_apply(struct node *n, const enum config_id *ids, size_t count, size_t *failed, const char **reason);
/* The contexts for outgoing connections of a kind, when its option (CFG_TLS_REPLICATION, CFG_TLS_CLUSTER) is on; else
 * NULL.
 */
struct tls *network_tls(const struct node *n, enum config_id option);

#endif
