/* debug_dataset.c: the DEBUG subcommands that look at values, sum them up, or make them. */
#include "server/debug.h"

#include "base/log.h"
#include "base/mem.h"
#include "persist/persist.h"
#include "server/conn.h"
#include "server/digest.h"
#include "store/hash.h"
#include "store/listpack.h"
#include "store/listtype.h"
#include "store/set.h"
#include "store/zset.h"

#include <arpa/inet.h>
#include <stdio.h>

static struct node *node_of(const struct call *c)
{
    return call_conn(c)->worker->node;
}

/* ---- OBJECT ---- */

static void append_list_facts(struct call *c, const struct entry *e, struct buf *out)
{
    struct list_node_iter it;
    struct bytes blob;
    bool packed;
    size_t size = 0;
    uint64_t nodes = list_node_count(e);
    list_node_iter_init(&it, e);
    while (list_node_iter_next(&it, &blob, &packed)) size += blob.n;
    buf_printf(out, " ql_nodes:%llu ql_avg_node:%.2f ql_listpack_max:%lld ql_compressed:0 ql_uncompressed_size:%zu",
               (unsigned long long)nodes, nodes ? (double)list_len(e) / (double)nodes : 0.0,
               (long long)c->env->options->limits.list_max_listpack_size, size);
}

/* What the value takes in an RDB file: a payload without type, version and checksum. */
static size_t serialized_length(const struct entry *e)
{
    enum { AROUND = 1 + 2 + 8 };
    struct buf payload = {0};
    size_t n = persist_dump(e, true, &payload) == OK && payload.n > AROUND ? payload.n - AROUND : 0;
    buf_deinit(&payload);
    return n;
}

void debug_object(struct call *c)
{
    struct key k = key_of(c->argv[2]);
    call_lock_slot(c, k.slot);
    const struct entry *e = store_find(node_of(c)->store, c->db, &k);
    if (!e) {
        call_unlock_slot(c, k.slot);
        resp_error(&c->out, ERR_NO_SUCH_KEY);
        return;
    }
    struct buf line = {0};
    bool lfu = c->env->options->lfu;
    uint32_t lru = entry_lru(e), idle = lfu ? 0 : (c->lru_clock - lru) & 0xffffff;
    buf_printf(&line, "Value at:%p refcount:1 encoding:%s serializedlength:%zu lru:%u lru_seconds_idle:%u",
               (const void *)e, encoding_name(entry_enc(e)), serialized_length(e), lru, idle);
    if (entry_enc(e) == ENC_QUICKLIST) append_list_facts(c, e, &line);
    call_unlock_slot(c, k.slot);
    buf_append_char(&line, '\0');
    resp_status(&c->out, line.p);
    buf_deinit(&line);
}

/* ---- the insides of values ---- */

/* The key argv[2] with its slot locked, or NULL after an error reply, with nothing locked. */
static const struct entry *lock_key(struct call *c, struct key *k)
{
    *k = key_of(c->argv[2]);
    call_lock_slot(c, k->slot);
    const struct entry *e = store_find(node_of(c)->store, c->db, k);
    if (e) return e;
    call_unlock_slot(c, k->slot);
    resp_error(&c->out, ERR_NO_SUCH_KEY);
    return NULL;
}

/* Lengths and spare room; what the allocator gave is not known by part, so that is the length, too. */
void debug_sdslen(struct call *c)
{
    struct key k;
    const struct entry *e = lock_key(c, &k);
    if (!e) return;
    bool text = entry_type(e) == TYPE_STRING && entry_enc(e) != ENC_INT;
    size_t key = entry_key(e).n, value = 0, spare = 0;
    if (text) value = entry_string_len(e);
    if (text && e->flags & ENTRY_WORD) {
        const struct blob *b = entry_ptr(e);
        spare = b->cap - b->n;
    }
    call_unlock_slot(c, k.slot);
    if (!text) {
        resp_error(&c->out, "ERR Not an sds encoded string.");
        return;
    }
    struct buf line = {0};
    buf_printf(
        &line,
        "key_sds_len:%zu, key_sds_avail:0, key_zmalloc: %zu, val_sds_len:%zu, val_sds_avail:%zu, val_zmalloc: %zu", key,
        key, value, spare, value + spare);
    buf_append_char(&line, '\0');
    resp_status(&c->out, line.p);
    buf_deinit(&line);
}

