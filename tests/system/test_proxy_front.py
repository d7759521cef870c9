"""covey proxy's side of clients: TLS, PROXY headers, more than one listener, both backends in one process, reload, levels of the log."""
import contextlib
import os
import signal
import socket
import ssl
import struct
import subprocess
import time

import pytest
import redis

import covey
import tls
from covey import Node, wait_for

V2 = b"\r\n\r\n\0\r\nQUIT\n"


class Proxy(Node):
    """A running `covey proxy` in front of these nodes; settings are lists where a setting is given more than once."""

    def __init__(self, servers, nodes, listen=None, words=(), wait=True, authority=None, file=None, **settings):
        super().__init__("covey", servers.directory(f"proxy-{len(servers.nodes)}"), tls=authority)
        self.file = file
        self.listen = [f"127.0.0.1:{self.port}"] if listen is None else [one.replace("PORT", str(self.port)) for one in listen]
        self.settings = {"workers": 2, "refresh-period": 1000, **{k.replace("_", "-"): v for k, v in settings.items()}}
        if nodes:
            self.settings["cluster"] = ",".join(node.address for node in nodes)
        servers.nodes.append(self)
        self.start(wait=wait)

    def command(self):
        words = [covey.COVEY_BIN, "proxy"] + ([self.file] if self.file else [])
        for address in self.listen:
            words += ["--listen", address]
        for name, value in self.settings.items():
            for one in value if isinstance(value, list) else [value]:
                words += [f"--{name}", str(one)]
        return words

    def wait_log(self, text, count=1):
        wait_for(f"{text!r} in the log", lambda: self.log_text().count(text.encode()) >= count)

    def reload(self):
        before = self.log_text().count(b"read again") + self.log_text().count(b"stays as it was\n")
        self.signal(signal.SIGHUP)
        wait_for("the reload", lambda: self.log_text().count(b"read again") + self.log_text().count(b"stays as it was\n") > before)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return tls.Authority(str(tmp_path_factory.mktemp("tls")))


@pytest.fixture(scope="module")
def backend(module_servers):
    return module_servers.node("redis")


def ask(s, data, end=b"\r\n"):
    s.sendall(data)
    got = b""
    while not got.endswith(end):
        part = s.recv(65536)
        if not part:
            return got + b"<closed>"
        got += part
    return got


# ---------------------------------------------------------------------------------------------------- TLS

@pytest.mark.sanitizer
def test_tls_for_clients(servers, backend, authority):
    plain = covey.free_port()
    proxy = Proxy(servers, [backend], listen=[f"127.0.0.1:{plain}"], wait=False, authority=authority, **authority.directives)
    proxy.kill()
    proxy.settings["tls-port"] = proxy.port
    proxy.start()
    assert proxy.cmd("SET", "a", "1") and proxy.cmd("GET", "a") == b"1"
    with redis.Redis(port=plain) as other:
        assert other.get("a") == b"1"
    big = os.urandom(20_000_000)
    assert proxy.cmd("SET", "big", big) and proxy.cmd("GET", "big") == big and proxy.cmd("DEL", "big") == 1
    pipe = proxy.client.pipeline(transaction=False)
    for n in range(20_000):
        pipe.echo(f"{n}" * 10)
    assert pipe.execute() == [f"{n}".encode() * 10 for n in range(20_000)]
    for context in (authority.context(certificate=None), ssl._create_unverified_context()):
        with proxy.raw() as s, pytest.raises((ssl.SSLError, OSError)):  # no certificate: refused
            with context.wrap_socket(s) as t:
                assert ask(t, b"PING\r\n") != b"+PONG\r\n"
                raise ssl.SSLError
    proxy.wait_log("is refused: TLS")
    with proxy.raw() as s:  # no TLS at all
        assert b"PONG" not in ask(s, b"PING\r\n")
    assert proxy.cmd("PING")


