/* listener.c: listening, accepting, and the front as a whole; the main thread's. */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/random.h"
#include "proxy/front/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ACCEPTS_A_TURN = 1000 };

/* ---- accepting ---- */

static struct front_worker *least_loaded(const struct front *f)
{
    struct front_worker *best = f->workers[0];
    for (int i = 1; i < f->worker_count; i++)
        if (atomic_load(&f->workers[i]->given) < atomic_load(&best->given)) best = f->workers[i];
    return best;
}

/* A client with TLS cannot read a text, and is told nothing, as by redis-server. */
static void refuse(struct front_listener *l, int fd)
{
    const char *text = l->is_tls ? NULL : l->backend->too_many;
    size_t put;
    if (text && net_write(fd, text, strlen(text), &put) != OK) log_verbose("A refused client was gone already");
    close(fd);
    atomic_fetch_add(&l->front->rejected, 1);
}

static void welcome(struct front_listener *l, int fd)
{
    struct front *f = l->front;
    atomic_fetch_add(&f->connections, 1);
    if (atomic_load(&f->clients) >= f->config->maxclients || (l->limit && atomic_load(&l->clients) >= l->limit)) {
        refuse(l, fd);
        return;
    }
    atomic_fetch_add(&f->clients, 1);
    atomic_fetch_add(&l->clients, 1);
    front_worker_adopt(least_loaded(f), l, fd);
}

/* Without this, a client that cannot be accepted would be reported again and again. */
static void refuse_for_want_of_descriptors(struct front_listener *l)
{
    struct front *f = l->front;
    log_warning("%s: a client is refused: %s", l->name, strerror(errno));
    if (f->spare_fd >= 0) close(f->spare_fd);
    int fd = net_accept(l->src.fd);
    if (fd >= 0) refuse(l, fd);
    f->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void accept_ready(struct loop_source *src, int events)
{
    struct front_listener *l = container_of(src, struct front_listener, src);
    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        int fd = net_accept(src->fd);
        if (fd >= 0) {
            welcome(l, fd);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE)
            refuse_for_want_of_descriptors(l);
        else if (errno != EAGAIN && errno != ECONNABORTED)
            log_warning("%s: accepting a client: %s", l->name, strerror(errno));
        return;
    }
}

/* ---- listeners ---- */

static int take_inherited(struct front *f, const char *name)
{
    for (int i = 0; i < f->inherited_count; i++) {
        struct front_socket *s = &f->inherited[i];
        if (s->fd < 0 || strcmp(s->name, name) != 0) continue;
        int fd = s->fd;
        s->fd = -1;
        return fd;
    }
    return -1;
}

static void remember(struct front_socket **list, int *n, const char *name, int fd)
{
    *list = mem_realloc(*list, ((size_t)*n + 1) * sizeof **list);
    (*list)[(*n)++] = (struct front_socket){mem_strdup(name), fd};
}

void front_inherit(struct front *f, const char *name, int fd)
{
    remember(&f->inherited, &f->inherited_count, name, fd);
}

int front_sockets(const struct front *f, struct front_socket *out, int max)
{
    int n = 0;
    list_each(it, &f->listeners)
    {
        const struct front_listener *l = container_of(it, struct front_listener, link);
        if (n < max) out[n] = (struct front_socket){l->name, l->src.fd};
        n++;
    }
    for (int i = 0; i < f->others_count; i++, n++)
        if (n < max) out[n] = f->others[i];
    return n;
}

int front_inherited_or_listen(struct front *f, const char *host, int port, int backlog)
{
    char name[FRONT_NAME_MAX];
    front_address_name(&(struct front_address){.host = host, .port = port}, name);
    int fd = take_inherited(f, name);
    if (fd < 0) fd = net_listen_tcp(host, port, backlog);
    if (fd >= 0) remember(&f->others, &f->others_count, name, fd);
    return fd;
}

static void forget(struct front_socket *list, int n, bool closes)
{
    for (int i = 0; i < n; i++) {
        if (closes && list[i].fd >= 0) close(list[i].fd);
        mem_free(list[i].name);
    }
    mem_free(list);
}

static int open_socket(struct front *f, const struct front_address *a, const char *name)
{
    int fd = take_inherited(f, name);
    if (fd >= 0) {
        if (listen(fd, a->backlog) < 0) log_warning("%s: %s", name, strerror(errno));
        return fd;
    }
    if (a->port == 0) return net_listen_unix(a->host, a->mode, a->backlog);
    if (a->share_port) return net_listen_tcp_beside(a->host, a->port, a->backlog);
    return net_listen_tcp(a->host, a->port, a->backlog);
}

void front_address_name(const struct front_address *a, char out[FRONT_NAME_MAX])
{
    if (a->port)
        snprintf(out, FRONT_NAME_MAX, "%s:%d", a->host, a->port);
    else
        snprintf(out, FRONT_NAME_MAX, "%s", a->host);
}

