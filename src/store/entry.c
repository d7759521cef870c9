#include "store/entry.h"

#include "base/mem.h"
#include "base/number.h"
#include "store/intset.h"
#include "store/listpack.h"
#include "store/stream.h"
#include "store/tree.h"
#include "store/zset.h"

#include <stdatomic.h>

enum { EMBSTR_MAX = 44, INLINE_MAX = 512, GROW_STEP_MAX = 1 << 20 };

const struct store_limits store_limits_default = {
    .hash_max_listpack_entries = 512,
    .hash_max_listpack_value = 64,
    .zset_max_listpack_entries = 128,
    .zset_max_listpack_value = 64,
    .set_max_intset_entries = 512,
    .list_max_listpack_size = -2,
    .stream_node_max_bytes = 4096,
    .stream_node_max_entries = 100,
};

enum { LARGE_BLOB = 4 << 20 };

struct blob *blob_try_new(struct bytes content, size_t spare)
{
    if (content.n > SIZE_MAX / 4 || spare > SIZE_MAX / 4) return NULL;
    size_t size = sizeof(struct blob) + content.n + spare;
    struct blob *b = size < LARGE_BLOB ? mem_try_alloc(size) : mem_try_alloc_large(size);
    if (!b) return NULL;
    atomic_init(&b->refs, 1);
    b->n = content.n;
    b->cap = content.n + spare;
    if (content.n) memcpy(b->data, content.p, content.n);
    return b;
}

struct blob *blob_ref(struct blob *b)
{
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

void blob_unref(struct blob *b)
{
    if (atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) == 1) mem_free(b);
}

/* What an entry is made of; lengths as they are, without escapes. */
struct parts {
    uint8_t type_enc;
    int64_t expire_at; /* -1: none */
    bool has_word;
    void *word;
    uint32_t lru;
    struct bytes key, value; /* value: inline only */
};

static char *put_length(char *p, size_t n)
{
    uint32_t v = (uint32_t)n;
    memcpy(p, &v, sizeof v);
    return p + sizeof v;
}

static struct entry *entry_try_build(const struct parts *parts)
{
    bool long_key = parts->key.n >= ENTRY_LENGTH_ESCAPE, long_value = parts->value.n >= ENTRY_LENGTH_ESCAPE;
    size_t n = sizeof(struct entry) + parts->key.n + parts->value.n + (parts->expire_at >= 0 ? 8 : 0) +
               (parts->has_word ? 8 : 0) + (long_key ? 4 : 0) + (long_value ? 4 : 0);
    struct entry *e = mem_try_alloc(n);
    if (!e) return NULL;
    *e = (struct entry){.type_enc = parts->type_enc};
    e->flags = (uint8_t)((parts->expire_at >= 0 ? ENTRY_TTL : 0) | (parts->has_word ? ENTRY_WORD : 0));
    e->klen = (uint8_t)(long_key ? ENTRY_LENGTH_ESCAPE : parts->key.n);
    e->lru_vlen = (uint32_t)(long_value ? ENTRY_LENGTH_ESCAPE : parts->value.n) << 24;
    entry_set_lru(e, parts->lru);
    char *p = (char *)(e + 1);
    if (parts->expire_at >= 0) {
        memcpy(p, &parts->expire_at, 8);
        p += 8;
    }
    if (parts->has_word) {
        memcpy(p, &parts->word, 8);
        p += 8;
    }
    if (long_key) p = put_length(p, parts->key.n);
    if (long_value) p = put_length(p, parts->value.n);
    if (parts->key.n) memcpy(p, parts->key.p, parts->key.n);
    if (parts->value.n) memcpy(p + parts->key.n, parts->value.p, parts->value.n);
    return e;
}

static struct entry *entry_build(const struct parts *parts)
{
    mem_must_begin();
    struct entry *e = entry_try_build(parts);
    mem_must_end();
    if (!e) mem_abort(parts->key.n + parts->value.n);
    return e;
}

static struct parts read_parts(const struct entry *e)
{
    struct parts parts = {.type_enc = e->type_enc, .expire_at = entry_expire_at(e), .lru = entry_lru(e)};
    parts.has_word = e->flags & ENTRY_WORD;
    parts.word = parts.has_word ? entry_ptr(e) : NULL;
    entry_texts(e, &parts.key, &parts.value);
    return parts;
}

static uint8_t type_enc(enum value_type type, enum encoding enc)
{
    return (uint8_t)(type | enc << 4);
}

struct entry *entry_new_word(struct bytes key, enum value_type type, enum encoding enc, void *word)
{
    return entry_build(
        &(struct parts){.type_enc = type_enc(type, enc), .expire_at = -1, .has_word = true, .word = word, .key = key});
}