def test_tls_certificates_are_read_again(servers, backend, authority):
    names = {"cert": os.path.join(servers.base, "p.crt"), "key": os.path.join(servers.base, "p.key")}

    def put(name):
        for kind, path in (("crt", names["cert"]), ("key", names["key"])):
            with open(authority.path(f"{name}.{kind}"), "rb") as source, open(path, "wb") as target:
                target.write(source.read())
    put("server")
    proxy = Proxy(servers, [backend], listen=["127.0.0.1:PORT tls"], authority=authority, tls_cert_file=names["cert"],
                  tls_key_file=names["key"], tls_auth_clients="optional", tls_ca_cert_file=authority.path("ca.crt"))

    def shown():
        with proxy.raw() as s, authority.context(certificate=None).wrap_socket(s) as t:
            assert ask(t, b"PING\r\n") == b"+PONG\r\n"
            return tls.common_name(t)
    assert shown() == "server"
    kept = authority.context().wrap_socket(proxy.raw())
    put("client")
    proxy.reload()
    assert shown() == "client"
    assert ask(kept, b"PING\r\n") == b"+PONG\r\n"  # sessions outlive it
    with open(names["cert"], "w") as file:
        file.write("nonsense")
    proxy.reload()
    assert shown() == "client" and b"stays as it was" in proxy.log_text()
    assert ask(kept, b"PING\r\n") == b"+PONG\r\n"
    kept.close()


@pytest.mark.sanitizer
def test_tls_towards_the_nodes(servers, authority):
    node = servers.node("redis", tls=authority, **authority.directives)
    for directives in (authority.directives, {"tls_client_cert_file": authority.path("client.crt"), "tls_ca_cert_file":
                                              authority.path("ca.crt"), "tls_client_key_file": authority.path("client.key")}):
        proxy = Proxy(servers, [node], backend_tls="yes", **directives)
        values = {f"k{n}": os.urandom(300 * n) for n in range(200)}
        assert proxy.client.mset(values)
        assert proxy.client.mget(list(values)) == list(values.values())
        big = os.urandom(30_000_000)
        for _ in range(3):
            assert proxy.cmd("SET", "big", big) and proxy.cmd("GET", "big") == big
        with proxy.client.pipeline() as pipe:
            pipe.watch("w")
            pipe.multi()
            pipe.incr("w")
            pipe.execute()
        assert proxy.client.blpop("none", timeout=0.1) is None
        assert proxy.terminate() == 0
    other = tls.Authority(os.path.join(servers.base, "other"))  # the node's certificate is not of this authority
    proxy = Proxy(servers, [node], wait=False, backend_tls="yes", failover_hold_timeout=300, **other.directives)
    proxy.wait_log("TLS: ")
    with pytest.raises(redis.ResponseError, match="not available in time"):
        proxy.cmd("GET", "k1")
    proxy.terminate()


def test_tls_towards_a_cluster(servers, authority):
    cluster = servers.cluster(["covey", "redis", "covey"], tls=authority, tls_cluster="yes", tls_replication="yes", **authority.directives)
    proxy = Proxy(servers, cluster.nodes[:1], tls_cluster="yes", **authority.directives)
    values = {f"k{n}": str(n) for n in range(500)}
    assert proxy.client.mset(values)
    assert proxy.client.mget(list(values)) == [v.encode() for v in values.values()]
    assert len({node for node in cluster.nodes if node.cmd("DBSIZE") > 50}) == 3


def test_nodes_without_certificates_of_clients(servers, authority):
    node = servers.node("redis", tls=authority, tls_auth_clients="no", **authority.directives)
    proxy = Proxy(servers, [node], backend_tls="yes", tls_ca_cert_file=authority.path("ca.crt"))
    assert proxy.cmd("SET", "a", "1") and proxy.cmd("GET", "a") == b"1"


