#include "server/listen.h"

#include "base/log.h"
#include "base/mem.h"
#include "server/conn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ACCEPTS_A_TURN = 1000 };

struct listener {
    struct loop_source src;
    struct listeners *all;
    enum conn_kind kind;
};

struct listeners {
    struct node *node;
    struct listener open[LISTEN_KINDS][LISTEN_MAX]; /* the main thread; fd -1: none */
    struct listener local;                          /* the unix socket */
    struct listen_set newest[LISTEN_KINDS];         /* with the server at rest: what is, or soon will be, open */
};

/* ---- accepting ---- */

static struct worker *least_loaded(const struct node *n)
{
    struct worker *best = n->workers[0];
    for (int i = 1; i < n->worker_count; i++)
        if (atomic_load(&n->workers[i]->conn_count) < atomic_load(&best->conn_count)) best = n->workers[i];
    return best;
}

static const char too_many[] = "-ERR max number of clients reached\r\n";

bool listen_is_protected_from(const struct node *n, int fd)
{
    if (!config_bool(n->config, CFG_PROTECTED_MODE)) return false;
    if (!atomic_load(&n->open_to_all)) return false;
    char ip[NET_ADDRESS_MAX];
    int port;
    net_peer_ip(fd, ip, &port);
    return strncmp(ip, "127.", 4) != 0 && strcmp(ip, "::1") != 0;
}

/* text NULL: a TLS client could not read it. */
static void refuse(struct node *n, int fd, const char *text)
{
    size_t put;
    if (text && net_write(fd, text, strlen(text), &put) != OK) log_verbose("A refused client was gone already");
    close(fd);
    atomic_fetch_add(&n->stats.connections_rejected, 1);
}

static void welcome(const struct listener *l, int fd)
{
    struct node *n = l->all->node;
    atomic_fetch_add(&n->stats.connections_received, 1);
    if (atomic_load(&n->client_count) >= config_num(n->config, CFG_MAXCLIENTS)) {
        refuse(n, fd, l->kind == CONN_TLS ? NULL : too_many);
        return;
    }
    /* A TLS client is told after its handshake. */
    if (l->kind == CONN_TCP && listen_is_protected_from(n, fd)) {
        refuse(n, fd, LISTEN_DENIED);
        return;
    }
    atomic_fetch_add(&n->client_count, 1);
    worker_adopt(least_loaded(n), fd, l->kind);
}

static void accept_ready(struct loop_source *src, int events)
{
    struct listener *l = container_of(src, struct listener, src);
    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        int fd = net_accept(l->src.fd);
        if (fd < 0) {
            if (errno != EAGAIN && errno != ECONNABORTED)
                log_warning("Accepting client connection: %s", strerror(errno));
            return;
        }
        welcome(l, fd);
    }
}

static void listener_start(struct listeners *l, struct listener *x, int fd, enum conn_kind kind)
{
    *x = (struct listener){.src = {.fd = fd, .ready = accept_ready}, .all = l, .kind = kind};
    if (loop_add(l->node->main_loop, &x->src, NET_READ) != OK) log_warning("Cannot watch a listening socket");
}

/* ---- opening ---- */

static bool same_address(int a, int b)
{
    struct sockaddr_storage x = {0}, y = {0};
    socklen_t n = sizeof x, m = sizeof y;
    getsockname(a, (struct sockaddr *)&x, &n);
    getsockname(b, (struct sockaddr *)&y, &m);
    return n == m && memcmp(&x, &y, n) == 0;
}

static bool may_be_missing(int reason)
{
    return reason == EADDRNOTAVAIL || reason == EAFNOSUPPORT || reason == EPROTONOSUPPORT || reason == ENOPROTOOPT ||
           reason == ESOCKTNOSUPPORT || reason == EPFNOSUPPORT;
}

static void close_all(struct listen_set *set)
{
    while (set->count) close(set->fds[--set->count]);
}

/* Whether the sockets that are to be replaced listen on that port. */
static bool is_mine(const struct listeners *l, enum listen_kind kind, int port)
{
    char ip[NET_ADDRESS_MAX];
    int mine = 0;
    if (l->newest[kind].count) net_local_ip(l->newest[kind].fds[0], ip, &mine);
    return mine == port;
}

/* One word of `bind`: "*" is IPv4, "::*" IPv6, a leading '-' marks what may be missing. */
static bool open_one(struct listeners *l, enum listen_kind kind, const char *addr, int port, struct listen_set *out)
{
    struct config *cfg = l->node->config;
    bool optional = *addr == '-';
    if (optional) addr++;
    int backlog = (int)config_num(cfg, CFG_TCP_BACKLOG);
    const char *host = strcmp(addr, "::*") == 0 ? "::" : addr;
    int fd = net_listen_tcp(host, port, backlog);
    if (fd < 0 && errno == EADDRINUSE && is_mine(l, kind, port)) fd = net_listen_tcp_beside(host, port, backlog);
    /* The same address twice is an error like any other port that is taken. */
    for (int i = 0; fd >= 0 && i < out->count; i++) {
        if (!same_address(fd, out->fds[i])) continue;
        close(fd);
        fd = -1;
        errno = EADDRINUSE;
    }
    if (fd < 0) {
        int reason = errno;
        log_warning("Warning: Could not create server TCP listening socket %s:%d: %s", addr, port, strerror(reason));
        return optional && may_be_missing(reason);
    }
    net_set_mark(fd, (unsigned)config_num(cfg, CFG_SOCKET_MARK_ID));
    out->fds[out->count++] = fd;
    return true;
}

