"""Generators: keys of any type: expiry, copies, iteration, SORT, DUMP and RESTORE."""

import struct

from draw import DATABASES, FAR, INTS, KEYS, NOT_INTS
from registry import SLEEP, WEIGHT, command, number, rows, simple
from seal import sealed

rows(
    """TTL key|PTTL key|EXPIRETIME key|PEXPIRETIME key|PERSIST key|TYPE key|DEL key+|UNLINK key+|EXISTS key+|TOUCH key+
    DUMP key|RANDOMKEY"""
)

for which in ("ENCODING", "FREQ", "IDLETIME", "REFCOUNT"):
    simple("OBJECT|" + which, "key", 6 if which == "ENCODING" else 3)
simple("OBJECT|HELP", "", 2)
for removal in ("DEL", "UNLINK", "PERSIST"):
    WEIGHT[removal] = 2


def condition(d):
    flags = [lambda name=name: [d.option(name)] for name in (b"NX", b"XX", b"GT", b"LT")]
    return d.options(flags, 1 if not d.chance(15) else 3) + ([b"ZZ"] if d.chance(3) else [])


def bad_time(d):
    return d.pick([b"0", b"-1", b"-100000", b"9223372036854775", b"-9223372036854775"] + INTS[-4:] + NOT_INTS)


@command("EXPIRE", 6)
def _expire(d):
    return [b"EXPIRE", d.any_key(), number(d.context.ttl()) if not d.chance(15) else bad_time(d)] + condition(d)


@command("PEXPIRE", 5)
def _pexpire(d):
    if d.chance(4):  # let it run out; nothing is sent meanwhile
        return [(0, [b"PEXPIRE", d.any_key(), number(1 + d.n(5))]), (0, [SLEEP, b"12"])]
    ttl = number(d.context.ttl() * 1000 + d.n(1000)) if not d.chance(15) else bad_time(d)
    return [b"PEXPIRE", d.any_key(), ttl] + condition(d)


def moment(d):
    if d.chance(15):
        return d.pick([b"1", b"1000000"]) if d.chance(50) else bad_time(d)
    return number(d.pick(FAR)) if d.chance(40) else number(d.context.now + d.context.ttl())


@command("EXPIREAT", 5)
def _expireat(d):
    return [b"EXPIREAT", d.any_key(), moment(d)] + condition(d)


@command("PEXPIREAT", 5)
def _pexpireat(d):
    at = moment(d)
    return [b"PEXPIREAT", d.any_key(), at + b"500" if len(at) == 10 and at.isdigit() else at] + condition(d)


@command("RENAME", 3)
def _rename(d):
    return [b"RENAME", d.any_key(), d.any_key()]


@command("RENAMENX", 3)
def _renamenx(d):
    return [b"RENAMENX", d.any_key(), d.any_key()]


@command("COPY", 5)
def _copy(d):
    what = [
        lambda: [d.option(b"REPLACE")],
        lambda: [d.option(b"REPLACE")],
        lambda: [d.option(b"DB"), d.pick(DATABASES + [b"16", b"-1", b"x"])],
        lambda: [b"DB"],
    ]
    return [b"COPY", d.any_key(), d.any_key()] + d.options(what, 2)


@command("MOVE", 3)
def _move(d):
    return [b"MOVE", d.any_key(), d.pick(DATABASES + [b"15", b"16", b"-1", b"x", b"99999999999"])]


@command("KEYS", 3)
def _keys(d):
    patterns = [b"*", b"s*", b"?1*", b"[hl]*", b"[^s]*", b"[a-s]*", b"*{a}", b"*{b}", b"h1{a}", b"\\s1*", b"[s", b"",
                b"*[", b"x*", b"[z-a]1*", b"**1**", b"*\xff"]  # fmt: skip
    return [b"KEYS", d.pick(patterns)]


def ziplist(entries):
    """A ziplist of short strings, as servers before 7.0 wrote them."""
    body, before = b"", 0
    for entry in entries:
        item = bytes([before, len(entry)]) + entry
        body, before = body + item, len(item)
    head = struct.pack("<IIH", 10 + len(body) + 1, 10 + len(body) - before, len(entries))
    return head + body + b"\xff"


def blob(data):
    return bytes([len(data)]) + data


