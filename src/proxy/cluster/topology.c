#include "proxy/cluster/topology.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/number.h"
#include "base/random.h"
#include "net/tls.h"

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
    PAUSE_MS = 50,         /* between two looks that were asked for */
    OWN_PAUSE_MS = 5,      /* between two looks at what the own node has news of */
    OWN_PATIENCE_MS = 200, /* for the own node to have news, before others are asked */
    SIDE_REPLY_MS = 300,   /* what is good to know, and not needed */
    REPLY_MAX = 64 * 1024 * 1024,
    NODES_MAX = 4096,
    DATABASES_ASKED_MAX = 3,
    DATABASES_MAX = 65535,
};

struct topology {
    struct proxy_config *config; /* of the thread; held */
    struct tls *tls;             /* towards the nodes */
    const struct own_node *own;
    void (*changed)(void *ctx, struct topology_map *map);
    void *ctx;
    struct random rng;
    struct topology_map *map;      /* the last one; of the thread */
    struct topology_map *own_map;  /* the last one of the own node; of the thread */
    char own_id[NODE_ID_SIZE + 1]; /* of the thread */
    unsigned databases;            /* 0: not known yet */
    unsigned databases_asked;
    bool complained;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;             /* monotonic clock */
    bool wanted, own_news, stop;     /* under the lock */
    struct proxy_config *new_config; /* under the lock; held; NULL: none */
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
    for (int i = 0; i < m->replica_count; i++) mem_free(m->replicas[i].name);
    mem_free(m->nodes);
    mem_free(m->replicas);
    mem_free(m);
}

static struct topology_map *map_create(void)
{
    struct topology_map *m = mem_calloc(1, sizeof *m);
    atomic_store(&m->refs, 1);
    memset(m->slot, 0xff, sizeof m->slot);
    m->databases = 1;
    return m;
}

/* The index of a node, which is added when it is new; NO_NODE: there are too many. */
static uint16_t map_node_index(struct topology_map *m, struct bytes name, int port)
{
    for (uint16_t i = 0; i < m->count; i++)
        if (m->nodes[i].port == port && bytes_eq(bytes_of(m->nodes[i].name), name)) return i;
    if (m->count == NODES_MAX) return NO_NODE;
    m->nodes = mem_realloc(m->nodes, (m->count + 1u) * sizeof *m->nodes);
    m->nodes[m->count] = (struct map_node){.name = bytes_dup_cstr(name), .port = port, .primary = NO_NODE};
    return m->count++;
}

struct endpoint {
    struct bytes name; /* n == 0: nobody knows */
    struct bytes id;   /* n == 0: not told */
    int port;
    char spoken[64];
};

static void set_id(struct map_node *n, struct bytes id)
{
    snprintf(n->id, sizeof n->id, "%.*s", (int)id.n, id.n ? id.p : "");
}

static bool add_replica(struct topology_map *m, const struct endpoint *e, uint16_t primary)
{
    struct bytes name = e->name;
    int port = e->port;
    for (uint16_t i = 0; i < m->replica_count; i++)
        if (m->replicas[i].port == port && bytes_eq(bytes_of(m->replicas[i].name), name)) return true;
    if (m->replica_count == NODES_MAX) return false;
    m->replicas = mem_realloc(m->replicas, (m->replica_count + 1u) * sizeof *m->replicas);
    struct map_node *n = &m->replicas[m->replica_count++];
    *n = (struct map_node){.name = bytes_dup_cstr(name), .port = port, .primary = primary};
    memcpy(n->spoken, e->spoken, sizeof n->spoken);
    set_id(n, e->id);
    return true;
}

static bool is_address(const char *text)
{
    struct in6_addr any;
    return inet_pton(AF_INET, text, &any) == 1 || inet_pton(AF_INET6, text, &any) == 1;
}

