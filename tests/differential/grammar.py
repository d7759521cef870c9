"""The grammar: sequences of calls.  The generators of commands are in family_*.py, by what they work on; those of
transactions, databases and COMMAND, which take calls of others, are here.

A generator takes a Draw and returns either one argument vector or a list of steps (connection, argv).  Most
calls it makes are valid; a general mutation (drop, add or spoil an argument) makes erroneous ones of every
command.  Things that would make the two servers differ without either being wrong are avoided here:

* equal relative TTLs (Context.ttl), TTLs that run out while the sequence runs
* lexicographic ranges over members with different scores (the result depends on a skiplist's random levels):
  these commands come after a DEL and a ZADD of equal scores
* SORT BY .. ALPHA .. STORE, whose order among equals is not defined
* counts that would make a server reply without end
"""

import bisect
import importlib
import itertools
import pathlib

import arguments
import family_streams
import scope
from arguments import general, read_docs
from compare import name_of
from draw import DATABASES, JUNK, KEYS, Draw
from family_zsets import same_score
from registry import FAMILIES, GENERAL, SLEEP, TABLE, UNMUTATED, WEIGHT, command, simple

for family in sorted(pathlib.Path(__file__).parent.glob("family_*.py")):
    importlib.import_module(family.stem)  # registers its generators

simple("UNWATCH", "")
simple("ECHO", "v")
simple("DBSIZE", "")
simple("CLIENT|GETNAME", "", 2)


# ---- transactions, databases, connection, COMMAND


def inner(d, count):
    """Commands for the inside of a transaction."""
    out = []
    for _ in range(count):
        out += [argv for _, argv in steps_of(d, nested=True)]
    return out


@command("MULTI", 7)
def _multi(d):
    if d.chance(12):
        return [b"MULTI"]
    end = b"EXEC" if not d.chance(12) else b"DISCARD"
    return [(0, argv) for argv in [[b"MULTI"]] + inner(d, d.n(5)) + [[end]]]


@command("WATCH", 7)
def _watch(d):
    """A watched key that the other connection, the same one, or nobody touches before EXEC."""
    key = d.any_key()
    watch = [b"WATCH", key] + ([d.any_key()] if d.chance(30) else [])
    if d.chance(15):
        return watch
    touch = [b"SET", key, b"1"] if d.chance(30) else (inner(d, 1) or [[b"DEL", key]])[0]
    between = d.pick([[], [(1, touch)], [(0, touch)], [(1, [b"DEL", key])], [(1, touch), (0, [b"UNWATCH"])],
                      [(0, [b"PEXPIREAT", key, b"1"])]])  # fmt: skip
    if d.chance(7):
        between = [(1, d.pick([[b"FLUSHALL"], [b"SWAPDB", b"0", b"1"], [b"FLUSHDB"]]))]
    return [(0, watch)] + between + [(0, [b"MULTI"]), (0, [b"SET", d.key("s"), b"in"]), (0, [b"EXEC"])]


command("EXEC", 1)(lambda d: [b"EXEC"])


@command("DISCARD", 3)
def _discard(d):
    if d.chance(20):
        return [b"DISCARD"]
    return [(0, [b"MULTI"]), (0, [b"GET", d.key("s")]), (0, [b"DISCARD"])]


@command("SELECT", 3)
def _select(d):
    return [b"SELECT", d.pick(DATABASES[:1] * 9 + DATABASES + [b"15", b"16", b"-1", b"x", b"", b"99999999999"])]


@command("SWAPDB", 2)
def _swapdb(d):
    return [b"SWAPDB", d.pick(DATABASES + [b"16", b"x"]), d.pick(DATABASES + [b"-1", b"x"])]


@command("FLUSHDB", 1)
def _flushdb(d):
    return [b"FLUSHDB"] + d.pick([[], [b"ASYNC"], [b"sync"], [b"NOW"], [b"SYNC", b"ASYNC"]])


@command("FLUSHALL", 1)
def _flushall(d):
    return [b"FLUSHALL"] + d.pick([[], [b"ASYNC"], [b"sync"], [b"NOW"], [b"SYNC", b"ASYNC"]])


@command("PING", 2)
def _ping(d):
    return [b"PING"] + ([d.value()] if d.chance(50) else []) + ([b"x"] if d.chance(8) else [])


@command("CLIENT|SETNAME", 2)
def _setname(d):
    return [b"CLIENT", b"SETNAME", d.pick([b"one", b"two", b"", b"with space", b"new\nline", b"\xc3\xa9", b"x" * 64])]


