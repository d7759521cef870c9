/* rdb_decode.c: values of every layout that versions 1 to 11 know; the other direction is rdb_encode.c.
 * What comes in an old layout becomes what a command would have made of it. */
#include "persist/rdb_format.h"
#include "persist/rdb_input.h"

#include "base/number.h"
#include "store/hash.h"
#include "store/listpack.h"
#include "store/listtype.h"
#include "store/set.h"
#include "store/zset.h"

#include <math.h>

static const char *const type_names[RDB_TYPE_COUNT] = {
    [RDB_STRING] = "string",
    [RDB_LIST] = "list",
    [RDB_SET] = "set",
    [RDB_ZSET] = "zset-v1",
    [RDB_HASH] = "hash-hashtable",
    [RDB_ZSET_2] = "zset-v2",
    [RDB_MODULE_PRE_GA] = "module-pre-release",
    [RDB_MODULE_2] = "module-value",
    [RDB_HASH_ZIPMAP] = "hash-zipmap",
    [RDB_LIST_ZIPLIST] = "list-ziplist",
    [RDB_SET_INTSET] = "set-intset",
    [RDB_ZSET_ZIPLIST] = "zset-ziplist",
    [RDB_HASH_ZIPLIST] = "hash-ziplist",
    [RDB_LIST_QUICKLIST] = "quicklist",
    [RDB_STREAM] = "stream",
    [RDB_HASH_LISTPACK] = "hash-listpack",
    [RDB_ZSET_LISTPACK] = "zset-listpack",
    [RDB_LIST_QUICKLIST_2] = "quicklist-v2",
    [RDB_STREAM_2] = "stream-v2",
    [RDB_SET_LISTPACK] = "set-listpack",
    [RDB_STREAM_3] = "stream-v3",
};

const char *rdb_type_name(unsigned type)
{
    const char *name = type < RDB_TYPE_COUNT ? type_names[type] : NULL;
    return name ? name : "unknown type";
}

/* The status of a store function as a failure of the input. */
static bool check(struct rdb_in *in, enum status st, unsigned type)
{
    if (st == OK) return true;
    if (st == E_NOMEM) return in_fail(in, st, "no memory for a %s", rdb_type_name(type));
    if (st == E_NOT_FOUND) return in_fail(in, st, "an empty %s", rdb_type_name(type));
    return in_fail(in, E_CORRUPT, "the content of a %s is damaged", rdb_type_name(type));
}

static bool twice(struct rdb_in *in, unsigned type)
{
    return in_fail(in, E_CORRUPT, "a %s has an element twice", rdb_type_name(type));
}

/* ---- elements one by one: the callers below hand them to these ------------------------------------------------------
 */

static bool add_pair(struct rdb_in *in, unsigned type, struct entry *e, struct bytes field, struct bytes value)
{
    bool added = false;
    enum status st = hash_set(e, field, value, in->limits, &added);
    if (st == OK && !added) return twice(in, type);
    return check(in, st, type);
}

static bool add_member(struct rdb_in *in, unsigned type, struct entry *e, struct bytes member)
{
    bool added = false;
    enum status st = set_add(e, member, in->limits, &added);
    if (st == OK && !added) return twice(in, type);
    return check(in, st, type);
}

static bool add_scored(struct rdb_in *in, unsigned type, struct entry *e, struct bytes member, double score)
{
    enum zset_change change = ZSET_UNCHANGED;
    enum status st = zset_add(e, score, member, in->limits, &change);
    if (st == OK && change != ZSET_ADDED) return twice(in, type);
    return check(in, st, type);
}

/* ---- strings -------------------------------------------------------------------------------------------------------
 */

static bool read_text(struct rdb_in *in, struct bytes key, struct entry **out)
{
    struct bytes text;
    if (!in_string(in, IN_VALUE, false, &text)) return false;
    *out = entry_try_new_string(key, text);
    return *out || in_fail(in, E_NOMEM, "no memory for a string of %zu bytes", text.n);
}

/* ---- collections written element by element ------------------------------------------------------------------------
 */

static bool read_list(struct rdb_in *in, unsigned type, struct bytes key, struct entry **out)
{
    uint64_t n;
    struct bytes text;
    if (!in_length(in, &n)) return false;
    *out = list_new(key);
    while (n--) {
        if (!in_string(in, IN_VALUE, false, &text)) return false;
        if (!check(in, list_push(*out, LIST_TAIL, text, in->limits), type)) return false;
    }
    return true;
}

static bool read_set(struct rdb_in *in, unsigned type, struct bytes key, struct entry **out)
{
    uint64_t n;
    struct bytes member;
    if (!in_length(in, &n)) return false;
    while (n--) {
        if (!in_string(in, IN_VALUE, false, &member)) return false;
        if (!*out) *out = set_new(key, member);
        if (!add_member(in, type, *out, member)) return false;
    }
    return true;
}

