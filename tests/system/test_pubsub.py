"""Publish and subscribe: replies and messages as redis-server gives them, over workers, replicas and the cluster bus."""
import random
import resource
import socket
import threading
import time

import pytest
import redis

import covey
from covey import key_slot, wait_for
from wire import Closed, Error, Push, Wire

NOT_ALLOWED = ("ERR Can't execute '%s': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this "
               "context")


@pytest.fixture
def node4(servers):
    """A server with several workers, so that publishers and listeners are on different ones."""
    return servers.node("covey", **({} if covey.COVEY_IS_REDIS else {"workers": 4}))


def listener(node, *channels, version=2, patterns=(), **options):
    wire = Wire(node, version, **options)
    for word, names in (("SUBSCRIBE", channels), ("PSUBSCRIBE", patterns)):
        if names:
            wire.send(word, *names)
            wire.many(len(names))
    return wire


@pytest.mark.sanitizer
@pytest.mark.parametrize("version", [2, 3])
def test_replies(node4, version):
    kind = Push if version == 3 else list
    with Wire(node4, version) as c:
        c.send("SUBSCRIBE", "a", "b", "a", "")
        replies = c.many(4)
        assert replies == [[b"subscribe", b"a", 1], [b"subscribe", b"b", 2], [b"subscribe", b"a", 2], [b"subscribe", b"", 3]]
        assert all(type(reply) is kind for reply in replies)
        assert c("PSUBSCRIBE", "x*") == [b"psubscribe", b"x*", 4]
        assert c("SSUBSCRIBE", "s") == [b"ssubscribe", b"s", 1]
        assert c("UNSUBSCRIBE", "nobody") == [b"unsubscribe", b"nobody", 4]
        c.send("UNSUBSCRIBE")
        assert sorted(reply[2] for reply in c.many(3)) == [1, 2, 3]
        assert c("PUNSUBSCRIBE") == [b"punsubscribe", b"x*", 0]
        assert c("UNSUBSCRIBE") == [b"unsubscribe", None, 0]
        if version == 2:
            assert c("GET", "x") == NOT_ALLOWED % "get"
            assert c("PING") == [b"pong", b""]
            assert c("PING", "hi") == [b"pong", b"hi"]
            assert c("EXEC") == "EXECABORT Transaction discarded because of: " + (NOT_ALLOWED % "exec")[4:]
        else:
            assert c("GET", "x") is None and c("PING") == "PONG"
        assert c("SUNSUBSCRIBE", "s") == [b"sunsubscribe", b"s", 0]
        assert c("PING") == "PONG"
        c.send("SUBSCRIBE", "again")
        c.read()
        assert c("RESET") == "RESET"
        assert c("PUBSUB", "NUMSUB", "again") == [b"again", 0]


def test_own_messages_come_before_the_reply(node4):
    with Wire(node4, 3) as c:
        c("SUBSCRIBE", "ch")
        c("PSUBSCRIBE", "c*")
        c.send("PUBLISH", "ch", "1")
        assert c.many(3) == [[b"message", b"ch", b"1"], [b"pmessage", b"c*", b"ch", b"1"], 2]
        for words in (["MULTI"], ["PUBLISH", "ch", "2"], ["GET", "none"]):
            c(*words)
        c.send("EXEC")
        assert c.line() == b"*2\r\n"
        assert c.many(4) == [[b"message", b"ch", b"2"], [b"pmessage", b"c*", b"ch", b"2"], 2, None]
        c.send("CLIENT", "REPLY", "OFF")
        c.send("PUBLISH", "ch", "3")
        c.send("CLIENT", "REPLY", "ON")
        assert c.many(3) == [[b"message", b"ch", b"3"], [b"pmessage", b"c*", b"ch", b"3"], "OK"]


