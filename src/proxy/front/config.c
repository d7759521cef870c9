#include "proxy/front/config.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/number.h"
#include "net/tls.h"
#include "resp/resp.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum kind {
    TEXT,
    SECRET,
    NUMBER,
    MEMORY,
    BOOL,
    CHOICE,
    LEVEL,
    LISTEN,
    ADDRESSES,
    NETWORKS,
    RATE,
    USER_RATES,
    OUTPUT_LIMITS
};
enum {
    FIXED = 1,    /* only at the start */
    RELOADED = 2, /* changes with the file only */
};

struct setting {
    const char *name, *also; /* also: another name, or two with a space between */
    enum kind kind;
    size_t offset;
    int64_t least, most;
    const char *value; /* default */
    const char *help;
    int flags;
    const char *choices; /* words, one behind another, counted from `least` */
};

#define AT(field) offsetof(struct proxy_config, field)
static const struct setting settings[] = {
    {"listen", NULL, LISTEN, 0, 0, 0, "",
     "HOST:PORT or /PATH, then words tls, accept-proxy, a socket's mode; may be given again (127.0.0.1:6379)",
     RELOADED},
    {"cluster", NULL, ADDRESSES, AT(seeds), 0, 0, "", "HOST:PORT,...  nodes to learn the cluster from"},
    {"pool", NULL, TEXT, AT(pool_file), 0, 0, "", "FILE  static pools, as nutcracker.yml has them", FIXED},
    {"stats-addr", NULL, TEXT, AT(stats_host), 0, 0, "0.0.0.0", "address of the pools' statistics", FIXED},
    {"stats-port", NULL, NUMBER, AT(stats_port), 0, 65535, "22222", "port of the pools' statistics; 0: none", FIXED},
    {"workers", NULL, NUMBER, AT(workers), 0, PROXY_WORKERS_MAX, "0", "threads; 0: one a processor", FIXED},
    {"tcp-backlog", NULL, NUMBER, AT(backlog), 1, INT32_MAX, "511", "length of the queue of new connections"},
    {"requirepass", NULL, SECRET, AT(password), 0, 0, "", "password that clients must give"},
    {"aclfile", NULL, TEXT, AT(aclfile), 0, 0, "", "users of clients, in redis-server's ACL syntax", FIXED},
    {"acl-pubsub-default", NULL, CHOICE, AT(all_channels), 0, 0, "resetchannels", "resetchannels|allchannels", FIXED,
     "resetchannels allchannels"},
    {"limited-users-run-scripts", NULL, CHOICE, AT(limited_scripts), 0, 0, "no",
     "no|yes  scripts do what the proxy's user may, not what the client's may", 0, "no yes"},
    {"user-rate-limit", NULL, USER_RATES, AT(user_limits), 0, 0, "",
     "NAME OPS[:BURST] [BYTES[:BURST]]  a second, of all clients of a user; NAME * is every other user; repeatable",
     RELOADED},
    {"address-rate-limit", NULL, RATE, AT(address_limit), 0, 0, "", "the same of all clients of one address"},
    {"rate-limit-mode", NULL, CHOICE, AT(limit_refuses), 0, 0, "delay", "delay|error  for what goes too fast", 0,
     "delay error"},
    {"client-output-buffer-limit", NULL, OUTPUT_LIMITS, AT(output_limits), 0, 0, "normal 0 0 0 pubsub 32mb 8mb 60",
     "CLASS HARD SOFT SECONDS ...  unread output of a client; normal, pubsub"},
    {"slowlog-log-slower-than", NULL, NUMBER, AT(slowlog_us), -1, INT64_MAX / 1000000, "10000",
     "microseconds, as the client saw it; -1: none"},
    {"slowlog-max-len", NULL, NUMBER, AT(slowlog_max), 0, INT32_MAX, "128", "entries of the slow log"},
    {"key-sampling", NULL, NUMBER, AT(key_sampling), 0, INT32_MAX, "64", "one of so many keys counts for INFO hotkeys"},
    {"metrics-port", NULL, NUMBER, AT(metrics_port), 0, 65535, "0", "HTTP port of /metrics for Prometheus; 0: none",
     FIXED},
    {"metrics-bind", NULL, TEXT, AT(metrics_bind), 0, 0, "127.0.0.1", "its address", FIXED},
    {"node-user", "masteruser user", TEXT, AT(node_user), 0, 0, "", "user towards the nodes"},
    {"node-password", "masterauth password", SECRET, AT(node_password), 0, 0, "", "password towards the nodes"},
    {"logfile", NULL, TEXT, AT(logfile), 0, 0, "", "empty: standard output"},
    {"loglevel", NULL, LEVEL, AT(verbosity), 0, 0, "notice", "debug, verbose, notice, warning"},
    {"pidfile", NULL, TEXT, AT(pidfile), 0, 0, "", "empty: none", FIXED},
    {"daemonize", NULL, BOOL, AT(daemonize), 0, 0, "no", "yes: run in the background", FIXED},
    {"maxclients", NULL, NUMBER, AT(maxclients), 0, INT32_MAX, "0",
     "connections of clients; 0: 10000, or with static pools alone as many as the system allows"},
    {"timeout", NULL, NUMBER, AT(idle_timeout_s), 0, INT32_MAX, "0", "seconds for clients that say nothing; 0: none"},
    {"tcp-keepalive", NULL, NUMBER, AT(keepalive_s), 0, INT32_MAX, "300", "seconds, of clients' connections; 0: off"},
    {"node-connections", NULL, NUMBER, AT(connections), 1, 16, "1", "shared connections a worker and node"},
    {"pinned-connections", NULL, NUMBER, AT(pinned_max), 0, INT32_MAX, "4096",
     "connections for one client each: blocking commands, WATCH, subscribers"},
    {"connect-timeout", NULL, NUMBER, AT(connect_timeout_ms), 1, INT32_MAX, "1000", "ms"},
    {"node-timeout", NULL, NUMBER, AT(node_timeout_ms), 10, INT32_MAX, "30000",
     "ms after which a node that owes replies and sends nothing is given up"},
    {"refresh-period", NULL, NUMBER, AT(refresh_ms), 50, INT32_MAX, "5000", "ms between looks at the cluster"},
    {"failover-hold-timeout", NULL, NUMBER, AT(hold_timeout_ms), 0, INT32_MAX, "20000",
     "ms for which a request waits for its slot's node"},
    {"failover-hold-requests", NULL, NUMBER, AT(hold_requests), 0, INT32_MAX, "100000", "how many may wait"},
    {"failover-hold-bytes", NULL, MEMORY, AT(hold_bytes), 0, INT64_MAX, "256mb", "their bytes"},
    {"unknown-fate", NULL, CHOICE, AT(unknown_closes), 0, 0, "error",
     "error|close  what a client gets when its write may or may not have been executed", 0, "error close"},
    {"node-queue-bytes", NULL, MEMORY, AT(node_queue_bytes), 1 << 16, INT64_MAX, "64mb",
     "requests that a node may owe a worker before others wait"},
    {"remembered-scripts", NULL, NUMBER, AT(scripts_max), 0, INT32_MAX, "1000",
     "scripts that EVALSHA finds at every node once a client has run or loaded them; 0: none"},
    {"remembered-script-bytes", NULL, MEMORY, AT(scripts_bytes), 0, INT64_MAX, "16mb", "their texts"},
    {"replica-reads", NULL, CHOICE, AT(replica_reads), 0, 0, "never",
     "never|prefer|nearest  replicas that answer reads", 0, "never prefer nearest"},
    {"replica-reads-max-lag", NULL, MEMORY, AT(replica_max_lag), 0, INT64_MAX, "1mb",
     "how far behind such a replica may be; 0: any"},
    {"replica-reads-after-write", NULL, NUMBER, AT(replica_after_write_ms), 0, INT32_MAX, "1000",
     "ms for which a client reads at the primary what it has written itself; 0: not at all"},
    {"client-query-buffer-limit", NULL, MEMORY, AT(query_limit), 1 << 20, INT64_MAX, "1gb", "input of one client"},
    {"proto-max-bulk-len", NULL, MEMORY, AT(bulk_limit), 1 << 20, INT64_MAX, "512mb", "longest argument"},
    {"client-output-limit", NULL, MEMORY, AT(output_limit), 1 << 12, INT64_MAX, "1mb",
     "unread output above which nothing more is read from a client"},
    {"client-output-limit-stuck", NULL, MEMORY, AT(output_limit_stuck), 1 << 12, INT64_MAX, "256mb",
     "the same while a client reads nothing at all: it may be writing a pipeline first"},
    {"accept-proxy", NULL, BOOL, AT(accept_proxy), 0, 0, "no", "yes: every listener expects PROXY headers", RELOADED},
    {"accept-proxy-from", NULL, NETWORKS, 0, 0, 0, "",
     "ADDRESS[/BITS],...  who sends PROXY headers; others are clients without (everybody)", RELOADED},
    {"proxy-header-timeout", NULL, NUMBER, AT(header_timeout_ms), 1, INT32_MAX, "5000", "ms for a PROXY header"},
    {"drain-timeout", NULL, NUMBER, AT(drain_timeout_ms), 0, INT32_MAX, "5000",
     "ms that what is under way has at SIGTERM"},
    {"hand-over-timeout", NULL, NUMBER, AT(hand_over_timeout_ms), 0, INT32_MAX, "0",
     "ms that clients may stay after a hand-over; 0: as long as they like"},
    {"control-socket", NULL, TEXT, AT(control_socket), 0, 0, "", "PATH  where another process may take over", FIXED},
    {"take-over", NULL, TEXT, AT(take_over), 0, 0, "", "PATH  control socket of the process to take over from", FIXED},
    {"backend-tls", "tls-cluster", BOOL, AT(backend_tls), 0, 0, "no", "yes: TLS towards nodes and servers of pools"},
    {"pool-tls", NULL, BOOL, AT(pool_tls), 0, 0, "no", "yes: the pools' TCP sockets speak TLS", FIXED},
    {"tls-port", NULL, NUMBER, AT(tls_port), 0, 65535, "0", "a port for TLS beside the first of `listen`", RELOADED},
    {"tls-cert-file", NULL, TEXT, AT(tls_cert_file), 0, 0, "", "certificate of the proxy"},
    {"tls-key-file", NULL, TEXT, AT(tls_key_file), 0, 0, "", "its private key"},
    {"tls-key-file-pass", NULL, SECRET, AT(tls_key_pass), 0, 0, "", "password of the private key"},
    {"tls-client-cert-file", NULL, TEXT, AT(tls_client_cert_file), 0, 0, "", "certificate towards the nodes"},
    {"tls-client-key-file", NULL, TEXT, AT(tls_client_key_file), 0, 0, "", "its private key"},
    {"tls-client-key-file-pass", NULL, SECRET, AT(tls_client_key_pass), 0, 0, "", "password of that key"},
    {"tls-dh-params-file", NULL, TEXT, AT(tls_dh_params_file), 0, 0, "", "Diffie-Hellman parameters"},
    {"tls-ca-cert-file", NULL, TEXT, AT(tls_ca_file), 0, 0, "", "certificate authorities, one file"},
    {"tls-ca-cert-dir", NULL, TEXT, AT(tls_ca_dir), 0, 0, "", "certificate authorities, a directory"},
    {"tls-auth-clients", NULL, CHOICE, AT(tls_auth_clients), 0, 0, "yes", "whether clients need a certificate", 0,
     "no yes optional"},
    {"tls-protocols", NULL, TEXT, AT(tls_protocols), 0, 0, "", "versions to offer"},
    {"tls-ciphers", NULL, TEXT, AT(tls_ciphers), 0, 0, "", "ciphers up to TLS 1.2"},
    {"tls-ciphersuites", NULL, TEXT, AT(tls_ciphersuites), 0, 0, "", "cipher suites of TLS 1.3"},
    {"tls-prefer-server-ciphers", NULL, BOOL, AT(tls_prefer_server_ciphers), 0, 0, "no", "the proxy's order counts"},
    {"tls-session-caching", NULL, BOOL, AT(tls_session_caching), 0, 0, "yes", "sessions can be resumed"},
    {"tls-session-cache-size", NULL, NUMBER, AT(tls_cache_size), 0, INT32_MAX, "20480", "most sessions kept"},
    {"tls-session-cache-timeout", NULL, NUMBER, AT(tls_cache_timeout_s), 0, INT32_MAX, "300", "seconds"},
};
enum { SETTINGS = sizeof settings / sizeof *settings };
_Static_assert((int)SETTINGS <= (int)PROXY_SETTINGS_MAX, "more settings than proxy_config.changed has places");

