/* Prometheus's format, hot keys, the slow log. */
#include "base/mem.h"
#include "observe/durations.h"
#include "observe/hotkeys.h"
#include "observe/nodes.h"
#include "observe/prometheus.h"
#include "observe/slowlog.h"

#include "base/hash.h"
#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static void expect_text(struct buf *b, const char *want)
{
    buf_append_char(b, '\0');
    assert_string_equal(b->p, want);
    buf_deinit(b);
}

static void samples_are_written(void **state)
{
    (void)state;
    struct buf b = {0};
    struct metric_label l[] = {{"backend", BYTES("a\"b\\c\nd\xff")}, {"command", BYTES("get")}};
    metric_family(&b, "x_total", METRIC_COUNTER, "One \\ and\nline \"two\".");
    metric_u64(&b, "x_total", l, 2, UINT64_MAX);
    metric_u64(&b, "x_total", NULL, 0, 0);
    metric_double(&b, "y", l + 1, 1, 0.25);
    expect_text(&b, "# HELP x_total One \\\\ and\\nline \"two\".\n"
                    "# TYPE x_total counter\n"
                    "x_total{backend=\"a\\\"b\\\\c\\nd?\",command=\"get\"} 18446744073709551615\n"
                    "x_total 0\n"
                    "y{command=\"get\"} 0.25\n");
}

static void histograms_are_cumulative(void **state)
{
    (void)state;
    struct histogram *h = mem_calloc(1, sizeof *h);
    struct buf b = {0};
    struct metric_label l = {"c", BYTES("v")};
    const uint64_t values[] = {1, 50, 51, 100, 3000, 20000000};
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        histogram_add(h, values[i]);
        sum += values[i];
    }
    metric_histogram(&b, "h", &l, 1, h, sum);
    expect_text(&b, "h_bucket{c=\"v\",le=\"5e-05\"} 2\nh_bucket{c=\"v\",le=\"0.0001\"} 4\n"
                    "h_bucket{c=\"v\",le=\"0.00025\"} 4\nh_bucket{c=\"v\",le=\"0.0005\"} 4\n"
                    "h_bucket{c=\"v\",le=\"0.001\"} 4\nh_bucket{c=\"v\",le=\"0.0025\"} 4\n"
                    "h_bucket{c=\"v\",le=\"0.005\"} 5\nh_bucket{c=\"v\",le=\"0.01\"} 5\n"
                    "h_bucket{c=\"v\",le=\"0.025\"} 5\nh_bucket{c=\"v\",le=\"0.05\"} 5\n"
                    "h_bucket{c=\"v\",le=\"0.1\"} 5\nh_bucket{c=\"v\",le=\"0.25\"} 5\n"
                    "h_bucket{c=\"v\",le=\"0.5\"} 5\nh_bucket{c=\"v\",le=\"1\"} 5\n"
                    "h_bucket{c=\"v\",le=\"2.5\"} 5\nh_bucket{c=\"v\",le=\"5\"} 5\n"
                    "h_bucket{c=\"v\",le=\"10\"} 5\nh_bucket{c=\"v\",le=\"+Inf\"} 6\n"
                    "h_sum{c=\"v\"} 20.003202\nh_count{c=\"v\"} 6\n");
    mem_free(h);
}

struct one_command {
    enum command_id id;
    uint64_t scale;
};

static bool durations_of(void *ctx, enum command_id id, struct histogram *out)
{
    const struct one_command *c = ctx;
    const uint64_t us[] = {1, 20, 33, 2000, 400000, 800000};
    histogram_clear(out);
    for (size_t i = 0; id == c->id && i < sizeof us / sizeof *us; i++) histogram_add(out, us[i] * c->scale);
    return id == c->id;
}