/* One node of CLUSTER SLOTS: endpoint, port, id, and pairs that say what else it is called.  False: it is none. */
static bool read_endpoint(const struct resp_value *v, const char *asked, struct endpoint *out)
{
    *out = (struct endpoint){0};
    if (v->type != RESP_ARRAY || v->n < 2 || v->child[1].type != RESP_INTEGER) return false;
    int64_t port = v->child[1].i64;
    struct bytes name = v->child[0].str;
    const struct resp_value *ip = v->n > 3 ? resp_map_get(&v->child[3], "ip") : NULL;
    if (ip && ip->type == RESP_BULK && ip->str.n < sizeof out->spoken && !memchr(ip->str.p, '\0', ip->str.n)) {
        memcpy(out->spoken, ip->str.p, ip->str.n);
        if (!is_address(out->spoken)) out->spoken[0] = '\0';
    }
    if (v->n > 2 && v->child[2].type == RESP_BULK && v->child[2].str.n == NODE_ID_SIZE) out->id = v->child[2].str;
    if (v->child[0].type != RESP_BULK || name.n == 0) name = bytes_of(asked);
    if (port < 1 || port > 65535 || name.n > 255 || memchr(name.p, '\0', name.n)) return false;
    /* Announced by a name that it does not have: by its address then, if that is said. */
    if (bytes_eq(name, BYTES("?"))) name = bytes_of(out->spoken);
    out->name = name;
    out->port = (int)port;
    return true;
}