/* ---- values ---- */

bool address_parse(struct bytes text, struct address *out)
{
    size_t colon = text.n;
    for (size_t i = 0; i < text.n; i++)
        if (text.p[i] == ':') colon = i;
    bool only_port = colon == text.n;
    struct bytes host = only_port ? BYTES("") : bytes_make(text.p, colon);
    struct bytes port = only_port ? text : bytes_make(text.p + colon + 1, text.n - colon - 1);
    if (host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']') host = bytes_make(host.p + 1, host.n - 2);
    int64_t number;
    if (!parse_i64(port, &number) || number < 1 || number > 65535) return false;
    out->host = bytes_dup_cstr(host);
    out->port = (int)number;
    return true;
}

/* The next of the words between commas; false: there is none. */
static bool next_item(struct bytes *text, struct bytes *item)
{
    if (text->n == 0) return false;
    const char *comma = memchr(text->p, ',', text->n);
    size_t n = comma ? (size_t)(comma - text->p) : text->n, used = n + (comma != NULL);
    *item = bytes_make(text->p, n);
    *text = bytes_make(text->p + used, text->n - used);
    return true;
}

static bool set_addresses(struct proxy_config *c, struct bytes text)
{
    struct bytes item;
    while (c->seed_count) mem_free(c->seeds[--c->seed_count].host);
    while (next_item(&text, &item)) {
        struct address *a = &c->seeds[c->seed_count];
        if (c->seed_count == PROXY_SEEDS_MAX || !address_parse(item, a)) return false;
        c->seed_count++;
        if (*a->host) continue;
        mem_free(a->host);
        a->host = mem_strdup("127.0.0.1");
    }
    return true;
}

