/* An RDB is loaded while memory runs out: at the first try of an allocation, at the second, and so on to the last.  The
 * load ends with an error, nothing leaks, and what was loaded before is whole.  Needs the faults of the sanitizer
 * builds (mem.h). */
#include "base/mem.h"
#include "persist/persist.h"
#include "store/hash.h"
#include "store/listtype.h"
#include "store/set.h"
#include "store/zset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#if COVEY_LIBC_MALLOC

enum { TYPES = 5, SMALL = 20, LARGE = 700, FAULTS_MAX = 100000 };

static const struct store_limits *const limits = &store_limits_default;

static void text_of(struct buf *out, int i)
{
    out->n = 0;
    buf_printf(out, "%d-element-element-element", i * 7919);
}

static struct entry *value_of(struct bytes key, int type, int n)
{
    struct buf text = {0};
    text_of(&text, 0);
    struct entry *e = NULL;
    bool is_new;
    enum zset_change change;
    enum status st = OK;
    switch (type) {
    case 0: e = hash_new(key); break;
    case 1: e = set_new(key, buf_bytes(&text)); break;
    case 2: e = zset_new(key, buf_bytes(&text), limits); break;
    case 3: e = list_new(key); break;
    }
    for (int i = 0; i < n && type < 4; i++) {
        text_of(&text, i);
        struct bytes t = buf_bytes(&text);
        switch (type) {
        case 0: st = hash_set(e, t, t, limits, &is_new); break;
        case 1: st = set_add(e, t, limits, &is_new); break;
        case 2: st = zset_add(e, i / 3.0, t, limits, &change); break;
        case 3: st = list_push(e, LIST_TAIL, t, limits); break;
        }
        assert_int_equal(st, OK);
    }
    if (type == 4) {
        for (int i = 0; i < n; i++) buf_printf(&text, "%d", i);
        e = entry_try_new_string(key, buf_bytes(&text));
    }
    buf_deinit(&text);
    return e;
}

static enum status write_bytes(void *ctx, const void *p, size_t n)
{
    buf_append(ctx, p, n);
    return OK;
}

static void save(struct store *s, struct buf *out)
{
    struct rdb_options options = {.compress = true, .checksum = true};
    struct rdb_snapshot *sn =
        rdb_snapshot_begin(s, store_cut_begin(s), (struct rdb_sink){out, write_bytes}, &options, NULL);
    while (rdb_snapshot_step(sn, 4096) == E_AGAIN) {
    }
    rdb_snapshot_end(sn);
}

/* Small and large values of every type but streams, in two databases. */
static void make_rdb(struct buf *out)
{
    struct store *s = store_create(2, (struct store_hooks){0});
    for (int i = 0; i < 2 * TYPES; i++) {
        char name[16];
        snprintf(name, sizeof name, "key:%d", i);
        struct key k = key_of(bytes_of(name));
        store_put(s, i & 1, &k, value_of(k.name, i / 2, i & 1 ? LARGE : SMALL));
    }
    save(s, out);
    store_destroy(s);
}

struct input {
    struct bytes left;
};

static enum status read_bytes(void *ctx, void *p, size_t n, size_t *got)
{
    struct input *in = ctx;
    *got = n < in->left.n ? n : in->left.n;
    if (*got) memcpy(p, in->left.p, *got);
    in->left.p += *got;
    in->left.n -= *got;
    return OK;
}

/* Loads with the n-th try failing; gives whether one failed. */
static bool load_with_fault(struct bytes rdb, int64_t n, uint64_t *keys)
{
    struct store *s = store_create(2, (struct store_hooks){0});
    struct input in = {rdb};
    struct rdb_source source = {&in, read_bytes, rdb.n};
    struct rdb_extras extras = {0};
    struct rdb_progress progress = {0};
    struct rdb_load_options options = {.limits = *limits};
    struct rdb_load_result result = {0};
    struct rdb_error err = {0};
    mem_fail_after(n);
    enum status st = rdb_load(s, source, &options, &extras, &progress, &result, &err);
    bool failed = mem_failed();
    mem_fail_after(-1);
    if (!failed) assert_int_equal(st, OK);
    assert_int_equal(st == OK, err.text[0] == 0);
    *keys = result.keys;
    if (st == OK) assert_int_equal(result.keys, 2 * TYPES);
    struct buf again = {0};
    save(s, &again); /* reads everything that was loaded */
    assert_true(again.n > 0);
    buf_deinit(&again);
    rdb_extras_deinit(&extras);
    store_destroy(s);
    return failed;
}

static void test_load_without_memory(void **state)
{
    (void)state;
    struct buf rdb = {0};
    make_rdb(&rdb);
    uint64_t keys, refused = 0;
    int64_t n = 0;
    for (;; n += n < 200 ? 1 : 37) {
        size_t before = mem_used();
        bool failed = load_with_fault(buf_bytes(&rdb), n, &keys);
        if (mem_used() != before) fail_msg("fault %lld leaks", (long long)n);
        if (!failed) break;
        refused += keys < 2 * TYPES;
        assert_true(n < FAULTS_MAX);
    }
    print_message("faults up to %lld, %llu refused\n", (long long)n, (unsigned long long)refused);
    assert_true(n > 100 && refused >= 5); /* most tries are to give back room, which may fail */
    buf_deinit(&rdb);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_load_without_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    return 0;
}

#endif
