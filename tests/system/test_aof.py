"""The append-only file: its files beside redis-server's, rewrites, switching, damage, full disks, replicas."""
import contextlib
import hashlib
import os
import re
import resource
import shutil
import signal
import time

import pytest
import redis

import covey
from covey import assert_same_data, dataset, fill_all_types, populate, wait_for, wait_in_sync

NAME = "appendonly.aof"
LIBRARY = "#!lua name=aofs\nredis.register_function('twice', function(k, a) return a[1] * 2 end)"


def aof_dir(node):
    return os.path.join(node.dir, "appendonlydir")


def manifest(node):
    with open(os.path.join(aof_dir(node), NAME + ".manifest")) as file:
        return [line.split() for line in file]


def files(node, kind):
    """Paths of the manifest's files of a type."""
    return [os.path.join(aof_dir(node), words[1]) for words in manifest(node) if words[5] == kind]


def last_increment(node):
    return files(node, "i")[-1]


def commands(path):
    """The commands of a file that is not RDB, without annotations."""
    with open(path, "rb") as file:
        data = file.read()
    at, found = 0, []
    while at < len(data):
        end = data.index(b"\n", at)
        line = data[at:end].rstrip(b"\r")
        at = end + 1
        if line.startswith(b"#"):
            continue
        assert line.startswith(b"*"), line
        words = []
        for _ in range(int(line[1:])):
            end = data.index(b"\n", at)
            size = int(data[at + 1:end])
            words.append(data[end + 1:end + 1 + size])
            at = end + 3 + size
        found.append(words)
    return found


def fill(node):
    """Everything a file can hold: types, databases, times of expiry, functions, transactions."""
    fill_all_types(node.client, seed=11)
    fill_all_types(node.new_client(db=5), seed=12, ttl=False)
    node.cmd("FUNCTION", "LOAD", LIBRARY)
    pipe = node.client.pipeline(transaction=True)
    pipe.set("in-multi", 1).incr("in-multi").publish("channel", "message").rpush("list-in-multi", "a", "b")
    pipe.execute()
    node.cmd("SET", "late", 1, "EX", 5000)
    node.cmd("XADD", "stream-with-group", "1-1", "f", "v")
    node.cmd("XGROUP", "CREATE", "stream-with-group", "g", "0")
    node.cmd("XREADGROUP", "GROUP", "g", "alice", "STREAMS", "stream-with-group", ">")


def everything(node):
    """Both databases, functions, and of the stream with a group what does not depend on when it was loaded."""
    data = [dataset(node, db) for db in (0, 5)]
    stream = None
    if data[0].pop(b"stream-with-group", None):
        pending = node.cli("XPENDING", "stream-with-group", "g", "-", "+", "10").split()
        assert len(pending) == 4, pending
        del pending[2]  # for how long
        stream = [pending] + [node.cli(*words) for words in (("XRANGE", "stream-with-group", "-", "+"),
                                                             ("XINFO", "STREAM", "stream-with-group"),
                                                             ("XINFO", "GROUPS", "stream-with-group"))]
        stream[3] = re.sub("(?m)entries-read\n.*\n", "", stream[3])  # what XREADGROUP leaves in the log does not say
    return data, node.cmd("FUNCTION", "LIST", "WITHCODE"), stream


def assert_everything(before, node, what):
    after = everything(node)
    for n in (0, 1):
        assert_same_data(before[0][n], after[0][n], f"database {5 * n}: {what}")
    assert before[1] == after[1]
    assert before[2] == after[2]


def rewrite(node, timeout=30):
    before = node.stat("aof_rewrites", "persistence")
    node.cmd("BGREWRITEAOF")
    wait_for("the rewrite", lambda: node.stat("aof_rewrites", "persistence") > before
             and not node.stat("aof_rewrite_in_progress", "persistence"), timeout)
    assert node.stat("aof_last_bgrewrite_status", "persistence") == "ok", node.log_tail()


def wait_on(node):
    """CONFIG SET appendonly yes is over when its first rewrite is."""
    wait_for("the AOF to be on", lambda: os.path.exists(os.path.join(aof_dir(node), NAME + ".manifest"))
             and not node.stat("aof_rewrite_in_progress", "persistence"))


def move(servers, node, kind, **options):
    """A server of this kind that starts with a copy of node's directory."""
    other = servers.node(kind, start=False, appendonly="yes", **options)
    shutil.copytree(node.dir, other.dir, dirs_exist_ok=True)
    return other.start()