static bool set_networks(struct proxy_config *c, struct bytes text)
{
    struct bytes item;
    for (c->header_network_count = 0; next_item(&text, &item); c->header_network_count++) {
        if (c->header_network_count == PROXY_NETWORKS_MAX) return false;
        if (!network_parse(item, &c->header_networks[c->header_network_count])) return false;
    }
    return true;
}

static bool set_mode(struct listen_address *l, struct bytes word)
{
    l->mode = 0;
    for (size_t i = 0; i < word.n; i++) {
        if (word.p[i] < '0' || word.p[i] > '7' || word.n > 4) return false;
        l->mode = l->mode * 8 + (unsigned)(word.p[i] - '0');
    }
    return l->at.port == 0 && word.n > 0;
}

static bool read_listen(const struct resp_request *words, struct listen_address *l)
{
    if (words->argc == 0) return false;
    struct bytes where = words->argv[0];
    if (where.n && where.p[0] == '/')
        l->at = (struct address){bytes_dup_cstr(where), 0};
    else if (!address_parse(where, &l->at))
        return false;
    for (size_t i = 1; i < words->argc; i++) {
        if (bytes_ieq(words->argv[i], BYTES("tls")))
            l->is_tls = true;
        else if (bytes_ieq(words->argv[i], BYTES("accept-proxy")))
            l->accept_proxy = true;
        else if (!set_mode(l, words->argv[i]))
            return false;
    }
    return true;
}

