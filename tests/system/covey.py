"""Servers and clusters for the system tests.

A Node is one server process, either this project's ("covey") or redis-server ("redis"); both take the same directives,
so every helper works with both. COVEY_BIN names the binary under test (default build/covey). When it is a redis-server,
it is started as one: that is how the tests themselves are checked.

Ports come from COVEY_TEST_PORTS (default 21150-21299); the bus port is 10,000 above. Processes are stopped by their pid
only, and die with the test process.
"""
import contextlib
import ctypes
import itertools
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import redis

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COVEY_BIN = os.path.abspath(os.environ.get("COVEY_BIN") or os.path.join(ROOT, "build", "covey"))
REDIS_BIN = os.environ.get("REDIS_BIN", "/usr/bin/redis-server")
REDIS_CLI = os.environ.get("REDIS_CLI", "/usr/bin/redis-cli")
LONG = bool(os.environ.get("COVEY_TEST_LONG"))
SANITIZED = any(word in COVEY_BIN for word in ("build-address", "build-thread"))
# Waiting takes this much longer on a sanitizer build.
PATIENCE = 4 if SANITIZED else 1
COVEY_IS_REDIS = os.path.basename(COVEY_BIN).startswith("redis-server")
SLOTS = 16384
SANITIZER_WORDS = (b"ERROR: AddressSanitizer", b"ERROR: LeakSanitizer", b"WARNING: ThreadSanitizer", b": runtime error: ")

PORT_FIRST, PORT_LAST = (int(p) for p in os.environ.get("COVEY_TEST_PORTS", "21150-21299").split("-"))
_ports = itertools.cycle(range(PORT_FIRST, PORT_LAST + 1))


class TestFailure(AssertionError):
    """The server did not do what the test needs; the message says what was seen last."""

    __test__ = False


def wait_for(what, condition, timeout=10, every=0.05):
    """Calls condition() until it returns something true, and returns that. Errors count as "not yet"."""
    deadline = time.monotonic() + timeout * PATIENCE
    last = None
    while True:
        try:
            last = condition()
            if last:
                return last
        except (redis.RedisError, OSError, AssertionError, KeyError, IndexError, StopIteration) as error:
            last = error
        if time.monotonic() > deadline:
            raise TestFailure(f"waited {timeout * PATIENCE} s in vain for: {what}; seen last: {last!r}")
        time.sleep(every)


