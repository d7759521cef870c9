/* Single behaviours of the protocol, one message at a time. */
#include "cluster/core/harness.h"

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define C "cccccccccccccccccccccccccccccccccccccccc"
#define D "dddddddddddddddddddddddddddddddddddddddd"
#define IN CLUSTER_LINK_INBOUND

/* a 0-99 epoch 1, b 100-199 epoch 2, c 200-299 epoch 3 are primaries, d is a replica of b. */
#define LINE_A(who) A " 10.0.0.2:7000@17000 " who "master - 0 1 1 connected 0-99\n"
#define LINE_B(who) B " 10.0.0.3:7000@17000 " who "master - 0 1 2 connected 100-199\n"
#define LINE_C(who) C " 10.0.0.4:7000@17000 " who "master - 0 1 3 connected 200-299\n"
#define LINE_D(who) D " 10.0.0.5:7000@17000 " who "slave " B " 0 1 2 connected\n"
#define VARS "vars currentEpoch 3 lastVoteEpoch 0\n"
static const char as_primary[] = LINE_A("myself,") LINE_B("") LINE_C("") LINE_D("") VARS;
static const char as_replica[] = LINE_A("") LINE_B("") LINE_C("") LINE_D("myself,") VARS;

static void range(uint8_t *map, unsigned first, unsigned last)
{
    for (unsigned s = first; s <= last; s++) cluster_bit_set(map, s);
}

/* A header of b's, c's or d's as the table above has it. */
static struct cluster_message header(struct harness *h, unsigned type, char who)
{
    struct cluster_message m = harness_message(h, type, who);
    m.current_epoch = 3;
    m.config_epoch = who == 'a' ? 1 : who == 'c' ? 3 : 2;
    unsigned first = who == 'a' ? 0 : who == 'c' ? 200 : 100;
    range(h->slots, first, first + 99);
    if (who == 'd') {
        m.flags = CLUSTER_NODE_MYSELF | CLUSTER_NODE_REPLICA;
        m.replica_of = harness_id('b');
    }
    return m;
}

static void fail_b(struct harness *h)
{
    struct cluster_message m = header(h, CLUSTER_FAIL, 'c');
    m.fail = harness_id('b');
    harness_receive(h, IN | 3, &m);
    assert_true(harness_view(h, 'b').flags & CLUSTER_NODE_FAIL);
}

/* ---- standing still ---- */

static void who_is_alone_may_stand_still(void **state)
{
    struct harness h;
    harness_config(&h);
    h.config.require_full_coverage = false;
    harness_start(&h, LINE_A("myself,") VARS);
    for (int i = 0; i < 30; i++) harness_tick(&h, 100);
    assert_true(cluster_state_ok(h.core));
    harness_tick(&h, 10 * h.config.node_timeout_ms); /* nobody can have replaced it */
    assert_true(cluster_state_ok(h.core));
    harness_stop(&h);
}

/* ---- handshake ---- */

static void a_handshake_ends_with_the_real_name(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, "");
    assert_true(cluster_meet(h.core, BYTES("10.0.0.3"), BYTES("7000"), NULL, h.now, &h.err, &h.out));
    harness_tick(&h, 100);
    uint64_t link = harness_find(&h, CLUSTER_DO_CONNECT)->link;
    harness_step(&h, &(struct cluster_event){.kind = CLUSTER_EV_CONNECTED, .link = link});
    assert_int_equal(harness_sent(&h, CLUSTER_MEET)->link, link);
    struct cluster_message pong = harness_message(&h, CLUSTER_PONG, 'b');
    range(h.slots, 0, 99);
    harness_receive(&h, link, &pong);
    assert_true(harness_view(&h, 'b').flags == CLUSTER_NODE_PRIMARY);
    assert_int_equal(harness_view(&h, 'b').slot_count, 0); /* the first pong is only an introduction */
    harness_receive(&h, link, &pong);
    assert_int_equal(harness_view(&h, 'b').slot_count, 100);
    assert_string_equal(harness_me(&h).ip, ""); /* a pong does not tell me my address */
    harness_stop(&h);
}

static void strangers_are_answered_but_not_believed(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, as_primary);
    struct cluster_message m = harness_message(&h, CLUSTER_PING, 'z');
    m.current_epoch = 100;
    range(h.slots, 0, 16383);
    harness_receive(&h, IN | 9, &m);
    assert_int_equal(harness_sent(&h, CLUSTER_PONG)->link, IN | 9);
    assert_int_equal(cluster_node_count(h.core), 4);
    assert_true(cluster_current_epoch(h.core) == 3);
    m.type = CLUSTER_FAIL;
    m.fail = harness_id('b');
    harness_receive(&h, IN | 9, &m);
    assert_false(harness_view(&h, 'b').flags & CLUSTER_NODE_FAIL);
    m.type = CLUSTER_MEET; /* only MEET opens the door */
    harness_receive(&h, IN | 9, &m);
    assert_int_equal(cluster_node_count(h.core), 5);
    assert_non_null(harness_sent(&h, CLUSTER_PONG));
    harness_stop(&h);
}