/* One more; the default, which is empty, none. */
static bool add_listen(struct proxy_config *c, struct bytes value)
{
    struct resp_request words = {0};
    if (value.n == 0) return true;
    struct listen_address *l = &c->listen[c->listen_count];
    bool ok = c->listen_count < PROXY_LISTEN_MAX && resp_split_line(value, &words) == OK;
    if (ok) {
        *l = (struct listen_address){0};
        ok = read_listen(&words, l);
        if (ok) c->listen_count++;
        if (!ok) mem_free(l->at.host);
    }
    resp_request_deinit(&words);
    return ok;
}

static bool set_choice(int64_t *field, const char *choices, struct bytes value)
{
    int64_t n = 0;
    for (const char *at = choices; *at; n++) {
        size_t len = strcspn(at, " ");
        if (bytes_ieq(value, bytes_make(at, len))) {
            *field = n;
            return true;
        }
        at += len + (at[len] == ' ');
    }
    return false;
}

/* Redis's levels, as places on nutcracker's scale; a number is a place itself. */
static const struct {
    const char *name;
    int verbosity;
} levels[] = {{"warning", 4}, {"notice", 5}, {"verbose", 7}, {"debug", 8}};

static bool set_level(struct proxy_config *c, struct bytes value)
{
    int64_t n;
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        if (bytes_ieq(value, bytes_of(levels[i].name))) {
            c->verbosity = levels[i].verbosity;
            return true;
        }
    if (!parse_i64(value, &n) || n < 0) return false;
    c->verbosity = n < 11 ? n : 11;
    return true;
}

static bool set_output_limit(struct output_limit *limits, const struct bytes *words)
{
    struct output_limit l;
    if (!parse_memory(words[1], &l.hard) || !parse_memory(words[2], &l.soft) || !parse_i64(words[3], &l.soft_s))
        return false;
    if (l.hard < 0 || l.soft < 0 || l.soft_s < 0 || l.soft_s > INT32_MAX) return false;
    if (bytes_ieq(words[0], BYTES("normal")))
        limits[OUTPUT_NORMAL] = l;
    else if (bytes_ieq(words[0], BYTES("pubsub")))
        limits[OUTPUT_PUBSUB] = l;
    else /* no replicas here; redis.conf names them */
        return bytes_ieq(words[0], BYTES("replica")) || bytes_ieq(words[0], BYTES("slave"));
    return true;
}

static bool set_output_limits(struct output_limit *limits, struct bytes text)
{
    struct resp_request words = {0};
    bool ok = resp_split_line(text, &words) == OK && words.argc && words.argc % 4 == 0;
    for (size_t i = 0; ok && i < words.argc; i += 4) ok = set_output_limit(limits, words.argv + i);
    resp_request_deinit(&words);
    return ok;
}

