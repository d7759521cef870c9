"""Links that fail between a primary and its replica: cut anywhere, half-open, too slow.  A relay between the two does it."""
import contextlib
import errno
import os
import random
import socket
import threading
import time

import pytest
import redis

import covey
from covey import assert_same_data, dataset, fill_all_types, wait_for, wait_in_sync
from faulty_disk import Disk


class Relay:
    """Passes bytes between whoever connects and the target; `mode` can be pass, hold (nothing is read any more) and swallow (everything is
    read and nothing arrives: a link that is dead and does not say so).  cut_after: bytes from the target after which
    the connection is cut."""

    def __init__(self, servers, target):
        self.target, self.mode, self.cut_after, self.connections = target, "pass", None, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.accepted = 0
        servers.undo.append(self.close)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection((self.target.host, self.target.port), 5)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            self.accepted += 1
            self.connections.append((client, server))
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink, source is server), daemon=True).start()

    def _pump(self, source, sink, from_target):
        passed, limit = 0, self.cut_after
        with contextlib.suppress(OSError):
            while True:
                while self.mode == "hold":
                    time.sleep(0.02)
                data = source.recv(1 << 16)
                if not data:
                    break
                if self.mode == "swallow":
                    continue
                passed += len(data)
                if from_target and limit is not None and passed > limit:
                    sink.sendall(data[:len(data) // 2])
                    break
                sink.sendall(data)
        if self.mode == "swallow":
            return  # the end does not arrive, either
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def cut(self):
        """All connections there are."""
        for pair in self.connections:
            for sock in pair:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        self.connections = []

    def close(self):
        self.mode = "pass"
        self.listener.close()
        self.cut()


def status(node):
    return node.stat("master_link_status", "replication")


def pair(servers, primary_options=(), **options):
    primary = servers.node(repl_diskless_sync_delay=0, **dict(primary_options))
    relay = Relay(servers, primary)
    replica = servers.node(start=False, replicaof=f"127.0.0.1 {relay.port}", **options)
    return primary, relay, replica


def linked(primary, relay, replica, timeout=20):
    wait_for("the link", lambda: status(replica) == "up" and primary.stat("connected_slaves", "replication") == 1, timeout)


def test_a_link_cut_anywhere(servers):
    """In the handshake, in the snapshot, in the stream; what arrives is applied once."""
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    primary, relay, replica = pair(servers)
    fill_all_types(primary.client)
    primary.cmd("DEBUG", "POPULATE", 3000, "key", 200)
    relay.cut_after = chance.randint(0, 200)
    replica.start()
    ended, written = threading.Event(), [0]

    def write():
        client = primary.new_client()
        while not ended.is_set():
            client.incr("counter")
            client.rpush("list", written[0])
            written[0] += 1
            time.sleep(0.0005)
    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    cuts = 0
    until = time.monotonic() + (60 if covey.LONG else 6)
    while time.monotonic() < until:
        relay.cut_after = chance.choice((None, chance.randint(0, 500), chance.randint(0, 100_000), chance.randint(0, 1_000_000)))
        time.sleep(chance.uniform(0.1, 1.2))
        relay.cut()
        cuts += 1
    relay.cut_after = None
    relay.cut()
    linked(primary, relay, replica)
    ended.set()
    thread.join(10)
    wait_in_sync(primary, replica)
    assert_same_data(dataset(primary), dataset(replica), f"seed {seed}")
    assert int(replica.cmd("GET", "counter")) == written[0] == replica.cmd("LLEN", "list")
    print(f"seed {seed}: {cuts} cuts, {relay.accepted} connections, {written[0]} writes, "
          f"{primary.stat('sync_full', 'stats')} full and {primary.stat('sync_partial_ok', 'stats')} partial syncs")


def test_a_half_open_link_is_noticed_on_both_sides(servers):
    primary, relay, replica = pair(servers, {"repl_timeout": 3, "repl_ping_replica_period": 1, "min_replicas_to_write": 1,
                                             "min_replicas_max_lag": 2}, repl_timeout=3)
    replica.start()
    linked(primary, relay, replica)
    wait_for("a write", lambda: primary.cmd("SET", "a", 1))
    relay.mode = "swallow"
    began = time.monotonic()

    def refused():
        try:
            return not primary.cmd("SET", "lost", 1)
        except redis.ResponseError as error:
            assert "NOREPLICAS Not enough good replicas to write." in str(error)
            return True
    wait_for("writes to be refused", refused, 8)
    refused_after = time.monotonic() - began
    wait_for("the replica to notice", lambda: status(replica) == "down", 10)
    wait_for("the primary to notice", lambda: primary.stat("connected_slaves", "replication") == 0, 10)
    print(f"half-open: writes refused after {refused_after:.1f} s, both sides knew after {time.monotonic() - began:.1f} s")
    assert b"lost: no acknowledgement for repl-timeout" in primary.log_text()
    wait_for("the log", lambda: b"imeout" in replica.log_text() or b"lost" in replica.log_text())
    assert replica.stat("master_link_down_since_seconds", "replication") >= 0
    full = primary.stat("sync_full", "stats")
    relay.mode = "pass"
    relay.cut()
    linked(primary, relay, replica)
    wait_for("writes", lambda: primary.cmd("SET", "b", 1), 5)
    wait_in_sync(primary, replica)
    assert_same_data(dataset(primary), dataset(replica))
    assert primary.stat("sync_full", "stats") == full, "what was missed is resumed"


def test_a_link_slower_than_the_writes(servers):
    """The replica's output is bounded, nobody else waits for it, and it comes back by itself."""
    primary, relay, replica = pair(servers, {"client_output_buffer_limit": "replica 8mb 4mb 2", "repl_backlog_size": "1mb"})
    replica.start()
    linked(primary, relay, replica)
    relay.mode = "hold"
    client, longest, sent = primary.new_client(), 0.0, 0
    until = time.monotonic() + 20
    value = b"x" * 20000
    while primary.stat("connected_slaves", "replication") and time.monotonic() < until:
        for n in range(100):
            began = time.monotonic()
            client.set(f"key{sent % 50}", value)
            longest = max(longest, time.monotonic() - began)
            sent += 1
    print(f"a replica that stands still: dropped after {sent * len(value) / 1e6:.0f} MB, longest stall of a writer {longest * 1000:.0f} ms")
    assert primary.stat("connected_slaves", "replication") == 0
    assert b"scheduled to be closed ASAP for overcoming of output buffer limits" in primary.log_text()
    assert primary.stat("mem_clients_slaves", "memory") < 1 << 20
    assert longest < 5
    relay.mode = "pass"
    relay.cut()
    linked(primary, relay, replica)
    wait_in_sync(primary, replica)
    assert_same_data(dataset(primary), dataset(replica))


@pytest.mark.parametrize("call,error", [("write", errno.ENOSPC), ("open", errno.EROFS), ("rename", errno.EXDEV)])
def test_a_replica_without_room_for_the_snapshot(servers, call, error):
    """It says why, keeps trying, and is in sync as soon as there is room."""
    primary, relay, replica = pair(servers)
    primary.cmd("DEBUG", "POPULATE", 2000, "key", 200)
    disk = Disk(servers, replica)
    disk.prepare(f"fail {call} .rdb {error} 0")
    replica.start()
    if call == "rename":  # the snapshot is loaded all the same, it is only not kept
        linked(primary, relay, replica)
    else:
        wait_for("the log to say it", lambda: os.strerror(error).encode() in replica.log_text(), 10)
        assert status(replica) == "down"
    disk("clear")
    linked(primary, relay, replica)
    wait_in_sync(primary, replica)
    assert replica.cmd("DBSIZE") == 2000
