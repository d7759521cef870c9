"""The proxy as the subject: covey proxy in front of several primaries or of one server, and a runner that knows what the
proxy may refuse.

Only where keys are on several shards may the proxy say no: CROSSSLOT, and what cluster mode itself forbids.  A refusal is
judged by the slots of the keys, which the oracle names; what was refused rightly is not sent to the oracle, or makes it
abort the transaction in the same way."""

import hashlib
import os
import time

import family_scripts
from compare import name_of
from resp import Disconnected, is_error
from runner import PROFILES, Mismatch, Runner
from servers import ORACLE, SUBJECT, Server

SLOTS = 16384
BACKENDS = {"covey": SUBJECT, "redis": ORACLE, **({"valkey": os.environ["VALKEY_SERVER"]} if os.environ.get("VALKEY_SERVER") else {})}

# What is about one node, one connection or the process, and is the proxy's own or refused: docs/compatibility.md.
OF_THE_PROXY = {
    "ACL": "the users of the proxy are its own",
    "CLIENT": "clients of the proxy",
    "CLUSTER": "there is none; inside MULTI it is refused when it is queued",
    "CONFIG": "the proxy's settings",
    "DEBUG": "each server's own inside",
    "INFO": "the proxy's own",
    "LASTSAVE": "one node's",
    "LATENCY": "administration",
    "MEMORY": "but for USAGE: administration",
    "MIGRATE": "asks the network",
    "MODULE": "administration",
    "RESTORE-ASKING": "of cluster nodes",
    "ROLE": "administration",
    "SLOWLOG": "the proxy's own",
    "WAIT": "one connection to one node",
    "FUNCTION|KILL": "one node's",
    "FUNCTION|RESTORE": "one node's",
    "FUNCTION|STATS": "one node's",
    "SCRIPT|KILL": "one node's",
    "SCRIPT|DEBUG": "one connection to one node",
}
ALLOWED = {"MEMORY|USAGE"}
# The proxy answers these as redis-server 7.0, not as Valkey; so it does a SCAN from a cursor that is none.
CHANGED = {"READONLY", "READWRITE", "COMMAND", "COMMAND|LIST", "COMMAND|INFO", "COMMAND|DOCS", "COMMAND|COUNT"}
DATABASES = {"SELECT", "SWAPDB", "MOVE"}
SELECTING = {hashlib.sha1(text).hexdigest().encode() for text in family_scripts.TEXTS if b"'select'" in text}
SPLIT = {"MGET", "MSET", "DEL", "UNLINK", "EXISTS", "TOUCH"}
CONTROL = {"MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH"}


def key_slot(key):
    start = key.find(b"{")
    end = key.find(b"}", start + 1) if start >= 0 else -1
    if end > start + 1:
        key = key[start + 1 : end]
    crc = 0
    for byte in key:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc % SLOTS


class Member(Server):
    """A node of a cluster that its Backend puts together."""

    def _form_cluster(self, conn, deadline):
        pass


class Proxied(Server):
    """covey proxy and what is behind it.  binary: that of the proxy; kind: of the nodes; one: a single node, by itself
    or a cluster of one ("a shard")."""

    def __init__(self, kind, primaries=3):
        self.kind, self.one = kind, primaries in (1, "a shard")
        self.sharded = primaries != 1
        self.members = []
        try:
            for _ in range(1 if self.one else primaries):
                self.members.append((Member if self.sharded else Server)(BACKENDS[kind], cluster=self.sharded))
            if self.sharded:
                self._join()
            super().__init__(SUBJECT, cluster=False)
        except BaseException:
            for member in self.members:
                member.stop()
            raise

    def _join(self):
        links = [member.connect() for member in self.members]
        for at, link in enumerate(links):
            first, last = at * SLOTS // len(links), (at + 1) * SLOTS // len(links) - 1
            link.call("CLUSTER", "SET-CONFIG-EPOCH", at + 1)
            link.call("CLUSTER", "ADDSLOTSRANGE", first, last)
            if at:
                link.call("CLUSTER", "MEET", "127.0.0.1", self.members[0].port)
        deadline = time.monotonic() + 20
        for link in links:
            while b"cluster_state:ok" not in (said := link.call("CLUSTER", "INFO")[1]) or b"cluster_size:%d\r" % len(links) not in said:
                if time.monotonic() > deadline:
                    raise RuntimeError("the cluster of %s does not become ok" % self.kind)
                time.sleep(0.05)
        for link in links:
            link.close()

    def _command(self):
        seeds = ",".join("127.0.0.1:%d" % member.port for member in self.members)
        return [SUBJECT, "proxy", "--listen", "127.0.0.1:%d" % self.port, "--cluster", seeds, "--workers", "2",
                "--refresh-period", "500", *self.extra]  # fmt: skip

    def alive(self):
        return super().alive() and all(member.alive() for member in self.members)

    def restart(self):
        for member in self.members:
            if not member.alive():
                member.restart()
        super().restart()

    def stop(self):
        super().stop()
        for member in getattr(self, "members", []):
            member.stop()


def not_nested(steps):
    """Without what spoils a transaction in Valkey, and in redis-server 7.0 does not."""
    inside = set()
    for conn, argv in steps:
        name = name_of(argv)
        if conn in inside and name in ("MULTI", "WATCH"):
            continue
        if name == "MULTI" and len(argv) == 1:
            inside.add(conn)
        elif name in ("EXEC", "DISCARD", "RESET"):
            inside.discard(conn)
        yield conn, argv


