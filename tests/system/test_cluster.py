"""Clusters of this project's own nodes: forming, redirecting, moving slots, failing over, partitions."""
import os
import random
import re
import signal
import socket
import struct
import threading
import time

import pytest
import redis

import covey
from covey import (SLOTS, TestFailure, Writer, assert_same_data, cluster_info, cluster_nodes, dataset, key_slot, run,
                   tag_of_slot, wait_for, wait_in_sync)
from hostile import new_seed, throw


def in_slot(slot, name="k"):
    return "{%s}%s" % (tag_of_slot(slot), name)


def error_of(node, *words):
    """The error a command is answered with, as the server words it."""
    with node.raw() as sock:
        sock.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in (str(w).encode() for w in words)))
        answer = sock.recv(4096).decode()
    assert answer.startswith("-"), f"{words} got {answer!r} instead of an error"
    return answer[1:].strip()


@pytest.fixture(scope="module")
def steady(module_servers):
    """Three primaries with a replica each, for tests that leave it as they found it."""
    return module_servers.cluster(["covey"] * 6, replicas=1)


# ---- redirections and states

def test_slots_and_shards(steady):
    node = steady.nodes[0]
    # a replica is listed once it has told its offset
    slots = wait_for("the replicas to be listed", lambda: [rows for rows in [node.cmd("CLUSTER SLOTS")]
                                                           if all(len(row) == 4 for row in rows)])[0]
    assert sorted((s[0], s[1]) for s in slots) == [(0, 5460), (5461, 10921), (10922, 16383)]
    for row in slots:
        assert len(row) == 4 and row[2][0] == b"127.0.0.1" and len(row[2][2]) == 40
        owner = steady.by_id(row[2][2].decode())
        assert row[2][1] == owner.port and row[3][1] == steady.replicas_of(owner)[0].port
    shards = node.cmd("CLUSTER", "SHARDS")
    assert len(shards) == 3
    shard = dict(zip(shards[0][::2], shards[0][1::2]))
    assert len(shard[b"nodes"]) == 2 and len(shard[b"slots"]) == 2
    info = cluster_info(node)
    assert info["cluster_slots_assigned"] == "16384" and info["cluster_known_nodes"] == "6" and info["cluster_size"] == "3"


@pytest.mark.sanitizer
def test_redirections(steady):
    first = steady.owner(0)
    other = steady.owner(SLOTS - 1)
    assert error_of(first, "SET", in_slot(SLOTS - 1), 1) == f"MOVED {SLOTS - 1} {other.address}"
    assert error_of(first, "MGET", in_slot(0, "a"), in_slot(1, "a")) == "CROSSSLOT Keys in request don't hash to the same slot"
    assert error_of(first, "SELECT", 1) == "ERR SELECT is not allowed in cluster mode"
    replica = steady.replicas_of(first)[0]
    assert error_of(replica, "SET", in_slot(0), 1) == f"MOVED 0 {first.address}"
    assert error_of(replica, "GET", in_slot(0)) == f"MOVED 0 {first.address}"
    client = first.new_client()
    pipe = client.pipeline(transaction=True)
    pipe.set(in_slot(0, "x"), 1)
    pipe.set(in_slot(0, "y"), 2)
    assert pipe.execute() == [True, True]
    assert client.delete(in_slot(0, "x"), in_slot(0, "y")) == 2
    assert error_of(first, "CLUSTER", "KEYSLOT").startswith("ERR wrong number of arguments for 'cluster|keyslot' command")
    assert [first.cmd("CLUSTER", "KEYSLOT", k) for k in ("foo", "{foo}x", "")] == [12182, 12182, 0]


def test_exec_with_a_foreign_key_is_aborted(steady):
    first = steady.owner(0)
    with first.raw() as sock:
        sock.sendall(b"MULTI\r\nSET %s 1\r\nSET %s 1\r\nEXEC\r\n" % (in_slot(0).encode(), in_slot(SLOTS - 1).encode()))
        time.sleep(0.2)
        lines = sock.recv(4096).split(b"\r\n")
    assert lines[0] == b"+OK" and lines[1] == b"+QUEUED" and lines[2].startswith(b"-MOVED") and lines[3].startswith(b"-EXECABORT")
    assert first.cmd("GET", in_slot(0)) is None


