/* options.c: the command line of `covey up` and `covey down`. */
#include "operator/options.h"

#include "base/number.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char up_usage[] =
    "Usage: covey up [options] [-- directives for every node]\n"
    "\n"
    "Starts a cluster on this machine, shows what happens to it, and stops it on Ctrl-C.  Started again with the same\n"
    "directory, it brings the same cluster back with its data.\n"
    "\n"
    "  --primaries N        primaries (3)\n"
    "  --replicas N         replicas of each primary (1)\n"
    "  --port P             first port (7000); the nodes take P, P+1, ... and the same plus 10000 for the cluster bus\n"
    "  --proxy-port P       first port of the proxies for plain clients, one in each node (behind the nodes' ports); "
    "0: none\n"
    "  --dir DIR            where data, logs and configuration go (./" UP_DIR_DEFAULT ")\n"
    "  --bind ADDRESS       address to listen on (127.0.0.1)\n"
    "  --node-timeout MS    cluster-node-timeout of the nodes\n"
    "  --no-restart         leave a node that dies dead\n"
    "  --detach             return when the cluster is ready; `covey down --dir DIR` stops it\n"
    "  --stop-timeout S     seconds a node may take to save and end before it is killed (60)\n"
    "\n"
    "Example: covey up --primaries 5 -- --appendonly yes --maxmemory 1gb\n";

static const char down_usage[] =
    "Usage: covey down [--dir DIR]\n"
    "\n"
    "Stops the cluster that `covey up --detach` started with that directory (./" UP_DIR_DEFAULT ").  Its data stay.\n";

static enum parsed wrong(const char *usage, const char *role, const char *what, const char *which)
{
    fprintf(stderr, "covey %s: %s%s\n\n%s", role, what, which, usage);
    return PARSED_WRONG;
}

static bool take_number(const char *text, int64_t min, int64_t max, int64_t *out)
{
    return parse_i64(bytes_of(text), out) && *out >= min && *out <= max;
}

enum option {
    PRIMARIES,
    REPLICAS,
    PORT,
    PROXY_PORT,
    DIRECTORY,
    BIND,
    NODE_TIMEOUT,
    STOP_TIMEOUT,
    NO_RESTART,
    DETACH,
    NONE
};

static enum option which_option(const char *name)
{
    static const char *const names[] = {"--primaries", "--replicas",     "--port",         "--proxy-port", "--dir",
                                        "--bind",      "--node-timeout", "--stop-timeout", "--no-restart", "--detach"};
    for (int i = 0; i < NONE; i++)
        if (strcmp(name, names[i]) == 0) return (enum option)i;
    return NONE;
}

/* A value out of range is refused here; what a shape as a whole must be is checked when it is known. */
static bool take_value(struct up_options *o, enum option option, const char *value)
{
    int64_t n = 0;
    bool fine = true;
    switch (option) {
    case PRIMARIES:
        fine = take_number(value, 1, PLAN_NODES_MAX, &n);
        o->shape.primaries = (int)n;
        o->primaries_given = true;
        break;
    case REPLICAS:
        fine = take_number(value, 0, PLAN_NODES_MAX, &n);
        o->shape.replicas = (int)n;
        o->replicas_given = true;
        break;
    case PORT:
        fine = take_number(value, 1, 65535, &n);
        o->shape.port = (int)n;
        o->port_given = true;
        break;
    case PROXY_PORT:
        fine = take_number(value, 0, 65535, &n);
        o->proxy_port = (int)n;
        break;
    case DIRECTORY:
        fine = *value != '\0';
        o->dir = value;
        break;
    case BIND: {
        struct in6_addr address;
        fine = inet_pton(AF_INET, value, &address) == 1 || inet_pton(AF_INET6, value, &address) == 1;
        o->bind = value;
        break;
    }
    case NODE_TIMEOUT: fine = take_number(value, 1, INT32_MAX, &o->node_timeout_ms); break;
    case STOP_TIMEOUT:
        fine = take_number(value, 0, 86400, &n);
        o->stop_timeout_s = (int)n;
        break;
    default: break;
    }
    return fine;
}

/* A password that the nodes will ask for has to be sent by us as well. */
static void take_extra(struct up_options *o, int argc, char **argv)
{
    o->extra = argv;
    o->extra_count = argc;
    for (int i = 0; i + 1 < argc; i++)
        if (strcasecmp(argv[i], "--requirepass") == 0 && *argv[i + 1]) o->password = argv[i + 1];
}

enum parsed up_options_parse(int argc, char **argv, struct up_options *o)
{
    *o = (struct up_options){.shape = {3, 1, 7000},
                             .proxy_port = -1,
                             .dir = UP_DIR_DEFAULT,
                             .bind = "127.0.0.1",
                             .restart = true,
                             .stop_timeout_s = 60};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(up_usage, stdout);
            return PARSED_HELP;
        }
        if (strcmp(argv[i], "--") == 0) {
            take_extra(o, argc - i - 1, argv + i + 1);
            break;
        }
        enum option option = which_option(argv[i]);
        if (option == NONE) return wrong(up_usage, "up", "unknown argument ", argv[i]);
        if (option == NO_RESTART) {
            o->restart = false;
        } else if (option == DETACH) {
            o->detach = true;
        } else if (i + 1 == argc) {
            return wrong(up_usage, "up", "a value is missing after ", argv[i]);
        } else if (i++, !take_value(o, option, argv[i])) {
            fprintf(stderr, "covey up: '%s' is no value for %s\n\n%s", argv[i], argv[i - 1], up_usage);
            return PARSED_WRONG;
        }
    }
    if (o->extra_count && strncmp(o->extra[0], "--", 2) != 0)
        return wrong(up_usage, "up", "the directives after -- begin with --, unlike ", o->extra[0]);
    const char *complaint = plan_check(&o->shape);
    return complaint ? wrong(up_usage, "up", complaint, "") : PARSED;
}

enum parsed down_options_parse(int argc, char **argv, const char **dir)
{
    *dir = UP_DIR_DEFAULT;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(down_usage, stdout);
            return PARSED_HELP;
        }
        if (strcmp(argv[i], "--dir") != 0) return wrong(down_usage, "down", "unknown argument ", argv[i]);
        if (i + 1 == argc || !*argv[i + 1]) return wrong(down_usage, "down", "a value is missing after ", argv[i]);
        *dir = argv[++i];
    }
    return PARSED;
}
