"""The differential test of what changes the conversation: subscriptions and their messages, client side caching, protocols,
users, RESET, the ends of connections.  Here replies are not one to each command, so the steps go one by one: after each
every connection is asked for a sign, and what it received before that sign is compared.

Messages and invalidations may come in between of replies, a little later, and those of one step in any order; replies
must come in their order.  DIALOGUE_EXAMPLES=100: sequences for each mode.  COVEY_TEST_SEED repeats a run."""

import os
import random
import re
import time
from collections import Counter

import pytest

import scope
from compare import name_of
from resp import Connection, Disconnected, is_error
from runner import EARLY, quoted
from sequences import base_seed, how_many, long_run
from servers import PATIENCE, both

EXAMPLES = int(os.environ.get("DIALOGUE_EXAMPLES", 0)) or how_many(1000, 100)
VALID_MIN, ERROR_MIN = (n if long_run() else n // 20 for n in (scope.VALID_FULL, scope.ERROR_FULL))
CONNECTIONS, STEPS = 3, 40
LATE_SECONDS = 2
COUNTS = {}
RUNS = set()

KEYS = [b"a1{a}", b"a2{a}", b"b1{a}", b"a1{a}"]
CHANNELS = [b"c1", b"c2", b"{a}c", b"news.\xff", b""]
PATTERNS = [b"c*", b"*", b"c?", b"[n]*", b"nosuch"]
SHARDED = [b"{a}c", b"{a}d", b"{a}c", b"c1"]
PREFIXES = [b"a", b"b", b"a1", b""]
NAMES_OF_IDS = (b"id", b"redirect")
MESSAGES = (b"message", b"pmessage", b"smessage")
USERS = [
    [b"ACL", b"SETUSER", b"ann", b"on", b">secret", b"allkeys", b"allchannels", b"+@all"],
    [b"ACL", b"SETUSER", b"bob", b"on", b"nopass", b"~a*", b"resetchannels", b"&c1", b"+@all", b"-config"],
]


# ---- the steps


def names(rng, pool, none=0):
    return [] if rng.random() < none else [rng.choice(pool) for _ in range(1 + rng.randrange(3))]


def tracking(rng):
    options = []
    for _ in range(rng.randrange(4)):
        options += rng.choice([[b"BCAST"], [b"PREFIX", rng.choice(PREFIXES)], [b"NOLOOP"], [b"OPTIN"], [b"optout"],
                               [b"REDIRECT", rng.choice([b"@id0", b"@id1", b"@id2", b"9999999", b"x"])], [b"NOSUCH"]])  # fmt: skip
    if rng.random() < 0.5:
        options = rng.choice([[], [b"BCAST"], [b"OPTIN"], [b"OPTOUT"], [b"NOLOOP"], [b"BCAST", b"PREFIX", b"a"]])
    return [b"CLIENT", b"TRACKING", rng.choice([b"ON", b"on", b"on", b"ON", b"off", b"maybe"])] + options


def hello(rng):
    version = rng.choice([[], [b"2"], [b"3"], [b"3"], [b"4"], [b"x"]])
    more = rng.choice([[], [], [], [b"AUTH", b"ann", b"secret"], [b"AUTH", b"ann", b"wrong"], [b"SETNAME", b"me"], [b"SETNAME", b"a b"],
                       [b"AUTH"], [b"NOSUCH"], [b"AUTH", b"default", b"any"], [b"AUTH", b"bob", b"x", b"SETNAME", b"you"]])  # fmt: skip
    return [b"HELLO"] + version + (more if version else [])


def auth(rng):
    return [b"AUTH"] + rng.choice([[b"ann", b"secret"], [b"bob", b"any"], [b"ann", b"wrong"], [b"nosuch", b"x"], [b"default", b"x"],
                                   [b"any"], [b"ann", b"secret", b"x"], []])  # fmt: skip


def data(rng):
    key = rng.choice(KEYS)
    return rng.choice([[b"GET", key], [b"GET", key], [b"SET", key, b"v"], [b"INCR", b"n{a}"], [b"DEL", key], [b"MGET", key, b"b1{a}"],
                       [b"EXPIRE", key, b"-1"], [b"APPEND", key, b"x"], [b"LPUSH", key, b"x"], [b"FLUSHALL"], [b"ECHO", b"x"],
                       [b"PING"], [b"RENAME", key, b"a2{a}"]])  # fmt: skip


STEPS_MADE = [
    (6, lambda rng: [b"SUBSCRIBE"] + names(rng, CHANNELS, 0.04)),
    (4, lambda rng: [b"PSUBSCRIBE"] + names(rng, PATTERNS, 0.04)),
    (5, lambda rng: [b"SSUBSCRIBE"] + names(rng, SHARDED, 0.04)),
    (3, lambda rng: [b"UNSUBSCRIBE"] + names(rng, CHANNELS, 0.3)),
    (3, lambda rng: [b"PUNSUBSCRIBE"] + names(rng, PATTERNS, 0.3)),
    (3, lambda rng: [b"SUNSUBSCRIBE"] + names(rng, SHARDED, 0.3)),
    (8, lambda rng: [b"PUBLISH", rng.choice(CHANNELS), b"%d" % rng.randrange(100)]),
    (5, lambda rng: [b"SPUBLISH", rng.choice(SHARDED), b"%d" % rng.randrange(100)]),
    (2, lambda rng: [b"PUBSUB", rng.choice([b"NUMPAT", b"NUMSUB"])]),
    (2, lambda rng: [b"PUBSUB", rng.choice([b"NUMSUB", b"SHARDNUMSUB"])] + names(rng, CHANNELS)),
    (10, tracking),
    (2, lambda rng: [b"CLIENT", b"CACHING", rng.choice([b"YES", b"no", b"maybe"])]),
    (2, lambda rng: [b"CLIENT", rng.choice([b"TRACKINGINFO", b"GETREDIR", b"GETNAME"])]),
    (7, hello),
    (4, auth),
    (5, lambda rng: [b"RESET"] + ([b"x"] if rng.random() < 0.1 else [])),
    (24, data),
    (2, lambda rng: [b"QUIT"]),
    (1, lambda rng: [b"CLIENT", b"KILL", b"ID", rng.choice([b"@id0", b"@id1", b"@id2"])]),
]


def make(rng):
    """[(connection, [command, ...]), ...]: several commands are a transaction, sent at once."""
    weights, makers = zip(*STEPS_MADE)
    out = []
    for _ in range(STEPS):
        link = rng.choice([0, 0, 1, 1, 2])
        argv = rng.choices(makers, weights)[0](rng)
        if rng.random() < 0.05 and argv[0] not in (b"QUIT", b"RESET", b"HELLO"):
            out.append((link, [[b"MULTI"], argv, data(rng), [b"EXEC"]]))
        else:
            out.append((link, [argv]))
    return out


# ---- the two sides


class Side:
    """A server and connections to it that may end."""

    def __init__(self, server):
        self.server = server
        self.links, self.ids = [], []
        self.opened = []  # the IDs of all connections of a dialogue, those that have ended too
        self.signs = 0

    def start(self):
        for link in self.links:
            link.close()
        self.links, self.ids, self.opened = [None] * CONNECTIONS, [None] * CONNECTIONS, []
        admin = self.server.connect()
        for argv in [[b"FLUSHALL"], *USERS]:
            assert admin.pipeline([argv])[0] == ("+", b"OK")
        admin.close()
        for at in range(CONNECTIONS):
            self.open(at)

    def open(self, at):
        self.links[at] = Connection(("127.0.0.1", self.server.port), timeout=10 * PATIENCE)
        self.ids[at] = self.links[at].call("CLIENT", "ID")[1]
        self.opened.append(self.ids[at])

    def send(self, at, commands):
        self.links[at].send([[self.own(word) for word in argv] for argv in commands])

    def own(self, word):
        return b"%d" % self.ids[int(word[3:])] if re.fullmatch(rb"@id\d", word) else word

    def plain(self, reply, named=False):
        """IDs of clients as the numbers in which they were opened; named: it stands behind a word that says so."""
        if reply[0] == ":":
            return (":", self.opened.index(reply[1])) if named and reply[1] in self.opened else reply
        if reply[0] == "%":
            return "%", [(key, self.plain(value, names_id(key))) for key, value in reply[1]]
        if reply[0] in "*>" and reply[1]:
            words = [("$", None), *reply[1]]
            return reply[0], [self.plain(part, names_id(before)) for before, part in zip(words, reply[1])]
        return reply

    def receive(self, at, redirected=False):
        """(replies, messages) up to a sign; None at the end of both is a closed connection.  redirected: the reply is an ID."""
        self.signs += 1
        sign = b"sign %d" % self.signs
        replies, messages = [], []
        try:
            self.links[at].send([[b"PING", sign]])
            while True:
                reply = self.links[at].receive(1)[0]
                if reply in (("$", sign), ("*", [("$", b"pong"), ("$", sign)])):
                    return replies, messages
                (messages if is_message(reply) else replies).append(self.plain(reply, redirected))
        except Disconnected:
            replies.append(None)
            self.links[at].close()
            self.open(at)
            return replies, messages


def names_id(reply):
    return reply[0] in "$+" and reply[1] in NAMES_OF_IDS


def is_message(reply):
    if reply[0] not in ">*" or not reply[1] or reply[1][0][0] != "$":
        return False
    return reply[1][0][1] in (*MESSAGES, b"invalidate", b"tracking-redir-broken")


def settled(messages):
    """Messages in any order; invalidations by the key, however they were put together."""
    out = Counter()
    for message in messages:
        parts = message[1]
        kind, rest = parts[0][1], parts[-1]
        if kind == b"invalidate" or (kind == b"message" and parts[1][1] == b"__redis__:invalidate"):
            keys = rest[1] if rest[0] == "*" and rest[1] is not None else [None]
            out.update((message[0], b"invalidate", repr(key)) for key in keys)
        elif kind == b"tracking-redir-broken":  # and the ID of who is gone
            out[message[0], kind] += 1
        else:
            out[repr(message)] += 1
    return out


def replies_of(replies, commands):
    """What is unsubscribed without names comes in no order; the counts tell how many are left."""
    if any(argv == [b"MULTI"] for argv in commands):
        replies = [part for reply in replies for part in (reply[1] if reply and reply[0] == "*" and reply[1] else [reply])]
    bare = any(argv[0].endswith(b"UNSUBSCRIBE") and len(argv) == 1 or argv[0] == b"RESET" for argv in commands)
    return sorted(map(repr, (unnumbered(reply) for reply in replies))) if bare else replies


def unnumbered(reply):
    if reply and reply[0] in ">*" and reply[1] and len(reply[1]) == 3 and reply[1][2][0] == ":":
        return reply[0], reply[1][:2]
    return reply


def count(commands, replies):
    for argv, reply in zip(commands, replies):
        if len(commands) > 1 or reply is None:
            return
        row = COUNTS.setdefault(name_of(argv), Counter())
        early = is_error(reply) and any(text in reply[1] for text in EARLY)
        row["rejected" if early else "failed" if is_error(reply) else "valid"] += 1


def difference(sides, steps, counting=False):
    """None, or the first difference as text."""
    for side in sides:
        side.start()
    for number, (link, commands) in enumerate(steps):
        where = "at step %d, connection %d: %s" % (number, link, " ".join(map(quoted, commands[0])))
        for side in sides:
            side.send(link, commands)
        # The connection that speaks first: its sign says that the commands are done.
        for at in [link] + [other for other in range(CONNECTIONS) if other != link]:
            (one, heard), (two, heard2) = (side.receive(at, [b"CLIENT", b"GETREDIR"] in commands) for side in sides)
            deadline = time.monotonic() + LATE_SECONDS
            while settled(heard) != settled(heard2) and time.monotonic() < deadline:
                time.sleep(0.002)
                for side, got in zip(sides, (heard, heard2)):
                    got += side.receive(at)[1]
            mine = commands if at == link else []
            if replies_of(one, mine) != replies_of(two, mine):
                return "%s; connection %d:\n  oracle:  %r\n  subject: %r" % (where, at, one, two)
            if settled(heard) != settled(heard2):
                return "%s; messages to connection %d:\n  oracle:  %r\n  subject: %r" % (where, at, heard, heard2)
            if counting and at == link and one:
                count(commands, one)
    return None


def reduced(sides, steps, why):
    deadline, size = time.monotonic() + 30, len(steps) // 2
    while size and time.monotonic() < deadline:
        at = 0
        while at < len(steps) and time.monotonic() < deadline:
            fewer = steps[:at] + steps[at + size :]
            found = difference(sides, fewer)
            if found:
                steps, why = fewer, found
            else:
                at += size
        size //= 2
    return steps, why


@pytest.fixture(scope="module", params=[False, True], ids=["standalone", "cluster"])
def sides(request):
    with both(cluster=request.param) as pair:
        yield [Side(server) for server in pair]


@pytest.mark.sanitizer
def test_dialogues(sides):
    for number in range(EXAMPLES):
        seed = base_seed() * 1000003 + number * 2 + sides[0].server.cluster
        steps = make(random.Random(seed))
        why = difference(sides, steps, counting=True)
        if why:
            steps, why = reduced(sides, steps, why)
            lines = "\n".join("%d: %s" % (link, " | ".join(" ".join(map(quoted, argv)) for argv in commands))
                              for link, commands in steps)  # fmt: skip
            pytest.fail("seed %d: %s\n%s" % (seed, why, lines), pytrace=False)
    RUNS.add(sides[0].server.cluster)


def test_coverage(capsys):
    """Last: every command that only dialogues can have was exercised."""
    with capsys.disabled():
        print()
        for name in sorted(scope.DIALOGUE):
            row = COUNTS.get(name, Counter())
            print("%-24s %7d %6d %6d" % (name, row["valid"], row["failed"], row["rejected"]))
    if RUNS != {False, True}:
        pytest.skip("only judged when both modes ran to the end")  # by hand; in ./run test a skip counts as a failure
    poor = []
    for name in sorted(scope.DIALOGUE):
        row = COUNTS.get(name, Counter())
        if row["valid"] < VALID_MIN or (row["failed"] + row["rejected"] < ERROR_MIN and name not in scope.NO_ERROR):
            poor.append("%s: %d valid and %d erroneous calls" % (name, row["valid"], row["failed"] + row["rejected"]))
    assert not poor, "\n".join(poor)
