"""A six-node cluster under a checked workload through random faults: what was lost, read stale or done twice, and for how
long no write was acknowledged."""
import errno
import os
import random
import time

import pytest

import covey
from covey import LONG, wait_for
from history import History, describe

if covey.COVEY_IS_REDIS:
    pytest.skip("for Covey's own promises", allow_module_level=True)

TIMEOUT = 1000  # cluster-node-timeout, ms
FAULTS = 50 if LONG else 10
SEED = int(os.environ.get("COVEY_TEST_SEED", random.randrange(1 << 30)))


def shard_of(cluster, primary):
    return primary, cluster.replicas_of(primary)[0]


def bring_back_once_replaced(cluster, history, primary, replica):
    wait_for("the replica to take over", lambda: cluster.role(replica) == "master", 20 + 4 * TIMEOUT / 1000)
    if not history.needs_replicas:
        history.wait_for_writes()
    primary.start()
    history.wait_for_writes()


def kill_and_wait_for_failover(cluster, history, rng):
    primary, replica = shard_of(cluster, rng.choice(cluster.primaries()))
    primary.kill()
    bring_back_once_replaced(cluster, history, primary, replica)


def kill_and_restart_at_once(cluster, history, rng):
    """As a supervisor would: the primary comes back before anybody has missed it, with what it had on disk."""
    primary, _ = shard_of(cluster, rng.choice(cluster.primaries()))
    primary.kill()
    primary.start(wait=False)
    history.wait_for_writes()


def stop_and_go_on(cluster, history, rng):
    """Writes wait in the sockets of a primary that does not know that it was replaced meanwhile."""
    primary, _ = shard_of(cluster, rng.choice(cluster.primaries()))
    primary.pause()
    time.sleep(rng.uniform(0.2, 4) * TIMEOUT / 1000)
    primary.resume()
    history.wait_for_writes()


def kill_while_the_replica_lags(cluster, history, rng):
    primary, replica = shard_of(cluster, rng.choice(cluster.primaries()))
    replica.pause()
    time.sleep(rng.uniform(0.2, 0.8))
    primary.kill()
    replica.resume()
    bring_back_once_replaced(cluster, history, primary, replica)


def kill_a_replica(cluster, history, rng):
    _, replica = shard_of(cluster, rng.choice(cluster.primaries()))
    replica.kill()
    time.sleep(rng.uniform(0, 2) * TIMEOUT / 1000)
    replica.start()
    history.wait_for_writes()


def stop_a_replica(cluster, history, rng):
    _, replica = shard_of(cluster, rng.choice(cluster.primaries()))
    replica.pause()
    time.sleep(rng.uniform(0.2, 3) * TIMEOUT / 1000)
    replica.resume()
    history.wait_for_writes()


def fail_over_by_hand(cluster, history, rng):
    _, replica = shard_of(cluster, rng.choice(cluster.primaries()))
    replica.cmd("CLUSTER", "FAILOVER")
    wait_for("the replica to be the primary", lambda: cluster.role(replica) == "master", 20)
    history.wait_for_writes()


# ---- partitions: the clients reach everybody, unless it says otherwise

def partition(cluster, history, rng, minority=(), muted=(), hidden=()):
    """The nodes of the minority, some of which may be hidden from the clients too, and those that hear and are not heard;
    for as long as it may take to replace a primary, or for less."""
    numbers = lambda nodes: [cluster.nodes.index(node) for node in nodes]
    cluster.network.split(numbers(minority))
    for i in numbers(muted):
        cluster.network.mute(i)
    for i in numbers(hidden):
        cluster.network.hide(i)
    time.sleep(rng.uniform(0.2, 4) * TIMEOUT / 1000)
    cluster.network.heal(numbers(muted))
    history.wait_for_writes()


def cut_off_a_primary_with_its_clients(cluster, history, rng):
    partition(cluster, history, rng, [rng.choice(cluster.primaries())])


def cut_off_a_primary_from_everybody(cluster, history, rng):
    primary = rng.choice(cluster.primaries())
    partition(cluster, history, rng, [primary], hidden=[primary])


def cut_off_a_shard_or_a_few(cluster, history, rng):
    primary, replica = shard_of(cluster, rng.choice(cluster.primaries()))
    others = [n for n in cluster.nodes if n not in (primary, replica)]
    partition(cluster, history, rng, rng.choice([[primary, replica], [replica], [replica, rng.choice(others)],
                                                 [primary, rng.choice(others)], rng.sample(cluster.nodes, 3)]))


def hear_and_not_be_heard(cluster, history, rng):
    partition(cluster, history, rng, muted=[rng.choice(cluster.nodes)])


# ---- full disks, of the two shards that have an AOF

def on_small_disks(servers, number):
    """Each node's directory on a small file system of its own, but for its log; two shards have an AOF."""
    path = servers.file_system("24m")
    return {"directory": path, "log": f"{path}.log", **({"appendonly": "yes"} if number % 3 else {})}


