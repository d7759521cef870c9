"""Starts and stops the servers that are compared: the oracle (redis-server 7.0.15) and the subject (Covey)."""

import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time

from resp import Connection, Disconnected

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ORACLE = os.environ.get("REDIS_BIN", "redis-server")
SUBJECT = os.environ.get("COVEY_BIN", os.path.join(ROOT, "build", "covey"))
# What a sanitizer says.  Such builds are slow: patience is what to multiply times with.
SANITIZED = any(word in SUBJECT for word in ("build-address", "build-thread"))
SANITIZER_WORDS = (b"ERROR: AddressSanitizer", b"ERROR: LeakSanitizer", b"WARNING: ThreadSanitizer", b": runtime error: ")
PATIENCE = 4 if SANITIZED else 1
PORT_FIRST, PORT_LAST = (int(port) for port in os.environ.get("COVEY_TEST_PORTS", "21300-21349").split("-"))


def port_free(port):
    """True if the port, and the bus port that goes with it, can be bound."""
    for number in (port, port + 10000):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", number))
            except OSError:
                return False
    return True


class PortLost(RuntimeError):
    """Another process has the port."""


class Server:
    """One server process with a directory of its own; restart() after a crash."""

    taken = set()

    def __init__(self, binary, cluster=False, extra=()):
        self.binary, self.cluster, self.extra = binary, cluster, list(extra)
        self.dir = tempfile.mkdtemp(prefix="covey-differential-")
        self.process = self.port = self.log = None
        self.start()

    def _command(self):
        name = os.path.basename(self.binary)
        head = [self.binary] if "redis" in name or "valkey" in name else [self.binary, "server"]
        args = ["--port", str(self.port), "--dir", self.dir, "--save", "", "--bind", "127.0.0.1"]
        if self.cluster:
            args += ["--cluster-enabled", "yes"]
        return head + args + self.extra

    def start(self):
        """Tries port after port: somebody else may take one between our look and the server's bind."""
        ports = [p for p in range(PORT_FIRST, PORT_LAST + 1) if p not in Server.taken and port_free(p)]
        if not ports:
            raise RuntimeError("no free port from %d to %d" % (PORT_FIRST, PORT_LAST))
        random.SystemRandom().shuffle(ports)  # not hypothesis's seeded one
        for last, port in enumerate(ports[:5], 1 - len(ports[:5])):
            try:
                self._start_on(port)
                return
            except PortLost:
                if last == 0:
                    raise

    def _start_on(self, port):
        self.port = port
        Server.taken.add(port)
        self.log = open(os.path.join(self.dir, "log"), "ab")
        env = dict(os.environ, LC_ALL="C")  # SORT ALPHA collates by locale
        try:
            self.process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=env
            )
        except OSError as why:
            self.stop()
            raise RuntimeError("cannot start %s: %s" % (self.binary, why)) from why
        try:
            self._wait_ready()
        except PortLost:
            self._end()
            raise
        except Exception:
            self.stop()
            raise

    def _wait_ready(self):
        deadline = time.monotonic() + 20 * PATIENCE
        while True:
            if self.process.poll() is not None:
                kind = RuntimeError if port_free(self.port) else PortLost
                raise kind("%s ended at start: %s" % (self.binary, self.log_tail()))
            try:
                conn = self.connect()
                break
            except (OSError, Disconnected):
                if time.monotonic() > deadline:
                    raise RuntimeError("%s does not listen: %s" % (self.binary, self.log_tail())) from None
                time.sleep(0.02)
        if b"process_id:%d\r\n" % self.process.pid not in (conn.call("INFO", "server")[1] or b""):
            raise PortLost("port %d is served by another process" % self.port)
        if self.cluster:
            self._form_cluster(conn, deadline)
        conn.close()

    def _form_cluster(self, conn, deadline):
        reply = conn.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        if reply != ("+", b"OK") and b"already busy" not in reply[1]:
            raise RuntimeError("CLUSTER ADDSLOTSRANGE on %s: %r" % (self.binary, reply))
        while b"cluster_state:ok" not in (conn.call("CLUSTER", "INFO")[1] or b""):
            if time.monotonic() > deadline:
                raise RuntimeError("the cluster of %s does not become ok" % self.binary)
            time.sleep(0.05)

    def connect(self):
        return Connection(("127.0.0.1", self.port), timeout=20.0 * PATIENCE)

    def log_tail(self, size=2000):
        with open(os.path.join(self.dir, "log"), "rb") as file:
            return file.read()[-size:].decode("utf-8", "replace")

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def _end(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        if self.log is not None:
            self.log.close()
            self.log = None
        Server.taken.discard(self.port)

    def restart(self):
        """Kills what is left of the process and starts anew; the directory stays (in cluster mode the slots too)."""
        self._end()
        self.start()

    def stop(self):
        """Fails when a sanitizer has found something: races show while it runs, leaks at its exit."""
        if SANITIZED and self.alive():
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                pass
        self._end()
        with open(os.path.join(self.dir, "log"), "rb") as file:
            log = file.read()
        shutil.rmtree(self.dir, ignore_errors=True)
        found = min((log.find(word) for word in SANITIZER_WORDS if word in log), default=-1)
        assert found < 0, log[found : found + 6000].decode("utf-8", "replace")


@contextlib.contextmanager
def both(cluster=False, extra=(), subject=None, oracle=ORACLE):
    """The oracle and the subject for as long as they are needed.  subject: makes it, where it is more than a server."""
    with contextlib.ExitStack() as stack:
        pair = []
        for make in (lambda: Server(oracle, cluster, extra), subject or (lambda: Server(SUBJECT, cluster, extra))):
            pair.append(make())
            stack.callback(pair[-1].stop)
        yield pair
