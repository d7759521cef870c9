/* rdb_test.h: what the tests of the RDB format share: bytes written as hexadecimal digits, random values and datasets,
 * and files that are buffers.  The random ones follow from the seed that a test gives `rng`.  For tests only.  One
 * thread. */
#ifndef COVEY_PERSIST_RDB_TEST_H
#define COVEY_PERSIST_RDB_TEST_H

#include "persist/persist.h"

#include "base/mem.h"
#include "base/random.h"
#include "store/hash.h"
#include "store/listtype.h"
#include "store/set.h"
#include "store/stream.h"
#include "store/zset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static const struct store_limits *const limits = &store_limits_default;
static const struct bytes KEY = {"k", 1};

static struct random rng;

static inline uint64_t pick(uint64_t n)
{
    return random_below(&rng, n);
}

static inline int nibble(char c)
{
    return c <= '9' ? c - '0' : (c | 32) - 'a' + 10;
}

/* Hexadecimal digits, blanks between them; text in '' is taken as it is. */
static inline void hex_append(struct buf *b, const char *text)
{
    while (*text) {
        if (*text == ' ') {
            text++;
        } else if (*text == '\'') {
            for (text++; *text != '\''; text++) buf_append_char(b, *text);
            text++;
        } else {
            buf_append_char(b, (char)(nibble(text[0]) << 4 | nibble(text[1])));
            text += 2;
        }
    }
}

static inline void assert_same(struct bytes got, struct bytes want)
{
    if (!bytes_eq(got, want)) {
        for (size_t i = 0; i < got.n; i++) printf("%02x", (unsigned char)got.p[i]);
        printf("\n");
        for (size_t i = 0; i < want.n; i++) printf("%02x", (unsigned char)want.p[i]);
        printf("\n");
    }
    assert_int_equal(got.n, want.n);
    assert_true(bytes_eq(got, want));
}

/* ---- random values and datasets ---- */

static inline struct store *new_store(void)
{
    return store_create(16, (struct store_hooks){0});
}

/* Integers, short and long texts, compressible or not. */
static inline struct bytes random_text(char *out, size_t max)
{
    switch (pick(4)) {
    case 0: return bytes_make(out, (size_t)sprintf(out, "%lld", (long long)(random_u64(&rng) >> pick(64))));
    case 1: return bytes_make(out, (size_t)sprintf(out, "member:%u", (unsigned)pick(100000)));
    default: break;
    }
    size_t n = pick(pick(8) ? 40 : max);
    unsigned alphabet = pick(2) ? 256 : 3;
    for (size_t i = 0; i < n; i++) out[i] = (char)pick(alphabet);
    return bytes_make(out, n);
}

enum { TEXT_MAX = 10000 };

static inline void fill(struct entry *e, size_t n)
{
    static char one[TEXT_MAX], two[TEXT_MAX];
    size_t max = pick(2) ? 30 : TEXT_MAX;
    while (n--) {
        struct bytes a = random_text(one, max), b = random_text(two, max);
        switch (entry_type(e)) {
        case TYPE_LIST: assert_int_equal(list_push(e, (enum list_end)pick(2), a, limits), OK); break;
        case TYPE_SET: assert_int_equal(set_add(e, a, limits, NULL), OK); break;
        case TYPE_HASH: assert_int_equal(hash_set(e, a, b, limits, NULL), OK); break;
        default: assert_int_equal(zset_add(e, (double)pick(1000) / (double)(1 + pick(9)), a, limits, NULL), OK); break;
        }
    }
}

/* Entries, some removed, and groups with consumers that own some of them. */
static inline struct entry *random_stream(struct bytes key, size_t n)
{
    struct entry *e = stream_entry_new(key);
    struct stream *s = stream_of(e);
    static char one[TEXT_MAX];
    struct stream_id id = {1, 0};
    for (size_t i = 0; i < n; i++) {
        struct bytes texts[] = {BYTES("field"), random_text(one, 60), BYTES("n"), BYTES("1")};
        id = (struct stream_id){id.ms + pick(3), id.seq + 1};
        assert_int_equal(stream_append(s, id, texts, 1 + pick(2), limits), OK);
        if (pick(5) == 0) stream_delete(s, id);
    }
    for (size_t groups = pick(3); groups--;) {
        char name[40];
        struct stream_group *g =
            stream_group_create(s, bytes_make(name, (size_t)sprintf(name, "group:%zu", groups)), id, (int64_t)n);
        struct stream_consumer *a = stream_consumer_create(g, BYTES("ann"), 1000);
        struct stream_consumer *b = stream_consumer_create(g, BYTES("bob"), 2000);
        a->active_ms = 1000;
        b->active_ms = 2000;
        for (size_t i = pick(100); i--;)
            stream_pending_put(g, (struct stream_id){pick(50), pick(50)}, pick(2) ? a : b, (int64_t)pick(1000),
                               pick(9));
    }
    stream_update_first(s);
    return e;
}