def other_call(d):
    """A valid call of some command, as an argument of COMMAND GETKEYS."""
    name = d.pick(KEYED)
    made = TABLE[name](d)
    return made[-1][1] if made and isinstance(made[0], tuple) else made


@command("COMMAND|GETKEYS", 4)
def _getkeys(d):
    call = other_call(d) if not d.chance(8) else d.pick([[b"PING"], [b"nosuch"], [b"GET"]])
    return [b"COMMAND", b"GETKEYS"] + call


@command("COMMAND|GETKEYSANDFLAGS", 4)
def _getkeysandflags(d):
    call = other_call(d) if not d.chance(8) else d.pick([[b"PING"], [b"nosuch"], [b"SET"]])
    return [b"COMMAND", b"GETKEYSANDFLAGS"] + call


def some_names(d):
    names = [d.pick(NAMES) if not d.chance(8) else b"nosuch" for _ in range(1 + d.n(2))]
    return [name.lower() if d.chance(50) else name for name in names]


command("COMMAND|COUNT", 4)(lambda d: [b"COMMAND", b"COUNT"])
command("COMMAND|INFO", 4, mutate=False)(lambda d: [b"COMMAND", b"INFO"] + some_names(d))
command("COMMAND|DOCS", 3, mutate=False)(lambda d: [b"COMMAND", b"DOCS"] + some_names(d))

IN_FAMILIES = {name for names in FAMILIES.values() for name in names}
NAMES = sorted({name.split("|")[0].encode() for name in TABLE if " " not in name} | {b"OBJECT|ENCODING", b"COMMAND|INFO"})
KEYED = [name for name in TABLE if name.split("|")[0] not in
         ("MULTI", "EXEC", "DISCARD", "UNWATCH", "SELECT", "SWAPDB", "FLUSHDB", "FLUSHALL", "DBSIZE", "ECHO", "PING",
          "COMMAND", "CLIENT", "RANDOMKEY", "KEYS", "SCAN", "WATCH")]  # fmt: skip
NESTABLE = [name for name in TABLE if name not in ("MULTI", "EXEC", "DISCARD", "WATCH", "FLUSHALL", "SWAPDB")]


def chooser(names, table=TABLE):
    """What steps_of() chooses from: names, their accumulated weights, and the table of their generators."""
    return names, list(itertools.accumulate(WEIGHT[name] for name in names)), table


ANY = chooser([name for name in TABLE if name not in IN_FAMILIES])
NESTED = chooser([name for name in NESTABLE if name not in IN_FAMILIES])
# What else happens to the keys of a family.
AROUND = """DEL EXPIRE PERSIST COPY RENAME DUMP RESTORE TYPE OBJECT|ENCODING SET SADD SREM ZADD ZREM RPUSH HSET
MULTI EXEC"""


def family_chooser(family):
    """The family makes three quarters of what is chosen."""
    names, around = FAMILIES[family], AROUND.split()
    have, rest = sum(WEIGHT[name] for name in names), sum(WEIGHT[name] for name in around)
    weights = [WEIGHT[name] * rest * 3 for name in names] + [WEIGHT[name] * have for name in around]
    return names + around, list(itertools.accumulate(weights)), TABLE


def mutated(d, argv):
    """The call with one thing wrong: an argument dropped, added or spoilt, or the command's name."""
    how = d.n(8)
    if how == 0:
        return argv[: max(1, len(argv) - 1 - d.n(2))]
    if how == 1:
        return argv + [d.pick(JUNK)]
    if how == 2 and len(argv) > 1:
        at = 1 + d.n(len(argv) - 1)
        return argv[:at] + [argv[at]] + argv[at:]
    if how == 3 and len(argv) > 2:
        at = 1 + d.n(len(argv) - 1)
        return argv[:at] + argv[at + 1 :]
    if how == 4:
        return argv[:1]
    if len(argv) > 1:
        at = len(argv) - 1 - d.n(min(len(argv) - 1, 3))
        return argv[:at] + [d.pick(JUNK)] + argv[at + 1 :]
    return argv + [d.pick(JUNK)] if how < 7 else [argv[0] + b"x"]


def unwanted(argv, worse):
    """A mutation that would ask for every command there is, or for a lexicographic range of some other key."""
    name = argv[0].upper()
    if name == b"COMMAND":
        return len(worse) == 1 or (len(worse) == 2 and worse[1].upper() in (b"INFO", b"DOCS"))
    return (b"LEX" in name or name in (b"ZRANGE", b"ZRANGESTORE")) and worse[1:3] != argv[1:3]


def between(text, least, most):
    return text.isdigit() and least < int(text) < most


BITS_MAX = 1 << 32