def test_tls_settings_that_cannot_be(servers, backend, authority):
    words = [covey.COVEY_BIN, "proxy", "--cluster", backend.address, "--listen", f"127.0.0.1:{covey.free_port()} tls"]
    for more in ([], ["--tls-cert-file", "/none", "--tls-key-file", "/none", "--tls-ca-cert-file", authority.path("ca.crt")]):
        done = subprocess.run(words + more, capture_output=True, text=True, timeout=20)
        assert done.returncode == 1 and "TLS: " in done.stdout, done


# ---------------------------------------------------------------------------------------------------- PROXY headers

def v2(source, port=1, command=1, tlv=b""):
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    any_address = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    body = socket.inet_pton(family, source) + socket.inet_pton(family, any_address) + struct.pack(">HH", port, 6379) + tlv
    return V2 + bytes([0x20 | command, 0x21 if family == socket.AF_INET6 else 0x11]) + struct.pack(">H", len(body)) + body


def address_seen(s):
    text = ask(s, b"CLIENT INFO\r\n", b"\r\n")
    return dict(word.split("=", 1) for word in text.decode().split("\r\n")[1].split(" "))["addr"]


HEADERS = [(b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 6379\r\n", "192.0.2.7:4711"), (b"PROXY TCP6 2001:db8::5 ::1 99 6379\r\n", "[2001:db8::5]:99"),
           (b"PROXY UNKNOWN\r\n", None), (v2("198.51.100.9", 77), "198.51.100.9:77"), (v2("2001:db8::9", 78), "[2001:db8::9]:78"),
           (v2("198.51.100.9", 77, tlv=b"\x02\0\x04host" + b"\x04\0\xff" + b"x" * 255 + b"y" * 3000), "198.51.100.9:77"), (v2("198.51.100.9", command=0), None),
           (V2 + b"\x21\x31" + struct.pack(">H", 216) + b"/run/x".ljust(108, b"\0") + b"/run/y".ljust(108, b"\0"), "/run/x:0")]


@pytest.fixture(scope="module")
def behind(module_servers, backend, authority):
    """A proxy that expects headers, also in front of TLS."""
    tls_port = covey.free_port()
    proxy = Proxy(module_servers, [backend], listen=["127.0.0.1:PORT accept-proxy", f"127.0.0.1:{tls_port} tls accept-proxy"], wait=False,
                  proxy_header_timeout=400, **authority.directives)
    proxy.tls_port = tls_port
    wait_for("the proxy to listen", lambda: proxy.raw().close() is None)
    return proxy


@pytest.mark.parametrize("header,address", HEADERS)
def test_header_names_the_client(behind, authority, header, address):
    for piece in (len(header), 1, 7):
        with behind.raw() as s:
            own = "%s:%d" % s.getsockname()
            for at in range(0, len(header), piece):
                s.sendall(header[at:at + piece])
                if piece < 10 and len(header) < 100:
                    time.sleep(0.001)
            assert address_seen(s) == (address or own)
    with behind.raw() as s:  # the request comes with the header
        assert ask(s, header + b"*1\r\n$4\r\nPING\r\nPING\r\n", b"+PONG\r\n+PONG\r\n") == b"+PONG\r\n+PONG\r\n"
    with socket.create_connection(("127.0.0.1", behind.tls_port), timeout=10) as s:
        own = "%s:%d" % s.getsockname()
        s.sendall(header)
        with authority.context().wrap_socket(s) as t:
            assert address_seen(t) == (address or own)


@pytest.mark.sanitizer
@pytest.mark.parametrize("bad", [b"PING\r\n", b"PROXY TCP4 1.2.3.4\r\n", b"PROXY TCP4 999.1.1.1 1.1.1.1 1 1\r\n", V2 + b"\x41\x11\0\0", V2 + b"\x21\x11\0\x03abc",
                                 b"PROXY UNKNOWN " + b"x" * 200, b"*1\r\n$4\r\nPING\r\n", b"\x16\x03\x01\x02\0\x01\0"])
def test_what_is_no_header_is_hung_up_on(behind, bad):
    before = behind.log_text().count(b"is refused: PROXY header")
    with behind.raw() as s:
        with contextlib.suppress(ConnectionError):
            assert ask(s, bad) == b"<closed>"
    wait_for("a line in the log", lambda: behind.log_text().count(b"is refused: PROXY header") > before)


def test_a_header_has_to_come_in_time(behind):
    for begin in (b"", b"PROXY TC", V2[:5]):
        with behind.raw() as s:
            started = time.monotonic()
            if begin:
                s.sendall(begin)
            with contextlib.suppress(ConnectionError):
                assert s.recv(10) == b""
            assert 0.3 < time.monotonic() - started < 3 * covey.PATIENCE
    behind.wait_log("PROXY header: it was not there in time", 3)


@pytest.mark.sanitizer
def test_headers_from_those_who_may_send_them(servers, backend):
    proxy = Proxy(servers, [backend], accept_proxy="yes", accept_proxy_from="10.0.0.0/8,127.0.0.2")
    with proxy.raw() as s:  # a client without header, from elsewhere
        assert address_seen(s) == "%s:%d" % s.getsockname()
    with proxy.raw() as s:
        assert ask(s, HEADERS[0][0]).startswith(b"-ERR")
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10, source_address=("127.0.0.2", 0)) as s:
        s.sendall(HEADERS[0][0])
        assert address_seen(s) == HEADERS[0][1]
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10, source_address=("127.0.0.2", 0)) as s:
        with contextlib.suppress(ConnectionError):
            assert ask(s, b"PING\r\n").endswith(b"<closed>")


