/* beside.c: what the proxy inside the node's process is to do, from the node's own configuration.
 *
 * It is a client of this node and of the others.  To this one it has connections of its own inside the process, which
 * are clients like any other but for how they came.  Its clients are the node's users, and their
 * rights must not be more than what they have at the node's own port: the proxy has a copy of the node's users, which
 * every change of those renews, and judges by it before it asks a node.  With an ACL file it logs in to the nodes as
 * masteruser; without one as the default user, whose rights then bound everybody's. */
#include "server/beside.h"

#include "acl/acl.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/conn.h"

#include <stdio.h>

enum { SETTINGS_MAX = 128, ADDRESSES_MAX = 16, PINNED = 1024 };

struct settings {
    char *argv[SETTINGS_MAX]; /* owned */
    int argc;
};

static void add(struct settings *s, const char *name, const char *value)
{
    struct buf option = {0};
    buf_printf(&option, "--%s%c", name, '\0');
    s->argv[s->argc++] = option.p;
    s->argv[s->argc++] = mem_strdup(value);
}

static void add_number(struct settings *s, const char *name, int64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)value);
    add(s, name, text);
}

/* An option of the same name and meaning, if it says anything. */
static void add_same(struct settings *s, struct config *cfg, enum config_id id, const char *name)
{
    char *value = config_cstr(cfg, id);
    if (*value) add(s, name, value);
    mem_free(value);
}

static bool is_wildcard(const char *host)
{
    return strcmp(host, "*") == 0 || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0 ||
           strcmp(host, "::*") == 0;
}

static void address(char *out, size_t size, const char *host, int64_t port, const char *words)
{
    snprintf(out, size, strchr(host, ':') ? "[%s]:%lld%s" : "%s:%lld%s", host, (long long)port, words);
}

/* Where the node listens; what may be missing there is left out here.  A node that nobody has secured listens to its
 * own host only, and so does its proxy. */
static void add_addresses(struct settings *s, struct node *n, int64_t port, bool tls)
{
    char text[300], seed[300];
    char *bind = config_cstr(n->config, CFG_BIND), *state = NULL;
    int64_t own = config_num(n->config, tls ? CFG_TLS_PORT : CFG_PORT);
    bool is_protected = config_bool(n->config, CFG_PROTECTED_MODE) && atomic_load(&n->open_to_all);
    address(seed, sizeof seed, "127.0.0.1", own, "");
    if (is_protected) {
        address(text, sizeof text, "127.0.0.1", port, tls ? " tls" : "");
        add(s, "listen", text);
    }
    bool first = true;
    for (char *host = strtok_r(bind, " ", &state); host && s->argc < 2 * ADDRESSES_MAX;
         host = strtok_r(NULL, " ", &state)) {
        if (*host == '-') continue;
        if (first && !is_wildcard(host)) address(seed, sizeof seed, host, own, "");
        first = false;
        address(text, sizeof text, strcmp(host, "::*") == 0 ? "::" : host, port, tls ? " tls" : "");
        if (!is_protected) add(s, "listen", text);
        if (is_protected && strncmp(host, "127.", 4) != 0)
            log_notice("protected-mode: the proxy does not listen on %s, but on 127.0.0.1", host);
    }
    if (first && !is_protected) {
        address(text, sizeof text, "*", port, tls ? " tls" : "");
        add(s, "listen", text);
    }
    add(s, "cluster", seed);
    mem_free(bind);
}

/* Of the same name and meaning at the proxy. */
static const struct {
    enum config_id id;
    const char *name;
} tls_same[] = {
    {CFG_TLS_CERT_FILE, "tls-cert-file"},
    {CFG_TLS_KEY_FILE, "tls-key-file"},
    {CFG_TLS_KEY_FILE_PASS, "tls-key-file-pass"},
    {CFG_TLS_CLIENT_CERT_FILE, "tls-client-cert-file"},
    {CFG_TLS_CLIENT_KEY_FILE, "tls-client-key-file"},
    {CFG_TLS_CLIENT_KEY_FILE_PASS, "tls-client-key-file-pass"},
    {CFG_TLS_CA_CERT_FILE, "tls-ca-cert-file"},
    {CFG_TLS_CA_CERT_DIR, "tls-ca-cert-dir"},
    {CFG_TLS_AUTH_CLIENTS, "tls-auth-clients"},
    {CFG_TLS_PROTOCOLS, "tls-protocols"},
    {CFG_TLS_CIPHERS, "tls-ciphers"},
    {CFG_TLS_CIPHERSUITES, "tls-ciphersuites"},
};
enum { TLS_SAME = sizeof tls_same / sizeof *tls_same };

static void add_tls(struct settings *s, struct config *cfg)
{
    add(s, "backend-tls", "yes");
    for (size_t i = 0; i < TLS_SAME; i++) add_same(s, cfg, tls_same[i].id, tls_same[i].name);
}