def huge_field(argv):
    """A BITFIELD that makes a string of up to 512 MB."""
    for kind, offset in zip(argv[2:], argv[3:]):
        if kind[:1] in b"uiUI" and kind[1:].isdigit():
            width = int(kind[1:]) if offset[:1] == b"#" else 1
            digits = offset.lstrip(b"#")
            if digits.isdigit() and 1000000 < int(digits) * width < BITS_MAX:
                return True
    return False


def endless(argv):
    """A call that asks for a string of up to 512 MB or for random elements without end; never sent."""
    name = argv[0].upper()
    if family_streams.unsafe(argv):
        return True
    if name == b"SETRANGE" and len(argv) == 4:
        return between(argv[2], 100000, 536870911)
    if name == b"SETBIT" and len(argv) > 2:
        return between(argv[2], 1000000, BITS_MAX)
    if name in (b"BITFIELD", b"BITFIELD_RO"):
        return huge_field(argv)
    if name in (b"SRANDMEMBER", b"HRANDFIELD", b"ZRANDMEMBER") and len(argv) == 3:
        return argv[2].startswith(b"-") and len(argv[2]) > 4
    return False


# ---- calls made from descriptions

WAITS_LAST = (b"BLPOP", b"BRPOP", b"BZPOPMIN", b"BZPOPMAX", b"BLMOVE", b"BRPOPLPUSH")
WAITS_FIRST = (b"BLMPOP", b"BZMPOP")
# Their own generators know what not to do.
NOT_GENERAL = {"CLIENT|KILL", "RESTORE-ASKING", "LATENCY|HISTOGRAM", "COMMAND", "COMMAND|DOCS", "COMMAND|INFO"}


def careless(argv):
    """A general call that would wait, ask the network, or take away the rights of the run itself."""
    name = argv[0].upper()
    if name in WAITS_LAST:
        return argv[-1] not in arguments.TINY
    if name in WAITS_FIRST:
        return argv[1:2] and argv[1] not in arguments.TINY
    if name == b"WAIT":
        return len(argv) == 3 and argv[2] not in arguments.TINY
    if name == b"MIGRATE":
        return argv[1:3] != [b"127.0.0.1", b"1"]
    if name == b"ACL":
        return b"default" in argv
    return name == b"MULTI" or name_of(argv) in scope.EXEMPT or name_of(argv) in scope.DIALOGUE


def by_text(argv):
    """The sorted set that a call takes a lexicographic range of, or None."""
    name = argv[0].upper()
    if b"LEX" in name or (name in (b"ZRANGE", b"ZRANGESTORE") and b"BYLEX" in map(bytes.upper, argv)):
        at = 2 if name == b"ZRANGESTORE" else 1
        return argv[at] if len(argv) > at else None
    return None


def general_steps(described):
    make = general(described)

    def generate(d):
        argv = make(d)
        if careless(argv):
            return [b"PING"]
        key = by_text(argv)
        return argv if key is None else same_score(d, key) + [(0, argv)]

    return generate


def command_list(conn):
    """All commands, containers of subcommands left out."""
    names = {name[1].decode().upper() for name in conn.call("COMMAND", "LIST")[1]}
    return names - {name.split("|")[0] for name in names if "|" in name}


def learn(oracle, subject):
    """Fills the table of general generators, once, with what the subject describes of the commands that the oracle knows."""
    if GENERAL:
        return
    known = command_list(oracle.connect())
    for name, described in read_docs(subject.connect()).items():
        if name not in known or name in scope.EXEMPT or name in scope.DIALOGUE or name in NOT_GENERAL:
            continue
        GENERAL[name] = general_steps(described)
        WEIGHT.setdefault(name, 2)


def general_chooser():
    return list(GENERAL), list(range(1, len(GENERAL) + 1)), GENERAL


def spoilt(generate):
    """Calls that mostly have something wrong."""

    def made(d):
        argv = generate(d)
        steps = list(argv) if argv and isinstance(argv[0], tuple) else [(0, argv)]
        conn, last = steps[-1]
        worse = last if last[0] == SLEEP else mutated(d, last)
        if not unwanted(last, worse) and not careless(worse):
            steps[-1] = (conn, worse)
        return steps

    return made


def lacking_chooser(valid, wrong):
    """Of what has been called too seldom: both generators of these commands, three quarters of what is chosen; those in
    `wrong` lack erroneous calls.  The rest keeps keys there for them."""
    table = {}
    for name in valid:
        table.update({key: source[name] for key, source in ((name, TABLE), ("general " + name, GENERAL)) if name in source})
    for name in wrong:
        table[name] = TABLE[name]  # some fail only as they are
        if name in UNMUTATED:
            continue
        table.update({key + name: spoilt(source[name]) for key, source in (("wrong ", TABLE), ("wrong general ", GENERAL)) if name in source})
    names, around = list(table), AROUND.split()
    sums = list(itertools.accumulate([len(around) * 3] * len(names) + [len(names)] * len(around)))
    return names + around, sums, {**TABLE, **table}


