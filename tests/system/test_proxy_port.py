"""proxy-port: every data node is the one address for plain clients, without another process."""
import time

import pytest
import redis

import covey
from covey import SLOTS, TestFailure, free_port, tag_of_slot, wait_for
from wire import Wire

if covey.COVEY_IS_REDIS:
    pytest.skip("the proxy is Covey's", allow_module_level=True)


class At:
    """The proxy port of a node, as something to connect to."""

    def __init__(self, port, host="127.0.0.1"):
        self.host, self.port = host, port

    def client(self, **options):
        return redis.Redis(self.host, self.port, socket_timeout=30 * covey.PATIENCE, **options)


def with_ports(servers, kinds, **settings):
    """A cluster whose Covey nodes have proxy ports; (cluster, the ports)."""
    nodes, ports = [], []
    for kind in kinds:
        extra = {}
        if kind == "covey":
            ports.append(At(free_port()))
            extra["proxy_port"] = ports[-1].port
        nodes.append(servers.node(kind, cluster_enabled="yes", cluster_node_timeout=2000, cluster_replica_validity_factor=0,
                                  repl_ping_replica_period=1, wait=False, **extra, **settings))
    for node in nodes:
        if not settings.get("requirepass"):
            node.wait_ready()
    cluster = covey.Cluster(nodes, 2000)
    if not settings.get("requirepass"):
        cluster.form(1)
    return cluster, ports


def test_every_node_is_the_whole(servers):
    cluster, ports = with_ports(servers, ["covey"] * 6)
    clients = [at.client() for at in ports]
    names = [f"{{{tag_of_slot(slot)}}}k" for slot in range(0, SLOTS, 331)]
    wait_for("the proxies to know the cluster", lambda: all(client.ping() and client.dbsize() == 0 for client in clients))
    for n, name in enumerate(names):
        assert clients[n % 6].set(name, n)
    for client in clients:
        assert client.mget(names) == [str(n).encode() for n in range(len(names))]
        assert client.dbsize() == len(names) and set(client.scan_iter()) == {name.encode() for name in names}
        assert client.info("all")["cluster_enabled"] == 0
    with Wire(ports[0], 3) as listener:
        listener.send("SUBSCRIBE", "news")
        assert listener.read() == [b"subscribe", b"news", 1]
        clients[5].publish("news", "hi")
        assert listener.read() == [b"message", b"news", b"hi"]
    # a primary dies with its port; the other ports hold what is for its slots
    victim = next(n for n, node in enumerate(cluster.nodes) if cluster.role(node) == "master")
    cluster.nodes[victim].kill()
    other = clients[(victim + 1) % 6]
    started = time.monotonic()
    for n, name in enumerate(names):
        assert other.set(name, -n)
    print(f"longest pause at most {time.monotonic() - started:.1f} s")
    assert other.mget(names) == [str(-n).encode() for n in range(len(names))]
    cluster.nodes[victim].start()
    cluster.wait_whole()
    again = ports[victim].client()
    assert wait_for("the port of the node that came back", lambda: again.mget(names)) == other.mget(names)
    # the node's own port is what it was
    assert any("MOVED" in str(error) for error in map(lambda name: call(cluster.nodes[victim], name), names))
    for node in cluster.nodes:
        assert node.terminate() == 0


def call(node, name):
    try:
        return node.cmd("GET", name)
    except redis.RedisError as error:
        return error


def test_beside_redis_servers(servers):
    _, ports = with_ports(servers, ["redis", "covey", "redis", "covey", "redis", "redis"])
    clients = [at.client() for at in ports]
    for n in range(200):
        assert clients[n % 2].set(f"k{n}", n)
    assert clients[0].mget([f"k{n}" for n in range(200)]) == [str(n).encode() for n in range(200)]


def test_a_node_without_a_cluster(servers):
    at = At(free_port())
    node = servers.node("covey", proxy_port=at.port)
    client = at.client()
    assert client.mset({"a": 1, "b": 2}) and client.rename("a", "b") and node.cmd("GET", "b") == b"1"
    assert node.config_get("proxy-port") == str(at.port)
    with pytest.raises(redis.ResponseError):
        node.cmd("CONFIG", "SET", "proxy-port", "1")
    taken = servers.node("covey", proxy_port=at.port, start=False)
    with pytest.raises(TestFailure, match="exited with 1"):
        taken.start()
    taken.expected_dead = True


def test_passwords_and_users(servers, tmp_path):
    at = At(free_port())
    node = servers.node("covey", proxy_port=at.port, requirepass="secret", wait=False)
    wait_for("the node to listen", lambda: node.raw().close() is None and at.client().connection_pool.make_connection().connect() is None)
    with pytest.raises(redis.AuthenticationError):
        at.client().get("a")
    client = at.client(password="secret")
    assert client.set("a", 1) and client.get("a") == b"1"
    # an ACL file holds at both ports
    path = tmp_path / "users.acl"
    path.write_text("user default off\nuser node on >nodepass ~* &* +@all\nuser alice on >alicepass ~a:* +@read +@write\n")
    at = At(free_port())
    node = servers.node("covey", proxy_port=at.port, aclfile=str(path), masteruser="node", masterauth="nodepass", wait=False)
    wait_for("the node to listen", lambda: node.raw().close() is None and at.client().connection_pool.make_connection().connect() is None)
    with pytest.raises(redis.AuthenticationError):
        at.client().get("a")
    alice = at.client(username="alice", password="alicepass")
    assert alice.set("a:1", 1) and alice.get("a:1") == b"1"
    with pytest.raises(redis.exceptions.NoPermissionError):
        alice.set("b:1", 1)
    with pytest.raises(redis.exceptions.NoPermissionError):
        alice.config_get("*")


def test_a_restricted_default_user_stays_restricted(servers):
    at = At(free_port())
    node = servers.node("covey", proxy_port=at.port)
    node.cmd("ACL", "SETUSER", "default", "-flushall")
    client = at.client()
    assert client.set("a", 1)
    with pytest.raises(redis.RedisError, match="(?i)noperm|no permissions"):
        client.flushall()


def test_protected_mode_covers_the_proxy(servers):
    at = At(free_port())
    node = servers.node("covey", proxy_port=at.port, bind="*")
    assert at.client().ping()
    address = [line.split()[3] for line in covey.run(["ss", "-tln"]).splitlines() if f":{at.port}" in line]
    assert address == [f"127.0.0.1:{at.port}"]
    assert b"protected-mode" in node.log_text()
