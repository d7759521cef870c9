"""Clusters of this project's nodes and redis-server 7.0 nodes together. Every direction is a test of its own and checks the
data afterwards."""
import random
import time

import pytest

import covey
from covey import SLOTS, Writer, assert_same_data, cluster_nodes, dataset, run, wait_for

OTHER = {"covey": "redis", "redis": "covey"}
both = pytest.mark.parametrize("new_kind,old_kind", [("covey", "redis"), ("redis", "covey")])


@pytest.fixture(scope="module")
def steady(module_servers):
    """covey <- redis, redis <- covey, covey <- redis (primary <- replica); for tests that leave it whole."""
    cluster = module_servers.cluster(["covey", "redis", "covey", "redis", "covey", "redis"], replicas=1)
    cluster.populate(1000, prefix="steady")
    return cluster


def ends_well(cluster, writer=None, kills=(), data=None):
    """All agree, acknowledged writes are there, replicas equal their primaries."""
    cluster.wait_whole()
    now = cluster.dataset()
    if writer:
        writer.assert_kept(now, kills)
    for key, value in (data or {}).items():
        assert now.get(key) == value, f"{key!r} was {value}, is {now.get(key)}"
    cluster.assert_replicas_equal()


def test_create_by_redis_cli(servers):
    cluster = servers.cluster(["covey", "redis", "redis", "redis", "covey", "covey"], form=False)
    cluster.create_by_cli(replicas=1)
    cluster.populate(500)
    assert len(cluster.dataset()) == 500
    assert "[OK] All nodes agree about slots configuration." in cluster.cli("check", at=cluster.nodes[0])
    assert "[OK] All nodes agree about slots configuration." in cluster.cli("check", at=cluster.nodes[1])
    ends_well(cluster)


