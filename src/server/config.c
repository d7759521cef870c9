/* config.c: the values of the options: kept, read, changed. */
#include "server/config.h"

#include "acl/acl.h"
#include "base/glob.h"
#include "base/log.h"
#include "base/mem.h"
#include "command/call.h"
#include "server/config_table.h"
#include "server/renames.h"

#include <pthread.h>
#include <unistd.h>

struct config {
    struct config_numbers numbers; /* first: config_num() */
    pthread_mutex_t mu;            /* for text; a leaf: nothing is taken under it */
    struct buf text[CFG_COUNT];
    int64_t default_num[CFG_COUNT];
    struct {
        _Atomic uint64_t hard, soft;
        _Atomic int64_t soft_seconds;
    } limits[OUTPUT_CLASSES];
    char *file; /* absolute; NULL: none */
    config_applier *applier;
    void *applier_ctx;
    struct buf users;       /* config_users() */
    struct acl *user_names; /* to know a second line for one of them; NULL: none yet */
    bool default_seen;
    struct renames *renames;
    void (*user_lines)(void *ctx, struct buf *out);
    void *user_lines_ctx;
    config_listener *listener;
    void *listener_ctx;
};

static void keep_limits(struct config *c, struct bytes text)
{
    struct output_limit limits[OUTPUT_CLASSES];
    decode_output_limits(text, limits);
    for (int i = 0; i < OUTPUT_CLASSES; i++) {
        atomic_store_explicit(&c->limits[i].hard, limits[i].hard, memory_order_relaxed);
        atomic_store_explicit(&c->limits[i].soft, limits[i].soft, memory_order_relaxed);
        atomic_store_explicit(&c->limits[i].soft_seconds, limits[i].soft_seconds, memory_order_relaxed);
    }
}

/* Puts a value in place; takes its text.  The working directory is the process's, so `dir` is kept there only. */
static void keep(struct config *c, enum config_id id, struct option_value *v)
{
    const struct option *o = option_row(id);
    if (o->type == TYPE_DIRECTORY && v->text.n) {
        char *path = bytes_dup_cstr(buf_bytes(&v->text));
        if (chdir(path) != 0) log_warning("Can't chdir to '%s'", path);
        mem_free(path);
        buf_deinit(&v->text);
        return;
    }
    if (o->type == TYPE_OUTPUT_LIMIT) keep_limits(c, buf_bytes(&v->text));
    pthread_mutex_lock(&c->mu);
    struct buf old = c->text[id];
    c->text[id] = v->text;
    atomic_store_explicit(&c->numbers.num[id], v->num, memory_order_relaxed);
    pthread_mutex_unlock(&c->mu);
    buf_deinit(&old);
}

static int64_t processors(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > 128 ? 128 : n;
}

struct config *config_create(void)
{
    struct config *c = mem_calloc(1, sizeof *c);
    pthread_mutex_init(&c->mu, NULL);
    for (int id = 0; id < CFG_COUNT; id++) {
        const struct option *o = option_row((enum config_id)id);
        struct bytes def = bytes_of(o->def);
        struct option_value v = {0};
        struct buf reason = {0};
        if (!(option_is_text(o) && def.n == 0) && !option_parse(o, &def, 1, bytes_make("", 0), &v, &reason))
            mem_abort(0); /* a bad row in options.def */
        if (id == CFG_WORKERS) v.num = processors();
        c->default_num[id] = v.num;
        keep(c, (enum config_id)id, &v);
    }
    return c;
}

void config_destroy(struct config *c)
{
    for (int i = 0; i < CFG_COUNT; i++) buf_deinit(&c->text[i]);
    pthread_mutex_destroy(&c->mu);
    buf_deinit(&c->users);
    if (c->user_names) acl_destroy(c->user_names);
    renames_destroy(c->renames);
    mem_free(c->file);
    mem_free(c);
}

const char *config_file(const struct config *c)
{
    return c->file ? c->file : "";
}

void config_set_file(struct config *c, const char *path)
{
    mem_free(c->file);
    c->file = mem_strdup(path);
}

/* ---- lines that are no options ---- */

struct bytes config_users(const struct config *c)
{
    return buf_bytes(&c->users);
}

