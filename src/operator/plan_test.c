/* The plan of a cluster, the reading of CLUSTER NODES, when a cluster is whole, and what is reported about it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/random.h"
#include "operator/home.h"
#include "operator/plan.h"
#include "operator/view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void slots_as_redis_cli_cuts_them(void **state)
{
    struct shape three = {3, 1, 7000};
    assert_int_equal(plan_slots(&three, 0).last, 5460);
    assert_int_equal(plan_slots(&three, 1).first, 5461);
    assert_int_equal(plan_slots(&three, 1).last, 10922);
    assert_int_equal(plan_slots(&three, 2).first, 10923);
    assert_int_equal(plan_slots(&three, 2).last, 16383);
}

static void slots_are_adjacent_complete_and_even(void **state)
{
    for (int primaries = 1; primaries <= PLAN_NODES_MAX; primaries++) {
        struct shape s = {primaries, 0, 7000};
        int next = 0;
        for (int i = 0; i < primaries; i++) {
            struct slot_range r = plan_slots(&s, i);
            int size = r.last - r.first + 1;
            assert_int_equal(r.first, next);
            assert_in_range(size, PLAN_SLOTS / primaries, (PLAN_SLOTS + primaries - 1) / primaries);
            next = r.last + 1;
        }
        assert_int_equal(next, PLAN_SLOTS);
    }
}

static void replicas_are_dealt_evenly(void **state)
{
    struct shape s = {3, 2, 7000};
    const int expected[] = {-1, -1, -1, 0, 1, 2, 0, 1, 2};
    assert_int_equal(plan_nodes(&s), 9);
    for (int i = 0; i < 9; i++) assert_int_equal(plan_primary_of(&s, i), expected[i]);
}

static void shapes_that_cannot_be(void **state)
{
    const struct shape good[] = {{3, 1, 7000}, {1, 0, 1}, {200, 0, 55336}, {1, 199, 7000}, {1, 0, 55535}};
    const struct shape bad[] = {{0, 1, 7000},         {-3, 1, 7000},       {3, -1, 7000},   {3, 1, 0},
                                {3, 1, 65536},        {1, 0, 55536},       {200, 0, 55337}, {101, 1, 7000},
                                {INT32_MAX, 1, 7000}, {3, INT32_MAX, 7000}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) assert_null(plan_check(&good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_non_null(plan_check(&bad[i]));
}

static void restarts_are_spaced(void **state)
{
    const int64_t expected[] = {0, 1000, 2000, 4000, 8000, 10000, 10000};
    for (int i = 0; i < 7; i++) assert_int_equal(plan_restart_delay_ms(i + 1), expected[i]);
    assert_int_equal(plan_restart_delay_ms(1000000), 10000);
}

/* As redis-server 7.0.15 answers; ids are ours. */
#define ID_A "07c37dfeb235213a872192d90877d0cd55635b91"
#define ID_B "67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1"
#define ID_C "292f8b365bb7edb5e285caf0b7e6ddc7265d2f4f"
static const char seen[] =
    ID_A " 127.0.0.1:7000@17000 myself,master - 0 1426238317000 2 connected 0-5460 7000 [7000->-" ID_B "] [9000-<-" ID_C
         "]\n" ID_B " 127.0.0.1:7001@17001,host.example master,fail? - 0 1426238316232 12 "
         "disconnected 5461-6999 7001-16383\n" ID_C " :0@0 slave,fail,noaddr " ID_A
         " 1426238317741 1426238316 0 disconnected\n";

static void nodes_are_read(void **state)
{
    struct cluster_view v;
    struct buf text = {0};
    assert_int_equal(view_parse(bytes_of(seen), &v), OK);
    assert_int_equal(v.n, 3);
    assert_ptr_equal(v.myself, &v.nodes[0]);
    assert_string_equal(v.nodes[0].id, ID_A);
    assert_string_equal(v.nodes[0].address, "127.0.0.1:7000");
    assert_int_equal(v.nodes[0].flags, NODE_MYSELF | NODE_PRIMARY);
    assert_int_equal(v.nodes[0].epoch, 2);
    assert_true(v.nodes[0].connected);
    assert_int_equal(view_slots(&v, &v.nodes[0]), 5462);
    view_print_slots(&v, &v.nodes[0], &text);
    assert_true(bytes_eq(buf_bytes(&text), BYTES("0-5460 7000")));
    assert_string_equal(v.nodes[1].address, "127.0.0.1:7001");
    assert_int_equal(v.nodes[1].flags, NODE_PRIMARY | NODE_PFAIL);
    assert_false(v.nodes[1].connected);
    assert_string_equal(v.nodes[1].primary, "");
    assert_int_equal(view_slots(&v, &v.nodes[1]), 6999 - 5461 + 1 + 16383 - 7001 + 1);
    assert_string_equal(v.nodes[2].primary, ID_A);
    assert_int_equal(v.nodes[2].flags, NODE_REPLICA | NODE_FAIL | NODE_NO_ADDRESS);
    text.n = 0;
    view_print_slots(&v, &v.nodes[2], &text);
    assert_true(bytes_eq(buf_bytes(&text), BYTES("-")));
    assert_ptr_equal(view_find(&v, ID_B), &v.nodes[1]);
    assert_null(view_find(&v, "x"));
    view_deinit(&v);
    buf_deinit(&text);
}

