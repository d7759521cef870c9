"""Sequences that once told the two servers apart, run on both again.  Lines as in a failure's file: see replay.py."""

import pytest

from replay import read
from runner import Runner
from servers import both

OTHER, BACK = "# connection 1", "# connection 0"

EVERYWHERE = [
    ["EXEC abc"],
    ["SET a{x} 1", "WATCH a{x}", "MULTI", "SET a{x} 2", "EXEC abc", "EXEC", "GET a{x}", "SET a{x} 3", "MULTI", "EXEC"],
    ["MULTI", "COMMAND abc", "EXEC"],
    ["COMMAND INFO nosuch", "COMMAND INFO append lmove config|get object|encoding sort set", "COMMAND abc"],
    ["COMMAND DOCS getset debug cluster|slots nosuch rpoplpush hmset georadius substr"],
    # a flush spoils the transactions that watch what was there, and no others
    ["WATCH a{x}", OTHER, "FLUSHALL", BACK, "MULTI", "ECHO x", "EXEC"],
    ["SET a{x} 1", "WATCH a{x}", OTHER, "FLUSHALL", BACK, "MULTI", "ECHO x", "EXEC"],
    ["SET a{x} 1", "WATCH none{x} a{x}", OTHER, "FLUSHDB", BACK, "MULTI", "EXEC"],
    # a key that is over before WATCH, and is deleted after it
    ["SET a{x} 1 PX 1", "# sleep 5 ms", "WATCH a{x}", OTHER, "GET a{x}", BACK, "MULTI", "EXEC"],
    ["SET a{x} 1 PX 1", "# sleep 5 ms", "WATCH a{x}", OTHER, "SET a{x} 2", BACK, "MULTI", "EXEC"],
    ["SET a{x} 1 PX 1", "# sleep 5 ms", "WATCH a{x}", OTHER, "FLUSHALL", BACK, "MULTI", "EXEC"],
    ["SET a{x} 1 PX 5", "WATCH a{x}", "# sleep 10 ms", "MULTI", "EXEC"],
    # what comes after the end of a transaction's hopes is queued in name only
    ["SET a{x} 1", "WATCH a{x}", OTHER, "SET a{x} 2", BACK, "MULTI", "GET a{x}", "GET b", "GET c", "EXEC"],
    ["MULTI", "SET a{x}", "GET b", "GET c", "EXEC", "GET a{x}"],
    # sorting leaves a sorted set in the encoding of large ones
    ["ZADD z{x} 1 a 2 b", "SORT_RO z{x} ALPHA LIMIT 0 0", "OBJECT ENCODING z{x}", "DUMP z{x}"],
    ["ZADD z{x} 1 a 2 b", "SORT z{x}", "OBJECT ENCODING z{x}", "COPY z{x} y{x}", "OBJECT ENCODING y{x}"],
    ["ZADD z{x} 1 a 2 b", "SORT z{x} NOSUCH", "OBJECT ENCODING z{x}"],
    # ZSCAN shows scores as they are kept
    ["ZADD z{x} 1e17 a 5e18 b 4611686018427387904 c -0 d 0.1 e inf f -1e18 g", "ZSCAN z{x} 0", "SORT z{x}", "ZSCAN z{x} 0"],
    # the sign of zero lives in skiplists only: loading one must not go through a listpack
    ["# profile 1", "ZADD z{x} 0 a 0 b 0 c 0 d 4 e 8 f 9 g", "ZADD z{x} -0 h"],
    ["# profile 1", "ZADD z{x} 1 a 2 a_member_that_is_long", "ZADD z{x} -0 h"],
    ["# profile 1", "ZADD z{x} -0 a 1 b 2 a_member_that_is_long", "ZRANGESTORE y{x} z{x} 0 -1 REV", "ZRANGESTORE w{x} z{x} 0 -1",
     "ZRANGE y{x} 0 -1 WITHSCORES", "ZRANGE w{x} 0 -1 WITHSCORES"],
]

