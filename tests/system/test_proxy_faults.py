"""covey proxy and nodes that refuse, load, are slow or dead: what is retried, what is not, and who has to wait."""
import contextlib
import select
import socket
import threading
import time

import pytest

import covey
from covey import key_slot
from test_proxy import Proxy
from wire import Error, Wire

if covey.COVEY_IS_REDIS:
    pytest.skip("the proxy is Covey's", allow_module_level=True)


class Actor:
    """A node of a cluster of two: answers each request with what play(words) returns; None: nothing, ever."""

    def __init__(self, servers, play=None):
        self.port = covey.free_port()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.play = play or (lambda words: b"+OK\r\n")
        self.map, self.seen = [(0, 16383, self.port)], []
        servers.undo.append(self.close)
        threading.Thread(target=self.serve, daemon=True).start()

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def slots(self):
        return b"*%d\r\n" % len(self.map) + b"".join(
            b"*3\r\n:%d\r\n:%d\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n" % row for row in self.map)

    def talk(self, connection):
        data = b""
        with connection:
            while True:
                while b"\r\n" not in data or not (words := self.request(data)):
                    try:
                        piece = connection.recv(100000)
                    except OSError:
                        return
                    if not piece:
                        return
                    data += piece
                data, words = words
                if words[:2] == [b"CLUSTER", b"SLOTS"]:
                    reply = self.slots()
                elif words[0] == b"CONFIG":
                    reply = b"*0\r\n"
                else:
                    self.seen.append(words)
                    reply = self.play(words)
                if reply is not None:
                    try:
                        connection.sendall(reply)
                    except OSError:
                        return

    @staticmethod
    def request(data):
        lines = data.split(b"\r\n")
        count, at, words = int(lines[0][1:]), len(lines[0]) + 2, []
        for _ in range(count):
            end = data.find(b"\r\n", at)
            if end < 0:
                return None
            size = int(data[at + 1:end])
            if len(data) < end + 4 + size:
                return None
            words.append(data[end + 2:end + 2 + size])
            at = end + 4 + size
        return data[at:], words

    def calls(self, name):
        return [words for words in self.seen if words[0] == name]


@pytest.fixture
def actor(servers):
    return Actor(servers)


def proxy_for(servers, *nodes, **settings):
    return Proxy(servers, [node.address for node in nodes], **{"workers": 1, "failover_hold_timeout": 3000, **settings})


# ---------------------------------------------------------------------------------------------------- scripts

LOOKALIKES = ["MOVED 1 127.0.0.1:1", "ASK 1 127.0.0.1:1", "TRYAGAIN not really", "CLUSTERDOWN The cluster is down",
              "LOADING Redis is loading the dataset in memory", "MASTERDOWN gone",
              "READONLY You can't write against a read only replica.", "UNBLOCKED no"]


@pytest.mark.parametrize("kind", ["covey", "redis"])
@pytest.mark.parametrize("clustered", [False, True])
def test_a_scripts_error_is_the_scripts_own(servers, kind, clustered):
    """A script that ends with an error like a node's refusal has been executed, and is not executed again."""
    nodes = servers.cluster([kind] * 3).nodes if clustered else [servers.node(kind)]
    proxy = Proxy(servers, nodes)
    with Wire(proxy) as wire:
        script = "redis.call('INCR', KEYS[1]) return redis.error_reply(ARGV[1])"
        sha = wire("SCRIPT", "LOAD", script).decode()
        for n, text in enumerate(LOOKALIKES):
            for words in (["EVAL", script, 1, f"n{n}", text], ["EVALSHA", sha, 1, f"n{n}", text]):
                assert wire(*words) == text
            assert wire("GET", f"n{n}") == b"2", text
            assert wire("EVAL_RO", "return redis.error_reply(ARGV[1])", 1, "k", text) == text
            assert wire("EVAL", "return redis.error_reply(ARGV[1])", 0, text) == text
        for n, text in enumerate(LOOKALIKES):  # and in a pipeline: every reply in its place
            wire.send("EVAL", script, 1, f"n{n}", text)
            wire.send("GET", f"n{n}")
            wire.send("ECHO", text)
        for text in LOOKALIKES:
            assert wire.many(3) == [text, b"3", text.encode()]


