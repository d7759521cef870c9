"""covey proxy in front of one server without cluster mode, and of clusters that announce themselves by name."""
import os
import random
import time

import pytest
import redis

import covey
from covey import key_slot, tag_of_slot, wait_for
from test_proxy import Proxy, comparable, other_slot_key, random_request
from wire import Error, Wire

if covey.COVEY_IS_REDIS:
    pytest.skip("the proxy is Covey's", allow_module_level=True)


# ---------------------------------------------------------------------------------------------------- one server

@pytest.fixture(scope="module", params=["covey", "redis"])
def one(request, module_servers):
    node = module_servers.node(request.param)
    return node, Proxy(module_servers, [node])


@pytest.fixture
def client(one):
    client = one[1].new_client()
    client.flushall()
    yield client
    client.close()


def test_nothing_is_bound_to_one_slot(client):
    a, b = "a", other_slot_key("a")
    client.mset({a: 1, b: 2})
    assert client.rename(a, b) and client.get(b) == b"1"
    assert client.msetnx({"x": 1, "y": 2}) and client.copy("x", "z")
    assert client.eval("redis.call('SET', KEYS[1], 5) return redis.call('GET', KEYS[2])", 2, a, b) == b"1"
    client.sadd("s1", 1, 2)
    client.sadd("s2", 2, 3)
    assert client.smove("s1", "s2", "1") and client.sunionstore("s3", "s1", "s2") == 3
    assert client.pipeline().set("m1", 1).set("m2", 2).mget("m1", "m2").dbsize().keys("m?").execute()[2] == [b"1", b"2"]
    client.rpush("l2", "v")
    assert client.blpop(["l1", "l2"], timeout=1) == (b"l2", b"v")
    with client.pipeline() as pipe:
        pipe.watch(a, b)
        client.set(b, "changed")
        pipe.multi()
        pipe.set(a, 1).set("elsewhere", 1)
        with pytest.raises(redis.WatchError):
            pipe.execute()
    assert set(client.scan_iter()) == set(client.keys())
    client.flushall()
    names = {f"k{n}".encode() for n in range(2000)}
    client.mset({name: 1 for name in names})
    assert set(client.scan_iter(count=50)) == names


def test_databases(one):
    with Wire(one[1]) as wire, Wire(one[1], 3) as other:
        assert wire("SELECT", 1) == "OK" and wire("SELECT", 0) == "OK"
        assert wire("FLUSHALL") == "OK" and wire("CONFIG", "GET", "databases") == [b"databases", b"16"]
        for db in range(16):
            assert wire("SELECT", db) == "OK" and wire("SET", "k", db) == "OK"
        for number in (16, -1, 99999999999):
            assert wire("SELECT", number) == "ERR DB index is out of range"
        assert wire("SELECT", "x") == "ERR value is not an integer or out of range"
        assert wire("GET", "k") == b"15" and other("GET", "k") == b"0"
        assert b"db=15" in wire("CLIENT", "INFO")
        # a pipeline: what comes behind a SELECT does not overtake what is before it
        for n in range(300):
            wire.send("SELECT", n % 3)
            wire.send("SET", "order", n)
            wire.send("MOVE", "order", (n + 1) % 3)
            wire.send("SELECT", (n + 1) % 3)
            wire.send("GET", "order")
            wire.send("DEL", "order")
        for n in range(300):
            assert wire.many(6) == ["OK", "OK", 1, "OK", b"%d" % n, 1]
        assert wire("SELECT", 2) == "OK"
        for words in (["MULTI"], ["SET", "in", "two"], ["SELECT", "3"], ["SET", "in", "three"]):
            assert wire(*words) in ("OK", "QUEUED")
        assert wire("EXEC") == ["OK", "OK", "OK"]
        assert wire("GET", "in") == b"three" and wire("SELECT", 2) == "OK" and wire("GET", "in") == b"two"
        assert wire("MULTI") == "OK" and wire("SELECT", "9") == "QUEUED" and wire("DISCARD") == "OK"
        assert wire("GET", "in") == b"two"
        assert wire("WATCH", "in") == "OK" and wire("SELECT", 3) == "OK" and wire("GET", "in") == b"three"
        other("SELECT", 2), other("SET", "in", "changed"), other("SELECT", 0)
        assert wire("MULTI") == "OK" and wire("GET", "in") == "QUEUED" and wire("EXEC") is None
        assert wire("RPUSH", "q", "3") == 1 and wire("BLPOP", "q", 1) == [b"q", b"3"]
        assert wire("SWAPDB", 2, 3) == "OK" and wire("GET", "in") == b"changed"
        assert wire("RESET") == "RESET" and wire("GET", "k") == b"0"
        assert other("GET", "k") == b"0" and other("DBSIZE") == 1
        assert wire("FLUSHALL") == "OK" and other("DBSIZE") == 0


def test_administration_of_one_server(one, client):
    assert client.debug_object("x") if client.set("x", 1) else False
    assert client.lastsave()
    for words, text in ((["CLUSTER", "INFO"], "cluster support disabled"), (["SHUTDOWN"], "this is a proxy"),
                        (["REPLICAOF", "NO", "ONE"], "this is a proxy"), (["SYNC"], "this is a proxy"),
                        (["CLIENT", "TRACKING", "ON"], "this is a proxy"), (["MODULE", "LOAD", "/x"], "this is a proxy")):
        with pytest.raises(redis.ResponseError, match=text):
            client.execute_command(*words)
    assert one[0].alive()


