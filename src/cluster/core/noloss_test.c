/* Members: who may stand, whose acknowledgement a write needs, and how one is given up. */
#include "cluster/core/harness.h"

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define C "cccccccccccccccccccccccccccccccccccccccc"
#define D "dddddddddddddddddddddddddddddddddddddddd"
#define E "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"
#define IN CLUSTER_LINK_INBOUND

enum { GRANT = 1, CONFIRM, EXCLUDE, EXCLUDED };

/* a, b and c are primaries; d and e are replicas of b.  The node timeout is 1000 ms. */
#define TABLE(b, d, c)                                                                                                 \
    A " 10.0.0.2:7000@17000 master - 0 1 1 connected 0-99\n" B " 10.0.0.3:7000@17000 " b                               \
      "master - 0 1 2 connected 100-199\n" C " 10.0.0.4:7000@17000 " c "master - 0 1 3 connected 200-299\n" D          \
      " 10.0.0.5:7000@17000 " d "slave " B " 0 1 2 connected\n" E " 10.0.0.6:7000@17000 slave " B " 0 1 2 connected\n" \
      "vars currentEpoch 3 lastVoteEpoch 0\n"
static const char as_primary[] = TABLE("myself,", "", ""), as_replica[] = TABLE("", "myself,", ""),
                  as_voter[] = TABLE("", "", "myself,");

struct said { /* one of the messages above */
    uint8_t type;
    uint64_t a, b, c;
    size_t ids;
};

static uint64_t number(const char *p)
{
    uint64_t v = 0;
    for (int i = 0; i < 8; i++) v = v << 8 | (uint8_t)p[i];
    return v;
}

/* The first message of that type among what the last step sends to `to` (0: to anybody). */
static bool said(const struct harness *h, uint8_t type, char to, struct said *out)
{
    for (size_t i = 0; i < h->out.count; i++) {
        const struct cluster_action *x = &h->out.actions[i];
        if (x->kind != CLUSTER_DO_SEND || x->message->type != CLUSTER_MODULE || x->message->module.type != type)
            continue;
        if (to && x->node.c[0] != to) continue;
        const char *p = x->message->module.payload.p;
        *out = (struct said){type, number(p), number(p + 8), number(p + 16),
                             (x->message->module.payload.n - 24) / CLUSTER_ID_SIZE};
        return true;
    }
    return false;
}

static bool said_anything(const struct harness *h)
{
    for (size_t i = 0; i < h->out.count; i++)
        if (h->out.actions[i].kind == CLUSTER_DO_SEND && h->out.actions[i].message->type == CLUSTER_MODULE) return true;
    return false;
}

static uint8_t b_is; /* more of b's flags */

static struct cluster_message header(struct harness *h, unsigned type, char who)
{
    struct cluster_message m = harness_message(h, type, who);
    m.current_epoch = 3;
    m.covey = CLUSTER_COVEY | (who == 'b' ? b_is : 0);
    m.config_epoch = who == 'a' ? 1 : who == 'c' ? 3 : 2;
    unsigned first = who == 'a' ? 0 : who == 'c' ? 200 : 100;
    for (unsigned s = first; s < first + 100; s++) cluster_bit_set(h->slots, s);
    if (who == 'd' || who == 'e') {
        m.flags = CLUSTER_NODE_MYSELF | CLUSTER_NODE_REPLICA;
        m.replica_of = harness_id('b');
    }
    return m;
}

static void say(struct harness *h, char who, uint8_t type, uint64_t a, uint64_t b, uint64_t c, const char *id)
{
    char payload[24 + CLUSTER_ID_SIZE];
    uint64_t numbers[] = {a, b, c};
    for (int n = 0; n < 3; n++)
        for (int i = 0; i < 8; i++) payload[n * 8 + i] = (char)(numbers[n] >> (56 - 8 * i));
    if (id) memcpy(payload + 24, id, CLUSTER_ID_SIZE);
    struct cluster_message m = header(h, CLUSTER_MODULE, who);
    memcpy(&m.module.module_id, "Covey\0nl", 8);
    m.module.type = type;
    m.module.payload = bytes_make(payload, id ? sizeof payload : 24);
    harness_receive(h, IN | (uint64_t)(unsigned char)who, &m);
}