static void what_is_no_such_answer_is_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "\n",
        "ERR This instance has cluster support disabled",
        ID_B " 127.0.0.1:1@2 master - 0 0 1 connected\n", /* nobody is myself */
        "07c37 127.0.0.1:1@2 myself,master - 0 0 1 connected\n",
        ID_A " 127.0.0.1:1@2 myself,master - 0 0 1\n",
        ID_A " 127.0.0.1:1@2 myself,master - 0 0 x connected\n",
        ID_A " 127.0.0.1:1@2 myself,master nobody 0 0 1 connected\n",
        ID_A " 127.0.0.1:1@2 myself,master - 0 0 1 connected 0-16384\n",
        ID_A " 127.0.0.1:1@2 myself,master - 0 0 1 connected 9-8\n",
        ID_A " 127.0.0.1:1@2 myself,master - 0 0 1 connected 5-\nx",
        ID_A " 127.0.0.1:1@2 myself,master - 0 0 1 connected -1\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct cluster_view v;
        assert_int_equal(view_parse(bytes_of(bad[i]), &v), E_CORRUPT);
        assert_null(v.nodes);
    }
}

/* Cut off or changed anywhere, an answer is read or refused, never read beyond its end (the sanitizers watch). */
static void damaged_answers_do_no_harm(void **state)
{
    struct random r;
    uint64_t seed = (uint64_t)getpid();
    print_message("seed %llu\n", (unsigned long long)seed);
    random_seed(&r, seed);
    for (int round = 0; round < 20000; round++) {
        size_t n = random_below(&r, sizeof seen);
        char *copy = mem_alloc(n + 1);
        memcpy(copy, seen, n);
        for (uint64_t k = random_below(&r, 4); k && n; k--) copy[random_below(&r, n)] = (char)random_u64(&r);
        struct cluster_view v;
        if (view_parse(bytes_make(copy, n), &v) == OK) assert_non_null(v.myself);
        view_deinit(&v);
        mem_free(copy);
    }
}

static void fields_of_info(void **state)
{
    struct bytes text = BYTES("# Replication\r\nrole:slave\r\nmaster_link_status:up\r\nrole2:x\r\nlast:");
    assert_true(bytes_eq(info_field(text, "master_link_status"), BYTES("up")));
    assert_true(bytes_eq(info_field(text, "role"), BYTES("slave")));
    assert_int_equal(info_field(text, "missing").n, 0);
    assert_int_equal(info_field(text, "last").n, 0);
}

/* ---- three nodes: two primaries and a replica of the first ---- */

enum { N = 3 };
static const char *const ids[N] = {ID_A, ID_B, ID_C};

/* What each node says; tests change a piece. */
struct said {
    const char *flags[N];
    const char *primary[N];
    const char *slots[N];
    const char *link[N];
};

static const struct said healthy = {.flags = {"master", "master", "slave"},
                                    .primary = {"-", "-", ID_A},
                                    .slots = {" 0-8191", " 8192-16383", ""},
                                    .link = {"connected", "connected", "connected"}};

static void say(struct sample *s, int who, const struct said *said)
{
    struct buf text = {0};
    for (int i = 0; i < N; i++)
        buf_printf(&text, "%s 127.0.0.1:%d@1 %s%s %s 0 0 1 %s%s\n", ids[i], 7000 + i, i == who ? "myself," : "",
                   said->flags[i], said->primary[i], said->link[i], said->slots[i]);
    view_deinit(&s->view);
    s->answered = s->state_ok = s->link_up = true;
    assert_int_equal(view_parse(buf_bytes(&text), &s->view), OK);
    buf_deinit(&text);
}

static void all_say(struct sample samples[N], const struct said *said)
{
    for (int i = 0; i < N; i++) say(&samples[i], i, said);
}

static void forget(struct sample samples[N])
{
    for (int i = 0; i < N; i++) view_deinit(&samples[i].view);
}

