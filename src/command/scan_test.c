#include "base/clock.h"
#include "command/call_test.h"
#include "command/scan.h"
#include "store/stream.h"

static void put(struct harness *h, const char *format, unsigned i)
{
    char name[64];
    struct bytes argv[] = {BYTES("SET"), {0}, BYTES("x")};
    argv[1] = bytes_make(name, (size_t)snprintf(name, sizeof name, format, i));
    run_argv(h, cmd_set, argv, 3);
}

static void drop(struct harness *h, const char *format, unsigned i)
{
    char name[64];
    struct bytes argv[] = {BYTES("DEL"), {0}};
    argv[1] = bytes_make(name, (size_t)snprintf(name, sizeof name, format, i));
    run_argv(h, cmd_del, argv, 2);
}

/* Runs SCAN with the options; the reply, to be freed. */
static struct resp_value *scan(struct harness *h, struct bytes cursor, const char *options)
{
    char line[256];
    snprintf(line, sizeof line, "SCAN %.*s %s", (int)cursor.n, cursor.p, options);
    run(h, cmd_scan, line);
    struct resp_reply_parser parser = {0};
    struct resp_value *v;
    assert_int_equal(resp_parse_reply(&parser, bytes_make(h->reply, h->reply_length), &v), OK);
    assert_int_equal(v->n, 2);
    assert_int_equal(v->child[0].type, RESP_BULK);
    return v;
}

static void arguments_are_checked(void **state)
{
    const char syntax[] = "-ERR syntax error\r\n", cursor[] = "-ERR invalid cursor\r\n";
    const char empty[] = "*2\r\n$1\r\n0\r\n*0\r\n";
    const struct step steps[] = {
        {cmd_scan, "SCAN 0", empty, ""},
        {cmd_scan, "SCAN ''", empty, ""},
        {cmd_scan, "SCAN 007", empty, ""},
        {cmd_scan, "SCAN 18446744073709551615", empty, ""},
        {cmd_scan, "SCAN -1", empty, ""},
        {cmd_scan, "SCAN ' 1'", cursor, ""},
        {cmd_scan, "SCAN 1x", cursor, ""},
        {cmd_scan, "SCAN 99999999999999999999", cursor, ""},
        {cmd_scan, "SCAN 0 COUNT", syntax, ""},
        {cmd_scan, "SCAN 0 COUNT 0", syntax, ""},
        {cmd_scan, "SCAN 0 COUNT -1", syntax, ""},
        {cmd_scan, "SCAN 0 COUNT x", "-ERR value is not an integer or out of range\r\n", ""},
        {cmd_scan, "SCAN 0 count 9223372036854775807 match x TYPE nosuchtype", empty, ""},
        {cmd_scan, "SCAN 0 WITH x", syntax, ""},
        {cmd_keys, "KEYS *", "*0\r\n", ""},
    };
    RUN_STEPS(*state, steps);
    struct harness *h = *state;
    h->flags = CALL_IN_EXEC;
    assert_string_equal(run(h, cmd_scan, "SCAN 0"), empty);
    assert_true(h->exclusive);
    assert_string_equal(run(h, cmd_keys, "KEYS *"), "*0\r\n");
    assert_true(h->exclusive);
}

