"""Client side caching: who is told of which change, in both protocols, and that no cache is left with an old value."""
import random
import threading
import time

import pytest

import covey
from covey import wait_for
from wire import Push, Wire


@pytest.fixture
def node4(servers):
    return servers.node("covey", **({} if covey.COVEY_IS_REDIS else {"workers": 4}))


def tracker(node, *words):
    wire = Wire(node, 3)
    assert wire("CLIENT", "TRACKING", "ON", *words) == "OK"
    return wire


def invalidated(*keys):
    return [b"invalidate", [key.encode() for key in keys]]


@pytest.mark.sanitizer
def test_readers_are_told_once(node4):
    readers = [tracker(node4) for _ in range(8)]
    with Wire(node4) as c:
        for reader in readers:
            assert reader("GET", "k") is None
        assert node4.stat("tracking_clients", "clients") == 8
        stats = node4.info("stats")
        assert (stats["tracking_total_keys"], stats["tracking_total_items"]) == (1, 8)
        c("SET", "k", 1)
        for reader in readers:
            message = reader.read()
            assert type(message) is Push and message == invalidated("k")
        c("SET", "k", 2)
        assert all(reader.silent(0.05) for reader in readers)
        assert node4.stat("tracking_total_keys", "stats") == 0
        assert readers[0]("MGET", "k", "other") == [b"2", None]
        c("DEL", "k")
        assert readers[0].read() == invalidated("k")
        c("SADD", "other", "x")
        assert readers[0].read() == invalidated("other")
        readers[1]("GET", "w")
        c("PUBLISH", "w", "x")
        c("EXPIRE", "w", 10)
        assert readers[1].silent(0.05)


@pytest.mark.sanitizer
def test_every_kind_of_change(node4):
    reader = tracker(node4)
    with Wire(node4) as c:
        c("SET", "t", "x", "PX", 50)
        assert reader("GET", "t") == b"x"
        assert reader.read() == invalidated("t"), "expiry by time"
        c("SET", "a", 1)
        c("RPUSH", "l", 1)
        for read, *change in ((("GET", "a"), "MULTI", "INCR a", "EXEC"), (("LRANGE", "l", 0, -1), "LPOP l"), (("TTL", "a"), "EXPIRE a 100"),
                              (("EXISTS", "a"), "RENAME a b"), (("TYPE", "b"), "COPY b c"), (("STRLEN", "b"), "GETDEL b")):
            if change[0].startswith("COPY"):
                reader("GET", "c")
            reader(*read)
            for words in change:
                c(*words.split())
            expected = "c" if change[0].startswith("COPY") else read[1]
            assert reader.read() == invalidated(expected), change
        for word in ("FLUSHDB", "FLUSHALL"):
            reader("GET", "z")
            c(word)
            assert reader.read() == [b"invalidate", None]
        c("SET", "z", 1)
        assert reader.silent(0.05), "what was flushed is not told again"


def told(wire, *keys):
    """Reads until all of the keys were told, in one message or several: those of one turn of a worker are told together."""
    seen = []
    while len(seen) < len(keys):
        message = wire.read()
        assert type(message) is Push and message[0] == b"invalidate"
        seen += message[1]
    return sorted(seen) == sorted(key.encode() for key in keys)


def test_own_changes(node4):
    mine, silent = tracker(node4), tracker(node4, "NOLOOP")
    for wire in (mine, silent):
        wire("GET", "k")
        assert wire("SET", "k", 1) == "OK"
        if wire is mine:
            assert mine.read() == invalidated("k")
    for words in (["MULTI"], ["GET", "m"], ["SET", "m", 1], ["SET", "m", 2]):
        mine(*words)
    assert mine("EXEC") == [None, "OK", "OK"]
    assert mine.read() == invalidated("m")
    assert mine("CLIENT", "TRACKING", "OFF") == "OK" and mine("GET", "k") == b"1"
    with Wire(node4) as c:
        c("SET", "k", 3)
    assert silent.silent(0.05) and mine.silent(0.05)
    silent("GET", "k")
    with Wire(node4) as c:
        c("SET", "k", 4)
    assert silent.read() == invalidated("k")