class Transaction:
    """What one connection has watched and queued, for the slots."""

    def __init__(self):
        self.inside, self.calls, self.watched = False, [], []

    def saw(self, name, argv, reply):
        if name == "MULTI" and reply == ("+", b"OK"):
            self.inside, self.calls = True, []
        elif name == "EXEC" or (name == "DISCARD" and reply == ("+", b"OK")):
            self.inside, self.calls, self.watched = False, [], []
        elif name == "UNWATCH" and not self.inside:
            self.watched = []
        elif name == "WATCH" and reply == ("+", b"OK"):
            self.watched.append(argv)
        elif self.inside:
            self.calls.append(argv)


class ProxyRunner(Runner):
    """The oracle is a redis-server by itself, the subject a Proxied."""

    def __init__(self, oracle, proxied, resp, coverage=None):
        self.proxied = proxied
        self.transactions = [Transaction() for _ in range(3)]
        self.refused = 0
        super().__init__(oracle, proxied, resp, coverage)

    def connect(self):
        super().connect()
        self.transactions = [Transaction() for _ in range(3)]

    def databases(self):
        return [0]

    def _expect(self, made, left, right, wrong):
        """What the proxy says no to by itself it says in the words of redis-server 7.0, which Valkey has changed some of."""
        if wrong == "errors differ" and self.proxied.kind == "valkey":
            one, two = left[made.main], right[made.main]
            if is_error(one) and is_error(two) and one[1].split()[0] == two[1].split()[0]:
                return
        super()._expect(made, left, right, wrong)

    # ---- what is sent

    def run(self, steps, profile):
        steps = [step for step in steps if self.is_for_all(step[1])]
        super().run(list(not_nested(steps)) if self.proxied.kind == "valkey" else steps, profile)

    def is_for_all(self, argv):
        name = name_of(argv)
        if self.proxied.kind == "valkey" and (name in CHANGED or (name == "SCAN" and argv[1:2] != [b"0"])):
            return False
        if name in ALLOWED:
            return True
        if name in OF_THE_PROXY or name.split("|")[0] in OF_THE_PROXY:
            return False
        if name in DATABASES:
            return name == "SELECT" and len(argv) == 2 and argv[1] == b"0"
        if name == "COPY":
            return b"DB" not in map(bytes.upper, argv)
        if not self.proxied.one and name in ("SORT", "SORT_RO") and {b"BY", b"GET"} & set(map(bytes.upper, argv)):
            return False  # cluster mode itself denies it
        return not self.proxied.sharded or not any(b"'select'" in word or word.lower() in SELECTING for word in argv)

    def reset(self, profile):
        if any(not server.alive() for server in self.servers) or self.links is None:
            for server in self.servers:
                if not server.alive():
                    server.restart()
            self.connect()
        clean = [[b"DISCARD"], [b"UNWATCH"], [b"CLIENT", b"SETNAME", b""]]
        for link in (0, 1):
            self.both(link, clean)
        self.both(2, [[b"FLUSHALL"], [b"SCRIPT", b"FLUSH"], [b"FUNCTION", b"FLUSH"]])
        if profile != self.profile:
            self._configure(profile)

    def _configure(self, profile):
        """The limits of encodings, on the nodes."""
        for server in (self.servers[0], *self.proxied.members):
            conn = server.connect()
            for name, value in PROFILES[profile].items():
                reply = conn.call("CONFIG", "SET", name, value)
                if reply != ("+", b"OK"):
                    raise Mismatch("%s: CONFIG SET %s: %r" % (server.binary, name, reply))
            conn.close()
        self.profile = profile

    # ---- what may be refused

    def both(self, link, commands):
        oracle, subject = self.links[link]
        state = self.transactions[link]
        try:
            right = subject.pipeline(commands)
        except Disconnected as why:
            raise Mismatch("the proxy: %s\n%s" % (why, self._post_mortem(self.servers[1], commands))) from why
        sent, keep = [], []
        for argv, reply in zip(commands, right):
            refused = is_error(reply) and self._is_refusal(link, argv, reply)
            if refused and name_of(argv) != "SCAN":
                self.refused += 1
            if not refused or state.inside:
                keep.append(not refused)
                sent.append(argv if not refused else [b"GET"])
            else:
                keep.append(None)
            if not refused:
                state.saw(name_of(argv), argv, reply)
        try:
            replies = iter(oracle.pipeline(sent))
        except Disconnected as why:
            raise Mismatch("the oracle: %s" % why) from why
        left = []
        for kept, reply in zip(keep, right):
            said = next(replies) if kept is not None else None
            left.append(said if kept else reply)
        self.coverage.commands += len(commands)
        return [left, right]

    def _is_refusal(self, link, argv, reply):
        """Whether the proxy says no because of the shards; raises Mismatch when it should not have."""
        name, text = name_of(argv), reply[1]
        if text.startswith(b"CROSSSLOT"):
            slots = self._slots(link, argv)
            if self.proxied.one or len(slots) < 2 or (name in SPLIT and not self.transactions[link].inside):
                raise Mismatch("refused without a reason: %r %r, slots %r" % (argv, text, sorted(slots)))
            return True
        if self.proxied.one and (name != "SCAN" or not self.proxied.sharded):
            return False  # SCAN's cursor is the proxy's, but not inside EXEC
        return self.transactions[link].inside and text.endswith(b"is not possible inside MULTI through the proxy")

    def _slots(self, link, argv):
        state, slots = self.transactions[link], set()
        calls = [argv] + (state.calls if state.inside else []) + (state.watched if state.inside or name_of(argv) == "WATCH" else [])
        for call in calls:
            reply = self.links[2][0].call("COMMAND", "GETKEYS", *call)
            if not is_error(reply):
                slots |= {key_slot(key[1]) for key in reply[1]}
            if name_of(call) == "SPUBLISH":
                slots.add(key_slot(call[1]))
        return slots
