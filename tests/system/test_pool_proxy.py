"""covey proxy --pool: nutcracker's job with nutcracker's files, beside nutcracker itself."""
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time

import pytest
import redis

import covey
from nutcracker import NUTCRACKER, Sinks
import test_pools
from test_pools import HASHES, same, some_keys, weighted

LATE = 30


def pool(servers, hash_name="md5", distribution="ketama", more=""):
    """md5, because fnv1a_64 gives keys that differ in their last byte only to the same server, as it does in nutcracker."""
    return test_pools.pool(servers, hash_name, distribution, more)


class PoolProxy:
    """covey proxy --pool with these pools, or (binary) nutcracker: {name: text of its directives without listen}."""

    def __init__(self, directory, pools, binary=None, tcp=False, settings=()):
        os.makedirs(directory, exist_ok=True)
        self.binary = binary or covey.COVEY_BIN
        self.conf = os.path.join(directory, "nutcracker.yml")
        self.sockets = {name: ("127.0.0.1", covey.free_port()) if tcp else os.path.join(directory, f"{name}.sock") for name in pools}
        self.write(pools)
        self.log = os.path.join(directory, "log")
        self.stats_port = covey.free_port()
        self.pidfile = os.path.join(directory, "pid")
        words = [self.binary] if binary else [self.binary, "proxy", "--pool", self.conf]
        self.process = subprocess.Popen(words + ["-c", self.conf, "-o", self.log, "-a", "127.0.0.1", "-s", str(self.stats_port), "-p",
                                                 self.pidfile, *settings], preexec_fn=covey.die_with_parent)
        covey.wait_for("the pools listen", self.is_up)

    def write(self, pools):
        with open(self.conf, "w", encoding="latin-1") as f:
            for name, text in pools.items():
                at = self.sockets[name]
                f.write(f"{name}:\n  listen: {at if isinstance(at, str) else '%s:%d' % at}\n{text}\n")

    def is_up(self):
        if self.process.poll() is not None:
            raise covey.TestFailure("the proxy is gone: " + self.log_text())
        for name in self.sockets:
            self.connect(name).close()
        return self.stats()

    def log_text(self):
        try:
            with open(self.log) as f:
                return f.read()
        except OSError:
            return ""

    def connect(self, name):
        at = self.sockets[name]
        s = socket.socket(socket.AF_UNIX if isinstance(at, str) else socket.AF_INET)
        s.settimeout(LATE)
        s.connect(at)
        return s

    def client(self, name, **options):
        at = self.sockets[name]
        where = {"unix_socket_path": at} if isinstance(at, str) else {"host": at[0], "port": at[1]}
        return redis.Redis(socket_timeout=LATE, **where, **options)

    def stats(self):
        with socket.create_connection(("127.0.0.1", self.stats_port), LATE) as s:
            s.settimeout(LATE)
            return json.loads(s.makefile("rb").read())

    def reload(self):
        before = self.log_text().count("is read again") + self.log_text().count("stays as it was")
        self.process.send_signal(signal.SIGHUP)
        covey.wait_for("the reload", lambda: self.log_text().count("is read again") + self.log_text().count("stays as it was") > before)

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(LATE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        return self.process.returncode


@pytest.fixture
def start(tmp_path):
    started = []

    def one(pools, **options):
        started.append(PoolProxy(str(tmp_path / f"p{len(started)}"), pools, **options))
        return started[-1]
    yield one
    for p in started:
        assert p.close() == (0 if p.binary == covey.COVEY_BIN else -signal.SIGTERM)
        assert "Sanitizer" not in p.log_text()


@pytest.fixture(scope="module")
def sinks(tmp_path_factory):
    s = Sinks(str(tmp_path_factory.mktemp("sinks")), 5)
    yield s
    s.close()


def ask(s, data, replies=1):
    """Sends, and reads until so many lines have come, or the connection ends."""
    s.sendall(data)
    got = b""
    while got.count(b"\n") < replies:
        part = s.recv(65536)
        if not part:
            return got + b"<closed>"
        got += part
    return got


def request(*words):
    words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


def servers_of(nodes):
    return [f"127.0.0.1:{n.port}:1" for n in nodes]


def test_commands_and_fragments(servers, start):
    nodes = [servers.node("redis") for _ in range(3)]
    p = start({"a": pool(servers_of(nodes), more="  preconnect: true\n  server_connections: 2\n")}, tcp=True)
    r = p.client("a")
    assert r.ping()
    keys = [f"key:{i}" for i in range(200)]
    assert r.mset({k: f"v{k}" for k in keys})
    assert r.mget(keys + ["none"]) == [f"v{k}".encode() for k in keys] + [None]
    assert all(n.cmd("DBSIZE") > 20 for n in nodes) and sum(n.cmd("DBSIZE") for n in nodes) == 200
    assert r.exists(*keys, keys[0]) == 201 and r.touch(*keys) == 200
    assert r.delete(*keys[:50]) == 50 and r.unlink(*keys[50:120]) == 70 and r.delete(*keys) == 80
    r.rpush("l", *range(5))
    assert r.lrange("l", 0, -1) == [b"0", b"1", b"2", b"3", b"4"]
    assert r.eval("return {KEYS[1], ARGV[1]}", 1, "k", "x") == [b"k", b"x"]
    r.xadd("s", {"a": 1})
    assert r.xlen("s") == 1
    big = os.urandom(3_000_000)
    assert r.set("big", big) and r.get("big") == big and r.mget("big", "l2", "big", "x") == [big, None, big, None]
    pipe = r.pipeline(transaction=False)
    for i in range(5000):
        pipe.incrby(f"n:{i % 100}", i)
    assert len(pipe.execute()) == 5000
    assert len(r.execute_command("COMMAND", "INFO", "get")) == 1
    for words in (("KEYS", "*"), ("SCAN", "0"), ("MULTI",), ("BLPOP", "l", "0"), ("SUBSCRIBE", "c"), ("CONFIG", "GET", "x"), ("WATCH", "k"),
                  ("FLUSHALL",), ("XREAD", "BLOCK", "0", "STREAMS", "s", "0"), ("HELLO", "3"), ("SELECT", "1"), ("EVAL", "return 1", "0"),
                  ("NOSUCH", "x"), ("GET",), ("MSET", "a", "1", "b")):
        with pytest.raises(redis.ResponseError):
            r.execute_command(*words)
    assert r.ping() and r.execute_command("SELECT", "0") in (b"OK", True)
    with pytest.raises(redis.ResponseError, match="different servers"):
        r.msetnx({f"m{i}": i for i in range(20)})
    assert r.execute_command("QUIT") in (b"OK", True)
    with p.connect("a") as s:
        assert ask(s, b"PING\r\n") == b"+PONG\r\n"
        assert ask(s, request("PING", "hello"), 2) == b"$5\r\nhello\r\n"
        assert ask(s, b"*1\r\n$x\r\n").startswith(b"-ERR Protocol error")
        assert s.recv(10) == b""


def test_an_error_of_one_part(servers, start):
    nodes = [servers.node("redis") for _ in range(2)]
    p = start({"a": pool(servers_of(nodes) + [f"127.0.0.1:{covey.free_port()}:1"])})
    with p.connect("a") as s:
        keys = [f"k{i}" for i in range(30)]
        assert ask(s, request("MGET", *keys)) == b"-ERR Connection refused\r\n"
        assert ask(s, request("DEL", *keys)) == b"-ERR Connection refused\r\n"
        assert ask(s, request("PING")) == b"+PONG\r\n"


def test_auth_and_db(servers, start):
    node, other = servers.node("redis"), servers.node("redis")
    for n in (node, other):
        n.cmd("CONFIG", "SET", "requirepass", "secret")
    p = start({"a": pool(servers_of([node, other]), more="  redis_auth: secret\n  redis_db: 3\n"), "b": pool(servers_of([node]))})
    with p.connect("a") as s:
        assert ask(s, request("PING")) == b"-NOAUTH Authentication required\r\n"
        assert ask(s, request("GET", "k")) == b"-NOAUTH Authentication required\r\n"
        assert ask(s, request("AUTH", "wrong")) == b"-ERR invalid password\r\n"
        assert ask(s, request("AUTH", "secretsecret")) == b"-ERR invalid password\r\n"
        assert ask(s, request("AUTH", "")) == b"-ERR invalid password\r\n"
        assert ask(s, request("AUTH", "secret")) == b"+OK\r\n"
        assert ask(s, request("SET", "k", "v")) == b"+OK\r\n"
    with p.connect("b") as s:
        assert ask(s, request("AUTH", "x")) == b"-ERR Client sent AUTH, but no password is set\r\n"
        assert ask(s, request("GET", "k")).startswith(b"-NOAUTH")
    found = [n.new_client(db=3, password="secret").get("k") for n in (node, other)]
    assert sorted(found, key=str) == sorted([b"v", None], key=str)


def test_placement_is_that_of_the_module(sinks, start):
    pools = {h: pool(weighted(sinks, [1, 2, 3, 4, 5]), h, "ketama" if i % 2 else "modula", '  hash_tag: "{}"\n') for i, h in enumerate(HASHES)}
    p = start(pools)

    def places(name, keys):
        from nutcracker import Nutcracker
        return Nutcracker.places(p, name, keys)
    p.places = places
    keys = some_keys(11, 2000)
    for name in pools:
        same(sinks, p, name, keys)


def test_ejection_and_return(servers, start):
    nodes = [servers.node("redis") for _ in range(3)]
    more = "  auto_eject_hosts: true\n  server_failure_limit: 2\n  server_retry_timeout: 700\n  timeout: 2000\n"
    p = start({"a": pool(servers_of(nodes), more=more)})
    keys = [f"k{i}" for i in range(60)]
    r = p.client("a")
    for k in keys:
        r.set(k, "1")
    dead = nodes[0]
    lost = [k for k in keys if dead.cmd("EXISTS", k)]
    assert lost
    dead.expected_dead = True
    dead.kill()
    errors = 0
    for k in lost * 3:
        try:
            r.set(k, "2")
        except redis.ResponseError as error:
            errors += 1
            assert str(error) in ("Connection refused", "Connection reset by peer")
    assert 1 <= errors <= 2 + 2 * 10
    stats = p.stats()["a"]
    server = stats[f"127.0.0.1:{dead.port}"]
    assert stats["server_ejects"] >= 1 and server["server_err"] + server["server_eof"] >= 2
    assert abs(server["server_ejected_at"] / 1e6 - time.time()) < 60
    dead.start()
    dead.expected_dead = False
    covey.wait_for("the server is in the ring again", lambda: r.set(lost[0], "3") and dead.cmd("GET", lost[0]) == b"3", 15)


def test_no_server_is_left(start):
    gone = [f"127.0.0.1:{covey.free_port()}:1" for _ in range(2)]
    p = start({"a": pool(gone, more="  auto_eject_hosts: true\n  server_failure_limit: 1\n")})
    with p.connect("a") as s:
        for i in range(50):
            assert ask(s, request("GET", f"k{i}")) == b"-ERR Connection refused\r\n"
        assert ask(s, request("MGET", "a", "b")) == b"-ERR Connection refused\r\n"
    stats = p.stats()["a"]
    assert stats["server_ejects"] == 2 and stats["forward_error"] >= 40


def test_timeout(servers, start):
    nodes = [servers.node("redis") for _ in range(2)]
    p = start({"a": pool(servers_of(nodes), more="  timeout: 1500\n")})
    keys = [f"k{i}" for i in range(40)]
    with p.connect("a") as s:
        for k in keys:
            ask(s, request("SET", k, "v"))
        theirs = next(k for k in keys if nodes[0].cmd("EXISTS", k))
        ours = next(k for k in keys if nodes[1].cmd("EXISTS", k))
        nodes[0].pause()
        try:
            begin = time.monotonic()
            with p.connect("a") as other:
                s.sendall(request("GET", theirs))
                assert ask(other, request("GET", ours), 2) == b"$1\r\nv\r\n"
                assert time.monotonic() - begin < 1.3  # the other one's time is not over
            assert ask(s, b"") == b"-ERR Connection timed out\r\n"
            assert 1.4 < time.monotonic() - begin < 10
        finally:
            nodes[0].resume()
        assert ask(s, request("GET", theirs), 2) == b"$1\r\nv\r\n"
    assert p.stats()["a"][f"127.0.0.1:{nodes[0].port}"]["server_timedout"] == 1


class Memcached:
    """A memcached of dictionaries, one thread a connection."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", covey.free_port()))
        self.port = self.listener.getsockname()[1]
        self.values = {}
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn):
        f = conn.makefile("rwb")
        for line in f:
            words = line.split()
            quiet = words[-1] == b"noreply"
            if words[0] in (b"get", b"gets"):
                for k in words[1:]:
                    if k in self.values:
                        unique = b" 7" if words[0] == b"gets" else b""
                        f.write(b"VALUE %s 0 %d%s\r\n%s\r\n" % (k, len(self.values[k]), unique, self.values[k]))
                reply = b"END\r\n"
            elif words[0] in (b"set", b"add", b"replace", b"append", b"prepend", b"cas"):
                self.values[words[1]] = f.read(int(words[4]) + 2)[:-2]
                reply = b"STORED\r\n"
            elif words[0] == b"delete":
                reply = b"DELETED\r\n" if self.values.pop(words[1], None) is not None else b"NOT_FOUND\r\n"
            elif words[0] == b"version":
                reply = b"VERSION 1.2.3\r\n"
            elif words[0] == b"touch":
                reply = b"TOUCHED\r\n"
            else:
                self.values[words[1]] = b"%d" % (int(self.values[words[1]]) + int(words[2]) * (1 if words[0] == b"incr" else -1))
                reply = self.values[words[1]] + b"\r\n"
            if not quiet:
                f.write(reply)
            f.flush()

    def close(self):
        self.listener.close()


def test_memcached(start):
    caches = [Memcached() for _ in range(3)]
    p = start({"a": "  hash: md5\n  servers:\n" + "".join(f"   - 127.0.0.1:{m.port}:1\n" for m in caches)})
    with p.connect("a") as s:
        for i in range(40):
            assert ask(s, b"set k%d 0 0 %d\r\nv%d\r\n" % (i, len(b"v%d" % i), i)) == b"STORED\r\n"
        assert all(m.values for m in caches) and sum(len(m.values) for m in caches) == 40
        got = ask(s, b"get " + b" ".join(b"k%d" % i for i in range(40)) + b" none\r\n", 81)
        assert got.endswith(b"END\r\n") and got.count(b"END\r\n") == 1
        assert sorted(got.split(b"\r\n")[1:-2:2]) == sorted(b"v%d" % i for i in range(40))
        assert ask(s, b"gets k1\r\n", 3) == b"VALUE k1 0 2 7\r\nv1\r\nEND\r\n"
        assert ask(s, b"set n 0 0 1 noreply\r\n5\r\nincr n 4\r\ndecr n 2 noreply\r\nget n\r\n", 4) == b"9\r\nVALUE n 0 1\r\n7\r\nEND\r\n"
        assert ask(s, b"delete k1\r\ndelete k1\r\ntouch k2 9\r\n", 3) == b"DELETED\r\nNOT_FOUND\r\nTOUCHED\r\n"
        assert ask(s, b"version\r\n") == b"VERSION 1.2.3\r\n"
        value = os.urandom(1_000_000)
        assert ask(s, b"set big 0 0 %d\r\n%s\r\n" % (len(value), value)) == b"STORED\r\n"
        assert any(m.values.get(b"big") == value for m in caches)
        s.sendall(b"quit\r\n")
        assert s.recv(10) == b""
    with p.connect("a") as s:
        assert ask(s, b"flush_all\r\n") == b"ERROR\r\n"
        assert s.recv(10) == b""
    for m in caches:
        m.close()


def some_request(r):
    def key():
        return f"{r.choice(['s', 'h', 'l', 'z', 'x'])}{r.randrange(12)}"

    def keys():
        return [key() for _ in range(r.randrange(1, 8))]
    v = str(r.randrange(100))
    return request(*r.choice([
        lambda: ["SET", key(), v], lambda: ["GET", key()], lambda: ["INCRBY", key(), v], lambda: ["APPEND", key(), v], lambda: ["STRLEN", key()],
        lambda: ["mget", *keys()], lambda: ["MSET", *[w for k in keys() for w in (k, v)]], lambda: ["DEL", *keys()], lambda: ["UNLINK", *keys()],
        lambda: ["TOUCH", *keys()], lambda: ["EXISTS", key()], lambda: ["TYPE", key()], lambda: ["EXPIRE", key(), "100"], lambda: ["PERSIST", key()],
        lambda: ["HSET", key(), v, v], lambda: ["HGETALL", key()], lambda: ["HMGET", key(), v, "5"], lambda: ["RPUSH", key(), v, v],
        lambda: ["LRANGE", key(), "0", "-1"], lambda: ["LPOP", key()], lambda: ["SADD", key(), v], lambda: ["SMEMBERS", key()],
        lambda: ["ZADD", key(), v, v], lambda: ["ZRANGE", key(), "0", "-1", "WITHSCORES"], lambda: ["SETBIT", key(), v, "1"],
        lambda: ["SUNIONSTORE", key(), key(), key()], lambda: ["SDIFF", key(), key()], lambda: ["SMOVE", key(), key(), v],
        lambda: ["RPOPLPUSH", key(), key()], lambda: ["ZUNIONSTORE", key(), "2", key(), key()], lambda: ["PFCOUNT", key(), key()],
        lambda: ["SORT", key()], lambda: ["EVAL", "return {KEYS[1], ARGV[1], {1, {2}}}", "1", key(), v], lambda: ["EVAL", "return redis.call('nosuch')", "1", key()],
        lambda: ["GETEX", key()], lambda: ["COPY", key(), key()], lambda: ["PING"], lambda: ["DUMP", key()], lambda: ["GETRANGE", key(), "0", "2"]])())


@pytest.mark.skipif(not os.path.exists(NUTCRACKER), reason="nutcracker is not installed")
def test_replies_are_nutcrackers(servers, start):
    """The same requests in the same pipelines through nutcracker and through Covey, each in front of servers of its own."""
    seed = int(os.environ.get("COVEY_TEST_SEED", "1"))
    r = random.Random(seed)
    proxies = []
    for binary in (NUTCRACKER, None):
        nodes = [servers.node("redis") for _ in range(3)]
        proxies.append(start({"a": pool([f"{a} n{i}" for i, a in enumerate(servers_of(nodes))], more='  hash_tag: "{}"\n')}, binary=binary))
    theirs, ours = (p.connect("a") for p in proxies)
    for turn in range(400 if covey.LONG else 100):
        batch = [some_request(r) for _ in range(r.randrange(1, 40))]
        replies = []
        for s in (theirs, ours):
            end = request("EVAL", f"return 'end of {turn}'", "1", "k")
            s.sendall(b"".join(batch) + end)
            got, mark = b"", b"end of %d\r\n" % turn
            while not got.endswith(mark):
                part = s.recv(1 << 16)
                assert part, f"seed {seed}: closed after {got[-200:]} of {batch}"
                got += part
            replies.append(got)
        assert replies[0] == replies[1], f"seed {seed}, turn {turn}: {batch}"
    theirs.close()
    ours.close()


def test_stats_have_nutcrackers_fields(sinks, start):
    pools = {"b": pool(weighted(sinks, [1] * 5, ["n1", "n2", "n3", "n4", "n5"])), "aa": pool(weighted(sinks, [1] * 5)[:2])}
    ours = start(pools)
    seen = []
    for p in [ours] + ([start(pools, binary=NUTCRACKER)] if os.path.exists(NUTCRACKER) else []):
        with p.connect("b") as s:
            for i in range(10):
                ask(s, request("GET", f"k{i}"))
        seen.append(p.stats())
    for stats in seen:
        assert list(stats) == list(seen[0])
        for name in ("b", "aa"):
            assert list(stats[name]) == list(seen[0][name])
            for field, value in stats[name].items():
                if isinstance(value, dict):
                    assert list(value) == list(seen[0][name][field])
    b = seen[0]["b"]
    assert sum(b[f"n{i}"]["requests"] for i in range(1, 6)) == 10 == sum(b[f"n{i}"]["responses"] for i in range(1, 6))
    assert seen[0]["service"] == "nutcracker" and b["client_connections"] in (0, 1)


def test_reload_keeps_connections(sinks, start):
    five = weighted(sinks, [1] * 5)
    p = start({"a": pool(five[:1]), "b": pool(five[:2])})
    failures = []
    stop = threading.Event()

    def busy():
        with p.connect("a") as s:
            i = 0
            while not stop.is_set():
                i += 1
                got = ask(s, request("GET", f"k{i}") * 20, 20)
                if got.count(b"+s") != 20:
                    failures.append(got)
                    return
    threads = [threading.Thread(target=busy) for _ in range(4)]
    for t in threads:
        t.start()
    with p.connect("a") as idle, p.connect("b") as leaving:
        for n in (2, 5, 3):
            p.write({"a": pool(five[:n])})
            p.reload()
            names = {ask(idle, request("GET", f"k{i}")) for i in range(200)}
            assert len(names) == n
        assert ask(leaving, request("GET", "x")).startswith(b"+s")
        with pytest.raises(OSError):
            p.connect("b").close()
        with open(p.conf, "a") as f:
            f.write("  nonsense: 1\n")
        p.reload()
        assert 'directive "nonsense" is unknown' in p.log_text()
        assert ask(idle, request("GET", "x")).startswith(b"+s")
        p.sockets["c"] = ("127.0.0.1", covey.free_port())
        p.write({"a": pool(five[:2]), "c": pool(five[:5])})
        p.reload()
        with p.connect("c") as s:
            assert ask(s, request("GET", "x")).startswith(b"+s")
        assert set(p.stats()) >= {"a", "c"} and "b" not in p.stats()
        assert p.stats()["a"]["client_connections"] >= 5
    stop.set()
    for t in threads:
        t.join()
    assert not failures


def test_permissions_limits_and_the_end(sinks, start):
    p = start({"a": pool(weighted(sinks, [1] * 5), more="  client_connections: 3\n")})
    path = p.sockets["a"]
    p.sockets["a"] = path + " 0640"
    p.write({"a": pool(weighted(sinks, [1] * 5), more="  client_connections: 3\n")})
    p.sockets["a"] = path
    p.reload()
    assert os.stat(path).st_mode & 0o777 == 0o640
    open_ones = [p.connect("a") for _ in range(3)]
    assert all(ask(s, request("PING")) == b"+PONG\r\n" for s in open_ones)
    with p.connect("a") as s:
        assert s.recv(10) == b""
    assert open(p.pidfile).read().strip() == str(p.process.pid)
    for s in open_ones:
        s.close()
    assert p.close() == 0
    assert not os.path.exists(path) and not os.path.exists(p.pidfile)


def test_a_server_that_answers_garbage(start):
    listener = socket.create_server(("127.0.0.1", covey.free_port()))
    answers = [b"hello\r\n", b"$5\r\nab", b"+OK\r\n+OK\r\n", b"*2\r\n:1\r\n"]

    def serve():
        for a in answers:
            conn, _ = listener.accept()
            conn.recv(1000)
            conn.sendall(a)
            if not a.startswith(b"+"):
                time.sleep(0.05)
                conn.close()
    threading.Thread(target=serve, daemon=True).start()
    p = start({"a": pool([f"127.0.0.1:{listener.getsockname()[1]}:1"], more="  timeout: 3000\n")})
    with p.connect("a") as s:
        assert ask(s, request("GET", "k")).startswith(b"-ERR Protocol error")
        assert ask(s, request("GET", "k")) == b"-ERR Connection reset by peer\r\n"
        assert ask(s, request("GET", "k")) == b"+OK\r\n"
        time.sleep(0.1)
        assert ask(s, request("GET", "k")) == b"-ERR Connection reset by peer\r\n"
    listener.close()


def test_called_as_nutcracker(tmp_path):
    link = tmp_path / "nutcracker"
    link.symlink_to(covey.COVEY_BIN)
    conf = tmp_path / "n.yml"
    conf.write_text("a:\n  listen: 127.0.0.1:22121\n  servers:\n   - 127.0.0.1:6379:1\n")

    def run(*words):
        return subprocess.run([str(link), *words], capture_output=True, text=True, timeout=LATE)
    done = run("-t", "-c", str(conf))
    assert done.returncode == 0 and done.stderr == f"nutcracker: configuration file '{conf}' syntax is ok\n"
    conf.write_text("a:\n  listen: 127.0.0.1:22121\n")
    done = run("--test-conf", f"--conf-file={conf}")
    assert done.returncode == 1 and "has no servers" in done.stderr and "syntax is invalid" in done.stderr
    assert run("-V").returncode == 0 and "nutcracker" in run("-V").stdout
    assert "--mbuf-size" in run("-h").stdout and "server_ejected_at" in run("-D").stdout
    for words in (("-s", "0"), ("-s", "x"), ("-m", "511"), ("-m", "16777217"), ("-v", "x"), ("-x",), ("-c",)):
        assert run(*words).returncode == 1


def test_debians_service_needs_no_option(tmp_path):
    """Its unit and its init script start nutcracker without -c, -o and -p."""
    port, stats = covey.free_port(), covey.free_port()
    (tmp_path / "nutcracker").symlink_to(covey.COVEY_BIN)
    (tmp_path / "n.yml").write_text(f"a:\n  listen: 127.0.0.1:{port}\n  redis: true\n  servers:\n   - 127.0.0.1:1:1\n")
    script = f"""set -e
        for d in /etc /var/log /run; do mount -t tmpfs tmpfs $d; mkdir $d/nutcracker; done
        cp {tmp_path}/n.yml /etc/nutcracker/nutcracker.yml; cd {tmp_path}; mkdir conf
        ./nutcracker -t
        ./nutcracker -s {stats} & pid=$!
        for i in $(seq 300); do grep -q Ready /var/log/nutcracker/nutcracker.log && break; sleep 0.1; done
        [ $(cat /run/nutcracker/nutcracker.pid) = $pid ]
        kill $pid; wait $pid; [ ! -e /run/nutcracker/nutcracker.pid ]
        cp {tmp_path}/n.yml conf/nutcracker.yml; ./nutcracker -t"""
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done
    assert [line for line in done.stderr.splitlines() if "syntax" in line] == [
        f"nutcracker: configuration file '{path}' syntax is ok" for path in ("/etc/nutcracker/nutcracker.yml", "conf/nutcracker.yml")]


def test_servers_on_unix_sockets(servers, start, tmp_path):
    paths = [str(tmp_path / f"redis{i}.sock") for i in range(2)]
    nodes = [servers.node("redis", unixsocket=path) for path in paths]
    p = start({"a": pool([f"{path}:1" for path in paths]), "gone": pool([f"{tmp_path}/none.sock:1"])})
    r = p.client("a")
    assert r.mset({f"k{i}": i for i in range(50)})
    assert all(n.cmd("DBSIZE") > 5 for n in nodes)
    with p.connect("gone") as s:
        assert ask(s, request("GET", "k")) == b"-ERR No such file or directory\r\n"
    assert set(p.stats()["a"]) >= set(paths)


def test_without_descriptors(sinks, start):
    """Clients beyond what the process may open are refused, without a loop that does nothing else."""
    p = start({"a": pool(weighted(sinks, [1] * 5))})
    with p.connect("a") as s:
        assert ask(s, request("MGET", *range(20))).startswith(b"-ERR")
        names = os.listdir(f"/proc/{p.process.pid}/fd")
        subprocess.run(["prlimit", "--pid", str(p.process.pid), f"--nofile={len(names) + 3}"], check=True)
        many = [p.connect("a") for _ in range(20)]
        refused = 0
        for c in many:
            try:
                refused += ask(c, request("PING")) != b"+PONG\r\n"
            except OSError:
                refused += 1
        assert refused >= 15
        assert ask(s, request("PING")) == b"+PONG\r\n"
        for c in many:
            c.close()
        covey.wait_for("room again", lambda: ask(p.connect("a"), request("PING")) == b"+PONG\r\n")


def test_replies_keep_their_order_while_a_server_sleeps(servers, start):
    """Requests to the other server are answered inside, but given to the client in its order."""
    nodes = [servers.node("redis") for _ in range(2)]
    p = start({"a": pool(servers_of(nodes))})
    r = p.client("a")
    keys = [f"k{i}" for i in range(100)]
    r.mset({k: k for k in keys})
    nodes[0].pause()
    try:
        with p.connect("a") as s:
            s.sendall(b"".join(request("GET", k) + request("MGET", k, "k0", "k1") + request("PING") for k in keys))
            time.sleep(0.2)
            nodes[0].resume()
            got = ask(s, b"", 100 * (2 + 7 + 1))
            parts = [b"$%d\r\n%s\r\n" % (len(k), k.encode()) for k in keys]
            assert got == b"".join(b"%s*3\r\n%s$2\r\nk0\r\n$2\r\nk1\r\n+PONG\r\n" % (x, x) for x in parts)
    finally:
        nodes[0].resume()


@pytest.mark.sanitizer
def test_clients_that_vanish_and_servers_that_die(servers, start):
    """Cut requests, connections closed with requests in parts under way, reloads and dying servers, all at once: what stays
    must go on, and nothing may be touched after it is gone."""
    seed = int(os.environ.get("COVEY_TEST_SEED", "20"))
    nodes = [servers.node("redis") for _ in range(3)]
    more = "  auto_eject_hosts: true\n  server_failure_limit: 1\n  server_retry_timeout: 100\n  timeout: 500\n  server_connections: 3\n"
    memcached = Memcached()
    cache = f"  auto_eject_hosts: true\n  server_retry_timeout: 50\n  servers:\n   - 127.0.0.1:{memcached.port}:1\n   - 127.0.0.1:{covey.free_port()}:1\n"
    p = start({"a": pool(servers_of(nodes), more=more), "m": cache})
    end = time.monotonic() + 6
    problems = []

    def work(number):
        r = random.Random(seed * 100 + number)
        while time.monotonic() < end:
            try:
                with p.connect("a" if number % 4 else "m") as s:
                    for _ in range(r.randrange(1, 30)):
                        keys = [f"k{r.randrange(1000)}" for _ in range(r.randrange(1, 20))]
                        if number % 4 == 0:
                            data = r.choice([b"get " + b" ".join(k.encode() for k in keys) + b"\r\n", b"set k 0 0 3 noreply\r\nabc\r\n", b"junk\r\n"])
                        else:
                            data = r.choice([request("MGET", *keys), request("MSET", *[x for k in keys for x in (k, "v" * r.randrange(3000))]),
                                             request("DEL", *keys), request("GET", keys[0]), request("KEYS", "*"), b"*1\r\n$-5\r\n", b"PING\r\n"])
                        if r.random() < 0.1:
                            data = data[:r.randrange(len(data))]
                        s.sendall(data)
                        if r.random() < 0.3:
                            s.settimeout(0.05)
                            try:
                                s.recv(100_000)
                            except TimeoutError:
                                pass
                            s.settimeout(LATE)
            except (BrokenPipeError, ConnectionResetError):
                pass
            except Exception as error:
                problems.append(repr(error))
                return
    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    r = random.Random(seed)
    while time.monotonic() < end:
        what = r.randrange(3)
        if what == 0:
            p.process.send_signal(signal.SIGHUP)
        else:
            n = r.choice(nodes)
            n.pause()
            time.sleep(r.random())
            n.resume()
            if what == 2:
                n.cmd("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        time.sleep(r.random() / 3)
    for t in threads:
        t.join()
    assert not problems, f"seed {seed}: {problems}"
    assert p.process.poll() is None, p.log_text()

    def well():
        with p.connect("a") as s:
            return b"-ERR" not in ask(s, b"".join(request("SET", f"k{i}", "v") for i in range(100)), 100)
    covey.wait_for("all servers are back", well)
    memcached.close()
