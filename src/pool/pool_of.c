/* pool_of.c: says which server of a static pool has a key, with all servers there or with some ejected. */
#include "base/mem.h"
#include "pool/conf.h"
#include "pool/pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage_text[] =
    "Usage: covey pool-of FILE POOL [--without SERVER]... [-0] [KEY...]\n\n"
    "Prints which server of a pool of FILE, a nutcracker.yml, has each key: \"host:port:weight\", a tab, its name.\n"
    "Without keys they are read from standard input, one a line (-0: each ended by a byte of value 0).\n\n"
    "  --without SERVER   as if this server (by name, or host:port:weight) were ejected\n";

struct question {
    const struct pool_conf *pool;
    struct ring ring;
    bool *live;
    char end; /* of a key on standard input */
};

static bool eject(struct question *q, const char *server)
{
    for (size_t i = 0; i < q->pool->servers_n; i++) {
        const struct pool_server *s = &q->pool->servers[i];
        if (strcmp(s->name, server) != 0 && strcmp(s->address, server) != 0) continue;
        q->live[i] = false;
        return true;
    }
    fprintf(stderr, "covey pool-of: pool '%s' has no server '%s'\n", q->pool->name, server);
    return false;
}

static void answer(const struct question *q, struct bytes key)
{
    int at = pool_conf_place(q->pool, &q->ring, key, (uint32_t)random());
    if (at < 0)
        puts("-\t-");
    else
        printf("%s\t%s\n", q->pool->servers[at].address, q->pool->servers[at].name);
}

static void answer_input(const struct question *q)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    while ((n = getdelim(&line, &cap, q->end, stdin)) >= 0) {
        if (n > 0 && line[n - 1] == q->end) n--;
        answer(q, bytes_make(line, (size_t)n));
    }
    free(line); /* getdelim()'s, from the C library */
}

/* Options behind FILE and POOL; returns the index of the first key, or -1. */
static int read_options(struct question *q, int argc, char **argv)
{
    int i = 3;
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "--") == 0) return i + 1;
        if (strcmp(argv[i], "-0") == 0) {
            q->end = 0;
        } else if (strcmp(argv[i], "--without") == 0 && i + 1 < argc) {
            if (!eject(q, argv[++i])) return -1;
        } else {
            fputs(usage_text, stderr);
            return -1;
        }
    }
    return i;
}

static int answer_all(struct question *q, int argc, char **argv)
{
    for (size_t i = 0; i < q->pool->servers_n; i++) q->live[i] = true;
    int first = read_options(q, argc, argv);
    if (first < 0) return 2;
    if (pool_conf_ring(q->pool, q->live, &q->ring) != OK) {
        fputs("covey pool-of: out of memory\n", stderr);
        return 1;
    }
    for (int i = first; i < argc; i++) answer(q, bytes_of(argv[i]));
    if (first == argc) answer_input(q);
    ring_deinit(&q->ring);
    return 0;
}

int pool_of_main(int argc, char **argv)
{
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(usage_text, stdout);
        return 0;
    }
    if (argc < 3) {
        fputs(usage_text, stderr);
        return 2;
    }
    struct pool_conf_file file;
    char error[POOL_CONF_ERROR_MAX];
    if (pool_conf_load(argv[1], &file, error) != OK) {
        fprintf(stderr, "covey pool-of: %s\n", error);
        return 1;
    }
    int result = 1;
    struct question q = {.pool = pool_conf_find(&file, bytes_of(argv[2])), .end = '\n'};
    if (q.pool) {
        q.live = mem_calloc(q.pool->servers_n, sizeof *q.live);
        result = answer_all(&q, argc, argv);
        mem_free(q.live);
    } else {
        fprintf(stderr, "covey pool-of: %s has no pool '%s'\n", argv[1], argv[2]);
    }
    pool_conf_deinit(&file);
    return result;
}
