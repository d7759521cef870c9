"""What a node tells of itself: latency, INFO as monitoring reads it, redis-cli's ways of looking for keys."""
import os
import shutil
import subprocess
import time
import urllib.request

import pytest

import covey
from covey import TestFailure, wait_for


def histogram(client, *names):
    flat = client.execute_command("LATENCY", "HISTOGRAM", *names)
    found = {}
    for name, fields in zip(flat[::2], flat[1::2]):
        fields = dict(zip(fields[::2], fields[1::2]))
        found[name.decode()] = (fields[b"calls"], dict(zip(fields[b"histogram_usec"][::2], fields[b"histogram_usec"][1::2])))
    return found


@pytest.fixture
def pair(servers):
    return [servers.node(kind, enable_debug_command="yes") for kind in ("covey", "redis")]


def test_latency_histogram(pair):
    for node in pair:
        client = node.client
        client.config_resetstat()
        for n in range(100):
            client.set("k", n)
        client.execute_command("DEBUG", "SLEEP", "0.05")
        client.config_get("port")
        found = histogram(client, "SET", "debug", "config", "nosuch")
        assert set(found) == {"set", "debug", "config|get", "config|resetstat"}, node
        calls, buckets = found["set"]
        assert calls == 100 and list(buckets) == sorted(buckets) and buckets[max(buckets)] == 100
        assert found["debug"] == (1, {67633: 1})  # the bounds are the tops of buckets at doubling durations
        assert set(histogram(client)) >= set(found)
        client.config_set("latency-tracking", "no")
        client.set("k", "x")
        assert histogram(client, "set")["set"][0] == 100
        client.config_resetstat()
        assert histogram(client, "set") == {}


def test_percentiles_in_info(pair):
    for node in pair:
        node.client.config_set("latency-tracking-info-percentiles", "50 99.5 100")
        for n in range(50):
            node.client.incr("n")
        line = next(l for l in node.cli("INFO", "latencystats").splitlines() if l.startswith("latency_percentiles_usec_incrby:"))
        values = dict(part.split("=") for part in line.split(":")[1].strip().split(","))
        assert list(values) == ["p50", "p99.5", "p100"]
        assert 0 < float(values["p50"]) <= float(values["p99.5"]) <= float(values["p100"]) < 1e6


def test_latency_monitor(pair):
    for node in pair:
        client = node.client
        assert client.execute_command("LATENCY", "LATEST") == []
        client.config_set("latency-monitor-threshold", 50)  # more than a busy machine makes of a short command
        took = []
        for ms in (100, 300, 200):
            begin = time.monotonic()
            client.execute_command("DEBUG", "SLEEP", ms / 1000)
            took.append((ms, (time.monotonic() - begin) * 1000 + 1))  # what the server sees lies between the two
            time.sleep(1.01)
        events = {event: rest for event, *rest in client.execute_command("LATENCY", "LATEST")}
        at, last, high = events[b"command"]
        assert abs(at - time.time()) < 5 and took[2][0] <= last <= took[2][1] and took[1][0] <= high <= took[1][1]
        samples = [ms for at, ms in client.execute_command("LATENCY", "HISTORY", "command")]
        assert len(samples) == 3 and all(low <= ms <= high for ms, (low, high) in zip(samples, took)), (samples, took)
        graph = client.execute_command("LATENCY", "GRAPH", "command").decode().splitlines()
        assert graph[0].startswith("command - high ") and graph[1] == "-" * 80
        assert graph[2].startswith(" #") and graph[3].startswith(" |") and graph[5].startswith("_||") and graph[6].strip() == ""
        assert "command: 3 latency spikes (average" in client.execute_command("LATENCY", "DOCTOR").decode()
        with pytest.raises(Exception, match="No samples available for event 'nosuch'"):
            client.execute_command("LATENCY", "GRAPH", "nosuch")
        assert client.execute_command("LATENCY", "RESET", "command") == 1
        assert client.execute_command("LATENCY", "HISTORY", "command") == []


def test_expiry_shows_in_the_latency_monitor(servers):
    """A storm of expiring keys is visible as the event "expire-cycle" when it holds a worker for the threshold."""
    node = servers.node("covey", latency_monitor_threshold=1)
    pipe = node.client.pipeline(transaction=False)
    for n in range(200_000):
        pipe.set(f"k:{n}", "x", px=1500)
    pipe.execute()
    wait_for("all to expire", lambda: node.client.dbsize() == 0, 20)
    assert b"expire-cycle" in {event for event, *_ in node.client.execute_command("LATENCY", "LATEST")}