def test_opting_in_and_out(node4):
    optin, optout = tracker(node4, "OPTIN"), tracker(node4, "OPTOUT")
    with Wire(node4) as c:
        optin("GET", "a")
        assert optin("CLIENT", "CACHING", "YES") == "OK"
        optin("GET", "b")
        optin("GET", "c")
        optout("GET", "a")
        assert optout("CLIENT", "CACHING", "NO") == "OK"
        optout("GET", "b")
        optout("GET", "c")
        optin("CLIENT", "CACHING", "YES")
        for words in (["MULTI"], ["GET", "d"], ["GET", "e"], ["EXEC"]):
            optin(*words)
        optin("GET", "f")
        for key in "abcdef":
            c("SET", key, 1)
        c("SET", "end", 1)
    assert optin.many(3) == [invalidated("b"), invalidated("d"), invalidated("e")]
    assert optout.many(2) == [invalidated("a"), invalidated("c")]
    assert optin.silent(0.05) and optout.silent(0.05)


def test_broadcast(node4):
    everything, users, both = tracker(node4, "BCAST"), tracker(node4, "BCAST", "PREFIX", "user:"), tracker(
        node4, "BCAST", "PREFIX", "user:", "PREFIX", "item:", "NOLOOP")
    assert node4.stat("tracking_total_prefixes", "stats") == 3
    with Wire(node4) as c:
        c("MSET", "user:2", 1, "user:1", 1, "else", 1, "item:1", 1)
    assert told(everything, "else", "item:1", "user:1", "user:2")
    assert told(users, "user:1", "user:2")
    assert told(both, "item:1", "user:1", "user:2")
    assert both("SET", "user:9", 1) == "OK"
    assert users.read() == everything.read() == invalidated("user:9")
    assert both.silent(0.05)
    assert users("CLIENT", "TRACKING", "OFF") == "OK"
    with Wire(node4) as c:
        c("SET", "user:3", 1)
        assert everything.read() == both.read() == invalidated("user:3")
        c("FLUSHALL")
        assert everything.read() == both.read() == [b"invalidate", None]
    assert users.silent(0.05)
    for wire in (everything, both):
        wire.close()
    wait_for("no prefix to be left", lambda: node4.stat("tracking_total_prefixes", "stats") == 0)


@pytest.mark.sanitizer
@pytest.mark.parametrize("version", [2, 3])
def test_redirection(node4, version):
    for _ in range(3):  # the two connections on the same worker, and not
        ear, reader = Wire(node4, version), Wire(node4, 2)
        if version == 2:
            ear("SUBSCRIBE", "__redis__:invalidate")
        assert reader("CLIENT", "TRACKING", "ON", "REDIRECT", ear.id) == "OK"
        assert reader("CLIENT", "GETREDIR") == ear.id
        reader("GET", "k")
        with Wire(node4) as c:
            c("SET", "k", 1)
            expected = invalidated("k") if version == 3 else [b"message", b"__redis__:invalidate", [b"k"]]
            assert ear.read() == expected
            c("FLUSHALL")
            assert ear.read() == expected[:-1] + [None]
        assert reader.silent(0.05)
        line = reader("CLIENT", "INFO").decode()
        assert f" redir={ear.id} " in line and " flags=t " in line
        reader("CLIENT", "TRACKING", "OFF")
        ear.close()


def test_broken_redirection(node4):
    ear, reader = Wire(node4, 3), Wire(node4, 3)
    reader("CLIENT", "TRACKING", "ON", "REDIRECT", ear.id)
    gone = ear.id
    reader("GET", "k")
    ear.close()
    wait_for("it to be gone", lambda: all(int(line["id"]) != gone for line in node4.client.client_list()))
    with Wire(node4) as c:
        c("SET", "k", 1)
    message = reader.read()
    assert type(message) is Push and message == [b"tracking-redir-broken", gone]
    assert b"broken_redirect" in reader("CLIENT", "TRACKINGINFO")[b"flags"]
    assert " flags=tR " in reader("CLIENT", "INFO").decode()