def test_limits_by_address_see_the_clients(servers, backend):
    proxy = Proxy(servers, [backend], wait=False, accept_proxy="yes", address_rate_limit="5:5", rate_limit_mode="error")
    wait_for("the proxy to listen", lambda: proxy.raw().close() is None)

    def pongs(source):
        with proxy.raw() as s:
            s.sendall(v2(source) + b"PING\r\n" * 20)
            got = b""
            while got.count(b"\r\n") < 20:
                got += s.recv(65536)
            return got.count(b"+PONG")
    assert pongs("192.0.2.44") >= 5
    assert pongs("192.0.2.44") < 5 <= pongs("192.0.2.45")


# ---------------------------------------------------------------------------------------------------- listeners, reload, the log

def test_several_listeners_and_a_socket(servers, backend):
    path = os.path.join(servers.base, "proxy.sock")
    second = covey.free_port()
    proxy = Proxy(servers, [backend], listen=["127.0.0.1:PORT", f"127.0.0.1:{second}", f"{path} 0640"])
    proxy.cmd("SET", "a", "1")
    with redis.Redis(port=second) as other, redis.Redis(unix_socket_path=path) as local:
        assert other.get("a") == local.get("a") == b"1"
        assert local.execute_command("CLIENT", "INFO").decode().split("addr=")[1].startswith(path)
    assert os.stat(path).st_mode & 0o777 == 0o640
    assert proxy.terminate() == 0 and not os.path.exists(path)


