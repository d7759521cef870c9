/* config_table.c: the table of options and the reading and printing of values. */
#include "server/config_table.h"

#include "base/mem.h"
#include "base/number.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const struct option rows[CFG_COUNT] = {
#define OPTION(id, name, alias, type, def, min, max, flags, names, summary) \
    {name, alias, TYPE_##type, flags, def, min, max, names, summary},
#include "server/options.def"
#undef OPTION
};

const struct option *option_row(enum config_id id)
{
    return &rows[id];
}

bool option_find(struct bytes name, enum config_id *id, bool *by_alias)
{
    for (int i = 0; i < CFG_COUNT; i++) {
        bool alias = rows[i].alias && bytes_ieq(name, bytes_of(rows[i].alias));
        if (!alias && !bytes_ieq(name, bytes_of(rows[i].name))) continue;
        *id = (enum config_id)i;
        if (by_alias) *by_alias = alias;
        return true;
    }
    return false;
}

/* ---- words ---- */

bool words_each(struct bytes text, bool (*each)(void *ctx, struct bytes word), void *ctx)
{
    size_t i = 0;
    while (i < text.n) {
        while (i < text.n && text.p[i] == ' ') i++;
        size_t from = i;
        while (i < text.n && text.p[i] != ' ') i++;
        if (i > from && !each(ctx, bytes_make(text.p + from, i - from))) return false;
    }
    return true;
}

struct split {
    struct bytes *out;
    size_t n, cap;
};

static bool split_word(void *ctx, struct bytes word)
{
    struct split *s = ctx;
    if (s->n < s->cap) s->out[s->n] = word;
    s->n++;
    return true;
}

size_t words_split(struct bytes text, struct bytes *out, size_t cap)
{
    struct split s = {out, 0, cap};
    words_each(text, split_word, &s);
    return s.n;
}

static void append_word(struct buf *out, struct bytes word)
{
    if (out->n) buf_append_char(out, ' ');
    buf_append_bytes(out, word);
}

/* ---- values that are numbers ---- */

static bool fail(struct buf *reason, const char *text)
{
    buf_append_cstr(reason, text);
    return false;
}

static bool in_range(const struct option *o, int64_t v, struct buf *reason)
{
    if (v >= o->min && v <= o->max) return true;
    buf_printf(reason,
               o->type == TYPE_OCTAL ? "argument must be between %llo and %llo inclusive"
                                     : "argument must be between %lld and %lld inclusive",
               (long long)o->min, (long long)o->max);
    return false;
}

static bool parse_bool(struct bytes b, int64_t *out, struct buf *reason)
{
    *out = bytes_ieq(b, BYTES("yes"));
    return *out || bytes_ieq(b, BYTES("no")) || fail(reason, "argument must be 'yes' or 'no'");
}

static bool parse_octal(const struct option *o, struct bytes b, int64_t *out, struct buf *reason)
{
    *out = 0;
    bool ok = b.n > 0 && b.n < 20;
    for (size_t i = 0; ok && i < b.n; i++) {
        ok = b.p[i] >= '0' && b.p[i] <= '7';
        *out = *out * 8 + (b.p[i] - '0');
    }
    return ok ? in_range(o, *out, reason) : fail(reason, "argument couldn't be parsed as an octal number");
}

/* As parse_memory(), but also "" (nothing) and leading zeros, which redis-server takes here. */
static bool parse_size(struct bytes b, int64_t *out)
{
    *out = 0;
    while (b.n > 1 && b.p[0] == '0' && b.p[1] >= '0' && b.p[1] <= '9') b = bytes_make(b.p + 1, b.n - 1);
    return b.n == 0 || (parse_memory(b, out) && *out >= 0);
}

