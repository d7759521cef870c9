/* entry.h: one key with its value, in one allocation where that is possible.
 *
 *   header 8 | [expire-at ms 8] | [word 8] | [key length 4] | [value length 4] | key | value
 *
 * An optional part is there only when its flag or escape says so; a small string key with a small string value costs
 * 8 bytes beside them.  The word holds an integer (ENC_INT) or a pointer (collections, large strings), always 8-byte
 * aligned, so that a collection can change its encoding without moving the entry.
 *
 * Threads: an entry is read and changed under the lock of its slot.  What a word points to may be shared between an
 * entry and forks of it (entry_fork()); shared parts are counted atomically and never edited, so that a fork can be
 * read without the slot's lock. */
#ifndef COVEY_STORE_ENTRY_H
#define COVEY_STORE_ENTRY_H

#include "base/bytes.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

/* The numbers are Redis's object types. */
enum value_type { TYPE_STRING = 0, TYPE_LIST = 1, TYPE_SET = 2, TYPE_ZSET = 3, TYPE_HASH = 4, TYPE_STREAM = 6 };

enum encoding {
    ENC_RAW,       /* string: inline, or boxed in a struct blob */
    ENC_EMBSTR,    /* string: inline, never edited since SET (what OBJECT ENCODING calls embstr) */
    ENC_INT,       /* string: canonical int64 in the word */
    ENC_LISTPACK,  /* hash, zset: word points to a listpack */
    ENC_INTSET,    /* set: word points to an intset */
    ENC_QUICKLIST, /* list: word points to a tree of listpacks */
    ENC_HASHTABLE, /* hash, set: word points to a tree ordered by hash */
    ENC_SKIPLIST,  /* zset: word points to a pair of trees */
    ENC_STREAM,    /* stream: word points to a struct stream */
};

enum { ENTRY_TTL = 1, ENTRY_WORD = 2, ENTRY_ORPHAN = 4 };

/* Cuts that can be open at a time (store.h); an entry has two bits for each in `retained`. */
enum { CUTS_MAX = 4, STRAY_SHIFT = CUTS_MAX };

struct entry {
    uint8_t type_enc; /* enum value_type in the low nibble, enum encoding in the high one */
    uint8_t flags;
    uint8_t retained;  /* low half, a bit for each cut: it still has to save this entry, though the bucket's number says
                          that nothing there is needed; high half: of these, who has it in a list of strays (table.h) */
    uint8_t klen;      /* 255: the length is in its own field */
    uint32_t lru_vlen; /* low 24 bits: access clock; high 8: inline value length, 255: in its own field */
};

/* A large or growing string: counted, so that forks and replies can share it. */
struct blob {
    _Atomic uint32_t refs;
    size_t n, cap; /* bytes used and allocated behind the header */
    char data[];
};

struct blob *blob_try_new(struct bytes content, size_t spare); /* NULL when memory is out */
struct blob *blob_ref(struct blob *b);
void blob_unref(struct blob *b);

static inline enum value_type entry_type(const struct entry *e)
{
    return (enum value_type)(e->type_enc & 15);
}

static inline enum encoding entry_enc(const struct entry *e)
{
    return (enum encoding)(e->type_enc >> 4);
}

static inline void entry_set_enc(struct entry *e, enum encoding enc)
{
    e->type_enc = (uint8_t)((e->type_enc & 15) | (enc << 4));
}

static inline uint32_t entry_lru(const struct entry *e)
{
    return e->lru_vlen & 0xffffff;
}

static inline void entry_set_lru(struct entry *e, uint32_t lru)
{
    e->lru_vlen = (e->lru_vlen & 0xff000000) | (lru & 0xffffff);
}

static inline bool entry_has_ttl(const struct entry *e)
{
    return e->flags & ENTRY_TTL;
}

/* Unix time in ms at which the key expires; -1 when never. */
static inline int64_t entry_expire_at(const struct entry *e)
{
    return e->flags & ENTRY_TTL ? *(const int64_t *)(const void *)(e + 1) : -1;
}

/* The word; only for entries that have one. */
static inline void **entry_word(const struct entry *e)
{
    assert(e->flags & ENTRY_WORD);
    return (void **)(uintptr_t)((const char *)(e + 1) + (e->flags & ENTRY_TTL ? 8 : 0));
}

static inline void *entry_ptr(const struct entry *e)
{
    return *entry_word(e);
}

static inline void entry_set_ptr(struct entry *e, void *p)
{
    *entry_word(e) = p;
}

enum { ENTRY_LENGTH_ESCAPE = 255 };

