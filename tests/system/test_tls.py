"""TLS: clients, replication and the cluster bus, alone and beside redis-server."""
import os
import random
import socket
import ssl
import threading
import time

import pytest
import redis

import covey
from covey import Writer, assert_same_data, cluster_nodes, dataset, fill_all_types, free_port, populate, wait_for, wait_in_sync
from tls import Authority, common_name

LONG = covey.LONG
both_ways = pytest.mark.parametrize("primary_kind,replica_kind", [("covey", "redis"), ("redis", "covey"), ("covey", "covey")])


@pytest.fixture(scope="module")
def authority(module_servers):
    return Authority(module_servers.directory("certificates"))


def tls_node(servers, authority, kind="covey", **directives):
    return servers.node(kind, tls=authority, **{**authority.directives, **directives})


def secured(node, authority, certificate="client", context=None, timeout=10):
    """A TLS socket to the node, PING answered (TLS 1.3 tells only then that a certificate was refused)."""
    raw = socket.create_connection((node.host, node.port), timeout=timeout * covey.PATIENCE)
    wrapped = (context or authority.context(certificate)).wrap_socket(raw)
    wrapped.sendall(b"PING\r\n")
    assert wrapped.recv(7) == b"+PONG\r\n"
    return wrapped


def refused(node, authority, **options):
    with pytest.raises((ssl.SSLError, OSError, AssertionError)):
        secured(node, authority, **options)


# ---------------------------------------------------------------------------------------------------- clients

@pytest.mark.sanitizer
def test_redis_cli_and_redis_py(servers, authority):
    node = tls_node(servers, authority)
    assert node.cli("SET", "a", "1") == "OK\n"
    assert node.cmd("GET", "a") == b"1"
    assert node.cli("DEBUG", "SLEEP", "0") == "OK\n"
    assert node.stat("tcp_port", "server") == node.port
    line = node.client.client_list()[0]
    assert line["laddr"].endswith(str(node.port)) and line["flags"] == "N"
    client = node.client.client()  # transactions, RESP3, QUIT
    assert client.transaction(lambda pipe: pipe.set("b", 2)) == [True]
    with secured(node, authority) as wrapped:
        wrapped.sendall(b"HELLO 3\r\nQUIT\r\n")
        got = b""
        while chunk := wrapped.recv(4096):  # ends with close_notify: a plain end would be an error
            got += chunk
        assert got.startswith(b"%7\r\n") and got.endswith(b"+OK\r\n")


@pytest.mark.sanitizer
def test_large_values_and_pipelines(servers, authority):
    node = tls_node(servers, authority)
    size = (8 if covey.SANITIZED else 64) << 20
    value = random.Random(1).randbytes(size)
    assert node.cmd("SET", "big", value)
    assert node.cmd("GET", "big") == value
    assert node.cmd("STRLEN", "big") == size
    pipe = node.client.pipeline(transaction=False)
    for n in range(20_000):
        pipe.set(f"k{n}", b"x" * (n % 700))
        pipe.get(f"k{n}")
    replies = pipe.execute()
    assert replies[::2] == [True] * 20_000
    assert replies[1::2] == [b"x" * (n % 700) for n in range(20_000)]


def test_pipeline_that_is_not_read_meanwhile(servers, authority):
    """Both directions full at once: what the server has encrypted and cannot send waits, and nothing is mixed up."""
    node = tls_node(servers, authority)
    node.cmd("SET", "big", b"0123456789abcdef" * 65536)
    with secured(node, authority) as wrapped:
        wrapped.sendall(b"GET big\r\n" * 32)
        time.sleep(0.5)
        want = (b"$1048576\r\n" + b"0123456789abcdef" * 65536 + b"\r\n") * 32
        got = bytearray()
        while len(got) < len(want):
            chunk = wrapped.recv(100_000)
            assert chunk
            got += chunk
        assert got == want


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_records_of_any_size(servers, authority, step):
    """A request in many records, many requests in one record, and more in one record than is read at a time."""
    node = tls_node(servers, authority)
    with secured(node, authority) as wrapped:
        requests = b"".join(b"*2\r\n$4\r\nECHO\r\n$%d\r\n%s\r\n" % (n, b"e" * n) for n in range(1, 60))
        for at in range(0, len(requests), step):
            wrapped.sendall(requests[at:at + step])
        want = b"".join(b"$%d\r\n%s\r\n" % (n, b"e" * n) for n in range(1, 60))
        got = b""
        while len(got) < len(want):
            got += wrapped.recv(4096)
        assert got == want


