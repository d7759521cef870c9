"""Disks that are slow or say no, made so below the program by strace: what clients see, what INFO says, what is kept."""
import contextlib
import os
import signal
import threading
import time

import pytest
import redis

import covey
from covey import assert_same_data, dataset, wait_for


class Traced:
    """A server under strace with a fault; without(): the same directory, later, without it."""

    def __init__(self, servers, *rules, **options):
        self.node = servers.node(start=False, appendonly="yes", workers=1, **options)
        self.node.prefix = ["strace", "-f", "-qq", "-o", "/dev/null"]
        self.node.prefix += ["-e", "trace=" + ",".join(sorted({rule.split(":")[0] for rule in rules}))]
        for rule in rules:
            self.node.prefix += ["-e", "inject=" + rule]
        servers.undo.append(self.stop)
        prefix, self.node.prefix = self.node.prefix, []
        self.node.start()  # so that the files are there, and the main thread makes none of the calls
        self.node.kill()
        self.node.prefix = prefix
        self.node.start()

    def stop(self):
        children = []
        with contextlib.suppress(OSError):
            with open(f"/proc/{self.node.pid}/task/{self.node.pid}/children") as file:
                children = [int(pid) for pid in file.read().split()]
        for pid in children:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.node.kill()
        wait_for("the server to be gone", lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children))

    def without(self):
        self.stop()
        self.node.prefix = []
        return self.node.start()


def test_slow_sync_holds_up_nobody(servers):
    """everysec: while an fdatasync() takes 4 s, writes and reads go on; after 2 s the file is written without it."""
    traced = Traced(servers, "fdatasync:delay_enter=4000000")
    node, slowest = traced.node, 0.0
    end = time.monotonic() + 6
    count = 0
    while time.monotonic() < end:
        began = time.monotonic()
        node.cmd("INCR", "counter")
        node.cmd("GET", "counter")
        slowest = max(slowest, time.monotonic() - began)
        count += 1
        time.sleep(0.001)
    assert slowest < 1, f"the slowest pair took {slowest:.2f} s"
    assert count > 500
    assert node.stat("aof_delayed_fsync", "persistence") > 0
    assert b"Asynchronous AOF fsync is taking too long (disk is busy?)." in node.log_text()
    wait_for("the buffer to be written", lambda: node.stat("aof_buffer_length", "persistence") == 0)
    assert int(traced.without().cmd("GET", "counter")) == count


def test_slow_sync_with_always_holds_writes_only(servers):
    traced = Traced(servers, "fdatasync:delay_enter=300000", appendfsync="always")
    node = traced.node
    node.cmd("SET", "a", 0)
    times, stop = [], threading.Event()

    def write(n):
        client = node.new_client()
        while not stop.is_set():
            began = time.monotonic()
            client.incr("counter")
            times.append(time.monotonic() - began)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    slow = covey.slowness(lambda: node.cmd("GET", "a"), 0.2, 4, 3)
    stop.set()
    for thread in threads:
        thread.join()
    assert min(times) > 0.25, "no reply left before its sync"
    assert len(times) > 20 * 4, f"{len(times)} writes in 4 s: they share syncs"
    assert slow < 0.2 * covey.PATIENCE, f"a read took {slow:.2f} s"
    node.cmd("CONFIG", "SET", "latency-monitor-threshold", 100)
    node.cmd("INCR", "counter")
    events = [row[0] for row in node.cmd("LATENCY", "LATEST")]
    assert b"aof-fsync-always" in events, events
    assert int(traced.without().cmd("GET", "counter")) == len(times) + 1


