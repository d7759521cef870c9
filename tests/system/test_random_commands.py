"""Random commands of the whole table with random arguments, and hostile DUMP payloads, from several connections at
once: nothing crashes, leaks or hangs, and what is left saves and loads.

Half of the commands come from the grammar of the differential test (mostly valid ones, some spoilt), the others are made
here from the server's own COMMAND table.  COVEY_TEST_SEED chooses others; a long run takes three minutes."""
import math
import os
import random
import sys
import threading
import time

import pytest

import covey

sys.path.insert(0, os.path.join(covey.ROOT, "tests", "differential"))
import grammar  # noqa: E402
from draw import ALL_KEYS, FLOATS, INTS, JUNK, WORDS, Context, Draw  # noqa: E402
from resp import Connection, Disconnected  # noqa: E402
from seal import sealed  # noqa: E402

SEED = int(os.environ.get("COVEY_TEST_SEED", "1"))
SECONDS = 180 if covey.LONG else 20 if covey.SANITIZED else 6
CLIENTS = 3
BATCH = 40
SHOWN = 60  # commands told when a connection breaks

# What ends, stops, empties or reconfigures the server, or changes what a reply is.
LEFT_OUT = set("""SHUTDOWN DEBUG MONITOR SYNC PSYNC REPLCONF REPLICAOF SLAVEOF FAILOVER MIGRATE QUIT RESET HELLO AUTH WAIT
ACL FLUSHALL FLUSHDB PFSELFTEST CONFIG|SET CONFIG|REWRITE CLIENT|KILL CLIENT|PAUSE CLIENT|REPLY CLIENT|TRACKING CLUSTER
SAVE""".split())
OPTIONS = [word.encode() for word in """NX XX GT LT CH INCR EX PX EXAT PXAT KEEPTTL GET PERSIST WITHSCORES WITHSCORE WITHVALUES
LIMIT BYSCORE BYLEX REV WEIGHTS AGGREGATE SUM MIN MAX COUNT MATCH TYPE LEFT RIGHT BEFORE AFTER REPLACE ABSTTL IDLETIME FREQ
DB ASC DESC ALPHA BY STORE STOREDIST WITHDIST WITHCOORD WITHHASH ANY FROMMEMBER FROMLONLAT BYRADIUS BYBOX m km IDX LEN
MINMATCHLEN WITHMATCHLEN RANK MAXLEN MINID NOMKSTREAM JUSTID STREAMS IDLE TIME RETRYCOUNT FORCE CREATE OVERFLOW WRAP SAT
FAIL SET INCRBY u8 i16 AND OR XOR NOT BIT BYTE * $ > - + ( [ [a (b 0-0 1-1 #1 VERSION string hash HELP""".split()]
# Counts between these ask for replies that are large, but valid.
SIZES = [number for number in INTS if not -(1 << 32) < int(number) < -10000]


class Client(threading.Thread):
    """One connection with a random stream of its own."""

    def __init__(self, node, seed, table, stop):
        super().__init__(daemon=True)
        self.node, self.table, self.stop_at = node, table, stop
        self.random = random.Random(seed)
        self.context = Context(int(time.time()), [b"\x00\x01a" + b"\0" * 10])
        self.payloads, self.recent, self.sent, self.broken = [], [], 0, None

    def run(self):
        conn = Connection(("127.0.0.1", self.node.port), timeout=30 * covey.PATIENCE)
        try:
            while time.monotonic() < self.stop_at:
                batch = [self.command() for _ in range(BATCH)]
                dumps = [[b"DUMP", self.random.choice(ALL_KEYS)] for _ in range(2)]
                self.recent = (self.recent + batch)[-SHOWN:]
                replies = conn.pipeline(batch + dumps)
                self.sent += len(batch)
                assert not any(is_missing_in_table(part) for reply in replies if reply[0] == "*" for part in reply[1] or [])
                self.payloads += [reply[1] for reply in replies[-2:] if reply[0] == "$" and reply[1] and len(reply[1]) < 3000]
                self.payloads = self.payloads[-40:]
        except (AssertionError, Disconnected) as why:
            self.broken = "%s after one of:\n%s" % (why, "\n".join(repr(argv)[:400] for argv in self.recent))
        finally:
            conn.close()

    def command(self):
        roll = self.random.random()
        if roll < 0.5:
            steps = []
            while not steps:
                block = self.random.randbytes(24)
                steps = [argv for _, argv in grammar.steps_of(Draw(block, self.context), chosen=EVERYTHING)
                         if argv[0] != grammar.SLEEP and name_of(argv) in self.table and bounded(argv)]  # fmt: skip
            return self.random.choice(steps)
        return self.anything() if roll < 0.85 or not self.payloads else self.hostile_restore()

    def anything(self):
        name, arity, first = self.random.choice(list(self.table.values()))
        argv = [word.encode() for word in name.split("|")]
        extra = self.random.randrange(9) if arity < 0 else 0
        wanted = max(len(argv), abs(arity) + extra)
        while len(argv) < wanted:
            argv.append(self.argument(len(argv) == first))
        return argv[:-1] if len(argv) > 1 and self.random.random() < 0.03 else argv

    def argument(self, is_key):
        pick, roll = self.random.choice, self.random.random()
        if is_key and roll < 0.9:
            return pick(ALL_KEYS)
        if roll < 0.30:
            return pick(OPTIONS)
        if roll < 0.50:
            return b"%d" % self.random.randrange(-3, 12)
        if roll < 0.60:
            return pick(SIZES)
        if roll < 0.70:
            return pick(FLOATS)
        if roll < 0.85:
            return pick(ALL_KEYS)
        return pick(WORDS + JUNK) if roll < 0.95 else self.random.randbytes(self.random.randrange(80))

    def hostile_restore(self):
        """A real payload with a few bytes wrong, and a checksum that says it is right."""
        body = bytearray(self.random.choice(self.payloads)[:-10])
        for _ in range(1 + self.random.randrange(4)):
            at, how = self.random.randrange(len(body) or 1), self.random.randrange(5)
            if how == 0:
                del body[at:]
            elif how == 1:
                body[at:at] = self.random.randbytes(1 + self.random.randrange(4))
            elif how == 2:
                body[at : at + 1 + self.random.randrange(3)] = b""
            elif at < len(body):
                body[at] = self.random.choice([0, 1, 0x7F, 0x80, 0xC0, 0xFF, body[at] ^ 1 << self.random.randrange(8)])
        return [b"RESTORE", self.random.choice(ALL_KEYS), b"0", sealed(bytes(body)), b"REPLACE"]


