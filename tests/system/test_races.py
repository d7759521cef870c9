"""Everything at once on few keys: what only goes wrong between threads.  Made for the sanitizer builds, which say what
it was; on the release build the dataset has to be whole and the server alive."""
import random
import threading
import time

import pytest
import redis

import covey
from covey import wait_for, wait_in_sync

SECONDS = 60 if covey.LONG else 6


class Crowd:
    """Threads that each run one function over and over with a client and a random generator of their own."""

    def __init__(self, seed, expected=()):
        self.expected = expected or EXPECTED_ERRORS
        self.seed, self.stopped, self.threads, self.unexpected = seed, threading.Event(), [], []

    def add(self, node, step, count=1, pause=0.0, **options):
        for _ in range(count):
            rng = random.Random(self.seed + len(self.threads))
            self.threads.append(threading.Thread(target=self._run, args=(node, step, rng, pause, options), daemon=True))

    def _run(self, node, step, rng, pause, options):
        client = node.new_client(**options)
        while not self.stopped.is_set():
            try:
                step(client, rng)
            except redis.ResponseError as error:
                # What other members of the crowd bring about.
                if not any(word in str(error) for word in self.expected):
                    self.unexpected.append(f"{step.__name__}: {error}")
            except (redis.ConnectionError, redis.TimeoutError, redis.exceptions.WatchError, OSError):
                client.close()
                time.sleep(0.01)
            self.stopped.wait(pause)
        client.close()

    def run(self, seconds):
        for thread in self.threads:
            thread.start()
        time.sleep(seconds)
        self.stopped.set()
        for thread in self.threads:
            thread.join(30 * covey.PATIENCE)
        assert not any(thread.is_alive() for thread in self.threads), "a client waits for ever"
        assert not self.unexpected, self.unexpected[:10]


EXPECTED_ERRORS = ("LOADING", "READONLY", "MASTERDOWN", "EXECABORT", "no such key", "WRONGTYPE", "in progress", "NOMASTERLINK",
                   "UNBLOCKED", "WAIT cannot", "loading the dataset", "read only replica", "source and destination", "No such client",
                   "Link with MASTER", "could not be started", "no such", "already", "Background save")


def key(rng):
    return f"k:{rng.randrange(40)}"


def pipelines(client, rng):
    pipe = client.pipeline(transaction=False)
    for _ in range(rng.randrange(1, 60)):
        k = key(rng)
        rng.choice((lambda: pipe.set(k, rng.randrange(100)), lambda: pipe.incr("n" + k), lambda: pipe.get(k),
                    lambda: pipe.delete(k), lambda: pipe.psetex(k, rng.randrange(1, 30), "short"),
                    lambda: pipe.append("a" + k, "x" * rng.randrange(200))))()
    pipe.execute(raise_on_error=False)


def many_slots(client, rng):
    keys = [key(rng) for _ in range(rng.randrange(2, 30))]
    client.mset({k: "m" for k in keys})
    client.mget(keys)
    client.rename(keys[0], keys[-1] + "r")
    client.copy(keys[-1] + "r", keys[0], replace=True)
    client.execute_command("DEL", *keys)


def containers(client, rng):
    name, big = key(rng), rng.random() < 0.1
    pipe = client.pipeline(transaction=False)
    pipe.rpush("l" + name, *range(400 if big else 3)).ltrim("l" + name, -300, -1)
    pipe.hset("h" + name, mapping={str(i): i for i in range(300 if big else 3)}).hdel("h" + name, "1")
    pipe.zadd("z" + name, {str(i): i for i in range(300 if big else 3)}).zrem("z" + name, "2")
    pipe.sadd("s" + name, *range(600 if big else 3)).spop("s" + name)
    if rng.random() < 0.1:
        pipe.unlink("l" + name, "h" + name, "z" + name, "s" + name)
    pipe.execute(raise_on_error=False)


def transfer(client, rng):
    """Moves money between two accounts of three; the sum is checked at the end."""
    a, b = rng.sample(("acc:1", "acc:2", "acc:3"), 2)
    with client.pipeline() as pipe:
        pipe.watch(a, b)
        have = int(pipe.get(a) or 0)
        pipe.multi()
        pipe.decrby(a, min(have, 5))
        pipe.incrby(b, min(have, 5))
        if rng.random() < 0.05:
            pipe.execute_command("CLIENT", "LIST")
        pipe.execute()


def look_around(client, rng):
    rng.choice((lambda: client.info("everything"), lambda: client.client_list(), lambda: client.dbsize(), lambda: client.keys("k:1*"),
                lambda: list(client.scan_iter(count=50)), lambda: client.randomkey(), lambda: client.execute_command("ROLE"),
                lambda: client.slowlog_get(), lambda: client.config_get("*"), lambda: client.wait(1, 20),
                lambda: client.execute_command("LATENCY", "LATEST"), lambda: client.execute_command("PING")))()


