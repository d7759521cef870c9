"""covey proxy: the commands that are about the connection, its clients and the proxy itself."""
import threading
import time

import pytest

import covey
from covey import wait_for
from test_proxy import Proxy, other_slot_key
from wire import Error, Wire

if covey.COVEY_IS_REDIS:
    pytest.skip("the proxy is Covey's", allow_module_level=True)


@pytest.fixture(scope="module", params=["covey", "redis"])
def setup(request, module_servers):
    cluster = module_servers.cluster([request.param] * 6, replicas=1, timeout=2000)
    return cluster, Proxy(module_servers, cluster.nodes[:2])


def lines(wire, *words):
    return [dict(word.split("=", 1) for word in line.split(" ")) for line in wire("CLIENT", "LIST", *words).decode().splitlines()]


def test_client_list_and_kill(setup):
    proxy = setup[1]
    with Wire(proxy) as one, Wire(proxy, 3) as two, Wire(proxy) as listener:
        assert one("CLIENT", "SETNAME", "first") == "OK" and two("CLIENT", "SETNAME", "second") == "OK"
        listener.send("SUBSCRIBE", "a", "b")
        listener.send("PSUBSCRIBE", "c*")
        listener.many(3)
        assert two("MULTI") == "OK" and two("SET", "k", "v") == "QUEUED"
        seen = {int(line["id"]): line for line in lines(one)}
        assert {one.id, two.id, listener.id} <= set(seen)
        assert seen[one.id]["cmd"] == "client|list" and seen[one.id]["name"] == "first" and seen[one.id]["flags"] == "N"
        assert seen[two.id]["multi"] == "1" and seen[two.id]["resp"] == "3" and seen[two.id]["flags"] == "x"
        assert (seen[listener.id]["sub"], seen[listener.id]["psub"], seen[listener.id]["flags"]) == ("2", "1", "P")
        port = one.sock.getsockname()[1]
        assert seen[one.id]["addr"] == f"127.0.0.1:{port}" and seen[one.id]["laddr"] == f"127.0.0.1:{proxy.port}"
        assert two("DISCARD") == "OK"
        assert [int(line["id"]) for line in lines(one, "ID", two.id, 999999)] == [two.id]
        assert [int(line["id"]) for line in lines(one, "TYPE", "pubsub")] == [listener.id]
        assert lines(one, "TYPE", "master") == []
        assert one("CLIENT", "LIST", "TYPE", "x") == "ERR Unknown client type 'x'"
        assert one("CLIENT", "LIST", "ID", "x") == "ERR Invalid client ID" and one("CLIENT", "LIST", "y") == "ERR syntax error"
        assert one("CLIENT", "KILL", "1.2.3.4:5") == "ERR No such client"
        assert one("CLIENT", "KILL", "ID", "0") == "ERR client-id should be greater than 0"
        assert one("CLIENT", "KILL", "USER", "nobody") == "ERR No such user 'nobody'"
        assert one("CLIENT", "KILL", "ID", "1", "TYPE") == "ERR syntax error"
        assert one("CLIENT", "KILL", "TYPE", "pubsub") == 1 and listener.closed()
        assert one("CLIENT", "KILL", "ID", one.id) == 0, "SKIPME is yes"
        assert one("CLIENT", "KILL", "ADDR", f"127.0.0.1:{two.sock.getsockname()[1]}") == 1 and two.closed()
        with Wire(proxy) as three:
            assert one("CLIENT", "KILL", f"127.0.0.1:{three.sock.getsockname()[1]}") == "OK" and three.closed()
        # in a pipeline: what stands before and behind has its place
        for n in range(20):
            one.send("SET", f"k{n}", n)
            one.send("CLIENT", "LIST")
            one.send("GET", f"k{n}")
        for n in range(20):
            assert one.read() == "OK" and f"id={one.id} ".encode() in one.read() and one.read() == str(n).encode()
        assert one("CLIENT", "KILL", "ID", one.id, "SKIPME", "no") == 1 and one.closed()


