"""Replication with redis-server in both directions and among ourselves: full, partial, chained, cut, promoted."""
import random
import socket
import threading
import time

import pytest
import redis

import covey
from covey import LONG, assert_same_data, dataset, fill_all_types, populate, wait_for, wait_in_sync

PAIRS = [("covey", "redis"), ("redis", "covey"), ("covey", "covey")]
both_ways = pytest.mark.parametrize("primary_kind,replica_kind", PAIRS)


def follow(replica, primary):
    replica.cmd("REPLICAOF", primary.host, primary.port)


def pair(servers, primary_kind, replica_kind, primary_options=None, replica_options=None):
    primary = servers.node(primary_kind, repl_ping_replica_period=1, **(primary_options or {}))
    replica = servers.node(replica_kind, repl_ping_replica_period=1, **(replica_options or {}))
    return primary, replica


def syncs(node):
    info = node.info("stats")
    return info["sync_full"], info["sync_partial_ok"], info["sync_partial_err"]


def assert_equal(primary, *replicas, dbs=(0,), timeout=20):
    wait_in_sync(primary, *replicas, timeout=timeout)
    for db in dbs:
        expected = dataset(primary, db)
        for replica in replicas:
            assert_same_data(expected, dataset(replica, db), f"database {db}: {replica} is not like its primary {primary}")


def random_writes(node, seed, count, dbs=(0, 3)):
    """Writes of every family, among them those whose effect has to be propagated instead of the command."""
    rng = random.Random(seed)
    clients = [node.new_client(db=db) for db in dbs]
    key = lambda kind: f"{kind}:{rng.randrange(20)}"
    word = lambda: rng.choice(["a", "b", "c", "1", "22", "x" * 70]) + str(rng.randrange(50))
    steps = [
        lambda c: c.set(key("s"), word()), lambda c: c.set(key("s"), word(), px=rng.randrange(50_000, 90_000)),
        lambda c: c.set(key("s"), word(), ex=1000, nx=True), lambda c: c.set(key("s"), word(), keepttl=True),
        lambda c: c.incr(key("n"), rng.randrange(-9, 9)), lambda c: c.incrbyfloat(key("f"), rng.uniform(-1, 1)),
        lambda c: c.append(key("s"), word()), lambda c: c.setrange(key("s"), rng.randrange(100), word()),
        lambda c: c.getex(key("s"), ex=500), lambda c: c.getdel(key("s")), lambda c: c.getset(key("s"), word()),
        lambda c: c.mset({key("s"): word(), key("s"): word()}), lambda c: c.expire(key("s"), 3000),
        lambda c: c.persist(key("s")), lambda c: c.pexpire(key("h"), 1), lambda c: c.expireat(key("l"), 1),
        lambda c: c.rpush(key("l"), word(), word()), lambda c: c.lpush(key("l"), *[word() for _ in range(30)]),
        lambda c: c.lpop(key("l")), lambda c: c.rpop(key("l"), 3), lambda c: c.lrem(key("l"), 1, word()),
        lambda c: c.ltrim(key("l"), 1, 50), lambda c: c.rpoplpush(key("l"), key("l")),
        lambda c: c.linsert(key("l"), "before", word(), word()),
        lambda c: c.sadd(key("i"), *[rng.randrange(1000) for _ in range(8)]), lambda c: c.sadd(key("t"), word(), word()),
        lambda c: c.spop(key("t")), lambda c: c.spop(key("i"), 3), lambda c: c.srem(key("t"), word()),
        lambda c: c.smove(key("t"), key("t"), word()), lambda c: c.sunionstore(key("t"), key("t"), key("i")),
        lambda c: c.sdiffstore(key("t"), key("t"), key("i")),
        lambda c: c.hset(key("h"), mapping={word(): word(), word(): word()}), lambda c: c.hincrby(key("hn"), word(), 5),
        lambda c: c.hincrbyfloat(key("hn"), "f", 1.5), lambda c: c.hdel(key("h"), word()), lambda c: c.hsetnx(key("h"), word(), 1),
        lambda c: c.zadd(key("z"), {word(): rng.uniform(-9, 9), word(): 1}), lambda c: c.zincrby(key("z"), 1.25, word()),
        lambda c: c.zpopmin(key("z")), lambda c: c.zpopmax(key("z"), 2), lambda c: c.zrem(key("z"), word()),
        lambda c: c.zremrangebyrank(key("z"), 5, 9), lambda c: c.zremrangebyscore(key("z"), -1, 1),
        lambda c: c.delete(key("s"), key("l"), key("h")), lambda c: c.unlink(key("z")),
        lambda c: c.rename(key("s"), key("s")), lambda c: c.copy(key("h"), key("h"), replace=True),
        lambda c: c.restore(key("s"), 0, c.dump(key("s")), replace=True),
        lambda c: c.sort(key("i"), store=key("l")),
        lambda c: c.pipeline(transaction=True).incr(key("n")).spop(key("t")).set(key("s"), 1, ex=60).execute(),
    ]
    for n in range(count):
        client = rng.choice(clients)
        try:
            rng.choice(steps)(client)
        except (redis.ResponseError, redis.DataError):
            pass  # no such key, wrong type: part of the mixture
        if n % 400 == 399:
            clients[-1].flushdb(asynchronous=rng.random() < 0.5)
        if n % 701 == 700:
            clients[0].swapdb(*dbs)
    for client in clients:
        client.close()