@pytest.mark.sanitizer
def test_reload(servers, backend):
    file = os.path.join(servers.base, "proxy.conf")
    new_port = covey.free_port()
    log = os.path.join(servers.base, "proxy.log")

    def write(text):
        with open(file, "w") as f:
            f.write(text)
    write(f"cluster {backend.address}\nmaxclients 100\nlogfile {log}\n")
    proxy = Proxy(servers, None, file=file)
    proxy.log = log
    kept, pinned, subscriber = proxy.raw(), proxy.raw(), proxy.raw()
    assert ask(kept, b"SET a 1\r\n") == b"+OK\r\n"
    assert ask(pinned, b"WATCH a\r\n") == b"+OK\r\n" and ask(pinned, b"MULTI\r\n") == b"+OK\r\n"
    assert ask(subscriber, b"SUBSCRIBE c\r\n", b":1\r\n")
    os.rename(log, log + ".1")
    write(f"cluster {backend.address}\nmaxclients 7\nlogfile {log}\npidfile {file}.pid\nlisten 127.0.0.1:{new_port}\n")
    proxy.signal(signal.SIGHUP)
    proxy.wait_log("The settings are read again")
    with open(log + ".1") as f:
        text = f.read()
    assert "pidfile stays as it was" in text
    assert proxy.config_get("maxclients") == "7" and proxy.config_get("pidfile") == ""
    with redis.Redis(port=new_port) as other:
        assert other.get("a") == b"1"
    assert ask(kept, b"GET a\r\n", b"1\r\n") == b"$1\r\n1\r\n"
    assert ask(pinned, b"GET a\r\nEXEC\r\n", b"1\r\n") == b"+QUEUED\r\n*1\r\n$1\r\n1\r\n"
    assert proxy.cmd("PUBLISH", "c", "hello") == 1 and b"hello" in ask(subscriber, b"", b"hello\r\n")
    write("bogus 1\n")
    proxy.reload()
    assert b"bogus: no such setting" in proxy.log_text() and proxy.cmd("GET", "a") == b"1"
    write(f"cluster {backend.address}\nlogfile {log}\n")
    proxy.reload()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", new_port)).close()
    for s in (kept, pinned, subscriber):
        s.close()


def test_reload_of_the_password(servers, backend):
    file = os.path.join(servers.base, "proxy.conf")

    def write(password):
        with open(file, "w") as f:
            f.write(f"cluster {backend.address}\nrequirepass {password}\n")
    write("one")
    proxy = Proxy(servers, None, file=file, wait=False)
    wait_for("the proxy", lambda: proxy.new_client(password="one").ping())
    with proxy.raw() as kept:
        assert ask(kept, b"AUTH one\r\n") == b"+OK\r\n"
        for password, old in (("two", "one"), ("three", "two")):
            write(password)
            proxy.reload()
            with pytest.raises(redis.RedisError, match="WRONGPASS"):
                proxy.new_client(password=old).ping()
            assert proxy.new_client(password=password).ping()
            assert ask(kept, b"PING\r\n") == b"+PONG\r\n"
        write('""')
        proxy.reload()
        assert proxy.new_client().ping()


def test_a_reload_that_cannot_listen_changes_nothing(servers, backend):
    file = os.path.join(servers.base, "proxy.conf")
    with open(file, "w") as f:
        f.write(f"cluster {backend.address}\nmaxclients 100\n")
    proxy = Proxy(servers, None, file=file)
    with open(file, "w") as f:
        f.write(f"cluster {backend.address}\nmaxclients 50\nlisten {backend.address}\n")
    proxy.reload()
    assert b"Cannot listen on" in proxy.log_text() and proxy.config_get("maxclients") == "100"


def test_levels_of_the_log(servers, backend):
    proxy = Proxy(servers, [backend], loglevel="warning")
    assert b"Ready to accept" not in proxy.log_text()
    assert proxy.config_get("loglevel") == "warning"
    proxy.signal(signal.SIGTTIN)
    proxy.wait_log("level is 5 now")
    for _ in range(10):
        proxy.signal(signal.SIGTTOU)
        time.sleep(0.02)
    proxy.wait_log("level is 0 now")


def test_pidfile_and_background(servers, backend):
    pidfile, log, port = os.path.join(servers.base, "pid"), os.path.join(servers.base, "log"), covey.free_port()
    done = subprocess.run([covey.COVEY_BIN, "proxy", "--cluster", backend.address, "--listen", f"127.0.0.1:{port}", "--daemonize", "yes", "--pidfile", pidfile,
                           "--logfile", log], timeout=20)
    assert done.returncode == 0
    pid = int(wait_for("the pid file", lambda: open(pidfile).read().strip()))
    try:
        with redis.Redis(port=port) as client:
            wait_for("the proxy", client.ping)
        assert os.getsid(pid) != os.getsid(0)
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_for("its end", lambda: not os.path.exists(pidfile) and not os.path.exists(f"/proc/{pid}"))
    with open(log) as f:
        assert "Stopping" in f.read()


