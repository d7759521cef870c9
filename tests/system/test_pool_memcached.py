"""Static pools of real memcacheds: every command that nutcracker passes on, and what comes back, beside nutcracker in front of servers of
its own that have seen the same."""
import os
import random
import re
import shutil
import socket
import subprocess
import time

import pytest

import covey
from nutcracker import NUTCRACKER
from test_pool_proxy import PoolProxy

MEMCACHED = shutil.which("memcached")
SERVERS = 2

pytestmark = pytest.mark.skipif(not MEMCACHED, reason="memcached is not installed")


class RealMemcached:
    def __init__(self):
        self.port = covey.free_port()
        words = [MEMCACHED, "-l", "127.0.0.1", "-p", str(self.port), "-U", "0", "-t", "1", "-m", "64", "-I", "2m"]
        if os.geteuid() == 0:
            words += ["-u", "nobody"]
        self.process = subprocess.Popen(words, preexec_fn=covey.die_with_parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        covey.wait_for("memcached to listen", lambda: self.connect().close() is None)

    def connect(self):
        s = socket.create_connection(("127.0.0.1", self.port))
        s.settimeout(20)
        return s

    def keys(self):
        with self.connect() as s:
            s.sendall(b"lru_crawler metadump all\r\n")
            got = b""
            while not got.endswith(b"END\r\n"):
                got += s.recv(1 << 20)
        return set(re.findall(rb"key=(\S+)", got))

    def close(self):
        self.process.kill()
        self.process.wait()


class Connection:
    """Asks, and reads all replies: behind each request stands a get of what is not there."""

    def __init__(self, p):
        self.socket = p.connect("a")
        self.at = 0

    def __call__(self, data):
        self.at += 1
        mark = b"mark%d" % self.at
        self.socket.sendall(data + b"set %s 0 0 1\r\nx\r\nget %s\r\n" % (mark, mark))
        end = b"STORED\r\nVALUE %s 0 1\r\nx\r\nEND\r\n" % mark
        got = b""
        while not got.endswith(end):
            part = self.socket.recv(1 << 20)
            if not part:
                return got + b"<closed>"
            got += part
        return got[:-len(end)]

    def close(self):
        self.socket.close()


def directives(caches, more=""):
    return "  hash: md5\n  distribution: ketama\n" + more + "  servers:\n" + "".join(f"   - 127.0.0.1:{c.port}:1 s{n}\n" for n, c in enumerate(caches))


@pytest.fixture
def caches():
    """New ones for each test: the numbers for cas count from 1."""
    all_of_them = [RealMemcached() for _ in range(2 * SERVERS)]
    yield all_of_them
    for cache in all_of_them:
        cache.close()


@pytest.fixture
def start(caches, tmp_path):
    """ours() and theirs(): a connection through each, to servers of its own that are empty; theirs() is None without nutcracker."""
    proxies, connections = [PoolProxy(str(tmp_path / "ours"), {"a": directives(caches[:SERVERS])})], []
    if os.path.exists(NUTCRACKER):
        proxies.append(PoolProxy(str(tmp_path / "theirs"), {"a": directives(caches[SERVERS:])}, binary=NUTCRACKER))

    def connect(proxy):
        connections.append(Connection(proxy))
        return connections[-1]
    yield lambda: connect(proxies[0]), lambda: connect(proxies[1]) if len(proxies) > 1 else None
    for c in connections:
        c.close()
    for p in proxies:
        p.close()


def in_order(reply):
    """With the values of a multi-get sorted: which server answers first is nobody's promise."""
    def one(match):
        return b"".join(sorted(re.findall(rb"VALUE \S+ \d+ \d+(?: \d+)?\r\n[^\r]*\r\n", match.group()))) + b"END\r\n"
    return re.sub(rb"(VALUE \S+ \d+ \d+(?: \d+)?\r\n[^\r]*\r\n)+END\r\n", one, reply)


# ---------------------------------------------------------------------------------------------------- what is known

@pytest.mark.sanitizer
def test_every_command(start, caches):
    ask = start[0]()
    assert ask(b"set a 5 0 3\r\nabc\r\n") == b"STORED\r\n" and ask(b"get a\r\n") == b"VALUE a 5 3\r\nabc\r\nEND\r\n"
    assert ask(b"add a 0 0 1\r\nx\r\n") == b"NOT_STORED\r\n" and ask(b"add b 0 0 1\r\nx\r\n") == b"STORED\r\n"
    assert ask(b"replace c 0 0 1\r\nx\r\n") == b"NOT_STORED\r\n" and ask(b"replace b 1 0 1\r\ny\r\n") == b"STORED\r\n"
    assert ask(b"append a 0 0 2\r\nde\r\n") == b"STORED\r\n" and ask(b"prepend a 0 0 1\r\n_\r\n") == b"STORED\r\n"
    assert ask(b"append none 0 0 1\r\nx\r\n") == b"NOT_STORED\r\n" and ask(b"get a\r\n") == b"VALUE a 5 6\r\n_abcde\r\nEND\r\n"
    unique = re.fullmatch(rb"VALUE a 5 6 (\d+)\r\n_abcde\r\nEND\r\n", ask(b"gets a\r\n")).group(1)
    assert ask(b"cas a 0 0 1 %s\r\nz\r\n" % unique) == b"STORED\r\n" and ask(b"cas a 0 0 1 %s\r\nz\r\n" % unique) == b"EXISTS\r\n"
    assert ask(b"cas none 0 0 1 1\r\nz\r\n") == b"NOT_FOUND\r\n"
    assert ask(b"set n 0 0 2\r\n41\r\n") == b"STORED\r\n" and ask(b"incr n 1\r\n") == b"42\r\n" and ask(b"decr n 50\r\n") == b"0\r\n"
    assert ask(b"incr none 1\r\n") == b"NOT_FOUND\r\n" and ask(b"incr a 1\r\n").startswith(b"CLIENT_ERROR cannot increment")
    assert ask(b"set t 0 0 1\r\nx\r\n") == b"STORED\r\n" and ask(b"touch t -1\r\n") == b"TOUCHED\r\n" and ask(b"get t\r\n") == b"END\r\n"
    assert ask(b"touch t 10\r\n") == b"NOT_FOUND\r\n"
    assert ask(b"delete b\r\n") == b"DELETED\r\n" and ask(b"delete b\r\n") == b"NOT_FOUND\r\n"
    assert ask(b"set e 0 1 1\r\nx\r\n") == b"STORED\r\n"
    covey.wait_for("the value to expire", lambda: ask(b"get e\r\n") == b"END\r\n")
    assert ask(b"set q 0 0 1 noreply\r\n1\r\nincr q 5 noreply\r\nappend q 0 0 1 noreply\r\n7\r\nget q\r\n") == b"VALUE q 0 2\r\n67\r\nEND\r\n"
    assert ask(b"delete q noreply\r\nget q\r\n") == b"END\r\n"
    assert re.fullmatch(rb"VERSION \S+\r\n", ask(b"version\r\n"))
    many = [b"k%d" % n for n in range(200)]
    assert ask(b"".join(b"set %s 0 0 %d\r\n%s\r\n" % (k, len(k), k) for k in many)) == b"STORED\r\n" * 200
    own = [cache.keys() & set(many) for cache in caches[:SERVERS]]
    assert all(own) and own[0] | own[1] == set(many) and not own[0] & own[1]
    assert in_order(ask(b"get none " + b" ".join(many) + b"\r\n")) == in_order(b"".join(b"VALUE %s 0 %d\r\n%s\r\n" % (k, len(k), k) for k in many) + b"END\r\n")
    assert ask(b"gets " + b" ".join(many) + b"\r\n").count(b"VALUE") == 200
    value = os.urandom(1_500_000)
    assert ask(b"set big 0 0 %d\r\n%s\r\n" % (len(value), value)) == b"STORED\r\n"
    assert ask(b"get big\r\n") == b"VALUE big 0 %d\r\n%s\r\nEND\r\n" % (len(value), value)
    assert ask(b"set big 0 0 3000000\r\n%s\r\n" % (b"x" * 3_000_000)).startswith(b"SERVER_ERROR object too large")
    assert ask(b"get a\r\n") == b"VALUE a 0 1\r\nz\r\nEND\r\n"
    ask.socket.sendall(b"quit\r\n")
    assert ask.socket.recv(10) == b""


def test_expirations_pass_through(start):
    ask = start[0]()
    at = int(time.time())
    for expiry, there in ((0, True), (100, True), (-1, False), (at + 100, True), (at - 100, False), (30 * 86400, True)):
        assert ask(b"set x 0 %d 1\r\nv\r\n" % expiry) == b"STORED\r\n"
        assert (ask(b"get x\r\n") == b"VALUE x 0 1\r\nv\r\nEND\r\n") == there, expiry


# ---------------------------------------------------------------------------------------------------- beside nutcracker

KEYS = [b"key:%d" % n for n in range(12)]


def some_requests(r, uniques):
    def value():
        return r.choice([b"", b"5", b"18446744073709551615", b"text", b"x" * r.randrange(200), b"%d" % r.randrange(1000)])

    def store(name, more=b""):
        v = value()
        return b"%s %s %d %d %d%s%s\r\n%s\r\n" % (name, r.choice(KEYS), r.choice([0, 1, 65535]), r.choice([0, 0, 0, 1000]), len(v), more,
                                                  r.choice([b"", b"", b"", b" noreply"]), v)
    quiet = r.choice([b"", b"", b"", b" noreply"])
    kind = r.randrange(12)
    if kind < 4:
        return store(r.choice([b"set", b"add", b"replace", b"append", b"prepend"]))
    if kind == 4:
        key, unique = r.choice(uniques or [(r.choice(KEYS), b"1")])
        v = value()
        return b"cas %s 0 0 %d %s%s\r\n%s\r\n" % (key, len(v), unique, quiet, v)
    if kind == 5:
        return b"%s %s %d%s\r\n" % (r.choice([b"incr", b"decr"]), r.choice(KEYS), r.choice([0, 1, 7, 2 ** 63]), quiet)
    if kind == 6:
        return b"delete %s%s\r\n" % (r.choice(KEYS), quiet)
    if kind == 7:
        return b"touch %s %d%s\r\n" % (r.choice(KEYS), r.choice([0, 1000]), quiet)
    return b"%s %s\r\n" % (r.choice([b"get", b"gets"]), b" ".join(r.choice(KEYS) for _ in range(r.choice([1, 1, 2, 5, 12]))))


@pytest.mark.skipif(not os.path.exists(NUTCRACKER), reason="nutcracker is not installed")
def test_replies_are_nutcrackers(start, caches):
    seed = int(os.environ.get("COVEY_TEST_SEED", "7"))
    r = random.Random(seed)
    ours, theirs = start[0](), start[1]()
    uniques = []
    for step in range(3000 if covey.LONG else 800):
        data = b"".join(some_requests(r, uniques) for _ in range(r.choice([1, 1, 1, 3, 10])))
        a, b = in_order(ours(data)), in_order(theirs(data))
        assert a == b, f"seed {seed}, step {step}: {data!r}\nours {a!r}\ntheirs {b!r}"
        uniques = (uniques + re.findall(rb"VALUE (\S+) \d+ \d+ (\d+)\r\n", a))[-20:]
    mine, others = ([cache.keys() - {k for k in cache.keys() if k.startswith(b"mark")} for cache in part] for part in (caches[:SERVERS], caches[SERVERS:]))
    assert mine == others and all(mine)


@pytest.mark.skipif(not os.path.exists(NUTCRACKER), reason="nutcracker is not installed")
@pytest.mark.parametrize("data", [b"get\r\n", b"set a 0 0\r\n", b"set a 0 0 x\r\nv\r\n", b"flush_all\r\n", b"stats\r\n", b"incr a\r\n", b"incr a x\r\n", b"nonsense\r\n",
                                  b"get " + b"k" * 251 + b"\r\n", b"set a 0 0 1\r\nxyz\r\n", b"verbosity 1\r\n", b"gat 10 a\r\n", b"delete a 0\r\n", b"touch a\r\n"])
def test_what_is_wrong_there_is_wrong_here(start, data):
    """nutcracker hangs up on what it does not understand; here an error stands before the end."""
    with start[0]().socket as ours, start[1]().socket as theirs:
        said = []
        for s in (ours, theirs):
            s.settimeout(2)
            s.sendall(data)
            got = b""
            try:
                while part := s.recv(1000):
                    got += part
                got += b"<closed>"
            except TimeoutError:
                pass
            except ConnectionError:
                got += b"<closed>"
            said.append(got)
        print(data[:30], *said)
        assert said[0].endswith(b"<closed>") == said[1].endswith(b"<closed>"), said
        if said[1] not in (b"<closed>", b""):
            assert said[0] == said[1]


def test_a_dead_memcached(start, caches, tmp_path):
    """Its keys answer an error, the others go on; a get over both fails as a whole; ejected, the others have its keys."""
    alone = [RealMemcached() for _ in range(2)]
    p = PoolProxy(str(tmp_path / "dead"), {"a": directives(alone, "  timeout: 1000\n"),
                                           "b": directives(alone, "  auto_eject_hosts: true\n  server_failure_limit: 1\n  server_retry_timeout: 60000\n")})
    try:
        ask = Connection(p)
        keys = [b"k%d" % n for n in range(50)]
        assert ask(b"".join(b"set %s 0 0 1\r\nv\r\n" % k for k in keys)) == b"STORED\r\n" * 50
        lost, kept = alone[0].keys() & set(keys), alone[1].keys() & set(keys)
        alone[0].close()
        with p.connect("a") as s:
            def get(*names):
                s.sendall(b"get " + b" ".join(names) + b"\r\n")
                got = b""
                while not got.endswith((b"END\r\n",)) and b"SERVER_ERROR" not in got:
                    got += s.recv(1 << 16)
                return got
            for key in sorted(lost)[:5]:
                assert get(key).startswith(b"SERVER_ERROR Connection re")
            for key in sorted(kept)[:5]:
                assert get(key) == b"VALUE %s 0 1\r\nv\r\nEND\r\n" % key
            assert get(*keys).startswith(b"SERVER_ERROR Connection refused")
        with p.connect("b") as s:
            for key in keys:
                s.sendall(b"set %s 0 0 1\r\nw\r\n" % key)
                s.recv(100)
            s.sendall(b"get " + b" ".join(keys) + b"\r\n")
            got = b""
            while not got.endswith(b"END\r\n"):
                got += s.recv(1 << 16)
            assert got.count(b"\r\nw\r\n") >= 49  # but for the one that found out
        ask.close()
    finally:
        p.close()
        for cache in alone:
            cache.close()
