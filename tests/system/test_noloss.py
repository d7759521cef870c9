"""Replies that wait until their writes are safe: min-replicas-to-ack, and the order of stream and replies."""
import random
import time

import pytest

import covey
from covey import LONG, wait_for, wait_in_sync
from wire import Closed, Error, Wire


def pair(servers, replica_kind="covey", replicas=1, **options):
    primary = servers.node("covey", repl_ping_replica_period=1, **options)
    others = [servers.node(replica_kind, repl_ping_replica_period=1) for _ in range(replicas)]
    for replica in others:
        replica.cmd("REPLICAOF", primary.host, primary.port)
    wait_in_sync(primary, *others)
    return (primary, *others)


def held(node):
    return node.stat("held_replies", "replication")


@pytest.mark.sanitizer
@pytest.mark.parametrize("replica_kind", ["covey", "redis"])
def test_replies_wait_for_the_replica_and_nothing_else_does(servers, replica_kind):
    primary, replica = pair(servers, replica_kind)
    primary.cmd("CONFIG", "SET", "min-replicas-to-ack", 1, "min-replicas-to-ack-timeout", 60_000)
    writer, other = Wire(primary), Wire(primary)
    assert writer("SET", "a", 1) == "OK"
    assert replica.cmd("GET", "a") == b"1", "acknowledged, and not at the replica"
    replica.pause()
    writer.send("SET", "a", 2)
    writer.send("GET", "a")
    writer.send("PING")
    assert writer.silent()
    # Others, and reads, are not held up; the write was executed.
    assert other("GET", "a") == b"2"
    assert wait_for("the held reply", lambda: held(primary) == 1)
    assert writer.silent()
    replica.resume()
    assert writer.many(3) == ["OK", b"2", "PONG"]
    assert held(primary) == 0
    wait_in_sync(primary, replica)
    assert replica.cmd("GET", "a") == b"2"


def test_every_kind_of_reply_is_held(servers):
    primary, replica = pair(servers)
    primary.cmd("CONFIG", "SET", "min-replicas-to-ack", 1, "min-replicas-to-ack-timeout", 60_000)
    popper, mover, exec_, script, block, push, no_effect = (Wire(primary) for _ in range(7))
    block.send("BLPOP", "queue", 0)
    wait_for("the sleeper", lambda: primary.stat("blocked_clients", "clients") == 1)
    primary.cmd("SET", "x", 1)
    replica.pause()
    push.send("RPUSH", "queue", "one")
    exec_("MULTI")
    exec_("SET", "x", 2)
    exec_.send("EXEC")
    script.send("EVAL", "return redis.call('incr', KEYS[1])", 1, "counter")
    waiting = [block, push, exec_, script]
    assert all(w.silent(0.1) for w in waiting)
    assert no_effect("DEL", "nothing") == 0  # changes nothing, so there is nothing to wait for
    assert no_effect("GET", "counter") == b"1"
    replica.resume()
    assert block.read() == [b"queue", b"one"] and push.read() == 1
    assert exec_.read() == ["OK"] and script.read() == 1


def test_pipelines_stay_full_and_in_order(servers):
    primary, replica = pair(servers)
    primary.cmd("CONFIG", "SET", "min-replicas-to-ack", 1)
    wire = Wire(primary)
    count = 30_000
    for n in range(count):
        wire.send("INCR", "n") if n % 3 else wire.send("GET", "n")
    expected, value = [], 0
    for n in range(count):
        if n % 3:
            value += 1
            expected.append(value)
        else:
            expected.append(b"%d" % value if value else None)
    assert wire.many(count) == expected
    assert replica.cmd("GET", "n") == b"%d" % value


def test_held_replies_are_bounded(servers):
    """A client that goes on sending while nothing is acknowledged is slowed down by its own socket."""
    primary, replica = pair(servers)
    primary.cmd("CONFIG", "SET", "min-replicas-to-ack", 1, "min-replicas-to-ack-timeout", 60_000)
    replica.pause()
    wire = Wire(primary)
    wire.sock.settimeout(1)
    request, sent = b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n" * 1000, 0
    try:
        while sent < 2_000_000:
            wire.sock.sendall(request)
            sent += 1000
    except TimeoutError:
        pass
    assert sent < 2_000_000 and 0 < held(primary) < 10_000
    replica.resume()
    wire.sock.settimeout(20)
    numbers = []
    while len(numbers) < held(primary) or len(numbers) < 10_000:
        numbers.append(wire.read())
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_reply_that_waits_too_long_becomes_an_error(servers):
    primary, replica = pair(servers)
    primary.cmd("CONFIG", "SET", "min-replicas-to-ack", 1, "min-replicas-to-ack-timeout", 300)
    wire = Wire(primary)
    assert wire("SET", "a", 0) == "OK"
    replica.pause()
    wire.send("SET", "a", 1)
    wire.send("GET", "a")
    wire.send("SET", "b", 1)
    first, second, third = wire.many(3)
    assert isinstance(first, Error) and first.startswith("NOACK The write was executed, but 1 replicas did not acknowledge")
    assert second == b"1" and isinstance(third, Error) and third.startswith("NOACK ")
    assert primary.stat("held_replies_failed", "replication") == 2
    # The replica comes back: it may be kept after all, and later writes are.
    replica.resume()
    assert wait_for("an acknowledged write", lambda: wire("SET", "a", 2) == "OK")
    assert replica.cmd("GET", "a") == b"2" and replica.cmd("GET", "b") == b"1"
    # Gone for longer than that: refused before anything is executed.
    replica.kill()
    refused = wait_for("a refusal", lambda: (r := wire("SET", "a", 3)) != "OK" and r.startswith("NOREPLICAS ") and r)
    assert refused == "NOREPLICAS Not enough good replicas to write."
    value = wire("GET", "a")
    assert wire("SET", "a", 4).startswith("NOREPLICAS ") and wire("GET", "a") == value
    assert wire("EVAL", "return redis.call('set', 'a', 5)", 0).startswith("NOREPLICAS ") and wire("GET", "a") == value