static bool set(struct proxy_config *c, const struct setting *s, struct bytes value)
{
    char *field = (char *)c + s->offset;
    int64_t number;
    switch (s->kind) {
    case TEXT:
    case SECRET:
        mem_free(*(char **)field);
        *(char **)field = bytes_dup_cstr(value);
        return true;
    case NUMBER:
    case MEMORY:
        if (!(s->kind == MEMORY ? parse_memory(value, &number) : parse_i64(value, &number))) return false;
        if (number < s->least || number > s->most) return false;
        *(int64_t *)field = number;
        return true;
    case BOOL: *(bool *)field = bytes_ieq(value, BYTES("yes")); return *(bool *)field || bytes_ieq(value, BYTES("no"));
    case CHOICE: return set_choice((int64_t *)field, s->choices, value);
    case LEVEL: return set_level(c, value);
    case OUTPUT_LIMITS: return set_output_limits((struct output_limit *)field, value);
    case RATE: return value.n == 0 || limit_rule_parse(value, (struct limit_rule *)field);
    case USER_RATES: return value.n == 0 || limit_rules_add(c->user_limits, value);
    case LISTEN: return add_listen(c, value);
    case NETWORKS: return set_networks(c, value);
    default: return set_addresses(c, value);
    }
}

static bool is_called(const struct setting *s, struct bytes name)
{
    const char *also = s->also, *space = also ? strchr(also, ' ') : NULL;
    if (bytes_ieq(name, bytes_of(s->name))) return true;
    if (!also) return false;
    return bytes_ieq(name, space ? bytes_make(also, (size_t)(space - also)) : bytes_of(also)) ||
           (space && bytes_ieq(name, bytes_of(space + 1)));
}

static const struct setting *find(struct bytes name)
{
    for (int i = 0; i < SETTINGS; i++)
        if (is_called(&settings[i], name)) return &settings[i];
    return NULL;
}

bool proxy_config_knows(struct bytes name)
{
    return find(name) != NULL;
}

bool proxy_config_set(struct proxy_config *c, const char *name, struct bytes value)
{
    const struct setting *s = find(bytes_of(name));
    return s && set(c, s, value);
}

/* As it could be given; false: it is not shown. */
static bool show(const struct proxy_config *c, const struct setting *s, struct buf *out)
{
    const char *field = (const char *)c + s->offset;
    out->n = 0;
    switch (s->kind) {
    case TEXT: buf_append_cstr(out, *(char *const *)field); return true;
    case NUMBER:
    case MEMORY: buf_printf(out, "%lld", (long long)*(const int64_t *)field); return true;
    case BOOL: buf_append_cstr(out, *(const bool *)field ? "yes" : "no"); return true;
    case LEVEL: {
        size_t i = 0;
        while (i < 3 && levels[i].verbosity < c->verbosity) i++;
        buf_append_cstr(out, levels[i].name);
        return true;
    }
    case CHOICE: {
        const char *at = s->choices;
        for (int64_t n = *(const int64_t *)field; n > 0; n--) at = strchr(at, ' ') + 1;
        buf_append(out, at, strcspn(at, " "));
        return true;
    }
    default: return false;
    }
}

void proxy_config_each(const struct proxy_config *c, void (*each)(void *arg, const char *name, struct bytes value),
                       void *arg)
{
    struct buf b = {0};
    for (int i = 0; i < SETTINGS; i++)
        if (show(c, &settings[i], &b)) each(arg, settings[i].name, buf_bytes(&b));
    buf_deinit(&b);
}

/* ---- where they come from ---- */

static bool complain(struct buf *error, struct bytes name, const char *what)
{
    buf_printf(error, "%.*s: %s\n", (int)name.n, name.p, what);
    return false;
}

static bool directive(struct proxy_config *c, struct buf *error, struct bytes name, const struct bytes *values,
                      size_t n)
{
    const struct setting *s = find(name);
    if (!s) return complain(error, name, "no such setting");
    bool many = s->kind == LISTEN || s->kind == RATE || s->kind == USER_RATES;
    if (n == 0 || (n > 1 && !many)) return complain(error, name, "takes one value");
    struct buf joined = {0};
    for (size_t i = 0; i < n; i++) {
        if (i) buf_append_char(&joined, ' ');
        buf_append_bytes(&joined, values[i]);
    }
    bool ok = set(c, s, buf_bytes(&joined));
    buf_deinit(&joined);
    return ok || complain(error, name, "not a possible value");
}

static bool read_line(struct proxy_config *c, struct buf *error, struct bytes line)
{
    size_t lead = 0;
    while (lead < line.n && (line.p[lead] == ' ' || line.p[lead] == '\t')) lead++;
    if (lead == line.n || line.p[lead] == '#' || line.p[lead] == '\r') return true;
    struct resp_request words = {0};
    bool ok = resp_split_line(line, &words) == OK || complain(error, line, "unbalanced quotes");
    if (ok && words.argc) ok = directive(c, error, words.argv[0], words.argv + 1, words.argc - 1);
    resp_request_deinit(&words);
    return ok;
}

