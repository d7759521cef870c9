"""Scripts and functions: across workers, under load, in replication and in cluster mode. What single scripts answer is
in tests/differential/test_scripts.py."""
import contextlib
import threading
import time

import pytest
import redis

import covey
from covey import PATIENCE, wait_for, wait_in_sync

ROLES = [("covey", "redis"), ("redis", "covey"), ("covey", "covey")]


def spread(node, count=8):
    """Connections enough that every worker has one."""
    return [node.new_client(single_connection_client=True) for _ in range(count)]


def test_a_script_of_one_worker_is_known_to_all(servers):
    node = servers.node("covey", workers=3)
    clients = spread(node)
    sha = clients[0].script_load("return {KEYS[1], ARGV[1]}")
    for client in clients:
        assert client.evalsha(sha, 1, "k", "a") == [b"k", b"a"]
        assert client.script_exists(sha) == [True]
    clients[1].script_flush()
    for client in clients:
        with pytest.raises(redis.exceptions.NoScriptError):
            client.evalsha(sha, 0)
    assert clients[2].eval("return {KEYS[1], ARGV[1]}", 1, "k", "b") == [b"k", b"b"]
    assert clients[3].evalsha(sha, 1, "k", "c") == [b"k", b"c"]
    assert node.info("memory")["number_of_cached_scripts"] == 1