@pytest.mark.sanitizer
@pytest.mark.parametrize("preamble", ["yes", "no"])
@pytest.mark.parametrize("writer,reader", [("covey", "redis"), ("redis", "covey"), ("covey", "covey")])
def test_files_pass_between_servers(servers, writer, reader, preamble):
    first = servers.node(writer, appendonly="yes", aof_use_rdb_preamble=preamble, aof_timestamp_enabled="yes")
    fill(first)
    rewrite(first)
    assert files(first, "b")[0].endswith("rdb" if preamble == "yes" else "aof")
    populate(first.client, 200, prefix="behind")
    first.cmd("SELECT", 0)
    before = everything(first)
    assert first.shutdown("NOSAVE") == 0
    second = move(servers, first, reader)
    assert_everything(before, second, f"{writer} -> {reader}")
    # and back again, in the same files
    second.cmd("SET", "there", "and back")
    second.cmd("INCR", "in-multi")
    before = everything(second)
    assert second.shutdown("NOSAVE") == 0
    third = move(servers, second, writer)
    assert_everything(before, third, f"{writer} -> {reader} -> {writer}")
    checked = covey.run(["redis-check-aof", os.path.join(aof_dir(second), NAME + ".manifest")])
    assert "All AOF files and manifest are valid" in checked


def test_what_is_written(servers):
    """The same commands make the same increments in both servers."""
    found = {}
    for kind in ("covey", "redis"):
        node = servers.node(kind, appendonly="yes")
        client = node.client
        client.execute_command("SET", "a", 1)
        client.publish("c", "m")
        client.execute_command("PING")
        node.new_client(db=3).set("b", 2)
        client.execute_command("SET", "t", "v", "PXAT", 4102444800000)
        pipe = client.pipeline(transaction=True)
        pipe.set("x", 1).publish("c", "m").incr("x")
        pipe.execute()
        client.execute_command("EVAL", "redis.call('SET', KEYS[1], 1) redis.call('INCR', KEYS[1])", 1, "s")
        client.execute_command("SADD", "only", "m")
        client.execute_command("SPOP", "only")
        client.execute_command("FLUSHALL")
        node.shutdown("NOSAVE")
        found[kind] = [[w.upper() if n == 0 else w for n, w in enumerate(c)] for c in commands(last_increment(node))]
    assert found["covey"] == found["redis"]


def test_upgrade_of_one_old_file(servers, kind):
    node = servers.node(kind, start=False, appendonly="yes")
    with open(os.path.join(node.dir, NAME), "wb") as file:
        file.write(b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n")
    node.start()
    assert node.cmd("GET", "a") == b"1"
    assert not os.path.exists(os.path.join(node.dir, NAME))
    assert [w[1:] for w in manifest(node)] == [[NAME, "seq", "1", "type", "b"],
                                               [NAME + ".1.incr.aof", "seq", "1", "type", "i"]]


def test_a_file_with_a_preamble_and_commands(servers):
    """The form of Redis 4 to 6: RDB, then commands, in one file."""
    redis_node = servers.node("redis")
    fill_all_types(redis_node.client)
    redis_node.cmd("SAVE")
    data = dataset(redis_node)
    node = servers.node(start=False, appendonly="yes")
    with open(os.path.join(redis_node.dir, "dump.rdb"), "rb") as dump, open(os.path.join(node.dir, NAME), "wb") as file:
        file.write(dump.read() + b"*3\r\n$3\r\nSET\r\n$4\r\ntail\r\n$1\r\n1\r\n")
    node.start()
    assert node.cmd("GET", "tail") == b"1"
    node.cmd("DEL", "tail")
    assert_same_data(data, dataset(node))


def test_an_rdb_is_not_loaded_when_the_aof_is_on(servers, kind):
    node = servers.node(kind)
    node.cmd("SET", "a", 1)
    node.cmd("SAVE")
    node.shutdown("NOSAVE")
    node.start(appendonly="yes")
    assert node.cmd("DBSIZE") == 0
    said = "there is no AOF: this server starts empty"
    assert (said in node.log_tail()) == (kind == "covey")
    node.shutdown("NOSAVE")
    node.start(appendonly="yes")
    assert node.log_tail().count(said) == (kind == "covey"), "once there is one, it counts"


@pytest.mark.sanitizer
@pytest.mark.parametrize("kind", ["covey", "redis"])
def test_scripts_in_an_old_file(servers, kind):
    """redis-server before 7.0 could log scripts as they were called."""
    node = servers.node(kind, start=False, appendonly="yes")
    push = b"for i = 1, tonumber(ARGV[1]) do redis.call('RPUSH', KEYS[1], i) end return redis.call('LLEN', KEYS[1])"
    counted = b"local n = redis.call('GET', KEYS[1]) or 0; redis.call('SET', KEYS[1], n + 1); redis.call('EXPIRE', KEYS[1], 1000)"
    sha = lambda text: hashlib.sha1(text).hexdigest().encode()
    rows = [(b"SELECT", b"0"), (b"SET", b"a", b"1"), (b"EVAL", push, b"1", b"list", b"3"), (b"EVALSHA", sha(push), b"1", b"list", b"2"),
            (b"MULTI",), (b"INCR", b"a"), (b"EVAL", counted, b"1", b"n"), (b"EVALSHA", sha(counted).upper(), b"1", b"n"), (b"EXEC",),
            (b"SCRIPT", b"LOAD", b"return redis.call('SADD', KEYS[1], ARGV[1], redis.sha1hex(ARGV[1]))"),
            (b"EVALSHA", sha(b"return redis.call('SADD', KEYS[1], ARGV[1], redis.sha1hex(ARGV[1]))"), b"1", b"set", b"x"),
            (b"EVAL", b"redis.call('SELECT', 3) redis.call('SET', 'three', 3) redis.call('PUBLISH', 'a', 'b')", b"0"), (b"INCR", b"a"),
            (b"EVAL", b"redis.call('SET', 'half', 1) redis.call('LPUSH', 'half', 1) redis.call('SET', 'other half', 1)", b"0"),
            (b"EVAL", b"redis.pcall('LPUSH', 'half', 2) redis.call('SET', 'undeclared', tostring(redis.pcall('NOSUCH').err ~= nil))", b"0"),
            (b"EVAL", b"this is no Lua", b"0"), (b"EVALSHA", b"0" * 40, b"0"), (b"SCRIPT", b"FLUSH"),
            (b"EVALSHA", sha(push), b"1", b"list", b"5"), (b"INCR", b"a")]
    with open(os.path.join(node.dir, "appendonly.aof"), "wb") as file:
        for row in rows:
            file.write(b"*%d\r\n" % len(row) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in row))
    node.start()
    client = node.client
    assert client.get("a") == b"4" and client.lrange("list", 0, -1) == [b"1", b"2", b"3", b"1", b"2"]
    assert client.get("n") == b"2" and 900 < client.ttl("n") <= 1000
    assert client.smembers("set") == {b"x", sha(b"x")}
    assert client.mget("half", "other half", "undeclared") == [b"1", None, b"true"]
    assert node.new_client(db=3).get("three") == b"3" and client.dbsize() == 6
    assert client.script_exists(sha(push)) == [False] and client.script_exists(sha(b"return 1")) == [False]
    before = everything(node)
    client.incr("a")
    rewrite(node)
    client.decr("a")
    node.terminate()
    node.start()
    assert_everything(before, node, "after a rewrite")