def test_a_nodes_refusal_of_a_script_is_followed(servers, actor):
    refusals = {"left": 0, "text": b""}

    def play(words):
        if words[0] in (b"EVAL", b"EXISTS") and refusals["left"] > 0:
            refusals["left"] -= words[0] == b"EXISTS"
            return b"-" + refusals["text"] + b"\r\n"
        return b":7\r\n"
    actor.play = play
    with Wire(proxy_for(servers, actor)) as wire:
        for text in (b"TRYAGAIN x", b"CLUSTERDOWN Hash slot not served", b"LOADING x", b"MOVED 1 127.0.0.1:%d" % actor.port):
            actor.seen.clear()
            refusals.update(left=2, text=text)
            assert wire("EVAL", "x", 2, "{a}1", "{a}2") == 7, text
            assert len(actor.calls(b"EVAL")) == 3 and actor.calls(b"EXISTS") == [[b"EXISTS", b"{a}1", b"{a}2"]] * 2
        # a replica that was a primary: its ROLE tells
        actor.seen.clear()
        state = {"role": b"slave"}

        def replica(words):
            if words[0] == b"ROLE":
                role, state["role"] = state["role"], b"master"
                if role == b"slave":
                    return b"*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:1\r\n$7\r\nconnect\r\n:-1\r\n"
                return b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
            return b"-READONLY You can't write against a read only replica.\r\n"
        actor.play = replica
        assert wire("EVAL", "x", 1, "a").startswith("READONLY")
        assert len(actor.calls(b"EVAL")) == 2


# ---------------------------------------------------------------------------------------------------- nodes that refuse

def test_a_loading_node_is_not_asked_by_everybody(servers, actor):
    actor.play = lambda words: b"-LOADING Redis is loading the dataset in memory\r\n"
    proxy = proxy_for(servers, actor, failover_hold_timeout=10000)
    wires = [Wire(proxy) for _ in range(40)]
    for n, wire in enumerate(wires):
        wire.send("SET", f"k{n}", n)
    time.sleep(1)
    assert 0 < len(actor.calls(b"SET")) < 120, "forty requests that wait; one of them is tried now and then"
    actor.play = lambda words: b"+OK\r\n"
    started = time.monotonic()
    assert [wire.read() for wire in wires] == ["OK"] * 40
    assert time.monotonic() - started < 5  # not when their time is over
    for wire in wires:
        wire.close()


def test_slots_that_are_not_served_do_not_stop_the_others(servers, actor):
    bad = b"bad"
    actor.play = lambda words: b"-CLUSTERDOWN Hash slot not served\r\n" if words[-1] == bad else b"$1\r\nx\r\n"
    proxy = proxy_for(servers, actor, failover_hold_timeout=5000)
    with Wire(proxy) as waits, Wire(proxy, timeout=20) as goes:
        waits.send("GET", bad)
        started = time.monotonic()
        for n in range(200):
            assert goes("GET", f"k{n}") == b"x"
        assert time.monotonic() - started < 4.5
        assert "was not executed" in waits.read()


# ---------------------------------------------------------------------------------------------------- slow and dead nodes

def two(servers, **settings):
    """Two actors that share the slots; `a` is a key of the first, `b` of the second."""
    one, other = Actor(servers), Actor(servers)
    one.map = other.map = [(0, 8191, one.port), (8192, 16383, other.port)]
    a = next(str(n) for n in range(100) if key_slot(str(n)) < 8192)
    b = next(str(n) for n in range(100) if key_slot(str(n)) >= 8192)
    return one, other, a, b, proxy_for(servers, one, other, **settings)


def test_a_long_command_is_not_cut_while_its_node_is_alive(servers, actor):
    release = threading.Event()

    def play(words):
        if words[0] == b"LRANGE":
            release.wait(20)
            return b"*0\r\n"
        return b"+PONG\r\n"
    actor.play = play
    with Wire(proxy_for(servers, actor, node_timeout=1000)) as wire:
        wire.send("LRANGE", "a", 0, -1)
        assert wire.silent(4)  # four times its time
        assert actor.calls(b"PING"), "its node is asked whether it is alive"
        release.set()
        assert wire.read() == []
        assert len(actor.calls(b"LRANGE")) == 1


