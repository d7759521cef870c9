/* The AOF's formats: manifests as redis-server 7.0.15 reads and writes them, files cut off at every byte, the stream
 * filtered in pieces of every size; and the writer against a real file that fills up, changes and is read back. */
#include "persist/aof.h"
#include "persist/aof_writer.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/random.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct random rng;

static int setup(void **state)
{
    (void)state;
    const char *text = getenv("COVEY_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 10) : (uint64_t)time(NULL);
    printf("seed %llu\n", (unsigned long long)seed);
    random_seed(&rng, seed);
    log_set_level(LOG_WARNING);
    return 0;
}

/* ---- the manifest ------------------------------------------------------------------------------------------------ */

static const char fresh[] =
    "file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n";

static void assert_prints(const struct aof_manifest *m, const char *text)
{
    struct buf out = {0};
    aof_manifest_print(m, &out);
    buf_append_char(&out, '\0');
    assert_string_equal(out.p, text);
    buf_deinit(&out);
}

static void test_manifest_round_trip(void **state)
{
    (void)state;
    struct aof_manifest m, copy;
    struct aof_manifest_error err;
    assert_int_equal(aof_manifest_parse(&m, bytes_of(fresh), &err), OK);
    assert_int_equal(m.n, 2);
    assert_string_equal(aof_manifest_base(&m)->name, "appendonly.aof.1.base.rdb");
    assert_int_equal(aof_manifest_last_increment(&m)->seq, 1);
    assert_prints(&m, fresh);
    /* A rewrite: the next increment, then the next base; what was is history. */
    aof_manifest_add(&m, "appendonly.aof.2.incr.aof", 2, AOF_INCREMENT);
    aof_manifest_retire(&m, true);
    aof_manifest_add(&m, "appendonly.aof.2.base.rdb", 2, AOF_BASE);
    assert_prints(&m, "file appendonly.aof.2.base.rdb seq 2 type b\nfile appendonly.aof.1.base.rdb seq 1 type h\n"
                      "file appendonly.aof.1.incr.aof seq 1 type h\nfile appendonly.aof.2.incr.aof seq 2 type i\n");
    aof_manifest_copy(&m, &copy);
    aof_manifest_drop_history(&copy);
    assert_prints(&copy, "file appendonly.aof.2.base.rdb seq 2 type b\nfile appendonly.aof.2.incr.aof seq 2 type i\n");
    assert_int_equal(copy.increment_seq, 2);
    aof_manifest_deinit(&m);
    aof_manifest_deinit(&copy);
}

static void test_manifest_grammar(void **state)
{
    (void)state;
    struct aof_manifest m;
    struct aof_manifest_error err;
    const char *text = "# a comment\nseq 3 TYPE incr new 1 File \"a \\\"b\\\"\\x01\"\n";
    assert_int_equal(aof_manifest_parse(&m, bytes_of(text), &err), OK);
    assert_int_equal(m.n, 1);
    assert_string_equal(m.files[0].name, "a \"b\"\x01");
    assert_prints(&m, "file \"a \\\"b\\\"\\x01\" seq 3 type i\n");
    aof_manifest_deinit(&m);
}

static void test_manifest_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *text, *what;
        int line;
    } cases[] = {
        {"", "Found an empty AOF manifest", 0},
        {"\n", "Invalid AOF manifest file format", 1},
        {"file a seq 1\n", "Invalid AOF manifest file format", 1},
        {"file a seq 1 type b x\n", "Invalid AOF manifest file format", 1},
        {"file a seq 0 type b\n", "Invalid AOF manifest file format", 1},
        {"file \"a seq 1 type b\n", "Invalid AOF manifest file format", 1},
        {"file a seq 1 type b", "The AOF manifest file contains too long line", 1},
        {"file d/a seq 1 type b\n", "File can't be a path, just a filename", 1},
        {"file a seq 1 type b\nfile b seq 2 type b\n", "Found duplicate base file information", 2},
        {"file a seq 2 type i\nfile b seq 2 type i\n", "Found a non-monotonic sequence number", 2},
        {"file a seq -1 type i\n", "Found a non-monotonic sequence number", 1},
        {"file a seq 1 type x\n", "Unknown AOF file type", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct aof_manifest m;
        struct aof_manifest_error err;
        assert_int_equal(aof_manifest_parse(&m, bytes_of(cases[i].text), &err), E_CORRUPT);
        assert_string_equal(err.what, cases[i].what);
        assert_int_equal(err.line, cases[i].line);
        assert_int_equal(m.n, 0);
    }
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static int file_of(struct bytes content)
{
    char path[] = "/tmp/covey-aof-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    assert_int_equal(write(fd, content.p, content.n), content.n);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

static void command(struct buf *b, const char *name, size_t argc, size_t longest)
{
    resp_request_begin(b, argc);
    resp_request_arg(b, bytes_of(name));
    for (size_t i = 1; i < argc; i++) {
        char text[512];
        size_t n = random_below(&rng, longest + 1);
        for (size_t k = 0; k < n; k++) text[k] = (char)random_below(&rng, 256);
        resp_request_arg(b, bytes_make(text, n));
    }
}

/* A file of commands and annotations; boundaries gets the offset behind each item, and 0. */
static size_t sample_file(struct buf *b, uint64_t boundaries[64])
{
    size_t n = 1;
    boundaries[0] = 0;
    for (int i = 0; i < 40; i++) {
        if (i % 7 == 3)
            buf_append_cstr(b, i % 2 ? "#TS:1700000000\r\n" : "# anything at all\n");
        else
            command(b, "SET", 3, 40);
        boundaries[n++] = b->n;
    }
    return n;
}

static void test_reader_at_every_cut(void **state)
{
    (void)state;
    struct buf b = {0};
    uint64_t at[64];
    size_t n = sample_file(&b, at);
    for (size_t cut = 0; cut <= b.n; cut++) {
        int fd = file_of(bytes_make(b.p, cut));
        struct aof_reader r;
        struct resp_request req = {0};
        enum aof_item item;
        size_t seen = 0;
        aof_reader_init(&r, fd, 0, (struct bytes){0});
        while ((item = aof_reader_next(&r, &req)) == AOF_COMMAND || item == AOF_ANNOTATION) {
            assert_int_equal(r.offset, at[seen]);
            assert_int_equal(r.next, at[++seen]);
        }
        bool whole = false;
        for (size_t i = 0; i < n; i++) whole = whole || at[i] == cut;
        assert_int_equal(item, whole ? AOF_END : AOF_TRUNCATED);
        assert_int_equal(r.offset, at[seen]);
        assert_true(at[seen] <= cut && (seen + 1 == n || at[seen + 1] > cut));
        aof_reader_deinit(&r);
        resp_request_deinit(&req);
        close(fd);
    }
    buf_deinit(&b);
}

static void test_reader_refuses(void **state)
{
    (void)state;
    static const char *const texts[] = {"SET a b\r\n",       "*0\r\n",       "*-1\r\n",          "*1\r\n+OK\r\n",
                                        "*1\r\n$-1\r\n\r\n", "*a\r\n$1\r\n", "\r\n*1\r\n$4\r\n", "*1\r\n$a\r\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct buf b = {0};
        command(&b, "SET", 3, 10);
        uint64_t good = b.n;
        buf_append_cstr(&b, texts[i]);
        command(&b, "SET", 3, 10);
        int fd = file_of(buf_bytes(&b));
        struct aof_reader r;
        struct resp_request req = {0};
        aof_reader_init(&r, fd, 0, (struct bytes){0});
        assert_int_equal(aof_reader_next(&r, &req), AOF_COMMAND);
        assert_int_equal(aof_reader_next(&r, &req), AOF_BAD);
        assert_int_equal(r.offset, good);
        aof_reader_deinit(&r);
        resp_request_deinit(&req);
        close(fd);
        buf_deinit(&b);
    }
}

static void test_annotations(void **state)
{
    (void)state;
    char id[41];
    uint64_t offset;
    int64_t when;
    assert_true(aof_parse_position(BYTES("#POS:0123456789abcdef0123456789abcdef01234567:42"), id, &offset));
    assert_string_equal(id, "0123456789abcdef0123456789abcdef01234567");
    assert_int_equal(offset, 42);
    assert_false(aof_parse_position(BYTES("#POS:0123456789abcdef0123456789abcdef0123456:42"), id, &offset));
    assert_false(aof_parse_position(BYTES("#POS:0123456789abcdef0123456789abcdef0123456z:42"), id, &offset));
    assert_false(aof_parse_position(BYTES("#POS:0123456789abcdef0123456789abcdef01234567:-2"), id, &offset));
    assert_false(aof_parse_position(BYTES("#POS:0123456789abcdef0123456789abcdef01234567:"), id, &offset));
    assert_false(aof_parse_position(BYTES("#TS:12"), id, &offset));
    assert_true(aof_parse_time(BYTES("#TS:1700000000"), &when));
    assert_int_equal(when, 1700000000);
    assert_false(aof_parse_time(BYTES("#TS:12x"), &when));
}

/* ---- the filter -------------------------------------------------------------------------------------------------- */

/* A stream of records; `kept` gets what belongs into a file. */
static void sample_stream(struct buf *stream, struct buf *kept, int records)
{
    static const char *const no_data[] = {"PING", "ping", "REPLCONF", "PUBLISH", "SPUBLISH"};
    static const char *const data[] = {"SET",    "set", "EVAL",  "LPUSH",          "PEXPIREAT",
                                       "SELECT", "X",   "PINGS", "XGROUPSETIDLONG"};
    for (int i = 0; i < records; i++) {
        bool multi = random_below(&rng, 6) == 0;
        size_t from = stream->n;
        if (multi) command(stream, "MULTI", 1, 0);
        buf_append(kept, stream->p + from, stream->n - from);
        for (size_t k = multi ? random_below(&rng, 4) + 1 : 1; k; k--) {
            from = stream->n;
            if (random_below(&rng, 3) == 0) {
                command(stream, no_data[random_below(&rng, 5)], random_below(&rng, 4) + 1, 60);
            } else {
                command(stream, data[random_below(&rng, 9)], random_below(&rng, 5) + 1, 300);
                buf_append(kept, stream->p + from, stream->n - from);
            }
        }
        from = stream->n;
        if (multi) command(stream, "EXEC", 1, 0);
        buf_append(kept, stream->p + from, stream->n - from);
    }
}

static void filter_piece(struct aof_filter *f, const char *p, size_t n, struct buf *out)
{
    for (size_t at = 0; at < n;) {
        if (!f->in_command) {
            size_t used = aof_filter_begin(f, p + at, n - at);
            if (f->in_command && f->kind == AOF_DATA) {
                if (f->head_n)
                    buf_append(out, f->head, f->head_n);
                else
                    buf_append(out, p + at, used);
            }
            at += used;
            if (!f->in_command) return;
        }
        size_t used = aof_filter_pass(f, p + at, n - at);
        if (f->kind == AOF_DATA) buf_append(out, p + at, used);
        at += used;
    }
}

static void test_filter_in_pieces(void **state)
{
    (void)state;
    for (int round = 0; round < 200; round++) {
        struct buf stream = {0}, kept = {0}, out = {0};
        struct aof_filter f = {0};
        sample_stream(&stream, &kept, 30);
        size_t longest = round < 40 ? (size_t)round + 1 : 5000;
        for (size_t at = 0; at < stream.n;) {
            size_t n = random_below(&rng, longest) + 1;
            if (n > stream.n - at) n = stream.n - at;
            /* In memory of its own, so that a look beyond it is seen by the sanitizer. */
            char *piece = mem_alloc(n);
            memcpy(piece, stream.p + at, n);
            filter_piece(&f, piece, n, &out);
            mem_free(piece);
            at += n;
        }
        assert_false(f.in_command || f.in_multi || f.head_n);
        assert_int_equal(out.n, kept.n);
        assert_memory_equal(out.p, kept.p, kept.n);
        buf_deinit(&stream);
        buf_deinit(&kept);
        buf_deinit(&out);
    }
}

/* ---- the writer -------------------------------------------------------------------------------------------------- */

struct world {
    struct change_log *log;
    struct aof_writer *writer;
    enum aof_fsync policy;
    _Atomic uint64_t durable;
    char path[64];
    int files;
    bool timestamps;
    _Atomic bool held;
};

static enum aof_fsync policy(void *ctx)
{
    return ((struct world *)ctx)->policy;
}

static bool timestamps(void *ctx)
{
    return ((struct world *)ctx)->timestamps;
}

static bool no(void *ctx)
{
    (void)ctx;
    return false;
}

static void durable(void *ctx, uint64_t offset)
{
    atomic_store(&((struct world *)ctx)->durable, offset);
}

static void hold(void *ctx, bool yes)
{
    atomic_store(&((struct world *)ctx)->held, yes);
}

static void latency(void *ctx, const char *event, uint64_t us)
{
    (void)ctx;
}

static void congested(void *ctx, bool yes)
{
    (void)ctx;
}

static char *file_name(struct world *w, int number)
{
    static char path[96];
    snprintf(path, sizeof path, "%s/%d", w->path, number);
    return path;
}

static int open_file(struct world *w)
{
    int fd = open(file_name(w, ++w->files), O_WRONLY | O_CREAT | O_APPEND | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    return fd;
}

static int next_file(void *ctx)
{
    assert_true(atomic_load(&((struct world *)ctx)->held));
    return open_file(ctx);
}

static void world_begin(struct world *w, enum aof_fsync how)
{
    *w = (struct world){.policy = how, .path = "/tmp/covey-aof-XXXXXX"};
    assert_non_null(mkdtemp(w->path));
    w->log = change_log_create(1 << 20);
    change_log_activate(w->log);
    w->writer = aof_writer_create((struct aof_writer_host){.ctx = w,
                                                           .log = w->log,
                                                           .policy = policy,
                                                           .timestamps = timestamps,
                                                           .spares_disk = no,
                                                           .durable = durable,
                                                           .hold = hold,
                                                           .latency = latency,
                                                           .next_file = next_file,
                                                           .congested = congested});
    assert_int_equal(aof_writer_start(w->writer, open_file(w), change_offset(w->log), 0, -1), OK);
}

static void world_end(struct world *w)
{
    for (int i = 1; i <= w->files; i++) unlink(file_name(w, i));
    assert_int_equal(rmdir(w->path), 0);
    aof_writer_destroy(w->writer);
    change_log_destroy(w->log);
}

/* The commands of a file without annotations, and the position that these give at its end. */
static void read_back(struct world *w, int number, struct buf *commands, char id[41], uint64_t *offset)
{
    int fd = open(file_name(w, number), O_RDONLY);
    assert_true(fd >= 0);
    struct aof_reader r;
    struct resp_request req = {0};
    enum aof_item item;
    aof_reader_init(&r, fd, 0, (struct bytes){0});
    while ((item = aof_reader_next(&r, &req)) == AOF_COMMAND || item == AOF_ANNOTATION) {
        if (item == AOF_COMMAND) {
            resp_request_append(commands, req.argv, req.argc);
            *offset += req.size;
        } else {
            (void)aof_parse_position(r.line, id, offset);
        }
    }
    assert_int_equal(item, AOF_END);
    aof_reader_deinit(&r);
    resp_request_deinit(&req);
    close(fd);
}

static void write_some(struct world *w, struct buf *kept, int records)
{
    for (int i = 0; i < records; i++) {
        struct buf stream = {0};
        sample_stream(&stream, kept, 1);
        change_append_raw(w->log, buf_bytes(&stream));
        buf_deinit(&stream);
        if (random_below(&rng, 3) == 0) aof_writer_flush(w->writer);
    }
}

static void assert_file(struct world *w, int number, const struct buf *kept)
{
    struct buf got = {0};
    char id[41] = "";
    uint64_t offset = 0;
    struct change_id mine;
    read_back(w, number, &got, id, &offset);
    assert_int_equal(got.n, kept->n);
    assert_memory_equal(got.p, kept->p, kept->n);
    if (number == w->files) {
        change_id_get(w->log, &mine);
        assert_string_equal(id, mine.id);
        assert_int_equal(offset, change_offset(w->log));
    }
    buf_deinit(&got);
}

static void test_writer(void **state)
{
    (void)state;
    for (int how = AOF_FSYNC_EVERYSEC; how <= AOF_FSYNC_NO; how++) {
        struct world w;
        struct buf kept = {0};
        world_begin(&w, (enum aof_fsync)how);
        w.timestamps = how == AOF_FSYNC_NO;
        write_some(&w, &kept, 3000);
        /* A value of many blocks, and a change of the history's name. */
        char *big = mem_calloc(1, 3 << 20);
        struct bytes argv[] = {BYTES("SET"), BYTES("big"), bytes_make(big, 3 << 20)};
        struct buf one = {0};
        resp_request_append(&one, argv, 3);
        change_append_raw(w.log, buf_bytes(&one));
        buf_append_bytes(&kept, buf_bytes(&one));
        buf_deinit(&one);
        mem_free(big);
        change_id_shift(w.log);
        write_some(&w, &kept, 500);
        assert_int_equal(aof_writer_sync(w.writer), OK);
        assert_int_equal(atomic_load(&w.durable), change_offset(w.log));
        assert_file(&w, 1, &kept);
        assert_int_equal(aof_writer_stop(w.writer), OK);
        buf_deinit(&kept);
        world_end(&w);
    }
}

static void test_writer_always_is_durable_soon(void **state)
{
    (void)state;
    struct world w;
    struct buf kept = {0};
    world_begin(&w, AOF_FSYNC_ALWAYS);
    for (int i = 0; i < 100; i++) {
        write_some(&w, &kept, 1);
        aof_writer_flush(w.writer);
        for (int ms = 0; atomic_load(&w.durable) < change_offset(w.log); ms++) {
            assert_true(ms < 5000);
            usleep(1000);
        }
    }
    assert_int_equal(aof_writer_stop(w.writer), OK);
    assert_file(&w, 1, &kept);
    buf_deinit(&kept);
    world_end(&w);
}

static void test_writer_changes_files(void **state)
{
    (void)state;
    struct world w;
    world_begin(&w, AOF_FSYNC_EVERYSEC);
    struct buf kept = {0};
    for (int number = 1; number <= 5; number++) {
        write_some(&w, &kept, 200);
        aof_writer_switch(w.writer, number == 3 ? 7 : 0);
        struct buf next = {0};
        if (number == 3) resp_request_cstr(&next, 2, "SELECT", "7"); /* the stream's database, which readers forget */
        write_some(&w, &next, 50);
        for (int ms = 0; aof_writer_switching(w.writer); ms++) {
            assert_true(ms < 5000);
            usleep(1000);
        }
        assert_int_equal(aof_writer_sync(w.writer), OK);
        assert_false(atomic_load(&w.held));
        assert_true(atomic_load(&w.durable) == change_offset(w.log)); /* who was held is answered */
        assert_file(&w, number, &kept);
        buf_deinit(&kept);
        kept = next;
    }
    assert_file(&w, 6, &kept);
    assert_int_equal(aof_writer_stop(w.writer), OK);
    buf_deinit(&kept);
    world_end(&w);
}

/* What the file says at its end: the history that others know, until they are told of a new one or it has data. */
static void test_writer_names_the_history_that_is_known(void **state)
{
    (void)state;
    struct world w;
    struct buf kept = {0}, got = {0};
    struct change_id before, id;
    char name[41] = "";
    uint64_t offset = 0;
    world_begin(&w, AOF_FSYNC_NO);
    write_some(&w, &kept, 20);
    for (int data = 0; data < 2; data++) {
        change_id_get(w.log, &before);
        change_id_shift(w.log);
        change_id_get(w.log, &id);
        for (int again = 0; again < 2; again++) assert_int_equal(aof_writer_sync(w.writer), OK);
        read_back(&w, 1, &got, name, &offset);
        assert_string_equal(name, before.id);
        assert_true(offset == change_offset(w.log));
        if (data)
            write_some(&w, &kept, 20);
        else
            change_id_told(w.log);
        assert_int_equal(aof_writer_sync(w.writer), OK);
        offset = 0;
        read_back(&w, 1, &got, name, &offset);
        assert_string_equal(name, id.id);
        assert_true(offset == change_offset(w.log));
    }
    assert_int_equal(aof_writer_stop(w.writer), OK);
    buf_deinit(&kept);
    buf_deinit(&got);
    world_end(&w);
}

/* The file cannot grow: what does not fit whole is taken back, and written when it fits. */
static void test_writer_on_a_full_disk(void **state)
{
    (void)state;
    struct world w;
    struct buf kept = {0};
    struct rlimit old, low;
    signal(SIGXFSZ, SIG_IGN);
    log_set_level(LOG_WARNING + 1);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    world_begin(&w, AOF_FSYNC_EVERYSEC);
    for (int round = 0; round < 20; round++) {
        struct aof_writer_facts facts;
        assert_int_equal(aof_writer_sync(w.writer), OK);
        aof_writer_facts(w.writer, &facts);
        low = old;
        low.rlim_cur = facts.size + random_below(&rng, 3000);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
        while (!aof_writer_error(w.writer)) write_some(&w, &kept, 5);
        assert_int_equal(aof_writer_error(w.writer), EFBIG);
        struct buf got = {0};
        char id[41];
        uint64_t offset = 0;
        read_back(&w, 1, &got, id, &offset); /* nothing torn in it */
        assert_true(got.n < kept.n);
        assert_memory_equal(got.p, kept.p, got.n);
        buf_deinit(&got);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    }
    assert_int_equal(aof_writer_sync(w.writer), OK);
    assert_int_equal(aof_writer_error(w.writer), 0);
    assert_file(&w, 1, &kept);
    assert_int_equal(aof_writer_stop(w.writer), OK);
    log_set_level(LOG_WARNING);
    buf_deinit(&kept);
    world_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_manifest_round_trip),
        cmocka_unit_test(test_manifest_grammar),
        cmocka_unit_test(test_manifest_refusals),
        cmocka_unit_test(test_reader_at_every_cut),
        cmocka_unit_test(test_reader_refuses),
        cmocka_unit_test(test_annotations),
        cmocka_unit_test(test_filter_in_pieces),
        cmocka_unit_test(test_writer),
        cmocka_unit_test(test_writer_always_is_durable_soon),
        cmocka_unit_test(test_writer_changes_files),
        cmocka_unit_test(test_writer_names_the_history_that_is_known),
        cmocka_unit_test(test_writer_on_a_full_disk),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