def test_small_ones(setup):
    with Wire(setup[1]) as wire, Wire(setup[1], 3) as three:
        assert wire("CLIENT", "ID") == wire.id and wire("CLIENT", "GETREDIR") == -1 and wire("CLIENT", "GETNAME") is None
        for name in ("NO-EVICT", "NO-TOUCH"):
            assert wire("CLIENT", name, "on") == "OK" and wire("CLIENT", name, "x") == "ERR syntax error"
        assert wire("CLIENT", "SETINFO", "lib-name", "x") == "OK" and "Unrecognized" in wire("CLIENT", "SETINFO", "x", "x")
        assert wire("CLIENT", "TRACKINGINFO") == [b"flags", [b"off"], b"redirect", -1, b"prefixes", []]
        assert "this is a proxy" in wire("CLIENT", "TRACKING", "on") and "tracking mode" in wire("CLIENT", "CACHING", "yes")
        assert three("CLIENT", "TRACKINGINFO") == {b"flags": [b"off"], b"redirect": -1, b"prefixes": []}
        for container in ("CLIENT", "CONFIG", "LATENCY", "SLOWLOG", "ACL", "COMMAND", "XINFO", "OBJECT", "MEMORY", "PUBSUB", "SCRIPT"):
            text = wire(container, "HELP")
            assert isinstance(text, list) and len(text) > 2 and text[0].startswith(container), container
        assert wire("ROLE") == [b"master", 0, []] and wire("MODULE", "LIST") == []
        assert wire("LATENCY", "LATEST") == [] and wire("LATENCY", "HISTORY", "x") == [] and wire("LATENCY", "RESET") == 0
        assert wire("LATENCY", "GRAPH", "x") == "ERR No samples available for event 'x'"
        wire("GET", "k")
        histogram = three("LATENCY", "HISTOGRAM", "get")
        assert histogram[b"get"][b"calls"] >= 1 and sum(histogram[b"get"][b"histogram_usec"].values()) >= 1
        assert b"proxy" in wire("LATENCY", "DOCTOR") and b"proxy" in wire("MEMORY", "DOCTOR")
        assert three("MEMORY", "STATS")[b"total.allocated"] > 0 and wire("MEMORY", "PURGE") == "OK"
        assert wire("SET", "k", "v") == "OK" and wire("MEMORY", "USAGE", "k") > 0 and wire("OBJECT", "ENCODING", "k") == b"embstr"
        assert "Value at" in wire("DEBUG", "OBJECT", "k") and "this is a proxy" in wire("DEBUG", "JMAP")
        assert wire("CONFIG", "SET", "timeout", 0) == "OK" and "without a config file" in wire("CONFIG", "REWRITE")
        assert wire("TIME")[0] and wire("LASTSAVE") > 0 and wire("COMMAND", "COUNT") > 200
        assert wire("COMMAND", "GETKEYS", "MSET", "a", 1, "b", 2) == [b"a", b"b"]
        assert "cluster support disabled" in wire("CLUSTER", "SLOTS") and "cluster support disabled" in wire("READONLY")
        assert b"total_commands_processed:" in wire("INFO", "stats")
        assert wire("CONFIG", "RESETSTAT") == "OK"
        processed = next(line for line in wire("INFO", "stats").splitlines() if line.startswith(b"total_commands_processed:"))
        assert int(processed.split(b":")[1]) < 10


def test_publish_subscribe_of_all_nodes(setup):
    with Wire(setup[1]) as wire:
        listeners = [Wire(setup[1]) for _ in range(12)]
        for n, listener in enumerate(listeners):
            listener.send("SUBSCRIBE", "all", f"own{n}")
            listener.send("PSUBSCRIBE", f"p{n}*")
            listener.many(3)
        assert set(wire("PUBSUB", "CHANNELS")) == {b"all", *(b"own%d" % n for n in range(12))}
        assert wire("PUBSUB", "CHANNELS", "own1*") and wire("PUBSUB", "NUMPAT") == 12
        assert wire("PUBSUB", "NUMSUB", "own3", "all", "none") == [b"own3", 1, b"all", 12, b"none", 0]
        for listener in listeners:
            listener.close()
        shard = Wire(setup[1])
        shard.send("SSUBSCRIBE", "{x}1")
        shard.read()
        assert wire("PUBSUB", "SHARDCHANNELS") == [b"{x}1"] and wire("PUBSUB", "SHARDNUMSUB", "{x}1") == [b"{x}1", 1]
        assert wire("SPUBLISH", "{x}1", "m") == 1
        shard.close()