static void epochs_that_would_overflow_are_ignored(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, as_primary);
    struct cluster_message m = header(&h, CLUSTER_PING, 'b');
    m.current_epoch = UINT64_MAX;
    harness_receive(&h, IN | 2, &m);
    assert_true(cluster_current_epoch(h.core) == 3);
    harness_stop(&h);
}

static void another_node_at_the_address_loses_it(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, as_primary);
    harness_tick(&h, 100);
    uint64_t link = harness_connect(&h, 'b');
    struct cluster_message m = harness_message(&h, CLUSTER_PONG, 'y');
    harness_receive(&h, link, &m);
    assert_true(harness_view(&h, 'b').flags & CLUSTER_NODE_NOADDR);
    assert_int_equal(harness_find(&h, CLUSTER_DO_CLOSE)->link, link);
    harness_stop(&h);
}

static void hostnames_come_and_go_with_each_heartbeat(void **state)
{
    struct harness h;
    harness_config(&h);
    strcpy(h.config.announce_hostname, "me.example");
    harness_start(&h, as_primary);
    struct cluster_message m = header(&h, CLUSTER_PING, 'b');
    harness_receive(&h, IN | 2, &m);
    const struct cluster_message *pong = harness_sent(&h, CLUSTER_PONG)->message;
    assert_true(pong->mflags & CLUSTER_MSG_EXT_DATA && pong->hostname.n == 0); /* it may be an old one */
    m.mflags = CLUSTER_MSG_EXT_DATA;
    m.hostname = BYTES("b.example");
    harness_receive(&h, IN | 2, &m);
    assert_string_equal(harness_view(&h, 'b').hostname, "b.example");
    harness_receive(&h, IN | 2, &m);
    assert_true(bytes_eq(harness_sent(&h, CLUSTER_PONG)->message->hostname, BYTES("me.example")));
    m.hostname = (struct bytes){0};
    harness_receive(&h, IN | 2, &m);
    assert_string_equal(harness_view(&h, 'b').hostname, "");
    harness_stop(&h);
}

static bool shard_is(struct cluster_node_view v, const struct cluster_id *shard)
{
    return cluster_id_eq(&v.shard, shard);
}

static void a_shard_has_the_name_that_its_primary_tells(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, as_replica);
    struct cluster_id b = harness_id('b'), s = harness_id('5'), t = harness_id('6');
    assert_true(shard_is(harness_me(&h), &b) && shard_is(harness_view(&h, 'b'), &b)); /* none was told */
    struct cluster_message m = header(&h, CLUSTER_PING, 'b');
    harness_receive(&h, IN | 2, &m);
    assert_true(cluster_id_is_null(&harness_sent(&h, CLUSTER_PONG)->message->shard));
    m.mflags = CLUSTER_MSG_EXT_DATA;
    m.hostname = BYTES("b.example"); /* so does 7.0, and writes a line into its log about what it does not know */
    harness_receive(&h, IN | 2, &m);
    assert_true(cluster_id_is_null(&harness_sent(&h, CLUSTER_PONG)->message->shard));
    m.shard = s;
    harness_receive(&h, IN | 2, &m);
    assert_true(cluster_id_eq(&harness_sent(&h, CLUSTER_PONG)->message->shard, &b));
    assert_true(shard_is(harness_me(&h), &s) && shard_is(harness_view(&h, 'b'), &s));
    assert_non_null(harness_find(&h, CLUSTER_DO_PERSIST));
    harness_receive(&h, IN | 2, &m);
    assert_true(cluster_id_eq(&harness_sent(&h, CLUSTER_PONG)->message->shard, &s));
    /* Its successor keeps it. */
    assert_true(cluster_failover(h.core, &BYTES("TAKEOVER"), h.now, &h.err, &h.out));
    assert_true(cluster_is_primary(h.core) && shard_is(harness_me(&h), &s));
    m.shard = t;
    harness_receive(&h, IN | 2, &m);
    assert_true(shard_is(harness_me(&h), &s));
    harness_stop(&h);
}

