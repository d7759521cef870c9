"""Every family of commands at once on a few workers, and at the end the sums are right: each element of a queue was
handed out once or is still there, messages came in order, money is where it was, and a redis-server that followed has the
same data."""
import random
import threading
import time

import pytest
import redis

import covey
from covey import wait_for, wait_in_sync
from test_races import EXPECTED_ERRORS, Crowd, cut_links, look_around, transfer

SECONDS = 60 if covey.LONG else 20 if covey.SANITIZED else 8
EXPECTED = EXPECTED_ERRORS + ("OOM", "redirect to does not exist", "NOGROUP", "BUSYGROUP", "FAILOVER", "has no connected replicas", "NOSCRIPT")
QUEUES = [f"q:{i}" for i in range(4)]
ADD_TO = """local n = redis.call('INCRBY', KEYS[1], ARGV[1])
redis.call('DECRBY', 'undeclared:' .. ARGV[2], ARGV[1])
return n"""


class Ledger:
    """What was put into queues and what was taken out of them.  A push or pop whose reply got lost is in doubt: it may
    have happened or not."""

    def __init__(self):
        self.lock = threading.Lock()
        self.pushed, self.popped, self.doubtful_pushes, self.doubtful_pops, self.next = set(), [], set(), 0, 0

    def fresh(self):
        with self.lock:
            self.next += 1
            return b"e%d" % self.next

    def push(self, client, rng):
        element, queue = self.fresh(), rng.choice(QUEUES)
        with self.lock:
            self.doubtful_pushes.add(element)
        try:
            if rng.random() < 0.3:
                pipe = client.pipeline(transaction=True)
                pipe.rpush(queue, element)
                pipe.incr("pushes")
                pipe.execute()
            else:
                rng.choice((client.lpush, client.rpush))(queue, element)
        except redis.ResponseError:  # refused as a whole
            with self.lock:
                self.doubtful_pushes.discard(element)
            raise
        with self.lock:
            self.doubtful_pushes.discard(element)
            self.pushed.add(element)

    def take(self, elements):
        with self.lock:
            self.popped += elements

    def pop(self, client, rng):
        queues = rng.sample(QUEUES, rng.randrange(1, 4))
        try:
            how = rng.randrange(4)
            if how == 0:
                got = client.blpop(queues, 0.05 + rng.random() / 5)
                self.take([got[1]] if got else [])
            elif how == 1:
                got = client.execute_command("BLMPOP", 0.2, len(queues), *queues, "RIGHT", "COUNT", 3)
                self.take(got[1] if got else [])
            elif how == 2:
                got = client.lpop(queues[0])
                self.take([got] if got else [])
            else:  # moving takes nothing out
                client.blmove(queues[0], rng.choice(QUEUES), 0.1, "LEFT", "RIGHT")
        except (redis.ConnectionError, redis.TimeoutError):
            with self.lock:
                self.doubtful_pops += 3
            raise

    def check(self, client):
        left = [element for queue in QUEUES for element in client.lrange(queue, 0, -1)]
        out = self.popped + left
        assert len(out) == len(set(out)), "an element twice"
        assert set(out) <= self.pushed | self.doubtful_pushes, "an element from nowhere"
        missing = self.pushed - set(out)
        assert len(missing) <= self.doubtful_pops, f"{len(missing)} lost, {self.doubtful_pops} may have been"
        print(f"{len(self.pushed)} pushed, {len(self.popped)} popped, {len(left)} left, {len(self.doubtful_pushes)} pushes and "
              f"{self.doubtful_pops} pops in doubt")
        assert self.popped


class Listener(threading.Thread):
    """Hears channels; every sender's numbers grow."""

    def __init__(self, node, stop):
        super().__init__(daemon=True)
        self.node, self.stop, self.heard, self.wrong = node, stop, 0, []

    def run(self):
        while not self.stop.is_set():
            client = self.node.new_client(socket_timeout=1)
            try:
                ear = client.pubsub()
                ear.subscribe("c:0", "c:1", "__redis__:invalidate")
                ear.psubscribe("c:*")
                newest = {}
                while not self.stop.is_set():
                    message = ear.get_message(timeout=0.2)
                    if message and message["type"] in ("message", "pmessage") and message["channel"][:2] == b"c:":
                        sender, number = message["data"].split(b" ")
                        at = message["type"], message["channel"], sender
                        if newest.get(at, 0) >= int(number):
                            self.wrong.append((at, newest[at], int(number)))
                        newest[at] = int(number)
                        self.heard += 1
            except (redis.RedisError, OSError):
                time.sleep(0.01)
            finally:
                client.close()


