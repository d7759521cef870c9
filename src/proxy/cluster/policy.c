/* policy.c: users and limits of a worker's clients. */
#include "proxy/cluster/worker.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>

enum { NEVER_MS = 1 << 30, ACL_LOG_ENTRIES = 128 };

/* ---- the process ---- */

bool policy_create(struct proxy *p)
{
    const struct proxy_config *cfg = p->config;
    struct users_options o = {
        .password = cfg->password, .path = cfg->aclfile, .limits = cfg->user_limits, .all_channels = cfg->all_channels};
    p->policy.addresses = address_limits_create(&cfg->address_limit);
    p->policy.limits = proxy_config_hold(p->config);
    return users_create(&p->policy.users, &o);
}

void policy_destroy(struct proxy *p)
{
    users_destroy(&p->policy.users);
    address_limits_destroy(p->policy.addresses);
    proxy_config_release(p->policy.limits);
}

/* ---- a worker ---- */

static void wake_delayed(struct loop_timer *t, int64_t now_ms)
{
    struct worker *w = container_of(t, struct worker, policy.timer);
    int64_t soonest = t->due_ms;
    list_each(it, &w->policy.delayed)
    {
        struct client *c = container_of(it, struct client, policy.delayed);
        if (c->policy.delayed_until > now_ms) {
            if (c->policy.delayed_until < soonest) soonest = c->policy.delayed_until;
            continue;
        }
        list_remove(it);
        c->policy.delayed_until = 0;
        count(&w->stats.delayed_now, -1);
        client_wants_resume(c);
        client_wants_write(c); /* and is read from again */
    }
    t->due_ms = soonest;
}

void policy_worker_init(struct worker *w)
{
    struct worker_policy *p = &w->policy;
    p->newest = &w->proxy->policy.users.version;
    p->users = users_hold(&w->proxy->policy.users);
    list_init(&p->delayed);
    p->timer = (struct loop_timer){.every_ms = NEVER_MS, .tick = wake_delayed};
    loop_timer_add(w->loop, &p->timer);
}

void policy_worker_deinit(struct worker *w)
{
    user_set_release(w->policy.users);
}

/* ---- users that change ---- */

static void cut_off(struct client *c, const struct client *me)
{
    if (c == me)
        c->base.close_after_reply = true; /* it is told what it has done */
    else
        c->base.close_asap = true;
    client_wants_write(c);
}

/* Its user is not there any more, or another one of the same name. */
static void disconnect(struct client *c, const struct user_set *users, const struct client *me)
{
    c->policy.account = user_set_default(users);
    c->authenticated = false;
    cut_off(c, me);
}

void policy_refresh_slow(struct worker *w, struct client *me)
{
    struct user_set *old = w->policy.users, *users = users_hold(&w->proxy->policy.users);
    list_each(it, &w->clients)
    {
        struct client *c = container_of(it, struct client, link);
        const struct account *before = c->policy.account, *now = user_set_find(users, account_name(before));
        if (!now || now->born != before->born) {
            disconnect(c, users, me);
            continue;
        }
        c->policy.account = now;
        if (now->changed == before->changed) continue;
        if (c->in_multi) c->multi_failed = true; /* what it has queued was allowed by other rules */
        if (c->subscribed && !subscriptions_allowed(c, now->user)) cut_off(c, me);
    }
    w->policy.users = users;
    user_set_release(old);
    uint64_t addresses = address_limits_version(w->proxy->policy.addresses);
    if (addresses == w->policy.addresses) return;
    w->policy.addresses = addresses;
    list_each(it, &w->clients) policy_client_address(container_of(it, struct client, link));
}

struct refresh_mail {
    struct mail mail;
    struct worker *worker;
};

static void refresh_arrived(struct mail *mail)
{
    struct refresh_mail *m = container_of(mail, struct refresh_mail, mail);
    policy_refresh(m->worker, NULL);
    mem_free(m);
}

/* The users are others: `me`'s worker adopts them now, the others when they have read their mail or before they judge
 * the next request. */
static void tell_workers(struct proxy *p, struct client *me)
{
    if (me) policy_refresh(me->worker, me);
    for (int i = 0; i < p->worker_count; i++) {
        if (me && p->workers[i] == me->worker) continue;
        struct refresh_mail *m = mem_alloc(sizeof *m);
        *m = (struct refresh_mail){{NULL, refresh_arrived}, p->workers[i]};
        loop_post(p->workers[i]->loop, &m->mail);
    }
}

