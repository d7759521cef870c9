"""DEBUG's subcommands: what they change, what they say, and what a crash on purpose leaves behind."""
import signal

import pytest
import redis

import covey
from covey import wait_for, wait_in_sync


@pytest.fixture
def node(servers):
    return servers.node(save="")


def client_of(node):
    return node.new_client(decode_responses=True)


def debug(node, *words):
    return client_of(node).execute_command("DEBUG", *words)


def error(node, *words):
    with pytest.raises(redis.ResponseError) as caught:
        debug(node, *words)
    return str(caught.value)


@pytest.mark.sanitizer
def test_reload_options(node):
    client = client_of(node)
    client.mset({"a": "file", "b": "file"})
    client.save()
    client.set("a", "memory")
    client.set("c", "memory")
    assert debug(node, "RELOAD", "NOSAVE", "NOFLUSH", "MERGE") == "OK"
    assert client.mget("a", "b", "c") == ["file", "file", "memory"]
    client.flushall()
    client.set("c", "memory")
    assert debug(node, "RELOAD", "NOSAVE", "NOFLUSH") == "OK", "no key stands in both"
    assert client.mget("a", "b", "c") == ["file", "file", "memory"]
    assert debug(node, "RELOAD", "NOSAVE") == "OK"
    assert client.mget("a", "b", "c") == ["file", "file", None]
    assert "only supports" in error(node, "RELOAD", "NOTHING")


LIBRARY = "#!lua name=%s\nredis.register_function('%s', function() return %d end)"


@pytest.mark.parametrize("options", [[], ["NOFLUSH"], ["MERGE"], ["NOFLUSH", "MERGE"]])
def test_reload_and_libraries(node, options):
    """Libraries come in beside those that are there, or over them, as the keys do; a function's name is never taken twice."""
    client = client_of(node)
    client.function_load(LIBRARY % ("one", "f", 1))
    client.save()
    stays = "NOFLUSH" in options
    client.function_load(LIBRARY % ("two", "g", 2))
    client.function_load(LIBRARY % ("one", "f", 3), replace=True)
    if options == ["NOFLUSH"]:
        assert "Error trying to load the RDB dump" in error(node, "RELOAD", "NOSAVE", *options)
        assert client.fcall("f", 0) == 3
        client.function_delete("one")
    assert debug(node, "RELOAD", "NOSAVE", *options) == "OK"
    assert client.fcall("f", 0) == 1
    assert {l[1] for l in client.function_list()} == ({"one", "two"} if stays else {"one"})
    client.function_flush()
    client.function_load(LIBRARY % ("three", "f", 4))
    if stays:
        assert "Error trying to load the RDB dump" in error(node, "RELOAD", "NOSAVE", *options)
    else:
        assert debug(node, "RELOAD", "NOSAVE", *options) == "OK"
    assert client.fcall("f", 0) == (4 if stays else 1)


def test_reload_of_keys_that_are_there(node):
    if covey.COVEY_IS_REDIS:
        pytest.skip("redis-server ends")
    node.client.set("a", 1)
    assert "Error trying to load the RDB dump" in error(node, "RELOAD", "NOFLUSH")
    assert client_of(node).get("a") == "1"


@pytest.mark.parametrize("how", ["SEGFAULT", "PANIC", "ASSERT", "OOM"])
def test_crashes(servers, how):
    if covey.SANITIZED:
        pytest.skip("the sanitizer reports it")
    node = servers.node(save="")
    node.client.set("a", 1)
    with pytest.raises(redis.ConnectionError):
        debug(node, how)
    assert node.process.wait(10) in (-signal.SIGSEGV, -signal.SIGABRT)
    node.start()
    assert node.client.dbsize() == 0


@pytest.mark.parametrize("how, left", [("RESTART", "1"), ("CRASH-AND-RECOVER", None)])
def test_restarts(servers, how, left):
    node = servers.node(save="3600 1")
    node.client.set("a", 1)
    before = node.client.info("server")["run_id"]
    with pytest.raises(redis.ConnectionError):
        debug(node, how, 50)
    wait_for("another server", lambda: node.new_client().info("server")["run_id"] != before)
    assert node.process.poll() is None, "the process is the same"
    assert client_of(node).get("a") == left
    assert "not an integer" in error(node, how, "x")


def test_config_rewrite_of_everything(servers):
    node = servers.node(start=False)
    node.config = "# kept\n"
    node.start()
    before = client_of(node).config_get("*")
    assert debug(node, "CONFIG-REWRITE-FORCE-ALL") == "OK"
    node.terminate()
    node.start()
    assert client_of(node).config_get("*") == before
    with open(node.config_file) as file:
        text = file.read()
    assert text.startswith("# kept\n") and "\ntcp-backlog 511\n" in text


def test_replicate(servers):
    primary, replica = servers.node(save=""), servers.node(save="")
    replica.cmd("REPLICAOF", primary.host, primary.port)
    wait_in_sync(primary, replica)
    primary.client.set("a", 1)
    assert debug(primary, "REPLICATE", "SET", "b", "2") == "OK"
    wait_for("the command", lambda: client_of(replica).get("b") == "2")
    assert client_of(primary).get("b") is None
    assert client_of(replica).get("a") == "1"