static void who_leaves_a_shard_gets_another(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, as_replica);
    struct cluster_id before = harness_me(&h).shard;
    assert_true(cluster_reset(h.core, false, h.now, &h.err, &h.out));
    assert_false(shard_is(harness_me(&h), &before));
    before = harness_me(&h).shard;
    assert_true(cluster_reset(h.core, false, h.now, &h.err, &h.out));
    assert_true(shard_is(harness_me(&h), &before));
    assert_true(cluster_reset(h.core, true, h.now, &h.err, &h.out));
    assert_false(shard_is(harness_me(&h), &before));
    harness_stop(&h);
}

/* ---- failure ---- */

static void silence_then_a_majority_makes_a_failure(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, as_primary);
    harness_tick(&h, 100);
    uint64_t link = harness_view(&h, 'b').link_out;
    harness_step(&h, &(struct cluster_event){.kind = CLUSTER_EV_LINK_DOWN, .link = link}); /* refused */
    for (int i = 0; i < 9; i++) harness_tick(&h, 100);
    assert_false(harness_view(&h, 'b').flags & CLUSTER_NODE_PFAIL);
    for (int i = 0; i < 3; i++) harness_tick(&h, 100);
    assert_true(harness_view(&h, 'b').flags & CLUSTER_NODE_PFAIL);
    assert_false(harness_view(&h, 'b').flags & CLUSTER_NODE_FAIL);
    struct cluster_gossip g = {.id = harness_id('b'), .flags = CLUSTER_NODE_PRIMARY | CLUSTER_NODE_PFAIL};
    struct cluster_message m = header(&h, CLUSTER_PING, 'd');
    m.gossip = &g;
    m.gossip_count = 1;
    harness_receive(&h, IN | 4, &m); /* a replica's word does not count */
    assert_false(harness_view(&h, 'b').flags & CLUSTER_NODE_FAIL);
    m = header(&h, CLUSTER_PING, 'c');
    m.gossip = &g;
    m.gossip_count = 1;
    harness_receive(&h, IN | 3, &m);
    assert_true(harness_view(&h, 'b').flags & CLUSTER_NODE_FAIL);
    harness_stop(&h);
}

static void reports_expire_and_are_taken_back(void **state)
{
    struct harness h;
    size_t count = 9;
    harness_config(&h);
    harness_start(&h, as_primary);
    struct cluster_gossip g = {.id = harness_id('b'), .flags = CLUSTER_NODE_PRIMARY | CLUSTER_NODE_PFAIL};
    struct cluster_message m = header(&h, CLUSTER_PING, 'c');
    m.gossip = &g;
    m.gossip_count = 1;
    harness_receive(&h, IN | 3, &m);
    assert_true(cluster_count_failure_reports(h.core, BYTES(B), &count, h.now, &h.err) && count == 1);
    g.flags = CLUSTER_NODE_PRIMARY;
    harness_receive(&h, IN | 3, &m);
    assert_true(cluster_count_failure_reports(h.core, BYTES(B), &count, h.now, &h.err) && count == 0);
    g.flags |= CLUSTER_NODE_FAIL;
    harness_receive(&h, IN | 3, &m);
    h.now.mono_ms += 2001;
    assert_true(cluster_count_failure_reports(h.core, BYTES(B), &count, h.now, &h.err) && count == 0);
    harness_stop(&h);
}

static void a_failed_primary_with_slots_is_taken_back_late(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, as_primary);
    harness_tick(&h, 100);
    uint64_t link = harness_connect(&h, 'b');
    fail_b(&h);
    struct cluster_message pong = header(&h, CLUSTER_PONG, 'b');
    harness_receive(&h, link, &pong);
    assert_true(harness_view(&h, 'b').flags & CLUSTER_NODE_FAIL);
    h.now.mono_ms += 2001;
    harness_receive(&h, link, &pong);
    assert_false(harness_view(&h, 'b').flags & CLUSTER_NODE_FAIL);
    harness_stop(&h);
}

/* ---- votes ---- */

static bool voted(struct harness *h, const struct cluster_message *request)
{
    harness_receive(h, IN | 4, request);
    return harness_sent(h, CLUSTER_AUTH_ACK) != NULL;
}

static void start_voter(struct harness *h, struct cluster_message *request)
{
    harness_config(h);
    harness_start(h, as_primary);
    harness_tick(h, 100);
    harness_connect(h, 'd');
    fail_b(h);
    h->now.mono_ms += 1000; /* who has just started does not vote */
    *request = header(h, CLUSTER_AUTH_REQUEST, 'd');
    request->current_epoch = 4;
}