static bool read_hash(struct rdb_in *in, unsigned type, struct bytes key, struct entry **out)
{
    uint64_t n;
    struct bytes field, value;
    if (!in_length(in, &n)) return false;
    *out = hash_new(key);
    while (n--) {
        if (!in_string(in, IN_FIELD, true, &field) || !in_string(in, IN_VALUE, false, &value)) return false;
        if (!add_pair(in, type, *out, field, value)) return false;
    }
    return true;
}

/* A length byte and so many characters, or one of three special values of it. */
static bool read_text_score(struct rdb_in *in, double *score)
{
    unsigned n;
    char text[256];
    if (!in_byte(in, &n)) return false;
    if (n == 255 || n == 254) {
        *score = n == 255 ? -INFINITY : INFINITY;
        return true;
    }
    if (n == 253) return in_fail(in, E_CORRUPT, "a score that is not a number");
    if (!in_bytes(in, text, n)) return false;
    return parse_double(bytes_make(text, n), score) || in_fail(in, E_CORRUPT, "a score that is not a number");
}

static bool read_binary_score(struct rdb_in *in, double *score)
{
    uint64_t bits;
    if (!in_le(in, 8, &bits)) return false;
    memcpy(score, &bits, sizeof *score);
    return !isnan(*score) || in_fail(in, E_CORRUPT, "a score that is not a number");
}

/* As a skiplist until it is complete: a listpack would forget the sign of zeros, which a large one keeps. */
static bool read_zset(struct rdb_in *in, unsigned type, struct bytes key, struct entry **out)
{
    uint64_t n;
    double score;
    struct bytes member;
    if (!in_length(in, &n)) return false;
    while (n--) {
        if (!in_string(in, IN_FIELD, true, &member)) return false;
        if (!(type == RDB_ZSET ? read_text_score(in, &score) : read_binary_score(in, &score))) return false;
        if (!*out) {
            *out = zset_new(key, member, in->limits);
            if (!check(in, zset_make_skiplist(*out), type)) return false;
        }
        if (!add_scored(in, type, *out, member, score)) return false;
    }
    return !*out || check(in, zset_make_listpack_if_small(*out, in->limits), type);
}

/* ---- collections in one piece --------------------------------------------------------------------------------------
 */

/* Puts the elements of an old format together.  A pair's first half may point into scratch of the walk, so a short one
 * is copied. */
struct legacy {
    struct rdb_in *in;
    unsigned type;
    struct bytes key;
    struct entry **out;
    struct bytes first;
    char copy[32];
    bool half;
};

static enum status legacy_list(void *ctx, struct bytes text)
{
    struct legacy *l = ctx;
    if (!*l->out) *l->out = list_new(l->key);
    return check(l->in, list_push(*l->out, LIST_TAIL, text, l->in->limits), l->type) ? OK : l->in->st;
}

/* True when text completes a pair, whose first half is l->first. */
static bool legacy_pair(struct legacy *l, struct bytes text)
{
    l->half = !l->half;
    if (!l->half) return true;
    l->first = text;
    if (text.n > 0 && text.n <= sizeof l->copy) {
        memcpy(l->copy, text.p, text.n);
        l->first.p = l->copy;
    }
    return false;
}

static enum status legacy_hash(void *ctx, struct bytes text)
{
    struct legacy *l = ctx;
    if (!legacy_pair(l, text)) return OK;
    if (!*l->out) *l->out = hash_new(l->key);
    return add_pair(l->in, l->type, *l->out, l->first, text) ? OK : l->in->st;
}

static enum status legacy_zset(void *ctx, struct bytes text)
{
    struct legacy *l = ctx;
    double score;
    if (!legacy_pair(l, text)) return OK;
    if (!parse_double(text, &score)) {
        in_set_error(l->in, E_CORRUPT, "a score that is not a number");
        return E_CORRUPT;
    }
    if (!*l->out) *l->out = zset_new(l->key, l->first, l->in->limits);
    return add_scored(l->in, l->type, *l->out, l->first, score) ? OK : l->in->st;
}

static bool legacy_walk(struct rdb_in *in, unsigned type, struct bytes key, struct bytes blob, struct entry **out)
{
    struct legacy l = {in, type, key, out};
    enum status st;
    switch (type) {
    case RDB_HASH_ZIPMAP: st = zipmap_each(blob, legacy_hash, &l); break;
    case RDB_HASH_ZIPLIST: st = ziplist_each(blob, legacy_hash, &l); break;
    case RDB_ZSET_ZIPLIST: st = ziplist_each(blob, legacy_zset, &l); break;
    default: st = ziplist_each(blob, legacy_list, &l); break;
    }
    return check(in, st == OK && l.half ? E_CORRUPT : st, type);
}

static bool set_of_listpack(struct rdb_in *in, unsigned type, struct bytes key, struct bytes blob, struct entry **out)
{
    if (!lp_is_valid(blob, NULL)) return check(in, E_CORRUPT, type);
    const uint8_t *lp = (const uint8_t *)blob.p;
    for (const uint8_t *at = lp_first(lp); at; at = lp_next(lp, at)) {
        struct element member;
        lp_get(at, &member);
        if (!*out) *out = set_new(key, member.text);
        if (!add_member(in, type, *out, member.text)) return false;
    }
    return true;
}

