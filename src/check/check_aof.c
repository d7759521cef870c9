/* check_aof.c: reads an AOF command by command, tells how far it is sound, and cuts off what is not, or what came after
 * a point in time. */
#include "check/check.h"
#include "check/check_internal.h"

#include "base/file.h"
#include "base/mem.h"
#include "persist/aof.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NUMBER_LINE = 128, MANIFEST_MAX = 16 << 20, NAME_SEEN = 8 };

enum found { FOUND_SOUND, FOUND_EMPTY, FOUND_CUT, FOUND_CUT_TO_TIME, FOUND_BAD };

struct check {
    bool fix;
    long to_time; /* 0: not asked for */
    char error[NUMBER_LINE + 100];
    long long at; /* where what is being read began */
    long long line;
    char number[NUMBER_LINE + 2]; /* of the last line that held one */
};

static void fail(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void fail(struct check *c, const char *fmt, ...)
{
    va_list ap;
    int n = snprintf(c->error, sizeof c->error, "0x%16llx: ", (unsigned long long)c->at);
    va_start(ap, fmt);
    vsnprintf(c->error + n, sizeof c->error - (size_t)n, fmt, ap);
    va_end(ap);
}

/* ---- commands ---------------------------------------------------------------------------------------------------- */

static bool line_end(struct check *c, const char *p)
{
    if (p[0] == '\r' && p[1] == '\n') {
        c->line++;
        return true;
    }
    fail(c, "Expected \\r\\n, got: %02x%02x", (unsigned char)p[0], (unsigned char)p[1]);
    return false;
}

static bool read_number(struct check *c, FILE *f, char prefix, long *v)
{
    char *end;
    c->at = ftello(f);
    if (!fgets(c->number, NUMBER_LINE, f)) return false;
    if (c->number[0] != prefix) {
        fail(c, "Expected prefix '%c', got: '%c'", prefix, c->number[0]);
        return false;
    }
    *v = strtol(c->number + 1, &end, 10);
    return line_end(c, end);
}

/* One argument; its beginning goes to name, whose end is marked. */
static bool read_argument(struct check *c, FILE *f, char name[NAME_SEEN])
{
    char chunk[16384], tail[2] = {0};
    long length;
    if (!read_number(c, f, '$', &length)) return false;
    if (length < 0 || length > LONG_MAX - 2) {
        fail(c, "Expected to read string of %ld bytes, which is not in the suitable range", length);
        return false;
    }
    c->at = ftello(f);
    long whole = length + 2, got = 0;
    memset(name, 0, NAME_SEEN);
    while (got < whole) {
        size_t want = whole - got < (long)sizeof chunk ? (size_t)(whole - got) : sizeof chunk,
               n = fread(chunk, 1, want, f);
        if (got == 0 && length < NAME_SEEN) memcpy(name, chunk, n < (size_t)length ? n : (size_t)length);
        for (size_t i = 0; i < n; i++)
            if (got + (long)i >= length) tail[got + (long)i - length] = chunk[i];
        got += (long)n;
        if (n == want) continue;
        fail(c, "Expected to read %ld bytes, got %ld bytes", whole, got);
        return false;
    }
    return line_end(c, tail);
}

static bool read_command(struct check *c, FILE *f, const char *file, int *multi)
{
    long argc;
    char name[NAME_SEEN];
    if (!read_number(c, f, '*', &argc)) return false;
    for (long i = 0; i < argc; i++) {
        if (!read_argument(c, f, name)) return false;
        if (i) continue;
        if (strcasecmp(name, "multi") == 0 && (*multi)++) {
            fail(c, "Unexpected MULTI in AOF %s", file);
            return false;
        }
        if (strcasecmp(name, "exec") == 0 && --*multi) {
            fail(c, "Unexpected EXEC in AOF %s", file);
            return false;
        }
    }
    return true;
}

/* ---- one file ---------------------------------------------------------------------------------------------------- */

/* True: the file was cut off here, where its time lies behind the one wanted. */
static bool read_annotation(struct check *c, FILE *f, const char *path, bool last)
{
    char text[AOF_LINE_MAX + 1], *end;
    c->at = ftello(f);
    if (!fgets(text, sizeof text, f)) {
        printf("Failed to read annotations from AOF %s, aborting...\n", path);
        exit(1);
    }
    if (!c->to_time || strncmp(text, "#TS:", 4) != 0) return false;
    errno = 0;
    long when = strtol(text + 4, &end, 10);
    if (errno != 0 || *end != '\r') {
        printf("Invalid timestamp annotation\n");
        exit(1);
    }
    if (when <= c->to_time) return false;
    if (c->at == 0) {
        printf("AOF %s has nothing before timestamp %ld, aborting...\n", path, c->to_time);
        exit(1);
    }
    if (!last) {
        printf("Failed to truncate AOF %s to timestamp %ld to offset %lld because it is not the last file.\n"
               "If you insist, please delete all files after this file according to the manifest file and delete the "
               "corresponding records in manifest file manually. Then re-run redis-check-aof.\n",
               path, c->to_time, c->at);
        exit(1);
    }
    if (ftruncate(fileno(f), (off_t)c->at) != 0) {
        printf("Failed to truncate AOF %s to timestamp %ld\n", path, c->to_time);
        exit(1);
    }
    return true;
}

static enum found cut_off(struct check *c, FILE *f, const char *name, bool last, long long size, long long good)
{
    char answer[2];
    if (!c->fix) return FOUND_BAD;
    if (!last) {
        printf("Failed to truncate AOF %s because it is not the last file\n", name);
        exit(1);
    }
    printf("This will shrink the AOF %s from %lld bytes, with %lld bytes, to %lld bytes\nContinue? [y/N]: ", name, size,
           size - good, good);
    fflush(stdout);
    if (!fgets(answer, sizeof answer, stdin) || (*answer != 'y' && *answer != 'Y')) {
        printf("Aborting...\n");
        exit(1);
    }
    if (ftruncate(fileno(f), (off_t)good) != 0) {
        printf("Failed to truncate AOF %s\n", name);
        exit(1);
    }
    return FOUND_CUT;
}

/* The commands from where f stands. */
static enum found check_commands(struct check *c, FILE *f, const char *name, const char *path, bool last,
                                 long long size)
{
    int multi = 0;
    long long good = ftello(f);
    for (;;) {
        if (!multi) good = ftello(f);
        int next = getc(f);
        if (next == EOF) {
            if (!ferror(f)) break;
            printf("Failed to read from AOF %s, aborting...\n", name);
            exit(1);
        }
        ungetc(next, f);
        if (next == '#') {
            if (read_annotation(c, f, path, last)) return FOUND_CUT_TO_TIME;
        } else if (next == '*') {
            if (!read_command(c, f, path, &multi)) break;
        } else {
            printf("AOF %s format error\n", name);
            break;
        }
    }
    if (feof(f) && multi && !*c->error) fail(c, "Reached EOF before reading EXEC for MULTI");
    if (*c->error) printf("%s\n", c->error);
    if (good == size && c->to_time) {
        printf("Truncate nothing in AOF %s to timestamp %ld\n", name, c->to_time);
        return FOUND_SOUND;
    }
    printf("AOF analyzed: filename=%s, size=%lld, ok_up_to=%lld, ok_up_to_line=%lld, diff=%lld\n", name, size, good,
           c->line, size - good);
    return good == size ? FOUND_SOUND : cut_off(c, f, name, last, size, good);
}

static void check_preamble(FILE *f, const char *name)
{
    uint64_t size;
    if (!check_rdb_fd(fileno(f), name, &size)) {
        printf("RDB preamble of AOF file is not sane, aborting.\n");
        exit(1);
    }
    printf("RDB preamble is OK, proceeding with AOF tail...\n");
    if (fseeko(f, (off_t)size, SEEK_SET) == 0) return;
    printf("Failed to fseek in AOF %s: %s\n", name, strerror(errno));
    exit(1);
}

static enum found check_file(struct check *c, const char *path, bool rdb, bool last)
{
    struct stat st;
    char *copy = mem_strdup(path);
    const char *name = basename(copy);
    FILE *f = fopen(path, "r+");
    if (!f) {
        printf("Cannot open file %s: %s, aborting...\n", path, strerror(errno));
        exit(1);
    }
    if (fstat(fileno(f), &st) != 0) {
        printf("Cannot stat file: %s, aborting...\n", name);
        exit(1);
    }
    c->error[0] = '\0';
    enum found found = FOUND_EMPTY;
    if (st.st_size) {
        if (rdb) check_preamble(f, name);
        found = check_commands(c, f, name, path, last, st.st_size);
    }
    fclose(f);
    if (found == FOUND_BAD) {
        printf("AOF %s is not valid. Use the --fix option to try fixing it.\n", name);
        exit(1);
    }
    mem_free(copy);
    return found;
}

static void tell(const struct check *c, enum found found, const char *kind, const char *name)
{
    switch (found) {
    case FOUND_SOUND: printf("%sAOF %s is valid\n", kind, name); break;
    case FOUND_EMPTY: printf("%sAOF %s is empty\n", kind, name); break;
    case FOUND_CUT_TO_TIME: printf("Successfully truncated AOF %s to timestamp %ld\n", name, c->to_time); break;
    default: printf("Successfully truncated AOF %s\n", name);
    }
}

/* ---- several files ----------------------------------------------------------------------------------------------- */

static bool begins_with(const char *path, const char *text)
{
    char start[8];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, start, strlen(text)) : -1;
    if (fd >= 0) close(fd);
    return n == (ssize_t)strlen(text) && memcmp(start, text, (size_t)n) == 0;
}