static void a_vote_is_given_once_and_only_when_durable(void **state)
{
    struct harness h;
    struct cluster_message request;
    start_voter(&h, &request);
    assert_true(voted(&h, &request));
    const struct cluster_action *persist = harness_find(&h, CLUSTER_DO_PERSIST);
    assert_non_null(persist);
    assert_int_equal(harness_sent(&h, CLUSTER_AUTH_ACK)->after_persist, persist->seq);
    struct buf text = h.out.persist_text;
    assert_non_null(memmem(text.p, text.n, "vars currentEpoch 4 lastVoteEpoch 4\n", 36));
    assert_false(voted(&h, &request));
    assert_string_equal(harness_note(&h, CLUSTER_NOTE_VOTE_DENIED)->reason, "I voted in this epoch");
    request.current_epoch = 5;
    assert_false(voted(&h, &request));
    assert_string_equal(harness_note(&h, CLUSTER_NOTE_VOTE_DENIED)->reason,
                        "I voted for a replica of that primary a short time ago");
    h.now.mono_ms += 2000;
    request.current_epoch = 6;
    assert_true(voted(&h, &request));
    harness_stop(&h);
}

/* There and back by hand, and there again. */
static void a_vote_is_spent_once_its_candidate_has_the_place(void **state)
{
    struct harness h;
    struct cluster_message request;
    start_voter(&h, &request);
    request.mflags = CLUSTER_MSG_FORCEACK;
    assert_true(voted(&h, &request));
    h.now.mono_ms += 100;
    struct cluster_message ping = header(&h, CLUSTER_PING, 'b'); /* d has b's slots, and b is its replica */
    ping.sender = harness_id('d');
    ping.current_epoch = ping.config_epoch = 4;
    harness_receive(&h, IN | 4, &ping);
    assert_int_equal(harness_view(&h, 'd').slot_count, 100);
    ping = header(&h, CLUSTER_PING, 'd');
    ping.sender = harness_id('b');
    ping.replica_of = harness_id('d');
    ping.current_epoch = ping.config_epoch = 4;
    harness_receive(&h, IN | 2, &ping);
    assert_true(harness_view(&h, 'b').flags & CLUSTER_NODE_REPLICA);
    h.now.mono_ms += 100;
    ping = header(&h, CLUSTER_PING, 'b'); /* others have elected b in epoch 5 */
    ping.current_epoch = ping.config_epoch = 5;
    harness_receive(&h, IN | 2, &ping);
    ping = header(&h, CLUSTER_PING, 'd');
    ping.current_epoch = ping.config_epoch = 5;
    harness_receive(&h, IN | 4, &ping);
    assert_int_equal(harness_view(&h, 'b').slot_count, 100);
    request = header(&h, CLUSTER_AUTH_REQUEST, 'd');
    request.mflags = CLUSTER_MSG_FORCEACK;
    request.current_epoch = 6;
    request.config_epoch = 5;
    assert_true(voted(&h, &request));
    harness_stop(&h);
}

static void votes_are_refused_for_a_reason(void **state)
{
    struct harness h;
    struct cluster_message request;
    start_voter(&h, &request);
    request.current_epoch = 2;
    assert_false(voted(&h, &request)); /* old */
    request.current_epoch = 4;
    cluster_bit_set(h.slots, 250); /* c's, of a higher epoch */
    assert_false(voted(&h, &request));
    assert_string_equal(harness_note(&h, CLUSTER_NOTE_VOTE_DENIED)->reason, "it claims slots that have a newer owner");
    harness_stop(&h);

    harness_config(&h);
    harness_start(&h, as_primary);
    harness_tick(&h, 100);
    harness_connect(&h, 'd');
    request = header(&h, CLUSTER_AUTH_REQUEST, 'd');
    request.current_epoch = 4;
    assert_false(voted(&h, &request));
    assert_string_equal(harness_note(&h, CLUSTER_NOTE_VOTE_DENIED)->reason, "its primary is up");
    request.mflags = CLUSTER_MSG_FORCEACK;
    assert_true(voted(&h, &request));
    harness_stop(&h);
}

/* ---- the candidate ---- */

static void run_until_request(struct harness *h)
{
    for (int i = 0; i < 20 && !harness_sent(h, CLUSTER_AUTH_REQUEST); i++) harness_tick(h, 100);
    assert_non_null(harness_sent(h, CLUSTER_AUTH_REQUEST));
}

static void start_candidate(struct harness *h)
{
    harness_config(h);
    harness_start(h, as_replica);
    harness_tick(h, 100);
    harness_connect(h, 'a');
    harness_connect(h, 'c');
    harness_step(h, &(struct cluster_event){
                        .kind = CLUSTER_EV_FACTS,
                        .facts = {.link_up = true, .last_interaction_ms = h->now.mono_ms, .applied_offset = 10}});
    fail_b(h);
}

