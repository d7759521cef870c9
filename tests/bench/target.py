"""Servers under measurement: started, asked, watched from /proc, stopped."""
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COVEY = os.environ.get("COVEY_BIN", os.path.join(ROOT, "build", "covey"))
REDIS = shutil.which("redis-server") or "/usr/bin/redis-server"
KINDS = ("covey", "redis")
TICKS = os.sysconf("SC_CLK_TCK")


class Failure(Exception):
    """A figure that could not be measured, and why."""


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: nothing outlives the measurement
    os.setpgid(0, 0)


class Connection:
    """Requests and replies on one socket; enough of the protocol for measuring."""

    def __init__(self, port, timeout=30):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def ask(self, *words):
        encoded = [w if isinstance(w, bytes) else str(w).encode() for w in words]
        self.socket.sendall(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in encoded))
        return self.read()

    def read(self):
        """Errors come back as text that begins with '-'."""
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise OSError("connection closed")
        kind, text = line[:1], line[1:-2].decode(errors="replace")
        if kind == b"$":
            return None if text == "-1" else self.file.read(int(text) + 2)[:-2].decode(errors="replace")
        if kind == b"*":
            return [self.read() for _ in range(int(text))]
        return int(text) if kind == b":" else "-" + text if kind == b"-" else text

    def info(self, section):
        return dict(line.split(":", 1) for line in self.ask("INFO", section).splitlines() if ":" in line)

    def load(self, commands, count):
        """Sends an iterable of (bytes, how many commands) whose every reply is +OK."""
        done = 0
        for chunk, many in commands:
            self.socket.sendall(chunk)
            replies = self.file.read(5 * many)
            if replies != b"+OK\r\n" * many:
                raise Failure(f"a write was refused: {replies[:80]!r}")
            done += many
        if done != count:
            raise Failure(f"{done} of {count} keys written")


def sets(count, values, chunk=5000):
    """SET key:000000000000 VALUE and so on, in pipelines; the keys are those of redis-benchmark -r, 16 bytes long."""
    bodies = [b"\r\n$%d\r\n%s\r\n" % (len(v), v) for v in values]
    head = b"*3\r\n$3\r\nSET\r\n$16\r\nkey:%012d"
    for first in range(0, count, chunk):
        last = min(count, first + chunk)
        yield b"".join(head % i + bodies[i % len(bodies)] for i in range(first, last)), last - first


_given = set()


def free_port(count=1):
    """The first of `count` adjacent ports that are free, as are those of the cluster bus."""
    for base in range(21600, 32000, max(count, 1)):
        ports = range(base, base + count)
        if _given.isdisjoint(ports) and all(_bindable(p) and _bindable(p + 10000) for p in ports):
            _given.update(ports)
            return base
    raise Failure("no free port")


def _bindable(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_for(what, condition, seconds, every=0.05):
    end = time.monotonic() + seconds
    while True:
        try:
            value = condition()
        except OSError:
            value = None
        if value:
            return value
        if time.monotonic() > end:
            raise Failure(f"{what}: not within {seconds} s")
        time.sleep(every)


class Server:
    """One data node without persistence."""

    def __init__(self, kind, *directives, prepare=None):
        """prepare(directory) puts files into place before the start."""
        self.kind = kind
        self.port = free_port()
        self.dir = tempfile.mkdtemp(prefix=f"covey-bench-{kind}-")
        if prepare:
            prepare(self.dir)
        self.started = time.monotonic()
        command = [COVEY, "server"] if kind == "covey" else [REDIS]
        with open(os.path.join(self.dir, "log"), "wb") as log:
            self.process = subprocess.Popen(
                command + ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.dir, "--save", "", "--appendonly", "no",
                           *map(str, directives)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent)
        try:
            wait_for(f"{kind} on port {self.port}", self._answers, 60, every=0.01)
        except Failure:
            self.stop()
            raise

    def _answers(self):
        if self.process.poll() is not None:
            with open(os.path.join(self.dir, "log"), errors="replace") as log:
                raise Failure(f"{self.kind} ended with {self.process.returncode}: {log.read()[-400:].strip()}")
        with self.connect(2) as c:
            return c.ask("PING") == "PONG"

    def connect(self, timeout=30):
        return Connection(self.port, timeout)

    def cpu_seconds(self):
        """User and system time of all its threads so far."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss(self):
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(r"VmRSS:\s*(\d+)", file.read()).group(1)) * 1024

    def fill(self, count, values):
        with self.connect(120) as c:
            c.load(sets(count, values), count)

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class SmallCluster:
    """Six nodes under `covey up`, of either kind, that are not restarted when they die."""

    def __init__(self, kind, node_timeout):
        self.kind, self.node_timeout = kind, node_timeout
        self.port = free_port(6)
        self.dir = tempfile.mkdtemp(prefix=f"covey-bench-up-{kind}-")
        self.process = None
        self.start()

    def start(self):
        env = dict(os.environ)
        env.pop("COVEY_SERVER_BINARY", None)
        if self.kind == "redis":
            env["COVEY_SERVER_BINARY"] = REDIS
        self.log = os.path.join(self.dir, "up.out")
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(
                [COVEY, "up", "--port", str(self.port), "--dir", os.path.join(self.dir, "nodes"), "--no-restart",
                 "--node-timeout", str(self.node_timeout)],
                env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=die_with_parent)
        try:
            wait_for(f"a cluster of {self.kind} nodes", self._ready, 120)
        except Failure:
            self.stop()
            raise

    def _ready(self):
        with open(self.log, errors="replace") as file:
            text = file.read()
        if self.process.poll() is not None:
            raise Failure(f"covey up ended with {self.process.returncode}: {text[-400:].strip()}")
        return re.search(r"^Stop ", text, re.M)

    def halt(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(90)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def stop(self):
        self.halt()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def pair(self, index):
        """(port and pid of a primary, port of its replica, one of its slots)"""
        with Connection(self.port) as c:
            lines = [line.split() for line in c.ask("CLUSTER", "NODES").splitlines()]
        port = {f[0]: int(f[1].split("@")[0].rsplit(":", 1)[1]) for f in lines}
        primaries = sorted((f for f in lines if "master" in f[2] and len(f) > 8), key=lambda f: int(f[8].split("-")[0]))
        victim = primaries[index % len(primaries)]
        replica = next(f for f in lines if f[3] == victim[0])
        with Connection(port[victim[0]]) as c:
            pid = int(c.info("server")["process_id"])
        return port[victim[0]], pid, port[replica[0]], int(victim[8].split("-")[0])