def test_plain_and_tls_ports_at_once(servers, authority):
    plain = free_port()
    node = tls_node(servers, authority, port=None, **{"tls_auth_clients": "no"})
    assert node.cmd("CONFIG", "SET", "port", plain)
    with socket.create_connection(("127.0.0.1", plain), timeout=5) as raw:
        raw.sendall(b"SET over plain\r\n")
        assert raw.recv(100) == b"+OK\r\n"
    assert node.cmd("GET", "over") == b"plain"


@pytest.mark.sanitizer
def test_hostile_clients_disturb_nobody(servers, authority):
    node = tls_node(servers, authority, workers=1)
    plain = free_port()
    assert node.cmd("CONFIG", "SET", "port", plain)
    rng = random.Random(7)
    hello = authority.context().wrap_bio(ssl.MemoryBIO(), out := ssl.MemoryBIO())
    with pytest.raises(ssl.SSLWantReadError):
        hello.do_handshake()
    hello = out.read()
    silent = [socket.create_connection((node.host, node.port)) for _ in range(20)]
    good = node.new_client()
    for n in range(60):
        with socket.create_connection((node.host, node.port), timeout=10) as raw:
            raw.sendall([b"PING\r\n", b"GET / HTTP/1.1\r\n\r\n", rng.randbytes(3000), b"\x16\x03\x01\xff\xff" + bytes(70000),
                         hello[:rng.randrange(len(hello))], hello + rng.randbytes(100)][n % 6])
            if n % 6 < 4:
                raw.settimeout(10 * covey.PATIENCE)
                try:
                    while raw.recv(1000):
                        pass
                except ConnectionError:
                    pass
        assert good.ping()
    with socket.create_connection(("127.0.0.1", plain), timeout=10) as raw:  # TLS to the plain port
        raw.sendall(hello)
        raw.settimeout(2)
        try:
            got = raw.recv(1000)
        except (ConnectionError, socket.timeout):
            got = b""
        assert got in (b"",) or got.startswith(b"-ERR")
    assert good.ping()
    # who says nothing is sent away after ten seconds, and not before five
    began = time.monotonic()
    silent[0].settimeout(20 * covey.PATIENCE)
    assert silent[0].recv(10) == b""
    assert time.monotonic() - began > 2
    for raw in silent:
        raw.close()
    assert good.ping()