@pytest.mark.parametrize("version", [2, 3])
def test_answers_like_the_server_itself(one, client, module_servers, version):
    seed = int(os.environ.get("COVEY_TEST_SEED", random.randrange(10 ** 6)))
    print(f"seed {seed}")
    rng = random.Random(seed)
    oracle = module_servers.node("redis")
    with Wire(one[1], version) as proxy, Wire(oracle, version) as single:
        for _ in range(100):
            requests = []
            for _ in range(40):
                chance = rng.random()
                if chance < 0.1:
                    requests += [["MULTI"], random_request(rng), random_request(rng), [rng.choice(["EXEC", "DISCARD"])]]
                else:
                    requests.append(random_request(rng) if chance < 0.97 else ["SELECT", str(rng.randrange(3))])
            requests = [words for words in requests if words[0] != "EVAL" or words[2] != "0"]
            for wire in (proxy, single):
                for words in requests:
                    wire.send(*words)
            for words, mine, its in zip(requests, proxy.many(len(requests)), single.many(len(requests))):
                if words[0] == "EXEC" and isinstance(its, list):
                    assert len(mine) == len(its), f"seed {seed}: {words}"
                elif words[0] != "OBJECT":
                    assert comparable(words, mine) == comparable(words, its), f"seed {seed}: {words}"
    oracle.terminate()


def test_a_server_and_its_replica(servers):
    """Both are seeds: the primary is used, and the replica once it is promoted."""
    primary = servers.node("redis")
    replica = servers.node("redis", replicaof=["127.0.0.1", primary.port])
    covey.wait_in_sync(primary, replica)
    proxy = Proxy(servers, [replica, primary], refresh_period=200)
    client = proxy.new_client(socket_timeout=20)
    for n in range(20):
        assert client.set(f"k{n}", n)
    covey.wait_in_sync(primary, replica)
    primary.kill()
    time.sleep(0.3)
    replica.cmd("REPLICAOF", "NO", "ONE")
    assert client.set("after", 1) and client.get("k7") == b"7"
    client.close()


# ---------------------------------------------------------------------------------------------------- names

def announced(servers, kind, **settings):
    cluster = servers.cluster([kind] * 4, form=False, **settings)
    cluster.nodes, spare = cluster.nodes[:3], cluster.nodes[3]
    cluster.form(0)
    spare.cmd("CLUSTER", "MEET", "127.0.0.1", cluster.nodes[0].port)
    wait_for("everybody to know the fourth", lambda: all(
        len([line for line in covey.cluster_nodes(n).values() if not line.is_bad]) == 4 for n in cluster.nodes + [spare]), 20)
    return cluster, spare


@pytest.mark.parametrize("kind", ["covey", "redis"])
@pytest.mark.parametrize("how", ["hostname", "unknown-endpoint", "no hostname"])
def test_clusters_that_announce_names(servers, kind, how):
    settings = {"cluster_preferred_endpoint_type": "unknown-endpoint" if how == "unknown-endpoint" else "hostname"}
    if how == "hostname":
        settings["cluster_announce_hostname"] = "localhost"
    cluster, spare = announced(servers, kind, **settings)
    nodes = cluster.nodes
    proxy = Proxy(servers, nodes[:1], refresh_period=60000, failover_hold_timeout=5000)
    client = proxy.new_client()
    for slot in range(0, 16384, 701):
        assert client.set(f"{{{tag_of_slot(slot)}}}n", slot)
    assert client.dbsize() == len(range(0, 16384, 701))
    if how == "hostname":
        assert client.info("all")["node0"]["name"] == "localhost"
    # a slot that moves to a node that had none: ASK, then MOVED
    key = next(k for k in map(str, range(1000)) if key_slot(k) in range(100, 5000))
    source = next(n for n in nodes if key_slot(key) in covey.cluster_nodes(n)[n.id].slots)
    spare.cmd("CLUSTER", "SETSLOT", key_slot(key), "IMPORTING", source.id)
    source.cmd("CLUSTER", "SETSLOT", key_slot(key), "MIGRATING", spare.id)
    started = time.monotonic()
    if how != "no hostname":  # "ASK n ?:port" names nobody
        assert client.set(key, "asked")
        assert spare.cmd("CLUSTER", "COUNTKEYSINSLOT", key_slot(key)) == 1
        assert time.monotonic() - started < 4
    for node in (spare, source, *nodes):
        node.cmd("CLUSTER", "SETSLOT", key_slot(key), "NODE", spare.id)
    assert client.set(key, "moved") and client.get(key) == b"moved"
    assert spare.cmd("CLUSTER", "COUNTKEYSINSLOT", key_slot(key)) == 1
    client.close()


def test_databases_of_a_cluster(servers):
    cluster = servers.cluster(["covey"] * 3, cluster_databases=4)
    proxy = Proxy(servers, cluster.nodes[:1])
    with Wire(proxy) as wire, Wire(proxy, 3) as other:
        assert wire("SELECT", 3) == "OK" and wire("CONFIG", "GET", "databases") == [b"databases", b"4"]
        for db in range(4):
            assert wire("SELECT", db) == "OK"
            for n in range(50):
                wire.send("SET", f"k{n}", db)
            assert wire.many(50) == ["OK"] * 50
            assert wire("DBSIZE") == 50 and wire("MGET", *[f"k{n}" for n in range(50)]) == [b"%d" % db] * 50
        assert wire("SELECT", 4) == "ERR DB index is out of range"
        assert wire("SWAPDB", 0, 1).startswith("ERR SWAPDB is not allowed in cluster mode")
        assert other("GET", "k7") == b"0" and wire("FLUSHDB") == "OK" and wire("DBSIZE") == 0 and other("DBSIZE") == 50
        assert isinstance(wire("RENAME", "a", other_slot_key("a")), Error)
