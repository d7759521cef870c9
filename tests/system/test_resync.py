"""Who goes on from where it stands after a restart, a promotion or a failover, and who needs everything anew; and for how long a
failover by hand holds writes."""
import time

import pytest

import covey
from covey import assert_same_data, dataset, fill_all_types, populate, wait_for, wait_in_sync
from history import History, describe

KINDS = [("covey", "covey"), ("covey", "redis"), ("redis", "covey")]
both_sides = pytest.mark.parametrize("first,second", KINDS, ids=["-".join(k) for k in KINDS])
FILES = {"rdb": {}, "aof": {"appendonly": "yes", "appendfsync": "always"}}


def follow(replica, primary):
    replica.cmd("REPLICAOF", primary.host, primary.port)


def syncs(node):
    info = node.info("stats")
    return info["sync_full"], info["sync_partial_ok"]


def assert_equal(primary, *replicas):
    wait_in_sync(primary, *replicas)
    expected = dataset(primary)
    for replica in replicas:
        assert_same_data(expected, dataset(replica), f"{replica} is not like {primary}")


def group(servers, *kinds, **options):
    """The first one is the primary of all others, which are in sync with it."""
    nodes = [servers.node(kind, repl_ping_replica_period=3600, repl_backlog_size=1 << 20, **options) for kind in kinds]
    fill_all_types(nodes[0].client)
    for node in nodes[1:]:
        follow(node, nodes[0])
    wait_in_sync(*nodes)
    return nodes


def resumed(primary, replica, before):
    """Nothing was sent in full since `before`, and something was continued."""
    after = syncs(primary)
    assert after[0] == before[0] and after[1] > before[1], f"{before} -> {after}\n{primary.log_tail()}\n{replica.log_tail()}"


def test_a_replica_of_the_old_primary_goes_on_with_the_new_one(servers):
    """Three of each kind in turn: one is promoted, another one and the old primary follow it, and a fourth follows the other."""
    for kinds in (("covey", "covey", "covey", "covey"), ("redis", "covey", "redis", "covey"), ("covey", "redis", "covey", "redis")):
        a, b, c = group(servers, *kinds[:3])
        d = servers.node(kinds[3])
        follow(d, c)
        wait_in_sync(c, d)
        under = syncs(c)
        b.cmd("REPLICAOF", "NO", "ONE")
        before = syncs(b)
        follow(c, b)
        b.cmd("SET", "after", "promotion")
        assert_equal(b, c, d)
        follow(a, b)
        assert_equal(b, a, c, d)
        assert syncs(b) == (before[0], before[1] + 2), f"{kinds}: {syncs(b)}\n{b.log_tail()}"
        assert syncs(c)[0] == under[0], f"{kinds}: a replica of a replica got everything anew\n{c.log_tail()}"
        for node in (a, b, c, d):
            node.kill()


@both_sides
@pytest.mark.parametrize("how", ["rdb", "aof"])
def test_a_restarted_replica_goes_on(servers, first, second, how):
    a, b = group(servers, first, second, **FILES[how])
    if how == "aof":
        wait_for("the AOF of the new dataset", lambda: b"ackground AOF rewrite finished successfully" in b.log_text())
        a.cmd("SET", "in", "the AOF")
        wait_in_sync(a, b)
        before = syncs(a)
        b.kill()
    else:
        before = syncs(a)
        b.shutdown("SAVE")
    a.cmd("SET", "meanwhile", "1")
    b.start(replicaof=[a.host, a.port])
    assert_equal(a, b)
    if second == "redis" and how == "aof":
        return  # redis-server 7.0 keeps no offset in its AOF
    resumed(a, b, before)


@both_sides
@pytest.mark.parametrize("how", ["rdb", "aof"])
def test_the_replica_of_a_restarted_primary_goes_on(servers, first, second, how):
    a, b = group(servers, first, second, **FILES[how])
    a.cmd("SET", "last", "word")
    wait_in_sync(a, b)
    if how == "aof":
        a.kill()
    else:
        a.shutdown("SAVE")
    a.start()
    a.cmd("SET", "after", "the restart")
    assert_equal(a, b)
    if first == "redis" and how == "aof":
        return
    resumed(a, b, (0, 0))


@both_sides
@pytest.mark.parametrize("how", ["nothing", "rdb", "aof"])
def test_the_old_primary_comes_back_as_a_replica(servers, first, second, how):
    """With what was there before the other one was promoted; with an empty dataset it has no history to go on with."""
    a, b = group(servers, first, second, **FILES.get(how, {}))
    a.cmd("SET", "last", "word")
    wait_in_sync(a, b)
    if how == "rdb":
        a.shutdown("SAVE")
    else:
        a.kill()
    b.cmd("REPLICAOF", "NO", "ONE")
    b.cmd("SET", "after", "promotion")
    before = syncs(b)
    a.start(replicaof=[b.host, b.port])
    assert_equal(b, a)
    if how == "nothing" or (first == "redis" and how == "aof"):
        assert syncs(b)[0] == before[0] + 1
    else:
        resumed(b, a, before)