static void hear(struct harness *h, const char *who)
{
    for (; *who; who++) {
        struct cluster_message m = header(h, CLUSTER_PING, *who);
        harness_receive(h, IN | (uint64_t)(unsigned char)*who, &m);
    }
}

/* Facts of a primary whose log ends at `end`, and a tick; acks of d and e, 0: none. */
static void tick(struct harness *h, uint64_t end, uint64_t d, uint64_t e)
{
    struct cluster_event ev = {.kind = CLUSTER_EV_FACTS, .facts = {.primary_offset = end, .applied_offset = end}};
    const struct {
        char who;
        uint64_t offset;
    } acks[] = {{'d', d}, {'e', e}};
    for (size_t i = 0; i < 2; i++) {
        if (!acks[i].offset) continue;
        ev.facts.acks[ev.facts.ack_count].node = harness_id(acks[i].who);
        ev.facts.acks[ev.facts.ack_count++].offset = acks[i].offset;
    }
    hear(h, "acde"); /* or their links would be given up */
    harness_step(h, &ev);
    if (said_anything(h)) /* at once, while too few are ready: for the test to look at */
        h->now.mono_ms += 100;
    else
        harness_tick(h, 100);
}

static void start(struct harness *h, const char *text, const char *peers)
{
    harness_config(h);
    h->config.min_replicas_to_ack = 1;
    h->config.ack_patience_ms = 1000;
    h->config.probation = false;
    harness_start(h, text);
    harness_tick(h, 100);
    hear(h, peers);
    for (; *peers; peers++) harness_connect(h, *peers);
}

static void a_primary_needs_all_it_knows_until_they_are_told(void **state)
{
    struct harness h;
    struct said g;
    (void)state;
    start(&h, as_primary, "acde");
    assert_true(h.out.required.on);
    assert_int_equal(h.out.required.count, 2); /* who knows whom it granted before */
    assert_int_equal(h.out.required.ready, 0);
    tick(&h, 1000, 900, 1000);
    assert_true(said(&h, GRANT, 'd', &g));
    assert_int_equal(g.a, 2); /* my config epoch */
    assert_int_equal(g.c, 1000);
    say(&h, 'd', CONFIRM, 2, g.b + 1, 0, NULL); /* of another incarnation */
    assert_int_equal(h.out.required.ready, 0);
    say(&h, 'd', CONFIRM, 2, g.b, 0, NULL);
    assert_int_equal(h.out.required.ready, 1);
    assert_int_equal(h.out.required.count, 2);
    /* A replica that goes elsewhere is needed no more. */
    struct cluster_message m = header(&h, CLUSTER_PING, 'e');
    m.replica_of = harness_id('c');
    harness_receive(&h, IN | 'e', &m);
    harness_tick(&h, 100);
    assert_int_equal(h.out.required.count, 1);
    assert_true(cluster_id_eq(&h.out.required.nodes[0], &(struct cluster_id){D}));
    harness_stop(&h);
}

static void a_silent_member_is_given_up_by_a_majority(void **state)
{
    struct harness h;
    struct said g, x;
    (void)state;
    start(&h, as_primary, "acde");
    tick(&h, 1000, 1000, 1000);
    assert_true(said(&h, GRANT, 'd', &g));
    say(&h, 'd', CONFIRM, 2, g.b, 0, NULL);
    for (uint64_t end = 1100; end < 2000; end += 100) {
        tick(&h, end, end, 1000); /* e acknowledges no more */
        assert_false(said(&h, EXCLUDE, 0, &x));
    }
    for (int i = 0; i < 4 && !said(&h, EXCLUDE, 'c', &x); i++) tick(&h, 2000 + (uint64_t)i, 2000, 1000);
    assert_true(said(&h, EXCLUDE, 'c', &x));
    assert_int_equal(x.ids, 1);
    assert_int_equal(h.out.required.count, 2); /* not before the others have said so */
    say(&h, 'c', EXCLUDED, 2, g.b, x.c - 1, NULL);
    tick(&h, 2100, 2100, 1000);
    assert_int_equal(h.out.required.count, 2);
    say(&h, 'c', EXCLUDED, 2, g.b, x.c, NULL); /* b and c of three */
    tick(&h, 2100, 2100, 1000);
    assert_int_equal(h.out.required.count, 1);
    /* It is needed again before it is told that it may stand. */
    tick(&h, 2200, 2200, 2200);
    assert_int_equal(h.out.required.count, 2);
    assert_false(said(&h, GRANT, 'e', &g));
    tick(&h, 2300, 2300, 2300);
    assert_true(said(&h, GRANT, 'e', &g) && g.c == 2300);
    harness_stop(&h);
}

