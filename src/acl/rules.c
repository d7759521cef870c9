/* rules.c: one rule applied to a user or to a selector, with redis-server's meanings and errors. */
#include "acl/internal.h"

#include "base/mem.h"

#include <ctype.h>
#include <openssl/sha.h>

const char *rule_error_text(enum rule_error e)
{
    switch (e) {
    case RULE_OK: return NULL;
    case RULE_UNKNOWN: return "Unknown command or category name in ACL";
    case RULE_AFTER_ALL_KEYS:
        return "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any "
               "effect. "
               "Try 'resetkeys' to start with an empty list of patterns";
    case RULE_AFTER_ALL_CHANNELS:
        return "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any "
               "effect. Try 'resetchannels' to start with an empty list of channels";
    case RULE_NO_SUCH_PASSWORD: return "The password you are trying to remove from the user does not exist";
    case RULE_BAD_HASH:
        return "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters";
    case RULE_SUB_FIRST_ARG: return "Allowing first-arg of a subcommand is not supported";
    case RULE_TOO_BIG: return "The rule is too long";
    case RULE_SYNTAX: break;
    }
    return "Syntax error";
}

static struct bytes behind(struct bytes b, size_t n)
{
    return bytes_make(b.p + n, b.n - n);
}

static bool is(struct bytes rule, const char *word)
{
    return bytes_ieq(rule, bytes_of(word));
}

/* ---- commands ---- */

static void set_bit(struct acl_selector *s, unsigned id, bool on)
{
    uint64_t bit = 1ull << id % 64;
    if (on) {
        s->allowed[id / 64] |= bit;
    } else {
        s->allowed[id / 64] &= ~bit;
        s->all_commands = false;
    }
}

static void forget_first_args(struct acl_selector *s, unsigned id)
{
    for (size_t i = s->first_args.n; i-- > 0;)
        if (s->first_args.at[i]->tag == id) texts_remove(&s->first_args, s->first_args.at[i]);
}

/* A container takes its subcommands along. */
void selector_set_command(const struct acl *a, struct acl_selector *s, unsigned id, bool on)
{
    set_bit(s, id, on);
    if (s->first_args.n) forget_first_args(s, id);
    for (unsigned i = 1; i <= a->commands->rows[id].subs; i++) set_bit(s, id + i, on);
}

void selector_set_category(const struct acl *a, struct acl_selector *s, uint32_t bits, bool on)
{
    for (unsigned id = 0; id < a->commands->count; id++)
        if (a->commands->rows[id].categories & bits) selector_set_command(a, s, id, on);
}

static void set_all_commands(struct acl_selector *s, bool on)
{
    memset(s->allowed, on ? 0xff : 0, sizeof s->allowed);
    s->all_commands = on;
    texts_deinit(&s->first_args);
}

static enum rule_error apply_category(const struct acl *a, struct acl_selector *s, struct bytes name, bool on)
{
    for (unsigned i = 0; i < a->commands->category_count; i++) {
        if (!is(name, a->commands->category_names[i])) continue;
        selector_set_category(a, s, 1u << i, on);
        return RULE_OK;
    }
    return RULE_UNKNOWN;
}

/* "+select|0": the command with this first argument only. */
static enum rule_error add_first_arg(struct acl_selector *s, unsigned id, struct bytes arg)
{
    for (size_t i = 0; i < s->first_args.n; i++) {
        const struct acl_text *x = s->first_args.at[i];
        if (x->tag == id && bytes_ieq(text_bytes(x), arg)) return RULE_OK;
    }
    return texts_add(&s->first_args, arg, id) ? RULE_OK : RULE_TOO_BIG;
}

static enum rule_error apply_command(const struct acl *a, struct acl_selector *s, struct bytes name, bool on)
{
    const char *bar = on && name.n ? memrchr(name.p, '|', name.n) : NULL;
    if (!bar) {
        int id = a->commands->find(name);
        if (id < 0) return RULE_UNKNOWN;
        selector_set_command(a, s, (unsigned)id, on);
        return RULE_OK;
    }
    struct bytes first = bytes_make(name.p, (size_t)(bar - name.p)), second = behind(name, first.n + 1);
    int id = a->commands->find(first);
    if (id < 0) return RULE_UNKNOWN;
    if (a->commands->rows[id].is_sub) return RULE_SUB_FIRST_ARG;
    if (second.n == 0) return RULE_SYNTAX;
    if (a->commands->rows[id].subs == 0) return add_first_arg(s, (unsigned)id, second);
    int sub = a->commands->find(name);
    if (sub < 0) return RULE_UNKNOWN;
    selector_set_command(a, s, (unsigned)sub, true);
    return RULE_OK;
}

