"""Reads that wait until what they show is safe: min-replicas-to-ack-reads."""
import random
import time

import pytest

from covey import key_slot, wait_for, wait_in_sync
from history import Reader
from test_noloss import held, pair
from test_noloss_cluster import members_ready, shard_of_three, tag_on
from wire import Error, Wire


def waiting_pair(servers, replica_kind="covey", timeout=60_000, **options):
    primary, *replicas = pair(servers, replica_kind, **options)
    primary.cmd("CONFIG", "SET", "min-replicas-to-ack", 1, "min-replicas-to-ack-reads", "yes", "min-replicas-to-ack-timeout", timeout)
    return (primary, *replicas)


@pytest.mark.sanitizer
@pytest.mark.parametrize("replica_kind", ["covey", "redis"])
def test_a_read_waits_for_the_write_that_it_shows(servers, replica_kind):
    primary, replica = waiting_pair(servers, replica_kind)
    writer, reader, free, other = (Wire(primary) for _ in range(4))
    assert writer("SET", "a", 1) == "OK" and writer("SET", "b", 1) == "OK" and reader("GET", "a") == b"1"
    assert free("CLIENT", "MIN-REPLICAS-TO-ACK", 0) == "OK"
    replica.pause()
    writer.send("SET", "a", 2)
    assert wait_for("the write", lambda: free("GET", "a") == b"2"), "whoever waits for no replica reads at once"
    reader.send("GET", "a")
    reader.send("PING")
    assert reader.silent()
    assert other("GET", "b") == b"1" and other("GET", "nothing") is None, "nothing is outstanding in these slots"
    wait_for("both replies", lambda: held(primary) == 2)
    # What is known to be safe in any slot is not made to wait by a write that asks for nothing either.
    assert free("SET", "c", 1) == "OK"
    other.send("GET", "c")
    assert other.silent()
    replica.resume()
    assert writer.read() == "OK" and reader.many(2) == [b"2", "PONG"] and other.read() == b"1"
    assert held(primary) == 0


@pytest.mark.sanitizer
def test_every_kind_of_read_waits(servers):
    primary, replica = waiting_pair(servers)
    setup = Wire(primary)
    for words in (("RPUSH", "list", 3, 1, 2), ("SET", "w_1", 5), ("SET", "gone", 1), ("SET", "old", 1)):
        setup(*words)
    sleeper, popper = Wire(primary), Wire(primary)
    sleeper.send("XREAD", "BLOCK", 0, "STREAMS", "stream", "$")
    popper.send("BLPOP", "queue", 0)
    wait_for("the sleepers", lambda: primary.stat("blocked_clients", "clients") == 2)
    replica.pause()
    writes = [("SET", "a", 2), ("DEL", "gone"), ("RPUSH", "list", 9), ("SET", "w_3", 7), ("XADD", "stream", "1-1", "f", "v"),
              ("RPUSH", "queue", "x"), ("MULTI",), ("SET", "old", 2), ("SET", "other", 2), ("EXEC",),
              ("EVAL", "redis.call('set', 'undeclared', 2)", 0)]
    writer = Wire(primary)
    for words in writes:
        writer.send(*words)
    look = Wire(primary)
    look("CLIENT", "MIN-REPLICAS-TO-ACK", 0)
    wait_for("the writes", lambda: look("GET", "undeclared") == b"2")
    script = "return redis.call('get', KEYS[1])"
    many = [f"m{n}" for n in range(20)]
    reads = [
        (("GET", "a"), b"2"), (("GET", "gone"), None), (("EXISTS", "gone"), 0), (("STRLEN", "a"), 1), (("TYPE", "a"), "string"),
        (("MGET", "nothing", "a"), [None, b"2"]), (("MGET", *many, "a"), [None] * 20 + [b"2"]), (("SETNX", "a", 3), 0),
        (("SET", "a", 3, "NX", "GET"), b"2"), (("LPOP", "gone"), None), (("INCR", "list"), "WRONGTYPE"), (("OBJECT", "ENCODING", "a"), b"int"),
        (("EVAL", script, 1, "a"), b"2"), (("EVAL_RO", script, 1, "a"), b"2"), (("EVAL", "return redis.call('get', 'old')", 0), b"2"),
        (("EVAL", "return redis.call('dbsize')", 0), 8), (("DBSIZE",), 8), (("RANDOMKEY",), bytes), (("KEYS", "undeclared"), [b"undeclared"]),
        (("SCAN", 0, "COUNT", 1000), list), (("SORT", "list"), [b"1", b"2", b"3", b"9"]), (("SORT_RO", "list", "BY", "w_*"), list),
        (("XLEN", "stream"), 1), (("XREAD", "STREAMS", "stream", 0), list), (("GET", "other"), b"2"), (("GET", "old"), b"2"),
        (("GET", "undeclared"), b"2"), (("LLEN", "queue"), 0), (("GETEX", "a"), b"2")]
    wires = []
    for words, _ in reads:
        wires.append(Wire(primary))
        wires[-1].send(*words)
    exec_ = Wire(primary)
    assert exec_("MULTI") == "OK" and exec_("GET", "a") == exec_("GET", "nothing") == "QUEUED"
    exec_.send("EXEC")
    wait_for("all to wait", lambda: held(primary) >= len(reads) + 1 + 2 + 7, 20)
    time.sleep(0.1)
    for (words, _), wire in zip(reads, wires):
        assert wire.silent(0.001), f"{words} was answered"
    assert exec_.silent(0.001) and sleeper.silent(0.001) and popper.silent(0.001)
    replica.resume()
    for (words, expected), wire in zip(reads, wires):
        reply = wire.read()
        if expected == "WRONGTYPE":
            assert isinstance(reply, Error) and reply.startswith("WRONGTYPE")
        else:
            assert isinstance(reply, expected) if isinstance(expected, type) else reply == expected, (words, reply)
    assert exec_.read() == [b"2", None] and popper.read() == [b"queue", b"x"]
    assert sleeper.read() == [[b"stream", [[b"1-1", [b"f", b"v"]]]]]
    assert len(writer.many(len(writes))) == len(writes) and held(primary) == 0
    # All is at the replica: nobody waits any more.
    replica.pause()
    for words, expected in reads:
        if words[0] in ("GET", "MGET", "DBSIZE", "SCAN", "SORT"):
            assert isinstance(reply := look(*words), expected if isinstance(expected, type) else type(expected)), reply
    strict = Wire(primary)
    assert strict("GET", "a") == b"2" and strict("DBSIZE") == 8 and strict("EVAL", script, 1, "old") == b"2"
    replica.resume()