static bool read_file(struct proxy_config *c, struct buf *error, const char *path)
{
    FILE *f = fopen(path, "r");
    if (!f) return complain(error, bytes_of(path), strerror(errno));
    char line[64 * 1024];
    bool ok = true;
    while (ok && fgets(line, sizeof line, f)) {
        size_t n = strcspn(line, "\r\n");
        ok = read_line(c, error, bytes_make(line, n));
    }
    fclose(f);
    return ok;
}

void proxy_config_usage(void)
{
    printf("Usage: covey proxy [FILE] [--setting value ...]\n\n"
           "One address for plain clients in front of a cluster (--cluster), static pools (--pool), or both.\n"
           "FILE has lines `setting value`.  With --pool, nutcracker's options are understood too.\n\n");
    for (int i = 0; i < SETTINGS; i++)
        printf("  --%-26s %s%s%s%s\n", settings[i].name, settings[i].help, *settings[i].value ? " (" : "",
               settings[i].value, *settings[i].value ? ")" : "");
    printf("\nSIGHUP reads FILE again, SIGUSR2 hands over to a new process, SIGTERM ends politely; SIGTTIN and SIGTTOU "
           "make\n"
           "the log say more and less.\n");
}

static bool read_arguments(struct proxy_config *c, struct buf *error, int argc, char **argv)
{
    int i = 1;
    if (argc > 1 && strncmp(argv[1], "--", 2) != 0) {
        char *path = realpath(argv[1], NULL);
        mem_free(c->file);
        c->file = mem_strdup(path ? path : argv[1]);
        free(path);
        if (!read_file(c, error, argv[1])) return false;
        i = 2;
    }
    for (; i < argc; i += 2) {
        struct bytes name = bytes_of(argv[i]);
        if (strncmp(argv[i], "--", 2) != 0) return complain(error, name, "not a setting: they begin with --");
        if (i + 1 == argc) return complain(error, name, "takes a value");
        struct bytes value = bytes_of(argv[i + 1]);
        if (!directive(c, error, bytes_of(argv[i] + 2), &value, 1)) return false;
    }
    return true;
}

static struct proxy_config *create(void)
{
    struct proxy_config *c = mem_calloc(1, sizeof *c);
    atomic_store(&c->refs, 1);
    c->user_limits = limit_rules_create();
    c->file = mem_strdup("");
    for (int i = 0; i < SETTINGS; i++)
        if (!set(c, &settings[i], bytes_of(settings[i].value))) mem_abort(0);
    return c;
}

static void complete_numbers(struct proxy_config *c)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    if (c->workers == 0) c->workers = processors > 0 ? processors : 1;
    if (c->workers > PROXY_WORKERS_MAX) c->workers = PROXY_WORKERS_MAX;
    if (c->maxclients == 0) c->maxclients = c->seed_count ? 10000 : INT32_MAX;
}

/* What follows from other settings. */
static bool complete(struct proxy_config *c, struct buf *error)
{
    complete_numbers(c);
    if (c->seed_count == 0 && !*c->pool_file)
        return complain(error, BYTES("--cluster"), "is needed: nodes to learn the cluster from (or --pool)");
    if (c->seed_count && c->listen_count == 0 && !add_listen(c, BYTES("127.0.0.1:6379"))) return false;
    if (c->tls_port && c->listen_count == PROXY_LISTEN_MAX) return complain(error, BYTES("listen"), "too many");
    if (c->tls_port && c->listen_count) {
        struct listen_address *l = &c->listen[c->listen_count++];
        bool is_path = c->listen[0].at.port == 0;
        *l = (struct listen_address){.at = {mem_strdup(is_path ? "127.0.0.1" : c->listen[0].at.host), (int)c->tls_port},
                                     .is_tls = true};
    }
    for (int i = 0; i < c->listen_count; i++) c->listen[i].accept_proxy |= c->accept_proxy;
    return true;
}

struct proxy_config *proxy_config_read(int argc, char **argv, struct buf *error)
{
    struct proxy_config *c = create();
    if (read_arguments(c, error, argc, argv) && complete(c, error)) return c;
    proxy_config_release(c);
    return NULL;
}

/* For comparison, passwords too. */
static bool show_all(const struct proxy_config *c, const struct setting *s, struct buf *out)
{
    if (s->kind != SECRET) return show(c, s, out);
    out->n = 0;
    buf_append_cstr(out, *(char *const *)((const char *)c + s->offset));
    return true;
}

void proxy_config_keep_fixed(struct proxy_config *c, const struct proxy_config *old)
{
    struct buf before = {0}, now = {0};
    for (int i = 0; i < SETTINGS; i++) {
        const struct setting *s = &settings[i];
        if (!(s->flags & FIXED) || !show_all(old, s, &before) || !show_all(c, s, &now)) continue;
        if (bytes_eq(buf_bytes(&before), buf_bytes(&now))) continue;
        log_warning("%s stays as it was: it changes with a restart only", s->name);
        if (!set(c, s, buf_bytes(&before))) mem_abort(0);
    }
    buf_deinit(&before);
    buf_deinit(&now);
}

