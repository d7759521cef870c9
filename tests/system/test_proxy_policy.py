"""covey proxy: users of its clients, what they may do, and how fast."""
import os
import signal
import socket
import subprocess
import threading
import time

import pytest

import covey
from covey import wait_for
from test_proxy import Proxy
from wire import Error, Wire

pytestmark = pytest.mark.skipif(covey.COVEY_IS_REDIS, reason="the proxy is Covey's")

USERS = """user default on nopass ~* &* +@all
user reader on >read-secret ~app:* %R~shared:* resetchannels &news* +@read +@connection +multi +exec +discard +subscribe +psubscribe +publish
user writer on >w1 >w2 ~app:* resetchannels +@all -@dangerous
user off off >x ~* +@all
user selector on >s ~a:* +get (~b:* +set)
"""


@pytest.fixture(scope="module")
def backend(module_servers):
    return module_servers.node("redis")


@pytest.fixture
def setup(servers, backend):
    path = os.path.join(servers.base, "users.acl")
    with open(path, "w") as file:
        file.write(USERS)
    backend.client.flushall()
    return Proxy(servers, [backend], aclfile=path), path


@pytest.fixture
def oracle(servers, setup):
    """A redis-server with the same users."""
    return servers.node("redis", aclfile=setup[1])


REQUESTS = [
    ("GET", "app:1"), ("GET", "other"), ("SET", "app:1", "v"), ("GET", "shared:1"), ("SET", "shared:1", "v"),
    ("MGET", "app:1", "app:2"), ("MGET", "app:1", "x"), ("DEL", "app:1"), ("FLUSHALL",), ("KEYS", "*"), ("CONFIG", "GET", "maxmemory"),
    ("PUBLISH", "news:1", "m"), ("PUBLISH", "other", "m"), ("ACL", "WHOAMI"), ("ACL", "LIST"), ("ACL", "SETUSER", "me"), ("DBSIZE",),
    ("GET", "a:1"), ("SET", "a:1", "v"), ("GET", "b:1"), ("SET", "b:1", "v"), ("COPY", "app:{1}", "{1}"), ("COPY", "app:{1}", "app:{1}2"),
    ("RENAME", "app:{nothing}", "{nothing}"), ("OBJECT", "ENCODING", "x"), ("OBJECT", "ENCODING", "app:none"), ("CLIENT", "GETNAME"),
    ("SORT", "app:l", "BY", "w_*"), ("SORT", "app:l", "GET", "w_*"), ("SORT", "app:l", "LIMIT", "0", "1", "BY", "nosort"),
    ("SORT", "app:{l}", "STORE", "{l}"), ("XREAD", "STREAMS", "app:{s}", "{s}", "0", "0"), ("ECHO", "x"), ("NOSUCH", "x"), ("GET",),
    ("SINTERSTORE", "app:{d}", "app:{d}1", "shared:{d}1"), ("EXEC",), ("MEMORY", "USAGE", "x"), ("SPUBLISH", "news", "m"),
]


@pytest.mark.parametrize("user,password", [("reader", "read-secret"), ("writer", "w2"), ("selector", "s"), ("default", "any")])
def test_users_may_what_they_may_with_redis(setup, oracle, user, password):
    ours, theirs = Wire(setup[0]), Wire(oracle)
    refused = 0
    assert ours("AUTH", user, password) == theirs("AUTH", user, password) == "OK"
    for request in REQUESTS:
        if user == "default" and request[0] in ("ACL", "SORT", "CONFIG"):
            continue
        got, want = ours(*request), theirs(*request)
        assert got == want, request
        refused += str(want).startswith("NOPERM")
    assert refused > 8 or user == "default"
    ours.close()
    theirs.close()


def in_order(reply):
    """Redis lists single commands in the order of a hash table."""
    if isinstance(reply, bytes):
        return sorted(reply.split())
    return [in_order(part) for part in reply] if isinstance(reply, list) else reply


