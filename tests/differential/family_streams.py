"""Generators: streams and their consumer groups.

Ids are explicit ("5-*" leaves the sequence number open), since "*" is each server's own clock.  What depends on the
time that has passed (minimal idle times) is either always or never fulfilled.  Nothing waits: BLOCK is 1 ms."""

from draw import INTS, KEYS, NOT_INTS
from registry import command, number

FAMILY = "streams"
GROUPS = [b"g1", b"g1", b"g1", b"g1", b"g1", b"g2"]
CONSUMERS = [b"ann", b"bob", b"ann", b"bob", b"ann", b"bob", b"c\x00\xff", b""]
LONG_AGO, NEVER_IDLE = b"1000", b"1000000000"
BAD_IDS = [b"", b"-", b"+", b"x", b"1-x", b"-1", b"1-", b"(1", b"18446744073709551616", b"1-*", b"$", b">"]
EXTREME_IDS = [b"0", b"0-0", b"0-1", b"18446744073709551615-18446744073709551615", b"18446744073709551615",
               b"1-18446744073709551615", b"007", b"+3"]  # fmt: skip


def stream(d):
    return KEYS["x"][d.byte() & 1] if not d.chance(15) else d.key("x")


def group(d):
    return d.pick(GROUPS)


def consumer(d):
    return d.pick(CONSUMERS)


def clock(d):
    """Grows, so that most additions are valid."""
    d.context.stream_ms = getattr(d.context, "stream_ms", 0) + 1
    return d.context.stream_ms // 2


def an_id(d):
    """Of an entry that may be there."""
    roll = d.byte()
    if roll < 170:
        return b"%d-%d" % (d.n(clock(d) + 1), d.n(3))
    if roll < 225:
        return b"%d" % d.n(clock(d) + 1)
    return d.pick(EXTREME_IDS) if roll < 248 else d.pick(BAD_IDS)


def bound(d, edge):
    roll = d.byte()
    if roll < 110:
        return edge
    return b"(" + an_id(d) if roll < 150 else an_id(d)


def fields(d):
    how = d.n(10)
    if how < 4:
        return [b"a", d.value()]
    if how < 7:
        return [b"a", d.value(), b"b", d.value()]
    return [arg for _ in range(1 + d.n(3)) for arg in (d.field(), d.value())] if how < 9 else [d.field()]


def trim(d):
    exact = [b"="] if d.chance(30) else []
    loose = [b"~"] if d.chance(45) else exact
    limit = [d.option(b"LIMIT"), d.pick([b"0", b"1", b"5", b"100", b"-1", b"x"])] if d.chance(15) else []
    if d.chance(45):
        return [d.option(b"MINID")] + loose + [an_id(d)] + limit
    length = d.pick([b"0", b"1", b"3", b"10", b"50", b"1000"]) if not d.chance(8) else d.pick([b"-1", b"x", *INTS[-2:]])
    return [d.option(b"MAXLEN")] + loose + [length] + limit


@command("XADD", 30, family=FAMILY)
def _xadd(d):
    options = (trim(d) if d.chance(20) else []) + ([d.option(b"NOMKSTREAM")] if d.chance(6) else [])
    roll, now = d.byte(), clock(d)
    if roll < 190:
        entry_id = b"%d-*" % now
    else:
        entry_id = b"%d-%d" % (now, d.n(3)) if roll < 235 else an_id(d)
    add = [b"XADD", stream(d)] + options + [entry_id] + fields(d)
    if d.chance(5):  # past the ends of a node
        text = d.text(300)
        key = stream(d)
        return [(0, [b"XADD", key, b"%d-%d" % (now, 10 + i), b"a", text if i % 3 else b"%d" % i]) for i in range(130)]
    return add


@command("XTRIM", 5, family=FAMILY)
def _xtrim(d):
    return [b"XTRIM", stream(d)] + trim(d)


@command("XDEL", 10, family=FAMILY)
def _xdel(d):
    return [b"XDEL", stream(d)] + [an_id(d) for _ in range(1 + d.n(4))]


command("XLEN", 4, family=FAMILY)(lambda d: [b"XLEN", stream(d)])


def count(d, chance=50):
    if not d.chance(chance):
        return []
    return [d.option(b"COUNT"), d.pick([b"1", b"2", b"3", b"10", b"0", b"-1"]) if not d.chance(6) else b"x"]


@command("XRANGE", 8, family=FAMILY)
def _xrange(d):
    return [b"XRANGE", stream(d), bound(d, b"-"), bound(d, b"+")] + count(d)


@command("XREVRANGE", 8, family=FAMILY)
def _xrevrange(d):
    return [b"XREVRANGE", stream(d), bound(d, b"+"), bound(d, b"-")] + count(d)


@command("XSETID", 4, family=FAMILY)
def _xsetid(d):
    new = b"%d-%d" % (clock(d), d.n(5)) if not d.chance(20) else an_id(d)
    added = [d.option(b"ENTRIESADDED"), d.pick([b"0", b"5", b"1000", b"-1", b"x"])] if d.chance(30) else []
    deleted = [d.option(b"MAXDELETEDID"), an_id(d)] if d.chance(30) else []
    return [b"XSETID", stream(d), new] + added + deleted


def group_id(d):
    return d.pick([b"$", b"0", b"0"]) if not d.chance(25) else an_id(d)


def entries_read(d):
    return [d.option(b"ENTRIESREAD"), d.pick([b"0", b"2", b"50", b"-1", b"-2", b"x"])] if d.chance(15) else []


