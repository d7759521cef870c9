/* config_file.c: reading a redis.conf and the command line. */
#include "server/config_table.h"

#include "acl/acl.h"
#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <unistd.h>

enum { INCLUDE_DEPTH_MAX = 16, FILE_MAX = 64 * 1024 * 1024 };

struct loader {
    struct config *config;
    struct buf *warnings;
    struct buf error;
    int depth;
    bool save_seen; /* the first save directive forgets the defaults, further ones add to it */
};

/* Where a directive stands. */
struct place {
    const char *file; /* NULL: the command line */
    int line;
    struct bytes text;
};

static enum status fatal(struct loader *l, const struct place *at, const char *reason)
{
    buf_append_cstr(&l->error, "\n*** FATAL CONFIG FILE ERROR (Covey) ***\n");
    if (at && at->file)
        buf_printf(&l->error, "Reading the configuration file %s, at line %d\n", at->file, at->line);
    else if (at)
        buf_append_cstr(&l->error, "Reading the command line\n");
    if (at) {
        buf_append_cstr(&l->error, ">>> '");
        buf_append_bytes(&l->error, at->text);
        buf_append_cstr(&l->error, "'\n");
    }
    buf_printf(&l->error, "%s\n", reason);
    return E_INVALID;
}

static void warn(struct loader *l, const struct place *at, struct bytes name, const char *what)
{
    buf_append_cstr(l->warnings, "directive '");
    buf_append_bytes(l->warnings, name);
    buf_printf(l->warnings, "' %s", what);
    if (at->file) buf_printf(l->warnings, " (%s, line %d)", at->file, at->line);
    buf_append_char(l->warnings, '\n');
}

static enum status load_file(struct loader *l, const char *path);

static enum status load_include(struct loader *l, const struct place *at, struct bytes pattern)
{
    if (l->depth >= INCLUDE_DEPTH_MAX) return fatal(l, at, "too many levels of include");
    char *path = bytes_dup_cstr(pattern);
    enum status st = OK;
    glob_t found;
    if (strpbrk(path, "*?[") && glob(path, 0, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc && st == OK; i++) st = load_file(l, found.gl_pathv[i]);
        globfree(&found);
    } else if (!strpbrk(path, "*?[")) {
        st = load_file(l, path);
    }
    mem_free(path);
    return st;
}

static const char bad_directive[] = "Bad directive or wrong number of arguments";

static enum status load_rename(struct loader *l, const struct place *at, const struct bytes *argv, size_t argc)
{
    const char *why = argc == 3 ? config_keep_rename(l->config, argv[1], argv[2]) : bad_directive;
    return why ? fatal(l, at, why) : OK;
}

/* The rules are applied when the node is put together; what can be said now is said with the line. */
static enum status load_user(struct loader *l, const struct place *at, const struct bytes *argv, size_t argc)
{
    size_t joined, unmatched;
    struct buf reason = {0};
    if (argc < 2) return fatal(l, at, bad_directive);
    struct bytes *rules = acl_join_selectors(argv + 2, argc - 2, &joined, &unmatched);
    buf_append_cstr(&reason, "Error in user declaration '");
    if (!rules) {
        buf_append_bytes(&reason, argv[2 + unmatched]);
        buf_append_cstr(&reason, "': Unmatched parenthesis in selector definition");
    } else if (!config_keep_user(l->config, argv + 1, argc - 1)) {
        buf_append_bytes(&reason, argv[1]);
        buf_append_cstr(&reason, "': Duplicate user found. A user can only be defined once in config files");
    } else {
        reason.n = 0;
    }
    mem_free(rules);
    bool ok = reason.n == 0;
    buf_append_char(&reason, '\0');
    enum status st = ok ? OK : fatal(l, at, reason.p);
    buf_deinit(&reason);
    return st;
}

