/* The table of users, passwords, selectors over several words, patterns and the log, with a few made-up commands. */
#include "acl/acl.h"

#include "base/hash.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

enum { READ = 1, WRITE = 2 };
enum { GET, SET, CONFIG, CONFIG_GET, CONFIG_SET, PUBLISH, COMMANDS };

static const struct acl_command rows[COMMANDS] = {{"get", READ, 0, false},        {"set", WRITE, 0, false},
                                                  {"config", 0, 2, false},        {"config|get", READ, 0, true},
                                                  {"config|set", WRITE, 0, true}, {"publish", 0, 0, false}};
static const char *const categories[] = {"read", "write"};

static int find(struct bytes name)
{
    for (int i = 0; i < COMMANDS; i++)
        if (bytes_ieq(name, bytes_of(rows[i].name))) return i;
    return -1;
}

static const struct acl_commands commands = {rows, COMMANDS, find, categories, 2};

static const char *set_user(struct acl *a, const char *name, const char *words)
{
    struct bytes rules[32];
    size_t n = 0, failed;
    while (*words) {
        size_t length = strcspn(words, "\t");
        rules[n++] = bytes_make(words, length);
        words += length + (words[length] == '\t');
    }
    return acl_set_user(a, bytes_of(name), rules, n, &failed);
}

static void assert_described(struct acl *a, const char *name, const char *expected)
{
    struct buf text = {0};
    acl_user_describe(a, acl_find(a, bytes_of(name)), &text);
    buf_append_char(&text, '\0');
    assert_string_equal(text.p, expected);
    buf_deinit(&text);
}

static enum acl_verdict check(struct acl *a, const char *name, unsigned command, const char *key, unsigned need)
{
    struct bytes argv[2] = {bytes_of(rows[command].name), bytes_of(key)};
    struct acl_key k = {1, need};
    struct acl_request r = {.command = command, .argv = argv, .argc = 2, .keys = &k, .key_count = 1};
    return acl_check(acl_find(a, bytes_of(name)), &r, NULL);
}

static void rules_and_selectors(void **state)
{
    (void)state;
    struct acl *a = acl_create(&commands);
    assert_true(acl_user_is_free(acl_default_user(a)));
    assert_described(a, "default", "on nopass ~* &* +@all");
    assert_null(set_user(a, "a", "on\t+get\t%R~r*\t(+set %W~w* ~b)"));
    assert_described(a, "a", "on %R~r* resetchannels -@all +get (%W~w* ~b resetchannels -@all +set)");
    assert_int_equal(check(a, "a", GET, "r1", ACL_READ), ACL_ALLOWED);
    assert_int_equal(check(a, "a", GET, "w1", ACL_READ), ACL_DENIED_KEY);
    assert_int_equal(check(a, "a", SET, "w1", ACL_WRITE), ACL_ALLOWED);
    assert_int_equal(check(a, "a", SET, "w1", ACL_WRITE | ACL_READ), ACL_DENIED_KEY);
    assert_int_equal(check(a, "a", SET, "b", ACL_WRITE | ACL_READ), ACL_ALLOWED);
    assert_int_equal(check(a, "a", PUBLISH, "b", 0), ACL_DENIED_COMMAND);
    /* All or nothing. */
    assert_string_equal(set_user(a, "a", "off\t+nosuch"), "Unknown command or category name in ACL");
    assert_string_equal(set_user(a, "new", "+config|get|x"), "Allowing first-arg of a subcommand is not supported");
    assert_null(acl_find(a, BYTES("new")));
    assert_true(acl_user_enabled(acl_find(a, BYTES("a"))));
    /* A container with its subcommands, and first arguments of others. */
    assert_null(set_user(a, "c", "+config\t-config|set\t+get|x\t+GET|X\t+get|y"));
    assert_described(a, "c", "off resetchannels -@all +get|x +get|y +config -config|set");
    assert_int_equal(check(a, "c", CONFIG_GET, "", 0), ACL_DENIED_KEY);
    assert_int_equal(check(a, "c", CONFIG_SET, "", 0), ACL_DENIED_COMMAND);
    assert_null(set_user(a, "c", "~*\t+@all"));
    assert_described(a, "c", "off ~* resetchannels +@all");
    assert_null(set_user(a, "c", "-config|set"));
    assert_int_equal(check(a, "c", CONFIG_SET, "", 0), ACL_DENIED_COMMAND);
    assert_int_equal(check(a, "c", CONFIG_GET, "", 0), ACL_ALLOWED);
    acl_destroy(a);
}

static void passwords(void **state)
{
    (void)state;
    struct acl *a = acl_create(&commands);
    /* SHA-256 of "abc": FIPS 180-2, appendix B.1. */
    assert_null(set_user(a, "a", "on\t#ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\t>x"));
    const struct acl_user *u = acl_find(a, BYTES("a"));
    assert_true(acl_user_authenticate(u, BYTES("abc")));
    assert_true(acl_user_authenticate(u, BYTES("x")));
    assert_false(acl_user_authenticate(u, BYTES("")));
    assert_false(acl_user_authenticate(u, BYTES("ab")));
    assert_null(set_user(a, "a", "<x"));
    assert_false(acl_user_authenticate(u, BYTES("x")));
    assert_string_equal(set_user(a, "a", "<x"), "The password you are trying to remove from the user does not exist");
    assert_null(set_user(a, "a", "off"));
    assert_false(acl_user_authenticate(u, BYTES("abc")));
    acl_set_default_password(a, BYTES("abc"));
    assert_false(acl_user_nopass(acl_default_user(a)));
    acl_set_default_password(a, BYTES(""));
    assert_true(acl_user_authenticate(acl_default_user(a), BYTES("anything")));
    acl_destroy(a);
}

