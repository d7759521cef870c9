/* acl_commands.c: ACL and its subcommands. */
#include "server/acl_node.h"

#include "base/clock.h"
#include "base/mem.h"
#include "server/renames.h"

static struct node *node_of(const struct call *c)
{
    return call_conn(c)->worker->node;
}

/* ---- who and what ---- */

void cmd_acl_whoami(struct call *c)
{
    resp_bulk(&c->out, acl_user_name(call_conn(c)->user));
}

void cmd_acl_users(struct call *c)
{
    access_reply_users(&c->out, node_of(c)->acl);
}

void cmd_acl_list(struct call *c)
{
    access_reply_list(&c->out, node_of(c)->acl);
}

void cmd_acl_getuser(struct call *c)
{
    access_reply_getuser(&c->out, node_of(c)->acl, c->argv[2]);
}

void cmd_acl_cat(struct call *c)
{
    access_reply_cat(&c->out, c->argv, c->argc);
}

void cmd_acl_genpass(struct call *c)
{
    access_reply_genpass(&c->out, c->argv, c->argc);
}

void cmd_acl_dryrun(struct call *c)
{
    const struct command *cmd = node_command_of_request(node_of(c), c->argv + 3, c->argc - 3, NULL);
    access_reply_dryrun(&c->out, node_of(c)->acl, cmd, c->argv, c->argc);
}

void cmd_acl_log(struct call *c)
{
    access_reply_log(&c->out, node_of(c)->acl_log, c->argv, c->argc, clock_wall_ms());
}

void cmd_acl_help(struct call *c)
{
    call_help(c, "ACL", access_help, access_help_count);
}

/* ---- changes ---- */

void cmd_acl_setuser(struct call *c)
{
    struct node *n = node_of(c);
    if (!call_exclusive(c) || !access_set_user(&c->out, n->acl, c->argv, c->argc)) return;
    acl_node_changed(n, false);
    acl_disconnect_listeners(n, acl_find(n->acl, c->argv[2]), call_conn(c));
    resp_ok(&c->out);
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
    if (deleted) acl_node_changed(n, false);
    resp_i64(&c->out, deleted);
}

/* ---- the file ---- */

/* The path of the ACL file; NULL: there is none, and that was replied. */
static char *file_of(struct call *c)
{
    struct config *cfg = node_of(c)->config;
    if (!config_text_is_empty(cfg, CFG_ACLFILE)) return config_cstr(cfg, CFG_ACLFILE);
    resp_error(&c->out, access_no_file);
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
    struct acl *loaded = acl_create(access_commands());
    acl_set_all_channels_default(loaded, config_num(n->config, CFG_ACL_PUBSUB_DEFAULT) == PUBSUB_ALLCHANNELS);
    if (access_read_file(loaded, path, &errors)) {
        acl_exchange(n->acl, loaded);
        size_t count;
        const struct acl_user **old = acl_sorted(loaded, &count);
        for (size_t i = 0; i < count; i++)
            if (old[i] != acl_default_user(loaded)) acl_disconnect(n, old[i], call_conn(c));
        mem_free(old);
        acl_node_changed(n, true);
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
        if (access_write_file(node_of(c)->acl, path))
            resp_ok(&c->out);
        else
            resp_error(&c->out, access_not_saved);
    }
    mem_free(path);
}