def test_times_in_the_file(servers):
    node = servers.node(appendonly="yes", aof_timestamp_enabled="yes")
    node.cmd("SET", "a", 1)
    time.sleep(1.1)
    node.cmd("SET", "b", 1)
    node.shutdown("NOSAVE")
    with open(last_increment(node), "rb") as file:
        stamps = [int(line[4:]) for line in file if line.startswith(b"#TS:")]
    assert len(stamps) == 2 and stamps[1] > stamps[0] and abs(time.time() - stamps[1]) < 10


# ---- on and off ------------------------------------------------------------------------------------------------------

@pytest.mark.sanitizer
def test_turned_on_and_off_under_load(servers):
    """Nothing acknowledged while the AOF is on is missing from it, whatever is switched meanwhile."""
    node = servers.node()
    fill(node)
    client = node.new_client()
    count = 0
    for _ in range(3):
        assert node.cmd("CONFIG", "SET", "appendonly", "yes")
        for _ in range(400):
            client.incr("counter")
            count += 1
        wait_on(node)
        for _ in range(100):
            client.incr("counter")
            count += 1
        before = everything(node)
        copy = servers.node("redis", start=False, appendonly="yes")
        assert node.cmd("CONFIG", "SET", "appendonly", "no")
        shutil.copytree(aof_dir(node), aof_dir(copy))
        copy.start()
        assert_everything(before, copy, "after CONFIG SET appendonly no")
        assert int(copy.cmd("GET", "counter")) == count
        copy.kill()
        client.incr("counter")  # not in the files: the next base has it
        count += 1


def test_crash_before_the_first_base(servers):
    """What is left of an AOF that was being turned on is no AOF."""
    node = servers.node()
    populate(node.client, 50000, size=100)
    node.cmd("CONFIG", "SET", "appendonly", "yes")
    node.kill()
    node.start(appendonly="yes")
    assert node.cmd("DBSIZE") in (0, 50000)
    leftovers = [n for n in os.listdir(aof_dir(node)) if n.startswith("temp-")]
    assert not leftovers


@pytest.mark.sanitizer
def test_restart_keeps_everything(servers):
    node = servers.node(appendonly="yes")
    for round_ in range(3):
        fill(node) if round_ == 0 else populate(node.client, 100, prefix=f"r{round_}-")
        before = everything(node)
        node.kill() if round_ % 2 else node.terminate()
        node.start()
        assert_everything(before, node, f"round {round_}")
        rewrite(node)
        assert_everything(before, node, "a rewrite changes nothing")
        node.cmd("DEBUG", "LOADAOF")
        assert_everything(before, node, "DEBUG LOADAOF")
        node.cmd("DEBUG", "RELOAD")
        assert_everything(before, node, "DEBUG RELOAD")


def test_flushall_and_expiry_are_kept(servers):
    node = servers.node(appendonly="yes")
    populate(node.client, 1000)
    node.cmd("FLUSHALL")
    node.cmd("SET", "a", 1)
    node.cmd("SET", "gone", 1, "PX", 30)
    wait_for("expiry", lambda: node.cmd("DBSIZE") == 1)
    node.kill()
    node.start()
    assert node.cmd("KEYS", "*") == [b"a"]


