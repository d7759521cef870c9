/* server.h: the data node as a role of the program: the public face of src/server/. */
#ifndef COVEY_SERVER_SERVER_H
#define COVEY_SERVER_SERVER_H

#include <stdbool.h>

/* What the process has beside the data node: a proxy, if `proxy-port` asks for one. */
struct server_beside {
    /* The arguments of `covey proxy`, borrowed.  Called once, when clients are being heard.  False: the log says why,
     * and the node does not start. */
    bool (*start_proxy)(int argc, char **argv);
};

/* `covey server [redis.conf] [--directive value ...]`; argv[0] is the role's name.  Runs until SHUTDOWN, SIGTERM or
 * SIGINT; returns the exit status.  beside is constant. */
int server_main(int argc, char **argv, const struct server_beside *beside);

#endif
