"""Figures of snapshots and loads: what a BGSAVE costs those who write meanwhile, and how fast a file is read."""
import contextlib
import multiprocessing
import os
import random
import statistics
import threading
import time

from memory_figures import request
from target import KINDS, TICKS, Connection, Failure, Server, wait_for

WRITES = 20_000  # a second, to keys chosen uniformly
VALUE_BYTES = 1000
PROBE_EVERY = 0.001  # seconds


class Background(threading.Thread):
    """Repeats a step until it is told to stop; a failure of it is raised by stop()."""

    def __init__(self, step):
        super().__init__(daemon=True)
        self.step, self.ended, self.failure = step, threading.Event(), None
        self.start()

    def run(self):
        try:
            while not self.ended.is_set():
                self.step()
        except (OSError, Failure) as failure:
            self.failure = failure

    def stop(self):
        self.ended.set()
        self.join(60)
        if self.failure:
            raise Failure(f"a client met {self.failure}")


class Writer:
    """So many SETs a second in small pipelines; behind its schedule it does not catch up."""

    def __init__(self, server, keys, seed):
        self.connection, self.keys, self.rng = server.connect(120), keys, random.Random(seed)
        self.values = [os.urandom(VALUE_BYTES // 2).hex().encode() for _ in range(64)]
        self.written, self.next = 0, time.monotonic()

    def step(self, many=100):
        self.next = max(self.next + many / WRITES, time.monotonic() - 0.1)
        time.sleep(max(0, self.next - time.monotonic()))
        self.burst(many)

    def burst(self, many):
        c, rng = self.connection, self.rng
        c.socket.sendall(b"".join(request(b"SET", b"key:%012d" % rng.randrange(self.keys), rng.choice(self.values))
                                  for _ in range(many)))
        replies = c.file.read(5 * many)
        if replies != b"+OK\r\n" * many:
            raise Failure(f"a write was refused: {replies[:80]!r}")
        self.written += many


def probe(port, wanted):
    """Times of single GETs, one a millisecond, sent whenever they are asked for."""
    connection, times = Connection(port, 120), []
    with contextlib.suppress(OSError):  # when the server is stopped
        while True:
            began = time.perf_counter()
            connection.ask("GET", "key:%012d" % 1)
            took = time.perf_counter() - began
            times.append(took)
            if wanted.poll():
                wanted.recv()
                wanted.send(times)
                times = []
            time.sleep(max(0, PROBE_EVERY - took))


class Probe:
    """The probe is a process of its own, so that its times are not those of waiting for the writer's interpreter."""

    def __init__(self, server):
        self.pipe, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=probe, args=(server.port, theirs), daemon=True)
        self.process.start()

    def take(self):
        """The times since it was asked last."""
        self.pipe.send("times")
        if not self.pipe.poll(60):
            raise Failure("the probe does not answer")
        return self.pipe.recv()

    def stop(self):
        self.process.kill()
        self.process.join()


def percentile(times, share):
    if not times:
        raise Failure("the probe measured nothing")
    return sorted(times)[min(len(times) - 1, int(len(times) * share))] * 1000


def memory_of(server):
    """Bytes of the server and of a child it may have forked: what is private to each, and once what they share."""
    total, pids = 0, [server.process.pid]
    for task in os.listdir(f"/proc/{server.process.pid}/task"):
        try:
            with open(f"/proc/{server.process.pid}/task/{task}/children") as file:
                pids += map(int, file.read().split())
        except OSError:
            pass
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                total += next(int(line.split()[1]) for line in file if line.startswith("Pss:")) * 1024
        except (OSError, StopIteration):
            pass
    return total


def save_and_wait(server, seconds=600):
    """Seconds that a BGSAVE took."""
    with server.connect() as c:
        began = time.monotonic()
        c.ask("BGSAVE")
        wait_for("the end of BGSAVE", lambda: c.info("persistence")["rdb_bgsave_in_progress"] == "0", seconds, 0.05)
        if c.info("persistence")["rdb_last_bgsave_status"] != "ok":
            raise Failure(f"{server.kind}: BGSAVE failed")
        return time.monotonic() - began


def cpu_of(server):
    """CPU seconds of the server and of children that have ended."""
    with open(f"/proc/{server.process.pid}/stat") as file:
        return sum(map(int, file.read().rsplit(")", 1)[1].split()[11:15])) / TICKS


class Watch:
    """The most memory the server takes while it is watched, beyond what it took at first.  One look at 2 GB takes the
    kernel a tenth of a second and more, so nothing else is measured meanwhile."""

    def __init__(self, server):
        self.server, self.first, self.most = server, memory_of(server), 0
        self.thread = Background(self.step)

    def step(self):
        self.most = max(self.most, memory_of(self.server) - self.first)
        time.sleep(0.2)

    def stop(self):
        self.thread.stop()
        return self.most


def under_writes(server, keys):
    """A BGSAVE under uniform writes: seconds, CPU seconds beyond those of as long without, extra memory (of another
    BGSAVE), the probe's p99.9 and longest wait with and without."""
    writer, prober = Writer(server, keys, 1), Probe(server)
    thread = Background(writer.step)
    try:
        time.sleep(2)
        prober.take()
        cpu, began = cpu_of(server), time.monotonic()
        time.sleep(8)
        calm, rate = prober.take(), (cpu_of(server) - cpu) / (time.monotonic() - began)
        cpu = cpu_of(server)
        seconds = save_and_wait(server)
        during, cpu = prober.take(), cpu_of(server) - cpu - rate * seconds
    finally:
        prober.stop()
    watch = Watch(server)
    save_and_wait(server)
    extra = watch.stop()
    thread.stop()
    return {"seconds": seconds, "cpu": cpu, "extra": extra, "p999": percentile(during, 0.999),
            "p999 without": percentile(calm, 0.999), "longest": max(during) * 1000}


def flat_out(server, keys):
    """Operations a second as fast as one pipelining client writes, during a BGSAVE as a share of that without."""
    writer = Writer(server, keys, 2)
    thread = Background(lambda: writer.burst(500))
    time.sleep(1)
    first, began = writer.written, time.monotonic()
    time.sleep(5)
    without = (writer.written - first) / (time.monotonic() - began)
    first = writer.written
    seconds = save_and_wait(server)
    during = (writer.written - first) / seconds
    thread.stop()
    return during / without


def large_values(server, members):
    """One sorted set of so many members, and as many keys under one hash tag, are saved while both are written: the
    longest wait of a writer."""
    with server.connect(300) as c:
        for first in range(0, members, 1000):
            last = min(members, first + 1000)
            words = [b"ZADD", b"large"] + [w for i in range(first, last) for w in (b"%d" % i, b"member:%0400d" % i)]
            c.ask(*words)
        c.load(((b"".join(request(b"SET", b"{tag}%d" % i, b"x" * 60) for i in range(first, first + 5000)), 5000)
                for first in range(0, members, 5000)), members)
    rng, times = random.Random(3), []

    def write(c):
        for words in ((b"ZADD", b"large", b"1", b"member:%0400d" % rng.randrange(members)),
                      (b"SET", b"{tag}%d" % rng.randrange(members), b"y" * 60)):
            began = time.perf_counter()
            c.ask(*words)
            times.append(time.perf_counter() - began)

    with server.connect(120) as c:
        thread = Background(lambda: write(c))
        time.sleep(1)
        times.clear()
        save_and_wait(server)
        thread.stop()
    return max(times) * 1000


def one_load(kind, directory, directives, count):
    """Seconds from the start of the process until the dataset is there, and the CPU seconds of it."""
    began = time.monotonic()
    with Server(kind, "--dir", directory, *directives) as server:
        with server.connect(60) as c:
            wait_for("the dataset", lambda: c.ask("DBSIZE") == count, 600, 0.01)
        return time.monotonic() - began, server.cpu_seconds()


def loads(size, say):
    """A file of small strings, written by redis-server, is read at the start."""
    count, took = size.load_keys, {}
    with Server("redis") as writer:
        writer.fill(count, [os.urandom(32).hex().encode() for _ in range(64)])
        with writer.connect(600) as c:
            if c.ask("SAVE") != "OK":
                raise Failure("SAVE was refused")
        for name, kind, directives in (("redis", "redis", ()), ("one worker", "covey", ("--workers", 1)),
                                       ("two workers", "covey", ("--workers", 2))):
            runs = []
            for turn in range(size.turns):
                say(f"load of {count:,} keys, {name}, turn {turn + 1}")
                runs.append(one_load(kind, writer.dir, directives, count))
            took[name] = [statistics.median(run[i] for run in runs) for i in (0, 1)]
    for name in ("one worker", "two workers"):
        yield f"load of {count:,} strings, {name}, s", took[name][0], took["redis"][0], "{:.2f}", True
    yield f"load of {count:,} strings, one worker, CPU s", took["one worker"][1], took["redis"][1], "{:.2f}", True


def figures(size, say):
    results = {}
    for kind in KINDS:
        with Server(kind) as server:
            say(f"snapshot of {size.snapshot_keys * VALUE_BYTES / 1e9:.3g} GB under {WRITES:,} writes a second, {kind}")
            server.fill(size.snapshot_keys, [os.urandom(VALUE_BYTES // 2).hex().encode() for _ in range(64)])
            used = server.rss()
            result = under_writes(server, size.snapshot_keys)
            result["extra"] = result["extra"] * 100 / used
            say(f"snapshot while a client writes as fast as it can, {kind}")
            result["flat out"] = flat_out(server, size.snapshot_keys)
        with Server(kind) as server:
            say(f"snapshot of a sorted set and a hash tag of {size.large_members:,}, {kind}")
            result["large"] = large_values(server, size.large_members)
        results[kind] = result
    name = f"snapshot of {size.snapshot_keys * VALUE_BYTES / 1e9:.3g} GB under writes"
    for label, key, form in ((f"{name}, s", "seconds", "{:.2f}"), (f"{name}, CPU s", "cpu", "{:.2f}"),
                             (f"{name}, extra memory %", "extra", "{:.1f}"),
                             (f"{name}, GET p99.9 ms", "p999", "{:.2f}"), ("  the same without a snapshot, ms", "p999 without", "{:.2f}"),
                             (f"{name}, longest GET ms", "longest", "{:.1f}"),
                             ("snapshot of large values, longest write ms", "large", "{:.1f}")):
        yield label, results["covey"][key], results["redis"][key], form, True
    yield "writes flat out during a snapshot, share", results["covey"]["flat out"], results["redis"]["flat out"], "{:.2f}", False
    yield from loads(size, say)
