"""cluster-databases: numbered databases in cluster mode."""
import pytest
import redis

import covey
from covey import assert_same_data, dataset, wait_for, wait_in_sync

SLOT = covey.key_slot(b"k")


def client_of(node, db):
    return node.new_client(db=db, single_connection_client=True)


def test_one_database_as_in_redis(servers, kind):
    cluster = servers.cluster([kind] * 3)
    node = cluster.owner(SLOT)
    assert node.cmd("SELECT", 0)
    for words, error in ((("SELECT", 1), "SELECT is not allowed in cluster mode"), (("MOVE", "k", 1), "MOVE is not allowed in cluster mode"),
                         (("COPY", "k", "{k}2", "DB", 1), "Copying to another database is not allowed in cluster mode"),
                         (("SWAPDB", 0, 1), "SWAPDB is not allowed in cluster mode")):
        with pytest.raises(redis.ResponseError, match=error):
            node.cmd(*words)


def test_several_databases(servers):
    cluster = servers.cluster(["covey"] * 4, replicas=0, form=False, cluster_databases=4)
    nodes, replica = cluster.nodes[:3], cluster.nodes[3]
    for n, node in enumerate(nodes):
        node.cmd("CLUSTER", "ADDSLOTSRANGE", 16384 * n // 3, 16384 * (n + 1) // 3 - 1)
    for n, node in enumerate(cluster.nodes):
        node.cmd("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
    cluster.meet()
    source = next(n for n in nodes if SLOT in covey.cluster_nodes(n)[n.id].slots)
    target = next(n for n in nodes if n is not source)
    replica.cmd("CLUSTER", "REPLICATE", source.id)
    cluster.wait_whole()
    cluster.wait_replica_of(replica, source)

    in_db = [client_of(source, db) for db in range(4)]
    for db, client in enumerate(in_db):
        client.set("k", db)
        client.rpush("{k}list", *range(db + 1))
    with pytest.raises(redis.ResponseError, match="DB index is out of range"):
        source.cmd("SELECT", 4)
    assert [int(client.get("k")) for client in in_db] == [0, 1, 2, 3]
    assert in_db[1].move("{k}list", 0) == 0
    in_db[1].rename("{k}list", "{k}moved")
    assert in_db[1].move("{k}moved", 0) == 1 and in_db[0].llen("{k}moved") == 2
    assert in_db[0].execute_command("COPY", "{k}moved", "{k}copy", "DB", 3) == 1
    with pytest.raises(redis.ResponseError, match="SWAPDB is not allowed in cluster mode"):
        in_db[0].swapdb(0, 1)
    assert [client.execute_command("CLUSTER", "COUNTKEYSINSLOT", SLOT) for client in in_db] == [3, 1, 2, 3]
    assert sorted(in_db[3].execute_command("CLUSTER", "GETKEYSINSLOT", SLOT, 10)) == [b"k", b"{k}copy", b"{k}list"]
    # A sleeper of one database is not served from another.
    waiter = client_of(source, 2)
    waiter.connection.send_command("BLPOP", "{k}queue", 0)
    wait_for("the client to sleep", lambda: source.stat("blocked_clients", "clients") == 1)
    in_db[1].rpush("{k}queue", 1)
    assert not waiter.connection.can_read(0.1)
    in_db[2].rpush("{k}queue", 2)
    assert waiter.connection.read_response() == [b"{k}queue", b"2"]

    wait_in_sync(source, replica)
    for db in range(4):
        assert_same_data(dataset(source, db), dataset(replica, db, readonly=True), f"database {db}")

    # The slot moves, database by database; it cannot be given away before the last one is empty.
    target.cmd("CLUSTER", "SETSLOT", SLOT, "IMPORTING", source.id)
    source.cmd("CLUSTER", "SETSLOT", SLOT, "MIGRATING", target.id)
    before = [dataset(source, db) for db in range(4)]
    unaware = source.new_client(single_connection_client=True)  # as redis-cli --cluster reshard: it never selects a database
    for db, client in enumerate(in_db):
        with pytest.raises(redis.ResponseError, match="still hold keys"):
            source.cmd("CLUSTER", "SETSLOT", SLOT, "NODE", target.id)
        keys = client.execute_command("CLUSTER", "GETKEYSINSLOT", SLOT, 100)
        assert client.execute_command("MIGRATE", target.host, target.port, "", db, 5000, "KEYS", *keys) == b"OK"
        with pytest.raises(redis.ResponseError, match=f"{SLOT} .*:{target.port}"):
            client.get("k")
        if db < 3:  # it is stopped before it gives away what it has not moved
            with pytest.raises(redis.ResponseError, match=f"slot {SLOT} has keys in database {db + 1} too"):
                unaware.execute_command("CLUSTER", "GETKEYSINSLOT", SLOT, 10)
            in_db[1].execute_command("SELECT", 0)
            assert in_db[1].execute_command("CLUSTER", "GETKEYSINSLOT", SLOT, 10) == []
            in_db[1].execute_command("SELECT", 1)
    assert unaware.execute_command("CLUSTER", "GETKEYSINSLOT", SLOT, 10) == []
    for node in (target, source):
        node.cmd("CLUSTER", "SETSLOT", SLOT, "NODE", target.id)
    for db in range(4):
        assert_same_data(dataset(target, db), before[db], f"database {db}")
    target.cmd("SAVE")
    target.kill()
    target.start()
    for db in range(4):
        assert client_of(target, db).dbsize() == len(before[db])
