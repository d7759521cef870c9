"""covey proxy: CONFIG SET and REWRITE of its own settings."""
import os
import threading

import pytest
import redis

import covey
from covey import wait_for
from proxying import Proxy
from wire import Wire

if covey.COVEY_IS_REDIS:
    pytest.skip("the proxy is Covey's", allow_module_level=True)

FAILED = "ERR CONFIG SET failed (possibly related to argument '{}') - {}"


class FromFile(Proxy):
    """A proxy whose settings are in a file, but for where it listens and its nodes."""

    def command(self):
        self.file = os.path.join(self.dir, "proxy.conf")
        if not os.path.exists(self.file):
            with open(self.file, "w") as file:
                file.write("# mine\n\ntimeout 9\n  Timeout 8\nslowlog-max-len 5\ntls-ciphersuites \"a b\"\n")
            os.chmod(self.file, 0o640)
        words = super().command()
        return [words[0], "proxy", self.file, *words[2:]]


@pytest.fixture(scope="module")
def node(module_servers):
    return module_servers.node("covey")


@pytest.fixture(params=[1, 3])
def proxy(request, servers, node):
    return Proxy(servers, [node], workers=request.param)


def test_what_is_set_holds_for_everybody(proxy):
    with Wire(proxy) as wire, Wire(proxy) as other:
        assert wire("CONFIG", "SET", "maxclients", 3, "slowlog-max-len", 7) == "OK"
        for each in (wire, other):
            assert each("CONFIG", "GET", "maxclients") == [b"maxclients", b"3"]
            assert each("CONFIG", "GET", "slowlog-max-len") == [b"slowlog-max-len", b"7"]
        with Wire(proxy):
            assert Wire(proxy).id == "ERR max number of clients reached"
            assert wire("CONFIG", "SET", "MaxClients", 100) == "OK"
            with Wire(proxy) as fourth:
                assert fourth.id > 0
        assert wire("CONFIG", "SET", "client-query-buffer-limit", "2mb", "unknown-fate", "close", "loglevel", "verbose") == "OK"
        assert other("CONFIG", "GET", "client-query-buffer-limit") == [b"client-query-buffer-limit", b"2097152"]
        assert other("CONFIG", "GET", "unknown-fate") == [b"unknown-fate", b"close"]
        assert wire("CONFIG", "SET", "address-rate-limit", "5:1", "rate-limit-mode", "error") == "OK"
        assert any("rate limit" in str(other("PING")) for _ in range(10))


def test_words_of_redis(servers, proxy):
    oracle = servers.node("redis")
    with Wire(proxy) as wire, Wire(oracle) as redis_server:
        for words in (["maxclients", "abc"], ["timeout", "1", "timeout", "2"], ["nosuch", "1"], ["nosuch"], ["timeout", "1", "x"],
                      ["proto-max-bulk-len", "1zz"], ["loglevel", "loud"], ["daemonize", "yes"], ["pidfile", "x"],
                      ["timeout", "1", "nosuch", "2"]):
            assert wire("CONFIG", "SET", *words) == redis_server("CONFIG", "SET", *words), words
        for name, value, why in (("failover-hold-timeout", -1, "argument must be between 0 and 2147483647 inclusive"),
                                 ("backend-tls", "perhaps", "argument must be 'yes' or 'no'"),
                                 ("unknown-fate", "x", "argument(s) must be one of the following: error, close"),
                                 ("cluster", "", "Invalid argument"), ("workers", 2, "can't set immutable config"),
                                 ("listen", "127.0.0.1:1", "can't set immutable config"), ("logfile", "a\nb", "Invalid argument")):
            assert wire("CONFIG", "SET", name, value) == FAILED.format(name, why)
        # all or nothing
        assert wire("CONFIG", "SET", "timeout", 77, "maxclients", "x") == FAILED.format("maxclients", "argument couldn't be parsed into an integer")
        assert wire("CONFIG", "GET", "timeout") == [b"timeout", b"0"]
        assert wire("CONFIG", "REWRITE") == redis_server("CONFIG", "REWRITE") == "ERR The server is running without a config file"
        assert wire("MULTI") == "OK" and wire("CONFIG", "SET", "timeout", 1).startswith("ERR") and wire("DISCARD") == "OK"


def test_in_a_pipeline_and_from_many(proxy):
    with Wire(proxy) as wire:
        for n in range(50):
            wire.send("CONFIG", "SET", "slowlog-max-len", n)
            wire.send("CONFIG", "GET", "slowlog-max-len")
            wire.send("SET", "k", n)
        for n in range(50):
            assert wire.many(3) == ["OK", [b"slowlog-max-len", b"%d" % n], "OK"]

    def work():
        for n in range(50):
            with Wire(proxy) as wire:
                wire.send("CONFIG", "SET", "slowlog-max-len", n)
                if n % 2:  # the others are gone before the answer is there
                    assert wire.read() == "OK"

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Wire(proxy) as wire:
        assert wire("PING") == "PONG"


def test_rewrite(servers, node):
    proxy = FromFile(servers, [node])
    with Wire(proxy) as wire:
        assert wire("CONFIG", "GET", "timeout") == [b"timeout", b"8"] and wire("CONFIG", "REWRITE") == "OK"
        assert open(proxy.file).read() == "# mine\n\ntimeout 9\n  Timeout 8\nslowlog-max-len 5\ntls-ciphersuites \"a b\"\n"
        odd = 'x "y" \\ ü'
        assert wire("CONFIG", "SET", "timeout", 77, "maxclients", 50, "tls-ciphers", odd, "client-output-buffer-limit", "pubsub 1mb 0 0") == "OK"
        assert wire("CONFIG", "REWRITE") == "OK"
        text = open(proxy.file).read()
        assert text.startswith("# mine\n\ntimeout \"77\"\nslowlog-max-len 5\ntls-ciphersuites \"a b\"\n") and "maxclients \"50\"\n" in text
        assert os.stat(proxy.file).st_mode & 0o777 == 0o640
    assert [name for name in os.listdir(proxy.dir) if "conf" in name] == ["proxy.conf"]
    proxy.terminate()
    proxy.start()
    with Wire(proxy) as wire:
        assert wire("CONFIG", "GET", "timeout") == [b"timeout", b"77"] and wire("CONFIG", "GET", "maxclients") == [b"maxclients", b"50"]
        assert wire("CONFIG", "GET", "tls-ciphers") == [b"tls-ciphers", odd.encode()]
        assert wire("CONFIG", "SET", "timeout", 5) == "OK"
        # what the file says holds again when it is read again
        proxy.signal(1)
        wait_for("the reload", lambda: wire("CONFIG", "GET", "timeout") == [b"timeout", b"77"])


def test_the_proxy_of_a_node_has_the_nodes_settings(servers):
    port = covey.free_port()
    node = servers.node("covey", proxy_port=port)
    client = redis.Redis(port=port)
    wait_for("the proxy", lambda: client.ping())
    with pytest.raises(redis.ResponseError, match="the settings of this port are the node's"):
        client.config_set("timeout", 5)
    client.close()
    assert node.alive()
