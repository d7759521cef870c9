"""proxy-port: the node's users, settings and figures at the port of the proxy inside it."""
import threading
import time
import urllib.request

import pytest
import redis

import covey
from covey import free_port, wait_for
from exposition import parse, value
from test_proxy_port import At, with_ports
from wire import Error, Wire

if covey.COVEY_IS_REDIS:
    pytest.skip("the proxy is Covey's", allow_module_level=True)


@pytest.fixture
def both(servers):
    at = At(free_port())
    return servers.node("covey", proxy_port=at.port), at


@pytest.mark.sanitizer
def test_a_change_at_the_node_holds_at_its_proxy_at_once(both):
    node, at = both
    node.cmd("ACL", "SETUSER", "alice", "on", ">p", "~a:*", "&*", "+@all")
    with Wire(at) as alice, Wire(at) as listener, Wire(at) as queue:
        for wire in (alice, listener, queue):
            assert wire("AUTH", "alice", "wrong").startswith("WRONGPASS") and wire("AUTH", "alice", "p") == "OK"
        assert alice("ACL", "WHOAMI") == b"alice"
        listener.send("SUBSCRIBE", "news")
        assert listener.read() == [b"subscribe", b"news", 1]
        assert queue("MULTI") == "OK" and queue("SET", "a:q", 1) == "QUEUED"
        assert alice("SET", "a:1", 1) == "OK" and alice("SET", "b:1", 1).startswith("NOPERM")
        for n in range(100):
            node.cmd("ACL", "SETUSER", "alice", "-set" if n % 2 else "+set")
            assert isinstance(alice("SET", "a:1", n), Error) == (n % 2 == 1), f"after change {n}"
        assert queue("EXEC").startswith("EXECABORT")
        node.cmd("ACL", "SETUSER", "alice", "resetchannels")
        assert listener.closed()
        node.cmd("ACL", "SETUSER", "bob", "on", "nopass", "+@all", "~*")
        with Wire(at) as bob:
            assert bob("AUTH", "bob", "x") == "OK" and bob("SET", "b", 1) == "OK"
            assert node.cmd("ACL", "DELUSER", "alice") == 1
            assert alice.closed()
            assert bob("GET", "b") == b"1"  # others stay
            node.cmd("ACL", "DELUSER", "bob")
            node.cmd("ACL", "SETUSER", "bob", "on", "nopass", "+@all", "~*")
            assert bob.closed()
    with Wire(at) as late:
        assert late("AUTH", "alice", "p").startswith("WRONGPASS")
        for words in (["SETUSER", "x", "on"], ["DELUSER", "bob"], ["LOAD"], ["SAVE"]):
            assert "at its own port" in late("ACL", *words)
        assert sorted(late("ACL", "USERS")) == [b"bob", b"default"]


@pytest.mark.sanitizer
def test_acl_load_and_requirepass(servers, tmp_path):
    path = tmp_path / "users.acl"
    path.write_text("user default on nopass ~* &* +@all\nuser alice on >p ~* &* +@all\n")
    at = At(free_port())
    node = servers.node("covey", proxy_port=at.port, aclfile=str(path))
    with Wire(at) as alice, Wire(at) as nobody:
        assert alice("AUTH", "alice", "p") == "OK" and nobody("SET", "k", 1) == "OK"
        path.write_text("user default on nopass ~* &* +@all -flushall\nuser alice on >q ~* &* +get\n")
        node.cmd("ACL", "LOAD")
        assert nobody("FLUSHALL").startswith("NOPERM") and nobody("GET", "k") == b"1"
        assert alice.closed()
    with Wire(at) as alice:
        assert alice("AUTH", "alice", "p").startswith("WRONGPASS") and alice("AUTH", "alice", "q") == "OK"
        assert alice("GET", "k") == b"1" and alice("SET", "k", 2).startswith("NOPERM")


def test_a_new_password_reaches_the_proxy(servers):
    cluster, ports = with_ports(servers, ["covey"] * 3)
    nodes = cluster.nodes
    client = ports[0].client()
    assert client.mset({f"k{n}": n for n in range(50)})
    for node in nodes:
        node.cmd("CONFIG", "SET", "masterauth", "secret")
        node.cmd("CONFIG", "SET", "requirepass", "secret")
    with Wire(ports[0]) as wire:
        assert wire("GET", "k1").startswith("NOAUTH") and wire("AUTH", "nonsense").startswith("WRONGPASS")
        assert wire("AUTH", "secret") == "OK" and wire("GET", "k1") == b"1"
        for node in nodes:  # and the proxy logs in with it when it connects anew
            node.new_client(password="secret").execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with Wire(ports[0]) as again:
            assert again("AUTH", "secret") == "OK"
            values = again("MGET", *[f"k{n}" for n in range(50)])
            assert values == [b"%d" % n for n in range(50)]
    for node in nodes:
        node.new_client(password="secret").config_set("requirepass", "")
        node.new_client().config_set("masterauth", "")