static void durations_are_told_in_either_unit(void **state)
{
    (void)state;
    const struct bytes names[] = {BYTES("get"), BYTES("nosuch"), BYTES("config")};
    for (unsigned per_us = 1; per_us <= 1000; per_us += 999) {
        struct one_command at_top = {CMD_ID_GET, per_us}, below = {CMD_ID_CONFIG_GET, per_us};
        struct durations d = {durations_of, &at_top, per_us};
        struct buf b = {0};
        struct resp_out o = {&b, 3};
        durations_reply(&o, &d, names, 3);
        expect_text(&b, "%1\r\n$3\r\nget\r\n%2\r\n$5\r\ncalls\r\n:6\r\n$14\r\nhistogram_usec\r\n%5\r\n"
                        ":1\r\n:1\r\n:33\r\n:3\r\n:2113\r\n:4\r\n:541065\r\n:5\r\n:1082130\r\n:6\r\n");
        d.ctx = &below;
        durations_reply(&o, &d, names, 3);
        assert_non_null(memmem(b.p, b.n, "config|get", 10));
        buf_deinit(&b);
        durations_reply(&o, &d, names, 2);
        expect_text(&b, "%0\r\n");
    }
}

static void note(struct hotkeys *h, const char *name, int64_t now_ms)
{
    hotkeys_note(h, 0, bytes_of(name), hash_bytes(bytes_of(name)), now_ms);
}

static void the_hottest_come_first(void **state)
{
    (void)state;
    struct hotkeys *two[] = {hotkeys_create(0), hotkeys_create(0)};
    struct random rng;
    char name[32];
    random_seed(&rng, 1);
    for (int i = 0; i < 20000; i++) { /* more keys than places */
        snprintf(name, sizeof name, "cold%d", (int)random_below(&rng, 5000));
        note(two[i % 2], i % 4 == 0 ? "hottest" : i % 10 == 1 ? "hot \"two\"\n" : name, i / 2);
    }
    struct buf b = {0};
    hotkeys_write(two, 2, 64, 10000, &b);
    buf_append_char(&b, '\0');
    assert_int_equal(strncmp(b.p, "hotkey_0:ops_per_sec=", 21), 0);
    const char *one = strstr(b.p, "db=0,key=\"hottest\"\r\n"),
               *second = strstr(b.p, "db=0,key=\"hot \\\"two\\\"\\x0a\"\r\n");
    assert_non_null(one);
    assert_non_null(second);
    assert_true(one < second);
    assert_true(second < strstr(b.p, "cold"));
    buf_deinit(&b);
    size_t count;
    struct heavy_key *all = hotkeys_collect(two, 2, 1, 10000, &count);
    assert_true(all[0].now > 450 && all[0].now < 560); /* 5000 in ten seconds */
    heavy_forget(all, count);
    all = hotkeys_collect(two, 2, 1, 60000, &count); /* long over */
    assert_int_equal(count, 0);
    heavy_forget(all, count);
    hotkeys_destroy(two[0]);
    hotkeys_destroy(two[1]);
}

