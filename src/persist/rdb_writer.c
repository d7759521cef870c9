/* rdb_writer.c: whole RDBs: magic, aux fields, databases and entries, end mark; and the same fed by a cut. */
#include "base/crc.h"
#include "base/mem.h"
#include "persist/persist.h"
#include "persist/rdb_format.h"
#include "persist/rdb_output.h"
#include "persist/rdb_pack.h"

#include <stdio.h>

/* What redis-server names itself in files; readers look at it in logs only. */
#define REDIS_VERSION "7.0.15"

struct rdb_writer {
    struct rdb_out out;
    const struct rdb_options *options;
    int db; /* named last; -1: none */
};

void rdb_extras_add(struct rdb_extras *x, struct bytes library)
{
    if (x->count == x->cap) {
        x->cap = x->cap ? 2 * x->cap : 4;
        x->libraries = mem_realloc(x->libraries, x->cap * sizeof x->libraries[0]);
    }
    struct buf *b = &x->libraries[x->count++];
    *b = (struct buf){0};
    buf_append_bytes(b, library);
}

void rdb_extras_deinit(struct rdb_extras *x)
{
    for (size_t i = 0; i < x->count; i++) buf_deinit(&x->libraries[i]);
    mem_free(x->libraries);
    *x = (struct rdb_extras){0};
}

struct rdb_writer *rdb_writer_new(struct rdb_sink sink, const struct rdb_options *options)
{
    struct rdb_writer *w = mem_calloc(1, sizeof *w);
    w->options = options;
    w->out.sink = sink;
    w->out.compress = options->compress;
    if (options->compress) w->out.packer = mem_calloc(1, sizeof *w->out.packer);
    w->out.checksum = options->checksum;
    w->db = -1;
    return w;
}

void rdb_writer_free(struct rdb_writer *w)
{
    if (!w) return;
    out_deinit(&w->out);
    mem_free(w);
}

enum status rdb_writer_flush(struct rdb_writer *w)
{
    return out_flush(&w->out);
}

size_t rdb_writer_buffered(const struct rdb_writer *w)
{
    return w->out.b.n;
}

uint64_t rdb_writer_bytes(const struct rdb_writer *w)
{
    return w->out.flushed + w->out.b.n;
}

static void aux_text(struct rdb_out *o, const char *name, struct bytes value)
{
    out_byte(o, RDB_OP_AUX);
    out_string(o, bytes_of(name));
    out_string(o, value);
}

static void aux_i64(struct rdb_out *o, const char *name, int64_t value)
{
    out_byte(o, RDB_OP_AUX);
    out_string(o, bytes_of(name));
    out_i64_string(o, value);
}

static void write_aux(struct rdb_out *o, const struct rdb_options *opt)
{
    aux_text(o, "redis-ver", BYTES(REDIS_VERSION));
    aux_i64(o, "redis-bits", 64);
    aux_i64(o, "ctime", opt->now_ms / 1000);
    aux_i64(o, "used-mem", (int64_t)opt->used_memory);
    if (opt->has_repl && !opt->aof_base) {
        aux_i64(o, "repl-stream-db", opt->repl_db);
        aux_text(o, "repl-id", bytes_make(opt->repl_id, 40));
        aux_i64(o, "repl-offset", opt->repl_offset);
    }
    aux_i64(o, "aof-base", opt->aof_base);
}

enum status rdb_writer_begin(struct rdb_writer *w)
{
    struct rdb_out *o = &w->out;
    char magic[16];
    out_entry_begin(o);
    out_bytes(o, magic, (size_t)snprintf(magic, sizeof magic, "REDIS%04d", RDB_VERSION));
    write_aux(o, w->options);
    const struct rdb_extras *x = w->options->extras;
    for (size_t i = 0; x && i < x->count; i++) {
        out_byte(o, RDB_OP_FUNCTION);
        out_string(o, buf_bytes(&x->libraries[i]));
    }
    return o->st;
}

static void select_db(struct rdb_writer *w, int db)
{
    out_byte(&w->out, RDB_OP_SELECTDB);
    out_length(&w->out, (uint64_t)db);
    w->db = db;
}

enum status rdb_writer_db(struct rdb_writer *w, int db, uint64_t keys, uint64_t keys_with_ttl)
{
    out_entry_begin(&w->out);
    select_db(w, db);
    out_byte(&w->out, RDB_OP_RESIZEDB);
    out_length(&w->out, keys);
    out_length(&w->out, keys_with_ttl);
    return w->out.st;
}

static void write_access(struct rdb_out *o, const struct rdb_options *opt, const struct entry *e)
{
    if (opt->access == RDB_ACCESS_IDLE) {
        out_byte(o, RDB_OP_IDLE);
        out_length(o, lru_idle(entry_lru(e), opt->lru_clock));
    } else if (opt->access == RDB_ACCESS_FREQ) {
        out_byte(o, RDB_OP_FREQ);
        out_byte(o, lfu_counter(&opt->lfu, entry_lru(e), lfu_clock_of(opt->now_ms)));
    }
}

