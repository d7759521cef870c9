/* Any bytes, whole and in pieces, as requests and as replies: the pieces must not change what is read.
 * The first two bytes of the input choose the pieces and the mode. */
#include "base/mem.h"
#include "resp/resp.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)           \
    do {                           \
        if (!(condition)) abort(); \
    } while (0)

/* Appends what the requests in `all` are; chunks of pseudo-random size, every one in memory of exactly its size. */
static void read_requests(struct bytes all, uint32_t pieces, bool unauthenticated, struct buf *log)
{
    struct resp_parser p;
    resp_parser_init(&p, RESP_BULK_MAX_DEFAULT);
    p.unauthenticated = unauthenticated;
    size_t begin = 0, there = pieces ? 0 : all.n;
    enum status st = E_AGAIN;
    for (;;) {
        struct resp_request r = {0};
        char *copy = mem_alloc(there - begin ? there - begin : 1);
        if (there > begin) memcpy(copy, all.p + begin, there - begin);
        st = resp_parse_request(&p, bytes_make(copy, there - begin), &r);
        if (st == OK) {
            CHECK(r.argc > 0 && r.size > 0 && r.size <= there - begin);
            for (size_t i = 0; i < r.argc; i++) {
                buf_append(log, &r.argv[i].n, sizeof r.argv[i].n);
                buf_append_bytes(log, r.argv[i]);
            }
            buf_append_char(log, ';');
        }
        if (st != E_CORRUPT) begin += r.size;
        resp_request_deinit(&r);
        mem_free(copy);
        if (st == E_CORRUPT || (st == E_AGAIN && there == all.n)) break;
        if (st == E_AGAIN) {
            pieces = pieces * 1664525 + 1013904223;
            there += (pieces >> 16) % 23 + 1;
            if (there > all.n) there = all.n;
        }
    }
    if (st == E_CORRUPT) buf_append_cstr(log, p.error);
    resp_parser_deinit(&p);
}

static enum status read_reply(struct bytes all, uint32_t pieces, size_t *size)
{
    struct resp_reply_parser p = {0};
    struct resp_value *v = NULL;
    size_t there = pieces ? 0 : all.n;
    for (;;) {
        enum status st = resp_parse_reply(&p, bytes_make(all.p, there), &v);
        resp_value_free(v);
        if (st == OK) CHECK(v && p.size > 0 && p.size <= there);
        *size = p.size;
        if (st != E_AGAIN || there == all.n) return st;
        pieces = pieces * 1664525 + 1013904223;
        there += (pieces >> 16) % 23 + 1;
        if (there > all.n) there = all.n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    bool unauthenticated = data[0] & 1;
    uint32_t pieces = (uint32_t)data[1] + 1;
    struct bytes all = bytes_make(data + 2, size - 2);
    struct buf whole = {0}, parts = {0};
    read_requests(all, 0, unauthenticated, &whole);
    read_requests(all, pieces, unauthenticated, &parts);
    CHECK(bytes_eq(buf_bytes(&whole), buf_bytes(&parts)));
    buf_deinit(&whole);
    buf_deinit(&parts);
    size_t size_whole, size_parts;
    enum status st = read_reply(all, 0, &size_whole);
    CHECK(read_reply(all, pieces, &size_parts) == st && size_whole == size_parts);
    return 0;
}
