"""covey proxy: clients of RESP3 in front of nodes that do not know HELLO get what a node of RESP3 would have said."""
import os
import random
import shlex
import threading

import pytest

import covey
from test_proxy import Proxy, comparable, random_request
from wire import Push, Wire

if covey.COVEY_IS_REDIS:
    pytest.skip("the proxy is Covey's", allow_module_level=True)

COMMANDS = """
FLUSHALL
HSET {t}h a 1
SADD {t}s 1
ZADD {t}z 1 a 2.5 b inf c
GEOADD {t}g 13.361389 38.115556 P 15.087269 37.502669 C
XADD {t}x 1-1 a b
XGROUP CREATE {t}x grp 0
XREADGROUP GROUP grp me STREAMS {t}x >
XREADGROUP GROUP grp me STREAMS {t}x 0
SET {t}k vx
SET {t}k2 vvx
XINFO STREAM {t}x
XPENDING {t}x grp
XRANGE {t}x - +
XREAD STREAMS {t}x 0
XREAD STREAMS {t}x 9
XREAD BLOCK 10 STREAMS {t}x 9
GEOPOS {t}g P none
GEODIST {t}g P C
GEOSEARCH {t}g FROMMEMBER P BYRADIUS 500 km WITHCOORD WITHDIST WITHHASH
GEORADIUS {t}g 15 37 200 km WITHCOORD
GEORADIUS {t}g 15 37 200 km
ZSCORE {t}z a
ZSCORE {t}z none
ZMSCORE {t}z a none c
ZADD {t}z INCR 1 a
ZADD {t}z NX INCR 1 a
ZINCRBY {t}z 1.25 a
ZRANGE {t}z 0 -1 WITHSCORES
ZRANGE {t}z 0 -1
ZRANGEBYSCORE {t}z -inf +inf WITHSCORES LIMIT 0 2
ZREVRANGE {t}z 0 -1 WITHSCORES
ZUNION 1 {t}z WITHSCORES
ZINTER 1 {t}z WITHSCORES
ZDIFF 2 {t}z {t}none WITHSCORES
ZRANDMEMBER {t}z -0 WITHSCORES
HRANDFIELD {t}h 1 WITHVALUES
HRANDFIELD {t}h 1
ZPOPMIN {t}none
ZMPOP 1 {t}none MIN
ZMPOP 1 {t}z MIN COUNT 1
ZPOPMAX {t}z
ZADD {t}z 1 a 2 b 3 c
ZPOPMIN {t}z 2
BZPOPMIN {t}z 1
ZADD {t}z 1 a 2 b 3 c
BZMPOP 1 1 {t}z MAX
BZPOPMIN {t}none 0.01
BLPOP {t}none 0.01
HGETALL {t}h
HGETALL {t}none
HMGET {t}h a z
SMEMBERS {t}s
SUNION {t}s {t}none
SPOP {t}s 1
SPOP {t}s
LCS {t}k {t}k2 IDX WITHMATCHLEN
LCS {t}k {t}k2
COMMAND INFO get config nosuch xgroup eval
COMMAND DOCS get config|get
COMMAND DOCS set expire georadius acl
COMMAND GETKEYSANDFLAGS set a b
COMMAND COUNT
FUNCTION STATS
FUNCTION LIST
EVAL "return {1,false,'a',{false}}" 0
EVAL "return false" 1 {t}k
OBJECT ENCODING {t}none
GET {t}none
SET {t}q 1 GET
MGET {t}k {u}none {t}k2 {v}none
SORT {t}none
BITFIELD {t}b SET u8 0 1 OVERFLOW FAIL INCRBY u8 0 255
TYPE {t}h
INCR {t}h
SUBSCRIBE a b
PUBLISH a hello
UNSUBSCRIBE a b
MULTI
HGETALL {t}h
ZRANGE {t}z 0 -1 WITHSCORES
GET {t}none
INCR {t}h
EXEC
MULTI
SET {t}w 1
DISCARD
""".strip().split("\n")


def raw_reply(wire):
    """One reply as it came."""
    line = wire.line()
    kind, rest = line[:1], line[1:-2]
    if kind in b"$=" and int(rest) >= 0:
        return line + wire.exactly(int(rest) + 2)
    if kind in b"*~>%" and int(rest) >= 0:
        return line + b"".join(raw_reply(wire) for _ in range(int(rest) * (2 if kind == b"%" else 1)))
    return line


@pytest.fixture(scope="module", params=["one", "cluster"])
def old(request, module_servers):
    """A proxy in front of nodes that know no HELLO, and a server of its own to compare with."""
    settings = {"rename_command": ["HELLO", ""]}
    if request.param == "one":
        nodes = [module_servers.node("redis", **settings)]
    else:
        nodes = module_servers.cluster(["redis"] * 3, **settings).nodes
    return Proxy(module_servers, nodes), module_servers.node("redis")


