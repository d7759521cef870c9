"""Keyspace notifications where the differential test does not reach: expiry by time, replicas, several workers, cluster mode."""
import threading

import pytest

import covey
from covey import wait_for
from wire import Wire


def ear(node, *patterns, version=2):
    wire = Wire(node, version)
    for pattern in patterns or ("__key*__:*",):
        wire("PSUBSCRIBE", pattern)
    return wire


def events(wire, count):
    return [(m[2].decode(), m[3].decode()) for m in wire.many(count)]


@pytest.fixture
def node4(servers):
    return servers.node("covey", notify_keyspace_events="KEA", **({} if covey.COVEY_IS_REDIS else {"workers": 4}))


@pytest.mark.sanitizer
def test_expiry_by_time(node4):
    wire = ear(node4, "__keyevent@*__:expired")
    with Wire(node4) as c:
        for n in range(50):
            assert c("SET", f"gone:{n}", "x", "PX", 30) == "OK"
    assert sorted(events(wire, 50)) == sorted(("__keyevent@0__:expired", f"gone:{n}") for n in range(50))


def test_options(node4):
    wire = ear(node4)
    with Wire(node4) as c:
        for setting, heard in (("K$", ["__keyspace@0__:k"]), ("E$", ["__keyevent@0__:set"]), ("KEg", []), ("$", []),
                               ("KE$", ["__keyspace@0__:k", "__keyevent@0__:set"]), ("", [])):
            assert c("CONFIG", "SET", "notify-keyspace-events", setting) == "OK"
            c("SET", "k", "v")
            c("PUBLISH", "__key__:", "end")
            assert [channel for channel, _ in events(wire, len(heard) + 1)] == heard + ["__key__:"]
        assert c("CONFIG", "SET", "notify-keyspace-events", "KEA") == "OK"
        for words in (["MULTI"], ["SELECT", 5], ["SET", "a", 1], ["DEL", "a"], ["EXEC"]):
            c(*words)
    assert events(wire, 4) == [("__keyspace@5__:a", "set"), ("__keyevent@5__:set", "a"),
                               ("__keyspace@5__:a", "del"), ("__keyevent@5__:del", "a")]


@pytest.mark.sanitizer
def test_events_of_a_key_are_in_order(node4):
    """Writers on several workers; every listener sees a key's values come in the order in which they were written."""
    wires = [ear(node4, "__keyspace@0__:list", version=2 + n % 2) for n in range(4)]
    rounds = 300

    def write():
        with Wire(node4) as c:
            for _ in range(rounds):
                c.send("RPUSH", "list", "x")
                c.send("DEL", "list")
                c.many(2)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Wire(node4) as c:
        c("RPUSH", "list", "end")
        c("LPOP", "list")
    heard = []
    for wire in wires:
        own = []
        while own[-2:] != ["lpop", "del"]:
            own.append(wire.read()[3].decode())
        heard.append(own)
        # A list is deleted only after something was pushed; two deletions never follow each other.
        assert not any(own[i] == own[i + 1] == "del" for i in range(len(own) - 1))
        assert own.count("rpush") == 4 * rounds + 1
    assert all(h == heard[0] for h in heard[1:])


@pytest.mark.parametrize("kinds", [("covey", "covey"), ("redis", "covey"), ("covey", "redis")])
def test_replicas_tell_what_they_apply(servers, kinds):
    primary, replica = (servers.node(kind, notify_keyspace_events="KEA") for kind in kinds)
    replica.cmd("REPLICAOF", primary.host, primary.port)
    primary.cmd("SET", "first", "x")
    covey.wait_in_sync(primary, replica)
    there = ear(replica, "__keyevent@0__:*")
    with Wire(primary) as c:
        c("SET", "a", 1)
        c("SADD", "s", "m")
        c("SPOP", "s")
        for words in (["MULTI"], ["INCR", "a"], ["DEL", "a"], ["EXEC"]):
            c(*words)
        c("SET", "e", "x", "PX", 30)
    got = events(there, 8)
    assert got == [("__keyevent@0__:" + event, key) for event, key in
                   (("set", "a"), ("sadd", "s"), ("srem", "s"), ("del", "s"), ("incrby", "a"), ("del", "a"), ("set", "e"), ("expire", "e"))]
    wait_for("the expiry to be told", lambda: events(there, 1)[0] in (("__keyevent@0__:del", "e"),))


def test_a_cluster_tells_only_its_own(servers):
    cluster = servers.cluster(["covey", "redis", "covey"], notify_keyspace_events="KEA")
    wires = {node: ear(node) for node in cluster.nodes}
    for node in cluster.nodes:
        key = next(k for k in (f"k{i}" for i in range(10000)) if cluster.owner(covey.key_slot(k)) is node)
        node.cmd("SET", key, "v")
        assert events(wires[node], 2) == [(f"__keyspace@0__:{key}", "set"), ("__keyevent@0__:set", key)]
    assert all(wire.silent(0.1) for wire in wires.values())
