/* aof_manifest.c: the list of an AOF's files.
 *
 *   file <name> seq <number> type <b|h|i>
 *
 * Words may be quoted; pairs of words that nobody knows are passed over; lines that begin with '#' are comments. */
#include "persist/aof.h"

#include "base/mem.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

void aof_manifest_deinit(struct aof_manifest *m)
{
    for (size_t i = 0; i < m->n; i++) mem_free(m->files[i].name);
    mem_free(m->files);
    *m = (struct aof_manifest){0};
}

static int rank(enum aof_type type)
{
    return type == AOF_BASE ? 0 : type == AOF_HISTORY ? 1 : 2;
}

void aof_manifest_add(struct aof_manifest *m, const char *name, int64_t seq, enum aof_type type)
{
    if (m->n == m->cap) {
        m->cap = m->cap ? 2 * m->cap : 8;
        m->files = mem_realloc(m->files, m->cap * sizeof *m->files);
    }
    size_t at = m->n++;
    for (; at > 0 && rank(m->files[at - 1].type) > rank(type); at--) m->files[at] = m->files[at - 1];
    m->files[at] = (struct aof_file){mem_strdup(name), seq, type};
    if (type == AOF_BASE) m->base_seq = seq;
    if (type == AOF_INCREMENT) m->increment_seq = seq;
}

void aof_manifest_copy(const struct aof_manifest *from, struct aof_manifest *to)
{
    *to = (struct aof_manifest){0};
    for (size_t i = 0; i < from->n; i++)
        aof_manifest_add(to, from->files[i].name, from->files[i].seq, from->files[i].type);
    to->base_seq = from->base_seq;
    to->increment_seq = from->increment_seq;
}

const struct aof_file *aof_manifest_base(const struct aof_manifest *m)
{
    return m->n && m->files[0].type == AOF_BASE ? &m->files[0] : NULL;
}

const struct aof_file *aof_manifest_last_increment(const struct aof_manifest *m)
{
    return m->n && m->files[m->n - 1].type == AOF_INCREMENT ? &m->files[m->n - 1] : NULL;
}

size_t aof_manifest_count(const struct aof_manifest *m, enum aof_type type)
{
    size_t n = 0;
    for (size_t i = 0; i < m->n; i++) n += m->files[i].type == type;
    return n;
}

void aof_manifest_retire(struct aof_manifest *m, bool keep_last)
{
    struct aof_manifest old = *m;
    *m = (struct aof_manifest){.base_seq = old.base_seq, .increment_seq = old.increment_seq};
    for (size_t i = 0; i < old.n; i++) {
        const struct aof_file *f = &old.files[i];
        bool kept = keep_last && i + 1 == old.n && f->type == AOF_INCREMENT;
        aof_manifest_add(m, f->name, f->seq, kept ? AOF_INCREMENT : AOF_HISTORY);
    }
    m->increment_seq = old.increment_seq;
    aof_manifest_deinit(&old);
}

