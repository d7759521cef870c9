"""The end of a primary: replicas get what was written, within shutdown-timeout, and what signals do is configured.  The
same of redis-server."""
import signal
import subprocess
import threading
import time

import pytest
import redis

from covey import wait_for

KINDS = ["covey", "redis"]


def pair(servers, kind, **options):
    """A primary and a replica of it that is stopped and lacks the last write."""
    primary, replica = servers.node(kind, **options), servers.node(kind)
    replica.cmd("REPLICAOF", primary.host, primary.port)
    wait_for("the replica", lambda: replica.stat("master_link_status", "replication") == "up")
    wait_for("its acknowledgement", lambda: primary.cmd("WAIT", 1, 100) == 1)
    replica.pause()
    primary.cmd("SET", "last", "x")
    return primary, replica


def ended(node, seconds):
    node.expected_dead = True
    try:
        return node.process.wait(seconds) is not None
    except subprocess.TimeoutExpired:
        return False


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, "SHUTDOWN"])
def test_a_shutdown_waits_for_replicas(servers, kind, how):
    primary, replica = pair(servers, kind)
    info = primary.new_client()
    if how == "SHUTDOWN":
        sender = threading.Thread(target=lambda: pytest.raises(redis.ConnectionError, primary.new_client().execute_command, "SHUTDOWN"))
        sender.start()
    else:
        primary.signal(how)
    wait_for("the wait", lambda: "shutdown_in_milliseconds" in info.info("server"))
    assert 0 <= info.info("server")["shutdown_in_milliseconds"] <= 10000
    assert info.get("last") == b"x", "reads go on"
    writer = redis.Redis(primary.host, primary.port, socket_timeout=0.5)
    with pytest.raises(redis.TimeoutError):
        writer.set("later", 1)
    assert not ended(primary, 0.2)
    replica.resume()
    assert ended(primary, 5), "it ends as soon as the replica has everything"
    assert replica.cmd("GET", "last") == b"x" and replica.cmd("EXISTS", "later") == 0
    if how == "SHUTDOWN":
        sender.join()


@pytest.mark.parametrize("kind", KINDS)
def test_how_long_it_waits(servers, kind):
    primary, replica = pair(servers, kind, shutdown_timeout=1)
    began = time.monotonic()
    primary.signal(signal.SIGTERM)
    assert ended(primary, 10) and time.monotonic() - began > 0.9
    primary, replica = pair(servers, kind, shutdown_timeout=0)
    primary.signal(signal.SIGTERM)
    assert ended(primary, 2)
    primary, replica = pair(servers, kind)
    with pytest.raises(redis.ConnectionError):
        primary.new_client(socket_timeout=5).execute_command("SHUTDOWN", "NOW")
    assert ended(primary, 2)
    primary, replica = pair(servers, kind)
    primary.signal(signal.SIGINT)
    time.sleep(0.3)
    primary.signal(signal.SIGINT)
    assert ended(primary, 2) and primary.process.returncode == 1, "who insists does not wait"


@pytest.mark.parametrize("kind", KINDS)
def test_a_shutdown_is_aborted(servers, kind):
    primary, replica = pair(servers, kind)
    said = []

    def shut_down():
        try:
            primary.new_client().execute_command("SHUTDOWN")
        except redis.RedisError as error:
            said.append(str(error))
    senders = [threading.Thread(target=shut_down) for _ in range(2)]
    for sender in senders:
        sender.start()
    client = primary.new_client()
    wait_for("the wait", lambda: "shutdown_in_milliseconds" in client.info("server"))
    time.sleep(0.2)
    assert client.execute_command("SHUTDOWN", "ABORT") in (True, b"OK", "OK")
    for sender in senders:
        sender.join(5)
    assert len(said) == 2 and all("Errors trying to SHUTDOWN" in text for text in said), said
    assert client.set("a", 1) and "shutdown_in_milliseconds" not in client.info("server")
    for words in (["ABORT"], ["ABORT", "NOW"], ["SAVE", "NOSAVE"], ["LATER"]):
        with pytest.raises(redis.ResponseError, match="No shutdown in progress" if words == ["ABORT"] else "syntax error"):
            client.execute_command("SHUTDOWN", *words)
    replica.resume()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("option, saves", [("default", False), ("save", True), ("save now", True), ("nosave", False), ("now force", False)])
def test_what_a_signal_does(servers, kind, option, saves):
    node = servers.node(kind)
    assert node.cmd("CONFIG", "SET", "shutdown-on-sigterm", option, "shutdown-on-sigint", "nosave")
    node.cmd("SET", "a", 1)
    node.signal(signal.SIGTERM)
    assert ended(node, 5)
    node.start()
    assert node.cmd("EXISTS", "a") == saves