static void share_ports(struct listeners *l, enum listen_kind kind, bool on)
{
    for (int i = 0; i < l->newest[kind].count; i++) net_share_port(l->newest[kind].fds[i], on);
}

bool listeners_plan(struct listeners *l, enum listen_kind kind, struct listen_set *out)
{
    struct config *cfg = l->node->config;
    int port = (int)config_num(cfg, kind == LISTEN_TLS ? CFG_TLS_PORT : CFG_PORT);
    *out = (struct listen_set){0};
    if (port == 0) return true;
    share_ports(l, kind, true);
    char *bind = config_cstr(cfg, CFG_BIND), *state = NULL;
    bool ok = true;
    for (char *addr = strtok_r(bind, " ", &state); addr && ok && out->count < LISTEN_MAX;
         addr = strtok_r(NULL, " ", &state))
        ok = open_one(l, kind, addr, port, out);
    mem_free(bind);
    if (!ok) listeners_cancel(l, kind, out);
    return ok;
}

void listeners_cancel(struct listeners *l, enum listen_kind kind, struct listen_set *set)
{
    close_all(set);
    share_ports(l, kind, false);
}

/* ---- replacing, on the main thread ---- */

struct replace_mail {
    struct mail mail;
    struct listeners *listeners;
    enum listen_kind kind;
    struct listen_set set;
};

static void take_over(struct listeners *l, enum listen_kind kind, const struct listen_set *set)
{
    for (int i = 0; i < LISTEN_MAX; i++) {
        struct listener *x = &l->open[kind][i];
        int fd = x->src.fd;
        if (fd < 0) continue;
        accept_ready(&x->src, NET_READ); /* who was in its queue is not lost */
        loop_remove(l->node->main_loop, &x->src);
        close(fd);
    }
    for (int i = 0; i < set->count; i++)
        listener_start(l, &l->open[kind][i], set->fds[i], kind == LISTEN_TLS ? CONN_TLS : CONN_TCP);
}

static void deliver_replace(struct mail *m)
{
    struct replace_mail *r = container_of(m, struct replace_mail, mail);
    take_over(r->listeners, r->kind, &r->set);
    mem_free(r);
}

void listeners_replace(struct listeners *l, enum listen_kind kind, const struct listen_set *set)
{
    struct replace_mail *r = mem_alloc(sizeof *r);
    *r = (struct replace_mail){{NULL, deliver_replace}, l, kind, *set};
    l->newest[kind] = *set;
    loop_post(l->node->main_loop, &r->mail);
}

/* ---- the start ---- */

struct listeners *listeners_create(struct node *n)
{
    struct listeners *l = mem_calloc(1, sizeof *l);
    l->node = n;
    for (int kind = 0; kind < LISTEN_KINDS; kind++)
        for (int i = 0; i < LISTEN_MAX; i++) l->open[kind][i].src.fd = -1;
    return l;
}

static bool open_unix(struct listeners *l)
{
    struct config *cfg = l->node->config;
    char *path = config_cstr(cfg, CFG_UNIXSOCKET);
    int fd = -1;
    if (*path) {
        fd =
            net_listen_unix(path, (unsigned)config_num(cfg, CFG_UNIXSOCKETPERM), (int)config_num(cfg, CFG_TCP_BACKLOG));
        if (fd < 0)
            log_warning("Failed opening Unix socket: bind: %s", strerror(errno));
        else
            listener_start(l, &l->local, fd, CONN_UNIX);
    }
    bool ok = !*path || fd >= 0;
    mem_free(path);
    return ok;
}

bool listeners_open(struct listeners *l)
{
    static const enum config_id ports[] = {CFG_PORT, CFG_TLS_PORT};
    static const char *const names[] = {"TCP", "TLS"};
    for (int kind = 0; kind < LISTEN_KINDS; kind++) {
        struct listen_set set;
        if (!listeners_plan(l, (enum listen_kind)kind, &set)) {
            log_warning("Failed listening on port %d (%s), aborting.", (int)config_num(l->node->config, ports[kind]),
                        names[kind]);
            return false;
        }
        l->newest[kind] = set;
        take_over(l, (enum listen_kind)kind, &set);
    }
    if (!open_unix(l)) return false;
    if (l->newest[LISTEN_TCP].count || l->newest[LISTEN_TLS].count || l->local.src.ready) return true;
    log_warning("Configured to not listen anywhere, exiting.");
    return false;
}
