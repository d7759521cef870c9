"""Generators: strings."""

from draw import FAR, INTS, NOT_INTS
from registry import WEIGHT, command, number, rows

rows(
    """GET s|GETDEL s|STRLEN s|INCR s|DECR s|INCRBY s i|DECRBY s i|INCRBYFLOAT s f|GETSET s v|SETNX s v|APPEND s v
    GETRANGE s x x|SUBSTR s x x"""
)

WEIGHT["GETDEL"] = 2


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
