"""covey proxy: one address for plain clients in front of a cluster, of this project's nodes and of redis-server's."""
import os
import random
import socket
import threading
import time

import pytest
import redis

import covey
from covey import SLOTS, TestFailure, cluster_nodes, key_slot, tag_of_slot, wait_for
from proxying import Proxy
from wire import Error, Wire


@pytest.fixture(scope="module", params=["covey", "redis"])
def setup(request, module_servers):
    """Six nodes of one kind, and a proxy."""
    if covey.COVEY_IS_REDIS:
        pytest.skip("the proxy is Covey's")
    cluster = module_servers.cluster([request.param] * 6, replicas=1, timeout=2000)
    return cluster, Proxy(module_servers, cluster.nodes[:2])


@pytest.fixture
def client(setup):
    client = setup[1].new_client()
    client.flushall()
    yield client
    client.close()


def other_slot_key(key):
    return next(k for k in map(str, range(100)) if abs(key_slot(k) - key_slot(key)) > SLOTS // 2)


# ---------------------------------------------------------------------------------------------------- one Redis

def test_keys_of_all_slots(client):
    pairs = {f"{{{tag_of_slot(slot)}}}k": str(slot) for slot in range(0, SLOTS, 97)}
    assert client.mset(pairs)
    names = list(pairs) + ["missing"]
    random.Random(1).shuffle(names)
    assert client.mget(names) == [pairs[n].encode() if n in pairs else None for n in names]
    assert client.dbsize() == len(pairs)
    assert sorted(client.keys("*k")) == sorted(n.encode() for n in pairs)
    assert client.exists(*names, names[0], names[0]) == len(pairs) + (2 if names[0] in pairs else 0)
    assert client.touch(*names) == len(pairs)
    assert client.delete(*names[:50]) + client.unlink(*names[50:]) == len(pairs)
    assert client.dbsize() == 0 and client.randomkey() is None


def test_scan_sees_every_key_once_per_cursor(client):
    names = {f"s{n}".encode() for n in range(3000)}
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.set(name, 1)
    pipe.execute()
    seen = list(client.scan_iter(count=100))
    assert set(seen) == names
    assert len(seen) < 1.2 * len(names)
    assert set(client.scan_iter(match="s1*")) == {n for n in names if n.startswith(b"s1")}
    assert client.randomkey() in names
    with pytest.raises(redis.ResponseError, match="invalid cursor"):
        client.execute_command("SCAN", "x")


def test_deep_pipeline_keeps_its_order(client):
    pipe = client.pipeline(transaction=False)
    rng = random.Random(2)
    want = []
    for n in range(20000):
        key = f"p{rng.randrange(500)}"
        which = rng.randrange(4)
        if which == 0:
            pipe.set(key, n)
            want.append(True)
        elif which == 1:
            pipe.echo(str(n))
            want.append(str(n).encode())
        elif which == 2:
            pipe.mget(key, "nothing", f"p{n % 500}")
            want.append(3)
        else:
            pipe.strlen(f"{key}-never")
            want.append(0)
    for got, expected in zip(pipe.execute(), want):
        assert (len(got) if isinstance(got, list) else got) == expected


def test_writes_of_one_client_stay_in_order(client):
    pipe = client.pipeline(transaction=False)
    for n in range(5000):
        pipe.rpush(f"list{n % 7}", n)
    pipe.execute()
    for k in range(7):
        assert client.lrange(f"list{k}", 0, -1) == [str(n).encode() for n in range(k, 5000, 7)]


def test_large_values(client):
    big = random.Random(3).randbytes(64 << 20)
    before = client.info("memory")["used_memory"]
    assert client.set("big", big)
    assert client.get("big") == big
    assert client.mget("big", other_slot_key("big")) == [big, None]
    assert client.delete("big") == 1
    wait_for("the proxy to give the memory back", lambda: client.info("memory")["used_memory"] < before + (16 << 20))


def test_a_slow_reader_stops_its_own_input_only(setup, client):
    client.set("mb", b"x" * (1 << 20))
    with setup[1].raw() as slow:
        request = b"*2\r\n$3\r\nGET\r\n$2\r\nmb\r\n" * 50
        slow.sendall(request)
        time.sleep(0.5)
        started = time.monotonic()
        assert client.set("a", 1) and client.get("a") == b"1"
        assert time.monotonic() - started < 9
        want = 50 * len(b"$1048576\r\n" + b"x" * (1 << 20) + b"\r\n")
        slow.settimeout(20)
        got = 0
        while got < want:
            piece = slow.recv(1 << 20)
            assert piece
            got += len(piece)
        assert got == want


def test_transactions(client):
    pipe = client.pipeline()
    pipe.set("{t}a", 1).incr("{t}a").get("{t}a").mget("{t}a", "{t}b").ping()
    assert pipe.execute() == [True, 2, b"2", [b"2", None], True]
    assert client.pipeline().eval("return 5", 0).set("{t}c", 1).execute() == [5, True]
    assert client.pipeline().execute() == []
    with pytest.raises(redis.ResponseError, match="CROSSSLOT"):
        client.pipeline().set("a", 1).set(other_slot_key("a"), 2).execute()
    assert client.get("a") is None
    raw = client.connection_pool.get_connection("x")

    def call(*words):
        raw.send_command(*words)
        try:
            return raw.read_response()
        except redis.RedisError as error:
            return str(error)
    assert call("EXEC") == "EXEC without MULTI"
    assert call("MULTI") == b"OK"
    assert "nested" in call("MULTI")
    assert call("SET", "x", "1") == b"QUEUED"
    assert "wrong number" in call("GET")
    assert "Transaction discarded" in call("EXEC")
    assert call("MULTI") == b"OK" and call("SET", "x", "1") == b"QUEUED" and call("DISCARD") == b"OK"
    assert call("MULTI") == b"OK" and call("EXEC") == []
    assert call("MULTI") == b"OK" and call("INCR", "{l}x") == b"QUEUED" and call("LPUSH", "{l}x", "1") == b"QUEUED"
    raw.send_command("EXEC")
    one, wrong = raw.read_response()
    assert one == 1 and isinstance(wrong, redis.ResponseError)
    client.connection_pool.release(raw)
    assert client.get("x") is None


def test_watch(client):
    client.set("{w}n", 5)

    def raise_it(pipe):
        value = int(pipe.get("{w}n"))
        pipe.multi()
        pipe.set("{w}n", value + 1)
    assert client.transaction(raise_it, "{w}n") == [True]
    assert client.get("{w}n") == b"6"
    with client.pipeline() as pipe:
        pipe.watch("{w}n", "{w}m")
        client.set("{w}m", 1)
        pipe.multi()
        pipe.set("{w}n", 99)
        with pytest.raises(redis.WatchError):
            pipe.execute()
    assert client.get("{w}n") == b"6"
    with client.pipeline() as pipe:
        pipe.watch("{w}n")
        pipe.unwatch()
        client.set("{w}n", 7)
        pipe.multi()
        pipe.incr("{w}n")
        assert pipe.execute() == [8]


def test_watch_counts_right_under_contention(setup, client):
    client.set("{c}n", 0)

    def add(pipe):
        value = int(pipe.get("{c}n"))
        pipe.multi()
        pipe.set("{c}n", value + 1)

    def work():
        mine = setup[1].new_client()
        for _ in range(30):
            mine.transaction(add, "{c}n")
        mine.close()
    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.get("{c}n") == b"150"
    wait_for("connections to be given back", lambda: int(client.info("all")["pinned_connections"]) < 64)


def test_connections_kept_for_later_are_in_nobodys_way(servers, setup):
    """As many clients block at one node after the other as there may be."""
    proxy = Proxy(servers, setup[0].nodes, workers=2, pinned_connections=4)
    for start in range(0, SLOTS, SLOTS // 6):
        keys = [f"{{{tag_of_slot(start)}}}{n}" for n in range(4)]
        wires = [Wire(proxy) for _ in keys]
        for wire, key in zip(wires, keys):
            wire.send("BLPOP", key, 0)
        wait_for("all to wait", lambda: proxy.stat("pinned_connections", "all") == 4)
        with Wire(proxy) as other:
            assert "pinned-connections" in other("BLPOP", keys[0], 0)
        assert [proxy.cmd("RPUSH", key, 1) for key in keys] == [1] * 4
        assert [wire.read() for wire in wires] == [[key.encode(), b"1"] for key in keys]
        for wire in wires:
            wire.close()
        wait_for("none to wait", lambda: proxy.stat("pinned_connections", "all") == 0)
    proxy.terminate()


def test_blocking_commands_block_nobody_else(setup, client):
    proxy = setup[1]
    got = {}

    def wait(n):
        mine = proxy.new_client(socket_timeout=30)
        got[n] = mine.blpop(f"q{n}", timeout=20)
        mine.close()
    threads = [threading.Thread(target=wait, args=(n,)) for n in range(100)]
    for thread in threads:
        thread.start()
    wait_for("all to wait", lambda: int(client.info("all")["pinned_connections"]) >= 100)
    started = time.monotonic()
    for n in range(200):
        client.set(f"k{n}", n)
    assert time.monotonic() - started < 15  # they would wait for 20
    assert client.blpop("none", timeout=1) is None
    for n in range(100):
        client.rpush(f"q{n}", n)
    for thread in threads:
        thread.join()
    assert got == {n: (f"q{n}".encode(), str(n).encode()) for n in range(100)}
    client.xadd("stream", {"a": 1}, id="1-1")
    assert client.xread({"stream": "0"}) == client.xread({"stream": "0"}, block=100)
    assert not client.xread({"stream": "$"}, block=50)


def test_a_client_that_leaves_takes_nothing_with_it(setup, client):
    """An element that nobody will get must stay in the list."""
    with setup[1].raw() as gone:
        gone.sendall(b"*3\r\n$5\r\nBLPOP\r\n$4\r\ngone\r\n$1\r\n0\r\n")
        time.sleep(0.2)
    time.sleep(0.3)
    client.rpush("gone", "x")
    time.sleep(0.2)
    assert client.lrange("gone", 0, -1) == [b"x"]


def test_publish_subscribe(setup, client):
    listener = client.pubsub()
    listener.subscribe("one", "two")
    listener.psubscribe("p*")
    kinds = [listener.get_message(timeout=5)["type"] for _ in range(3)]
    assert kinds == ["subscribe", "subscribe", "psubscribe"]
    for n in range(100):
        client.publish(("one", "two", "px", "other")[n % 4], n)
    got = [int(listener.get_message(timeout=5)["data"]) for _ in range(75)]
    for channel in range(3):
        assert [n for n in got if n % 4 == channel] == list(range(channel, 100, 4))
    listener.unsubscribe()
    listener.punsubscribe()
    listener.close()
    wait_for("the patterns to be gone", lambda: client.execute_command("PUBSUB", "NUMPAT") == 0)
    with setup[1].raw() as raw:
        raw.sendall(b"SUBSCRIBE a\r\nGET k\r\nUNSUBSCRIBE a\r\nSET k v\r\nGET k\r\n")
        text = b""
        while not text.endswith(b"$1\r\nv\r\n"):
            text += raw.recv(1000)
    assert text == (b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"
                    b"-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are "
                    b"allowed in this context\r\n*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n+OK\r\n$1\r\nv\r\n")


def test_scripts(client):
    sha = client.script_load("return redis.call('incr', KEYS[1])")
    for key in ("a", "b", "c", "d", "e", "f"):
        assert client.evalsha(sha, 1, key) == 1
    assert client.script_exists(sha, "0" * 40) == [True, False]
    assert client.eval("return ARGV[1]", 0, "x") == b"x"
    with pytest.raises(redis.ResponseError, match="CROSSSLOT"):
        client.eval("return 1", 2, "a", other_slot_key("a"))


def test_resp3(setup):
    with setup[1].raw() as raw:
        raw.sendall(b"HELLO 3\r\nDEL h3 k3\r\nHSET h3 f v\r\nHGETALL h3\r\nGET k3\r\nMGET k3 h4 z\r\nSUBSCRIBE c\r\nGET k3\r\n")
        want = b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n_\r\n"
        text = b""
        while not text.endswith(want):
            piece = raw.recv(10000)
            assert piece, text
            text += piece
    assert text.startswith(b"%7\r\n")
    assert b":1\r\n%1\r\n$1\r\nf\r\n$1\r\nv\r\n_\r\n*3\r\n_\r\n_\r\n_\r\n" in text


def test_words_of_one_redis(client):
    def error(*words):
        with pytest.raises(redis.RedisError) as caught:
            client.execute_command(*words)
        return str(caught.value)
    assert "unknown command 'NOSUCH', with args beginning with: 'a'" in error("NOSUCH", "a")
    assert "wrong number of arguments for 'get' command" in error("GET")
    assert "unknown subcommand 'foo'. Try CONFIG HELP." in error("CONFIG", "foo")
    assert "cluster support disabled" in error("CLUSTER", "INFO")
    assert "DB index is out of range" in error("SELECT", "3")
    assert "this is a proxy" in error("SHUTDOWN")
    assert "CROSSSLOT" in error("RENAME", "a", other_slot_key("a"))
    assert client.execute_command("SELECT", "0") == b"OK" or True
    assert client.config_get("databases") == {"databases": "1"}
    assert client.info()["redis_version"] == "7.0.15"
    assert client.client_setname("me") and client.client_getname() == "me"
    assert client.time()[0] > 0 and client.echo("x") == b"x"
    assert "get" in client.command()


def test_bad_input_closes_and_harms_nobody(setup, client):
    for text in (b"*1\r\n:5\r\n", b"*-5\r\n", b"*3\r\n$9999999999999\r\n", b"\x00\xff\r\n" * 10, b"*2000000000\r\n",
                 b"*2\r\n$3\r\nGET\r\n$5\r\nab"):
        with setup[1].raw() as raw:
            raw.sendall(text)
            raw.shutdown(socket.SHUT_WR)
            raw.settimeout(5)
            while raw.recv(1000):
                pass
    assert client.set("a", 1)


# ---------------------------------------------------------------------------------------------------- against one Redis

UNORDERED = {"SMEMBERS", "SUNION", "SINTER", "SDIFF", "HGETALL", "HKEYS", "HVALS", "KEYS"}


def random_request(rng):
    """A request that has one right answer; keys are few, so that types clash and values meet."""
    def key():
        return rng.choice(["{t}", "{u}", "{v}", "", ""]) + f"k{rng.randrange(8)}"

    def value():
        return rng.choice([str(rng.randrange(-5, 5)), "abc" * rng.randrange(5), "x" * rng.choice([0, 1, 100, 20000])])

    def some(make, most=4):
        return [make() for _ in range(rng.randrange(1, most))]
    number = rng.randrange(-3, 4)
    return [str(word) for word in rng.choice([
        lambda: ["GET", key()], lambda: ["SET", key(), value()], lambda: ["SET", key(), value(), rng.choice(["NX", "XX", "GET", "BAD"])],
        lambda: ["INCR", key()], lambda: ["APPEND", key(), value()], lambda: ["STRLEN", key()], lambda: ["GETDEL", key()],
        lambda: ["MGET", *some(key)], lambda: ["MSET", *sum(([key(), value()] for _ in range(3)), [])],
        lambda: ["MSETNX", key(), value(), key(), value()], lambda: ["MSET", key()], lambda: ["MGET"],
        lambda: ["DEL", *some(key)], lambda: ["UNLINK", *some(key)], lambda: ["EXISTS", *some(key, 8)], lambda: ["TOUCH", *some(key)],
        lambda: ["RENAME", key(), key()], lambda: ["COPY", key(), key()], lambda: ["TYPE", key()], lambda: ["DBSIZE"],
        lambda: ["LPUSH", key(), *some(value)], lambda: ["LRANGE", key(), number, "-1"], lambda: ["RPOP", key()],
        lambda: ["LMOVE", key(), key(), "LEFT", "RIGHT"], lambda: ["SADD", key(), *some(value)], lambda: ["SMEMBERS", key()],
        lambda: ["SUNION", key(), key()], lambda: ["SINTERCARD", "2", key(), key()], lambda: ["SMOVE", key(), key(), value()],
        lambda: ["HSET", key(), value(), value()], lambda: ["HGETALL", key()], lambda: ["HINCRBY", key(), "f", number],
        lambda: ["ZADD", key(), number, value()], lambda: ["ZRANGE", key(), "0", "-1", "WITHSCORES"],
        lambda: ["ZUNIONSTORE", key(), "2", key(), key()], lambda: ["ZPOPMIN", key()], lambda: ["ZMPOP", "1", key(), "MIN"],
        lambda: ["SETBIT", key(), "7", "1"], lambda: ["BITOP", "AND", key(), key(), key()], lambda: ["PFADD", key(), value()],
        lambda: ["PFCOUNT", key(), key()], lambda: ["EXPIRE", key(), "1000"], lambda: ["PERSIST", key()],
        lambda: ["OBJECT", "ENCODING", key()], lambda: ["SORT", key()], lambda: ["KEYS", "*"], lambda: ["PING", value()],
        lambda: ["ECHO", value()], lambda: ["EVAL", "return redis.call('TYPE', KEYS[1])", "1", key()],
        lambda: ["EVAL", "return {1, false, ARGV[1]}", "0", value()], lambda: ["XADD", key(), "*x", "f", "v"],
        lambda: ["XLEN", key()], lambda: ["NOSUCH", value()], lambda: ["GET"], lambda: ["BLPOP", key(), "0.01"],
        lambda: ["SELECT", "0"], lambda: ["FLUSHALL"] if rng.random() < 0.2 else ["DBSIZE"], lambda: ["EXEC"],
    ])()]


def comparable(words, reply):
    if words[0] in UNORDERED and isinstance(reply, list):
        if words[0] == "HGETALL":
            reply = [item for pair in sorted(zip(reply[::2], reply[1::2])) for item in pair]
        else:
            reply = sorted(reply)
    return repr(sorted(map(repr, reply)) if isinstance(reply, (set, dict)) else reply)


@pytest.mark.parametrize("version", [2, 3])
def test_answers_like_one_redis(setup, client, module_servers, version):
    """Random requests to the proxy and to one redis-server: but for CROSSSLOT the replies are the same."""
    seed = int(os.environ.get("COVEY_TEST_SEED", random.randrange(10 ** 6)))
    print(f"seed {seed}")
    rng = random.Random(seed)
    oracle = module_servers.node("redis")
    refused = 0
    with Wire(setup[1], version) as proxy, Wire(oracle, version) as single:
        for _ in range(200):
            requests = []
            for _ in range(40):
                if rng.random() < 0.1:
                    key = "{m}" + str(rng.randrange(5))
                    requests += [["MULTI"], ["INCR", key], ["RPUSH", key + "l", "x"], ["GET", key], [rng.choice(["EXEC", "DISCARD"])]]
                else:
                    requests.append(random_request(rng))
            for words in requests:
                proxy.send(*words)
            replies = [proxy.read() for _ in requests]
            crossed = [isinstance(reply, Error) and reply.startswith("CROSSSLOT") for reply in replies]
            refused += sum(crossed)
            asked = [words for words, no in zip(requests, crossed) if not no]
            for words in asked:
                single.send(*words)
            want = [single.read() for _ in asked]
            got = [reply for reply, no in zip(replies, crossed) if not no]
            for words, mine, its in zip(asked, got, want):
                assert comparable(words, mine) == comparable(words, its), f"seed {seed}: {words}"
    assert 100 < refused < 4000
    oracle.terminate()


# ---------------------------------------------------------------------------------------------------- failures

def primaries(cluster):
    return [node for node in cluster.live() if cluster.role(node) == "master"]


def test_subscribers_survive_the_nodes(setup):
    """Every primary dies once; the subscriber keeps its connection and hears what is published later."""
    cluster, proxy = setup
    cluster.wait_whole()
    with Wire(proxy) as listener:
        listener.send("SUBSCRIBE", "news", "other")
        listener.send("PSUBSCRIBE", "n*")
        assert [listener.read()[0] for _ in range(3)] == [b"subscribe", b"subscribe", b"psubscribe"]
        listener.send("UNSUBSCRIBE", "other")
        assert listener.read() == [b"unsubscribe", b"other", 2]
        client = proxy.new_client(socket_timeout=40)
        for _ in range(len(primaries(cluster))):
            victim = primaries(cluster)[0]
            victim.kill()
            wait_for("the failover", lambda: len(primaries(cluster)) == 3, 30)
            victim.start()
            cluster.wait_whole()
            time.sleep(1)
            client.publish("other", "no")
            client.publish("news", "yes")
            got = [listener.read(), listener.read()]
            assert sorted(got, key=len) == [[b"message", b"news", b"yes"], [b"pmessage", b"n*", b"news", b"yes"]]
        listener.send("PING")
        assert listener.read() == [b"pong", b""]
        client.close()


def test_a_stopped_primary_is_left_when_another_takes_over(setup):
    cluster, proxy = setup
    cluster.wait_whole()
    victim = primaries(cluster)[0]
    slot = min(min(line.slots) for line in cluster_nodes(victim).values() if "myself" in line.flags)
    key = f"{{{tag_of_slot(slot)}}}stopped"
    client = proxy.new_client(socket_timeout=40)
    client.set(key, 1)
    time.sleep(1.2)
    victim.pause()
    try:
        assert client.get(key) == b"1"  # waits for the new primary
        assert client.set(key, 2)
    finally:
        victim.resume()
    cluster.wait_whole()
    assert client.get(key) == b"2"
    client.close()


# ---------------------------------------------------------------------------------------------------- strange nodes

class FakeNode:
    """Answers CLUSTER SLOTS with itself, and everything else with what the test wants."""
    QUESTION = b"*3\r\n$6\r\nCLIENT\r\n$9\r\nCROSSSLOT\r\n$2\r\nON\r\n"

    def __init__(self, servers):
        self.port = covey.free_port()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.reply, self.seen = b"", []
        servers.undo.append(self.close)
        threading.Thread(target=self.serve, daemon=True).start()

    def close(self):
        self.listener.close()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection):
        with connection:
            while True:
                try:
                    data = connection.recv(100000)
                except OSError:
                    return
                if not data:
                    return
                if b"CLUSTER" in data:
                    connection.sendall(b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n" % self.port)
                    continue
                for at, requests in enumerate(data.split(self.QUESTION)):
                    if at:
                        connection.sendall(b"-ERR unknown subcommand\r\n")
                    if not requests:
                        continue
                    self.seen.append(requests)
                    reply = self.reply
                    if reply is None:
                        return
                    connection.sendall(reply * max(1, requests.count(b"*")))


@pytest.fixture
def fake(servers):
    node = FakeNode(servers)
    return node, Proxy(servers, [f"127.0.0.1:{node.port}"], failover_hold_timeout=800, workers=1)


@pytest.mark.parametrize("reply", [b"garbage\r\n", b"$abc\r\n", b"*2\r\n:1\r\n?", b"$5\r\nabcdefgh", b":1\r\n:2\r\n",
                                   b"*99999999999\r\n", b"$-7\r\n", b"*1\r\n" * 100])
def test_garbage_from_a_node(fake, reply):
    node, proxy = fake
    client = proxy.new_client()
    node.reply = reply
    if reply == b":1\r\n:2\r\n":  # one reply too many
        assert client.incr("a") == 1
    else:
        with pytest.raises(redis.ResponseError, match="may or may not have been executed"):
            client.set("a", 1)
        with pytest.raises(redis.ResponseError, match="was not available in time"):
            client.get("a")
    node.reply = b"+OK\r\n"
    assert wait_for("the node to be used again", lambda: client.set("a", 1))
    client.close()


def test_a_reply_that_never_ends(servers):
    node = FakeNode(servers)
    node.reply = b"*2\r\n:1\r\n$100\r\nabc"
    proxy = Proxy(servers, [f"127.0.0.1:{node.port}"], workers=1, node_timeout=500)
    client = proxy.new_client()
    with pytest.raises(redis.ResponseError, match="may or may not have been executed"):
        client.set("a", 1)
    client.close()


def test_what_is_retried_and_what_is_not(fake):
    node, proxy = fake
    client = proxy.new_client()
    node.reply = None  # closes
    with pytest.raises(redis.ResponseError, match="may or may not"):
        client.set("a", 1)
    assert len([data for data in node.seen if b"SET" in data]) == 1, "a write whose fate is unknown is not sent again"
    threading.Timer(0.3, lambda: setattr(node, "reply", b"$1\r\nx\r\n")).start()
    assert client.get("a") == b"x"
    assert len([data for data in node.seen if b"GET" in data]) > 1
    for word in (b"-LOADING Redis is loading", b"-CLUSTERDOWN The cluster is down", b"-TRYAGAIN Multiple keys",
                 b"-READONLY You can't write", b"-MOVED 1 127.0.0.1:%d" % node.port):
        node.reply = word + b"\r\n"
        threading.Timer(0.2, lambda: setattr(node, "reply", b"+OK\r\n")).start()
        assert client.set("a", 1), word
    node.reply = b"-CLUSTERDOWN for ever\r\n"
    with pytest.raises(redis.ResponseError, match="was not executed"):
        client.set("a", 1)
    client.close()


def test_waiting_is_bounded(servers, fake):
    node, _ = fake
    proxy = Proxy(servers, [f"127.0.0.1:{node.port}"], workers=1, failover_hold_timeout=3000, failover_hold_requests=10)
    node.reply = b"-CLUSTERDOWN\r\n"
    clients = [proxy.raw(20) for _ in range(30)]
    for client in clients:
        client.sendall(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n")
    texts = [client.recv(1000) for client in clients]
    assert sum(b"too many requests wait" in text for text in texts) >= 15
    assert all(text.startswith(b"-ERR") for text in texts)
    for client in clients:
        client.close()


def test_password_for_clients_and_for_nodes(servers):
    node = servers.node("redis", requirepass="secret", wait=False)
    wait_for("the node to listen", lambda: node.raw().close() is None)
    proxy = Proxy(servers, [node], wait=False, requirepass="front", node_password="secret")
    with pytest.raises(redis.AuthenticationError):
        proxy.new_client().get("a")
    with pytest.raises(redis.RedisError, match="WRONGPASS"):
        proxy.new_client(password="wrong").get("a")
    client = proxy.new_client(password="front")
    assert client.set("a", 1) and client.get("a") == b"1"  # a node without cluster mode has all slots
    assert client.mget("a", "b") == [b"1", None]
    client.close()


def test_settings(servers, tmp_path):
    covey.server_command("covey")
    with pytest.raises(TestFailure, match="--cluster: is needed"):
        covey.run([covey.COVEY_BIN, "proxy"])
    with pytest.raises(TestFailure, match="no such setting"):
        covey.run([covey.COVEY_BIN, "proxy", "--bogus", "1"])
    with pytest.raises(TestFailure, match="not a possible value"):
        covey.run([covey.COVEY_BIN, "proxy", "--cluster", "nonsense"])
    assert "--failover-hold-timeout" in covey.run([covey.COVEY_BIN, "proxy", "--help"])
    node = servers.node("redis")
    path = tmp_path / "proxy.conf"
    path.write_text(f"# settings\n\ncluster {node.address}\nmaxclients 3\nworkers 1\n")
    proxy = Proxy(servers, [node])
    proxy.terminate()
    proxy.command = lambda: [covey.COVEY_BIN, "proxy", str(path), "--listen", f"127.0.0.1:{proxy.port}"]
    proxy.start()
    assert proxy.config_get("maxclients") == "3"
    proxy.drop_client()
    time.sleep(0.2)
    some = [proxy.raw() for _ in range(4)]
    some[3].settimeout(5)
    assert some[3].recv(100) == b"-ERR max number of clients reached\r\n"
    for one in some:
        one.close()
    assert proxy.terminate() == 0
