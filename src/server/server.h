/* server.h: the data node as a role of the program: the public face of src/server/. */
#ifndef COVEY_SERVER_SERVER_H
#define COVEY_SERVER_SERVER_H

/* `covey server [redis.conf] [--directive value ...]`; argv[0] is the role's name.  Runs until SHUTDOWN, SIGTERM or
 * SIGINT; returns the exit status. */
int server_main(int argc, char **argv);

#endif