def test_expired_evicted_and_flushed(servers):
    primary, replica = waiting_pair(servers)
    reader, look, writer = Wire(primary), Wire(primary), Wire(primary)
    look("CLIENT", "MIN-REPLICAS-TO-ACK", 0)
    assert writer("SET", "a", 1) == writer("SET", "b", 1) == "OK"
    replica.pause()
    writer.send("PEXPIRE", "a", 100)
    expired = lambda: primary.stat("expired_keys", "stats") == 1
    wait_for("the key to be deleted", lambda: look("GET", "a") is None and expired())
    reader.send("GET", "a")
    assert reader.silent(0.3)
    replica.resume()
    assert reader.read() is None and writer.read() == 1
    replica.pause()
    writer.send("FLUSHALL")
    wait_for("the flush", lambda: look("DBSIZE") == 0)
    reader.send("GET", "b")
    assert reader.silent(0.3)
    replica.resume()
    assert reader.read() is None and writer.read() == "OK"


def test_a_read_that_waits_too_long_becomes_an_error(servers):
    primary, replica = waiting_pair(servers, timeout=400)
    wire, reader = Wire(primary), Wire(primary)
    assert wire("SET", "a", 0) == "OK" and wire("SET", "b", 1) == "OK"
    replica.pause()
    wire.send("SET", "a", 1)
    wait_for("the write", lambda: held(primary) == 1 or primary.stat("held_replies_failed", "replication"))
    reader.send("GET", "a")
    reader.send("GET", "b")
    first, second = reader.many(2)
    assert first == "NOACK 1 replicas did not acknowledge in time what was read (min-replicas-to-ack-timeout): it may or may not be kept"
    assert isinstance(first, Error) and second == b"1"
    assert wire.read().startswith("NOACK The write")
    replica.kill()
    refused = lambda: (r := reader("GET", "a")).startswith("NOREPLICAS ") and r
    assert wait_for("a refusal", refused) == "NOREPLICAS Not enough good replicas to read what was written last."
    assert reader("GET", "b") == b"1", "what is safe is read without any replica"
    began = time.monotonic()
    assert reader("EVAL", "return redis.call('get', 'a')", 0).startswith("NOREPLICAS ")
    assert time.monotonic() - began < 5


def test_the_option_is_live(servers):
    primary, replica = pair(servers)
    primary.cmd("CONFIG", "SET", "min-replicas-to-ack", 1, "min-replicas-to-ack-timeout", 60_000)
    writer, reader = Wire(primary), Wire(primary)
    assert writer("SET", "a", 1) == "OK"
    replica.pause()
    writer.send("SET", "a", 2)
    wait_for("the write", lambda: reader("GET", "a") == b"2")
    # What was written before somebody asked counts as outstanding.
    primary.cmd("CONFIG", "SET", "min-replicas-to-ack-reads", "yes")
    assert primary.config_get("min-replicas-to-ack-reads") == "yes"
    reader.send("GET", "b")
    reader.send("GET", "a")
    assert reader.silent()
    off = Wire(primary)
    off("CONFIG", "SET", "min-replicas-to-ack-reads", "no")
    assert off("GET", "a") == b"2"
    replica.resume()
    assert reader.many(2) == [None, b"2"] and writer.read() == "OK"