def test_prometheus_exporter(servers):
    if not shutil.which("prometheus-redis-exporter"):
        raise TestFailure("prometheus-redis-exporter is missing: ./run test installs it")
    node = servers.node("covey")
    replica = servers.node("covey", replicaof=f"127.0.0.1 {node.port}")
    wait_for("the replica", lambda: node.stat("connected_slaves", "replication") == 1)
    for n in range(100):
        node.client.set(f"k:{n}", n, ex=1000 if n % 2 else None)
        node.client.get(f"k:{n}")
    node.client.get("missing")
    port = covey.free_port()
    exporter = subprocess.Popen(["prometheus-redis-exporter", f"-web.listen-address=127.0.0.1:{port}", "-redis.addr",
                                 f"redis://127.0.0.1:{node.port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                preexec_fn=covey.die_with_parent)

    def read():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            return None
    try:
        text = wait_for("the exporter", read, 20)
    finally:
        exporter.kill()
        exporter.wait()
    metrics = dict(line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    assert metrics["redis_up"] == "1" and metrics["redis_exporter_last_scrape_error{err=\"\"}"] == "0"
    assert metrics['redis_db_keys{db="db0"}'] == "100" and metrics['redis_db_keys_expiring{db="db0"}'] == "50"
    assert metrics["redis_keyspace_hits_total"] == "100" and metrics["redis_keyspace_misses_total"] == "1"
    assert metrics['redis_commands_total{cmd="set"}'] == "100"
    assert metrics["redis_connected_slaves"] == "1" and float(metrics["redis_memory_used_bytes"]) > 10000
    assert any(name.startswith("redis_instance_info{") and 'redis_version="7.0.15"' in name for name in metrics)
    assert any(name.startswith("redis_connected_slave_offset_bytes{") and str(replica.port) in name for name in metrics)
    assert float(metrics["redis_uptime_in_seconds"]) >= 0 and float(metrics["redis_process_id"]) == node.pid


def test_redis_cli_finds_big_keys(servers):
    node = servers.node("covey")
    node.client.set("small", "x")
    node.client.set("long", "x" * 5000)
    node.client.rpush("queue", *range(300))
    node.client.zadd("board", {f"m{n}": n for n in range(200)})
    report = node.cli("--bigkeys")
    assert 'Biggest string found' in report and '"long"\' has 5000 bytes' in report
    assert '"queue"\' has 300 items' in report and '"board"\' has 200 members' in report


def top(node, section):
    return [dict(part.split("=", 1) for part in line.split(":", 1)[1].split(",", 2))
            for line in node.cli("INFO", section).splitlines() if not line.startswith("#") and ":" in line]


def test_hot_keys_are_found_at_once(servers):
    node = servers.node("covey")
    run = ["redis-benchmark", "-p", str(node.port), "-q", "-c", "10", "-P", "8"]
    noise = subprocess.Popen([*run, "-n", "1000000", "-r", "100000", "SET", "key:__rand_int__", "x"], stdout=subprocess.DEVNULL)
    hot = subprocess.Popen([*run, "-n", "300000", "GET", 'hot "one"'], stdout=subprocess.DEVNULL)
    node.client.set('hot "one"', 1)
    try:
        wait_for("the hot key to lead", lambda: (lambda t: t and t[0]["key"] == '"hot \\"one\\""' and t)(top(node, "hotkeys")), 5)
        first = top(node, "hotkeys")[0]
        assert first["db"] == "0" and int(first["ops_per_sec"]) > 1000
    finally:
        for process in (noise, hot):
            process.kill()
            process.wait()


def test_big_keys_are_found(servers):
    node = servers.node("covey", key_sampling=1)
    for size in (2000, 50000, 400):
        node.client.set(f"s{size}", "x" * size)
    node.client.sadd("many", *range(20000))
    for _ in range(20):
        for key in ("s2000", "s50000", "s400"):
            node.client.get(key)
        node.client.scard("many")
    found = top(node, "bigkeys")
    assert [entry["key"] for entry in found] == ['"many"', '"s50000"', '"s2000"'], found
    assert 50000 <= int(found[1]["bytes"]) < 70000
    node.client.delete("many", "s50000")
    assert [entry["key"] for entry in top(node, "bigkeys")] == ['"s2000"']
