/* proxy.h: `covey proxy`: one address in front of a cluster for clients that know nothing of clusters.
 *
 * It learns from the nodes who serves which slot, sends every request to the right one over a few shared connections a
 * worker, and replies in each client's order.  Redirections and failovers are dealt with inside: requests of a slot
 * whose node is away wait, within limits. */
#ifndef COVEY_PROXY_PROXY_H
#define COVEY_PROXY_PROXY_H

/* Runs until SIGTERM or SIGINT; returns the exit code.  argv[0] is the role's name. */
int proxy_main(int argc, char **argv);

#endif
