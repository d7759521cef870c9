"""No late yes: a primary that was stopped, or cut off, neither executes nor acknowledges what lay in its sockets."""
import random
import select
import time

import pytest

from covey import LONG, PATIENCE, cluster_nodes, key_slot, tag_of_slot, wait_for
from wire import Closed, Error, Wire


def lease_left(node):
    return node.stat("cluster_lease_left_ms", "cluster")


def drain(wire, expected):
    """Replies until there are so many or the connection ends."""
    got = []
    try:
        while len(got) < expected:
            got.append(wire.read())
    except (Closed, OSError):
        pass
    return got


def writes(tag, first, count):
    return b"".join(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$1\r\nx\r\n" % (len(key), key)
                    for key in (b"{%s}%d" % (tag, n) for n in range(first, first + count)))


def tag_on(node):
    """A hash tag of a slot that the node serves."""
    return tag_of_slot(min(cluster_nodes(node)[node.id].slots)).encode()


def stop_until_replaced(cluster, primary, replica, rng, wires, sent):
    """SIGSTOP with writes under way; more of them into its sockets; SIGCONT once another one has its place."""
    primary.pause()
    for wire, data in zip(wires, sent):
        wire.sock.sendall(data)
    cluster.wait_primary(replica, timeout=30)
    time.sleep(rng.uniform(0, 0.3))
    primary.resume()


def assert_acknowledged_is_kept(cluster, tag, keys, what):
    """Each of these keys is at the present owner of the slot."""
    def values(part):
        with cluster.owner(key_slot(b"{%s}" % tag)).new_client() as client:
            return client.mget(part)
    present = set()
    for first in range(0, len(keys), 1000):
        part = keys[first:first + 1000]
        found = wait_for("the owner to answer", lambda: values(part), 20)  # a busy machine may have it lose sight of the others
        present.update(key for key, value in zip(part, found) if value is not None)
    missing = [key for key in keys if key not in present]
    assert not missing, f"{what}: {len(missing)} of {len(keys)} acknowledged writes are lost, among them {missing[:5]}"


@pytest.mark.parametrize("kinds", [["covey"], ["covey", "redis"]], ids=["covey", "redis voters"])
def test_a_stopped_primary_says_no_late_yes(servers, kinds):
    rounds = 60 if LONG else 10 if kinds == ["covey"] else 3
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    # The shard under test is Covey's; the other voters are of either kind.
    cluster = servers.cluster(["covey"] + [kinds[-1]] * 2 + ["covey"] * 3, replicas=1, timeout=1000)
    cluster.wait_whole()
    acknowledged = refused = 0
    online = lambda node: b"state=online" in node.cli("INFO", "replication").encode()
    primary = cluster.nodes[0]
    for number in range(rounds):
        replica = cluster.replicas_of(primary)[0]
        wait_for("the replica to be served", lambda: online(primary))
        tag = tag_on(primary)
        wires = [Wire(primary) for _ in range(6)]
        base = number * 1_000_000
        # Some writes before the stop, whose replies nobody reads until later; more of them while it stands still.
        depth = rng.randrange(1, 400)
        for i, wire in enumerate(wires):
            wire.sock.sendall(writes(tag, base + i * 10_000, depth))
        if number % 2 == 0:  # a busy machine may need longer to answer any of them
            assert select.select([wires[0].sock], [], [], 10 * PATIENCE)[0]
        time.sleep(rng.uniform(0, 0.003))
        more = rng.randrange(1, 300)
        stop_until_replaced(cluster, primary, replica, rng,
                            wires, [writes(tag, base + i * 10_000 + depth, more) for i in range(len(wires))])
        kept = []
        for i, wire in enumerate(wires):
            for n, reply in enumerate(drain(wire, depth + more)):
                if reply == "OK":
                    kept.append(b"{%s}%d" % (tag, base + i * 10_000 + n))
                else:
                    # TRYAGAIN: the map changed between the decision to redirect and the look at the address.
                    assert isinstance(reply, Error) and reply.split()[0] in ("MOVED", "CLUSTERDOWN", "NOACK", "TRYAGAIN"), reply
                    refused += 1
            wire.close()
        acknowledged += len(kept)
        cluster.wait_whole(timeout=40)
        assert_acknowledged_is_kept(cluster, tag, kept, f"seed {seed}, round {number}")
        primary = replica
    assert acknowledged and refused
    print(f"{rounds} stops, {acknowledged} writes acknowledged, 0 lost, {refused} refused; seed {seed}")


