#include "proxy/cluster/topology.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/random.h"
#include "net/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

enum {
    CONNECT_MS = 500,
    REPLY_MS = 1000,
    PAUSE_MS = 50, /* between two looks that were asked for */
    REPLY_MAX = 64 * 1024 * 1024,
    NODES_MAX = 4096,
};

struct topology {
    const struct proxy_config *config;
    void (*changed)(void *ctx, struct topology_map *map);
    void *ctx;
    struct random rng;
    struct topology_map *map; /* the last one; of the thread */
    bool complained;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake; /* monotonic clock */
    bool wanted, stop;   /* under the lock */
    _Atomic bool asked;
};

/* ---- maps ---- */

struct topology_map *topology_map_hold(struct topology_map *m)
{
    atomic_fetch_add(&m->refs, 1);
    return m;
}

void topology_map_release(struct topology_map *m)
{
    if (!m || atomic_fetch_sub(&m->refs, 1) != 1) return;
    for (int i = 0; i < m->count; i++) mem_free(m->nodes[i].name);
    mem_free(m->nodes);
    mem_free(m);
}

static struct topology_map *map_create(void)
{
    struct topology_map *m = mem_calloc(1, sizeof *m);
    atomic_store(&m->refs, 1);
    memset(m->slot, 0xff, sizeof m->slot);
    return m;
}

/* The index of a node, which is added when it is new; NO_NODE: there are too many. */
static uint16_t map_node_index(struct topology_map *m, struct bytes name, int port)
{
    for (uint16_t i = 0; i < m->count; i++)
        if (m->nodes[i].port == port && bytes_eq(bytes_of(m->nodes[i].name), name)) return i;
    if (m->count == NODES_MAX) return NO_NODE;
    m->nodes = mem_realloc(m->nodes, (m->count + 1u) * sizeof *m->nodes);
    m->nodes[m->count] = (struct map_node){.name = bytes_dup_cstr(name), .port = port};
    return m->count++;
}

static bool read_range(struct topology_map *m, const struct resp_value *v, const char *asked)
{
    if (v->type != RESP_ARRAY || v->n < 3 || v->child[0].type != RESP_INTEGER || v->child[1].type != RESP_INTEGER)
        return false;
    int64_t first = v->child[0].i64, last = v->child[1].i64;
    const struct resp_value *primary = &v->child[2];
    if (first < 0 || last < first || last >= SLOT_COUNT) return false;
    if (primary->type != RESP_ARRAY || primary->n < 2 || primary->child[1].type != RESP_INTEGER) return false;
    int64_t port = primary->child[1].i64;
    struct bytes name = primary->child[0].str;
    if (primary->child[0].type != RESP_BULK || name.n == 0) name = bytes_of(asked);
    if (port < 1 || port > 65535 || name.n > 255 || memchr(name.p, '\0', name.n)) return false;
    if (bytes_eq(name, BYTES("?"))) return true; /* announced by hostname, which it does not know: nobody to ask */
    uint16_t index = map_node_index(m, name, (int)port);
    if (index == NO_NODE) return false;
    for (int64_t s = first; s <= last; s++) {
        if (m->slot[s] == NO_NODE) {
            m->covered++;
            m->nodes[index].slots++;
        }
        m->slot[s] = index;
    }
    return true;
}

struct topology_map *topology_map_read(const struct resp_value *slots, const char *asked)
{
    if (!slots || slots->type != RESP_ARRAY) return NULL;
    struct topology_map *m = map_create();
    for (size_t i = 0; i < slots->n; i++) {
        if (read_range(m, &slots->child[i], asked)) continue;
        topology_map_release(m);
        return NULL;
    }
    return m;
}

static struct topology_map *map_of_one(const char *name, int port)
{
    struct topology_map *m = map_create();
    map_node_index(m, bytes_of(name), port);
    memset(m->slot, 0, sizeof m->slot);
    m->covered = m->nodes[0].slots = SLOT_COUNT;
    return m;
}

