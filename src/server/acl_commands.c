/* acl_commands.c: ACL and its subcommands. */
#include "server/acl_node.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/number.h"
#include "server/renames.h"

#include <stdio.h>

static struct node *node_of(const struct call *c)
{
    return call_conn(c)->worker->node;
}

/* "%.*s" of what a client sent. */
static int shown(struct bytes b)
{
    return (int)(b.n < 1 << 20 ? b.n : 1 << 20);
}

static void too_many(struct call *c)
{
    resp_errorf(&c->out, "ERR unknown subcommand or wrong number of arguments for '%.*s'. Try ACL HELP.",
                shown(c->argv[1]), c->argv[1].p);
}

/* ---- who and what ---- */

void cmd_acl_whoami(struct call *c)
{
    resp_bulk(&c->out, acl_user_name(call_conn(c)->user));
}

void cmd_acl_users(struct call *c)
{
    size_t n;
    const struct acl_user **all = acl_sorted(node_of(c)->acl, &n);
    resp_array(&c->out, n);
    for (size_t i = 0; i < n; i++) resp_bulk(&c->out, acl_user_name(all[i]));
    mem_free(all);
}

void cmd_acl_list(struct call *c)
{
    size_t n;
    struct acl *a = node_of(c)->acl;
    const struct acl_user **all = acl_sorted(a, &n);
    struct buf line = {0};
    resp_array(&c->out, n);
    for (size_t i = 0; i < n; i++) {
        line.n = 0;
        buf_append_cstr(&line, "user ");
        buf_append_bytes(&line, acl_user_name(all[i]));
        buf_append_char(&line, ' ');
        acl_user_describe(a, all[i], &line);
        resp_bulk(&c->out, buf_bytes(&line));
    }
    buf_deinit(&line);
    mem_free(all);
}

static void reply_selector(struct call *c, const struct acl_user *u, size_t selector)
{
    struct buf text = {0};
    resp_bulk_cstr(&c->out, "commands");
    acl_selector_commands(node_of(c)->acl, u, selector, &text);
    resp_bulk(&c->out, buf_bytes(&text));
    text.n = 0;
    resp_bulk_cstr(&c->out, "keys");
    acl_selector_keys(u, selector, &text);
    resp_bulk(&c->out, buf_bytes(&text));
    text.n = 0;
    resp_bulk_cstr(&c->out, "channels");
    acl_selector_channels(u, selector, &text);
    resp_bulk(&c->out, buf_bytes(&text));
    buf_deinit(&text);
}

void cmd_acl_getuser(struct call *c)
{
    const struct acl_user *u = acl_find(node_of(c)->acl, c->argv[2]);
    if (!u) {
        resp_null(&c->out);
        return;
    }
    unsigned flags = 0;
    size_t passwords = 0;
    while (acl_user_flag(u, flags)) flags++;
    while (acl_user_password(u, passwords).n) passwords++;
    resp_map(&c->out, 6);
    resp_bulk_cstr(&c->out, "flags");
    resp_set(&c->out, flags);
    for (unsigned i = 0; i < flags; i++) resp_bulk_cstr(&c->out, acl_user_flag(u, i));
    resp_bulk_cstr(&c->out, "passwords");
    resp_array(&c->out, passwords);
    for (size_t i = 0; i < passwords; i++) resp_bulk(&c->out, acl_user_password(u, i));
    reply_selector(c, u, 0);
    resp_bulk_cstr(&c->out, "selectors");
    resp_array(&c->out, acl_user_selectors(u));
    for (size_t i = 1; i <= acl_user_selectors(u); i++) {
        resp_map(&c->out, 3);
        reply_selector(c, u, i);
    }
}

void cmd_acl_cat(struct call *c)
{
    if (c->argc > 3) {
        too_many(c);
        return;
    }
    if (c->argc == 2) {
        resp_array(&c->out, CMD_CATEGORY_COUNT);
        for (unsigned i = 0; i < CMD_CATEGORY_COUNT; i++) resp_bulk_cstr(&c->out, command_category_name(i));
        return;
    }
    uint32_t bit = command_category_find(c->argv[2]);
    if (!bit) {
        resp_errorf(&c->out, "ERR Unknown category '%.*s'", shown(c->argv[2]), c->argv[2].p);
        return;
    }
    size_t mark = resp_defer(&c->out), n = 0;
    for (unsigned id = 0; id < CMD_ID_COUNT; id++) {
        const struct command *cmd = command_by_id((enum command_id)id);
        if (!(cmd->categories & bit)) continue;
        resp_bulk_cstr(&c->out, cmd->name);
        n++;
    }
    resp_defer_array(&c->out, mark, n);
}

