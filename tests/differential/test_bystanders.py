"""The differential test of what changes how a connection is served without being a reply itself: CLIENT REPLY, which takes
replies away, MONITOR, which shows the commands of others, and CLIENT PAUSE, which makes them wait."""

import random
import re
import select
import socket
import time

import pytest

import grammar
from draw import Context
from resp import Connection
from runner import quoted
from sequences import BLOCK, base_seed, how_many
from servers import PATIENCE, both

EXAMPLES = how_many(2000, 150)
MONITORED = how_many(200, 20)


@pytest.fixture(scope="module", params=[False, True], ids=["standalone", "cluster"])
def servers(request):
    with both(cluster=request.param) as pair:
        grammar.learn(*pair)
        yield pair


# ---- CLIENT REPLY


def reply_step(rng):
    return rng.choice([
        [b"CLIENT", b"REPLY", rng.choice([b"ON", b"OFF", b"SKIP", b"skip", b"off", b"maybe"])],
        [b"CLIENT", b"REPLY", rng.choice([b"SKIP", b"SKIP", b"OFF", b"ON"])],
        [b"CLIENT", b"REPLY"], [b"SET", b"a{a}", b"%d" % rng.randrange(100)], [b"GET", b"a{a}"], [b"GET"], [b"NOSUCH"], [b"MULTI"], [b"EXEC"],
        [b"DISCARD"], [b"INCR", b"n{a}"], [b"LRANGE", b"a{a}", b"0", b"-1"], [b"PING"], [b"ECHO", b"x" * rng.randrange(3000)],
        [b"HELLO", rng.choice([b"2", b"3", b"4"])], [b"SUBSCRIBE", b"c"], [b"UNSUBSCRIBE"], [b"PUBLISH", b"c", b"m"], [b"RESET"],
        [b"EVAL", b"redis.call('incr', KEYS[1]); return {1, 2}", b"1", b"n{a}"], [b"CLIENT", b"TRACKING", rng.choice([b"ON", b"OFF"])],
        [b"CLIENT", b"SETNAME", b"me"], [b"BLPOP", b"none{a}", b"0.01"], [b"TYPE", b"a{a}"],
    ])  # fmt: skip


def reply_steps(rng):
    """Without CLIENT REPLY in a transaction: the oracle takes away the elements of EXEC's array and not the array."""
    steps, multi = [[reply_step(rng) for _ in range(1 + rng.randrange(6))] for _ in range(1 + rng.randrange(5))], False
    for step in steps:
        for at, argv in enumerate(step):
            multi = argv[0] == b"MULTI" or (multi and argv[0] not in (b"EXEC", b"DISCARD", b"RESET"))
            if multi and argv[:2] == [b"CLIENT", b"REPLY"]:
                step[at] = [b"PING"]
    return steps


def what_comes(server, steps):
    """All that comes up to a sign, commands sent in pieces of one write."""
    conn = Connection(("127.0.0.1", server.port), timeout=20 * PATIENCE)
    conn.call("FLUSHALL")
    try:
        for commands in steps:
            conn.send(commands)
        conn.send([[b"RESET"], [b"CLIENT", b"REPLY", b"ON"], [b"ECHO", b"the end"]])
        out = []
        while not out or out[-1] != ("$", b"the end"):
            out.append(conn.receive(1)[0])
        return out
    finally:
        conn.close()


def without_ids(reply):
    """HELLO tells the connection's ID and versions."""
    if reply[0] in "*%" and reply[1] and b"redis" in repr(reply).encode():
        return reply[0], len(reply[1])
    return reply


@pytest.mark.sanitizer
def test_client_reply(servers):
    for number in range(EXAMPLES):
        rng = random.Random(base_seed() * 1000033 + number)
        steps = reply_steps(rng)
        one, two = (list(map(without_ids, what_comes(server, steps))) for server in servers)
        assert one == two, "example %d:\n%s" % (number, "\n".join(" ".join(map(quoted, argv)) for step in steps for argv in step))


# ---- MONITOR

