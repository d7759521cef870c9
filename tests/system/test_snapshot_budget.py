"""What a snapshot may keep beyond the dataset: writers wait above it, but for nobody who stands still."""
import contextlib
import ctypes
import os
import random
import socket
import threading
import time

import covey
from covey import wait_for

VALUE = 1000
KEYS = 250_000
BUDGET = 64 << 20

PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH = 0x4206, 0x4207, 17
WRITE = {"x86_64": 1, "aarch64": 64}  # the number of the system call


def fill(node):
    node.cmd("DEBUG", "POPULATE", KEYS, "key", VALUE)


class Overwriting(threading.Thread):
    """Writes random keys until it is stopped."""

    def __init__(self, node, seed):
        super().__init__(daemon=True)
        self.client, self.rng, self.ended, self.written = node.new_client(), random.Random(seed), False, 0
        self.failure = None
        self.start()

    def run(self):
        try:
            while not self.ended:
                keys = {f"key:{self.rng.randrange(KEYS)}" for _ in range(100)}
                assert self.client.mset(dict.fromkeys(keys, "n" * VALUE))
                self.written += len(keys)
        except Exception as failure:  # pylint: disable=broad-except
            self.failure = failure

    def stop(self):
        self.ended = True
        self.join(30)
        assert not self.is_alive() and self.failure is None, self.failure


def kept(node):
    return node.stat("current_cow_size", "persistence")


class SlowReplica:
    """A replica by hand, which reads the first line of its full sync and then nothing until it is told to."""

    def __init__(self, node):
        self.socket = socket.create_connection(("127.0.0.1", node.port), 60)
        self.socket.sendall(b"REPLCONF capa eof capa psync2\r\n")
        self.file = self.socket.makefile("rb")
        assert self.file.readline() == b"+OK\r\n"
        self.socket.sendall(b"PSYNC ? -1\r\n")
        self.header = self._line()
        assert self.header.startswith(b"+FULLRESYNC"), self.header

    def _line(self):
        while True:
            line = self.file.readline()
            if line != b"\n":
                return line

    def read_snapshot(self):
        head = self._line()
        assert head.startswith(b"$EOF:"), head
        mark, got = head[5:45], bytearray()
        while not got.endswith(mark):
            more = self.file.read1(1 << 20)
            assert more, "the connection was closed in the middle of the snapshot"
            got += more
        return bytes(got[:-40])

    def close(self):
        self.file.close()
        self.socket.close()


def test_a_slow_replica_holds_up_no_writer(servers, tmp_path):
    node = servers.node(repl_diskless_sync_delay=0, repl_timeout=60)
    # What is written meanwhile waits for the replica, too, and is not what this is about.
    assert node.cmd("CONFIG", "SET", "client-output-buffer-limit", "replica 0 0 0") == b"OK"
    fill(node)
    replica = SlowReplica(node)
    writer = Overwriting(node, 1)
    wait_for("the snapshot to be taken aside", lambda: b"reads the snapshot too slowly" in node.log_text(), 60)
    wait_for("what the snapshot kept to be free again", lambda: store_is_free(node), 60)
    first = writer.written
    wait_for("writers going on", lambda: writer.written > first + 20_000, 30)
    writer.stop()
    path = tmp_path / "dump.rdb"
    path.write_bytes(replica.read_snapshot())
    replica.close()
    # What arrives is the dataset as it was when the replica asked, whole.
    loaded = servers.node(start=False)
    (tmp_path / "dump.rdb").rename(os.path.join(loaded.dir, "dump.rdb"))
    loaded.start()
    assert loaded.cmd("DBSIZE") == KEYS
    sample = random.Random(5).sample(range(KEYS), 3000)
    values = loaded.cmd("MGET", *(f"key:{i}" for i in sample))
    assert values == [b"value:%d" % i + b"\0" * (VALUE - len(f"value:{i}")) for i in sample]


def store_is_free(node):
    """Nothing is kept for the cut any more, although the replica has read nothing yet."""
    return kept(node) == 0


def threads_named(pid, name):
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/comm", encoding="ascii") as file:
            if file.read().strip() == name:
                yield int(task)


@contextlib.contextmanager
def thread_stopped_in_a_write(pid, name):
    """That thread, and no other, stands still in a call that writes to the disk: as one that hangs would have it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    end = time.monotonic() + 20
    while time.monotonic() < end:
        for task in threads_named(pid, name):
            if libc.ptrace(PTRACE_SEIZE, task, None, None):
                continue
            libc.ptrace(PTRACE_INTERRUPT, task, None, None)
            os.waitpid(task, 0x40000000)  # __WALL
            with open(f"/proc/{pid}/task/{task}/syscall", encoding="ascii") as file:
                call = file.read().split()[0]
            if call == str(WRITE[os.uname().machine]):
                try:
                    yield
                finally:
                    libc.ptrace(PTRACE_DETACH, task, None, None)
                return
            libc.ptrace(PTRACE_DETACH, task, None, None)
        time.sleep(0.001)
    raise covey.TestFailure("the thread was not met in a write")


def test_a_disk_that_stands_still_holds_up_writers_for_seconds_only(servers):
    node = servers.node(rdbcompression="no")  # the values are zeros, and written before they are met otherwise
    fill(node)
    writer = Overwriting(node, 2)
    assert node.cmd("BGSAVE")
    with thread_stopped_in_a_write(node.pid, "snapshot"):
        wait_for("the budget to be spent", lambda: kept(node) > BUDGET, 30)
        wait_for("writers that do not wait any longer", lambda: b"has stood still" in node.log_text(), 20)
        first = writer.written
        wait_for("writers going on", lambda: writer.written > first + 20_000, 30)
    wait_for("BGSAVE to end", lambda: not node.stat("rdb_bgsave_in_progress", "persistence"), 60)
    writer.stop()
    assert node.stat("rdb_last_bgsave_status", "persistence") == "ok", node.log_tail()
    assert b"The snapshot goes on" in node.log_text()


def test_memory_for_a_snapshot_is_bounded(servers):
    """Flat out against a snapshot: it never keeps much more than the budget, and writers go on all the time."""
    node = servers.node()
    fill(node)
    writers = [Overwriting(node, seed) for seed in (3, 4)]
    most = 0
    assert node.cmd("BGSAVE")
    while node.stat("rdb_bgsave_in_progress", "persistence"):
        most = max(most, kept(node))
    for writer in writers:
        writer.stop()
    print(f"kept {most / 2**20:.1f} MB of {BUDGET >> 20} MB, {sum(w.written for w in writers)} writes")
    assert most < BUDGET + (8 << 20)
    assert node.stat("rdb_last_bgsave_status", "persistence") == "ok"
