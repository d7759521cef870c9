/* rdb_encode.c: values as redis-server 7.0 writes them; the other direction is rdb_decode.c. */
#include "persist/rdb_format.h"
#include "persist/rdb_output.h"

#include "store/hash.h"
#include "store/listtype.h"
#include "store/set.h"
#include "store/zset.h"

unsigned rdb_type_of(const struct entry *e)
{
    switch (entry_enc(e)) {
    case ENC_RAW:
    case ENC_EMBSTR:
    case ENC_INT: return RDB_STRING;
    case ENC_LISTPACK: return entry_type(e) == TYPE_HASH ? RDB_HASH_LISTPACK : RDB_ZSET_LISTPACK;
    case ENC_INTSET: return RDB_SET_INTSET;
    case ENC_QUICKLIST: return RDB_LIST_QUICKLIST_2;
    case ENC_HASHTABLE: return entry_type(e) == TYPE_HASH ? RDB_HASH : RDB_SET;
    case ENC_SKIPLIST: return RDB_ZSET_2;
    case ENC_STREAM: return RDB_STREAM_2;
    }
    assert(false);
    return RDB_STRING;
}

static void out_text(struct rdb_out *o, const struct entry *e)
{
    char digits[24];
    if (entry_enc(e) == ENC_INT)
        out_i64_string(o, (int64_t)(intptr_t)entry_ptr(e));
    else
        out_string(o, entry_string(e, digits));
}

static void out_list(struct rdb_out *o, const struct entry *e)
{
    struct list_node_iter it;
    struct bytes blob;
    bool packed;
    out_length(o, list_node_count(e));
    list_node_iter_init(&it, e);
    while (list_node_iter_next(&it, &blob, &packed)) {
        out_length(o, packed ? RDB_NODE_PACKED : RDB_NODE_PLAIN);
        out_string(o, blob);
    }
}

static void out_set(struct rdb_out *o, const struct entry *e)
{
    struct set_iter it;
    struct element member;
    out_length(o, set_len(e));
    set_iter_init(&it, e);
    while (set_iter_next(&it, &member)) out_string(o, member.text);
}

static void out_hash(struct rdb_out *o, const struct entry *e)
{
    struct hash_iter it;
    struct element field, value;
    out_length(o, hash_len(e));
    hash_iter_init(&it, e);
    while (hash_iter_next(&it, &field, &value)) {
        out_string(o, field.text);
        out_string(o, value.text);
    }
}

/* From the highest score down: a loader that inserts into a skiplist then always inserts at its head. */
static void out_zset(struct rdb_out *o, const struct entry *e)
{
    struct zset_iter it;
    struct element member;
    double score;
    uint64_t n = zset_len(e);
    out_length(o, n);
    if (n == 0) return;
    zset_iter_init(&it, e, n - 1, true);
    while (zset_iter_next(&it, &member, &score)) {
        unsigned char le[8];
        uint64_t bits;
        memcpy(&bits, &score, sizeof bits);
        put_le(le, bits, sizeof le);
        out_string(o, member.text);
        out_bytes(o, le, sizeof le);
    }
}

void out_value(struct rdb_out *o, const struct entry *e)
{
    switch (entry_enc(e)) {
    case ENC_RAW:
    case ENC_EMBSTR:
    case ENC_INT: out_text(o, e); break;
    case ENC_LISTPACK: out_string(o, entry_type(e) == TYPE_HASH ? hash_listpack(e) : zset_listpack(e)); break;
    case ENC_INTSET: out_string(o, set_intset(e)); break;
    case ENC_QUICKLIST: out_list(o, e); break;
    case ENC_HASHTABLE: entry_type(e) == TYPE_HASH ? out_hash(o, e) : out_set(o, e); break;
    case ENC_SKIPLIST: out_zset(o, e); break;
    case ENC_STREAM: out_stream(o, e); break;
    }
}