@pytest.mark.sanitizer
@both_ways
def test_full_sync_and_stream(servers, primary_kind, replica_kind):
    primary, replica = pair(servers, primary_kind, replica_kind)
    fill_all_types(primary.client)
    fill_all_types(primary.new_client(db=3), seed=2)
    replica.cmd("SET", "old", "goes away")
    follow(replica, primary)
    assert_equal(primary, replica, dbs=(0, 3))
    assert syncs(primary)[0] == 1
    seed = random.randrange(1 << 32)
    print("seed", seed)
    random_writes(primary, seed, 20_000 if LONG else 3_000)
    assert_equal(primary, replica, dbs=(0, 3))
    role = primary.cmd("ROLE")
    assert role[0] == b"master" and len(role[2]) == 1 and int(role[2][0][1]) == replica.port
    role = replica.cmd("ROLE")
    assert role[0] == b"slave" and role[2] == primary.port and role[3] == b"connected"


@pytest.mark.parametrize("what", ["full sync", "reload"])
def test_watched_keys_notice_that_the_dataset_was_replaced(servers, what):
    primary, replica = pair(servers, "covey", "covey")
    replica.cmd("SET", "watched", "before")
    client = replica.client.client()  # one connection
    client.execute_command("WATCH", "watched")
    if what == "full sync":
        follow(replica, primary)
        wait_in_sync(primary, replica)
    else:
        replica.cmd("DEBUG", "RELOAD")
    client.execute_command("MULTI")
    client.execute_command("GET", "watched")
    assert client.execute_command("EXEC") is None


@both_ways
def test_replica_refuses_writes(servers, primary_kind, replica_kind):
    primary, replica = pair(servers, primary_kind, replica_kind)
    follow(replica, primary)
    wait_in_sync(primary, replica)
    with pytest.raises(redis.exceptions.ReadOnlyError):
        replica.cmd("SET", "a", 1)
    assert replica.cmd("GET", "a") is None


@both_ways
def test_wait(servers, primary_kind, replica_kind):
    primary, replica = pair(servers, primary_kind, replica_kind)
    follow(replica, primary)
    wait_in_sync(primary, replica)
    client = primary.new_client()
    client.set("a", 1)
    began = time.monotonic()
    assert client.execute_command("WAIT", 1, 5000) == 1
    assert time.monotonic() - began < 3 * covey.PATIENCE
    replica.pause()
    client.set("a", 2)
    assert client.execute_command("WAIT", 1, 300) == 0
    replica.resume()
    assert client.execute_command("WAIT", 1, 5000) == 1