static void assert_not_whole(const struct sample *samples, const char *reason)
{
    struct buf why = {0};
    assert_false(samples_whole(samples, N, 7000, &why));
    buf_append_char(&why, '\0');
    if (!strstr(why.p, reason)) fail_msg("'%s' does not say '%s'", why.p, reason);
    buf_deinit(&why);
}

static void a_whole_cluster_and_what_it_may_lack(void **state)
{
    struct sample samples[N] = {0};
    struct buf why = {0};
    struct said other = healthy;
    all_say(samples, &healthy);
    assert_true(samples_whole(samples, N, 7000, &why));
    assert_int_equal(why.n, 0);

    samples[1].answered = false;
    assert_not_whole(samples, "7001 does not answer");
    samples[1].answered = true;
    samples[0].state_ok = false;
    assert_not_whole(samples, "7000");
    samples[0].state_ok = true;
    samples[2].link_up = false;
    assert_not_whole(samples, "7002 is not in sync");
    samples[2].link_up = true;

    other.flags[1] = "master,fail?";
    say(&samples[0], 0, &other);
    assert_not_whole(samples, "7000 has no link to 7001");
    other = healthy;
    other.link[2] = "disconnected";
    say(&samples[0], 0, &other);
    assert_not_whole(samples, "7000 has no link to 7002");
    other = healthy;
    other.primary[2] = ID_B;
    say(&samples[0], 0, &other);
    assert_not_whole(samples, "7000 has not heard of the role of 7002");
    other = healthy;
    all_say(samples, &healthy);
    other.slots[0] = " 0-8190", other.slots[1] = " 8191-16383";
    say(&samples[2], 2, &other);
    assert_not_whole(samples, "slot 8191");
    other.slots[1] = " 8192-16383";
    all_say(samples, &other);
    assert_not_whole(samples, "slot 8191 is nobody's");
    forget(samples);
    buf_deinit(&why);
}

static void collect(void *ctx, int port, const char *text)
{
    buf_printf(ctx, "%d %s\n", port, text);
}

static void assert_events(struct members *m, const struct sample *samples, const char *expected)
{
    struct buf events = {0};
    members_observe(m, samples, collect, &events);
    buf_append_char(&events, '\0');
    assert_string_equal(events.p, expected);
    buf_deinit(&events);
}

static void a_failover_is_told(void **state)
{
    struct sample samples[N] = {0};
    struct member list[N] = {0};
    struct members m = {.list = list, .n = N, .port = 7000};
    struct said now = healthy;
    all_say(samples, &now);
    assert_events(&m, samples, "");
    assert_events(&m, samples, "");

    samples[0].answered = false; /* nobody has agreed on anything yet */
    now.flags[0] = "master,fail?";
    say(&samples[1], 1, &now), say(&samples[2], 2, &now);
    assert_events(&m, samples, "");
    now.flags[0] = "master,fail";
    say(&samples[1], 1, &now), say(&samples[2], 2, &now);
    samples[1].state_ok = samples[2].state_ok = false;
    assert_events(&m, samples,
                  "7000 failed: 2 of 2 other nodes agree that it does not answer\n0 the cluster is down: not all slots "
                  "are served\n");
    now.flags[2] = "master", now.primary[2] = "-", now.slots[0] = "", now.slots[2] = " 0-8191";
    say(&samples[1], 1, &now), say(&samples[2], 2, &now);
    assert_events(&m, samples, "7002 promoted: now the primary of slots 0-8191\n0 all slots are served again\n");

    say(&samples[0], 0, &healthy); /* back, and it does not know yet */
    now.flags[0] = "master";
    say(&samples[1], 1, &now), say(&samples[2], 2, &now);
    assert_events(&m, samples, "");
    now.flags[0] = "slave", now.primary[0] = ID_C;
    all_say(samples, &now);
    samples[0].link_up = false;
    assert_events(&m, samples, "7000 is no primary any more: now a replica of 7002\n");
    samples[0].link_up = true;
    assert_events(&m, samples, "7000 rejoined as a replica of 7002, in sync\n");
    assert_events(&m, samples, "");
    forget(samples);
}

static void one_opinion_is_no_failure(void **state)
{
    struct sample samples[N] = {0};
    struct member list[N] = {0};
    struct members m = {.list = list, .n = N, .port = 7000};
    struct said lonely = healthy;
    all_say(samples, &healthy);
    assert_events(&m, samples, "");
    lonely.flags[1] = "master,fail";
    say(&samples[0], 0, &lonely);
    assert_events(&m, samples, "");
    list[1].away = true; /* its process died and came back before anybody noticed */
    all_say(samples, &healthy);
    for (int i = 0; i < 5; i++) assert_events(&m, samples, "");
    assert_events(&m, samples, "7001 rejoined as a primary\n");
    assert_events(&m, samples, "");
    forget(samples);
}