struct front_listener *front_listen(struct front *f, const struct front_backend *backend, const struct front_address *a)
{
    char name[FRONT_NAME_MAX];
    front_address_name(a, name);
    int fd = open_socket(f, a, name);
    if (fd < 0) return NULL;
    struct front_listener *l = mem_calloc(1, sizeof *l);
    l->src = (struct loop_source){.fd = fd, .ready = accept_ready};
    l->front = f;
    l->backend = backend;
    l->name = mem_strdup(name);
    l->targets = mem_calloc((size_t)f->worker_count, sizeof(void *));
    l->is_unix = a->port == 0;
    l->is_tls = a->is_tls;
    atomic_store(&l->accept_proxy, a->accept_proxy);
    atomic_store(&l->refs, 1);
    list_init(&l->link);
    return l;
}

void front_listener_start(struct front_listener *l, void *const *targets)
{
    struct front *f = l->front;
    memcpy(l->targets, targets, (size_t)f->worker_count * sizeof(void *));
    if (!list_empty(&l->link)) return;
    list_push_back(&f->listeners, &l->link);
    if (loop_add(f->loop, &l->src, NET_READ) != OK) log_warning("%s: no memory to listen", l->name);
}

void front_listener_release(struct front_listener *l)
{
    if (atomic_fetch_sub(&l->refs, 1) != 1) return;
    mem_free(l->targets);
    mem_free(l->name);
    mem_free(l);
}

void front_listener_close(struct front_listener *l)
{
    int fd = l->src.fd;
    if (!list_empty(&l->link)) loop_remove(l->front->loop, &l->src);
    list_remove(&l->link);
    close(fd);
    front_listener_release(l);
}

/* ---- the front ---- */

uint64_t front_sum(const struct front *f, size_t offset)
{
    uint64_t sum = 0;
    for (int i = 0; i < f->worker_count; i++) {
        const char *stats = (const char *)&f->workers[i]->stats;
        sum += atomic_load_explicit((const _Atomic uint64_t *)(stats + offset), memory_order_relaxed);
    }
    return sum;
}

struct front *front_create(struct loop *loop, struct proxy_config *config)
{
    struct front *f = mem_calloc(1, sizeof *f);
    f->loop = loop;
    f->config = proxy_config_hold(config);
    list_init(&f->listeners);
    f->spare_fd = -1;
    f->started_ms = clock_wall_ms();
    random_hex(f->run_id, 40);
    if (!front_policy_create(f)) {
        front_destroy(f);
        return NULL;
    }
    f->worker_count = (int)config->workers;
    f->workers = mem_calloc((size_t)f->worker_count, sizeof(struct front_worker *));
    f->tls = tls_create();
    f->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (int i = 0; i < f->worker_count; i++) f->workers[i] = front_worker_create(f, i);
    return f;
}

void front_start(struct front *f)
{
    f->is_started = true;
    forget(f->inherited, f->inherited_count, true);
    f->inherited = NULL;
    f->inherited_count = 0;
    for (int i = 0; i < f->worker_count; i++) front_worker_start(f->workers[i]);
}

void front_configure(struct front *f, struct proxy_config *config)
{
    proxy_config_hold(config);
    proxy_config_release(f->config);
    f->config = config;
    for (int i = 0; i < f->worker_count; i++) front_worker_configure(f->workers[i], config);
}

void front_leave(struct front *f, enum front_leave how)
{
    list_each(it, &f->listeners)
    {
        struct front_listener *l = container_of(it, struct front_listener, link);
        if (how == LEAVE_WHEN_IDLE) {
            accept_ready(&l->src, NET_READ); /* who waits in the queue is not reset */
            if (l->is_unix) unlink(l->name);
        }
        front_listener_close(l);
    }
    for (int i = 0; i < f->worker_count; i++) front_worker_leave(f->workers[i], how);
}

void front_stop(struct front *f)
{
    if (!f->is_started) return;
    f->is_started = false;
    for (int i = 0; i < f->worker_count; i++) front_worker_stop(f->workers[i]);
}

void front_destroy(struct front *f)
{
    list_each(it, &f->listeners) front_listener_close(container_of(it, struct front_listener, link));
    for (int i = 0; i < f->worker_count; i++) front_worker_destroy(f->workers[i]);
    mem_free(f->workers);
    forget(f->inherited, f->inherited_count, true);
    forget(f->others, f->others_count, false); /* theirs who asked for them */
    if (f->spare_fd >= 0) close(f->spare_fd);
    if (f->tls) tls_destroy(f->tls);
    front_policy_destroy(f);
    proxy_config_release(f->config);
    mem_free(f);
}
