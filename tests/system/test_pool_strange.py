"""Static pools in front of a server that misbehaves: only its own keys suffer, every request gets a reply, and all is well when it
has come to its senses."""
import threading

import pytest

import covey
from covey import wait_for
from test_pool_proxy import PoolProxy, pool, request
from test_proxy_input import STRANGE, HalfACluster

SOUND = {True: lambda connection, data: connection.sendall(b"$4\r\nfine\r\n" * data.count(b"GET")),
         False: lambda connection, data: connection.sendall(b"VALUE k 0 4\r\nfine\r\nEND\r\n" * data.count(b"get "))}
REPLY = {True: b"$4\r\nfine\r\n", False: b"VALUE k 0 4\r\nfine\r\nEND\r\n"}
KINDS = dict(STRANGE) | {"says lines": lambda connection, data: connection.sendall(b"VALUE k 0\r\nSTORED\r\nfoo\r\n"),
                         "cuts a block": lambda connection, data: (connection.sendall(b"VALUE k 0 10\r\nabc"), connection.close())}


def exchange(s, redis, key):
    """One get; returns the reply, complete."""
    s.sendall(request("GET", key) if redis else b"get %s\r\n" % key.encode())
    got = b""
    while not (got == REPLY[redis] or (got.endswith(b"\r\n") and got.startswith((b"-", b"+", b":", b">", b"SERVER_ERROR", b"ERROR", b"CLIENT_ERROR", b"END", b"STORED")))
               or got.startswith((b"$5\r\nvalue\r\n", b"*"))):
        part = s.recv(1 << 20)
        if not part:
            raise covey.TestFailure(f"no reply: {got[:100]}")
        got += part
    return got


@pytest.fixture(scope="module")
def setup(module_servers, tmp_path_factory):
    ports = []
    strange, sound = (HalfACluster(module_servers, ports) for _ in range(2))
    servers = "".join(f"   - 127.0.0.1:{port}:1 {name}\n" for port, name in zip(ports, ("strange", "sound")))
    p = PoolProxy(str(tmp_path_factory.mktemp("strange")), {
        "r": f"  hash: md5\n  redis: true\n  timeout: 300\n  servers:\n{servers}", "m": f"  hash: md5\n  timeout: 300\n  servers:\n{servers}"})
    yield strange, sound, p
    assert p.close() == 0 and "Sanitizer" not in p.log_text()


def keys_of(p, name, redis, strange, sound):
    """A key of each."""
    strange.answer = lambda connection, data: connection.sendall(b"-ERR strange\r\n" if redis else b"SERVER_ERROR strange\r\n")
    sound.answer = SOUND[redis]
    with p.connect(name) as s:
        replies = {f"k{n}": exchange(s, redis, f"k{n}") for n in range(40)}
    return next(k for k, r in replies.items() if b"strange" in r), next(k for k, r in replies.items() if r == REPLY[redis])


@pytest.mark.parametrize("redis", [True, False], ids=["redis", "memcached"])
@pytest.mark.parametrize("how", KINDS)
def test_a_strange_server_harms_only_its_own_keys(setup, how, redis):
    strange, sound, p = setup
    name = "r" if redis else "m"
    mine, other = keys_of(p, name, redis, strange, sound)
    strange.answer = KINDS[how]
    said, stop = [], threading.Event()

    def suffer():
        with p.connect(name) as s:
            s.settimeout(20)
            while not stop.is_set():
                said.append(exchange(s, redis, mine))
                if said[-1].startswith(b"*"):  # a reply for all it is worth, and nothing that this client could go on behind
                    return
    threads = [threading.Thread(target=suffer) for _ in range(3)]
    for thread in threads:
        thread.start()
    with p.connect(name) as s:
        def ask():
            assert exchange(s, redis, other) == REPLY[redis]
        slow = covey.slowness(ask, 0.25)
    stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a request has got no reply"
    assert said, "nobody got a reply"
    assert slow < 0.25 * covey.PATIENCE, f"a request for the other server took {slow:.2f} s"
    strange.answer = SOUND[redis]

    def well():
        with p.connect(name) as s:
            return exchange(s, redis, mine) == exchange(s, redis, other) == REPLY[redis]
    wait_for("the server to be used again", well)
