"""A small RESP2/RESP3 client that keeps the type of every reply.

A reply is a tuple whose first member is the type byte as a string, so that what two servers said can be
compared exactly: a status is not a bulk string, a null bulk is not a null array is not a RESP3 null, and a
double is kept as the text that came over the wire.

    ('+', b'OK')  ('-', b'ERR ...')  (':', 5)  ('$', b'abc' or None)  ('*', [..] or None)
    ('_',)  (',', b'1.5')  ('#', True)  ('(', b'123')  ('=', b'txt:..')  ('!', b'..')
    ('%', [(k, v), ..])  ('~', [..])  ('>', [..])  ('|', [(k, v), ..], reply)
"""

import select
import socket


class Disconnected(Exception):
    """The server closed the connection, sent nonsense, or did not answer in time."""


def encode(argv):
    """One command as a RESP array of bulk strings."""
    parts = [b"*%d\r\n" % len(argv)]
    for arg in argv:
        parts.append(b"$%d\r\n%s\r\n" % (len(arg), arg))
    return b"".join(parts)


class Parser:
    """Parses replies out of a growing buffer; `feed` asks the owner for more bytes."""

    def __init__(self, feed):
        self.buf = bytearray()
        self.at = 0
        self.feed = feed

    def _line(self):
        while True:
            end = self.buf.find(b"\r\n", self.at)
            if end >= 0:
                line = bytes(self.buf[self.at : end])
                self.at = end + 2
                return line
            self._more()

    def _exact(self, size):
        while len(self.buf) - self.at < size + 2:
            self._more()
        out = bytes(self.buf[self.at : self.at + size])
        if self.buf[self.at + size : self.at + size + 2] != b"\r\n":
            raise Disconnected("no CRLF after a bulk of %d bytes" % size)
        self.at += size + 2
        return out

    def _more(self):
        if self.at > 1 << 16:
            del self.buf[: self.at]
            self.at = 0
        self.buf += self.feed()

    def reply(self):
        line = self._line()
        kind, rest = line[:1], line[1:]
        try:
            return self._typed(kind, rest)
        except ValueError as why:
            raise Disconnected("not RESP: %r (%s)" % (line, why)) from why

    def _typed(self, kind, rest):
        if kind in (b"+", b"-", b",", b"("):
            return (kind.decode(), rest)
        if kind == b":":
            return (":", int(rest))
        if kind in (b"$", b"=", b"!"):
            size = int(rest)
            if size == -1 and kind == b"$":
                return ("$", None)
            return (kind.decode(), self._exact(self._size(size)))
        if kind in (b"*", b"~", b">"):
            size = int(rest)
            if size == -1 and kind == b"*":
                return ("*", None)
            return (kind.decode(), [self.reply() for _ in range(self._size(size))])
        if kind in (b"%", b"|"):
            pairs = [(self.reply(), self.reply()) for _ in range(self._size(int(rest)))]
            return ("%", pairs) if kind == b"%" else ("|", pairs, self.reply())
        if kind == b"_" and rest == b"":
            return ("_",)
        if kind == b"#" and rest in (b"t", b"f"):
            return ("#", rest == b"t")
        raise ValueError("unknown type")

    @staticmethod
    def _size(size):
        if size < 0:
            raise ValueError("negative length")
        return size


class Connection:
    """A connection to one server; commands are sent in pipelines, replies read in order."""

    def __init__(self, address, timeout=20.0):
        self.sock = socket.create_connection(address, timeout=timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.timeout = timeout
        self.pending = b""
        self.parser = Parser(self._feed)

    def close(self):
        self.sock.close()

    def _feed(self):
        """Waits for bytes; meanwhile goes on sending, so that neither side can block the other for ever."""
        while True:
            writers = [self.sock] if self.pending else []
            readable, writable, _ = select.select([self.sock], writers, [], self.timeout)
            if writable:
                self._push()
            if readable:
                try:
                    data = self.sock.recv(1 << 18)
                except OSError as why:
                    raise Disconnected(str(why)) from why
                if not data:
                    raise Disconnected("connection closed by the server")
                return data
            if not writable:
                raise Disconnected("no reply within %.0f s" % self.timeout)

    def _push(self):
        self.sock.setblocking(False)
        try:
            sent = self.sock.send(self.pending)
            self.pending = self.pending[sent:]
        except BlockingIOError:
            pass
        except OSError as why:
            raise Disconnected(str(why)) from why
        finally:
            self.sock.settimeout(self.timeout)

    def send(self, commands):
        self.pending += b"".join(map(encode, commands))
        try:
            self._push()
        except Disconnected:
            pass  # receive() will tell, after what the server still said

    def receive(self, count):
        return [self.parser.reply() for _ in range(count)]

    def pipeline(self, commands):
        self.send(commands)
        return self.receive(len(commands))

    def call(self, *argv):
        return self.pipeline([[arg if isinstance(arg, bytes) else str(arg).encode() for arg in argv]])[0]


def is_error(reply):
    return reply[0] in ("-", "!")


def is_null(reply):
    return reply == ("_",) or (reply[0] in "$*" and reply[1] is None)
