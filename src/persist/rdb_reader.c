/* rdb_reader.c: a whole RDB, from its magic to its checksum. */
#include "persist/rdb_batch.h"
#include "persist/rdb_extent.h"
#include "persist/rdb_format.h"
#include "persist/rdb_input.h"

#include "base/mem.h"

#include <stdio.h>

enum { TICK_BYTES = 2 * 1024 * 1024 };
/* Versions: from where times of expiry are little-endian (before, the writer's order: the same on our machines), and
 * from where there is a checksum. */
enum { VERSION_CHECKSUM = 5 };

struct rdb_reader {
    struct rdb_in in;
    const struct rdb_handler *handler;
    const struct rdb_read_options *options;
    int version;
    int db;
    uint64_t next_tick;
    struct rdb_batches *batches; /* NULL: every key is decoded here */
    uint64_t here_until;         /* up to this offset keys are decoded here all the same */
    /* What stands before an entry and is about that one only. */
    int64_t expire_at_ms;
    struct rdb_key next;
    /* For messages. */
    unsigned type;
    struct bytes key;
    bool in_entry;
    int opcode; /* under way; DOING_... */
    bool unchecked, wrong_magic, wrong_checksum;
};

enum { DOING_START = -1, DOING_READ_TYPE = -2 };

struct rdb_reader *rdb_reader_new(struct rdb_source source, const struct rdb_handler *handler,
                                  const struct rdb_read_options *options)
{
    struct rdb_reader *r = mem_calloc(1, sizeof *r);
    in_init(&r->in, source, options->limits);
    r->in.checksum = !options->ignore_checksum;
    r->handler = handler;
    r->options = options;
    r->expire_at_ms = -1;
    r->next_tick = TICK_BYTES;
    r->opcode = DOING_START;
    return r;
}

struct rdb_reader *rdb_reader_new_batched(struct rdb_source source, const struct rdb_handler *handler,
                                          const struct rdb_read_options *options, struct rdb_batches *batches)
{
    struct rdb_reader *r = rdb_reader_new((struct rdb_source){0}, handler, options);
    in_deinit(&r->in);
    in_init_window(&r->in, source, options->limits, RDB_BATCH_WINDOW);
    r->in.checksum = !options->ignore_checksum;
    r->batches = batches;
    return r;
}

void rdb_reader_free(struct rdb_reader *r)
{
    if (!r) return;
    in_deinit(&r->in);
    mem_free(r);
}

uint64_t rdb_reader_bytes(const struct rdb_reader *r)
{
    return in_offset(&r->in);
}

struct bytes rdb_reader_rest(const struct rdb_reader *r)
{
    return bytes_make(r->in.window + r->in.pos, r->in.n - r->in.pos);
}

/* The status of a callback: it ends the reading. */
static bool called(struct rdb_reader *r, enum status st)
{
    return st == OK || in_fail(&r->in, st, "refused: %s", status_name(st));
}

static bool entries_end(struct rdb_reader *r)
{
    return !r->handler->entries_end || called(r, r->handler->entries_end(r->handler->ctx));
}

static bool read_magic(struct rdb_reader *r)
{
    char magic[RDB_MAGIC_BYTES];
    if (!in_bytes(&r->in, magic, sizeof magic)) return false;
    r->wrong_magic = memcmp(magic, "REDIS", 5) != 0;
    if (r->wrong_magic) return in_fail(&r->in, E_CORRUPT, "wrong signature, this is no RDB");
    for (int i = 5; i < RDB_MAGIC_BYTES; i++) {
        if (magic[i] < '0' || magic[i] > '9') return in_fail(&r->in, E_CORRUPT, "the version is no number");
        r->version = r->version * 10 + (magic[i] - '0');
    }
    if (r->version < 1) return in_fail(&r->in, E_CORRUPT, "version 0");
    if (r->version > RDB_VERSION_READ_MAX)
        return in_fail(&r->in, E_TOO_BIG, "can't handle RDB format version %d", r->version);
    return true;
}

