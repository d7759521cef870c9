"""Debian's nutcracker in front of servers of our own that answer every GET with their name."""
import os
import selectors
import socket
import subprocess
import threading
import time

import covey

NUTCRACKER = "/usr/sbin/nutcracker"


class Sinks:
    """Tiny servers, in one thread, for RESP and memcached; each answers what it is asked with its own name."""

    def __init__(self, directory, count):
        self.directory = directory
        self.selector = selectors.DefaultSelector()
        self.names, self.addresses, self.listeners = [], [], []
        self.open = True
        for i in range(count):
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            port = covey.free_port()
            listener.bind(("127.0.0.1", port))
            listener.listen(512)
            listener.setblocking(False)
            self.addresses.append(f"127.0.0.1:{port}")
            self.names.append(f"s{i}")
            self.listeners.append(listener)
            self.selector.register(listener, selectors.EVENT_READ, (i, None))
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while self.open:
            for key, _ in self.selector.select(0.1):
                index, state = key.data
                if state is None:
                    conn, _ = key.fileobj.accept()
                    self.selector.register(conn, selectors.EVENT_READ, (index, [b"", 0]))
                else:
                    self._serve(key.fileobj, index, state)

    def _serve(self, conn, index, state):
        try:
            data = conn.recv(1 << 20)
        except OSError:
            data = b""
        if not data:
            self.selector.unregister(conn)
            conn.close()
            return
        if not state[0]:
            state[0] = data[:1]
        # No key of the tests has a line end: a GET is five lines in RESP, and one in memcached's protocol.
        state[1] += data.count(b"\n")
        lines, name = (5, b"+%s\r\n") if state[0] == b"*" else (1, b"VERSION %s\r\n")
        requests, state[1] = divmod(state[1], lines)
        conn.sendall(name % self.names[index].encode() * requests)

    def close(self):
        self.open = False
        self.thread.join()
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.selector.close()


class Nutcracker:
    """One process with these pools: {name: text of its directives without listen}; each listens on a unix socket."""

    def __init__(self, directory, pools):
        self.conf = os.path.join(directory, "nutcracker.yml")
        self.sockets = {name: os.path.join(directory, f"{name}.sock") for name in pools}
        with open(self.conf, "w", encoding="latin-1") as f:
            for name, text in pools.items():
                f.write(f"{name}:\n  listen: {self.sockets[name]}\n{text}\n")
        self.log = os.path.join(directory, "nutcracker.log")
        self.process = subprocess.Popen(
            [NUTCRACKER, "-c", self.conf, "-o", self.log, "-a", "127.0.0.1", "-s", str(covey.free_port()), "-p",
             os.path.join(directory, "nutcracker.pid")], preexec_fn=covey.die_with_parent)
        deadline = time.monotonic() + 10
        while not all(os.path.exists(s) for s in self.sockets.values()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise covey.TestFailure("nutcracker did not start: " + open(self.log).read()[-2000:])
            time.sleep(0.02)
        time.sleep(0.1)

    def places(self, pool, keys, batch=200):
        """The name of the server that answers for each key; an error's text where there is none."""
        out = []
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(20)
            s.connect(self.sockets[pool])
            replies = s.makefile("rb")
            for i in range(0, len(keys), batch):
                part = keys[i:i + batch]
                s.sendall(b"".join(b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(k), k) for k in part))
                for _ in part:
                    line = replies.readline()
                    if not line:
                        raise covey.TestFailure(f"nutcracker closed the connection of pool {pool}")
                    out.append(line.rstrip(b"\r\n")[1:].decode())
        return out

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
