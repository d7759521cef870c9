/* The stream commands: replies of redis-server 7.0.15, and what they have replicas repeat. */
#include "command/call_test.h"

#include "store/stream.h"

#define NOW "1000000000" /* HARNESS_NOW */

static struct harness h;

static int begin(void **state)
{
    (void)state;
    harness_init(&h);
    return 0;
}

static int end(void **state)
{
    (void)state;
    harness_deinit(&h);
    return 0;
}

static void test_add(void **state)
{
    (void)state;
    const struct step steps[] = {
        {cmd_xadd, "XADD s NOMKSTREAM 1-1 f v", "$-1\r\n", ""},
        {cmd_xadd, "XADD s 1-1 f v", "$3\r\n1-1\r\n", "XADD s 1-1 f v"},
        {cmd_xadd, "XADD s 1-1 f v",
         "-ERR The ID specified in XADD is equal or smaller than the target stream top item\r\n", ""},
        {cmd_xadd, "XADD s 0-0 f v", "-ERR The ID specified in XADD must be greater than 0-0\r\n", ""},
        {cmd_xadd, "XADD s 1-* f v", "$3\r\n1-2\r\n", "XADD s 1-2 f v"},
        {cmd_xadd, "XADD s 5 f v", "$3\r\n5-0\r\n", "XADD s 5 f v"},
        {cmd_xadd, "XADD s * f v", "$12\r\n" NOW "-0\r\n", "XADD s " NOW "-0 f v"},
        {cmd_xadd, "XADD s nomkstream * f v", "$12\r\n" NOW "-1\r\n", "XADD s nomkstream " NOW "-1 f v"},
        {cmd_xadd, "XADD s maxlen ~ 1 * f v", "$12\r\n" NOW "-2\r\n", "XADD s maxlen = 6 " NOW "-2 f v"},
        {cmd_xadd, "XADD s MINID ~ 4 9999999999-1 f v", "$12\r\n9999999999-1\r\n",
         "XADD s MINID = 1-1 9999999999-1 f v"},
        {cmd_xadd, "XADD s MAXLEN 2 9999999999-* f v", "$12\r\n9999999999-2\r\n", "XADD s MAXLEN 2 9999999999-2 f v"},
        {cmd_xlen, "XLEN s", ":2\r\n", ""},
        {cmd_xadd, "XADD s * f v g", "-ERR wrong number of arguments for 'xadd' command\r\n", ""},
        {cmd_xadd, "XADD s x f v", "-ERR Invalid stream ID specified as stream command argument\r\n", ""},
        {cmd_xadd, "XADD s 18446744073709551615-18446744073709551615 f v",
         "$41\r\n18446744073709551615-18446744073709551615\r\n", NULL},
        {cmd_xadd, "XADD s * f v", "-ERR The stream has exhausted the last possible ID, unable to add more items\r\n",
         ""},
    };
    RUN_STEPS(&h, steps);
    run(&h, cmd_xadd, "XADD t MAXLEN 1 1-1 f v");
    assert_string_equal(h.events, "xadd t");
    run(&h, cmd_xadd, "XADD t MAXLEN 1 1-2 f v");
    assert_string_equal(h.events, "xadd t; xtrim t");
}

/* A clock that went back does not stop the ids. */
static void test_clock_goes_back(void **state)
{
    (void)state;
    run(&h, cmd_xadd, "XADD s * f v");
    h.now_ms -= 5000;
    assert_string_equal(run(&h, cmd_xadd, "XADD s * f v"), "$12\r\n" NOW "-1\r\n");
}

static void test_limit_of_a_primary_is_not_obeyed_twice(void **state)
{
    (void)state;
    h.options.limits.stream_node_max_entries = 2;
    for (int i = 0; i < 8; i++) run(&h, cmd_xadd, "XADD s * f v");
    assert_string_equal(run(&h, cmd_xtrim, "XTRIM s MAXLEN ~ 0 LIMIT 5"), ":4\r\n");
    assert_string_equal(h.effects, "XTRIM s MAXLEN = 4 LIMIT 5");
    assert_string_equal(run(&h, cmd_xtrim, "XTRIM s MAXLEN = 1 LIMIT 2"),
                        "-ERR syntax error, LIMIT cannot be used without the special ~ option\r\n");
    h.flags = CALL_FROM_PRIMARY;
    assert_string_equal(run(&h, cmd_xtrim, "XTRIM s MAXLEN = 1 LIMIT 2"), ":3\r\n");
}