def test_turned_on_in_a_transaction(servers):
    """What the transaction has done by then is neither lost nor there twice."""
    node = servers.node()
    pipe = node.client.pipeline(transaction=True)
    pipe.incr("counter").rpush("list", 1)
    pipe.execute_command("CONFIG", "SET", "appendonly", "yes")
    pipe.execute_command("BGSAVE")
    pipe.incr("counter").rpush("list", 2)
    pipe.execute()
    node.cmd("INCR", "counter")
    wait_for("the first base", lambda: node.stat("aof_rewrites", "persistence") == 1
             and not node.stat("aof_rewrite_in_progress", "persistence"))
    node.cmd("RPUSH", "list", 3)
    before = dataset(node)
    time.sleep(1.1)
    node.kill()
    node.start(appendonly="yes")
    assert_same_data(before, dataset(node))
    assert node.cmd("LRANGE", "list", 0, -1) == [b"1", b"2", b"3"]


# ---- rewrites --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["covey", "redis"])
def test_a_transaction_that_touches_the_files_is_in_them_once(servers, kind):
    """What it wrote before and behind such a command is in the base or in the increment, and not in both."""
    node = servers.node(kind, appendonly="yes", appendfsync="always", auto_aof_rewrite_percentage=0)
    between = [("BGREWRITEAOF",), ("BGSAVE",), ("DEBUG", "RELOAD"), ("CONFIG", "SET", "appendonly", "no"),
               ("CONFIG", "SET", "appendonly", "yes"), ("CONFIG", "SET", "appendfsync", "everysec"), ("FLUSHALL",)]
    if kind == "covey":  # redis-server forgets what was written before and keeps it in the file
        between.append(("DEBUG", "LOADAOF"))
    for words in between:
        pipe = node.client.pipeline(transaction=True)
        pipe.incr("counter").rpush("list", words[0]).execute_command(*words)
        pipe.incr("counter").rpush("list", "behind")
        pipe.execute(raise_on_error=False)
        wait_for("all rewrites and saves", lambda: not any(node.info("persistence")[f] for f in (
            "aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")))
        before = node.cmd("GET", "counter"), node.cmd("LRANGE", "list", 0, -1)
        node.directives["appendonly"] = node.config_get("appendonly")
        node.shutdown(*(["SAVE"] if node.directives["appendonly"] == "no" else ["NOSAVE"]))
        node.start()
        assert (node.cmd("GET", "counter"), node.cmd("LRANGE", "list", 0, -1)) == before, words


@pytest.mark.sanitizer
def test_rewrites_while_data_changes(servers):
    node = servers.node(appendonly="yes")
    populate(node.client, 5000, size=50)
    client = node.new_client()
    for _ in range(5):
        node.cmd("BGREWRITEAOF")
        while node.stat("aof_rewrite_in_progress", "persistence"):
            pipe = client.pipeline(transaction=False)
            for _ in range(100):
                pipe.incr("counter").rpush("list", "x").spop("nothing")
            pipe.execute()
    before = dataset(node)
    assert len(files(node, "b")) == 1 and len(files(node, "i")) == 1 and not files(node, "h")
    assert len(os.listdir(aof_dir(node))) == 3
    node.kill()
    node.start()
    assert_same_data(before, dataset(node))


def test_rewrite_and_save_take_turns(servers):
    node = servers.node(appendonly="yes")
    populate(node.client, 200000, size=20)
    node.cmd("BGSAVE")
    assert "scheduled" in node.cli("BGREWRITEAOF")
    assert node.stat("aof_rewrite_scheduled", "persistence") == 1
    wait_for("both", lambda: node.stat("aof_rewrites", "persistence") == 1)
    node.cmd("BGREWRITEAOF")
    with pytest.raises(redis.ResponseError, match="Background append only file rewriting already in progress"):
        node.cmd("BGREWRITEAOF")
    with pytest.raises(redis.ResponseError, match="Another child process is active"):
        node.cmd("BGSAVE")
    assert "Background saving scheduled" in node.cli("BGSAVE", "SCHEDULE")
    wait_for("both", lambda: node.stat("aof_rewrites", "persistence") == 2 and node.stat("rdb_saves", "persistence") == 2)


def test_automatic_rewrite(servers):
    node = servers.node(appendonly="yes", auto_aof_rewrite_min_size="64kb", auto_aof_rewrite_percentage=100)
    for _ in range(40):
        populate(node.client, 1000, prefix="same")
    wait_for("an automatic rewrite", lambda: node.stat("aof_rewrites", "persistence") >= 1)
    wait_for("its end", lambda: not node.stat("aof_rewrite_in_progress", "persistence"))
    assert b"Starting automatic rewriting of AOF on" in node.log_text()
    assert node.stat("aof_base_size", "persistence") > 0


def test_rewrite_without_aof(servers):
    node = servers.node()
    fill(node)
    before = everything(node)
    rewrite(node)
    assert len(files(node, "b")) == 1 and not files(node, "i")
    node.shutdown("NOSAVE")
    node.start(appendonly="yes")
    assert_everything(before, node, "from the base alone")