@pytest.mark.parametrize("how", ["rdb", "aof"])
def test_the_old_primary_is_told_late_that_it_is_a_replica(servers, how):
    """It has started as a primary under a new id, as a supervisor would, but has written nothing under it."""
    a, b = group(servers, "covey", "covey", **FILES[how])
    b.cmd("REPLICAOF", "NO", "ONE")
    a.shutdown("SAVE")
    if how == "rdb":  # the AOF is begun under the new id
        a.start()
        a.shutdown("SAVE")
    a.start()
    b.cmd("SET", "after", "promotion")
    before = syncs(b)
    follow(a, b)
    assert_equal(b, a)
    resumed(b, a, before)
    a.cmd("REPLICAOF", "NO", "ONE")
    a.cmd("SET", "its", "own")
    follow(a, b)
    assert_equal(b, a)
    assert syncs(b)[0] == before[0] + 1
    reasons = b.stat("sync_full_reasons", "replication")
    assert reasons["history"] == 1 and f"Partial resynchronization with 127.0.0.1".encode() in b.log_text(), reasons


def test_why_everything_was_sent(servers):
    a, b = group(servers, "covey", "covey")
    reasons = lambda: a.stat("sync_full_reasons", "replication")
    assert reasons() == {"asked": 0, "history": 1, "diverged": 0, "backlog": 0}
    b.kill()
    populate(a.client, 20000, size=100)
    b.start()
    follow(b, a)
    wait_in_sync(a, b)
    assert reasons()["backlog"] == 1, "it has the file that it was sent at first, which is older than the backlog"
    known = a.stat("master_replid", "replication")
    for word, request in (("asked", ("?", -1)), ("backlog", (known, 2)), ("diverged", (known, 1 << 40))):
        with a.raw() as link:
            link.sendall("PSYNC {} {}\r\n".format(*request).encode())
            assert link.recv(11) == b"+FULLRESYNC"
        assert reasons()[word] == (2 if word == "backlog" else 1), reasons()
    for words in (b"asks for everything", b"it asks for offset 2, the backlog begins at", b"which I know up to", b"it has history"):
        assert words in a.log_text(), words


# ---------------------------------------------------------------------------------------------------- in a cluster

def test_killed_primaries_come_back(servers):
    cluster = servers.cluster(["covey"] * 6, replicas=1, appendfsync="always")
    shards = [(p, r) for p, (r,) in cluster.pairs()]
    cluster.populate(300)
    for how, (primary, replica) in zip(("nothing", "rdb", "aof"), shards):
        if how == "aof":
            primary.cmd("CONFIG", "SET", "appendonly", "yes")
            wait_for("the AOF", lambda: primary.stat("aof_last_rewrite_time_sec", "persistence") >= 0)
        elif how == "rdb":
            primary.cmd("SAVE")
        cluster.populate(400)
        wait_in_sync(primary, replica)
        primary.kill()
        cluster.wait_primary(replica)
        wait_for("a cluster that serves", lambda: all(covey.cluster_info(n)["cluster_state"] == "ok" for n in cluster.live()))
        cluster.populate(500)
        before = syncs(replica)
        primary.start(**({"appendonly": "yes"} if how == "aof" else {}))
        cluster.wait_replica_of(primary, replica)
        cluster.wait_whole()
        if how == "nothing":
            assert syncs(replica)[0] == before[0] + 1
        else:
            resumed(replica, primary, before)
    cluster.assert_replicas_equal()


def test_a_replica_that_had_more_than_the_restarted_primary_is_not_taken_for_one_that_has_less(servers):
    """The primary comes back with a file from before, hears nothing of its replica, and writes past where that one stands."""
    cluster = servers.cluster(["covey"] * 6, replicas=1)
    primary, (replica,) = cluster.pairs()[0]
    tag = "{" + covey.tag_of_slot(min(covey.cluster_nodes(primary)[primary.id].slots)) + "}"
    primary.cmd("SAVE")
    for n in range(50):
        primary.cmd("SET", f"{tag}before:{n}", "x")
    wait_in_sync(primary, replica)
    replica.pause()
    primary.kill()
    primary.start()
    def write():
        for n in range(200):
            primary.cmd("SET", f"{tag}after:{n}", "y")
        return True
    wait_for("the restarted primary to serve", write, 20)
    replica.resume()
    cluster.wait_whole()
    cluster.assert_replicas_equal()


@pytest.mark.parametrize("options", [{}, {"min_replicas_to_ack": 1}], ids=["default", "no loss"])
def test_failover_by_hand_holds_writes_shortly_and_loses_nothing(servers, options):
    """There and back at once: the votes for the first are no obstacle to the second."""
    cluster = servers.cluster(["covey"] * 6, replicas=1, **options)
    history = History(cluster, needs_replicas=bool(options))
    history.wait_for_writes()
    one, (other,) = cluster.pairs()[0]
    held = []
    for n in range(6):
        history.longest_since()
        one, other = other, one
        before = syncs(one)
        one.cmd("CLUSTER", "FAILOVER")
        cluster.wait_primary(one)
        cluster.wait_replica_of(other, one)
        history.wait_for_writes()
        held.append(history.longest_since())
        resumed(one, other, before)
        cluster.wait_whole()
    total = history.stop_and_check()
    print(f"failovers by hand {options}: longest time without a write "
          + ", ".join(f"{1000 * t:.0f}" for t in held) + f" ms; {describe(total)}")
    assert total["lost"] == total["duplicated"] == 0, describe(total)
    assert sorted(held)[len(held) // 2] < 1 * covey.PATIENCE, held
