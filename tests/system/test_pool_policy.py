"""Static pools: limits by user and address, users of an ACL file, and what INFO and /metrics say of their clients."""
import os
import re
import signal
import subprocess
import threading
import time
import urllib.request

import pytest
import redis

import covey
from covey import wait_for
from exposition import parse, value
from test_pool_proxy import Memcached, PoolProxy, ask, pool, request, servers_of


def named(nodes):
    return [f"{s} s{n}" for n, s in enumerate(servers_of(nodes))]


@pytest.fixture
def start(tmp_path):
    started = []

    def one(pools, *settings):
        started.append(PoolProxy(str(tmp_path / f"p{len(started)}"), pools, tcp=True, settings=[str(s) for s in settings]))
        return started[-1]
    yield one
    for p in started:
        assert p.close() == 0 and "Sanitizer" not in p.log_text()


def rate_of(exchanges, seconds):
    """How often a second these functions can be called together, each one call after the other."""
    done, began = [0] * len(exchanges), time.monotonic()
    end = began + seconds

    def go(i):
        while time.monotonic() < end:
            exchanges[i]()
            done[i] += 1
    threads = [threading.Thread(target=go, args=(i,)) for i in range(len(exchanges))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.monotonic() - began)


def with_password(node, password):
    node.cmd("CONFIG", "SET", "requirepass", password)
    return node


def getter(p, name, *login):
    s = p.connect(name)
    if login:
        assert ask(s, request("AUTH", *login)) == b"+OK\r\n"

    def get():
        assert ask(s, request("GET", "no such key")) == b"$-1\r\n"
    return get


# ---------------------------------------------------------------------------------------------------- limits

@pytest.mark.sanitizer
def test_limits_of_the_default_user(servers, start):
    nodes = [servers.node("redis") for _ in range(2)]
    p = start({"a": pool(servers_of(nodes)), "b": pool(servers_of(nodes))}, "--user-rate-limit", "default 200:20", "--workers", 2)
    some = [getter(p, name) for name in "aabba"]
    rate_of(some, 0.3)  # the burst
    assert 150 < rate_of(some, 2) < 240  # of all pools and workers together
    with p.connect("a") as s:
        begin = time.monotonic()
        s.sendall(b"".join(request("SET", f"k{n}", n) for n in range(100)) + b"".join(request("GET", f"k{n}") for n in range(100)))
        expected = b"+OK\r\n" * 100 + b"".join(b"$%d\r\n%d\r\n" % (len(str(n)), n) for n in range(100))
        got = b""
        while len(got) < len(expected):
            got += s.recv(65536)
        assert got == expected
        assert 0.7 < time.monotonic() - begin < 6 * covey.PATIENCE
    with p.client("a") as r:
        info = r.info("everything")
        assert info["delayed_requests_total"] > 300 and info["rate_limit_refusals"] == 0 and info["delayed_clients"] == 0


def test_who_has_not_logged_in_uses_up_nothing(servers, start):
    node = with_password(servers.node("redis"), "secret")
    p = start({"a": pool(servers_of([node]), more="  redis_auth: secret\n")}, "--user-rate-limit", "* 50:5")
    with p.connect("a") as stranger:
        begin = time.monotonic()
        for _ in range(400):
            assert ask(stranger, request("GET", "k")) == b"-NOAUTH Authentication required\r\n"
        assert time.monotonic() - begin < 6  # not at 50 a second
    get = getter(p, "a", "secret")
    rate_of([get], 0.2)
    assert 35 < rate_of([get], 2) < 70


def test_limits_by_address_and_of_bytes(servers, start):
    node = servers.node("redis")
    p = start({"a": pool(servers_of([node]))}, "--address-rate-limit", "0 1mb:256kb")
    node.client.set("big", b"x" * (512 << 10))
    with p.client("a") as r:
        begin = time.monotonic()
        for _ in range(4):
            assert len(r.get("big")) == 512 << 10
        reading = time.monotonic() - begin
        begin = time.monotonic()
        for _ in range(4):
            assert r.set("big", b"y" * (512 << 10))
        writing = time.monotonic() - begin
    assert 0.9 < reading < 10 * covey.PATIENCE and 1.2 < writing < 10 * covey.PATIENCE


@pytest.mark.sanitizer
def test_memcached_clients_are_limited(start):
    cache = Memcached()
    p = start({"a": f"  hash: md5\n  servers:\n   - 127.0.0.1:{cache.port}:1\n"}, "--user-rate-limit", "default 200:20", "--rate-limit-mode", "error")
    with p.connect("a") as s:
        replies = [ask(s, b"set n 0 0 1\r\n5\r\n") for _ in range(100)]
        errors = [r for r in replies if r != b"STORED\r\n"]
        assert 40 < len(errors) < 95 and all(re.fullmatch(rb"SERVER_ERROR ERR rate limit exceeded, try again in \d+ ms\r\n", e) for e in errors)
        s.sendall(b"set n 0 0 1 noreply\r\n0\r\n" + b"incr n 1 noreply\r\n" * 50)  # no reply would tell of a refusal: they pass, and are paid for
        time.sleep(0.8)
        assert ask(s, b"get n\r\n", 3) == b"VALUE n 0 2\r\n50\r\nEND\r\n"
    cache.close()


