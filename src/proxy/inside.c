/* inside.c: the proxy as some threads of another process: a cluster's front without the process around it.  What that
 * process does with signals, files and the log stays its own. */
#include "proxy/proxy.h"

#include "base/log.h"
#include "base/mem.h"
#include "proxy/cluster/cluster.h"
#include "proxy/front/front.h"

#include <pthread.h>

/* Until the process ends. */
static void *run(void *arg)
{
    struct loop *loop = arg;
    pthread_setname_np(pthread_self(), "proxy");
    for (;;) loop_turn(loop, -1);
    return NULL;
}

static bool put_together(struct loop *loop, struct proxy_config *c)
{
    struct front *f = front_create(loop, c);
    if (!f) return false;
    if (proxy_config_has_tls(c)) {
        struct tls_contexts *made = proxy_config_tls(c);
        if (!made) return false;
        tls_install(f->tls, made);
    }
    struct proxy *cluster = proxy_cluster_create(f);
    if (!cluster || !proxy_cluster_listen(cluster)) return false;
    proxy_cluster_start(cluster);
    front_start(f);
    return true;
}

bool proxy_start_inside(int argc, char **argv)
{
    struct buf error = {0};
    struct proxy_config *c = proxy_config_read(argc, argv, &error);
    pthread_t thread;
    if (!c) log_warning("The proxy's settings: %.*s", (int)(error.n ? error.n - 1 : 0), error.p);
    buf_deinit(&error);
    if (!c) return false;
    struct loop *loop = loop_create();
    if (!put_together(loop, c)) return false; /* the process ends */
    if (pthread_create(&thread, NULL, run, loop)) mem_abort(0);
    pthread_detach(thread);
    return true;
}
