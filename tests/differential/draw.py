"""Turns a short block of bytes into choices: keys, values, numbers, ranges.

Hypothesis makes one block of bytes for each command, which costs one draw instead of twenty, and shrinks it
towards zero bytes; every choice here therefore maps zero to its simplest case.  A block that runs out is
continued by a generator seeded from the block, so the same block always gives the same command.
"""

import random
import zlib

# Preferred keys by type.  Most share one hash tag, so that multi-key commands work in cluster mode as well.
KEYS = {
    "s": [b"s1{a}", b"s2{a}", b"s{b}"],
    "h": [b"h1{a}", b"h2{a}", b"h{b}"],
    "l": [b"l1{a}", b"l2{a}", b"plain"],
    "t": [b"t1{a}", b"t2{a}", b"t{b}"],
    "z": [b"z1{a}", b"z2{a}", b"{a}\x00\xff"],
    "x": [b"x1{a}", b"x2{a}", b"stream"],
}
ALL_KEYS = [key for keys in KEYS.values() for key in keys]
MISSING = b"none{a}"
# What a mutation puts in the place of an argument; it may end up as the name of a key.
JUNK = [b"abc", b"", b"-1", b"0", b"9223372036854775807", b"9223372036854775808", b"1.5", b"nan", b" 1", b"-5"]

INTS = [
    b"0", b"1", b"-1", b"2", b"3", b"5", b"7", b"10", b"12", b"63", b"64", b"99", b"127", b"128", b"255", b"-128",
    b"-129", b"4095", b"4096", b"9999", b"10000", b"32767", b"32768", b"-32768", b"-32769", b"8388607", b"8388608",
    b"2147483647", b"2147483648", b"-2147483648", b"-2147483649", b"9007199254740993", b"9223372036854775806",
    b"9223372036854775807", b"-9223372036854775807", b"-9223372036854775808",
]  # fmt: skip
NOT_INTS = [
    b"abc", b"", b"01", b"+1", b" 1", b"1 ", b"-0", b"--1", b"1.0", b"9223372036854775808", b"-9223372036854775809",
    b"18446744073709551616", b"1x", b"1\x00",
]  # fmt: skip
FLOATS = [
    b"0", b"1", b"-1", b"1.5", b"-2.25", b"3.0", b"0.1", b"0.30000000000000004", b"1e3", b"1E-7", b"5e-324", b"1e17",
    b"123456789.123456789", b"17179869184.5", b"-0", b"-0.0", b".5", b"3.", b"1e308", b"99999999999999999999",
    b"9007199254740993", b"0x10", b"+2",
]  # fmt: skip
NOT_FLOATS = [b"abc", b"", b"nan", b" 1", b"1 ", b"1..2", b"1e", b"1e400", b"-1e400", b"1,5", b"1\x00"]
INFINITE = [b"inf", b"-inf", b"+inf", b"Infinity", b"-Infinity", b"INF"]
WORDS = [b"a", b"b", b"c", b"foo", b"bar", b"hello world", b"A", b"Foo", b"\xc3\xa9t\xc3\xa9", b"quo\"te\r\n", b"*"]
LENGTHS = [1, 2, 7, 11, 12, 15, 16, 17, 20, 21, 31, 43, 44, 45, 46, 62, 63, 64, 65, 66, 70]
BULKS = [6, 7, 8, 9, 20, 127, 128, 129, 130, 511, 512, 513]
DATABASES = [b"0", b"1", b"2", b"3"]
DATABASES_USED = [0, 1, 2, 3, 15]
FAR = [4000000000, 4000000001, 4102444800]  # absolute expiry in seconds; may repeat, nothing races with it


class Context:
    """What the choices of one sequence share."""

    def __init__(self, now, payloads):
        self.now = now  # seconds, at the start of the sequence
        self.payloads = payloads  # valid DUMP payloads
        self.ttl_count = 0

    def ttl(self):
        """A TTL in seconds, at least 10 s away from any other of the sequence (up to 997 of them).

        Relative TTLs that are equal would make GT and LT depend on the millisecond in which each server ran."""
        self.ttl_count += 1
        return 100 + (self.ttl_count * 37 % 997) * 10