static void test_ranges(void **state)
{
    (void)state;
    const struct step steps[] = {
        {cmd_xadd, "XADD s 1-1 f v", "$3\r\n1-1\r\n", NULL},
        {cmd_xadd, "XADD s 1-2 g w h 7", "$3\r\n1-2\r\n", NULL},
        {cmd_xadd, "XADD s 2-0 f v", "$3\r\n2-0\r\n", NULL},
        {cmd_xdel, "XDEL s 2-0 3-0", ":1\r\n", "XDEL s 2-0 3-0"},
        {cmd_xdel, "XDEL s 2-0", ":0\r\n", ""},
        {cmd_xrange, "XRANGE s (1-1 +", "*1\r\n*2\r\n$3\r\n1-2\r\n*4\r\n$1\r\ng\r\n$1\r\nw\r\n$1\r\nh\r\n$1\r\n7\r\n",
         ""},
        {cmd_xrevrange, "XREVRANGE s + - COUNT 1",
         "*1\r\n*2\r\n$3\r\n1-2\r\n*4\r\n$1\r\ng\r\n$1\r\nw\r\n$1\r\nh\r\n$1\r\n7\r\n", ""},
        {cmd_xrange, "XRANGE s 1 1 COUNT 1", "*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n", ""},
        {cmd_xrange, "XRANGE s - + COUNT 0", "*-1\r\n", ""},
        {cmd_xrange, "XRANGE none - +", "*0\r\n", ""},
        {cmd_xrange, "XRANGE s - (0-0", "-ERR invalid end ID for the interval\r\n", ""},
        {cmd_xsetid, "XSETID s 1-1", "-ERR The ID specified in XSETID is smaller than the target stream top item\r\n",
         ""},
        {cmd_xsetid, "XSETID s 9-9 ENTRIESADDED 50 MAXDELETEDID 5-5", "+OK\r\n",
         "XSETID s 9-9 ENTRIESADDED 50 MAXDELETEDID 5-5"},
        {cmd_xread, "XREAD COUNT 1 STREAMS s none 1-1 0",
         "*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-2\r\n*4\r\n$1\r\ng\r\n$1\r\nw\r\n$1\r\nh\r\n$1\r\n7\r\n", ""},
        {cmd_xread, "XREAD STREAMS s $", "*-1\r\n", ""},
    };
    RUN_STEPS(&h, steps);
    h.version = 3;
    assert_string_equal(run(&h, cmd_xread, "XREAD STREAMS s 1-1"),
                        "%1\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-2\r\n*4\r\n$1\r\ng\r\n$1\r\nw\r\n$1\r\nh\r\n$1\r\n7\r\n");
}

#define CLAIM(consumer, id, count, last) \
    "XCLAIM s g " consumer " 0 " id " TIME " NOW " RETRYCOUNT " count " FORCE JUSTID LASTID " last