static bool read_db(struct rdb_reader *r)
{
    uint64_t db;
    if (!in_length(&r->in, &db)) return false;
    if (db >= (uint64_t)r->options->databases)
        return in_fail(&r->in, E_CORRUPT, "database %llu, and this server has %d", (unsigned long long)db,
                       r->options->databases);
    r->db = (int)db;
    return !r->handler->select || called(r, r->handler->select(r->handler->ctx, r->db));
}

static bool read_resize(struct rdb_reader *r)
{
    uint64_t keys, with_ttl;
    if (!in_length(&r->in, &keys) || !in_length(&r->in, &with_ttl)) return false;
    return !r->handler->db || called(r, r->handler->db(r->handler->ctx, r->db, keys, with_ttl));
}

static bool read_expire(struct rdb_reader *r, unsigned opcode)
{
    uint64_t v;
    if (!in_le(&r->in, opcode == RDB_OP_EXPIRE_MS ? 8 : 4, &v)) return false;
    r->expire_at_ms = opcode == RDB_OP_EXPIRE_MS ? (int64_t)v : (int64_t)(int32_t)v * 1000;
    return true;
}

static bool read_access(struct rdb_reader *r, unsigned opcode)
{
    unsigned freq;
    if (opcode == RDB_OP_IDLE) {
        r->next.access = RDB_ACCESS_IDLE;
        return in_length(&r->in, &r->next.idle_s);
    }
    if (!in_byte(&r->in, &freq)) return false;
    r->next.access = RDB_ACCESS_FREQ;
    r->next.freq = (uint8_t)freq;
    return true;
}

static bool read_aux(struct rdb_reader *r)
{
    struct bytes name, value;
    if (!in_string(&r->in, IN_KEY, true, &name) || !in_string(&r->in, IN_VALUE, false, &value)) return false;
    return !r->handler->aux || called(r, r->handler->aux(r->handler->ctx, name, value));
}

static bool give_library(struct rdb_reader *r, struct bytes source)
{
    return !r->handler->library || called(r, r->handler->library(r->handler->ctx, source));
}

static bool read_library(struct rdb_reader *r)
{
    struct bytes source;
    return in_string(&r->in, IN_VALUE, false, &source) && give_library(r, source);
}

/* Release candidates of 7.0 kept name and engine apart; the released form has them in the first line. */
static bool read_library_pre_ga(struct rdb_reader *r)
{
    struct bytes part;
    struct buf source = {0};
    uint64_t has_description = 0;
    char line[512];
    bool ok = in_string(&r->in, IN_KEY, true, &part);
    struct bytes name = part;
    ok = ok && in_string(&r->in, IN_FIELD, false, &part);
    if (ok && (name.n > 200 || part.n > 200)) ok = in_fail(&r->in, E_CORRUPT, "a function library's name is too long");
    if (ok) {
        int n = snprintf(line, sizeof line, "#!%.*s name=%.*s\n", (int)part.n, part.p, (int)name.n, name.p);
        buf_append(&source, line, (size_t)n);
    }
    ok = ok && in_length(&r->in, &has_description);
    if (has_description) ok = ok && in_string(&r->in, IN_VALUE, false, &part);
    ok = ok && in_string(&r->in, IN_VALUE, false, &part);
    if (ok && buf_try_reserve(&source, part.n) != OK) ok = in_fail(&r->in, E_NOMEM, "no memory for a function library");
    if (ok) {
        buf_append_bytes(&source, part);
        ok = give_library(r, buf_bytes(&source));
    }
    buf_deinit(&source);
    return ok;
}

static bool refuse_module(struct rdb_reader *r)
{
    uint64_t id;
    char name[10];
    if (!in_length(&r->in, &id)) return false;
    rdb_module_name(id, name);
    return in_fail(&r->in, E_CORRUPT, "data of module type '%s', and modules are not supported", name);
}

