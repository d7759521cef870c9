"""Streams between servers and clients: replication in both directions, consumers that wait, what survives a restart."""
import random
import threading
import time

import pytest
import redis

from covey import wait_for, wait_in_sync

PAIRS = [("covey", "redis"), ("redis", "covey"), ("covey", "covey")]
both_ways = pytest.mark.parametrize("primary_kind,replica_kind", PAIRS)
KEYS, GROUPS, CONSUMERS = ["s:1", "s:2", "s:3"], ["g", "h"], ["ann", "bob", "cyd"]


def flat(reply):
    """A flat list of names and values as a dictionary."""
    return dict(zip(reply[::2], reply[1::2])) if isinstance(reply, list) else reply


def picture(client):
    """What replicas have to agree on. redis-server tells its replicas neither what a group has counted nor of consumers that
    hold nothing, nor of when each was seen."""
    out = {}
    for key in sorted(client.keys("s:*")):
        info = flat(client.execute_command("XINFO", "STREAM", key, "FULL", "COUNT", 0))
        groups = []
        for group in map(flat, info.pop(b"groups")):
            held = {flat(c)[b"name"]: flat(c)[b"pending"] for c in group[b"consumers"] if flat(c)[b"pel-count"]}
            groups.append((group[b"name"], group[b"last-delivered-id"], group[b"pending"], held))
        out[key] = (info, groups, client.execute_command("XINFO", "STREAM", key)[-1])
    return out


def writes(client, seed, count):
    rng = random.Random(seed)
    key, group, consumer = (lambda names=names: rng.choice(names) for names in (KEYS, GROUPS, CONSUMERS))

    def some_ids(k):
        return [entry[0] for entry in client.xrange(k, count=200) if rng.random() < 0.1][:6] or ["1-1"]

    def claim(k):
        return client.xclaim(k, group(), consumer(), 0, some_ids(k), force=rng.random() < 0.3, justid=rng.random() < 0.5)

    steps = [
        lambda: client.xadd(key(), {"n": rng.randrange(1000), "text": "x" * rng.randrange(80)}),
        lambda: client.xadd(key(), {"n": rng.randrange(1000)}),
        lambda: client.xadd(key(), {"n": 1}, maxlen=rng.randrange(1, 300), approximate=rng.random() < 0.7),
        lambda: client.xtrim(key(), maxlen=rng.randrange(1, 300), approximate=rng.random() < 0.5),
        lambda: client.xdel(key(), *some_ids(key())),
        lambda: client.xgroup_create(key(), group(), rng.choice(["0", "$"]), mkstream=True),
        lambda: client.xreadgroup(group(), consumer(), {key(): ">"}, count=rng.randrange(1, 30), noack=rng.random() < 0.1),
        lambda: client.xreadgroup(group(), consumer(), {key(): ">", key(): ">"}, count=rng.randrange(1, 5)),
        lambda: (lambda k: client.xack(k, group(), *some_ids(k)))(key()),
        lambda: claim(key()),
        lambda: client.xautoclaim(key(), group(), consumer(), 0, count=rng.randrange(1, 20)),
        lambda: client.xgroup_delconsumer(key(), group(), consumer()) if rng.random() < 0.1 else None,
        lambda: client.xgroup_destroy(key(), group()) if rng.random() < 0.1 else None,
        lambda: client.xgroup_setid(key(), group(), "0") if rng.random() < 0.1 else None,
        lambda: client.delete(key()) if rng.random() < 0.03 else None,
        lambda: client.pipeline(transaction=True).xadd(key(), {"t": 1}).xreadgroup("g", "ann", {KEYS[0]: ">"}).execute(),
    ]
    weights = [10, 20] + [3] * (len(steps) - 2)
    for _ in range(count):
        try:
            rng.choices(steps, weights)[0]()
        except redis.ResponseError as why:
            assert any(part in str(why) for part in ("NOGROUP", "BUSYGROUP", "requires the key to exist", "no such key")), why


@both_ways
def test_replicas_have_the_same_streams(servers, primary_kind, replica_kind):
    primary, replica = servers.node(primary_kind), servers.node(replica_kind)
    writes(primary.client, 1, 700)
    replica.cmd("REPLICAOF", primary.host, primary.port)
    writes(primary.client, 2, 300)  # partly while the snapshot is on its way
    wait_in_sync(primary, replica)
    assert picture(primary.client) == picture(replica.client)
    writes(primary.client, 3, 900)
    wait_in_sync(primary, replica)
    expected = picture(primary.client)
    assert expected == picture(replica.client)
    assert any(groups for _, groups, _ in expected.values()), "the writes are to leave groups behind"
    assert replica.info("replication")["master_link_status"] == "up"


@both_ways
def test_a_waiting_consumer_is_replicated_too(servers, primary_kind, replica_kind):
    primary, replica = servers.node(primary_kind), servers.node(replica_kind)
    replica.cmd("REPLICAOF", primary.host, primary.port)
    primary.client.xgroup_create("s:1", "g", "$", mkstream=True)
    wait_in_sync(primary, replica)
    waiting = Waiting(primary, "XREADGROUP", "GROUP", "g", "ann", "BLOCK", 0, "STREAMS", "s:1", ">")
    entry = primary.client.xadd("s:1", {"a": 1})
    assert waiting.reply() == [[b"s:1", [[entry, [b"a", b"1"]]]]]
    wait_in_sync(primary, replica)
    assert picture(primary.client) == picture(replica.client)
    assert picture(replica.client)[b"s:1"][1][0][1] == entry


