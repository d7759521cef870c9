#include "pool/conf_values.h"

#include "base/mem.h"

#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

enum value_kind {
    VALUE_LISTEN,
    VALUE_HASH,
    VALUE_TAG,
    VALUE_DISTRIBUTION,
    VALUE_NUMBER,
    VALUE_BOOL,
    VALUE_TEXT,
    VALUE_SERVER
};

enum { MEMCACHED_PORT = 11211 };

static const struct directive {
    const char *key;
    enum value_kind kind;
    size_t offset; /* of a number, bool or text */
} directives[] = {
    {"listen", VALUE_LISTEN, 0},
    {"hash", VALUE_HASH, 0},
    {"hash_tag", VALUE_TAG, 0},
    {"distribution", VALUE_DISTRIBUTION, 0},
    {"timeout", VALUE_NUMBER, offsetof(struct pool_conf, timeout_ms)},
    {"backlog", VALUE_NUMBER, offsetof(struct pool_conf, backlog)},
    {"client_connections", VALUE_NUMBER, offsetof(struct pool_conf, client_connections)},
    {"tcpkeepalive", VALUE_BOOL, offsetof(struct pool_conf, tcpkeepalive)},
    {"reuseport", VALUE_BOOL, offsetof(struct pool_conf, reuseport)},
    {"redis", VALUE_BOOL, offsetof(struct pool_conf, redis)},
    {"redis_auth", VALUE_TEXT, offsetof(struct pool_conf, redis_auth)},
    {"redis_db", VALUE_NUMBER, offsetof(struct pool_conf, redis_db)},
    {"preconnect", VALUE_BOOL, offsetof(struct pool_conf, preconnect)},
    {"auto_eject_hosts", VALUE_BOOL, offsetof(struct pool_conf, auto_eject_hosts)},
    {"server_connections", VALUE_NUMBER, offsetof(struct pool_conf, server_connections)},
    {"server_retry_timeout", VALUE_NUMBER, offsetof(struct pool_conf, server_retry_timeout_ms)},
    {"server_failure_limit", VALUE_NUMBER, offsetof(struct pool_conf, server_failure_limit)},
    {"servers", VALUE_SERVER, 0},
};

void conf_values_init(struct conf_values *v, struct pool_conf *pool)
{
    *v = (struct conf_values){.pool = pool};
    *pool = (struct pool_conf){
        .listen_mode = -1,
        .hash = POOL_HASH_FNV1A_64,
        .distribution = POOL_KETAMA,
        .timeout_ms = -1,
        .backlog = 512,
        .server_connections = 1,
        .server_failure_limit = 2,
        .server_retry_timeout_ms = 30 * 1000,
    };
}

static const struct directive *find(struct bytes key)
{
    for (size_t i = 0; i < sizeof directives / sizeof *directives; i++)
        if (bytes_eq(key, bytes_of(directives[i].key))) return &directives[i];
    return NULL;
}

bool conf_values_known(struct bytes key)
{
    return find(key) != NULL;
}

bool conf_values_is_list(struct bytes key)
{
    const struct directive *d = find(key);
    return d && d->kind == VALUE_SERVER;
}

/* Digits only; -1: not that, or too large. */
static int whole_number(struct bytes b)
{
    int64_t n = 0;
    if (b.n == 0) return -1;
    for (size_t i = 0; i < b.n; i++) {
        if (b.p[i] < '0' || b.p[i] > '9') return -1;
        n = n * 10 + (b.p[i] - '0');
        if (n > INT_MAX) return -1;
    }
    return (int)n;
}

/* Cuts *b at the last `c`: what stands behind it is returned.  False: there is none. */
static bool cut_last(struct bytes *b, char c, struct bytes *behind)
{
    const char *at = b->n > 0 ? memrchr(b->p, c, b->n) : NULL;
    if (!at) return false;
    *behind = bytes_make(at + 1, (size_t)(b->p + b->n - at - 1));
    b->n = (size_t)(at - b->p);
    return true;
}

static enum status set_listen(struct pool_conf *pool, struct bytes value, const char **why)
{
    struct bytes host = value, behind;
    if (value.n > 0 && value.p[0] == '/') {
        if (cut_last(&host, ' ', &behind)) {
            int mode = 0;
            for (size_t i = 0; i < behind.n && mode <= 0777; i++)
                mode = behind.p[i] >= '0' && behind.p[i] <= '7' ? mode * 8 + (behind.p[i] - '0') : 01000;
            *why = "has an invalid file permission in \"socket_path permission\" format string";
            if (behind.n == 0 || mode > 0777) return E_INVALID;
            pool->listen_mode = mode;
        }
    } else {
        *why = "has an invalid \"hostname:port\" format string";
        if (!cut_last(&host, ':', &behind) || host.n == 0) return E_INVALID;
        pool->listen_port = whole_number(behind);
        *why = "has an invalid port in \"hostname:port\" format string";
        if (pool->listen_port < 1 || pool->listen_port > 65535) return E_INVALID;
    }
    pool->listen = bytes_dup_cstr(value);
    pool->listen_host = bytes_dup_cstr(host);
    return OK;
}

static struct pool_server *add_server(struct conf_values *v)
{
    struct pool_conf *pool = v->pool;
    if (pool->servers_n == v->servers_cap) {
        size_t cap = v->servers_cap ? 2 * v->servers_cap : 8;
        struct pool_server *s = mem_try_realloc(pool->servers, cap * sizeof *s);
        if (!s) return NULL;
        pool->servers = s, v->servers_cap = cap;
    }
    return memset(&pool->servers[pool->servers_n++], 0, sizeof(struct pool_server));
}

