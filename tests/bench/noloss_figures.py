"""What it costs to have every write at a replica before it is acknowledged, and before others read it: one primary and one
replica of each kind."""
import contextlib
import subprocess
import time
from statistics import median

from figures import run_benchmark
from target import KINDS, Server, wait_for

PIPELINES = (1, 16)


def offsets(server):
    with server.connect(5) as c:
        info = c.info("replication")
    return int(info["master_repl_offset"]), info.get("master_link_status")


def caught_up(primary, replica):
    have, link = offsets(replica)
    return link == "up" and have >= offsets(primary)[0]


def run(primary, replica, pipeline, count, keys):
    """The rate of replies, and the rate at which the replica gets the writes."""
    began = time.monotonic()
    result = run_benchmark(primary, "SET", pipeline, count, keys)
    replied = time.monotonic()
    wait_for("the replica to catch up", lambda: caught_up(primary, replica), 120, 0.005)
    result["arrived"] = result["rate"] * (replied - began) / (time.monotonic() - began)
    return result


@contextlib.contextmanager
def writers(server, keys):
    """SETs as fast as they go, at a pipeline of 16."""
    process = subprocess.Popen(["redis-benchmark", "-h", "127.0.0.1", "-p", str(server.port), "-t", "set", "-n", "2000000000", "-c", "25",
                                "-P", "16", "-d", "64", "-r", str(keys), "-q"], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def set_acks(primary, number, reads="no"):
    if primary.kind != "covey":
        return
    with primary.connect(5) as c:
        if c.ask("CONFIG", "SET", "min-replicas-to-ack", number, "min-replicas-to-ack-reads", reads) != "OK":
            raise OSError("CONFIG SET min-replicas-to-ack is refused")


READS = {"asynchronous": (0, "no"), "acknowledged": (1, "no"), "and reads wait": (1, "yes")}


def reads_beside_writes(size, say, primary):
    """GETs while others write: with all keys, and with so few that nearly every read meets a write that is under way."""
    for keys in (size.keys, 10):
        say(f"GET P=16 under SET P=16, {keys:,} keys: asynchronous, acknowledged, with reads that wait")
        results = {what: [] for what in READS}
        for turn in range(size.turns):
            for what in list(READS)[::1 if turn % 2 == 0 else -1]:
                set_acks(primary, *READS[what])
                with writers(primary, keys):
                    results[what].append(run_benchmark(primary, "GET", 16, size.fsync_requests[16], keys))
        set_acks(primary, 0)
        for what, rows in results.items():
            for name, text, form in (("rate", "operations/s", "{:,.0f}"), ("p99", "p99 ms", "{:.3f}")):
                yield f"GET under SET, {keys:,} keys, {what}, {text}", median(r[name] for r in rows), 0, form, False


def pair(kind, servers):
    primary, replica = Server(kind), Server(kind)
    servers += [primary, replica]
    with replica.connect(5) as c:
        c.ask("REPLICAOF", "127.0.0.1", primary.port)
    wait_for("the replica in sync", lambda: offsets(replica)[1] == "up", 60)
    return primary, replica


def figures(size, say):
    servers = []
    try:
        pairs = {kind: pair(kind, servers) for kind in KINDS}
        for pipeline in PIPELINES:
            count = size.fsync_requests[pipeline]
            results = {"async": [], "acked": [], "redis": []}
            say(f"SET P={pipeline} with one replica, asynchronous and acknowledged")
            for turn in range(size.turns):
                order = ["async", "acked", "redis"]
                for what in order if turn % 2 == 0 else order[::-1]:
                    kind = "redis" if what == "redis" else "covey"
                    set_acks(pairs[kind][0], 1 if what == "acked" else 0)
                    results[what].append(run(*pairs[kind], pipeline, count, size.keys))
            middle = {what: {name: median(r[name] for r in rows) for name in rows[0]} for what, rows in results.items()}
            plain, acked, redis = middle["async"], middle["acked"], middle["redis"]
            for name, text, form, less in (("rate", "operations/s", "{:,.0f}", False), ("arrived", "at the replica, operations/s", "{:,.0f}", False),
                                           ("p99", "p99 ms", "{:.3f}", True)):
                yield f"SET P={pipeline}, one replica, {text}", plain[name], redis[name], form, less
            for name, text, form, less in (("rate", "operations/s", "{:,.0f}", False), ("p99", "p99 ms", "{:.3f}", True)):
                yield f"SET P={pipeline}, min-replicas-to-ack 1, {text}", acked[name], 0, form, False
            yield f"SET P={pipeline}, acknowledged / asynchronous, %", 100 * acked["rate"] / plain["rate"], 0, "{:.0f}", False
            yield f"SET P={pipeline}, acknowledged / arrived, %", 100 * acked["rate"] / plain["arrived"], 0, "{:.0f}", False
        yield from reads_beside_writes(size, say, pairs["covey"][0])
    finally:
        for server in servers:
            server.stop()
