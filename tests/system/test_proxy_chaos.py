"""Faults behind and inside `covey proxy` while fifty plain clients work, each with counters and texts of its own.

Every operation is answered, refused with an error that says that it did not happen, or its fate is unknown.  Unknown may be
what was under way at the fault, one request a connection; everything else is to be answered, however long it takes.  What
was answered has happened once, what is unknown at most once: replies and the keys at the end are held against that."""
import collections
import random
import signal
import socket
import threading
import time

import pytest

import covey
from covey import cluster_nodes, wait_for
from proxying import Proxy
from wire import Closed, Error, Wire

CLIENTS = 50
TOKEN = 8  # bytes of one entry in a text
MOVED = 4096 if covey.LONG else 512  # slots


class Counted:
    """How often something has been done to a key: between low and high."""

    def __init__(self):
        self.low = self.high = 0

    def answered(self, value):
        """After one more; a later value that shows another number is a fault."""
        right = self.low + 1 <= value <= self.high + 1
        self.low = self.high = value
        return right

    def unknown(self):
        self.high += 1


class Operator(threading.Thread):
    """One connection: INCR, APPEND, both in a transaction, and reads, one at a time."""

    def __init__(self, load, number):
        super().__init__(daemon=True)
        self.load, self.number = load, number
        self.keys = [f"{{chaos:{number}:{n}}}" for n in range(4)]
        self.counts = {key: (Counted(), Counted()) for key in self.keys}
        self.serial = 0
        self.start()

    def token(self):
        self.serial += 1
        return b"%07d;" % self.serial

    def run(self):
        rng = random.Random(self.number)
        while not self.load.stopped:
            try:
                with Wire(self.load.proxy, timeout=90) as wire:
                    while not self.load.stopped:
                        began = time.monotonic()
                        self.operate(wire, rng)
                        self.load.took(began)
            except (OSError, Closed) as error:
                self.load.saw("errors", f"connection lost: {error!r}")
                time.sleep(0.1)

    def operate(self, wire, rng):
        key = rng.choice(self.keys)
        counter, text = self.counts[key]
        kind = rng.randrange(5)
        if kind < 2:
            self.judge("INCR", wire("INCR", key + "n"), [counter], lambda reply: [reply])
        elif kind == 2:
            self.judge("APPEND", wire("APPEND", key + "t", self.token()), [text], lambda reply: [reply // TOKEN])
        elif kind == 3:
            wire.sock.sendall(b"".join(covey_request(*words) for words in (
                ("MULTI",), ("INCR", key + "n"), ("APPEND", key + "t", self.token()), ("EXEC",))))
            reply = wire.many(4)[3]
            self.judge("EXEC", reply, [counter, text], lambda reply: [reply[0], reply[1] // TOKEN])
        else:
            reply = wire("GET", key + "n")
            value = 0 if reply is None else reply if isinstance(reply, Error) else int(reply)
            if isinstance(value, Error):
                self.load.error("GET", value)
            elif counter.low <= value <= counter.high:
                self.load.saw("answered")
            else:
                self.load.saw("wrong", f"GET {key}n: {value}, not {counter.low} to {counter.high}")

    def judge(self, name, reply, counted, values):
        if isinstance(reply, Error):
            if self.load.error(name, reply):
                for each in counted:
                    each.unknown()
            return
        self.load.saw("answered")
        for each, value in zip(counted, values(reply)):
            before = (each.low, each.high)
            if not each.answered(value):
                self.load.saw("wrong", f"{name}: {value} after {before}")

    def check(self, client):
        for key, (counter, text) in self.counts.items():
            value, tokens = int(client.get(key + "n") or 0), client.get(key + "t") or b""
            if not counter.low <= value <= counter.high:
                self.load.saw("wrong", f"at the end {key}n is {value}, not {counter.low} to {counter.high}")
            entries = tokens.split(b";")[:-1]
            if not text.low <= len(entries) <= text.high or len(tokens) % TOKEN or len(set(entries)) != len(entries):
                self.load.saw("wrong", f"at the end {key}t has {len(entries)} entries, not {text.low} to {text.high}, or some twice")


def covey_request(*words):
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


class Load:
    """The clients, and what became of their operations."""

    def __init__(self, proxy, clients=CLIENTS):
        self.proxy, self.stopped = proxy, False
        self.lock = threading.Lock()
        self.counts, self.notes = collections.Counter(), collections.defaultdict(collections.Counter)
        self.longest = 0
        client = proxy.new_client()
        client.flushall()
        client.close()
        self.operators = [Operator(self, number) for number in range(clients)]

    def saw(self, what, note=None):
        with self.lock:
            self.counts[what] += 1
            if note:
                self.notes[what][note] += 1

    def error(self, name, reply):
        """True: it may have happened."""
        unknown = "may or may not have been executed" in reply
        self.saw("unknown" if unknown else "refused" if reply.endswith("was not executed") else "errors", f"{name}: {reply}")
        return unknown

    def took(self, began):
        with self.lock:
            self.longest = max(self.longest, time.monotonic() - began)

    def flow(self, seconds=0.5):
        """Operations go on."""
        before = self.counts["answered"]
        time.sleep(seconds)
        wait_for("operations to be answered", lambda: self.counts["answered"] > before + 2 * CLIENTS, 30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.stopped = True
        for operator in self.operators:
            operator.join(100)
            assert not operator.is_alive(), "a client waits for ever"

    def end(self, what, unknown=CLIENTS, wrong=0):
        self.stop()
        client = self.proxy.new_client()
        for operator in self.operators:
            operator.check(client)
        client.close()
        print(f"{what}: {self.counts['answered']} answered, {self.counts['refused']} refused, {self.counts['unknown']} unknown, "
              f"{self.counts['errors']} errors; longest pause {1000 * self.longest:.0f} ms")
        assert self.counts["wrong"] <= wrong and not self.counts["errors"] and not self.counts["refused"], dict(self.notes)
        assert self.counts["unknown"] <= unknown, dict(self.notes)
        assert self.counts["answered"] > 500


BOTH = pytest.mark.parametrize("setup", ["covey", "redis"], indirect=True, scope="module")
COVEY = BOTH if covey.LONG else pytest.mark.parametrize("setup", ["covey"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def setup(request, module_servers):
    cluster = module_servers.cluster([request.param] * 6, replicas=1)
    return cluster, Proxy(module_servers, cluster.nodes[:2], refresh_period=500)


def primaries(cluster):
    return [node for node in cluster.live() if cluster.role(node) == "master"]


def in_sync(cluster):
    for primary, replicas in cluster.pairs():
        covey.wait_in_sync(primary, *replicas)


@BOTH
def test_kill_9_of_a_primary(setup):
    cluster, proxy = setup
    in_sync(cluster)
    victim, (replica,) = cluster.pairs()[0]
    with Load(proxy) as load:
        load.flow()
        victim.kill()
        cluster.wait_primary(replica)
        load.flow(1)
        load.end("kill -9 of a primary")
    assert proxy.client.info("all")["held_requests"] == 0
    victim.start()
    cluster.wait_replica_of(victim, replica)
    cluster.wait_whole()


@BOTH
def test_a_primary_is_stopped(setup):
    cluster, proxy = setup
    in_sync(cluster)
    victim, (replica,) = cluster.pairs()[0]
    with Load(proxy) as load:
        load.flow()
        victim.pause()
        try:
            cluster.wait_primary(replica)
            load.flow(1)
        finally:
            victim.resume()
        load.flow(0.5)  # it comes back and is a primary no more
        # redis-server answers clients before it writes to its replica: what a turn of it answered may be lost.
        load.end("SIGSTOP of a primary", wrong=4 * CLIENTS if victim.kind == "redis" else 0)
    cluster.wait_replica_of(victim, replica)
    cluster.wait_whole()


def move_slots(cluster, source, target, slots):
    """What redis-cli --cluster reshard does, many slots at a time."""
    others = [node for node in primaries(cluster) if node not in (source, target)]

    def each(node, part, make):
        pipe = node.client.pipeline(transaction=False)
        for slot in part:
            pipe.execute_command(*make(slot))
        return pipe.execute()
    for at in range(0, len(slots), 128):
        part = slots[at:at + 128]
        each(target, part, lambda slot: ("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id))
        each(source, part, lambda slot: ("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id))
        for keys in each(source, part, lambda slot: ("CLUSTER", "GETKEYSINSLOT", slot, 1000)):
            if keys:
                assert source.cmd("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys) in (b"OK", b"NOKEY")
        for node in (target, source, *others):
            each(node, part, lambda slot: ("CLUSTER", "SETSLOT", slot, "NODE", target.id))


@BOTH
def test_resharding(setup):
    cluster, proxy = setup
    in_sync(cluster)
    source, target = primaries(cluster)[:2]
    slots = cluster_nodes(source)[source.id].slots
    with Load(proxy) as load:
        load.flow()
        move_slots(cluster, source, target, sorted(slots)[:MOVED])
        load.flow()
        load.end(f"resharding of {MOVED} slots", unknown=0)
    cluster.wait_whole()


@COVEY
def test_rolling_restart_of_the_nodes(setup):
    """As it is done: replicas first; a primary hands over before it ends."""
    cluster, proxy = setup
    in_sync(cluster)
    with Load(proxy) as load:
        load.flow()
        for primary, (replica,) in cluster.pairs():
            restart(cluster, replica, primary)
            wait_for("the hand-over to begin", lambda: replica.cmd("CLUSTER", "FAILOVER"))
            cluster.wait_primary(replica)
            cluster.wait_replica_of(primary, replica)
            restart(cluster, primary, replica)
        load.flow()
        load.end("rolling restart of six nodes")
    cluster.wait_whole()


def restart(cluster, replica, primary):
    replica.terminate()
    replica.start()
    cluster.wait_replica_of(replica, primary)
    covey.wait_in_sync(primary, replica)


class Waiter(threading.Thread):
    """A worker of a queue with a list of its own, which another connection fills: every element comes once and in order, but
    for one that was under way when its connection ended."""

    def __init__(self, load, number):
        super().__init__(daemon=True)
        self.load, self.key, self.pushed, self.taken = load, f"{{waiter:{number}}}", 0, []
        self.pusher = threading.Thread(target=self.push, daemon=True)
        self.start()
        self.pusher.start()

    def push(self):
        with Wire(self.load.proxy, timeout=90) as wire:
            while not self.load.stopped:
                reply = wire("RPUSH", self.key, self.pushed)
                if isinstance(reply, Error):
                    self.load.error("RPUSH", reply)
                self.pushed += 1
                time.sleep(0.02)

    def run(self):
        while not self.load.stopped:
            try:
                with Wire(self.load.proxy, timeout=90) as wire:
                    while not self.load.stopped:
                        reply = wire("BLPOP", self.key, 1)
                        if isinstance(reply, Error):
                            self.load.saw("errors", f"BLPOP: {reply}")
                        elif reply:
                            self.taken.append(int(reply[1]))
                            self.load.saw("answered")
            except (OSError, Closed):
                self.load.saw("unknown", "BLPOP: hung up on")

    def finish(self):
        self.join(30)
        self.pusher.join(30)
        assert self.taken == sorted(set(self.taken)), "elements twice, or not in their order"
        return self.pushed - len(self.taken)


@COVEY
def test_waiting_clients_when_a_primary_dies(setup):
    cluster, proxy = setup
    in_sync(cluster)
    victim, (replica,) = cluster.pairs()[0]
    with Load(proxy, clients=4) as load:
        waiters = [Waiter(load, number) for number in range(12)]
        load.flow()
        victim.kill()
        cluster.wait_primary(replica)
        before = [len(waiter.taken) for waiter in waiters]
        wait_for("all to get elements again", lambda: all(len(waiter.taken) > n for waiter, n in zip(waiters, before)), 20)
        load.stop()
        missing = [waiter.finish() for waiter in waiters]
        # What is still in the lists, and one that was under way at the fault.
        assert all(n <= proxy.client.llen(waiter.key) + 2 for n, waiter in zip(missing, waiters)), missing
        load.end("kill -9 under waiting clients")
    victim.start()
    cluster.wait_replica_of(victim, replica)
    cluster.wait_whole()


@COVEY
def test_hand_over_to_a_new_process(setup, module_servers, tmp_path):
    """Connections stay where they are, those that have one node for themselves too; no connect is refused."""
    cluster = setup[0]
    old = Proxy(module_servers, cluster.nodes[:2], control_socket=tmp_path / "control")
    refused, connected, stop = [], [0, 0], threading.Event()

    def connect():
        while not stop.is_set():
            try:
                with Wire(old) as wire:
                    connected[wire("INFO", "server").find(b"process_id:%d\r" % old.pid) < 0] += 1
            except (OSError, Closed) as error:
                refused.append(repr(error))
    with Load(old) as load, Wire(old) as waiter, Wire(old) as listener, Wire(old) as watcher:
        waiter.send("BLPOP", "handed", 0)
        assert listener("SUBSCRIBE", "handed")[0] == b"subscribe"
        assert watcher("WATCH", "{chaos:0:0}n") == "OK"
        connector = threading.Thread(target=connect, daemon=True)
        connector.start()
        load.flow(0.3)
        new = Proxy(module_servers, cluster.nodes[:2], wait=False, port=old.port, take_over=tmp_path / "control")
        wait_for("the new process to have the new clients", lambda: connected[1] > 20, 20)
        load.flow(0.3)
        stop.set()
        connector.join(20)
        with Wire(old) as other:
            assert other("RPUSH", "handed", "x") == 1 and waiter.read() == [b"handed", b"x"]
            assert other("PUBLISH", "handed", "y") >= 0 and listener.read() == [b"message", b"handed", b"y"]
        assert watcher("MULTI") == "OK" and watcher("PING") == "QUEUED" and isinstance(watcher("EXEC"), (list, type(None)))
        load.end("hand-over to a new process", unknown=0)
    assert not refused, refused[:3]
    assert old.wait_exit() == 0
    assert new.client.ping() and new.terminate() == 0


class Newcomer(Operator):
    """The same with a connection for each operation."""

    def run(self):
        rng = random.Random(self.number)
        while not self.load.stopped:
            began = time.monotonic()
            try:
                with Wire(self.load.proxy, timeout=90) as wire:
                    self.operate(wire, rng)
            except (OSError, Closed) as error:
                self.load.saw("errors", f"a connection of its own: {error!r}")
            self.load.took(began)


@BOTH
@pytest.mark.parametrize("first", ["the fault", "the hand-over"])
def test_hand_over_during_a_failover(setup, module_servers, tmp_path, first):
    """A primary is killed in the moment in which another process takes over: neither those who stay with the old process nor those
    who come to the new one see more of it than a pause, and what was under way at the fault."""
    cluster = setup[0]
    in_sync(cluster)
    victim, (replica,) = cluster.pairs()[0]
    seeds = [victim, replica]  # one of them does not answer the new process
    old = Proxy(module_servers, seeds, control_socket=tmp_path / "control")
    with Load(old) as load, Wire(old) as listener, Wire(old) as watcher, Wire(old) as queue:
        load.operators += [Newcomer(load, CLIENTS + number) for number in range(8)]
        waiters = [Waiter(load, number) for number in range(12)]
        assert listener("SUBSCRIBE", "news")[0] == b"subscribe"
        key = next(k for k in (f"watched:{n}" for n in range(1000)) if covey.key_slot(k) in cluster_nodes(victim)[victim.id].slots)
        assert watcher("WATCH", key) == "OK" and queue("MULTI") == "OK" and queue("SET", key, "queued") == "QUEUED"
        load.flow()
        if first == "the fault":
            victim.kill()
        new = Proxy(module_servers, seeds, wait=False, port=old.port, take_over=tmp_path / "control")
        if first != "the fault":
            covey.wait_for("the hand-over to have begun", lambda: b"Covey proxy" in new.log_text() or b"Taken over" in new.log_text(), 10)
            victim.kill()
        cluster.wait_primary(replica)
        wait_for("the new process to have the new clients", lambda: newcomer_pid(old) == new.pid, 20)
        before = [len(waiter.taken) for waiter in waiters]
        wait_for("all to get elements again", lambda: all(len(waiter.taken) > n for waiter, n in zip(waiters, before)), 20)
        load.flow(1)
        # Those who stayed: the subscriber is told at another node; what was watched at the dead one is no more; what was only queued goes on.
        with Wire(old) as other:
            wait_for("the subscriber to have a node", lambda: other("PUBLISH", "news", "y") >= 0 and not listener.silent(0.1), 20)
            assert listener.read() == [b"message", b"news", b"y"]
        assert queue("EXEC") == ["OK"]
        assert watcher("MULTI") == "OK" and watcher("SET", key, "watched") == "QUEUED" and watcher("EXEC") is None
        assert watcher("GET", key) == b"queued"
        load.stop()
        missing = [waiter.finish() for waiter in waiters]
        client = new.new_client()
        assert all(n <= client.llen(waiter.key) + 2 for n, waiter in zip(missing, waiters)), missing
        client.close()
        load.end(f"hand-over and kill -9 of a primary, {first} first", unknown=CLIENTS + 8 + 2 * 12)
    assert old.wait_exit() == 0
    assert new.client.ping() and new.terminate() == 0
    victim.start()
    cluster.wait_replica_of(victim, replica)
    cluster.wait_whole()


def newcomer_pid(proxy):
    with Wire(proxy) as wire:
        return int(wire("INFO", "server").split(b"process_id:")[1].split()[0])


@COVEY
def test_reload(setup):
    proxy = setup[1]
    with Load(proxy) as load:
        load.flow(0.3)
        for _ in range(5):
            proxy.signal(signal.SIGHUP)
            load.flow(0.1)
        load.end("five reloads", unknown=0)
    assert proxy.alive()