def test_frames_of_the_bus_are_dropped(servers):
    cluster = servers.cluster(["covey"] * 3)
    here, there = cluster.nodes[:2]
    listener = client_of(there).pubsub()
    listener.subscribe("news")
    assert listener.get_message(timeout=5)["type"] == "subscribe"
    assert debug(there, "DROP-CLUSTER-PACKET-FILTER", 4) == "OK"
    client_of(here).publish("news", "lost")
    assert listener.get_message(timeout=1) is None
    assert debug(there, "DROP-CLUSTER-PACKET-FILTER", -1) == "OK"
    client_of(here).publish("news", "heard")
    assert listener.get_message(timeout=5)["data"] == "heard"
    assert "not an integer" in error(there, "DROP-CLUSTER-PACKET-FILTER", "x")


@pytest.mark.parametrize("direction, cut", [("to", {"to"}), ("from", {"from"}), ("ALL", {"to", "from"})])
def test_links_of_the_bus_are_cut(servers, direction, cut):
    cluster = servers.cluster(["covey"] * 3)
    here, there = cluster.nodes[:2]
    name = client_of(there).execute_command("CLUSTER", "MYID")

    def links():
        """When the links with that node were made, by direction: in ms, and one more or less each time it is asked for."""
        found = {}
        for link in client_of(here).execute_command("CLUSTER", "LINKS"):
            fields = dict(zip(link[::2], link[1::2])) if isinstance(link, list) else link
            if fields["node"] == name:
                found[fields["direction"]] = fields["create-time"]
        return found

    before = wait_for("both links", lambda: (lambda now: now if set(now) == {"to", "from"} else None)(links()))
    assert debug(here, "CLUSTERLINK", "KILL", direction, name) == "OK"

    def made_anew():
        now = links()
        return set(now) == {"to", "from"} and {way for way in now if now[way] > before[way] + 50} >= cut

    wait_for("other links", made_anew)
    if len(cut) == 1:
        (kept,) = {"to", "from"} - cut
        assert abs(links()[kept] - before[kept]) <= 50
    assert "Unknown node" in error(here, "CLUSTERLINK", "KILL", "to", "x" * 40)
    assert error(here, "CLUSTERLINK", "KILL", "sideways", name) == "Unknown direction sideways"


@pytest.mark.sanitizer
def test_looks_at_values(node):
    client = client_of(node)
    client.set("text", "hello")
    client.set("number", 12)
    client.rpush("list", *range(5))
    client.hset("hash", "f", "v")
    client.sadd("set", *(f"member {i}" for i in range(1000)))
    client.expire("set", 1000)
    assert debug(node, "SDSLEN", "text").startswith("key_sds_len:4, key_sds_avail:0, key_zmalloc: ")
    assert "val_sds_len:5, val_sds_avail:0" in debug(node, "SDSLEN", "text")
    client.append("text", " " * 5000)
    assert "val_sds_len:5005" in debug(node, "SDSLEN", "text")
    for key in "number", "list":
        assert "Not an sds encoded string." in error(node, "SDSLEN", key)
    assert "no such key" in error(node, "SDSLEN", "none")
    assert debug(node, "LISTPACK", "hash").startswith("Listpack structure printed")
    assert "Not a listpack encoded object." in error(node, "LISTPACK", "text")
    assert debug(node, "QUICKLIST", "list", 1).startswith("Quicklist structure printed")
    assert "Not a quicklist encoded object." in error(node, "QUICKLIST", "text")
    keys, expires = debug(node, "HTSTATS", 0).split("[Expires HT]\n")
    assert keys.startswith("[Dictionary HT]\nHash table 0 stats") and "\n number of elements: 5\n" in keys
    assert "\n number of elements: 1\n" in expires
    assert "No stats available for empty dictionaries" in debug(node, "HTSTATS", 1)
    assert "Out of range database" in error(node, "HTSTATS", 99)
    assert "\n number of elements: 1000\n" in debug(node, "HTSTATS-KEY", "set")
    assert "not represented using an hash table" in error(node, "HTSTATS-KEY", "text")
    assert "no such key" in error(node, "HTSTATS-KEY", "none")
    assert debug(node, "STRUCTSIZE").startswith("bits:64 ")


def test_client_eviction(node):
    assert "maxmemory-clients is disabled." in error(node, "CLIENT-EVICTION")
    node.client.config_set("maxmemory-clients", "100mb")
    lines = debug(node, "CLIENT-EVICTION").splitlines()
    assert len(lines) == 19 and lines[1].startswith("bucket      32768 -      65535: tot-mem: "), lines
    assert lines[-1].startswith("bucket 4294967296+            : tot-mem:          0, clients: 0")
    assert covey.COVEY_IS_REDIS or sum(int(line.rsplit(" ", 1)[1]) for line in lines) >= 1


def test_accepted(node):
    for words in (("PAUSE-CRON", 1), ("PAUSE-CRON", 0), ("LEAK", "x"), ("REPLYBUFFER", "PEAK-RESET-TIME", "never"), ("AOF-FLUSH-SLEEP", 0),
                  ("REPLYBUFFER", "peak-reset-time", 100), ("REPLYBUFFER", "RESIZING", 0), ("SET-DISABLE-DENY-SCRIPTS", 0)):
        assert debug(node, *words) == "OK", words
    assert "not an integer" in error(node, "REPLYBUFFER", "PEAK-RESET-TIME", "x")
    assert "only available for cluster mode" in error(node, "CLUSTERLINK", "KILL", "to", "x")
    for words in (("CLUSTERLINK", "x", "to", "y"), ("REPLYBUFFER", "x", "y"), ("NOSUCH",), ("SDSLEN",), ("REPLICATE",)):
        assert "unknown subcommand or wrong number of arguments" in error(node, *words)