def test_a_reload_changes_the_limits(servers, tmp_path, start):
    node, config = servers.node("redis"), tmp_path / "limits.conf"
    config.write_text("user-rate-limit default 100:10\n")
    yml = tmp_path / "pools.yml"
    port = covey.free_port()
    yml.write_text(f"a:\n  listen: 127.0.0.1:{port}\n{pool(servers_of([node]))}\n")
    log = tmp_path / "log"
    process = subprocess.Popen([covey.COVEY_BIN, "proxy", str(config), "--pool", str(yml), "-o", str(log), "-s", str(covey.free_port())],
                               preexec_fn=covey.die_with_parent)
    try:
        client = redis.Redis(port=port)
        wait_for("the pool", lambda: client.ping() is True)
        client.info()
        rate_of([client.ping], 0.3)
        assert 60 < rate_of([client.ping], 1.5) < 150
        config.write_text("")
        process.send_signal(signal.SIGHUP)
        wait_for("the reload", lambda: "is read again" in log.read_text())
        assert rate_of([client.ping], 1) > 300
        client.close()
    finally:
        process.terminate()
        assert process.wait(20) == 0


# ---------------------------------------------------------------------------------------------------- users

@pytest.mark.sanitizer
def test_users_of_an_acl_file(servers, tmp_path, start):
    nodes, acl = [with_password(servers.node("redis"), "towards-servers") for _ in range(2)], tmp_path / "users.acl"
    acl.write_text("user default off\nuser reader on >r ~app:* +@read +ping\nuser writer on >w ~* &* +@all\nuser slow on >s ~* +@all\n")
    p = start({"a": pool(servers_of(nodes), more="  redis_auth: towards-servers\n")}, "--aclfile", acl, "--user-rate-limit", "slow 100:10",
              "--workers", 2)
    with p.connect("a") as s:
        assert ask(s, request("GET", "app:1")) == b"-NOAUTH Authentication required\r\n"
        assert ask(s, request("AUTH", "towards-servers")).startswith(b"-WRONGPASS")
        assert ask(s, request("AUTH", "reader", "w")).startswith(b"-WRONGPASS")
        assert ask(s, request("AUTH", "reader", "r")) == b"+OK\r\n"
        assert ask(s, request("GET", "app:1")) == b"$-1\r\n"
        assert ask(s, request("PING")) == b"+PONG\r\n"
        assert ask(s, request("GET", "other")) == b"-NOPERM this user has no permissions to access one of the keys used as arguments\r\n"
        assert ask(s, request("MGET", "app:1", "other")).startswith(b"-NOPERM this user has no permissions to access one of the keys")
        assert ask(s, request("SET", "app:1", "x")) == b"-NOPERM this user has no permissions to run the 'set' command\r\n"
        assert ask(s, request("ACL", "SETUSER", "reader", "+@all")).startswith(b"-NOPERM")
        with p.client("a", username="writer", password="w") as writer:
            assert writer.mset({f"app:{n}": n for n in range(20)})
            assert writer.acl_whoami() == "writer"
            logged = {(e["reason"], e["object"], e["username"]): int(e["count"]) for e in writer.acl_log()}
            assert logged[("key", "other", "reader")] == 2 and logged[("auth", "AUTH", "default")] == 1
            assert writer.acl_setuser("reader", enabled=True, commands=["+get"], categories=["-@all"], keys=["*"])
            assert ask(s, request("GET", "other")) == b"$-1\r\n"  # at once
            assert ask(s, request("MGET", "app:1")) == b"-NOPERM this user has no permissions to run the 'mget' command\r\n"
            assert writer.acl_deluser("reader") == 1
            wait_for("the deleted user's connection to end", lambda: s.recv(10) == b"")
            assert writer.info("commandstats")["cmdstat_get"]["rejected_calls"] == 1
    get = getter(p, "a", "slow", "s")
    rate_of([get], 0.3)
    assert 70 < rate_of([get], 2) < 140


