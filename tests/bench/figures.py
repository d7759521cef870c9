"""What is measured.  Each function returns rows: (figure, value of covey, value of redis, how to print a value, is less better)."""
import os
import signal
import subprocess
import time
from statistics import median

from target import COVEY, Connection, Failure, KINDS, Server, SmallCluster, wait_for

OPERATIONS = ("SET", "GET")


def run_benchmark(server, operation, pipeline, count, keys, port=None, options=()):
    before = server.cpu_seconds()
    done = subprocess.run(
        ["redis-benchmark", "-h", "127.0.0.1", "-p", str(port or server.port), "-t", operation.lower(), "-n", str(count), "-c", "50",
         "-P", str(pipeline), "-d", "64", "-r", str(keys), "--csv", *options],
        capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL)
    cpu = server.cpu_seconds() - before
    rows = [line.split(",") for line in done.stdout.splitlines() if line.startswith(f'"{operation}')]
    if done.returncode or not rows:
        raise Failure(f"redis-benchmark against {server.kind}: {(done.stderr or done.stdout).strip()[-200:]}")
    numbers = [float(field.strip('"')) for field in rows[0][1:]]
    return {"rate": numbers[0], "p50": numbers[3], "p99": numbers[5], "cpu": cpu / count * 1e6}


def throughput(size, say, workers):
    """GET and SET of 64-byte values; the kinds take turns, and the medians count."""
    directives = {"covey": ["--workers", workers] if workers else [], "redis": []}
    with Server("covey", *directives["covey"]) as covey, Server("redis") as redis:
        servers = {"covey": covey, "redis": redis}
        for server in servers.values():
            server.fill(size.keys, [b"x" * 64])
        for pipeline, count in size.requests.items():
            for operation in OPERATIONS:
                say(f"{operation} P={pipeline}")
                results = {kind: [] for kind in KINDS}
                for turn in range(size.turns):
                    for kind in KINDS if turn % 2 == 0 else KINDS[::-1]:
                        results[kind].append(run_benchmark(servers[kind], operation, pipeline, count, size.keys))
                middle = {kind: {name: median(r[name] for r in results[kind]) for name in results[kind][0]} for kind in KINDS}
                for name, text, form, less in (("rate", "operations/s", "{:,.0f}", False), ("p50", "p50 ms", "{:.3f}", True),
                                               ("p99", "p99 ms", "{:.3f}", True), ("cpu", "CPU us/operation", "{:.2f}", True)):
                    yield f"{operation} P={pipeline} {text}", middle["covey"][name], middle["redis"][name], form, less


def memory(size, say):
    """Bytes per key beyond the 16 of the key and the 32 of the value."""
    extra = {}
    for kind in KINDS:
        say(f"memory of {size.memory_keys:,} keys in {kind}")
        with Server(kind) as server:
            with server.connect() as c:
                used, rss = int(c.info("memory")["used_memory"]), server.rss()
                server.fill(size.memory_keys, [bytes([97 + i]) * 32 for i in range(26)])
                if c.ask("DBSIZE") != size.memory_keys:
                    raise Failure(f"{kind} does not hold all keys")
                time.sleep(2)  # a hash table may still be moving
                extra[kind] = ((int(c.info("memory")["used_memory"]) - used) / size.memory_keys - 48,
                               (server.rss() - rss) / size.memory_keys - 48)
    for i, name in enumerate(("used_memory", "resident")):
        yield f"memory/key over payload, {name}, bytes", extra["covey"][i], extra["redis"][i], "{:.1f}", True


def one_failover(cluster, turn):
    """Seconds from kill -9 of a primary until its replica accepts writes in its place."""
    _, pid, replica, slot = cluster.pair(turn)
    key = key_in_slot(slot)
    with Connection(replica, 5) as c:
        if not c.ask("SET", key, "before").startswith("-MOVED"):
            raise Failure("the replica accepts writes before its primary is dead")
        wait_for("the replica in sync", lambda: c.info("replication").get("master_link_status") == "up", 30)
        time.sleep(2)  # its offset reaches the primary, and the pings settle
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        while time.monotonic() - began < 60 + cluster.node_timeout / 1000 * 2:
            if c.ask("SET", key, "after") == "OK":
                return time.monotonic() - began
            time.sleep(0.005)
    raise Failure("no failover")


def key_in_slot(slot):
    return next(f"key:{i}" for i in range(1 << 20) if crc16(f"key:{i}".encode()) % 16384 == slot)


def crc16(data):
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def failover(size, say):
    for node_timeout, turns in size.failovers.items():
        times = {kind: [] for kind in KINDS}
        for kind in KINDS:
            with SmallCluster(kind, node_timeout) as cluster:
                for turn in range(turns):
                    say(f"failover, node timeout {node_timeout}, {kind}, {turn + 1} of {turns}")
                    if turn:
                        cluster.halt()
                        cluster.start()
                    times[kind].append(one_failover(cluster, turn))
        name = f"kill -9 to writes, node timeout {node_timeout / 1000:g} s"
        yield f"{name}, {'median of ' + str(turns) if turns > 1 else 'one run'}, s", median(times["covey"]), median(times["redis"]), "{:.2f}", True


def full_sync(size, say):
    """Seconds from REPLICAOF to a replica that is in sync; without Redis's delay for further replicas."""
    seconds, count = {}, size.sync_bytes // 1024
    values = [os.urandom(1000) for _ in range(64)]
    for kind in KINDS:
        say(f"full sync of {size.sync_bytes / 1e9:.2g} GB, {kind}")
        with Server(kind, "--repl-diskless-sync-delay", 0) as primary, Server(kind) as replica:
            primary.fill(count, values)
            with replica.connect(5) as c:
                began = time.monotonic()
                c.ask("REPLICAOF", "127.0.0.1", primary.port)
            wait_for("the replica in sync", lambda: in_sync(replica, count), 300, 0.02)
            seconds[kind] = time.monotonic() - began
    yield f"full sync of {size.sync_bytes / 2**30:.3g} GiB, s", seconds["covey"], seconds["redis"], "{:.2f}", True


def in_sync(replica, count):
    with replica.connect(5) as c:
        if c.info("replication").get("master_link_status") != "up":
            return False
        if c.ask("DBSIZE") != count:
            raise Failure(f"{replica.kind}: the replica is in sync but lacks keys")
        return True


def version(kind):
    command = [COVEY, "--version"] if kind == "covey" else ["redis-server", "--version"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
