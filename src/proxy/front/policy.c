/* policy.c: users and limits of a worker's clients. */
#include "base/clock.h"
#include "base/mem.h"
#include "proxy/front/internal.h"

#include <stdio.h>

enum { NEVER_MS = 1 << 30, ACL_LOG_ENTRIES = 128 };

/* ---- the process ---- */

bool front_policy_create(struct front *f)
{
    struct proxy_config *c = f->config;
    struct users_options o = {
        .password = c->password, .path = c->aclfile, .limits = c->user_limits, .all_channels = c->all_channels};
    f->policy.addresses = address_limits_create(&c->address_limit);
    f->policy.limits = proxy_config_hold(c);
    return users_create(&f->policy.users, &o);
}

void front_policy_destroy(struct front *f)
{
    users_destroy(&f->policy.users);
    address_limits_destroy(f->policy.addresses);
    proxy_config_release(f->policy.limits);
}

/* ---- a worker ---- */

static struct front_client *client_at(struct list *place)
{
    return container_of(place, struct front_client, link);
}

static void wake_delayed(struct loop_timer *t, int64_t now_ms)
{
    struct front_worker *w = container_of(t, struct front_worker, policy.timer);
    int64_t soonest = t->due_ms;
    list_each(it, &w->policy.delayed)
    {
        struct front_client *c = container_of(it, struct front_client, policy.delayed);
        if (c->policy.delayed_until > now_ms) {
            if (c->policy.delayed_until < soonest) soonest = c->policy.delayed_until;
            continue;
        }
        list_remove(it);
        c->policy.delayed_until = 0;
        front_count(&w->stats.delayed_now, -1);
        front_wants_resume(c);
        front_wants_write(c); /* and is read from again */
    }
    t->due_ms = soonest;
}

void front_policy_worker_init(struct front_worker *w)
{
    struct worker_policy *p = &w->policy;
    p->newest = &w->front->policy.users.version;
    p->users = users_hold(&w->front->policy.users);
    list_init(&p->delayed);
    p->timer = (struct loop_timer){.every_ms = NEVER_MS, .tick = wake_delayed};
    loop_timer_add(w->loop, &p->timer);
}

void front_policy_worker_deinit(struct front_worker *w)
{
    user_set_release(w->policy.users);
}

/* ---- users that change ---- */

static void cut_off(struct front_client *c, const struct front_client *me)
{
    if (c == me)
        c->close_after_reply = true; /* it is told what it has done */
    else
        c->close_asap = true;
    front_wants_write(c);
}

static void set_authenticated(struct front_client *c, bool is_in)
{
    c->policy.authenticated = is_in;
    if (c->backend->logged_in) c->backend->logged_in(c);
}

/* Its user is not there any more, or another one of the same name. */
static void disconnect(struct front_client *c, const struct user_set *users, const struct front_client *me)
{
    c->policy.account = user_set_default(users);
    set_authenticated(c, false);
    cut_off(c, me);
}

static void set_address(struct front_client *c)
{
    limiter_release(c->policy.address);
    c->policy.address = address_limit(c->worker->front->policy.addresses, c->peer, c->worker->now_ms * 1000000);
}

void front_refresh_users_slow(struct front_worker *w, struct front_client *me)
{
    struct user_set *old = w->policy.users, *users = users_hold(&w->front->policy.users);
    list_each(it, &w->clients)
    {
        struct front_client *c = client_at(it);
        const struct account *before = c->policy.account, *now = user_set_find(users, account_name(before));
        if (!now || now->born != before->born) {
            disconnect(c, users, me);
            continue;
        }
        c->policy.account = now;
        if (now->changed == before->changed || !c->backend->has_other_rules) continue;
        if (!c->backend->has_other_rules(c, now->user)) cut_off(c, me);
    }
    w->policy.users = users;
    user_set_release(old);
    uint64_t addresses = address_limits_version(w->front->policy.addresses);
    if (addresses == w->policy.addresses) return;
    w->policy.addresses = addresses;
    list_each(it, &w->clients) set_address(client_at(it));
}

struct refresh_mail {
    struct mail mail;
    struct front_worker *worker;
};

