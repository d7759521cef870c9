"""Generators: lists; those that wait are in family_blocking.py."""

from registry import WEIGHT, command, pop, rows

rows(
    """LINDEX l x|LLEN l|LPUSHX l v+|RPUSHX l v+|LRANGE l x x|LREM l x v|LSET l x v|LTRIM l x x|RPOPLPUSH l l"""
)

WEIGHT["LTRIM"] = 2
pop("LPOP", "l")
pop("RPOP", "l")


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
