/* A dead process is told from a silent machine. */
#include "cluster/core/harness.h"

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define C "cccccccccccccccccccccccccccccccccccccccc"
#define D "dddddddddddddddddddddddddddddddddddddddd"
#define IN CLUSTER_LINK_INBOUND

/* a, b and c are primaries; d is a replica of b.  The node timeout is 1000 ms. */
#define TABLE(me_a, me_d)                                                                                 \
    A " 10.0.0.2:7000@17000 " me_a "master - 0 1 1 connected 0-99\n" B                                    \
      " 10.0.0.3:7000@17000 master - 0 1 2 connected 100-199\n" C                                         \
      " 10.0.0.4:7000@17000 master - 0 1 3 connected 200-299\n" D " 10.0.0.5:7000@17000 " me_d "slave " B \
      " 0 1 2 connected\nvars currentEpoch 3 lastVoteEpoch 0\n"

static struct cluster_message from(struct harness *h, unsigned type, char who)
{
    struct cluster_message m = harness_message(h, type, who);
    m.current_epoch = 3;
    m.config_epoch = who == 'a' ? 1 : who == 'c' ? 3 : 2;
    unsigned first = who == 'a' ? 0 : who == 'c' ? 200 : 100;
    for (unsigned s = first; s < first + 100; s++) cluster_bit_set(h->slots, s);
    if (who == 'd') {
        m.flags = CLUSTER_NODE_MYSELF | CLUSTER_NODE_REPLICA;
        m.replica_of = harness_id('b');
    }
    return m;
}

static void down(struct harness *h, uint64_t link, bool refused)
{
    harness_step(h, &(struct cluster_event){.kind = CLUSTER_EV_LINK_DOWN, .link = link, .refused = refused});
}

/* Connected to everybody, heard of b a moment ago; gives the connection to b. */
static uint64_t start(struct harness *h, const char *table)
{
    harness_config(h);
    harness_start(h, table);
    harness_tick(h, 100);
    for (const char *who = "acd"; *who; who++)
        if (harness_view(h, *who).link_out) harness_connect(h, *who);
    uint64_t link = harness_connect(h, 'b');
    struct cluster_message pong = from(h, CLUSTER_PONG, 'b');
    harness_receive(h, link, &pong);
    struct cluster_message ping = from(h, CLUSTER_PING, 'b');
    harness_receive(h, IN | 2, &ping);
    harness_settle(h);
    return link;
}

static bool suspected(const struct harness *h)
{
    return harness_view(h, 'b').flags & CLUSTER_NODE_PFAIL;
}

/* Both connections close, and the next one is refused at once. */
static void die(struct harness *h, uint64_t link)
{
    down(h, IN | 2, false);
    down(h, link, false);
    const struct cluster_action *again = harness_find(h, CLUSTER_DO_CONNECT);
    assert_non_null(again);
    down(h, again->link, true);
    assert_false(suspected(h));
}

/* The next connection is refused, so much later. */
static void refuse(struct harness *h, int64_t ms)
{
    harness_tick(h, ms);
    down(h, harness_view(h, 'b').link_out, true);
}

static void two_refusals_are_enough(void **state)
{
    struct harness h;
    (void)state;
    die(&h, start(&h, TABLE("myself,", "")));
    refuse(&h, 49);
    assert_false(suspected(&h));
    refuse(&h, 1);
    assert_true(suspected(&h));
    /* Its replica is told at once. */
    const struct cluster_action *told = harness_sent(&h, CLUSTER_PONG);
    struct cluster_id d = harness_id('d'), b = harness_id('b');
    assert_non_null(told);
    assert_true(cluster_id_eq(&told->node, &d));
    bool said = false;
    for (unsigned i = 0; i < told->message->gossip_count; i++)
        said |= cluster_id_eq(&told->message->gossip[i].id, &b) && told->message->gossip[i].flags & CLUSTER_NODE_PFAIL;
    assert_true(said);
    /* A vote for the replica does not wait for the node timeout. */
    struct cluster_message fail = from(&h, CLUSTER_FAIL, 'd');
    fail.fail = b;
    harness_receive(&h, IN | 4, &fail);
    struct cluster_message request = from(&h, CLUSTER_AUTH_REQUEST, 'd');
    request.current_epoch = 4;
    harness_receive(&h, IN | 4, &request);
    assert_non_null(harness_sent(&h, CLUSTER_AUTH_ACK));
    harness_stop(&h);
}