@pytest.mark.parametrize("command", [
    ("LIST",), ("USERS",), ("WHOAMI",), ("GETUSER", "reader"), ("GETUSER", "selector"), ("GETUSER", "nobody"), ("CAT",),
    ("CAT", "none"), ("DRYRUN", "reader", "GET", "app:1"), ("DRYRUN", "reader", "GET", "x"), ("DRYRUN", "reader", "FLUSHALL"),
    ("DRYRUN", "nobody", "GET", "x"), ("DRYRUN", "reader", "NOSUCH"), ("DRYRUN", "reader", "PUBLISH", "x", "y"), ("GENPASS", "0"),
    ("SETUSER", "new", "on", "~x"), ("SETUSER", "bad name"), ("SETUSER", "new", "+nosuch"), ("SETUSER", "new", "(+get"),
    ("DELUSER", "new", "nobody"), ("DELUSER", "default"), ("LOG", "RESET"), ("LOG", "x"), ("LIST",), ("LOAD",), ("LIST",), ("NOSUCH",),
])
def test_acl_replies_as_redis_does(setup, oracle, command):
    with Wire(setup[0]) as ours, Wire(oracle) as theirs:
        got, want = ours("ACL", *command), theirs("ACL", *command)
        assert in_order(got) == in_order(want)


def test_passwords_and_the_log_of_refusals(setup):
    proxy = setup[0]
    with Wire(proxy) as wire:
        assert wire("AUTH", "reader", "wrong") == Error("WRONGPASS invalid username-password pair or user is disabled.")
        assert wire("AUTH", "off", "x") == Error("WRONGPASS invalid username-password pair or user is disabled.")
        assert wire("AUTH", "nobody", "x").startswith("WRONGPASS")
        assert wire("HELLO", "2", "AUTH", "reader", "bad").startswith("WRONGPASS")
        assert wire("ACL", "WHOAMI") == b"default"
        assert wire("AUTH", "writer", "w1") == "OK" and wire("ACL", "WHOAMI") == b"writer"
        assert wire("AUTH", "reader", "read-secret") == "OK"
        assert wire("GET", "x") == Error("NOPERM this user has no permissions to access one of the keys used as arguments")
        assert wire("SET", "app:1", "x") == Error("NOPERM this user has no permissions to run the 'set' command")
        assert wire("SUBSCRIBE", "sports").startswith("NOPERM this user has no permissions to access one of the channels")
        assert wire("RESET") == "RESET" and wire("ACL", "WHOAMI") == b"default"
        log = [dict(zip(entry[::2], entry[1::2])) for entry in wire("ACL", "LOG")]
    assert [(e[b"reason"], e[b"object"], e[b"username"]) for e in log] == [
        (b"channel", b"sports", b"reader"), (b"command", b"set", b"reader"), (b"key", b"x", b"reader"), (b"auth", b"HELLO", b"reader"),
        (b"auth", b"AUTH", b"nobody"), (b"auth", b"AUTH", b"off"), (b"auth", b"AUTH", b"reader")]
    assert b"user=reader" in log[0][b"client-info"]


def test_a_refusal_spoils_the_transaction(setup):
    with Wire(setup[0]) as wire:
        assert wire("AUTH", "reader", "read-secret") == "OK"
        assert wire("MULTI") == "OK" and wire("GET", "app:1") == "QUEUED" and wire("GET", "x").startswith("NOPERM")
        assert wire("EXEC").startswith("EXECABORT")
        assert wire("MULTI") == "OK" and wire("GET", "app:1") == "QUEUED"
        with Wire(setup[0]) as admin:
            assert admin("ACL", "SETUSER", "reader", "-get") == "OK"
        assert wire("EXEC").startswith("EXECABORT")
        assert wire("GET", "app:1") == Error("NOPERM this user has no permissions to run the 'get' command")


@pytest.mark.sanitizer
def test_changes_hold_for_all_workers_at_once(servers, backend):
    proxy = Proxy(servers, [backend], workers=4)
    with Wire(proxy) as admin:
        others = [Wire(proxy) for _ in range(12)]
        for turn in range(60):
            password = f"p{turn}"
            assert admin("ACL", "SETUSER", "u", "reset", "on", f">{password}", "~*", "+@all" if turn % 2 else "+get") == "OK"
            for wire in others:
                assert wire("AUTH", "u", password) == "OK"
            assert admin("ACL", "SETUSER", "u", "-echo" if turn % 2 else "+echo") == "OK"
            for wire in others:
                reply = wire("ECHO", "x")
                assert (reply == b"x") == (turn % 2 == 0), reply
        for wire in others:
            wire.close()