@pytest.mark.sanitizer
def test_readonly_replica_reads(steady):
    primary = steady.owner(0)
    replica = steady.replicas_of(primary)[0]
    primary.cmd("SET", in_slot(0, "r"), "v")
    covey.wait_in_sync(primary, replica)
    client = replica.new_client(single_connection_client=True)
    assert client.execute_command("READONLY")
    assert client.get(in_slot(0, "r")) == b"v"
    with pytest.raises(redis.ResponseError, match=f"^{SLOTS - 1} {steady.owner(SLOTS - 1).address}|MOVED"):
        client.get(in_slot(SLOTS - 1))
    with pytest.raises(redis.ResponseError):
        client.set(in_slot(0, "r"), "w")
    assert client.execute_command("READWRITE")
    with pytest.raises(redis.ResponseError):
        client.get(in_slot(0, "r"))
    primary.cmd("DEL", in_slot(0, "r"))


@pytest.mark.sanitizer
def test_slot_moved_by_hand(steady):
    """SETSLOT, ASK, ASKING, TRYAGAIN, MIGRATE, and the end of it, with a replica on each side."""
    slot = 100
    source, target = steady.owner(slot), steady.owner(SLOTS - 1)
    a, b, new = (in_slot(slot, name) for name in "abn")
    source.cmd("MSET", a, "1", b, "2")
    assert error_of(target, "CLUSTER", "SETSLOT", slot, "MIGRATING", source.id).startswith("ERR I'm not the owner of hash slot")
    target.cmd("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
    source.cmd("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
    assert f"[{slot}->-{target.id}]" in source.cmd("CLUSTER NODES").decode()
    assert f"[{slot}-<-{source.id}]" in target.cmd("CLUSTER NODES").decode()
    assert source.cmd("GET", a) == b"1"
    assert error_of(source, "SET", new, 1) == f"ASK {slot} {target.address}"
    assert error_of(target, "SET", new, 1) == f"MOVED {slot} {source.address}"
    asking = target.new_client(single_connection_client=True)
    asking.execute_command("ASKING")
    assert asking.set(new, "3")
    with pytest.raises(redis.ResponseError):
        asking.get(new)  # ASKING holds for one command
    assert source.cmd("MIGRATE", target.host, target.port, a, 0, 5000) in (True, b"OK")
    assert source.cmd("CLUSTER", "COUNTKEYSINSLOT", slot) == 1
    assert source.cmd("CLUSTER", "GETKEYSINSLOT", slot, 10) == [b.encode()]
    assert error_of(source, "MGET", a, b) == "TRYAGAIN Multiple keys request during rehashing of slot"
    assert error_of(source, "GET", a) == f"ASK {slot} {target.address}"
    asking.execute_command("ASKING")
    with pytest.raises(redis.ResponseError, match="Multiple keys request during rehashing of slot"):
        asking.execute_command("MGET", a, b)
    assert error_of(source, "CLUSTER", "SETSLOT", slot, "NODE", target.id).startswith("ERR Can't assign hashslot 100 to a different node")
    source.cmd("MIGRATE", target.host, target.port, "", 0, 5000, "KEYS", b)
    target.cmd("CLUSTER", "SETSLOT", slot, "NODE", target.id)
    source.cmd("CLUSTER", "SETSLOT", slot, "NODE", target.id)
    steady.wait_whole()
    assert error_of(source, "GET", a) == f"MOVED {slot} {target.address}"
    assert target.cmd("MGET", a, b, new) == [b"1", b"2", b"3"]
    steady.assert_replicas_equal()
    # and back
    run([covey.REDIS_CLI, "--cluster", "reshard", target.address, "--cluster-from", target.id, "--cluster-to", source.id,
         "--cluster-slots", "1", "--cluster-yes"])
    steady.wait_whole()


def test_migrate_keeps_everything(steady):
    """Every type with its TTL goes through MIGRATE; COPY, REPLACE and BUSYKEY behave."""
    source, target = steady.owner(0), steady.owner(SLOTS - 1)
    alone = source
    covey.fill_all_types(tagged(alone, 0), ttl=True)
    before = {k: v for k, v in dataset(alone).items() if k.startswith(b"{%s}" % tag_of_slot(0).encode())}
    assert len(before) > 50
    target.cmd("CLUSTER", "SETSLOT", 0, "IMPORTING", source.id)
    source.cmd("CLUSTER", "SETSLOT", 0, "MIGRATING", target.id)
    keys = sorted(before)
    source.cmd("MIGRATE", target.host, target.port, "", 0, 20000, "COPY", "KEYS", *keys[:5])
    assert source.cmd("EXISTS", *keys[:5]) == 5
    with pytest.raises(redis.ResponseError, match="BUSYKEY"):
        source.cmd("MIGRATE", target.host, target.port, "", 0, 20000, "KEYS", *keys)
    source.cmd("MIGRATE", target.host, target.port, "", 0, 20000, "REPLACE", "KEYS", *keys)
    assert source.cmd("CLUSTER", "COUNTKEYSINSLOT", 0) == 0
    for node in (target, source):
        node.cmd("CLUSTER", "SETSLOT", 0, "NODE", target.id)
    steady.wait_whole()
    after = {k: v for k, v in dataset(target).items() if k in before}
    assert set(after) == set(before)
    for key, (kind, value, expiry) in before.items():
        assert after[key][:2] == (kind, value), key
        assert abs(after[key][2] - expiry) < 2000, f"{key}: TTL {expiry} became {after[key][2]}"
    target.client.delete(*keys)
    run([covey.REDIS_CLI, "--cluster", "reshard", target.address, "--cluster-from", target.id, "--cluster-to", source.id,
         "--cluster-slots", "1", "--cluster-yes"])
    steady.wait_whole()


class tagged:
    """A client whose keys all get the tag of one slot."""

    def __init__(self, node, slot):
        self.client, self.tag = node.client, "{%s}" % tag_of_slot(slot)

    def pipeline(self, **options):
        pipe, tag = self.client.pipeline(**options), self.tag

        class Pipe:
            def __getattr__(self, name):
                return lambda key, *a, **k: getattr(pipe, name)(tag + key, *a, **k)

            def execute_command(self, name, key, *rest):
                return pipe.execute_command(name, tag + key, *rest)

            def execute(self):
                return pipe.execute()
        return Pipe()


def test_forget_and_reset_guards(steady):
    primary, replicas = steady.pairs()[0]
    assert error_of(primary, "CLUSTER", "FORGET", primary.id).startswith("ERR I tried hard but I can't forget myself")
    assert error_of(replicas[0], "CLUSTER", "FORGET", primary.id).startswith("ERR Can't forget my master")
    assert error_of(primary, "CLUSTER", "FORGET", "a" * 40).startswith("ERR Unknown node")
    assert error_of(primary, "CLUSTER", "ADDSLOTS", 0).startswith("ERR Slot 0 is already busy")
    assert error_of(primary, "CLUSTER", "ADDSLOTS", SLOTS).startswith("ERR Invalid or out of range slot")
    assert error_of(primary, "CLUSTER", "REPLICATE", replicas[0].id).startswith("ERR")
    assert error_of(primary, "CLUSTER", "FAILOVER").startswith("ERR You should send CLUSTER FAILOVER to a replica")
    assert error_of(primary, "REPLICAOF", "127.0.0.1", 1).startswith("ERR REPLICAOF not allowed in cluster mode")


# ---- hostile bytes on the bus

def bus(node):
    return socket.create_connection((node.host, node.port + 10000), timeout=5 * covey.PATIENCE)


def closes(sock, within):
    sock.settimeout(within * covey.PATIENCE)
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        return True
    except socket.timeout:
        return False
    return True


@pytest.mark.sanitizer
def test_bad_frames_on_the_bus(steady):
    node = steady.nodes[0]
    rss = node.rss_mb()
    header = lambda length, version=1, type_=0, signature=b"RCmb": signature + struct.pack(">IHHH", length, version, node.port, type_)
    for what, data in [("a wrong signature", header(2256, signature=b"HTTP") + bytes(2242)),
                       ("a frame of 1 GiB", header(1 << 30) + bytes(100)), ("a frame of 4 GiB", header(0xFFFFFFFF) + bytes(100)),
                       ("a frame of 3 bytes", header(3) + bytes(100)), ("an HTTP request", b"GET / HTTP/1.1\r\n\r\n")]:
        with bus(node) as sock:
            sock.sendall(data)
            assert closes(sock, 2), f"{what} was not refused"
    rng = random.Random(new_seed())
    frames = []
    for _ in range(100):
        frame = bytearray(header(2256, type_=rng.randrange(12)) + rng.randbytes(2242))
        for _ in range(rng.randrange(8)):
            frame[rng.randrange(len(frame))] = rng.randrange(256)
        frames.append(frame[:rng.randrange(len(frame) + 1)])
    throw(rng, lambda: bus(node), frames)
    assert node.rss_mb() - rss < 50
    assert steady.whole() is None, steady.whole()


# ---- redis-cli --cluster

def test_redis_cli_cluster_verbs(servers):
    """create, check, info, add-node, rebalance, reshard, fix and del-node of Debian's redis-cli, with data underneath."""
    cluster = servers.cluster(["covey"] * 6, form=False, timeout=5000)
    out = cluster.create_by_cli(replicas=1)
    assert out.count("[OK]") >= 2
    cluster.populate(3000)
    data = cluster.dataset()
    assert len(data) == 3000

    assert "[OK] All nodes agree about slots configuration." in cluster.cli("check")
    info = cluster.cli("info")
    assert "3000 keys in 3 primaries" in info.replace("masters", "primaries") and info.count("1 slaves") == 3

    extra = servers.node(cluster_enabled="yes", cluster_node_timeout=5000)
    replica = servers.node(cluster_enabled="yes", cluster_node_timeout=5000)
    assert "[OK] New node added correctly." in run([covey.REDIS_CLI, "--cluster", "add-node", extra.address, cluster.nodes[0].address])
    cluster.nodes.append(extra)
    cluster.wait_whole()
    run([covey.REDIS_CLI, "--cluster", "add-node", replica.address, cluster.nodes[0].address, "--cluster-slave",
         "--cluster-master-id", extra.id])
    cluster.nodes.append(replica)
    cluster.wait_whole()
    cluster.wait_replica_of(replica, extra)
    wait_in_sync(extra, replica)  # while it loads what it gets it refuses redis-cli

    cluster.cli("rebalance", "--cluster-use-empty-masters")
    cluster.wait_whole()
    assert [len(cluster_nodes(n)[n.id].slots) for n in cluster.primaries()] == [4096] * 4
    assert_same_data(data, cluster.dataset(), "after rebalance")
    cluster.assert_replicas_equal()

    source = cluster.nodes[0]
    out = cluster.cli("reshard", "--cluster-from", source.id, "--cluster-to", extra.id, "--cluster-slots", 300, "--cluster-yes")
    assert out.count("Moving slot") >= 300
    cluster.wait_whole()
    assert len(cluster_nodes(extra)[extra.id].slots) == 4396
    assert_same_data(data, cluster.dataset(), "after reshard")

    # a slot left open by a reshard that died
    slot = min(cluster_nodes(source)[source.id].slots)
    source.cmd("CLUSTER", "SETSLOT", slot, "MIGRATING", extra.id)
    extra.cmd("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
    assert "[WARNING]" in cluster.cli("check", check=False)
    cluster.cli("fix", check=False)
    assert "[OK] All nodes agree" in cluster.cli("check")
    cluster.wait_whole()
    assert_same_data(data, cluster.dataset(), "after fix")

    # the added nodes leave: slots first, then the replica, then the node
    cluster.cli("reshard", "--cluster-from", extra.id, "--cluster-to", source.id, "--cluster-slots",
                len(cluster_nodes(extra)[extra.id].slots), "--cluster-yes")
    wait_for("who has no slots to follow who got them", lambda: {cluster.role(extra), cluster.role(replica)} == {"slave"})
    cluster.wait_whole()  # what it gets from there is loaded
    for node in (replica, extra):
        cluster.cli("del-node", node.id)
        cluster.nodes.remove(node)
        node.expected_dead = True
    cluster.wait_whole()
    assert_same_data(data, cluster.dataset(), "after del-node")
    cluster.assert_replicas_equal()


def test_redis_cli_fix_covers_slots_that_nobody_owns(servers):
    cluster = servers.cluster(["covey"] * 3)
    cluster.populate(300)
    empty = next(slot for slot in range(SLOTS) if not cluster.owner(slot).cmd("CLUSTER", "COUNTKEYSINSLOT", slot))
    for node in cluster.nodes:
        node.cmd("CLUSTER", "DELSLOTS", empty)
    wait_for("the hole to be seen", lambda: all(cluster_info(n)["cluster_state"] == "fail" for n in cluster.nodes))
    assert error_of(cluster.nodes[0], "GET", in_slot(0)).startswith("CLUSTERDOWN")
    assert error_of(cluster.nodes[0], "GET", in_slot(empty)) == "CLUSTERDOWN Hash slot not served"
    cluster.cli("fix", check=False, input="yes\n")
    cluster.wait_whole()


def test_partial_coverage_serves_when_configured(servers):
    cluster = servers.cluster(["covey"] * 3, cluster_require_full_coverage="no")
    for node in cluster.nodes:
        node.cmd("CLUSTER", "DELSLOTS", 0)
    time.sleep(0.5)
    assert error_of(cluster.nodes[0], "GET", in_slot(0)) == "CLUSTERDOWN Hash slot not served"
    assert cluster.nodes[0].cmd("SET", in_slot(1), 1)


# ---- nodes come back, nodes.conf

@pytest.mark.sanitizer
def test_whole_cluster_restarts(servers):
    cluster = servers.cluster(["covey"] * 6, replicas=1)
    cluster.populate(500)
    data, ids = cluster.dataset(), [node.id for node in cluster.nodes]
    view = cluster.view(cluster.nodes[0])
    for node in cluster.nodes:
        with open(os.path.join(node.dir, "nodes.conf")) as file:
            text = file.read()
        assert re.search(r"^vars currentEpoch \d+ lastVoteEpoch \d+$", text, re.M) and text.count("\n") == 7, text
        assert f"{node.id} 127.0.0.1:{node.port}@{node.port + 10000}" in text and "myself" in text
    for node in cluster.nodes:
        node.cmd("SAVE")
    for node in cluster.nodes:  # all at once: nobody sees another one go
        node.signal(signal.SIGSTOP)
    for node in cluster.nodes:
        node.kill()
    for some in (cluster.nodes[:3], cluster.nodes[3:]):  # no replica misses its primary
        for node in some:
            node.start(wait=False)
        for node in some:
            node.wait_ready()
    cluster.wait_whole()
    assert [node.id for node in cluster.nodes] == ids and cluster.view(cluster.nodes[0]) == view
    assert_same_data(data, cluster.dataset())


def test_nodes_conf_is_locked_and_checked(servers):
    node = servers.node(cluster_enabled="yes")
    second = servers.node(cluster_enabled="yes", directory=node.dir, start=False)
    second.expected_dead = True
    second.start(wait=False)
    assert second.wait_exit(10) > 0
    assert "nodes.conf" in second.log_tail()
    node.terminate()
    with open(os.path.join(node.dir, "nodes.conf"), "w") as file:
        file.write("this is not a line of nodes.conf\n")
    node.start(wait=False)
    node.expected_dead = True
    assert node.wait_exit(10) > 0
    assert "Unrecoverable error" in node.log_tail() or "corrupt" in node.log_tail()


# ---- failures

def test_kill_each_primary_in_turn_under_load(servers):
    """kill -9 of each primary: writes are accepted again, the killed node comes back as a replica with the same data, and
    nothing acknowledged is lost but what was under way."""
    cluster = servers.cluster(["covey"] * 6, replicas=1)
    kills = []
    with Writer(cluster) as writer:
        writer.wait_flowing()
        for primary, replicas in cluster.pairs():
            id_ = primary.id
            covey.wait_in_sync(primary, *replicas)
            kills.append(time.monotonic())
            primary.kill()
            cluster.wait_primary(replicas[0])
            writer.wait_flowing()
            print(f"writes flow again {time.monotonic() - kills[-1]:.2f} s after kill -9 of {primary}")
            for node in cluster.live():
                assert {"fail", "master"} <= cluster_nodes(node)[id_].flags, cluster.picture()
            primary.start()
            cluster.wait_replica_of(primary, replicas[0])
            cluster.wait_whole()
    data = cluster.dataset()
    print(f"{len(writer.acked)} writes acknowledged, {len(writer.lost(data))} lost, errors {writer.errors}")
    writer.assert_kept(data, kills)
    cluster.assert_replicas_equal()


def test_stopped_primary_is_replaced_and_comes_back_as_replica(servers):
    """SIGSTOP: connections stay open, nothing answers. On SIGCONT the node must not take writes for its old slots."""
    cluster = servers.cluster(["covey"] * 6, replicas=1)
    primary, (replica,) = cluster.pairs()[0]
    with Writer(cluster) as writer:
        covey.wait_in_sync(primary, replica)
        stopped = time.monotonic()
        primary.pause()
        cluster.wait_primary(replica)
        writer.wait_flowing()
        primary.resume()
        cluster.wait_replica_of(primary, replica)
        cluster.wait_whole()
        writer.wait_flowing()
    writer.assert_kept(cluster.dataset(), [stopped])
    cluster.assert_replicas_equal()


def test_partition_minority_stops_accepting_writes(servers):
    """Six nodes in namespaces: one primary and another's replica are cut off. Their side stops, the other goes on."""
    timeout = 1000
    cluster = servers.cluster(["covey"] * 6, replicas=1, timeout=timeout, network=True)
    network, nodes = cluster.network, cluster.nodes
    key = in_slot(0)
    nodes[0].cmd("SET", key, "before")
    covey.wait_in_sync(nodes[0], nodes[3])

    cut = time.monotonic()
    network.split({0, 4})  # primary 0 and the replica of primary 1
    last_accepted = 0.0
    while time.monotonic() - cut < 5 * covey.PATIENCE:
        try:
            nodes[0].cmd("SET", key, "minority")
            last_accepted = time.monotonic() - cut
        except redis.ResponseError as error:
            assert str(error).startswith("The cluster is down") or "CLUSTERDOWN" in str(error), error
            if time.monotonic() - cut > 3 * covey.PATIENCE:
                break
        time.sleep(0.02)
    print(f"the minority accepted its last write {last_accepted:.2f} s after the cut; node timeout {timeout} ms")
    assert last_accepted < 2 * timeout / 1000 * covey.PATIENCE, "the minority goes on accepting writes"
    cluster.wait_primary(nodes[3])
    assert nodes[3].cmd("SET", key, "majority")
    for node in (nodes[1], nodes[2], nodes[3]):
        wait_for(f"{node} to say ok", lambda: cluster_info(node)["cluster_state"] == "ok")
        assert {"fail"} <= cluster_nodes(node)[nodes[0].id].flags
    assert cluster.role(nodes[4]) == "slave", "a replica in the minority is not elected"

    network.heal()
    cluster.wait_replica_of(nodes[0], nodes[3])
    cluster.wait_whole()
    assert nodes[3].cmd("GET", key) == b"majority"
    cluster.assert_replicas_equal()


def test_long_command_does_not_fail_the_node_over(servers):
    """The bus has a thread of its own: a node busy for three node timeouts answers its peers all the time."""
    cluster = servers.cluster(["covey"] * 4, replicas=1, workers=1)
    primary, (replica,) = cluster.pairs()[0]
    other = next(p for p in cluster.primaries() if p is not primary)
    epoch = cluster_info(other)["cluster_current_epoch"]
    sleeper = threading.Thread(target=lambda: primary.new_client(socket_timeout=30).execute_command("DEBUG", "SLEEP", "3.5"))
    sleeper.start()
    began = time.monotonic()
    while sleeper.is_alive():
        flags = cluster_nodes(other)[cluster_nodes(replica)[replica.id].primary_id].flags
        assert not flags & {"fail", "fail?"}, f"after {time.monotonic() - began:.1f} s of DEBUG SLEEP the node is seen as {flags}"
        assert cluster.role(replica) == "slave"
        time.sleep(0.05)
    sleeper.join()
    assert time.monotonic() - began >= 3.4
    assert cluster_info(other)["cluster_current_epoch"] == epoch, "no election was held"
    cluster.wait_whole()


@pytest.mark.parametrize("how", ["", "FORCE", "TAKEOVER"])
def test_manual_failover_under_load(servers, how):
    """CLUSTER FAILOVER loses nothing that was acknowledged; FORCE and TAKEOVER hand over as well."""
    cluster = servers.cluster(["covey"] * 6, replicas=1)
    primary, (replica,) = cluster.pairs()[0]
    with Writer(cluster) as writer:
        writer.wait_flowing()
        covey.wait_in_sync(primary, replica)
        at = time.monotonic()
        replica.cmd(*f"CLUSTER FAILOVER {how}".split())
        cluster.wait_primary(replica)
        cluster.wait_replica_of(primary, replica)
        cluster.wait_whole()
        writer.wait_flowing()
    writer.assert_kept(cluster.dataset(), [at] if how else [])
    cluster.assert_replicas_equal()


def test_replica_moves_to_an_orphaned_primary(servers):
    cluster = servers.cluster(["covey"] * 7, form=False)
    cluster.form(replicas=1)  # 3 primaries, 4 replicas: the first primary has two
    primary, replicas = next(pair for pair in cluster.pairs() if len(pair[1]) == 2)
    poor, (only,) = next(pair for pair in cluster.pairs() if len(pair[1]) == 1)
    poor.cmd("SET", next(in_slot(s) for s in cluster_nodes(poor)[poor.id].slots), "v")
    only.kill()
    wait_for("a replica to move to the orphan", lambda: len(cluster.replicas_of(poor)) == 1, 20)
    moved = cluster.replicas_of(poor)[0]
    assert moved in replicas
    cluster.wait_replica_of(moved, poor)
    covey.wait_in_sync(poor, moved)
    assert_same_data(dataset(poor), dataset(moved, readonly=True))


def test_primary_that_restarts_empty_does_not_wipe_its_replicas(servers):
    """A supervisor that restarts fast: the primary is back, without data, before anyone noticed. Whatever was acknowledged
    stays: the primary asks its replicas before it serves, and one that is ahead takes over."""
    cluster = servers.cluster(["covey"] * 6, replicas=1, timeout=3000)
    cluster.populate(2000)
    data = cluster.dataset()
    cluster.assert_replicas_equal()
    primary, (replica,) = cluster.pairs()[0]
    key, (_, value, _) = next((k, v) for k, v in data.items() if cluster.owner(key_slot(k)) is primary)
    primary.kill()
    primary.start()
    deadline = time.monotonic() + 30 * covey.PATIENCE
    while cluster.whole() is not None and time.monotonic() < deadline:
        try:
            found = primary.cmd("GET", key)
        except redis.RedisError:
            continue  # an error is what it should say
        if found != value:
            raise TestFailure(f"the empty primary answered {found!r} for {key!r} instead of an error")
    cluster.wait_whole()
    assert_same_data(data, cluster.dataset(), "acknowledged writes are gone")
    cluster.assert_replicas_equal()


@pytest.mark.parametrize("more", [{}, {"min_replicas_to_ack": 1}], ids=["plain", "noloss"])
def test_primary_that_restarts_with_a_file_from_before_its_election(servers, more):
    """It once was a replica and has the file of its full synchronization; the history that it began when it was elected is
    in no file, so that its offset alone cannot be compared with its replica's."""
    cluster = servers.cluster(["covey"] * 6, replicas=1, **more)
    first = cluster.owner(key_slot("n"))
    second = cluster.replicas_of(first)[0]
    best = 0

    def count(node, times=50):
        """Increments until that many have been answered, and each is more than the one before."""
        nonlocal best
        deadline, client = time.monotonic() + 30 * covey.PATIENCE, node.new_client()
        while times:
            assert time.monotonic() < deadline
            try:
                value = client.incr("n")
            except redis.ResponseError:  # held too long, or too few members yet
                time.sleep(0.05)
                continue
            assert value > best
            best, times = value, times - 1
        client.close()

    def in_sync(primary, replica):
        cluster.wait_primary(primary)
        cluster.wait_replica_of(replica, primary)
        covey.wait_in_sync(primary, replica)
        cluster.wait_whole()
        time.sleep(0.5)  # a replica stands when its primary has answered it since, which nothing shows
        if more:
            wait_for("a member", lambda: primary.stat("ack_members_ready", "replication") > 0)
    count(first)
    in_sync(first, second)
    for old, new in ((first, second), (second, first)):
        old.kill()
        cluster.wait_primary(new)
        old.start()
        in_sync(new, old)
        count(new)
        in_sync(new, old)
    for _ in range(2):  # `first` has the file that it was sent by `second`, of 50 increments ago
        primary = cluster.owner(key_slot("n"))
        primary.kill()
        primary.start()
        deadline = time.monotonic() + 30 * covey.PATIENCE
        while cluster.whole() is not None and time.monotonic() < deadline:
            try:
                assert int(primary.cmd("GET", "n") or 0) >= best, "it served what it had before it was elected"
            except redis.RedisError:
                continue  # an error is what it should say
        cluster.wait_whole()
        primary = cluster.owner(key_slot("n"))
        assert int(primary.cmd("GET", "n")) >= best
        count(primary)
        in_sync(primary, second if primary is first else first)


def test_primary_that_restarts_with_its_data_stays_primary(servers):
    cluster = servers.cluster(["covey"] * 6, replicas=1, timeout=3000)
    cluster.populate(500)
    data = cluster.dataset()
    primary, (replica,) = cluster.pairs()[0]
    covey.wait_in_sync(primary, replica)
    primary.shutdown("SAVE")
    primary.start()
    cluster.wait_whole()
    assert_same_data(data, cluster.dataset())
    cluster.assert_replicas_equal()


def test_no_failover_without_a_majority(servers):
    """Two of three primaries die at once: no replica may be elected, and the survivor stops."""
    cluster = servers.cluster(["covey"] * 6, replicas=1)
    pairs = cluster.pairs()
    for primary, _ in pairs[:2]:
        primary.kill()
    survivor = pairs[2][0]
    wait_for("the survivor to stop", lambda: cluster_info(survivor)["cluster_state"] == "fail", 10)
    time.sleep(3)
    assert all(cluster.role(replica) == "slave" for _, (replica,) in pairs)
    assert error_of(survivor, "SET", in_slot(min(cluster_nodes(survivor)[survivor.id].slots)), 1).startswith("CLUSTERDOWN")
    for primary, _ in pairs[:2]:
        primary.start()
    cluster.wait_whole()


def test_node_timeout_can_be_changed_live(servers):
    """A cluster made with a long timeout notices a death soon once the timeout was lowered."""
    cluster = servers.cluster(["covey"] * 6, replicas=1, timeout=60000)
    primary, (replica,) = cluster.pairs()[0]
    covey.wait_in_sync(primary, replica)
    for node in cluster.nodes:
        node.client.config_set("cluster-node-timeout", 1000)
    primary.kill()
    cluster.wait_primary(replica, 15)
