"""The grammar: for every command in scope, a generator of its arguments; families have files of their own.

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
import struct

import arguments
import family_server
import family_streams
import scope
from arguments import general, read_docs
from compare import name_of
from draw import DATABASES, FAR, INTS, JUNK, KEYS, NOT_INTS, Draw
from registry import FAMILIES, GENERAL, TABLE, UNMUTATED, WEIGHT, command, number, simple
from seal import crc64, sealed  # noqa: F401

for family in sorted(pathlib.Path(__file__).parent.glob("family_*.py")):
    importlib.import_module(family.stem)  # registers its generators

SLEEP = b"@sleep"

for line in """
GET s|GETDEL s|STRLEN s|INCR s|DECR s|INCRBY s i|DECRBY s i|INCRBYFLOAT s f|GETSET s v|SETNX s v|APPEND s v
GETRANGE s x x|SUBSTR s x x|TTL key|PTTL key|EXPIRETIME key|PEXPIRETIME key|PERSIST key|TYPE key|DEL key+
UNLINK key+|EXISTS key+|TOUCH key+|DUMP key|HDEL h F+|HEXISTS h F|HGET h F|HGETALL h|HINCRBY h F i
HINCRBYFLOAT h F f|HKEYS h|HLEN h|HMGET h F+|HSETNX h F v|HSTRLEN h F|HVALS h|LINDEX l x|LLEN l|LPUSHX l v+
RPUSHX l v+|LRANGE l x x|LREM l x v|LSET l x v|LTRIM l x x|RPOPLPUSH l l|SCARD t|SISMEMBER t m|SMEMBERS t
SMISMEMBER t m+|SREM t m+|SMOVE t t m|ZCARD z|ZSCORE z m|ZMSCORE z m+|ZRANK z m|ZREVRANK z m|ZREM z m+|ZINCRBY z sc m
ZCOUNT z B B|ZREMRANGEBYSCORE z B B|ZREMRANGEBYRANK z x x|RANDOMKEY|DBSIZE|UNWATCH|ECHO v
""".replace("\n", "|").strip("|").split("|"):  # fmt: skip
    simple(*(line.split(" ", 1) + [""])[:2])
for which in ("ENCODING", "FREQ", "IDLETIME", "REFCOUNT"):
    simple("OBJECT|" + which, "key", 6 if which == "ENCODING" else 3)
simple("OBJECT|HELP", "", 2)
simple("CLIENT|GETNAME", "", 2)
for removal in ("DEL", "UNLINK", "GETDEL", "LTRIM", "ZREMRANGEBYSCORE", "ZREMRANGEBYRANK", "PERSIST"):
    WEIGHT[removal] = 2


# ---- strings


def expiry(d, persist=False):
    """An expiry option as SET and GETEX take it."""
    now, ttl = d.context.now, d.context.ttl
    kinds = [
        lambda: [b"EX", number(ttl())],
        lambda: [b"PX", number(ttl() * 1000 + d.n(1000))],
        lambda: [b"EXAT", number(now + ttl())],
        lambda: [b"PXAT", number((now + ttl()) * 1000 + d.n(1000))],
        lambda: [b"EXAT", number(d.pick(FAR))],
        lambda: [b"PXAT", b"1"],
        lambda: [d.pick([b"EX", b"PX", b"EXAT", b"PXAT"]), d.pick([b"0", b"-1"] + INTS[-2:] + NOT_INTS)],
        lambda: [b"EX", b"9223372036854775"],
        lambda: [b"PERSIST" if persist else b"KEEPTTL"],
    ]
    out = d.pick(kinds)()
    out[0] = d.option(out[0])
    return out


@command("SET", 14)
def _set(d):
    plain = [lambda: [d.option(b"NX")], lambda: [d.option(b"XX")], lambda: [d.option(b"GET")], lambda: expiry(d)]
    return [b"SET", d.key("s"), d.value()] + (d.options(plain) if d.chance(60) else [])


@command("GETEX")
def _getex(d):
    return [b"GETEX", d.key("s")] + (expiry(d, True) if d.chance(75) else []) + (expiry(d, True) if d.chance(8) else [])


@command("SETEX")
def _setex(d):
    ttl = number(d.context.ttl()) if not d.chance(15) else d.pick([b"0", b"-1"] + INTS[-2:] + NOT_INTS)
    return [b"SETEX", d.key("s"), ttl, d.value()]


@command("PSETEX")
def _psetex(d):
    ttl = number(d.context.ttl() * 1000) if not d.chance(15) else d.pick([b"0", b"-1"] + INTS[-2:] + NOT_INTS)
    return [b"PSETEX", d.key("s"), ttl, d.value()]


@command("MGET")
def _mget(d):
    return [b"MGET"] + [d.key("s") if not d.chance(15) else d.any_key() for _ in range(1 + d.n(5))]


def pairs(d):
    return [arg for _ in range(1 + d.n(4)) for arg in (d.key("s"), d.value())]


@command("MSET", 5)
def _mset(d):
    return [b"MSET"] + pairs(d)


@command("MSETNX")
def _msetnx(d):
    return [b"MSETNX"] + pairs(d)


@command("SETRANGE")
def _setrange(d):
    far = [b"0", b"5", b"44", b"64", b"1000", b"20000", b"-1", b"536870911", b"536870912", b"9223372036854775807", b"x"]
    offset = number(d.n(12)) if not d.chance(30) else d.pick(far)
    value = b"" if d.chance(8) else d.value()
    if offset == b"536870911" and len(value) < 2:
        value = b"too far"  # one byte fewer would be a valid string of 512 MB
    return [b"SETRANGE", d.key("s"), offset, value]


# ---- generic


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


# ---- hashes


def fields(d):
    count = d.bulk()
    if count > 5:
        first, value = d.n(3) * 5, d.value()[:70]
        return [arg for i in range(first, first + count) for arg in (b"f%d" % i, value)]
    return [arg for _ in range(count) for arg in (d.field(), d.value())]


@command("HSET", 12)
def _hset(d):
    return [b"HSET", d.key("h")] + fields(d)


@command("HMSET", 3)
def _hmset(d):
    return [b"HMSET", d.key("h")] + fields(d)


def random_count(d):
    """Bounded below: a server would really send so many elements."""
    if d.chance(15):
        return d.pick([b"0", b"200", b"9223372036854775807", b"-200"] + NOT_INTS)
    return b"%d" % (d.n(40) - 15)


@command("HRANDFIELD")
def _hrandfield(d):
    return [b"HRANDFIELD", d.key("h")] + random_tail(d, b"WITHVALUES")


def random_tail(d, word):
    if d.chance(20):
        return []
    if d.chance(5):
        return [d.pick([b"-9223372036854775808", b"-9223372036854775807"]), word]
    return [random_count(d)] + ([d.option(word)] if d.chance(45) else [b"WITHX"] if d.chance(5) else [])


# ---- lists


def elements(d):
    count = d.bulk()
    if count > 5:
        what = d.value()[:70]
        return [b"e%d" % i if i % 3 else what for i in range(count)]
    return [d.value() for _ in range(count)]


@command("LPUSH", 7)
def _lpush(d):
    return [b"LPUSH", d.key("l")] + elements(d)


@command("RPUSH", 9)
def _rpush(d):
    return [b"RPUSH", d.key("l")] + elements(d)


def pop(name, kind, weight=4):
    def generate(d):
        counts = [b"0", b"1", b"2", b"3", b"5", b"100", b"-1", b"9223372036854775807", b"x"]
        return [name.encode(), d.key(kind)] + ([d.pick(counts)] if d.chance(50) else [])

    command(name, weight)(generate)


pop("LPOP", "l")
pop("RPOP", "l")
pop("ZPOPMIN", "z")
pop("ZPOPMAX", "z")
pop("SPOP", "t", 3)


@command("LINSERT")
def _linsert(d):
    where = d.option(d.pick([b"BEFORE", b"AFTER"])) if not d.chance(6) else b"AROUND"
    return [b"LINSERT", d.key("l"), where, d.value(), d.value()]


@command("LMOVE")
def _lmove(d):
    sides = [d.option(d.pick([b"LEFT", b"RIGHT"])) if not d.chance(5) else b"UP" for _ in range(2)]
    return [b"LMOVE", d.key("l"), d.key("l")] + sides


@command("LPOS")
def _lpos(d):
    edge = [b"0", b"-1", b"1", b"2", b"-2", b"3", b"-9223372036854775808", b"9223372036854775807", b"x"]
    what = [lambda name=name: [d.option(name), d.pick(edge)] for name in (b"RANK", b"COUNT", b"MAXLEN")]
    element = d.value() if d.chance(60) else b"e1"
    return [b"LPOS", d.key("l"), element] + d.options(what) + ([b"RANK"] if d.chance(3) else [])


# ---- sets


@command("SADD", 12)
def _sadd(d):
    key, count = d.key("t"), d.bulk()
    if count > 5:
        first = d.n(3) * 5
        made = [b"%d" % (i * 3) for i in range(first, first + count)]
        return [b"SADD", key] + (made if not d.chance(25) else made + [d.member()])
    only_ints = key == KEYS["t"][0] and not d.chance(15)
    return [b"SADD", key] + [d.int_member() if only_ints else d.member() for _ in range(count)]


@command("SRANDMEMBER")
def _srandmember(d):
    return [b"SRANDMEMBER", d.key("t")] + ([random_count(d)] if d.chance(75) else [])


for algebra in ("SINTER", "SUNION", "SDIFF"):
    command(algebra)(lambda d, name=algebra.encode(): [name] + d.keys("t"))
    command(algebra + "STORE")(lambda d, name=algebra.encode(): [name + b"STORE", d.key("t")] + d.keys("t"))


# ---- sorted sets


@command("ZADD", 14)
def _zadd(d):
    names = (b"NX", b"XX", b"GT", b"LT", b"CH", b"INCR", b"CH")
    flags = d.options([lambda name=name: [d.option(name)] for name in names], 2) if d.chance(45) else []
    count = d.bulk() if b"INCR" not in flags or d.chance(10) else 1
    if count > 5:
        return [b"ZADD", d.key("z")] + flags + [arg for i in range(count) for arg in (b"%d" % (i % 50), b"m%d" % i)]
    return [b"ZADD", d.key("z")] + flags + [arg for _ in range(count) for arg in (d.score(), d.member())]


@command("ZRANDMEMBER")
def _zrandmember(d):
    return [b"ZRANDMEMBER", d.key("z")] + random_tail(d, b"WITHSCORES")


def limit(d):
    return [d.option(b"LIMIT"), d.index(), d.index()] if d.chance(35) else []


def with_scores(d):
    return [d.option(b"WITHSCORES")] if d.chance(40) else []


def same_score(d, key):
    """Makes `key` a sorted set whose members all have one score, or sometimes something else altogether."""
    if d.chance(8):
        return [(0, [b"SET", key, b"x"])]
    count = d.bulk()
    members = [b"m%d" % (i * 7 % 100 if count < 100 else i) for i in range(count)]
    members += [d.member()] if d.chance(40) else []
    members += [b"a", b"b", b"ab"][: d.n(4)]
    return [(0, [b"DEL", key]), (0, [b"ZADD", key] + [arg for member in members for arg in (b"0", member)])]


def lex(name, ranged, weight=3):
    def generate(d):
        key = d.key("z")
        bounds = [d.lex_bound(), d.lex_bound()]
        if d.chance(50):
            bounds = [d.pick([b"-", b"[a", b"(m1"]), d.pick([b"+", b"[m5", b"(z"])]
            bounds = bounds[::-1] if "REV" in name else bounds
        return same_score(d, key) + [(0, [name.encode(), key] + bounds + (limit(d) if ranged else []))]

    command(name, weight)(generate)


lex("ZRANGEBYLEX", True)
lex("ZREVRANGEBYLEX", True)
lex("ZLEXCOUNT", False)
lex("ZREMRANGEBYLEX", False)


@command("ZRANGEBYSCORE")
def _zrangebyscore(d):
    return [b"ZRANGEBYSCORE", d.key("z"), d.score_bound(), d.score_bound()] + with_scores(d) + limit(d)


@command("ZREVRANGEBYSCORE")
def _zrevrangebyscore(d):
    return [b"ZREVRANGEBYSCORE", d.key("z"), d.score_bound(), d.score_bound()] + limit(d) + with_scores(d)


@command("ZREVRANGE")
def _zrevrange(d):
    return [b"ZREVRANGE", d.key("z"), d.index(), d.index()] + with_scores(d)


@command("ZRANGE", 8)
def _zrange(d):
    key, kind = d.key("z"), d.pick(["rank", "rank", "score", "score", "lex", "wild"])
    reverse = [d.option(b"REV")] if d.chance(35) else []
    if kind == "rank":
        return [b"ZRANGE", key, d.index(), d.index()] + reverse + with_scores(d)
    if kind == "score":
        bounds = [d.score_bound(), d.score_bound(), d.option(b"BYSCORE")]
        return [b"ZRANGE", key] + bounds + reverse + limit(d) + with_scores(d)
    what = [lambda: [b"REV"], lambda: [b"WITHSCORES"], lambda: [b"LIMIT", d.index(), d.index()], lambda: [b"BYSCORE"],
            lambda: [b"LIMIT"], lambda: [b"BYRANK"]]  # fmt: skip
    if kind == "wild":
        return [b"ZRANGE", key, d.index(), d.index()] + d.options(what)
    rest = [d.lex_bound(), d.lex_bound(), d.option(b"BYLEX")] + reverse + limit(d)
    rest += with_scores(d) if d.chance(15) else []
    return same_score(d, key) + [(0, [b"ZRANGE", key] + rest)]


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
        return len(worse) == 1
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


def learn(conn, known):
    """Fills the table of general generators with what the server at a RESP2 connection describes, of the commands that
    the other one knows."""
    for name, described in read_docs(conn).items():
        if name not in known or name in scope.EXEMPT or name in scope.DIALOGUE or name in NOT_GENERAL:
            continue
        GENERAL[name] = general_steps(described)
        WEIGHT.setdefault(name, 2)


def general_chooser():
    return list(GENERAL), list(range(1, len(GENERAL) + 1)), GENERAL


def mixed_chooser(names):
    """For topping up: both generators of these commands."""
    table = {name: TABLE[name] for name in names if name in TABLE}
    table.update({"general " + name: GENERAL[name] for name in names if name in GENERAL})
    return list(table), list(range(1, len(table) + 1)), table


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
    return [step for step in steps if not endless(step[1]) and not (nested and step[1][0] == SLEEP)]


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