void debug_structsize(struct call *c)
{
    struct buf line = {0};
    buf_printf(&line, "bits:%zu entry:%zu blob:%zu", sizeof(void *) * 8, sizeof(struct entry), sizeof(struct blob));
    resp_bulk(&c->out, buf_bytes(&line));
    buf_deinit(&line);
}

void debug_listpack(struct call *c)
{
    struct key k;
    const struct entry *e = lock_key(c, &k);
    if (!e) return;
    bool packed = entry_enc(e) == ENC_LISTPACK;
    if (packed)
        log_warning("DEBUG LISTPACK: %s of %llu elements in %zu bytes", type_name(entry_type(e)),
                    (unsigned long long)(entry_type(e) == TYPE_HASH ? hash_len(e) : zset_len(e)), entry_memory(e, 0));
    call_unlock_slot(c, k.slot);
    if (packed)
        resp_status(&c->out, "Listpack structure printed in the log");
    else
        resp_error(&c->out, "ERR Not a listpack encoded object.");
}

void debug_quicklist(struct call *c)
{
    struct key k;
    const struct entry *e = lock_key(c, &k);
    if (!e) return;
    bool list = entry_enc(e) == ENC_QUICKLIST;
    if (list) {
        struct buf line = {0};
        append_list_facts(c, e, &line);
        log_warning("DEBUG QUICKLIST: %llu elements%.*s", (unsigned long long)list_len(e), (int)line.n, line.p);
        buf_deinit(&line);
    }
    call_unlock_slot(c, k.slot);
    if (list)
        resp_status(&c->out, "Quicklist structure printed in the log");
    else
        resp_error(&c->out, "ERR Not a quicklist encoded object.");
}

/* Tables have no chains to count: a slot's is a linear hash of buckets, a large value a tree. */
static void append_table(struct buf *out, uint64_t n)
{
    if (n == 0)
        buf_append_cstr(out, "No stats available for empty dictionaries\n");
    else
        buf_printf(out, "Hash table 0 stats (main hash table):\n number of elements: %llu\n", (unsigned long long)n);
}

void debug_htstats(struct call *c)
{
    const struct store *s = node_of(c)->store;
    int64_t db;
    if (!call_arg_i64(c, 2, &db, NULL)) return;
    if (db < 0 || db >= store_databases(s)) {
        resp_error(&c->out, "ERR Out of range database");
        return;
    }
    struct buf text = {0};
    buf_append_cstr(&text, "[Dictionary HT]\n");
    append_table(&text, store_db_count(s, (int)db));
    buf_append_cstr(&text, "[Expires HT]\n");
    append_table(&text, store_db_ttl_count(s, (int)db));
    resp_verbatim(&c->out, "txt", buf_bytes(&text));
    buf_deinit(&text);
}

void debug_htstats_key(struct call *c)
{
    struct key k;
    const struct entry *e = lock_key(c, &k);
    if (!e) return;
    bool table = entry_enc(e) == ENC_HASHTABLE || entry_enc(e) == ENC_SKIPLIST;
    uint64_t n = 0;
    if (table) n = entry_type(e) == TYPE_SET ? set_len(e) : entry_type(e) == TYPE_HASH ? hash_len(e) : zset_len(e);
    call_unlock_slot(c, k.slot);
    if (!table) {
        resp_error(&c->out, "ERR The value stored at the specified key is not represented using an hash table");
        return;
    }
    struct buf text = {0};
    append_table(&text, n);
    resp_verbatim(&c->out, "txt", buf_bytes(&text));
    buf_deinit(&text);
}

/* ---- digests ---- */

