/* describe.c: a user's rules as text that gives the same user again. */
#include "acl/internal.h"

const char *acl_user_flag(const struct acl_user *u, unsigned i)
{
    const char *const flags[] = {u->enabled ? "on" : "off", u->nopass ? "nopass" : NULL,
                                 u->skip_sanitize ? "skip-sanitize-payload" : NULL,
                                 u->sanitize ? "sanitize-payload" : NULL};
    for (unsigned k = 0; k < sizeof flags / sizeof *flags; k++)
        if (flags[k] && i-- == 0) return flags[k];
    return NULL;
}

struct bytes acl_user_password(const struct acl_user *u, size_t i)
{
    return i < u->passwords.n ? text_bytes(u->passwords.at[i]) : bytes_make(NULL, 0);
}

size_t acl_user_selectors(const struct acl_user *u)
{
    return u->selector_count - 1;
}

static void word(struct buf *out, struct bytes before, struct bytes text)
{
    if (out->n && out->p[out->n - 1] != ' ' && out->p[out->n - 1] != '(') buf_append_char(out, ' ');
    buf_append_bytes(out, before);
    buf_append_bytes(out, text);
}

/* ---- commands ---- */

struct covered {
    unsigned long on, off;
};

static struct covered count_category(const struct acl *a, const struct acl_selector *s, unsigned category)
{
    struct covered c = {0, 0};
    for (unsigned i = 0; i < COMMAND_WORDS; i++) {
        uint64_t all = a->categories[category][i] & a->weighed[i];
        c.on += (unsigned long)__builtin_popcountll(all & s->allowed[i]);
        c.off += (unsigned long)__builtin_popcountll(all & ~s->allowed[i]);
    }
    return c;
}

/* The category that says most with the fewest exceptions, of those not yet used; -1: none says more than it breaks. */
static int best_category(const struct acl *a, const struct acl_selector *left, bool additive, uint32_t used)
{
    int best = -1;
    unsigned long fewest = ~0ul, most = 0;
    for (unsigned i = 0; i < a->commands->category_count; i++) {
        if (used & 1u << i) continue;
        struct covered c = count_category(a, left, i);
        unsigned long same = additive ? c.on : c.off, different = additive ? c.off : c.on;
        if (same <= different) continue;
        if (different < fewest || (different == fewest && same > most)) {
            best = (int)i;
            fewest = different;
            most = same;
        }
    }
    return best;
}

static void print_first_args(const struct acl *a, const struct acl_selector *s, unsigned id, struct buf *out)
{
    for (size_t i = 0; i < s->first_args.n; i++) {
        if (s->first_args.at[i]->tag != id) continue;
        word(out, BYTES("+"), bytes_of(a->commands->rows[id].name));
        buf_append_char(out, '|');
        buf_append_bytes(out, text_bytes(s->first_args.at[i]));
    }
}

/* Categories are chosen greedily, then single commands make up the difference.  `printed` is the selector that the
 * words so far describe, `left` what they do not say yet. */
static void print_commands(const struct acl *a, const struct acl_selector *s, struct buf *out)
{
    bool additive = !selector_has(s, FUTURE_BIT);
    struct acl_selector printed = {0}, left = {0};
    uint32_t used = 0;
    memset(printed.allowed, additive ? 0 : 0xff, sizeof printed.allowed);
    memcpy(left.allowed, s->allowed, sizeof left.allowed);
    word(out, additive ? BYTES("-@") : BYTES("+@"), BYTES("all"));
    for (int best; (best = best_category(a, &left, additive, used)) >= 0; used |= 1u << best) {
        word(out, additive ? BYTES("+@") : BYTES("-@"), bytes_of(a->commands->category_names[best]));
        selector_set_category(a, &printed, 1u << best, additive);
        selector_set_category(a, &left, 1u << best, !additive);
    }
    for (unsigned id = 0; id < a->commands->count; id++) {
        bool may = selector_has(s, id);
        if (may != selector_has(&printed, id)) {
            word(out, may ? BYTES("+") : BYTES("-"), bytes_of(a->commands->rows[id].name));
            selector_set_command(a, &printed, id, may);
        }
        if (!may && s->first_args.n) print_first_args(a, s, id, out);
    }
}

/* ---- patterns ---- */

static void print_keys(const struct acl_selector *s, struct buf *out)
{
    if (s->all_keys) word(out, BYTES("~"), BYTES("*"));
    for (size_t i = 0; i < s->keys.n; i++) {
        uint32_t tag = s->keys.at[i]->tag;
        struct bytes before = tag == ACL_READ ? BYTES("%R~") : tag == ACL_WRITE ? BYTES("%W~") : BYTES("~");
        word(out, before, text_bytes(s->keys.at[i]));
    }
}

static void print_channels(const struct acl_selector *s, struct buf *out)
{
    if (s->all_channels) word(out, BYTES("&"), BYTES("*"));
    for (size_t i = 0; i < s->channels.n; i++) word(out, BYTES("&"), text_bytes(s->channels.at[i]));
}

void acl_selector_commands(const struct acl *a, const struct acl_user *u, size_t selector, struct buf *out)
{
    print_commands(a, u->selectors[selector], out);
}

void acl_selector_keys(const struct acl_user *u, size_t selector, struct buf *out)
{
    print_keys(u->selectors[selector], out);
}

void acl_selector_channels(const struct acl_user *u, size_t selector, struct buf *out)
{
    print_channels(u->selectors[selector], out);
}

/* ---- all ---- */

static void print_selector(const struct acl *a, const struct acl_selector *s, struct buf *out)
{
    print_keys(s, out);
    if (!s->all_channels) word(out, BYTES("resetchannels"), BYTES(""));
    print_channels(s, out);
    print_commands(a, s, out);
}

void acl_user_describe(const struct acl *a, const struct acl_user *u, struct buf *out)
{
    struct buf text = {0};
    const char *flag;
    for (unsigned i = 0; (flag = acl_user_flag(u, i)); i++) word(&text, BYTES(""), bytes_of(flag));
    for (size_t i = 0; i < u->passwords.n; i++) word(&text, BYTES("#"), text_bytes(u->passwords.at[i]));
    print_selector(a, u->selectors[0], &text);
    for (size_t i = 1; i < u->selector_count; i++) {
        word(&text, BYTES("("), BYTES(""));
        print_selector(a, u->selectors[i], &text);
        buf_append_char(&text, ')');
    }
    buf_append_bytes(out, buf_bytes(&text));
    buf_deinit(&text);
}