def test_subscribe_in_a_transaction(node4):
    with Wire(node4) as c, Wire(node4) as other:
        c("MULTI")
        assert c("SUBSCRIBE", "t") == "QUEUED"
        assert c("PUBLISH", "t", "own") == "QUEUED"
        assert other("PUBLISH", "t", "before") == 0
        assert c("EXEC") == [[b"subscribe", b"t", 1], [b"message", b"t", b"own"]]
        assert c.read() == 1
        assert other("PUBLISH", "t", "after") == 1
        assert c.read() == [b"message", b"t", b"after"]


@pytest.mark.sanitizer
def test_introspection(node4):
    wires = [listener(node4, "news", f"only-{i}", patterns=["n*"] if i % 2 else []) for i in range(8)]
    with Wire(node4) as c:
        assert sorted(c("PUBSUB", "CHANNELS")) == sorted([b"news"] + [b"only-%d" % i for i in range(8)])
        assert sorted(c("PUBSUB", "CHANNELS", "only-[1-3]")) == [b"only-1", b"only-2", b"only-3"]
        assert c("PUBSUB", "NUMSUB", "news", "nobody", "only-5") == [b"news", 8, b"nobody", 0, b"only-5", 1]
        assert c("PUBSUB", "NUMPAT") == 1
        assert c("PUBSUB", "SHARDCHANNELS") == []
        wires[0].send("SSUBSCRIBE", "sh")
        wires[0].read()
        assert c("PUBSUB", "SHARDCHANNELS") == [b"sh"]
        assert c("PUBSUB", "SHARDNUMSUB", "sh", "news") == [b"sh", 1, b"news", 0]
        assert c("PUBLISH", "news", "x") == 8 + 4
        assert c("SPUBLISH", "sh", "y") == 1
        lines = [line for line in c("CLIENT", "LIST", "TYPE", "pubsub").decode().splitlines()]
        assert len(lines) == 8 and all(" flags=P " in line and " sub=2 " in line for line in lines)
        assert sum(" psub=1 " in line for line in lines) == 4 and sum(" ssub=1 " in line for line in lines) == 1
        assert len(c("CLIENT", "LIST", "TYPE", "normal").decode().splitlines()) == 1
        info = node4.info("stats")
        assert (info["pubsub_channels"], info["pubsub_patterns"], info["pubsubshard_channels"]) == (9, 1, 1)
        assert c("CLIENT", "KILL", "TYPE", "pubsub") == 8
        for wire in wires:
            assert wire.closed()
        wait_for("the registry to be empty", lambda: c("PUBSUB", "CHANNELS") == [] and c("PUBSUB", "NUMPAT") == 0)


@pytest.mark.sanitizer
def test_order_and_completeness(node4):
    """Several publishers, several listeners: each hears everything, all in the same order, each publisher's in its own."""
    publishers, messages = 4, 2000
    wires = [listener(node4, "o", version=2 + i % 2) for i in range(6)] + [listener(node4, patterns=["o*"]) for _ in range(2)]

    def publish(number):
        with Wire(node4) as c:
            for start in range(0, messages, 50):
                for n in range(start, start + 50):
                    c.send("PUBLISH", "o", f"{number}:{n}")
                assert c.many(50) == [8] * 50

    threads = [threading.Thread(target=publish, args=(n,)) for n in range(publishers)]
    for thread in threads:
        thread.start()
    heard = [[wire.read()[-1] for _ in range(publishers * messages)] for wire in wires]
    for thread in threads:
        thread.join()
    assert all(h == heard[0] for h in heard[1:6]), "listeners of one channel heard different orders"
    for h in heard:
        for n in range(publishers):
            own = [int(m.split(b":")[1]) for m in h if m.startswith(b"%d:" % n)]
            assert own == list(range(messages))
    assert all(wire.silent(0.05) for wire in wires)


def test_a_subscription_does_not_hear_the_past(node4):
    """Whoever subscribes after a PUBLISH was answered does not get that message, wherever both connections live."""
    keep = [listener(node4, "past") for _ in range(4)]
    with Wire(node4) as c:
        for n in range(300):
            assert c("PUBLISH", "past", n) >= 4
            with listener(node4, "past") as late:
                c("PUBLISH", "past", f"after-{n}")
                assert late.read() == [b"message", b"past", b"after-%d" % n]
    for wire in keep:
        assert [m[2] for m in wire.many(600)][::2] == [b"%d" % n for n in range(300)]