static void a_replica_with_a_majority_takes_over(void **state)
{
    struct harness h;
    start_candidate(&h);
    int64_t failed_at = h.now.mono_ms;
    run_until_request(&h);
    assert_true(h.now.mono_ms - failed_at >= 500 && h.now.mono_ms - failed_at <= 1300);
    assert_non_null(harness_find(&h, CLUSTER_DO_SEAL));
    assert_true(harness_sent(&h, CLUSTER_AUTH_REQUEST)->after_persist == harness_find(&h, CLUSTER_DO_PERSIST)->seq);
    harness_settle(&h);
    struct cluster_message ack = header(&h, CLUSTER_AUTH_ACK, 'a');
    ack.current_epoch = 3;
    harness_receive(&h, IN | 1, &ack); /* of an earlier epoch */
    ack.current_epoch = 4;
    harness_receive(&h, IN | 1, &ack);
    harness_receive(&h, IN | 1, &ack); /* the same vote again */
    assert_false(cluster_is_primary(h.core));
    ack = header(&h, CLUSTER_AUTH_ACK, 'c');
    ack.current_epoch = 4;
    harness_receive(&h, IN | 3, &ack);
    assert_true(cluster_is_primary(h.core));
    assert_non_null(harness_find(&h, CLUSTER_DO_PROMOTE));
    assert_true(cluster_my_config_epoch(h.core) == 4);
    assert_int_equal(harness_me(&h).slot_count, 100);
    const struct cluster_action *pong = harness_sent(&h, CLUSTER_PONG);
    assert_true(pong && pong->after_persist == harness_find(&h, CLUSTER_DO_PERSIST)->seq);
    assert_true(cluster_id_is_null(&pong->message->replica_of));
    harness_stop(&h);
}

static void old_data_does_not_stand(void **state)
{
    struct harness h;
    start_candidate(&h);
    harness_step(&h,
                 &(struct cluster_event){.kind = CLUSTER_EV_FACTS, .facts = {.link_up = false}}); /* never in sync */
    for (int i = 0; i < 30; i++) {
        harness_tick(&h, 100);
        assert_null(harness_sent(&h, CLUSTER_AUTH_REQUEST));
    }
    harness_stop(&h);
}

static void a_replica_behind_another_waits_longer(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, LINE_A("") LINE_B("") LINE_C("") LINE_D("myself,") "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"
                                                                         " 10.0.0.6:7000@17000 slave " B
                                                                         " 0 1 2 connected\n" VARS);
    harness_tick(&h, 100);
    harness_connect(&h, 'a');
    struct cluster_message m = header(&h, CLUSTER_PING, 'd');
    m.sender = harness_id('e');
    m.offset = 1000;
    harness_receive(&h, IN | 5, &m);
    harness_step(&h, &(struct cluster_event){
                         .kind = CLUSTER_EV_FACTS,
                         .facts = {.link_up = true, .last_interaction_ms = h.now.mono_ms, .applied_offset = 10}});
    fail_b(&h);
    const struct cluster_action *note = harness_note(&h, CLUSTER_NOTE_ELECTION_SCHEDULED);
    assert_non_null(note);
    assert_true(note->epoch >= 1500 && note->epoch < 2000);
    harness_stop(&h);
}

/* ---- claims ---- */

static void a_higher_epoch_takes_slots_and_a_lower_one_is_told(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, as_primary);
    harness_tick(&h, 100);
    harness_connect(&h, 'b');
    struct cluster_message m = header(&h, CLUSTER_PING, 'b');
    cluster_bit_set(h.slots, 250); /* c's, epoch 3, against 2 */
    harness_receive(&h, IN | 2, &m);
    assert_memory_equal(harness_sent(&h, CLUSTER_UPDATE)->message->update.id.c, C, CLUSTER_ID_SIZE);
    assert_int_equal(harness_view(&h, 'c').slot_count, 100);
    m.current_epoch = m.config_epoch = 4;
    h.keys[2] = 5;
    cluster_bit_set(h.slots, 2); /* mine, with keys */
    harness_receive(&h, IN | 2, &m);
    assert_int_equal(harness_view(&h, 'c').slot_count, 99);
    assert_non_null(harness_find(&h, CLUSTER_DO_DELETE_KEYS));
    assert_true(cluster_bit_get(h.out.delete_slots, 2) && cluster_bit_count(h.out.delete_slots) == 1);
    harness_stop(&h);
}

/* The giver of a slot that I import is replaced: its successor is the giver then, whether I hear first that the old one
 * is a replica or that there is a new one. */