def speaker(name):
    count = [0]

    def speak(client, rng):
        pipe = client.pipeline(transaction=rng.random() < 0.2)
        for _ in range(rng.randrange(1, 20)):
            count[0] += 1
            pipe.publish(rng.choice(("c:0", "c:1", "c:2")), f"{name} {count[0]}")
        pipe.execute()
    return speak


def streams(client, rng):
    key = f"st:{rng.randrange(2)}"
    try:
        client.xgroup_create(key, "g", "0", mkstream=True)
    except redis.ResponseError:
        pass
    for _ in range(rng.randrange(1, 10)):
        client.xadd(key, {"f": rng.randrange(1000)}, maxlen=200)
    for _, entries in client.xreadgroup("g", f"w{rng.randrange(3)}", {key: ">"}, count=20, block=20) or []:
        client.xack(key, "g", "0-1", *[entry for entry, _ in entries if rng.random() < 0.8])
    if rng.random() < 0.2:
        client.xautoclaim(key, "g", "w9", 10, "0-0", count=5)


def scripts(client, rng):
    name = rng.randrange(3)
    client.eval(ADD_TO, 1, f"declared:{name}", rng.randrange(1, 10), name)


def tracked(client, rng):
    """Reads that others are told of: the listeners subscribe to invalidations, too."""
    ear = rng.choice([c["id"] for c in client.client_list() if c["flags"] == "P"] or ["0"])
    connection = client.connection_pool.get_connection("x")
    try:
        for words in [("ON", "REDIRECT", ear) + rng.choice(((), ("BCAST", "PREFIX", "k:"), ("NOLOOP",)))] + [("OFF",)]:
            connection.send_command("CLIENT", "TRACKING", *words)
            connection.read_response()
            for _ in range(20):
                connection.send_command("GET", f"k:{rng.randrange(40)}")
                connection.read_response()
    finally:
        connection.disconnect()
        client.connection_pool.release(connection)


def mixed(client, rng):
    k = f"k:{rng.randrange(40)}"
    pipe = client.pipeline(transaction=rng.random() < 0.3)
    for _ in range(rng.randrange(1, 20)):
        rng.choice((lambda: pipe.set(k, "v" * rng.randrange(300)), lambda: pipe.get(k), lambda: pipe.pfadd("p" + k, rng.random()),
                    lambda: pipe.pfmerge("p" + k), lambda: pipe.geoadd("g" + k, (rng.uniform(-90, 90), rng.uniform(-80, 80), "m")),
                    lambda: pipe.setbit("b" + k, rng.randrange(2000), 1), lambda: pipe.expire(k, rng.randrange(1, 3)),
                    lambda: pipe.zadd("z" + k, {rng.random(): 1}), lambda: pipe.zpopmin("z" + k, 3), lambda: pipe.spop("s" + k),
                    lambda: pipe.sadd("s" + k, rng.randrange(99)), lambda: pipe.hset("h" + k, rng.randrange(99), 1),
                    lambda: pipe.copy(k, "copy" + k, replace=True), lambda: pipe.rename("s" + k, "sk:0"),
                    lambda: pipe.sort("s" + k, alpha=True), lambda: pipe.unlink("h" + k, "z" + k)))()
    pipe.execute(raise_on_error=False)


def flood(client, rng):
    """Past maxmemory: eviction of what may run out."""
    client.setex(f"db1:{rng.randrange(5000)}", 600, "x" * 10000)


def administer(client, rng):
    rng.choice((lambda: client.config_set("maxmemory-samples", rng.randrange(1, 9)), lambda: client.bgsave(),
                lambda: client.config_set("list-max-listpack-size", rng.choice((2, -2))),
                lambda: client.client_pause(20, all=rng.random() < 0.5), lambda: client.script_flush(),
                lambda: client.execute_command("DEBUG", "RELOAD"), lambda: client.execute_command("SLOWLOG", "RESET"),
                lambda: client.config_set("notify-keyspace-events", rng.choice(("", "KEA")))))()


def kill_some(client, rng):
    ids = [c["id"] for c in client.client_list()]
    client.execute_command("CLIENT", "KILL", "ID", rng.choice([i for i in ids if i != "0"]))


def flush_other(client, rng):
    rng.choice((client.flushdb, lambda: client.swapdb(1, 2)))()


