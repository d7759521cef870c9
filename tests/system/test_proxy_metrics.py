"""What covey proxy shows of itself: /metrics, INFO, SLOWLOG, hot keys, logs, and what it closes clients for."""
import http.client
import os
import random
import signal
import socket
import time

import pytest

import covey
import exposition
from covey import wait_for
from exposition import Malformed, value
from test_pool_proxy import Memcached
from test_proxy import Proxy
from wire import Closed, Wire

pytestmark = pytest.mark.skipif(covey.COVEY_IS_REDIS, reason="the proxy is Covey's")


class Measured(Proxy):
    def __init__(self, servers, nodes, **settings):
        self.metrics_port = covey.free_port()
        super().__init__(servers, nodes, metrics_port=self.metrics_port, **settings)

    def http(self, method="GET", path="/metrics"):
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=10)
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read().decode()
        connection.close()
        return response, body

    def metrics(self):
        response, body = self.http()
        assert response.status == 200
        assert response.getheader("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
        return exposition.parse(body)

    def info(self, *sections):
        with Wire(self) as wire:
            lines = wire("INFO", *sections).decode().split("\r\n")
        return dict(line.split(":", 1) for line in lines if line and line[0] != "#")


@pytest.fixture
def node(servers):
    return servers.node("redis")


@pytest.fixture
def proxy(servers, node):
    return Measured(servers, [node])


def test_the_parser_is_strict():
    good = '# HELP a_total x\n# TYPE a_total counter\na_total{b="\\"\\\\\\n"} 1\n'
    assert exposition.parse(good)["a_total"][2] == [("a_total", {"b": '"\\\n'}, 1.0)]
    histogram = ('# HELP h x\n# TYPE h histogram\nh_bucket{le="1"} 2\nh_bucket{le="+Inf"} 3\nh_sum 1\nh_count 3\n')
    exposition.parse(histogram)
    for bad in (good[:-1], good.replace("# TYPE", "#TYPE"), good.replace("counter", "timer"), good + good.split("\n")[2] + "\n",
                good.replace("\\n", "\\t"), good.replace("} 1", "}  1"), good.replace("} 1", "} x"), good.replace("b=", "1b="),
                good.replace("a_total{", "c_total{"), good.replace("} 1", "} -1"), histogram.replace("} 3", "} 1"),
                histogram.replace("count 3", "count 4"), histogram.replace('h_bucket{le="+Inf"} 3\n', "")):
        with pytest.raises((Malformed, ValueError, IndexError)):
            exposition.parse(bad)


def test_every_request_is_counted(proxy, node):
    backend = node.address
    with Wire(proxy) as wire:
        for n in range(100):
            assert wire("SET", f"k{n}", n) == "OK"
        for n in range(250):
            wire.send("GET", f"k{n % 100}")
        assert [wire.read() for _ in range(250)] == [str(n % 100).encode() for n in range(250)]
        assert wire("HGET", "k1", "f").startswith("WRONGTYPE")
        assert wire("NOSUCH").startswith("ERR unknown")
        assert wire("PING") == "PONG"
        assert len(wire("MGET", "k1", "k2", "k3")) == 3
    wait_for("the proxy to see that the client has gone", lambda: value(proxy.metrics(), "covey_proxy_clients") == 0)
    m = proxy.metrics()
    assert value(m, "covey_proxy_requests_total", backend=backend, command="set") == 100
    assert value(m, "covey_proxy_requests_total", backend=backend, command="get") == 250
    assert value(m, "covey_proxy_commands_total", command="get") == 250
    assert value(m, "covey_proxy_commands_total", command="ping") >= 1
    assert value(m, "covey_proxy_commands_failed_total", command="hget") == 1
    assert value(m, "covey_proxy_commands_failed_total", command="get") == 0
    assert value(m, "covey_proxy_backend_errors_total", backend=backend) == 1
    assert value(m, "covey_proxy_errors_total", code="WRONGTYPE") == value(m, "covey_proxy_errors_total", code="ERR") == 1
    assert value(m, "covey_proxy_command_duration_seconds_count", command="get") == 250
    assert value(m, "covey_proxy_backend_duration_seconds_count", backend=backend) == 352
    assert 0 < value(m, "covey_proxy_command_duration_seconds_sum", command="set") < 10
    assert value(m, "covey_proxy_backend_up", backend=backend) == 1
    assert value(m, "covey_proxy_backend_connections", backend=backend) >= 1
    assert value(m, "covey_proxy_clients") == 0 and value(m, "covey_proxy_connections_total") > 0
    assert value(m, "covey_proxy_retries_total") == 0 and value(m, "covey_proxy_held_requests") == 0
    assert value(m, "covey_proxy_info", version=proxy_version(proxy)) == 1
    info = proxy.info("everything")
    assert info["errorstat_WRONGTYPE"] == "count=1" and info["total_error_replies"] == "2"
    assert info["cmdstat_get"].startswith("calls=250,") and "failed_calls=1" in info["cmdstat_hget"]
    assert "p99=" in info["latency_percentiles_usec_get"]
    assert f"backend_{backend.split(':')[0]}" in info
    default = proxy.info()
    with Wire(proxy) as wire:
        assert wire("CONFIG", "RESETSTAT") == "OK"
    assert not [name for name in proxy.info("errorstats") if "WRONGTYPE" in name]
    assert "cmdstat_get" not in default and default["redis_version"] == "7.0.15"


def proxy_version(proxy):
    return proxy.info("server")["covey_version"]


def test_blocking_is_not_slow(proxy, node):
    with Wire(proxy) as wire:
        assert wire("BLPOP", "nothing", "0.3") is None
    m = proxy.metrics()
    assert value(m, "covey_proxy_commands_total", command="blpop") == 1
    assert value(m, "covey_proxy_command_duration_seconds_count", command="blpop") is None
    assert value(m, "covey_proxy_backend_duration_seconds_count") == 0


def test_http(proxy):
    assert proxy.http(path="/")[0].status == 404
    response, body = proxy.http("HEAD")
    assert response.status == 200 and body == ""
    response, _ = proxy.http("POST")
    assert response.status == 405 and response.getheader("Allow") == "GET, HEAD"
    kept = http.client.HTTPConnection("127.0.0.1", proxy.metrics_port, timeout=10)
    for _ in range(20):
        kept.request("GET", "/metrics")
        exposition.parse(kept.getresponse().read().decode())
    kept.close()


@pytest.mark.sanitizer
def test_hostile_http(proxy):
    rng = random.Random(7)
    open_ones = []
    for n in range(150):
        s = socket.create_connection(("127.0.0.1", proxy.metrics_port))
        s.settimeout(10)
        kind = n % 5
        try:
            if kind == 0:
                s.sendall(rng.randbytes(5000))
            elif kind == 1:
                s.sendall(b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 100000)
            elif kind == 2:
                s.sendall(b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\n\r\n")
            elif kind == 3:
                s.sendall(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nxx")
            else:
                s.sendall(b"GET /metrics HTTP/1.0\r\n")
        except OSError:
            pass
        open_ones.append(s)
    with Wire(proxy) as wire:
        assert wire("SET", "a", "b") == "OK"  # serving clients is none of its business
    for s in open_ones:
        s.close()
    wait_for("metrics to be served again", lambda: proxy.http()[0].status == 200)


def test_a_node_that_goes_down_and_comes_back(servers, proxy, node):
    with Wire(proxy) as wire:
        assert wire("SET", "a", "1") == "OK"
        node.kill()

        wire.send("GET", "a")
        wait_for("the node to be known as down", lambda: value(proxy.metrics(), "covey_proxy_backend_up", backend=node.address) == 0)
        wait_for("a held request", lambda: value(proxy.metrics(), "covey_proxy_held_requests_total") > 0)
        node.start()
        assert wire.read() is None
        wait_for("the node to be known as up",
                 lambda: value(proxy.metrics(), "covey_proxy_backend_up", backend=node.address) == 1)
    m = proxy.metrics()
    assert value(m, "covey_proxy_retries_total") > 0 and value(m, "covey_proxy_node_connection_failures_total") > 0
    log = open(proxy.log).read()
    assert log.count(f"Node {node.address} is down: ") == 1 and log.count(f"Node {node.address} is up again") == 1


def test_a_failover_is_seen(servers):
    cluster = servers.cluster(["covey"] * 6, replicas=1, timeout=2000)
    proxy = Measured(servers, cluster.nodes[:2], refresh_period=200)
    with Wire(proxy) as wire:
        for n in range(50):
            assert wire("SET", f"k{n}", n) == "OK"
        before = proxy.metrics()
        cluster.nodes[0].kill()

        def seen():
            wire("SET", "k1", "x")
            return value(proxy.metrics(), "covey_proxy_failovers_total") == 1
        wait_for("the failover", seen, timeout=30)
    after = proxy.metrics()
    assert value(before, "covey_proxy_failovers_total") == 0
    assert len({labels["backend"] for _, labels, _ in before["covey_proxy_backend_up"][2]}) == 3
    assert value(after, "covey_proxy_topology_changes_total") > value(before, "covey_proxy_topology_changes_total")
    assert value(after, "covey_proxy_slots_moved_total") == 0
    log = open(proxy.log).read()
    assert log.count("Failover: ") == 1 and f"slots of {cluster.nodes[0].address}" in log


def test_slowlog_has_the_time_the_client_saw(servers, node):
    proxy = Measured(servers, [node], slowlog_log_slower_than=50000, slowlog_max_len=5)
    with Wire(proxy) as wire, Wire(proxy) as other:
        assert wire("CLIENT", "SETNAME", "slow-one") == "OK"
        assert wire("SET", "fast", 1) == "OK"
        other.send("EVAL", "local n = 0; while n < 30000000 do n = n + 1 end return n", 0)
        time.sleep(0.02)
        assert wire("SET", "waits", "x" * 300) == "OK"  # fast on the node, slow for the client
        other.read()
        log = wire("SLOWLOG", "GET", "-1")
        names = [entry[3][0] for entry in log]
        assert b"EVAL" in names
        if b"SET" in names:
            entry = log[names.index(b"SET")]
            assert entry[2] > 50000 and entry[3][1] == b"waits" and entry[3][2].endswith(b"... (172 more bytes)")
            assert entry[5] == b"slow-one" and entry[4].startswith(b"127.0.0.1:")
        assert wire("SLOWLOG", "LEN") == len(log)
        assert wire("SLOWLOG", "RESET") == "OK" and wire("SLOWLOG", "GET") == []
        assert b"GET [<count>]" in [line.encode() for line in wire("SLOWLOG", "HELP")]
    proxy = Measured(servers, [node], slowlog_log_slower_than=0, slowlog_max_len=5)
    with Wire(proxy) as wire:
        for n in range(10):
            wire("SET", f"k{n}", "v")
        wire("MULTI"), wire("SET", "a", 1), wire("EXEC"), wire("AUTH", "secret")
        log = wire("SLOWLOG", "GET")
        assert [entry[3] for entry in log] == [[b"EXEC", b"SET", b"a", b"1"]] + [[b"SET", b"k%d" % n, b"v"] for n in (9, 8, 7, 6)]
        assert wire("SLOWLOG", "GET", "-2").startswith("ERR count should be")


def test_hot_keys(servers, node):
    proxy = Measured(servers, [node], key_sampling=4)
    with Wire(proxy) as wire:
        for n in range(3000):
            wire.send("GET", "hot" if n % 2 else f"cold{n}")
            if n % 100 == 99:
                for _ in range(100):
                    wire.read()
    assert '"hot"' in proxy.info("hotkeys")["hotkey_0"]


@pytest.mark.sanitizer
def test_metrics_while_clients_work(servers, node):
    """Counters of all threads are read while they grow: every scrape holds together."""
    proxy = Measured(servers, [node], workers=4)
    wires = [Wire(proxy) for _ in range(8)]
    end, scrapes, last = time.monotonic() + 3, 0, 0
    while time.monotonic() < end:
        for wire in wires:
            for n in range(50):
                wire.send("SET", f"k{n}", n)
        m = proxy.metrics()
        total = value(m, "covey_proxy_commands_total", command="set") or 0
        assert total >= last
        last, scrapes = total, scrapes + 1
        for wire in wires:
            for _ in range(50):
                assert wire.read() == "OK"
    assert scrapes > 5
    assert value(proxy.metrics(), "covey_proxy_commands_total", command="set") == scrapes * 8 * 50
    for wire in wires:
        wire.close()


# ---------------------------------------------------------------------------------------------------- limits of clients

def test_a_subscriber_that_does_not_read_is_cut_off(servers, node):
    proxy = Measured(servers, [node], client_output_buffer_limit="normal 0 0 0 replica 1mb 1mb 1 pubsub 4mb 1mb 1")
    with Wire(proxy, receive_buffer=4096) as slow, Wire(proxy) as other:
        assert slow("GET", "c") is None and slow("SUBSCRIBE", "c")[0] == b"subscribe"
        for _ in range(20):
            other("PUBLISH", "c", b"x" * (1 << 20))
        wait_for("it to be cut off", lambda: value(proxy.metrics(), "covey_proxy_clients_cut_off_total", buffer="output") == 1)
        with pytest.raises((Closed, ConnectionError, AssertionError)):
            while True:
                assert slow.sock.recv(1 << 20)
    assert "client-output-buffer-limit pubsub" in open(proxy.log).read()
    proxy = Measured(servers, [node], client_output_buffer_limit="pubsub 64mb 1mb 3")
    with Wire(proxy, receive_buffer=4096) as slow, Wire(proxy) as other:
        assert slow("GET", "c") is None and slow("SUBSCRIBE", "c")[0] == b"subscribe"
        started = time.monotonic()
        for _ in range(20):
            other("PUBLISH", "c", b"x" * (1 << 20))
        cut_off = value(proxy.metrics(), "covey_proxy_clients_cut_off_total", buffer="output")
        assert cut_off == 0 or time.monotonic() - started > 2.5
        wait_for("the soft limit", lambda: value(proxy.metrics(), "covey_proxy_clients_cut_off_total", buffer="output") == 1)
    assert "client-output-buffer-limit pubsub" in open(proxy.log).read()


def test_normal_clients_have_a_limit_of_their_own(servers, node):
    node.client.set("mb", b"x" * (1 << 20))
    proxy = Measured(servers, [node], client_output_buffer_limit="normal 3mb 0 0")
    with Wire(proxy, receive_buffer=4096) as slow:
        for _ in range(30):
            slow.send("GET", "mb")
        wait_for("it to be cut off", lambda: value(proxy.metrics(), "covey_proxy_clients_cut_off_total", buffer="output") == 1)


def test_query_buffer_limit(servers, node):
    proxy = Measured(servers, [node], client_query_buffer_limit="2mb")
    with Wire(proxy) as wire:
        assert wire("SET", "k", b"x" * (1 << 20)) == "OK"
        with pytest.raises((Closed, ConnectionError)):
            wire("SET", "k", b"x" * (4 << 20))
    assert value(proxy.metrics(), "covey_proxy_clients_cut_off_total", buffer="query") == 1


@pytest.mark.parametrize("limit", ["normal 1", "normal 1 2 x", "strange 1 2 3", "normal -1 0 0"])
def test_output_limits_that_make_no_sense(servers, node, limit):
    done = os.spawnvp(os.P_WAIT, covey.COVEY_BIN, [covey.COVEY_BIN, "proxy", "--cluster", node.address, "--client-output-buffer-limit", limit])
    assert done == 2


def test_memory_of_idle_clients(servers, node):
    proxy = Measured(servers, [node], maxclients=12000)
    count = 10000 if covey.PATIENCE == 1 else 1000
    before = int(proxy.info("memory")["used_memory"])
    clients = []
    for _ in range(count):
        clients.append(socket.create_connection(("127.0.0.1", proxy.port)))
    wait_for("all to be there", lambda: value(proxy.metrics(), "covey_proxy_clients") == count, timeout=30)
    fresh = (int(proxy.info("memory")["used_memory"]) - before) / count
    for s in clients:
        s.sendall(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n")
    for s in clients:
        assert s.recv(100) == b"$-1\r\n"
    used = (int(proxy.info("memory")["used_memory"]) - before) / count
    print(f"{count} idle clients: {fresh:.0f} bytes each when new, {used:.0f} after a command")
    for s in clients:
        s.close()
    assert fresh < 1500 and used < 4500


# ---------------------------------------------------------------------------------------------------- static pools

@pytest.mark.sanitizer
def test_pools_are_measured_beside_a_cluster(servers, node):
    memcached = Memcached()
    ports = [covey.free_port(), covey.free_port()]
    path = os.path.join(servers.base, "pools.yml")
    with open(path, "w") as file:
        file.write(f"""alpha:
  listen: 127.0.0.1:{ports[0]}
  redis: true
  timeout: 2000
  hash: md5
  servers:
    - {node.address}:1 first
    - 127.0.0.1:1:1 nobody
beta:
  listen: 127.0.0.1:{ports[1]}
  servers:
    - 127.0.0.1:{memcached.port}:1
""")
    proxy = Measured(servers, [node], pool=path, stats_port=covey.free_port())
    with Wire(proxy) as wire:
        assert wire("SET", "cluster", 1) == "OK"
    good = 0
    with socket.create_connection(("127.0.0.1", ports[0])) as s, s.makefile("rb") as lines:
        for n in range(40):
            s.sendall(b"SET key%d v\r\n" % n)
            line = lines.readline()
            assert line == b"+OK\r\n" or line.startswith(b"-ERR Connection refused")
            good += line == b"+OK\r\n"
        s.sendall(b"HGET key0 x\r\nHGET key1 x\r\nHGET key2 x\r\nHGET key3 x\r\n")
        errors = sum(lines.readline().startswith(b"-WRONGTYPE") for _ in range(4))
    with socket.create_connection(("127.0.0.1", ports[1])) as s, s.makefile("rb") as lines:
        s.sendall(b"set a 0 0 1\r\nx\r\nget a\r\n")
        assert [lines.readline() for _ in range(4)] == [b"STORED\r\n", b"VALUE a 0 1\r\n", b"x\r\n", b"END\r\n"]
    m = proxy.metrics()
    assert 0 < good < 40
    assert value(m, "covey_proxy_requests_total", command="set") == 1
    pool = "covey_proxy_pool_requests_total"
    assert value(m, pool, pool="alpha", backend="first", command="set") == good
    assert value(m, pool, pool="beta", command="get") == value(m, pool, pool="beta", command="set") == 1
    assert value(m, "covey_proxy_pool_backend_errors_total", pool="alpha", backend="first") == errors
    assert value(m, "covey_proxy_pool_backend_duration_seconds_count", pool="alpha", backend="first") == good + errors
    assert value(m, "covey_proxy_pool_backend_up", backend="nobody") == 0
    assert value(m, "covey_proxy_pool_backend_up", backend="first") == 1
    assert value(m, "covey_proxy_pool_backend_connections", backend="first") >= 1
    proxy.signal(signal.SIGHUP)  # counters go on
    wait_for("the reload", lambda: "read again" in open(proxy.log).read())
    assert value(proxy.metrics(), pool, pool="alpha", backend="first", command="set") == good
