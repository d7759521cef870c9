/* Reading CLUSTER SLOTS, and addresses as people write them. */
#include "base/mem.h"
#include "proxy/cluster/topology.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct topology_map *read_text(const char *text)
{
    struct resp_reply_parser p = {0};
    struct resp_value *v = NULL;
    assert_int_equal(resp_parse_reply(&p, bytes_of(text), &v), OK);
    struct topology_map *m = topology_map_read(v, "10.0.0.9");
    resp_value_free(v);
    return m;
}

#define NODE(host, port) "*4\r\n$" host "\r\n:" port "\r\n$2\r\nid\r\n*0\r\n"

static void ranges(void **state)
{
    (void)state;
    struct topology_map *m =
        read_text("*3\r\n"
                  "*4\r\n:0\r\n:99\r\n" NODE("8\r\n10.0.0.1", "7000")
                      NODE("8\r\n10.0.0.2", "7001") "*3\r\n:200\r\n:16383\r\n" NODE(
                          "8\r\n10.0.0.3", "7000") "*3\r\n:100\r\n:100\r\n" NODE("8\r\n10.0.0.1", "7000"));
    assert_non_null(m);
    assert_int_equal(m->count, 2); /* the replica is none of them */
    assert_int_equal(m->covered, 100 + 16184 + 1);
    assert_int_equal(m->slot[0], 0);
    assert_int_equal(m->slot[100], 0);
    assert_int_equal(m->slot[101], NO_NODE);
    assert_int_equal(m->slot[16383], 1);
    assert_int_equal(m->nodes[0].slots, 101);
    assert_string_equal(m->nodes[1].name, "10.0.0.3");
    assert_int_equal(m->nodes[1].port, 7000);
    topology_map_release(topology_map_hold(m));
    topology_map_release(m);
}

static void nodes_without_an_address(void **state)
{
    (void)state;
    struct topology_map *m =
        read_text("*2\r\n*3\r\n:0\r\n:1\r\n" NODE("0\r\n", "7000") "*3\r\n:2\r\n:2\r\n" NODE("1\r\n?", "7001"));
    assert_non_null(m);
    assert_string_equal(m->nodes[0].name, "10.0.0.9"); /* the one that was asked */
    assert_int_equal(m->slot[2], NO_NODE);
    topology_map_release(m);
    m = read_text("*1\r\n*3\r\n:5\r\n:5\r\n*2\r\n$-1\r\n:7000\r\n");
    assert_non_null(m);
    assert_string_equal(m->nodes[0].name, "10.0.0.9");
    topology_map_release(m);
}

#define NAMED(host, port, address) "*4\r\n$" host "\r\n:" port "\r\n$2\r\nid\r\n*2\r\n$2\r\nip\r\n$" address "\r\n"

static void names_and_replicas(void **state)
{
    (void)state;
    struct topology_map *m = read_text(
        "*2\r\n*5\r\n:0\r\n:9\r\n" NAMED("4\r\nhost", "7000", "8\r\n10.0.0.1") NAMED("1\r\n?", "7001", "8\r\n10.0.0.2")
            NAMED("1\r\n?", "7002", "1\r\n?") "*3\r\n:10\r\n:10\r\n" NAMED("1\r\n?", "7003", "7\r\nfe80::1"));
    assert_non_null(m);
    assert_int_equal(m->count, 2);
    assert_string_equal(m->nodes[0].name, "host");
    assert_string_equal(m->nodes[0].spoken, "10.0.0.1");
    assert_string_equal(m->nodes[1].name, "fe80::1"); /* it has no name: its address */
    assert_int_equal(m->replica_count, 1);            /* the other has neither */
    assert_string_equal(m->replicas[0].name, "10.0.0.2");
    assert_int_equal(m->replicas[0].primary, 0);
    topology_map_read_nodes(m,
                            BYTES("a 10.0.0.1:7000@17000,host myself,master - 0 0 1 connected 0-9\n"
                                  "b 10.0.0.9:7009@17009,other,shard-id=x master - 0 0 1 connected\n"
                                  "c 10.0.0.8:7008@17008,replica slave a 0 0 1 connected\n"
                                  "d 10.0.0.7:7007@17007 master - 0 0 1 connected\n"
                                  "e :0@0,gone noaddr,master - 0 0 1 disconnected\n"
                                  "nonsense\n\n f g,h,i master"),
                            "");
    assert_int_equal(m->count, 3);
    assert_string_equal(m->nodes[2].name, "other");
    assert_string_equal(m->nodes[2].spoken, "10.0.0.9");
    assert_int_equal(m->nodes[2].port, 7009);
    assert_int_equal(m->nodes[2].slots, 0);
    topology_map_release(m);
}

#define ID "0123456789012345678901234567890123456789"
#define WITH_ID(host, port, id) "*4\r\n$" host "\r\n:" port "\r\n$40\r\n" id "\r\n*0\r\n"

