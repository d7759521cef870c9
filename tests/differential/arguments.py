"""The general generator: calls of any command, built from the description of its arguments (COMMAND DOCS).

It knows nothing of what a command does, only the types and names of arguments.  So it makes what nobody thought of:
options in any combination and number, in any case, of any value.  What the families' own generators know (which IDs,
scores, encodings are interesting) is theirs."""

from draw import DATABASES, FAR, INTS, JUNK, NOT_INTS, WORDS
from registry import number

KINDS = {"string": "s", "bitmap": "s", "hyperloglog": "s", "hash": "h", "list": "l", "set": "t", "sorted-set": "z",
         "geo": "z", "stream": "x"}  # fmt: skip
TINY = [b"0.001", b"1e-3", b"x", b"-1"]
STREAM_IDS = [b"0", b"0-0", b"1-1", b"2", b"5-3", b"9-9", b"$", b">", b"-", b"+", b"(1-1", b"x"]


class Key(bytes):
    """An argument that names a key, until the number of keys before it is known."""


class KeyCount(bytes):
    """Stands for the number of the keys behind it."""


class Argument:
    """What one entry of "arguments" says."""

    def __init__(self, facts):
        self.name = facts[b"name"].decode()
        self.type = facts[b"type"].decode()
        self.token = facts.get(b"token")
        self.flags = set(facts.get(b"flags", []))
        self.parts = [Argument(part) for part in facts.get(b"arguments", [])]


def plain(reply):
    """A reply in RESP2 as Python values; lists of names and values under "arguments" and commands become dictionaries."""
    kind, value = reply
    if kind != "*":
        return value
    return [plain(part) for part in value or []]


def as_facts(items):
    facts = dict(zip(items[::2], items[1::2]))
    if b"arguments" in facts:
        facts[b"arguments"] = [as_facts(part) for part in facts[b"arguments"]]
    return facts


class Described:
    """A command: its words, the kind of key it likes, its arguments."""

    def __init__(self, name, facts):
        self.words = [word.upper() for word in name.split(b"|")]
        self.kind = KINDS.get(facts.get(b"group", b"").decode())
        self.arguments = [Argument(part) for part in facts.get(b"arguments", [])]


def read_docs(conn):
    """{NAME: Described} of every command that the server at the end of a RESP2 connection describes."""
    found = {}

    def add(items):
        for name, doc in zip(items[::2], items[1::2]):
            facts = dict(zip(doc[::2], doc[1::2]))
            add(facts.pop(b"subcommands", []))
            facts = as_facts(doc)
            found[name.decode().upper()] = Described(name, facts)

    add(plain(conn.call("COMMAND", "DOCS")))
    return found


# ---- values, by the names that commands give their arguments


def member(d):
    return d.member()


def stream_id(d):
    return d.pick(STREAM_IDS) if d.chance(50) else b"%d-%d" % (d.n(30), d.n(3))


def ttl(scale):
    return lambda d: number(d.context.ttl() * scale) if not d.chance(15) else d.pick([b"0", b"-1"] + INTS[-2:] + NOT_INTS)


def small(d):
    return number(d.n(20) - 3) if not d.chance(20) else d.int_arg()


