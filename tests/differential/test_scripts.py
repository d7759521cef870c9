"""Scripts: every text in scripts.txt is run by redis-server and by Covey, and the raw replies are compared, in RESP2
and RESP3. A case is a Lua script, run with two keys and two arguments, or "CMD [...]", a command. They share a dataset
and run in order. COVEY_BIN=/usr/bin/redis-server compares Redis with itself."""

import ast
import os
import socket

import pytest

from servers import both

CASES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "scripts.txt")


def load():
    with open(CASES, encoding="latin-1") as file:
        texts = file.read().split("\n----\n")
    for text in texts:
        text = text.strip("\n")
        if text.startswith("CMD "):
            yield ast.literal_eval(text[4:])
        elif text:
            yield ["eval", text, "2", "k1", "k2", "a1", "a2"]


class Raw:
    """Replies as the bytes they are."""

    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.file = self.sock.makefile("rb")

    def __call__(self, *args):
        args = [a.encode("latin-1") for a in args]
        head = b"*%d\r\n" % len(args)
        self.sock.sendall(head + b"".join(b"$%d\r\n%s\r\n" % (len(a), a) for a in args))
        return self.read()

    def read(self):
        line = self.file.readline()
        assert line, "connection closed"
        kind, left = line[:1], 0
        if kind in b"$=!" and line[1:2] != b"-":
            return line + self.file.read(int(line[1:]) + 2)
        if kind in b"*~>":
            left = int(line[1:])
        elif kind == b"%":
            left = 2 * int(line[1:])
        return line + b"".join(self.read() for _ in range(left))


@pytest.fixture(scope="module")
def servers():
    with both() as pair:
        yield pair


@pytest.mark.sanitizer
@pytest.mark.parametrize("version", ["2", "3"])
def test_scripts_answer_as_in_redis(servers, version):
    connections = [Raw(server.port) for server in servers]
    for conn in connections:
        conn("flushall")
        conn("script", "flush")
        conn("hello", version)
    differences, count = [], 0
    for args in load():
        want, got = (conn(*args) for conn in connections)
        count += 1
        if want != got:
            differences.append(f"{args!r}\n    redis {want[:400]!r}\n    covey {got[:400]!r}")
    assert count > 300, "the cases were not read"
    assert not differences, f"{len(differences)} of {count} differ:\n" + "\n".join(differences)