static bool parse_share(const struct option *o, struct bytes b, int64_t *out, struct buf *reason)
{
    if (b.n > 1 && b.p[b.n - 1] == '%') {
        if (!parse_i64(bytes_make(b.p, b.n - 1), out) || *out < 0)
            return fail(reason, "argument must be a memory or percent value");
        if (*out > 100) return fail(reason, "percentage argument must be less or equal to 100");
        *out = -*out;
        return true;
    }
    if (!parse_size(b, out)) return fail(reason, "argument must be a memory or percent value");
    return in_range(o, *out, reason);
}

/* The i-th of "a|b|c"; n is 0 behind the last. */
static struct bytes name_at(const char *names, int i)
{
    while (i-- > 0) {
        names = strchr(names, '|');
        if (!names) return bytes_make("", 0);
        names++;
    }
    const char *end = strchr(names, '|');
    return bytes_make(names, end ? (size_t)(end - names) : strlen(names));
}

static int name_find(const char *names, struct bytes b)
{
    for (int i = 0; name_at(names, i).n; i++)
        if (bytes_ieq(b, name_at(names, i))) return i;
    return -1;
}

static bool fail_names(const struct option *o, struct buf *reason)
{
    buf_append_cstr(reason, "argument(s) must be one of the following: ");
    for (int i = 0; name_at(o->names, i).n; i++) {
        if (i) buf_append_cstr(reason, ", ");
        buf_append_bytes(reason, name_at(o->names, i));
    }
    return false;
}

static bool parse_enum(const struct option *o, struct bytes b, int64_t *out, struct buf *reason)
{
    *out = name_find(o->names, b);
    return *out >= 0 || fail_names(o, reason);
}

static bool parse_words(const struct option *o, const struct bytes *argv, size_t argc, int64_t *out, struct buf *reason)
{
    *out = 0;
    for (size_t i = 0; i < argc; i++) {
        int at = name_find(o->names, argv[i]);
        if (at < 0) return fail_names(o, reason);
        if (at > 0) *out |= 1 << (at - 1);
    }
    if (argc == 0) return fail_names(o, reason);
    if ((*out & (SHUTDOWN_SAVE | SHUTDOWN_NOSAVE)) == (SHUTDOWN_SAVE | SHUTDOWN_NOSAVE))
        return fail(reason, "shutdown options SAVE and NOSAVE can't be used simultaneously");
    return true;
}

/* In the order of their bits; the first ten (but for 'n') are what 'A' stands for. */
static const char notify_letters[] = "g$lshzxetdnKEm";
enum { NOTIFY_A = 0x3ff, NOTIFY_LIST_BITS = 11 };

static bool parse_notify(struct bytes b, int64_t *out, struct buf *reason)
{
    *out = 0;
    for (size_t i = 0; i < b.n; i++) {
        const char *at = b.p[i] ? strchr(notify_letters, b.p[i]) : NULL;
        if (b.p[i] == 'A')
            *out |= NOTIFY_A;
        else if (at)
            *out |= 1 << (at - notify_letters);
        else
            return fail(reason, "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.");
    }
    return true;
}

static void print_notify(int64_t v, struct buf *out)
{
    bool all = (v & NOTIFY_A) == NOTIFY_A;
    if (all) buf_append_char(out, 'A');
    for (int i = 0; notify_letters[i]; i++)
        if (v & 1 << i && !(all && i < NOTIFY_LIST_BITS)) buf_append_char(out, notify_letters[i]);
}

static void print_words(const struct option *o, int64_t v, struct buf *out)
{
    size_t from = out->n;
    for (int i = 1; name_at(o->names, i).n; i++) {
        if (!(v & 1 << (i - 1))) continue;
        if (out->n > from) buf_append_char(out, ' ');
        buf_append_bytes(out, name_at(o->names, i));
    }
    if (out->n == from) buf_append_bytes(out, name_at(o->names, 0));
}