def test_replies_byte_by_byte(old):
    proxy, oracle = old
    with Wire(proxy, 3) as mine, Wire(oracle, 3) as its:
        for line in COMMANDS:
            words = shlex.split(line)
            count = {"SUBSCRIBE": 2, "UNSUBSCRIBE": 2, "PUBLISH": 2}.get(words[0], 1)
            if words[0] == "COMMAND" and words[1] == "COUNT":
                continue
            for wire in (mine, its):
                wire.send(*words)
            got, want = (sorted(raw_reply(wire) for _ in range(count)) for wire in (mine, its))
            if words[0] == "PUBLISH":
                want = [b":0\r\n" if reply == b":1\r\n" and got[1] == b":0\r\n" else reply for reply in want]
            if words[0] == "COMMAND":  # subcommands have no order
                got, want = (sorted(b"".join(replies)) for replies in (got, want))
            assert got == want, line


def test_random_requests(old):
    proxy, oracle = old
    seed = int(os.environ.get("COVEY_TEST_SEED", random.randrange(10 ** 6)))
    print(f"seed {seed}")
    rng = random.Random(seed)
    with Wire(proxy, 3) as mine, Wire(oracle, 3) as its:
        mine("FLUSHALL"), its("FLUSHALL")
        for _ in range(60):
            requests = [random_request(rng) for _ in range(40)]
            for words in requests:
                mine.send(*words)
            replies = mine.many(len(requests))
            pairs = [(w, r) for w, r in zip(requests, replies) if not str(r).startswith("CROSSSLOT")]
            for words, _ in pairs:
                its.send(*words)
            for (words, got), want in zip(pairs, its.many(len(pairs))):
                assert comparable(words, got) == comparable(words, want), f"seed {seed}: {words}"


def test_passwords_and_pushes(servers):
    node = servers.node("redis", rename_command=["HELLO", ""], requirepass="secret", wait=False)
    covey.wait_for("the node to listen", lambda: node.raw().close() is None)
    proxy = Proxy(servers, [node], node_password="secret")
    with Wire(proxy, 3) as listener, Wire(proxy, 3) as one, Wire(proxy, 2) as two:
        listener.send("SUBSCRIBE", "news")
        assert listener.read() == Push([b"subscribe", b"news", 1])
        assert listener("PING") == "PONG" and listener("GET", "k") is None
        assert two("PUBLISH", "news", "hi") == 1
        message = listener.read()
        assert isinstance(message, Push) and message == [b"message", b"news", b"hi"]
        assert two("HSET", "h", "f", "v") == 1 and two("HGETALL", "h") == [b"f", b"v"] and one("HGETALL", "h") == {b"f": b"v"}
        assert one("WATCH", "h") == "OK" and one("MULTI") == "OK" and one("HGETALL", "h") == "QUEUED"
        assert one("EXEC") == [{b"f": b"v"}]
        threading.Timer(0.2, lambda: Wire(proxy)("RPUSH", "q", "x")).start()
        assert one("BLPOP", "q", 5) == [b"q", b"x"]


def test_wait_marks_its_connection(servers):
    """From Redis 7.2 on WAIT asks for the connection's own last write. A node that does not tell its version is taken for
    such a one: what is put in front goes to the replica, and is an error to the client where the node refuses it."""
    primary = servers.node("redis", rename_command=["HELLO", ""])
    replica = servers.node("redis", replicaof=f"127.0.0.1 {primary.port}")
    covey.wait_in_sync(primary, replica)
    primary.cmd("ACL", "SETUSER", "proxy", "ON", ">secret", "~*", "&*", "+@all")
    proxy = Proxy(servers, [primary], node_user="proxy", node_password="secret")
    library = "#!lua name=lib\nredis.register_function('f', function() return 1 end)"
    with Wire(proxy, 2) as wire:
        assert wire("FUNCTION", "LOAD", library) == b"lib"
        assert wire("SET", "a", 1) == "OK" and wire("WAIT", 1, 5000) == 1
        assert wire("FCALL", "f", 0) == 1  # nothing was taken away
        replica.pause()
        try:
            assert wire("SET", "a", 2) == "OK" and wire("WAIT", 1, 300) == 0
        finally:
            replica.resume()
        assert wire("WAIT", 1, 10000) == 1
        primary.cmd("ACL", "SETUSER", "proxy", "-function|restore")
        assert wire("WAIT", 1, 1000) == ("ERR the node counts the writes of each connection and refuses FUNCTION RESTORE, "
                                         "so WAIT cannot be answered")
        assert wire("GET", "a") == b"2"
