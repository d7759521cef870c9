"""nodes.conf: what a client was told is in it when the process is killed, and what was promised to other nodes when the machine goes
down."""
import glob
import os
import time

import pytest

import covey
from covey import cluster_nodes, wait_for

if covey.COVEY_IS_REDIS:
    pytest.skip("how Covey writes nodes.conf", allow_module_level=True)


@pytest.fixture
def node(servers):
    return servers.node("covey", cluster_enabled="yes", cluster_node_timeout=1000)


def conf(node):
    return os.path.join(node.dir, "nodes.conf")


def kept(node):
    return glob.glob(conf(node) + ".synced-*")


def text(node):
    with open(conf(node)) as file:
        return file.read()


def pipeline(node, *requests):
    pipe = node.client.pipeline(transaction=False)
    for words in requests:
        pipe.execute_command(*words)
    return pipe.execute()


def restart(node):
    node.kill()
    node.start()
    return cluster_nodes(node)[node.id]


def marks(node):
    """({slot: to whom it migrates}, {slot: from whom it is imported}) as the node says."""
    line = next(line for line in node.cmd("CLUSTER", "NODES").decode().splitlines() if "myself" in line)
    words = [word[1:-1] for word in line.split()[8:] if word.startswith("[")]
    return ({int(w.split("->-")[0]): w.split("->-")[1] for w in words if "->-" in w},
            {int(w.split("-<-")[0]): w.split("-<-")[1] for w in words if "-<-" in w})


@pytest.mark.sanitizer
@pytest.mark.parametrize("seed", range(3))
def test_what_was_answered_survives_a_kill(servers, seed):
    """Slots and their marks, one by one and in pipelines; killed right behind the answer, again and again."""
    import random
    r = random.Random(seed)
    cluster = servers.cluster(["covey"] * 2)
    node, other = cluster.nodes
    migrating, importing = {}, {}
    mine = sorted(cluster_nodes(node)[node.id].slots)
    theirs = sorted(cluster_nodes(node)[other.id].slots)
    for _ in range(6):
        for _ in range(r.randrange(1, 4)):
            requests = []
            for _ in range(r.choice([1, 1, 40])):
                slot, foreign = r.choice(mine), r.choice(theirs)
                what = r.randrange(3)
                if what == 0:
                    requests.append(("CLUSTER", "SETSLOT", slot, "MIGRATING", other.id))
                    migrating[slot] = other.id
                elif what == 1:
                    requests.append(("CLUSTER", "SETSLOT", foreign, "IMPORTING", other.id))
                    importing[foreign] = other.id
                else:
                    requests.append(("CLUSTER", "SETSLOT", slot, "STABLE"))
                    migrating.pop(slot, None)
            pipeline(node, *requests)
            if r.random() < 0.2:
                time.sleep(1.2)  # what was written quickly is synced by then
        restart(node)
        assert marks(node) == (migrating, importing)
    cluster.wait_whole()


def test_slots_survive_a_kill(node):
    expected = set()
    for first in (0, 100, 300):
        pipeline(node, *[("CLUSTER", "ADDSLOTS", slot) for slot in range(first, first + 50)])
        pipeline(node, *[("CLUSTER", "DELSLOTS", slot) for slot in range(first, first + 10)])
        expected |= set(range(first + 10, first + 50))
        assert restart(node).slots == expected


def test_epochs_are_on_the_disk_when_they_are_told(node):
    """The file is the durable one then: nothing is kept beside it."""
    node.cmd("CLUSTER", "SET-CONFIG-EPOCH", 7)
    assert not kept(node) and "vars currentEpoch 7" in text(node)
    node.cmd("CLUSTER", "ADDSLOTS", 5)
    assert node.cmd("CLUSTER", "SAVECONFIG") == b"OK" and not kept(node)
    assert restart(node).slots == {5} and "vars currentEpoch 7" in text(node)


def test_quick_writes_are_synced_soon(node):
    seen = 0
    for slot in range(100):
        node.cmd("CLUSTER", "ADDSLOTS", slot)
        seen += len(kept(node)) == 1
        assert len(kept(node)) <= 1
        time.sleep(0.025)
    assert seen > 50  # it was not synced for each
    wait_for("the last one to be synced", lambda: not kept(node), 5)
    node.cmd("CLUSTER", "ADDSLOTS", 200)
    assert kept(node) and node.terminate() == 0
    assert not kept(node)  # an end in peace syncs
    node.start()
    assert 200 in cluster_nodes(node)[node.id].slots


def test_the_machine_goes_down(node):
    """What was written quickly may be lost, or half of it; what was durable before counts then."""
    node.cmd("CLUSTER", "ADDSLOTSRANGE", 0, 99)
    node.cmd("CLUSTER", "SET-CONFIG-EPOCH", 3)
    name = node.id
    durable = text(node)
    node.cmd("CLUSTER", "ADDSLOTS", 200)
    node.kill()
    (path,) = kept(node)
    with open(path) as file:
        assert file.read() == durable
    os.rename(path, conf(node) + ".synced-00000000-1111-2222-3333-444444444444")  # of an earlier run of the machine
    os.truncate(conf(node), 30)
    node.start()
    me = cluster_nodes(node)[node.id]
    assert node.id == name and me.slots == set(range(100)) and "vars currentEpoch 3" in text(node)
    assert b"back to what was synced" in node.log_text()


def test_a_node_that_is_made_anew(node):
    """An operator who takes nodes.conf away gets another node, whatever lies beside it."""
    node.cmd("CLUSTER", "ADDSLOTS", 200)
    name = node.id
    node.kill()
    os.rename(kept(node)[0], conf(node) + ".synced-other")
    os.unlink(conf(node))
    node.start()
    assert node.cmd("CLUSTER", "MYID").decode() != name and not os.path.exists(conf(node) + ".synced-other")
