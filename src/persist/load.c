/* load.c: an RDB into a store.  What belongs to one key (decode, look at its time, insert) touches that key's slot
 * only, so several threads may do it side by side. */
#include "base/mem.h"
#include "base/number.h"
#include "persist/persist.h"
#include "persist/rdb_batch.h"
#include "persist/rdb_input.h"
#include "store/access.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* Smaller files are loaded before other threads would have started. */
enum { THREADS_FROM_BYTES = 4 * RDB_BATCH_WINDOW };
/* Counts are added up by each thread and go to where all see them after so many keys. */
enum { TALLY_KEYS = 1024 };

/* Keys wait until so many are there, because then memory can be asked for what all of them need at once. */
enum { STAGE_KEYS = 16 };

struct staged {
    int db;
    struct key key; /* the name is the entry's own */
    struct entry *entry;
};

/* A load, as one of its threads sees it. */
struct load {
    struct store *store;
    const struct rdb_load_options *options;
    struct rdb_extras *extras;
    struct rdb_progress *progress;
    struct rdb_load_result *result; /* keys: by the thread that reads, at the end */
    uint64_t keys, keys_untold, expired_untold;
    unsigned staged_n;
    struct staged staged[STAGE_KEYS];
    struct rdb_error twice; /* E_EXISTS: which key */
};

static void tell(struct load *l)
{
    atomic_fetch_add_explicit(&l->progress->keys, l->keys_untold, memory_order_relaxed);
    atomic_fetch_add_explicit(&l->progress->keys_expired, l->expired_untold, memory_order_relaxed);
    l->keys += l->keys_untold;
    l->keys_untold = l->expired_untold = 0;
}

static void set_access(const struct load *l, struct entry *e, const struct rdb_key *key)
{
    const struct rdb_load_options *o = l->options;
    if (o->lfu)
        entry_set_lru(e, lfu_bits(lfu_clock_of(o->now_ms), key->access == RDB_ACCESS_FREQ ? key->freq : LFU_START));
    else if (key->access == RDB_ACCESS_IDLE)
        entry_set_lru(e, o->lru_clock - (uint32_t)(key->idle_s < 0x7fffff ? key->idle_s : 0x7fffff));
    else
        entry_set_lru(e, o->lru_clock);
}

/* Whether the key is not to be taken over. */
static bool left_out(struct load *l, const struct rdb_key *key)
{
    const struct rdb_load_options *o = l->options;
    int64_t at = entry_expire_at(key->entry);
    if (at == -1 || o->keep_expired || at >= o->now_ms) return false;
    if (++l->expired_untold == TALLY_KEYS) tell(l);
    if (o->expired) o->expired(o->ctx, key->db, entry_key(key->entry));
    entry_free(key->entry);
    return true;
}

static void prefetch(const struct load *l)
{
    const struct staged *k = l->staged;
    for (unsigned i = 0; i < l->staged_n; i++) store_prefetch_slot(l->store, k[i].db, &k[i].key);
    for (unsigned i = 0; i < l->staged_n; i++) store_prefetch_bucket(l->store, k[i].db, &k[i].key);
    for (unsigned i = 0; i < l->staged_n; i++) store_prefetch_entry(l->store, k[i].db, &k[i].key);
}

static enum status exists(struct load *l, const struct staged *k)
{
    char name[49];
    size_t n = printable(k->key.name, name, sizeof name);
    snprintf(l->twice.text, sizeof l->twice.text, "key '%s'%s of database %d is there twice", name,
             n < k->key.name.n ? "..." : "", k->db);
    return E_EXISTS;
}

static enum status insert(struct load *l, struct staged *k)
{
    slot_lock(l->store, k->key.slot);
    bool there = !l->options->replace && store_find(l->store, k->db, &k->key);
    if (!there) store_put(l->store, k->db, &k->key, k->entry);
    slot_unlock(l->store, k->key.slot);
    if (there) return exists(l, k);
    k->entry = NULL;
    if (++l->keys_untold == TALLY_KEYS) tell(l);
    return OK;
}