def test_history_is_kept_when_asked_for(servers):
    node = servers.node(appendonly="yes", aof_disable_auto_gc="yes")
    node.cmd("SET", "a", 1)
    rewrite(node)
    assert [w[5] for w in manifest(node)] == ["b", "h", "h", "i"]
    assert len(os.listdir(aof_dir(node))) == 5
    node.cmd("CONFIG", "SET", "aof-disable-auto-gc", "no")
    wait_for("the history to go", lambda: len(os.listdir(aof_dir(node))) == 3)
    assert [w[5] for w in manifest(node)] == ["b", "i"]


# ---- damage ----------------------------------------------------------------------------------------------------------

def with_tail(servers, tail, kind="covey", **options):
    """A server that starts with one good command and these bytes behind it in the last increment."""
    node = servers.node(kind, appendonly="yes", **options)
    node.cmd("SET", "good", 1)
    node.shutdown("NOSAVE")
    path = last_increment(node)
    size = os.path.getsize(path)
    with open(path, "ab") as file:
        file.write(tail)
    return node, path, size


TORN = [b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n", b"*", b"*3\r\n$3\r\nSE", b"*1\r\n$5\r\nMULTI\r\n",
        b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n"]


@pytest.mark.parametrize("tail", TORN)
def test_torn_tail(servers, kind, tail):
    node, path, size = with_tail(servers, tail, kind)
    node.start()
    assert node.cmd("KEYS", "*") == [b"good"]
    log = node.log_text()
    assert b"!!! Truncating the AOF appendonly.aof.1.incr.aof at offset %d !!!" % size in log
    assert b"loaded anyway because aof-load-truncated is enabled" in log
    node.cmd("SET", "later", 1)
    node.kill()
    node.start()
    assert sorted(node.cmd("KEYS", "*")) == [b"good", b"later"]
    node.shutdown("NOSAVE")
    # and not, when that is forbidden
    with open(path, "ab") as file:
        file.write(tail)
    node.start(wait=False, aof_load_truncated="no")
    assert node.wait_exit() == 1
    assert b"Unexpected end of file reading the append only file" in node.log_text()


BAD = [b"garbage\r\n", b"*3\r\n+3\r\nSET\r\n", b"*0\r\n", b"*1\r\n$7\r\nNOTHING\r\n"]


@pytest.mark.parametrize("bad", BAD)
def test_corrupt_middle_is_refused(servers, kind, bad):
    node, path, size = with_tail(servers, bad + b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n", kind)
    before = open(path, "rb").read()
    node.start(wait=False)
    assert node.wait_exit() == 1
    log = node.log_text()
    words = b"Unknown command 'NOTHING'" if b"NOTHING" in bad else b"Bad file format reading the append only file"
    assert words in log
    if kind == "covey":
        assert b"from offset %d on" % size in log
    assert open(path, "rb").read() == before, "a file that is refused is left alone"


@pytest.mark.parametrize("text", ["", "nonsense\n", "file appendonly.aof.9.incr.aof seq 9 type i\n",
                                  "file ../x seq 1 type b\n"])
def test_bad_manifest_is_refused(servers, kind, text):
    node = servers.node(kind, appendonly="yes")
    node.cmd("SET", "a", 1)
    node.shutdown("NOSAVE")
    with open(os.path.join(aof_dir(node), NAME + ".manifest"), "w") as file:
        file.write(text)
    node.start(wait=False)
    assert node.wait_exit() == 1


def test_truncated_file_before_the_last(servers, kind):
    node = servers.node(kind, appendonly="yes")
    node.cmd("SET", "a", 1)
    node.shutdown("NOSAVE")
    path = last_increment(node)
    with open(path, "ab") as file:
        file.write(b"*3\r\n$3\r\nSET")
    other = os.path.join(aof_dir(node), NAME + ".2.incr.aof")
    with open(other, "wb") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$1\r\n1\r\n")
    with open(os.path.join(aof_dir(node), NAME + ".manifest"), "a") as file:
        file.write(f"file {NAME}.2.incr.aof seq 2 type i\n")
    node.start(wait=False)
    assert node.wait_exit() == 1
    assert b"the truncated file is not the last file" in node.log_text()


# ---- disks that fail -------------------------------------------------------------------------------------------------

def limit_file_size(pid, size):
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def no_file_above_a_megabyte():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))


def test_full_disk(servers):
    """Writes are refused, reads go on, nothing acknowledged is lost, and all is well again once there is room."""
    node = servers.node(start=False, appendonly="yes")
    node.start(limits=no_file_above_a_megabyte)
    node.cmd("SET", "first", 1)
    acknowledged = 0
    with pytest.raises(redis.ResponseError, match="MISCONF Errors writing to the AOF file: File too large"):
        for _ in range(20000):
            node.cmd("APPEND", f"k{acknowledged}", "x" * 300)
            acknowledged += 1
    assert acknowledged > 1000
    assert node.stat("aof_last_write_status", "persistence") == "err"
    assert node.cmd("GET", "first") == b"1"
    size = os.path.getsize(last_increment(node))
    assert size <= 1 << 20
    commands(last_increment(node))  # nothing torn in it
    limit_file_size(node.pid, resource.RLIM_INFINITY)
    wait_for("writes", lambda: node.cmd("SET", "again", 1))
    assert node.stat("aof_last_write_status", "persistence") == "ok"
    assert b"AOF write error looks solved, Redis can write again." in node.log_text()
    before = dataset(node)
    node.kill()
    limits_off = servers.node(start=False, appendonly="yes")
    shutil.copytree(aof_dir(node), aof_dir(limits_off))
    limits_off.start()
    assert_same_data(before, dataset(limits_off))