@pytest.mark.sanitizer
@both_ways
@pytest.mark.parametrize("cut", ["at the primary", "at the replica"])
def test_cut_link_resumes_partially(servers, primary_kind, replica_kind, cut):
    primary, replica = pair(servers, primary_kind, replica_kind)
    populate(primary.client, 1000)
    follow(replica, primary)
    wait_in_sync(primary, replica)
    full, partial, _ = syncs(primary)
    for round_ in range(3):
        if cut == "at the primary":
            assert primary.cmd("CLIENT", "KILL", "TYPE", "replica") == 1
        else:
            assert replica.cmd("CLIENT", "KILL", "TYPE", "master") == 1
        populate(primary.client, 500, prefix=f"round{round_}")
        wait_in_sync(primary, replica)
        assert syncs(primary)[:2] == (full, partial + round_ + 1), primary.log_tail() + replica.log_tail()
    assert_equal(primary, replica)


@both_ways
def test_cut_longer_than_the_backlog_syncs_in_full(servers, primary_kind, replica_kind):
    primary, replica = pair(servers, primary_kind, replica_kind, {"repl_backlog_size": "64kb"})
    follow(replica, primary)
    wait_in_sync(primary, replica)
    replica.pause()
    primary.cmd("CLIENT", "KILL", "TYPE", "replica")
    populate(primary.client, 5000, size=200)
    replica.resume()
    assert_equal(primary, replica)
    assert syncs(primary)[0] == 2


def chain(servers, *kinds):
    nodes = [servers.node(kind, repl_ping_replica_period=1) for kind in kinds]
    for upper, lower in zip(nodes, nodes[1:]):
        follow(lower, upper)
    return nodes


@pytest.mark.parametrize("kinds", [("redis", "covey", "redis"), ("covey", "redis", "covey"), ("covey", "covey", "covey"),
                                   ("redis", "covey", "covey", "redis")])
def test_chain(servers, kinds):
    nodes = chain(servers, *kinds)
    fill_all_types(nodes[0].client)
    random_writes(nodes[0], 11, 1000)
    wait_for("one stream", lambda: len({n.stat("master_replid", "replication") for n in nodes}) == 1)
    assert_equal(nodes[0], *nodes[1:], dbs=(0, 3))
    # a cut in the upper link does not cost the lower ones a full sync
    counts = [syncs(node)[0] for node in nodes]
    nodes[0].cmd("CLIENT", "KILL", "TYPE", "replica")
    random_writes(nodes[0], 12, 500)
    assert_equal(nodes[0], *nodes[1:], dbs=(0, 3))
    assert [syncs(node)[0] for node in nodes] == counts


@both_ways
def test_promotion_keeps_the_history_as_second_id(servers, primary_kind, replica_kind):
    """A falls away, B is promoted; C and then A continue from B without a full sync."""
    a = servers.node(primary_kind, repl_ping_replica_period=1)
    b, c = servers.node(replica_kind), servers.node(primary_kind)
    fill_all_types(a.client)
    follow(b, a)
    follow(c, a)
    wait_in_sync(a, b, c)
    old_id = a.stat("master_replid", "replication")
    follow_nobody(b)
    offset = b.stat("master_repl_offset", "replication")
    info = b.info("replication")
    assert info["role"] == "master" and info["master_replid"] != old_id
    assert info["master_replid2"] == old_id and info["second_repl_offset"] <= offset + 1
    follow(c, b)
    b.cmd("SET", "after", "promotion")
    wait_in_sync(b, c)
    assert syncs(b)[:2] == (0, 1), b.log_tail()
    assert_equal(b, c)
    follow(a, b)
    wait_in_sync(b, a)
    assert_equal(b, a, c)


def follow_nobody(node):
    node.cmd("REPLICAOF", "NO", "ONE")


