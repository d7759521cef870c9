"""One address in front of servers: nothing between, HAProxy (L4), nutcracker, and covey proxy with a static pool and with a
cluster; what a proxy costs a request, and what clients see when a primary is killed."""
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from statistics import median

from figures import OPERATIONS, run_benchmark
from target import COVEY, TICKS, Connection, Failure, Server, SmallCluster, die_with_parent, free_port, sets, wait_for

PEERS = {"HAProxy": "haproxy", "nutcracker": "nutcracker"}
FIGURES = (("rate", "operations/s", "{:,.0f}"), ("p50", "p50 ms", "{:.3f}"), ("p99", "p99 ms", "{:.3f}"),
           ("cpu", "CPU us/operation of the proxy", "{:.2f}"))
CLIENTS = 50


def find(program):
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


class Between:
    """A proxy with one thread in front of a server's port, or of a cluster's."""

    def __init__(self, kind, backend):
        self.kind, self.backend, self.port = kind, backend, free_port()
        self.dir = tempfile.mkdtemp(prefix="covey-bench-proxy-")
        with open(os.path.join(self.dir, "log"), "wb") as log:
            self.process = subprocess.Popen(self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.dir,
                                            preexec_fn=die_with_parent)
        try:
            wait_for(f"{kind} on port {self.port}", self._answers, 20)
        except Failure:
            self.stop()
            raise

    def _write(self, name, text):
        path = os.path.join(self.dir, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    def _pool(self):
        return self._write("nutcracker.yml", f"bench:\n  listen: 127.0.0.1:{self.port}\n  hash: fnv1a_64\n  distribution: ketama\n"
                                             f"  redis: true\n  preconnect: true\n  servers:\n   - 127.0.0.1:{self.backend}:1\n")

    def _command(self):
        if self.kind == "HAProxy":
            return [find("haproxy"), "-db", "-f", self._write(
                "haproxy.cfg", f"global\n  nbthread 1\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n"
                               f"  timeout server 1h\nlisten bench\n  bind 127.0.0.1:{self.port}\n  server one 127.0.0.1:{self.backend}\n")]
        if self.kind == "nutcracker":
            return [find("nutcracker"), "-c", self._pool(), "-s", str(free_port()), "-a", "127.0.0.1"]
        if self.kind == "Covey, pool":
            return [COVEY, "proxy", "--pool", self._pool(), "-s", str(free_port()), "-a", "127.0.0.1", "--workers", "1"]
        return [COVEY, "proxy", "--cluster", f"127.0.0.1:{self.backend}", "--listen", f"127.0.0.1:{self.port}", "--workers", "1"]

    def _answers(self):
        if self.process.poll() is not None:
            with open(os.path.join(self.dir, "log"), errors="replace") as log:
                raise Failure(f"{self.kind} ended with {self.process.returncode}: {log.read()[-400:].strip()}")
        with Connection(self.port, 2) as c:
            return c.ask("GET", "none") is None

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def throughput(size, say, between):
    """{(operation, pipeline): {column: {figure: value}}}; the columns take turns, and the medians count."""
    found = {}
    for pipeline in (1, 16):
        for operation in OPERATIONS:
            say(f"proxies: {operation} P={pipeline}")
            results = {name: [] for name in between}
            for turn in range(size.turns):
                for name in sorted(between, reverse=turn % 2 == 1):
                    results[name].append(run_benchmark(between[name], operation, pipeline, size.requests[pipeline] // (4 if pipeline == 1 else 8), size.keys))
            found[operation, pipeline] = {name: {what: median(r[what] for r in results[name]) for what in results[name][0]} for name in between}
    return found


class Load:
    """Plain clients that SET and GET; what each reply was, and the longest wait for one."""

    def __init__(self, port):
        self.port, self.stopped, self.lock = port, False, threading.Lock()
        self.answered, self.errors, self.lost, self.longest = 0, 0, 0, 0.0
        self.threads = [threading.Thread(target=self.work, args=(n,), daemon=True) for n in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def work(self, number):
        rng, connection = random.Random(number), None
        while not self.stopped:
            began = time.monotonic()
            try:
                connection = connection or Connection(self.port, 60)
                key = f"key:{rng.randrange(100000)}"
                reply = connection.ask("SET", key, "x" * 64) if rng.random() < 0.5 else connection.ask("GET", key)
                bad = isinstance(reply, str) and reply.startswith("-")
            except OSError:
                connection, bad = None, None
            with self.lock:
                self.answered += bad is False
                self.errors += bad is True
                self.lost += bad is None
                self.longest = max(self.longest, time.monotonic() - began)

    def end(self):
        self.stopped = True
        for thread in self.threads:
            thread.join(70)


def kill_a_primary(say, cluster, proxy, index):
    say("proxies: kill -9 of a primary")
    _, pid, replica, _ = cluster.pair(index)
    load = Load(proxy.port)
    time.sleep(1)
    os.kill(pid, signal.SIGKILL)

    def promoted():
        with Connection(replica, 2) as c:
            return c.info("replication").get("role") == "master"
    wait_for("the failover", promoted, 30)
    time.sleep(2)
    load.end()
    return (f"kill -9 of a primary, node timeout 1 s, {CLIENTS} clients of covey proxy: {load.answered:,} answered, {load.errors} errors "
            f"(writes under way at the fault), {load.lost} connections lost, longest wait {load.longest:.2f} s")


def table(found, columns, missing):
    lines = [" " * 40 + "".join(f"{name:>16}" for name in columns)]
    for (operation, pipeline), row in found.items():
        for what, text, form in FIGURES:
            cells = ["-" if name not in row or (name == "direct" and what == "cpu") else form.format(row[name][what]) for name in columns]
            lines.append(f"{f'{operation} P={pipeline} {text}':<40}" + "".join(f"{cell:>16}" for cell in cells))
    return lines + [f"MISSING  {name}: the package is not installed" for name in missing]


def figures(size, say):
    """Lines to print."""
    missing = [name for name, program in PEERS.items() if not find(program)]
    columns = ["direct", "HAProxy", "nutcracker", "Covey, pool", "Covey, cluster"]
    between = {}
    with Server("redis") as server, SmallCluster("covey", 1000) as cluster:
        try:
            between["direct"] = server
            server.fill(size.keys, [b"x" * 64])
            for name in columns[1:]:
                if name not in missing:
                    between[name] = Between(name, cluster.port if name == "Covey, cluster" else server.port)
            with Connection(between["Covey, cluster"].port, 120) as c:
                c.load(sets(size.keys, [b"x" * 64]), size.keys)
            lines = table(throughput(size, say, between), columns, missing)
            return lines + [kill_a_primary(say, cluster, between["Covey, cluster"], 0)]
        finally:
            for name, proxy in between.items():
                if name != "direct":
                    proxy.stop()