struct proxy_config *proxy_config_hold(struct proxy_config *c)
{
    atomic_fetch_add(&c->refs, 1);
    return c;
}

void proxy_config_release(struct proxy_config *c)
{
    if (!c || atomic_fetch_sub(&c->refs, 1) != 1) return;
    for (int i = 0; i < SETTINGS; i++) {
        char *field = (char *)c + settings[i].offset;
        if (settings[i].kind == TEXT || settings[i].kind == SECRET) mem_free(*(char **)field);
    }
    while (c->seed_count) mem_free(c->seeds[--c->seed_count].host);
    while (c->listen_count) mem_free(c->listen[--c->listen_count].at.host);
    limit_rules_destroy(c->user_limits);
    for (int i = 0; i < SETTINGS; i++) mem_free(c->changed[i]);
    mem_free(c->file);
    mem_free(c);
}

/* ---- CONFIG SET ---- */

struct proxy_config *proxy_config_copy(const struct proxy_config *from)
{
    struct proxy_config *c = mem_alloc(sizeof *c);
    memcpy(c, from, sizeof *c);
    atomic_store(&c->refs, 1);
    for (int i = 0; i < SETTINGS; i++) {
        char **field = (char **)((char *)c + settings[i].offset);
        if (settings[i].kind == TEXT || settings[i].kind == SECRET) *field = mem_strdup(*field);
        if (c->changed[i]) c->changed[i] = mem_strdup(c->changed[i]);
    }
    for (int i = 0; i < c->seed_count; i++) c->seeds[i].host = mem_strdup(c->seeds[i].host);
    for (int i = 0; i < c->listen_count; i++) c->listen[i].at.host = mem_strdup(c->listen[i].at.host);
    c->user_limits = limit_rules_copy(c->user_limits);
    c->file = mem_strdup(c->file);
    return c;
}

/* What redis-server says of a value that it does not take. */
static void say_why(const struct setting *s, struct bytes value, struct buf *out)
{
    int64_t n;
    switch (s->kind) {
    case NUMBER:
    case MEMORY:
        if (!(s->kind == MEMORY ? parse_memory(value, &n) : parse_i64(value, &n)))
            buf_append_cstr(out, s->kind == MEMORY ? "argument must be a memory value"
                                                   : "argument couldn't be parsed into an integer");
        else
            buf_printf(out, "argument must be between %lld and %lld inclusive", (long long)s->least,
                       (long long)s->most);
        break;
    case BOOL: buf_append_cstr(out, "argument must be 'yes' or 'no'"); break;
    case LEVEL:
        buf_append_cstr(out, "argument(s) must be one of the following: debug, verbose, notice, warning");
        break;
    case CHOICE:
        buf_append_cstr(out, "argument(s) must be one of the following: ");
        for (const char *at = s->choices; *at; at++) {
            if (*at == ' ') buf_append_char(out, ',');
            buf_append_char(out, *at);
        }
        break;
    default: buf_append_cstr(out, "Invalid argument");
    }
}

static bool fail(char error[PROXY_CHANGE_ERROR_MAX], struct bytes name, struct bytes why)
{
    snprintf(error, PROXY_CHANGE_ERROR_MAX, "ERR CONFIG SET failed (possibly related to argument '%.*s') - %.*s",
             (int)(name.n < 64 ? name.n : 64), name.p, (int)(why.n < 256 ? why.n : 256), why.p);
    return false;
}

static bool may_change(const struct bytes *pairs, size_t n, char error[PROXY_CHANGE_ERROR_MAX])
{
    bool seen[SETTINGS] = {0};
    for (size_t i = 0; i + 1 < n; i += 2) {
        const struct setting *s = find(pairs[i]);
        if (!s) {
            snprintf(error, PROXY_CHANGE_ERROR_MAX, "ERR Unknown option or number of arguments for CONFIG SET - '%.*s'",
                     (int)(pairs[i].n < 128 ? pairs[i].n : 128), pairs[i].p);
            return false;
        }
        if (s->flags & (FIXED | RELOADED)) return fail(error, pairs[i], BYTES("can't set immutable config"));
        if (seen[s - settings]) return fail(error, pairs[i], BYTES("duplicate parameter"));
        seen[s - settings] = true;
    }
    return true;
}

