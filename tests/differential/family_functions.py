"""Generators: libraries of functions, and calls of what may be in them."""

import struct

from registry import command, number, simple
from seal import sealed

FAMILY = "functions"
HEAD = b"#!lua name=%s\n"
LIBRARIES = [b"lib1", b"lib2", b"lib1"]
FUNCTIONS = [b"f1", b"f2", b"f3", b"f1"]
BODIES = [
    b"redis.register_function('%s', function(keys, args) return redis.call('set', keys[1], args[1]) end)",
    b"redis.register_function('%s', function(keys, args) return {keys, args, #keys} end)",
    b"redis.register_function{function_name='%s', callback=function(keys) return redis.call('get', keys[1]) end,"
    b" flags={'no-writes'}, description='reads'}",
    b"redis.register_function{function_name='%s', callback=function() error('boom') end, flags={'allow-stale'}}",
    b"redis.register_function('%s', function() return redis.error_reply('MY mistake') end)",
]  # fmt: skip
BROKEN = [
    b"return 1", b"#!lua name=lib1\nreturn 1", b"#!lua name=lib1\nredis.register_function('f1')", b"#!lua\nreturn 1",
    b"#!js name=lib1\nx", b"#!lua name=bad-name\nx", b"#!lua name=lib1 name=lib2\nx", b"#!lua name=lib1 nosuch=1\nx", b"",
    b"#!lua name=lib1\nnonsense(", b"#!lua name=lib1\nredis.call('get', 'x')", b"#!lua name=lib1\nerror('at load')",
    b"#!lua name=lib1\nredis.register_function{function_name='f1', callback=print, flags={'nosuch'}}",
    b"#!lua name=lib1\nredis.register_function('f1', function() end) redis.register_function('f1', function() end)",
    b"#!lua name=lib1\nredis.register_function('bad-name', function() end)", b"#!lua name=lib1",
]  # fmt: skip


def library(d, own_name=None):
    names = [d.pick(FUNCTIONS) for _ in range(1 + d.n(2))]
    return HEAD % (own_name or d.pick(LIBRARIES)) + b"\n".join(d.pick(BODIES) % name for name in dict.fromkeys(names))


def code(d):
    return library(d) if not d.chance(20) else d.pick(BROKEN)


@command("FUNCTION|LOAD", 10, family=FAMILY)
def _load(d):
    return [b"FUNCTION", b"LOAD"] + ([d.option(b"REPLACE")] if d.chance(60) else []) + [code(d)]


@command("FUNCTION|DELETE", 3, family=FAMILY)
def _delete(d):
    name = d.pick(LIBRARIES) if not d.chance(15) else b"nosuch"
    loaded = [(0, [b"FUNCTION", b"LOAD", b"REPLACE", library(d, name)])] if d.chance(50) and name != b"nosuch" else []
    return [*loaded, (0, [b"FUNCTION", b"DELETE", name])]


@command("FUNCTION|LIST", 5, family=FAMILY)
def _list(d):
    name = [d.option(b"LIBRARYNAME"), d.pick([b"*", b"lib1", b"l*2", b"nosuch"])] if d.chance(40) else []
    with_code = [d.option(b"WITHCODE")] if d.chance(50) else []
    return [b"FUNCTION", b"LIST"] + (name + with_code if d.chance(50) else with_code + name) + ([b"x"] if d.chance(4) else [])


for name in ("STATS", "DUMP", "KILL"):
    simple("FUNCTION|" + name, "", 3, family=FAMILY)
command("FUNCTION|FLUSH", 2, family=FAMILY)(lambda d: [b"FUNCTION", b"FLUSH"] + d.pick([[], [b"ASYNC"], [b"sync"], [b"NOW"]]))


def payload(d):
    """What FUNCTION DUMP gives: a library after each type byte, and the seal of DUMP.  Libraries of one name are refused
    for the first reason that a server comes upon, so there are none."""
    texts = [library(d, name) for name in LIBRARIES[: d.n(3)]] if not d.chance(20) else [code(d)]
    body = b"".join(b"\xf5" + struct.pack(">H", 1 << 14 | len(text)) + text for text in texts)
    return sealed(body) if not d.chance(8) else d.pick([b"", b"short", sealed(b"\xf5"), sealed(b"\x00\x01a"), sealed(body, 99)])


@command("FUNCTION|RESTORE", 5, mutate=False, family=FAMILY)
def _restore(d):
    how = d.pick([[], [b"FLUSH"], [b"append"], [b"REPLACE"], [b"REPLACE"], [b"NOSUCH"]])
    return [b"FUNCTION", b"RESTORE", payload(d)] + how


for name in (b"FCALL", b"FCALL_RO"):

    @command(name.decode(), 10, family=FAMILY)
    def _fcall(d, name=name):
        keys = [d.any_key() for _ in range(1 + d.n(2))] if not d.chance(10) else []
        count = number(len(keys)) if not d.chance(8) else d.pick([b"-1", b"x", b"9", b"0"])
        if d.chance(40):  # loaded for it
            return [(0, [b"FUNCTION", b"LOAD", b"REPLACE", HEAD % b"lib1" + BODIES[2] % b"f1"]), (0, [name, b"f1", b"1", keys[0] if keys else b"none{a}"])]
        return [name, d.pick(FUNCTIONS) if not d.chance(6) else b"nosuch", count, *keys] + [d.short() for _ in range(d.n(3))]
