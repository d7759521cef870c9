"""proxy-port: the node's proxy reaches that node inside the process, and knows at once what it knows of the cluster."""
import contextlib
import os
import shutil
import signal
import threading
import time

import pytest
import redis

import covey
from covey import SLOTS, cluster_nodes, free_port, tag_of_slot, wait_for
from test_proxy_port import At, with_ports
from tls import Authority
from wire import Wire

if covey.COVEY_IS_REDIS:
    pytest.skip("the proxy is Covey's", allow_module_level=True)


def from_own_proxy(node):
    """Its clients that came from the proxy of its own process."""
    return [client for client in node.client.client_list() if client["addr"].startswith("proxy:")]


def sockets_to(node):
    """Established TCP connections to the node's port whose other end is in its process."""
    lines = covey.run(["ss", "-tnpH", "state", "established", f"( dport = :{node.port} )"]).splitlines()
    return [line for line in lines if f"pid={node.pid}," in line]


def reaches_itself(node):
    return bool(from_own_proxy(node)) and not sockets_to(node)


def key_of(slot, name="k"):
    return f"{{{tag_of_slot(slot)}}}{name}"


def put(client, names, value):
    """A write that a failover meets may be refused on a slow machine, and is sent again."""
    for name in names:
        wait_for(f"{name} to be written", lambda: client.set(name, value), 30)


def known_to(replica, primary):
    """Waits until the primary has answered a ping of its replica's: only then does that stand when the primary fails."""
    seen = set()

    def pongs():
        lines = replica.cmd("CLUSTER NODES").decode().splitlines()
        seen.update(line.split()[5] for line in lines if line.startswith(primary.id))
        return len(seen) > 2
    wait_for("pongs of the primary", pongs, 20)


def take_over(replica):
    """CLUSTER FAILOVER, again if it has come to nothing on a slow machine."""
    def done():
        if replica.stat("role", "replication") == "master":
            return True
        replica.cmd("CLUSTER", "FAILOVER")
        with contextlib.suppress(covey.TestFailure):
            return wait_for("the failover", lambda: replica.stat("role", "replication") == "master", 6)
    wait_for("the replica to take over", done, 30)


def formed(nodes, replicas):
    cluster = covey.Cluster(nodes, 2000)
    cluster.form(replicas)
    return cluster


