#include "proxy/policy/users.h"

#include "base/log.h"
#include "base/mem.h"

#include <stdlib.h>

/* ---- sets ---- */

static int by_name(const void *name, const void *account)
{
    return bytes_cmp(*(const struct bytes *)name, account_name(account));
}

const struct account *user_set_find(const struct user_set *s, struct bytes name)
{
    return bsearch(&name, s->accounts, s->count, sizeof *s->accounts, by_name);
}

const struct account *user_set_default(const struct user_set *s)
{
    return user_set_find(s, BYTES("default"));
}

void user_set_release(struct user_set *s)
{
    if (!s || atomic_fetch_sub(&s->refs, 1) != 1) return;
    for (size_t i = 0; i < s->count; i++) limiter_release(s->accounts[i].limit);
    mem_free(s->accounts);
    acl_destroy(s->acl);
    mem_free(s);
}

/* What is known of the difference between a table and the one before. */
struct change {
    const struct bytes *touched; /* this user has other rules */
    bool renewed;                /* all but the default user are new ones */
    bool unknown;                /* which rules are others has to be found out */
    bool other_limits;
};

static bool same_rules(const struct acl *a, const struct acl_user *x, const struct acl *b, const struct acl_user *y)
{
    struct buf one = {0}, other = {0};
    access_line(a, x, &one);
    access_line(b, y, &other);
    bool same = bytes_eq(buf_bytes(&one), buf_bytes(&other));
    buf_deinit(&one);
    buf_deinit(&other);
    return same;
}

/* Whether the user may have other rights than it had as `before`, in the table `old`. */
static bool has_changed(const struct change *c, const struct acl *old, const struct account *before,
                        const struct acl *acl, const struct acl_user *user)
{
    if (c->renewed || (c->touched && bytes_eq(*c->touched, acl_user_name(user)))) return true;
    return c->unknown && !same_rules(old, before->user, acl, user);
}

/* Makes a set of the table, which it takes, and publishes it; under the lock.  Who had a limit keeps what it has taken
 * of it. */
static void publish(struct users *u, struct acl *acl, struct change change)
{
    struct user_set *old = u->current, *s = mem_calloc(1, sizeof *s);
    size_t n;
    const struct acl_user **all = acl_sorted(acl, &n);
    atomic_store(&s->refs, 1);
    s->version = old ? old->version + 1 : 1;
    s->acl = acl;
    s->accounts = mem_calloc(n, sizeof *s->accounts);
    s->count = n;
    for (size_t i = 0; i < n; i++) {
        struct account *a = &s->accounts[i];
        struct bytes name = acl_user_name(all[i]);
        const struct account *before = old ? user_set_find(old, name) : NULL;
        bool is_default = all[i] == acl_default_user(acl);
        a->user = all[i];
        struct limiter *had = before ? before->limit : NULL;
        a->limit =
            had && !change.other_limits ? limiter_hold(had) : limiter_renew(had, limit_rule_of_user(u->limits, name));
        a->born = before && (is_default || !change.renewed) ? before->born : ++u->births;
        a->changed = before && !has_changed(&change, old->acl, before, acl, all[i]) ? before->changed : s->version;
    }
    mem_free(all);
    const struct acl_user *d = acl_default_user(acl);
    s->login_needed = !acl_user_nopass(d) || !acl_user_enabled(d);
    u->current = s;
    atomic_store(&u->version, s->version);
    user_set_release(old);
}

struct user_set *users_hold(struct users *u)
{
    pthread_mutex_lock(&u->mu);
    struct user_set *s = u->current;
    atomic_fetch_add(&s->refs, 1);
    pthread_mutex_unlock(&u->mu);
    return s;
}

/* ---- the start ---- */

static struct acl *fresh_table(const struct users *u, const char *password)
{
    struct acl *a = acl_create(access_commands());
    acl_set_all_channels_default(a, u->all_channels);
    if (*password) acl_set_default_password(a, bytes_of(password));
    return a;
}

bool users_create(struct users *u, const struct users_options *options)
{
    struct buf errors = {0};
    *u = (struct users){.limits = options->limits, .all_channels = options->all_channels};
    u->path = bytes_dup_cstr(bytes_of(options->path));
    pthread_mutex_init(&u->mu, NULL);
    u->log = acl_log_create();
    struct acl *a = fresh_table(u, options->password);
    bool ok = !*options->path || access_read_file(a, options->path, &errors);
    if (!ok) log_warning("The users cannot be read: %.*s", (int)errors.n, errors.p);
    publish(u, a, (struct change){.touched = NULL});
    buf_deinit(&errors);
    return ok;
}

