"""Server CPU for an operation of the commands that applications use most, on one key and on many."""
import socket
import subprocess
import threading
from statistics import median

from target import Failure, KINDS, Server

KEY = "__rand_int__"  # redis-benchmark puts a number here
SUBSCRIBERS = 100

# what it is called, the command
COMMANDS = {
    "LPUSH, one list": ["LPUSH", "list", "element"],
    "LPUSH": ["LPUSH", "list:" + KEY, "element"],
    "LPOP, one list": ["LPOP", "list"],
    "LPOP": ["LPOP", "list:" + KEY],
    "SADD, one set": ["SADD", "set", "member:" + KEY],
    "SADD": ["SADD", "set:" + KEY, "member:" + KEY],
    "HSET, one hash": ["HSET", "hash", "field:" + KEY, "value"],
    "HSET": ["HSET", "hash:" + KEY, "field", "value"],
    "ZADD, one sorted set": ["ZADD", "zset", KEY, "member:" + KEY],
    "ZADD": ["ZADD", "zset:" + KEY, KEY, "member"],
    "ZRANGE of 10": ["ZRANGE", "zset", "0", "9"],
    "INCR": ["INCR", "counter:" + KEY],
    "MSET of 10": ["MSET"] + [word for _ in range(10) for word in ("key:" + KEY, "value")],
    "XADD, one stream": ["XADD", "stream", "*", "field", "value"],
    "XADD": ["XADD", "stream:" + KEY, "*", "field", "value"],
    "EVAL": ["EVAL", "return redis.call('INCRBY', KEYS[1], ARGV[1])", "1", "counter:" + KEY, "1"],
    "PUBLISH to 100": ["PUBLISH", "channel", "message"],
}


class Audience:
    """Subscribers that read what they get."""

    def __init__(self, server):
        self.sockets = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(SUBSCRIBERS)]
        for s in self.sockets:
            s.sendall(b"SUBSCRIBE channel\r\n")
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        import selectors
        selector = selectors.DefaultSelector()
        for s in self.sockets:
            selector.register(s, selectors.EVENT_READ)
        while selector.get_map():
            for ready, _ in selector.select():
                try:
                    more = ready.fileobj.recv(1 << 20)
                except OSError:
                    more = b""
                if not more:
                    selector.unregister(ready.fileobj)
                    ready.fileobj.close()

    def close(self):
        for s in self.sockets:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.thread.join(10)


def cpu_of(server, command, pipeline, count):
    before = server.cpu_seconds()
    done = subprocess.run(["redis-benchmark", "-h", "127.0.0.1", "-p", str(server.port), "-n", str(count), "-c", "50", "-P",
                           str(pipeline), "-r", "100000", "-q", *command],
                          capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL)
    if done.returncode or "rror" in done.stdout + done.stderr:
        raise Failure(f"redis-benchmark against {server.kind}: {(done.stderr or done.stdout).strip()[-200:]}")
    return (server.cpu_seconds() - before) / count * 1e6


def figures(size, say, workers):
    directives = {"covey": ["--workers", workers] if workers else [], "redis": []}
    with Server("covey", *directives["covey"]) as covey, Server("redis") as redis:
        servers = {"covey": covey, "redis": redis}
        for name, command in COMMANDS.items():
            audiences = [Audience(server) for server in servers.values()] if name.startswith("PUBLISH") else []
            for pipeline, count in size.commands.items():
                if audiences:
                    count //= 10  # each is a hundred messages
                say(f"{name} P={pipeline}")
                cpu = {kind: [] for kind in KINDS}
                for turn in range(size.turns):
                    for kind in KINDS if turn % 2 == 0 else KINDS[::-1]:
                        cpu[kind].append(cpu_of(servers[kind], command, pipeline, count))
                yield f"{name} P={pipeline} CPU us/operation", median(cpu["covey"]), median(cpu["redis"]), "{:.2f}", True
            for audience in audiences:
                audience.close()
