/* An RDB file read by several threads, and how they find where its keys begin. */
#include "persist/rdb_batch.h"
#include "persist/rdb_extent.h"
#include "persist/rdb_input.h"
#include "persist/rdb_test.h"

static enum status load_with_threads(struct store *s, struct bytes b, unsigned threads, struct rdb_load_result *result,
                                     struct rdb_error *err)
{
    struct memory m = {b, 300000};
    struct rdb_load_options options = load_options();
    options.threads = threads;
    return rdb_load(s, (struct rdb_source){&m, memory_read, b.n}, &options, NULL, NULL, result, err);
}

/* Enough for several windows, with values larger than one. */
static struct store *large_store(void)
{
    struct store *s = random_store(600);
    size_t n = 3 * 1024 * 1024;
    char *text = mem_alloc(n);
    for (size_t i = 0; i < n; i++) text[i] = (char)random_u64(&rng);
    struct key string = key_of(BYTES("large string")), list = key_of(BYTES("large list"));
    store_put(s, 3, &string, entry_try_new_string(string.name, bytes_make(text, n)));
    struct entry *e = list_new(list.name);
    for (size_t at = 0; at + 3000 < n; at += 3000)
        assert_int_equal(list_push(e, LIST_TAIL, bytes_make(text + at, 3000), limits), OK);
    store_put(s, 0, &list, e);
    for (int i = 0; i < 20000; i++) {
        char name[40];
        struct key k = key_of(bytes_make(name, (size_t)sprintf(name, "small:%d", i)));
        store_put(s, 0, &k, entry_try_new_string(k.name, bytes_make(text + i, pick(200))));
    }
    mem_free(text);
    return s;
}

static void test_load_on_threads(void **state)
{
    random_seed(&rng, 19);
    struct store *a = large_store();
    struct rdb_options options = save_options();
    struct buf file = {0};
    save_to_buf(a, &options, &file);
    assert_true(file.n > 8 * 1024 * 1024);
    for (unsigned threads = 1; threads <= 5; threads++) {
        struct rdb_load_result result;
        struct rdb_error err;
        struct store *b = new_store();
        assert_int_equal(load_with_threads(b, buf_bytes(&file), threads, &result, &err), OK);
        assert_int_equal(result.bytes, file.n);
        assert_int_equal(result.keys, 600 + 2 + 20000);
        assert_same_stores(a, b);
        assert_int_equal(load_with_threads(b, buf_bytes(&file), threads, &result, &err), E_EXISTS);
        store_destroy(b);
    }
    buf_deinit(&file);
    store_destroy(a);
}

/* The same verdict in the same words, however many threads read. */
static void test_damage_on_threads(void **state)
{
    random_seed(&rng, 23);
    struct store *a = large_store();
    struct rdb_options options = save_options();
    struct buf file = {0};
    save_to_buf(a, &options, &file);
    for (int i = 0; i < 12; i++) {
        size_t at = pick(file.n), n = i % 4 ? file.n : at;
        char was = file.p[at];
        file.p[at] ^= (char)(1 << pick(8));
        struct rdb_load_result result[2];
        struct rdb_error err[2];
        enum status st[2];
        for (int side = 0; side < 2; side++) {
            struct store *s = new_store();
            st[side] = load_with_threads(s, bytes_make(file.p, n), side ? 3 : 1, &result[side], &err[side]);
            store_destroy(s);
        }
        assert_int_not_equal(st[0], OK);
        assert_int_equal(st[1], st[0]);
        assert_string_equal(err[1].text, err[0].text);
        file.p[at] = was;
    }
    buf_deinit(&file);
    store_destroy(a);
}

static enum status drop_entry(void *ctx, struct rdb_key *key)
{
    entry_free(key->entry);
    return OK;
}

/* What the reader accepts as one key has the extent that was told, and no part of it has any. */
static void assert_extent(struct bytes key)
{
    static const struct rdb_handler handler = {.entry = drop_entry};
    struct rdb_read_options options = {limits, 16, false};
    struct rdb_batch batch = {(unsigned char *)(uintptr_t)key.p, 0, key.n, 0, 0};
    struct rdb_error err;
    uint64_t offset;
    size_t size = 0;
    assert_int_equal(rdb_batch_read(&batch, &handler, &options, &offset, &err), OK);
    for (int i = 0; i < 20; i++) {
        size_t n = i ? pick(key.n) : key.n;
        enum rdb_extent extent = rdb_extent(batch.window, n, &size);
        assert_int_equal(extent, n == key.n ? RDB_EXTENT_WHOLE : RDB_EXTENT_SHORT);
    }
    assert_int_equal(size, key.n);
}

static void test_extents(void **state)
{
    static const char *const old[] = {
        "00 016b 0176",
        "00 016b c0ff",
        "00 016b c1ffff",
        "00 016b c2ffffffff",
        "01 016b 02 0161 c005",
        "02 016b 01 0161",
        "03 016b 02 0161 fe 0162 03 '1.5'",
        "04 016b 01 0166 0176",
        "fc 0102030405060708 f8 05 f9 07 05 016b 01 0161 000000000000f03f",
        "fd 01020304 00 016b 4003 '123'",
        "0f 016b 00 00 00 00 00",
        "13 016b 00 00 00 00 00 00 00 00 00 00",
        "15 016b 00 00 00 00 00 00 00 00 00 00",
        "15 016b 00 00 05 00 00 00 00 00 00 01 0167 05 00 00 00 01 0163 0102030405060708 0102030405060708 00"};
    size_t size;
    random_seed(&rng, 29);
    for (size_t i = 0; i < sizeof old / sizeof old[0]; i++) {
        struct buf b = {0};
        hex_append(&b, old[i]);
        assert_extent(buf_bytes(&b));
        buf_deinit(&b);
    }
    for (int i = 0; i < 300; i++) {
        struct entry *e = random_entry(KEY);
        struct buf payload = {0}, key = {0};
        assert_int_equal(persist_dump(e, pick(2), &payload), OK);
        buf_append(&key, payload.p, 1);
        buf_append_char(&key, (char)KEY.n);
        buf_append_bytes(&key, KEY);
        buf_append(&key, payload.p + 1, payload.n - 11);
        assert_extent(buf_bytes(&key));
        buf_deinit(&payload);
        buf_deinit(&key);
        entry_free(e);
    }
    static const char *const others[] = {"fe00", "ff", "fa 0161 0162", "07 016b 00", "00 82", "00 016b c4", "20 016b"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        struct buf b = {0};
        hex_append(&b, others[i]);
        assert_int_equal(rdb_extent((unsigned char *)b.p, b.n, &size), RDB_EXTENT_OTHER);
        buf_deinit(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_load_on_threads),
        cmocka_unit_test(test_damage_on_threads),
        cmocka_unit_test(test_extents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