static bool same_map(const struct topology_map *a, const struct topology_map *b)
{
    if (!a || !b || a->count != b->count || memcmp(a->slot, b->slot, sizeof a->slot) != 0) return false;
    for (int i = 0; i < a->count; i++)
        if (a->nodes[i].port != b->nodes[i].port || strcmp(a->nodes[i].name, b->nodes[i].name) != 0 ||
            strcmp(a->nodes[i].ip, b->nodes[i].ip) != 0)
            return false;
    return true;
}

/* Names are looked up at every look, so that a node that comes back elsewhere is found. */
static void resolve(struct map_node *n)
{
    struct in6_addr any;
    if (inet_pton(AF_INET, n->name, &any) == 1 || inet_pton(AF_INET6, n->name, &any) == 1) {
        snprintf(n->ip, sizeof n->ip, "%s", n->name);
        return;
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    if (getaddrinfo(n->name, NULL, &hints, &found) != 0) return;
    if (getnameinfo(found->ai_addr, found->ai_addrlen, n->ip, sizeof n->ip, NULL, 0, NI_NUMERICHOST) != 0) n->ip[0] = 0;
    freeaddrinfo(found);
}

/* ---- asking one node ---- */

static bool send_all(int fd, struct bytes b)
{
    size_t put;
    return net_write(fd, b.p, b.n, &put) == OK && put == b.n; /* a fresh socket takes a few lines */
}

/* The next reply, or NULL. */
static struct resp_value *receive(int fd, struct buf *in, int64_t deadline)
{
    struct resp_reply_parser parser = {0};
    struct resp_value *v = NULL;
    for (;;) {
        enum status st = resp_parse_reply(&parser, buf_bytes(in), &v);
        if (st == OK) {
            buf_drop_front(in, parser.size);
            return v;
        }
        int64_t left = deadline - clock_mono_ms();
        if (st != E_AGAIN || left <= 0 || in->n > REPLY_MAX) return NULL;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, (int)left) < 0 && errno != EINTR) return NULL;
        size_t got;
        buf_reserve(in, 16 * 1024);
        st = net_read(fd, in, 1 << 20, &got);
        if (st != OK && st != E_AGAIN) return NULL;
    }
}

static struct topology_map *converse(const struct proxy_config *c, int fd, const char *name, int port)
{
    struct buf out = {0}, in = {0};
    bool login = *c->node_password;
    if (login && *c->node_user)
        resp_request_cstr(&out, 3, "AUTH", c->node_user, c->node_password);
    else if (login)
        resp_request_cstr(&out, 2, "AUTH", c->node_password);
    resp_request_cstr(&out, 2, "CLUSTER", "SLOTS");
    int64_t deadline = clock_mono_ms() + REPLY_MS;
    struct topology_map *m = NULL;
    struct resp_value *v = NULL;
    if (!send_all(fd, buf_bytes(&out))) goto end;
    if (login) {
        v = receive(fd, &in, deadline);
        if (!resp_is_status(v, "OK")) log_warning("%s:%d does not accept the proxy's password", name, port);
        resp_value_free(v);
    }
    v = receive(fd, &in, deadline);
    if (resp_is_error(v, "ERR") && memmem(v->str.p, v->str.n, "cluster support disabled", 24))
        m = map_of_one(name, port);
    else
        m = topology_map_read(v, name);
    resp_value_free(v);
end:
    buf_deinit(&out);
    buf_deinit(&in);
    return m;
}

static struct topology_map *ask(struct topology *t, const char *name, const char *ip, int port)
{
    int fd = net_connect_wait(ip, port, CONNECT_MS);
    if (fd < 0) return NULL;
    struct topology_map *m = converse(t->config, fd, name, port);
    close(fd);
    if (m && m->covered == 0) { /* a node that knows nobody */
        topology_map_release(m);
        return NULL;
    }
    for (int i = 0; m && i < m->count; i++) resolve(&m->nodes[i]);
    return m;
}

