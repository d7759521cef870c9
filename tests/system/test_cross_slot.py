"""CLIENT CROSSSLOT: keys of several slots in one command, at a cluster's node that serves them all; and the proxy, which
uses it in front of a cluster of one shard, so that nothing is refused there."""
import threading
import time

import pytest
import redis

import covey
from covey import assert_same_data, dataset, key_slot, wait_for, wait_in_sync
from proxying import Proxy
from wire import Error, Wire

if covey.COVEY_IS_REDIS:
    pytest.skip("the subcommand is Covey's", allow_module_level=True)

CROSSSLOT = "CROSSSLOT Keys in request don't hash to the same slot"
# Keys of different slots.
A, B, C, D = "a", "b", "c", "d"
assert len({key_slot(k) for k in (A, B, C, D)}) == 4


@pytest.fixture(scope="module", params=["covey", "redis"])
def shard(request, module_servers):
    """A primary that has all slots, and a replica of each kind behind it: commands over slots have to reach it."""
    cluster = module_servers.cluster(["covey", request.param], form=False, timeout=2000)
    primary, replica = cluster.nodes
    primary.cmd("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    primary.cmd("CLUSTER", "MEET", "127.0.0.1", replica.port)
    wait_for("the nodes to know each other", lambda: len(replica.cmd("CLUSTER", "NODES")) > 1)
    wait_for("the replica to follow", lambda: try_replicate(replica, primary))
    wait_for("the cluster to be ok", lambda: covey.cluster_info(primary)["cluster_state"] == "ok")
    wait_in_sync(primary, replica)
    return primary, replica


def try_replicate(replica, primary):
    try:
        return replica.cmd("CLUSTER", "REPLICATE", primary.id)
    except redis.ResponseError:
        return False


@pytest.fixture
def wire(shard):
    with Wire(shard[0]) as wire:
        wire("FLUSHALL")
        yield wire


def test_only_who_asks_for_it_may(shard, wire):
    for words in (["MSET", A, 1, B, 2], ["RENAME", A, B], ["EVAL", "return 1", 2, A, B], ["BLPOP", A, B, 1],
                  ["SORT", A, "STORE", B]):
        assert wire(*words) == CROSSSLOT
    assert wire("SORT", A, "BY", "w*").startswith("ERR BY option of SORT denied in Cluster mode")
    assert wire("CLIENT", "CROSSSLOT", "perhaps") == "ERR syntax error"
    assert wire("CLIENT", "CROSSSLOT", "on") == "OK" and wire("MSET", A, 1, B, 2) == "OK"
    assert wire("CLIENT", "CROSSSLOT", "off") == "OK" and wire("MSET", A, 1, B, 2) == CROSSSLOT
    assert wire("CLIENT", "CROSSSLOT", "on") == "OK" and wire("RESET") == "RESET"
    assert wire("MSET", A, 1, B, 2) == CROSSSLOT


def try_all(wire):
    """Commands over several slots; what they answer is what one server answers."""
    assert wire("MSET", A, 1, B, 2, C, 3) == "OK" and wire("MGET", C, A, B) == [b"3", b"1", b"2"]
    assert wire("MSETNX", A, 1, D, 2) == 0 and wire("RENAME", A, D) == "OK" and wire("RENAMENX", B, C) == 0
    assert wire("COPY", D, A) == 1 and wire("GET", A) == b"1" and wire("DEL", A, B, C, D) == 4
    assert wire("SADD", A, 1, 2) == 2 and wire("SADD", B, 2, 3) == 2 and wire("SMOVE", A, B, 1) == 1
    assert wire("SINTERSTORE", C, A, B) == 1 and wire("SUNION", A, B) == [b"1", b"2", b"3"]
    assert wire("EVAL", "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('SMEMBERS', KEYS[2])", 2, D, C, 7) == [b"2"]
    assert wire("EVAL", "#!lua\nreturn redis.call('GET', KEYS[2]) .. redis.call('SCARD', KEYS[1])", 2, B, D) == b"73"
    assert wire("DEL", A, B, C) == 3
    for words, reply in ((["MULTI"], "OK"), (["SET", A, 1], "QUEUED"), (["RPUSH", B, 3, 1, 2], "QUEUED"), (["DEL", C], "QUEUED")):
        assert wire(*words) == reply
    assert wire("EXEC") == ["OK", 3, 0]
    assert wire("SORT", B, "STORE", C) == 3 and wire("LRANGE", C, 0, -1) == [b"1", b"2", b"3"]
    assert wire("MSET", "w1", 30, "w2", 20, "w3", 10) == "OK"
    assert wire("SORT", B, "BY", "w*", "GET", "#", "GET", "w*") == [b"3", b"10", b"2", b"20", b"1", b"30"]
    assert wire("SORT", B, "BY", "w*", "GET", "w*", "GET", "none*", "STORE", D) == 6
    assert wire("LRANGE", D, 0, -1) == [b"10", b"", b"20", b"", b"30", b""]
    assert wire("SORT", "nothing", "BY", "w*", "STORE", "w3") == 0 and wire("EXISTS", "w3") == 0
    assert wire("RPUSH", "long", *range(1300)) == 1300
    assert wire("SORT", "long", "BY", "nothing*", "GET", "#", "STORE", "long2") == 1300
    assert wire("BLPOP", "x", B, "y", 1) == [b"b", b"3"] and wire("BLMOVE", B, "z", "LEFT", "RIGHT", 1) == b"1"
    assert wire("BLMPOP", 1, 2, "x", B, "LEFT") == [b"b", [b"2"]]
    assert wire("XADD", "s1", "1-1", "f", "v") == b"1-1" and wire("XADD", "s2", "2-1", "f", "v") == b"2-1"
    assert wire("XREAD", "STREAMS", "s1", "s2", 0, 0) == [[b"s1", [[b"1-1", [b"f", b"v"]]]], [b"s2", [[b"2-1", [b"f", b"v"]]]]]
    assert wire("PFADD", "h1", 1) == 1 and wire("PFADD", "h2", 2) == 1 and wire("PFCOUNT", "h1", "h2") == 2
    assert wire("ZADD", "z1", 1, "m") == 1 and wire("ZADD", "z2", 2, "m") == 1
    assert wire("ZUNIONSTORE", "z3", 2, "z1", "z2") == 1 and wire("ZSCORE", "z3", "m") == b"3"
    assert wire("GEOADD", "g1", 13, 38, "p") == 1 and wire("GEOSEARCHSTORE", "g2", "g1", "FROMMEMBER", "p", "BYRADIUS", 1, "km") == 1


def wait_at(node, count=1):
    wait_for("somebody to wait", lambda: node.stat("blocked_clients") == count)


def try_waiting(node, connect):
    """Those who sleep at keys of several slots are woken by whichever comes."""
    with connect() as sleeper, connect() as other:
        sleeper.send("BLPOP", "q1", "q2", "q3", 0)
        wait_at(node)
        assert other("RPUSH", "q3", "v") == 1 and sleeper.read() == [b"q3", b"v"]
        sleeper.send("BLMOVE", "q1", "q2", "LEFT", "LEFT", 0)
        wait_at(node)
        assert other("RPUSH", "q1", "w") == 1 and sleeper.read() == b"w" and other("LRANGE", "q2", 0, -1) == [b"w"]
        sleeper.send("BZPOPMIN", "zz1", "zz2", 0)
        wait_at(node)
        assert other("MULTI") == "OK" and other("ZADD", "zz2", 1, "m") == "QUEUED" and other("SET", "q1", "no list") == "QUEUED"
        assert other("EXEC") == [1, "OK"] and sleeper.read() == [b"zz2", b"m", b"1"]
        assert other("DEL", "q1") == 1


def try_watching(connect):
    with connect() as watcher, connect() as other:
        assert watcher("MSET", A, 1, B, 1) == "OK"
        for changed in (A, B, None):
            assert watcher("WATCH", A, B) == "OK" and watcher("WATCH", C) == "OK"
            if changed:
                assert other("SET", changed, 2) == "OK"
            assert watcher("MULTI") == "OK" and watcher("SET", A, 5) == "QUEUED" and watcher("SET", D, 5) == "QUEUED"
            assert watcher("EXEC") == (None if changed else ["OK", "OK"])
        assert watcher("MGET", A, B, D) == [b"5", b"2", b"5"]


def test_what_one_server_does(shard, wire):
    primary, replica = shard

    def connect():
        wire = Wire(primary)
        assert wire("CLIENT", "CROSSSLOT", "ON") == "OK"
        return wire

    with connect() as asks:
        try_all(asks)
    try_waiting(primary, connect)
    try_watching(connect)
    wait_in_sync(primary, replica)
    assert_same_data(dataset(primary), dataset(replica, readonly=True))


def test_a_log_with_such_commands_is_loaded(servers):
    node = servers.cluster(["covey"], form=False, appendonly="yes").nodes[0]
    node.cmd("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    wait_for("the cluster to be ok", lambda: covey.cluster_info(node)["cluster_state"] == "ok")
    with Wire(node) as wire:
        assert wire("CLIENT", "CROSSSLOT", "ON") == "OK"
        try_all(wire)
    before = dataset(node)
    node.shutdown()
    node.start()
    wait_for("the cluster to be ok", lambda: covey.cluster_info(node)["cluster_state"] == "ok")
    assert dataset(node) == before


def test_a_slot_on_its_way_and_one_that_has_gone(servers):
    one, two = servers.cluster(["covey", "covey"], form=False, timeout=2000).nodes
    one.cmd("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    one.cmd("CLUSTER", "MEET", "127.0.0.1", two.port)
    wait_for("the cluster to be ok", lambda: all(covey.cluster_info(n)["cluster_state"] == "ok" for n in (one, two)))
    slot = key_slot(B)
    with Wire(one) as wire, Wire(one) as sleeper, Wire(one) as mover:
        for each in (wire, sleeper, mover):
            assert each("CLIENT", "CROSSSLOT", "ON") == "OK"
        assert wire("MSET", A, 1, C, 3) == "OK"
        sleeper.send("BLPOP", "q", B, 0)
        mover.send("BLMOVE", "q2", B, "LEFT", "LEFT", 0)
        wait_at(one, 2)
        two.cmd("CLUSTER", "SETSLOT", slot, "IMPORTING", one.id)
        one.cmd("CLUSTER", "SETSLOT", slot, "MIGRATING", two.id)
        assert wire("MSET", A, 1, B, 2) == "TRYAGAIN Multiple keys request during rehashing of slot"
        assert wire("EVAL", "return 1", 2, A, B) == "TRYAGAIN Multiple keys request during rehashing of slot"
        assert wire("MSET", A, 1, C, 3) == "OK"
        assert wire("SORT", A, "BY", "w*").startswith("ERR BY option of SORT denied in Cluster mode")
        # nothing is put into a slot that is on its way by who waits elsewhere
        assert wire("RPUSH", "q2", "v") == 1
        assert sleeper.read() == mover.read() == "TRYAGAIN Multiple keys request during rehashing of slot"
        assert wire("LRANGE", "q2", 0, -1) == [b"v"]
        two.cmd("CLUSTER", "SETSLOT", slot, "NODE", two.id)
        one.cmd("CLUSTER", "SETSLOT", slot, "NODE", two.id)
        assert wire("MSET", A, 1, B, 2) == CROSSSLOT
        assert wire("MSET", B, 2, A, 1) == f"MOVED {slot} 127.0.0.1:{two.port}"
        assert wire("MSET", A, 1, C, 3) == "OK"
        with Wire(two) as other:
            assert other("CLIENT", "CROSSSLOT", "ON") == "OK" and other("MSET", B, 2, A, 1) == CROSSSLOT


# ---------------------------------------------------------------------------------------------------- the proxy

@pytest.fixture(scope="module")
def proxy(shard, module_servers):
    proxy = Proxy(module_servers, [shard[0]])
    with Wire(proxy) as wire:  # until the node has said that it can
        wait_for("the proxy to know its node", lambda: wire("RENAME", "no", "such") == "ERR no such key")
    return proxy


@pytest.mark.parametrize("version", [2, 3])
def test_nothing_is_refused_over_one_shard(shard, proxy, version):
    primary, replica = shard
    with Wire(proxy) as wire:
        wire("FLUSHALL")
        try_all(wire)
    try_waiting(primary, lambda: Wire(proxy, version) if version == 2 else Wire(proxy))
    try_watching(lambda: Wire(proxy))
    with Wire(proxy, version) as wire:
        for words, reply in ((["MULTI"], "OK"), (["DBSIZE"], "QUEUED"), (["FLUSHALL"], "QUEUED"), (["KEYS", "*"], "QUEUED"),
                             (["MSET", A, 1, B, 2], "QUEUED"), (["SCRIPT", "EXISTS", "00"], "QUEUED"), (["RANDOMKEY"], "QUEUED")):
            assert wire(*words) == reply, words
        got = wire("EXEC")
        assert got[1:5] == ["OK", [], "OK", [0]] and got[5] in (b"a", b"b")
        wire.send("SSUBSCRIBE", A, B, C)
        assert [list(wire.read()) for _ in range(3)] == [[b"ssubscribe", name.encode(), n] for n, name in enumerate((A, B, C), 1)]
        with Wire(proxy) as other:
            assert other("SPUBLISH", B, "hello") == 1
        assert list(wire.read()) == [b"smessage", b"b", b"hello"]
        wire.send("SUNSUBSCRIBE", C, A)
        assert [list(wire.read()) for _ in range(2)] == [[b"sunsubscribe", b"c", 2], [b"sunsubscribe", b"a", 1]]
    wait_in_sync(primary, replica)
    assert_same_data(dataset(primary), dataset(replica, readonly=True))


def test_a_split_command_is_one_step_over_one_shard(proxy):
    """Readers of two keys that are written together never see one without the other."""
    over, odd = threading.Event(), []

    def read():
        with Wire(proxy) as wire:
            while not over.is_set():
                one, two = wire("MGET", A, B)
                if one != two:
                    odd.append((one, two))

    with Wire(proxy) as wire:
        wire("MSET", A, 0, B, 0)
        thread = threading.Thread(target=read)
        thread.start()
        for n in range(3000):
            wire("MSET", A, n, B, n)
        over.set()
        thread.join()
    assert not odd


def test_one_shard_of_redis_server_refuses_by_itself(servers):
    node = servers.cluster(["redis"], form=False).nodes[0]
    node.cmd("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    wait_for("the cluster to be ok", lambda: covey.cluster_info(node)["cluster_state"] == "ok")
    proxy = Proxy(servers, [node], workers=1)
    with Wire(proxy) as wire:
        for _ in range(2):
            assert wire("MSET", A, 1, B, 2) == "OK" and wire("MGET", B, A) == [b"2", b"1"] and wire("RENAME", A, B) == CROSSSLOT
        assert wire("MULTI") == "OK" and wire("SET", A, 1) == "QUEUED" and wire("SET", B, 1) == CROSSSLOT
        assert wire("EXEC").startswith("EXECABORT")
        wire.send("SSUBSCRIBE", A, B)
        assert [wire.read()[1:] for _ in range(2)] == [[b"a", 1], [b"b", 2]]
    # the node was asked once, not with every command
    assert node.stat("errorstat_ERR", "errorstats") == "count=1"


def test_a_second_shard_comes_while_clients_work(servers):
    """What could be done becomes a refusal, splitting goes on, and nothing is lost or hangs."""
    cluster = servers.cluster(["covey", "covey"], form=False, timeout=2000)
    one, two = cluster.nodes
    one.cmd("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    one.cmd("CLUSTER", "MEET", "127.0.0.1", two.port)
    wait_for("the cluster to be ok", lambda: all(covey.cluster_info(n)["cluster_state"] == "ok" for n in (one, two)))
    proxy = Proxy(servers, [one], refresh_period=60000)
    over, problems, refused, split = threading.Event(), [], threading.Event(), [0]

    def work(n):
        with Wire(proxy) as wire:
            while not over.is_set():
                got = [wire("MSET", f"{A}{n}", 1, f"{B}{n}", 2), wire("RENAME", f"{A}{n}", f"{C}{n}"), wire("MULTI"),
                       wire("SET", f"{A}{n}", 1), wire("GET", f"{B}{n}"), wire("EXEC"), wire("MGET", f"{A}{n}", f"{B}{n}")]
                if got[1] == CROSSSLOT or isinstance(got[5], Error):
                    refused.set()
                moved_away = got[1] == "OK" and isinstance(got[5], Error)
                if got[0] != "OK" or got[1] not in ("OK", CROSSSLOT) or got[6] != [None if moved_away else b"1", b"2"]:
                    problems.append(got)
                if isinstance(got[5], Error) and not got[5].startswith("EXECABORT"):
                    problems.append(got)
                split[0] += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    assert not refused.is_set()
    cluster.cli("reshard", "--cluster-from", one.id, "--cluster-to", two.id, "--cluster-slots", "8000", "--cluster-yes",
                timeout=120)
    wait_for("a refusal", refused.is_set)
    before = split[0]
    wait_for("work to go on", lambda: split[0] > before + 20)
    over.set()
    for thread in threads:
        thread.join()
    assert not problems, problems[:3]
    with Wire(proxy) as wire:
        wait_for("the proxy to refuse", lambda: wire("RENAME", "a0", "b0") == CROSSSLOT or wire("RENAME", "a0", "d0") == CROSSSLOT)
