"""Figures of memory: hit rates under eviction, and what large and small collections take."""
import bisect
import itertools
import random
import time

from target import KINDS, Failure, Server

VALUE = b"x" * 100
RATE = 25_000  # requests a second


class Zipf:
    """Keys 0..n-1 with probabilities as 1 / rank; which key has which rank is shuffled."""

    def __init__(self, n, seed, exponent=1.0):
        self.rng = random.Random(seed)
        self.sums = list(itertools.accumulate(1 / (rank + 1) ** exponent for rank in range(n)))
        self.key = list(range(n))
        self.rng.shuffle(self.key)

    def draw(self):
        return self.key[bisect.bisect_left(self.sums, self.rng.random() * self.sums[-1])]


def zipf(keys, requests, seed):
    source = Zipf(keys, seed)
    return (source.draw() for _ in range(requests))


def zipf_with_scans(keys, requests, seed):
    """Every fifth request belongs to a walk over keys that are never asked for again soon."""
    source, walk = Zipf(keys, seed), itertools.count(keys)
    return (next(walk) if i % 5 == 0 else source.draw() for i in range(requests))


WORKLOADS = {"Zipf": zipf, "Zipf and a scan": zipf_with_scans}
POLICIES = ("allkeys-lru", "allkeys-lfu")


def request(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


def ask_all(connection, requests, at_once=200):
    """Sends requests in pipelines; the replies."""
    replies = []
    for first in range(0, len(requests), at_once):
        part = requests[first:first + at_once]
        connection.socket.sendall(b"".join(part))
        replies += [connection.read() for _ in part]
    return replies


def hit_rate(server, policy, stream, keys):
    """As a cache is used: GET, and SET after a miss.  The first half of the requests warms it up."""
    with server.connect() as c:
        c.ask("FLUSHALL")
        time.sleep(0.3)
        c.ask("CONFIG", "SET", "maxmemory", "0")
        ask_all(c, [request(b"SET", b"key:%d" % i, VALUE) for i in range(keys // 5)])
        limit = c.info("memory")["used_memory"]  # so a fifth of the keys fits, whatever else the server needs
        c.ask("FLUSHALL")
        c.ask("CONFIG", "SET", "maxmemory-policy", policy)
        c.ask("CONFIG", "SET", "maxmemory", limit)
        hits = asked = 0
        half, began = len(stream) // 2, time.monotonic()
        for first in range(0, len(stream), 200):
            # The clock of the policies ticks once a second: both get the same pace.
            time.sleep(max(0, began + first / RATE - time.monotonic()))
            part = stream[first:first + 200]
            values = ask_all(c, [request(b"GET", b"key:%d" % k) for k in part])
            missing = {k for k, v in zip(part, values) if v is None}
            refused = [r for r in ask_all(c, [request(b"SET", b"key:%d" % k, VALUE) for k in missing]) if r != "OK"]
            if refused:
                raise Failure(f"a write was refused: {refused[0]}")
            if first >= half:
                asked += len(part)
                hits += sum(v is not None for v in values)
        if int(c.info("stats")["evicted_keys"]) == 0:
            raise Failure("nothing was evicted")
        return hits / asked


def eviction(size, say):
    """Hit rates with the same maxmemory relative to the data."""
    for name, workload in WORKLOADS.items():
        stream = list(workload(size.eviction_keys, size.eviction_requests, 1))
        for policy in POLICIES:
            say(f"hit rates: {name}, {policy}")
            rates = {}
            for kind in KINDS:
                with Server(kind) as server:
                    rates[kind] = hit_rate(server, policy, stream, size.eviction_keys) * 100
            yield f"hit rate %, {name}, {policy}, a fifth fits", rates["covey"], rates["redis"], "{:.2f}", False


# ---- what values take ----

def small_hashes(count):
    return (request(b"HSET", b"hash:%012d" % i, *[w for f in range(5) for w in (b"field%d" % f, b"value:%06d" % (i % 10**6))])
            for i in range(count))


def small_streams(count):
    return (request(b"XADD", b"stream:%010d" % (i // 2), b"%d-1" % (i + 1), b"temperature", b"%d" % (i % 50), b"place", b"cellar")
            for i in range(2 * count))


def one_set(count):
    return (request(b"SADD", b"set", *[b"member:%010d" % j for j in range(i, i + 100)]) for i in range(0, count, 100))


def one_sorted_set(count):
    return (request(b"ZADD", b"zset", *[w for j in range(i, i + 100) for w in (b"%d" % (j * 7919 % count), b"member:%010d" % j)])
            for i in range(0, count, 100))


def shapes(size):
    n = size.shape_keys
    return (("a hash of five small fields", n, small_hashes(n)), (f"a member of a set of {5 * n:,}", 5 * n, one_set(5 * n)),
            (f"a member of a sorted set of {n:,}", n, one_sorted_set(n)), ("a stream of two entries", n, small_streams(n)))


def grown(server, commands):
    with server.connect() as c:
        before, rss = int(c.info("memory")["used_memory"]), server.rss()
        while part := list(itertools.islice(commands, 2000)):
            refused = [r for r in ask_all(c, part, 500) if isinstance(r, str) and r.startswith("-")]
            if refused:
                raise Failure(refused[0])
        time.sleep(1)
        return int(c.info("memory")["used_memory"]) - before, server.rss() - rss


def collections(size, say):
    """Bytes by used_memory and resident bytes, for the shapes people keep."""
    for index in range(4):
        taken = {}
        for kind in KINDS:
            name, count, commands = shapes(size)[index]
            say(f"memory of {name} in {kind}")
            with Server(kind) as server:
                taken[kind] = grown(server, commands)
        yield f"bytes, {name}", taken["covey"][0] / count, taken["redis"][0] / count, "{:.1f}", True
        yield f"bytes, {name}, resident", taken["covey"][1] / count, taken["redis"][1] / count, "{:.1f}", True
