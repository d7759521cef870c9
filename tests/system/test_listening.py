"""Ports and addresses: at the start, and changed while clients connect."""
import os
import socket
import stat
import threading
import time

import pytest
import redis

import covey
from covey import free_port, wait_for


def listens(port, host="127.0.0.1"):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as raw:
        raw.settimeout(5)
        try:
            raw.connect((host, port))
            raw.sendall(b"PING\r\n")
            return raw.recv(100).startswith(b"+PONG")
        except OSError:
            return False


def test_the_port_moves(servers):
    node = servers.node()
    client = node.client
    old, new = node.port, free_port()
    assert client.config_set("port", new)
    assert client.ping()  # connections stay
    wait_for("the old port to close", lambda: not listens(old))
    assert listens(new)
    assert client.info("server")["tcp_port"] == new
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", old))
        squatter.listen()
        with pytest.raises(redis.ResponseError) as error:
            client.config_set("port", old)
    assert str(error.value) == ("CONFIG SET failed (possibly related to argument 'port') - Unable to listen on this port. "
                                "Check server logs.")
    assert client.config_get("port")["port"] == str(new) and listens(new)
    assert client.config_set("port", 0)
    wait_for("no port to be open", lambda: not listens(new))
    assert client.ping()
    assert client.config_set("port", old) and listens(old)


def test_another_server_on_the_port_is_found(servers):
    """Also after the sockets were replaced on the same port, and by a server of the same user."""
    one, other = servers.node(), servers.node()
    for bind in ("127.0.0.1 ::1", "127.0.0.1"):
        assert one.cmd("CONFIG", "SET", "bind", bind)
        with pytest.raises(redis.ResponseError, match="Unable to listen on this port"):
            other.client.config_set("port", one.port)
    assert listens(other.port) and listens(one.port)


def test_addresses_change(servers):
    node = servers.node(bind="127.0.0.1")
    assert not listens(node.port, "::1") and not listens(node.port, "127.0.0.2")
    for bind, heard, unheard in [("127.0.0.1 ::1", ["127.0.0.1", "::1"], ["127.0.0.2"]),
                                 ("*", ["127.0.0.1", "127.0.0.2"], ["::1"]),
                                 ("* -::*", ["127.0.0.1", "127.0.0.2", "::1"], []),
                                 ("-1.2.3.4 127.0.0.1", ["127.0.0.1"], ["127.0.0.2", "::1"]),
                                 ("::1 127.0.0.1", ["127.0.0.1", "::1"], ["127.0.0.2"])]:
        assert node.cmd("CONFIG", "SET", "bind", bind) in (b"OK", True)
        for host in heard:
            assert listens(node.port, host), (bind, host)
        for host in unheard:
            wait_for(f"{host} to be closed ({bind})", lambda: not listens(node.port, host))
    for bad in ("1.2.3.4", "127.0.0.1 127.0.0.1", "no.such.host.invalid"):
        with pytest.raises(redis.ResponseError, match="Failed to bind to specified addresses."):
            node.cmd("CONFIG", "SET", "bind", bad)
        assert node.config_get("bind") == "::1 127.0.0.1" and listens(node.port, "::1") and listens(node.port)


def test_nobody_is_turned_away_meanwhile(servers):
    node = servers.node()
    stop, failures, count = threading.Event(), [], [0]

    def knock():
        while not stop.is_set():
            if not listens(node.port):
                failures.append(time.monotonic())
            count[0] += 1
    threads = [threading.Thread(target=knock) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(30):
        node.cmd("CONFIG", "SET", "bind", ["127.0.0.1 ::1", "*", "127.0.0.1"][n % 3])
        time.sleep(0.02)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert count[0] > 50
    # A connection whose handshake is half done when its socket goes is the kernel's to refuse.
    assert len(failures) <= count[0] / 100, (len(failures), count[0])


def test_several_options_or_none(servers):
    node = servers.node()
    new = free_port()
    with pytest.raises(redis.ResponseError, match="argument 'port'.*Unable to listen on this port"):
        node.cmd("CONFIG", "SET", "port", new, "maxclients", 77, "bind", "1.2.3.4")
    assert node.config_get("port") == str(node.port) and node.config_get("maxclients") != "77"
    assert listens(node.port) and not listens(new)


def test_unix_socket_mode(servers):
    for mode in ("700", "770", "777"):
        path = os.path.join(servers.directory("unix" + mode), "socket")
        node = servers.node(unixsocket=path, unixsocketperm=mode)
        assert stat.S_IMODE(os.stat(path).st_mode) == int(mode, 8)
        assert redis.Redis(unix_socket_path=path).ping()
        node.kill()


def test_bind_source_addr(servers):
    primary = servers.node()
    replica = servers.node(bind_source_addr="127.0.0.3")
    replica.cmd("REPLICAOF", primary.host, primary.port)
    wait_for("the link", lambda: replica.stat("master_link_status") == "up")
    assert any(line.split(b"addr=")[1].startswith(b"127.0.0.3:") for line in
               primary.new_client().execute_command("CLIENT", "LIST", "TYPE", "replica", **{"NEVER_DECODE": True}).splitlines() if line)


def test_keepalive_is_set(servers):
    """ss(8) shows the timer of the accepted sockets."""
    node = servers.node(tcp_keepalive=77)
    assert node.client.ping()
    shown = covey.run(["ss", "-tnoH", "sport", "=", f":{node.port}"])
    assert "timer:(keepalive,1min" in shown
    node.cmd("CONFIG", "SET", "tcp-keepalive", 0)
    node.new_client().ping()
    client = node.new_client(single_connection_client=True)
    port = client.connection._sock.getsockname()[1]
    line = next(line for line in covey.run(["ss", "-tnoH", "sport", "=", f":{node.port}"]).splitlines() if f":{port}" in line.split()[4])
    assert "keepalive" not in line


def test_socket_mark(servers):
    if os.geteuid() != 0:
        raise covey.TestFailure("SO_MARK needs CAP_NET_ADMIN: run the tests as root")
    node = servers.node(socket_mark_id=4711)
    shown = covey.run(["ss", "-tlnpeH", "sport", "=", f":{node.port}"])
    assert "fwmark:0x1267" in shown