/* ---- patterns ---- */

static bool has_spaces(struct bytes b)
{
    for (size_t i = 0; i < b.n; i++)
        if (isspace((unsigned char)b.p[i]) || b.p[i] == '\0') return true;
    return false;
}

/* "~k*" or "%RW~k*". */
static enum rule_error apply_key_pattern(struct acl_selector *s, struct bytes rule)
{
    uint32_t need = ACL_READ | ACL_WRITE;
    size_t at = 1;
    if (s->all_keys) return RULE_AFTER_ALL_KEYS;
    if (rule.p[0] == '%') {
        for (need = 0; at < rule.n && rule.p[at] != '~'; at++) {
            uint32_t bit = toupper((unsigned char)rule.p[at]) == 'R'   ? ACL_READ
                           : toupper((unsigned char)rule.p[at]) == 'W' ? ACL_WRITE
                                                                       : 0;
            if (!bit || need & bit) return RULE_SYNTAX;
            need |= bit;
        }
        if (!need) return RULE_SYNTAX;
        if (at < rule.n) at++;
    }
    struct bytes pattern = behind(rule, at);
    if (has_spaces(pattern)) return RULE_SYNTAX;
    struct acl_text *known = texts_find(&s->keys, pattern);
    if (known)
        known->tag |= need;
    else if (!texts_add(&s->keys, pattern, need))
        return RULE_TOO_BIG;
    return RULE_OK;
}

static enum rule_error apply_channel_pattern(struct acl_selector *s, struct bytes pattern)
{
    if (s->all_channels) return RULE_AFTER_ALL_CHANNELS;
    if (has_spaces(pattern)) return RULE_SYNTAX;
    return texts_find(&s->channels, pattern) || texts_add(&s->channels, pattern, 0) ? RULE_OK : RULE_TOO_BIG;
}

/* ---- selectors ---- */

static void set_all_keys(struct acl_selector *s, bool all)
{
    s->all_keys = all;
    texts_deinit(&s->keys);
}

static void set_all_channels(struct acl_selector *s, bool all)
{
    s->all_channels = all;
    texts_deinit(&s->channels);
}

struct acl_selector *selector_new(const struct acl *a)
{
    struct acl_selector *s = mem_calloc(1, sizeof *s);
    s->all_channels = a->all_channels_default;
    return s;
}

void selector_free(struct acl_selector *s)
{
    texts_deinit(&s->keys);
    texts_deinit(&s->channels);
    texts_deinit(&s->first_args);
    mem_free(s);
}

enum rule_error selector_apply(const struct acl *a, struct acl_selector *s, struct bytes rule)
{
    if (rule.n == 0) return RULE_SYNTAX;
    if (is(rule, "allkeys") || is(rule, "~*"))
        set_all_keys(s, true);
    else if (is(rule, "resetkeys"))
        set_all_keys(s, false);
    else if (is(rule, "allchannels") || is(rule, "&*"))
        set_all_channels(s, true);
    else if (is(rule, "resetchannels"))
        set_all_channels(s, false);
    else if (is(rule, "allcommands") || is(rule, "+@all"))
        set_all_commands(s, true);
    else if (is(rule, "nocommands") || is(rule, "-@all"))
        set_all_commands(s, false);
    else if (rule.p[0] == '~' || rule.p[0] == '%')
        return apply_key_pattern(s, rule);
    else if (rule.p[0] == '&')
        return apply_channel_pattern(s, behind(rule, 1));
    else if (rule.p[0] != '+' && rule.p[0] != '-')
        return RULE_SYNTAX;
    else if (rule.n > 1 && rule.p[1] == '@')
        return apply_category(a, s, behind(rule, 2), rule.p[0] == '+');
    else
        return apply_command(a, s, behind(rule, 1), rule.p[0] == '+');
    return RULE_OK;
}

/* What stands between the parentheses: words with the quoting of sdssplitargs-like lines are not expected in rules, so
 * only spaces separate; an unbalanced quote makes the whole selector empty, as in redis-server. */
static bool quotes_balanced(struct bytes b)
{
    bool open = false, word_start = true;
    for (size_t i = 0; i < b.n; i++) {
        bool space = isspace((unsigned char)b.p[i]);
        if (b.p[i] == '"' && (open || word_start)) open = !open;
        word_start = space && !open;
    }
    return !open;
}