static void refresh_arrived(struct mail *mail)
{
    struct refresh_mail *m = container_of(mail, struct refresh_mail, mail);
    front_refresh_users(m->worker, NULL);
    mem_free(m);
}

/* `me`'s worker adopts them now, the others when they have read their mail or before they judge the next request. */
static void tell_workers(struct front *f, struct front_client *me)
{
    if (me) front_refresh_users(me->worker, me);
    for (int i = 0; i < f->worker_count; i++) {
        if (me && f->workers[i] == me->worker) continue;
        struct refresh_mail *m = mem_alloc(sizeof *m);
        *m = (struct refresh_mail){{NULL, refresh_arrived}, f->workers[i]};
        loop_post(f->workers[i]->loop, &m->mail);
    }
}

void front_users_changed(struct front *f)
{
    tell_workers(f, NULL);
}

void front_policy_configure(struct front *f)
{
    struct proxy_config *before = f->policy.limits, *now = proxy_config_hold(f->config);
    address_limits_configure(f->policy.addresses, &now->address_limit);
    users_set_limits(&f->policy.users, now->user_limits);
    if (strcmp(before->password, now->password) != 0) users_set_password(&f->policy.users, now->password);
    f->policy.limits = now;
    proxy_config_release(before);
    tell_workers(f, NULL);
}

/* ---- clients ---- */

void front_policy_begin(struct front_client *c)
{
    /* First, because it looks at all clients when the users have changed: each of them has a user. */
    front_refresh_users(c->worker, NULL);
    front_log_out(c);
    set_address(c);
}

void front_policy_end(struct front_client *c)
{
    if (!list_empty(&c->policy.delayed)) front_count(&c->worker->stats.delayed_now, -1);
    list_remove(&c->policy.delayed);
    limiter_release(c->policy.address);
}

static int64_t now_ns(const struct front_client *c)
{
    return c->worker->now_ms * 1000000;
}

bool front_must_log_in(const struct front_client *c)
{
    return !c->policy.authenticated && c->worker->policy.users->login_needed;
}

void front_log_out(struct front_client *c)
{
    c->policy.account = user_set_default(c->worker->policy.users);
    set_authenticated(c, !c->worker->policy.users->login_needed);
}

/* The fields of CLIENT LIST, because ACL LOG's readers take them apart. */
static void describe(const struct front_client *c, struct buf *b)
{
    char local[NET_ADDRESS_MAX];
    if (c->backend->describe) {
        c->backend->describe(c, b);
        return;
    }
    net_local_address(c->src.fd, local);
    buf_printf(b, "id=%llu addr=%s laddr=%s fd=%d name= age=%lld idle=%lld flags=N db=0 sub=0 psub=0 ssub=0 multi=-1 ",
               (unsigned long long)c->id, c->peer, local, c->src.fd,
               (long long)(clock_wall_ms() - c->created_ms) / 1000, (long long)(c->worker->now_ms - c->last_ms) / 1000);
    buf_printf(b, "qbuf=%zu qbuf-free=%zu argv-mem=0 multi-mem=0 rbs=%zu rbp=%zu obl=%zu oll=0 omem=0 tot-mem=%zu ",
               c->in.n, c->in.cap - c->in.n, c->out.cap, c->out.cap, c->out.n - c->out_pos, c->in.cap + c->out.cap);
    buf_append_cstr(b, "events=r cmd=NULL user=");
    buf_append_bytes(b, account_name(c->policy.account));
    buf_append_cstr(b, " redir=-1 resp=2\n");
}

static bool in_transaction(const struct front_client *c)
{
    return c->backend->in_transaction && c->backend->in_transaction(c);
}

static void note(struct front_client *c, enum acl_verdict why, struct bytes object, struct bytes user)
{
    struct buf line = {0};
    describe(c, &line);
    struct acl_log_entry e = {.reason = why,
                              .context = in_transaction(c) ? ACL_IN_MULTI : ACL_AT_TOP,
                              .object = object,
                              .user = user,
                              .client = bytes_make(line.p, line.n ? line.n - 1 : 0),
                              .at_ms = clock_wall_ms()};
    acl_log_add(c->worker->front->policy.users.log, &e, ACL_LOG_ENTRIES);
    buf_deinit(&line);
}