def test_sync_fails(servers):
    """everysec: writes are refused until a sync works again."""
    traced = Traced(servers, "fdatasync:error=EIO:when=2..4")
    node = traced.node

    def refused():
        with contextlib.suppress(redis.ResponseError):
            node.cmd("SET", "a", 1)
            return False
        return True
    wait_for("a refusal", refused, every=0.02)
    with pytest.raises(redis.ResponseError, match="MISCONF Errors writing to the AOF file: Input/output error"):
        node.cmd("SET", "a", 2)
    with pytest.raises(redis.ResponseError, match="MISCONF"):
        node.cmd("PING")
    assert node.cmd("GET", "a") == b"1"
    assert node.stat("aof_last_write_status", "persistence") == "err"
    wait_for("writes again", lambda: node.cmd("SET", "b", 1))
    assert node.stat("aof_last_write_status", "persistence") == "ok"
    before = dataset(node)
    assert_same_data(before, dataset(traced.without()))


def test_sync_fails_with_always(servers):
    """Nothing is acknowledged any more: the process ends."""
    traced = Traced(servers, "fdatasync:error=EIO:when=5", appendfsync="always")
    node, done = traced.node, 0
    with pytest.raises(redis.RedisError):
        for n in range(50):
            node.cmd("INCR", "counter")
            done += 1
    assert node.wait_exit() == 1
    assert b"Can't persist AOF for fsync error when the AOF fsync policy is 'always'" in node.log_text()
    assert done <= int(traced.without().cmd("GET", "counter")) <= done + 1


def test_writes_fail_now_and_then(servers):
    """ENOSPC at every third write for a while: refused writes are not there, acknowledged ones are, in their order."""
    traced = Traced(servers, "writev:error=ENOSPC:when=5+3", appendfsync="no")
    node, kept = traced.node, []
    end = time.monotonic() + 6
    while time.monotonic() < end:
        try:
            node.cmd("RPUSH", "list", len(kept))
            kept.append(len(kept))
        except redis.ResponseError as error:
            assert "MISCONF Errors writing to the AOF file: No space left on device" in str(error)
            time.sleep(0.05)
    assert len(kept) > 10
    wait_for("the file to be written", lambda: node.stat("aof_buffer_length", "persistence") == 0)
    rows = [int(x) for x in traced.without().cmd("LRANGE", "list", 0, -1)]
    assert rows == kept


def test_a_rewrite_whose_rename_fails(servers):
    traced = Traced(servers, "rename:error=EIO:when=2")
    node = traced.node
    for n in range(100):
        node.cmd("INCR", "counter")
    node.cmd("BGREWRITEAOF")
    wait_for("its end", lambda: not node.stat("aof_rewrite_in_progress", "persistence"))
    node.cmd("INCR", "counter")
    node.cmd("BGREWRITEAOF")
    wait_for("its end", lambda: not node.stat("aof_rewrite_in_progress", "persistence"))
    assert node.stat("aof_rewrites_consecutive_failures", "persistence") == 2, "a manifest, then an increment"
    node.cmd("INCR", "counter")
    wait_for("the file to be written", lambda: node.stat("aof_buffer_length", "persistence") == 0)
    assert int(traced.without().cmd("GET", "counter")) == 102


def test_a_disk_too_slow_for_the_writers(servers):
    """Writers wait before the log takes all memory; readers do not, and nothing is lost."""
    traced = Traced(servers, "writev:delay_enter=150000", appendfsync="always")
    node, most, value = traced.node, 0, b"x" * (1 << 20)

    def write(n):
        client = node.new_client(socket_timeout=120)
        for k in range(5):
            pipe = client.pipeline(transaction=False)
            for i in range(16):
                pipe.set(f"{n}:{k}:{i}", value)
            pipe.execute()

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    slowest = 0.0
    while any(thread.is_alive() for thread in threads):
        began = time.monotonic()
        most = max(most, node.stat("aof_buffer_length", "persistence"))
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.02)
    assert node.cmd("DBSIZE") == 4 * 5 * 16
    assert 16 << 20 < most < 230 << 20, f"{most >> 20} MB waited at most"
    assert slowest < 2 * covey.PATIENCE, f"INFO took {slowest:.2f} s"
    assert traced.without().cmd("DBSIZE") == 4 * 5 * 16
