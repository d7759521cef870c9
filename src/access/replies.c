/* replies.c: what ACL's subcommands reply. */
#include "access/access.h"

#include "base/mem.h"
#include "base/number.h"
#include "base/random.h"

const char access_no_file[] =
    "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via "
    "the ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis "
    "configuration file set) in order to store users in the Redis configuration.";
const char access_not_saved[] =
    "ERR There was an error trying to save the ACLs. Please check the server logs for more information";

void access_reply_too_many(struct resp_out *o, const struct bytes *argv)
{
    resp_errorf(o, "ERR unknown subcommand or wrong number of arguments for '%.*s'. Try ACL HELP.", resp_shown(argv[1]),
                argv[1].p);
}

/* ---- who and what ---- */

void access_reply_users(struct resp_out *o, const struct acl *a)
{
    size_t n;
    const struct acl_user **all = acl_sorted(a, &n);
    resp_array(o, n);
    for (size_t i = 0; i < n; i++) resp_bulk(o, acl_user_name(all[i]));
    mem_free(all);
}

void access_reply_list(struct resp_out *o, const struct acl *a)
{
    size_t n;
    const struct acl_user **all = acl_sorted(a, &n);
    struct buf line = {0};
    resp_array(o, n);
    for (size_t i = 0; i < n; i++) {
        line.n = 0;
        access_line(a, all[i], &line);
        resp_bulk(o, buf_bytes(&line));
    }
    buf_deinit(&line);
    mem_free(all);
}

static void reply_selector(struct resp_out *o, const struct acl *a, const struct acl_user *u, size_t selector)
{
    struct buf text = {0};
    resp_bulk_cstr(o, "commands");
    acl_selector_commands(a, u, selector, &text);
    resp_bulk(o, buf_bytes(&text));
    text.n = 0;
    resp_bulk_cstr(o, "keys");
    acl_selector_keys(u, selector, &text);
    resp_bulk(o, buf_bytes(&text));
    text.n = 0;
    resp_bulk_cstr(o, "channels");
    acl_selector_channels(u, selector, &text);
    resp_bulk(o, buf_bytes(&text));
    buf_deinit(&text);
}

void access_reply_getuser(struct resp_out *o, const struct acl *a, struct bytes name)
{
    const struct acl_user *u = acl_find(a, name);
    if (!u) {
        resp_null(o);
        return;
    }
    unsigned flags = 0;
    size_t passwords = 0;
    while (acl_user_flag(u, flags)) flags++;
    while (acl_user_password(u, passwords).n) passwords++;
    resp_map(o, 6);
    resp_bulk_cstr(o, "flags");
    resp_set(o, flags);
    for (unsigned i = 0; i < flags; i++) resp_bulk_cstr(o, acl_user_flag(u, i));
    resp_bulk_cstr(o, "passwords");
    resp_array(o, passwords);
    for (size_t i = 0; i < passwords; i++) resp_bulk(o, acl_user_password(u, i));
    reply_selector(o, a, u, 0);
    resp_bulk_cstr(o, "selectors");
    resp_array(o, acl_user_selectors(u));
    for (size_t i = 1; i <= acl_user_selectors(u); i++) {
        resp_map(o, 3);
        reply_selector(o, a, u, i);
    }
}

void access_reply_cat(struct resp_out *o, const struct bytes *argv, size_t argc)
{
    if (argc > 3) {
        access_reply_too_many(o, argv);
        return;
    }
    if (argc == 2) {
        resp_array(o, CMD_CATEGORY_COUNT);
        for (unsigned i = 0; i < CMD_CATEGORY_COUNT; i++) resp_bulk_cstr(o, command_category_name(i));
        return;
    }
    uint32_t bit = command_category_find(argv[2]);
    if (!bit) {
        resp_errorf(o, "ERR Unknown category '%.*s'", (int)(argv[2].n < 128 ? argv[2].n : 128), argv[2].p);
        return;
    }
    size_t mark = resp_defer(o), n = 0;
    for (unsigned id = 0; id < CMD_ID_COUNT; id++) {
        const struct command *cmd = command_by_id((enum command_id)id);
        if (!(cmd->categories & bit)) continue;
        resp_bulk_cstr(o, cmd->name);
        n++;
    }
    resp_defer_array(o, mark, n);
}

