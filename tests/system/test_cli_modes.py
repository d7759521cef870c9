"""redis-cli's own modes: files fetched over the wire, bulk loading, and how a replica asks for less than everything."""
import re
import resource

import pytest
import redis

import covey
from covey import wait_for
from wire import Closed, Wire

LIBRARY = "#!lua name=lib\nredis.register_function('f', function() return 1 end)"


@pytest.fixture
def pair(servers):
    # redis-server would wait for further replicas before it begins
    return [servers.node(kind, repl_diskless_sync_delay=0) for kind in ("covey", "redis")]


def keys_in(path):
    report = covey.run(["redis-check-rdb", str(path)])
    assert "RDB looks OK" in report
    return int(re.search(r"(\d+) keys read", report).group(1))


def test_fetching_files(pair, tmp_path):
    for node in pair:
        node.client.execute_command("FUNCTION", "LOAD", LIBRARY)
        covey.populate(node.client, 49)
        node.client.set("a-key", "x")
        whole, functions = tmp_path / (node.kind + ".rdb"), tmp_path / (node.kind + ".functions")
        node.cli("--rdb", str(whole))
        node.cli("--functions-rdb", str(functions))
        assert (keys_in(whole), keys_in(functions)) == (50, 0)
        for path in whole, functions:
            assert LIBRARY.split("\n")[0].encode() in path.read_bytes()
        assert b"a-key" not in functions.read_bytes()


def replconf(node, *words):
    with Wire(node) as wire:
        return wire("REPLCONF", *words)


def test_filter_is_checked(pair):
    for words in (
        ["rdb-filter-only", "functions"],
        ["rdb-filter-only", " functions functions "],
        ["rdb-filter-only", "FUNCTIONS", "rdb-only", "1"],
        ["rdb-filter-only", ""],
        ["rdb-filter-only", '"functions"'],
        ["rdb-filter-only", '"functions'],
        ["rdb-filter-only", "functions data"],
        ["rdb-filter-only", "data", "capa", "eof"],
        ["rdb-filter-only", "functions", "rdb-only", "x"],
    ):
        assert replconf(pair[0], *words) == replconf(pair[1], *words), words


def test_a_snapshot_and_nothing_more(pair):
    for node in pair:
        node.client.execute_command("FUNCTION", "LOAD", LIBRARY)
        node.client.set("a-key", "x")
        for filtered, keys in ((), True), (("rdb-filter-only", ""), False):
            with Wire(node) as wire:
                assert wire("REPLCONF", "capa", "eof", "rdb-only", 1, *filtered) == "OK"
                wire.send("PSYNC", "?", -1)
                while not (line := wire.line()).startswith(b"$EOF:"):
                    assert line.startswith((b"\n", b"+FULLRESYNC ")), line
                mark = line[5:-2]
                data = b""
                with pytest.raises(Closed):  # behind the snapshot comes its mark, and then nothing: no stream
                    while True:
                        data += wire.line()
                data += wire.buffer[wire.at:]
                assert data.endswith(mark), data[-100:]
                assert (b"a-key" in data, LIBRARY.split()[0].encode() in data) == (keys, keys)
        wait_for("the replica to be gone", lambda: node.stat("connected_slaves") == 0)


def test_more_clients_than_files(pair):
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    too_many = most + 10000 if 0 < most < 1 << 31 else None
    for node in pair:
        if too_many:
            with pytest.raises(redis.ResponseError, match="'maxclients'.* not able to handle the specified number of clients, try with [0-9]+$"):
                node.client.config_set("maxclients", too_many)
        assert node.config_get("maxclients") == "10000"
        node.client.config_set("maxclients", 100)
        node.client.config_set("maxclients", 200)
        node.client.config_set("repl-backlog-size", 1)
        assert node.config_get("repl-backlog-size") == "16384"
        with Wire(node) as wire:
            wire.send("DEBUG", "DIGEST-VALUE", "nokey")
            assert (wire.line(), wire.line()) == (b"*1\r\n", b"+" + b"0" * 40 + b"\r\n")
