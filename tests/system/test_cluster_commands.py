"""CLUSTER, redirections and MIGRATE, line by line against redis-server.

Two servers, one of this project's and one of redis-server's, are brought into the same state and given the same lines;
the replies have to be the same once ids, ports and times are replaced by names. Replies are compared as they are on the
wire: +OK is not $2 OK, and a map is not an array.
"""
import re
import socket
import time

import pytest

from covey import PATIENCE, TestFailure, free_port, wait_for

FOO = 12182  # the slot of foo; bar's is 5061


class Wire:
    """One connection; replies as trees of (type byte, value)."""

    def __init__(self, node):
        self.sock = socket.create_connection((node.host, node.port), timeout=10 * PATIENCE)
        self.file = self.sock.makefile("rb")

    def __call__(self, line):
        words = [w.encode() for w in (line.split(" ") if isinstance(line, str) else line)]
        self.sock.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
        return self.read()

    def read(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise TestFailure(f"the connection was closed after {line!r}")
        kind, rest = line[:1].decode(), line[1:-2].decode()
        if kind in "$=":
            if rest == "-1":
                return ("$", None)
            return (kind, self.file.read(int(rest) + 2)[:-2].decode())
        if kind in "*%~>":
            if rest == "-1":
                return ("*", None)
            return (kind, [self.read() for _ in range(int(rest) * (2 if kind == "%" else 1))])
        return (kind, rest)

    def close(self):
        self.file.close()
        self.sock.close()


class Subject:
    """A server under comparison, with the names that stand for what cannot be the same in both."""

    def __init__(self, node, **others):
        self.node = node
        self.wire = Wire(node)
        self.nodes = {"ME": node, **others}

    def names(self):
        for name, node in self.nodes.items():
            yield node.id, f"<{name}>"
            yield str(node.port + 10000), f"<{name} BUS>"
            yield str(node.port), f"<{name} PORT>"

    def fill_in(self, line):
        """{ME}, {PEER}: ids; {PEER PORT}: ports."""
        for name, node in self.nodes.items():
            line = line.replace(f"{{{name}}}", node.id).replace(f"{{{name} PORT}}", str(node.port))
        return line

    def plain(self, reply, pairs=None):
        pairs = pairs or list(self.names())
        kind, value = reply
        if isinstance(value, list):
            return (kind, [self.plain(part, pairs) for part in value])
        for text, name in pairs if value else ():
            value = re.sub(rf"(?<![0-9a-f]){text}(?![0-9a-f])", name, value)
        return (kind, value)

    def ask(self, line):
        line = self.fill_in(line)
        return self.plain(self.wire(line))


def same(one, other, lines, keep=lambda line, reply: reply):
    """Every line to both; all differences are reported together."""
    different = []
    for line in lines:
        replies = [keep(line, subject.ask(line)) for subject in (one, other)]
        if replies[0] != replies[1]:
            different.append(f"{line}\n    {replies[0]!r}\n    {replies[1]!r}")
    assert not different, "replies differ (this server, redis-server):\n" + "\n".join(different)


def up(node):
    wait_for(f"{node} to serve", lambda: b"cluster_state:ok" in node.cmd("CLUSTER INFO"), timeout=15)


@pytest.fixture
def alone(servers):
    """Two nodes that know nobody."""
    return [Subject(servers.node(kind, cluster_enabled="yes")) for kind in ("covey", "redis")]


QUESTIONS = """
CLUSTER
CLUSTER FOO
CLUSTER HELP x
CLUSTER MYID
CLUSTER MYID x
CLUSTER KEYSLOT
CLUSTER KEYSLOT a
CLUSTER KEYSLOT {user1000}.following
CLUSTER KEYSLOT foo{}{bar}
CLUSTER KEYSLOT a b
CLUSTER COUNTKEYSINSLOT
CLUSTER COUNTKEYSINSLOT x
CLUSTER COUNTKEYSINSLOT 16384
CLUSTER COUNTKEYSINSLOT -1
CLUSTER COUNTKEYSINSLOT 0
CLUSTER GETKEYSINSLOT x 1
CLUSTER GETKEYSINSLOT 1 x
CLUSTER GETKEYSINSLOT 1 -1
CLUSTER GETKEYSINSLOT 16384 1
CLUSTER GETKEYSINSLOT 0 1
CLUSTER COUNT-FAILURE-REPORTS abc
CLUSTER COUNT-FAILURE-REPORTS {ME}
CLUSTER REPLICAS abc
CLUSTER REPLICAS {ME}
CLUSTER SLAVES abc
CLUSTER SLAVES {ME}
CLUSTER SLOTS
CLUSTER SHARDS
CLUSTER LINKS
CLUSTER LINKS x
CLUSTER INFO x
CLUSTER NODES
""".strip().splitlines()

CHANGES = """
CLUSTER MEET a
CLUSTER MEET a b
CLUSTER MEET 127.0.0.1 99999
CLUSTER MEET 127.0.0.1 0
CLUSTER MEET 127.0.0.1 -5
CLUSTER MEET 127.0.0.1 60000
CLUSTER MEET 127.0.0.1 21559 x
CLUSTER MEET 127.0.0.1 21559 0
CLUSTER MEET host 21559
CLUSTER MEET 127.0.0.1 21559 31559 5
CLUSTER ADDSLOTS
CLUSTER ADDSLOTS x
CLUSTER ADDSLOTS 16384
CLUSTER ADDSLOTS 1 1
CLUSTER ADDSLOTS 1 2
CLUSTER ADDSLOTS 1 3
CLUSTER ADDSLOTS 3 x
CLUSTER DELSLOTS 5
CLUSTER DELSLOTS 1 1
CLUSTER DELSLOTS x
CLUSTER ADDSLOTSRANGE 1
CLUSTER ADDSLOTSRANGE 1 2 3
CLUSTER ADDSLOTSRANGE 9 8
CLUSTER ADDSLOTSRANGE 5 x
CLUSTER ADDSLOTSRANGE 5 20000
CLUSTER ADDSLOTSRANGE 5 10 8 12
CLUSTER ADDSLOTSRANGE 5 10
CLUSTER SLOTS
CLUSTER SHARDS
CLUSTER NODES
CLUSTER DELSLOTSRANGE 5 10 20 21
CLUSTER DELSLOTSRANGE 5
CLUSTER DELSLOTSRANGE 10 5
CLUSTER DELSLOTSRANGE 5 10
CLUSTER SETSLOT
CLUSTER SETSLOT 1
CLUSTER SETSLOT 1 foo
CLUSTER SETSLOT x STABLE
CLUSTER SETSLOT 16384 STABLE
CLUSTER SETSLOT 1 STABLE
CLUSTER SETSLOT 1 STABLE x
CLUSTER SETSLOT 1 MIGRATING
CLUSTER SETSLOT 1 MIGRATING abc
CLUSTER SETSLOT 9 MIGRATING abc
CLUSTER SETSLOT 1 IMPORTING abc
CLUSTER SETSLOT 9 IMPORTING abc
CLUSTER SETSLOT 9 NODE abc
CLUSTER SETSLOT 9 NODE abc d
CLUSTER SETSLOT 9 MIGRATING abc d
CLUSTER SETSLOT 9 NODE {ME}
CLUSTER SLOTS
CLUSTER BUMPEPOCH
CLUSTER BUMPEPOCH
CLUSTER BUMPEPOCH x
CLUSTER SET-CONFIG-EPOCH x
CLUSTER SET-CONFIG-EPOCH -1
CLUSTER SET-CONFIG-EPOCH 5
CLUSTER RESET foo
CLUSTER RESET soft x
CLUSTER RESET soft
CLUSTER SLOTS
CLUSTER SET-CONFIG-EPOCH 5
CLUSTER RESET hard
CLUSTER SET-CONFIG-EPOCH 5
CLUSTER SET-CONFIG-EPOCH 6
CLUSTER NODES
CLUSTER FORGET abc
CLUSTER FORGET {ME}
CLUSTER REPLICATE abc
CLUSTER REPLICATE {ME}
CLUSTER FAILOVER
CLUSTER FAILOVER FOO
CLUSTER FAILOVER FORCE x
CLUSTER FAILOVER FORCE
CLUSTER FAILOVER TAKEOVER
CLUSTER SAVECONFIG
CLUSTER FLUSHSLOTS
GET a
MULTI
GET a
EXEC
ASKING
READONLY
READWRITE
""".strip().splitlines()


def test_a_node_by_itself(alone):
    same(*alone, QUESTIONS + CHANGES)


def test_info_has_the_same_lines_in_the_same_order(alone):
    def names(line, reply):
        return reply[0], re.sub(r":.*", "", reply[1])
    same(*alone, ["CLUSTER INFO"], keep=names)
    for subject in alone:
        subject.wire("HELLO 3")
        assert subject.wire("CLUSTER INFO")[0] == "=" and subject.wire("CLUSTER NODES")[0] == "="


def test_help_names_every_subcommand(alone):
    """The words of the explanations are our own, the commands explained are not."""
    first = [{text.split()[0] for _, text in subject.ask("CLUSTER HELP")[1] if not text.startswith(" ")} for subject in alone]
    assert first[0] == first[1]


def test_cluster_support_disabled(servers):
    subjects = [Subject.__new__(Subject) for _ in range(2)]
    for subject, kind in zip(subjects, ("covey", "redis")):
        subject.node = servers.node(kind)
        subject.wire, subject.nodes = Wire(subject.node), {}
    lines = sorted({" ".join(line.replace("{ME}", "x").split()) for line in QUESTIONS + CHANGES})
    same(*subjects, [line for line in lines if line not in ("MULTI", "EXEC", "GET a")] + ["CLUSTER HELP"])


SERVED = """
SET foo 1
SET bar 2
MSET foo 1 bar 2
MSET {t}a 1 {t}b 2
MGET {t}a {t}b {t}c
DEL foo bar
EXISTS foo foo
SELECT 0
SELECT 1
MOVE foo 1
COPY foo foo2 DB 1
SWAPDB 0 1
REPLICAOF 127.0.0.1 1
REPLICAOF NO ONE
MULTI
SET foo 2
GET bar
EXEC
MULTI
SET foo 3
MGET foo bar
EXEC
MULTI
SET {t}a 3
GET {t}b
EXEC
MULTI
PING
CLUSTER KEYSLOT foo
CLUSTER COUNTKEYSINSLOT 12182
CLUSTER SETSLOT 1 STABLE
CLUSTER BUMPEPOCH
EXEC
WATCH foo bar
WATCH foo
UNWATCH
CLUSTER COUNTKEYSINSLOT 12182
CLUSTER GETKEYSINSLOT 12182 10
CLUSTER GETKEYSINSLOT 12182 0
CLUSTER FLUSHSLOTS
CLUSTER RESET
CLUSTER RESET HARD
CLUSTER REPLICATE {ME}
CLUSTER SETSLOT 12182 NODE {ME}
MIGRATE
MIGRATE 127.0.0.1 1 foo 0 x
MIGRATE 127.0.0.1 1 foo x 10
MIGRATE 127.0.0.1 1 foo 0 10 BAR
MIGRATE 127.0.0.1 1 foo 0 10 AUTH
MIGRATE 127.0.0.1 1 foo 0 10 AUTH2 a
MIGRATE 127.0.0.1 1 foo 0 10 KEYS foo
MIGRATE 127.0.0.1 1 nokey 0 10
MIGRATE 127.0.0.1 1 foo 0 10
MIGRATE 127.0.0.1 1 foo 0 10 COPY REPLACE AUTH x
CLUSTER SLOTS
CLUSTER SHARDS
""".strip().splitlines()


def all_slots(subjects):
    for subject in subjects:
        subject.node.cmd("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        up(subject.node)


def test_one_node_with_all_slots(alone):
    all_slots(alone)
    same(*alone, SERVED, keep=without_offset)


def without_offset(line, reply):
    """Of CLUSTER SHARDS: the replication offset is a matter of the server's own doings."""
    if line != "CLUSTER SHARDS":
        return reply
    text = repr(reply)
    return re.sub(r"(\('\$', 'replication-offset'\), \(':', ')\d+", r"\1N", text)


def test_partial_coverage(alone):
    for subject in alone:
        subject.node.cmd("CLUSTER", "ADDSLOTS", FOO)
    wait_for("the start to be over", lambda: all(s.wire("GET foo")[1].startswith("CLUSTERDOWN") for s in alone))
    same(*alone, ["GET foo", "GET bar", "MGET foo bar", "MGET bar foo", "SET foo 1"])
    for subject in alone:
        subject.node.cmd("CONFIG", "SET", "cluster-require-full-coverage", "no")
        up(subject.node)
    same(*alone, ["SET foo 1", "GET foo", "GET bar", "MGET foo bar", "MGET bar foo", "CLUSTER SLOTS"])
    for subject in alone:
        subject.node.cmd("CONFIG", "SET", "cluster-require-full-coverage", "yes", "cluster-allow-reads-when-down", "yes")
        subject.node.cmd("CLUSTER", "ADDSLOTS", 1)  # redis-server looks at its state again when slots change
        wait_for("the state to be fail", lambda: b"cluster_state:fail" in subject.node.cmd("CLUSTER INFO"))
    same(*alone, ["GET foo", "SET foo 2", "GET bar", "MULTI", "GET foo", "EXEC", "MULTI", "SET foo 4", "EXEC"])


@pytest.mark.parametrize("hostname", ["", "host-1.example.com"])
@pytest.mark.parametrize("endpoint", ["ip", "hostname", "unknown-endpoint"])
@pytest.mark.parametrize("protocol", [2, 3])
def test_endpoints(alone, endpoint, hostname, protocol):
    for subject in alone:
        subject.node.cmd("CONFIG", "SET", "cluster-preferred-endpoint-type", endpoint, "cluster-announce-hostname", hostname,
                         "cluster-announce-ip", "127.0.0.1")
        subject.wire(f"HELLO {protocol}")
        subject.node.cmd("CLUSTER", "ADDSLOTSRANGE", 0, 5, 7, 7, 100, 16383)
    same(*alone, ["CLUSTER SLOTS", "CLUSTER SHARDS", "CLUSTER REPLICAS {ME}", "CLUSTER LINKS"], keep=without_offset)


# ---------------------------------------------------------------------------------------------------- with a peer


def with_peer(servers, subject_kind, split=True):
    """A subject with one half of the slots and a redis-server with the other (split), or with all of them."""
    node, peer = (servers.node(kind, cluster_enabled="yes", cluster_node_timeout=2000) for kind in (subject_kind, "redis"))
    peer.cmd("CLUSTER", "MEET", node.host, node.port)
    wait_for("the handshake to be over", lambda: all(
        n.cmd("CLUSTER NODES").count(b"\n") == 2 and b"handshake" not in n.cmd("CLUSTER NODES") for n in (node, peer)))
    if split:
        node.cmd("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
    peer.cmd("CLUSTER", "ADDSLOTSRANGE", 0, 8191 if split else 16383)
    for n in (node, peer):
        up(n)
    return Subject(node, PEER=peer)


@pytest.fixture
def split(servers):
    return [with_peer(servers, kind) for kind in ("covey", "redis")]


def test_redirections(split):
    same(*split, """
GET foo
SET foo 1
GET bar
SET bar 1
MGET foo bar
MGET bar foo
GET
GET bar extra
MULTI
SET foo 2
GET bar
EXEC
GET foo
ASKING
GET bar
READONLY
GET bar
READWRITE
CLUSTER FORGET abc
CLUSTER SETSLOT 5061 MIGRATING {PEER}
CLUSTER SETSLOT 12182 IMPORTING {PEER}
CLUSTER SET-CONFIG-EPOCH 3
CLUSTER REPLICATE {PEER}
CLUSTER SETSLOT 12182 NODE {PEER}
CLUSTER REPLICAS {PEER}
CLUSTER COUNT-FAILURE-REPORTS {PEER}
CLUSTER SLOTS
""".strip().splitlines())
    for subject in split:
        subject.node.cmd("CONFIG", "SET", "cluster-preferred-endpoint-type", "unknown-endpoint")
    same(*split, ["GET bar", "CLUSTER SLOTS"])
    for subject in split:
        subject.node.cmd("CONFIG", "SET", "cluster-preferred-endpoint-type", "hostname")
    same(*split, ["GET bar", "CLUSTER SLOTS"])


def test_a_slot_on_its_way_out(split):
    for subject in split:
        subject.nodes["PEER"].cmd("CLUSTER", "SETSLOT", FOO, "IMPORTING", subject.node.id)
    same(*split, """
SET foo 1
SET {foo}2 2
CLUSTER SETSLOT 12182 MIGRATING {PEER}
GET foo
GET {foo}3
SET {foo}3 x
MGET foo {foo}2
MGET foo {foo}3
MGET {foo}3 {foo}4
DEL foo {foo}3
EXISTS foo foo
MULTI
GET foo
GET {foo}3
EXEC
MULTI
GET foo
GET {foo}2
EXEC
MULTI
MGET foo {foo}3
EXEC
MIGRATE 127.0.0.1 {PEER PORT} {foo}9 0 1000
MIGRATE 127.0.0.1 {PEER PORT}  0 1000 KEYS {foo}9 {foo}10
MIGRATE 127.0.0.1 {PEER PORT} foo 0 1000 COPY
EXISTS foo
MIGRATE 127.0.0.1 {PEER PORT} foo 0 1000
EXISTS foo
MIGRATE 127.0.0.1 {PEER PORT} foo 0 1000 REPLACE
GET foo
MIGRATE 127.0.0.1 {PEER PORT}  0 1000 KEYS foo {foo}2
GET {foo}2
CLUSTER COUNTKEYSINSLOT 12182
CLUSTER SETSLOT 12182 STABLE
GET {foo}2
""".strip().splitlines())
    for subject in split:
        peer = subject.nodes["PEER"]
        assert peer.cmd("CLUSTER", "COUNTKEYSINSLOT", FOO) == 2


def test_a_slot_on_its_way_in(split):
    for subject in split:
        subject.nodes["PEER"].cmd("SET", "bar", 1)
        assert subject.nodes["PEER"].cmd("CLUSTER", "SETSLOT", 5061, "MIGRATING", subject.node.id) == b"OK"
    same(*split, """
CLUSTER SETSLOT 5061 IMPORTING {PEER}
GET bar
ASKING
GET bar
GET bar
ASKING
SET {bar}2 x
ASKING
MGET {bar}2 bar
ASKING
MGET {bar}2 {bar}2
ASKING
MGET bar bar
ASKING
PING
GET {bar}2
ASKING
MULTI
GET {bar}2
SET {bar}3 y
EXEC
GET {bar}3
MULTI
ASKING
GET {bar}2
EXEC
GET {bar}2
CLUSTER COUNTKEYSINSLOT 5061
CLUSTER SETSLOT 5061 STABLE
ASKING
GET {bar}2
""".strip().splitlines())
    for subject in split:
        subject.node.cmd("CLUSTER", "SETSLOT", 5061, "IMPORTING", subject.nodes["PEER"].id)
        assert subject.nodes["PEER"].cmd("MIGRATE", "127.0.0.1", subject.node.port, "bar", 0, 1000) == b"OK"
        assert subject.node.cmd("CLUSTER", "COUNTKEYSINSLOT", 5061) == 2
        assert subject.node.cmd("CLUSTER", "SETSLOT", 5061, "NODE", subject.node.id) == b"OK"
    same(*split, ["GET bar", "GET {bar}2"])


def test_links(split):
    def without_times(line, reply):  # nor how much room a link keeps for what it has to send
        text = re.sub(r"('send-buffer-allocated'\), \(':', ')\d+", r"\1N", repr(reply))
        return re.sub(r"(?<=\(':', ')\d{2,}", "N", text)
    for subject in split:
        wait_for("both links", lambda: len(subject.wire("CLUSTER LINKS")[1]) == 2)
        assert 500 < subject.node.stat("mem_cluster_links", "memory") < 10_000_000
    same(*split, ["CLUSTER LINKS", "HELLO 3", "CLUSTER LINKS"],
         keep=lambda line, reply: None if line.startswith("HELLO") else without_times(line, reply))


def test_a_replica(servers):
    subjects = [with_peer(servers, kind, split=False) for kind in ("covey", "redis")]
    for subject in subjects:
        subject.nodes["PEER"].cmd("SET", "foo", "from the primary")
        subject.node.cmd("CLUSTER", "REPLICATE", subject.nodes["PEER"].id)
        wait_for("the replica to be in sync", lambda: subject.node.stat("master_link_status") == "up")
        wait_for("the primary to know", lambda: subject.nodes["PEER"].cmd("CLUSTER", "REPLICAS", subject.nodes["PEER"].id))
        wait_for("the slots to be known", lambda: subject.node.cmd("CLUSTER SLOTS"))
        up(subject.node)
    same(*subjects, """
GET foo
SET foo 1
MGET foo bar
READONLY
GET foo
EXISTS foo
SET foo 1
MGET foo bar
MULTI
GET foo
EXEC
MULTI
GET foo
SET foo 1
EXEC
READWRITE
GET foo
CLUSTER SETSLOT 1 STABLE
CLUSTER SETSLOT x STABLE
CLUSTER FORGET {PEER}
CLUSTER FORGET {ME}
CLUSTER REPLICAS {ME}
CLUSTER REPLICATE {ME}
CLUSTER FAILOVER FOO
CLUSTER ADDSLOTS 1
""".strip().splitlines())


# ---------------------------------------------------------------------------------------------------- MIGRATE


@pytest.fixture
def standalone(servers):
    """Subjects without a cluster, each with a redis-server as target."""
    subjects = []
    for kind in ("covey", "redis"):
        subject = Subject.__new__(Subject)
        subject.node, subject.target = servers.node(kind), servers.node("redis")
        subject.wire, subject.nodes = Wire(subject.node), {}
        subject.fill_in = lambda line, s=subject: line.replace("{TO}", str(s.target.port))
        subjects.append(subject)
    return subjects


def test_migrate_between_servers(standalone):
    same(*standalone, """
SET a 1
SET b 2
RPUSH l 1 2 3
MIGRATE 127.0.0.1 {TO} a 0 1000
EXISTS a
MIGRATE 127.0.0.1 {TO}  3 1000 KEYS b l none
EXISTS b l
SET a 2
MIGRATE 127.0.0.1 {TO} a 0 1000
MIGRATE 127.0.0.1 {TO} a 0 1000 AUTH secret
MIGRATE 127.0.0.1 {TO} a 0 1000 AUTH2 nobody secret
MIGRATE 127.0.0.1 {TO} a 99 1000 REPLACE
EXISTS a
MIGRATE 127.0.0.1 {TO} a 0 0 COPY REPLACE
MIGRATE 127.0.0.1 {TO} a 0 1000 REPLACE
MSET x 1 y 2 z 3
MIGRATE 127.0.0.1 {TO}  0 1000 COPY KEYS y
MIGRATE 127.0.0.1 {TO}  0 1000 KEYS x y z
EXISTS x y z
MIGRATE 127.0.0.1 {TO}  0 1000 REPLACE KEYS x y y z
EXISTS x y z
MULTI
SET m 1
MIGRATE 127.0.0.1 {TO} m 0 1000
EXISTS m
EXEC
""".strip().splitlines())
    found = [sorted(s.target.client.keys("*")) for s in standalone]
    assert found[0] == found[1] == [b"a", b"m", b"x", b"y", b"z"]
    for subject in standalone:
        assert subject.target.new_client(db=3).execute_command("LRANGE", "l", 0, -1) == [b"1", b"2", b"3"]


def test_migrate_keeps_the_time_to_live_and_large_values(standalone):
    for subject in standalone:
        node, target = subject.node, subject.target
        big = bytes(range(256)) * 20000
        node.cmd("SET", "big", big)
        node.cmd("SET", "ttl", "x", "PX", 100000)
        node.cmd("SET", "over", "x", "PX", 1)
        wait_for("the key to be over", lambda: node.cmd("PTTL", "over") < 0)
        assert node.cmd("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", "over", "big", "ttl") == b"OK"
        assert target.cmd("GET", "big") == big
        assert 90000 < target.cmd("PTTL", "ttl") <= 100000
        assert target.cmd("EXISTS", "over") == 0 and node.cmd("DBSIZE") == 0


def test_migrate_reaches_replicas_as_deletions(servers):
    node, target = servers.node("covey"), servers.node("redis")
    replica = servers.node("redis", replicaof=f"127.0.0.1 {node.port}")
    node.client.mset({"a": 1, "b": 2, "c": 3})
    wait_for("the replica to have them", lambda: replica.cmd("DBSIZE") == 3)
    assert node.cmd("MIGRATE", "127.0.0.1", target.port, "", 0, 1000, "KEYS", "a", "b", "none") == b"OK"
    wait_for("the deletions", lambda: replica.client.keys("*") == [b"c"])


class Silent:
    """A target that accepts connections and never answers."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", free_port()))
        self.port = self.listener.getsockname()[1]


def test_migrate_errors_of_the_connection(standalone):
    silent = Silent()
    port_of_nobody = free_port()
    same(*standalone, f"""
SET k v
MIGRATE 127.0.0.1 {port_of_nobody} k 0 200
MIGRATE 127.0.0.1 {silent.port} k 0 200
GET k
""".strip().splitlines())
    silent.listener.close()


def test_migrate_uses_a_connection_again_and_survives_its_end(standalone):
    for subject in standalone:
        node, target = subject.node, subject.target
        for i in range(5):
            node.cmd("SET", f"k{i}", i)
            assert node.cmd("MIGRATE", "127.0.0.1", target.port, f"k{i}", 0, 1000) == b"OK"
        assert target.stat("total_connections_received") <= 3
        target.client.client_kill_filter(_type="normal", skipme=True)
        node.cmd("SET", "k5", 5)
        assert node.cmd("MIGRATE", "127.0.0.1", target.port, "k5", 0, 1000) == b"OK"
        assert target.cmd("DBSIZE") == 6


def test_a_slot_that_is_being_sent_holds_up_only_those_who_need_it(servers):
    node, silent = servers.node("covey", workers=2), Silent()
    node.cmd("SET", "k", "v")
    migrating, others = Wire(node), [Wire(node) for _ in range(8)]
    words = [b"MIGRATE", b"127.0.0.1", str(silent.port).encode(), b"k", b"0", b"1500"]
    migrating.sock.sendall(b"*6\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
    peer, _ = silent.listener.accept()
    assert peer.recv(65536).startswith(b"*2\r\n$6\r\nSELECT")
    for wire in others:
        wire.sock.sendall(b"*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n")
    at_once = 0
    for wire in others:
        wire.sock.settimeout(0.1)
        try:
            at_once += wire.sock.recv(7, socket.MSG_PEEK) == b"+PONG\r\n"
        except TimeoutError:
            pass
        wire.sock.settimeout(10 * PATIENCE)
    assert at_once, "the other worker must go on"
    assert migrating.read() == ("-", "IOERR error or timeout reading to target instance")
    for wire in others:
        assert [wire.read(), wire.read()] == [("+", "PONG"), ("$", "v")]
    silent.listener.close()


def test_a_new_cluster_waits_for_nobody(servers):
    node = servers.node("covey", cluster_enabled="yes", cluster_node_timeout=15000)
    time.sleep(3)  # longer than a primary waits after its start; a node that rejoins a cluster would wait 5 seconds
    node.cmd("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    wait_for("the cluster to be up", lambda: "cluster_state:ok" in node.cli("CLUSTER", "INFO"), 3)
