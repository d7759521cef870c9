"""repl-backlog-ttl, repl-disable-tcp-nodelay, propagation-error-behavior: beside redis-server."""
import ctypes
import os
import re
import signal
import socket
import time

import pytest

import covey
from covey import TestFailure, wait_for, wait_in_sync

both = pytest.mark.parametrize("kind", ["covey", "redis"])


class Asker:
    """A replica as far as PSYNC."""

    def __init__(self, node, history, offset):
        self.socket = socket.create_connection((node.host, node.port), timeout=10 * covey.PATIENCE)
        self.socket.sendall(f"PSYNC {history} {offset}\r\n".encode())
        line = b""
        while not line.endswith(b"\n") or line.strip() == b"":
            got = self.socket.recv(1)
            if not got:
                raise TestFailure(f"no answer to PSYNC: {line}")
            line += got
        self.answer = line.strip().decode().split()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


def ask(node, history, offset):
    """Asks and goes away; returns the answer."""
    with Asker(node, history, offset) as asker:
        answer = asker.answer
    wait_for("no replica there", lambda: node.info("replication")["connected_slaves"] == 0)
    return answer


def backlog(node):
    info = node.info("replication")
    return info["repl_backlog_active"], info["repl_backlog_histlen"]


@both
def test_the_backlog_stays_for_its_time(servers, kind):
    node = servers.node(kind, repl_backlog_ttl=3600)
    word, history, offset = ask(node, "?", -1)
    assert word == "+FULLRESYNC"
    node.client.set("a", "x" * 1000)
    assert ask(node, history, int(offset) + 1)[0] == "+CONTINUE"
    node.client.config_set("repl-backlog-ttl", 1)
    wait_for("no backlog", lambda: backlog(node) == (0, 0))
    assert "Replication backlog freed after 1 seconds without connected replicas." in node.log_tail()
    node.client.set("b", "x")
    node.client.config_set("repl-backlog-ttl", 0)
    answer = ask(node, history, int(offset) + 1)
    assert answer[0] == "+FULLRESYNC"
    # And now there is one again, for good.
    node.client.set("c", "x")
    assert ask(node, answer[1], int(answer[2]) + 1)[0] == "+CONTINUE"
    assert backlog(node)[0] == 1


def test_who_missed_nothing_goes_on_without_a_backlog(servers):
    """redis-server forgets its history with its backlog, because it stops counting then. Here the offset still counts."""
    node = servers.node(repl_backlog_ttl=1)
    _, history, offset = ask(node, "?", -1)
    wait_for("no backlog", lambda: backlog(node) == (0, 0))
    with Asker(node, history, node.info("replication")["master_repl_offset"] + 1) as asker:
        assert asker.answer[0] == "+CONTINUE"
        node.client.set("a", "what comes then")
        assert b"what comes then" in asker.socket.recv(4096) + asker.socket.recv(4096)


def test_the_stream_and_the_aof_survive_it(servers):
    node = servers.node(repl_backlog_ttl=1, appendonly="yes", appendfsync="always")
    for i in range(30):
        node.client.set(f"key:{i}", "x" * 10000)
    wait_for("no backlog", lambda: backlog(node) == (0, 0))
    for i in range(30):
        node.client.set(f"more:{i}", "x" * 10000)
    assert backlog(node) == (0, 0)
    node.terminate()
    node.start()
    assert node.client.dbsize() == 60
    replica = servers.node()
    replica.cmd("REPLICAOF", node.host, node.port)
    wait_in_sync(node, replica)
    assert backlog(node)[0] == 1 and replica.client.dbsize() == 60


def test_a_replica_keeps_its_backlog(servers):
    primary, replica = servers.node(), servers.node(repl_backlog_ttl=1)
    replica.cmd("REPLICAOF", primary.host, primary.port)
    wait_in_sync(primary, replica)
    primary.client.set("a", 1)
    wait_in_sync(primary, replica)
    time.sleep(2.2)
    assert backlog(replica)[0] == 1 and backlog(replica)[1] > 0
    assert "backlog freed" not in replica.log_tail()


# ---- repl-disable-tcp-nodelay ----