OLD_PAYLOADS = [
    sealed(bytes([13]) + blob(ziplist([b"f", b"v", b"g", b"w"])), 9),  # hash
    sealed(bytes([12]) + blob(ziplist([b"a", b"1.5", b"b", b"2.5"])), 9),  # sorted set
    sealed(bytes([10]) + blob(ziplist([b"x", b"y", b"z"])), 9),  # list
    sealed(bytes([14, 1]) + blob(ziplist([b"p", b"q"])), 9),  # list, before listpacks
    sealed(bytes([1, 2]) + blob(b"e1") + blob(b"e2"), 6),  # list, plain
    sealed(bytes([3, 1]) + blob(b"m") + blob(b"1.25"), 6),  # sorted set, scores as text
    sealed(bytes([4, 1]) + blob(b"f") + blob(b"v"), 6),  # hash, plain
    sealed(bytes([9]) + blob(b"\x01\x01f\x01\x00v\xff"), 6),  # zipmap
]
BROKEN_PAYLOADS = [
    sealed(bytes([0]) + b"\x25abc"),  # string shorter than it says, by more than the bytes of the seal
    sealed(bytes([200]) + blob(b"a")),  # no such type
    sealed(bytes([0]) + blob(b"abc"), 99),  # from the future
    sealed(bytes([2, 3]) + blob(b"a")),  # set with too few members
    b"",
    b"short",
    b"\x00\x03abc\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x01",  # wrong checksum
]


@command("RESTORE", 6, mutate=False)
def _restore(d):
    payload = d.pick(d.context.payloads) if not d.chance(35) else d.pick(OLD_PAYLOADS + OLD_PAYLOADS + BROKEN_PAYLOADS)
    key = d.any_key()
    options = d.options([lambda: [d.option(b"REPLACE")], lambda: [b"REPLACE"], lambda: [b"IDLETIME", b"5"],
                         lambda: [b"FREQ", b"7"], lambda: [b"ABSTTL"], lambda: [b"XX"],
                         lambda: [b"IDLETIME", d.pick([b"-1", b"x"])], lambda: [b"FREQ", d.pick([b"256", b"-1"])],
                         lambda: [b"REPLACE"]])  # fmt: skip
    roll = d.byte()
    if b"ABSTTL" in options:
        ttl = number(d.context.now * 1000 + d.context.ttl() * 1000) if roll < 200 else d.pick([b"1", b"0"])
    else:
        ttl = b"0" if roll < 130 else number(d.context.ttl() * 1000) if roll < 225 else d.pick([b"-1", b"x", b""])
    argv = [b"RESTORE", key, ttl, payload] + options
    return argv[: 2 + d.n(2)] if d.chance(4) else argv


def scan_options(d, typed):
    what = [
        lambda: [d.option(b"MATCH"), d.pick([b"*", b"f1*", b"m[1-3]*", b"*{a}", b"1*", b"[^m]*"])],
        lambda: [d.option(b"COUNT"), d.pick([b"1", b"3", b"10", b"1000"])],
        lambda: [d.option(b"COUNT"), d.pick([b"100", b"0", b"-1", b"x"])],
    ]
    if typed or d.chance(3):
        what.append(lambda: [d.option(b"TYPE"), d.pick([b"string", b"hash", b"zset", b"LIST", b"set", b"nosuch"])])
    return d.options(what, 2)


def cursor(d):
    return b"0" if not d.chance(12) else d.pick([b"1", b"5", b"x", b"", b" 1", b"99999999999999999999999", b"1.5"])


@command("SCAN", 2)
def _scan(d):
    return [b"SCAN", cursor(d)] + scan_options(d, True)


def scan_of(name, kind):
    command(name, 2)(lambda d: [name.encode(), d.key(kind), cursor(d)] + scan_options(d, False))


scan_of("HSCAN", "h")
scan_of("SSCAN", "t")
scan_of("ZSCAN", "z")


def sort_args(d, store):
    what = [
        lambda: [d.option(b"BY"), d.pick([b"s*{a}", b"h*{a}->f1", b"nosort", b"*", b"s1{a}", b"none_*", b"h1{a}->f*"])],
        lambda: [d.option(b"LIMIT"), d.index(), d.index()],
        lambda: [d.option(b"GET"), d.pick([b"#", b"s*{a}", b"h*{a}->f1", b"h1{a}->f*", b"nostar", b"*->", b"*"])],
        lambda: [d.option(b"ASC")],
        lambda: [d.option(b"DESC")],
        lambda: [d.option(b"ALPHA")],
        lambda: [d.option(b"ALPHA")],
    ]
    if store:
        what.append(lambda: [d.option(b"STORE"), d.key("l")])
    return d.options(what, 4)


def sort_start(d, name):
    """Mostly a list or set of small numbers made for it, since what is found has something unsortable in it."""
    if not d.chance(55):
        return [], d.key(d.pick("ltz"))
    key = d.key("l" if d.chance(50) else "t")
    fill = b"RPUSH" if key in KEYS["l"] else b"SADD"
    values = [d.pick([b"3", b"1", b"2", b"10", b"-4", b"2.5", b"01", b"1", b"7"]) for _ in range(1 + d.n(6))]
    return [(0, [b"DEL", key]), (0, [fill, key] + values)], key


@command("SORT", 6)
def _sort(d):
    before, key = sort_start(d, b"SORT")
    return before + [(0, [b"SORT", key] + sort_args(d, True))]


@command("SORT_RO", 4)
def _sort_ro(d):
    before, key = sort_start(d, b"SORT_RO")
    return before + [(0, [b"SORT_RO", key] + sort_args(d, d.chance(10)))]