enum status rdb_writer_entry(struct rdb_writer *w, int db, const struct entry *e)
{
    struct rdb_out *o = &w->out;
    out_entry_begin(o);
    if (db != w->db) select_db(w, db);
    if (entry_has_ttl(e)) {
        unsigned char at[9] = {RDB_OP_EXPIRE_MS};
        put_le(at + 1, (uint64_t)entry_expire_at(e), 8);
        out_bytes(o, at, sizeof at);
    }
    write_access(o, w->options, e);
    out_byte(o, rdb_type_of(e));
    out_string(o, entry_key(e));
    out_value(o, e);
    return o->st;
}

enum status rdb_writer_end(struct rdb_writer *w)
{
    struct rdb_out *o = &w->out;
    unsigned char sum[8];
    out_entry_begin(o);
    out_byte(o, RDB_OP_EOF);
    if (out_flush(o) != OK) return o->st;
    put_le(sum, o->checksum ? o->crc : 0, sizeof sum);
    out_bytes(o, sum, sizeof sum);
    return out_flush(o);
}

/* ---- a cut
 * ----------------------------------------------------------------------------------------------------------*/

/* Bytes of entries that are saved under one slot lock. */
enum { SLICE_BYTES = 64 * 1024 };

struct db_hint {
    uint64_t keys, keys_with_ttl;
    bool given;
};

struct rdb_snapshot {
    struct cut *cut;
    struct rdb_writer *w;
    struct rdb_progress *progress;
    struct rdb_progress own_progress; /* when the caller wants none */
    struct db_hint *hints;
    bool begun, walked;
};

struct rdb_snapshot *rdb_snapshot_begin(struct store *s, struct cut *cut, struct rdb_sink sink,
                                        const struct rdb_options *options, struct rdb_progress *progress)
{
    struct rdb_snapshot *sn = mem_calloc(1, sizeof *sn);
    int databases = store_databases(s);
    uint64_t keys = 0;
    sn->cut = cut;
    sn->w = rdb_writer_new(sink, options);
    sn->progress = progress ? progress : &sn->own_progress;
    sn->hints = mem_calloc((size_t)databases, sizeof sn->hints[0]);
    for (int db = 0; db < databases; db++) {
        sn->hints[db].keys = store_db_count(s, db);
        sn->hints[db].keys_with_ttl = store_db_ttl_count(s, db);
        keys += sn->hints[db].keys;
    }
    atomic_store(&sn->progress->keys_total, keys);
    return sn;
}

void rdb_snapshot_end(struct rdb_snapshot *sn)
{
    store_cut_end(sn->cut);
    rdb_writer_free(sn->w);
    mem_free(sn->hints);
    mem_free(sn);
}

static enum status snapshot_entry(void *ctx, int db, struct entry *e)
{
    struct rdb_snapshot *sn = ctx;
    struct db_hint *hint = &sn->hints[db];
    if (!hint->given) {
        hint->given = true;
        (void)rdb_writer_db(sn->w, db, hint->keys, hint->keys_with_ttl);
    }
    atomic_fetch_add_explicit(&sn->progress->keys, 1, memory_order_relaxed);
    return rdb_writer_entry(sn->w, db, e);
}

static enum status snapshot_slice(struct rdb_snapshot *sn)
{
    if (atomic_load_explicit(&sn->progress->cancel, memory_order_relaxed)) return E_CLOSED;
    enum status st = store_cut_step(sn->cut, SLICE_BYTES, snapshot_entry, sn);
    if (sn->w->out.st != OK) return sn->w->out.st;
    if (st == OK) sn->walked = true;
    /* Only between slices: a sink may block, and small entries are visited under their slot's lock. */
    if (rdb_writer_buffered(sn->w) >= OUT_FLUSH_BYTES && rdb_writer_flush(sn->w) != OK) return sn->w->out.st;
    atomic_store_explicit(&sn->progress->bytes, rdb_writer_bytes(sn->w), memory_order_relaxed);
    return st;
}

enum status rdb_snapshot_step(struct rdb_snapshot *sn, size_t bytes_max)
{
    enum status st = OK;
    if (!sn->begun) {
        sn->begun = true;
        st = rdb_writer_begin(sn->w);
        if (st != OK) return st;
    }
    uint64_t start = rdb_writer_bytes(sn->w);
    while (!sn->walked) {
        st = snapshot_slice(sn);
        if (st != OK && st != E_AGAIN) return st;
        if (!sn->walked && rdb_writer_bytes(sn->w) - start >= bytes_max) {
            st = rdb_writer_flush(sn->w);
            return st == OK ? E_AGAIN : st;
        }
    }
    st = rdb_writer_end(sn->w);
    atomic_store_explicit(&sn->progress->bytes, rdb_writer_bytes(sn->w), memory_order_relaxed);
    return st;
}
