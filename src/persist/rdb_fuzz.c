/* Arbitrary bytes as an RDB file and as a RESTORE payload: refused, or taken over so that they can be written again.
 * The first byte chooses; checksums are made right, so that the search is for what lies behind them. */
#include "persist/persist.h"
#include "persist/rdb_batch.h"
#include "persist/rdb_extent.h"

#include "base/crc.h"
#include "base/mem.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct input {
    struct bytes left;
    size_t piece;
};

static enum status input_read(void *ctx, void *p, size_t n, size_t *got)
{
    struct input *in = ctx;
    *got = n < in->piece ? n : in->piece;
    if (*got > in->left.n) *got = in->left.n;
    if (*got) memcpy(p, in->left.p, *got);
    in->left.p += *got;
    in->left.n -= *got;
    return OK;
}

static enum status ignore_bytes(void *ctx, const void *p, size_t n)
{
    return OK;
}

static void fuzz_file(struct bytes b, bool known_size)
{
    struct input in = {b, known_size ? SIZE_MAX : 7};
    struct store *s = store_create(16, (struct store_hooks){0});
    struct rdb_extras extras = {0};
    struct rdb_load_options load = {.limits = store_limits_default, .ignore_checksum = true, .replace = true};
    struct rdb_load_result result;
    struct rdb_error err;
    struct rdb_source source = {&in, input_read, known_size ? b.n : 0};
    enum status st = rdb_load(s, source, &load, &extras, NULL, &result, &err);
    if ((st == OK) != (err.text[0] == 0)) abort();
    struct rdb_options options = {.compress = true, .checksum = true, .extras = &extras};
    struct rdb_snapshot *sn =
        rdb_snapshot_begin(s, store_cut_begin(s), (struct rdb_sink){NULL, ignore_bytes}, &options, NULL);
    while (rdb_snapshot_step(sn, 4096) == E_AGAIN) {
    }
    rdb_snapshot_end(sn);
    rdb_extras_deinit(&extras);
    store_destroy(s);
}

/* What was accepted once is accepted again, and is the same then. */
static void fuzz_payload(struct bytes body)
{
    struct buf payload = {0}, again = {0}, third = {0};
    struct entry *e, *f;
    buf_append_bytes(&payload, body);
    buf_append(&payload, "\x0a\0", 2);
    uint64_t crc = crc64(0, payload.p, payload.n);
    buf_append(&payload, &crc, 8);
    if (persist_restore(buf_bytes(&payload), BYTES("key"), &store_limits_default, &e) == OK) {
        if (persist_dump(e, true, &again) != OK) abort();
        if (persist_restore(buf_bytes(&again), BYTES("key"), &store_limits_default, &f) != OK) abort();
        if (persist_dump(f, true, &third) != OK) abort();
        if (again.n != third.n) abort();
        entry_free(e);
        entry_free(f);
    }
    buf_deinit(&payload);
    buf_deinit(&again);
    buf_deinit(&third);
}

static enum status drop_entry(void *ctx, struct rdb_key *key)
{
    entry_free(key->entry);
    return OK;
}

/* A key is accepted only where its extent says so. */
static void fuzz_extent(struct bytes b)
{
    static const struct rdb_handler handler = {.entry = drop_entry};
    struct rdb_read_options options = {&store_limits_default, 16, true};
    struct rdb_batch batch = {(unsigned char *)(uintptr_t)b.p, 0, b.n, 0, 0};
    struct rdb_error err;
    uint64_t offset;
    size_t at = 0, size;
    while (at < b.n && rdb_extent(batch.window + at, b.n - at, &size) == RDB_EXTENT_WHOLE) at += size;
    batch.to = at;
    enum status st = rdb_batch_read(&batch, &handler, &options, &offset, &err);
    if (st == OK ? offset != at : st == E_CLOSED) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0) return 0;
    struct bytes rest = bytes_make(data + 1, n - 1);
    if (data[0] & 4)
        fuzz_extent(rest);
    else if (data[0] & 1)
        fuzz_payload(rest);
    else
        fuzz_file(rest, data[0] & 2);
    return 0;
}