@pytest.mark.sanitizer
def test_a_cluster_and_pools_in_one_process(servers, backend):
    other, conf, pool_port = servers.node("redis"), os.path.join(servers.base, "pools.yml"), covey.free_port()
    with open(conf, "w") as f:
        f.write(f"alpha:\n  listen: 127.0.0.1:{pool_port}\n  hash: md5\n  redis: true\n  servers:\n   - {other.address}:1\n")
    stats = covey.free_port()
    proxy = Proxy(servers, [backend], pool=conf, stats_port=stats, stats_addr="127.0.0.1")
    with redis.Redis(port=pool_port) as pool:
        assert proxy.cmd("SET", "where", "cluster") and pool.set("where", "pool")
        assert proxy.cmd("GET", "where") == b"cluster" and pool.get("where") == b"pool"
    assert backend.cmd("GET", "where") == b"cluster" and other.cmd("GET", "where") == b"pool"
    with socket.create_connection(("127.0.0.1", stats), timeout=10) as s:
        assert b'"alpha": {' in s.makefile("rb").read()


def test_tls_of_pools(servers, authority):
    node, conf, pool_port = servers.node("redis", tls=authority, **authority.directives), os.path.join(servers.base, "pools.yml"), covey.free_port()
    with open(conf, "w") as f:
        f.write(f"alpha:\n  listen: 127.0.0.1:{pool_port}\n  hash: md5\n  redis: true\n  servers:\n   - {node.address}:1\n")
    words = []
    for name, value in authority.directives.items():
        words += [f"--{name.replace('_', '-')}", value]
    process = subprocess.Popen([covey.COVEY_BIN, "proxy", "--pool", conf, "--backend-tls", "yes", "--pool-tls", "yes", "--stats-port", str(covey.free_port()), "-a",
                                "127.0.0.1", *words], preexec_fn=covey.die_with_parent, stdout=subprocess.DEVNULL)
    try:
        client = redis.Redis(port=pool_port, **authority.client_options)
        wait_for("the pool", client.ping)
        values = {f"k{n}": os.urandom(500 * n) for n in range(200)}
        assert client.mset(values) and client.mget(list(values)) == list(values.values())
        big = os.urandom(20_000_000)
        assert client.set("big", big) and client.get("big") == big
        client.close()
    finally:
        process.terminate()
        assert process.wait(20) == 0


# ---------------------------------------------------------------------------------------------------- CLIENT LIST, CLIENT KILL