def test_the_table_has_a_limit(node4):
    node4.cmd("CONFIG", "SET", "tracking-table-max-keys", 100)
    reader = tracker(node4)
    for n in range(1000):
        reader.send("GET", f"k{n}")
    told = 0
    for _ in range(1000):
        while isinstance(reader.read(), Push):
            told += 1
    wait_for("the table to shrink", lambda: node4.stat("tracking_total_keys", "stats") <= 100)
    while not reader.silent(0.3):
        assert reader.read()[0] == b"invalidate"
        told += 1
    assert told >= 900


def test_replicas_tell_too(servers):
    primary, replica = servers.node("covey"), servers.node("covey")
    replica.cmd("REPLICAOF", primary.host, primary.port)
    primary.cmd("SET", "k", 0)
    covey.wait_in_sync(primary, replica)
    reader = tracker(replica)
    assert reader("GET", "k") == b"0"
    primary.cmd("SET", "k", 1)
    assert reader.read() == invalidated("k")
    assert reader("GET", "k") == b"1"
    primary.cmd("FLUSHALL")
    assert reader.read() == [b"invalidate", None]


class Cache:
    """A client that believes what it has read until it is told otherwise."""

    def __init__(self, node, keys, *words):
        self.wire, self.keys, self.values, self.stop = tracker(node, *words), keys, {}, False
        self.rng = random.Random(self.wire.id)
        self.error = None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def take(self, message):
        if isinstance(message, Push):
            assert message[0] == b"invalidate"
            for key in message[1] if message[1] is not None else list(self.values):
                self.values.pop(key, None)
            return True
        return False

    def run(self):
        try:
            while not self.stop:
                keys = [key for key in self.rng.sample(self.keys, 8) if key not in self.values]
                for key in keys:
                    self.wire.send("GET", key)
                for key in keys:
                    while self.take(message := self.wire.read()):
                        pass
                    self.values[key] = message
                while not self.wire.silent(0.001):
                    self.take(self.wire.read())
        except Exception as error:  # noqa: BLE001 reported by the test
            self.error = error

    def settle(self):
        self.stop = True
        self.thread.join()
        assert self.error is None, self.error
        self.wire.send("PING")
        while self.take(self.wire.read()):
            pass
        while not self.wire.silent(0.3):
            self.take(self.wire.read())


@pytest.mark.sanitizer
@pytest.mark.parametrize("words", [[], ["NOLOOP"], ["BCAST"]])
def test_no_cache_keeps_an_old_value(node4, words):
    """Readers and writers at full speed on several workers; when all is quiet, every cached value is the present one."""
    keys = [b"{t}%d" % n if n % 2 else b"k%d" % n for n in range(40)]
    caches = [Cache(node4, keys, *words) for _ in range(6)]
    stop = threading.Event()

    def write(seed):
        rng = random.Random(seed)
        with Wire(node4) as c:
            while not stop.is_set():
                key = rng.choice(keys)
                for words in rng.choice([[["SET", key, rng.randrange(10**9)]], [["DEL", key]], [["SET", key, "x", "PX", 5]],
                                         [["MULTI"], ["SET", key, rng.randrange(10**9)], ["INCR", key], ["EXEC"]]]):
                    c(*words)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(3)
    stop.set()
    for thread in threads:
        thread.join()
    time.sleep(0.3)  # the last keys run out
    with Wire(node4) as c:
        present = {key: c("GET", key) for key in keys}
    cached = 0
    for cache in caches:
        cache.settle()
        cached += len(cache.values)
        for key, value in cache.values.items():
            assert value == present[key], f"{key!r}: {value!r} is in the cache, {present[key]!r} is true"
    assert cached > 0