/* Lines of comments, then one that begins with "file". */
static bool is_manifest(const char *path)
{
    char text[AOF_LINE_MAX + 1];
    bool is = false;
    FILE *f = fopen(path, "r");
    if (!f) {
        printf("Cannot open file %s: %s\n", path, strerror(errno));
        exit(1);
    }
    while (fgets(text, sizeof text, f)) {
        if (*text == '#') continue;
        is = strncmp(text, "file", 4) == 0;
        break;
    }
    fclose(f);
    return is;
}

static void read_manifest(const char *path, struct aof_manifest *m)
{
    struct buf text = {0};
    struct aof_manifest_error err;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || !file_read_all(fd, MANIFEST_MAX, &text)) {
        printf("Cannot read file: %s\n", path);
        exit(1);
    }
    close(fd);
    if (aof_manifest_parse(m, buf_bytes(&text), &err) != OK) {
        printf("\n*** FATAL AOF MANIFEST FILE ERROR ***\n");
        if (err.line)
            printf("Reading the manifest file, at line %d\n>>> '%.*s'\n", err.line, (int)err.text.n, err.text.p);
        printf("%s\n", err.what);
        exit(1);
    }
    buf_deinit(&text);
}

static void check_manifest(struct check *c, const char *path)
{
    struct aof_manifest m;
    char *copy = mem_strdup(path);
    const char *directory = dirname(copy);
    bool increments = false;
    size_t history;
    printf("Start checking Multi Part AOF\n");
    read_manifest(path, &m);
    history = aof_manifest_count(&m, AOF_HISTORY);
    for (size_t i = 0, seen = 0; i < m.n; i++) {
        const struct aof_file *f = &m.files[i];
        struct buf full = {0};
        if (f->type == AOF_HISTORY) continue;
        buf_printf(&full, "%s/%s", directory, f->name);
        buf_append_char(&full, '\0');
        bool rdb = begins_with(full.p, "REDIS"), last = ++seen == m.n - history;
        if (f->type == AOF_BASE) printf("Start to check BASE AOF (%s format).\n", rdb ? "RDB" : "RESP");
        if (f->type == AOF_INCREMENT && !increments) printf("Start to check INCR files.\n");
        increments = increments || f->type == AOF_INCREMENT;
        tell(c, check_file(c, full.p, rdb, last), f->type == AOF_BASE ? "BASE " : "INCR ", f->name);
        buf_deinit(&full);
    }
    printf("All AOF files and manifest are valid\n");
    aof_manifest_deinit(&m);
    mem_free(copy);
}

static int usage(const char *name)
{
    printf("Usage: %s [--fix|--truncate-to-timestamp $timestamp] <file.manifest|file.aof>\n", name);
    return 1;
}

int check_aof_main(int argc, char **argv)
{
    struct check c = {.line = 1};
    char *end;
    if (argc == 3 && strcmp(argv[1], "--fix") == 0) {
        c.fix = true;
    } else if (argc == 4 && strcmp(argv[1], "--truncate-to-timestamp") == 0) {
        errno = 0;
        c.to_time = strtol(argv[2], &end, 10);
        if (errno != 0 || *end != '\0') {
            printf("Invalid timestamp, aborting...\n");
            return 1;
        }
    } else if (argc != 2) {
        return usage(argv[0]);
    }
    const char *path = argv[argc - 1];
    if (strlen(path) > PATH_MAX) {
        printf("Error: filepath is too long (exceeds PATH_MAX)\n");
        return 1;
    }
    if (is_manifest(path)) {
        check_manifest(&c, path);
        return 0;
    }
    char *copy = mem_strdup(path);
    printf("Start checking Old-Style AOF\n");
    tell(&c, check_file(&c, path, begins_with(path, "REDIS"), true), "", basename(copy));
    mem_free(copy);
    return 0;
}