static inline struct entry *random_entry(struct bytes key)
{
    static char text[TEXT_MAX * 40];
    size_t n = 1 + pick(pick(3) ? 20 : 1500);
    struct entry *e;
    switch (pick(7)) {
    case 0: e = list_new(key); break;
    case 1: e = set_new(key, BYTES("1")); break;
    case 2: e = hash_new(key); break;
    case 3: e = zset_new(key, BYTES("m"), limits); break;
    case 4: return random_stream(key, n);
    case 5:
        e = set_new(key, BYTES("1"));
        while (n--) {
            char digits[24];
            size_t len = (size_t)sprintf(digits, "%lld", (long long)(random_u64(&rng) >> pick(64)));
            assert_int_equal(set_add(e, bytes_make(digits, len), limits, NULL), OK);
        }
        return e;
    default: return entry_try_new_string(key, random_text(text, pick(20) ? 200 : sizeof text));
    }
    fill(e, n);
    return e;
}

static inline struct store *random_store(size_t keys)
{
    struct store *s = new_store();
    for (size_t i = 0; i < keys; i++) {
        char name[300];
        size_t n = (size_t)sprintf(name, "key:%zu:", i);
        while (pick(10) && n < sizeof name - 1) name[n++] = (char)pick(256);
        struct key k = key_of(bytes_make(name, n));
        struct entry *e = random_entry(k.name);
        if (pick(3) == 0) e = entry_with_expire(e, (int64_t)(2000000 + pick(1000000)));
        store_put(s, pick(4) ? 0 : (int)pick(16), &k, e);
    }
    return s;
}

struct compare {
    struct store *other;
    size_t seen;
};

/* Equal as values: the same payload, or (unordered ones) the same elements. */
static inline void assert_same_value(const struct entry *a, const struct entry *b)
{
    assert_int_equal(entry_type(a), entry_type(b));
    assert_int_equal(entry_enc(a) == ENC_RAW ? ENC_EMBSTR : entry_enc(a),
                     entry_enc(b) == ENC_RAW ? ENC_EMBSTR : entry_enc(b));
    assert_int_equal(entry_expire_at(a), entry_expire_at(b));
    struct element x, y;
    if (entry_type(a) == TYPE_HASH && entry_enc(a) == ENC_HASHTABLE) {
        struct hash_iter it;
        assert_int_equal(hash_len(a), hash_len(b));
        hash_iter_init(&it, a);
        while (hash_iter_next(&it, &x, &y)) {
            struct element z;
            assert_true(hash_get(b, x.text, &z));
            assert_same(z.text, y.text);
        }
        return;
    }
    struct buf one = {0}, two = {0};
    assert_int_equal(persist_dump(a, false, &one), OK);
    assert_int_equal(persist_dump(b, false, &two), OK);
    assert_same(buf_bytes(&two), buf_bytes(&one));
    buf_deinit(&one);
    buf_deinit(&two);
}

static inline enum status compare_entry(void *ctx, int db, struct entry *e)
{
    struct compare *c = ctx;
    struct key k = key_of(entry_key(e));
    struct entry *other = store_find(c->other, db, &k);
    assert_non_null(other);
    assert_same_value(e, other);
    c->seen++;
    return OK;
}

static inline void assert_same_stores(struct store *a, struct store *b)
{
    struct compare c = {b, 0};
    struct cut *cut = store_cut_begin(a);
    while (store_cut_step(cut, SIZE_MAX, compare_entry, &c) == E_AGAIN) {
    }
    store_cut_end(cut);
    size_t n = 0;
    for (int db = 0; db < 16; db++) n += store_db_count(b, db);
    assert_int_equal(c.seen, n);
}

/* ---- files ---- */

/* A source over memory that gives at most `piece` bytes at a time. */
struct memory {
    struct bytes left;
    size_t piece;
};

static inline enum status memory_read(void *ctx, void *p, size_t n, size_t *got)
{
    struct memory *m = ctx;
    *got = n < m->piece ? n : m->piece;
    if (*got > m->left.n) *got = m->left.n;
    if (*got) memcpy(p, m->left.p, *got);
    m->left.p += *got;
    m->left.n -= *got;
    return OK;
}

static inline struct rdb_load_options load_options(void)
{
    return (struct rdb_load_options){.limits = store_limits_default, .now_ms = 1000000, .lru_clock = 1000};
}

static inline struct rdb_options save_options(void)
{
    return (struct rdb_options){.compress = true, .checksum = true, .now_ms = 1700000000000};
}

static inline enum status buf_sink_write(void *ctx, const void *p, size_t n)
{
    buf_append(ctx, p, n);
    return OK;
}

static inline void save_to_buf(struct store *s, const struct rdb_options *options, struct buf *out)
{
    struct rdb_snapshot *sn =
        rdb_snapshot_begin(s, store_cut_begin(s), (struct rdb_sink){out, buf_sink_write}, options, NULL);
    enum status st;
    do st = rdb_snapshot_step(sn, 1000);
    while (st == E_AGAIN);
    assert_int_equal(st, OK);
    rdb_snapshot_end(sn);
}

#endif