static void joined_selectors(void **state)
{
    (void)state;
    size_t n, at = 99;
    const struct bytes words[] = {BYTES("on"), BYTES("(+get"), BYTES("~a"), BYTES("+set)"), BYTES("off"), BYTES("(x)")};
    struct bytes *rules = acl_join_selectors(words, 6, &n, &at);
    assert_non_null(rules);
    assert_int_equal(n, 4);
    assert_true(bytes_eq(rules[1], BYTES("(+get ~a +set)")));
    assert_true(bytes_eq(rules[3], BYTES("(x)")));
    mem_free(rules);
    assert_null(acl_join_selectors(words, 3, &n, &at));
    assert_int_equal(at, 1);
    rules = acl_join_selectors(NULL, 0, &n, &at);
    assert_int_equal(n, 0);
    mem_free(rules);
}

static void many_users_come_and_go(void **state)
{
    (void)state;
    enum { MANY = 5000 };
    struct acl *a = acl_create(&commands);
    char name[32];
    size_t n;
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "u%d", i);
        assert_null(set_user(a, name, "on"));
    }
    assert_int_equal(acl_count(a), MANY + 1);
    for (int i = 0; i < MANY; i += 2) {
        snprintf(name, sizeof name, "u%d", i);
        acl_delete(a, acl_find(a, bytes_of(name)));
    }
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "u%d", i);
        assert_int_equal(acl_find(a, bytes_of(name)) != NULL, i % 2);
    }
    const struct acl_user **all = acl_sorted(a, &n);
    assert_int_equal(n, MANY / 2 + 1);
    for (size_t i = 1; i < n; i++) assert_true(bytes_cmp(acl_user_name(all[i - 1]), acl_user_name(all[i])) < 0);
    mem_free(all);
    acl_destroy(a);
}

static void exchanged_tables_keep_their_default_user(void **state)
{
    (void)state;
    struct acl *a = acl_create(&commands), *b = acl_create(&commands);
    const struct acl_user *default_a = acl_default_user(a);
    assert_null(set_user(a, "old", "on"));
    assert_null(set_user(b, "new", "on"));
    assert_null(set_user(b, "default", "off"));
    acl_exchange(a, b);
    assert_ptr_equal(acl_default_user(a), default_a);
    assert_ptr_equal(acl_find(a, BYTES("default")), default_a);
    assert_false(acl_user_enabled(default_a));
    assert_true(acl_user_enabled(acl_default_user(b)));
    assert_non_null(acl_find(a, BYTES("new")));
    assert_null(acl_find(a, BYTES("old")));
    assert_non_null(acl_find(b, BYTES("old")));
    acl_destroy(a);
    acl_destroy(b);
}

static void channels(void **state)
{
    (void)state;
    struct acl *a = acl_create(&commands);
    assert_null(set_user(a, "a", "&news.*\t&x"));
    const struct acl_user *u = acl_find(a, BYTES("a"));
    assert_true(acl_check_channel(u, BYTES("news.a"), false));
    assert_false(acl_check_channel(u, BYTES("chat"), false));
    assert_true(acl_check_channel(u, BYTES("news.*"), true));
    assert_false(acl_check_channel(u, BYTES("news.a*"), true)); /* a pattern has to be listed as it is */
    assert_false(acl_check_channel(u, BYTES("*"), true));
    acl_destroy(a);
}

struct seen {
    size_t n;
    uint64_t counts[8];
};

static void note(void *ctx, const struct acl_log_entry *e)
{
    struct seen *s = ctx;
    if (s->n < 8) s->counts[s->n] = e->count;
    s->n++;
}

static void logged(void **state)
{
    (void)state;
    struct acl_log *log = acl_log_create();
    struct acl_log_entry e = {.reason = ACL_DENIED_KEY, .object = BYTES("k"), .user = BYTES("u"), .at_ms = 1000};
    struct seen s = {0};
    acl_log_add(log, &e, 3);
    e.at_ms = 61000;
    acl_log_add(log, &e, 3); /* within a minute: the same entry */
    e.at_ms = 121001;
    acl_log_add(log, &e, 3); /* not any more */
    acl_log_each(log, 10, note, &s);
    assert_int_equal(s.n, 2);
    assert_true(s.counts[0] == 1 && s.counts[1] == 2);
    e.object = BYTES("other");
    acl_log_add(log, &e, 3);
    e.context = ACL_IN_MULTI;
    acl_log_add(log, &e, 3);
    s.n = 0;
    acl_log_each(log, 10, note, &s);
    assert_int_equal(s.n, 3); /* the oldest went */
    assert_int_equal(acl_log_refusals(log, ACL_DENIED_KEY), 5);
    acl_log_add(log, &e, 0);
    s.n = 0;
    acl_log_each(log, 10, note, &s);
    assert_int_equal(s.n, 0);
    acl_log_destroy(log);
}

int main(void)
{
    hash_seed_set(1);
    const struct CMUnitTest tests[] = {cmocka_unit_test(rules_and_selectors),
                                       cmocka_unit_test(passwords),
                                       cmocka_unit_test(joined_selectors),
                                       cmocka_unit_test(many_users_come_and_go),
                                       cmocka_unit_test(channels),
                                       cmocka_unit_test(exchanged_tables_keep_their_default_user),
                                       cmocka_unit_test(logged)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