@pytest.mark.sanitizer
def test_who_is_deleted_or_read_anew_is_disconnected(setup, backend):
    proxy, path = setup
    listener, reader, writer = Wire(proxy), Wire(proxy), Wire(proxy)
    assert listener("AUTH", "reader", "read-secret") == reader("AUTH", "reader", "read-secret") == "OK"
    assert writer("AUTH", "writer", "w1") == "OK"
    assert listener("GET", "app:1") is None  # the proxy knows the nodes from here on
    assert listener("SUBSCRIBE", "news")[0] == b"subscribe"
    with Wire(proxy) as admin:
        assert admin("ACL", "SETUSER", "reader", "resetchannels", "&other") == "OK"
        assert listener.sock.recv(10) == b""  # what it listens to is not its any more
        assert reader("GET", "app:1") is None
        assert admin("ACL", "DELUSER", "reader") == 1
        assert reader.sock.recv(10) == b""
        assert writer("SET", "app:1", "x") == "OK"
        assert admin("ACL", "LOAD") == "OK"
        assert writer.sock.recv(10) == b""
        assert admin("PING") == "PONG"
        assert admin("ACL", "SETUSER", "kept", "on", ">k", "~k*", "+@all") == "OK"
        assert admin("ACL", "SAVE") == "OK"
    assert "user kept on" in open(path).read()
    with open(path, "a") as file:
        file.write("user broken +nosuch\n")
    with Wire(proxy) as admin:
        reply = admin("ACL", "LOAD")
        assert "users.acl:" in reply and "WARNING: ACL errors detected" in reply
        assert b"kept" in admin("ACL", "USERS") and b"broken" not in admin("ACL", "USERS")


def test_a_proxy_with_a_broken_file_does_not_start(servers, backend):
    path = os.path.join(servers.base, "broken.acl")
    with open(path, "w") as file:
        file.write("user x +nosuch\n")
    words = [covey.COVEY_BIN, "proxy", "--listen", str(covey.free_port()), "--cluster", backend.address, "--aclfile", path]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and "+nosuch" in done.stdout


def test_requirepass_is_the_default_users(servers, backend):
    proxy = Proxy(servers, [backend], wait=False, requirepass="letmein")
    with Wire(proxy) as wire:
        assert wire("GET", "x") == Error("NOAUTH Authentication required.")
        assert wire("ACL", "WHOAMI") == Error("NOAUTH Authentication required.")
        assert wire("AUTH", "no").startswith("WRONGPASS") and wire("AUTH", "letmein") == "OK"
        assert wire("GET", "x") is None
        assert wire("ACL", "SETUSER", "default", "nopass") == "OK"
    with Wire(proxy) as wire:
        assert wire("GET", "x") is None


def test_scripts_of_limited_users(servers, setup, backend):
    with Wire(setup[0]) as wire:
        assert wire("EVAL", "return 1", 0) == 1
        assert wire("AUTH", "writer", "w1") == "OK"
        assert wire("EVAL", "return redis.call('get', 'other')", 0).startswith("NOPERM the proxy cannot see what a script does")
    open_one = Proxy(servers, [backend], aclfile=setup[1], limited_users_run_scripts="yes")
    with Wire(open_one) as wire:
        assert wire("AUTH", "writer", "w1") == "OK"
        assert wire("EVAL", "return 1", 0) == 1
        assert wire("EVAL", "return 1", 1, "other").startswith("NOPERM")


def test_other_users_towards_the_nodes(servers):
    node = servers.node("redis", user="proxy on >node-secret ~* &* +@all".split())
    with node.new_client() as client:
        client.acl_setuser("default", enabled=False)
    proxy = Proxy(servers, [node], masteruser="proxy", masterauth="node-secret")
    with proxy.new_client() as client:
        assert client.set("k", "v") and client.get("k") == b"v"
        assert client.acl_whoami() == "default"
        assert client.acl_users() == ["default"]  # the node's are the node's


# ---------------------------------------------------------------------------------------------------- limits

