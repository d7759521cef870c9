/* file.c: the users as lines of text: the ACL file, and the lines of redis.conf. */
#include "access/access.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum { FILE_MAX = 512 * 1024 * 1024 };

void access_line(const struct acl *a, const struct acl_user *u, struct buf *out)
{
    buf_append_cstr(out, "user ");
    buf_append_bytes(out, acl_user_name(u));
    buf_append_char(out, ' ');
    acl_user_describe(a, u, out);
}

void access_lines(const struct acl *a, struct buf *out)
{
    size_t n;
    const struct acl_user **all = acl_sorted(a, &n);
    for (size_t i = 0; i < n; i++) {
        access_line(a, all[i], out);
        buf_append_char(out, '\n');
    }
    mem_free(all);
}

/* ---- reading ---- */

struct line {
    const char *path;
    int number;
    const struct bytes *rules;
    struct buf *errors;
};

static void rule_failed(void *ctx, size_t rule, const char *why, bool unknown_name)
{
    struct line *l = ctx;
    buf_printf(l->errors, "%s:%d: ", l->path, l->number);
    if (unknown_name) {
        buf_append_cstr(l->errors, "Error in applying operation '");
        buf_append_bytes(l->errors, l->rules[rule]);
        buf_append_cstr(l->errors, "': ");
    }
    buf_printf(l->errors, "%s. ", why);
}

/* The words between single spaces, empty ones too; mem_free(). */
static struct bytes *split(struct bytes line, size_t *n)
{
    size_t cap = 1;
    for (size_t i = 0; i < line.n; i++) cap += line.p[i] == ' ';
    struct bytes *words = mem_alloc(cap * sizeof *words);
    *n = 0;
    for (size_t at = 0;;) {
        const char *space = line.n > at ? memchr(line.p + at, ' ', line.n - at) : NULL;
        size_t end = space ? (size_t)(space - line.p) : line.n;
        words[(*n)++] = bytes_make(line.p + at, end - at);
        if (!space) return words;
        at = end + 1;
    }
}

static struct bytes trim(struct bytes b)
{
    while (b.n && strchr(" \t\r\n", b.p[0]) && b.p[0]) b = bytes_make(b.p + 1, b.n - 1);
    while (b.n && strchr(" \t\r\n", b.p[b.n - 1]) && b.p[b.n - 1]) b.n--;
    return b;
}

/* A user of that name with no rules yet; false: there is one, but for the default user's first line. */
static bool begin_user(struct acl *a, struct bytes name, bool *default_seen)
{
    size_t failed;
    bool is_default = bytes_eq(name, BYTES("default"));
    if (is_default ? *default_seen : acl_find(a, name) != NULL) return false;
    if (is_default) {
        *default_seen = true;
        acl_blank_default(a);
        return true;
    }
    if (acl_set_user(a, name, NULL, 0, &failed)) mem_abort(0);
    return true;
}

static void parse_line(struct acl *a, struct line *l, struct bytes text, bool *default_seen)
{
    size_t n, joined, failed;
    struct bytes *words = split(text, &n);
    if (!bytes_eq(words[0], BYTES("user")) || n < 2) {
        buf_printf(l->errors, "%s:%d should start with user keyword followed by the username. ", l->path, l->number);
    } else if (!acl_name_ok(words[1])) {
        buf_printf(l->errors, "'%s:%d: username '%.*s' contains invalid characters. ", l->path, l->number,
                   (int)words[1].n, words[1].p);
    } else if (!begin_user(a, words[1], default_seen)) {
        buf_printf(l->errors, "WARNING: Duplicate user '%.*s' found on line %d. ", (int)words[1].n, words[1].p,
                   l->number);
    } else {
        struct bytes *rules = acl_join_selectors(words + 2, n - 2, &joined, &failed);
        l->rules = rules;
        if (!rules)
            buf_printf(l->errors, "%s:%d: Unmatched parenthesis in selector definition.", l->path, l->number);
        else if (acl_set_user(a, words[1], rules, joined, &failed))
            acl_try_rules(a, rules, joined, rule_failed, l); /* tells all of them, not only the first */
        mem_free(rules);
    }
    mem_free(words);
}

bool access_parse_file(struct acl *a, const char *path, struct bytes text, struct buf *errors)
{
    struct line l = {.path = path, .errors = errors};
    bool default_seen = false;
    for (size_t from = 0; from < text.n;) {
        const char *end = memchr(text.p + from, '\n', text.n - from);
        size_t n = end ? (size_t)(end - (text.p + from)) : text.n - from;
        struct bytes line = trim(bytes_make(text.p + from, n));
        l.number++;
        from += n + 1;
        if (line.n) parse_line(a, &l, line, &default_seen);
    }
    if (errors->n == 0) return true;
    buf_append_cstr(errors, "WARNING: ACL errors detected, no change to the previously active ACL rules was performed");
    return false;
}

bool access_read_file(struct acl *a, const char *path, struct buf *errors)
{
    struct buf text = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0 && file_read_all(fd, FILE_MAX, &text);
    if (!ok) buf_printf(errors, "Error loading ACLs, opening file '%s': %s", path, strerror(errno));
    if (fd >= 0) close(fd);
    if (ok) ok = access_parse_file(a, path, buf_bytes(&text), errors);
    buf_deinit(&text);
    return ok;
}

/* ---- writing ---- */

bool access_write_file(const struct acl *a, const char *path)
{
    struct buf text = {0};
    access_lines(a, &text);
    bool ok = file_replace(path, buf_bytes(&text));
    if (!ok) log_warning("Writing the ACL file '%s': %s", path, strerror(errno));
    buf_deinit(&text);
    return ok;
}