static bool skip_slot_info(struct rdb_reader *r)
{
    uint64_t ignored;
    return in_length(&r->in, &ignored) && in_length(&r->in, &ignored) && in_length(&r->in, &ignored);
}

static void entry_done(struct rdb_reader *r)
{
    r->in_entry = false;
    r->expire_at_ms = -1;
    r->next = (struct rdb_key){0};
}

/* 8 was never given out. */
static bool rdb_type_is_known(unsigned type)
{
    return type < RDB_TYPE_COUNT && type != 8;
}

static bool read_entry(struct rdb_reader *r, unsigned type)
{
    r->in_entry = true;
    r->type = type;
    r->key = (struct bytes){0};
    if (!rdb_type_is_known(type)) return in_fail(&r->in, E_CORRUPT, "unknown type or opcode %u", type);
    if (!in_string(&r->in, IN_KEY, true, &r->key)) return false;
    struct entry *e;
    if (!in_value(&r->in, type, r->key, &e)) {
        if (r->in.st != E_NOT_FOUND) return false;
        /* An empty collection is no key. */
        r->in.st = OK;
        entry_done(r);
        return true;
    }
    if (r->expire_at_ms != -1) e = entry_with_expire(e, r->expire_at_ms);
    r->next.db = r->db;
    r->next.entry = e;
    if (!called(r, r->handler->entry(r->handler->ctx, &r->next))) return false;
    entry_done(r);
    return true;
}

static bool read_item(struct rdb_reader *r, unsigned opcode)
{
    switch (opcode) {
    case RDB_OP_SELECTDB: return read_db(r);
    case RDB_OP_RESIZEDB: return read_resize(r);
    case RDB_OP_EXPIRE_MS:
    case RDB_OP_EXPIRE_S: return read_expire(r, opcode);
    case RDB_OP_IDLE:
    case RDB_OP_FREQ: return read_access(r, opcode);
    case RDB_OP_AUX: return read_aux(r);
    case RDB_OP_FUNCTION: return read_library(r);
    case RDB_OP_FUNCTION_PRE_GA: return read_library_pre_ga(r);
    case RDB_OP_MODULE_AUX: return refuse_module(r);
    case RDB_OP_SLOT_INFO: return skip_slot_info(r);
    default: return read_entry(r, opcode);
    }
}

static bool read_checksum(struct rdb_reader *r)
{
    uint64_t computed = in_crc(&r->in), stored;
    if (r->version < VERSION_CHECKSUM) return true;
    if (!in_le(&r->in, 8, &stored)) return false;
    r->unchecked = stored == 0;
    if (stored == 0 || stored == computed || r->options->ignore_checksum) return true;
    r->wrong_checksum = true;
    return in_fail(&r->in, E_CORRUPT, "wrong checksum: expected %016llx, computed %016llx", (unsigned long long)stored,
                   (unsigned long long)computed);
}

static bool tick(struct rdb_reader *r)
{
    if (in_offset(&r->in) < r->next_tick) return true;
    r->next_tick = in_offset(&r->in) + TICK_BYTES;
    return !r->handler->tick || called(r, r->handler->tick(r->handler->ctx, in_offset(&r->in)));
}

static void describe(const struct rdb_reader *r, struct rdb_error *err)
{
    char key[49], where[120] = "";
    printable(r->key, key, sizeof key);
    if (r->in_entry)
        snprintf(where, sizeof where, " (in a %s, key '%s', database %d)", rdb_type_name(r->type), key, r->db);
    snprintf(err->text, sizeof err->text, "%s at offset %llu%s", r->in.what, (unsigned long long)in_offset(&r->in),
             where);
}

/* Hands on the keys that stand whole in the window, if they are worth it.  What no extent can be told for is left to
 * read_item(): other items, keys larger than the window, nonsense. */