@pytest.mark.sanitizer
def test_many_patterns_and_churn(node4):
    """Subscriptions come and go beside publishers; nothing is left behind."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    stop = threading.Event()
    errors = []

    def churn(number):
        rng = random.Random(seed + number)
        try:
            with Wire(node4, 3) as c:
                while not stop.is_set():
                    word = rng.choice(["SUBSCRIBE", "UNSUBSCRIBE", "PSUBSCRIBE", "PUNSUBSCRIBE", "SSUBSCRIBE", "SUNSUBSCRIBE"])
                    names = [rng.choice("abcdefgh") + rng.choice(["", "*"]) for _ in range(rng.randrange(1, 5))]
                    c.send(word, *names)
                    seen = 0
                    while seen < len(names):
                        seen += c.read()[0] == word.lower().encode()
        except (OSError, ValueError, AssertionError) as error:
            errors.append(repr(error))

    def publish(number):
        rng = random.Random(seed - number)
        with Wire(node4) as c:
            while not stop.is_set():
                c.send(rng.choice(["PUBLISH", "SPUBLISH"]), rng.choice("abcdefgh"), "x" * rng.randrange(2000))
                c.read()

    threads = [threading.Thread(target=churn, args=(n,)) for n in range(6)] + [threading.Thread(target=publish, args=(n,)) for n in range(1, 3)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    with Wire(node4) as c:
        wait_for("the registry to be empty", lambda: c("PUBSUB", "CHANNELS") == [] and c("PUBSUB", "NUMPAT") == 0 and
                 c("PUBSUB", "SHARDCHANNELS") == [])


def test_ten_thousand_listeners(servers):
    """One message to 10,000 connections: all get it, and another client is not held up for long meanwhile."""
    count = 10000 if not covey.SANITIZED else 1000
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < 2 * count + 500 and hard != resource.RLIM_INFINITY:
        count = (hard - 500) // 2
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    node = servers.node("covey", maxclients=count + 100, **({} if covey.COVEY_IS_REDIS else {"workers": 2}))
    socks = []
    for _ in range(count):
        sock = socket.create_connection((node.host, node.port))
        sock.sendall(b"SUBSCRIBE big\r\n")
        socks.append(sock)
    with Wire(node) as c:
        wait_for("all to be subscribed", lambda: c("PUBSUB", "NUMSUB", "big") == [b"big", count], 30)
        expected = b"*3\r\n$9\r\nsubscribe\r\n$3\r\nbig\r\n:1\r\n"
        for sock in socks:
            assert sock.recv(100) == expected
        worst, stop = [0.0], threading.Event()

        def ping():
            with Wire(node) as other:
                while not stop.is_set():
                    start = time.monotonic()
                    other("PING")
                    worst[0] = max(worst[0], time.monotonic() - start)

        thread = threading.Thread(target=ping)
        thread.start()
        for n in range(5):
            assert c("PUBLISH", "big", f"hello-{n}") == count
        expected = b"".join(b"*3\r\n$7\r\nmessage\r\n$3\r\nbig\r\n$7\r\nhello-%d\r\n" % n for n in range(5))
        for sock in socks:
            got = b""
            while len(got) < len(expected):
                got += sock.recv(4096)
            assert got == expected
        stop.set()
        thread.join()
        print("longest PING beside the delivery: %.1f ms" % (worst[0] * 1000))
        assert worst[0] < 2 * covey.PATIENCE
        for sock in socks:
            sock.close()
        wait_for("nobody to be left", lambda: c("PUBSUB", "CHANNELS") == [], 20)


@pytest.mark.parametrize("limit", ["pubsub 1mb 0 0", "pubsub 0 256kb 1"])
def test_a_slow_listener_is_dropped(node4, limit):
    """Above the hard limit at once, above the soft one after its seconds; others go on."""
    node4.cmd("CONFIG", "SET", "client-output-buffer-limit", limit)
    slow = listener(node4, "flood", receive_buffer=4096)
    good = listener(node4, "flood")
    read, stop = [0], threading.Event()

    def drain():
        try:
            while not stop.is_set():
                good.read()
                read[0] += 1
        except (Closed, OSError):
            pass

    thread = threading.Thread(target=drain)
    thread.start()
    with Wire(node4) as c:
        sent, deadline = 0, time.monotonic() + 30
        while time.monotonic() < deadline:
            if c("PUBLISH", "flood", "z" * 65536) == 1:
                break
            sent += 1
            time.sleep(0.002)
            # Never so far ahead of the good listener that it would be taken for a slow one.
            wait_for("the good one", lambda: read[0] >= sent - 4, every=0.001)
        assert c("PUBSUB", "NUMSUB", "flood") == [b"flood", 1], "the slow listener is still there"
        assert slow.closed()
        wait_for("the good one to have everything", lambda: read[0] >= sent + 1)
    stop.set()
    with Wire(node4) as c:
        c("PUBLISH", "flood", "end")
    thread.join()


def test_a_message_above_the_limit(node4):
    """A message larger than the hard limit closes its listeners; its publisher only hears how many there were."""
    node4.cmd("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 0 0")
    wire = listener(node4, "huge")
    with Wire(node4) as c:
        assert c("PUBLISH", "huge", b"z" * (3 << 20)) == 1
        assert wire.closed()
        wait_for("it to be gone", lambda: c("PUBSUB", "NUMSUB", "huge") == [b"huge", 0])


def test_a_large_message(node4):
    payload = random.randbytes(64 << 20)
    node4.cmd("CONFIG", "SET", "client-output-buffer-limit", "pubsub 0 0 0")
    wires = [listener(node4, "large", version=2 + i % 2) for i in range(3)]
    with Wire(node4) as c:
        assert c("PUBLISH", "large", payload) == 3
        for wire in wires:
            assert wire.read() == [b"message", b"large", payload]


def test_redis_py(node4):
    client = redis.Redis(node4.host, node4.port, decode_responses=True)
    sub = client.pubsub()
    got = []
    sub.subscribe("a", **{"b": lambda message: got.append(("b", message["data"]))})
    sub.psubscribe("p.*")
    wait_for("the subscriptions", lambda: client.pubsub_numsub("a", "b") == [("a", 1), ("b", 1)] and client.pubsub_numpat() == 1)
    for channel, data in (("a", "1"), ("b", "2"), ("p.x", "3"), ("a", "4")):
        client.publish(channel, data)
    messages = []
    wait_for("the messages", lambda: messages.append(sub.get_message(timeout=0.2)) or
             [m["data"] for m in messages if m and m["type"] in ("message", "pmessage")] == ["1", "3", "4"])
    assert got == [("b", "2")]
    sub.ping("hello")
    wait_for("the pong", lambda: (sub.get_message(timeout=0.2) or {}).get("data") == "hello")
    sub.close()
    client.close()


def test_idle_listeners_are_kept(node4):
    node4.cmd("CONFIG", "SET", "timeout", 1)
    wire, idle = listener(node4, "i"), Wire(node4)
    assert idle.closed()
    with Wire(node4) as c:
        assert c("PUBLISH", "i", "still here") == 1
    assert wire.read() == [b"message", b"i", b"still here"]


# ---- replicas ----


@pytest.mark.parametrize("kinds", [("covey", "covey"), ("covey", "redis"), ("redis", "covey")])
def test_messages_reach_the_clients_of_replicas(servers, kinds):
    primary, replica = (servers.node(kind) for kind in kinds)
    replica.cmd("REPLICAOF", primary.host, primary.port)
    primary.cmd("SET", "k", "v")
    covey.wait_in_sync(primary, replica)
    there, here = listener(replica, "r", version=3), listener(primary, "r")
    with Wire(primary) as c:
        assert c("PUBLISH", "r", "one") == 1
        c("SELECT", 3)
        c("MULTI")
        c("PUBLISH", "r", "two")
        c("SET", "in", "three")
        c("PUBLISH", "r", "three")
        assert c("EXEC") == [1, "OK", 1]
        c("SPUBLISH", "r", "shard")
    assert [m[2] for m in there.many(3)] == [b"one", b"two", b"three"]
    assert [m[2] for m in here.many(3)] == [b"one", b"two", b"three"]
    with Wire(replica) as c:
        assert c("PUBLISH", "r", "only here") == 1
    assert there.read()[2] == b"only here" and here.silent()
    covey.wait_in_sync(primary, replica)
    covey.assert_same_data(covey.dataset(primary), covey.dataset(replica))


# ---- clusters ----


def slot_tag(cluster, node):
    """A name whose slot this primary serves."""
    return next(name for name in (f"n{i}" for i in range(100000)) if cluster.owner(key_slot(name)) is node)


MIXED = ["covey", "redis", "covey", "covey", "covey", "redis"]


@pytest.fixture(scope="module")
def mixed(module_servers):
    return module_servers.cluster(MIXED, replicas=1)


def test_publish_reaches_all_nodes(mixed):
    wires = [listener(node, "everywhere", patterns=["every*"]) for node in mixed.nodes]
    for n, node in enumerate(mixed.nodes):
        with Wire(node) as c:
            for m in range(20):
                assert c("PUBLISH", "everywhere", f"{n}:{m}") == 2
    expected = sorted(b"%d:%d" % (n, m) for n in range(len(wires)) for m in range(20))
    for wire in wires:
        heard = wire.many(2 * len(expected))
        assert sorted(m[2] for m in heard if m[0] == b"message") == expected
        assert sorted(m[3] for m in heard if m[0] == b"pmessage") == expected
        for n in range(len(wires)):
            own = [m[2] for m in heard if m[0] == b"message" and m[2].startswith(b"%d:" % n)]
            assert own == [b"%d:%d" % (n, m) for m in range(20)]
        assert wire.silent(0.05)


def test_spublish_stays_in_the_shard(mixed):
    for primary, (replica,) in mixed.pairs():
        name = slot_tag(mixed, primary)
        others = [node for node in mixed.nodes if node not in (primary, replica)]
        at_primary, at_replica = Wire(primary), Wire(replica, 3)
        assert at_primary("SSUBSCRIBE", name) == [b"ssubscribe", name.encode(), 1]
        assert at_replica("SSUBSCRIBE", name) == [b"ssubscribe", name.encode(), 1]
        for other in others:
            with Wire(other) as c:
                assert c("SSUBSCRIBE", name) == f"MOVED {key_slot(name)} {primary.host}:{primary.port}"
                assert c("SPUBLISH", name, "x").startswith("MOVED ")
                assert c("SUNSUBSCRIBE", name).startswith("MOVED ")
        with Wire(primary) as c, Wire(replica) as r:
            assert c("SPUBLISH", name, "from primary") == 1
            assert at_primary.read() == at_replica.read() == [b"smessage", name.encode(), b"from primary"]
            assert r("SPUBLISH", name, "from replica") == 1
            assert at_primary.read() == at_replica.read() == [b"smessage", name.encode(), b"from replica"]
            assert c("SSUBSCRIBE", "{a}1", "{b}2") == "CROSSSLOT Keys in request don't hash to the same slot"
        at_primary.close()
        at_replica.close()


@pytest.mark.parametrize("kinds", [["covey", "covey", "covey"], ["covey", "redis", "covey"]])
def test_a_large_message_over_the_bus(servers, kinds):
    """64 MB to all nodes, a small message behind it in order, and nobody is suspected meanwhile."""
    cluster = servers.cluster(kinds, timeout=15000, client_output_buffer_limit="pubsub 0 0 0")
    payload = random.randbytes(64 << 20)
    for source in cluster.nodes[:2]:
        wires = [listener(node, "large", timeout=60) for node in cluster.nodes]
        with Wire(source) as c:
            assert c("PUBLISH", "large", payload) == 1
            assert c("PUBLISH", "large", "behind") == 1
        for wire in wires:
            assert wire.read() == [b"message", b"large", payload]
            assert wire.read() == [b"message", b"large", b"behind"]
            wire.close()
    for node in cluster.nodes:
        assert b"FAIL" not in node.log_text() and b"failing" not in node.log_text()
    cluster.wait_whole()


@pytest.mark.parametrize("kinds", [["covey"] * 3, ["covey", "redis", "covey"], ["redis", "covey", "redis"]])
def test_shard_channels_follow_their_slot(servers, kinds):
    """A slot that moves away ends its shard channels there."""
    cluster = servers.cluster(kinds)
    source, target = cluster.nodes[0], cluster.nodes[1]
    name = slot_tag(cluster, source)
    slot = key_slot(name)
    other = next(n for n in (f"o{i}" for i in range(100000)) if cluster.owner(key_slot(n)) is source and key_slot(n) != slot)
    wire = Wire(source, 3)
    wire("SSUBSCRIBE", name)
    wire("SSUBSCRIBE", other)
    wire("SUBSCRIBE", "plain")
    target.cmd("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
    source.cmd("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
    with Wire(source) as c:
        assert c("SPUBLISH", name, "moving") == 1, "a slot on its way is still served"
    assert wire.read() == [b"smessage", name.encode(), b"moving"]
    target.cmd("CLUSTER", "SETSLOT", slot, "NODE", target.id)
    source.cmd("CLUSTER", "SETSLOT", slot, "NODE", target.id)
    assert wire.read() == [b"sunsubscribe", name.encode(), 1]
    assert wire("SSUBSCRIBE", name).startswith("MOVED ")
    with Wire(source) as c:
        assert c("PUBSUB", "SHARDCHANNELS") == [other.encode()]
    with Wire(target) as c:
        assert c("SSUBSCRIBE", name) == [b"ssubscribe", name.encode(), 1]


def test_failover_in_the_middle(servers):
    """Messages published at a node that stays up reach the listeners of all others that stay up."""
    cluster = servers.cluster(["covey", "covey", "redis", "redis", "covey", "covey"], replicas=1)
    primary, (replica,) = cluster.pairs()[0]
    covey.wait_in_sync(primary, replica)
    alive = [node for node in cluster.nodes if node is not primary]
    wires = {node: listener(node, "f") for node in alive}
    sent, stop = [], threading.Event()

    def publish():
        with Wire(alive[-1]) as c:
            while not stop.is_set():
                assert c("PUBLISH", "f", len(sent)) == 1
                sent.append(len(sent))
                time.sleep(0.002)

    thread = threading.Thread(target=publish)
    thread.start()
    time.sleep(0.3)
    primary.kill()
    cluster.wait_primary(replica)
    time.sleep(0.3)
    stop.set()
    thread.join()
    for node, wire in wires.items():
        assert [int(m[2]) for m in wire.many(len(sent))] == sent, f"{node} missed messages"
    name = next(n for n in (f"n{i}" for i in range(100000)) if cluster.owner(key_slot(n)) is replica)
    with Wire(replica) as c:
        assert c("SSUBSCRIBE", name) == [b"ssubscribe", name.encode(), 1]


def test_a_cluster_that_is_down(servers):
    cluster = servers.cluster(["covey", "covey", "covey"])
    node, gone = cluster.nodes[0], cluster.nodes[1]
    name = slot_tag(cluster, node)
    gone.kill()
    wait_for("the cluster to be down", lambda: covey.cluster_info(node)["cluster_state"] == "fail", 20)
    with Wire(node) as c:
        assert c("SSUBSCRIBE", name) == [b"ssubscribe", name.encode(), 1]
        assert c("SUNSUBSCRIBE", name) == [b"sunsubscribe", name.encode(), 0]
        assert c("CONFIG", "SET", "cluster-allow-pubsubshard-when-down", "no") == "OK"
        assert c("SSUBSCRIBE", name) == "CLUSTERDOWN The cluster is down"
        assert isinstance(c("SPUBLISH", name, "x"), Error)
        assert c("PUBLISH", "any", "x") == 0