void users_destroy(struct users *u)
{
    user_set_release(u->current);
    acl_log_destroy(u->log);
    mem_free(u->path);
    pthread_mutex_destroy(&u->mu);
}

/* ---- changes ---- */

void users_set_limits(struct users *u, const struct limit_rules *limits)
{
    pthread_mutex_lock(&u->mu);
    u->limits = limits;
    publish(u, acl_copy(u->current->acl), (struct change){.other_limits = true});
    pthread_mutex_unlock(&u->mu);
}

void users_set_password(struct users *u, const char *password)
{
    struct bytes name = BYTES("default");
    if (u->is_mirror) return; /* the table's password is the one */
    pthread_mutex_lock(&u->mu);
    struct acl *a = acl_copy(u->current->acl);
    acl_set_default_password(a, bytes_of(password));
    publish(u, a, (struct change){.touched = &name});
    pthread_mutex_unlock(&u->mu);
}

void users_mirror(struct users *u, struct acl *acl, bool renewed)
{
    pthread_mutex_lock(&u->mu);
    if (!u->is_mirror) u->is_mirror = true;
    publish(u, acl, (struct change){.renewed = renewed, .unknown = true});
    pthread_mutex_unlock(&u->mu);
}

static bool refuse_to_change(const struct users *u, struct resp_out *o)
{
    if (u->is_mirror) resp_error(o, "ERR the users here are those of this node: change them at its own port");
    return u->is_mirror;
}

bool users_set(struct users *u, struct resp_out *o, const struct bytes *argv, size_t argc)
{
    if (refuse_to_change(u, o)) return false;
    pthread_mutex_lock(&u->mu);
    struct acl *a = acl_copy(u->current->acl);
    bool ok = access_set_user(o, a, argv, argc);
    if (ok)
        publish(u, a, (struct change){.touched = &argv[2]});
    else
        acl_destroy(a);
    pthread_mutex_unlock(&u->mu);
    if (ok) resp_ok(o);
    return ok;
}

bool users_delete(struct users *u, struct resp_out *o, const struct bytes *argv, size_t argc)
{
    if (refuse_to_change(u, o)) return false;
    int64_t deleted = 0;
    for (size_t i = 2; i < argc; i++) {
        if (!bytes_eq(argv[i], BYTES("default"))) continue;
        resp_error(o, "ERR The 'default' user cannot be removed");
        return false;
    }
    pthread_mutex_lock(&u->mu);
    struct acl *a = acl_copy(u->current->acl);
    for (size_t i = 2; i < argc; i++) {
        struct acl_user *user = acl_find(a, argv[i]);
        if (!user) continue;
        acl_delete(a, user);
        deleted++;
    }
    if (deleted)
        publish(u, a, (struct change){.touched = NULL});
    else
        acl_destroy(a);
    pthread_mutex_unlock(&u->mu);
    resp_i64(o, deleted);
    return deleted > 0;
}

bool users_load(struct users *u, struct resp_out *o)
{
    if (refuse_to_change(u, o)) return false;
    struct buf errors = {0};
    if (!*u->path) {
        resp_error(o, access_no_file);
        return false;
    }
    struct acl *a = acl_create(access_commands());
    acl_set_all_channels_default(a, u->all_channels);
    bool ok = access_read_file(a, u->path, &errors);
    if (ok) {
        pthread_mutex_lock(&u->mu);
        publish(u, a, (struct change){.renewed = true});
        pthread_mutex_unlock(&u->mu);
        resp_ok(o);
    } else {
        buf_append_char(&errors, '\0');
        resp_errorf(o, "ERR %s", errors.p);
        acl_destroy(a);
    }
    buf_deinit(&errors);
    return ok;
}

void users_save(struct users *u, struct resp_out *o)
{
    if (refuse_to_change(u, o)) return;
    if (!*u->path) {
        resp_error(o, access_no_file);
        return;
    }
    pthread_mutex_lock(&u->mu); /* no second one writes the same file */
    bool ok = access_write_file(u->current->acl, u->path);
    pthread_mutex_unlock(&u->mu);
    if (ok)
        resp_ok(o);
    else
        resp_error(o, access_not_saved);
}
