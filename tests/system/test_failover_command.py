"""FAILOVER: a primary without a cluster hands its role to a replica, with redis-server on either side."""
import socket
import threading
import time

import pytest
import redis

from covey import assert_same_data, dataset, wait_for, wait_in_sync


def follow(servers, primary_kind, *replica_kinds, **options):
    primary = servers.node(primary_kind, repl_diskless_sync_delay=0, **options)
    replicas = [servers.node(kind, replicaof=f"127.0.0.1 {primary.port}", repl_diskless_sync_delay=0) for kind in replica_kinds]
    for replica in replicas:
        wait_in_sync(primary, replica)
    wait_for("replicas online", lambda: sum(f"slave{n}" in primary.info("replication") and primary.info("replication")[f"slave{n}"]
                                            ["state"] == "online" for n in range(len(replicas))) == len(replicas))
    return primary, *replicas


def error_of(node, *words):
    with pytest.raises(redis.RedisError) as caught:
        node.client.execute_command(*words)
    return str(caught.value)


def test_errors_are_those_of_redis_server(servers):
    pairs = [follow(servers, kind, kind) for kind in ("covey", "redis")]
    calls = [("FAILOVER", "ABORT"), ("FAILOVER", "NOW"), ("FAILOVER", "TO", "127.0.0.1"), ("FAILOVER", "TO", "127.0.0.1", "x"),
             ("FAILOVER", "TO", "127.0.0.1", "1"), ("FAILOVER", "FORCE"), ("FAILOVER", "TIMEOUT", "0"), ("FAILOVER", "TIMEOUT", "-1"),
             ("FAILOVER", "TIMEOUT", "1", "TIMEOUT", "2"), ("FAILOVER", "ABORT", "TIMEOUT", "10"), ("FAILOVER", "ABORT", "ABORT"),
             ("FAILOVER", "TO", "127.0.0.1", "1", "FORCE"), ("FAILOVER", "TIMEOUT", "x")]
    for call in calls:
        assert error_of(pairs[0][0], *call) == error_of(pairs[1][0], *call), call
    assert error_of(pairs[0][1], "FAILOVER") == error_of(pairs[1][1], "FAILOVER")
    alone = [servers.node(kind) for kind in ("covey", "redis")]
    assert error_of(alone[0], "FAILOVER") == error_of(alone[1], "FAILOVER")
    for kind in ("covey", "redis"):
        node = servers.node(kind, cluster_enabled="yes")
        assert error_of(node, "FAILOVER") == "FAILOVER not allowed in cluster mode. Use CLUSTER FAILOVER command instead."
    id_ = pairs[0][0].stat("master_replid")
    assert error_of(pairs[0][0], "PSYNC", id_, "1", "FAILOVER") == error_of(pairs[1][0], "PSYNC", id_, "1", "FAILOVER")
    assert error_of(pairs[0][1], "PSYNC", "x" * 40, "1", "FAILOVER") == error_of(pairs[1][1], "PSYNC", "x" * 40, "1", "FAILOVER")


@pytest.mark.parametrize("kinds", [("covey", "covey"), ("covey", "redis"), ("redis", "covey")], ids="-".join)
def test_roles_change_and_nothing_is_lost(servers, kinds):
    primary, replica = follow(servers, *kinds)
    acked, stop = [], threading.Event()

    def write():
        nodes, n = [primary, replica], 0
        clients = [redis.Redis(port=node.port, socket_timeout=10) for node in nodes]
        while not stop.is_set():
            try:
                clients[0].set(f"k:{n}", n)
                acked.append(n)
                n += 1
            except redis.RedisError:
                clients.reverse()
                time.sleep(0.005)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_for("writes", lambda: len(acked) > 200)
        primary.client.execute_command("FAILOVER", "TO", "127.0.0.1", replica.port, "TIMEOUT", 20000)
        wait_for("the roles to change", lambda: replica.client.role()[0] == b"master" and primary.client.role()[0] == b"slave", 20)
        wait_for("the failover to be over", lambda: primary.stat("master_failover_state") == "no-failover")
        so_far = len(acked)
        wait_for("writes to go on", lambda: len(acked) > so_far + 200)
    finally:
        stop.set()
        writer.join()
    wait_in_sync(replica, primary)
    assert primary.stat("master_link_status") == "up"
    data = dataset(replica)
    assert [n for n in acked if f"k:{n}".encode() not in data] == []
    assert_same_data(data, dataset(primary))
    assert replica.stat("sync_full") == 0, "the old primary goes on from where it stands"