static void test_group_gives(void **state)
{
    (void)state;
    const struct step steps[] = {
        {cmd_xgroup_create, "XGROUP CREATE s g $",
         "-ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM "
         "option to create an empty stream automatically.\r\n",
         ""},
        {cmd_xgroup_create, "XGROUP CREATE s g $ MKSTREAM", "+OK\r\n", "XGROUP CREATE s g $ MKSTREAM"},
        {cmd_xgroup_create, "XGROUP CREATE s g $", "-BUSYGROUP Consumer Group name already exists\r\n", ""},
        {cmd_xadd, "XADD s 1-1 f v", "$3\r\n1-1\r\n", NULL},
        {cmd_xadd, "XADD s 1-2 f v", "$3\r\n1-2\r\n", NULL},
        {cmd_xadd, "XADD s 1-3 f v", "$3\r\n1-3\r\n", NULL},
        {cmd_xreadgroup, "XREADGROUP GROUP g ann COUNT 2 STREAMS s >",
         "*1\r\n*2\r\n$1\r\ns\r\n*2\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n"
         "*2\r\n$3\r\n1-2\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n",
         CLAIM("ann", "1-1", "1", "1-1") "; " CLAIM("ann", "1-2", "1", "1-2")},
        {cmd_xreadgroup, "XREADGROUP GROUP g bob NOACK STREAMS s >",
         "*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-3\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n",
         "XGROUP CREATECONSUMER s g bob; XGROUP SETID s g 1-3 ENTRIESREAD 3"},
        {cmd_xreadgroup, "XREADGROUP GROUP g cyd STREAMS s >", "*-1\r\n", ""},
        {cmd_xgroup_createconsumer, "XGROUP CREATECONSUMER s g cyd", ":1\r\n", "XGROUP CREATECONSUMER s g cyd"},
        {cmd_xgroup_createconsumer, "XGROUP CREATECONSUMER s g cyd", ":0\r\n", ""},
        {cmd_xdel, "XDEL s 1-2", ":1\r\n", NULL},
        {cmd_xreadgroup, "XREADGROUP GROUP g ann STREAMS s 0",
         "*1\r\n*2\r\n$1\r\ns\r\n*2\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n*2\r\n$3\r\n1-2\r\n*-1\r\n", ""},
        {cmd_xpending, "XPENDING s g", "*4\r\n:2\r\n$3\r\n1-1\r\n$3\r\n1-2\r\n*1\r\n*2\r\n$3\r\nann\r\n$1\r\n2\r\n",
         ""},
        {cmd_xack, "XACK s g 1-1 1-1 7-7", ":1\r\n", "XACK s g 1-1 1-1 7-7"},
        {cmd_xack, "XACK s g 1-1", ":0\r\n", ""},
        {cmd_xgroup_delconsumer, "XGROUP DELCONSUMER s g ann", ":1\r\n", "XGROUP DELCONSUMER s g ann"},
        {cmd_xpending, "XPENDING s g", "*4\r\n:0\r\n$-1\r\n$-1\r\n*-1\r\n", ""},
        {cmd_xgroup_destroy, "XGROUP DESTROY s g", ":1\r\n", "XGROUP DESTROY s g"},
        {cmd_xgroup_destroy, "XGROUP DESTROY s g", ":0\r\n", ""},
        {cmd_xpending, "XPENDING s g", "-NOGROUP No such key 's' or consumer group 'g'\r\n", ""},
        {cmd_xreadgroup, "XREADGROUP GROUP g ann STREAMS s >",
         "-NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option\r\n", ""},
    };
    RUN_STEPS(&h, steps);
}

static void give_three(void)
{
    run(&h, cmd_xgroup_create, "XGROUP CREATE s g 0 MKSTREAM");
    for (int i = 0; i < 3; i++) run(&h, cmd_xadd, "XADD s 1-* f v");
    run(&h, cmd_xreadgroup, "XREADGROUP GROUP g ann STREAMS s >");
}

static void test_claims(void **state)
{
    (void)state;
    give_three();
    const struct step steps[] = {
        {cmd_xclaim, "XCLAIM s g bob 1 1-0", "*0\r\n", ""},
        {cmd_xclaim, "XCLAIM s g bob 0 1-1", "*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n",
         CLAIM("bob", "1-1", "2", "1-2")},
        {cmd_xclaim, "XCLAIM s g bob 0 1-0 JUSTID", "*1\r\n$3\r\n1-0\r\n", CLAIM("bob", "1-0", "1", "1-2")},
        {cmd_xclaim, "XCLAIM s g bob 0 1-0 JUSTID RETRYCOUNT 8 LASTID 9-9", "*1\r\n$3\r\n1-0\r\n",
         CLAIM("bob", "1-0", "8", "9-9")},
        {cmd_xclaim, "XCLAIM s g bob 0 LASTID 10-0", "*0\r\n", "XGROUP SETID s g 10-0 ENTRIESREAD 3"},
        {cmd_xclaim, "XCLAIM s g bob 0 5-5 FORCE", "*0\r\n", ""},
        {cmd_xdel, "XDEL s 1-0", ":1\r\n", NULL},
        {cmd_xautoclaim, "XAUTOCLAIM s g cyd 0 0 COUNT 2",
         "*3\r\n$3\r\n1-2\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n*1\r\n$3\r\n1-0\r\n",
         CLAIM("bob", "1-0", "8", "10-0") "; " CLAIM("cyd", "1-1", "3", "10-0")},
        {cmd_xautoclaim, "XAUTOCLAIM s g cyd 1 0", "*3\r\n$3\r\n0-0\r\n*0\r\n*0\r\n", ""},
        {cmd_xautoclaim, "XAUTOCLAIM s g cyd 0 (1-1 JUSTID", "*3\r\n$3\r\n0-0\r\n*1\r\n$3\r\n1-2\r\n*0\r\n",
         CLAIM("cyd", "1-2", "1", "10-0")},
        {cmd_xclaim, "XCLAIM s g bob 0 1-1 IDLE", "-ERR Unrecognized XCLAIM option 'IDLE'\r\n", ""},
        {cmd_xautoclaim, "XAUTOCLAIM s g cyd 0 0 COUNT 0", "-ERR COUNT must be > 0\r\n", ""},
    };
    RUN_STEPS(&h, steps);
}