@pytest.mark.sanitizer
def test_what_was_set_at_the_start_stays_through_reloads(servers, tmp_path, start):
    acl, control = tmp_path / "users.acl", tmp_path / "control"
    acl.write_text("user default off\nuser admin on >a ~* &* +@all\n")
    p = start({"a": pool(servers_of([servers.node("redis")]))}, "--aclfile", acl, "--control-socket", control, "--workers", 2)
    for name in ("one", "two"):
        p.reload()
        with p.connect("a") as s, p.client("a", username="admin", password="a") as admin:
            assert ask(s, request("GET", "k")) == b"-NOAUTH Authentication required\r\n"
            assert admin.get("k") is None
            assert admin.acl_setuser(name, enabled=True) and admin.acl_save()
        assert f"user {name} on" in acl.read_text() and control.exists()
    assert p.close() == 0 and not control.exists()


def test_users_that_cannot_be_read(tmp_path):
    (tmp_path / "users.acl").write_text("user x on nonsense\n")
    (tmp_path / "pools.yml").write_text(f"a:\n  listen: 127.0.0.1:{covey.free_port()}\n{pool(['127.0.0.1:1:1'])}\n")
    done = subprocess.run([covey.COVEY_BIN, "proxy", "--pool", str(tmp_path / "pools.yml"), "--aclfile", str(tmp_path / "users.acl"), "-s",
                           str(covey.free_port())], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and "The users cannot be read" in done.stdout + done.stderr


# ---------------------------------------------------------------------------------------------------- what is seen

@pytest.mark.sanitizer
def test_commands_of_pools_are_counted_and_timed(servers, start):
    nodes, cache, port = [servers.node("redis") for _ in range(2)], Memcached(), covey.free_port()
    p = start({"a": pool(named(nodes)), "b": pool(servers_of(nodes)), "m": f"  hash: md5\n  servers:\n   - 127.0.0.1:{cache.port}:1\n"},
              "--metrics-port", port, "--workers", 2)
    with p.client("a") as r, p.client("b") as other:
        for n in range(30):
            r.set(f"k{n}", n)
        assert r.mget([f"k{n}" for n in range(30)]) == [b"%d" % n for n in range(30)]
        other.lpush("list", 1)
        with pytest.raises(redis.ResponseError):
            other.get("list")
        with pytest.raises(redis.ResponseError):
            r.execute_command("BLPOP", "k", 0)
        assert r.ping()
        info = r.info("everything")
        assert info["pool"] == "a" and info["pool_servers"] == 2 and info["pool_servers_ejected"] == 0
        assert info["connected_clients"] >= 2
        assert info["cmdstat_set"]["calls"] == 30 and info["cmdstat_mget"]["calls"] == 1 and info["cmdstat_blpop"]["failed_calls"] == 1
        assert "cmdstat_lpush" not in info and other.info("commandstats")["cmdstat_get"]["failed_calls"] == 1
        assert other.info("errorstats")["errorstat_WRONGTYPE"] == "count=1"
        assert 0 < info["latency_percentiles_usec_set"]["p50"] <= info["latency_percentiles_usec_set"]["p99"] < 10_000_000
        assert "latency_percentiles_usec_ping" not in info
        assert info["backend_s0"]["requests"] + info["backend_s1"]["requests"] == 32
    with p.connect("m") as s:
        ask(s, b"set a 0 0 1 noreply\r\nx\r\nget a\r\n", 3)
        nodes_gone = ask(s, b"get " + b"x" * 300 + b"\r\n")
        assert nodes_gone.startswith((b"CLIENT_ERROR", b"ERROR", b"SERVER_ERROR"))

    def metrics():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
            return parse(page.read().decode())
    m = metrics()
    assert value(m, "covey_proxy_pool_commands_total", pool="a", command="set") == 30
    assert value(m, "covey_proxy_pool_commands_total", pool="b", command="set") is None
    assert value(m, "covey_proxy_pool_commands_failed_total", pool="b", command="get") == 1
    assert value(m, "covey_proxy_pool_command_duration_seconds_count", pool="a", command="set") == 30
    assert value(m, "covey_proxy_pool_command_duration_seconds_count", pool="a", command="mget") == 1
    assert value(m, "covey_proxy_pool_command_duration_seconds_count", pool="m", command="get") == 1
    assert value(m, "covey_proxy_pool_commands_total", pool="m", command="set") == 1
    assert value(m, "covey_proxy_pool_errors_total", pool="b", code="WRONGTYPE") == 1
    assert value(m, "covey_proxy_pool_errors_total", pool="m") == 1
    p.reload()  # counters go on
    assert value(metrics(), "covey_proxy_pool_commands_total", pool="a", command="set") == 30
    cache.close()


def test_slow_servers_show_in_the_latency(servers, start):
    node = servers.node("redis")
    p = start({"a": pool(named([node]))})
    with p.client("a") as r:
        node.pause()
        threading.Timer(0.4, node.resume).start()
        r.get("k")
        r.get("k")
        info = r.info("all")
        assert info["latency_percentiles_usec_get"]["p99.9"] > 300_000 > info["latency_percentiles_usec_get"]["p50"]
        assert info["backend_s0"]["p99.9"] > 300_000