def test_full_disk_with_always_ends_the_process(servers, kind):
    node = servers.node(kind, start=False, appendonly="yes", appendfsync="always")
    node.start(limits=no_file_above_a_megabyte)
    acknowledged = 0
    with pytest.raises((redis.ConnectionError, redis.ResponseError)):
        for _ in range(20000):
            node.cmd("APPEND", f"k{acknowledged}", "x" * 3000)
            acknowledged += 1
    assert node.wait_exit() == 1
    assert b"Can't recover from AOF write error when the AOF fsync policy is 'always'" in node.log_text()
    limit = servers.node(kind, start=False, appendonly="yes")
    shutil.copytree(aof_dir(node), aof_dir(limit))
    limit.start()
    assert limit.cmd("DBSIZE") >= acknowledged


def test_failed_rewrite_changes_nothing(servers):
    node = servers.node(start=False, appendonly="yes", rdbcompression="no")
    node.start(limits=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN))
    populate(node.client, 30000, size=60)
    for n in range(3):
        limit_file_size(node.pid, 1 << 20)
        node.cmd("BGREWRITEAOF")
        wait_for("its end", lambda: not node.stat("aof_rewrite_in_progress", "persistence"))
        assert node.stat("aof_last_bgrewrite_status", "persistence") == "err"
        assert node.stat("aof_rewrites_consecutive_failures", "persistence") == n + 1
        limit_file_size(node.pid, resource.RLIM_INFINITY)
        wait_for("writes", lambda: node.cmd("SET", f"again{n}", 1))
        assert not [name for name in os.listdir(aof_dir(node)) if name.startswith("temp-")]
    before = dataset(node)
    node.kill()
    node.start()
    assert_same_data(before, dataset(node))
    rewrite(node)
    node.kill()
    node.start()
    assert_same_data(before, dataset(node))


def test_directory_that_cannot_be_written(servers):
    node = servers.node(start=False)
    with open(aof_dir(node), "w"):  # a file in the directory's place
        pass
    node.start()
    with pytest.raises(redis.ResponseError, match="Unable to turn on AOF. Check server logs."):
        node.cmd("CONFIG", "SET", "appendonly", "yes")
    assert node.config_get("appendonly") == "no"
    os.unlink(aof_dir(node))
    assert node.cmd("CONFIG", "SET", "appendonly", "yes")
    wait_on(node)


# ---- replication -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("primary_kind", ["covey", "redis"])
def test_replica_with_aof(servers, primary_kind):
    """A full sync begins the AOF anew; what the stream brings is in it."""
    primary = servers.node(primary_kind)
    fill(primary)
    replica = servers.node(appendonly="yes")
    replica.cmd("SET", "of-its-own", 1)
    replica.cmd("REPLICAOF", "127.0.0.1", primary.port)
    wait_in_sync(primary, replica)
    populate(primary.client, 300, prefix="behind")
    primary.new_client(db=5).set("in-five", 1)
    wait_in_sync(primary, replica)
    wait_for("the AOF to be on again", lambda: replica.stat("aof_rewrites", "persistence") >= 1
             and not replica.stat("aof_rewrite_in_progress", "persistence"))
    populate(primary.client, 100, prefix="later")
    primary.cmd("FLUSHDB") if primary_kind == "redis" else None
    primary.cmd("SET", "last", 1)
    wait_in_sync(primary, replica)
    before = everything(replica)
    assert b"of-its-own" not in before[0][0]
    time.sleep(1.2 if replica.config_get("appendfsync") == "everysec" else 0)
    replica.kill()
    copy = servers.node("redis", start=False, appendonly="yes")
    shutil.copytree(aof_dir(replica), aof_dir(copy))
    copy.start()
    assert_everything(before, copy, "the replica's AOF")


def test_partial_sync_after_a_restart(servers):
    """Both ends find their place again from their AOFs."""
    primary = servers.node(appendonly="yes", repl_ping_replica_period=1)
    replica = servers.node(appendonly="yes", replicaof=f"127.0.0.1 {primary.port}")
    populate(primary.client, 200)
    wait_in_sync(primary, replica)
    wait_for("the replica's AOF", lambda: replica.stat("aof_rewrites", "persistence") >= 1)
    time.sleep(2.2)  # a PING has gone by
    primary.cmd("SET", "x", 1)
    wait_in_sync(primary, replica)
    full = primary.stat("sync_full", "stats")
    replica.terminate()
    primary.cmd("SET", "y", 1)
    replica.start()
    wait_in_sync(primary, replica)
    assert primary.stat("sync_full", "stats") == full, "the replica resumes"
    assert primary.stat("sync_partial_ok", "stats") >= 1
    before = dataset(primary)
    primary.terminate()
    primary.start()
    wait_in_sync(primary, replica)
    assert primary.stat("sync_full", "stats") == 0, primary.log_tail()
    assert primary.stat("sync_partial_ok", "stats") == 1
    assert_same_data(before, dataset(replica))


