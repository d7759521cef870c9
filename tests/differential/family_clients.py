"""Generators: what a connection asks or says about itself and others, without losing its place in the conversation;
what changes how it talks is in test_dialogue.py."""

from draw import NOT_INTS
from registry import command, simple

FAMILY = "clients"
NOBODY = [b"9999999", b"123456789"]

simple("CLIENT|ID", "", 2, family=FAMILY)
simple("CLIENT|INFO", "", 2, family=FAMILY)
simple("CLIENT|GETREDIR", "", 2, family=FAMILY)
simple("CLIENT|TRACKINGINFO", "", 2, family=FAMILY)
simple("CLIENT|UNPAUSE", "", 2, family=FAMILY)
for name in ("ASKING", "READONLY", "READWRITE"):
    simple(name, "", 2, family=FAMILY)


@command("CLIENT|LIST", 4, family=FAMILY)
def _list(d):
    kind = d.pick([b"normal", b"master", b"replica", b"slave", b"pubsub", b"nosuch"])
    ids = [d.pick([*NOBODY, b"0", b"-1", *NOT_INTS]) for _ in range(1 + d.n(3))]
    how = d.pick([[], [d.option(b"TYPE"), kind], [d.option(b"ID")] + ids, [b"ID"], [b"TYPE"], [b"NOSUCH", b"x"]])
    return [b"CLIENT", d.option(b"LIST")] + how


@command("CLIENT|KILL", 5, mutate=False, family=FAMILY)
def _kill(d):
    """Nobody who is there."""
    filters = [
        lambda: [d.option(b"ID"), d.pick([*NOBODY, b"0", b"-1", b"x"])],
        lambda: [d.option(b"ADDR"), d.pick([b"127.0.0.1:1", b"nonsense", b""])],
        lambda: [d.option(b"LADDR"), d.pick([b"127.0.0.1:1", b""])],
        lambda: [d.option(b"TYPE"), d.pick([b"master", b"replica", b"slave", b"nosuch"])],
        lambda: [d.option(b"USER"), d.pick([b"nosuch", b""])],
    ]
    nobody = [b"ID", d.pick(NOBODY)]
    more = [word for _ in range(d.n(3)) for word in d.pick(filters)()]
    skip = [b"SKIPME", d.pick([b"yes", b"NO", b"maybe"])] if d.chance(25) else []
    tail = d.pick([[], [], [], [b"ID"], [b"NOSUCH", b"x"]])
    if d.chance(25):
        return [b"CLIENT", b"KILL", d.pick([b"127.0.0.1:1", b"x", b""])]
    return [b"CLIENT", b"KILL"] + nobody + more + skip + tail


@command("CLIENT|UNBLOCK", 4, family=FAMILY)
def _unblock(d):
    tail = d.pick([[], [b"TIMEOUT"], [b"ERROR"], [b"error"], [b"nosuch"]])
    return [b"CLIENT", d.option(b"UNBLOCK"), d.pick([*NOBODY, *NOT_INTS, b"0", b"-1"])] + tail


command("CLIENT|NO-EVICT", 3, family=FAMILY)(lambda d: [b"CLIENT", b"NO-EVICT", d.pick([b"on", b"OFF", b"ON", b"maybe"])])


@command("CLIENT|CACHING", 3, family=FAMILY)
def _caching(d):
    return [b"CLIENT", b"CACHING", d.pick([b"yes", b"NO", b"maybe"])]
