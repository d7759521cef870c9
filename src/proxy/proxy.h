/* proxy.h: `covey proxy`: one address in front of a cluster for clients that know nothing of clusters, static pools as
 * nutcracker has them, or both, in one process with one set of threads. */
#ifndef COVEY_PROXY_PROXY_H
#define COVEY_PROXY_PROXY_H

/* Runs until SIGTERM or SIGINT; returns the exit code.  argv[0] is the role's name. */
int proxy_main(int argc, char **argv);
/* The same when the program is called as nutcracker. */
int nutcracker_main(int argc, char **argv);

#endif
