/* check_rdb.c: reads an RDB from end to end and tells how far it is sound. */
#include "check/check.h"
#include "check/check_internal.h"

#include "base/clock.h"
#include "persist/persist.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

struct tally {
    struct rdb_reader *reader;
    unsigned long keys, expires, expired;
    int64_t now_ms;
};

static void info(const struct tally *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void info(const struct tally *t, const char *fmt, ...)
{
    va_list ap;
    printf("[offset %llu] ", t->reader ? (unsigned long long)rdb_reader_bytes(t->reader) : 0);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

static enum status on_entry(void *ctx, struct rdb_key *key)
{
    struct tally *t = ctx;
    t->keys++;
    if (entry_has_ttl(key->entry)) {
        t->expires++;
        if (entry_expire_at(key->entry) < t->now_ms) t->expired++;
    }
    entry_free(key->entry);
    return OK;
}

static enum status on_aux(void *ctx, struct bytes name, struct bytes value)
{
    info(ctx, "AUX FIELD %.*s = '%.*s'", (int)name.n, name.p, (int)value.n, value.n ? value.p : "");
    return OK;
}

static enum status on_select(void *ctx, int db)
{
    info(ctx, "Selecting DB ID %d", db);
    return OK;
}

static const char *file_type_name(int type)
{
    static const char *const names[] = {"string",
                                        "list-linked",
                                        "set-hashtable",
                                        "zset-v1",
                                        "hash-hashtable",
                                        "zset-v2",
                                        "module-pre-release",
                                        "module-value",
                                        "",
                                        "hash-zipmap",
                                        "list-ziplist",
                                        "set-intset",
                                        "zset-ziplist",
                                        "hash-ziplist",
                                        "quicklist",
                                        "stream",
                                        "hash-listpack",
                                        "zset-listpack",
                                        "quicklist-v2"};
    return type < (int)(sizeof names / sizeof *names) ? names[type] : "unknown";
}

static void totals(struct tally *t)
{
    struct rdb_place at;
    rdb_reader_place(t->reader, &at);
    t->keys += at.in_entry && !at.wrong_type; /* one whose value is damaged was read, too */
    printf("[info] %lu keys read\n[info] %lu expires\n[info] %lu already expired\n", t->keys, t->expires, t->expired);
}

static void failed(const struct tally *t, enum status st, const struct rdb_error *err)
{
    struct rdb_place at;
    rdb_reader_place(t->reader, &at);
    printf("--- RDB ERROR DETECTED ---\n");
    if (st == E_CLOSED)
        info(t, "Unexpected EOF reading RDB file");
    else if (at.wrong_magic)
        info(t, "Wrong signature trying to load DB from file");
    else if (at.wrong_version)
        info(t, "Can't handle RDB format version %d", at.version);
    else if (at.wrong_type)
        info(t, "Invalid object type: %d", at.type);
    else if (at.wrong_checksum)
        info(t, "RDB CRC error");
    else
        info(t, "%s", err->text);
    printf("[additional info] While doing: %s\n", at.doing);
    if (at.key.n) printf("[additional info] Reading key '%.*s'\n", (int)(at.key.n < 1024 ? at.key.n : 1024), at.key.p);
    bool in_key = at.in_entry && !at.wrong_type;
    if (in_key || t->keys == 0)
        printf("[additional info] Reading type %d (%s)\n", in_key ? at.type : 0, file_type_name(in_key ? at.type : 0));
}

bool check_rdb_fd(int fd, const char *name, uint64_t *size)
{
    struct tally t = {.now_ms = clock_wall_ms()};
    struct stat sb;
    struct rdb_error err;
    struct rdb_place at;
    struct rdb_handler handler = {.ctx = &t, .entry = on_entry, .aux = on_aux, .select = on_select};
    struct rdb_read_options options = {.limits = &store_limits_default, .databases = INT_MAX};
    bool regular = fstat(fd, &sb) == 0 && S_ISREG(sb.st_mode);
    info(&t, "Checking RDB file %s", name);
    t.reader =
        rdb_reader_new((struct rdb_source){&fd, rdb_read_fd, regular ? (uint64_t)sb.st_size : 0}, &handler, &options);
    enum status st = rdb_reader_run(t.reader, &err);
    rdb_reader_place(t.reader, &at);
    if (st != OK)
        failed(&t, st, &err);
    else if (at.unchecked)
        info(&t, "RDB file was saved with checksum disabled: no check performed.");
    else if (at.version >= 5)
        info(&t, "Checksum OK");
    if (st == OK) info(&t, "\\o/ RDB looks OK! \\o/");
    totals(&t);
    *size = rdb_reader_bytes(t.reader);
    rdb_reader_free(t.reader);
    fflush(stdout);
    return st == OK;
}

int check_rdb_main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "Usage: %s <rdb-file-name>\n", argv[0]);
        return 1;
    }
    uint64_t size;
    int fd = open(argv[1], O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        printf("[offset 0] Checking RDB file %s\n", argv[1]);
        fprintf(stderr, "Cannot open file %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    bool ok = check_rdb_fd(fd, argv[1], &size);
    close(fd);
    return ok ? 0 : 1;
}
