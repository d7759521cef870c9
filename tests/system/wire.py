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
    def __init__(self, node, version=2, timeout=10, receive_buffer=None, connect_timeout=None):
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout((connect_timeout or timeout) * covey.PATIENCE)
        self.sock.connect((node.host, node.port))
        self.sock.settimeout(timeout * covey.PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer, self.at = b"", 0
        self.id = self("CLIENT", "ID")
        if version == 3:
            self("HELLO", 3)

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, *words):
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self.sock.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))

    def _more(self):
        data = self.sock.recv(1 << 18)
        if not data:
            raise Closed
        self.buffer, self.at = self.buffer[self.at:] + data, 0

    def line(self):
        """The next line, with its end."""
        while (end := self.buffer.find(b"\n", self.at)) < 0:
            self._more()
        line, self.at = self.buffer[self.at:end + 1], end + 1
        return line

    def exactly(self, count):
        if len(self.buffer) - self.at < count:
            parts, have = [self.buffer[self.at:]], len(self.buffer) - self.at
            while have < count:
                parts.append(self.sock.recv(1 << 18))
                if not parts[-1]:
                    raise Closed
                have += len(parts[-1])
            self.buffer, self.at = b"".join(parts), 0
        data, self.at = self.buffer[self.at:self.at + count], self.at + count
        return data

    def read(self):
        """The next reply or pushed message."""
        line = self.line()
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
            return self.exactly(int(rest) + 2)[:-2]
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
        poll = select.poll()  # select() takes no descriptor over 1023
        poll.register(self.sock, select.POLLIN)
        return self.at == len(self.buffer) and not poll.poll(1000 * seconds * covey.PATIENCE)

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