bool proxy_config_change(struct proxy_config *c, const struct bytes *pairs, size_t n,
                         char error[PROXY_CHANGE_ERROR_MAX])
{
    bool had_seeds = c->seed_count > 0;
    if (!may_change(pairs, n, error)) return false;
    for (size_t i = 0; i + 1 < n; i += 2) {
        const struct setting *s = find(pairs[i]);
        struct bytes value = pairs[i + 1];
        bool plain = !value.n || (!memchr(value.p, '\0', value.n) && !memchr(value.p, '\n', value.n));
        if (plain && set(c, s, value) && (c->seed_count > 0) == had_seeds) {
            mem_free(c->changed[s - settings]);
            c->changed[s - settings] = bytes_dup_cstr(value);
            continue;
        }
        struct buf why = {0};
        say_why(s, value, &why);
        fail(error, pairs[i], buf_bytes(&why));
        buf_deinit(&why);
        return false;
    }
    complete_numbers(c);
    return true;
}

/* ---- CONFIG REWRITE ---- */

static void write_setting(struct buf *out, const char *name, const char *value)
{
    buf_printf(out, "%s ", name);
    resp_append_quoted(out, bytes_of(value));
    buf_append_char(out, '\n');
}

/* The setting that a line of the file is about; -1: none that has changed. */
static int changed_by(const struct proxy_config *c, struct bytes line)
{
    struct resp_request words = {0};
    size_t lead = 0;
    int at = -1;
    while (lead < line.n && (line.p[lead] == ' ' || line.p[lead] == '\t')) lead++;
    if (lead == line.n || line.p[lead] == '#') return -1;
    if (resp_split_line(line, &words) == OK && words.argc) {
        const struct setting *s = find(words.argv[0]);
        if (s && c->changed[s - settings]) at = (int)(s - settings);
    }
    resp_request_deinit(&words);
    return at;
}

/* The file's lines with what has changed, appended to out. */
static bool write_lines(const struct proxy_config *c, struct buf *out)
{
    bool written[SETTINGS] = {0};
    FILE *f = fopen(c->file, "r");
    char line[64 * 1024];
    if (!f) return false;
    while (fgets(line, sizeof line, f)) {
        size_t n = strcspn(line, "\r\n");
        int at = changed_by(c, bytes_make(line, n));
        if (at < 0) {
            buf_append(out, line, n);
            buf_append_char(out, '\n');
        } else if (!written[at]) {
            write_setting(out, settings[at].name, c->changed[at]);
            written[at] = true;
        }
    }
    bool ok = !ferror(f);
    fclose(f);
    for (int i = 0; i < SETTINGS; i++)
        if (c->changed[i] && !written[i]) write_setting(out, settings[i].name, c->changed[i]);
    return ok;
}

bool proxy_config_rewrite(const struct proxy_config *c, char error[PROXY_CHANGE_ERROR_MAX])
{
    struct buf text = {0};
    if (!*c->file) {
        snprintf(error, PROXY_CHANGE_ERROR_MAX, "ERR The server is running without a config file");
        return false;
    }
    bool ok = write_lines(c, &text) && file_replace(c->file, buf_bytes(&text));
    if (!ok) snprintf(error, PROXY_CHANGE_ERROR_MAX, "ERR Rewriting config file: %s", strerror(errno));
    buf_deinit(&text);
    return ok;
}

/* ---- TLS ---- */

static bool serves_tls(const struct proxy_config *c)
{
    bool any = c->pool_tls;
    for (int i = 0; i < c->listen_count; i++) any |= c->listen[i].is_tls;
    return any;
}

bool proxy_config_has_tls(const struct proxy_config *c)
{
    return c->backend_tls || serves_tls(c);
}

struct tls_contexts *proxy_config_tls(const struct proxy_config *c)
{
    struct tls_config t = {
        .cert_file = c->tls_cert_file,
        .key_file = c->tls_key_file,
        .key_pass = c->tls_key_pass,
        .client_cert_file = c->tls_client_cert_file,
        .client_key_file = c->tls_client_key_file,
        .client_key_pass = c->tls_client_key_pass,
        .dh_params_file = c->tls_dh_params_file,
        .ca_file = c->tls_ca_file,
        .ca_dir = c->tls_ca_dir,
        .protocols = c->tls_protocols,
        .ciphers = c->tls_ciphers,
        .ciphersuites = c->tls_ciphersuites,
        .prefer_server_ciphers = c->tls_prefer_server_ciphers,
        .session_caching = c->tls_session_caching,
        .cache_size = c->tls_cache_size,
        .cache_timeout_s = c->tls_cache_timeout_s,
        .auth_clients = serves_tls(c) ? (enum tls_auth)c->tls_auth_clients : TLS_AUTH_NO,
        .needs_ca = c->backend_tls,
        .only_connects = !serves_tls(c),
    };
    struct buf error = {0};
    struct tls_contexts *made = tls_contexts_create(&t, &error);
    if (!made) log_warning("TLS: %.*s", (int)error.n, error.p);
    buf_deinit(&error);
    return made;
}