def rate_of(clients, seconds=2.0):
    """Requests a second that these connections get done together, each one after the other."""
    done, began = [0] * len(clients), time.monotonic()
    end = began + seconds

    def go(i):
        while time.monotonic() < end:
            assert clients[i]("ECHO", "x") == b"x"
            done[i] += 1
    threads = [threading.Thread(target=go, args=(i,)) for i in range(len(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.monotonic() - began)


def as_user(proxy, user, password="p"):
    wire = Wire(proxy)
    assert wire("AUTH", user, password) == "OK"
    return wire


@pytest.fixture
def limited(servers, backend):
    path = os.path.join(servers.base, "limited.acl")
    with open(path, "w") as file:
        file.write("user default on nopass ~* &* +@all\n" + "".join(f"user {u} on >p ~* &* +@all\n" for u in ("slow", "one", "two", "bulk")))
    config = os.path.join(servers.base, "limits.conf")
    with open(config, "w") as file:
        file.write("user-rate-limit slow 200:20\nuser-rate-limit bulk 0 1mb:256kb\nuser-rate-limit default 1000000\nuser-rate-limit * 100:10\n")

    class WithFile(Proxy):
        def command(self):
            words = super().command()
            return words[:2] + [config] + words[2:]
    return lambda **settings: WithFile(servers, [backend], aclfile=path, **settings)


def test_a_users_requests_are_delayed_to_its_rate(limited):
    proxy = limited()
    slow = [as_user(proxy, "slow") for _ in range(5)]
    rate_of(slow, 0.3)  # the burst
    assert 150 < rate_of(slow) < 240  # 200 for all of them together, on whatever workers they are
    others = [as_user(proxy, "one"), as_user(proxy, "two")]
    rate_of(others, 0.3)
    assert 150 < rate_of(others) < 260  # 100 each: "*" is a limit of each
    with Wire(proxy) as free:
        started = time.monotonic()
        for _ in range(1000):
            assert free("PING") == "PONG"
        assert time.monotonic() - started < 7 * covey.PATIENCE  # not at 100 a second
        info = free("INFO", "proxy").decode()
    assert int(info.split("delayed_requests_total:")[1].split()[0]) > 300


@pytest.mark.sanitizer
def test_a_pipeline_is_delayed_and_answered_in_order(limited):
    proxy = limited()
    with as_user(proxy, "slow") as wire:
        started = time.monotonic()
        for n in range(220):
            wire.send("ECHO", n)
        assert [wire.read() for _ in range(220)] == [str(n).encode() for n in range(220)]
        took = time.monotonic() - started
        assert 0.8 < took < 6 * covey.PATIENCE  # 19 at once (AUTH took none), the rest at 200 a second


def test_bytes_are_limited_both_ways(limited, backend):
    proxy = limited()
    backend.client.set("big", b"x" * (512 << 10))
    with as_user(proxy, "bulk") as wire:
        started = time.monotonic()
        for _ in range(4):
            assert len(wire("GET", "big")) == 512 << 10
        reading = time.monotonic() - started
        started = time.monotonic()
        for _ in range(4):
            assert wire("SET", "big", b"y" * (512 << 10)) == "OK"
        writing = time.monotonic() - started
    assert 0.9 < reading < 10 * covey.PATIENCE and 1.2 < writing < 10 * covey.PATIENCE


@pytest.mark.sanitizer
def test_the_delayed_may_leave(limited):
    proxy = limited()
    for _ in range(5):
        with as_user(proxy, "one") as wire:
            for n in range(200):
                wire.send("SET", f"k{n}", n)
            assert wire.read() == "OK"
    with Wire(proxy) as wire:
        wait_for("nobody to be delayed", lambda: b"delayed_clients:0\r\n" in wire("INFO"))


def test_too_fast_may_be_an_error(limited):
    proxy = limited(rate_limit_mode="error")
    with as_user(proxy, "slow") as wire:
        replies = [wire("ECHO", "x") for _ in range(200)]
        errors = [r for r in replies if isinstance(r, Error)]
        assert len(errors) > 100 and all(r.startswith("ERR rate limit exceeded, try again in ") for r in errors)
        assert 15 < len(replies) - len(errors) < 80
        time.sleep(0.2)
        assert wire("ECHO", "x") == b"x"
        time.sleep(0.2)
        assert wire("MULTI") == "OK"
        for n in range(100):
            assert wire("SET", "t", n) == "QUEUED"  # a transaction is let through as a whole
        assert wire("EXEC") == ["OK"] * 100


def test_addresses_are_limited(servers, backend):
    proxy = Proxy(servers, [backend], wait=False, address_rate_limit="100:50")
    with Wire(proxy) as one, Wire(proxy) as two:
        rate_of([one, two], 0.5)
        assert 70 < rate_of([one, two]) < 130
        def burst(source):
            with socket.create_connection(("127.0.0.1", proxy.port), source_address=(source, 0)) as other:
                other.settimeout(10 * covey.PATIENCE)
                started = time.monotonic()
                other.sendall(b"*1\r\n$4\r\nPING\r\n" * 50)
                got = b""
                while len(got) < 50 * 7:
                    got += other.recv(1000)
                return time.monotonic() - started
        # At once, and not at 100 a second; each address has a burst of its own, in case that the machine was busy.
        assert any(burst(f"127.0.0.{n}") < 0.4 for n in range(9, 15))


def test_strangers_do_not_use_up_a_users_limit(servers, backend):
    config = os.path.join(servers.base, "limits.conf")
    with open(config, "w") as file:
        file.write("user-rate-limit default 10:50 20kb:20kb\n")

    class WithFile(Proxy):
        def command(self):
            words = super().command()
            return words[:2] + [config] + words[2:]
    proxy = WithFile(servers, [backend], wait=False, requirepass="secret")
    with Wire(proxy) as stranger:
        for _ in range(2000):
            stranger.send("GET", "x")
        assert all(stranger.read().startswith("NOAUTH") for _ in range(2000))  # 60 KB, at once
    with Wire(proxy) as wire:
        started = time.monotonic()
        assert wire("AUTH", "secret") == "OK"
        for _ in range(45):
            assert wire("ECHO", "x") == b"x"
        assert time.monotonic() - started < 3  # not at 10 a second


def test_the_address_behind_a_balancer_counts(servers, backend):
    proxy = Proxy(servers, [backend], wait=False, address_rate_limit="5:20", accept_proxy="yes")

    def times(source, count):
        with socket.create_connection(("127.0.0.1", proxy.port)) as s:
            s.settimeout(20)
            started = time.monotonic()
            s.sendall(b"PROXY TCP4 %s 10.0.0.9 1234 6379\r\n" % source + b"*1\r\n$4\r\nPING\r\n" * count)
            got = b""
            while len(got) < count * 7:
                got += s.recv(1000)
            return time.monotonic() - started
    assert times(b"10.1.0.1", 20) < 2.5
    assert times(b"10.1.0.2", 20) < 2.5  # not at 5 a second
    assert times(b"10.1.0.1", 20) > 0.4


@pytest.mark.sanitizer
def test_limits_change_with_a_reload(servers, limited):
    proxy = limited()
    config = os.path.join(servers.base, "limits.conf")
    with as_user(proxy, "slow") as slow, Wire(proxy) as other:
        rate_of([slow], 0.3)
        assert rate_of([slow], 1) < 260

        def reload(text, count):
            with open(config, "w") as file:
                file.write(text)
            proxy.signal(signal.SIGHUP)
            wait_for("the reload", lambda: open(proxy.log).read().count("settings are read again") == count)
        reload("", 1)
        assert rate_of([slow], 1) > 400
        reload("user-rate-limit slow 50:5\naddress-rate-limit 5000\n", 2)
        rate_of([slow], 0.3)
        assert 30 < rate_of([slow], 2) < 80
        reload("address-rate-limit 60:5\n", 3)
        rate_of([slow, other], 0.3)
        assert 30 < rate_of([slow, other], 2) < 90  # those that were connected already, too


@pytest.mark.parametrize("setting", [("user-rate-limit", "bob"), ("user-rate-limit", "bob x"), ("user-rate-limit", "bob 0"),
                                     ("address-rate-limit", "10:0"), ("address-rate-limit", "-1"), ("rate-limit-mode", "maybe"),
                                     ("address-rate-limit", "1 2 3")])
def test_limits_that_make_no_sense(backend, setting):
    words = [covey.COVEY_BIN, "proxy", "--listen", str(covey.free_port()), "--cluster", backend.address, f"--{setting[0]}", setting[1]]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
