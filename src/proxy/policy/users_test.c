/* Sets of users: what a change does to those that are held, who is a new user, and many threads at once. */
#include "proxy/policy/users.h"

#include "base/hash.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static bool may_get(const struct account *a)
{
    struct bytes argv[] = {BYTES("get"), BYTES("k")};
    return access_verdict(a->user, command_by_id(CMD_ID_GET), argv, 2, NULL) == ACL_ALLOWED;
}

/* ACL SETUSER name rule; what it replied is thrown away. */
static bool set(struct users *u, const char *name, const char *rule)
{
    struct buf b = {0};
    struct resp_out o = {&b, 2};
    struct bytes argv[] = {BYTES("acl"), BYTES("setuser"), bytes_of(name), bytes_of(rule)};
    bool ok = users_set(u, &o, argv, 4);
    assert_int_equal(b.p[0], ok ? '+' : '-');
    buf_deinit(&b);
    return ok;
}

static bool delete (struct users *u, const char *name)
{
    struct buf b = {0};
    struct resp_out o = {&b, 2};
    struct bytes argv[] = {BYTES("acl"), BYTES("deluser"), bytes_of(name)};
    bool ok = users_delete(u, &o, argv, 3);
    buf_deinit(&b);
    return ok;
}

static void a_held_set_does_not_change(void **state)
{
    (void)state;
    struct users u;
    struct users_options o = {.password = "", .path = ""};
    assert_true(users_create(&u, &o));
    struct user_set *first = users_hold(&u);
    assert_false(first->login_needed);
    assert_null(user_set_find(first, BYTES("bob")));
    assert_true(set(&u, "bob", "+get"));
    assert_false(set(&u, "bob", "+nosuch"));
    assert_true(set(&u, "bob", "~k"));
    struct user_set *second = users_hold(&u);
    assert_int_equal(second->version, first->version + 2);
    assert_null(user_set_find(first, BYTES("bob")));
    const struct account *bob = user_set_find(second, BYTES("bob"));
    assert_true(may_get(bob));
    assert_true(set(&u, "bob", "-get"));
    assert_true(set(&u, "default", ">secret"));
    struct user_set *third = users_hold(&u);
    assert_true(may_get(bob));
    assert_false(may_get(user_set_find(third, BYTES("bob"))));
    assert_true(third->login_needed);
    /* The same user, with other rules; the one that nobody touched is unchanged. */
    assert_int_equal(bob->born, user_set_find(third, BYTES("bob"))->born);
    assert_true(user_set_find(third, BYTES("bob"))->changed > bob->changed);
    assert_true(set(&u, "ann", "on"));
    struct user_set *fourth = users_hold(&u);
    assert_int_equal(user_set_find(fourth, BYTES("bob"))->changed, user_set_find(third, BYTES("bob"))->changed);
    /* Deleted and made anew, it is another user. */
    assert_true(delete (&u, "bob"));
    assert_false(delete (&u, "bob"));
    assert_false(delete (&u, "default"));
    assert_true(set(&u, "bob", "+get"));
    struct user_set *fifth = users_hold(&u);
    assert_int_not_equal(user_set_find(fifth, BYTES("bob"))->born, bob->born);
    struct user_set *all[] = {first, second, third, fourth, fifth};
    for (size_t i = 0; i < 5; i++) user_set_release(all[i]);
    users_destroy(&u);
}

