"""covey proxy: reads that replicas answer (replica-reads)."""
import time

import pytest

import covey
from covey import wait_for
from test_proxy import Proxy, primaries
from test_proxy_faults import Actor
from wire import Wire

if covey.COVEY_IS_REDIS:
    pytest.skip("the proxy is Covey's", allow_module_level=True)


@pytest.fixture(scope="module", params=["covey", "redis"])
def cluster(request, module_servers):
    return module_servers.cluster([request.param] * 6, replicas=1, timeout=2000)


def reads(proxy):
    return proxy.stat("replica_reads", "all")


def replicas(cluster):
    return [node for node in cluster.live() if cluster.role(node) == "slave"]


def reads_of(node):
    return node.info("commandstats").get("cmdstat_get", {"calls": 0})["calls"]


@pytest.mark.parametrize("policy", ["never", "prefer", "nearest"])
def test_who_answers(servers, cluster, policy):
    cluster.wait_whole()
    proxy = Proxy(servers, cluster.nodes[:2], replica_reads=policy)
    client = proxy.new_client()
    writer = proxy.new_client()  # who writes reads at the primary for a while
    writer.mset({f"k{n}": n for n in range(200)})
    writer.close()
    for primary, replica in ((p, r) for p in primaries(cluster) for r in replicas(cluster)):
        if replica.info("replication")["master_port"] == primary.port:
            covey.wait_in_sync(primary, replica)
    if policy == "prefer":  # the nearest may well be the primaries here
        def all_by_replicas():
            before = reads(proxy)
            return [client.get(f"k{n}") for n in range(200)] and reads(proxy) - before > 195
        wait_for("all replicas to be known", all_by_replicas)
    for node in cluster.nodes:
        node.cmd("CONFIG", "RESETSTAT")
    for n in range(200):
        assert client.get(f"k{n}") == str(n).encode()
    assert client.mget([f"k{n}" for n in range(200)]) == [str(n).encode() for n in range(200)]
    by_replicas, by_primaries = (sum(map(reads_of, nodes)) for nodes in (replicas(cluster), primaries(cluster)))
    assert by_replicas + by_primaries == 200
    if policy == "prefer":
        assert by_replicas > (50 if covey.SANITIZED else 190)
    if policy == "never":
        assert by_replicas == 0
    # a pipeline reads what it has written, and does not read what it writes later
    with Wire(proxy) as wire:
        pipeline = b""
        for n in range(300):
            key = b"p%d" % (n % 7)
            for words in ((b"SET", key, b"%d" % n), (b"GET", key), (b"INCR", key)):
                pipeline += b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)
        for at in range(0, len(pipeline), 1000):
            wire.sock.sendall(pipeline[at:at + 1000])
        for n in range(300):
            assert wire.many(3) == ["OK", b"%d" % n, n + 1]
        assert wire("MULTI") == "OK" and wire("GET", "k1") == "QUEUED" and wire("EXEC") == [b"1"]
        assert wire("WATCH", "k1") == "OK" and wire("GET", "k1") == b"1" and wire("UNWATCH") == "OK"
    client.close()


def test_replicas_that_go_are_done_without(servers, cluster):
    cluster.wait_whole()
    proxy = Proxy(servers, cluster.nodes[:2], replica_reads="prefer", replica_reads_after_write=100)
    client = proxy.new_client()
    client.mset({f"k{n}": n for n in range(100)})
    time.sleep(0.2)
    wait_for("the replicas to be used", lambda: [client.get(f"k{n}") for n in range(100)] and reads(proxy) > 50)
    gone, stopped = replicas(cluster)[:2]
    gone.kill()
    for n in range(100):
        assert client.get(f"k{n}") == str(n).encode()
    stopped.pause()
    started = time.monotonic()
    for n in range(100):
        assert client.get(f"k{n}") == str(n).encode()
    pause = time.monotonic() - started
    stopped.resume()
    print(f"a stopped replica cost {pause:.1f} s")
    assert pause < 12 * covey.PATIENCE
    gone.start()
    cluster.wait_whole()
    assert proxy.stat("unknown_fate_requests", "all") == 0
    client.close()