def fill_the_disk(node):
    """All but nothing of it."""
    ballast = os.path.join(node.dir, "ballast")
    with open(ballast, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC, error
    return lambda: os.unlink(ballast)


def full_disk(cluster, history, rng):
    """Of a primary, which refuses writes; or of a replica, which ends (replica-ignore-disk-write-errors no) and is started again."""
    primary = rng.choice([n for n in cluster.primaries() if n.config_get("appendonly") == "yes"])
    node = rng.choice([primary, *cluster.replicas_of(primary)])
    node.expected_dead = node is not primary
    undo = fill_the_disk(node)
    time.sleep(rng.uniform(0.5, 3) * TIMEOUT / 1000)
    undo()
    history.wait_for_writes(meanwhile=lambda: node.alive() or not node.expected_dead or node.start(wait=False))
    node.wait_ready()
    node.expected_dead = False


def full_disk_and_kill(cluster, history, rng):
    primary = rng.choice([n for n in cluster.primaries() if n.config_get("appendonly") == "yes"])
    replica = cluster.replicas_of(primary)[0]
    undo = fill_the_disk(primary)
    time.sleep(rng.uniform(0, 1) * TIMEOUT / 1000)
    primary.kill()
    undo()
    bring_back_once_replaced(cluster, history, primary, replica)


FAULT_KINDS = [kill_and_wait_for_failover, kill_and_restart_at_once, stop_and_go_on, kill_while_the_replica_lags, kill_a_replica,
               stop_a_replica, fail_over_by_hand, cut_off_a_primary_with_its_clients, cut_off_a_primary_from_everybody,
               cut_off_a_shard_or_a_few, hear_and_not_be_heard, full_disk, full_disk_and_kill]


def suffer(cluster, history, faults, rng, kinds):
    """The longest times without an acknowledged write, by kind of fault."""
    longest, lost = {}, 0
    kinds = rng.sample(kinds, len(kinds))
    history.wait_for_writes()
    history.longest_since()
    for n in range(faults):
        fault = kinds[n % len(kinds)] if n < len(kinds) else rng.choice(kinds)
        fault(cluster, history, rng)
        cluster.wait_whole(60)
        history.wait_for_writes()
        stall, found = history.longest_since(), history.check()
        if found["lost"] + found["duplicated"] > lost:
            lost = found["lost"] + found["duplicated"]
            print(f"after fault {n}, {fault.__name__}: {describe(found)}")
        longest.setdefault(fault.__name__, []).append(stall)
    return longest


def report(what, total, longest):
    print(f"{what}, seed {SEED}: {describe(total)}")
    for kind, stalls in sorted(longest.items()):
        print(f"  {kind.replace('_', ' ')}: longest time without a write {max(stalls):.2f} s ({len(stalls)} faults)")


def cluster_for_faults(servers, **options):
    return servers.cluster(["covey"] * 6, replicas=1, timeout=TIMEOUT, network=True,
                           each=lambda number: on_small_disks(servers, number), **options)


def test_no_loss_mode_loses_nothing(servers):
    """Neither what a writer was told, nor, with min-replicas-to-ack-reads, what a reader was."""
    rng = random.Random(SEED)
    cluster = cluster_for_faults(servers, min_replicas_to_ack=1, min_replicas_to_ack_reads="yes")
    history = History(cluster, needs_replicas=True, readers=True)
    longest = suffer(cluster, history, FAULTS, rng, FAULT_KINDS)
    total = history.stop_and_check()
    report(f"{FAULTS} faults with min-replicas-to-ack 1", total, longest)
    assert total["lost"] == total["duplicated"] == total["stale"] == total["dirty"] == 0, describe(total)
    assert total["shown"] > 0


def test_the_default_mode(servers):
    """A process that dies or is replaced loses nothing as long as its replica keeps up; what other faults lose is printed."""
    rng = random.Random(SEED)
    cluster = cluster_for_faults(servers)
    history = History(cluster)
    longest = suffer(cluster, history, 3, rng, [kill_and_wait_for_failover, fail_over_by_hand, kill_a_replica])
    total = history.stop_and_check()
    report("3 faults in the default mode", total, longest)
    assert total["lost"] == total["duplicated"] == 0, describe(total)

    history = History(cluster, "any:", readers=True)
    faults = FAULTS if LONG else FAULTS // 2
    longest = suffer(cluster, history, faults, rng, FAULT_KINDS)
    report(f"{faults} faults of any kind in the default mode", history.stop_and_check(), longest)


def test_the_checker_finds_what_is_lost(servers):
    cluster = servers.cluster(["covey"] * 6, replicas=1, timeout=TIMEOUT)
    history = History(cluster)
    history.wait_for_writes()
    for node in shard_of(cluster, cluster.primaries()[0]):
        node.kill()
        node.start(wait=False)
    history.wait_for_writes()
    total = history.stop_and_check()
    report("a shard whose nodes are all killed, without a file", total, {})
    assert total["lost"] > 0 and total["duplicated"] > 0, "a checker that finds no loss here finds none anywhere"