void option_print(const struct option *o, int64_t v, struct buf *out)
{
    switch (o->type) {
    case TYPE_BOOL: buf_append_cstr(out, v ? "yes" : "no"); break;
    case TYPE_OCTAL: buf_printf(out, "%llo", (long long)v); break;
    case TYPE_ENUM: buf_append_bytes(out, name_at(o->names, (int)v)); break;
    case TYPE_WORDS: print_words(o, v, out); break;
    case TYPE_NOTIFY: print_notify(v, out); break;
    case TYPE_SHARE:
        if (v < 0)
            buf_printf(out, "%lld%%", -(long long)v);
        else
            buf_printf(out, "%lld", (long long)v);
        break;
    default: buf_printf(out, "%lld", (long long)v);
    }
}

/* ---- values that are texts ---- */

static bool check_filename(const struct option *o, struct bytes b, struct buf *reason)
{
    const char *kind = strcmp(o->name, "appenddirname") == 0 ? "dirname" : "filename";
    if (b.n == 0 && strcmp(o->name, "dbfilename") != 0) {
        buf_printf(reason, "%s can't be empty", o->name);
        return false;
    }
    if (b.n && memchr(b.p, '/', b.n)) {
        buf_printf(reason, "%s can't be a path, just a %s", o->name, kind);
        return false;
    }
    return true;
}