static void add_login(struct settings *s, struct config *cfg)
{
    bool has_file = !config_text_is_empty(cfg, CFG_ACLFILE), has_user = !config_text_is_empty(cfg, CFG_MASTERUSER);
    if (has_file && has_user) {
        add_same(s, cfg, CFG_MASTERUSER, "node-user");
        add_same(s, cfg, CFG_MASTERAUTH, "node-password");
    } else {
        add_same(s, cfg, has_file ? CFG_MASTERAUTH : CFG_REQUIREPASS, "node-password");
    }
}

static void add_metrics(struct settings *s, struct config *cfg)
{
    if (config_num(cfg, CFG_PROXY_METRICS_PORT) == 0) return;
    add_number(s, "metrics-port", config_num(cfg, CFG_PROXY_METRICS_PORT));
    add_same(s, cfg, CFG_PROXY_METRICS_BIND, "metrics-bind");
}

int64_t beside_fds(const struct config *cfg)
{
    return config_num(cfg, CFG_PROXY_PORT) ? config_num(cfg, CFG_MAXCLIENTS) + 2 * PINNED : 0;
}

static struct settings make_settings(struct node *n)
{
    struct config *cfg = n->config;
    struct settings s = {.argc = 0};
    bool tls = config_num(cfg, CFG_PORT) == 0;
    s.argv[s.argc++] = mem_strdup("proxy");
    add_addresses(&s, n, config_num(cfg, CFG_PROXY_PORT), tls);
    if (tls) add_tls(&s, cfg);
    add_login(&s, cfg);
    add_metrics(&s, cfg);
    add_number(&s, "workers", n->worker_count);
    add_number(&s, "maxclients", config_num(cfg, CFG_MAXCLIENTS));
    add_number(&s, "pinned-connections", PINNED);
    add_number(&s, "proto-max-bulk-len", config_num(cfg, CFG_PROTO_MAX_BULK_LEN));
    return s;
}

static void settings_free(struct settings *s)
{
    for (int i = 0; i < s->argc; i++) mem_free(s->argv[i]);
}

/* A worker of the proxy's and one of the node's belong together, so that all have the same share.  It is not refused
 * for maxclients, which is for those who come from outside: the proxy has bounds of its own. */
static int connect_here(void *node, unsigned worker)
{
    struct node *n = node;
    int ends[2];
    if (!net_pair(ends)) return -1;
    atomic_fetch_add(&n->stats.connections_received, 1);
    atomic_fetch_add(&n->client_count, 1);
    worker_adopt(n->workers[worker % (unsigned)n->worker_count], ends[1], CONN_BESIDE);
    return ends[0];
}

bool beside_start(struct node *n, const struct server_beside *beside)
{
    int64_t port = config_num(n->config, CFG_PROXY_PORT);
    if (port == 0) return true;
    if (config_num(n->config, CFG_PORT) == 0 && config_num(n->config, CFG_TLS_PORT) == 0) {
        log_warning("proxy-port: the node itself listens on no port, so that its proxy could not reach it");
        return false;
    }
    struct settings s = make_settings(n);
    void *proxy = beside->start_proxy(s.argc, s.argv, acl_copy(n->acl), connect_here, n);
    settings_free(&s);
    if (!proxy) return false;
    n->beside = beside;
    n->proxy = proxy;
    log_notice("Ready to accept plain clients of the whole cluster on port %lld", (long long)port);
    return true;
}

void beside_users_changed(struct node *n, bool renewed)
{
    if (n->proxy) n->beside->change_users(n->proxy, acl_copy(n->acl), renewed);
}

void beside_map_changed(struct node *n)
{
    if (n->proxy) n->beside->map_changed(n->proxy);
}

/* A cluster's map says it too. */
void beside_role_changed(struct node *n)
{
    if (!n->cluster) beside_map_changed(n);
}

void beside_leave(struct node *n, bool on)
{
    if (n->proxy) n->beside->leave(n->proxy, on);
}

int64_t beside_clients(const struct node *n)
{
    return n->proxy ? n->beside->clients(n->proxy) : 0;
}

static bool matters(enum config_id id)
{
    for (size_t i = 0; i < TLS_SAME; i++)
        if (tls_same[i].id == id) return true;
    return id == CFG_BIND || id == CFG_PROTECTED_MODE || id == CFG_REQUIREPASS || id == CFG_MASTERUSER ||
           id == CFG_MASTERAUTH || id == CFG_MAXCLIENTS || id == CFG_PROTO_MAX_BULK_LEN;
}

void beside_reconfigure(struct node *n, enum config_id id)
{
    if (!n->proxy || !matters(id)) return;
    struct settings s = make_settings(n);
    n->beside->configure(n->proxy, s.argc, s.argv);
    settings_free(&s);
}