void cmd_acl_genpass(struct call *c)
{
    enum { BITS_MAX = 4096 };
    char hex[BITS_MAX / 4];
    int64_t bits = 256;
    if (c->argc > 3) {
        too_many(c);
        return;
    }
    if (c->argc == 3 && !call_arg_i64(c, 2, &bits, NULL)) return;
    if (bits <= 0 || bits > BITS_MAX) {
        resp_errorf(&c->out,
                    "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up "
                    "to %d",
                    BITS_MAX);
        return;
    }
    size_t digits = (size_t)(bits + 3) / 4;
    random_hex(hex, digits);
    resp_bulk(&c->out, bytes_make(hex, digits));
}

/* ---- changes ---- */

void cmd_acl_setuser(struct call *c)
{
    struct node *n = node_of(c);
    size_t joined, failed;
    if (!acl_name_ok(c->argv[2])) {
        resp_error(&c->out, "ERR Usernames can't contain spaces or null characters");
        return;
    }
    struct bytes *rules = acl_join_selectors(c->argv + 3, c->argc - 3, &joined, &failed);
    if (!rules) {
        struct bytes at = c->argv[3 + failed];
        resp_errorf(&c->out, "ERR Unmatched parenthesis in acl selector starting at '%.*s'.", shown(at), at.p);
        return;
    }
    if (!call_exclusive(c)) {
        mem_free(rules);
        return;
    }
    const char *why = acl_set_user(n->acl, c->argv[2], rules, joined, &failed);
    if (why) {
        resp_errorf(&c->out, "ERR Error in ACL SETUSER modifier '%.*s': %s", shown(rules[failed]), rules[failed].p,
                    why);
    } else {
        acl_node_changed(n);
        acl_disconnect_listeners(n, acl_find(n->acl, c->argv[2]), call_conn(c));
        resp_ok(&c->out);
    }
    mem_free(rules);
}

void cmd_acl_deluser(struct call *c)
{
    struct node *n = node_of(c);
    int64_t deleted = 0;
    if (!call_exclusive(c)) return;
    for (size_t i = 2; i < c->argc; i++) {
        if (bytes_eq(c->argv[i], BYTES("default"))) {
            resp_error(&c->out, "ERR The 'default' user cannot be removed");
            return;
        }
    }
    for (size_t i = 2; i < c->argc; i++) {
        struct acl_user *u = acl_find(n->acl, c->argv[i]);
        if (!u) continue;
        acl_disconnect(n, u, call_conn(c));
        acl_delete(n->acl, u);
        deleted++;
    }
    resp_i64(&c->out, deleted);
}

/* ---- the file ---- */

/* The path of the ACL file; NULL: there is none, and that was replied. */
static char *file_of(struct call *c)
{
    struct config *cfg = node_of(c)->config;
    if (!config_text_is_empty(cfg, CFG_ACLFILE)) return config_cstr(cfg, CFG_ACLFILE);
    resp_error(&c->out,
               "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via "
               "the ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis "
               "configuration file set) in order to store users in the Redis configuration.");
    return NULL;
}

/* Everybody but the default user's clients has to log in again: their users are new ones. */
void cmd_acl_load(struct call *c)
{
    struct node *n = node_of(c);
    char *path = file_of(c);
    if (!path) return;
    if (!call_exclusive(c)) {
        mem_free(path);
        return;
    }
    struct buf errors = {0};
    struct acl *loaded = acl_create(acl_command_table());
    acl_set_all_channels_default(loaded, config_num(n->config, CFG_ACL_PUBSUB_DEFAULT) == PUBSUB_ALLCHANNELS);
    if (acl_read_file(loaded, path, &errors)) {
        acl_exchange(n->acl, loaded);
        size_t count;
        const struct acl_user **old = acl_sorted(loaded, &count);
        for (size_t i = 0; i < count; i++)
            if (old[i] != acl_default_user(loaded)) acl_disconnect(n, old[i], call_conn(c));
        mem_free(old);
        acl_node_changed(n);
        acl_disconnect_listeners(n, acl_default_user(n->acl), call_conn(c));
        resp_ok(&c->out);
    } else {
        buf_append_char(&errors, '\0');
        resp_errorf(&c->out, "ERR %s", errors.p);
    }
    acl_destroy(loaded);
    buf_deinit(&errors);
    mem_free(path);
}

void cmd_acl_save(struct call *c)
{
    char *path = file_of(c);
    if (!path) return;
    /* At rest: no second one writes the same file. */
    if (call_exclusive(c)) {
        if (acl_write_file(node_of(c)->acl, path))
            resp_ok(&c->out);
        else
            resp_error(&c->out, "ERR There was an error trying to save the ACLs. Please check the server logs for more "
                                "information");
    }
    mem_free(path);
}

/* ---- DRYRUN and LOG ---- */

