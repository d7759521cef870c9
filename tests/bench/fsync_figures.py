"""The append-only file: what each fsync policy costs, and how fast a log is loaded, beside redis-server."""
import os
import subprocess
import threading
import time
from statistics import median

from figures import run_benchmark
from target import Connection, Failure, KINDS, Server

POLICIES = ("off", "no", "everysec", "always")
PIPELINES = (1, 16)


class Probe:
    """One connection that reads all the time; its slowest hundredth."""

    def __init__(self, port):
        self.port, self.times, self.stop = port, [], threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        with Connection(self.port) as c:
            while not self.stop.is_set():
                began = time.perf_counter()
                c.ask("GET", "probe")
                self.times.append(time.perf_counter() - began)
                time.sleep(0.001)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    def p99_ms(self):
        return sorted(self.times)[int(len(self.times) * 0.99)] * 1000 if self.times else 0.0


def directives(policy):
    return ["--appendonly", "no"] if policy == "off" else ["--appendonly", "yes", "--appendfsync", policy,
                                                             "--auto-aof-rewrite-percentage", "0"]


def policies(size, say):
    for policy in POLICIES:
        with Server("covey", *directives(policy)) as covey, Server("redis", *directives(policy)) as redis:
            servers = {"covey": covey, "redis": redis}
            for pipeline in PIPELINES:
                count = size.fsync_requests[pipeline] // (4 if policy == "always" and pipeline == 1 else 1)
                say(f"SET P={pipeline} appendfsync {policy}")
                results = {kind: [] for kind in KINDS}
                for turn in range(size.turns):
                    for kind in KINDS if turn % 2 == 0 else KINDS[::-1]:
                        with Probe(servers[kind].port) as probe:
                            result = run_benchmark(servers[kind], "SET", pipeline, count, size.keys)
                        result["probe"] = probe.p99_ms()
                        results[kind].append(result)
                middle = {kind: {name: median(r[name] for r in results[kind]) for name in results[kind][0]} for kind in KINDS}
                for name, text, form, less in (("rate", "operations/s", "{:,.0f}", False), ("p99", "p99 ms", "{:.3f}", True),
                                               ("cpu", "CPU us/operation", "{:.2f}", True),
                                               ("probe", "p99 ms of a reader", "{:.3f}", True)):
                    yield f"SET P={pipeline} AOF {policy}, {text}", middle["covey"][name], middle["redis"][name], form, less


def load_times(size, say):
    """A log of SET commands without a base, loaded by each from the same file."""
    seconds = {}
    with Server("redis", "--appendonly", "yes", "--appendfsync", "no") as writer:
        writer.fill(size.aof_load_keys, [b"x" * 64])
        with writer.connect() as c:
            written = int(c.info("persistence")["aof_current_size"])
        for kind in KINDS:
            say(f"load of {written >> 20} MB of log, {kind}")
            with Server(kind, "--appendonly", "yes", "--appendfsync", "no", prepare=lambda directory: subprocess.run(
                    ["cp", "-r", os.path.join(writer.dir, "appendonlydir"), directory], check=True)) as reader:
                seconds[kind] = time.monotonic() - reader.started  # PING is answered -LOADING before
                with reader.connect() as c:
                    if c.ask("DBSIZE") != size.aof_load_keys:
                        raise Failure(f"{kind} has not loaded all keys")
    yield f"load of a {written >> 20} MB AOF, s", seconds["covey"], seconds["redis"], "{:.2f}", True


def figures(size, say):
    yield from policies(size, say)
    yield from load_times(size, say)
