"""The helpers themselves, with both kinds of server: a helper that works with one only would make the others lie."""
import os
import signal

import pytest

import covey
from covey import Network, TestFailure, Writer, cluster_nodes, dataset, difference, key_slot


def test_node_life(servers, kind):
    node = servers.node(kind, save="")
    assert node.cmd("SET", "a", "1") is True
    pid = node.pid
    assert node.info("server")["process_id"] == pid
    assert node.rss_mb() > 0
    node.kill()
    assert not node.alive()
    node.start()
    assert node.pid != pid and node.cmd("GET", "a") is None
    assert node.terminate() == 0


def test_bad_start_shows_the_log(servers, kind):
    with pytest.raises(TestFailure, match="exited with"):
        servers.node(kind, maxclients="nonsense")
    servers.nodes[-1].expected_dead = True


def test_unasked_death_is_reported(kind):
    own = covey.Servers()
    node = own.node(kind)
    os.kill(node.pid, signal.SIGKILL)
    node.process.wait()
    complaints, logs = own.close()
    assert len(complaints) == 1 and "died with -9" in complaints[0]
    assert "--- start" in logs
    assert not os.path.exists(own.base)


def test_difference_finds_differences(servers, kind):
    one, other = servers.node(kind), servers.node("redis")
    for node in (one, other):
        node.cmd("SET", "a", "1")
        node.cmd("ZADD", "z", "1", "m")
    assert difference(dataset(one), dataset(other)) is None
    other.cmd("ZADD", "z", "2", "m")
    assert "b'z'" in difference(dataset(one), dataset(other))
    other.cmd("ZADD", "z", "1", "m")
    other.cmd("EXPIRE", "a", "100")
    assert "b'a'" in difference(dataset(one), dataset(other))


def test_key_slot():
    assert [key_slot(k) for k in ("", "foo", "{foo}bar", "foo{}bar", "{}a")] == [0, 12182, 12182, 14292, 10875]
    assert key_slot(covey.tag_of_slot(777)) == 777


def test_cluster_and_writer(servers, kind):
    cluster = servers.cluster([kind] * 4, replicas=1)
    assert [len(replicas) for _, replicas in cluster.pairs()] == [1, 1]
    with Writer(cluster) as writer:
        writer.wait_flowing(100)
    assert writer.errors.keys() <= {"ConnectionError"}  # until it has learned the slots
    data = cluster.dataset()
    writer.assert_kept(data)
    del data[writer.key(max(writer.acked)).encode()]
    with pytest.raises(TestFailure, match="1 of"):
        writer.assert_kept(data)
    cluster.assert_replicas_equal()
    cluster.replicas_of(cluster.nodes[0])[0].kill()
    covey.wait_for("the loss to be seen", lambda: cluster.whole())


def test_namespaces(servers, kind):
    network = Network(servers, 2)
    nodes = [servers.node(kind, port=7000, host=network.control_address(i), prefix=network.prefix(i),
                          bind="0.0.0.0", protected_mode="no", cluster_enabled="yes", cluster_node_timeout=500) for i in range(2)]
    assert nodes[0].info("server")["process_id"] == nodes[0].pid
    nodes[0].cmd("CLUSTER", "MEET", network.data_address(1), 7000)
    seen = lambda: [line for node in nodes for line in cluster_nodes(node).values() if "myself" not in line.flags]
    covey.wait_for("the two to meet", lambda: len(seen()) == 2 and all(line.link == "connected" and not line.is_bad for line in seen()))
    assert {line.address.split(":")[0] for line in seen()} == {network.data_address(0), network.data_address(1)}
    network.split({1})
    covey.wait_for("both to suspect the other", lambda: all("fail?" in line.flags for line in seen()))
    network.heal()
    covey.wait_for("both to be well", lambda: all(not line.is_bad for line in seen()))