def test_partial_sync_after_restarts_without_a_write(servers):
    """A start begins a history that nobody knows yet: the file names the one that replicas know, until they are told."""
    primary = servers.node(appendonly="yes")
    replica = servers.node(replicaof=f"127.0.0.1 {primary.port}", repl_timeout=600)
    populate(primary.client, 200)
    wait_in_sync(primary, replica)
    replica.pause()
    for _ in range(3):
        primary.terminate()
        primary.start()
    replica.resume()
    wait_in_sync(primary, replica)
    assert primary.stat("sync_full", "stats") == 0, primary.log_tail()
    for end in (primary.terminate, primary.kill, primary.terminate):  # it has been told the new name each time
        time.sleep(0.2)
        end()
        primary.start()
        wait_in_sync(primary, replica)
        assert primary.stat("sync_full", "stats") == 0, primary.log_tail()
    primary.cmd("SET", "behind", 1)  # of the new history, and the file says so
    wait_in_sync(primary, replica)
    replica.pause()
    for _ in range(2):
        primary.terminate()
        primary.start()
    replica.resume()
    wait_in_sync(primary, replica)
    assert primary.stat("sync_full", "stats") == 0, primary.log_tail()
    assert_same_data(dataset(primary), dataset(replica))


# ---- kill -9 ---------------------------------------------------------------------------------------------------------

def test_always_loses_nothing(servers):
    """Counters and lists of many clients, killed at any moment: all that was acknowledged is there, once."""
    import random
    import threading
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    node = servers.node(appendonly="yes", appendfsync="always")
    kills, clients = (40 if covey.LONG else 6), 8
    tried, done = [0] * clients, [0] * clients

    def work(n, stop):
        while not stop.is_set():
            try:
                client = node.new_client(socket_timeout=5)
                while not stop.is_set():
                    tried[n] += 1
                    pipe = client.pipeline(transaction=n % 2 == 0)
                    pipe.incr(f"counter{n}").rpush(f"list{n}", tried[n])
                    pipe.execute()
                    done[n] = tried[n]
            except redis.RedisError:
                return

    for kill in range(kills):
        stop = threading.Event()
        threads = [threading.Thread(target=work, args=(n, stop)) for n in range(clients)]
        for thread in threads:
            thread.start()
        time.sleep(chance.uniform(0.05, 0.6))
        if kill % 3 == 1:
            with contextlib.suppress(redis.RedisError):
                node.cmd("BGREWRITEAOF")
            time.sleep(chance.uniform(0, 0.05))
        node.kill()
        stop.set()
        for thread in threads:
            thread.join()
        node.start()
        for n in range(clients):
            counter = int(node.cmd("GET", f"counter{n}") or 0)
            rows = [int(x) for x in node.cmd("LRANGE", f"list{n}", 0, -1)]
            assert len(rows) == len(set(rows)), f"client {n}: applied twice"
            assert rows == sorted(rows)
            assert not rows or rows[-1] >= done[n], f"client {n}: acknowledged {done[n]}, there up to {rows[-1]}"
            assert done[n] == 0 or done[n] in rows
            assert counter >= len(rows)
            # numbers go on behind what is there
            tried[n] = done[n] = max(rows or [0] + [tried[n]])
            node.cmd("SET", f"counter{n}", len(rows))
    print(f"{kills} kills, {sum(done)} acknowledged pairs, 0 lost")


def test_everysec_loses_little(servers):
    node = servers.node(appendonly="yes")
    client = node.new_client()
    lost = []
    for _ in range(5):
        stamp = int(client.get("n") or 0)
        end = time.monotonic() + 0.7
        while time.monotonic() < end:
            stamp += 1
            client.set("n", stamp)
        node.kill()
        node.start()
        client = node.new_client()
        lost.append(stamp - int(client.get("n") or 0))
    print("lost by each kill:", lost)
    assert sum(1 for n in lost if n == 0) >= 3, "a kill that hits no fdatasync() loses nothing"


def test_info_fields(servers):
    """The same fields in the same order as redis-server's, on and off."""
    names = {}
    for kind in ("covey", "redis"):
        node = servers.node(kind)
        names[kind, "off"] = [k for k in node.info("persistence") if k.startswith(("aof_", "module_"))]
        node.cmd("CONFIG", "SET", "appendonly", "yes")
        wait_on(node)
        names[kind, "on"] = [k for k in node.info("persistence") if k.startswith(("aof_", "module_"))]
        assert node.stat("aof_enabled", "persistence") == 1
    for state in ("off", "on"):
        assert names["covey", state] == names["redis", state]
    assert len(names["covey", "on"]) > 14