def crowd(seconds, steps):
    """Runs each function over and over in a thread; what they raise is raised here."""
    stop, errors = threading.Event(), []

    def run(step):
        try:
            while not stop.is_set():
                step()
        except Exception as error:
            errors.append(error)
            stop.set()

    threads = [threading.Thread(target=run, args=(step,), daemon=True) for step in steps]
    for thread in threads:
        thread.start()
    stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join(20 * PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "a script waits for ever"
    if errors:
        raise errors[0]


MOVE = """
local from, to = ARGV[1], ARGV[2]
if ARGV[3] == 'w' then redis.call('incr', KEYS[1]) end
local v = redis.call('decr', from)
redis.call('incr', to)
return v
"""


@pytest.mark.sanitizer
@pytest.mark.parametrize("mode", ["undeclared", "declared", "stray_after_write"])
def test_scripts_that_lock_in_opposite_orders(servers, mode):
    """What one takes the other gives: the sum stays, whatever the scripts declare and in which order they touch."""
    node = servers.node("covey", workers=2)
    names = ["a", "b", "c", "d"]
    node.cmd("MSET", *[x for n in names for x in (n, 1000)])

    def step(client, one, other):
        def run():
            if mode == "declared":
                client.eval("redis.call('decr', KEYS[1]) return redis.call('incr', KEYS[2])", 2, one, other)
            elif mode == "undeclared":
                client.eval(MOVE, 0, one, other, "")
            else:
                client.eval(MOVE, 1, "own:" + one, one, other, "w")
                # A run that keeps to its keys teaches the server that this text needs no token.
                client.eval(MOVE.replace("return v", "return v -- " + one), 3, "own:" + one, one, other, one, other, "w")
                client.eval("if ARGV[3] then redis.call('set', KEYS[1], 1) redis.call('decr', ARGV[1]) "
                            "redis.call('incr', ARGV[2]) end return 1", 1, "own2:" + one, one, other, "go")
        return run

    pairs = [("a", "b"), ("b", "a"), ("c", "d"), ("d", "a"), ("b", "c"), ("a", "d")]
    crowd(4, [step(client, *pair) for client, pair in zip(spread(node, len(pairs)), pairs)])
    assert sum(int(node.cmd("GET", n)) for n in names) == 4000


@pytest.mark.sanitizer
def test_scripts_that_were_clean_stray_after_a_write(servers):
    """Known to keep to their keys, then both break it crosswise with writes done: no deadlock, nothing lost."""
    node = servers.node("covey", workers=2)
    text = """redis.call('incr', KEYS[1])
              if ARGV[1] then redis.call('incr', ARGV[1]) redis.call('incr', ARGV[2]) end
              -- %s"""
    clients = spread(node, 4)
    counts = {}
    for turn in range(150):
        def run(client, own, first, second):
            script = text % f"{turn} {own}"
            client.eval(script, 1, own)
            barrier.wait()
            client.eval(script, 1, own, first, second)
        barrier = threading.Barrier(4)
        keys = ["x1", "x2", "x3", "x4"]
        threads = [threading.Thread(target=run, args=(clients[i], keys[i], keys[(i + 1) % 4], keys[(i + 2) % 4]), daemon=True)
                   for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20 * PATIENCE)
            assert not thread.is_alive(), f"deadlock in turn {turn}"
    counts = {k: int(node.cmd("GET", k)) for k in ["x1", "x2", "x3", "x4"]}
    assert counts == {k: 150 * 4 for k in counts}


@pytest.mark.parametrize("primary_kind,replica_kind", ROLES)
def test_effects_reach_a_replica(servers, primary_kind, replica_kind):
    primary, replica = servers.node(primary_kind), servers.node(replica_kind)
    replica.cmd("REPLICAOF", primary.host, primary.port)
    wait_in_sync(primary, replica)
    primary.cmd("EVAL", "redis.call('set', 'one', redis.call('time')[1]) return 1", 0)
    primary.cmd("EVAL", "for i = 1, 10 do redis.call('rpush', KEYS[1], math.random(100)) end", 1, "list")
    primary.cmd("EVAL", "redis.call('select', 3) redis.call('set', 'in3', 1) redis.call('select', 0) redis.call('set', 'in0', 1)", 0)
    primary.cmd("SET", "after", 1)
    primary.cmd("EVAL", "redis.call('select', 5) redis.call('set', 'in5', 1)", 0)
    primary.cmd("SET", "after5", 1)
    primary.cmd("EVAL", "redis.set_repl(redis.REPL_NONE) redis.call('set', 'hidden', 1)", 0)
    with contextlib.suppress(redis.ResponseError):
        primary.cmd("EVAL", "redis.call('incr', 'partial') error('x')", 0)
    pipe = primary.new_client().pipeline(transaction=True)
    pipe.set("m", 1)
    pipe.eval("return redis.call('incrby', KEYS[1], 5)", 1, "m")
    assert pipe.execute() == [True, 6]
    wait_in_sync(primary, replica)
    for db in (0, 3, 5):
        ours, theirs = (n.new_client(db=db) for n in (primary, replica))
        keys = sorted(ours.keys())
        if db == 0:
            keys.remove(b"hidden")
        assert sorted(theirs.keys()) == keys
        for key in keys:
            assert theirs.dump(key) == ours.dump(key), key


def test_watch_and_multi(servers):
    node = servers.node("covey", workers=2)
    watcher = node.new_client()
    with watcher.pipeline() as pipe:
        pipe.watch("w")
        node.cmd("EVAL", "redis.call('set', 'w', 1)", 0)
        pipe.multi()
        pipe.set("w", 2)
        with pytest.raises(redis.WatchError):
            pipe.execute()


def test_many_different_scripts(servers):
    """A hundred thousand scripts are kept, as in Redis, and not more than that costs there."""
    node = servers.node("covey", workers=2)
    before = node.info("memory")["used_memory"]
    count = 100000 // (10 if covey.SANITIZED else 1)
    client = node.new_client()
    for begin in range(0, count, 1000):
        pipe = client.pipeline(transaction=False)
        for i in range(begin, begin + 1000):
            pipe.eval(f"return {i}", 0)
        assert pipe.execute() == list(range(begin, begin + 1000))
    info = node.info("memory")
    assert info["number_of_cached_scripts"] == count
    assert info["used_memory_vm_eval"] > 0 and info["used_memory_scripts_eval"] > 8 * count
    assert info["used_memory"] - before < count * 2000
    node.cmd("SCRIPT", "FLUSH")
    node.cmd("EVAL", "return 1", 0)
    assert node.info("memory")["used_memory"] - before < count * 500


@pytest.mark.sanitizer
def test_script_flush_while_scripts_run(servers):
    node = servers.node("covey", workers=2)
    flusher, clients = node.new_client(), spread(node, 4)
    numbers = [0] * 4

    def step(i):
        def run():
            numbers[i] += 1
            assert clients[i].eval(f"return {numbers[i] % 50} + redis.call('incr', KEYS[1]) * 0", 1, f"n{i}") == numbers[i] % 50
        return run

    def flush():
        flusher.script_flush()
        time.sleep(0.005)

    crowd(3, [step(i) for i in range(4)] + [flush])
    assert [int(node.cmd("GET", f"n{i}")) for i in range(4)] == numbers


def test_exclusive_commands_in_scripts(servers):
    node = servers.node("covey", workers=2)
    node.cmd("MSET", "a", 1, "b", 2)
    assert node.cmd("EVAL", "return #redis.call('keys', '*')", 0) == 2
    assert node.cmd("EVAL", "redis.call('set', 'c', 3) return #redis.call('keys', '*')", 0) == 3
    node.cmd("EVAL", "redis.call('set', 'd', 1) redis.call('flushall') redis.call('set', 'e', 1)", 0)
    assert node.cmd("KEYS", "*") == [b"e"]
    # The name is put together at run time: before the first write that makes no difference.
    node.cmd("EVAL", "redis.call('flush' .. 'all') redis.call('set', 'f', 1)", 0)
    assert node.cmd("KEYS", "*") == [b"f"]
    node.cmd("RPUSH", "l", 2, 1)
    node.cmd("MSET", "w_1", 5, "w_2", 3)
    assert node.cmd("EVAL", "redis.call('set', 'g', 1) return redis.call('sort', KEYS[1], 'by', 'w_*', 'get', 'w_*')", 1, "l") == [b"3", b"5"]


@pytest.mark.parametrize("kind", ["covey", "redis"])
def test_cluster_mode(servers, kind):
    node = servers.node(kind, cluster_enabled="yes")
    node.cmd("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
    node.cmd("CONFIG", "SET", "cluster-require-full-coverage", "no")
    wait_for("the cluster to be up", lambda: node.cmd("SET", "{" + covey.tag_of_slot(5) + "}", 1))
    here, near, away = (covey.tag_of_slot(s) for s in (5, 6, 9000))
    assert node.cmd("EVAL", "return redis.call('set', KEYS[1], 1)", 1, here) == b"OK"
    assert node.cmd("EVAL", "redis.call('set', KEYS[1], 1) return redis.call('set', ARGV[1], 2)", 1, here, near) == b"OK"
    with pytest.raises(redis.ResponseError, match="Script attempted to access a non local key in a cluster node script: "):
        node.cmd("EVAL", "return redis.call('set', ARGV[1], 2)", 1, here, away)
    with pytest.raises(redis.ResponseError, match="Script attempted to access a non local key in a cluster node"):
        node.cmd("EVAL", "return redis.call('mset', KEYS[1], 1, ARGV[1], 2)", 1, here, near)
    with pytest.raises(redis.ResponseError, match="Script attempted to access keys that do not hash to the same slot"):
        node.cmd("EVAL", "#!lua\nredis.call('set', KEYS[1], 1) return redis.call('set', ARGV[1], 2)", 1, here, near)
    assert node.cmd("EVAL", "#!lua flags=allow-cross-slot-keys\nredis.call('set', KEYS[1], 1) "
                    "return redis.call('set', ARGV[1], 2)", 1, here, near) == b"OK"
    with pytest.raises(redis.ResponseError, match="Can not run script on cluster, 'no-cluster' flag is set"):
        node.cmd("EVAL", "#!lua flags=no-cluster\nreturn 1", 0)
    with pytest.raises(redis.ResponseError, match="(?i)crossslot|same slot"):
        node.cmd("EVAL", "return 1", 2, here, near)


LIBRARY = """#!lua name=%s
local function add(keys, args) return redis.call('incrby', keys[1], args[1]) end
redis.register_function('%s_add', add)
redis.register_function{function_name='%s_get', callback=function(keys) return redis.call('get', keys[1]) end,
                        description='reads', flags={'no-writes'}}
"""


def library(name):
    return LIBRARY % (name, name, name)


def names(node):
    return sorted(entry[1] for entry in node.cmd("FUNCTION", "LIST"))


def libraries(node):
    """Redis lists in the order of its hash tables."""
    return sorted((entry[1], sorted(map(str, entry[5])), entry[7]) for entry in node.cmd("FUNCTION", "LIST", "WITHCODE"))


def test_functions_are_known_to_all_workers(servers):
    node = servers.node("covey", workers=3)
    clients = spread(node)
    assert clients[0].execute_command("FUNCTION", "LOAD", library("one")) == b"one"
    for i, client in enumerate(clients):
        assert client.execute_command("FCALL", "one_add", 1, "n", 2) == 2 * (i + 1)
        assert client.execute_command("FCALL_RO", "one_get", 1, "n") == b"%d" % (2 * (i + 1))
    clients[1].execute_command("FUNCTION", "LOAD", "REPLACE", library("one").replace("incrby", "decrby"))
    for client in clients:
        client.execute_command("FCALL", "one_add", 1, "n", 2)
    assert node.cmd("GET", "n") == b"0"
    clients[2].execute_command("FUNCTION", "DELETE", "one")
    for client in clients:
        with pytest.raises(redis.ResponseError, match="Function not found"):
            client.execute_command("FCALL", "one_add", 1, "n", 2)
    info = node.info("memory")
    assert info["number_of_libraries"] == 0 and info["used_memory_vm_functions"] > 0


@pytest.mark.parametrize("primary_kind,replica_kind", ROLES)
def test_functions_reach_a_replica(servers, primary_kind, replica_kind):
    """By full sync, and by the commands behind it."""
    primary, replica = servers.node(primary_kind), servers.node(replica_kind)
    primary.cmd("FUNCTION", "LOAD", library("before"))
    replica.cmd("FUNCTION", "LOAD", library("old"))
    replica.cmd("REPLICAOF", primary.host, primary.port)
    wait_in_sync(primary, replica)
    assert names(replica) == [b"before"]
    primary.cmd("FUNCTION", "LOAD", library("behind"))
    primary.cmd("FUNCTION", "LOAD", "REPLACE", library("before").replace("reads", "reads again"))
    payload = primary.cmd("FUNCTION", "DUMP")
    primary.cmd("FCALL", "behind_add", 1, "n", 5)
    wait_in_sync(primary, replica)
    assert names(replica) == [b"before", b"behind"]
    assert replica.cmd("GET", "n") == b"5"
    assert replica.cmd("FCALL_RO", "before_get", 1, "n") == b"5"
    assert libraries(replica) == libraries(primary)
    with pytest.raises(redis.ResponseError, match="(?i)readonly|read only|write"):
        replica.cmd("FCALL", "before_add", 1, "n", 1)
    with pytest.raises(redis.ResponseError, match="(?i)read only replica"):
        replica.cmd("FUNCTION", "DELETE", "before")
    primary.cmd("FUNCTION", "DELETE", "before")
    primary.cmd("FUNCTION", "FLUSH")
    wait_in_sync(primary, replica)
    assert names(replica) == []
    primary.cmd("FUNCTION", "RESTORE", payload)
    wait_in_sync(primary, replica)
    assert names(replica) == [b"before", b"behind"]


@pytest.mark.parametrize("writer,reader", ROLES)
def test_functions_in_files(servers, writer, reader):
    first = servers.node(writer)
    first.cmd("FUNCTION", "LOAD", library("one"))
    first.cmd("FUNCTION", "LOAD", library("two"))
    first.cmd("SET", "n", 7)
    first.cmd("SAVE")
    first.shutdown("NOSAVE")
    second = first
    second.kind = reader
    second.start()
    assert names(second) == [b"one", b"two"]
    assert second.cmd("FCALL", "two_add", 1, "n", 1) == 8
    second.cmd("FUNCTION", "DELETE", "one")
    if reader == "covey":
        second.cmd("DEBUG", "RELOAD")
        assert names(second) == [b"two"]
        assert second.cmd("FCALL", "two_get", 1, "n") == b"8"


@pytest.mark.parametrize("giver,taker", ROLES)
def test_function_dump_and_restore(servers, giver, taker):
    one, other = servers.node(giver), servers.node(taker)
    one.cmd("FUNCTION", "LOAD", library("a"))
    one.cmd("FUNCTION", "LOAD", library("b"))
    payload = one.cmd("FUNCTION", "DUMP")
    other.cmd("FUNCTION", "LOAD", library("c"))
    assert other.cmd("FUNCTION", "RESTORE", payload) == b"OK"
    assert names(other) == [b"a", b"b", b"c"]
    with pytest.raises(redis.ResponseError, match="already exists"):
        other.cmd("FUNCTION", "RESTORE", payload)
    other.cmd("FUNCTION", "RESTORE", payload, "REPLACE")
    assert names(other) == [b"a", b"b", b"c"]
    other.cmd("FUNCTION", "RESTORE", payload, "FLUSH")
    assert names(other) == [b"a", b"b"]
    other.cmd("FUNCTION", "FLUSH")
    other.cmd("FUNCTION", "LOAD", library("x").replace("x_add", "a_add"))
    with pytest.raises(redis.ResponseError, match="Function a_add already exists"):
        other.cmd("FUNCTION", "RESTORE", payload, "REPLACE")
    assert names(other) == [b"x"]


class Running:
    """A script that runs on a connection of its own until it is ended."""

    def __init__(self, node, *words):
        self.result = None
        self.client = node.new_client(socket_timeout=60)
        self.thread = threading.Thread(target=self._run, args=words, daemon=True)
        self.thread.start()

    def _run(self, *words):
        try:
            self.result = self.client.execute_command(*words)
        except redis.RedisError as error:
            self.result = error

    def wait(self):
        self.thread.join(20 * PATIENCE)
        assert not self.thread.is_alive(), "the script is still running"
        return self.result


@pytest.mark.sanitizer
@pytest.mark.parametrize("workers", [1, 2])
def test_busy_script_while_others_are_served(servers, workers):
    node = servers.node("covey", workers=workers, busy_reply_threshold=300)
    clients = spread(node, 4)
    node.cmd("SET", "held", 1)
    node.cmd("SET", "free", 1)
    running = Running(node, "EVAL", "redis.call('get', KEYS[1]) while true do end", 1, "held")
    time.sleep(0.1)
    for client in clients:
        begin = time.monotonic()
        for i in range(5):
            assert client.incr("free")
        assert time.monotonic() - begin < 5 * PATIENCE, "others wait for the script"
    # Who needs what it holds waits at first, and is told so later.
    begin = time.monotonic()
    with pytest.raises(redis.exceptions.ResponseError, match="BUSY|Redis is busy running a script. You can only call SCRIPT KILL"):
        clients[0].get("held")
    assert time.monotonic() - begin < 8 * PATIENCE
    with pytest.raises(redis.exceptions.ResponseError, match="BUSY|busy running a script"):
        clients[1].flushall()
    with pytest.raises(redis.exceptions.ResponseError, match="BUSY|busy running a script"):
        for client in clients:  # one of them shares the worker or needs the token
            client.eval("return redis.call('get', ARGV[1])", 0, "held")
    assert int(clients[2].get("free")) == 21
    assert node.new_client().ping()
    with pytest.raises(redis.exceptions.ResponseError, match="FUNCTION KILL|SCRIPT KILL"):
        clients[3].execute_command("FUNCTION", "KILL")
    clients[3].script_kill()
    error = running.wait()
    assert "Script killed by user with SCRIPT KILL... script: " in str(error) and str(error).endswith("on @user_script:1.")
    assert clients[0].get("held") == b"1"
    assert running.client.eval("return 5", 0) == 5
    with pytest.raises(redis.exceptions.ResponseError, match="No scripts in execution right now"):
        clients[3].script_kill()


def test_killed_script_text_is_that_of_redis(servers):
    texts = []
    for kind in ("redis", "covey"):
        node = servers.node(kind, busy_reply_threshold=100)
        running = Running(node, "EVAL", "local x = 1\nwhile true do x = x + 1 end", 0)
        time.sleep(0.5)
        wait_for("SCRIPT KILL", lambda: node.new_client().script_kill())
        texts.append(str(running.wait()))
    assert texts[0] == texts[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_script_that_has_written_cannot_be_killed(servers, workers):
    node = servers.node("covey", workers=workers, busy_reply_threshold=100)
    Running(node, "EVAL", "redis.call('set', KEYS[1], 1) while true do end", 1, "k")
    time.sleep(0.3)
    with pytest.raises(redis.exceptions.ResponseError, match="Sorry the script already executed write commands"):
        node.cmd("SCRIPT", "KILL")
    assert node.shutdown("NOSAVE", timeout=10) == 0


@pytest.mark.sanitizer
@pytest.mark.parametrize("workers", [1, 2])
def test_busy_function(servers, workers):
    node = servers.node("covey", workers=workers, busy_reply_threshold=100)
    node.cmd("FUNCTION", "LOAD", "#!lua name=l\nredis.register_function('spin', function() while true do end end)")
    running = Running(node, "FCALL", "spin", 1, "k", "arg")
    time.sleep(0.3)
    stats = node.cmd("FUNCTION", "STATS")
    script = stats[1]
    assert script[1] == b"spin" and script[3] == [b"FCALL", b"spin", b"1", b"k", b"arg"] and script[5] >= 100
    with pytest.raises(redis.exceptions.ResponseError, match="FUNCTION KILL"):
        node.cmd("SCRIPT", "KILL")
    assert node.cmd("FUNCTION", "KILL") == b"OK"
    assert "Script killed by user with FUNCTION KILL... script: spin, on @user_function:2." in str(running.wait())
    assert node.cmd("FUNCTION", "STATS")[1] is None


@pytest.mark.sanitizer
@pytest.mark.parametrize("workers", [1, 2])
def test_slow_scripts_among_everything_else(servers, workers):
    """Many scripts of some 30 ms, pipelines, clients that come and go in the middle: nothing is lost or mixed up."""
    node = servers.node("covey", workers=workers)
    spin = "local x = 0 for i = 1, 3e6 do x = x + i end redis.call('incr', KEYS[1]) return ARGV[1]"
    done = [0] * 3

    def script(i, client):
        def run():
            done[i] += 1
            assert client.eval(spin, 1, f"s{i}", f"v{done[i]}") == b"v%d" % done[i]
        return run

    def pipeline(i, client):
        def run():
            pipe = client.pipeline(transaction=False)
            for k in range(20):
                pipe.set(f"p{i}:{k}", k)
                pipe.get(f"p{i}:{k}")
            assert pipe.execute()[1::2] == [b"%d" % k for k in range(20)]
        return run

    def visitor():
        client = node.new_client()
        client.set("visitor", "x" * 100000)
        assert client.strlen("visitor") == 100000
        with node.raw() as sock:  # gone while its script runs
            text = spin.encode()
            sock.sendall(b"*4\r\n$4\r\nEVAL\r\n$%d\r\n%s\r\n$1\r\n1\r\n$4\r\ngone\r\n" % (len(text), text))
            time.sleep(0.005)
        client.close()

    clients = spread(node, 6)
    crowd(4, [script(i, clients[i]) for i in range(3)] + [pipeline(i, clients[3 + i]) for i in range(3)] + [visitor])
    assert [int(node.cmd("GET", f"s{i}") or 0) for i in range(3)] == done