def steps_of(d, nested=False, chosen=ANY):
    names, sums, table = NESTED if nested else chosen
    roll = (d.byte() << 8 | d.byte()) * sums[-1] >> 16
    name = names[bisect.bisect_right(sums, roll)]
    made = table[name](d)
    steps = list(made) if made and isinstance(made[0], tuple) else [(0, made)]
    if name not in UNMUTATED and d.chance(11) and steps[-1][1][0] != SLEEP:
        conn, argv = steps[-1]
        worse = mutated(d, argv)
        if not unwanted(argv, worse) and not (table is not TABLE and careless(worse)):
            steps[-1] = (conn, worse)
    if d.chance(4) and steps[-1][1][0] != SLEEP:
        conn, argv = steps[-1]
        steps[-1] = (conn, [argv[0].lower()] + argv[1:])
    if nested and steps[-1][1][0] == SLEEP:
        return []  # what runs out soon needs its pause, and a transaction has none
    return [step for step in steps if not endless(step[1])]


FILL_SIZES = (0, 4, 30, 130)  # elements; 0 starts with an empty keyspace


def fill(size):
    """Steps that give the keys of the pool something to hold."""
    if not size:
        return []
    count = range(size)
    kinds = [
        (KEYS["h"], lambda key: [b"HSET", key] + [arg for i in count for arg in (b"f%d" % i, b"%d" % (i * 3))]),
        (KEYS["l"], lambda key: [b"RPUSH", key] + [b"e%d" % (i % 30) for i in count]),
        (KEYS["t"][:1], lambda key: [b"SADD", key] + [b"%d" % i for i in count]),
        (KEYS["t"][1:], lambda key: [b"SADD", key] + [b"m%d" % i for i in count]),
        (KEYS["z"], lambda key: [b"ZADD", key] + [arg for i in count for arg in (b"%d" % (i % 9), b"m%d" % i)]),
        (KEYS["s"][:1], lambda key: [b"SET", key, b"%d" % size]),
        (KEYS["s"][1:], lambda key: [b"SET", key, b"x" * size]),
        (KEYS["x"], lambda key: [b"XGROUP", b"CREATE", key, b"g1", b"0", b"MKSTREAM"]),
    ]
    return [(0, make(key)) for keys, make in kinds for key in keys[:2]]


def sequence(blocks, context, size=0, chosen=ANY):
    """All steps (connection, argv) of one test sequence that starts with collections of `size` elements."""
    out = fill(size)
    for block in blocks:
        d = Draw(block, context)
        other = d.byte() >= 240
        for conn, argv in steps_of(d, chosen=chosen):
            out.append((conn ^ other, argv))
    return out


def payload_sources():
    """Commands that make values of every kind, whose DUMPs are the material of RESTORE."""
    many = range(600)
    return [
        (b"p1", [b"SET", b"p1", b"12345"]),
        (b"p2", [b"SET", b"p2", b"hello"]),
        (b"p3", [b"SET", b"p3", b"compressible " * 100]),
        (b"p4", [b"RPUSH", b"p4"] + [b"a", b"12", b"-70000", b"x" * 70]),
        (b"p5", [b"RPUSH", b"p5"] + [b"e%d" % i * 10 for i in many]),
        (b"p6", [b"SADD", b"p6"] + [b"1", b"2", b"300", b"-5"]),
        (b"p7", [b"SADD", b"p7"] + [b"1", b"9223372036854775807", b"70000"]),
        (b"p8", [b"SADD", b"p8"] + [b"a", b"b", b"3"]),
        (b"p9", [b"HSET", b"p9"] + [b"f1", b"v1", b"f2", b"7"]),
        (b"p10", [b"HSET", b"p10"] + [arg for i in many for arg in (b"f%d" % i, b"v")]),
        (b"p11", [b"ZADD", b"p11"] + [b"1", b"m1", b"2.5", b"m2", b"-inf", b"m3"]),
        (b"p12", [b"ZADD", b"p12"] + [arg for i in many for arg in (b"%d.25" % i, b"m%d" % i)]),
        (b"p13", [b"HSET", b"p13", b"f", b"v" * 100]),
        (b"p14", [b"ZADD", b"p14", b"1", b"m" * 100]),
        *family_streams.PAYLOADS,
    ]