def test_reply_modes(setup):
    with Wire(setup[1]) as wire:
        wire.send("CLIENT", "REPLY", "SKIP")
        wire.send("SET", "k", "1")
        wire.send("GET", "k")
        assert wire.read() == b"1"
        wire.send("CLIENT", "REPLY", "OFF")
        for n in range(200):
            wire.send("INCR", "k")
            wire.send("MGET", "k", other_slot_key("k"))
            wire.send("NOSUCH")
            wire.send("PING")
        wire.send("EVAL", "return 1", 0)
        wire.send("DBSIZE")
        wire.send("CLIENT", "LIST")
        assert wire.silent()
        assert wire("CLIENT", "REPLY", "ON") == "OK" and wire("GET", "k") == b"201"
        wire.send("GET", "k")
        wire.send("CLIENT", "REPLY", "SKIP")
        wire.send("PING")
        wire.send("ECHO", "x")
        assert wire.many(2) == [b"201", b"x"] and wire("CLIENT", "REPLY", "x") == "ERR syntax error"


def test_pause(setup):
    with Wire(setup[1]) as admin, Wire(setup[1]) as writer, Wire(setup[1]) as reader:
        assert admin("SET", "k", "1") == "OK"
        assert admin("CLIENT", "PAUSE", 60000, "WRITE") == "OK"
        writer.send("INCR", "k")
        assert reader("GET", "k") == b"1" and reader("MULTI") == "OK" and reader("GET", "k") == "QUEUED" and reader("EXEC") == [b"1"]
        assert writer.silent(0.3)
        reader.send("EVAL", "return 1", 0)
        assert reader.silent(0.2)
        assert admin("CLIENT", "UNPAUSE") == "OK"
        assert writer.read() == 2 and reader.read() == 1
        assert admin("CLIENT", "PAUSE", 400) == "OK"
        started = time.monotonic()
        assert reader("GET", "k") == b"2" and time.monotonic() - started > 0.3
        assert admin("CLIENT", "PAUSE", "x") == "ERR timeout is not an integer or out of range"
        assert admin("CLIENT", "PAUSE", -1) == "ERR timeout is negative"
        assert "mode must be WRITE or ALL" in admin("CLIENT", "PAUSE", 1, "x")


def test_unblock(setup):
    with Wire(setup[1]) as admin, Wire(setup[1]) as sleeper:
        for how, want in ((["ERROR"], "UNBLOCKED client unblocked via CLIENT UNBLOCK"), (["TIMEOUT"], None), ([], None)):
            sleeper.send("BLPOP", "nothing", 0)
            assert wait_for("it to sleep", lambda: admin("CLIENT", "UNBLOCK", sleeper.id, *how)) == 1
            assert sleeper.read() == want
            assert sleeper("PING") == "PONG"
        assert admin("CLIENT", "UNBLOCK", sleeper.id) == 0 and admin("CLIENT", "UNBLOCK", 99999999) == 0
        assert "reason should be" in admin("CLIENT", "UNBLOCK", 1, "x") and isinstance(admin("CLIENT", "UNBLOCK", "x"), Error)
        assert admin("RPUSH", "nothing", "kept") == 1 and admin("LPOP", "nothing") == b"kept"


def test_a_wait_on_the_connection_that_watches(setup):
    """BLPOP of a watched key goes to the node by the connection that watches it, and that stays the client's."""
    _, proxy = setup
    with Wire(proxy) as wire, Wire(proxy) as other:
        for n in range(20):
            assert wire("WATCH", "{w}k") == "OK"
            assert wire("BLPOP", "{w}list", 0.01) is None
            if n % 3 == 0:
                assert other("INCR", "{w}k") > 0
            assert wire("MULTI") == "OK" and wire("GET", "{w}k") == "QUEUED"
            reply = wire("EXEC")
            assert reply is None if n % 3 == 0 else len(reply) == 1, n
        assert wire("WATCH", "{w}k") == "OK"
        wire.send("BLPOP", "{w}list", 5)
        time.sleep(0.1)
        assert other("RPUSH", "{w}list", "x") == 1 and wire.read() == [b"{w}list", b"x"]
        assert wire("UNWATCH") == "OK"
        waiting = [Wire(proxy) for _ in range(5)]  # each on a connection of its own
        for n, client in enumerate(waiting):
            client.send("BLPOP", f"{{w}}list{n}", 5)
        time.sleep(0.1)
        for n, client in enumerate(waiting):
            assert other("RPUSH", f"{{w}}list{n}", n) == 1 and client.read() == [b"{w}list%d" % n, b"%d" % n]
            client.close()