static void an_import_goes_on_with_the_givers_successor(void **state)
{
    for (int order = 0; order < 2; order++) {
        struct harness h;
        harness_config(&h);
        harness_start(&h, as_primary);
        struct bytes b = BYTES(B);
        assert_true(cluster_set_slot(h.core, BYTES("150"), BYTES("IMPORTING"), &b, h.now, &h.err, &h.out));
        harness_settle(&h);
        for (int step = 0; step < 2; step++) {
            if ((step == 0) == (order == 0)) {
                struct cluster_message gone = header(&h, CLUSTER_PONG, 'b');
                gone.flags = CLUSTER_NODE_MYSELF | CLUSTER_NODE_REPLICA;
                gone.replica_of = harness_id('d');
                gone.current_epoch = gone.config_epoch = 4;
                harness_receive(&h, IN | 2, &gone);
            } else {
                struct cluster_message m = header(&h, CLUSTER_PONG, 'd');
                m.flags = CLUSTER_NODE_MYSELF | CLUSTER_NODE_PRIMARY;
                m.replica_of = (struct cluster_id){{0}};
                m.current_epoch = m.config_epoch = 4;
                range(h.slots, 100, 199);
                harness_receive(&h, IN | 4, &m);
            }
        }
        assert_int_equal(harness_view(&h, 'd').slot_count, 100);
        struct cluster_id d = harness_id('d');
        assert_ptr_equal(cluster_slot_importing_from(h.core, 150), cluster_node_find(h.core, &d));
        harness_stop(&h);
    }
}

static void losing_the_last_slot_makes_a_replica(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, as_primary);
    struct cluster_message m = header(&h, CLUSTER_PING, 'b');
    m.current_epoch = m.config_epoch = 9;
    range(h.slots, 0, 99);
    harness_receive(&h, IN | 2, &m);
    assert_false(cluster_is_primary(h.core));
    assert_string_equal(harness_find(&h, CLUSTER_DO_REPLICATE)->ip, harness_view(&h, 'b').ip);
    harness_stop(&h);
}

/* Two connections, two orders: news of a promotion, then an older header of the same node. */
static void headers_from_the_past_change_nothing(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, as_primary);
    struct cluster_message old = header(&h, CLUSTER_PONG, 'd'), m = old;
    m.type = CLUSTER_PING;
    m.replica_of = (struct cluster_id){{0}};
    m.current_epoch = m.config_epoch = 4;
    harness_receive(&h, IN | 4, &m);
    assert_int_equal(harness_view(&h, 'd').slot_count, 100);
    harness_receive(&h, IN | 4, &old);
    assert_int_equal(harness_view(&h, 'd').slot_count, 100);
    assert_true(harness_view(&h, 'd').flags & CLUSTER_NODE_PRIMARY);
    harness_stop(&h);
}

static void the_smaller_id_leaves_a_shared_epoch(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, as_primary);
    struct cluster_message m = header(&h, CLUSTER_PING, 'b');
    m.config_epoch = 1;
    harness_receive(&h, IN | 2, &m);
    assert_true(cluster_my_config_epoch(h.core) == 4 && cluster_current_epoch(h.core) == 4);
    harness_stop(&h);

    harness_config(&h);
    harness_start(&h, LINE_A("") LINE_B("") LINE_C("myself,") VARS);
    m = header(&h, CLUSTER_PING, 'a');
    m.config_epoch = 3;
    harness_receive(&h, IN | 1, &m);
    assert_true(cluster_my_config_epoch(h.core) == 3); /* the other one moves */
    harness_stop(&h);
}

/* ---- manual failover ---- */

static void the_primary_tells_its_offset_only_when_it_stands_still(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, LINE_A("") LINE_B("myself,") LINE_D("") VARS);
    struct cluster_message m = header(&h, CLUSTER_MFSTART, 'd');
    harness_receive(&h, IN | 4, &m);
    assert_non_null(harness_find(&h, CLUSTER_DO_PAUSE_WRITES));
    assert_null(harness_sent(&h, CLUSTER_PING));
    harness_step(&h, &(struct cluster_event){.kind = CLUSTER_EV_PAUSED, .facts = {.primary_offset = 777}});
    const struct cluster_action *ping = harness_sent(&h, CLUSTER_PING);
    assert_true(ping && ping->link == (IN | 4) && ping->message->offset == 777);
    assert_true(ping->message->mflags & CLUSTER_MSG_PAUSED);
    for (int i = 0; i < 52; i++) {
        harness_tick(&h, 100);
        if (harness_find(&h, CLUSTER_DO_UNPAUSE)) break;
    }
    assert_non_null(harness_find(&h, CLUSTER_DO_UNPAUSE)); /* nobody took over */
    harness_stop(&h);
}

