"""Generators: scripts.  What Lua itself does is in scripts.txt; here scripts meet the keys of other commands."""

import hashlib

from registry import command, number

FAMILY = "scripts"
TEXTS = [
    b"return 1",
    b"return {1, 2, {3, 'x'}, false}",
    b"return redis.call('get', KEYS[1])",
    b"return redis.call('set', KEYS[1], ARGV[1])",
    b"return redis.pcall('incr', KEYS[1])",
    b"return redis.call('rpush', KEYS[1], unpack(ARGV))",
    b"redis.call('hset', KEYS[1], 'f', ARGV[1]) return redis.call('hget', KEYS[1], 'f')",
    b"redis.call('zadd', KEYS[1], 1, ARGV[1]) return redis.call('zrange', KEYS[1], 0, -1, 'withscores')",
    b"return redis.call('del', KEYS[1], KEYS[2])",
    b"return {KEYS[1], KEYS[2], ARGV[1], ARGV[2], #KEYS, #ARGV}",
    b"return redis.error_reply('MY mistake')",
    b"return redis.status_reply('FINE')",
    b"return tonumber(ARGV[1])",
    b"redis.setresp(3) return redis.call('zscore', KEYS[1], 'm1')",
    b"return redis.pcall('nosuch')",
    b"local t = redis.pcall('lpop', KEYS[1]) if type(t) == 'table' then return t.err end return t",
    b"return redis.sha1hex(ARGV[1])",
    b"#!lua flags=no-writes\nreturn redis.call('exists', KEYS[1])",
    b"#!lua flags=no-writes\nreturn redis.call('set', KEYS[1], '1')",
    b"#!lua flags=nosuch\nreturn 1",
    b"error('boom')",
    b"return nosuch",
    b"return (",
    b"redis.call('select', '1') redis.call('set', KEYS[1], 'x') return 1",
    b"return redis.call('xadd', KEYS[1], '1-1', 'a', ARGV[1])",
]


def tail(d):
    keys = [d.any_key() for _ in range(1 + d.n(2))] if not d.chance(10) else []
    count = number(len(keys)) if not d.chance(8) else d.pick([b"-1", b"x", b"9", b"0"])
    return [count, *keys] + [d.short() for _ in range(d.n(3))]


def digest(d):
    text = d.pick(TEXTS)
    made = hashlib.sha1(text).hexdigest().encode() if not d.chance(8) else d.pick([b"0" * 40, b"x", b""])
    return text, made.upper() if d.chance(10) else made


command("EVAL", 14, family=FAMILY)(lambda d: [b"EVAL", d.pick(TEXTS)] + tail(d))
command("EVAL_RO", 8, family=FAMILY)(lambda d: [b"EVAL_RO", d.pick(TEXTS)] + tail(d))
for name in (b"EVALSHA", b"EVALSHA_RO"):

    @command(name.decode(), 7, family=FAMILY)
    def _evalsha(d, name=name):
        text, sha = digest(d)
        call = [name, sha] + tail(d)
        return [(0, [b"SCRIPT", b"LOAD", text]), (0, call)] if d.chance(60) else call


command("SCRIPT|LOAD", 5, family=FAMILY)(lambda d: [b"SCRIPT", b"LOAD", d.pick(TEXTS)])
command("SCRIPT|EXISTS", 4, family=FAMILY)(lambda d: [b"SCRIPT", b"EXISTS"] + [digest(d)[1] for _ in range(1 + d.n(3))])
command("SCRIPT|FLUSH", 2, family=FAMILY)(lambda d: [b"SCRIPT", b"FLUSH"] + d.pick([[], [b"ASYNC"], [b"sync"], [b"NOW"]]))
command("SCRIPT|KILL", 1, family=FAMILY)(lambda d: [b"SCRIPT", b"KILL"])