static bool read_blob(struct rdb_in *in, unsigned type, struct bytes key, struct entry **out)
{
    struct bytes blob;
    if (!in_string(in, IN_VALUE, false, &blob)) return false;
    switch (type) {
    case RDB_SET_INTSET: return check(in, set_from_intset(key, blob, in->limits, out), type);
    case RDB_HASH_LISTPACK: return check(in, hash_from_listpack(key, blob, in->limits, out), type);
    case RDB_ZSET_LISTPACK: return check(in, zset_from_listpack(key, blob, in->limits, out), type);
    case RDB_SET_LISTPACK: return set_of_listpack(in, type, key, blob, out);
    default: return legacy_walk(in, type, key, blob, out);
    }
}

/* ---- lists of nodes ------------------------------------------------------------------------------------------------
 */

static bool read_node(struct rdb_in *in, unsigned type, struct bytes key, struct entry **out)
{
    uint64_t container = RDB_NODE_PACKED;
    struct bytes blob;
    if (type == RDB_LIST_QUICKLIST_2 && !in_length(in, &container)) return false;
    if (container != RDB_NODE_PACKED && container != RDB_NODE_PLAIN)
        return in_fail(in, E_CORRUPT, "a list node of kind %llu", (unsigned long long)container);
    if (!in_string(in, IN_VALUE, false, &blob)) return false;
    if (type == RDB_LIST_QUICKLIST) return legacy_walk(in, type, key, blob, out);
    if (container == RDB_NODE_PLAIN) return check(in, list_append_plain(*out, blob, in->limits), type);
    return check(in, list_append_listpack(*out, blob, in->limits), type);
}

static bool read_nodes(struct rdb_in *in, unsigned type, struct bytes key, struct entry **out)
{
    uint64_t n;
    if (!in_length(in, &n)) return false;
    *out = list_new(key);
    while (n--)
        if (!read_node(in, type, key, out)) return false;
    return true;
}

/* ---- any value
 * ------------------------------------------------------------------------------------------------------*/

static bool is_empty(const struct entry *e)
{
    switch (entry_type(e)) {
    case TYPE_LIST: return list_len(e) == 0;
    case TYPE_SET: return set_len(e) == 0;
    case TYPE_ZSET: return zset_len(e) == 0;
    case TYPE_HASH: return hash_len(e) == 0;
    default: return false;
    }
}

/* A module's name is nine characters of six bits above ten bits of version. */
void rdb_module_name(uint64_t id, char out[10])
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for (int i = 0; i < 9; i++) out[i] = letters[id >> (10 + 6 * (8 - i)) & 63];
    out[9] = 0;
}

static bool refuse(struct rdb_in *in, unsigned type)
{
    uint64_t id;
    char name[10];
    if (type == RDB_MODULE_PRE_GA) return in_fail(in, E_CORRUPT, "a value of a module of a pre-release format");
    if (type != RDB_MODULE_2) return in_fail(in, E_CORRUPT, "unknown value type %u", type);
    if (!in_length(in, &id)) return false;
    rdb_module_name(id, name);
    return in_fail(in, E_CORRUPT, "a value of module type '%s', and modules are not supported", name);
}

static bool read_value(struct rdb_in *in, unsigned type, struct bytes key, struct entry **out)
{
    switch (type) {
    case RDB_STRING: return read_text(in, key, out);
    case RDB_LIST: return read_list(in, type, key, out);
    case RDB_SET: return read_set(in, type, key, out);
    case RDB_ZSET:
    case RDB_ZSET_2: return read_zset(in, type, key, out);
    case RDB_HASH: return read_hash(in, type, key, out);
    case RDB_HASH_ZIPMAP:
    case RDB_LIST_ZIPLIST:
    case RDB_SET_INTSET:
    case RDB_ZSET_ZIPLIST:
    case RDB_HASH_ZIPLIST:
    case RDB_HASH_LISTPACK:
    case RDB_ZSET_LISTPACK:
    case RDB_SET_LISTPACK: return read_blob(in, type, key, out);
    case RDB_LIST_QUICKLIST:
    case RDB_LIST_QUICKLIST_2: return read_nodes(in, type, key, out);
    case RDB_STREAM:
    case RDB_STREAM_2:
    case RDB_STREAM_3: return in_stream(in, type, key, out);
    default: return refuse(in, type);
    }
}

bool in_value(struct rdb_in *in, unsigned type, struct bytes key, struct entry **out)
{
    *out = NULL;
    bool ok = read_value(in, type, key, out);
    if (ok && (!*out || is_empty(*out))) ok = check(in, E_NOT_FOUND, type);
    if (ok) return true;
    if (*out) entry_free(*out);
    *out = NULL;
    return false;
}