def test_a_short_stop_only_delays(servers):
    """Stopped for longer than the lease, but not for long enough to be replaced: what lay in the sockets is executed once
    the others have been heard."""
    cluster = servers.cluster(["covey"] * 6, replicas=1, timeout=6000)
    cluster.wait_whole()
    primary = cluster.nodes[0]
    tag = tag_on(primary)
    assert 0 < lease_left(primary) <= 4800
    wire = Wire(primary)
    primary.pause()
    wire.sock.sendall(writes(tag, 0, 100))
    time.sleep(5)
    primary.resume()
    assert drain(wire, 100) == ["OK"] * 100
    assert lease_left(cluster.replicas_of(primary)[0]) == -1


# ---- min-replicas-to-ack

def shard_of_three(servers, timeout=1000, **options):
    """Three primaries; the first one has two replicas, the others none."""
    cluster = servers.cluster(["covey"] * 5, form=False, timeout=timeout, min_replicas_to_ack=1,
                              cluster_allow_replica_migration="no", **options)
    nodes = cluster.nodes
    for n, node in enumerate(nodes[:3]):
        node.cmd("CLUSTER", "ADDSLOTSRANGE", 16384 * n // 3, 16384 * (n + 1) // 3 - 1)
    for n, node in enumerate(nodes):
        node.cmd("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
    cluster.meet()
    for replica in nodes[3:]:
        replica.cmd("CLUSTER", "REPLICATE", nodes[0].id)
    cluster.wait_whole()
    return cluster


def test_the_option_is_live(servers):
    """Set while the cluster runs, at the primary first; its replicas learn of it on the bus."""
    cluster = shard_of_three(servers, timeout=4000)
    for node in cluster.nodes:
        node.cmd("CONFIG", "SET", "min-replicas-to-ack", 0)
    primary, replicas = cluster.nodes[0], cluster.nodes[3:]
    ready = lambda: primary.stat("ack_members_ready", "replication")
    tag = tag_on(primary)
    wire = Wire(primary)
    wait_for("no waiting for members", lambda: ready() == -1)
    for replica in replicas:
        replica.pause()
    assert wire("SET", b"{%s}a" % tag, 1) == "OK"  # nobody waits
    for replica in replicas:
        replica.resume()
    cluster.wait_whole()
    for node in cluster.nodes:
        node.cmd("CONFIG", "SET", "min-replicas-to-ack", 1)
    wait_for("both to be members", lambda: ready() == 2)
    assert wire("SET", b"{%s}a" % tag, 2) == "OK"
    for replica in replicas:
        replica.pause()
    wire.send("SET", b"{%s}a" % tag, 3)
    assert wire.silent(0.5)
    for replica in replicas:
        replica.resume()
    assert wire.read() == "OK"


class Flow:
    """One connection that writes numbered keys, pipelined; remembers which were acknowledged."""

    def __init__(self, node, tag, first):
        self.wire, self.tag, self.first = Wire(node, timeout=20), tag, first
        self.sent, self.kept, self.seen = 0, [], 0

    def send(self, count):
        self.wire.sock.sendall(writes(self.tag, self.first + self.sent, count))
        self.sent += count

    def read(self, down_to=0):
        """Until so many replies are still to come, or the connection ends."""
        try:
            while self.sent - self.seen > down_to:
                reply = self.wire.read()
                if reply == "OK":
                    self.kept.append(b"{%s}%d" % (self.tag, self.first + self.seen))
                self.seen += 1
        except (Closed, OSError):
            return False
        return True


def members_ready(node):
    wire = Wire(node)
    tag = tag_on(node)
    ok = wire("SET", b"{%s}ready" % tag, "1") == "OK"
    wire.close()
    return ok


def test_the_successor_has_every_acknowledged_write(servers):
    """One replica stands still until writes go on without it; then the primary is killed, and it goes on: it does not
    take over, though it may be the first to try."""
    rounds = 20 if LONG else 3
    cluster = shard_of_three(servers, min_replicas_to_ack_timeout=2000)
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    acknowledged = 0
    for number in range(rounds):
        primary = next(n for n in cluster.primaries() if cluster.replicas_of(n))
        replicas = cluster.replicas_of(primary)
        rng.shuffle(replicas)
        behind, ahead = replicas
        wait_for("members", lambda: members_ready(primary))
        flow = Flow(primary, tag_on(primary), number * 1_000_000)
        for _ in range(20):
            flow.send(100)
            flow.read(down_to=50)
        behind.pause()
        # Held until it is given up, then on with the other one.
        before = len(flow.kept)
        deadline = time.monotonic() + 15
        while len(flow.kept) < before + 2000 and time.monotonic() < deadline:
            flow.send(100)
            flow.read(down_to=50)
        assert len(flow.kept) >= before + 2000, "writes did not go on without the replica that stands still"
        flow.send(500)
        primary.kill()
        behind.resume()
        flow.read()
        cluster.wait_primary(ahead, timeout=30)
        acknowledged += len(flow.kept)
        wait_for("the new primary to serve", lambda: ahead.cmd("GET", b"{%s}ready" % flow.tag) is not None)
        assert_acknowledged_is_kept(cluster, flow.tag, flow.kept, f"seed {seed}, round {number}")
        primary.start()
        cluster.wait_whole(timeout=40)
    print(f"{rounds} kills, {acknowledged} writes acknowledged, 0 lost; seed {seed}")


def test_force_and_restart_keep_what_was_acknowledged(servers):
    """CLUSTER FAILOVER FORCE under writes, and a primary killed and restarted at once."""
    rounds = 20 if LONG else 4
    cluster = shard_of_three(servers)
    rng = random.Random(seed := random.randrange(1 << 32))
    acknowledged = 0
    for number in range(rounds):
        primary = next(n for n in cluster.primaries() if cluster.replicas_of(n))
        wait_for("members", lambda: members_ready(primary))
        tag = tag_on(primary)
        flows = [Flow(primary, tag, number * 1_000_000 + i * 100_000) for i in range(4)]
        for _ in range(10):
            for flow in flows:
                flow.send(rng.randrange(1, 200))
            for flow in flows:
                flow.read(down_to=rng.randrange(100))
        if number % 2:
            rng.choice(cluster.replicas_of(primary)).cmd("CLUSTER", "FAILOVER", "FORCE")
            for flow in flows:
                flow.send(500)
        else:
            for flow in flows:
                flow.send(500)
            primary.kill()
            primary.start(wait=False)
        for flow in flows:
            flow.read()
        time.sleep(0.5)
        cluster.wait_whole(timeout=60)
        kept = [key for flow in flows for key in flow.kept]
        acknowledged += len(kept)
        assert_acknowledged_is_kept(cluster, tag, kept, f"seed {seed}, round {number}")
    print(f"{rounds} failovers, {acknowledged} writes acknowledged, 0 lost; seed {seed}")


# ---- a primary that is cut off

def test_a_primary_in_the_minority_says_no_late_yes(servers):
    """Cut off from the other nodes, not from its clients: it has lost its right to write before another one is elected,
    and what it has acknowledged is there."""
    cluster = servers.cluster(["covey"] * 6, replicas=1, timeout=1000, network=True, min_replicas_to_ack=1)
    net, nodes = cluster.network, cluster.nodes
    primary, replica = nodes[0], nodes[3]
    wait_for("members", lambda: members_ready(primary))
    flow = Flow(primary, tag_on(primary), 0)
    for _ in range(20):
        flow.send(100)
        flow.read(down_to=50)
    net.split([0])
    cut = time.monotonic()
    flow.send(500)
    cluster.nodes = nodes[1:]
    cluster.wait_primary(replica, timeout=30)
    elected = time.monotonic()
    flow.send(500)
    assert lease_left(primary) == 0
    cluster.nodes = nodes
    net.heal()
    flow.read()
    cluster.wait_whole(timeout=60)
    assert_acknowledged_is_kept(cluster, flow.tag, flow.kept, "minority")
    print(f"{len(flow.kept)} writes acknowledged, 0 lost; elected {elected - cut:.2f} s after the cut")
