/* main.c: picks a role.  Called through a link named redis-server it is `covey server`, through one named nutcracker
 * the proxy of static pools, and through redis-check-rdb and redis-check-aof these tools. */
#include "base/version.h"
#include "check/check.h"
#include "operator/operator.h"
#include "pool/pool.h"
#include "proxy/proxy.h"
#include "server/server.h"

#include <libgen.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct role {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *arguments, *summary;
    const char *help; /* NULL: the role answers --help itself */
};

/* Every node can be the one address for plain clients. */
static int node_main(int argc, char **argv)
{
    static const struct server_beside beside = {proxy_start_inside,       proxy_inside_users, proxy_inside_configure,
                                                proxy_inside_map_changed, proxy_inside_leave, proxy_inside_clients};
    return server_main(argc, argv, &beside);
}

static const char server_help[] = "Usage: covey server [redis.conf | -] [--directive value ...]\n\n"
                                  "A data node.  The file is an ordinary redis.conf, `-` reads one from standard "
                                  "input; directives on the command line\n"
                                  "come after it.  docs/compatibility.md lists all directives.  Some to begin with:\n\n"
                                  "  --port 6379              --bind 127.0.0.1        --dir /var/lib/covey\n"
                                  "  --save \"3600 1 300 100\"  --appendonly yes        --maxmemory 4gb\n"
                                  "  --cluster-enabled yes    --proxy-port 6380       --replicaof HOST PORT\n"
                                  "  --workers N              threads that execute commands (one a processor)\n\n"
                                  "covey server --version prints the version.\n";

static const char check_rdb_help[] = "Usage: covey check-rdb FILE\n\n"
                                     "Reads an RDB file as a server would, and says where it is damaged, as "
                                     "redis-check-rdb does.  Status 0: it is sound.\n";

static const char check_aof_help[] =
    "Usage: covey check-aof [--fix | --truncate-to-timestamp TIME] FILE\n\n"
    "FILE is an AOF's manifest (appendonlydir/appendonly.aof.manifest), or one file of it.  Do not use it on files of "
    "a\n"
    "server that runs.\n\n"
    "  --fix                          cuts off a damaged or incomplete end; asks before\n"
    "  --truncate-to-timestamp TIME   cuts off what was written after that time (seconds since 1970), where the AOF\n"
    "                                 has time stamps (aof-timestamp-enabled)\n";

static const struct role roles[] = {
    {"server", node_main, "[redis.conf] [--directive value ...]", "a data node", server_help},
    {"proxy", proxy_main, "--cluster HOST:PORT,... [--listen ADDR]", "one address in front of a cluster", NULL},
    {"proxy", proxy_main, "--pool nutcracker.yml", "static pools, as nutcracker has them", NULL},
    {"up", up_main, "[--primaries 3] [--replicas 1] ...", "a whole cluster on this machine", NULL},
    {"down", down_main, "--dir DIR", "stops what `up --detach` started", NULL},
    {"check-rdb", check_rdb_main, "FILE", "whether an RDB file is sound", check_rdb_help},
    {"check-aof", check_aof_main, "[--fix | --truncate-to-timestamp T] FILE", "the same for an AOF, or its manifest",
     check_aof_help},
    {"pool-of", pool_of_main, "nutcracker.yml POOL [KEY...]", "which server of a static pool has a key", NULL},
};

static int usage(FILE *out)
{
    fprintf(out, "Usage: covey ROLE [arguments]\n\n");
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        fprintf(out, "  %-9s %-40s  %s\n", roles[i].name, roles[i].arguments, roles[i].summary);
    fprintf(out, "\ncovey --version prints the version, covey ROLE --help more about a role.\n");
    return out == stdout ? 0 : 2;
}

static bool asks_for_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

static int run_role(const struct role *r, int argc, char **argv)
{
    if (!r->help || argc != 2 || !asks_for_help(argv[1])) return r->run(argc, argv);
    fputs(r->help, stdout);
    return 0;
}

int main(int argc, char **argv)
{
    const char *called_as = basename(argv[0]);
    if (strcmp(called_as, "redis-server") == 0) return run_role(&roles[0], argc, argv);
    if (strcmp(called_as, "nutcracker") == 0) return nutcracker_main(argc, argv);
    if (strcmp(called_as, "redis-check-rdb") == 0) return check_rdb_main(argc, argv);
    if (strcmp(called_as, "redis-check-aof") == 0) return check_aof_main(argc, argv);
    if (argc < 2) return usage(stderr);
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-v") == 0) {
        printf("covey %s\n", COVEY_VERSION);
        return 0;
    }
    if (asks_for_help(argv[1]) || strcmp(argv[1], "help") == 0) return usage(stdout);
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (strcmp(argv[1], roles[i].name) == 0) return run_role(&roles[i], argc - 1, argv + 1);
    fprintf(stderr, "covey: unknown role '%s'\n", argv[1]);
    return usage(stderr);
}
