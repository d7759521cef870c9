/* conf.c: the shape of the file and its keys; conf_values.c reads what stands behind a key. */
#include "pool/conf.h"

#include "base/mem.h"
#include "pool/conf_values.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml.h>

enum { FILE_MAX = 16 * 1024 * 1024 };

struct reader {
    yaml_parser_t yaml;
    const char *file;
    char *error;
    struct pool_conf_file *out;
    size_t pools_cap;
};

static enum status refuse(struct reader *r, size_t line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* line: counted from 1, 0: none */
static enum status refuse(struct reader *r, size_t line, const char *fmt, ...)
{
    char reason[POOL_CONF_ERROR_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(reason, sizeof reason, fmt, ap);
    va_end(ap);
    char at[32] = "";
    if (line > 0) snprintf(at, sizeof at, "%zu:", line);
    snprintf(r->error, POOL_CONF_ERROR_MAX, "%.200s:%s %.270s", r->file, at, reason);
    return E_INVALID;
}

static size_t line_of(yaml_mark_t mark)
{
    return mark.line + 1;
}

static enum status refuse_yaml(struct reader *r)
{
    const char *what = r->yaml.problem ? r->yaml.problem : "not YAML";
    if (r->yaml.error == YAML_MEMORY_ERROR) return E_NOMEM;
    return refuse(r, line_of(r->yaml.error == YAML_READER_ERROR ? r->yaml.mark : r->yaml.problem_mark), "%s", what);
}

static enum status open_yaml(struct reader *r, struct bytes text)
{
    if (!yaml_parser_initialize(&r->yaml)) return E_NOMEM;
    yaml_parser_set_input_string(&r->yaml, (const unsigned char *)(text.n ? text.p : ""), text.n);
    return OK;
}

/* ---- first pass: only block mappings, block sequences and scalars are allowed ---- */

static const char *forbidden(yaml_token_type_t type)
{
    switch (type) {
    case YAML_VERSION_DIRECTIVE_TOKEN:
    case YAML_TAG_DIRECTIVE_TOKEN: return "a directive";
    case YAML_DOCUMENT_START_TOKEN: return "a document start";
    case YAML_DOCUMENT_END_TOKEN: return "a document end";
    case YAML_FLOW_SEQUENCE_START_TOKEN:
    case YAML_FLOW_SEQUENCE_END_TOKEN: return "a list in brackets";
    case YAML_FLOW_MAPPING_START_TOKEN:
    case YAML_FLOW_MAPPING_END_TOKEN: return "a mapping in braces";
    case YAML_FLOW_ENTRY_TOKEN: return "a comma between entries";
    case YAML_ALIAS_TOKEN: return "an alias";
    case YAML_ANCHOR_TOKEN: return "an anchor";
    case YAML_TAG_TOKEN: return "a tag";
    default: return NULL;
    }
}

static enum status check_tokens(struct reader *r, struct bytes text)
{
    enum status st = open_yaml(r, text);
    bool end = st != OK;
    while (!end && st == OK) {
        yaml_token_t token;
        if (!yaml_parser_scan(&r->yaml, &token)) {
            st = refuse_yaml(r);
            break;
        }
        const char *bad = forbidden(token.type);
        if (bad) st = refuse(r, line_of(token.start_mark), "%s is not allowed here", bad);
        end = token.type == YAML_STREAM_END_TOKEN;
        yaml_token_delete(&token);
    }
    yaml_parser_delete(&r->yaml);
    return st;
}

/* ---- second pass ---- */

static struct pool_conf *add_pool(struct reader *r)
{
    struct pool_conf_file *f = r->out;
    if (f->n == r->pools_cap) {
        size_t cap = r->pools_cap ? 2 * r->pools_cap : 4;
        struct pool_conf *p = mem_try_realloc(f->pools, cap * sizeof *p);
        if (!p) return NULL;
        f->pools = p, r->pools_cap = cap;
    }
    return memset(&f->pools[f->n++], 0, sizeof(struct pool_conf));
}

static enum status next_event(struct reader *r, yaml_event_t *e)
{
    return yaml_parser_parse(&r->yaml, e) ? OK : refuse_yaml(r);
}

static struct bytes scalar_of(const yaml_event_t *e)
{
    return bytes_make(e->data.scalar.value, e->data.scalar.length);
}

static enum status set_value(struct reader *r, struct conf_values *v, struct bytes key, const yaml_event_t *e)
{
    const char *why = NULL;
    enum status st = conf_values_set(v, key, scalar_of(e), &why);
    if (st != E_INVALID) return st;
    return refuse(r, line_of(e->start_mark), "directive \"%.*s\" %s", (int)(key.n < 64 ? key.n : 64), key.p, why);
}

/* The elements of a list, up to its end. */
static enum status read_list(struct reader *r, struct conf_values *v, struct bytes key)
{
    for (;;) {
        yaml_event_t e;
        enum status st = next_event(r, &e);
        if (st != OK) return st;
        bool end = e.type == YAML_SEQUENCE_END_EVENT;
        if (!end && e.type != YAML_SCALAR_EVENT)
            st = refuse(r, line_of(e.start_mark), "a server must be written \"host:port:weight [name]\"");
        else if (!end)
            st = set_value(r, v, key, &e);
        yaml_event_delete(&e);
        if (end || st != OK) return st;
    }
}

/* What stands behind one key of a pool. */
static enum status read_directive(struct reader *r, struct conf_values *v, const yaml_event_t *key_event)
{
    struct bytes key = scalar_of(key_event);
    int shown = (int)(key.n < 64 ? key.n : 64);
    if (!conf_values_known(key))
        return refuse(r, line_of(key_event->start_mark), "directive \"%.*s\" is unknown", shown, key.p);
    yaml_event_t e;
    enum status st = next_event(r, &e);
    if (st != OK) return st;
    bool list = conf_values_is_list(key);
    if (list && e.type == YAML_SEQUENCE_START_EVENT && v->pool->servers_n == 0)
        st = read_list(r, v, key);
    else if (list && e.type == YAML_SEQUENCE_START_EVENT)
        st = refuse(r, line_of(e.start_mark), "directive \"%.*s\" is a duplicate", shown, key.p);
    else if (list)
        st = refuse(r, line_of(e.start_mark), "directive \"%.*s\" must be a list", shown, key.p);
    else if (e.type != YAML_SCALAR_EVENT)
        st = refuse(r, line_of(e.start_mark), "directive \"%.*s\" must be a single value", shown, key.p);
    else
        st = set_value(r, v, key, &e);
    yaml_event_delete(&e);
    return st;
}

static enum status read_pool(struct reader *r, const yaml_event_t *name_event)
{
    size_t line = line_of(name_event->start_mark);
    struct bytes name = scalar_of(name_event);
    if (name.n == 0 || memchr(name.p, 0, name.n)) return refuse(r, line, "a pool without a proper name");
    struct pool_conf *pool = add_pool(r);
    if (!pool) return E_NOMEM;
    struct conf_values v;
    conf_values_init(&v, pool);
    pool->name = bytes_dup_cstr(name);
    pool->line = (int)line;
    yaml_event_t e;
    enum status st = next_event(r, &e);
    if (st != OK) return st;
    if (e.type != YAML_MAPPING_START_EVENT)
        st = refuse(r, line, "pool '%.64s' must have directives of the form \"key: value\" below it", pool->name);
    yaml_event_delete(&e);
    for (bool end = false; st == OK && !end;) {
        if ((st = next_event(r, &e)) != OK) return st;
        end = e.type == YAML_MAPPING_END_EVENT;
        if (!end && e.type != YAML_SCALAR_EVENT)
            st = refuse(r, line_of(e.start_mark), "a directive must be a word");
        else if (!end)
            st = read_directive(r, &v, &e);
        yaml_event_delete(&e);
    }
    if (st != OK) return st;
    const char *why = NULL;
    char text[160];
    st = conf_values_finish(&v, text, &why);
    return st == E_INVALID ? refuse(r, line, "pool '%.64s': %s", pool->name, why) : st;
}

/* Events in front of the pools: stream start, document start, the mapping. */
static enum status read_begin(struct reader *r)
{
    for (;;) {
        yaml_event_t e;
        enum status st = next_event(r, &e);
        if (st != OK) return st;
        yaml_event_type_t type = e.type;
        size_t line = line_of(e.start_mark);
        yaml_event_delete(&e);
        if (type == YAML_STREAM_END_EVENT) return refuse(r, 0, "has no pools");
        if (type == YAML_MAPPING_START_EVENT) return OK;
        if (type != YAML_STREAM_START_EVENT && type != YAML_DOCUMENT_START_EVENT)
            return refuse(r, line, "pools must be written \"name:\" with their directives below");
    }
}

static enum status read_pools(struct reader *r, struct bytes text)
{
    enum status st = open_yaml(r, text);
    if (st != OK) return st;
    st = read_begin(r);
    for (bool end = false; st == OK && !end;) {
        yaml_event_t e;
        st = next_event(r, &e);
        if (st != OK) break;
        end = e.type == YAML_MAPPING_END_EVENT;
        if (!end && e.type != YAML_SCALAR_EVENT)
            st = refuse(r, line_of(e.start_mark), "a pool's name must be a word");
        else if (!end)
            st = read_pool(r, &e);
        yaml_event_delete(&e);
    }
    yaml_parser_delete(&r->yaml);
    return st;
}

static int compare_listen(const void *a, const void *b)
{
    const struct pool_conf *x = a, *y = b;
    return conf_values_compare_names(x->listen, y->listen);
}

static int compare_pools(const void *a, const void *b)
{
    const struct pool_conf *x = a, *y = b;
    return conf_values_compare_names(x->name, y->name);
}

/* Sorts the pools by name; no two may have the same name or the same `listen`. */
static enum status check_pools(struct reader *r)
{
    struct pool_conf *p = r->out->pools;
    if (r->out->n == 0) return refuse(r, 0, "has no pools");
    qsort(p, r->out->n, sizeof *p, compare_listen);
    for (size_t i = 1; i < r->out->n; i++)
        if (compare_listen(&p[i - 1], &p[i]) == 0)
            return refuse(r, (size_t)p[i].line, "pools '%.64s' and '%.64s' have the same listen address '%.100s'",
                          p[i - 1].name, p[i].name, p[i].listen);
    qsort(p, r->out->n, sizeof *p, compare_pools);
    for (size_t i = 1; i < r->out->n; i++)
        if (compare_pools(&p[i - 1], &p[i]) == 0)
            return refuse(r, (size_t)p[i].line, "two pools have the same name '%.64s'", p[i].name);
    return OK;
}

enum status pool_conf_parse(struct bytes text, const char *file, struct pool_conf_file *out,
                            char error[POOL_CONF_ERROR_MAX])
{
    *out = (struct pool_conf_file){0};
    snprintf(error, POOL_CONF_ERROR_MAX, "%.200s: out of memory", file);
    struct reader r = {.file = file, .error = error, .out = out};
    enum status st = check_tokens(&r, text);
    if (st == OK) st = read_pools(&r, text);
    if (st == OK) st = check_pools(&r);
    if (st != OK)
        pool_conf_deinit(out);
    else
        *error = 0;
    return st;
}

static enum status read_whole(int fd, struct buf *b)
{
    for (;;) {
        if (b->n > FILE_MAX) return E_TOO_BIG;
        if (buf_try_reserve(b, 64 * 1024) != OK) return E_NOMEM;
        ssize_t got = read(fd, b->p + b->n, b->cap - b->n);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return E_IO;
        if (got == 0) return OK;
        b->n += (size_t)got;
    }
}

enum status pool_conf_load(const char *file, struct pool_conf_file *out, char error[POOL_CONF_ERROR_MAX])
{
    *out = (struct pool_conf_file){0};
    struct buf text = {0};
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    enum status st = fd < 0 ? E_IO : read_whole(fd, &text);
    if (st == OK)
        st = pool_conf_parse(buf_bytes(&text), file, out, error);
    else
        snprintf(error, POOL_CONF_ERROR_MAX, "%.200s: %s", file,
                 st == E_IO        ? strerror(errno)
                 : st == E_TOO_BIG ? "longer than 16 MB"
                                   : "out of memory");
    if (fd >= 0) close(fd);
    buf_deinit(&text);
    return st;
}

static void free_pool(struct pool_conf *p)
{
    for (size_t i = 0; i < p->servers_n; i++) {
        mem_free(p->servers[i].address);
        mem_free(p->servers[i].name);
        mem_free(p->servers[i].host);
    }
    mem_free(p->servers);
    mem_free(p->name);
    mem_free(p->listen);
    mem_free(p->listen_host);
    mem_free(p->redis_auth);
}

void pool_conf_deinit(struct pool_conf_file *f)
{
    for (size_t i = 0; i < f->n; i++) free_pool(&f->pools[i]);
    mem_free(f->pools);
    *f = (struct pool_conf_file){0};
}

const struct pool_conf *pool_conf_find(const struct pool_conf_file *f, struct bytes name)
{
    for (size_t i = 0; i < f->n; i++)
        if (bytes_eq(name, bytes_of(f->pools[i].name))) return &f->pools[i];
    return NULL;
}

enum status pool_conf_ring(const struct pool_conf *pool, const bool *live, struct ring *out)
{
    struct ring_server *servers = mem_try_alloc(pool->servers_n * sizeof *servers);
    if (!servers) return E_NOMEM;
    for (size_t i = 0; i < pool->servers_n; i++)
        servers[i] = (struct ring_server){bytes_of(pool->servers[i].name), pool->servers[i].weight, !live || live[i]};
    enum status st = ring_build(out, pool->distribution, servers, pool->servers_n);
    mem_free(servers);
    return st;
}

int pool_conf_place(const struct pool_conf *pool, const struct ring *r, struct bytes key, uint32_t random)
{
    struct bytes part = pool_hash_part(key, bytes_make(pool->hash_tag, pool->hash_tagged ? 2 : 0));
    bool hashed = pool->distribution != POOL_RANDOM && pool->servers_n > 1 && part.n > 0;
    return ring_find(r, hashed ? pool_hash_run(pool->hash, part) : 0, random);
}