def is_nodelay(node, port):
    """TCP_NODELAY of the node's own socket that is connected to this port here."""
    pid = os.pidfd_open(node.pid)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        for name in os.listdir(f"/proc/{node.pid}/fd"):
            fd = libc.syscall(438, pid, int(name), 0)  # pidfd_getfd
            if fd < 0:
                if ctypes.get_errno() == 9:
                    continue  # closed meanwhile
                raise TestFailure(f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
            try:
                with socket.socket(fileno=fd) as copy:
                    if copy.getpeername()[1] == port:
                        return copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
            except OSError:  # no socket, or not connected
                with_no_owner(fd)
    finally:
        os.close(pid)
    raise TestFailure(f"no socket connected to port {port}")


def with_no_owner(fd):
    try:
        os.close(fd)
    except OSError:
        pass  # the socket object has closed it


@both
@pytest.mark.parametrize("value", ["no", "yes"])
def test_nodelay_of_the_stream(servers, kind, value):
    node = servers.node(kind, repl_disable_tcp_nodelay="yes" if value == "no" else "no")
    node.client.config_set("repl-disable-tcp-nodelay", value)
    assert is_nodelay(node, node.client.connection_pool.get_connection("PING")._sock.getsockname()[1]), "clients"
    with Asker(node, "?", -1) as asker:
        assert is_nodelay(node, asker.socket.getsockname()[1]) == (value == "no")


# ---- propagation-error-behavior ----

def lpush_of_a_string(primary):
    primary.client.set("text", "x")
    primary.client.execute_command("DEBUG", "REPLICATE", "LPUSH", "text", "1")


CRITICAL = ("== CRITICAL == This replica is sending an error to its master: '-WRONGTYPE Operation against a key holding the wrong kind of "
            "value' after processing the command 'lpush'")


@both
@pytest.mark.parametrize("behavior, options, ends", [
    ("ignore", {}, False), ("panic", {}, True), ("panic-on-replicas", {}, True), ("panic", {"replica_read_only": "no"}, False)])
def test_an_error_in_the_stream(servers, kind, behavior, options, ends):
    if covey.SANITIZED and ends:
        pytest.skip("the sanitizer reports it")
    primary, replica = servers.node(), servers.node(kind, crash_memcheck_enabled="no", **options)
    replica.cmd("REPLICAOF", primary.host, primary.port)
    wait_in_sync(primary, replica)
    replica.client.config_set("propagation-error-behavior", behavior)
    replica.expected_dead = ends
    lpush_of_a_string(primary)
    if ends:
        assert replica.wait_exit(20) == -signal.SIGABRT
        assert "This replica panicked sending an error to its master after processing the command 'lpush'" in replica.log_text().decode()
    else:
        wait_for("the error", lambda: replica.info("stats")["unexpected_error_replies"] == 1)
        wait_in_sync(primary, replica)
        assert replica.client.get("text") in ("x", b"x")
    assert CRITICAL in replica.log_text().decode()


@both
@pytest.mark.parametrize("behavior, ends", [("ignore", False), ("panic-on-replicas", False), ("panic", True)])
def test_an_error_in_an_aof(servers, kind, behavior, ends):
    if covey.SANITIZED and ends:
        pytest.skip("the sanitizer reports it")
    node = servers.node(kind, start=False, appendonly="yes", propagation_error_behavior=behavior, crash_memcheck_enabled="no")
    directory = os.path.join(node.dir, "appendonlydir")
    os.makedirs(directory)
    with open(os.path.join(directory, "appendonly.aof.1.incr.aof"), "w") as file:
        file.write("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n*3\r\n$5\r\nLPUSH\r\n$1\r\na\r\n$1\r\n1\r\n")
    with open(os.path.join(directory, "appendonly.aof.manifest"), "w") as file:
        file.write("file appendonly.aof.1.incr.aof seq 1 type i\n")
    if ends:
        node.start(wait=False)
        assert node.wait_exit(20) == -signal.SIGABRT
        assert "This server panicked sending an error to its AOF-loading-client after processing the command 'lpush'" in node.log_text().decode()
    else:
        node.start()
        assert node.client.get("a") in ("1", b"1") and node.info("stats")["unexpected_error_replies"] == 1
    assert "== CRITICAL == This server is sending an error to its AOF-loading-client: '-WRONGTYPE" in node.log_text().decode()


@both
def test_wrong_values(servers, kind):
    client = servers.node(kind).client
    for name, value, reason in (
            ("propagation-error-behavior", "x", "argument(s) must be one of the following: ignore, panic, panic-on-replicas"),
            ("repl-backlog-ttl", "-1", "argument must be between 0 and 9223372036854775807 inclusive"),
            ("repl-disable-tcp-nodelay", "x", "argument must be 'yes' or 'no'")):
        with pytest.raises(covey.redis.ResponseError, match=re.escape(reason)):
            client.config_set(name, value)