static struct entry *entry_try_boxed(struct bytes key, struct bytes value, size_t spare)
{
    struct blob *b = blob_try_new(value, spare);
    if (!b) return NULL;
    struct entry *e = entry_try_build(&(struct parts){
        .type_enc = type_enc(TYPE_STRING, ENC_RAW), .expire_at = -1, .has_word = true, .word = b, .key = key});
    if (!e) blob_unref(b);
    return e;
}

struct entry *entry_try_new_string(struct bytes key, struct bytes value)
{
    int64_t v;
    struct parts parts = {.expire_at = -1, .key = key};
    if (parse_i64(value, &v)) {
        parts.type_enc = type_enc(TYPE_STRING, ENC_INT);
        parts.has_word = true;
        memcpy(&parts.word, &v, sizeof v);
    } else if (value.n <= INLINE_MAX) {
        parts.type_enc = type_enc(TYPE_STRING, value.n <= EMBSTR_MAX ? ENC_EMBSTR : ENC_RAW);
        parts.value = value;
    } else {
        return entry_try_boxed(key, value, 0);
    }
    return entry_try_build(&parts);
}

struct entry *entry_try_new_raw(struct bytes key, struct bytes value, size_t spare)
{
    if (value.n > INLINE_MAX || spare > INLINE_MAX - value.n) return entry_try_boxed(key, value, spare);
    return entry_try_build(
        &(struct parts){.type_enc = type_enc(TYPE_STRING, ENC_RAW), .expire_at = -1, .key = key, .value = value});
}

struct entry *entry_try_new_room(struct bytes key, size_t n, char **data)
{
    struct entry *e;
    if (n <= INLINE_MAX) {
        static const char zeros[INLINE_MAX];
        e = entry_try_new_raw(key, bytes_make(zeros, n), 0);
    } else {
        e = entry_try_boxed(key, (struct bytes){NULL, 0}, n);
        if (e) ((struct blob *)entry_ptr(e))->n = n;
    }
    if (e) *data = entry_raw_bytes(e);
    return e;
}

struct bytes entry_string(const struct entry *e, char digits[24])
{
    assert(entry_type(e) == TYPE_STRING);
    if (entry_enc(e) == ENC_INT) {
        int64_t v;
        memcpy(&v, entry_word(e), sizeof v);
        return bytes_make(digits, format_i64(digits, v));
    }
    if (e->flags & ENTRY_WORD) {
        const struct blob *b = entry_ptr(e);
        return bytes_make(b->data, b->n);
    }
    struct bytes key, value;
    entry_texts(e, &key, &value);
    return value;
}

size_t entry_string_len(const struct entry *e)
{
    char digits[24];
    return entry_string(e, digits).n;
}

char *entry_raw_grow(struct entry *e, size_t n)
{
    if (entry_type(e) != TYPE_STRING || entry_enc(e) != ENC_RAW || !(e->flags & ENTRY_WORD)) return NULL;
    struct blob *b = entry_ptr(e);
    if (atomic_load_explicit(&b->refs, memory_order_acquire) != 1) return NULL;
    if (n > b->cap) {
        size_t cap = n + (n < GROW_STEP_MAX ? n : GROW_STEP_MAX);
        if (cap < n || cap > SIZE_MAX - sizeof *b) return NULL;
        struct blob *wider = mem_try_realloc(b, sizeof *b + cap);
        if (!wider) return NULL;
        b = wider;
        b->cap = cap;
        entry_set_ptr(e, b);
    }
    if (n > b->n) {
        memset(b->data + b->n, 0, n - b->n);
        b->n = n;
    }
    return b->data;
}

char *entry_raw_bytes(struct entry *e)
{
    struct bytes key, value;
    assert(entry_type(e) == TYPE_STRING);
    if (entry_enc(e) == ENC_INT) return NULL;
    if (e->flags & ENTRY_WORD) {
        struct blob *b = entry_ptr(e);
        return atomic_load_explicit(&b->refs, memory_order_acquire) == 1 ? b->data : NULL;
    }
    entry_set_enc(e, ENC_RAW);
    entry_texts(e, &key, &value);
    return (char *)(uintptr_t)value.p;
}

struct entry *entry_with_expire(struct entry *e, int64_t expire_at_ms)
{
    if (entry_has_ttl(e) && expire_at_ms >= 0) {
        memcpy(e + 1, &expire_at_ms, 8);
        return e;
    }
    struct parts parts = read_parts(e);
    if (parts.expire_at == expire_at_ms) return e;
    parts.expire_at = expire_at_ms < 0 ? -1 : expire_at_ms;
    struct entry *moved = entry_build(&parts);
    moved->flags |= e->flags & ENTRY_ORPHAN;
    moved->retained = e->retained;
    mem_free(e);
    return moved;
}