void aof_manifest_drop_history(struct aof_manifest *m)
{
    size_t kept = 0;
    for (size_t i = 0; i < m->n; i++) {
        if (m->files[i].type == AOF_HISTORY)
            mem_free(m->files[i].name);
        else
            m->files[kept++] = m->files[i];
    }
    m->n = kept;
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

static bool needs_quotes(const char *name)
{
    for (const char *s = name; *s; s++)
        if (!isprint((unsigned char)*s) || isspace((unsigned char)*s) || strchr("\\\"'", *s)) return true;
    return *name == '\0';
}

static void print_quoted(const char *name, struct buf *out)
{
    buf_append_char(out, '"');
    for (const char *s = name; *s; s++) {
        static const char plain[] = "\n\r\t\a\b", letters[] = "nrtab";
        const char *hit = strchr(plain, *s);
        if (*s == '\\' || *s == '"')
            buf_printf(out, "\\%c", *s);
        else if (hit)
            buf_printf(out, "\\%c", letters[hit - plain]);
        else if (isprint((unsigned char)*s))
            buf_append_char(out, *s);
        else
            buf_printf(out, "\\x%02x", (unsigned)(unsigned char)*s);
    }
    buf_append_char(out, '"');
}

void aof_manifest_print(const struct aof_manifest *m, struct buf *out)
{
    for (size_t i = 0; i < m->n; i++) {
        buf_append_cstr(out, "file ");
        if (needs_quotes(m->files[i].name))
            print_quoted(m->files[i].name, out);
        else
            buf_append_cstr(out, m->files[i].name);
        buf_printf(out, " seq %lld type %c\n", (long long)m->files[i].seq, (char)m->files[i].type);
    }
}

bool aof_is_file_name(struct bytes name)
{
    return !memchr(name.p, '/', name.n) && !memchr(name.p, '\\', name.n);
}

static const char bad_format[] = "Invalid AOF manifest file format";

/* One line's words as a file; NULL, or what is wrong. */
static const char *take_line(struct aof_manifest *m, const struct resp_request *words)
{
    char *name = NULL;
    int64_t seq = 0;
    int type = 0;
    const char *wrong = NULL;
    for (size_t i = 0; i < words->argc && !wrong; i += 2) {
        char *value = bytes_dup_cstr(words->argv[i + 1]);
        if (bytes_ieq(words->argv[i], BYTES("file"))) {
            mem_free(name);
            name = mem_strdup(value);
            if (!aof_is_file_name(bytes_of(name))) wrong = "File can't be a path, just a filename";
        } else if (bytes_ieq(words->argv[i], BYTES("seq"))) {
            seq = atoll(value);
        } else if (bytes_ieq(words->argv[i], BYTES("type"))) {
            type = *value;
        }
        mem_free(value);
    }
    if (!wrong && (!name || seq == 0 || type == 0)) wrong = bad_format;
    const struct aof_file *last = aof_manifest_last_increment(m);
    if (!wrong && type == AOF_BASE && aof_manifest_base(m)) wrong = "Found duplicate base file information";
    if (!wrong && type == AOF_INCREMENT && seq <= (last ? last->seq : 0))
        wrong = "Found a non-monotonic sequence number";
    if (!wrong && type != AOF_BASE && type != AOF_INCREMENT && type != AOF_HISTORY) wrong = "Unknown AOF file type";
    if (!wrong) aof_manifest_add(m, name, seq, (enum aof_type)type);
    mem_free(name);
    return wrong;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static const char *parse_line(struct aof_manifest *m, struct bytes line, struct resp_request *words)
{
    while (line.n && is_blank(line.p[line.n - 1])) line.n--;
    while (line.n && is_blank(*line.p)) {
        line.p++;
        line.n--;
    }
    if (line.n == 0 || resp_split_line(line, words) != OK || words->argc < 6 || words->argc % 2) return bad_format;
    return take_line(m, words);
}

enum status aof_manifest_parse(struct aof_manifest *m, struct bytes text, struct aof_manifest_error *err)
{
    struct resp_request words = {0};
    *m = (struct aof_manifest){0};
    *err = (struct aof_manifest_error){0};
    if (text.n == 0) err->what = "Found an empty AOF manifest";
    for (size_t at = 0; at < text.n && !err->what;) {
        const char *end = memchr(text.p + at, '\n', text.n - at);
        size_t n = (end ? (size_t)(end - text.p) : text.n) - at;
        struct bytes line = bytes_make(text.p + at, n);
        const char *nul = memchr(line.p, '\0', line.n);
        if (nul) line.n = (size_t)(nul - line.p);
        at += n + 1;
        err->line++;
        err->text = line;
        if (n && *line.p == '#' && end) continue;
        if (!end || n >= AOF_LINE_MAX)
            err->what = "The AOF manifest file contains too long line";
        else
            err->what = parse_line(m, line, &words);
    }
    resp_request_deinit(&words);
    if (!err->what) return OK;
    if (text.n == 0) err->line = 0;
    aof_manifest_deinit(m);
    return E_CORRUPT;
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

static char *numbered(const char *name, int64_t seq, const char *suffix)
{
    struct buf b = {0};
    buf_printf(&b, "%s.%lld%s", name, (long long)seq, suffix);
    char *text = bytes_dup_cstr(buf_bytes(&b));
    buf_deinit(&b);
    return text;
}

char *aof_base_name(const char *name, int64_t seq, bool rdb)
{
    return numbered(name, seq, rdb ? ".base.rdb" : ".base.aof");
}

char *aof_increment_name(const char *name, int64_t seq)
{
    return numbered(name, seq, ".incr.aof");
}