def test_any_replica_and_the_others_follow_on_by_themselves(servers):
    primary, first, second = follow(servers, "covey", "covey", "covey")
    primary.client.set("k", "v")
    primary.client.execute_command("FAILOVER")
    new = wait_for("a new primary", lambda: next((n for n in (first, second) if n.client.role()[0] == b"master"), None), 20)
    wait_for("the old one to follow", lambda: primary.stat("role") == "slave" and primary.stat("master_link_status") == "up")
    assert new.client.get("k") == b"v" and primary.stat("master_port") == new.port


def test_a_replica_that_does_not_catch_up(servers):
    """Writes are held until the time is over or the failover is aborted, and go on then."""
    primary, replica = follow(servers, "covey", "covey")
    replica.pause()
    primary.client.set("k", 1)
    primary.client.execute_command("FAILOVER", "TIMEOUT", 1500)
    assert primary.stat("master_failover_state") == "waiting-for-sync"
    assert error_of(primary, "FAILOVER") == "FAILOVER already in progress."
    began = time.monotonic()
    redis.Redis(port=primary.port, socket_timeout=10).set("k", 2)
    assert 1 < time.monotonic() - began < 9
    assert primary.stat("master_failover_state") == "no-failover" and primary.client.role()[0] == b"master"
    primary.client.execute_command("FAILOVER")
    threading.Timer(0.5, lambda: primary.client.execute_command("FAILOVER", "ABORT")).start()
    redis.Redis(port=primary.port, socket_timeout=10).set("k", 3)
    assert primary.client.role()[0] == b"master"
    replica.resume()
    wait_in_sync(primary, replica)


def test_force_hands_over_to_a_replica_that_lags(servers):
    """That is what FORCE says: what the replica lacked is gone."""
    primary, replica = follow(servers, "covey", "covey")
    replica.pause()
    primary.client.set("k", 1)
    primary.client.execute_command("FAILOVER", "TO", "127.0.0.1", replica.port, "FORCE", "TIMEOUT", 300)
    wait_for("the forced step", lambda: primary.stat("master_failover_state") == "failover-in-progress")
    replica.resume()
    wait_for("an end", lambda: primary.stat("master_failover_state") == "no-failover", 20)
    assert [primary.client.role()[0], replica.client.role()[0]] == [b"slave", b"master"]


def test_a_target_that_refuses(servers):
    """The target has become a primary by itself meanwhile: the old one stays what it is, and takes writes again."""
    primary, replica = follow(servers, "covey", "covey")
    with socket.create_connection(("127.0.0.1", replica.port)) as order:
        order.sendall(b"PING\r\n")
        assert order.recv(100) == b"+PONG\r\n"
        replica.pause()
        primary.client.set("k", 1)
        primary.client.execute_command("FAILOVER", "TO", "127.0.0.1", replica.port, "FORCE", "TIMEOUT", 300)
        wait_for("the forced step", lambda: primary.stat("master_failover_state") == "failover-in-progress")
        order.sendall(b"REPLICAOF NO ONE\r\n")
        replica.resume()
        assert order.recv(100) == b"+OK\r\n"
    wait_for("an end", lambda: primary.stat("master_failover_state") == "no-failover", 20)
    assert primary.client.role()[0] == b"master" and primary.client.set("k", 2)


def test_writes_are_held_shortly(servers):
    """The replica is asked where it is at once, not when it would have told."""
    primary, replica = follow(servers, "covey", "covey")
    held = []
    for n in range(3):
        client = primary.new_client()
        client.set("k", n)
        began = time.monotonic()
        primary.client.execute_command("FAILOVER", "TO", "127.0.0.1", replica.port)
        wait_for("the roles to change", lambda: replica.stat("role") == "master", 20, every=0.002)
        held.append(time.monotonic() - began)
        wait_in_sync(replica, primary)
        primary, replica = replica, primary
    print("FAILOVER TO: writes held for " + ", ".join(f"{1000 * t:.0f}" for t in held) + " ms")
    assert min(held) < 0.6, held