bool config_keep_user(struct config *c, const struct bytes *argv, size_t argc)
{
    static const struct acl_commands no_commands = {0};
    size_t failed;
    bool is_default = bytes_eq(argv[0], BYTES("default"));
    if (!c->user_names) c->user_names = acl_create(&no_commands);
    if (is_default ? c->default_seen : acl_find(c->user_names, argv[0]) != NULL) return false;
    if (is_default)
        c->default_seen = true;
    else if (acl_set_user(c->user_names, argv[0], NULL, 0, &failed))
        mem_abort(0);
    resp_request_append(&c->users, argv, argc);
    return true;
}

struct renames *config_renames(const struct config *c)
{
    return c->renames;
}

const char *config_keep_rename(struct config *c, struct bytes from, struct bytes to)
{
    if (!c->renames) c->renames = renames_create();
    return renames_add(c->renames, from, to);
}

void config_set_user_lines(struct config *c, void (*fn)(void *ctx, struct buf *out), void *ctx)
{
    c->user_lines = fn;
    c->user_lines_ctx = ctx;
}

void config_user_lines(const struct config *c, struct buf *out)
{
    if (c->user_lines) c->user_lines(c->user_lines_ctx, out);
}

/* ---- reading ---- */

static void append_working_directory(struct buf *out)
{
    char path[4096];
    if (getcwd(path, sizeof path)) buf_append_cstr(out, path);
}

void config_text(const struct config *c, enum config_id id, struct buf *out)
{
    const struct option *o = option_row(id);
    if (!option_is_text(o)) {
        option_print(o, config_num(c, id), out);
        return;
    }
    if (o->type == TYPE_DIRECTORY) {
        append_working_directory(out);
        return;
    }
    pthread_mutex_lock((pthread_mutex_t *)&c->mu);
    buf_append(out, c->text[id].p, c->text[id].n);
    pthread_mutex_unlock((pthread_mutex_t *)&c->mu);
}

char *config_cstr(const struct config *c, enum config_id id)
{
    struct buf text = {0};
    config_text(c, id, &text);
    buf_append_char(&text, '\0');
    return text.p;
}

bool config_text_is_empty(const struct config *c, enum config_id id)
{
    return config_num(c, id) == 0;
}

void config_output_limit(const struct config *c, enum output_class cls, struct output_limit *out)
{
    out->hard = atomic_load_explicit(&c->limits[cls].hard, memory_order_relaxed);
    out->soft = atomic_load_explicit(&c->limits[cls].soft, memory_order_relaxed);
    out->soft_seconds = atomic_load_explicit(&c->limits[cls].soft_seconds, memory_order_relaxed);
}

int config_save_points(const struct config *c, struct save_point out[SAVE_POINTS_MAX])
{
    struct buf text = {0};
    config_text(c, CFG_SAVE, &text);
    int n = decode_save_points(buf_bytes(&text), out);
    buf_deinit(&text);
    return n;
}

bool config_is_default(const struct config *c, enum config_id id)
{
    const struct option *o = option_row(id);
    if (!option_is_text(o)) return config_num(c, id) == c->default_num[id];
    if (o->type == TYPE_DIRECTORY) return false;
    struct buf text = {0};
    config_text(c, id, &text);
    bool same = bytes_eq(buf_bytes(&text), bytes_of(o->def));
    buf_deinit(&text);
    return same;
}

/* ---- changing ---- */

bool config_give(struct config *c, enum config_id id, const struct bytes *argv, size_t argc, bool first,
                 struct buf *reason)
{
    struct option_value v;
    struct buf now = {0};
    if (!first) config_text(c, id, &now);
    bool ok = option_parse(option_row(id), argv, argc, buf_bytes(&now), &v, reason);
    if (ok) keep(c, id, &v);
    buf_deinit(&now);
    return ok;
}

void config_force_num(struct config *c, enum config_id id, int64_t value)
{
    atomic_store_explicit(&c->numbers.num[id], value, memory_order_relaxed);
}

void config_force_text(struct config *c, enum config_id id, struct bytes text)
{
    struct option_value v = {.num = text.n > 0};
    buf_append_bytes(&v.text, text);
    keep(c, id, &v);
}

void config_set_applier(struct config *c, config_applier *fn, void *ctx)
{
    c->applier = fn;
    c->applier_ctx = ctx;
}

void config_set_listener(struct config *c, config_listener *fn, void *ctx)
{
    c->listener = fn;
    c->listener_ctx = ctx;
}

