/* Any bytes, whole and in pieces, as requests and as replies of memcached's protocol: the pieces must not change what
 * is read.  The first byte of the input chooses the pieces. */
#include "base/mem.h"
#include "pool/memcached.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)           \
    do {                           \
        if (!(condition)) abort(); \
    } while (0)

static size_t more(uint32_t *pieces, size_t there, size_t all)
{
    *pieces = *pieces * 1664525 + 1013904223;
    there += (*pieces >> 16) % 17 + 1;
    return there < all ? there : all;
}

/* A copy of exactly its size, so that a byte too many is seen. */
static char *exact(struct bytes b)
{
    char *copy = mem_alloc(b.n ? b.n : 1);
    if (b.n > 0) memcpy(copy, b.p, b.n);
    return copy;
}

static void note(struct buf *log, const struct mc_request *r)
{
    buf_printf(log, "%d %d %zu", r->command, r->noreply, r->size);
    for (size_t i = 0; i < r->keys_n; i++) {
        CHECK(r->keys[i].n > 0 && r->keys[i].n <= MC_KEY_MAX);
        buf_append_char(log, ' ');
        buf_append_bytes(log, r->keys[i]);
    }
    buf_append_char(log, ';');
}

static void read_requests(struct bytes all, uint32_t pieces, struct buf *log)
{
    struct mc_request_parser p = {.value_max = 1000};
    struct mc_request r = {0};
    size_t begin = 0, there = pieces ? 0 : all.n;
    for (;;) {
        char *copy = exact(bytes_make(all.p + begin, there - begin));
        enum status st = mc_parse_request(&p, bytes_make(copy, there - begin), &r);
        if (st == OK) {
            CHECK(r.size > 0 && r.size <= there - begin);
            note(log, &r);
            begin += r.size;
        }
        mem_free(copy);
        if (st == E_CORRUPT) buf_append_cstr(log, p.error);
        if (st == E_CORRUPT || (st == E_AGAIN && there == all.n)) break;
        if (st == E_AGAIN) there = more(&pieces, there, all.n);
    }
    mc_request_deinit(&r);
}

static void read_replies(struct bytes all, uint32_t pieces, struct buf *log)
{
    struct mc_reply_parser p = {0};
    size_t begin = 0, there = pieces ? 0 : all.n;
    for (;;) {
        char *copy = exact(bytes_make(all.p + begin, there - begin));
        enum status st = mc_scan_reply(&p, bytes_make(copy, there - begin));
        mem_free(copy);
        if (st == OK) {
            CHECK(p.size > 0 && p.size <= there - begin && p.values_size < p.size);
            buf_printf(log, "%zu %zu %d;", p.size, p.values_size, p.kind);
            begin += p.size;
        }
        if (st == E_CORRUPT) buf_append_char(log, '!');
        if (st == E_CORRUPT || (st == E_AGAIN && there == all.n)) break;
        if (st == E_AGAIN) there = more(&pieces, there, all.n);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    struct bytes all = bytes_make(data + 1, size - 1);
    for (int replies = 0; replies < 2; replies++) {
        struct buf whole = {0}, parts = {0};
        void (*read)(struct bytes, uint32_t, struct buf *) = replies ? read_replies : read_requests;
        read(all, 0, &whole);
        read(all, (uint32_t)data[0] + 1, &parts);
        CHECK(bytes_eq(buf_bytes(&whole), buf_bytes(&parts)));
        buf_deinit(&whole);
        buf_deinit(&parts);
    }
    return 0;
}