def administer(client, rng):
    rng.choice((lambda: client.bgsave(), lambda: client.config_set("maxmemory-samples", rng.randrange(1, 9)),
                lambda: client.config_set("hash-max-listpack-entries", rng.choice((4, 128))),
                lambda: client.config_set("dbfilename", f"dump{rng.randrange(2)}.rdb"),
                lambda: client.config_set("repl-backlog-size", rng.choice(("32kb", "1mb"))),
                lambda: client.execute_command("CONFIG", "RESETSTAT"), lambda: client.client_pause(20, all=rng.random() < 0.5),
                lambda: client.client_unpause(), lambda: client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
                lambda: client.execute_command("DEBUG", "RELOAD"), lambda: client.execute_command("DEBUG", "DIGEST"),
                lambda: client.execute_command("SAVE"), lambda: client.execute_command("SLOWLOG", "RESET")))()


def cut_links(client, rng):
    client.execute_command("CLIENT", "KILL", "TYPE", rng.choice(("replica", "master")))


def flush(client, rng):
    client.execute_command(rng.choice(("FLUSHALL", "FLUSHDB")), rng.choice(("ASYNC", "SYNC")))


def flush_one(client, rng):
    client.execute_command("FLUSHDB", rng.choice(("ASYNC", "SYNC")))


def swap(client, rng):
    client.swapdb(1, 2)


def crowd_of(seed):
    print("seed", seed)
    return Crowd(seed)


@pytest.mark.sanitizer
def test_everything_at_once(servers):
    node = servers.node("covey", workers=4, slowlog_log_slower_than=0, slowlog_max_len=20, save="1 10", latency_monitor_threshold=1)
    node.client.mset({"acc:1": 100, "acc:2": 100, "acc:3": 100})
    crowd = crowd_of(random.randrange(1 << 32))
    crowd.add(node, pipelines, 3)
    crowd.add(node, many_slots, 2)
    crowd.add(node, containers, 2)
    crowd.add(node, transfer, 4)
    crowd.add(node, look_around, 2)
    crowd.add(node, administer, 1, 0.02)
    crowd.add(node, pipelines, 1, db=1)
    crowd.add(node, flush_one, 1, 0.3, db=1)
    crowd.add(node, swap, 1, 0.3)
    crowd.run(SECONDS)
    accounts = [int(v) for v in node.client.mget("acc:1", "acc:2", "acc:3")]
    assert sum(accounts) == 300 and min(accounts) >= 0, accounts


def switch_roles(nodes):
    def step(client, rng):
        a, b = rng.sample(nodes, 2)
        with_a = a.new_client()
        rng.choice((lambda: with_a.execute_command("REPLICAOF", "NO", "ONE"),
                    lambda: with_a.execute_command("REPLICAOF", b.host, b.port)))()
        with_a.close()
    return step


@pytest.mark.sanitizer
def test_roles_and_links_under_load(servers):
    nodes = [servers.node("covey", workers=3, repl_backlog_size="64kb", save="1 10") for _ in range(3)]
    crowd = crowd_of(random.randrange(1 << 32))
    for node in nodes:
        crowd.add(node, pipelines, 1)
        crowd.add(node, many_slots, 1)
        crowd.add(node, containers, 1)
        crowd.add(node, look_around, 1)
        crowd.add(node, cut_links, 1, 0.4)
        crowd.add(node, administer, 1, 0.2)
    crowd.add(nodes[0], flush, 1, 0.3)
    crowd.add(nodes[0], switch_roles(nodes), 1, 0.3)
    crowd.run(SECONDS)
    for node in nodes:
        node.drop_client()
        wait_for("a loading to end", lambda: node.client.execute_command("REPLICAOF", "NO", "ONE"), 20)
        node.client.client_unpause()
    nodes[0].cmd("SET", "after", "all")
    for replica in nodes[1:]:
        replica.cmd("REPLICAOF", nodes[0].host, nodes[0].port)
    wait_in_sync(nodes[0], *nodes[1:])
    # Keys go on running out.
    wait_for("one dataset", lambda: len({node.cmd("DEBUG", "DIGEST") for node in nodes}) == 1)


@pytest.mark.sanitizer
@pytest.mark.parametrize("how", ["signal", "command"])
def test_end_in_the_middle(servers, how):
    """The end comes while saves begin, a replica is being synchronized and clients write."""
    for n in range(5 if covey.LONG else 2):
        primary = servers.node("covey", workers=3, save="1 1")
        replica = servers.node("covey", workers=2)
        pipe = primary.client.pipeline(transaction=False)
        for i in range(20_000):
            pipe.set(f"x:{i}", "y" * 100)
        pipe.execute()
        crowd = crowd_of(random.randrange(1 << 32))
        crowd.add(primary, pipelines, 2)
        crowd.add(primary, lambda client, rng: client.bgsave(), 2, 0.005)
        replica.cmd("REPLICAOF", primary.host, primary.port)
        primary.expected_dead = replica.expected_dead = True
        ender = threading.Timer(0.2 + 0.4 * n, lambda: primary.terminate() if how == "signal" else primary.shutdown())
        ender.start()
        crowd.run(1.5)
        ender.join(30 * covey.PATIENCE)
        wait_for("the end of the primary", lambda: not primary.alive(), 10)
        assert primary.process.returncode == 0
        assert replica.terminate() == 0
        primary.expected_dead = False
        primary.start()
        assert primary.client.dbsize() >= 20_000
        primary.kill()