@pytest.mark.parametrize("asked", ["covey", "redis"])
def test_gossip_makes_everybody_known(servers, asked):
    """One node is told to MEET the others; the others learn of each other by gossip, whatever their kind."""
    kinds = [asked, OTHER[asked], asked, OTHER[asked], asked]
    cluster = servers.cluster(kinds, form=False)
    hub = cluster.nodes[0]
    cluster.meet()
    wait_for("all links", lambda: all(line.link == "connected" or "myself" in line.flags
                                      for node in cluster.nodes for line in cluster_nodes(node).values()))
    for n, node in enumerate(cluster.nodes):
        node.cmd("CLUSTER", "ADDSLOTSRANGE", SLOTS * n // 5, SLOTS * (n + 1) // 5 - 1)
    cluster.wait_whole()  # slots have gone round as well, and epoch collisions are resolved
    epochs = wait_for("config epochs to be told apart", lambda: (lambda e: len(set(e)) == 5 and e)(
        [line.epoch for line in cluster_nodes(hub).values()]), 30)
    for node in cluster.nodes:
        wait_for(f"{node} to see the same epochs", lambda: sorted(l.epoch for l in cluster_nodes(node).values()) == sorted(epochs))


@both
def test_replica_of_one_kind_follows_a_primary_of_the_other(steady, new_kind, old_kind):
    found = 0
    for primary, replicas in steady.pairs():
        for replica in replicas:
            if (replica.kind, primary.kind) == (new_kind, old_kind):
                found += 1
                covey.wait_in_sync(primary, replica)
                assert_same_data(dataset(primary), dataset(replica, readonly=True))
    assert found


@both
def test_votes(servers, new_kind, old_kind):
    """All voters are of one kind, the candidate of the other: their votes elect it, over a dead primary of the voters'
    kind. votes of redis-server nodes elect a Covey replica, and the reverse."""
    cluster = servers.cluster([old_kind] * 3 + [new_kind] * 3, replicas=1)
    primary, (replica,) = cluster.pairs()[0]
    assert (primary.kind, replica.kind) == (old_kind, new_kind)
    cluster.populate(900)
    with Writer(cluster) as writer:
        covey.wait_in_sync(primary, replica)
        data = {k: v for k, v in cluster.dataset().items() if k.startswith(b"k:")}
        at = time.monotonic()
        primary.kill()
        cluster.wait_primary(replica)
        writer.wait_flowing()
        print(f"writes flow {time.monotonic() - at:.2f} s after kill -9")
        primary.start()
        cluster.wait_replica_of(primary, replica)
    ends_well(cluster, writer, [at], data)


@both
def test_fail_is_seen_by_both_kinds(steady, new_kind, old_kind):
    """A dead node of one kind is FAIL for nodes of both kinds, and well again for both once it is back."""
    victim = next(replica for _, replicas in steady.pairs() for replica in replicas if replica.kind == new_kind)
    id_ = victim.id
    victim.kill()
    for node in steady.live():
        wait_for(f"{node} to see FAIL", lambda: "fail" in cluster_nodes(node)[id_].flags, 15)
    victim.start()
    ends_well(steady)


def test_one_primary_of_each_kind_dies(servers):
    """Mixed voters (one of each kind remains) agree on both failures, one after the other."""
    cluster = servers.cluster(["covey", "redis", "covey", "redis", "covey", "redis"], replicas=1)
    cluster.populate(600)
    kills = []
    with Writer(cluster) as writer:
        for kind in ("covey", "redis"):
            primary, (replica,) = next(pair for pair in cluster.pairs() if pair[0].kind == kind)
            covey.wait_in_sync(primary, replica)
            kills.append(time.monotonic())
            primary.kill()
            cluster.wait_primary(replica)
            writer.wait_flowing()
            primary.start()
            cluster.wait_replica_of(primary, replica)
            cluster.wait_whole()
    ends_well(cluster, writer, kills)


@both
def test_manual_failover(servers, new_kind, old_kind):
    """CLUSTER FAILOVER: a replica of one kind takes over from a live primary of the other. Nothing is lost."""
    cluster = servers.cluster([old_kind, new_kind, old_kind, new_kind, old_kind, new_kind], replicas=1)
    primary, (replica,) = next(pair for pair in cluster.pairs() if (pair[0].kind, pair[1][0].kind) == (old_kind, new_kind))
    cluster.populate(600)
    with Writer(cluster) as writer:
        writer.wait_flowing()
        covey.wait_in_sync(primary, replica)
        replica.cmd("CLUSTER FAILOVER")
        cluster.wait_primary(replica)
        cluster.wait_replica_of(primary, replica)
        writer.wait_flowing()
        # and back
        cluster.wait_whole()
        covey.wait_in_sync(replica, primary)
        primary.cmd("CLUSTER FAILOVER")
        cluster.wait_primary(primary)
        cluster.wait_replica_of(replica, primary)
        writer.wait_flowing()
    ends_well(cluster, writer)


@both
def test_slots_moved_by_redis_cli(servers, new_kind, old_kind):
    """Reshard with redis-cli from one kind to the other, under writes, all types underneath."""
    cluster = servers.cluster([old_kind, new_kind, old_kind])
    source, target = cluster.nodes[:2]
    cluster.populate(3000)
    for slot in range(5):
        tag = "{%s}" % covey.tag_of_slot(slot)
        source.client.hset(tag + "h", mapping={f"f{n}": n for n in range(400)})
        source.client.zadd(tag + "z", {f"m{n}": n / 3 for n in range(400)})
        source.client.rpush(tag + "l", *range(1000))
        source.client.sadd(tag + "i", *range(50))
        source.client.sadd(tag + "s", *[f"m{n}" for n in range(300)])
        source.client.set(tag + "t", "x", ex=10000)
    data = cluster.dataset()
    with Writer(cluster, rate=100) as writer:
        writer.wait_flowing(50)
        out = cluster.cli("reshard", "--cluster-from", source.id, "--cluster-to", target.id, "--cluster-slots", "500",
                          "--cluster-yes")
        assert out.count("Moving slot") >= 500
        cluster.wait_whole()
        writer.wait_flowing(50)
    assert set(range(500)) <= cluster_nodes(source)[target.id].slots
    now = cluster.dataset()
    for key, (kind, value, expiry) in data.items():
        assert now[key][:2] == (kind, value), key
        assert abs(now[key][2] - expiry) < 2000, key
    writer.assert_kept(now)


@both
def test_node_joins_takes_a_shard_over_and_hands_it_back(servers, new_kind, old_kind):
    """A node of one kind joins a running cluster of the other as replica, takes over, hands back, and leaves."""
    cluster = servers.cluster([old_kind] * 3)
    cluster.populate(1000)
    guest = servers.node(new_kind, cluster_enabled="yes", cluster_node_timeout=1000, cluster_replica_validity_factor=0)
    host = cluster.nodes[0]
    with Writer(cluster, rate=200) as writer:
        run([covey.REDIS_CLI, "--cluster", "add-node", guest.address, host.address, "--cluster-slave", "--cluster-master-id", host.id])
        cluster.nodes.append(guest)
        cluster.wait_replica_of(guest, host)
        cluster.wait_whole()
        for new, old in ((guest, host), (host, guest)):
            covey.wait_in_sync(old, new)
            new.cmd("CLUSTER FAILOVER")
            cluster.wait_primary(new)
            cluster.wait_replica_of(old, new)
            cluster.wait_whole()
            writer.wait_flowing(80)
        cluster.cli("del-node", guest.id, at=host)
        cluster.nodes.remove(guest)
        guest.expected_dead = True
        cluster.wait_whole()
        writer.wait_flowing(80)
    ends_well(cluster, writer)


def test_restart_with_the_nodes_conf_of_the_other_kind(servers):
    """A node is replaced in place: the same directory, nodes.conf and dump.rdb, by the other kind of server."""
    cluster = servers.cluster(["covey", "redis", "covey", "redis"], replicas=1)
    cluster.populate(400)
    data, ids = cluster.dataset(), {node.port: node.id for node in cluster.nodes}
    random.seed(1)
    for at, node in enumerate(list(cluster.nodes)):
        node.shutdown("SAVE", "NOW", "FORCE")
        other = servers.node(OTHER[node.kind], port=node.port, directory=node.dir, cluster_enabled="yes",
                             cluster_node_timeout=1000, cluster_replica_validity_factor=0)
        cluster.nodes[at] = other
        assert other.id == ids[other.port]
        cluster.wait_whole()
    ends_well(cluster, data=data)


@pytest.mark.parametrize("voters", ["redis", "covey"])
def test_redis_primary_that_restarts_empty_does_not_wipe_its_covey_replica(servers, voters):
    """redis-server comes back without its data before anyone noticed and serves emptiness. Its Covey replica does not copy
    that: it refuses the full sync and stands for election, and voters of either kind give it their votes."""
    cluster = servers.cluster(["redis", voters, voters, "covey", "redis", "redis"], replicas=1, timeout=3000)
    primary, (replica,) = cluster.pairs()[0]
    assert (primary.kind, replica.kind) == ("redis", "covey")
    cluster.populate(2000)
    data = cluster.dataset()
    covey.wait_in_sync(primary, replica)
    primary.kill()
    primary.start()
    cluster.wait_primary(replica, 30)
    cluster.wait_replica_of(primary, replica)
    cluster.wait_whole()
    assert_same_data(data, cluster.dataset(), "acknowledged writes are gone")
    cluster.assert_replicas_equal()