/* Directives that are no options.  E_NOT_FOUND: it is none of these. */
static enum status load_special(struct loader *l, const struct place *at, const struct bytes *argv, size_t argc)
{
    if (bytes_ieq(argv[0], BYTES("include")) && argc == 2) return load_include(l, at, argv[1]);
    if (bytes_ieq(argv[0], BYTES("loadmodule")) && argc >= 2) return fatal(l, at, "modules are not supported");
    if (bytes_ieq(argv[0], BYTES("rename-command"))) return load_rename(l, at, argv, argc);
    if (bytes_ieq(argv[0], BYTES("user"))) return load_user(l, at, argv, argc);
    return E_NOT_FOUND;
}

static enum status load_directive(struct loader *l, const struct place *at, const struct bytes *argv, size_t argc)
{
    enum config_id id;
    enum status st = load_special(l, at, argv, argc);
    if (st != E_NOT_FOUND) return st;
    if (!option_find(argv[0], &id, NULL)) {
        warn(l, at, argv[0], "is not known and is ignored");
        return OK;
    }
    if (argc == 1) return fatal(l, at, "wrong number of arguments");
    struct buf reason = {0};
    bool first = id == CFG_SAVE && (!l->save_seen || (argc == 2 && argv[1].n == 0));
    bool ok = config_give(l->config, id, argv + 1, argc - 1, first, &reason);
    if (id == CFG_SAVE) l->save_seen = true;
    buf_append_char(&reason, '\0');
    st = ok ? OK : fatal(l, at, reason.p);
    buf_deinit(&reason);
    return st;
}

/* ---- texts ---- */

static struct bytes trim(struct bytes b)
{
    while (b.n && strchr(" \t\r\n", b.p[0]) && b.p[0]) b = bytes_make(b.p + 1, b.n - 1);
    while (b.n && strchr(" \t\r\n", b.p[b.n - 1]) && b.p[b.n - 1]) b.n--;
    return b;
}

static enum status load_line(struct loader *l, const struct place *at)
{
    struct resp_request words = {0};
    enum status st = OK;
    if (resp_split_line(at->text, &words) != OK)
        st = fatal(l, at, "Unbalanced quotes in configuration line");
    else if (words.argc > 0)
        st = load_directive(l, at, words.argv, words.argc);
    resp_request_deinit(&words);
    return st;
}

static enum status load_text(struct loader *l, const char *file, struct bytes text)
{
    struct place at = {.file = file};
    size_t from = 0;
    while (from < text.n) {
        const char *end = memchr(text.p + from, '\n', text.n - from);
        size_t n = end ? (size_t)(end - (text.p + from)) : text.n - from;
        at.text = trim(bytes_make(text.p + from, n));
        at.line++;
        from += n + 1;
        if (at.text.n == 0 || at.text.p[0] == '#') continue;
        enum status st = load_line(l, &at);
        if (st != OK) return st;
    }
    return OK;
}

static enum status load_file(struct loader *l, const char *path)
{
    struct buf text = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || !file_read_all(fd, FILE_MAX, &text)) {
        buf_printf(&l->error, "Fatal error, can't open config file '%s': %s\n", path, strerror(errno));
        if (fd >= 0) close(fd);
        buf_deinit(&text);
        return E_INVALID;
    }
    close(fd);
    l->depth++;
    enum status st = load_text(l, path, buf_bytes(&text));
    l->depth--;
    buf_deinit(&text);
    return st;
}

static enum status load_stdin(struct loader *l)
{
    struct buf text = {0};
    enum status st = OK;
    if (!file_read_all(STDIN_FILENO, FILE_MAX, &text)) st = fatal(l, NULL, strerror(errno));
    if (st == OK) st = load_text(l, "(standard input)", buf_bytes(&text));
    buf_deinit(&text);
    return st;
}

/* ---- the command line ---- */

static bool is_flag(const char *arg)
{
    return arg[0] == '-' && arg[1] == '-';
}

static enum status load_flag_words(struct loader *l, const struct bytes *argv, size_t argc)
{
    struct buf text = {0};
    buf_append_bytes(&text, argv[0]);
    for (size_t i = 1; i < argc; i++) {
        buf_append_char(&text, ' ');
        resp_append_quoted(&text, argv[i]);
    }
    struct place at = {.text = buf_bytes(&text)};
    enum status st = load_directive(l, &at, argv, argc);
    buf_deinit(&text);
    return st;
}

