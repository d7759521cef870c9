/* check.c: from the command table's keys and channels of a request to a verdict of src/acl. */
#include "access/access.h"

#include "base/mem.h"

#include <stdio.h>

enum { INLINE_MAX = 16 };

struct subjects {
    struct acl_key keys[INLINE_MAX], *key_list; /* key_list: `keys` or allocated */
    struct acl_channel channels[INLINE_MAX], *channel_list;
};

static uint32_t need_of(unsigned flags)
{
    return (flags & KEY_ACCESS ? ACL_READ : 0u) | (flags & (KEY_INSERT | KEY_DELETE | KEY_UPDATE) ? ACL_WRITE : 0u);
}

static void find_keys(const struct command *cmd, struct acl_request *r, struct subjects *s)
{
    struct command_key few[INLINE_MAX], *found = few;
    int n = command_has_keys(cmd) ? command_keys(cmd, r->argv, r->argc, few, INLINE_MAX) : 0;
    if (n <= 0) return;
    if (n > INLINE_MAX) {
        found = mem_alloc((size_t)n * sizeof *found);
        s->key_list = mem_alloc((size_t)n * sizeof *s->key_list);
        command_keys(cmd, r->argv, r->argc, found, (size_t)n);
    }
    for (int i = 0; i < n; i++) s->key_list[i] = (struct acl_key){found[i].index, need_of(found[i].flags)};
    r->keys = s->key_list;
    r->key_count = (size_t)n;
    if (found != few) mem_free(found);
}

/* The channels that a command publishes or subscribes to; leaving one needs no permission. */
static void find_channels(const struct command *cmd, struct acl_request *r, struct subjects *s)
{
    bool all = cmd->id == CMD_ID_SUBSCRIBE || cmd->id == CMD_ID_SSUBSCRIBE || cmd->id == CMD_ID_PSUBSCRIBE;
    if (!all && cmd->id != CMD_ID_PUBLISH && cmd->id != CMD_ID_SPUBLISH) return;
    size_t n = r->argc < 2 ? 0 : all ? r->argc - 1 : 1;
    if (n > INLINE_MAX) s->channel_list = mem_alloc(n * sizeof *s->channel_list);
    for (size_t i = 0; i < n; i++)
        s->channel_list[i] = (struct acl_channel){(uint32_t)i + 1, cmd->id == CMD_ID_PSUBSCRIBE};
    r->channels = s->channel_list;
    r->channel_count = n;
}

static void request_make(struct acl_request *r, struct subjects *s, const struct acl_user *u, const struct command *cmd,
                         const struct bytes *argv, size_t argc)
{
    *r =
        (struct acl_request){.command = cmd->id, .always = (cmd->flags & CMD_NO_AUTH) != 0, .argv = argv, .argc = argc};
    s->key_list = s->keys;
    s->channel_list = s->channels;
    if (acl_user_limits_keys(u)) find_keys(cmd, r, s);
    if (acl_user_limits_channels(u)) find_channels(cmd, r, s);
}

static void request_done(struct subjects *s)
{
    if (s->key_list != s->keys) mem_free(s->key_list);
    if (s->channel_list != s->channels) mem_free(s->channel_list);
}

enum acl_verdict access_verdict(const struct acl_user *u, const struct command *cmd, const struct bytes *argv,
                                size_t argc, size_t *arg)
{
    struct acl_request r;
    struct subjects s;
    if (arg) *arg = 0;
    if (acl_user_is_free(u)) return ACL_ALLOWED;
    request_make(&r, &s, u, cmd, argv, argc);
    enum acl_verdict v = acl_check(u, &r, arg);
    request_done(&s);
    return v;
}

bool access_reads_all_keys(const struct acl_user *u, const struct command *cmd, const struct bytes *argv, size_t argc)
{
    struct acl_request r;
    struct subjects s;
    if (acl_user_is_free(u)) return true;
    request_make(&r, &s, u, cmd, argv, argc);
    bool all = acl_check_all_keys(u, &r, ACL_READ);
    request_done(&s);
    return all;
}

const char *access_refusal(enum acl_verdict v, const struct command *cmd, char text[ACCESS_REFUSAL_MAX])
{
    switch (v) {
    case ACL_ALLOWED: return NULL;
    case ACL_DENIED_KEY: return "NOPERM this user has no permissions to access one of the keys used as arguments";
    case ACL_DENIED_CHANNEL:
        return "NOPERM this user has no permissions to access one of the channels used as arguments";
    default:
        snprintf(text, ACCESS_REFUSAL_MAX, "NOPERM this user has no permissions to run the '%s' command", cmd->name);
        return text;
    }
}