struct entry *entry_with_key(struct entry *e, struct bytes key)
{
    struct parts parts = read_parts(e);
    parts.key = key;
    struct entry *moved = entry_build(&parts);
    mem_free(e);
    return moved;
}

static struct tree *tree_forked(const struct tree *t)
{
    struct tree *fork = mem_alloc(sizeof *fork);
    tree_fork(t, fork);
    return fork;
}

static void *block_copied(const void *block, size_t n)
{
    return memcpy(mem_alloc(n), block, n);
}

static void *word_fork(enum encoding enc, void *word)
{
    switch (enc) {
    case ENC_RAW: return blob_ref(word);
    case ENC_STREAM: return stream_fork(word);
    case ENC_EMBSTR:
    case ENC_INT: return word;
    case ENC_LISTPACK: return block_copied(word, lp_bytes(word));
    case ENC_INTSET: return block_copied(word, intset_bytes(word));
    case ENC_QUICKLIST:
    case ENC_HASHTABLE: return tree_forked(word);
    case ENC_SKIPLIST: break;
    }
    const struct zset_trees *z = word;
    struct zset_trees *fork = mem_alloc(sizeof *fork);
    tree_fork(&z->by_member, &fork->by_member);
    tree_fork(&z->by_score, &fork->by_score);
    return fork;
}

struct entry *entry_fork(const struct entry *e)
{
    struct parts parts = read_parts(e);
    if (parts.has_word) parts.word = word_fork(entry_enc(e), parts.word);
    return entry_build(&parts);
}

void entry_leave_uncounted(struct entry *e)
{
    if (!(e->flags & ENTRY_WORD)) return;
    void *word = entry_ptr(e);
    switch (entry_enc(e)) {
    case ENC_QUICKLIST:
    case ENC_HASHTABLE: ((struct tree *)word)->uncounted = true; return;
    case ENC_SKIPLIST: {
        struct zset_trees *z = word;
        z->by_member.uncounted = z->by_score.uncounted = true;
        return;
    }
    case ENC_STREAM:
        if (((struct stream *)word)->nodes) ((struct stream *)word)->nodes->uncounted = true;
        return;
    default: return;
    }
}

static void word_free(enum encoding enc, void *word)
{
    switch (enc) {
    case ENC_RAW: blob_unref(word); return;
    case ENC_STREAM: stream_free(word); return;
    case ENC_EMBSTR:
    case ENC_INT: return;
    case ENC_LISTPACK:
    case ENC_INTSET: mem_free(word); return;
    case ENC_QUICKLIST:
    case ENC_HASHTABLE: tree_free(word); return;
    case ENC_SKIPLIST: break;
    }
    struct zset_trees *z = word;
    tree_deinit(&z->by_member);
    tree_deinit(&z->by_score);
    mem_free(z);
}

void entry_free(struct entry *e)
{
    if (e->flags & ENTRY_WORD) word_free(entry_enc(e), entry_ptr(e));
    mem_free(e);
}

size_t entry_free_effort(const struct entry *e)
{
    if (!(e->flags & ENTRY_WORD)) return 1;
    switch (entry_enc(e)) {
    case ENC_QUICKLIST:
    case ENC_HASHTABLE: return 1 + ((const struct tree *)entry_ptr(e))->nodes;
    case ENC_SKIPLIST: {
        const struct zset_trees *z = entry_ptr(e);
        return 1 + z->by_member.nodes + z->by_score.nodes;
    }
    case ENC_STREAM: return stream_free_effort(entry_ptr(e));
    default: return 1;
    }
}

size_t entry_own_bytes(const struct entry *e)
{
    size_t n = mem_size(e);
    return e->flags & ENTRY_WORD && entry_enc(e) != ENC_INT ? n + mem_size(entry_ptr(e)) : n;
}

size_t entry_memory(const struct entry *e, size_t samples)
{
    size_t n = mem_size(e);
    if (!(e->flags & ENTRY_WORD) || entry_enc(e) == ENC_INT) return n;
    const void *word = entry_ptr(e);
    n += mem_size(word);
    switch (entry_enc(e)) {
    case ENC_QUICKLIST:
    case ENC_HASHTABLE: return n + tree_memory(word, samples);
    case ENC_SKIPLIST: {
        const struct zset_trees *z = word;
        return n + tree_memory(&z->by_member, samples) + tree_memory(&z->by_score, samples);
    }
    case ENC_STREAM: return n + stream_memory(word, samples);
    default: return n;
    }
}

const char *encoding_name(enum encoding enc)
{
    static const char *const names[] = {"raw",       "embstr",    "int",      "listpack", "intset",
                                        "quicklist", "hashtable", "skiplist", "stream"};
    return names[enc];
}

const char *type_name(enum value_type type)
{
    static const char *const names[] = {"string", "list", "set", "zset", "hash", "", "stream"};
    return names[type];
}