void policy_configure(struct proxy *p)
{
    struct proxy_config *before = p->policy.limits, *now = proxy_config_hold(p->front->config);
    address_limits_configure(p->policy.addresses, &now->address_limit);
    users_set_limits(&p->policy.users, now->user_limits);
    if (strcmp(before->password, now->password) != 0) users_set_password(&p->policy.users, now->password);
    p->policy.limits = now;
    proxy_config_release(before);
    tell_workers(p, NULL);
}

/* ---- clients ---- */

void policy_client_begin(struct client *c)
{
    list_init(&c->policy.delayed);
    policy_refresh(c->worker, NULL);
    policy_log_out(c);
    policy_client_address(c);
}

void policy_client_end(struct client *c)
{
    if (!list_empty(&c->policy.delayed)) count(&c->worker->stats.delayed_now, -1);
    list_remove(&c->policy.delayed);
    limiter_release(c->policy.address);
}

static int64_t now_ns(const struct client *c)
{
    return c->worker->now_ms * 1000000;
}

void policy_client_address(struct client *c)
{
    limiter_release(c->policy.address);
    c->policy.address = address_limit(c->worker->proxy->policy.addresses, c->base.peer, now_ns(c));
}

void policy_log_out(struct client *c)
{
    c->policy.account = user_set_default(c->worker->policy.users);
    c->authenticated = !c->worker->policy.users->login_needed;
    c->parser.unauthenticated = !c->authenticated;
}

static void note(struct client *c, enum acl_verdict why, struct bytes object, struct bytes user)
{
    struct buf line = {0};
    client_describe(c, &line);
    struct acl_log_entry e = {.reason = why,
                              .context = c->in_multi ? ACL_IN_MULTI : ACL_AT_TOP,
                              .object = object,
                              .user = user,
                              .client = bytes_make(line.p, line.n ? line.n - 1 : 0),
                              .at_ms = clock_wall_ms()};
    acl_log_add(c->worker->proxy->policy.users.log, &e, ACL_LOG_ENTRIES);
    buf_deinit(&line);
}

bool policy_log_in(struct client *c, struct bytes command, struct bytes name, struct bytes password)
{
    policy_refresh(c->worker, c);
    const struct account *a = user_set_find(c->worker->policy.users, name);
    if (!a || !acl_user_authenticate(a->user, password)) {
        note(c, ACL_DENIED_AUTH, command, name);
        return false;
    }
    c->policy.account = a;
    c->authenticated = true;
    c->parser.unauthenticated = false;
    return true;
}

/* ---- requests ---- */

/* SORT reads keys that no specification names. */
static const char *refusal_of_sort(const struct acl_user *u, const struct command *cmd, const struct bytes *argv,
                                   size_t argc)
{
    if (cmd->id != CMD_ID_SORT && cmd->id != CMD_ID_SORT_RO) return NULL;
    for (size_t i = 2; i + 1 < argc; i++) {
        bool by = bytes_ieq(argv[i], BYTES("by")), get = bytes_ieq(argv[i], BYTES("get"));
        if (by || get) {
            if (access_reads_all_keys(u, cmd, argv, argc)) return NULL;
            return by ? "ERR BY option of SORT denied due to insufficient ACL permissions."
                      : "ERR GET option of SORT denied due to insufficient ACL permissions.";
        }
        if (bytes_ieq(argv[i], BYTES("limit"))) i += 2;
        if (bytes_ieq(argv[i], BYTES("store"))) i++;
    }
    return NULL;
}

const char *policy_refusal(struct client *c, const struct command *cmd, const struct bytes *argv, size_t argc,
                           char text[ACCESS_REFUSAL_MAX])
{
    const struct acl_user *u = c->policy.account->user;
    size_t arg;
    if (acl_user_is_free(u)) return NULL;
    enum acl_verdict v = access_verdict(u, cmd, argv, argc, &arg);
    const char *why = access_refusal(v, cmd, text);
    if (why) {
        note(c, v, v == ACL_DENIED_COMMAND ? bytes_of(cmd->name) : argv[arg], account_name(c->policy.account));
        return why;
    }
    if (command_runs_script(cmd) && !c->worker->config->limited_scripts) {
        note(c, ACL_DENIED_COMMAND, bytes_of(cmd->name), account_name(c->policy.account));
        return "NOPERM the proxy cannot see what a script does: users with limited rights may run scripts only with "
               "limited-users-run-scripts yes";
    }
    return refusal_of_sort(u, cmd, argv, argc);
}

