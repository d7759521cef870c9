"""Generators: commands that wait for a key, where they need not: the data is there, the time-out is tiny, or a
transaction forbids to wait.  Not mutated: a time-out of 0 would wait for ever."""

from draw import NOT_INTS
from registry import command, number

FAMILY = "blocking"
TINY = [b"0.001", b"1e-3", b".0005", b"0x1p-10", b"+0.001", b"1e-400"]
WRONG = [b"x", b"-1", b"-0.5", b"nan", b"1e30", b"inf", b"-inf", b" 1", b"1 ", b"", b"9300000000000000", b"0.1s", b"--1"]
ANY = [b"0", b"1", b"0.5", b"100", b"9223372036854775"]
ENDS = [b"LEFT", b"RIGHT", b"left", b"Right"]


def timeout(d):
    return d.pick(WRONG) if d.chance(12) else d.pick(TINY)


def filled(d, kind, key):
    if kind == "l":
        return [b"RPUSH", key] + [d.value() for _ in range(1 + d.n(4))]
    return [b"ZADD", key] + [arg for _ in range(1 + d.n(4)) for arg in (d.pick([b"1", b"2", b"-3.5", b"inf"]), d.member())]


def with_data(d, kind, keys, make):
    """The command after its data; or in a transaction, with a time-out that would wait for long; or without more ado."""
    how = d.n(30)
    key = d.pick(keys)
    if how < 18:
        return [(0, [b"DEL", key]), (0, filled(d, kind, key)), (0, make(timeout(d)))]
    if how < 29:
        before = [(0, filled(d, kind, key))] if d.chance(50) else [(0, [b"DEL", key])]
        return [(0, [b"MULTI"])] + before + [(0, make(d.pick(ANY)))] + [(0, [b"EXEC"])]
    return make(timeout(d))


def pop(name, kind):
    @command(name.decode(), 2, mutate=False, family=FAMILY)
    def generate(d):
        keys = [d.key(kind) for _ in range(1 + d.n(3))]
        return with_data(d, kind, keys, lambda t: [name] + keys + [t])


for name, kind in ((b"BLPOP", "l"), (b"BRPOP", "l"), (b"BZPOPMIN", "z"), (b"BZPOPMAX", "z")):
    pop(name, kind)


def end(d):
    return d.pick(ENDS) if not d.chance(6) else b"x"


@command("BLMOVE", 2, mutate=False, family=FAMILY)
def _blmove(d):
    keys = [d.key("l"), d.key("l")]
    ends = [end(d), end(d)]
    return with_data(d, "l", keys[:1], lambda t: [b"BLMOVE"] + keys + ends + [t])


@command("BRPOPLPUSH", 2, mutate=False, family=FAMILY)
def _brpoplpush(d):
    keys = [d.key("l"), d.key("l")]
    return with_data(d, "l", keys[:1], lambda t: [b"BRPOPLPUSH"] + keys + [t])


def mpop(name, kind, ends):
    @command(name.decode(), 2, mutate=False, family=FAMILY)
    def generate(d):
        keys = [d.key(kind) for _ in range(1 + d.n(3))]
        said = number(len(keys)) if not d.chance(8) else d.pick([b"0", b"-1", b"9", b"x", *NOT_INTS[:7]])
        tail = [d.option(d.pick(ends)) if not d.chance(6) else b"x"]
        if d.chance(50):
            tail += [d.option(b"COUNT"), d.pick([b"1", b"2", b"10"]) if not d.chance(15) else d.pick([b"0", b"-1", b"x"])]
        if d.chance(4):
            tail += [b"COUNT", b"1"]
        return with_data(d, kind, keys, lambda t: [name, t, said] + keys + tail)


mpop(b"BLMPOP", "l", [b"LEFT", b"RIGHT"])
mpop(b"BZMPOP", "z", [b"MIN", b"MAX"])