static enum rule_error add_selector(const struct acl *a, struct acl_user *u, struct bytes rule)
{
    struct acl_selector *s = selector_new(a);
    struct bytes inner = bytes_make(rule.p + 1, rule.n - 2);
    if (!quotes_balanced(inner)) inner.n = 0;
    for (size_t at = 0; at < inner.n;) {
        size_t end = at;
        while (end < inner.n && !isspace((unsigned char)inner.p[end])) end++;
        enum rule_error e = end > at ? selector_apply(a, s, bytes_make(inner.p + at, end - at)) : RULE_OK;
        if (e != RULE_OK) {
            selector_free(s);
            return e;
        }
        at = end + 1;
    }
    u->selectors = mem_realloc(u->selectors, (u->selector_count + 1) * sizeof(struct acl_selector *));
    u->selectors[u->selector_count++] = s;
    return RULE_OK;
}

static void clear_selectors(struct acl_user *u)
{
    while (u->selector_count > 1) selector_free(u->selectors[--u->selector_count]);
}

/* ---- passwords ---- */

static struct bytes hash_password(struct bytes password, char hex[HASH_HEX])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char raw[SHA256_DIGEST_LENGTH];
    SHA256((const unsigned char *)(password.n ? password.p : ""), password.n, raw);
    for (int i = 0; i < SHA256_DIGEST_LENGTH; i++) {
        hex[2 * i] = digits[raw[i] >> 4];
        hex[2 * i + 1] = digits[raw[i] & 15];
    }
    return bytes_make(hex, HASH_HEX);
}

static bool is_hash(struct bytes b)
{
    if (b.n != HASH_HEX) return false;
    for (size_t i = 0; i < b.n; i++)
        if (!((b.p[i] >= '0' && b.p[i] <= '9') || (b.p[i] >= 'a' && b.p[i] <= 'f'))) return false;
    return true;
}

/* '>' and '<' with a password, '#' and '!' with its hash. */
static enum rule_error apply_password(struct acl_user *u, struct bytes rule)
{
    char hex[HASH_HEX];
    char kind = rule.p[0];
    struct bytes hash = behind(rule, 1);
    if (kind == '>' || kind == '<')
        hash = hash_password(hash, hex);
    else if (!is_hash(hash))
        return RULE_BAD_HASH;
    struct acl_text *known = texts_find(&u->passwords, hash);
    if (kind == '>' || kind == '#') {
        if (!known && !texts_add(&u->passwords, hash, 0)) return RULE_TOO_BIG;
        u->nopass = false;
        return RULE_OK;
    }
    if (!known) return RULE_NO_SUCH_PASSWORD;
    texts_remove(&u->passwords, known);
    return RULE_OK;
}

static void set_nopass(struct acl_user *u, bool nopass)
{
    u->nopass = nopass;
    texts_deinit(&u->passwords);
}

/* ---- users ---- */

static void reset(const struct acl *a, struct acl_user *u)
{
    struct acl_selector *root = u->selectors[0];
    set_nopass(u, false);
    set_all_keys(root, false);
    set_all_channels(root, a->all_channels_default);
    set_all_commands(root, false);
    clear_selectors(u);
    u->enabled = u->skip_sanitize = false;
    u->sanitize = true;
}

enum rule_error user_apply(const struct acl *a, struct acl_user *u, struct bytes rule)
{
    if (rule.n == 0) return RULE_OK;
    if (is(rule, "on")) {
        u->enabled = true;
    } else if (is(rule, "off")) {
        u->enabled = false;
    } else if (is(rule, "nopass")) {
        set_nopass(u, true);
    } else if (is(rule, "resetpass")) {
        set_nopass(u, false);
    } else if (is(rule, "skip-sanitize-payload") || is(rule, "sanitize-payload")) {
        u->sanitize = rule.n == strlen("sanitize-payload");
        u->skip_sanitize = !u->sanitize;
    } else if (strchr("><#!", rule.p[0]) && rule.p[0]) {
        return apply_password(u, rule);
    } else if (rule.p[0] == '(' && rule.p[rule.n - 1] == ')') {
        return add_selector(a, u, rule);
    } else if (is(rule, "clearselectors")) {
        clear_selectors(u);
    } else if (is(rule, "reset")) {
        reset(a, u);
    } else {
        return selector_apply(a, u->selectors[0], rule);
    }
    return RULE_OK;
}

bool acl_user_authenticate(const struct acl_user *u, struct bytes password)
{
    char hex[HASH_HEX];
    unsigned char found = 0;
    struct bytes hash = hash_password(password, hex);
    for (size_t i = 0; i < u->passwords.n; i++) {
        unsigned char differs = 0;
        for (size_t k = 0; k < HASH_HEX; k++) differs |= (unsigned char)(u->passwords.at[i]->text[k] ^ hash.p[k]);
        found |= (unsigned char)!differs;
    }
    return u->enabled && (u->nopass || found);
}
