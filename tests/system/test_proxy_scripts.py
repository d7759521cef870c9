"""covey proxy: EVALSHA finds at every node what was run or loaded at any of them."""
import hashlib
import threading

import pytest

import covey
from covey import SLOTS, tag_of_slot, wait_for
from proxying import Proxy
from wire import Error, Wire

if covey.COVEY_IS_REDIS:
    pytest.skip("the proxy is Covey's", allow_module_level=True)

NOSCRIPT = "NOSCRIPT No matching script. Please use EVAL."
# A key of each third of the slots.
KEYS = [f"{{{tag_of_slot(slot)}}}k" for slot in (0, SLOTS // 2, SLOTS - 1)]


def sha_of(text):
    return hashlib.sha1(text.encode()).hexdigest()


@pytest.fixture(scope="module", params=["covey", "redis"])
def setup(request, module_servers):
    cluster = module_servers.cluster([request.param] * 6, replicas=1, timeout=2000)
    return cluster, Proxy(module_servers, cluster.nodes[:2], workers=1)


@pytest.fixture
def wire(setup):
    with Wire(setup[1]) as wire:
        wire("FLUSHALL"), wire("SCRIPT", "FLUSH")
        yield wire


def primaries(cluster):
    return [node for node in cluster.live() if cluster.role(node) == "master"]


@pytest.mark.parametrize("how", [["EVAL", "{}", 1, KEYS[0]], ["EVAL_RO", "{}", 0], ["SCRIPT", "LOAD", "{}"]])
def test_run_or_loaded_once_known_everywhere(wire, how):
    text = f"return {{KEYS[1], '{how[0]}'}}"
    sha = sha_of(text)
    assert [wire("EVALSHA", sha, 1, key) for key in KEYS] == [NOSCRIPT] * 3
    assert wire("SCRIPT", "EXISTS", sha, "0" * 40) == [0, 0]
    assert not isinstance(wire(*[text if word == "{}" else word for word in how]), Error)
    assert wire("SCRIPT", "EXISTS", sha, "0" * 40, sha.upper()) == [1, 0, 1]
    for key in KEYS + KEYS[::-1]:
        assert wire("EVALSHA", sha, 1, key) == wire("EVALSHA", sha.upper(), 1, key) == [key.encode(), how[0].encode()]
        assert wire("EVALSHA_RO", sha, 1, key) == [key.encode(), how[0].encode()]
    assert wire("SCRIPT", "FLUSH") == "OK" and wire("SCRIPT", "EXISTS", sha) == [0]
    assert [wire("EVALSHA", sha, 1, key) for key in KEYS] == [NOSCRIPT] * 3


def test_in_the_order_of_a_pipeline(wire):
    """The first EVALSHA at a node does not fall behind what follows it."""
    for n in range(20):
        text = f"return redis.call('INCRBY', KEYS[1], 100) + {n}"
        wire.send("EVAL", text, 1, KEYS[0])
        for key in KEYS:
            for _ in range(3):
                wire.send("SET", key, 1)
                wire.send("EVALSHA", sha_of(text), 1, key)
                wire.send("GET", key)
        assert wire.many(1) == [100 + n if n == 0 else 201 + n]
        for _ in KEYS * 3:
            assert wire.many(3) == ["OK", 101 + n, b"101"]


def test_not_before_it_was_run(wire):
    for n in range(20):
        text = f"return {n}"
        wire.send("EVALSHA", sha_of(text), 1, KEYS[1])
        wire.send("EVAL", text, 1, KEYS[1])
        wire.send("EVALSHA", sha_of(text), 1, KEYS[1])
        assert wire.many(3) == [NOSCRIPT, n, n]


def test_what_a_node_has_forgotten_is_loaded_again(setup, wire):
    text = "return redis.call('INCR', KEYS[1])"
    assert wire("EVAL", text, 1, KEYS[0]) == 1
    for round in range(1, 4):
        assert [wire("EVALSHA", sha_of(text), 1, key) for key in KEYS] == [round + 1, round, round]
        for node in primaries(setup[0]):
            node.cmd("SCRIPT", "FLUSH")
    wire("DEL", *KEYS)
    for _ in range(100):
        for key in KEYS:
            wire.send("EVALSHA", sha_of(text), 1, key)
    got = wire.many(300)
    assert [sorted(got[n::3]) for n in range(3)] == [list(range(1, 101))] * 3


def test_in_transactions(wire):
    text, other = "return redis.call('INCR', KEYS[1])", "return 'other'"
    assert wire("EVAL", text, 1, KEYS[0]) == 1
    assert wire("MULTI") == "OK" and wire("EVALSHA", sha_of(text), 1, KEYS[1]) == "QUEUED" and wire("EXEC") == [1]
    assert wire("WATCH", KEYS[2]) == "OK" and wire("MULTI") == "OK"
    assert wire("EVALSHA", sha_of(text), 1, KEYS[2]) == wire("GET", KEYS[2]) == "QUEUED" and wire("EXEC") == [1, b"1"]
    # what was queued and not executed is not known; what was executed is
    assert wire("MULTI") == "OK" and wire("EVAL", other, 1, KEYS[0]) == "QUEUED" and wire("DISCARD") == "OK"
    assert wire("EVALSHA", sha_of(other), 1, KEYS[0]) == wire("EVALSHA", sha_of(other), 1, KEYS[1]) == NOSCRIPT
    assert wire("MULTI") == "OK" and wire("EVAL", other, 1, KEYS[0]) == "QUEUED" and wire("EXEC") == [b"other"]
    assert [wire("EVALSHA", sha_of(other), 1, key) for key in KEYS] == [b"other"] * 3
    assert wire("MULTI") == "OK" and wire("EVALSHA", "f" * 40, 1, KEYS[1]) == "QUEUED" and wire("EXEC") == [NOSCRIPT]


def test_words_that_are_no_scripts_and_errors_of_their_own(wire):
    bad = "this is no Lua"
    assert wire("EVAL", bad, 1, KEYS[0]).startswith("ERR Error compiling script")
    assert wire("EVALSHA", sha_of(bad), 1, KEYS[0]) == wire("EVALSHA", sha_of(bad), 1, KEYS[1]) == NOSCRIPT
    assert wire("SCRIPT", "EXISTS", sha_of(bad)) == [0]
    for words in (["EVALSHA", "short", 1, KEYS[0]], ["EVALSHA", "g" * 40, 1, KEYS[0]], ["EVALSHA", "", 0]):
        assert wire(*words) == NOSCRIPT
    fails = "redis.call('INCR', KEYS[1]) return redis.error_reply('mine ' .. ARGV[1])"
    assert wire("EVAL", fails, 1, KEYS[0], "a") == "ERR mine a" or wire("GET", KEYS[0]) == b"1"
    assert "mine b" in wire("EVALSHA", sha_of(fails), 1, KEYS[1], "b") and wire("GET", KEYS[1]) == b"1"
    # a script whose own error reads like that is not run twice
    says = f"redis.call('INCR', KEYS[1]) return redis.error_reply('{NOSCRIPT}')"
    told = "redis.call('INCR', KEYS[1]) return redis.error_reply(ARGV[1])"
    wire("DEL", *KEYS), wire("SCRIPT", "LOAD", says), wire("SCRIPT", "LOAD", told)
    assert wire("EVALSHA", sha_of(says), 1, KEYS[0]) == NOSCRIPT and wire("GET", KEYS[0]) == b"1"
    assert wire("EVALSHA", sha_of(told), 1, KEYS[1], NOSCRIPT) == NOSCRIPT and wire("GET", KEYS[1]) == b"1"


def test_many_clients_at_once(setup, wire):
    proxy, problems = setup[1], []

    def work(n):
        with Wire(proxy) as mine:
            for i in range(100):
                text = f"return '{i % 10} {n % 2}'"
                key = KEYS[(i + n) % 3]
                if i % 10 == n:
                    mine("EVAL", text, 1, key)
                got = mine("EVALSHA", sha_of(text), 1, KEYS[i % 3])
                if got == NOSCRIPT:
                    got = mine("EVAL", text, 1, key)
                again = mine("EVALSHA", sha_of(text), 1, KEYS[n % 3])
                if got != again or got != f"{i % 10} {n % 2}".encode():
                    problems.append((got, again))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems[:3]


def test_bounds(setup, module_servers):
    proxy = Proxy(module_servers, setup[0].nodes[:2], workers=2, remembered_scripts=2, remembered_script_bytes=1000)
    small, big = [f"return {n}" for n in range(3)], "return 1 --" + "x" * 2000
    with Wire(proxy) as wire:
        assert wire("SCRIPT", "FLUSH") == "OK"
        for text in small + [big]:
            wire("EVAL", text, 1, KEYS[0])
        assert [wire("EVALSHA", sha_of(text), 1, KEYS[0]) for text in small + [big]] == [0, 1, 2, 1]
        # two are remembered; the third and the one that is too large are where they were run
        assert [wire("EVALSHA", sha_of(text), 1, KEYS[1]) for text in small + [big]] == [NOSCRIPT, 1, 2, NOSCRIPT]
        assert wire("CONFIG", "GET", "remembered-scripts") == [b"remembered-scripts", b"2"]


def test_functions_are_everywhere(wire):
    library = "#!lua name=lib\nredis.register_function('f', function(keys) return keys[1] end)"
    assert wire("FUNCTION", "LOAD", "REPLACE", library) == b"lib"
    assert [wire("FCALL", "f", 1, key) for key in KEYS] == [key.encode() for key in KEYS]
    dump = wire("FUNCTION", "DUMP")
    assert wire("FUNCTION", "FLUSH") == "OK" and all(isinstance(wire("FCALL", "f", 1, key), Error) for key in KEYS)
    assert wire("FUNCTION", "RESTORE", dump) == "OK"
    assert [wire("FCALL", "f", 1, key) for key in KEYS] == [key.encode() for key in KEYS]
    assert wire("FUNCTION", "DELETE", "lib") == "OK" and all(isinstance(wire("FCALL", "f", 1, key), Error) for key in KEYS)


def test_after_a_failover(setup):
    """A replica that takes over was never told of the script."""
    cluster, proxy = setup
    text = "return redis.call('INCR', KEYS[1])"
    with Wire(proxy, timeout=30) as wire:
        assert wire("DEL", *KEYS) >= 0
        assert [wire("EVAL" if key == KEYS[0] else "EVALSHA", text if key == KEYS[0] else sha_of(text), 1, key) for key in KEYS] == [1] * 3
        node = next(node for node in primaries(cluster) if node.client.exists(KEYS[0]))
        covey.wait_in_sync(node, *cluster.replicas_of(node))
        node.kill()
        assert wire("EVALSHA", sha_of(text), 1, KEYS[0]) == 2
        assert wire("MULTI") == "OK" and wire("EVALSHA", sha_of(text), 1, KEYS[0]) == "QUEUED" and wire("EXEC") == [3]
        node.start()
        cluster.wait_whole()


def cluster_agrees(one, two):
    infos = [covey.cluster_info(node) for node in (one, two)]
    return all(info["cluster_state"] == "ok" and info["cluster_slots_assigned"] == str(SLOTS) for info in infos)


def test_a_node_that_joins_later(servers):
    cluster = servers.cluster(["covey", "covey"], form=False, timeout=2000)
    one, two = cluster.nodes
    one.cmd("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
    wait_for("the cluster to be ok", lambda: covey.cluster_info(one)["cluster_state"] == "ok")
    proxy = Proxy(servers, [one])
    text = "return redis.call('INCR', KEYS[1])"
    library = "#!lua name=lib\nredis.register_function('f', function(keys) return keys[1] end)"
    with Wire(proxy) as wire:
        assert [wire("EVAL", text, 1, key) for key in KEYS] == [1] * 3
        assert wire("FUNCTION", "LOAD", library) == b"lib"
        one.cmd("CLUSTER", "MEET", "127.0.0.1", two.port)
        wait_for("the nodes to know each other", lambda: cluster_agrees(one, two))
        cluster.cli("reshard", "--cluster-from", one.id, "--cluster-to", two.id, "--cluster-slots", "9000", "--cluster-yes",
                    timeout=120)
        assert two.client.dbsize() > 0
        assert [wire("EVALSHA", sha_of(text), 1, key) for key in KEYS] == [2] * 3
        # Functions are the dataset's: a node gets them with its first full sync, or FUNCTION RESTORE.
        said = [wire("FCALL", "f", 1, key) for key in KEYS]
        assert sorted(map(str, said)).count("ERR Function not found") >= 1
        assert wire("FUNCTION", "RESTORE", wire("FUNCTION", "DUMP"), "REPLACE") == "OK"
        assert [wire("FCALL", "f", 1, key) for key in KEYS] == [key.encode() for key in KEYS]