def everybody(crowd, node, ledger):
    crowd.add(node, ledger.push, 3)
    crowd.add(node, ledger.pop, 5)
    for _ in range(2):
        crowd.add(node, speaker(f"{node.port}-{len(crowd.threads)}"), 1, 0.002)
    crowd.add(node, transfer, 3)
    crowd.add(node, streams, 2)
    crowd.add(node, scripts, 2)
    crowd.add(node, tracked, 1)
    crowd.add(node, mixed, 3)
    crowd.add(node, look_around, 1, 0.01)
    crowd.add(node, administer, 1, 0.1)
    crowd.add(node, kill_some, 1, 0.3)


def new_crowd():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    return Crowd(seed, EXPECTED)


def check_sums(client):
    accounts = [int(v) for v in client.mget("acc:1", "acc:2", "acc:3")]
    assert sum(accounts) == 300 and min(accounts) >= 0, accounts
    for name in range(3):
        assert int(client.get(f"declared:{name}") or 0) == -int(client.get(f"undeclared:{name}") or 0), name


@pytest.mark.sanitizer
def test_storm(servers):
    node = servers.node("covey", workers=2, maxmemory_policy="volatile-lru", save="1 10")
    replica = servers.node("redis", replicaof=[node.host, node.port], client_output_buffer_limit="replica 0 0 0")
    node.client.mset({"acc:1": 100, "acc:2": 100, "acc:3": 100})
    ledger, stop = Ledger(), threading.Event()
    listeners = [Listener(node, stop) for _ in range(3)]
    for listener in listeners:
        listener.start()
    node.client.config_set("maxmemory", node.stat("used_memory") + (20 << 20))
    crowd = new_crowd()
    everybody(crowd, node, ledger)
    crowd.add(node, flood, 2, db=1)
    crowd.add(node, flush_other, 1, 0.5, db=1)
    crowd.add(node, cut_links, 1, 1.0)
    crowd.run(SECONDS)
    stop.set()
    for listener in listeners:
        listener.join(20 * covey.PATIENCE)
        assert not listener.is_alive() and not listener.wrong and listener.heard, listener.wrong[:3]
    node.drop_client()
    node.client.client_unpause()
    node.client.config_set("maxmemory", 0)
    print({name: node.stat(name) for name in ("evicted_keys", "total_commands_processed", "used_memory")})
    ledger.check(node.client)
    check_sums(node.client)
    wait_for("no client asleep", lambda: node.stat("blocked_clients") == 0)
    wait_in_sync(node, replica)
    wait_for("one dataset", lambda: node.cmd("DEBUG", "DIGEST") == replica.cmd("DEBUG", "DIGEST"), 15)


@pytest.mark.sanitizer
def test_storm_with_changing_roles(servers):
    """FAILOVER and REPLICAOF there and back under all of that: nobody hangs or dies, and both have the same data at the end."""
    nodes = [servers.node("covey", workers=2) for _ in range(2)]
    nodes[1].cmd("REPLICAOF", nodes[0].host, nodes[0].port)
    wait_in_sync(*nodes)

    def fail_over(client, rng):
        client.execute_command("FAILOVER", "TIMEOUT", 500)

    def switch(client, rng):
        client.execute_command("REPLICAOF", *rng.choice((("NO", "ONE"), (nodes[1].host, nodes[1].port))))

    crowd = new_crowd()
    for node in nodes:
        everybody(crowd, node, Ledger())
        crowd.add(node, fail_over, 1, 0.7)
        crowd.add(node, cut_links, 1, 0.9)
    crowd.add(nodes[0], switch, 1, 1.1)
    crowd.run(SECONDS / 2)
    for node in nodes:
        node.drop_client()

    def settle():
        with_a = nodes[0].client
        state = with_a.info("replication")["master_failover_state"]
        if state != "no-failover":
            with_a.execute_command("FAILOVER", "ABORT")
        return with_a.execute_command("REPLICAOF", "NO", "ONE")

    wait_for("a primary", settle, 20)
    wait_for("a replica", lambda: nodes[1].cmd("REPLICAOF", nodes[0].host, nodes[0].port), 20)
    nodes[0].client.client_unpause()
    nodes[0].cmd("SET", "after", "all")
    wait_in_sync(*nodes, timeout=40)
    wait_for("one dataset", lambda: len({node.cmd("DEBUG", "DIGEST") for node in nodes}) == 1, 15)
    wait_for("no client asleep", lambda: all(node.stat("blocked_clients") == 0 for node in nodes))