bool front_log_in(struct front_client *c, struct bytes command, struct bytes name, struct bytes password)
{
    front_refresh_users(c->worker, c);
    const struct account *a = user_set_find(c->worker->policy.users, name);
    if (!a || !acl_user_authenticate(a->user, password)) {
        note(c, ACL_DENIED_AUTH, command, name);
        return false;
    }
    c->policy.account = a;
    set_authenticated(c, true);
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

/* The node itself knows the client by this user, and judges what its scripts do. */
static bool is_nodes_judge(const struct front_client *c)
{
    const char *name = c->worker->config->node_user;
    return c->worker->front->policy.users.is_mirror &&
           bytes_eq(account_name(c->policy.account), *name ? bytes_of(name) : BYTES("default"));
}

const char *front_refusal(struct front_client *c, const struct command *cmd, const struct bytes *argv, size_t argc,
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
    if (command_runs_script(cmd) && !c->worker->config->limited_scripts && !is_nodes_judge(c)) {
        note(c, ACL_DENIED_COMMAND, bytes_of(cmd->name), account_name(c->policy.account));
        return "NOPERM the proxy cannot see what a script does: users with limited rights may run scripts only with "
               "limited-users-run-scripts yes";
    }
    return refusal_of_sort(u, cmd, argv, argc);
}

bool front_answers_acl(const struct command *cmd)
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

void front_answer_acl(struct front_client *c, struct resp_out *o, const struct command *cmd, const struct bytes *argv,
                      size_t argc)
{
    struct users *users = &c->worker->front->policy.users;
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
    if (changed) tell_workers(c->worker->front, c);
}

/* ---- limits ---- */

static int64_t longer(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

void front_delay(struct front_client *c, int64_t ms)
{
    struct front_worker *w = c->worker;
    c->policy.delayed_until = w->now_ms + ms;
    list_push_back(&w->policy.delayed, &c->policy.delayed);
    if (c->policy.delayed_until < w->policy.timer.due_ms) w->policy.timer.due_ms = c->policy.delayed_until;
    front_count(&w->stats.delayed_now, 1);
    front_count(&w->stats.delayed_ever, 1);
}

/* Nobody yet whose limit it could use up. */
static bool is_stranger(const struct front_client *c)
{
    return c->backend->is_stranger ? c->backend->is_stranger(c) : front_must_log_in(c);
}

/* A transaction is let through as a whole. */
static bool refuse(struct front_client *c, struct limiter *user, struct limiter *address)
{
    if (!c->worker->config->limit_refuses || in_transaction(c)) return false;
    int64_t wait = user ? limiter_wait(user, now_ns(c)) : 0;
    if (address) wait = longer(wait, limiter_wait(address, now_ns(c)));
    if (wait == 0) return false;
    char text[96];
    long long ms = wait / 1000000 + 1;
    snprintf(text, sizeof text, "ERR rate limit exceeded, try again in %lld ms", ms);
    c->backend->answer_error(c, text);
    front_count(&c->worker->stats.limit_refusals, 1);
    return true;
}

bool front_admit_slow(struct front_client *c, size_t bytes, bool *refused)
{
    struct limiter *user = is_stranger(c) ? NULL : c->policy.account->limit, *address = c->policy.address;
    if (c->policy.admitted || (!user && !address)) return true;
    *refused = refuse(c, user, address);
    if (*refused) return false;
    int64_t wait = user ? limiter_take(user, now_ns(c), bytes) : 0;
    if (address) wait = longer(wait, limiter_take(address, now_ns(c), bytes));
    c->policy.admitted = true;
    if (wait < 1000000 || c->worker->config->limit_refuses) return true; /* less than a timer can tell */
    front_delay(c, wait / 1000000);
    return false;
}

void front_charge_slow(struct front_client *c, size_t bytes)
{
    struct limiter *user = is_stranger(c) ? NULL : c->policy.account->limit;
    if (user) limiter_charge(user, now_ns(c), bytes);
    if (c->policy.address) limiter_charge(c->policy.address, now_ns(c), bytes);
}