def move(slot, source, target, others=()):
    """A slot and its keys."""
    target.cmd("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
    source.cmd("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
    for key in source.cmd("CLUSTER", "GETKEYSINSLOT", slot, 100):
        source.cmd("MIGRATE", target.host, target.port, key, 0, 5000)
    for node in (target, source, *others):
        node.cmd("CLUSTER", "SETSLOT", slot, "NODE", target.id)


def figures(wire):
    """INFO of the proxy, by the worker that has this client."""
    return {**dict(line.split(":", 1) for line in wire("INFO", "everything").decode().splitlines() if ":" in line)}


def slots_at(wire, node):
    """How many slots that worker takes the node to have."""
    for line in figures(wire).values():
        words = dict(word.split("=", 1) for word in line.split(",") if "=" in word)
        if words.get("port") == str(node.port) and "slots" in words:
            return int(words["slots"])
    return 0


def times_asked(nodes):
    """How often they were asked for the map."""
    return sum(int(node.info("commandstats").get("cmdstat_cluster|slots", {}).get("calls", 0)) for node in nodes)


@pytest.mark.sanitizer
def test_no_network_between_a_node_and_its_proxy(servers):
    at = At(free_port())
    node = servers.node("covey", proxy_port=at.port, workers=2, maxclients=20)
    clients = [at.client(single_connection_client=True) for _ in range(8)]
    for n, client in enumerate(clients):
        assert client.set(f"a{n}", n) and node.cmd("GET", f"a{n}") == str(n).encode()
    own = from_own_proxy(node)
    assert own and all(client["laddr"] == client["addr"] == f"proxy:{at.port}" and client["flags"] == "U" for client in own)
    assert not sockets_to(node)
    # those who come from outside have used up maxclients: the proxy's do not need a place
    crowd = [node.raw() for _ in range(30)]
    wait_for("the node to be full", lambda: node.stat("rejected_connections", "stats") > 0)
    blocked = at.client()
    waiter = threading.Thread(target=lambda: blocked.blpop("list", 30))
    waiter.start()  # needs a connection of its own
    wait_for("a client that waits", lambda: node.stat("blocked_clients", "clients") == 1)
    clients[0].rpush("list", "x")
    waiter.join(30)
    assert not waiter.is_alive()
    for sock in crowd:
        sock.close()
    # an operator may close them like any others
    assert node.cmd("CLIENT", "KILL", "ADDR", f"proxy:{at.port}", "SKIPME", "yes") >= len(own)
    assert clients[0].get("a0") == b"0" and reaches_itself(node)
    assert node.terminate() == 0


def test_a_replica_without_a_cluster(servers):
    """Its proxy writes to the primary; when it becomes one itself, to it, inside the process."""
    at = At(free_port())
    primary = servers.node("covey")
    node = servers.node("covey", proxy_port=at.port, replicaof=f"{primary.host} {primary.port}")
    client = at.client()
    wait_for("the primary to be known", lambda: client.set("a", 1))
    assert primary.cmd("GET", "a") == b"1"
    wait_for("the replica to have it", lambda: node.cmd("GET", "a") == b"1")
    node.cmd("REPLICAOF", "NO", "ONE")
    wait_for("a write to the own node", lambda: client.set("b", 1) and node.cmd("GET", "b") == b"1")
    assert reaches_itself(node)
    node.cmd("REPLICAOF", primary.host, primary.port)
    wait_for("a write to the primary", lambda: client.set("c", 1) and primary.cmd("GET", "c") == b"1")


@pytest.mark.sanitizer
def test_slots_come_and_go_and_nobody_else_is_asked(servers):
    at = At(free_port())
    nodes = [servers.node("covey", cluster_enabled="yes", cluster_node_timeout=2000, **({"proxy_port": at.port} if n == 0 else {}))
             for n in range(3)]
    formed(nodes, 0)
    own, others = nodes[0], nodes[1:]
    with Wire(at) as wire:
        wait_for("the proxy to know the cluster", lambda: sum(slots_at(wire, node) for node in nodes) == SLOTS)
        assert wire("SET", key_of(0), "v") == "OK" and wire("SET", key_of(SLOTS - 1), "w") == "OK"
        asked, moved = times_asked(others), figures(wire)["redirected_moved"]
        for n, (slot, source, target) in enumerate([(0, own, others[1]), (SLOTS - 1, others[1], own), (0, others[1], own),
                                                    (SLOTS // 2, others[0], others[1])]):
            before = slots_at(wire, target)
            move(slot, source, target)
            wait_for("the proxy to see it", lambda: slots_at(wire, target) == before + 1)
            assert wire("SET", key_of(slot), n) == "OK" and wire("GET", key_of(slot)) == str(n).encode()
        assert figures(wire)["redirected_moved"] == moved, "a request went to where a slot had been"
        assert times_asked(others) < asked + 3, "the others were asked, where nobody could doubt"
    assert reaches_itself(own)


@pytest.mark.sanitizer
def test_failovers_of_the_own_node_and_of_others(servers):
    cluster, ports = with_ports(servers, ["covey"] * 6)
    own = cluster.nodes[0]
    client = ports[0].client()
    names = [key_of(slot) for slot in range(0, SLOTS, 401)]
    put(client, names, "1")
    assert reaches_itself(own)
    # its replica takes over: it is reached as a node like any other, and this one has nothing to serve
    replica = cluster.replicas_of(own)[0]
    take_over(replica)
    cluster.wait_primary(replica)
    put(client, names, "2")
    cluster.wait_replica_of(own, replica)
    known_to(own, replica)
    # back again, by the other's death
    replica.kill()
    cluster.wait_primary(own)
    put(client, names, "3")
    wait_for("all of it to be read", lambda: client.mget(names) == [b"3"] * len(names))
    wait_for("the short way", lambda: reaches_itself(own))
    replica.start()
    cluster.wait_whole()
    # the node itself is killed and comes back, with its port
    own.kill()
    own.start()
    cluster.wait_whole()
    again = ports[0].client()
    wait_for("the port", lambda: again.mget(names) == [b"3"] * len(names), 30)


@pytest.mark.sanitizer
def test_a_node_that_knows_less_than_the_others(servers):
    """It is believed first, and not alone: whoever it does not know is found by asking the others."""
    at = At(free_port())
    nodes = [servers.node("covey", cluster_enabled="yes", cluster_node_timeout=3000, cluster_require_full_coverage="no",
                          cluster_replica_validity_factor=0, repl_ping_replica_period=1, **({"proxy_port": at.port} if n == 0 else {}))
             for n in range(4)]
    cluster = covey.Cluster(nodes, 3000)
    primaries, replica = nodes[:3], nodes[3]
    for n, node in enumerate(primaries):
        node.cmd("CLUSTER", "ADDSLOTSRANGE", SLOTS * n // 3, SLOTS * (n + 1) // 3 - 1)
    for n, node in enumerate(nodes):
        node.cmd("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
    for node in nodes[1:]:
        nodes[0].cmd("CLUSTER", "MEET", node.host, node.port)
    wait_for("all nodes to know each other", cluster.all_known, 20)
    replica.cmd("CLUSTER", "REPLICATE", primaries[2].id)
    cluster.wait_whole()
    key = key_of(SLOTS - 1)
    with Wire(at, timeout=20) as wire:
        wait_for("the proxy to know the cluster", lambda: sum(slots_at(wire, node) for node in nodes) == SLOTS)
        assert wire("SET", key, "1") == "OK" and wire("SET", key_of(0), "1") == "OK"
        nodes[0].cmd("CLUSTER", "FORGET", replica.id)  # for a minute
        take_over(replica)
        wait_for("the others to see it", lambda: len(cluster_nodes(nodes[1])[replica.id].slots) > 0, 20)
        for n in range(20):
            wait_for("the node that is not known there", lambda: wire("SET", key, n) == "OK" and wire("GET", key) == str(n).encode(), 30)
            wait_for("the own node", lambda: wire("SET", key_of(0), n) == "OK", 30)
            time.sleep(0.02)
        if replica.id not in cluster_nodes(nodes[0]):
            assert slots_at(wire, replica) > 0
        wait_for("the short way", lambda: reaches_itself(nodes[0]))


@pytest.fixture(scope="module")
def authority(module_servers):
    return Authority(module_servers.directory("certificates"))


def test_a_node_with_tls_only(servers, authority):
    """The others are spoken to with TLS, at their TLS ports; the own one without."""
    at = At(free_port())
    nodes = []
    for n in range(3):
        extra = {"proxy_port": at.port} if n == 0 else {}
        nodes.append(servers.node("covey", tls=authority, cluster_enabled="yes", cluster_node_timeout=2000, tls_cluster="yes",
                                  tls_replication="yes", **authority.directives, **extra))
    formed(nodes, 0)
    client = at.client(**authority.client_options)
    names = [key_of(slot) for slot in range(0, SLOTS, 997)]
    assert wait_for("the proxy", lambda: client.mset({name: "1" for name in names}))
    assert client.mget(names) == [b"1"] * len(names)
    assert reaches_itself(nodes[0])
    move(0, nodes[0], nodes[2])
    assert client.set(names[0], "2") and client.get(names[0]) == b"2"


def test_protected_mode_and_users(servers, tmp_path):
    at = At(free_port())
    node = servers.node("covey", proxy_port=at.port, bind="* -::*")
    assert at.client().set("a", "1") and reaches_itself(node)
    path = tmp_path / "users.acl"
    path.write_text("user default off\nuser node on >nodepass ~* &* +@all\nuser alice on >alicepass ~a:* +@read +@write\n")
    at = At(free_port())
    node = servers.node("covey", proxy_port=at.port, aclfile=str(path), masteruser="node", masterauth="nodepass", wait=False)
    wait_for("the node to listen", lambda: node.raw().close() is None and at.client().connection_pool.make_connection().connect() is None)
    alice = at.client(username="alice", password="alicepass")
    assert alice.set("a:1", "1")
    with pytest.raises(redis.exceptions.NoPermissionError):
        alice.set("b:1", "1")
    admin = node.new_client(username="node", password="nodepass")
    own = [client for client in admin.client_list() if client["addr"].startswith("proxy:")]
    # it has logged in like anybody: no right comes from where it came from
    assert own and all(client["user"] == "node" for client in own)
    admin.execute_command("ACL", "SETUSER", "node", "-set")
    with pytest.raises(redis.RedisError, match="(?i)noperm|no permissions"):
        alice.set("a:1", "2")


@pytest.mark.sanitizer
def test_a_slow_reader_of_many_replies(servers):
    at = At(free_port())
    node = servers.node("covey", proxy_port=at.port, workers=2)
    node.cmd("SET", "big", "x" * 10000)
    count = 5000
    with Wire(at, timeout=30, receive_buffer=4096) as slow, Wire(at, timeout=30) as other:
        sender = threading.Thread(target=lambda: slow.sock.sendall(b"*2\r\n$3\r\nGET\r\n$3\r\nbig\r\n*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n" * count))
        sender.start()
        wait_for("some to be executed", lambda: int(node.cmd("GET", "n") or 0) > 0)
        for n in range(200):  # others, on the same connections to the node, do not wait for it
            assert other("SET", f"k{n}", n) == "OK"
        for n in range(count):
            assert len(slow.read()) == 10000 and slow.read() == n + 1
            if n % 1000 == 0:
                time.sleep(0.05)
        sender.join(30)
        assert not sender.is_alive()
    assert node.cmd("GET", "n") == str(count).encode() and reaches_itself(node)


def test_the_proxy_goes_before_the_node(servers):
    """SIGTERM: what is under way is answered.  Where the node cannot end, its proxy goes on."""
    at = At(free_port())
    node = servers.node("covey", proxy_port=at.port, save="3600 100000", stop_writes_on_bgsave_error="no")
    in_the_way = os.path.join(node.dir, "dump.rdb", "x")
    os.makedirs(in_the_way)
    with Wire(at, timeout=30) as wire:
        assert wire("PING") == "PONG"
        node.signal(signal.SIGTERM)
        assert wire.closed()
    wait_for("the node to have tried", lambda: b"can't exit" in node.log_text())
    with wait_for("the port to be open again", lambda: Wire(at, timeout=30)) as wire:
        assert wire("SET", "a", 1) == "OK"
        shutil.rmtree(os.path.dirname(in_the_way))
        with Wire(at, timeout=30) as idle:
            assert idle("PING") == "PONG"
            wire.send("BLPOP", "nothing", "0.2")
            wait_for("a client that waits", lambda: node.stat("blocked_clients", "clients") == 1)
            node.signal(signal.SIGTERM)
            assert idle.closed()
            assert wire.read() is None, "the reply that was under way"
            assert wire.closed()
    assert node.wait_exit() == 0
