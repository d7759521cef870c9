/* acl_node.c: where the users come from, and who is logged in. */
#include "server/acl_node.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/beside.h"
#include "server/client.h"
#include "server/config_table.h"
#include "server/pubsub.h"
#include "server/replication.h"

#include <string.h>

/* ---- the start ---- */

static bool add_configured_user(struct acl *a, const struct bytes *words, size_t n)
{
    size_t joined, failed = 0;
    struct bytes name = words[0];
    if (!acl_name_ok(name)) {
        log_warning("Spaces not allowed in ACL usernames");
        return false;
    }
    if (bytes_eq(name, BYTES("default"))) {
        struct bytes reset = BYTES("reset");
        if (acl_set_user(a, name, &reset, 1, &failed)) mem_abort(0);
    }
    struct bytes *rules = acl_join_selectors(words + 1, n - 1, &joined, &failed);
    if (!rules) return false; /* was checked when the file was read */
    const char *why = acl_set_user(a, name, rules, joined, &failed);
    if (why)
        log_warning("Error loading ACL rule '%.*s' for the user named '%.*s': %s", (int)rules[failed].n,
                    rules[failed].p, (int)name.n, name.p, why);
    else if (!acl_user_enabled(acl_find(a, name)))
        log_notice("The user '%.*s' is disabled (there is no 'on' modifier in the user description). Make sure this is "
                   "not a configuration error.",
                   (int)name.n, name.p);
    mem_free(rules);
    return !why;
}

static bool add_configured_users(struct node *n)
{
    struct resp_parser parser;
    struct resp_request words = {0};
    struct bytes lines = config_users(n->config);
    bool ok = true;
    resp_parser_init(&parser, INT64_MAX);
    for (size_t at = 0; ok && at < lines.n; at += words.size) {
        if (resp_parse_request(&parser, bytes_make(lines.p + at, lines.n - at), &words) != OK) mem_abort(0);
        ok = add_configured_user(n->acl, words.argv, words.argc);
    }
    if (!ok) log_warning("Critical error while loading ACLs. Exiting.");
    resp_request_deinit(&words);
    resp_parser_deinit(&parser);
    return ok;
}

static bool load_file_at_start(struct node *n, const char *path)
{
    struct buf errors = {0};
    if (config_users(n->config).n) {
        log_warning("Configuring Redis with users defined in redis.conf and at the same setting an ACL file path is "
                    "invalid. This setup is very likely to lead to configuration errors and security holes, please "
                    "define either an ACL file or declare users directly in your redis.conf, but not both.");
        return false;
    }
    bool ok = access_read_file(n->acl, path, &errors);
    if (!ok) log_warning("Aborting Redis startup because of ACL errors: %.*s", (int)errors.n, errors.p);
    buf_deinit(&errors);
    return ok;
}

static void take_password(struct node *n)
{
    struct buf password = {0};
    config_text(n->config, CFG_REQUIREPASS, &password);
    acl_set_default_password(n->acl, buf_bytes(&password));
    buf_deinit(&password);
}

/* For CONFIG REWRITE; at rest.  Users with a file of their own do not stand in redis.conf. */
static void user_lines(void *ctx, struct buf *out)
{
    struct node *n = ctx;
    if (config_text_is_empty(n->config, CFG_ACLFILE)) access_lines(n->acl, out);
}

bool acl_node_create(struct node *n)
{
    n->acl = acl_create(access_commands());
    n->acl_log = acl_log_create();
    acl_node_reconfigure(n, CFG_ACL_PUBSUB_DEFAULT);
    if (!config_text_is_empty(n->config, CFG_REQUIREPASS)) take_password(n);
    char *path = config_cstr(n->config, CFG_ACLFILE);
    bool ok = *path ? load_file_at_start(n, path) : add_configured_users(n);
    mem_free(path);
    config_set_user_lines(n->config, user_lines, n);
    acl_node_changed(n, false);
    return ok;
}

void acl_node_changed(struct node *n, bool renewed)
{
    const struct acl_user *u = acl_default_user(n->acl);
    bool nopass = acl_user_nopass(u);
    atomic_store(&n->open_to_all, nopass);
    atomic_store(&n->auth_required, !nopass || !acl_user_enabled(u));
    beside_users_changed(n, renewed);
}

void acl_node_reconfigure(struct node *n, enum config_id id)
{
    if (id == CFG_ACL_PUBSUB_DEFAULT)
        acl_set_all_channels_default(n->acl, config_num(n->config, CFG_ACL_PUBSUB_DEFAULT) == PUBSUB_ALLCHANNELS);
    if (id != CFG_REQUIREPASS) return;
    take_password(n);
    acl_node_changed(n, false);
}

/* ---- logging in ---- */

void acl_greet(struct conn *c)
{
    struct node *n = c->worker->node;
    c->user = acl_default_user(n->acl);
    c->authenticated = !atomic_load_explicit(&n->auth_required, memory_order_relaxed);
}

bool acl_log_in(struct call *call, struct bytes name, struct bytes password)
{
    struct conn *c = call_conn(call);
    struct acl_user *u = acl_find(c->worker->node->acl, name);
    if (u && acl_user_authenticate(u, password)) {
        c->user = u;
        c->authenticated = true;
        return true;
    }
    dispatch_acl_note(c, call, ACL_DENIED_AUTH, c->in_multi ? ACL_IN_MULTI : ACL_AT_TOP, call->argv[0], name);
    return false;
}

static void close_conn(struct conn *c, const struct conn *me, bool *others)
{
    if (c == me) {
        c->close_after_reply = true;
        return;
    }
    atomic_store(&c->kill, true);
    *others = true;
}

void acl_disconnect(struct node *n, const struct acl_user *u, struct conn *me)
{
    bool others = false;
    for (int i = 0; i < n->worker_count; i++) {
        list_each(it, &n->workers[i]->conns)
        {
            struct conn *c = container_of(it, struct conn, link);
            if (c->user != u) continue;
            c->user = acl_default_user(n->acl);
            c->authenticated = false;
            close_conn(c, me, &others);
        }
    }
    if (others) node_post_workers(n, worker_reap);
    char *name = bytes_dup_cstr(acl_user_name(u));
    replication_kill_links(n->replication, LINK_REPLICAS, 0, NULL, name);
    mem_free(name);
}

static bool may_listen(void *ctx, enum pubsub_kind kind, struct bytes name)
{
    return acl_check_channel(ctx, name, kind == PUBSUB_PATTERN);
}

void acl_disconnect_listeners(struct node *n, const struct acl_user *u, struct conn *me)
{
    bool others = false;
    if (!acl_user_limits_channels(u)) return;
    for (int i = 0; i < n->worker_count; i++) {
        list_each(it, &n->workers[i]->conns)
        {
            struct conn *c = container_of(it, struct conn, link);
            if (c->user == u && pubsub_active(c) && !pubsub_all(c, may_listen, (void *)u)) close_conn(c, me, &others);
        }
    }
    if (others) node_post_workers(n, worker_reap);
}
