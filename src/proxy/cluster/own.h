/* own.h: the node in whose process the proxy is; inside src/proxy only. */
#ifndef COVEY_PROXY_CLUSTER_OWN_H
#define COVEY_PROXY_CLUSTER_OWN_H

struct own_node {
    /* A connection to it without a network; the number of a worker, which it may go by.  A non-blocking descriptor, the
     * caller's, or -1 with errno set.  Any thread.  NULL: there is no such node. */
    int (*connect)(void *node, unsigned worker);
    void *node;
};

#endif