#define SERVER_FORM "\"hostname:port:weight [name]\" or \"/path/unix_socket:weight [name]\" format string"

/* "host:port:weight [name]" or "/path:weight [name]", taken apart from the end. */
static enum status add_server_text(struct conf_values *v, struct bytes value, const char **why)
{
    struct bytes host, name = {0}, port = {0}, weight = {0};
    bool is_path = value.n > 0 && value.p[0] == '/', named = cut_last(&value, ' ', &name);
    host = value;
    *why = "has an invalid " SERVER_FORM;
    if (!cut_last(&host, ':', &weight) || (!is_path && !cut_last(&host, ':', &port)) || host.n == 0) return E_INVALID;
    if (named && name.n == 0) return E_INVALID;
    if (is_path && memchr(host.p, ':', host.n)) return E_INVALID; /* as nutcracker, which takes it for a port */
    int weight_n = whole_number(weight), port_n = is_path ? 0 : whole_number(port);
    *why = "has an invalid weight in " SERVER_FORM;
    if (weight_n < 0) return E_INVALID;
    *why = "has a zero weight in " SERVER_FORM;
    if (weight_n == 0) return E_INVALID;
    *why = "has an invalid port in " SERVER_FORM;
    if (!is_path && (port_n < 1 || port_n > 65535)) return E_INVALID;
    *why = "has more servers than can be";
    if (v->pool->servers_n == RING_SERVERS_MAX) return E_INVALID;
    if (!named) name = is_path ? host : bytes_make(value.p, host.n + (port_n == MEMCACHED_PORT ? 0 : 1 + port.n));
    struct pool_server *s = add_server(v);
    if (!s) return E_NOMEM;
    s->address = bytes_dup_cstr(value);
    s->name = bytes_dup_cstr(name);
    s->host = bytes_dup_cstr(host);
    s->port = port_n;
    s->weight = (uint32_t)weight_n;
    return OK;
}

static enum status set_bool(bool *out, struct bytes value, const char **why)
{
    *why = "is not \"true\" or \"false\"";
    *out = bytes_eq(value, BYTES("true"));
    return *out || bytes_eq(value, BYTES("false")) ? OK : E_INVALID;
}

static enum status set_tag(struct pool_conf *pool, struct bytes value, const char **why)
{
    *why = "is not a valid hash tag string with two characters";
    if (value.n != 2) return E_INVALID;
    memcpy(pool->hash_tag, value.p, 2);
    pool->hash_tagged = true;
    return OK;
}

static enum status set_plain(struct pool_conf *pool, const struct directive *d, struct bytes value, const char **why)
{
    char *field = (char *)pool + d->offset;
    if (d->kind == VALUE_BOOL) return set_bool((bool *)field, value, why);
    if (d->kind == VALUE_TEXT) {
        *why = "is empty";
        if (value.n == 0) return E_INVALID;
        *(char **)field = bytes_dup_cstr(value);
        return OK;
    }
    *why = "is not a number";
    int n = whole_number(value);
    if (n < 0) return E_INVALID;
    *(int *)field = n;
    return OK;
}

enum status conf_values_set(struct conf_values *v, struct bytes key, struct bytes value, const char **why)
{
    const struct directive *d = find(key);
    uint32_t bit = (uint32_t)1 << (d - directives);
    *why = "is a duplicate";
    if ((v->seen & bit) && d->kind != VALUE_SERVER) return E_INVALID;
    v->seen |= bit;
    *why = "has a byte of value 0";
    if (value.n > 0 && memchr(value.p, 0, value.n)) return E_INVALID;
    switch (d->kind) {
    case VALUE_LISTEN: return set_listen(v->pool, value, why);
    case VALUE_HASH: *why = "is not a valid hash"; return pool_hash_find(value, &v->pool->hash) ? OK : E_INVALID;
    case VALUE_TAG: return set_tag(v->pool, value, why);
    case VALUE_DISTRIBUTION:
        *why = "is not a valid distribution";
        return pool_distribution_find(value, &v->pool->distribution) ? OK : E_INVALID;
    case VALUE_SERVER: return add_server_text(v, value, why);
    case VALUE_NUMBER:
    case VALUE_BOOL:
    case VALUE_TEXT: break;
    }
    return set_plain(v->pool, d, value, why);
}

int conf_values_compare_names(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    if (n != m) return n < m ? -1 : 1;
    return memcmp(a, b, n);
}

static int compare_servers(const void *a, const void *b)
{
    return conf_values_compare_names(((const struct pool_server *)a)->name, ((const struct pool_server *)b)->name);
}

enum status conf_values_finish(struct conf_values *v, char text[160], const char **why)
{
    struct pool_conf *p = v->pool;
    *why = "directive \"listen\" is missing";
    if (!p->listen) return E_INVALID;
    *why = "has no servers";
    if (p->servers_n == 0) return E_INVALID;
    *why = "directive \"server_connections\" cannot be 0";
    if (p->server_connections == 0) return E_INVALID;
    *why = "directive \"redis_auth\" is only valid for a redis pool";
    if (p->redis_auth && !p->redis) return E_INVALID;
    qsort(p->servers, p->servers_n, sizeof *p->servers, compare_servers);
    for (size_t i = 1; i < p->servers_n; i++)
        if (compare_servers(&p->servers[i - 1], &p->servers[i]) == 0) {
            snprintf(text, 160, "has servers with the same name '%.100s'", p->servers[i].name);
            *why = text;
            return E_INVALID;
        }
    return OK;
}