@command("XGROUP|CREATE", 18, family=FAMILY)
def _create(d):
    options = ([d.option(b"MKSTREAM")] if not d.chance(25) else []) + entries_read(d)
    return [b"XGROUP", d.option(b"CREATE"), stream(d), group(d), group_id(d)] + options


@command("XGROUP|SETID", 6, family=FAMILY)
def _setid(d):
    return [b"XGROUP", b"SETID", stream(d), group(d), group_id(d)] + entries_read(d)


command("XGROUP|DESTROY", 4, family=FAMILY)(lambda d: [b"XGROUP", b"DESTROY", stream(d), group(d)])
command("XGROUP|CREATECONSUMER", 6, family=FAMILY)(
    lambda d: [b"XGROUP", b"CREATECONSUMER", stream(d), group(d), consumer(d)])  # fmt: skip
command("XGROUP|DELCONSUMER", 5, family=FAMILY)(
    lambda d: [b"XGROUP", b"DELCONSUMER", stream(d), group(d), consumer(d)])  # fmt: skip
command("XGROUP|HELP", 2, family=FAMILY)(lambda d: [b"XGROUP", b"HELP"] + ([b"x"] if d.chance(25) else []))
command("XINFO|HELP", 2, family=FAMILY)(lambda d: [b"XINFO", b"HELP"] + ([b"x"] if d.chance(25) else []))


@command("XINFO|STREAM", 8, family=FAMILY)
def _info_stream(d):
    full = [d.option(b"FULL")] + count(d, 40) if d.chance(60) else []
    return [b"XINFO", b"STREAM", stream(d)] + full


command("XINFO|GROUPS", 8, family=FAMILY)(lambda d: [b"XINFO", b"GROUPS", stream(d)])
command("XINFO|CONSUMERS", 6, family=FAMILY)(lambda d: [b"XINFO", b"CONSUMERS", stream(d), group(d)])


def block(d):
    return [d.option(b"BLOCK"), b"1"] if d.chance(3) else []


@command("XREAD", 8, family=FAMILY)
def _xread(d):
    keys = [stream(d) for _ in range(1 + d.n(3))]
    ids = [an_id(d) if not d.chance(12) else b"$" for _ in keys]
    return [b"XREAD"] + count(d) + block(d) + [d.option(b"STREAMS")] + keys + ids


@command("XREADGROUP", 20, family=FAMILY)
def _xreadgroup(d):
    keys = [stream(d) for _ in range(1 + d.n(2))]
    ids = [b">" if not d.chance(30) else d.pick([b"0", an_id(d)]) for _ in keys]
    noack = [d.option(b"NOACK")] if d.chance(15) else []
    head = [b"XREADGROUP", d.option(b"GROUP"), group(d), consumer(d)]
    return head + count(d, 70) + block(d) + noack + [b"STREAMS"] + keys + ids


@command("XACK", 8, family=FAMILY)
def _xack(d):
    return [b"XACK", stream(d), group(d)] + [an_id(d) for _ in range(1 + d.n(5))]


@command("XPENDING", 10, family=FAMILY)
def _xpending(d):
    head = [b"XPENDING", stream(d), group(d)]
    if d.chance(30):
        return head
    idle = [d.option(b"IDLE"), d.pick([b"0", NEVER_IDLE, b"x"])] if d.chance(20) else []
    who = [consumer(d)] if d.chance(40) else []
    return head + idle + [bound(d, b"-"), bound(d, b"+"), d.pick([b"10", b"1", b"3", b"0", b"-1"])] + who


def min_idle(d):
    return b"0" if not d.chance(20) else d.pick([NEVER_IDLE, b"-5", b"x"])


@command("XCLAIM", 14, family=FAMILY)
def _xclaim(d):
    options = d.options([
        lambda: [d.option(b"FORCE")],
        lambda: [d.option(b"JUSTID")],
        lambda: [d.option(b"IDLE"), d.pick([b"0", b"5000", b"-1", b"x"])],
        lambda: [d.option(b"TIME"), d.pick([LONG_AGO, b"-1", b"9999999999999", b"x"])],
        lambda: [d.option(b"RETRYCOUNT"), d.pick([b"0", b"7", b"-1", b"x"])],
        lambda: [d.option(b"LASTID"), an_id(d)],
    ])  # fmt: skip
    ids = [an_id(d) for _ in range(1 + d.n(4))]
    return [b"XCLAIM", stream(d), group(d), consumer(d), min_idle(d)] + ids + options


@command("XAUTOCLAIM", 12, family=FAMILY)
def _xautoclaim(d):
    limit = [d.option(b"COUNT"), d.pick([b"1", b"2", b"5", b"0", *NOT_INTS[:2]])] if d.chance(50) else []
    start = b"0" if not d.chance(40) else bound(d, b"-")
    just_id = [d.option(b"JUSTID")] if d.chance(25) else []
    return [b"XAUTOCLAIM", stream(d), group(d), consumer(d), min_idle(d), start] + limit + just_id


def unsafe(argv):
    """A mutation that would wait for long, or take its id from the clock; never sent."""
    name = argv[0].upper()
    if name == b"XADD":
        return b"*" in argv[2:]
    if name in (b"XREAD", b"XREADGROUP"):
        words = [arg.upper() for arg in argv]
        return any(word == b"BLOCK" and after != b"1" for word, after in zip(words, words[1:]))
    return False


PAYLOADS = [
    (b"p15", [b"XADD", b"p15", b"5-5", b"f", b"v", b"n", number(12)]),
    (b"p16", [b"XGROUP", b"CREATE", b"p16", b"g1", b"3-3", b"MKSTREAM"]),
    (b"p17", [b"XADD", b"p17", b"MAXLEN", b"0", b"7-1", b"f", b"v"]),
]