NAMED = {
    "seconds": ttl(1),
    "milliseconds": lambda d: b"1",  # what waits is put right by Builder.value()
    "ttl": lambda d: b"0" if d.chance(60) else number(d.context.ttl() * 1000),
    "unix-time-seconds": lambda d: number(d.pick(FAR)),
    "unix-time-milliseconds": lambda d: number(d.pick(FAR) * 1000),
    "timeout": lambda d: d.pick(TINY),
    "field": lambda d: d.field(),
    "member": member,
    "element": member,
    "pivot": member,
    "start": small,
    "stop": small,
    "end": small,
    "index": small,
    "offset": small,
    "count": small,
    "rank": small,
    "num-matches": small,
    "len": small,
    "increment": lambda d: d.int_arg(),
    "min": lambda d: d.score_bound() if d.chance(75) else d.lex_bound(),
    "max": lambda d: d.score_bound() if d.chance(75) else d.lex_bound(),
    "score": lambda d: d.score(),
    "weight": lambda d: d.score(),
    "id": stream_id,
    "start_id": stream_id,
    "lastid": stream_id,
    "last-id": stream_id,
    "threshold": lambda d: d.pick([b"0", b"1", b"5", b"100", b"2-1"]),
    "group": lambda d: d.pick([b"g1", b"g2", b"nosuch"]),
    "consumer": lambda d: d.pick([b"ann", b"bob", b""]),
    "min-idle-time": lambda d: d.pick([b"0", b"1000000000", b"x"]),
    "ms": lambda d: d.pick([b"0", b"5000", b"x"]),
    "longitude": lambda d: d.pick([b"2.35", b"2.36", b"13.361389", b"-122.4", b"180", b"181", b"x"]),
    "latitude": lambda d: d.pick([b"48.85", b"48.86", b"38.115556", b"37.8", b"85.05112878", b"86"]),
    "radius": lambda d: d.pick([b"0", b"1", b"100", b"1e6", b"-1", b"x"]),
    "width": lambda d: d.pick([b"0", b"1", b"100", b"1e6", b"-1"]),
    "height": lambda d: d.pick([b"0", b"1", b"100", b"1e6", b"x"]),
    "bit": lambda d: d.pick([b"0", b"1", b"1", b"2"]),
    "encoding": lambda d: d.pick([b"u8", b"i16", b"u63", b"i64", b"u64", b"x"]),
    "db": lambda d: d.pick(DATABASES),
    "destination-db": lambda d: d.pick(DATABASES),
    "cursor": lambda d: d.pick([b"0", b"0", b"0", b"7", b"x"]),
    "pattern": lambda d: d.pick([b"*", b"s*", b"?1*", b"h1*", b"m*", b"[a-s]*", b"*{a}", b"#", b"h1{a}->f*"]),
    "subcommand": lambda d: d.pick([b"get", b"config|get", b"help", b"nosuch", b"encoding"]),
    "command": lambda d: d.pick([b"GET", b"set", b"zadd", b"config|get", b"nosuch"]),
    "command-name": lambda d: d.pick([b"get", b"config|get", b"mset", b"nosuch", b"object"]),
    "channel": lambda d: d.pick([b"c1", b"c2", b"{a}c", b""]),
    "shardchannel": lambda d: d.pick([b"{a}c", b"{a}d", b"c1"]),
    "username": lambda d: d.pick([b"default", b"ann", b"bob", b"nosuch"]),
    "category": lambda d: d.pick([b"read", b"@write", b"string", b"nosuch"]),
    "host": lambda d: b"127.0.0.1",
    "port": lambda d: b"1",
    "event": lambda d: d.pick([b"command", b"fork", b"nosuch"]),
    "slot": lambda d: d.pick([b"0", b"5", b"16383", b"16384", b"-1", b"x", b"15495"]),
    "node-id": lambda d: d.pick([b"0" * 40, b"x", b""]),
    "script": lambda d: d.pick([b"return 1", b"return KEYS[1]", b"return redis.call('get', KEYS[1])", b"nonsense(", b"return ARGV"]),
    "sha1": lambda d: d.pick([b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db", b"0" * 40, b"x"]),
    "clienttype": lambda d: d.pick([b"normal", b"nosuch"]),
}  # fmt: skip


class Builder:
    """Builds one call."""

    def __init__(self, d, command):
        self.d, self.command = d, command
        self.last_count = 1

    def call(self):
        words = list(self.command.words)
        if len(words) == 1 and self.d.chance(15):
            words[0] = words[0].lower()
        return counted(words + self.row(self.command.arguments))

    def row(self, arguments):
        """Arguments that follow each other; options (those behind each other) sometimes in another order."""
        made = []
        for argument in arguments:
            if b"optional" in argument.flags and not self.d.chance(40):
                continue
            made.append((argument, self.argument(argument)))
        if len(made) > 1 and made[-1][0].token and made[-2][0].token and self.d.chance(25):
            made[-1], made[-2] = made[-2], made[-1]
        if made and made[-1][0].token and self.d.chance(5):
            made.append(made[-1])
        return [word for _, words in made for word in words]

    def argument(self, argument):
        count = 1
        if b"multiple" in argument.flags:
            count = self.last_count if argument.name in ("id", "weight") else 1 + self.d.n(3)
            if not self.d.chance(97):
                count += 1
            self.last_count = count
        token = [] if argument.token is None else [self.d.option(argument.token)]
        if b"multiple_token" in argument.flags:
            return [word for _ in range(count) for word in token + self.body(argument)]
        return token + [word for _ in range(count) for word in self.body(argument)]

    def body(self, argument):
        if argument.type == "oneof":
            return self.argument(self.d.pick(argument.parts))
        if argument.type == "block":
            return self.row(argument.parts)
        if argument.type == "pure-token":
            return []
        return [self.value(argument)]

    def value(self, argument):
        d = self.d
        if argument.type == "key":
            return Key(d.key(self.command.kind) if self.command.kind and not d.chance(15) else d.any_key())
        if argument.name == "numkeys":
            return KeyCount(b"" if not d.chance(7) else d.pick([b"0", b"-1", b"9", b"x"]))
        if d.chance(4):
            return d.pick(JUNK)
        if argument.name == "milliseconds" and self.command.words[0] not in (b"XREAD", b"XREADGROUP"):
            return ttl(1000)(d)
        if argument.name == "increment" and argument.type == "double":
            return d.float_arg()
        if argument.name in NAMED:
            return NAMED[argument.name](d)
        if argument.type == "integer":
            return small(d)
        if argument.type == "double":
            return d.float_arg()
        if argument.type == "unix-time":
            return number(d.pick(FAR))
        return d.pick(WORDS) if d.chance(30) else d.value()


def counted(words):
    """Puts the number of keys where it belongs."""
    for at, word in enumerate(words):
        if isinstance(word, KeyCount) and not word:
            end = at + 1
            while end < len(words) and isinstance(words[end], Key):
                end += 1
            words[at] = number(end - at - 1)
    return [bytes(word) for word in words]


def general(described):
    """A generator as those in the table."""
    return lambda d: Builder(d, described).call()
