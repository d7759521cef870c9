/* options.h: the command line of `covey up` and `covey down`.  Pure but for what it prints. */
#ifndef COVEY_OPERATOR_OPTIONS_H
#define COVEY_OPERATOR_OPTIONS_H

#include "operator/plan.h"

#include <stdbool.h>
#include <stdint.h>

#define UP_DIR_DEFAULT "covey-cluster"

struct up_options {
    struct shape shape;
    bool primaries_given, replicas_given, port_given; /* what was not given follows the directory */
    const char *dir;
    const char *bind;
    bool detach, restart;
    int proxy_port;          /* of the first node's proxy; 0: none; -1: behind the nodes' ports */
    int64_t node_timeout_ms; /* 0: the server's default */
    int stop_timeout_s;      /* after which a node that does not end is killed */
    char **extra;            /* directives for every node; borrowed from argv */
    int extra_count;
    const char *password; /* what the directives require of clients, or NULL; borrowed from argv */
};

enum parsed { PARSED, PARSED_HELP, PARSED_WRONG };

/* Fills *o from the arguments (argv[0] is the role's name).  PARSED_HELP: the usage was asked for and has been printed.
 * PARSED_WRONG: what is wrong, and the usage, are on standard error.  The values borrow argv. */
enum parsed up_options_parse(int argc, char **argv, struct up_options *o);
enum parsed down_options_parse(int argc, char **argv, const char **dir);

#endif
