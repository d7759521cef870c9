/* server.h: the data node as a role of the program: the public face of src/server/. */
#ifndef COVEY_SERVER_SERVER_H
#define COVEY_SERVER_SERVER_H

#include <stdbool.h>
#include <stdint.h>

struct acl;

/* What the process has beside the data node: a proxy, if `proxy-port` asks for one. */
struct server_beside {
    /* The arguments of `covey proxy`, borrowed, the users, which it takes, and its way to this node: connect(node,
     * worker) gives it a connection (see proxy/cluster/own.h).  Called once, when clients are being heard.  Returns
     * what the others are called with.  NULL: the log says why, and the node does not start. */
    void *(*start_proxy)(int argc, char **argv, struct acl *users, int (*connect)(void *node, unsigned worker),
                         void *node);
    /* The users are others (it takes them); renewed: others of the same names, too.  They hold when it returns. */
    void (*change_users)(void *proxy, struct acl *users, bool renewed);
    /* The arguments are others, borrowed. */
    void (*configure)(void *proxy, int argc, char **argv);
    /* What CLUSTER SLOTS, or without a cluster ROLE, says may be something else now.  Any thread; returns at once. */
    void (*map_changed)(void *proxy);
    /* The node is about to end: nobody new is accepted, and clients are closed as soon as nothing of theirs is under
     * way. false: it goes on after all.  Any thread. */
    void (*leave)(void *proxy, bool on);
    /* How many clients there are.  Any thread. */
    int64_t (*clients)(void *proxy);
};

/* `covey server [redis.conf] [--directive value ...]`; argv[0] is the role's name.  Runs until SHUTDOWN, SIGTERM or
 * SIGINT; returns the exit status.  beside is constant. */
int server_main(int argc, char **argv, const struct server_beside *beside);

#endif
