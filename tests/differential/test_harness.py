"""Tests of the differential test itself: it must find differences that are planted, and pass over none."""

import os

import pytest

import compare
import replay
from compare import group
from draw import Context
from grammar import SLEEP, sequence
from resp import Connection, Parser, encode
from runner import Mismatch, Runner, quoted, script
from seal import crc64, sealed
from sequences import Failure, search
from servers import ORACLE, Server, both

OK = ("+", b"OK")


def bulk(data):
    return ("$", data)


def array(*items):
    return ("*", [bulk(item) if isinstance(item, bytes) else item for item in items])


def parse(data, step=1):
    """Parses `data` given in pieces of `step` bytes."""
    pieces = [data[i : i + step] for i in range(0, len(data), step)]
    return Parser(lambda: pieces.pop(0)).reply()


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_parser_keeps_types(step):
    data = (b"*14\r\n+OK\r\n-ERR x\r\n:-5\r\n$3\r\na\r\n\r\n$-1\r\n*-1\r\n_\r\n,1.50\r\n#t\r\n(12\r\n=5\r\ntxt:a\r\n"
            b"%1\r\n+k\r\n:1\r\n~1\r\n:2\r\n>1\r\n$0\r\n\r\n")  # fmt: skip
    assert parse(data, step)[1] == [
        ("+", b"OK"), ("-", b"ERR x"), (":", -5), ("$", b"a\r\n"), ("$", None), ("*", None), ("_",), (",", b"1.50"),
        ("#", True), ("(", b"12"), ("=", b"txt:a"), ("%", [(("+", b"k"), (":", 1))]), ("~", [(":", 2)]),
        (">", [("$", b"")]),
    ]  # fmt: skip


@pytest.mark.parametrize("data", [b"?x\r\n", b":abc\r\n", b"$3\r\nabcd\r\n", b"*-2\r\n", b"#x\r\n", b"_x\r\n"])
def test_parser_refuses_nonsense(data):
    with pytest.raises(Exception, match="not RESP|CRLF"):
        parse(data)


def test_encode_and_quote():
    assert encode([b"SET", b"k", b"\x00"]) == b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\n\x00\r\n"
    assert quoted(b'a"\\\x01\n ') == '"a\\"\\\\\\x01\\n "'
    assert quoted(b"") == '""'


def test_crc64_check_value():
    assert crc64(b"123456789") == 0xE9C6D914C4B8D9CA


