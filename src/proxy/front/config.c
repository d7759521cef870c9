#include "proxy/front/config.h"

#include "base/mem.h"
#include "base/number.h"
#include "resp/resp.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

enum kind { TEXT, SECRET, NUMBER, MEMORY, ADDRESS, ADDRESSES, CHOICE, RATE, USER_RATES };

struct setting {
    const char *name, *also; /* also: another name, or two with a space between */
    enum kind kind;
    size_t offset;
    int64_t least, most;
    const char *value; /* default */
    const char *help;
};

#define AT(field) offsetof(struct proxy_config, field)
static const struct setting settings[] = {
    {"listen", NULL, ADDRESS, AT(listen), 0, 0, "127.0.0.1:6379", "where clients connect"},
    {"cluster", NULL, ADDRESSES, AT(seeds), 0, 0, "", "HOST:PORT,...  nodes to learn the cluster from"},
    {"workers", NULL, NUMBER, AT(workers), 0, PROXY_WORKERS_MAX, "0", "threads; 0: one a processor"},
    {"tcp-backlog", NULL, NUMBER, AT(backlog), 1, INT32_MAX, "511", "length of the queue of new connections"},
    {"requirepass", NULL, SECRET, AT(password), 0, 0, "", "password that clients must give"},
    {"aclfile", NULL, TEXT, AT(aclfile), 0, 0, "", "users of clients, in redis-server's ACL syntax"},
    {"acl-pubsub-default", NULL, CHOICE, AT(all_channels), 0, 0, "resetchannels", "resetchannels|allchannels"},
    {"limited-users-run-scripts", NULL, CHOICE, AT(limited_scripts), 0, 0, "no",
     "no|yes  scripts do what the proxy's user may, not what the client's may"},
    {"user-rate-limit", NULL, USER_RATES, AT(user_limits), 0, 0, "",
     "NAME OPS[:BURST] [BYTES[:BURST]]  a second, of all clients of a user; NAME * is every other user; repeatable"},
    {"address-rate-limit", NULL, RATE, AT(address_limit), 0, 0, "", "the same of all clients of one address"},
    {"rate-limit-mode", NULL, CHOICE, AT(limit_refuses), 0, 0, "delay", "delay|error  for what goes too fast"},
    {"node-user", "masteruser user", TEXT, AT(node_user), 0, 0, "", "user towards the nodes"},
    {"node-password", "masterauth password", SECRET, AT(node_password), 0, 0, "", "password towards the nodes"},
    {"logfile", NULL, TEXT, AT(logfile), 0, 0, "", "empty: standard output"},
    {"pidfile", NULL, TEXT, AT(pidfile), 0, 0, "", "empty: none"},
    {"maxclients", NULL, NUMBER, AT(maxclients), 1, INT32_MAX, "10000", "connections of clients"},
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
    {"node-queue-bytes", NULL, MEMORY, AT(node_queue_bytes), 1 << 16, INT64_MAX, "64mb",
     "requests that a node may owe a worker before others wait"},
    {"replica-reads", NULL, CHOICE, AT(replica_reads), 0, 0, "never",
     "never|prefer|nearest  replicas that answer reads"},
    {"replica-reads-max-lag", NULL, MEMORY, AT(replica_max_lag), 0, INT64_MAX, "1mb",
     "how far behind such a replica may be; 0: any"},
    {"client-query-buffer-limit", NULL, MEMORY, AT(query_limit), 1 << 20, INT64_MAX, "1gb", "input of one client"},
    {"proto-max-bulk-len", NULL, MEMORY, AT(bulk_limit), 1 << 20, INT64_MAX, "512mb", "longest argument"},
    {"client-output-limit", NULL, MEMORY, AT(output_limit), 1 << 12, INT64_MAX, "1mb",
     "unread output above which nothing more is read from a client"},
};
enum { SETTINGS = sizeof settings / sizeof *settings };

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

static bool set_addresses(struct proxy_config *c, struct bytes text)
{
    while (c->seed_count) mem_free(c->seeds[--c->seed_count].host);
    while (text.n) {
        const char *comma = memchr(text.p, ',', text.n);
        size_t n = comma ? (size_t)(comma - text.p) : text.n;
        struct address *a = &c->seeds[c->seed_count];
        if (c->seed_count == PROXY_SEEDS_MAX || !address_parse(bytes_make(text.p, n), a)) return false;
        c->seed_count++;
        if (!*a->host) {
            mem_free(a->host);
            a->host = mem_strdup("127.0.0.1");
        }
        n += comma != NULL;
        text = bytes_make(text.p + n, text.n - n);
    }
    return true;
}

enum { CHOICE_MAX = 3 };
static const char *const choices[][CHOICE_MAX] = {
    {"no", "yes"}, {"delay", "error"}, {"resetchannels", "allchannels"}, {"never", "prefer", "nearest"}};
enum { CHOICES = sizeof choices / sizeof *choices };

static bool set_choice(int64_t *field, const struct setting *s, struct bytes value)
{
    for (int i = 0; i < CHOICES; i++) {
        if (strcmp(s->value, choices[i][0]) != 0) continue;
        for (int k = 0; k < CHOICE_MAX && choices[i][k]; k++) {
            if (!bytes_ieq(value, bytes_of(choices[i][k]))) continue;
            *field = k;
            return true;
        }
    }
    return false;
}

