"""MONITOR: which commands are shown, and how."""
import re
import threading

import pytest

import covey
from covey import wait_for
from wire import Error, Wire

LINE = re.compile(r"^(\d{10})\.(\d{6}) \[(\d+) (\S+)\] (.*)$")


@pytest.fixture
def node4(servers):
    return servers.node("covey", **({} if covey.COVEY_IS_REDIS else {"workers": 4}))


def monitor(node, **options):
    wire = Wire(node, **options)
    assert wire("MONITOR") == "OK"
    return wire


def shown(wire, count):
    """[(db, command), ...]"""
    out = []
    for line in wire.many(count):
        match = LINE.match(line)
        assert match, line
        out.append((int(match[3]), match[5]))
    return out


@pytest.mark.sanitizer
def test_lines(node4):
    wires = [monitor(node4) for _ in range(3)]
    with Wire(node4) as c:
        for wire in wires:
            while shown(wire, 1) != [(0, '"CLIENT" "ID"')] or not wire.silent(0.1):
                pass
        for words in (["SELECT", 2], ["set", "k", b'a\x00\n"\\\xff\x07'], ["GET"], ["NOSUCH"], ["AUTH", "secret"], ["CONFIG", "GET", "save"],
                      ["MULTI"], ["INCR", "n"], ["GET", "n"], ["EXEC"], ["CLIENT", "LIST"], ["LPOP", "k"], ["PUBLISH", "a", "b"], ["RESET"],
                      ["HELLO", 3, "AUTH", "default", "secret"],
                      ["EVAL", "redis.call('get', 'w'); return redis.call('incr', 'n')", 0], ["ECHO", "end"]):
            c(*words)
    expected = [(2, '"SELECT" "2"'), (2, r'"set" "k" "a\x00\n\"\\\xff\a"'), (2, '"AUTH" "(redacted)"'), (2, '"MULTI"'), (2, '"INCR" "n"'),
                (2, '"GET" "n"'), (2, '"EXEC"'), (2, '"LPOP" "k"'), (2, '"PUBLISH" "a" "b"'), (0, '"RESET"'),
                (0, '"HELLO" "3" "AUTH" "(redacted)" "(redacted)"'),
                (0, '"EVAL" "redis.call(\'get\', \'w\'); return redis.call(\'incr\', \'n\')" "0"'), (0, '"get" "w"'), (0, '"incr" "n"'),
                (0, '"ECHO" "end"')]
    for wire in wires:
        assert shown(wire, len(expected)) == expected


def test_a_monitor_is_no_ordinary_client(node4):
    wire = monitor(node4)
    for words in (["GET", "x"], ["SET", "x", 1], ["PUBLISH", "a", "b"]):
        assert wire(*words) == "ERR Replica can't interact with the keyspace"
    with Wire(node4) as c:
        assert c("SET", "x", 1) == "OK"
        assert any(line.endswith('"SET" "x" "1"') for line in wire.many(2))
        assert " flags=O " in c("CLIENT", "LIST", "TYPE", "normal").decode()
        assert wire("RESET") == "RESET"
        c("SET", "x", 2)
        assert wire("GET", "x") == b"2" and not isinstance(wire("SET", "x", 3), Error)


@pytest.mark.sanitizer
def test_every_command_is_shown_once(node4):
    wire = monitor(node4, timeout=30)
    count, threads = 500, 4

    def run(number):
        with Wire(node4) as c:
            for n in range(count):
                c.send("SET", f"k{number}", n)
            c.many(count)

    workers = [threading.Thread(target=run, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    lines = []
    while len(lines) < count * threads:
        lines += [command for _, command in shown(wire, 1) if command.startswith('"SET"')]
    for worker in workers:
        worker.join()
    for number in range(threads):
        own = [line for line in lines if line.startswith(f'"SET" "k{number}"')]
        assert own == [f'"SET" "k{number}" "{n}"' for n in range(count)]


def test_a_slow_monitor_is_dropped(node4):
    node4.cmd("CONFIG", "SET", "client-output-buffer-limit", "normal 1mb 0 0")
    slow = monitor(node4, receive_buffer=4096)
    with Wire(node4) as c:
        def gone():
            for _ in range(20):
                c("SET", "k", "x" * 60000)
            return all("flags=O" not in line for line in c("CLIENT", "LIST").decode().splitlines())
        wait_for("the monitor to be dropped", gone, 20)
    assert slow.closed()