static bool read_range(struct topology_map *m, const struct resp_value *v, const char *asked)
{
    if (v->type != RESP_ARRAY || v->n < 3 || v->child[0].type != RESP_INTEGER || v->child[1].type != RESP_INTEGER)
        return false;
    int64_t first = v->child[0].i64, last = v->child[1].i64;
    struct endpoint e;
    if (first < 0 || last < first || last >= SLOT_COUNT || !read_endpoint(&v->child[2], asked, &e)) return false;
    if (!e.name.n) return true; /* nobody to ask */
    uint16_t index = map_node_index(m, e.name, e.port);
    if (index == NO_NODE) return false;
    memcpy(m->nodes[index].spoken, e.spoken, sizeof e.spoken);
    set_id(&m->nodes[index], e.id);
    for (int64_t s = first; s <= last; s++) {
        if (m->slot[s] == NO_NODE) {
            m->covered++;
            m->nodes[index].slots++;
        }
        m->slot[s] = index;
    }
    for (size_t i = 3; i < v->n; i++) {
        if (!read_endpoint(&v->child[i], asked, &e)) return false;
        if (e.name.n && !add_replica(m, &e, index)) return false;
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

/* The text up to the next of these characters, which is skipped. */
static struct bytes cut(struct bytes *text, const char *ends)
{
    size_t n = 0;
    while (n < text->n && !strchr(ends, text->p[n])) n++;
    struct bytes head = bytes_make(text->p, n);
    if (n < text->n) n++;
    *text = bytes_make(text->p + n, text->n - n);
    return head;
}

/* "id ip:port@bus,hostname,... flags ..." */
static void read_node_line(struct topology_map *m, struct bytes line, const char *own_id)
{
    struct bytes id = cut(&line, " ");
    bool is_own = bytes_eq(id, bytes_of(own_id));
    struct bytes where = cut(&line, " "), flags = cut(&line, " ");
    struct bytes place = cut(&where, ","), host = cut(&where, ","), address = cut(&place, "@");
    struct address a;
    if (memmem(flags.p, flags.n, "master", 6) == NULL || memmem(flags.p, flags.n, "noaddr", 6)) return;
    if (host.n == 0 && !is_own) return;
    if (host.n > 255 || memchr(host.p, '=', host.n) || memchr(host.p, '\0', host.n)) return;
    if (!address_parse(address, &a)) return;
    if (host.n == 0) host = bytes_of(a.host);
    uint16_t index = host.n ? map_node_index(m, host, a.port) : NO_NODE;
    if (index != NO_NODE && id.n == NODE_ID_SIZE) set_id(&m->nodes[index], id);
    if (index != NO_NODE && !*m->nodes[index].spoken && is_address(a.host))
        snprintf(m->nodes[index].spoken, sizeof m->nodes[index].spoken, "%s", a.host);
    mem_free(a.host);
}

void topology_map_read_nodes(struct topology_map *m, struct bytes text, const char *own_id)
{
    while (text.n) read_node_line(m, cut(&text, "\n"), own_id);
}

static void mark_own(struct map_node *nodes, int count, const char *own_id)
{
    for (int i = 0; i < count; i++) nodes[i].is_own = *own_id && strcmp(nodes[i].id, own_id) == 0;
}

void topology_map_mark_own(struct topology_map *m, const char *own_id)
{
    mark_own(m->nodes, m->count, own_id);
    mark_own(m->replicas, m->replica_count, own_id);
}

static struct topology_map *map_of_one(const char *name, int port)
{
    struct topology_map *m = map_create();
    map_node_index(m, bytes_of(name), port);
    memset(m->slot, 0, sizeof m->slot);
    m->covered = m->nodes[0].slots = SLOT_COUNT;
    m->standalone = true;
    return m;
}

static bool same_nodes(const struct map_node *a, const struct map_node *b, int n)
{
    for (int i = 0; i < n; i++)
        if (a[i].port != b[i].port || a[i].primary != b[i].primary || a[i].is_own != b[i].is_own ||
            strcmp(a[i].name, b[i].name) != 0 || strcmp(a[i].ip, b[i].ip) != 0)
            return false;
    return true;
}

static bool same_map(const struct topology_map *a, const struct topology_map *b)
{
    return a && b && a->count == b->count && a->replica_count == b->replica_count && a->standalone == b->standalone &&
           a->databases == b->databases && memcmp(a->slot, b->slot, sizeof a->slot) == 0 &&
           same_nodes(a->nodes, b->nodes, a->count) && same_nodes(a->replicas, b->replicas, a->replica_count);
}

static bool same_node(const struct map_node *a, const struct map_node *b)
{
    if (*a->id && *b->id) return strcmp(a->id, b->id) == 0;
    return a->port == b->port && strcmp(a->name, b->name) == 0;
}

bool topology_maps_agree(const struct topology_map *a, const struct topology_map *b)
{
    uint16_t x = NO_NODE, y = NO_NODE; /* were the same of the slot before */
    if (a->standalone != b->standalone) return false;
    for (unsigned s = 0; s < SLOT_COUNT; s++) {
        if (a->slot[s] == x && b->slot[s] == y) continue;
        x = a->slot[s], y = b->slot[s];
        if ((x == NO_NODE) != (y == NO_NODE)) return false;
        if (x != NO_NODE && !same_node(&a->nodes[x], &b->nodes[y])) return false;
    }
    return true;
}

/* Names are looked up at every look, so that a node that comes back elsewhere is found.  Where a name cannot be looked
 * up here, the address that the cluster knows has to do. */
static void resolve(struct map_node *n)
{
    if (is_address(n->name)) {
        snprintf(n->ip, sizeof n->ip, "%.63s", n->name);
        return;
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    if (getaddrinfo(n->name, NULL, &hints, &found) == 0) {
        if (getnameinfo(found->ai_addr, found->ai_addrlen, n->ip, sizeof n->ip, NULL, 0, NI_NUMERICHOST) != 0)
            n->ip[0] = '\0';
        freeaddrinfo(found);
    }
    if (!*n->ip) memcpy(n->ip, n->spoken, sizeof n->ip);
}

/* ---- asking one node ---- */

/* A connection. */
struct line {
    int fd;
    struct tls_session *tls; /* NULL: plain */
    bool is_own;             /* to the own node */
};

static bool send_all(struct line *at, struct bytes b)
{
    size_t put;
    return stream_write(at->fd, at->tls, b.p, b.n, &put) == OK && put == b.n; /* a fresh socket takes a few lines */
}

/* The next reply, or NULL. */
static struct resp_value *receive(struct line *at, struct buf *in, int64_t deadline)
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
        bool waits = !at->tls || !tls_has_more(at->tls);
        if (waits && stream_wait(at->fd, at->tls, NET_READ, deadline) == E_IO) return NULL;
        size_t got;
        buf_reserve(in, 16 * 1024);
        st = stream_read(at->fd, at->tls, in, 1 << 20, &got);
        if (st != OK && st != E_AGAIN) return NULL;
    }
}

/* Sends and receives; NULL: no reply in time. */
static struct resp_value *question(struct line *at, struct buf *in, int64_t ms, const char *first, const char *second,
                                   const char *third)
{
    struct buf out = {0};
    resp_request_cstr(&out, third ? 3 : second ? 2 : 1, first, second, third);
    struct resp_value *v = send_all(at, buf_bytes(&out)) ? receive(at, in, clock_mono_ms() + ms) : NULL;
    buf_deinit(&out);
    return v;
}

static unsigned number_in(const struct resp_value *v, const char *name)
{
    int64_t n;
    const struct resp_value *found = v ? resp_map_get(v, name) : NULL;
    if (!found || found->type != RESP_BULK || !parse_i64(found->str, &n) || n < 1) return 0;
    return n > DATABASES_MAX ? DATABASES_MAX : (unsigned)n;
}

/* A node that does not show its settings may still tell by SELECT that it has the usual number. */
static unsigned ask_databases(struct line *at, struct buf *in, bool standalone)
{
    const char *option = standalone ? "databases" : "cluster-databases";
    struct resp_value *v = question(at, in, SIDE_REPLY_MS, "CONFIG", "GET", option);
    unsigned n = number_in(v, option);
    bool refused = v && v->type == RESP_ERROR, answered = v && v->type == RESP_ARRAY;
    resp_value_free(v);
    if (n) return n;
    if (!standalone) return answered || refused ? 1 : 0;
    if (!refused) return 0;
    v = question(at, in, SIDE_REPLY_MS, "SELECT", "15", NULL);
    n = resp_is_status(v, "OK") ? 16 : v ? 1 : 0;
    resp_value_free(v);
    return n;
}

static unsigned databases_of(struct topology *t, struct line *at, struct buf *in, bool standalone)
{
    if (!t->databases && t->databases_asked < DATABASES_ASKED_MAX) {
        t->databases_asked++;
        t->databases = ask_databases(at, in, standalone);
    }
    return t->databases ? t->databases : 1;
}

/* What ROLE says of a server without cluster mode.  NULL: it is a replica whose primary is *primary (if its port is not
 * 0), or says nothing. */
static struct topology_map *read_role(const struct resp_value *v, const char *name, int port, struct endpoint *primary)
{
    if (!v || v->type != RESP_ARRAY || v->n < 1 || v->child[0].type != RESP_BULK) return map_of_one(name, port);
    bool is_replica = bytes_eq(v->child[0].str, BYTES("slave"));
    if (is_replica && v->n > 2 && v->child[1].type == RESP_BULK && v->child[2].type == RESP_INTEGER &&
        v->child[1].str.n < sizeof primary->spoken && v->child[2].i64 > 0 && v->child[2].i64 <= 65535) {
        snprintf(primary->spoken, sizeof primary->spoken, "%.*s", (int)v->child[1].str.n, v->child[1].str.p);
        primary->port = (int)v->child[2].i64;
    }
    if (is_replica) return NULL;
    struct topology_map *m = map_of_one(name, port);
    const struct resp_value *list = v->n > 2 ? &v->child[2] : NULL;
    for (size_t i = 0; list && list->type == RESP_ARRAY && i < list->n; i++) {
        const struct resp_value *r = &list->child[i];
        int64_t at;
        if (r->type != RESP_ARRAY || r->n < 2 || r->child[0].type != RESP_BULK || r->child[1].type != RESP_BULK)
            continue;
        if (!parse_i64(r->child[1].str, &at) || at < 1 || at > 65535 || r->child[0].str.n > 255) continue;
        if (memchr(r->child[0].str.p, '\0', r->child[0].str.n)) continue;
        add_replica(m, &(struct endpoint){.name = r->child[0].str, .port = (int)at}, 0);
    }
    return m;
}

static bool log_in(const struct proxy_config *c, struct line *at, struct buf *in, const char *name, int port)
{
    if (!*c->node_password) return true;
    struct resp_value *v = *c->node_user ? question(at, in, REPLY_MS, "AUTH", c->node_user, c->node_password)
                                         : question(at, in, REPLY_MS, "AUTH", c->node_password, NULL);
    if (v && !resp_is_status(v, "OK")) log_warning("%s:%d does not accept the proxy's password", name, port);
    bool answered = v != NULL;
    resp_value_free(v);
    return answered;
}

static bool has_names(const struct topology_map *m)
{
    for (int i = 0; i < m->count; i++)
        if (!is_address(m->nodes[i].name)) return true;
    return false;
}

/* A cluster says so in an error when there is none; old servers do not know the word. */
static bool has_no_cluster(const struct resp_value *v)
{
    return resp_is_error(v, "ERR") && (memmem(v->str.p, v->str.n, "cluster support disabled", 24) ||
                                       memmem(v->str.p, v->str.n, "unknown command", 15));
}

/* The id of the own node may be another one after CLUSTER RESET. */
static void ask_own_id(struct topology *t, struct line *at, struct buf *in)
{
    struct resp_value *v = question(at, in, SIDE_REPLY_MS, "CLUSTER", "MYID", NULL);
    if (v && v->type == RESP_BULK && v->str.n == NODE_ID_SIZE) memcpy(t->own_id, v->str.p, NODE_ID_SIZE);
    resp_value_free(v);
}

/* What CLUSTER SLOTS has not said of the nodes, or of those that serve nothing. */
static void ask_names(struct topology *t, struct line *at, struct buf *in, struct topology_map *m)
{
    struct resp_value *v = NULL;
    if (at->is_own) ask_own_id(t, at, in);
    if (at->is_own || has_names(m)) v = question(at, in, SIDE_REPLY_MS, "CLUSTER", "NODES", NULL);
    if (v && (v->type == RESP_BULK || v->type == RESP_VERBATIM)) topology_map_read_nodes(m, v->str, t->own_id);
    resp_value_free(v);
    topology_map_mark_own(m, t->own_id);
}

static struct topology_map *converse(struct topology *t, struct line *at, const char *name, int port,
                                     struct endpoint *primary)
{
    struct buf in = {0};
    struct topology_map *m = NULL;
    struct resp_value *v = NULL;
    if (!log_in(t->config, at, &in, name, port)) goto end;
    v = question(at, &in, REPLY_MS, "CLUSTER", "SLOTS", NULL);
    if (has_no_cluster(v)) {
        resp_value_free(v);
        v = question(at, &in, REPLY_MS, "ROLE", NULL, NULL);
        m = read_role(v, name, port, primary);
    } else {
        m = topology_map_read(v, name);
    }
    resp_value_free(v);
    if (!m) goto end;
    m->databases = databases_of(t, at, &in, m->standalone);
    if (m->standalone)
        m->nodes[0].is_own = at->is_own;
    else
        ask_names(t, at, &in, m);
end:
    buf_deinit(&in);
    return m;
}

static bool begin_tls(struct topology *t, struct line *at, const char *name, int port)
{
    struct buf error = {0};
    at->tls = tls_connect_wait(t->tls, at->fd, clock_mono_ms() + TLS_HANDSHAKE_MS, &error);
    if (!at->tls && !t->complained) log_warning("%s:%d: TLS: %.*s", name, port, (int)error.n, error.p);
    buf_deinit(&error);
    return at->tls != NULL;
}

static struct topology_map *ask(struct topology *t, const char *name, const char *ip, int port, bool follow);

/* Takes the connection. */
static struct topology_map *ask_at(struct topology *t, struct line *at, const char *name, int port, bool follow)
{
    struct endpoint primary = {0};
    struct topology_map *m = NULL;
    if (at->fd < 0) return NULL;
    if (at->is_own || !t->config->backend_tls || begin_tls(t, at, name, port))
        m = converse(t, at, name, port, &primary);
    tls_close(at->tls);
    close(at->fd);
    if (!m && primary.port && follow) return ask(t, primary.spoken, primary.spoken, primary.port, false);
    if (m && m->covered == 0) { /* a node that knows nobody */
        topology_map_release(m);
        return NULL;
    }
    for (int i = 0; m && i < m->count; i++) resolve(&m->nodes[i]);
    for (int i = 0; m && i < m->replica_count; i++) resolve(&m->replicas[i]);
    return m;
}

static struct topology_map *ask(struct topology *t, const char *name, const char *ip, int port, bool follow)
{
    struct line at = {.fd = net_connect_wait(ip, port, CONNECT_MS)};
    return ask_at(t, &at, name, port, follow);
}

static struct topology_map *ask_own(struct topology *t)
{
    const struct address *a = &t->config->seeds[0];
    struct line at = {.fd = t->own->connect(t->own->node, 0), .is_own = true};
    return ask_at(t, &at, a->host, a->port, true);
}

/* ---- the thread ---- */

/* One of those known: primaries, replicas, seeds. */
static struct topology_map *ask_one(struct topology *t, int which)
{
    const struct map_node *node = NULL;
    const struct topology_map *m = t->map;
    int count = m ? m->count : 0, replicas = m ? m->replica_count : 0;
    if (m && which < count)
        node = &m->nodes[which];
    else if (m && which < count + replicas)
        node = &m->replicas[which - count];
    if (node) return *node->ip && !node->is_own ? ask(t, node->name, node->ip, node->port, true) : NULL;
    if (t->own->connect) return NULL; /* the seed is the own node, which was asked */
    const struct address *seed = &t->config->seeds[which - count - replicas];
    return ask(t, seed->host, seed->host, seed->port, true);
}

/* Everybody known is asked in a random order until one answers: nobody's opinion is asked for ever.  Only a server
 * without cluster mode is left when it does not answer, or is a primary no more. */
static struct topology_map *ask_anybody(struct topology *t)
{
    int n = t->config->seed_count + (t->map ? t->map->count + t->map->replica_count : 0);
    int *order = mem_alloc((size_t)n * sizeof *order);
    for (int i = 0; i < n; i++) {
        int at = (int)random_below(&t->rng, (uint64_t)i + 1);
        order[i] = order[at];
        order[at] = i;
    }
    struct topology_map *m = t->map && t->map->standalone ? ask_one(t, 0) : NULL;
    for (int i = 0; i < n && !m; i++) m = ask_one(t, order[i]);
    mem_free(order);
    return m;
}

static int primaries(const struct topology_map *m)
{
    int n = 0;
    for (int i = 0; i < m->count; i++) n += m->nodes[i].slots > 0;
    return n;
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

/* Takes the map. */
static void adopt(struct topology *t, struct topology_map *m)
{
    t->complained = false;
    if (same_map(m, t->map)) {
        topology_map_release(m);
        return;
    }
    if (m->standalone)
        log_notice("%s:%d is a server without cluster mode", m->nodes[0].name, m->nodes[0].port);
    else
        log_notice("The cluster has %d primaries, %u of %d slots are served", primaries(m), m->covered, SLOT_COUNT);
    topology_map_release(t->map);
    t->map = m;
    t->changed(t->ctx, m);
}

/* True: nobody else has to be asked.  What the own node says is news when it is not what it said before.  Else it is
 * believed if nobody doubts it, and others have not said something else since. */
static bool look_at_own(struct topology *t, bool doubted)
{
    struct topology_map *m = ask_own(t);
    if (!m) return false;
    bool news = !same_map(m, t->own_map), alone = m->standalone && m->nodes[0].is_own;
    bool believed = news || alone || (!doubted && t->map && topology_maps_agree(m, t->map));
    topology_map_release(t->own_map);
    t->own_map = m;
    if (believed) adopt(t, topology_map_hold(m));
    return believed;
}

static bool own_has_news_soon(struct topology *t)
{
    struct timespec deadline;
    deadline_in(&deadline, OWN_PATIENCE_MS);
    pthread_mutex_lock(&t->lock);
    while (!t->own_news && !t->stop)
        if (pthread_cond_timedwait(&t->wake, &t->lock, &deadline) == ETIMEDOUT) break;
    bool news = t->own_news;
    t->own_news = false;
    pthread_mutex_unlock(&t->lock);
    return news;
}

/* doubted: somebody has asked for it, who has met something that the map does not say. */
static void look(struct topology *t, bool doubted)
{
    if (t->own->connect) {
        if (look_at_own(t, doubted)) return;
        if (t->map && doubted && own_has_news_soon(t) && look_at_own(t, true)) return;
    }
    struct topology_map *m = ask_anybody(t);
    if (m) {
        adopt(t, m);
        return;
    }
    if (!t->complained) log_warning("No node of the cluster answers");
    t->complained = true;
}

/* False: it is time to end. */
static bool sleep_until_wanted(struct topology *t, bool *doubted)
{
    struct timespec own_pause, pause, period;
    deadline_in(&own_pause, OWN_PAUSE_MS);
    deadline_in(&pause, PAUSE_MS);
    deadline_in(&period, t->map ? t->config->refresh_ms : 200);
    pthread_mutex_lock(&t->lock);
    while (!t->stop)
        if (pthread_cond_timedwait(&t->wake, &t->lock,
                                   t->own_news ? &own_pause
                                   : t->wanted ? &pause
                                               : &period) == ETIMEDOUT)
            break;
    *doubted = t->wanted;
    t->wanted = t->own_news = false;
    if (t->new_config) {
        proxy_config_release(t->config);
        t->config = t->new_config;
        t->new_config = NULL;
    }
    atomic_store(&t->asked, false);
    bool go_on = !t->stop;
    pthread_mutex_unlock(&t->lock);
    return go_on;
}

static void *run(void *arg)
{
    struct topology *t = arg;
    bool doubted = true;
    pthread_setname_np(pthread_self(), "topology");
    do look(t, doubted);
    while (sleep_until_wanted(t, &doubted));
    return NULL;
}

struct topology *topology_create(struct proxy_config *config, struct tls *tls, const struct own_node *own,
                                 void (*changed)(void *ctx, struct topology_map *map), void *ctx)
{
    struct topology *t = mem_calloc(1, sizeof *t);
    t->config = proxy_config_hold(config);
    t->tls = tls;
    t->own = own;
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

void topology_configure(struct topology *t, struct proxy_config *config)
{
    pthread_mutex_lock(&t->lock);
    proxy_config_release(t->new_config);
    t->new_config = proxy_config_hold(config);
    t->wanted = true;
    pthread_cond_signal(&t->wake);
    pthread_mutex_unlock(&t->lock);
}

void topology_refresh(struct topology *t)
{
    if (atomic_exchange(&t->asked, true)) return;
    pthread_mutex_lock(&t->lock);
    t->wanted = true;
    pthread_cond_signal(&t->wake);
    pthread_mutex_unlock(&t->lock);
}

void topology_own_changed(struct topology *t)
{
    pthread_mutex_lock(&t->lock);
    t->own_news = true;
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
    topology_map_release(t->own_map);
    proxy_config_release(t->config);
    proxy_config_release(t->new_config);
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->lock);
    mem_free(t);
}