/* What a replica is sent makes there what is here. */
static void test_effects_repeat(void **state)
{
    (void)state;
    give_three();
    h.db = 1;
    h.flags = CALL_FROM_PRIMARY;
    run(&h, cmd_xgroup_create, "XGROUP CREATE s g 0 MKSTREAM");
    for (int i = 0; i < 3; i++) run(&h, cmd_xadd, "XADD s 1-* f v");
    run(&h, cmd_xclaim, CLAIM("ann", "1-0", "1", "1-0"));
    run(&h, cmd_xclaim, CLAIM("ann", "1-1", "1", "1-1"));
    run(&h, cmd_xclaim, CLAIM("ann", "1-2", "1", "1-2"));
    struct key k = key_of(BYTES("s"));
    const struct stream_group *here = stream_group_find(stream_of(store_find(h.store, 0, &k)), BYTES("g"));
    const struct stream_group *there = stream_group_find(stream_of(store_find(h.store, 1, &k)), BYTES("g"));
    assert_int_equal(here->pending.count, 3);
    assert_int_equal(there->pending.count, 3);
    assert_int_equal(stream_id_cmp(here->last_id, there->last_id), 0);
    struct stream_pending one, two;
    assert_true(stream_pending_find(here, (struct stream_id){1, 2}, &one));
    assert_true(stream_pending_find(there, (struct stream_id){1, 2}, &two));
    assert_int_equal(one.delivered_ms, two.delivered_ms);
    assert_int_equal(one.count, two.count);
}

static void test_info(void **state)
{
    (void)state;
    give_three();
    h.now_ms += 40;
    run(&h, cmd_xreadgroup, "XREADGROUP GROUP g ann STREAMS s 1-2");
    run(&h, cmd_xgroup_createconsumer, "XGROUP CREATECONSUMER s g bob");
    h.now_ms += 2;
    assert_string_equal(run(&h, cmd_xinfo_consumers, "XINFO CONSUMERS s g"),
                        "*2\r\n*8\r\n$4\r\nname\r\n$3\r\nann\r\n$7\r\npending\r\n:3\r\n$4\r\nidle\r\n:2\r\n"
                        "$8\r\ninactive\r\n:42\r\n*8\r\n$4\r\nname\r\n$3\r\nbob\r\n$7\r\npending\r\n:0\r\n"
                        "$4\r\nidle\r\n:2\r\n$8\r\ninactive\r\n:-1\r\n");
    assert_string_equal(run(&h, cmd_xinfo_groups, "XINFO GROUPS s"),
                        "*1\r\n*12\r\n$4\r\nname\r\n$1\r\ng\r\n$9\r\nconsumers\r\n:2\r\n$7\r\npending\r\n:3\r\n"
                        "$17\r\nlast-delivered-id\r\n$3\r\n1-2\r\n$12\r\nentries-read\r\n:3\r\n$3\r\nlag\r\n:0\r\n");
    run(&h, cmd_xinfo_stream, "XINFO STREAM s FULL COUNT 1");
    assert_non_null(strstr(h.reply, "$9\r\nseen-time\r\n:1000000040\r\n$9\r\npel-count\r\n:3\r\n"));
    assert_string_equal(run(&h, cmd_xinfo_stream, "XINFO STREAM none FULL"), "-ERR no such key\r\n");
    assert_string_equal(run(&h, cmd_xinfo_stream, "XINFO STREAM s WHAT"),
                        "-ERR unknown subcommand or wrong number of arguments for 'STREAM'. Try XINFO HELP.\r\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_add, begin, end),
        cmocka_unit_test_setup_teardown(test_clock_goes_back, begin, end),
        cmocka_unit_test_setup_teardown(test_limit_of_a_primary_is_not_obeyed_twice, begin, end),
        cmocka_unit_test_setup_teardown(test_ranges, begin, end),
        cmocka_unit_test_setup_teardown(test_group_gives, begin, end),
        cmocka_unit_test_setup_teardown(test_claims, begin, end),
        cmocka_unit_test_setup_teardown(test_effects_repeat, begin, end),
        cmocka_unit_test_setup_teardown(test_info, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