static void the_last_member_is_not_given_up(void **state)
{
    struct harness h;
    struct said g, x;
    (void)state;
    start(&h, as_primary, "acde");
    tick(&h, 1000, 1000, 0);
    assert_true(said(&h, GRANT, 'd', &g));
    for (int i = 0; i < 30; i++) {
        tick(&h, 1000 + (uint64_t)i, 1000, 0); /* d has not confirmed, e is not there */
        assert_false(said(&h, EXCLUDE, 0, &x));
    }
    assert_int_equal(h.out.required.count, 2);
    harness_stop(&h);
}

static void applied(struct harness *h, uint64_t offset, bool up)
{
    harness_step(h, &(struct cluster_event){.kind = CLUSTER_EV_FACTS,
                                            .facts = {.applied_offset = offset,
                                                      .link_up = up,
                                                      .last_interaction_ms = h->now.mono_ms,
                                                      .link_down_since_ms = up ? 0 : h->now.mono_ms}});
}

/* Why it does not stand once b has failed; NULL: it stands. */
static const char *objection(struct harness *h)
{
    struct cluster_message fail = header(h, CLUSTER_FAIL, 'c');
    fail.fail = harness_id('b');
    harness_receive(h, IN | 'c', &fail);
    const struct cluster_action *n = harness_note(h, CLUSTER_NOTE_ELECTION_BLOCKED);
    if (!n) assert_non_null(harness_note(h, CLUSTER_NOTE_ELECTION_SCHEDULED));
    return n ? n->reason : NULL;
}

static void replica(struct harness *h, bool primary_waits)
{
    b_is = primary_waits ? CLUSTER_COVEY_NO_LOSS : 0;
    start(h, as_replica, "abc");
    applied(h, 500, true);
}

static void a_replica_stands_only_as_a_member(void **state)
{
    struct harness h;
    struct said c;
    (void)state;
    replica(&h, true);
    assert_string_equal(objection(&h), "it may lack acknowledged writes");
    harness_stop(&h);
    replica(&h, true);
    say(&h, 'b', GRANT, 2, 77, 600, NULL);
    assert_false(said(&h, CONFIRM, 'b', &c)); /* it has 500 */
    applied(&h, 599, true);
    assert_string_equal(objection(&h), "it may lack acknowledged writes");
    harness_stop(&h);
    replica(&h, true);
    say(&h, 'b', GRANT, 2, 77, 600, NULL);
    applied(&h, 600, true);
    say(&h, 'b', GRANT, 2, 77, 900, NULL); /* repeated: what it was told first holds */
    assert_true(said(&h, CONFIRM, 'b', &c) && c.a == 2 && c.b == 77);
    applied(&h, 600, false);
    assert_null(objection(&h));
    harness_stop(&h);
    replica(&h, true);
    say(&h, 'b', GRANT, 2, 77, 400, NULL);
    cluster_membership_over(h.core); /* the dataset is being replaced */
    assert_string_equal(objection(&h), "it may lack acknowledged writes");
    harness_stop(&h);
    replica(&h, true);
    say(&h, 'b', GRANT, 1, 77, 400, NULL); /* of an older config epoch */
    say(&h, 'c', GRANT, 3, 77, 400, NULL); /* not its primary */
    assert_string_equal(objection(&h), "it may lack acknowledged writes");
    harness_stop(&h);
}