def test_roles_and_restarts(servers):
    """A reply that is held when the role is lost becomes an error.  What a promoted replica has taken over, and what was
    loaded, is not known to be safe: it is read once a replica has it."""
    primary, replica = waiting_pair(servers, appendonly="yes")
    replica.cmd("CONFIG", "SET", "min-replicas-to-ack", 1, "min-replicas-to-ack-reads", "yes")
    writer, reader = Wire(primary), Wire(primary)
    assert writer("SET", "a", 1) == "OK"
    assert Wire(replica)("GET", "a") == b"1", "replicas answer at once"
    replica.pause()
    writer.send("SET", "a", 2)
    wait_for("the write", lambda: held(primary) == 1)
    reader.send("GET", "a")
    assert reader.silent() and writer.silent()
    primary.cmd("REPLICAOF", "127.0.0.1", 1)
    assert reader.read() == "NOACK This node ceased to be the primary before what was read was safe: it may or may not be kept"
    replica.resume()
    replica.cmd("REPLICAOF", "NO", "ONE")
    at_new = Wire(replica)
    assert at_new("GET", "a").startswith("NOREPLICAS ")
    primary.cmd("REPLICAOF", replica.host, replica.port)
    wait_for("the old primary to follow", lambda: at_new("GET", "a") in (b"1", b"2"), 20)
    primary.cmd("REPLICAOF", "NO", "ONE")
    primary.kill()
    primary.start(min_replicas_to_ack=1, min_replicas_to_ack_reads="yes")
    alone = Wire(primary)
    assert alone("GET", "a").startswith("NOREPLICAS ")
    replica.cmd("REPLICAOF", primary.host, primary.port)
    wait_in_sync(primary, replica)
    assert wait_for("a read", lambda: not isinstance(r := alone("GET", "a"), Error) and r, 20) in (b"1", b"2")


def test_pipelines_stay_full(servers):
    """Readers and writers of the same slots, pipelined; each reply in its place, and never one that goes back."""
    primary, replica = waiting_pair(servers, workers=2)
    writer, reader = Wire(primary), Wire(primary)
    count, seen = 20_000, 0
    for first in range(0, count, 500):
        writer.sock.sendall(b"".join(b"*3\r\n$3\r\nSET\r\n$1\r\nn\r\n$%d\r\n%d\r\n" % (len(str(n)), n) for n in range(first, first + 500)))
        reader.sock.sendall(b"*2\r\n$3\r\nGET\r\n$1\r\nn\r\n" * 500)
        assert writer.many(500) == ["OK"] * 500
        for reply in reader.many(500):
            value = int(reply or 0)
            assert value >= seen
            seen = value
    assert int(replica.cmd("GET", "n")) == count - 1 and held(primary) == 0


@pytest.mark.parametrize("reads", ["no", "yes"])
def test_what_was_read_survives_a_failover(servers, reads):
    """A write that no replica gets, a reader, a killed primary: the same schedule with and without the option.  Without it
    the reader has seen what is gone, so a checker that finds nothing with it means something."""
    rounds = 2
    cluster = shard_of_three(servers, min_replicas_to_ack_reads=reads, min_replicas_to_ack_timeout=30_000)
    rng = random.Random(seed := random.randrange(1 << 32))
    dirty = read = 0
    for number in range(rounds):
        primary = next(n for n in cluster.primaries() if cluster.replicas_of(n))
        replicas = cluster.replicas_of(primary)
        wait_for("members", lambda: members_ready(primary), 20)
        tag = tag_on(primary).decode()
        reader = Reader(cluster, key_slot("{" + tag + "}list"), number, "{" + tag + "}list")
        wire = Wire(primary)
        for n in range(50):
            assert isinstance(wire("RPUSH", "{" + tag + "}list", f"{number}:{n}"), int)
        wait_for("the reader", lambda: reader.seen)
        for replica in replicas:
            replica.pause()
        # More than the sockets' buffers take, so that what follows does not reach the replicas.
        for n in range(24):
            wire.send("SET", "{" + tag + "}large", b"x" * (1 << 20))
        for n in range(50, 80):
            wire.send("RPUSH", "{" + tag + "}list", f"{number}:{n}")
        assert wire.silent(rng.uniform(0.1, 0.3))
        if reads == "no":
            last = b"%d:79" % number
            wait_for("the reader to see what nobody was told of", lambda: last in reader.seen)
        else:
            time.sleep(0.5)
        primary.kill()
        for replica in replicas:
            replica.resume()
        wait_for("a successor", lambda: any(cluster.role(r) == "master" for r in replicas), 30)
        primary.start()
        cluster.wait_whole(timeout=60)
        reader.stop()
        read += len(reader.seen)
        dirty += len(reader.missing())
    print(f"min-replicas-to-ack-reads {reads}: {read} values read, {dirty} of them gone after {rounds} failovers; seed {seed}")
    assert read >= rounds
    assert dirty > 0 if reads == "no" else dirty == 0