static void the_slow_log_keeps_the_newest(void **state)
{
    (void)state;
    struct slowlog *s = slowlog_create();
    struct bytes argv[40] = {BYTES("SET")};
    char big[200];
    memset(big, 'x', sizeof big);
    for (int i = 1; i < 40; i++) argv[i] = BYTES("a");
    argv[1] = bytes_make(big, sizeof big);
    struct slow_call c = {command_by_id(CMD_ID_SET), argv, 40, 77, 5, "peer", "name"};
    for (int i = 0; i < 10; i++) slowlog_add(s, &c, 3);
    assert_int_equal(slowlog_length(s), 3);
    struct buf b = {0};
    struct resp_out o = {&b, 2};
    struct bytes get[] = {BYTES("SLOWLOG"), BYTES("GET"), BYTES("1")};
    slowlog_reply_get(&o, s, get, 3);
    buf_append_char(&b, '\0');
    static const char begin[] = "*1\r\n*6\r\n:9\r\n:5\r\n:77\r\n*32\r\n$3\r\nSET\r\n$147\r\nxxx";
    assert_int_equal(strncmp(b.p, begin, sizeof begin - 1), 0);
    assert_non_null(strstr(b.p, "x... (72 more bytes)\r\n"));
    assert_non_null(strstr(b.p, "... (9 more arguments)\r\n$4\r\npeer\r\n$4\r\nname\r\n"));
    buf_deinit(&b);
    slowlog_reset(s);
    assert_int_equal(slowlog_length(s), 0);
    slowlog_destroy(s);
    struct bytes auth[] = {BYTES("AUTH"), BYTES("u"), BYTES("p")},
                 hello[] = {BYTES("HELLO"), BYTES("2"), BYTES("auth"), BYTES("u"), BYTES("p"), BYTES("SETNAME")};
    const struct command *h = command_by_id(CMD_ID_HELLO);
    assert_true(slowlog_is_secret(command_by_id(CMD_ID_AUTH), auth, 1));
    assert_false(slowlog_is_secret(command_by_id(CMD_ID_AUTH), auth, 0));
    for (size_t i = 0; i < 6; i++) assert_true(slowlog_is_secret(h, hello, i) == (i == 3 || i == 4));
}

static const char *word(unsigned command)
{
    return command ? "set" : "get";
}

static void nodes_are_added_up(void **state)
{
    (void)state;
    struct node_registry r;
    struct node_counts *a0, *a1, *again;
    node_registry_init(&r, 2, 2);
    struct measured_node *a = node_begin(&r, "g", "a:1", 0, 0, &a0);
    assert_ptr_equal(a, node_begin(&r, "g", "a:1", 1, 0, &a1));
    assert_ptr_not_equal(a0, a1);
    struct measured_node *b = node_begin(&r, "h", "a:1", 0, 0, &again);
    assert_ptr_not_equal(a, b);
    atomic_store(&a0->requests[0], 3);
    atomic_store(&a1->requests[0], 4);
    atomic_store(&a1->requests[1], 5);
    atomic_store(&a1->failed, 1);
    histogram_add(&a0->latency, 70);
    atomic_store(&a0->us, 70);
    node_has_trouble(b, false, "refused", 1);
    node_is_up(a);
    struct buf text = {0};
    nodes_write_metrics(&r, "p", "pool", word, &text);
    buf_append_char(&text, '\0');
    static const char *const lines[] = {"p_requests_total{pool=\"g\",backend=\"a:1\",command=\"get\"} 7\n",
                                        "p_requests_total{pool=\"g\",backend=\"a:1\",command=\"set\"} 5\n",
                                        "p_backend_up{pool=\"g\",backend=\"a:1\"} 1\n",
                                        "p_backend_up{pool=\"h\",backend=\"a:1\"} 0\n",
                                        "p_backend_errors_total{pool=\"g\",backend=\"a:1\"} 1\n",
                                        "p_backend_duration_seconds_count{pool=\"g\",backend=\"a:1\"} 1\n"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) assert_non_null(strstr(text.p, lines[i]));
    buf_deinit(&text);
    /* Ten minutes without a user, and it is forgotten; who comes back before goes on counting. */
    node_end(&r, b, 1000);
    node_end(&r, a, 1000);
    assert_ptr_equal(b, node_begin(&r, "h", "a:1", 0, 300000, &again));
    node_end(&r, b, 300000);
    struct measured_node *c = node_begin(&r, "", "c", 0, 2000000, &again);
    size_t left = 0;
    list_each(it, &r.nodes) left++;
    assert_int_equal(left, 2); /* a has a user still */
    node_end(&r, c, 2000000);
    node_registry_deinit(&r);
}

int main(void)
{
    hash_seed_set(1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_are_written),
        cmocka_unit_test(histograms_are_cumulative),
        cmocka_unit_test(durations_are_told_in_either_unit),
        cmocka_unit_test(the_hottest_come_first),
        cmocka_unit_test(the_slow_log_keeps_the_newest),
        cmocka_unit_test(nodes_are_added_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