class Draw:
    def __init__(self, block, context):
        self.block, self.context, self.at = block, context, 0
        self.rest = None

    def byte(self):
        if self.at < len(self.block):
            self.at += 1
            return self.block[self.at - 1]
        if self.rest is None:
            self.rest = random.Random(zlib.crc32(self.block)) if any(self.block) else 0
        return self.rest.randrange(256) if self.rest else 0

    def n(self, count):
        """0 .. count-1"""
        if count <= 256:
            return self.byte() * count >> 8
        return (self.byte() << 8 | self.byte()) * count >> 16

    def chance(self, percent):
        """Zero bytes mean no."""
        return self.byte() >= 256 - percent * 256 // 100

    def pick(self, seq):
        return seq[self.n(len(seq))]

    def key(self, kind):
        roll = self.byte()
        if roll < 195:
            return KEYS[kind][roll & 1]
        if roll < 205:
            return KEYS[kind][2]
        if roll < 243:
            return self.pick(ALL_KEYS)
        return MISSING if roll < 254 else b""

    def any_key(self):
        return self.key(self.pick("shltz"))

    def keys(self, kind, most=4):
        return [self.key(kind) for _ in range(1 + self.n(most))]

    def value(self):
        roll = self.byte()
        if roll < 60:
            return self.pick(WORDS)
        if roll < 110:
            return self.pick(INTS)
        if roll < 125:
            return self.pick(FLOATS)
        if roll < 135:
            return self.pick(NOT_INTS + NOT_FLOATS)
        if roll < 150:
            return b"%d" % self.n(200)
        if roll < 180:
            return b"x" * self.pick(LENGTHS)
        if roll < 215:
            return self.text(self.pick(LENGTHS))
        if roll < 240:
            return bytes(self.byte() for _ in range(1 + self.n(6))).replace(b"\x00", b"\x01")
        if roll < 244:
            return b"nul\x00%d" % self.n(9) if roll == 240 else b"nul\x00"
        if roll < 250:
            return b"z" * 10000
        return self.text(10000) if roll < 253 else self.text(300)

    def text(self, size):
        """Text that does not compress away and is the same for the same roll."""
        source = random.Random(self.n(8))
        return bytes(source.choices(b"abcdefghijklmnopqrstuvwxyz0123456789", k=size))

    def short(self):
        """A value without the 10 KB ones, for names of fields and members."""
        return self.value()[:300]

    def int_arg(self):
        roll = self.byte()
        if roll < 150:
            return b"%d" % (roll % 15 - 3)
        return self.pick(INTS) if roll < 235 else self.pick(NOT_INTS)

    def float_arg(self):
        roll = self.byte()
        if roll < 215:
            return self.pick(FLOATS)
        return self.pick(NOT_FLOATS) if roll < 235 else self.pick(INFINITE)

    def index(self):
        roll = self.byte()
        if roll < 120:
            return b"%d" % (roll % 12)
        if roll < 190:
            return b"%d" % -(roll % 12)
        if roll < 225:
            return b"%d" % (roll % 3 * 60 - 50)
        return self.pick(INTS) if roll < 246 else self.pick(NOT_INTS)

    def field(self):
        roll = self.byte()
        return b"f%d" % (roll % 20) if roll < 200 else self.short()

    def member(self):
        roll = self.byte()
        if roll < 120:
            return b"%d" % (roll % 24 - 2)
        return b"m%d" % (roll % 20) if roll < 210 else self.short()

    def int_member(self):
        return b"%d" % (self.n(30) - 3) if self.byte() < 220 else self.pick(INTS)

    def score(self):
        roll = self.byte()
        if roll < 130:
            return b"%d" % (roll % 9 - 1)
        if roll < 215:
            return self.pick(FLOATS)
        return self.pick(INFINITE) if roll < 245 else self.pick(NOT_FLOATS)

    def score_bound(self):
        roll = self.byte()
        if roll < 60:
            return self.pick([b"-inf", b"+inf", b"inf", b"(inf", b"(-inf"])
        if roll < 160:
            return b"%d" % (roll % 9 - 1)
        if roll < 215:
            return b"(" + b"%d" % (roll % 9 - 1)
        return self.pick(FLOATS) if roll < 240 else self.pick([b"abc", b"", b"(", b"((1", b"nan", b"[1"])

    def lex_bound(self):
        roll = self.byte()
        if roll < 70:
            return b"-" if roll < 35 else b"+"
        if roll < 225:
            return (b"[" if roll & 1 else b"(") + self.pick([b"a", b"b", b"m1", b"m10", b"m5", b"m77", b"z", b"", b"1"])
        return self.pick([b"", b"a", b"++", b"-a", b"[", b"(", b"inf"])

    def bulk(self):
        """How many elements a filling command brings: mostly a few, sometimes around a threshold."""
        roll = self.byte()
        if roll < 205:
            return 1 + roll % 5
        return self.pick(BULKS)

    def option(self, name):
        """Options are matched without regard to case."""
        return name.lower() if self.chance(12) else name

    def options(self, choices, most=3):
        """Up to `most` of the choices (each a function that returns a list), repeats and conflicts included."""
        out = []
        for _ in range(self.n(most + 1)):
            out += self.pick(choices)()
        return out
