"""Generators: sorted sets; algebra and what pops from several is in family_sets.py."""

from registry import WEIGHT, command, pop, random_tail, rows

rows(
    """ZCARD z|ZSCORE z m|ZMSCORE z m+|ZRANK z m|ZREVRANK z m|ZREM z m+|ZINCRBY z sc m|ZCOUNT z B B|ZREMRANGEBYSCORE z B B
    ZREMRANGEBYRANK z x x"""
)

WEIGHT["ZREMRANGEBYSCORE"] = WEIGHT["ZREMRANGEBYRANK"] = 2
pop("ZPOPMIN", "z")
pop("ZPOPMAX", "z")


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