/* One "--name value ..." from args[i] on; returns the index behind it.  "--name value" may also be a single argument.
 * The first value may itself begin with two dashes; but "--save" right before another flag means an empty one. */
static enum status load_flag(struct loader *l, int argc, char **args, int *i)
{
    struct resp_request first = {0};
    struct buf line = {0};
    buf_append_cstr(&line, args[*i] + 2);
    struct place at = {.text = buf_bytes(&line)};
    enum status st = OK;
    struct bytes *words = mem_alloc((size_t)(argc - *i + 64) * sizeof *words);
    size_t n = 0;
    (*i)++;
    if (resp_split_line(at.text, &first) != OK) {
        st = fatal(l, &at, "Unbalanced quotes in configuration line");
    } else if (first.argc > 64) {
        st = fatal(l, &at, "wrong number of arguments");
    } else if (first.argc > 0) {
        for (; n < first.argc; n++) words[n] = first.argv[n];
        bool more = *i < argc, next_is_flag = more && is_flag(args[*i]);
        if (n == 1 && bytes_ieq(words[0], BYTES("save")) && (!more || next_is_flag))
            words[n++] = bytes_make("", 0);
        else if (n == 1 && more)
            words[n++] = bytes_of(args[(*i)++]);
        while (*i < argc && !is_flag(args[*i])) words[n++] = bytes_of(args[(*i)++]);
        st = load_flag_words(l, words, n);
    }
    mem_free(words);
    resp_request_deinit(&first);
    buf_deinit(&line);
    return st;
}

static enum status load_arguments(struct loader *l, int argc, char **argv)
{
    int i = 0;
    if (argc > 0 && argv[0][0] != '-') {
        /* Made absolute now: `dir` changes what a relative name means. */
        struct buf path = {0};
        char cwd[4096];
        if (argv[0][0] != '/' && getcwd(cwd, sizeof cwd)) buf_printf(&path, "%s/", cwd);
        buf_append_cstr(&path, argv[0]);
        buf_append_char(&path, '\0');
        config_set_file(l->config, path.p);
        enum status st = load_file(l, path.p);
        buf_deinit(&path);
        if (st != OK) return st;
        i++;
    }
    bool from_stdin = i < argc && strcmp(argv[argc - 1], "-") == 0;
    if (from_stdin)
        argc--;
    else if (i < argc && strcmp(argv[i], "-") == 0)
        from_stdin = ++i;
    if (from_stdin) {
        enum status st = load_stdin(l);
        if (st != OK) return st;
    }
    while (i < argc) {
        struct place at = {.text = bytes_of(argv[i])};
        if (!is_flag(argv[i])) return fatal(l, &at, "Bad directive or wrong number of arguments");
        enum status st = load_flag(l, argc, argv, &i);
        if (st != OK) return st;
    }
    return OK;
}

/* ---- after loading ---- */

static enum status check_together(struct loader *l)
{
    struct config *c = l->config;
    if (config_bool(c, CFG_CLUSTER_ENABLED) && !config_text_is_empty(c, CFG_REPLICAOF))
        return fatal(l, NULL, "replicaof directive not allowed in cluster mode");
    for (int id = 0; id < CFG_COUNT; id++) {
        const struct option *o = option_row((enum config_id)id);
        if (o->flags & NEEDLESS && !config_is_default(c, (enum config_id)id))
            buf_printf(l->warnings,
                       "directive '%s' is accepted and has nothing to do here: see docs/compatibility.md\n", o->name);
    }
    return OK;
}

enum status config_load(struct config *c, int argc, char **argv, char **error, struct buf *warnings)
{
    struct loader l = {.config = c, .warnings = warnings};
    enum status st = argc > 1 ? load_arguments(&l, argc - 1, argv + 1) : OK;
    if (st == OK) st = check_together(&l);
    buf_append_char(&l.error, '\0');
    if (st != OK)
        *error = l.error.p;
    else
        buf_deinit(&l.error);
    return st;
}