static void the_replica_waits_for_the_offset(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, as_replica);
    harness_tick(&h, 100);
    harness_connect(&h, 'a');
    harness_connect(&h, 'b');
    assert_true(cluster_failover(h.core, NULL, h.now, &h.err, &h.out));
    assert_non_null(harness_sent(&h, CLUSTER_MFSTART));
    struct cluster_message m = header(&h, CLUSTER_PING, 'b');
    m.mflags = CLUSTER_MSG_PAUSED;
    m.offset = 50;
    harness_receive(&h, IN | 2, &m);
    assert_true(cluster_waits_for_offset(h.core));
    struct cluster_event facts = {.kind = CLUSTER_EV_FACTS, .facts = {.link_up = true, .applied_offset = 49}};
    harness_step(&h, &facts);
    assert_null(harness_sent(&h, CLUSTER_AUTH_REQUEST));
    facts.facts.applied_offset = 50;
    harness_step(&h, &facts);
    const struct cluster_action *request = harness_sent(&h, CLUSTER_AUTH_REQUEST);
    assert_true(request && request->message->mflags & CLUSTER_MSG_FORCEACK);
    harness_stop(&h);
}

static void the_replica_asks_as_soon_as_it_is_connected(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, as_replica);
    harness_tick(&h, 100);
    harness_connect(&h, 'a');
    assert_true(cluster_failover(h.core, NULL, h.now, &h.err, &h.out));
    assert_null(harness_sent(&h, CLUSTER_MFSTART));
    harness_connect(&h, 'c');
    assert_null(harness_sent(&h, CLUSTER_MFSTART));
    uint64_t link = harness_connect(&h, 'b');
    const struct cluster_action *ask = harness_sent(&h, CLUSTER_MFSTART);
    assert_true(ask && ask->link == link);
    harness_step(&h, &(struct cluster_event){.kind = CLUSTER_EV_LINK_DOWN, .link = link});
    harness_tick(&h, 100);
    harness_connect(&h, 'b');
    assert_null(harness_sent(&h, CLUSTER_MFSTART)); /* once */
    harness_stop(&h);
}

static void no_failover_is_asked_for_late(void **state)
{
    struct harness h;
    harness_config(&h);
    harness_start(&h, as_replica);
    harness_tick(&h, 100);
    assert_true(cluster_failover(h.core, NULL, h.now, &h.err, &h.out));
    for (int i = 0; i < 52; i++) harness_tick(&h, 100);
    harness_connect(&h, 'b');
    assert_null(harness_sent(&h, CLUSTER_MFSTART));
    harness_stop(&h);
}

/* ---- restarted behind ---- */

static void start_probation(struct harness *h, const struct cluster_history *mine)
{
    harness_config(h);
    h->core =
        cluster_create(&h->config, bytes_of(LINE_A("") LINE_B("myself,") LINE_C("") LINE_D("") VARS), h->now, &h->err);
    cluster_start(h->core, mine, h->now, &h->out);
    assert_true(cluster_on_probation(h->core));
    struct cluster_message m = header(h, CLUSTER_PING, 'd');
    harness_receive(h, IN | 4, &m);
    harness_tick(h, 100);
    assert_string_equal(harness_find(h, CLUSTER_DO_PROBE)->ip, harness_view(h, 'd').ip);
}

static void probe_answers_synced(struct harness *h, char replid, uint64_t offset, uint64_t epoch)
{
    harness_step(
        h, &(struct cluster_event){.kind = CLUSTER_EV_PROBED,
                                   .ok = true,
                                   .node = harness_id('d'),
                                   .history = {.replid = harness_id(replid), .offset = offset, .synced_epoch = epoch}});
}

static void probe_answers(struct harness *h, char replid, uint64_t offset)
{
    probe_answers_synced(h, replid, offset, 0);
}

/* The primary was elected, began a history, and comes back with a file from before that. */
static void a_replica_that_had_my_stream_in_this_epoch_may_be_ahead(void **state)
{
    struct harness h;
    struct cluster_history mine = {.replid = harness_id('r'), .offset = 100};
    for (int more = 0; more < 2; more++) {
        for (int older = 0; older < 2; older++) {
            start_probation(&h, &mine);
            uint64_t epoch = cluster_my_config_epoch(h.core);
            assert_true(epoch > 1);
            probe_answers_synced(&h, 'q', 100 + (uint64_t)more, epoch - (uint64_t)older);
            assert_int_equal(cluster_on_probation(h.core), more && !older);
            assert_int_equal(harness_find(&h, CLUSTER_DO_YIELD) != NULL, more && !older);
            harness_stop(&h);
        }
    }
}