/* The key, and what stands behind it: an inline value. */
static inline void entry_texts(const struct entry *e, struct bytes *key, struct bytes *value)
{
    const char *p = (const char *)(e + 1) + (e->flags & ENTRY_TTL ? 8 : 0) + (e->flags & ENTRY_WORD ? 8 : 0);
    uint32_t klen = e->klen, vlen = e->lru_vlen >> 24;
    if (__builtin_expect(klen == ENTRY_LENGTH_ESCAPE, 0)) {
        memcpy(&klen, p, 4);
        p += 4;
    }
    if (__builtin_expect(vlen == ENTRY_LENGTH_ESCAPE, 0)) {
        memcpy(&vlen, p, 4);
        p += 4;
    }
    *key = bytes_make(p, klen);
    *value = bytes_make(p + klen, vlen);
}

static inline struct bytes entry_key(const struct entry *e)
{
    struct bytes key, value;
    entry_texts(e, &key, &value);
    return key;
}

/* A new entry with a word (all collections, ENC_INT, boxed strings).  Copies key.  Takes what the word points to. */
struct entry *entry_new_word(struct bytes key, enum value_type type, enum encoding enc, void *word);
/* A new string entry holding a copy of value in the encoding that SET gives it (int, embstr, raw).  NULL when the
 * memory for a value of that size is not there. */
struct entry *entry_try_new_string(struct bytes key, struct bytes value);
/* A string entry whose encoding is raw whatever its size (the result of an APPEND); `spare` bytes of room to grow. */
struct entry *entry_try_new_raw(struct bytes key, struct bytes value, size_t spare);
/* A raw string entry of n bytes that the caller fills in at *data before anything else happens to the entry. */
struct entry *entry_try_new_room(struct bytes key, size_t n, char **data);

/* The text of a string entry.  An integer is written into digits; otherwise the result borrows from the entry. */
struct bytes entry_string(const struct entry *e, char digits[24]);
size_t entry_string_len(const struct entry *e);

/* For a string entry with encoding raw and a blob nobody shares: makes it at least n bytes long (new bytes are zero)
 * and returns the data, which the caller may overwrite in place.  NULL when the entry is not of that kind or memory is
 * out (the caller then builds a new entry). */
char *entry_raw_grow(struct entry *e, size_t n);
/* For a string entry that nobody shares: its bytes, to be overwritten in place; it is raw from now on.  NULL when the
 * value is an integer, or in a blob that somebody else holds. */
char *entry_raw_bytes(struct entry *e);

/* The same entry with another time of expiry (-1: none); may move: the result replaces e, which is gone. */
struct entry *entry_with_expire(struct entry *e, int64_t expire_at_ms);
/* The same value under another key; a new entry that takes over the value; e is gone.  The access clock is kept. */
struct entry *entry_with_key(struct entry *e, struct bytes key);

/* A second entry with the same key, value, TTL and access clock; cheap: trees and blobs are shared, only listpacks and
 * intsets are copied.  Either may then be changed or freed without the other noticing. */
struct entry *entry_fork(const struct entry *e);

/* For an entry whose fork lives on in the dataset, and for such a fork: what changes of e leave to the other is not
 * counted by mem_note_kept(). */
void entry_leave_uncounted(struct entry *e);

void entry_free(struct entry *e);
/* Bytes that only e itself takes: without the nodes of a large collection, which it may share. */
size_t entry_own_bytes(const struct entry *e);
/* Roughly how many allocations entry_free() gives back: above LAZYFREE_THRESHOLD the caller hands it to the background.
 */
size_t entry_free_effort(const struct entry *e);
enum { LAZYFREE_THRESHOLD = 64 };
/* Bytes that the entry and its value take in memory; `samples` elements of a large collection are looked at (0: all).
 */
size_t entry_memory(const struct entry *e, size_t samples);
/* What OBJECT ENCODING prints. */
const char *encoding_name(enum encoding enc);
const char *type_name(enum value_type type);

/* Sizes at which small collections become large ones; redis.conf's *-max-listpack-* and set-max-intset-entries. */
struct store_limits {
    size_t hash_max_listpack_entries, hash_max_listpack_value;
    size_t zset_max_listpack_entries, zset_max_listpack_value;
    size_t set_max_intset_entries;
    int64_t list_max_listpack_size;                        /* > 0: elements a node; -1..-5: 4, 8, 16, 32, 64 KiB */
    size_t stream_node_max_bytes, stream_node_max_entries; /* 0: as many as can be */
};
extern const struct store_limits store_limits_default;

#endif