bool policy_is_local(const struct command *cmd)
{
    const struct command *parent = command_parent(cmd);
    return parent && parent->id == CMD_ID_ACL;
}

static void help(struct resp_out *o)
{
    resp_array(o, access_help_count + 3);
    resp_status(o, "ACL <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    for (size_t i = 0; i < access_help_count; i++) resp_status(o, access_help[i]);
    resp_status(o, "HELP");
    resp_status(o, "    Prints this help.");
}

void policy_answer(struct client *c, struct resp_out *o, const struct command *cmd, const struct bytes *argv,
                   size_t argc)
{
    struct users *users = &c->worker->proxy->policy.users;
    const struct acl *a = c->worker->policy.users->acl;
    bool changed = false;
    switch (cmd->id) {
    case CMD_ID_ACL_WHOAMI: resp_bulk(o, account_name(c->policy.account)); break;
    case CMD_ID_ACL_USERS: access_reply_users(o, a); break;
    case CMD_ID_ACL_LIST: access_reply_list(o, a); break;
    case CMD_ID_ACL_GETUSER: access_reply_getuser(o, a, argv[2]); break;
    case CMD_ID_ACL_CAT: access_reply_cat(o, argv, argc); break;
    case CMD_ID_ACL_GENPASS: access_reply_genpass(o, argv, argc); break;
    case CMD_ID_ACL_LOG: access_reply_log(o, users->log, argv, argc, clock_wall_ms()); break;
    case CMD_ID_ACL_DRYRUN: access_reply_dryrun(o, a, command_of_request(argv + 3, argc - 3, NULL), argv, argc); break;
    case CMD_ID_ACL_SETUSER: changed = users_set(users, o, argv, argc); break;
    case CMD_ID_ACL_DELUSER: changed = users_delete(users, o, argv, argc); break;
    case CMD_ID_ACL_LOAD: changed = users_load(users, o); break;
    case CMD_ID_ACL_SAVE: users_save(users, o); break;
    default: help(o); break;
    }
    if (changed) tell_workers(c->worker->proxy, c);
}

/* ---- limits ---- */

static int64_t longer(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

void policy_delay(struct client *c, int64_t ms)
{
    struct worker *w = c->worker;
    c->policy.delayed_until = w->now_ms + ms;
    list_push_back(&w->policy.delayed, &c->policy.delayed);
    if (c->policy.delayed_until < w->policy.timer.due_ms) w->policy.timer.due_ms = c->policy.delayed_until;
    count(&w->stats.delayed_now, 1);
    count(&w->stats.delayed_ever, 1);
}

/* A transaction is let through as a whole. */
static bool refuse(struct client *c, struct limiter *user, struct limiter *address)
{
    if (!c->worker->config->limit_refuses || c->in_multi) return false;
    int64_t wait = user ? limiter_wait(user, now_ns(c)) : 0;
    if (address) wait = longer(wait, limiter_wait(address, now_ns(c)));
    if (wait == 0) return false;
    char text[96];
    long long ms = wait / 1000000 + 1;
    snprintf(text, sizeof text, "ERR rate limit exceeded, try again in %lld ms", ms);
    client_reply_error(c, text);
    count(&c->worker->stats.limit_refusals, 1);
    return true;
}

bool policy_admit_slow(struct client *c, size_t bytes, bool *refused)
{
    struct limiter *user = policy_must_log_in(c) ? NULL : c->policy.account->limit, *address = c->policy.address;
    if (c->policy.admitted || (!user && !address)) return true;
    *refused = refuse(c, user, address);
    if (*refused) return false;
    int64_t wait = user ? limiter_take(user, now_ns(c), bytes) : 0;
    if (address) wait = longer(wait, limiter_take(address, now_ns(c), bytes));
    c->policy.admitted = true;
    if (wait < 1000000 || c->worker->config->limit_refuses) return true; /* less than a timer can tell */
    policy_delay(c, wait / 1000000);
    return false;
}

void policy_sent_slow(struct client *c, size_t bytes)
{
    struct limiter *user = policy_must_log_in(c) ? NULL : c->policy.account->limit;
    if (user) limiter_charge(user, now_ns(c), bytes);
    if (c->policy.address) limiter_charge(c->policy.address, now_ns(c), bytes);
}