LINE = re.compile(rb"^\d+\.\d{6} \[(\d+) (lua|unix:\S*|[\d.]+:\d+|\S*)\] (.*)$", re.S)
# They wait for others, or end the connection; of the last two the oracle knows fewer arguments, and does not execute them.
NOT_MONITORED = """BLPOP BRPOP BLMOVE BRPOPLPUSH BLMPOP BZPOPMIN BZPOPMAX BZMPOP XREAD XREADGROUP WAIT MIGRATE SUBSCRIBE PSUBSCRIBE
SSUBSCRIBE QUIT RESET CLIENT|KILL ZRANK ZREVRANK""".split()


def monitored(server, steps):
    """[(database, by a script, command as shown), ...]"""
    feed, conns = server.connect(), [server.connect() for _ in range(2)]
    assert feed.call("MONITOR") == ("+", b"OK")
    lines = []
    for link, argv in steps:
        if argv[0] != grammar.SLEEP:
            conns[link].pipeline([argv])
    conns[0].pipeline([[b"DISCARD"], [b"ECHO", b"the end"]])
    while not lines or not lines[-1][2].endswith(b'"the end"'):
        kind, text = feed.receive(1)[0]
        match = LINE.match(text)
        assert kind == "+" and match, text
        lines.append((match[1], match[2] == b"lua", match[3]))
    for conn in (feed, *conns):
        conn.close()
    return lines


@pytest.mark.sanitizer
def test_monitor(servers):
    admin = [server.connect() for server in servers]
    chosen = grammar.chooser([name for name in grammar.TABLE if name not in NOT_MONITORED])
    for number in range(MONITORED):
        rng = random.Random(base_seed() * 1000037 + number)
        made = [rng.randbytes(BLOCK - 1) for _ in range(60)]
        for conn in admin:
            conn.pipeline([[b"SELECT", b"0"], [b"FLUSHALL"], [b"SCRIPT", b"FLUSH"], [b"FUNCTION", b"FLUSH"]])
        steps = grammar.sequence(made, Context(int(time.time()), [b"\x00\x01a" + b"\0" * 10]), 8, chosen)
        one, two = (monitored(server, steps) for server in servers)
        at = next((i for i, (a, b) in enumerate(zip(one, two)) if a != b), min(len(one), len(two)))
        assert one == two, "example %d, line %d:\n%r\n%r\nbefore:\n%s" % (
            number, at, one[at : at + 3], two[at : at + 3], "\n".join(map(str, one[max(0, at - 8) : at])))  # fmt: skip
    for conn in admin:
        conn.close()


# ---- CLIENT PAUSE

PREPARED = ["SET s{a} v", "RPUSH l{a} 1 2", "PFADD h{a} x", "RPUSH p{a} 1 2", "SET gone{a} v PX 400"]
# Each on a connection of its own; a line with | is sent at once.
PAUSED = ["GET s{a}", "SET x{a} 1", "DEL none{a}", "PING", "ECHO x", "PUBLISH c m", "SPUBLISH c{a} m", "PFCOUNT h{a}", "PFCOUNT h{a} h2{a}",
          "EVAL 'return redis.call(\"get\",KEYS[1])' 1 s{a}", "EVAL 'return redis.call(\"set\",KEYS[1],1)' 1 y{a}", "EVAL_RO 'return 1' 0",
          "EVAL 'return 1' 0", "EVAL 'wrong(' 0", "EVALSHA x 0", "EVAL '#!lua flags=no-writes\nreturn 1' 0", "FCALL f 0", "FCALL_RO f 0", "SCRIPT LOAD 'return 1'",
          "EVAL '#!lua flags=allow-stale\nreturn 1' 0", "FCALL reads 0", "FCALL writes 0", "SCRIPT EXISTS x", "FUNCTION LOAD x", "FUNCTION STATS", "MULTI | GET s{a} | EXEC", "MULTI | SET z{a} 1 | EXEC",
          "MULTI | SET z{a} 1 | DISCARD", "MULTI | PUBLISH c m | EXEC", "MULTI | SET z{a} | EXEC", "BLPOP none{a} 0.01", "BLPOP p{a} 1", "SORT l{a}",
          "SORT_RO l{a}", "SORT l{a} STORE d{a}", "GETEX s{a}", "GEORADIUS none{a} 1 1 1 m", "EXPIRE s{a} 100", "SET", "NOSUCH", "CONFIG GET save",
          "CLIENT GETNAME", "HELLO", "SUBSCRIBE other", "EXISTS gone{a}", "RANDOMKEY", "XREAD COUNT 1 STREAMS none{a} 0",
          "XREADGROUP GROUP g c STREAMS none{a} >", "SELECT 0", "WATCH s{a}", "UNWATCH", "OBJECT ENCODING s{a}", "DUMP s{a}", "TOUCH s{a}", "MEMORY USAGE none{a}",
          "LATENCY RESET", "SLOWLOG GET 0", "ACL WHOAMI", "INFO nosuch", "SCAN 0 COUNT 100 TYPE nosuch", "GETDEL none{a}", "LMPOP 1 none{a} LEFT"]  # fmt: skip
