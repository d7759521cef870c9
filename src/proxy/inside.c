/* inside.c: the proxy as some threads of another process: a cluster's front without the process around it.  What that
 * process does with signals, files and the log stays its own, and the users are its own, too. */
#include "proxy/proxy.h"

#include "base/log.h"
#include "base/mem.h"
#include "proxy/adopt.h"
#include "proxy/metrics.h"

#include <pthread.h>

struct inside {
    struct loop *loop;
    struct front *front;
    struct proxy *cluster;
    struct metrics metrics;
};

/* Until the process ends. */
static void *run(void *arg)
{
    struct loop *loop = arg;
    pthread_setname_np(pthread_self(), "proxy");
    for (;;) loop_turn(loop, -1);
    return NULL;
}

static bool put_together(struct inside *in, struct proxy_config *c, struct acl *users, const struct own_node *own)
{
    struct front *f = in->front = front_create(in->loop, c);
    if (!f) return false;
    users_mirror(&f->policy.users, users, false);
    if (!proxy_install_tls(f, c)) return false;
    in->cluster = proxy_cluster_create(f, own);
    if (!in->cluster || !proxy_cluster_listen(in->cluster)) return false;
    if (!metrics_open(&in->metrics, f, in->cluster, NULL)) return false;
    proxy_cluster_start(in->cluster);
    front_start(f);
    return true;
}

static struct proxy_config *read_settings(int argc, char **argv)
{
    struct buf error = {0};
    struct proxy_config *c = proxy_config_read(argc, argv, &error);
    if (!c) log_warning("The proxy's settings: %.*s", (int)(error.n ? error.n - 1 : 0), error.p);
    buf_deinit(&error);
    return c;
}

void *proxy_start_inside(int argc, char **argv, struct acl *users, int (*connect)(void *node, unsigned worker),
                         void *node)
{
    struct proxy_config *c = read_settings(argc, argv);
    pthread_t thread;
    if (!c) return NULL;
    struct inside *in = mem_calloc(1, sizeof *in);
    in->loop = loop_create();
    const struct own_node own = {connect, node};
    if (!put_together(in, c, users, &own)) return NULL; /* the process ends */
    proxy_config_release(c);
    if (pthread_create(&thread, NULL, run, in->loop)) mem_abort(0);
    pthread_detach(thread);
    return in;
}

void proxy_inside_users(void *proxy, struct acl *users, bool renewed)
{
    struct inside *in = proxy;
    users_mirror(&in->front->policy.users, users, renewed);
    front_users_changed(in->front);
}

void proxy_inside_map_changed(void *proxy)
{
    proxy_cluster_own_changed(((struct inside *)proxy)->cluster);
}

struct settings_mail {
    struct mail mail;
    struct inside *inside;
    struct proxy_config *config;
};

static void settings_arrived(struct mail *mail)
{
    struct settings_mail *m = container_of(mail, struct settings_mail, mail);
    struct front *f = m->inside->front;
    struct proxy_config *old = proxy_config_hold(f->config);
    proxy_config_keep_fixed(m->config, old);
    if (!proxy_adopt(f, m->inside->cluster, m->config, old)) log_warning("The proxy's settings stay as they were");
    proxy_config_release(old);
    proxy_config_release(m->config);
    mem_free(m);
}

void proxy_inside_configure(void *proxy, int argc, char **argv)
{
    struct inside *in = proxy;
    struct proxy_config *c = read_settings(argc, argv);
    if (!c) return;
    struct settings_mail *m = mem_alloc(sizeof *m);
    *m = (struct settings_mail){{NULL, settings_arrived}, in, c};
    loop_post(in->loop, &m->mail);
}

struct leave_mail {
    struct mail mail;
    struct inside *inside;
    bool on;
};

static void leave_arrived(struct mail *mail)
{
    struct leave_mail *m = container_of(mail, struct leave_mail, mail);
    struct inside *in = m->inside;
    front_leave(in->front, m->on ? LEAVE_WHEN_IDLE : LEAVE_NOT);
    if (!m->on && !proxy_cluster_listen(in->cluster)) log_warning("The proxy does not listen any more");
    mem_free(m);
}

void proxy_inside_leave(void *proxy, bool on)
{
    struct inside *in = proxy;
    struct leave_mail *m = mem_alloc(sizeof *m);
    *m = (struct leave_mail){{NULL, leave_arrived}, in, on};
    loop_post(in->loop, &m->mail);
}

int64_t proxy_inside_clients(void *proxy)
{
    return atomic_load(&((struct inside *)proxy)->front->clients);
}