void access_reply_genpass(struct resp_out *o, const struct bytes *argv, size_t argc)
{
    enum { BITS_MAX = 4096 };
    char hex[BITS_MAX / 4];
    int64_t bits = 256;
    if (argc > 3) {
        access_reply_too_many(o, argv);
        return;
    }
    if (argc == 3 && !parse_i64(argv[2], &bits)) {
        resp_error(o, "ERR value is not an integer or out of range");
        return;
    }
    if (bits <= 0 || bits > BITS_MAX) {
        resp_errorf(o,
                    "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up "
                    "to %d",
                    BITS_MAX);
        return;
    }
    size_t digits = (size_t)(bits + 3) / 4;
    random_hex(hex, digits);
    resp_bulk(o, bytes_make(hex, digits));
}

/* ---- changes ---- */

bool access_set_user(struct resp_out *o, struct acl *a, const struct bytes *argv, size_t argc)
{
    size_t joined, failed;
    if (!acl_name_ok(argv[2])) {
        resp_error(o, "ERR Usernames can't contain spaces or null characters");
        return false;
    }
    struct bytes *rules = acl_join_selectors(argv + 3, argc - 3, &joined, &failed);
    if (!rules) {
        struct bytes at = argv[3 + failed];
        resp_errorf(o, "ERR Unmatched parenthesis in acl selector starting at '%.*s'.", resp_shown(at), at.p);
        return false;
    }
    const char *why = acl_set_user(a, argv[2], rules, joined, &failed);
    if (why)
        resp_errorf(o, "ERR Error in ACL SETUSER modifier '%.*s': %s", resp_shown(rules[failed]), rules[failed].p, why);
    mem_free(rules);
    return !why;
}

/* ---- DRYRUN and LOG ---- */

void access_reply_dryrun(struct resp_out *o, const struct acl *a, const struct command *cmd, const struct bytes *argv,
                         size_t argc)
{
    const struct acl_user *u = acl_find(a, argv[2]);
    size_t arg;
    if (!u) {
        resp_errorf(o, "ERR User '%.*s' not found", resp_shown(argv[2]), argv[2].p);
        return;
    }
    if (!cmd) {
        resp_errorf(o, "ERR Command '%.*s' not found", resp_shown(argv[3]), argv[3].p);
        return;
    }
    if (!command_arity_ok(cmd, argc - 3)) {
        resp_errorf(o, "ERR wrong number of arguments for '%s' command", cmd->name);
        return;
    }
    enum acl_verdict v = access_verdict(u, cmd, argv + 3, argc - 3, &arg);
    if (v == ACL_ALLOWED) {
        resp_ok(o);
        return;
    }
    struct buf text = {0};
    if (v == ACL_DENIED_COMMAND) {
        buf_printf(&text, "This user has no permissions to run the '%s' command", cmd->name);
    } else {
        buf_append_cstr(&text, "This user has no permissions to access the '");
        buf_append_bytes(&text, argv[3 + arg]);
        buf_printf(&text, "' %s", v == ACL_DENIED_KEY ? "key" : "channel");
    }
    resp_bulk(o, buf_bytes(&text));
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

void access_reply_log(struct resp_out *o, struct acl_log *log, const struct bytes *argv, size_t argc, int64_t now_ms)
{
    int64_t count = 10;
    if (argc > 3) {
        access_reply_too_many(o, argv);
        return;
    }
    if (argc == 3 && bytes_ieq(argv[2], BYTES("reset"))) {
        acl_log_reset(log);
        resp_ok(o);
        return;
    }
    if (argc == 3 && !parse_i64(argv[2], &count)) {
        resp_error(o, "ERR value is not an integer or out of range");
        return;
    }
    struct log_reply r = {o, now_ms, 0};
    size_t mark = resp_defer(o);
    acl_log_each(log, count > 0 ? (size_t)count : 0, reply_entry, &r);
    resp_defer_array(o, mark, r.n);
}

const char *const access_help[] = {
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
const size_t access_help_count = sizeof access_help / sizeof *access_help;
