"""The IDs of shards (Redis 7.2), among nodes of this kind and beside redis-server 7.0, which knows none."""
import re

from covey import cluster_nodes, wait_for


def shard_of(node):
    return node.cmd("CLUSTER", "MYSHARDID").decode()


def shards(node):
    """CLUSTER SHARDS: [{ids of nodes}]."""
    pairs = lambda flat: dict(zip(flat[::2], flat[1::2]))  # noqa: E731
    client = node.new_client()
    client.response_callbacks.clear()
    found = client.execute_command("CLUSTER", "SHARDS")
    return [{pairs(of)[b"id"].decode() for of in pairs(shard)[b"nodes"]} for shard in found]


def test_an_id_outlives_failover_and_restart(servers):
    cluster = servers.cluster(["covey"] * 6, replicas=1, timeout=2000)
    pairs = cluster.pairs()
    ids = {primary: shard_of(primary) for primary, _ in pairs}
    assert len(set(ids.values())) == 3
    assert all(re.fullmatch("[0-9a-f]{40}", id_) and id_ != primary.id for primary, id_ in ids.items())
    for primary, (replica,) in pairs:
        wait_for(f"{replica} to be in its primary's shard", lambda: shard_of(replica) == ids[primary])
    (primary, (replica,)), observer = pairs[0], pairs[1][0]
    replica.cmd("CLUSTER FAILOVER")
    cluster.wait_primary(replica)
    cluster.wait_replica_of(primary, replica)
    assert shard_of(primary) == shard_of(replica) == ids[primary]
    # A failed primary without slots stands with the shard whose slots another has taken over.
    replica.kill()
    cluster.wait_primary(primary)
    wait_for("FAIL", lambda: "fail" in cluster_nodes(observer)[replica_id(cluster, observer, replica)].flags)
    wait_for("both in one shard", lambda: len(shards(observer)) == 3
             and {primary.id, replica_id(cluster, observer, replica)} in shards(observer))
    replica.start()
    cluster.wait_replica_of(replica, primary)
    assert shard_of(primary) == shard_of(replica) == ids[primary]
    # Who leaves, gets another.
    replica.cmd("CLUSTER", "RESET", "HARD")
    assert shard_of(replica) not in ids.values()


def replica_id(cluster, observer, node):
    return next(line.id for line in cluster_nodes(observer).values() if line.port == node.port)


def test_beside_redis(servers):
    """A shard under a 7.0 primary is called by that node's ID, and keeps the name when a node of this kind takes over.
    redis-server is told no such ID, which it would log for each heartbeat, and reads a nodes.conf that has them."""
    cluster = servers.cluster(["redis", "covey", "covey", "redis"], replicas=1, timeout=2000,
                              cluster_announce_hostname="some.example")
    theirs, ours, replica = cluster.nodes[:3]
    assert cluster.role(replica) == "slave" and cluster_nodes(replica)[replica.id].primary_id == theirs.id
    name, our_name, old_id = shard_of(replica), shard_of(ours), theirs.id
    assert name == theirs.id and our_name != ours.id
    wait_for("the other's name in the file", lambda: our_name in nodes_conf(replica))
    wait_for("host names everywhere", lambda: all(host_names_are_right(node) for node in cluster.nodes))
    replica.cmd("CLUSTER FAILOVER")
    cluster.wait_primary(replica)
    cluster.wait_replica_of(theirs, replica)
    assert shard_of(replica) == name == old_id
    for node in cluster.nodes:
        assert node.kind == "covey" or b"unknown extension" not in node.log_text().lower()
    # redis-server takes the place, and the file, of a node of this kind.
    assert ours.shutdown() == 0
    assert re.search(f"{replica.id} [^ ]*,some.example,shard-id={name} ", nodes_conf(ours))
    cluster.nodes[1] = servers.node("redis", port=ours.port, directory=ours.dir, cluster_enabled="yes",
                                    cluster_node_timeout=2000, cluster_announce_hostname="some.example")
    cluster.wait_whole()
    wait_for("the host names to be right again", lambda: host_names_are_right(cluster.nodes[1]))


def host_names_are_right(node):
    return all(line.address.endswith(",some.example") for line in cluster_nodes(node).values())


def nodes_conf(node):
    with open(f"{node.dir}/nodes.conf") as file:
        return file.read()
