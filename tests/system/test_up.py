"""covey up and covey down: a whole cluster with one command."""
import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
import redis

import covey
from covey import Attached, Cluster, TestFailure, assert_same_data, free_ports, wait_for


class Up:
    """A running `covey up`, what it has printed so far, and the nodes it started."""

    def __init__(self, servers, *arguments, port=None, directory=None, nodes=6, wait=True):
        self.nodes_wanted = nodes
        covey.server_command("covey")  # says so when the binary is missing
        self.port = port or free_ports(2 * nodes)  # the proxies are behind the nodes
        self.dir = directory or servers.directory(f"up-{self.port}")
        self.text = ""
        self.pids = set()
        command = [covey.COVEY_BIN, "up", "--port", str(self.port), "--dir", self.dir, *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        text=True, bufsize=1, preexec_fn=self._prepare)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        servers.undo.append(self.clean)
        if wait:
            self.wait_whole()
            self.wait_text(rf"redis-cli -c -p {self.port}\b")  # how to connect, below the table

    @staticmethod
    def _prepare():
        covey.die_with_parent()
        os.setpgid(0, 0)

    def _read(self):
        for line in self.process.stdout:
            self.text += line

    def ports(self):
        return range(self.port, self.port + self.nodes_wanted)

    def wait_whole(self, timeout=40):
        def formed():
            if self.process.poll() not in (None, 0):
                raise TestFailure(f"covey up exited with {self.process.returncode} and said:\n{self.text}")
            nodes = [Attached(port) for port in self.ports()]
            self.pids.update(node.pid for node in nodes)
            cluster = Cluster(nodes, 0)
            replicas = sum(cluster.role(node) == "slave" for node in nodes)
            return cluster.whole() is None and replicas == self.nodes_wanted - 3 and cluster
        try:
            self.cluster = wait_for("covey up to form its cluster", formed, timeout, 0.2)
        except TestFailure as failure:
            raise TestFailure(f"{failure}\ncovey up said:\n{self.text}") from None
        return self.cluster

    def wait_text(self, pattern, timeout=15):
        try:
            return wait_for(f"/{pattern}/ in the output", lambda: re.search(pattern, self.text, re.I), timeout)
        except TestFailure as failure:
            raise TestFailure(f"{failure}\ncovey up said:\n{self.text}") from None

    def stop(self, number=signal.SIGINT, timeout=20):
        self.process.send_signal(number)
        return self.wait_exit(timeout)

    def wait_exit(self, timeout=20):
        try:
            code = self.process.wait(timeout * covey.PATIENCE)
        except subprocess.TimeoutExpired:
            raise TestFailure(f"covey up does not end; it said:\n{self.text}") from None
        self.reader.join(5)
        return code

    def clean(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for port in self.ports():
            with contextlib.suppress(redis.RedisError, OSError):
                self.pids.add(redis.Redis(port=port, socket_timeout=1).info("server")["process_id"])
        for pid in self.pids:
            with contextlib.suppress(OSError):
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    if self.dir.encode() in file.read() or os.readlink(f"/proc/{pid}/cwd").startswith(self.dir):
                        os.kill(pid, signal.SIGKILL)


def answering(ports):
    found = []
    for port in ports:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                found.append(port)
    return found


def running(pids):
    def alive(pid):
        try:
            with open(f"/proc/{pid}/stat") as file:
                return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
        except OSError:
            return False
    return [pid for pid in pids if alive(pid)]


@pytest.mark.sanitizer
def test_up_makes_a_cluster_and_prints_it(servers):
    up = Up(servers)
    cluster = up.cluster
    assert len(cluster.primaries()) == 3 and all(len(replicas) == 1 for _, replicas in cluster.pairs())
    up.wait_text(str(up.port + 5))
    for node in cluster.nodes:
        row = next((line for line in up.text.splitlines() if re.search(rf":{node.port}\b", line) and str(node.pid) in line), None)
        assert row, f"no line with the address and the pid {node.pid} of {node} in:\n{up.text}"
        assert ("primary" in row) == (cluster.role(node) == "master"), row
        assert ("replica" in row) == (cluster.role(node) == "slave"), row
    assert "0-5460" in up.text.replace(" ", "") or "0-5461" in up.text.replace(" ", "")
    cluster.populate(100)
    assert len(cluster.dataset()) == 100
    # Every node is an endpoint for plain clients, too.
    first, last = map(int, up.wait_text(r"any other client.*:(\d+), or .* to (\d+)").groups())
    assert last - first == 5
    for port in (first, last):
        plain = redis.Redis(port=port)
        wait_for("the proxy", plain.ping)
        assert plain.mset({f"{port}:{n}": n for n in range(50)})
        assert plain.mget([f"{port}:{n}" for n in range(50)]) == [b"%d" % n for n in range(50)]
        plain.close()


def test_proxies_can_be_left_out_or_put_elsewhere(servers):
    assert "any other client" not in Up(servers, "--proxy-port", 0).text
    first = free_ports(6)
    up = Up(servers, "--proxy-port", first)
    up.wait_text(rf"any other client.*:{first}, or .* to {first + 5}")
    assert redis.Redis(port=first + 5).ping()


def test_ctrl_c_stops_what_it_started_and_nothing_else(servers):
    bystander = servers.node("redis")
    other = servers.node("covey")
    up = Up(servers)
    code = up.stop()
    assert code in (0, 130), f"{code}:\n{up.text}"
    assert answering(up.ports()) == [] and running(up.pids) == []
    assert bystander.cmd("PING") and other.cmd("PING")


def test_same_directory_brings_the_same_cluster_back_with_its_data(servers):
    up = Up(servers)
    up.cluster.populate(1000)
    data, ids = up.cluster.dataset(), sorted(node.id for node in up.cluster.nodes)
    up.stop()
    again = Up(servers, port=up.port, directory=up.dir)
    assert sorted(node.id for node in again.cluster.nodes) == ids
    assert_same_data(data, again.cluster.dataset())
    again.stop(signal.SIGTERM)
    assert answering(up.ports()) == []


@pytest.mark.parametrize("offset", [3, 10002])
def test_busy_port_is_an_error_before_anything_starts(servers, offset):
    first = free_ports(6)
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", first + offset))
        squatter.listen()
        up = Up(servers, port=first, wait=False)
        code = up.wait_exit()
        assert code != 0
        assert str(first + offset) in up.text and re.search("in use|busy|taken", up.text), up.text
        assert [p for p in answering(up.ports()) if p != first + offset] == []
        assert not [name for _, _, files in os.walk(up.dir) for name in files if name == "nodes.conf"], "a node was started"


def test_killed_node_is_restarted_and_nothing_is_lost(servers):
    """The supervisor is fast: the primary may be back, empty, before anyone noticed. The data must survive."""
    up = Up(servers)
    up.cluster.populate(2000)
    up.cluster.assert_replicas_equal()
    data = up.cluster.dataset()
    victim = up.cluster.primaries()[0]
    victim.kill()
    wait_for("the node to be restarted", lambda: Attached(victim.port).pid != victim.pid, 20)
    cluster = up.wait_whole()
    assert_same_data(data, cluster.dataset())
    cluster.assert_replicas_equal()
    assert str(victim.port) in up.text.split("redis-cli", 1)[-1], f"the event is not shown:\n{up.text}"


def test_no_restart_leaves_it_dead(servers):
    up = Up(servers, "--no-restart")
    victim, (replica,) = up.cluster.pairs()[0]
    up.cluster.populate(500)
    up.cluster.assert_replicas_equal()
    data = up.cluster.dataset()
    seen = len(up.text)
    victim.kill()
    wait_for("the replica to be promoted", lambda: up.cluster.role(replica) == "master", 40)
    up.wait_text("promoted")
    up.wait_text("fail")
    assert str(replica.port) in up.text[seen:]
    time.sleep(2)
    assert answering([victim.port]) == [] and up.process.poll() is None
    up.cluster.nodes.remove(victim)
    wait_for("the slots to be served", lambda: covey.cluster_info(replica)["cluster_state"] == "ok")
    assert_same_data(data, up.cluster.dataset())
    up.stop()
    assert answering(up.ports()) == []


def test_detach_and_down(servers):
    up = Up(servers, "--detach")
    assert up.wait_exit() == 0, up.text
    up.wait_text(str(up.port + 5))
    up.cluster.populate(200)
    data = up.cluster.dataset()
    done = subprocess.run([covey.COVEY_BIN, "down", "--dir", up.dir], capture_output=True, text=True, timeout=40 * covey.PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    wait_for("all to be gone", lambda: answering(up.ports()) == [] and running(up.pids) == [])
    again = Up(servers, port=up.port, directory=up.dir)
    assert_same_data(data, again.cluster.dataset())
    again.stop()


def test_detached_supervisor_restarts_too(servers):
    up = Up(servers, "--detach")
    up.wait_exit()
    victim = up.cluster.nodes[-1]
    victim.kill()
    wait_for("the node to be restarted", lambda: Attached(victim.port).pid != victim.pid, 20)
    up.wait_whole()
    assert covey.run([covey.COVEY_BIN, "down", "--dir", up.dir], timeout=40) is not None
    wait_for("all to be gone", lambda: answering(up.ports()) == [])


def test_down_without_a_cluster_is_a_clear_error(servers):
    done = subprocess.run([covey.COVEY_BIN, "down", "--dir", servers.directory("nothing")], capture_output=True, text=True, timeout=20)
    assert done.returncode != 0 and (done.stdout + done.stderr).strip()


def test_second_up_in_a_used_directory_is_refused(servers):
    up = Up(servers)
    second = Up(servers, port=up.port, directory=up.dir, wait=False)
    assert second.wait_exit() != 0 and second.text.strip()
    assert up.wait_whole() and up.process.poll() is None
    second.pids.clear()


def test_other_sizes(servers):
    up = Up(servers, "--primaries", 3, "--replicas", 0, nodes=3)
    assert len(up.cluster.primaries()) == 3
    assert up.stop() in (0, 130)
    for arguments in (["--primaries", "0"], ["--primaries", "x"], ["--replicas", "-1"], ["--nonsense"], ["--port", "70000"]):
        done = subprocess.run([covey.COVEY_BIN, "up", "--dir", servers.directory("bad"), *arguments], capture_output=True, text=True,
                              timeout=20, stdin=subprocess.DEVNULL)
        assert done.returncode != 0 and (done.stdout + done.stderr).strip(), arguments
