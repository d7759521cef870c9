/* check.c: whether a user may run a request. */
#include "acl/internal.h"

#include "base/glob.h"

static bool command_allowed(const struct acl_selector *s, const struct acl_request *r)
{
    if (s->all_commands || r->always || selector_has(s, r->command)) return true;
    for (size_t i = 0; i < s->first_args.n && r->argc > 1; i++)
        if (s->first_args.at[i]->tag == r->command && bytes_ieq(text_bytes(s->first_args.at[i]), r->argv[1]))
            return true;
    return false;
}

/* As redis-server's matching: an empty name is matched by an empty pattern only, not by "*". */
static bool matches(const struct acl_text *pattern, struct bytes name)
{
    return name.n ? glob_match(text_bytes(pattern), name, false) : pattern->n == 0;
}

static bool key_allowed(const struct acl_selector *s, struct bytes key, uint32_t need)
{
    for (size_t i = 0; i < s->keys.n; i++) {
        const struct acl_text *p = s->keys.at[i];
        if ((p->tag & need) == need && matches(p, key)) return true;
    }
    return false;
}

static bool channel_allowed(const struct acl_selector *s, struct bytes channel, bool is_pattern)
{
    if (s->all_channels) return true;
    if (is_pattern) return texts_find(&s->channels, channel) != NULL;
    for (size_t i = 0; i < s->channels.n; i++)
        if (matches(s->channels.at[i], channel)) return true;
    return false;
}

static enum acl_verdict selector_check(const struct acl_selector *s, const struct acl_request *r, size_t *arg)
{
    if (!command_allowed(s, r)) return ACL_DENIED_COMMAND;
    for (size_t i = 0; i < r->key_count && !s->all_keys; i++) {
        if (key_allowed(s, r->argv[r->keys[i].arg], r->keys[i].need)) continue;
        *arg = r->keys[i].arg;
        return ACL_DENIED_KEY;
    }
    for (size_t i = 0; i < r->channel_count && !s->all_channels; i++) {
        if (channel_allowed(s, r->argv[r->channels[i].arg], r->channels[i].is_pattern)) continue;
        *arg = r->channels[i].arg;
        return ACL_DENIED_CHANNEL;
    }
    return ACL_ALLOWED;
}

enum acl_verdict acl_check(const struct acl_user *u, const struct acl_request *r, size_t *arg)
{
    enum acl_verdict worst = ACL_DENIED_COMMAND;
    size_t worst_arg = 0;
    for (size_t i = 0; i < u->selector_count; i++) {
        size_t at = 0;
        enum acl_verdict v = selector_check(u->selectors[i], r, &at);
        if (v == ACL_ALLOWED) return v;
        if (v > worst || (v == worst && at > worst_arg)) {
            worst = v;
            worst_arg = at;
        }
    }
    if (arg) *arg = worst_arg;
    return worst;
}

bool acl_check_all_keys(const struct acl_user *u, const struct acl_request *r, unsigned need)
{
    for (size_t i = 0; i < u->selector_count; i++) {
        const struct acl_selector *s = u->selectors[i];
        size_t at;
        if (selector_check(s, r, &at) != ACL_ALLOWED) continue;
        if (s->all_keys) return true;
        const struct acl_text *all = texts_find(&s->keys, BYTES("*"));
        if (all && (all->tag & need) == need) return true;
    }
    return false;
}

bool acl_check_channel(const struct acl_user *u, struct bytes channel, bool is_pattern)
{
    for (size_t i = 0; i < u->selector_count; i++)
        if (channel_allowed(u->selectors[i], channel, is_pattern)) return true;
    return false;
}