static void hex(const unsigned char digest[DIGEST_SIZE], char out[2 * DIGEST_SIZE + 1])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < DIGEST_SIZE; i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
    out[2 * DIGEST_SIZE] = '\0';
}

void debug_digest_value(struct call *c)
{
    resp_array(&c->out, c->argc - 2);
    for (size_t i = 2; i < c->argc; i++) {
        unsigned char digest[DIGEST_SIZE] = {0};
        char text[2 * DIGEST_SIZE + 1];
        struct key k = key_of(c->argv[i]);
        call_lock_slot(c, k.slot);
        const struct entry *e = store_find(node_of(c)->store, c->db, &k);
        bool gone = e && entry_has_ttl(e) && entry_expire_at(e) <= c->now_ms;
        if (e && !gone) digest_entry(e, digest);
        call_unlock_slot(c, k.slot);
        hex(digest, text);
        resp_status(&c->out, text);
    }
}

static void add_to_digest(void *ctx, struct entry *e)
{
    unsigned char *all = ctx, one[DIGEST_SIZE] = {0};
    digest_mix(one, entry_key(e));
    digest_entry(e, one);
    digest_xor(all, bytes_make(one, DIGEST_SIZE));
}

void debug_digest(struct call *c)
{
    struct store *s = node_of(c)->store;
    unsigned char digest[DIGEST_SIZE] = {0};
    char text[2 * DIGEST_SIZE + 1];
    if (!call_exclusive(c) || debug_loading(c)) return;
    for (int db = 0; db < store_databases(s); db++) {
        uint32_t number = htonl((uint32_t)db);
        if (store_db_count(s, db) == 0) continue;
        digest_mix(digest, bytes_make(&number, sizeof number));
        for (unsigned slot = 0; slot < SLOT_COUNT; slot++) {
            if (store_slot_count(s, db, slot) == 0) continue;
            uint64_t cursor = 0;
            do cursor = store_scan_slot(s, db, slot, cursor, add_to_digest, digest);
            while (cursor != 0);
        }
    }
    hex(digest, text);
    resp_status(&c->out, text);
}

/* ---- POPULATE ---- */

enum { POPULATE_SIZE_MAX = 512 * 1024 * 1024 };

/* "value:<i>", cut or filled with zero bytes to the size (0: as it is).  NULL: no memory. */
static struct entry *populate_entry(struct bytes key, int64_t i, size_t size)
{
    char text[32];
    size_t n = (size_t)snprintf(text, sizeof text, "value:%lld", (long long)i);
    if (size == 0) return entry_try_new_string(key, bytes_make(text, n));
    char *value = mem_try_alloc(size);
    if (!value) return NULL;
    memset(value, 0, size);
    memcpy(value, text, n < size ? n : size);
    struct entry *e = entry_try_new_string(key, bytes_make(value, size));
    mem_free(value);
    return e;
}

/* Not propagated, and without regard to who serves the slots, as redis-server does it. */
void debug_populate(struct call *c)
{
    int64_t count, size = 0;
    static const char range[] = "ERR value is out of range, must be positive";
    if (!call_arg_range(c, 2, 0, INT64_MAX, &count, range)) return;
    if (c->argc > 4 && !call_arg_range(c, 4, 0, POPULATE_SIZE_MAX, &size, range)) return;
    if (!call_exclusive(c)) return;
    struct bytes prefix = c->argc > 3 ? c->argv[3] : BYTES("key");
    struct buf name = {0};
    struct store *s = node_of(c)->store;
    bool ok = true;
    for (int64_t i = 0; i < count && ok; i++) {
        name.n = 0;
        buf_append_bytes(&name, prefix);
        buf_printf(&name, ":%lld", (long long)i);
        struct key k = key_of(buf_bytes(&name));
        if (store_find(s, c->db, &k)) continue;
        struct entry *e = populate_entry(k.name, i, (size_t)size);
        ok = e != NULL;
        if (ok) store_put(s, c->db, &k, e);
    }
    buf_deinit(&name);
    if (ok)
        resp_ok(&c->out);
    else
        resp_error(&c->out, "ERR out of memory");
}