@pytest.mark.sanitizer
def test_many_connections_some_die_in_the_handshake(servers, authority):
    node = tls_node(servers, authority)
    count = 60 if covey.SANITIZED else 200
    failures = []

    def visit(n):
        try:
            if n % 4 == 3:
                bio = ssl.MemoryBIO()
                try:
                    authority.context().wrap_bio(ssl.MemoryBIO(), bio).do_handshake()
                except ssl.SSLWantReadError:
                    pass
                with socket.create_connection((node.host, node.port), timeout=60) as raw:
                    hello = bio.read()
                    raw.sendall(hello if n % 8 == 3 else hello[:50])
                    if n % 8 == 3:
                        raw.recv(100)
                return
            client = node.new_client(socket_timeout=60)
            for k in range(20):
                client.set(f"v{n}", "x" * 1000 * k)
                assert client.get(f"v{n}") == b"x" * 1000 * k
            client.close()
        except Exception as error:  # told by the test's own thread
            failures.append((n, repr(error)))

    threads = [threading.Thread(target=visit, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures, failures[:5]
    wait_for("dead connections to be gone", lambda: node.stat("connected_clients") == 1, 20)


def test_slow_handshake(servers, authority):
    """Byte by byte it still works, as long as it takes less than the limit."""
    node = tls_node(servers, authority, workers=1)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = authority.context().wrap_bio(incoming, outgoing)
    with socket.create_connection((node.host, node.port), timeout=10) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                pass
            for byte in outgoing.read():
                raw.sendall(bytes([byte]))
                time.sleep(0.0005)
            incoming.write(raw.recv(500))
        session.write(b"PING\r\n")
        raw.sendall(outgoing.read())
        while True:
            try:
                assert session.read(7) == b"+PONG\r\n"
                break
            except ssl.SSLWantReadError:
                incoming.write(raw.recv(500))


@pytest.mark.sanitizer
def test_client_certificates(servers, authority, tmp_path):
    node = tls_node(servers, authority)
    stranger = Authority(str(tmp_path / "other"))
    forged = authority.context(None)
    forged.load_cert_chain(stranger.path("client.crt"), stranger.path("client.key"))
    secured(node, authority).close()
    refused(node, authority, certificate=None)
    refused(node, authority, context=forged)
    assert b"peer did not return a certificate" in node.log_text()
    node.cmd("CONFIG", "SET", "tls-auth-clients", "optional")
    secured(node, authority).close()
    secured(node, authority, certificate=None).close()
    refused(node, authority, context=forged)
    node.cmd("CONFIG", "SET", "tls-auth-clients", "no")
    secured(node, authority, certificate=None).close()
    secured(node, authority, context=forged).close()
    assert node.cmd("CONFIG", "SET", "tls-auth-clients", "yes")
    refused(node, authority, certificate=None)


def test_protocols_and_ciphers(servers, authority):
    node = tls_node(servers, authority)

    def limited(version, ciphers=None):
        context = authority.context()
        context.minimum_version = context.maximum_version = version
        if ciphers:
            context.set_ciphers(ciphers)
        return context
    v12, v13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
    for version, name in ((v12, "TLSv1.2"), (v13, "TLSv1.3")):
        with secured(node, authority, context=limited(version)) as wrapped:
            assert wrapped.version() == name
    node.cmd("CONFIG", "SET", "tls-protocols", "TLSv1.2")
    refused(node, authority, context=limited(v13))
    node.cmd("CONFIG", "SET", "tls-ciphers", "ECDHE-RSA-AES128-GCM-SHA256")
    with secured(node, authority, context=limited(v12)) as wrapped:
        assert wrapped.cipher()[0] == "ECDHE-RSA-AES128-GCM-SHA256"
    refused(node, authority, context=limited(v12, "ECDHE-RSA-AES256-GCM-SHA384"))
    node.cmd("CONFIG", "SET", "tls-protocols", "TLSv1.3", "tls-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256")
    refused(node, authority, context=limited(v12))
    with secured(node, authority) as wrapped:
        assert wrapped.cipher()[0] == "TLS_CHACHA20_POLY1305_SHA256"
    node.cmd("CONFIG", "SET", "tls-protocols", "TLSv1.2 TLSv1.3", "tls-ciphersuites", "", "tls-ciphers",
             "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256", "tls-prefer-server-ciphers", "yes")
    mine = limited(v12, "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384")
    with secured(node, authority, context=mine) as wrapped:
        assert wrapped.cipher()[0] == "ECDHE-RSA-AES256-GCM-SHA384"


@pytest.mark.parametrize("caching", ["yes", "no"])
def test_session_caching(servers, authority, caching):
    node = tls_node(servers, authority, tls_session_caching=caching, tls_protocols="TLSv1.2")
    context = authority.context()
    context.options |= ssl.OP_NO_TICKET
    session, reused = None, []
    for _ in range(2):
        raw = socket.create_connection((node.host, node.port), timeout=10)
        with context.wrap_socket(raw, session=session) as wrapped:
            wrapped.sendall(b"PING\r\n")
            assert wrapped.recv(7) == b"+PONG\r\n"
            session = wrapped.session
            reused.append(wrapped.session_reused)
    assert reused == [False, caching == "yes"]


def test_a_storm_of_handshakes_leaves_others_their_turn(servers, authority):
    """One worker, many clients that want to shake hands at once: who is connected goes on being served."""
    node = tls_node(servers, authority, workers=1)
    hellos = []
    for _ in range(150):
        out = ssl.MemoryBIO()
        with pytest.raises(ssl.SSLWantReadError):
            authority.context().wrap_bio(ssl.MemoryBIO(), out).do_handshake()
        hellos.append(out.read())
    client = node.new_client(single_connection_client=True)
    raws = [socket.create_connection((node.host, node.port), timeout=10) for _ in hellos]
    alone = min(_seconds(client.ping) for _ in range(20))
    for raw, hello in zip(raws, hellos):
        raw.sendall(hello)
    during = sorted(_seconds(client.ping) for _ in range(5))
    for raw in raws:
        raw.settimeout(20 * covey.PATIENCE)
        assert raw.recv(5)[:1] == b"\x16"
        raw.close()
    print(f"PING alone {alone * 1000:.1f} ms, during {[round(d * 1000, 1) for d in during]}")
    assert during[2] < 0.5 * covey.PATIENCE


def _seconds(action):
    began = time.monotonic()
    assert action()
    return time.monotonic() - began


def test_authorities_in_a_directory_and_a_certificate_for_outgoing_links(servers, authority, tmp_path):
    covey.run(["cp", authority.path("ca.crt"), str(tmp_path)])
    covey.run(["openssl", "rehash", str(tmp_path)])
    authority.make("outgoing")
    covey.run(["openssl", "dhparam", "-dsaparam", "-out", str(tmp_path / "dh.pem"), "2048"])
    directives = {**authority.directives, "tls_ca_cert_file": "", "tls_ca_cert_dir": str(tmp_path)}
    primary = servers.node(tls=authority, tls_replication="yes", tls_dh_params_file=str(tmp_path / "dh.pem"), **directives)
    context = authority.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("DHE-RSA-AES128-GCM-SHA256")
    with secured(primary, authority, context=context) as wrapped:
        assert wrapped.cipher()[0] == "DHE-RSA-AES128-GCM-SHA256"
    replica = servers.node(tls=authority, tls_replication="yes", tls_client_cert_file=authority.path("outgoing.crt"),
                           tls_client_key_file=authority.path("outgoing.key"), **directives)
    replica.cmd("REPLICAOF", primary.host, primary.port)
    primary.cmd("SET", "a", "b")
    wait_in_sync(primary, replica)
    # what goes out is that certificate: with a wrong key for it nothing is changed
    with pytest.raises(redis.ResponseError, match="Unable to update TLS configuration"):
        replica.cmd("CONFIG", "SET", "tls-client-key-file", authority.path("server.key"))
    assert replica.stat("master_link_status") == "up"


# ---------------------------------------------------------------------------------------------------- reloading

@pytest.mark.sanitizer
def test_certificates_are_replaced_under_load(servers, authority):
    node = tls_node(servers, authority)
    authority.make("second", "second server")
    stop, failures, count = threading.Event(), [], [0]

    def load():
        client = node.new_client(single_connection_client=True)
        try:
            while not stop.is_set():
                client.set("k", "v" * 5000)
                assert client.get("k") == b"v" * 5000
                count[0] += 1
        except Exception as error:
            failures.append(repr(error))
    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    names = []
    for name in ("second", "server", "second"):
        old = secured(node, authority)
        node.cmd("CONFIG", "SET", "tls-cert-file", authority.path(name + ".crt"), "tls-key-file", authority.path(name + ".key"))
        with secured(node, authority) as wrapped:
            names.append(common_name(wrapped))
        old.sendall(b"PING\r\n")
        assert old.recv(7) == b"+PONG\r\n"
        old.close()
    before = count[0]
    wait_for("the load to go on", lambda: count[0] > before + 20)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert names == ["second server", "server", "second server"] and not failures, failures
    # the same files with other contents, as a renewal brings them: any of the options reads them again
    os.replace(authority.path("second.crt"), authority.path("old.crt"))
    os.replace(authority.path("second.key"), authority.path("old.key"))
    authority.make("second", "renewed")
    node.cmd("CONFIG", "SET", "tls-cert-file", authority.path("second.crt"))
    with secured(node, authority) as wrapped:
        assert common_name(wrapped) == "renewed"


def test_a_bad_setting_changes_nothing(servers, authority):
    node = tls_node(servers, authority)
    authority.make("locked", password="sesame")
    bad = [("tls-cert-file", "/nonexistent"), ("tls-key-file", authority.path("client.key")), ("tls-ca-cert-file", "/nonexistent"),
           ("tls-ciphers", "none-such"), ("tls-ciphersuites", "none-such"), ("tls-protocols", "SSLv2"),
           ("tls-dh-params-file", "/nonexistent"), ("tls-key-file", authority.path("locked.locked.key"))]
    for name, value in bad:
        before = node.config_get(name)
        with pytest.raises(redis.ResponseError, match="Unable to update TLS configuration. Check server logs."):
            node.cmd("CONFIG", "SET", name, value)
        assert node.config_get(name) == before
        with secured(node, authority) as wrapped:
            assert common_name(wrapped) == "server"
    assert node.cmd("CONFIG", "SET", "tls-key-file", authority.path("locked.locked.key"), "tls-key-file-pass", "sesame",
                    "tls-cert-file", authority.path("locked.crt"))
    with secured(node, authority) as wrapped:
        assert common_name(wrapped) == "locked"


def test_a_bad_certificate_stops_the_start(servers, authority):
    node = servers.node(start=False, tls=authority, tls_cert_file="/nonexistent", tls_key_file="/nonexistent",
                        tls_ca_cert_file=authority.path("ca.crt"))
    node.start(wait=False)
    assert node.wait_exit(10) == 1
    assert b"No such file" in node.log_text() and b"Failed to configure TLS" in node.log_text()


# ---------------------------------------------------------------------------------------------------- replication

def syncs(node):
    return node.stat("sync_full"), node.stat("sync_partial_ok")


@pytest.mark.sanitizer
@both_ways
def test_replication(servers, authority, primary_kind, replica_kind):
    primary = tls_node(servers, authority, primary_kind, tls_replication="yes", repl_diskless_sync="yes")
    replica = tls_node(servers, authority, replica_kind, tls_replication="yes")
    fill_all_types(primary.client)
    populate(primary.client, 2000, size=500)
    replica.cmd("REPLICAOF", primary.host, primary.port)
    wait_in_sync(primary, replica)
    assert_same_data(dataset(primary), dataset(replica))
    assert primary.cmd("ROLE")[2][0][1] == str(replica.port).encode()
    full, partial = syncs(primary)
    for n in range(3):
        who, kind = (primary, "replica") if n % 2 == 0 else (replica, "master")
        assert who.cmd("CLIENT", "KILL", "TYPE", kind) == 1
        populate(primary.client, 500, prefix=f"round{n}", size=2000)
        wait_in_sync(primary, replica)
        assert syncs(primary) == (full, partial + n + 1), primary.log_tail() + replica.log_tail()
    client = primary.new_client(single_connection_client=True)
    client.set("waited", "for")
    assert client.execute_command("WAIT", 1, 5000) == 1
    assert_same_data(dataset(primary), dataset(replica))


@pytest.mark.sanitizer
def test_full_sync_under_writes(servers, authority):
    primary = tls_node(servers, authority, tls_replication="yes")
    populate(primary.client, 3000, size=10_000)
    replica = tls_node(servers, authority, tls_replication="yes")
    stop = threading.Event()

    def write():
        client = primary.new_client()
        n = 0
        while not stop.is_set():
            n += 1
            client.set(f"k{n % 3000}", f"new {n} " * 100)
    thread = threading.Thread(target=write)
    thread.start()
    try:
        replica.cmd("REPLICAOF", primary.host, primary.port)
        wait_for("the link", lambda: replica.stat("master_link_status") == "up", 30)
        time.sleep(0.5)
    finally:
        stop.set()
        thread.join(20)
    wait_in_sync(primary, replica)
    assert_same_data(dataset(primary), dataset(replica))
    assert syncs(primary)[0] == 1


def test_replication_needs_a_certificate(servers, authority, tmp_path):
    primary = tls_node(servers, authority, tls_replication="yes")
    stranger = Authority(str(tmp_path / "other"))
    replica = servers.node(tls=stranger, tls_replication="yes", **stranger.directives)
    replica.cmd("REPLICAOF", primary.host, primary.port)
    wait_for("the refusal", lambda: b"certificate verify failed" in replica.log_text())
    assert replica.stat("master_link_status") == "down" and primary.stat("connected_slaves") == 0
    assert primary.client.ping()


# ---------------------------------------------------------------------------------------------------- clusters

CLUSTER = {"tls_cluster": "yes", "tls_replication": "yes"}


@pytest.mark.parametrize("kinds", [pytest.param(["covey"] * 6, marks=pytest.mark.sanitizer),
                                   ["covey", "redis", "covey", "redis", "covey", "redis"]])
def test_cluster_survives_a_kill(servers, authority, kinds):
    cluster = servers.cluster(kinds, replicas=1, timeout=1000 * covey.PATIENCE, tls=authority, **authority.directives, **CLUSTER)
    cluster.populate(300)
    assert {line.port for line in cluster_nodes(cluster.nodes[0]).values()} == {node.port for node in cluster.nodes}
    primary, replicas = next((p, r) for p, r in cluster.pairs() if r)
    with Writer(cluster, timeout=2.0) as writer:
        killed = time.monotonic()
        primary.kill()
        cluster.wait_primary(replicas[0])
        writer.wait_flowing()
        primary.start()
        cluster.wait_replica_of(primary, replicas[0])
        writer.stop()
    cluster.wait_whole()
    writer.assert_kept(cluster.dataset(), [killed])
    cluster.assert_replicas_equal()


def test_cluster_by_redis_cli_and_ports(servers, authority):
    kinds = ["covey", "redis", "covey"]
    plain = {}
    nodes = []
    for kind in kinds:
        port = free_port()
        nodes.append(servers.node(kind, tls=authority, cluster_enabled="yes", cluster_node_timeout=1000, port=None,
                                  **authority.directives, **CLUSTER))
        nodes[-1].cmd("CONFIG", "SET", "port", port)
        plain[nodes[-1].port] = port
    cluster = covey.Cluster(nodes, 1000)
    cluster.create_by_cli()
    cluster.populate(300)
    slot = covey.key_slot("elsewhere")
    owner = cluster.owner(slot)
    other = next(n for n in nodes if n is not owner and n.kind == "covey")
    with pytest.raises(redis.ResponseError) as moved:
        other.new_client().execute_command("GET", "elsewhere")
    assert str(moved.value).endswith(f"{slot} 127.0.0.1:{owner.port}")

    def plainly(*words):
        client = redis.Redis("127.0.0.1", plain[other.port], socket_timeout=10)
        try:
            return client.execute_command(*words)
        finally:
            client.close()

    def sees_plain_ports():
        try:
            plainly("GET", "elsewhere")
        except redis.ResponseError as error:
            return str(error).endswith(f"{slot} 127.0.0.1:{plain[owner.port]}")
    wait_for("the plaintext port of the owner", sees_plain_ports)
    assert {entry[2][1] for entry in plainly("CLUSTER", "SLOTS")} == set(plain.values())
    assert {entry[2][1] for entry in other.cmd("CLUSTER", "SLOTS")} == set(plain)
    assert {int(line.split()[1].split(b"@")[0].split(b":")[1]) for line in plainly("CLUSTER", "NODES").splitlines()} == set(plain.values())
    shards = other.cmd("CLUSTER", "SHARDS")
    ports = set()
    for shard in shards:
        fields = shard[b"nodes"][0] if isinstance(shard, dict) else shard[3][0]
        fields = fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2]))
        ports.add((fields[b"tls-port"], fields[b"port"]))
    assert ports == set(plain.items())
    # MIGRATE between TLS nodes, both kinds, by redis-cli
    before = cluster.dataset()
    target = next(n for n in nodes if n is not owner)
    cluster.cli("reshard", "--cluster-from", owner.id, "--cluster-to", target.id, "--cluster-slots", 200, "--cluster-yes")
    cluster.wait_whole()
    assert cluster.dataset() == before
    cluster.cli("reshard", "--cluster-from", target.id, "--cluster-to", owner.id, "--cluster-slots", 200, "--cluster-yes")
    cluster.wait_whole()
    assert cluster.dataset() == before


