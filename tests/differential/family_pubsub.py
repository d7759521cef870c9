"""Generators: publishing without listeners, and questions about them; listeners are in test_dialogue.py."""

from registry import command, simple

FAMILY = "pubsub"
CHANNELS = [b"c1", b"c2", b"{a}c", b"", b"news.\xff"]
PATTERNS = [b"*", b"c?", b"[a-c]*", b"nosuch", b""]

command("PUBLISH", 4, family=FAMILY)(lambda d: [b"PUBLISH", d.pick(CHANNELS), d.short()])
command("SPUBLISH", 4, family=FAMILY)(lambda d: [b"SPUBLISH", d.pick(CHANNELS), d.short()])
simple("PUBSUB|NUMPAT", "", 2, family=FAMILY)
for name in (b"CHANNELS", b"SHARDCHANNELS"):
    command("PUBSUB|" + name.decode(), 3, family=FAMILY)(
        lambda d, name=name: [b"PUBSUB", d.option(name)] + ([d.pick(PATTERNS)] if d.chance(60) else []))  # fmt: skip
for name in (b"NUMSUB", b"SHARDNUMSUB"):
    command("PUBSUB|" + name.decode(), 3, family=FAMILY)(
        lambda d, name=name: [b"PUBSUB", d.option(name)] + [d.pick(CHANNELS) for _ in range(d.n(4))])  # fmt: skip