static void a_primary_yields_to_a_replica_that_is_ahead(void **state)
{
    struct harness h;
    struct cluster_history mine = {.replid = harness_id('r'), .offset = 100}, nothing = {{{0}}};
    start_probation(&h, &mine);
    probe_answers(&h, 'r', 100);
    assert_false(cluster_on_probation(h.core));
    harness_stop(&h);
    start_probation(&h, &mine);
    probe_answers(&h, 'q', 900); /* another history: not comparable */
    assert_false(cluster_on_probation(h.core));
    harness_stop(&h);
    start_probation(&h, &nothing);
    probe_answers(&h, 'q', 900); /* I lost mine */
    assert_non_null(harness_find(&h, CLUSTER_DO_YIELD));
    harness_stop(&h);
    start_probation(&h, &mine);
    probe_answers(&h, 'r', 101);
    assert_non_null(harness_find(&h, CLUSTER_DO_YIELD));
    assert_true(cluster_on_probation(h.core) && !cluster_state_ok(h.core));
    /* It could not be told: silence until it is elected. */
    harness_step(&h, &(struct cluster_event){.kind = CLUSTER_EV_YIELDED, .node = harness_id('d'), .ok = false});
    struct cluster_message m = header(&h, CLUSTER_PING, 'c');
    harness_receive(&h, IN | 3, &m);
    assert_null(harness_find(&h, CLUSTER_DO_SEND));
    m = header(&h, CLUSTER_PING, 'd');
    m.replica_of = (struct cluster_id){{0}};
    m.current_epoch = m.config_epoch = 4;
    harness_receive(&h, IN | 4, &m);
    assert_false(cluster_is_primary(h.core));
    assert_false(cluster_on_probation(h.core));
    harness_stop(&h);
}

static void an_absent_replica_is_waited_for_no_longer_than_the_timeout(void **state)
{
    struct harness h;
    struct cluster_history mine = {.replid = harness_id('r'), .offset = 100};
    start_probation(&h, &mine);
    for (int i = 0; i < 8; i++) harness_tick(&h, 100);
    assert_true(cluster_on_probation(h.core));
    for (int i = 0; i < 2; i++) harness_tick(&h, 100);
    assert_false(cluster_on_probation(h.core));
    harness_stop(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_alone_may_stand_still),
        cmocka_unit_test(a_handshake_ends_with_the_real_name),
        cmocka_unit_test(strangers_are_answered_but_not_believed),
        cmocka_unit_test(epochs_that_would_overflow_are_ignored),
        cmocka_unit_test(another_node_at_the_address_loses_it),
        cmocka_unit_test(hostnames_come_and_go_with_each_heartbeat),
        cmocka_unit_test(a_shard_has_the_name_that_its_primary_tells),
        cmocka_unit_test(who_leaves_a_shard_gets_another),
        cmocka_unit_test(silence_then_a_majority_makes_a_failure),
        cmocka_unit_test(reports_expire_and_are_taken_back),
        cmocka_unit_test(a_failed_primary_with_slots_is_taken_back_late),
        cmocka_unit_test(a_vote_is_given_once_and_only_when_durable),
        cmocka_unit_test(a_vote_is_spent_once_its_candidate_has_the_place),
        cmocka_unit_test(votes_are_refused_for_a_reason),
        cmocka_unit_test(a_replica_with_a_majority_takes_over),
        cmocka_unit_test(old_data_does_not_stand),
        cmocka_unit_test(a_replica_behind_another_waits_longer),
        cmocka_unit_test(a_higher_epoch_takes_slots_and_a_lower_one_is_told),
        cmocka_unit_test(losing_the_last_slot_makes_a_replica),
        cmocka_unit_test(an_import_goes_on_with_the_givers_successor),
        cmocka_unit_test(headers_from_the_past_change_nothing),
        cmocka_unit_test(the_smaller_id_leaves_a_shared_epoch),
        cmocka_unit_test(the_primary_tells_its_offset_only_when_it_stands_still),
        cmocka_unit_test(the_replica_waits_for_the_offset),
        cmocka_unit_test(the_replica_asks_as_soon_as_it_is_connected),
        cmocka_unit_test(no_failover_is_asked_for_late),
        cmocka_unit_test(a_primary_yields_to_a_replica_that_is_ahead),
        cmocka_unit_test(a_replica_that_had_my_stream_in_this_epoch_may_be_ahead),
        cmocka_unit_test(an_absent_replica_is_waited_for_no_longer_than_the_timeout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
