"""A six-node cluster under a checked workload through random faults: what was lost, read stale or done twice, and for how
long no write was acknowledged."""
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


FAULT_KINDS = [kill_and_wait_for_failover, kill_and_restart_at_once, stop_and_go_on, kill_while_the_replica_lags, kill_a_replica,
               stop_a_replica, fail_over_by_hand]


def suffer(cluster, history, faults, rng, kinds):
    """The longest times without an acknowledged write, by kind of fault."""
    longest, lost = {}, 0
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


def test_no_loss_mode_loses_nothing(servers):
    rng = random.Random(SEED)
    cluster = servers.cluster(["covey"] * 6, replicas=1, timeout=TIMEOUT, min_replicas_to_ack=1)
    history = History(cluster, needs_replicas=True)
    longest = suffer(cluster, history, FAULTS, rng, FAULT_KINDS)
    total = history.stop_and_check()
    report(f"{FAULTS} faults with min-replicas-to-ack 1", total, longest)
    assert total["lost"] == total["duplicated"] == 0, describe(total)


def test_single_faults_without_the_mode(servers):
    """One fault at a time loses nothing as long as the replica keeps up; and the checker finds what a double fault loses."""
    rng = random.Random(SEED)
    cluster = servers.cluster(["covey"] * 6, replicas=1, timeout=TIMEOUT)
    history = History(cluster)
    longest = suffer(cluster, history, 3, rng, [kill_and_wait_for_failover, fail_over_by_hand, kill_a_replica])
    total = history.stop_and_check()
    report("3 faults in the default mode", total, longest)
    assert total["lost"] == total["duplicated"] == 0, describe(total)

    history = History(cluster, "lost:")
    history.wait_for_writes()
    for node in shard_of(cluster, cluster.primaries()[0]):
        node.kill()
        node.start(wait=False)
    history.wait_for_writes()
    total = history.stop_and_check()
    report("a shard whose nodes are all killed, without a file", total, {})
    assert total["lost"] > 0 and total["duplicated"] > 0, "a checker that finds no loss here finds none anywhere"
