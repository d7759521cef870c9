/* poolproxy.h: static pools as nutcracker has them: RESP and memcached clients on one side, servers chosen by the key
 * on the other; no cluster, no failover, no state but the connections. */
#ifndef COVEY_PROXY_POOL_POOLPROXY_H
#define COVEY_PROXY_POOL_POOLPROXY_H

/* Runs with nutcracker's own options (-h lists them) until SIGTERM or SIGINT; returns the exit status. */
int poolproxy_main(int argc, char **argv);

#endif
