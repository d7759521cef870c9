"""Cluster clients that people use, unchanged, over six nodes with a failover in the middle."""
import json
import logging
import os
import shutil
import subprocess
import threading
import time

import pytest
import redis
from redis.cluster import ClusterNode, RedisCluster

import covey
from covey import TestFailure, wait_for

logging.getLogger("redis.cluster").setLevel(logging.CRITICAL)  # it logs every retry with a stack
NODE_DIR = os.path.join(covey.ROOT, "tests", "node")


@pytest.fixture
def cluster(servers):
    return servers.cluster(["covey"] * 6, replicas=1)


def kill_one_primary(cluster):
    """Kills a primary, waits for the replica, brings the dead node back; returns the time of the kill."""
    primary, (replica,) = cluster.pairs()[0]
    covey.wait_in_sync(primary, replica)
    at = time.time()
    primary.kill()
    cluster.wait_primary(replica)
    time.sleep(1.5)
    primary.start()
    cluster.wait_replica_of(primary, replica)
    cluster.wait_whole()
    return at


def check(acked, missing, killed_at, last_acked):
    """Nothing is missing but what was under way when the primary died, and writing went on afterwards."""
    old = [(n, at) for n, at in missing if at < killed_at - 1]
    assert not old and len(missing) <= 20, f"{len(missing)} of {acked} acknowledged writes are missing, {len(old)} old ones"
    assert last_acked > killed_at + 1, "no write was acknowledged after the failover"


def test_redis_py(cluster):
    client = RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", node.port) for node in cluster.nodes[:3]],
                          socket_timeout=2 * covey.PATIENCE, socket_connect_timeout=2)
    acked, errors, stopped = {}, [], threading.Event()

    def write():
        n = 0
        while not stopped.is_set():
            n += 1
            try:
                client.set(f"c:{n}", n)
                acked[n] = time.time()
            except (redis.RedisError, redis.exceptions.RedisClusterException, OSError) as error:
                errors.append(error)
                time.sleep(0.1)
            time.sleep(0.002)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    wait_for("writes", lambda: len(acked) > 200)
    killed_at = kill_one_primary(cluster)
    streak = len(acked)
    wait_for("writes to flow again", lambda: len(acked) > streak + 200)
    stopped.set()
    thread.join(10)
    missing = [(n, at) for n, at in acked.items() if client.get(f"c:{n}") != str(n).encode()]
    print(f"{len(acked)} acknowledged, {len(errors)} errors, {len(missing)} missing")
    check(len(acked), missing, killed_at, max(acked.values()))
    assert client.mset_nonatomic({f"m:{n}": n for n in range(100)})
    assert client.mget_nonatomic([f"m:{n}" for n in range(100)]) == [str(n).encode() for n in range(100)]
    pipe = client.pipeline()
    for n in range(200):
        pipe.incr(f"p:{n}")
    assert pipe.execute() == [1] * 200
    reader = RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port, read_from_replicas=True)
    for primary, replicas in cluster.pairs():
        covey.wait_in_sync(primary, *replicas)
    assert [reader.get(f"m:{n}") for n in range(100)] == [str(n).encode() for n in range(100)]
    reader.close()
    client.close()


def test_ioredis(cluster):
    node = shutil.which("node")
    if not node or not os.path.isdir(os.path.join(NODE_DIR, "node_modules", "ioredis")):
        raise TestFailure("node or tests/node/node_modules/ioredis is missing: ./run test installs them")
    process = subprocess.Popen([node, os.path.join(NODE_DIR, "cluster_client.js"), *[str(n.port) for n in cluster.nodes[:3]]],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               preexec_fn=covey.die_with_parent)
    try:
        timer = threading.Timer(90 * covey.PATIENCE, process.kill)
        timer.start()
        line = process.stdout.readline()
        assert line.strip() == "ready", f"ioredis did not get to write: {line}{process.stdout.read()}"
        killed_at = kill_one_primary(cluster)
        time.sleep(1)
        process.stdin.write("stop\n")
        process.stdin.flush()
        out = process.stdout.read()
        assert process.wait(60 * covey.PATIENCE) == 0, out
    finally:
        timer.cancel()
        process.kill()
        process.wait()
    result = json.loads(out.strip().splitlines()[-1])
    print(result)
    check(result["acked"], [(n, at / 1000) for n, at in result["missing"]], killed_at, result["last"] / 1000)


def test_redis_cli_follows_redirections(cluster):
    for n in range(20):
        assert cluster.nodes[0].cli("-c", "SET", f"k{n}", n).strip() == "OK"
    assert [cluster.nodes[2].cli("-c", "GET", f"k{n}").strip() for n in range(20)] == [str(n) for n in range(20)]