static enum status set_failed(struct buf *error, struct bytes name, const char *reason)
{
    error->n = 0;
    buf_append_cstr(error, "ERR CONFIG SET failed (possibly related to argument '");
    buf_append_bytes(error, name);
    buf_printf(error, "') - %s", reason);
    return E_INVALID;
}

/* What can be said before any value is looked at: the first unknown name, forbidden change or repetition. */
static enum status check_names(const struct bytes *pairs, size_t n, bool privileged, enum config_id *ids,
                               struct buf *error)
{
    for (size_t i = 0; i < n; i += 2) {
        struct bytes name = pairs[i];
        enum config_id *id = &ids[i / 2];
        if (!option_find(name, id, NULL)) {
            buf_append_cstr(error, "ERR Unknown option or number of arguments for CONFIG SET - '");
            buf_append_bytes(error, name);
            buf_append_char(error, '\'');
            return E_INVALID;
        }
        const struct option *o = option_row(*id);
        if (o->flags & IMMUTABLE) return set_failed(error, name, "can't set immutable config");
        if (o->flags & PROTECTED && !privileged) return set_failed(error, name, "can't set protected config");
        /* An option under both of its names is not one: the last value stays. */
        for (size_t k = 0; k < i / 2; k++)
            if (ids[k] == *id && bytes_ieq(pairs[2 * k], name)) return set_failed(error, name, "duplicate parameter");
    }
    return OK;
}

static enum status parse_values(struct config *c, const struct bytes *pairs, size_t n, const enum config_id *ids,
                                struct option_value *values, struct buf *error)
{
    for (size_t i = 0; i < n / 2; i++) {
        const struct option *o = option_row(ids[i]);
        struct buf reason = {0}, now = {0};
        /* Only the output limits keep what is not named. */
        if (o->type == TYPE_OUTPUT_LIMIT) config_text(c, ids[i], &now);
        bool ok = option_parse(o, &pairs[2 * i + 1], 1, buf_bytes(&now), &values[i], &reason);
        buf_append_char(&reason, '\0');
        if (!ok) (void)set_failed(error, pairs[2 * i], reason.p);
        buf_deinit(&reason);
        buf_deinit(&now);
        if (ok) continue;
        while (i-- > 0) buf_deinit(&values[i].text);
        return E_INVALID;
    }
    return OK;
}

/* The present values, for taking a change back. */
static struct option_value *keep_old(struct config *c, const enum config_id *ids, size_t n)
{
    struct option_value *old = mem_calloc(n + 1, sizeof *old);
    for (size_t i = 0; i < n; i++) {
        old[i].num = config_num(c, ids[i]);
        if (option_is_text(option_row(ids[i]))) config_text(c, ids[i], &old[i].text);
    }
    return old;
}

/* Puts the values in place, and the old ones back when something that depends on them cannot be made. */
static enum status apply(struct config *c, const struct bytes *pairs, const enum config_id *ids,
                         struct option_value *values, size_t n, struct buf *error)
{
    struct option_value *old = keep_old(c, ids, n);
    size_t at = 0;
    const char *reason = NULL;
    for (size_t i = 0; i < n; i++) keep(c, ids[i], &values[i]);
    bool ok = !c->applier || c->applier(c->applier_ctx, ids, n, &at, &reason);
    for (size_t i = n; i-- > 0;) {
        if (ok)
            buf_deinit(&old[i].text);
        else
            keep(c, ids[i], &old[i]);
    }
    mem_free(old);
    if (ok) return OK;
    struct bytes name = pairs[2 * at];
    log_warning("Failed applying new configuration. Possibly related to new %.*s setting. Restoring previous settings.",
                (int)(name.n < 128 ? name.n : 128), name.p);
    return set_failed(error, name, reason);
}

enum status config_set(struct config *c, const struct bytes *pairs, size_t n, bool privileged, struct buf *error)
{
    enum config_id *ids = mem_alloc((n / 2 + 1) * sizeof *ids);
    struct option_value *values = mem_alloc((n / 2 + 1) * sizeof *values);
    error->n = 0;
    enum status st = check_names(pairs, n, privileged, ids, error);
    if (st == OK) st = parse_values(c, pairs, n, ids, values, error);
    if (st == OK) st = apply(c, pairs, ids, values, n / 2, error);
    for (size_t i = 0; st == OK && i < n / 2 && c->listener; i++) c->listener(c->listener_ctx, ids[i]);
    mem_free(ids);
    mem_free(values);
    return st;
}