static void its_replica_stands_at_once(void **state)
{
    struct harness h;
    (void)state;
    die(&h, start(&h, TABLE("", "myself,")));
    struct cluster_facts facts = {.applied_offset = 10, .link_down_since_ms = h.now.mono_ms};
    harness_step(&h, &(struct cluster_event){.kind = CLUSTER_EV_FACTS, .facts = facts});
    struct cluster_gossip gossip = {.id = harness_id('b'),
                                    .flags = CLUSTER_NODE_PFAIL | CLUSTER_NODE_PRIMARY,
                                    .ip = "10.0.0.3",
                                    .port = 7000,
                                    .cport = 17000};
    for (const char *who = "ac"; *who; who++) { /* the reports come before its own two refusals */
        struct cluster_message report = from(&h, CLUSTER_PONG, *who);
        report.gossip = &gossip;
        report.gossip_count = 1;
        harness_receive(&h, IN | (uint64_t)*who, &report);
    }
    assert_false(harness_view(&h, 'b').flags & CLUSTER_NODE_FAIL);
    refuse(&h, 60);
    assert_true(harness_view(&h, 'b').flags & CLUSTER_NODE_FAIL);
    assert_non_null(harness_sent(&h, CLUSTER_FAIL));
    assert_non_null(harness_note(&h, CLUSTER_NOTE_ELECTION_SCHEDULED));
    assert_int_equal(harness_note(&h, CLUSTER_NOTE_ELECTION_SCHEDULED)->epoch, 0); /* ms */
    harness_settle(&h);
    harness_tick(&h, 1);
    assert_non_null(harness_sent(&h, CLUSTER_AUTH_REQUEST));
    harness_stop(&h);
}

static void what_is_no_sign_of_death(void **state)
{
    struct harness h;
    (void)state;
    /* Its own connection to me stands. */
    uint64_t link = start(&h, TABLE("myself,", ""));
    down(&h, link, false);
    down(&h, harness_view(&h, 'b').link_out, true);
    refuse(&h, 60);
    refuse(&h, 60);
    assert_false(suspected(&h));
    harness_stop(&h);
    /* It cannot be reached at all: a refusal before that does not count either. */
    die(&h, start(&h, TABLE("myself,", "")));
    harness_tick(&h, 60);
    down(&h, harness_view(&h, 'b').link_out, false);
    refuse(&h, 60);
    assert_false(suspected(&h));
    refuse(&h, 60);
    assert_true(suspected(&h));
    harness_stop(&h);
    /* Something of it comes in between. */
    die(&h, start(&h, TABLE("myself,", "")));
    struct cluster_message ping = from(&h, CLUSTER_PING, 'b');
    harness_receive(&h, IN | 3, &ping);
    down(&h, IN | 3, false);
    refuse(&h, 60);
    assert_false(suspected(&h));
    harness_stop(&h);
    /* It accepts a connection. */
    die(&h, start(&h, TABLE("myself,", "")));
    harness_tick(&h, 60);
    harness_connect(&h, 'b');
    assert_false(suspected(&h));
    harness_stop(&h);
    /* It never was connected since this node began. */
    harness_config(&h);
    harness_start(&h, TABLE("myself,", ""));
    for (int i = 0; i < 5; i++) refuse(&h, 100);
    assert_false(suspected(&h));
    harness_stop(&h);
}

static void nobody_hurries_without_a_successor(void **state)
{
    struct harness h;
    (void)state;
    static const char alone[] =
        A " 10.0.0.2:7000@17000 myself,master - 0 1 1 connected 0-99\n" B
          " 10.0.0.3:7000@17000 master - 0 1 2 connected 100-199\nvars currentEpoch 3 lastVoteEpoch 0\n";
    harness_config(&h);
    harness_start(&h, alone);
    harness_tick(&h, 100);
    uint64_t link = harness_connect(&h, 'b');
    struct cluster_message pong = from(&h, CLUSTER_PONG, 'b');
    harness_receive(&h, link, &pong);
    down(&h, link, false);
    for (int i = 0; i < 5; i++) refuse(&h, 100);
    assert_false(suspected(&h));
    harness_stop(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_refusals_are_enough),
        cmocka_unit_test(its_replica_stands_at_once),
        cmocka_unit_test(what_is_no_sign_of_death),
        cmocka_unit_test(nobody_hurries_without_a_successor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