void cmd_acl_dryrun(struct call *c)
{
    struct node *n = node_of(c);
    const struct acl_user *u = acl_find(n->acl, c->argv[2]);
    const struct bytes *argv = c->argv + 3;
    size_t argc = c->argc - 3, arg;
    if (!u) {
        resp_errorf(&c->out, "ERR User '%.*s' not found", shown(c->argv[2]), c->argv[2].p);
        return;
    }
    const struct command *cmd = node_command_of_request(n, argv, argc, NULL);
    if (!cmd) {
        resp_errorf(&c->out, "ERR Command '%.*s' not found", shown(argv[0]), argv[0].p);
        return;
    }
    if (!command_arity_ok(cmd, argc)) {
        resp_errorf(&c->out, "ERR wrong number of arguments for '%s' command", cmd->name);
        return;
    }
    enum acl_verdict v = acl_verdict_of(u, cmd, argv, argc, &arg);
    if (v == ACL_ALLOWED) {
        resp_ok(&c->out);
        return;
    }
    struct buf text = {0};
    if (v == ACL_DENIED_COMMAND) {
        buf_printf(&text, "This user has no permissions to run the '%s' command", cmd->name);
    } else {
        buf_append_cstr(&text, "This user has no permissions to access the '");
        buf_append_bytes(&text, argv[arg]);
        buf_printf(&text, "' %s", v == ACL_DENIED_KEY ? "key" : "channel");
    }
    resp_bulk(&c->out, buf_bytes(&text));
    buf_deinit(&text);
}

struct log_reply {
    struct resp_out *out;
    int64_t now_ms;
    size_t n;
};

static void reply_entry(void *ctx, const struct acl_log_entry *e)
{
    static const char *const reasons[] = {[ACL_DENIED_COMMAND] = "command",
                                          [ACL_DENIED_KEY] = "key",
                                          [ACL_DENIED_AUTH] = "auth",
                                          [ACL_DENIED_CHANNEL] = "channel"};
    static const char *const contexts[] = {[ACL_AT_TOP] = "toplevel", [ACL_IN_MULTI] = "multi", [ACL_IN_LUA] = "lua"};
    struct log_reply *r = ctx;
    r->n++;
    resp_map(r->out, 7);
    resp_bulk_cstr(r->out, "count");
    resp_i64(r->out, (int64_t)e->count);
    resp_bulk_cstr(r->out, "reason");
    resp_bulk_cstr(r->out, reasons[e->reason]);
    resp_bulk_cstr(r->out, "context");
    resp_bulk_cstr(r->out, contexts[e->context]);
    resp_bulk_cstr(r->out, "object");
    resp_bulk(r->out, e->object);
    resp_bulk_cstr(r->out, "username");
    resp_bulk(r->out, e->user);
    resp_bulk_cstr(r->out, "age-seconds");
    resp_double(r->out, (double)(r->now_ms - e->at_ms) / 1000);
    resp_bulk_cstr(r->out, "client-info");
    resp_bulk(r->out, e->client);
}

void cmd_acl_log(struct call *c)
{
    struct node *n = node_of(c);
    int64_t count = 10;
    if (c->argc > 3) {
        too_many(c);
        return;
    }
    if (c->argc == 3 && call_arg_is(c, 2, "reset")) {
        acl_log_reset(n->acl_log);
        resp_ok(&c->out);
        return;
    }
    if (c->argc == 3 && !call_arg_i64(c, 2, &count, NULL)) return;
    struct log_reply r = {&c->out, clock_wall_ms(), 0};
    size_t mark = resp_defer(&c->out);
    acl_log_each(n->acl_log, count > 0 ? (size_t)count : 0, reply_entry, &r);
    resp_defer_array(&c->out, mark, r.n);
}

void cmd_acl_help(struct call *c)
{
    static const char *const lines[] = {
        "CAT [<category>]",
        "    List all commands that belong to <category>, or all command categories",
        "    when no category is specified.",
        "DELUSER <username> [<username> ...]",
        "    Delete a list of users.",
        "DRYRUN <username> <command> [<arg> ...]",
        "    Returns whether the user can execute the given command without executing the command.",
        "GETUSER <username>",
        "    Get the user's details.",
        "GENPASS [<bits>]",
        "    Generate a secure 256-bit user password. The optional `bits` argument can",
        "    be used to specify a different size.",
        "LIST",
        "    Show users details in config file format.",
        "LOAD",
        "    Reload users from the ACL file.",
        "LOG [<count> | RESET]",
        "    Show the ACL log entries.",
        "SAVE",
        "    Save the current config to the ACL file.",
        "SETUSER <username> <attribute> [<attribute> ...]",
        "    Create or modify a user with the specified attributes.",
        "USERS",
        "    List all the registered usernames.",
        "WHOAMI",
        "    Return the current connection username.",
    };
    call_help(c, "ACL", lines, sizeof lines / sizeof *lines);
}
