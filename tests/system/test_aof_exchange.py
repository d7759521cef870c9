"""Random commands, logged by one server and loaded by the other: both have the same data, also after rewrites, in the
middle of transactions, over databases, and after the other one has gone on in the same files."""
import shutil

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from covey import LONG, assert_same_data, dataset, wait_for

KEYS = st.sampled_from([b"a", b"b", b"c", b"{tag}1", b"key\r\n with \x00"])
TEXT = st.one_of(st.binary(max_size=40), st.integers(-2**63, 2**63 - 1).map(lambda n: str(n).encode()), st.just(b"x" * 5000))
NAMES = st.binary(min_size=1, max_size=6)
SCORES = st.one_of(st.integers(-100, 100), st.floats(allow_nan=False, width=32))
FUTURE = st.integers(4102444800000, 4102444900000)


def words(name, *parts):
    return st.tuples(st.just(name), *parts)


COMMANDS = st.one_of(
    words("SET", KEYS, TEXT), words("SET", KEYS, TEXT, st.just("PXAT"), FUTURE), words("APPEND", KEYS, TEXT),
    words("INCRBY", KEYS, st.integers(-1000, 1000)), words("INCRBYFLOAT", KEYS, st.integers(-5, 5)), words("GETDEL", KEYS),
    words("SETRANGE", KEYS, st.integers(0, 100), TEXT), words("MSET", KEYS, TEXT, KEYS, TEXT), words("DEL", KEYS, KEYS),
    words("PEXPIREAT", KEYS, FUTURE), words("PEXPIRE", KEYS, st.integers(10**12, 10**12 + 1000)), words("PERSIST", KEYS),
    words("RENAME", KEYS, KEYS), words("COPY", KEYS, KEYS, st.just("REPLACE")), words("LPUSH", KEYS, TEXT, TEXT),
    words("RPUSH", KEYS, TEXT), words("RPOP", KEYS), words("LMOVE", KEYS, KEYS, st.just("LEFT"), st.just("RIGHT")),
    words("LTRIM", KEYS, st.integers(-3, 3), st.integers(-3, 3)), words("SADD", KEYS, NAMES, NAMES), words("SPOP", KEYS),
    words("SPOP", KEYS, st.integers(0, 3)), words("SREM", KEYS, NAMES), words("SINTERSTORE", KEYS, KEYS, KEYS),
    words("HSET", KEYS, NAMES, TEXT), words("HINCRBYFLOAT", KEYS, NAMES, st.integers(0, 9)), words("HDEL", KEYS, NAMES),
    words("ZADD", KEYS, SCORES, NAMES), words("ZINCRBY", KEYS, st.integers(-5, 5), NAMES), words("ZPOPMIN", KEYS),
    words("ZREMRANGEBYRANK", KEYS, st.integers(0, 2), st.integers(0, 2)), words("ZUNIONSTORE", KEYS, st.just(2), KEYS, KEYS),
    words("XADD", KEYS, st.just("*"), NAMES, TEXT), words("XTRIM", KEYS, st.just("MAXLEN"), st.integers(0, 3)),
    words("XGROUP", st.just("CREATE"), KEYS, NAMES, st.just("0"), st.just("MKSTREAM")), words("SETBIT", KEYS, st.integers(0, 99), st.just(1)),
    words("PFADD", KEYS, NAMES, NAMES), words("GEOADD", KEYS, st.integers(-90, 90), st.integers(-80, 80), NAMES),
    words("SELECT", st.integers(0, 2)), words("SWAPDB", st.integers(0, 2), st.integers(0, 2)), words("MOVE", KEYS, st.integers(0, 2)),
    words("MULTI"), words("EXEC"), words("DISCARD"), words("PUBLISH", NAMES, TEXT), words("FLUSHDB"),
    words("EVAL", st.just("redis.call('SADD', KEYS[1], ARGV[1]) return redis.call('INCR', KEYS[2])"), st.just(2), KEYS, KEYS, NAMES),
    words("BGREWRITEAOF"), words("RESTORE", KEYS, st.just(0), st.just(bytes.fromhex("00036162630a00d9ac303d4172a2e2")), st.just("REPLACE")),
)


def send(node, commands):
    """On one connection, whatever the replies are."""
    client = node.new_client()
    pipe = client.connection_pool.get_connection("_")
    try:
        for command in commands:
            pipe.send_command(*command)
            try:
                pipe.read_response()
            except Exception as error:  # an error reply is an answer too; a broken connection is not
                if type(error).__name__ in ("ConnectionError", "TimeoutError"):
                    raise
    finally:
        client.connection_pool.release(pipe)
        client.close()
    wait_for("rewrites to end", lambda: not node.stat("aof_rewrite_in_progress", "persistence")
             and not node.stat("aof_rewrite_scheduled", "persistence"))


def data(node):
    return [dataset(node, db) for db in range(3)]


def go_on_as(servers, node, kind, preamble):
    assert node.shutdown("NOSAVE") == 0
    other = servers.node(kind, start=False, appendonly="yes", aof_use_rdb_preamble=preamble)
    shutil.rmtree(other.dir)
    shutil.copytree(node.dir, other.dir)
    return other.start()


@settings(max_examples=150 if LONG else 6, deadline=None, suppress_health_check=list(HealthCheck))
@given(first=st.lists(COMMANDS, min_size=30, max_size=120), second=st.lists(COMMANDS, max_size=40),
       kinds=st.sampled_from([("covey", "redis"), ("redis", "covey"), ("covey", "covey")]),
       preamble=st.sampled_from(["yes", "no"]), policy=st.sampled_from(["always", "everysec", "no"]))
def test_exchange(servers, first, second, kinds, preamble, policy):
    node = servers.node(kinds[0], appendonly="yes", aof_use_rdb_preamble=preamble, appendfsync=policy)
    send(node, first)
    before = data(node)
    other = go_on_as(servers, node, kinds[1], preamble)
    for db in range(3):
        assert_same_data(before[db], data(other)[db], f"{kinds[0]} -> {kinds[1]}, database {db}")
    send(other, second)
    before = data(other)
    last = go_on_as(servers, other, kinds[0], preamble)
    for db in range(3):
        assert_same_data(before[db], data(last)[db], f"{kinds[0]} -> {kinds[1]} -> {kinds[0]}, database {db}")
    last.kill()
