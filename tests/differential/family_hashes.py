"""Generators: hashes."""

from registry import command, random_tail, rows

rows(
    """HDEL h F+|HEXISTS h F|HGET h F|HGETALL h|HINCRBY h F i|HINCRBYFLOAT h F f|HKEYS h|HLEN h|HMGET h F+|HSETNX h F v
    HSTRLEN h F|HVALS h"""
)


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


@command("HRANDFIELD")
def _hrandfield(d):
    return [b"HRANDFIELD", d.key("h")] + random_tail(d, b"WITHVALUES")