def two_actors(servers):
    """A primary and a replica that say which of them answers; the replica never has what was written."""
    primary, replica = Actor(servers), Actor(servers)
    node = b"*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n"
    primary.slots = replica.slots = lambda: b"*1\r\n*4\r\n:0\r\n:16383\r\n" + node % primary.port + node % replica.port

    def play(name, role):
        def answer(words):
            if words[0] == b"INFO":
                return info(role, 10_000_000)
            if words[0] in (b"READONLY", b"MULTI", b"CLIENT"):
                return b"+OK\r\n"
            return b"*1\r\n$1\r\n1\r\n" if words[0] == b"EXEC" else b"$7\r\n" + name + b"\r\n"
        return answer
    primary.play, replica.play = play(b"primary", "master"), play(b"replica", "slave")
    return primary, replica


def test_own_writes_are_read_at_the_primary(servers):
    primary, replica = two_actors(servers)
    proxy = Proxy(servers, [primary.address], workers=1, replica_reads="prefer", replica_reads_after_write=700)
    with Wire(proxy) as wire, Wire(proxy) as other:
        wait_for("both to be asked", lambda: primary.calls(b"INFO") and replica.calls(b"INFO"))
        wait_for("the replica to be read from", lambda: wire("GET", "k") == b"replica")
        for write in (["SET", "k", 1], ["EVAL", "x", 1, "k"], ["BLPOP", "k", 1]):
            wire(*write)
            began = time.monotonic()
            assert [wire("GET", "k") for _ in range(5)] == [b"primary"] * 5
            assert wire("GET", "elsewhere") == other("GET", "k") == b"replica"
            wait_for("the write to be old", lambda: wire("GET", "k") == b"replica")
            assert time.monotonic() - began > 0.6
        assert wire("MULTI") == "OK" and wire("SET", "k", 1) == "QUEUED" and wire("EXEC") == [b"1"]
        assert wire("GET", "k") == b"primary" and wire("GET", "elsewhere") == b"replica"
        # more slots than are kept apart: then all reads
        for n in range(100):
            wire("SET", f"s{n}", 1)
        assert [wire("GET", f"s{n}") for n in range(100)] == [b"primary"] * 100
        wait_for("the writes to be old", lambda: wire("GET", "s99") == b"replica")


def test_own_writes_may_be_read_anywhere(servers):
    primary, replica = two_actors(servers)
    proxy = Proxy(servers, [primary.address], workers=1, replica_reads="prefer", replica_reads_after_write=0)
    with Wire(proxy) as wire:
        wait_for("the replica to be read from", lambda: wire("GET", "k") == b"replica")
        assert wire("SET", "k", 1) == b"primary" and wire("GET", "k") == b"replica"


def info(role, offset, link="up"):
    text = f"# Replication\r\nrole:{role}\r\nmaster_link_status:{link}\r\nslave_repl_offset:{offset}\r\nmaster_repl_offset:{offset}\r\n"
    return b"$%d\r\n%s\r\n" % (len(text), text.encode())


@pytest.mark.parametrize("how", ["good", "behind", "no link", "loading", "moved"])
def test_a_replica_that_cannot_answer(servers, how):
    primary, replica = Actor(servers), Actor(servers)
    node = b"*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n"
    primary.slots = replica.slots = lambda: b"*1\r\n*4\r\n:0\r\n:16383\r\n" + node % primary.port + node % replica.port
    primary.play = lambda words: info("master", 10_000_000) if words[0] == b"INFO" else b"$7\r\nprimary\r\n"

    def play(words):
        if words[0] == b"READONLY":
            return b"+OK\r\n"
        if words[0] == b"INFO":
            return info("slave", 5_000_000 if how == "behind" else 9_999_000, "down" if how == "no link" else "up")
        if how == "loading":
            return b"-LOADING Redis is loading the dataset in memory\r\n"
        return b"-MOVED 1 127.0.0.1:%d\r\n" % primary.port if how == "moved" else b"$7\r\nreplica\r\n"
    replica.play = play
    proxy = Proxy(servers, [primary.address], workers=1, replica_reads="prefer", replica_reads_after_write=0)
    with Wire(proxy) as wire:
        wait_for("both to be asked", lambda: primary.calls(b"INFO") and replica.calls(b"INFO"))
        time.sleep(0.2)
        want = b"replica" if how == "good" else b"primary"
        for _ in range(20):
            assert wire("GET", "k") == want
        assert wire("SET", "k", 1) == b"primary" and wire("EVAL", "x", 1, "k") == b"primary"
        assert wire("EVAL_RO", "x", 1, "k") == want
        assert len(replica.calls(b"GET")) == {"good": 20, "loading": 1, "moved": 1}.get(how, 0)
        if how == "good":
            assert replica.seen.index([b"READONLY"]) < replica.seen.index([b"GET", b"k"])