/* ---- the kept state ---- */

static void state_comes_back_as_it_was(void **state)
{
    struct home_state s = {.shape = {5, 2, 7100}, .formed = true}, back;
    struct buf text = {0};
    s.nodes[0] = (struct process_id){4711, 123456789012};
    s.nodes[14] = (struct process_id){INT32_MAX / 100, 1};
    home_state_print(&s, &text);
    assert_int_equal(home_state_parse(buf_bytes(&text), &back), OK);
    assert_memory_equal(&s.shape, &back.shape, sizeof s.shape);
    assert_true(back.formed);
    for (int i = 0; i < PLAN_NODES_MAX; i++) {
        assert_int_equal(s.nodes[i].pid, back.nodes[i].pid);
        assert_int_equal(s.nodes[i].start, back.nodes[i].start);
    }
    buf_deinit(&text);
}

static void damaged_state_is_refused(void **state)
{
    static const char head[] = "covey-cluster 1\nprimaries 3\nreplicas 1\nport 7000\n";
    static const char *const bad[] = {"",
                                      "formed yes\nprocess 7006 1 1\n",
                                      "formed yes\nprocess 6999 1 1\n",
                                      "formed yes\nprocess 7000 0 1\n",
                                      "formed yes\nport 70000\n",
                                      "formed yes\nprimaries 3x\n",
                                      "formed yes\nsomething else\n"};
    struct home_state s;
    char text[200];
    snprintf(text, sizeof text, "%sformed no\n", head);
    assert_int_equal(home_state_parse(bytes_of(text), &s), OK);
    assert_false(s.formed);
    assert_int_equal(home_state_parse(bytes_of(strchr(text, '\n')), &s), E_CORRUPT);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, "%s%s", head, bad[i]);
        assert_int_equal(home_state_parse(bytes_of(text), &s), E_CORRUPT);
    }
}

static void a_directory_has_one_holder(void **state)
{
    char dir[] = "/tmp/covey-home-XXXXXX", deep[64], path[128];
    struct home one, two;
    struct home_state s = {.shape = {3, 1, 7000}}, back;
    pid_t holder = 0;
    assert_non_null(mkdtemp(dir));
    snprintf(deep, sizeof deep, "%s/a/b", dir);
    assert_int_equal(home_open(&one, deep, false), E_IO);
    assert_int_equal(home_open(&one, deep, true), OK);
    assert_int_equal(home_open(&two, deep, false), OK);
    assert_int_equal(home_lock(&one, &holder), OK);
    home_sign(&one);
    assert_int_equal(home_lock(&two, &holder), E_EXISTS);
    assert_int_equal(holder, getpid());
    home_unlock(&one);
    assert_int_equal(home_lock(&two, &holder), OK);
    assert_int_equal(home_load(&two, &back), E_NOT_FOUND);
    assert_int_equal(home_save(&two, &s), OK);
    assert_int_equal(home_load(&two, &back), OK);
    assert_int_equal(back.shape.primaries, 3);
    home_unlock(&two);
    for (int i = 0; i < 4; i++) {
        static const char *const left[] = {"a/b/up.pid", "a/b/cluster.state", "a/b", "a"};
        snprintf(path, sizeof path, "%s/%s", dir, left[i]);
        assert_int_equal(remove(path), 0);
    }
    assert_int_equal(rmdir(dir), 0);
}

static void processes_are_told_apart_by_their_start(void **state)
{
    assert_true(process_start_time(getpid()) > 0);
    assert_int_equal(process_start_time(getpid()), process_start_time(getpid()));
    assert_int_equal(process_start_time(0), 0);
    assert_int_equal(process_start_time(INT32_MAX), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_as_redis_cli_cuts_them),
        cmocka_unit_test(slots_are_adjacent_complete_and_even),
        cmocka_unit_test(replicas_are_dealt_evenly),
        cmocka_unit_test(shapes_that_cannot_be),
        cmocka_unit_test(restarts_are_spaced),
        cmocka_unit_test(nodes_are_read),
        cmocka_unit_test(what_is_no_such_answer_is_refused),
        cmocka_unit_test(damaged_answers_do_no_harm),
        cmocka_unit_test(fields_of_info),
        cmocka_unit_test(a_whole_cluster_and_what_it_may_lack),
        cmocka_unit_test(a_failover_is_told),
        cmocka_unit_test(one_opinion_is_no_failure),
        cmocka_unit_test(state_comes_back_as_it_was),
        cmocka_unit_test(damaged_state_is_refused),
        cmocka_unit_test(a_directory_has_one_holder),
        cmocka_unit_test(processes_are_told_apart_by_their_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
