"""Snapshots: files that pass between this server and redis-server, saving under load, damage, full disks."""
import contextlib
import hashlib
import os
import random
import re
import shutil
import threading
import time

import pytest
import redis

import covey
from covey import LONG, TestFailure, assert_same_data, dataset, fill_all_types, populate, scan_keys, wait_for

DUMP = "dump.rdb"


def dump_of(node):
    return os.path.join(node.dir, DUMP)


def hash_of(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def encodings(node, db=0):
    client = node.new_client(db=db)
    keys = scan_keys(client)
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.object("ENCODING", key)
    found = dict(zip(keys, pipe.execute()))
    client.close()
    return found


def bgsave(node, timeout=60):
    before = node.cmd("LASTSAVE")
    assert node.cmd("BGSAVE")
    wait_for("BGSAVE to end", lambda: not node.stat("rdb_bgsave_in_progress", "persistence"), timeout)
    assert node.stat("rdb_last_bgsave_status", "persistence") == "ok", node.log_tail()
    assert node.cmd("LASTSAVE") >= before


def load_copy(servers, path, kind, **options):
    """A new server that has loaded this file."""
    node = servers.node(kind, start=False, **options)
    shutil.copy(path, dump_of(node))
    return node.start()


SAVERS = {
    "SAVE": lambda node: node.cmd("SAVE"),
    "BGSAVE": bgsave,
    "SHUTDOWN": lambda node: node.shutdown("SAVE"),
}


@pytest.mark.sanitizer
@pytest.mark.parametrize("how", SAVERS)
@pytest.mark.parametrize("writer,reader", [("covey", "redis"), ("redis", "covey"), ("covey", "covey")])
def test_files_pass_between_servers(servers, writer, reader, how):
    first = servers.node(writer)
    fill_all_types(first.client, seed=3)
    fill_all_types(first.new_client(db=5), seed=4, ttl=False)
    data, encoded = [dataset(first, db) for db in (0, 5)], [encodings(first, db) for db in (0, 5)]
    assert len(data[0]) > 60
    SAVERS[how](first)
    second = load_copy(servers, dump_of(first), reader)
    for n, db in enumerate((0, 5)):
        assert_same_data(data[n], dataset(second, db), f"database {db} after {how}, {writer} -> {reader}")
        got = encodings(second, db)
        # what APPEND left raw is judged anew when loaded
        assert not {k: (encoded[n][k], got[k]) for k in got
                    if encoded[n][k] != got[k] and not k.endswith(b"appended")}, "encodings differ"
    if reader == "covey":
        assert b"error" not in second.log_text().lower()


@pytest.mark.parametrize("options", [{"rdbcompression": "no"}, {"rdbchecksum": "no"}, {"dbfilename": "other.rdb"}])
def test_file_options(servers, options):
    node = servers.node(**options)
    fill_all_types(node.client)
    data = dataset(node)
    node.cmd("SAVE")
    path = os.path.join(node.dir, options.get("dbfilename", DUMP))
    with open(path, "rb") as file:
        content = file.read()
    assert content.startswith(b"REDIS0010")
    assert (content[-8:] == bytes(8)) == (options.get("rdbchecksum") == "no")
    assert_same_data(data, dataset(load_copy(servers, path, "redis")))
    if "dbfilename" not in options:
        assert_same_data(data, dataset(load_copy(servers, path, "covey")))


@pytest.mark.sanitizer
def test_debug_reload(node):
    fill_all_types(node.client)
    data = dataset(node)
    node.cmd("DEBUG", "RELOAD")
    assert_same_data(data, dataset(node))


def test_restart_brings_everything_back(servers):
    node = servers.node(save="3600 1")
    fill_all_types(node.client)
    data = dataset(node)
    assert node.terminate() == 0, "SIGTERM saves when save points are set"
    node.start()
    assert_same_data(data, dataset(node))
    node.cmd("SET", "later", 1)
    node.shutdown("NOSAVE")
    node.start()
    assert_same_data(data, dataset(node), "SHUTDOWN NOSAVE leaves the file alone")


def test_save_points(servers):
    node = servers.node(save="1 3")
    populate(node.client, 10)
    assert node.stat("rdb_changes_since_last_save") == 10
    wait_for("the save point to fire", lambda: os.path.exists(dump_of(node)) and not node.stat("rdb_changes_since_last_save"), 10)
    assert len(dataset(load_copy(servers, dump_of(node), "redis"))) == 10


def test_keys_that_expired_meanwhile_are_not_loaded(servers):
    node = servers.node()
    node.client.psetex("short", 300, "x")
    node.client.psetex("long", 300_000, "x")
    node.cmd("SAVE")
    time.sleep(0.5)
    assert set(dataset(load_copy(servers, dump_of(node), "covey"))) == {b"long"}


# ---- a point in time, taken under load

class Counter:
    """Writes MULTI; SET seq n; SET k:n n; INCR filler; EXEC with n = 1, 2, ...: every prefix is recognizable."""

    def __init__(self, node):
        self.node, self.n, self.stopped = node, 0, threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.error = None

    def _run(self):
        client = self.node.new_client()
        rng = random.Random(1)
        try:
            while not self.stopped.is_set():
                n = self.n + 1
                pipe = client.pipeline(transaction=True)
                pipe.set("seq", n)
                pipe.set(f"n:{n}", n)
                pipe.set(f"k:{rng.randrange(200_000)}", f"changed {n}")
                pipe.lpush("list", n)
                pipe.hset("hash", n, n)
                pipe.zadd("zset", {n: n})
                pipe.execute()
                self.n = n
        except Exception as error:
            self.error = error

    def __enter__(self):
        self.thread.start()
        wait_for("the writer to be under way", lambda: self.n > 50)
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join(10)
        if self.error:
            raise self.error


def check_point_in_time(node, at_least):
    seq = int(node.cmd("GET", "seq"))
    assert seq >= at_least
    keys = {int(k[2:]) for k in scan_keys(node.client, match="n:*")}
    assert keys == set(range(1, seq + 1)), f"seq {seq}, keys {len(keys)}"
    assert node.client.lrange("list", 0, -1) == [b"%d" % n for n in range(seq, 0, -1)]
    assert {int(f) for f in node.client.hkeys("hash")} == keys
    assert [int(m) for m in node.client.zrange("zset", 0, -1)] == sorted(keys)
    changed = [int(v.split()[1]) for v in node.client.mget([f"k:{n}" for n in range(200_000)]) if v.startswith(b"changed")]
    assert max(changed) <= seq
    return seq


@pytest.mark.parametrize("round_", range(5 if LONG else 2))
def test_bgsave_under_load_is_one_point_in_time(servers, round_):
    node = servers.node()
    populate(node.client, 200_000, size=60, pipeline=5000)
    rss = node.rss_mb()
    with Counter(node) as counter:
        before = counter.n
        bgsave(node)
        after = counter.n
    print(f"{after - before} transactions during the save, {node.rss_mb() - rss:.1f} MB more resident afterwards")
    for kind in ("redis", "covey"):
        loaded = load_copy(servers, dump_of(node), kind)
        seq = check_point_in_time(loaded, before)
        assert seq <= after + 1
        loaded.kill()


def processes_started(servers, kind):
    """What strace sees of process creation while a server of this kind does a BGSAVE and feeds a new replica."""
    trace = os.path.join(servers.base, f"trace-{kind}")
    node = servers.node(kind, prefix=["strace", "-D", "-f", "-o", trace, "-e", "trace=clone,clone3,fork,vfork,execve"])
    populate(node.client, 20_000)
    with open(trace) as file:
        began = len(file.read())
    assert "execve" in open(trace).read(), "strace saw the start"
    with steady_writes(node):
        bgsave(node)
        replica = servers.node("redis", replicaof=["127.0.0.1", str(node.port)])
        covey.wait_in_sync(node, replica)
    time.sleep(0.2)
    with open(trace) as file:
        lines = file.read()[began:].splitlines()
    node.kill()
    return [line for line in lines if re.search(r"\b(fork|vfork|execve|clone3?)\(", line) and "CLONE_THREAD" not in line]


@contextlib.contextmanager
def steady_writes(node):
    stopped = threading.Event()

    def write():
        client = node.new_client()
        n = 0
        while not stopped.is_set():
            client.set(f"k:{n % 20000}", n)
            n += 1
    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(10)


def test_no_process_is_started_for_a_snapshot(servers):
    assert processes_started(servers, "redis"), "the trace finds the fork of redis-server: it can find one"
    assert processes_started(servers, "covey") == []


# ---- damage

def saved_file(servers, kind="redis"):
    node = servers.node(kind)
    fill_all_types(node.client, seed=9)
    node.cmd("SAVE")
    data = dataset(node)
    node.kill()
    with open(dump_of(node), "rb") as file:
        return file.read(), data


def refuses(servers, content, what):
    """The server does not start on this file, says why, and leaves the file as it is."""
    node = servers.node("covey", start=False)
    with open(dump_of(node), "wb") as file:
        file.write(content)
    node.expected_dead = True
    node.start(wait=False)
    code = node.wait_exit(20)
    assert code > 0, f"{what}: exit code {code}, log:\n{node.log_tail()}"
    log = node.log_tail().lower()
    assert re.search("rdb|short read|checksum|dump|version|signature|corrupt", log), f"{what}: the log does not say why:\n{log}"
    with open(dump_of(node), "rb") as file:
        assert file.read() == content, f"{what}: the file was changed"


@pytest.mark.sanitizer
def test_truncated_file_is_refused(servers):
    content, _ = saved_file(servers)
    for length in [1, 5, 9, 10, 40, len(content) // 3, len(content) // 2, len(content) - 9, len(content) - 1]:
        refuses(servers, content[:length], f"cut to {length} of {len(content)} bytes")


@pytest.mark.sanitizer
def test_corrupt_file_is_refused(servers):
    content, _ = saved_file(servers)
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(60 if LONG else 12):
        at, bit = rng.randrange(9, len(content)), 1 << rng.randrange(8)
        damaged = bytearray(content)
        damaged[at] ^= bit
        refuses(servers, bytes(damaged), f"seed {seed}: bit {bit} of byte {at} turned over")


def test_foreign_file_is_refused(servers):
    refuses(servers, b"hello, this is no snapshot at all", "a text file")
    refuses(servers, b"REDIS9999" + b"\xff" + bytes(8), "a version of the future")


def test_empty_file(servers):
    """redis-server starts on an empty file? Whatever it does, this server does the same."""
    results = []
    for kind in ("redis", "covey"):
        node = servers.node(kind, start=False)
        open(dump_of(node), "w").close()
        node.start(wait=False)
        time.sleep(0.5 * covey.PATIENCE)
        results.append(node.alive())
        node.expected_dead = True
    assert results[0] == results[1]


def test_full_disk_keeps_the_old_file(servers):
    small = servers.directory("small")
    try:
        covey.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", small])
    except (OSError, TestFailure) as error:
        raise TestFailure(f"cannot mount a small file system (needs root): {error}") from None
    servers.undo.append(lambda: covey.run(["umount", "-l", small], check=False))
    node = servers.node("covey", directory=small)
    fill_all_types(node.client)
    data = dataset(node)
    node.cmd("SAVE")
    saved = hash_of(dump_of(node))
    rng = random.Random(5)
    for n in range(64):
        node.client.set(f"ballast:{n}", rng.randbytes(100_000))
    with pytest.raises(redis.ResponseError):
        node.cmd("SAVE")
    assert hash_of(dump_of(node)) == saved, "the old file was touched"
    node.cmd("BGSAVE")
    wait_for("the failure to show", lambda: not node.stat("rdb_bgsave_in_progress", "persistence")
             and node.stat("rdb_last_bgsave_status", "persistence") == "err")
    assert hash_of(dump_of(node)) == saved
    assert sorted(f for f in os.listdir(small) if f != "log") == [DUMP], "no partial file is left"
    assert node.cmd("SET", "a", "b") and len(scan_keys(node.client)) > 64, "it serves on"
    node.client.delete(*[f"ballast:{n}" for n in range(64)], "a")
    node.cmd("SAVE")
    assert_same_data(data, dataset(load_copy(servers, dump_of(node), "redis")), "and saves again once there is room")


def test_misconf_after_a_failed_save(servers):
    node = servers.node("covey", save="1 1")
    gone = os.path.join(node.dir, "gone")
    os.mkdir(gone)
    node.cmd("CONFIG", "SET", "dir", gone)
    os.rmdir(gone)
    node.cmd("SET", "a", 1)
    wait_for("a save to fail", lambda: node.stat("rdb_last_bgsave_status", "persistence") == "err", 15)
    with pytest.raises(redis.ResponseError, match="MISCONF"):
        node.cmd("SET", "a", 2)
    assert node.cmd("GET", "a") == b"1"
    node.cmd("CONFIG", "SET", "dir", node.dir)
    bgsave(node)
    assert node.cmd("SET", "a", 2)


def test_two_saves_do_not_meet(node):
    populate(node.client, 100_000, pipeline=5000)
    node.cmd("BGSAVE")
    if node.stat("rdb_bgsave_in_progress", "persistence"):
        with contextlib.suppress(redis.ResponseError):
            node.cmd("SAVE")
            assert not node.stat("rdb_bgsave_in_progress", "persistence"), "SAVE succeeded beside a running BGSAVE"
        with contextlib.suppress(redis.ResponseError):
            node.cmd("BGSAVE")
    wait_for("the save to end", lambda: not node.stat("rdb_bgsave_in_progress", "persistence"), 30)
    assert node.stat("rdb_last_bgsave_status", "persistence") == "ok"


def test_kill_during_a_save_keeps_the_old_file(servers):
    node = servers.node()
    fill_all_types(node.client)
    data = dataset(node)
    node.cmd("SAVE")
    populate(node.client, 200_000, size=100, pipeline=5000)
    node.cmd("BGSAVE")
    time.sleep(0.02)
    node.kill()
    time.sleep(0.2)
    node.start()
    found = dataset(node)
    assert {k: v for k, v in found.items() if not k.startswith(b"k:")} == data
    assert sum(k.startswith(b"k:") for k in found) in (0, 200_000)