EVERYWHERE += [
    ["EVALSHA x x a{x}", "EVALSHA x -1 a{x}", "EVALSHA " + "0" * 40 + " x a{x}", 'EVAL "return redis.pcall(\'get\', nil)" 0'],
    ["XGROUP CREATE x{x} g 0 MKSTREAM", "XGROUP SETID x{x} g +", "XINFO GROUPS x{x}", "XGROUP SETID x{x} g -", "XINFO GROUPS x{x}",
     "XGROUP SETID x{x} g 1 ENTRIESREAD 1 ENTRIESREAD 1", "XGROUP CREATE x{x} g2 1 ENTRIESREAD 1 MKSTREAM MKSTREAM", "XGROUP CREATE x{x} g2 +"],
    ["CONFIG GET DATABASES databases Data*", "CONFIG GET list-COMPRESS-depth", 'CONFIG SET client-output-buffer-limit ""'],
    ["COMMAND LIST FILTERBY ACLCAT geo", "COMMAND LIST FILTERBY PATTERN xa*", "CLIENT HELP"],
    ['SET "" x', "KEYS *", "KEYS **", "SCAN 0 MATCH **", "SLOWLOG get 0 x", "CLIENT pause 1 ALL x"],
    ["MULTI", "SSUBSCRIBE c{x}", "EXEC"],
    # rdbcompression is off
    ["# profile 1", "XGROUP CREATE x{x} %s 0 MKSTREAM" % ("g" * 60), "SET s{x} %s" % ("s" * 60), "DUMP s{x}", "DUMP x{x}"],
    ["MULTI", "SPUBLISH c 1", "SET a{x} 1", "EXEC"],
    ["MULTI", "RPUSH plain abc", "BLMPOP 0 1.0 l{x} plain LEFT", "EXEC", "COMMAND GETKEYS ZUNION 1.0 a", "COMMAND GETKEYS EVAL x +1 a"],
    ['FUNCTION RESTORE "\\xf5\\n\\x00?\\x97u!\\x84\\xd9\\\\\\xa4"', 'FUNCTION LOAD REPLACE "%s" x' % ("y" * 300)],
]  # fmt: skip

# the first fault of a payload is told, be it one of the libraries or of what follows them
EVERYWHERE += [
    ['FUNCTION RESTORE "\\xf5:#!lua name=a\\nredis.register_function(\'fa\', function() end)\\xf5:#!lua name=g\\nredis.register_function(\'fa\', function() end)\\xf5\\x14#!lua name=c\\nnosuch(\\n\\x00yFfG\\xb2\\xf0\\x93\\xe6" REPLACE'],
    ['FUNCTION RESTORE "\\xf5\\x14#!lua name=c\\nnosuch(\\x00\\x01a\\n\\x00\\xa4\\x18i\\x1fy\\n\\xaf\\x00" REPLACE'],
    ['FUNCTION RESTORE "\\xf5:#!lua name=a\\nredis.register_function(\'fa\', function() end)\\xf5:#!lua name=b\\nredis.register_function(\'fb\', function() end)\\xf5:#!lua name=a\\nredis.register_function(\'fc\', function() end)\\xf5\\x01x\\n\\x00\\xafQ\\xac\\x8b@u\\xf5\\t" REPLACE'],
    ['FUNCTION RESTORE "\\xf5:#!lua name=a\\nredis.register_function(\'fa\', function() end)\\x00\\n\\x00\\xd2\\xe30\\r\\x15h\\xb0r" REPLACE'],
]  # fmt: skip

# a sorted set that nobody has asked for in a while; commands that look for it to write count as access
IDLE = r'RESTORE k{x} 0 "\x05\x03\x02m2\x00\x00\x00\x00\x00\x00\x04@\x02m1\x00\x00\x00\x00\x00\x00\xf0?\x02m3\x00\x00\x00\x00\x00\x00\xf0\xff\n\x00h#d6\xbf\x0b\x06\x84" IDLETIME 1000'
EVERYWHERE += [
    [IDLE, command, "OBJECT IDLETIME k{x}"]
    for command in ["TTL k{x}", "EXISTS k{x}", "EXPIRE k{x} 100", "EXPIRE k{x} 9 XX", "PERSIST k{x}", "SETNX k{x} v",
                    "RENAME k{x} k{x}", "COPY k{x} k{x}|2", "LPUSHX k{x} a", "SMOVE none{x} k{x} a", "GET k{x}"]
]  # fmt: skip