@both_ways
def test_restarted_replica_resumes_from_its_file(servers, primary_kind, replica_kind):
    primary, replica = pair(servers, primary_kind, replica_kind)
    populate(primary.client, 2000)
    follow(replica, primary)
    wait_in_sync(primary, replica)
    full = syncs(primary)[0]
    replica.shutdown("SAVE")
    primary.cmd("SET", "meanwhile", "1")
    replica.start(replicaof=[primary.host, primary.port])
    assert_equal(primary, replica)
    assert syncs(primary)[0] == full, f"a full sync was made:\n{replica.log_tail()}"


class Load:
    """Threads that write as fast as they can."""

    def __init__(self, node, threads=2, size=100):
        self.node, self.size, self.stopped, self.written, self.errors = node, size, threading.Event(), 0, []
        self.threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(threads)]

    def _run(self, seed):
        rng = random.Random(seed)
        client = self.node.new_client(socket_timeout=60)
        try:
            while not self.stopped.is_set():
                pipe = client.pipeline(transaction=False)
                for _ in range(50):
                    n = rng.randrange(100_000)
                    pipe.set(f"k:{n}", rng.randbytes(self.size // 2).hex())
                    pipe.hincrby(f"h:{n % 100}", n % 1000, 1)
                    if n % 7 == 0:
                        pipe.delete(f"k:{rng.randrange(100_000)}")
                    if n % 11 == 0:
                        pipe.rpush(f"l:{n % 50}", n)
                        pipe.zincrby(f"z:{n % 20}", 1, n)
                pipe.execute()
                self.written += 50
        except Exception as error:
            self.errors.append(error)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        wait_for("load", lambda: self.written)
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for thread in self.threads:
            thread.join(20)
        if self.errors:
            raise self.errors[0]


@both_ways
def test_full_sync_under_write_load(servers, primary_kind, replica_kind):
    primary, replica = pair(servers, primary_kind, replica_kind, {"client_output_buffer_limit": "replica 1gb 0 0"})
    populate(primary.client, 100_000, size=100, pipeline=5000)
    with Load(primary) as load:
        before = load.written
        follow(replica, primary)
        wait_for("the replica's link", lambda: replica.stat("master_link_status", "replication") == "up", 60)
        time.sleep(0.5)
        during = load.written - before
    print(f"{during} writes during the sync")
    assert during > 0
    assert_equal(primary, replica, timeout=60)
    assert syncs(primary)[0] == 1


def test_two_replicas_sync_at_once(servers):
    primary = servers.node("covey", client_output_buffer_limit="replica 1gb 0 0")
    populate(primary.client, 50_000, pipeline=5000)
    replicas = [servers.node(kind) for kind in ("covey", "redis", "redis")]
    with Load(primary, threads=1):
        for replica in replicas:
            follow(replica, primary)
        for replica in replicas:
            wait_for("link", lambda: replica.stat("master_link_status", "replication") == "up", 60)
    assert_equal(primary, *replicas, timeout=60)


@pytest.mark.parametrize("replica_kind", ["covey", "redis"])
def test_replica_that_cannot_keep_up_is_dropped_by_the_output_limit(servers, replica_kind):
    primary, replica = pair(servers, "covey", replica_kind, {"client_output_buffer_limit": "replica 4mb 0 0", "repl_timeout": 60})
    follow(replica, primary)
    wait_in_sync(primary, replica)
    rss = primary.rss_mb()
    log = len(primary.log_text())
    replica.pause()
    for _ in range(100):  # 100 MB through one key: the data itself stays small
        primary.client.set("big", b"x" * (1 << 20))
        if primary.stat("connected_slaves", "replication") == 0:
            break
    wait_for("the replica to be dropped", lambda: primary.stat("connected_slaves", "replication") == 0)
    grown = primary.rss_mb() - rss
    assert grown < 64, f"{grown:.0f} MB more resident"
    assert b"output buffer limit" in primary.log_text()[log:].lower() or b"client-output-buffer-limit" in primary.log_text()[log:], \
        primary.log_tail()
    replica.resume()
    assert_equal(primary, replica)


@both_ways
def test_replica_does_not_expire_by_itself(servers, primary_kind, replica_kind):
    primary, replica = pair(servers, primary_kind, replica_kind)
    follow(replica, primary)
    wait_in_sync(primary, replica)
    primary.cmd("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    primary.client.psetex("short", 200, "x")
    primary.client.set("stays", "x")
    wait_in_sync(primary, replica)
    time.sleep(0.6)
    assert replica.client.dbsize() == 2, "the key is still there"
    assert replica.cmd("GET", "short") is None and replica.cmd("EXISTS", "short") == 0, "but no longer visible"
    assert replica.client.dbsize() == 2, "and reading it did not remove it"
    assert primary.cmd("GET", "short") is None
    wait_in_sync(primary, replica)
    assert replica.client.dbsize() == 1, "the primary's DEL removes it"


@both_ways
def test_primary_that_stops_answering_is_noticed(servers, primary_kind, replica_kind):
    primary, replica = pair(servers, primary_kind, replica_kind, {}, {"repl_timeout": 2})
    follow(replica, primary)
    wait_in_sync(primary, replica)
    primary.pause()
    wait_for("the link to be given up", lambda: replica.stat("master_link_status", "replication") == "down", 10)
    primary.resume()
    primary.cmd("SET", "a", 1)
    assert_equal(primary, replica)


def test_change_repl_id_forces_a_full_sync(servers):
    primary, replica = pair(servers, "covey", "redis")
    follow(replica, primary)
    wait_in_sync(primary, replica)
    primary.cmd("DEBUG", "CHANGE-REPL-ID")
    replica.cmd("CLIENT", "KILL", "TYPE", "master")
    wait_for("the second full sync", lambda: syncs(primary)[0] == 2)
    assert_equal(primary, replica)


def test_replica_serves_old_data_as_configured(servers):
    primary, replica = pair(servers, "redis", "covey")
    primary.cmd("SET", "a", 1)
    follow(replica, primary)
    wait_in_sync(primary, replica)
    primary.kill()
    wait_for("the link to be down", lambda: replica.stat("master_link_status", "replication") == "down")
    assert replica.cmd("GET", "a") == b"1"
    replica.cmd("CONFIG", "SET", "replica-serve-stale-data", "no")
    with pytest.raises(redis.ResponseError, match="MASTERDOWN"):
        replica.cmd("GET", "a")


def test_primary_password(servers):
    primary = servers.node("redis", requirepass="pw", start=False)
    primary.start(wait=False)
    client = primary.new_client(password="pw")
    wait_for("primary", client.ping)
    client.set("a", 1)
    replica = servers.node("covey", replicaof=["127.0.0.1", primary.port])
    time.sleep(0.5)
    assert replica.stat("master_link_status", "replication") == "down"
    replica.cmd("CONFIG", "SET", "masterauth", "pw")
    wait_for("the link", lambda: replica.stat("master_link_status", "replication") == "up", 15)
    assert replica.cmd("GET", "a") == b"1"


def test_garbage_for_a_primary_does_no_harm(servers):
    """Something that listens and talks nonsense is not a primary; the replica says so and keeps its data."""
    replica = servers.node("covey")
    replica.cmd("SET", "a", 1)
    answers = [b"+PONG\r\n+OK\r\n+OK\r\n+OK\r\n+FULLRESYNC " + b"a" * 40 + b" 0\r\n$100000000000000000000\r\n", b"-ERR no\r\n" * 9,
               b"\x00" * 300]
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", covey.free_port()))
        listener.listen()
        listener.settimeout(10 * covey.PATIENCE)
        replica.cmd("REPLICAOF", "127.0.0.1", listener.getsockname()[1])
        for answer in answers:
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(1)
                try:
                    for line in answer.split(b"\r\n"):
                        peer.recv(1000)
                        peer.sendall(line + b"\r\n")
                except OSError:
                    pass
    follow_nobody(replica)
    assert replica.cmd("PING") and replica.cmd("GET", "a") == b"1"
