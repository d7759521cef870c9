/* Operator commands: what they change, and Redis's words when they refuse. */
#include "cluster/core/harness.h"

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define C "cccccccccccccccccccccccccccccccccccccccc"
#define X "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

/* I am a, primary of 0-99; b is a primary of 100-199; c is b's replica. */
static const char primary_of_some[] =
    A " 10.0.0.1:7000@17000 myself,master - 0 0 7 connected 0-99\n" B
      " 10.0.0.2:7000@17000 master - 0 1 9 connected 100-199\n" C " 10.0.0.3:7000@17000 slave " B
      " 0 1 9 connected\nvars currentEpoch 9 lastVoteEpoch 2\n";
/* I am c, a replica of b. */
static const char replica_of_b[] =
    C " 10.0.0.3:7000@17000 myself,slave " B " 0 0 9 connected\n" B
      " 10.0.0.2:7000@17000 master - 0 1 9 connected 100-199\n" A " 10.0.0.1:7000@17000 master - 0 1 7 connected 0-99\n"
      "vars currentEpoch 9 lastVoteEpoch 2\n";

#define REFUSED(call, words)                    \
    do {                                        \
        assert_false(call);                     \
        assert_string_equal(h.err.text, words); \
    } while (0)
#define DONE(call)                               \
    do {                                         \
        if (!(call)) fail_msg("%s", h.err.text); \
        harness_settle(&h);                      \
    } while (0)
#define TAIL h.now, &h.err, &h.out

static void meet(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, "");
    struct bytes bus = BYTES("0");
    REFUSED(cluster_meet(h.core, BYTES("10.0.0.1"), BYTES("x"), NULL, TAIL), "Invalid TCP base port specified: x");
    REFUSED(cluster_meet(h.core, BYTES("10.0.0.1"), BYTES("7"), &BYTES("y"), TAIL),
            "Invalid TCP bus port specified: y");
    REFUSED(cluster_meet(h.core, BYTES("10.0.0.1"), BYTES("0"), NULL, TAIL),
            "Invalid node address specified: 10.0.0.1:0");
    REFUSED(cluster_meet(h.core, BYTES("10.0.0.1"), BYTES("7"), &bus, TAIL),
            "Invalid node address specified: 10.0.0.1:7");
    REFUSED(cluster_meet(h.core, BYTES("10.0.0.1"), BYTES("60000"), NULL, TAIL),
            "Invalid node address specified: 10.0.0.1:60000");
    REFUSED(cluster_meet(h.core, BYTES("host"), BYTES("7"), NULL, TAIL), "Invalid node address specified: host:7");
    DONE(cluster_meet(h.core, BYTES("10.0.0.1"), BYTES("7000"), NULL, TAIL));
    DONE(cluster_meet(h.core, BYTES("10.0.0.1"), BYTES("7000"), NULL, TAIL));
    assert_int_equal(cluster_node_count(h.core), 2); /* the same handshake, once */
    harness_tick(&h, 100);
    const struct cluster_action *a = harness_find(&h, CLUSTER_DO_CONNECT);
    assert_non_null(a);
    assert_string_equal(a->ip, "10.0.0.1");
    assert_int_equal(a->port, 17000);
    harness_step(&h, &(struct cluster_event){.kind = CLUSTER_EV_CONNECTED, .link = a->link});
    assert_non_null(harness_sent(&h, CLUSTER_MEET));
    for (int i = 0; i < 11; i++) harness_tick(&h, 100);
    assert_int_equal(cluster_node_count(h.core), 1); /* nobody answered */
    harness_stop(&h);
}

static void slots(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, primary_of_some);
    struct bytes bad[] = {BYTES("300"), BYTES("16384")}, busy[] = {BYTES("300"), BYTES("150")};
    struct bytes twice[] = {BYTES("300"), BYTES("300")}, good[] = {BYTES("300"), BYTES("301")};
    REFUSED(cluster_add_slots(h.core, bad, 2, TAIL), "Invalid or out of range slot");
    REFUSED(cluster_add_slots(h.core, busy, 2, TAIL), "Slot 150 is already busy");
    REFUSED(cluster_add_slots(h.core, twice, 2, TAIL), "Slot 300 specified multiple times");
    REFUSED(cluster_del_slots(h.core, good, 2, TAIL), "Slot 300 is already unassigned");
    assert_null(cluster_slot_owner(h.core, 300)); /* all or nothing */
    DONE(cluster_add_slots(h.core, good, 2, TAIL));
    assert_ptr_equal(cluster_slot_owner(h.core, 301), cluster_myself(h.core));
    struct bytes reversed[] = {BYTES("10"), BYTES("9")}, range[] = {BYTES("302"), BYTES("400")};
    REFUSED(cluster_add_slot_ranges(h.core, reversed, 2, TAIL),
            "start slot number 10 is greater than end slot number 9");
    DONE(cluster_add_slot_ranges(h.core, range, 2, TAIL));
    assert_int_equal(harness_me(&h).slot_count, 201);
    DONE(cluster_del_slot_ranges(h.core, range, 2, TAIL));
    h.keys[1] = 1;
    REFUSED(cluster_flush_slots(h.core, TAIL), "DB must be empty to perform CLUSTER FLUSHSLOTS.");
    h.keys[1] = 0;
    DONE(cluster_flush_slots(h.core, TAIL));
    assert_int_equal(harness_me(&h).slot_count, 0);
    harness_stop(&h);
}