def test_scripts_of_the_default_user_are_the_nodes_to_judge(both):
    node, at = both
    node.cmd("ACL", "SETUSER", "default", "-flushall")
    node.cmd("ACL", "SETUSER", "alice", "on", "nopass", "~a:*", "+@all")
    with Wire(at) as wire:
        assert wire("EVAL", "return redis.call('SET', KEYS[1], 'x')", 1, "k") == "OK"
        assert "NOPERM" in wire("EVAL", "return redis.pcall('FLUSHALL')", 0) or "can't run this command" in wire("EVAL", "return redis.call('FLUSHALL')", 0)
        assert wire("AUTH", "alice", "x") == "OK"
        assert "limited-users-run-scripts" in wire("EVAL", "return 1", 1, "a:1")


def test_users_change_while_clients_work(both):
    node, at = both
    stop, wrong = threading.Event(), []
    node.cmd("ACL", "SETUSER", "alice", "on", "nopass", "~*", "+@all")

    def work(n):
        with Wire(at) as wire:
            assert wire("AUTH", "alice", "x") == "OK"
            while not stop.is_set():
                reply = wire("SET", f"k{n}", "v")
                if reply != "OK" and not str(reply).startswith("NOPERM"):
                    wrong.append(reply)
                    return
    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 3
    changes = 0
    while time.monotonic() < end:
        node.cmd("ACL", "SETUSER", "alice", "-set" if changes % 2 else "+set")
        changes += 1
    stop.set()
    for thread in threads:
        thread.join()
    print(f"{changes} changes of the users")
    assert not wrong and changes > 50


# ---------------------------------------------------------------------------------------------------- figures

@pytest.mark.sanitizer
def test_metrics_and_info_of_the_proxy_inside(servers):
    at, port = At(free_port()), free_port()
    node = servers.node("covey", proxy_port=at.port, proxy_metrics_port=port)

    def metrics():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
            return parse(page.read().decode())
    assert metrics()["covey_proxy_info"]
    client = at.client()
    for n in range(30):
        client.set(f"k{n}", n)
    node.cmd("SET", "not", "by the proxy")
    m = metrics()
    assert value(m, "covey_proxy_commands_total", command="set") == 30
    assert value(m, "covey_proxy_command_duration_seconds_count", command="set") == 30
    assert value(m, "covey_proxy_requests_total", backend=node.address, command="set") == 30
    assert value(m, "covey_proxy_backend_up", backend=node.address) == 1
    assert value(m, "covey_proxy_clients") >= 1
    node.cmd("ACL", "SETUSER", "alice", "on", "nopass", "-@all")
    with Wire(at) as alice:
        assert alice("AUTH", "alice", "x") == "OK" and alice("SET", "k", 1).startswith("NOPERM")
    assert value(metrics(), "covey_proxy_acl_refusals_total", reason="command") == 1
    info = client.info("everything")
    assert info["tcp_port"] == at.port and info["process_id"] == node.process.pid
    assert info["cmdstat_set"]["calls"] == 30 and info["cmdstat_set"]["rejected_calls"] == 1
    assert info["acl_access_denied_cmd"] == 1 and info["node_connections"] >= 1
    assert node.client.info("commandstats")["cmdstat_set"]["calls"] == 31
    assert node.config_get("proxy-metrics-port") == str(port)


def test_a_port_for_metrics_that_is_taken(servers):
    at = At(free_port())
    node = servers.node("covey", proxy_port=at.port)
    other = servers.node("covey", proxy_port=free_port(), proxy_metrics_port=node.port, start=False)
    with pytest.raises(covey.TestFailure, match="exited with 1"):
        other.start()
    other.expected_dead = True
    assert b"Cannot listen for metrics" in other.log_text()


def test_settings_of_the_node_reach_the_proxy(both):
    node, at = both
    node.cmd("CONFIG", "SET", "maxclients", "5")
    wait_for("the proxy to know", lambda: at.client().info("clients")["maxclients"] == 5)
    wires = []
    with pytest.raises((redis.RedisError, OSError, AssertionError)):
        for _ in range(10):
            wires.append(at.client())
            assert wires[-1].ping()
