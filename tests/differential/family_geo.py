"""Generators: geographic commands."""

import random

from registry import command, number

FAMILY = "geo"
KEYS = [b"g1{a}", b"g2{a}", b"g3{a}"]
UNITS = [b"m", b"km", b"ft", b"mi"]
EDGES = [(0, 0), (180, 85.05112878), (-180, -85.05112878), (179.9999, 0), (-179.9999, 0), (13.361389, 38.115556),
         (15.087269, 37.502669), (2.35, 48.85), (2.36, 48.86), (0, 85), (90, -85), (-122.4, 37.8), (1, 67), (1, -81)]  # fmt: skip
BAD_POINTS = [(b"181", b"0"), (b"0", b"86"), (b"x", b"1"), (b"1", b""), (b"nan", b"0"), (b"inf", b"0")]
FAR = [b"0", b"1", b"100", b"5000", b"30000", b"200000", b"1000000", b"5000000", b"10000000", b"21000000", b"1e12"]
BAD_LENGTHS = [b"-1", b"x", b"", b"nan", b"inf"]


def geo_key(d):
    return d.pick(KEYS) if d.byte() < 240 else d.any_key()


def point(d):
    if d.chance(4):
        return list(d.pick(BAD_POINTS))
    roll = d.byte()
    if roll < 110:  # near each other, sometimes the same place
        lon, lat = 2.3 + d.n(12) / 100, 48.8 + d.n(12) / 100
    elif roll < 180:
        lon, lat = d.pick(EDGES)
    else:
        lon, lat = (d.n(65536) - 32768) / 182.1, (d.n(65536) - 32768) / 385.5
    return [b"%.6f" % lon, b"%.6f" % lat] if d.chance(50) else [b"%r" % lon, b"%r" % lat]


def name(d):
    return b"p%d" % d.n(40) if d.byte() < 240 else d.short()


@command("GEOADD", 14, family=FAMILY)
def _geoadd(d):
    options = d.options([lambda word=word: [d.option(word)] for word in (b"NX", b"XX", b"CH")], 2) if d.chance(30) else []
    out = [b"GEOADD", geo_key(d)] + options
    if d.chance(25):  # many around one place
        source = random.Random(d.n(50))
        for _ in range(d.pick([10, 50, 150])):
            at = [b"%.4f" % (2.3 + source.randrange(30) / 50), b"%.4f" % (48.5 + source.randrange(30) / 50)]
            out += at + [b"q%d" % source.randrange(300)]
        return out
    for _ in range(1 + d.n(4)):
        out += point(d) + [name(d)]
    return out


def unit(d):
    return d.option(d.pick(UNITS)) if not d.chance(4) else b"yd"


@command("GEODIST", 8, family=FAMILY)
def _geodist(d):
    return [b"GEODIST", geo_key(d), name(d), name(d)] + ([unit(d)] if d.chance(60) else [])


@command("GEOHASH", family=FAMILY)
def _geohash(d):
    return [b"GEOHASH", geo_key(d)] + [name(d) for _ in range(d.n(4))]


@command("GEOPOS", family=FAMILY)
def _geopos(d):
    key = geo_key(d)
    ask = [b"GEOPOS", key] + [name(d) for _ in range(d.n(4))]
    if not d.chance(20):
        return ask
    scores = [b"inf", b"-inf", b"-1", b"1e19", b"9e18", b"-9.3e18", b"4503599627370496", b"1.5", b"-0"]
    return [(0, [b"ZADD", key, d.pick(scores), b"odd"]), (0, ask + [b"odd"]), (0, [b"GEOHASH", key, b"odd"]),
            (0, [b"ZREM", key, b"odd"])]  # fmt: skip


def length(d):
    if d.chance(4):
        return d.pick(BAD_LENGTHS)
    return d.pick(FAR) if d.chance(40) else number(d.n(65536) + d.n(100))


def circle(d):
    return [length(d), unit(d)]


def flags(d):
    out = d.options([lambda word=word: [d.option(word)] for word in
                     (b"WITHCOORD", b"WITHDIST", b"WITHHASH", b"ASC", b"DESC", b"ASC", b"DESC")], 3)  # fmt: skip
    if d.chance(40):
        out += [d.option(b"COUNT"), number(1 + d.n(30)) if not d.chance(8) else d.pick([b"0", b"-1", b"x"])]
        out += [d.option(b"ANY")] if d.chance(40) else []
    elif d.chance(4):
        out += [b"ANY"]
    return out


def stored(d):
    return [d.option(d.pick([b"STORE", b"STOREDIST"])), d.pick(KEYS)]


def quiet(d):
    """Options that go with STORE."""
    return [arg for arg in flags(d) if not arg.upper().startswith(b"WITH") or d.chance(5)]


def radius(command_name, by_member, reads):
    @command(command_name.decode(), 8, family=FAMILY)
    def generate(d):
        out = [command_name, geo_key(d)] + ([name(d)] if by_member else point(d)) + circle(d)
        if d.chance(25) and (not reads or d.chance(10)):
            return out + quiet(d) + stored(d)
        return out + flags(d)


radius(b"GEORADIUS", False, False)
radius(b"GEORADIUS_RO", False, True)
radius(b"GEORADIUSBYMEMBER", True, False)
radius(b"GEORADIUSBYMEMBER_RO", True, True)


def area(d):
    start = [d.option(b"FROMMEMBER"), name(d)] if d.chance(40) else [d.option(b"FROMLONLAT")] + point(d)
    how = [d.option(b"BYRADIUS")] + circle(d) if d.chance(50) else [d.option(b"BYBOX"), length(d)] + circle(d)
    if d.chance(6):
        start, how = d.pick([(start, []), ([], how), (start + start, how), (start, how + how)])
    return start + how if d.chance(70) else how + start


@command("GEOSEARCH", 16, family=FAMILY)
def _geosearch(d):
    return [b"GEOSEARCH", geo_key(d)] + area(d) + flags(d)


@command("GEOSEARCHSTORE", 8, family=FAMILY)
def _geosearchstore(d):
    dist = [d.option(b"STOREDIST")] if d.chance(40) else []
    return [b"GEOSEARCHSTORE", d.pick(KEYS), geo_key(d)] + area(d) + quiet(d) + dist
