"""A bare connection for what client libraries hide: pushed messages, their place among replies, both protocol versions."""
import select
import socket
import time

import covey


class Push(list):
    """An aggregate of type '>'."""


class Error(str):
    """An error reply, not raised."""


class Closed(Exception):
    """The server closed the connection."""


class Wire:
    def __init__(self, node, version=2, timeout=10, receive_buffer=None):
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(timeout * covey.PATIENCE)
        self.sock.connect((node.host, node.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.sock.makefile("rb")
        self.id = self("CLIENT", "ID")
        if version == 3:
            self("HELLO", 3)

    def close(self):
        self.file.close()
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, *words):
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self.sock.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))

    def read(self):
        """The next reply or pushed message."""
        line = self.file.readline()
        if not line:
            raise Closed
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            return Error(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"_":
            return None
        if kind == b",":
            return float(rest)
        if kind == b"#":
            return rest == b"t"
        if kind in b"$=":
            if int(rest) < 0:
                return None
            data = self.file.read(int(rest) + 2)
            if len(data) != int(rest) + 2:
                raise Closed
            return data[:-2]
        if kind in b"*~>":
            if int(rest) < 0:
                return None
            items = [self.read() for _ in range(int(rest))]
            return Push(items) if kind == b">" else items
        if kind == b"%":
            return {self.read(): self.read() for _ in range(int(rest))}
        raise ValueError(line)

    def __call__(self, *words):
        self.send(*words)
        return self.read()

    def many(self, count):
        return [self.read() for _ in range(count)]

    def silent(self, seconds=0.2):
        """Whether nothing comes for that long."""
        return not select.select([self.sock], [], [], seconds * covey.PATIENCE)[0]

    def closed(self, timeout=10):
        """Whether the server ends the connection within that time; drops what comes before."""
        deadline = time.monotonic() + timeout * covey.PATIENCE
        self.sock.settimeout(timeout * covey.PATIENCE)
        try:
            while time.monotonic() < deadline:
                if not self.sock.recv(1 << 20):
                    return True
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return False