/* ---- CONFIG GET ---- */

static bool has_wildcard(struct bytes pattern)
{
    for (size_t i = 0; i < pattern.n; i++)
        if (strchr("*?[\\", pattern.p[i]) && pattern.p[i]) return true;
    return false;
}

/* Whether and as what an option is shown: a name without wildcards as it was asked for, whatever its case. */
static bool wanted(const char *name, bool hidden, const struct bytes *patterns, size_t n, struct bytes *shown)
{
    for (size_t i = 0; name && i < n; i++) {
        *shown = patterns[i];
        if (bytes_ieq(patterns[i], bytes_of(name))) return true;
        *shown = bytes_of(name);
        if (!hidden && has_wildcard(patterns[i]) && glob_match(patterns[i], *shown, true)) return true;
    }
    return false;
}

static size_t reply_one(const struct config *c, enum config_id id, struct bytes name, struct resp_out *out)
{
    struct buf text = {0};
    config_text(c, id, &text);
    resp_bulk(out, name);
    resp_bulk(out, buf_bytes(&text));
    buf_deinit(&text);
    return 1;
}

void config_reply_get(const struct config *c, const struct bytes *patterns, size_t n, struct resp_out *out)
{
    size_t mark = resp_defer(out), found = 0;
    for (int i = 0; i < CFG_COUNT; i++) {
        enum config_id id = (enum config_id)i;
        const struct option *o = option_row(id);
        struct bytes shown;
        bool hidden = o->flags & HIDDEN;
        if (wanted(o->name, hidden, patterns, n, &shown)) found += reply_one(c, id, shown, out);
        if (wanted(o->alias, hidden, patterns, n, &shown)) found += reply_one(c, id, shown, out);
    }
    resp_defer_map(out, mark, found);
}

/* ---- for the handlers ---- */

void options_derive(const struct config *c, struct call_options *out)
{
    int64_t policy = config_num(c, CFG_MAXMEMORY_POLICY);
    *out = (struct call_options){
        .limits = {.hash_max_listpack_entries = (size_t)config_num(c, CFG_HASH_MAX_LISTPACK_ENTRIES),
                   .hash_max_listpack_value = (size_t)config_num(c, CFG_HASH_MAX_LISTPACK_VALUE),
                   .zset_max_listpack_entries = (size_t)config_num(c, CFG_ZSET_MAX_LISTPACK_ENTRIES),
                   .zset_max_listpack_value = (size_t)config_num(c, CFG_ZSET_MAX_LISTPACK_VALUE),
                   .set_max_intset_entries = (size_t)config_num(c, CFG_SET_MAX_INTSET_ENTRIES),
                   .list_max_listpack_size = config_num(c, CFG_LIST_MAX_LISTPACK_SIZE),
                   .stream_node_max_bytes = (size_t)config_num(c, CFG_STREAM_NODE_MAX_BYTES),
                   .stream_node_max_entries = (size_t)config_num(c, CFG_STREAM_NODE_MAX_ENTRIES)},
        .lazyfree_user_del = config_bool(c, CFG_LAZYFREE_LAZY_USER_DEL),
        .lazyfree_user_flush = config_bool(c, CFG_LAZYFREE_LAZY_USER_FLUSH),
        .lazyfree_expire = config_bool(c, CFG_LAZYFREE_LAZY_EXPIRE),
        .lazyfree_server_del = config_bool(c, CFG_LAZYFREE_LAZY_SERVER_DEL),
        .lfu = policy == MAXMEMORY_VOLATILE_LFU || policy == MAXMEMORY_ALLKEYS_LFU,
        .lfu_settings = {(uint32_t)config_num(c, CFG_LFU_LOG_FACTOR), (uint32_t)config_num(c, CFG_LFU_DECAY_TIME)},
        .dump_uncompressed = !config_bool(c, CFG_RDBCOMPRESSION),
        .sanitize_dump_payload = config_num(c, CFG_SANITIZE_DUMP_PAYLOAD) != 0,
        .proto_max_bulk_len = config_num(c, CFG_PROTO_MAX_BULK_LEN),
        .notify = (unsigned)config_num(c, CFG_NOTIFY_KEYSPACE_EVENTS),
        .hll_sparse_max_bytes = config_num(c, CFG_HLL_SPARSE_MAX_BYTES),
    };
}