static void unstage(struct load *l)
{
    for (unsigned i = 0; i < l->staged_n; i++)
        if (l->staged[i].entry) entry_free(l->staged[i].entry);
    l->staged_n = 0;
}

static enum status on_entries_end(void *ctx)
{
    struct load *l = ctx;
    enum status st = OK;
    prefetch(l);
    for (unsigned i = 0; i < l->staged_n && st == OK; i++) st = insert(l, &l->staged[i]);
    unstage(l);
    return st;
}

static enum status on_entry(void *ctx, struct rdb_key *key)
{
    struct load *l = ctx;
    if (left_out(l, key)) return OK;
    set_access(l, key->entry, key);
    l->staged[l->staged_n++] = (struct staged){key->db, key_of(entry_key(key->entry)), key->entry};
    return l->staged_n < STAGE_KEYS ? OK : on_entries_end(l);
}

static enum status on_db(void *ctx, int db, uint64_t keys, uint64_t keys_with_ttl)
{
    struct load *l = ctx;
    atomic_fetch_add_explicit(&l->progress->keys_total, keys, memory_order_relaxed);
    return OK;
}

static bool is_repl_id(struct bytes v)
{
    if (v.n != 40) return false;
    for (size_t i = 0; i < v.n; i++)
        if (!((v.p[i] >= '0' && v.p[i] <= '9') || (v.p[i] >= 'a' && v.p[i] <= 'f'))) return false;
    return true;
}

/* Unknown fields and values that make no sense are passed over: an aux field says something about the data, it is not
 * part of them. */
static enum status on_aux(void *ctx, struct bytes name, struct bytes value)
{
    struct rdb_aux *aux = &((struct load *)ctx)->result->aux;
    int64_t v = 0;
    bool number = parse_i64(value, &v);
    if (bytes_eq(name, BYTES("repl-id")) && is_repl_id(value))
        memcpy(aux->repl_id, value.p, 40);
    else if (bytes_eq(name, BYTES("repl-offset")) && number && v >= 0)
        aux->repl_offset = v;
    else if (bytes_eq(name, BYTES("repl-stream-db")) && number && v >= -1 && v <= INT32_MAX)
        aux->repl_db = (int)v;
    else if (bytes_eq(name, BYTES("aof-base")) && number)
        aux->aof_base = v != 0;
    else if (bytes_eq(name, BYTES("ctime")) && number)
        aux->ctime_s = v;
    else if (bytes_eq(name, BYTES("used-mem")) && number)
        aux->used_memory = (uint64_t)v;
    return OK;
}

static enum status on_library(void *ctx, struct bytes source)
{
    struct load *l = ctx;
    if (l->extras) rdb_extras_add(l->extras, source);
    return OK;
}

static enum status on_tick(void *ctx, uint64_t bytes)
{
    struct load *l = ctx;
    atomic_store_explicit(&l->progress->bytes, bytes, memory_order_relaxed);
    return l->options->tick ? l->options->tick(l->options->ctx) : OK;
}

static struct rdb_handler handler_of(struct load *l)
{
    return (struct rdb_handler){l, on_entry, on_entries_end, on_db, on_aux, on_library, on_tick};
}

/* What the reader's thread and its helpers share. */
struct crewed {
    struct load_crew *crew; /* NULL: no helpers */
    struct load *loads;
    struct rdb_handler *handlers;
    unsigned n; /* threads in all */
};

