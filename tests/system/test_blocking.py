"""Commands that wait for a key: who is served with what, in which order, and what ends the wait otherwise.  What takes
a `kind` holds for redis-server as well."""
import random
import threading
import time

import pytest
import redis

import covey
from covey import PATIENCE, assert_same_data, dataset, wait_for, wait_in_sync

WRONGTYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
ROLE_CHANGED = "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)"


def run_crowd(crowd, count, seconds, stop):
    """crowd(0), crowd(1), ... in threads of their own, until the time is over and `stop` is set; all have to end."""
    threads = [threading.Thread(target=crowd, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join(20 * PATIENCE)
        assert not thread.is_alive()


class Sleeper:
    """A connection that sends and does not wait for the reply."""

    def __init__(self, node, *words, protocol=None):
        self.connection = redis.Connection(node.host, node.port, socket_timeout=10 * PATIENCE)
        self.connection.connect()
        self.id = self.ask("CLIENT", "ID")
        if words:
            self.send(*words)

    def send(self, *words):
        self.connection.send_command(*words)

    def ask(self, *words):
        self.send(*words)
        return self.reply()

    def answered(self, within=0.0):
        return self.connection.can_read(timeout=within)

    def reply(self):
        """The reply; errors are strings that begin with -, the end of the connection is "closed"."""
        try:
            return self.connection.read_response()
        except redis.ConnectionError as error:
            if "closed" not in str(error).lower():
                raise
            return "closed"
        except redis.ResponseError as error:
            code = {redis.ReadOnlyError: "READONLY ", redis.exceptions.ClusterDownError: "CLUSTERDOWN "}.get(type(error), "")
            return f"-{code}{error}"

    def close(self):
        self.connection.disconnect()


def asleep(node, count):
    wait_for(f"{count} clients asleep", lambda: node.stat("blocked_clients", "clients") == count, every=0.005)


def sleepers(node, *commands):
    """Puts clients to sleep one after the other."""
    before = node.stat("blocked_clients", "clients")
    out = []
    for words in commands:
        out.append(Sleeper(node, *words))
        asleep(node, before + len(out))
    return out


@pytest.fixture
def server(servers, kind):
    return servers.node(kind, **({"workers": 2} if kind == "covey" else {}))


# ---------------------------------------------------------------------------------------------------- being served

def test_every_command_is_served(server):
    cases = [(("BLPOP", "k", "0"), ("RPUSH", "k", "1", "2"), [b"k", b"1"], [b"2"]),
             (("BRPOP", "k", "0"), ("RPUSH", "k", "1", "2"), [b"k", b"2"], [b"1"]),
             (("BLMOVE", "k", "to", "LEFT", "RIGHT", "0"), ("RPUSH", "k", "1", "2"), b"1", [b"2"]),
             (("BRPOPLPUSH", "k", "to", "0"), ("RPUSH", "k", "1", "2"), b"2", [b"1"]),
             (("BLMPOP", "0", "2", "j", "k", "LEFT", "COUNT", "2"), ("RPUSH", "k", "1", "2", "3"), [b"k", [b"1", b"2"]], [b"3"]),
             (("BZPOPMIN", "k", "0"), ("ZADD", "k", "2", "b", "1", "a"), [b"k", b"a", b"1"], [b"b"]),
             (("BZPOPMAX", "k", "0"), ("ZADD", "k", "2", "b", "1", "a"), [b"k", b"b", b"2"], [b"a"]),
             (("BZMPOP", "0", "1", "k", "MAX", "COUNT", "9"), ("ZADD", "k", "2", "b", "1", "a"),
              [b"k", [[b"b", b"2"], [b"a", b"1"]]], [])]
    for sleep, push, reply, rest in cases:
        sleeper, = sleepers(server, sleep)
        server.cmd(*push)
        assert sleeper.reply() == reply, sleep
        left = server.cmd("ZRANGE", "k", 0, -1) if push[0] == "ZADD" else server.cmd("LRANGE", "k", 0, -1)
        assert left == rest, sleep
        server.cmd("FLUSHALL")
        sleeper.close()


def test_ways_in_which_a_key_comes_to_be(server):
    ways = {"RENAME": [("RPUSH", "t", 1), ("RENAME", "t", "k")], "COPY": [("RPUSH", "t", 1), ("COPY", "t", "k")],
            "SORT": [("RPUSH", "t", 1), ("SORT", "t", "STORE", "k")], "LMOVE": [("RPUSH", "t", 1), ("LMOVE", "t", "k", "LEFT", "LEFT")],
            "MOVE": [("SELECT", 1), ("RPUSH", "k", 1), ("MOVE", "k", 0), ("SELECT", 0)],
            "SWAPDB": [("SELECT", 1), ("RPUSH", "k", 1), ("SELECT", 0), ("SWAPDB", 0, 1)],
            "LINSERT": [("RPUSH", "k", 1)]}
    for name, commands in ways.items():
        sleeper, = sleepers(server, ("BLPOP", "k", 0))
        for words in commands:
            server.cmd(*words)
        assert sleeper.reply() == [b"k", b"1"], name
        server.cmd("FLUSHALL")
        sleeper.close()
    server.cmd("RPUSH", "t", 1)
    sleeper, = sleepers(server, ("BLPOP", "k", 0))
    server.cmd("RESTORE", "k", 0, server.cmd("DUMP", "t"))
    assert sleeper.reply() == [b"k", b"1"]
    sleeper, = sleepers(server, ("BZPOPMIN", "z", 0))
    server.cmd("ZADD", "y", 1, "m")
    server.cmd("ZUNIONSTORE", "z", 1, "y")
    assert sleeper.reply() == [b"z", b"m", b"1"]


def test_several_keys_and_repeated_keys(server):
    a, b = sleepers(server, ("BLPOP", "x", "y", "z", 0), ("BLPOP", "y", "y", "z", 0))
    server.cmd("RPUSH", "y", 1, 2, 3)
    assert (a.reply(), b.reply()) == ([b"y", b"1"], [b"y", b"2"])
    server.cmd("RPUSH", "x", 1)
    server.cmd("RPUSH", "z", 1)
    assert server.cmd("LLEN", "x") == server.cmd("LLEN", "y") == server.cmd("LLEN", "z") == 1


def test_keys_become_ready_in_the_order_of_the_transaction(server):
    sleeper, = sleepers(server, ("BLPOP", "x", "y", "z", 0))
    with server.client.pipeline() as pipe:
        pipe.rpush("z", 1).rpush("x", 1).execute()
    assert sleeper.reply() == [b"z", b"1"] and server.cmd("LLEN", "x") == 1


def test_a_transaction_is_over_before_anybody_is_served(server):
    sleeper, = sleepers(server, ("BLPOP", "k", 0))
    with server.client.pipeline() as pipe:
        assert pipe.rpush("k", 1).lpop("k").execute() == [1, b"1"]
    with server.client.pipeline() as pipe:
        assert pipe.rpush("k", 1).delete("k").rpush("k", 2, 3).llen("k").execute() == [1, 1, 2, 2]
    assert sleeper.reply() == [b"k", b"2"]


def test_a_script_is_over_before_anybody_is_served(server):
    a, b = sleepers(server, ("BLPOP", "j", "k", 0), ("BLMOVE", "own", "to", "LEFT", "LEFT", 0))
    script = """redis.call("RPUSH", KEYS[1], 1, 2) redis.call("LPOP", KEYS[1]) redis.call("RPUSH", "own", 3)
                return {redis.call("LLEN", KEYS[1]), redis.call("LLEN", "own"), redis.call("BLMPOP", 0, 1, "none", "LEFT")}"""
    assert server.cmd("EVAL", script, 1, "k") == [1, 1, None]
    assert a.reply() == [b"k", b"2"] and b.reply() == b"3"
    assert server.cmd("LRANGE", "to", 0, -1) == [b"3"] and server.cmd("DBSIZE") == 1


def test_another_type_does_not_wake(server):
    a, b = sleepers(server, ("BLPOP", "k", 0), ("BZPOPMIN", "k", 0))
    server.cmd("SET", "k", 1)
    server.cmd("DEL", "k")
    server.cmd("ZADD", "k", 1, "m")
    assert b.reply() == [b"k", b"m", b"1"] and not a.answered()
    server.cmd("RPUSH", "k", 1)
    assert a.reply() == [b"k", b"1"]


def test_wrong_types(server):
    server.cmd("SET", "s", 1)
    assert Sleeper(server, "BLPOP", "none", "s", 0).reply() == "-" + WRONGTYPE
    sleeper, = sleepers(server, ("BLMOVE", "k", "s", "LEFT", "LEFT", 0))
    server.cmd("RPUSH", "k", 1, 2)
    assert sleeper.reply() == "-" + WRONGTYPE
    assert server.cmd("LRANGE", "k", 0, -1) == [b"1", b"2"]


def test_moves_wake_the_next_in_the_chain(server):
    a, b, c, d = sleepers(server, ("BLMOVE", "c1", "c2", "LEFT", "RIGHT", 0), ("BLMOVE", "c2", "c3", "LEFT", "RIGHT", 0),
                          ("BRPOPLPUSH", "c3", "c1", 0), ("BLPOP", "c1", 0))
    server.cmd("RPUSH", "c1", "first")
    assert [s.reply() for s in (a, b, c)] == [b"first"] * 3
    assert d.reply() == [b"c1", b"first"]
    assert server.cmd("DBSIZE") == 0


def test_a_list_onto_itself(server):
    a, b = sleepers(server, ("BLMOVE", "k", "k", "LEFT", "RIGHT", 0), ("BLMOVE", "k", "k", "LEFT", "RIGHT", 0))
    server.cmd("RPUSH", "k", 1, 2)
    assert a.reply() == b"1" and b.reply() == b"2"
    assert server.cmd("LRANGE", "k", 0, -1) == [b"1", b"2"]


def test_no_sleep_inside_a_transaction(server):
    with server.client.pipeline() as pipe:
        for words in (("BLPOP", "k", 0), ("BLMOVE", "k", "to", "LEFT", "LEFT", 0), ("BZPOPMIN", "k", 0),
                      ("BLMPOP", 0, 1, "k", "LEFT"), ("BRPOPLPUSH", "k", "to", 0), ("BZMPOP", 0, 1, "k", "MIN")):
            pipe.execute_command(*words)
        assert pipe.execute() == [None] * 6


def test_pipelined_commands_wait_behind(server):
    sleeper, = sleepers(server, ("BLPOP", "k", 0))
    sleeper.connection.send_packed_command([b"INCR n\r\nBLPOP k 0\r\nECHO last\r\n"])
    assert not sleeper.answered(0.05) and server.cmd("EXISTS", "n") == 0
    server.cmd("RPUSH", "k", 1)
    assert [sleeper.reply() for _ in range(2)] == [[b"k", b"1"], 1]
    assert not sleeper.answered(0.05)
    server.cmd("RPUSH", "k", 2)
    assert [sleeper.reply() for _ in range(2)] == [[b"k", b"2"], b"last"]


# ---------------------------------------------------------------------------------------------------- other ends

def test_timeouts_are_never_early(server):
    batch = [(Sleeper(server, "BLPOP", f"k{n % 7}", f"{timeout}"), time.monotonic(), timeout)
             for n, timeout in enumerate([0.001, 0.02, 0.05, 0.0501, 0.1, 0.25, 0.3] * 3)]
    late = []
    for sleeper, _, timeout in sorted(batch, key=lambda s: s[2]):
        assert sleeper.reply() is None
        late.append((time.monotonic(), timeout))
    for (sleeper, began, timeout), (ended, _) in zip(sorted(batch, key=lambda s: s[2]), late):
        assert timeout - 0.002 < ended - began < timeout + 3 * PATIENCE
    assert server.stat("blocked_clients", "clients") == 0


def test_client_unblock(server):
    node = server
    sleeper, = sleepers(node, ("BLPOP", "k", 0))
    assert node.cmd("CLIENT", "UNBLOCK", node.cmd("CLIENT", "ID")) == 0
    assert node.cmd("CLIENT", "UNBLOCK", 10 ** 12) == 0
    assert node.cmd("CLIENT", "UNBLOCK", sleeper.id) == 1
    assert sleeper.reply() is None
    sleeper.send("BZPOPMAX", "k", 5)
    asleep(node, 1)
    assert node.cmd("CLIENT", "UNBLOCK", sleeper.id, "ERROR") == 1
    assert sleeper.reply() == "-UNBLOCKED client unblocked via CLIENT UNBLOCK"
    sleeper.send("WAIT", 1, 0)
    asleep(node, 1)
    assert node.cmd("CLIENT", "UNBLOCK", sleeper.id, "TIMEOUT") == 1
    assert sleeper.reply() == 0
    node.cmd("RPUSH", "k", 1)
    assert node.cmd("LLEN", "k") == 1 and node.stat("blocked_clients", "clients") == 0


def test_a_pause_does_not_stop_the_clock_of_who_sleeps(server):
    sleeper, stays = sleepers(server, ("BLPOP", "k", 0.3), ("BLPOP", "k", 0))
    server.cmd("CLIENT", "PAUSE", 60000, "WRITE")
    assert sleeper.reply() is None
    late = Sleeper(server, "BLPOP", "k", 0.05)
    assert not late.answered(0.3)
    pusher = Sleeper(server, "RPUSH", "k", 1)
    assert not pusher.answered(0.1) and not stays.answered()
    server.cmd("CLIENT", "UNPAUSE")
    assert late.reply() is None and pusher.reply() == 1 and stays.reply() == [b"k", b"1"]


def test_who_is_gone_takes_nothing(server):
    a, b, c = sleepers(server, ("BLPOP", "k", 0), ("BLPOP", "k", 0), ("BLPOP", "k", 0))
    a.close()
    asleep(server, 2)
    assert server.cmd("CLIENT", "KILL", "ID", b.id) == 1
    asleep(server, 1)
    server.cmd("RPUSH", "k", 1)
    assert c.reply() == [b"k", b"1"] and b.reply() == "closed"


def test_the_list_of_clients_shows_the_sleepers(server):
    sleeper, = sleepers(server, ("BLPOP", "k", 7))
    flags = {c["id"]: c["flags"] for c in server.client.client_list()}
    assert flags[str(sleeper.id)] == "b"
    server.cmd("RPUSH", "k", 1)
    sleeper.reply()
    flags = {c["id"]: c["flags"] for c in server.client.client_list()}
    assert flags[str(sleeper.id)] == "N"


def test_a_new_replica_lets_nobody_sleep(server):
    both = sleepers(server, ("BLPOP", "k", 0), ("WAIT", 1, 0))
    server.cmd("REPLICAOF", "127.0.0.1", 1)
    for sleeper in both:
        assert sleeper.reply() == "-" + ROLE_CHANGED
        assert sleeper.reply() == "closed"
    assert Sleeper(server, "BLPOP", "k", 0).reply().startswith("-READONLY")


def test_reply_skip_counts_for_what_comes_later(server):
    sleeper = Sleeper(server)
    sleeper.connection.send_packed_command([b"CLIENT REPLY SKIP\r\nBLPOP k 0\r\nECHO next\r\n"])
    asleep(server, 1)
    server.cmd("RPUSH", "k", 1)
    assert sleeper.reply() == b"next"


# ---------------------------------------------------------------------------------------------------- order, many

@pytest.mark.parametrize("push", ["one by one", "at once", "transaction"])
def test_first_come_first_served_over_workers(servers, push):
    node = servers.node("covey", workers=2)
    rng = random.Random(5)
    crowd = [Sleeper(node) for _ in range(24)]
    for turn in range(5):
        rng.shuffle(crowd)
        for n, sleeper in enumerate(crowd):
            sleeper.send(*rng.choice([("BLPOP", "q", 0), ("BRPOP", "q", "other", 0), ("BLMPOP", 0, 2, "other", "q", "LEFT")]))
            asleep(node, n + 1)
        if push == "at once":
            node.cmd("RPUSH", "q", *["x"] * len(crowd))
        elif push == "transaction":
            with node.client.pipeline() as pipe:
                for _ in crowd:
                    pipe.rpush("q", "x")
                pipe.execute()
        else:
            for n, sleeper in enumerate(crowd):
                node.cmd("RPUSH", "q", "x")
                assert sleeper.reply()[0] == b"q", (turn, n)
            continue
        for sleeper in crowd:
            assert sleeper.reply()[0] == b"q", turn
    # Which element who got: in the order of coming.
    for n, sleeper in enumerate(crowd):
        sleeper.send("BLPOP", "q", 0)
        asleep(node, n + 1)
    node.cmd("RPUSH", "q", *range(len(crowd)))
    assert [int(sleeper.reply()[1]) for sleeper in crowd] == list(range(len(crowd)))


def test_many_sleepers(servers):
    """On one key and on as many keys; a push, a time-out and an end cost the same however many there are."""
    node, count = servers.node("covey", workers=2), 3000
    crowd = [Sleeper(node) for _ in range(count)]
    for keys in (1, count):
        began = time.monotonic()
        for n, sleeper in enumerate(crowd):
            sleeper.send("BLPOP", f"k{n % keys}", f"j{n % keys}", 0)
        asleep(node, count)
        pipe = node.client.pipeline(transaction=False)
        for n in range(count):
            pipe.rpush(f"k{n % keys}", n)
        pipe.execute()
        assert {int(sleeper.reply()[1]) for sleeper in crowd} == set(range(count))
        assert node.cmd("DBSIZE") == 0
        assert time.monotonic() - began < 20 * PATIENCE
    for sleeper in crowd:
        sleeper.send("BZPOPMIN", "k", "0.5")
    for sleeper in crowd:
        assert sleeper.reply() is None
    for sleeper in crowd:
        sleeper.send("BLMOVE", "k", f"{sleeper.id}", "LEFT", "LEFT", 0)
    asleep(node, count)
    for sleeper in crowd[::2]:
        sleeper.close()
    asleep(node, count / 2)
    node.cmd("RPUSH", "k", *range(count // 2))
    assert sorted(int(sleeper.reply()) for sleeper in crowd[1::2]) == list(range(count // 2))
    assert node.cmd("DBSIZE") == count // 2


# ---------------------------------------------------------------------------------------------------- races

@pytest.mark.sanitizer
def test_nothing_is_lost_or_served_twice(servers):
    """Pushes against short time-outs, CLIENT UNBLOCK and other keys: each element is taken once, or is still there."""
    node = servers.node("covey", workers=3)
    stop, taken, pushed, ids = threading.Event(), [], [], []
    keys = [f"q{n}" for n in range(3)]

    def consume(seed):
        rng, client = random.Random(seed), node.new_client(single_connection_client=True)
        ids.append(client.client_id())
        while not stop.is_set():
            timeout = rng.choice([0.001, 0.003, 0.02])
            what = rng.randrange(4)
            try:
                if what == 0:
                    got = client.execute_command("BLMPOP", timeout, 3, *keys, "RIGHT", "COUNT", 2)
                elif what == 1:
                    moved = client.execute_command("BLMOVE", rng.choice(keys), f"own:{seed}", "LEFT", "LEFT", timeout)
                    got = moved and [None, client.lpop(f"own:{seed}")]
                else:
                    got = client.execute_command(rng.choice(["BLPOP", "BRPOP"]), *rng.sample(keys, 2), timeout)
            except redis.ResponseError as error:
                assert "UNBLOCKED" in str(error), error
                continue
            if got:
                taken.extend(got[1] if isinstance(got[1], list) else [got[1]])

    def produce(seed):
        rng, client, n = random.Random(seed), node.new_client(), 0
        while not stop.is_set():
            values = [f"{seed}-{n}-{i}" for i in range(rng.randrange(1, 4))]
            n += 1
            with client.pipeline() as pipe:
                if rng.randrange(3):
                    pipe.rpush(rng.choice(keys), *values)
                else:
                    for value in values:
                        pipe.lpush(rng.choice(keys), value)
                pipe.execute()
            pushed.extend(values)
            if n % 8 == 0:
                time.sleep(rng.random() * 0.004)

    def unblock():
        rng, client = random.Random(1), node.new_client()
        while not stop.is_set():
            if ids:
                client.execute_command("CLIENT", "UNBLOCK", rng.choice(ids), rng.choice(["TIMEOUT", "ERROR"]))
            time.sleep(0.002)

    threads = [threading.Thread(target=consume, args=(n,)) for n in range(8)]
    threads += [threading.Thread(target=produce, args=(100 + n,)) for n in range(2)] + [threading.Thread(target=unblock)]
    for thread in threads:
        thread.start()
    time.sleep(20 if covey.LONG else 4)
    stop.set()
    for thread in threads:
        thread.join(20 * PATIENCE)
        assert not thread.is_alive()
    left = [value for key in keys for value in node.cmd("LRANGE", key, 0, -1)]
    assert sorted(taken + left) == sorted(value.encode() for value in pushed)
    assert len(taken) > 100 and node.stat("blocked_clients", "clients") == 0


@pytest.mark.sanitizer
def test_everything_at_once(servers):
    """Sleepers that are killed, moved onto busy slots, flushed and renamed away; with a replica that has to agree."""
    node = servers.node("covey", workers=3)
    other = servers.node("redis", replicaof=["127.0.0.1", node.port])
    covey_replica = servers.node("covey", workers=2, replicaof=["127.0.0.1", node.port])
    wait_in_sync(node, other, covey_replica)
    stop, keys = threading.Event(), [f"k{n}" for n in range(6)]

    def crowd(seed):
        rng = random.Random(seed)
        client = node.new_client()
        while not stop.is_set():
            a, b, t = rng.choice(keys), rng.choice(keys), rng.choice(["0.002", "0.01", "0.05"])
            words = rng.choice([("BLPOP", a, b, t), ("BLMOVE", a, b, "LEFT", "RIGHT", t), ("BRPOPLPUSH", a, b, t),
                                ("BZPOPMIN", a, b, t), ("BLMPOP", t, 2, a, b, "LEFT", "COUNT", 3), ("BZMPOP", t, 1, a, "MAX"),
                                ("RPUSH", a, *range(rng.randrange(1, 5))), ("LPUSH", a, seed), ("ZADD", a, 1, "m", 2, "n"),
                                ("DEL", a), ("RENAME", a, b), ("SET", a, 1, "PX", 2), ("EXPIRE", a, 1), ("SCAN", 0),
                                ("SWAPDB", 0, 1), ("MULTI",), ("KILL",), ("FLUSHDB",), ("CONFIG", "GET", "port")])
            try:
                if words == ("MULTI",):
                    with client.pipeline() as pipe:
                        pipe.delete(a).rpush(a, 1, 2).delete(b).zadd(b, {"x": 1}).execute()
                elif words == ("KILL",):
                    client.execute_command("CLIENT", "KILL", "ID", rng.randrange(3, 60))
                else:
                    client.execute_command(*words)
            except (redis.ResponseError, redis.ConnectionError):
                pass
        client.close()

    run_crowd(crowd, 10, 20 if covey.LONG else 5, stop)
    wait_in_sync(node, other, covey_replica)
    for db in (0, 1):
        assert_same_data(dataset(node, db), dataset(other, db), f"redis-server's db {db}")
        assert_same_data(dataset(node, db), dataset(covey_replica, db), f"the Covey replica's db {db}")
    assert node.stat("blocked_clients", "clients") == 0


@pytest.mark.sanitizer
def test_streams_at_once(servers):
    """Readers of several streams, which may find nothing for them where others do, and groups that come and go."""
    node = servers.node("covey", workers=3)
    stop, seen, ids, streams = threading.Event(), [0], [], [f"s{n}" for n in range(4)]

    def crowd(seed):
        rng, client = random.Random(seed), node.new_client(single_connection_client=True)
        ids.append(client.client_id())
        while not stop.is_set():
            a, b = rng.sample(streams, 2)
            words = rng.choice([("XREAD", "BLOCK", 5, "STREAMS", a, b, "$", "$"), ("XREAD", "BLOCK", 3, "STREAMS", a, b, "$", 9 ** 15),
                                ("XREADGROUP", "GROUP", "g", seed, "BLOCK", 4, "STREAMS", a, b, ">", ">"),
                                ("XADD", a, "*", "f", seed), ("XADD", a, "MAXLEN", 5, "*", "f", seed), ("DEL", a),
                                ("XGROUP", "CREATE", a, "g", "$", "MKSTREAM"), ("XGROUP", "DESTROY", a, "g"), ("SET", a, 1, "PX", 1),
                                ("CLIENT", "UNBLOCK", rng.choice(ids)), ("RENAME", a, b), ("KEYS", "*")])
            try:
                if client.execute_command(*words) and words[0].startswith("XREAD"):
                    seen[0] += 1
            except redis.ResponseError:
                pass

    run_crowd(crowd, 12, 20 if covey.LONG else 4, stop)
    assert seen[0] > 20 and node.stat("blocked_clients", "clients") == 0


def test_a_stream_of_pops_reaches_a_redis_replica(servers):
    node = servers.node("covey", workers=2)
    replica = servers.node("redis", replicaof=["127.0.0.1", node.port])
    wait_in_sync(node, replica)
    replica.cmd("CONFIG", "RESETSTAT")
    words = [("BLPOP", "a", 0), ("BRPOP", "a", 0), ("BLMOVE", "a", "b", "LEFT", "RIGHT", 0), ("BRPOPLPUSH", "a", "b", 0),
             ("BLMPOP", 0, 1, "a", "LEFT", "COUNT", 2)]
    all_of_them = sleepers(node, *words)
    node.cmd("RPUSH", "a", *range(9))
    others = sleepers(node, ("BZPOPMIN", "z", 0), ("BZPOPMAX", "z", 0), ("BZMPOP", 0, 1, "z", "MIN", "COUNT", 5))
    node.cmd("ZADD", "z", 1, "a", 2, "b", 3, "c", 4, "d")
    assert [s.reply() for s in others] == [[b"z", b"a", b"1"], [b"z", b"d", b"4"], [b"z", [[b"b", b"2"], [b"c", b"3"]]]]
    assert [s.reply() for s in all_of_them] == [[b"a", b"0"], [b"a", b"8"], b"1", b"7", [b"a", [b"2", b"3"]]]
    wait_in_sync(node, replica)
    assert_same_data(dataset(node), dataset(replica))
    ran = {name[8:] for name in replica.info("commandstats")}
    assert {"lpop", "rpop", "lmove", "rpoplpush", "zpopmin", "zpopmax"} <= ran
    assert not [name for name in ran if name.startswith(("b", "multi"))], ran


def test_queue_workers_at_speed(servers):
    node = servers.node("covey", workers=2)
    count, received = 6000, []

    def work():
        client = node.new_client()
        while True:
            _, value = client.brpop("jobs")
            if value == b"stop":
                return
            received.append(int(value))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    client, began = node.new_client(), time.monotonic()
    for n in range(count):
        client.lpush("jobs", n)
    client.lpush("jobs", *["stop"] * 4)
    for thread in threads:
        thread.join(30 * PATIENCE)
    assert sorted(received) == list(range(count))
    assert time.monotonic() - began < 10 * PATIENCE


# ---------------------------------------------------------------------------------------------------- clusters

def test_a_slot_moves_away_under_a_sleeper(servers, kind):
    cluster = servers.cluster([kind] * 3)
    slot = covey.key_slot(b"k")
    source = cluster.owner(slot)
    target = next(n for n in cluster.nodes if n is not source)
    sleeper, stays = sleepers(source, ("BLPOP", "k", 0), ("BLPOP", covey.tag_of_slot(next(iter(
        set(covey.cluster_nodes(source)[source.id].slots) - {slot}))), 0))
    target.cmd("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
    source.cmd("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
    assert not sleeper.answered(0.2)
    for node in (target, source):
        node.cmd("CLUSTER", "SETSLOT", slot, "NODE", target.id)
    assert sleeper.reply().endswith(f"{slot} {target.host}:{target.port}")
    assert not stays.answered(1.2)
    for node in cluster.nodes:
        if node is not source:
            node.kill()
    assert stays.reply() == "-CLUSTERDOWN The cluster is down"


def test_a_failover_ends_the_sleep_at_the_old_primary(servers):
    cluster = servers.cluster(["covey"] * 6, replicas=1)
    primary = cluster.owner(covey.key_slot(b"k"))
    replica, = cluster.replicas_of(primary)
    sleeper, = sleepers(primary, ("BLPOP", "k", 0))
    wait_for("the failover to begin", lambda: replica.cmd("CLUSTER", "FAILOVER") == b"OK")
    cluster.wait_primary(replica)
    assert sleeper.reply() == "-" + ROLE_CHANGED
    assert sleeper.reply() == "closed"
    sleeper, = sleepers(replica, ("BLPOP", "k", 0))
    replica.cmd("RPUSH", "k", 1)
    assert sleeper.reply() == [b"k", b"1"]
