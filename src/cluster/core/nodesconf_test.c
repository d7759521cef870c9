/* nodes.conf, read and written. */
#include "cluster/core/harness.h"

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define C "cccccccccccccccccccccccccccccccccccccccc"

static void a_file_is_read_and_written_back(void **state)
{
    struct harness h;
    struct buf text = {0};
    harness_config(&h);
    strcpy(h.config.announce_hostname, "me.example");
    h.config.probation = false;
    harness_start(&h, A " 10.0.0.1:7000@17000,me.example myself,master - 0 0 7 connected 0-100 102 16383 [5->-" B
                        "] [200-<-" B "]\n"
                        "\n\n" /* left by a rewrite in place */
                  B " 10.0.0.2:7000@17000 master,fail - 0 1700000000000 9 connected 200-300\n" C
                        " fe80::1:7001@17001,c.example slave " A " 0 1700000000000 7 connected\n"
                        "vars lastVoteEpoch 8 currentEpoch 6 futureThing 1\n");
    assert_true(cluster_current_epoch(h.core) == 9); /* the highest of all */
    assert_true(cluster_last_vote_epoch(h.core) == 8);
    assert_int_equal(harness_me(&h).slot_count, 103);
    assert_string_equal(harness_view(&h, 'c').ip, "fe80::1");
    assert_string_equal(harness_view(&h, 'c').hostname, "c.example");
    assert_ptr_equal(harness_view(&h, 'c').primary, cluster_myself(h.core));
    assert_true(harness_view(&h, 'b').flags & CLUSTER_NODE_FAIL);
    assert_non_null(cluster_slot_migrating_to(h.core, 5));
    assert_non_null(cluster_slot_importing_from(h.core, 200));

    cluster_render_nodes_conf(h.core, h.now, &text);
    buf_append_char(&text, 0);
    assert_string_equal(text.p, A " 10.0.0.1:7000@17000,me.example,shard-id=" A
                                  " myself,master - 0 0 7 connected 0-100 102 16383 [5->-" B "] [200-<-" B "]\n" B
                                  " 10.0.0.2:7000@17000 master,fail - 0 1700000000000 9 disconnected 200-300\n" C
                                  " fe80::1:7001@17001,c.example slave " A
                                  " 0 1700000000000 7 disconnected\nvars currentEpoch 9 lastVoteEpoch 8\n");
    buf_deinit(&text);
    harness_stop(&h);
}

static void newer_files_and_old_ones_are_read(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, A " 10.0.0.1:7000@17000,,shard-id=" B ",tls-port=0 myself,master - 0 0 1 connected\n" B
                        " 10.0.0.2:6379 primary - 0 0 2 connected 5\nvars currentEpoch 2 lastVoteEpoch 0");
    assert_string_equal(harness_me(&h).hostname, "");
    struct cluster_id shard = harness_me(&h).shard, b = harness_id('b');
    assert_true(cluster_id_eq(&shard, &b));
    assert_int_equal(harness_view(&h, 'b').cport, 16379);
    assert_true(harness_view(&h, 'b').flags & CLUSTER_NODE_PRIMARY);
    harness_stop(&h);
}

static void corrupt(const char *text)
{
    struct harness h;
    harness_config(&h);
    h.core = cluster_create(&h.config, bytes_of(text), h.now, &h.err);
    assert_null(h.core);
    assert_non_null(strstr(h.err.text, "corrupted cluster config file"));
    cluster_actions_deinit(&h.out);
}

