/* tls_internal.h: what tls.c and tls_session.c share; inside src/net only. */
#ifndef COVEY_NET_TLS_INTERNAL_H
#define COVEY_NET_TLS_INTERNAL_H

#include "net/tls.h"

#include <openssl/ssl.h>
#include <pthread.h>

struct tls_contexts {
    SSL_CTX *server, *client;
    enum tls_auth auth_clients;
};

struct tls {
    pthread_mutex_t mu;            /* a leaf: nothing of ours is taken under it */
    struct tls_contexts *contexts; /* under mu; NULL: not configured */
};

#endif
