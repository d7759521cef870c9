"""Generators: sets; algebra of sets and sorted sets, pops from the first of several keys, LCS, LOLWUT."""

from draw import KEYS
from registry import command, number, pop, random_count, rows

FAMILY = "sets"
FEW = [b"0", b"1", b"2", b"3", b"10"]


def set_key(d):
    return d.key("z") if d.byte() < 200 else d.key("t")


def counted(d, make, most=4):
    """A number of keys and the keys; sometimes the number is wrong."""
    keys = [make(d) for _ in range(1 + d.n(most))]
    said = number(len(keys)) if not d.chance(6) else d.pick([b"0", b"-1", b"7", b"x", b"abc", b""])
    return keys, [said, *keys]


def weight(d):
    return d.score() if d.byte() < 220 else d.pick([b"nan", b"x", b"", b"inf", b"-inf", b"0"])


def combining(d, keys):
    many = len(keys) if not d.chance(4) else len(keys) + d.n(3) - 1
    return d.options([lambda: [d.option(b"WEIGHTS"), *(weight(d) for _ in range(many))],
                      lambda: [d.option(b"AGGREGATE"), d.option(d.pick([b"SUM", b"MIN", b"MAX", b"MIN", b"x"]))]],
                     2)  # fmt: skip


def with_scores(d):
    return [d.option(b"WITHSCORES")] if d.chance(60) else []


def algebra(name, store):
    combines = b"DIFF" not in name

    @command(name.decode(), 6, family=FAMILY)
    def generate(d):
        keys, args = counted(d, set_key)
        out = [name] + ([d.key("z")] if store else []) + args
        out += combining(d, keys) if combines or d.chance(3) else []
        return out + (with_scores(d) if not store or d.chance(3) else [])


for base in (b"ZUNION", b"ZINTER", b"ZDIFF"):
    algebra(base, False)
    algebra(base + b"STORE", True)


def limit(d):
    what = [d.option(b"LIMIT"), d.pick(FEW) if not d.chance(15) else d.pick([b"-1", b"x", b"9223372036854775807"])]
    return what if d.chance(50) else []


@command("ZINTERCARD", family=FAMILY)
def _zintercard(d):
    return [b"ZINTERCARD"] + counted(d, set_key)[1] + limit(d)


@command("SINTERCARD", family=FAMILY)
def _sintercard(d):
    return [b"SINTERCARD"] + counted(d, lambda d: d.key("t"))[1] + limit(d)


def mpop(name, kind, ends):
    @command(name.decode(), family=FAMILY)
    def generate(d):
        end = d.option(d.pick(ends)) if not d.chance(4) else b"x"
        out = [name] + counted(d, lambda d: d.key(kind))[1] + [end]
        count = d.pick([*FEW, b"200"]) if not d.chance(12) else d.pick([b"-1", b"x", b"9223372036854775807"])
        return out + ([d.option(b"COUNT"), count] if d.chance(55) else [])


mpop(b"LMPOP", "l", [b"LEFT", b"RIGHT"])
mpop(b"ZMPOP", "z", [b"MIN", b"MAX"])


def range_limit(d):
    return [d.option(b"LIMIT"), d.index(), d.index()] if d.chance(40) else []


@command("ZRANGESTORE", 8, family=FAMILY)
def _zrangestore(d):
    head, how = [b"ZRANGESTORE", d.key("z")], d.n(10)
    rev = [d.option(b"REV")] if d.chance(35) else []
    if how < 4:
        return head + [d.key("z"), d.index(), d.index()] + rev + (range_limit(d) if d.chance(5) else [])
    if how < 8:
        return head + [d.key("z"), d.score_bound(), d.score_bound(), b"BYSCORE"] + rev + range_limit(d)
    # By text only over members of one score: with several the result is not defined.
    source = d.key("z")
    fill = [b"ZADD", source] + [arg for m in (b"a", b"b", b"m1", b"m5", b"z") for arg in (b"0", m)]
    store = head + [source, d.lex_bound(), d.lex_bound(), d.option(b"BYLEX")] + rev + range_limit(d)
    return [(0, [b"DEL", source]), (0, fill), (0, store)]


def related(d):
    """A text of few letters, so that two have something in common."""
    return bytes(d.pick(b"abcd") for _ in range(d.n(30)))


@command("LCS", 8, family=FAMILY)
def _lcs(d):
    one, two = d.key("s"), d.key("s")
    options = d.options([lambda: [d.option(b"IDX")], lambda: [d.option(b"LEN")], lambda: [d.option(b"WITHMATCHLEN")],
                         lambda: [b"IDX", d.option(b"MINMATCHLEN"), d.pick([b"0", b"2", b"4", b"-3", b"x"])]])  # fmt: skip
    lcs = [b"LCS", one, two] + options
    return [(0, [b"SET", one, related(d)]), (0, [b"SET", two, related(d)]), (0, lcs)] if d.chance(60) else lcs


# ---- sets among all commands

rows("SCARD t|SISMEMBER t m|SMEMBERS t|SMISMEMBER t m+|SREM t m+|SMOVE t t m")
pop("SPOP", "t", 3)


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


for which in ("SINTER", "SUNION", "SDIFF"):
    command(which)(lambda d, name=which.encode(): [name] + d.keys("t"))
    command(which + "STORE")(lambda d, name=which.encode(): [name + b"STORE", d.key("t")] + d.keys("t"))