def test_one_connection_may_ask_for_more_or_less(servers):
    primary, one, two = pair(servers, replicas=2)
    options = {"min-replicas-to-ack-timeout": 60_000}
    primary.cmd("CONFIG", "SET", *[w for pair_ in options.items() for w in pair_])
    strict, plain = Wire(primary), Wire(primary)
    assert strict("CLIENT", "MIN-REPLICAS-TO-ACK", 2) == "OK"
    assert strict("SET", "a", 1) == "OK" and one.cmd("GET", "a") == two.cmd("GET", "a") == b"1"
    two.pause()
    assert plain("SET", "a", 2) == "OK"
    strict.send("SET", "a", 3)
    assert strict.silent()
    primary.cmd("CONFIG", "SET", "min-replicas-to-ack", 2)
    assert plain("CLIENT", "MIN-REPLICAS-TO-ACK", 1) == "OK"
    assert plain("SET", "b", 1) == "OK" and one.cmd("GET", "b") == b"1"
    assert plain("CLIENT", "MIN-REPLICAS-TO-ACK", "DEFAULT") == "OK"
    plain.send("SET", "b", 2)
    assert plain.silent()
    two.resume()
    assert strict.read() == "OK" and plain.read() == "OK"
    for wrong in ("-1", "65", "many", ""):
        assert plain("CLIENT", "MIN-REPLICAS-TO-ACK", wrong).startswith("ERR the number of replicas")
    assert plain("RESET") == "RESET"


def test_replies_held_when_the_role_is_lost_become_errors(servers):
    primary, replica = pair(servers)
    primary.cmd("CONFIG", "SET", "min-replicas-to-ack", 1, "min-replicas-to-ack-timeout", 60_000)
    wire = Wire(primary)
    assert wire("SET", "a", 0) == "OK"
    replica.pause()
    wire.send("SET", "a", 1)
    wire.send("PING")
    assert wire.silent()
    primary.cmd("REPLICAOF", replica.host, replica.port)
    first, second = wire.many(2)
    assert isinstance(first, Error) and first.startswith("NOACK The write was executed, but this node ceased")
    assert second == "PONG" and held(primary) == 0
    replica.resume()


@pytest.mark.parametrize("replica_kind", ["covey", "redis"])
def test_what_was_acknowledged_before_a_kill_is_at_the_replica(servers, replica_kind):
    """Without waiting for acknowledgements: the stream leaves before the replies of the same turn."""
    rounds = 100 if LONG else 12
    rng = random.Random(seed := random.randrange(1 << 32))
    acknowledged_in_all = 0
    for number in range(rounds):
        primary, replica = pair(servers, replica_kind, workers=2)
        wires = [Wire(primary) for _ in range(8)]
        counts, sent = [0] * len(wires), [0] * len(wires)
        deadline = time.monotonic() + rng.uniform(0.05, 0.4)
        while time.monotonic() < deadline:
            for i, wire in enumerate(wires):
                depth = rng.randrange(1, 30)
                wire.sock.sendall(b"".join(b"*2\r\n$4\r\nINCR\r\n$2\r\nn%d\r\n" % i for _ in range(depth)))
                sent[i] += depth
            for i, wire in enumerate(wires):
                while counts[i] < sent[i] - 15:
                    counts[i] = wire.read()
        primary.kill()
        for i, wire in enumerate(wires):
            try:
                while True:
                    counts[i] = wire.read()
            except (Closed, OSError):
                pass
        wait_for("the replica to notice", lambda: replica.info("replication")["master_link_status"] == "down")
        have = [int(replica.cmd("GET", f"n{i}") or 0) for i in range(len(wires))]
        assert all(h >= c for h, c in zip(have, counts)), \
            f"seed {seed}, round {number}: acknowledged {counts}, at the replica {have}"
        acknowledged_in_all += sum(counts)
        replica.kill()
        for wire in wires:
            wire.close()
    print(f"{rounds} kills, {acknowledged_in_all} writes acknowledged, none of them missing at the replica, seed {seed}")
