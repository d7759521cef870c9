/* Rules against users as redis-server 7.0.15 printed them, and against their own descriptions. */
#include "access/access.h"

#include "base/hash.h"
#include "base/mem.h"
#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* Rules separated by tabs, applied to a new user: either its description or the error that came. */
static const struct vector {
    const char *rules, *description, *error;
} vectors[] = {
#include "access/vectors.inc"
};

enum { WORDS_MAX = 600 };

static size_t split(const char *text, char separator, struct bytes *out)
{
    size_t n = 0;
    for (const char *at = text;; at++) {
        const char *end = strchr(at, separator);
        assert_true(n < WORDS_MAX);
        out[n++] = bytes_make(at, end ? (size_t)(end - at) : strlen(at));
        if (!end) return n;
        at = end;
    }
}

static bool is_single(struct bytes w)
{
    return w.n > 1 && (w.p[0] == '+' || w.p[0] == '-') && w.p[1] != '@';
}

static int compare(const void *a, const void *b)
{
    return bytes_cmp(*(const struct bytes *)a, *(const struct bytes *)b);
}

/* redis-server lists single commands in the order of a hash table that is seeded anew in every process. */
static char *sorted(const char *description)
{
    static struct bytes words[WORDS_MAX];
    struct buf out = {0}, spaced = {0};
    for (const char *p = description; *p; p++) {
        if (*p == ')') buf_append_char(&spaced, ' ');
        buf_append_char(&spaced, *p);
    }
    buf_append_char(&spaced, '\0');
    size_t n = split(spaced.p, ' ', words);
    for (size_t i = 0, run; i < n; i += run ? run : 1) {
        for (run = 0; i + run < n && is_single(words[i + run]);) run++;
        qsort(words + i, run, sizeof *words, compare);
    }
    for (size_t i = 0; i < n; i++) {
        buf_append_bytes(&out, words[i]);
        buf_append_char(&out, i + 1 < n ? ' ' : '\0');
    }
    buf_deinit(&spaced);
    return out.p;
}

static void as_redis_prints_them(void **state)
{
    (void)state;
    static struct bytes rules[WORDS_MAX];
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        const struct vector *v = &vectors[i];
        struct acl *a = acl_create(access_commands());
        size_t failed = 0, n = split(v->rules, '\t', rules);
        const char *error = acl_set_user(a, BYTES("v"), rules, n, &failed);
        if (v->error) {
            if (!error || strcmp(error, v->error) != 0) fail_msg("%s: %s, not %s", v->rules, error, v->error);
            assert_null(acl_find(a, BYTES("v")));
        } else {
            if (error) fail_msg("%s: %s", v->rules, error);
            struct buf text = {0};
            acl_user_describe(a, acl_find(a, BYTES("v")), &text);
            buf_append_char(&text, '\0');
            char *mine = sorted(text.p), *theirs = sorted(v->description);
            if (strcmp(mine, theirs) != 0) fail_msg("%s:\n  %s\n  %s", v->rules, mine, theirs);
            mem_free(mine);
            mem_free(theirs);
            buf_deinit(&text);
        }
        acl_destroy(a);
    }
}

/* ---- what is described is what it was described from ---- */

static void random_rule(struct random *r, struct buf *out)
{
    static const char *const others[] = {"allkeys", "resetkeys", "allchannels", "resetchannels", "~a*",
                                         "%R~b",    "%W~b",      "&c",          "allcommands",   "nocommands",
                                         "on",      "nopass",    ">p",          "reset",         "+select|0"};
    uint64_t kind = random_below(r, 10);
    out->n = 0;
    if (kind < 4) {
        buf_printf(out, "%c@%s", random_below(r, 2) ? '+' : '-',
                   command_category_name((unsigned)random_below(r, CMD_CATEGORY_COUNT)));
    } else if (kind < 8) {
        buf_printf(out, "%c%s", random_below(r, 2) ? '+' : '-',
                   command_by_id((enum command_id)random_below(r, CMD_ID_COUNT))->name);
    } else {
        buf_append_cstr(out, others[random_below(r, sizeof others / sizeof *others)]);
    }
}

static void assert_same_rights(const struct acl_user *one, const struct acl_user *two)
{
    for (unsigned id = 0; id < CMD_ID_COUNT; id++) {
        struct bytes argv[2] = {BYTES("x"), BYTES("0")};
        const struct command *cmd = command_by_id((enum command_id)id);
        assert_int_equal(access_verdict(one, cmd, argv, 1, NULL), access_verdict(two, cmd, argv, 1, NULL));
    }
}

static void descriptions_are_complete(void **state)
{
    (void)state;
    static struct bytes words[WORDS_MAX];
    struct random r;
    struct acl *a = acl_create(access_commands());
    struct buf rule = {0};
    random_seed(&r, 20240);
    for (int round = 0; round < 1500; round++) {
        size_t failed;
        random_rule(&r, &rule);
        struct bytes b = buf_bytes(&rule);
        if (acl_set_user(a, BYTES("u"), &b, 1, &failed)) continue; /* a pattern behind "allkeys" */
        struct buf text = {0};
        acl_user_describe(a, acl_find(a, BYTES("u")), &text);
        buf_append_char(&text, '\0');
        struct acl *fresh = acl_create(access_commands());
        size_t n = split(text.p, ' ', words);
        if (acl_set_user(fresh, BYTES("u"), words, n, &failed))
            fail_msg("round %d: %.*s in %s", round, (int)words[failed].n, words[failed].p, text.p);
        assert_same_rights(acl_find(a, BYTES("u")), acl_find(fresh, BYTES("u")));
        struct buf again = {0};
        acl_user_describe(fresh, acl_find(fresh, BYTES("u")), &again);
        buf_append_char(&again, '\0');
        assert_string_equal(text.p, again.p);
        buf_deinit(&again);
        buf_deinit(&text);
        acl_destroy(fresh);
    }
    buf_deinit(&rule);
    acl_destroy(a);
}

int main(void)
{
    hash_seed_set(1);
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_redis_prints_them),
                                       cmocka_unit_test(descriptions_are_complete)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