static const char *choice_name(const struct setting *s, int64_t value)
{
    for (int i = 0; i < CHOICES; i++)
        if (strcmp(s->value, choices[i][0]) == 0) return choices[i][value];
    return "";
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
    case CHOICE: return set_choice((int64_t *)field, s, value);
    case RATE: return value.n == 0 || limit_rule_parse(value, (struct limit_rule *)field);
    case USER_RATES: return value.n == 0 || limit_rules_add(c->user_limits, value);
    case ADDRESS: mem_free(c->listen.host); return address_parse(value, (struct address *)field);
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

void proxy_config_each(const struct proxy_config *c, void (*each)(void *arg, const char *name, struct bytes value),
                       void *arg)
{
    for (int i = 0; i < SETTINGS; i++) {
        const struct setting *s = &settings[i];
        const char *field = (const char *)c + s->offset;
        char digits[24];
        if (s->kind == TEXT) each(arg, s->name, bytes_of(*(char *const *)field));
        if (s->kind == CHOICE) each(arg, s->name, bytes_of(choice_name(s, *(const int64_t *)field)));
        if (s->kind == NUMBER || s->kind == MEMORY)
            each(arg, s->name, bytes_make(digits, format_i64(digits, *(const int64_t *)field)));
    }
}

/* ---- where they come from ---- */

static bool complain(struct bytes name, const char *what)
{
    fprintf(stderr, "covey proxy: %.*s: %s\n", (int)name.n, name.p, what);
    return false;
}

static bool directive(struct proxy_config *c, struct bytes name, const struct bytes *values, size_t n)
{
    const struct setting *s = find(name);
    if (!s) return complain(name, "no such setting");
    struct buf joined = {0};
    for (size_t i = 0; i < n; i++) {
        if (i) buf_append_char(&joined, ' ');
        buf_append_bytes(&joined, values[i]);
    }
    bool many = s->kind == RATE || s->kind == USER_RATES;
    bool ok = (n == 1 || (many && n)) ? set(c, s, many ? buf_bytes(&joined) : values[0]) : false;
    buf_deinit(&joined);
    return ok || complain(name, n == 1 || many ? "not a possible value" : "takes one value");
}

static bool read_line(struct proxy_config *c, struct bytes line)
{
    size_t lead = 0;
    while (lead < line.n && (line.p[lead] == ' ' || line.p[lead] == '\t')) lead++;
    if (lead == line.n || line.p[lead] == '#' || line.p[lead] == '\r') return true;
    struct resp_request words = {0};
    bool ok = resp_split_line(line, &words) == OK || complain(line, "unbalanced quotes");
    if (ok && words.argc) ok = directive(c, words.argv[0], words.argv + 1, words.argc - 1);
    resp_request_deinit(&words);
    return ok;
}

static bool read_file(struct proxy_config *c, const char *path)
{
    FILE *f = fopen(path, "r");
    if (!f) return complain(bytes_of(path), strerror(errno));
    char line[64 * 1024];
    bool ok = true;
    while (ok && fgets(line, sizeof line, f)) {
        size_t n = strcspn(line, "\r\n");
        ok = read_line(c, bytes_make(line, n));
    }
    fclose(f);
    return ok;
}

static void usage(void)
{
    printf("Usage: covey proxy [FILE] [--setting value ...]\n\n"
           "One address for plain clients in front of a cluster.  FILE has lines `setting value`.\n\n");
    for (int i = 0; i < SETTINGS; i++)
        printf("  --%-26s %s%s%s%s\n", settings[i].name, settings[i].help, *settings[i].value ? " (" : "",
               settings[i].value, *settings[i].value ? ")" : "");
}

static bool read_arguments(struct proxy_config *c, int argc, char **argv)
{
    int i = 1;
    if (argc > 1 && strncmp(argv[1], "--", 2) != 0) {
        if (!read_file(c, argv[1])) return false;
        i = 2;
    }
    for (; i < argc; i += 2) {
        if (strncmp(argv[i], "--", 2) != 0) return complain(bytes_of(argv[i]), "not a setting: they begin with --");
        if (i + 1 == argc) return complain(bytes_of(argv[i]), "takes a value");
        struct bytes value = bytes_of(argv[i + 1]);
        if (!directive(c, bytes_of(argv[i] + 2), &value, 1)) return false;
    }
    return c->seed_count > 0 || complain(BYTES("--cluster"), "is needed: nodes to learn the cluster from");
}

bool proxy_config_parse(struct proxy_config *c, int argc, char **argv, int *code)
{
    *c = (struct proxy_config){.user_limits = limit_rules_create()};
    for (int i = 0; i < SETTINGS; i++)
        if (!set(c, &settings[i], bytes_of(settings[i].value))) mem_abort(0);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") != 0 && strcmp(argv[i], "-h") != 0) continue;
        usage();
        *code = 0;
        return false;
    }
    *code = 2;
    if (!read_arguments(c, argc, argv)) return false;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    if (c->workers == 0) c->workers = processors > 0 ? processors : 1;
    if (c->workers > PROXY_WORKERS_MAX) c->workers = PROXY_WORKERS_MAX;
    return true;
}

void proxy_config_deinit(struct proxy_config *c)
{
    for (int i = 0; i < SETTINGS; i++) {
        char *field = (char *)c + settings[i].offset;
        if (settings[i].kind == TEXT || settings[i].kind == SECRET) mem_free(*(char **)field);
    }
    while (c->seed_count) mem_free(c->seeds[--c->seed_count].host);
    mem_free(c->listen.host);
    limit_rules_destroy(c->user_limits);
}
