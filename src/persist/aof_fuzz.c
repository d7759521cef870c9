/* Fuzzes what reads an AOF: the manifest (its text printed again is the same manifest), a file's commands, and the
 * filter of the stream (that the cut does not matter is a unit test). */
#include "persist/aof.h"

#include "base/mem.h"

#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void manifest(struct bytes text)
{
    struct aof_manifest m, again;
    struct aof_manifest_error err;
    if (aof_manifest_parse(&m, text, &err) != OK) return;
    struct buf out = {0}, out2 = {0};
    aof_manifest_print(&m, &out);
    if (aof_manifest_parse(&again, buf_bytes(&out), &err) == OK) {
        aof_manifest_print(&again, &out2);
        if (!bytes_eq(buf_bytes(&out), buf_bytes(&out2))) abort();
        aof_manifest_deinit(&again);
    }
    aof_manifest_deinit(&m);
    buf_deinit(&out);
    buf_deinit(&out2);
}

static void file(struct bytes content)
{
    struct aof_reader r;
    struct resp_request req = {0};
    int ends[2];
    if (pipe(ends) != 0) return;
    close(ends[1]);
    aof_reader_init(&r, ends[0], 0, content);
    for (;;) {
        enum aof_item item = aof_reader_next(&r, &req);
        if (r.offset > content.n || r.next > content.n) abort();
        if (item != AOF_COMMAND && item != AOF_ANNOTATION) break;
        if (r.next <= r.offset) abort();
    }
    aof_reader_deinit(&r);
    resp_request_deinit(&req);
    close(ends[0]);
}

static void filter(struct bytes stream, size_t step, struct buf *out)
{
    struct aof_filter f = {0};
    for (size_t at = 0; at < stream.n;) {
        size_t n = stream.n - at < step ? stream.n - at : step, done = 0;
        while (done < n) {
            const char *p = stream.p + at + done;
            if (!f.in_command) {
                size_t used = aof_filter_begin(&f, p, n - done);
                if (used > n - done) abort();
                if (f.in_command && f.kind == AOF_DATA)
                    buf_append(out, f.head_n ? f.head : p, f.head_n ? f.head_n : used);
                done += used;
                if (!f.in_command) break;
                continue;
            }
            size_t used = aof_filter_pass(&f, p, n - done);
            if (used > n - done) abort();
            if (f.kind == AOF_DATA) buf_append(out, p, used);
            done += used;
        }
        at += n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes in = bytes_make(data, size);
    struct buf whole = {0};
    manifest(in);
    file(in);
    filter(in, size + 1, &whole);
    if (size) {
        struct buf cut = {0};
        filter(in, 1 + data[0] % 7, &cut);
        buf_deinit(&cut);
    }
    buf_deinit(&whole);
    return 0;
}