LIBRARY = b"""#!lua name=lib
redis.register_function{function_name = 'reads', callback = function() return 1 end, flags = {'no-writes'}}
redis.register_function('writes', function() return redis.call('set', 'f{a}', 1) end)"""
ADMINISTRATIVE = ("CONFIG", "LATENCY", "SLOWLOG")  # go through here: docs/compatibility.md
NO_REPLY_COMPARED = ("HELLO", "RANDOMKEY", "MEMORY USAGE")


def words(line):
    parts = [part.strip() for part in line.split(" | ")]
    return [[word.strip("'").encode() for word in re.findall(r"'[^']*'|\S+", part)] for part in parts]


def peek(sock):
    return sock.recv(1 << 16, socket.MSG_PEEK) if select.select([sock], [], [], 0)[0] else b""


def during_a_pause(server, mode):
    """(DBSIZE while it lasts, {line: (what came while it lasted, replies)})"""
    admin, conns = server.connect(), {line: server.connect() for line in PAUSED}
    admin.call("FLUSHALL")
    admin.pipeline([*(words(line)[0] for line in PREPARED), [b"FUNCTION", b"LOAD", b"REPLACE", LIBRARY]])
    lasts = 60000 if mode == ["WRITE"] else 1200 * PATIENCE  # which holds up CLIENT UNPAUSE, too
    assert admin.call("CLIENT", "PAUSE", lasts, *mode) == ("+", b"OK")
    time.sleep(0.6)
    for line, conn in conns.items():
        conn.send(words(line))
    time.sleep(0.4 * PATIENCE)
    early = {line: peek(conn.sock) for line, conn in conns.items()}
    # What is over during a pause is hidden, and deleted after it.
    size = admin.call("DBSIZE") if mode == ["WRITE"] else None
    if mode == ["WRITE"]:
        assert admin.call("CLIENT", "UNPAUSE") == ("+", b"OK")
    replies = {line: conn.receive(len(words(line))) for line, conn in conns.items()}
    out = {line: (bool(early[line]),) if line.startswith(NO_REPLY_COMPARED) else (early[line], replies[line]) for line in PAUSED}
    for conn in (admin, *conns.values()):
        conn.close()
    return size, out


@pytest.mark.sanitizer
@pytest.mark.parametrize("mode", [["WRITE"], ["ALL"], []], ids=["write", "all", "default"])
def test_client_pause(servers, mode):
    (size, one), (size2, two) = (during_a_pause(server, mode) for server in servers)
    compared = [line for line in PAUSED if not line.startswith(ADMINISTRATIVE)]
    assert not (differ := {line: (one[line], two[line]) for line in compared if one[line] != two[line]}), differ
    assert size == size2
    assert not one["SET x{a} 1"][0] and (mode != ["WRITE"] or one["GET s{a}"][0])


def test_client_pause_arguments(servers):
    for line in ("CLIENT PAUSE", "CLIENT PAUSE x", "CLIENT PAUSE -1", "CLIENT PAUSE 1 NOSUCH", "CLIENT PAUSE 1 write x", "CLIENT PAUSE 0 write",
                 "CLIENT PAUSE 9223372036854775807 WRITE", "CLIENT UNPAUSE", "CLIENT PAUSE 1", "CLIENT UNPAUSE x", "CLIENT UNPAUSE"):  # fmt: skip
        one, two = (server.connect().pipeline(words(line)) for server in servers)
        for server in servers:
            server.connect().call("CLIENT", "UNPAUSE")
        assert one == two, line
