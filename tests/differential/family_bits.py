"""Generators: commands on bits and on fields of bits."""

from draw import INTS, NOT_INTS
from registry import command, number

FAMILY = "bits"
KEYS = [b"s1{a}", b"s2{a}", b"bits{a}", b"more{a}"]
BAD_OFFSETS = [b"-1", b"4294967296", b"9223372036854775807", b"#1", b"x", b"", b"01", b"1.5"]


def bit_key(d):
    return d.pick(KEYS) if d.byte() < 225 else d.any_key()


def offset(d):
    roll = d.byte()
    if roll < 170:
        return number(roll % 90)
    if roll < 240:
        return number(d.n(256) * 37)
    return d.pick(BAD_OFFSETS)


@command("SETBIT", 14, family=FAMILY)
def _setbit(d):
    bit = d.pick([b"0", b"1", b"1", b"1"]) if not d.chance(6) else d.pick([b"2", b"-1", b"x", b""])
    return [b"SETBIT", bit_key(d), offset(d), bit]


@command("GETBIT", 6, family=FAMILY)
def _getbit(d):
    return [b"GETBIT", bit_key(d), offset(d)]


def bound(d):
    roll = d.byte()
    if roll < 110:
        return number(roll % 24)
    if roll < 190:
        return number(-(roll % 24))
    return number(d.n(256) * 13 - 1500) if roll < 230 else d.pick(INTS if roll < 246 else NOT_INTS)


def unit(d):
    return [d.option(d.pick([b"BIT", b"BYTE", b"BIT"])) if not d.chance(5) else b"bits"]


@command("BITCOUNT", 10, family=FAMILY)
def _bitcount(d):
    how = d.n(5)
    tail = [] if how == 0 else [bound(d), bound(d)] + (unit(d) if how > 2 else [])
    return [b"BITCOUNT", bit_key(d)] + tail


@command("BITPOS", 10, family=FAMILY)
def _bitpos(d):
    bit = d.pick([b"0", b"1"]) if not d.chance(5) else d.pick([b"2", b"-1", b"x"])
    tail = [bound(d) for _ in range(d.n(3))]
    return [b"BITPOS", bit_key(d), bit] + tail + (unit(d) if len(tail) == 2 and d.chance(50) else [])


@command("BITOP", 10, family=FAMILY)
def _bitop(d):
    name = d.option(d.pick([b"AND", b"OR", b"XOR", b"NOT"])) if not d.chance(4) else b"NAND"
    sources = 1 if name.upper() == b"NOT" and not d.chance(10) else 1 + d.n(4)
    return [b"BITOP", name] + [bit_key(d) for _ in range(1 + sources)]


def field_type(d):
    sign = d.pick([b"u", b"i"])
    if d.chance(5):
        return d.pick([b"u64", b"i65", b"i0", b"u0", b"x8", b"", b"i", b"u-1", b"I8", b"u08", b"i8\x00x"])
    return sign + (number(1 + d.n(63)) if d.chance(50) else d.pick([b"8", b"16", b"1", b"32", b"63"]))


def field_offset(d):
    roll = d.byte()
    if roll < 150:
        return number(roll)
    if roll < 240:
        return b"#%d" % (roll % 12)
    return d.pick([*BAD_OFFSETS, b"#-1", b"#", b"##1", b"#9223372036854775807", b"#2305843009213693952"])


def field_number(d):
    roll = d.byte()
    return number(roll % 40 - 20) if roll < 100 else d.pick(INTS) if roll < 245 else d.pick(NOT_INTS)


def operations(d, reading):
    out = []
    for _ in range(d.n(6)):
        if not reading and d.chance(35):
            out += [d.option(b"OVERFLOW"), d.option(d.pick([b"WRAP", b"SAT", b"FAIL"])) if not d.chance(4) else b"x"]
        how = 0 if reading and not d.chance(4) else d.n(3)
        out += [d.option([b"GET", b"SET", b"INCRBY"][how]), field_type(d), field_offset(d)]
        out += [field_number(d)] if how else []
    return out


@command("BITFIELD", 16, family=FAMILY)
def _bitfield(d):
    return [b"BITFIELD", bit_key(d)] + operations(d, False)


@command("BITFIELD_RO", 5, family=FAMILY)
def _bitfield_ro(d):
    return [b"BITFIELD_RO", bit_key(d)] + operations(d, True)
