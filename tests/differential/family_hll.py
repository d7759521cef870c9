"""Generators: HyperLogLogs.  Every change is followed by a GET, since the bytes have to be the same."""

import random

from registry import command, number

FAMILY = "hyperloglog"
KEYS = [b"p1{a}", b"p2{a}", b"p3{a}", b"s1{a}"]
HEADER = b"HYLL\x01\0\0\0" + b"\0" * 8
# Not among them: a last run cut in half, which the oracle reads on behind its end.
FOREIGN = [
    b"HYLL", HEADER, HEADER + b"\x7f\xff", HEADER + b"\x7f\xfe", HEADER + b"\x7f\xff\x00", HEADER + b"\x7f\xff\x80",
    HEADER + b"\x7f\xfe\x84", HEADER + b"\x7f\xfb\x88\x88\x88\x88", HEADER[:15] + b"\x80\x7f\xff",
    b"HYLL\x02\0\0\0" + b"\0" * 8 + b"\x7f\xff", b"HYLL\x00\0\0\0" + b"\0" * 8 + b"\x7f\xff", b"hyll" + HEADER[4:],
    b"HYLL\x00\0\0\0" + b"\0" * 7 + b"\x80" + b"\x41\x10\x04" * 4096,
    b"HYLL\x00\0\0\0" + b"\0" * 7 + b"\x80" + b"\xff" * 12288,
]  # fmt: skip


def hll_key(d):
    return d.pick(KEYS) if d.byte() < 235 else d.any_key()


def elements(d):
    roll = d.byte()
    if roll < 120:
        return [d.short() for _ in range(roll % 6)]
    if roll < 200:
        return [number(d.n(256) * 256 + i) for i in range(1 + d.n(40))]
    source = random.Random(d.n(64))  # enough to fill the sparse form, or to leave it
    return [number(source.getrandbits(24)) for _ in range(d.pick([100, 300, 700, 1500]))]


@command("PFADD", 16, family=FAMILY)
def _pfadd(d):
    key = hll_key(d)
    return [(0, [b"PFADD", key] + elements(d)), (0, [b"GET", key])]


@command("PFCOUNT", 10, family=FAMILY)
def _pfcount(d):
    keys = [hll_key(d) for _ in range(1 + (d.n(3) if d.chance(50) else 0))]
    return [(0, [b"PFCOUNT"] + keys), (0, [b"GET", keys[0]])]


@command("PFMERGE", 9, family=FAMILY)
def _pfmerge(d):
    keys = [hll_key(d) for _ in range(1 + d.n(4))]
    return [(0, [b"PFMERGE"] + keys), (0, [b"GET", keys[0]])]


@command("PFDEBUG", 5, family=FAMILY)
def _pfdebug(d):
    key = hll_key(d)
    what = d.option(d.pick([b"DECODE", b"ENCODING", b"ENCODING", b"GETREG", b"TODENSE"])) if not d.chance(8) else b"x"
    return [(0, [b"PFDEBUG", what, key]), (0, [b"GET", key]), (0, [b"OBJECT", b"ENCODING", key])]


@command("PFSELFTEST", 1, family=FAMILY)
def _pfselftest(d):
    return [b"PFSELFTEST", b"x"]  # a valid call takes the oracle seconds


@command("SET foreign", 4, mutate=False, family=FAMILY)
def _foreign(d):
    """A string that came from elsewhere; an element at a time, since the oracle keeps what it did before it found out."""
    key = hll_key(d)
    use = d.pick([[b"PFADD", key, d.short()], [b"PFCOUNT", key], [b"PFMERGE", d.pick(KEYS), key], [b"PFCOUNT", key, key],
                  [b"PFDEBUG", d.pick([b"TODENSE", b"DECODE", b"GETREG"]), key], [b"PFMERGE", key, d.pick(KEYS)]])  # fmt: skip
    return [(0, [b"SET", key, d.pick(FOREIGN)]), (0, use), (0, [b"GET", key]), (0, [b"DEL", key])]