def test_a_node_that_answers_nobody_is_given_up(servers, actor):
    actor.play = lambda words: None
    with Wire(proxy_for(servers, actor, node_timeout=400, failover_hold_timeout=500)) as wire:
        started = time.monotonic()
        assert "may or may not have been executed" in wire("SET", "a", 1)
        assert time.monotonic() - started < 9 * covey.PATIENCE


def test_a_slow_node_stalls_nobody_else(servers):
    """Its requests wait within limits; those of another node, of other clients, go on."""
    one, other, a, b, proxy = two(servers, node_queue_bytes=1 << 20, failover_hold_timeout=2000, failover_hold_bytes="4mb")
    slow = [Wire(proxy) for _ in range(20)]
    with Wire(proxy) as quick:
        def requests():
            started = time.monotonic()
            for n in range(300):
                assert quick("SET", b, n) == "OK"
            return time.monotonic() - started
        before = requests()  # what the actor and this machine make of it
        one.play = lambda words: None
        for wire in slow:
            wire.send("SET", a, b"x" * 500_000)
        time.sleep(0.3)
        assert requests() < 3 * covey.PATIENCE + 3 * before
    assert len(one.calls(b"SET")) <= 3, "no more than a megabyte is owed by the slow one"
    # Which of them came first is the proxy's to say.
    deadline, refused = time.monotonic() + 10 * covey.PATIENCE, 0
    while refused < 14 and time.monotonic() < deadline:
        for sock in select.select([wire.sock for wire in slow], [], [], 0.5)[0]:
            wire = next(wire for wire in slow if wire.sock is sock)
            slow.remove(wire)
            text = wire.read()
            wire.close()
            assert isinstance(text, Error) and ("was not executed" in text or "may or may not" in text), text
            refused += "was not executed" in text
    assert refused >= 14
    for wire in slow:
        wire.close()


def test_a_dead_node_stalls_nobody_else(servers):
    one, other, a, b, proxy = two(servers)
    one.close()
    waiting = [Wire(proxy) for _ in range(50)]
    for wire in waiting:
        wire.send("GET", a)
    with Wire(proxy) as quick:
        started = time.monotonic()
        for n in range(500):
            assert quick("SET", b, n) == "OK"
        assert time.monotonic() - started < 3 * covey.PATIENCE
        connects = proxy.stat("node_connects", "all")
        time.sleep(1)
        assert proxy.stat("node_connects", "all") - connects < 20, "attempts to connect are spaced out"
    assert all("was not executed" in wire.read() for wire in waiting)
    for wire in waiting:
        wire.close()


def test_requests_that_wait_cost_little(servers, actor):
    """Thousands of requests for a node that is away do not keep the worker busy."""
    actor.play = lambda words: b"-CLUSTERDOWN Hash slot not served\r\n" if words[0] == b"GET" else b"+OK\r\n"
    proxy = proxy_for(servers, actor, failover_hold_timeout=6000, failover_hold_requests=50000)
    actor.close()
    waiting = [proxy.raw() for _ in range(20)]
    for sock in waiting:
        sock.sendall(b"".join(b"*2\r\n$3\r\nGET\r\n$%d\r\nk%d\r\n" % (len(str(n)) + 1, n) for n in range(900)))
    time.sleep(1)

    def cpu():
        with open(f"/proc/{proxy.pid}/stat") as stat:
            words = stat.read().rsplit(")", 1)[1].split()
        return (int(words[11]) + int(words[12])) / 100
    before = cpu()
    time.sleep(2)
    assert cpu() - before < 1.2 * covey.PATIENCE
    for sock in waiting:
        sock.close()


def test_who_subscribes_while_nodes_are_away_waits(servers, actor):
    def play(words):
        if words[0] == b"SUBSCRIBE":
            return b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
        return b"$%d\r\n%s\r\n" % (len(words[-1]), words[-1])
    actor.play = play
    actor.map = []
    proxy = proxy_for(servers, actor, refresh_period=100)
    with Wire(proxy) as wire:
        wire.send("SUBSCRIBE", "c")
        assert wire.silent(0.4)
        actor.map = [(0, 16383, actor.port)]
        assert wire.read() == [b"subscribe", b"c", 1]