static bool check_hostname(struct bytes b, struct buf *reason)
{
    if (b.n >= 256) return fail(reason, "Hostnames must be less than 256 characters");
    for (size_t i = 0; i < b.n; i++) {
        char ch = b.p[i];
        bool ok =
            (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') || ch == '-' || ch == '.';
        if (!ok) return fail(reason, "Hostnames may only contain alphanumeric characters, hyphens or dots");
    }
    return true;
}

static bool check_title(struct bytes b, struct buf *reason)
{
    static const char *const known[] = {"{title}",    "{listen-addr}", "{server-mode}", "{port}",
                                        "{tls-port}", "{unixsocket}",  "{config-file}"};
    for (size_t i = 0; i < b.n;) {
        if (b.p[i] != '{') {
            i++;
            continue;
        }
        size_t k = 0, count = sizeof known / sizeof known[0];
        while (k < count && (b.n - i < strlen(known[k]) || memcmp(b.p + i, known[k], strlen(known[k])) != 0)) k++;
        if (k == count) return fail(reason, "template format is invalid or contains unknown variables");
        i += strlen(known[k]);
    }
    return true;
}

static bool check_directory(struct bytes b, struct buf *reason)
{
    char *path = bytes_dup_cstr(b);
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && access(path, X_OK) == 0;
    if (!ok) buf_append_cstr(reason, strerror(errno));
    if (fd >= 0) close(fd);
    mem_free(path);
    return ok;
}

static bool parse_bind(const struct bytes *argv, size_t argc, struct buf *out, struct buf *reason)
{
    if (argc > 16) return fail(reason, "Too many bind addresses specified.");
    for (size_t i = 0; i < argc; i++) append_word(out, argv[i]);
    return true;
}

static bool parse_replicaof(const struct bytes *argv, size_t argc, struct buf *out, struct buf *reason)
{
    int64_t port;
    if (argc != 2) return fail(reason, "wrong number of arguments");
    if (bytes_ieq(argv[0], BYTES("no")) && bytes_ieq(argv[1], BYTES("one"))) return true;
    if (!parse_i64(argv[1], &port) || port < 0 || port > 65535) return fail(reason, "Invalid master port");
    append_word(out, argv[0]);
    append_word(out, argv[1]);
    return true;
}

static bool parse_save(const struct bytes *argv, size_t argc, struct bytes now, struct buf *out, struct buf *reason)
{
    if (argc == 0 || (argc == 1 && argv[0].n == 0)) return true;
    if (argc % 2) return fail(reason, "Invalid save parameters");
    for (size_t i = 0; i < argc; i += 2) {
        int64_t seconds, changes;
        if (!parse_i64(argv[i], &seconds) || !parse_i64(argv[i + 1], &changes) || seconds < 1 || changes < 0)
            return fail(reason, "Invalid save parameters");
    }
    if (words_split(now, NULL, 0) / 2 + argc / 2 > SAVE_POINTS_MAX) return fail(reason, "Too many save parameters");
    buf_append_bytes(out, now);
    for (size_t i = 0; i < argc; i++) append_word(out, argv[i]);
    return true;
}

static int output_class_find(struct bytes b)
{
    if (bytes_ieq(b, BYTES("normal"))) return OUTPUT_NORMAL;
    if (bytes_ieq(b, BYTES("slave")) || bytes_ieq(b, BYTES("replica"))) return OUTPUT_REPLICA;
    if (bytes_ieq(b, BYTES("pubsub"))) return OUTPUT_PUBSUB;
    return -1;
}

static bool parse_limit(const struct bytes *argv, struct output_limit *out)
{
    int64_t hard, soft, seconds;
    if (!parse_memory(argv[0], &hard) || !parse_memory(argv[1], &soft) || !parse_i64(argv[2], &seconds)) return false;
    if (hard < 0 || soft < 0 || seconds < 0) return false;
    *out = (struct output_limit){(uint64_t)hard, (uint64_t)soft, seconds};
    return true;
}

void decode_output_limits(struct bytes text, struct output_limit out[OUTPUT_CLASSES])
{
    struct bytes words[OUTPUT_CLASSES * 4];
    size_t n = words_split(text, words, OUTPUT_CLASSES * 4);
    memset(out, 0, OUTPUT_CLASSES * sizeof *out);
    for (size_t i = 0; i + 4 <= n && i < OUTPUT_CLASSES * 4; i += 4) {
        int cls = output_class_find(words[i]);
        if (cls >= 0) (void)parse_limit(words + i + 1, &out[cls]);
    }
}

static bool parse_output_limits(const struct bytes *argv, size_t argc, struct bytes now, struct buf *out,
                                struct buf *reason)
{
    static const char *const names[OUTPUT_CLASSES] = {"normal", "slave", "pubsub"};
    struct output_limit limits[OUTPUT_CLASSES];
    decode_output_limits(now, limits);
    if (argc == 1 && argv[0].n == 0) argc = 0; /* changes nothing */
    if (argc % 4) return fail(reason, "Wrong number of arguments in buffer limit configuration.");
    for (size_t i = 0; i < argc; i += 4) {
        int cls = output_class_find(argv[i]);
        if (cls < 0) return fail(reason, "Invalid client class specified in buffer limit configuration.");
        if (!parse_limit(argv + i + 1, &limits[cls]))
            return fail(reason, "Error in hard, soft or soft_seconds setting in buffer limit configuration.");
    }
    for (int i = 0; i < OUTPUT_CLASSES; i++)
        buf_printf(out, "%s%s %llu %llu %lld", i ? " " : "", names[i], (unsigned long long)limits[i].hard,
                   (unsigned long long)limits[i].soft, (long long)limits[i].soft_seconds);
    return true;
}

int decode_save_points(struct bytes text, struct save_point out[SAVE_POINTS_MAX])
{
    struct bytes words[SAVE_POINTS_MAX * 2];
    size_t n = words_split(text, words, SAVE_POINTS_MAX * 2) / 2;
    for (size_t i = 0; i < n; i++)
        if (!parse_i64(words[2 * i], &out[i].seconds) || !parse_i64(words[2 * i + 1], &out[i].changes)) return (int)i;
    return (int)n;
}

static bool parse_oom_values(const struct bytes *argv, size_t argc, struct buf *out, struct buf *reason)
{
    if (argc != 3) return fail(reason, "wrong number of arguments");
    for (size_t i = 0; i < argc; i++) {
        int64_t v;
        if (!parse_i64(argv[i], &v) || v < -2000 || v > 2000)
            return fail(reason, "Invalid oom-score-adj-values, elements must be between -2000 and 2000.");
        append_word(out, argv[i]);
    }
    return true;
}

static bool parse_percentiles(const struct bytes *argv, size_t argc, struct buf *out, struct buf *reason)
{
    if (argc == 1 && argv[0].n == 0) return true;
    for (size_t i = 0; i < argc; i++) {
        double v;
        if (!parse_double(argv[i], &v)) return fail(reason, "Invalid latency-tracking-info-percentiles parameters");
        if (!(v >= 0 && v <= 100))
            return fail(reason, "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]");
        char text[32];
        int n = snprintf(text, sizeof text, "%.10g", v);
        append_word(out, bytes_make(text, (size_t)n));
    }
    return true;
}

static bool parse_text(const struct option *o, const struct bytes *argv, size_t argc, struct bytes now, struct buf *out,
                       struct buf *reason)
{
    switch (o->type) {
    case TYPE_BIND: return parse_bind(argv, argc, out, reason);
    case TYPE_REPLICAOF: return parse_replicaof(argv, argc, out, reason);
    case TYPE_SAVE: return parse_save(argv, argc, now, out, reason);
    case TYPE_OUTPUT_LIMIT: return parse_output_limits(argv, argc, now, out, reason);
    case TYPE_OOM_VALUES: return parse_oom_values(argv, argc, out, reason);
    case TYPE_PERCENTILES: return parse_percentiles(argv, argc, out, reason);
    default: break;
    }
    if (o->type == TYPE_FILENAME && !check_filename(o, argv[0], reason)) return false;
    if (o->type == TYPE_HOSTNAME && !check_hostname(argv[0], reason)) return false;
    if (o->type == TYPE_TITLE && !check_title(argv[0], reason)) return false;
    if (o->type == TYPE_DIRECTORY && !check_directory(argv[0], reason)) return false;
    buf_append_bytes(out, argv[0]);
    return true;
}

static bool parse_number(const struct option *o, const struct bytes *argv, size_t argc, int64_t *out,
                         struct buf *reason)
{
    switch (o->type) {
    case TYPE_BOOL: return parse_bool(argv[0], out, reason);
    case TYPE_OCTAL: return parse_octal(o, argv[0], out, reason);
    case TYPE_SHARE: return parse_share(o, argv[0], out, reason);
    case TYPE_ENUM: return parse_enum(o, argv[0], out, reason);
    case TYPE_WORDS: return parse_words(o, argv, argc, out, reason);
    case TYPE_NOTIFY: return parse_notify(argv[0], out, reason);
    case TYPE_MEMORY:
        if (!parse_size(argv[0], out)) return fail(reason, "argument must be a memory value");
        return in_range(o, *out, reason);
    default:
        if (!parse_i64(argv[0], out)) return fail(reason, "argument couldn't be parsed into an integer");
        return in_range(o, *out, reason);
    }
}

enum { ARGS_MAX = 64 };

bool option_parse(const struct option *o, const struct bytes *argv, size_t argc, struct bytes now,
                  struct option_value *out, struct buf *reason)
{
    struct bytes words[ARGS_MAX] = {{0}};
    *out = (struct option_value){0};
    /* "a b" in one argument is the same as a b for directives that take several. */
    if (o->flags & MULTI && argc == 1 && argv[0].n) {
        argc = words_split(argv[0], words, ARGS_MAX);
        if (argc > ARGS_MAX) return fail(reason, "wrong number of arguments");
        argv = words;
    }
    if (!(o->flags & MULTI) && argc != 1) return fail(reason, "wrong number of arguments");
    if (!option_is_text(o)) {
        if (argc == 0) return fail(reason, "wrong number of arguments");
        if (!parse_number(o, argv, argc, &out->num, reason)) return false;
        if (strcmp(o->name, "hz") == 0) out->num = out->num < 1 ? 1 : out->num > 500 ? 500 : out->num;
        return true;
    }
    if (!parse_text(o, argv, argc, now, &out->text, reason)) {
        buf_deinit(&out->text);
        return false;
    }
    out->num = out->text.n > 0;
    return true;
}
