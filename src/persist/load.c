/* load.c: an RDB into a store.  What belongs to one key (decode, look at its time, insert) touches that key's slot
 * only. */
#include "base/number.h"
#include "persist/persist.h"
#include "store/access.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

struct load {
    struct store *store;
    const struct rdb_load_options *options;
    struct rdb_extras *extras;
    struct rdb_progress *progress;
    struct rdb_load_result *result;
};

static void count(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
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
    count(&l->progress->keys_expired);
    if (o->expired) o->expired(o->ctx, key->db, entry_key(key->entry));
    entry_free(key->entry);
    return true;
}

static enum status on_entry(void *ctx, struct rdb_key *key)
{
    struct load *l = ctx;
    struct entry *e = key->entry;
    if (left_out(l, key)) return OK;
    set_access(l, e, key);
    struct key k = key_of(entry_key(e));
    slot_lock(l->store, k.slot);
    bool there = !l->options->replace && store_find(l->store, key->db, &k);
    if (!there) store_put(l->store, key->db, &k, e);
    slot_unlock(l->store, k.slot);
    if (there) {
        entry_free(e);
        return E_EXISTS;
    }
    l->result->keys++;
    count(&l->progress->keys);
    return OK;
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

enum status rdb_load(struct store *s, struct rdb_source source, const struct rdb_load_options *options,
                     struct rdb_extras *extras, struct rdb_progress *progress, struct rdb_load_result *result,
                     struct rdb_error *err)
{
    struct rdb_progress own = {0};
    struct load l = {s, options, extras, progress ? progress : &own, result};
    struct rdb_handler handler = {&l, on_entry, on_db, on_aux, on_library, on_tick};
    struct rdb_read_options read_options = {&options->limits, store_databases(s), options->ignore_checksum};
    *result = (struct rdb_load_result){.aux = {.repl_offset = -1, .repl_db = -1}};
    atomic_store_explicit(&l.progress->bytes_total, source.size, memory_order_relaxed);
    struct rdb_reader *r = rdb_reader_new(source, &handler, &read_options);
    enum status st = rdb_reader_run(r, err);
    result->bytes = rdb_reader_bytes(r);
    result->aux.has_repl = result->aux.repl_id[0] && result->aux.repl_offset >= 0;
    atomic_store_explicit(&l.progress->bytes, result->bytes, memory_order_relaxed);
    if (st == OK && options->rest) buf_append_bytes(options->rest, rdb_reader_rest(r));
    rdb_reader_free(r);
    return st;
}

static enum status file_read(void *ctx, void *p, size_t n, size_t *got)
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
    struct rdb_source source = {&fd, file_read, S_ISREG(sb.st_mode) ? (uint64_t)sb.st_size : 0};
    enum status st = rdb_load(s, source, options, extras, progress, result, err);
    close(fd);
    return st;
}
