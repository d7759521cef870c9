/* acl_check.c: whether the user of a connection may run a command: with src/access. */
#include "server/acl_node.h"

#include "server/client.h"

/* ---- options that keep commands from everybody ---- */

bool conn_is_local(const struct conn *c)
{
    return c->is_unix || strncmp(c->peer, "127.", 4) == 0 || strncmp(c->peer, "[::1]", 5) == 0 ||
           strncmp(c->peer, "::1:", 4) == 0;
}

static bool option_allows(const struct conn *c, enum config_id id)
{
    int64_t who = config_num(c->worker->node->config, id);
    return who == PROTECTED_YES || (who == PROTECTED_LOCAL && conn_is_local(c));
}

const char *dispatch_protected_refusal(const struct conn *c, const struct command *cmd)
{
    if (cmd->id == CMD_ID_DEBUG && !option_allows(c, CFG_ENABLE_DEBUG_COMMAND))
        return "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it "
               "from a local connection, otherwise you need to set this option in the configuration file, and then "
               "restart the server.";
    if ((cmd->id == CMD_ID_MODULE_LOAD || cmd->id == CMD_ID_MODULE_LOADEX || cmd->id == CMD_ID_MODULE_UNLOAD) &&
        !option_allows(c, CFG_ENABLE_MODULE_COMMAND))
        return "ERR MODULE command not allowed. If the enable-module-command option is set to \"local\", you can run "
               "it "
               "from a local connection, otherwise you need to set this option in the configuration file, and then "
               "restart the server.";
    return NULL;
}

/* ---- verdicts ---- */

bool dispatch_acl_reads_all_keys(const struct conn *c, const struct call *call)
{
    return access_reads_all_keys(c->user, call->cmd, call->argv, call->argc);
}

void dispatch_acl_note(struct conn *c, const struct call *call, enum acl_verdict verdict, enum acl_context context,
                       struct bytes object, struct bytes user)
{
    struct node *n = c->worker->node;
    struct buf line = {0};
    client_line(c, call, &line);
    struct acl_log_entry e = {.reason = verdict,
                              .context = context,
                              .object = object,
                              .user = user,
                              .client = buf_bytes(&line),
                              .at_ms = c->worker->now_ms};
    acl_log_add(n->acl_log, &e, (size_t)config_num(n->config, CFG_ACLLOG_MAX_LEN));
    buf_deinit(&line);
}

enum acl_verdict dispatch_acl_verdict(struct conn *c, const struct call *call, enum acl_context context)
{
    size_t arg;
    enum acl_verdict v = access_verdict(c->user, call->cmd, call->argv, call->argc, &arg);
    if (v != ACL_ALLOWED)
        dispatch_acl_note(c, call, v, context, v == ACL_DENIED_COMMAND ? bytes_of(call->cmd->name) : call->argv[arg],
                          acl_user_name(c->user));
    return v;
}

const char *dispatch_acl_refusal_slow(struct conn *c, const struct call *call, enum acl_context context,
                                      char text[ACCESS_REFUSAL_MAX])
{
    return access_refusal(dispatch_acl_verdict(c, call, context), call->cmd, text);
}
