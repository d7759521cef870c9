/* proxy.h: `covey proxy`: one address in front of a cluster for clients that know nothing of clusters, static pools as
 * nutcracker has them, or both, in one process with one set of threads. */
#ifndef COVEY_PROXY_PROXY_H
#define COVEY_PROXY_PROXY_H

#include <stdbool.h>
#include <stdint.h>

/* Runs until SIGTERM or SIGINT; returns the exit code.  argv[0] is the role's name. */
int proxy_main(int argc, char **argv);
/* The same when the program is called as nutcracker. */
int nutcracker_main(int argc, char **argv);

/* The proxy inside another process: threads of its own from here to the end of the process; SIGPIPE must be ignored.
 * The arguments are those of proxy_main(); users, which it takes, are who its clients can be; connect and node are its
 * way to the node of this process, as in proxy/cluster/own.h.  NULL: the log says why, and the process should end,
 * because parts of it may be there. */
struct acl;
void *proxy_start_inside(int argc, char **argv, struct acl *users, int (*connect)(void *node, unsigned worker),
                         void *node);
/* Any thread.  Other users, which hold from when this returns; it takes them.  renewed: all but the default user are
 * new ones, and those who have been logged in as the old ones are disconnected. */
void proxy_inside_users(void *proxy, struct acl *users, bool renewed);
/* Any thread.  Other settings, soon; where they cannot be, the log says why, and all stays as it was. */
void proxy_inside_configure(void *proxy, int argc, char **argv);
/* Any thread, cheap.  The node of this process has another view of the cluster. */
void proxy_inside_map_changed(void *proxy);
/* Any thread.  Accepts nobody any more, and closes each client as soon as nothing of it is under way; or (false) goes
 * on as before. */
void proxy_inside_leave(void *proxy, bool on);
/* Any thread.  How many clients there are. */
int64_t proxy_inside_clients(void *proxy);

#endif