def slowness(ask, limit, seconds=0.5, tries=6):
    """How long ask() takes at worst, but for one in ten, while it is called again and again for some seconds.  A machine may be
    busy for that long, so that more than the limit is believed only when it is measured several times."""
    for _ in range(tries):
        took, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.monotonic()
            ask()
            took.append(time.monotonic() - began)
            time.sleep(0.001)
        worst = sorted(took)[len(took) * 9 // 10]
        if worst < limit * PATIENCE:
            break
    return worst


def _bindable(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False


def free_port():
    """A port of the range that is free together with its bus port. Not handed out again before the range is through."""
    for port in itertools.islice(_ports, PORT_LAST - PORT_FIRST + 1):
        if _bindable(port) and _bindable(port + 10000):
            return port
    raise TestFailure(f"no free port in {PORT_FIRST}-{PORT_LAST}")


def free_ports(count):
    """The first of `count` neighbouring free ports."""
    for _ in range(2 * (PORT_LAST - PORT_FIRST + 1)):
        first = free_port()
        if first + count - 1 <= PORT_LAST:
            rest = range(first + 1, first + count)
            if all(_bindable(p) and _bindable(p + 10000) for p in rest):
                for _ in rest:
                    next(_ports)
                return first
    raise TestFailure(f"no {count} neighbouring free ports in {PORT_FIRST}-{PORT_LAST}")


def die_with_parent():
    """preexec_fn: the child gets SIGKILL when the test process goes."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def server_command(kind):
    """The words that start a data node of this kind."""
    if kind == "redis":
        return [REDIS_BIN]
    if not os.access(COVEY_BIN, os.X_OK):
        raise TestFailure(f"{COVEY_BIN} is not there: build it first (./run build), or set COVEY_BIN")
    return [COVEY_BIN] if COVEY_IS_REDIS else [COVEY_BIN, "server"]


def key_slot(key):
    """CLUSTER KEYSLOT, computed here."""
    if isinstance(key, str):
        key = key.encode()
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1:end]
    crc = 0
    for byte in key:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1
        crc &= 0xFFFF
    return crc % SLOTS


_slot_tags = {}


def tag_of_slot(slot):
    """A short hash tag that falls into this slot."""
    if not _slot_tags:
        for number in itertools.count():
            _slot_tags.setdefault(key_slot(str(number)), str(number))
            if len(_slot_tags) == SLOTS:
                break
    return _slot_tags[slot]


class Node:
    """One server process with a directory of its own, which outlives restarts."""

    def __init__(self, kind, directory, port=None, host="127.0.0.1", prefix=(), tls=None, log=None, **directives):
        self.kind = kind
        self.port = port or free_port()
        self.host = host
        self.announced = host  # where the other nodes find it
        self.dir = directory
        self.prefix = list(prefix)  # e.g. ip netns exec NAME
        self.tls = tls  # tls.Authority: `port` is the TLS port then, and clients use it
        self.config = None  # text of a configuration file, written to redis.conf and given as first argument
        self.directives = {"bind": "127.0.0.1", "save": "", "repl-diskless-sync-delay": 0,
                           "enable-debug-command": "yes", "enable-protected-configs": "yes", **{k.replace("_", "-"): v for k, v in directives.items()}}
        self.process = None
        self.log = log or os.path.join(directory, "log")
        self.expected_dead = False
        self.paused = False
        self._client = None
        os.makedirs(directory, exist_ok=True)

    def __repr__(self):
        return f"<{self.kind} {self.host}:{self.port} pid {self.pid}>"

    # -- the process
    def command(self):
        words = self.prefix + server_command(self.kind)
        if self.config is not None:
            words.append(self.config_file)
        words += ["--port", str(self.port), "--dir", self.dir]
        if self.tls:
            words += ["--port", str(self.directives.get("port", 0)), "--tls-port", str(self.port)]
        for name, value in self.directives.items():
            if name == "workers" and (self.kind == "redis" or COVEY_IS_REDIS):
                continue
            words += [f"--{name}"] + ([str(v) for v in value] if isinstance(value, (list, tuple)) else [str(value)])
        return words

    def start(self, wait=True, limits=None, **directives):
        """Starts the process; with wait, returns once it answers PING (or LOADING is over)."""
        assert not self.alive(), f"{self} runs already"
        self.directives.update({k.replace("_", "-"): v for k, v in directives.items()})
        self.expected_dead = False
        self.drop_client()

        def prepare():
            die_with_parent()
            os.setpgid(0, 0)  # a Ctrl-C at the keyboard is for pytest
            if limits:
                limits()

        if self.config is not None and not os.path.exists(self.config_file):
            with open(self.config_file, "w") as file:
                file.write(self.config)
        with open(self.log, "ab") as log:
            log.write(f"--- start: {' '.join(self.command())}\n".encode())
            log.flush()
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            cwd=self.dir, preexec_fn=prepare)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, timeout=15):
        def ready():
            if self.process.poll() is not None:
                raise TestFailure(f"{self} exited with {self.process.returncode} at start:\n{self.log_tail()}")
            client = self.new_client(socket_timeout=2)
            try:
                return client.ping()
            finally:
                client.close()
        deadline = time.monotonic() + timeout * PATIENCE
        while True:
            try:
                if ready():
                    return self
            except (redis.RedisError, OSError) as error:
                if time.monotonic() > deadline:
                    raise TestFailure(f"{self} does not answer PING: {error!r}\n{self.log_tail()}") from None
            time.sleep(0.03)

    @property
    def config_file(self):
        return os.path.join(self.dir, "redis.conf")

    @property
    def pid(self):
        return self.process.pid if self.process else None

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        """kill -9, and waits until the process is gone."""
        self.expected_dead = True
        if self.alive():
            self.process.kill()
            self.process.wait()
        self.drop_client()

    def _stopped(self):
        """Whether every thread stands still; SIGSTOP reaches a busy one a little later."""
        states = []
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with contextlib.suppress(FileNotFoundError), open(f"/proc/{self.pid}/task/{task}/stat") as stat:
                states.append(stat.read().rsplit(")", 1)[1].split()[0])
        return states and all(state in "Tt" for state in states)

    def pause(self):
        self.signal(signal.SIGSTOP)
        self.paused = True
        wait_for(f"{self} to stop", self._stopped, every=0.002)

    def resume(self):
        self.paused = False
        self.signal(signal.SIGCONT)

    def terminate(self, timeout=15):
        """SIGTERM; returns the exit code."""
        self.expected_dead = True
        if self.alive():
            self.signal(signal.SIGTERM)
        return self.wait_exit(timeout)

    def shutdown(self, *arguments, timeout=30):
        """SHUTDOWN [SAVE|NOSAVE ...]; returns the exit code."""
        self.expected_dead = True
        with contextlib.suppress(redis.ConnectionError):
            self.new_client(socket_timeout=timeout).execute_command("SHUTDOWN", *arguments)
        return self.wait_exit(timeout)

    def wait_exit(self, timeout=15):
        self.expected_dead = True
        try:
            return self.process.wait(timeout * PATIENCE)
        except subprocess.TimeoutExpired:
            raise TestFailure(f"{self} does not exit\n{self.log_tail()}") from None
        finally:
            self.drop_client()

    def log_text(self):
        try:
            with open(self.log, "rb") as file:
                return file.read()
        except OSError:
            return b""

    def log_tail(self, lines=40):
        return b"\n".join(self.log_text().splitlines()[-lines:]).decode(errors="replace")

    def complaints(self):
        """What is wrong with this process at the end of a test: died unasked, or a sanitizer spoke."""
        found = []
        if self.process and not self.expected_dead and self.process.poll() is not None:
            found.append(f"{self} died with {self.process.returncode}")
        log = self.log_text()
        at = min((log.find(word) for word in SANITIZER_WORDS if word in log), default=-1)
        if at >= 0:
            found.append(f"{self}: {log[at:at + 6000].decode(errors='replace')}")
        return found

    # -- its clients
    def new_client(self, **options):
        options = {"socket_timeout": 10 * PATIENCE, "socket_connect_timeout": 5, "health_check_interval": 0,
                   **(self.tls.client_options if self.tls else {}), **options}
        return redis.Redis(self.host, self.port, **options)

    @property
    def client(self):
        if self._client is None:
            self._client = self.new_client()
        return self._client

    def drop_client(self):
        if self._client is not None:
            with contextlib.suppress(Exception):
                self._client.close()
            self._client = None

    def cmd(self, *words, **options):
        """Executes one command on a kept connection; replies as redis-py parses them."""
        return self.client.execute_command(*words, **options)

    def raw(self, timeout=5):
        """A bare socket."""
        return socket.create_connection((self.host, self.port), timeout=timeout * PATIENCE)

    def cli(self, *words, input=None, timeout=30):
        """redis-cli against this node; returns its output."""
        return run([REDIS_CLI, "-h", self.host, "-p", str(self.port), *(self.tls.cli_options if self.tls else []), *words],
                   input=input, timeout=timeout)

    def info(self, section="everything"):
        return self.client.info(section)

    def stat(self, name, section="everything"):
        return self.info(section)[name]

    def config_get(self, name):
        return self.client.config_get(name).get(name)

    def rss_mb(self):
        with open(f"/proc/{self.pid}/status") as file:
            return int(re.search(r"VmRSS:\s+(\d+) kB", file.read()).group(1)) / 1024

    @property
    def address(self):
        return f"{self.host}:{self.port}"

    @property
    def id(self):
        return self.cmd("CLUSTER", "MYID").decode()


def run(words, input=None, timeout=60, check=True, env=None):
    """Runs a program to its end and returns its standard output; failing programs fail the test with what they said."""
    done = subprocess.run([str(w) for w in words], input=input, capture_output=True, text=not isinstance(input, bytes),
                          timeout=timeout * PATIENCE, env=env, preexec_fn=die_with_parent,
                          **({"stdin": subprocess.DEVNULL} if input is None else {}))
    if check and done.returncode != 0:
        raise TestFailure(f"{' '.join(map(str, words))} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


class Attached(Node):
    """A node that somebody else started (covey up) and that answers on this port."""

    def __init__(self, port):
        super().__init__("covey", "/", port=port)
        self.log = os.devnull
        self.known_pid = self.cmd("INFO", "server")["process_id"]

    @property
    def pid(self):
        return self.known_pid

    def alive(self):
        """Whether the process this object was made for still runs (a zombie does not)."""
        try:
            with open(f"/proc/{self.known_pid}/stat") as file:
                return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
        except OSError:
            return False

    def kill(self):
        if self.alive():
            os.kill(self.known_pid, signal.SIGKILL)
            wait_for(f"{self} to be gone", lambda: not self.alive())
        self.drop_client()


class Servers:
    """Makes nodes for one test (or module) and removes every trace of them at the end."""

    def __init__(self, keep_on_failure=True):
        self.base = tempfile.mkdtemp(prefix="covey-test-")
        self.nodes = []
        self.undo = []  # called in reverse order at the end

    def directory(self, name):
        path = os.path.join(self.base, name)
        os.makedirs(path, exist_ok=True)
        return path

    def node(self, kind="covey", start=True, **options):
        """A node of this kind; options are port, host, prefix, directory, wait, and directives (a_b means a-b)."""
        wait = options.pop("wait", True)
        directory = options.pop("directory", None) or self.directory(f"{kind}-{len(self.nodes)}")
        config = options.pop("config", None)
        node = Node(kind, directory, **options)
        node.config = config
        self.nodes.append(node)
        if start:
            node.start(wait=wait)
        return node

    def cluster(self, kinds, replicas=0, form=True, timeout=1000, network=False, each=lambda number: {}, **directives):
        """A cluster of len(kinds) nodes; the first ones become primaries, the rest their replicas in turn.  network: each in
        a network namespace of its own (cluster.network).  each: further options of one node by its number."""
        directives = {"cluster_enabled": "yes", "cluster_node_timeout": timeout, "cluster_replica_validity_factor": 0,
                      "repl_ping_replica_period": 1, **directives}
        net = Network(self, len(kinds)) if network else None
        nodes = []
        for n, kind in enumerate(kinds):
            place = net.place(n) if net else {}
            nodes.append(self.node(kind, start=False, **{**place, **directives, **each(n)}))
            nodes[-1].announced = net.data_address(n) if net else nodes[-1].host
        for node in nodes:
            node.start(wait=False)
        for node in nodes:
            node.wait_ready()
        cluster = Cluster(nodes, timeout)
        cluster.network = net
        if form:
            cluster.form(replicas)
        return cluster

    def file_system(self, size):
        """A directory on a small file system of its own, in memory."""
        path = self.directory(f"other-{random.randrange(1 << 30)}")
        try:
            run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path])
        except Exception as error:
            raise TestFailure(f"cannot mount a file system (needs root): {error}") from None
        self.undo.append(lambda: run(["umount", "-l", path], check=False))
        return path

    def logs(self):
        return "\n\n".join(f"===== {node}, end of {node.log}\n{node.log_tail()}" for node in self.nodes)

    def close(self):
        """Stops everything; returns complaints about processes that died unasked or were found wrong by a sanitizer."""
        if SANITIZED:  # leaks show at exit
            for node in self.nodes:
                if node.alive() and not node.expected_dead:
                    node.expected_dead = True
                    with contextlib.suppress(OSError):
                        node.resume()
                        node.signal(signal.SIGTERM)
            deadline = time.monotonic() + 15
            while time.monotonic() < deadline and any(node.alive() for node in self.nodes):
                time.sleep(0.05)
        complaints = [line for node in self.nodes for line in node.complaints()]
        logs = self.logs() if complaints else ""
        for node in self.nodes:
            node.kill()
        for step in reversed(self.undo):
            step()
        shutil.rmtree(self.base, ignore_errors=True)
        return complaints, logs


# ---------------------------------------------------------------------------------------------------- data

def scan_keys(client, **options):
    return sorted(set(client.scan_iter(count=1000, **options)))


def read_value(client, key, kind):
    """A value in a form that is equal when the data is, whatever the encoding."""
    kind = kind.decode() if isinstance(kind, bytes) else kind
    if kind == "string":
        return client.get(key)
    if kind == "list":
        return client.lrange(key, 0, -1)
    if kind == "set":
        return sorted(client.smembers(key))
    if kind == "zset":
        return client.zrange(key, 0, -1, withscores=True)
    if kind == "hash":
        return sorted(client.hgetall(key).items())
    return None if kind == "none" else ("?", kind, client.dump(key))


def dataset(node, db=0, readonly=False):
    """{key: (type, value, absolute expiry in ms or -1)} of one database of a node, read type by type."""
    client = node.new_client(db=db)
    try:
        if readonly:
            client.execute_command("READONLY")
        keys, found = scan_keys(client), {}
        for at in range(0, len(keys), 500):
            part = keys[at:at + 500]
            pipe = client.pipeline(transaction=False)
            for key in part:
                pipe.type(key)
                pipe.execute_command("PEXPIRETIME", key)
            meta = pipe.execute(raise_on_error=True)
            strings = [k for k, t in zip(part, meta[::2]) if t == b"string"]
            pipe = client.pipeline(transaction=False)
            for key in strings:
                pipe.get(key)
            values = dict(zip(strings, pipe.execute())) if strings else {}
            for key, kind, expiry in zip(part, meta[::2], meta[1::2]):
                value = values[key] if kind == b"string" else read_value(client, key, kind)
                if kind != b"none" and value is not None:
                    found[key] = (kind.decode(), value, expiry)
        return found
    finally:
        client.close()


def difference(one, other, limit=5):
    """None when two datasets are equal, otherwise a line that shows some of what differs."""
    if one == other:
        return None
    keys = sorted(set(one) | set(other))
    bad = [k for k in keys if one.get(k) != other.get(k)]
    shown = "; ".join(f"{k!r}: {str(one.get(k))[:80]} / {str(other.get(k))[:80]}" for k in bad[:limit])
    return f"{len(one)} and {len(other)} keys, {len(bad)} differ: {shown}"


def assert_same_data(one, other, what="datasets differ"):
    found = difference(one, other)
    if found:
        raise TestFailure(f"{what}: {found}")


def fill_all_types(client, seed=1, ttl=True, rounds=1):
    """Keys of every type this project has, in every encoding, with and without expiry, around every threshold."""
    rng = random.Random(seed)
    text = bytes(range(256))
    pipe = client.pipeline(transaction=False)
    for round_ in range(rounds):
        p = f"r{round_}:"
        pipe.set(p + "str:empty", b"")
        pipe.set(p + "str:int", rng.randrange(-2**63, 2**63))
        for value in (0, -1, 127, 128, -129, 32767, 32768, 2**31 - 1, 2**31, -2**31 - 1, 2**63 - 1, -2**63):
            pipe.set(f"{p}str:int:{value}", value)
        for size in (1, 43, 44, 45, 63, 64, 100, 16383, 16384, 70000):
            pipe.set(f"{p}str:raw:{size}", rng.randbytes(size))
            pipe.set(f"{p}str:lzf:{size}", (b"abc" * size)[:size])
        pipe.set(p + "str:binary", text)
        pipe.set(p + "bin:\x00\xff\r\n key", text)
        pipe.set(p + "str:appended", "12")
        pipe.append(p + "str:appended", "34")
        for name, members in (("small", range(10)), ("limit", range(512)), ("big", range(600)),
                              ("neg", range(-5, 5)), ("wide", [2**15, 2**31, 2**62, -2**62])):
            pipe.sadd(f"{p}set:int:{name}", *members)
        pipe.sadd(p + "set:str:small", *[f"m{n}" for n in range(20)])
        pipe.sadd(p + "set:str:big", *[f"member:{n}" for n in range(300)])
        pipe.sadd(p + "set:mixed", 1, 2, 3, "x", text, b"")
        for name, count, size in (("small", 5, 8), ("limit", 128, 64), ("many", 129, 4), ("long", 3, 65), ("big", 1000, 20)):
            pipe.hset(f"{p}hash:{name}", mapping={f"f{n}": rng.randbytes(size) for n in range(count)})
            pipe.zadd(f"{p}zset:{name}", {f"{n:04d}" + "x" * (size - 4): rng.uniform(-1e6, 1e6) for n in range(count)})
        pipe.hset(p + "hash:ints", mapping={n: n * 1000003 for n in range(30)})
        pipe.zadd(p + "zset:special", {"inf": float("inf"), "-inf": float("-inf"), "zero": 0, "same1": 1, "same2": 1,
                                       "tiny": 5e-324, "huge": 1.7976931348623157e308, "third": 1 / 3})
        for name, items in (("small", [b"a", b"", b"1", b"-5", text]), ("ints", list(range(300))),
                            ("big", [rng.randbytes(30) for _ in range(3000)]),
                            ("plain", [b"x" * 20000, b"small", b"y" * 9000]),
                            ("lzf", [b"abcabcabc" * 10 + str(n).encode() for n in range(500)])):
            pipe.rpush(f"{p}list:{name}", *items)
        if ttl:
            for n, kind in enumerate(("str:int", "hash:small", "set:int:small", "zset:big", "list:ints", "str:raw:100")):
                pipe.pexpire(p + kind, 10_000_000 + 1000 * n)
            pipe.execute_command("PEXPIREAT", p + "hash:big", 4_102_444_800_123)
        pipe.execute()


def populate(client, count, prefix="k", size=20, pipeline=1000):
    """`count` string keys prefix:0 ... (value: the number, padded)."""
    for at in range(0, count, pipeline):
        pipe = client.pipeline(transaction=False)
        for n in range(at, min(at + pipeline, count)):
            pipe.set(f"{prefix}:{n}", f"{n}:".ljust(size, "v"))
        pipe.execute()


def wait_in_sync(primary, *replicas, timeout=20):
    """Until every replica's link is up and it has applied all that the primary has written."""
    def synced():
        end = primary.stat("master_repl_offset", "replication")
        for replica in replicas:
            info = replica.info("replication")
            if info["role"] != "slave" or info["master_link_status"] != "up":
                return False
            if info["master_sync_in_progress"] or info["slave_repl_offset"] < end:
                return False
        return True
    wait_for(f"{replicas} in sync with {primary}", synced, timeout)


# ---------------------------------------------------------------------------------------------------- clusters

class NodeLine:
    """One line of CLUSTER NODES."""

    def __init__(self, text):
        words = text.split(" ")
        self.id, self.address, flags, self.primary_id = words[:4]
        self.flags = set(flags.split(","))
        self.epoch, self.link = int(words[6]), words[7]
        self.slots, self.moving = set(), []
        for word in words[8:]:
            if word.startswith("["):
                self.moving.append(word)
            elif word:
                first, _, last = word.partition("-")
                self.slots.update(range(int(first), int(last or first) + 1))
        self.port = int(self.address.split("@")[0].rsplit(":", 1)[1])

    @property
    def is_primary(self):
        return "master" in self.flags

    @property
    def is_bad(self):
        return bool(self.flags & {"fail", "fail?", "handshake", "noaddr"})


def cluster_nodes(node, client=None):
    """{id: NodeLine} as this node sees the cluster."""
    reply = (client or node.client).execute_command("CLUSTER NODES")
    if isinstance(reply, dict):  # redis-py has parsed it already: ask without its help
        raise TestFailure("CLUSTER NODES was parsed by the client library")
    text = reply.decode() if isinstance(reply, bytes) else reply
    return {line.id: line for line in map(NodeLine, text.strip().split("\n"))}


def cluster_info(node):
    reply = node.cmd("CLUSTER INFO")
    if isinstance(reply, dict):
        return {k: str(v) for k, v in reply.items()}
    text = reply.decode() if isinstance(reply, bytes) else reply
    return dict(line.split(":", 1) for line in text.strip().split("\r\n"))


# CLUSTER NODES and INFO are wanted as the server sends them.
def _raw_cluster_replies():
    for name in ("CLUSTER NODES", "CLUSTER INFO", "CLUSTER SLOTS"):
        redis.Redis.RESPONSE_CALLBACKS.pop(name, None)


_raw_cluster_replies()


class Cluster:
    def __init__(self, nodes, timeout):
        self.nodes, self.timeout = list(nodes), timeout

    # -- forming
    def form(self, replicas=0):
        """By CLUSTER commands: slots in equal parts, MEET, REPLICATE. Returns once all agree."""
        count = len(self.nodes) // (replicas + 1)
        primaries, rest = self.nodes[:count], self.nodes[count:]
        for n, node in enumerate(primaries):
            node.cmd("CLUSTER", "ADDSLOTSRANGE", SLOTS * n // count, SLOTS * (n + 1) // count - 1)
        for n, node in enumerate(self.nodes):
            node.cmd("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
        self.meet()
        for n, node in enumerate(rest):
            node.cmd("CLUSTER", "REPLICATE", primaries[n % count].id)
        self.wait_whole()
        return self

    def meet(self, timeout=30, again=4):
        """The first node meets the others.  A handshake ends after a second, also where the machine did not let both sides run for so
        long; as by an operator, it is begun again then, by whichever side does not know the other."""
        first = self.nodes[0]
        for node in self.nodes[1:]:
            first.cmd("CLUSTER", "MEET", node.announced, node.port)
        begun = time.monotonic()

        def known():
            nonlocal begun
            if self.all_known():
                return True
            if time.monotonic() - begun > again * PATIENCE:
                begun = time.monotonic()
                for node in self.nodes[1:]:
                    for one, other in ((first, node), (node, first)):
                        if other.id not in cluster_nodes(one):
                            one.cmd("CLUSTER", "MEET", other.announced, other.port)
            return False
        wait_for("all nodes to know each other", known, timeout)

    def create_by_cli(self, replicas=0):
        out = run([REDIS_CLI, "--cluster", "create", *[node.address for node in self.nodes],
                   "--cluster-replicas", replicas, "--cluster-yes", *self._cli_options(self.nodes[0])], timeout=60)
        if "[OK] All 16384 slots covered." not in out:
            raise TestFailure(f"redis-cli --cluster create did not succeed:\n{out}")
        self.wait_whole()
        return out

    @staticmethod
    def _cli_options(node):
        return node.tls.cli_options if node.tls else []

    def cli(self, verb, *words, at=None, timeout=180, check=True, input=None):
        """redis-cli --cluster VERB HOST:PORT words..."""
        node = at or self.live()[0]
        return run([REDIS_CLI, "--cluster", verb, node.address, *words, *self._cli_options(node)], timeout=timeout,
                   check=check, input=input)

    # -- looking
    def live(self):
        return [node for node in self.nodes if node.alive() and not node.paused]

    def all_known(self):
        for node in self.live():
            lines = cluster_nodes(node).values()
            if len(lines) != len(self.nodes) or any("handshake" in line.flags for line in lines):
                return False
        return True

    def view(self, node):
        """What has to be equal on all nodes: {id: (role, primary, slots)}."""
        return {line.id: (line.is_primary, line.primary_id, frozenset(line.slots)) for line in cluster_nodes(node).values()}

    def whole(self, nodes=None):
        """None when every live node says ok, sees every other as good, and all have one view; else why not."""
        try:
            return self._why_not_whole(nodes or self.live())
        except redis.exceptions.BusyLoadingError:
            return "a node is loading its dataset"

    def _why_not_whole(self, nodes):
        views = []
        for node in nodes:
            if cluster_info(node)["cluster_state"] != "ok":
                return f"{node}: cluster_state is {cluster_info(node)['cluster_state']}"
            lines = cluster_nodes(node)
            for line in lines.values():
                if line.is_bad or (line.link != "connected" and "myself" not in line.flags):
                    return f"{node} sees {line.address} {','.join(sorted(line.flags))} {line.link}"
            if sum(len(line.slots) for line in lines.values()) != SLOTS:
                return f"{node}: not all slots are covered"
            views.append(self.view(node))
        for node, view in zip(nodes, views):
            if view != views[0]:
                return f"{node} and {nodes[0]} do not agree"
            if len(view) != len(self.nodes):
                return f"{node} knows {len(view)} nodes, not {len(self.nodes)}"
        for node in nodes:
            if self.role(node) == "slave" and node.stat("master_link_status", "replication") != "up":
                return f"{node}: its link to its primary is down"
        return None

    def wait_whole(self, timeout=30):
        deadline = time.monotonic() + timeout * PATIENCE
        while True:
            try:
                why = self.whole()
            except (redis.RedisError, OSError) as error:
                why = repr(error)
            if why is None:
                return self
            if time.monotonic() > deadline:
                raise TestFailure(f"the cluster is not whole after {timeout * PATIENCE} s: {why}\n{self.picture()}")
            time.sleep(0.1)

    def picture(self):
        """Every node's CLUSTER NODES, for a failure message."""
        parts = []
        for node in self.nodes:
            try:
                parts.append(f"{node}:\n{node.new_client(socket_timeout=2).execute_command('CLUSTER NODES').decode()}")
            except Exception as error:
                parts.append(f"{node}: {error!r}")
        return "\n".join(parts)

    def role(self, node):
        return node.stat("role", "replication")

    def primaries(self):
        """The live primaries that own slots."""
        return [n for n in self.live() if self.role(n) == "master" and cluster_nodes(n)[n.id].slots]

    def by_id(self, id_):
        return next(node for node in self.nodes if node.alive() and node.id == id_)

    def replicas_of(self, primary):
        id_ = primary.id
        return [n for n in self.live() if n is not primary and cluster_nodes(n)[n.id].primary_id == id_]

    def pairs(self):
        """[(primary, [replicas])]."""
        return [(primary, self.replicas_of(primary)) for primary in self.primaries()]

    def owner(self, slot):
        return next(n for n in self.primaries() if slot in cluster_nodes(n)[n.id].slots)

    def wait_primary(self, node, timeout=20):
        wait_for(f"{node} to be primary", lambda: self.role(node) == "master" and cluster_nodes(node)[node.id].slots, timeout)

    def wait_replica_of(self, node, primary, timeout=20):
        wait_for(f"{node} to replicate {primary}", lambda: self.role(node) == "slave"
                 and cluster_nodes(node)[node.id].primary_id == primary.id
                 and node.stat("master_link_status", "replication") == "up", timeout)

    def sees(self, observer, target_id):
        return cluster_nodes(observer)[target_id]

    # -- data
    def put(self, key, *words):
        """One command about `key` at the owner of its slot: put("a", "SET", "a", 1)."""
        return self.owner(key_slot(key)).cmd(*words)

    def populate(self, count, prefix="k"):
        """String keys prefix:0... spread over all primaries."""
        owners = self.slot_owners()
        pipes = {node: node.client.pipeline(transaction=False) for node in set(owners.values())}
        for n in range(count):
            key = f"{prefix}:{n}"
            pipes[owners[key_slot(key)]].set(key, f"value {n}")
        for pipe in pipes.values():
            pipe.execute()

    def slot_owners(self):
        owners = {}
        for node in self.primaries():
            owners.update(dict.fromkeys(cluster_nodes(node)[node.id].slots, node))
        return owners

    def dataset(self):
        """The keys of all primaries together; a key on two of them fails the test."""
        all_ = {}
        for node in self.primaries():
            part = dataset(node)
            twice = set(part) & set(all_)
            if twice:
                raise TestFailure(f"keys on two primaries: {sorted(twice)[:5]}")
            all_.update(part)
        return all_

    def assert_replicas_equal(self):
        """Every replica holds what its primary holds."""
        for primary, replicas in self.pairs():
            if replicas:
                wait_in_sync(primary, *replicas)
            expected = dataset(primary)
            for replica in replicas:
                assert_same_data(expected, dataset(replica, readonly=True), f"{replica} is not like its primary {primary}")


class Writer:
    """Writes numbered keys all over the cluster in a thread of its own and remembers which were acknowledged.

    A key is tried once with a short timeout; whatever happens, the next one follows, so that one dead primary does not
    keep the others from being written to. acked maps a key's number to the time of its acknowledgement."""

    def __init__(self, cluster, prefix="w", rate=400, timeout=0.5):
        self.cluster, self.prefix, self.pause, self.timeout = cluster, prefix, 1 / rate, timeout
        self.acked, self.refused, self.errors = {}, 0, {}
        self.connections, self.owners = {}, {}
        self.last_error = None
        self.streak = 0          # successes since the last error
        self.number = 0
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()
        wait_for("the writer's first acknowledged write", lambda: self.acked, 10, 0.01)
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.stopped.set()
        self.thread.join(10)
        for client in self.connections.values():
            client.close()

    def key(self, number):
        return f"{self.prefix}:{number}"

    def _client(self, port):
        if port not in self.connections:
            node = next(n for n in self.cluster.nodes if n.port == port)
            self.connections[port] = node.new_client(socket_timeout=self.timeout, socket_connect_timeout=self.timeout,
                                                     retry_on_timeout=False)
        return self.connections[port]

    def _learn(self):
        """The slot map of any node that answers."""
        nodes = self.cluster.live()
        random.shuffle(nodes)
        for node in nodes:
            try:
                lines = cluster_nodes(node, self._client(node.port))
            except (redis.RedisError, OSError):
                continue
            mine = [line for line in lines.values() if "myself" in line.flags]
            if mine and not mine[0].is_bad:
                self.owners = {slot: line.port for line in lines.values() for slot in line.slots}
                return

    def _run(self):
        learned = 0
        while not self.stopped.is_set():
            number, self.number = self.number, self.number + 1
            key = self.key(number)
            try:
                port = self.owners.get(key_slot(key))
                if port is None:
                    raise redis.ConnectionError("no owner known")
                self._client(port).execute_command("SET", key, number)
                self.acked[number] = time.monotonic()
                self.streak += 1
            except (redis.RedisError, OSError) as error:
                self.streak = 0
                self.last_error = error
                name = str(error).split(" ")[0] if isinstance(error, redis.ResponseError) else type(error).__name__
                self.errors[name] = self.errors.get(name, 0) + 1
                if time.monotonic() - learned > 0.1:
                    learned = time.monotonic()
                    self._learn()
            self.stopped.wait(self.pause)

    def wait_flowing(self, count=150, timeout=30):
        """Until `count` writes in a row, spread over all slots, were acknowledged."""
        self.streak = 0
        try:
            wait_for(f"{count} acknowledged writes in a row", lambda: self.streak >= count, timeout)
        except TestFailure as failure:
            raise TestFailure(f"{failure}; errors so far {self.errors}, last {self.last_error!r}\n"
                              f"{self.cluster.picture()}") from None

    def lost(self, data):
        """Acknowledged writes that are not in the dataset: [(number, time of acknowledgement)]."""
        return [(n, at) for n, at in sorted(self.acked.items())
                if data.get(self.key(n).encode(), (None, None))[1] != str(n).encode()]

    def assert_kept(self, data, kills=(), grace=1.0):
        """Nothing acknowledged is lost but what was on its way within `grace` seconds before a kill (replication is
        asynchronous)."""
        lost = self.lost(data)
        unexcused = [(n, at) for n, at in lost if not any(kill - grace <= at <= kill + grace for kill in kills)]
        if unexcused or len(lost) > 20 * len(kills):
            raise TestFailure(f"{len(lost)} of {len(self.acked)} acknowledged writes lost, {len(unexcused)} of them long "
                              f"before any kill: {[self.key(n) for n, _ in (unexcused or lost)[:10]]}")


# ---------------------------------------------------------------------------------------------------- networks

class Network:
    """Network namespaces, each with a data interface on a bridge that can be cut and a control interface that cannot.

    Needs root and ip(8); anything missing is a failure of the test. Nodes talk to each other over the data addresses
    10.213.N.i, the test talks to them over the control addresses 10.214.N.i."""

    _numbers = itertools.count()

    def __init__(self, servers, count):
        # Names and addresses of their own for every network: the kernel takes its time to remove the last one.
        number = next(Network._numbers)
        self.tag = f"cv{os.getpid() % 10000}x{number % 100}"
        self.net = 1 + (os.getpid() + 7 * number) % 250
        self.count = count
        self.spaces = [f"{self.tag}n{i}" for i in range(count)]
        servers.undo.append(self.close)
        try:
            for bridge in ("a", "b", "c"):
                self._ip("link", "add", self.tag + bridge, "type", "bridge")
                self._ip("link", "set", self.tag + bridge, "up")
            self._ip("addr", "add", f"10.214.{self.net}.254/24", "dev", self.tag + "c")
            for i, space in enumerate(self.spaces):
                self._ip("netns", "add", space)
                self._ip("-n", space, "link", "set", "lo", "up")
                self._plug(i, space, "d", "a", f"10.213.{self.net}.{i + 1}/24")
                self._plug(i, space, "c", "c", f"10.214.{self.net}.{i + 1}/24")
        except (subprocess.SubprocessError, OSError, TestFailure) as error:
            raise TestFailure(f"cannot make network namespaces (needs root and iproute2): {error}") from None

    @staticmethod
    def _ip(*words):
        run(["ip", *words], timeout=10)

    def _plug(self, i, space, kind, bridge, address):
        link = f"{self.tag}{kind}{i}"
        self._ip("link", "add", link, "type", "veth", "peer", "name", "eth" + kind, "netns", space)
        self._ip("link", "set", link, "master", self.tag + bridge, "up")
        self._ip("-n", space, "addr", "add", address, "dev", "eth" + kind)
        self._ip("-n", space, "link", "set", "eth" + kind, "up")

    def data_address(self, i):
        return f"10.213.{self.net}.{i + 1}"

    def control_address(self, i):
        return f"10.214.{self.net}.{i + 1}"

    def prefix(self, i):
        return ["ip", "netns", "exec", self.spaces[i]]

    def place(self, i):
        """The options of a node in it that uses port 7000."""
        return {"port": 7000, "host": self.control_address(i), "prefix": self.prefix(i), "bind": "0.0.0.0",
                "protected_mode": "no", "cluster_announce_ip": self.data_address(i)}

    def split(self, minority):
        """Frames pass no more between the namespaces listed and the others."""
        for i in range(self.count):
            self._ip("link", "set", f"{self.tag}d{i}", "master", self.tag + ("b" if i in minority else "a"))

    def hide(self, i):
        """Nor between this one and the test's clients."""
        self._ip("link", "set", f"{self.tag}c{i}", "nomaster")

    def mute(self, i):
        """What this one sends to the others is lost; it hears them."""
        self._neighbours(i, "replace", "lladdr", "02:00:00:00:00:01", "nud", "permanent")

    def _neighbours(self, i, verb, *words):
        for other in range(self.count):
            if other != i:
                self._ip("-n", self.spaces[i], "neigh", verb, self.data_address(other), "dev", "ethd", *words)

    def heal(self, muted=()):
        self.split(())
        for i in range(self.count):
            self._ip("link", "set", f"{self.tag}c{i}", "master", self.tag + "c")
        for i in muted:
            self._neighbours(i, "del")

    def close(self):
        for i, kind in itertools.product(range(self.count), "dc"):
            subprocess.run(["ip", "link", "del", f"{self.tag}{kind}{i}"], capture_output=True)
        for space in self.spaces:
            subprocess.run(["ip", "netns", "del", space], capture_output=True)
        for bridge in ("a", "b", "c"):
            subprocess.run(["ip", "link", "del", self.tag + bridge], capture_output=True)