def test_bus_does_not_talk_to_strangers(servers, authority, tmp_path):
    cluster = servers.cluster(["covey"] * 3, tls=authority, **authority.directives, **CLUSTER)
    stranger = Authority(str(tmp_path / "other"))
    bus = cluster.nodes[0].port + 10000
    outsider = servers.node(tls=stranger, cluster_enabled="yes", **stranger.directives, **CLUSTER)
    outsider.cmd("CLUSTER", "MEET", "127.0.0.1", cluster.nodes[0].port)
    silent = [socket.create_connection(("127.0.0.1", bus)) for _ in range(10)]
    with socket.create_connection(("127.0.0.1", bus), timeout=10) as raw:
        raw.sendall(b"RCmb" + bytes(3000))  # a plain frame
        raw.settimeout(10)
        try:
            while raw.recv(1000):
                pass
        except ConnectionError:
            pass
    with pytest.raises((ssl.SSLError, OSError)):  # certificates are asked for on the bus whatever tls-auth-clients says
        with authority.context(None).wrap_socket(socket.create_connection(("127.0.0.1", bus), timeout=10)) as wrapped:
            wrapped.sendall(b"x" * 16)
            assert wrapped.recv(1) == b""
            raise OSError("closed")
    for raw in silent:
        raw.settimeout(10 * covey.PATIENCE)
        assert raw.recv(1) == b""
        raw.close()
    time.sleep(1)
    assert len(cluster_nodes(cluster.nodes[0])) == 3
    cluster.wait_whole()