# ---- WAITAOF ---------------------------------------------------------------------------------------------------------

def test_waitaof(servers):
    primary = servers.node(appendonly="yes", appendfsync="everysec")
    first = servers.node(appendonly="yes", replicaof=f"127.0.0.1 {primary.port}")
    second = servers.node(replicaof=f"127.0.0.1 {primary.port}")  # without an AOF
    wait_in_sync(primary, first, second)
    wait_on(first)
    client = primary.new_client()
    assert client.execute_command("SET", "a", 1)
    assert client.execute_command("WAITAOF", 1, 1, 5000) == [1, 1]
    assert client.execute_command("WAITAOF", 0, 0, 0)[1] <= 1
    client.execute_command("SET", "b", 1)
    begin = time.monotonic()
    assert client.execute_command("WAITAOF", 1, 2, 2500) == [1, 1], "the second one never says it"
    assert time.monotonic() - begin > 2
    second.cmd("CONFIG", "SET", "appendonly", "yes")
    wait_on(second)
    client.execute_command("SET", "c", 1)
    assert client.execute_command("WAITAOF", 1, 2, 5000) == [1, 2]
    for node in (primary, first, second):
        node.cmd("CONFIG", "SET", "appendfsync", "always")
    begin = time.monotonic()
    for n in range(50):
        client.execute_command("SET", "d", n)
        assert client.execute_command("WAITAOF", 1, 2, 5000) == [1, 2]
    assert time.monotonic() - begin < 10
    primary.cmd("CONFIG", "SET", "appendonly", "no")
    with pytest.raises(redis.ResponseError, match="appendonly is disabled"):
        client.execute_command("WAITAOF", 1, 0, 0)
    client.execute_command("SET", "e", 1)
    assert client.execute_command("WAITAOF", 0, 2, 5000) == [0, 2]
    with pytest.raises(redis.ResponseError, match="WAITAOF cannot be used with replica instances"):
        first.cmd("WAITAOF", 0, 0, 0)
    for words in ((2, 0, 0), (-1, 0, 0), (0, -1, 0), ("x", 0, 0), (0, 0, -1)):
        with pytest.raises(redis.ResponseError):
            client.execute_command("WAITAOF", *words)


def test_replies_wait_for_the_disk_and_nobody_else_does(servers):
    """Group commit: many connections' writes share a sync, and reads go on meanwhile."""
    node = servers.node(appendonly="yes", appendfsync="always")
    clients = [node.raw() for _ in range(40)]
    for n, sock in enumerate(clients):
        sock.sendall(f"*3\r\n$3\r\nSET\r\n$2\r\nk{n % 10}\r\n$1\r\nv\r\n".encode() * 20)
    for sock in clients:
        got = b""
        while len(got) < 20 * 5:
            got += sock.recv(4096)
        assert got == b"+OK\r\n" * 20
        sock.close()
    assert node.cmd("DBSIZE") == 10


def test_cluster_nodes_come_back_with_their_aofs(servers):
    """All nodes of a cluster killed at once and started again: everything is there, and replicas resume."""
    cluster = servers.cluster(["covey"] * 6, replicas=1, appendonly="yes", appendfsync="always")
    cluster.populate(2000)
    before = cluster.dataset()
    for node in cluster.nodes:
        node.kill()
    for node in cluster.nodes:
        node.start(wait=False)
    for node in cluster.nodes:
        node.wait_ready()
    cluster.wait_whole(60)
    assert_same_data(before, cluster.dataset())
    cluster.populate(500, prefix="more")
    cluster.assert_replicas_equal()


@pytest.mark.parametrize("ignore", ["no", "yes"])
def test_replica_whose_disk_is_full(servers, ignore):
    """As redis-server: the process ends, unless replica-ignore-disk-write-errors says that it goes on without its AOF."""
    primary = servers.node()
    replica = servers.node(start=False, appendonly="yes", replica_ignore_disk_write_errors=ignore)
    replica.start(limits=no_file_above_a_megabyte)
    replica.cmd("REPLICAOF", "127.0.0.1", primary.port)
    wait_in_sync(primary, replica)
    wait_for("the AOF to be on again", lambda: replica.stat("aof_rewrites", "persistence") >= 1)
    replica.expected_dead = ignore == "no"
    populate(primary.client, 6000, size=300)
    if ignore == "no":
        assert replica.wait_exit() == 1
        assert b"Replica was unable to write command to disk." in replica.log_text()
        return
    wait_in_sync(primary, replica)
    assert replica.stat("aof_last_write_status", "persistence") == "err"
    assert replica.cmd("DBSIZE") == 6000
    limit_file_size(replica.pid, resource.RLIM_INFINITY)
    wait_for("the AOF to be written", lambda: replica.stat("aof_last_write_status", "persistence") == "ok")
    before = dataset(replica)
    replica.kill()
    replica.start(replicaof="no one")
    assert_same_data(before, dataset(replica))