static void crewed_begin(struct crewed *c, const struct load *first, uint64_t size,
                         const struct rdb_read_options *options)
{
    unsigned threads = first->options->threads;
    c->n = threads > 1 && size >= THREADS_FROM_BYTES ? threads : 1;
    c->loads = mem_alloc(c->n * sizeof *c->loads);
    c->handlers = mem_alloc(c->n * sizeof *c->handlers);
    for (unsigned i = 0; i < c->n; i++) {
        c->loads[i] = *first;
        c->handlers[i] = handler_of(&c->loads[i]);
    }
    c->crew = c->n > 1 ? load_crew_start(c->n - 1, options, c->handlers) : NULL;
}

/* The status of the whole: what failed first in the file counts. */
static enum status crewed_end(struct crewed *c, enum status st, uint64_t *keys, uint64_t offset, struct rdb_error *err)
{
    struct rdb_error other;
    uint64_t at;
    enum status decoded = c->crew ? load_crew_end(c->crew, &at, &other) : OK;
    if (decoded != OK && (st == OK || at < offset)) {
        st = decoded;
        *err = other;
    }
    for (unsigned i = 0; i < c->n; i++) {
        unstage(&c->loads[i]);
        tell(&c->loads[i]);
        *keys += c->loads[i].keys;
        if (st == E_EXISTS && c->loads[i].twice.text[0]) *err = c->loads[i].twice;
    }
    mem_free(c->loads);
    mem_free(c->handlers);
    return st;
}

enum status rdb_load(struct store *s, struct rdb_source source, const struct rdb_load_options *options,
                     struct rdb_extras *extras, struct rdb_progress *progress, struct rdb_load_result *result,
                     struct rdb_error *err)
{
    struct rdb_progress own = {0};
    struct load l = {.store = s, .options = options, .extras = extras, .result = result};
    struct rdb_read_options read_options = {&options->limits, store_databases(s), options->ignore_checksum};
    struct crewed crewed;
    l.progress = progress ? progress : &own;
    *result = (struct rdb_load_result){.aux = {.repl_offset = -1, .repl_db = -1}};
    atomic_store_explicit(&l.progress->bytes_total, source.size, memory_order_relaxed);
    crewed_begin(&crewed, &l, source.size, &read_options);
    struct rdb_reader *r =
        crewed.crew ? rdb_reader_new_batched(source, &crewed.handlers[0], &read_options, load_crew_batches(crewed.crew))
                    : rdb_reader_new(source, &crewed.handlers[0], &read_options);
    enum status st = rdb_reader_run(r, err);
    result->bytes = rdb_reader_bytes(r);
    st = crewed_end(&crewed, st, &result->keys, result->bytes, err);
    result->aux.has_repl = result->aux.repl_id[0] && result->aux.repl_offset >= 0;
    atomic_store_explicit(&l.progress->bytes, result->bytes, memory_order_relaxed);
    if (st == OK && options->rest) buf_append_bytes(options->rest, rdb_reader_rest(r));
    rdb_reader_free(r);
    return st;
}

enum status rdb_read_fd(void *ctx, void *p, size_t n, size_t *got)
{
    ssize_t result;
    do result = read(*(int *)ctx, p, n);
    while (result < 0 && errno == EINTR);
    if (result < 0) return E_IO;
    *got = (size_t)result;
    return OK;
}

enum status rdb_load_file(struct store *s, const char *path, const struct rdb_load_options *options,
                          struct rdb_extras *extras, struct rdb_progress *progress, struct rdb_load_result *result,
                          struct rdb_error *err)
{
    struct stat sb;
    *result = (struct rdb_load_result){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &sb) != 0) {
        int saved = errno;
        snprintf(err->text, sizeof err->text, "can't open %.160s: %s", path, strerror(saved));
        if (fd >= 0) close(fd);
        return saved == ENOENT ? E_NOT_FOUND : E_IO;
    }
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    /* A pipe or device tells no size. */
    struct rdb_source source = {&fd, rdb_read_fd, S_ISREG(sb.st_mode) ? (uint64_t)sb.st_size : 0};
    enum status st = rdb_load(s, source, options, extras, progress, result, err);
    close(fd);
    return st;
}