/* ---- the thread ---- */

/* Everybody known is asked in a random order until one answers: nobody's opinion is asked for ever. */
static struct topology_map *ask_anybody(struct topology *t)
{
    int known = t->map ? t->map->count : 0, n = known + t->config->seed_count;
    int *order = mem_alloc((size_t)n * sizeof *order);
    for (int i = 0; i < n; i++) {
        int at = (int)random_below(&t->rng, (uint64_t)i + 1);
        order[i] = order[at];
        order[at] = i;
    }
    struct topology_map *m = NULL;
    for (int i = 0; i < n && !m; i++) {
        const struct map_node *node = order[i] < known ? &t->map->nodes[order[i]] : NULL;
        const struct address *seed = node ? NULL : &t->config->seeds[order[i] - known];
        m = node ? ask(t, node->name, node->ip, node->port) : ask(t, seed->host, seed->host, seed->port);
    }
    mem_free(order);
    return m;
}

static void look(struct topology *t)
{
    struct topology_map *m = ask_anybody(t);
    if (!m) {
        if (!t->complained) log_warning("No node of the cluster answers");
        t->complained = true;
        return;
    }
    t->complained = false;
    if (same_map(m, t->map)) {
        topology_map_release(m);
        return;
    }
    log_notice("The cluster has %d primaries, %u of %d slots are served", (int)m->count, m->covered, SLOT_COUNT);
    topology_map_release(t->map);
    t->map = m;
    t->changed(t->ctx, m);
}

static void deadline_in(struct timespec *ts, int64_t ms)
{
    clock_gettime(CLOCK_MONOTONIC, ts);
    ts->tv_sec += ms / 1000;
    ts->tv_nsec += ms % 1000 * 1000000;
    if (ts->tv_nsec >= 1000000000) {
        ts->tv_nsec -= 1000000000;
        ts->tv_sec++;
    }
}

/* False: it is time to end. */
static bool sleep_until_wanted(struct topology *t)
{
    struct timespec deadline;
    usleep(PAUSE_MS * 1000);
    deadline_in(&deadline, t->map ? t->config->refresh_ms : 200);
    pthread_mutex_lock(&t->lock);
    while (!t->wanted && !t->stop)
        if (pthread_cond_timedwait(&t->wake, &t->lock, &deadline) == ETIMEDOUT) break;
    t->wanted = false;
    atomic_store(&t->asked, false);
    bool go_on = !t->stop;
    pthread_mutex_unlock(&t->lock);
    return go_on;
}

static void *run(void *arg)
{
    struct topology *t = arg;
    pthread_setname_np(pthread_self(), "topology");
    do look(t);
    while (sleep_until_wanted(t));
    return NULL;
}

struct topology *topology_create(const struct proxy_config *config,
                                 void (*changed)(void *ctx, struct topology_map *map), void *ctx)
{
    struct topology *t = mem_calloc(1, sizeof *t);
    t->config = config;
    t->changed = changed;
    t->ctx = ctx;
    uint64_t seed;
    random_secure(&seed, sizeof seed);
    random_seed(&t->rng, seed);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&t->wake, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&t->lock, NULL);
    return t;
}

void topology_start(struct topology *t)
{
    if (pthread_create(&t->thread, NULL, run, t)) mem_abort(0);
}

void topology_refresh(struct topology *t)
{
    if (atomic_exchange(&t->asked, true)) return;
    pthread_mutex_lock(&t->lock);
    t->wanted = true;
    pthread_cond_signal(&t->wake);
    pthread_mutex_unlock(&t->lock);
}

void topology_stop(struct topology *t)
{
    pthread_mutex_lock(&t->lock);
    t->stop = true;
    pthread_cond_signal(&t->wake);
    pthread_mutex_unlock(&t->lock);
    pthread_join(t->thread, NULL);
}

void topology_destroy(struct topology *t)
{
    topology_map_release(t->map);
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->lock);
    mem_free(t);
}
