/* proxy.h: `covey proxy`: one address in front of a cluster for clients that know nothing of clusters, static pools as
 * nutcracker has them, or both, in one process with one set of threads. */
#ifndef COVEY_PROXY_PROXY_H
#define COVEY_PROXY_PROXY_H

#include <stdbool.h>

/* Runs until SIGTERM or SIGINT; returns the exit code.  argv[0] is the role's name. */
int proxy_main(int argc, char **argv);
/* The same when the program is called as nutcracker. */
int nutcracker_main(int argc, char **argv);

/* The proxy inside another process: threads of its own from here to the end of the process; SIGPIPE must be ignored.
 * The arguments are those of proxy_main().  False: the log says why, and the process should end, because parts of it
 * may be there. */
bool proxy_start_inside(int argc, char **argv);

#endif