def is_missing_in_table(reply):
    """A command asked in EXEC for the server at rest: it lacks CMD_AT_REST in commands.def."""
    return reply[0] == "-" and b"can't run inside a transaction" in reply[1]


def name_of(argv):
    return argv[0].decode("latin-1").upper()


def bounded(argv):
    """Does not let strings grow beyond the megabyte that the node is started with."""
    return not (name_of(argv) == "CONFIG" and any(word.lower() == b"proto-max-bulk-len" for word in argv))


EVERYTHING = grammar.chooser([name for name in grammar.TABLE if name.split("|")[0] not in LEFT_OUT])


def command_table(node):
    """{name: (name, arity, position of the first key)} of what may be sent; subcommands beside their containers."""
    table = {}

    def add(row):
        name, arity, flags, first = row[0][1].decode().upper(), row[1][1], {flag[1] for flag in row[2][1]}, row[3][1]
        container = name.split("|")[0]
        if name in LEFT_OUT or container in LEFT_OUT or b"blocking" in flags or (b"pubsub" in flags and name != "PUBLISH"):
            return
        table[name] = (name, arity, first)
        for sub in row[9][1]:
            add(sub[1])

    conn = Connection(("127.0.0.1", node.port))
    for row in conn.call("COMMAND")[1]:
        add(row[1])
    conn.close()
    return table


def make_permanent(node):
    """From here on no key runs out, none is left that has run out, and no score changes by being saved."""
    for db in range(16):
        client = node.new_client(db=db)
        for key in client.keys("*"):
            client.persist(key)
            if client.type(key) == b"zset":
                # A skiplist keeps the sign of a zero.  A listpack, which it may be loaded as, does not, as in redis-server.
                zeros = [member for member, score in client.zrangebyscore(key, 0, 0, withscores=True)
                         if math.copysign(1, score) < 0]
                for score in 1, 0:
                    if zeros:
                        client.zadd(key, dict.fromkeys(zeros, score))
        client.close()
    # KEYS does not show what has run out, DBSIZE and DEBUG DIGEST count it until it is deleted.
    covey.wait_for("the expired keys to go", lambda: not any(db["expires"] for db in node.info("keyspace").values()))


def value_digests(node):
    """(database, key) -> type, encoding, digest of the value, expiry."""
    found = {}
    for db in range(16):
        client = node.new_client(db=db)
        for key in client.keys("*"):
            found[db, key] = (client.type(key), client.execute_command("DEBUG", "DIGEST-VALUE", key),
                              client.execute_command("PEXPIRETIME", key))
        client.close()
    return found


@pytest.mark.sanitizer
def test_random_commands(servers):
    node = servers.node("covey", proto_max_bulk_len="1mb")
    table = command_table(node)
    assert len(table) > 150
    stop = time.monotonic() + SECONDS
    clients = [Client(node, SEED * 1000 + i, table, stop) for i in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(SECONDS + 120 * covey.PATIENCE)
        assert not client.is_alive(), f"seed {SEED}: no replies any more"
    for client in clients:
        assert client.broken is None, f"seed {SEED}: {client.broken}"
    print(f"seed {SEED}: {sum(client.sent for client in clients)} commands")
    assert node.cmd("PING")

    make_permanent(node)
    values = value_digests(node)
    digest, keys = node.cmd("DEBUG", "DIGEST"), [node.new_client(db=db).dbsize() for db in range(16)]
    assert sum(keys) > 0
    covey.wait_for("SAVE", lambda: node.cmd("SAVE"))  # a BGSAVE may be under way
    assert node.shutdown("NOSAVE") == 0
    node.start()
    assert [node.new_client(db=db).dbsize() for db in range(16)] == keys, f"seed {SEED}"
    if node.cmd("DEBUG", "DIGEST") != digest:
        now = value_digests(node)
        raise covey.TestFailure(f"seed {SEED}: other values after the restart: "
                                f"{[(at, what, now.get(at)) for at, what in values.items() if now.get(at) != what][:5]}")
