/* main.c: picks a role.  Called through a link named redis-server it is `covey server`, through one named nutcracker
 * the proxy of static pools, and through redis-check-rdb and redis-check-aof these tools. */
#include "base/version.h"
#include "check/check.h"
#include "operator/operator.h"
#include "pool/pool.h"
#include "proxy/proxy.h"
#include "server/server.h"

#include <libgen.h>
#include <stdio.h>
#include <string.h>

struct role {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
};

/* Every node can be the one address for plain clients. */
static int node_main(int argc, char **argv)
{
    static const struct server_beside beside = {proxy_start_inside, proxy_inside_users, proxy_inside_configure};
    return server_main(argc, argv, &beside);
}

static const struct role roles[] = {
    {"server", node_main, "[redis.conf] [--directive value ...]   a data node"},
    {"proxy", proxy_main, "--cluster HOST:PORT,... [--listen ADDR]   one address in front of a cluster"},
    {"proxy", proxy_main, "--pool nutcracker.yml                   static pools, as nutcracker has them"},
    {"up", up_main, "[--primaries 3] [--replicas 1] ...      a whole cluster on this machine"},
    {"down", down_main, "--dir DIR                               stops what `up --detach` started"},
    {"check-rdb", check_rdb_main, "FILE                                      whether an RDB file is sound"},
    {"check-aof", check_aof_main, "[--fix | --truncate-to-timestamp T] FILE  the same for an AOF, or its manifest"},
    {"pool-of", pool_of_main, "nutcracker.yml POOL [KEY...]            which server of a static pool has a key"},
};

static int usage(FILE *out)
{
    fprintf(out, "Usage: covey ROLE [arguments]\n\n");
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        fprintf(out, "  %-9s %s\n", roles[i].name, roles[i].summary);
    fprintf(out, "\ncovey --version prints the version, covey ROLE --help more about a role.\n");
    return out == stdout ? 0 : 2;
}

int main(int argc, char **argv)
{
    const char *called_as = basename(argv[0]);
    if (strcmp(called_as, "redis-server") == 0) return node_main(argc, argv);
    if (strcmp(called_as, "nutcracker") == 0) return nutcracker_main(argc, argv);
    if (strcmp(called_as, "redis-check-rdb") == 0) return check_rdb_main(argc, argv);
    if (strcmp(called_as, "redis-check-aof") == 0) return check_aof_main(argc, argv);
    if (argc < 2) return usage(stderr);
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-v") == 0) {
        printf("covey %s\n", COVEY_VERSION);
        return 0;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0)
        return usage(stdout);
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (strcmp(argv[1], roles[i].name) == 0) return roles[i].run(argc - 1, argv + 1);
    fprintf(stderr, "covey: unknown role '%s'\n", argv[1]);
    return usage(stderr);
}
