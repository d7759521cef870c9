/* The right to write, and the voters' half of it. */
#include "cluster/core/harness.h"

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define C "cccccccccccccccccccccccccccccccccccccccc"
#define D "dddddddddddddddddddddddddddddddddddddddd"
#define IN CLUSTER_LINK_INBOUND

/* a, b and c are primaries, a is myself; d is a replica of b.  The node timeout is 1000 ms. */
static const char table[] =
    A " 10.0.0.2:7000@17000 myself,master - 0 1 1 connected 0-99\n" B
      " 10.0.0.3:7000@17000 master - 0 1 2 connected 100-199\n" C
      " 10.0.0.4:7000@17000 master - 0 1 3 connected 200-299\n" D " 10.0.0.5:7000@17000 slave " B " 0 1 2 connected\n"
      "vars currentEpoch 3 lastVoteEpoch 0\n";

static struct cluster_message header(struct harness *h, unsigned type, char who)
{
    struct cluster_message m = harness_message(h, type, who);
    m.current_epoch = 3;
    m.config_epoch = who == 'c' ? 3 : 2;
    unsigned first = who == 'c' ? 200 : 100;
    for (unsigned s = first; s < first + 100; s++) cluster_bit_set(h->slots, s);
    if (who == 'd') {
        m.flags = CLUSTER_NODE_MYSELF | CLUSTER_NODE_REPLICA;
        m.replica_of = harness_id('b');
    }
    return m;
}

static void start(struct harness *h)
{
    harness_config(h);
    harness_start(h, table);
    harness_tick(h, 100);
}

static int64_t left(const struct harness *h)
{
    int64_t until = cluster_lease_until(h->core);
    return until > h->now.mono_ms ? until - h->now.mono_ms : 0;
}

static void it_lasts_from_the_sending_of_what_a_majority_answered(void **state)
{
    struct harness h;
    (void)state;
    start(&h);
    assert_int_equal(left(&h), 0);
    uint64_t link = harness_connect(&h, 'b'); /* sends a ping */
    assert_non_null(harness_sent(&h, CLUSTER_PING));
    h.now.mono_ms += 300;
    struct cluster_message pong = header(&h, CLUSTER_PONG, 'b');
    harness_receive(&h, link, &pong);
    assert_int_equal(left(&h), 500);  /* two of three: b and myself */
    harness_receive(&h, link, &pong); /* answers no question */
    assert_int_equal(left(&h), 500);
    h.now.mono_ms += 500;
    assert_int_equal(left(&h), 0);
    /* Renewed four times in a node timeout. */
    harness_tick(&h, 0);
    assert_non_null(harness_sent(&h, CLUSTER_PING));
    h.now.mono_ms += 20;
    harness_receive(&h, link, &pong);
    assert_int_equal(left(&h), 780);
    harness_tick(&h, 100);
    assert_null(harness_sent(&h, CLUSTER_PING));
    /* It ends with the link. */
    harness_step(&h, &(struct cluster_event){.kind = CLUSTER_EV_LINK_DOWN, .link = link});
    assert_int_equal(left(&h), 0);
    harness_stop(&h);
}

static void some_answers_do_not_count(void **state)
{
    struct harness h;
    (void)state;
    start(&h);
    uint64_t link = harness_connect(&h, 'b');
    struct cluster_message pong = header(&h, CLUSTER_PONG, 'b');
    pong.covey = CLUSTER_COVEY | CLUSTER_COVEY_NO_LEASE;
    harness_receive(&h, link, &pong);
    assert_int_equal(left(&h), 0);
    harness_tick(&h, 300);
    pong = header(&h, CLUSTER_PONG, 'b');
    pong.current_epoch = 4; /* it may have voted in that one */
    harness_receive(&h, link, &pong);
    assert_int_equal(left(&h), 0);
    harness_settle(&h);
    harness_tick(&h, 300);
    harness_receive(&h, link, &pong);
    assert_int_equal(left(&h), 800);
    harness_stop(&h);
}

static bool votes(struct harness *h, uint64_t epoch)
{
    struct cluster_message request = header(h, CLUSTER_AUTH_REQUEST, 'd');
    request.current_epoch = epoch;
    harness_receive(h, IN | 4, &request);
    return harness_sent(h, CLUSTER_AUTH_ACK) != NULL;
}

static const char *refusal(const struct harness *h)
{
    return harness_note(h, CLUSTER_NOTE_VOTE_DENIED)->reason;
}

static unsigned answer_to_b(struct harness *h)
{
    struct cluster_message ping = header(h, CLUSTER_PING, 'b');
    harness_receive(h, IN | 2, &ping);
    const struct cluster_action *pong = harness_sent(h, CLUSTER_PONG);
    assert_non_null(pong);
    return pong->message->covey;
}

static void a_voter_waits_until_it_has_ended(void **state)
{
    struct harness h;
    (void)state;
    start(&h);
    harness_connect(&h, 'd');
    h.now.mono_ms += 2000;
    assert_int_equal(answer_to_b(&h), CLUSTER_COVEY);
    struct cluster_message fail = header(&h, CLUSTER_FAIL, 'c');
    fail.fail = harness_id('b');
    harness_receive(&h, IN | 3, &fail);
    assert_false(votes(&h, 4));
    assert_string_equal(refusal(&h), "I answered its primary a short time ago");
    h.now.mono_ms += 999;
    assert_false(votes(&h, 5));
    h.now.mono_ms += 1;
    assert_true(votes(&h, 6));
    harness_settle(&h);
    /* While the vote may decide, it does not support the one voted against; later it does. */
    assert_int_equal(answer_to_b(&h), CLUSTER_COVEY | CLUSTER_COVEY_NO_LEASE);
    h.now.mono_ms += 2000;
    assert_int_equal(answer_to_b(&h), CLUSTER_COVEY);
    harness_stop(&h);
}

static void a_voter_that_has_just_started_waits_too(void **state)
{
    struct harness h;
    (void)state;
    start(&h);
    harness_connect(&h, 'd');
    struct cluster_message fail = header(&h, CLUSTER_FAIL, 'c');
    fail.fail = harness_id('b');
    harness_receive(&h, IN | 3, &fail);
    assert_false(votes(&h, 4));
    assert_string_equal(refusal(&h), "I have just started, and may have answered its primary before");
    h.now.mono_ms += 900;
    assert_true(votes(&h, 5));
    harness_stop(&h);
}

static void who_claims_what_another_one_has_taken_is_not_supported(void **state)
{
    struct harness h;
    (void)state;
    start(&h);
    struct cluster_message taken = header(&h, CLUSTER_PING, 'd'); /* d was elected in b's place */
    taken.flags = CLUSTER_NODE_MYSELF | CLUSTER_NODE_PRIMARY;
    taken.replica_of = (struct cluster_id){{0}};
    taken.current_epoch = taken.config_epoch = 4;
    harness_receive(&h, IN | 4, &taken);
    harness_settle(&h);
    assert_int_equal(answer_to_b(&h), CLUSTER_COVEY | CLUSTER_COVEY_NO_LEASE);
    harness_stop(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_lasts_from_the_sending_of_what_a_majority_answered),
        cmocka_unit_test(some_answers_do_not_count),
        cmocka_unit_test(a_voter_waits_until_it_has_ended),
        cmocka_unit_test(a_voter_that_has_just_started_waits_too),
        cmocka_unit_test(who_claims_what_another_one_has_taken_is_not_supported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