def test_commands_for_all_nodes_wait_for_the_cluster(setup, module_servers):
    """What comes before the proxy has seen the cluster is not for one node only."""
    cluster, steady = setup
    with Wire(steady) as wire:
        wire("FLUSHALL")
        for n in range(30):
            wire("SET", f"early:{n}", n)
    late = cluster.nodes[0]
    for command, want in ((("DBSIZE",), 30), (("SCAN", 0, "COUNT", 1000), None), (("FLUSHALL",), "OK")):
        for node in cluster.nodes:
            node.pause()
        try:
            proxy = Proxy(module_servers, [late], wait=False)
            wait_for("the proxy to listen", lambda: Wire(proxy).close() or True)
            wire = Wire(proxy)
            wire.send(*command)
            time.sleep(0.3)
        finally:
            for node in cluster.nodes:
                node.resume()
        reply = wire.read()
        found = 0
        while command[0] == "SCAN":
            found += len(reply[1])
            if reply[0] == b"0":
                break
            reply = wire("SCAN", reply[0], "COUNT", 1000)
        assert found == 30 if command[0] == "SCAN" else reply == want, command
        wire.close()
        assert proxy.terminate() == 0
        cluster.wait_whole()
    with Wire(steady) as wire:
        assert wire("DBSIZE") == 0


def test_order_while_keys_are_watched(setup):
    """Commands that are split among nodes keep their place among those of the watched slot, in a pipeline."""
    _, proxy = setup
    with Wire(proxy) as wire:
        for n in range(50):
            wire("DEL", "{w}t", "{w}s")
            assert wire("SADD", "{w}s", 1) == 1 and wire("WATCH", "{w}k") == "OK"
            for _ in range(10):
                wire.send("SUNIONSTORE", "{w}t", "{w}s")
                wire.send("EXISTS", "{w}t", "elsewhere")
                wire.send("DEL", "{w}t", "elsewhere")
                wire.send("EXISTS", "elsewhere", "{w}t")
            assert wire.many(40) == [1, 1, 1, 0] * 10, n
            assert wire("UNWATCH") == "OK"


def test_wait(setup):
    cluster, proxy = setup
    cluster.wait_whole()
    with Wire(proxy) as wire, Wire(proxy) as quick:
        assert wire("WAIT", 0, 10) in (0, 1)
        assert wire("SET", "a", 1) == "OK" and wire("WAIT", 1, 5000) == 1
        assert wire("SET", other_slot_key("a"), 1) == "OK" and wire("WAIT", 1, 5000) == 1
        assert wire("WAIT", "x", 1) == "ERR value is not an integer or out of range"
        assert wire("WAIT", 1, "x") == "ERR timeout is not an integer or out of range"
        assert wire("WAIT", 1, -1) == "ERR timeout is negative"
        # replicas that do not answer: it waits, others do not
        replicas = [node for node in cluster.live() if cluster.role(node) == "slave"]
        for node in replicas:
            node.pause()
        try:
            assert wire("INCR", "a") == 2
            wire.send("WAIT", 1, 600 * covey.PATIENCE)
            started = time.monotonic()
            for n in range(50):
                assert quick("SET", "a", n) == "OK"
            assert wire.silent(0.2) and wire.read() == 0
            assert 0.4 < time.monotonic() - started < 5 * covey.PATIENCE
        finally:
            for node in replicas:
                node.resume()
        assert wire("SET", "a", 5) == "OK" and wire("WAIT", 1, 10000) == 1
        # a client that leaves while it waits
        with Wire(proxy) as gone:
            gone("SET", "a", 1)
            gone.send("WAIT", 5, 0)
            time.sleep(0.2)
        wait_for("its connection to be closed", lambda: proxy.stat("pinned_connections", "all") <= 8)
    cluster.wait_whole()


def test_monitor(setup):
    proxy = setup[1]
    with Wire(proxy) as monitor, Wire(proxy) as wire:
        assert monitor("MONITOR") == "OK"
        keys = ["a", "b", "c", "d", "e", "f"]
        for key in keys:
            assert wire("SET", key, "watched") == "OK"
        seen = []
        while len(seen) < len(keys):
            line = monitor.read()
            if "watched" in line:
                seen.append(line.split('"')[3])
        assert sorted(seen) == keys
        assert "O" in next(line for line in lines(wire) if int(line["id"]) == monitor.id)["flags"]
        assert monitor("RESET").endswith("RESET") or any(monitor.read() == "RESET" for _ in range(200))
        assert wire("SET", "a", "watched") == "OK" and monitor("PING") == "PONG"
    thread = threading.active_count()
    assert thread
    wait_for("the connections to be closed", lambda: proxy.stat("pinned_connections", "all") <= 8)