static bool give_keys(struct rdb_reader *r)
{
    struct rdb_in *in = &r->in;
    if (in_offset(in) < r->here_until || r->expire_at_ms != -1 || r->next.access != RDB_ACCESS_NONE) return true;
    for (;;) {
        size_t at = in->pos, size, got;
        enum rdb_extent extent;
        while ((extent = rdb_extent(in->window + at, in->n - at, &size)) == RDB_EXTENT_WHOLE) at += size;
        if (at - in->pos >= RDB_BATCH_MIN) {
            struct rdb_batch batch = {.from = in->pos, .to = at, .before = in->before, .db = r->db};
            batch.window = in_window_take(in, at, r->batches->window(r->batches->ctx));
            if (!called(r, r->batches->give(r->batches->ctx, &batch)) || !tick(r)) return false;
            continue;
        }
        r->here_until = in->before + at;
        if (extent != RDB_EXTENT_SHORT) return true;
        if (!in_fill(in, &got)) return false;
        if (got == 0) return true;
    }
}

enum status rdb_batch_read(const struct rdb_batch *batch, const struct rdb_handler *handler,
                           const struct rdb_read_options *options, uint64_t *offset, struct rdb_error *err)
{
    struct rdb_reader r = {.handler = handler, .options = options, .expire_at_ms = -1, .db = batch->db};
    unsigned type;
    in_init_bytes(&r.in, bytes_make(batch->window, batch->to), options->limits);
    r.in.pos = batch->from;
    r.in.before = batch->before;
    r.in.source.size += batch->before;
    while (r.in.pos < r.in.n && in_byte(&r.in, &type) && read_item(&r, type)) {
    }
    if (r.in.st == OK) entries_end(&r);
    *offset = in_offset(&r.in);
    err->text[0] = 0;
    if (r.in.st != OK) describe(&r, err);
    in_deinit(&r.in);
    return r.in.st;
}

static bool read_all(struct rdb_reader *r)
{
    unsigned opcode;
    if (!read_magic(r)) return false;
    for (;;) {
        if (r->batches && !give_keys(r)) return false;
        r->opcode = DOING_READ_TYPE;
        if (!in_byte(&r->in, &opcode)) return false;
        r->opcode = (int)opcode;
        if (opcode == RDB_OP_EOF) return entries_end(r) && read_checksum(r);
        if (!read_item(r, opcode) || !tick(r)) return false;
    }
}

enum status rdb_reader_run(struct rdb_reader *r, struct rdb_error *err)
{
    err->text[0] = 0;
    if (!read_all(r)) describe(r, err);
    return r->in.st;
}

static const char *doing(const struct rdb_reader *r)
{
    if (r->in_entry && rdb_type_is_known(r->type)) return r->key.n ? "read-object-value" : "read-key";
    switch (r->opcode) {
    case DOING_START: return "start";
    case RDB_OP_SELECTDB:
    case RDB_OP_RESIZEDB: return "read-len";
    case RDB_OP_EXPIRE_MS:
    case RDB_OP_EXPIRE_S:
    case RDB_OP_IDLE:
    case RDB_OP_FREQ: return "read-expire";
    case RDB_OP_AUX: return "read-aux";
    case RDB_OP_MODULE_AUX: return "read-module-aux";
    case RDB_OP_FUNCTION:
    case RDB_OP_FUNCTION_PRE_GA: return "read-functions";
    case RDB_OP_EOF: return "check-sum";
    default: return "read-type";
    }
}

void rdb_reader_place(const struct rdb_reader *r, struct rdb_place *out)
{
    bool versioned = r->opcode != DOING_START;
    *out = (struct rdb_place){.doing = doing(r),
                              .in_entry = r->in_entry,
                              .type = (int)r->type,
                              .version = r->version,
                              .unchecked = r->unchecked,
                              .wrong_magic = r->wrong_magic,
                              .wrong_version = !versioned && r->in.st != OK && r->in.st != E_CLOSED && !r->wrong_magic,
                              .wrong_type = r->in_entry && !rdb_type_is_known(r->type),
                              .wrong_checksum = r->wrong_checksum};
    if (r->in_entry) out->key = r->key;
}