class Waiting:
    """One command of a connection of its own, sent and not answered yet."""

    def __init__(self, node, *words):
        before = node.info("clients")["blocked_clients"]
        self.client = node.new_client()
        self.value = None
        self.thread = threading.Thread(target=self._run, args=words, daemon=True)
        self.thread.start()
        wait_for("the client waits", lambda: node.info("clients")["blocked_clients"] > before or not self.thread.is_alive())

    def _run(self, *words):
        conn = self.client.connection_pool.get_connection("_")
        conn.send_command(*words)
        try:
            self.value = conn.read_response()
        except redis.ResponseError as why:
            self.value = why

    def reply(self):
        self.thread.join(20)
        assert not self.thread.is_alive(), "no reply"
        return self.value


def test_readers_wait_for_what_comes(servers):
    node = servers.node("covey")
    node.client.xadd("a", {"f": "old"}, id="1-1")
    newest = Waiting(node, "XREAD", "BLOCK", 0, "STREAMS", "none", "a", "$", "$")
    later = Waiting(node, "XREAD", "BLOCK", 0, "STREAMS", "a", "5-5")
    node.client.xadd("a", {"f": "v"}, id="2-1")
    assert newest.reply() == [[b"a", [[b"2-1", [b"f", b"v"]]]]]
    node.client.xadd("a", {"f": "w"}, id="5-5")
    assert later.thread.is_alive()
    node.client.xadd("a", {"f": "x"}, id="5-6")
    assert later.reply() == [[b"a", [[b"5-6", [b"f", b"x"]]]]]
    started = time.monotonic()
    assert node.client.xread({"a": "$"}, block=120) == []
    assert 0.1 < time.monotonic() - started < 8


@pytest.mark.sanitizer
def test_groups_serve_in_order_and_end(servers):
    node = servers.node("covey")
    node.client.xgroup_create("a", "g", "$", mkstream=True)
    words = lambda who: ("XREADGROUP", "GROUP", "g", who, "COUNT", 1, "BLOCK", 0, "STREAMS", "a", ">")
    first, second, third = (Waiting(node, *words(who)) for who in CONSUMERS)
    for n in (1, 2):
        node.client.xadd("a", {"f": n}, id=f"{n}-0")
    assert first.reply() == [[b"a", [[b"1-0", [b"f", b"1"]]]]]
    assert second.reply() == [[b"a", [[b"2-0", [b"f", b"2"]]]]]
    assert third.thread.is_alive()
    node.client.xgroup_destroy("a", "g")
    assert "the consumer group this client was blocked on no longer exists" in str(third.reply())
    for end in ("DEL a", "SET a x", "RENAME a b", "FLUSHALL"):
        node.client.delete("a")
        node.client.xgroup_create("a", "g", "$", mkstream=True)
        waiting = Waiting(node, *words("ann"))
        node.cmd(*end.split())
        assert "the stream key no longer exists" in str(waiting.reply()), end


@pytest.mark.sanitizer
def test_work_is_shared_among_consumers(servers):
    """Six workers of one group, some of which give up and leave their entries to be claimed: everything is done once."""
    node = servers.node("covey")
    node.client.xgroup_create("jobs", "workers", "$", mkstream=True)
    jobs, done, lock, stop = 600, [], threading.Lock(), threading.Event()

    def work(name, lazy):
        client = node.new_client()
        while not stop.is_set():
            got = client.xreadgroup("workers", name, {"jobs": ">"}, count=5, block=100)
            for entry, fields in (got[0][1] if got else []):
                if lazy and int(fields[b"n"]) % 3 == 0:
                    continue
                with lock:
                    done.append(int(fields[b"n"]))
                assert client.xack("jobs", "workers", entry) == 1
        client.close()

    threads = [threading.Thread(target=work, args=(f"w{n}", n < 3)) for n in range(6)]
    for thread in threads:
        thread.start()
    producer = node.new_client()
    for at in range(0, jobs, 20):
        pipe = producer.pipeline(transaction=False)
        for n in range(at, at + 20):
            pipe.xadd("jobs", {"n": n}, maxlen=5000)
        pipe.execute()
    left = lambda: node.client.xinfo_groups("jobs")[0]
    wait_for("all is delivered", lambda: left()["lag"] == 0 and len(done) + left()["pending"] == jobs, timeout=40)
    stop.set()
    for thread in threads:
        thread.join(20)
    cursor, claimed = "0-0", []
    while True:
        cursor, entries, gone = node.client.xautoclaim("jobs", "workers", "last", 0, cursor, count=50)
        claimed += [int(fields[b"n"]) for _, fields in entries]
        assert not gone
        if cursor == b"0-0":
            break
    assert claimed and sorted(done + claimed) == list(range(jobs))
    assert {c["name"]: c["pending"] for c in node.client.xinfo_consumers("jobs", "workers")}[b"last"] == len(claimed)


def test_ids_from_the_clock_ascend(servers):
    node = servers.node("covey")
    before = int(time.time() * 1000)
    pipe = node.client.pipeline(transaction=False)
    for n in range(2000):
        pipe.xadd("s", {"n": n})
    ids = [tuple(map(int, entry.split(b"-"))) for entry in pipe.execute()]
    assert ids == sorted(set(ids))
    assert before - 1000 <= ids[0][0] and ids[-1][0] <= int(time.time() * 1000) + 1000
    assert [int(fields[b"n"]) for _, fields in node.client.xrange("s")] == list(range(2000))
    assert [int(fields[b"n"]) for _, fields in node.client.xrevrange("s", count=3)] == [1999, 1998, 1997]


def test_streams_survive_a_restart(servers):
    node = servers.node("covey", save="")
    writes(node.client, 7, 800)
    node.client.xgroup_create("s:9", "g", "$", mkstream=True)
    before = picture(node.client)
    node.cmd("SAVE")
    node.kill()
    node.start()
    assert picture(node.client) == before
    assert before[b"s:9"][0][b"length"] == 0