# (command, replies of one server, replies of the other, do they agree)
CASES = [
    (b"GET k", [bulk(b"a")], [bulk(b"a")], True),
    (b"GET k", [bulk(b"OK")], [OK], False),
    (b"GET k", [bulk(None)], [("*", None)], False),
    (b"GET k", [bulk(None)], [("_",)], False),
    (b"GET k", [("-", b"ERR a")], [("-", b"ERR b")], False),
    (b"GET k", [("-", b"ERR a")], [bulk(b"a")], False),
    (b"ZSCORE k m", [(",", b"1.0")], [(",", b"1")], False),
    (b"TTL k", [(":", 100)], [(":", 99)], True),
    (b"TTL k", [(":", 100)], [(":", 90)], False),
    (b"TTL k", [(":", -1)], [(":", -2)], False),
    (b"TTL k", [(":", 0)], [(":", -1)], False),
    (b"KEYS *", [array(b"a", b"b")], [array(b"b", b"a")], True),
    (b"KEYS *", [array(b"a", b"b")], [array(b"a", b"a")], False),
    (b"SINTER a b", [array(b"a", b"b")], [array(b"b", b"a")], True),
    (b"SINTER a b", [("~", [bulk(b"a")])], [array(b"a")], False),
    (b"HGETALL k", [bulk(b"listpack"), array(b"a", b"1", b"b", b"2")], [bulk(b"listpack"), array(b"b", b"2", b"a", b"1")], False),
    (b"HGETALL k", [bulk(b"hashtable"), array(b"a", b"1", b"b", b"2")], [bulk(b"hashtable"), array(b"b", b"2", b"a", b"1")], True),
    (b"HGETALL k", [bulk(b"hashtable"), array(b"a", b"1", b"b", b"2")], [bulk(b"hashtable"), array(b"a", b"2", b"b", b"1")], False),
    (b"HGETALL k", [bulk(b"listpack"), array()], [bulk(b"hashtable"), array()], False),
    (b"SMEMBERS k", [bulk(b"intset"), array(b"1", b"2")], [bulk(b"intset"), array(b"2", b"1")], False),
    (b"SMEMBERS k", [bulk(b"hashtable"), array(b"1", b"2")], [bulk(b"hashtable"), array(b"2", b"1")], True),
    (b"SRANDMEMBER k", [bulk(b"a"), array(b"a", b"b")], [bulk(b"b"), array(b"b", b"a")], True),
    (b"SRANDMEMBER k", [bulk(b"a"), array(b"a", b"b")], [bulk(b"c"), array(b"b", b"a")], False),
    (b"SRANDMEMBER k", [bulk(b"a"), array(b"a")], [bulk(None), array(b"a")], False),
    (b"SRANDMEMBER k 2", [array(b"a", b"b"), array(b"a", b"b")], [array(b"a", b"a"), array(b"a", b"b")], False),
    (b"SRANDMEMBER k 2", [array(b"a", b"b"), array(b"a", b"b")], [array(b"a"), array(b"a", b"b")], False),
    (b"SRANDMEMBER k -3", [array(b"a", b"a", b"b"), array(b"a", b"b")], [array(b"b", b"b", b"b"), array(b"a", b"b")], True),
    (b"SRANDMEMBER k -3", [array(b"a", b"a", b"b"), array(b"a", b"b")], [array(b"b", b"b"), array(b"a", b"b")], False),
    (b"HRANDFIELD k 1 WITHVALUES", [array(b"a", b"1"), array(b"a", b"1", b"b", b"2")], [array(b"b", b"2"), array(b"a", b"1", b"b", b"2")], True),
    (b"HRANDFIELD k 1 WITHVALUES", [array(b"a", b"1"), array(b"a", b"1", b"b", b"2")], [array(b"b", b"1"), array(b"a", b"1", b"b", b"2")], False),
    (b"RANDOMKEY", [bulk(b"a"), array(b"a", b"b")], [bulk(b"b"), array(b"b", b"a")], True),
    (b"RANDOMKEY", [bulk(b"a"), array(b"a")], [bulk(b"b"), array(b"a")], False),
    (b"RANDOMKEY", [bulk(b"a"), array(b"a")], [bulk(None), array(b"a")], False),
    (b"DBSIZE", [(":", 0)] * 29 + [(":", 1)], [(":", 0)] * 29 + [(":", 2)], False),
    (b"SORT k BY nosort", [OK, bulk(b"hashtable"), array(b"a", b"b")], [OK, bulk(b"hashtable"), array(b"b", b"a")], True),
    (b"SORT k BY nosort", [OK, bulk(b"quicklist"), array(b"a", b"b")], [OK, bulk(b"quicklist"), array(b"b", b"a")], False),
    (b"SORT k ALPHA", [OK, array(b"a", b"b")], [OK, array(b"b", b"a")], False),
    (b"OBJECT REFCOUNT k", [(":", 1)], [(":", 2)], False),
    (b"OBJECT REFCOUNT k", [(":", 1)], [bulk(None)], False),
    (b"OBJECT IDLETIME k", [(":", 1), (":", 0)], [(":", 1), (":", 1)], True),
    (b"OBJECT IDLETIME k", [(":", 1), (":", 0)], [(":", 1), (":", 50)], False),
    (b"OBJECT IDLETIME k", [(":", 2147483647), (":", 0)], [(":", 2147483647), (":", 50)], True),
    (b"OBJECT IDLETIME k", [(":", 2147483647), (":", 0)], [(":", 2147483647), bulk(None)], False),
    (b"SCAN 0", [array(b"0", array())], [array(b"0", b"1")], False),
    (b"DUMP k", [bulk(b"embstr"), bulk(sealed(b"\x00\x01a"))], [bulk(b"embstr"), bulk(sealed(b"\x00\x01b"))], False),
    (b"DUMP k", [bulk(b"raw"), bulk(sealed(b"\x00\x04aaab"))], [bulk(b"raw"), bulk(sealed(b"\x00\xc3\x04\x04\x00a\x20\x00"))], False),
    (b"DUMP k", [bulk(b"raw"), bulk(sealed(b"\x00\x04aaaa"))], [bulk(b"raw"), bulk(sealed(b"\x00\xc3\x04\x04\x00a\x20\x00"))], True),
    (b"DUMP k", [bulk(b"raw"), bulk(sealed(b"\x00\x01a"))], [bulk(b"raw"), bulk(sealed(b"\x00\x01a", 11))], False),
    (b"COMMAND COUNT", [(":", 240)], [(":", 200)], True),
    (b"COMMAND COUNT", [(":", 240)], [bulk(b"240")], False),
]  # fmt: skip


