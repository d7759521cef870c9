/* arguments.c: reads the notation of arguments.def and replies it in COMMAND DOCS' form. */
#include "commands/arguments.h"

#include <string.h>

enum { FLAG_OPTIONAL = 1, FLAG_MULTIPLE = 2, FLAG_MULTIPLE_TOKEN = 4, DEPTH_MAX = 8 };

const char *command_arguments(enum command_id id)
{
    static const char *const texts[CMD_ID_COUNT] = {
#define ARGUMENTS(id, text) [CMD_ID_##id] = text,
#include "commands/arguments.def"
#undef ARGUMENTS
    };
    return texts[id];
}

struct argument {
    struct bytes name, type, token, key_spec, since, deprecated_since;
    const char *parts; /* behind the bracket that opens them; NULL: none */
    bool has_token;
    unsigned flags;
};

static struct bytes take_until(const char **at, const char *stops)
{
    size_t n = strcspn(*at, stops);
    struct bytes b = bytes_make(*at, n);
    *at += n;
    return b;
}

/* A token may begin with any sign, "=" and "*" included. */
static void take_token(const char **at, struct argument *a)
{
    a->has_token = true;
    if (strncmp(*at, "''", 2) == 0) {
        *at += 2;
        a->token = bytes_make("", 0);
        return;
    }
    const char *begin = *at;
    if (**at) ++*at;
    take_until(at, "@^!*+]) >");
    a->token = bytes_make(begin, (size_t)(*at - begin));
}

/* To behind the bracket that closes what is open at `at`; NULL: there is none. */
static const char *skip_parts(const char *at)
{
    int depth = 1;
    for (; *at; at++) {
        if (*at == '<' || *at == '(') depth++;
        if ((*at == '>' || *at == ')') && --depth == 0) return at + 1;
    }
    return NULL;
}

static bool take_suffixes(const char **at, struct argument *a)
{
    if (**at == '=') {
        ++*at;
        take_token(at, a);
    }
    if (**at == '@') {
        ++*at;
        a->key_spec = take_until(at, "^!*+]) >");
    }
    if (**at == '^') {
        ++*at;
        a->since = take_until(at, "!*+]) >");
    }
    if (**at == '!') {
        ++*at;
        a->deprecated_since = take_until(at, "*+]) >");
    }
    if (**at == '*') {
        ++*at;
        a->flags |= FLAG_MULTIPLE;
    }
    if (**at == '+') {
        ++*at;
        a->flags |= FLAG_MULTIPLE_TOKEN;
    }
    return **at == '\0' || strchr(" ]>)", **at);
}

static bool take_argument(const char **at, struct argument *a)
{
    *a = (struct argument){.type = BYTES("string")};
    bool optional = **at == '[';
    if (optional) {
        ++*at;
        a->flags |= FLAG_OPTIONAL;
    }
    a->name = take_until(at, "#<(=@^!*+] )>");
    if (a->name.n == 0) return false;
    if (**at == '#') {
        ++*at;
        a->type = take_until(at, "=@^!*+] )>");
    } else if (**at == '<' || **at == '(') {
        a->type = **at == '<' ? BYTES("oneof") : BYTES("block");
        a->parts = *at + 1;
        const char *behind = skip_parts(a->parts);
        if (!behind) return false;
        *at = behind;
    } else if (**at == '=') {
        a->type = BYTES("pure-token");
    }
    if (!take_suffixes(at, a)) return false;
    if (!optional) return true;
    if (**at != ']') return false;
    ++*at;
    return true;
}

static void reply_field(struct resp_out *out, const char *name, struct bytes value)
{
    if (!value.p) return;
    resp_bulk_cstr(out, name);
    resp_bulk(out, value);
}

static void reply_flags(struct resp_out *out, unsigned flags)
{
    resp_bulk_cstr(out, "flags");
    resp_set(out, (size_t)__builtin_popcount(flags));
    if (flags & FLAG_OPTIONAL) resp_status(out, "optional");
    if (flags & FLAG_MULTIPLE) resp_status(out, "multiple");
    if (flags & FLAG_MULTIPLE_TOKEN) resp_status(out, "multiple_token");
}

static bool reply_list(struct resp_out *out, const char *at, char close, int depth);

static bool reply_argument(struct resp_out *out, const struct argument *a, int depth)
{
    size_t fields = 2u + (a->key_spec.p != NULL) + a->has_token + (a->since.p != NULL) +
                    (a->deprecated_since.p != NULL) + (a->flags != 0) + (a->parts != NULL);
    resp_map(out, fields);
    reply_field(out, "name", a->name);
    reply_field(out, "type", a->type);
    if (a->key_spec.p) {
        resp_bulk_cstr(out, "key_spec_index");
        resp_i64(out, a->key_spec.p[0] - '0');
    }
    if (a->has_token) reply_field(out, "token", a->token);
    reply_field(out, "since", a->since);
    reply_field(out, "deprecated_since", a->deprecated_since);
    if (a->flags) reply_flags(out, a->flags);
    if (!a->parts) return true;
    resp_bulk_cstr(out, "arguments");
    return reply_list(out, a->parts, a->type.p[0] == 'o' ? '>' : ')', depth + 1);
}

static bool reply_list(struct resp_out *out, const char *at, char close, int depth)
{
    size_t mark = resp_defer(out), n = 0;
    bool ok = depth < DEPTH_MAX;
    while (ok) {
        struct argument a;
        ok = take_argument(&at, &a) && reply_argument(out, &a, depth);
        n++;
        if (*at != ' ') break;
        at++;
    }
    resp_defer_array(out, mark, n);
    return ok && *at == close;
}

bool arguments_reply(struct resp_out *out, const char *text)
{
    return reply_list(out, text, '\0', 0);
}