static void setslot_refusals(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, primary_of_some);
    struct bytes a = BYTES(A), b = BYTES(B), c = BYTES(C), x = BYTES(X);
    struct bytes one = BYTES("1"), theirs = BYTES("150");
    REFUSED(cluster_set_slot(h.core, BYTES("16384"), BYTES("STABLE"), NULL, TAIL), "Invalid or out of range slot");
    REFUSED(cluster_set_slot(h.core, theirs, BYTES("migrating"), &b, TAIL), "I'm not the owner of hash slot 150");
    REFUSED(cluster_set_slot(h.core, one, BYTES("importing"), &b, TAIL), "I'm already the owner of hash slot 1");
    REFUSED(cluster_set_slot(h.core, one, BYTES("migrating"), &x, TAIL), "I don't know about node " X);
    REFUSED(cluster_set_slot(h.core, one, BYTES("migrating"), &c, TAIL), "Target node is not a master");
    REFUSED(cluster_set_slot(h.core, one, BYTES("node"), &x, TAIL), "Unknown node " X);
    REFUSED(cluster_set_slot(h.core, one, BYTES("node"), &c, TAIL), "Target node is not a master");
    REFUSED(cluster_set_slot(h.core, one, BYTES("stable"), &a, TAIL),
            "Invalid CLUSTER SETSLOT action or number of arguments. Try CLUSTER HELP");
    h.keys[1] = 3;
    REFUSED(cluster_set_slot(h.core, one, BYTES("node"), &b, TAIL),
            "Can't assign hashslot 1 to a different node while I still hold keys for this hash slot.");
    harness_stop(&h);
    harness_config(&h);
    harness_start(&h, replica_of_b);
    REFUSED(cluster_set_slot(h.core, one, BYTES("stable"), NULL, TAIL), "Please use SETSLOT only with masters.");
    harness_stop(&h);
}

/* At the end of an import the new owner takes a new epoch; the giver only lets go. */
static void a_slot_moves(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, primary_of_some);
    struct bytes a = BYTES(A), b = BYTES(B);
    DONE(cluster_set_slot(h.core, BYTES("150"), BYTES("IMPORTING"), &b, TAIL));
    assert_non_null(cluster_slot_importing_from(h.core, 150));
    assert_true(cluster_set_slot(h.core, BYTES("150"), BYTES("NODE"), &a, TAIL));
    assert_ptr_equal(cluster_slot_owner(h.core, 150), cluster_myself(h.core));
    assert_null(cluster_slot_importing_from(h.core, 150));
    assert_true(cluster_my_config_epoch(h.core) == 10);
    harness_settle(&h);
    DONE(cluster_set_slot(h.core, BYTES("2"), BYTES("MIGRATING"), &b, TAIL));
    DONE(cluster_set_slot(h.core, BYTES("2"), BYTES("NODE"), &b, TAIL));
    assert_null(cluster_slot_migrating_to(h.core, 2));
    assert_true(cluster_my_config_epoch(h.core) == 10);
    harness_stop(&h);
}

static void giving_the_last_slot_away_demotes(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, A " 10.0.0.1:7000@17000 myself,master - 0 0 7 connected 5\n" B
                        " 10.0.0.2:7000@17000 master - 0 1 9 connected 100-199\nvars currentEpoch 9 lastVoteEpoch 2\n");
    assert_true(cluster_set_slot(h.core, BYTES("5"), BYTES("NODE"), &BYTES(B), TAIL));
    assert_false(cluster_is_primary(h.core));
    const struct cluster_action *r = harness_find(&h, CLUSTER_DO_REPLICATE);
    assert_non_null(r);
    assert_string_equal(r->ip, "10.0.0.2");
    assert_int_equal(r->port, 7000);
    harness_stop(&h);
}