/* By its id, whatever it is called, and whether it serves something or not. */
static void the_own_node(void **state)
{
    (void)state;
    static const char other[] = "9876543210987654321098765432109876543210";
    struct topology_map *m = read_text("*1\r\n*4\r\n:0\r\n:9\r\n" WITH_ID("8\r\n10.0.0.1", "7000", ID) WITH_ID(
        "8\r\n10.0.0.2", "7000", "9876543210987654321098765432109876543210"));
    assert_non_null(m);
    topology_map_mark_own(m, "");
    assert_false(m->nodes[0].is_own || m->replicas[0].is_own);
    topology_map_mark_own(m, ID);
    assert_true(m->nodes[0].is_own);
    assert_false(m->replicas[0].is_own);
    topology_map_mark_own(m, other);
    assert_true(m->replicas[0].is_own);
    assert_false(m->nodes[0].is_own);
    static const char mine[] = "aaaaaaaaaabbbbbbbbbbaaaaaaaaaabbbbbbbbbb";
    topology_map_read_nodes(m,
                            BYTES("aaaaaaaaaabbbbbbbbbbaaaaaaaaaabbbbbbbbbb 10.0.0.3:7000@17000 myself,master - 0 0 1 "
                                  "connected\n" ID " 10.0.0.1:7000@17000 master - 0 0 1 connected 0-9\n"),
                            mine);
    assert_int_equal(m->count, 2);
    assert_string_equal(m->nodes[1].name, "10.0.0.3");
    topology_map_mark_own(m, mine);
    assert_true(m->nodes[1].is_own);
    assert_false(m->nodes[0].is_own || m->replicas[0].is_own);
    /* one that does not know its own address, and is in the map already */
    topology_map_read_nodes(m, BYTES(ID " :7000@17000 myself,master - 0 0 1 connected 0-9\n"), ID);
    assert_int_equal(m->count, 2);
    topology_map_release(m);
}

/* Names and replicas may be other ones; owners not. */
static void agreement(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "*1\r\n*4\r\n:0\r\n:9\r\n" WITH_ID("8\r\n10.0.0.1", "7000", ID) NODE("8\r\n10.0.0.2", "7000"),
        "*1\r\n*3\r\n:0\r\n:9\r\n" WITH_ID("9\r\n127.0.0.1", "7000", ID),
        "*2\r\n*3\r\n:0\r\n:8\r\n" WITH_ID("8\r\n10.0.0.1", "7000", ID) "*3\r\n:9\r\n:9\r\n" NODE("8\r\n10.0.0.1",
                                                                                                  "7000"),
        "*1\r\n*3\r\n:0\r\n:9\r\n" WITH_ID("8\r\n10.0.0.1", "7000", "9876543210987654321098765432109876543210"),
        "*1\r\n*3\r\n:0\r\n:8\r\n" WITH_ID("8\r\n10.0.0.1", "7000", ID),
        "*1\r\n*3\r\n:0\r\n:9\r\n" NODE("8\r\n10.0.0.1", "7001"),
    };
    struct topology_map *first = read_text(texts[0]);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct topology_map *m = read_text(texts[i]);
        assert_int_equal(topology_maps_agree(first, m), i < 3);
        assert_int_equal(topology_maps_agree(m, first), i < 3);
        topology_map_release(m);
    }
    topology_map_release(first);
}

static void nonsense(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "+OK\r\n",
        "-ERR x\r\n",
        "*1\r\n:1\r\n",
        "*1\r\n*2\r\n:0\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:16384\r\n" NODE("1\r\na", "1"),
        "*1\r\n*3\r\n:5\r\n:4\r\n" NODE("1\r\na", "1"),
        "*1\r\n*3\r\n:-1\r\n:4\r\n" NODE("1\r\na", "1"),
        "*1\r\n*3\r\n:0\r\n:4\r\n" NODE("1\r\na", "0"),
        "*1\r\n*3\r\n:0\r\n:4\r\n" NODE("1\r\na", "65536"),
        "*1\r\n*3\r\n:0\r\n:4\r\n*1\r\n$1\r\na\r\n",
        "*1\r\n*3\r\n:0\r\n$1\r\n4\r\n" NODE("1\r\na", "1"),
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_null(read_text(bad[i]));
    assert_null(topology_map_read(NULL, "a"));
    struct topology_map *none = read_text("*0\r\n");
    assert_non_null(none);
    assert_int_equal(none->covered, 0);
    topology_map_release(none);
}

static void addresses(void **state)
{
    (void)state;
    struct address a;
    assert_true(address_parse(BYTES("10.0.0.1:7000"), &a));
    assert_string_equal(a.host, "10.0.0.1");
    assert_int_equal(a.port, 7000);
    mem_free(a.host);
    assert_true(address_parse(BYTES("[::1]:7000"), &a));
    assert_string_equal(a.host, "::1");
    mem_free(a.host);
    assert_true(address_parse(BYTES("::1:7000"), &a)); /* as MOVED writes it */
    assert_string_equal(a.host, "::1");
    mem_free(a.host);
    assert_true(address_parse(BYTES(":7000"), &a));
    assert_string_equal(a.host, "");
    mem_free(a.host);
    assert_true(address_parse(BYTES("7000"), &a));
    mem_free(a.host);
    static const char *const bad[] = {"", ":", "a:", "a:x", "a:0", "a:65536", "a:-1", "host"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(address_parse(bytes_of(bad[i]), &a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges),
        cmocka_unit_test(nodes_without_an_address),
        cmocka_unit_test(names_and_replicas),
        cmocka_unit_test(the_own_node),
        cmocka_unit_test(agreement),
        cmocka_unit_test(nonsense),
        cmocka_unit_test(addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