static void filters(void **state)
{
    struct harness *h = *state;
    run(h, cmd_mset, "MSET apple 1 pear 2 fig 3");
    run(h, cmd_set, "SET over 1 PX 1");
    h->now_ms += 10;
    struct key k = key_of(BYTES("stream"));
    store_put(h->store, 0, &k, stream_entry_new(k.name));
    const struct {
        const char *options;
        size_t n;
    } cases[] = {{"", 4},
                 {"MATCH *", 4},
                 {"MATCH *p*", 2},
                 {"MATCH [a-f]*", 2},
                 {"TYPE string", 3},
                 {"TYPE STREAM", 1},
                 {"TYPE nosuch", 0},
                 {"TYPE string MATCH f*", 1},
                 {"MATCH over", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct resp_value *v = scan(h, BYTES("0"), cases[i].options);
        assert_true(bytes_eq(v->child[0].str, BYTES("0")));
        assert_int_equal(v->child[1].n, cases[i].n);
        resp_value_free(v);
    }
    assert_string_equal(run(h, cmd_keys, "KEYS [^a-f]ea?"), "*1\r\n$4\r\npear\r\n");
    assert_string_equal(run(h, cmd_keys, "KEYS over"), "*0\r\n");
    assert_int_equal(store_db_count(h->store, 0), 5); /* hidden, not deleted */
    h->flags = CALL_ON_REPLICA;
    assert_string_equal(run(h, cmd_keys, "KEYS over"), "*0\r\n");
}

static void count_bounds_the_work(void **state)
{
    enum { KEYS = 3000 };
    struct harness *h = *state;
    for (unsigned i = 0; i < KEYS; i++) put(h, i % 2 ? "{t}%u" : "%u", i);
    char cursor[32] = "0";
    size_t seen = 0, calls = 0;
    do {
        struct resp_value *v = scan(h, bytes_of(cursor), "COUNT 100");
        snprintf(cursor, sizeof cursor, "%.*s", (int)v->child[0].str.n, v->child[0].str.p);
        assert_true(v->child[1].n <= 200);
        seen += v->child[1].n;
        calls++;
        resp_value_free(v);
    } while (strcmp(cursor, "0") != 0);
    assert_int_equal(seen, KEYS); /* nothing changed meanwhile: exactly once */
    assert_in_range(calls, 10, 40);
}

/* ---- What is there all the time is seen, whatever comes and goes ------------------------------------------------- */

enum { STAYING = 400 };

static void note(const struct resp_value *keys, const char *prefix, bool *seen)
{
    size_t n = strlen(prefix);
    for (size_t i = 0; i < keys->n; i++) {
        struct bytes name = keys->child[i].str;
        if (name.n <= n || memcmp(name.p, prefix, n) != 0) continue;
        int at = atoi(name.p + n);
        assert_in_range(at, 0, STAYING - 1);
        seen[at] = true;
    }
}

static void scan_under_change(struct harness *h, struct random *r, const char *staying, const char *passing)
{
    char format[64], cursor[32] = "0", options[32];
    bool seen[STAYING] = {0};
    unsigned low = 0, high = 0; /* passing keys [low, high) are there */
    bool growing = random_below(r, 2);
    if (!growing)
        while (high < 3000) put(h, passing, high++);
    snprintf(format, sizeof format, "%s%%u", staying);
    for (unsigned i = 0; i < STAYING; i++) put(h, format, i);
    do {
        sprintf(options, "COUNT %d", 1 + (int)random_below(r, 30));
        struct resp_value *v = scan(h, bytes_of(cursor), options);
        snprintf(cursor, sizeof cursor, "%.*s", (int)v->child[0].str.n, v->child[0].str.p);
        note(&v->child[1], staying, seen);
        resp_value_free(v);
        if (random_below(r, 50) == 0) growing = !growing;
        for (uint64_t n = random_below(r, 60); n; n--) {
            if (growing && high < 20000)
                put(h, passing, high++);
            else if (low < high)
                drop(h, passing, low++);
        }
    } while (strcmp(cursor, "0") != 0);
    for (unsigned i = 0; i < STAYING; i++)
        if (!seen[i]) fail_msg("%s%u was never seen", staying, i);
    run(h, cmd_flushall, "FLUSHALL");
}

static void what_stays_is_seen(void **state)
{
    struct random r;
    uint64_t seed = (uint64_t)clock_wall_us();
    print_message("seed %llu\n", (unsigned long long)seed);
    random_seed(&r, seed);
    for (int round = 0; round < 10; round++) {
        scan_under_change(*state, &r, "{slot}s", "{slot}p%u");    /* one large table */
        if (round < 3) scan_under_change(*state, &r, "s", "p%u"); /* many small ones */
    }
}

static void keys_lists_each_once(void **state)
{
    struct harness *h = *state;
    bool seen[STAYING] = {0};
    for (unsigned i = 0; i < STAYING; i++) put(h, i % 3 ? "{a}k%u" : "k%u", i);
    run(h, cmd_keys, "KEYS *k*");
    struct resp_reply_parser parser = {0};
    struct resp_value *v;
    assert_int_equal(resp_parse_reply(&parser, bytes_make(h->reply, h->reply_length), &v), OK);
    assert_int_equal(v->n, STAYING);
    for (size_t i = 0; i < v->n; i++) {
        const char *digits = v->child[i].str.p + (v->child[i].str.p[0] == '{' ? 4 : 1);
        int at = atoi(digits);
        assert_false(seen[at]);
        seen[at] = true;
    }
    resp_value_free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(arguments_are_checked, harness_start, harness_stop),
        cmocka_unit_test_setup_teardown(filters, harness_start, harness_stop),
        cmocka_unit_test_setup_teardown(count_bounds_the_work, harness_start, harness_stop),
        cmocka_unit_test_setup_teardown(what_stays_is_seen, harness_start, harness_stop),
        cmocka_unit_test_setup_teardown(keys_lists_each_once, harness_start, harness_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