static void roles(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, primary_of_some);
    REFUSED(cluster_replicate(h.core, BYTES(X), TAIL), "Unknown node " X);
    REFUSED(cluster_replicate(h.core, BYTES(A), TAIL), "Can't replicate myself");
    REFUSED(cluster_replicate(h.core, BYTES(C), TAIL), "I can only replicate a master, not a replica.");
    REFUSED(cluster_replicate(h.core, BYTES(B), TAIL),
            "To set a master the node must be empty and without assigned slots.");
    REFUSED(cluster_failover(h.core, NULL, TAIL), "You should send CLUSTER FAILOVER to a replica");
    REFUSED(cluster_failover(h.core, &BYTES("now"), TAIL), "syntax error");
    REFUSED(cluster_forget(h.core, BYTES(X), TAIL), "Unknown node " X);
    REFUSED(cluster_forget(h.core, BYTES(A), TAIL), "I tried hard but I can't forget myself...");
    DONE(cluster_flush_slots(h.core, TAIL));
    DONE(cluster_replicate(h.core, BYTES(B), TAIL));
    REFUSED(cluster_forget(h.core, BYTES(B), TAIL), "Can't forget my master!");
    DONE(cluster_forget(h.core, BYTES(C), TAIL));
    assert_int_equal(cluster_node_count(h.core), 2);
    harness_stop(&h);
    harness_config(&h);
    harness_start(&h, replica_of_b);
    REFUSED(cluster_failover(h.core, NULL, TAIL),
            "Master is down or failed, please use CLUSTER FAILOVER FORCE"); /* no link yet */
    DONE(cluster_failover(h.core, &BYTES("takeover"), TAIL));
    assert_true(cluster_is_primary(h.core));
    assert_int_equal(harness_me(&h).slot_count, 100);
    assert_true(cluster_my_config_epoch(h.core) == 10);
    harness_stop(&h);
}

static void epochs(void **state)
{
    struct harness h;
    bool bumped;
    uint64_t epoch;
    harness_config(&h);
    harness_start(&h, "");
    REFUSED(cluster_set_config_epoch(h.core, BYTES("-1"), TAIL), "Invalid config epoch specified: -1");
    DONE(cluster_set_config_epoch(h.core, BYTES("5"), TAIL));
    assert_true(cluster_current_epoch(h.core) == 5);
    REFUSED(cluster_set_config_epoch(h.core, BYTES("6"), TAIL), "Node config epoch is already non-zero");
    assert_true(cluster_bump_epoch(h.core, &bumped, &epoch, TAIL) && !bumped && epoch == 5);
    harness_stop(&h);
    harness_config(&h);
    harness_start(&h, primary_of_some);
    REFUSED(cluster_set_config_epoch(h.core, BYTES("5"), TAIL),
            "The user can assign a config epoch only when the node does not know any other node.");
    assert_true(cluster_bump_epoch(h.core, &bumped, &epoch, TAIL) && bumped && epoch == 10);
    harness_stop(&h);
}

static void reset(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, primary_of_some);
    h.keys[0] = 1;
    REFUSED(cluster_reset(h.core, false, TAIL), "CLUSTER RESET can't be called with master nodes containing keys");
    h.keys[0] = 0;
    DONE(cluster_reset(h.core, false, TAIL));
    assert_int_equal(cluster_node_count(h.core), 1);
    assert_true(cluster_current_epoch(h.core) == 9 && cluster_my_config_epoch(h.core) == 7);
    assert_memory_equal(harness_me(&h).id.c, A, 40);
    DONE(cluster_reset(h.core, true, TAIL));
    assert_true(cluster_current_epoch(h.core) == 0 && cluster_last_vote_epoch(h.core) == 0);
    assert_memory_not_equal(harness_me(&h).id.c, A, 40);
    harness_stop(&h);
    harness_config(&h);
    harness_start(&h, replica_of_b);
    h.keys[0] = 1; /* a replica may have keys: they go */
    assert_true(cluster_reset(h.core, false, TAIL));
    assert_non_null(harness_find(&h, CLUSTER_DO_FLUSH));
    assert_true(cluster_is_primary(h.core));
    harness_stop(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(meet),         cmocka_unit_test(slots),
        cmocka_unit_test(roles),        cmocka_unit_test(setslot_refusals),
        cmocka_unit_test(a_slot_moves), cmocka_unit_test(giving_the_last_slot_away_demotes),
        cmocka_unit_test(epochs),       cmocka_unit_test(reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
