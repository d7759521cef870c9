/* network.c: TLS contexts and listening sockets as the configuration asks for them, at the start and at CONFIG SET.
 * Source of the order of the checks and their words: redis-server 7.0.15. */
#include "server/listen.h"

#include "base/log.h"
#include "base/mem.h"
#include "net/tls.h"

enum { TEXTS = 12 };

/* The options in the order of struct tls_config's texts. */
static const enum config_id texts[TEXTS] = {
    CFG_TLS_CERT_FILE,        CFG_TLS_KEY_FILE,        CFG_TLS_KEY_FILE_PASS,
    CFG_TLS_CLIENT_CERT_FILE, CFG_TLS_CLIENT_KEY_FILE, CFG_TLS_CLIENT_KEY_FILE_PASS,
    CFG_TLS_DH_PARAMS_FILE,   CFG_TLS_CA_CERT_FILE,    CFG_TLS_CA_CERT_DIR,
    CFG_TLS_PROTOCOLS,        CFG_TLS_CIPHERS,         CFG_TLS_CIPHERSUITES,
};

static bool tls_wanted(const struct config *cfg)
{
    return config_num(cfg, CFG_TLS_PORT) || config_bool(cfg, CFG_TLS_REPLICATION) || config_bool(cfg, CFG_TLS_CLUSTER);
}

static struct tls_contexts *make_contexts(const struct config *cfg)
{
    char *text[TEXTS];
    for (int i = 0; i < TEXTS; i++) text[i] = config_cstr(cfg, texts[i]);
    struct tls_config c = {
        .cert_file = text[0],
        .key_file = text[1],
        .key_pass = text[2],
        .client_cert_file = text[3],
        .client_key_file = text[4],
        .client_key_pass = text[5],
        .dh_params_file = text[6],
        .ca_file = text[7],
        .ca_dir = text[8],
        .protocols = text[9],
        .ciphers = text[10],
        .ciphersuites = text[11],
        .prefer_server_ciphers = config_bool(cfg, CFG_TLS_PREFER_SERVER_CIPHERS),
        .session_caching = config_bool(cfg, CFG_TLS_SESSION_CACHING),
        .cache_size = config_num(cfg, CFG_TLS_SESSION_CACHE_SIZE),
        .cache_timeout_s = config_num(cfg, CFG_TLS_SESSION_CACHE_TIMEOUT),
        .auth_clients = (enum tls_auth)config_num(cfg, CFG_TLS_AUTH_CLIENTS),
        .needs_ca = config_bool(cfg, CFG_TLS_REPLICATION) || config_bool(cfg, CFG_TLS_CLUSTER),
    };
    struct buf error = {0};
    struct tls_contexts *made = tls_contexts_create(&c, &error);
    if (!made) log_warning("%.*s", (int)error.n, error.p);
    buf_deinit(&error);
    for (int i = 0; i < TEXTS; i++) mem_free(text[i]);
    return made;
}

bool network_start(struct node *n)
{
    if (!tls_wanted(n->config)) return true;
    struct tls_contexts *made = make_contexts(n->config);
    if (!made) {
        log_warning("Failed to configure TLS. Check logs for more info.");
        return false;
    }
    tls_install(n->tls, made);
    return true;
}

struct tls *network_tls(const struct node *n, enum config_id option)
{
    return config_bool(n->config, option) ? n->tls : NULL;
}

static bool is_tls_option(enum config_id id)
{
    switch (id) {
    case CFG_TLS_PORT:
    case CFG_TLS_REPLICATION:
    case CFG_TLS_CLUSTER:
    case CFG_TLS_AUTH_CLIENTS:
    case CFG_TLS_PREFER_SERVER_CIPHERS:
    case CFG_TLS_SESSION_CACHING:
    case CFG_TLS_SESSION_CACHE_SIZE:
    case CFG_TLS_SESSION_CACHE_TIMEOUT: return true;
    default: break;
    }
    for (int i = 0; i < TEXTS; i++)
        if (texts[i] == id) return true;
    return false;
}

/* What is to be put in place once everything that could fail has not. */
struct change {
    struct tls_contexts *contexts;
    struct listen_set sets[LISTEN_KINDS];
    bool planned[LISTEN_KINDS];
    bool contexts_done;
};

static bool plan(struct node *n, struct change *ch, enum listen_kind kind)
{
    if (ch->planned[kind]) return true;
    ch->planned[kind] = listeners_plan(n->listeners, kind, &ch->sets[kind]);
    return ch->planned[kind];
}

static const char *prepare(struct node *n, struct change *ch, enum config_id id)
{
    if (is_tls_option(id) && !ch->contexts_done && tls_wanted(n->config)) {
        ch->contexts = make_contexts(n->config);
        ch->contexts_done = true;
        if (!ch->contexts) return "Unable to update TLS configuration. Check server logs.";
    }
    bool tcp = id == CFG_PORT || id == CFG_BIND, tls = id == CFG_TLS_PORT || id == CFG_BIND;
    if ((!tcp || plan(n, ch, LISTEN_TCP)) && (!tls || plan(n, ch, LISTEN_TLS))) return NULL;
    return id == CFG_BIND ? "Failed to bind to specified addresses."
                          : "Unable to listen on this port. Check server logs.";
}

bool network_apply(struct node *n, const enum config_id *ids, size_t count, size_t *failed, const char **reason)
{
    struct change ch = {0};
    *reason = NULL;
    for (size_t i = 0; i < count && !*reason; i++) {
        *reason = prepare(n, &ch, ids[i]);
        *failed = i;
    }
    for (int kind = 0; kind < LISTEN_KINDS; kind++) {
        if (!ch.planned[kind]) continue;
        if (*reason)
            listeners_cancel(n->listeners, (enum listen_kind)kind, &ch.sets[kind]);
        else
            listeners_replace(n->listeners, (enum listen_kind)kind, &ch.sets[kind]);
    }
    if (*reason)
        tls_contexts_destroy(ch.contexts);
    else if (ch.contexts)
        tls_install(n->tls, ch.contexts);
    return !*reason;
}