static void a_voter_does_not_vote_for_the_excluded(void **state)
{
    struct harness h;
    struct said x;
    (void)state;
    start(&h, as_voter, "abd");
    say(&h, 'b', EXCLUDE, 2, 77, 5, D);
    assert_false(said(&h, EXCLUDED, 'b', &x)); /* it has just started, and may have voted before */
    h.now.mono_ms += 2000;
    say(&h, 'b', EXCLUDE, 2, 77, 5, D);
    assert_true(said(&h, EXCLUDED, 'b', &x) && x.c == 5);
    say(&h, 'b', EXCLUDE, 2, 77, 4, NULL); /* late: does not count */
    assert_false(said(&h, EXCLUDED, 'b', &x));
    struct cluster_message request = header(&h, CLUSTER_AUTH_REQUEST, 'd');
    request.current_epoch = 4;
    request.mflags = CLUSTER_MSG_FORCEACK;
    harness_receive(&h, IN | 'd', &request);
    assert_string_equal(harness_note(&h, CLUSTER_NOTE_VOTE_DENIED)->reason, "its primary has excluded it");
    say(&h, 'b', EXCLUDE, 2, 77, 6, NULL);
    assert_true(said(&h, EXCLUDED, 'b', &x) && x.c == 6);
    request = header(&h, CLUSTER_AUTH_REQUEST, 'd');
    request.current_epoch = 5;
    request.mflags = CLUSTER_MSG_FORCEACK;
    harness_receive(&h, IN | 'd', &request);
    assert_non_null(harness_sent(&h, CLUSTER_AUTH_ACK));
    harness_stop(&h);
}

static void who_has_voted_does_not_exclude(void **state)
{
    struct harness h;
    struct said x;
    (void)state;
    start(&h, as_voter, "abd");
    h.now.mono_ms += 3000;
    struct cluster_message fail = header(&h, CLUSTER_FAIL, 'a');
    fail.fail = harness_id('b');
    harness_receive(&h, IN | 'a', &fail);
    struct cluster_message request = header(&h, CLUSTER_AUTH_REQUEST, 'd');
    request.current_epoch = 4;
    harness_receive(&h, IN | 'd', &request);
    assert_non_null(harness_sent(&h, CLUSTER_AUTH_ACK));
    harness_settle(&h);
    say(&h, 'b', EXCLUDE, 2, 77, 5, D);
    assert_false(said(&h, EXCLUDED, 'b', &x));
    h.now.mono_ms += 2000;
    say(&h, 'b', EXCLUDE, 2, 77, 5, D);
    assert_true(said(&h, EXCLUDED, 'b', &x));
    harness_stop(&h);
}

static void damaged_messages_are_ignored(void **state)
{
    struct harness h;
    struct said x;
    (void)state;
    start(&h, as_voter, "abd");
    h.now.mono_ms += 3000;
    struct cluster_message m = header(&h, CLUSTER_MODULE, 'b');
    memcpy(&m.module.module_id, "Covey\0nl", 8);
    for (unsigned type = 0; type < 256; type++) {
        m.module.type = (uint8_t)type;
        for (size_t n = 0; n < 24; n++) {
            m.module.payload = bytes_make("................................", n);
            harness_receive(&h, IN | 'b', &m);
        }
    }
    char many[24 + (CLUSTER_MEMBERS_MAX + 1) * CLUSTER_ID_SIZE] = {0};
    many[7] = 2;
    m.module.type = EXCLUDE;
    m.module.payload = bytes_make(many, sizeof many);
    harness_receive(&h, IN | 'b', &m);
    assert_false(said(&h, EXCLUDED, 'b', &x));
    cluster_check(h.core);
    harness_stop(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_primary_needs_all_it_knows_until_they_are_told),
        cmocka_unit_test(a_silent_member_is_given_up_by_a_majority),
        cmocka_unit_test(the_last_member_is_not_given_up),
        cmocka_unit_test(a_replica_stands_only_as_a_member),
        cmocka_unit_test(a_voter_does_not_vote_for_the_excluded),
        cmocka_unit_test(who_has_voted_does_not_exclude),
        cmocka_unit_test(damaged_messages_are_ignored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