# how much of an argument an error shows
LONG = "A" * 300
EVERYWHERE += [
    ["ACL CAT %s" % LONG, "ACL SETUSER u %s" % LONG, "ACL DRYRUN %s get a" % LONG, "HELLO 3 %s" % LONG, "EXPIRE a{x} 1 %s" % LONG],
    ["FUNCTION LIST %s" % LONG, "FUNCTION LOAD %s x" % (LONG * 5), "FUNCTION DELETE %s" % LONG, "CLIENT LIST TYPE %s" % LONG, "CLIENT KILL TYPE %s" % LONG],
    ["CLIENT KILL USER %s" % LONG, "CLIENT TRACKING on %s" % LONG, "CLIENT TRACKING on BCAST PREFIX %s PREFIX %s" % (LONG, LONG)],
    ["REPLCONF %s a" % LONG, "CONFIG SET maxmemory-policy %s" % LONG, "LATENCY GRAPH %s" % LONG, "CLUSTER %s" % LONG, LONG],
]  # fmt: skip
EVERYWHERE += [['FUNCTION LIST "quo\\"te\\r\\n"', 'FUNCTION LOAD "quo\\"te\\r\\n" x', 'CLIENT LIST TYPE "a\\n"']]
EVERYWHERE += [["SET s{x} abc", *(command + " s{x} 1" + rest for command in ("BITPOS", "BITCOUNT") for rest in (" 5 BYTE nan", " 5 x BIT", " x 5 y", " x y z", " 0 1 z"))]]
# what is out of range for a key that is there
EVERYWHERE += [
    [command + " " + count for count in ["-2147483649", "-4611686018427387904", "-9223372036854775807", "9223372036854775807"]]
    for command in ["ZRANDMEMBER none{x}", "SRANDMEMBER none{x}", "HRANDFIELD none{x}"]
] + [["ZRANDMEMBER none{x} -2147483649 WITHSCORES", "HRANDFIELD none{x} -4611686018427387904 WITHVALUES"]]
# a number of keys that is none
EVERYWHERE += [
    ["COMMAND GETKEYSANDFLAGS " + call, "COMMAND GETKEYS " + call]
    for call in ["EVAL x 1.5 k", "EVAL x 1 k", "EVALSHA x 1x k", "EVAL x -1 k", "LMPOP 1.5 k LEFT", "ZUNIONSTORE d 1.5 a", "ZUNIONSTORE d 1 a",
                 "ZINTERSTORE d 2x a b c", "BLMPOP 0 1.9 a LEFT", "SINTERCARD 1.5 a", "FCALL x +1 k", "ZDIFF 01 a"]
]  # fmt: skip

STANDALONE = [
    [IDLE.replace("{x}", ""), "MOVE k 1", "SELECT 1", "OBJECT IDLETIME k"],
    ["SET k 1", "SELECT 1", IDLE.replace("{x}", ""), "SELECT 0", "MOVE k 1", "SELECT 1", "OBJECT IDLETIME k"],
    ["WATCH a", OTHER, "SWAPDB 0 1", BACK, "MULTI", "EXEC"],
    ["SET a 1", "WATCH a", OTHER, "SWAPDB 0 1", BACK, "MULTI", "EXEC"],
    ["SET a 1", "WATCH a", OTHER, "SWAPDB 0 0", BACK, "MULTI", "EXEC"],
    ["SELECT 1", "SET a 1", "SELECT 0", "WATCH a", OTHER, "SWAPDB 1 0", BACK, "MULTI", "EXEC"],
    ["SELECT 1", "SET a 1 PX 1", "SELECT 0", "# sleep 5 ms", "WATCH a", OTHER, "SWAPDB 1 0", BACK, "MULTI", "EXEC"],
    ["SET a 1 PX 1", "# sleep 5 ms", "WATCH a", OTHER, "SWAPDB 0 1", "SWAPDB 0 1", BACK, "MULTI", "EXEC"],
]

# An earlier error does not save a transaction from being sent elsewhere.
CLUSTER = [
    ["MULTI", "EXISTS a", "EXISTS b", "DBSIZE abc", "EXEC"],
    ["MULTI", "EXISTS a", "EXISTS b", "EXEC", "EXEC"],
]
# A call for streams that is wrong as a whole is not sent elsewhere, either.
STREAMS = ["XREAD STREAMS a b 0", "XREAD STREAMS a b c 0 0 STREAMS d", "XREAD FOO STREAMS a b 0 0", "XREAD COUNT STREAMS a b 0", "XREAD STREAMS a b 0 0",
           "XREAD STREAMS STREAMS a 0", "XREAD COUNT 1 NOACK STREAMS a b 0 0", "XREADGROUP GROUP g c STREAMS a b 0", "XREADGROUP GROUP g STREAMS a b 0 0",
           "XREADGROUP GROUP g STREAMS STREAMS a b 0 0", "XREADGROUP STREAMS a b 0 x 1 GROUP g c", "XREADGROUP STREAMS a{x} b{x} 0 1 GROUP g",
           "XREADGROUP NOACK STREAMS a{x} 0 GROUP g{x} c"]  # fmt: skip
CLUSTER += [[call, "COMMAND GETKEYS " + call, "MULTI", call, "EXEC"] for call in STREAMS]


@pytest.mark.sanitizer
@pytest.mark.parametrize("cluster", [False, True], ids=["standalone", "cluster"])
def test_kept_sequences(cluster):
    with both(cluster=cluster) as servers:
        for version in (2, 3):
            runner = Runner(*servers, version)
            for lines in EVERYWHERE + (CLUSTER if cluster else STANDALONE):
                steps, profile, _ = read(lines)
                runner.run(steps, profile)
            runner.close()