static void limits_outlive_changes(void **state)
{
    (void)state;
    struct users u;
    struct limit_rules *rules = limit_rules_create();
    struct users_options o = {.password = "", .path = "", .limits = rules};
    assert_true(limit_rules_add(rules, BYTES("bob 10:1")));
    assert_true(users_create(&u, &o));
    assert_true(set(&u, "bob", "on"));
    struct user_set *before = users_hold(&u);
    struct limiter *l = user_set_find(before, BYTES("bob"))->limit;
    assert_null(user_set_default(before)->limit);
    limiter_take(l, 1, 1);
    assert_true(set(&u, "bob", "+get"));
    struct user_set *after = users_hold(&u);
    assert_ptr_equal(user_set_find(after, BYTES("bob"))->limit, l); /* what was taken stays taken */
    struct limit_rules *others = limit_rules_create();
    assert_true(limit_rules_add(others, BYTES("bob 5:1")));
    assert_true(limit_rules_add(others, BYTES("* 7")));
    users_set_limits(&u, others);
    limit_rules_destroy(rules);
    struct user_set *last = users_hold(&u);
    struct limiter *now = user_set_find(last, BYTES("bob"))->limit;
    assert_int_equal(limiter_rule(now)->ops, 5);
    assert_true(limiter_wait(now, 1) > 0); /* also under another rule */
    assert_int_equal(limiter_rule(user_set_default(last)->limit)->ops, 7);
    assert_int_equal(user_set_find(last, BYTES("bob"))->changed, user_set_find(after, BYTES("bob"))->changed);
    user_set_release(before);
    user_set_release(after);
    user_set_release(last);
    users_destroy(&u);
    limit_rules_destroy(others);
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void a_file_is_read_anew(void **state)
{
    (void)state;
    char path[] = "/tmp/covey-users-XXXXXX";
    close(mkstemp(path));
    struct users u;
    struct users_options o = {.password = "", .path = path};
    struct buf b = {0};
    struct resp_out out = {&b, 2};
    write_file(path, "user default on nopass +@all ~* &*\nuser bob on >p +get ~*\n");
    char options_path[sizeof path];
    memcpy(options_path, path, sizeof path);
    assert_true(users_create(&u, &(struct users_options){.password = "", .path = options_path}));
    memset(options_path, 'x', sizeof path - 1); /* what it was made from goes, with the settings of the start */
    struct user_set *before = users_hold(&u);
    write_file(path, "user default on nopass +@all ~* &*\nuser bob on >p +nosuch\n");
    assert_false(users_load(&u, &out));
    assert_int_equal(b.p[0], '-');
    struct user_set *same = users_hold(&u);
    assert_ptr_equal(before, same);
    write_file(path, "user default on nopass +@all ~* &*\nuser bob on >p +get ~*\n");
    assert_true(users_load(&u, &out));
    struct user_set *after = users_hold(&u);
    assert_int_equal(user_set_default(before)->born, user_set_default(after)->born);
    assert_int_not_equal(user_set_find(before, BYTES("bob"))->born, user_set_find(after, BYTES("bob"))->born);
    assert_true(set(&u, "ann", "on"));
    b.n = 0;
    users_save(&u, &out);
    assert_int_equal(b.p[0], '+');
    struct users again;
    assert_true(users_create(&again, &o));
    struct user_set *read = users_hold(&again);
    assert_non_null(user_set_find(read, BYTES("ann")));
    struct user_set *all[] = {before, same, after};
    for (size_t i = 0; i < 3; i++) user_set_release(all[i]);
    user_set_release(read);
    users_destroy(&again);
    users_destroy(&u);
    buf_deinit(&b);
    unlink(path);
}

struct crowd {
    struct users users;
    _Atomic bool stop;
};

static void add_rule(struct acl *a, const char *name, const char *rule)
{
    struct bytes rules[] = {bytes_of(rule)};
    size_t failed;
    assert_null(acl_set_user(a, bytes_of(name), rules, 1, &failed));
}

static const struct account *find(struct users *u, const char *name)
{
    const struct account *a = user_set_find(u->current, bytes_of(name));
    assert_non_null(a);
    return a;
}

static void a_mirror_follows_its_table(void **state)
{
    (void)state;
    struct users u;
    struct users_options o = {.password = "", .path = ""};
    assert_true(users_create(&u, &o));
    struct acl *table = acl_create(access_commands());
    add_rule(table, "bob", "+get");
    add_rule(table, "eve", "+get");
    add_rule(table, "eve", "~*");
    users_mirror(&u, acl_copy(table), false);
    assert_false(set(&u, "bob", "+set")); /* nobody else changes it */
    assert_false(delete (&u, "bob"));
    struct account bob = *find(&u, "bob"), eve = *find(&u, "eve");
    add_rule(table, "bob", "~*");
    users_mirror(&u, acl_copy(table), false);
    assert_int_equal(find(&u, "bob")->born, bob.born);
    assert_int_equal(find(&u, "bob")->changed, u.version);
    assert_int_equal(find(&u, "eve")->changed, eve.changed); /* has the rules that it had */
    assert_true(may_get(find(&u, "bob")));
    acl_delete(table, acl_find(table, BYTES("bob")));
    users_mirror(&u, acl_copy(table), false);
    assert_null(user_set_find(u.current, BYTES("bob")));
    add_rule(table, "bob", "+get");
    users_mirror(&u, acl_copy(table), false);
    assert_true(find(&u, "bob")->born > bob.born); /* another one */
    struct account everybody = *find(&u, "default");
    acl_set_default_password(table, BYTES("secret"));
    users_mirror(&u, acl_copy(table), true);
    assert_true(find(&u, "eve")->born > eve.born);
    assert_int_equal(find(&u, "default")->born, everybody.born);
    assert_true(u.current->login_needed);
    users_set_password(&u, "");
    assert_true(u.current->login_needed); /* nor by the proxy's settings */
    acl_destroy(table);
    users_destroy(&u);
}

static void *judge(void *arg)
{
    struct crowd *c = arg;
    uint64_t version = 0, judged = 0;
    while (!atomic_load(&c->stop)) {
        struct user_set *s = users_hold(&c->users);
        if (s->version < version) abort();
        version = s->version;
        judged += may_get(user_set_find(s, BYTES("bob")));
        user_set_release(s);
    }
    return (void *)(uintptr_t)judged;
}

static void many_threads_judge_while_users_change(void **state)
{
    (void)state;
    struct crowd c = {.stop = false};
    struct users_options o = {.password = "", .path = ""};
    pthread_t threads[3];
    assert_true(users_create(&c.users, &o));
    assert_true(set(&c.users, "bob", "~*"));
    for (size_t i = 0; i < 3; i++) assert_int_equal(pthread_create(&threads[i], NULL, judge, &c), 0);
    for (int i = 0; i < 2000; i++) assert_true(set(&c.users, "bob", i % 2 ? "-get" : "+get"));
    atomic_store(&c.stop, true);
    for (size_t i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    users_destroy(&c.users);
}

int main(void)
{
    hash_seed_set(1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_held_set_does_not_change),
        cmocka_unit_test(limits_outlive_changes),
        cmocka_unit_test(a_file_is_read_anew),
        cmocka_unit_test(a_mirror_follows_its_table),
        cmocka_unit_test(many_threads_judge_while_users_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