@pytest.mark.parametrize("line,left,right,agree", CASES)
def test_checks(line, left, right, agree):
    made = group(line.split(b" "))
    assert len(left) == len(right) == len(made.commands)
    assert (made.check(left, right) is None) == agree
    assert (made.check(right, left) is None) == agree


def test_freeze_tells_types_apart():
    assert compare.freeze(OK) != compare.freeze(bulk(b"OK"))
    assert compare.freeze(array(b"a")) == compare.freeze(array(b"a"))


def test_replay_reads_what_script_wrote():
    steps = [(0, [b"SET", b"k", b'a"\\\x00\xff\n b']), (1, [b"GET", b""]), (0, [SLEEP, b"12"]), (0, [b"GET", b"k"])]
    assert replay.read(script(steps, 2, 3).split("\n")) == (steps, 2, 3)


def test_same_block_same_command():
    context = [Context(1000, [b"x"]) for _ in range(2)]
    for first in range(256):
        block = bytes([0, first, 255 - first, 7, 9, 200, 13])
        assert sequence([block], context[0]) == sequence([block], context[1])


def test_dead_server_is_told_and_replaced():
    with both(subject=lambda: Server(ORACLE)) as (oracle, subject):
        runner = Runner(oracle, subject, 2)
        runner.run([(0, [b"SET", b"k", b"v"])], 0)
        subject.process.kill()
        subject.process.wait()
        runner.run([(0, [b"SET", b"k", b"v"])], 0)
        with pytest.raises(Mismatch, match="the process ended"):
            runner.run([(0, [b"GET", b"k"]), (1, [b"SHUTDOWN", b"NOSAVE"])], 0)
        runner.close()


# ---- planted differences in a real server


def find(extra=(), settings=None, wrap=None, examples=60, resp=2):
    """The Failure that a search against a differing server ends with."""
    with both(subject=lambda: Server(ORACLE, extra=extra)) as servers:
        runner = Runner(*servers, resp, subject_settings=settings)
        if wrap:
            wrap(runner)
        try:
            search(runner, 5, examples, shrink_seconds=6)
        except Failure as failure:
            os.unlink(failure.path)
            return failure
        finally:
            runner.close()
    return None


PLANTED = [
    ({"settings": {"hash-max-listpack-entries": 1}}, b"HSET"),
    ({"settings": {"set-max-intset-entries": 2}}, None),
    ({"settings": {"list-max-listpack-size": 1, "list-compress-depth": 0}}, "none"),
    ({"extra": ["--rename-command", "GETDEL", ""]}, b"GETDEL"),
    ({"extra": ["--databases", "3"]}, None),
]


@pytest.mark.parametrize("planted,culprit", PLANTED)
def test_planted_difference_is_found_and_shrunk(planted, culprit):
    failure = find(**planted)
    if culprit == "none":  # how a list is cut into nodes shows in nothing that is promised
        assert failure is None, str(failure)
        return
    assert failure is not None
    assert len(failure.steps) <= 6, str(failure)
    if culprit:
        assert any(argv[0].upper() in (culprit, b"HMSET", b"RESTORE", b"COMMAND") for _, argv in failure.steps)


class Liar(Connection):
    """A connection that now and then changes a reply, as a faulty server would."""

    lie = staticmethod(lambda reply: reply)

    def receive(self, count):
        return [self.lie(reply) for reply in super().receive(count)]


LIES = {
    "bulk for status": lambda reply: ("$", b"OK") if reply == OK else reply,
    "null array for null bulk": lambda reply: ("*", None) if reply == ("$", None) else reply,
    "error text": lambda reply: (reply[0], reply[1] + b".") if b"not an integer" in bytes(reply[1] or b"") else reply,
    "one too many": lambda reply: (":", reply[1] + 1) if reply[0] == ":" and 3 < reply[1] < 50 else reply,
    "lost last element": lambda reply: ("*", reply[1][:-1]) if reply[0] == "*" and len(reply[1] or []) == 3 else reply,
}


def only_plain(lie):
    return lambda reply: lie(reply) if len(reply) == 2 and (reply[0] in "+-:*" or reply[1] is None) else reply


@pytest.mark.parametrize("name", LIES)
def test_lie_is_found(name):
    lie = LIES[name] if name != "error text" else (lambda reply: LIES[name](reply) if reply[0] == "-" else reply)

    def wrap(runner):
        original = runner.connect

        def connect():
            original()
            for link in runner.links[:2]:
                link[1].__class__ = type("Lying", (Liar,), {"lie": staticmethod(only_plain(lie))})

        runner.connect = connect
        connect()

    failure = find(wrap=wrap)
    assert failure is not None
    assert len(failure.steps) <= 6, str(failure)