static void corrupt_files_are_refused(void **state)
{
    corrupt("vars currentEpoch 1 lastVoteEpoch 0\n"); /* nobody is myself */
    corrupt("nonsense\n");
    corrupt(A " 10.0.0.1:7000@17000 myself,master - 0 0 1\n");                           /* too short */
    corrupt(A " 10.0.0.1:7000@17000 myself,king - 0 0 1 connected\n");                   /* flag */
    corrupt(A " 10.0.0.1:7000@17000 myself,master,slave - 0 0 1 connected\n");           /* both */
    corrupt(A " 10.0.0.1:7000@17000,,shard-id=short myself,master - 0 0 1 connected\n"); /* shard */
    corrupt(A " 10.0.0.1@17000 myself,master - 0 0 1 connected\n");                      /* no port */
    corrupt(A " 10.0.0.1:70000@17000 myself,master - 0 0 1 connected\n");                /* port */
    corrupt(A " 10.0.0.1:7000@17000 myself,master - 0 0 1 connected 16384\n");           /* slot */
    corrupt(A " 10.0.0.1:7000@17000 myself,master - 0 0 1 connected 9-3\n");             /* range */
    corrupt(A " 10.0.0.1:7000@17000 myself,master - 0 0 1 connected [3->-short]\n");     /* mark */
    corrupt(A " 10.0.0.1:7000@17000 myself,master - 0 0 1 connected [-\n");
    corrupt(A " 10.0.0.1:7000@17000 myself,master - 0 0 18446744073709551615 connected\n"); /* epoch */
    corrupt(A " 10.0.0.1:7000@17000 myself,master " A " 0 0 1 connected\n");                /* its own primary */
    corrupt(A " 10.0.0.1:7000@17000 myself,master - 0 0 1 connected\nvars currentEpoch\n"); /* no value */
    corrupt(A " 10.0.0.1:7000@17000 myself,master - 0 0 1 connected\nvars currentEpoch x\n");
    corrupt(A " 1:1@1 myself,master - 0 0 1 connected\n" B " 1:1@1 myself,master - 0 0 1 connected\n"); /* two */
}

/* Any prefix of a good file, and the file with any one byte changed: an error or a core that is sound. */
static void damage_never_crashes(void **state)
{
    const char *good = A " 10.0.0.1:7000@17000,h myself,master - 0 0 7 connected 0-9 [5->-" B "]\n" B
                         " 10.0.0.2:7000@17000 slave " A " 0 1 9 connected 20\nvars currentEpoch 6 lastVoteEpoch 2\n";
    size_t n = strlen(good);
    for (size_t i = 0; i < n * 6; i++) {
        struct harness h;
        char text[512];
        harness_config(&h);
        memcpy(text, good, n + 1);
        if (i < n)
            text[i] = 0;
        else
            text[i % n] = "-,: \n["[i / n % 6];
        h.core = cluster_create(&h.config, bytes_of(text), h.now, &h.err);
        if (h.core) {
            cluster_check(h.core);
            cluster_destroy(h.core);
        }
    }
}

static void a_fresh_node_writes_itself(void **state)
{
    struct harness h;
    struct buf text = {0};
    harness_config(&h);
    harness_start(&h, "");
    struct cluster_id id = harness_me(&h).id;
    struct cluster_id shard = harness_me(&h).shard;
    assert_false(cluster_id_eq(&id, &shard));
    cluster_render_nodes_conf(h.core, h.now, &text);
    assert_memory_equal(text.p + 40, " :7000@17000,,shard-id=", 23);
    assert_memory_equal(text.p + 63, shard.c, sizeof shard.c);
    assert_memory_equal(text.p + 103, " myself,master - 0 0 0 connected\nvars currentEpoch 0 lastVoteEpoch 0\n",
                        text.n - 103);
    harness_stop(&h);
    struct buf copy = {0};
    buf_append_bytes(&copy, buf_bytes(&text));
    buf_append_char(&copy, 0);
    harness_config(&h);
    harness_start(&h, copy.p);
    assert_true(cluster_id_eq(&id, &(struct cluster_id){{0}}) == false);
    struct cluster_id again = harness_me(&h).id;
    assert_true(cluster_id_eq(&id, &again));
    struct cluster_id shard_again = harness_me(&h).shard;
    assert_true(cluster_id_eq(&shard, &shard_again));
    buf_deinit(&text);
    buf_deinit(&copy);
    harness_stop(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_read_and_written_back), cmocka_unit_test(newer_files_and_old_ones_are_read),
        cmocka_unit_test(corrupt_files_are_refused),       cmocka_unit_test(damage_never_crashes),
        cmocka_unit_test(a_fresh_node_writes_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
