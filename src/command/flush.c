/* Commands that change whole databases.  They run with the server at rest, and detach tables rather than empty them. */
#include "base/mem.h"
#include "command/call.h"

#include <limits.h>

struct tables {
    struct table **p;
    size_t n, cap;
};

static void tables_add(struct tables *list, struct table *t)
{
    if (list->n == list->cap) {
        list->cap = list->cap ? list->cap * 2 : 64;
        list->p = mem_realloc(list->p, list->cap * sizeof *list->p);
    }
    list->p[list->n++] = t;
}

/* Empties one database; returns how many keys it had. */
static size_t flush_db(struct call *c, int db, struct tables *gone)
{
    size_t keys = store_db_count(c->env->store, db);
    for (unsigned slot = 0; slot < SLOT_COUNT; slot++) {
        struct table *t = store_detach_slot(c->env->store, db, slot);
        if (t) tables_add(gone, t);
    }
    return keys;
}

static void free_tables(struct call *c, struct tables *gone)
{
    if (c->env->free_tables) {
        if (gone->n) c->env->free_tables(c->env->ctx, gone->p, gone->n);
    } else {
        for (size_t i = 0; i < gone->n; i++) store_table_free(gone->p[i]);
    }
    mem_free(gone->p);
}

/* db: -1 for all of them.  SYNC and ASYNC differ in nothing a client could see but time: what takes long, freeing, is
 * done behind its back. */
static void flush(struct call *c, int db)
{
    if (c->argc > 2 || (c->argc == 2 && !call_arg_is(c, 1, "sync") && !call_arg_is(c, 1, "async"))) {
        resp_error(&c->out, ERR_SYNTAX);
        return;
    }
    if (!call_exclusive(c)) return;
    if (c->env->flushed) c->env->flushed(c->env->ctx, db, -1);
    struct tables gone = {0};
    int first = db < 0 ? 0 : db, last = db < 0 ? store_databases(c->env->store) - 1 : db;
    for (int i = first; i <= last; i++)
        if (store_db_count(c->env->store, i)) c->dirty += flush_db(c, i, &gone);
    free_tables(c, &gone);
    /* Also when nothing was there: a replica may hold what this primary has no longer. */
    call_effect(c, c->argc, c->argv);
    resp_ok(&c->out);
}

void cmd_flushdb(struct call *c)
{
    flush(c, c->db);
}

void cmd_flushall(struct call *c)
{
    flush(c, -1);
}

/* False: the error was replied. */
static bool parse_swap(struct call *c, size_t arg, const char *error, int *db)
{
    int64_t n;
    if (!call_arg_i64(c, arg, &n, error)) return false;
    if (n < INT_MIN || n > INT_MAX) {
        resp_error(&c->out, error);
        return false;
    }
    *db = (int)n;
    return true;
}

void cmd_swapdb(struct call *c)
{
    int a, b, n = store_databases(c->env->store);
    if (c->env->cluster_enabled) {
        resp_error(&c->out, "ERR SWAPDB is not allowed in cluster mode");
        return;
    }
    if (!parse_swap(c, 1, "ERR invalid first DB index", &a)) return;
    if (!parse_swap(c, 2, "ERR invalid second DB index", &b)) return;
    if (a < 0 || a >= n || b < 0 || b >= n) {
        resp_error(&c->out, "ERR DB index is out of range");
        return;
    }
    if (!call_exclusive(c)) return;
    if (c->env->flushed && a != b) {
        c->env->flushed(c->env->ctx, a, b);
        c->env->flushed(c->env->ctx, b, a);
    }
    store_swap(c->env->store, a, b);
    c->dirty++;
    resp_ok(&c->out);
}