def test_clients_are_listed_and_killed(servers, backend):
    proxy = Proxy(servers, [backend], workers=3)
    admin = proxy.client
    with contextlib.ExitStack() as stack:
        some = [stack.enter_context(proxy.raw()) for _ in range(12)]
        for n, s in enumerate(some):
            assert ask(s, b"CLIENT SETNAME c%d\r\n" % n) == b"+OK\r\n"
        assert ask(some[0], b"SUBSCRIBE news\r\n", b":1\r\n")
        some[1].sendall(b"BLPOP nothing 0\r\n")
        assert ask(some[2], b"MULTI\r\nGET a\r\n", b"+QUEUED\r\n")
        wait_for("the blocked one", lambda: any(c["flags"] == "b" for c in admin.client_list()))
        listed = {c["name"]: c for c in admin.client_list()}
        assert len(listed) == 13 and len({c["id"] for c in listed.values()}) == 13
        assert {c["addr"] for c in listed.values()} >= {"%s:%d" % s.getsockname() for s in some}
        assert all(c["laddr"] == proxy.address and c["user"] == "default" and int(c["age"]) < 100 for c in listed.values())
        assert listed["c0"]["flags"] == "P" and listed["c0"]["sub"] == "1" and listed["c2"]["multi"] == "1" and listed["c2"]["flags"] == "x"
        assert listed["c1"]["cmd"] == "blpop" and listed["c3"]["cmd"] == "client|setname" and listed[""]["cmd"] == "client|list"
        assert [c["name"] for c in admin.client_list(_type="pubsub")] == ["c0"] and admin.client_list(_type="replica") == []
        assert {c["name"] for c in admin.execute_command("CLIENT LIST", "ID", listed["c4"]["id"], listed["c5"]["id"], 9999)} == {"c4", "c5"}
        for words, text in ((("LIST", "TYPE", "nope"), "Unknown client type 'nope'"), (("LIST", "ID", "x"), "Invalid client ID"), (("LIST", "x"), "syntax error"),
                            (("KILL", "1.2.3.4:5"), "No such client"), (("KILL", "ID", "x"), "client-id should be greater than 0"),
                            (("KILL", "ID", "9", "x"), "syntax error"), (("KILL", "USER", "nobody"), "No such user 'nobody'")):
            with pytest.raises(redis.ResponseError, match=text):
                admin.execute_command("CLIENT", *words)
        assert admin.execute_command("CLIENT", "KILL", listed["c4"]["addr"]) in (True, b"OK") and some[4].recv(10) == b""
        assert admin.client_kill_filter(_id=listed["c5"]["id"]) == 1 and some[5].recv(10) == b""
        assert admin.client_kill_filter(_id=9999) == 0
        assert admin.client_kill_filter(_type="pubsub") == 1 and some[0].recv(10) == b""
        assert admin.client_kill_filter(_id=listed["c1"]["id"]) == 1 and some[1].recv(10) == b""
        assert ask(some[3], b"CLIENT KILL SKIPME no ADDR %s:%d\r\n" % (some[3].getsockname()[0].encode(), some[3].getsockname()[1])) == b":1\r\n"
        assert some[3].recv(10) == b""
        assert admin.client_kill_filter(laddr=proxy.address) == 7
        assert len(admin.client_list()) == 1
        assert all(s.recv(10) == b"" for s in some[6:])


@pytest.mark.sanitizer
def test_callers_that_leave_before_the_list_is_there(servers, backend):
    proxy = Proxy(servers, [backend], workers=4)
    for _ in range(300):
        with proxy.raw() as s:
            s.sendall(b"CLIENT LIST\r\nCLIENT KILL ID 99999\r\nCLIENT LIST\r\n")
    assert len(proxy.client.client_list()) >= 1


# ---------------------------------------------------------------------------------------------------- timeout

@pytest.mark.sanitizer
def test_silent_clients_are_closed(servers, backend):
    proxy = Proxy(servers, [backend], timeout=1)
    assert proxy.config_get("timeout") == "1" and proxy.config_get("tcp-keepalive") == "300"
    silent, blocked, subscriber, busy = (proxy.raw() for _ in range(4))
    blocked.sendall(b"BLPOP nothing 0\r\n")
    assert ask(subscriber, b"SUBSCRIBE news\r\n", b":1\r\n") and ask(silent, b"PING\r\n")
    started = time.monotonic()
    while time.monotonic() - started < 2:
        assert ask(busy, b"PING\r\n") == b"+PONG\r\n"
        time.sleep(0.1)
    assert silent.recv(10) == b""
    busy.sendall(b"PUBLISH news hello\r\n")
    assert ask(subscriber, b"", b"hello\r\n")
    backend.cmd("RPUSH", "nothing", "x")
    assert ask(blocked, b"", b"x\r\n")
    for s in (silent, blocked, subscriber, busy):
        s.close()


def test_a_pipeline_that_is_written_before_it_is_read(servers, backend):
    """Both directions are larger than all buffers: a client that writes everything first must not wait for ever."""
    proxy = Proxy(servers, [backend])
    big = os.urandom(10_000_000)
    pipe = proxy.new_client(socket_timeout=30 * covey.PATIENCE).pipeline(transaction=False)
    for _ in range(8):
        pipe.set("big", big)
        pipe.get("big")
    assert pipe.execute() == [True, big] * 8
